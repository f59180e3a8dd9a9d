/* engine/nccl_api.h - what is used of NCCL and of the CUDA driver, as one table found at run time.
 *
 * The prototypes are declared here, after NCCL's and the driver's documented ABI, so that this
 * compiles in every build and the program starts without either library. Handles are pointers,
 * enums are int (as the C ABI has them), values below are those of nccl.h and cuda.h. Streams and
 * events are the driver's: libcuda.so.1 comes with every driver and keeps its ABI, where the
 * runtime's file name changes with each major version and may be linked statically; a CUstream is a
 * cudaStream_t. SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_NCCL_API_H
#define ENGINE_NCCL_API_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { /* ncclResult_t */
       NCCL_API_OK = 0,
       NCCL_API_SYSTEM = 2,
       NCCL_API_REMOTE = 6,
       NCCL_API_IN_PROGRESS = 7
};
enum { NCCL_API_UINT8 = 1, NCCL_API_F32 = 7 };            /* ncclDataType_t */
enum { NCCL_API_SUM = 0 };                                /* ncclRedOp_t */
enum { NCCL_API_MIN_VERSION = 21400 };                    /* communicators that do not block */
enum { NCCL_API_MULTI_RANK_VERSION = 23000 };             /* knows NCCL_MULTI_RANK_GPU_ENABLE */
enum { NCCL_API_CU_OK = 0, NCCL_API_CU_NOT_READY = 600 }; /* CUresult */
enum { NCCL_API_CU_STREAM_NON_BLOCKING = 1, NCCL_API_CU_EVENT_NO_TIMING = 2 };

struct nccl_id { /* ncclUniqueId */
    char bytes[128];
};
struct nccl_comm; /* what an ncclComm_t points to */

/* ncclConfig_t as it was in 2.14. Later libraries read no further than `size`, and take what came
 * after `version` from their defaults. */
struct nccl_config {
    size_t size;
    unsigned magic, version;
    int blocking, unused;
};
#define NCCL_API_CONFIG                                                                            \
    {                                                                                              \
        sizeof(struct nccl_config), 0xcafebeefU, NCCL_API_MIN_VERSION, 0, 0                        \
    }

struct nccl_api {
    int (*version)(int *code);
    int (*unique_id)(struct nccl_id *id);
    int (*init)(struct nccl_comm **c, int n, struct nccl_id id, int rank, struct nccl_config *g);
    int (*finalize)(struct nccl_comm *c);
    int (*destroy)(struct nccl_comm *c);
    int (*abort)(struct nccl_comm *c);
    int (*async_error)(struct nccl_comm *c, int *result);
    const char *(*error_string)(int result);
    const char *(*last_error)(struct nccl_comm *c);
    int (*all_reduce)(const void *in, void *out, size_t n, int type, int op, struct nccl_comm *c,
                      void *stream);
    int (*all_gather)(const void *in, void *out, size_t n, int type, struct nccl_comm *c,
                      void *stream);
    int (*broadcast)(const void *in, void *out, size_t n, int type, int root, struct nccl_comm *c,
                     void *stream);
    int (*send)(const void *in, size_t n, int type, int to, struct nccl_comm *c, void *stream);
    int (*recv)(void *out, size_t n, int type, int from, struct nccl_comm *c, void *stream);

    /* of the current context, which gpu_cuda_open has made current on its thread */
    int (*stream_priorities)(int *least, int *greatest);
    int (*stream_new)(void **stream, unsigned flags, int priority);
    int (*stream_free)(void *stream);
    int (*stream_wait)(void *stream, void *event, unsigned flags);
    int (*event_new)(void **event, unsigned flags);
    int (*event_free)(void *event);
    int (*event_record)(void *event, void *stream);
    int (*event_query)(void *event);
    int (*cu_error)(int result, const char **text);
};

/* libnccl.so.2, or the file that $ORRERY_NCCL names; then the driver. Both stay loaded. Errors:
 * ST_USAGE with what is missing or too old. */
int nccl_api_load(struct nccl_api *a, struct err *e);
/* ST_USAGE for a version below 2.14; *code, which may be NULL, as ncclGetVersion has it. */
int nccl_api_check(const struct nccl_api *a, int *code, struct err *e);

/* Time, for those who wait; a test has its own. */
struct nccl_clock {
    int64_t (*now_ns)(void *arg);
    void (*nap)(void *arg, int64_t ns);
    void *arg;
};
extern const struct nccl_clock nccl_clock_real;

#endif
