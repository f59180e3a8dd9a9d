/* engine/need.h - checked before a rank starts: that the memory is there, and that a checkpoint holds
 * what its config.json describes. SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_NEED_H
#define ENGINE_NEED_H

#include "engine/model.h"

/* Weights and KV cache of the whole model, in bytes. */
double need_weight_bytes(const struct spec *s, const struct model_opts *o);
double need_kv_bytes(const struct spec *s, const struct model_opts *o);

/* What a rank on a GPU takes besides, in bytes: the rows of a step, their images, what plans write,
 * angles, staging; of a TP rank rather more than it does. Beyond that an allowance for what drivers
 * take when something is used first: the code of products, recordings, shares of split attention. */
double need_device_step_bytes(const struct spec *s, const struct model_opts *o);
#define NEED_DEVICE_LATER_BYTES (512.0 * 1024 * 1024)

/* ST_USAGE when these and the rows of a step exceed the memory that this machine can give (MemAvailable
 * of /proc/meminfo; unknown: passes). share: of the model that is held here, 0..1;
 * above 1: so many replicas of it. */
int need_memory(const struct spec *s, const struct model_opts *o, double share, struct err *e);

/* ST_USAGE when a rank's share of weights and KV cache is more than a GPU has free. */
struct gpu_info;
int need_device(const struct spec *s, const struct model_opts *o, double share,
                const struct gpu_info *gpu, struct err *e);

/* ST_USAGE when the checkpoint holds more numbers than the architecture has: then config.json is of
 * another model. Left out: a stored copy of a tied head, and the rotary frequencies of older files.
 * (What is missing is found, and named, when it is fetched.) */
int need_parameters(const struct spec *s, const struct weights *w, struct err *e);

#endif
