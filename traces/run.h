/* traces/run.h - the run store: what happened, predicted or measured, in one HDF5 file, one schema.
 *
 *     /                schema "orrery-run", version, Conventions, title, source, history, ...
 *     /provenance      base/prov.h, input files with sha256, digest, kind = simulated | measured
 *     /scenario        `yaml`: the effective scenario, defaults included; `calibrated_by`, of a
 *                      prediction: the measured runs that its constants come from
 *     /requests        request, t_due, t_start, t_first, t_last, n_in, n_out, status, ...
 *     /steps           step, t0, t1, replica, n_prefill, n_decode, queue, kv_used, what its
 *                      time depends on (chunks, ctx, past, pairs, logits), host
 *                      (sampled or windowed)
 *     /series          time bins: queue, running, kv_used, tokens ...
 *     /stages          span, replica, stage, batch, t0, t1, tokens
 *                      (Gantt, only inside the window asked for)
 *     /summary/...     metric arrays with quantiles and intervals; scalars as attributes
 *     /monitor         step and rank: compute, comm, wait, host, ... (measured runs)
 *     /anomalies       t0, t1, kind, rank, value, limit              (measured runs)
 *     /comm            rank, group, call, calls, bytes, time: the communicator  (measured runs)
 *     /replicas        sums over the run of each replica              (measured, several replicas)
 *     /tokens          request, token: what was generated            (measured, if asked for)
 *     /sweep           one row per point of a sweep
 *
 * Times are int64 ns from run start.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TRACES_RUN_H
#define TRACES_RUN_H

#include <stdint.h>

#include "base/h5.h"
#include "base/stat.h"

enum run_status { RUN_OK, RUN_FAILED, RUN_REJECTED, RUN_UNFINISHED };
#define RUN_STATUS_WORDS "ok failed rejected unfinished"

struct run_request {
    int64_t t_due_ns, t_start_ns, t_first_ns, t_last_ns; /* -1: never */
    int64_t session;
    int32_t n_in, n_out; /* n_out: tokens made */
    int32_t cached_in;   /* prompt tokens served by the prefix cache at first admission */
    int32_t preempted;   /* times */
    int32_t replica, turn;
    uint8_t status, klass;
};
struct run_step {
    int64_t t0_ns, t1_ns, kv_used_blocks;
    int32_t replica;
    int32_t n_step; /* engine steps this row stands for (fast-forwarded runs of decode steps) */
    int32_t n_prefill_tok, n_decode, queue;
    /* As struct step_shape of model/step.h; of the first step where a row stands for several. */
    int32_t n_chunk, n_logits;
    int64_t sum_ctx_tok, skew_tok, past_tok, pairs;
    int64_t host_ns; /* beside t0 .. t1: choosing, building and booking it; 0 in simulated runs */
};
struct run_bin { /* one per interval of simulated time */
    int64_t t_ns;
    double running, queue, kv_used_ratio; /* time averages over the bin */
    double in_tok_per_s, out_tok_per_s, arrivals_per_s, done_per_s;
};
struct run_span {
    int64_t t0_ns, t1_ns;
    int32_t replica, stage, batch, n_prefill_tok, n_decode;
    uint8_t kind;
};
#define RUN_SPAN_WORDS "decode prefill mixed"
struct run_monitor { /* one rank's part of one engine step; see engine/monitor.h */
    int64_t t0_ns, t1_ns;
    int64_t compute_ns, comm_ns, wait_ns, host_ns, allreduce_ns;
    int64_t gemm_ns, attn_ns; /* of compute_ns: products, attention; -1: not known */
    int64_t kv_used_tok, kv_reserved_tok;
    int64_t step;
    int32_t rank, queue;
};
struct run_anomaly {
    int64_t t0_ns, t1_ns;
    double value, limit;
    int32_t rank; /* -1: none in particular */
    uint8_t kind;
};
#define RUN_ANOMALY_WORDS "high_communication_latency load_imbalance straggler memory_pressure"
struct run_comm { /* what a rank spent in one kind of call of one group; see engine/comm.h */
    int64_t calls, bytes, ns, max_ns;
    int32_t rank;
    uint8_t group, call;
};
#define RUN_COMM_GROUP_WORDS "world stage"
#define RUN_COMM_CALL_WORDS  "allreduce allgather broadcast barrier send recv"
struct run_replica {                             /* sums over the run */
    int64_t due, finished, rejected, unfinished; /* due: routed to it; the others add up to it */
    int64_t steps, in_tok, out_tok;              /* computed prompt tokens; output tokens */
    int64_t preempted, recomputed_tok, hit_tok, asked_tok;
    int64_t kv_peak_blocks;
};
struct run_token {
    int64_t request; /* row of /requests */
    int32_t token;
};
struct run_sweep {
    double value;      /* of the swept option, in base units */
    double rate_per_s; /* offered */
    double requests_per_s, output_tok_per_s, goodput_per_s, attain_ratio, attain_lo, attain_hi;
    double ttft_mean_s, ttft_p50_s, ttft_p90_s, ttft_p99_s, tpot_mean_s, tpot_p50_s, tpot_p90_s,
        tpot_p99_s;
    double e2e_mean_s, e2e_p50_s, e2e_p90_s, e2e_p99_s;
    double ttft_p99_lo_s, ttft_p99_hi_s, tpot_p99_lo_s, tpot_p99_hi_s, out_lo, out_hi;
    double gpus, tp, pp, dp;
    uint8_t overloaded;
};
extern const struct h5col run_request_cols[], run_step_cols[], run_bin_cols[], run_span_cols[],
    run_monitor_cols[], run_anomaly_cols[], run_comm_cols[], run_replica_cols[], run_token_cols[],
    run_sweep_cols[];

/* ---- writing: a writer streams rows; nothing is visible at `path` before run_commit. */
typedef struct run run;
run *run_create(const char *path, struct err *e);
/* Of a measured run, before its engine starts: makes its tables, and from now on what an engine tells
 * while it runs (requests, steps, monitor, tokens, anomalies, stages) is set aside (traces/spool.h): a
 * run_put_ of these then neither allocates nor enters HDF5, which takes milliseconds. */
int run_prepare(run *r, bool steps, bool tokens, struct err *e);
/* The engine has stopped: all of that into its tables. run_commit does it too. */
int run_settle(run *r, struct err *e);
int run_put_request(run *r, const struct run_request *row, struct err *e);
int run_put_step(run *r, const struct run_step *row, struct err *e);
int run_put_bin(run *r, const struct run_bin *row, struct err *e);
int run_put_span(run *r, const struct run_span *row, struct err *e);
int run_put_monitor(run *r, const struct run_monitor *row, struct err *e);
int run_put_anomaly(run *r, const struct run_anomaly *row, struct err *e);
int run_put_comm(run *r, const struct run_comm *row, struct err *e);
int run_put_replica(run *r, const struct run_replica *row, struct err *e);
int run_put_token(run *r, const struct run_token *row, struct err *e);
int run_put_sweep(run *r, const struct run_sweep *row, struct err *e);
h5 *run_h5(run *r); /* for /summary, /scenario and attributes */
/* /summary/<name>: estimate with interval at mean and quantiles: arrays over dims (stat, bound);
 * stat names as a text attribute `stats` ("mean p50 p90 p99"), bound = lower, estimate, upper.
 * units "ns". */
int run_put_summary(run *r, const char *name, const struct ci *stat, int n_stat, const char *stats,
                    const char *units, const char *method, struct err *e);
int run_commit(run *r, struct err *e); /* frees r, also on failure (the part file is then gone) */
void run_abort(run *r);

/* ---- reading */
struct run_file {
    h5 *h5;
    char *path, *title, *scenario_yaml, *kind;
    char *ended_early; /* how (attribute of /summary); its figures are of the requests that had
                        * finished by then. NULL: it ran to its end */
    int64_t n_request;
};
int run_open(const char *path, struct arena *a, struct run_file *out, struct err *e);
void run_close(struct run_file *f);
/* A column of a table as doubles ("requests/t_due") in its stored unit. */
int run_column(struct run_file *f, const char *table_column, struct arena *a, double **out,
               size_t *n, struct err *e);
int run_read_summary(struct run_file *f, const char *name, struct arena *a, struct ci **out,
                     int *n_stat, struct err *e);

#endif
