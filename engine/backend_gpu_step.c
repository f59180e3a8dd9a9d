/* engine/backend_gpu_step.c - a step's arrays on their way to a GPU, and recordings of steps.
 *
 * All arrays of a step are laid out in one piece of pinned memory and copied to the same place of the
 * device's in one piece; where each begins depends on the step's counts alone, so that a recording of
 * equal counts reads the next step's. The pinned pieces take turns, so that a step can be laid out
 * while those before it still run. SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "engine/backend_gpu_priv.h"

enum { UNIT_BYTES = 16, FEW = 8 /* up to so many counts are powers of two, beyond multiples */ };

int32_t backend_gpu_round(int32_t n, int32_t most)
{
    int32_t r = 1;
    if (n < 1 || n > most) return 0;
    while (r < n && r < FEW) r *= 2;
    if (r < n) r = (n + FEW - 1) / FEW * FEW;
    return r < most ? r : most;
}

/* ---- room */

static size_t piece(size_t *at, size_t n, size_t bytes)
{
    size_t begin = *at;
    *at += (n * bytes + UNIT_BYTES - 1) / UNIT_BYTES * UNIT_BYTES;
    return begin;
}

/* The block numbers come last: their number is not one of a recording's counts. */
static struct layout lay_out(const struct shape *h, int32_t n_part, int64_t n_table)
{
    size_t at = 0, i32 = sizeof(int32_t), tok = (size_t)h->n_tok, seq = (size_t)h->n_seq;
    size_t out = (size_t)h->n_out;
    struct layout l;
    l.sample = piece(&at, out, sizeof(struct gpu_sample_row));
    l.tok = piece(&at, tok, i32);
    l.pos = piece(&at, tok, i32);
    l.slot = piece(&at, tok, i32);
    l.row = piece(&at, seq, i32);
    l.n_q = piece(&at, seq, i32);
    l.first = piece(&at, seq, i32);
    l.tile = piece(&at, 2 * (size_t)h->n_tile, i32);
    l.out = piece(&at, out, i32);
    l.weave = piece(&at, n_part > 1 ? out * (size_t)n_part : 0, i32);
    l.table = piece(&at, (size_t)n_table, i32);
    l.bytes = at;
    return l;
}

/* Partial results of split attention: the fewer sequences the more splits. */
static int attention_room(struct backend_gpu *c, struct err *e)
{
    const struct backend_room *r = &c->room;
    size_t most = 0;
    for (int32_t n = 1; n <= r->max_tok; n++) {
        int split = gpu_kern_split(&c->g->info, n, c->n_kv_head, r->max_ctx);
        if (split > 1 && (size_t)n * (size_t)split > most) most = (size_t)n * (size_t)split;
    }
    size_t heads = most * (size_t)r->n_head;
    if (heads == 0) return ST_OK;
    c->part = backend_gpu_alloc(&c->b, heads * (size_t)c->head_dim * sizeof *c->part, e);
    if (c->part) c->lse = backend_gpu_alloc(&c->b, heads * sizeof *c->lse, e);
    return c->lse ? ST_OK : ST_DEVICE;
}

static int scratch_room(struct backend_gpu *c, struct err *e)
{
    if (c->most == 0) return ST_OK;
    c->scratch_n = (size_t)c->most * (size_t)backend_gpu_widest(c);
    c->scratch = backend_gpu_alloc(&c->b, c->scratch_n * sizeof *c->scratch, e);
    return c->scratch ? ST_OK : ST_DEVICE;
}

static int staging_room(struct backend_gpu *c, struct err *e)
{
    const struct backend_room *r = &c->room;
    struct gpu *g = c->g;
    const struct shape largest = {
        .n_tok = r->max_tok, .n_seq = r->max_tok, .n_out = r->max_out, .n_tile = r->max_tok
    };
    size_t tok = (size_t)r->max_out * sizeof *c->tok + UNIT_BYTES;
    c->staged_bytes = lay_out(&largest, r->n_part, r->max_table).bytes;
    c->staged = backend_gpu_alloc(&c->b, c->staged_bytes, e);
    if (c->staged) c->tok = backend_gpu_alloc(&c->b, tok, e);
    if (!c->tok) return ST_DEVICE;
    for (int i = 0; i < c->n_ring; i++) {
        void *in = NULL, *out = NULL;
        if (g->ops->alloc_pinned(g, c->staged_bytes, &in, e) != ST_OK ||
            g->ops->alloc_pinned(g, tok, &out, e) != ST_OK ||
            g->ops->event_new(g, &c->copied[i], e) != ST_OK)
            return ST_DEVICE;
        c->pinned[i] = in;
        c->tok_host[i] = out;
    }
    return ST_OK;
}

int backend_gpu_room(struct backend *b, const struct backend_room *r, struct err *e)
{
    struct backend_gpu *c = backend_gpu_of(b);
    assert(!c->has_room && r->max_tok > 0 && r->n_part > 0 && c->block_tok > 0);
    c->room = *r;
    c->tiles = backend_gpu_hold(c, (size_t)r->max_tok * sizeof *c->tiles);
    c->n_ring = r->depth + 1 < BACKEND_GPU_MAX_DEPTH ? r->depth + 1 : BACKEND_GPU_MAX_DEPTH;
    if (r->window > 0 && r->window < r->max_ctx) c->room.max_ctx = r->window;
    if (r->record) {
        c->most = r->max_tok < r->max_out ? r->max_tok : r->max_out;
        if (c->most > BACKEND_GPU_MAX_RECORD) c->most = BACKEND_GPU_MAX_RECORD;
    }
    int st = staging_room(c, e);
    if (st == ST_OK) st = attention_room(c, e);
    if (st == ST_OK) st = scratch_room(c, e);
    c->has_room = st == ST_OK;
    return st;
}

/* Algorithms for the numbers of rows that recordings have: choosing one takes as long as some steps,
 * which no request is to wait for. Beyond, for prompts, powers of two and the most that there can be:
 * what lies between takes the next (gpu.h, mm), as do recordings of e4m3, which have any number. That
 * is, of each shape that a layer's matrices have, some 2 + most / 8 sizes of recordings and at most
 * 1 + log2(max_tok / most) of prompts, each timed once. */
void backend_gpu_prepare(struct backend *b, float *scratch, size_t n)
{
    struct backend_gpu *c = backend_gpu_of(b);
    int32_t most = c->room.max_tok;
    for (int32_t m = backend_gpu_round(1, c->most); m > 0; m = backend_gpu_round(m + 1, c->most))
        backend_gpu_plan(c, m, c->scratch, c->scratch_n);
    backend_gpu_plan_input(c);
    for (int64_t m = 1; m < most; m *= 2)
        if (m > c->most) backend_gpu_plan(c, (int32_t)m, scratch, n);
    if (most > c->most) backend_gpu_plan(c, most, scratch, n);
    backend_gpu_wait(c);
    c->prepared = true;
}

void backend_gpu_forget(struct backend *b)
{
    struct backend_gpu *c = backend_gpu_of(b);
    for (int i = 0; i < c->n_rec; i++)
        if (c->rec[i].graph) c->g->ops->graph_free(c->g, c->rec[i].graph);
    free(c->rec);
    c->rec = NULL;
    c->n_rec = 0;
}

/* ---- the counts of a step */

static int32_t blocks_of(const struct backend_gpu *c, const struct backend_seq *q)
{
    return (q->pos + q->n_q + c->block_tok - 1) / c->block_tok;
}

static bool has_e4m3(const struct backend_gpu *c)
{
    for (int i = 0; i < c->n_mat; i++)
        if (c->mat[i]->elt == GPU_E4M3) return true;
    return false;
}

static struct shape shape_of(struct backend_gpu *c, const struct backend_step *s, int64_t *n_table)
{
    struct shape h = { .n_tok = s->n_tok, .n_seq = s->n_seq, .n_out = s->n_out, .all_ones = true };
    int64_t ctx = 1;
    *n_table = 0;
    for (int32_t i = 0; i < s->n_seq; i++) {
        const struct backend_seq *q = &s->seq[i];
        *n_table += blocks_of(c, q);
        if (q->n_q > 1) {
            h.all_ones = false;
            h.n_tile += (q->n_q + GPU_TILE_Q - 1) / GPU_TILE_Q;
        } else {
            h.ones = true;
            if (q->pos + 1 > ctx) ctx = q->pos + 1;
        }
    }
    if (c->room.window > 0 && ctx > c->room.window) ctx = c->room.window;
    /* The largest value of an e4m3 product's input decides about all of it, and rows that are none
     * have values too: there is a recording for each count. */
    int32_t n = backend_gpu_round(s->n_seq, c->most);
    if (has_e4m3(c) && n) n = s->n_seq;
    if (h.all_ones && n && s->n_out <= n) {
        h.n_tok = h.n_seq = n;
        if (s->n_out > 0) h.n_out = n;
    } else {
        h.all_ones = false;
    }
    h.n_split = gpu_kern_split(&c->g->info, h.n_seq, c->n_kv_head, ctx);
    return h;
}

/* ---- staging */

static int32_t *ints(unsigned char *base, size_t at)
{
    return (void *)(base + at);
}

static void put_seq(const struct backend_gpu *c, unsigned char *p, const struct backend_seq *q,
                    int32_t i, int32_t first)
{
    const struct layout *l = &c->lay;
    int32_t bt = c->block_tok, n = blocks_of(c, q), *slot = ints(p, l->slot) + q->row;
    ints(p, l->row)[i] = q->row;
    ints(p, l->n_q)[i] = q->n_q;
    ints(p, l->first)[i] = first;
    memcpy(ints(p, l->table) + first, q->block, (size_t)n * sizeof *q->block);
    for (int32_t k = 0; k < q->n_q; k++) {
        int32_t at = q->pos + k;
        slot[k] = q->block[at / bt] * bt + at % bt;
    }
}

/* From the largest to the smallest. */
static void sort_down(int64_t *v, int32_t n)
{
    for (int32_t gap = n / 2; gap > 0; gap /= 2)
        for (int32_t i = gap; i < n; i++) {
            int64_t x = v[i];
            int32_t at = i;
            for (; at >= gap && v[at - gap] < x; at -= gap) v[at] = v[at - gap];
            v[at] = x;
        }
}

/* Tiles that see the most keys come first. Sorted are (keys, sequence); the keys tell which rows. */
static int32_t put_tiles(const struct backend_gpu *c, unsigned char *p,
                         const struct backend_step *s)
{
    int32_t *tile = ints(p, c->lay.tile), n = 0;
    for (int32_t i = 0; i < s->n_seq; i++) {
        const struct backend_seq *q = &s->seq[i];
        for (int32_t k = 0; q->n_q > 1 && k < q->n_q; k += GPU_TILE_Q) {
            int32_t end = q->n_q - k < GPU_TILE_Q ? q->n_q : k + GPU_TILE_Q;
            c->tiles[n++] = (int64_t)(q->pos + end) << 32 | i;
        }
    }
    sort_down(c->tiles, n);
    for (int32_t t = 0; t < n; t++) {
        int32_t i = (int32_t)(c->tiles[t] & INT32_MAX);
        int32_t last = (int32_t)(c->tiles[t] >> 32) - s->seq[i].pos - 1;
        tile[2 * t] = i;
        tile[2 * t + 1] = last / GPU_TILE_Q * GPU_TILE_Q;
    }
    return n;
}

static void put_outs(const struct backend_gpu *c, unsigned char *p, const struct backend_step *s)
{
    struct gpu_sample_row *sample = (void *)(p + c->lay.sample);
    int32_t *out = ints(p, c->lay.out), *weave = ints(p, c->lay.weave);
    int32_t n = c->shape.n_out, parts = c->room.n_part;
    for (int32_t i = 0; i < n; i++) {
        bool real = i < s->n_out;
        out[i] = real ? s->out[i] : 0;
        sample[i] = (struct gpu_sample_row){ .top_p = 1 };
        if (real && s->sample)
            sample[i] = (struct gpu_sample_row){ .u = s->sample[i].u,
                                                 .temperature = s->sample[i].temperature,
                                                 .top_p = s->sample[i].top_p,
                                                 .top_k = s->sample[i].top_k };
    }
    for (int32_t i = 0; i < n && parts > 1; i++)
        for (int32_t t = 0; t < parts; t++) weave[i * parts + t] = t * n + i;
}

/* Rows and sequences that are none: gpu_kern.h. */
static void put_none(const struct backend_gpu *c, unsigned char *p, const struct backend_step *s)
{
    const struct layout *l = &c->lay;
    for (int32_t i = s->n_tok; i < c->shape.n_tok; i++) {
        ints(p, l->tok)[i] = ints(p, l->slot)[i] = 0;
        ints(p, l->pos)[i] = -1;
    }
    for (int32_t i = s->n_seq; i < c->shape.n_seq; i++) {
        ints(p, l->row)[i] = i;
        ints(p, l->n_q)[i] = ints(p, l->first)[i] = 0;
    }
}

static void fill(const struct backend_gpu *c, unsigned char *p, const struct backend_step *s)
{
    int32_t table = 0;
    memcpy(p + c->lay.tok, s->tok, (size_t)s->n_tok * sizeof *s->tok);
    memcpy(p + c->lay.pos, s->pos, (size_t)s->n_tok * sizeof *s->pos);
    for (int32_t i = 0; i < s->n_seq; i++) {
        put_seq(c, p, &s->seq[i], i, table);
        table += blocks_of(c, &s->seq[i]);
    }
    int32_t tiles = put_tiles(c, p, s);
    assert(tiles == c->shape.n_tile);
    (void)tiles;
    put_outs(c, p, s);
    put_none(c, p, s);
}

static void point(struct backend_gpu *c)
{
    const struct layout *l = &c->lay;
    unsigned char *d = c->staged;
    c->s = (struct gpu_step){ .tok = ints(d, l->tok),
                              .pos = ints(d, l->pos),
                              .slot = ints(d, l->slot),
                              .row = ints(d, l->row),
                              .n_q = ints(d, l->n_q),
                              .first = ints(d, l->first),
                              .table = ints(d, l->table),
                              .tile = ints(d, l->tile),
                              .out = ints(d, l->out) };
}

/* The next pinned piece, when its last copy has been made: it has, where no more than `depth` steps are
 * under way. */
static unsigned char *next_piece(struct backend_gpu *c)
{
    c->ring = (c->ring + 1) % c->n_ring;
    (void)c->g->ops->event_wait(c->g, c->copied[c->ring], &c->err);
    return c->pinned[c->ring];
}

static void send_piece(struct backend_gpu *c, const unsigned char *p)
{
    const struct gpu_ops *g = c->g->ops;
    int st = g->put(c->g, c->staged, p, c->lay.bytes, &c->err);
    if (st == ST_OK) (void)g->event_set(c->g, c->copied[c->ring], &c->err);
}

/* ---- recordings */

static bool same(const struct shape *a, const struct shape *b)
{
    return a->n_seq == b->n_seq && a->n_out == b->n_out && a->n_split == b->n_split;
}

static struct recording *recording_of(struct backend_gpu *c)
{
    for (int i = 0; i < c->n_rec; i++)
        if (same(&c->rec[i].shape, &c->shape)) return &c->rec[i];
    c->rec = mem_resize(c->rec, (size_t)c->n_rec + 1, sizeof *c->rec);
    c->rec[c->n_rec] = (struct recording){ .shape = c->shape };
    return &c->rec[c->n_rec++];
}

/* Issues the step's recording; else, from the second step of its counts on, begins to make it. The
 * first one is issued by itself: drivers load code, and communicators connect, when they are used
 * first, which a recording does not allow. */
static bool replay(struct backend_gpu *c)
{
    int n = c->n_rec;
    struct recording *r = recording_of(c);
    if (r->graph) {
        (void)c->g->ops->graph_launch(c->g, r->graph, &c->err);
        c->count.replays++;
        return true;
    }
    if (n == c->n_rec)
        c->recording = c->g->ops->record(c->g, &c->err) == ST_OK;
    else if (!c->prepared)
        backend_gpu_plan(c, c->shape.n_tok, c->scratch, c->scratch_n);
    return false;
}

static void end_recording(struct backend_gpu *c)
{
    struct recording *r = recording_of(c);
    struct err own = { 0 };
    c->recording = false;
    /* ended also after a failure, so that the device can be closed */
    int st = c->g->ops->recorded(c->g, &r->graph, backend_gpu_failed(c) ? &own : &c->err);
    if (st != ST_OK) r->graph = NULL;
    if (backend_gpu_failed(c) || !r->graph) return;
    c->count.records++;
    (void)c->g->ops->graph_launch(c->g, r->graph, &c->err);
}

/* ---- a step */

bool backend_gpu_begin(struct backend *b, struct backend_step *s)
{
    struct backend_gpu *c = backend_gpu_of(b);
    int64_t n_table;
    assert(!c->in_step && c->has_room && s->n_tok <= c->room.max_tok);
    assert(s->n_out <= c->room.max_out);
    if (backend_gpu_failed(c)) return true;
    c->in_step = true;
    c->sampled = false;
    c->count.steps++;
    c->shape = shape_of(c, s, &n_table);
    assert(n_table <= c->room.max_table);
    c->lay = lay_out(&c->shape, c->room.n_part, n_table);
    unsigned char *p = next_piece(c);
    if (backend_gpu_failed(c)) return true;
    fill(c, p, s);
    point(c);
    backend_gpu_no_images(c);
    send_piece(c, p);
    s->n_tok = c->shape.n_tok;
    s->n_seq = c->shape.n_seq;
    s->n_out = c->shape.n_out;
    bool replayed = c->shape.all_ones && !backend_gpu_failed(c) && replay(c);
    if (replayed) c->sampled = c->room.n_sample > 0 && c->shape.n_out > 0;
    return replayed || backend_gpu_failed(c);
}

void backend_gpu_end(struct backend *b)
{
    struct backend_gpu *c = backend_gpu_of(b);
    if (c->recording) end_recording(c);
    c->in_step = false;
    if (c->sampled && !backend_gpu_failed(c))
        (void)c->g->ops->get(c->g, c->tok_host[c->ring], c->tok,
                             (size_t)c->shape.n_out * sizeof *c->tok, &c->err);
}

void backend_gpu_weave(struct backend *b, const float *x, float *y, int32_t n)
{
    struct backend_gpu *c = backend_gpu_of(b);
    if (!backend_gpu_in_step(c, "weave")) return;
    struct gpu_pick a = { .s = c->s, .x = x, .y = y, .m = c->shape.n_out * c->room.n_part, .n = n };
    a.s.out = ints(c->staged, c->lay.weave);
    backend_gpu_launch(c, GPU_K_pick, &a);
}

void backend_gpu_sample(struct backend *b, const float *logits)
{
    struct backend_gpu *c = backend_gpu_of(b);
    if (!backend_gpu_in_step(c, "sampling")) return;
    const struct gpu_sample a = { .logits = logits,
                                  .row = (void *)(c->staged + c->lay.sample),
                                  .tok = c->tok,
                                  .m = c->shape.n_out,
                                  .n = c->room.n_sample };
    c->sampled = true;
    backend_gpu_launch(c, GPU_K_sample, &a);
}

const int32_t *backend_gpu_tokens(struct backend *b)
{
    struct backend_gpu *c = backend_gpu_of(b);
    return c->tok_host[c->ring];
}
