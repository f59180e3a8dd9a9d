/* sim/evqueue.c - see evqueue.h. SPDX-License-Identifier: Apache-2.0 */
#include "sim/evqueue.h"

#include <assert.h>
#include <string.h>

static void reserve(struct evqueue *q, int32_t n)
{
    if (n <= q->cap) return;
    int32_t cap = q->cap ? q->cap : 16;
    while (cap < n) cap *= 2;
    struct ev *heap = arena_array(q->arena, (size_t)cap, sizeof *heap);
    int32_t *at = arena_array(q->arena, (size_t)cap, sizeof *at);
    memset(at, 0xff, (size_t)cap * sizeof *at);
    if (q->n) memcpy(heap, q->heap, (size_t)q->n * sizeof *heap);
    if (q->cap) memcpy(at, q->at, (size_t)q->cap * sizeof *at);
    q->heap = heap;
    q->at = at;
    q->cap = cap;
}

void evqueue_init(struct evqueue *q, int32_t n_owner, struct arena *a)
{
    memset(q, 0, sizeof *q);
    q->arena = a;
    reserve(q, n_owner < 1 ? 1 : n_owner);
}

static bool before(const struct ev *a, const struct ev *b)
{
    if (a->t_ns != b->t_ns) return a->t_ns < b->t_ns;
    if (a->tie != b->tie) return a->tie < b->tie;
    return a->owner < b->owner;
}

static void place(struct evqueue *q, int32_t i, struct ev e)
{
    q->heap[i] = e;
    q->at[e.owner] = i;
}

static void up(struct evqueue *q, int32_t i, struct ev e)
{
    while (i > 0 && before(&e, &q->heap[(i - 1) / 2])) {
        place(q, i, q->heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    place(q, i, e);
}

static void down(struct evqueue *q, int32_t i, struct ev e)
{
    for (;;) {
        int32_t k = 2 * i + 1;
        if (k >= q->n) break;
        if (k + 1 < q->n && before(&q->heap[k + 1], &q->heap[k])) k++;
        if (!before(&q->heap[k], &e)) break;
        place(q, i, q->heap[k]);
        i = k;
    }
    place(q, i, e);
}

void evqueue_set(struct evqueue *q, int32_t owner, int64_t t_ns, int64_t tie)
{
    struct ev e = { t_ns, tie, owner };
    reserve(q, owner + 1);
    int32_t i = q->at[owner];
    if (i < 0) {
        up(q, q->n++, e);
    } else if (before(&e, &q->heap[i])) {
        up(q, i, e);
    } else {
        down(q, i, e);
    }
}

void evqueue_remove(struct evqueue *q, int32_t owner)
{
    if (owner >= q->cap || q->at[owner] < 0) return;
    int32_t i = q->at[owner];
    struct ev last = q->heap[--q->n];
    q->at[owner] = -1;
    if (i == q->n) return;
    if (i > 0 && before(&last, &q->heap[(i - 1) / 2]))
        up(q, i, last);
    else
        down(q, i, last);
}

struct ev evqueue_pop(struct evqueue *q)
{
    assert(q->n > 0);
    struct ev e = q->heap[0];
    evqueue_remove(q, e.owner);
    return e;
}
