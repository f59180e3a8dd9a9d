/* engine/exchange.c - see exchange.h. SPDX-License-Identifier: Apache-2.0 */
#include "engine/exchange.h"

#include <assert.h>

/* Whether calls of c on the backend's memory go through memory of the host. */
static bool staged(const struct exchange *x, const struct comm *c)
{
    return x->b->ops->host && !c->on_device;
}

int exchange_open(struct exchange *x, size_t bytes, struct err *e)
{
    bool sums = x->tp->n > 1 && staged(x, x->tp), messages = x->pipe && staged(x, x->pipe);
    x->bytes = bytes;
    if (!sums && !messages) return ST_OK;
    x->host = x->b->ops->host(x->b, bytes, e);
    return x->host ? ST_OK : ST_DEVICE;
}

int exchange_sync(struct exchange *x, struct err *e)
{
    int st = ST_OK;
    if (x->tp->on_device)
        st = comm_wait(x->tp, e);
    else if (x->pipe && x->pipe->on_device)
        st = comm_wait(x->pipe, e);
    x->busy = false;
    return st == ST_OK ? backend_sync(x->b, e) : st;
}

/* Work that has failed must not make others wait for its sums. */
static int healthy(const struct exchange *x, struct err *e)
{
    return x->b->ops->check ? x->b->ops->check(x->b, e) : ST_OK;
}

int exchange_sum(struct exchange *x, float *p, size_t n, struct err *e)
{
    size_t bytes = n * sizeof *p;
    if (x->tp->on_device || (x->tp->n == 1 && x->b->ops->host)) {
        int st = healthy(x, e);
        return st == ST_OK ? comm_allreduce(x->tp, p, n, e) : st;
    }
    if (!x->host) {
        x->b->ops->sync(x->b);
        return comm_allreduce(x->tp, p, n, e);
    }
    assert(bytes <= x->bytes);
    x->b->ops->copy(x->b, x->host, p, bytes);
    int st = exchange_sync(x, e);
    if (st == ST_OK) st = comm_allreduce(x->tp, x->host, n, e);
    if (st != ST_OK) return st;
    x->b->ops->copy(x->b, p, x->host, bytes);
    x->busy = true;
    return ST_OK;
}

int exchange_gather(struct exchange *x, const void *mine, size_t bytes, void *all, struct err *e)
{
    assert(x->tp->on_device);
    int st = healthy(x, e);
    return st == ST_OK ? comm_allgather(x->tp, mine, bytes, all, e) : st;
}

int exchange_send(struct exchange *x, int to, const void *p, size_t bytes, struct err *e)
{
    if (x->pipe->on_device) {
        int st = healthy(x, e);
        return st == ST_OK ? comm_send(x->pipe, to, p, bytes, e) : st;
    }
    if (x->host) {
        assert(bytes <= x->bytes);
        x->b->ops->copy(x->b, x->host, p, bytes);
        p = x->host;
    }
    int st = exchange_sync(x, e);
    return st == ST_OK ? comm_send(x->pipe, to, p, bytes, e) : st;
}

int exchange_recv(struct exchange *x, int from, void *p, size_t bytes, struct err *e)
{
    size_t got = bytes;
    if (!x->host || x->pipe->on_device) return comm_recv(x->pipe, from, p, &got, e);
    int st = x->busy ? exchange_sync(x, e) : ST_OK;
    if (st == ST_OK) st = comm_recv(x->pipe, from, x->host, &got, e);
    if (st != ST_OK) return st;
    x->b->ops->copy(x->b, p, x->host, bytes);
    x->busy = true;
    return ST_OK;
}

int exchange_expect(struct exchange *x, int from, size_t bytes, struct err *e)
{
    if (!x->pipe->on_device) return ST_OK;
    int st = healthy(x, e);
    return st == ST_OK ? comm_expect(x->pipe, from, bytes, e) : st;
}
