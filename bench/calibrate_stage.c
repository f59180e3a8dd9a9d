/* bench/calibrate_stage.c - stages of a pipeline on one host: how much they slow each other, or speed
 * each other up, and how long tokens take back to the scheduler. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>

#include "base/stat.h"
#include "base/units.h"
#include "bench/calibrate.h"

enum { FEW = 4, N_GRID = 61 };
static const double LEAST = -0.9; /* what a step takes longer: no step takes a tenth of itself */

/* A step of `tok` tokens, by itself and beside `others` busy stages; `more`: what it took longer beside
 * one of them, as a share of its time; a shorter time is not one that each of them shortens. */
struct slowed {
    double tok, more, others, alone_s, beside_s, sd;
};

/* The first stage by itself and beside all others; it is never the longest one, so that the others
 * are busy all the time it works. */
static int64_t slowdowns(struct calibrate *c, struct slowed *out)
{
    int64_t n = 0;
    for (int64_t i = 0; i < c->n_point; i++) {
        struct calibrate_point *full = &c->point[i];
        if (!full->used || full->row.op != POINTS_STAGE || full->row.k < 2) continue;
        for (int64_t k = 0; k < c->n_point; k++) {
            struct calibrate_point *one = &c->point[k];
            const struct points_row *a = &one->row, *b = &full->row;
            if (!one->used || a->op != POINTS_STAGE || a->k != 1 || one->file != full->file ||
                a->m != b->m || a->n != b->n || a->seqs != b->seqs || a->ctx != b->ctx ||
                a->ctx_max != b->ctx_max)
                continue;
            double longer = full->s / one->s - 1, others = longer > 0 ? (double)(b->k - 1) : 1;
            full->laws |= 1u << LAW_STAGE;
            one->laws |= 1u << LAW_STAGE;
            out[n++] = (struct slowed){ (double)b->m, longer / others, (double)(b->k - 1),
                                        one->s,       full->s,         full->own_sd };
            break;
        }
    }
    return n;
}

/* Sum of |more - slow / (1 + tok / half)|, with the slow that makes it least: a weighted median of
 * more * (1 + tok / half), the weights being 1 / (1 + tok / half). */
struct weighed {
    double x, w;
};

static int by_x(const void *a, const void *b)
{
    double x = ((const struct weighed *)a)->x, y = ((const struct weighed *)b)->x;
    return x < y ? -1 : x > y;
}

static double best_slow(const struct slowed *s, int64_t n, double half, double *sum)
{
    struct weighed *w = mem_alloc((size_t)n * sizeof *w);
    double all = 0, below = 0, slow = 0;
    for (int64_t i = 0; i < n; i++) {
        double by = 1 + s[i].tok / half;
        w[i] = (struct weighed){ s[i].more * by, 1 / by };
        all += w[i].w;
    }
    qsort(w, (size_t)n, sizeof *w, by_x);
    for (int64_t i = 0; i < n && below < all / 2; i++) {
        below += w[i].w;
        slow = fmax(LEAST, w[i].x);
    }
    free(w);
    *sum = 0;
    for (int64_t i = 0; i < n; i++) *sum += fabs(s[i].more - slow / (1 + s[i].tok / half));
    return slow;
}

/* The two constants with the least sum; returns it. */
static double best_of(const struct slowed *s, int64_t n, double *value, double *half)
{
    double best = INFINITY;
    for (int i = 0; i < N_GRID; i++) {
        double sum, h = exp2(12.0 * i / (N_GRID - 1)), v = best_slow(s, n, h, &sum);
        if (sum < best - 1e-12) {
            best = sum;
            *value = v;
            *half = h;
        }
    }
    return best;
}

static double predicted_s(const struct slowed *s, double value, double half)
{
    double others = value < 0 ? 1 : s->others;
    return s->alone_s * (1 + others * value / (1 + s->tok / half));
}

static int by_tok(const void *a, const void *b)
{
    double x = ((const struct slowed *)a)->tok, y = ((const struct slowed *)b)->tok;
    return x < y ? -1 : x > y;
}

/* Each count of tokens is predicted from the others. s is sorted by them; returns how many there are. */
static int64_t hold_out(const struct slowed *s, int64_t n, double *held)
{
    struct slowed *part = mem_alloc((size_t)n * sizeof *part);
    int64_t sites = 0;
    for (int64_t i = 0, k; i < n; i = k, sites++) {
        double value = 0, half = 1;
        int64_t m = 0;
        for (k = i; k < n && s[k].tok <= s[i].tok; k++) continue;
        for (int64_t j = 0; j < n; j++)
            if (j < i || j >= k) part[m++] = s[j];
        if (m > 0) best_of(part, m, &value, &half);
        for (int64_t j = i; j < k; j++) held[j] = predicted_s(s + j, value, half);
    }
    free(part);
    return sites;
}

/* What the points leave open is held at FIT_OPEN_SD, as in every law. */
static void put(struct fit *f, enum profile_id id, double v, double sd)
{
    int j = f->n_par++;
    f->id[j] = id;
    f->v[j] = v;
    f->known[j] = sd <= FIT_OPEN_SD;
    f->sd_log[j] = fmin(FIT_OPEN_SD, fmax(1e-3, sd));
    f->cov[j][j] = f->sd_log[j] * f->sd_log[j];
}

/* The errors, ranges and points of the fit, as fit_run gives them; false: the points contradict it. */
static bool judge(struct calibrate *c, const struct slowed *s, int64_t n, struct fit *f)
{
    double value = f->v[0] - 1, half = f->v[1], *dev = mem_alloc((size_t)n * sizeof *dev);
    double *tok = arena_array(c->a, (size_t)n, sizeof *tok);
    double *measured = arena_array(c->a, (size_t)n, sizeof *measured);
    double *predicted = arena_array(c->a, (size_t)n, sizeof *predicted);
    double *weight = arena_array(c->a, (size_t)n, sizeof *weight);
    double *held = mem_alloc((size_t)n * sizeof *held);
    for (int64_t i = 0; i < n; i++) {
        tok[i] = s[i].tok;
        measured[i] = s[i].beside_s;
        predicted[i] = predicted_s(s + i, value, half);
        weight[i] = 1;
        dev[i] = fabs(log(measured[i] / predicted[i]));
    }
    stat_sort(dev, (size_t)n);
    f->tau = stat_quantile_sorted(dev, (size_t)n, 0.5) / 0.6745;
    for (int64_t i = 0; i < n; i++) dev[i] = s[i].sd;
    stat_sort(dev, (size_t)n);
    f->spread = stat_quantile_sorted(dev, (size_t)n, 0.5);
    f->n_site = hold_out(s, n, held);
    f->n_point = n;
    f->in = fit_error_of(measured, predicted, n);
    f->held = fit_error_of(measured, held, f->n_site > 2 ? n : 0);
    f->range[f->n_range++] = (struct fit_range){ SIZE_TOK, tok[0], tok[n - 1] };
    f->size_of[0] = SIZE_TOK;
    f->n_size = 1;
    f->size = tok;
    f->measured_s = measured;
    f->predicted_s = predicted;
    f->weight = weight;
    free(held);
    free(dev);
    return f->tau <= FIT_HOPELESS_TAU;
}

static void slow(struct calibrate *c, struct slowed *s, int64_t n, struct fit *f)
{
    double value = 0, half = 1;
    qsort(s, (size_t)n, sizeof *s, by_tok);
    double best = best_of(s, n, &value, &half);
    /* mean absolute error to the standard error of a constant that n points share */
    double sd = 1.2533 * best / (double)n / sqrt((double)n);
    if (fabs(value) <= 2 * sd) {
        calibrate_note(c, "stage: beside busy stages steps take as long as alone (%lld point%s)",
                       (long long)n, units_s(n));
        return;
    }
    put(f, P_STAGE_BESIDE, 1 + value, sd / (1 + value));
    put(f, P_STAGE_TOK, half, 2 * sd / fabs(value));
    if (!judge(c, s, n, f)) {
        calibrate_note(
            c,
            "no fit of stage: the points contradict the law or one another: a typical one "
            "is off by a factor of %.2g",
            exp(0.6745 * f->tau));
        *f = (struct fit){ .law = f->law, .ranks = 1, .note = "", .source = f->source };
        return;
    }
    f->note = arena_printf(c->a,
                           "a step of 1 token takes %.0f %% %s beside another busy stage, one of "
                           "256 %.0f %%; mean error %.1f %% of its time alone",
                           100 * fabs(value) / (1 + 1 / half), value > 0 ? "longer" : "less",
                           100 * fabs(value) / (1 + 256 / half), 100 * best / (double)n);
}

static void way_back(struct calibrate *c, struct fit *f, bool plan)
{
    double *x = mem_alloc(((size_t)c->n_point + 1) * sizeof *x);
    size_t n = 0;
    for (int64_t i = 0; i < c->n_point; i++)
        if (c->point[i].used && c->point[i].row.op == POINTS_RETURN) {
            c->point[i].laws |= 1u << LAW_STAGE;
            x[n++] = c->point[i].s;
        }
    stat_sort(x, n);
    if (plan && n > 0)
        calibrate_note(c, "stage: %zu point%s of the tokens' way back", n, units_s((int64_t)n));
    if (n >= FEW && !plan) {
        double mid = stat_quantile_sorted(x, n, 0.5);
        double half = stat_quantile_sorted(x, n, 0.75) / stat_quantile_sorted(x, n, 0.25);
        put(f, P_STAGE_RETURN_S, mid, 1.2533 * log(half) / 1.349 / sqrt((double)n));
        if (f->n_par == 1) { /* it alone: a constant, whose points are all of one size */
            f->n_point = (int64_t)n;
            f->n_site = 1;
            f->in = f->held = fit_error_of(NULL, NULL, 0);
        }
    }
    free(x);
}

void calibrate_stages(struct calibrate *c, bool plan)
{
    struct slowed *s = mem_alloc(((size_t)c->n_point + 1) * sizeof *s);
    struct fit f = {
        .law = LAW_STAGE, .ranks = 1, .note = "", .source = calibrate_ask(c, DT_F32, 1).source
    };
    int64_t n = slowdowns(c, s);
    if (plan && n > 0)
        calibrate_note(c, "stage: %lld pair%s of points, alone and beside busy stages",
                       (long long)n, units_s(n));
    else if (n >= FEW)
        slow(c, s, n, &f);
    else if (n > 0)
        calibrate_note(c, "no fit of stage: %lld points are too few", (long long)n);
    free(s);
    way_back(c, &f, plan);
    if (f.n_par > 0 && c->profile.n_fit < CALIBRATE_MAX_FITS) c->fit[c->profile.n_fit++] = f;
}
