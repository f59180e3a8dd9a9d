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

/* Biases, norms of heads, rotation and cache, for backends that have no such operation. */
static void rope_put(struct model *m, const struct backend_rope_put *p)
{
    const struct backend_ops *op = m->b->ops;
    struct backend_rope q = { .x = p->qkv,
                              .ldx = p->at.ld,
                              .m = p->at.n_row,
                              .n_head = p->at.n_head,
                              .head_dim = p->head_dim,
                              .cs = p->cs,
                              .at = p->pos };
    struct backend_rope k = q;
    k.x = q.x + (int64_t)p->head_dim * p->at.n_head;
    k.n_head = p->n_kv_head;
    if (p->bias) op->add_bias(m->b, p->qkv, p->bias, p->at.n_row, (int32_t)p->at.ld);
    if (p->norm_q->weight) op->head_norm(m->b, p->norm_q, &q);
    if (p->norm_k->weight) op->head_norm(m->b, p->norm_k, &k);
    op->rope(m->b, &q);
    op->rope(m->b, &k);
    op->kv_put(m->b, &p->at);
}

/* m->att = attention of this rank's heads over m->h; keys and values go to the cache. */
static void attention(struct model *m, struct model_layer *y, const struct backend_step *s)
{
    const struct backend_ops *op = m->b->ops;
    const struct arch *a = &m->spec->a;
    int32_t d = a->head_dim, nq = m->s.n_head, nk = m->s.n_kv, ld = d * (nq + 2 * nk);
    struct backend_mm mm = {
        .w = y->qkv, .x = m->h, .ldx = a->hidden, .y = m->qkv, .ldy = ld, .m = s->n_tok
    };
    struct backend_rope_put p = { .qkv = m->qkv,
                                  .bias = y->qkv_bias,
                                  .cs = m->cs,
                                  .norm_q = &y->norm_q,
                                  .norm_k = &y->norm_k,
                                  .pos = s->pos,
                                  .n_kv_head = nk,
                                  .head_dim = d };
    p.at = (struct backend_attn){ .kv = y->kv,
                                  .seq = s->seq,
                                  .n_seq = s->n_seq,
                                  .n_row = s->n_tok,
                                  .n_head = nq,
                                  .q = m->qkv,
                                  .k = m->qkv + (int64_t)d * nq,
                                  .v = m->qkv + (int64_t)d * (nq + nk),
                                  .ld = ld,
                                  .out = m->att,
                                  .ldo = d * nq,
                                  .window = a->sliding_window };
    p.at.scale = (float)(1 / sqrt((double)d));
    op->mm(m->b, &mm);
    if (op->rope_put)
        op->rope_put(m->b, &p);
    else
        rope_put(m, &p);
    op->attn(m->b, &p.at);
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

/* What the residual stream gets before it is read again. */
struct residual {
    const float *bias, *bias2;
    const struct backend_norm *next; /* of the stream, to m->h; NULL: not here */
};

/* m->out, summed over the ranks, with biases, onto the residual stream. */
static void onto(struct model *m, int32_t n_tok, const struct residual *r)
{
    const struct backend_ops *op = m->b->ops;
    const int32_t shape[2] = { n_tok, m->spec->a.hidden };
    struct backend_add_norm a = { .x = m->x,
                                  .add = m->out,
                                  .bias = r->bias,
                                  .bias2 = r->bias2,
                                  .norm = r->next,
                                  .y = m->h,
                                  .m = n_tok,
                                  .n = shape[1] };
    if (op->add_norm) {
        op->add_norm(m->b, &a);
        return;
    }
    if (a.bias) op->add_bias(m->b, m->out, a.bias, a.m, a.n);
    if (a.bias2) op->add_bias(m->b, m->out, a.bias2, a.m, a.n);
    op->add(m->b, m->x, m->out, (int64_t)a.m * a.n);
    if (a.norm) op->norm(m->b, a.norm, m->x, m->h, shape);
}

static int reduce(struct model *m, int32_t n_tok, const struct residual *r, struct err *e)
{
    int st = exchange_sum(&m->ranks, m->out, (size_t)n_tok * (size_t)m->spec->a.hidden, e);
    if (st == ST_OK) onto(m, n_tok, r);
    return st;
}

/* Llama and its kin: x += attention(h); x += mlp(norm x). m->h = norm x before, as the layer behind
 * wants it after. */
static int layer_serial(struct model *m, int i, const struct backend_step *s, struct err *e)
{
    struct model_layer *y = &m->layer[i];
    const int32_t att[2] = { s->n_tok, m->spec->a.head_dim * m->s.n_head };
    const int32_t act[2] = { s->n_tok, m->s.n_ffn };
    const struct backend_norm *next = i + 1 < m->s.n_layer ? &y[1].norm_attn : NULL;
    attention(m, y, s);
    partial(m, y->o, m->att, m->out, att);
    int st = reduce(m, s->n_tok, &(struct residual){ y->o_bias, NULL, &y->norm_mlp }, e);
    if (st != ST_OK) return st;
    mlp_inner(m, y, s->n_tok);
    partial(m, y->down, m->act, m->out, act);
    return reduce(m, s->n_tok, &(struct residual){ y->down_bias, NULL, next }, e);
}

/* Falcon: x += attention(h) + mlp(h, or another norm of x), with one sum over the ranks: of both, side
 * by side. Added before it they would be half the bytes, and other bits for every tp. */
static int layer_parallel(struct model *m, int i, const struct backend_step *s, struct err *e)
{
    const struct backend_ops *op = m->b->ops;
    struct model_layer *y = &m->layer[i];
    const int32_t shape[2] = { s->n_tok, m->spec->a.hidden };
    const int32_t att[2] = { s->n_tok, m->spec->a.head_dim * m->s.n_head };
    const int32_t act[2] = { s->n_tok, m->s.n_ffn };
    const struct backend_norm *next = i + 1 < m->s.n_layer ? &y[1].norm_attn : NULL;
    int64_t n = (int64_t)s->n_tok * shape[1];
    attention(m, y, s);
    partial(m, y->o, m->att, m->out, att);
    if (m->spec->a.n_norm_layer == 2) op->norm(m->b, &y->norm_mlp, m->x, m->h, shape);
    mlp_inner(m, y, s->n_tok);
    partial(m, y->down, m->act, m->out + n, act);
    int st = exchange_sum(&m->ranks, m->out, 2 * (size_t)n, e);
    if (st != ST_OK) return st;
    op->add(m->b, m->out, m->out + n, n);
    onto(m, s->n_tok, &(struct residual){ y->o_bias, y->down_bias, next });
    return ST_OK;
}

size_t model_sum_floats(const struct spec *s, int32_t max_tok)
{
    return (size_t)max_tok * (size_t)s->a.hidden * (s->a.parallel_attn ? 2 : 1);
}

const float *model_rows(const struct model *m)
{
    return m->rows ? m->rows : m->logits;
}

/* m->logits of the rows that are wanted; with m->tokens whole rows, and tokens of them. */
static int head(struct model *m, const struct backend_step *s, struct err *e)
{
    const struct backend_ops *op = m->b->ops;
    const int32_t shape[2] = { s->n_out, m->spec->a.hidden };
    struct backend_mm mm = { .w = m->head,
                             .x = m->pick,
                             .ldx = shape[1],
                             .y = m->logits,
                             .ldy = m->s.n_vocab,
                             .m = s->n_out };
    op->pick(m->b, m->x, s->out, m->pick, shape);
    op->norm(m->b, &m->norm, m->pick, m->pick, shape);
    op->mm(m->b, &mm);
    if (m->shares) {
        size_t bytes = (size_t)s->n_out * (size_t)m->s.n_vocab * sizeof(float);
        int st = exchange_gather(&m->ranks, m->logits, bytes, m->shares, e);
        if (st != ST_OK) return st;
    }
    if (!m->tokens || m->s.tp_rank != 0) return ST_OK;
    if (m->shares) op->weave(m->b, m->shares, m->rows, m->s.n_vocab);
    op->sample(m->b, model_rows(m));
    return ST_OK;
}

static int stage(struct model *m, const struct backend_step *s, struct err *e)
{
    const struct backend_ops *op = m->b->ops;
    const int32_t shape[2] = { s->n_tok, m->spec->a.hidden };
    int st = ST_OK;
    if (m->s.first) {
        op->embed(m->b, m->embed, s->tok, s->n_tok, m->s.vocab0, m->x);
        st = exchange_sum(&m->ranks, m->x, (size_t)s->n_tok * (size_t)shape[1], e);
    }
    if (st == ST_OK) op->norm(m->b, &m->layer[0].norm_attn, m->x, m->h, shape);
    for (int i = 0; i < m->s.n_layer && st == ST_OK; i++)
        st = m->spec->a.parallel_attn ? layer_parallel(m, i, s, e) : layer_serial(m, i, s, e);
    return st == ST_OK && m->s.last && s->n_out > 0 ? head(m, s, e) : st;
}

int model_forward(struct model *m, const struct backend_step *s, struct err *e)
{
    const struct backend_ops *op = m->b->ops;
    struct backend_step now = *s;
    assert(s->n_tok > 0 && s->n_tok <= m->o.max_tok && s->n_out <= m->o.max_out);
    if (!op->begin) return stage(m, s, e);
    int st = op->begin(m->b, &now) ? ST_OK : stage(m, &now, e);
    op->end(m->b);
    return st == ST_OK ? op->check(m->b, e) : st;
}
