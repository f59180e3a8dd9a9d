/* bench/tally.h - what a serving engine tells, counted as the simulator counts its own.
 *
 * Definitions and window are those of sim/metrics.h; here are only the sums over what happened.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_TALLY_H
#define BENCH_TALLY_H

#include "engine/serve.h"
#include "sim/window.h"

struct tally_setup {
    struct slo slo;
    const struct trace *trace;
    bool steady;         /* as sim_setup has them */
    double warmup_ratio; /* resolved */
    int64_t warm_ns;
    int64_t bin_ns;
    int64_t kv_blocks; /* of a replica */
    int n_replica, n_stage;
};

struct tally {
    struct tally_setup u;
    struct metrics *m;
    struct series series;
    struct window window;
};

/* m was initialised by metrics_init. */
void tally_init(struct tally *t, const struct tally_setup *u, struct metrics *m, struct arena *a);
void tally_arrive(struct tally *t, const struct trace_req *q, int left, int64_t now_ns);
void tally_level(struct tally *t, const struct serve_level *l);
void tally_step(struct tally *t, const struct serve_step *s);
void tally_gap(struct tally *t, int64_t gap_ns);
void tally_request(struct tally *t, const struct run_request *row, int64_t id, int64_t t_ready_ns,
                   const int32_t *tok);
/* A stage was at work for so long. */
void tally_busy(struct tally *t, int stage, int64_t ns);
/* Where a step's time went (engine/monitor.h). */
void tally_classes(struct tally *t, const double ns[STEP_N_CLASS]);
/* Once, also where nothing was served. */
void tally_end(struct tally *t, const struct serve_result *r);

#endif
