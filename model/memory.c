/* model/memory.c - counts the memory of one rank of a stage.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/memory.h"

#include <assert.h>
#include <math.h>

#define MIB 1048576.0
#define GIB 1073741824.0

/* Logits of more rows than this are computed in pieces by the engines. */
enum { LOGIT_ROWS = 1024 };

static double least(double a, double b)
{
    return a < b ? a : b;
}

static double most(double a, double b)
{
    return a > b ? a : b;
}

/* KV heads that one rank holds: all ranks of a group that shares a head hold it whole. */
static double kv_heads(const struct arch *a, double tp)
{
    return most(1, a->n_kv_head / tp);
}

/* Matrices of the layers, which the weight format applies to. */
static double matrix_params(const struct arch *a, double tp)
{
    double h = a->hidden, q = (double)a->n_head * a->head_dim / tp;
    double kv = kv_heads(a, tp) * a->head_dim;
    double experts = a->n_expert > 0 ? a->n_expert : 1;
    /* Expert parallel or split, the experts of the group are divided evenly over its ranks. */
    double mlp = experts * (a->gated_mlp ? 3.0 : 2.0) * h * a->ffn / tp;
    return 2 * h * q + 2 * h * kv + mlp;
}

/* Biases, norms and router of a layer: small, never quantized. Biases of column-parallel matrices
 * are cut as these are; those of row-parallel ones, norms and router are on every rank. */
static double small_params(const struct arch *a, double tp)
{
    double h = a->hidden, n = a->n_norm_layer * h * (a->layer_norm ? 2.0 : 1.0);
    if (a->qkv_bias) n += ((double)a->n_head / tp + 2 * kv_heads(a, tp)) * a->head_dim;
    if (a->o_bias) n += h;
    if (a->mlp_bias) n += (a->gated_mlp ? 2.0 : 1.0) * a->ffn / tp + h;
    if (a->qk_norm) n += 2.0 * a->head_dim;
    return n + h * a->n_expert;
}

/* Embedding, head and final norm. A tied head is the embedding itself where both are on one stage.
 */
static double end_params(const struct arch *a, const struct strategy *s, int stage)
{
    double table = (double)a->vocab * a->hidden / (double)s->tp, n = 0;
    bool first = stage == 0, last = stage == s->pp - 1;
    if (first) n += table;
    if (last) n += a->hidden * (a->layer_norm ? 2.0 : 1.0);
    if (last && !(a->tied && first)) n += table;
    return n;
}

static double activation(const struct arch *a, const struct strategy *s, int stage,
                         const struct memory_limits *lim)
{
    double tok = (double)lim->max_batch_tok;
    double wide = 2.0 * a->ffn * (a->n_expert > 0 ? a->top_k : 1) / (double)s->tp;
    double peak = most(70 * MIB, tok * (wide + 4.0 * a->hidden) * 2);
    if (stage < s->pp - 1) return peak;
    double rows = least(least((double)lim->max_seqs, tok), LOGIT_ROWS);
    return most(peak, rows * a->vocab * 4 * 3);
}

void memory_stage(const struct arch *a, const struct hw *h, const struct strategy *s, int stage,
                  int n_layer, const struct memory_limits *lim, struct memory *out)
{
    assert(s->tp >= 1 && s->pp >= 1 && stage >= 0 && stage < s->pp && n_layer >= 0);
    assert(lim->block_tok >= 1 && lim->max_batch_tok >= 1 && lim->max_seqs >= 1);
    double tp = (double)s->tp, ranks = tp * (double)s->pp;
    double matrix = n_layer * matrix_params(a, tp);
    double rest = n_layer * small_params(a, tp) + end_params(a, s, stage);
    double rest_bytes = s->weight_dtype == DT_F32 ? 4 : 2;
    struct memory m = { .params = matrix + rest };
    m.weights = matrix * dtype_bytes((enum dtype)s->weight_dtype) + rest * rest_bytes;
    m.activation = activation(a, s, stage, lim);
    m.comm = ranks < 2 ? 0 : ranks < 3 ? 342 * MIB : 392 * MIB;
    m.graphs = 0.3 * GIB;
    m.other = 551 * MIB;
    m.kv_token =
        2.0 * n_layer * kv_heads(a, tp) * a->head_dim * dtype_bytes((enum dtype)s->kv_dtype);
    m.kv_bytes =
        h->gpu.mem_bytes * lim->util - m.weights - m.activation - m.comm - m.graphs - m.other;
    double block = (double)lim->block_tok * m.kv_token;
    if (m.kv_bytes > 0 && block > 0) m.kv_blocks = (int64_t)floor(least(m.kv_bytes / block, 9e18));
    *out = m;
}
