/* bench/calibrate_stage.c - stages of a pipeline on one host: how much they slow each other, and how
 * long tokens take back to the scheduler. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>

#include "base/stat.h"
#include "bench/calibrate.h"

enum { FEW = 4, N_GRID = 61 };

/* What a step of `tok` tokens took longer beside another busy stage, as a share of its time. */
struct slowed {
    double tok, more;
};

/* The first stage by itself and beside all others; it is never the longest one, so that the others
 * are busy all the time it works. */
static int64_t slowdowns(const struct calibrate *c, struct slowed *out)
{
    int64_t n = 0;
    for (int64_t i = 0; i < c->n_point; i++) {
        const struct calibrate_point *full = &c->point[i];
        if (!full->used || full->row.op != POINTS_STAGE || full->row.k < 2) continue;
        for (int64_t k = 0; k < c->n_point; k++) {
            const struct calibrate_point *one = &c->point[k];
            const struct points_row *a = &one->row, *b = &full->row;
            if (!one->used || a->op != POINTS_STAGE || a->k != 1 || one->file != full->file ||
                a->m != b->m || a->n != b->n || a->seqs != b->seqs || a->ctx != b->ctx ||
                a->ctx_max != b->ctx_max)
                continue;
            out[n++] = (struct slowed){ (double)b->m, (full->s / one->s - 1) / (double)(b->k - 1) };
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
        slow = fmax(0, w[i].x);
    }
    free(w);
    *sum = 0;
    for (int64_t i = 0; i < n; i++) *sum += fabs(s[i].more - slow / (1 + s[i].tok / half));
    return slow;
}

static void slow(struct calibrate *c, const struct slowed *s, int64_t n)
{
    double best = INFINITY, value = 0, half = 1;
    for (int i = 0; i < N_GRID; i++) {
        double sum, h = exp2(12.0 * i / (N_GRID - 1)), v = best_slow(s, n, h, &sum);
        if (sum < best - 1e-12) {
            best = sum;
            value = v;
            half = h;
        }
    }
    /* mean absolute error to the standard error of a constant that n points share */
    double sd = value > 0 ? 1.2533 * best / (double)n / sqrt((double)n) / value : 0;
    if (value <= 0) return;
    c->extra[c->profile.n_extra++] = (struct profile_extra){ P_STAGE_SLOW, value, fmin(1, sd) };
    c->extra[c->profile.n_extra++] = (struct profile_extra){ P_STAGE_TOK, half, fmin(1, 2 * sd) };
    calibrate_note(c,
                   "stages slow each other: a step of 1 token takes %.0f %% longer beside another "
                   "busy stage, one of 256 %.0f %%; mean error %.1f %% of %lld points",
                   100 * value / (1 + 1 / half), 100 * value / (1 + 256 / half),
                   100 * best / (double)n, (long long)n);
}

static void way_back(struct calibrate *c)
{
    double *x = mem_alloc(((size_t)c->n_point + 1) * sizeof *x);
    size_t n = 0;
    for (int64_t i = 0; i < c->n_point; i++)
        if (c->point[i].used && c->point[i].row.op == POINTS_RETURN) x[n++] = c->point[i].s;
    stat_sort(x, n);
    if (n >= FEW) {
        double mid = stat_quantile_sorted(x, n, 0.5);
        double half = stat_quantile_sorted(x, n, 0.75) / stat_quantile_sorted(x, n, 0.25);
        c->extra[c->profile.n_extra++] =
            (struct profile_extra){ P_STAGE_RETURN_S, mid,
                                    1.2533 * log(half) / 1.349 / sqrt((double)n) };
    }
    free(x);
}

void calibrate_stages(struct calibrate *c)
{
    struct slowed *s = mem_alloc(((size_t)c->n_point + 1) * sizeof *s);
    int64_t n = slowdowns(c, s);
    if (n >= FEW) slow(c, s, n);
    free(s);
    way_back(c);
}
