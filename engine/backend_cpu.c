/* engine/backend_cpu.c - the CPU: packed weights and the kernels of engine/kern.h on a team's threads.
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* madvise */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/arena.h"
#include "engine/backend.h"
#include "engine/kern.h"
#include "engine/team.h"

enum {
    HUGE_BYTES = 2 << 20,
    INT8_GROUP = 64,
    /* One S for every tp: row-parallel sums are S slices added as a tree over slices and ranks. */
    SLICES = 8,
    SMALL_M = 8,   /* up to so many rows each thread prepares x for itself, which saves a meeting */
    STREAM_M = 32, /* up to so many rows a unit of a product's work is one panel of weights, */
    UNIT_PANELS = 8,    /* beyond it so many: what kern_mm.c blocks */
    ADD_ALONE = 1 << 14 /* so many additions are not worth a meeting */
};

struct backend_mat {
    struct kern_mat w;
};

struct backend_kv {
    struct kern_kv kv;
    size_t bytes;
};

struct held { /* memory to give back at the end */
    struct held *next;
    void *p;
};

struct cpu {
    struct backend b;
    const struct kern *k;
    struct team *t;
    struct held *held;
    struct backend_mat **mat;
    int n_mat;
    size_t xp_bytes, small_bytes, tmp_bytes; /* of one thread: small_bytes and tmp_bytes */
    unsigned char *xp, *small, *tmp;
    struct kern_seq *seq;
};

static struct cpu *cpu_of(struct backend *b)
{
    return (struct cpu *)b;
}

/* ---- memory */

static void cpu_close(struct backend *b)
{
    struct cpu *c = cpu_of(b);
    for (struct held *h = c->held, *next; h; h = next) {
        next = h->next;
        free(h->p);
        free(h);
    }
    free(c->mat);
    free(c);
}

struct zero {
    char *p;
    size_t unit, n;
};

/* The first touch gets pages from the kernel, near the thread that touches them. */
static void zero_part(void *arg, int part, int n_part)
{
    const struct zero *z = arg;
    size_t from = z->n * (size_t)part / (size_t)n_part,
           to = z->n * ((size_t)part + 1) / (size_t)n_part;
    memset(z->p + from * z->unit, 0, (to - from) * z->unit);
}

static void *cpu_alloc(struct backend *b, size_t bytes, struct err *e)
{
    struct cpu *c = cpu_of(b);
    size_t unit = bytes >= HUGE_BYTES ? HUGE_BYTES : KERN_ALIGN;
    size_t whole = bytes ? (bytes + unit - 1) / unit * unit : unit;
    void *p = whole >= bytes ? aligned_alloc(unit, whole) : NULL;
    if (!p) {
        err_set(e, ST_DEVICE, "not enough memory for %.1f MB", 1e-6 * (double)bytes);
        return NULL;
    }
    if (unit == HUGE_BYTES) (void)madvise(p, whole, MADV_HUGEPAGE); /* slower without, no failure */
    struct zero z = { p, unit, whole / unit };
    if (z.unit == HUGE_BYTES)
        team_run(c->t, zero_part, &z);
    else
        zero_part(&z, 0, 1);
    struct held *h = mem_alloc(sizeof *h);
    *h = (struct held){ c->held, p };
    c->held = h;
    return p;
}

static void cpu_copy(struct backend *b, void *to, const void *from, size_t bytes)
{
    (void)b;
    memcpy(to, from, bytes);
}

static const void *cpu_view(struct backend *b, const void *p)
{
    (void)b;
    return p;
}

static void cpu_sync(struct backend *b)
{
    (void)b; /* every operation has ended when its call returns */
}

static struct backend_mat *cpu_mat_new(struct backend *b, enum backend_type type, int n, int k,
                                       struct err *e)
{
    static const enum kern_type kern_type[] = { KERN_F32, KERN_BF16, KERN_I8 };
    struct cpu *c = cpu_of(b);
    if (type > BACKEND_INT8) {
        err_set(e, ST_USAGE,
                "%s weights need a GPU (--device=cuda); the CPU keeps f32, bf16 or int8",
                type == BACKEND_F16 ? "f16" : "fp8");
        return NULL;
    }
    struct backend_mat *m = cpu_alloc(b, sizeof *m, e);
    if (!m) return NULL;
    kern_mat_init(&m->w, kern_type[type], n, k, type == BACKEND_INT8 ? INT8_GROUP : 0);
    m->w.data = cpu_alloc(b, m->w.bytes, e);
    if (!m->w.data) return NULL;
    c->mat = mem_resize(c->mat, (size_t)c->n_mat + 1, sizeof(struct backend_mat *));
    c->mat[c->n_mat++] = m;
    return m;
}

struct pack {
    struct kern_mat *w;
    struct kern_src src;
    int32_t n_at, n_row;
};

/* Whole panels, but for those that the rows begin and end in. */
static void pack_part(void *arg, int part, int n_part)
{
    const struct pack *p = arg;
    int32_t first = p->n_at / KERN_PANEL, end = p->n_at + p->n_row;
    int64_t n = (end + KERN_PANEL - 1) / KERN_PANEL - first;
    int32_t from = (first + (int32_t)(n * part / n_part)) * KERN_PANEL;
    int32_t to = (first + (int32_t)(n * (part + 1) / n_part)) * KERN_PANEL;
    if (from < p->n_at) from = p->n_at;
    if (to > end) to = end;
    if (from >= to) return;
    struct kern_src src = p->src;
    src.data = (const char *)src.data +
               (size_t)(from - p->n_at) * (size_t)src.ld * kern_type_bytes(src.type);
    kern_pack(p->w, from, to - from, &src);
}

static void cpu_mat_rows(struct backend *b, struct backend_mat *m, int n_at, int n_row,
                         enum elt from, const void *rows)
{
    static const enum kern_type kern_type[] = { KERN_F32, KERN_F16, KERN_BF16 };
    struct pack p = { &m->w, { rows, kern_type[from], m->w.k }, n_at, n_row };
    team_run(cpu_of(b)->t, pack_part, &p);
}

static size_t cpu_mat_bytes(const struct backend_mat *m)
{
    return m->w.bytes;
}

static struct backend_kv *cpu_kv_new(struct backend *b, enum backend_type type, const int32_t s[4],
                                     struct err *e)
{
    struct backend_kv *kv = cpu_alloc(b, sizeof *kv, e);
    if (!kv) return NULL;
    if (type == BACKEND_F16) {
        err_set(e, ST_USAGE,
                "a KV cache in f16 needs a GPU (--device=cuda); the CPU keeps f32 or "
                "bf16");
        return NULL;
    }
    if (s[2] % 8 != 0 || s[3] > KERN_MAX_HEAD_DIM) {
        err_set(
            e, ST_USAGE,
            "KV blocks of %d tokens, heads of %d: the CPU kernels take blocks of multiples of 8 "
            "tokens and heads of at most %d",
            s[2], s[3], KERN_MAX_HEAD_DIM);
        return NULL;
    }
    kv->kv = (struct kern_kv){ .type = type == BACKEND_F32 ? KERN_F32 : KERN_BF16,
                               .n_head = s[1],
                               .block_tok = s[2],
                               .head_dim = s[3] };
    size_t bytes = kern_kv_block_bytes(&kv->kv) * (size_t)s[0];
    kv->bytes = 2 * bytes;
    kv->kv.k = cpu_alloc(b, bytes, e);
    if (kv->kv.k) kv->kv.v = cpu_alloc(b, bytes, e);
    return kv->kv.v ? kv : NULL;
}

static size_t cpu_kv_bytes(const struct backend_kv *kv)
{
    return kv->bytes;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t padded(size_t bytes)
{
    return (bytes + KERN_ALIGN - 1) / KERN_ALIGN * KERN_ALIGN;
}

static int cpu_reserve(struct backend *b, int32_t m, struct err *e)
{
    struct cpu *c = cpu_of(b);
    int32_t few = m < SMALL_M ? m : SMALL_M;
    size_t threads = (size_t)team_size(c->t);
    for (int i = 0; i < c->n_mat; i++) {
        const struct kern_mat *w = &c->mat[i]->w;
        c->xp_bytes = larger(c->xp_bytes, padded(kern_xp_bytes(w->type, w->group, m, w->k)));
        c->small_bytes =
            larger(c->small_bytes, padded(kern_xp_bytes(w->type, w->group, few, w->k)));
    }
    for (int s = 1; s <= SLICES; s *= 2)
        c->tmp_bytes = larger(c->tmp_bytes, padded(kern_mm_tmp_bytes(m, s)));
    c->xp = cpu_alloc(b, c->xp_bytes, e);
    if (c->xp) c->small = cpu_alloc(b, c->small_bytes * threads, e);
    if (c->small) c->tmp = cpu_alloc(b, c->tmp_bytes * threads, e);
    if (c->tmp) c->seq = cpu_alloc(b, (size_t)m * sizeof *c->seq, e);
    return c->seq ? ST_OK : ST_DEVICE;
}

/* ---- operations; each is a call on the team's threads over its parts */

struct call {
    struct cpu *c;
    const void *a;
    struct kern_prep prep;
    struct kern_mm mm;
    int32_t n_unit; /* of work, units [0, taken) are some thread's */
    _Atomic int32_t taken;
};

static void cpu_embed(struct backend *b, const struct backend_mat *m, const int32_t *tok, int32_t n,
                      int32_t row0, float *x)
{
    (void)b;
    for (int32_t i = 0; i < n; i++) {
        float *to = x + (int64_t)i * m->w.k;
        int32_t row = tok[i] - row0;
        if (row >= 0 && row < m->w.n)
            kern_unpack_row(&m->w, row, to);
        else
            memset(to, 0, (size_t)m->w.k * sizeof *to);
    }
}

/* Slices of this rank's k, so that all ranks' slices are the same cuts whatever their number. */
static int32_t slices(const struct kern_mat *w, int32_t n_split)
{
    int32_t s = SLICES;
    if (n_split < 1) return 1;
    while (s > 1 && !kern_slice_ok(w->type, w->group, w->k * n_split, s)) s /= 2;
    return s % n_split == 0 && kern_slice_ok(w->type, w->group, w->k, s / n_split) ? s / n_split
                                                                                   : 1;
}

static void mm_prep(void *arg, int part, int n_part)
{
    struct call *k = arg;
    k->c->k->prep(&k->prep, part, n_part);
}

/* The thread's next units [*at, result) of the call: the fewer are left the fewer at a time, as
 * threads do not get equal shares of the memory's bandwidth, nor of the processor on a busy host. */
static int32_t take_units(struct call *k, int n_part, int32_t *at)
{
    int32_t n, from = atomic_load_explicit(&k->taken, memory_order_relaxed);
    do {
        int32_t left = k->n_unit - from;
        if (left <= 0) return *at = 0;
        n = (left + 2 * n_part - 1) / (2 * n_part);
    } while (!atomic_compare_exchange_weak_explicit(&k->taken, &from, from + n,
                                                    memory_order_relaxed, memory_order_relaxed));
    *at = from;
    return from + n;
}

static void mm_run(void *arg, int part, int n_part)
{
    struct call *k = arg;
    struct cpu *c = k->c;
    struct kern_mm mm = k->mm;
    mm.tmp = c->tmp + c->tmp_bytes * (size_t)part;
    if (mm.m <= SMALL_M) {
        struct kern_prep prep = k->prep;
        mm.xp = prep.xp = c->small + c->small_bytes * (size_t)part;
        c->k->prep(&prep, 0, 1);
    }
    if (n_part == 1) {
        c->k->mm(&mm, 0, 1);
        return;
    }
    for (int32_t at, end; (end = take_units(k, n_part, &at)) > 0;)
        for (; at < end; at++) c->k->mm(&mm, at, k->n_unit);
}

static void cpu_mm(struct backend *b, const struct backend_mm *a)
{
    struct cpu *c = cpu_of(b);
    const struct kern_mat *w = &a->w->w;
    struct call k = { .c = c };
    k.prep = (struct kern_prep){ .x = a->x,
                                 .ldx = a->ldx,
                                 .m = a->m,
                                 .k = w->k,
                                 .type = w->type,
                                 .group = w->group,
                                 .xp = c->xp };
    k.mm = (struct kern_mm){
        .w = w, .xp = c->xp, .y = a->y, .ldy = a->ldy, .m = a->m, .n_slice = slices(w, a->n_split)
    };
    int32_t n_panel = (w->n + KERN_PANEL - 1) / KERN_PANEL;
    k.n_unit = a->m <= STREAM_M ? n_panel : (n_panel + UNIT_PANELS - 1) / UNIT_PANELS;
    if (a->m > SMALL_M) team_run(c->t, mm_prep, &k);
    team_run(c->t, mm_run, &k);
}

static void norm_run(void *arg, int part, int n_part)
{
    struct call *k = arg;
    const struct kern_norm *a = k->a;
    if (a->bias)
        k->c->k->layernorm(a, part, n_part);
    else
        k->c->k->rmsnorm(a, part, n_part);
}

static void cpu_norm(struct backend *b, const struct backend_norm *w, const float *x, float *y,
                     const int32_t s[2])
{
    struct kern_norm a = { .y = y,
                           .ldy = s[1],
                           .x = x,
                           .ldx = s[1],
                           .m = s[0],
                           .n = s[1],
                           .weight = w->weight,
                           .bias = w->bias,
                           .eps = w->eps };
    struct call k = { .c = cpu_of(b), .a = &a };
    if (s[0] > 1)
        team_run(k.c->t, norm_run, &k);
    else
        norm_run(&k, 0, 1);
}

struct heads {
    const struct backend_norm *w;
    const struct backend_rope *a;
};

static void head_norm_run(void *arg, int part, int n_part)
{
    struct call *k = arg;
    const struct heads *p = k->a;
    for (int32_t h = 0; h < p->a->n_head; h++) {
        float *x = p->a->x + (int64_t)h * p->a->head_dim;
        struct kern_norm a = { .y = x,
                               .ldy = p->a->ldx,
                               .x = x,
                               .ldx = p->a->ldx,
                               .m = p->a->m,
                               .n = p->a->head_dim,
                               .weight = p->w->weight,
                               .eps = p->w->eps };
        k->c->k->rmsnorm(&a, part, n_part);
    }
}

static void cpu_head_norm(struct backend *b, const struct backend_norm *w,
                          const struct backend_rope *a)
{
    struct heads p = { w, a };
    struct call k = { .c = cpu_of(b), .a = &p };
    if (a->m > 1)
        team_run(k.c->t, head_norm_run, &k);
    else
        head_norm_run(&k, 0, 1);
}

static void rope_run(void *arg, int part, int n_part)
{
    struct call *k = arg;
    k->c->k->rope(k->a, part, n_part);
}

static void cpu_rope(struct backend *b, const struct backend_rope *r)
{
    struct kern_rope a = { .x = r->x,
                           .ldx = r->ldx,
                           .m = r->m,
                           .n_head = r->n_head,
                           .head_dim = r->head_dim,
                           .half = r->head_dim / 2,
                           .cs = r->cs,
                           .at = r->at };
    struct call k = { .c = cpu_of(b), .a = &a };
    if (r->m > 1)
        team_run(k.c->t, rope_run, &k);
    else
        rope_run(&k, 0, 1);
}

static void set_seq(struct cpu *c, const struct backend_attn *a)
{
    for (int32_t i = 0; i < a->n_seq; i++)
        c->seq[i] = (struct kern_seq){ .row = a->seq[i].row,
                                       .n_q = a->seq[i].n_q,
                                       .pos = a->seq[i].pos,
                                       .block = a->seq[i].block };
}

static void put_run(void *arg, int part, int n_part)
{
    struct call *k = arg;
    kern_kv_put(k->a, part, n_part);
}

static void cpu_kv_put(struct backend *b, const struct backend_attn *a)
{
    struct cpu *c = cpu_of(b);
    struct kern_put p = {
        .kv = &a->kv->kv, .seq = c->seq, .n_seq = a->n_seq, .k = a->k, .v = a->v, .ld = a->ld
    };
    struct call k = { .c = c, .a = &p };
    set_seq(c, a);
    if (a->n_row > 1)
        team_run(c->t, put_run, &k);
    else
        put_run(&k, 0, 1);
}

static void attn_run(void *arg, int part, int n_part)
{
    struct call *k = arg;
    k->c->k->attn(k->a, part, n_part);
}

static void cpu_attn(struct backend *b, const struct backend_attn *a)
{
    struct cpu *c = cpu_of(b);
    struct kern_attn at = { .kv = &a->kv->kv,
                            .seq = c->seq,
                            .n_seq = a->n_seq,
                            .n_q_head = a->n_head,
                            .q = a->q,
                            .ldq = a->ld,
                            .out = a->out,
                            .ldo = a->ldo,
                            .scale = a->scale,
                            .window = a->window };
    struct call k = { .c = c, .a = &at };
    set_seq(c, a);
    team_run(c->t, attn_run, &k);
}

struct gated {
    const float *x;
    float *y;
    int32_t m, n;
};

/* Whole rows where there are enough, else columns of every row. */
static void silu_run(void *arg, int part, int n_part)
{
    struct call *k = arg;
    const struct gated *g = k->a;
    bool by_row = g->m >= n_part;
    int64_t r0 = by_row ? (int64_t)g->m * part / n_part : 0;
    int64_t r1 = by_row ? (int64_t)g->m * (part + 1) / n_part : g->m;
    int64_t c0 = by_row ? 0 : (int64_t)g->n * part / n_part;
    int64_t c1 = by_row ? g->n : (int64_t)g->n * (part + 1) / n_part;
    for (int64_t r = r0; r < r1; r++)
        k->c->k->silu_mul(g->y + r * g->n + c0, g->x + 2 * r * g->n + c0,
                          g->x + (2 * r + 1) * g->n + c0, c1 - c0);
}

static void cpu_silu_mul(struct backend *b, const float *x, float *y, int32_t m, int32_t n)
{
    struct gated g = { x, y, m, n };
    struct call k = { .c = cpu_of(b), .a = &g };
    team_run(k.c->t, silu_run, &k);
}

struct span {
    float *y;
    const float *x;
    int64_t n;
};

static void gelu_run(void *arg, int part, int n_part)
{
    struct call *k = arg;
    const struct span *s = k->a;
    int64_t at = s->n * part / n_part, end = s->n * (part + 1) / n_part;
    k->c->k->gelu(s->y + at, s->y + at, end - at);
}

static void cpu_gelu(struct backend *b, float *x, int64_t n)
{
    struct span s = { x, NULL, n };
    struct call k = { .c = cpu_of(b), .a = &s };
    team_run(k.c->t, gelu_run, &k);
}

static void add_run(void *arg, int part, int n_part)
{
    struct call *k = arg;
    const struct span *s = k->a;
    int64_t at = s->n * part / n_part, end = s->n * (part + 1) / n_part;
    k->c->k->add(s->y + at, s->x + at, end - at);
}

static void cpu_add(struct backend *b, float *y, const float *x, int64_t n)
{
    struct span s = { y, x, n };
    struct call k = { .c = cpu_of(b), .a = &s };
    if (n > ADD_ALONE)
        team_run(k.c->t, add_run, &k);
    else
        add_run(&k, 0, 1);
}

static void cpu_add_bias(struct backend *b, float *y, const float *bias, int32_t m, int32_t n)
{
    (void)b;
    kern_add_bias(y, n, bias, m, n);
}

static void cpu_pick(struct backend *b, const float *x, const int32_t *at, float *y,
                     const int32_t s[2])
{
    (void)b;
    for (int32_t i = 0; i < s[0]; i++)
        memcpy(y + (int64_t)i * s[1], x + (int64_t)at[i] * s[1], (size_t)s[1] * sizeof *y);
}

static const struct backend_ops ops = {
    .name = "cpu",
    .close = cpu_close,
    .alloc = cpu_alloc,
    .upload = cpu_copy,
    .download = cpu_copy,
    .view = cpu_view,
    .sync = cpu_sync,
    .mat_new = cpu_mat_new,
    .mat_rows = cpu_mat_rows,
    .mat_bytes = cpu_mat_bytes,
    .kv_new = cpu_kv_new,
    .kv_bytes = cpu_kv_bytes,
    .reserve = cpu_reserve,
    .embed = cpu_embed,
    .mm = cpu_mm,
    .norm = cpu_norm,
    .head_norm = cpu_head_norm,
    .rope = cpu_rope,
    .kv_put = cpu_kv_put,
    .attn = cpu_attn,
    .silu_mul = cpu_silu_mul,
    .gelu = cpu_gelu,
    .add = cpu_add,
    .add_bias = cpu_add_bias,
    .pick = cpu_pick,
};

struct backend *backend_cpu_open(struct team *t, const char *kernels, struct err *e)
{
    const struct kern *k = kernels ? kern_named(kernels) : kern_best();
    if (!k) {
        err_set(e, ST_USAGE, "no kernels '%.40s' on this processor", kernels);
        return NULL;
    }
    struct cpu *c = mem_zalloc(1, sizeof *c);
    c->b.ops = &ops;
    c->k = k;
    c->t = t;
    return &c->b;
}
