/* engine/backend_timed.c - see backend_timed.h. SPDX-License-Identifier: Apache-2.0 */
#include "engine/backend_timed.h"

#include <stdlib.h>

#include "base/arena.h"
#include "base/progress.h"

/* What has been seen last that tells which product comes next. */
enum place { AT_LAYER, AT_ATTN, AT_MLP, AT_ACT, AT_END };

struct mat_size {
    const struct backend_mat *mat;
    int32_t n, k;
};

struct kv_size {
    const struct backend_kv *kv;
    int32_t n_head, head_dim, elt_bytes;
};

struct timed {
    struct backend b;
    struct backend_ops ops;
    struct backend *in;
    struct mat_size *mat; /* [n_mat], in order of creation */
    struct kv_size *kv;
    int n_mat, n_kv, at; /* at: the matrix used last; the next one is often beside it */
    enum place place;
    enum backend_timed_part now; /* of the product or norm under way */
    bool began, synced;          /* something has run; nothing has since the last sync */
    int64_t last_ns;
    struct backend_timed_step step;
};

static struct timed *timed_of(struct backend *b)
{
    return (struct timed *)b;
}

/* ---- the clock */

static int64_t look(struct timed *t)
{
    t->step.reads++;
    return clock_mono_ns();
}

static struct backend *start(struct timed *t)
{
    if (t->began && !t->synced) return t->in;
    int64_t now = look(t);
    if (!t->began)
        t->step.t0_ns = now;
    else {
        t->step.comm_ns += now - t->last_ns;
        t->step.comm_calls++;
    }
    t->began = true;
    t->synced = false;
    t->last_ns = now;
    return t->in;
}

struct size {
    int64_t m, n, k;
};

static void end(struct timed *t, enum backend_timed_part part, struct size s)
{
    struct backend_timed_cell *c = &t->step.cell[part];
    int64_t now = look(t);
    c->calls++;
    c->ns += now - t->last_ns;
    c->elt += s.m * s.n;
    c->m = s.m;
    c->n = s.n;
    c->k = s.k;
    t->last_ns = t->step.t1_ns = now;
}

/* ---- memory, matrices, caches: noted and passed on */

static void timed_close(struct backend *b)
{
    struct timed *t = timed_of(b);
    t->in->ops->close(t->in);
    free(t->mat);
    free(t->kv);
    free(t);
}

static void *timed_alloc(struct backend *b, size_t bytes, struct err *e)
{
    struct backend *in = timed_of(b)->in;
    return in->ops->alloc(in, bytes, e);
}

static void timed_upload(struct backend *b, void *to, const void *from, size_t bytes)
{
    struct backend *in = timed_of(b)->in;
    in->ops->upload(in, to, from, bytes);
}

static void timed_download(struct backend *b, void *to, const void *from, size_t bytes)
{
    struct backend *in = timed_of(b)->in;
    in->ops->download(in, to, from, bytes);
}

static const void *timed_view(struct backend *b, const void *p)
{
    struct backend *in = timed_of(b)->in;
    return in->ops->view(in, p);
}

/* Waiting for a device that runs behind belongs to the operations before it, and here to the last. */
static void timed_sync(struct backend *b)
{
    struct timed *t = timed_of(b);
    t->in->ops->sync(t->in);
    t->synced = true;
}

static struct backend_mat *timed_mat_new(struct backend *b, enum backend_type type, int n, int k,
                                         struct err *e)
{
    struct timed *t = timed_of(b);
    struct backend_mat *m = t->in->ops->mat_new(t->in, type, n, k, e);
    if (!m) return NULL;
    t->mat = mem_resize(t->mat, (size_t)t->n_mat + 1, sizeof *t->mat);
    t->mat[t->n_mat++] = (struct mat_size){ m, n, k };
    return m;
}

static void timed_mat_rows(struct backend *b, struct backend_mat *w, int n_at, int n_row,
                           enum elt from, const void *rows)
{
    struct backend *in = timed_of(b)->in;
    in->ops->mat_rows(in, w, n_at, n_row, from, rows);
}

static struct backend_kv *timed_kv_new(struct backend *b, enum backend_type type,
                                       const int32_t shape[4], struct err *e)
{
    struct timed *t = timed_of(b);
    struct backend_kv *kv = t->in->ops->kv_new(t->in, type, shape, e);
    if (!kv) return NULL;
    t->kv = mem_resize(t->kv, (size_t)t->n_kv + 1, sizeof *t->kv);
    t->kv[t->n_kv++] = (struct kv_size){ kv, shape[1], shape[3], type == BACKEND_F32 ? 4 : 2 };
    return kv;
}

static int timed_reserve(struct backend *b, int32_t m, struct err *e)
{
    struct backend *in = timed_of(b)->in;
    return in->ops->reserve(in, m, e);
}

/* ---- operations */

static void timed_embed(struct backend *b, const struct backend_mat *w, const int32_t *tok,
                        int32_t m, int32_t row0, float *x)
{
    struct timed *t = timed_of(b);
    int64_t n = 0;
    for (int i = 0; i < t->n_mat && !n; i++)
        if (t->mat[i].mat == w) n = t->mat[i].k;
    struct backend *in = start(t);
    in->ops->embed(in, w, tok, m, row0, x);
    end(t, BACKEND_TIMED_EMBED, (struct size){ m, n, 0 });
    t->place = AT_LAYER;
}

/* Layers use their matrices in the order in which they were made, or nearly. */
static const struct mat_size *find_mat(struct timed *t, const struct backend_mat *w)
{
    static const struct mat_size none = { 0 };
    for (int i = 0; i < t->n_mat; i++) {
        int at = (t->at + 1 + i) % t->n_mat;
        if (t->mat[at].mat != w) continue;
        t->at = at;
        return &t->mat[at];
    }
    return &none;
}

static enum backend_timed_part next_product(struct timed *t)
{
    switch (t->place) {
    case AT_ATTN: t->place = AT_MLP; return BACKEND_TIMED_OUT;
    case AT_MLP: return BACKEND_TIMED_GATE_UP;
    case AT_ACT: t->place = AT_LAYER; return BACKEND_TIMED_DOWN;
    case AT_END: t->place = AT_LAYER; return BACKEND_TIMED_HEAD;
    case AT_LAYER: break;
    }
    return BACKEND_TIMED_QKV;
}

static void timed_mm(struct backend *b, const struct backend_mm *a)
{
    struct timed *t = timed_of(b);
    struct backend *in = start(t);
    t->now = next_product(t);
    in->ops->mm(in, a);
    const struct mat_size *w = find_mat(t, a->w);
    end(t, t->now, (struct size){ a->m, w->n, w->k });
}

static void timed_norm(struct backend *b, const struct backend_norm *w, const float *x, float *y,
                       const int32_t s[2])
{
    struct timed *t = timed_of(b);
    struct backend *in = start(t);
    t->now = t->place == AT_END ? BACKEND_TIMED_NORM_FINAL : BACKEND_TIMED_NORM;
    in->ops->norm(in, w, x, y, s);
    end(t, t->now, (struct size){ s[0], s[1], 0 });
}

static void timed_head_norm(struct backend *b, const struct backend_norm *w,
                            const struct backend_rope *a)
{
    struct timed *t = timed_of(b);
    struct backend *in = start(t);
    in->ops->head_norm(in, w, a);
    end(t, BACKEND_TIMED_NORM_HEAD, (struct size){ a->m, (int64_t)a->n_head * a->head_dim, 0 });
}

static void timed_rope(struct backend *b, const struct backend_rope *a)
{
    struct timed *t = timed_of(b);
    struct backend *in = start(t);
    in->ops->rope(in, a);
    end(t, BACKEND_TIMED_ROPE, (struct size){ a->m, (int64_t)a->n_head * a->head_dim, 0 });
}

static const struct kv_size *find_kv(const struct timed *t, const struct backend_kv *kv)
{
    static const struct kv_size none = { 0 };
    for (int i = 0; i < t->n_kv; i++)
        if (t->kv[i].kv == kv) return &t->kv[i];
    return &none;
}

static void timed_kv_put(struct backend *b, const struct backend_attn *a)
{
    struct timed *t = timed_of(b);
    const struct kv_size *kv = find_kv(t, a->kv);
    struct backend *in = start(t);
    in->ops->kv_put(in, a);
    end(t, BACKEND_TIMED_KV_PUT,
        (struct size){ a->n_row, 2 * (int64_t)kv->n_head * kv->head_dim, 0 });
}

static void note_attn(struct timed *t, const struct backend_attn *a, const struct kv_size *kv)
{
    t->step.attn.n_row = a->n_row;
    t->step.attn.n_seq = a->n_seq;
    t->step.attn.n_head = a->n_head;
    t->step.attn.n_kv_head = kv->n_head;
    t->step.attn.head_dim = kv->head_dim;
    t->step.attn.kv_elt_bytes = kv->elt_bytes;
    for (int32_t i = 0; i < a->n_seq; i++) {
        int64_t q = a->seq[i].n_q, p = a->seq[i].pos;
        t->step.attn.sum_pos += p;
        if (p > t->step.attn.max_pos) t->step.attn.max_pos = p;
        t->step.attn.pairs += q * p + q * (q + 1) / 2;
    }
}

static void timed_attn(struct backend *b, const struct backend_attn *a)
{
    struct timed *t = timed_of(b);
    const struct kv_size *kv = find_kv(t, a->kv);
    if (t->step.cell[BACKEND_TIMED_ATTN].calls == 0) note_attn(t, a, kv);
    struct backend *in = start(t);
    in->ops->attn(in, a);
    end(t, BACKEND_TIMED_ATTN, (struct size){ a->n_row, (int64_t)a->n_head * kv->head_dim, 0 });
    t->place = AT_ATTN;
}

static void timed_silu_mul(struct backend *b, const float *x, float *y, int32_t m, int32_t n)
{
    struct timed *t = timed_of(b);
    struct backend *in = start(t);
    in->ops->silu_mul(in, x, y, m, n);
    end(t, BACKEND_TIMED_ACT, (struct size){ m, n, 0 });
    t->place = AT_ACT;
}

static void timed_gelu(struct backend *b, float *x, int64_t n)
{
    struct timed *t = timed_of(b);
    struct backend *in = start(t);
    in->ops->gelu(in, x, n);
    end(t, BACKEND_TIMED_ACT, (struct size){ 1, n, 0 });
    t->place = AT_ACT;
}

static void timed_add(struct backend *b, float *y, const float *x, int64_t n)
{
    struct timed *t = timed_of(b);
    struct backend *in = start(t);
    in->ops->add(in, y, x, n);
    end(t, BACKEND_TIMED_ADD, (struct size){ 1, n, 0 });
}

static void timed_add_bias(struct backend *b, float *y, const float *bias, int32_t m, int32_t n)
{
    struct timed *t = timed_of(b);
    struct backend *in = start(t);
    in->ops->add_bias(in, y, bias, m, n);
    end(t, BACKEND_TIMED_BIAS, (struct size){ m, n, 0 });
}

static void timed_pick(struct backend *b, const float *x, const int32_t *at, float *y,
                       const int32_t s[2])
{
    struct timed *t = timed_of(b);
    struct backend *in = start(t);
    in->ops->pick(in, x, at, y, s);
    end(t, BACKEND_TIMED_PICK, (struct size){ s[0], s[1], 0 });
    t->place = AT_END;
}

/* ---- the whole */

struct backend *backend_timed_wrap(struct backend *inner)
{
    struct timed *t = mem_zalloc(1, sizeof *t);
    t->in = inner;
    t->ops = *inner->ops; /* mat_bytes and kv_bytes know no backend */
    t->ops.close = timed_close;
    t->ops.alloc = timed_alloc;
    t->ops.upload = timed_upload;
    t->ops.download = timed_download;
    t->ops.view = timed_view;
    t->ops.sync = timed_sync;
    t->ops.mat_new = timed_mat_new;
    t->ops.mat_rows = timed_mat_rows;
    t->ops.kv_new = timed_kv_new;
    t->ops.reserve = timed_reserve;
    t->ops.embed = timed_embed;
    t->ops.mm = timed_mm;
    t->ops.norm = timed_norm;
    t->ops.head_norm = timed_head_norm;
    t->ops.rope = timed_rope;
    t->ops.kv_put = timed_kv_put;
    t->ops.attn = timed_attn;
    t->ops.silu_mul = timed_silu_mul;
    t->ops.gelu = timed_gelu;
    t->ops.add = timed_add;
    t->ops.add_bias = timed_add_bias;
    t->ops.pick = timed_pick;
    t->b.ops = &t->ops;
    return &t->b;
}

struct backend *backend_timed_open(struct team *t, const char *kernels, struct err *e)
{
    struct backend *b = backend_cpu_open(t, kernels, e);
    return b ? backend_timed_wrap(b) : NULL;
}

bool backend_timed_is(const struct backend *b)
{
    return b && b->ops->mm == timed_mm;
}

struct backend *backend_timed_inner(const struct backend *b)
{
    return ((const struct timed *)b)->in;
}

enum backend_timed_part backend_timed_now(const struct backend *b)
{
    return ((const struct timed *)b)->now;
}

void backend_timed_clear(struct backend *b)
{
    struct timed *t = timed_of(b);
    t->step = (struct backend_timed_step){ 0 };
    t->began = t->synced = false;
    t->place = AT_LAYER;
}

void backend_timed_read(const struct backend *b, struct backend_timed_step *out)
{
    *out = ((const struct timed *)b)->step;
}
