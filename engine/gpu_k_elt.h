/* engine/gpu_k_elt.h - the element-wise GPU kernels, and the two that fold a row first.
 *
 * Each reads and writes what it touches once. Rows whose length is a multiple of 4 and whose arrays
 * are aligned take accesses of 16 bytes (8 of a 16-bit image); others go element by element with
 * neighbouring threads on neighbouring elements. Which of the two is the same for a whole launch.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_GPU_K_ELT_H
#define ENGINE_GPU_K_ELT_H

#include "engine/gpu_block.h"
#include "engine/gpu_kern.h"

/* ---- shared pieces -------------------------------------------------------------------------- */

/* p is NULL or a multiple of 16. */
GPU_FN bool gpu_even16(const void *p)
{
    return (uintptr_t)p % 16 == 0;
}

/* Four values at p[i]: i and p multiples of 4 elements and 16 bytes if wide, else `step` apart, and
 * of those only what lies below n. */
GPU_FN void gpu_take4(float v[4], const float *p, int64_t i, bool wide, int32_t step, int64_t n)
{
    if (wide) {
        struct gpu_16 w = gpu_load16(p + i);
        GPU_UNROLL
        for (int32_t j = 0; j < 4; j++) v[j] = gpu_of_bits(w.w[j]);
    } else {
        GPU_UNROLL
        for (int32_t j = 0; j < 4; j++) v[j] = i + j * step < n ? p[i + j * step] : 0.0f;
    }
}

GPU_FN void gpu_give4(float *p, int64_t i, const float v[4], bool wide, int32_t step, int64_t n)
{
    if (wide) {
        struct gpu_16 w;
        GPU_UNROLL
        for (int32_t j = 0; j < 4; j++) w.w[j] = gpu_bits(v[j]);
        gpu_store16(p + i, w);
    } else {
        GPU_UNROLL
        for (int32_t j = 0; j < 4; j++)
            if (i + j * step < n) p[i + j * step] = v[j];
    }
}

/* The same into an array of any type; `at` is where p[0] lies in it. */
GPU_FN void gpu_give4_as(enum gpu_elt type, void *p, int64_t at, int64_t i, const float v[4],
                         bool wide, int32_t step, int64_t n)
{
    if (wide && (type == GPU_BF16 || type == GPU_F16)) {
        gpu_store8((char *)p + 2 * (at + i), gpu_pack2(type, v[0], v[1]),
                   gpu_pack2(type, v[2], v[3]));
    } else if (wide && type == GPU_F32) {
        gpu_give4((float *)p + at, i, v, true, step, n);
    } else {
        if (wide) step = 1;
        GPU_UNROLL
        for (int32_t j = 0; j < 4; j++)
            if (i + j * step < n) gpu_put(type, p, at + i + j * step, v[j]);
    }
}

/* Sum over the block, the same in all its threads; part: 32 floats that no one else uses. */
GPU_FN float gpu_block_sum(float v, float *part)
{
    GPU_UNROLL
    for (int32_t m = 16; m > 0; m /= 2) v += gpu_shfl_xor(v, m);
    if (gpu_lane() == 0) part[gpu_warp()] = v;
    gpu_sync();
    v = gpu_lane() < gpu_threads() / 32 ? part[gpu_lane()] : 0.0f;
    GPU_UNROLL
    for (int32_t m = 16; m > 0; m /= 2) v += gpu_shfl_xor(v, m);
    return v;
}

/* Launches "by row": a block takes `each` * threads elements of one row, a thread `each` of these. */
struct gpu_part {
    int32_t row, i, step; /* its first element in the row, how far apart they are */
};

GPU_FN struct gpu_part gpu_part_each(int32_t each, int32_t n, bool wide)
{
    int32_t size = each * gpu_threads(), per_row = (n + size - 1) / size;
    struct gpu_part p;
    p.row = gpu_block_x() / per_row;
    p.i = gpu_block_x() % per_row * size + (wide ? each * gpu_tid() : gpu_tid());
    p.step = wide ? 1 : gpu_threads();
    return p;
}

GPU_FN struct gpu_part gpu_part_of(int32_t n, bool wide)
{
    return gpu_part_each(4, n, wide);
}

/* ---- rows ----------------------------------------------------------------------------------- */
/* 16 neighbours from element `at` on, which is a multiple of 16 bytes, by loads of 16; type constant. */
GPU_FN void gpu_take16(float v[16], enum gpu_elt type, const void *p, int64_t at)
{
    int32_t bytes = type == GPU_F32 ? 4 : type == GPU_E4M3 ? 1 : 2, each = 16 / bytes;
    GPU_UNROLL
    for (int32_t k = 0; k < bytes; k++) {
        struct gpu_16 w = gpu_load16((const char *)p + at * bytes + 16 * k);
        GPU_UNROLL
        for (int32_t j = 0; j < each; j++) {
            uint32_t word = w.w[j * bytes / 4] >> (j * bytes % 4 * 8);
            uint16_t half = (uint16_t)word;
            uint8_t byte = (uint8_t)word;
            v[k * each + j] = type == GPU_F32    ? gpu_of_bits(word)
                              : type == GPU_E4M3 ? gpu_get(GPU_E4M3, &byte, 0)
                                                 : gpu_get(type, &half, 0);
        }
    }
}

GPU_KERNEL(embed, struct gpu_embed)
{
    gpu_begin();
    bool wide = a.n % 16 == 0 && gpu_even16(a.x) && gpu_even16(a.w);
    struct gpu_part p = gpu_part_each(16, a.n, wide);
    float *x = a.x + (int64_t)p.row * a.n, v[16];
    if (p.row >= a.m || p.i >= a.n) return;
    int32_t row = a.s.pos[p.row] < 0 ? -1 : a.s.tok[p.row] - a.row0;
    bool is = row >= 0 && row < a.n_row_w;
    float by = is && a.w_scale ? a.w_scale[row] : 1.0f;
    int64_t at = (int64_t)row * a.n + p.i;
    if (!wide) {
        for (int32_t j = 0; j < 16 && p.i + j * p.step < a.n; j++)
            x[p.i + j * p.step] =
                is ? by * gpu_get((enum gpu_elt)a.type, a.w, at + j * p.step) : 0.0f;
        return;
    }
    GPU_UNROLL
    for (int32_t j = 0; j < 16; j++) v[j] = 0.0f;
    if (!is) {
    } else if (a.type == GPU_BF16)
        gpu_take16(v, GPU_BF16, a.w, at);
    else if (a.type == GPU_F16)
        gpu_take16(v, GPU_F16, a.w, at);
    else if (a.type == GPU_E4M3)
        gpu_take16(v, GPU_E4M3, a.w, at);
    else
        gpu_take16(v, GPU_F32, a.w, at);
    GPU_UNROLL
    for (int32_t j = 0; j < 16; j++) v[j] *= by;
    GPU_UNROLL
    for (int32_t j = 0; j < 16; j += 4) gpu_give4(x, p.i + j, v + j, true, 1, a.n);
}

GPU_KERNEL(pick, struct gpu_pick)
{
    gpu_begin();
    bool wide = a.n % 4 == 0 && gpu_even16(a.x) && gpu_even16(a.y);
    struct gpu_part p = gpu_part_of(a.n, wide);
    float v[4];
    if (p.row >= a.m || p.i >= a.n) return;
    gpu_take4(v, a.x + (int64_t)a.s.out[p.row] * a.n, p.i, wide, p.step, a.n);
    gpu_give4(a.y + (int64_t)p.row * a.n, p.i, v, wide, p.step, a.n);
}

GPU_KERNEL(add_bias, struct gpu_add_bias)
{
    gpu_begin();
    bool wide = a.n % 4 == 0 && gpu_even16(a.y) && gpu_even16(a.bias);
    struct gpu_part p = gpu_part_of(a.n, wide);
    float *y = a.y + (int64_t)p.row * a.n, v[4], b[4];
    if (p.row >= a.m || p.i >= a.n) return;
    gpu_take4(v, y, p.i, wide, p.step, a.n);
    gpu_take4(b, a.bias, p.i, wide, p.step, a.n);
    GPU_UNROLL
    for (int32_t j = 0; j < 4; j++) v[j] += b[j];
    gpu_give4(y, p.i, v, wide, p.step, a.n);
}

GPU_KERNEL(col_scale, struct gpu_col_scale)
{
    gpu_begin();
    bool wide = a.n % 4 == 0 && gpu_even16(a.y) && gpu_even16(a.scale);
    struct gpu_part p = gpu_part_of(a.n, wide);
    float *y = a.y + (int64_t)p.row * a.n, v[4], s[4];
    if (p.row >= a.m || p.i >= a.n) return;
    gpu_take4(v, y, p.i, wide, p.step, a.n);
    gpu_take4(s, a.scale, p.i, wide, p.step, a.n);
    GPU_UNROLL
    for (int32_t j = 0; j < 4; j++) v[j] *= s[j];
    gpu_give4(y, p.i, v, wide, p.step, a.n);
}

GPU_FN float gpu_silu(float x)
{
    return x / (1.0f + gpu_exp(-x));
}

GPU_FN float gpu_gelu(float x)
{
    float h = 0.5f * x;
    return gpu_fma(h, gpu_erf(x * 0.70710678f), h);
}

GPU_KERNEL(act, struct gpu_act)
{
    gpu_begin();
    bool wide = a.n % 4 == 0 && gpu_even16(a.x) && gpu_even16(a.bias) && gpu_even16(a.y) &&
                gpu_even16(a.image);
    struct gpu_part p = gpu_part_of(a.n, wide);
    const float *x = a.x + (int64_t)p.row * (a.gated ? 2 : 1) * a.n;
    int64_t at = (int64_t)p.row * a.n;
    float v[4], up[4] = { 1.0f, 1.0f, 1.0f, 1.0f }, b[4];
    if (p.row >= a.m || p.i >= a.n) return;
    gpu_take4(v, x, p.i, wide, p.step, a.n);
    if (a.gated) gpu_take4(up, x + a.n, p.i, wide, p.step, a.n);
    if (a.bias) {
        gpu_take4(b, a.bias, p.i, wide, p.step, a.n);
        GPU_UNROLL
        for (int32_t j = 0; j < 4; j++) v[j] += b[j];
    }
    if (a.bias && a.gated) {
        gpu_take4(b, a.bias + a.n, p.i, wide, p.step, a.n);
        GPU_UNROLL
        for (int32_t j = 0; j < 4; j++) up[j] += b[j];
    }
    GPU_UNROLL
    for (int32_t j = 0; j < 4; j++) v[j] = a.gated ? gpu_silu(v[j]) * up[j] : gpu_gelu(v[j]);
    if (a.y) gpu_give4(a.y + at, p.i, v, wide, p.step, a.n);
    if (a.image) gpu_give4_as((enum gpu_elt)a.image_type, a.image, at, p.i, v, wide, p.step, a.n);
}

/* ---- norm: one block a row ------------------------------------------------------------------ */

/* Of one row: 4 values of this thread, from element i on. */
struct gpu_norm_row {
    float *x, *y;
    const float *add;
    int64_t at; /* the row's first element in the image */
    int32_t step;
    bool wide;
};

GPU_FN void gpu_norm_add(const struct gpu_norm *a, const struct gpu_norm_row *r, int32_t i,
                         float v[4])
{
    float b[4];
    gpu_take4(v, r->x, i, r->wide, r->step, a->n);
    if (r->add) {
        gpu_take4(b, r->add, i, r->wide, r->step, a->n);
        GPU_UNROLL
        for (int32_t j = 0; j < 4; j++) v[j] += b[j];
    }
    if (a->bias) {
        gpu_take4(b, a->bias, i, r->wide, r->step, a->n);
        GPU_UNROLL
        for (int32_t j = 0; j < 4; j++) v[j] += b[j];
    }
    if (a->bias2) {
        gpu_take4(b, a->bias2, i, r->wide, r->step, a->n);
        GPU_UNROLL
        for (int32_t j = 0; j < 4; j++) v[j] += b[j];
    }
    if (r->add || a->bias || a->bias2) gpu_give4(r->x, i, v, r->wide, r->step, a->n);
}

GPU_FN void gpu_norm_out(const struct gpu_norm *a, const struct gpu_norm_row *r, int32_t i,
                         const float v[4], float mean, float per)
{
    float w[4], b[4] = { 0.0f, 0.0f, 0.0f, 0.0f }, out[4];
    gpu_take4(w, a->weight, i, r->wide, r->step, a->n);
    if (a->shift) gpu_take4(b, a->shift, i, r->wide, r->step, a->n);
    GPU_UNROLL
    for (int32_t j = 0; j < 4; j++) out[j] = gpu_fma((v[j] - mean) * per, w[j], b[j]);
    if (r->y) gpu_give4(r->y, i, out, r->wide, r->step, a->n);
    if (a->image)
        gpu_give4_as((enum gpu_elt)a->image_type, a->image, r->at, i, out, r->wide, r->step, a->n);
}

/* Sum over the row of (x - mean)^p, p 1 or 2; the first four values of each thread are in v. */
GPU_FN float gpu_norm_sum(const struct gpu_norm *a, const struct gpu_norm_row *r, int32_t i0,
                          const float v[4], float mean, bool square, float *part)
{
    float sum = 0.0f, w[4];
    for (int32_t i = i0; i < a->n; i += 4 * gpu_threads()) {
        GPU_UNROLL
        for (int32_t j = 0; j < 4; j++) w[j] = v[j];
        if (i != i0) gpu_take4(w, r->x, i, r->wide, r->step, a->n);
        GPU_UNROLL
        for (int32_t j = 0; j < 4; j++) {
            float d = i + j * r->step < a->n ? w[j] - mean : 0.0f;
            sum = square ? gpu_fma(d, d, sum) : sum + d;
        }
    }
    return gpu_block_sum(sum, part);
}

/* What a thread has added to x it reads again itself, if its four values are not all it has. */
GPU_KERNEL(norm, struct gpu_norm)
{
    gpu_begin();
    struct gpu_norm_row r;
    float v[4] = { 0.0f, 0.0f, 0.0f, 0.0f }, more[4], mean = 0.0f;
    float *part = (float *)(void *)shared;
    int64_t at = (int64_t)gpu_block_x() * a.n;
    r.wide = a.n % 4 == 0 && gpu_even16(a.x) && gpu_even16(a.add) && gpu_even16(a.bias) &&
             gpu_even16(a.bias2) && gpu_even16(a.weight) && gpu_even16(a.shift) &&
             gpu_even16(a.y) && gpu_even16(a.image);
    r.step = r.wide ? 1 : gpu_threads();
    r.x = a.x + at;
    r.add = a.add ? a.add + at : a.add;
    r.y = a.y ? a.y + at : a.y;
    r.at = at;
    int32_t i0 = r.wide ? 4 * gpu_tid() : gpu_tid();
    if (i0 < a.n) gpu_norm_add(&a, &r, i0, v);
    for (int32_t i = i0 + 4 * gpu_threads(); i < a.n; i += 4 * gpu_threads())
        gpu_norm_add(&a, &r, i, more);
    if (!a.weight) return;
    if (a.mean) mean = gpu_norm_sum(&a, &r, i0, v, 0.0f, false, part) / (float)a.n;
    float square = gpu_norm_sum(&a, &r, i0, v, mean, true, part + 32);
    float per = gpu_rsqrt(square / (float)a.n + a.eps);
    if (i0 < a.n) gpu_norm_out(&a, &r, i0, v, mean, per);
    for (int32_t i = i0 + 4 * gpu_threads(); i < a.n; i += 4 * gpu_threads()) {
        gpu_take4(more, r.x, i, r.wide, r.step, a.n);
        gpu_norm_out(&a, &r, i, more, mean, per);
    }
}

/* ---- rope_put: a few lanes per head --------------------------------------------------------- */

/* A lane's pairs (i, i + half) of one head: four neighbours if wide, else `step` apart. */
struct gpu_pairs {
    int32_t i, step, half;
    bool wide;
};

GPU_FN void gpu_pairs_add(float lo[4], float hi[4], const struct gpu_pairs *p, const float *bias)
{
    float b[4];
    gpu_take4(b, bias, p->i, p->wide, p->step, p->half);
    GPU_UNROLL
    for (int32_t j = 0; j < 4; j++) lo[j] += b[j];
    gpu_take4(b, bias + p->half, p->i, p->wide, p->step, p->half);
    GPU_UNROLL
    for (int32_t j = 0; j < 4; j++) hi[j] += b[j];
}

/* RMSNorm over the head; every lane of the warp calls, heads that are not normed with weight NULL. */
GPU_FN void gpu_pairs_norm(float lo[4], float hi[4], const struct gpu_pairs *p, const float *weight,
                           float eps, int32_t lanes)
{
    float sum = 0.0f, w[4];
    GPU_UNROLL
    for (int32_t j = 0; j < 4; j++) sum = gpu_fma(lo[j], lo[j], gpu_fma(hi[j], hi[j], sum));
    for (int32_t m = lanes / 2; m > 0; m /= 2) sum += gpu_shfl_xor(sum, m);
    if (!weight || p->i >= p->half) return;
    float per = gpu_rsqrt(sum / (float)(2 * p->half) + eps);
    gpu_take4(w, weight, p->i, p->wide, p->step, p->half);
    GPU_UNROLL
    for (int32_t j = 0; j < 4; j++) lo[j] *= per * w[j];
    gpu_take4(w, weight + p->half, p->i, p->wide, p->step, p->half);
    GPU_UNROLL
    for (int32_t j = 0; j < 4; j++) hi[j] *= per * w[j];
}

GPU_FN void gpu_pairs_turn(float lo[4], float hi[4], const struct gpu_pairs *p, const float *cs)
{
    float c[4], s[4];
    gpu_take4(c, cs, p->i, p->wide, p->step, p->half);
    gpu_take4(s, cs + p->half, p->i, p->wide, p->step, p->half);
    GPU_UNROLL
    for (int32_t j = 0; j < 4; j++) {
        float u = lo[j], v = hi[j];
        lo[j] = gpu_fma(u, c[j], -(v * s[j]));
        hi[j] = gpu_fma(v, c[j], u * s[j]);
    }
}

/* Block (row, some heads): heads in the order of the row, query, key, value. */
GPU_KERNEL(rope_put, struct gpu_rope_put)
{
    gpu_begin();
    int32_t row = gpu_block_x(), dim = a.kv.head_dim, lanes = 32, n_kv = a.kv.n_head;
    struct gpu_pairs p;
    float lo[4] = { 0.0f, 0.0f, 0.0f, 0.0f }, hi[4] = { 0.0f, 0.0f, 0.0f, 0.0f };
    p.half = dim / 2;
    if (p.half % 4 == 0)
        for (lanes = 1; lanes < p.half / 4;) lanes *= 2;
    p.wide = p.half % 4 == 0 && a.ld % 4 == 0 && gpu_even16(a.qkv) && gpu_even16(a.bias) &&
             gpu_even16(a.norm_q) && gpu_even16(a.norm_k) && gpu_even16(a.cs) &&
             gpu_even16(a.kv.k) && gpu_even16(a.kv.v);
    p.i = p.wide ? gpu_tid() % lanes * 4 : gpu_tid() % lanes;
    p.step = p.wide ? 1 : lanes;
    int32_t head = gpu_block_y() * (gpu_threads() / lanes) + gpu_tid() / lanes, pos = a.s.pos[row];
    bool is_q = head < a.n_head, is_k = !is_q && head < a.n_head + n_kv;
    if (pos < 0) return; /* the whole block */
    float *x = a.qkv + row * a.ld + (int64_t)head * dim;
    const float *weight = is_q ? a.norm_q : is_k ? a.norm_k : (const float *)0;
    bool mine = head < a.n_head + 2 * n_kv && p.i < p.half;
    if (mine) {
        gpu_take4(lo, x, p.i, p.wide, p.step, p.half);
        gpu_take4(hi, x + p.half, p.i, p.wide, p.step, p.half);
        if (a.bias) gpu_pairs_add(lo, hi, &p, a.bias + (int64_t)head * dim);
    }
    gpu_pairs_norm(lo, hi, &p, weight, a.eps, lanes);
    if (!mine) return;
    if (a.cs && (is_q || is_k)) gpu_pairs_turn(lo, hi, &p, a.cs + (int64_t)pos * dim);
    if (is_q) {
        gpu_give4(x, p.i, lo, p.wide, p.step, p.half);
        gpu_give4(x + p.half, p.i, hi, p.wide, p.step, p.half);
        return;
    }
    int32_t slot = a.s.slot[row], kv_head = head - a.n_head - (is_k ? 0 : n_kv);
    int64_t block = (int64_t)(slot / a.kv.block_tok) * n_kv + kv_head;
    int64_t at = (block * a.kv.block_tok + slot % a.kv.block_tok) * dim;
    void *to = is_k ? a.kv.k : a.kv.v;
    gpu_give4_as((enum gpu_elt)a.kv.type, to, at, p.i, lo, p.wide, p.step, p.half);
    gpu_give4_as((enum gpu_elt)a.kv.type, to, at + p.half, p.i, hi, p.wide, p.step, p.half);
}

/* ---- flat arrays ---------------------------------------------------------------------------- */
GPU_KERNEL(add, struct gpu_add)
{
    gpu_begin();
    bool wide = gpu_even16(a.y) && gpu_even16(a.x);
    int64_t whole = wide ? a.n / 4 * 4 : 0;
    float v[4], w[4];
    for (int64_t i = 4 * gpu_index(); i < whole; i += 4 * gpu_stride()) {
        gpu_take4(v, a.y, i, true, 1, a.n);
        gpu_take4(w, a.x, i, true, 1, a.n);
        GPU_UNROLL
        for (int32_t j = 0; j < 4; j++) v[j] += w[j];
        gpu_give4(a.y, i, v, true, 1, a.n);
    }
    for (int64_t i = whole + gpu_index(); i < a.n; i += gpu_stride()) a.y[i] += a.x[i];
}

/* Largest v of the block, the same in all its threads; part: 32 floats that no one else uses. */
GPU_FN float gpu_block_max(float v, float *part)
{
    GPU_UNROLL
    for (int32_t m = 16; m > 0; m /= 2) v = fmaxf(v, gpu_shfl_xor(v, m));
    if (gpu_lane() == 0) part[gpu_warp()] = v;
    gpu_sync();
    v = gpu_lane() < gpu_threads() / 32 ? part[gpu_lane()] : 0.0f;
    GPU_UNROLL
    for (int32_t m = 16; m > 0; m /= 2) v = fmaxf(v, gpu_shfl_xor(v, m));
    return v;
}

/* The scale of all of an E4M3 image: each block finds it, the first one tells. */
GPU_FN float gpu_cast_scale(const struct gpu_cast *a, char *shared)
{
    float top = 0.0f, by;
    if (!a->part) return a->scale ? a->scale[0] : 1.0f;
    for (int32_t i = gpu_tid(); i < a->n_part; i += gpu_threads()) top = fmaxf(top, a->part[i]);
    by = fmaxf(gpu_block_max(top, (float *)(void *)shared) / 448.0f, 7.52316385e-37f); /* 2^-120 */
    if (gpu_index() == 0) a->scale[0] = by;
    return by;
}

GPU_KERNEL(cast, struct gpu_cast)
{
    gpu_begin();
    bool wide = gpu_even16(a.from) && gpu_even16(a.to);
    int64_t whole = wide ? a.n / 4 * 4 : 0;
    enum gpu_elt type = (enum gpu_elt)a.type;
    bool scaled = type == GPU_E4M3;
    float v[4], by = scaled ? gpu_cast_scale(&a, shared) : 1.0f;
    for (int64_t i = 4 * gpu_index(); i < whole; i += 4 * gpu_stride()) {
        gpu_take4(v, a.from, i, true, 1, a.n);
        GPU_UNROLL
        for (int32_t j = 0; j < 4; j++) v[j] = scaled ? v[j] / by : v[j];
        gpu_give4_as(type, a.to, 0, i, v, true, 1, a.n);
    }
    for (int64_t i = whole + gpu_index(); i < a.n; i += gpu_stride())
        gpu_put(type, a.to, i, scaled ? a.from[i] / by : a.from[i]);
}

GPU_KERNEL(absmax, struct gpu_absmax)
{
    gpu_begin();
    float top = 0.0f, v[4][4];
    int64_t whole = gpu_even16(a.x) ? a.n / 4 * 4 : 0, i = 4 * gpu_index(), step = 4 * gpu_stride();
    for (; i + 3 * step < whole; i += 4 * step) { /* four loads under way */
        GPU_UNROLL
        for (int32_t k = 0; k < 4; k++) gpu_take4(v[k], a.x, i + k * step, true, 1, a.n);
        GPU_UNROLL
        for (int32_t j = 0; j < 16; j++) top = fmaxf(top, fabsf(v[j / 4][j % 4]));
    }
    for (; i < whole; i += step) {
        gpu_take4(v[0], a.x, i, true, 1, a.n);
        GPU_UNROLL
        for (int32_t j = 0; j < 4; j++) top = fmaxf(top, fabsf(v[0][j]));
    }
    for (i = whole + gpu_index(); i < a.n; i += gpu_stride()) top = fmaxf(top, fabsf(a.x[i]));
    top = gpu_block_max(top, (float *)(void *)shared);
    if (gpu_tid() == 0) a.part[gpu_block_x()] = top;
}

#endif
