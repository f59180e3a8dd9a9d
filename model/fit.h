/* model/fit.h - fits the kernel laws to measured points: constants, covariance, honest errors.
 *
 * Parameters are fitted as logarithms, residuals are ln(predicted / measured), by nonlinear least
 * squares (GSL, trust region, analytic Jacobian) from several seeded starts. The variance of a
 * point is that of its samples plus tau^2, what the law leaves out, estimated robustly; residuals
 * are weighted by Huber's and then Tukey's bisquare function, so that a share of wrong points does
 * not move the fit. Covariance: Huber's formula for M-estimates (Huber, Robust Statistics, 1981,
 * 7.6). Each parameter has a weak prior (a factor of 10 or so about a value that the sizes
 * suggest): it decides only what the points leave open, and then the parameter is not `known`, its
 * sd is held at FIT_OPEN_SD and the note says so.
 *
 * Errors are shares of the measured time. `held` is by cross-validation that leaves whole sites out
 * (all points of one (n, k), one message size, ...): every error of a law that is printed should be
 * that one; `in` is shown beside it. All points count in both, outliers too.
 *
 * Nothing here reads a clock or a file. The same points and seed give the same fit. Errors:
 * ST_USAGE with one sentence for points that no law can be fitted to (too few, not finite, not
 * positive, all of one size, all of one time), ST_RANGE for those that contradict it or each other, or
 * whose samples scatter as much. GSL's error handler must be off.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_FIT_H
#define MODEL_FIT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "model/law.h"
#include "model/profile.h"

enum { FIT_MAX_PAR = PROFILE_BLOCK_MAX, FIT_MAX_SIZE = 8 };
#define FIT_OPEN_SD      0.5 /* of ln v, from which on a parameter counts as not known */
#define FIT_HOPELESS_TAU 1.1 /* of ln time, from which on points contradict their law */

struct fit_ask {
    double peak_flop_per_s, mem_bytes_per_s; /* that efficiencies multiply; as the profile's */
    int dtype;          /* enum dtype of the weights (LAW_GEMM) or of the KV cache (attention) */
    int ranks;          /* of a collective; else 1 */
    bool online;        /* LAW_GEMM: inputs are quantized on the fly, so e_q is fitted */
    bool device_only;   /* LAW_STEP: the times hold no host work, so no host time is fitted */
    bool host_apart;    /* LAW_STEP: host times were measured beside these, so that what is constant
                            is no more than submitting: the ranks' waiting has it */
    double rank_skew_s; /* LAW_STEP: a collective's, where the points do not tell it */
    uint64_t seed;      /* of the starts and the folds */
    int n_start, n_fold; /* 0: 12 starts, 8 folds; n_fold < 0: no cross-validation */
    const char *source;  /* words for the constants: "bench.h5, 2026-08-01, 2 threads" */
    struct arena *a;     /* of all that a struct fit points to */
};

struct fit_error { /* |predicted / measured - 1|; NAN where there is none */
    double mape, median, p90, worst;
    double bias; /* mean of ln(predicted / measured) */
};

struct fit_range {
    enum profile_size size;
    double lo, hi;
};

struct fit {
    enum profile_law law;
    int dtype, ranks;
    int n_par;
    enum profile_id id[FIT_MAX_PAR];
    double v[FIT_MAX_PAR], sd_log[FIT_MAX_PAR];
    double cov[FIT_MAX_PAR][FIT_MAX_PAR]; /* of ln v; its diagonal is sd_log^2 */
    bool known[FIT_MAX_PAR];
    double tau;    /* sd of ln(measured / law) beyond the samples' own spread */
    double spread; /* median of the points' own sd */
    struct fit_error in, held;
    struct fit_range range[FIT_MAX_SIZE];
    int n_range;
    int64_t n_point, n_site, n_outlier; /* outliers: points that the weights leave out */
    const char *note;                   /* what the points do not tell; "" */
    const char *source;
    /* The table beside the law: each point, in the order given. */
    enum profile_size size_of[FIT_MAX_SIZE];
    int n_size;
    const double *size;                              /* [n_point][n_size] */
    const double *measured_s, *predicted_s, *weight; /* weight 0 .. 1 */
};

/* A measured time: s the value (median of runs, say), sd_log the standard error of ln s; 0:
 * unknown. Bytes per element and per message are to be counted as the operator list counts them
 * (model/ops.h), whatever the engine moves. */
struct fit_gemm_point {
    struct law_gemm_shape shape;
    double s, sd_log;
};
struct fit_decode_point { /* seqs sequences of sum_ctx tokens in all, at most max_ctx */
    double seqs, sum_ctx, max_ctx, n_head, n_kv_head, head_dim, kv_bytes;
    double s, sd_log;
};
struct fit_prefill_point { /* pairs, io_bytes: see law.h; tok new tokens */
    double pairs, tok, io_bytes, n_head, head_dim;
    double s, sd_log;
};
struct fit_bytes_point { /* element-wise work, messages */
    double bytes;
    double s, sd_log;
};
/* A whole step: seqs sequences, tok new prompt tokens, device_s predicted without the constants
 * fitted here, n_coll all-reduces. Host and device one after the other. Columns of zeros leave
 * their constant out: device_s all 0 for steps of a null model. With as many all-reduces in every
 * step nothing tells a constant of a step from one of an all-reduce: with q->host_apart rank_skew takes
 * it and host.step is left out; else rank_skew is not fitted but q->rank_skew_s, and host.step takes
 * the rest (fit_tells_rank_skew). */
struct fit_step_point {
    double seqs, tok, device_s, n_coll;
    double s, sd_log;
};

int fit_gemm(const struct fit_ask *q, const struct fit_gemm_point *p, int64_t n, struct fit *out,
             struct err *e);
/* t0, e_m, s_per_bh, and skew.alpha where contexts differ; decode.floor is not fitted. */
int fit_decode(const struct fit_ask *q, const struct fit_decode_point *p, int64_t n,
               struct fit *out, struct err *e);
int fit_prefill(const struct fit_ask *q, const struct fit_prefill_point *p, int64_t n,
                struct fit *out, struct err *e);
int fit_elt(const struct fit_ask *q, const struct fit_bytes_point *p, int64_t n, struct fit *out,
            struct err *e);
/* law: LAW_ALLREDUCE, LAW_OWN_ALLREDUCE or LAW_ALLGATHER over q->ranks. A + S/B + C S/(S+S0) where
 * the points ask for the ramp (Bayesian information criterion), else A + S/B with C = 0. */
int fit_coll(const struct fit_ask *q, enum profile_law law, const struct fit_bytes_point *p,
             int64_t n, struct fit *out, struct err *e);
/* law: LAW_P2P or LAW_NET. */
int fit_p2p(const struct fit_ask *q, enum profile_law law, const struct fit_bytes_point *p,
            int64_t n, struct fit *out, struct err *e);
int fit_step(const struct fit_ask *q, const struct fit_step_point *p, int64_t n, struct fit *out,
             struct err *e);

/* Whether rank_skew can be told from these steps. */
bool fit_tells_rank_skew(const struct fit_ask *q, const struct fit_step_point *p, int64_t n);

/* Of n predicted times; NAN of none. */
struct fit_error fit_error_of(const double *measured, const double *predicted, int64_t n);

/* Constant of a fit by id, NAN if it has none. */
double fit_value(const struct fit *f, enum profile_id id);
/* "gemm bf16: e_m 0.81 +- 2 %, ...; 64 points at 16 sites, MAPE 3.1 %, held out 3.4 % ..." in a. */
const char *fit_words(const struct fit *f, struct arena *a);

#endif
