/* engine/serve.c - see serve.h. SPDX-License-Identifier: Apache-2.0 */
#include "engine/serve.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/progress.h"
#include "base/stop.h"
#include "engine/prompt.h"

enum { NONE = -1, MIN_LOG2 = 5, MAX_LOG2 = 31 };
static const int64_t NAP_NS = 100000000; /* Ctrl-C may reach another thread: look again */

/* What the loop knows of a request besides the scheduler. */
struct slot {
    int32_t *tok; /* [1 << log2] prompt, then output */
    int32_t log2, n;
    int32_t n_seg, segs; /* in the trace; that others may share */
    int32_t next_free;
};

struct flight {
    struct batch b;
    int32_t *who; /* [max_seqs] slot of each output; NONE: nobody's */
    struct serve_step told;
};

struct serve {
    const struct serve_setup *u;
    struct serve_result *out;
    struct sched s;
    struct sched_sink sink;
    struct kvmap map;
    struct prompt prompt;
    struct rng draws;
    struct slot *slot; /* [cap_slot] */
    int32_t n_slot, cap_slot, free_slot;
    int32_t *spare[MAX_LOG2 + 1];  /* free token arrays: the first words link to the next */
    struct trace_req next, *later; /* next arrival; follow-ups by due time, earliest last */
    int32_t n_later, cap_later;
    bool has_next;
    struct flight *ring; /* [depth] */
    int head, n;
    int32_t *tok;
    struct engine_seq *seq;
    struct engine_out *pick;
    struct engine_opts room;
    struct serve_level level; /* since t1_ns */
    int64_t epoch_ns, mark_ns, host_ns;
    struct arena *arena;
};

static int device_submit(void *ctx, const struct engine_step *s, struct err *e)
{
    return engine_submit(ctx, s, e);
}

static int device_collect(void *ctx, struct engine_result *r, struct err *e)
{
    return engine_collect(ctx, r, e);
}

struct serve_device serve_engine(struct engine *g)
{
    return (struct serve_device){
        .ctx = g, .depth = engine_depth(g), .submit = device_submit, .collect = device_collect
    };
}

void serve_sizes(const struct sched_opts *s, int64_t kv_blocks, int32_t max_ctx,
                 struct engine_opts *o)
{
    int64_t budget = s->policy == SCHED_SARATHI ? s->chunk_tok : s->max_batch_tok;
    o->m.n_block = (int32_t)kv_blocks;
    o->m.block_tok = (int32_t)s->block_tok;
    o->m.max_ctx = max_ctx;
    o->m.max_out = (int32_t)s->max_seqs;
    o->m.max_tok = (int32_t)(budget + s->max_seqs); /* orca counts prompts only */
    o->max_table = (int32_t)(s->max_seqs * ((max_ctx + s->block_tok - 1) / s->block_tok));
}

int serve_check(const struct sched_opts *s, int64_t kv_blocks, struct err *e)
{
    if (s->policy == SCHED_NULL)
        return err_set(e, ST_USAGE, "policy.name: null keeps no KV cache; an engine needs one");
    if (kv_blocks < 1 || kv_blocks > INT32_MAX / 2)
        return err_set(e, ST_USAGE, "policy.kv_blocks: %lld is outside 1 .. %d",
                       (long long)kv_blocks, INT32_MAX / 2);
    if (kv_blocks * s->block_tok < 2)
        return err_set(e, ST_USAGE,
                       "policy.kv_blocks: the KV cache of %lld tokens is too small for a request",
                       (long long)(kv_blocks * s->block_tok));
    return ST_OK;
}

static int64_t now_ns(const struct serve *v)
{
    return clock_mono_ns() - v->epoch_ns;
}

/* ---- token arrays and slots, reused */

static int32_t *room_take(struct serve *v, int log2)
{
    int32_t *room = v->spare[log2];
    if (room)
        memcpy(&v->spare[log2], room, sizeof(int32_t *));
    else
        room = arena_array(v->arena, (size_t)1 << log2, sizeof *room);
    return room;
}

static int32_t slot_take(struct serve *v, int64_t tok)
{
    int log2 = MIN_LOG2;
    while (((int64_t)1 << log2) < tok) log2++;
    int32_t i = v->free_slot;
    if (i != NONE) {
        v->free_slot = v->slot[i].next_free;
    } else {
        if (v->n_slot == v->cap_slot) {
            int32_t cap = v->cap_slot ? 2 * v->cap_slot : 64;
            struct slot *slot = arena_array(v->arena, (size_t)cap, sizeof *slot);
            if (v->n_slot) memcpy(slot, v->slot, (size_t)v->n_slot * sizeof *slot);
            v->slot = slot;
            v->cap_slot = cap;
        }
        i = v->n_slot++;
    }
    v->slot[i] = (struct slot){ .tok = room_take(v, log2), .log2 = log2 };
    return i;
}

static void slot_give(struct serve *v, int32_t i)
{
    struct slot *k = &v->slot[i];
    memcpy(k->tok, &v->spare[k->log2], sizeof(int32_t *));
    v->spare[k->log2] = k->tok;
    k->tok = NULL;
    k->next_free = v->free_slot;
    v->free_slot = i;
}

/* ---- what is told */

/* Time has come to now: the state since the last call is told, the present one noted. */
static void look(struct serve *v, int64_t now)
{
    const struct serve_sink *k = v->u->sink;
    struct serve_level *l = &v->level;
    l->t0_ns = l->t1_ns;
    l->t1_ns = now;
    if (k->level && now > l->t0_ns) k->level(k->ctx, l);
    l->kv_used_blocks = kvpool_used(&v->s.pool);
    l->queue = v->s.n_wait;
    l->running = v->s.n_run;
    l->in_system = v->out->due - v->out->rejected - v->out->finished;
    l->blocked = v->s.blocked;
    l->active = v->n > 0;
    if (l->kv_used_blocks > v->out->kv_peak) v->out->kv_peak = l->kv_used_blocks;
}

static void tell_request(struct serve *v, const struct sreq *r, int status)
{
    const struct serve_sink *k = v->u->sink;
    const struct slot *t = r->slot != NONE ? &v->slot[r->slot] : NULL;
    int32_t made = t && t->n > r->t.n_in ? t->n - r->t.n_in : 0;
    if (!k->request) return;
    struct run_request row = { .t_due_ns = r->t.t_due_ns,
                               .t_start_ns = r->t_start_ns,
                               .t_first_ns = r->t_first_ns,
                               .t_last_ns = status == RUN_OK ? r->t_last_ns : -1,
                               .session = r->t.session,
                               .n_in = r->t.n_in,
                               .n_out = made,
                               .cached_in = r->cached_in,
                               .preempted = r->preempted,
                               .turn = r->t.turn,
                               .status = (uint8_t)status,
                               .klass = (uint8_t)r->t.klass };
    k->request(k->ctx, &row, r->t.id, status == RUN_REJECTED ? -1 : r->t_ready_ns,
               made ? t->tok + r->t.n_in : NULL);
}

/* ---- arrivals */

/* Follow-ups are few (sessions and clients): a sorted array. */
static void follow_up(struct serve *v, const struct trace_req *q)
{
    if (v->n_later == v->cap_later) {
        int32_t cap = v->cap_later ? 2 * v->cap_later : 64;
        struct trace_req *later = arena_array(v->arena, (size_t)cap, sizeof *later);
        if (v->n_later) memcpy(later, v->later, (size_t)v->n_later * sizeof *later);
        v->later = later;
        v->cap_later = cap;
    }
    int32_t lo = 0, hi = v->n_later; /* first place whose due time is not later than q's */
    while (lo < hi) {
        int32_t mid = lo + (hi - lo) / 2;
        if (v->later[mid].t_due_ns > q->t_due_ns)
            lo = mid + 1;
        else
            hi = mid;
    }
    memmove(v->later + lo + 1, v->later + lo, (size_t)(v->n_later - lo) * sizeof *v->later);
    v->later[lo] = *q;
    v->n_later++;
}

static int64_t next_due_ns(const struct serve *v)
{
    int64_t t = v->has_next ? v->next.t_due_ns : INT64_MAX;
    if (v->n_later && v->later[v->n_later - 1].t_due_ns < t) t = v->later[v->n_later - 1].t_due_ns;
    return t;
}

static struct trace_req take_arrival(struct serve *v)
{
    const struct trace_req *follow = v->n_later ? &v->later[v->n_later - 1] : NULL;
    if (follow && (!v->has_next || follow->t_due_ns < v->next.t_due_ns))
        return v->later[--v->n_later];
    struct trace_req q = v->next;
    v->has_next = trace_next(v->u->trace, &v->next) != 0;
    return q;
}

/* A request is over: its answer is kept for the turns that repeat it, and what follows it is due.
 */
static void answer(struct serve *v, const struct trace_req *t, const struct slot *k, int64_t now)
{
    struct trace *trace = v->u->trace;
    struct trace_req q = *t, more;
    uint64_t key = 0;
    if (k) {
        q.n_seg = k->n_seg;
        prompt_end(&v->prompt, &q, k->segs, k->tok, k->n);
    } else {
        prompt_refuse(&v->prompt, &q);
    }
    bool session = q.session >= 0 && trace_answers(trace) && q.n_seg > 0;
    if (session) key = q.seg[q.n_seg - 1].key; /* the segments go with trace_done */
    bool follows = trace_done(trace, &q, now > q.t_due_ns ? now : q.t_due_ns, &more);
    if (follows) follow_up(v, &more);
    if (session && !(follows && more.session == q.session)) prompt_forget(&v->prompt, key);
}

static void arrive(struct serve *v, int64_t now)
{
    const struct serve_sink *k = v->u->sink;
    struct trace_req q = take_arrival(v);
    const char *why = sched_refuses(&v->s, &q);
    v->out->due++;
    if (k->arrive)
        k->arrive(k->ctx, &q, (v->has_next ? SERVE_FIRST : 0) | (v->n_later ? SERVE_FOLLOW : 0),
                  now);
    if (why) {
        struct sreq gone = {
            .t = q, .slot = NONE, .t_start_ns = -1, .t_first_ns = -1, .t_last_ns = -1
        };
        v->out->rejected++;
        if (!v->out->why_rejected) v->out->why_rejected = why;
        tell_request(v, &gone, RUN_REJECTED);
        answer(v, &q, NULL, now);
        return;
    }
    int32_t i = slot_take(v, (int64_t)q.n_in + q.n_out);
    struct slot *t = &v->slot[i];
    t->n = q.n_in;
    t->n_seg = q.n_seg;
    q.n_seg = t->segs = prompt_begin(&v->prompt, &q, t->tok);
    sched_submit(&v->s, &q, now)->slot = i;
}

/* ---- what the scheduler tells */

static void on_first(void *ctx, struct sreq *r, int64_t t_ns)
{
    (void)ctx, (void)r, (void)t_ns;
}

static void on_gap(void *ctx, struct sreq *r, int64_t gap_ns)
{
    struct serve *v = ctx;
    (void)r;
    if (v->u->sink->gap) v->u->sink->gap(v->u->sink->ctx, gap_ns);
}

static void on_done(void *ctx, struct sreq *r, int64_t t_ns)
{
    struct serve *v = ctx;
    v->out->finished++;
    tell_request(v, r, RUN_OK);
    answer(v, &r->t, &v->slot[r->slot], t_ns);
    slot_give(v, r->slot);
    r->slot = NONE; /* a ghost of a static batch is computed on, but for nobody */
}

/* ---- a batch as a step */

/* Tokens [past, past + n) of r; its output token, if one is wanted, is number `made` of them. */
static void add_seq(struct serve *v, struct engine_step *s, struct sreq *r, int64_t past, int64_t n)
{
    const struct slot *k = r->slot != NONE ? &v->slot[r->slot] : NULL;
    int64_t blocks = kvpool_blocks_for(&v->s.pool, past + n);
    kvmap_cover(&v->map, r->kv.table - 1, blocks);
    assert(!k || past + n <= k->n);
    for (int64_t i = 0; i < n; i++) v->tok[s->n_tok + i] = k ? k->tok[past + i] : 0;
    v->seq[s->n_seq++] = (struct engine_seq){ .row = s->n_tok,
                                              .n_q = (int32_t)n,
                                              .pos = (int32_t)past,
                                              .n_block = (int32_t)blocks,
                                              .block = kvmap_at(&v->map, r->kv.table - 1)->block };
    s->n_tok += (int32_t)n;
}

/* The token after the last row. Draws are by request and position, so they do not depend on the
 * batch. */
static void want(struct serve *v, struct engine_step *s, struct flight *f, const struct sreq *r)
{
    const struct serve_setup *u = v->u;
    struct engine_out o = {
        .row = s->n_tok - 1, .temperature = u->temperature, .top_k = u->top_k, .top_p = u->top_p
    };
    if (u->temperature > 0 && r->slot != NONE)
        o.u = rng_unit(rng_child(v->draws, prompt_identity(r->t.id, r->t.session, r->t.turn)),
                       (uint64_t)(v->slot[r->slot].n - r->t.n_in));
    f->who[s->n_out] = r->slot;
    v->pick[s->n_out++] = o;
}

static struct engine_step build(struct serve *v, struct flight *f)
{
    struct engine_step s = { .tok = v->tok, .seq = v->seq, .out = v->pick };
    const struct cohort *c = f->b.cohort;
    for (struct sreq *r = c ? c->first : NULL; r; r = r->c_next) {
        int64_t past = r->computed + c->steps - r->join_step;
        int64_t most = (int64_t)r->t.n_in + r->t.n_out - 2; /* a ghost stays where it ended */
        add_seq(v, &s, r, past < most ? past : most, 1);
        want(v, &s, f, r);
    }
    for (int32_t i = 0; i < f->b.n_chunk; i++) {
        const struct chunk *k = &f->b.chunk[i];
        add_seq(v, &s, k->r, k->past, k->tok);
        if (k->last) want(v, &s, f, k->r);
    }
    return s;
}

/* Room in the running requests' last and reserved blocks. */
static int64_t unfilled(const struct serve *v)
{
    int64_t room = 0;
    for (const struct sreq *r = v->s.run_first; r; r = r->next) {
        if (r->kv.table == 0) continue;
        int64_t tok = r->computed + (r->cohort ? r->cohort->steps - r->join_step + 1 : 0);
        room += (int64_t)kvmap_at(&v->map, r->kv.table - 1)->n * v->s.pool.block_tok - tok;
    }
    return room > 0 ? room : 0;
}

/* ---- steps */

static void charge_host(struct serve *v)
{
    v->host_ns += clock_mono_ns() - v->mark_ns;
}

static int launch(struct serve *v, bool *launched, struct err *e)
{
    int k = v->head + v->n;
    struct flight *f = &v->ring[k < v->u->dev.depth ? k : k - v->u->dev.depth];
    int64_t now = now_ns(v);
    *launched = false;
    sched_next(&v->s, &f->b, now);
    if (batch_empty(&f->b)) return ST_OK;
    struct engine_step s = build(v, f);
    f->told = (struct serve_step){ .index = v->out->steps++,
                                   .epoch_ns = v->epoch_ns,
                                   .kv_used_blocks = kvpool_used(&v->s.pool),
                                   .kv_unfilled_tok = unfilled(v),
                                   .queue = v->s.n_wait,
                                   .running = v->s.n_run,
                                   .shape = f->b.shape };
    v->n++;
    look(v, now);
    charge_host(v);
    f->told.t0_ns = now_ns(v);
    int st = v->u->dev.submit(v->u->dev.ctx, &s, e);
    v->mark_ns = clock_mono_ns();
    *launched = st == ST_OK;
    return st;
}

/* The oldest step in flight ends. */
static int land(struct serve *v, struct err *e)
{
    const struct serve_sink *k = v->u->sink;
    struct flight *f = &v->ring[v->head];
    struct cohort *c = f->b.cohort;
    struct engine_result r = { 0 };
    charge_host(v);
    int st = v->u->dev.collect(v->u->dev.ctx, &r, e);
    v->mark_ns = clock_mono_ns();
    if (st != ST_OK) return st;
    int64_t now = v->mark_ns - v->epoch_ns;
    look(v, now);
    for (int32_t i = 0; i < r.n_out; i++) {
        if (f->who[i] == NONE) continue;
        struct slot *t = &v->slot[f->who[i]];
        t->tok[t->n++] = r.tok[i];
    }
    f->told.t1_ns = now;
    if (c) {
        f->told.told = f->b.n_regular - (c->n - c->n_live);
        f->told.gap_ns = now - c->t_emit_ns;
    }
    v->head = v->head + 1 < v->u->dev.depth ? v->head + 1 : 0;
    v->n--;
    sched_complete(&v->s, &f->b, 1, now);
    look(v, now);
    charge_host(v);
    f->told.host_ns = v->host_ns;
    v->host_ns = 0;
    v->mark_ns = clock_mono_ns();
    if (k->step) k->step(k->ctx, &f->told);
    return ST_OK;
}

/* Sleeps until t_ns of the run, a while at most. */
static void nap(struct serve *v, int64_t t_ns)
{
    int64_t now = now_ns(v), until = t_ns - now < NAP_NS ? t_ns : now + NAP_NS;
    until += v->epoch_ns;
    struct timespec t = { .tv_sec = (time_t)(until / 1000000000),
                          .tv_nsec = (long)(until % 1000000000) };
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL); /* a signal may end it early */
    v->mark_ns = clock_mono_ns();
}

/* One round: who is due arrives, steps are launched, the oldest ends. *more: there is work left. */
static int turn(struct serve *v, bool *more, struct err *e)
{
    int st = ST_OK;
    int64_t now = now_ns(v);
    look(v, now);
    while (next_due_ns(v) <= now) arrive(v, now);
    for (bool launched = true; launched && v->n < v->u->dev.depth && st == ST_OK;)
        st = launch(v, &launched, e);
    if (st != ST_OK) return st;
    if (v->n > 0) return land(v, e);
    int64_t t = next_due_ns(v);
    if (!sched_idle(&v->s) && t == INT64_MAX)
        return err_set(e, ST_RANGE,
                       "the scheduler stalled with %lld requests left; please report this scenario",
                       (long long)(v->s.n_wait + v->s.n_run));
    if (t == INT64_MAX)
        *more = false;
    else
        nap(v, t);
    return ST_OK;
}

/* ---- the run */

static void begin(struct serve *v, const struct serve_setup *u, struct arena *a)
{
    const struct sched_opts *o = u->sched;
    int32_t per_chain = (int32_t)((u->max_ctx + o->block_tok - 1) / o->block_tok);
    v->u = u;
    v->arena = a;
    v->free_slot = NONE;
    v->sink = (struct sched_sink){ .ctx = v, .first = on_first, .gap = on_gap, .done = on_done };
    v->sink.preempt = on_first;
    sched_init(&v->s, o, u->kv_blocks, u->dev.depth, u->max_ctx, &v->sink, a);
    kvmap_init(&v->map, (int32_t)u->kv_blocks, per_chain, a);
    kvpool_number(&v->s.pool, &v->map);
    prompt_init(&v->prompt, u->vocab, u->seed);
    v->draws = rng_stream(u->seed, "engine.sample");
    serve_sizes(o, u->kv_blocks, u->max_ctx, &v->room);
    v->ring = arena_array(a, (size_t)u->dev.depth, sizeof *v->ring);
    for (int i = 0; i < u->dev.depth; i++)
        v->ring[i].who = arena_array(a, (size_t)v->room.m.max_out, sizeof(int32_t));
    v->tok = arena_array(a, (size_t)v->room.m.max_tok, sizeof *v->tok);
    v->seq = arena_array(a, (size_t)v->room.m.max_tok, sizeof *v->seq);
    v->pick = arena_array(a, (size_t)v->room.m.max_out, sizeof *v->pick);
    v->has_next = trace_next(u->trace, &v->next) != 0;
    v->epoch_ns = v->mark_ns = clock_mono_ns();
}

static void give_up_list(struct serve *v, const struct sreq *r)
{
    for (; r; r = r->next) {
        if (r->state == SREQ_GHOST || r->state == SREQ_DONE) continue;
        v->out->unfinished++;
        tell_request(v, r, RUN_UNFINISHED);
    }
}

int serve_run(const struct serve_setup *u, struct arena *a, struct serve_result *out, struct err *e)
{
    struct serve *v = arena_alloc(a, sizeof *v);
    bool more = true;
    int st = serve_check(u->sched, u->kv_blocks, e);
    *out = (struct serve_result){ 0 };
    if (st != ST_OK) return st;
    v->out = out;
    begin(v, u, a);
    while (more && st == ST_OK) {
        st = turn(v, &more, e);
        out->stopped = stop_asked();
        if (out->stopped || (u->limit_ns > 0 && now_ns(v) >= u->limit_ns)) break;
    }
    while (st == ST_OK && v->n > 0) st = land(v, e); /* what has been computed counts */
    out->t_stop_ns = now_ns(v);
    look(v, out->t_stop_ns);
    give_up_list(v, v->s.run_first);
    give_up_list(v, v->s.wait_first);
    out->preempted = v->s.n_preempt;
    out->recomputed_tok = v->s.n_recomputed_tok;
    out->hit_tok = v->s.pool.hit_tok;
    out->asked_tok = v->s.pool.asked_tok;
    out->n_early = v->prompt.n_early;
    prompt_release(&v->prompt);
    return st;
}
