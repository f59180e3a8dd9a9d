/* tests/test_stat.c - known answers and closed forms of the statistics.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/stat.h"

#include <math.h>

#include "base/rng.h"
#include "tests/test.h"

TEST(stat_mean_and_sd)
{
    const double x[] = { 2, 4, 4, 4, 5, 5, 7, 9 }, big[] = { 1e16, 1, -1e16, 1 };
    CHECK_NEAR(stat_mean(x, 8), 5, 0);
    CHECK_NEAR(stat_sd(x, 8), sqrt(32.0 / 7), 1e-15);
    CHECK_NEAR(stat_mean(big, 4), 0.5, 0); /* a plain sum gives 0.25 */
    CHECK(isnan(stat_mean(x, 0)) && isnan(stat_sd(x, 1)));
}

TEST(stat_quantile_is_type_7)
{
    const double x[] = { 1, 2, 3, 4 }, y[] = { 1, INFINITY };
    CHECK_NEAR(stat_quantile_sorted(x, 4, 0.25), 1.75, 1e-15); /* numpy.percentile([1,2,3,4], 25) */
    CHECK_NEAR(stat_quantile_sorted(x, 4, 0.9), 3.7, 1e-15);
    CHECK_NEAR(stat_quantile_sorted(x, 4, 0), 1, 0);
    CHECK_NEAR(stat_quantile_sorted(x, 4, 1), 4, 0);
    CHECK_NEAR(stat_quantile_sorted(y, 2, 0), 1, 0);
    CHECK(isnan(stat_quantile_sorted(x, 0, 0.5)));
}

TEST(stat_sort_puts_nan_last)
{
    double x[] = { 3, NAN, -1, INFINITY, 0 };
    stat_sort(x, 5);
    CHECK(x[0] == -1 && x[1] == 0 && x[2] == 3 && x[3] == INFINITY && isnan(x[4]));
}

TEST(stat_t_and_normal_quantiles)
{
    CHECK_NEAR(stat_t_quantile(0.975, 3), 3.182446305, 1e-9);
    CHECK_NEAR(stat_t_quantile(0.975, 19), 2.093024054, 1e-9);
    CHECK_NEAR(stat_normal_quantile(0.975), 1.959963985, 1e-9);
}

TEST(stat_ci_mean_of_four_batches)
{
    /* 1..40 in four batches has the means 5.5, 15.5, 25.5, 35.5: 20.5 +- 20.54260257. */
    const double m[] = { 5.5, 15.5, 25.5, 35.5 };
    struct ci c = stat_ci_mean(m, 4, 0.95);
    CHECK_NEAR(c.mid, 20.5, 1e-15);
    CHECK_NEAR(c.hi - c.mid, 20.54260257, 1e-9);
    CHECK_NEAR(c.mid - c.lo, 20.54260257, 1e-9);
    CHECK(isnan(stat_ci_mean(m, 1, 0.95).lo));
}

TEST(stat_ci_batch_of_a_ramp)
{
    /* 1..40 in 20 batches: means 1.5, 3.5, ..., 39.5, variance 4 * (20^2 - 1)/12 * 20/19 = 140;
     * half width t_19 sqrt(140/20). Lag 1 of a ramp of 20: sum (i-m)(i+1-m) / sum (i-m)^2
     * = 1 - (sum of squared differences + both end squares)/(2 * 665) = .85. */
    double x[43] = { 1e6, 1e6, 1e6 }, lag1;
    for (int i = 0; i < 40; i++) x[3 + i] = i + 1;
    struct ci c = stat_ci_batch(x, 43, 3, 0.95, &lag1);
    CHECK_NEAR(c.mid, 20.5, 1e-15);
    CHECK_NEAR(c.hi - c.mid, 2.093024054 * sqrt(7), 1e-9);
    CHECK_NEAR(lag1, 1 - (19 + 2 * 9.5 * 9.5) / (2 * 665.0), 1e-12);
    c = stat_ci_batch(x, 19, 0, 0.95, &lag1);
    CHECK(isnan(c.lo) && isnan(lag1));
    CHECK(isnan(stat_ci_batch(x, 3, 9, 0.95, NULL).mid));
}

/* No value is left out: the mean is that of all, and inside its interval. */
TEST(stat_ci_batch_holds_all_values)
{
    double x[60], lag1;
    for (size_t n = 20; n <= 60; n++) {
        for (size_t i = 0; i < n; i++) x[i] = i < n % 20 ? 100 : (double)(i % 2);
        struct ci c = stat_ci_batch(x, n, 0, 0.9, &lag1);
        CHECK_NEAR(c.mid, stat_mean(x, n), 1e-12);
        CHECK(c.lo <= c.mid && c.mid <= c.hi);
        CHECK_NEAR(c.mid - c.lo, c.hi - c.mid, 1e-9);
    }
    /* 1..30: ten batches of two, 1.5 .. 19.5, then ten of one, 21 .. 30; sum of squares about their
     * mean 18 = (330 + 10 * 7.5^2) + (82.5 + 10 * 7.5^2) */
    for (int i = 0; i < 30; i++) x[i] = i + 1;
    struct ci c = stat_ci_batch(x, 30, 0, 0.95, NULL);
    CHECK_NEAR(c.mid, 15.5, 1e-12);
    CHECK_NEAR(c.hi - c.mid, 2.093024054 * sqrt((330 + 82.5 + 2 * 10 * 7.5 * 7.5) / 19 / 20), 1e-9);
}

TEST(stat_jackknife_of_the_mean_is_the_t_interval)
{
    const double x[] = { 3.1, 2.7, 4.4, 3.9, 2.2, 5.0 };
    double minus[6], sum = 0;
    for (int i = 0; i < 6; i++) sum += x[i];
    for (int i = 0; i < 6; i++) minus[i] = (sum - x[i]) / 5;
    struct ci j = stat_ci_jackknife(sum / 6, minus, 6, 0.9), t = stat_ci_mean(x, 6, 0.9);
    CHECK_NEAR(j.lo, t.lo, 1e-12);
    CHECK_NEAR(j.mid, t.mid, 1e-12);
    CHECK_NEAR(j.hi, t.hi, 1e-12);
    CHECK(isnan(stat_ci_jackknife(1, minus, 1, 0.9).hi));
}

TEST(stat_rising_is_the_best_curve_of_those_that_rise)
{
    double y[] = { 1, 4, 2, 3, 5 };
    const double known[] = { 1, 3, 3, 3, 5 };
    stat_rising(y, NULL, 5);
    for (int i = 0; i < 5; i++) CHECK_NEAR(y[i], known[i], 1e-12);
    struct rng r = rng_stream(1, "test.rising");
    for (uint64_t t = 0; t < 200; t++) {
        enum { N = 9 };
        double x[N], w[N], got[N];
        for (uint64_t i = 0; i < N; i++) {
            got[i] = x[i] = (double)rng_below(r, 40 * t + i, 7);
            w[i] = 1 + (double)rng_below(r, 40 * t + 20 + i, 4);
        }
        stat_rising(got, w, N);
        for (int i = 0; i < N; i++) { /* the largest, over beginnings, of the smallest mean */
            double most = -INFINITY;
            for (int from = 0; from <= i; from++) {
                double least = INFINITY, sum = 0, all = 0;
                for (int to = from; to < N; to++) {
                    sum += w[to] * x[to];
                    all += w[to];
                    if (to >= i) least = fmin(least, sum / all);
                }
                most = fmax(most, least);
            }
            CHECK_NEAR(got[i], most, 1e-9);
        }
        double is = 0, was = 0;
        for (int i = 0; i < N; i++) {
            is += w[i] * got[i];
            was += w[i] * x[i];
        }
        CHECK_NEAR(is, was, 1e-9); /* no bias */
    }
}

TEST(stat_wilson_known_answers)
{
    struct ci c = stat_ci_wilson(95, 100, 0.95);
    CHECK(fabs(c.lo - 0.888250) < 5e-7 && fabs(c.hi - 0.978456) < 5e-7);
    c = stat_ci_wilson(100, 100, 0.95);
    CHECK(fabs(c.lo - 0.963007) < 5e-7 && c.hi == 1);
    c = stat_ci_wilson(0, 50, 0.95);
    CHECK(c.lo == 0 && fabs(c.hi - 0.071348) < 5e-7);
    CHECK(isnan(stat_ci_wilson(0, 0, 0.95).lo));
}

TEST(stat_quantile_ranks_known_answers)
{
    static const struct {
        size_t n;
        double p;
        size_t l, u;
    } want[] = {
        { 6, .5, 1, 6 },        { 10, .5, 2, 9 },        { 20, .5, 6, 15 },
        { 30, .5, 10, 21 },     { 100, .9, 84, 96 },     { 100, .95, 90, 100 },
        { 100, .99, 97, 101 },  { 1000, .99, 983, 997 }, { 5000, .999, 4990, 5000 },
        { 367, .99, 359, 368 }, { 3, .5, 0, 4 },
    };
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        size_t l, u;
        stat_quantile_ranks(want[i].n, want[i].p, 0.95, &l, &u);
        if (want[i].n != 367) CHECK_INT(l, want[i].l);
        CHECK_INT(u, want[i].u);
    }
    size_t l, u; /* the smallest n with a finite interval of p99 */
    stat_quantile_ranks(368, .99, 0.95, &l, &u);
    CHECK(l > 0 && u <= 368);
}

TEST(stat_mser5_known_answer)
{
    double x[200];
    bool found;
    for (int i = 0; i < 50; i++) x[i] = i < 10 ? 10 : i % 2;
    CHECK_INT(stat_mser5(x, 50, &found), 10);
    CHECK(found);
    for (int i = 0; i < 200; i++) x[i] = i; /* a ramp never settles */
    stat_mser5(x, 200, &found);
    CHECK(!found);
    for (int i = 0; i < 50; i++) x[i] = 3;
    CHECK_INT(stat_mser5(x, 50, &found), 0);
    CHECK(found);
    CHECK_INT(stat_mser5(x, 0, &found), 0);
    CHECK(!found);
}

TEST(stat_line_and_lag1)
{
    /* Anscombe's first set: y = 3.000 + 0.500 x, t = 4.24 */
    const double x[] = { 10, 8, 13, 9, 11, 14, 6, 4, 12, 7, 5 };
    const double y[] = { 8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68 };
    double a, b, t;
    stat_line(x, y, 11, &a, &b, &t);
    CHECK_NEAR(a, 3.0000909, 1e-6);
    CHECK_NEAR(b, 0.5000909, 1e-6);
    CHECK_NEAR(t, 4.2414553, 1e-6);
    stat_line(x, x, 11, &a, &b, &t);
    CHECK(b == 1 && t == INFINITY);
    stat_line(x, y, 1, &a, &b, &t);
    CHECK(a == y[0] && isnan(b) && isnan(t));
    const double alt[] = { 1, -1, 1, -1 };
    CHECK_NEAR(stat_lag1(alt, 4), -0.75, 1e-15);
    CHECK(isnan(stat_lag1(alt, 1)));
}

TEST(stat_kendall_tau_b)
{
    const double x[] = { 1, 2, 3, 4 }, y[] = { 1, 2, 4, 3 }, z[] = { 4, 3, 2, 1 };
    const double tx[] = { 12, 2, 1, 12, 2 },
                 ty[] = { 1, 4, 7, 1, 0 }; /* SciPy's documented example */
    CHECK_NEAR(stat_kendall(x, y, 4), 4.0 / 6, 1e-15);
    CHECK_NEAR(stat_kendall(x, z, 4), -1, 1e-15);
    CHECK_NEAR(stat_kendall(tx, ty, 5), -0.47140452079103173, 1e-14);
    CHECK(isnan(stat_kendall(x, y, 1)));
}

TEST(stat_ci_mean_covers_as_often_as_it_says)
{
    enum { N = 4000, R = 5 };
    int hit = 0;
    for (int k = 0; k < N; k++) {
        double x[R];
        struct rng r = rng_child(rng_stream(5, "coverage"), (uint64_t)k);
        for (int i = 0; i < R; i++) x[i] = rng_normal(r, (uint64_t)i);
        struct ci c = stat_ci_mean(x, R, 0.95);
        hit += c.lo <= 0 && c.hi >= 0;
    }
    CHECK(fabs(hit / (double)N - 0.95) < 4.4 * sqrt(.95 * .05 / N));
}
