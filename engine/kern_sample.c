/* engine/kern_sample.c - one token from its logits: argmax, or top-k and top-p with a given draw.
 *
 * Nothing is sorted: the cut of the largest k, or of the largest that hold a share p, is found by a
 * histogram over the logits, evenly spaced down from the largest, then among the few in one bin by a
 * radix histogram of three passes; so a flat distribution costs no more than a peaked one. Loops
 * over all logits are written for runs of RUN without a branch, for the compiler to vectorise.
 * SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "engine/kern_priv.h"

enum { RUN = 16, BLOCK = 256, N_BIN = 2048, N_WAY = 4 };
#define REACH 32.0f /* of the bins, in units of the temperature: e^-32 of the largest */

int32_t kern_argmax(const float *logit, int32_t n)
{
    float most[RUN], top = -INFINITY;
    int32_t i = 0;
    for (int j = 0; j < RUN; j++) most[j] = -INFINITY;
    for (; i + RUN <= n; i += RUN)
        for (int j = 0; j < RUN; j++) most[j] = logit[i + j] > most[j] ? logit[i + j] : most[j];
    for (; i < n; i++) top = logit[i] > top ? logit[i] : top;
    for (int j = 0; j < RUN; j++) top = most[j] > top ? most[j] : top;
    if (top == -INFINITY) return 0;
    for (i = 0; i + RUN <= n; i += RUN) {
        int32_t hit = 0;
        for (int j = 0; j < RUN; j++) hit |= logit[i + j] == top;
        if (hit) break;
    }
    while (logit[i] != top) i++;
    return i;
}

/* p [n], then [n] for the bins, whose place those take that are in one bin. */
size_t kern_sample_bytes(int32_t n)
{
    return (size_t)n * (sizeof(float) + sizeof(int32_t));
}

/* In an order of its own, the same wherever the same n values are added. */
static double sum_of(const float *p, int32_t n)
{
    double part[RUN] = { 0 }, sum = 0;
    int32_t i = 0;
    for (; i + RUN <= n; i += RUN)
        for (int j = 0; j < RUN; j++) part[j] += (double)p[i + j];
    for (int j = 0; j < RUN; j++) sum += part[j];
    for (; i < n; i++) sum += (double)p[i];
    return sum;
}

/* Larger for a larger logit; NaN lowest. */
static uint32_t key_of(float logit)
{
    uint32_t u;
    if (isnan(logit)) return 0;
    logit += 0.0f; /* -0 to +0: they compare equal */
    memcpy(&u, &logit, 4);
    return u >> 31 ? ~u : u | 0x80000000u;
}

struct pool {
    const float *logit;
    float *p; /* 0: out */
    int32_t *member;
    int32_t n;
    float top, per; /* bins: (top - logit) * per */
};

/* Bins fall with the logit, so they are in order; what is out (-inf, NaN, p = 0) is in the last. */
static void bin_run(int32_t *bin, const float *logit, float top, float per)
{
    for (int j = 0; j < RUN; j++) {
        float at = (top - logit[j]) * per;
        bin[j] = (int32_t)(at < N_BIN - 1 ? at : N_BIN - 1);
    }
}

/* Of the n_member of a bin, those that lead until acc reaches goal stay; p of the others becomes 0.
 * They lead by logit descending, then index ascending; ones: each weighs 1. */
static void cut_members(struct pool *s, int32_t n_member, double acc, double goal, bool ones)
{
    double mass[2048];
    uint32_t prefix = 0, mask = 0;
    bool any = acc > 0;
    for (int shift = 21; shift >= 0; shift = shift == 21 ? 10 : shift - 10) {
        uint32_t n_bin = shift ? 2048 : 1024, bin = n_bin, filled = 0;
        memset(mass, 0, sizeof mass);
        for (int32_t m = 0; m < n_member; m++) {
            int32_t i = s->member[m];
            uint32_t key = key_of(s->logit[i]);
            if ((key & mask) != prefix) continue;
            mass[key >> shift & (n_bin - 1)] += ones ? 1 : (double)s->p[i];
        }
        while (bin-- > 0) {
            if (mass[bin] > 0) filled = bin;
            if (mass[bin] > 0 && acc + mass[bin] >= goal) break;
            acc += mass[bin];
        }
        if (bin == UINT32_MAX) { /* rounding kept the sum below goal: the lowest one there is */
            bin = filled;
            acc -= mass[bin];
        }
        prefix |= bin << shift;
        mask |= (n_bin - 1) << shift;
    }
    for (int32_t m = 0; m < n_member; m++) {
        int32_t i = s->member[m];
        uint32_t key = key_of(s->logit[i]);
        bool in = key > prefix || (key == prefix && (!any || acc < goal));
        any |= in;
        if (in && key == prefix) acc += ones ? 1 : (double)s->p[i];
        if (!in) s->p[i] = 0;
    }
}

/* Keeps the smallest leading set whose p (or number) adds up to goal; sets p of the others to 0. */
static void cut(struct pool *s, double goal, bool ones)
{
    double mass[N_WAY][N_BIN] = { { 0 } }, acc = 0;
    int32_t bin = 0, n_member = 0, i = 0, last_bin[RUN];
    float last[RUN] = { 0 };
    for (; i + RUN <= s->n; i += RUN) bin_run(s->member + i, s->logit + i, s->top, s->per);
    memcpy(last, s->logit + i, (size_t)(s->n - i) * 4);
    bin_run(last_bin, last, s->top, s->per);
    memcpy(s->member + i, last_bin, (size_t)(s->n - i) * 4);
    for (i = 0; i < s->n; i++) /* neighbours to different ways: additions to one place queue */
        mass[i % N_WAY][s->member[i]] += ones ? (s->p[i] > 0) : (double)s->p[i];
    for (; bin < N_BIN; bin++) {
        double here = 0;
        for (int w = 0; w < N_WAY; w++) here += mass[w][bin];
        if (acc + here >= goal) break;
        acc += here;
    }
    if (bin == N_BIN) return; /* rounding, or fewer than asked for: all stay */
    for (i = 0; i < s->n; i++) {
        int32_t at = s->member[i]; /* not overwritten yet: n_member <= i */
        s->member[n_member] = i;
        n_member += at == bin && s->p[i] > 0;
        s->p[i] = at > bin ? 0 : s->p[i];
    }
    cut_members(s, n_member, acc, goal, ones);
}

static int32_t draw(const float *p, int32_t n, double u)
{
    double all = 0, sum = 0;
    for (int32_t at = 0; at < n; at += BLOCK)
        all += sum_of(p + at, n - at < BLOCK ? n - at : BLOCK);
    for (int32_t at = 0; at < n; at += BLOCK) {
        int32_t end = n - at < BLOCK ? n : at + BLOCK;
        double block = sum_of(p + at, end - at), in = sum;
        for (int32_t i = at; i < end && sum + block > u * all; i++) {
            in += (double)p[i];
            if (in > u * all) return i;
        }
        sum += block;
    }
    while (n > 1 && !(p[n - 1] > 0)) n--; /* u * all rounded up to all */
    return n - 1;
}

int32_t kern_sample(const float *logit, int32_t n, const struct kern_pick *pick, double u,
                    void *tmp)
{
    int32_t best = kern_argmax(logit, n);
    assert(n > 0 && u >= 0 && u < 1);
    if (!(pick->temperature > 0) || pick->top_k == 1 || !isfinite(logit[best])) return best;
    struct pool s = { .logit = logit, .p = tmp, .n = n, .top = logit[best] };
    s.member = (int32_t *)(void *)(s.p + n);
    s.per = N_BIN / (REACH * pick->temperature);
    kern_best()->exp_from(s.p, logit, n, (float[2]){ s.top, 1 / pick->temperature });
    s.p[best] = 1; /* whatever the temperature */
    if (pick->top_k > 0 && pick->top_k < n) cut(&s, pick->top_k, true);
    if (pick->top_p < 1) cut(&s, (double)pick->top_p * sum_of(s.p, n), false);
    return draw(s.p, n, u);
}
