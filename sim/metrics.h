/* sim/metrics.h - what a simulation counts, and the definitions of what it reports.
 *
 *     TTFT  t_first - t_due     from when the request was due, queueing and HTTP included
 *     TPOT  (t_last - t_first)/(n_out - 1)    per request, n_out >= 2
 *     ITL   gap between consecutive tokens of a request, pooled over all tokens
 *     E2E   t_last - t_due
 *     attainment   requests due in the window that met every SLO clause / requests due in the window; failed
 *                  and rejected ones count against; TPOT is vacuously met by n_out = 1
 *     goodput      requests that met every clause, per second of the window
 * Window: from the due time of the first request kept (after warm-up) to the last completion, for a trace of given
 * length (terminating); to the last arrival for steady state. Histograms are log-bucketed (0.025 %).
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_METRICS_H
#define SIM_METRICS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/hist.h"
#include "engine/batch.h"
#include "model/step.h"
#include "traces/run.h"

struct slo { int64_t ttft_ns, tpot_ns, e2e_ns; double attain_ratio; };   /* 0 ns: no such clause */

enum metric { METRIC_TTFT, METRIC_TPOT, METRIC_ITL, METRIC_E2E, METRIC_N };
const char *metric_name(enum metric m);      /* "ttft" ... */

struct metrics_stage { double busy_ns, active_ns; };

struct metrics {
    struct hist h[METRIC_N];
    int64_t due, finished, failed, rejected;          /* all requests */
    int64_t kept, kept_ok, kept_ttft, kept_tpot, kept_e2e;   /* due in the window; met all; met each clause */
    int64_t in_tok, out_tok, cached_tok;              /* of kept, finished requests */
    int64_t done_in_window, out_in_window, in_in_window;     /* completions inside the window, and their tokens */
    int64_t preempted, recomputed_tok;
    int64_t t_begin_ns, t_end_ns;                     /* window */
    int64_t t_stop_ns;                                /* last event */
    int64_t kv_blocks, kv_peak;                       /* per replica; largest use of any replica */
    double  kv_mean_ratio;                            /* time average over replicas */
    double  queue_mean, running_mean, in_system_area_ns, sojourn_sum_ns;   /* Little: area against sum */
    double  class_ns[STEP_N_CLASS];                   /* time by operator class, summed over stages */
    struct metrics_stage stage[STRATEGY_MAX_PP];      /* summed over replicas */
    double  bubble_ns;
    double  blocked_ns[8];                            /* by enum sched_blocked, while requests waited */
    int64_t n_step, n_event, n_batch_tok, n_decode_sum;
    struct step_extent extent;
    int64_t hit_tok, asked_tok;                       /* prefix cache */
    uint64_t digest;                                  /* of every event: kind, request, time; order-free sum */
    double  queue_first_half, queue_second_half;      /* mean requests in system over halves of the window */
    bool    stopped;                                  /* Ctrl-C */
};

void metrics_init(struct metrics *m);
void metrics_release(struct metrics *m);
void metrics_merge(struct metrics *into, const struct metrics *from);   /* pools runs; digests add up */

double metrics_attain(const struct metrics *m);              /* joint; NAN without requests */
double metrics_window_s(const struct metrics *m);
double metrics_requests_per_s(const struct metrics *m);
double metrics_out_tok_per_s(const struct metrics *m);
double metrics_goodput_per_s(const struct metrics *m);
/* ns; stat: 0 mean, 1 p50, 2 p90, 3 p99 */
double metrics_latency_ns(const struct metrics *m, enum metric k, int stat);
/* |L - lambda W| / L over the whole run. */
double metrics_little_error(const struct metrics *m);
/* Arrivals outpace service: in-system count grows over the window, or less than 98 % of arrivals complete in it. */
bool metrics_overloaded(const struct metrics *m);

#endif
