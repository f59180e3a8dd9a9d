/* engine/kern_sample.c - one token from its logits: argmax, or top-k and top-p with a given draw.
 *
 * Nothing is sorted. The cut of the largest k, or of the largest that hold a share p, is closed in
 * on by sums over the logits above a few thresholds at a time, in vector passes; the few between the
 * last two thresholds are told apart by a radix histogram of up to four passes. So a flat distribution
 * takes two passes more than a peaked one, and any at most MAX_PASS. Loops over all logits are
 * vector kernels, or written for runs of RUN without a branch, for the compiler to vectorise.
 * SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <float.h>
#include <math.h>
#include <string.h>

#include "engine/kern_priv.h"

enum { RUN = 16, MAX_PASS = 5, FEW = 256 };

int32_t kern_argmax(const float *logit, int32_t n)
{
    float top = kern_best()->largest(logit, n);
    int32_t i = 0;
    if (top == -INFINITY) return 0;
    for (; i + RUN <= n; i += RUN) {
        int32_t hit = 0;
        for (int j = 0; j < RUN; j++) hit |= logit[i + j] == top;
        if (hit) break;
    }
    while (logit[i] != top) i++;
    return i;
}

/* Scratch of one draw from n logits. */
struct pool {
    const struct kern *kern;
    const float *logit;
    float *p;        /* [n], 0: out */
    float *w;        /* [n], 1 where p > 0: what top-k counts */
    float *sum;      /* [blocks], of p */
    int32_t *member; /* [n] */
    int32_t n;
    float top, temperature;
};

static int32_t n_block(int32_t n)
{
    return (n + KERN_SUM_BLOCK - 1) / KERN_SUM_BLOCK;
}

size_t kern_sample_bytes(int32_t n)
{
    return ((size_t)n * 2 + (size_t)n_block(n)) * sizeof(float) + (size_t)n * sizeof(int32_t);
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

/* Of the members, those that lead until acc reaches goal stay; p of the others becomes 0. They lead
 * by logit descending, then index ascending; w: what each adds. */
static void cut_members(struct pool *s, int32_t n_member, const float *w, double acc, double goal)
{
    double mass[256];
    uint32_t prefix = 0, mask = 0, first = key_of(s->logit[s->member[0]]), differ = 0;
    bool any = acc > 0;
    for (int32_t m = 1; m < n_member; m++) differ |= key_of(s->logit[s->member[m]]) ^ first;
    for (int shift = 24; shift >= 0; shift -= 8) {
        uint32_t bin = 256, filled = 0;
        bool one = (differ >> shift & 255) == 0;
        memset(mass, 0, sizeof mass);
        for (int32_t m = 0; m < n_member && !one; m++) {
            int32_t i = s->member[m];
            uint32_t key = key_of(s->logit[i]);
            if ((key & mask) == prefix) mass[key >> shift & 255] += (double)w[i];
        }
        while (!one && bin-- > 0) {
            if (mass[bin] > 0) filled = bin;
            if (mass[bin] > 0 && acc + mass[bin] >= goal) break;
            acc += mass[bin];
        }
        if (bin == UINT32_MAX) { /* rounding kept the sum below goal: the lowest one there is */
            bin = filled;
            acc -= mass[bin];
        }
        prefix |= (one ? first >> shift & 255 : bin) << shift;
        mask |= 255u << shift;
    }
    for (int32_t m = 0; m < n_member; m++) {
        int32_t i = s->member[m];
        uint32_t key = key_of(s->logit[i]);
        bool in = key > prefix || (key == prefix && (!any || acc < goal));
        any |= in;
        if (in && key == prefix) acc += (double)w[i];
        if (!in) s->p[i] = 0;
    }
}

/* Those with lo <= logit < hi that are not out, ascending; their number. */
static int32_t gather(struct pool *s, float lo, float hi)
{
    const float *x = s->logit;
    int32_t n_member = 0, i = 0;
    for (; i + RUN <= s->n; i += RUN) {
        int32_t hit = 0;
        for (int j = 0; j < RUN; j++) hit |= (x[i + j] >= lo) & (x[i + j] < hi);
        if (!hit) continue;
        for (int j = i; j < i + RUN; j++) {
            s->member[n_member] = j;
            n_member += (x[j] >= lo) & (x[j] < hi) & (s->p[j] > 0);
        }
    }
    for (; i < s->n; i++)
        if (x[i] >= lo && x[i] < hi && s->p[i] > 0) s->member[n_member++] = i;
    return n_member;
}

/* What the cut lies in: w where logit >= hi adds up to `above` < goal, where logit >= lo to
 * above + in >= goal. */
struct bracket {
    float lo, hi;
    double above, in;
};

static void narrow(const struct pool *s, const float *w, double goal, const float at[KERN_N_FROM],
                   struct bracket *b)
{
    double mass[KERN_N_FROM], upto = b->above + b->in;
    int j = 0;
    s->kern->mass_from(mass, w, s->logit, s->n, at);
    while (j < KERN_N_FROM && mass[j] < goal) j++;
    if (j < KERN_N_FROM) {
        b->lo = at[j];
        upto = mass[j];
    }
    if (j > 0) {
        b->hi = at[j - 1];
        b->above = mass[j - 1];
    }
    b->in = upto - b->above;
}

/* Keeps the smallest leading set whose w adds up to goal: p of the others becomes 0. */
static void cut(struct pool *s, const float *w, double goal)
{
    /* the first thresholds, below the largest, in units of the temperature; past the last p is 0 */
    static const float below[KERN_N_FROM] = { 0.5f, 1, 2, 3.5f, 6, 10, 20, -KERN_EXP_LO };
    struct bracket b = { -INFINITY, INFINITY, 0, INFINITY };
    float at[KERN_N_FROM];
    for (int j = 0; j < KERN_N_FROM; j++) at[j] = s->top - below[j] * s->temperature;
    narrow(s, w, goal, at, &b);
    for (int pass = 1; pass < MAX_PASS; pass++) {
        /* each of the bracket adds at least `least`, so there are no more than in / least */
        float least = w == s->p ? expf((b.lo - s->top) / s->temperature) : 1;
        int32_t few = FEW + s->n / FEW;
        if (b.lo == -INFINITY || b.in <= (double)few * (double)least) break;
        float hi = b.hi < s->top ? b.hi : s->top, step = (hi - b.lo) / (KERN_N_FROM + 1);
        for (int j = 0; j < KERN_N_FROM; j++) at[j] = hi - step * (float)(j + 1);
        narrow(s, w, goal, at, &b);
    }
    int32_t n_member = gather(s, b.lo, b.hi);
    if (n_member > 0) cut_members(s, n_member, w, b.above, goal);
    s->kern->keep_from(s->sum, s->p, s->logit, s->n, b.lo);
}

static double sum_of(const struct pool *s)
{
    double all = 0;
    for (int32_t b = 0; b < n_block(s->n); b++) all += (double)s->sum[b];
    return all;
}

static int32_t draw(const struct pool *s, double u)
{
    double goal = u * sum_of(s), sum = 0;
    int32_t n = s->n;
    for (int32_t b = 0; b < n_block(n); b++) {
        double in = sum, upto = sum + (double)s->sum[b];
        int32_t at = b * KERN_SUM_BLOCK, end = n - at < KERN_SUM_BLOCK ? n : at + KERN_SUM_BLOCK;
        for (int32_t i = at; i < end && upto > goal; i++) {
            in += (double)s->p[i];
            if (in > goal && s->p[i] > 0) return i;
        }
        sum = upto;
    }
    while (n > 1 && !(s->p[n - 1] > 0)) n--; /* rounding */
    return n - 1;
}

static void weigh_each(float *w, const float *p, int32_t n)
{
    int32_t i = 0;
    for (; i + RUN <= n; i += RUN)
        for (int j = 0; j < RUN; j++) w[i + j] = p[i + j] > 0 ? 1.0f : 0.0f;
    for (; i < n; i++) w[i] = p[i] > 0 ? 1.0f : 0.0f;
}

int32_t kern_sample(const float *logit, int32_t n, const struct kern_pick *pick, double u,
                    void *tmp)
{
    struct pool s = { .kern = kern_best(), .logit = logit, .p = tmp, .n = n };
    assert(n > 0 && u >= 0 && u < 1);
    if (!(pick->temperature > 0) || pick->top_k == 1) return kern_argmax(logit, n);
    s.top = s.kern->largest(logit, n);
    if (!isfinite(s.top)) return kern_argmax(logit, n);
    s.w = s.p + n;
    s.sum = s.w + n;
    s.member = (int32_t *)(void *)(s.sum + n_block(n));
    s.temperature = pick->temperature;
    float per = 1 / s.temperature, by[2] = { s.top, per < FLT_MAX ? per : FLT_MAX };
    for (int32_t i = 0, b = 0; i < n; i += KERN_SUM_BLOCK, b++) { /* each block while it is near */
        int32_t len = n - i < KERN_SUM_BLOCK ? n - i : KERN_SUM_BLOCK;
        s.kern->exp_from(s.p + i, logit + i, len, by);
        s.kern->keep_from(s.sum + b, s.p + i, logit + i, len, -INFINITY);
    }
    if (pick->top_k > 0 && pick->top_k < n) {
        weigh_each(s.w, s.p, n);
        cut(&s, s.w, pick->top_k);
    }
    if (pick->top_p < 1) cut(&s, s.p, (double)pick->top_p * sum_of(&s));
    return draw(&s, u);
}
