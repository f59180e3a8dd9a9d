/* engine/serve.c - see serve.h. SPDX-License-Identifier: Apache-2.0 */
#include "engine/serve.h"

#include <assert.h>
#include <string.h>

#include "base/progress.h"
#include "base/rooms.h"
#include "base/stop.h"
#include "engine/desk.h"

enum { NONE = -1, LEAST_TOK = 32 };
static const int64_t NAP_NS = 100000000; /* Ctrl-C may reach another thread: look again */

/* What the loop knows of a request besides the scheduler. */
struct slot {
    int32_t *tok; /* [1 << log2] prompt, then output */
    int log2;
    int32_t n;
    int32_t n_seg, segs; /* in the trace; that others may share */
    int32_t next_free;
};

struct flight {
    struct batch b;
    int32_t *who; /* [max_seqs] slot of each output; NONE: nobody's */
    struct serve_step told;
};

struct hall;

struct serve { /* one replica */
    struct hall *hall;
    const struct serve_setup *u;
    const struct serve_device *dev;
    int index;
    struct run_replica *out;
    struct sched s;
    struct sched_sink sink;
    struct kvmap map;
    struct rng draws;
    struct slot *slot; /* [cap_slot] */
    int32_t n_slot, cap_slot, free_slot;
    struct rooms rooms;  /* of tokens */
    struct flight *ring; /* [depth] */
    int head, n;
    int32_t *tok;
    struct engine_seq *seq;
    struct engine_out *pick;
    struct engine_opts room;
    struct serve_level level; /* since t1_ns; under the desk's lock */
    int64_t submitted, ended; /* under the desk's lock */
    int64_t epoch_ns, mark_ns, host_ns;
    struct arena *arena, own;
};

/* What replicas share; desk.lock guards all of it, and the calls of the sink. */
struct hall {
    const struct serve_setup *u;
    struct desk desk;
    struct serve *rep; /* [n] */
    int n;
    struct serve_result *out;
    int64_t epoch_ns;
    bool over; /* all have ended, the limit or Ctrl-C has come, or a device has failed */
    int failed;
    struct err e;
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

static int64_t table_blocks(const struct sched_opts *s, int64_t max_ctx)
{
    return s->max_seqs * ((max_ctx + s->block_tok - 1) / s->block_tok);
}

int serve_check_table(const struct sched_opts *s, int64_t max_ctx, struct err *e)
{
    int64_t most = table_blocks(s, max_ctx);
    if (most <= SERVE_MAX_TABLE) return ST_OK;
    return err_set(e, ST_USAGE,
                   "policy.max_seqs: %lld sequences of up to %lld tokens (policy.max_model_len) in "
                   "blocks of %lld (policy.block) may list %lld blocks in a step; at most %d",
                   (long long)s->max_seqs, (long long)max_ctx, (long long)s->block_tok,
                   (long long)most, SERVE_MAX_TABLE);
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
    o->max_table = (int32_t)table_blocks(s, max_ctx);
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

/* The next of a trace whose requests have all been refused; *any: there was one before. */
static bool next_refused(struct trace *t, struct trace_req *q, bool *any)
{
    struct trace_req more;
    bool follows = *any && trace_done(t, q, q->t_due_ns, &more);
    if (follows)
        *q = more;
    else
        follows = trace_next(t, q) != 0;
    return *any = follows;
}

int serve_fits(const struct sched_opts *s, int64_t kv_blocks, int32_t max_ctx, struct trace *t,
               struct err *e)
{
    static const int64_t MANY = 1000000;
    struct sched probe;
    struct trace_req q;
    struct arena a;
    const char *why = NULL;
    int64_t n = 0, least = INT64_MAX;
    bool found = false, any = false;
    arena_init(&a);
    sched_init(&probe, s, kv_blocks, 1, max_ctx, NULL, &a);
    while (!found && n < MANY && next_refused(t, &q, &any)) {
        int64_t tok = (int64_t)q.n_in + q.n_out;
        const char *no = sched_refuses(&probe, &q);
        n++;
        found = !no;
        if (found || tok >= least) continue;
        least = tok;
        why = no;
    }
    arena_release(&a);
    if (found || n == 0) return ST_OK;
    return err_set(e, ST_USAGE,
                   "workload: none of its %lld requests can run: of the smallest, %lld tokens, %s; "
                   "the KV cache holds %lld tokens (policy.kv_blocks), a context %d",
                   (long long)n, (long long)least, why, (long long)(kv_blocks * s->block_tok),
                   (int)max_ctx);
}

static int64_t now_ns(const struct serve *v)
{
    return clock_mono_ns() - v->epoch_ns;
}

/* ---- slots, reused */

static int32_t slot_take(struct serve *v, int64_t tok)
{
    int log2 = rooms_log2(&v->rooms, tok);
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
    v->slot[i] = (struct slot){ .tok = rooms_take(&v->rooms, log2), .log2 = log2 };
    return i;
}

static void slot_give(struct serve *v, int32_t i)
{
    struct slot *k = &v->slot[i];
    rooms_give(&v->rooms, k->tok, k->log2);
    k->tok = NULL;
    k->next_free = v->free_slot;
    v->free_slot = i;
}

/* ---- what is told: all under the desk's lock */

/* Time has come to now: what a replica's state was since the last call is told. */
static void tell_level(struct serve *v, int64_t now)
{
    const struct serve_sink *k = v->u->sink;
    struct serve_level *l = &v->level;
    if (now <= l->t1_ns) return;
    l->t0_ns = l->t1_ns;
    l->t1_ns = now;
    if (k->level) k->level(k->ctx, l);
}

/* And the present one is noted, by the replica's own thread. */
static void look_locked(struct serve *v, int64_t now)
{
    struct serve_level *l = &v->level;
    tell_level(v, now);
    l->kv_used_blocks = kvpool_used(&v->s.pool);
    l->queue = v->s.n_wait;
    l->running = v->s.n_run;
    l->in_system = v->submitted - v->ended;
    l->blocked = v->s.blocked;
    l->active = v->n > 0;
    if (l->kv_used_blocks > v->out->kv_peak_blocks) v->out->kv_peak_blocks = l->kv_used_blocks;
}

static void look(struct serve *v, int64_t now)
{
    desk_lock(&v->hall->desk);
    look_locked(v, now);
    desk_unlock(&v->hall->desk);
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
                               .replica = v->index,
                               .turn = r->t.turn,
                               .status = (uint8_t)status,
                               .klass = (uint8_t)r->t.klass };
    k->request(k->ctx, &row, r->t.id, status == RUN_REJECTED ? -1 : r->t_ready_ns,
               made ? t->tok + r->t.n_in : NULL);
}

/* ---- arrivals, under the desk's lock */

static void admit(struct serve *v, const struct trace_req *from, int64_t now)
{
    struct trace_req q = *from;
    int32_t i = slot_take(v, (int64_t)q.n_in + q.n_out);
    struct slot *t = &v->slot[i];
    t->n = q.n_in;
    t->n_seg = q.n_seg;
    q.n_seg = t->segs = prompt_begin(&v->hall->desk.prompt, &q, t->tok);
    v->submitted++;
    sched_submit(&v->s, &q, now)->slot = i;
}

static void reject(struct serve *v, const struct trace_req *q, const char *why, int64_t now)
{
    struct serve_result *out = v->hall->out;
    struct sreq gone = {
        .t = *q, .slot = NONE, .t_start_ns = -1, .t_first_ns = -1, .t_last_ns = -1
    };
    out->rejected++;
    v->out->rejected++;
    if (!out->why_rejected) out->why_rejected = why;
    tell_request(v, &gone, RUN_REJECTED);
    desk_end(&v->hall->desk, v->index, q, NULL, now);
}

/* The next request arrives, by way of replica v: it goes to the one that the router says. */
static void arrive(struct serve *v, int64_t now)
{
    const struct serve_sink *k = v->u->sink;
    struct hall *h = v->hall;
    int to;
    struct trace_req q = desk_take(&h->desk, &to);
    const char *why = sched_refuses(&h->rep[to].s, &q); /* looks at what does not change */
    h->out->due++;
    h->rep[to].out->due++;
    for (int i = 0; i < h->n && !h->desk.has_next; i++) tell_level(&h->rep[i], now);
    if (k->arrive)
        k->arrive(k->ctx, &q,
                  (h->desk.has_next ? SERVE_FIRST : 0) | (h->desk.n_later ? SERVE_FOLLOW : 0), now);
    if (why)
        reject(&h->rep[to], &q, why, now);
    else if (to == v->index)
        admit(v, &q, now);
    else
        desk_put(&h->desk, to, &q);
}

static void empty_tray(struct serve *v, int64_t now)
{
    struct desk_tray *t = &v->hall->desk.tray[v->index];
    for (int32_t i = 0; i < t->n; i++) admit(v, &t->q[i], now);
    t->n = 0;
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
    if (!v->u->sink->gap) return;
    desk_lock(&v->hall->desk);
    v->u->sink->gap(v->u->sink->ctx, gap_ns);
    desk_unlock(&v->hall->desk);
}

static void on_done(void *ctx, struct sreq *r, int64_t t_ns)
{
    struct serve *v = ctx;
    struct hall *h = v->hall;
    const struct slot *k = &v->slot[r->slot];
    desk_lock(&h->desk);
    h->out->finished++;
    v->out->finished++;
    v->ended++;
    tell_request(v, r, RUN_OK);
    desk_end(&h->desk, v->index, &r->t, &(struct desk_answer){ k->tok, k->n, k->n_seg, k->segs },
             t_ns);
    desk_unlock(&h->desk);
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
    struct flight *f = &v->ring[k < v->dev->depth ? k : k - v->dev->depth];
    int64_t now = now_ns(v);
    *launched = false;
    sched_next(&v->s, &f->b, now);
    if (batch_empty(&f->b)) return ST_OK;
    struct engine_step s = build(v, f);
    f->told = (struct serve_step){ .replica = v->index,
                                   .index = v->out->steps++,
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
    int st = v->dev->submit(v->dev->ctx, &s, e);
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
    int st = v->dev->collect(v->dev->ctx, &r, e);
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
    v->head = v->head + 1 < v->dev->depth ? v->head + 1 : 0;
    v->n--;
    v->out->in_tok += f->told.shape.prefill_tok;
    v->out->out_tok += f->told.shape.n_logits;
    sched_complete(&v->s, &f->b, 1, now);
    desk_lock(&v->hall->desk);
    look_locked(v, now);
    charge_host(v);
    f->told.host_ns = v->host_ns;
    v->host_ns = 0;
    v->mark_ns = clock_mono_ns();
    if (k->step) k->step(k->ctx, &f->told);
    desk_unlock(&v->hall->desk);
    return ST_OK;
}

/* Nothing is in flight: sleeps until the next request is due, a while at most, or one is routed here.
 * Where no replica has any left, it is over. */
static int nap(struct serve *v, struct err *e)
{
    struct hall *h = v->hall;
    struct desk *d = &h->desk;
    int st = ST_OK;
    desk_lock(d);
    int64_t t = desk_due_ns(d), now = now_ns(v);
    int64_t own = v->submitted - v->ended;
    bool empty = d->tray[v->index].n == 0;
    if (empty && t == INT64_MAX && own > 0)
        st = err_set(e, ST_RANGE,
                     "the scheduler stalled with %lld requests left; please report this scenario",
                     (long long)own);
    if (empty && t == INT64_MAX && d->left == 0) {
        h->over = true;
        desk_wake_all(d);
    } else if (empty && t > now && st == ST_OK && !h->over) {
        desk_wait(d, v->index, v->epoch_ns + (t - now < NAP_NS ? t : now + NAP_NS));
    }
    desk_unlock(d);
    v->mark_ns = clock_mono_ns();
    return st;
}

/* One round: who is due arrives, steps are launched, the oldest ends. */
static int turn(struct serve *v, struct err *e)
{
    struct desk *d = &v->hall->desk;
    int st = ST_OK;
    desk_lock(d);
    int64_t now = now_ns(v); /* under the lock: nobody is here before having been routed */
    look_locked(v, now);
    while (desk_due_ns(d) <= now) arrive(v, now);
    empty_tray(v, now);
    look_locked(v, now); /* they are here from now on */
    desk_unlock(d);
    for (bool launched = true; launched && v->n < v->dev->depth && st == ST_OK;)
        st = launch(v, &launched, e);
    if (st != ST_OK) return st;
    return v->n > 0 ? land(v, e) : nap(v, e);
}

/* Whether to go on after a round that ended with st; what failed first is kept. */
static bool go_on(struct serve *v, int st, const struct err *e)
{
    struct hall *h = v->hall;
    bool stopped = stop_asked();
    desk_lock(&h->desk);
    if (st != ST_OK && h->failed == ST_OK) {
        h->failed = st;
        h->e = *e;
    }
    h->out->stopped |= stopped;
    if (st != ST_OK || stopped || (v->u->limit_ns > 0 && now_ns(v) >= v->u->limit_ns)) {
        h->over = true;
        desk_wake_all(&h->desk);
    }
    bool more = !h->over;
    desk_unlock(&h->desk);
    return more;
}

static void live(void *hall, int index, int n)
{
    struct hall *h = hall;
    struct serve *v = &h->rep[index];
    struct err e = { 0 };
    int st;
    (void)n;
    v->mark_ns = clock_mono_ns();
    do {
        st = turn(v, &e);
    } while (go_on(v, st, &e));
    while (st == ST_OK && v->n > 0) st = land(v, &e); /* what has been computed counts */
    if (st != ST_OK) (void)go_on(v, st, &e);
}

/* ---- the run */

static void begin(struct hall *h, int index, struct arena *a)
{
    struct serve *v = &h->rep[index];
    const struct serve_setup *u = h->u;
    const struct sched_opts *o = u->sched;
    int32_t per_chain = (int32_t)((u->max_ctx + o->block_tok - 1) / o->block_tok);
    v->hall = h;
    v->u = u;
    v->dev = &u->dev[index];
    v->index = v->level.replica = index;
    v->out = &h->out->part[index];
    arena_init(&v->own);
    v->arena = h->n > 1 ? &v->own : a;
    v->free_slot = NONE;
    rooms_init(&v->rooms, sizeof *v->tok, LEAST_TOK, v->arena);
    v->sink = (struct sched_sink){ .ctx = v, .first = on_first, .gap = on_gap, .done = on_done };
    v->sink.preempt = on_first;
    sched_init(&v->s, o, u->kv_blocks, v->dev->depth, u->max_ctx, &v->sink, v->arena);
    kvmap_init(&v->map, (int32_t)u->kv_blocks, per_chain, v->arena);
    kvpool_number(&v->s.pool, &v->map);
    v->draws = rng_stream(u->seed, "engine.sample");
    serve_sizes(o, u->kv_blocks, u->max_ctx, &v->room);
    v->ring = arena_array(v->arena, (size_t)v->dev->depth, sizeof *v->ring);
    for (int i = 0; i < v->dev->depth; i++)
        v->ring[i].who = arena_array(v->arena, (size_t)v->room.m.max_out, sizeof(int32_t));
    v->tok = arena_array(v->arena, (size_t)v->room.m.max_tok, sizeof *v->tok);
    v->seq = arena_array(v->arena, (size_t)v->room.m.max_tok, sizeof *v->seq);
    v->pick = arena_array(v->arena, (size_t)v->room.m.max_out, sizeof *v->pick);
}

static void give_up_list(struct serve *v, const struct sreq *r)
{
    for (; r; r = r->next) {
        if (r->state == SREQ_GHOST || r->state == SREQ_DONE) continue;
        v->out->unfinished++;
        tell_request(v, r, RUN_UNFINISHED);
    }
}

/* All threads have ended but the caller. */
static void finish(struct serve *v)
{
    struct serve_result *out = v->hall->out;
    struct run_replica *p = v->out;
    look_locked(v, out->t_stop_ns);
    empty_tray(v, out->t_stop_ns); /* routed here, and never seen */
    give_up_list(v, v->s.run_first);
    give_up_list(v, v->s.wait_first);
    p->preempted = v->s.n_preempt;
    p->recomputed_tok = v->s.n_recomputed_tok;
    p->hit_tok = v->s.pool.hit_tok;
    p->asked_tok = v->s.pool.asked_tok;
    out->steps += p->steps;
    out->unfinished += p->unfinished;
    out->preempted += p->preempted;
    out->recomputed_tok += p->recomputed_tok;
    out->hit_tok += p->hit_tok;
    out->asked_tok += p->asked_tok;
    if (p->kv_peak_blocks > out->kv_peak) out->kv_peak = p->kv_peak_blocks;
    arena_release(&v->own);
}

int serve_run(const struct serve_setup *u, struct arena *a, struct serve_result *out, struct err *e)
{
    struct hall h = { .u = u, .n = u->n_replica, .out = out };
    int st = serve_check(u->sched, u->kv_blocks, e);
    *out = (struct serve_result){ 0 };
    if (st != ST_OK) return st;
    assert(h.n == 1 || (u->crew && team_size(u->crew) == h.n));
    out->part = arena_array(a, (size_t)h.n, sizeof *out->part);
    h.rep = arena_array(a, (size_t)h.n, sizeof *h.rep);
    desk_init(&h.desk, u->trace, u->router, h.n, u->vocab, u->seed);
    for (int i = 0; i < h.n; i++) begin(&h, i, a);
    h.epoch_ns = clock_mono_ns();
    for (int i = 0; i < h.n; i++) h.rep[i].epoch_ns = h.epoch_ns;
    if (h.n > 1)
        team_run(u->crew, live, &h);
    else
        live(&h, 0, 1);
    out->t_stop_ns = clock_mono_ns() - h.epoch_ns;
    for (int i = 0; i < h.n; i++) finish(&h.rep[i]);
    out->n_early = h.desk.prompt.n_early;
    desk_release(&h.desk);
    return h.failed != ST_OK ? err_set(e, h.failed, "%s", h.e.text) : ST_OK;
}
