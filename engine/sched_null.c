/* engine/sched_null.c - FCFS without KV: one slot a sequence, the framework's own cost, the queues
 * of theory. SPDX-License-Identifier: Apache-2.0 */
#include "engine/sched_core.h"

/* With a constant step time c and output lengths of n tokens a request holds its slot for n*c: one
 * slot is a single server, k slots are k servers with one queue. */
static void fill(struct sched *s, struct batch *b, int64_t now_ns)
{
    int64_t budget = INT64_MAX / 4;
    sched_take_decodes(s, b, now_ns);
    sched_admit(s, b, &budget, SCHED_NEED_CHUNK, true, now_ns);
}

const struct sched_ops sched_null = { .name = "null", .fill = fill };
