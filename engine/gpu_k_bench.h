/* engine/gpu_k_bench.h - GPU kernels that are there to be timed: ceilings beside the others.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_GPU_K_BENCH_H
#define ENGINE_GPU_K_BENCH_H

#include "engine/gpu_block.h"
#include "engine/gpu_kern.h"

GPU_FN uint32_t gpu_sum16(struct gpu_16 v)
{
    return v.w[0] + v.w[1] + v.w[2] + v.w[3];
}

/* Four loads under way at a time. */
GPU_KERNEL(read, struct gpu_read)
{
    gpu_begin();
    const struct gpu_16 *x = (const struct gpu_16 *)a.x;
    uint32_t sum = 0, *part = (uint32_t *)(void *)shared;
    int64_t i = gpu_index(), step = gpu_stride();
    for (; i + 3 * step < a.n; i += 4 * step) {
        struct gpu_16 v0 = gpu_load16(x + i), v1 = gpu_load16(x + i + step);
        struct gpu_16 v2 = gpu_load16(x + i + 2 * step), v3 = gpu_load16(x + i + 3 * step);
        sum += gpu_sum16(v0) + gpu_sum16(v1) + gpu_sum16(v2) + gpu_sum16(v3);
    }
    for (; i < a.n; i += step) sum += gpu_sum16(gpu_load16(x + i));
    GPU_UNROLL
    for (int32_t m = 16; m > 0; m /= 2) sum += (uint32_t)gpu_shfl_xor_i((int32_t)sum, m);
    if (gpu_lane() == 0) part[gpu_warp()] = sum;
    gpu_sync();
    if (gpu_tid() != 0) return;
    for (int32_t w = 1; w < gpu_threads() / 32; w++) sum += part[w];
    a.sum[gpu_block_x()] = sum;
}

GPU_KERNEL(copy, struct gpu_copy)
{
    gpu_begin();
    const struct gpu_16 *x = (const struct gpu_16 *)a.from;
    struct gpu_16 *y = (struct gpu_16 *)a.to;
    int64_t i = gpu_index(), step = gpu_stride();
    for (; i + 3 * step < a.n; i += 4 * step) {
        struct gpu_16 v0 = gpu_load16(x + i), v1 = gpu_load16(x + i + step);
        struct gpu_16 v2 = gpu_load16(x + i + 2 * step), v3 = gpu_load16(x + i + 3 * step);
        gpu_store16(y + i, v0);
        gpu_store16(y + i + step, v1);
        gpu_store16(y + i + 2 * step, v2);
        gpu_store16(y + i + 3 * step, v3);
    }
    for (; i < a.n; i += step) gpu_store16(y + i, gpu_load16(x + i));
}

/* The finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014). */
GPU_FN uint64_t gpu_mix64(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* As many bits as the type has in its significand, so that no value is rounded up to 1. */
GPU_KERNEL(fill, struct gpu_fill)
{
    gpu_begin();
    enum gpu_elt type = (enum gpu_elt)a.type;
    int32_t bits = type == GPU_F32 ? 24 : type == GPU_F16 ? 11 : type == GPU_BF16 ? 8 : 4;
    int32_t half = 1 << (bits - 1);
    float unit = 1.0f / (float)half;
    for (int64_t i = gpu_index(); i < a.n; i += gpu_stride()) {
        uint64_t h = gpu_mix64(gpu_mix64(a.seed) + (uint64_t)i * 0x9e3779b97f4a7c15u);
        gpu_put(type, a.x, i, (float)((int32_t)(h >> (64 - bits)) - half) * unit);
    }
}

GPU_KERNEL(nothing, struct gpu_nothing)
{
    gpu_begin();
    (void)a;
}

#endif
