/* tests/gpu_fibre.h - one block of a GPU kernel on the CPU: each of its threads is a fibre.
 *
 * Threads take turns and are switched only where they meet (engine/gpu_block_host.h). In which order
 * they run between two meetings is chosen: a kernel that lacks a barrier computes something else in
 * one of the orders. What a block can do wrong fails with the kernel's name and the thread: one that
 * ends while others wait, lanes of a warp at different meetings, a 16-byte access that is not
 * aligned. One runner serves one host thread at a time. SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_GPU_FIBRE_H
#define TESTS_GPU_FIBRE_H

#include <stdint.h>

#include "base/err.h"

enum { GPU_FIBRE_FORWARD, GPU_FIBRE_REVERSE }; /* any other number: shuffled anew, seeded by it */

struct gpu_fibre_block {
    const char *name;
    void (*fn)(const void *args, char *shared);
    const void *args;
    char *shared; /* a multiple of 16 */
    int32_t threads, x, y, z, n_x, sm;
    uint64_t order;
};

struct gpu_fibre;
struct gpu_fibre *gpu_fibre_new(struct err *e);
void gpu_fibre_free(struct gpu_fibre *f);
/* To its end. ST_DEVICE: it cannot end; f can only be freed. */
int gpu_fibre_run(struct gpu_fibre *f, const struct gpu_fibre_block *b, struct err *e);

#endif
