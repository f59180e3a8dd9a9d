/* model/deploy.c - puts a model on hardware: names, checks, split, memory, step times.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/deploy.h"

#include <assert.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/conf.h"
#include "base/paths.h"
#include "model/profile_file.h"

enum { PATH_BYTES = 1024, MAX_MODEL = 256, MAX_TP = 1024 };
enum { FIXED_KV_BLOCKS = 1 << 20 }; /* of a degenerate server when none are given */

/* ---- names */

static int by_text(const void *x, const void *y)
{
    return strcmp(*(const char *const *)x, *(const char *const *)y);
}

/* Names in the model directory, sorted, with `between` between them; "" if there is none. */
static const char *model_names(const char *between, struct arena *a)
{
    char path[PATH_BYTES];
    const char *name[MAX_MODEL], *list = "";
    int n = 0;
    DIR *dir =
        paths_find("scenarios/models", path, sizeof path, NULL) == ST_OK ? opendir(path) : NULL;
    if (!dir) return list;
    for (const struct dirent *f; n < MAX_MODEL && (f = readdir(dir));) {
        size_t len = strlen(f->d_name);
        if (len > 5 && f->d_name[0] != '.' && strcmp(f->d_name + len - 5, ".json") == 0)
            name[n++] = arena_copy_text(a, f->d_name, len - 5);
    }
    closedir(dir);
    qsort(name, (size_t)n, sizeof *name, by_text);
    for (int i = 0; i < n; i++) list = arena_printf(a, "%s%s%s", list, i ? between : "", name[i]);
    return list;
}

static int unknown_model(const char *name, struct arena *a, struct err *e)
{
    char near[96], path[PATH_BYTES];
    const char *hint = conf_nearest(name, model_names(" ", a), near, sizeof near);
    struct err where = { 0 };
    if (!*model_names("", a)) {
        if (paths_find("scenarios/models", path, sizeof path, &where) == ST_OK)
            err_set(&where, ST_USAGE, "%.400s is empty", path);
        return err_set(e, ST_USAGE,
                       "no model '%.80s': no such config.json, and no list of names: %s", name,
                       where.text);
    }
    return err_set(e, ST_USAGE, "no model '%.80s'%s%s%s a path to a config.json, or one of: %s",
                   name, hint ? "; did you mean '" : "", hint ? hint : "", hint ? "'?" : ";",
                   model_names(", ", a));
}

int deploy_model(const struct deploy_request *q, struct arena *a, struct arch *out, struct err *e)
{
    char path[PATH_BYTES];
    if (!q->model || !*q->model) return err_set(e, ST_USAGE, "no model is named");
    if (paths_resolve(q->model, q->beside, "scenarios/models", ".json", path, sizeof path, NULL) !=
        ST_OK)
        return unknown_model(q->model, a, e);
    return arch_read(path, out, e);
}

static int load_nodes(const struct deploy_request *q, int n_node, struct arena *a, struct hw *out,
                      struct err *e)
{
    if (!q->hw) return hw_load(q->hardware, q->beside, n_node, a, out, e);
    *out = *q->hw;
    out->n_node = n_node;
    return hw_check_nodes(out, e);
}

/* n_node 0: as many as the GPUs of the strategy fill. Degrees out of range are left to
 * strategy_check. */
static int load_hardware(const struct deploy_request *q, struct arena *a, struct hw *out,
                         struct err *e)
{
    const struct strategy *s = &q->strategy;
    if (!q->hw && (!q->hardware || !*q->hardware))
        return err_set(e, ST_USAGE, "no hardware is named");
    if (q->n_node < 0) return err_set(e, ST_USAGE, "%d nodes: at least 1 is needed", q->n_node);
    int n_node = q->n_node > 0 ? q->n_node : 1, st = load_nodes(q, n_node, a, out, e);
    if (st != ST_OK || q->n_node > 0) return st;
    double need = (double)s->tp * (double)s->pp * (double)s->dp / out->sys.n_gpu;
    if (need <= 1 || need > 1e6) return ST_OK;
    n_node = (int)need + ((int)need < need);
    return load_nodes(q, n_node, a, out, e);
}

/* Kernel tables: a directory, beside the scenario or as it stands. */
static const char *kernel_dir(const struct deploy_request *q, struct arena *a)
{
    const char *slash = q->beside ? strrchr(q->beside, '/') : NULL;
    if (!q->kernels || !slash || *q->kernels == '/') return q->kernels;
    const char *path = arena_printf(a, "%.*s/%s", (int)(slash - q->beside), q->beside, q->kernels);
    return access(path, R_OK) == 0 ? path : q->kernels;
}

static int check_limits(const struct memory_limits *l, int64_t kv_blocks, struct err *e)
{
    if (!(l->util > 0 && l->util <= 1))
        return err_set(e, ST_USAGE, "memory use %g is outside 0 .. 1", l->util);
    if (l->block_tok < 1 || l->block_tok > 65536)
        return err_set(e, ST_USAGE, "a KV block of %" PRId64 " tokens is outside 1 .. 65536",
                       l->block_tok);
    if (l->max_batch_tok < 1 || l->max_seqs < 1)
        return err_set(e, ST_USAGE,
                       "a step of %" PRId64 " tokens and %" PRId64 " sequences holds nothing",
                       l->max_batch_tok, l->max_seqs);
    if (kv_blocks < 0) return err_set(e, ST_USAGE, "%" PRId64 " KV blocks are given", kv_blocks);
    return ST_OK;
}

/* ---- stages */

/* Ranks are laid out tp fastest, then pp, then dp. Replicas may sit differently on the nodes (tp *
 * pp no divisor of the GPUs of one); a stage has the worse of them, since all replicas share its
 * times. */
static void place(struct deploy *d)
{
    int64_t tp = d->strategy.tp, pp = d->strategy.pp, n_gpu = d->hw.sys.n_gpu;
    for (int p = 0; p < d->n_stage; p++) {
        struct step_stage *g = &d->stage[p].step;
        g->has_embed = p == 0;
        g->has_head = p == d->n_stage - 1;
        for (int64_t r = 0; r < d->strategy.dp; r++) {
            int64_t first = (r * pp + p) * tp, last = first + tp - 1, end = last + tp;
            g->tp_inter |= first / n_gpu != last / n_gpu;
            /* rank i sends to rank i of the next stage */
            if (!g->has_head) g->hop_inter |= first / n_gpu != end / n_gpu;
        }
    }
}

static struct step_setup setup_of(const struct deploy *d, const struct profile *p,
                                  struct step_stage *stage)
{
    for (int i = 0; i < d->n_stage; i++) stage[i] = d->stage[i].step;
    return (struct step_setup){ .arch = &d->arch,
                                .hw = &d->hw,
                                .strategy = &d->strategy,
                                .profile = p,
                                .table = d->table,
                                .stage = stage,
                                .n_stage = d->n_stage,
                                .max_batch_tok = d->lim.max_batch_tok,
                                .max_seqs = d->lim.max_seqs,
                                .fixed_ns = d->fixed_ns };
}

/* Layers per stage and the predicted time of each at the reference decode step. */
static int split(struct deploy *d, struct err *e)
{
    int layers[STRATEGY_MAX_PP], first_layer = 0;
    struct step_stage stage[STRATEGY_MAX_PP];
    const char *how = d->strategy.split ? d->strategy.split : "auto";
    double layer_s = 1, first_s = 0, last_s = 0, time_s[STRATEGY_MAX_PP];
    struct step_setup u = setup_of(d, &d->profile, stage);

    if (d->fixed_ns == 0)
        step_layer_costs(&u, DEPLOY_REF_DECODE, DEPLOY_REF_CTX, &layer_s, &first_s, &last_s);
    if (strcmp(how, "auto") == 0) {
        strategy_balance(d->arch.n_layer, d->n_stage, layer_s, first_s, last_s, layers);
    } else if (strcmp(how, "equal") == 0) {
        strategy_balance(d->arch.n_layer, d->n_stage, 1, 0, 0, layers);
    } else {
        int st = strategy_parse_split(how, d->arch.n_layer, d->n_stage, layers, e);
        if (st != ST_OK) return st;
    }
    for (int p = 0; p < d->n_stage; p++) {
        struct deploy_stage *g = &d->stage[p];
        g->step.n_layer = layers[p];
        g->first_layer = first_layer;
        first_layer += layers[p];
        g->time_s =
            layers[p] * layer_s + (p == 0 ? first_s : 0) + (p == d->n_stage - 1 ? last_s : 0);
        if (d->fixed_ns > 0) g->time_s = (double)d->fixed_ns * 1e-9;
        time_s[p] = g->time_s;
    }
    d->eps_time = strategy_epsilon(time_s, d->n_stage);
    return ST_OK;
}

/* ---- memory */

/* Bytes that a rank needs to hold one KV block beside all the rest. */
static double required(const struct memory *m, const struct memory_limits *l)
{
    return m->weights + m->activation + m->comm + m->graphs + m->other +
           (double)l->block_tok * m->kv_token;
}

/* The smallest TP with the same stages for which all of them hold a block; 0 if there is none. */
static int64_t smallest_tp(const struct deploy *d)
{
    struct strategy s = d->strategy;
    struct hw big = d->hw;
    big.n_node = 1 << 30; /* this asks for the shape only */
    for (s.tp = 1; s.tp <= MAX_TP; s.tp++) {
        bool fits = strategy_check(&s, &d->arch, &big, NULL) == ST_OK;
        for (int p = 0; p < d->n_stage && fits; p++) {
            struct memory m;
            memory_stage(&d->arch, &d->hw, &s, p, d->stage[p].step.n_layer, &d->lim, &m);
            fits = m.kv_blocks > 0;
        }
        if (fits) return s.tp;
    }
    return 0;
}

static int does_not_fit(const struct deploy *d, int stage, struct err *e)
{
    const struct memory *m = &d->stage[stage].mem;
    double have = d->hw.gpu.mem_bytes * d->lim.util, need = required(m, &d->lim);
    int64_t tp = smallest_tp(d);
    char advice[128], beyond[48] = "";
    if (tp > d->hw.sys.n_gpu)
        snprintf(beyond, sizeof beyond, ", beyond the %d of a node", d->hw.sys.n_gpu);
    if (tp > 0)
        snprintf(advice, sizeof advice, "tp %" PRId64 " is the smallest that fits%s", tp, beyond);
    else
        snprintf(advice, sizeof advice, "no tp fits; take more stages or smaller formats");
    return err_set(
        e, ST_USAGE,
        "%s does not fit on %s at tp %" PRId64 ", pp %" PRId64 ": stage %d needs %.2f GB on each "
        "%s (weights %.2f GB), available are %.2f GB at memory use %g, a deficit of %.2f GB; %s",
        d->arch.name, d->hw.gpu.name, d->strategy.tp, d->strategy.pp, stage, need * 1e-9,
        hw_on_processors(&d->hw) ? "rank" : "GPU", m->weights * 1e-9, have * 1e-9, d->lim.util,
        (need - have) * 1e-9, advice);
}

/* Blocks that an engine reported are believed, unless they and the weights exceed the device. */
static int check_given_blocks(const struct deploy *d, struct err *e)
{
    for (int p = 0; p < d->n_stage; p++) {
        const struct memory *m = &d->stage[p].mem;
        double kv = (double)d->kv_blocks * (double)d->lim.block_tok * m->kv_token;
        if (m->weights + kv <= d->hw.gpu.mem_bytes) continue;
        return err_set(e, ST_USAGE,
                       "%s does not fit on %s: %" PRId64
                       " KV blocks (%.2f GB) and the weights of stage %d "
                       "(%.2f GB) exceed the %.2f GB of a %s by %.2f GB",
                       d->arch.name, d->hw.gpu.name, d->kv_blocks, kv * 1e-9, p, m->weights * 1e-9,
                       d->hw.gpu.mem_bytes * 1e-9, hw_on_processors(&d->hw) ? "host" : "GPU",
                       (m->weights + kv - d->hw.gpu.mem_bytes) * 1e-9);
    }
    return ST_OK;
}

static int count_memory(struct deploy *d, int64_t given, struct err *e)
{
    double weights[STRATEGY_MAX_PP];
    int least = 0, worst = 0;
    for (int p = 0; p < d->n_stage; p++) {
        struct memory *m = &d->stage[p].mem;
        memory_stage(&d->arch, &d->hw, &d->strategy, p, d->stage[p].step.n_layer, &d->lim, m);
        weights[p] = m->weights;
        if (m->kv_blocks < d->stage[least].mem.kv_blocks) least = p;
        if (required(m, &d->lim) > required(&d->stage[worst].mem, &d->lim)) worst = p;
    }
    d->eps_bytes = strategy_epsilon(weights, d->n_stage);
    if (d->fixed_ns > 0) {
        d->kv_blocks = given > 0 ? given : FIXED_KV_BLOCKS;
        return ST_OK;
    }
    d->kv_blocks = given > 0 ? given : d->stage[least].mem.kv_blocks;
    if (given > 0) return check_given_blocks(d, e);
    return d->kv_blocks > 0 ? ST_OK : does_not_fit(d, worst, e);
}

/* ---- all of it */

int deploy_constants(const struct deploy_request *q, const struct hw *h, struct arena *a,
                     struct profile *out, struct table **table, struct err *e)
{
    const char *kernels = kernel_dir(q, a), *engine = q->engine ? q->engine : "any";
    int st = profile_load(h, &q->strategy, engine, kernels, a, out, e);
    *table = NULL;
    if (st == ST_OK && out->kernels) return table_read(out->kernels, a, table, e);
    struct arch arch;
    if (st == ST_OK && h->measured && h->measured->ops && deploy_model(q, a, &arch, NULL) == ST_OK)
        *table = profile_file_table(h->measured, &arch, &q->strategy, a);
    return st;
}

int deploy_init(const struct deploy_request *q, struct arena *a, struct deploy *out, struct err *e)
{
    assert(q && a && out && q->fixed_ns >= 0);
    struct deploy *d = out;
    *d = (struct deploy){ .strategy = q->strategy, .lim = q->lim, .fixed_ns = q->fixed_ns };
    int st = check_limits(&q->lim, q->kv_blocks, e);
    if (st == ST_OK) st = deploy_model(q, a, &d->arch, e);
    if (st == ST_OK) st = load_hardware(q, a, &d->hw, e);
    if (st == ST_OK) st = strategy_check(&d->strategy, &d->arch, &d->hw, e);
    if (st == ST_OK) st = deploy_constants(q, &d->hw, a, &d->profile, &d->table, e);
    if (st != ST_OK) return st;
    d->n_stage = (int)d->strategy.pp;
    place(d);
    if ((st = split(d, e)) != ST_OK) return st;
    if ((st = count_memory(d, q->kv_blocks, e)) != ST_OK) return st;
    return deploy_step(d, &d->profile, a, &d->step, e);
}

int deploy_step(const struct deploy *d, const struct profile *p, struct arena *a, struct step **out,
                struct err *e)
{
    struct step_stage stage[STRATEGY_MAX_PP];
    struct step_setup u = setup_of(d, p, stage);
    return step_prepare(&u, a, out, e);
}
