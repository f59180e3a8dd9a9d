/* tests/test_steady.c - the engine itself over 100,000 steps of a load that does not end: its memory
 * stays what it was, with all that counts and watches it. SPDX-License-Identifier: Apache-2.0 */
#include <malloc.h>
#include <stdio.h>
#include <unistd.h>

#include "bench/tally.h"
#include "engine/monitor.h"
#include "tests/test.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0 /* a sanitizer's own memory grows */
#endif

enum { MAX_REPLICA = 2, CTX = 96, VOCAB = 100, FROM = 20000, TO = 100000 };

struct watch {
    struct tally tally;
    struct monitor monitor[MAX_REPLICA];
    int64_t steps, requests, preempted;
    size_t heap[2];
    int64_t mapped[2]; /* bytes */
};

/* Of addresses, not of pages in memory: those that are touched for the first time late are no growth. */
static int64_t mapped_bytes(void)
{
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%ld", &pages) != 1) pages = 0;
    if (f) fclose(f);
    return pages * sysconf(_SC_PAGESIZE);
}

static void on_step(void *ctx, const struct serve_step *s)
{
    struct watch *w = ctx;
    tally_step(&w->tally, s);
    monitor_step(&w->monitor[s->replica], s);
    w->steps++;
    if (w->steps != FROM && w->steps != TO) return;
    int at = w->steps == TO;
    int64_t before = mapped_bytes(); /* reading it allocates, and frees, a buffer */
    struct mallinfo2 m = mallinfo2();
    w->heap[at] = m.uordblks + m.hblkhd;
    w->mapped[at] = before;
}

static void on_arrive(void *ctx, const struct trace_req *q, int left, int64_t now)
{
    struct watch *w = ctx;
    tally_arrive(&w->tally, q, left, now);
}

static void on_level(void *ctx, const struct serve_level *l)
{
    struct watch *w = ctx;
    tally_level(&w->tally, l);
}

static void on_gap(void *ctx, int64_t gap_ns)
{
    struct watch *w = ctx;
    tally_gap(&w->tally, gap_ns);
}

static void on_request(void *ctx, const struct run_request *row, int64_t id, int64_t t_ready,
                       const int32_t *tok)
{
    struct watch *w = ctx;
    tally_request(&w->tally, row, id, t_ready, tok);
    w->requests++;
    w->preempted += row->preempted;
}

static bool read_rank(void *ctx, int64_t step, int rank, struct engine_rank_step *out)
{
    return engine_rank_step(ctx, step, rank, out);
}

/* A shape of two layers, its weights drawn. */
static const char *tiny_model(void)
{
    const char *path = test_path("config.json");
    FILE *f = fopen(path, "w");
    if (!f) return path;
    fprintf(f,
            "{\"model_type\": \"llama\", \"architectures\": [\"LlamaForCausalLM\"], "
            "\"hidden_size\": 32, \"intermediate_size\": 64, \"num_hidden_layers\": 2, "
            "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"head_dim\": 8, "
            "\"max_position_embeddings\": %d, \"vocab_size\": %d, \"rms_norm_eps\": 1e-5, "
            "\"rope_theta\": 10000.0, \"hidden_act\": \"silu\", \"tie_word_embeddings\": true}\n",
            CTX, VOCAB);
    fclose(f);
    return path;
}

struct crew {
    struct engine_opts o;
    struct engine *g[MAX_REPLICA];
    struct err e[MAX_REPLICA];
    int n;
};

static void open_one(void *ctx, int i, int n)
{
    struct crew *c = ctx;
    struct engine_opts o = c->o;
    o.n_beside = n * o.tp * o.pp;
    o.n_before = i * o.tp * o.pp;
    c->g[i] = engine_open(&o, &c->e[i]);
}

static void close_one(void *ctx, int i, int n)
{
    (void)n;
    engine_close(((struct crew *)ctx)->g[i]);
}

/* Six clients and the cache of four: arrivals, ends, chunks, cache hits and preemptions never stop. */
static void serve_long(struct crew *c, struct team *t, const struct sched_opts *o, struct watch *w,
                       int64_t requests)
{
    struct trace_opts load = { .rate_scale = 1,
                               .arrivals = 5, /* closed */
                               .concurrency = 6 * c->n,
                               .burstiness = 1,
                               .requests = requests,
                               .prefix_tok = 12,
                               .prefix_groups = 3,
                               .in = { .mean = 12, .min = 1, .max = 40, .sigma = .8 },
                               .out = { .mean = 10, .min = 1, .max = 30, .sigma = .8 } };
    struct serve_device dev[MAX_REPLICA];
    struct serve_sink sink = { .ctx = w,
                               .arrive = on_arrive,
                               .level = on_level,
                               .step = on_step,
                               .gap = on_gap,
                               .request = on_request };
    struct serve_setup u = { .dev = dev,
                             .n_replica = c->n,
                             .router = ROUTER_LEAST_LOADED,
                             .crew = t,
                             .sched = o,
                             .kv_blocks = c->o.m.n_block,
                             .max_ctx = CTX,
                             .vocab = VOCAB,
                             .seed = 7,
                             .sink = &sink };
    struct serve_result r = { 0 };
    struct metrics m;
    struct arena a;
    struct err e = { 0 };
    arena_init(&a);
    metrics_init(&m);
    CHECK_OK(trace_open(&load, NULL, 5, &u.trace, &e), &e);
    struct tally_setup ts = { .trace = u.trace,
                              .steady = true,
                              .warmup_ratio = .1,
                              .bin_ns = 1000000,
                              .kv_blocks = c->o.m.n_block,
                              .n_replica = c->n,
                              .n_stage = c->o.pp };
    tally_init(&w->tally, &ts, &m, &a);
    for (int i = 0; i < c->n; i++) {
        dev[i] = serve_engine(c->g[i]);
        struct monitor_setup ms = { .o = { .window = 50, .memory = 1, .straggler = 9 },
                                    .tp = c->o.tp,
                                    .pp = c->o.pp,
                                    .replica = i,
                                    .kv_blocks = c->o.m.n_block,
                                    .block_tok = c->o.m.block_tok,
                                    .read = read_rank,
                                    .read_ctx = c->g[i] };
        monitor_init(&w->monitor[i], &ms, &a);
    }
    CHECK_OK(serve_run(&u, &a, &r, &e), &e);
    CHECK_INT(r.due, r.finished);
    tally_end(&w->tally, &r);
    trace_close(u.trace);
    metrics_release(&m);
    arena_release(&a);
}

static void steady(int n_replica, int tp, int pp, int64_t requests)
{
    struct sched_opts o = { .policy = SCHED_VLLM,
                            .max_batch_tok = 16,
                            .max_seqs = 4,
                            .chunk_tok = 16,
                            .block_tok = 8,
                            .prefix_cache = 1,
                            .reserve_full = true };
    struct crew c = { .n = n_replica };
    struct watch w = { 0 };
    c.o = (struct engine_opts){
        .model = tiny_model(), .random = true, .seed = 1, .tp = tp, .pp = pp, .threads = 1
    };
    c.o.m.weight = MODEL_F32;
    c.o.m.kv = BACKEND_F32;
    serve_sizes(&o, 13, CTX, &c.o);
    mallopt(M_ARENA_MAX, 1); /* mallinfo2 tells of one */
    struct team *t = team_open(n_replica, -1, 0, NULL);
    team_run(t, open_one, &c);
    for (int i = 0; i < n_replica; i++) {
        CHECK_TEXT(c.e[i].text, "");
        if (!c.g[i]) return;
    }
    serve_long(&c, t, &o, &w, requests);
    team_run(t, close_one, &c);
    team_close(t);
    CHECK(w.steps >= TO);
    CHECK(w.preempted > 1000);
    printf("    %lld steps, %lld requests: %zu bytes in use after %d and %zu after %d steps, %.3f "
           "and %.3f MB mapped\n",
           (long long)w.steps, (long long)w.requests, w.heap[0], FROM, w.heap[1], TO,
           1e-6 * (double)w.mapped[0], 1e-6 * (double)w.mapped[1]);
    if (SANITIZED) return;
    CHECK(w.heap[0] > 100000);
    CHECK_INT(w.heap[0], w.heap[1]);
    CHECK(w.mapped[1] <= w.mapped[0]);
}

TEST_LIMIT(steady_memory_over_100000_steps_of_the_engine, 120)
{
    steady(1, 1, 1, 27000);
}

TEST_LIMIT(steady_memory_over_100000_steps_of_two_replicas, 120)
{
    steady(2, 1, 1, 27000);
}

TEST_LIMIT(steady_memory_over_100000_steps_of_four_ranks, 240)
{
    steady(1, 2, 2, 17500);
}
