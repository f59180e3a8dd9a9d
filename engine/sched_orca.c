/* engine/sched_orca.c - iteration-level batching of whole prompts, KV reserved for the longest
 * output. SPDX-License-Identifier: Apache-2.0 */
#include "engine/sched_core.h"

/* Source: Yu et al., "Orca", OSDI 2022, algorithm 1: selection by arrival, KV slots for the longest
 * output reserved at admission, so nobody is ever preempted. */
static void fill(struct sched *s, struct batch *b, int64_t now_ns)
{
    sched_take_decodes(s, b, now_ns);
    int64_t budget = s->o.max_batch_tok - (b->cohort ? b->cohort->n : 0);
    sched_admit(s, b, &budget, SCHED_TAKE_ALL, true, now_ns);
}

const struct sched_ops sched_orca = { .name = "orca", .fill = fill };
