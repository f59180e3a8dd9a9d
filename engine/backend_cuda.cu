/* engine/backend_cuda.cu - the kernels compiled for NVIDIA devices, and the entries of all.
 *
 * Nothing else: each line here is read once for every architecture. What runs on the host is C, in
 * backend_cuda_rt.c and backend_cuda_mm.c; attention, which takes long to compile, is in
 * backend_cuda_attn.cu. SPDX-License-Identifier: Apache-2.0 */
#include "engine/gpu_block.h"

#include "engine/gpu_k_bench.h"
#include "engine/gpu_k_elt.h"
#include "engine/gpu_k_gemv.h"
#include "engine/gpu_k_sample.h"

GPU_KERNEL(attn_decode, struct gpu_attn);
GPU_KERNEL(attn_combine, struct gpu_attn);
GPU_KERNEL(attn_prefill, struct gpu_attn);
GPU_KERNEL(attn_prefill_f32, struct gpu_attn);

extern "C" const void *backend_cuda_kern(enum gpu_kern k)
{
#define ENTRY(name_, args_, threads_)                                                              \
    case GPU_K_##name_: return (const void *)gpu_k_##name_;
    switch (k) {
        GPU_KERNELS(ENTRY)
    default: return NULL;
    }
#undef ENTRY
}
