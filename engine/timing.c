/* engine/timing.c - see timing.h. SPDX-License-Identifier: Apache-2.0 */
#include "engine/timing.h"

#include <string.h>

#include "base/progress.h"

void timing_start(struct timing *t, const struct comm *world, const struct comm *tp)
{
    memset(&t->now, 0, sizeof t->now);
    t->world_recv = world->count[COMM_RECV];
    t->world_send = world->count[COMM_SEND];
    t->allreduce = tp->count[COMM_ALLREDUCE];
    t->now.t0_ns = clock_mono_ns();
}

void timing_input(struct timing *t, const struct comm *world)
{
    t->now.t0_ns = clock_mono_ns();
    t->now.recv_ns = world->count[COMM_RECV].ns - t->world_recv.ns;
    t->world_recv = world->count[COMM_RECV];
}

void timing_calls(struct timing *t, const struct comm *world, const struct comm *tp)
{
    struct engine_rank_step *x = &t->now;
    const struct comm_count *a = &tp->count[COMM_ALLREDUCE];
    x->allreduce_ns = a->ns - t->allreduce.ns;
    x->n_allreduce = (int32_t)(a->calls - t->allreduce.calls);
    x->p2p_ns = world->count[COMM_SEND].ns - t->world_send.ns + world->count[COMM_RECV].ns -
                t->world_recv.ns;
}

void timing_end(struct timing *t, const struct comm *world, const struct comm *tp)
{
    t->now.t1_ns = clock_mono_ns();
    timing_calls(t, world, tp);
    timing_put(t, &t->now);
}

void timing_put(struct timing *t, const struct engine_rank_step *x)
{
    int64_t k = atomic_load_explicit(&t->done, memory_order_relaxed);
    t->ring[k % TIMING_STEPS] = *x;
    atomic_store_explicit(&t->done, k + 1, memory_order_release);
}

bool timing_read(const struct timing *t, int64_t k, struct engine_rank_step *out)
{
    int64_t done = atomic_load_explicit(&t->done, memory_order_acquire);
    if (k < 0 || k >= done || done - k > TIMING_STEPS) return false;
    *out = t->ring[k % TIMING_STEPS];
    return true;
}
