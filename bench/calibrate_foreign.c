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
#include <string.h>

#include "bench/calibrate.h"
#include "bench/replay.h"

enum {
    N_PAR = REPLAY_N_PAR,
    N = REPLAY_N_OFF + N_PAR, /* residuals */
    STEPS = 40,
    SIMPLEX_STEPS = 120,
    GRID = 13,
    N_BEST = 2
};
static const double DIFFERENCE = 0.005;
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

struct foreign {
    struct calibrate *c;
    struct replay r;
    double start[N_PAR]; /* ln of the catalog's */
};

/* In standard errors: of the groups, then of the constants from the catalog's. */
static int residuals(const gsl_vector *at, void *params, gsl_vector *out)
{
    struct foreign *k = params;
    double log_v[N_PAR], off[REPLAY_N_OFF];
    for (int j = 0; j < N_PAR; j++) log_v[j] = gsl_vector_get(at, (size_t)j);
    if (replay_run(&k->r, log_v) != ST_OK) return GSL_EFAILED;
    replay_off(&k->r, off);
    for (int g = 0; g < REPLAY_N_OFF; g++) gsl_vector_set(out, (size_t)g, off[g]);
    for (int j = 0; j < N_PAR; j++)
        gsl_vector_set(out, (size_t)(REPLAY_N_OFF + j), (log_v[j] - k->start[j]) / prior_sd[j]);
    return GSL_SUCCESS;
}

static void keep(struct foreign *k, const double *log_v, const gsl_matrix *cov, double factor,
                 const double least_sd[N_PAR])
{
    struct calibrate *c = k->c;
    double left = replay_median_error(&k->r, 0), first = replay_median_error(&k->r, 1), sum = 0;
    int64_t n = 0;
    for (int64_t i = 0; i < k->r.n; i++)
        if (isfinite(k->r.measured[i].ttft_s)) sum += k->r.measured[i].ttft_s, n++;
    /* What is left of the first token's time may be host.request's whole, and law's share. */
    double ttft_s = n > 0 ? sum / (double)n : 0;
    double off[N_PAR] = { left, first * ttft_s / exp(log_v[1]), fmax(left, first) };
    for (int j = 0; j < N_PAR; j++)
        if (!isfinite(off[j])) off[j] = left;
    for (int j = 0; j < N_PAR; j++) {
        double var = fmax(0, gsl_matrix_get(cov, (size_t)j, (size_t)j)) * factor;
        double sd = fmax(least_sd[j], sqrt(var + off[j] * off[j]));
        c->extra[c->profile.n_extra++] =
            (struct profile_extra){ replay_moved[j], exp(log_v[j]), fmin(FIT_OPEN_SD, sd) };
    }
}

/* One round from log_v and back into it; *factor: by which the misfit exceeds the spread. */
static void descend(struct foreign *k, double h, double *log_v, gsl_matrix *cov, double *factor)
{
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
    double r[N], sum = 0;
    gsl_vector_view v = gsl_vector_view_array(r, N);
    if (residuals(at, params, &v.vector) != GSL_SUCCESS) return GSL_NAN;
    for (int i = 0; i < N; i++) sum += r[i] * r[i];
    return sum;
}

/* Where steps of the simulation hide the slope (host time and the common factor nearly make up for
 * each other), a simplex still finds the way. */
static double wander(struct foreign *k, double reach, double end, double *log_v)
{
    gsl_multimin_function f = { cost, N_PAR, k };
    gsl_multimin_fminimizer *m =
        gsl_multimin_fminimizer_alloc(gsl_multimin_fminimizer_nmsimplex2, N_PAR);
    gsl_vector_view from = gsl_vector_view_array(log_v, N_PAR);
    gsl_vector *size = gsl_vector_alloc(N_PAR);
    gsl_vector_set_all(size, reach);
    bool going = gsl_multimin_fminimizer_set(m, &f, &from.vector, size) == GSL_SUCCESS;
    for (int i = 0; i < SIMPLEX_STEPS && going && !k->r.e.status; i++)
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
static void survey(struct foreign *k, const double *about, double lo, double hi, double span,
                   struct place best[N_BEST])
{
    for (int i = 0; i < N_BEST; i++) best[i].cost = INFINITY;
    for (int i = 0; i < GRID * GRID && !k->r.e.status; i++) {
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

static double cost_of(struct foreign *k, const struct place *at)
{
    gsl_vector_const_view v = gsl_vector_const_view_array(at->log_v, N_PAR);
    return cost(&v.vector, k);
}

/* Weights as predicted there. What comes back is minus twice the logarithm of the likelihood, which
 * places with different weights can be compared by. */
static double weigh_at(struct foreign *k, const struct place *at)
{
    if (replay_run(&k->r, at->log_v) != ST_OK) return INFINITY;
    replay_weigh(&k->r);
    double sum = cost_of(k, at);
    for (int g = 0; g < REPLAY_N_OFF; g++) sum += 2 * log(k->r.sd[g]);
    return sum;
}

/* The best place about a host.step. The hollows are narrower than the first grid's columns, and the
 * start's weights blur them: a second grid goes around the best of the first, finer and with its
 * weights. */
static struct place best_about(struct foreign *k, double log_step, double lo, double hi)
{
    struct place start[N_BEST], least;
    double least_step = log_step + log(lo / 1.5); /* below it is the other search's */
    memcpy(least.log_v, k->start, sizeof least.log_v);
    least.log_v[0] = log_step;
    weigh_at(k, &least);
    for (int round = 0; round < 2; round++) {
        survey(k, least.log_v, round ? 1 / FINE : lo, round ? FINE : hi, LAW_SPAN[round], start);
        least.cost = cost_of(k, &least);
        for (int i = 0; i < N_BEST && !k->r.e.status; i++) {
            start[i].cost = wander(k, hi / lo < 2 ? 0.03 : 0.1, SEARCH_END, start[i].log_v);
            if (start[i].log_v[0] > least_step && start[i].cost < least.cost) least = start[i];
        }
        least.cost = weigh_at(k, &least);
    }
    return least;
}

/* Sum of squares of the data alone: the priors know nothing of this run. */
static double misfit(struct foreign *k, const struct place *at)
{
    double sum = cost_of(k, at);
    for (int j = 0; j < N_PAR; j++) sum -= pow((at->log_v[j] - k->start[j]) / prior_sd[j], 2);
    return sum;
}

/* What does not show (of a host and a device that work beside each other, the shorter) may have any
 * value: what explains the times as well with the catalog's keeps it. */
static void settle(struct foreign *k, struct place *at, double factor)
{
    double limit = misfit(k, at) + AS_WELL * factor;
    for (int n = 0; n < N_PAR && !k->r.e.status; n++) {
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
static void scan(struct foreign *k, const struct place *at, double factor, double sd[N_PAR])
{
    double limit = misfit(k, at) + AS_WELL * factor;
    for (int j = 0; j < N_PAR; j++) {
        sd[j] = 0;
        for (int side = -1; side <= 1; side += 2) {
            double reach = 0;
            bool as_well = true;
            while (as_well && reach < SCAN_END && !k->r.e.status) {
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
static void tell_apart(struct foreign *k, const struct place *least, const struct place *rival,
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

static int search(struct foreign *k, struct err *e)
{
    double factor = 1, sd[N_PAR], step_s = replay_step_s(&k->r);
    struct place best[2];
    gsl_matrix *cov = gsl_matrix_calloc(N_PAR, N_PAR);
    best[0] = best_about(k, k->start[0], 1. / 8, 8);
    best[1] = best_about(k, isfinite(step_s) ? log(step_s) : k->start[0], 0.75, 1.05);
    struct place *least = best[1].cost < best[0].cost ? best + 1 : best;
    struct place *rival = least == best ? best + 1 : best;
    if (isfinite(weigh_at(k, least))) {
        wander(k, 0.03, LAST_END, least->log_v);
        descend(k, DIFFERENCE, least->log_v, cov, &factor);
        wander(k, 0.03, LAST_END, rival->log_v);
    }
    settle(k, least, factor);
    scan(k, least, factor, sd);
    if (replay_run(&k->r, least->log_v) == ST_OK) keep(k, least->log_v, cov, factor, sd);
    if (!k->r.e.status) tell_apart(k, least, rival, factor);
    replay_run(&k->r, least->log_v); /* for the errors that are shown */
    gsl_matrix_free(cov);
    return k->r.e.status ? err_set(e, k->r.e.status, "%s", k->r.e.text) : ST_OK;
}

static int prepare(struct foreign *k, struct calibrate_file *f, struct err *e)
{
    struct calibrate *c = k->c;
    struct profile_file *p = &c->profile;
    const char *engine;
    char word[32];
    size_t n_all;
    if (!c->o.scenario)
        return err_set(e, ST_USAGE,
                       "%s: a run of another engine needs --scenario, which names its hardware, "
                       "model, strategy and policy",
                       f->path);
    scenario_init(k->r.s, NULL, NULL, c->a);
    int st = scenario_read(k->r.s, c->o.scenario, NULL, e);
    if (st == ST_OK) st = scenario_deploy(k->r.s, k->r.d, e);
    if (st == ST_OK) st = replay_read(&k->r, &f->run, f->path, &n_all, e);
    if (st != ST_OK) return st;
    f->said =
        arena_printf(c->a, "%lld of %zu requests%s%s: host.step, host.request, law",
                     (long long)k->r.n, n_all, *f->model ? " of what it calls " : "", f->model);
    engine = conf_text(&k->r.s->conf, "hardware.engine", word, sizeof word);
    p->engine = arena_printf(c->a, "%s", engine);
    p->machine = arena_printf(c->a, "%s of %s on %s", engine, f->path, k->r.d->hw.sys.name);
    p->hw = k->r.d->hw;
    p->hw.n_node = 1;
    p->hw.measured = NULL;
    p->threads = 1;
    p->host_overlap = k->r.d->profile.host_overlap;
    p->ar_limit_bytes = k->r.d->profile.ar_limit_bytes;
    for (int j = 0; j < N_PAR; j++) {
        double v = k->r.d->profile.p[replay_moved[j]].v;
        k->start[j] = log(v > 0 ? v : at_zero[j]);
    }
    if (replay_run(&k->r, k->start) != ST_OK) return err_set(e, k->r.e.status, "%s", k->r.e.text);
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
    struct foreign *k = arena_alloc(c->a, sizeof *k);
    k->c = c;
    k->r.a = c->a;
    k->r.s = arena_alloc(c->a, sizeof *k->r.s);
    k->r.d = arena_alloc(c->a, sizeof *k->r.d);
    int st = prepare(k, f, e);
    if (st != ST_OK) return st;
    c->foreign.n = k->r.n;
    c->foreign.scenario = c->o.scenario;
    for (int kind = 0; kind < 2; kind++) c->foreign.before[kind] = replay_median_error(&k->r, kind);
    if ((st = search(k, e)) != ST_OK) return st;
    for (int kind = 0; kind < 2; kind++) c->foreign.after[kind] = replay_median_error(&k->r, kind);
    if ((st = check_explained(c, f, e)) != ST_OK) return st;
    c->foreign.done = true;
    doubt(c, k->r.d->arch.name);
    return ST_OK;
}
