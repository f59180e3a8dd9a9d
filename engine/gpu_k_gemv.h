/* engine/gpu_k_gemv.h - products of few rows on a GPU: as fast as the matrix can be read, no tensor
 * cores. backend_cuda_mm.c takes it where it was faster than the library. A warp has two rows of
 * the matrix, whose loads are all under way before the first is used.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_GPU_K_GEMV_H
#define ENGINE_GPU_K_GEMV_H

#include "engine/gpu_block.h"
#include "engine/gpu_kern.h"

enum { GPU_GEMV_DEEP = 4 }; /* loads of a lane under way, of each row of the matrix, at most */

/* The low or high half of a word as f32; type constant. */
GPU_FN float gpu_half_of(enum gpu_elt type, uint32_t word, int32_t high)
{
    uint16_t half = (uint16_t)(word >> 16 * high);
    if (type == GPU_BF16) return gpu_of_bits(high ? word & 0xffff0000u : word << 16);
    return gpu_get(type, &half, 0);
}

GPU_FN float gpu_dot8(enum gpu_elt type, struct gpu_16 x, struct gpu_16 y, float sum)
{
    GPU_UNROLL
    for (int32_t i = 0; i < 8; i++)
        sum = gpu_fma(gpu_half_of(type, x.w[i / 2], i % 2), gpu_half_of(type, y.w[i / 2], i % 2),
                      sum);
    return sum;
}

/* m: rows of x that the copy is made for; those past a->m are the last one again. deep: loads. */
GPU_FN void gpu_gemv_of(const struct gpu_gemv *a, enum gpu_elt type, int32_t m, int32_t deep)
{
    int32_t at = (gpu_block_x() * (gpu_threads() / 32) + gpu_warp()) * GPU_GEMV_ROWS, k = a->k;
    if (at >= a->n) return;
    const uint16_t *x = (const uint16_t *)a->x, *w[GPU_GEMV_ROWS];
    float sum[GPU_GEMV_ROWS][GPU_GEMV_MAX];
    GPU_UNROLL
    for (int32_t r = 0; r < GPU_GEMV_ROWS; r++) {
        w[r] = (const uint16_t *)a->w + (int64_t)(at + r < a->n ? at + r : at) * k;
        GPU_UNROLL
        for (int32_t i = 0; i < m; i++) sum[r][i] = 0.0f;
    }
    for (int32_t c = gpu_lane() * 8; c < k; c += 256 * deep) {
        struct gpu_16 v[GPU_GEMV_DEEP][GPU_GEMV_ROWS], zero = { { 0, 0, 0, 0 } };
        GPU_UNROLL
        for (int32_t d = 0; d < deep; d++) {
            GPU_UNROLL
            for (int32_t r = 0; r < GPU_GEMV_ROWS; r++)
                v[d][r] = c + 256 * d < k ? gpu_load16(w[r] + c + 256 * d) : zero;
        }
        GPU_UNROLL
        for (int32_t d = 0; d < deep; d++) {
            GPU_UNROLL
            for (int32_t i = 0; i < m; i++) {
                int64_t row = i < a->m ? i : a->m - 1;
                struct gpu_16 u = c + 256 * d < k ? gpu_load16(x + row * k + c + 256 * d) : zero;
                GPU_UNROLL
                for (int32_t r = 0; r < GPU_GEMV_ROWS; r++)
                    sum[r][i] = gpu_dot8(type, u, v[d][r], sum[r][i]);
            }
        }
    }
    GPU_UNROLL
    for (int32_t r = 0; r < GPU_GEMV_ROWS; r++) {
        GPU_UNROLL
        for (int32_t i = 0; i < m; i++) {
            float v = sum[r][i];
            GPU_UNROLL
            for (int32_t s = 16; s > 0; s /= 2) v += gpu_shfl_xor(v, s);
            if (gpu_lane() == 0 && i < a->m && at + r < a->n) a->y[(int64_t)i * a->n + at + r] = v;
        }
    }
}

GPU_FN void gpu_gemv_type(const struct gpu_gemv *a, enum gpu_elt type)
{
    if (a->m == 1)
        gpu_gemv_of(a, type, 1, GPU_GEMV_DEEP);
    else if (a->m == 2)
        gpu_gemv_of(a, type, 2, GPU_GEMV_DEEP);
    else
        gpu_gemv_of(a, type, GPU_GEMV_MAX, GPU_GEMV_DEEP / 2);
}

/* What a warp reads first of the matrix is on its way while the kernel before ends. */
GPU_FN void gpu_gemv_ahead(const struct gpu_gemv *a)
{
    int32_t at = (gpu_block_x() * (gpu_threads() / 32) + gpu_warp()) * GPU_GEMV_ROWS;
    int32_t c = gpu_lane() * 64; /* 128 bytes */
    if (c >= 256 * GPU_GEMV_DEEP || c >= a->k) return;
    GPU_UNROLL
    for (int32_t r = 0; r < GPU_GEMV_ROWS; r++)
        if (at + r < a->n) gpu_ahead((const uint16_t *)a->w + (int64_t)(at + r) * a->k + c);
}

GPU_KERNEL_FULL(gemv, struct gpu_gemv, 3)
{
    gpu_gemv_ahead(&a);
    gpu_begin();
    if (a.type == GPU_BF16)
        gpu_gemv_type(&a, GPU_BF16);
    else
        gpu_gemv_type(&a, GPU_F16);
}

#endif
