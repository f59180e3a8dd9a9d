/* tests/test_sched.c - the pure scheduler under a small virtual clock, checked at every step.
 *
 * A `world` drives one scheduler through a random scenario and keeps its own state of each request
 * from what the batches and the sink say: every sum, budget and promise is recomputed from that.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/sched.h"

#include <stdio.h>
#include <stdlib.h>

#include "tests/sched_scen.h"
#include "tests/test.h"

enum mode { SINGLE, FAST, REPEAT };

/* ---- the world */

enum where { AWAY, WAITING, RUNNING, ENDED, REFUSED };
struct mirror {
    enum where where;
    int64_t computed, target, made, gap_sum, t_first, t_last, gap;
    int chunks, n_first, n_done,
        n_gap;    /* chunks in flight; sink calls, gaps since it was last looked at */
    int64_t turn; /* of its latest admission */
    bool decoding, ghost, resumed;
};
struct flight {
    struct batch b;
    int n_new, n_dec, dec[N_REQ], n_chunk, chunk[N_REQ];
    bool last[N_REQ];
    int64_t end_ns;
};
struct world {
    const struct scen *c;
    enum mode mode;
    struct sched s;
    struct sched_sink sink;
    struct arena a;
    struct rng r;
    struct mirror m[N_REQ];
    struct flight f[MAX_DEPTH]; /* f[0] is the oldest */
    int n_flight, arrived, n_run, queue[2 * N_REQ], q_head,
        q_tail; /* queue[q_head..q_tail) waits */
    int64_t now_ns, steps, preempts, turns;
    int64_t first_out; /* earliest turn that was preempted for the batch in the making */
    uint64_t log;      /* of all sink calls but gaps, in order */
    bool ok;
};
struct counts {
    int64_t scen, step, preempt, hit, chunked, resumed, refused, irregular, skipped, repeats, depth;
};
static struct counts total;

#define WANT(w, cond)                                                                              \
    do {                                                                                           \
        if (!CHECK(cond)) (w)->ok = false;                                                         \
    } while (0)
#define SAME(w, a, b)                                                                              \
    do {                                                                                           \
        if (!CHECK_INT(a, b)) (w)->ok = false;                                                     \
    } while (0)

static void log_event(struct world *w, int kind, const struct sreq *r, int64_t t_ns)
{
    w->log = mix_pair(mix_pair(w->log, (uint64_t)kind * 1000 + (uint64_t)r->t.id), (uint64_t)t_ns);
    SAME(w, t_ns, w->now_ns);
}

static void on_first(void *ctx, struct sreq *r, int64_t t_ns)
{
    struct world *w = ctx;
    struct mirror *m = &w->m[r->t.id];
    log_event(w, 1, r, t_ns);
    WANT(w, m->n_first == 0 && m->n_done == 0 && m->where == RUNNING);
    m->n_first++;
}

static void on_gap(void *ctx, struct sreq *r, int64_t gap_ns)
{
    struct world *w = ctx;
    struct mirror *m = &w->m[r->t.id];
    WANT(w, m->n_done == 0);
    m->n_gap++;
    m->gap = gap_ns;
}

static void on_done(void *ctx, struct sreq *r, int64_t t_ns)
{
    struct world *w = ctx;
    struct mirror *m = &w->m[r->t.id];
    log_event(w, 2, r, t_ns);
    WANT(w, m->n_first == 1 && m->n_done == 0);
    SAME(w, r->t_last_ns, t_ns);
    SAME(w, r->made, r->t.n_out);
    m->n_done++;
}

static void on_preempt(void *ctx, struct sreq *r, int64_t t_ns)
{
    struct world *w = ctx;
    struct mirror *m = &w->m[r->t.id];
    log_event(w, 3, r, t_ns);
    WANT(w, m->where == RUNNING && m->chunks == 0 && !m->decoding);
    SAME(w, r->made, m->made);
    if (m->made) SAME(w, r->t_last_ns, m->t_last);
    m->where = WAITING;
    m->computed = 0;
    m->resumed = true;
    w->n_run--;
    w->preempts++;
    if (m->turn < w->first_out) w->first_out = m->turn;
    w->queue[--w->q_head] = (int)r->t.id;
}

static void world_open(struct world *w, const struct scen *c, enum mode mode)
{
    memset(w, 0, sizeof *w);
    w->c = c;
    w->mode = mode;
    w->ok = true;
    w->q_head = w->q_tail = N_REQ;
    w->r = rng_stream(7, "fast");
    w->sink = (struct sched_sink){ w, on_first, on_gap, on_done, on_preempt };
    arena_init(&w->a);
    sched_init(&w->s, &c->o, c->n_block, c->depth, c->max_ctx, &w->sink, &w->a);
}

/* ---- what must hold of a batch */

static int64_t blocks_for(const struct world *w, int64_t tok)
{
    return (tok + w->c->o.block_tok - 1) / w->c->o.block_tok;
}

static void admitted(struct world *w, struct mirror *m, const struct chunk *k)
{
    int64_t id = k->r->t.id;
    WANT(w, w->q_head < w->q_tail && w->queue[w->q_head] == id); /* first come, first served */
    w->q_head++;
    w->n_run++;
    m->where = RUNNING;
    m->turn = w->turns++;
    m->target = w->c->req[id].n_in + m->made;
    m->computed = k->past;
    WANT(w, k->past % w->c->o.block_tok == 0 && k->past < m->target);
    total.hit += k->past > 0;
    total.resumed += m->resumed;
}

static void see_chunks(struct world *w, struct flight *f, struct step_shape *x)
{
    f->n_chunk = f->b.n_chunk;
    f->n_new = 0;
    for (int i = 0; i < f->b.n_chunk; i++) {
        const struct chunk *k = &f->b.chunk[i];
        int id = (int)k->r->t.id;
        struct mirror *m = &w->m[id];
        if (m->where == WAITING) {
            admitted(w, m, k);
            f->n_new++;
        }
        WANT(w, m->where == RUNNING && !m->decoding && k->tok > 0);
        SAME(w, k->past, m->computed);
        for (int64_t q = 1; q <= k->tok; q++) x->prefill_pairs += m->computed + q;
        x->prefill_tok += k->tok;
        x->prefill_past += m->computed;
        x->n_prefill++;
        m->computed += k->tok;
        m->chunks++;
        f->chunk[i] = id;
        f->last[i] = m->computed == m->target;
        WANT(w, k->last == f->last[i] && m->computed <= m->target);
        x->n_logits += f->last[i];
        total.chunked += !f->last[i];
        if (w->c->o.policy >= SCHED_ORCA) WANT(w, k->last && k->past == 0);
    }
}

static void see_decodes(struct world *w, struct flight *f, struct step_shape *x)
{
    int64_t longest = 0;
    f->n_dec = 0;
    for (struct sreq *r = f->b.cohort ? f->b.cohort->first : NULL; r; r = r->c_next) {
        struct mirror *m = &w->m[r->t.id];
        WANT(w, m->where == RUNNING && !m->decoding && m->chunks == 0 && m->made >= 1);
        if (!m->ghost) SAME(w, m->computed, w->c->req[r->t.id].n_in + m->made - 1);
        m->decoding = true;
        f->dec[f->n_dec++] = (int)r->t.id;
        x->sum_ctx += m->computed + 1;
        if (m->computed + 1 > longest) longest = m->computed + 1;
    }
    x->n_decode = f->n_dec;
    x->n_logits += f->n_dec;
    x->skew = longest * f->n_dec - x->sum_ctx;
}

static void check_blocked(struct world *w)
{
    enum sched_blocked why = w->s.blocked;
    if (!w->s.ahead) { /* else it was found before the last step's news */
        WANT(w, (why != SCHED_FREE) == (w->q_head < w->q_tail));
        if (why == SCHED_BY_SEQS) WANT(w, w->n_run == w->c->o.max_seqs);
        if (why == SCHED_BY_BATCH) WANT(w, w->s.hold);
    }
    if (why == SCHED_BY_GROUP) WANT(w, w->s.balanced && w->c->depth > 1);
    if (why == SCHED_BY_KV) WANT(w, w->s.paged && kvpool_available(&w->s.pool) < w->c->n_block);
}

static void check_limits(struct world *w, const struct flight *f)
{
    const struct sched_opts *o = &w->c->o;
    const struct step_shape *x = &f->b.shape;
    int64_t tok = batch_tokens(&f->b);
    WANT(w, w->n_run <= o->max_seqs && w->n_flight <= w->c->depth);
    SAME(w, w->s.n_run, w->n_run);
    SAME(w, w->s.n_wait, w->q_tail - w->q_head);
    check_blocked(w);
    if (w->s.balanced && f->n_new) { /* this group has no more than its share */
        int64_t all = w->n_run + w->q_tail - w->q_head;
        if (all > o->max_seqs) all = o->max_seqs;
        WANT(w, f->n_dec + f->n_chunk <= (all + w->c->depth - 1) / w->c->depth);
    }
    if (o->policy == SCHED_VLLM) WANT(w, tok <= o->max_batch_tok);
    if (o->policy == SCHED_SARATHI) WANT(w, tok <= o->chunk_tok || x->prefill_tok == 0);
    if (o->policy == SCHED_ORCA) WANT(w, tok <= o->max_batch_tok || x->prefill_tok == 0);
    if (o->policy == SCHED_STATIC)
        WANT(w, x->prefill_tok <= o->max_batch_tok && !(f->n_dec && f->n_chunk));
    for (int i = 0; i < w->c->n && f->n_dec && !w->s.balanced && !w->s.hold; i++)
        WANT(w, w->m[i].where != RUNNING || w->m[i].decoding || w->m[i].chunks ||
                    w->m[i].computed < w->m[i].target);
}

/* Without sharing the blocks in use are known to the last one; with it, only within bounds. */
static void check_pool(struct world *w)
{
    int64_t sum = 0, most = 0, loose = 0;
    if (!w->s.paged) return;
    for (const struct sreq *r = w->s.run_first; r; r = r->next) {
        const struct mirror *m = &w->m[r->t.id];
        int64_t tok = m->computed + m->decoding;
        if (w->c->o.policy == SCHED_SARATHI && tok < m->target) tok = m->target;
        if (w->c->o.policy >= SCHED_ORCA) {
            tok = w->c->req[r->t.id].n_out;
            if (w->c->o.reserve_out == 1)
                for (tok = 1; tok < w->c->req[r->t.id].n_out;) tok *= 2;
            tok += w->c->req[r->t.id].n_in;
            if (w->c->max_ctx && (tok > w->c->max_ctx || w->c->o.reserve_out == 2))
                tok = w->c->max_ctx;
        }
        int64_t need = blocks_for(w, tok);
        sum += need;
        if (need > most) most = need;
        loose += r->kv.own - r->kv.in_nodes + need - r->kv.blocks;
        WANT(w, r->kv.blocks <= need);
    }
    if (!w->s.pool.share) SAME(w, kvpool_used(&w->s.pool), sum);
    WANT(w, kvpool_used(&w->s.pool) >= most && kvpool_available(&w->s.pool) >= 0);
    WANT(w, kvpool_consistent(&w->s.pool, loose));
}

/* The latest admitted give way: nobody in the batch came later than one who was preempted for it,
 * but for prompts that have a chunk in flight (they cannot be preempted) and those who were
 * admitted after all that could run had been preempted. */
static void check_order(struct world *w, const struct flight *f)
{
    for (int i = 0; i < w->c->n; i++) { /* nobody is admitted behind a prompt still under way */
        const struct mirror *m = &w->m[i];
        if (m->where == RUNNING && m->computed < m->target) SAME(w, m->turn, w->turns - 1);
    }
    if (w->first_out == INT64_MAX) return;
    if (f->n_new) WANT(w, f->n_dec == 0 && f->n_new == f->n_chunk);
    for (int i = 0; i < f->n_dec; i++) WANT(w, w->m[f->dec[i]].turn < w->first_out);
    for (int i = 0; i < f->n_chunk && !f->n_new; i++) {
        const struct mirror *m = &w->m[f->chunk[i]];
        WANT(w, m->turn < w->first_out || m->chunks > 1);
    }
}

static void check_batch(struct world *w, struct flight *f)
{
    const struct step_shape *g = &f->b.shape;
    struct step_shape x = { 0 };
    see_decodes(w, f, &x);
    see_chunks(w, f, &x);
    SAME(w, g->n_decode, x.n_decode);
    SAME(w, g->sum_ctx, x.sum_ctx);
    SAME(w, g->skew, x.skew);
    SAME(w, g->n_prefill, x.n_prefill);
    SAME(w, g->prefill_tok, x.prefill_tok);
    SAME(w, g->prefill_past, x.prefill_past);
    SAME(w, g->prefill_pairs, x.prefill_pairs);
    SAME(w, g->n_logits, x.n_logits);
    check_limits(w, f);
    check_pool(w);
}

/* ---- what must hold when a batch ends */

static void token(struct world *w, struct mirror *m, int64_t n)
{
    if (m->made == 0)
        m->t_first = w->now_ns;
    else
        m->gap_sum += w->now_ns - m->t_last;
    m->made += n;
    m->t_last = w->now_ns;
}

static void ended(struct world *w, int id, bool hold)
{
    struct mirror *m = &w->m[id];
    const struct trace_req *q = &w->c->req[id];
    bool all = m->made == q->n_out;
    SAME(w, m->n_done, all);
    SAME(w, m->n_first, 1);
    if (!all) return;
    SAME(w, m->gap_sum, m->t_last - m->t_first);
    m->ghost = hold;
    if (hold) return;
    m->where = ENDED;
    w->n_run--;
}

static void release_ghosts(struct world *w, const int *id, int n)
{
    for (int i = 0; i < n; i++)
        if (!w->m[id[i]].ghost) return;
    for (int i = 0; i < n; i++) {
        w->m[id[i]].ghost = false;
        w->m[id[i]].where = ENDED;
        w->n_run--;
    }
}

static void check_complete(struct world *w, struct flight *f, int64_t steps, int64_t t_emit_ns,
                           int64_t n_regular)
{
    int64_t regular = 0;
    for (int i = 0; i < f->n_dec; i++) {
        struct mirror *m = &w->m[f->dec[i]];
        m->decoding = false;
        m->computed += steps;
        if (m->ghost) continue;
        if (m->n_gap)
            SAME(w, m->gap, w->now_ns - m->t_last);
        else
            SAME(w, m->t_last, t_emit_ns);
        SAME(w, m->n_gap * (steps > 1), 0);
        regular += !m->n_gap;
        total.irregular += m->n_gap;
        m->n_gap = 0;
        token(w, m, steps);
        ended(w, f->dec[i], w->s.hold);
    }
    SAME(w, n_regular, regular);
    for (int i = 0; i < f->n_chunk; i++) {
        struct mirror *m = &w->m[f->chunk[i]];
        m->chunks--;
        if (!f->last[i]) continue;
        SAME(w, m->n_gap, m->made > 0);
        if (m->n_gap) SAME(w, m->gap, w->now_ns - m->t_last);
        m->n_gap = 0;
        token(w, m, 1);
        ended(w, f->chunk[i], w->s.hold);
    }
    if (w->s.hold)
        release_ghosts(w, f->n_dec ? f->dec : f->chunk, f->n_dec ? f->n_dec : f->n_chunk);
}

/* ---- the clock */

static int64_t duration(const struct world *w, const struct step_shape *x)
{
    if (w->c->late && x->sum_ctx % 3 == 0) return 0; /* several batches end at once */
    return 1000 + 31 * (x->n_decode + x->prefill_tok) + 3 * x->sum_ctx + x->prefill_pairs;
}

static void launched(struct world *w, struct flight *f)
{
    int64_t after = w->n_flight > 1 ? f[-1].end_ns : w->now_ns, d = duration(w, &f->b.shape);
    f->end_ns = (after > w->now_ns ? after : w->now_ns) + d;
    w->steps++;
    check_batch(w, f);
}

static void launch(struct world *w)
{
    while (w->ok && w->n_flight < w->c->depth) {
        struct flight *f = &w->f[w->n_flight];
        w->first_out = INT64_MAX;
        sched_next(&w->s, &f->b, w->now_ns);
        if (batch_empty(&f->b)) {
            WANT(w, w->n_flight > 0 || sched_idle(&w->s)); /* else it would stand still for ever */
            check_blocked(w);
            check_pool(w);
            return;
        }
        w->n_flight++;
        launched(w, f);
        check_order(w, f);
    }
}

static int64_t next_arrival(const struct world *w)
{
    return w->arrived < w->c->n ? w->c->arrive_ns[w->arrived] : INT64_MAX;
}

static void arrive(struct world *w)
{
    int id = w->arrived++;
    const struct trace_req *q = &w->c->req[id];
    if (sched_refuses(&w->s, q)) {
        w->m[id].where = REFUSED;
        total.refused++;
        return;
    }
    struct sreq *r = sched_submit(&w->s, q, w->now_ns);
    SAME(w, r->t.id, id);
    w->m[id].where = WAITING;
    w->queue[w->q_tail++] = id;
}

/* How many steps f may do at once: as many as the scheduler promises, but the step during which
 * somebody arrives is the last. Sets the end. */
static int64_t look_ahead(struct world *w, struct flight *f)
{
    int64_t most = sched_horizon(&w->s, &f->b), k = 1;
    WANT(w, most >= 1);
    if (most > 1 && draw(w->r, 4) == 0) most = 1 + draw(w->r, most);
    struct step_shape x = f->b.shape;
    int64_t last_but_one = 0;
    while (k < most && f->end_ns < next_arrival(w)) {
        last_but_one = f->end_ns;
        x.sum_ctx += x.n_decode;
        f->end_ns += duration(w, &x);
        k++;
    }
    total.skipped += k - 1;
    if (k == 1 || draw(w->r, 2)) {
        sched_extend(&w->s, &f->b, k);
        return k;
    }
    int64_t t_emit = f->b.cohort->t_emit_ns;
    w->now_ns = last_but_one;
    sched_advance(&w->s, &f->b, k - 1, w->now_ns);
    check_complete(w, f, k - 1, t_emit, f->b.n_regular);
    check_batch(w, f);
    return 1;
}

static bool repeat(struct world *w, struct flight *f)
{
    int64_t t_emit = f->b.cohort ? f->b.cohort->t_emit_ns : 0, n_regular = f->b.n_regular;
    if (!sched_repeat(&w->s, &f->b, w->now_ns)) return false;
    check_complete(w, f, 1, t_emit, n_regular);
    struct flight again = *f;
    for (int i = 1; i < w->n_flight; i++) w->f[i - 1] = w->f[i];
    w->f[w->n_flight - 1] = again;
    launched(w, &w->f[w->n_flight - 1]);
    total.repeats++;
    return true;
}

static void complete(struct world *w, bool late)
{
    struct flight *f = &w->f[0];
    if (w->mode == REPEAT && !late && repeat(w, f)) return;
    int64_t steps = w->mode == FAST && w->c->depth == 1 ? look_ahead(w, f) : 1;
    w->now_ns = f->end_ns;
    if (w->mode == FAST)
        while (next_arrival(w) <= w->now_ns) arrive(w); /* in the last step */
    int64_t t_emit = f->b.cohort ? f->b.cohort->t_emit_ns : 0, n_regular = f->b.n_regular;
    sched_complete(&w->s, &f->b, steps, w->now_ns);
    check_complete(w, f, steps, t_emit, n_regular);
    struct flight spent = *f;
    for (int i = 1; i < w->n_flight; i++) w->f[i - 1] = w->f[i];
    w->f[--w->n_flight] = spent; /* keep its chunk array */
}

static void world_run(struct world *w)
{
    int64_t tok = 0;
    for (int i = 0; i < w->c->n; i++) tok += w->c->req[i].n_in + w->c->req[i].n_out;
    while (w->ok && (w->arrived < w->c->n || w->n_flight)) {
        int64_t t = w->n_flight ? w->f[0].end_ns : INT64_MAX;
        if (next_arrival(w) <= t) {
            w->now_ns = next_arrival(w);
            while (next_arrival(w) == w->now_ns) arrive(w);
            if (w->n_flight && t == w->now_ns) continue;
        } else {
            w->now_ns = t;
            bool late = w->c->late && w->n_flight > 1 && mix64((uint64_t)t) % 3 != 0;
            complete(w, late);
            if (late) continue;
        }
        launch(w);
        WANT(w, w->steps < 1000 + 40 * tok);
    }
}

static void world_close(struct world *w)
{
    for (int i = 0; w->ok && i < w->c->n; i++)
        WANT(w, w->m[i].where == ENDED || w->m[i].where == REFUSED);
    WANT(w, !w->ok || sched_idle(&w->s));
    SAME(w, w->s.n_preempt, w->preempts);
    if (w->ok && w->s.paged) {
        SAME(w, kvpool_available(&w->s.pool), w->c->n_block);
        WANT(w, kvpool_consistent(&w->s.pool, 0));
    }
    if (w->ok) SAME(w, w->s.wait_tok, 0);
    total.scen++;
    total.step += w->steps;
    total.preempt += w->preempts;
    total.depth += w->c->depth > 1;
    arena_release(&w->a);
}

static void show_counts(void)
{
    const struct counts *n = &total;
    if (!getenv("ORRERY_COUNTS")) return;
    printf("    scenarios %lld (deep %lld) steps %lld preempted %lld resumed %lld hits %lld "
           "chunked %lld refused %lld "
           "irregular %lld skipped %lld repeats %lld\n",
           (long long)n->scen, (long long)n->depth, (long long)n->step, (long long)n->preempt,
           (long long)n->resumed, (long long)n->hit, (long long)n->chunked, (long long)n->refused,
           (long long)n->irregular, (long long)n->skipped, (long long)n->repeats);
}

static bool run_one(struct world *w, const struct scen *c, enum mode mode, uint64_t seed)
{
    world_open(w, c, mode);
    world_run(w);
    world_close(w);
    if (!w->ok)
        printf("    seed %llu: %s depth %d grouping %d mode %d\n", (unsigned long long)seed,
               w->s.ops->name, c->depth, c->o.grouping, (int)mode);
    return w->ok;
}

TEST(sched_keeps_its_promises_at_every_step)
{
    static struct scen c;
    static struct world w;
    for (uint64_t seed = 0; seed < 12000; seed++) {
        scen_make(&c, seed, -1);
        c.late = seed % 3 == 0;
        if (!run_one(&w, &c, SINGLE, seed)) return;
    }
    show_counts();
    CHECK(total.preempt > 1000 && total.resumed > 1000 && total.hit > 1000 && total.chunked > 1000);
    CHECK(total.irregular > 100 && total.refused > 100 && total.depth > 1000);
}

/* k steps at once, or a step completed and launched again in one go, are the same steps: same
 * events at the same times, same counters. */
TEST(sched_shortcuts_change_nothing)
{
    static struct scen c;
    static struct world slow, quick;
    for (uint64_t seed = 0; seed < 6000; seed++) {
        scen_make(&c, seed + 10000, -1);
        c.late = seed % 3 == 0;
        enum mode mode = c.depth == 1 && seed % 4 ? FAST : REPEAT;
        if (!run_one(&slow, &c, SINGLE, seed) || !run_one(&quick, &c, mode, seed)) return;
        bool ok = CHECK(slow.log == quick.log) && CHECK_INT(quick.now_ns, slow.now_ns) &&
                  CHECK_INT(quick.s.n_preempt, slow.s.n_preempt) &&
                  CHECK_INT(quick.s.n_recomputed_tok, slow.s.n_recomputed_tok) &&
                  CHECK_INT(quick.s.pool.hit_tok, slow.s.pool.hit_tok) &&
                  CHECK_INT(quick.s.pool.asked_tok, slow.s.pool.asked_tok) &&
                  CHECK_INT(quick.s.pool.n_plain, slow.s.pool.n_plain) &&
                  CHECK_INT(quick.s.pool.evicted_blocks, slow.s.pool.evicted_blocks);
        if (!ok) {
            printf("    seed %llu\n", (unsigned long long)seed);
            return;
        }
    }
    show_counts();
    CHECK(total.skipped > 10000 && total.repeats > 10000);
}
