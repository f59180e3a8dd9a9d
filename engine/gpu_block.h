/* engine/gpu_block.h - the dialect that the GPU kernels are written in: one source, two compilers.
 *
 * A kernel is the body of one thread of a one-dimensional block, in the common subset of C17 and
 * CUDA C++ (explicit casts from void *, no designated initialisers, no compound literals):
 *
 *     GPU_KERNEL(add, struct gpu_add)
 *     {
 *         for (int64_t i = gpu_index(); i < a.n; i += gpu_stride()) a.y[i] += a.x[i];
 *     }
 *
 * `a` are the arguments, by value; `shared` (char *, aligned to 16) is the block's dynamic shared
 * memory. GPU_KERNEL_FULL(name, args, n): registers for at least n blocks of the most threads on a
 * multiprocessor. nvcc makes a __global__ function of it; elsewhere it is a plain function that a host
 * runner calls once per thread, switching between threads where they meet. The words of the
 * dialect, the same in both:
 *
 *   gpu_begin()                         first of all, in every kernel: what was issued before has ended
 *   gpu_ahead(p)                        the line of device memory at p is wanted soon; also before
 *                                       gpu_begin, if p is no shared memory
 *   gpu_tid() gpu_threads()             thread in the block, threads of the block
 *   gpu_block_x() _y() _z()             block in the grid;  gpu_blocks_x(): blocks along x
 *   gpu_lane() gpu_warp()               tid % 32, tid / 32
 *   gpu_sm()                            compute capability that this copy is for, 10 * major + minor: for
 *                                       choices of speed alone
 *   gpu_index() gpu_stride()            thread in the grid along x, threads along x (int64_t)
 *   gpu_sync()                          all threads of the block meet; memory is seen by all
 *   gpu_sync_warp()                     the 32 of a warp meet
 *   gpu_shfl(v, lane) gpu_shfl_xor(v, m)   float of another lane; all 32 lanes call
 *   gpu_shfl_i(v, lane) gpu_shfl_xor_i(v, m)  the same of int32_t
 *   gpu_load16(p) gpu_store16(p, v)     16 bytes at an address that is a multiple of 16, in device
 *                                       or shared memory: struct gpu_16
 *   gpu_bits(x) gpu_of_bits(u)          a float's bits, the float of these bits
 *   gpu_store8(p, lo, hi)               two 32-bit words at an address that is a multiple of 8
 *   gpu_stage16(to, from)               16 bytes from device to shared memory, there for this thread
 *                                       after a gpu_stage_wait, for others after a gpu_sync beyond
 *   gpu_stage_close()                   ends this thread's current batch of gpu_stage16
 *   gpu_stage_wait(n)                   n constant: all but the n latest closed batches have arrived
 *   GPU_UNROLL                          before a `for` of constant bounds: unrolled, so that arrays
 *                                       indexed by its variable stay in registers
 *   gpu_exp(x) gpu_exp2(x) gpu_rsqrt(x)  f32, relative error <= 4e-7 (exp: fast paths
 *                                       of the device may have 2 ulp more), gpu_erf(x), gpu_log(x);
 *                                       exp2 below 2^-126 may be 0
 *   gpu_fma(a, b, c)                    one rounding
 *   gpu_get(type, p, i)                 element i of an array of enum gpu_elt as f32
 *   gpu_put(type, p, i, v)              and back: nearest, ties to even (E4M3: saturates at 448)
 *   gpu_pack2(type, lo, hi)             two f32 as BF16 or F16 in a uint32_t, lo in the low half
 *   gpu_low2(x, y) gpu_high2(x, y)     the low (high) halves of two uint32_t in one, x's low
 *   gpu_mma(type, d, a, b)              d[4] += A . B on the tensor cores, whole warp, type BF16 or
 *                                       F16: the fragments of mma.sync.m16n8k16 (PTX ISA 9.7.14.5.8)
 *   gpu_atomic_add_i(p, v)              returns what was there; int32_t in shared or device memory
 *
 * Functions that kernels share are GPU_FN; with constant arguments they are specialised by inlining.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_GPU_BLOCK_H
#define ENGINE_GPU_BLOCK_H

#include <stdint.h>

struct gpu_16 {
    uint32_t w[4];
};

#ifdef __CUDACC__
#include "engine/gpu_block_cuda.h"
#else
#include "engine/gpu_block_host.h"
#endif

#endif
