/* sim/verify_alt.c - plans that work instead: other splits, formats, models, GPU counts and hardware. For each the
 * smallest number of GPUs that holds the SLO is searched over TP in a node, PP and replicas.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/pool.h"
#include "sim/verify_try.h"

enum { MAX_JOB = 400, KEEP = 3 };

enum kind { SAME, QUANTIZED, SMALLER, MORE, OTHER };

struct job {
    enum kind kind;
    const char *hardware; /* to load; NULL: site.hw is there */
    int dtype;
    int64_t limit; /* GPUs */
    double params;
    bool near; /* of the model's own generation */
    struct verify_site site;
    struct verify_alt best;
    bool found;
    bool hopeless; /* more requests are too long for the model than may miss the SLO */
    int tried, simulated;
    int st;
    struct err e;
    struct arena a;
};

struct jobs {
    const struct verify_world *w;
    struct job *job;
    int n;
    int64_t gpus; /* at hand */
    struct arena *a;
};

/* ---- one search */

static bool better(const struct job *j, const struct verify_alt *x)
{
    if (!j->found) return true;
    if (x->run.held != j->best.run.held) return x->run.held;
    if (x->run.held || !x->run.ran) return x->gpus < j->best.gpus;
    return x->run.attain > j->best.run.attain;
}

/* Tries; keeps the best; whether it holds the SLO (without simulation: whether it fits). */
static bool holds(struct job *j, const struct strategy *s, bool *fits)
{
    struct verify_alt x;
    *fits = false;
    if (j->st != ST_OK || j->hopeless || !verify_site_may_fit(&j->site, s)) return false;
    j->tried++;
    enum verify_tried is = verify_try(&j->site, s, &x, &j->e);
    if (is == VERIFY_TRY_FAILED) j->st = j->e.status ? j->e.status : ST_RANGE;
    if (is != VERIFY_TRY_FITS) return false;
    *fits = true;
    if (x.run.ran)
        j->simulated++;
    else
        x.run.held = true;
    if (better(j, &x)) {
        j->best = x;
        j->found = true;
    }
    return x.run.held;
}

/* The fewest replicas of this shape that hold, if that beats what was found. */
static void replicas(struct job *j, struct strategy s)
{
    int64_t ranks = s.tp * s.pp, lo = 1, hi;
    bool known = j->found && j->best.run.held, fits;
    int64_t most = (known ? j->best.gpus - 1 : j->limit) / ranks;
    if (most < 1) return;
    s.dp = 1;
    if (holds(j, &s, &fits) || !fits || most < 2) return;
    /* Where as many as there may be do not hold, fewer will not. */
    s.dp = most;
    if (!holds(j, &s, &fits)) return;
    for (hi = known ? most : 2; hi < most; hi = 2 * hi < most ? 2 * hi : most) {
        s.dp = hi;
        if (holds(j, &s, &fits)) break;
        lo = hi;
    }
    while (hi - lo > 1) {
        s.dp = lo + (hi - lo) / 2;
        if (holds(j, &s, &fits))
            hi = s.dp;
        else
            lo = s.dp;
    }
}

/* From the least pp that fits at this tp to twice that; none that takes more GPUs than what holds already. */
static void stages(struct job *j, struct strategy s)
{
    static const int64_t step[] = { 1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64 };
    int64_t first = 0;
    for (size_t i = 0; i < sizeof step / sizeof *step && j->st == ST_OK; i++) {
        s.pp = step[i];
        s.dp = 1;
        if (s.pp > j->site.arch.n_layer || s.tp * s.pp > j->limit) return;
        if (first && s.pp > 2 * first) return;
        if (!verify_site_may_fit(&j->site, &s)) continue;
        int before = j->tried;
        bool had = j->found;
        replicas(j, s);
        bool fitted = j->found && (had ? j->tried > before : true);
        if (fitted && !first) first = s.pp;
    }
}

static void search(struct job *j)
{
    const struct strategy *asked =
        j->site.in->strategy ? j->site.in->strategy : &j->site.in->base->strategy;
    struct strategy s = *asked;
    s.weight_dtype = j->dtype;
    s.split = "auto";
    s.ep = 1;
    if (j->hardware) j->st = hw_load(j->hardware, NULL, 1, &j->a, &j->site.hw, &j->e);
    if (j->st != ST_OK) return;
    int64_t all = verify_site_gpus(&j->site, j->limit);
    if (all < j->limit) j->limit = all;
    for (s.tp = 1; s.tp <= j->site.hw.sys.n_gpu && s.tp <= j->limit && j->st == ST_OK; s.tp++) {
        struct hw big = j->site.hw;
        s.pp = s.dp = 1;
        big.n_node = 1;
        if (strategy_check(&s, &j->site.arch, &big, NULL) == ST_OK) stages(j, s);
    }
}

static void work(void *arg, int i)
{
    struct jobs *w = arg;
    search(&w->job[i]);
}

/* ---- what to search */

static struct job *add(struct jobs *w, enum kind kind, int dtype, int64_t limit)
{
    static struct job spare;
    if (w->n == MAX_JOB) return &spare;
    struct job *j = &w->job[w->n++];
    *j = (struct job){ .kind = kind, .dtype = dtype, .limit = limit };
    j->site =
        (struct verify_site){ .in = w->w->in, .hw = *w->w->in->hw, .simulate = w->w->simulate };
    arena_init(&j->a);
    return j;
}

static bool computes(const struct hw *h, int d)
{
    return h->gpu.flop_per_s[d] > 0 || (d == DT_BF16 && h->gpu.flop_per_s[DT_F16] > 0);
}

static bool smaller_format(const struct hw *h, int d, int than)
{
    return d != than && computes(h, d) &&
           dtype_bytes((enum dtype)d) < dtype_bytes((enum dtype)than);
}

/* Letters that a family's names begin with: llama, qwen, falcon, ... */
static size_t family(const char *name)
{
    return strcspn(name, "-0123456789");
}

/* The name without its last word, which is the size: llama-3 of llama-3-70b. */
static size_t generation(const char *name)
{
    const char *dash = strrchr(name, '-');
    return dash ? (size_t)(dash - name) : strlen(name);
}

static void same_prefix(const char *x, const char *y, bool *kin, bool *near)
{
    size_t f = family(x), g = generation(x);
    *kin = f == family(y) && strncmp(x, y, f) == 0;
    *near = g == generation(y) && strncmp(x, y, g) == 0;
}

static int add_models(struct jobs *w, const struct arch *own, int dtype, int64_t gpus,
                      struct err *e)
{
    for (int i = 0; i < w->w->n_model; i++) {
        struct deploy_request q = { .model = w->w->models[i] };
        struct arch arch;
        bool kin, near;
        same_prefix(own->name, w->w->models[i], &kin, &near);
        if (!kin || strcmp(own->name, w->w->models[i]) == 0) continue;
        int st = deploy_model(&q, w->a, &arch, e);
        if (st != ST_OK) return st;
        if (arch_params(&arch) >= arch_params(own)) continue;
        for (int d = 0; d < DT_N; d++) {
            if (d != dtype && !smaller_format(w->w->in->hw, d, dtype)) continue;
            if (!computes(w->w->in->hw, d)) continue;
            struct job *j = add(w, SMALLER, d, gpus);
            j->site.model = w->w->models[i];
            j->site.arch = arch;
            j->site.fixed = true;
            j->params = (double)arch_params(&arch);
            j->near = near;
        }
    }
    return ST_OK;
}

static int add_catalog(struct jobs *w, const struct arch *own, int dtype, struct err *e)
{
    struct hw_gpu *gpu;
    struct hw_system *system;
    int n_gpu, n_system, st = hw_list(w->a, &gpu, &n_gpu, &system, &n_system, e);
    if (st != ST_OK) return st;
    for (int i = 0; i < n_system + n_gpu; i++) {
        const char *name = i < n_system ? system[i].name : gpu[i - n_system].name;
        if (!w->w->in->none && strcmp(name, w->w->in->hw->sys.name) == 0) continue;
        struct job *j = add(w, OTHER, dtype, w->w->in->ask->max_gpus);
        j->hardware = name;
        j->site.arch = *own;
    }
    return ST_OK;
}

static int plan_jobs(struct jobs *w, struct err *e)
{
    const struct verify_in *in = w->w->in;
    const struct strategy *s = in->strategy ? in->strategy : &in->base->strategy;
    const struct hw *h = in->hw;
    struct deploy_request q = { .model = in->base->o.model, .beside = in->base->path };
    struct arch own;
    int st = deploy_model(&q, w->a, &own, e), dtype = s->weight_dtype;
    if (st != ST_OK) return st;
    int64_t gpus = s->tp * s->pp * s->dp, most = in->ask->max_gpus;
    if (in->fixed || gpus < h->sys.n_gpu) gpus = (int64_t)h->sys.n_gpu * h->n_node;
    w->gpus = gpus;
    if (in->none) return add_catalog(w, &own, dtype, e);
    for (int d = 0; d < DT_N; d++) {
        if (d != dtype && !smaller_format(h, d, dtype)) continue;
        if (!computes(h, d)) continue;
        struct job *j = add(w, d == dtype ? SAME : QUANTIZED, d, gpus);
        j->site.arch = own;
        j->site.fixed = in->fixed;
    }
    if ((st = add_models(w, &own, dtype, gpus, e)) != ST_OK) return st;
    if (h->sys.inter_bytes_per_s > 0 && most > gpus) {
        struct job *j = add(w, MORE, dtype, most);
        j->site.arch = own;
    }
    return add_catalog(w, &own, dtype, e);
}

/* ---- what to show */

/* Held first; then by kind what matters there. */
static int order(const void *px, const void *py)
{
    const struct job *x = *(const struct job *const *)px, *y = *(const struct job *const *)py;
    if (x->kind != y->kind) return x->kind < y->kind ? -1 : 1;
    if (x->best.run.held != y->best.run.held) return x->best.run.held ? -1 : 1;
    if (x->kind == SMALLER && x->near != y->near) return x->near ? -1 : 1;
    if (x->kind == SMALLER && x->params != y->params) return x->params > y->params ? -1 : 1;
    if (x->kind == OTHER) {
        double a = x->best.usd_per_h_lo + x->best.usd_per_h_hi,
               b = y->best.usd_per_h_lo + y->best.usd_per_h_hi;
        if ((a > 0) != (b > 0)) return a > 0 ? -1 : 1;
        if (a != b) return a < b ? -1 : 1;
    }
    if (x->best.gpus != y->best.gpus) return x->best.gpus < y->best.gpus ? -1 : 1;
    double u = dtype_bytes((enum dtype)x->dtype), v = dtype_bytes((enum dtype)y->dtype);
    if (u != v) return u > v ? -1 : 1; /* what loses least */
    return x < y ? -1 : x > y;
}

static bool is_the_plan(const struct verify_world *w, const struct job *j)
{
    const struct strategy *s = w->in->strategy ? w->in->strategy : &w->in->base->strategy;
    const struct strategy *x = &j->best.strategy;
    return (j->kind == SAME || j->kind == MORE) && s->tp == x->tp && s->pp == x->pp &&
           s->dp == x->dp && s->ep == x->ep;
}

static const char *kind_text(const struct verify_world *w, const struct job *j)
{
    static const char *const text[] = { "other split", "quantized", "smaller model", "more GPUs",
                                        "other hardware" };
    const struct strategy *s = w->in->strategy ? w->in->strategy : &w->in->base->strategy;
    bool fewer = j->kind == SAME && j->best.gpus < s->tp * s->pp * s->dp && j->best.run.held;
    return fewer ? "fewer GPUs" : text[j->kind];
}

/* A model is shown once; of plans that miss the SLO the best of a kind, and the largest model that fits. */
static bool shows(struct job *const *by, int i, int in_kind)
{
    const struct job *j = by[i];
    bool held = j->best.run.held,
         first_missed = i == 0 || by[i - 1]->kind != j->kind || by[i - 1]->best.run.held;
    if (j->kind == OTHER) return held;
    for (int k = i - 1; j->kind == SMALLER && k >= 0 && by[k]->kind == SMALLER; k--)
        if (by[k]->site.model == j->site.model && held) return false;
    if (held) return in_kind < KEEP;
    return first_missed && (in_kind == 0 || j->kind == SMALLER);
}

static void gather(const struct jobs *w, struct verify_alts *out)
{
    struct job **by = arena_array(w->a, (size_t)w->n, sizeof(struct job *));
    int n = 0, in_kind = 0;
    for (int i = 0; i < w->n; i++) {
        out->n_tried += w->job[i].tried;
        out->n_simulated += w->job[i].simulated;
        const struct job *j = &w->job[i];
        bool few = j->kind == MORE && j->best.gpus <= w->gpus;
        if (j->found && !few && !is_the_plan(w->w, j)) by[n++] = &w->job[i];
    }
    qsort(by, (size_t)n, sizeof(struct job *), order);
    out->alt = arena_array(w->a, (size_t)n, sizeof *out->alt);
    for (int i = 0; i < n; i++) {
        const struct job *j = by[i];
        if (i == 0 || by[i - 1]->kind != j->kind) in_kind = 0;
        if (!shows(by, i, in_kind)) continue;
        in_kind++;
        struct verify_alt *x = &out->alt[out->n++];
        *x = j->best;
        x->hardware = arena_copy_text(w->a, x->hardware, strlen(x->hardware));
        if (x->price_date)
            x->price_date = arena_copy_text(w->a, x->price_date, strlen(x->price_date));
        x->kind = kind_text(w->w, j);
        x->plan = verify_try_text(x, w->a);
    }
}

int verify_alternatives(const struct verify_world *w, struct arena *a, struct verify_alts *out,
                        struct err *e)
{
    struct jobs all = { .w = w, .a = a };
    *out = (struct verify_alts){ 0 };
    all.job = arena_array(a, MAX_JOB, sizeof *all.job);
    int st = plan_jobs(&all, e);
    if (st == ST_OK) pool_run(w->threads, all.n, work, &all);
    for (int i = 0; i < all.n && st == ST_OK; i++)
        if (all.job[i].st != ST_OK) st = err_set(e, all.job[i].st, "%s", all.job[i].e.text);
    if (st == ST_OK) gather(&all, out);
    for (int i = 0; i < all.n; i++) arena_release(&all.job[i].a);
    return st;
}
