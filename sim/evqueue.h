/* sim/evqueue.h - pending events, at most one per owner, in a written order.
 *
 * Owners are numbered 0..n-1 (a replica, a slot of a waiting arrival). Order: time, then `tie`,
 * then owner; so simultaneous events have one order, whatever the order they were pushed in.
 * Indexed binary heap: set, remove and pop cost O(log n). SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_EVQUEUE_H
#define SIM_EVQUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"

struct ev {
    int64_t t_ns;
    int64_t tie;
    int32_t owner;
};
struct evqueue {
    struct ev *heap; /* [n] */
    int32_t *at;     /* [cap] place of each owner in the heap, -1: none */
    int32_t n, cap;
    struct arena *arena;
};

void evqueue_init(struct evqueue *q, int32_t n_owner, struct arena *a); /* grows by itself later */
void evqueue_set(struct evqueue *q, int32_t owner, int64_t t_ns,
                 int64_t tie);                         /* inserts or moves */
void evqueue_remove(struct evqueue *q, int32_t owner); /* nothing if absent */
static inline bool evqueue_empty(const struct evqueue *q)
{
    return q->n == 0;
}
static inline const struct ev *evqueue_top(const struct evqueue *q)
{
    return &q->heap[0];
}
struct ev evqueue_pop(struct evqueue *q); /* not empty */

#endif
