/* engine/backend_gpu.c - memory and operations of a GPU; what a kernel computes is gpu_kern.h's.
 * SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "engine/backend_gpu_priv.h"

enum { SM_BF16 = 80, HEAD_MIN = 32, HEAD_UNIT = 8 /* 16 bytes of 16-bit values */ };

/* ---- issuing */

void backend_gpu_launch(struct backend_gpu *c, enum gpu_kern k, const void *args)
{
    struct gpu_dim d;
    if (backend_gpu_failed(c)) return;
    gpu_kern_dim(k, args, &c->g->info, &d);
    (void)c->g->ops->launch(c->g, k, &d, args, &c->err);
}

void backend_gpu_wait(struct backend_gpu *c)
{
    if (!backend_gpu_failed(c)) (void)c->g->ops->wait(c->g, &c->err);
    c->bounce_used = 0;
}

bool backend_gpu_in_step(struct backend_gpu *c, const char *what)
{
    if (!c->in_step && !backend_gpu_failed(c))
        err_set(&c->err, ST_DEVICE, "%s outside of a step: the GPU has no arrays for it", what);
    return c->in_step && !backend_gpu_failed(c);
}

/* ---- memory */

void *backend_gpu_hold(struct backend_gpu *c, size_t bytes)
{
    c->held = mem_resize(c->held, (size_t)c->n_held + 1, sizeof(void *));
    return c->held[c->n_held++] = mem_zalloc(1, bytes);
}

static int gpu_check(struct backend *b, struct err *e)
{
    const struct err *own = &backend_gpu_of(b)->err;
    return own->status == ST_OK ? ST_OK : err_set(e, own->status, "%s", own->text);
}

void *backend_gpu_alloc(struct backend *b, size_t bytes, struct err *e)
{
    struct gpu *g = backend_gpu_of(b)->g;
    void *p = NULL;
    if (gpu_check(b, e) != ST_OK) return NULL;
    return g->ops->alloc(g, bytes ? bytes : 1, &p, e) == ST_OK ? p : NULL;
}

static void *gpu_host(struct backend *b, size_t bytes, struct err *e)
{
    struct gpu *g = backend_gpu_of(b)->g;
    void *p = NULL;
    if (gpu_check(b, e) != ST_OK) return NULL;
    return g->ops->alloc_pinned(g, bytes ? bytes : 1, &p, e) == ST_OK ? p : NULL;
}

static void gpu_close(struct backend *b)
{
    struct backend_gpu *c = backend_gpu_of(b);
    backend_gpu_forget(b);
    backend_gpu_mat_release(c);
    c->g->ops->close(c->g);
    for (int i = 0; i < c->n_held; i++) free(c->held[i]);
    free(c->held);
    free(c);
}

static void gpu_upload(struct backend *b, void *to, const void *from, size_t bytes)
{
    struct backend_gpu *c = backend_gpu_of(b);
    if (backend_gpu_failed(c)) return;
    (void)c->g->ops->put(c->g, to, from, bytes, &c->err);
    backend_gpu_written(c, to);
}

static void gpu_download(struct backend *b, void *to, const void *from, size_t bytes)
{
    struct backend_gpu *c = backend_gpu_of(b);
    if (!backend_gpu_failed(c)) (void)c->g->ops->get(c->g, to, from, bytes, &c->err);
    backend_gpu_wait(c);
}

/* Copies between the device and pinned memory are told apart by the driver. */
static void gpu_copy(struct backend *b, void *to, const void *from, size_t bytes)
{
    gpu_upload(b, to, from, bytes);
}

static const void *gpu_view(struct backend *b, const void *p)
{
    (void)b, (void)p;
    return NULL;
}

static void gpu_sync(struct backend *b)
{
    backend_gpu_wait(backend_gpu_of(b));
}

static bool kv_fits(const struct backend_gpu *c, enum backend_type type, const int32_t s[4],
                    struct err *e)
{
    int sm = c->g->info.sm;
    if (type != BACKEND_F32 && type != BACKEND_BF16 && type != BACKEND_F16)
        err_set(e, ST_USAGE, "a GPU keeps KV as f32, bf16 or f16");
    else if (type == BACKEND_BF16 && sm < SM_BF16)
        err_set(e, ST_USAGE,
                "a KV cache in bf16 needs compute capability 8.0, %s has %d.%d: take f16",
                c->g->info.name, sm / 10, sm % 10);
    else if (s[3] < HEAD_MIN || s[3] > GPU_MAX_HEAD_DIM || s[3] % HEAD_UNIT)
        err_set(e, ST_USAGE, "heads of %d: the GPU kernels take multiples of %d from %d to %d",
                s[3], HEAD_UNIT, HEAD_MIN, GPU_MAX_HEAD_DIM);
    else if ((int64_t)s[0] * s[2] > INT32_MAX / (s[1] > 0 ? s[1] : 1))
        err_set(e, ST_USAGE,
                "%d KV blocks of %d tokens and %d heads: a GPU's cache has less than 2^31 keys",
                s[0], s[2], s[1]);
    else
        return true;
    return false;
}

static struct backend_kv *gpu_kv_new(struct backend *b, enum backend_type type, const int32_t s[4],
                                     struct err *e)
{
    struct backend_gpu *c = backend_gpu_of(b);
    if (!kv_fits(c, type, s, e)) return NULL;
    struct backend_kv *kv = backend_gpu_hold(c, sizeof *kv);
    enum gpu_elt elt = type == BACKEND_F32 ? GPU_F32 : type == BACKEND_BF16 ? GPU_BF16 : GPU_F16;
    kv->kv = (struct gpu_kv){ .type = elt, .n_head = s[1], .block_tok = s[2], .head_dim = s[3] };
    size_t bytes = (size_t)s[0] * (size_t)s[1] * (size_t)s[2] * (size_t)s[3] * gpu_elt_bytes(elt);
    kv->bytes = 2 * bytes;
    kv->kv.k = backend_gpu_alloc(b, bytes, e);
    if (kv->kv.k) kv->kv.v = backend_gpu_alloc(b, bytes, e);
    c->n_kv_head = s[1];
    c->block_tok = s[2];
    c->head_dim = s[3];
    return kv->kv.v ? kv : NULL;
}

static size_t gpu_kv_bytes(const struct backend_kv *kv)
{
    return kv->bytes;
}

/* ---- operations */

static void gpu_embed(struct backend *b, const struct backend_mat *w, const int32_t *tok, int32_t m,
                      int32_t row0, float *x)
{
    struct backend_gpu *c = backend_gpu_of(b);
    (void)tok;
    if (!backend_gpu_in_step(c, "embed")) return;
    ((struct backend_mat *)w)->looked_up = true;
    const struct gpu_embed a = { .s = c->s,
                                 .w = w->data,
                                 .x = x,
                                 .type = w->elt,
                                 .row0 = row0,
                                 .n_row_w = w->n,
                                 .m = m,
                                 .n = w->k,
                                 .w_scale = w->scale };
    backend_gpu_written(c, x);
    backend_gpu_launch(c, GPU_K_embed, &a);
}

static void gpu_add_norm(struct backend *b, const struct backend_add_norm *a)
{
    struct backend_gpu *c = backend_gpu_of(b);
    struct gpu_norm k = {
        .x = a->x, .add = a->add, .bias = a->bias, .bias2 = a->bias2, .m = a->m, .n = a->n
    };
    if (a->add) backend_gpu_written(c, a->x);
    if (a->norm) {
        bool f32;
        k.weight = a->norm->weight;
        k.shift = a->norm->bias;
        k.mean = a->norm->mean;
        k.eps = a->norm->eps;
        k.image = backend_gpu_image(c, a->y, (int64_t)a->m * a->n, &f32);
        k.image_type = c->image_type;
        k.y = f32 ? a->y : NULL;
    }
    backend_gpu_launch(c, GPU_K_norm, &k);
}

static void gpu_norm(struct backend *b, const struct backend_norm *w, const float *x, float *y,
                     const int32_t shape[2])
{
    const struct backend_add_norm a = {
        .x = (float *)x, .norm = w, .y = y, .m = shape[0], .n = shape[1]
    };
    gpu_add_norm(b, &a);
}

static void gpu_rope_put(struct backend *b, const struct backend_rope_put *a)
{
    struct backend_gpu *c = backend_gpu_of(b);
    if (!backend_gpu_in_step(c, "rope")) return;
    const struct gpu_rope_put k = { .s = c->s,
                                    .kv = a->at.kv->kv,
                                    .qkv = a->qkv,
                                    .bias = a->bias,
                                    .norm_q = a->norm_q->weight,
                                    .norm_k = a->norm_k->weight,
                                    .cs = a->cs,
                                    .m = a->at.n_row,
                                    .n_head = a->at.n_head,
                                    .ld = a->at.ld,
                                    .eps = a->norm_q->eps };
    backend_gpu_written(c, a->qkv);
    backend_gpu_launch(c, GPU_K_rope_put, &k);
}

/* Sequences of one token by the decode kernel, the others by that of prefill; each leaves the
 * other's alone. */
static void gpu_attn(struct backend *b, const struct backend_attn *a)
{
    struct backend_gpu *c = backend_gpu_of(b);
    bool f32;
    if (!backend_gpu_in_step(c, "attention")) return;
    assert(a->ldo == (int64_t)a->n_head * a->kv->kv.head_dim && a->n_head <= c->room.n_head);
    struct gpu_attn k = { .s = c->s,
                          .kv = a->kv->kv,
                          .q = a->q,
                          .ld = a->ld,
                          .part = c->part,
                          .lse = c->lse,
                          .image_type = c->image_type,
                          .n_head = a->n_head,
                          .n_seq = c->shape.n_seq,
                          .n_tile = c->shape.n_tile,
                          .n_split = c->shape.n_split,
                          .window = a->window,
                          .scale = a->scale };
    k.image = backend_gpu_image(c, a->out, a->n_row * a->ldo, &f32);
    k.out = f32 ? a->out : NULL;
    if (c->shape.ones) {
        backend_gpu_launch(c, GPU_K_attn_decode, &k);
        if (k.n_split > 1) backend_gpu_launch(c, GPU_K_attn_combine, &k);
    }
    if (k.n_tile > 0)
        backend_gpu_launch(c, k.kv.type == GPU_F32 ? GPU_K_attn_prefill_f32 : GPU_K_attn_prefill,
                           &k);
}

static void act(struct backend_gpu *c, struct gpu_act *a, float *y)
{
    bool f32;
    a->image = backend_gpu_image(c, y, (int64_t)a->m * a->n, &f32);
    a->image_type = c->image_type;
    a->y = f32 ? y : NULL;
    backend_gpu_launch(c, GPU_K_act, a);
}

static void gpu_silu_mul(struct backend *b, const float *x, float *y, int32_t m, int32_t n)
{
    struct gpu_act a = { .x = x, .m = m, .n = n, .gated = 1 };
    act(backend_gpu_of(b), &a, y);
}

static void gpu_gelu(struct backend *b, float *x, int64_t n)
{
    assert(n <= INT32_MAX);
    struct gpu_act a = { .x = x, .m = 1, .n = (int32_t)n };
    act(backend_gpu_of(b), &a, x);
}

static void gpu_add(struct backend *b, float *y, const float *x, int64_t n)
{
    struct backend_gpu *c = backend_gpu_of(b);
    const struct gpu_add a = { .y = y, .x = x, .n = n };
    backend_gpu_written(c, y);
    backend_gpu_launch(c, GPU_K_add, &a);
}

static void gpu_add_bias(struct backend *b, float *y, const float *bias, int32_t m, int32_t n)
{
    struct backend_gpu *c = backend_gpu_of(b);
    const struct gpu_add_bias a = { .y = y, .bias = bias, .m = m, .n = n };
    backend_gpu_written(c, y);
    backend_gpu_launch(c, GPU_K_add_bias, &a);
}

static void gpu_pick(struct backend *b, const float *x, const int32_t *at, float *y,
                     const int32_t shape[2])
{
    struct backend_gpu *c = backend_gpu_of(b);
    (void)at;
    if (!backend_gpu_in_step(c, "pick")) return;
    const struct gpu_pick a = { .s = c->s, .x = x, .y = y, .m = shape[0], .n = shape[1] };
    backend_gpu_written(c, y);
    backend_gpu_launch(c, GPU_K_pick, &a);
}

/* head_norm, rope and kv_put are parts of rope_put. */
static const struct backend_ops ops = {
    .name = "gpu",
    .close = gpu_close,
    .alloc = backend_gpu_alloc,
    .upload = gpu_upload,
    .download = gpu_download,
    .view = gpu_view,
    .sync = gpu_sync,
    .mat_new = backend_gpu_mat_new,
    .mat_rows = backend_gpu_mat_rows,
    .mat_bytes = backend_gpu_mat_bytes,
    .kv_new = gpu_kv_new,
    .kv_bytes = gpu_kv_bytes,
    .reserve = backend_gpu_reserve,
    .embed = gpu_embed,
    .mm = backend_gpu_mm,
    .norm = gpu_norm,
    .attn = gpu_attn,
    .silu_mul = gpu_silu_mul,
    .gelu = gpu_gelu,
    .add = gpu_add,
    .add_bias = gpu_add_bias,
    .pick = gpu_pick,
    .add_norm = gpu_add_norm,
    .rope_put = gpu_rope_put,
    .takes = backend_gpu_takes,
    .check = gpu_check,
    .forget = backend_gpu_forget,
    .host = gpu_host,
    .copy = gpu_copy,
    .room = backend_gpu_room,
    .prepare = backend_gpu_prepare,
    .begin = backend_gpu_begin,
    .end = backend_gpu_end,
    .weave = backend_gpu_weave,
    .sample = backend_gpu_sample,
    .tokens = backend_gpu_tokens,
};

struct backend *backend_gpu_open(struct gpu *g, struct team *t, struct err *e)
{
    const float one = 1;
    struct backend_gpu *c = mem_zalloc(1, sizeof *c);
    c->b.ops = &ops;
    c->g = g;
    c->team = t;
    c->one = backend_gpu_alloc(&c->b, sizeof one, e);
    if (c->one && g->ops->put(g, c->one, &one, sizeof one, e) == ST_OK) return &c->b;
    gpu_close(&c->b);
    return NULL;
}

struct gpu *backend_gpu_device(struct backend *b)
{
    return backend_gpu_of(b)->g;
}

struct backend_gpu_count backend_gpu_counts(const struct backend *b)
{
    return ((const struct backend_gpu *)b)->count;
}
