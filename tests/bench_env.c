/* tests/bench_env.c - see bench_env.h. SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench_env.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/test.h"

struct suite_opts bench_tiny(int kind, const char *model)
{
    return (struct suite_opts){ .kind = kind,
                                .model = model,
                                .seed = 1,
                                .tp = 1,
                                .pp = 1,
                                .threads = 1,
                                .weight = MODEL_BF16,
                                .kv = BACKEND_BF16,
                                .max_tok = 24,
                                .max_seqs = 16,
                                .block_tok = 8,
                                .kv_bytes = 1e7,
                                .run_s = 1e-6,
                                .cache_bytes = 1 << 16,
                                .dir = test_dir() };
}

const char *bench_model(void)
{
    if (access("tests/golden/engine/llama2", R_OK) != 0)
        SKIP("tests run from the root of the repository");
    return "tests/golden/engine/llama2";
}

static int fake_job(struct suite *s, const struct suite_job *j, struct suite_value *v,
                    struct err *e)
{
    (void)s, (void)e;
    for (int i = 0; i < j->n; i++)
        v[i] = (struct suite_value){ j->arg[0] == i ? 0 : 3, 1e-3 * (1 + j->first + i) };
    return ST_OK;
}

void bench_fake(struct suite *s)
{
    *s = (struct suite){ .o = { .tp = 1, .pp = 1, .threads = 1 }, .clock_s = 1e-8 };
    arena_init(&s->arena);
    s->may = arena_alloc(&s->arena, 1024);
    snprintf(s->spec.a.name, sizeof s->spec.a.name, "fake");
    for (int j = 0; j < BENCH_JOBS; j++) {
        struct suite_job *job = suite_add_job(s, "fake", 1e-6);
        job->run = fake_job;
        job->arg[0] = j == 1 ? 1 : -1;
        for (int i = 0; i <= j % 3; i++) {
            struct points_row r = { .op = POINTS_GEMM, .m = s->n_row + 1, .error = -1 };
            suite_add_row(s, &r);
        }
    }
}

static void end_later(void *ctx, int run, int job)
{
    struct bench_ender *k = ctx;
    (void)run, (void)job;
    if (k->left-- == 0) raise(k->sig);
}

int bench_fake_run(const char *path, bool resume, struct bench_ender *end, struct suite_log *log,
                   struct err *e)
{
    static char name[] = "test";
    char *argv[] = { name };
    struct suite s;
    struct suite_run_opts o = {
        .out = path, .runs = BENCH_RUNS, .seed = 5, .resume = resume, .argc = 1, .argv = argv
    };
    o.save_s = 1e9;
    if (end) {
        o.after = end_later;
        o.ctx = end;
    }
    bench_fake(&s);
    int st = suite_run(&s, &o, log, e);
    arena_release(&s.arena);
    return st;
}

int64_t bench_count(const char *path, int times[32][BENCH_RUNS], struct err *e)
{
    struct arena a;
    struct points_file f;
    arena_init(&a);
    memset(times, 0, 32 * sizeof times[0]);
    if (points_read(path, &a, &f, e) != ST_OK) {
        arena_release(&a);
        return -1;
    }
    int64_t n = f.n_sample;
    for (int64_t i = 0; i < n; i++)
        if (f.sample[i].run < BENCH_RUNS) times[f.sample[i].point][f.sample[i].run]++;
    points_close(&f);
    arena_release(&a);
    return n;
}
