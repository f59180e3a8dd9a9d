/* engine/gpu_block_mma.h - gpu_mma of BF16 without tensor cores: plain multiply-adds on words that the
 * lanes hand to each other. Right, and slow. Included by gpu_block_cuda.h for architectures that
 * have none for that type, and by its test. SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_GPU_BLOCK_MMA_H
#define ENGINE_GPU_BLOCK_MMA_H

/* Two neighbouring k. */
GPU_FN float gpu_mma_bf16_pair(float sum, uint32_t a, uint32_t b)
{
    sum = gpu_fma(gpu_of_bits(a << 16), gpu_of_bits(b << 16), sum);
    return gpu_fma(gpu_of_bits(a & 0xffff0000u), gpu_of_bits(b & 0xffff0000u), sum);
}

/* Lane 4 g + t has rows g and g + 8, columns 2 t and 2 t + 1 of D; the lanes 4 g + j have these rows
 * of A, the lanes 4 n + j column n of B. */
GPU_FN void gpu_mma_bf16_plain(float *d, const uint32_t *a, const uint32_t *b)
{
    int32_t row = gpu_lane() & ~3, column = gpu_lane() % 4 * 8;
    GPU_UNROLL
    for (int32_t half = 0; half < 2; half++)
        for (int32_t j = 0; j < 4; j++) {
            uint32_t top = (uint32_t)gpu_shfl_i((int32_t)a[2 * half], row + j);
            uint32_t low = (uint32_t)gpu_shfl_i((int32_t)a[2 * half + 1], row + j);
            uint32_t even = (uint32_t)gpu_shfl_i((int32_t)b[half], column + j);
            uint32_t odd = (uint32_t)gpu_shfl_i((int32_t)b[half], column + 4 + j);
            d[0] = gpu_mma_bf16_pair(d[0], top, even);
            d[1] = gpu_mma_bf16_pair(d[1], top, odd);
            d[2] = gpu_mma_bf16_pair(d[2], low, even);
            d[3] = gpu_mma_bf16_pair(d[3], low, odd);
        }
}

#endif
