/* sim/store.c - see store.h. SPDX-License-Identifier: Apache-2.0 */
#include "sim/store.h"

#include <math.h>
#include <stdlib.h>

#include "model/profile_file.h"

static void put_request(void *ctx, const struct run_request *row)
{
    struct store *t = ctx;
    if (!t->e.status) run_put_request(t->run, row, &t->e);
}

static void put_step(void *ctx, const struct run_step *row)
{
    struct store *t = ctx;
    if (!t->e.status) run_put_step(t->run, row, &t->e);
}

static void put_span(void *ctx, const struct run_span *row)
{
    struct store *t = ctx;
    if (!t->e.status) run_put_span(t->run, row, &t->e);
}

static void put_bin(void *ctx, const struct run_bin *row)
{
    struct store *t = ctx;
    if (!t->e.status) run_put_bin(t->run, row, &t->e);
}

int store_begin(struct store *t, const char *path, bool steps, struct err *e)
{
    *t = (struct store){ .run = run_create(path, e) };
    if (!t->run) return e->status;
    t->sink = (struct sim_sink){ .ctx = t,
                                 .request = put_request,
                                 .step = steps ? put_step : NULL,
                                 .span = put_span,
                                 .bin = put_bin };
    return ST_OK;
}

void store_abort(struct store *t)
{
    run_abort(t->run);
    t->run = NULL;
}

/* ---- summary */

/* One estimate with its interval; a measured run is one run and has none. */
static void put_one(struct store *t, const char *name, const struct ci *c, int n, const char *stats,
                    const char *units)
{
    if (!t->e.status)
        run_put_summary(t->run, name, c, n, stats, units,
                        t->measured
                            ? "one measured run"
                            : "jackknife over seeds and quantiles over draws, in quadrature",
                        &t->e);
}

static void put_quantities(struct store *t, const struct print_in *in)
{
    const struct outcome *o = in->o;
    static const struct {
        int q;
        const char *name, *units;
    } one[] = { { Q_REQUESTS_PER_S, "requests_per_s", "request s-1" },
                { Q_OUT_TOK_PER_S, "output_per_s", "token s-1" },
                { Q_GOODPUT_PER_S, "goodput_per_s", "request s-1" },
                { Q_ATTAIN, "attainment", "1" },
                { Q_ATTAIN_TTFT, "attainment_ttft", "1" },
                { Q_ATTAIN_TPOT, "attainment_tpot", "1" },
                { Q_ATTAIN_E2E, "attainment_e2e", "1" } };
    for (int k = 0; k < METRIC_N; k++)
        put_one(t, metric_name((enum metric)k), &o->q[Q_LATENCY + k * STAT_N], STAT_N,
                "mean p50 p90 p99", "ns");
    for (size_t i = 0; i < sizeof one / sizeof *one; i++)
        put_one(t, one[i].name, &o->q[one[i].q], 1, "mean", one[i].units);
}

static void put_list(struct store *t, const char *path, const char *dim, size_t n, const double *v,
                     const char *units, const char *description)
{
    double index[STRATEGY_MAX_PP];
    const double *scale[1] = { index };
    const char *const unit[1] = { "1" };
    for (size_t i = 0; i < n; i++) index[i] = (double)i;
    if (!t->e.status)
        h5_array(run_h5(t->run), path, 1, &n, &dim, scale, unit, v, units, description, &t->e);
}

static void put_stages(struct store *t, const struct deploy *d, const struct metrics *m)
{
    double busy[STRATEGY_MAX_PP], bubble[STRATEGY_MAX_PP], weights[STRATEGY_MAX_PP],
        kv[STRATEGY_MAX_PP];
    double layers[STRATEGY_MAX_PP], rest[STRATEGY_MAX_PP];
    size_t n = (size_t)d->n_stage;
    for (int p = 0; p < d->n_stage; p++) {
        const struct memory *g = &d->stage[p].mem;
        busy[p] = metrics_utilisation(m, p);
        bubble[p] = metrics_bubble(m, p);
        weights[p] = g->weights;
        rest[p] = g->activation + g->comm + g->graphs + g->other;
        kv[p] = (double)(d->kv_blocks * d->lim.block_tok) * g->kv_token;
        layers[p] = d->stage[p].step.n_layer;
    }
    put_list(t, "/summary/stage_busy", "stage", n, busy, "1",
             "share of the window that the stage computes");
    put_list(t, "/summary/stage_bubble", "stage", n, bubble, "1",
             "share of time idle while its replica has work");
    put_list(t, "/summary/stage_layers", "stage", n, layers, "1", "layers on the stage");
    put_list(t, "/summary/stage_weights", "stage", n, weights, "byte",
             "weights on each GPU of the stage");
    put_list(t, "/summary/stage_overhead", "stage", n, rest, "byte",
             "activations, communicators, graphs, context on each GPU");
    put_list(t, "/summary/stage_kv", "stage", n, kv, "byte", "KV blocks on each GPU of the stage");
}

static void put_shares(struct store *t, const struct print_in *in)
{
    const struct metrics *m = &in->o->all;
    double share[STEP_N_CLASS], blocked[SCHED_N_BLOCKED];
    for (int c = 0; c < STEP_N_CLASS; c++) share[c] = metrics_class_share(m, (enum step_class)c);
    for (int i = 0; i < SCHED_N_BLOCKED; i++) blocked[i] = m->w.blocked_ns[i] * 1e-9;
    bool classes = !in->line || metrics_has_classes(m);
    if (classes)
        put_list(t, "/summary/time_share", "operator_class", STEP_N_CLASS, share, "1",
                 in->line ? "share of step time by operator class, summed over stages, mean over "
                            "their ranks; p2p: of messages between stages what nobody worked "
                            "in, without the tokens' way back"
                          : "share of step time by operator class");
    put_list(t, "/summary/blocked", "reason", SCHED_N_BLOCKED, blocked, "s",
             "time during which requests waited, by reason");
    if (t->e.status) return;
    if (classes)
        h5_attr_text(run_h5(t->run), "/summary/time_share", "classes",
                     "GEMM attention collective p2p host other", &t->e);
    h5_attr_text(run_h5(t->run), "/summary/blocked", "reasons",
                 "step_in_flight kv_blocks max_seqs token_budget micro_batch preemption", &t->e);
}

/* seen: the engine's steps were; of a measured run without, such as one that its journal gave back,
 * levels are not known. */
static void put_levels(struct store *t, const struct metrics *m, bool seen)
{
    double window = 1e9 * metrics_window_s(m);
    const struct {
        const char *name;
        double v;
    } level[] = { { "little_error", metrics_little_error(m) },
                  { "kv_mean", metrics_kv_mean(m) },
                  { "kv_peak", (double)m->kv_peak / (double)m->kv_blocks },
                  { "prefix_hit", m->asked_tok ? (double)m->hit_tok / (double)m->asked_tok : 0 },
                  { "running_mean", m->w.running_area_ns / window },
                  { "waiting_mean", m->w.queue_area_ns / window } };
    for (size_t i = 0; i < sizeof level / sizeof *level; i++)
        h5_attr_f64(run_h5(t->run), "/summary", level[i].name, seen ? level[i].v : NAN, &t->e);
}

static void put_scalars(struct store *t, const struct print_in *in)
{
    h5 *f = run_h5(t->run);
    const struct outcome *o = in->o;
    const struct metrics *m = &o->first;
    const struct strategy *g = &in->d->strategy;
    const struct slo *slo = &in->s->slo;
    char digest[20];
    snprintf(digest, sizeof digest, "%016llx", (unsigned long long)m->digest);
    const struct {
        const char *name, *text;
    } text[] = { { "scenario", in->line ? in->line : scenario_line(in->s, in->d) },
                 { "title", in->s->o.title ? in->s->o.title : "" },
                 { "workload", o->workload },
                 { "bottleneck", o->bottleneck },
                 { "coverage", o->coverage },
                 { "profile_noise", in->line || !in->d->profile.noise ? "" : in->d->profile.noise },
                 { "device", print_device(in) },
                 { "digest", digest } };
    const struct {
        const char *name;
        int64_t v;
    } whole[] = { { "due", m->due },
                  { "finished", m->finished },
                  { "failed", m->failed },
                  { "rejected", m->rejected },
                  { "seeds", o->n_seed },
                  { "draws", o->n_draw },
                  { "slo_ttft_ns", slo->ttft_ns },
                  { "slo_tpot_ns", slo->tpot_ns },
                  { "slo_e2e_ns", slo->e2e_ns },
                  { "kv_blocks", in->d->kv_blocks },
                  { "block_tok", in->d->lim.block_tok },
                  { "preemptions", m->preempted },
                  { "tp", g->tp },
                  { "pp", g->pp },
                  { "dp", g->dp },
                  { "gpus", g->tp * g->pp * g->dp },
                  { "extrapolated", o->extrapolated },
                  { "overloaded", metrics_overloaded(&o->all) },
                  { "window_begin_ns", m->t_begin_ns },
                  { "window_end_ns", m->w.t_end_ns } };
    for (size_t i = 0; i < sizeof text / sizeof *text; i++)
        h5_attr_text(f, "/summary", text[i].name, text[i].text, &t->e);
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        h5_attr_i64(f, "/summary", whole[i].name, whole[i].v, &t->e);
    h5_attr_f64(f, "/summary", "slo_attainment", slo->attain_ratio, &t->e);
    h5_attr_f64(f, "/summary", "interval_level", in->s->sim.level, &t->e);
    put_levels(t, &o->all, in->line == NULL || o->all.w.n_step > 0);
    h5_attr_f64(f, "/summary", "gpu_memory_bytes", in->d->hw.gpu.mem_bytes, &t->e);
    h5_attr_i64(f, "/summary", "recomputed_tok", o->all.recomputed_tok, &t->e);
    h5_attr_i64(f, "/summary", "short_run", o->all.whole, &t->e);
    if (m->why_rejected) h5_attr_text(f, "/summary", "why_rejected", m->why_rejected, &t->e);
    h5_attr_f64(f, "/summary", "wall_s", in->wall_s > 0 ? in->wall_s : NAN, &t->e);
    for (int k = 0; k < EVALUATE_TOP && o->top[k].name; k++) {
        h5_attr_text(f, "/summary", arena_printf(in->s->arena, "uncertain_%d", k + 1),
                     o->top[k].name, &t->e);
        h5_attr_f64(f, "/summary", arena_printf(in->s->arena, "uncertain_%d_of_step", k + 1),
                    o->top[k].share, &t->e);
    }
}

/* What the constants were measured on, so that a prediction is compared with what is of it. */
static void put_origin(struct store *t, const struct profile_file *from)
{
    const struct {
        const char *name, *text;
    } text[] = { { "profile_machine", from->machine },
                 { "profile_cpu", from->cpu },
                 { "profile_gpu", from->gpu },
                 { "profile_host", from->host } };
    h5 *h = run_h5(t->run);
    for (size_t i = 0; i < sizeof text / sizeof *text && !t->e.status; i++)
        h5_attr_text(h, "/scenario", text[i].name, text[i].text ? text[i].text : "", &t->e);
    if (!t->e.status && from->runs && *from->runs)
        h5_text(h, "/scenario/calibrated_by", from->runs,
                "measured runs that the hardware's profile was made of", &t->e);
}

/* from: the measured profile that the constants come from; NULL: none. */
static void put_scenario(struct store *t, const struct scenario *s, const struct prov *p,
                         const char *kind, const struct profile_file *from)
{
    char *yaml = NULL, sha[65];
    size_t n = 0;
    FILE *f = open_memstream(&yaml, &n);
    if (!f) {
        err_set(&t->e, ST_IO, "out of memory for the scenario's text");
        return;
    }
    scenario_echo(s, f);
    fclose(f);
    h5 *h = run_h5(t->run);
    if (!t->e.status)
        prov_write(p, h, "orrery-run", "1.0.0", s->o.title ? s->o.title : s->path, &t->e);
    if (!t->e.status) h5_attr_text(h, "/provenance", "kind", kind, &t->e);
    if (!t->e.status) h5_attr_text(h, "/provenance", "scenario_file", s->path, &t->e);
    if (!t->e.status && prov_sha256_file(s->path, sha, NULL) == ST_OK)
        h5_attr_text(h, "/provenance", "scenario_sha256", sha, &t->e);
    if (!t->e.status) h5_group(h, "/scenario", "what was asked, defaults included", &t->e);
    if (!t->e.status) h5_text(h, "/scenario/yaml", yaml, "effective scenario", &t->e);
    if (!t->e.status && from) put_origin(t, from);
    free(yaml);
}

static int end(struct store *t, struct err *e)
{
    if (t->e.status) {
        store_abort(t);
        return err_set(e, t->e.status, "%s", t->e.text);
    }
    int st = run_commit(t->run, e);
    t->run = NULL;
    return st;
}

int store_finish(struct store *t, const struct print_in *in, const struct prov *p, struct err *e)
{
    t->measured = in->line != NULL;
    const struct profile_file *from = in->line ? NULL : in->d->hw.measured;
    put_scenario(t, in->s, p, in->line ? "measured" : "simulated", from);
    put_quantities(t, in);
    put_stages(t, in->d, &in->o->all);
    put_shares(t, in);
    if (!t->e.status) put_scalars(t, in);
    return end(t, e);
}

/* ---- sweeps */

static double seconds(const struct outcome *o, enum metric m, int stat, double ci_side)
{
    struct ci c = outcome_latency(o, m, stat);
    return 1e-9 * (ci_side < 0 ? c.lo : ci_side > 0 ? c.hi : c.mid);
}

void store_sweep_row(struct store *t, const struct print_in *in, double value)
{
    const struct outcome *o = in->o;
    const struct strategy *g = &in->d->strategy;
    const struct metrics *m = &o->all;
    struct run_sweep r = { .value = value,
                           .requests_per_s = o->q[Q_REQUESTS_PER_S].mid,
                           .output_tok_per_s = o->q[Q_OUT_TOK_PER_S].mid,
                           .goodput_per_s = o->q[Q_GOODPUT_PER_S].mid,
                           .attain_ratio = o->q[Q_ATTAIN].mid,
                           .attain_lo = o->q[Q_ATTAIN].lo,
                           .attain_hi = o->q[Q_ATTAIN].hi,
                           .out_lo = o->q[Q_OUT_TOK_PER_S].lo,
                           .out_hi = o->q[Q_OUT_TOK_PER_S].hi,
                           .tp = (double)g->tp,
                           .pp = (double)g->pp,
                           .dp = (double)g->dp,
                           .gpus = (double)(g->tp * g->pp * g->dp),
                           .overloaded = metrics_overloaded(m) };
    r.rate_per_s = (double)m->due / (1e-9 * (double)m->t_last_due_ns);
    double *const at[3][STAT_N] = { { &r.ttft_mean_s, &r.ttft_p50_s, &r.ttft_p90_s, &r.ttft_p99_s },
                                    { &r.tpot_mean_s, &r.tpot_p50_s, &r.tpot_p90_s, &r.tpot_p99_s },
                                    { &r.e2e_mean_s, &r.e2e_p50_s, &r.e2e_p90_s, &r.e2e_p99_s } };
    static const enum metric which[3] = { METRIC_TTFT, METRIC_TPOT, METRIC_E2E };
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < STAT_N; i++) *at[k][i] = seconds(o, which[k], i, 0);
    r.ttft_p99_lo_s = seconds(o, METRIC_TTFT, STAT_P99, -1);
    r.ttft_p99_hi_s = seconds(o, METRIC_TTFT, STAT_P99, 1);
    r.tpot_p99_lo_s = seconds(o, METRIC_TPOT, STAT_P99, -1);
    r.tpot_p99_hi_s = seconds(o, METRIC_TPOT, STAT_P99, 1);
    t->device = print_device(in);
    if (!t->e.status) run_put_sweep(t->run, &r, &t->e);
}

int store_finish_sweep(struct store *t, const struct scenario *s, const struct prov *p,
                       struct err *e)
{
    put_scenario(t, s, p, "simulated", NULL);
    h5 *f = run_h5(t->run);
    if (!t->e.status) h5_attr_text(f, "/sweep", "key", s->sweep_key, &t->e);
    if (!t->e.status && t->device) h5_attr_text(f, "/sweep", "device", t->device, &t->e);
    if (!t->e.status) h5_attr_i64(f, "/sweep", "slo_ttft_ns", s->slo.ttft_ns, &t->e);
    if (!t->e.status) h5_attr_i64(f, "/sweep", "slo_tpot_ns", s->slo.tpot_ns, &t->e);
    if (!t->e.status) h5_attr_i64(f, "/sweep", "slo_e2e_ns", s->slo.e2e_ns, &t->e);
    if (!t->e.status) h5_attr_f64(f, "/sweep", "slo_attainment", s->slo.attain_ratio, &t->e);
    return end(t, e);
}
