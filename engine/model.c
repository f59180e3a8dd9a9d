/* engine/model.c - the forward pass of one stage on one rank.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/model.h"

#include <assert.h>
#include <math.h>

/* y = x . w^T (+ bias), rows packed without gaps. */
static void product(struct model *m, const struct backend_mm *a, const float *bias)
{
    m->b->ops->mm(m->b, a);
    if (bias) m->b->ops->add_bias(m->b, a->y, bias, a->m, (int32_t)a->ldy);
}

/* m->att = attention of this rank's heads over m->h; keys and values go to the cache. */
static void attention(struct model *m, struct model_layer *y, const struct model_step *s)
{
    const struct backend_ops *op = m->b->ops;
    const struct arch *a = &m->spec->a;
    int32_t d = a->head_dim, nq = m->s.n_head, nk = m->s.n_kv, ld = d * (nq + 2 * nk);
    struct backend_mm mm = {
        .w = y->qkv, .x = m->h, .ldx = a->hidden, .y = m->qkv, .ldy = ld, .m = s->n_tok
    };
    product(m, &mm, y->qkv_bias);
    struct backend_rope q = { .x = m->qkv,
                              .ldx = ld,
                              .m = s->n_tok,
                              .n_head = nq,
                              .head_dim = d,
                              .cs = m->cs,
                              .at = s->pos };
    struct backend_rope k = q;
    k.x = m->qkv + (int64_t)d * nq;
    k.n_head = nk;
    if (y->norm_q.weight) op->head_norm(m->b, &y->norm_q, &q);
    if (y->norm_k.weight) op->head_norm(m->b, &y->norm_k, &k);
    op->rope(m->b, &q);
    op->rope(m->b, &k);
    struct backend_attn at = { .kv = y->kv,
                               .seq = s->seq,
                               .n_seq = s->n_seq,
                               .n_row = s->n_tok,
                               .n_head = nq,
                               .q = q.x,
                               .k = k.x,
                               .ld = ld,
                               .out = m->att,
                               .ldo = d * nq,
                               .window = a->sliding_window };
    at.v = k.x + (int64_t)d * nk;
    at.scale = (float)(1 / sqrt((double)d));
    op->kv_put(m->b, &at);
    op->attn(m->b, &at);
}

/* m->act = the MLP's inner values of this rank's columns over m->h. */
static void mlp_inner(struct model *m, struct model_layer *y, int32_t n_tok)
{
    const struct backend_ops *op = m->b->ops;
    const struct arch *a = &m->spec->a;
    int32_t f = m->s.n_ffn, n = a->gated_mlp ? 2 * f : f;
    float *inner = a->gated_mlp ? m->up : m->act;
    struct backend_mm mm = {
        .w = y->up, .x = m->h, .ldx = a->hidden, .y = inner, .ldy = n, .m = n_tok
    };
    product(m, &mm, y->up_bias);
    if (a->gated_mlp)
        op->silu_mul(m->b, m->up, m->act, n_tok, f);
    else
        op->gelu(m->b, m->act, (int64_t)n_tok * f);
}

/* y = this rank's share of a row-parallel product. */
static void partial(struct model *m, const struct backend_mat *w, const float *x, float *y,
                    const int32_t shape[2])
{
    struct backend_mm mm = { .w = w,
                             .x = x,
                             .ldx = shape[1],
                             .y = y,
                             .ldy = m->spec->a.hidden,
                             .m = shape[0],
                             .n_split = m->s.tp };
    product(m, &mm, NULL);
}

/* Sums m->out over the ranks, then bias, then onto the residual stream. */
static int reduce(struct model *m, int32_t n_tok, const float *bias, const float *bias2,
                  struct err *e)
{
    const struct backend_ops *op = m->b->ops;
    int32_t h = m->spec->a.hidden;
    op->sync(m->b);
    int st = comm_allreduce(m->tp, m->out, (size_t)n_tok * (size_t)h, e);
    if (st != ST_OK) return st;
    if (bias) op->add_bias(m->b, m->out, bias, n_tok, h);
    if (bias2) op->add_bias(m->b, m->out, bias2, n_tok, h);
    op->add(m->b, m->x, m->out, (int64_t)n_tok * h);
    return ST_OK;
}

/* Llama and its kin: x += attention(norm x); x += mlp(norm x). */
static int layer_serial(struct model *m, struct model_layer *y, const struct model_step *s,
                        struct err *e)
{
    const struct backend_ops *op = m->b->ops;
    const int32_t shape[2] = { s->n_tok, m->spec->a.hidden };
    const int32_t att[2] = { s->n_tok, m->spec->a.head_dim * m->s.n_head };
    const int32_t act[2] = { s->n_tok, m->s.n_ffn };
    op->norm(m->b, &y->norm_attn, m->x, m->h, shape);
    attention(m, y, s);
    partial(m, y->o, m->att, m->out, att);
    int st = reduce(m, s->n_tok, y->o_bias, NULL, e);
    if (st != ST_OK) return st;
    op->norm(m->b, &y->norm_mlp, m->x, m->h, shape);
    mlp_inner(m, y, s->n_tok);
    partial(m, y->down, m->act, m->out, act);
    return reduce(m, s->n_tok, y->down_bias, NULL, e);
}

/* Falcon: x += attention(norm x) + mlp(norm' x), with one sum over the ranks. */
static int layer_parallel(struct model *m, struct model_layer *y, const struct model_step *s,
                          struct err *e)
{
    const struct backend_ops *op = m->b->ops;
    const int32_t shape[2] = { s->n_tok, m->spec->a.hidden };
    const int32_t att[2] = { s->n_tok, m->spec->a.head_dim * m->s.n_head };
    const int32_t act[2] = { s->n_tok, m->s.n_ffn };
    op->norm(m->b, &y->norm_attn, m->x, m->h, shape);
    attention(m, y, s);
    partial(m, y->o, m->att, m->out, att);
    if (m->spec->a.n_norm_layer == 2) op->norm(m->b, &y->norm_mlp, m->x, m->h, shape);
    mlp_inner(m, y, s->n_tok);
    partial(m, y->down, m->act, m->h, act);
    op->add(m->b, m->out, m->h, (int64_t)s->n_tok * shape[1]);
    return reduce(m, s->n_tok, y->o_bias, y->down_bias, e);
}

int model_forward(struct model *m, const struct model_step *s, struct err *e)
{
    const struct backend_ops *op = m->b->ops;
    int32_t h = m->spec->a.hidden;
    int st = ST_OK;
    assert(s->n_tok > 0 && s->n_tok <= m->o.max_tok && s->n_out <= m->o.max_out);
    if (m->s.first) {
        op->embed(m->b, m->embed, s->tok, s->n_tok, m->s.vocab0, m->x);
        op->sync(m->b);
        st = comm_allreduce(m->tp, m->x, (size_t)s->n_tok * (size_t)h, e);
    }
    for (int i = 0; i < m->s.n_layer && st == ST_OK; i++)
        st = m->spec->a.parallel_attn ? layer_parallel(m, &m->layer[i], s, e)
                                      : layer_serial(m, &m->layer[i], s, e);
    if (st == ST_OK && m->s.last && s->n_out > 0) {
        const int32_t shape[2] = { s->n_out, h };
        op->pick(m->b, m->x, s->out, m->pick, shape);
        op->norm(m->b, &m->norm, m->pick, m->pick, shape);
        struct backend_mm mm = {
            .w = m->head, .x = m->pick, .ldx = h, .y = m->logits, .ldy = m->s.n_vocab, .m = s->n_out
        };
        op->mm(m->b, &mm);
    }
    op->sync(m->b);
    return st;
}
