/* tests/test_hist.c - buckets against exact values, series against single adds.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/hist.h"

#include <math.h>
#include <stdlib.h>

#include "base/rng.h"
#include "tests/test.h"

__extension__ typedef __int128 i128;

static bool same(const struct hist *a, const struct hist *b)
{
    return a->n == b->n && a->min == b->min && a->max == b->max && a->sum == b->sum &&
           memcmp(a->count, b->count, HIST_N * sizeof a->count[0]) == 0;
}

TEST(hist_line_equals_single_adds)
{
    struct hist line, each;
    struct rng r = rng_stream(1, "hist.line");
    hist_init(&line);
    hist_init(&each);
    uint64_t at = 0;
    for (int c = 0; c < 2000; c++) {
        int shift = (int)rng_below(r, at++, 40);
        int64_t k = 1 + (int64_t)rng_below(r, at++, 400),
                weight = 1 + (int64_t)rng_below(r, at++, 5);
        int64_t a = (int64_t)(rng_bits(r, at) >> (24 + rng_below(r, at + 5, 39)));
        int64_t b = (int64_t)(rng_bits(r, at + 1) >> (30 + rng_below(r, at + 2, 34)));
        int64_t s0 = (int64_t)rng_below(r, at + 3, 100000), ds = (int64_t)rng_below(r, at + 4, 50);
        at += 6;
        if (c % 10 == 0) b = 0;
        if (c % 10 == 1) ds = 0;
        if (c % 7 == 0) a = -a;
        hist_clear(&line);
        hist_clear(&each);
        hist_add_line(&line, a, b, s0, ds, k, shift, weight);
        for (int64_t j = 0; j < k; j++)
            hist_add(&each, (int64_t)(((i128)a + (i128)b * (s0 + j * ds)) >> shift), weight);
        if (each.sum >= 0x1p53) line.sum = each.sum; /* past it, single adds round */
        if (!CHECK(same(&line, &each))) break;
    }
    hist_release(&line);
    hist_release(&each);
}

TEST(hist_line_of_nothing_and_of_much)
{
    struct hist h;
    hist_init(&h);
    hist_add_line(&h, 5, 1, 0, 1, 0, 0, 1);
    hist_add_line(&h, 5, 1, 0, 1, 3, 0, 0);
    CHECK_INT(h.n, 0);
    CHECK(isnan(hist_quantile(&h, 0.5)) && isnan(hist_mean(&h)));
    hist_add_line(&h, 0, 1, 0, 1, INT64_C(1) << 40, 0, 1); /* 0 .. 2^40 - 1, by buckets */
    CHECK_INT(h.n, INT64_C(1) << 40);
    CHECK_INT(hist_count_upto(&h, (INT64_C(1) << 39) - 1), INT64_C(1) << 39);
    CHECK_NEAR(hist_mean(&h), ((double)(INT64_C(1) << 40) - 1) / 2, 1e-15);
    CHECK_INT(h.max, (INT64_C(1) << 40) - 1);
    hist_release(&h);
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

TEST(hist_quantile_is_within_its_bound)
{
    enum { N = 20000 };
    static int64_t v[N];
    struct rng r = rng_stream(2, "hist.q");
    struct hist h;
    hist_init(&h);
    for (int i = 0; i < N; i++) {
        v[i] = (int64_t)exp(40 * rng_unit(r, (uint64_t)i)); /* 1 ns to 2.4e17 ns */
        hist_add(&h, v[i], 1);
    }
    qsort(v, N, sizeof v[0], by_value);
    for (int q = 1; q <= 1000; q++) {
        int64_t exact = v[(q * (int64_t)N + 999) / 1000 - 1];
        double got = hist_quantile(&h, q / 1000.0);
        if (!CHECK(fabs(got - (double)exact) <= ldexp((double)exact, -HIST_SUB - 1))) break;
        if (exact < 4096) CHECK(got == (double)exact);
    }
    CHECK_NEAR(hist_quantile(&h, 0), (double)v[0], 0);
    CHECK_INT(hist_count_upto(&h, INT64_MAX), N);
    CHECK_INT(hist_count_upto(&h, -1), 0);
    hist_release(&h);
}

TEST(hist_merge_equals_adding_to_one)
{
    struct hist a, b, all;
    struct rng r = rng_stream(3, "hist.merge");
    hist_init(&a);
    hist_init(&b);
    hist_init(&all);
    for (uint64_t i = 0; i < 5000; i++) {
        int64_t v = (int64_t)(rng_bits(r, i) >> (24 + i % 40));
        hist_add(i % 3 ? &a : &b, v, 1 + (int64_t)(i % 4));
        hist_add(&all, v, 1 + (int64_t)(i % 4));
    }
    hist_merge(&a, &b);
    CHECK(same(&a, &all));
    hist_clear(&b);
    hist_merge(&a, &b);
    CHECK(same(&a, &all));
    hist_merge(&b, &all);
    CHECK(same(&b, &all));
    hist_release(&a);
    hist_release(&b);
    hist_release(&all);
}

TEST(hist_takes_the_whole_range)
{
    struct hist h;
    hist_init(&h);
    hist_add(&h, -5, 2);
    hist_add(&h, INT64_MAX, 1);
    hist_add(&h, 9, 0);
    CHECK_INT(h.n, 3);
    CHECK_INT(h.min, 0);
    CHECK_INT(h.max, INT64_MAX);
    CHECK_INT(h.count[0], 2);
    CHECK_INT(h.count[HIST_N - 1], 1);
    hist_clear(&h);
    CHECK_INT(h.count[HIST_N - 1] + h.count[0] + h.n, 0);
    hist_release(&h);
}
