/* engine/model.h - one rank's shard of a model, and its forward pass.
 *
 * Weights live in the backend; q, k and v are one matrix, so are gate and up. Row-parallel matrices
 * (attention output, MLP down) give partial sums that an all-reduce over the tp ranks adds: two a
 * layer, one where attention and MLP run in parallel. Embedding and head are split by vocabulary.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_MODEL_H
#define ENGINE_MODEL_H

#include "engine/backend.h"
#include "engine/comm.h"
#include "engine/exchange.h"
#include "engine/shard.h"
#include "engine/spec.h"
#include "engine/weights.h"

#define MODEL_WEIGHT_WORDS "auto f32 bf16 int8 f16 fp8 fp8_tensor"
enum model_weight {
    MODEL_AUTO,
    MODEL_F32,
    MODEL_BF16,
    MODEL_INT8,
    MODEL_F16,
    MODEL_FP8,
    MODEL_FP8_TENSOR
};

struct model_opts {
    /* auto: bf16 checkpoints stay bf16, f16 ones f16 where the backend takes it, others become f32 */
    enum model_weight weight;
    enum backend_type kv; /* f32, bf16 or f16 */
    int32_t n_block, block_tok;
    int32_t max_tok; /* rows of a step */
    int32_t max_out; /* rows of a step whose logits are wanted */
    int32_t max_ctx; /* positions */
};

struct model_layer {
    struct backend_norm norm_attn, norm_mlp; /* of parallel layers with one norm, the first */
    struct backend_norm norm_q, norm_k;      /* weight NULL: none */
    struct backend_mat *qkv, *o, *up, *down; /* up: gate rows, then up rows, where gated */
    float *qkv_bias, *o_bias, *up_bias, *down_bias; /* NULL: none */
    struct backend_kv *kv;
};

struct model {
    const struct spec *spec;
    struct shard s;
    struct model_opts o;
    struct backend *b;
    struct comm *tp, *pipe; /* pipe: to the stages before and behind; may be NULL */
    struct comm *world;     /* looked at while weights are loaded: has a rank failed? May be NULL */
    struct team *team;      /* threads that draw or read weights; NULL: the caller alone */
    int32_t max_table;      /* block numbers of a step */
    int32_t depth;          /* steps in flight */
    bool tokens; /* the device makes tokens of the logits, on the last stage's first rank */
    struct exchange ranks;
    struct model_layer *layer; /* [s.n_layer] */
    struct backend_mat *embed, *head;
    struct backend_norm norm;
    float *cs; /* [max_ctx][2][head_dim / 2] */
    float *x, *h, *qkv, *att, *up, *act, *pick, *logits;
    float *out;           /* [model_sum_floats]: a rank's share of what is summed over tp */
    float *shares, *rows; /* with tokens and tp > 1: [tp][max_out][s.n_vocab], [max_out][vocab] */
    int64_t weight_bytes, kv_bytes, read_bytes; /* read_bytes: of the checkpoint */
    double load_s;
};

/* That the checkpoint has all tensors of the model, in their shapes and a dtype that can be run, looked
 * at in one order however the model is divided. Random weights pass. Errors: ST_USAGE, one sentence
 * that names the first tensor that does not fit. */
int model_check(const struct spec *spec, const struct weights *w, struct err *e);
/* Loads the shard. The backend must be fresh; it owns all memory, so there is no release but its
 * close and model_release for the little that is on the host. Errors: those of weights_fetch; out of
 * memory. m keeps spec, b, tp and pipe. What is loaded does not depend on the number of threads. */
int model_load(struct model *m, const struct weights *w, struct err *e);
void model_release(struct model *m);
/* Once, between load and the first step: what steps would else stop for. Errors: the backend's. */
int model_prepare(struct model *m, struct err *e);

/* The stage's part of a step. x [n_tok][hidden] is m->x: read unless this is the first stage, written
 * for the next one; on the last stage logits [n_out][s.n_vocab] of this rank are in m->logits, and with
 * m->tokens the backend has tokens. All of it may still have to be waited for: exchange_sync.
 * Errors: ST_DEVICE from the communicator or the backend. */
int model_forward(struct model *m, const struct backend_step *s, struct err *e);
/* Floats of the largest sum over tp ranks. */
size_t model_sum_floats(const struct spec *s, int32_t max_tok);
/* Where whole rows of logits are, with m->tokens. */
const float *model_rows(const struct model *m);

#endif
