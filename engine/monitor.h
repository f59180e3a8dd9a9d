/* engine/monitor.h - where the engine's time goes, per step and rank, and what is wrong with it.
 *
 * Of one rank in one step:
 *     compute  inside the step, outside communication and sampling
 *     comm     what the fastest rank of its stage spent in the stage's all-reduces (that one waited
 *              for nobody), plus sends to the next stage and the gathering of logits
 *     wait     the rest of its time in all-reduces, and waiting for the stage in front
 *     host     rank 0: choosing, building and booking the step; the rank that samples: sampling
 * By operator class (model/step.h), where every rank keeps what its operators take; of a step, summed
 * over stages, which overlap in time:
 *     GEMM, attention   the products; attention over the cache. Mean over the ranks of a stage
 *     other       the rest of compute, mean over ranks: norms, rotation, writing the cache, activation,
 *                 additions, embedding, what lies between operators; and sampling
 *     collective  all-reduces, and on the last stage the gathering of logits and handing tokens over;
 *                 waiting for the other ranks included, as in the simulator's laws, which are fitted
 *                 to such calls. Mean over ranks
 *     p2p         a message's way from its sending until the next stage takes it, less what this was
 *                 still at work meanwhile. The simulator counts that as well, and the tokens' way back
 *                 to the scheduler, which is not seen here. 0 with one stage
 *     host        choosing, building and booking the step
 * Those but p2p add up to the stages' busy time and host.
 * Over the run:
 *     overlap  share of communication hidden behind computing: a message between stages counts from
 *              its sending until it is taken; hidden is what of it neither the sender nor a waiting
 *              receiver spent. All-reduces hide nothing.
 *     balance  mean over ranks of compute, by the largest
 *     KV       used: tokens held by all the room in KV blocks in use; the rest is reserved in vain
 * Anomalies are judged over windows of steps. Replicas have a monitor each; ranks are numbered through
 * all of them. Ranks in other processes send their times after each step. Where a rank's are not there,
 * comm is as long as the fastest seen rank took, and ranks are not compared. SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_MONITOR_H
#define ENGINE_MONITOR_H

#include "base/conf.h"
#include "engine/serve.h"

struct monitor_opts { /* keys monitor.* */
    int64_t window;   /* steps */
    bool operators;   /* the engine keeps what its operators take: engine_opts */
    int64_t allreduce_ns;
    double imbalance, straggler, memory;
};
extern const struct conf_row monitor_rows[];

enum monitor_kind { /* as RUN_ANOMALY_WORDS */
                    MONITOR_COMM,
                    MONITOR_IMBALANCE,
                    MONITOR_STRAGGLER,
                    MONITOR_MEMORY,
                    MONITOR_N_KIND
};
const char *monitor_kind_name(enum monitor_kind k); /* "high communication latency" ... */

/* Any function may be NULL. */
struct monitor_sink {
    void *ctx;
    void (*row)(void *ctx, const struct run_monitor *row);
    void (*span)(void *ctx, const struct run_span *row);
    void (*anomaly)(void *ctx, const struct run_anomaly *row);
    void (*classes)(void *ctx, const double ns[STEP_N_CLASS]); /* of a step; where all are known */
};

struct monitor_setup {
    struct monitor_opts o;
    int tp, pp, replica;
    int64_t kv_blocks, block_tok;
    int64_t span_t0_ns, span_t1_ns; /* stages are told in between */
    /* A rank's part of a step, as engine_rank_step. */
    bool (*read)(void *ctx, int64_t step, int rank, struct engine_rank_step *out);
    void *read_ctx;
    struct monitor_sink sink;
};

struct monitor_rank {
    int64_t compute_ns, comm_ns, wait_ns, host_ns, steps;
    int64_t window_ns;                  /* compute in the present window */
    int64_t gemm_ns, attn_ns, op_steps; /* of compute, in so many of the steps */
};

struct monitor_seen {
    int64_t windows; /* in which the threshold was exceeded */
    double worst;
    int rank; /* of the worst; -1: none in particular */
};

struct monitor {
    struct monitor_setup u;
    int n_rank;                   /* tp * pp; of monitor_join all of theirs */
    struct monitor_rank *rank;    /* [n_rank] */
    struct engine_rank_step *now; /* [tp * pp] */
    bool *known;                  /* [tp * pp] whether `now` is; a rank in another process is not */
    struct monitor_seen seen[MONITOR_N_KIND];
    double class_ns[STEP_N_CLASS]; /* of the step being read */
    struct serve_step last;        /* ended, its ranks' times not yet read */
    bool has_last;
    int64_t windows;                    /* that have ended */
    int64_t steps, active_ns, t_end_ns; /* active: in a step or preparing one */
    int64_t schedule_ns, sample_ns;     /* the two parts of host */
    int64_t allreduce_ns, allreduce_calls, allreduce_max_ns; /* max: mean of a step */
    int64_t exposed_ns, hidden_ns;                           /* communication */
    double kv_room_tok, kv_unfilled_tok, queue_sum;          /* summed over steps */
    int64_t queue_max, rows, row_stride;
    struct { /* the present window */
        int64_t steps, t0_ns, allreduce_ns, allreduce_calls, kv_max;
    } w;
};

void monitor_init(struct monitor *m, const struct monitor_setup *u, struct arena *a);
/* A step ended. The ranks' times of the one before are read now. */
void monitor_step(struct monitor *m, const struct serve_step *s);
/* The engine has stopped: reads the last. */
void monitor_end(struct monitor *m);
/* n replicas as one: their sums, largest and ranks, for the summary; takes no steps. */
void monitor_join(struct monitor *all, const struct monitor *part, int n, struct arena *a);

/* The threshold of an anomaly, in the unit of its values: seconds, or a ratio. */
double monitor_limit(const struct monitor *m, enum monitor_kind k);

/* Shares and means; NAN where nothing was seen. */
double monitor_step_s(const struct monitor *m);         /* active time by steps */
double monitor_schedule_share(const struct monitor *m); /* of active time */
double monitor_sample_share(const struct monitor *m);   /* of active time */
double monitor_allreduce_s(const struct monitor *m);    /* mean latency */
double monitor_overlap(const struct monitor *m);        /* 0 .. 1 */
double monitor_balance(const struct monitor *m);        /* 0 .. 1 */
double monitor_kv_efficiency(const struct monitor *m);  /* 0 .. 1 */
double monitor_queue_mean(const struct monitor *m);

#endif
