/* tests/test_serve.c - the serving loop: the same tokens whatever the batch, the chunks, the cache,
 * the pool, the division and the replicas; failures; refusals; steady memory.
 *
 * Two devices. The engine itself on tiny checkpoints; and a device whose KV cache holds, at every
 * position, a hash of all tokens up to it, made from the entry in front of it: a token then depends
 * on every block of its sequence, so a wrong or stale block number changes what is said.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/serve.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/rng.h"
#include "base/stop.h"
#include "engine/prompt.h"
#include "tests/alloc.h"
#include "tests/engine_env.h"
#include "tests/test.h"

enum { MAX_REPLICA = 4, MAX_REQ = 512, MAX_OUT = 128, VOCAB = 128, CTX = 128 };

/* ---- what was said */

struct said {
    uint64_t who;
    int status, n, preempted, cached;
    int32_t tok[MAX_OUT];
};
struct heard {
    struct said *req; /* [MAX_REQ] */
    int n, by[4];     /* by status */
    int64_t steps, told, of[MAX_REPLICA], routed[MAX_REPLICA];
    int64_t t_level[MAX_REPLICA];                       /* up to when a replica's state was told */
    int64_t n_ended[MAX_REPLICA], t_ended[MAX_REPLICA]; /* since its last step; sum of when */
    double in_system_ns, sojourn_ns;
    bool fine;
};

static void hear_request(void *ctx, const struct run_request *row, int64_t id, int64_t t_ready,
                         const int32_t *tok)
{
    struct heard *h = ctx;
    h->by[row->status]++;
    h->routed[row->replica]++;
    if (row->status == RUN_OK) {
        h->sojourn_ns += (double)(row->t_last_ns - t_ready);
        h->n_ended[row->replica]++;
        h->t_ended[row->replica] += row->t_last_ns;
        h->fine &= t_ready >= row->t_due_ns && row->t_start_ns >= t_ready &&
                   row->t_first_ns >= row->t_start_ns && row->t_last_ns >= row->t_first_ns;
    }
    if (h->n >= MAX_REQ) return;
    struct said *s = &h->req[h->n++];
    *s = (struct said){ .who = prompt_identity(id, row->session, row->turn),
                        .status = row->status,
                        .n = row->n_out,
                        .preempted = row->preempted,
                        .cached = row->cached_in };
    if (row->n_out) memcpy(s->tok, tok, (size_t)row->n_out * sizeof *tok);
}

/* A replica's state may have been told up to an instant behind its step's end, by a thread that took a
 * request meanwhile: what ended in the step was counted in the system up to then. */
static void hear_step(void *ctx, const struct serve_step *s)
{
    struct heard *h = ctx;
    int r = s->replica;
    h->sojourn_ns += (double)(h->n_ended[r] * h->t_level[r] - h->t_ended[r]);
    h->n_ended[r] = h->t_ended[r] = 0;
    h->fine &= s->index == h->of[s->replica]++ && s->t1_ns >= s->t0_ns && s->kv_unfilled_tok >= 0;
    h->steps++;
    h->told += s->told;
}

/* The times told of a replica join without gap or overlap. */
static void hear_level(void *ctx, const struct serve_level *l)
{
    struct heard *h = ctx;
    h->fine &= l->t0_ns == h->t_level[l->replica] && l->t1_ns > l->t0_ns && l->in_system >= 0;
    h->t_level[l->replica] = l->t1_ns;
    h->in_system_ns += (double)l->in_system * (double)(l->t1_ns - l->t0_ns);
}

static const struct said *find(const struct heard *h, uint64_t who)
{
    for (int i = 0; i < h->n; i++)
        if (h->req[i].who == who) return &h->req[i];
    return NULL;
}

/* Whatever is in both was said the same. Which sessions come last before the workload's end depends
 * on when others ended, so a few may be in one only. */
static bool agree_by(const struct heard *a, const struct heard *b, double share)
{
    int common = 0;
    bool same = true;
    for (int i = 0; i < a->n; i++) {
        const struct said *x = &a->req[i], *y = find(b, x->who);
        if (!y) continue;
        common++;
        same &= x->status == y->status && x->n == y->n &&
                memcmp(x->tok, y->tok, (size_t)x->n * sizeof *x->tok) == 0;
    }
    return same && common >= share * a->n && common >= share * b->n;
}

static bool agree(const struct heard *a, const struct heard *b)
{
    return agree_by(a, b, .75);
}

/* ---- a device that remembers everything */

struct recall {
    uint64_t *kv; /* [blocks * block_tok] hash of the tokens up to a position */
    int64_t block_tok;
    int32_t out[8][256], n_out[8]; /* in flight */
    int head, n, depth;
    int64_t steps, fail_at;
};

static int recall_submit(void *ctx, const struct engine_step *s, struct err *e)
{
    struct recall *d = ctx;
    uint64_t row[4096];
    int k = (d->head + d->n) % 8;
    if (d->fail_at && d->steps >= d->fail_at) return err_set(e, ST_DEVICE, "rank 3: gone");
    for (int32_t i = 0; i < s->n_seq; i++) {
        const struct engine_seq *q = &s->seq[i];
        for (int32_t p = q->pos; p < q->pos + q->n_q; p++) {
            int64_t at = q->block[p / d->block_tok] * d->block_tok + p % d->block_tok;
            int64_t in =
                p ? q->block[(p - 1) / d->block_tok] * d->block_tok + (p - 1) % d->block_tok : 0;
            int32_t r = q->row + p - q->pos;
            d->kv[at] = row[r] = mix_pair(p ? d->kv[in] : 1, (uint64_t)s->tok[r] + 7);
        }
    }
    for (int32_t i = 0; i < s->n_out; i++) d->out[k][i] = (int32_t)(row[s->out[i].row] % VOCAB);
    d->n_out[k] = s->n_out;
    d->n++;
    d->steps++;
    return ST_OK;
}

static int recall_collect(void *ctx, struct engine_result *r, struct err *e)
{
    struct recall *d = ctx;
    (void)e;
    *r = (struct engine_result){ .n_out = d->n_out[d->head], .tok = d->out[d->head] };
    d->head = (d->head + 1) % 8;
    d->n--;
    return ST_OK;
}

/* ---- one run */

struct play {
    struct sched_opts o;
    struct trace_opts w;
    int64_t kv_blocks, fail_at, limit_ns;
    int depth, n_replica, router; /* 0 replicas: 1 */
    uint64_t seed;
};

static struct play play_of(void)
{
    struct play p = { .kv_blocks = 64, .depth = 1, .seed = 3 };
    p.o = (struct sched_opts){ .policy = SCHED_VLLM,
                               .max_batch_tok = 256,
                               .max_seqs = 8,
                               .chunk_tok = 16,
                               .block_tok = 8,
                               .reserve_full = true };
    p.w = (struct trace_opts){ .rate_scale = 1,
                               .arrivals = 5, /* closed */
                               .concurrency = 7,
                               .burstiness = 1,
                               .requests = 40,
                               .prefix_tok = 20,
                               .prefix_groups = 2,
                               .turns = 2 };
    p.w.in = (struct trace_len){ .dist = 0, .mean = 10, .min = 1, .max = 16, .sigma = .6 };
    p.w.out = (struct trace_len){ .dist = 0, .mean = 9, .min = 1, .max = 14, .sigma = .6 };
    return p;
}

static void heard_init(struct heard *h)
{
    *h = (struct heard){ .req = calloc(MAX_REQ, sizeof *h->req), .fine = true };
}

static struct serve_result *kept(struct serve_result *r, int n)
{
    static struct run_replica part[MAX_REPLICA];
    if (r->part) memcpy(part, r->part, (size_t)n * sizeof *part);
    r->part = part; /* the arena goes */
    return r;
}

static int serve(const struct play *p, const struct serve_device *dev, struct heard *h,
                 struct serve_result *r, struct err *e)
{
    struct arena a;
    struct trace *t = NULL;
    struct serve_sink sink = {
        .ctx = h, .request = hear_request, .step = hear_step, .level = hear_level
    };
    int n = p->n_replica > 1 ? p->n_replica : 1;
    struct team *crew = n > 1 ? team_open(n, -1, 0, e) : NULL;
    arena_init(&a);
    int st = trace_open(&p->w, NULL, p->seed, &t, e);
    struct serve_setup u = { .dev = dev,
                             .n_replica = n,
                             .router = p->router,
                             .crew = crew,
                             .sched = &p->o,
                             .kv_blocks = p->kv_blocks,
                             .max_ctx = CTX,
                             .vocab = VOCAB,
                             .trace = t,
                             .seed = p->seed,
                             .limit_ns = p->limit_ns,
                             .sink = &sink };
    if (st == ST_OK) st = serve_run(&u, &a, r, e);
    kept(r, n);
    trace_close(t);
    team_close(crew);
    arena_release(&a);
    return st;
}

/* The last replica is the one that fails. */
static int play_recall(const struct play *p, struct heard *h, struct serve_result *r, struct err *e)
{
    struct recall d[MAX_REPLICA] = { 0 };
    struct serve_device dev[MAX_REPLICA];
    int n = p->n_replica > 1 ? p->n_replica : 1;
    for (int i = 0; i < n; i++) {
        d[i] = (struct recall){ .block_tok = p->o.block_tok, .depth = p->depth };
        d[i].fail_at = i == n - 1 ? p->fail_at : 0;
        d[i].kv = calloc((size_t)(p->kv_blocks * p->o.block_tok), sizeof *d[i].kv);
        dev[i] = (struct serve_device){ &d[i], p->depth, recall_submit, recall_collect };
    }
    heard_init(h);
    int st = serve(p, dev, h, r, e);
    for (int i = 0; i < n; i++) free(d[i].kv);
    return st;
}

/* One request at a time, a pool for all, nothing shared: the plain way. */
static struct play plain(struct play p)
{
    p.o.policy = SCHED_VLLM;
    p.o.prefix_cache = 2;
    p.o.max_seqs = 1;
    p.o.block_tok = 16;
    p.o.max_batch_tok = 256;
    p.kv_blocks = 64;
    p.depth = 1;
    p.n_replica = 1;
    return p;
}

static int pick(struct rng r, int i, int n)
{
    return (int)rng_below(r, (uint64_t)i, (uint64_t)n);
}

/* ---- tests */

/* Policies, pools, block sizes, budgets, caches, pipelines at random. */
TEST(serve_says_the_same_under_every_policy_and_pool)
{
    struct rng all = rng_stream(11, "test.serve");
    int64_t preempted = 0, hits = 0;
    for (int i = 0; i < 600; i++) {
        struct rng r = rng_child(all, (uint64_t)i);
        struct play p = play_of(), q;
        struct heard one, two;
        struct serve_result a, b;
        struct err e = { 0 };
        p.seed = 100 + (uint64_t)i;
        p.w.turns = 1 + pick(r, 0, 3);
        p.w.prefix_tok = pick(r, 1, 3) ? 5 + pick(r, 2, 30) : 0;
        q = plain(p);
        p.o.policy = pick(r, 3, 4);
        p.o.block_tok = 1 + pick(r, 4, 24);
        p.kv_blocks = (CTX + p.o.block_tok - 1) / p.o.block_tok * (1 + pick(r, 5, 3));
        p.o.max_seqs = 1 + pick(r, 6, 12);
        p.o.max_batch_tok = p.o.policy == SCHED_VLLM ? p.o.max_seqs + pick(r, 7, 60) : CTX;
        p.o.chunk_tok = 2 + pick(r, 8, 40);
        p.o.prefix_cache = pick(r, 9, 3);
        p.o.grouping = pick(r, 10, 3);
        p.o.async = pick(r, 11, 3);
        p.o.reserve_full = pick(r, 12, 2);
        p.depth = 1 + pick(r, 13, 4);
        CHECK_INT(play_recall(&q, &one, &a, &e), ST_OK);
        CHECK_INT(play_recall(&p, &two, &b, &e), ST_OK);
        CHECK_TEXT(e.text, "");
        bool same = agree(&one, &two) && one.fine && two.fine;
        CHECK(same);
        if (!same) printf("case %d: policy %d depth %d\n", i, p.o.policy, p.depth);
        CHECK_INT(b.due, b.finished + b.rejected);
        preempted += b.preempted;
        hits += b.hit_tok;
        free(one.req);
        free(two.req);
    }
    CHECK(preempted > 50);
    CHECK(hits > 1000);
}

/* Two to four replicas, each a thread with its scheduler, pool and device, under every router: the
 * same is said, every request ends once, and Little's law holds of their sums to the ns. */
TEST(serve_says_the_same_on_replicas)
{
    struct rng all = rng_stream(12, "test.serve");
    int64_t moved = 0;
    double area_ns = 0, sojourn_ns = 0;
    for (int i = 0; i < 150; i++) {
        struct rng r = rng_child(all, (uint64_t)i);
        struct play p = play_of(), q;
        struct heard one, two;
        struct serve_result a, b;
        struct err e = { 0 };
        int64_t sum[4] = { 0 };
        p.seed = 900 + (uint64_t)i;
        p.w.turns = 1 + pick(r, 0, 3);
        q = plain(p);
        p.n_replica = 2 + pick(r, 1, 3);
        p.router = pick(r, 2, 3);
        p.o.policy = pick(r, 3, 4);
        p.o.max_batch_tok = CTX;
        p.o.max_seqs = 1 + pick(r, 4, 4);
        p.kv_blocks = 16 * (1 + pick(r, 5, 2));
        p.o.prefix_cache = pick(r, 6, 3);
        p.depth = 1 + pick(r, 7, 3);
        CHECK_INT(play_recall(&q, &one, &a, &e), ST_OK);
        CHECK_INT(play_recall(&p, &two, &b, &e), ST_OK);
        CHECK_TEXT(e.text, "");
        bool same = agree_by(&one, &two, p.w.turns > 1 ? .5 : 1) && two.fine;
        CHECK(same);
        if (!same) printf("case %d: policy %d router %d\n", i, p.o.policy, p.router);
        CHECK_INT(b.due, b.finished + b.rejected);
        area_ns += two.in_system_ns;
        sojourn_ns += two.sojourn_ns;
        for (int k = 0; k < p.n_replica; k++) {
            const struct run_replica *x = &b.part[k];
            CHECK_INT(x->due, x->finished + x->rejected);
            CHECK_INT(x->due, two.routed[k]);
            CHECK_INT(x->steps, two.of[k]);
            sum[0] += x->due;
            sum[1] += x->steps;
            sum[2] += x->hit_tok;
            sum[3] += x->preempted;
            moved += k > 0 && x->finished > 0;
        }
        CHECK_INT(sum[0], b.due);
        CHECK_INT(sum[1], b.steps);
        CHECK_INT(sum[2], b.hit_tok);
        CHECK_INT(sum[3], b.preempted);
        free(one.req);
        free(two.req);
    }
    CHECK(moved > 150);
    CHECK_NEAR(area_ns, sojourn_ns, 1e-12);
}

/* Round robin deals them out one by one, whatever the replicas are busy with. */
TEST(serve_routes_as_the_router_says)
{
    struct play p = play_of();
    struct heard h;
    struct serve_result r;
    struct err e = { 0 };
    p.w.turns = 1;
    p.w.arrivals = 1; /* poisson */
    p.w.rate_per_s = 20000;
    p.n_replica = 3;
    CHECK_INT(play_recall(&p, &h, &r, &e), ST_OK);
    CHECK_TEXT(e.text, "");
    for (int i = 0; i < 3; i++) CHECK_INT(h.routed[i], i == 0 ? 14 : 13);
    free(h.req);
}

TEST(serve_tells_what_finished_when_a_replica_fails)
{
    struct play p = play_of();
    struct heard h;
    struct serve_result r;
    struct err e = { 0 };
    p.n_replica = 3;
    p.fail_at = 12;
    p.o.max_seqs = 2;
    p.w.requests = 400;
    p.w.concurrency = 12;
    CHECK_INT(play_recall(&p, &h, &r, &e), ST_DEVICE);
    CHECK_TEXT(e.text, "rank 3: gone");
    CHECK(r.finished > 0 && r.unfinished > 0);
    CHECK_INT(r.due, r.finished + r.rejected + r.unfinished);
    CHECK_INT(h.by[RUN_OK], r.finished);
    CHECK_INT(h.by[RUN_UNFINISHED], r.unfinished);
    CHECK_INT(h.of[2], 12);
    free(h.req);
}

/* Ctrl-C ends all of them, also those that sleep. */
TEST(serve_replicas_end_at_a_limit_or_a_signal)
{
    for (int i = 0; i < 2; i++) {
        struct play p = play_of();
        struct heard h;
        struct serve_result r;
        struct err e = { 0 };
        p.n_replica = 4;
        p.w.arrivals = 1;
        p.w.rate_per_s = 1; /* the first ones long after the end */
        p.limit_ns = i ? 0 : 1000000;
        stop_install();
        if (i) raise(SIGTERM);
        CHECK_INT(play_recall(&p, &h, &r, &e), ST_OK);
        CHECK_INT(r.due, r.finished + r.rejected + r.unfinished);
        CHECK_INT(r.stopped, i);
        stop_reset();
        free(h.req);
    }
}

static const char *golden(const char *name)
{
    static char dir[256];
    snprintf(dir, sizeof dir, "tests/golden/engine/%s", name);
    if (access(dir, R_OK) != 0) SKIP("tests run from the root of the repository");
    return dir;
}

static bool play_engine(const struct play *p, int tp, int pp, struct heard *h,
                        struct serve_result *r)
{
    struct err e = { 0 };
    struct engine_opts o = engine_env_opts(golden("llama31"), tp, pp);
    o.logits = false;
    o.operators = tp * pp > 1; /* the time kept, or not: the same tokens */
    serve_sizes(&p->o, p->kv_blocks, CTX, &o);
    struct engine *g = engine_open(&o, &e);
    CHECK_TEXT(e.text, "");
    heard_init(h);
    if (!g) return false;
    struct serve_device dev = serve_engine(g);
    CHECK_INT(serve(p, &dev, h, r, &e), ST_OK);
    CHECK_TEXT(e.text, "");
    CHECK_INT(engine_stop(g, &e), ST_OK);
    struct engine_rank_step x;
    CHECK(h->steps > 0 && engine_rank_step(g, h->steps - 1, tp * pp - 1, &x));
    CHECK(!engine_rank_step(g, h->steps, 0, &x));
    for (int i = 0; i < tp * pp && o.operators; i++) { /* operators are apart from calls */
        CHECK(engine_rank_step(g, h->steps - 1, i, &x) && x.operators);
        CHECK(x.gemm_ns > 0 && x.attn_ns > 0);
        CHECK(x.gemm_ns + x.attn_ns + (tp > 1 ? x.allreduce_ns : 0) + x.sample_ns <=
              x.t1_ns - x.t0_ns);
    }
    CHECK(x.operators == o.operators);
    engine_close(g);
    return true;
}

/* The engine itself, in f32. Each variant differs from the first in the way its name says. */
TEST(serve_greedy_tokens_are_the_same_whatever_the_batch_cache_and_division)
{
    static const struct {
        const char *what;
        int64_t seqs, budget, blocks;
        int cache, tp, pp;
    } way[] = { { "one at a time", 1, 256, 64, 2, 1, 1 },
                { "batches", 8, 256, 256, 2, 1, 1 },
                { "chunks of 7", 4, 7, 256, 2, 1, 1 },
                { "prefix cache", 8, 256, 256, 1, 1, 1 },
                { "prefix cache, tiny pool", 8, 64, 17, 1, 1, 1 },
                { "tiny pool", 8, 64, 17, 2, 1, 1 },
                { "tp 2", 8, 64, 64, 1, 2, 1 },
                { "tp 4", 8, 256, 64, 1, 4, 1 },
                { "pp 2", 8, 64, 64, 1, 1, 2 },
                { "pp 4", 8, 64, 64, 1, 1, 4 },
                { "tp 2 x pp 2, tiny pool", 8, 32, 17, 1, 2, 2 } };
    struct heard first = { 0 }, h;
    for (size_t i = 0; i < sizeof way / sizeof *way; i++) {
        struct play p = play_of();
        struct serve_result r;
        p.o.max_seqs = way[i].seqs;
        p.o.max_batch_tok = way[i].budget;
        p.o.prefix_cache = way[i].cache;
        p.kv_blocks = way[i].blocks;
        p.w.out.mean = 20;
        p.w.out.max = 40;
        if (!play_engine(&p, way[i].tp, way[i].pp, &h, &r)) return;
        CHECK_INT(r.due, r.finished + r.rejected);
        if (!CHECK(h.fine && (i == 0 || agree(&first, &h)))) printf("%s\n", way[i].what);
        if (way[i].blocks == 17) CHECK(r.preempted > 0);
        CHECK((r.hit_tok > 0) == (way[i].cache == 1));
        if (i == 0)
            first = h;
        else
            free(h.req);
    }
    free(first.req);
}

/* A hit is work not done: fewer prompt tokens are computed, as many as were hit. */
TEST(serve_prefix_hits_skip_their_work)
{
    struct heard h;
    struct serve_result r[2];
    struct err e = { 0 };
    for (int i = 0; i < 2; i++) {
        struct play p = play_of();
        p.o.prefix_cache = i ? 1 : 2;
        p.kv_blocks = 512;
        CHECK_INT(play_recall(&p, &h, &r[i], &e), ST_OK);
        int64_t cached = 0;
        for (int k = 0; k < h.n; k++) cached += h.req[k].cached;
        CHECK_INT(cached, r[i].hit_tok);
        free(h.req);
    }
    CHECK_INT(r[0].hit_tok, 0);
    CHECK(r[1].hit_tok > 100);
    CHECK_INT(r[0].finished, r[1].finished);
}

TEST(serve_tells_what_finished_when_a_rank_fails)
{
    struct play p = play_of();
    struct heard h;
    struct serve_result r;
    struct err e = { 0 };
    p.fail_at = 12;
    p.o.max_seqs = 3;
    CHECK_INT(play_recall(&p, &h, &r, &e), ST_DEVICE);
    CHECK_TEXT(e.text, "rank 3: gone");
    CHECK(r.finished > 0 && r.unfinished > 0);
    CHECK_INT(r.due, r.finished + r.rejected + r.unfinished);
    CHECK_INT(h.by[RUN_OK], r.finished);
    CHECK_INT(h.by[RUN_UNFINISHED], r.unfinished);
    CHECK_INT(h.steps, 12);
    free(h.req);
}

TEST(serve_counts_requests_that_cannot_run)
{
    struct play p = play_of();
    struct heard h;
    struct serve_result r;
    struct err e = { 0 };
    p.w.turns = 1;
    p.w.in.max = 200;
    p.w.in.mean = 100; /* some exceed the context of 128 */
    CHECK_INT(play_recall(&p, &h, &r, &e), ST_OK);
    CHECK(r.rejected > 0 && r.finished > 0);
    CHECK_INT(h.by[RUN_REJECTED], r.rejected);
    CHECK_TEXT(r.why_rejected, "prompt and output exceed the model's context");
    free(h.req);
    p.w.in.mean = 20;
    p.w.in.max = 40;
    p.kv_blocks = 6; /* 48 tokens: some prompts exceed all of it */
    CHECK_INT(play_recall(&p, &h, &r, &e), ST_OK);
    CHECK(r.rejected > 0 && r.finished > 0);
    CHECK_TEXT(r.why_rejected, "its KV exceeds the pool of a replica");
    free(h.req);
}

TEST(serve_refuses_what_no_engine_can_do)
{
    struct err e = { 0 };
    struct sched_opts o = play_of().o;
    CHECK_INT(serve_check(&o, 64, &e), ST_OK);
    CHECK_INT(serve_check(&o, 0, &e), ST_USAGE);
    CHECK_HAS(e.text, "policy.kv_blocks: 0 is outside");
    err_clear(&e);
    o.block_tok = 1;
    CHECK_INT(serve_check(&o, 1, &e), ST_USAGE);
    CHECK_HAS(e.text, "too small for a request");
    err_clear(&e);
    o.policy = SCHED_NULL;
    CHECK_INT(serve_check(&o, 64, &e), ST_USAGE);
    CHECK_HAS(e.text, "null keeps no KV cache");
    err_clear(&e);
    o.max_seqs = 4096;
    o.block_tok = 8;
    CHECK_INT(serve_check_table(&o, 1 << 20, &e),
              ST_OK); /* 2^12 * 2^17 blocks: as many as may be */
    CHECK_INT(serve_check_table(&o, (1 << 20) + 1, &e), ST_USAGE);
    CHECK_HAS(e.text,
              "policy.max_seqs: 4096 sequences of up to 1048577 tokens (policy.max_model_len) "
              "in blocks of 8 (policy.block) may list 536875008 blocks");
    o.max_seqs = 65536;
    CHECK_INT(serve_check_table(&o, INT32_MAX, NULL), ST_USAGE);
}

/* A limit cuts the run; what is left is told. */
TEST(serve_ends_at_its_limit)
{
    struct play p = play_of();
    struct heard h;
    struct serve_result r;
    struct err e = { 0 };
    p.limit_ns = 1;
    CHECK_INT(play_recall(&p, &h, &r, &e), ST_OK);
    CHECK_INT(r.due, r.finished + r.rejected + r.unfinished);
    CHECK(r.steps <= 1 && !r.stopped);
    free(h.req);
}

/* ---- memory */

struct watch {
    struct heard h;
    int64_t steps, from, to;
    int64_t at_from, at_to; /* allocations made by then */
};

static void watch_step(void *ctx, const struct serve_step *s)
{
    struct watch *w = ctx;
    (void)s;
    if (++w->steps == w->from) w->at_from = alloc_made();
    if (w->steps == w->to) w->at_to = alloc_made();
}

/* Serves the workload of p on d while w watches. */
static void watched(const struct play *p, struct serve_device dev, struct watch *w, size_t *arena)
{
    struct serve_sink sink = { .ctx = w, .step = watch_step };
    struct err e = { 0 };
    struct arena a;
    struct trace *t = NULL;
    struct serve_result r;
    arena_init(&a);
    CHECK_OK(trace_open(&p->w, NULL, p->seed, &t, &e), &e);
    struct serve_setup u = { .dev = &dev,
                             .n_replica = 1,
                             .sched = &p->o,
                             .kv_blocks = p->kv_blocks,
                             .max_ctx = CTX,
                             .vocab = VOCAB,
                             .trace = t,
                             .sink = &sink };
    CHECK_OK(serve_run(&u, &a, &r, &e), &e);
    *arena = a.total_bytes;
    trace_close(t);
    arena_release(&a);
}

/* 100,000 steps of a closed loop, with sessions or without: from 20,000 on nothing is allocated. (Under
 * a sanitizer calls are not counted; the arena is the same.) */
TEST(serve_memory_is_steady_over_100000_steps)
{
    for (int turns = 1; turns <= 2; turns++) {
        struct play p = play_of();
        struct watch w = { .from = 20000, .to = 100000 };
        struct recall d = { .block_tok = p.o.block_tok, .depth = 1 };
        size_t arena = 0;
        p.w.concurrency = 6;
        p.w.turns = turns;
        p.w.requests = 80000;
        d.kv = calloc((size_t)(p.kv_blocks * p.o.block_tok), sizeof *d.kv);
        watched(&p, (struct serve_device){ &d, 1, recall_submit, recall_collect }, &w, &arena);
        CHECK(w.steps >= w.to);
        CHECK_INT(w.at_to, w.at_from);
        CHECK(arena > 0 && arena < 1 << 20);
        free(d.kv);
    }
}

/* The engine's own steps allocate nothing either. */
TEST(serve_engine_steps_do_not_allocate)
{
    struct play p = play_of();
    struct watch w = { .from = 300, .to = 3000 };
    struct engine_opts o = engine_env_opts(golden("llama31"), 2, 2);
    struct err e = { 0 };
    size_t arena = 0;
    p.w.concurrency = 4;
    p.w.turns = 1;
    p.w.requests = 2200;
    o.logits = false;
    serve_sizes(&p.o, p.kv_blocks, CTX, &o);
    struct engine *g = engine_open(&o, &e);
    CHECK_TEXT(e.text, "");
    if (!g) return;
    watched(&p, serve_engine(g), &w, &arena);
    CHECK(w.steps >= w.to);
    CHECK_INT(w.at_to, w.at_from);
    engine_close(g);
}

/* ---- prompts */

/* Equal keys give equal tokens; a turn repeats what was said; a turn that comes too early, or after
 * a refusal, has drawn tokens and (too early) shares nothing from there on. */
TEST(prompt_tokens_follow_the_keys_of_a_trace)
{
    const struct trace_seg first[] = { { 8, 5 }, { 20, 6 } },
                           second[] = { { 8, 5 }, { 20, 6 }, { 30, 7 } };
    struct trace_req a = {
        .id = 1, .n_in = 14, .n_out = 6, .session = 4, .n_seg = 2, .seg = first
    };
    struct trace_req b = {
        .id = 2, .n_in = 26, .n_out = 4, .session = 4, .turn = 1, .n_seg = 3, .seg = second
    };
    struct trace_req other = {
        .id = 3, .n_in = 12, .n_out = 4, .session = -1, .n_seg = 1, .seg = first
    };
    int32_t x[64], y[64], z[64];
    struct prompt p;
    prompt_init(&p, VOCAB, 1);
    CHECK_INT(prompt_begin(&p, &a, x), 2);
    CHECK_INT(prompt_begin(&p, &other, y), 1);
    CHECK(memcmp(x, y, 8 * sizeof *x) == 0);
    CHECK(memcmp(x + 8, y + 8, 4 * sizeof *x) != 0);
    CHECK_INT(prompt_begin(&p, &b, z), 1); /* a has not answered yet */
    CHECK_INT(p.n_early, 1);
    CHECK(memcmp(x, z, 14 * sizeof *x) == 0);
    for (int i = 14; i < 20; i++) x[i] = 100 + i;
    prompt_end(&p, &a, 2, x, 20);
    CHECK_INT(prompt_begin(&p, &b, z), 3);
    CHECK(memcmp(x, z, 20 * sizeof *x) == 0);
    prompt_end(&p, &b, 3, z, 0);
    CHECK_INT(p.n_answer, 2);
    prompt_forget(&p, 7);
    CHECK_INT(p.n_answer, 0);
    prompt_refuse(&p, &a);
    CHECK_INT(prompt_begin(&p, &b, y), 3); /* drawn, but known to all */
    CHECK(memcmp(x + 14, y + 14, 6 * sizeof *x) != 0);
    prompt_release(&p);
}
