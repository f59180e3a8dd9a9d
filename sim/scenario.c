/* sim/scenario.c - see scenario.h. SPDX-License-Identifier: Apache-2.0 */
#include "sim/scenario.h"

#include <ctype.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/paths.h"
#include "base/units.h"
#include "base/utf8.h"
#include "model/profile_file.h"

enum { N_ENGINE = 4 };
static const char *const engines[N_ENGINE] = { "any", "vllm", "trtllm", "orrery" };
enum { BIG_BATCH_TOK = 8192, SMALL_BATCH_TOK = 2048 };
static const double BIG_GPU_BYTES =
    70e9; /* vLLM 0.19 usage-context defaults: from 70 GiB class GPUs on */

#define AT(m) offsetof(struct scenario_opts, m)
static const struct conf_row rows[] = {
    { "title", CONF_TEXT, AT(title), NULL, NULL, 0, 0, "the question the scenario asks" },
    { "model", CONF_TEXT, AT(model), NULL, NULL, 0, 0,
      "name in scenarios/models, or path of a config.json" },
    { "hardware.name", CONF_TEXT, AT(hardware), NULL, NULL, 0, 0,
      "system or GPU of the catalog, or path of one like it" },
    { "hardware.nodes", CONF_INT, AT(nodes), "0", NULL, 0, 1e6,
      "nodes; 0: as many as the strategy fills" },
    { "hardware.engine", CONF_WORD, AT(engine), "vllm", "any vllm trtllm orrery", 0, 0,
      "whose kernels and host times; a measured profile says its own" },
    { "hardware.profile", CONF_TEXT, AT(measured), NULL, NULL, 0, 0,
      "measured profile (PROFILE.h5) to take constants from; alone, it is the hardware too" },
    { "hardware.kernels", CONF_TEXT, AT(kernels), NULL, NULL, 0, 0,
      "directory of measured kernel tables" },
    { "hardware.fixed_step", CONF_TIME, AT(fixed_ns), "0s", NULL, 0, 3600,
      "every step takes this long on every stage, whatever it holds; 0s: by the model" },
    { "record.bin", CONF_TIME, AT(bin_ns), "1s", NULL, 1e-6, 1e6,
      "bins of the time series; doubled when over 4096" },
    { "record.stages_from", CONF_TIME, AT(span_from_ns), "0s", NULL, 0, 3e9,
      "when to begin recording what stages do" },
    { "record.stages_for", CONF_TIME, AT(span_for_ns), "0s", NULL, 0, 1e6,
      "for how long; 0s: not at all" },
    { "record.steps", CONF_BOOL, AT(steps), "true", NULL, 0, 0,
      "rows of engine steps in the run file" },
    { .type = CONF_END }
};
#undef AT
#define AT(m) offsetof(struct slo, m)
static const struct conf_row slo_rows[] = {
    { "slo.ttft", CONF_TIME, AT(ttft_ns), "0s", NULL, 0, 1e6,
      "longest time to first token, from due; 0s: no such clause" },
    { "slo.tpot", CONF_TIME, AT(tpot_ns), "0s", NULL, 0, 1e6,
      "longest mean time per output token after the first" },
    { "slo.e2e", CONF_TIME, AT(e2e_ns), "0s", NULL, 0, 1e6, "longest time from due to last token" },
    { "slo.attainment", CONF_NUMBER, AT(attain_ratio), "0.99", NULL, 0, 1,
      "share of requests that must meet all clauses" },
    { .type = CONF_END }
};
#undef AT

void scenario_init(struct scenario *s, const struct conf_row *extra, void *extra_base,
                   struct arena *a)
{
    memset(s, 0, sizeof *s);
    s->arena = a;
    conf_init(&s->conf, a);
    conf_add(&s->conf, rows, &s->o, "scenario");
    conf_add(&s->conf, strategy_rows, &s->strategy, "strategy");
    conf_add(&s->conf, trace_rows, &s->workload, "workload");
    conf_add(&s->conf, sched_rows, &s->policy, "policy");
    conf_add(&s->conf, slo_rows, &s->slo, "SLO");
    conf_add(&s->conf, sim_rows, &s->sim, "simulation");
    s->n_own = s->conf.n_table;
    if (extra) conf_add(&s->conf, extra, extra_base, "command"); /* last: no part of the scenario */
}

/* ---- profile constants and sweeps */

static int add_constant(struct scenario *s, const char *name, const char *text, const char *where,
                        struct err *e)
{
    struct profile known = { 0 };
    double v = NAN;
    int64_t ns;
    if (profile_set(&known, name, 1, e) != ST_OK) {
        err_prefix(e, "%s", where);
        return ST_USAGE;
    }
    if (units_parse_ns(text, &ns, NULL) == ST_OK)
        v = 1e-9 * (double)ns;
    else if (units_parse(UNIT_BYTES_PER_S, text, &v, NULL) != ST_OK &&
             units_parse(UNIT_BYTES, text, &v, NULL) != ST_OK)
        units_parse(UNIT_RATIO, text, &v, NULL);
    if (!(v >= 0) || !isfinite(v))
        return err_set(
            e, ST_USAGE,
            "%s: profile.%s: '%.40s' is no constant; write 1.5ms, 300GB/s, 8kB or a pure number",
            where, name, text);
    for (int i = 0; i < s->n_profile; i++)
        if (strcmp(s->profile[i].name, name) == 0) {
            s->profile[i].v = v;
            return ST_OK;
        }
    s->profile[s->n_profile].name = name;
    s->profile[s->n_profile++].v = v;
    return ST_OK;
}

/* profile: {host.step: 1ms} and profile: {host: {step: 1ms}} are the same. */
static int read_constants(struct scenario *s, const struct doc *d, const char *above, struct err *e)
{
    char place[300];
    if (!d) return ST_OK;
    if (d->kind != DOC_MAP)
        return err_set(e, ST_USAGE, "%s: profile is a map of constants",
                       doc_place(d, place, sizeof place));
    for (const struct doc *c = d->first; c; c = c->next) {
        const char *name = *above ? arena_printf(s->arena, "%s.%s", above, c->key) : c->key;
        int st = c->kind == DOC_SCALAR
                     ? add_constant(s, name, c->text, doc_place(c, place, sizeof place), e)
                     : read_constants(s, c, name, e);
        if (st != ST_OK) return st;
    }
    return ST_OK;
}

/* The key exists and takes every value. */
static int check_sweep(struct scenario *s, const char *where, struct err *e)
{
    struct scenario *probe = arena_alloc(s->arena, sizeof *probe);
    scenario_init(probe, NULL, NULL, s->arena);
    for (int i = 0; i < s->n_sweep; i++) {
        int st = conf_set_text(&probe->conf, s->sweep_key, s->sweep[i], where, e);
        if (st != ST_OK) return st;
    }
    return s->n_sweep ? ST_OK : err_set(e, ST_USAGE, "%s: no values to sweep over", where);
}

static int read_sweep(struct scenario *s, const struct doc *d, struct err *e)
{
    char place[300];
    if (!d) return ST_OK;
    doc_place(d, place, sizeof place);
    if (d->kind != DOC_MAP || d->n != 1 || d->first->kind != DOC_LIST)
        return err_set(e, ST_USAGE,
                       "%s: sweep is one option with a list, as {workload.rate: [2/s, 4/s]}",
                       place);
    s->sweep_key = d->first->key;
    for (const struct doc *v = d->first->first; v; v = v->next) {
        if (v->kind != DOC_SCALAR || s->n_sweep == SCENARIO_MAX_SWEEP)
            return err_set(e, ST_USAGE, "%s: sweep takes up to %d plain values",
                           doc_place(v, place, sizeof place), SCENARIO_MAX_SWEEP);
        s->sweep[s->n_sweep++] = v->text;
    }
    return check_sweep(s, doc_place(d->first, place, sizeof place), e);
}

/* --sweep=workload.rate=2/s,4/s */
static int sweep_text(struct scenario *s, const char *text, struct err *e)
{
    const char *equal = strchr(text, '=');
    if (!equal || !equal[1])
        return err_set(e, ST_USAGE, "--sweep: write --sweep=workload.rate=2/s,4/s");
    s->sweep_key = arena_copy_text(s->arena, text, (size_t)(equal - text));
    s->n_sweep = 0;
    for (const char *p = equal + 1;; p++) {
        size_t n = strcspn(p, ",");
        if (s->n_sweep == SCENARIO_MAX_SWEEP)
            return err_set(e, ST_USAGE, "--sweep: more than %d values", SCENARIO_MAX_SWEEP);
        s->sweep[s->n_sweep++] = arena_copy_text(s->arena, p, n);
        p += n;
        if (!*p) break;
    }
    return check_sweep(s, "--sweep", e);
}

/* ---- reading */

static int apply_args(struct scenario *s, const struct conf_args *args, struct err *e)
{
    for (int i = 0; args && i < args->n_option; i++) {
        const struct conf_option *o = &args->option[i];
        int st;
        if (strncmp(o->key, "profile.", 8) == 0)
            st = add_constant(s, o->key + 8, o->text, o->where, e);
        else if (strcmp(o->key, "sweep") == 0)
            st = sweep_text(s, o->text, e);
        else
            st = conf_set_text(&s->conf, o->key, o->text, o->where, e);
        if (st != ST_OK) return st;
    }
    return ST_OK;
}

/* The file here, else the one of that name that came with the program. */
static const char *locate(const char *path, struct arena *a)
{
    char found[4096];
    if (*path == '/' || access(path, R_OK) == 0) return path;
    if (paths_find(path, found, sizeof found, NULL) != ST_OK) return path;
    return arena_copy_text(a, found, strlen(found));
}

/* What s->doc says, then the options. */
static int read_tree(struct scenario *s, const struct conf_args *args, struct err *e)
{
    const char *path = s->path;
    struct conf_set own = s->conf; /* a file does not set the command's own options */
    own.n_table = s->n_own;
    int st = ST_OK;
    bool served = conf_find(&own, "monitor.window", NULL); /* only an engine has a monitor */
    const char *others = served ? "profile sweep" : "profile sweep monitor";
    if (st == ST_OK) st = conf_apply(&own, s->doc, others, e);
    if (st == ST_OK) st = read_constants(s, doc_get(s->doc, "profile"), "", e);
    if (st == ST_OK) st = read_sweep(s, doc_get(s->doc, "sweep"), e);
    if (st == ST_OK) st = apply_args(s, args, e);
    if (st == ST_OK && s->o.title) { /* one line, also in reports and on terminals */
        char *line = arena_copy_text(s->arena, s->o.title, strlen(s->o.title));
        utf8_tidy(line, ' ');
        s->o.title = line;
    }
    if (st == ST_OK && !s->o.model)
        st = err_set(e, ST_USAGE, "%s: no model; write model: llama-3-8b", path);
    if (st == ST_OK && !s->o.hardware) s->o.hardware = s->o.measured;
    if (st == ST_OK && !s->o.hardware && !served)
        st = err_set(e, ST_USAGE, "%s: no hardware; write hardware: dgx-h100", path);
    if (st == ST_OK && (st = sched_check(&s->policy, e)) != ST_OK) scenario_place(s, e);
    if (st == ST_OK && s->sim.warmup_ratio < 0 && s->sim.warmup_ratio != -1)
        st = err_set(e, ST_USAGE, "sim.warmup: %g is neither a share from 0 to 0.9 nor -1",
                     s->sim.warmup_ratio);
    return st;
}

int scenario_read(struct scenario *s, const char *path, const struct conf_args *args, struct err *e)
{
    s->path = locate(path, s->arena);
    int st = doc_read_yaml(s->arena, s->path, &s->doc, e);
    return st == ST_OK ? read_tree(s, args, e) : st;
}

int scenario_read_text(struct scenario *s, const char *path, const char *text,
                       const struct conf_args *args, struct err *e)
{
    s->path = path;
    int st = doc_parse_yaml(s->arena, path, text, strlen(text), &s->doc, e);
    return st == ST_OK ? read_tree(s, args, e) : st;
}

/* The option that a sentence is about: the key it begins with, or one known from its first words.
 * */
static void key_of(const char *sentence, char *key, size_t n)
{
    static const struct {
        const char *words, *key;
    } known[] = { { "no hardware", "hardware" },      { "no model", "model" },
                  { "tp ", "strategy.tp" },           { "pp ", "strategy.pp" },
                  { "ep ", "strategy.ep" },           { "dp ", "strategy.dp" },
                  { "weights ", "strategy.weights" }, { "KV ", "strategy.kv" },
                  { "split", "strategy.split" } };
    size_t len = strcspn(sentence, ": ");
    *key = 0;
    if (sentence[len] == ':' && len < n) snprintf(key, n, "%.*s", (int)len, sentence);
    for (size_t i = 0; i < sizeof known / sizeof *known && !*key; i++)
        if (strncmp(sentence, known[i].words, strlen(known[i].words)) == 0)
            snprintf(key, n, "%s", known[i].key);
}

void scenario_place(const struct scenario *s, struct err *e)
{
    char key[64], place[300];
    const struct doc *d = s->doc;
    if (strncmp(e->text, s->path, strlen(s->path)) == 0 || strncmp(e->text, "--", 2) == 0) return;
    key_of(e->text, key, sizeof key);
    bool swept = s->sweep_key && strcmp(s->sweep_key, key) == 0; /* set as if typed */
    if (*key && !swept && conf_typed(&s->conf, key)) {
        size_t n = strlen(key);
        bool said = strncmp(e->text, key, n) == 0 && e->text[n] == ':';
        struct err was = *e;
        err_clear(e);
        err_set(e, was.status, "--%s%s%s", said ? "" : key, said ? "" : ": ", was.text);
        return;
    }
    for (char *p = strtok(key, "."); p && d; p = strtok(NULL, ".")) d = doc_get(d, p);
    if (d && d != s->doc)
        err_prefix(e, "%s", doc_place(d, place, sizeof place));
    else
        err_prefix(e, "%s", s->path);
}

/* ---- deployment */

static int64_t batch_tok(const struct sched_opts *o, const struct hw *h)
{
    if (o->max_batch_tok > 0) return o->max_batch_tok;
    int64_t tok = o->policy == SCHED_VLLM && h->gpu.mem_bytes < BIG_GPU_BYTES ? SMALL_BATCH_TOK
                                                                              : BIG_BATCH_TOK;
    return tok > o->max_seqs ? tok : o->max_seqs;
}

void scenario_request(struct scenario *s, const struct hw *h, struct deploy_request *q)
{
    s->policy.max_batch_tok = batch_tok(&s->policy, h);
    int64_t tok = s->policy.max_batch_tok;
    if (s->policy.policy == SCHED_SARATHI) tok = s->policy.chunk_tok;
    if (tok < s->policy.max_seqs) tok = s->policy.max_seqs;
    *q = (struct deploy_request){ .model = s->o.model,
                                  .hardware = s->o.hardware,
                                  .hw = h,
                                  .beside = s->path,
                                  .engine = engines[s->o.engine],
                                  .kernels = s->o.kernels,
                                  .n_node = (int)s->o.nodes,
                                  .strategy = s->strategy,
                                  .lim = { tok, s->policy.max_seqs, s->policy.block_tok,
                                           s->policy.memory_util },
                                  .kv_blocks = s->policy.kv_blocks,
                                  .fixed_ns = s->o.fixed_ns };
}

int scenario_hardware(struct scenario *s, struct hw *out, struct err *e)
{
    int st = hw_load(s->o.hardware, s->path, 1, s->arena, out, e);
    if (st == ST_OK && s->o.measured && strcmp(s->o.measured, s->o.hardware) != 0)
        st = hw_measured(s->o.measured, s->path, s->arena, out, e);
    if (st == ST_OK && out->measured) { /* it knows whose kernels were measured */
        s->o.engine = 0;
        for (int i = 1; i < N_ENGINE; i++)
            if (strcmp(out->measured->engine, engines[i]) == 0) s->o.engine = i;
    }
    return st;
}

int scenario_deploy(struct scenario *s, struct deploy *out, struct err *e)
{
    struct hw named;
    struct deploy_request q;
    int st = s->hw ? ST_OK : scenario_hardware(s, &named, e);
    if (st == ST_OK) {
        scenario_request(s, s->hw ? s->hw : &named, &q);
        st = deploy_init(&q, s->arena, out, e);
    }
    for (int i = 0; st == ST_OK && i < s->n_profile; i++)
        st = profile_set(&out->profile, s->profile[i].name, s->profile[i].v, e);
    bool sync = st == ST_OK && s->policy.policy == SCHED_VLLM && out->n_stage == 1 &&
                !sched_is_async(&s->policy, 1);
    if (sync)
        out->profile.host_overlap = false; /* chosen and prepared between steps, not beside them */
    if (st == ST_OK && (s->n_profile || sync))
        st = deploy_step(out, &out->profile, s->arena, &out->step, e);
    if (st != ST_OK) scenario_place(s, e);
    return st;
}

/* ---- words */

void scenario_echo(const struct scenario *s, FILE *f)
{
    struct conf_set own = s->conf;
    own.n_table = s->n_own;
    conf_echo_yaml(&own, f);
    if (s->n_profile) fputs("profile:\n", f);
    for (int i = 0; i < s->n_profile; i++)
        fprintf(f, "  %s: %.17g\n", s->profile[i].name, s->profile[i].v);
    if (!s->n_sweep) return;
    fprintf(f, "sweep:\n  %s: [", s->sweep_key);
    for (int i = 0; i < s->n_sweep; i++) fprintf(f, "%s%s", i ? ", " : "", s->sweep[i]);
    fputs("]\n", f);
}

/* "1 of 8 GPUs"; of a host's processors "1 rank of 2 threads, 2 processors". */
static const char *devices(const struct scenario *s, const struct deploy *d)
{
    const struct strategy *g = &d->strategy;
    const struct hw *h = &d->hw;
    int64_t ranks = g->tp * g->pp * g->dp;
    int threads = h->measured ? h->measured->threads : 1;
    if (!hw_on_processors(h))
        return arena_printf(s->arena, "%lld of %d GPU%s", (long long)ranks,
                            h->n_node * h->sys.n_gpu, units_s(h->n_node * h->sys.n_gpu));
    const char *cpus = "";
    if (h->sys.host_cores > 0)
        cpus = arena_printf(s->arena, ", %d processor%s", h->n_node * h->sys.host_cores,
                            units_s(h->n_node * h->sys.host_cores));
    return arena_printf(s->arena, "%lld rank%s of %d thread%s%s", (long long)ranks, units_s(ranks),
                        threads, units_s(threads), cpus);
}

const char *scenario_line(const struct scenario *s, const struct deploy *d)
{
    char policy[32];
    const struct strategy *g = &d->strategy;
    const char *nodes = d->hw.n_node > 1 ? arena_printf(s->arena, "%d x ", d->hw.n_node) : "";
    const char *ep = g->ep > 1 ? arena_printf(s->arena, "-EP%lld", (long long)g->ep) : "";
    conf_text(&s->conf, "policy.name", policy, sizeof policy);
    return arena_printf(s->arena, "%s TP%lld-PP%lld-DP%lld%s on %s%s (%s), weights %s, KV %s, %s",
                        d->arch.name, (long long)g->tp, (long long)g->pp, (long long)g->dp, ep,
                        nodes, d->hw.sys.name, devices(s, d), dtype_name(g->weight_dtype),
                        dtype_name(g->kv_dtype), policy);
}
