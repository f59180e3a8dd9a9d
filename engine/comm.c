/* engine/comm.c - calls of a communicator, counted and timed.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/comm.h"

#include <string.h>

#include "base/progress.h"

enum { CHUNK_FLOATS = 256 }; /* of a partial sum: stays in the first-level cache */

static int counted(struct comm *c, enum comm_call call, size_t bytes, int64_t t0_ns, int st)
{
    struct comm_count *k = &c->count[call];
    int64_t ns = clock_mono_ns() - t0_ns;
    k->calls++;
    k->bytes += (int64_t)bytes;
    k->ns += ns;
    if (ns > k->max_ns) k->max_ns = ns;
    return st;
}

int comm_allreduce(struct comm *c, float *x, size_t n, struct err *e)
{
    if (c->n == 1) return ST_OK;
    int64_t t0 = clock_mono_ns();
    return counted(c, COMM_ALLREDUCE, n * sizeof *x, t0, c->ops->allreduce(c, x, n, e));
}

int comm_allgather(struct comm *c, const void *mine, size_t bytes, void *all, struct err *e)
{
    int64_t t0 = clock_mono_ns();
    return counted(c, COMM_ALLGATHER, bytes * ((size_t)c->n - 1), t0,
                   c->ops->allgather(c, mine, bytes, all, e));
}

int comm_broadcast(struct comm *c, int root, void *data, size_t bytes, struct err *e)
{
    int64_t t0 = clock_mono_ns();
    return counted(c, COMM_BROADCAST, bytes, t0, c->ops->broadcast(c, root, data, bytes, e));
}

int comm_barrier(struct comm *c, struct err *e)
{
    int64_t t0 = clock_mono_ns();
    return counted(c, COMM_BARRIER, 0, t0, c->ops->barrier(c, e));
}

int comm_send(struct comm *c, int to, const void *data, size_t bytes, struct err *e)
{
    int64_t t0 = clock_mono_ns();
    return counted(c, COMM_SEND, bytes, t0, c->ops->send(c, to, data, bytes, e));
}

int comm_recv(struct comm *c, int from, void *data, size_t *bytes, struct err *e)
{
    int64_t t0 = clock_mono_ns();
    int st = c->ops->recv(c, from, data, bytes, e);
    return counted(c, COMM_RECV, st == ST_OK ? *bytes : 0, t0, st);
}

int comm_wait(struct comm *c, struct err *e)
{
    return c->ops->wait ? c->ops->wait(c, e) : ST_OK;
}

bool comm_there(struct comm *c, int from)
{
    return c->ops->there(c, from);
}

int comm_expect(struct comm *c, int from, size_t bytes, struct err *e)
{
    return c->ops->expect(c, from, bytes, e);
}

int comm_mark(struct comm *c, struct err *e)
{
    return c->ops->mark(c, e);
}

int comm_passed(struct comm *c, int64_t *n, struct err *e)
{
    return c->ops->passed(c, n, e);
}

int comm_check(struct comm *c, struct err *e)
{
    return c->ops->check ? c->ops->check(c, e) : ST_OK;
}

void comm_fail(struct comm *c, const char *why)
{
    c->ops->fail(c, why);
}

static void tree(const float *const *in, int lo, int hi, size_t at, size_t n, float *out)
{
    float right[CHUNK_FLOATS];
    if (hi - lo == 1) {
        memcpy(out, in[lo] + at, n * sizeof *out);
        return;
    }
    int half = 1;
    while (half * 2 < hi - lo) half *= 2;
    tree(in, lo, lo + half, at, n, out);
    tree(in, lo + half, hi, at, n, right);
    for (size_t i = 0; i < n; i++) out[i] += right[i];
}

void comm_tree(const float *const *in, int lo, int hi, size_t n, float *out)
{
    for (size_t at = 0; at < n; at += CHUNK_FLOATS)
        tree(in, lo, hi, at, n - at < CHUNK_FLOATS ? n - at : CHUNK_FLOATS, out + at);
}
