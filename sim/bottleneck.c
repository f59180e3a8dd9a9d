/* sim/bottleneck.c - see bottleneck.h. SPDX-License-Identifier: Apache-2.0 */
#include "sim/bottleneck.h"

static const double WAITING = 0.05, BUSY = 0.9, FULL = 0.5, BUBBLE = 0.3;

static enum step_class dominant(const struct metrics *m)
{
    enum step_class best = STEP_GEMM;
    for (int c = 1; c < STEP_N_CLASS; c++)
        if (m->w.class_ns[c] > m->w.class_ns[best]) best = (enum step_class)c;
    return best;
}

const char *bottleneck(const struct metrics *m, int64_t max_seqs, struct arena *a)
{
    static const char *const reason[SCHED_N_BLOCKED] = {
        [SCHED_BY_KV] = "KV memory: waiting requests do not get blocks",
        [SCHED_BY_SEQS] = "policy.max_seqs: all places for running requests are taken",
        [SCHED_BY_BATCH] = "static batching: nobody joins before the last of the batch has ended",
        [SCHED_BY_BUDGET] = "the token budget of a step: prompts wait for policy.max_batch_tokens",
        [SCHED_BY_PREEMPTION] = "KV memory: running requests are preempted"
    };
    if (m->w.n_step == 0) return "none: nothing ran";
    int stage = 0, worst = 0;
    double blocked = 0, waiting = m->w.queue_area_ns / (m->w.queue_area_ns + m->w.running_area_ns);
    for (int p = 1; p < m->n_stage; p++)
        if (m->w.stage_busy_ns[p] > m->w.stage_busy_ns[stage]) stage = p;
    for (int i = 0; i < SCHED_N_BLOCKED; i++) {
        blocked += m->w.blocked_ns[i];
        if (m->w.blocked_ns[i] > m->w.blocked_ns[worst]) worst = i;
    }
    double busy = metrics_utilisation(m, stage);
    enum step_class c = dominant(m);
    if (waiting >= WAITING && reason[worst])
        return arena_printf(
            a,
            "%s (%.0f %% of the time anybody waits; waiting is %.0f %% of the time in the system)",
            reason[worst], 100 * m->w.blocked_ns[worst] / blocked, 100 * waiting);
    double window = 1e9 * metrics_window_s(m) * (double)m->n_replica,
           running = m->w.running_area_ns / window;
    double tok = m->w.n_step ? (double)m->w.n_batch_tok / (double)m->w.n_step : 0,
           share = 100 * metrics_class_share(m, c);
    if (busy >= BUSY && (metrics_overloaded(m) || running >= FULL * (double)max_seqs))
        return arena_printf(a, "stage %d, busy %.0f %% of the time; most of a step is %s (%.0f %%)",
                            stage, 100 * busy, step_class_name(c), share);
    if (m->n_stage > 1 && metrics_bubble(m, stage) >= BUBBLE && m->w.active_ns >= BUSY * window)
        return arena_printf(a,
                            "pipeline bubbles: there is always work, yet every stage is idle %.0f "
                            "%% of the time or more, for want of "
                            "micro-batches (policy.grouping)",
                            100 * metrics_bubble(m, stage));
    return arena_printf(a,
                        "none: nothing is used up (busiest stage %d: %.0f %% of the time, %.0f "
                        "tokens a step, mostly %s, %.0f %%)",
                        stage, 100 * busy, tok, step_class_name(c), share);
}
