/* engine/backend_gpu.h - backend.h over the device table of gpu.h: one rank's GPU.
 *
 * Weights are f32, bf16, f16 or fp8, matrices row-major [n][k]; KV caches f32, bf16 or f16. Activations
 * are f32, and what 16-bit products read is a 16-bit image of them that the kernel which makes an
 * activation writes beside it (inside of a step instead of it, where all matrices are of one such
 * type). fp8 products divide their input by its largest value first, at run time.
 *
 * A step's arrays go to the device in one copy. Steps of single tokens are rounded up in number
 * (backend_gpu_round), and from the second of a count and a split on they are a recording's replay:
 * a copy, a call and a wait. SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_BACKEND_GPU_H
#define ENGINE_BACKEND_GPU_H

#include "engine/backend.h"
#include "engine/gpu.h"

enum { BACKEND_GPU_MAX_RECORD = 512 }; /* most sequences of a recorded step */

struct team;
/* Owns g from now on, also when it fails. t: converts weights, may be NULL. */
struct backend *backend_gpu_open(struct gpu *g, struct team *t, struct err *e);
struct gpu *backend_gpu_device(struct backend *b);

/* The sequences of the recording that n run in, where `most` is the largest: 1, 2, 4, 8, then
 * multiples of 8, then `most`. 0: none. */
int32_t backend_gpu_round(int32_t n, int32_t most);

struct backend_gpu_count {
    int64_t steps, replays, records; /* records: how many recordings there are */
};
struct backend_gpu_count backend_gpu_counts(const struct backend *b);

#endif
