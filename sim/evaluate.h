/* sim/evaluate.h - a scenario simulated several times: over seeds, and over the uncertainty of the
 * constants.
 *
 * Intervals. Over seeds: delete-one jackknife of the pooled estimate (at most 20 groups of runs),
 * the run being the unit of replication. Over draws: every constant of the kernel laws is drawn
 * from its distribution (model/profile.h), all on the first seed's requests, and the quantiles of
 * the differences to the nominal run are taken. Both are added in quadrature, each side for
 * itself; latencies and throughputs on the log scale. A replayed trace has one seed; with draws: 0
 * the constants are taken as exact. SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_EVALUATE_H
#define SIM_EVALUATE_H

#include "base/stat.h"
#include "sim/scenario.h"

enum { STAT_MEAN, STAT_P50, STAT_P90, STAT_P99, STAT_N };
enum evaluate_q {            /* quantities that get an interval */
                  Q_LATENCY, /* METRIC_N x STAT_N, ns */
                  Q_REQUESTS_PER_S = Q_LATENCY + METRIC_N * STAT_N,
                  Q_OUT_TOK_PER_S,
                  Q_GOODPUT_PER_S,
                  Q_ATTAIN,
                  Q_ATTAIN_TTFT,
                  Q_ATTAIN_TPOT,
                  Q_ATTAIN_E2E,
                  Q_N
};

enum { EVALUATE_TOP = 3 };
struct outcome {
    struct metrics first; /* of the first seed with nominal constants: the rows of the run file */
    struct metrics all;   /* pooled over seeds */
    struct ci q[Q_N];
    struct ci q_seeds[Q_N], q_draws[Q_N]; /* the two parts; NAN bounds where there is none */
    int n_seed, n_draw;
    const char *coverage;
    const char *unmeasured; /* operators without points of the profile, see step_unmeasured; "" */
    enum cover by_class[STEP_N_CLASS];
    bool extrapolated;
    /* Constants whose uncertainty moves the time of a mean step most: share by one standard
     * deviation. */
    struct {
        const char *name, *advice; /* what to measure to know it better */
        bool own_error;            /* the laws' own: more samples do not shrink it */
        double share, sd_log;
        enum cover cover;
    } top[EVALUATE_TOP];
    const char *workload;   /* the trace in words */
    const char *bottleneck; /* one sentence */
};

static inline struct ci outcome_latency(const struct outcome *o, enum metric m, int stat)
{
    return o->q[Q_LATENCY + (int)m * STAT_N + stat];
}

/* sink: rows of the first run (also its progress). Texts live in s->arena. Errors as trace_open;
 * ST_STOPPED after Ctrl-C. outcome_release always. */
int evaluate(struct scenario *s, const struct deploy *d, const struct sim_sink *sink,
             struct outcome *out, struct err *e);
/* The estimates of one run, in `all`, without intervals: of a measured one. */
void outcome_single(struct outcome *o);
void outcome_release(struct outcome *o);

#endif
