/* tests/gpu_env.h - engines on GPUs that the CPU plays (gpu_host.h) or real ones, and models: those of
 * tests/golden/engine widened to heads of 32 and more, which the kernels want, their weights drawn.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_GPU_ENV_H
#define TESTS_GPU_ENV_H

#include "engine/engine.h"
#include "tests/gpu_host.h"

enum { GPU_ENV_DEVICES = 8, GPU_ENV_VOCAB = 128, GPU_ENV_PER_SEQ = 8 };

extern struct gpu_host_opts gpu_env_opts;        /* of devices that are opened */
extern struct gpu *gpu_env_gpu[GPU_ENV_DEVICES]; /* the last one opened of each index */

/* From here on this test opens GPU 0 in place of those, where $ORRERY_TEST_GPU is "cuda": true. Not
 * for tests that make devices fail or count their calls. sm: what the test needs, 0: any; the CPU
 * plays such a one, and where the real one is older the test is skipped. */
bool gpu_env_real(int sm);

/* gpu_env_gpu[index] is NULL of a real one. */
struct gpu *gpu_env_open(int index, struct err *e);
int gpu_env_count(struct err *e);
struct engine_opts gpu_env_on(struct engine_opts o);

/* A directory whose config.json is that of a golden model with heads `dim` wide and two layers.
 * long_ctx: with two heads and such a context; 0: as it is. */
const char *gpu_env_model_of(const char *name, int dim, int long_ctx);
const char *gpu_env_model(const char *name, int dim);
struct engine_opts gpu_env_drawn(const char *dir, int tp, int pp); /* f32, on the CPU */
/* On GPUs, with room for 16 sequences of 64 tokens. */
struct engine_opts gpu_env_many(struct engine_opts o);
/* n sequences of one more token each, at pos; they have blocks of their own. */
int gpu_env_decode(struct engine *g, int n, int pos, struct engine_result *r, struct err *e);

#endif
