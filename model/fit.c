/* model/fit.c - robust nonlinear least squares for the kernel laws, by GSL.
 *
 * Inside, a parameter is theta with ln v = ln lo + (ln hi - ln lo) / (1 + exp(-theta)): every step
 * of the trust region stays between the bounds, without corners.
 * SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <gsl/gsl_cdf.h>
#include <gsl/gsl_linalg.h>
#include <gsl/gsl_multifit_nlinear.h>
#include <math.h>
#include <stdlib.h>

#include "base/rng.h"
#include "base/stat.h"
#include "model/fit_in.h"

enum { DEFAULT_STARTS = 12, LM_STEPS = 60, START_ROUNDS = 3, HUBER_ROUNDS = 8, TUKEY_ROUNDS = 30 };
/* 95 % efficiency under normal errors. */
static const double HUBER_C = 1.345, TUKEY_C = 4.685;
static const double START_SD = 0.1, LEAST_SD = 1e-6, SAME = 1e-6;

struct work {
    const struct fit_form *f;
    const struct fit_data *d;
    int64_t *row, n; /* the points in use */
    double *r, *sd;  /* of those: residual, and its sd at the present tau */
    gsl_vector *weight;
    gsl_multifit_nlinear_workspace *w;
};

/* ---- parameters */

static double log_v_of(const struct fit_par *p, double theta)
{
    return log(p->lo) + log(p->hi / p->lo) / (1 + exp(-theta));
}

static double slope_of(const struct fit_par *p, double theta)
{
    double s = 1 / (1 + exp(-theta));
    return log(p->hi / p->lo) * s * (1 - s);
}

static double theta_of(const struct fit_par *p, double log_v)
{
    double w = (log_v - log(p->lo)) / log(p->hi / p->lo);
    w = fmin(1 - 1e-9, fmax(1e-9, w));
    return log(w / (1 - w));
}

void fit_values(const struct fit_form *f, const double *log_v, double *v)
{
    for (int j = 0; j < f->n_par; j++) v[j] = fmin(f->par[j].hi, fmax(f->par[j].lo, exp(log_v[j])));
}

/* ---- GSL's view: n points, then one row per prior */

static int residuals(const gsl_vector *theta, void *params, gsl_vector *out)
{
    struct work *w = params;
    double log_v[FIT_MAX_PAR], v[FIT_MAX_PAR];
    for (int j = 0; j < w->f->n_par; j++)
        log_v[j] = log_v_of(w->f->par + j, gsl_vector_get(theta, (size_t)j));
    fit_values(w->f, log_v, v);
    for (int64_t i = 0; i < w->n; i++) {
        int64_t k = w->row[i];
        double t = w->f->eval(w->f, w->d->x + k * w->f->n_size, v, NULL);
        gsl_vector_set(out, (size_t)i, log(t / w->d->s[k]));
    }
    for (int j = 0; j < w->f->n_par; j++) {
        const struct fit_par *p = w->f->par + j;
        gsl_vector_set(out, (size_t)(w->n + j), (log_v[j] - log(p->centre)) / p->width);
    }
    return GSL_SUCCESS;
}

static int jacobian(const gsl_vector *theta, void *params, gsl_matrix *out)
{
    struct work *w = params;
    double v[FIT_MAX_PAR], slope[FIT_MAX_PAR], grad[FIT_MAX_PAR];
    int n_par = w->f->n_par;
    for (int j = 0; j < n_par; j++) {
        double at = gsl_vector_get(theta, (size_t)j);
        v[j] = exp(log_v_of(w->f->par + j, at));
        slope[j] = slope_of(w->f->par + j, at);
    }
    for (int64_t i = 0; i < w->n; i++) {
        double t = w->f->eval(w->f, w->d->x + w->row[i] * w->f->n_size, v, grad);
        for (int j = 0; j < n_par; j++)
            gsl_matrix_set(out, (size_t)i, (size_t)j, grad[j] / t * slope[j]);
    }
    for (int i = 0; i < n_par; i++)
        for (int j = 0; j < n_par; j++)
            gsl_matrix_set(out, (size_t)(w->n + i), (size_t)j,
                           i == j ? slope[j] / w->f->par[j].width : 0);
    return GSL_SUCCESS;
}

/* Least squares with the present weights, from log_v and back into it. */
static int descend(struct work *w, double *log_v)
{
    double at[FIT_MAX_PAR];
    int info, n_par = w->f->n_par;
    gsl_multifit_nlinear_fdf fdf = {
        .f = residuals, .df = jacobian, .n = (size_t)(w->n + n_par), .p = (size_t)n_par, .params = w
    };
    for (int j = 0; j < n_par; j++) at[j] = theta_of(w->f->par + j, log_v[j]);
    gsl_vector_view x = gsl_vector_view_array(at, (size_t)n_par);
    if (gsl_multifit_nlinear_winit(&x.vector, w->weight, &fdf, w->w) != GSL_SUCCESS) return -1;
    /* A start that ends early is judged by its cost like any other. */
    gsl_multifit_nlinear_driver(LM_STEPS, 1e-9, 1e-12, 0, NULL, NULL, &info, w->w);
    const gsl_vector *best = gsl_multifit_nlinear_position(w->w);
    for (int j = 0; j < n_par; j++) {
        double theta = gsl_vector_get(best, (size_t)j);
        if (!isfinite(theta)) return -1;
        log_v[j] = log_v_of(w->f->par + j, theta);
    }
    return 0;
}

static void look(struct work *w, const double *log_v)
{
    double v[FIT_MAX_PAR];
    fit_values(w->f, log_v, v);
    for (int64_t i = 0; i < w->n; i++) {
        int64_t k = w->row[i];
        w->r[i] = log(w->f->eval(w->f, w->d->x + k * w->f->n_size, v, NULL) / w->d->s[k]);
    }
}

/* ---- robust weights */

enum loss { FLAT, SOFT_L1, HUBER, TUKEY };

static double weight_at(enum loss loss, double u)
{
    double a = fabs(u), z = u / TUKEY_C;
    switch (loss) {
    case SOFT_L1: return 1 / sqrt(1 + u * u);
    case HUBER: return a <= HUBER_C ? 1 : HUBER_C / a;
    case TUKEY: return a < TUKEY_C ? (1 - z * z) * (1 - z * z) : 0;
    default: return 1;
    }
}

static void set_weights(struct work *w, enum loss loss)
{
    for (int64_t i = 0; i < w->n; i++)
        gsl_vector_set(w->weight, (size_t)i,
                       weight_at(loss, w->r[i] / w->sd[i]) / (w->sd[i] * w->sd[i]));
    for (int j = 0; j < w->f->n_par; j++) gsl_vector_set(w->weight, (size_t)(w->n + j), 1);
}

static double soft_cost(const struct work *w, const double *log_v)
{
    double sum = 0;
    for (int64_t i = 0; i < w->n; i++) {
        double u = w->r[i] / START_SD;
        sum += 2 * (sqrt(1 + u * u) - 1);
    }
    for (int j = 0; j < w->f->n_par; j++) {
        double u = (log_v[j] - log(w->f->par[j].centre)) / w->f->par[j].width;
        sum += u * u;
    }
    return sum;
}

static double median_ratio(const struct work *w, double tau, double *u)
{
    for (int64_t i = 0; i < w->n; i++) {
        double own = w->d->sd[w->row[i]];
        u[i] = fabs(w->r[i]) / sqrt(tau * tau + own * own + LEAST_SD * LEAST_SD);
    }
    stat_sort(u, (size_t)w->n);
    return stat_quantile_sorted(u, (size_t)w->n, 0.5);
}

/* tau for which the median of |r| / sd is that of a normal, corrected for the parameters fitted. */
static double estimate_tau(const struct work *w, double *u)
{
    double free_points = fmax(1, (double)(w->n - w->f->n_par));
    double want = 0.674489750196082 * sqrt(free_points / (double)w->n), lo = LEAST_SD, hi = 50;
    if (median_ratio(w, lo, u) <= want) return lo;
    for (int i = 0; i < 60 && hi / lo > 1 + 1e-6; i++) {
        double mid = sqrt(lo * hi);
        if (median_ratio(w, mid, u) > want)
            lo = mid;
        else
            hi = mid;
    }
    return sqrt(lo * hi);
}

static void set_sd(struct work *w, double tau)
{
    for (int64_t i = 0; i < w->n; i++) {
        double own = w->d->sd[w->row[i]];
        w->sd[i] = sqrt(tau * tau + own * own + LEAST_SD * LEAST_SD);
    }
}

static bool moved(const struct fit_form *f, const double *a, const double *b)
{
    for (int j = 0; j < f->n_par; j++)
        if (fabs(a[j] - b[j]) > SAME) return true;
    return false;
}

/* Reweighted until nothing moves: Huber with the scale found anew each time, then Tukey with that
 * scale kept (a redescending fit that chose its own scale could settle on half of the points). */
static int refine(struct work *w, double *log_v, double *tau)
{
    double before[FIT_MAX_PAR] = { 0 };
    double *u = mem_alloc((size_t)w->n * sizeof *u);
    int st = 0;
    bool tukey = false;
    for (int round = 0; round < HUBER_ROUNDS + TUKEY_ROUNDS && st == 0; round++) {
        look(w, log_v);
        if (!tukey) {
            *tau = estimate_tau(w, u);
            set_sd(w, *tau);
        }
        set_weights(w, tukey ? TUKEY : HUBER);
        for (int j = 0; j < w->f->n_par; j++) before[j] = log_v[j];
        st = descend(w, log_v);
        bool still = !moved(w->f, before, log_v);
        if (tukey && still) break;
        tukey |= still || round + 1 >= HUBER_ROUNDS;
    }
    look(w, log_v);
    free(u);
    return st;
}

/* ---- starts */

static void start_at(const struct work *w, struct rng r, int start, const double *from,
                     double *log_v)
{
    struct rng s = rng_child(r, (uint64_t)start);
    for (int j = 0; j < w->f->n_par; j++) {
        const struct fit_par *p = w->f->par + j;
        double at = log(p->centre);
        if (from)
            at = from[j];
        else if (start > 0)
            at += 1.5 * p->width * rng_normal(s, (uint64_t)j);
        double edge = 0.02 * log(p->hi / p->lo);
        log_v[j] = fmin(log(p->hi) - edge, fmax(log(p->lo) + edge, at));
    }
}

static int try_start(struct work *w, double *log_v, double *cost)
{
    int st = 0;
    for (int64_t i = 0; i < w->n; i++) w->sd[i] = START_SD;
    for (int round = 0; round < START_ROUNDS && st == 0; round++) {
        look(w, log_v);
        set_weights(w, round ? SOFT_L1 : FLAT);
        st = descend(w, log_v);
    }
    look(w, log_v);
    *cost = soft_cost(w, log_v);
    return isfinite(*cost) ? st : -1;
}

static void work_init(struct work *w, const struct fit_form *f, const struct fit_data *d,
                      const bool *use)
{
    gsl_multifit_nlinear_parameters how = gsl_multifit_nlinear_default_parameters();
    *w = (struct work){ .f = f, .d = d };
    w->row = mem_alloc((size_t)d->n * sizeof *w->row);
    for (int64_t i = 0; i < d->n; i++)
        if (!use || use[i]) w->row[w->n++] = i;
    w->r = mem_alloc((size_t)w->n * 2 * sizeof *w->r + 1);
    w->sd = w->r + w->n;
    size_t n = (size_t)(w->n + f->n_par);
    how.trs = gsl_multifit_nlinear_trs_lm;
    how.solver = gsl_multifit_nlinear_solver_qr;
    w->weight = gsl_vector_alloc(n);
    w->w = gsl_multifit_nlinear_alloc(gsl_multifit_nlinear_trust, &how, n, (size_t)f->n_par);
}

static void work_release(struct work *w)
{
    gsl_multifit_nlinear_free(w->w);
    gsl_vector_free(w->weight);
    free(w->r);
    free(w->row);
}

int fit_solve(const struct fit_form *f, const struct fit_data *d, const bool *use,
              const double *from, const struct fit_ask *q, struct fit_state *out)
{
    struct work w;
    struct rng r = rng_stream(q->seed, "fit.starts");
    double log_v[FIT_MAX_PAR] = { 0 }, cost;
    int n_start = from ? 1 : q->n_start > 0 ? q->n_start : DEFAULT_STARTS, st = -1;
    work_init(&w, f, d, use);
    out->cost = INFINITY;
    for (int s = 0; s < n_start && w.w && w.weight; s++) {
        start_at(&w, r, s, from, log_v);
        if (try_start(&w, log_v, &cost) != 0 || cost >= out->cost) continue;
        out->cost = cost;
        for (int j = 0; j < f->n_par; j++) out->log_v[j] = log_v[j];
        st = 0;
    }
    if (st == 0) st = refine(&w, out->log_v, &out->tau);
    for (int64_t i = 0; i < d->n && out->weight; i++) out->weight[i] = 0;
    for (int64_t i = 0; i < w.n && out->weight && st == 0; i++)
        out->weight[w.row[i]] = weight_at(TUKEY, w.r[i] / w.sd[i]);
    work_release(&w);
    return st;
}

/* ---- covariance */

/* Points of a site err together when the law's form is wrong there: the factor by which that
 * widens the variance of means, 1 + (m - 1) rho, where an F test at 5 % finds rho > 0. */
static double design_effect(const struct fit_form *f, const struct fit_data *d, const double *u)
{
    int64_t *site = mem_alloc((size_t)d->n * sizeof *site), n_site = fit_sites(f, d, site);
    double *sum = mem_zalloc((size_t)n_site * 2, sizeof *sum), *count = sum + n_site;
    double within = 0, between = 0, mean = 0, n = (double)d->n, g = (double)n_site, square = 0;
    for (int64_t i = 0; i < d->n; i++) {
        sum[site[i]] += u[i];
        count[site[i]]++;
        mean += u[i] / n;
    }
    for (int64_t k = 0; k < n_site; k++) {
        double m = sum[k] / count[k] - mean;
        between += count[k] * m * m;
        square += count[k] * count[k];
    }
    for (int64_t i = 0; i < d->n; i++) {
        double x = u[i] - sum[site[i]] / count[site[i]];
        within += x * x;
    }
    free(sum);
    free(site);
    if (n_site < 3 || n <= g || within <= 0) return 1;
    double ratio = between / (g - 1) / (within / (n - g)), m = (n - square / n) / (g - 1);
    if (ratio <= gsl_cdf_fdist_Pinv(0.95, g - 1, n - g)) return 1;
    double rho = (ratio - 1) / (ratio - 1 + m);
    return 1 + (square / n - 1) * rho;
}

/* J^T J over the points, each by its sd, plus the priors. */
static void information(const struct fit_form *f, const struct fit_data *d,
                        const struct fit_state *s, double *u, gsl_matrix *a)
{
    double v[FIT_MAX_PAR], grad[FIT_MAX_PAR];
    fit_values(f, s->log_v, v);
    gsl_matrix_set_zero(a);
    for (int64_t i = 0; i < d->n; i++) {
        double t = f->eval(f, d->x + i * f->n_size, v, grad);
        double var = s->tau * s->tau + d->sd[i] * d->sd[i] + LEAST_SD * LEAST_SD;
        u[i] = log(t / d->s[i]) / sqrt(var);
        for (int j = 0; j < f->n_par; j++)
            for (int k = 0; k < f->n_par; k++)
                *gsl_matrix_ptr(a, (size_t)j, (size_t)k) += grad[j] * grad[k] / (t * t * var);
    }
    for (int j = 0; j < f->n_par; j++)
        *gsl_matrix_ptr(a, (size_t)j, (size_t)j) += 1 / (f->par[j].width * f->par[j].width);
}

/* Huber's variance factor of an M-estimate: K^2 [sum psi^2 / (n - p)] / [mean psi']^2. */
static double spread_factor(const double *u, int64_t n, int n_par)
{
    double psi2 = 0, dpsi = 0, dpsi2 = 0, count = (double)n;
    for (int64_t i = 0; i < n; i++) {
        double z = u[i] / TUKEY_C, in = 1 - z * z, psi = fabs(z) < 1 ? u[i] * in * in : 0;
        double slope = fabs(z) < 1 ? in * (1 - 5 * z * z) : 0;
        psi2 += psi * psi;
        dpsi += slope / count;
        dpsi2 += slope * slope / count;
    }
    if (dpsi <= 0.05) dpsi = 0.05;
    double k = 1 + n_par / count * fmax(0, dpsi2 - dpsi * dpsi) / (dpsi * dpsi);
    return k * k * psi2 / fmax(1, (double)(n - n_par)) / (dpsi * dpsi);
}

void fit_covariance(const struct fit_form *f, const struct fit_data *d, const struct fit_state *s,
                    double cov[FIT_MAX_PAR][FIT_MAX_PAR])
{
    double *u = mem_alloc((size_t)d->n * sizeof *u);
    gsl_matrix *a = gsl_matrix_alloc((size_t)f->n_par, (size_t)f->n_par);
    information(f, d, s, u, a);
    double factor = spread_factor(u, d->n, f->n_par);
    /* Outliers have their weight in the fit, and no more here. */
    for (int64_t i = 0; i < d->n; i++) u[i] *= weight_at(TUKEY, u[i]);
    factor *= design_effect(f, d, u);
    /* The priors make it positive definite. */
    bool sound = gsl_linalg_cholesky_decomp1(a) == GSL_SUCCESS;
    if (sound) gsl_linalg_cholesky_invert(a);
    for (int j = 0; j < f->n_par; j++)
        for (int k = 0; k < f->n_par; k++)
            cov[j][k] = sound    ? factor * gsl_matrix_get(a, (size_t)j, (size_t)k)
                        : j == k ? f->par[j].width * f->par[j].width
                                 : 0;
    gsl_matrix_free(a);
    free(u);
}
