/* tests/fake_cudart.h - a CUDA runtime without a device, for backend_cuda_rt.c included after it.
 *
 * What is issued runs when the stream is queried and no longer busy, so reading or overwriting too
 * early shows. Any call can be made to fail. Memory is the host's. One kernel computes: add.
 * Builds with CUDA only. SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_FAKE_CUDART_H
#define TESTS_FAKE_CUDART_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* these stand for the device's own in the file that is included */
#define gpu_cuda_open        fake_gpu_open
#define gpu_cuda_count       fake_gpu_count
#define backend_cuda_kern    fake_kern
#define backend_cuda_lt_load fake_lt_load
#include "engine/backend_cuda.h"

struct fake_rt {
    /* the machine */
    cudaError_t count_rc; /* of cudaGetDeviceCount */
    int n_device, driver, major, minor;
    size_t memory_bytes;
    cudaError_t kernel_rc; /* of cudaFuncGetAttributes */
    int ptx;               /* what kernels were compiled for */
    /* what goes wrong */
    int fail_at; /* the n-th call fails; 0: none */
    cudaError_t fail_rc;
    cudaError_t run_rc; /* of what was issued: told at the next query and ever after */
    int busy;           /* queries until the stream is idle; -1: never */
    /* what happened */
    int calls, live, launched, graph_launches;
    size_t most; /* issued and not yet run */
    int early;   /* kernels that may come before the last one has ended */
    size_t used_bytes;
};
extern struct fake_rt fake_rt;

void fake_rt_reset(void); /* one GPU of compute capability 9.0, 1 GB */

#define FAKE_RT(X)                                                                                 \
    X(cudaGetDeviceCount, (int *n))                                                                \
    X(cudaDriverGetVersion, (int *v))                                                              \
    X(cudaRuntimeGetVersion, (int *v))                                                             \
    X(fake_properties, (struct cudaDeviceProp * p, int device))                                    \
    X(cudaDeviceGetAttribute, (int *v, enum cudaDeviceAttr what, int device))                      \
    X(cudaSetDevice, (int device))                                                                 \
    X(cudaMemGetInfo, (size_t * free_bytes, size_t * total))                                       \
    X(cudaMalloc, (void **p, size_t n))                                                            \
    X(cudaFree, (void *p))                                                                         \
    X(cudaHostAlloc, (void **p, size_t n, unsigned flags))                                         \
    X(cudaFreeHost, (void *p))                                                                     \
    X(cudaMemsetAsync, (void *p, int v, size_t n, cudaStream_t s))                                 \
    X(cudaMemcpyAsync,                                                                             \
      (void *to, const void *from, size_t n, enum cudaMemcpyKind kind, cudaStream_t s))            \
    X(cudaPointerGetAttributes, (struct cudaPointerAttributes * a, const void *p))                 \
    X(cudaFuncGetAttributes, (struct cudaFuncAttributes * a, const void *f))                       \
    X(cudaFuncSetAttribute, (const void *f, enum cudaFuncAttribute what, int v))                   \
    X(cudaLaunchKernelExC, (const cudaLaunchConfig_t *how, const void *f, void **args))            \
    X(cudaStreamCreateWithFlags, (cudaStream_t * s, unsigned flags))                               \
    X(cudaStreamDestroy, (cudaStream_t s))                                                         \
    X(cudaStreamQuery, (cudaStream_t s))                                                           \
    X(cudaStreamBeginCapture, (cudaStream_t s, enum cudaStreamCaptureMode mode))                   \
    X(cudaStreamEndCapture, (cudaStream_t s, cudaGraph_t * g))                                     \
    X(cudaGraphInstantiateWithFlags,                                                               \
      (cudaGraphExec_t * x, cudaGraph_t g, unsigned long long flags))                              \
    X(cudaGraphUpload, (cudaGraphExec_t x, cudaStream_t s))                                        \
    X(cudaGraphLaunch, (cudaGraphExec_t x, cudaStream_t s))                                        \
    X(cudaGraphDestroy, (cudaGraph_t g))                                                           \
    X(cudaGraphExecDestroy, (cudaGraphExec_t x))                                                   \
    X(cudaEventCreate, (cudaEvent_t * ev))                                                         \
    X(cudaEventCreateWithFlags, (cudaEvent_t * ev, unsigned flags))                                \
    X(cudaEventQuery, (cudaEvent_t ev))                                                            \
    X(cudaEventDestroy, (cudaEvent_t ev))                                                          \
    X(cudaEventRecord, (cudaEvent_t ev, cudaStream_t s))                                           \
    X(cudaEventElapsedTime, (float *ms, cudaEvent_t from, cudaEvent_t to))
#define FAKE_PROTOTYPE(name_, args_) cudaError_t fake_##name_ args_;
FAKE_RT(FAKE_PROTOTYPE)
#undef FAKE_PROTOTYPE

#ifndef FAKE_CUDART_ITSELF
#undef cudaGetDeviceProperties
#define cudaGetDeviceProperties       fake_fake_properties
#define cudaGetDeviceCount            fake_cudaGetDeviceCount
#define cudaDriverGetVersion          fake_cudaDriverGetVersion
#define cudaRuntimeGetVersion         fake_cudaRuntimeGetVersion
#define cudaDeviceGetAttribute        fake_cudaDeviceGetAttribute
#define cudaSetDevice                 fake_cudaSetDevice
#define cudaMemGetInfo                fake_cudaMemGetInfo
#define cudaMalloc                    fake_cudaMalloc
#define cudaFree                      fake_cudaFree
#define cudaHostAlloc                 fake_cudaHostAlloc
#define cudaFreeHost                  fake_cudaFreeHost
#define cudaMemsetAsync               fake_cudaMemsetAsync
#define cudaMemcpyAsync               fake_cudaMemcpyAsync
#define cudaPointerGetAttributes      fake_cudaPointerGetAttributes
#define cudaFuncGetAttributes         fake_cudaFuncGetAttributes
#define cudaFuncSetAttribute          fake_cudaFuncSetAttribute
#define cudaLaunchKernelExC           fake_cudaLaunchKernelExC
#define cudaStreamCreateWithFlags     fake_cudaStreamCreateWithFlags
#define cudaStreamDestroy             fake_cudaStreamDestroy
#define cudaStreamQuery               fake_cudaStreamQuery
#define cudaStreamBeginCapture        fake_cudaStreamBeginCapture
#define cudaStreamEndCapture          fake_cudaStreamEndCapture
#define cudaGraphInstantiateWithFlags fake_cudaGraphInstantiateWithFlags
#define cudaGraphUpload               fake_cudaGraphUpload
#define cudaGraphLaunch               fake_cudaGraphLaunch
#define cudaGraphDestroy              fake_cudaGraphDestroy
#define cudaGraphExecDestroy          fake_cudaGraphExecDestroy
#define cudaEventCreate               fake_cudaEventCreate
#define cudaEventCreateWithFlags      fake_cudaEventCreateWithFlags
#define cudaEventQuery                fake_cudaEventQuery
#define cudaEventDestroy              fake_cudaEventDestroy
#define cudaEventRecord               fake_cudaEventRecord
#define cudaEventElapsedTime          fake_cudaEventElapsedTime
#endif

#endif
