/* engine/comm_nccl.c - ranks whose memory is a GPU's: connections, calls on the queue, failure.
 *
 * NCCL serialises all operations of one communicator, on whatever streams they are. So each
 * direction to a neighbouring stage is a communicator of its own: in one for both, a receive that
 * was posted early would hold up the send behind it for as long as there is nothing to receive.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/comm_nccl.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/arena.h"
#include "engine/bell.h"

enum {
    ROOMS = 2,
    SPINS = 20000, /* looks at the device before napping: some 20 ms */
    NAP_NS = 50000,
    CHECK_NS = 1000000,
    GRACE_MS = 2000,   /* for the watch to name the process behind NCCL's "remote error" */
    LEAVE_MS = 500,    /* for aborts that nothing holds up */
    RELEASE_MS = 10000 /* for all of them, when recordings have been freed */
};

/* What a rank takes part in. */
enum link { LINK_TP, LINK_IN, LINK_OUT, N_LINK };

struct lane { /* one direction of the pipe */
    void *stream;
    void *room[ROOMS];   /* device memory */
    size_t bytes[ROOMS]; /* in: of the message expected there */
    /* of a room: filled, emptied. in: by the side stream, by the queue; out: the other way round */
    void *full[ROOMS], *empty[ROOMS];
    uint64_t ended;  /* messages issued */
    uint64_t posted; /* in: those the side stream receives; some are not yet ended */
};

/* Aborts under way, each in a thread of its own: ncclCommAbort returns when neither a kernel nor a
 * recording holds the communicator any more. Recordings are freed later, by this rank's thread; and
 * the kernels of one communicator may wait on the queue behind those of the next to be aborted. */
struct leaver {
    struct leaving *of;
    int (*abort)(struct nccl_comm *c);
    struct nccl_comm *c;
};
struct leaving {
    pthread_mutex_t lock;
    pthread_cond_t moved;
    int busy;
    bool alone; /* who asked for them has gone: the last one frees this */
    struct leaver each[N_LINK];
};

struct comm_nccl {
    struct comm_nccl_opts o;
    void *queue, *end;      /* end: event of comm_nccl_wait */
    void *mark[COMM_MARKS]; /* events, in turn */
    int64_t n_mark, n_passed;
    int64_t since_ns, checked_ns; /* of the look for mark n_passed: its begin, 0: none; its last */
    int stage;
    struct nccl_comm *c[N_LINK]; /* NULL: none, or aborted */
    struct lane lane[N_LINK];    /* IN, OUT */
    struct comm tp, pipe;
    struct leaving *leaving; /* NULL: nothing has been aborted */
    bool failed;
    struct err why;
};

/* ---- failure */

static int64_t now(const struct comm_nccl *n)
{
    return n->o.clock.now_ns(n->o.clock.arg);
}

static void nap(const struct comm_nccl *n, int64_t ns)
{
    n->o.clock.nap(n->o.clock.arg, ns);
}

static void waits(struct comm_nccl *n)
{
    if (n->o.seen) atomic_store(&n->o.seen[n->o.rank], now(n));
}

static void calls(struct comm_nccl *n)
{
    if (n->o.seen) atomic_store(&n->o.seen[n->o.rank], -now(n));
}

static int broken(const struct comm_nccl *n, struct err *e)
{
    return err_set(e, ST_DEVICE, "%s", n->why.text);
}

static void free_leaving(struct leaving *l)
{
    pthread_cond_destroy(&l->moved);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

static void *leave(void *p)
{
    const struct leaver *one = p;
    struct leaving *l = one->of;
    (void)one->abort(one->c);
    pthread_mutex_lock(&l->lock);
    bool last = --l->busy == 0 && l->alone;
    pthread_cond_signal(&l->moved);
    pthread_mutex_unlock(&l->lock);
    if (last) free_leaving(l);
    return NULL;
}

/* Whether all aborts have returned. */
static bool have_left(struct leaving *l, int ms)
{
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    long ns = end.tv_nsec + ms % 1000 * 1000000L;
    end.tv_sec += ms / 1000 + ns / 1000000000;
    end.tv_nsec = ns % 1000000000;
    pthread_mutex_lock(&l->lock);
    for (int rc = 0; l->busy > 0 && rc != ETIMEDOUT;)
        rc = pthread_cond_timedwait(&l->moved, &l->lock, &end);
    bool all = l->busy == 0;
    pthread_mutex_unlock(&l->lock);
    return all;
}

static void begin_leave(struct leaving *l, int k, struct comm_nccl *n)
{
    pthread_t id;
    l->each[k] = (struct leaver){ .of = l, .abort = n->o.api->abort, .c = n->c[k] };
    pthread_mutex_lock(&l->lock);
    l->busy++;
    pthread_mutex_unlock(&l->lock);
    if (pthread_create(&id, NULL, leave, &l->each[k]) == 0)
        pthread_detach(id);
    else
        leave(&l->each[k]);
}

/* Kernels that wait for other ranks leave the device. */
static void abort_all(struct comm_nccl *n)
{
    bool any = false;
    n->failed = true;
    for (int k = 0; k < N_LINK; k++) any = any || n->c[k];
    if (!any) return;
    struct leaving *l = n->leaving = mem_zalloc(1, sizeof *l);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->moved, NULL);
    for (int k = 0; k < N_LINK; k++)
        if (n->c[k]) begin_leave(l, k, n);
    memset(n->c, 0, sizeof n->c);
    (void)have_left(l, LEAVE_MS);
}

/* What does not return is left behind. */
static void end_leave(struct comm_nccl *n)
{
    struct leaving *l = n->leaving;
    if (!l) return;
    (void)have_left(l, RELEASE_MS);
    pthread_mutex_lock(&l->lock);
    bool last = l->busy == 0;
    l->alone = !last;
    pthread_mutex_unlock(&l->lock);
    if (last) free_leaving(l);
    n->leaving = NULL;
}

static int give_up(struct comm_nccl *n, struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static int give_up(struct comm_nccl *n, struct err *e, const char *fmt, ...)
{
    char text[sizeof n->why.text];
    va_list va;
    va_start(va, fmt);
    vsnprintf(text, sizeof text, fmt, va);
    va_end(va);
    err_set(&n->why, ST_DEVICE, "%s", text);
    if (n->o.world) comm_fail(n->o.world, n->why.text);
    abort_all(n);
    return broken(n, e);
}

/* Another rank has failed: that is known already. */
static int others(struct comm_nccl *n, struct err *e)
{
    if (!n->o.alive || n->o.alive(n->o.alive_arg, &n->why) == ST_OK) return ST_OK;
    abort_all(n);
    return broken(n, e);
}

/* ---- checked calls */

static int nccl_bad(struct comm_nccl *n, struct nccl_comm *c, int r, const char *what, int line,
                    struct err *e)
{
    const char *last = n->o.api->last_error(c);
    char said[300];
    snprintf(said, sizeof said, "%s%s%s", n->o.api->error_string(r), last && last[0] ? "; " : "",
             last ? last : "");
    int64_t end = now(n) + GRACE_MS * INT64_C(1000000);
    while ((r == NCCL_API_REMOTE || r == NCCL_API_SYSTEM) && n->o.alive && now(n) < end) {
        int st = others(n, e);
        if (st != ST_OK) return st;
        nap(n, CHECK_NS);
    }
    return give_up(n, e, "%s:%d: rank %d: %s: %s", __FILE__, line, n->o.rank, what, said);
}

static int driver(struct comm_nccl *n, int r, const char *what, int line, struct err *e)
{
    const char *said = NULL;
    if (r == NCCL_API_CU_OK) return ST_OK;
    if (n->o.api->cu_error(r, &said) != NCCL_API_CU_OK || !said) said = "unknown error";
    return give_up(n, e, "%s:%d: rank %d: %s: %s (%d)", __FILE__, line, n->o.rank, what, said, r);
}
#define CU(what, call) driver(n, n->o.api->call, (what), __LINE__, e)

/* "rank 1" or "one of ranks 0 to 3", the others of a link. */
static const char *peers(const struct comm_nccl *n, enum link k, char text[48])
{
    int first = n->stage * n->o.tp, who = first;
    if (k == LINK_TP && n->o.tp > 2) {
        snprintf(text, 48, "one of ranks %d to %d", first, first + n->o.tp - 1);
        return text;
    }
    if (k == LINK_TP) who = first + 1 - (n->o.rank - first);
    if (k == LINK_IN) who = n->o.rank - n->o.tp;
    if (k == LINK_OUT) who = n->o.rank + n->o.tp;
    snprintf(text, 48, "rank %d", who);
    return text;
}

static bool is_peer(const struct comm_nccl *n, enum link k, int rank)
{
    if (k == LINK_TP) return rank / n->o.tp == n->stage;
    return rank == n->o.rank + (k == LINK_IN ? -n->o.tp : n->o.tp);
}

/* The rank behind a wait that was too long, or -1: one that fell silent while it waited; else, of
 * the link, the one that does not wait and whose last call is the oldest. */
static int culprit(const struct comm_nccl *n, enum link k, int64_t silent_ns, int64_t *last)
{
    int who = -1, n_rank = n->o.tp * n->o.pp;
    int64_t t = now(n);
    for (int r = 0; r < n_rank; r++) {
        int64_t s = atomic_load(&n->o.seen[r]);
        if (r == n->o.rank || s <= 0 || t - s < silent_ns || (who >= 0 && s >= *last)) continue;
        who = r;
        *last = s;
    }
    if (who >= 0) return who;
    for (int r = 0; r < n_rank; r++) {
        int64_t s = atomic_load(&n->o.seen[r]);
        if (r == n->o.rank || s > 0 || !is_peer(n, k, r) || (who >= 0 && s <= *last)) continue;
        who = r;
        *last = s;
    }
    return who;
}

static int late(struct comm_nccl *n, enum link k, int64_t waited_ns, struct err *e)
{
    char text[48];
    int64_t last = 0;
    int s = (int)(waited_ns / 1000000000), me = n->o.rank;
    const char *what = k == LINK_TP   ? "the ranks of its stage"
                       : k == LINK_IN ? "a message of the stage before"
                                      : "the next stage to take a message";
    if (k == N_LINK)
        return give_up(n, e, "rank %d has waited %d s for its own device, which hangs", me, s);
    if (!n->o.seen)
        return give_up(n, e, "rank %d has waited %d s for %s: %s hangs", me, s, what,
                       peers(n, k, text));
    int who = culprit(n, k, waited_ns / 2, &last);
    if (who < 0)
        return give_up(n, e,
                       "rank %d has waited %d s for %s, and all are there: a device or the way "
                       "between them hangs",
                       me, s, what);
    if (last > 0)
        return give_up(n, e, "rank %d hangs: it fell silent %d s ago within a step", who,
                       (int)((now(n) - last) / 1000000000));
    return give_up(n, e, "rank %d has not come to the step that rank %d has waited in for %d s",
                   who, me, s);
}

static void pause_turn(const struct comm_nccl *n, int turn)
{
    if (turn < SPINS)
        bell_relax();
    else
        nap(n, NAP_NS);
}

static int64_t wait_ns(const struct comm_nccl *n)
{
    return n->o.wait_s * INT64_C(1000000000);
}

/* Calls that do not block may still be at it, as when a way is used for the first time: their end
 * is that of issuing. */
static int settle(struct comm_nccl *n, enum link k, int r, const char *what, int line,
                  struct err *e)
{
    int64_t t0 = r == NCCL_API_IN_PROGRESS ? now(n) : 0;
    for (int turn = 0; r == NCCL_API_IN_PROGRESS; turn++) {
        int st = others(n, e);
        if (st != ST_OK) return st;
        if (now(n) - t0 > wait_ns(n)) return late(n, k, now(n) - t0, e);
        if (turn > 0) pause_turn(n, turn);
        int asked = n->o.api->async_error(n->c[k], &r);
        if (asked != NCCL_API_OK) r = asked;
    }
    return r == NCCL_API_OK ? ST_OK : nccl_bad(n, n->c[k], r, what, line, e);
}
#define NCCL(k, what, call) settle(n, (k), n->o.api->call, (what), __LINE__, e)

int comm_nccl_check(struct comm_nccl *n, struct err *e)
{
    if (n->failed) return broken(n, e);
    int st = others(n, e);
    for (int k = 0; k < N_LINK && st == ST_OK; k++) {
        int r = NCCL_API_OK;
        if (!n->c[k]) continue;
        int asked = n->o.api->async_error(n->c[k], &r);
        if (asked != NCCL_API_OK) r = asked;
        if (r != NCCL_API_OK && r != NCCL_API_IN_PROGRESS)
            st = nccl_bad(n, n->c[k], r, "ncclCommGetAsyncError", __LINE__, e);
    }
    return st;
}

static bool pending(const struct comm_nccl *n, void *event)
{
    return n->o.api->event_query(event) == NCCL_API_CU_NOT_READY;
}

/* What the queue waits for: the message it was last told to take, a room to send from (the last but
 * one send is still on its way, so that may be), its group; N_LINK: no other rank. */
static enum link stuck(const struct comm_nccl *n)
{
    const struct lane *in = &n->lane[LINK_IN], *out = &n->lane[LINK_OUT];
    if (in->ended > 0 && pending(n, in->full[(in->ended - 1) % ROOMS])) return LINK_IN;
    if (out->ended > ROOMS && pending(n, out->empty[(out->ended - ROOMS) % ROOMS])) return LINK_OUT;
    return n->o.tp > 1 ? LINK_TP : N_LINK;
}

/* To be asked each ms or so by who has waited so long for the queue. */
static int look_out(void *arg, int64_t waited_ns, struct err *e)
{
    struct comm_nccl *n = arg;
    int st = comm_nccl_check(n, e);
    waits(n);
    return st == ST_OK && waited_ns > wait_ns(n) ? late(n, stuck(n), waited_ns, e) : st;
}

int comm_nccl_wait(struct comm_nccl *n, struct err *e)
{
    if (n->failed) return broken(n, e);
    int64_t t0 = now(n), checked = t0;
    int st = CU("cuEventRecord", event_record(n->end, n->queue));
    for (int turn = 0; st == ST_OK; turn++) {
        int r = n->o.api->event_query(n->end);
        if (r == NCCL_API_CU_OK) break;
        if (r != NCCL_API_CU_NOT_READY) return driver(n, r, "cuEventQuery", __LINE__, e);
        pause_turn(n, turn);
        int64_t t = now(n);
        if (t - checked < CHECK_NS) continue;
        checked = t;
        st = look_out(n, t - t0, e);
    }
    calls(n);
    return st;
}

static int mark(struct comm *c, struct err *e)
{
    struct comm_nccl *n = c->group;
    if (n->failed) return broken(n, e);
    if (n->n_mark - n->n_passed == COMM_MARKS)
        return err_set(e, ST_DEVICE, "rank %d has %d marks on its queue and looks at none",
                       n->o.rank, COMM_MARKS);
    int st = CU("cuEventRecord", event_record(n->mark[n->n_mark % COMM_MARKS], n->queue));
    if (st == ST_OK) n->n_mark++;
    return st;
}

static int passed(struct comm *c, int64_t *count, struct err *e)
{
    struct comm_nccl *n = c->group;
    int64_t before = n->n_passed, t = now(n);
    if (n->failed) return broken(n, e);
    while (n->n_passed < n->n_mark) {
        int r = n->o.api->event_query(n->mark[n->n_passed % COMM_MARKS]);
        if (r == NCCL_API_CU_NOT_READY) break;
        if (r != NCCL_API_CU_OK) return driver(n, r, "cuEventQuery", __LINE__, e);
        n->n_passed++;
    }
    *count = n->n_passed;
    if (n->n_passed > before) n->since_ns = 0;
    if (n->n_passed == n->n_mark) {
        if (n->n_passed > before) calls(n); /* it waits no more */
        return ST_OK;
    }
    if (n->since_ns == 0) n->since_ns = n->checked_ns = t;
    if (t - n->checked_ns < CHECK_NS) return ST_OK;
    n->checked_ns = t;
    return look_out(n, t - n->since_ns, e);
}

/* ---- tp: on the queue */

static struct comm_nccl *enter(struct comm *c, int *st, struct err *e)
{
    struct comm_nccl *n = c->group;
    *st = n->failed ? broken(n, e) : ST_OK;
    calls(n);
    return n;
}

static int allreduce(struct comm *c, float *x, size_t count, struct err *e)
{
    int st;
    struct comm_nccl *n = enter(c, &st, e);
    if (st != ST_OK) return st;
    return NCCL(LINK_TP, "ncclAllReduce",
                all_reduce(x, x, count, NCCL_API_F32, NCCL_API_SUM, n->c[LINK_TP], n->queue));
}

static int allgather(struct comm *c, const void *mine, size_t bytes, void *all, struct err *e)
{
    int st;
    struct comm_nccl *n = enter(c, &st, e);
    if (st != ST_OK) return st;
    if (c->n == 1) return mine == all ? ST_OK : n->o.gpu->ops->put(n->o.gpu, all, mine, bytes, e);
    return NCCL(LINK_TP, "ncclAllGather",
                all_gather(mine, all, bytes, NCCL_API_UINT8, n->c[LINK_TP], n->queue));
}

static int broadcast(struct comm *c, int root, void *data, size_t bytes, struct err *e)
{
    int st;
    struct comm_nccl *n = enter(c, &st, e);
    if (st != ST_OK || c->n == 1) return st;
    return NCCL(LINK_TP, "ncclBroadcast",
                broadcast(data, data, bytes, NCCL_API_UINT8, root, n->c[LINK_TP], n->queue));
}

static int no_barrier(struct comm *c, struct err *e)
{
    (void)c;
    return err_set(e, ST_DEVICE, "ranks on devices meet by the communicator of the host");
}

static int no_send(struct comm *c, int to, const void *data, size_t bytes, struct err *e)
{
    (void)data;
    return err_set(e, ST_DEVICE, "rank %d cannot send %zu bytes to %d within its stage", c->rank,
                   bytes, to);
}

static int no_recv(struct comm *c, int from, void *data, size_t *bytes, struct err *e)
{
    (void)data;
    return err_set(e, ST_DEVICE, "rank %d cannot receive %zu bytes from %d within its stage",
                   c->rank, *bytes, from);
}

static void fail(struct comm *c, const char *why)
{
    struct comm_nccl *n = c->group;
    if (!n->failed) (void)give_up(n, NULL, "%s", why);
}

static int wait_queue(struct comm *c, struct err *e)
{
    return comm_nccl_wait(c->group, e);
}

static int no_expect(struct comm *c, int from, size_t bytes, struct err *e)
{
    return no_recv(c, from, NULL, &bytes, e);
}

static const struct comm_ops tp_ops = { "nccl",  allreduce, allgather, broadcast,  no_barrier,
                                        no_send, no_recv,   fail,      wait_queue, NULL,
                                        NULL,    no_expect, mark,      passed };

/* ---- pipe: on streams of its own */

static int send(struct comm *c, int to, const void *data, size_t bytes, struct err *e)
{
    int st;
    struct comm_nccl *n = enter(c, &st, e);
    struct lane *l = &n->lane[LINK_OUT];
    struct gpu *g = n->o.gpu;
    if (st != ST_OK) return st;
    if (!n->c[LINK_OUT] || to != c->rank + n->o.tp || bytes > n->o.message_bytes)
        return err_set(e, ST_DEVICE, "rank %d has a message of %zu bytes for rank %d, room is %zu",
                       c->rank, bytes, to, to == c->rank + n->o.tp ? n->o.message_bytes : 0);
    size_t k = l->ended % ROOMS;
    if (l->ended >= ROOMS) st = CU("cuStreamWaitEvent", stream_wait(n->queue, l->empty[k], 0));
    if (st == ST_OK) st = g->ops->put(g, l->room[k], data, bytes, e);
    if (st == ST_OK) st = CU("cuEventRecord", event_record(l->full[k], n->queue));
    if (st == ST_OK) st = CU("cuStreamWaitEvent", stream_wait(l->stream, l->full[k], 0));
    if (st == ST_OK)
        st = NCCL(LINK_OUT, "ncclSend",
                  send(l->room[k], bytes, NCCL_API_UINT8, 1, n->c[LINK_OUT], l->stream));
    if (st == ST_OK) st = CU("cuEventRecord", event_record(l->empty[k], l->stream));
    if (st == ST_OK) l->ended++;
    return st;
}

/* The side stream receives a message as soon as the queue has emptied its room: nothing else that
 * the queue is at holds it up. */
static int expect(struct comm *c, int from, size_t bytes, struct err *e)
{
    int st;
    struct comm_nccl *n = enter(c, &st, e);
    struct lane *l = &n->lane[LINK_IN];
    if (st != ST_OK) return st;
    if (!n->c[LINK_IN] || from != c->rank - n->o.tp)
        return err_set(e, ST_DEVICE, "rank %d cannot hear rank %d", c->rank, from);
    if (bytes > n->o.message_bytes || l->posted - l->ended == ROOMS)
        return err_set(e, ST_DEVICE,
                       "rank %d expects a message of %zu bytes beside %d others, room is %d of %zu",
                       c->rank, bytes, (int)(l->posted - l->ended), ROOMS, n->o.message_bytes);
    size_t k = l->posted % ROOMS;
    if (l->posted >= ROOMS) st = CU("cuStreamWaitEvent", stream_wait(l->stream, l->empty[k], 0));
    if (st == ST_OK)
        st = NCCL(LINK_IN, "ncclRecv",
                  recv(l->room[k], bytes, NCCL_API_UINT8, 0, n->c[LINK_IN], l->stream));
    if (st == ST_OK) st = CU("cuEventRecord", event_record(l->full[k], l->stream));
    l->bytes[k] = bytes;
    if (st == ST_OK) l->posted++;
    return st;
}

static int recv(struct comm *c, int from, void *data, size_t *bytes, struct err *e)
{
    struct comm_nccl *n = c->group;
    struct lane *l = &n->lane[LINK_IN];
    struct gpu *g = n->o.gpu;
    size_t k = l->ended % ROOMS;
    int st = l->posted == l->ended ? expect(c, from, *bytes, e) : ST_OK;
    if (n->failed) return broken(n, e);
    if (st != ST_OK) return st;
    if (l->bytes[k] != *bytes)
        return err_set(e, ST_DEVICE, "rank %d takes a message of %zu bytes, expected were %zu",
                       c->rank, *bytes, l->bytes[k]);
    calls(n);
    st = CU("cuStreamWaitEvent", stream_wait(n->queue, l->full[k], 0));
    if (st == ST_OK) st = g->ops->put(g, data, l->room[k], *bytes, e);
    if (st == ST_OK) st = CU("cuEventRecord", event_record(l->empty[k], n->queue));
    if (st == ST_OK) l->ended++;
    return st;
}

static int no_allreduce(struct comm *c, float *x, size_t n, struct err *e)
{
    (void)c, (void)x;
    return err_set(e, ST_DEVICE, "no sum of %zu over all stages", n);
}

static int no_allgather(struct comm *c, const void *mine, size_t bytes, void *all, struct err *e)
{
    (void)c, (void)mine, (void)all;
    return err_set(e, ST_DEVICE, "no gathering of %zu bytes over all stages", bytes);
}

static int no_broadcast(struct comm *c, int root, void *data, size_t bytes, struct err *e)
{
    (void)c, (void)data;
    return err_set(e, ST_DEVICE, "no broadcast of %zu bytes from %d to all stages", bytes, root);
}

static const struct comm_ops pipe_ops = { "nccl",     no_allreduce, no_allgather, no_broadcast,
                                          no_barrier, send,         recv,         fail,
                                          wait_queue, NULL,         NULL,         expect,
                                          mark,       passed };

/* ---- life */

int comm_nccl_n_id(int tp, int pp)
{
    return (tp > 1 ? pp : 0) + (pp - 1) * tp;
}

int comm_nccl_make_ids(const struct nccl_api *a, int tp, int pp, struct nccl_id *id, struct err *e)
{
    int st = nccl_api_check(a, NULL, e);
    for (int i = 0; i < comm_nccl_n_id(tp, pp) && st == ST_OK; i++) {
        int r = a->unique_id(&id[i]);
        if (r != NCCL_API_OK)
            st = err_set(e, ST_DEVICE, "%s:%d: rank 0: ncclGetUniqueId: %s (%s)", __FILE__,
                         __LINE__, a->error_string(r), a->last_error(NULL));
    }
    return st;
}

static int allow_sharing(const struct comm_nccl_opts *o, struct err *e)
{
    char host[32];
    int version, st = nccl_api_check(o->api, &version, e);
    if (st != ST_OK || !o->shares_device) return st;
    if (version >= NCCL_API_MULTI_RANK_VERSION) {
        setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1", 1);
        return ST_OK;
    }
    if (o->threads)
        return err_set(e, ST_USAGE,
                       "ranks that share a GPU must be processes (mpirun) with an NCCL before "
                       "2.30, which tells ranks apart by their host: this is %d.%d.%d",
                       version / 10000, version % 10000 / 100, version % 100);
    snprintf(host, sizeof host, "orrery-rank-%d", o->rank);
    setenv("NCCL_HOSTID", host, 1);
    return ST_OK;
}

/* The identifier and the part of this rank in a link. */
struct seat {
    int id, rank, n;
};
static struct seat seat_of(const struct comm_nccl *n, enum link k)
{
    int tp = n->o.tp, t = n->o.rank - n->stage * tp, first = tp > 1 ? n->o.pp : 0;
    if (k == LINK_TP) return (struct seat){ n->stage, t, tp };
    if (k == LINK_OUT) return (struct seat){ first + n->stage * tp + t, 0, 2 };
    return (struct seat){ first + (n->stage - 1) * tp + t, 1, 2 };
}

static bool has_link(const struct comm_nccl *n, enum link k)
{
    if (k == LINK_TP) return n->o.tp > 1;
    return k == LINK_IN ? n->stage > 0 : n->stage < n->o.pp - 1;
}

static int connect_link(struct comm_nccl *n, enum link k, struct err *e)
{
    struct nccl_config config = NCCL_API_CONFIG;
    struct seat s = seat_of(n, k);
    int r = n->o.api->init(&n->c[k], s.n, n->o.id[s.id], s.rank, &config);
    if (r == NCCL_API_OK || r == NCCL_API_IN_PROGRESS) return ST_OK;
    return nccl_bad(n, n->c[k], r, "ncclCommInitRankConfig", __LINE__, e);
}

static int new_event(struct comm_nccl *n, void **event, struct err *e)
{
    return CU("cuEventCreate", event_new(event, NCCL_API_CU_EVENT_NO_TIMING));
}

/* Before the kernels of compute, so that what the other side waits for leaves at once. */
static int open_lane(struct comm_nccl *n, struct lane *l, struct err *e)
{
    struct gpu *g = n->o.gpu;
    int least, most, st = CU("cuCtxGetStreamPriorityRange", stream_priorities(&least, &most));
    if (st == ST_OK)
        st = CU("cuStreamCreateWithPriority",
                stream_new(&l->stream, NCCL_API_CU_STREAM_NON_BLOCKING, most));
    for (int i = 0; i < ROOMS && st == ST_OK; i++) {
        st = g->ops->alloc(g, n->o.message_bytes, &l->room[i], e);
        if (st == ST_OK) st = new_event(n, &l->full[i], e);
        if (st == ST_OK) st = new_event(n, &l->empty[i], e);
    }
    return st;
}

struct comm_nccl *comm_nccl_start(const struct comm_nccl_opts *o, struct err *e)
{
    assert(o->tp >= 1 && o->pp >= 1 && o->rank >= 0 && o->rank < o->tp * o->pp);
    if (allow_sharing(o, e) != ST_OK) return NULL;
    struct comm_nccl *n = mem_zalloc(1, sizeof *n);
    n->o = *o;
    if (!n->o.clock.now_ns) n->o.clock = nccl_clock_real;
    if (n->o.wait_s == 0) n->o.wait_s = COMM_NCCL_WAIT_S;
    n->stage = o->rank / o->tp;
    n->queue = o->gpu->ops->queue(o->gpu);
    n->tp = (struct comm){
        .ops = &tp_ops, .group = n, .rank = o->rank % o->tp, .n = o->tp, .on_device = true
    };
    n->pipe = (struct comm){
        .ops = &pipe_ops, .group = n, .rank = o->rank, .n = o->tp * o->pp, .on_device = true
    };
    int st = new_event(n, &n->end, e);
    for (int i = 0; i < COMM_MARKS && st == ST_OK; i++) st = new_event(n, &n->mark[i], e);
    for (int k = 0; k < N_LINK && st == ST_OK; k++)
        if (k != LINK_TP && has_link(n, k)) st = open_lane(n, &n->lane[k], e);
    for (int k = 0; k < N_LINK && st == ST_OK; k++)
        if (has_link(n, k)) st = connect_link(n, k, e);
    calls(n);
    if (o->gpu->ops->watch) o->gpu->ops->watch(o->gpu, look_out, n);
    if (st == ST_OK) return n;
    comm_nccl_close(n);
    return NULL;
}

/* A rank that has started connects without its own doing: only who has not is missing. */
static int missing(struct comm_nccl *n, enum link k, struct err *e)
{
    char text[48];
    for (int r = 0; n->o.seen && r < n->o.tp * n->o.pp; r++)
        if (is_peer(n, k, r) && atomic_load(&n->o.seen[r]) == 0)
            return give_up(n, e, "rank %d has not come to the start of NCCL within %d s", r,
                           COMM_NCCL_ARRIVE_S);
    return give_up(n, e, "rank %d cannot connect to %s by NCCL within %d s", n->o.rank,
                   peers(n, k, text), COMM_NCCL_ARRIVE_S);
}

int comm_nccl_ready(struct comm_nccl *n, struct err *e)
{
    int64_t end = now(n) + COMM_NCCL_ARRIVE_S * INT64_C(1000000000);
    int st = n->failed ? broken(n, e) : ST_OK;
    for (int k = 0; k < N_LINK && st == ST_OK; k++) {
        int r = n->c[k] ? NCCL_API_IN_PROGRESS : NCCL_API_OK;
        while (r == NCCL_API_IN_PROGRESS && st == ST_OK) {
            st = comm_nccl_check(n, e);
            if (st != ST_OK) break;
            int asked = n->o.api->async_error(n->c[k], &r);
            if (asked != NCCL_API_OK) r = asked;
            if (r != NCCL_API_IN_PROGRESS) break;
            if (now(n) > end) return missing(n, k, e);
            nap(n, CHECK_NS);
        }
        if (st == ST_OK && r != NCCL_API_OK)
            st = nccl_bad(n, n->c[k], r, "ncclCommInitRankConfig", __LINE__, e);
    }
    return st;
}

static void free_lane(struct comm_nccl *n, struct lane *l)
{
    const struct nccl_api *a = n->o.api;
    for (int i = 0; i < ROOMS; i++) {
        if (l->full[i]) (void)a->event_free(l->full[i]);
        if (l->empty[i]) (void)a->event_free(l->empty[i]);
    }
    if (l->stream) (void)a->stream_free(l->stream);
}

/* All together, since a rank's end waits for that of its peers. */
static void disconnect(struct comm_nccl *n)
{
    const struct nccl_api *a = n->o.api;
    struct err unused = { 0 };
    int r[N_LINK], st = ST_OK;
    for (int k = 0; k < N_LINK; k++) r[k] = n->c[k] ? a->finalize(n->c[k]) : NCCL_API_OK;
    for (int k = 0; k < N_LINK && st == ST_OK; k++)
        if (n->c[k]) st = settle(n, k, r[k], "ncclCommFinalize", __LINE__, &unused);
    for (int k = 0; k < N_LINK; k++)
        if (n->c[k]) (void)a->destroy(n->c[k]);
}

void comm_nccl_close(struct comm_nccl *n)
{
    if (!n) return;
    if (n->o.gpu->ops->watch) n->o.gpu->ops->watch(n->o.gpu, NULL, NULL);
    if (!n->failed) (void)others(n, NULL); /* then there is nothing to end in good order */
    if (n->failed)
        abort_all(n);
    else
        disconnect(n);
    end_leave(n);
    for (int k = 0; k < N_LINK; k++) free_lane(n, &n->lane[k]);
    for (int i = 0; i < COMM_MARKS; i++)
        if (n->mark[i]) (void)n->o.api->event_free(n->mark[i]);
    if (n->end) (void)n->o.api->event_free(n->end);
    free(n);
}

struct comm *comm_nccl_tp(struct comm_nccl *n)
{
    return &n->tp;
}

struct comm *comm_nccl_pipe(struct comm_nccl *n)
{
    return &n->pipe;
}
