/* model/fit_check.c - what surrounds a fit: are the points any good, what do they cover, how wrong
 * is the law where it has not looked, and all of it in words. SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "base/stat.h"
#include "model/dtype.h"
#include "model/fit_in.h"

enum { DEFAULT_FOLDS = 8, LEAST_SITES = 3 };
/* A typical point that is off by a factor of three fits nothing. */
static const double SAME_SIZE = 1e-9;

/* ---- points */

static bool same_x(const struct fit_form *f, const double *a, const double *b, const bool *which)
{
    for (int j = 0; j < f->n_size; j++)
        if ((!which || which[j]) && fabs(a[j] - b[j]) > SAME_SIZE * fmax(fabs(a[j]), fabs(b[j])))
            return false;
    return true;
}

/* Numbers the groups of points that agree in `which` sizes (NULL: in all). */
static int64_t group(const struct fit_form *f, const struct fit_data *d, const bool *which,
                     int64_t *out)
{
    int64_t *first = mem_alloc((size_t)d->n * sizeof *first), n = 0;
    for (int64_t i = 0; i < d->n; i++) {
        int64_t g = 0;
        while (g < n && !same_x(f, d->x + first[g] * f->n_size, d->x + i * f->n_size, which)) g++;
        if (g == n) first[n++] = i;
        out[i] = g;
    }
    free(first);
    return n;
}

int64_t fit_sites(const struct fit_form *f, const struct fit_data *d, int64_t *site)
{
    int64_t n = group(f, d, f->site, site);
    /* One or two sites cannot be left out in turn; then every size is one of its own. */
    return n >= LEAST_SITES ? n : group(f, d, NULL, site);
}

static bool may_be_zero(const struct fit_form *f, int j)
{
    return f->law == LAW_STEP && f->size[j] <= SIZE_COLLS;
}

static int check_point(const struct fit_form *f, const struct fit_data *d, int64_t i, struct err *e)
{
    const char *law = profile_law_name(f->law);
    if (!isfinite(d->s[i]) || d->s[i] <= 0)
        return err_set(e, ST_USAGE, "%s: point %lld took %g s: a time is positive and finite", law,
                       (long long)i, d->s[i]);
    if (!isfinite(d->sd[i]) || d->sd[i] < 0)
        return err_set(e, ST_USAGE, "%s: point %lld: a spread of %g is none", law, (long long)i,
                       d->sd[i]);
    for (int j = 0; j < f->n_size; j++) {
        double x = d->x[i * f->n_size + j];
        if (!isfinite(x) || x < 0 || (x == 0 && !may_be_zero(f, j)))
            return err_set(e, ST_USAGE, "%s: point %lld: %s is %g: a size is positive and finite",
                           law, (long long)i, profile_size_name(f->size[j]), x);
    }
    return ST_OK;
}

static bool one_time(const struct fit_data *d)
{
    for (int64_t i = 1; i < d->n; i++)
        if (d->s[i] != d->s[0]) return false;
    return true;
}

int fit_check(const struct fit_form *f, const struct fit_data *d, struct err *e)
{
    const char *law = profile_law_name(f->law);
    for (int64_t i = 0; i < d->n; i++) {
        int st = check_point(f, d, i, e);
        if (st != ST_OK) return st;
    }
    if (d->n < f->n_par + 2)
        return err_set(e, ST_USAGE, "%s: %lld points are too few for %d constants: at least %d",
                       law, (long long)d->n, f->n_par, f->n_par + 2);
    int64_t *size = mem_alloc((size_t)d->n * sizeof *size), n_size = group(f, d, NULL, size);
    free(size);
    if (n_size == 1)
        return err_set(e, ST_USAGE, "%s: all %lld points have the same size: no law can be told",
                       law, (long long)d->n);
    if (n_size < f->n_par)
        return err_set(e, ST_USAGE, "%s: %lld different sizes are too few for %d constants", law,
                       (long long)n_size, f->n_par);
    if (one_time(d))
        return err_set(e, ST_USAGE,
                       "%s: all %lld points of different sizes took the same %g s: "
                       "these are no measurements",
                       law, (long long)d->n, d->s[0]);
    return ST_OK;
}

/* ---- errors */

struct fit_error fit_error_of(const double *measured, const double *predicted, int64_t n)
{
    struct fit_error r = { NAN, NAN, NAN, NAN, NAN };
    if (n == 0) return r;
    double *x = mem_alloc((size_t)n * sizeof *x);
    r.bias = 0;
    for (int64_t i = 0; i < n; i++) {
        x[i] = fabs(predicted[i] / measured[i] - 1);
        r.bias += log(predicted[i] / measured[i]) / (double)n;
    }
    stat_sort(x, (size_t)n);
    r.mape = stat_mean(x, (size_t)n);
    r.median = stat_quantile_sorted(x, (size_t)n, 0.5);
    r.p90 = stat_quantile_sorted(x, (size_t)n, 0.9);
    r.worst = x[n - 1];
    free(x);
    return r;
}

static void predict(const struct fit_form *f, const struct fit_data *d, const double *log_v,
                    const bool *only, double *out)
{
    double v[FIT_MAX_PAR];
    fit_values(f, log_v, v);
    for (int64_t i = 0; i < d->n; i++)
        if (!only || only[i]) out[i] = f->eval(f, d->x + i * f->n_size, v, NULL);
}

/* Sites dealt to folds in a seeded order. */
static void deal(const struct fit_ask *q, int64_t n_site, int n_fold, int *fold)
{
    struct rng r = rng_stream(q->seed, "fit.folds");
    int64_t *order = mem_alloc((size_t)n_site * sizeof *order);
    for (int64_t k = 0; k < n_site; k++) order[k] = k;
    for (int64_t k = n_site - 1; k > 0; k--) {
        int64_t j = (int64_t)rng_below(r, (uint64_t)k, (uint64_t)k + 1), t = order[k];
        order[k] = order[j];
        order[j] = t;
    }
    for (int64_t k = 0; k < n_site; k++) fold[order[k]] = (int)(k % n_fold);
    free(order);
}

/* Each point predicted by a fit to the sites of other folds. Each such fit starts where the whole
 * one ended: what differs is the points, not the luck of the search. */
static void cross_validate(const struct fit_form *f, const struct fit_data *d,
                           const struct fit_ask *q, const struct fit_state *whole, struct fit *out)
{
    int64_t *site = mem_alloc((size_t)d->n * sizeof *site), n_site = fit_sites(f, d, site);
    int n_fold = q->n_fold > 0 ? q->n_fold : DEFAULT_FOLDS;
    if (n_fold > n_site) n_fold = (int)n_site;
    int *fold = mem_alloc((size_t)n_site * sizeof *fold);
    bool *use = mem_alloc((size_t)d->n * 2 * sizeof *use), *left = use + d->n;
    double *held = mem_alloc((size_t)d->n * sizeof *held);
    int done = 0;
    out->n_site = n_site;
    out->held = fit_error_of(NULL, NULL, 0);
    if (n_fold >= 2 && q->n_fold >= 0) deal(q, n_site, n_fold, fold);
    for (int k = 0; k < n_fold && n_fold >= 2 && q->n_fold >= 0; k++, done++) {
        struct fit_state part = { .weight = NULL };
        int64_t n_use = 0;
        for (int64_t i = 0; i < d->n; i++) {
            left[i] = fold[site[i]] == k;
            use[i] = !left[i];
            n_use += use[i];
        }
        if (n_use < f->n_par + 1 || fit_solve(f, d, use, whole->log_v, q, &part) != 0) break;
        predict(f, d, part.log_v, left, held);
    }
    if (done && done == n_fold) out->held = fit_error_of(d->s, held, d->n);
    free(held);
    free(use);
    free(fold);
    free(site);
}

/* ---- words */

static const char *join(struct arena *a, const char *text, const char *more)
{
    return arena_printf(a, "%s%s%s", text, *text ? "; " : "", more);
}

/* Which constants the points leave open, where a bound was hit, how many points were left out. */
static const char *note_of(const struct fit_form *f, const struct fit *r, const double *sd_free,
                           struct arena *a)
{
    const char *text = "";
    for (int j = 0; j < f->n_par; j++) {
        const struct fit_par *p = f->par + j;
        const char *name = profile_param_name(p->id);
        double room = log(p->hi / p->lo);
        if (!r->known[j])
            text = join(a, text,
                        arena_printf(a, "the points do not tell %s (a factor of %.2g either way)",
                                     name, exp(sd_free[j])));
        else if (log(r->v[j] / p->lo) < 0.01 * room || log(p->hi / r->v[j]) < 0.01 * room)
            text = join(a, text, arena_printf(a, "%s is at its bound, %.3g", name, r->v[j]));
    }
    if (r->n_outlier > 0)
        text = join(a, text,
                    arena_printf(a, "%lld of %lld points left out as outliers",
                                 (long long)r->n_outlier, (long long)r->n_point));
    if (r->held.median > 2 * r->in.median && r->held.median > 0.02)
        text = join(a, text,
                    arena_printf(a, "held-out sites are %.1f times as far off as the rest",
                                 r->held.median / r->in.median));
    return text;
}

double fit_value(const struct fit *f, enum profile_id id)
{
    for (int j = 0; j < f->n_par; j++)
        if (f->id[j] == id) return f->v[j];
    return NAN;
}

const char *fit_words(const struct fit *f, struct arena *a)
{
    bool typed = f->law == LAW_GEMM || f->law == LAW_DECODE || f->law == LAW_PREFILL;
    const char *text = arena_printf(a, "%s", profile_law_name(f->law));
    if (typed) text = arena_printf(a, "%s %s", text, dtype_name((enum dtype)f->dtype));
    if (f->ranks > 1) text = arena_printf(a, "%s over %d ranks", text, f->ranks);
    for (int j = 0; j < f->n_par; j++)
        text = arena_printf(a, "%s%s %s %.4g +- %.2g %%", text, j ? "," : ":",
                            profile_param_name(f->id[j]), f->v[j], 100 * f->sd_log[j]);
    text = arena_printf(a, "%s; %lld points at %lld sites, MAPE %.2f %%", text,
                        (long long)f->n_point, (long long)f->n_site, 100 * f->in.mape);
    if (isnan(f->held.mape))
        text = arena_printf(a, "%s, not held out", text);
    else
        text = arena_printf(a, "%s, held out %.2f %% (median %.2f, p90 %.2f, worst %.2f)", text,
                            100 * f->held.mape, 100 * f->held.median, 100 * f->held.p90,
                            100 * f->held.worst);
    return *f->note ? arena_printf(a, "%s; %s", text, f->note) : text;
}

/* ---- all of it */

static void keep_ranges(const struct fit_form *f, const struct fit_data *d, struct fit *out)
{
    out->n_range = 0;
    for (int j = 0; j < f->n_size; j++) {
        if (!f->range[j]) continue;
        struct fit_range *g = &out->range[out->n_range++];
        *g = (struct fit_range){ f->size[j], d->x[j], d->x[j] };
        for (int64_t i = 1; i < d->n; i++) {
            g->lo = fmin(g->lo, d->x[i * f->n_size + j]);
            g->hi = fmax(g->hi, d->x[i * f->n_size + j]);
        }
    }
}

/* Constants and covariance. What the points leave open is held at FIT_OPEN_SD: the linearised
 * covariance means nothing over factors of ten, and a draw must stay a machine. */
static void keep_constants(const struct fit_form *f, const struct fit_state *s, struct fit *out,
                           double *sd_free)
{
    double shrink[FIT_MAX_PAR];
    out->n_par = f->n_par;
    fit_values(f, s->log_v, out->v);
    for (int j = 0; j < f->n_par; j++) {
        sd_free[j] = sqrt(out->cov[j][j]);
        out->id[j] = f->par[j].id;
        out->known[j] = sd_free[j] <= FIT_OPEN_SD;
        shrink[j] = out->known[j] ? 1 : FIT_OPEN_SD / sd_free[j];
        out->sd_log[j] = sd_free[j] * shrink[j];
    }
    for (int j = 0; j < f->n_par; j++)
        for (int k = 0; k < f->n_par; k++) out->cov[j][k] *= shrink[j] * shrink[k];
}

static void keep_table(const struct fit_form *f, const struct fit_data *d,
                       const struct fit_state *s, struct arena *a, struct fit *out)
{
    double *x = arena_array(a, (size_t)(d->n * f->n_size), sizeof *x);
    double *seconds = arena_array(a, (size_t)d->n, sizeof *seconds);
    double *predicted = arena_array(a, (size_t)d->n, sizeof *predicted);
    memcpy(x, d->x, (size_t)(d->n * f->n_size) * sizeof *x);
    memcpy(seconds, d->s, (size_t)d->n * sizeof *seconds);
    predict(f, d, s->log_v, NULL, predicted);
    out->n_size = f->n_size;
    memcpy(out->size_of, f->size, sizeof out->size_of);
    out->size = x;
    out->measured_s = seconds;
    out->predicted_s = predicted;
    out->weight = s->weight;
    out->in = fit_error_of(seconds, predicted, d->n);
    for (int64_t i = 0; i < d->n; i++) out->n_outlier += s->weight[i] <= 0;
}

int fit_run(const struct fit_form *f, const struct fit_data *d, const struct fit_ask *q,
            struct fit *out, struct err *e)
{
    double sd_free[FIT_MAX_PAR] = { 0 };
    struct fit_state s = { .weight = arena_array(q->a, (size_t)d->n + 1, sizeof(double)) };
    *out = (struct fit){ .law = f->law,
                         .dtype = q->dtype,
                         .ranks = q->ranks > 1 ? q->ranks : 1,
                         .n_point = d->n,
                         .note = "",
                         .source = q->source ? q->source : "measured" };
    int st = fit_check(f, d, e);
    if (st != ST_OK) return st;
    const char *law = profile_law_name(f->law);
    if (fit_solve(f, d, NULL, NULL, q, &s) != 0)
        return err_set(e, ST_USAGE, "%s: no fit to the %lld points was found", law,
                       (long long)d->n);
    double *sd = mem_alloc((size_t)d->n * sizeof *sd);
    memcpy(sd, d->sd, (size_t)d->n * sizeof *sd);
    stat_sort(sd, (size_t)d->n);
    out->spread = stat_quantile_sorted(sd, (size_t)d->n, 0.5);
    free(sd);
    double off = hypot(s.tau, out->spread); /* samples that scatter so much tell no law either */
    if (off > FIT_HOPELESS_TAU)
        return err_set(e, ST_RANGE,
                       "%s: the points contradict the law or one another: a typical one is off by "
                       "a factor of %.2g",
                       law, exp(0.6745 * off));
    out->tau = s.tau;
    fit_covariance(f, d, &s, out->cov);
    keep_constants(f, &s, out, sd_free);
    keep_ranges(f, d, out);
    keep_table(f, d, &s, q->a, out);
    cross_validate(f, d, q, &s, out);
    out->note = note_of(f, out, sd_free, q->a);
    return ST_OK;
}
