/* model/fit_law.c - the kernel laws as functions of sizes and parameters, with their derivatives.
 *
 * Seconds come from model/law.h alone, so that what is fitted is what is simulated. Priors: a time
 * is some part of the smallest one measured, a rate about the largest seen, an efficiency about
 * one half; each within a factor of ten or so (sd of the logarithm 2.3, efficiencies 1.5).
 * SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <math.h>

#include "model/fit_in.h"

static const double WIDE = 2.3, EFFICIENCY_WIDTH = 1.5;

/* ---- what the data suggest */

static double min_s(const struct fit_data *d)
{
    double least = d->s[0];
    for (int64_t i = 1; i < d->n; i++) least = fmin(least, d->s[i]);
    return least;
}

static double max_s(const struct fit_data *d)
{
    double most = d->s[0];
    for (int64_t i = 1; i < d->n; i++) most = fmax(most, d->s[i]);
    return most;
}

/* Smallest time per unit of a size, and the largest size per time. INFINITY where it is all 0. */
static double least_per(const struct fit_form *f, const struct fit_data *d, int size)
{
    double least = INFINITY;
    for (int64_t i = 0; i < d->n; i++) {
        double x = d->x[i * f->n_size + size];
        if (x > 0) least = fmin(least, d->s[i] / x);
    }
    return least;
}

static void add(struct fit_form *f, enum profile_id id, double centre, double width, double lo,
                double hi)
{
    assert(f->n_par < FIT_MAX_PAR && lo < centre && centre < hi);
    f->par[f->n_par++] = (struct fit_par){ id, lo, hi, centre, width };
}

/* A constant time: below what was measured, but for a factor of a million not known how far. */
static void add_time(struct fit_form *f, enum profile_id id, double centre,
                     const struct fit_data *d)
{
    add(f, id, centre, WIDE, centre * 1e-6, fmax(centre, max_s(d)) * 10);
}

static void add_efficiency(struct fit_form *f, enum profile_id id)
{
    add(f, id, 0.5, EFFICIENCY_WIDTH, 1e-5, 2);
}

static void size(struct fit_form *f, enum profile_size s, bool site, bool range)
{
    assert(f->n_size < FIT_MAX_SIZE);
    f->size[f->n_size] = s;
    f->site[f->n_size] = site;
    f->range[f->n_size++] = range;
}

/* ---- matrix products */

static double gemm_eval(const struct fit_form *f, const double *x, const double *v, double *grad)
{
    struct law_gemm_shape s = { x[0], x[1], x[2], x[3], x[4], x[5] };
    struct law_gemm l = {
        v[0], v[1], v[2], v[3], f->n_par > 4 ? v[4] : 0, f->peak_flop_per_s, f->mem_bytes_per_s
    };
    double t = law_gemm_s(&l, &s);
    if (!grad) return t;
    double compute = 2 * s.m * s.n * s.k / (l.e_c * l.peak_flop_per_s);
    double bytes = s.n * s.k * s.weight_bytes + s.m * s.k * s.act_bytes + s.m * s.n * s.out_bytes;
    double memory = bytes / (l.e_m * l.mem_bytes_per_s);
    double both = law_smoothmax(compute, memory, l.q);
    /* S^q = c^q + m^q: the shares a + b = 1 are the elasticities of S. */
    double lc = log(compute / both), lm = log(memory / both);
    double a = exp(l.q * lc), b = exp(l.q * lm);
    grad[0] = l.t0_s;
    grad[1] = -both * a;
    grad[2] = -both * b;
    grad[3] = both * ((a > 0 ? a * lc : 0) + (b > 0 ? b * lm : 0));
    if (f->n_par > 4) grad[4] = -3 * s.m * s.k / (l.e_q * l.mem_bytes_per_s);
    return t;
}

void fit_form_gemm(struct fit_form *f, const struct fit_ask *q, const struct fit_data *d)
{
    *f = (struct fit_form){ .law = LAW_GEMM,
                            .eval = gemm_eval,
                            .peak_flop_per_s = q->peak_flop_per_s,
                            .mem_bytes_per_s = q->mem_bytes_per_s };
    size(f, SIZE_M, false, true);
    size(f, SIZE_N, true, true);
    size(f, SIZE_K, true, true);
    size(f, SIZE_WEIGHT_BYTES, false, false);
    size(f, SIZE_ACT_BYTES, false, false);
    size(f, SIZE_OUT_BYTES, false, false);
    add_time(f, P_GEMM_T0_S, 0.3 * min_s(d), d);
    add_efficiency(f, P_GEMM_EC);
    add_efficiency(f, P_GEMM_EM);
    add(f, P_GEMM_Q, 2, 0.7, 1, 16);
    if (q->online) add(f, P_GEMM_EQ, 0.5, WIDE, 1e-4, 1e4);
}

/* ---- attention */

static double decode_eval(const struct fit_form *f, const double *x, const double *v, double *grad)
{
    struct law_attn_decode l = { v[0], v[1], v[2], f->mem_bytes_per_s, 0 };
    double b = x[0], sum = x[1], most = b * x[2], heads = x[3], kv = x[4], dim = x[5], elt = x[6];
    double t = law_attn_decode_s(&l, b, sum, heads, kv, dim, elt), alpha = 0, skew = 0;
    if (f->n_par > 3 && most > sum) {
        alpha = v[3];
        skew = law_attn_decode_s(&l, b, most, heads, kv, dim, elt) - t;
    }
    double all = t + alpha * skew;
    if (!grad) return all;
    grad[0] = v[0];
    grad[2] = v[2] * b * heads;
    grad[1] = -(t - grad[0] - grad[2]) - alpha * skew;
    if (f->n_par > 3) grad[3] = alpha * skew;
    return all;
}

static bool uneven(const struct fit_data *d, int n_size)
{
    for (int64_t i = 0; i < d->n; i++) {
        const double *x = d->x + i * n_size;
        if (x[0] * x[2] > x[1] * (1 + 1e-9)) return true;
    }
    return false;
}

void fit_form_decode(struct fit_form *f, const struct fit_ask *q, const struct fit_data *d)
{
    *f = (struct fit_form){ .law = LAW_DECODE,
                            .eval = decode_eval,
                            .mem_bytes_per_s = q->mem_bytes_per_s };
    size(f, SIZE_SEQS, true, true);
    size(f, SIZE_CTX, false, true);
    size(f, SIZE_CTX_MAX, false, true);
    size(f, SIZE_HEADS, true, true);
    size(f, SIZE_KV_HEADS, true, false);
    size(f, SIZE_HEAD_DIM, true, true);
    size(f, SIZE_ELT_BYTES, false, false);
    double per = INFINITY;
    for (int64_t i = 0; i < d->n; i++)
        per = fmin(per, d->s[i] / (d->x[i * f->n_size] * d->x[i * f->n_size + 3]));
    add_time(f, P_DEC_T0_S, 0.3 * min_s(d), d);
    add_efficiency(f, P_DEC_EM);
    add_time(f, P_DEC_S_PER_BH, 0.1 * per, d);
    if (uneven(d, f->n_size)) add(f, P_SKEW_ALPHA, 0.1, WIDE, 1e-4, 1);
}

static double prefill_eval(const struct fit_form *f, const double *x, const double *v, double *grad)
{
    struct law_attn_prefill l = { v[0], v[1], v[2], f->peak_flop_per_s, f->mem_bytes_per_s };
    double pairs = x[0], tok = x[1], io = x[2], heads = x[3], dim = x[4];
    double t = law_attn_prefill_s(&l, pairs + v[3] * tok, io, heads, dim);
    if (!grad) return t;
    double per_pair = 4 * heads * dim / (l.e_c * l.peak_flop_per_s);
    grad[0] = v[0];
    grad[1] = -(pairs + v[3] * tok) * per_pair;
    grad[2] = -io / (l.e_m * l.mem_bytes_per_s);
    grad[3] = v[3] * tok * per_pair;
    return t;
}

void fit_form_prefill(struct fit_form *f, const struct fit_ask *q, const struct fit_data *d)
{
    *f = (struct fit_form){ .law = LAW_PREFILL,
                            .eval = prefill_eval,
                            .peak_flop_per_s = q->peak_flop_per_s,
                            .mem_bytes_per_s = q->mem_bytes_per_s };
    size(f, SIZE_PAIRS, true, true);
    size(f, SIZE_TOK, true, true);
    size(f, SIZE_BYTES, false, false);
    size(f, SIZE_HEADS, false, true);
    size(f, SIZE_HEAD_DIM, false, true);
    add_time(f, P_PRE_T0_S, 0.3 * min_s(d), d);
    add_efficiency(f, P_PRE_EC);
    add_efficiency(f, P_PRE_EM);
    add(f, P_PRE_X_TOK, 32, WIDE, 1e-4, 1e6);
}

/* ---- bytes: element-wise work, messages */

static double elt_eval(const struct fit_form *f, const double *x, const double *v, double *grad)
{
    double stream = x[0] / (v[1] * f->mem_bytes_per_s);
    if (grad) {
        grad[0] = v[0];
        grad[1] = -stream;
    }
    return v[0] + stream;
}

void fit_form_elt(struct fit_form *f, const struct fit_ask *q, const struct fit_data *d)
{
    *f = (struct fit_form){ .law = LAW_ELT,
                            .eval = elt_eval,
                            .mem_bytes_per_s = q->mem_bytes_per_s };
    size(f, SIZE_BYTES, true, true);
    add_time(f, P_ELT_T0_S, 0.3 * min_s(d), d);
    add_efficiency(f, P_ELT_EM);
}

static double coll_eval(const struct fit_form *f, const double *x, const double *v, double *grad)
{
    bool ramp = f->n_par > 2;
    double bytes = x[0], c = ramp ? v[2] : 0, s0 = ramp ? v[3] : 1;
    if (grad) {
        grad[0] = v[0];
        grad[1] = -bytes / v[1];
    }
    if (grad && ramp) {
        grad[2] = c * bytes / (bytes + s0);
        grad[3] = -c * bytes * s0 / ((bytes + s0) * (bytes + s0));
    }
    return law_coll_s(v[0], v[1], c, s0, bytes);
}

void fit_form_coll(struct fit_form *f, enum profile_law law, bool ramp, const struct fit_data *d)
{
    static const enum profile_id first[LAW_N] = { [LAW_ALLREDUCE] = P_AR_A_S,
                                                  [LAW_OWN_ALLREDUCE] = P_CAR_A_S,
                                                  [LAW_ALLGATHER] = P_AG_A_S,
                                                  [LAW_P2P] = P_P2P_A_S,
                                                  [LAW_NET] = P_NET_A_S };
    assert(first[law]);
    *f = (struct fit_form){ .law = law, .eval = coll_eval };
    size(f, SIZE_BYTES, true, true);
    double rate = 1 / least_per(f, d, 0), log_s0 = 0;
    for (int64_t i = 0; i < d->n; i++) log_s0 += log(d->x[i]) / (double)d->n;
    add_time(f, first[law], 0.3 * min_s(d), d);
    add(f, first[law] + 1, rate, WIDE, rate * 1e-4, rate * 1e6);
    if (!ramp) return;
    add_time(f, first[law] + 2, min_s(d), d);
    add(f, first[law] + 3, exp(log_s0), WIDE, 1e-3, 1e15);
}

/* ---- whole steps */

static double step_eval(const struct fit_form *f, const double *x, const double *v, double *grad)
{
    double host = 0, law = 1, skew = f->skew_s * x[3], g[FIT_MAX_PAR] = { 0 };
    for (int j = 0; j < f->n_par; j++) {
        switch (f->par[j].id) {
        case P_HOST_STEP_S: host += g[j] = v[j]; break;
        case P_HOST_SEQ_S: host += g[j] = v[j] * x[0]; break;
        case P_HOST_TOK_S: host += g[j] = v[j] * x[1]; break;
        case P_RANK_SKEW_S: skew = v[j] * x[3]; break;
        default: law = v[j];
        }
    }
    /* The common factor holds for the skew too: the simulator counts it with the collectives. */
    double device = law * (x[2] + skew);
    for (int j = 0; j < f->n_par && grad; j++)
        grad[j] = f->par[j].id == P_RANK_SKEW_S ? law * skew
                  : f->par[j].id == P_LAW       ? device
                                                : g[j];
    return device + host;
}

/* As many collectives in every step: times of a step and of a collective are then one constant. */
static bool one_count(const struct fit_form *f, const struct fit_data *d, int size)
{
    for (int64_t i = 0; i < d->n; i++)
        if (d->x[i * f->n_size + size] != d->x[size]) return false;
    return true;
}

void fit_form_step(struct fit_form *f, const struct fit_ask *q, bool tells_skew,
                   const struct fit_data *d)
{
    bool device_only = q->device_only;
    *f = (struct fit_form){ .law = LAW_STEP, .eval = step_eval };
    if (!tells_skew) f->skew_s = q->rank_skew_s;
    size(f, SIZE_SEQS, true, true);
    size(f, SIZE_TOK, true, true);
    size(f, SIZE_DEVICE_S, false, false);
    size(f, SIZE_COLLS, false, false);
    double per_seq = least_per(f, d, 0), per_tok = least_per(f, d, 1);
    double device = least_per(f, d, 2), per_coll = least_per(f, d, 3);
    bool one = isfinite(per_coll) && one_count(f, d, 3);
    if (!device_only && !(one && tells_skew)) add_time(f, P_HOST_STEP_S, 0.1 * min_s(d), d);
    if (isfinite(per_seq) && !device_only) add_time(f, P_HOST_SEQ_S, 0.1 * per_seq, d);
    if (isfinite(per_tok) && !device_only) add_time(f, P_HOST_TOK_S, 0.1 * per_tok, d);
    if (isfinite(device)) add(f, P_LAW, 1, 0.5, 0.02, 50);
    if (isfinite(per_coll) && tells_skew) add_time(f, P_RANK_SKEW_S, 0.1 * per_coll, d);
}
