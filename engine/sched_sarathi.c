/* engine/sched_sarathi.c - stall-free chunks: decodes first, then at most `chunk` tokens a step in
 * all. SPDX-License-Identifier: Apache-2.0 */
#include "engine/sched_core.h"

/* Source: Agrawal et al., "Taming Throughput-Latency Tradeoff in LLM Inference with Sarathi-Serve",
 * OSDI 2024, algorithm 3. A step holds all decodes and fills the rest of the budget with prompt
 * tokens. */
static void fill(struct sched *s, struct batch *b, int64_t now_ns)
{
    bool preempted = sched_take_decodes(s, b, now_ns);
    int64_t budget = s->o.chunk_tok - (b->cohort ? b->cohort->n : 0);
    preempted |= sched_continue_prompts(s, b, &budget, now_ns);
    if (preempted) {
        s->blocked = SCHED_BY_PREEMPTION;
        return;
    }
    sched_admit(s, b, &budget, SCHED_TAKE_PROMPT, false, now_ns);
}

const struct sched_ops sched_sarathi = { .name = "sarathi", .fill = fill };
