/* model/ops.h - the operators of one step on one rank of a stage: shapes, FLOP, bytes and seconds.
 *
 * The list that step.h's tables are computed from, in execution order, and what a report prints so
 * that every number can be derived by hand. Symbols: t = TP, h hidden, H_t = heads/t,
 * K_t = max(1, kv heads/t), d head size, f FFN, E experts, k experts a token, V vocabulary, T new
 * tokens, S sequences that get logits, bk bytes of a KV element; activations have 2 bytes.
 *
 *     operator        kind       M, N, K                      times per step
 *     embedding       elt        T rows of h, read and write  1 (first stage)
 *     embed_allreduce allreduce  T*h*2 bytes                  1 (first stage, t > 1)
 *     layernorm       elt        4*T*h*2 bytes                norms per layer * layers
 *     qkv_proj        gemm       T, (H_t+2K_t)d, h            layers
 *     qk_norm         elt        T*(H_t+K_t)*d*2              2 * layers (query, key)
 *     rotary_emb      elt        2*T*(H_t+K_t)*d*2            layers
 *     kv_write        elt        T*2*K_t*d*(2+bk)             layers
 *     attn_decode     decode     see law.h                    layers, if sequences decode
 *     attn_prefill    prefill    see law.h                    layers, if there are chunks
 *     o_proj          gemm       T, h, H_t*d                  layers
 *     attn_allreduce  allreduce  T*h*2 bytes                  layers, t > 1, not parallel
 *     gate_up_proj    gemm       T, 2f/t (f/t ungated), h     layers, dense models
 *     act_fn          elt        3*T*(f/t)*2 (2 ungated)      layers
 *     down_proj       gemm       T, h, f/t                    layers, dense models
 *     router          gemm       T, E, h                      layers, sparse models
 *     experts         moe        T*k token-expert pairs       layers, sparse models
 *     moe_alltoall    alltoall   dispatch and combine         2 * layers, if ep > tp
 *     mlp_allreduce   allreduce  T*h*2 bytes                  layers, t > 1
 *     final_layernorm elt        4*T*h*2 bytes                1 (last stage)
 *     lm_head         gemm       S, ceil(V/t), h (16 bit, f32 models 32)  1 (last stage)
 *     logits_gather   allgather  S*V*2 bytes                  1 (last stage, t > 1)
 *     sampler         elt        4 passes over S*V*4 bytes    1 (last stage)
 *
 * (qk_norm only where the model has it; "not parallel": not where attention and MLP run in
 * parallel.) M is the number of tokens: padding to captured graph sizes (at most 8 rows in decode)
 * changes a bandwidth-bound GEMM by well under its fit error and is left out. Names are those of
 * measured tables where one exists. Pure functions. SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_OPS_H
#define MODEL_OPS_H

#include "model/arch.h"
#include "model/coll.h"
#include "model/hw.h"
#include "model/profile.h"
#include "model/step.h"
#include "model/strategy.h"
#include "model/table.h"

enum op_kind {
    OP_GEMM,
    OP_MOE,
    OP_ELT,
    OP_DECODE,
    OP_PREFILL,
    OP_ALLREDUCE,
    OP_ALLGATHER,
    OP_ALLTOALL
};
enum op_by {
    OP_BY_TOK,
    OP_BY_SEQ,
    OP_BY_CTX
}; /* what its time depends on: T, S, or the contexts */

struct op {
    const char *name;
    enum op_kind kind;
    enum step_class cls;
    enum op_by by;
    int count; /* runs in one step of this stage */
    bool per_layer;
    /* GEMM: (m,k) by (k,n). MoE: pairs, inner size, h. Attention: sequences, heads, contexts or
     * pairs. Others: m is the count a measured table is looked up by. */
    double m, n, k;
    double tok;          /* new tokens of prefill attention */
    double weight_elt;   /* bytes of a weight element (GEMM) */
    bool full_precision; /* 16-bit weights whatever the strategy says */
    double flop, bytes;  /* of one run; bytes of a collective: its message */
};

struct ops_env {
    const struct arch *arch;
    const struct hw *hw;
    const struct strategy *strategy;
    const struct profile *profile;
    const struct table *table; /* measured times that replace the law, or NULL */
};

enum { OPS_MAX = 24 };
/* Operators of one step of shape s on stage g; returns how many. n_layer 0 lists no layer. */
int ops_list(const struct ops_env *v, const struct step_stage *g, const struct step_shape *s,
             struct op out[OPS_MAX]);
/* Seconds of one run. *measured (may be NULL) is set when a table gave it, *extrapolated (may be
 * NULL) when it lies outside the table; neither is cleared. */
double ops_time_s(const struct ops_env *v, const struct step_stage *g, const struct op *o,
                  bool *measured, bool *extrapolated);
/* Experts that T tokens activate on one rank, uniform routing: (E/ep) (1 - (1 - k/E)^T). */
double ops_active_experts(const struct arch *a, double ep, double tokens);

/* Every name of the dense table is an operator of this model. Errors: ST_USAGE naming it. */
int ops_check_table(const struct ops_env *v, struct err *e);

#endif
