/* bench/suite_comm.c - collectives and messages: ranks as threads, and as processes of a child mpirun
 * over shared memory and over TCP.
 *
 * Every rank makes the same calls; rank 0 keeps the time. An all-reduce and an all-gather are timed
 * as a chain of calls, a message as half a round trip. What is first sent is checked exactly.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/pool.h"
#include "base/progress.h"
#include "base/stop.h"
#include "bench/suite.h"
#include "engine/bell.h"
#include "engine/launch.h"

enum { LEAST_BYTES = 1 << 10, MOST_BYTES = 4 << 20, MAX_SIZE = 16, N_OP = 3, MAX_RANKS = 8 };
enum { CHILD_LIMIT_MS = 120000 };
#define OP_WORDS "allreduce allgather sendrecv"
static const enum points_op op_of[N_OP] = { POINTS_ALLREDUCE, POINTS_ALLGATHER, POINTS_SENDRECV };
extern char **environ;

struct value {
    int64_t calls;
    double s_per_call, error;
};

/* Sizes in bytes; returns how many. */
static int sizes(bool full, size_t out[MAX_SIZE])
{
    int n = 0;
    for (size_t b = LEAST_BYTES; b <= MOST_BYTES; b *= full ? 2 : 4) out[n++] = b;
    return n;
}

/* ---- one rank's part */

struct end {
    struct comm *c;
    float *x, *all; /* [MOST_BYTES], [MOST_BYTES] */
    size_t bytes;
    double run_s;
};

static int call(struct end *d, int op, struct err *e)
{
    struct comm *c = d->c;
    size_t got = MOST_BYTES;
    int st = ST_OK;
    if (op == 0) return comm_allreduce(c, d->x, d->bytes / sizeof *d->x, e);
    if (op == 1) return comm_allgather(c, d->x, d->bytes / (size_t)c->n, d->all, e);
    if (c->rank > 1) return ST_OK;
    if (c->rank == 0) st = comm_send(c, 1, d->x, d->bytes, e);
    if (st == ST_OK) st = comm_recv(c, 1 - c->rank, d->x, &got, e);
    if (st == ST_OK && c->rank == 1) st = comm_send(c, 0, d->x, d->bytes, e);
    return st;
}

/* Whole numbers, so that every sum is exact. The share of values that are wrong on this rank. */
static int check(struct end *d, int op, double *error, struct err *e)
{
    struct comm *c = d->c;
    size_t n = d->bytes / sizeof *d->x, wrong = 0;
    for (size_t i = 0; i < n; i++) d->x[i] = (float)(c->rank + 1) * (float)(i % 97);
    int st = call(d, op, e);
    size_t part = n / (size_t)c->n;
    float ranks = 0.5f * (float)c->n * (float)(c->n + 1); /* 1 + 2 + ... */
    for (size_t i = 0; i < n && st == ST_OK; i++) {
        float ones = (float)(i % 97), want = ones * ranks, got = d->x[i];
        if (op == 1 && i < part * (size_t)c->n) {
            size_t rank = i / part; /* whose part it is */
            want = (float)(rank + 1) * (float)(i % part % 97);
            got = d->all[i];
        }
        if (op == 1 && i >= part * (size_t)c->n) continue;
        if (op == 2) want = ones * (float)(c->rank > 1 ? c->rank + 1 : 1);
        wrong += got != want;
    }
    *error = (double)wrong / (double)n;
    memset(d->x, 0, d->bytes);
    return st;
}

static int measure(struct end *d, int op, struct value *v, struct err *e)
{
    int64_t n = 1;
    int st = check(d, op, &v->error, e);
    for (int i = 0; i < 2 && st == ST_OK; i++) { /* first once, then for as long as that says */
        st = comm_broadcast(d->c, 0, &n, sizeof n, e);
        int64_t t0 = clock_mono_ns(), k = 0;
        while (k < n && st == ST_OK) {
            st = call(d, op, e);
            k++;
        }
        double s = 1e-9 * (double)(clock_mono_ns() - t0) / (double)n + 1e-9;
        v->calls = n;
        v->s_per_call = op == 2 ? s / 2 : s;
        n = (int64_t)ceil(d->run_s / s);
        if (n > 100000) n = 100000;
    }
    if (st == ST_OK) st = comm_barrier(d->c, e);
    return st;
}

/* All operations and sizes; v[N_OP * n_size], filled on rank 0. */
static int measure_all(struct comm *c, bool full, double run_s, struct value *v, struct err *e)
{
    size_t size[MAX_SIZE];
    int n = sizes(full, size), st = ST_OK;
    struct end d = { .c = c, .run_s = run_s };
    d.x = mem_zalloc(1, MOST_BYTES);
    d.all = mem_zalloc(2, MOST_BYTES);
    for (int op = 0; op < N_OP; op++)
        for (int i = 0; i < n && st == ST_OK; i++) {
            d.bytes = size[i];
            st = measure(&d, op, &v[op * n + i], e);
        }
    free(d.x);
    free(d.all);
    return st;
}

/* ---- ranks as threads */

struct thread_rank {
    struct comm *c;
    bool full;
    double run_s;
};

static void *thread_main(void *arg)
{
    const struct thread_rank *r = arg;
    struct value unused[N_OP * MAX_SIZE];
    struct err e = { 0 };
    if (measure_all(r->c, r->full, r->run_s, unused, &e) != ST_OK) comm_fail(r->c, e.text);
    return NULL;
}

static int by_threads(int n, bool full, double run_s, struct value *v, struct err *e)
{
    pthread_t id[MAX_RANKS];
    struct thread_rank r[MAX_RANKS];
    struct comm_thread *t = comm_thread_open(n, 1, bell_spin_max(n, pool_cpus()), e);
    int started = 1;
    if (!t) return ST_USAGE;
    comm_thread_reserve(t, 0, 1, MOST_BYTES);
    comm_thread_reserve(t, 1, 0, MOST_BYTES);
    for (; started < n; started++) {
        r[started] = (struct thread_rank){ comm_thread_world(t, started), full, run_s };
        if (pthread_create(&id[started], NULL, thread_main, &r[started]) != 0) break;
    }
    int st = started == n ? measure_all(comm_thread_world(t, 0), full, run_s, v, e)
                          : err_set(e, ST_DEVICE, "the system refuses a thread");
    if (st != ST_OK) comm_fail(comm_thread_world(t, 0), e ? e->text : "failed");
    while (--started > 0) pthread_join(id[started], NULL);
    comm_thread_close(t);
    return st;
}

/* ---- ranks as processes: the child's side */

int suite_comm_worker(int argc, char *const *argv, struct err *e)
{
    struct launch l = { 0 };
    struct value v[N_OP * MAX_SIZE] = { 0 };
    size_t size[MAX_SIZE];
    bool full = argc > 2 && strcmp(argv[2], "full") == 0;
    double run_s = argc > 3 ? strtod(argv[3], NULL) : 0.01;
    int st = launch_start(&l, LAUNCH_MPI, e);
    if (st != ST_OK) return st;
    int n = comm_mpi_size(l.mpi), n_size = sizes(full, size);
    const struct comm_mpi_place *p = comm_mpi_place(l.mpi);
    comm_mpi_split(l.mpi, n, MOST_BYTES / sizeof(float), bell_spin_max(p->n, p->cpus));
    for (int r = 0; r < 2 && r < n; r++) comm_mpi_reserve(l.mpi, r, MOST_BYTES);
    st = n < 2 ? err_set(e, ST_USAGE, "start two processes or more")
               : measure_all(comm_mpi_world(l.mpi), full, run_s, v, e);
    for (int i = 0; i < N_OP * n_size && st == ST_OK && comm_mpi_rank(l.mpi) == 0; i++)
        printf("point %d %lld %.9g %.3g\n", i, (long long)v[i].calls, v[i].s_per_call, v[i].error);
    fflush(stdout);
    comm_mpi_close(l.mpi);
    return st;
}

/* ---- and the parent's */

struct comm_job {
    enum points_comm comm;
    int ranks;
    bool full, failed; /* failed: mpirun does not do it here, so it is not tried again */
};

static pid_t start_child(const struct suite *s, const struct comm_job *k, int out[2])
{
    char ranks[16], run_s[32];
    const char *const head[] = { "mpirun", "--oversubscribe", "--bind-to", "none", "-n", ranks };
    const char *const tcp[] = { "--mca", "pml", "ob1", "--mca", "btl", "tcp,self" };
    const char *const tail[] = { s->o.self, "bench", "--comm-worker", k->full ? "full" : "quick",
                                 run_s,     NULL };
    const char
        *argv[sizeof head / sizeof *head + sizeof tcp / sizeof *tcp + sizeof tail / sizeof *tail];
    size_t n = sizeof head / sizeof *head;
    size_t more = k->comm == POINTS_MPI_TCP ? sizeof tcp / sizeof *tcp : 0;
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    pid_t id = -1;
    snprintf(ranks, sizeof ranks, "%d", k->ranks);
    snprintf(run_s, sizeof run_s, "%g", s->o.run_s);
    memcpy(argv, head, sizeof head);
    memcpy(argv + n, tcp, more * sizeof *argv);
    memcpy(argv + n + more, tail, sizeof tail);
    if (geteuid() == 0) { /* mpirun asks root to say so, and root has started this program */
        setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 0);
        setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 0);
    }
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, out[1], 1);
    posix_spawn_file_actions_addopen(&files, 2, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addclose(&files, out[0]);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP);
    if (posix_spawnp(&id, "mpirun", &files, &attr, (char *const *)(uintptr_t)argv, environ) != 0)
        id = -1;
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attr);
    return id;
}

/* What the child prints, until it closes its end, the time is over or the user interrupts. */
static size_t hear(int fd, char *text, size_t room)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };
    size_t n = 0;
    for (int waited = 0; waited < CHILD_LIMIT_MS && !stop_asked(); waited += 100) {
        if (poll(&p, 1, 100) <= 0) continue;
        ssize_t got = read(fd, text + n, room - 1 - n);
        if (got <= 0) break;
        n += (size_t)got;
        waited = 0;
    }
    text[n] = 0;
    return n;
}

/* Ends the child and all that it has started. */
static bool end_child(pid_t id)
{
    int status = 0;
    bool gone = false;
    for (int i = 0; i < 50 && !gone; i++) {
        gone = waitpid(id, &status, WNOHANG) == id;
        if (!gone && (stop_asked() || i == 40)) kill(-id, SIGTERM);
        if (!gone) poll(NULL, 0, 100);
    }
    if (!gone) {
        kill(-id, SIGKILL);
        waitpid(id, &status, 0);
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static bool by_mpirun(const struct suite *s, const struct comm_job *k, struct value *v, int n)
{
    static char text[1 << 14];
    int out[2], heard = 0;
    if (pipe(out) != 0) return false;
    pid_t id = start_child(s, k, out);
    close(out[1]);
    if (id > 0) hear(out[0], text, sizeof text);
    close(out[0]);
    if (id <= 0 || !end_child(id)) return false;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        char *at = line + strlen("point ");
        if (strncmp(line, "point ", strlen("point ")) != 0) continue;
        long i = strtol(at, &at, 10);
        if (i < 0 || i >= n) return false;
        v[i].calls = strtoll(at, &at, 10);
        v[i].s_per_call = strtod(at, &at);
        v[i].error = strtod(at, &at);
        if (v[i].calls < 1 || !(v[i].s_per_call > 0) || !(v[i].error >= 0)) return false;
        heard++;
    }
    return heard == n;
}

/* ---- jobs */

static int run_comm(struct suite *s, const struct suite_job *j, struct suite_value *out,
                    struct err *e)
{
    struct comm_job *k = j->own;
    struct value v[N_OP * MAX_SIZE] = { 0 };
    if (k->failed) return ST_OK;
    if (k->comm == POINTS_THREAD) {
        int st = by_threads(k->ranks, k->full, s->o.run_s, v, e);
        if (st != ST_OK) return st;
    } else if (!by_mpirun(s, k, v, j->n)) {
        if (stop_asked()) return err_set(e, ST_STOPPED, "interrupted");
        k->failed = true;
        suite_skip(s, arena_printf(&s->arena, "%s: mpirun with %d processes does not work here",
                                   j->what, k->ranks));
        return ST_OK;
    }
    for (int i = 0; i < j->n; i++) {
        out[i] = (struct suite_value){ v[i].calls, v[i].s_per_call };
        suite_error(s, j->first + i, v[i].error);
    }
    return ST_OK;
}

static void add_comm(struct suite *s, enum points_comm comm, int ranks)
{
    struct comm_job *k = arena_alloc(&s->arena, sizeof *k);
    size_t size[MAX_SIZE];
    char what[64], word[16];
    *k = (struct comm_job){ comm, ranks, s->o.kind == SUITE_FULL, false };
    int n = sizes(k->full, size);
    snprintf(what, sizeof what, "%d ranks, %s", ranks,
             points_word(POINTS_COMM_WORDS, (int)comm, word, sizeof word));
    double start_s = comm == POINTS_THREAD ? 0 : 1;
    struct suite_job *j = suite_add_job(s, what, start_s + N_OP * n * (s->o.run_s + 0.005));
    j->run = run_comm;
    j->own = k;
    for (int op = 0; op < N_OP; op++)
        for (int i = 0; i < n; i++) {
            struct points_row r = { .op = (uint8_t)op_of[op],
                                    .dtype = POINTS_F32,
                                    .comm = (uint8_t)comm,
                                    .threads = 1,
                                    .ranks = op == 2 ? 2 : ranks,
                                    .bytes = (double)size[i],
                                    .error = -1 };
            if (op == 2 && ranks > 2) r.ranks = ranks;
            suite_add_row(s, &r);
        }
}

static bool in_path(const char *name)
{
    const char *path = getenv("PATH");
    char file[4352];
    for (; path && *path; path += strcspn(path, ":"), path += *path == ':') {
        int len = (int)strcspn(path, ":");
        if ((size_t)snprintf(file, sizeof file, "%.*s/%s", len, path, name) < sizeof file &&
            access(file, X_OK) == 0)
            return true;
    }
    return false;
}

int suite_comm_add(struct suite *s, struct err *e)
{
    int most = s->o.kind == SUITE_FULL ? 4 : 2;
    bool mpi = s->o.self && in_path("mpirun");
    (void)e;
    for (int n = 2; n <= most; n *= 2) {
        add_comm(s, POINTS_THREAD, n);
        if (mpi) add_comm(s, POINTS_MPI, n);
        if (mpi) add_comm(s, POINTS_MPI_TCP, n);
    }
    if (!s->o.self)
        suite_skip(s, "communication over MPI: left out by --mpi_points=no");
    else if (!mpi)
        suite_skip(s, "communication over MPI: there is no mpirun");
    return ST_OK;
}
