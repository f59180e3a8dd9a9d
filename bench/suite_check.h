/* bench/suite_check.h - a backend that compares what the running engine computes with references.
 *
 * It lies between the one that keeps time and the one that computes, and is on in steps that are not
 * counted; off, an operation costs one more call. Of each part of a step it looks at one layer, drawn
 * by the step's seed, there at a few rows and a few drawn values, against the same in double from the
 * operation's own inputs:
 *   products   8 columns, whose weights were kept as they came; of int8, by the weights before
 *   embed      the values of two tokens, int8 to half a step of their group; zeros elsewhere
 *   attn       one head of one sequence over all it sees, from a copy of the keys and values of one
 *              KV head of the first layer; so kv_put is seen too
 *   norms, rope, act, add, bias    a row, or values, from copies of what was there before
 * and keeps what only several ranks know together: partial sums and what came of them, the residual
 * stream at both ends of a stage, the largest logits.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_SUITE_CHECK_H
#define BENCH_SUITE_CHECK_H

#include "engine/backend_timed.h"
#include "engine/engine.h"

enum { SUITE_CHECK_VALUES = 8, SUITE_CHECK_SUMS = 8, SUITE_CHECK_TOPS = 8 };

struct suite_check_sum { /* values of a rank before and after a sum over ranks */
    float own[SUITE_CHECK_VALUES], sum[SUITE_CHECK_VALUES];
};
struct suite_check_top { /* of a row of this rank's logits, the first largest one */
    float logit;
    int32_t column;
};
struct suite_check_seen {
    double error[BACKEND_TIMED_N_PART]; /* worst, as a share of the largest reference; -1: none */
    struct suite_check_sum sum[SUITE_CHECK_SUMS];
    struct suite_check_top top[SUITE_CHECK_TOPS];
    int n_sum, n_top;
    float first[SUITE_CHECK_VALUES], last[SUITE_CHECK_VALUES]; /* of the residual stream */
    bool has_first, has_last;
};

/* What computes: for the engines that are opened from now on. NULL: backend_cpu_open. */
void suite_check_use(engine_backend_fn compute);
/* An engine_backend_fn: backend_timed_open with this in between, which is on. */
struct backend *suite_check_open(struct team *t, const char *kernels, struct err *e);
bool suite_check_is(const struct backend *b); /* b: as suite_check_open gave it, or any other */
/* Both from the driver's thread while no step is under way. On: forgets what was seen. */
void suite_check_set(struct backend *b, bool on, uint64_t seed);
const struct suite_check_seen *suite_check_read(const struct backend *b);

/* The worst of all ranks in this process, of a step of which `tok` came; -1: not looked at. */
struct suite_check_all {
    double part[BACKEND_TIMED_N_PART];
    double sum, send; /* over tp ranks; from a stage to the next one */
    double token;     /* 0, or 1: not the column of the largest logit of all shares */
};
void suite_check_all(const struct engine *g, int tp, int pp, const struct engine_result *got,
                     struct suite_check_all *out);
/* Of all ranks in this process that have one. */
void suite_check_set_all(const struct engine *g, bool on, uint64_t seed);

#endif
