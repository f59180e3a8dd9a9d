/* sim/verify_sim.c - simulates a case, and what its SLO leaves over or lacks.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/units.h"
#include "sim/print.h"
#include "sim/verify.h"

/* A margin of less than this share of the limit is tight. Assumed. */
static const double TIGHT = 0.05;

static void check_attainment(struct verify_case *c, const struct outcome *o)
{
    const struct slo *slo = &c->s->slo;
    double got = o->q[Q_ATTAIN].mid, want = slo->attain_ratio, margin = got - want;
    bool held = print_slo_held(c->s, o), tight = held && margin < TIGHT * (1 - want);
    struct verify_check *k = verify_add(c, "slo.attainment",
                                        !held   ? VERIFY_FAIL
                                        : tight ? VERIFY_WARN
                                                : VERIFY_PASS,
                                        held ? VERIFY_P_TIGHT : VERIFY_P_SLO);
    k->required = want;
    k->available = got;
    k->deficit = fmax(0, want - got);
    k->unit = "ratio";
    k->says = arena_printf(
        c->a, "%.2f %% of %" PRId64 " requests meet all clauses, asked are %.2f %%: %s %.2f points",
        100 * got, o->all.kept, 100 * want, held ? "a margin of" : "short of it by",
        100 * fabs(margin));
    k->rule = "requests due in the window that meet every clause / all of them, simulated with the "
              "constants "
              "as they are; a warning where the margin is under 5 % of what may miss";
}

static void check_clause(struct verify_case *c, const struct outcome *o, enum metric m,
                         int64_t limit_ns)
{
    double q = c->s->slo.attain_ratio, at = hist_quantile(&o->all.h[m], q), want = (double)limit_ns;
    if (limit_ns == 0) return;
    struct verify_check *k = verify_add(c, arena_printf(c->a, "slo.%s", metric_name(m)),
                                        at <= want ? VERIFY_PASS : VERIFY_WARN, 0);
    k->required = want * 1e-9;
    k->available = at * 1e-9;
    k->deficit = fmax(0, k->available - k->required);
    k->unit = "s";
    k->says = arena_printf(
        c->a, "%.4g %% of finished requests have %s of at most %s, asked are %s: %s %s (%.1f %%)",
        100 * q, metric_name(m), units_cell_in(c->a, UNIT_TIME, 1e-9 * at),
        units_cell_in(c->a, UNIT_TIME, 1e-9 * want), at <= want ? "a margin of" : "over by",
        units_cell_in(c->a, UNIT_TIME, 1e-9 * fabs(want - at)), 100 * fabs(want - at) / want);
    k->rule = "quantile of the simulated latency at the attainment asked; the verdict is by "
              "attainment of all "
              "clauses together";
}

static void check_requests(struct verify_case *c, const struct outcome *o)
{
    const struct metrics *m = &o->all;
    int64_t bad = m->rejected + m->failed;
    struct verify_check *k =
        verify_add(c, "requests", bad ? VERIFY_WARN : VERIFY_PASS, VERIFY_P_TIGHT);
    k->required = (double)m->due;
    k->available = (double)m->finished;
    k->deficit = (double)bad;
    k->unit = "requests";
    k->says = arena_printf(c->a,
                           "%" PRId64 " of %" PRId64 " requests finish, %" PRId64
                           " are rejected, %" PRId64 " fail",
                           m->finished, m->due, m->rejected, m->failed);
    k->rule =
        "a request whose context exceeds the model's, or whose KV exceeds the pool, is rejected";
}

static void add_checks(struct verify_case *c, const struct outcome *o)
{
    check_requests(c, o);
    if (!print_has_slo(&c->s->slo)) return;
    check_attainment(c, o);
    check_clause(c, o, METRIC_TTFT, c->s->slo.ttft_ns);
    check_clause(c, o, METRIC_TPOT, c->s->slo.tpot_ns);
    check_clause(c, o, METRIC_E2E, c->s->slo.e2e_ns);
}

static void take(const struct verify_case *c, const struct outcome *o, struct verify_run *out)
{
    const struct metrics *m = &o->all;
    int stage = 0;
    for (int p = 1; p < m->n_stage; p++)
        if (m->w.stage_busy_ns[p] > m->w.stage_busy_ns[stage]) stage = p;
    *out = (struct verify_run){ .ran = true,
                                .attain = o->q[Q_ATTAIN].mid,
                                .ttft_p99_ns = outcome_latency(o, METRIC_TTFT, STAT_P99).mid,
                                .tpot_p50_ns = outcome_latency(o, METRIC_TPOT, STAT_P50).mid,
                                .tpot_p99_ns = outcome_latency(o, METRIC_TPOT, STAT_P99).mid,
                                .e2e_mean_ns = outcome_latency(o, METRIC_E2E, STAT_MEAN).mid,
                                .requests_per_s = o->q[Q_REQUESTS_PER_S].mid,
                                .out_tok_per_s = o->q[Q_OUT_TOK_PER_S].mid,
                                .busy = metrics_utilisation(m, stage),
                                .bubble = metrics_bubble(m, stage),
                                .due = m->due,
                                .rejected = m->rejected + m->failed,
                                .held = print_slo_held(c->s, o),
                                .overloaded = metrics_overloaded(m),
                                .bottleneck = o->bottleneck };
    for (int k = 0; k < STEP_N_CLASS; k++)
        out->share[k] = metrics_class_share(m, (enum step_class)k);
}

int verify_simulate(struct verify_case *c, const struct verify_sim *how, struct verify_run *out,
                    struct err *e)
{
    struct scenario *s = c->s;
    struct outcome o;
    s->sim.draws = 0;
    s->sim.threads = how->threads;
    if (how->replications > 0) s->sim.replications = how->replications;
    if (how->requests > 0 && c->load.n > how->requests) s->workload.requests = how->requests;
    *out = (struct verify_run){ .error = "not simulated" };
    int st = evaluate(s, c->deploy, NULL, &o, e);
    if (st == ST_OK) {
        take(c, &o, out);
        if (how->checks) add_checks(c, &o);
    }
    outcome_release(&o);
    return st;
}
