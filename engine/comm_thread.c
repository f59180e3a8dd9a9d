/* engine/comm_thread.c - ranks are threads: they read and write each other's buffers.
 *
 * All-reduce: publish the pointer, meet, add one slice of the vector over all ranks and write the sum
 * into everybody's copy, meet again. Each rank moves the vector once in and once out whatever its
 * size; no copy, no second buffer. SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "engine/bell.h"
#include "engine/comm.h"

enum { LINE_BYTES = 64, LINE_FLOATS = 16, CHUNK_FLOATS = 256 };

struct seat { /* one rank in one group; written by that rank only */
    _Alignas(LINE_BYTES) bell_count met;
    void *data;     /* what it brought to the present meeting */
    uint64_t calls; /* meetings it has been to */
};

struct group {
    struct comm_thread *all;
    int first, n;      /* world ranks [first, first + n) */
    struct seat *seat; /* [n] */
};

struct slot {
    size_t bytes;
    unsigned char *data;
};

struct channel { /* one direction between two ranks */
    _Alignas(LINE_BYTES) bell_count sent;
    _Alignas(LINE_BYTES) bell_count taken;
    size_t room;
    struct slot slot[COMM_SLOTS];
};

struct comm_thread {
    int tp, n;
    struct bell *bell;          /* [n] by world rank */
    struct group *group;        /* [1 + pp]: the world, then the stages */
    struct comm *world, *stage; /* [n] */
    struct channel **channel;   /* [n][n], NULL where nothing was reserved */
    pthread_mutex_t lock;       /* of why */
    atomic_bool failed;
    int who;
    char why[400];
};

static int broken(struct comm_thread *t, struct err *e)
{
    pthread_mutex_lock(&t->lock);
    int st = err_set(e, ST_DEVICE, "rank %d: %s", t->who, t->why);
    pthread_mutex_unlock(&t->lock);
    return st;
}

static int await(struct group *g, int rank, const bell_count *c, uint64_t value, struct err *e)
{
    struct comm_thread *t = g->all;
    if (bell_wait(&t->bell[g->first + rank], c, value, &t->failed)) return ST_OK;
    return broken(t, e);
}

/* Everybody has come; what they wrote before is visible. */
static int meet(struct comm *c, struct err *e)
{
    struct group *g = c->group;
    struct seat *mine = &g->seat[c->rank];
    if (atomic_load_explicit(&g->all->failed, memory_order_relaxed)) return broken(g->all, e);
    bell_advance(&mine->met, ++mine->calls);
    for (int i = 0; i < g->n; i++)
        if (i != c->rank) bell_ring(&g->all->bell[g->first + i]);
    for (int i = 0; i < g->n; i++) {
        int st = i == c->rank ? ST_OK : await(g, c->rank, &g->seat[i].met, mine->calls, e);
        if (st != ST_OK) return st;
    }
    return ST_OK;
}

static int barrier(struct comm *c, struct err *e)
{
    return meet(c, e);
}

static int allreduce(struct comm *c, float *x, size_t n, struct err *e)
{
    struct group *g = c->group;
    float sum[CHUNK_FLOATS];
    const float *in[COMM_MAX_RANKS];
    g->seat[c->rank].data = x;
    int st = meet(c, e);
    if (st != ST_OK) return st;
    size_t lines = (n + LINE_FLOATS - 1) / LINE_FLOATS, p = (size_t)g->n, r = (size_t)c->rank;
    size_t at = lines * r / p * LINE_FLOATS, end = lines * (r + 1) / p * LINE_FLOATS;
    for (end = end < n ? end : n; at < end; at += CHUNK_FLOATS) {
        size_t m = end - at < CHUNK_FLOATS ? end - at : CHUNK_FLOATS;
        for (int i = 0; i < g->n; i++) in[i] = (const float *)g->seat[i].data + at;
        comm_tree(in, 0, g->n, m, sum);
        for (int i = 0; i < g->n; i++) memcpy((float *)g->seat[i].data + at, sum, m * sizeof *sum);
    }
    return meet(c, e);
}

static int allgather(struct comm *c, const void *mine, size_t bytes, void *all, struct err *e)
{
    struct group *g = c->group;
    g->seat[c->rank].data = (void *)(uintptr_t)mine; /* only read by the others */
    int st = meet(c, e);
    if (st != ST_OK) return st;
    for (int i = 0; i < g->n; i++)
        memcpy((unsigned char *)all + (size_t)i * bytes, g->seat[i].data, bytes);
    return meet(c, e);
}

static int broadcast(struct comm *c, int root, void *data, size_t bytes, struct err *e)
{
    struct group *g = c->group;
    g->seat[c->rank].data = data;
    int st = meet(c, e);
    if (st != ST_OK) return st;
    if (c->rank != root) memcpy(data, g->seat[root].data, bytes);
    return meet(c, e);
}

/* ---- messages */

static struct channel *channel_of(const struct comm_thread *t, int from, int to)
{
    assert(from >= 0 && from < t->n && to >= 0 && to < t->n);
    return t->channel[from * t->n + to];
}

static int send(struct comm *c, int to, const void *data, size_t bytes, struct err *e)
{
    struct group *g = c->group;
    struct comm_thread *t = g->all;
    struct channel *ch = channel_of(t, g->first + c->rank, g->first + to);
    if (!ch || bytes > ch->room)
        return err_set(e, ST_DEVICE, "rank %d has a message of %zu bytes for rank %d, room is %zu",
                       c->rank, bytes, to, ch ? ch->room : 0);
    uint64_t n = atomic_load_explicit(&ch->sent, memory_order_relaxed);
    if (n >= COMM_SLOTS) {
        int st = await(g, c->rank, &ch->taken, n - COMM_SLOTS + 1, e);
        if (st != ST_OK) return st;
    }
    struct slot *s = &ch->slot[n % COMM_SLOTS];
    s->bytes = bytes;
    memcpy(s->data, data, bytes);
    bell_advance(&ch->sent, n + 1);
    bell_ring(&t->bell[g->first + to]);
    return ST_OK;
}

static int recv(struct comm *c, int from, void *data, size_t *bytes, struct err *e)
{
    struct group *g = c->group;
    struct comm_thread *t = g->all;
    struct channel *ch = channel_of(t, g->first + from, g->first + c->rank);
    if (!ch) return err_set(e, ST_DEVICE, "rank %d cannot hear rank %d", c->rank, from);
    uint64_t n = atomic_load_explicit(&ch->taken, memory_order_relaxed);
    int st = await(g, c->rank, &ch->sent, n + 1, e);
    if (st != ST_OK) return st;
    struct slot *s = &ch->slot[n % COMM_SLOTS];
    if (s->bytes > *bytes)
        return err_set(e, ST_DEVICE, "rank %d has room for %zu bytes, rank %d sends %zu", c->rank,
                       *bytes, from, s->bytes);
    memcpy(data, s->data, s->bytes);
    *bytes = s->bytes;
    bell_advance(&ch->taken, n + 1);
    bell_ring(&t->bell[g->first + from]);
    return ST_OK;
}

static void fail(struct comm *c, const char *why)
{
    struct group *g = c->group;
    struct comm_thread *t = g->all;
    pthread_mutex_lock(&t->lock);
    if (!atomic_load(&t->failed)) {
        t->who = g->first + c->rank;
        snprintf(t->why, sizeof t->why, "%s", why);
    }
    atomic_store(&t->failed, true);
    pthread_mutex_unlock(&t->lock);
    for (int i = 0; i < t->n; i++) bell_ring(&t->bell[i]);
}

static int check(struct comm *c, struct err *e)
{
    return comm_thread_check(((const struct group *)c->group)->all, e);
}

static bool there(struct comm *c, int from)
{
    struct group *g = c->group;
    const struct channel *ch = channel_of(g->all, g->first + from, g->first + c->rank);
    if (!ch || atomic_load(&g->all->failed)) return true; /* an error is */
    return atomic_load(&ch->sent) > atomic_load_explicit(&ch->taken, memory_order_relaxed);
}

static const struct comm_ops ops = { .name = "thread",
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

static void group_init(struct comm_thread *t, struct group *g, int first, int n)
{
    g->all = t;
    g->first = first;
    g->n = n;
    g->seat = aligned_alloc(LINE_BYTES, (size_t)n * sizeof *g->seat);
    if (!g->seat) abort();
    memset(g->seat, 0, (size_t)n * sizeof *g->seat);
}

struct comm_thread *comm_thread_open(int tp, int pp, int spin_max, struct err *e)
{
    if (tp < 1 || pp < 1 || (int64_t)tp * pp > COMM_MAX_RANKS) {
        err_set(e, ST_USAGE, "%d x %d ranks; at least 1, at most %d in all", tp, pp,
                COMM_MAX_RANKS);
        return NULL;
    }
    struct comm_thread *t = mem_zalloc(1, sizeof *t);
    size_t n = (size_t)tp * (size_t)pp;
    t->tp = tp;
    t->n = (int)n;
    t->bell = mem_zalloc(n, sizeof *t->bell);
    t->group = mem_zalloc((size_t)pp + 1, sizeof *t->group);
    t->world = mem_zalloc(n, sizeof *t->world);
    t->stage = mem_zalloc(n, sizeof *t->stage);
    t->channel = mem_zalloc(n * n, sizeof(struct channel *));
    pthread_mutex_init(&t->lock, NULL);
    group_init(t, &t->group[0], 0, t->n);
    for (int s = 0; s < pp; s++) group_init(t, &t->group[1 + s], s * tp, tp);
    for (int r = 0; r < t->n; r++) {
        bell_init(&t->bell[r], spin_max);
        t->world[r] = (struct comm){ .ops = &ops, .group = &t->group[0], .rank = r, .n = t->n };
        t->stage[r] =
            (struct comm){ .ops = &ops, .group = &t->group[1 + r / tp], .rank = r % tp, .n = tp };
    }
    return t;
}

void comm_thread_close(struct comm_thread *t)
{
    if (!t) return;
    for (int r = 0; r < t->n; r++) bell_release(&t->bell[r]);
    for (int g = 0; g < 1 + t->n / t->tp; g++) free(t->group[g].seat);
    for (int i = 0; i < t->n * t->n; i++) {
        if (t->channel[i])
            for (int k = 0; k < COMM_SLOTS; k++) free(t->channel[i]->slot[k].data);
        free(t->channel[i]);
    }
    pthread_mutex_destroy(&t->lock);
    free(t->channel);
    free(t->stage);
    free(t->world);
    free(t->group);
    free(t->bell);
    free(t);
}

int comm_thread_check(struct comm_thread *t, struct err *e)
{
    return atomic_load(&t->failed) ? broken(t, e) : ST_OK;
}

struct comm *comm_thread_world(struct comm_thread *t, int rank)
{
    return &t->world[rank];
}

struct comm *comm_thread_tp(struct comm_thread *t, int rank)
{
    return &t->stage[rank];
}

void comm_thread_reserve(struct comm_thread *t, int from, int to, size_t bytes)
{
    struct channel **at = &t->channel[from * t->n + to];
    if (!*at) {
        *at = aligned_alloc(LINE_BYTES, sizeof **at);
        if (!*at) abort();
        memset(*at, 0, sizeof **at);
    }
    if (bytes <= (*at)->room) return;
    (*at)->room = bytes;
    for (int k = 0; k < COMM_SLOTS; k++)
        (*at)->slot[k].data = mem_resize((*at)->slot[k].data, bytes, 1);
}
