/* tests/gpu_host.h - a GPU (engine/gpu.h) on the CPU, as strict as a device could be.
 *
 * Its kernels are the device's own, run block by block (tests/gpu_fibre.h); products are plain loops
 * with f64 sums. What it refuses or breaks on purpose:
 *   - Nothing that is issued runs before wait or event_wait: results read, or pinned memory written, too early
 *     are wrong here every time.
 *   - Device memory cannot be touched by the host outside wait: the program ends with SIGSEGV.
 *   - Between allocations lie guard bytes (NaN), checked at close (which aborts), at every
 *     wait if asked for, and by gpu_host_check. ASan sees the very access.
 *   - Pointers given to kernels, products, put and get have to lie in memory of this device.
 *   - Shared memory is 0xff (NaN) before each block, and guarded too.
 *   - While recording: no alloc, wait, plan, events, unplanned mm, put from unpinned memory.
 *   - After the first ST_DEVICE every call fails; only close is left.
 * Events count operations: event_ns is how many were run between two. There is no queue: NULL.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_GPU_HOST_H
#define TESTS_GPU_HOST_H

#include "engine/gpu.h"

enum gpu_host_call {
    GPU_HOST_ALLOC,
    GPU_HOST_ALLOC_PINNED,
    GPU_HOST_PUT,
    GPU_HOST_GET,
    GPU_HOST_LAUNCH,
    GPU_HOST_MM,
    GPU_HOST_PLAN,
    GPU_HOST_WAIT,
    GPU_HOST_RECORD,
    GPU_HOST_RECORDED,
    GPU_HOST_GRAPH_LAUNCH,
    GPU_HOST_EVENT_NEW,
    GPU_HOST_EVENT_SET,
    GPU_HOST_EVENT_NS,
    GPU_HOST_EVENT_WAIT,
    GPU_HOST_RUN, /* no call, but an operation that fails while wait runs it */
    GPU_HOST_N_CALL
};

/* Zeros are the defaults. */
struct gpu_host_opts {
    int sm;               /* 80; says which types mm takes, and how much shared memory there is */
    int n_sm;             /* 8 */
    int64_t memory_bytes; /* 1 GiB */
    uint64_t order;       /* of threads and blocks, see gpu_fibre.h; 0: $ORRERY_TEST_GPU_ORDER */
    bool check_each_wait; /* guard bytes */
    int64_t fail_at[GPU_HOST_N_CALL]; /* the n-th call of that kind (1: the first) fails; 0: none */
};

/* What happened since open: calls that were made, kernels that were run (replayed ones too). */
struct gpu_host_tally {
    int64_t call[GPU_HOST_N_CALL];
    int64_t kern[GPU_N_KERN];
    int64_t device_bytes, pinned_bytes; /* allocated */
    int64_t planned;                    /* shapes of products that plan or mm was called with */
};

/* opts NULL: defaults. Closed by ops->close. */
struct gpu *gpu_host_open(const struct gpu_host_opts *opts, struct err *e);
/* The same, or with ORRERY_TEST_GPU=cuda the machine's own GPU 0, for tests that suit both. */
struct gpu *gpu_host_or_cuda(const struct gpu_host_opts *opts, struct err *e);
const struct gpu_host_tally *gpu_host_tally(const struct gpu *g);
/* From now on, the n-th call of that kind (1: the next) fails; 0: none. */
void gpu_host_fail(struct gpu *g, enum gpu_host_call what, int64_t n);
void gpu_host_order(struct gpu *g, uint64_t order);
/* The guard bytes. ST_DEVICE: something wrote past the end of an allocation. */
int gpu_host_check(struct gpu *g, struct err *e);

#endif
