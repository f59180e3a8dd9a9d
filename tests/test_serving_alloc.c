/* tests/test_serving_alloc.c - between two steps of a run the engine asks for no memory: the whole of
 * `orrery engine run`, in this process, every call of malloc counted.
 *
 * The test stands in the engine as a backend that counts the steps. SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "bench/serving.h"
#include "tests/alloc.h"
#include "tests/cli.h"
#include "tests/test.h"

/* ---- a backend that counts the steps of its rank, and looks twice */

static const struct backend_ops *inner;
static struct backend_ops counting;
static struct {
    int64_t per_step, from, to; /* ranks that embed; steps */
    atomic_llong embeds;
    int64_t made_from, made_to;
} seen;

static void embed(struct backend *b, const struct backend_mat *w, const int32_t *tok, int32_t m,
                  int32_t row0, float *x)
{
    int64_t n = atomic_fetch_add(&seen.embeds, 1);
    if (n == seen.from * seen.per_step) seen.made_from = alloc_made();
    if (n == seen.to * seen.per_step) seen.made_to = alloc_made();
    inner->embed(b, w, tok, m, row0, x);
}

/* Ranks open theirs at the same time. */
static struct backend *counting_open(struct team *t, const char *kernels, struct err *e)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    struct backend *b = backend_cpu_open(t, kernels, e);
    if (!b) return NULL;
    pthread_mutex_lock(&lock);
    if (!inner) {
        inner = b->ops;
        counting = *inner;
        counting.embed = embed;
    }
    pthread_mutex_unlock(&lock);
    b->ops = &counting;
    return b;
}

/* ---- a run in this process */

static const char *scenario(void)
{
    return cli_put("s.yaml",
                   "title: does it allocate?\n"
                   "model: tests/golden/engine/llama31/config.json\n"
                   "hardware: h100-sxm\n"
                   "strategy: {weights: f32, kv: f32}\n"
                   "policy: {max_seqs: 6, max_batch_tokens: 24tok, block: 8tok, kv_blocks: 18,\n"
                   "         reserve_full: no}\n"
                   "workload:\n"
                   "  {arrivals: closed, concurrency: 8, requests: 5000, turns: 3,\n"
                   "   prefix_tok: 10tok, prefix_groups: 2,\n"
                   "   prompt: {dist: uniform, min: 2tok, max: 20tok},\n"
                   "   output: {dist: uniform, min: 4tok, max: 12tok}}\n"
                   "slo: {ttft: 30s, tpot: 10s, attainment: 0.9}\n"
                   "monitor: {window: 20, memory: 0.5, imbalance: 0}\n");
}

enum { MAX_ARG = 16 };

/* `orrery engine run` with these options, the program's own but for the backend. */
static void serve(const char *out, const char *const *option, int n, struct serve_result *r)
{
    struct arena a;
    struct scenario s;
    struct serving v = { .journal.fd = -1 };
    struct conf_args args;
    struct err e = { 0 };
    char *argv[MAX_ARG];
    int argc = 0;
    arena_init(&a);
    argv[argc++] = arena_printf(&a, "orrery");
    argv[argc++] = arena_printf(&a, "%s", scenario());
    if (out) argv[argc++] = arena_printf(&a, "--out=%s", out);
    for (int i = 0; i < n && argc < MAX_ARG - 1; i++)
        argv[argc++] = arena_printf(&a, "%s", option[i]);
    argv[argc] = NULL;
    scenario_init(&s, NULL, NULL, &a);
    conf_add(&s.conf, monitor_rows, &v.monitor_opts, "monitor");
    s.n_own = s.conf.n_table;
    conf_add(&s.conf, serving_rows, &v.o, "command");
    v.s = &s;
    CHECK_OK(conf_args(&s.conf, argc, argv, &args, &e), &e);
    CHECK_OK(scenario_read(&s, args.file[0], &args, &e), &e);
    CHECK_OK(serving_prepare(&v, false, NULL, &e), &e);
    v.eo.backend = counting_open;
    CHECK_OK(serving_run(&v, argc, argv, &e), &e);
    *r = v.result;
    r->part = NULL; /* goes with the arena */
    serving_release(&v);
    arena_release(&a);
}

static void look(int64_t per_step, int64_t from, int64_t to)
{
    memset(&seen, 0, sizeof seen);
    seen.per_step = per_step;
    seen.from = from;
    seen.to = to;
    seen.made_from = seen.made_to = -1;
}

/* ---- tests */

/* per_step: ranks of the first stages. out: with a run file, and all that goes into it. */
static void allocates_nothing(int64_t per_step, bool out, const char *const *option, int n)
{
    enum { FROM = 1000, TO = 7000 };
    struct serve_result r = { 0 };
    if (!alloc_counts()) SKIP("the allocator of this build does not let itself be counted");
    look(per_step, FROM, TO);
    serve(out ? test_path("run.h5") : NULL, option, n, &r);
    CHECK(r.steps > TO);
    CHECK(r.finished > 0 && r.preempted > 0 && r.hit_tok > 0);
    CHECK(seen.made_from > 0 && seen.made_to > 0);
    CHECK_INT(seen.made_to - seen.made_from, 0);
}

TEST(serving_allocates_nothing_between_steps)
{
    static const char *const plain[] = { "--threads=1", "--workload.turns=1" };
    allocates_nothing(1, false, plain, 2);
}

TEST(serving_allocates_nothing_for_sessions)
{
    static const char *const sessions[] = { "--threads=1", "--workload.requests=3000" };
    allocates_nothing(1, false, sessions, 2);
}

/* More tokens than a table's chunk has rows, a live line, and the journal. */
TEST(serving_allocates_nothing_for_its_file)
{
    static const char *const file[] = { "--threads=1", "--workload.turns=1", "--tokens",
                                        "--record.stages_for=100s", "--progress" };
    allocates_nothing(1, true, file, 5);
}

TEST(serving_allocates_nothing_on_four_ranks)
{
    static const char *const four[] = { "--threads=1",     "--strategy.tp=2",
                                        "--strategy.pp=2", "--workload.requests=1500",
                                        "--tokens",        "--record.stages_for=100s" };
    allocates_nothing(2, true, four, 6);
}

TEST(serving_allocates_nothing_on_replicas)
{
    static const char *const two[] = { "--threads=1", "--strategy.dp=2", "--workload.requests=3000",
                                       "--tokens", "--workload.concurrency=16" };
    allocates_nothing(1, true, two, 5);
}
