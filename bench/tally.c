/* bench/tally.c - see tally.h. SPDX-License-Identifier: Apache-2.0 */
#include "bench/tally.h"

#include <string.h>

#include "engine/prompt.h"

void tally_init(struct tally *t, const struct tally_setup *u, struct metrics *m, struct arena *a)
{
    memset(t, 0, sizeof *t);
    t->u = *u;
    t->m = m;
    series_init(&t->series, u->bin_ns, a);
    window_init(&t->window, m, u->trace, u->steady, u->warmup_ratio, u->warm_ns);
    m->kv_blocks = u->kv_blocks;
    m->n_replica = u->n_replica;
    m->n_stage = u->n_stage;
    m->n_run = 1;
}

void tally_arrive(struct tally *t, const struct trace_req *q, int left, int64_t now_ns)
{
    series_arrival(&t->series, now_ns);
    window_arrive(&t->window, q);
    if (window_is_last(&t->window, left & SERVE_FIRST, left & SERVE_FOLLOW))
        window_close(&t->window, q->t_due_ns);
}

void tally_level(struct tally *t, const struct serve_level *l)
{
    struct metrics *m = t->m;
    int64_t from = l->t0_ns > m->t_begin_ns ? l->t0_ns : m->t_begin_ns; /* in the window */
    double dt = (double)(l->t1_ns - l->t0_ns), kv = (double)l->kv_used_blocks;
    double queue = (double)l->queue, running = (double)l->running;
    m->in_system_area_ns += (double)l->in_system * dt;
    if (t->window.begun && l->t1_ns > from) {
        dt = (double)(l->t1_ns - from);
        m->w.queue_area_ns += queue * dt;
        m->w.running_area_ns += running * dt;
        m->w.kv_area_ns += kv * dt;
        if (l->queue) m->w.blocked_ns[l->blocked] += dt;
        if (l->active) m->w.active_ns += dt;
    }
    if (l->kv_used_blocks > m->kv_peak) m->kv_peak = l->kv_used_blocks;
    series_state(&t->series, l->t0_ns, l->t1_ns, running, queue, kv, kv);
}

void tally_step(struct tally *t, const struct serve_step *s)
{
    struct metrics *m = t->m;
    const struct step_shape *b = &s->shape;
    m->n_event++;
    series_tokens(&t->series, s->t0_ns, s->t1_ns, (double)b->prefill_tok, (double)b->n_logits);
    if (!t->window.begun) return;
    m->w.n_step++;
    m->w.n_batch_tok += b->n_decode + b->prefill_tok;
    m->w.n_decode_sum += b->n_decode;
    m->w.out_tok += b->n_logits;
    if (s->told > 0) hist_add(&m->h[METRIC_ITL], s->gap_ns, s->told);
}

void tally_gap(struct tally *t, int64_t gap_ns)
{
    if (t->window.begun) hist_add(&t->m->h[METRIC_ITL], gap_ns, 1);
}

/* The digest is of what was said: order-free, and the same for every division of the model. */
static void digest(struct metrics *m, const struct run_request *row, int64_t id, const int32_t *tok)
{
    uint64_t h = mix_pair((uint64_t)row->status, prompt_identity(id, row->session, row->turn));
    for (int32_t i = 0; i < row->n_out && tok; i++) h = mix_pair(h, (uint64_t)tok[i]);
    m->digest += h;
}

void tally_request(struct tally *t, const struct run_request *row, int64_t id, int64_t t_ready_ns,
                   const int32_t *tok)
{
    struct metrics *m = t->m;
    digest(m, row, id, tok);
    if (row->status == RUN_REJECTED) {
        m->rejected++;
        return;
    }
    if (row->status != RUN_OK) {
        m->failed++;
        m->sojourn_sum_ns -= (double)t_ready_ns; /* its end: tally_end */
        return;
    }
    m->finished++;
    m->sojourn_sum_ns += (double)(row->t_last_ns - t_ready_ns);
    series_done(&t->series, row->t_last_ns);
    if (t->window.begun) m->w.done++;
    struct metrics *in = window_of(&t->window, row->t_due_ns, id);
    if (in) metrics_add_request(in, &t->u.slo, row);
}

void tally_busy(struct tally *t, int stage, int64_t ns)
{
    if (t->window.begun) t->m->w.stage_busy_ns[stage] += (double)ns;
}

void tally_classes(struct tally *t, const double ns[STEP_N_CLASS])
{
    for (int c = 0; c < STEP_N_CLASS && t->window.begun; c++) t->m->w.class_ns[c] += ns[c];
}

void tally_end(struct tally *t, const struct serve_result *r)
{
    struct metrics *m = t->m;
    m->t_stop_ns = r->t_stop_ns;
    m->sojourn_sum_ns += (double)m->failed * (double)r->t_stop_ns;
    m->preempted = r->preempted;
    m->recomputed_tok = r->recomputed_tok;
    m->hit_tok = r->hit_tok;
    m->asked_tok = r->asked_tok;
    m->why_rejected = r->why_rejected;
    m->stopped = r->stopped;
    window_end(&t->window, &t->series, r->t_stop_ns);
}
