/* engine/prompt.c - see prompt.h. SPDX-License-Identifier: Apache-2.0 */
#include "engine/prompt.h"

#include <stdlib.h>
#include <string.h>

/* Answers of a thousand live turns fit into what is reserved. */
enum { MIN_BUCKET = 1024, LEAST_TOK = 32, RESERVE_BYTES = 256 << 10 };

void prompt_init(struct prompt *p, int32_t vocab, uint64_t seed)
{
    struct rng r = rng_stream(seed, "engine.prompt");
    *p = (struct prompt){ .vocab = vocab, .shared = rng_child(r, 0), .own = rng_child(r, 1) };
    arena_init(&p->arena);
    arena_reserve(&p->arena, RESERVE_BYTES);
    rooms_init(&p->rooms, sizeof(int32_t), LEAST_TOK, &p->arena);
    p->n_bucket = MIN_BUCKET;
    p->bucket = mem_zalloc((size_t)p->n_bucket, sizeof *p->bucket);
}

void prompt_release(struct prompt *p)
{
    free(p->bucket);
    arena_release(&p->arena);
    memset(p, 0, sizeof *p);
}

static struct prompt_answer *answer_take(struct prompt *p)
{
    struct prompt_answer *a = p->spare;
    if (!a) return arena_alloc(&p->arena, sizeof *a);
    p->spare = a->next;
    return a;
}

static void answer_give(struct prompt *p, struct prompt_answer *a)
{
    if (a->token) rooms_give(&p->rooms, a->token, a->log2);
    a->next = p->spare;
    p->spare = a;
}

/* ---- answers by key */

static struct prompt_answer **place(const struct prompt *p, uint64_t key)
{
    struct prompt_answer **at = &p->bucket[mix64(key) & (uint64_t)(p->n_bucket - 1)];
    while (*at && (*at)->key != key) at = &(*at)->next;
    return at;
}

static void more_buckets(struct prompt *p)
{
    int64_t n = p->n_bucket;
    struct prompt_answer **old = p->bucket;
    p->n_bucket = 2 * n;
    p->bucket = mem_zalloc((size_t)p->n_bucket, sizeof *p->bucket);
    for (int64_t i = 0; i < n; i++)
        for (struct prompt_answer *a = old[i], *next; a; a = next) {
            next = a->next;
            struct prompt_answer **at = &p->bucket[mix64(a->key) & (uint64_t)(p->n_bucket - 1)];
            a->next = *at;
            *at = a;
        }
    free(old);
}

/* ---- tokens */

static int64_t seg_start(const struct trace_req *r, int32_t j)
{
    return j > 0 ? r->seg[j - 1].end_tok : 0;
}

static int32_t draw(const struct prompt *p, struct rng r, int64_t at)
{
    return (int32_t)rng_below(r, (uint64_t)at, (uint64_t)p->vocab);
}

/* The part of segment j that lies in the prompt. Whether its content is certain. */
static bool fill(const struct prompt *p, const struct trace_req *r, int32_t j, int32_t *tok)
{
    int64_t end = r->seg[j].end_tok < r->n_in ? r->seg[j].end_tok : r->n_in;
    const struct prompt_answer *a = *place(p, r->seg[j].key);
    struct rng stream = rng_child(p->shared, r->seg[j].key);
    for (int64_t i = seg_start(r, j); i < end; i++) {
        bool said = a && i >= a->from && i - a->from < a->n;
        tok[i] = said ? a->token[i - a->from] : draw(p, stream, i);
    }
    if (r->seg[j].end_tok > r->n_in) return !a; /* its own answer, or somebody else's */
    return !a || a->n >= 0;
}

/* The answer that is segment j will come. */
static struct prompt_answer *announce(struct prompt *p, const struct trace_req *r, int32_t j)
{
    if (p->n_answer >= p->n_bucket) more_buckets(p);
    int64_t start = seg_start(r, j);
    struct prompt_answer **at = place(p, r->seg[j].key), *a = answer_take(p);
    *a = (struct prompt_answer){ .key = r->seg[j].key,
                                 .before = j > 0 ? r->seg[j - 1].key : 0,
                                 .from = start > r->n_in ? start : r->n_in,
                                 .n = -1 };
    *at = a;
    p->n_answer++;
    return a;
}

int32_t prompt_begin(struct prompt *p, const struct trace_req *r, int32_t *tok)
{
    int64_t tail = r->n_seg ? r->seg[r->n_seg - 1].end_tok : 0;
    int32_t certain = r->n_seg;
    for (int32_t j = 0; j < r->n_seg; j++)
        if (!fill(p, r, j, tok) && j < certain) certain = j;
    p->n_early += certain < r->n_seg;
    struct rng own = rng_child(p->own, prompt_identity(r->id, r->session, r->turn));
    for (int64_t i = tail; i < r->n_in; i++) tok[i] = draw(p, own, i);
    for (int32_t j = 0; j < certain; j++)
        if (r->seg[j].end_tok > r->n_in) announce(p, r, j);
    return certain;
}

void prompt_end(struct prompt *p, const struct trace_req *r, int32_t segs, const int32_t *tok,
                int64_t n)
{
    for (int32_t j = 0; j < segs; j++) {
        if (r->seg[j].end_tok <= r->n_in) continue;
        struct prompt_answer *a = *place(p, r->seg[j].key);
        if (!a || a->n >= 0) continue;
        int64_t end = n < r->seg[j].end_tok ? n : r->seg[j].end_tok;
        a->n = end > a->from ? (int32_t)(end - a->from) : 0;
        if (a->n == 0) continue;
        a->log2 = rooms_log2(&p->rooms, a->n);
        a->token = rooms_take(&p->rooms, a->log2);
        memcpy(a->token, tok + a->from, (size_t)a->n * sizeof *tok);
    }
}

void prompt_refuse(struct prompt *p, const struct trace_req *r)
{
    for (int32_t j = 0; j < r->n_seg; j++)
        if (r->seg[j].end_tok > r->n_in && !*place(p, r->seg[j].key)) announce(p, r, j)->n = 0;
}

void prompt_forget(struct prompt *p, uint64_t key)
{
    for (struct prompt_answer **at; *(at = place(p, key));) {
        struct prompt_answer *a = *at;
        key = a->before;
        *at = a->next;
        p->n_answer--;
        answer_give(p, a);
    }
}
