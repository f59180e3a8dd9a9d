/* bench/cmd_bench.c - `orrery bench`: microbenchmarks of this machine into a points file.
 * SPDX-License-Identifier: Apache-2.0 */
#include "bench/cmd_bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/conf.h"
#include "base/json.h"
#include "base/outfile.h"
#include "base/paths.h"
#include "base/stop.h"
#include "base/units.h"
#include "bench/suite_cuda.h"
#include "bench/suite_figure.h"
#include "bench/suite_run.h"
#include "engine/backend_timed.h"
#include "engine/launch.h"

static const char usage[] =
    "orrery bench: microbenchmarks of this machine, for `orrery calibrate`\n"
    "\n"
    "  orrery bench [--suite=quick|full|model] [--model=NAME] [--strategy.tp=N] [--out=bench.h5]\n"
    "  orrery bench --resume [the same options]\n"
    "  mpirun -n 2 orrery bench --suite=model --model=NAME --strategy.tp=2\n"
    "  orrery bench --device=cuda [--suite=...] [the same options]\n"
    "\n"
    "quick: a few points of each kind, to look at: too few for a profile. full: memory, "
    "arithmetic,\n"
    "products, attention, element-wise work, sampling, communication, storage, scheduler, clock, "
    "at\n"
    "the sizes of the model and strategy, and what model has. model: every operator inside the\n"
    "running engine, over a grid of step shapes. On a GPU: its memory, copies, launches, "
    "products,\n"
    "attention, element-wise work, sampling, messages between GPUs, whole steps; beside them "
    "power\n"
    "and clocks. Each point is measured --runs times, in an order that mixes all points; every\n"
    "sample is kept. The file appears, and replaces an older one, when all is measured. Until "
    "then\n"
    "each sample is in FILE.journal.csv as soon as it is taken: after Ctrl-C, a kill or a failure\n"
    "--resume goes on with it (with fewer --runs it may be complete as it is).\n"
    "Exit status: 0; 2 a wrong option or file; 4 a result was wrong, so its time says nothing; 5\n"
    "reading, writing or a rank failed; 130 interrupted.\n";
static const char examples[] =
    "\nExamples\n"
    "  orrery bench --suite quick\n"
    "  orrery bench --suite model --model llama-25m --strategy.tp 2 --threads 1 --out tp2.h5\n"
    "  orrery bench --suite full --dry-run\n"
    "  orrery bench --device cuda --model llama-3-8b --max_ctx 8ktok --max_batch 2ktok --kv_cache "
    "8GB\n";

#define COMM_WORDS "auto thread mpi"
struct opts {
    int suite, comm, weights, kv, exchange;
    const char *model, *out, *kernels, *dir, *device;
    int64_t tp, pp, threads, max_tok, max_ctx, max_seqs, block_tok, runs, seed, random_seed, run_ns,
        save_ns;
    double kv_bytes;
    bool json, dry_run, progress, resume, mpi_points, share;
};

#define AT(m) offsetof(struct opts, m)
/* clang-format off */
static const struct conf_row rows[] = {
    { "suite", CONF_WORD, AT(suite), "quick", SUITE_WORDS, 0, 0, "what to measure" },
    { "model", CONF_TEXT, AT(model), "llama-25m", NULL, 0, 0,
      "whose sizes: a name in scenarios/models, a config.json, a directory" },
    { "strategy.tp", CONF_INT, AT(tp), "1", NULL, 1, COMM_MAX_RANKS, "tensor-parallel ranks" },
    { "strategy.pp", CONF_INT, AT(pp), "1", NULL, 1, ENGINE_MAX_PP, "pipeline stages" },
    { "strategy.weights", CONF_WORD, AT(weights), "bf16", "f32 bf16 int8 f16 fp8", 0, 0,
      "type of the weights; f16 and fp8 on a GPU" },
    { "strategy.kv", CONF_WORD, AT(kv), "bf16", "f32 bf16 f16", 0, 0,
      "type of the KV cache; f16 on a GPU" },
    { "device", CONF_TEXT, AT(device), "cpu", NULL, 0, 0, DEVICE_HELP },
    { "share_device", CONF_BOOL, AT(share), "no", NULL, 0, 0, DEVICE_SHARE_HELP },
    { "exchange", CONF_WORD, AT(exchange), "auto", DEVICE_LINK_WORDS, 0, 0, DEVICE_LINK_HELP },
    { "threads", CONF_INT, AT(threads), "0", NULL, 0, ENGINE_MAX_THREADS,
      "threads of a rank; 0: the processors shared out" },
    { "comm", CONF_WORD, AT(comm), "auto", COMM_WORDS, 0, 0,
      "ranks as threads, or as processes under mpirun or srun" },
    { "kernels", CONF_TEXT, AT(kernels), NULL, NULL, 0, 0,
      "portable, avx2, avx512, ...; else the best for this processor" },
    { "random_weights", CONF_INT, AT(random_seed), "1", NULL, 0, 9e15, "draws weights where a model has none" },
    { "max_batch", CONF_TOKENS, AT(max_tok), "512tok", NULL, 8, 65536, "prompt tokens of a step at most" },
    { "max_ctx", CONF_TOKENS, AT(max_ctx), "0tok", NULL, 0, 16777216, "longest context; 0: the model's" },
    { "max_seqs", CONF_INT, AT(max_seqs), "64", NULL, 1, 1024, "sequences of a step at most" },
    { "block", CONF_TOKENS, AT(block_tok), "16tok", NULL, 8, 1024, "tokens of a KV block" },
    { "kv_cache", CONF_BYTES, AT(kv_bytes), "512MB", NULL, 1e3, 1e15, "KV cache of all ranks at most" },
    { "runs", CONF_INT, AT(runs), "0", NULL, 0, 1000, "repetitions; 0: 3 of quick, 5 of full and model" },
    { "run_time", CONF_TIME, AT(run_ns), "0s", NULL, 0, 10,
      "a repetition repeats its call for so long; 0: 10ms of quick, 20ms of full and model" },
    { "seed", CONF_INT, AT(seed), "1", NULL, 0, 9e15, "of the order" },
    { "mpi_points", CONF_BOOL, AT(mpi_points), "yes", NULL, 0, 0, "start mpirun for communication points" },
    { "storage", CONF_TEXT, AT(dir), ".", NULL, 0, 0, "directory whose storage is measured" },
    { "out", CONF_TEXT, AT(out), "bench.h5", NULL, 0, 0, "file to write (HDF5)" },
    { "save_every", CONF_TIME, AT(save_ns), "30s", NULL, 0, 86400,
      "so often what there is is forced onto the disk: a power failure loses no more" },
    { "resume", CONF_BOOL, AT(resume), "no", NULL, 0, 0,
      "go on with the journal of an interrupted run, or with more runs of a file" },
    { "json", CONF_BOOL, AT(json), "no", NULL, 0, 0, "one JSON object on stdout instead of text" },
    { "dry_run", CONF_BOOL, AT(dry_run), "no", NULL, 0, 0, "list what would be measured" },
    { "progress", CONF_BOOL, AT(progress), "no", NULL, 0, 0, "progress on stderr also without a terminal" },
    { .type = CONF_END }
};
/* clang-format on */
#undef AT

struct call {
    struct opts o;
    struct suite_opts so;
    struct suite s;
    struct suite_log log;
    struct launch l;
    const struct conf_set *set;
    char model[4096], self[4096];
    int runs, exit_status;
    int argc;
    char *const *argv; /* with the program's name in front */
};

static int written(FILE *f, struct err *e)
{
    return fflush(f) == 0 && !ferror(f) ? ST_OK
                                        : err_set(e, ST_IO, "cannot write the result to stdout");
}

/* ---- settings */

static bool there(const char *dir, const char *name)
{
    char path[4352];
    return (size_t)snprintf(path, sizeof path, "%s/%s", dir, name) < sizeof path &&
           access(path, R_OK) == 0;
}

static int find_model(struct call *k, struct err *e)
{
    struct stat info;
    const char *name = k->o.model;
    size_t n = sizeof k->model;
    if (!name) return err_set(e, ST_USAGE, "--model is missing");
    if (stat(name, &info) == 0) {
        if ((size_t)snprintf(k->model, n, "%s", name) >= n)
            return err_set(e, ST_USAGE, "--model: the path is too long");
    } else {
        int st = paths_resolve(name, NULL, "scenarios/models", ".json", k->model, n, e);
        if (st != ST_OK) {
            err_prefix(e, "--model");
            return ST_USAGE;
        }
    }
    k->so.random =
        !(there(k->model, "model.safetensors") || there(k->model, "model.safetensors.index.json"));
    return ST_OK;
}

static int device(struct call *k, struct err *e)
{
    const struct opts *o = &k->o;
    enum device_link exchange = (enum device_link)o->exchange;
    int st = device_options(o->device, o->share, exchange, &k->so.device, e);
    if (st != ST_OK) return st;
    bool gpu = k->so.device.kind != DEVICE_CPU;
    if (gpu && o->kernels)
        return err_set(e, ST_USAGE, "--kernels is for the processors, and the device is a GPU");
    if (gpu && k->l.mpi)
        return err_set(e, ST_USAGE, "--device=%.20s: start one process; its ranks are threads",
                       o->device);
    if (!gpu && (o->weights > 2 || o->kv > 1))
        return err_set(e, ST_USAGE, "f16 and fp8 need a GPU: --device=cuda");
    return ST_OK;
}

/* An option that was given and would change nothing is a mistake of some kind. */
static int refuse_idle(const struct call *k, struct err *e)
{
    const struct opts *o = &k->o;
    bool gpu = k->so.device.kind != DEVICE_CPU, model = o->suite == SUITE_MODEL;
    const struct {
        const char *key;
        bool idle;
        const char *why;
    } rule[] = {
        { "random_weights", !k->so.random, "the model has weights, none are drawn" },
        { "mpi_points", model, "--suite=model has no such points" },
        { "mpi_points", gpu, "a GPU has no such points" },
        { "storage", model && !gpu, "--suite=model does not measure storage" },
        { "json", o->dry_run && o->json, "--dry-run lists rows of CSV" },
        { "resume", o->dry_run && o->resume, "--dry-run reads no file" },
    };
    for (size_t i = 0; i < sizeof rule / sizeof *rule; i++)
        if (rule[i].idle && conf_given(k->set, rule[i].key))
            return err_set(e, ST_USAGE, "--%s: %s", rule[i].key, rule[i].why);
    return ST_OK;
}

static int settings(struct call *k, struct err *e)
{
    const struct opts *o = &k->o;
    static const enum model_weight weight[] = { MODEL_F32, MODEL_BF16, MODEL_INT8, MODEL_F16,
                                                MODEL_FP8 };
    static const enum backend_type kv[] = { BACKEND_F32, BACKEND_BF16, BACKEND_F16 };
    int st = find_model(k, e);
    if (st == ST_OK) st = device(k, e);
    if (st == ST_OK) st = refuse_idle(k, e);
    if (st != ST_OK) return st;
    if (o->block_tok % 8)
        return err_set(e, ST_USAGE, "--block: %lldtok is no multiple of 8",
                       (long long)o->block_tok);
    if (!o->out || !*o->out) return err_set(e, ST_USAGE, "--out: a file is needed");
    ssize_t n = readlink("/proc/self/exe", k->self, sizeof k->self - 1);
    if (n > 0) k->self[n] = 0;
    k->so.kind = o->suite;
    k->so.model = k->model;
    k->so.seed = (uint64_t)o->random_seed;
    k->so.tp = (int)o->tp;
    k->so.pp = (int)o->pp;
    k->so.weight = weight[o->weights];
    k->so.kv = kv[o->kv];
    k->so.max_tok = (int32_t)o->max_tok;
    k->so.max_ctx = (int32_t)o->max_ctx;
    k->so.max_seqs = (int32_t)o->max_seqs;
    k->so.block_tok = (int32_t)o->block_tok;
    k->so.kv_bytes = o->kv_bytes;
    k->so.run_s = o->run_ns ? 1e-9 * (double)o->run_ns : o->suite == SUITE_QUICK ? 0.01 : 0.02;
    k->so.kernels = o->kernels;
    k->so.dir = o->dir ? o->dir : ".";
    k->so.self = n > 0 && o->mpi_points ? k->self : NULL;
    k->so.mpi = k->l.mpi;
    k->so.threads = o->threads ? (int)o->threads : engine_threads(k->l.mpi, k->so.tp * k->so.pp);
    if (k->l.mpi && o->suite != SUITE_MODEL)
        return err_set(e, ST_USAGE,
                       "under mpirun or srun there is --suite=model only; for the "
                       "others start one process");
    k->runs = o->runs ? (int)o->runs : o->suite == SUITE_QUICK ? 3 : 5;
    return ST_OK;
}

/* ---- what is told */

static void count_ops(const struct suite *s, char *buf, size_t room)
{
    size_t at = 0;
    char word[32];
    buf[0] = 0;
    for (int op = 0; op < POINTS_N_OP; op++) {
        int n = 0;
        for (int i = 0; i < s->n_row; i++) n += s->row[i].op == op;
        if (n && at < room)
            at += (size_t)snprintf(buf + at, room - at, "%s%s %d", at ? ", " : "",
                                   points_word(POINTS_OP_WORDS, op, word, sizeof word), n);
    }
}

/* What the model or other options have made of sizes that were asked for. */
static void say_clipped(const struct call *k, FILE *f)
{
    const struct {
        const char *key;
        int64_t asked, taken;
    } size[] = { { "max_ctx", k->o.max_ctx, k->s.o.max_ctx },
                 { "max_batch", k->o.max_tok, k->s.o.max_tok } };
    for (size_t i = 0; i < sizeof size / sizeof *size; i++)
        if (conf_given(k->set, size[i].key) && size[i].asked > size[i].taken)
            fprintf(f, "orrery bench: --%s: %lldtok of the %lldtok, as the context ends there\n",
                    size[i].key, (long long)size[i].taken, (long long)size[i].asked);
}

/* Threads that wait for each other and have to take turns: minutes instead of milliseconds. */
static void say_crowded(const struct call *k, FILE *f)
{
    long n = (long)k->s.o.threads * k->s.o.tp * k->s.o.pp;
    bool gpu = k->so.device.kind != DEVICE_CPU;
    if (!gpu && k->o.threads && n > k->s.cpus && !k->l.mpi)
        fprintf(f,
                "orrery bench: %ld threads at once on %d processor%s: they take turns, which is "
                "slow and is what is measured\n",
                n, k->s.cpus, units_s(k->s.cpus));
}

static void say_plan(const struct call *k, FILE *f)
{
    const struct suite *s = &k->s;
    char time[32], kind[16], ops[400], where[96] = "";
    count_ops(s, ops, sizeof ops);
    if (s->cuda) snprintf(where, sizeof where, " on %s", s->cuda->g->info.name);
    units_human(UNIT_TIME, suite_round_s(s) * k->runs, time, sizeof time);
    fprintf(f,
            "bench %s, %s TP%d-PP%d%s, %d thread%s a rank: %d point%s in %d job%s, %d run%s: about "
            "%s\n",
            points_word(SUITE_WORDS, s->o.kind, kind, sizeof kind), s->spec.a.name, s->o.tp,
            s->o.pp, where, s->o.threads, units_s(s->o.threads), s->n_row, units_s(s->n_row),
            s->n_job, units_s(s->n_job), k->runs, units_s(k->runs), time);
    fprintf(f, "  %s\n", ops);
    for (int i = 0; i < s->n_skipped; i++) fprintf(f, "  skipped: %s\n", s->skipped[i]);
    say_clipped(k, f);
    say_crowded(k, f);
}

static void list(const struct call *k, FILE *f)
{
    const struct suite *s = &k->s;
    char op[32], part[32], dtype[32], comm[32];
    fprintf(f, "op,part,dtype,comm,threads,ranks,m,n,k,seqs,ctx,ctx_max,head_dim,bytes,flop,job\n");
    for (int j = 0; j < s->n_job; j++)
        for (int i = s->job[j].first; i < s->job[j].first + s->job[j].n; i++) {
            const struct points_row *r = &s->row[i];
            fprintf(f, "%s,%s,%s,%s,%d,%d,%lld,%lld,%lld,%lld,%lld,%lld,%lld,%.6g,%.6g,%s\n",
                    points_word(POINTS_OP_WORDS, r->op, op, sizeof op),
                    points_word(POINTS_PART_WORDS, r->part, part, sizeof part),
                    points_word(POINTS_DTYPE_WORDS, r->dtype, dtype, sizeof dtype),
                    points_word(POINTS_COMM_WORDS, r->comm, comm, sizeof comm), r->threads,
                    r->ranks, (long long)r->m, (long long)r->n, (long long)r->k, (long long)r->seqs,
                    (long long)r->ctx, (long long)r->ctx_max, (long long)r->head_dim, r->bytes,
                    r->flop, s->job[j].what);
        }
}

static double noisy_share(const struct suite_log *log)
{
    return log->n_sample ? (double)log->n_noisy / (double)log->n_sample : 0;
}

#define NOISY_SHARE 0.1 /* of the samples, from which on the machine is called noisy */

static void say_point(const struct call *k, int i, const char *what, FILE *f)
{
    const struct points_row *r = &k->s.row[i];
    double t = suite_median(&k->log, i);
    double spread = suite_spread(&k->log, i);
    char time[32], rate[48] = "", about[32] = "one run  ";
    if (!(t > 0)) return;
    if (!isnan(spread)) snprintf(about, sizeof about, "+- %4.1f %%", 100 * spread);
    if (r->op == POINTS_FMA)
        snprintf(rate, sizeof rate, "  %9.4g GFLOP/s", 1e-9 * r->flop / t);
    else if (r->bytes > 0 && r->op != POINTS_SAMPLE)
        snprintf(rate, sizeof rate, "  %9.4g GB/s", 1e-9 * r->bytes / t);
    else if (r->op == POINTS_STEP)
        snprintf(rate, sizeof rate, "  %9.4g tok/s", (double)r->m / t);
    fprintf(f, "  %-44s %10s  %s%s\n", what, units_human(UNIT_TIME, t, time, sizeof time), about,
            rate);
}

/* "gemm 2.1e-03 of 45, ...": the worst error of each kind and how many were compared. */
static void say_checked(const struct suite *s, FILE *f)
{
    char op[32];
    fprintf(f, "worst errors against references:");
    for (int i = 0; i < POINTS_N_OP; i++) {
        double worst = -1;
        int n = 0;
        for (int k = 0; k < s->n_row; k++) {
            if (s->row[k].op != i || s->row[k].error < 0) continue;
            worst = fmax(worst, s->row[k].error);
            n++;
        }
        if (n)
            fprintf(f, " %s %.2g of %d point%s,", points_word(POINTS_OP_WORDS, i, op, sizeof op),
                    worst, n, units_s(n));
    }
    fprintf(f, " others not compared\n");
}

static void say_figures(const struct call *k, FILE *f)
{
    struct suite_figure x[SUITE_FIGURE_MAX];
    int n = suite_figures(&k->s, &k->log, x);
    double power = NAN, hot = NAN, slowest = NAN;
    int64_t slowed = 0;
    for (int i = 0; i < n; i++) suite_figure_print(&x[i], f);
    for (int64_t i = 0; i < k->log.n_gpu; i++) {
        const struct points_gpu *g = &k->log.gpu[i];
        power = fmax(power, g->power_max_w);
        hot = fmax(hot, g->temperature_c);
        slowest = fmin(slowest, g->clock_min_hz);
        slowed += (g->slowed & NVML_DISTURBED) != 0;
    }
    if (k->log.n_gpu > 0)
        fprintf(f,
                "GPU: at most %.0f W and %.0f degC, multiprocessors at %.0f MHz or more; slowed by "
                "heat or its supply in %lld of the %lld time%s that a job ran\n",
                power, hot, 1e-6 * slowest, (long long)slowed, (long long)k->log.n_gpu,
                units_s(k->log.n_gpu));
}

static void say_result(const struct call *k, FILE *f)
{
    const struct suite *s = &k->s;
    const struct suite_log *log = &k->log;
    char wall[32], all[32];
    int runs = suite_runs(log);
    if (runs > 1)
        fprintf(f, "median of %d runs, half the distance of the quartiles\n", runs);
    else
        fprintf(f, "of one run: its times have no spread (--runs)\n");
    for (int j = 0; j < s->n_job; j++) {
        int i = s->job[j].first;
        if (s->job[j].n == 1 || s->row[i].op == POINTS_STEP || s->row[i].op == POINTS_TIMER)
            say_point(k, i, s->job[j].what, f);
    }
    fprintf(f, "%lld sample%s of %d point%s in %s", (long long)log->n_sample,
            units_s(log->n_sample), s->n_row, units_s(s->n_row),
            units_human(UNIT_TIME, log->t0_s + log->wall_s, all, sizeof all));
    if (log->n_resumed)
        fprintf(f, " (%lld of them before it went on, the other %lld in %s)",
                (long long)log->n_resumed, (long long)(log->n_sample - log->n_resumed),
                units_human(UNIT_TIME, log->wall_s, wall, sizeof wall));
    if (k->o.out) fprintf(f, ", in %s", k->o.out);
    fputc('\n', f);
    say_checked(s, f);
    if (s->cuda) {
        say_figures(k, f);
        return;
    }
    fprintf(f, "the clock took at most %.2f %% of a step\n", 100 * s->clock_share);
}

static void say_noise(const struct call *k)
{
    const struct suite_log *log = &k->log;
    double share = noisy_share(log);
    if (log->n_noisy == 0) return;
    fprintf(stderr,
            "orrery bench: %s%lld of %lld sample%s (%.0f %%) while the machine was busy with "
            "something else",
            share > NOISY_SHARE ? "NOISY MACHINE: " : "", (long long)log->n_noisy,
            (long long)log->n_sample, units_s(log->n_sample), 100 * share);
    if (log->n_sample > log->n_resumed) /* of those before it is not known */
        fprintf(stderr, " (%sat worst %.0f %% of it, %.0f %% taken by the hypervisor)",
                log->n_resumed ? "since it goes on " : "", 100 * log->noise.worst_others,
                100 * log->noise.worst_steal);
    fputc('\n', stderr);
}

static json_t *figures_json(const struct call *k)
{
    struct suite_figure x[SUITE_FIGURE_MAX];
    json_t *list = json_array();
    char word[32];
    int n = suite_figures(&k->s, &k->log, x);
    for (int i = 0; i < n; i++) {
        json_t *j = json_object();
        json_put_text(j, "name", x[i].name);
        json_put_text(j, "unit", x[i].unit);
        json_put_f64(j, "value", x[i].value);
        json_put_f64(j, "ceiling", x[i].ceiling);
        json_put_f64(j, "share", x[i].share);
        json_put_f64(j, "bar", x[i].bar);
        json_put_bool(j, "below", x[i].below);
        json_put_text(j, "verdict",
                      points_word(SUITE_VERDICT_WORDS, (int)x[i].verdict, word, sizeof word));
        json_array_append_new(list, j);
    }
    return list;
}

static void print_json(const struct call *k)
{
    const struct suite *s = &k->s;
    json_t *j = json_object(), *limits = json_array(), *skipped = json_array();
    char word[32];
    json_put_text(j, "suite", points_word(SUITE_WORDS, s->o.kind, word, sizeof word));
    json_put_text(j, "model", s->spec.a.name);
    json_put_i64(j, "tp", s->o.tp);
    json_put_i64(j, "pp", s->o.pp);
    json_put_i64(j, "threads", s->o.threads);
    json_put_i64(j, "points", s->n_row);
    json_put_i64(j, "jobs", s->n_job);
    json_put_i64(j, "runs", suite_runs(&k->log));
    json_put_i64(j, "samples", k->log.n_sample);
    json_put_i64(j, "resumed", k->log.n_resumed);
    json_put_bool(j, "complete", k->log.complete);
    json_put_f64(j, "estimate_s", suite_round_s(s) * k->runs);
    json_put_f64(j, "wall_s", k->log.wall_s);
    json_put_f64(j, "wall_all_s", k->log.t0_s + k->log.wall_s);
    json_put_f64(j, "noise.share", noisy_share(&k->log));
    json_put_bool(j, "noise.noisy", noisy_share(&k->log) > NOISY_SHARE);
    json_put_f64(j, "clock.s", s->clock_s);
    json_put_f64(j, "clock.share_of_step", s->clock_share);
    for (int i = 0; i < s->n_row; i++) {
        const struct points_row *r = &s->row[i];
        json_t *x;
        double t = suite_median(&k->log, i);
        if (r->op > POINTS_FMA || !(t > 0)) continue;
        x = json_object();
        json_put_text(x, "op", points_word(POINTS_OP_WORDS, r->op, word, sizeof word));
        json_put_text(x, "dtype", points_word(POINTS_DTYPE_WORDS, r->dtype, word, sizeof word));
        json_put_i64(x, "threads", r->threads);
        json_put_f64(x, "per_s", (r->op == POINTS_FMA ? r->flop : r->bytes) / t);
        json_array_append_new(limits, x);
    }
    json_put(j, "limits", limits);
    if (s->cuda) json_put(j, "figures", figures_json(k));
    for (int i = 0; i < s->n_skipped; i++)
        json_array_append_new(skipped, json_string(s->skipped[i]));
    json_put(j, "skipped", skipped);
    json_put_i64(j, "wrong_point", suite_wrong(s));
    json_put_text(j, "out", k->o.out);
    json_print(j, stdout);
    json_decref(j);
}

/* ---- the verb */

static void say_set_aside(const char *path)
{
    fprintf(stderr, "orrery bench: what an interrupted benchmark had measured is kept in %s\n",
            path);
}

static int measure(struct call *k, struct err *e)
{
    struct suite_run_opts ro = { .out = k->o.out,
                                 .runs = k->runs,
                                 .seed = (uint64_t)k->o.seed,
                                 .resume = k->o.resume,
                                 .progress = k->o.progress,
                                 .save_s = 1e-9 * (double)k->o.save_ns,
                                 .argc = k->argc,
                                 .argv = k->argv,
                                 .set_aside = say_set_aside };
    say_plan(k, stderr);
    int n_skipped = k->s.n_skipped;
    int st = suite_run(&k->s, &ro, &k->log, e);
    for (int i = n_skipped; i < k->s.n_skipped; i++) /* found out on the way */
        fprintf(stderr, "orrery bench: skipped: %s\n", k->s.skipped[i]);
    say_noise(k);
    if (st != ST_OK && k->log.journal.n_kept)
        err_prefix(e, "%lld sample%s in %s, --resume goes on", (long long)k->log.journal.n_kept,
                   k->log.journal.n_kept == 1 ? " is" : "s are", k->log.journal.path);
    if (st != ST_OK) return st;
    if (k->o.json)
        print_json(k);
    else
        say_result(k, stdout);
    int wrong = suite_wrong(&k->s);
    if (wrong >= 0) {
        const struct points_row *r = &k->s.row[wrong];
        char op[32];
        k->exit_status = 4;
        fprintf(stderr,
                "orrery bench: a result is wrong: %s of m %lld, n %lld, k %lld is off by %.2g; its "
                "time says nothing\n",
                points_word(POINTS_OP_WORDS, r->op, op, sizeof op), (long long)r->m,
                (long long)r->n, (long long)r->k, r->error);
    }
    return written(stdout, e);
}

/* The result, and files that are made to be read again. */
static int writable(const struct call *k, struct err *e)
{
    char path[4352];
    int st = outfile_check(k->o.out, true, e);
    if (st != ST_OK || k->o.suite == SUITE_MODEL) return st;
    snprintf(path, sizeof path, "%.4000s/orrery-bench", k->so.dir);
    st = outfile_check(path, true, e);
    if (st != ST_OK) err_prefix(e, "--storage");
    return st;
}

static int run_verb(struct call *k, struct arena *a, struct err *e)
{
    struct conf_set set;
    struct conf_args args;
    k->set = &set;
    conf_init(&set, a);
    conf_add(&set, rows, &k->o, "bench");
    int st = conf_args(&set, k->argc - 1, k->argv + 1, &args, e);
    if (st != ST_OK) return st;
    if (args.help) {
        fputs(usage, stdout);
        conf_help(&set, stdout);
        fputs(examples, stdout);
        return ST_OK; /* whether it went out is main's to see: a reader may leave early */
    }
    if (args.n_file)
        return err_set(e, ST_USAGE, "bench takes options only; see orrery bench --help");
    st = conf_apply_args(&set, &args, e);
    if (st == ST_OK) st = launch_start(&k->l, (enum launch_comm)k->o.comm, e);
    if (st != ST_OK) return st;
    if (k->l.follows) return engine_follow(k->l.mpi, backend_timed_open, e);
    st = settings(k, e);
    if (st == ST_OK && !k->o.dry_run) st = writable(k, e);
    if (st == ST_OK) st = suite_init(&k->s, &k->so, e);
    if (st != ST_OK) return st;
    if (k->o.dry_run) {
        say_plan(k, stderr);
        list(k, stdout);
        st = written(stdout, e);
    } else {
        st = measure(k, e);
    }
    suite_log_release(&k->log);
    suite_release(&k->s);
    return st;
}

int cmd_bench(int argc, char **argv)
{
    struct arena a;
    struct err e = { 0 };
    if (argc > 1 && strcmp(argv[1], "--comm-worker") == 0) {
        int bad = suite_comm_worker(argc, argv, &e);
        if (bad != ST_OK) fprintf(stderr, "orrery bench: %s\n", e.text);
        return bad == ST_OK ? 0 : 5;
    }
    struct call *k = mem_zalloc(1, sizeof *k);
    static char name[] = "orrery";
    char **full = mem_alloc(((size_t)argc + 2) * sizeof *full);
    full[0] = name;
    for (int i = 0; i <= argc; i++) full[i + 1] = argv[i];
    arena_init(&a);
    k->argc = argc + 1;
    k->argv = full;
    int st = run_verb(k, &a, &e), exit_status = k->exit_status;
    if (st != ST_OK) launch_say(&k->l, "orrery bench", e.text);
    launch_end(&k->l);
    arena_release(&a);
    free(full);
    free(k);
    if (st == ST_OK) return exit_status;
    return st == ST_USAGE || st == ST_RANGE ? 2 : st == ST_STOPPED ? 130 : 5;
}
