/* base/hist.c - log-bucket histogram; arithmetic series are added bucket by bucket.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/hist.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"

__extension__ typedef __int128 i128;

/* Bucket i < 2^(HIST_SUB+1) holds the value i alone. Above, a value with its top bit at e >=
 * HIST_SUB+1 drops its low e - HIST_SUB bits; the rest lies in [2^HIST_SUB, 2^(HIST_SUB+1)), so
 * buckets follow each other without gaps. */
static int bucket_of(int64_t value)
{
    uint64_t v = (uint64_t)value;
    if (v < (uint64_t)2 << HIST_SUB) return (int)v;
    int drop = 63 - __builtin_clzll(v) - HIST_SUB;
    return (drop << HIST_SUB) + (int)(v >> drop);
}

static int64_t bucket_low(int i)
{
    if (i < 2 << HIST_SUB) return i;
    int drop = (i >> HIST_SUB) - 1;
    return (int64_t)((i & ((1 << HIST_SUB) - 1)) + (1 << HIST_SUB)) << drop;
}

static int64_t bucket_high(int i)
{
    int64_t width = i < 2 << HIST_SUB ? 1 : (int64_t)1 << ((i >> HIST_SUB) - 1);
    return bucket_low(i) + (width - 1);
}

void hist_init(struct hist *h)
{
    *h = (struct hist){ .count = mem_zalloc(HIST_N, sizeof h->count[0]) };
}

void hist_release(struct hist *h)
{
    free(h->count);
    *h = (struct hist){ 0 };
}

void hist_clear(struct hist *h)
{
    if (h->n) {
        int lo = bucket_of(h->min), hi = bucket_of(h->max);
        memset(h->count + lo, 0, (size_t)(hi - lo + 1) * sizeof h->count[0]);
    }
    *h = (struct hist){ .count = h->count };
}

static void widen(struct hist *h, int64_t lo, int64_t hi)
{
    if (h->n == 0 || lo < h->min) h->min = lo;
    if (h->n == 0 || hi > h->max) h->max = hi;
}

void hist_add(struct hist *h, int64_t value, int64_t times)
{
    if (times <= 0) return;
    if (value < 0) value = 0;
    widen(h, value, value);
    h->count[bucket_of(value)] += times;
    h->n += times;
    h->sum += (double)value * (double)times;
}

/* Sum over j = 0..n-1 of floor((a + b j) / m); a, b >= 0, m > 0. The Euclidean exchange of axes, as
 * for counting lattice points below a line: O(log m) steps. */
static i128 floor_sum(i128 n, i128 m, i128 a, i128 b)
{
    i128 sum = 0;
    while (n > 0) {
        sum += (n * (n - 1) / 2) * (b / m) + n * (a / m);
        a %= m;
        b %= m;
        i128 top = a + b * n;
        n = top / m;
        a = top % m;
        i128 swap = m;
        m = b;
        b = swap;
    }
    return sum;
}

void hist_add_line(struct hist *h, int64_t a, int64_t b, int64_t s0, int64_t ds, int64_t k,
                   int shift, int64_t weight)
{
    assert(b >= 0 && ds >= 0 && shift >= 0 && shift < 64);
    if (k <= 0 || weight <= 0) return;
    i128 first = (i128)a + (i128)b * s0, step = (i128)b * ds;
    if (first < 0) { /* the part below zero counts as 0 */
        i128 n_below = step > 0 ? (-first + step - 1) / step : k;
        if (n_below > k) n_below = k;
        hist_add(h, 0, (int64_t)n_below * weight);
        first += step * n_below;
        k -= (int64_t)n_below;
        if (k == 0) return;
    }
    i128 last = (first + step * (k - 1)) >> shift;
    assert(last <= INT64_MAX);
    widen(h, (int64_t)(first >> shift), (int64_t)last);
    h->n += k * weight;
    h->sum += (double)floor_sum(k, (i128)1 << shift, first, step) * (double)weight;

    int last_bucket = bucket_of((int64_t)last);
    for (int64_t j = 0; j < k;) {
        int at = bucket_of((int64_t)((first + step * j) >> shift));
        if (at == last_bucket) {
            h->count[at] += (k - j) * weight;
            break;
        }
        /* Index of the first value past this bucket: (first + step*j) >> shift > high. step > 0
         * here, or the first value would be in the last bucket. */
        i128 past = ((i128)bucket_high(at) + 1) << shift;
        int64_t next = (int64_t)((past - first + step - 1) / step);
        h->count[at] += (next - j) * weight;
        j = next;
    }
}

void hist_merge(struct hist *into, const struct hist *from)
{
    if (from->n == 0) return;
    widen(into, from->min, from->max);
    for (int i = bucket_of(from->min), hi = bucket_of(from->max); i <= hi; i++)
        if (from->count[i]) into->count[i] += from->count[i]; /* reading first keeps pages unmade */
    into->n += from->n;
    into->sum += from->sum;
}

double hist_quantile(const struct hist *h, double q)
{
    if (h->n == 0 || isnan(q)) return NAN;
    /* The factor keeps the rounding of q*n (0.07 * 100 > 7) from raising the rank by one. */
    double rank = ceil(q * (double)h->n * (1 - 4 * DBL_EPSILON));
    int64_t need = rank < 1 ? 1 : rank >= (double)h->n ? h->n : (int64_t)rank, seen = 0;
    int i = bucket_of(h->min), hi = bucket_of(h->max);
    while (i < hi && (seen += h->count[i]) < need) i++;
    double middle = (double)bucket_low(i) + 0.5 * (double)(bucket_high(i) - bucket_low(i));
    return fmin(fmax(middle, (double)h->min), (double)h->max);
}

double hist_mean(const struct hist *h)
{
    return h->n ? h->sum / (double)h->n : NAN;
}

int64_t hist_count_upto(const struct hist *h, int64_t value)
{
    if (h->n == 0 || value < 0) return 0;
    int hi = bucket_of(value < h->max ? value : h->max);
    int64_t n = 0;
    for (int i = bucket_of(h->min); i <= hi; i++) n += h->count[i];
    return n;
}
