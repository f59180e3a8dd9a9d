/* tests/ranks.c - ranks as processes, for tests/test_mpi.c and `make bench`.
 *
 *     mpirun -n N ranks check          communicator and engine: prints "N ranks: 0 wrong"
 *     mpirun -n N ranks kill R [FILE]  rank R kills itself while it works; rank 0 then makes FILE
 *     mpirun -n N ranks halt R [FILE]  it stops itself (SIGSTOP), and is silent for 2 s
 *     mpirun -n N ranks term R [FILE]  it is told to stop (SIGTERM)
 *     mpirun -n N ranks load R [FILE]  it kills itself while it and rank 0 load
 *     mpirun -n N ranks backend R      the backend of rank R does not open
 *     mpirun -n N ranks wait           all ranks sleep for a second: prints processor time
 *     mpirun -n N ranks bench          rows of a table: latencies of this communicator
 *     ranks bench N                    the same of N threads
 *     ranks idle N                     as wait, N threads
 * Exit status: 0, 1 when something was wrong, 5 when a rank has failed.
 * SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/pool.h"
#include "base/progress.h"
#include "base/stop.h"
#include "engine/bell.h"
#include "engine/launch.h"
#include "tests/comm_check.h"
#include "tests/engine_env.h"

enum { CHECK_ROOM = 4096, SUM_FLOATS = 1 << 18 };

static int fails_at = -1; /* rank whose backend does not open */
static int dies_at = -1;
static long dies_after = 40;
static int dies_by = SIGKILL;
static bool loading;

/* ---- checks */

static long check_comm(struct comm_mpi *m, struct err *e)
{
    int n = comm_mpi_size(m), tp = n % 2 ? 1 : 2;
    comm_mpi_split(m, tp, 1000, bell_spin_max(n, pool_cpus()));
    for (int r = 0; r < n; r++) comm_mpi_reserve(m, r, COMM_CHECK_BYTES);
    long wrong = comm_check_sums(comm_mpi_world(m), 40, 1000, e);
    wrong += comm_check_sums(comm_mpi_world(m), 2, 100003, e); /* long ones go another way */
    wrong += comm_check_others(comm_mpi_world(m), comm_mpi_tp(m), e);
    return wrong + comm_check_messages(comm_mpi_world(m), e);
}

static long check_case(const struct engine_opts *o, const struct engine_expect *x, struct err *e)
{
    long wrong = 0;
    struct engine *g = engine_open(o, e);
    if (!g) return 1;
    for (int i = 0; i < ENGINE_PROMPTS; i++) {
        int32_t out[ENGINE_GREEDY] = { 0 };
        wrong += engine_env_run(g, x, i, 7, NULL, out, e) != ST_OK;
        for (int k = 0; k < ENGINE_GREEDY; k++) wrong += out[k] != x->greedy[i][k];
    }
    struct engine_seq seq = { 0, 1, 0, 1, (const int32_t[]){ 0 } };
    struct engine_out pick = { 0 };
    struct engine_step last = { 1, 1, 1, x->prompt[0], &seq, &pick };
    wrong += engine_submit(g, &last, e) != ST_OK; /* stops with a step in flight */
    wrong += engine_stop(g, e) != ST_OK;
    for (int r = 0; r < engine_n_rank(g); r++) {
        struct engine_rank_report p;
        engine_report(g, r, &p);
        wrong += p.rank != r || p.steps < 1 || p.weight_bytes < 1;
        wrong += o->tp > 1 && p.tp[COMM_ALLREDUCE].calls < p.steps;
        struct engine_rank_step t = { 0 };
        wrong += !engine_rank_step(g, p.steps - 1, r, &t) || t.t1_ns < t.t0_ns;
        wrong += o->tp > 1 && t.n_allreduce < 1;
        wrong += t.operators != o->operators;
        if (!o->operators) continue;
        wrong += t.gemm_ns <= 0 || t.attn_ns <= 0; /* apart from each other and from calls: */
        wrong += t.gemm_ns + t.attn_ns + (o->tp > 1 ? t.allreduce_ns : 0) > t.t1_ns - t.t0_ns;
    }
    engine_close(g);
    return wrong;
}

/* Rank 0 opens engines of every division, the others follow. */
static long check_engine(struct comm_mpi *m, struct err *e)
{
    int n = comm_mpi_size(m);
    long wrong = 0;
    for (int i = 0; i < ENGINE_CASES; i++) {
        struct arena a;
        struct engine_expect x = { 0 };
        char dir[256];
        arena_init(&a);
        snprintf(dir, sizeof dir, "tests/golden/engine/%s", engine_case[i]);
        if (!engine_expect_read(dir, &a, &x, e)) wrong++;
        for (int tp = n < 4 ? n : 4; tp >= 1 && wrong == 0; tp /= 2) {
            struct engine_opts o = engine_env_opts(dir, tp, n / tp);
            o.mpi = m;
            o.operators = i % 2 == 0;
            if (n / tp <= 4 && n % tp == 0) wrong += check_case(&o, &x, e);
        }
        arena_release(&a);
    }
    return wrong;
}

static int check(struct comm_mpi *m, struct err *e)
{
    int n = comm_mpi_size(m);
    struct {
        long wrong;
        struct err e;
    } mine = { 0 }, all[COMM_MAX_RANKS];
    mine.wrong = check_comm(m, &mine.e);
    if (comm_allgather(comm_mpi_world(m), &mine, sizeof mine, all, e) != ST_OK) return ST_DEVICE;
    if (comm_mpi_rank(m) != 0) return n % 2 ? ST_OK : engine_follow(m, NULL, e);
    long wrong = n % 2 ? 0 : check_engine(m, e);
    for (int i = 0; i < n; i++) {
        wrong += all[i].wrong;
        if (all[i].wrong) printf("rank %d: %ld wrong %s\n", i, all[i].wrong, all[i].e.text);
    }
    printf("%d ranks: %ld wrong\n", n, wrong);
    if (n % 2 == 0) engine_dismiss(m);
    return wrong ? ST_RANGE : ST_OK;
}

/* ---- failures */

static struct backend *may_fail(struct team *t, const char *kernels, struct err *e)
{
    if (fails_at >= 0) {
        err_set(e, ST_DEVICE, "the device is on fire");
        return NULL;
    }
    return backend_cpu_open(t, kernels, e);
}

static const struct backend_ops *normal;
static struct backend_ops deadly;

static void dies_in_norm(struct backend *b, const struct backend_norm *w, const float *x, float *y,
                         const int32_t shape[2])
{
    if (dies_after-- == 0) raise(dies_by);
    normal->norm(b, w, x, y, shape);
}

static void *dies_in_alloc(struct backend *b, size_t bytes, struct err *e)
{
    if (dies_after-- == 35) raise(dies_by);
    return normal->alloc(b, bytes, e);
}

/* Rank 0 loads for so long that the launcher ends it because of the other. */
static void *loads_slowly(struct backend *b, size_t bytes, struct err *e)
{
    for (int i = 0; i < 20000 && !stop_asked(); i++)
        nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
    return normal->alloc(b, bytes, e);
}

/* Dies in the middle of a step, while others wait for it in all-reduces; or while it loads. */
static struct backend *will_die(struct team *t, const char *kernels, struct err *e)
{
    struct backend *b = backend_cpu_open(t, kernels, e);
    if (!b) return NULL;
    normal = b->ops;
    deadly = *b->ops;
    if (!loading) deadly.norm = dies_in_norm;
    if (loading) deadly.alloc = dies_at < 0 ? loads_slowly : dies_in_alloc;
    b->ops = &deadly;
    return b;
}

/* Generates until a rank fails; what a real run would save goes to `file`. */
static int work(struct comm_mpi *m, engine_backend_fn backend, const char *file, struct err *e)
{
    struct arena a;
    struct engine_expect x = { 0 };
    struct engine_opts o = engine_env_opts("tests/golden/engine/llama2", 1, 1);
    int st = ST_OK;
    o.tp = comm_mpi_size(m) % 2 ? 1 : 2;
    o.pp = comm_mpi_size(m) / o.tp;
    o.mpi = m;
    o.backend = backend;
    arena_init(&a);
    if (!engine_expect_read(o.model, &a, &x, e)) st = ST_IO;
    struct engine *g = st == ST_OK ? engine_open(&o, e) : NULL;
    if (!g && st == ST_OK) st = ST_DEVICE;
    for (int i = 0; st == ST_OK; i++) {
        int32_t out[ENGINE_GREEDY];
        st = engine_env_run(g, &x, i % ENGINE_PROMPTS, 7, NULL, out, e);
    }
    engine_close(g);
    arena_release(&a);
    if (st != ST_OK && file) {
        FILE *f = fopen(file, "w");
        if (f) fprintf(f, "saved after: %s\n", e->text);
        if (f) fclose(f);
    }
    return st;
}

static int fail(struct comm_mpi *m, const char *file, struct err *e)
{
    int me = comm_mpi_rank(m);
    if (loading && me == 0) {
        dies_at = -1;
        return work(m, will_die, file, e);
    }
    engine_backend_fn backend = me == fails_at ? may_fail : me == dies_at ? will_die : NULL;
    return me ? engine_follow(m, backend, e) : work(m, backend, file, e);
}

/* ---- figures */

static double cpu_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

enum { BENCH_CALLS = 2000, BENCH_LARGE = 200 };

static int calls(size_t bytes)
{
    return bytes > 65536 ? BENCH_LARGE : BENCH_CALLS;
}

/* A row: median and least time of a call. */
static void show(const char *what, const char *name, int n, size_t bytes, double *us)
{
    int k = calls(bytes);
    qsort(us, (size_t)k, sizeof *us, by_value);
    printf("| %s, %d ranks, %s | %zu | %.2f | %.2f | %.0f |\n", what, n, name, bytes, us[k / 2],
           us[0], (double)bytes / us[k / 2]);
    fflush(stdout);
}

static void bench_sum(struct comm *c, size_t bytes, float *x, double *us)
{
    for (int k = -calls(bytes) / 10; k < calls(bytes); k++) {
        int64_t t0 = clock_mono_ns();
        if (comm_allreduce(c, x, bytes / sizeof *x, NULL) != ST_OK) return;
        if (k >= 0) us[k] = 1e-3 * (double)(clock_mono_ns() - t0);
    }
    if (c->rank == 0) show("all-reduce", c->ops->name, c->n, bytes, us);
}

/* Half of a round trip between ranks 0 and 1. */
static void bench_message(struct comm *c, size_t bytes, float *x, double *us)
{
    for (int k = -calls(bytes) / 10; k < calls(bytes) && c->rank < 2; k++) {
        size_t got = SUM_FLOATS * sizeof *x;
        int64_t t0 = clock_mono_ns();
        if (c->rank == 0) comm_send(c, 1, x, bytes, NULL);
        comm_recv(c, 1 - c->rank, x, &got, NULL);
        if (c->rank == 1) comm_send(c, 0, x, bytes, NULL);
        if (k >= 0) us[k] = 0.5e-3 * (double)(clock_mono_ns() - t0);
    }
    if (c->rank == 0) show("message, one way", c->ops->name, c->n, bytes, us);
    comm_barrier(c, NULL);
}

static void bench(struct comm *c)
{
    float *x = calloc(SUM_FLOATS, sizeof *x);
    double *us = calloc(BENCH_CALLS, sizeof *us);
    if (!x || !us) abort();
    for (size_t bytes = 64; bytes <= 1 << 20; bytes *= bytes < 8192 ? 128 : bytes < 65536 ? 8 : 16)
        bench_sum(c, bytes, x, us);
    for (size_t bytes = 64; bytes <= 1 << 20; bytes *= bytes < 8192 ? 128 : bytes < 65536 ? 8 : 16)
        bench_message(c, bytes, x, us);
    free(us);
    free(x);
}

static int bench_mpi(struct comm_mpi *m)
{
    const struct comm_mpi_place *p = comm_mpi_place(m);
    comm_mpi_split(m, comm_mpi_size(m), SUM_FLOATS, bell_spin_max(p->n, p->cpus));
    for (int r = 0; r < 2; r++) comm_mpi_reserve(m, r, SUM_FLOATS * sizeof(float));
    bench(comm_mpi_world(m));
    return ST_OK;
}

static void *bench_thread(void *c)
{
    bench(c);
    return NULL;
}

static int bench_threads(int n, struct err *e)
{
    pthread_t id[COMM_MAX_RANKS];
    struct comm_thread *t = comm_thread_open(n, 1, bell_spin_max(n, pool_cpus()), e);
    if (!t) return ST_USAGE;
    comm_thread_reserve(t, 0, 1 % n, SUM_FLOATS * sizeof(float));
    comm_thread_reserve(t, 1 % n, 0, SUM_FLOATS * sizeof(float));
    for (int r = 1; r < n; r++)
        if (pthread_create(&id[r], NULL, bench_thread, comm_thread_world(t, r)) != 0) abort();
    bench(comm_thread_world(t, 0));
    for (int r = 1; r < n; r++) pthread_join(id[r], NULL);
    comm_thread_close(t);
    return ST_OK;
}

/* An open engine between requests. */
static int idle(struct comm_mpi *m, int tp, struct err *e)
{
    struct engine_opts o = engine_env_opts("tests/golden/engine/llama2", tp, 1);
    o.mpi = m;
    struct engine *g = engine_open(&o, e);
    if (!g) return ST_DEVICE;
    nanosleep(&(struct timespec){ .tv_nsec = 300000000 }, NULL);
    double before = cpu_s();
    nanosleep(&(struct timespec){ .tv_sec = 1 }, NULL);
    printf("rank 0%s: %.4f s of processor time in 1 s\n", m ? "" : " and all other threads",
           cpu_s() - before);
    engine_close(g);
    return ST_OK;
}

static int wait_mpi(struct comm_mpi *m, struct err *e)
{
    double before = cpu_s();
    int64_t t0 = clock_mono_ns();
    if (comm_mpi_rank(m) == 0) {
        int st = idle(m, comm_mpi_size(m), e);
        engine_dismiss(m);
        return st;
    }
    int st = engine_follow(m, NULL, e);
    printf("rank %d: %.4f s of processor time in %.2f s, loading included\n", comm_mpi_rank(m),
           cpu_s() - before, 1e-9 * (double)(clock_mono_ns() - t0));
    return st;
}

/* ---- main */

static int run(int argc, char **argv, struct launch *l, struct err *e)
{
    const char *what = argc > 1 ? argv[1] : "";
    int n = argc > 2 ? (int)strtol(argv[2], NULL, 10) : 2;
    if (argc > 2 && strcmp(what, "bench") == 0) return bench_threads(n, e);
    if (argc > 2 && strcmp(what, "idle") == 0) return idle(NULL, n, e);
    int st = launch_start(l, LAUNCH_MPI, e);
    if (st != ST_OK) return st;
    if (strcmp(what, "check") == 0) return check(l->mpi, e);
    if (strcmp(what, "wait") == 0) return wait_mpi(l->mpi, e);
    if (strcmp(what, "bench") == 0) return bench_mpi(l->mpi);
    dies_by = strcmp(what, "halt") == 0 ? SIGSTOP : strcmp(what, "term") == 0 ? SIGTERM : SIGKILL;
    loading = strcmp(what, "load") == 0;
    launch_stall(l, INT64_C(2000000000));
    if (strcmp(what, "backend") != 0) dies_at = n;
    if (strcmp(what, "backend") == 0) fails_at = n;
    return fail(l->mpi, argc > 3 ? argv[3] : NULL, e);
}

int main(int argc, char **argv)
{
    struct err e = { 0 };
    struct launch l = { 0 };
    signal(SIGPIPE, SIG_IGN);
    stop_install();
    int st = run(argc, argv, &l, &e);
    if (st != ST_OK) launch_say(&l, "ranks", e.text);
    if (l.mpi) comm_mpi_close(l.mpi);
    return st == ST_OK ? 0 : st == ST_RANGE ? 1 : 5;
}
