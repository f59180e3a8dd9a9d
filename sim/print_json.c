/* sim/print_json.c - the result as one JSON object. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "base/json.h"
#include "sim/print.h"

static void put_ci(json_t *j, const char *path, struct ci c, const char *unit, struct arena *a)
{
    json_put_f64(j, arena_printf(a, "%s%s", path, unit), c.mid);
    if (isnan(c.lo)) return;
    json_t *pair = json_array();
    json_array_append_new(pair, json_real(c.lo));
    json_array_append_new(pair, json_real(c.hi));
    json_put(j, arena_printf(a, "%s_interval%s", path, unit), pair);
}

static void put_latency(json_t *j, const struct outcome *o, struct arena *a)
{
    static const char *const stat[] = { "mean", "p50", "p90", "p99" };
    for (int k = 0; k < METRIC_N; k++)
        for (int i = 0; i < STAT_N; i++)
            put_ci(j, arena_printf(a, "latency.%s.%s", metric_name((enum metric)k), stat[i]),
                   o->q[Q_LATENCY + k * STAT_N + i], "_ns", a);
}

/* Of a run that ended early: the limits, and null for what cannot be told. */
static void put_slo(json_t *j, const struct print_in *in, struct arena *a)
{
    static const struct ci unknown = { NAN, NAN, NAN };
    const struct scenario *s = in->s;
    const struct outcome *o = in->o;
    bool whole = !in->ended_early;
    put_ci(j, "slo.attainment", whole ? o->q[Q_ATTAIN] : unknown, "_ratio", a);
    put_ci(j, "slo.goodput", whole ? o->q[Q_GOODPUT_PER_S] : unknown, "_per_s", a);
    if (!print_has_slo(&s->slo)) return;
    json_put_f64(j, "slo.asked_ratio", s->slo.attain_ratio);
    if (whole)
        json_put_bool(j, "slo.held", print_slo_held(s, o));
    else
        json_put(j, "slo.held", json_null());
    if (s->slo.ttft_ns) {
        json_put_i64(j, "slo.ttft.limit_ns", s->slo.ttft_ns);
        json_put_f64(j, "slo.ttft.attainment_ratio", whole ? o->q[Q_ATTAIN_TTFT].mid : NAN);
    }
    if (s->slo.tpot_ns) {
        json_put_i64(j, "slo.tpot.limit_ns", s->slo.tpot_ns);
        json_put_f64(j, "slo.tpot.attainment_ratio", whole ? o->q[Q_ATTAIN_TPOT].mid : NAN);
    }
    if (s->slo.e2e_ns) {
        json_put_i64(j, "slo.e2e.limit_ns", s->slo.e2e_ns);
        json_put_f64(j, "slo.e2e.attainment_ratio", whole ? o->q[Q_ATTAIN_E2E].mid : NAN);
    }
}

static void put_stages(json_t *j, const struct deploy *d, const struct metrics *m)
{
    json_t *list = json_array();
    for (int p = 0; p < d->n_stage; p++) {
        const struct memory *g = &d->stage[p].mem;
        json_t *o = json_object();
        json_put_i64(o, "layers", d->stage[p].step.n_layer);
        json_put_f64(o, "weights_bytes", g->weights);
        json_put_f64(o, "overhead_bytes", g->activation + g->comm + g->graphs + g->other);
        json_put_f64(o, "kv_bytes", (double)(d->kv_blocks * d->lim.block_tok) * g->kv_token);
        json_put_f64(o, "busy_ratio", metrics_utilisation(m, p));
        json_put_f64(o, "bubble_ratio", metrics_bubble(m, p));
        json_array_append_new(list, o);
    }
    json_put(j, "stages", list);
    json_put_f64(j, "imbalance.weights_ratio", d->eps_bytes);
    json_put_f64(j, "imbalance.time_ratio", d->eps_time);
}

static void put_classes(json_t *j, const struct metrics *m, struct arena *a)
{
    static const char *const name[] = { "gemm", "attention", "collective", "p2p", "host", "other" };
    for (int c = 0; c < STEP_N_CLASS; c++)
        json_put_f64(j, arena_printf(a, "time_share.%s_ratio", name[c]),
                     metrics_class_share(m, (enum step_class)c));
}

static void put_load(json_t *j, const struct deploy *d, const struct metrics *m)
{
    double window = 1e9 * metrics_window_s(m);
    json_put_i64(j, "kv.blocks", d->kv_blocks);
    json_put_i64(j, "kv.block_tok", d->lim.block_tok);
    json_put_i64(j, "kv.preemptions", m->preempted);
    json_put_i64(j, "kv.recomputed_tok", m->recomputed_tok);
    json_put_f64(j, "kv.mean_ratio", metrics_kv_mean(m));
    json_put_f64(j, "kv.peak_ratio", (double)m->kv_peak / (double)m->kv_blocks);
    json_put_f64(j, "kv.prefix_hit_ratio",
                 m->asked_tok ? (double)m->hit_tok / (double)m->asked_tok : 0);
    json_put_f64(j, "load.running_mean", m->w.running_area_ns / window);
    json_put_f64(j, "load.waiting_mean", m->w.queue_area_ns / window);
    json_put_f64(j, "load.tokens_per_step",
                 m->w.n_step ? (double)m->w.n_batch_tok / (double)m->w.n_step : NAN);
    json_put_i64(j, "load.steps", m->w.n_step);
    json_put_bool(j, "load.overloaded", metrics_overloaded(m));
    json_put_bool(j, "load.short_run", m->whole);
}

static void put_uncertainty(json_t *j, const struct outcome *o)
{
    json_t *list = json_array();
    for (int k = 0; k < EVALUATE_TOP && o->top[k].name; k++) {
        json_t *t = json_object();
        json_put_text(t, "constant", o->top[k].name);
        json_put_f64(t, "of_step_ratio", o->top[k].share);
        json_put_f64(t, "sd_log", o->top[k].sd_log);
        json_put_text(t, "cover", cover_name(o->top[k].cover));
        json_put_text(t, "measure", o->top[k].advice);
        json_put_bool(t, "more_samples_shrink_it", !o->top[k].own_error);
        json_array_append_new(list, t);
    }
    json_put(j, "uncertainty", list);
}

void print_results_json(const struct print_in *in, json_t *j)
{
    const struct outcome *o = in->o;
    const struct metrics *m = &o->first;
    const struct strategy *g = &in->d->strategy;
    struct arena *a = in->s->arena;
    double ranks = (double)(g->tp * g->pp * g->dp);
    json_put_text(j, "scenario", in->line ? in->line : scenario_line(in->s, in->d));
    json_put_text(j, "title", in->s->o.title);
    json_put_text(j, "workload", o->workload);
    if (in->line) json_put_text(j, "ended_early", in->ended_early);
    json_put_text(j, "digest", arena_printf(a, "%016llx", (unsigned long long)m->digest));
    json_put_i64(j, "requests.due", m->due);
    json_put_i64(j, "requests.finished", m->finished);
    json_put_i64(j, "requests.failed", m->failed);
    json_put_i64(j, "requests.rejected", m->rejected);
    if (m->why_rejected) json_put_text(j, "requests.why_rejected", m->why_rejected);
    json_put_i64(j, "runs.seeds", o->n_seed);
    json_put_i64(j, "runs.draws", o->n_draw);
    json_put_f64(j, "runs.interval_level", in->s->sim.level);
    json_put_f64(j, "runs.little_error_ratio", metrics_little_error(&o->all));
    json_put_f64(j, "runs.window_s", metrics_window_s(&o->all));
    put_ci(j, "throughput.requests", o->q[Q_REQUESTS_PER_S], "_per_s", a);
    put_ci(j, "throughput.output_tokens", o->q[Q_OUT_TOK_PER_S], "_per_s", a);
    json_put_f64(
        j, in->line ? "throughput.output_tokens_per_rank_s" : "throughput.output_tokens_per_gpu_s",
        o->q[Q_OUT_TOK_PER_S].mid / ranks);
    put_latency(j, o, a);
    put_slo(j, in, a);
    put_stages(j, in->d, &o->all);
    if (!in->line || metrics_has_classes(&o->all)) put_classes(j, &o->all, a);
    put_load(j, in->d, &o->all);
}

json_t *print_json(const struct print_in *in)
{
    const struct outcome *o = in->o;
    const struct metrics *m = &o->first;
    json_t *j = json_object();
    print_results_json(in, j);
    json_put_text(j, "bottleneck", o->bottleneck);
    json_put_text(j, "coverage", o->coverage);
    json_put_bool(j, "extrapolated", o->extrapolated);
    json_put_text(j, "not_measured", o->unmeasured ? o->unmeasured : "");
    json_put_text(j, "profile_noise", in->d->profile.noise ? in->d->profile.noise : "");
    json_put_text(j, "intervals_hold", /* never: scatter of measured runs */
                  o->n_seed > 1   ? o->n_draw ? "workload seeds, constants" : "workload seeds"
                  : o->n_draw > 0 ? "constants"
                                  : "");
    put_uncertainty(j, o);
    json_put_f64(j, "wall.simulate_s", in->wall_s);
    json_put_f64(j, "wall.requests_per_s", (double)m->due * (o->n_seed + o->n_draw) / in->wall_s);
    json_put_f64(j, "wall.peak_memory_bytes", in->peak_bytes);
    if (in->out_path) json_put_text(j, "run_file", in->out_path);
    return j;
}
