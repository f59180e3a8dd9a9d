/* sim/metrics.h - what a simulation counts, and the definitions of what it reports.
 *
 *     TTFT  t_first - t_due     from when the request was due, queueing and HTTP included
 *     TPOT  (t_last - t_first)/(n_out - 1)    per request, n_out >= 2
 *     ITL   gap between consecutive tokens of a request, pooled over all tokens
 *     E2E   t_last - t_due
 *     attainment   requests due in the window that met every SLO clause / requests due in the
 *                  window; rejected ones and failed ones (unfinished when the run was stopped) count
 *                  against; TPOT is vacuously met by n_out = 1
 *     goodput      requests that met every clause, per second of the window
 *     throughput   completions, and output tokens made, in the window per second, whenever the
 *                  requests were due
 * Window: from the due time of the first request kept (after warm-up) to the last completion (a
 * trace replayed to its end) or to the last arrival (steady state, unless what then remains takes
 * longer than half the window: a run too short for a steady state is reported whole). Of sessions
 * the first turns are such arrivals; turns due after the last of them are outside. Histograms are
 * log-bucketed, a value off by 0.025 % at most. SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_METRICS_H
#define SIM_METRICS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/hist.h"
#include "engine/sched.h"
#include "model/step.h"
#include "traces/run.h"

struct slo {
    int64_t ttft_ns, tpot_ns, e2e_ns;
    double attain_ratio;
}; /* 0 ns: no such clause */

enum metric { METRIC_TTFT, METRIC_TPOT, METRIC_ITL, METRIC_E2E, METRIC_N };
const char *metric_name(enum metric m); /* "ttft" ... */

/* Counted inside the window; integrals are summed over replicas. */
struct metrics_window {
    int64_t t_end_ns;
    int64_t done, out_tok; /* completions; tokens made, whoever they are for */
    int64_t n_step, n_batch_tok,
        n_decode_sum; /* engine steps, tokens in them, sequences decoding in them */
    double queue_area_ns, running_area_ns,
        kv_area_ns;                     /* time integrals of requests and KV blocks */
    double active_ns;                   /* replica has a batch in flight */
    double blocked_ns[SCHED_N_BLOCKED]; /* by reason, while requests waited */
    double class_ns[STEP_N_CLASS];      /* time by operator class, summed over stages */
    double stage_busy_ns[STRATEGY_MAX_PP];
};

struct metrics {
    struct metrics_window w;
    struct hist h[METRIC_N];
    int64_t due, finished, failed, rejected; /* all requests; the last three add up to the first */
    int64_t kept, kept_ok, kept_ttft, kept_tpot,
        kept_e2e; /* due in the window; met all; met each clause */
    int64_t kept_done, in_tok, out_tok, cached_tok; /* kept and finished, and their tokens */
    int64_t preempted, recomputed_tok;              /* whole run */
    int64_t hit_tok, asked_tok;                     /* prefix cache, whole run */
    int64_t t_begin_ns;                             /* of the window */
    int64_t t_last_due_ns, t_stop_ns;               /* last arrival, last event */
    int64_t n_replica, n_stage;
    int64_t kv_blocks, kv_peak; /* per replica; largest use of any replica */
    /* Whole run. */
    double in_system_area_ns; /* integral of the number in the system ... */
    double sojourn_sum_ns;    /* ... against the sum of times in it (Little's law) */
    double half[2];           /* mean in the system over the halves of the arrivals */
    int64_t n_event;
    struct step_extent extent;
    uint64_t digest;          /* of every event: kind, request, time; order-free sum */
    int64_t n_run;            /* pooled runs */
    const char *why_rejected; /* of the first that was; NULL */
    bool stopped;             /* Ctrl-C */
    bool whole;               /* too short for a steady state: ramp and drain are in the window */
};

void metrics_init(struct metrics *m);
void metrics_release(struct metrics *m);
void metrics_merge(struct metrics *into,
                   const struct metrics *from); /* pools runs; digests add up */

/* Adds the requests that `from` keeps: their counts, tokens and latencies. */
void metrics_add_kept(struct metrics *into, const struct metrics *from);
/* A kept request that has finished: latencies and SLO clauses by the definitions above. */
void metrics_add_request(struct metrics *m, const struct slo *slo, const struct run_request *row);
/* The run ended, its last token at t_end_ns. at_last: the window as it stood at the last arrival, its t_end_ns that
 * arrival's due time, where the run has a steady state; else NULL. begun: a request was kept. */
void metrics_close(struct metrics *m, int64_t t_end_ns, const struct metrics_window *at_last,
                   bool begun);

double metrics_attain(const struct metrics *m); /* joint; NAN without requests */
double metrics_window_s(const struct metrics *m);
double metrics_requests_per_s(const struct metrics *m);
double metrics_out_tok_per_s(const struct metrics *m);
double metrics_goodput_per_s(const struct metrics *m);
/* ns; stat: 0 mean, 1 p50, 2 p90, 3 p99 */
double metrics_latency_ns(const struct metrics *m, enum metric k, int stat);
/* Mean time a request waits and runs, by the bookkeeping of numbers and by that of times: |L -
 * lambda W| / L. */
double metrics_little_error(const struct metrics *m);
double metrics_utilisation(const struct metrics *m, int stage); /* busy / (window * replicas) */
double metrics_bubble(const struct metrics *m,
                      int stage); /* idle share while the replica has work */
double metrics_class_share(const struct metrics *m, enum step_class c);
/* Of what an engine did: whether it kept the time of its operators (engine/monitor.h). */
bool metrics_has_classes(const struct metrics *m);
double metrics_kv_mean(const struct metrics *m); /* share of all blocks, time average */
/* Arrivals outpace service: twice as many in the system in the second half of the arrivals as in
 * the first, and more than one per replica and slot of the batch. */
bool metrics_overloaded(const struct metrics *m);

#endif
