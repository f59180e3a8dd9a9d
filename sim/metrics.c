/* sim/metrics.c - see metrics.h. SPDX-License-Identifier: Apache-2.0 */
#include "sim/metrics.h"

#include <math.h>
#include <string.h>

const char *metric_name(enum metric m)
{
    static const char *const name[] = { "ttft", "tpot", "itl", "e2e" };
    return name[m];
}

void metrics_init(struct metrics *m)
{
    memset(m, 0, sizeof *m);
    for (int i = 0; i < METRIC_N; i++) hist_init(&m->h[i]);
}

void metrics_release(struct metrics *m)
{
    for (int i = 0; i < METRIC_N; i++) hist_release(&m->h[i]);
}

static void most(int64_t *into, int64_t v)
{
    if (v > *into) *into = v;
}

static void merge_extent(struct step_extent *into, const struct step_extent *from)
{
    most(&into->max_tok, from->max_tok);
    most(&into->max_seqs, from->max_seqs);
    most(&into->max_ctx_sum, from->max_ctx_sum);
    most(&into->max_ctx, from->max_ctx);
    most(&into->max_prefill, from->max_prefill);
}

#define SUM(member) into->member += from->member

void metrics_add_kept(struct metrics *into, const struct metrics *from)
{
    for (int i = 0; i < METRIC_N; i++) hist_merge(&into->h[i], &from->h[i]);
    SUM(kept);
    SUM(kept_ok);
    SUM(kept_ttft);
    SUM(kept_tpot);
    SUM(kept_e2e);
    SUM(kept_done);
    SUM(in_tok);
    SUM(out_tok);
    SUM(cached_tok);
}

void metrics_merge(struct metrics *into, const struct metrics *from)
{
    metrics_add_kept(into, from);
    SUM(due);
    SUM(finished);
    SUM(failed);
    SUM(rejected);
    SUM(w.done);
    SUM(w.out_tok);
    SUM(preempted);
    SUM(recomputed_tok);
    SUM(hit_tok);
    SUM(asked_tok);
    SUM(t_begin_ns);
    SUM(w.t_end_ns);
    SUM(t_last_due_ns);
    SUM(t_stop_ns); /* lengths of windows add up */
    SUM(w.queue_area_ns);
    SUM(w.running_area_ns);
    SUM(w.kv_area_ns);
    SUM(w.active_ns);
    SUM(in_system_area_ns);
    SUM(sojourn_sum_ns);
    SUM(half[0]);
    SUM(half[1]);
    SUM(w.n_step);
    SUM(w.n_batch_tok);
    SUM(w.n_decode_sum);
    SUM(n_event);
    SUM(n_run);
    SUM(digest);
#undef SUM
    for (int i = 0; i < SCHED_N_BLOCKED; i++) into->w.blocked_ns[i] += from->w.blocked_ns[i];
    for (int i = 0; i < STEP_N_CLASS; i++) into->w.class_ns[i] += from->w.class_ns[i];
    for (int i = 0; i < STRATEGY_MAX_PP; i++) into->w.stage_busy_ns[i] += from->w.stage_busy_ns[i];
    most(&into->kv_peak, from->kv_peak);
    merge_extent(&into->extent, &from->extent);
    into->kv_blocks = from->kv_blocks;
    into->n_replica = from->n_replica;
    into->n_stage = from->n_stage;
    if (!into->why_rejected) into->why_rejected = from->why_rejected;
    into->stopped = into->stopped || from->stopped;
    into->whole = into->whole || from->whole;
}

void metrics_add_request(struct metrics *m, const struct slo *slo, const struct run_request *row)
{
    int64_t ttft = row->t_first_ns - row->t_due_ns, e2e = row->t_last_ns - row->t_due_ns, tpot = 0;
    hist_add(&m->h[METRIC_TTFT], ttft, 1);
    hist_add(&m->h[METRIC_E2E], e2e, 1);
    if (row->n_out > 1) {
        tpot = (row->t_last_ns - row->t_first_ns + (row->n_out - 1) / 2) / (row->n_out - 1);
        hist_add(&m->h[METRIC_TPOT], tpot, 1);
    }
    bool ok1 = slo->ttft_ns == 0 || ttft <= slo->ttft_ns,
         ok2 = slo->tpot_ns == 0 || tpot <= slo->tpot_ns;
    bool ok3 = slo->e2e_ns == 0 || e2e <= slo->e2e_ns;
    m->kept_ttft += ok1;
    m->kept_tpot += ok2;
    m->kept_e2e += ok3;
    m->kept_ok += ok1 && ok2 && ok3;
    m->kept_done++;
    m->in_tok += row->n_in;
    m->out_tok += row->n_out;
    m->cached_tok += row->cached_in;
}

void metrics_close(struct metrics *m, int64_t t_end_ns, const struct metrics_window *at_last,
                   bool begun)
{
    m->w.t_end_ns = t_end_ns;
    m->whole =
        at_last && 2 * (m->t_stop_ns - at_last->t_end_ns) >= at_last->t_end_ns - m->t_begin_ns;
    if (at_last && !m->whole) m->w = *at_last;
    if (!begun) m->t_begin_ns = m->w.t_end_ns;
}

static double ratio(double a, double b)
{
    return b > 0 ? a / b : NAN;
}

double metrics_attain(const struct metrics *m)
{
    return ratio((double)m->kept_ok, (double)m->kept);
}

double metrics_window_s(const struct metrics *m)
{
    return 1e-9 * (double)(m->w.t_end_ns - m->t_begin_ns);
}

double metrics_requests_per_s(const struct metrics *m)
{
    return ratio((double)m->w.done, metrics_window_s(m));
}

double metrics_out_tok_per_s(const struct metrics *m)
{
    return ratio((double)m->w.out_tok, metrics_window_s(m));
}

double metrics_goodput_per_s(const struct metrics *m)
{
    return ratio((double)m->kept_ok, metrics_window_s(m));
}

double metrics_latency_ns(const struct metrics *m, enum metric k, int stat)
{
    static const double q[] = { NAN, .5, .9, .99 };
    if (m->h[k].n == 0) return NAN;
    return stat == 0 ? hist_mean(&m->h[k]) : hist_quantile(&m->h[k], q[stat]);
}

double metrics_little_error(const struct metrics *m)
{
    if (m->in_system_area_ns <= 0) return m->sojourn_sum_ns > 0 ? 1 : 0;
    return fabs(m->in_system_area_ns - m->sojourn_sum_ns) / m->in_system_area_ns;
}

double metrics_utilisation(const struct metrics *m, int stage)
{
    return fmin(1,
                ratio(m->w.stage_busy_ns[stage], 1e9 * metrics_window_s(m) * (double)m->n_replica));
}

double metrics_bubble(const struct metrics *m, int stage)
{
    if (m->w.active_ns <= 0) return 0;
    double idle = 1 - ratio(m->w.stage_busy_ns[stage], m->w.active_ns);
    return idle < 0 ? 0 : idle; /* a batch that straddles the window's end is counted whole */
}

double metrics_class_share(const struct metrics *m, enum step_class c)
{
    double sum = 0;
    for (int i = 0; i < STEP_N_CLASS; i++) sum += m->w.class_ns[i];
    return ratio(m->w.class_ns[c], sum);
}

bool metrics_has_classes(const struct metrics *m)
{
    return isfinite(metrics_class_share(m, STEP_OTHER));
}

double metrics_kv_mean(const struct metrics *m)
{
    return ratio(m->w.kv_area_ns,
                 1e9 * metrics_window_s(m) * (double)m->n_replica * (double)m->kv_blocks);
}

bool metrics_overloaded(const struct metrics *m)
{
    double grown = (m->half[1] - m->half[0]) / (double)(m->n_run ? m->n_run : 1);
    return m->half[1] > 1.5 * m->half[0] && grown > 4 * (double)m->n_replica &&
           m->w.queue_area_ns > .1 * m->w.running_area_ns;
}
