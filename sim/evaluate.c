/* sim/evaluate.c - see evaluate.h. SPDX-License-Identifier: Apache-2.0 */
#include "sim/evaluate.h"

#include <math.h>
#include <string.h>

#include "base/pool.h"
#include "base/stop.h"
#include "sim/bottleneck.h"

enum { MAX_GROUPS = 20 };

static double quantity(const struct metrics *m, int q)
{
    double kept = m->kept > 0 ? (double)m->kept : NAN;
    switch (q) {
    case Q_REQUESTS_PER_S: return metrics_requests_per_s(m);
    case Q_OUT_TOK_PER_S: return metrics_out_tok_per_s(m);
    case Q_GOODPUT_PER_S: return metrics_goodput_per_s(m);
    case Q_ATTAIN: return metrics_attain(m);
    case Q_ATTAIN_TTFT: return (double)m->kept_ttft / kept;
    case Q_ATTAIN_TPOT: return (double)m->kept_tpot / kept;
    case Q_ATTAIN_E2E: return (double)m->kept_e2e / kept;
    default: return metrics_latency_ns(m, (enum metric)(q / STAT_N), q % STAT_N);
    }
}

/* ---- one run */

struct job {
    struct metrics m;     /* of a seed */
    double q[Q_N];        /* of a draw */
    const char *workload; /* first job only */
    struct err e;
    int st;
};
struct jobs {
    struct scenario *s;
    const struct deploy *d;
    const struct sim_sink *sink;
    struct job *job;
    int n_seed;
};

static int run_one(const struct jobs *w, int i, struct arena *a, struct metrics *m)
{
    const struct scenario *s = w->s;
    struct job *job = &w->job[i];
    int seed = i < w->n_seed ? i : 0, draw = i < w->n_seed ? 0 : i - w->n_seed + 1;
    struct rng r = rng_stream((uint64_t)s->sim.seed, "sim.replication");
    uint64_t key = seed ? rng_bits(r, (uint64_t)seed) : (uint64_t)s->sim.seed;
    struct profile p;
    struct step *step = w->d->step;
    struct sim_setup u = { .deploy = w->d,
                           .sched = &s->policy,
                           .slo = s->slo,
                           .router = s->sim.router,
                           .p2p = s->sim.p2p,
                           .fast = s->sim.fast,
                           .limit_ns = s->sim.limit_ns,
                           .bin_ns = s->o.bin_ns,
                           .warmup_ratio = s->sim.warmup_ratio };
    int st = ST_OK;
    if (draw) {
        profile_draw(&w->d->profile, rng_stream((uint64_t)s->sim.seed, "sim.draw"), draw, &p);
        st = deploy_step(w->d, &p, a, &step, &job->e);
    }
    if (st == ST_OK) st = trace_open(&s->workload, s->path, key, &u.trace, &job->e);
    if (st != ST_OK) return st;
    u.step = step;
    u.steady = trace_is_steady(u.trace);
    if (u.warmup_ratio < 0) u.warmup_ratio = u.steady ? 0.1 : 0;
    u.warm_ns = (int64_t)(u.warmup_ratio * (double)s->workload.duration_ns);
    if (i == 0) {
        u.sink = w->sink;
        u.span_t0_ns = s->o.span_from_ns;
        u.span_t1_ns = s->o.span_for_ns > 0 ? s->o.span_from_ns + s->o.span_for_ns : 0;
        job->workload =
            arena_printf(s->arena, "%s", trace_describe(u.trace)); /* alone: see evaluate */
    }
    st = sim_run(&u, a, m, &job->e);
    if (st == ST_OK && m->stopped) st = ST_STOPPED;
    trace_close(u.trace);
    return st;
}

static void work(void *arg, int i)
{
    const struct jobs *w = arg;
    struct job *job = &w->job[i];
    struct arena a;
    struct metrics m;
    if (stop_asked()) {
        job->st = ST_STOPPED;
        return;
    }
    arena_init(&a);
    metrics_init(&m);
    job->st = run_one(w, i, &a, &m);
    for (int q = 0; q < Q_N; q++) job->q[q] = quantity(&m, q);
    if (i < w->n_seed)
        job->m = m;
    else
        metrics_release(&m);
    arena_release(&a);
}

static void work_after_first(void *arg, int i)
{
    work(arg, i + 1);
}

/* ---- intervals. Latencies and throughputs on the log scale, as they cannot be negative; shares
 * as they are. */

static double to_scale(int q, double v)
{
    return q < Q_GOODPUT_PER_S ? log(v) : v;
}

static double from_scale(int q, double v)
{
    if (q < Q_GOODPUT_PER_S) return exp(v);
    return q == Q_GOODPUT_PER_S ? fmax(0, v) : fmin(1, fmax(0, v));
}

static void seed_intervals(const struct jobs *w, double level, struct outcome *o)
{
    int n_group = w->n_seed < MAX_GROUPS ? w->n_seed : MAX_GROUPS;
    double minus[MAX_GROUPS][Q_N], one[MAX_GROUPS];
    struct metrics part;
    for (int g = 0; g < n_group && n_group > 1; g++) {
        metrics_init(&part);
        for (int i = 0; i < w->n_seed; i++)
            if (i % n_group != g) metrics_merge(&part, &w->job[i].m);
        for (int q = 0; q < Q_N; q++) minus[g][q] = to_scale(q, quantity(&part, q));
        metrics_release(&part);
    }
    for (int q = 0; q < Q_N; q++) {
        double est = to_scale(q, quantity(&o->all, q));
        for (int g = 0; g < n_group && n_group > 1; g++) one[g] = minus[g][q];
        o->q_seeds[q] = n_group > 1 ? stat_ci_jackknife(est, one, (size_t)n_group, level)
                                    : (struct ci){ NAN, est, NAN };
    }
}

static void draw_intervals(const struct jobs *w, int n_draw, double level, struct outcome *o,
                           struct arena *a)
{
    double *x = arena_array(a, (size_t)n_draw + 1, sizeof *x);
    for (int q = 0; q < Q_N; q++) {
        double est = o->q_seeds[q].mid, nominal = to_scale(q, w->job[0].q[q]);
        o->q_draws[q] = (struct ci){ NAN, est, NAN };
        size_t n = 0;
        for (int i = 0; i < n_draw; i++) {
            double v = to_scale(q, w->job[w->n_seed + i].q[q]) - nominal;
            if (isfinite(v)) x[n++] = v;
        }
        if (n < 2) continue;
        stat_sort(x, n);
        o->q_draws[q].lo = est + fmin(0, stat_quantile_sorted(x, n, (1 - level) / 2));
        o->q_draws[q].hi = est + fmax(0, stat_quantile_sorted(x, n, (1 + level) / 2));
    }
}

static double side(double est, double seeds, double draws)
{
    if (isnan(seeds) && isnan(draws)) return NAN;
    return hypot(isnan(seeds) ? 0 : est - seeds, isnan(draws) ? 0 : est - draws);
}

static struct ci unscaled(int q, struct ci c)
{
    struct ci out = { NAN, from_scale(q, c.mid), NAN };
    if (!isnan(c.lo)) out.lo = from_scale(q, c.lo);
    if (!isnan(c.hi)) out.hi = from_scale(q, c.hi);
    return out;
}

static void join_intervals(struct outcome *o)
{
    for (int q = 0; q < Q_N; q++) {
        double est = o->q_seeds[q].mid;
        struct ci both = { est - side(est, o->q_seeds[q].lo, o->q_draws[q].lo), est,
                           est + side(est, o->q_seeds[q].hi, o->q_draws[q].hi) };
        o->q[q] = unscaled(q, both);
        o->q_seeds[q] = unscaled(q, o->q_seeds[q]);
        o->q_draws[q] = unscaled(q, o->q_draws[q]);
    }
    struct ci *good = &o->q[Q_GOODPUT_PER_S]; /* no more are good than end */
    if (good->hi > o->q[Q_REQUESTS_PER_S].hi) good->hi = fmax(good->mid, o->q[Q_REQUESTS_PER_S].hi);
}

/* ---- which constant matters */

/* A step of the run's mean composition, all stages one after the other. */
static double mean_step_s(const struct metrics *m, const struct step *step, int n_stage)
{
    double n = (double)m->w.n_decode_sum / (double)m->w.n_step;
    double tok = (double)m->w.n_batch_tok / (double)m->w.n_step - n, sum = 0;
    double ctx =
        m->kept_done ? ((double)m->in_tok + (double)m->out_tok / 2) / (double)m->kept_done : 1;
    struct step_shape s = { .n_decode = (int64_t)(n + .5), .prefill_tok = (int64_t)(tok + .5) };
    s.sum_ctx = (int64_t)((double)s.n_decode * ctx);
    s.n_prefill = s.prefill_tok > 0;
    s.prefill_pairs = s.prefill_tok * (s.prefill_tok + 1) / 2;
    s.n_logits = s.n_decode + s.n_prefill;
    if (s.n_logits == 0) return NAN;
    for (int p = 0; p < n_stage; p++)
        sum +=
            (double)(step_total_fp(step, p, &s) + step_hop_fp(step, p, s.n_decode + s.prefill_tok));
    return sum;
}

struct lever {
    const struct deploy *d;
    const struct metrics *m;
    double base;
    double move[P_N]; /* ln of the step's time when the constant falls by one sd */
    double share[P_N];
};

static void pull(void *arg, int i)
{
    struct lever *l = arg;
    struct profile p = l->d->profile;
    struct arena a;
    struct step *step;
    l->move[i] = 0;
    if (p.p[i].sd_log <= 0) return;
    arena_init(&a);
    p.p[i].v *= exp(-p.p[i].sd_log); /* down: efficiencies end at 1 */
    if (i == P_GEMM_Q) p.p[i].v = fmax(1, p.p[i].v);
    if (deploy_step(l->d, &p, &a, &step, NULL) == ST_OK)
        l->move[i] = log(mean_step_s(l->m, step, l->d->n_stage) / l->base);
    if (!isfinite(l->move[i])) l->move[i] = 0;
    arena_release(&a);
}

/* Constants fitted together vary together: the block moves the step by s, s^2 = move' R move with
 * the correlations R, and a constant's share is its part of that sum over s; they add up to s, and
 * a constant that makes up for another has none. */
static void share_block(const struct deploy *d, const struct profile_block *b, struct lever *l)
{
    double with[PROFILE_BLOCK_MAX] = { 0 }, s2 = 0;
    for (int i = 0; i < b->n; i++)
        for (int j = 0; j < b->n; j++) {
            double cov = 0, sd = d->profile.p[b->id[i]].sd_log * d->profile.p[b->id[j]].sd_log;
            for (int k = 0; k < b->n; k++) cov += b->chol[i][k] * b->chol[j][k];
            if (sd > 0) with[i] += l->move[b->id[i]] * cov / sd * l->move[b->id[j]];
        }
    for (int i = 0; i < b->n; i++) s2 += with[i];
    for (int i = 0; i < b->n; i++) l->share[b->id[i]] = s2 > 0 ? fmax(0, with[i]) / sqrt(s2) : 0;
}

static void find_levers(const struct deploy *d, int n_thread, struct outcome *o)
{
    struct lever l = { .d = d, .m = &o->all };
    if (d->fixed_ns || o->all.w.n_step == 0) return;
    l.base = mean_step_s(&o->all, d->step, d->n_stage);
    pool_run(n_thread, P_N, pull, &l);
    for (int i = 0; i < P_N; i++) l.share[i] = fabs(l.move[i]);
    for (int i = 0; i < d->profile.n_block; i++) share_block(d, d->profile.block + i, &l);
    for (int k = 0; k < EVALUATE_TOP; k++) {
        int best = 0;
        for (int i = 1; i < P_N; i++)
            if (l.share[i] > l.share[best]) best = i;
        if (l.share[best] <= 0) return;
        o->top[k].name = profile_param_name((enum profile_id)best);
        o->top[k].advice = profile_advice(&d->profile, (enum profile_id)best, d->table != NULL);
        o->top[k].own_error = profile_is_own_error(&d->profile, (enum profile_id)best);
        o->top[k].share = l.share[best];
        o->top[k].sd_log = d->profile.p[best].sd_log;
        o->top[k].cover = d->profile.p[best].cover;
        l.share[best] = 0;
    }
}

/* ---- all of it */

static int collect(struct jobs *w, int n_draw, struct outcome *o, struct err *e)
{
    for (int i = 0; i < w->n_seed + n_draw; i++)
        if (w->job[i].st != ST_OK && w->job[i].st != ST_STOPPED)
            return err_set(e, w->job[i].st, "%s", w->job[i].e.text);
    for (int i = 0; i < w->n_seed; i++) metrics_merge(&o->all, &w->job[i].m);
    if (o->all.due == 0 && !stop_asked())
        return err_set(e, ST_USAGE,
                       "workload: no request is due before the end, so there is nothing to say");
    return ST_OK;
}

/* Constants without uncertainty have nothing to draw. */
static bool uncertain(const struct deploy *d)
{
    for (int i = 0; i < P_N; i++)
        if (d->profile.p[i].sd_log > 0) return d->fixed_ns == 0;
    return false;
}

static bool drawn(const struct scenario *s, struct err *e, int *st)
{
    struct trace *t;
    *st = trace_open(&s->workload, s->path, (uint64_t)s->sim.seed, &t, e);
    if (*st != ST_OK) return false;
    bool random = trace_is_random(t);
    trace_close(t);
    return random;
}

int evaluate(struct scenario *s, const struct deploy *d, const struct sim_sink *sink,
             struct outcome *o, struct err *e)
{
    int st, n_thread = s->sim.threads > 0 ? (int)s->sim.threads : pool_cpus();
    memset(o, 0, sizeof *o);
    metrics_init(&o->all);
    o->n_seed = drawn(s, e, &st) ? (int)s->sim.replications : 1;
    if (st != ST_OK) return st;
    o->n_draw = uncertain(d) ? (int)s->sim.draws : 0;
    struct jobs w = { .s = s, .d = d, .sink = sink, .n_seed = o->n_seed };
    w.job = arena_array(s->arena, (size_t)(o->n_seed + o->n_draw), sizeof *w.job);
    work(&w, 0); /* alone in the arena of the scenario, and in the sink */
    if (w.job[0].st == ST_OK) pool_run(n_thread, o->n_seed + o->n_draw - 1, work_after_first, &w);
    bool stopped = stop_asked();
    st = collect(&w, o->n_draw, o, e);
    if (st == ST_OK && !stopped) {
        seed_intervals(&w, s->sim.level, o);
        draw_intervals(&w, o->n_draw, s->sim.level, o, s->arena);
        join_intervals(o);
        if (o->n_draw) find_levers(d, n_thread, o);
        o->coverage =
            step_coverage(d->step, &o->all.extent, o->by_class, &o->extrapolated, s->arena);
        o->unmeasured = step_unmeasured(d->step, s->arena);
        o->bottleneck = bottleneck(&o->all, s->policy.max_seqs, s->arena);
        o->workload = w.job[0].workload;
    }
    o->first = w.job[0].m;
    w.job[0].m = (struct metrics){ 0 };
    for (int i = 1; i < o->n_seed; i++) metrics_release(&w.job[i].m);
    return st == ST_OK && stopped ? err_set(e, ST_STOPPED, "interrupted; nothing was written") : st;
}

void outcome_single(struct outcome *o)
{
    o->n_seed = 1;
    for (int q = 0; q < Q_N; q++) {
        struct ci c = { NAN, quantity(&o->all, q), NAN };
        o->q[q] = o->q_seeds[q] = o->q_draws[q] = c;
    }
}

void outcome_release(struct outcome *o)
{
    metrics_release(&o->first);
    metrics_release(&o->all);
}
