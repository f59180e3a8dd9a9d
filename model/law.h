/* model/law.h - kernel laws: seconds from counted work. Pure functions.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_LAW_H
#define MODEL_LAW_H

/* (x^q + y^q)^(1/q), q >= 1: max for large q, sum for q = 1; never overflows for finite x, y. */
double law_smoothmax(double x, double y, double q);

struct law_gemm {
    double t0_s, e_c, e_m, q, e_q, peak_flop_per_s, mem_bytes_per_s;
};
struct law_gemm_shape {
    double m, n, k, weight_bytes, act_bytes, out_bytes;
}; /* bytes per element */
/* t0 + Tq + ((2mnk/(e_c peak))^q + (bytes/(e_m bw))^q)^(1/q), bytes = nk*weight + mk*act + mn*out;
 * Tq = 3mk/(e_q bw) for inputs quantized online (e_q > 0), else 0.
 * Source: fits over public GEMM tables, MAPE 4-13 % by GPU and dtype (profiles.yaml gives each). */
double law_gemm_s(const struct law_gemm *l, const struct law_gemm_shape *s);

struct law_attn_decode {
    double t0_s, e_m, s_per_bh, mem_bytes_per_s, floor_s;
};
/* t0 + (2*sum_ctx*n_kv*head_dim*kv_bytes + 4*b*n_head*head_dim)/(e_m bw) + s_per_bh*b*n_head,
 * heads per rank. floor_s > 0 corrects for little KV, where t0, fitted in the regime of much KV,
 * absorbs the curvature: if t0 > floor, the smaller of that line and one from floor with twice the
 * slope; else at least floor. The factor 2 is assumed, not fitted, and the measured times there
 * are cache-hot, faster than serving. Median predicted/measured with the line alone -> with the
 * floor, KV below 1, 4, 16 MB: H100 1.59, 1.41, 1.25 -> 0.99, 0.95, 0.98; A100 1.41, 1.33, 1.18 ->
 * 0.66, 0.65, 0.77; L40S 1.46, 1.45, 1.57 -> 0.82, 0.92, 1.45; RTX PRO 6000 1.84, 1.27, 1.40 ->
 * 0.81, 0.73, 1.04. So on A100 it turns too slow into too fast. Source: AIConfigurator tables,
 * vLLM 0.14 (RTX PRO 6000: TensorRT-LLM 1.3). */
double law_attn_decode_s(const struct law_attn_decode *l, double b, double sum_ctx, double n_head,
                         double n_kv_head, double head_dim, double kv_bytes);

struct law_attn_prefill {
    double t0_s, e_c, e_m, peak_flop_per_s, mem_bytes_per_s;
};
/* t0 + 4*pairs*n_head*head_dim/(e_c peak) + io_bytes/(e_m bw); pairs = sum q*p + q(q+1)/2. */
double law_attn_prefill_s(const struct law_attn_prefill *l, double pairs, double io_bytes,
                          double n_head, double head_dim);

/* Collective of S bytes (the whole tensor): A + S/B + C*S/(S+S0). Source: fits per (system, op,
 * n). */
double law_coll_s(double a_s, double b_bytes_per_s, double c_s, double s0_bytes, double bytes);

#endif
