/* sim/replica.h - one replica: its scheduler, its pipeline stages, the batches in flight.
 *
 * Fast-forward, one stage: a batch of decodes that the scheduler would choose again k times is one
 * flight of k steps; its end is an exact sum (model/step.h), and an arrival cuts it to the step
 * under way. Several stages: runs of unchanged batches go round in a tight loop up to the next
 * event from outside. SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_REPLICA_H
#define SIM_REPLICA_H

#include "sim/series.h"
#include "sim/share.h"
#include "sim/sim.h"

struct flight {
    struct batch b;
    int64_t t0_ns, t1_ns;       /* launched; out of the last stage */
    bool run;                   /* k steps on one stage, fast-forwarded; may be cut down to one */
    int64_t k;                  /* steps it stands for */
    int64_t rem_fp;             /* of a run: the stage's fraction at t0 */
    int64_t kv_end;             /* blocks in use when it ends */
    bool counted;               /* launched inside the window */
    bool lined;                 /* line[] holds for this cohort */
    struct step_line *line;     /* [n_stage] cost of its decode steps */
    struct share_flight *share; /* NULL where stages share nothing */
};

/* What all replicas of a run share. */
struct replica_env {
    const struct step *step;
    const struct sim_setup *u;
    struct metrics *m;
    struct series series;
    int n_stage;
    int64_t output_ns;
    bool counting; /* inside the window */
    bool shared;   /* stages have to do with each other beyond their order: sim/share.h */
    void (*ended)(void *ctx, const struct sreq *r, int64_t t_ns);
    void *ctx;
    int64_t n_row, row_stride; /* every row_stride-th step becomes a row: their number is bounded */
};

struct replica {
    struct sched s;
    struct sched_sink sink;
    struct replica_env *env;
    int index;
    struct flight *ring; /* [n_stage] in flight: n from head on */
    int head, n;
    int64_t *free_ns, *rem_fp; /* [n_stage] when the stage is free; fraction of a ns carried */
    struct share share;
    int64_t share_ns;           /* flights' places on their way are those of this time */
    int64_t t_seen_ns, kv_seen; /* state is integrated up to here */
    int64_t n_sys;              /* waiting and running */
};

void replica_init(struct replica *r, struct replica_env *env, int index, struct arena *a);
/* A request arrives. Returns whether a decision is due now. */
bool replica_submit(struct replica *r, const struct trace_req *q, int64_t now_ns);
/* Launches batches while there is something to launch and room for it. */
void replica_decide(struct replica *r, int64_t now_ns);
int64_t replica_next_ns(const struct replica *r); /* end of the oldest flight; INT64_MAX: none */
/* Ends the oldest flight, and in fast mode goes on alone while nothing needs deciding before
 * `until_ns`. Returns whether a decision is due, at *now_ns. */
bool replica_advance(struct replica *r, int64_t until_ns, int64_t *now_ns);
/* Shortens a fast-forwarded flight to the step under way at now_ns. */
void replica_cut(struct replica *r, int64_t now_ns);
/* Counts the steps of a fast-forwarded flight that end before now_ns as done, as stepping would
 * have; the next is then in flight. */
void replica_split(struct replica *r, int64_t now_ns);
/* Brings time averages up to now_ns. */
void replica_integrate(struct replica *r, int64_t now_ns);

#endif
