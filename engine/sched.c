/* engine/sched.c - options, queues, submission and completion.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/sched.h"

#include <assert.h>
#include <string.h>

#include "engine/sched_core.h"

#define AT(m) offsetof(struct sched_opts, m)
const struct conf_row sched_rows[] = {
    { "policy.name", CONF_WORD, AT(policy), "vllm", SCHED_POLICY_WORDS, 0, 0, "scheduler" },
    { "policy.max_batch_tokens", CONF_TOKENS, AT(max_batch_tok), "0tok", NULL, 0, 1 << 20,
      "token budget of a step; 0: 8192 on GPUs of 70 GB and more, else 2048" },
    { "policy.max_seqs", CONF_INT, AT(max_seqs), "256", NULL, 1, 65536,
      "sequences running at once, per replica" },
    { "policy.chunk", CONF_TOKENS, AT(chunk_tok), "512tok", NULL, 1, 1 << 20,
      "token budget of a step under sarathi" },
    { "policy.block", CONF_TOKENS, AT(block_tok), "16tok", NULL, 1, 65536,
      "tokens of one KV block" },
    { "policy.kv_blocks", CONF_INT, AT(kv_blocks), "0", NULL, 0, 1e12,
      "KV blocks per replica; 0: from memory" },
    { "policy.memory_util", CONF_NUMBER, AT(memory_util), "0.9", NULL, 0.01, 1,
      "share of GPU memory used" },
    { "policy.prefix_cache", CONF_WORD, AT(prefix_cache), "auto", "auto on off", 0, 0,
      "reuse KV of shared prefixes; auto: on under vllm" },
    { "policy.reserve_full", CONF_BOOL, AT(reserve_full), "true", NULL, 0, 0,
      "vllm: admit a request only if its whole prompt fits" },
    { "policy.reserve_out", CONF_WORD, AT(reserve_out), "oracle", "oracle pow2 max", 0, 0,
      "orca, static: output length that KV is reserved for" },
    { "policy.max_model_len", CONF_TOKENS, AT(max_model_len), "0tok", NULL, 0, 1e9,
      "longest prompt and output together; 0: the model's" },
    { "policy.grouping", CONF_WORD, AT(grouping), "auto", "auto engine balanced", 0, 0,
      "micro-batches of a pipeline; auto: engine under vllm, else balanced" },
    { "policy.async", CONF_WORD, AT(async), "auto", "auto on off", 0, 0,
      "choose each step while the one before runs; auto: under vllm without a pipeline" },
    { .type = CONF_END }
};
#undef AT

int sched_check(const struct sched_opts *o, struct err *e)
{
    if (o->policy == SCHED_VLLM && o->max_batch_tok > 0 && o->max_batch_tok < o->max_seqs)
        return err_set(e, ST_USAGE,
                       "policy.max_batch_tokens: %lldtok is less than policy.max_seqs %lld; a step "
                       "must hold one token of every running sequence",
                       (long long)o->max_batch_tok, (long long)o->max_seqs);
    if (o->policy == SCHED_SARATHI && o->chunk_tok < 2)
        return err_set(e, ST_USAGE,
                       "policy.chunk: %lldtok leaves no room for a prompt; use 2tok or more",
                       (long long)o->chunk_tok);
    return ST_OK;
}

bool sched_is_async(const struct sched_opts *o, int depth)
{
    return o->policy == SCHED_VLLM && depth == 1 && o->async != 2;
}

void sched_init(struct sched *s, const struct sched_opts *o, int64_t n_block, int depth,
                int64_t max_ctx, const struct sched_sink *sink, struct arena *a)
{
    static const struct sched_ops *const ops[] = { &sched_vllm, &sched_sarathi, &sched_orca,
                                                   &sched_static, &sched_null };
    memset(s, 0, sizeof *s);
    s->ops = ops[o->policy];
    s->o = *o;
    s->arena = a;
    s->sink = sink;
    s->depth = depth;
    s->max_ctx = max_ctx;
    s->paged = o->policy != SCHED_NULL;
    s->hold = o->policy == SCHED_STATIC;
    s->ahead = sched_is_async(o, depth);
    s->balanced = o->grouping == 2 || (o->grouping == 0 && o->policy != SCHED_VLLM);
    bool share = o->prefix_cache == 1 || (o->prefix_cache == 0 && o->policy == SCHED_VLLM);
    if (o->policy == SCHED_ORCA || o->policy == SCHED_STATIC) share = false;
    if (s->paged)
        kvpool_init(&s->pool, n_block, (int)o->block_tok, share, a);
    else
        s->pool.block_tok = (int32_t)o->block_tok;
}

/* ---- lists */

void sched_run_append(struct sched *s, struct sreq *r)
{
    r->next = NULL;
    r->prev = s->run_last;
    if (s->run_last)
        s->run_last->next = r;
    else
        s->run_first = r;
    s->run_last = r;
    s->n_run++;
}

void sched_run_remove(struct sched *s, struct sreq *r)
{
    if (r->prev)
        r->prev->next = r->next;
    else
        s->run_first = r->next;
    if (r->next)
        r->next->prev = r->prev;
    else
        s->run_last = r->prev;
    r->prev = r->next = NULL;
    s->n_run--;
}

void sched_part_append(struct sched *s, struct sreq *r)
{
    r->c_next = NULL;
    r->c_prev = s->part_last;
    if (s->part_last)
        s->part_last->c_next = r;
    else
        s->part_first = r;
    s->part_last = r;
    s->n_partial++;
}

void sched_part_remove(struct sched *s, struct sreq *r)
{
    if (r->c_prev)
        r->c_prev->c_next = r->c_next;
    else
        s->part_first = r->c_next;
    if (r->c_next)
        r->c_next->c_prev = r->c_prev;
    else
        s->part_last = r->c_prev;
    r->c_prev = r->c_next = NULL;
    s->n_partial--;
}

void sched_wait_push_front(struct sched *s, struct sreq *r)
{
    r->prev = NULL;
    r->next = s->wait_first;
    if (s->wait_first)
        s->wait_first->prev = r;
    else
        s->wait_last = r;
    s->wait_first = r;
    s->n_wait++;
    s->n_seen++;
    s->wait_tok += r->t.n_in;
}

struct sreq *sched_wait_pop(struct sched *s)
{
    struct sreq *r = s->wait_first;
    s->wait_first = r->next;
    if (r->next)
        r->next->prev = NULL;
    else
        s->wait_last = NULL;
    r->next = NULL;
    s->n_wait--;
    s->n_seen--;
    s->wait_tok -= r->t.n_in;
    return r;
}

/* ---- submission */

const char *sched_refuses(const struct sched *s, const struct trace_req *r)
{
    int64_t tok = (int64_t)r->n_in + r->n_out;
    bool reserving = s->o.policy == SCHED_ORCA || s->o.policy == SCHED_STATIC;
    if (!s->paged) return NULL;
    if (s->max_ctx > 0 && tok > s->max_ctx) return "prompt and output exceed the model's context";
    if (kvpool_blocks_for(&s->pool, tok) > s->pool.n_block)
        return "its KV exceeds the pool of a replica";
    if (reserving && kvpool_blocks_for(&s->pool, sched_reserve_tok(s, r)) > s->pool.n_block)
        return "the KV to reserve exceeds the pool of a replica";
    if (reserving && r->n_in > s->o.max_batch_tok)
        return "its prompt exceeds the token budget of a step";
    return NULL;
}

struct sreq *sched_submit(struct sched *s, const struct trace_req *t, int64_t now_ns)
{
    struct sreq *r = s->free_req;
    if (r)
        s->free_req = r->next;
    else
        r = arena_alloc(s->arena, sizeof *r);
    memset(r, 0, sizeof *r);
    r->t = *t;
    r->t_ready_ns = now_ns;
    r->t_start_ns = r->t_first_ns = r->t_last_ns = -1;
    r->heap_at = -1;
    r->state = SREQ_WAITING;
    r->prev = s->wait_last;
    if (s->wait_last)
        s->wait_last->next = r;
    else
        s->wait_first = r;
    s->wait_last = r;
    s->n_wait++;
    if (!s->ahead) s->n_seen++;
    s->wait_tok += t->n_in;
    return r;
}

/* ---- steps */

static void recycle(struct sched *s, struct sreq *r)
{
    r->state = SREQ_DONE;
    r->next = s->free_req;
    s->free_req = r;
}

static void leave(struct sched *s, struct sreq *r)
{
    if (s->paged) kvpool_close(&s->pool, &r->kv, true);
    sched_run_remove(s, r);
    s->freed = true;
    recycle(s, r);
}

/* What happened during the last step becomes known, for the next choice. Whether there was
 * anything. */
static bool catch_up(struct sched *s)
{
    bool any = s->ended_first || s->n_seen < s->n_wait;
    s->n_seen = s->n_wait;
    while (s->ended_first) {
        struct sreq *r = s->ended_first;
        s->ended_first = r->c_next;
        leave(s, r);
    }
    return any;
}

void sched_next(struct sched *s, struct batch *b, int64_t now_ns)
{
    bool again;
    b->cohort = NULL;
    b->n_chunk = 0;
    b->n_regular = b->blocks = 0;
    memset(&b->shape, 0, sizeof b->shape);
    do { /* again if all that could run was preempted, or nothing could run but more is known now */
        int64_t before = s->n_preempt;
        s->blocked = SCHED_FREE;
        s->ops->fill(s, b, now_ns);
        s->freed = false;
        again = s->n_preempt > before;
        if (s->ahead) again |= catch_up(s);
    } while (batch_empty(b) && again);
    if (!s->wait_first) s->blocked = SCHED_FREE;
    struct cohort *c = b->cohort;
    if (!c) return;
    c->in_flight = true;
    b->n_regular = c->n_live - c->n_irregular;
    b->shape.n_decode = c->n;
    b->shape.sum_ctx = c->sum_ctx;
    b->shape.skew = c->n * (c->max_off + c->steps) - c->sum_ctx;
    b->shape.n_logits += c->n;
}

/* Its last token came at now_ns. */
static void finish(struct sched *s, struct sreq *r, int64_t now_ns)
{
    struct cohort *c = r->cohort;
    r->t_last_ns = now_ns;
    if (c && s->hold) {
        sched_cohort_heap_pop(c);
        r->made = r->t.n_out;
        r->state = SREQ_GHOST;
        s->sink->done(s->sink->ctx, r, now_ns);
        return;
    }
    if (c) {
        sched_cohort_remove(s, c, r);
        if (s->paged) kvpool_settle(&s->pool, &r->kv, r->computed);
    }
    s->sink->done(s->sink->ctx, r, now_ns);
    if (!s->ahead) {
        leave(s, r);
        return;
    }
    r->state = SREQ_GHOST;
    r->c_next = s->ended_first;
    s->ended_first = r;
}

static void release_ghosts(struct sched *s, struct cohort *c)
{
    while (c->first) {
        struct sreq *r = c->first;
        sched_cohort_remove(s, c, r);
        leave(s, r);
    }
}

static void complete_decodes(struct sched *s, struct cohort *c, int64_t steps, int64_t now_ns)
{
    c->in_flight = false;
    if (c->n_irregular) {
        assert(steps == 1);
        for (struct sreq *r = c->first; r; r = r->c_next) {
            if (!r->irregular) continue;
            s->sink->gap(s->sink->ctx, r, now_ns - r->t_last_ns);
            r->irregular = false;
        }
        c->n_irregular = 0;
    }
    c->steps += steps;
    c->sum_ctx += c->n * steps;
    c->t_emit_ns = now_ns;
    struct sreq *r;
    while ((r = sched_cohort_first_due(c)) && c->finish[0] <= c->steps) finish(s, r, now_ns);
    if (s->hold && c->n_live == 0) release_ghosts(s, c);
}

static void complete_chunk(struct sched *s, struct batch *b, struct chunk *k, int64_t now_ns)
{
    struct sreq *r = k->r;
    r->in_flight--;
    if (!k->last) return;
    r->made++;
    if (r->made == 1) {
        r->t_first_ns = now_ns;
        s->sink->first(s->sink->ctx, r, now_ns);
    } else {
        s->sink->gap(s->sink->ctx, r, now_ns - r->t_last_ns);
    }
    r->t_last_ns = now_ns;
    if (r->made == r->t.n_out && !s->hold) {
        finish(s, r, now_ns);
        return;
    }
    if (!b->cohort) {
        b->cohort = sched_cohort_new(s);
        b->cohort->t_emit_ns = now_ns;
    }
    sched_cohort_add(s, b->cohort, r);
}

void sched_complete(struct sched *s, struct batch *b, int64_t steps, int64_t now_ns)
{
    if (b->cohort) complete_decodes(s, b->cohort, steps, now_ns);
    for (int32_t i = 0; i < b->n_chunk; i++) complete_chunk(s, b, &b->chunk[i], now_ns);
    struct cohort *c = b->cohort;
    if (c && s->hold) { /* requests of one output token end with the prompt */
        struct sreq *r;
        while ((r = sched_cohort_first_due(c)) && c->finish[0] <= c->steps) finish(s, r, now_ns);
        if (c->n_live == 0) release_ghosts(s, c);
    }
    if (c && c->n)
        sched_cohort_idle(s, c);
    else if (c)
        sched_cohort_free(s, c);
    b->cohort = NULL;
    b->n_chunk = 0;
}

/* ---- looking ahead */

static bool settled(const struct sched *s, const struct batch *b)
{
    const struct cohort *c = b->cohort;
    if (!c || b->n_chunk || s->n_partial || c->n_irregular || s->idle_first) return false;
    /* While only decodes go on, KV gets scarcer and nobody leaves: these two stay as they are. */
    if (s->n_wait == 0) return true;
    return !s->freed && (s->blocked == SCHED_BY_SEQS || s->blocked == SCHED_BY_BATCH ||
                         (s->blocked == SCHED_BY_KV && (s->depth == 1 || s->o.reserve_full)));
}

int64_t sched_horizon(const struct sched *s, const struct batch *b)
{
    if (!settled(s, b)) return 1;
    const struct cohort *c = b->cohort;
    int64_t k = c->heap_n ? c->finish[0] - c->steps : 1;
    if (!s->paged) return k;
    int64_t room = kvpool_available(&s->pool);
    if (sched_cohort_need_upto(s, c, k) <= room) return k;
    int64_t lo = 1, hi = k; /* lo fits, hi does not */
    while (hi - lo > 1) {
        int64_t mid = lo + (hi - lo) / 2;
        if (sched_cohort_need_upto(s, c, mid) <= room)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

int64_t sched_ahead_blocks(const struct sched *s, const struct batch *b, int64_t k)
{
    return sched_cohort_need_upto(s, b->cohort, k);
}

void sched_extend(struct sched *s, struct batch *b, int64_t k)
{
    int64_t need = sched_cohort_need_upto(s, b->cohort, k);
    if (need == 0) return;
    bool ok = kvpool_take(&s->pool, need);
    assert(ok);
    (void)ok;
}

void sched_advance(struct sched *s, struct batch *b, int64_t k, int64_t now_ns)
{
    struct cohort *c = b->cohort;
    sched_extend(s, b, k + 1);
    c->steps += k;
    c->sum_ctx += c->n * k;
    c->t_emit_ns = now_ns;
    b->shape.sum_ctx = c->sum_ctx;
}

bool sched_repeat(struct sched *s, struct batch *b, int64_t now_ns)
{
    struct cohort *c = b->cohort;
    if (!settled(s, b) || c->finish[0] <= c->steps + 1) return false;
    int64_t need = sched_cohort_need(s, c, 1);
    if (need > 0 && !kvpool_take(&s->pool, need)) return false;
    c->steps++;
    c->sum_ctx += c->n;
    c->t_emit_ns = now_ns;
    b->blocks = need;
    b->shape.sum_ctx = c->sum_ctx;
    return true;
}
