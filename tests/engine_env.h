/* tests/engine_env.h - tiny checkpoints, what an independent implementation says of them, and a
 * driver that runs prompts through the engine.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_ENGINE_ENV_H
#define TESTS_ENGINE_ENV_H

#include "base/arena.h"
#include "engine/engine.h"

enum { ENGINE_PROMPTS = 3, ENGINE_GREEDY = 16, ENGINE_BLOCK = 8, ENGINE_CASES = 10 };
extern const char *const engine_case[ENGINE_CASES]; /* directories under tests/golden/engine */

/* Expected values of one case, made by tests/golden/engine/make.py with transformers in float32. */
struct engine_expect {
    int n_prompt[ENGINE_PROMPTS];
    int32_t prompt[ENGINE_PROMPTS][64];
    int32_t greedy[ENGINE_PROMPTS][ENGINE_GREEDY];
    float *logits[ENGINE_PROMPTS]; /* [n_prompt][vocab] */
    int vocab;
};
bool engine_expect_read(const char *dir, struct arena *a, struct engine_expect *x, struct err *e);

struct engine_opts engine_env_opts(const char *dir, int tp, int pp);

/* Prompt i in chunks of `chunk` tokens: logits of every position to `logits` [n][vocab] (may be
 * NULL), then greedy tokens to out. The engine needs opts.logits. */
int engine_env_run(struct engine *g, const struct engine_expect *x, int i, int chunk, float *logits,
                   int32_t *out, struct err *e);

/* The largest over rows of max |a - b| / max |b|. */
double engine_env_miss(const float *a, const float *b, int rows, int n);

#endif
