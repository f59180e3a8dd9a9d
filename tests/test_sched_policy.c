/* tests/test_sched_policy.c - the policies against their sources: vLLM's rules written out, and
 * known answers. SPDX-License-Identifier: Apache-2.0 */
#include "engine/sched.h"

#include <stdio.h>
#include <stdlib.h>

#include "tests/sched_scen.h"
#include "tests/test.h"

/* ---- vLLM's rules for one pipeline stage without prefix cache, on their own
 *
 * After vllm/v1/core/sched/scheduler.py: one list of running requests in order of admission, each
 * wanting (prompt + output - computed) tokens; out of blocks, the last of the list is preempted.
 * Requests with nothing but one token to compute are not told apart from prompts here, as they are
 * not in vLLM. Asynchronous scheduling chooses a step while the one before runs: requests that have
 * come since the last choice are not seen yet, and those that have ended still stand in the list.
 */

struct vreq {
    int64_t n_in, n_out, made, computed, blocks;
};
struct vsched {
    const struct scen *c;
    struct vreq r[N_REQ];
    int run[N_REQ], n_run, wait[N_REQ], n_wait; /* wait[0] is next */
    bool ahead;
    int n_seen;                   /* of those waiting */
    int64_t preempts, tok[N_REQ]; /* tokens of each request in this step */
};

static int64_t v_free(const struct vsched *v)
{
    int64_t n = v->c->n_block;
    for (int i = 0; i < N_REQ; i++) n -= v->r[i].blocks;
    return n;
}

static bool v_allocate(struct vsched *v, struct vreq *r, int64_t tok)
{
    int64_t bt = v->c->o.block_tok, need = (r->computed + tok + bt - 1) / bt - r->blocks;
    if (need > v_free(v)) return false;
    if (need > 0) r->blocks += need;
    return true;
}

static void v_wait_front(struct vsched *v, int id)
{
    memmove(v->wait + 1, v->wait, (size_t)v->n_wait * sizeof *v->wait);
    v->wait[0] = id;
    v->n_wait++;
    v->n_seen++;
}

static bool v_ended(const struct vsched *v, int id)
{
    return v->r[id].made == v->r[id].n_out;
}

/* Takes the last of the running out that has not ended. */
static int v_last(struct vsched *v)
{
    int at = v->n_run - 1;
    while (v_ended(v, v->run[at])) at--;
    int id = v->run[at];
    memmove(v->run + at, v->run + at + 1, (size_t)(--v->n_run - at) * sizeof *v->run);
    return id;
}

static void v_schedule(struct vsched *v)
{
    int64_t budget = v->c->o.max_batch_tok, bt = v->c->o.block_tok;
    bool preempted = false;
    memset(v->tok, 0, sizeof v->tok);
    for (int i = 0; i < v->n_run && budget > 0; i++) {
        int id = v->run[i];
        struct vreq *r = &v->r[id];
        int64_t tok = r->n_in + r->made - r->computed;
        if (v_ended(v, id)) continue;
        if (tok > budget) tok = budget;
        bool ok;
        while (!(ok = v_allocate(v, r, tok))) {
            int out = v_last(v);
            v->r[out].computed = v->r[out].blocks = 0;
            v_wait_front(v, out);
            v->preempts++;
            preempted = true;
            if (out == id) break;
        }
        if (!ok) break;
        v->tok[id] = tok;
        budget -= tok;
    }
    while (!preempted && v->n_seen && budget > 0 && v->n_run < v->c->o.max_seqs) {
        int id = v->wait[0];
        struct vreq *r = &v->r[id];
        int64_t all = r->n_in + r->made, tok = all < budget ? all : budget;
        if (v->c->o.reserve_full && (all + bt - 1) / bt > v_free(v)) break;
        if (!v_allocate(v, r, tok)) break;
        memmove(v->wait, v->wait + 1, (size_t)--v->n_wait * sizeof *v->wait);
        v->n_seen--;
        v->run[v->n_run++] = id;
        v->tok[id] = tok;
        budget -= tok;
    }
}

/* Ended requests leave, new ones are seen; whether there were any. */
static bool v_catch_up(struct vsched *v)
{
    int kept = 0, before = v->n_run;
    bool any = v->n_seen < v->n_wait;
    for (int i = 0; i < before; i++) {
        if (v_ended(v, v->run[i]))
            v->r[v->run[i]].blocks = 0;
        else
            v->run[kept++] = v->run[i];
    }
    v->n_run = kept;
    v->n_seen = v->n_wait;
    return any || kept < before;
}

static bool v_idle(const struct vsched *v)
{
    for (int i = 0; i < N_REQ; i++)
        if (v->tok[i]) return false;
    return true;
}

static void v_update(struct vsched *v)
{
    int kept = 0;
    for (int i = 0; i < v->n_run; i++) {
        struct vreq *r = &v->r[v->run[i]];
        r->computed += v->tok[v->run[i]];
        if (v->tok[v->run[i]] && r->computed == r->n_in + r->made) r->made++;
        if (r->made == r->n_out && !v->ahead)
            r->blocks = 0;
        else
            v->run[kept++] = v->run[i];
    }
    v->n_run = kept;
}

static void no_event(void *ctx, struct sreq *r, int64_t t_ns)
{
    (void)ctx;
    (void)r;
    (void)t_ns;
}

static bool same_step(const struct vsched *v, const struct batch *b, int64_t step)
{
    int64_t tok[N_REQ] = { 0 };
    for (int i = 0; i < b->n_chunk; i++) tok[b->chunk[i].r->t.id] += b->chunk[i].tok;
    for (const struct sreq *r = b->cohort ? b->cohort->first : NULL; r; r = r->c_next)
        tok[r->t.id]++;
    for (int i = 0; i < N_REQ; i++)
        if (tok[i] != v->tok[i]) {
            printf("    step %lld: request %d gets %lld tokens, by vLLM's rules %lld\n",
                   (long long)step, i, (long long)tok[i], (long long)v->tok[i]);
            return CHECK(false);
        }
    return true;
}

/* Steps are numbered; request i arrives before step arrive_ns / 3000. Returns steps, -1 on a
 * difference. */
static int64_t beside_vllm(const struct scen *c, int64_t *preempts)
{
    struct vsched v = { .c = c };
    struct sched s;
    struct batch b = { 0 };
    struct arena a;
    const struct sched_sink sink = { NULL, no_event, no_event, no_event, no_event };
    int next = 0;
    int64_t step = 0;
    arena_init(&a);
    sched_init(&s, &c->o, c->n_block, 1, 0, &sink, &a);
    v.ahead = s.ahead;
    for (; step < 200000; step++) {
        for (; next < c->n && c->arrive_ns[next] / 3000 <= step; next++) {
            const struct trace_req *q = &c->req[next];
            if (sched_refuses(&s, q)) continue;
            v.r[next] = (struct vreq){ .n_in = q->n_in, .n_out = q->n_out };
            v.wait[v.n_wait++] = next;
            if (!v.ahead) v.n_seen++;
            sched_submit(&s, q, step);
        }
        if (next == c->n && sched_idle(&s) && !v.n_run && !v.n_wait) break;
        int64_t preempted;
        bool more;
        do {
            preempted = v.preempts;
            v_schedule(&v);
            more = (v.ahead && v_catch_up(&v)) || v.preempts > preempted;
        } while (v_idle(&v) && more);
        sched_next(&s, &b, step);
        if (!same_step(&v, &b, step) || !CHECK_INT(s.n_preempt, v.preempts) ||
            !CHECK_INT(kvpool_available(&s.pool), v_free(&v))) {
            step = -1;
            break;
        }
        if (!batch_empty(&b)) sched_complete(&s, &b, 1, step + 1);
        v_update(&v);
    }
    *preempts += v.preempts;
    arena_release(&a);
    return step;
}

TEST(sched_vllm_follows_vllm_step_by_step)
{
    static struct scen c;
    int64_t steps = 0, preempts = 0;
    for (uint64_t seed = 0; seed < 3000; seed++) {
        scen_make(&c, seed + 50000, SCHED_VLLM);
        c.o.prefix_cache = 2;
        int64_t n = beside_vllm(&c, &preempts);
        if (n < 0 || !CHECK(n < 200000)) {
            printf("    seed %llu\n", (unsigned long long)seed);
            return;
        }
        steps += n;
    }
    CHECK(steps > 50000 && preempts > 1000);
    if (getenv("ORRERY_COUNTS"))
        printf("    steps %lld preempted %lld\n", (long long)steps, (long long)preempts);
}

/* ---- known answers */

struct tale {
    struct sched s;
    struct sched_sink sink;
    struct arena a;
    struct batch b;
    char text[400];
};

static void tell(struct tale *t, char what, const struct sreq *r, int64_t t_ns)
{
    size_t n = strlen(t->text);
    snprintf(t->text + n, sizeof t->text - n, "%c%d@%d ", what, (int)r->t.id, (int)t_ns);
}
static void tell_first(void *ctx, struct sreq *r, int64_t t_ns)
{
    tell(ctx, 'f', r, t_ns);
}
static void tell_done(void *ctx, struct sreq *r, int64_t t_ns)
{
    tell(ctx, 'd', r, t_ns);
}
static void tell_preempt(void *ctx, struct sreq *r, int64_t t_ns)
{
    tell(ctx, 'p', r, t_ns);
}

/* Serves requests of the lengths in n_in and n_out, all there at the start, one step a tick; text
 * becomes the batches ("2+30" is two decodes and 30 prompt tokens) and the events. */
static void tell_all(struct tale *t, const struct sched_opts *o, int64_t n_block, int n,
                     const int32_t (*len)[2])
{
    memset(t, 0, sizeof *t);
    t->sink = (struct sched_sink){ t, tell_first, no_event, tell_done, tell_preempt };
    arena_init(&t->a);
    sched_init(&t->s, o, n_block, 1, 0, &t->sink, &t->a);
    for (int i = 0; i < n; i++) {
        struct trace_req r = { .id = i, .n_in = len[i][0], .n_out = len[i][1] };
        CHECK(sched_refuses(&t->s, &r) == NULL);
        sched_submit(&t->s, &r, 0);
    }
    for (int now = 0; now < 50 && !sched_idle(&t->s); now++) {
        sched_next(&t->s, &t->b, now);
        size_t k = strlen(t->text);
        snprintf(t->text + k, sizeof t->text - k, "%d+%d ", (int)t->b.shape.n_decode,
                 (int)t->b.shape.prefill_tok);
        if (!batch_empty(&t->b)) sched_complete(&t->s, &t->b, 1, now + 1);
    }
    arena_release(&t->a);
}

static const struct sched_opts plain_opts = { .policy = SCHED_VLLM,
                                              .async = 2,
                                              .max_batch_tok = 32,
                                              .max_seqs = 8,
                                              .chunk_tok = 16,
                                              .block_tok = 4,
                                              .reserve_full = true };

TEST(sched_policies_known_answers)
{
    static const int32_t two[][2] = { { 20, 3 }, { 20, 2 } },
                         uneven[][2] = { { 8, 4 }, { 8, 1 }, { 8, 2 } };
    static struct tale t;
    struct sched_opts o = plain_opts;
    tell_all(&t, &o, 100, 2, two);
    CHECK_TEXT(t.text, "0+32 f0@1 1+8 f1@2 2+0 d0@3 d1@3 ");
    o.policy = SCHED_SARATHI;
    tell_all(&t, &o, 100, 2, two);
    CHECK_TEXT(t.text, "0+16 0+16 f0@2 1+8 f1@3 2+0 d0@4 d1@4 ");
    o.policy = SCHED_ORCA;
    tell_all(&t, &o, 100, 2, two);
    CHECK_TEXT(t.text, "0+20 f0@1 1+20 f1@2 2+0 d0@3 d1@3 ");
    tell_all(&t, &o, 9, 2, two); /* KV for one only: blocks of 20 + 3 tokens are six */
    CHECK_TEXT(t.text, "0+20 f0@1 1+0 1+0 d0@3 0+20 f1@4 1+0 d1@5 ");
    o.policy = SCHED_STATIC;
    o.max_seqs = 2; /* what has ended is computed on; the third waits for the batch to end */
    tell_all(&t, &o, 100, 3, uneven);
    CHECK_TEXT(t.text, "0+16 f0@1 f1@1 d1@1 2+0 2+0 2+0 d0@4 0+8 f2@5 1+0 d2@6 ");
    o.policy = SCHED_NULL;
    o.max_seqs = 1;
    tell_all(&t, &o, 1, 3, uneven);
    CHECK_TEXT(t.text, "0+8 f0@1 1+0 1+0 1+0 d0@4 0+8 f1@5 d1@5 0+8 f2@6 1+0 d2@7 ");
}

TEST(sched_vllm_preempts_the_latest_and_recomputes)
{
    static const int32_t len[][2] = { { 8, 6 }, { 8, 6 } };
    static struct tale t;
    struct sched_opts o = plain_opts;
    o.prefix_cache = 2; /* four blocks: both prompts fit, their first new blocks do not */
    tell_all(&t, &o, 4, 2, len);
    CHECK_TEXT(t.text, "0+16 f0@1 f1@1 p1@1 1+0 1+0 1+0 1+0 1+0 d0@6 0+9 1+0 1+0 1+0 1+0 d1@11 ");
    CHECK_INT(t.s.n_preempt, 1);
    CHECK_INT(t.s.n_recomputed_tok, 8);
}

TEST(sched_serves_a_prompt_cached_to_its_end_in_a_full_pool)
{
    static const struct trace_seg seg = { 16, 5 };
    struct sched_opts o = plain_opts;
    const struct sched_sink sink = { NULL, no_event, no_event, no_event, no_event };
    struct sched s;
    struct arena a;
    struct batch b = { 0 };
    arena_init(&a);
    sched_init(&s, &o, 4, 1, 0, &sink, &a);
    for (int i = 0; i < 2; i++) {
        struct trace_req r = { .id = i, .n_in = 16, .n_out = 1, .n_seg = 1, .seg = &seg };
        sched_submit(&s, &r, i); /* one after the other: they cannot both be there */
        sched_next(&s, &b, i);
        CHECK_INT(b.shape.prefill_tok, i ? 4 : 16);
        if (!batch_empty(&b)) sched_complete(&s, &b, 1, i + 1);
        CHECK(sched_idle(&s));
    }
    arena_release(&a);
}

/* Under sarathi the blocks of a whole prompt are taken at once, but only those scheduled can be
 * hit. */
TEST(sched_sarathi_hits_no_block_before_it_is_scheduled)
{
    static const struct trace_seg seg = { 40, 5 };
    struct sched_opts o = plain_opts;
    const struct sched_sink sink = { NULL, no_event, no_event, no_event, no_event };
    struct trace_req r = { .id = 9, .n_in = 48, .n_out = 2, .n_seg = 1, .seg = &seg };
    struct sched s;
    struct arena a;
    struct batch b = { 0 };
    int64_t idle;
    arena_init(&a);
    o.policy = SCHED_SARATHI;
    o.prefix_cache = 1;
    sched_init(&s, &o, 100, 1, 0, &sink, &a);
    sched_submit(&s, &r, 0);
    for (int step = 1; step <= 3; step++) {
        sched_next(&s, &b, step);
        CHECK_INT(kvpool_used(&s.pool), 12);
        CHECK_INT(kvpool_peek(&s.pool, &r, 47, &idle), step < 3 ? 16 * step : 44);
        sched_complete(&s, &b, 1, step + 1);
    }
    arena_release(&a);
}

TEST(sched_check_and_refusals)
{
    struct sched_opts o = plain_opts;
    struct err e = { 0 };
    struct arena a;
    struct sched s;
    struct trace_req r = { .n_in = 100, .n_out = 28 };
    arena_init(&a);
    CHECK_INT(sched_check(&o, &e), ST_OK);
    o.max_batch_tok = 7;
    CHECK_INT(sched_check(&o, &e), ST_USAGE);
    CHECK_HAS(e.text, "policy.max_batch_tokens: 7tok is less than policy.max_seqs 8");
    o.max_batch_tok = 0; /* left to the GPU */
    CHECK_INT(sched_check(&o, &e), ST_OK);
    o.policy = SCHED_SARATHI;
    CHECK_INT(sched_check(&o, &e), ST_OK);
    e = (struct err){ 0 };
    o.chunk_tok = 1;
    CHECK_INT(sched_check(&o, &e), ST_USAGE);
    CHECK_HAS(e.text, "policy.chunk: 1tok leaves no room");
    o = plain_opts;
    sched_init(&s, &o, 32, 1, 128, NULL, &a);
    CHECK(sched_refuses(&s, &r) == NULL);
    r.n_out = 29;
    CHECK_HAS(sched_refuses(&s, &r), "context");
    sched_init(&s, &o, 31, 1, 0, NULL, &a);
    r.n_out = 24;
    CHECK(sched_refuses(&s, &r) == NULL);
    r.n_out = 25;
    CHECK_HAS(sched_refuses(&s, &r), "pool");
    o.policy = SCHED_ORCA;
    o.reserve_out = 1;
    sched_init(&s, &o, 32, 1, 0, NULL, &a);
    r.n_out = 20; /* reserves for 32 */
    CHECK_HAS(sched_refuses(&s, &r), "reserve");
    r.n_out = 16;
    CHECK_HAS(sched_refuses(&s, &r), "token budget");
    r.n_in = 32;
    CHECK(sched_refuses(&s, &r) == NULL);
    o.policy = SCHED_NULL;
    sched_init(&s, &o, 1, 1, 1, NULL, &a);
    CHECK(sched_refuses(&s, &r) == NULL);
    arena_release(&a);
}

static void keep_gap(void *ctx, struct sreq *r, int64_t gap_ns)
{
    ((int64_t *)ctx)[r->t.id] = gap_ns;
}

/* Batches of 1, 2 and 4 requests end at 10, 20 and 20 before the next is made: only the first
 * request's gap differs from that of the rest, and it is told apart. */
TEST(sched_merged_groups_keep_their_gaps)
{
    static const int size[] = { 1, 2, 4 }, end[] = { 10, 20, 20 };
    int64_t gap[7] = { 0 };
    const struct sched_sink sink = { gap, no_event, keep_gap, no_event, no_event };
    struct sched_opts o = plain_opts;
    struct sched s;
    struct arena a;
    struct batch b[3] = { 0 }, all = { 0 };
    int64_t id = 0;
    arena_init(&a);
    sched_init(&s, &o, 100, 3, 0, &sink, &a);
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < size[i]; k++)
            sched_submit(&s, &(struct trace_req){ .id = id++, .n_in = 4, .n_out = 5 }, i);
        sched_next(&s, &b[i], i);
        CHECK_INT(b[i].n_chunk, size[i]);
    }
    for (int i = 0; i < 3; i++) sched_complete(&s, &b[i], 1, end[i]);
    sched_next(&s, &all, 20);
    CHECK_INT(all.shape.n_decode, 7);
    CHECK_INT(all.n_regular, 6);
    CHECK_INT(sched_horizon(&s, &all), 1);
    sched_complete(&s, &all, 1, 33);
    CHECK_INT(gap[0], 23);
    for (int i = 1; i < 7; i++) CHECK_INT(gap[i], 0);
    sched_next(&s, &all, 33);
    CHECK_INT(all.n_regular, 7);
    arena_release(&a);
}

/* Two places. 0 and 1 run; 2 waits from the start; 1 ends with step 1, seen by the choice of
 * step 3. Then 3 comes while step 4 runs and is seen by the choice of step 6, though a place is
 * free. */
TEST(sched_async_sees_a_step_late_what_came_and_what_ended)
{
    static const int32_t len[][2] = { { 8, 9 }, { 8, 1 }, { 8, 2 }, { 8, 1 } };
    static const char *const want[] = {
        "0+16 f0@1 f1@1 d1@1 1+8 f2@2 2+0 d2@3 1+0 1+8 f3@5 d3@5 1+0 1+0 1+0 1+0 ",
        "0+16 f0@1 f1@1 d1@1 1+0 1+8 f2@3 2+0 d2@4 1+0 1+8 f3@6 d3@6 1+0 1+0 1+0 "
    };
    for (int async = 0; async < 2; async++) {
        struct tale t = { .text = "" };
        struct sched_opts o = plain_opts;
        o.async = async ? 1 : 2;
        o.max_seqs = 2;
        t.sink = (struct sched_sink){ &t, tell_first, no_event, tell_done, tell_preempt };
        arena_init(&t.a);
        sched_init(&t.s, &o, 100, 1, 0, &t.sink, &t.a);
        for (int now = 0; now < 9; now++) {
            for (int i = 0; i < 4; i++) {
                struct trace_req r = { .id = i, .n_in = len[i][0], .n_out = len[i][1] };
                if (i < 3 ? now == 0 : now == 4) sched_submit(&t.s, &r, now);
            }
            sched_next(&t.s, &t.b, now);
            size_t k = strlen(t.text);
            snprintf(t.text + k, sizeof t.text - k, "%d+%d ", (int)t.b.shape.n_decode,
                     (int)t.b.shape.prefill_tok);
            sched_complete(&t.s, &t.b, 1, now + 1);
        }
        char cut[400];
        snprintf(cut, sizeof cut, "%s", t.text);
        char *last = strstr(cut, "d0@9");
        if (last) *last = 0;
        CHECK_TEXT(cut, want[async]);
        arena_release(&t.a);
    }
}
