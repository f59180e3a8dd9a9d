/* model/table.c - interpolation of measured kernel tables.
 *
 * Attention points need not fill a box: the profiler measures two overlapping grids, and leaves out
 * what exceeds its budget. So the points form a tree: chunk, then past, then sequences, then
 * context, each value carrying its own list of the next. A point is interpolated along the
 * innermost list at each of the neighbours, then along the next list out, and so on: linear on
 * every axis, exact on every point, and indifferent to holes. Pure prefill (chunk, past), pure
 * decode (sequences, context) and mixed batches are three trees; a chunk below the smallest
 * measured one lies between the decode and the mixed tree. SPDX-License-Identifier: Apache-2.0 */
#include "model/table.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "model/table_in.h"

/* Position of x on an ascending axis: cell i..i+1 and weight of i+1; outside, the weight leaves
 * 0..1. */
static int cell_of(const double *x, int n, double at, double *w, bool *out)
{
    *w = 0;
    if (n == 1) {
        if (at > x[0]) *out = true;
        return 0;
    }
    int lo = 0, hi = n - 1;
    while (hi - lo > 1) {
        int mid = (lo + hi) / 2;
        if (at < x[mid])
            hi = mid;
        else
            lo = mid;
    }
    if (at > x[n - 1]) *out = true;
    *w = (at - x[lo]) / (x[lo + 1] - x[lo]);
    return lo;
}

static double tree_at(const struct table_tree *t, const double *q, bool *out)
{
    double w;
    /* q is as long as the tree is deep. NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage) */
    int i = cell_of(t->x, t->n, q[0], &w, out);
    /* On the last value the list before it has no say, and may not reach as far on the other axes.
     */
    if (w == 1) {
        i++;
        w = 0;
    }
    double lo = t->kid ? tree_at(t->kid + i, q + 1, out) : t->y[i];
    if (w == 0) return lo;
    double hi = t->kid ? tree_at(t->kid + i + 1, q + 1, out) : t->y[i + 1];
    return lo + w * (hi - lo);
}

/* Beyond the last point a list continues with its mean slope over the outer half: single cells are
 * noisy. */
static double list_s(const struct table_list *l, double at, bool *extrapolated)
{
    bool out = false;
    double w;
    int i = cell_of(l->x, l->n, at, &w, &out), last = l->n - 1;
    double y = l->y[i];
    if (out && last > 0) {
        int half = last - 1;
        while (half > 0 && l->x[half] > l->x[last] / 2) half--;
        double slope = (l->y[last] - l->y[half]) / (l->x[last] - l->x[half]);
        y = l->y[last] + fmax(0, slope) * (at - l->x[last]);
    } else if (l->n > 1 && w > 0) {
        y += w * (l->y[i + 1] - y);
    }
    if (out && extrapolated) *extrapolated = true;
    return y;
}

static double named_s(const struct table_list *l, int n, const char *name, double at,
                      bool *extrapolated)
{
    for (int i = 0; i < n; i++)
        if (strcmp(l[i].name, name) == 0) return list_s(l + i, at, extrapolated);
    return -1;
}

double table_dense_s(const struct table *t, const char *layer, double tokens, bool *extrapolated)
{
    return named_s(t->dense, t->n_dense, layer, tokens, extrapolated);
}

double table_seq_s(const struct table *t, const char *layer, double sequences, bool *extrapolated)
{
    return named_s(t->seq, t->n_seq, layer, sequences, extrapolated);
}

bool table_has_attn(const struct table *t)
{
    return t && t->dec.n > 0;
}

int table_dense_names(const struct table *t, const char *const **names)
{
    *names = t->dense_name;
    return t->n_dense;
}

double table_attn_s(const struct table *t, double prefill_tok, double prefill_past, double n_decode,
                    double kv_mean, bool *extrapolated)
{
    bool out = false;
    double dec = 0, pre = 0, s;
    double q[4] = { prefill_tok, prefill_past, n_decode, kv_mean };
    double least = t->mixed.n ? t->mixed.x[0] : 0;
    if (prefill_tok <= 0) {
        s = n_decode > 0 ? tree_at(&t->dec, q + 2, &out) : 0;
    } else if (n_decode <= 0 || !t->mixed.n) {
        q[0] = fmax(q[0], t->pre.x[0]);
        pre = tree_at(&t->pre, q, &out);
        /* Without mixed points the two kernels are taken to run one after the other. */
        if (n_decode > 0) dec = tree_at(&t->dec, q + 2, &out);
        s = pre + dec;
    } else if (prefill_tok < least) {
        q[0] = least;
        dec = tree_at(&t->dec, q + 2, &out);
        s = dec + prefill_tok / least * (tree_at(&t->mixed, q, &out) - dec);
    } else {
        s = tree_at(&t->mixed, q, &out);
    }
    if (out && extrapolated) *extrapolated = true;
    return fmax(0, s);
}

static void line_of(const struct table_tree *t, double at, double *c0, double *c1, double *end)
{
    bool out = false;
    double w;
    int i = cell_of(t->x, t->n, at, &w, &out);
    *c0 = t->y[i];
    *c1 = 0;
    *end = INFINITY;
    if (t->n == 1) return;
    *c1 = (t->y[i + 1] - t->y[i]) / (t->x[i + 1] - t->x[i]);
    *c0 -= *c1 * t->x[i];
    if (i + 2 < t->n) *end = t->x[i + 1];
}

void table_attn_line(const struct table *t, double n_decode, double kv_mean, double *c0_s,
                     double *c1_s, double *kv_end)
{
    bool out = false;
    double w, a[2], b[2], end[2];
    int i = cell_of(t->dec.x, t->dec.n, n_decode, &w, &out);
    int j = t->dec.n > 1 ? i + 1 : i;
    line_of(t->dec.kid + i, kv_mean, a, b, end);
    line_of(t->dec.kid + j, kv_mean, a + 1, b + 1, end + 1);
    *c0_s = a[0] + w * (a[1] - a[0]);
    *c1_s = b[0] + w * (b[1] - b[0]);
    *kv_end = w == 0 ? end[0] : fmin(end[0], end[1]);
}

int table_skew_bin(double x, const double *edge, int n)
{
    int i = 0;
    while (i < n && x > edge[i]) i++;
    return i;
}

double table_skew_alpha(const struct table *t, double n, double kv_mean, double kv_max,
                        double prefill_tok, double dflt)
{
    if (!t->has_skew) return dflt;
    int b = table_skew_index(prefill_tok, n, kv_max - kv_mean);
    return t->alpha[b] >= 0 ? t->alpha[b] : dflt;
}

int table_skew_index(double prefill_tok, double n, double spread)
{
    static const double chunk[] = { 0, 32, 64, 128, 256, 512, 1024 };
    static const double seqs[] = { 2, 4, 8, 16, 32, 64, 128 };
    static const double far[] = { 255.5, 1023.5, 4095.5, 16383.5 };
    int c = table_skew_bin(prefill_tok, chunk, SKEW_CHUNK_BINS - 1);
    int s = table_skew_bin(n, seqs, SKEW_SEQ_BINS - 1);
    int d = table_skew_bin(spread, far, SKEW_FAR_BINS - 1);
    return (c * SKEW_SEQ_BINS + s) * SKEW_FAR_BINS + d;
}
