/* engine/cmd_engine.c - `orrery engine generate`: token ids in, token ids out.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/cmd_engine.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/conf.h"
#include "base/json.h"
#include "base/paths.h"
#include "base/units.h"
#include "engine/generate.h"
#include "engine/kern.h"
#include "engine/launch.h"

static const char usage[] =
    "orrery engine: a model run for real, tensor- and pipeline-parallel, on this machine's "
    "processors or GPUs\n"
    "\n"
    "  orrery engine generate --model=DIR --tokens=1,2,3 [--max-new=16] [--tp=2] [--pp=2] ...\n"
    "  orrery engine generate --model=CONFIG.json --random-weights=SEED --tokens=1,2,3 ...\n"
    "\n"
    "DIR holds config.json and model.safetensors (or an index and its files). CONFIG.json may be "
    "the "
    "name of\n"
    "a shape in scenarios/models. The continuation goes to standard output as token ids.\n"
    "\n"
    "Ranks are threads of one process, or processes: started by mpirun or `srun --mpi=pmix -K1` "
    "(Open MPI),\n"
    "tp x pp of them. More than there are cores: mpirun --oversubscribe --bind-to none. As root "
    "mpirun "
    "wants\n"
    "OMPI_ALLOW_RUN_AS_ROOT=1 and OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 in the environment. Options are "
    "those\nof rank 0; what other ranks were given is not used.\n"
    "Exit status: 0; 2 a wrong option or file; 5 reading, writing or a rank failed; 130 "
    "interrupted.\n";
static const char examples[] =
    "\nExamples\n"
    "  orrery engine generate --model=llama-25m --random-weights=1 --tokens=1,2,3 --max-new=32\n"
    "  orrery engine generate --model=~/Llama-3.2-1B --tokens=128000,9906 --tp=2 --json\n"
    "  orrery engine generate --model=llama-110m --random-weights=1 --tokens=5 --tp=2 --pp=2 "
    "--temperature=0.8 --top-k=40\n"
    "  mpirun -n 4 orrery engine generate --model=llama-110m --random-weights=1 --tokens=5 --tp=2 "
    "--pp=2\n"
    "  orrery engine generate --model=~/Llama-3.1-8B --tokens=128000,9906 --device=cuda\n";

struct cmd {
    const char *model, *tokens, *layers, *kernels, *device;
    int64_t random, max_new, tp, pp, threads, chunk, top_k, seed, stall_ns;
    int weights, kv, comm, exchange;
    double temperature, top_p;
    bool json, logits, share;
};
#define AT(member) offsetof(struct cmd, member)
/* clang-format off */
static const struct conf_row rows[] = {
    { "model", CONF_TEXT, AT(model), NULL, NULL, 0, 0,
      "directory of a checkpoint, or a config.json" },
    { "random_weights", CONF_INT, AT(random), NULL, NULL, 0, 9e15,
      "draw the weights from this seed; only config.json is read" },
    { "tokens", CONF_TEXT, AT(tokens), NULL, NULL, 0, 0, "the prompt: token ids with commas" },
    { "max_new", CONF_INT, AT(max_new), "16", NULL, 1, 1e6, "tokens to generate" },
    { "tp", CONF_INT, AT(tp), "1", NULL, 1, 256, "tensor-parallel ranks of a stage" },
    { "pp", CONF_INT, AT(pp), "1", NULL, 1, 128, "pipeline stages" },
    { "layers", CONF_TEXT, AT(layers), NULL, NULL, 0, 0,
      "layers of each stage with commas; even where not given" },
    { "threads", CONF_INT, AT(threads), "0", NULL, 0, 256,
      "threads of a rank; 0: the processors shared out" },
    { "comm", CONF_WORD, AT(comm), "auto", LAUNCH_WORDS, 0, 0,
      "ranks are threads of this process, or processes of mpirun or srun (auto: as it was started)" },
    { "stall", CONF_TIME, AT(stall_ns), LAUNCH_STALL_DFLT, NULL, 0, 86400, LAUNCH_STALL_HELP },
    { "device", CONF_TEXT, AT(device), "cpu", NULL, 0, 0, DEVICE_HELP },
    { "share_device", CONF_BOOL, AT(share), "no", NULL, 0, 0, DEVICE_SHARE_HELP },
    { "exchange", CONF_WORD, AT(exchange), "auto", DEVICE_LINK_WORDS, 0, 0, DEVICE_LINK_HELP },
    { "weights", CONF_WORD, AT(weights), "auto", MODEL_WEIGHT_WORDS, 0, 0,
      "format in memory; auto: bf16 stays (on a GPU f16 too), others become f32" },
    { "kv_dtype", CONF_WORD, AT(kv), "f32", "f32 bf16 f16", 0, 0, "format of the KV cache" },
    { "temperature", CONF_NUMBER, AT(temperature), "0", NULL, 0, 100, "0: the likeliest token" },
    { "top_k", CONF_INT, AT(top_k), "0", NULL, 0, 1e7, "sample among so many; 0: all" },
    { "top_p", CONF_NUMBER, AT(top_p), "1", NULL, 1e-6, 1, "sample among this share of probability" },
    { "seed", CONF_INT, AT(seed), "1", NULL, 0, 9e15, "of sampling" },
    { "chunk", CONF_INT, AT(chunk), "512", NULL, 1, 65536, "prompt tokens of a step at most" },
    { "kernels", CONF_TEXT, AT(kernels), NULL, NULL, 0, 0, KERN_HELP },
    { "json", CONF_BOOL, AT(json), "no", NULL, 0, 0, "one JSON object with times and bytes" },
    { "logits", CONF_BOOL, AT(logits), "no", NULL, 0, 0, "with --json: logits of each new token" },
    { .type = CONF_END },
};
/* clang-format on */
#undef AT

/* Whole numbers lo..hi with commas between, into an array of the arena. */
static int read_list(const char *key, const char *text, const int64_t range[2], struct arena *a,
                     int32_t **out, struct err *e)
{
    size_t cap = 1;
    int32_t n = 0;
    for (const char *p = text; *p; p++) cap += *p == ',';
    *out = arena_array(a, cap, sizeof **out);
    for (const char *p = text;; p++) {
        char *end;
        errno = 0;
        long long v = strtoll(p, &end, 10);
        if (end == p || errno || v < range[0] || v > range[1] || (*end && *end != ',')) {
            err_set(e, ST_USAGE, "--%s: '%.40s' is not a list of whole numbers from %lld as 1,2,3",
                    key, text, (long long)range[0]);
            return -1;
        }
        (*out)[n++] = (int32_t)v;
        if (!*end) return n;
        p = end;
    }
}

/* A directory or file as it is, else a name in scenarios/models. */
static int find_model(const struct cmd *c, char *buf, size_t n, struct err *e)
{
    struct stat info;
    if (!c->model) return err_set(e, ST_USAGE, "--model is missing");
    if (stat(c->model, &info) == 0) {
        if ((size_t)snprintf(buf, n, "%s", c->model) < n) return ST_OK;
        return err_set(e, ST_USAGE, "--model: the path is too long");
    }
    int st = paths_resolve(c->model, NULL, "scenarios/models", ".json", buf, n, e);
    if (st != ST_OK) err_prefix(e, "--model");
    return st;
}

static void put_result(json_t *j, const struct generate_opts *o, const struct generate_result *r)
{
    json_t *tok = json_array();
    for (int32_t i = 0; i < o->max_new; i++) json_array_append_new(tok, json_integer(r->tok[i]));
    json_put_text(j, "model", o->e.model);
    json_put_i64(j, "tp", o->e.tp);
    json_put_i64(j, "pp", o->e.pp);
    json_put_i64(j, "threads", o->e.threads);
    json_put_text(j, "kernels", r->kernels);
    json_put(j, "tokens", tok);
    json_put_f64(j, "load_s", r->load_s);
    json_put_i64(j, "read_bytes", r->read_bytes);
    json_put_i64(j, "weight_bytes", r->weight_bytes);
    json_put_i64(j, "kv_bytes", r->kv_bytes);
    json_put_f64(j, "prefill_s", r->prefill_s);
    json_put_f64(j, "decode_s", r->decode_s);
    json_put_f64(j, "prefill_tok_per_s", o->n_prompt / r->prefill_s);
    if (o->max_new > 1) json_put_f64(j, "decode_tok_per_s", (o->max_new - 1) / r->decode_s);
    json_put_i64(j, "allreduce.calls", r->allreduce.calls);
    json_put_i64(j, "allreduce.bytes", r->allreduce.bytes);
    if (r->allreduce.calls)
        json_put_f64(j, "allreduce.mean_s",
                     1e-9 * (double)r->allreduce.ns / (double)r->allreduce.calls);
    json_put(j, "comm", comm_sum_json(&r->comm));
    if (!r->logits) return;
    json_t *all = json_array();
    for (int32_t i = 0; i < o->max_new; i++) {
        json_t *row = json_array();
        for (int32_t k = 0; k < r->vocab; k++) {
            json_t *v = json_real((double)r->logits[(size_t)i * (size_t)r->vocab + (size_t)k]);
            json_array_append_new(row, v ? v : json_null());
        }
        json_array_append_new(all, row);
    }
    json_put(j, "logits", all);
}

static int show(const struct cmd *c, const struct generate_opts *o, const struct generate_result *r,
                struct err *e)
{
    if (c->json) {
        json_t *j = json_object();
        put_result(j, o, r);
        json_print(j, stdout);
        json_decref(j);
    } else {
        for (int32_t i = 0; i < o->max_new; i++) printf("%s%d", i ? "," : "", r->tok[i]);
        putchar('\n');
    }
    if (fflush(stdout) != 0 || ferror(stdout))
        return err_set(e, ST_IO, "cannot write the result to stdout");
    fprintf(stderr, "%.1f MB of weights on %d rank%s in %.3g s; %d prompt token%s in %.3g s",
            1e-6 * (double)r->weight_bytes, o->e.tp * o->e.pp, units_s(o->e.tp * o->e.pp),
            r->load_s, o->n_prompt, units_s(o->n_prompt), r->prefill_s);
    if (o->max_new > 1) fprintf(stderr, ", then %.4g tokens/s", (o->max_new - 1) / r->decode_s);
    fprintf(stderr, " (%s kernels)\n", r->kernels);
    return ST_OK;
}

static int generate(const struct cmd *c, bool random, struct comm_mpi *mpi, struct arena *a,
                    struct err *e)
{
    static const int64_t token_range[2] = { 0, INT32_MAX }, layer_range[2] = { 1, 1 << 20 };
    char path[4096];
    int32_t *prompt = NULL, *split = NULL;
    struct generate_result r;
    struct generate_opts o = { .e = { .random = random,
                                      .seed = (uint64_t)c->random,
                                      .tp = (int)c->tp,
                                      .pp = (int)c->pp,
                                      .logits = c->logits,
                                      .threads = (int)c->threads,
                                      .kernels = c->kernels,
                                      .mpi = mpi,
                                      .model = path },
                               .max_new = (int32_t)c->max_new,
                               .chunk = (int32_t)c->chunk,
                               .temperature = (float)c->temperature,
                               .top_p = (float)c->top_p,
                               .top_k = (int32_t)c->top_k,
                               .seed = (uint64_t)c->seed };
    o.e.m.weight = (enum model_weight)c->weights;
    o.e.m.kv = (enum backend_type[]){ BACKEND_F32, BACKEND_BF16, BACKEND_F16 }[c->kv];
    enum device_link exchange = (enum device_link)c->exchange;
    int st = device_options(c->device, c->share, exchange, &o.e.device, e);
    if (st == ST_OK) st = find_model(c, path, sizeof path, e);
    if (st != ST_OK) return st;
    if (!c->tokens) return err_set(e, ST_USAGE, "--tokens is missing: the prompt as ids, 1,2,3");
    if (c->logits && !c->json) return err_set(e, ST_USAGE, "--logits goes with --json");
    o.n_prompt = read_list("tokens", c->tokens, token_range, a, &prompt, e);
    o.prompt = prompt;
    if (o.n_prompt < 0) return ST_USAGE;
    int n_split = c->layers ? read_list("layers", c->layers, layer_range, a, &split, e) : 0;
    if (n_split < 0) return ST_USAGE;
    if (split && n_split != o.e.pp)
        return err_set(e, ST_USAGE, "--layers: %d stages, but --pp is %d", n_split, o.e.pp);
    o.e.split = split;
    if (o.e.threads == 0) o.e.threads = engine_threads(mpi, o.e.tp * o.e.pp);
    st = generate_run(&o, &r, e);
    if (st != ST_OK) return st;
    st = show(c, &o, &r, e);
    generate_release(&r);
    return st;
}

static int run_verb(int argc, char **argv, struct launch *l, struct arena *a, struct err *e)
{
    struct cmd c = { 0 };
    struct conf_set set;
    struct conf_args args;
    conf_init(&set, a);
    conf_add(&set, rows, &c, "Options of generate");
    int st = conf_args(&set, argc, argv, &args, e);
    if (st != ST_OK) return st;
    if (args.help) {
        fputs(usage, stdout);
        conf_help(&set, stdout);
        fputs(examples, stdout);
        return ST_OK;
    }
    if (args.n_file != 1 || strcmp(args.file[0], "generate") != 0)
        return err_set(e, ST_USAGE, "takes run or generate first; see orrery engine --help");
    st = conf_apply_args(&set, &args, e);
    if (st == ST_OK) st = launch_start(l, (enum launch_comm)c.comm, e);
    if (st != ST_OK) return st;
    launch_stall(l, c.stall_ns);
    return l->follows ? engine_follow(l->mpi, NULL, e)
                      : generate(&c, conf_given(&set, "random_weights"), l->mpi, a, e);
}

int cmd_engine(int argc, char **argv)
{
    struct arena a;
    struct err e = { 0 };
    struct launch l = { 0 };
    arena_init(&a);
    int st = run_verb(argc, argv, &l, &a, &e);
    if (st != ST_OK) launch_say(&l, "orrery engine", e.text);
    launch_end(&l);
    arena_release(&a);
    if (st == ST_OK) return 0;
    return st == ST_USAGE || st == ST_RANGE ? 2 : st == ST_STOPPED ? 130 : 5;
}
