/* engine/model_load.c - a rank's shard of the weights into its backend, by tensor name.
 *
 * Names are those of transformers: modeling_llama.py (Mistral, Qwen2 and Qwen3 alike) and
 * modeling_falcon.py. SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/progress.h"
#include "base/stop.h"
#include "engine/model.h"
#include "engine/team.h"

/* A bounce is each thread's share of it, up to so many of them. */
enum { BOUNCE_BYTES = 4 << 20, BOUNCE_MOST = 16, NAME_BYTES = 128 };

struct loader {
    struct model *m; /* without a backend the tensors are only looked at */
    const struct weights *w;
    void *bounce; /* rows on their way into a matrix */
    size_t bounce_bytes;
    int layer; /* global */
    struct err *e;
};

static bool only_looks(const struct loader *l)
{
    return !l->m->b;
}

/* "PREFIX.I.REST" of the present layer. */
static const char *in_layer(const struct loader *l, char *buf, const char *rest)
{
    bool falcon = l->m->spec->a.family == ARCH_FALCON;
    snprintf(buf, NAME_BYTES, "%s.%d.%s", falcon ? "transformer.h" : "model.layers", l->layer,
             rest);
    return buf;
}

/* ---- vectors */

static int vector_part(struct loader *l, const struct weights_part *p, float *out)
{
    enum elt from;
    int st = weights_elt(l->w, p->name, &from, l->e);
    if (st != ST_OK) return st;
    l->m->read_bytes += p->cols * (int64_t)elt_bytes(from);
    return weights_fetch(l->w, p, ELT_F32, out, p->cols, l->e);
}

/* A whole vector of n, to the device. */
static int vector(struct loader *l, const char *name, int n, const float **out)
{
    struct backend *b = l->m->b;
    struct weights_part p = { name, 1, n, 0, 0, 1, n };
    if (only_looks(l)) return weights_check(l->w, &p, l->e);
    size_t bytes = (size_t)n * sizeof(float);
    float *host = mem_alloc(bytes), *dev = NULL;
    int st = vector_part(l, &p, host);
    if (st == ST_OK && !(dev = b->ops->alloc(b, bytes, l->e))) st = ST_DEVICE;
    if (st == ST_OK) b->ops->upload(b, dev, host, bytes);
    if (st == ST_OK) l->m->weight_bytes += (int64_t)bytes;
    free(host);
    *out = dev;
    return st;
}

static int norm(struct loader *l, const char *stem, int n, struct backend_norm *out)
{
    const struct spec *s = l->m->spec;
    char name[NAME_BYTES + 8];
    out->eps = (float)s->norm_eps;
    out->mean = s->a.layer_norm;
    snprintf(name, sizeof name, "%s.weight", stem);
    int st = vector(l, name, n, &out->weight);
    if (st != ST_OK || !s->a.layer_norm) return st;
    snprintf(name, sizeof name, "%s.bias", stem);
    return vector(l, name, n, &out->bias);
}

/* ---- matrices, and the biases that go with their rows */

static enum backend_type type_for(const struct loader *l, enum elt file, bool lookup_only)
{
    switch (l->m->o.weight) {
    case MODEL_F32: return BACKEND_F32;
    case MODEL_BF16: return BACKEND_BF16;
    case MODEL_INT8: return lookup_only ? BACKEND_BF16 : BACKEND_INT8;
    case MODEL_F16: return BACKEND_F16;
    case MODEL_FP8: return lookup_only ? BACKEND_BF16 : BACKEND_FP8;
    case MODEL_FP8_TENSOR: return lookup_only ? BACKEND_BF16 : BACKEND_FP8_TENSOR;
    case MODEL_AUTO: break;
    }
    const struct backend *b = l->m->b;
    if (file == ELT_F16 && b->ops->takes && b->ops->takes(b, BACKEND_F16)) return BACKEND_F16;
    return file == ELT_BF16 ? BACKEND_BF16 : BACKEND_F32;
}

/* Rows of a part by all threads, which find the same error: part 0, the caller's, tells. */
struct fetch {
    const struct weights *w;
    const struct weights_part *p;
    enum elt elt;
    unsigned char *to; /* [p->rows][p->cols] */
    struct err *e;
    int st;
};

static void fetch_part(void *arg, int part, int n_part)
{
    struct fetch *f = arg;
    struct weights_part q = *f->p;
    int64_t at = f->p->rows * part / n_part;
    q.row += at;
    q.rows = f->p->rows * (part + 1) / n_part - at;
    int st = weights_fetch(f->w, &q, f->elt, f->to + (size_t)(at * q.cols) * elt_bytes(f->elt),
                           q.cols, part == 0 ? f->e : NULL);
    if (part == 0) f->st = st;
}

static int fetch(struct loader *l, const struct weights_part *p, enum elt elt)
{
    struct fetch f = { l->w, p, elt, l->bounce, l->e, ST_OK };
    if (l->m->team)
        team_run(l->m->team, fetch_part, &f);
    else
        fetch_part(&f, 0, 1);
    return f.st;
}

struct target {
    struct backend_mat *mat;
    float *bias; /* on the host, [n]; NULL: none */
};

/* A part of tensor p->name into rows n_at.. of a matrix, a few MiB at a time. */
static int values(struct loader *l, const struct target *t, int n_at, const struct weights_part *p)
{
    struct backend *b = l->m->b;
    enum elt from;
    int st = weights_elt(l->w, p->name, &from, l->e);
    if (st != ST_OK) return st;
    size_t row_bytes = (size_t)p->cols * elt_bytes(from);
    if (row_bytes > l->bounce_bytes) {
        l->bounce_bytes = row_bytes;
        l->bounce = mem_resize(l->bounce, row_bytes, 1);
    }
    int64_t step = (int64_t)(l->bounce_bytes / row_bytes);
    for (int64_t at = 0; at < p->rows && st == ST_OK; at += step) {
        struct weights_part q = *p;
        q.row += at;
        q.rows = p->rows - at < step ? p->rows - at : step;
        st = fetch(l, &q, from);
        if (st == ST_OK) b->ops->mat_rows(b, t->mat, n_at + (int)at, (int)q.rows, from, l->bounce);
        l->m->read_bytes += q.rows * (int64_t)row_bytes;
    }
    return st;
}

/* values(), and the same rows of the bias. */
static int rows(struct loader *l, const struct target *t, int n_at, const struct weights_part *p)
{
    int st = only_looks(l) ? weights_check(l->w, p, l->e) : values(l, t, n_at, p);
    if (st != ST_OK || !t->bias) return st;
    char name[NAME_BYTES + 8];
    snprintf(name, sizeof name, "%s", p->name);
    char *end = strrchr(name, '.');
    assert(end && strcmp(end, ".weight") == 0);
    memcpy(end, ".bias", sizeof ".bias");
    struct weights_part v = { name, 1, p->n_row, 0, p->row, 1, p->rows };
    return only_looks(l) ? weights_check(l->w, &v, l->e) : vector_part(l, &v, t->bias + n_at);
}

/* A matrix of n x k in the format that suits tensor p->name, which is there in its shape. */
static int mat_new(struct loader *l, const struct weights_part *p, int n, int k,
                   struct backend_mat **out)
{
    struct backend *b = l->m->b;
    enum elt from;
    const struct arch *a = &l->m->spec->a;
    int st = weights_check(l->w, p, l->e);
    if (st == ST_OK) st = weights_elt(l->w, p->name, &from, l->e);
    if (st != ST_OK || only_looks(l)) return st;
    bool lookup = out == &l->m->embed && !(a->tied && l->m->s.last);
    *out = b->ops->mat_new(b, type_for(l, from, lookup), n, k, l->e);
    if (!*out) return ST_DEVICE;
    l->m->weight_bytes += (int64_t)b->ops->mat_bytes(*out);
    return ST_OK;
}

/* A bias gathered on the host, to the device. */
static int put_bias(struct loader *l, float *host, int n, float **out)
{
    struct backend *b = l->m->b;
    size_t bytes = (size_t)n * sizeof *host;
    if (!host || only_looks(l)) return ST_OK;
    *out = b->ops->alloc(b, bytes, l->e);
    if (!*out) return ST_DEVICE;
    b->ops->upload(b, *out, host, bytes);
    l->m->weight_bytes += (int64_t)bytes;
    return ST_OK;
}

/* ---- the parts of a layer */

/* q, k and v from one tensor: per KV head its query heads, its k, its v. */
static int qkv_fused(struct loader *l, const struct target *t)
{
    const struct arch *a = &l->m->spec->a;
    const struct shard *s = &l->m->s;
    char name[NAME_BYTES];
    int d = a->head_dim, r = a->n_head / a->n_kv_head, st = ST_OK;
    in_layer(l, name, "self_attention.query_key_value.weight");
    for (int j = 0; j < s->n_kv && st == ST_OK; j++) {
        int g = s->kv0 + j, h0 = g * r > s->head0 ? g * r : s->head0;
        int h1 = (g + 1) * r < s->head0 + s->n_head ? (g + 1) * r : s->head0 + s->n_head;
        struct weights_part p = { .name = name,
                                  .n_row = (int64_t)d * (a->n_head + 2 * a->n_kv_head),
                                  .n_col = a->hidden,
                                  .cols = a->hidden };
        p.row = (int64_t)d * (g * (r + 2) + h0 - g * r);
        p.rows = (int64_t)d * (h1 - h0);
        st = rows(l, t, d * (h0 - s->head0), &p);
        p.rows = d;
        for (int v = 0; v < 2 && st == ST_OK; v++) {
            p.row = (int64_t)d * (g * (r + 2) + r + v);
            st = rows(l, t, d * (s->n_head + v * s->n_kv + j), &p);
        }
    }
    return st;
}

static int qkv_apart(struct loader *l, const struct target *t)
{
    const struct arch *a = &l->m->spec->a;
    const struct shard *s = &l->m->s;
    int d = a->head_dim, at = 0, st = ST_OK;
    const struct {
        const char *name;
        int all, first, n;
    } part[] = { { "self_attn.q_proj.weight", a->n_head, s->head0, s->n_head },
                 { "self_attn.k_proj.weight", a->n_kv_head, s->kv0, s->n_kv },
                 { "self_attn.v_proj.weight", a->n_kv_head, s->kv0, s->n_kv } };
    for (int i = 0; i < 3 && st == ST_OK; i++) {
        char name[NAME_BYTES];
        struct weights_part p = { in_layer(l, name, part[i].name),
                                  (int64_t)d * part[i].all,
                                  a->hidden,
                                  (int64_t)d * part[i].first,
                                  0,
                                  (int64_t)d * part[i].n,
                                  a->hidden };
        st = rows(l, t, at, &p);
        at += d * part[i].n;
    }
    return st;
}

static int load_qkv(struct loader *l, struct model_layer *y)
{
    const struct arch *a = &l->m->spec->a;
    const struct shard *s = &l->m->s;
    bool falcon = a->family == ARCH_FALCON;
    int n = a->head_dim * (s->n_head + 2 * s->n_kv);
    char name[NAME_BYTES];
    struct target t = { 0 };
    struct weights_part first = {
        .name = in_layer(
            l, name, falcon ? "self_attention.query_key_value.weight" : "self_attn.q_proj.weight"),
        .n_row = (int64_t)a->head_dim * (a->n_head + (falcon ? 2 * a->n_kv_head : 0)),
        .n_col = a->hidden
    };
    int st = mat_new(l, &first, n, a->hidden, &y->qkv);
    if (st != ST_OK) return st;
    t.mat = y->qkv;
    t.bias = a->qkv_bias ? mem_alloc((size_t)n * sizeof *t.bias) : NULL;
    st = falcon ? qkv_fused(l, &t) : qkv_apart(l, &t);
    if (st == ST_OK) st = put_bias(l, t.bias, n, &y->qkv_bias);
    free(t.bias);
    return st;
}

/* A row-parallel matrix: all outputs, this rank's columns; its bias, whole, is added after the sum. */
static int load_partial(struct loader *l, const char *rest, struct weights_part p,
                        struct backend_mat **mat, float **bias)
{
    char name[NAME_BYTES];
    p.name = in_layer(l, name, rest);
    p.n_row = p.rows = l->m->spec->a.hidden;
    int st = mat_new(l, &p, (int)p.rows, (int)p.cols, mat);
    if (st != ST_OK) return st;
    struct target t = { *mat, bias ? mem_alloc((size_t)p.rows * sizeof *t.bias) : NULL };
    st = rows(l, &t, 0, &p);
    if (st == ST_OK && bias) st = put_bias(l, t.bias, (int)p.rows, bias);
    free(t.bias);
    return st;
}

static int load_up(struct loader *l, struct model_layer *y)
{
    const struct arch *a = &l->m->spec->a;
    const struct shard *s = &l->m->s;
    static const char *const gated[] = { "mlp.gate_proj.weight", "mlp.up_proj.weight" };
    int n_part = a->gated_mlp ? 2 : 1, n = n_part * s->n_ffn;
    char name[NAME_BYTES];
    struct target t = { 0 };
    struct weights_part first = {
        .name = in_layer(l, name, a->gated_mlp ? gated[0] : "mlp.dense_h_to_4h.weight"),
        .n_row = a->ffn,
        .n_col = a->hidden
    };
    int st = mat_new(l, &first, n, a->hidden, &y->up);
    if (st != ST_OK) return st;
    t.mat = y->up;
    t.bias = a->mlp_bias ? mem_alloc((size_t)n * sizeof *t.bias) : NULL;
    for (int i = 0; i < n_part && st == ST_OK; i++) {
        if (a->gated_mlp) in_layer(l, name, gated[i]);
        struct weights_part p = { name, a->ffn, a->hidden, s->ffn0, 0, s->n_ffn, a->hidden };
        st = rows(l, &t, i * s->n_ffn, &p);
    }
    if (st == ST_OK) st = put_bias(l, t.bias, n, &y->up_bias);
    free(t.bias);
    return st;
}

static int load_norms(struct loader *l, struct model_layer *y)
{
    const struct arch *a = &l->m->spec->a;
    bool two = a->parallel_attn && a->n_norm_layer == 2; /* Falcon's new decoder */
    char stem[NAME_BYTES];
    int st =
        norm(l, in_layer(l, stem, two ? "ln_attn" : "input_layernorm"), a->hidden, &y->norm_attn);
    y->norm_mlp = y->norm_attn;
    if (st == ST_OK && a->n_norm_layer == 2)
        st = norm(l, in_layer(l, stem, two ? "ln_mlp" : "post_attention_layernorm"), a->hidden,
                  &y->norm_mlp);
    if (st == ST_OK && a->qk_norm)
        st = norm(l, in_layer(l, stem, "self_attn.q_norm"), a->head_dim, &y->norm_q);
    if (st == ST_OK && a->qk_norm)
        st = norm(l, in_layer(l, stem, "self_attn.k_norm"), a->head_dim, &y->norm_k);
    return st;
}

static int load_layer(struct loader *l, struct model_layer *y)
{
    const struct arch *a = &l->m->spec->a;
    const struct shard *s = &l->m->s;
    struct model *m = l->m;
    bool falcon = a->family == ARCH_FALCON;
    int64_t d = a->head_dim;
    struct weights_part o = { .n_col = d * a->n_head, .col = d * s->head0, .cols = d * s->n_head };
    struct weights_part down = { .n_col = a->ffn, .col = s->ffn0, .cols = s->n_ffn };
    int st = load_norms(l, y);
    if (st == ST_OK) st = load_qkv(l, y);
    if (st == ST_OK)
        st = load_partial(l, falcon ? "self_attention.dense.weight" : "self_attn.o_proj.weight", o,
                          &y->o, a->o_bias ? &y->o_bias : NULL);
    if (st == ST_OK) st = load_up(l, y);
    if (st == ST_OK)
        st = load_partial(l, falcon ? "mlp.dense_4h_to_h.weight" : "mlp.down_proj.weight", down,
                          &y->down, a->mlp_bias ? &y->down_bias : NULL);
    if (st != ST_OK || only_looks(l)) return st;
    const int32_t shape[4] = { m->o.n_block, s->n_kv, m->o.block_tok, a->head_dim };
    y->kv = m->b->ops->kv_new(m->b, m->o.kv, shape, l->e);
    if (!y->kv) return ST_DEVICE;
    m->kv_bytes += (int64_t)m->b->ops->kv_bytes(y->kv);
    return ST_OK;
}

static int load_vocab(struct loader *l, const char *name, struct backend_mat **mat)
{
    const struct arch *a = &l->m->spec->a;
    const struct shard *s = &l->m->s;
    struct weights_part p = { name, a->vocab, a->hidden, s->vocab0, 0, s->n_vocab, a->hidden };
    int st = mat_new(l, &p, s->n_vocab, a->hidden, mat);
    struct target t = { *mat, NULL };
    return st == ST_OK ? rows(l, &t, 0, &p) : st;
}

static int load_ends(struct loader *l)
{
    const struct arch *a = &l->m->spec->a;
    struct model *m = l->m;
    bool falcon = a->family == ARCH_FALCON;
    const char *embed = falcon ? "transformer.word_embeddings.weight" : "model.embed_tokens.weight";
    int st = ST_OK;
    if (m->s.first || (m->s.last && a->tied)) st = load_vocab(l, embed, &m->embed);
    if (st != ST_OK || !m->s.last) return st;
    m->head = m->embed;
    if (!a->tied) st = load_vocab(l, "lm_head.weight", &m->head);
    return st == ST_OK ? norm(l, falcon ? "transformer.ln_f" : "model.norm", a->hidden, &m->norm)
                       : st;
}

/* ---- what is not in the file */

/* The MLP's inner values have the most columns of all products but the head's. */
int model_prepare(struct model *m, struct err *e)
{
    const struct backend_ops *op = m->b->ops;
    if (!op->prepare) return ST_OK;
    size_t gate = m->spec->a.gated_mlp ? 2 : 1;
    op->prepare(m->b, m->up, (size_t)m->o.max_tok * gate * (size_t)m->s.n_ffn);
    return op->check(m->b, e);
}

static float *floats(struct loader *l, int64_t rows_, int64_t cols)
{
    return l->m->b->ops->alloc(l->m->b, (size_t)(rows_ * cols) * sizeof(float), l->e);
}

static int room(struct loader *l)
{
    struct model *m = l->m;
    bool here = m->tokens && m->s.tp_rank == 0;
    const struct backend_room r = { .max_tok = m->o.max_tok,
                                    .max_out = m->o.max_out,
                                    .max_ctx = m->o.max_ctx,
                                    .max_table = m->max_table,
                                    .n_head = m->s.n_head,
                                    .window = m->spec->a.sliding_window,
                                    .n_sample = here ? m->spec->a.vocab : 0,
                                    .n_part = m->shares ? m->s.tp : 1,
                                    .depth = m->depth,
                                    .record = m->tp->n == 1 || m->tp->on_device };
    return m->b->ops->room ? m->b->ops->room(m->b, &r, l->e) : ST_OK;
}

/* Where tokens are made of logits that lie on several devices. */
static bool gathered(struct loader *l)
{
    struct model *m = l->m;
    int64_t out = m->o.max_out;
    if (!m->tokens || m->s.tp == 1) return true;
    return (m->shares = floats(l, out * m->s.tp, m->s.n_vocab)) &&
           (m->rows = floats(l, out, m->spec->a.vocab));
}

static int activations(struct loader *l)
{
    struct model *m = l->m;
    const struct arch *a = &m->spec->a;
    const struct shard *s = &m->s;
    int64_t t = m->o.max_tok, d = a->head_dim, gate = a->gated_mlp ? 2 : 1;
    size_t sum = model_sum_floats(m->spec, m->o.max_tok);
    bool all = (m->x = floats(l, t, a->hidden)) && (m->h = floats(l, t, a->hidden)) &&
               (m->out = floats(l, 1, (int64_t)sum)) &&
               (m->qkv = floats(l, t, d * (s->n_head + 2 * s->n_kv))) &&
               (m->att = floats(l, t, d * s->n_head)) && (m->up = floats(l, t, gate * s->n_ffn)) &&
               (m->act = floats(l, t, s->n_ffn)) &&
               (m->pick = floats(l, m->o.max_out, a->hidden)) &&
               (m->logits = floats(l, m->o.max_out, s->n_vocab)) && gathered(l);
    if (!all) return ST_DEVICE;
    int st =
        m->b->ops->reserve(m->b, m->o.max_tok > m->o.max_out ? m->o.max_tok : m->o.max_out, l->e);
    if (st == ST_OK) st = room(l);
    m->ranks = (struct exchange){ .b = m->b, .tp = m->tp, .pipe = m->pipe };
    return st == ST_OK ? exchange_open(&m->ranks, sum * sizeof(float), l->e) : st;
}

/* Angles in f32 as the reference computes them: the frequency rounded, then the product. */
static int rope_table(struct loader *l)
{
    struct model *m = l->m;
    int half = m->spec->a.head_dim / 2;
    size_t n = (size_t)m->o.max_ctx * 2 * (size_t)half;
    float *cs = mem_alloc(n * sizeof *cs);
    for (int i = 0; i < half; i++) {
        float rate = (float)spec_rope_rate(m->spec, i);
        for (int p = 0; p < m->o.max_ctx; p++) {
            double angle = (double)((float)p * rate);
            cs[(size_t)(2 * p) * (size_t)half + (size_t)i] = (float)cos(angle);
            cs[(size_t)(2 * p + 1) * (size_t)half + (size_t)i] = (float)sin(angle);
        }
    }
    m->cs = m->b->ops->alloc(m->b, n * sizeof *cs, l->e);
    if (m->cs) m->b->ops->upload(m->b, m->cs, cs, n * sizeof *cs);
    free(cs);
    return m->cs ? ST_OK : ST_DEVICE;
}

int model_check(const struct spec *spec, const struct weights *w, struct err *e)
{
    struct model whole = { .spec = spec };
    struct loader l = { .m = &whole, .w = w, .e = e };
    shard_of(&spec->a, 1, 1, NULL, 0, &whole.s);
    struct model_layer y = { 0 };
    int st = load_ends(&l);
    for (; l.layer < whole.s.n_layer && st == ST_OK; l.layer++) st = load_layer(&l, &y);
    return st;
}

int model_load(struct model *m, const struct weights *w, struct err *e)
{
    int threads = m->team ? team_size(m->team) : 1;
    size_t bounce = (size_t)BOUNCE_BYTES * (size_t)(threads < BOUNCE_MOST ? threads : BOUNCE_MOST);
    struct loader l = { .m = m, .w = w, .bounce_bytes = bounce, .e = e };
    int64_t t0 = clock_mono_ns();
    l.bounce = mem_alloc(bounce);
    m->layer = mem_zalloc((size_t)m->s.n_layer, sizeof *m->layer);
    int st = load_ends(&l);
    for (int i = 0; i < m->s.n_layer && st == ST_OK; i++) {
        l.layer = m->s.layer0 + i;
        if (stop_asked()) st = err_set(e, ST_STOPPED, "interrupted while loading");
        if (st == ST_OK && m->world) st = comm_check(m->world, e);
        if (st == ST_OK) st = load_layer(&l, &m->layer[i]);
    }
    if (st == ST_OK) st = activations(&l);
    if (st == ST_OK) st = rope_table(&l);
    if (st == ST_OK) st = backend_sync(m->b, e);
    free(l.bounce);
    m->load_s = 1e-9 * (double)(clock_mono_ns() - t0);
    return st;
}

void model_release(struct model *m)
{
    free(m->layer);
    m->layer = NULL;
}
