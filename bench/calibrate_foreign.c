/* bench/calibrate_foreign.c - another engine's constants over the catalog's, from one load test.
 *
 * The requests of the run are simulated at their own instants. host.step, host.request and the
 * common factor are moved until time per output token and time to first token agree: residuals are
 * means of ln(simulated / measured) over groups of consecutive requests, each with its standard
 * error, and each constant has a weak prior about the catalog's value. A simulation answers in steps
 * and has many small minima: so grids over host.step and the factor, which nearly make up for each
 * other, then a simplex from their best places, then least squares by differences, which also gives the
 * covariance. Of a host that works beside the device only the longer of the two shows: so one grid is
 * about the catalog's host.step and one about the measured step, and where the best of both explain
 * the times as well, a warning says so. A constant that explains them as well with the catalog's value
 * keeps that. Intervals are as wide as the covariance, as what one constant alone can move and still
 * explain the times, and as what stays unexplained.
 * SPDX-License-Identifier: Apache-2.0 */
#include <gsl/gsl_multifit_nlinear.h>
#include <gsl/gsl_multimin.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/stat.h"
#include "bench/calibrate.h"

enum {
    N_PAR = 3,
    GROUPS = 20,
    FEW_REQUESTS = 40,
    STEPS = 40,
    SIMPLEX_STEPS = 120,
    GRID = 13,
    N_BEST = 2
};
static const double DIFFERENCE = 0.005;
static const enum profile_id moved[N_PAR] = { P_HOST_STEP_S, P_HOST_REQ_S, P_LAW };
static const double prior_sd[N_PAR] = { 1, 1, 0.5 };
/* The catalog's products run at about 0.8 of the peaks of arithmetic and memory, mostly: a factor below
 * 0.7 is a device faster than its peaks. Above 3 an engine leaves three quarters of it unused. */
static const double LAW_LEAST = 0.7, LAW_MOST = 3;
/* Constants of a scenario that describes the run leave a tenth or two. With half of the requests off
 * by more than half, whatever moved them, no prediction by them is worth having. */
static const double GROSS = 0.5;
/* A fit to noise moves a median by some percent, either way: better is by a tenth at least. */
static const double BETTER = 0.9;
/* Two rounds of grids: ln of the reach of the factor, either way, in both; of host.step in the second;
 * and the sizes of simplex that the searches and the last one end with. */
static const double LAW_SPAN[2] = { 0.7, 0.12 }, FINE = 1.06, SEARCH_END = 1e-3, LAST_END = 1e-4;
/* How far one constant alone is moved to see whether it shows, of ln. */
static const double SCAN_STEP = 0.1, SCAN_END = 1;
/* Two places explain the times as well when their sums of squares differ by less than three sd of
 * one residual do; they are two explanations when their factors differ by more than this. */
static const double AS_WELL = 9, APART = 0.05;
/* Where the catalog has none: a guess of the size. */
static const double at_zero[N_PAR] = { 1e-4, 1e-4, 1 };

struct request {
    int64_t due_ns;
    double n_in, n_out, tpot_s, ttft_s; /* NAN: none */
};

struct replay {
    struct calibrate *c;
    struct scenario *s;
    struct deploy *d;
    struct trace_req *row;
    struct request *measured, *simulated;
    int64_t n, n_sim;
    double start[N_PAR]; /* ln of the catalog's */
    double sd[2 * GROUPS];
    struct err e;
};

static int by_request(const void *a, const void *b)
{
    const struct request *x = a, *y = b;
    if (x->due_ns != y->due_ns) return x->due_ns < y->due_ns ? -1 : 1;
    if (x->n_in != y->n_in) return x->n_in < y->n_in ? -1 : 1;
    if (x->n_out != y->n_out) return x->n_out < y->n_out ? -1 : 1;
    return x->ttft_s < y->ttft_s ? -1 : x->ttft_s > y->ttft_s;
}

static struct request request_of(double due, double first, double last, double n_in, double n_out)
{
    struct request q = { (int64_t)due, n_in, n_out, NAN, 1e-9 * (first - due) };
    if (n_out >= 2 && last > first) q.tpot_s = 1e-9 * (last - first) / (n_out - 1);
    if (!(q.ttft_s > 0)) q.ttft_s = NAN;
    return q;
}

static void on_request(void *ctx, const struct run_request *r)
{
    struct replay *k = ctx;
    if (r->status == RUN_OK && k->n_sim < k->n)
        k->simulated[k->n_sim++] =
            request_of((double)r->t_due_ns, (double)r->t_first_ns, (double)r->t_last_ns,
                       (double)r->n_in, (double)r->n_out);
}

/* The measured requests served with constants exp(log_v). */
static int simulate(struct replay *k, const double *log_v)
{
    struct arena a;
    struct metrics m;
    struct step *step;
    const struct scenario *s = k->s;
    struct profile p = k->d->profile;
    struct sim_sink sink = { .ctx = k, .request = on_request };
    struct sim_setup u = { .deploy = k->d,
                           .sched = &s->policy,
                           .router = s->sim.router,
                           .p2p = s->sim.p2p,
                           .fast = true,
                           .bin_ns = s->o.bin_ns,
                           .sink = &sink };
    for (int j = 0; j < N_PAR; j++) p.p[moved[j]].v = exp(log_v[j]);
    k->n_sim = 0;
    arena_init(&a);
    metrics_init(&m);
    int st = deploy_step(k->d, &p, &a, &step, &k->e);
    u.step = step;
    if (st == ST_OK) st = trace_from_rows(k->row, k->n, &u.trace, &k->e);
    if (st == ST_OK) {
        st = sim_run(&u, &a, &m, &k->e);
        trace_close(u.trace);
    }
    if (st == ST_OK && m.stopped) st = err_set(&k->e, ST_STOPPED, "interrupted");
    metrics_release(&m);
    arena_release(&a);
    qsort(k->simulated, (size_t)k->n_sim, sizeof *k->simulated, by_request);
    if (st == ST_OK && k->n_sim != k->n)
        st = err_set(&k->e, ST_USAGE,
                     "the scenario ends %lld of the %lld requests that the run ended: it is not "
                     "what was measured",
                     (long long)k->n_sim, (long long)k->n);
    return st;
}

/* ln(simulated / measured) of one request: kind 0 per output token, 1 to the first. */
static double ratio(const struct replay *k, int64_t i, int kind)
{
    const struct request *x = k->simulated + i, *y = k->measured + i;
    return kind ? log(x->ttft_s / y->ttft_s) : log(x->tpot_s / y->tpot_s);
}

static void group_mean(const struct replay *k, int g, int kind, double *mean, double *se)
{
    int64_t from = g * k->n / GROUPS, to = (g + 1) * k->n / GROUPS;
    double *x = mem_alloc((size_t)(to - from + 1) * sizeof *x);
    size_t n = 0;
    for (int64_t i = from; i < to; i++) {
        double r = ratio(k, i, kind);
        if (isfinite(r)) x[n++] = fmax(-5, fmin(5, r));
    }
    *mean = n > 0 ? stat_mean(x, n) : 0;
    *se = n > 1 ? fmax(2e-3, stat_sd(x, n) / sqrt((double)n)) : 1e3;
    free(x);
}

static int residuals(const gsl_vector *at, void *params, gsl_vector *out)
{
    struct replay *k = params;
    double log_v[N_PAR], mean, se;
    for (int j = 0; j < N_PAR; j++) {
        log_v[j] = gsl_vector_get(at, (size_t)j);
        gsl_vector_set(out, (size_t)(2 * GROUPS + j), (log_v[j] - k->start[j]) / prior_sd[j]);
    }
    if (k->e.status || simulate(k, log_v) != ST_OK) return GSL_EFAILED;
    for (int g = 0; g < 2 * GROUPS; g++) {
        group_mean(k, g % GROUPS, g / GROUPS, &mean, &se);
        gsl_vector_set(out, (size_t)g, mean / k->sd[g]);
    }
    return GSL_SUCCESS;
}

static double median_error(const struct replay *k, int kind)
{
    double *x = mem_alloc((size_t)k->n * sizeof *x);
    size_t n = 0;
    for (int64_t i = 0; i < k->n; i++) {
        double r = ratio(k, i, kind);
        if (isfinite(r)) x[n++] = fabs(exp(r) - 1);
    }
    stat_sort(x, n);
    double mid = n > 0 ? stat_quantile_sorted(x, n, 0.5) : NAN;
    free(x);
    return mid;
}

/* ---- the measured requests */

static int read_requests(struct replay *k, struct calibrate_file *f, struct err *e)
{
    static const char *const names[] = { "requests/t_due", "requests/t_first", "requests/t_last",
                                         "requests/n_in",  "requests/n_out",   "requests/status" };
    double *col[6];
    size_t n = 0;
    for (int i = 0; i < 6; i++) {
        size_t rows;
        int st = run_column(&f->run, names[i], k->c->a, &col[i], &rows, e);
        if (st != ST_OK) return st;
        if (i > 0 && rows != n)
            return err_set(e, ST_USAGE, "%s: columns of /requests differ in length", f->path);
        n = rows;
    }
    k->row = arena_array(k->c->a, n + 1, sizeof *k->row);
    k->measured = arena_array(k->c->a, n + 1, sizeof *k->measured);
    k->simulated = arena_array(k->c->a, n + 1, sizeof *k->simulated);
    for (size_t i = 0; i < n; i++) {
        bool sound = col[5][i] == RUN_OK && col[1][i] > 0 && col[2][i] >= col[1][i] &&
                     col[3][i] >= 1 && col[3][i] < 1e9 && col[4][i] >= 1 && col[4][i] < 1e9 &&
                     col[0][i] >= 0;
        if (sound)
            k->measured[k->n++] = request_of(col[0][i], col[1][i], col[2][i], col[3][i], col[4][i]);
    }
    qsort(k->measured, (size_t)k->n, sizeof *k->measured, by_request);
    for (int64_t i = 0; i < k->n; i++)
        k->row[i] = (struct trace_req){ .id = i,
                                        .t_due_ns = k->measured[i].due_ns,
                                        .n_in = (int32_t)k->measured[i].n_in,
                                        .n_out = (int32_t)k->measured[i].n_out,
                                        .session = -1 };
    f->said = arena_printf(k->c->a, "%lld of %zu requests%s%s: host.step, host.request, law",
                           (long long)k->n, n, *f->model ? " of what it calls " : "", f->model);
    if (k->n < FEW_REQUESTS)
        return err_set(e, ST_USAGE, "%s: %lld finished requests are too few, at least %d", f->path,
                       (long long)k->n, FEW_REQUESTS);
    if (k->measured[0].due_ns == k->measured[k->n - 1].due_ns && !isfinite(k->measured[0].tpot_s))
        return err_set(e, ST_USAGE, "%s: its requests have no instants", f->path);
    return ST_OK;
}

/* ---- the fit */

/* Groups weigh by the spread of their requests, as predicted now. */
static void weigh(struct replay *k)
{
    double mean;
    for (int g = 0; g < 2 * GROUPS; g++) group_mean(k, g % GROUPS, g / GROUPS, &mean, &k->sd[g]);
}

static void keep(struct replay *k, const double *log_v, const gsl_matrix *cov, double factor,
                 const double least_sd[N_PAR])
{
    struct calibrate *c = k->c;
    double left = median_error(k, 0), first = median_error(k, 1), sum = 0;
    int64_t n = 0;
    for (int64_t i = 0; i < k->n; i++)
        if (isfinite(k->measured[i].ttft_s)) sum += k->measured[i].ttft_s, n++;
    /* What is left of the first token's time may be host.request's whole, and law's share. */
    double ttft_s = n > 0 ? sum / (double)n : 0;
    double off[N_PAR] = { left, first * ttft_s / exp(log_v[1]), fmax(left, first) };
    for (int j = 0; j < N_PAR; j++)
        if (!isfinite(off[j])) off[j] = left;
    for (int j = 0; j < N_PAR; j++) {
        double var = fmax(0, gsl_matrix_get(cov, (size_t)j, (size_t)j)) * factor;
        double sd = fmax(least_sd[j], sqrt(var + off[j] * off[j]));
        c->extra[c->profile.n_extra++] =
            (struct profile_extra){ moved[j], exp(log_v[j]), fmin(FIT_OPEN_SD, sd) };
    }
}

/* One round from log_v and back into it; *factor: by which the misfit exceeds the spread. */
static void descend(struct replay *k, double h, double *log_v, gsl_matrix *cov, double *factor)
{
    enum { N = 2 * GROUPS + N_PAR };
    int info;
    gsl_multifit_nlinear_parameters how = gsl_multifit_nlinear_default_parameters();
    gsl_multifit_nlinear_fdf fdf = { .f = residuals, .n = N, .p = N_PAR, .params = k };
    how.h_df = h;
    gsl_multifit_nlinear_workspace *w =
        gsl_multifit_nlinear_alloc(gsl_multifit_nlinear_trust, &how, N, N_PAR);
    gsl_vector_view from = gsl_vector_view_array(log_v, N_PAR);
    if (gsl_multifit_nlinear_init(&from.vector, &fdf, w) == GSL_SUCCESS) {
        gsl_multifit_nlinear_driver(STEPS, 1e-5, 1e-8, 0, NULL, NULL, &info, w);
        const gsl_vector *best = gsl_multifit_nlinear_position(w);
        const gsl_vector *r = gsl_multifit_nlinear_residual(w);
        double chi2 = 0;
        for (size_t i = 0; i < N; i++) chi2 += gsl_vector_get(r, i) * gsl_vector_get(r, i);
        *factor = fmax(1, chi2 / (double)(N - N_PAR));
        gsl_multifit_nlinear_covar(gsl_multifit_nlinear_jac(w), 0, cov);
        for (int j = 0; j < N_PAR; j++) log_v[j] = gsl_vector_get(best, (size_t)j);
    }
    gsl_multifit_nlinear_free(w);
}

static double cost(const gsl_vector *at, void *params)
{
    double r[2 * GROUPS + N_PAR], sum = 0;
    gsl_vector_view v = gsl_vector_view_array(r, 2 * GROUPS + N_PAR);
    if (residuals(at, params, &v.vector) != GSL_SUCCESS) return GSL_NAN;
    for (int i = 0; i < 2 * GROUPS + N_PAR; i++) sum += r[i] * r[i];
    return sum;
}

/* Where steps of the simulation hide the slope (host time and the common factor nearly make up for
 * each other), a simplex still finds the way. */
static double wander(struct replay *k, double reach, double end, double *log_v)
{
    gsl_multimin_function f = { cost, N_PAR, k };
    gsl_multimin_fminimizer *m =
        gsl_multimin_fminimizer_alloc(gsl_multimin_fminimizer_nmsimplex2, N_PAR);
    gsl_vector_view from = gsl_vector_view_array(log_v, N_PAR);
    gsl_vector *size = gsl_vector_alloc(N_PAR);
    gsl_vector_set_all(size, reach);
    bool going = gsl_multimin_fminimizer_set(m, &f, &from.vector, size) == GSL_SUCCESS;
    for (int i = 0; i < SIMPLEX_STEPS && going && !k->e.status; i++)
        going = gsl_multimin_fminimizer_iterate(m) == GSL_SUCCESS &&
                gsl_multimin_test_size(gsl_multimin_fminimizer_size(m), end) == GSL_CONTINUE;
    for (int j = 0; j < N_PAR; j++) log_v[j] = gsl_vector_get(m->x, (size_t)j);
    double least = gsl_multimin_fminimizer_minimum(m);
    gsl_vector_free(size);
    gsl_multimin_fminimizer_free(m);
    return least;
}

struct place {
    double cost, log_v[N_PAR];
};

/* host.step from lo to hi times that of about, ln of the factor up to span away from its. */
static void survey(struct replay *k, const double *about, double lo, double hi, double span,
                   struct place best[N_BEST])
{
    for (int i = 0; i < N_BEST; i++) best[i].cost = INFINITY;
    for (int i = 0; i < GRID * GRID && !k->e.status; i++) {
        struct place at;
        memcpy(at.log_v, about, sizeof at.log_v);
        int row = i / GRID, column = i % GRID;
        at.log_v[0] += log(lo) + log(hi / lo) * column / (GRID - 1);
        at.log_v[2] += span * (2.0 * row / (GRID - 1) - 1);
        gsl_vector_view v = gsl_vector_view_array(at.log_v, N_PAR);
        at.cost = cost(&v.vector, k);
        for (int j = 0; j < N_BEST; j++)
            if (at.cost < best[j].cost) {
                struct place t = best[j];
                best[j] = at;
                at = t;
            }
    }
}

/* ln of the median time between tokens, or the catalog's host.step where no request has one. */
static double measured_step(const struct replay *k)
{
    double *x = mem_alloc((size_t)k->n * sizeof *x);
    size_t n = 0;
    for (int64_t i = 0; i < k->n; i++)
        if (isfinite(k->measured[i].tpot_s)) x[n++] = k->measured[i].tpot_s;
    stat_sort(x, n);
    double v = n > 0 ? log(stat_quantile_sorted(x, n, 0.5)) : k->start[0];
    free(x);
    return v;
}

static double cost_of(struct replay *k, const struct place *at)
{
    gsl_vector_const_view v = gsl_vector_const_view_array(at->log_v, N_PAR);
    return cost(&v.vector, k);
}

/* Weights as predicted there. What comes back is minus twice the logarithm of the likelihood, which
 * places with different weights can be compared by. */
static double weigh_at(struct replay *k, const struct place *at)
{
    if (k->e.status || simulate(k, at->log_v) != ST_OK) return INFINITY;
    weigh(k);
    double sum = cost_of(k, at);
    for (int g = 0; g < 2 * GROUPS; g++) sum += 2 * log(k->sd[g]);
    return sum;
}

/* The best place about a host.step. The hollows are narrower than the first grid's columns, and the
 * start's weights blur them: a second grid goes around the best of the first, finer and with its
 * weights. */
static struct place best_about(struct replay *k, double log_step, double lo, double hi)
{
    struct place start[N_BEST], least;
    double least_step = log_step + log(lo / 1.5); /* below it is the other search's */
    memcpy(least.log_v, k->start, sizeof least.log_v);
    least.log_v[0] = log_step;
    weigh_at(k, &least);
    for (int round = 0; round < 2; round++) {
        survey(k, least.log_v, round ? 1 / FINE : lo, round ? FINE : hi, LAW_SPAN[round], start);
        least.cost = cost_of(k, &least);
        for (int i = 0; i < N_BEST && !k->e.status; i++) {
            start[i].cost = wander(k, hi / lo < 2 ? 0.03 : 0.1, SEARCH_END, start[i].log_v);
            if (start[i].log_v[0] > least_step && start[i].cost < least.cost) least = start[i];
        }
        least.cost = weigh_at(k, &least);
    }
    return least;
}

/* Sum of squares of the data alone: the priors know nothing of this run. */
static double misfit(struct replay *k, const struct place *at)
{
    double sum = cost_of(k, at);
    for (int j = 0; j < N_PAR; j++) sum -= pow((at->log_v[j] - k->start[j]) / prior_sd[j], 2);
    return sum;
}

/* What does not show (of a host and a device that work beside each other, the shorter) may have any
 * value: what explains the times as well with the catalog's keeps it. */
static void settle(struct replay *k, struct place *at, double factor)
{
    double limit = misfit(k, at) + AS_WELL * factor;
    for (int n = 0; n < N_PAR && !k->e.status; n++) {
        struct place least = *at;
        double least_misfit = limit;
        for (int j = 0; j < N_PAR; j++) {
            struct place with = *at;
            with.log_v[j] = k->start[j];
            if (at->log_v[j] == k->start[j]) continue;
            double x = misfit(k, &with);
            if (x < least_misfit) least_misfit = x, least = with;
        }
        *at = least;
    }
}

/* sd by how far each constant alone can move and explain the times as well, the farther way. */
static void scan(struct replay *k, const struct place *at, double factor, double sd[N_PAR])
{
    double limit = misfit(k, at) + AS_WELL * factor;
    for (int j = 0; j < N_PAR; j++) {
        sd[j] = 0;
        for (int side = -1; side <= 1; side += 2) {
            double reach = 0;
            bool as_well = true;
            while (as_well && reach < SCAN_END && !k->e.status) {
                struct place with = *at;
                with.log_v[j] += side * (reach + SCAN_STEP);
                as_well = misfit(k, &with) <= limit;
                if (as_well) reach += SCAN_STEP;
            }
            sd[j] = fmax(sd[j], as_well ? FIT_OPEN_SD : reach / sqrt(AS_WELL));
        }
    }
}

/* The constants' intervals reach as far as the place that explains the times as well. */
static void tell_apart(struct replay *k, const struct place *least, const struct place *rival,
                       double factor)
{
    struct profile_extra *x = k->c->extra;
    double away = fabs(rival->log_v[2] - least->log_v[2]);
    if (misfit(k, rival) > misfit(k, least) + AS_WELL * factor) return;
    for (int j = 0; j < N_PAR; j++)
        x[j].sd_log = fmin(FIT_OPEN_SD, fmax(x[j].sd_log, fabs(rival->log_v[j] - least->log_v[j])));
    if (away < APART) return;
    calibrate_warn(k->c,
                   "host and device cannot be told apart: host.step %.3g ms and law %.3g explain "
                   "the run as well as %.3g ms and %.3g",
                   1e3 * exp(least->log_v[0]), exp(least->log_v[2]), 1e3 * exp(rival->log_v[0]),
                   exp(rival->log_v[2]));
}

static int search(struct replay *k, struct err *e)
{
    double factor = 1, sd[N_PAR];
    struct place best[2];
    gsl_matrix *cov = gsl_matrix_calloc(N_PAR, N_PAR);
    best[0] = best_about(k, k->start[0], 1. / 8, 8);
    best[1] = best_about(k, measured_step(k), 0.75, 1.05);
    struct place *least = best[1].cost < best[0].cost ? best + 1 : best;
    struct place *rival = least == best ? best + 1 : best;
    if (isfinite(weigh_at(k, least))) {
        wander(k, 0.03, LAST_END, least->log_v);
        descend(k, DIFFERENCE, least->log_v, cov, &factor);
        wander(k, 0.03, LAST_END, rival->log_v);
    }
    settle(k, least, factor);
    scan(k, least, factor, sd);
    if (!k->e.status && simulate(k, least->log_v) == ST_OK) keep(k, least->log_v, cov, factor, sd);
    if (!k->e.status) tell_apart(k, least, rival, factor);
    if (!k->e.status) simulate(k, least->log_v); /* for the errors that are shown */
    gsl_matrix_free(cov);
    return k->e.status ? err_set(e, k->e.status, "%s", k->e.text) : ST_OK;
}

static int prepare(struct replay *k, struct calibrate_file *f, struct err *e)
{
    struct calibrate *c = k->c;
    struct profile_file *p = &c->profile;
    const char *engine;
    char word[32];
    if (!c->o.scenario)
        return err_set(e, ST_USAGE,
                       "%s: a run of another engine needs --scenario, which names its hardware, "
                       "model, strategy and policy",
                       f->path);
    scenario_init(k->s, NULL, NULL, c->a);
    int st = scenario_read(k->s, c->o.scenario, NULL, e);
    if (st == ST_OK) st = scenario_deploy(k->s, k->d, e);
    if (st == ST_OK) st = read_requests(k, f, e);
    if (st != ST_OK) return st;
    engine = conf_text(&k->s->conf, "hardware.engine", word, sizeof word);
    p->engine = arena_printf(c->a, "%s", engine);
    p->machine = arena_printf(c->a, "%s of %s on %s", engine, f->path, k->d->hw.sys.name);
    p->hw = k->d->hw;
    p->hw.n_node = 1;
    p->hw.measured = NULL;
    p->threads = 1;
    p->host_overlap = k->d->profile.host_overlap;
    p->ar_limit_bytes = k->d->profile.ar_limit_bytes;
    for (int j = 0; j < N_PAR; j++) {
        double v = k->d->profile.p[moved[j]].v;
        k->start[j] = log(v > 0 ? v : at_zero[j]);
    }
    if (simulate(k, k->start) != ST_OK) return err_set(e, k->e.status, "%s", k->e.text);
    return ST_OK;
}

/* That nothing of the run was explained, before it becomes a profile. */
static int check_explained(const struct calibrate *c, const struct calibrate_file *f, struct err *e)
{
    const double *was = c->foreign.before, *is = c->foreign.after;
    bool better = is[0] < BETTER * was[0] || is[1] < BETTER * was[1];
    bool neither = is[0] > GROSS && is[1] > GROSS;
    if (!neither && (better || fmax(is[0], is[1]) <= GROSS)) return ST_OK;
    return err_set(
        e, ST_USAGE,
        "%s: no constants explain its times (median error of "
        "TPOT %.3g %%, of TTFT %.3g %%): they are wrong, or %s does not describe the run",
        f->path, 100 * is[0], 100 * is[1], c->o.scenario);
}

static void doubt(struct calibrate *c, const char *model)
{
    const struct calibrate_file *f = &c->file[0];
    if (calibrate_other_model(f->model, model))
        calibrate_warn(c, "%s is of a model that it calls %s, %s is of %s", f->path, f->model,
                       c->o.scenario, model);
    if (fmax(c->foreign.after[0], c->foreign.after[1]) > GROSS)
        calibrate_warn(c,
                       "half of the requests are still off by more than %.0f %%: predictions with "
                       "this profile mean little",
                       100 * fmax(c->foreign.after[0], c->foreign.after[1]));
    for (int i = 0; i < c->profile.n_extra; i++) {
        double v = c->extra[i].v;
        if (c->extra[i].id != P_LAW || (v >= LAW_LEAST && v <= LAW_MOST)) continue;
        calibrate_warn(
            c,
            "law is %.3g, outside %g .. %g: %s may not describe the measured run (model, "
            "number of GPUs, formats, hardware)",
            v, LAW_LEAST, LAW_MOST, c->o.scenario);
    }
}

int calibrate_foreign(struct calibrate *c, struct err *e)
{
    struct calibrate_file *f = &c->file[0];
    struct replay *k = arena_alloc(c->a, sizeof *k);
    k->c = c;
    k->s = arena_alloc(c->a, sizeof *k->s);
    k->d = arena_alloc(c->a, sizeof *k->d);
    int st = prepare(k, f, e);
    if (st != ST_OK) return st;
    c->foreign.n = k->n;
    c->foreign.scenario = c->o.scenario;
    for (int kind = 0; kind < 2; kind++) c->foreign.before[kind] = median_error(k, kind);
    if ((st = search(k, e)) != ST_OK) return st;
    for (int kind = 0; kind < 2; kind++) c->foreign.after[kind] = median_error(k, kind);
    if ((st = check_explained(c, f, e)) != ST_OK) return st;
    c->foreign.done = true;
    doubt(c, k->d->arch.name);
    return ST_OK;
}
