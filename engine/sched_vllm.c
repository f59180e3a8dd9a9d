/* engine/sched_vllm.c - decode first, chunked prefill under one token budget, prefix cache,
 * preemption by recompute. SPDX-License-Identifier: Apache-2.0 */
#include "engine/sched_core.h"

/* Source: vllm/v1/core/sched/scheduler.py, schedule() of 0.19. Running requests come before waiting
 * ones, and nobody is admitted in a step that preempted. Decodes cost one token each; max_batch_tok
 * >= max_seqs, so they always fit. */
static void fill(struct sched *s, struct batch *b, int64_t now_ns)
{
    bool preempted = sched_take_decodes(s, b, now_ns);
    int64_t budget = s->o.max_batch_tok - (b->cohort ? b->cohort->n : 0);
    preempted |= sched_continue_prompts(s, b, &budget, now_ns);
    if (preempted) {
        s->blocked = SCHED_BY_PREEMPTION;
        return;
    }
    sched_admit(s, b, &budget, s->o.reserve_full ? SCHED_NEED_PROMPT : SCHED_NEED_CHUNK, false,
                now_ns);
}

const struct sched_ops sched_vllm = { .name = "vllm", .fill = fill };
