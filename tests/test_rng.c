/* tests/test_rng.c - named streams: determinism, uniformity, independence, moments.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/rng.h"

#include <gsl/gsl_cdf.h>
#include <gsl/gsl_errno.h>
#include <math.h>

#include "tests/test.h"

TEST(rng_mix64_is_the_splitmix64_finaliser)
{
    /* First outputs of SplitMix64 from state 0 and from 1234567 (published test vectors). */
    CHECK(mix64(UINT64_C(0x9e3779b97f4a7c15)) == UINT64_C(0xe220a8397b1dcdaf));
    CHECK(mix64(2 * UINT64_C(0x9e3779b97f4a7c15)) == UINT64_C(0x6e789e6aa1b965f4));
    CHECK(mix64(1234567 + UINT64_C(0x9e3779b97f4a7c15)) == UINT64_C(6457827717110365317));
}

TEST(rng_names_seeds_and_order_matter)
{
    struct rng a = rng_stream(1, "workload.arrivals"), b = rng_stream(1, "workload.lengths");
    struct rng c = rng_stream(2, "workload.arrivals");
    CHECK(a.key != b.key && a.key != c.key && b.key != c.key);
    CHECK(rng_stream(1, "workload.arrivals").key == a.key);
    CHECK(mix_pair(1, 2) != mix_pair(2, 1));
    CHECK(rng_child(a, 0).key != rng_child(a, 1).key && rng_child(a, 0).key != a.key);
    CHECK(rng_bits(a, 7) == rng_bits(a, 7) && rng_bits(a, 7) != rng_bits(a, 8));
}

TEST(rng_every_bit_is_fair)
{
    enum { N = 100000 };
    struct rng r = rng_stream(42, "bits");
    int ones[64] = { 0 };
    for (uint64_t i = 0; i < N; i++)
        for (int b = 0; b < 64; b++) ones[b] += (int)(rng_bits(r, i) >> b & 1);
    double chi2 = 0;
    for (int b = 0; b < 64; b++) chi2 += (ones[b] - N / 2.0) * (ones[b] - N / 2.0) / (N / 4.0);
    CHECK(gsl_cdf_chisq_Q(chi2, 64) > 1e-4 && gsl_cdf_chisq_P(chi2, 64) > 1e-4);
}

TEST(rng_unit_is_uniform_in_one_and_two_dimensions)
{
    enum { N = 400000, K = 32 };
    static int cell[K][K];
    struct rng r = rng_stream(7, "unit");
    double lo = 1, hi = 0;
    for (uint64_t i = 0; i < N; i++) {
        double u = rng_unit(r, 2 * i), v = rng_unit(r, 2 * i + 1);
        cell[(int)(u * K)][(int)(v * K)]++;
        lo = fmin(lo, u);
        hi = fmax(hi, u);
    }
    double chi2 = 0, want = (double)N / (K * K);
    for (int i = 0; i < K; i++)
        for (int j = 0; j < K; j++) chi2 += (cell[i][j] - want) * (cell[i][j] - want) / want;
    CHECK(gsl_cdf_chisq_Q(chi2, K * K - 1) > 1e-4 && gsl_cdf_chisq_P(chi2, K * K - 1) > 1e-4);
    CHECK(lo > 0 && hi < 1);
}

/* Correlation of N pairs of uniforms; its standard deviation is 1/sqrt(N). */
static double correlation(struct rng a, uint64_t step, struct rng b, uint64_t shift, int n)
{
    double s = 0;
    for (int i = 0; i < n; i++)
        s += (rng_unit(a, (uint64_t)i * step) - 0.5) *
             (rng_unit(b, (uint64_t)i * step + shift) - 0.5);
    return 12 * s / n;
}

TEST(rng_neighbours_are_uncorrelated)
{
    enum { N = 100000 };
    struct rng r = rng_stream(3, "lag");
    double limit = 4.5 / sqrt(N);
    for (uint64_t lag = 1; lag <= 8; lag++) CHECK(fabs(correlation(r, 1, r, lag, N)) < limit);
    CHECK(fabs(correlation(r, 64, r, 1, N)) < limit);
    for (uint64_t seed = 4; seed < 8; seed++) {
        CHECK(fabs(correlation(r, 1, rng_stream(seed, "lag"), 0, N)) < limit);
        CHECK(fabs(correlation(rng_child(r, seed), 1, rng_child(r, seed + 1), 0, N)) < limit);
    }
    double s = 0; /* across streams at one index, as replications use them */
    for (uint64_t i = 0; i < N; i++)
        s += (rng_unit(rng_child(r, i), 0) - 0.5) * (rng_unit(rng_child(r, i + 1), 0) - 0.5);
    CHECK(fabs(12 * s / N) < limit);
}

TEST(rng_laws_have_their_moments)
{
    enum { N = 100000 };
    struct rng r = rng_stream(11, "laws");
    double root = sqrt(N), exp_sum = 0, z = 0, zz = 0;
    for (uint64_t i = 0; i < N; i++) {
        double x = rng_normal(r, i);
        exp_sum += rng_exp(r, i, 2.5);
        z += x;
        zz += x * x;
    }
    CHECK(fabs(exp_sum / N - 2.5) < 4 * 2.5 / root);
    CHECK(fabs(z / N) < 4 / root);
    CHECK(fabs(zz / N - 1) < 4 * sqrt(2) / root);
}

TEST(rng_gamma_inverts_its_distribution)
{
    static const double shape[] = { 1e-3, 0.02, 0.1, 0.5, 0.99, 1, 2.7, 30, 1e4 };
    gsl_set_error_handler_off();
    struct rng r = rng_stream(12, "gamma");
    for (size_t k = 0; k < sizeof shape / sizeof shape[0]; k++) {
        double worst = 0, sum = 0;
        int n = 4000;
        for (int i = 0; i < n; i++) {
            double x = rng_gamma(r, (uint64_t)i, shape[k], 3), u = rng_unit(r, (uint64_t)i);
            CHECK(x >= 0 && isfinite(x));
            sum += x;
            if (x > 1e-300)
                worst = fmax(worst, fabs(gsl_cdf_gamma_P(x, shape[k], 3) - u) / fmin(u, 1 - u));
        }
        CHECK(worst < 1e-6);
        CHECK(fabs(sum / n - 3 * shape[k]) < 5 * 3 * sqrt(shape[k] / n));
    }
}

TEST(rng_below_covers_its_range_evenly)
{
    enum { N = 70000 };
    int seen[7] = { 0 };
    struct rng r = rng_stream(13, "below");
    for (uint64_t i = 0; i < N; i++) {
        uint64_t v = rng_below(r, i, 7);
        if (CHECK(v < 7)) seen[v]++;
    }
    for (int i = 0; i < 7; i++) CHECK(fabs(seen[i] - N / 7.0) < 5 * sqrt(N / 7.0));
    CHECK_INT(rng_below(r, 0, 1), 0);
    CHECK(rng_below(r, 3, UINT64_MAX) == rng_bits(r, 3) - 1 ||
          rng_below(r, 3, UINT64_MAX) == rng_bits(r, 3));
}
