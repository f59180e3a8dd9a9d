/* engine/comm_mpi.c - ranks are processes: messages by Open MPI, everything else out of messages.
 *
 * Collectives are built from messages, so that sums keep their order and every wait is ours: it spins
 * for a while, yields, then naps, and ends when another rank fails (MPI's own waits do neither).
 * Sums up to SLICE_FLOATS, or of two ranks: the tree itself, each rank keeping the sum of its branch
 * and swapping it with the other branch, log2(n) messages. Longer ones of more ranks: each rank adds
 * a slice and hands it out, which moves less. libmpi is loaded when it is needed: linking it would
 * slow the start of every command. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* cpu_set_t */
#include <assert.h>
#include <dlfcn.h>
#include <limits.h>
#include <mpi.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/progress.h"
#include "engine/bell.h"
#include "engine/comm.h"
#include "engine/comm_door.h"
#include "engine/comm_watch.h"
#include "engine/crowd.h"

#ifndef OPEN_MPI
#error "comm_mpi.c knows the names inside Open MPI's library"
#endif

enum {
    LINE_FLOATS = 16,
    SLICE_FLOATS = 32768,
    YIELDS = 4, /* with a bell, as in bell.c */
    NET_SPINS = 20,
    LOOK_SPINS = 4,     /* a look at messages takes as long as so many at a counter */
    YIELD_NS = 1000000, /* without */
    NAP_MIN_NS = 20000,
    NAP_MAX_NS = 1000000,
    DOOR_MIN_NS = 200000,
    DOOR_MAX_NS = 10000000,
    NAP_SHARE = 32, /* of the time waited: what comes is noticed 3% late */
    LINGER_MS = 3000,
    TAG_MESSAGE = 1,
    TAG_WORLD = 2,
    TAG_STAGE = 3
};

/* What is used of the library; MPI_COMM_WORLD and its like are addresses in it. */
static struct {
    int (*Init_thread)(int *, char ***, int, int *);
    int (*Finalize)(void);
    int (*Comm_rank)(MPI_Comm, int *);
    int (*Comm_size)(MPI_Comm, int *);
    int (*Comm_dup)(MPI_Comm, MPI_Comm *);
    int (*Comm_set_errhandler)(MPI_Comm, MPI_Errhandler);
    int (*Get_processor_name)(char *, int *);
    int (*Allgather)(const void *, int, MPI_Datatype, void *, int, MPI_Datatype, MPI_Comm);
    int (*Bcast)(void *, int, MPI_Datatype, int, MPI_Comm);
    int (*Isend)(const void *, int, MPI_Datatype, int, int, MPI_Comm, MPI_Request *);
    int (*Irecv)(void *, int, MPI_Datatype, int, int, MPI_Comm, MPI_Request *);
    int (*Testall)(int, MPI_Request[], int *, MPI_Status[]);
    int (*Iprobe)(int, int, MPI_Comm, int *, MPI_Status *);
    int (*Get_count)(const MPI_Status *, MPI_Datatype, int *);
    MPI_Comm world;
    MPI_Datatype byte;
    MPI_Request none;
    MPI_Errhandler returns;
} mpi;

#define EAGER_BYTES     "140000"
#define SEND_ROOM_BYTES "4194304" /* the kernel cuts it to net.core.wmem_max */

struct outbox { /* messages to one rank that are still on their way */
    MPI_Request req[COMM_SLOTS];
    unsigned char *data[COMM_SLOTS];
    size_t room;
    uint64_t sent;
};

struct group {
    struct comm_mpi *all;
    int first, n, tag;
};

struct comm_mpi {
    int rank, n, spin_max;
    MPI_Comm comm;
    struct comm_watch *watch; /* NULL with one process */
    struct comm_door *door;   /* NULL: no shared memory */
    int *at_door;             /* [n] number of a rank on this host, -1 on others */
    struct comm_mpi_place place;
    struct group world_group, tp_group;
    struct comm world, tp;
    struct outbox *out; /* [n] */
    MPI_Request *req;   /* [2n] of the present collective */
    MPI_Status *status; /* [2n] */
    int n_req;
    float *sum; /* [n_sum] */
    size_t n_sum;
};

/* ---- waiting */

static int broken(struct comm_mpi *m, struct err *e)
{
    return comm_watch_why(m->watch, e);
}

static bool has_failed(const struct comm_mpi *m)
{
    return m->watch && comm_watch_failed(m->watch);
}

static int mpi_error(struct comm_mpi *m, const char *what, struct err *e)
{
    return err_set(e, ST_DEVICE, "MPI refuses on rank %d: %s", m->rank, what);
}

/* For a share of the time waited, so that what comes without a ring is noticed soon after. */
static void doze(struct comm_mpi *m, int64_t waited_ns)
{
    int64_t ns = waited_ns / NAP_SHARE, least = m->door ? DOOR_MIN_NS : NAP_MIN_NS;
    int64_t most = m->door ? DOOR_MAX_NS : NAP_MAX_NS;
    ns = ns < least ? least : ns > most ? most : ns;
    if (m->door)
        comm_door_sleep(m->door, ns);
    else
        nanosleep(&(struct timespec){ .tv_nsec = (long)ns }, NULL);
}

/* Until n requests are done: looks, then gives way to who else can run, then sleeps until a message
 * is announced or for ever longer naps. */
static int await(struct comm_mpi *m, int n, MPI_Request *req, MPI_Status *status, struct err *e)
{
    int done = 0, yields = 0, spins = bell_spins(LOOK_SPINS * m->spin_max) / LOOK_SPINS;
    int64_t since_ns = 0;
    bool armed = false;
    for (int i = 0;; i++) {
        if (mpi.Testall(n, req, &done, status) != MPI_SUCCESS)
            return mpi_error(m, "a message is longer than the room for it, or its way is broken",
                             e);
        if (done) return ST_OK;
        if (has_failed(m)) return broken(m, e);
        if (i < spins) {
            bell_relax();
            continue;
        }
        if (since_ns == 0) since_ns = clock_mono_ns();
        int64_t waited_ns = clock_mono_ns() - since_ns;
        if (m->door ? yields++ < YIELDS : waited_ns < YIELD_NS) {
            sched_yield();
            continue;
        }
        if (armed) doze(m, waited_ns);
        if (m->door) comm_door_arm(m->door);
        armed = true; /* and looks once more */
    }
}

/* After something was sent. */
static void ring(struct comm_mpi *m, int rank)
{
    if (m->door && rank != m->rank && m->at_door[rank] >= 0)
        comm_door_ring(m->door, m->at_door[rank]);
}

/* ---- parts of a collective: posted, then awaited together */

static int post_send(struct comm *c, int to, const void *data, size_t bytes, struct err *e)
{
    const struct group *g = c->group;
    struct comm_mpi *m = g->all;
    if (bytes > INT_MAX) return mpi_error(m, "2 GiB at once is too much", e);
    int rc =
        mpi.Isend(data, (int)bytes, mpi.byte, g->first + to, g->tag, m->comm, &m->req[m->n_req++]);
    ring(m, g->first + to);
    return rc == MPI_SUCCESS ? ST_OK : mpi_error(m, "a message cannot be sent", e);
}

static int post_recv(struct comm *c, int from, void *data, size_t bytes, struct err *e)
{
    const struct group *g = c->group;
    struct comm_mpi *m = g->all;
    if (bytes > INT_MAX) return mpi_error(m, "2 GiB at once is too much", e);
    int rc = mpi.Irecv(data, (int)bytes, mpi.byte, g->first + from, g->tag, m->comm,
                       &m->req[m->n_req++]);
    return rc == MPI_SUCCESS ? ST_OK : mpi_error(m, "a message cannot be received", e);
}

static int await_posted(struct comm *c, int st, struct err *e)
{
    struct comm_mpi *m = ((const struct group *)c->group)->all;
    int n = m->n_req;
    m->n_req = 0;
    return st == ST_OK ? await(m, n, m->req, m->status, e) : st;
}

static struct comm_mpi *enter(struct comm *c, int *st, struct err *e)
{
    struct comm_mpi *m = ((const struct group *)c->group)->all;
    *st = has_failed(m) ? broken(m, e) : ST_OK;
    m->n_req = 0;
    return m;
}

/* ---- collectives */

static int barrier(struct comm *c, struct err *e)
{
    char in, out = 0;
    int st;
    enter(c, &st, e);
    for (int k = 1; k < c->n && st == ST_OK; k *= 2) {
        st = post_recv(c, (c->rank - k + c->n) % c->n, &in, 1, e);
        if (st == ST_OK) st = post_send(c, (c->rank + k) % c->n, &out, 1, e);
        st = await_posted(c, st, e);
    }
    return st;
}

/* x becomes the sum over ranks [lo, hi), of which this is one. Branches need not be of one size: a
 * rank of the right one sends its sum to several of the left. */
static int branch(struct comm *c, int lo, int hi, float *x, size_t n, struct err *e)
{
    struct comm_mpi *m = ((const struct group *)c->group)->all;
    int half = 1;
    if (hi - lo == 1) return ST_OK;
    while (half * 2 < hi - lo) half *= 2;
    int mid = lo + half, n_right = hi - mid;
    bool left = c->rank < mid;
    int st = branch(c, left ? lo : mid, left ? mid : hi, x, n, e);
    if (st != ST_OK) return st;
    size_t bytes = n * sizeof *x;
    if (left) {
        int i = c->rank - lo;
        st = post_recv(c, mid + i % n_right, m->sum, bytes, e);
        if (st == ST_OK && i < n_right) st = post_send(c, mid + i, x, bytes, e);
    } else {
        int i = c->rank - mid;
        st = post_recv(c, lo + i, m->sum, bytes, e);
        for (; i < half && st == ST_OK; i += n_right) st = post_send(c, lo + i, x, bytes, e);
    }
    st = await_posted(c, st, e);
    for (size_t i = 0; i < n && st == ST_OK; i++)
        x[i] += m->sum[i]; /* a + b is b + a, bit by bit */
    return st;
}

struct slice {
    size_t at, n;
};
static struct slice slice_of(size_t n, int i, int n_rank)
{
    size_t lines = (n + LINE_FLOATS - 1) / LINE_FLOATS, p = (size_t)n_rank, r = (size_t)i;
    size_t at = lines * r / p * LINE_FLOATS, end = lines * (r + 1) / p * LINE_FLOATS;
    return (struct slice){ at, (end < n ? end : n) - at };
}

static int by_slices(struct comm *c, float *x, size_t n, struct err *e)
{
    struct comm_mpi *m = ((const struct group *)c->group)->all;
    const float *in[COMM_MAX_RANKS];
    struct slice mine = slice_of(n, c->rank, c->n);
    float *at = m->sum + mine.n; /* room for the result first */
    int st = ST_OK;
    for (int i = 0; i < c->n && st == ST_OK; i++) {
        struct slice s = slice_of(n, i, c->n);
        in[i] = i == c->rank ? x + mine.at : at;
        if (i == c->rank) continue;
        st = post_recv(c, i, at, mine.n * sizeof *x, e);
        if (st == ST_OK) st = post_send(c, i, x + s.at, s.n * sizeof *x, e);
        at += mine.n;
    }
    st = await_posted(c, st, e);
    if (st != ST_OK) return st;
    comm_tree(in, 0, c->n, mine.n, m->sum);
    memcpy(x + mine.at, m->sum, mine.n * sizeof *x);
    for (int i = 0; i < c->n && st == ST_OK; i++) {
        struct slice s = slice_of(n, i, c->n);
        if (i == c->rank) continue;
        st = post_recv(c, i, x + s.at, s.n * sizeof *x, e);
        if (st == ST_OK) st = post_send(c, i, x + mine.at, mine.n * sizeof *x, e);
    }
    return await_posted(c, st, e);
}

static void sum_room(struct comm_mpi *m, size_t n)
{
    size_t want = n + (size_t)(m->n + 2) * LINE_FLOATS;
    if (want <= m->n_sum) return;
    m->sum = mem_resize(m->sum, want, sizeof *m->sum);
    m->n_sum = want;
}

static int allreduce(struct comm *c, float *x, size_t n, struct err *e)
{
    int st;
    struct comm_mpi *m = enter(c, &st, e);
    if (st != ST_OK) return st;
    sum_room(m, n);
    return c->n == 2 || n <= SLICE_FLOATS ? branch(c, 0, c->n, x, n, e) : by_slices(c, x, n, e);
}

static int allgather(struct comm *c, const void *mine, size_t bytes, void *all, struct err *e)
{
    int st;
    enter(c, &st, e);
    for (int i = 0; i < c->n && st == ST_OK; i++) {
        unsigned char *at = (unsigned char *)all + (size_t)i * bytes;
        if (i == c->rank) {
            memcpy(at, mine, bytes);
            continue;
        }
        st = post_recv(c, i, at, bytes, e);
        if (st == ST_OK) st = post_send(c, i, mine, bytes, e);
    }
    return await_posted(c, st, e);
}

static int broadcast(struct comm *c, int root, void *data, size_t bytes, struct err *e)
{
    int st;
    enter(c, &st, e);
    if (st == ST_OK && c->rank != root) st = post_recv(c, root, data, bytes, e);
    for (int i = 0; i < c->n && st == ST_OK && c->rank == root; i++)
        if (i != root) st = post_send(c, i, data, bytes, e);
    return await_posted(c, st, e);
}

/* ---- messages */

static int send(struct comm *c, int to, const void *data, size_t bytes, struct err *e)
{
    const struct group *g = c->group;
    int st;
    struct comm_mpi *m = enter(c, &st, e);
    struct outbox *o = &m->out[g->first + to];
    if (st != ST_OK) return st;
    if (bytes > o->room)
        return err_set(e, ST_DEVICE, "rank %d has a message of %zu bytes for rank %d, room is %zu",
                       c->rank, bytes, to, o->room);
    size_t k = o->sent % COMM_SLOTS;
    st = await(m, 1, &o->req[k], MPI_STATUSES_IGNORE, e);
    if (st != ST_OK) return st;
    if (bytes) memcpy(o->data[k], data, bytes);
    int rc = mpi.Isend(o->data[k], (int)bytes, mpi.byte, g->first + to, TAG_MESSAGE, m->comm,
                       &o->req[k]);
    o->sent++;
    ring(m, g->first + to);
    return rc == MPI_SUCCESS ? ST_OK : mpi_error(m, "a message cannot be sent", e);
}

static int recv(struct comm *c, int from, void *data, size_t *bytes, struct err *e)
{
    const struct group *g = c->group;
    MPI_Request req;
    MPI_Status status = { 0 };
    int st, got = 0, room = *bytes < INT_MAX ? (int)*bytes : INT_MAX;
    struct comm_mpi *m = enter(c, &st, e);
    if (st != ST_OK) return st;
    if (mpi.Irecv(data, room, mpi.byte, g->first + from, TAG_MESSAGE, m->comm, &req) != MPI_SUCCESS)
        return mpi_error(m, "a message cannot be received", e);
    st = await(m, 1, &req, &status, e);
    if (st != ST_OK) return st;
    mpi.Get_count(&status, mpi.byte, &got);
    *bytes = (size_t)got;
    return ST_OK;
}

static void fail(struct comm *c, const char *why)
{
    struct comm_mpi *m = ((const struct group *)c->group)->all;
    if (m->watch) comm_watch_fail(m->watch, m->rank, why);
}

static int check(struct comm *c, struct err *e)
{
    return comm_mpi_check(((const struct group *)c->group)->all, e);
}

static bool there(struct comm *c, int from)
{
    const struct group *g = c->group;
    struct comm_mpi *m = g->all;
    int is = 0;
    if (has_failed(m)) return true; /* an error is */
    int rc = mpi.Iprobe(g->first + from, TAG_MESSAGE, m->comm, &is, MPI_STATUS_IGNORE);
    return rc != MPI_SUCCESS || is;
}

static const struct comm_ops ops = { .name = "mpi",
                                     .allreduce = allreduce,
                                     .allgather = allgather,
                                     .broadcast = broadcast,
                                     .barrier = barrier,
                                     .send = send,
                                     .recv = recv,
                                     .fail = fail,
                                     .check = check,
                                     .there = there };

/* ---- life */

static bool find(void *lib, const char *name, void *to)
{
    void *at = dlsym(lib, name);
    memcpy(to, &at, sizeof at); /* POSIX: a pointer to a function fits into one to data */
    return at != NULL;
}

static int load(struct err *e)
{
    void *lib = dlopen("libmpi.so.40", RTLD_NOW | RTLD_GLOBAL); /* its plug-ins need the symbols */
    if (!lib)
        return err_set(e, ST_USAGE,
                       "no MPI here (%s): install Open MPI (openmpi-bin), or use ranks "
                       "that are threads",
                       dlerror());
    const struct {
        const char *name;
        void *to;
    } want[] = { { "MPI_Init_thread", &mpi.Init_thread },
                 { "MPI_Finalize", &mpi.Finalize },
                 { "MPI_Comm_rank", &mpi.Comm_rank },
                 { "MPI_Comm_size", &mpi.Comm_size },
                 { "MPI_Comm_dup", &mpi.Comm_dup },
                 { "MPI_Comm_set_errhandler", &mpi.Comm_set_errhandler },
                 { "MPI_Get_processor_name", &mpi.Get_processor_name },
                 { "MPI_Allgather", &mpi.Allgather },
                 { "MPI_Bcast", &mpi.Bcast },
                 { "MPI_Isend", &mpi.Isend },
                 { "MPI_Irecv", &mpi.Irecv },
                 { "MPI_Testall", &mpi.Testall },
                 { "MPI_Iprobe", &mpi.Iprobe },
                 { "MPI_Get_count", &mpi.Get_count },
                 { "ompi_mpi_comm_world", &mpi.world },
                 { "ompi_mpi_byte", &mpi.byte },
                 { "ompi_request_null", &mpi.none },
                 { "ompi_mpi_errors_return", &mpi.returns } };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        if (!find(lib, want[i].name, want[i].to))
            return err_set(e, ST_USAGE, "libmpi.so.40 is no Open MPI 4 or 5: it has no %s",
                           want[i].name);
    return ST_OK;
}

struct where { /* of one process */
    char host[MPI_MAX_PROCESSOR_NAME + 1];
    cpu_set_t may;
    char name[40]; /* no other process has it */
};

/* All on this host or none on it: who cannot says so in the second round. */
static void open_doors(struct comm_mpi *m, const char *leader)
{
    char name[64], *all = mem_zalloc((size_t)m->n, 1);
    snprintf(name, sizeof name, "/orrery-%s", leader);
    bool leads = m->place.nth == 0, whole = true;
    if (leads) m->door = comm_door_open(name, 0, m->place.n, true);
    for (int round = 0; round < 2; round++) {
        char ok = m->door != NULL;
        mpi.Allgather(&ok, 1, mpi.byte, all, 1, mpi.byte, m->comm);
        if (round == 0 && !leads) m->door = comm_door_open(name, m->place.nth, m->place.n, false);
    }
    for (int i = 0; i < m->n; i++) whole = whole && (m->at_door[i] < 0 || all[i]);
    if (leads) comm_door_unlink(name);
    if (!whole) comm_door_close(m->door);
    if (!whole) m->door = NULL;
    free(all);
}

/* Ranks of this host and the processors they may use: launchers often give each its own. */
static bool find_place(struct comm_mpi *m)
{
    struct where mine = { 0 }, *all = mem_zalloc((size_t)m->n, sizeof *all);
    const struct where *leader = NULL;
    cpu_set_t together;
    int len = 0, on_one = 0;
    mpi.Get_processor_name(mine.host, &len);
    sched_getaffinity(0, sizeof mine.may, &mine.may);
    snprintf(mine.name, sizeof mine.name, "%ld-%llx", (long)getpid(),
             (unsigned long long)clock_mono_ns());
    mpi.Allgather(&mine, (int)sizeof mine, mpi.byte, all, (int)sizeof mine, mpi.byte, m->comm);
    CPU_ZERO(&together);
    for (int i = 0; i < m->n; i++) {
        m->at_door[i] = -1;
        if (strcmp(all[i].host, mine.host) != 0) continue;
        if (!leader) leader = &all[i];
        m->at_door[i] = on_one++;
        m->place.nth += i < m->rank;
        CPU_OR(&together, &together, &all[i].may);
    }
    m->place.n = on_one;
    m->place.cpus = CPU_COUNT(&together);
    m->place.bound = CPU_COUNT(&mine.may) < m->place.cpus;
    open_doors(m, leader->name);
    if (m->door) crowd_share(comm_door_board(m->door));
    free(all);
    return on_one == m->n;
}

static int watch(struct comm_mpi *m, bool one_host, struct err *e)
{
    char place[COMM_WATCH_PLACE] = "";
    if (m->n == 1) return ST_OK;
    if (m->rank == 0) m->watch = comm_watch_listen(m->n, one_host, place, e);
    mpi.Bcast(place, sizeof place, mpi.byte, 0, m->comm);
    if (m->rank == 0) return m->watch ? comm_watch_gather(m->watch, e) : ST_DEVICE;
    if (!place[0]) return err_set(e, ST_DEVICE, "rank 0 cannot listen");
    m->watch = comm_watch_join(m->rank, place, e);
    return m->watch ? ST_OK : ST_DEVICE;
}

struct comm_mpi *comm_mpi_open(struct err *e)
{
    int had;
    if (load(e) != ST_OK) return NULL;
    /* Sums of a decode step, 8 to 64 KiB, go through shared memory at once, without asking the other
     * side first: 2.4 in place of 8 us and 10 in place of 40. The names in Open MPI 4 and 5; what
     * the user has set stays. */
    setenv("OMPI_MCA_btl_vader_eager_limit", EAGER_BYTES, 0);
    setenv("OMPI_MCA_btl_sm_eager_limit", EAGER_BYTES, 0);
    /* Over TCP likewise, and with room in the kernel for all of it: a rank that has sent its hidden
     * states computes, and does not look at messages until it is done. */
    setenv("OMPI_MCA_btl_tcp_eager_limit", EAGER_BYTES, 0);
    setenv("OMPI_MCA_btl_tcp_sndbuf", SEND_ROOM_BYTES, 0);
    if (mpi.Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &had) != MPI_SUCCESS) {
        err_set(e, ST_DEVICE, "MPI does not start");
        return NULL;
    }
    struct comm_mpi *m = mem_zalloc(1, sizeof *m);
    mpi.Comm_rank(mpi.world, &m->rank);
    mpi.Comm_size(mpi.world, &m->n);
    mpi.Comm_dup(mpi.world, &m->comm);
    mpi.Comm_set_errhandler(m->comm, mpi.returns);
    m->out = mem_zalloc((size_t)m->n, sizeof *m->out);
    m->req = mem_zalloc((size_t)m->n, 2 * sizeof(MPI_Request));
    m->at_door = mem_zalloc((size_t)m->n, sizeof *m->at_door);
    m->status = mem_zalloc((size_t)m->n, 2 * sizeof *m->status);
    for (int i = 0; i < m->n; i++)
        for (int k = 0; k < COMM_SLOTS; k++) m->out[i].req[k] = mpi.none;
    m->world_group = (struct group){ m, 0, m->n, TAG_WORLD };
    m->world = (struct comm){ .ops = &ops, .group = &m->world_group, .rank = m->rank, .n = m->n };
    bool one_host = find_place(m);
    int st = m->n > COMM_MAX_RANKS
                 ? err_set(e, ST_USAGE, "%d ranks; at most %d", m->n, COMM_MAX_RANKS)
                 : watch(m, one_host, e);
    if (st == ST_OK) return m;
    comm_mpi_close(m);
    return NULL;
}

void comm_mpi_close(struct comm_mpi *m)
{
    if (!m) return;
    bool ended_well = !has_failed(m);
    for (int i = 0; i < m->n && ended_well; i++)
        ended_well = await(m, COMM_SLOTS, m->out[i].req, MPI_STATUSES_IGNORE, NULL) == ST_OK;
    comm_watch_close(m->watch, LINGER_MS);
    if (ended_well) mpi.Finalize(); /* it waits for all */
    for (int i = 0; i < m->n; i++)
        for (int k = 0; k < COMM_SLOTS; k++) free(m->out[i].data[k]);
    free(m->out);
    free(m->req);
    free(m->status);
    crowd_share(NULL);
    comm_door_close(m->door);
    free(m->at_door);
    free(m->sum);
    free(m);
}

int comm_mpi_rank(const struct comm_mpi *m)
{
    return m->rank;
}

int comm_mpi_size(const struct comm_mpi *m)
{
    return m->n;
}

const struct comm_mpi_place *comm_mpi_place(const struct comm_mpi *m)
{
    return &m->place;
}

void comm_mpi_stall(struct comm_mpi *m, int64_t ns)
{
    if (m->watch) comm_watch_stall(m->watch, ns);
}

int comm_mpi_check(struct comm_mpi *m, struct err *e)
{
    return has_failed(m) ? broken(m, e) : ST_OK;
}

bool comm_mpi_orphan(const struct comm_mpi *m)
{
    return m->watch && comm_watch_orphan(m->watch);
}

struct comm *comm_mpi_world(struct comm_mpi *m)
{
    return &m->world;
}

struct comm *comm_mpi_tp(struct comm_mpi *m)
{
    return &m->tp;
}

void comm_mpi_split(struct comm_mpi *m, int tp, size_t n_sum, int spin_max)
{
    m->tp_group = (struct group){ m, m->rank / tp * tp, tp, TAG_STAGE };
    m->tp = (struct comm){ .ops = &ops, .group = &m->tp_group, .rank = m->rank % tp, .n = tp };
    memset(m->world.count, 0, sizeof m->world.count);
    /* what comes over a network, the kernel's own threads bring: they want a turn */
    int most = m->door ? spin_max / LOOK_SPINS : NET_SPINS;
    m->spin_max = spin_max < most ? spin_max : most;
    sum_room(m, n_sum);
}

void comm_mpi_reserve(struct comm_mpi *m, int to, size_t bytes)
{
    struct outbox *o = &m->out[to];
    assert(bytes <= INT_MAX);
    if (bytes <= o->room) return;
    if (await(m, COMM_SLOTS, o->req, MPI_STATUSES_IGNORE, NULL) != ST_OK)
        return; /* broken anyway */
    o->room = bytes;
    for (int k = 0; k < COMM_SLOTS; k++) o->data[k] = mem_resize(o->data[k], bytes, 1);
}
