/* tests/gpu_host_kern.h - the kernels as functions of the host, and where their pointers are.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_GPU_HOST_KERN_H
#define TESTS_GPU_HOST_KERN_H

#include "engine/gpu_kern.h"

typedef void (*gpu_host_kern_fn)(const void *args, char *shared);
gpu_host_kern_fn gpu_host_kern(enum gpu_kern k);

struct gpu_host_pointer {
    enum gpu_kern k;
    size_t at; /* in its arguments */
    const char *name;
};
/* The i-th of all kernels' pointer arguments, by kernel; NULL: no more. */
const struct gpu_host_pointer *gpu_host_pointer(int i);

#endif
