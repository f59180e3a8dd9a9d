/* model/fit_in.h - inside of the fits: a law as a function of sizes and parameters. Shared by fit.c
 * (least squares), fit_law.c (the laws) and fit_check.c (points and errors); tests of the
 * Jacobians may include it. SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_FIT_IN_H
#define MODEL_FIT_IN_H

#include "model/fit.h"

struct fit_par {
    enum profile_id id;
    double lo, hi;        /* bounds: the fit stays strictly between */
    double centre, width; /* prior of ln v: normal about ln(centre) with sd width */
};

struct fit_form {
    enum profile_law law;
    int n_par, n_size;
    struct fit_par par[FIT_MAX_PAR];
    enum profile_size size[FIT_MAX_SIZE];
    bool site[FIT_MAX_SIZE];  /* sizes that make a site: its points are left out together */
    bool range[FIT_MAX_SIZE]; /* sizes whose range is kept */
    double peak_flop_per_s, mem_bytes_per_s;
    double skew_s; /* LAW_STEP: of a collective, not fitted */
    /* Seconds at sizes x with parameters v; grad[j] = d T / d ln v[j] unless NULL. */
    double (*eval)(const struct fit_form *f, const double *x, const double *v, double *grad);
};

struct fit_data {
    int64_t n;
    double *x;      /* [n][n_size] */
    double *s, *sd; /* seconds, and sd of ln s */
};

/* The forms, their priors set from the data. */
void fit_form_gemm(struct fit_form *f, const struct fit_ask *q, const struct fit_data *d);
void fit_form_decode(struct fit_form *f, const struct fit_ask *q, const struct fit_data *d);
void fit_form_prefill(struct fit_form *f, const struct fit_ask *q, const struct fit_data *d);
void fit_form_elt(struct fit_form *f, const struct fit_ask *q, const struct fit_data *d);
void fit_form_coll(struct fit_form *f, enum profile_law law, bool ramp, const struct fit_data *d);
void fit_form_step(struct fit_form *f, const struct fit_ask *q, bool tells_skew,
                   const struct fit_data *d);

/* Result of the least squares alone: ln v, weights 0..1 of the points, what the law leaves out. */
struct fit_state {
    double log_v[FIT_MAX_PAR];
    double tau;
    double cost; /* robust, at a scale common to all starts */
    double *weight;
};
/* v = exp(log_v), within the bounds: at one, the logarithm's rounding leads past it, to a weight of
 * 1 and 2e-15 that no profile takes. */
void fit_values(const struct fit_form *f, const double *log_v, double *v);
/* Points with use[i] false (use may be NULL) are left out. from: ln v to start at besides the
 * seeded starts, or NULL. weight: [n], the caller's. */
int fit_solve(const struct fit_form *f, const struct fit_data *d, const bool *use,
              const double *from, const struct fit_ask *q, struct fit_state *out);
void fit_covariance(const struct fit_form *f, const struct fit_data *d, const struct fit_state *s,
                    double cov[FIT_MAX_PAR][FIT_MAX_PAR]);

/* Points of the right kind, enough of them. */
int fit_check(const struct fit_form *f, const struct fit_data *d, struct err *e);
/* The whole fit: check, solve, covariance, cross-validation, words. */
int fit_run(const struct fit_form *f, const struct fit_data *d, const struct fit_ask *q,
            struct fit *out, struct err *e);
/* Site number of each point, 0 .. result - 1. */
int64_t fit_sites(const struct fit_form *f, const struct fit_data *d, int64_t *site);

#endif
