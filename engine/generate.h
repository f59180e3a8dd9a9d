/* engine/generate.h - one prompt continued by a running model.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_GENERATE_H
#define ENGINE_GENERATE_H

#include "engine/comm_sum.h"

struct generate_opts {
    struct engine_opts e; /* sizes of steps, KV and tables are filled in */
    const int32_t *prompt;
    int32_t n_prompt, max_new;
    int32_t chunk; /* prompt tokens of a step at most */
    float temperature, top_p;
    int32_t top_k;
    uint64_t seed; /* of sampling */
};

struct generate_result {
    int32_t *tok; /* [max_new]; generate_release frees */
    float
        *logits; /* [max_new][vocab] with e.logits, of the position before each token; else NULL */
    int32_t vocab;
    double load_s, prefill_s, decode_s; /* decode: of the max_new - 1 tokens after the first */
    int64_t weight_bytes, kv_bytes, read_bytes; /* over all ranks */
    struct comm_count allreduce;                /* summed over ranks; max_ns the largest */
    struct comm_sum comm;                       /* every call, summed over ranks */
    const char *kernels;
};

/* Errors: ST_USAGE for wrong input, all of it found before the model is loaded, ST_DEVICE, ST_IO.
 * ST_STOPPED on Ctrl-C, between steps. */
int generate_run(const struct generate_opts *o, struct generate_result *r, struct err *e);
void generate_release(struct generate_result *r);

#endif
