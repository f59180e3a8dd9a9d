/* engine/nccl_boot.c - rank 0's identifiers to all ranks: by a communicator, by files.
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* getrandom */
#include "engine/nccl_boot.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/outfile.h"

/* ---- by a communicator of the host */

/* Its waits have no limit, so a thread ends them. */
struct dog {
    struct comm *world;
    pthread_mutex_t lock;
    pthread_cond_t moved;
    struct timespec end; /* CLOCK_REALTIME */
    int limit_ms, awaited;
    bool off;
};

static void *guard(void *p)
{
    struct dog *d = p;
    char why[120];
    int rc = 0;
    pthread_mutex_lock(&d->lock);
    while (!d->off && rc != ETIMEDOUT) rc = pthread_cond_timedwait(&d->moved, &d->lock, &d->end);
    if (!d->off) {
        snprintf(why, sizeof why, "rank %d has not come to the start of NCCL within %d ms",
                 d->awaited, d->limit_ms);
        comm_fail(d->world, why);
    }
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

static void await_rank(struct dog *d, int rank)
{
    pthread_mutex_lock(&d->lock);
    d->awaited = rank;
    pthread_mutex_unlock(&d->lock);
}

/* All that came say so, in order; then the data. */
static int gather_and_tell(struct dog *d, void *data, size_t bytes, struct err *e)
{
    struct comm *w = d->world;
    char hello[NCCL_BOOT_HELLO_BYTES] = "hello";
    int st = w->rank == 0 ? ST_OK : comm_send(w, 0, hello, sizeof hello, e);
    for (int r = 1; r < w->n && w->rank == 0 && st == ST_OK; r++) {
        size_t got = sizeof hello;
        await_rank(d, r);
        st = comm_recv(w, r, hello, &got, e);
    }
    return st == ST_OK ? comm_broadcast(w, 0, data, bytes, e) : st;
}

int nccl_boot_comm(struct comm *world, void *data, size_t bytes, int limit_ms, struct err *e)
{
    /* rank 0 knows who is missing, and speaks first */
    int ms = world->rank == 0 ? limit_ms - limit_ms / 6 : limit_ms;
    struct dog d = { .world = world, .limit_ms = ms };
    pthread_t id;
    if (world->n == 1) return ST_OK;
    clock_gettime(CLOCK_REALTIME, &d.end);
    int64_t ns = d.end.tv_nsec + (int64_t)ms % 1000 * 1000000;
    d.end.tv_sec += ms / 1000 + ns / 1000000000;
    d.end.tv_nsec = (long)(ns % 1000000000);
    pthread_mutex_init(&d.lock, NULL);
    pthread_cond_init(&d.moved, NULL);
    bool guarded = pthread_create(&id, NULL, guard, &d) == 0;
    int st = guarded ? gather_and_tell(&d, data, bytes, e)
                     : err_set(e, ST_DEVICE, "the system refuses a thread");
    pthread_mutex_lock(&d.lock);
    d.off = true;
    pthread_cond_signal(&d.moved);
    pthread_mutex_unlock(&d.lock);
    if (guarded) pthread_join(id, NULL);
    pthread_cond_destroy(&d.moved);
    pthread_mutex_destroy(&d.lock);
    return st;
}

/* ---- what ranks tell of themselves */

static comm_nccl_seen *map_board(const char *name, int n, bool create)
{
    size_t bytes = (size_t)n * sizeof(comm_nccl_seen);
    int fd = shm_open(name, O_RDWR | O_CLOEXEC | (create ? O_CREAT | O_EXCL : 0), 0600);
    if (fd < 0) return NULL;
    void *at = MAP_FAILED;
    if (!create || ftruncate(fd, (off_t)bytes) == 0)
        at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return at == MAP_FAILED ? NULL : at;
}

int nccl_boot_board(struct comm *world, comm_nccl_seen **seen, struct err *e)
{
    char name[64] = "", here, all[COMM_MAX_RANKS];
    uint64_t drawn;
    *seen = NULL;
    if (world->rank == 0 && getrandom(&drawn, sizeof drawn, 0) == sizeof drawn) {
        snprintf(name, sizeof name, "/orrery-nccl-%ld-%016llx", (long)getpid(),
                 (unsigned long long)drawn);
        *seen = map_board(name, world->n, true);
    }
    int st = comm_broadcast(world, 0, name, sizeof name, e);
    if (st == ST_OK && world->rank != 0 && name[0]) *seen = map_board(name, world->n, false);
    here = *seen != NULL;
    if (st == ST_OK) st = comm_allgather(world, &here, 1, all, e);
    if (world->rank == 0 && name[0]) shm_unlink(name);
    for (int r = 0; r < world->n && *seen; r++) {
        if (st == ST_OK && all[r]) continue;
        nccl_boot_board_close(*seen, world->n);
        *seen = NULL;
    }
    return st;
}

void nccl_boot_board_close(comm_nccl_seen *seen, int n)
{
    if (seen) munmap(seen, (size_t)n * sizeof *seen);
}

/* ---- by files */

enum { NAP_NS = 5000000 };
static const char magic[8] = "orrNCCL1";

struct hello { /* PATH.RANK */
    char magic[8], key[NCCL_BOOT_KEY];
    uint64_t n, rank, nonce;
    uint64_t got; /* its receipt for the answer; 0 before */
    uint64_t check;
};

struct answer { /* PATH: this, nonce[n], data[bytes] */
    char magic[8], key[NCCL_BOOT_KEY];
    uint64_t n, bytes, check; /* check: of nonces and data */
};

struct boot {
    const struct nccl_boot_job *j;
    struct nccl_clock clock;
    int64_t limit_ns, end_ns;
    struct hello mine;
    struct answer *answer; /* with what follows it */
    size_t answer_bytes;
    bool *took; /* [n], rank 0: has its receipt */
    bool stale; /* rank 0: PATH lacks somebody who has come */
};

/* FNV-1a, 64 bits: tells a whole file from a torn one. */
static uint64_t sum(const void *p, size_t n)
{
    const unsigned char *b = p;
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < n; i++) h = (h ^ b[i]) * 1099511628211u;
    return h ? h : 1;
}

static void name_of(const struct boot *b, int rank, char path[4096])
{
    snprintf(path, 4096, "%s.%d", b->j->path, rank);
}

/* Files of exactly n bytes only. On NFS a name that was absent stays so for the client until the
 * directory is opened anew. */
static bool read_whole(const char *path, void *to, size_t n)
{
    char dir[4096], more;
    const char *slash = strrchr(path, '/');
    snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    DIR *d = opendir(dir);
    if (d) closedir(d);
    FILE *f = fopen(path, "rbe");
    if (!f) return false;
    bool whole = fread(to, 1, n, f) == n && fread(&more, 1, 1, f) == 0;
    fclose(f);
    return whole;
}

static int say(struct boot *b, struct err *e)
{
    struct hello *h = &b->mine;
    char path[4096];
    name_of(b, b->j->rank, path);
    h->check = sum(h, offsetof(struct hello, check));
    return outfile_write(path, h, sizeof *h, e);
}

static bool hear(const struct boot *b, int rank, struct hello *h)
{
    char path[4096];
    struct hello x;
    name_of(b, rank, path);
    if (!read_whole(path, &x, sizeof x) || x.check != sum(&x, offsetof(struct hello, check)) ||
        memcmp(&x, &b->mine, offsetof(struct hello, rank)) != 0 || x.rank != (uint64_t)rank)
        return false;
    *h = x;
    return true;
}

static uint64_t *nonces(const struct boot *b)
{
    return (uint64_t *)(b->answer + 1);
}

/* What rank r writes when it has taken the answer to its own number: no earlier start knew both. */
static uint64_t receipt(const struct boot *b, int r)
{
    const char *data = (const char *)(nonces(b) + b->j->n);
    uint64_t of[3] = { nonces(b)[0], nonces(b)[r],
                       sum(data, b->answer_bytes - (size_t)(data - (const char *)b->answer)) };
    return sum(of, sizeof of);
}

/* Rank 0: answers whenever somebody new has come. Returns whether all have taken the answer; else
 * *missing has not. */
static bool serve(struct boot *b, int *missing, int *st, struct err *e)
{
    struct answer *a = b->answer;
    bool changed = false;
    int absent = 0, waiting = 0; /* the first of each */
    for (int r = b->j->n - 1; r > 0; r--) {
        struct hello h = { .nonce = 0 };
        if (b->took[r]) continue;
        if (!hear(b, r, &h)) {
            absent = r;
            continue;
        }
        changed = changed || nonces(b)[r] != h.nonce;
        nonces(b)[r] = h.nonce;
        b->took[r] = h.got == receipt(b, r);
        if (!b->took[r]) waiting = r;
    }
    *missing = absent ? absent : waiting;
    if (!*missing) return true;
    b->stale = b->stale || changed;
    if (!absent && b->stale) {
        b->stale = false;
        a->check = sum(a + 1, b->answer_bytes - sizeof *a);
        *st = outfile_write(b->j->path, a, b->answer_bytes, e);
    }
    return false;
}

/* Another rank: whether there is an answer to this one, which is then taken. */
static bool ask(struct boot *b, int *st, struct err *e)
{
    struct answer *a = b->answer;
    if (!read_whole(b->j->path, a, b->answer_bytes) || memcmp(a->magic, magic, sizeof magic) != 0 ||
        memcmp(a->key, b->mine.key, sizeof a->key) != 0 || a->n != b->mine.n ||
        a->check != sum(a + 1, b->answer_bytes - sizeof *a) ||
        nonces(b)[b->j->rank] != b->mine.nonce)
        return false;
    b->mine.got = receipt(b, b->j->rank);
    *st = say(b, e);
    return true;
}

/* Who keeps this rank from an answer: another that is absent, or rank 0. */
static int absent(const struct boot *b)
{
    struct hello h;
    for (int r = 1; r < b->j->n; r++)
        if (r != b->j->rank && !hear(b, r, &h)) return r;
    return 0;
}

static int exchange_files(struct boot *b, struct err *e)
{
    int missing = 0, st = b->j->rank == 0 ? ST_OK : say(b, e);
    while (st == ST_OK) {
        bool done = b->j->rank == 0 ? serve(b, &missing, &st, e) : ask(b, &st, e);
        if (!done && st == ST_OK && b->j->world) st = comm_check(b->j->world, e);
        if (done || st != ST_OK) break;
        if (b->clock.now_ns(b->clock.arg) > b->end_ns)
            return err_set(e, ST_DEVICE,
                           "rank %d has not come to the start of NCCL within %d s (%s, job %s)",
                           b->j->rank == 0 ? missing : absent(b), (int)(b->limit_ns / 1000000000),
                           b->j->path, b->j->key);
        b->clock.nap(b->clock.arg, NAP_NS);
    }
    return st;
}

/* After a failure the others' files stay, by which they see who is absent. */
static void tidy(const struct boot *b, int st)
{
    char path[4096];
    int me = b->j->rank;
    if (me == 0) unlink(b->j->path);
    for (int r = 1; r < b->j->n; r++) {
        if (me == 0 ? st != ST_OK : st == ST_OK || r != me) continue;
        name_of(b, r, path);
        unlink(path);
    }
}

int nccl_boot_file(const struct nccl_boot_job *j, void *data, size_t bytes, struct err *e)
{
    size_t n = (size_t)j->n, nonce_bytes = n * sizeof(uint64_t);
    struct boot b = { .j = j, .clock = j->clock.now_ns ? j->clock : nccl_clock_real };
    if (j->n == 1) return ST_OK;
    b.mine = (struct hello){ .n = n, .rank = (uint64_t)j->rank };
    memcpy(b.mine.magic, magic, sizeof magic);
    snprintf(b.mine.key, sizeof b.mine.key, "%s", j->key);
    if (getrandom(&b.mine.nonce, sizeof b.mine.nonce, 0) != sizeof b.mine.nonce)
        return err_set(e, ST_DEVICE, "no random numbers: %s", strerror(errno));
    b.limit_ns = (j->limit_ms ? j->limit_ms : NCCL_BOOT_LIMIT_MS) * INT64_C(1000000);
    b.end_ns = b.clock.now_ns(b.clock.arg) + b.limit_ns;
    b.answer_bytes = sizeof *b.answer + nonce_bytes + bytes;
    b.answer = mem_zalloc(1, b.answer_bytes);
    *b.answer = (struct answer){ .n = n, .bytes = bytes };
    memcpy(b.answer->magic, magic, sizeof magic);
    memcpy(b.answer->key, b.mine.key, sizeof b.mine.key);
    char *at = (char *)(b.answer + 1) + nonce_bytes;
    if (j->rank == 0) memcpy(at, data, bytes);
    nonces(&b)[0] = b.mine.nonce;
    b.took = mem_zalloc(n, sizeof *b.took);
    int st = exchange_files(&b, e);
    if (st == ST_OK && j->rank != 0) memcpy(data, at, bytes);
    tidy(&b, st);
    free(b.took);
    free(b.answer);
    return st;
}

/* ---- SLURM */

static int number_of(const char *name, long most, int *out, struct err *e)
{
    const char *text = getenv(name);
    char *end;
    if (!text || !text[0])
        return err_set(e, ST_USAGE, "%s is not set: is this a task of srun?", name);
    errno = 0;
    long v = strtol(text, &end, 10);
    if (errno || *end || v < 0 || v > most)
        return err_set(e, ST_USAGE, "%s is '%s', which is no number of 0 to %ld", name, text, most);
    *out = (int)v;
    return ST_OK;
}

int nccl_boot_slurm(struct nccl_boot_job *j, struct err *e)
{
    static const char *const dirs[] = { "ORRERY_NCCL_DIR", "SLURM_SUBMIT_DIR", "HOME" };
    const char *dir = NULL, *again = getenv("SLURM_RESTART_COUNT");
    int job = 0, step = 0, least = getenv("SLURM_STEP_NUM_TASKS") != NULL;
    *j = (struct nccl_boot_job){ 0 };
    int st = number_of("SLURM_JOB_ID", INT32_MAX, &job, e);
    if (st == ST_OK) st = number_of("SLURM_STEP_ID", INT32_MAX, &step, e);
    if (st == ST_OK)
        st = number_of(least ? "SLURM_STEP_NUM_TASKS" : "SLURM_NTASKS", COMM_MAX_RANKS, &j->n, e);
    if (st == ST_OK && j->n < 1) st = err_set(e, ST_USAGE, "SLURM says that there are no tasks");
    if (st == ST_OK) st = number_of("SLURM_PROCID", j->n - 1, &j->rank, e);
    if (st != ST_OK) return st;
    for (size_t i = 0; i < sizeof dirs / sizeof *dirs && (!dir || !dir[0]); i++)
        dir = getenv(dirs[i]);
    if (!dir || !dir[0])
        return err_set(e, ST_USAGE, "ORRERY_NCCL_DIR is not set: a directory that all ranks see");
    snprintf(j->key, sizeof j->key, "%d.%d.%.20s", job, step, again ? again : "0");
    int n = snprintf(j->path, sizeof j->path, "%s/.orrery-nccl-%d.%d", dir, job, step);
    if (n >= (int)sizeof j->path) return err_set(e, ST_USAGE, "the path %s is too long", dir);
    return ST_OK;
}
