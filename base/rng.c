/* base/rng.c - counter-based streams from the SplitMix64 finaliser; other laws by inverse CDF.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/rng.h"

#include <assert.h>
#include <gsl/gsl_cdf.h>
#include <math.h>

__extension__ typedef unsigned __int128 u128;

/* 2^64 divided by the golden ratio, odd: the increment of SplitMix64. */
static const uint64_t GOLDEN = UINT64_C(0x9e3779b97f4a7c15);

uint64_t mix64(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

uint64_t mix_pair(uint64_t a, uint64_t b)
{
    return mix64(mix64(a + GOLDEN) ^ (b + UINT64_C(0x632be59bd9b4e019)));
}

uint64_t mix_text(const char *text)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325); /* FNV-1a, whose low bits alone are weak */
    for (const char *p = text; *p; p++) h = (h ^ (unsigned char)*p) * UINT64_C(0x100000001b3);
    return mix64(h);
}

struct rng rng_stream(uint64_t seed, const char *name)
{
    return (struct rng){ mix_pair(seed, mix_text(name)) };
}

struct rng rng_child(struct rng r, uint64_t index)
{
    return (struct rng){ mix_pair(r.key, index) };
}

uint64_t rng_bits(struct rng r, uint64_t i)
{
    /* The key enters the second round too: two keys a multiple of GOLDEN apart would otherwise give
     * the same sequence, shifted. */
    return mix64(mix64(r.key + i * GOLDEN) + r.key);
}

double rng_unit(struct rng r, uint64_t i)
{
    /* 52 bits and a half: with 53 bits the largest value would round to 1. */
    return ((double)(rng_bits(r, i) >> 12) + 0.5) * 0x1p-52;
}

double rng_exp(struct rng r, uint64_t i, double mean)
{
    return -mean * log1p(-rng_unit(r, i));
}

double rng_normal(struct rng r, uint64_t i)
{
    return gsl_cdf_ugaussian_Pinv(rng_unit(r, i));
}

/* Quantile of Gamma(shape, 1) by a bracketed Newton iteration on y = ln x, which stays accurate
 * where small shapes put most values many decades below 1. Since P(x) <= x^a / Gamma(a+1) with
 * equality as x goes to 0 (Abramowitz and Stegun 6.5.29), the inverse of that bound is a lower
 * limit of x. */
static double gamma_quantile(double u, double shape)
{
    double lo = (log(u) + lgamma(shape + 1)) / shape;
    if (lo < -40) return exp(lo); /* the neglected factor is 1 - x/(a+1), x < 5e-18 */
    double hi = fmax(lo, log(shape + 40 * sqrt(shape) + 800)), y = fmin(lo + 0.1, hi);
    for (int k = 0; k < 200 && hi - lo > 1e-15 * fmax(1, fabs(y)); k++) {
        double x = exp(y), slope = exp(shape * y - x - lgamma(shape)); /* dP/dy */
        double miss =
            u < 0.5 ? gsl_cdf_gamma_P(x, shape, 1) - u : (1 - u) - gsl_cdf_gamma_Q(x, shape, 1);
        if (miss < 0)
            lo = y;
        else
            hi = y;
        double next = y - miss / slope;
        if (!(next > lo && next < hi)) next = 0.5 * (lo + hi);
        if (fabs(next - y) < 1e-15 * fmax(1, fabs(y))) break;
        y = next;
    }
    return exp(y);
}

double rng_gamma(struct rng r, uint64_t i, double shape, double scale)
{
    assert(shape > 0 && scale >= 0);
    double u = rng_unit(r, i), x = NAN;
    /* The start values of gsl_cdf_gamma_Pinv assume that shape is not small: below 1 it may not
     * converge. */
    if (shape >= 1) x = gsl_cdf_gamma_Pinv(u, shape, 1);
    if (!isfinite(x) || x < 0) x = gamma_quantile(u, shape);
    return scale * x;
}

uint64_t rng_below(struct rng r, uint64_t i, uint64_t n)
{
    assert(n > 0);
    return (uint64_t)(((u128)rng_bits(r, i) * n) >> 64); /* bias at most n / 2^64 */
}
