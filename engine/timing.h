/* engine/timing.h - where the time of a rank's latest steps went, for the monitor.
 *
 * A rank writes its own; rank 0 may read a step of another once that has begun the next one.
 * Communication is what the rank spent inside calls, waiting for the others included. Where calls
 * are only issued (comm.h, on_device), that is the time of issuing, and t0, t1 and recv are when the
 * rank has seen its device pass the marks before and behind the step: while it does nothing else it
 * looks all the time, so only what it issues meanwhile makes them late.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_TIMING_H
#define ENGINE_TIMING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/comm.h"

struct engine_rank_step {
    int64_t t0_ns, t1_ns; /* clock_mono_ns(): its input was there; it was done */
    int64_t recv_ns;      /* before t0, waiting for the stage in front */
    int64_t allreduce_ns; /* within the stage */
    int64_t p2p_ns;       /* to the next stage, logits and tokens */
    int64_t sample_ns;    /* logits to tokens, on the rank that samples */
    int32_t n_allreduce;
    bool operators; /* these two are known: what products, and attention, took */
    int64_t gemm_ns, attn_ns;
};

enum { TIMING_STEPS = 16 }; /* more than can be in flight */

struct timing {
    struct engine_rank_step ring[TIMING_STEPS], now;
    struct comm_count world_recv, world_send, allreduce; /* as they stood */
    _Atomic int64_t done;                                /* steps written */
};

void timing_start(struct timing *t, const struct comm *world, const struct comm *tp);
void timing_input(struct timing *t, const struct comm *world); /* the step's input is there */
/* What the calls since the start have taken. */
void timing_calls(struct timing *t, const struct comm *world, const struct comm *tp);
void timing_end(struct timing *t, const struct comm *world, const struct comm *tp);
/* The next step of a rank in another process, as it arrived. */
void timing_put(struct timing *t, const struct engine_rank_step *x);
/* Step k, counted from 0, if it is written and not yet overwritten. */
bool timing_read(const struct timing *t, int64_t k, struct engine_rank_step *out);

#endif
