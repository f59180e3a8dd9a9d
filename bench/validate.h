/* bench/validate.h - predicted against measured: how far off, beside the measurement's own noise,
 * and whether that is good enough.
 *
 * A case is one configuration: one predicted run file and one or more measured ones of the same
 * scenario. Its runs hold the same requests, which are paired one by one: by (session, turn), else
 * in due order (ties: lengths, then first token); only requests due after the warm-up that ended
 * well in every run count, and no times that contradict each other (a token before it was due). A load
 * of sessions ends with the first N turns that come due, which depends on timing: up to a tenth of
 * turns that not every run served is left out, and counted. Runs that turn out to hold other requests
 * are compared as distributions and say so.
 *
 *     e        ln(predicted / measured) of a case. Measured: geometric mean over runs, of a run's
 *              quantile too, since the same few requests make it on both sides; of other requests
 *              than the prediction's the quantile of all runs' requests pooled
 *     noise    three things, which texts call by these names:
 *       noise floor      of a case: half-width of the 90 % interval of ln(measured): Student's t over
 *                        runs, jackknife over runs where requests are pooled; with three cases or
 *                        more, the variance of each is drawn towards the typical one (weight of 4
 *                        degrees of freedom). NAN with one run. Where the case has the prediction
 *                        again, from each repetition of what its profile was measured by, what it
 *                        varies by is measured too: its half-width joins in quadrature, which is an
 *                        upper bound where both drifted together. Noise takes
 *                        one of n cases beyond it in 1 - .9^n of all campaigns: the worst of n is
 *                        judged by the floor at the level .9^(1/n) (Sidak 1967)
 *       run scatter      of a case: coefficient of variation c of one of its runs, as the sd of
 *                        ln(measured) over them
 *       request scatter  of a case and a latency: the sd of ln(latency) of a request over the runs, rms
 *                        over the requests
 *     bias     exp(mean e) - 1, Student's t over cases (over the runs, where there is one case)
 *     MAPE     mean |predicted / measured - 1|; the MAPE floor is what a perfect predictor would
 *              show: sqrt(2/pi) mean(sqrt(c^2/R + b^2/S)) of R runs and S predictions again of scatter b
 *     excess   sqrt(max(0, mean e^2 - mean(c^2/R + b^2/S)))
 *     TOST     accurate within delta if the 90 % interval of mean e lies inside (ln(1 - delta),
 *              ln(1 + delta)); not, if it lies outside; else inconclusive (Schuirmann 1987)
 *     coverage a predicted interval holds the measured value: as it stands, and with the runs' part
 *              of the floor added in quadrature, since a measured value is not the true one (what the
 *              profile varies by is in the interval)
 *     rank     Kendall's tau over the pairs of strategies whose measured difference exceeds both runs'
 *              parts of the floors in quadrature; regret = (best measured - measured of the predicted best)/best
 *
 * Both sides are of one machine: a prediction whose profile was made on another processor or device
 * than was measured is refused, as are runs of several in one case. A host of the same processor and
 * another name is marked, since copies of a machine and containers have such; where one side does not
 * say (the catalog's constants, a run of another tool) that is noted.
 *
 * What has no noise floor is not judged: with one run a configuration every verdict is inconclusive. Nor
 * is anything found wrong where other work disturbed most of the held-out runs: a floor is of how far
 * runs lie apart, and what slows all of them alike is not in it.
 * Cases that calibrated the prediction are marked and never averaged with the others: those that say
 * so, and those of a run that the prediction's hardware profile was made of.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_VALIDATE_H
#define BENCH_VALIDATE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/arena.h"
#include "base/conf.h"
#include "sim/metrics.h"

enum validate_stat {
    VALIDATE_MEAN,
    VALIDATE_P50,
    VALIDATE_P90,
    VALIDATE_P95,
    VALIDATE_P99,
    VALIDATE_N_STAT
};
enum { /* quantities: throughput [token/s], then METRIC_N x VALIDATE_N_STAT latencies [ns] */
       VALIDATE_THROUGHPUT,
       VALIDATE_LATENCY,
       VALIDATE_N = VALIDATE_LATENCY + METRIC_N * VALIDATE_N_STAT
};
static inline int validate_q(enum metric m, enum validate_stat s)
{
    return VALIDATE_LATENCY + (int)m * VALIDATE_N_STAT + (int)s;
}
const char *validate_q_name(int q); /* "throughput", "TTFT mean", "TPOT p99" */
enum { VALIDATE_N_JUDGED = 4 };
/* The quantities that have a bar: throughput, mean TPOT, mean TTFT, p99 TPOT. */
extern const int validate_judged[VALIDATE_N_JUDGED];

enum validate_use { VALIDATE_HELD_OUT, VALIDATE_CALIBRATED, VALIDATE_N_USE };
enum validate_verdict { VALIDATE_MET, VALIDATE_MISSED, VALIDATE_INCONCLUSIVE };
extern const char *const validate_verdict_word[3]; /* "met" "missed" "inconclusive" */
#define VALIDATE_NO_FLOOR "one run a configuration: noise floor unknown"

struct validate_opts {
    double delta_throughput, delta_tpot, delta_ttft, delta_tail; /* ratios */
    double worst;                                                /* of throughput and mean TPOT */
    double noise; /* a case of more run scatter is called noisy */
    int64_t seed; /* of the bootstrap */
};
extern const struct conf_row validate_rows[]; /* keys delta.*, worst, noise, seed */
/* How far off the worst configuration may be, of a quantity that has a bar: a share. */
double validate_worst_limit(const struct validate_opts *o, int q);

/* Where the time goes that the stages are busy with one step of the engine, summed over stages, in
 * the window; in both columns the three add up to it:
 *     compute        the model's operators and sampling, with what stages that share processors slow
 *                    each other; mean over a stage's ranks
 *                     three operator classes (model/step.h) share it, where the engine kept them
 *                     (monitor.operators): GEMM; attention; and other, which is the rest
 *     communication  calls to other ranks of the stage (all-reduce, gather), waiting for them there
 *                    included; measured also handing the result over to the next stage; mean over ranks
 *     host           choosing, building and booking the step
 * No stage is busy while a message is under way to the next one or tokens are on their way back, nor
 * while it waits for the stage in front: those hops are part of neither column. */
enum { VALIDATE_N_PART = 3, VALIDATE_N_OP = 3, VALIDATE_MAX_RANK = 1 << 16 };
extern const char *const validate_part_name[VALIDATE_N_PART];
extern const char *const validate_op_name[VALIDATE_N_OP]; /* of compute */

/* What a run was measured on, or of what machine's profile it was predicted; "": not said. */
struct validate_machine {
    const char *cpu, *host, *gpu; /* gpu: of a profile; of a run "GPU", whichever it was */
    const char *tool;             /* whose run it is, if not ours: then the above are "" */
    const char *model, *date;     /* of a run of another tool, as it states them */
};

struct validate_run {
    struct validate_machine machine;
    const char *path, *created;         /* created: UTC, of the provenance; "" */
    const char *run_id, *scenario_yaml; /* "" and NULL where there is none */
    const char *calibrated_by;          /* of a prediction: profile_file.h's runs; "" */
    uint64_t device, inode;             /* of the file */
    bool measured, simulated;           /* as its kind says */
    int64_t n_request, n_ok, n_kept, preempted;
    double *x[METRIC_N]; /* [n_kept] ns, in the order of pairing; NULL for ITL, NAN: none */
    double *n_in, *n_out;
    double q[VALIDATE_N];           /* of the kept requests; throughput and ITL of /summary */
    struct ci ci[VALIDATE_N];       /* of /summary; NAN where there is none */
    double part_s[VALIDATE_N_PART]; /* per engine step; NAN */
    double op_s[VALIDATE_N_OP];     /* likewise; they add up to compute */
    double prefix_hit, running_mean, kv_peak;
    bool extrapolated, overloaded;
    const char *profile_noise; /* of a prediction: what of its profile a busy machine gave; NULL */
    bool disturbed;            /* measured while other work took its processors, as its file says */
    /* while reading */
    int64_t *order, n_order; /* rows to be paired, in the order of pairing */
    double *t_due, *t_first, *t_last, *session, *turn, *status, begin_ns;
};

struct validate_error {         /* of one quantity of one case */
    double predicted, measured; /* NAN: not comparable */
    double e, cv, floor;        /* of logarithms; cv: run scatter, floor: noise floor */
    double floor_runs, spread;  /* the runs' part of it; sd of the predictions again, NAN: none */
    double floor_all; /* at the level by which nine times in ten all held out are within */
    bool has_interval, covered, covered_noisy;
};
struct validate_paired { /* of one latency, request by request */
    int64_t n;
    struct ci bias;      /* of mean ln(predicted/measured), 20 batch means in due order */
    double mape, median; /* |predicted / measured - 1| */
    double scatter;      /* request scatter */
    double ks, w1;       /* max |F_pred - F_meas|; Wasserstein-1 distance / measured mean */
};
struct validate_case {
    const char *name, *group; /* group: cases that differ by strategy only; "" */
    const char *refused;      /* why there is no prediction; NULL: there is one */
    const char *unlike;       /* why requests are not paired; NULL: they are */
    const char
        *left_out;       /* requests whose times contradict each other, or why none is left; NULL */
    const char *sources; /* imported runs of other models or times than each other; NULL */
    const char *machine; /* what the machines of both sides leave in doubt; NULL: nothing */
    const char *calibrated; /* which run calibrated the prediction, in words; NULL: none known */
    enum validate_use use;
    struct validate_run predicted, *measured;
    struct validate_run
        *again; /* the prediction, from a repetition of its profile's measurements */
    int n_measured, n_again;
    bool noisy;
    struct validate_error err[VALIDATE_N];
    struct validate_paired paired[METRIC_N]; /* n = 0 for ITL */
    double part_s[VALIDATE_N_PART];          /* measured, mean over runs */
    double op_s[VALIDATE_N_OP];              /* likewise; NAN where a run has none */
};

struct validate_sum { /* of one quantity over the cases of one use */
    int n, worst_case, n_interval, n_covered, n_covered_noisy;
    struct ci bias;    /* of mean e */
    struct ci mape_ci; /* nested bootstrap, 90 %; NAN bounds below 8 cases */
    double spread, mape, median, p90, worst, floor, excess, rmse; /* floor: of the MAPE */
    double delta;                                                 /* 0: no equivalence asked */
    enum validate_verdict tost;                                   /* met: accurate, missed: not */
};
struct validate_rank {
    const char *group;
    int q, n, n_decided, n_right;
    double tau, regret; /* NAN: no pair decided */
    bool top1, has_calibrated;
};
struct validate_bar {
    const char *name;
    char text[400]; /* the figure that was reached, and the limit */
    enum validate_verdict verdict;
};
struct validate_aa { /* equal runs in two arms; or the first and the last half of every case's */
    int q, n;
    struct ci diff; /* of the mean difference of ln, 95 % */
    bool differs;   /* surely, and by a third of delta or more */
    bool blind;     /* the interval is wider than 2 delta either way: nothing could be told */
};

enum {
    VALIDATE_MAX_CASE = 512,
    VALIDATE_MAX_RUN = 64, /* of a case */
    VALIDATE_N_BAR = 6,
    VALIDATE_N_AA = 3
};
struct validate {
    struct validate_opts o;
    const char *title;
    const char **note; /* [n_note] lines of the manifest */
    int n_note;
    struct validate_case *c;
    int n_case, n_refused, n_of[VALIDATE_N_USE], n_noisy, n_extrapolated;
    int n_single;                /* held out, of one run each: their noise floor is not known */
    struct validate_run *arm[2]; /* of the A/A check, in order of time */
    int n_arm[2];
    struct validate_sum sum[VALIDATE_N_USE][VALIDATE_N];
    struct validate_rank *rank;
    int n_rank;
    struct validate_bar bar[VALIDATE_N_BAR];
    struct validate_aa aa[VALIDATE_N_AA], drift[VALIDATE_N_AA];
    enum validate_verdict verdict;
    bool disturbed; /* most of the runs of held-out cases */
    struct arena *arena;
};

/* ---- reading. Errors: ST_IO, ST_USAGE. */

/* Run files paired by scenario; `calibrated` names those that calibrated (a substring of the
 * file's name is enough; NULL: none). Each list: files and directories separated by commas. */
int validate_find(struct validate *v, const char *predicted, const char *measured,
                  const char *calibrated, struct err *e);
/* A manifest, paths relative to it:
 *     title: ...
 *     notes: [what a reader must know of the measurement, ...]
 *     aa: {a: [x.h5, ...], b: [y.h5, ...]}
 *     cases:
 *       - {name: ..., use: held-out|calibrated, group: ..., predicted: p.h5, again: [p.1.h5, p.2.h5],
 *          measured: [m.h5]}
 *       - {name: ..., refused: why not, measured: [m.h5]}                                     */
int validate_manifest(struct validate *v, const char *path, struct err *e);
/* One run file, its rows in due order. Errors also: ST_USAGE of a run that ended early, since its
 * requests are those that were quick to finish. */
int validate_read(const char *path, struct arena *a, struct validate_run *out, struct err *e);
/* ST_USAGE where case c of v->c has a run in common with an earlier case, twice among its measured
 * ones, or as prediction and measurement; where both arms of the A/A check have. By any path, or as a
 * copy. */
int validate_check_files(const struct validate *v, const struct validate_case *c, struct err *e);
int validate_check_arms(const struct validate *v, struct err *e);
/* Words about a measured run of c that calibrated its prediction; NULL: none is known to. */
const char *validate_calibrated(const struct validate_case *c, struct arena *a);
/* Whether a scenario draws its requests, so that its seed decides which they are: no trace. */
struct doc;
bool validate_draws(const struct doc *scenario);
/* ST_USAGE where a measured run has another model, strategy, load, policy or, of requests that are
 * drawn, seed than the prediction (without: than the first). Runs without a scenario pass. */
int validate_check_scenario(const struct validate_case *c, struct arena *a, struct err *e);
/* The same of both arms of the A/A check, of which all runs are equal. */
int validate_check_equal(const struct validate *v, struct err *e);
/* Sets c->machine and c->sources. ST_USAGE where the sides are of different machines. */
int validate_check_machine(struct validate_case *c, struct arena *a, struct err *e);
const char *validate_first_file(const struct validate_case *c); /* for words about a case */
/* ST_USAGE where a prediction again is of another scenario or machine, measured or there twice. */
int validate_check_again(const struct validate_case *c, struct arena *a, struct err *e);
/* Pairs the requests of a case's runs and reduces them to quantities. */
void validate_pair(struct validate_case *c, struct arena *a);
int validate_disturbed(const struct validate_case *c); /* of its runs: how many say so */

/* ---- figures: everything below `sum`, and the cases' errors, of runs that were paired */
void validate_compute(struct validate *v);
/* Kolmogorov-Smirnov distance and W1 of two sorted samples. */
double validate_ks(const double *x, int64_t n, const double *y, int64_t m);
double validate_w1(const double *x, int64_t n, const double *y, int64_t m);

/* What the prediction is off by in a step, by the classes that both sides tell apart: operator classes,
 * communication, host; or compute, communication, host. Seconds. The number of classes; 0: nothing to
 * compare. */
enum { VALIDATE_N_RESIDUAL = VALIDATE_N_PART + VALIDATE_N_OP - 1 };
struct validate_residual {
    const char *name;
    double predicted, measured;
};
int validate_residuals(const struct validate_case *c, struct validate_residual *r);

/* ---- showing */
void validate_print(const struct validate *v, FILE *f);
void validate_markdown(const struct validate *v, FILE *f);
json_t *validate_json(const struct validate *v);
/* HTML with figures. Errors: ST_IO of gnuplot, ST_STOPPED. */
int validate_page(const struct validate *v, FILE *f, struct err *e);

#endif
