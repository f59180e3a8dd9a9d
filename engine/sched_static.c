/* engine/sched_static.c - request-level batching: nobody joins until the last of the batch has
 * ended. SPDX-License-Identifier: Apache-2.0 */
#include "engine/sched_core.h"

/* Sequences that have ended keep their slot and are computed on until the batch ends (no early exit
 * in FasterTransformer's decoding loop). With a pipeline, up to `depth` batches run, max_seqs /
 * depth each. */
static void fill(struct sched *s, struct batch *b, int64_t now_ns)
{
    sched_take_decodes(s, b, now_ns);
    if (b->cohort) {
        if (s->n_wait) s->blocked = SCHED_BY_BATCH;
        return;
    }
    int64_t budget = s->o.max_batch_tok;
    if (s->n_run == 0 || s->depth > 1)
        sched_admit(s, b, &budget, SCHED_TAKE_ALL, true, now_ns);
    else if (s->n_wait)
        s->blocked = SCHED_BY_BATCH;
}

const struct sched_ops sched_static = { .name = "static", .fill = fill };
