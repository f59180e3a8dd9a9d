/* bench/serving.c - see serving.h. SPDX-License-Identifier: Apache-2.0 */
#include "bench/serving.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/paths.h"
#include "base/pool.h"
#include "base/stop.h"
#include "base/units.h"
#include "engine/kern.h"
#include "engine/launch.h"
#include "engine/need.h"
#include "engine/team.h"

enum { MANY_ROWS = 100000 };

#define AT(m) offsetof(struct serving_opts, m)
/* clang-format off */
const struct conf_row serving_rows[] = {
    { "out", CONF_TEXT, AT(out), NULL, NULL, 0, 0, "run file to write (HDF5); appears when complete" },
    { "json", CONF_BOOL, AT(json), "no", NULL, 0, 0, "one JSON object on stdout instead of text" },
    { "dry_run", CONF_BOOL, AT(dry_run), "no", NULL, 0, 0,
      "print the effective scenario and run nothing" },
    { "progress", CONF_BOOL, AT(progress), "no", NULL, 0, 0,
      "progress on stderr also without a terminal" },
    { "random_weights", CONF_INT, AT(random_seed), "1", NULL, 0, 9e15,
      "draw the weights from this seed; so it is where the model is a name or a config.json alone" },
    { "threads", CONF_INT, AT(threads), "0", NULL, 0, ENGINE_MAX_THREADS,
      "threads of a rank; 0: the processors shared out" },
    { "comm", CONF_WORD, AT(comm), "auto", LAUNCH_WORDS, 0, 0,
      "ranks as threads, or as processes under mpirun or srun" },
    { "stall", CONF_TIME, AT(stall_ns), LAUNCH_STALL_DFLT, NULL, 0, 86400, LAUNCH_STALL_HELP },
    { "device", CONF_TEXT, AT(device), "cpu", NULL, 0, 0, DEVICE_HELP },
    { "share_device", CONF_BOOL, AT(share_device), "no", NULL, 0, 0, DEVICE_SHARE_HELP },
    { "exchange", CONF_WORD, AT(exchange), "auto", DEVICE_LINK_WORDS, 0, 0, DEVICE_LINK_HELP },
    { "kernels", CONF_TEXT, AT(kernels), NULL, NULL, 0, 0, KERN_HELP },
    { "tokens", CONF_BOOL, AT(tokens), "no", NULL, 0, 0, "generated tokens in the run file" },
    { "temperature", CONF_NUMBER, AT(temperature), "0", NULL, 0, 100, "0: the likeliest token" },
    { "top_k", CONF_INT, AT(top_k), "0", NULL, 0, 1e7, "sample among so many; 0: all" },
    { "top_p", CONF_NUMBER, AT(top_p), "1", NULL, 1e-6, 1, "sample among this share of probability" },
    { .type = CONF_END }
};
/* clang-format on */
#undef AT

/* ---- settings */

/* A directory, a file as it is or beside the scenario, or a name in scenarios/models. The config.json
 * of a directory stands for the directory, but for that it may come without weights: a directory that
 * was named as such is a checkpoint. */
static int find_model(struct serving *v, bool random_given, struct err *e)
{
    struct stat info;
    const char *name = v->s->o.model;
    size_t n = sizeof v->model;
    bool dir = stat(name, &info) == 0 && S_ISDIR(info.st_mode);
    if (dir) {
        if ((size_t)snprintf(v->model, n, "%s", name) >= n)
            return err_set(e, ST_USAGE, "model: the path is too long");
    } else if (paths_resolve(name, v->s->path, "scenarios/models", ".json", v->model, n, NULL) !=
               ST_OK) {
        struct arch a; /* not there: the simulator's words, with the nearest name */
        struct deploy_request q = { .model = name, .beside = v->s->path };
        int st = deploy_model(&q, v->s->arena, &a, e);
        return st != ST_OK ? st : err_set(e, ST_USAGE, "model: cannot find '%.80s'", name);
    }
    char *slash = strrchr(v->model, '/');
    if (slash && slash > v->model && strcmp(slash, "/config.json") == 0) *slash = 0;
    int found = random_given ? ST_OK : weights_find(v->model, NULL, 0, dir ? e : NULL);
    if (dir && found != ST_OK) {
        err_prefix(e, "model");
        return found;
    }
    v->eo.random = random_given || found != ST_OK;
    v->eo.seed = (uint64_t)v->o.random_seed;
    return ST_OK;
}

static int device(struct serving *v, struct err *e)
{
    enum device_link exchange = (enum device_link)v->o.exchange;
    return device_options(v->o.device, v->o.share_device, exchange, &v->eo.device, e);
}

/* What the device keeps; the other formats are the other's. */
static int formats(struct serving *v, struct err *e)
{
    static const struct {
        enum dtype dtype;
        enum model_weight weight;
        enum backend_type kv; /* N_TYPE: none */
        bool cpu, gpu;
    } known[] = { { DT_F32, MODEL_F32, BACKEND_F32, true, true },
                  { DT_BF16, MODEL_BF16, BACKEND_BF16, true, true },
                  { DT_F16, MODEL_F16, BACKEND_F16, false, true },
                  { DT_FP8, MODEL_FP8, BACKEND_N_TYPE, false, true },
                  { DT_INT8, MODEL_INT8, BACKEND_N_TYPE, true, false } };
    const struct strategy *g = &v->s->strategy;
    bool gpu = v->eo.device.kind != DEVICE_CPU, weight = false, kv = false;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (!(gpu ? known[i].gpu : known[i].cpu)) continue;
        if (known[i].dtype == (enum dtype)g->weight_dtype) {
            v->eo.m.weight = known[i].weight;
            weight = true;
        }
        if (known[i].dtype == (enum dtype)g->kv_dtype && known[i].kv != BACKEND_N_TYPE) {
            v->eo.m.kv = known[i].kv;
            kv = true;
        }
    }
    if (!weight)
        return err_set(e, ST_USAGE, "strategy.weights: the engine runs %s, not %s",
                       gpu ? "bf16, f16, f32 or fp8 on a GPU" : "bf16, f32 or int8",
                       dtype_name((enum dtype)g->weight_dtype));
    return kv ? ST_OK
              : err_set(e, ST_USAGE, "strategy.kv: the engine keeps %s, not %s",
                        gpu ? "bf16, f16 or f32 on a GPU" : "bf16 or f32",
                        dtype_name((enum dtype)g->kv_dtype));
}

static int degrees(struct serving *v, struct err *e)
{
    const struct strategy *g = &v->s->strategy;
    const struct arch *a = &v->spec.a;
    if (g->dp > 1 && v->eo.mpi)
        return err_set(e, ST_USAGE,
                       "strategy.dp: %lld replicas run as threads of one process; start it "
                       "without mpirun or srun",
                       (long long)g->dp);
    if (g->ep != 1) return err_set(e, ST_USAGE, "strategy.ep: the engine runs no experts");
    v->n_replica = (int)g->dp;
    v->eo.tp = (int)g->tp;
    v->eo.pp = (int)g->pp;
    int st = shard_check(a, v->eo.tp, v->eo.pp, NULL, e);
    if (st != ST_OK) return st;
    if (!g->split || strcmp(g->split, "auto") == 0 || strcmp(g->split, "equal") == 0) return ST_OK;
    st = strategy_parse_split(g->split, a->n_layer, v->eo.pp, v->split, e);
    v->eo.split = v->split;
    return st;
}

/* KV blocks of a replica when none are given: as many as the running sequences can fill, or as fit in
 * its share of `memory`: what is free now, on GPUs less what steps take; beside the weights. */
static int64_t free_blocks(const struct serving *v, double memory, int64_t max_ctx)
{
    const struct sched_opts *p = &v->s->policy;
    const struct arch *a = &v->spec.a;
    double copies = v->eo.tp > a->n_kv_head ? (double)v->eo.tp / a->n_kv_head : 1;
    double token = a->n_layer * copies *
                   arch_kv_bytes_layer(a, dtype_bytes((enum dtype)v->s->strategy.kv_dtype));
    double weights = (double)arch_params(a) * dtype_bytes((enum dtype)v->s->strategy.weight_dtype);
    double fits =
        (p->memory_util * memory / v->n_replica - weights) / (token * (double)p->block_tok);
    int64_t most = p->max_seqs * ((max_ctx + p->block_tok - 1) / p->block_tok);
    return fits < 1 ? 0 : fits < (double)most ? (int64_t)fits : most;
}

static int sizes(struct serving *v, struct err *e)
{
    struct scenario *s = v->s;
    struct sched_opts *p = &s->policy;
    struct hw h = { 0 }; /* none: a small one */
    struct deploy_request q;
    int st = s->o.hardware ? hw_load(s->o.hardware, s->path, 1, s->arena, &h, e) : ST_OK;
    if (st != ST_OK) return st;
    scenario_request(s, &h, &q); /* the step's token budget, as simulate has it */
    int64_t ctx = p->max_model_len > 0 ? p->max_model_len : v->spec.a.max_ctx;
    if (ctx > v->spec.a.max_ctx)
        return err_set(e, ST_USAGE, "policy.max_model_len: %lldtok; the context of %s is %d",
                       (long long)ctx, v->spec.a.name, v->spec.a.max_ctx);
    if ((st = serve_check_table(p, ctx, e)) != ST_OK) return st;
    int64_t blocks = p->kv_blocks;
    if (blocks <= 0) {
        double memory = (double)sysconf(_SC_AVPHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
        int ranks = v->n_replica * v->eo.tp * v->eo.pp;
        if (v->eo.device.kind != DEVICE_CPU) {
            serve_sizes(p, 1, (int32_t)ctx, &v->eo);
            st = device_memory(&v->eo.device, ranks, &memory, e);
            memory -=
                ranks * (need_device_step_bytes(&v->spec, &v->eo.m) + NEED_DEVICE_LATER_BYTES);
        }
        if (st != ST_OK) return st;
        blocks = free_blocks(v, memory, ctx);
    }
    if (blocks == 0)
        return err_set(e, ST_USAGE, "the weights of %s%s leave no memory for a KV cache here",
                       v->spec.a.name, v->n_replica > 1 ? ", replicated," : "");
    st = serve_check(p, blocks, e);
    if (st == ST_OK) serve_sizes(p, blocks, (int32_t)ctx, &v->eo);
    return st;
}

/* A pool too small for anything is found before weights are loaded, not by refusing what arrives. */
static int some_fit(const struct serving *v, struct err *e)
{
    const struct scenario *s = v->s;
    struct trace *t = NULL;
    int st = trace_open(&s->workload, s->path, (uint64_t)s->sim.seed, &t, e);
    if (st == ST_OK) st = serve_fits(&s->policy, v->eo.m.n_block, v->eo.m.max_ctx, t, e);
    trace_close(t);
    return st;
}

int serving_prepare(struct serving *v, bool random_given, struct comm_mpi *mpi, struct err *e)
{
    struct scenario *s = v->s;
    if (s->n_sweep)
        return err_set(e, ST_USAGE,
                       "sweep: an engine runs one point; give the option a value "
                       "instead");
    v->eo.mpi = mpi;
    v->eo.operators = v->monitor_opts.operators;
    v->eo.kernels = v->o.kernels;
    v->eo.model = v->model;
    int st = device(v, e);
    if (st == ST_OK) st = find_model(v, random_given, e);
    if (st == ST_OK) st = spec_read(v->model, &v->spec, e);
    if (st == ST_OK) st = formats(v, e);
    if (st == ST_OK) st = degrees(v, e);
    if (st == ST_OK) st = sizes(v, e);
    if (st == ST_OK) st = some_fit(v, e);
    if (st != ST_OK) {
        scenario_place(s, e);
        return st;
    }
    int ranks = v->n_replica * v->eo.tp * v->eo.pp;
    v->eo.threads = v->o.threads > 0 ? (int)v->o.threads : engine_threads(mpi, ranks);
    v->line = arena_printf(
        s->arena,
        "%s TP%d-PP%d%s on this machine (%s%d rank%s of %d thread%s, %d processor%s), "
        "weights %s%s, KV %s, %s",
        v->spec.a.name, v->eo.tp, v->eo.pp,
        v->n_replica > 1 ? arena_printf(s->arena, "-DP%d", v->n_replica) : "",
        v->eo.device.kind == DEVICE_CPU ? "" : arena_printf(s->arena, "%s, ", v->o.device), ranks,
        units_s(ranks), v->eo.threads, units_s(v->eo.threads), team_cpus(), units_s(team_cpus()),
        dtype_name((enum dtype)s->strategy.weight_dtype), v->eo.random ? " drawn" : "",
        dtype_name((enum dtype)s->strategy.kv_dtype),
        (const char *[]){ "vllm", "sarathi", "orca", "static", "null" }[s->policy.policy]);
    return ST_OK;
}

/* ---- what the engine tells */

static void on_arrive(void *ctx, const struct trace_req *q, int left, int64_t now)
{
    struct serving *v = ctx;
    tally_arrive(&v->tally, q, left, now);
}

static void on_level(void *ctx, const struct serve_level *l)
{
    struct serving *v = ctx;
    tally_level(&v->tally, l);
}

static void on_gap(void *ctx, int64_t gap_ns)
{
    struct serving *v = ctx;
    tally_gap(&v->tally, gap_ns);
}

static void put_step(struct serving *v, const struct serve_step *s)
{
    struct store *t = &v->store;
    if (!t->run || !t->sink.step || v->n_row++ % v->row_stride) return;
    if (v->n_row / v->row_stride >= MANY_ROWS) v->row_stride *= 2;
    struct run_step row = { .replica = s->replica,
                            .t0_ns = s->t0_ns,
                            .t1_ns = s->t1_ns,
                            .kv_used_blocks = s->kv_used_blocks,
                            .n_step = 1,
                            .n_prefill_tok = (int32_t)s->shape.prefill_tok,
                            .n_decode = (int32_t)s->shape.n_decode,
                            .n_chunk = (int32_t)s->shape.n_prefill,
                            .n_logits = (int32_t)s->shape.n_logits,
                            .sum_ctx_tok = s->shape.sum_ctx,
                            .skew_tok = s->shape.skew,
                            .past_tok = s->shape.prefill_past,
                            .pairs = s->shape.prefill_pairs,
                            .host_ns = s->host_ns,
                            .queue = (int32_t)s->queue };
    t->sink.step(t, &row);
}

static void on_step(void *ctx, const struct serve_step *s)
{
    struct serving *v = ctx;
    const struct monitor *m = &v->each[s->replica];
    tally_step(&v->tally, s);
    monitor_step(&v->each[s->replica], s);
    put_step(v, s);
    if (!v->progress.on) return;
    int64_t running = 0, queue = 0, kv = 0;
    v->last[s->replica] = *s;
    for (int i = 0; i < v->n_replica; i++) {
        running += v->last[i].running;
        queue += v->last[i].queue;
        kv += v->last[i].kv_used_blocks;
    }
    snprintf(v->status, sizeof v->status,
             "engine  %lld running, %lld waiting, KV %.0f %%, %.3g ms a step, host %.1f %%",
             (long long)running, (long long)queue,
             100 * (double)kv / ((double)v->eo.m.n_block * v->n_replica), 1e3 * monitor_step_s(m),
             100 * monitor_schedule_share(m));
    progress_at(&v->progress, (double)v->n_request);
}

static void on_request(void *ctx, const struct run_request *row, int64_t id, int64_t t_ready,
                       const int32_t *tok)
{
    struct serving *v = ctx;
    struct store *t = &v->store;
    tally_request(&v->tally, row, id, t_ready, tok);
    journal_put(&v->journal, row, id);
    if (t->run) t->sink.request(t, row);
    for (int32_t i = 0; t->run && v->o.tokens && i < row->n_out && !t->e.status; i++) {
        struct run_token k = { v->n_request, tok[i] };
        run_put_token(t->run, &k, &t->e);
    }
    v->n_request++;
}

static void on_row(void *ctx, const struct run_monitor *row)
{
    struct serving *v = ctx;
    int rank = row->rank % (v->eo.tp * v->eo.pp); /* of its replica */
    if (rank % v->eo.tp == 0) tally_busy(&v->tally, rank / v->eo.tp, row->t1_ns - row->t0_ns);
    if (v->store.run && v->store.sink.step && !v->store.e.status)
        run_put_monitor(v->store.run, row, &v->store.e);
}

static void on_span(void *ctx, const struct run_span *row)
{
    struct serving *v = ctx;
    if (v->store.run) v->store.sink.span(&v->store, row);
}

static void on_anomaly(void *ctx, const struct run_anomaly *row)
{
    struct serving *v = ctx;
    if (v->store.run && !v->store.e.status) run_put_anomaly(v->store.run, row, &v->store.e);
}

static void on_classes(void *ctx, const double ns[STEP_N_CLASS])
{
    struct serving *v = ctx;
    tally_classes(&v->tally, ns);
}

/* ---- the run */

static bool read_rank(void *ctx, int64_t step, int rank, struct engine_rank_step *out)
{
    return engine_rank_step(ctx, step, rank, out);
}

static void begin_monitor(struct serving *v)
{
    const struct scenario_opts *o = &v->s->o;
    struct monitor_setup u = { .o = v->monitor_opts,
                               .tp = v->eo.tp,
                               .pp = v->eo.pp,
                               .kv_blocks = v->eo.m.n_block,
                               .block_tok = v->eo.m.block_tok,
                               .span_t0_ns = o->span_from_ns,
                               .read = read_rank };
    if (o->span_for_ns > 0) u.span_t1_ns = o->span_from_ns + o->span_for_ns;
    u.sink = (struct monitor_sink){
        .ctx = v, .row = on_row, .span = on_span, .anomaly = on_anomaly, .classes = on_classes
    };
    v->each = arena_array(v->s->arena, (size_t)v->n_replica, sizeof *v->each);
    v->last = arena_array(v->s->arena, (size_t)v->n_replica, sizeof *v->last);
    for (int i = 0; i < v->n_replica; i++) {
        u.replica = i;
        u.read_ctx = v->engine[i];
        monitor_init(&v->each[i], &u, v->s->arena);
    }
}

static void begin_tally(struct serving *v, const struct trace *t)
{
    const struct scenario *s = v->s;
    struct tally_setup u = { .slo = s->slo,
                             .trace = t,
                             .steady = trace_is_steady(t),
                             .warmup_ratio = s->sim.warmup_ratio,
                             .bin_ns = s->o.bin_ns,
                             .kv_blocks = v->eo.m.n_block,
                             .n_replica = v->n_replica,
                             .n_stage = v->eo.pp };
    if (u.warmup_ratio < 0) u.warmup_ratio = u.steady ? 0.1 : 0;
    u.warm_ns = (int64_t)(u.warmup_ratio * (double)s->workload.duration_ns);
    tally_init(&v->tally, &u, &v->m, s->arena);
}

/* ---- replicas, each on its own thread of the crew */

struct muster { /* one call on all of them */
    struct serving *v;
    struct err *e; /* [n_replica] */
};

static void open_one(void *ctx, int i, int n)
{
    struct muster *k = ctx;
    struct serving *v = k->v;
    struct engine_opts o = v->eo;
    int ranks = o.tp * o.pp;
    o.n_beside = n > 1 ? n * ranks : 0;
    o.n_before = i * ranks;
    v->engine[i] = engine_open(&o, &k->e[i]);
    if (!v->engine[i] && k->e[i].status == ST_OK) k->e[i].status = ST_USAGE;
}

static void stop_one(void *ctx, int i, int n)
{
    struct muster *k = ctx;
    (void)n;
    (void)engine_stop(k->v->engine[i], &k->e[i]);
}

static void close_one(void *ctx, int i, int n)
{
    struct muster *k = ctx;
    (void)n;
    engine_close(k->v->engine[i]);
    k->v->engine[i] = NULL;
}

/* Its status is that of the first replica that failed. */
static int on_all(struct serving *v, team_fn fn, struct err *e)
{
    struct muster k = { v, mem_zalloc((size_t)v->n_replica, sizeof *k.e) };
    int st = ST_OK;
    if (v->crew)
        team_run(v->crew, fn, &k);
    else
        fn(&k, 0, 1);
    for (int i = 0; i < v->n_replica && st == ST_OK; i++)
        if (k.e[i].status != ST_OK) st = err_set(e, k.e[i].status, "%s", k.e[i].text);
    free(k.e);
    return st;
}

static int open_engines(struct serving *v, struct err *e)
{
    v->engine = arena_array(v->s->arena, (size_t)v->n_replica, sizeof *v->engine);
    if (v->n_replica > 1) {
        int st = need_memory(&v->spec, &v->eo.m, v->n_replica, e);
        if (st != ST_OK) return st;
        v->crew = team_open(v->n_replica, -1, 0, e);
        if (!v->crew) return ST_DEVICE;
    }
    return on_all(v, open_one, e);
}

static int run_trace(struct serving *v, struct trace *t, struct err *e)
{
    const struct scenario *s = v->s;
    struct serve_sink sink = { .ctx = v,
                               .arrive = on_arrive,
                               .level = on_level,
                               .step = on_step,
                               .gap = on_gap,
                               .request = on_request };
    struct serve_device *dev = arena_array(s->arena, (size_t)v->n_replica, sizeof *dev);
    struct serve_setup u = { .dev = dev,
                             .n_replica = v->n_replica,
                             .router = s->sim.router,
                             .crew = v->crew,
                             .sched = &s->policy,
                             .kv_blocks = v->eo.m.n_block,
                             .max_ctx = v->eo.m.max_ctx,
                             .vocab = v->spec.a.vocab,
                             .trace = t,
                             .seed = (uint64_t)s->sim.seed,
                             .temperature = (float)v->o.temperature,
                             .top_p = (float)v->o.top_p,
                             .top_k = (int32_t)v->o.top_k,
                             .limit_ns = s->sim.limit_ns,
                             .sink = &sink };
    int64_t t0 = clock_mono_ns();
    for (int i = 0; i < v->n_replica; i++) dev[i] = serve_engine(v->engine[i]);
    progress_start(&v->progress, v->status, "requests", v->total > 0 ? (double)v->total : 0,
                   v->o.progress);
    snprintf(v->status, sizeof v->status, "engine");
    v->failed = serve_run(&u, s->arena, &v->result, &v->failure);
    if (v->failed == ST_OK && v->result.stopped)
        v->failed = engine_stopped(v->engine[0], &v->failure);
    progress_end(&v->progress);
    v->wall_s = 1e-9 * (double)(clock_mono_ns() - t0);
    int st = v->failed == ST_DEVICE ? ST_OK : on_all(v, stop_one, e);
    for (int i = 0; i < v->n_replica && v->failed != ST_DEVICE; i++) monitor_end(&v->each[i]);
    monitor_join(&v->monitor, v->each, v->n_replica, s->arena);
    tally_end(&v->tally, &v->result);
    return st;
}

/* The sizes of what runs, in the form that printing and storing know. */
static void describe(struct serving *v)
{
    struct deploy *d = &v->d;
    const struct scenario *s = v->s;
    d->arch = v->spec.a;
    d->strategy = s->strategy;
    d->n_stage = v->eo.pp;
    d->kv_blocks = v->eo.m.n_block;
    d->lim = (struct memory_limits){ s->policy.max_batch_tok, s->policy.max_seqs,
                                     s->policy.block_tok, s->policy.memory_util };
    d->hw.n_node = 1;
    d->hw.sys.name = d->hw.gpu.name = "this machine";
    d->hw.sys.n_gpu = v->n_replica * v->eo.tp * v->eo.pp;
    d->hw.gpu.mem_bytes = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    int ranks = v->eo.tp * v->eo.pp;
    for (int k = 0; k < v->n_replica * ranks; k++) {
        int i = k % ranks;
        struct engine_rank_report r;
        struct shard sh;
        struct deploy_stage *g = &d->stage[i / v->eo.tp];
        engine_report(v->engine[k / ranks], i, &r);
        shard_of(&v->spec.a, v->eo.tp, v->eo.pp, v->eo.split, i, &sh);
        g->step.n_layer = sh.n_layer;
        if ((double)r.weight_bytes > g->mem.weights) g->mem.weights = (double)r.weight_bytes;
        g->mem.kv_token =
            (double)r.kv_bytes / ((double)v->eo.m.n_block * (double)v->eo.m.block_tok);
        v->read_bytes += r.read_bytes;
        v->weight_bytes += r.weight_bytes;
        v->kv_bytes += r.kv_bytes;
        if (r.load_s > v->load_s) v->load_s = r.load_s;
    }
}

static void summarise(struct serving *v)
{
    struct outcome *o = &v->outcome;
    double sum[4] = { 0 }, all = 0;
    metrics_init(&o->first);
    metrics_init(&o->all);
    metrics_merge(&o->first, &v->m);
    metrics_merge(&o->all, &v->m);
    outcome_single(o);
    for (int i = 0; i < v->monitor.n_rank; i++) {
        const struct monitor_rank *r = &v->monitor.rank[i];
        sum[0] += (double)r->compute_ns;
        sum[1] += (double)r->comm_ns;
        sum[2] += (double)r->wait_ns;
        sum[3] += (double)r->host_ns;
    }
    for (int k = 0; k < 4; k++) all += sum[k];
    o->coverage = "measured";
    o->bottleneck =
        all > 0 ? arena_printf(v->s->arena,
                               "of the ranks' time in steps: compute %.1f %%, communication %.1f "
                               "%%, waiting %.1f %%, host %.1f %%",
                               100 * sum[0] / all, 100 * sum[1] / all, 100 * sum[2] / all,
                               100 * sum[3] / all)
                : "nothing ran";
}

static int finish_file(struct serving *v, int argc, char *const *argv, struct err *e)
{
    struct store *t = &v->store;
    struct prov p;
    double kv_all = (double)v->eo.m.n_block * v->n_replica;
    struct print_in in = { .s = v->s,
                           .d = &v->d,
                           .o = &v->outcome,
                           .wall_s = v->wall_s,
                           .out_path = v->o.out,
                           .line = v->line };
    if (!t->e.status) run_settle(t->run, &t->e);
    for (int i = 0; i < v->tally.series.n; i++) {
        struct run_bin row;
        series_row(&v->tally.series, i, kv_all, v->m.t_stop_ns, &row);
        t->sink.bin(t, &row);
    }
    if (v->journal.e.status && !t->e.status) t->e = v->journal.e;
    prov_collect(&p, argc, argv);
    serving_store(v);
    int st = store_finish(t, &in, &p, e);
    prov_release(&p);
    journal_close(&v->journal, st == ST_OK);
    return st;
}

/* What a journal says of its run, for who has nothing else of it. */
static char *about(const struct serving *v)
{
    char *yaml = NULL, *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&yaml, &n);
    if (!f) return NULL;
    scenario_echo(v->s, f);
    fclose(f);
    if (!(f = open_memstream(&text, &n))) return free(yaml), NULL;
    fprintf(f,
            "# orrery engine recover THIS --out=RUN.h5 makes a run file of it\n"
            "#measured %s\n#workload %s\n#scenario %s\n",
            v->line, v->outcome.workload, v->s->path);
    for (char *at = yaml, *end; (end = strchr(at, '\n')); at = end + 1)
        fprintf(f, "#|%.*s\n", (int)(end - at), at);
    fclose(f);
    free(yaml);
    return text;
}

static int start_files(struct serving *v, struct err *e)
{
    int st = store_begin(&v->store, v->o.out, v->s->o.steps, e);
    if (st != ST_OK) return st;
    st = run_prepare(v->store.run, v->s->o.steps, v->o.tokens, e);
    if (st == ST_OK) {
        char *text = about(v);
        st = journal_open(&v->journal, v->o.out, text ? text : "", e);
        free(text);
    }
    if (st != ST_OK) store_abort(&v->store);
    return st;
}

int serving_run(struct serving *v, int argc, char *const *argv, struct err *e)
{
    struct scenario *s = v->s;
    struct trace *t = NULL;
    int st = trace_open(&s->workload, s->path, (uint64_t)s->sim.seed, &t, e);
    if (st != ST_OK) return st;
    v->outcome.workload = arena_printf(s->arena, "%s", trace_describe(t));
    v->total = trace_total(t);
    v->journal.fd = -1;
    v->row_stride = 1;
    metrics_init(&v->m);
    int cpus = noise_cpus(); /* before threads are pinned */
    st = open_engines(v, e);
    if (st == ST_OK && v->o.out) st = start_files(v, e);
    if (st == ST_OK) {
        begin_tally(v, t);
        begin_monitor(v);
        int here = v->eo.mpi ? comm_mpi_place(v->eo.mpi)->n : v->eo.tp * v->eo.pp;
        double helpers = v->eo.mpi ? (double)(here - 1) * v->eo.threads : 0;
        noise_begin(&v->noise, helpers, here * v->eo.threads > cpus, &v->quiet);
        st = run_trace(v, t, e);
        noise_end(&v->noise, &v->quiet);
        describe(v);
        summarise(v);
        if (v->store.run && st == ST_OK) st = finish_file(v, argc, argv, e);
        if (v->store.run) store_abort(&v->store);
    }
    trace_close(t);
    return st;
}

void serving_release(struct serving *v)
{
    if (v->engine) (void)on_all(v, close_one, NULL);
    team_close(v->crew);
    journal_close(&v->journal, false);
    metrics_release(&v->m);
    outcome_release(&v->outcome);
}
