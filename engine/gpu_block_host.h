/* engine/gpu_block_host.h - the words of gpu_block.h for a C compiler: a thread block on the CPU.
 *
 * A kernel becomes `void gpu_host_k_<name>(const void *args, char *shared)`, the whole life of one
 * thread. Whoever runs a block says in gpu_host_here which thread it is, and defines what happens
 * where threads meet (the extern functions below; tests/gpu_fibre.c: a fibre per thread). Only one
 * file of a program includes the kernels. SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_GPU_BLOCK_HOST_H
#define ENGINE_GPU_BLOCK_HOST_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "engine/elt.h"
#include "engine/gpu_kern.h"

/* A kernel need not use the shared memory that it is given. */
#pragma GCC diagnostic ignored "-Wunused-parameter"

#define GPU_UNROLL
#define GPU_FN static inline
#define GPU_KERNEL(name_, args_)                                                                   \
    static void gpu_body_##name_(const args_ a, char *shared);                                     \
    void gpu_host_k_##name_(const void *args, char *shared);                                       \
    void gpu_host_k_##name_(const void *args, char *shared)                                        \
    {                                                                                              \
        gpu_body_##name_(*(const args_ *)args, shared);                                            \
    }                                                                                              \
    static void gpu_body_##name_(const args_ a, char *shared)

#define GPU_KERNEL_FULL(name_, args_, blocks_) GPU_KERNEL(name_, args_)

/* The thread that runs now, in its block, in its grid. */
struct gpu_host_here {
    int32_t tid, threads;
    int32_t x, y, z, n_x;
    int32_t begun; /* threads that have been at gpu_begin */
    int32_t sm;    /* of the device that is played */
};
extern _Thread_local struct gpu_host_here gpu_host_here;

/* All threads of the block meet. */
void gpu_host_meet(void);
void gpu_host_meet_warp(void);
/* The 32 of a warp meet, each with a word; the words of all by lane, until the lane meets again. */
const uint32_t *gpu_host_trade(uint32_t word);
/* They meet to multiply: see gpu_mma. */
void gpu_host_mma(enum gpu_elt type, float d[4], const uint32_t a[4], const uint32_t b[2]);

static inline void gpu_begin(void)
{
    gpu_host_here.begun++;
}
static inline void gpu_ahead(const void *p)
{
    (void)p;
}
static inline int gpu_sm(void)
{
    return gpu_host_here.sm;
}
static inline int32_t gpu_tid(void)
{
    return gpu_host_here.tid;
}
static inline int32_t gpu_threads(void)
{
    return gpu_host_here.threads;
}
static inline int32_t gpu_block_x(void)
{
    return gpu_host_here.x;
}
static inline int32_t gpu_block_y(void)
{
    return gpu_host_here.y;
}
static inline int32_t gpu_block_z(void)
{
    return gpu_host_here.z;
}
static inline int32_t gpu_blocks_x(void)
{
    return gpu_host_here.n_x;
}
static inline int32_t gpu_lane(void)
{
    return gpu_host_here.tid % 32;
}
static inline int32_t gpu_warp(void)
{
    return gpu_host_here.tid / 32;
}
static inline int64_t gpu_index(void)
{
    return (int64_t)gpu_host_here.x * gpu_host_here.threads + gpu_host_here.tid;
}
static inline int64_t gpu_stride(void)
{
    return (int64_t)gpu_host_here.n_x * gpu_host_here.threads;
}

static inline uint32_t gpu_bits(float x)
{
    return elt_bits_of_f32(x);
}
static inline float gpu_of_bits(uint32_t bits)
{
    return elt_f32_of_bits(bits);
}

static inline void gpu_sync(void)
{
    gpu_host_meet();
}
static inline void gpu_sync_warp(void)
{
    gpu_host_meet_warp();
}
static inline float gpu_shfl(float v, int32_t lane)
{
    return gpu_of_bits(gpu_host_trade(gpu_bits(v))[lane & 31]);
}
static inline float gpu_shfl_xor(float v, int32_t mask)
{
    return gpu_of_bits(gpu_host_trade(gpu_bits(v))[(gpu_lane() ^ mask) & 31]);
}
static inline int32_t gpu_shfl_i(int32_t v, int32_t lane)
{
    return (int32_t)gpu_host_trade((uint32_t)v)[lane & 31];
}
static inline int32_t gpu_shfl_xor_i(int32_t v, int32_t mask)
{
    return (int32_t)gpu_host_trade((uint32_t)v)[(gpu_lane() ^ mask) & 31];
}

/* An address that is not a multiple of the access's size is a fault on a device. */
void gpu_host_odd_address(const void *p);

static inline struct gpu_16 gpu_load16(const void *p)
{
    struct gpu_16 v;
    if ((uintptr_t)p % 16 != 0) gpu_host_odd_address(p);
    memcpy(&v, p, sizeof v);
    return v;
}
static inline void gpu_store16(void *p, struct gpu_16 v)
{
    if ((uintptr_t)p % 16 != 0) gpu_host_odd_address(p);
    memcpy(p, &v, sizeof v);
}

static inline void gpu_store8(void *p, uint32_t lo, uint32_t hi)
{
    uint32_t v[2] = { lo, hi };
    if ((uintptr_t)p % 8 != 0) gpu_host_odd_address(p);
    memcpy(p, v, sizeof v);
}

/* As late as the contract allows: what is not waited for is not there. */
void gpu_host_stage16(void *to, const void *from);
void gpu_host_stage_close(void);
void gpu_host_stage_wait(int32_t n);

static inline void gpu_stage16(void *to, const void *from)
{
    if ((uintptr_t)to % 16 != 0) gpu_host_odd_address(to);
    if ((uintptr_t)from % 16 != 0) gpu_host_odd_address(from);
    gpu_host_stage16(to, from);
}
static inline void gpu_stage_close(void)
{
    gpu_host_stage_close();
}
static inline void gpu_stage_wait(int32_t n)
{
    gpu_host_stage_wait(n);
}

static inline float gpu_exp(float x)
{
    return expf(x);
}
static inline float gpu_exp2(float x)
{
    return exp2f(x);
}
static inline float gpu_rsqrt(float x)
{
    return 1 / sqrtf(x);
}
static inline float gpu_erf(float x)
{
    return erff(x);
}
static inline float gpu_log(float x)
{
    return logf(x);
}
static inline float gpu_fma(float a, float b, float c)
{
    return fmaf(a, b, c);
}

static inline uint32_t gpu_low2(uint32_t x, uint32_t y)
{
    return (x & 0xffffu) | y << 16;
}
static inline uint32_t gpu_high2(uint32_t x, uint32_t y)
{
    return x >> 16 | (y & 0xffff0000u);
}

/* E4M3 (OCP 8-bit floating point, revision 1.0, 2023, table 1): 1 sign, 4 exponent (bias 7), 3
 * fraction bits; no infinity, 0x7f and 0xff are NaN, the largest is 448. */
static inline float gpu_host_from_e4m3(uint8_t b)
{
    int exponent = b >> 3 & 15, fraction = b & 7;
    float abs =
        exponent == 0 ? (float)fraction * 0x1p-9f : ldexpf((float)(8 + fraction), exponent - 10);
    if ((b & 0x7f) == 0x7f) return NAN;
    return b & 0x80 ? -abs : abs;
}
static inline uint8_t gpu_host_to_e4m3(float x)
{
    uint32_t u = gpu_bits(x), sign = u >> 24 & 0x80u, abs = u & 0x7fffffffu;
    if (abs > 0x7f800000u) return 0x7f;
    if (abs >= 0x43e00000u) return (uint8_t)(sign | 0x7eu); /* 448 */
    if (abs < 0x3c800000u)                                  /* below 2^-6 in steps of 2^-9 */
        return (uint8_t)(sign | (uint32_t)rintf(gpu_of_bits(abs) * 512));
    uint32_t rounded = abs + 0x7ffffu + (abs >> 20 & 1u);
    return (uint8_t)(sign | ((rounded >> 20) - (120u << 3)));
}

static inline float gpu_get(enum gpu_elt type, const void *p, int64_t i)
{
    switch (type) {
    case GPU_BF16: return elt_from_bf16(((const uint16_t *)p)[i]);
    case GPU_F16: return elt_from_f16(((const uint16_t *)p)[i]);
    case GPU_E4M3: return gpu_host_from_e4m3(((const uint8_t *)p)[i]);
    default: return ((const float *)p)[i];
    }
}
static inline void gpu_put(enum gpu_elt type, void *p, int64_t i, float v)
{
    switch (type) {
    case GPU_BF16: ((uint16_t *)p)[i] = elt_to_bf16(v); break;
    case GPU_F16: ((uint16_t *)p)[i] = elt_to_f16(v); break;
    case GPU_E4M3: ((uint8_t *)p)[i] = gpu_host_to_e4m3(v); break;
    default: ((float *)p)[i] = v;
    }
}
static inline uint32_t gpu_pack2(enum gpu_elt type, float lo, float hi)
{
    if (type == GPU_F16) return (uint32_t)elt_to_f16(hi) << 16 | elt_to_f16(lo);
    return (uint32_t)elt_to_bf16(hi) << 16 | elt_to_bf16(lo);
}

static inline void gpu_mma(enum gpu_elt type, float *d, const uint32_t *a, const uint32_t *b)
{
    gpu_host_mma(type, d, a, b);
}

/* Threads of a block take turns here, so that nothing comes between. */
static inline int32_t gpu_atomic_add_i(int32_t *p, int32_t v)
{
    int32_t was = *p;
    *p = was + v;
    return was;
}

#endif
