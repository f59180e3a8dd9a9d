/* engine/backend_cuda.h - between the parts of the CUDA device: kernels (backend_cuda.cu), runtime
 * (backend_cuda_rt.c) and products (backend_cuda_mm.c). Builds with CUDA only.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_BACKEND_CUDA_H
#define ENGINE_BACKEND_CUDA_H

#include <cublasLt.h>
#include <stdint.h>

#include "engine/gpu.h"

/* Waits end with an error after this many seconds, or after $ORRERY_GPU_TIMEOUT_S. */
enum { BACKEND_CUDA_TIMEOUT_S = 25 };

/* What cudaLaunchKernelExC and cudaFuncSetAttribute know a kernel by. */
const void *backend_cuda_kern(enum gpu_kern k);

/* What is used of cuBLASLt, named without the prefix. */
struct backend_cuda_lt {
    cublasStatus_t (*Create)(cublasLtHandle_t *);
    cublasStatus_t (*Destroy)(cublasLtHandle_t);
    cublasStatus_t (*MatmulDescCreate)(cublasLtMatmulDesc_t *, cublasComputeType_t, cudaDataType_t);
    cublasStatus_t (*MatmulDescDestroy)(cublasLtMatmulDesc_t);
    cublasStatus_t (*MatmulDescSetAttribute)(cublasLtMatmulDesc_t, cublasLtMatmulDescAttributes_t,
                                             const void *, size_t);
    cublasStatus_t (*MatrixLayoutCreate)(cublasLtMatrixLayout_t *, cudaDataType, uint64_t, uint64_t,
                                         int64_t);
    cublasStatus_t (*MatrixLayoutDestroy)(cublasLtMatrixLayout_t);
    cublasStatus_t (*MatmulPreferenceCreate)(cublasLtMatmulPreference_t *);
    cublasStatus_t (*MatmulPreferenceDestroy)(cublasLtMatmulPreference_t);
    cublasStatus_t (*MatmulPreferenceSetAttribute)(cublasLtMatmulPreference_t,
                                                   cublasLtMatmulPreferenceAttributes_t,
                                                   const void *, size_t);
    cublasStatus_t (*MatmulAlgoGetHeuristic)(cublasLtHandle_t, cublasLtMatmulDesc_t,
                                             cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                             cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                             cublasLtMatmulPreference_t, int,
                                             cublasLtMatmulHeuristicResult_t *, int *);
    cublasStatus_t (*MatmulAlgoCheck)(cublasLtHandle_t, cublasLtMatmulDesc_t,
                                      cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                      cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                      const cublasLtMatmulAlgo_t *,
                                      cublasLtMatmulHeuristicResult_t *);
    cublasStatus_t (*Matmul)(cublasLtHandle_t, cublasLtMatmulDesc_t, const void *, const void *,
                             cublasLtMatrixLayout_t, const void *, cublasLtMatrixLayout_t,
                             const void *, const void *, cublasLtMatrixLayout_t, void *,
                             cublasLtMatrixLayout_t, const cublasLtMatmulAlgo_t *, void *, size_t,
                             cudaStream_t);
    const char *(*GetStatusString)(cublasStatus_t);
};

/* Loads the library of the major version that the build's headers are of; it stays loaded. */
int backend_cuda_lt_load(struct backend_cuda_lt *out, struct err *e);

/* Products on a device's queue. Of `g` it uses only the operations of gpu.h, none of the CUDA
 * runtime: memory for workspace and timing is taken once, here, and freed with g. */
struct backend_cuda_mm;
struct backend_cuda_mm *backend_cuda_mm_open(struct gpu *g, const struct backend_cuda_lt *lt,
                                             struct err *e);
/* Before g's memory goes; NULL is fine. hung: what would wait for the device is left behind. */
void backend_cuda_mm_close(struct backend_cuda_mm *m, bool hung);
int backend_cuda_mm_run(struct backend_cuda_mm *m, const struct gpu_mm *a, struct err *e);
/* Times the library's candidates and keeps the fastest for the shape. */
int backend_cuda_mm_plan(struct backend_cuda_mm *m, const struct gpu_mm *a, struct err *e);

#endif
