/* tests/sched_scen.h - random scenarios for one scheduler, small enough for everything to go wrong.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SCHED_SCEN_H
#define TESTS_SCHED_SCEN_H

#include <string.h>

#include "base/rng.h"
#include "engine/sched.h"

enum { N_REQ = 24, MAX_DEPTH = 4 };

static uint64_t draw_at;
static int64_t draw(struct rng r, int64_t n)
{
    return (int64_t)rng_below(r, draw_at++, (uint64_t)n);
}

struct scen {
    struct sched_opts o;
    int depth, n;
    int64_t n_block, max_ctx;
    bool late; /* the next batch is not always launched as soon as it could be */
    struct trace_req req[N_REQ];
    struct trace_seg seg[N_REQ][2];
    int64_t arrive_ns[N_REQ];
};

static void scen_lengths(struct scen *c, struct rng r)
{
    int64_t longest = 1 + draw(r, 60), most_out = 1 + draw(r, 30),
            gap = draw(r, 2) ? 0 : draw(r, 60000), t = 0;
    for (int i = 0; i < c->n; i++) {
        struct trace_req *q = &c->req[i];
        *q = (struct trace_req){ .id = i,
                                 .seg = c->seg[i],
                                 .n_in = (int32_t)(1 + draw(r, longest)),
                                 .n_out = (int32_t)(1 + draw(r, most_out)) };
        int64_t group = draw(r, 3), first = 4 + 9 * group, second = first + 8 + 8 * draw(r, 2);
        c->seg[i][0] = (struct trace_seg){ .end_tok = first, .key = 100 + (uint64_t)group };
        c->seg[i][1] = (struct trace_seg){ .end_tok = second,
                                           .key = mix_pair((uint64_t)group, (uint64_t)second) };
        int64_t total = q->n_in + q->n_out;
        q->n_seg = total < first ? 0 : total < second ? 1 : 2;
        t += gap ? draw(r, 2 * gap) : 0;
        c->arrive_ns[i] = t;
    }
}

/* policy -1: any. The same seed gives the same scenario. */
static void scen_make(struct scen *c, uint64_t seed, int policy)
{
    static const int64_t blocks[] = { 1, 4, 8, 16 };
    struct rng r = rng_stream(seed, "sched");
    memset(c, 0, sizeof *c);
    draw_at = 0;
    c->n = 1 + (int)draw(r, N_REQ);
    c->depth = draw(r, 2) ? 1 : 1 + (int)draw(r, MAX_DEPTH);
    scen_lengths(c, r);
    struct sched_opts *o = &c->o;
    o->policy = policy >= 0 ? policy : (int)draw(r, 5);
    o->max_seqs = 1 + draw(r, 12);
    o->max_batch_tok = o->max_seqs + draw(r, 90);
    o->chunk_tok = 2 + draw(r, 40);
    o->block_tok = blocks[draw(r, 4)];
    o->prefix_cache = (int)draw(r, 3);
    o->reserve_full = draw(r, 3) > 0;
    o->reserve_out = (int)draw(r, 3);
    o->grouping = (int)draw(r, 3);
    c->max_ctx = draw(r, 2) ? 0 : 100;
    int64_t most = 1;
    for (int i = 0; i < c->n; i++) {
        int64_t need = (c->req[i].n_in + c->req[i].n_out + o->block_tok - 1) / o->block_tok;
        if (need > most) most = need;
    }
    c->n_block = most + draw(r, 2 * most + 1);
    if (draw(r, 4) == 0) c->n_block = 4 * most * c->n;
    if (draw(r, 10) == 0) c->n_block = (most + 1) / 2; /* some are refused */
    o->async = (int)draw(r, 3);
}

#endif
