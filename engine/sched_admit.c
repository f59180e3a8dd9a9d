/* engine/sched_admit.c - taking decodes, prompt chunks and new requests into a batch; preemption.
 * SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>

#include "engine/sched_core.h"

int64_t sched_reserve_tok(const struct sched *s, const struct trace_req *r)
{
    int64_t out = r->n_out;
    if (s->o.reserve_out == 1) {
        for (out = 1; out < r->n_out; out *= 2) {}
    } else if (s->o.reserve_out == 2 && s->max_ctx > 0) {
        return s->max_ctx;
    }
    int64_t tok = r->n_in + out;
    return s->max_ctx > 0 && tok > s->max_ctx ? s->max_ctx : tok;
}

/* ---- preemption by recompute */

static void preempt(struct sched *s, struct sreq *r, int64_t now_ns)
{
    struct cohort *c = r->cohort;
    if (c) {
        if (!r->irregular) r->t_last_ns = c->t_emit_ns;
        sched_cohort_remove(s, c, r);
        kvpool_settle(&s->pool, &r->kv, r->computed);
    } else if (r->computed < r->target) {
        sched_part_remove(s, r);
    }
    s->n_preempt++;
    s->n_recomputed_tok += r->computed;
    kvpool_close(&s->pool, &r->kv, false);
    sched_run_remove(s, r);
    r->state = SREQ_WAITING;
    r->computed = 0;
    r->preempted++;
    r->irregular = false;
    r->reserved = false;
    sched_wait_push_front(s, r);
    s->sink->preempt(s->sink->ctx, r, now_ns);
}

/* The latest admitted request that is not in a launched batch. */
static struct sreq *victim(const struct sched *s)
{
    for (struct sreq *r = s->run_last; r; r = r->prev)
        if (r->state != SREQ_GHOST && r->in_flight == 0 && !(r->cohort && r->cohort->in_flight))
            return r;
    return NULL;
}

/* ---- decodes */

static void merge(struct sched *s, struct cohort *into, struct cohort *from)
{
    if (from->n > into->n) {
        struct cohort t = *into; /* fewer members move; phase and heap arrays travel along */
        *into = *from;
        *from = t;
        for (struct sreq *r = into->first; r; r = r->c_next) r->cohort = into;
        for (struct sreq *r = from->first; r; r = r->c_next) r->cohort = from;
    }
    bool together = into->t_emit_ns == from->t_emit_ns;
    while (from->first) {
        struct sreq *r = from->first;
        if (!r->irregular) r->t_last_ns = from->t_emit_ns;
        bool was = r->irregular;
        sched_cohort_remove(s, from, r);
        r->irregular = was || !together;
        if (s->paged) kvpool_settle(&s->pool, &r->kv, r->computed);
        sched_cohort_add(s, into, r);
    }
    sched_cohort_free(s, from);
}

/* KV blocks for c's next step, preempting until they fit; false if that left nobody in c. */
static bool take_blocks(struct sched *s, struct batch *b, struct cohort *c, int64_t now_ns,
                        bool *preempted)
{
    while (c->n > 0) {
        int64_t need = sched_cohort_need(s, c, 0);
        if (need == 0 || kvpool_take(&s->pool, need)) {
            b->blocks = need;
            return true;
        }
        struct sreq *r = victim(s);
        assert(r); /* c itself is not in flight */
        preempt(s, r, now_ns);
        *preempted = true;
    }
    return false;
}

bool sched_take_decodes(struct sched *s, struct batch *b, int64_t now_ns)
{
    struct cohort *c, *other;
    bool preempted = false;
    while ((c = sched_cohort_pop_idle(s))) {
        while (!s->balanced && !s->hold && (other = sched_cohort_pop_idle(s))) merge(s, c, other);
        if (take_blocks(s, b, c, now_ns, &preempted)) {
            b->cohort = c;
            break;
        }
        sched_cohort_free(s, c); /* preempted to the last, now or for another group */
    }
    return preempted;
}

/* ---- prompts */

static void add_chunk(struct sched *s, struct batch *b, struct sreq *r, int64_t tok, int64_t now_ns)
{
    if (b->n_chunk == b->cap_chunk) {
        int32_t cap = b->cap_chunk ? 2 * b->cap_chunk : 16;
        struct chunk *room = arena_array(s->arena, (size_t)cap, sizeof *room);
        for (int32_t i = 0; i < b->n_chunk; i++) room[i] = b->chunk[i];
        b->chunk = room;
        b->cap_chunk = cap;
    }
    bool last = r->computed + tok == r->target;
    b->chunk[b->n_chunk++] =
        (struct chunk){ .r = r, .tok = tok, .past = r->computed, .last = last };
    b->shape.n_prefill++;
    b->shape.prefill_tok += tok;
    b->shape.prefill_past += r->computed;
    b->shape.prefill_pairs += tok * r->computed + tok * (tok + 1) / 2;
    b->shape.n_logits += last;
    r->computed += tok;
    r->in_flight++;
    if (r->t_start_ns < 0) r->t_start_ns = now_ns;
}

bool sched_continue_prompts(struct sched *s, struct batch *b, int64_t *budget, int64_t now_ns)
{
    struct sreq *r = s->part_first, *next;
    for (; r && *budget > 0 && b->n_chunk < BATCH_MAX_CHUNKS; r = next) {
        int64_t tok = r->target - r->computed;
        if (tok > *budget) tok = *budget;
        next = r->c_next;
        if (!kvpool_grow(&s->pool, &r->kv, r->computed + tok)) {
            /* A prompt under way takes all of the budget, so nobody was admitted after it: it is
             * the latest itself. If its chunk before is in flight, it waits for that. */
            if (r->in_flight == 0) preempt(s, r, now_ns);
            return true;
        }
        if (r->computed + tok == r->target) sched_part_remove(s, r);
        add_chunk(s, b, r, tok, now_ns);
        *budget -= tok;
    }
    return false;
}

/* ---- admission */

static bool group_full(const struct sched *s, const struct batch *b)
{
    if (!s->balanced || s->depth <= 1) return false;
    int64_t in_group = (b->cohort ? b->cohort->n : 0) + b->n_chunk, total = s->n_run + s->n_wait;
    if (total > s->o.max_seqs) total = s->o.max_seqs;
    return in_group >= (total + s->depth - 1) / s->depth;
}

static bool fits(struct sched *s, const struct sreq *r, enum sched_need need, int64_t hit,
                 int64_t chunk, int64_t evictable)
{
    int64_t tok = hit + chunk;
    if (!s->paged) return true;
    if (need == SCHED_NEED_PROMPT || need == SCHED_TAKE_PROMPT) tok = r->target;
    if (need == SCHED_TAKE_ALL) tok = sched_reserve_tok(s, &r->t);
    int64_t blocks = kvpool_blocks_for(&s->pool, tok) - hit / s->pool.block_tok;
    return blocks <= kvpool_available(&s->pool) - evictable;
}

static void start(struct sched *s, struct sreq *r, enum sched_need need, int64_t chunk)
{
    int64_t hit = 0;
    if (s->paged) {
        hit = kvpool_open(&s->pool, &r->kv, &r->t, r->target - 1);
        int64_t tok = hit + chunk;
        if (need == SCHED_TAKE_PROMPT) tok = r->target;
        if (need == SCHED_TAKE_ALL) tok = sched_reserve_tok(s, &r->t);
        bool ok =
            kvpool_reserve(&s->pool, &r->kv, tok) && kvpool_grow(&s->pool, &r->kv, hit + chunk);
        assert(ok);
        (void)ok;
    }
    if (!r->preempted) r->cached_in = (int32_t)hit;
    r->reserved = need == SCHED_TAKE_ALL;
    r->computed = hit;
    r->state = SREQ_PREFILL;
    sched_run_append(s, r);
}

void sched_admit(struct sched *s, struct batch *b, int64_t *budget, enum sched_need need,
                 bool whole, int64_t now_ns)
{
    while (s->n_seen > 0) {
        struct sreq *r = s->wait_first;
        int64_t evictable = 0, hit = 0;
        if (s->n_run >= s->o.max_seqs) {
            s->blocked = SCHED_BY_SEQS;
            return;
        }
        if (group_full(s, b)) {
            s->blocked = SCHED_BY_GROUP;
            return;
        }
        if (*budget <= 0 || b->n_chunk >= BATCH_MAX_CHUNKS) {
            s->blocked = SCHED_BY_BUDGET;
            return;
        }
        r->target = r->t.n_in + r->made;
        if (s->paged) hit = kvpool_peek(&s->pool, &r->t, r->target - 1, &evictable);
        int64_t chunk = r->target - hit;
        if (chunk > *budget) {
            if (whole) {
                s->blocked = SCHED_BY_BUDGET;
                return;
            }
            chunk = *budget;
        }
        if (!fits(s, r, need, hit, chunk, evictable)) {
            s->blocked = SCHED_BY_KV;
            return;
        }
        sched_wait_pop(s);
        start(s, r, need, chunk);
        if (hit + chunk < r->target) sched_part_append(s, r);
        add_chunk(s, b, r, chunk, now_ns);
        *budget -= chunk;
    }
}
