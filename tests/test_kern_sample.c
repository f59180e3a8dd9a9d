/* tests/test_kern_sample.c - sampling kernels: sums of all tables, cuts against a sort, draws against
 * the softmax. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "engine/kern.h"
#include "tests/logits.h"
#include "tests/test.h"

static uint64_t drawn;
static double unit(void)
{
    return rng_unit(rng_stream(12, "sample"), drawn++);
}

static int below(int n)
{
    return (int)rng_below(rng_stream(12, "sample"), drawn++, (uint64_t)n);
}

static double normal(void)
{
    double u = unit();
    return sqrt(-2 * log(1 - u)) * cos(6.283185307 * unit());
}

static void fill(float *x, int n, double scale)
{
    for (int i = 0; i < n; i++)
        x[i] = (float)(scale * (unit() + unit() - 1) * (i % 17 == 3 ? 4 : 1));
}

/* ---- sums -------------------------------------------------------------------------------------- */
static void check_sums(int n)
{
    float *x = calloc((size_t)n, 4), *w = calloc((size_t)n, 4), *left = calloc((size_t)n, 4);
    float at[KERN_N_FROM], block[2][8] = { { 0 } };
    double mass[2][KERN_N_FROM];
    fill(x, n, 3);
    for (int i = 0; i < n; i++) w[i] = (float)unit();
    for (int j = 0; j < KERN_N_FROM; j++) at[j] = j ? x[below(n)] : -INFINITY;
    if (n > 4) x[n / 2] = NAN, w[n / 2] = 0, x[n / 3] = -INFINITY;
    for (int t = 0; kern_at(t); t++) {
        kern_at(t)->mass_from(mass[t > 0], w, x, n, at);
        CHECK(kern_at(t)->largest(x, n) == kern_at(0)->largest(x, n));
        memcpy(left, w, (size_t)n * 4);
        kern_at(t)->keep_from(block[t > 0], left, x, n, at[1]);
        if (t > 0) CHECK(memcmp(mass[0], mass[1], sizeof *mass) == 0);
        if (t > 0) CHECK(memcmp(block[0], block[1], sizeof *block) == 0);
        for (int i = 0; i < n; i++) CHECK(left[i] == (x[i] < at[1] ? 0 : w[i]));
    }
    double sum[KERN_N_FROM] = { 0 }, in_blocks = 0;
    CHECK(x[kern_argmax(x, n)] == kern_at(0)->largest(x, n));
    for (int j = 0; j < KERN_N_FROM; j++) {
        for (int i = 0; i < n; i++) sum[j] += x[i] >= at[j] ? (double)w[i] : 0;
        CHECK(fabs(mass[0][j] - sum[j]) <= KERN_TOL_MASS * sum[j]);
    }
    for (int b = 0; b * KERN_SUM_BLOCK < n; b++) in_blocks += (double)block[0][b];
    CHECK(fabs(in_blocks - sum[1]) <= KERN_TOL_MASS * sum[1]);
    free(x);
    free(w);
    free(left);
}

TEST(kern_sums_above_thresholds_are_the_same_in_all_tables)
{
    for (int n = 1; n < 8 * KERN_SUM_BLOCK; n += n < 40 ? 1 : 67) check_sums(n);
}

/* ---- drawing ----------------------------------------------------------------------------------- */
TEST(kern_argmax_takes_the_first_of_equals)
{
    float a[] = { NAN, 1, 3, NAN, 3, 2 }, b[] = { NAN, NAN }, c[] = { -INFINITY, -5 };
    CHECK_INT(kern_argmax(a, 6), 2);
    CHECK_INT(kern_argmax(b, 2), 0);
    CHECK_INT(kern_argmax(c, 2), 1);
}

/* How often each of n tokens comes up over an even grid of u. */
static void shares(const float *logit, int32_t n, struct kern_pick p, double *share)
{
    enum { U = 20000 };
    void *tmp = malloc(kern_sample_bytes(n));
    for (int32_t i = 0; i < n; i++) share[i] = 0;
    for (int i = 0; i < U; i++) {
        int32_t at = kern_sample(logit, n, &p, (i + 0.5) / U, tmp);
        if (CHECK(at >= 0 && at < n)) share[at] += 1.0 / U;
    }
    free(tmp);
}

TEST(kern_sample_draws_the_softmax)
{
    float logit[20];
    double share[20], p[20], all = 0;
    fill(logit, 20, 3);
    logit[7] = -INFINITY;
    logit[8] = NAN;
    for (int i = 0; i < 20; i++) all += p[i] = isfinite(logit[i]) ? exp((double)logit[i] / 0.7) : 0;
    shares(logit, 20, (struct kern_pick){ 0.7f, 0, 1 }, share);
    for (int i = 0; i < 20; i++) CHECK(fabs(share[i] - p[i] / all) < 1.1e-4);
    CHECK(share[7] == 0 && share[8] == 0);
}

TEST(kern_sample_cuts_by_k_then_by_p)
{
    /* shares 8 : 4 : 4 : 2 : 1 : 1, scattered; -0 and +0 are equal */
    float ln2 = 0.69314718056f, l[] = { 0.0f, 3 * ln2, 2 * ln2, -0.0f, 2 * ln2, ln2 };
    double s[6];
    shares(l, 6, (struct kern_pick){ 1, 0, 0.5f }, s); /* 8/20, then the first 4: 12/20 */
    CHECK(fabs(s[1] - 8.0 / 12) < 1e-3 && fabs(s[2] - 4.0 / 12) < 1e-3 && s[4] == 0);
    shares(l, 6, (struct kern_pick){ 1, 3, 1 }, s);
    CHECK(fabs(s[1] - 0.5) < 1e-3 && fabs(s[2] - 0.25) < 1e-3 && fabs(s[4] - 0.25) < 1e-3);
    shares(l, 6, (struct kern_pick){ 1, 5, 0.96f }, s); /* 18/19 falls short: the first 1 too */
    CHECK(fabs(s[0] - 1.0 / 19) < 1e-3 && s[3] == 0);
    shares(l, 6, (struct kern_pick){ 1, 2, 0.6f }, s); /* 8 of 12 is enough */
    CHECK_NEAR(s[1], 1, 1e-9);
    shares(l, 6, (struct kern_pick){ 1, 0, 0 }, s);
    CHECK_NEAR(s[1], 1, 1e-9);
    shares(l, 6, (struct kern_pick){ 0, 0, 1 }, s);
    CHECK_NEAR(s[1], 1, 1e-9);
    shares(l, 6, (struct kern_pick){ 1e-30f, 0, 1 }, s); /* cold: no overflow */
    CHECK_NEAR(s[1], 1, 1e-9);
}

/* The leading set against one found by sorting. */
static const float *sort_by;
static int by_logit(const void *a, const void *b)
{
    int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    if (sort_by[i] != sort_by[j]) return sort_by[i] > sort_by[j] ? -1 : 1;
    return i < j ? -1 : 1;
}

TEST(kern_sample_keeps_the_set_a_sort_would)
{
    enum { N = 500 };
    float logit[N];
    void *tmp = malloc(kern_sample_bytes(N));
    int32_t order[N];
    for (int round = 0; round < 60; round++) {
        fill(logit, N, round % 3 ? 2 : 0.01);
        for (int i = 0; i < N; i++) {
            if (round % 2) logit[i] = floorf(logit[i] * 4); /* many ties */
            order[i] = i;
        }
        sort_by = logit;
        qsort(order, N, sizeof *order, by_logit);
        struct kern_pick p = { 1, round % 4 ? 1 + below(N) : 0, (float)(0.05 + 0.01 * below(90)) };
        int32_t k = p.top_k ? p.top_k : N, n_keep = 0;
        double all = 0, sum = 0;
        for (int i = 0; i < k; i++) all += exp((double)logit[order[i]] - (double)logit[order[0]]);
        while (n_keep < k && (n_keep == 0 || sum < (double)p.top_p * all * (1 - 1e-6)))
            sum += exp((double)logit[order[n_keep++]] - (double)logit[order[0]]);
        bool in[N] = { false };
        for (int i = 0; i < n_keep + 1 && i < N; i++) in[order[i]] = true; /* one for rounding */
        for (int i = 0; i < 200; i++) CHECK(in[kern_sample(logit, N, &p, (i + 0.5) / 200, tmp)]);
    }
    free(tmp);
}

/* Probability of each by a sort in f64; the share of the mass that the cut may be off by rounding. */
static void softmax_cut(const float *x, int n, const struct kern_pick *p, double *prob)
{
    int32_t *order = malloc((size_t)n * sizeof *order), m = 0;
    double all = 0, sum = 0;
    for (int32_t i = 0; i < n; i++) {
        prob[i] = 0;
        if (x[i] > -INFINITY) order[m++] = i;
    }
    sort_by = x;
    qsort(order, (size_t)m, sizeof *order, by_logit);
    if (p->top_k > 0 && p->top_k < m) m = p->top_k;
    double top = (double)x[order[0]];
    for (int32_t k = 0; k < m; k++)
        all += exp(((double)x[order[k]] - top) / (double)p->temperature);
    for (int32_t k = 0; k < m && (k == 0 || sum < (double)p->top_p * all || p->top_p >= 1); k++)
        sum += prob[order[k]] = exp(((double)x[order[k]] - top) / (double)p->temperature);
    for (int32_t i = 0; i < n; i++) prob[i] /= sum;
    free(order);
}

/* A draw of u is where the cumulated probability passes u. */
static void check_draws(const float *x, int n, const struct kern_pick *p, void *tmp)
{
    enum { DRAWS = 12 };
    double *prob = malloc((size_t)n * sizeof *prob);
    softmax_cut(x, n, p, prob);
    for (int k = 0; k < DRAWS; k++) {
        double u = k ? unit() : 0, upto = 0;
        int32_t got = kern_sample(x, n, p, u, tmp);
        if (!CHECK(got >= 0 && got < n && x[got] > -INFINITY)) break;
        for (int32_t i = 0; i < got; i++) upto += prob[i];
        bool fits = upto <= u + 1e-4 && u <= upto + prob[got] + 1e-4;
        if (!CHECK(fits))
            printf("  n %d, k %d, p %g, T %g: %g gives %d, [%g, %g]\n", n, p->top_k,
                   (double)p->top_p, (double)p->temperature, u, got, upto, upto + prob[got]);
    }
    free(prob);
}

TEST(kern_sample_draws_from_the_cut_softmax_whatever_its_shape)
{
    static const int size[] = { 1, 2, 17, 255, 257, 3001, 20011 };
    static const float temperature[] = { 0.05f, 0.8f, 30 };
    for (int shape = 0; shape < LOGITS_SHAPES; shape++)
        for (int z = 0; z < 7; z++) {
            int n = size[z];
            float *x = malloc((size_t)n * sizeof *x);
            void *tmp = malloc(kern_sample_bytes(n));
            for (int i = 0; i < n; i++) x[i] = logits_shaped(shape, i, unit, normal);
            for (int i = 0; i < 12; i++) {
                struct kern_pick p = { temperature[i % 3], i % 4 < 2 ? 0 : 1 + below(n),
                                       i % 2 ? 1 : (float)(0.02 + 0.97 * unit()) };
                memset(tmp, i, kern_sample_bytes(n)); /* what is left of others does not matter */
                check_draws(x, n, &p, tmp);
            }
            free(x);
            free(tmp);
        }
}
