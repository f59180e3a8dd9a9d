/* bench/validate.c - see validate.h. Errors, noise and verdicts of paired runs.
 * SPDX-License-Identifier: Apache-2.0 */
#include "bench/validate.h"

#include <gsl/gsl_cdf.h>
#include <math.h>
#include <string.h>

#include "base/rng.h"

#define LEVEL 0.9 /* of the floor and of TOST's interval: two one-sided tests at 5 % */

const char *const validate_verdict_word[3] = { "met", "missed", "inconclusive" };
const char *const validate_part_name[VALIDATE_N_PART] = { "compute", "communication", "host" };
const char *const validate_op_name[VALIDATE_N_OP] = { "GEMM", "attention", "other" };

#define AT(m) offsetof(struct validate_opts, m)
/* clang-format off */
const struct conf_row validate_rows[] = {
    { "delta.throughput", CONF_NUMBER, AT(delta_throughput), "0.03", NULL, 1e-6, 0.9,
      "throughput is accurate within this share (median, and equivalence)" },
    { "delta.tpot", CONF_NUMBER, AT(delta_tpot), "0.03", NULL, 1e-6, 0.9, "the same of mean TPOT" },
    { "delta.ttft", CONF_NUMBER, AT(delta_ttft), "0.1", NULL, 1e-6, 0.9,
      "mean TTFT of every configuration" },
    { "delta.tail", CONF_NUMBER, AT(delta_tail), "0.1", NULL, 1e-6, 0.9,
      "p99 TPOT of every configuration" },
    { "delta.worst", CONF_NUMBER, AT(worst), "0.08", NULL, 1e-6, 0.9,
      "throughput and mean TPOT of the worst configuration" },
    { "noise", CONF_NUMBER, AT(noise), "0.05", NULL, 1e-6, 10,
      "call a configuration NOISY whose run scatter (coefficient of variation) is more" },
    { "seed", CONF_INT, AT(seed), "1", NULL, 0, 9e15, "of the bootstrap" },
    { .type = CONF_END }
};
/* clang-format on */
#undef AT

#define LATENCY_Q(m, s) (VALIDATE_LATENCY + METRIC_##m * VALIDATE_N_STAT + VALIDATE_##s)
const int validate_judged[VALIDATE_N_JUDGED] = { VALIDATE_THROUGHPUT, LATENCY_Q(TPOT, MEAN),
                                                 LATENCY_Q(TTFT, MEAN), LATENCY_Q(TPOT, P99) };
#undef LATENCY_Q

const char *validate_q_name(int q)
{
    static const char *const names[VALIDATE_N] = {
        "throughput", "TTFT mean", "TTFT p50", "TTFT p90", "TTFT p95", "TTFT p99", "TPOT mean",
        "TPOT p50",   "TPOT p90",  "TPOT p95", "TPOT p99", "ITL mean", "ITL p50",  "ITL p90",
        "ITL p95",    "ITL p99",   "E2E mean", "E2E p50",  "E2E p90",  "E2E p95",  "E2E p99"
    };
    return names[q];
}

/* ---- the errors of a case */

static bool is_quantile(int q)
{
    return q >= VALIDATE_LATENCY && (q - VALIDATE_LATENCY) % VALIDATE_N_STAT != VALIDATE_MEAN;
}

static const double levels[VALIDATE_N_STAT] = { NAN, .5, .9, .95, .99 };

/* ln of a quantile of the requests of all runs but `without` (-1: of all). */
static double pooled(const struct validate_case *c, int q, int without, double *buf)
{
    int m = (q - VALIDATE_LATENCY) / VALIDATE_N_STAT, s = (q - VALIDATE_LATENCY) % VALIDATE_N_STAT;
    size_t n = 0;
    for (int k = 0; k < c->n_measured; k++)
        for (int64_t i = 0; k != without && i < c->measured[k].n_kept; i++)
            if (isfinite(c->measured[k].x[m][i])) buf[n++] = c->measured[k].x[m][i];
    stat_sort(buf, n);
    return log(stat_quantile_sorted(buf, n, levels[s]));
}

/* ln of the measured value, its interval, and the sd of one run. Runs of the same requests as the
 * prediction have what few requests do to a quantile in common with it, run by run. */
static struct ci measured(const struct validate_case *c, int q, double *cv, struct arena *a)
{
    int R = c->n_measured, m = (q - VALIDATE_LATENCY) / VALIDATE_N_STAT;
    double *y = arena_array(a, (size_t)R + 1, sizeof *y);
    for (int k = 0; k < R; k++) y[k] = log(c->measured[k].q[q]);
    *cv = stat_sd(y, (size_t)R);
    if (!is_quantile(q) || !c->unlike || !c->measured[0].x[m])
        return stat_ci_mean(y, (size_t)R, LEVEL);
    size_t all = 1;
    for (int k = 0; k < R; k++) all += (size_t)c->measured[k].n_kept;
    double *buf = arena_array(a, all, sizeof *buf), est = pooled(c, q, -1, buf);
    if (R < 2) return (struct ci){ NAN, est, NAN };
    for (int k = 0; k < R; k++) y[k] = pooled(c, q, k, buf);
    return stat_ci_jackknife(est, y, (size_t)R, LEVEL);
}

static void cover(struct validate_error *x, struct ci p)
{
    x->has_interval = isfinite(p.lo) && isfinite(p.hi) && p.lo > 0;
    if (!x->has_interval) return;
    double h = isfinite(x->floor_runs) ? x->floor_runs : 0, y = log(x->measured), mid = log(p.mid);
    x->covered = x->measured >= p.lo && x->measured <= p.hi;
    x->covered_noisy = y >= mid - hypot(mid - log(p.lo), h) && y <= mid + hypot(log(p.hi) - mid, h);
}

static void case_error(struct validate_case *c, int q, struct arena *a)
{
    struct validate_error *x = &c->err[q];
    *x = (struct validate_error){ NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, false, false, false };
    if (c->n_measured == 0) return;
    struct ci y = measured(c, q, &x->cv, a);
    x->measured = exp(y.mid);
    x->floor_runs = (y.hi - y.lo) / 2;
    if (!isfinite(x->measured)) x->measured = NAN;
    if (c->refused) return;
    double *again = arena_array(a, (size_t)c->n_again + 1, sizeof *again);
    for (int k = 0; k < c->n_again; k++) again[k] = log(c->again[k].q[q]);
    x->spread = stat_sd(again, (size_t)c->n_again);
    x->predicted = c->predicted.q[q];
    if (isfinite(x->predicted) && x->predicted > 0 && x->measured > 0)
        x->e = log(x->predicted / x->measured);
}

static double half_width(double level, double dof) /* in standard errors */
{
    return stat_t_quantile((1 + level) / 2, dof);
}

/* One part of the floors of all cases: standard errors of means of n values, NAN: not known. */
struct part {
    double *se, *dof;
};

static struct part part_new(int n_case, struct arena *a)
{
    return (struct part){ arena_array(a, (size_t)n_case + 1, sizeof(double)),
                          arena_array(a, (size_t)n_case + 1, sizeof(double)) };
}

/* Two or three values of a case say little about their scatter; all cases together say more. The
 * variance of a case is that of its n values and, with the weight of PRIOR_DOF degrees of freedom, the
 * typical one: the median over cases, of chi-square distributed values (Smyth, Stat. Appl. Genet.
 * Mol. Biol. 3, 2004, with the weight fixed). Predictions of cases that share a profile are not
 * independent, so that the typical one of them is less certain than it is taken for. */
static void share_noise(struct part *p, int n_case, struct arena *a)
{
    enum { MIN_CASE = 3, PRIOR_DOF = 4 };
    double *var = arena_array(a, (size_t)n_case + 1, sizeof *var);
    size_t known = 0;
    for (int i = 0; i < n_case; i++)
        if (isfinite(p->se[i]))
            var[known++] = p->se[i] * p->se[i] * (p->dof[i] + 1) /
                           (gsl_cdf_chisq_Pinv(.5, p->dof[i]) / p->dof[i]);
    if (known < MIN_CASE) return;
    stat_sort(var, known);
    double typical = stat_quantile_sorted(var, known, .5);
    for (int i = 0; i < n_case; i++) {
        if (!isfinite(p->se[i])) continue;
        double dof = p->dof[i], n = dof + 1, own = p->se[i] * p->se[i] * n;
        p->dof[i] = PRIOR_DOF + dof;
        p->se[i] = sqrt((PRIOR_DOF * typical + dof * own) / p->dof[i] / n);
    }
}

static double part_half(const struct part *p, int i, double level)
{
    return isfinite(p->se[i]) ? half_width(level, p->dof[i]) * p->se[i] : NAN;
}

/* Floors of a quantity: of the runs, and of the predictions again where there are any. */
static void floors(struct validate *v, int q)
{
    struct part runs = part_new(v->n_case, v->arena), again = part_new(v->n_case, v->arena);
    int n = 0;
    for (int i = 0; i < v->n_case; i++) {
        const struct validate_case *c = &v->c[i];
        const struct validate_error *x = &c->err[q];
        runs.dof[i] = c->n_measured - 1;
        runs.se[i] = isfinite(x->floor_runs) ? x->floor_runs / half_width(LEVEL, runs.dof[i]) : NAN;
        again.dof[i] = c->n_again - 1;
        again.se[i] = c->n_again > 1 ? x->spread / sqrt(c->n_again) : NAN;
        n +=
            !c->refused && c->use == VALIDATE_HELD_OUT && isfinite(x->e) && isfinite(x->floor_runs);
    }
    share_noise(&runs, v->n_case, v->arena);
    share_noise(&again, v->n_case, v->arena);
    double all = pow(LEVEL, 1. / (n > 1 ? n : 1));
    for (int i = 0; i < v->n_case; i++) {
        struct validate_error *x = &v->c[i].err[q];
        bool both = isfinite(again.se[i]);
        x->floor = x->floor_runs = part_half(&runs, i, LEVEL);
        x->floor_all = part_half(&runs, i, all);
        if (!both) continue;
        x->floor = hypot(x->floor, part_half(&again, i, LEVEL));
        x->floor_all = hypot(x->floor_all, part_half(&again, i, all));
    }
}

/* ---- request by request */

double validate_ks(const double *x, int64_t n, const double *y, int64_t m)
{
    double d = 0;
    for (int64_t i = 0, j = 0; i < n && j < m;) {
        double v = fmin(x[i], y[j]);
        while (i < n && x[i] <= v) i++;
        while (j < m && y[j] <= v) j++;
        d = fmax(d, fabs((double)i / (double)n - (double)j / (double)m));
    }
    return n && m ? d : NAN;
}

/* Integral of |F_x - F_y| over the merged values. */
double validate_w1(const double *x, int64_t n, const double *y, int64_t m)
{
    double sum = 0, last = NAN;
    for (int64_t i = 0, j = 0; i < n || j < m;) {
        double v = j >= m || (i < n && x[i] <= y[j]) ? x[i] : y[j];
        if (isfinite(last)) sum += (v - last) * fabs((double)i / (double)n - (double)j / (double)m);
        while (i < n && x[i] <= v) i++;
        while (j < m && y[j] <= v) j++;
        last = v;
    }
    return n && m ? sum : NAN;
}

static void distances(const struct validate_case *c, int m, struct validate_paired *p,
                      struct arena *a)
{
    size_t nx = 0, ny = 0, all = 1;
    for (int k = 0; k < c->n_measured; k++) all += (size_t)c->measured[k].n_kept;
    double *x = arena_array(a, (size_t)c->predicted.n_kept + 1, sizeof *x);
    double *y = arena_array(a, all, sizeof *y);
    for (int64_t i = 0; i < c->predicted.n_kept; i++)
        if (isfinite(c->predicted.x[m][i])) x[nx++] = c->predicted.x[m][i];
    for (int k = 0; k < c->n_measured; k++)
        for (int64_t i = 0; i < c->measured[k].n_kept; i++)
            if (isfinite(c->measured[k].x[m][i])) y[ny++] = c->measured[k].x[m][i];
    stat_sort(x, nx);
    stat_sort(y, ny);
    p->ks = validate_ks(x, (int64_t)nx, y, (int64_t)ny);
    p->w1 = validate_w1(x, (int64_t)nx, y, (int64_t)ny) / stat_mean(y, ny);
}

static void pair_requests(struct validate_case *c, int m, struct arena *a)
{
    struct validate_paired *p = &c->paired[m];
    int64_t n = c->predicted.n_kept;
    int R = c->n_measured;
    double *e = arena_array(a, (size_t)n + 1, sizeof *e), var = 0, lag1;
    double *ape = arena_array(a, (size_t)n + 1, sizeof *ape);
    double *y = arena_array(a, (size_t)R + 1, sizeof *y);
    distances(c, m, p, a);
    p->mape = p->median = p->scatter = p->bias.lo = p->bias.mid = p->bias.hi = NAN;
    if (c->unlike) return;
    for (int64_t i = 0; i < n; i++) {
        for (int k = 0; k < R; k++) y[k] = log(c->measured[k].x[m][i]);
        double d = log(c->predicted.x[m][i]) - stat_mean(y, (size_t)R);
        if (!isfinite(d)) continue;
        e[p->n] = d;
        ape[p->n++] = fabs(expm1(d));
        if (R > 1) var += pow(stat_sd(y, (size_t)R), 2);
    }
    if (p->n == 0) return;
    p->mape = stat_mean(ape, (size_t)p->n);
    p->bias = stat_ci_batch(e, (size_t)p->n, 0, LEVEL, &lag1);
    stat_sort(ape, (size_t)p->n);
    p->median = stat_quantile_sorted(ape, (size_t)p->n, .5);
    if (R > 1) p->scatter = sqrt(var / (double)p->n);
}

static void parts(struct validate_case *c)
{
    for (int k = 0; k < VALIDATE_N_PART; k++) {
        double sum = 0;
        for (int i = 0; i < c->n_measured; i++) sum += c->measured[i].part_s[k];
        c->part_s[k] = c->n_measured ? sum / c->n_measured : NAN;
    }
    for (int k = 0; k < VALIDATE_N_OP; k++) {
        double sum = 0;
        for (int i = 0; i < c->n_measured; i++) sum += c->measured[i].op_s[k];
        c->op_s[k] = c->n_measured ? sum / c->n_measured : NAN;
    }
}

int validate_residuals(const struct validate_case *c, struct validate_residual *r)
{
    int n = 0;
    const struct validate_run *p = &c->predicted;
    if (c->refused || !isfinite(p->part_s[0]) || !isfinite(c->part_s[0])) return 0;
    bool ops = isfinite(p->op_s[0]) && isfinite(c->op_s[0]);
    for (int k = 0; k < VALIDATE_N_OP && ops; k++)
        r[n++] = (struct validate_residual){ validate_op_name[k], p->op_s[k], c->op_s[k] };
    for (int k = ops ? 1 : 0; k < VALIDATE_N_PART; k++)
        r[n++] = (struct validate_residual){ validate_part_name[k], p->part_s[k], c->part_s[k] };
    return n;
}

static void compute_case(struct validate *v, struct validate_case *c)
{
    const int watched[] = { VALIDATE_THROUGHPUT, validate_q(METRIC_TPOT, VALIDATE_MEAN) };
    for (int q = 0; q < VALIDATE_N && !c->refused; q++)
        if (isfinite(c->err[q].e)) cover(&c->err[q], c->predicted.ci[q]);
    for (int i = 0; i < 2; i++) c->noisy = c->noisy || c->err[watched[i]].cv > v->o.noise;
    v->n_noisy += c->noisy;
    if (c->refused) {
        v->n_refused++;
        return;
    }
    v->n_of[c->use]++;
    v->n_single += c->use == VALIDATE_HELD_OUT && c->n_measured < 2;
    v->n_extrapolated += c->predicted.extrapolated;
    parts(c);
    for (int m = 0; m < METRIC_N; m++)
        if (c->predicted.x[m]) pair_requests(c, m, v->arena);
}

/* ---- over cases */

static double delta_of(const struct validate_opts *o, int q)
{
    if (q == VALIDATE_THROUGHPUT) return o->delta_throughput;
    if (q == validate_q(METRIC_TPOT, VALIDATE_MEAN)) return o->delta_tpot;
    if (q == validate_q(METRIC_TTFT, VALIDATE_MEAN)) return o->delta_ttft;
    return q == validate_q(METRIC_TPOT, VALIDATE_P99) ? o->delta_tail : 0;
}

double validate_worst_limit(const struct validate_opts *o, int q)
{
    bool apart = q == VALIDATE_THROUGHPUT || q == validate_q(METRIC_TPOT, VALIDATE_MEAN);
    return apart ? o->worst : delta_of(o, q);
}

static enum validate_verdict tost(struct ci bias, double delta)
{
    double lo = log1p(-delta), hi = log1p(delta);
    if (!isfinite(bias.lo) || !isfinite(bias.hi)) return VALIDATE_INCONCLUSIVE;
    if (bias.lo > lo && bias.hi < hi) return VALIDATE_MET;
    return bias.hi < lo || bias.lo > hi ? VALIDATE_MISSED : VALIDATE_INCONCLUSIVE;
}

static void center(const struct validate_case *c, int q, double *off)
{
    for (int k = 0; k < c->n_measured; k++) off[k] = log(c->measured[k].q[q]);
    double mean = stat_mean(off, (size_t)c->n_measured);
    for (int k = 0; k < c->n_measured; k++) off[k] -= mean;
}

/* Cases are drawn with replacement, in them the measured runs. */
static struct ci bootstrap(const struct validate *v, const int *member, int n, int q, double est)
{
    enum { N_BOOT = 1000, MIN_CASE = 8 };
    double mape[N_BOOT],
        *off = arena_array(v->arena, VALIDATE_MAX_RUN * (size_t)n + 1, sizeof *off);
    struct rng r = rng_child(rng_stream((uint64_t)v->o.seed, "validate.bootstrap"), (uint64_t)q);
    uint64_t at = 0;
    if (n < MIN_CASE) return (struct ci){ NAN, est, NAN };
    for (int i = 0; i < n; i++) /* each run's distance from its case's mean */
        center(&v->c[member[i]], q, off + VALIDATE_MAX_RUN * i);
    for (int b = 0; b < N_BOOT; b++) {
        double sum = 0;
        for (int i = 0; i < n; i++) {
            uint64_t one = rng_below(r, at++, (uint64_t)n);
            const struct validate_case *c = &v->c[member[one]];
            double shift = 0;
            for (int k = 0; k < c->n_measured; k++)
                shift += off[VALIDATE_MAX_RUN * one + rng_below(r, at++, (uint64_t)c->n_measured)];
            sum += fabs(expm1(c->err[q].e - shift / c->n_measured));
        }
        mape[b] = sum / n;
    }
    stat_sort(mape, N_BOOT);
    return (struct ci){ stat_quantile_sorted(mape, N_BOOT, (1 - LEVEL) / 2), est,
                        stat_quantile_sorted(mape, N_BOOT, (1 + LEVEL) / 2) };
}

static void noise_of(const struct validate *v, const int *member, struct validate_sum *s, int q)
{
    double floor = 0, var = 0, square = 0;
    for (int i = 0; i < s->n; i++) {
        const struct validate_case *c = &v->c[member[i]];
        double cv = c->err[q].cv, e = c->err[q].e, spread = c->err[q].spread;
        double own = cv * cv / c->n_measured;
        if (isfinite(spread)) own += spread * spread / c->n_again;
        floor += sqrt(2 / M_PI * own);
        var += own;
        square += e * e;
    }
    s->floor = floor / s->n; /* NAN as soon as one case has one run: not known */
    s->rmse = sqrt(square / s->n);
    s->excess = sqrt(fmax(0, (square - var) / s->n));
    if (isnan(var)) s->excess = NAN;
}

static void summarise(struct validate *v, enum validate_use use, int q)
{
    struct validate_sum *s = &v->sum[use][q];
    double *e = arena_array(v->arena, (size_t)v->n_case + 1, sizeof *e);
    double *ape = arena_array(v->arena, (size_t)v->n_case + 1, sizeof *ape);
    int *member = arena_array(v->arena, (size_t)v->n_case + 1, sizeof *member);
    *s = (struct validate_sum){ .delta = delta_of(&v->o, q), .worst_case = -1 };
    for (int i = 0; i < v->n_case; i++) {
        const struct validate_error *x = &v->c[i].err[q];
        if (v->c[i].refused || v->c[i].use != use || !isfinite(x->e)) continue;
        e[s->n] = x->e;
        ape[s->n] = fabs(expm1(x->e));
        if (s->worst_case < 0 || ape[s->n] > s->worst) {
            s->worst = ape[s->n];
            s->worst_case = i;
        }
        s->n_interval += x->has_interval;
        s->n_covered += x->covered;
        s->n_covered_noisy += x->covered_noisy;
        member[s->n++] = i;
    }
    size_t n = (size_t)s->n;
    s->bias = stat_ci_mean(e, n, LEVEL);
    if (n == 1) {
        double floor = v->c[member[0]].err[q].floor;
        s->bias = (struct ci){ e[0] - floor, e[0], e[0] + floor };
    }
    s->spread = expm1(stat_sd(e, n));
    s->mape = stat_mean(ape, n);
    noise_of(v, member, s, q);
    if (n == 0) s->worst = NAN;
    s->mape_ci = bootstrap(v, member, s->n, q, s->mape);
    stat_sort(ape, n);
    s->median = stat_quantile_sorted(ape, n, .5);
    s->p90 = stat_quantile_sorted(ape, n, .9);
    s->tost = s->delta > 0 && isfinite(s->floor) ? tost(s->bias, s->delta) : VALIDATE_INCONCLUSIVE;
}

/* ---- strategies in order */

static int better(int q, double x, double y) /* more tokens, less time */
{
    double d = q == VALIDATE_THROUGHPUT ? x - y : y - x;
    return (d > 0) - (d < 0);
}

static void rank_group(const struct validate *v, struct validate_rank *r)
{
    int best_p = -1, best_m = -1;
    for (int i = 0; i < v->n_case; i++) {
        const struct validate_case *c = &v->c[i];
        const struct validate_error *x = &c->err[r->q];
        if (strcmp(c->group, r->group) != 0 || c->refused || !isfinite(x->e)) continue;
        r->n++;
        r->has_calibrated = r->has_calibrated || c->use == VALIDATE_CALIBRATED;
        if (best_p < 0 || better(r->q, x->predicted, v->c[best_p].err[r->q].predicted) > 0)
            best_p = i;
        if (best_m < 0 || better(r->q, x->measured, v->c[best_m].err[r->q].measured) > 0)
            best_m = i;
        for (int j = 0; j < i; j++) {
            const struct validate_error *y = &v->c[j].err[r->q];
            if (strcmp(v->c[j].group, r->group) != 0 || v->c[j].refused || !isfinite(y->e))
                continue;
            double d = fabs(log(x->measured / y->measured)),
                   floor = hypot(x->floor_runs, y->floor_runs);
            if (!(d > floor)) continue; /* also with single runs: noise is not known */
            r->n_decided++;
            r->n_right +=
                better(r->q, x->predicted, y->predicted) == better(r->q, x->measured, y->measured);
        }
    }
    r->tau = r->n_decided ? 2. * r->n_right / r->n_decided - 1 : NAN;
    if (r->n < 2) return;
    double top = v->c[best_m].err[r->q].measured, picked = v->c[best_p].err[r->q].measured;
    r->top1 = best_p == best_m;
    r->regret = fabs(top - picked) / top;
}

static void rank_all(struct validate *v)
{
    const int which[] = { VALIDATE_THROUGHPUT, validate_q(METRIC_TPOT, VALIDATE_MEAN),
                          validate_q(METRIC_E2E, VALIDATE_MEAN) };
    v->rank = arena_array(v->arena, 3 * (size_t)v->n_case + 1, sizeof *v->rank);
    for (int i = 0; i < v->n_case; i++) {
        bool seen = v->c[i].group[0] == 0;
        for (int j = 0; j < i; j++) seen = seen || strcmp(v->c[j].group, v->c[i].group) == 0;
        for (int k = 0; k < 3 && !seen; k++) {
            struct validate_rank *r = &v->rank[v->n_rank];
            *r = (struct validate_rank){ .group = v->c[i].group, .q = which[k], .regret = NAN };
            rank_group(v, r);
            v->n_rank += r->n > 1;
        }
    }
}

/* ---- equal runs */

/* A difference that is sure, and no less than a third of what the quantity may be off by. */
static void decide(const struct validate *v, struct validate_aa *x)
{
    double delta = delta_of(&v->o, x->q);
    x->differs = (x->diff.lo > 0 || x->diff.hi < 0) && fabs(x->diff.mid) > delta / 3;
    x->blind = x->diff.hi - x->diff.lo > 4 * delta;
}

static const int aa_q[VALIDATE_N_AA] = { VALIDATE_THROUGHPUT, VALIDATE_LATENCY,
                                         VALIDATE_LATENCY + METRIC_TPOT *VALIDATE_N_STAT };

/* Welch's interval of the difference of means of ln. */
static void arms(const struct validate *v, int q, struct validate_aa *x)
{
    double mean[2], var[2];
    *x = (struct validate_aa){ .q = q, .diff = { NAN, NAN, NAN } };
    for (int i = 0; i < 2; i++) {
        double *y = arena_array(v->arena, (size_t)v->n_arm[i] + 1, sizeof *y);
        for (int k = 0; k < v->n_arm[i]; k++) y[k] = log(v->arm[i][k].q[q]);
        mean[i] = stat_mean(y, (size_t)v->n_arm[i]);
        var[i] = pow(stat_sd(y, (size_t)v->n_arm[i]), 2) / v->n_arm[i];
        x->n += v->n_arm[i];
    }
    double s = var[0] + var[1];
    if (!(s > 0)) return;
    double dof =
        s * s / (var[0] * var[0] / (v->n_arm[0] - 1) + var[1] * var[1] / (v->n_arm[1] - 1));
    double h = stat_t_quantile(.975, dof) * sqrt(s);
    x->diff = (struct ci){ mean[1] - mean[0] - h, mean[1] - mean[0], mean[1] - mean[0] + h };
    decide(v, x);
}

/* The first against the last of every case's runs, in order of time: did the machine change? */
static void drift(const struct validate *v, int q, struct validate_aa *x)
{
    double *d = arena_array(v->arena, (size_t)v->n_case + 1, sizeof *d);
    size_t n = 0;
    for (int i = 0; i < v->n_case; i++) {
        const struct validate_case *c = &v->c[i];
        const struct validate_run *first = c->measured, *last = c->measured;
        for (int k = 1; k < c->n_measured; k++) {
            if (strcmp(c->measured[k].created, first->created) < 0) first = &c->measured[k];
            if (strcmp(c->measured[k].created, last->created) >= 0) last = &c->measured[k];
        }
        double y = c->n_measured > 1 ? log(last->q[q] / first->q[q]) : NAN;
        if (isfinite(y)) d[n++] = y;
    }
    *x = (struct validate_aa){ .q = q, .n = (int)n, .diff = stat_ci_mean(d, n, .95) };
    decide(v, x);
}

/* ---- bars */

/* Why no held-out configuration has an error of this quantity. */
static void no_figure(const struct validate *v, struct validate_bar *b, int q)
{
    int held = v->n_of[VALIDATE_HELD_OUT];
    const char *why = NULL;
    for (int i = 0; i < v->n_case && !why; i++)
        if (v->c[i].use == VALIDATE_HELD_OUT && !v->c[i].refused) why = v->c[i].left_out;
    if (held == 0)
        snprintf(b->text, sizeof b->text, "no configuration was held out");
    else
        snprintf(b->text, sizeof b->text,
                 "%s of %d held-out configuration%s cannot be compared%s%s", validate_q_name(q),
                 held, held == 1 ? "" : "s", why ? ": " : "", why ? why : "");
}

/* Every error within its limit, or within its own floor where that is larger: of the worst of n the
 * floor is that which n perfect predictions would all be within. But what passes only because its floor
 * is more than twice the limit was not judged, and nothing that has no floor. */
static void error_bar(const struct validate *v, struct validate_bar *b, int q, double median_limit,
                      double worst_limit)
{
    const struct validate_sum *s = &v->sum[VALIDATE_HELD_OUT][q];
    double *excess = arena_array(v->arena, (size_t)v->n_case + 1, sizeof *excess), median;
    int n = 0, n_over = 0, n_saved = 0, n_blind = 0, n_known = 0, n_known_over = 0;
    for (int i = 0; i < v->n_case; i++) {
        const struct validate_case *c = &v->c[i];
        if (c->refused || c->use != VALIDATE_HELD_OUT || !isfinite(c->err[q].e)) continue;
        double ape = fabs(expm1(c->err[q].e)), floor = expm1(c->err[q].floor),
               floor_all = expm1(c->err[q].floor_all);
        bool within = isfinite(floor) && ape <= floor, over = ape > worst_limit;
        bool within_all = isfinite(floor) && ape <= floor_all;
        n++;
        n_over += over && !within_all;
        if (isfinite(floor)) excess[n_known++] = within ? 0 : ape;
        n_known_over += isfinite(floor) && over && !within_all;
        n_saved += over && within_all;
        n_blind += (ape > median_limit && within && floor > 2 * worst_limit) ||
                   (over && within_all && floor_all > 2 * worst_limit);
    }
    stat_sort(excess, (size_t)n_known);
    median = stat_quantile_sorted(excess, (size_t)n_known, .5);
    b->verdict = n_known_over || median > median_limit ? VALIDATE_MISSED
                 : n_known < n || n == 0 || n_blind    ? VALIDATE_INCONCLUSIVE
                                                       : VALIDATE_MET;
    if (n == 0)
        no_figure(v, b, q);
    else if (n_known == 0)
        snprintf(b->text, sizeof b->text,
                 "median %.1f %% (limit %.0f %%); worst %.1f %% (limit %.0f %%): %d of %d over "
                 "it; " VALIDATE_NO_FLOOR,
                 100 * s->median, 100 * median_limit, 100 * s->worst, 100 * worst_limit, n_over, n);
    else
        snprintf(b->text, sizeof b->text,
                 "median %.1f %%, beyond the noise floor %.1f %% (limit %.0f %%); worst %.1f %% "
                 "(limit %.0f %%): "
                 "%d of %d over it",
                 100 * s->median, 100 * median, 100 * median_limit, 100 * s->worst,
                 100 * worst_limit, n_over + n_saved, n);
    size_t at = strlen(b->text);
    if (n_saved)
        snprintf(b->text + at, sizeof b->text - at,
                 ", %d of them within the noise floor of the worst of %d", n_saved, n_known);
    at = strlen(b->text);
    if (n_blind) snprintf(b->text + at, sizeof b->text - at, "; too noisy to judge %d", n_blind);
    at = strlen(b->text);
    if (n_known > 0 && n_known < n)
        snprintf(b->text + at, sizeof b->text - at, "; one run, so no noise floor: %d",
                 n - n_known);
}

static void rank_bar(const struct validate *v, struct validate_bar *b)
{
    int decided = 0, right = 0;
    for (int i = 0; i < v->n_rank; i++) {
        decided += v->rank[i].n_decided;
        right += v->rank[i].n_right;
    }
    b->verdict = !decided          ? VALIDATE_INCONCLUSIVE
                 : right < decided ? VALIDATE_MISSED
                                   : VALIDATE_MET;
    snprintf(b->text, sizeof b->text,
             decided ? "%d of %d pair%s apart by more than the noise floors in the right order"
                     : "no two strategies of a group are apart by more than their noise floors",
             right, decided, decided == 1 ? "" : "s");
}

/* Quantities of a configuration go together, so that the number of independent trials is that of
 * the configurations. */
static void coverage_bar(const struct validate *v, struct validate_bar *b)
{
    int n = 0, k = 0, strict = 0, cases = 0;
    bool known = true;
    for (int i = 0; i < VALIDATE_N_JUDGED; i++) {
        const struct validate_sum *s = &v->sum[VALIDATE_HELD_OUT][validate_judged[i]];
        n += s->n_interval;
        k += s->n_covered_noisy;
        strict += s->n_covered;
        if (s->n_interval > cases) cases = s->n_interval;
        known = known && isfinite(s->floor);
    }
    b->verdict = VALIDATE_INCONCLUSIVE;
    if (n == 0) {
        snprintf(b->text, sizeof b->text, "%s",
                 v->n_of[VALIDATE_HELD_OUT] ? "no prediction has an interval"
                                            : "no configuration was held out");
        return;
    }
    double p = (double)k / n;
    struct ci w = stat_ci_wilson(p * cases, cases, .95);
    if (!known)
        b->verdict = VALIDATE_INCONCLUSIVE; /* what noise leaves uncovered is not known */
    else if (p >= .85 && p <= .95)
        b->verdict = VALIDATE_MET;
    else if (w.hi < .85 || w.lo > .95)
        b->verdict = VALIDATE_MISSED;
    snprintf(b->text, sizeof b->text,
             "%.0f %% of %d (limits 85 .. 95 %%; %.0f .. %.0f %% with %d configuration%s); %.0f %% "
             "without the noise floor",
             100 * p, n, 100 * w.lo, 100 * w.hi, cases, cases == 1 ? "" : "s", 100. * strict / n);
}

static void judge(struct validate *v)
{
    static const char *const name[VALIDATE_N_BAR] = { "throughput", "TPOT mean", "TTFT mean",
                                                      "TPOT p99",   "ranking",   "coverage" };
    const struct validate_opts *o = &v->o;
    for (int i = 0; i < VALIDATE_N_BAR; i++) v->bar[i].name = name[i];
    for (int i = 0; i < VALIDATE_N_JUDGED; i++) {
        int q = validate_judged[i];
        error_bar(v, &v->bar[i], q, delta_of(o, q), validate_worst_limit(o, q));
    }
    rank_bar(v, &v->bar[4]);
    coverage_bar(v, &v->bar[5]);
    bool missed = false, open = false;
    for (int i = 0; i < VALIDATE_N_JUDGED; i++) {
        enum validate_verdict t = v->sum[VALIDATE_HELD_OUT][validate_judged[i]].tost;
        missed = missed || v->bar[i].verdict == VALIDATE_MISSED || t == VALIDATE_MISSED;
        open = open || v->bar[i].verdict == VALIDATE_INCONCLUSIVE || t == VALIDATE_INCONCLUSIVE;
    }
    int n_run = 0, n_disturbed = 0;
    for (int i = 0; i < v->n_case; i++)
        if (!v->c[i].refused && v->c[i].use == VALIDATE_HELD_OUT) {
            n_run += v->c[i].n_measured;
            n_disturbed += validate_disturbed(&v->c[i]);
        }
    v->disturbed = 2 * n_disturbed > n_run;
    for (int i = VALIDATE_N_JUDGED; i < VALIDATE_N_BAR; i++)
        missed = missed || v->bar[i].verdict == VALIDATE_MISSED;
    for (int i = 0; i < VALIDATE_N_AA; i++)
        open = open || v->aa[i].differs || v->drift[i].differs || v->aa[i].blind;
    open = open || (missed && v->disturbed);
    v->verdict = missed && !v->disturbed ? VALIDATE_MISSED
                 : open                  ? VALIDATE_INCONCLUSIVE
                                         : VALIDATE_MET;
}

void validate_compute(struct validate *v)
{
    for (int i = 0; i < v->n_case; i++)
        for (int q = 0; q < VALIDATE_N; q++) case_error(&v->c[i], q, v->arena);
    for (int q = 0; q < VALIDATE_N; q++) floors(v, q);
    for (int i = 0; i < v->n_case; i++) compute_case(v, &v->c[i]);
    for (int u = 0; u < VALIDATE_N_USE; u++)
        for (int q = 0; q < VALIDATE_N; q++) summarise(v, (enum validate_use)u, q);
    rank_all(v);
    for (int i = 0; i < VALIDATE_N_AA; i++) {
        arms(v, aa_q[i], &v->aa[i]);
        drift(v, aa_q[i], &v->drift[i]);
    }
    judge(v);
}
