/* engine/gpu_block_cuda.h - the words of gpu_block.h for nvcc.
 *
 * A kernel becomes `__global__ void gpu_k_<name>(args)` with C linkage. Tensor cores: sm_80 and
 * later have mma.m16n8k16 for both types; sm_75 has m16n8k8 for F16 only, so F16 takes two of those
 * and BF16 none (gpu_block_mma.h). SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_GPU_BLOCK_CUDA_H
#define ENGINE_GPU_BLOCK_CUDA_H

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <math.h>
#include <stdint.h>

#include "engine/gpu_kern.h"

#define GPU_KERN_BOUND(name, args, threads) GPU_BOUND_##name = threads,
enum { GPU_KERNELS(GPU_KERN_BOUND) GPU_BOUND_END };
#undef GPU_KERN_BOUND

#define GPU_FN static __device__ __forceinline__
#define GPU_KERNEL(name_, args_)                                                                   \
    extern "C" __global__ void __launch_bounds__(GPU_BOUND_##name_)                                \
        gpu_k_##name_(const __grid_constant__ args_ a)

#define GPU_KERNEL_FULL(name_, args_, blocks_)                                                     \
    extern "C" __global__ void __launch_bounds__(GPU_BOUND_##name_, blocks_)                       \
        gpu_k_##name_(const __grid_constant__ args_ a)

#define GPU_UNROLL _Pragma("unroll")

extern __shared__ __align__(16) char shared[];

#if __CUDA_ARCH__ >= 900
/* PTX ISA, griddepcontrol: blocks of the next kernel may come once all of this one's have, and wait there
 * until this kernel has ended and its writes are seen. Every kernel waits, so all before it have. */
GPU_FN void gpu_begin(void)
{
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
    asm volatile("griddepcontrol.wait;" ::: "memory");
}
#else
GPU_FN void gpu_begin(void) {}
#endif
GPU_FN void gpu_ahead(const void *p)
{
    asm volatile("prefetch.global.L2 [%0];" ::"l"(__cvta_generic_to_global(p)));
}

GPU_FN int32_t gpu_tid(void)
{
    return (int32_t)threadIdx.x;
}
GPU_FN int32_t gpu_threads(void)
{
    return (int32_t)blockDim.x;
}
GPU_FN int32_t gpu_block_x(void)
{
    return (int32_t)blockIdx.x;
}
GPU_FN int32_t gpu_block_y(void)
{
    return (int32_t)blockIdx.y;
}
GPU_FN int32_t gpu_block_z(void)
{
    return (int32_t)blockIdx.z;
}
GPU_FN int32_t gpu_blocks_x(void)
{
    return (int32_t)gridDim.x;
}
GPU_FN int32_t gpu_lane(void)
{
    return (int32_t)(threadIdx.x & 31u);
}
GPU_FN int gpu_sm(void)
{
#ifdef __CUDA_ARCH__
    return __CUDA_ARCH__ / 10;
#else
    return 0;
#endif
}
GPU_FN int32_t gpu_warp(void)
{
    return (int32_t)(threadIdx.x >> 5);
}
GPU_FN int64_t gpu_index(void)
{
    return (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
}
GPU_FN int64_t gpu_stride(void)
{
    return (int64_t)gridDim.x * blockDim.x;
}

GPU_FN uint32_t gpu_bits(float x)
{
    return __float_as_uint(x);
}
GPU_FN float gpu_of_bits(uint32_t bits)
{
    return __uint_as_float(bits);
}

GPU_FN void gpu_sync(void)
{
    __syncthreads();
}
GPU_FN void gpu_sync_warp(void)
{
    __syncwarp();
}
GPU_FN float gpu_shfl(float v, int32_t lane)
{
    return __shfl_sync(0xffffffffu, v, lane);
}
GPU_FN float gpu_shfl_xor(float v, int32_t mask)
{
    return __shfl_xor_sync(0xffffffffu, v, mask);
}
GPU_FN int32_t gpu_shfl_i(int32_t v, int32_t lane)
{
    return __shfl_sync(0xffffffffu, v, lane);
}
GPU_FN int32_t gpu_shfl_xor_i(int32_t v, int32_t mask)
{
    return __shfl_xor_sync(0xffffffffu, v, mask);
}

GPU_FN struct gpu_16 gpu_load16(const void *p)
{
    uint4 u = *(const uint4 *)p;
    struct gpu_16 v = { { u.x, u.y, u.z, u.w } };
    return v;
}
GPU_FN void gpu_store16(void *p, struct gpu_16 v)
{
    *(uint4 *)p = make_uint4(v.w[0], v.w[1], v.w[2], v.w[3]);
}
GPU_FN void gpu_store8(void *p, uint32_t lo, uint32_t hi)
{
    *(uint2 *)p = make_uint2(lo, hi);
}

#if __CUDA_ARCH__ >= 800
GPU_FN void gpu_stage16(void *to, const void *from)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(from) : "memory");
}
GPU_FN void gpu_stage_close(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}
#define gpu_stage_wait(n_) asm volatile("cp.async.wait_group %0;" ::"n"(n_) : "memory")
#else /* copied at once */
GPU_FN void gpu_stage16(void *to, const void *from)
{
    gpu_store16(to, gpu_load16(from));
}
GPU_FN void gpu_stage_close(void) {}
#define gpu_stage_wait(n_) ((void)(n_))
#endif

GPU_FN float gpu_exp(float x)
{
    return expf(x);
}
GPU_FN float gpu_exp2(float x)
{
    float y; /* PTX ISA 9.7.3.20: relative error 2^-22, and no detour for results below 2^-126 */
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
GPU_FN float gpu_rsqrt(float x)
{
    return rsqrtf(x);
}
GPU_FN float gpu_erf(float x)
{
    return erff(x);
}
GPU_FN float gpu_log(float x)
{
    return logf(x);
}
GPU_FN float gpu_fma(float a, float b, float c)
{
    return __fmaf_rn(a, b, c);
}

GPU_FN uint32_t gpu_low2(uint32_t x, uint32_t y)
{
    return __byte_perm(x, y, 0x5410);
}
GPU_FN uint32_t gpu_high2(uint32_t x, uint32_t y)
{
    return __byte_perm(x, y, 0x7632);
}

GPU_FN float gpu_get(enum gpu_elt type, const void *p, int64_t i)
{
    switch (type) {
    case GPU_BF16: return __bfloat162float(((const __nv_bfloat16 *)p)[i]);
    case GPU_F16: return __half2float(((const __half *)p)[i]);
    case GPU_E4M3: {
        __half_raw h = __nv_cvt_fp8_to_halfraw(((const __nv_fp8_storage_t *)p)[i], __NV_E4M3);
        return __half2float(__half(h));
    }
    default: return ((const float *)p)[i];
    }
}
GPU_FN void gpu_put(enum gpu_elt type, void *p, int64_t i, float v)
{
    switch (type) {
    case GPU_BF16: ((__nv_bfloat16 *)p)[i] = __float2bfloat16_rn(v); break;
    case GPU_F16: ((__half *)p)[i] = __float2half_rn(v); break;
    case GPU_E4M3:
        ((__nv_fp8_storage_t *)p)[i] = __nv_cvt_float_to_fp8(v, __NV_SATFINITE, __NV_E4M3);
        break;
    default: ((float *)p)[i] = v;
    }
}
GPU_FN uint32_t gpu_pack2(enum gpu_elt type, float lo, float hi)
{
    if (type == GPU_F16)
        return (uint32_t)__half_as_ushort(__float2half_rn(hi)) << 16 |
               __half_as_ushort(__float2half_rn(lo));
    return (uint32_t)__bfloat16_as_ushort(__float2bfloat16_rn(hi)) << 16 |
           __bfloat16_as_ushort(__float2bfloat16_rn(lo));
}

#if __CUDA_ARCH__ >= 800
GPU_FN void gpu_mma(enum gpu_elt type, float *d, const uint32_t *a, const uint32_t *b)
{
    if (type == GPU_F16)
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                     "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    else
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                     "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#else
#include "engine/gpu_block_mma.h"
/* d += A[16][8] . B[8][8] of F16, one half of the k of m16n8k16: registers 0 and 1 of A hold its
 * first 8 columns, 2 and 3 the rest, in the order that m16n8k8 wants. */
GPU_FN void gpu_mma_half(float *d, const uint32_t *a, uint32_t b)
{
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(b));
}
/* A call: a hundred copies of it in one kernel take ptxas minutes. */
static __device__ __noinline__ float4 gpu_mma_bf16_call(float4 d, uint4 a, uint2 b)
{
    float sum[4] = { d.x, d.y, d.z, d.w };
    uint32_t left[4] = { a.x, a.y, a.z, a.w }, right[2] = { b.x, b.y };
    gpu_mma_bf16_plain(sum, left, right);
    return make_float4(sum[0], sum[1], sum[2], sum[3]);
}
GPU_FN void gpu_mma(enum gpu_elt type, float *d, const uint32_t *a, const uint32_t *b)
{
    if (type != GPU_F16) {
        float4 sum = gpu_mma_bf16_call(make_float4(d[0], d[1], d[2], d[3]),
                                       make_uint4(a[0], a[1], a[2], a[3]), make_uint2(b[0], b[1]));
        d[0] = sum.x, d[1] = sum.y, d[2] = sum.z, d[3] = sum.w;
        return;
    }
    gpu_mma_half(d, a, b[0]);
    gpu_mma_half(d, a + 2, b[1]);
}
#endif

GPU_FN int32_t gpu_atomic_add_i(int32_t *p, int32_t v)
{
    return atomicAdd(p, v);
}

#endif
