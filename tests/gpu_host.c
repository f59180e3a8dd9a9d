/* tests/gpu_host.c - a queue of operations that wait runs, and memory that only wait can touch.
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* MAP_ANONYMOUS */
#include "tests/gpu_host.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/rng.h"
#include "engine/gpu_block.h"
#include "tests/gpu_fibre.h"
#include "tests/gpu_host_kern.h"

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#ifdef WITH_ASAN
#include <sanitizer/asan_interface.h>
#endif

enum { GUARD_BYTES = 256, PAGE_BYTES = 4096, CHUNK_BYTES = 4 << 20, POISON = 0xff };

struct chunk { /* of mapped memory, from which pieces are cut one after another */
    char *base;
    size_t bytes, used;
    bool pinned;
};

struct piece { /* one allocation; GUARD_BYTES or more of guard follow it, and precede the first */
    char *at;
    size_t bytes, guard_bytes;
    bool pinned;
};

enum op_kind { OP_KERN, OP_MOVE, OP_MM, OP_GRAPH, OP_EVENT };

struct op {
    enum op_kind kind;
    enum gpu_kern k;
    struct gpu_dim dim;
    void *own; /* arguments of a kernel, or what a put has staged; NULL: none */
    void *to;
    const void *from;
    size_t bytes;
    struct gpu_mm mm;
    struct gpu_graph *graph;
    struct gpu_event *event;
};

struct queue {
    struct op *op;
    int n, cap;
};

struct gpu_graph {
    struct queue q;
    struct gpu_graph *next;
};

struct gpu_event {
    int64_t at; /* operations run before it; -1: not passed since it was set */
    struct gpu_event *next;
};

struct plan {
    enum gpu_elt type;
    int32_t m, n, k;
};

struct host {
    struct gpu g;
    struct gpu_host_opts opts;
    struct gpu_host_tally tally;
    struct gpu_fibre *fibre;
    struct chunk *chunk;
    struct piece *piece;
    struct plan *plan;
    int n_chunk, n_piece, n_plan;
    struct queue q;
    struct gpu_graph *graph, *recording;
    struct gpu_event *event;
    int64_t n_run;
    bool dead;
};

static const char *const call_name[GPU_HOST_N_CALL] = {
    "alloc",     "alloc_pinned", "put",        "get",      "launch",       "mm",
    "plan",      "wait",         "record",     "recorded", "graph_launch", "event_new",
    "event_set", "event_ns",     "event_wait", "run"
};

static void poison(const void *p, size_t bytes, bool on)
{
#ifdef WITH_ASAN
    if (on)
        __asan_poison_memory_region(p, bytes);
    else
        __asan_unpoison_memory_region(p, bytes);
#else
    (void)p;
    (void)bytes;
    (void)on;
#endif
}

/* A signalling NaN, of f32 and of BF16: whoever computes with it makes another number of it. */
static unsigned char guard_byte(const char *p)
{
    return (uintptr_t)p % 2 ? 0xff : 0xa5;
}

static void guard(char *p, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) p[i] = (char)guard_byte(p + i);
    poison(p, bytes, true);
}

static bool guard_whole(const char *p, size_t bytes)
{
    bool whole = true;
    poison(p, bytes, false);
    for (size_t i = 0; i < bytes; i++) whole = whole && (unsigned char)p[i] == guard_byte(p + i);
    poison(p, bytes, true);
    return whole;
}

static void *grown(void *p, int n, size_t each)
{
    if (n & (n - 1)) return p; /* room for a power of two */
    p = realloc(p, (size_t)(n ? 2 * n : 1) * each);
    assert(p);
    return p;
}

static struct host *host_of(const struct gpu *g)
{
    return (struct host *)(void *)g;
}

static int die(struct host *h, struct err *e, const char *what)
{
    h->dead = true;
    return err_set(e, ST_DEVICE, "host GPU: %s", what);
}

/* Before each call: does it still work, and is it not the one that has to fail? */
static int enter(struct host *h, enum gpu_host_call what, struct err *e)
{
    int64_t n = ++h->tally.call[what];
    if (h->dead) return err_set(e, ST_DEVICE, "host GPU: %s after a failure", call_name[what]);
    if (n != h->opts.fail_at[what]) return ST_OK;
    h->dead = true;
    return err_set(e, ST_DEVICE, "host GPU: %s number %" PRId64 " fails as it was told to",
                   call_name[what], n);
}

static int not_recording(struct host *h, enum gpu_host_call what, struct err *e)
{
    char why[80];
    if (!h->recording) return ST_OK;
    snprintf(why, sizeof why, "%s while recording", call_name[what]);
    return die(h, e, why);
}

/* ---- memory --------------------------------------------------------------------------------- */
static void open_memory(struct host *h, bool open)
{
    for (int i = 0; i < h->n_chunk; i++)
        if (!h->chunk[i].pinned)
            (void)mprotect(h->chunk[i].base, h->chunk[i].bytes,
                           open ? PROT_READ | PROT_WRITE : PROT_NONE);
}

static struct chunk *chunk_for(struct host *h, size_t bytes, bool pinned)
{
    for (int i = 0; i < h->n_chunk; i++)
        if (h->chunk[i].pinned == pinned && h->chunk[i].bytes - h->chunk[i].used >= bytes)
            return &h->chunk[i];
    struct chunk c = { .bytes = (bytes + GUARD_BYTES + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES,
                       .pinned = pinned };
    if (c.bytes < CHUNK_BYTES) c.bytes = CHUNK_BYTES;
    c.base = mmap(NULL, c.bytes, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (c.base == MAP_FAILED) return NULL;
    guard(c.base, GUARD_BYTES);
    c.used = GUARD_BYTES;
    h->chunk = grown(h->chunk, h->n_chunk, sizeof *h->chunk);
    h->chunk[h->n_chunk] = c;
    return &h->chunk[h->n_chunk++];
}

static int cut_piece(struct host *h, size_t bytes, bool pinned, void **out, struct err *e)
{
    struct piece p = { .bytes = bytes, .pinned = pinned };
    p.guard_bytes = GUARD_BYTES + (GUARD_BYTES - bytes % GUARD_BYTES) % GUARD_BYTES;
    struct chunk *c = chunk_for(h, bytes + p.guard_bytes, pinned);
    if (!c) return die(h, e, "no memory on the host itself");
    p.at = c->base + c->used;
    c->used += bytes + p.guard_bytes;
    if (!pinned) (void)mprotect(c->base, c->bytes, PROT_READ | PROT_WRITE);
    guard(p.at + bytes, p.guard_bytes);
    if (!pinned) (void)mprotect(c->base, c->bytes, PROT_NONE);
    h->piece = grown(h->piece, h->n_piece, sizeof *h->piece);
    h->piece[h->n_piece++] = p;
    *out = p.at;
    return ST_OK;
}

static int host_alloc(struct gpu *g, size_t bytes, void **out, struct err *e)
{
    struct host *h = host_of(g);
    int st = enter(h, GPU_HOST_ALLOC, e);
    if (!st) st = not_recording(h, GPU_HOST_ALLOC, e);
    if (st) return st;
    if (bytes > (uint64_t)g->info.free_bytes) {
        h->dead = true;
        return err_set(e, ST_DEVICE,
                       "host GPU: out of memory: asked for %zu bytes, %" PRId64 " of %" PRId64
                       " are free",
                       bytes, g->info.free_bytes, g->info.memory_bytes);
    }
    g->info.free_bytes -= (int64_t)bytes;
    h->tally.device_bytes += (int64_t)bytes;
    return cut_piece(h, bytes, false, out, e);
}

static int host_alloc_pinned(struct gpu *g, size_t bytes, void **out, struct err *e)
{
    struct host *h = host_of(g);
    int st = enter(h, GPU_HOST_ALLOC_PINNED, e);
    if (!st) st = not_recording(h, GPU_HOST_ALLOC_PINNED, e);
    if (st) return st;
    h->tally.pinned_bytes += (int64_t)bytes;
    return cut_piece(h, bytes, true, out, e);
}

/* The allocation in which [p, p + bytes) lies; NULL: none. */
static const struct piece *piece_of(const struct host *h, const void *p, size_t bytes)
{
    uintptr_t at = (uintptr_t)p;
    for (int i = 0; i < h->n_piece; i++) {
        uintptr_t base = (uintptr_t)h->piece[i].at;
        if (at >= base && at - base <= h->piece[i].bytes &&
            bytes <= h->piece[i].bytes - (at - base))
            return &h->piece[i];
    }
    return NULL;
}

static bool guards_whole(struct host *h)
{
    bool whole = true;
    for (int i = 0; i < h->n_piece; i++) {
        const struct piece *p = &h->piece[i];
        whole = guard_whole(p->at + p->bytes, p->guard_bytes) && whole;
    }
    return whole;
}

int gpu_host_check(struct gpu *g, struct err *e)
{
    struct host *h = host_of(g);
    open_memory(h, true);
    bool whole = guards_whole(h);
    open_memory(h, false);
    return whole ? ST_OK : die(h, e, "something wrote past the end of an allocation");
}

/* ---- issuing -------------------------------------------------------------------------------- */
static int push(struct host *h, const struct op *op)
{
    struct queue *q = h->recording ? &h->recording->q : &h->q;
    if (q->n == q->cap) {
        q->cap = q->cap ? 2 * q->cap : 16;
        q->op = realloc(q->op, (size_t)q->cap * sizeof *q->op);
        assert(q->op);
    }
    q->op[q->n++] = *op;
    return ST_OK;
}

static void drop(struct queue *q)
{
    for (int i = 0; i < q->n; i++) free(q->op[i].own);
    q->n = 0;
}

static void *copied(const void *p, size_t bytes)
{
    void *own = malloc(bytes ? bytes : 1);
    assert(own);
    memcpy(own, p, bytes);
    return own;
}

static int host_put(struct gpu *g, void *to, const void *from, size_t bytes, struct err *e)
{
    struct host *h = host_of(g);
    struct op op = { .kind = OP_MOVE, .to = to, .from = from, .bytes = bytes };
    int st = enter(h, GPU_HOST_PUT, e);
    if (st) return st;
    if (!piece_of(h, to, bytes)) return die(h, e, "put to what is not memory of the device");
    if (!piece_of(h, from, bytes)) {
        if (h->recording) return die(h, e, "put from unpinned memory while recording");
        op.own = copied(from, bytes);
        op.from = op.own;
    }
    return push(h, &op);
}

static int host_get(struct gpu *g, void *to, const void *from, size_t bytes, struct err *e)
{
    struct host *h = host_of(g);
    struct op op = { .kind = OP_MOVE, .to = to, .from = from, .bytes = bytes };
    int st = enter(h, GPU_HOST_GET, e);
    if (st) return st;
    if (!piece_of(h, from, bytes)) return die(h, e, "get from what is not memory of the device");
    if (h->recording && !piece_of(h, to, bytes))
        return die(h, e, "get to unpinned memory while recording");
    return push(h, &op);
}

static int check_dim(struct host *h, enum gpu_kern k, const struct gpu_dim *d, struct err *e)
{
    if (d->x > 0 && d->y > 0 && d->z > 0 && d->y <= 65535 && d->z <= 65535 && d->threads > 0 &&
        d->threads % 32 == 0 && d->threads <= gpu_kern_max_threads(k) && d->shared_bytes >= 0 &&
        d->shared_bytes <= h->g.info.max_shared_bytes)
        return ST_OK;
    h->dead = true;
    return err_set(e, ST_DEVICE,
                   "host GPU: kernel %s cannot be launched with grid (%d, %d, %d), %d threads, %d "
                   "bytes of shared memory",
                   gpu_kern_name(k), d->x, d->y, d->z, d->threads, d->shared_bytes);
}

static int check_args(struct host *h, enum gpu_kern k, const void *args, struct err *e)
{
    const struct gpu_host_pointer *p;
    for (int i = 0; (p = gpu_host_pointer(i)) != NULL; i++) {
        void *v;
        if (p->k != k) continue;
        memcpy(&v, (const char *)args + p->at, sizeof v);
        if (!v || piece_of(h, v, 0)) continue;
        h->dead = true;
        return err_set(e, ST_DEVICE,
                       "host GPU: argument %s of kernel %s is no memory of the device", p->name,
                       gpu_kern_name(k));
    }
    return ST_OK;
}

static int host_launch(struct gpu *g, enum gpu_kern k, const struct gpu_dim *dim, const void *args,
                       struct err *e)
{
    struct host *h = host_of(g);
    int st = enter(h, GPU_HOST_LAUNCH, e);
    if (!st) st = check_dim(h, k, dim, e);
    if (!st) st = check_args(h, k, args, e);
    if (st) return st;
    struct op op = { .kind = OP_KERN, .k = k, .dim = *dim };
    op.own = copied(args, gpu_kern_arg_bytes(k));
    return push(h, &op);
}

static bool planned(const struct host *h, const struct gpu_mm *a)
{
    for (int i = 0; i < h->n_plan; i++) {
        const struct plan *p = &h->plan[i];
        if (p->type == a->type && p->m == a->m && p->n == a->n && p->k == a->k) return true;
    }
    return false;
}

static int check_mm(struct host *h, const struct gpu_mm *a, struct err *e)
{
    int least = a->type == GPU_E4M3 ? 89 : a->type == GPU_BF16 ? 80 : 0;
    if (h->g.info.sm < least) return die(h, e, "no product of that type on this architecture");
    if (a->m <= 0 || a->n <= 0 || a->k <= 0) return die(h, e, "an empty product");
    if ((a->type == GPU_E4M3) != (a->x_scale && a->w_scale))
        return die(h, e, "a product's scales are for E4M3, and needed there");
    return ST_OK;
}

static void note_plan(struct host *h, const struct gpu_mm *a)
{
    if (planned(h, a)) return;
    h->plan = grown(h->plan, h->n_plan, sizeof *h->plan);
    h->plan[h->n_plan++] = (struct plan){ a->type, a->m, a->n, a->k };
    h->tally.planned = h->n_plan;
}

static int host_plan(struct gpu *g, const struct gpu_mm *a, struct err *e)
{
    struct host *h = host_of(g);
    int st = enter(h, GPU_HOST_PLAN, e);
    if (!st) st = not_recording(h, GPU_HOST_PLAN, e);
    if (!st) st = check_mm(h, a, e);
    if (!st) note_plan(h, a);
    return st;
}

static int host_mm(struct gpu *g, const struct gpu_mm *a, struct err *e)
{
    struct host *h = host_of(g);
    size_t one = gpu_elt_bytes(a->type), m = (size_t)a->m, n = (size_t)a->n, k = (size_t)a->k;
    int st = enter(h, GPU_HOST_MM, e);
    if (!st) st = check_mm(h, a, e);
    if (st) return st;
    if (!piece_of(h, a->x, m * k * one) || !piece_of(h, a->w, n * k * one) ||
        !piece_of(h, a->y, m * n * 4) || (a->x_scale && !piece_of(h, a->x_scale, 4)) ||
        (a->w_scale && !piece_of(h, a->w_scale, 4)))
        return die(h, e, "a product reaches past the memory of the device");
    if (h->recording && !planned(h, a)) return die(h, e, "an unplanned product while recording");
    note_plan(h, a);
    struct op op = { .kind = OP_MM, .mm = *a };
    return push(h, &op);
}

/* ---- running -------------------------------------------------------------------------------- */
static int64_t gcd(int64_t a, int64_t b)
{
    return b ? gcd(b, a % b) : a;
}

/* Blocks in the order asked for: forward, backward, or by steps that reach all. */
static int run_blocks(struct host *h, const struct op *op, struct gpu_fibre_block *b, struct err *e)
{
    const struct gpu_dim *d = &op->dim;
    int64_t n = (int64_t)d->x * d->y * d->z, from = 0, step = 1;
    size_t shared_bytes = (size_t)d->shared_bytes;
    if (b->order == GPU_FIBRE_REVERSE) from = n - 1, step = n - 1;
    if (b->order > GPU_FIBRE_REVERSE) {
        from = (int64_t)(mix_pair(b->order, 1) % (uint64_t)n);
        step = 1 + (int64_t)(mix_pair(b->order, 2) % (uint64_t)n);
        while (gcd(step, n) != 1) step++;
    }
    for (int64_t i = 0, at = from; i < n; i++, at = (at + step) % n) {
        b->x = (int32_t)(at % d->x);
        b->y = (int32_t)(at / d->x % d->y);
        b->z = (int32_t)(at / d->x / d->y);
        memset(b->shared, POISON, shared_bytes);
        int st = gpu_fibre_run(h->fibre, b, e);
        if (st) return st;
        if (gpu_host_here.begun != b->threads)
            return err_set(e, ST_DEVICE, "of %d threads of kernel %s %d have called gpu_begin once",
                           b->threads, b->name, gpu_host_here.begun);
        if (!guard_whole(b->shared + shared_bytes, GUARD_BYTES))
            return err_set(e, ST_DEVICE, "kernel %s wrote past its %d bytes of shared memory",
                           b->name, d->shared_bytes);
    }
    return ST_OK;
}

static int run_kern(struct host *h, const struct op *op, struct err *e)
{
    size_t shared_bytes = (size_t)op->dim.shared_bytes;
    char *shared = malloc(shared_bytes + GUARD_BYTES);
    assert(shared);
    struct gpu_fibre_block b = { .name = gpu_kern_name(op->k),
                                 .fn = gpu_host_kern(op->k),
                                 .args = op->own,
                                 .shared = shared,
                                 .threads = op->dim.threads,
                                 .n_x = op->dim.x,
                                 .sm = h->g.info.sm,
                                 .order = h->opts.order };
    if (b.order > GPU_FIBRE_REVERSE) b.order = mix_pair(b.order, (uint64_t)h->n_run) | 2;
    guard(shared + shared_bytes, GUARD_BYTES);
    h->tally.kern[op->k]++;
    int st = run_blocks(h, op, &b, e);
    poison(shared + shared_bytes, GUARD_BYTES, false);
    free(shared);
    return st;
}

static void run_mm(const struct gpu_mm *a)
{
    size_t m = (size_t)a->m, n = (size_t)a->n, k = (size_t)a->k;
    float *x = malloc((m + 1) * k * sizeof *x), *w = x + m * k;
    double by = a->x_scale ? (double)*a->x_scale * (double)*a->w_scale : 1;
    assert(x);
    for (size_t i = 0; i < m * k; i++) x[i] = gpu_get(a->type, a->x, (int64_t)i);
    for (size_t j = 0; j < n; j++) {
        for (size_t i = 0; i < k; i++) w[i] = gpu_get(a->type, a->w, (int64_t)(j * k + i));
        for (size_t r = 0; r < m; r++) {
            double sum = 0;
            for (size_t i = 0; i < k; i++) sum += (double)x[r * k + i] * (double)w[i];
            a->y[r * n + j] = (float)(sum * by);
        }
    }
    free(x);
}

static int run_queue(struct host *h, const struct queue *q, struct err *e)
{
    int st = ST_OK;
    for (int i = 0; i < q->n && !st; i++) {
        const struct op *op = &q->op[i];
        if (op->kind != OP_GRAPH) st = enter(h, GPU_HOST_RUN, e);
        if (st) break;
        switch (op->kind) {
        case OP_KERN: st = run_kern(h, op, e); break;
        case OP_MOVE: memmove(op->to, op->from, op->bytes); break;
        case OP_MM: run_mm(&op->mm); break;
        case OP_GRAPH: st = run_queue(h, &op->graph->q, e); break;
        case OP_EVENT: op->event->at = h->n_run; break;
        }
        h->n_run += op->kind != OP_GRAPH && op->kind != OP_EVENT;
    }
    return st;
}

/* The first n of what was issued. */
static int run_first(struct host *h, int n, struct err *e)
{
    struct queue first = { .op = h->q.op, .n = n };
    if (n == 0) return ST_OK;
    open_memory(h, true);
    int st = run_queue(h, &first, e);
    open_memory(h, false);
    drop(&first);
    h->q.n -= n;
    memmove(h->q.op, h->q.op + n, (size_t)h->q.n * sizeof *h->q.op);
    if (st) h->dead = true;
    return !st && h->opts.check_each_wait ? gpu_host_check(&h->g, e) : st;
}

static int host_wait(struct gpu *g, struct err *e)
{
    struct host *h = host_of(g);
    int st = enter(h, GPU_HOST_WAIT, e);
    if (!st) st = not_recording(h, GPU_HOST_WAIT, e);
    return st ? st : run_first(h, h->q.n, e);
}

/* ---- recordings, events --------------------------------------------------------------------- */
static int host_record(struct gpu *g, struct err *e)
{
    struct host *h = host_of(g);
    int st = enter(h, GPU_HOST_RECORD, e);
    if (!st) st = not_recording(h, GPU_HOST_RECORD, e);
    if (st) return st;
    h->recording = calloc(1, sizeof *h->recording);
    assert(h->recording);
    h->recording->next = h->graph;
    h->graph = h->recording;
    return ST_OK;
}

static int host_recorded(struct gpu *g, struct gpu_graph **out, struct err *e)
{
    struct host *h = host_of(g);
    int st = enter(h, GPU_HOST_RECORDED, e);
    if (st) return st;
    if (!h->recording) return die(h, e, "recorded without record");
    *out = h->recording;
    h->recording = NULL;
    return ST_OK;
}

static int host_graph_launch(struct gpu *g, struct gpu_graph *graph, struct err *e)
{
    struct host *h = host_of(g);
    int st = enter(h, GPU_HOST_GRAPH_LAUNCH, e);
    if (!st) st = not_recording(h, GPU_HOST_GRAPH_LAUNCH, e);
    if (st) return st;
    struct op op = { .kind = OP_GRAPH, .graph = graph };
    return push(h, &op);
}

static void host_graph_free(struct gpu *g, struct gpu_graph *graph)
{
    struct host *h = host_of(g);
    struct gpu_graph **at = &h->graph;
    if (!graph) return;
    while (*at && *at != graph) at = &(*at)->next;
    assert(*at == graph);
    *at = graph->next;
    for (int i = 0; i < h->q.n; i++)
        h->dead |= h->q.op[i].graph == graph; /* launched, not waited for */
    drop(&graph->q);
    free(graph->q.op);
    free(graph);
}

static int host_event_new(struct gpu *g, struct gpu_event **out, struct err *e)
{
    struct host *h = host_of(g);
    int st = enter(h, GPU_HOST_EVENT_NEW, e);
    if (st) return st;
    struct gpu_event *ev = calloc(1, sizeof *ev);
    assert(ev);
    ev->at = -1;
    ev->next = h->event;
    h->event = ev;
    *out = ev;
    return ST_OK;
}

static int host_event_set(struct gpu *g, struct gpu_event *ev, struct err *e)
{
    struct host *h = host_of(g);
    int st = enter(h, GPU_HOST_EVENT_SET, e);
    if (!st) st = not_recording(h, GPU_HOST_EVENT_SET, e);
    if (st) return st;
    struct op op = { .kind = OP_EVENT, .event = ev };
    ev->at = -1;
    return push(h, &op);
}

static int host_event_ns(struct gpu *g, const struct gpu_event *from, const struct gpu_event *to,
                         double *ns, struct err *e)
{
    struct host *h = host_of(g);
    int st = enter(h, GPU_HOST_EVENT_NS, e);
    if (st) return st;
    if (from->at < 0 || to->at < 0) return die(h, e, "event_ns before a wait");
    *ns = (double)(to->at - from->at);
    return ST_OK;
}

/* Runs what was issued up to the event, if it is among it. */
static int host_event_wait(struct gpu *g, const struct gpu_event *ev, struct err *e)
{
    struct host *h = host_of(g);
    int st = enter(h, GPU_HOST_EVENT_WAIT, e);
    if (!st) st = not_recording(h, GPU_HOST_EVENT_WAIT, e);
    int n = h->q.n;
    while (n > 0 && h->q.op[n - 1].event != ev) n--;
    return st ? st : run_first(h, n, e);
}

static void *host_queue(struct gpu *g)
{
    (void)g;
    return NULL;
}

/* ---- opening, closing ----------------------------------------------------------------------- */
static void host_close(struct gpu *g)
{
    struct host *h = host_of(g);
    open_memory(h, true);
    if (!h->dead && !guards_whole(h)) {
        fputs("host GPU: something wrote past the end of an allocation\n", stderr);
        abort();
    }
    drop(&h->q);
    while (h->graph) host_graph_free(g, h->graph);
    while (h->event) {
        struct gpu_event *next = h->event->next;
        free(h->event);
        h->event = next;
    }
    for (int i = 0; i < h->n_chunk; i++) {
        poison(h->chunk[i].base, h->chunk[i].bytes, false);
        (void)munmap(h->chunk[i].base, h->chunk[i].bytes);
    }
    gpu_fibre_free(h->fibre);
    free(h->q.op);
    free(h->chunk);
    free(h->piece);
    free(h->plan);
    free(h);
}

static const struct gpu_ops host_ops = { "host",
                                         host_close,
                                         host_alloc,
                                         host_alloc_pinned,
                                         host_put,
                                         host_get,
                                         host_launch,
                                         host_mm,
                                         host_plan,
                                         host_wait,
                                         host_record,
                                         host_recorded,
                                         host_graph_launch,
                                         host_graph_free,
                                         host_event_new,
                                         host_event_set,
                                         host_event_ns,
                                         host_event_wait,
                                         NULL,
                                         host_queue };

/* CUDA C++ Programming Guide, technical specifications per compute capability. */
static int max_shared_bytes(int sm)
{
    int kib = 99;
    if (sm == 75) kib = 64;
    if (sm == 80 || sm == 87) kib = 163;
    if (sm == 90 || sm == 100 || sm == 103) kib = 227;
    return kib * 1024;
}

struct gpu *gpu_host_open(const struct gpu_host_opts *opts, struct err *e)
{
    struct host *h = calloc(1, sizeof *h);
    const char *order = getenv("ORRERY_TEST_GPU_ORDER");
    assert(h);
    if (opts) h->opts = *opts;
    if (!h->opts.order && order) h->opts.order = strtoull(order, NULL, 10);
    h->fibre = gpu_fibre_new(e);
    if (!h->fibre) {
        free(h);
        return NULL;
    }
    h->g.ops = &host_ops;
    struct gpu_info *info = &h->g.info;
    snprintf(info->name, sizeof info->name, "host");
    info->sm = h->opts.sm ? h->opts.sm : 80;
    info->n_sm = h->opts.n_sm ? h->opts.n_sm : 8;
    info->max_shared_bytes = max_shared_bytes(info->sm);
    info->l2_bytes = 4 << 20;
    info->memory_bytes = h->opts.memory_bytes ? h->opts.memory_bytes : (int64_t)1 << 30;
    info->free_bytes = info->memory_bytes;
    return &h->g;
}

const struct gpu_host_tally *gpu_host_tally(const struct gpu *g)
{
    return &host_of(g)->tally;
}

void gpu_host_fail(struct gpu *g, enum gpu_host_call what, int64_t n)
{
    struct host *h = host_of(g);
    h->opts.fail_at[what] = n ? h->tally.call[what] + n : 0;
}

void gpu_host_order(struct gpu *g, uint64_t order)
{
    host_of(g)->opts.order = order;
}

struct gpu *gpu_host_or_cuda(const struct gpu_host_opts *opts, struct err *e)
{
    const char *name = getenv("ORRERY_TEST_GPU");
    return name && strcmp(name, "cuda") == 0 ? gpu_cuda_open(0, e) : gpu_host_open(opts, e);
}
