/* sim/print.c - see print.h. SPDX-License-Identifier: Apache-2.0 */
#include "sim/print.h"

#include <math.h>
#include <string.h>

#include "base/units.h"

enum { N_TEXT = 40 };

const char *print_device(const struct print_in *in)
{
    return in->line || hw_on_processors(&in->d->hw) ? "rank" : "GPU";
}

bool print_has_slo(const struct slo *slo)
{
    return slo->ttft_ns || slo->tpot_ns || slo->e2e_ns;
}

bool print_slo_held(const struct scenario *s, const struct outcome *o)
{
    return !print_has_slo(&s->slo) || o->q[Q_ATTAIN].mid >= s->slo.attain_ratio;
}

/* "8.47 [8.31, 8.60]" */
static const char *ci_text(struct ci c, char *buf, size_t n)
{
    if (isnan(c.lo))
        snprintf(buf, n, "%.4g", c.mid);
    else
        snprintf(buf, n, "%.4g [%.4g, %.4g]", c.mid, c.lo, c.hi);
    return buf;
}

static void capacity(const struct print_in *in, FILE *f)
{
    const struct deploy *d = in->d;
    const struct metrics *m = &in->o->all;
    char w[N_TEXT], k[N_TEXT], r[N_TEXT], all[N_TEXT], of[2 * N_TEXT];
    double weights = 0;
    for (int p = 0; p < d->n_stage; p++)
        weights += d->stage[p].mem.weights * (double)d->strategy.tp;
    units_cell(UNIT_BYTES, d->hw.gpu.mem_bytes, r, N_TEXT);
    snprintf(of, sizeof of,
             hw_on_processors(&d->hw) ? "each rank (the host has %s)" : "each %s GPU", r);
    fprintf(f,
            "capacity    weights %s, %lld KV block%s of %lld tokens a replica (%lld tokens); of "
            "%s:\n",
            units_cell(UNIT_BYTES, weights, all, N_TEXT), (long long)d->kv_blocks,
            units_s(d->kv_blocks), (long long)d->lim.block_tok,
            (long long)(d->kv_blocks * d->lim.block_tok), of);
    fprintf(f, "  stage  layers    weights    overhead          KV    busy  bubble\n");
    for (int p = 0; p < d->n_stage; p++) {
        const struct memory *g = &d->stage[p].mem;
        if (p == 4 && d->n_stage > 8) {
            fprintf(f, "  ...    %d more stage%s\n", d->n_stage - 5, units_s(d->n_stage - 5));
            p = d->n_stage - 1;
            g = &d->stage[p].mem;
        }
        fprintf(f, "  %5d  %6d  %9s   %9s   %9s  %4.0f %%  %4.0f %%\n", p, d->stage[p].step.n_layer,
                units_cell(UNIT_BYTES, g->weights, w, N_TEXT),
                units_cell(UNIT_BYTES, g->activation + g->comm + g->graphs + g->other, r, N_TEXT),
                units_cell(UNIT_BYTES, (double)(d->kv_blocks * d->lim.block_tok) * g->kv_token, k,
                           N_TEXT),
                100 * metrics_utilisation(m, p), 100 * metrics_bubble(m, p));
    }
    if (d->n_stage > 1)
        fprintf(f, "  imbalance epsilon: %.1f %% by weights, %.1f %% by predicted time\n",
                100 * d->eps_bytes, 100 * d->eps_time);
}

static void throughput(const struct print_in *in, FILE *f)
{
    const struct outcome *o = in->o;
    const struct strategy *g = &in->d->strategy;
    char a[N_TEXT * 2], b[N_TEXT * 2];
    double gpus = (double)(g->tp * g->pp * g->dp);
    fprintf(f, "throughput  %s requests/s, %s output tokens/s, %.4g a %s\n",
            ci_text(o->q[Q_REQUESTS_PER_S], a, sizeof a),
            ci_text(o->q[Q_OUT_TOK_PER_S], b, sizeof b), o->q[Q_OUT_TOK_PER_S].mid / gpus,
            print_device(in));
}

static void latency(const struct print_in *in, FILE *f)
{
    static const char *const label[] = { "TTFT", "TPOT", "ITL", "E2E" };
    char t[STAT_N][N_TEXT], lo[N_TEXT], hi[N_TEXT], lo9[N_TEXT], hi9[N_TEXT];
    const struct outcome *o = in->o;
    fprintf(f, "latency           mean        p50        p90        p99");
    if (!in->line) fprintf(f, "   %2.0f %% interval: mean, p99", 100 * in->s->sim.level);
    fputc('\n', f);
    for (int k = 0; k < METRIC_N; k++) {
        const struct ci *c = &o->q[Q_LATENCY + k * STAT_N];
        fprintf(f, "  %-6s", label[k]);
        for (int i = 0; i < STAT_N; i++) fprintf(f, "  %9s", units_cell_ns(c[i].mid, t[i], N_TEXT));
        if (in->line)
            fputc('\n', f);
        else if (isnan(c[0].lo))
            fprintf(f, "   none: one run, constants as exact\n");
        else
            fprintf(f, "   %s .. %s, %s .. %s\n", units_cell_ns(c[STAT_MEAN].lo, lo, N_TEXT),
                    units_cell_ns(c[STAT_MEAN].hi, hi, N_TEXT),
                    units_cell_ns(c[STAT_P99].lo, lo9, N_TEXT),
                    units_cell_ns(c[STAT_P99].hi, hi9, N_TEXT));
    }
}

static void clause(const char *name, int64_t limit_ns, struct ci share, FILE *f)
{
    char t[N_TEXT];
    if (limit_ns)
        fprintf(f, "%s <= %s: %.1f %%; ", name, units_cell_ns((double)limit_ns, t, N_TEXT),
                100 * share.mid);
}

static void slo(const struct print_in *in, FILE *f)
{
    const struct scenario *s = in->s;
    const struct outcome *o = in->o;
    char g[N_TEXT * 2];
    struct ci a = o->q[Q_ATTAIN];
    if (!print_has_slo(&s->slo)) {
        fprintf(f, "SLO         none given (slo.ttft, slo.tpot, slo.e2e)\n");
        return;
    }
    if (in->ended_early) {
        fprintf(f, "SLO         no verdict: the run ended early\n");
        return;
    }
    fprintf(f, "SLO         ");
    clause("TTFT", s->slo.ttft_ns, o->q[Q_ATTAIN_TTFT], f);
    clause("TPOT", s->slo.tpot_ns, o->q[Q_ATTAIN_TPOT], f);
    clause("E2E", s->slo.e2e_ns, o->q[Q_ATTAIN_E2E], f);
    fprintf(f, "all of them: %.1f %%", 100 * a.mid);
    if (!isnan(a.lo)) fprintf(f, " [%.1f, %.1f]", 100 * a.lo, 100 * a.hi);
    fprintf(f, "\n            asked for %.4g %%: %s by %.1f points%s; goodput %s requests/s\n",
            100 * s->slo.attain_ratio, print_slo_held(s, o) ? "held" : "MISSED",
            100 * fabs(a.mid - s->slo.attain_ratio),
            !isnan(a.lo) && a.lo < s->slo.attain_ratio && a.hi >= s->slo.attain_ratio
                ? " (inside the interval: not certain)"
                : "",
            ci_text(o->q[Q_GOODPUT_PER_S], g, sizeof g));
}

static void where_time_goes(const struct print_in *in, FILE *f)
{
    const struct metrics *m = &in->o->all;
    if (m->w.n_step == 0) return;
    if (!in->line || metrics_has_classes(m)) {
        fprintf(f, "time        ");
        for (int c = 0; c < STEP_N_CLASS; c++)
            fprintf(f, "%s%s %.1f %%", c ? ", " : "", step_class_name((enum step_class)c),
                    100 * metrics_class_share(m, (enum step_class)c));
        fputc('\n', f);
    }
    fprintf(f,
            "KV          mean %.1f %%, peak %.1f %% of blocks; %lld preemption%s (%lld token%s "
            "recomputed); prefix cache %.1f %%\n",
            100 * metrics_kv_mean(m), 100 * (double)m->kv_peak / (double)m->kv_blocks,
            (long long)m->preempted, units_s(m->preempted), (long long)m->recomputed_tok,
            units_s(m->recomputed_tok),
            m->asked_tok ? 100 * (double)m->hit_tok / (double)m->asked_tok : 0.0);
    double window = 1e9 * metrics_window_s(m);
    fprintf(f, "load        %.1f running, %.1f waiting on average, %.1f tokens a step%s%s\n",
            m->w.running_area_ns / window, m->w.queue_area_ns / window,
            m->w.n_step ? (double)m->w.n_batch_tok / (double)m->w.n_step : 0.0,
            metrics_overloaded(m) ? "; OVERLOADED: the queue grows all the time, so latency "
                                    "depends on the length of the run"
                                  : "",
            m->whole ? "; SHORT RUN: ramp and drain are counted in, more requests would give a "
                       "higher throughput"
                     : "");
}

/* One workload's scatter is unknown, be it drawn once or replayed: intervals then hold less than they
 * seem to. */
static void interval_line(const struct print_in *in, FILE *f)
{
    const struct outcome *o = in->o;
    bool replayed = in->s->sim.replications > 1;
    const char *scatter =
        in->d->profile.measured ? "; how much measured runs scatter is not in them" : "";
    if (o->n_seed > 1 && in->d->profile.measured)
        fprintf(f, "intervals   of the workload's seeds and of the constants%s\n", scatter);
    if (o->n_seed == 1 && o->n_draw > 0)
        fprintf(f, "intervals   of the constants alone, of one workload (%s)%s\n",
                replayed ? "replayed" : "sim.replications 1", scatter);
}

static void trust(const struct print_in *in, FILE *f)
{
    const struct outcome *o = in->o;
    fprintf(f, "bottleneck  %s\n", o->bottleneck);
    fprintf(f, "coverage    %s%s\n", o->extrapolated ? "EXTRAPOLATED: " : "", o->coverage);
    if (in->d->profile.noise) fprintf(f, "noise       NOISY PROFILE: %s\n", in->d->profile.noise);
    interval_line(in, f);
    if (!o->top[0].name) return;
    fprintf(f, "uncertainty ");
    for (int k = 0; k < EVALUATE_TOP && o->top[k].name; k++)
        fprintf(f, "%s%s (%s, sd %.0f %%) %.1f %% of a step", k ? ", " : "mostly ", o->top[k].name,
                cover_name(o->top[k].cover), 100 * o->top[k].sd_log, 100 * o->top[k].share);
    if (o->top[0].own_error)
        fprintf(f,
                "\n            more samples of the same do not shrink it: so far (%.2g %%) are the "
                "laws "
                "off on whole steps held out\n            to shrink it, %s and calibrate again\n",
                100 * in->d->profile.law_own_sd, o->top[0].advice);
    else if (in->d->profile.measured)
        fprintf(f, "\n            to shrink it, %s and calibrate again\n", o->top[0].advice);
    else if (strcmp(o->top[0].name, profile_param_name(P_LAW)) == 0)
        fprintf(
            f, "\n            to shrink it, time one run of this model on this GPU: profile.law is "
               "measured over predicted step time\n");
    else
        fprintf(f, "\n            to shrink it, measure %s and set profile.%s\n", o->top[0].name,
                o->top[0].name);
}

static void checks(const struct print_in *in, FILE *f)
{
    const struct outcome *o = in->o;
    const struct metrics *m = &o->first;
    char wall[N_TEXT], peak[N_TEXT];
    fprintf(f,
            "requests    %s%lld due = %lld finished + %lld failed + %lld rejected%s%s%s; Little's "
            "law holds to %.1e; digest %016llx\n",
            o->n_seed > 1 ? "first seed: " : "", (long long)m->due, (long long)m->finished,
            (long long)m->failed, (long long)m->rejected, m->rejected ? " (" : "",
            m->rejected ? m->why_rejected : "", m->rejected ? ")" : "",
            metrics_little_error(&o->all), (unsigned long long)m->digest);
    fprintf(f,
            "runs        %d seed%s, %d draw%s of the constants; %s, %.3g requests/s simulated, %s "
            "of memory\n",
            o->n_seed, units_s(o->n_seed), o->n_draw, units_s(o->n_draw),
            units_human(UNIT_TIME, in->wall_s, wall, N_TEXT),
            (double)m->due * (o->n_seed + o->n_draw) / in->wall_s,
            units_cell(UNIT_BYTES, in->peak_bytes, peak, N_TEXT));
    if (in->out_path) fprintf(f, "written     %s\n", in->out_path);
}

void print_results(const struct print_in *in, FILE *f)
{
    throughput(in, f);
    latency(in, f);
    slo(in, f);
    where_time_goes(in, f);
}

void print_text(const struct print_in *in, FILE *f)
{
    if (in->s->o.title) fprintf(f, "question    %s\n", in->s->o.title);
    fprintf(f, "scenario    %s\n            %s\n", scenario_line(in->s, in->d), in->o->workload);
    capacity(in, f);
    print_results(in, f);
    trust(in, f);
    checks(in, f);
}

/* ---- sweeps */

void print_sweep_head(const struct scenario *s, const char *device, FILE *f)
{
    char column[16];
    snprintf(column, sizeof column, "%ss", device);
    if (s->o.title) fprintf(f, "question    %s\n", s->o.title);
    fprintf(f, "%-16.16s %5s %10s %10s %9s %9s %9s %9s %8s %6s\n", s->sweep_key, column,
            "requests/s", "out tok/s", "TTFT p50", "TTFT p99", "TPOT p50", "TPOT p99", "attained",
            "busy");
}

void print_sweep_row(const struct print_in *in, const char *value, FILE *f)
{
    const struct outcome *o = in->o;
    const struct strategy *g = &in->d->strategy;
    char t[4][N_TEXT];
    double busy = 0;
    for (int p = 0; p < in->d->n_stage; p++) busy = fmax(busy, metrics_utilisation(&o->all, p));
    char attained[16] = "-";
    if (print_has_slo(&in->s->slo))
        snprintf(attained, sizeof attained, "%.1f %%", 100 * o->q[Q_ATTAIN].mid);
    fprintf(f, "%-16.16s %5lld %10.4g %10.5g %9s %9s %9s %9s %8s %4.0f %%%s%s%s\n", value,
            (long long)(g->tp * g->pp * g->dp), o->q[Q_REQUESTS_PER_S].mid,
            o->q[Q_OUT_TOK_PER_S].mid,
            units_cell_ns(outcome_latency(o, METRIC_TTFT, STAT_P50).mid, t[0], N_TEXT),
            units_cell_ns(outcome_latency(o, METRIC_TTFT, STAT_P99).mid, t[1], N_TEXT),
            units_cell_ns(outcome_latency(o, METRIC_TPOT, STAT_P50).mid, t[2], N_TEXT),
            units_cell_ns(outcome_latency(o, METRIC_TPOT, STAT_P99).mid, t[3], N_TEXT), attained,
            100 * busy,
            metrics_overloaded(&o->all) ? " overloaded"
            : o->all.whole              ? " short run"
                                        : "",
            o->extrapolated ? " EXTRAPOLATED" : "", in->d->profile.noise ? " NOISY PROFILE" : "");
}
