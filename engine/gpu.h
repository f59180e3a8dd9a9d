/* engine/gpu.h - a GPU as its backend sees it: memory, a queue of kernels and products, recordings.
 *
 * Everything issued goes to one queue and runs in order, behind the caller; only `wait` and
 * `event_wait` wait for it, and launches that are some hundred ahead of it. Nothing is read or
 * written by the host between issue and wait but pinned memory that is not part of a copy under way.
 * Every call that can fail returns a status and names file, line and what the driver said; after
 * ST_DEVICE the device can only be closed, but for memory that ran out. A wait ends with an error
 * after 25 s, or after $ORRERY_GPU_TIMEOUT_S.
 * Implementations: backend_cuda_rt.c (the CUDA runtime, cuBLASLt, the kernels); tests/gpu_host.c runs the same
 * kernels' thread blocks on the CPU. SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_GPU_H
#define ENGINE_GPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/gpu_kern.h"

struct gpu_info {
    char name[64];
    int sm; /* compute capability, 10 * major + minor: 75, 80, 86, 89, 90, 100 ... */
    int n_sm;
    int max_shared_bytes; /* that a block may ask for */
    int64_t l2_bytes, memory_bytes, free_bytes;
    int driver, runtime; /* CUDA versions as 1000 * major + 10 * minor; 0: not CUDA */
    char bus_id[24];     /* on PCI, "00000000:3b:00.0"; "": unknown */
};

struct gpu_dim {
    int32_t x, y, z; /* blocks */
    int32_t threads; /* of a block: a multiple of 32, up to the kernel's bound */
    int32_t shared_bytes;
};

/* y[m][n] = alpha * x[m][k] . w[n][k]^T, f32 accumulation; rows without gaps. Operand types as in
 * gpu_kern.h: x and w of one type of F32, BF16, F16, E4M3; y F32. With E4M3, x and w were divided by
 * the scales that x_scale[1] and w_scale (one of the matrix) hold in device memory, and the result
 * is multiplied by both. F32 is true f32, not TF32. */
struct gpu_mm {
    const void *x, *w;
    float *y;
    enum gpu_elt type;
    int32_t m, n, k;
    const float *x_scale, *w_scale; /* E4M3 only */
};

struct gpu_graph; /* what was issued between record and recorded, to be replayed */
struct gpu_event;

struct gpu {
    const struct gpu_ops *ops;
    struct gpu_info info;
};

struct gpu_ops {
    const char *name;
    void (*close)(struct gpu *g); /* with all that it has allocated */

    /* Device memory, zeroed. Errors: ST_DEVICE with what was asked and what is free. */
    int (*alloc)(struct gpu *g, size_t bytes, void **out, struct err *e);
    /* Host memory that copies need not stage. */
    int (*alloc_pinned)(struct gpu *g, size_t bytes, void **out, struct err *e);
    /* Issued; either side may be device or pinned memory. Unpinned host memory is copied before the
     * call returns (put) or needs a wait (get). */
    int (*put)(struct gpu *g, void *to, const void *from, size_t bytes, struct err *e);
    int (*get)(struct gpu *g, void *to, const void *from, size_t bytes, struct err *e);
    int (*launch)(struct gpu *g, enum gpu_kern k, const struct gpu_dim *dim, const void *args,
                  struct err *e);
    /* By the algorithm that plan chose for the shape, else for the same matrix with the next more rows
     * that plan was called with, else by the library's first guess. */
    int (*mm)(struct gpu *g, const struct gpu_mm *a, struct err *e);
    /* Times the library's algorithms, which takes long and waits, and keeps the fastest for the type
     * and shape. What y points to is overwritten; x, w and y NULL: large shapes are not timed. */
    int (*plan)(struct gpu *g, const struct gpu_mm *a, struct err *e);
    int (*wait)(struct gpu *g, struct err *e);

    /* All between the two is recorded and not run; then graph_launch issues it any number of times
     * with one call. Pointers and sizes are those of the recording. No alloc, wait or unplanned mm
     * in between. */
    int (*record)(struct gpu *g, struct err *e);
    int (*recorded)(struct gpu *g, struct gpu_graph **out, struct err *e);
    int (*graph_launch)(struct gpu *g, struct gpu_graph *graph, struct err *e);
    void (*graph_free)(struct gpu *g, struct gpu_graph *graph);

    /* For measuring: times at which the queue passed the events, ns between them after a wait. */
    int (*event_new)(struct gpu *g, struct gpu_event **out, struct err *e);
    int (*event_set)(struct gpu *g, struct gpu_event *ev, struct err *e);
    int (*event_ns)(struct gpu *g, const struct gpu_event *from, const struct gpu_event *to,
                    double *ns, struct err *e);
    /* Until the queue has passed the event; at once when it was never set. */
    int (*event_wait)(struct gpu *g, const struct gpu_event *ev, struct err *e);
    /* While the device waits, in whatever call, it asks fn each ms whether to go on, after how long;
     * an error of fn ends the wait and stays the device's. fn NULL: no more. NULL: it asks nobody. */
    void (*watch)(struct gpu *g, int (*fn)(void *arg, int64_t waited_ns, struct err *e), void *arg);
    /* The queue itself (a cudaStream_t) for a communicator that issues to it; NULL: none. */
    void *(*queue)(struct gpu *g);
};

/* Device `index` of those visible. NULL, with a sentence that says what is missing (built without
 * CUDA, no driver, driver too old for the runtime, no such device, compute capability below 7.5). */
struct gpu *gpu_cuda_open(int index, struct err *e);
/* How many devices are visible, 0 with a sentence when none can be used. */
int gpu_cuda_count(struct err *e);

#endif
