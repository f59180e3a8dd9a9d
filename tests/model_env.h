/* tests/model_env.h - models, hardware and random configurations that the model tests share.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_MODEL_ENV_H
#define TESTS_MODEL_ENV_H

#include <stdio.h>

#include "base/arena.h"
#include "base/rng.h"
#include "model/hw.h"
#include "model/profile.h"
#include "model/step.h"
#include "model/strategy.h"
#include "tests/test.h"

/* Published shapes: Llama 3 8B and 70B, Qwen3 32B, Falcon 7B-like, Mixtral 8x7B. */
static const struct arch env_llama70 = { .name = "llama-3-70b",
                                         .family = ARCH_LLAMA,
                                         .n_layer = 80,
                                         .hidden = 8192,
                                         .n_head = 64,
                                         .n_kv_head = 8,
                                         .head_dim = 128,
                                         .ffn = 28672,
                                         .gated_mlp = true,
                                         .vocab = 128256,
                                         .max_ctx = 8192,
                                         .n_norm_layer = 2 };
static const struct arch env_llama8 = { .name = "llama-3-8b",
                                        .family = ARCH_LLAMA,
                                        .n_layer = 32,
                                        .hidden = 4096,
                                        .n_head = 32,
                                        .n_kv_head = 8,
                                        .head_dim = 128,
                                        .ffn = 14336,
                                        .gated_mlp = true,
                                        .vocab = 128256,
                                        .max_ctx = 131072,
                                        .n_norm_layer = 2 };
static const struct arch env_qwen32 = { .name = "qwen3-32b",
                                        .family = ARCH_QWEN3,
                                        .n_layer = 64,
                                        .hidden = 5120,
                                        .n_head = 64,
                                        .n_kv_head = 8,
                                        .head_dim = 128,
                                        .ffn = 25600,
                                        .gated_mlp = true,
                                        .vocab = 151936,
                                        .max_ctx = 40960,
                                        .qk_norm = true,
                                        .n_norm_layer = 2 };
static const struct arch env_falcon7 = { .name = "falcon-7b",
                                         .family = ARCH_FALCON,
                                         .n_layer = 32,
                                         .hidden = 4544,
                                         .n_head = 71,
                                         .n_kv_head = 1,
                                         .head_dim = 64,
                                         .ffn = 18176,
                                         .vocab = 65024,
                                         .max_ctx = 2048,
                                         .parallel_attn = true,
                                         .layer_norm = true,
                                         .n_norm_layer = 1 };
static const struct arch env_mixtral = { .name = "mixtral-8x7b",
                                         .family = ARCH_MIXTRAL,
                                         .n_layer = 32,
                                         .hidden = 4096,
                                         .n_head = 32,
                                         .n_kv_head = 8,
                                         .head_dim = 128,
                                         .ffn = 14336,
                                         .gated_mlp = true,
                                         .vocab = 32000,
                                         .max_ctx = 32768,
                                         .sliding_window = 4096,
                                         .n_norm_layer = 2,
                                         .n_expert = 8,
                                         .top_k = 2 };

struct env {
    struct arena a;
    struct err e;
    struct arch arch;
    struct hw hw;
    struct strategy strategy;
    struct profile profile;
    struct table *table;
    struct step_stage stage[4];
    struct step_setup setup;
    struct step *step;
};

/* One stage of tp ranks of a system, engine vllm, bf16; then env_prepare builds the tables. */
static inline int env_init(struct env *v, const struct arch *arch, const char *system, int tp)
{
    memset(v, 0, sizeof *v);
    arena_init(&v->a);
    v->arch = *arch;
    v->strategy = (struct strategy){ .tp = tp,
                                     .pp = 1,
                                     .dp = 1,
                                     .ep = 1,
                                     .weight_dtype = DT_BF16,
                                     .kv_dtype = DT_BF16,
                                     .split = "equal" };
    int st = hw_load(system, NULL, 1, &v->a, &v->hw, &v->e);
    if (st == ST_OK)
        st = profile_load(&v->hw, &v->strategy, "vllm", NULL, &v->a, &v->profile, &v->e);
    v->stage[0] =
        (struct step_stage){ .n_layer = arch->n_layer, .has_embed = true, .has_head = true };
    v->setup = (struct step_setup){ .arch = &v->arch,
                                    .hw = &v->hw,
                                    .strategy = &v->strategy,
                                    .profile = &v->profile,
                                    .stage = v->stage,
                                    .n_stage = 1,
                                    .max_batch_tok = 2048,
                                    .max_seqs = 256 };
    return st;
}

static inline int env_prepare(struct env *v)
{
    v->setup.table = v->table;
    return step_prepare(&v->setup, &v->a, &v->step, &v->e);
}

static inline void env_release(struct env *v)
{
    arena_release(&v->a);
}

static inline double env_s(int64_t fp)
{
    return (double)fp / (double)((int64_t)1 << STEP_FP_BITS) * 1e-9;
}

#endif
