/* tests/comm_check.c - checks of a communicator from one rank.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/comm_check.h"

#include <sched.h>
#include <stdlib.h>

#include "base/arena.h"
#include "base/rng.h"

enum { ROUNDS = 40, MESSAGES = 200 };

static float value(int rank, int round, int i)
{
    struct rng r = rng_child(rng_stream(7, "comm"), (uint64_t)(rank * 1000 + round));
    return (float)(rng_unit(r, (uint64_t)i) - 0.5);
}

/* Sum over ranks lo..hi-1 the way the contract says: halves at the largest power of two. */
static float tree(int lo, int hi, int round, int i)
{
    int half = 1;
    if (hi - lo == 1) return value(lo, round, i);
    while (half * 2 < hi - lo) half *= 2;
    return tree(lo, lo + half, round, i) + tree(lo + half, hi, round, i);
}

long comm_check_sums(struct comm *world, int rounds, int longest, struct err *e)
{
    int64_t calls = world->count[COMM_ALLREDUCE].calls, bytes = world->count[COMM_ALLREDUCE].bytes;
    float *x = mem_zalloc((size_t)longest, sizeof *x);
    int64_t sent = 0;
    long wrong = 0;
    int st = ST_OK;
    for (int round = 0; round < rounds && st == ST_OK; round++) {
        int n = 1 + (int)((int64_t)round * (longest - 1) / (rounds > 1 ? rounds - 1 : 1));
        for (int i = 0; i < n; i++) x[i] = value(world->rank, round, i);
        st = comm_allreduce(world, x, (size_t)n, e);
        for (int i = 0; i < n; i++) wrong += x[i] != tree(0, world->n, round, i);
        sent += n * (int64_t)sizeof *x;
    }
    free(x);
    if (world->n > 1 && world->count[COMM_ALLREDUCE].calls != calls + rounds) wrong++;
    if (world->n > 1 && world->count[COMM_ALLREDUCE].bytes != bytes + sent) wrong++;
    return wrong + (st != ST_OK);
}

long comm_check_others(struct comm *world, struct comm *tp, struct err *e)
{
    long wrong = 0;
    int st = ST_OK, first = world->rank - tp->rank;
    for (int round = 0; round < ROUNDS && st == ST_OK; round++) {
        int mine[3] = { world->rank, round, 7 }, all[64][3], told[2] = { -1, -1 };
        if (world->rank == round % world->n) told[0] = told[1] = round;
        st = comm_allgather(tp, mine, sizeof mine, all, e);
        for (int i = 0; i < tp->n; i++) wrong += all[i][0] != first + i || all[i][1] != round;
        if (st == ST_OK) st = comm_broadcast(world, round % world->n, told, sizeof told, e);
        wrong += told[0] != round || told[1] != round;
        if (st == ST_OK) st = comm_barrier(world, e);
    }
    return wrong + (st != ST_OK);
}

/* A recv that does not wait, every other time. */
static int take(struct comm *c, int from, int *data, size_t *bytes, int nth, struct err *e)
{
    while (nth % 2 && !comm_there(c, from)) sched_yield();
    return comm_recv(c, from, data, bytes, e);
}

/* Rank 0 -> 1 -> ... -> n-1 -> 0. */
long comm_check_messages(struct comm *world, struct err *e)
{
    int to = (world->rank + 1) % world->n, from = (world->rank + world->n - 1) % world->n, st = 0;
    int data[COMM_CHECK_BYTES / sizeof(int)];
    long wrong = world->rank == 0 && comm_there(world, from);
    for (int k = 0; k < MESSAGES && st == ST_OK; k++) {
        size_t bytes = (size_t)(1 + k % 32) * sizeof *data, got = sizeof data;
        for (int i = 0; i < 32; i++) data[i] = k * 100 + i;
        if (world->rank == 0) st = comm_send(world, to, data, bytes, e);
        if (st != ST_OK || (world->rank == 0 && k < COMM_SLOTS)) continue;
        int nth = world->rank == 0 ? k - COMM_SLOTS : k;
        st = take(world, from, data, &got, nth, e);
        wrong += got != (size_t)(1 + nth % 32) * sizeof *data || data[0] != nth * 100;
        if (world->rank != 0 && st == ST_OK) st = comm_send(world, to, data, got, e);
    }
    for (int k = 0; k < COMM_SLOTS && world->rank == 0 && st == ST_OK; k++) {
        size_t got = sizeof data;
        st = take(world, from, data, &got, k, e);
        wrong += data[0] != (MESSAGES - COMM_SLOTS + k) * 100;
    }
    wrong += world->rank == 0 && comm_there(world, from);
    return wrong + (st != ST_OK);
}

long comm_check_misfits(struct comm *world, struct err *e)
{
    char data[65] = { 0 };
    size_t room = 8;
    if (world->rank == 0) {
        long wrong = comm_send(world, 1, data, 65, NULL) != ST_DEVICE;
        return wrong + (comm_send(world, 1, data, 64, e) != ST_OK);
    }
    return world->rank == 1 && comm_recv(world, 0, data, &room, NULL) != ST_DEVICE;
}
