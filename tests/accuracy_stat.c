/* tests/accuracy_stat.c - errors of predictions, collected and summed up.
 * SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/stat.h"
#include "tests/accuracy.h"

void acc_err_add(struct acc_err *v, double predicted, double measured)
{
    if (!(measured > 0) || !isfinite(predicted)) return;
    if (v->n == v->cap) v->ratio = mem_resize(v->ratio, v->cap = v->cap ? 2 * v->cap : 64, 8);
    v->ratio[v->n++] = predicted / measured;
}

void acc_err_join(struct acc_err *v, const struct acc_err *more)
{
    for (size_t i = 0; i < more->n; i++) acc_err_add(v, more->ratio[i], 1);
}

void acc_err_release(struct acc_err *v)
{
    free(v->ratio);
    *v = (struct acc_err){ NULL, 0, 0 };
}

struct acc_sum acc_err_sum(const struct acc_err *v)
{
    struct acc_sum s = { v->n, NAN, NAN, NAN, NAN, NAN };
    if (v->n == 0) return s;
    double *x = mem_alloc(v->n * sizeof *x);
    for (size_t i = 0; i < v->n; i++) x[i] = v->ratio[i] - 1;
    s.bias = stat_mean(x, v->n);
    stat_sort(x, v->n);
    s.middle = stat_quantile_sorted(x, v->n, 0.5);
    for (size_t i = 0; i < v->n; i++) x[i] = fabs(x[i]);
    stat_sort(x, v->n);
    s.mape = stat_mean(x, v->n);
    s.median = stat_quantile_sorted(x, v->n, 0.5);
    s.p90 = stat_quantile_sorted(x, v->n, 0.9);
    free(x);
    return s;
}

struct acc_group *acc_group_of(struct acc_groups *v, const char *key, const char *sample)
{
    for (int i = 0; i < v->n; i++)
        if (strcmp(v->g[i].key, key) == 0) return v->g + i;
    if (!v->g) v->g = mem_zalloc(ACC_GROUPS, sizeof *v->g);
    assert(v->n < ACC_GROUPS);
    struct acc_group *g = v->g + v->n++;
    snprintf(g->key, sizeof g->key, "%s", key);
    snprintf(g->sample, sizeof g->sample, "%s", sample);
    return g;
}

void acc_group_add(struct acc_group *g, int bin, double predicted, double measured)
{
    acc_err_add(&g->all, predicted, measured);
    if (bin >= 0) acc_err_add(g->bin + bin, predicted, measured);
}

void acc_groups_release(struct acc_groups *v)
{
    for (int i = 0; i < v->n; i++) {
        acc_err_release(&v->g[i].all);
        for (int b = 0; b < ACC_BINS; b++) acc_err_release(v->g[i].bin + b);
    }
    free(v->g);
    *v = (struct acc_groups){ NULL, 0 };
}
