/* engine/batch.h - what one engine step computes: decodes that move together, and prompt chunks.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_BATCH_H
#define ENGINE_BATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/kvpool.h"
#include "model/step.h"
#include "traces/trace.h"

struct cohort;

enum sreq_state { SREQ_WAITING, SREQ_PREFILL, SREQ_DECODE, SREQ_GHOST, SREQ_DONE };

/* A request as the scheduler sees it. */
struct sreq {
    struct trace_req t;
    int64_t t_ready_ns;            /* reached the scheduler */
    int64_t t_start_ns;            /* first scheduled; -1 before */
    int64_t t_first_ns, t_last_ns; /* first and latest token; -1 before */
    int64_t computed;  /* tokens in KV, those being computed included; valid outside a cohort */
    int64_t target;    /* tokens to compute before the next output token */
    int64_t join_step; /* cohort->steps when it joined */
    int32_t made;      /* output tokens made; valid outside a cohort */
    int32_t cached_in; /* prompt tokens hit at first admission */
    int32_t preempted;
    int32_t in_flight; /* chunks launched and not completed */
    int32_t heap_at;   /* place in the cohort's finish heap */
    int32_t replica;
    int32_t slot; /* the caller's own */
    enum sreq_state state;
    bool irregular; /* its latest token did not come with its cohort's latest step */
    bool reserved;  /* all KV blocks it can ever need were taken at admission */
    struct kvchain kv;
    struct cohort *cohort;
    struct sreq *prev, *next;     /* waiting or running list */
    struct sreq *c_prev, *c_next; /* members of its cohort */
};

/* Sequences that decode in lock step. Sums are kept incrementally, so a step costs O(1). */
struct cohort {
    int64_t n,
        n_live; /* members; without those that ended but are still computed (static batching) */
    int64_t n_irregular;
    int64_t steps;      /* decode steps done */
    int64_t sum_ctx;    /* contexts at the next step, its new token included */
    int64_t max_off;    /* longest context at the next step, minus steps */
    int64_t t_emit_ns;  /* end of its latest step */
    int32_t *phase;     /* [block_tok] members by (tokens in KV - steps) mod block_tok */
    struct sreq **heap; /* [n_live] by finish step, then id: min first */
    int64_t *finish;    /* [n_live] finish step of heap[i] */
    int32_t heap_n, heap_cap;
    struct sreq *first; /* members, newest first */
    bool in_flight;
    struct cohort *next; /* idle or free list */
};

struct chunk {
    struct sreq *r;
    int64_t tok, past;
    bool last;
};

enum { BATCH_MAX_CHUNKS = 1024 };
struct batch {
    struct cohort *cohort; /* NULL: no decodes */
    int64_t n_regular;     /* decodes whose gap is the time since cohort->t_emit_ns */
    int32_t n_chunk, cap_chunk;
    struct chunk *chunk; /* [cap_chunk] */
    struct step_shape shape;
    int64_t blocks; /* KV blocks taken for the decodes */
};

static inline bool batch_empty(const struct batch *b)
{
    return !b->n_chunk && !b->cohort;
}
static inline int64_t batch_tokens(const struct batch *b)
{
    return b->shape.n_decode + b->shape.prefill_tok;
}

#endif
