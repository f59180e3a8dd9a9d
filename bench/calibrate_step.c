/* bench/calibrate_step.c - what operators do not tell, from whole steps: host times, rank skew, and
 * the common factor of device times by law. SPDX-License-Identifier: Apache-2.0 */
#include <gsl/gsl_cdf.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/stat.h"
#include "base/units.h"
#include "bench/calibrate.h"

enum { FEW_STEPS = 12, MAX_GROUPS = 3000 };
static const double LEAST = 0.02, Z90 = 1.645, MEDIAN_SE = 1.2533;

/* One step of a run or of a points file. */
struct seen {
    struct step_shape shape;
    double s, sd_log; /* on the device, submitting it included */
    double host_s;    /* beside that; 0: not known */
    int64_t key[5];   /* of steps alike */
};

struct seen_list {
    struct seen *x;
    int64_t n, cap;
};

/* A model under a strategy, as steps are predicted by the laws alone. */
struct predictor {
    struct arch arch;
    struct strategy strategy;
    struct step *step;
    double n_coll, rank_skew_s; /* collectives of a step; what the catalog has for one of them */
};

static void push(struct seen_list *l, const struct seen *x)
{
    if (l->n == l->cap) {
        l->cap = l->cap ? 2 * l->cap : 1024;
        l->x = mem_resize(l->x, (size_t)l->cap, sizeof *l->x);
    }
    l->x[l->n++] = *x;
}

/* ---- predicting */

static int predictor_init(struct calibrate *c, const struct deploy_request *q,
                          const struct seen_list *l, struct predictor *out, struct err *e)
{
    struct hw *hw = arena_alloc(c->a, sizeof *hw);
    struct profile profile;
    struct table *table = NULL;
    int64_t tok = 1, seqs = 1;
    int st = deploy_model(q, c->a, &out->arch, e);
    if (st != ST_OK) return st;
    *hw = c->profile.hw;
    hw->measured = &c->profile;
    out->strategy = q->strategy;
    st = profile_load(hw, &q->strategy, "orrery", NULL, c->a, &profile, e);
    if (st != ST_OK) return st;
    table = profile_file_table(&c->profile, &out->arch, &q->strategy, c->a);
    out->rank_skew_s = profile.p[P_RANK_SKEW_S].v;
    static const enum profile_id none[] = { P_RANK_SKEW_S, P_HOST_STEP_S, P_HOST_SEQ_S,
                                            P_HOST_TOK_S,  P_HOST_REQ_S,  P_HOST_OUT_S,
                                            P_HOST_GAP_S };
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) profile.p[none[i]].v = 0;
    profile.p[P_LAW].v = 1;
    profile.host_overlap = false;
    for (int64_t i = 0; i < l->n; i++) {
        const struct step_shape *s = &l->x[i].shape;
        if (s->n_decode + s->prefill_tok > tok) tok = s->n_decode + s->prefill_tok;
        if (s->n_logits > seqs) seqs = s->n_logits;
        if (s->n_decode > seqs) seqs = s->n_decode;
    }
    struct step_stage stage = { .n_layer = out->arch.n_layer, .has_embed = true, .has_head = true };
    struct step_setup u = { .arch = &out->arch,
                            .hw = hw,
                            .strategy = &out->strategy,
                            .profile = &profile,
                            .table = table,
                            .stage = &stage,
                            .n_stage = 1,
                            .max_batch_tok = tok,
                            .max_seqs = seqs };
    double per_layer = out->arch.parallel_attn ? 1 : 2;
    out->n_coll = q->strategy.tp > 1 ? 1 + per_layer * out->arch.n_layer : 0;
    return step_prepare(&u, c->a, &out->step, e);
}

static double device_s(const struct predictor *p, const struct step_shape *s)
{
    struct step_cost cost;
    step_cost(p->step, 0, s, &cost);
    double fp = (double)(cost.total_fp - cost.class_fp[STEP_HOST]);
    return 1e-9 * fp / (double)((int64_t)1 << STEP_FP_BITS);
}

/* ---- steps alike are made one point */

static int by_key(const void *a, const void *b)
{
    const struct seen *x = a, *y = b;
    for (int i = 0; i < 5; i++)
        if (x->key[i] != y->key[i]) return x->key[i] < y->key[i] ? -1 : 1;
    return x->s < y->s ? -1 : x->s > y->s;
}

static bool alike(const struct seen *x, const struct seen *y)
{
    return memcmp(x->key, y->key, sizeof x->key) == 0;
}

/* Contexts fall into classes a quarter apart. */
static int64_t class_of(double x)
{
    return x > 0 ? (int64_t)(4 * log2(1 + x)) : 0;
}

static void set_key(struct seen *x)
{
    const struct step_shape *s = &x->shape;
    x->key[0] = s->n_decode;
    x->key[1] = s->prefill_tok;
    x->key[2] = s->n_logits;
    x->key[3] = class_of((double)(s->sum_ctx + s->skew));
    x->key[4] = class_of((double)s->prefill_pairs);
}

/* Spread of single steps about the median of those alike: the median over groups of five and more. */
static double spread_of(const struct seen_list *l)
{
    double *sd = mem_alloc(((size_t)l->n + 1) * sizeof *sd), *dev = sd, out = 0.1;
    double *x = mem_alloc(((size_t)l->n + 1) * sizeof *x);
    size_t n = 0;
    for (int64_t i = 0, k; i < l->n; i = k) {
        size_t m = 0;
        for (k = i; k < l->n && alike(l->x + i, l->x + k); k++) x[m++] = l->x[k].s;
        if (m < 5) continue;
        double mid = stat_quantile_sorted(x, m, 0.5);
        for (size_t j = 0; j < m; j++) x[j] = fabs(log(x[j] / mid));
        stat_sort(x, m);
        dev[n++] = 1.4826 * stat_quantile_sorted(x, m, 0.5);
    }
    stat_sort(sd, n);
    if (n > 0) out = fmax(1e-3, stat_quantile_sorted(sd, n, 0.5));
    free(x);
    free(sd);
    return out;
}

/* Sorted groups to points: the mean time on the device, as throughput is made of sums of steps, the
 * slow ones included, and the mean of predicted ones (shapes differ a little). Sequences and tokens
 * have no say in it but through the prediction. */
static int64_t device_points(const struct seen_list *l, const struct predictor *p,
                             struct fit_step_point *out)
{
    double spread = spread_of(l);
    int64_t n = 0;
    for (int64_t i = 0, k; i < l->n && n < MAX_GROUPS; i = k) {
        double device = 0, own = 0, sum = 0;
        for (k = i; k < l->n && alike(l->x + i, l->x + k); k++) {
            sum += l->x[k].s;
            device += device_s(p, &l->x[k].shape);
            own += l->x[k].sd_log;
        }
        double m = (double)(k - i);
        out[n++] = (struct fit_step_point){ .device_s = device / m,
                                            .n_coll = p->n_coll,
                                            .s = sum / m,
                                            .sd_log = own > 0 ? own / m : spread / sqrt(m) };
    }
    return n;
}

/* The same of the host's time beside it. */
static int64_t host_points(const struct seen_list *l, struct fit_step_point *out)
{
    double *beside = mem_alloc(((size_t)l->n + 1) * sizeof *beside);
    int64_t n = 0;
    for (int64_t i = 0, k; i < l->n && n < MAX_GROUPS; i = k) {
        const struct step_shape *s = &l->x[i].shape;
        for (k = i; k < l->n && alike(l->x + i, l->x + k); k++) beside[k - i] = l->x[k].host_s;
        stat_sort(beside, (size_t)(k - i));
        out[n++] = (struct fit_step_point){ .seqs = (double)(s->n_decode + s->n_prefill),
                                            .tok = (double)s->prefill_tok,
                                            .s = stat_quantile_sorted(beside, (size_t)(k - i), 0.5),
                                            .sd_log = 0.2 / sqrt((double)(k - i)) };
    }
    free(beside);
    return n;
}

static int at_of(const struct fit *f, enum profile_id id)
{
    for (int j = 0; j < f->n_par; j++)
        if (f->id[j] == id) return j;
    return -1;
}

/* host: host.step, host.seq, host.tok of the work beside the device; joined with `to`, whose
 * host.step, if it has one, is what submitting takes of a step on the device. Constant times add up;
 * the covariance is that of the logarithms, to first order. */
static void join_host(struct fit *to, const struct fit *host, struct arena *text_in)
{
    int a = at_of(to, P_HOST_STEP_S), b = at_of(host, P_HOST_STEP_S);
    if (b < 0) return;
    double sum = (a < 0 ? 0 : to->v[a]) + host->v[b], wb = host->v[b] / sum;
    for (int j = 0; j < to->n_par && a >= 0; j++) {
        to->cov[a][j] *= 1 - wb;
        to->cov[j][a] *= 1 - wb;
    }
    int row[FIT_MAX_PAR] = { 0 };
    for (int j = 0; j < host->n_par; j++) row[j] = j == b && a >= 0 ? a : to->n_par++;
    for (int j = 0; j < host->n_par; j++) {
        double wj = j == b ? wb : 1;
        to->id[row[j]] = host->id[j];
        to->v[row[j]] = j == b ? sum : host->v[j];
        for (int k = 0; k < host->n_par; k++)
            to->cov[row[j]][row[k]] += wj * (k == b ? wb : 1) * host->cov[j][k];
        to->known[row[j]] = host->known[j];
    }
    for (int j = 0; j < to->n_par; j++) to->sd_log[j] = sqrt(fmax(0, to->cov[j][j]));
    if (a >= 0) to->known[a] = to->sd_log[a] < FIT_OPEN_SD;
    const char *left = to->n_outlier > 0
                           ? arena_printf(text_in, "%lld of %lld points left out as outliers",
                                          (long long)to->n_outlier, (long long)to->n_point)
                           : "";
    to->note = arena_printf(text_in, "%s%s%s", host->note, *host->note && *left ? "; " : "", left);
}

/* What the points covered, whichever fit saw it. */
static void cover(struct fit *f, const struct fit_step_point *x, int64_t n)
{
    struct fit_range seqs = { SIZE_SEQS, INFINITY, 0 }, tok = { SIZE_TOK, INFINITY, 0 };
    for (int64_t i = 0; i < n; i++) {
        seqs.lo = fmin(seqs.lo, x[i].seqs);
        seqs.hi = fmax(seqs.hi, x[i].seqs);
        tok.lo = fmin(tok.lo, x[i].tok);
        tok.hi = fmax(tok.hi, x[i].tok);
    }
    f->range[0] = seqs;
    f->range[1] = tok;
    f->n_range = 2;
}

/* ---- steps of measured runs */

static const char *const columns[] = { "t0",     "t1",  "n_step", "n_prefill", "n_decode", "chunks",
                                       "logits", "ctx", "skew",   "past",      "pairs",    "host" };
enum { T0, T1, N_STEP, PREFILL, DECODE, CHUNKS, LOGITS, CTX, SKEW, PAST, PAIRS, HOST, N_COL };

static int read_steps(struct calibrate *c, struct calibrate_file *f, struct seen_list *l,
                      struct err *e)
{
    double *col[N_COL];
    size_t n = 0, rows = 0;
    for (int i = 0; i < N_COL; i++) {
        int st =
            run_column(&f->run, arena_printf(c->a, "steps/%s", columns[i]), c->a, &col[i], &n, e);
        if (st != ST_OK) return st;
        if (i > 0 && n != rows)
            return err_set(e, ST_USAGE, "%s: columns of /steps differ in length", f->path);
        rows = n;
    }
    int64_t before = l->n;
    for (size_t i = 0; i < rows; i++) {
        struct seen x = { .s = 1e-9 * (col[T1][i] - col[T0][i]), .host_s = 1e-9 * col[HOST][i] };
        struct step_shape *s = &x.shape;
        int64_t *const whole[] = { &s->n_prefill,    &s->prefill_tok,  &s->n_decode,
                                   &s->n_logits,     &s->sum_ctx,      &s->skew,
                                   &s->prefill_past, &s->prefill_pairs };
        static const int from[] = { CHUNKS, PREFILL, DECODE, LOGITS, CTX, SKEW, PAST, PAIRS };
        bool sound =
            x.s > 0 && x.host_s >= 0 && x.s < 3600 && x.host_s < 3600 && col[N_STEP][i] == 1;
        for (size_t k = 0; k < sizeof from / sizeof *from; k++) {
            double v = col[from[k]][i];
            sound &= v >= 0 && v < 1e12;
            if (sound) *whole[k] = (int64_t)v;
        }
        sound = sound && s->n_decode + s->prefill_tok > 0 && s->n_decode <= 1 << 20 &&
                s->n_logits <= 1 << 20 && s->n_decode + s->prefill_tok <= 1 << 20;
        if (!sound) continue;
        set_key(&x);
        push(l, &x);
    }
    if (l->n == before) return err_set(e, ST_USAGE, "%s: no step in /steps can be used", f->path);
    return ST_OK;
}

/* The scenario that a run file holds. */
static int scenario_of(struct calibrate *c, const struct calibrate_file *f, struct scenario *s,
                       struct err *e)
{
    struct doc *d;
    const char *yaml = f->run.scenario_yaml;
    scenario_init(s, NULL, NULL, c->a);
    s->path = f->path;
    if (!yaml) return err_set(e, ST_USAGE, "%s: no scenario in it", f->path);
    int st = doc_parse_yaml(c->a, f->path, yaml, strlen(yaml), &d, e);
    if (st == ST_OK) st = conf_apply(&s->conf, d, "profile sweep monitor", e);
    if (st == ST_OK && !s->o.model) st = err_set(e, ST_USAGE, "%s: it names no model", f->path);
    return st;
}

static bool same_plan(const struct scenario *a, const struct scenario *b)
{
    return strcmp(a->o.model, b->o.model) == 0 && a->strategy.tp == b->strategy.tp &&
           a->strategy.pp == b->strategy.pp &&
           a->strategy.weight_dtype == b->strategy.weight_dtype &&
           a->strategy.kv_dtype == b->strategy.kv_dtype;
}

/* ---- runs of what the points are of, and others */

/* The model of the points: by name, "" where nobody says. */
static const char *points_model(const struct calibrate *c)
{
    for (int i = 0; i < c->n_file; i++)
        if (!c->file[i].is_run && *c->file[i].model) return c->file[i].model;
    return c->n_point > 0 && c->o.model ? c->o.model : "";
}

/* Names of models may differ where their sizes are the same. */
static bool same_model(struct calibrate *c, const struct scenario *s, const char *points_name)
{
    struct arch of_run, of_points;
    struct deploy_request q = { .model = s->o.model, .beside = s->path };
    if (strcmp(s->o.model, points_name) == 0 || deploy_model(&q, c->a, &of_run, NULL) != ST_OK)
        return true; /* one that cannot be read is told of when it is used */
    if (strcmp(of_run.name, points_name) == 0) return true;
    q = (struct deploy_request){ .model = points_name };
    if (deploy_model(&q, c->a, &of_points, NULL) != ST_OK) return false;
    return strcmp(profile_file_shape(&of_run, c->a), profile_file_shape(&of_points, c->a)) == 0;
}

/* Why a run's steps cannot tell what the laws leave out, in words; NULL: they can. */
static const char *beside(struct calibrate *c, const struct scenario *s)
{
    const char *model = points_model(c);
    enum dtype w = (enum dtype)s->strategy.weight_dtype, kv = (enum dtype)s->strategy.kv_dtype;
    for (int i = 0; i < c->n_file; i++) {
        const struct calibrate_file *f = &c->file[i];
        if (f->is_run || f->tp == 0) continue;
        if (f->tp == s->strategy.tp && f->pp == s->strategy.pp) break;
        return arena_printf(c->a, "of another strategy, TP%lld-PP%lld; the points are of TP%d-PP%d",
                            (long long)s->strategy.tp, (long long)s->strategy.pp, f->tp, f->pp);
    }
    if (*model && !same_model(c, s, model))
        return arena_printf(c->a, "of another model, %s; the points are of %s", s->o.model, model);
    if (c->has[LAW_GEMM] && !(c->has[LAW_GEMM] >> w & 1))
        return arena_printf(c->a, "of another number format: no points of products of %s",
                            dtype_name(w));
    if (c->has[LAW_DECODE] && !(c->has[LAW_DECODE] >> kv & 1))
        return arena_printf(c->a, "of another number format: no points of attention over %s",
                            dtype_name(kv));
    return NULL;
}

/* Steps of runs of what the points are of to l, of others to host. */
static int read_runs(struct calibrate *c, struct scenario *plan, struct seen_list *l,
                     struct seen_list *host, struct err *e)
{
    bool have = false;
    for (int i = 0; i < c->n_file; i++) {
        struct calibrate_file *f = &c->file[i];
        struct scenario s;
        if (!f->is_run) continue;
        int st = scenario_of(c, f, &s, e);
        if (st != ST_OK) return st;
        int64_t threads = 0;
        if (h5_has(f->run.h5, "/summary"))
            h5_read_attr_i64(f->run.h5, "/summary", "engine_threads", &threads, NULL);
        if (threads > 0 && c->n_point > 0 && threads != c->threads)
            return err_set(e, ST_USAGE, "%s: ranks of %lld thread%s, the points are of %d", f->path,
                           (long long)threads, units_s(threads), c->threads);
        f->beside = beside(c, &s);
        f->own = !f->beside;
        struct seen_list *to = f->own ? l : host;
        if (have && f->own && !same_plan(plan, &s))
            return err_set(e, ST_USAGE,
                           "%s: another model, degree or format than in the runs before: "
                           "calibrate them apart",
                           f->path);
        if (!have && f->own) *plan = s;
        have |= f->own;
        int64_t before = to->n;
        if ((st = read_steps(c, f, to, e)) != ST_OK) return st;
        f->n_step = to->n - before;
        if (f->own && s.strategy.pp > 1)
            f->beside = "in a pipeline a step's time holds the waiting of its stages";
    }
    return ST_OK;
}

/* ---- whole steps of points files: only decode, or only equal prompts */

static void read_points(struct calibrate *c, struct seen_list *l, const char **model, int64_t *tp)
{
    for (int64_t i = 0; i < c->n_point; i++) {
        struct calibrate_point *p = &c->point[i];
        const struct points_row *r = &p->row;
        struct seen x = { .s = p->s, .sd_log = p->sd_log };
        int64_t n = r->seqs;
        bool decode = r->k == 0 && r->m == n, prefill = r->k == r->m && n > 0 && r->m % n == 0;
        if (c->file[p->file].pp > 1 ||
            (*tp > 0 && c->file[p->file].tp > 0 && c->file[p->file].tp != *tp))
            continue;
        if (!p->used || r->op != POINTS_STEP || n < 1 || (!decode && !prefill)) continue;
        x.shape.n_logits = r->n;
        if (decode) {
            x.shape.n_decode = n;
            x.shape.sum_ctx = n * (r->ctx + 1);
            x.shape.skew = r->ctx_max > r->ctx ? n * (r->ctx_max - r->ctx) : 0;
        } else {
            int64_t q = r->m / n;
            x.shape.n_prefill = n;
            x.shape.prefill_tok = r->m;
            x.shape.prefill_past = n * r->ctx;
            x.shape.prefill_pairs = r->m * r->ctx + n * (q * (q + 1) / 2);
        }
        set_key(&x);
        push(l, &x);
        if (!*model && *c->file[p->file].model) *model = c->file[p->file].model;
        if (*tp == 0) *tp = c->file[p->file].tp;
    }
}

/* Formats as the points of the products and of attention have them. */
static void formats_of(const struct calibrate *c, struct strategy *s)
{
    s->weight_dtype = s->kv_dtype = DT_F32;
    for (int64_t i = 0; i < c->n_point; i++) {
        const struct points_row *r = &c->point[i].row;
        enum dtype d = calibrate_dtype(r->dtype);
        if (!c->point[i].used || d == DT_N) continue;
        if (r->op == POINTS_GEMM && r->part != POINTS_HEAD) s->weight_dtype = (int)d;
        if (r->op == POINTS_ATTN) s->kv_dtype = (int)d;
    }
}

/* ---- the fit */

static bool host_is_measured(struct calibrate *c, const struct fit_step_point *host, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!(host[i].s > 0)) {
            calibrate_note(c, "step: no host times of the scheduler; they come with measured runs");
            return false;
        }
    return n > 0;
}

static double host_median(const struct fit_step_point *host, int64_t n)
{
    double *x = mem_alloc((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = host[i].s;
    stat_sort(x, (size_t)n);
    double mid = stat_quantile_sorted(x, (size_t)n, 0.5);
    free(x);
    return mid;
}

/* Where no law holds for the host's times, one constant: the median of steps of all kinds. */
static void host_constant(struct calibrate *c, const struct fit_step_point *host, int64_t n)
{
    double mid = host_median(host, n), *x = mem_alloc((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = fabs(log(host[i].s / mid));
    stat_sort(x, (size_t)n);
    double sd = 1.4826 * stat_quantile_sorted(x, (size_t)n, 0.5);
    free(x);
    c->of_host = profile_param_name(P_HOST_STEP_S);
    c->extra[c->profile.n_extra++] =
        (struct profile_extra){ P_HOST_STEP_S, mid,
                                fmin(FIT_OPEN_SD, MEDIAN_SE * sd / sqrt((double)n)) };
}

/* The host's times alone; of a pipeline that is all that steps tell. */
static bool fit_host(struct calibrate *c, const struct fit_ask *ask,
                     const struct fit_step_point *host, int64_t n, struct fit *out)
{
    struct err why = { 0 };
    if (fit_step(ask, host, n, out, &why) == ST_OK) return true;
    calibrate_note(c, "no fit of host times, host.step is their median: %s", why.text);
    host_constant(c, host, n);
    return false;
}

/* The device's part of steps. What is left of it beside the common factor is submitting, which the
 * host does: where the host's times were measured (host_s, their median; 0: not), more than that is
 * not its own but what the laws leave out, and goes to the factor. */
static bool fit_device(struct calibrate *c, struct fit_ask ask, const struct fit_step_point *x,
                       int64_t n, double host_s, struct fit *out)
{
    struct err why = { 0 };
    int st = fit_step(&ask, x, n, out, &why);
    int a = st == ST_OK ? at_of(out, P_HOST_STEP_S) : -1;
    if (a >= 0 && host_s > 0 && out->v[a] > host_s) {
        calibrate_note(c,
                       "host.step: a constant of %.4g us beside the laws is more than the %.4g us "
                       "that the host was measured to take, so the common factor takes it",
                       1e6 * out->v[a], 1e6 * host_s);
        ask.device_only = true;
        st = fit_step(&ask, x, n, out, &why);
    }
    if (st != ST_OK) calibrate_note(c, "no fit of steps: %s", why.text);
    return st == ST_OK;
}

/* "host.step, host.seq": what a fit found. */
static const char *constants_of(const struct fit *f, struct arena *a)
{
    const char *text = "";
    for (int j = 0; j < f->n_par; j++)
        text = arena_printf(a, "%s%s%s", text, *text ? ", " : "", profile_param_name(f->id[j]));
    return text;
}

/* l: steps of what the points are of; host_l: those that the host's times come from. */
static int fit_seen(struct calibrate *c, const struct deploy_request *q, struct seen_list *l,
                    struct seen_list *host_l, struct err *e)
{
    struct predictor p;
    struct fit f, of_host;
    int st = l->n > 0 ? predictor_init(c, q, l, &p, e) : ST_OK;
    if (st != ST_OK) return st;
    if (l->n > 0) qsort(l->x, (size_t)l->n, sizeof *l->x, by_key);
    if (host_l != l) qsort(host_l->x, (size_t)host_l->n, sizeof *l->x, by_key);
    struct fit_step_point *x = mem_alloc((size_t)(l->n + host_l->n) * sizeof *x), *host = x + l->n;
    int64_t n = device_points(l, &p, x), n_host = host_points(host_l, host);
    struct fit_ask ask =
        calibrate_ask(c, (enum dtype)q->strategy.weight_dtype, (int)q->strategy.tp);
    bool told = host_is_measured(c, host, n_host);
    bool timed = told && fit_host(c, &ask, host, n_host, &of_host);
    bool whole = l->n > 0 && q->strategy.pp < 2;
    ask.device_only = told && !timed;
    ask.host_apart = told;
    ask.rank_skew_s = l->n > 0 ? p.rank_skew_s : 0;
    if (whole && p.n_coll > 0 && !fit_tells_rank_skew(&ask, x, n))
        calibrate_note(c,
                       "rank_skew: not identifiable: every step has %.0f collectives, and no host "
                       "times were measured; the catalog's %.3g us stays, host.step has the rest",
                       p.n_coll, 1e6 * p.rank_skew_s);
    if (whole) whole = fit_device(c, ask, x, n, told ? host_median(host, n_host) : 0, &f);
    if (whole) c->of_device = constants_of(&f, c->a);
    if (timed) c->of_host = constants_of(&of_host, c->a);
    if (whole && timed) join_host(&f, &of_host, c->a);
    if (!whole && timed) f = of_host;
    if (whole || timed) {
        cover(&f, host, n_host);
        c->fit[c->profile.n_fit++] = f;
    }
    free(x);
    return ST_OK;
}

/* ---- before the scheduler */

static int by_wait(const void *a, const void *b)
{
    double x = ((const struct calibrate_wait *)a)->s, y = ((const struct calibrate_wait *)b)->s;
    return x < y ? -1 : x > y;
}

/* Its interval is of order statistics: between the ranks that a count of n draws of a fiftieth lies
 * between nine times in ten. */
struct calibrate_wait calibrate_wait_of(const double *s, size_t n)
{
    double mean = LEAST * (double)n, dev = Z90 * sqrt(mean * (1 - LEAST));
    size_t lo = (size_t)fmax(0, floor(mean - dev)),
           hi = (size_t)fmin((double)n - 1, ceil(mean + dev));
    struct calibrate_wait w = { stat_quantile_sorted(s, n, LEAST), FIT_OPEN_SD };
    if (n > 1 && s[lo] > 0) w.sd_log = fmin(FIT_OPEN_SD, log(s[hi] / s[lo]) / (2 * Z90));
    return w;
}

/* A few runs tell their own scatter badly: Student's t says how badly. */
struct calibrate_wait calibrate_waits(struct calibrate_wait *of, size_t n)
{
    double *x = mem_alloc(n * sizeof *x), inner = 0, outer = 0;
    struct calibrate_wait all = { 0, 0 };
    qsort(of, n, sizeof *of, by_wait);
    for (size_t i = 0; i < n; i++) {
        x[i] = of[i].s;
        inner += of[i].sd_log / (double)n;
    }
    all.s = stat_quantile_sorted(x, n, 0.5);
    for (size_t i = 0; i < n; i++) x[i] = log(fmax(of[i].s, 1e-9));
    if (n > 1) outer = stat_sd(x, n) * gsl_cdf_tdist_Pinv(0.95, (double)n - 1) / Z90;
    free(x);
    if (all.s > 0) all.sd_log = fmin(FIT_OPEN_SD, MEDIAN_SE * fmax(inner, outer) / sqrt((double)n));
    return all;
}

/* The bundled engine has no HTTP in front: a request reaches the scheduler when it is due, as far as
 * no step is in the way (the fiftieth part that waits least), and tokens are out when a step ends.
 * Neither depends on model, format or strategy, so every run has a say in it. */
static int ends_of_requests(struct calibrate *c, bool plan, struct err *e)
{
    struct calibrate_wait of[CALIBRATE_MAX_FILES], all = { 0, 0 };
    size_t n_run = 0;
    for (int i = 0; i < c->n_file; i++) {
        struct calibrate_file *f = &c->file[i];
        double *due, *start;
        size_t n, m, k = 0;
        if (!f->is_run || !h5_has(f->run.h5, "/requests/t_start")) continue;
        int st = run_column(&f->run, "requests/t_due", c->a, &due, &n, e);
        if (st == ST_OK) st = run_column(&f->run, "requests/t_start", c->a, &start, &m, e);
        if (st != ST_OK) return st;
        for (size_t j = 0; j < n && j < m; j++)
            if (start[j] >= due[j] && start[j] < 1e15) due[k++] = 1e-9 * (start[j] - due[j]);
        stat_sort(due, k);
        if (k == 0 || !c->has[LAW_GEMM]) continue;
        f->n_request = (int64_t)k;
        of[n_run++] = calibrate_wait_of(due, k);
    }
    if (!c->has[LAW_GEMM] || plan) return ST_OK;
    if (n_run > 0) all = calibrate_waits(of, n_run);
    if (n_run > 1)
        calibrate_note(
            c,
            "host.request: the fiftieth part of the requests that waits least; of %zu runs "
            "the median, of %.4g us to %.4g us",
            n_run, 1e6 * of[0].s, 1e6 * of[n_run - 1].s);
    c->extra[c->profile.n_extra++] = (struct profile_extra){ P_HOST_REQ_S, all.s, all.sd_log };
    c->extra[c->profile.n_extra++] = (struct profile_extra){ P_HOST_OUT_S, 0, 0 };
    return ST_OK;
}

/* Why steps cannot be fitted, as a note; true where they can. */
static bool may_fit(struct calibrate *c, const struct deploy_request *q, int64_t n)
{
    if (!c->has[LAW_GEMM] || !c->has[LAW_DECODE])
        calibrate_note(c,
                       "no fit of steps: their device times are predicted by laws, and there are "
                       "none of products or attention");
    else if (q->strategy.tp > 1 && !c->has[LAW_ALLREDUCE])
        calibrate_note(
            c, "no fit of steps: they are of TP%lld, and there are no points of all-reduces",
            (long long)q->strategy.tp);
    else if (!q->model)
        calibrate_note(c, "no fit of steps: the points do not name their model (--model)");
    else if (n < FEW_STEPS)
        calibrate_note(c, "no fit of steps: %lld are too few", (long long)n);
    else
        return true;
    return false;
}

/* What would be fitted: l to the device, host_l to the host. */
static void plan_steps(struct calibrate *c, const struct deploy_request *q, int64_t n,
                       int64_t n_host)
{
    bool may = n > 0 && may_fit(c, q, n);
    if (may && q->strategy.pp < 2)
        c->of_device = q->strategy.tp > 1 ? "host.step, rank_skew, law" : "host.step, law";
    if (may || (n == 0 && n_host >= FEW_STEPS)) c->of_host = "host.step, host.seq, host.tok";
}

int calibrate_steps(struct calibrate *c, bool plan, struct err *e)
{
    struct seen_list l = { .x = NULL }, others = { .x = NULL };
    struct scenario *first = arena_alloc(c->a, sizeof *first);
    struct deploy_request q = { 0 };
    const char *model = c->o.model;
    int st = read_runs(c, first, &l, &others, e);
    bool own = l.n > 0;
    if (st == ST_OK && own)
        q = (struct deploy_request){ .model = first->o.model,
                                     .beside = first->path,
                                     .strategy = first->strategy };
    if (st == ST_OK && !own) {
        int64_t tp = c->o.tp;
        read_points(c, &l, &model, &tp);
        q.model = model;
        q.strategy = (struct strategy){ .pp = 1, .dp = 1, .ep = 1, .split = "auto" };
        for (int i = 0; i < c->n_file && tp <= 0; i++) tp = c->file[i].tp;
        q.strategy.tp = tp > 0 ? tp : c->ranks;
        formats_of(c, &q.strategy);
    }
    if (st == ST_OK && c->o.model) q.model = c->o.model;
    struct seen_list *host = others.n > 0 && !own ? &others : &l;
    if (st == ST_OK && others.n > 0 && l.n == 0)
        calibrate_note(c, "no fit of the common factor (law): no run is of what the points are of");
    if (st == ST_OK && plan)
        plan_steps(c, &q, l.n, others.n);
    else if (st == ST_OK && l.n > 0 ? may_fit(c, &q, l.n) : st == ST_OK && others.n >= FEW_STEPS)
        st = fit_seen(c, &q, &l, host, e);
    free(l.x);
    free(others.x);
    return st == ST_OK ? ends_of_requests(c, plan, e) : st;
}
