/* model/law.c - kernel laws: seconds from counted work.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/law.h"

#include <assert.h>
#include <math.h>

double law_smoothmax(double x, double y, double q)
{
    assert(q >= 1);
    double hi = x > y ? x : y, lo = x > y ? y : x;
    if (lo <= 0) return hi > 0 ? hi : 0;
    /* Below 2^-53 relative the smaller part no longer shows; log keeps pow off its slow path. */
    double r = lo / hi;
    if (q == 1) return hi + lo;
    double t = exp(q * log(r));
    return t < 1e-17 ? hi : hi * exp(log1p(t) / q);
}

double law_gemm_s(const struct law_gemm *l, const struct law_gemm_shape *s)
{
    double flop = 2 * s->m * s->n * s->k;
    double bytes =
        s->n * s->k * s->weight_bytes + s->m * s->k * s->act_bytes + s->m * s->n * s->out_bytes;
    double compute = flop / (l->e_c * l->peak_flop_per_s);
    double memory = bytes / (l->e_m * l->mem_bytes_per_s);
    double quant = l->e_q > 0 ? 3 * s->m * s->k / (l->e_q * l->mem_bytes_per_s) : 0;
    return l->t0_s + quant + law_smoothmax(compute, memory, l->q);
}

double law_attn_decode_s(const struct law_attn_decode *l, double b, double sum_ctx, double n_head,
                         double n_kv_head, double head_dim, double kv_bytes)
{
    double bytes = 2 * sum_ctx * n_kv_head * head_dim * kv_bytes + 4 * b * n_head * head_dim;
    double stream = bytes / (l->e_m * l->mem_bytes_per_s), packing = l->s_per_bh * b * n_head;
    double line = l->t0_s + stream;
    if (l->floor_s > 0)
        line = l->t0_s > l->floor_s ? fmin(line, l->floor_s + 2 * stream) : fmax(line, l->floor_s);
    return line + packing;
}

double law_attn_prefill_s(const struct law_attn_prefill *l, double pairs, double io_bytes,
                          double n_head, double head_dim)
{
    return l->t0_s + 4 * pairs * n_head * head_dim / (l->e_c * l->peak_flop_per_s) +
           io_bytes / (l->e_m * l->mem_bytes_per_s);
}

double law_coll_s(double a_s, double b_bytes_per_s, double c_s, double s0_bytes, double bytes)
{
    if (bytes <= 0) return 0;
    double ramp = c_s > 0 ? c_s * bytes / (bytes + s0_bytes) : 0;
    return a_s + bytes / b_bytes_per_s + ramp;
}
