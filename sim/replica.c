/* sim/replica.c - see replica.h. SPDX-License-Identifier: Apache-2.0 */
#include "sim/replica.h"

#include <assert.h>
#include <math.h>

#include "base/rng.h"

__extension__ typedef __int128 i128;

enum { MANY_ROWS = 100000 };
enum { DIGEST_FIRST = 1, DIGEST_DONE, DIGEST_PREEMPT };

static uint64_t event_hash(int kind, int64_t id, int64_t t_ns)
{
    return mix_pair(mix_pair((uint64_t)kind, (uint64_t)id), (uint64_t)t_ns);
}

/* ---- what the scheduler tells */

static void on_first(void *ctx, struct sreq *q, int64_t t_ns)
{
    struct replica *r = ctx;
    r->env->m->digest += event_hash(DIGEST_FIRST, q->t.id, t_ns);
}

static void on_gap(void *ctx, struct sreq *q, int64_t gap_ns)
{
    struct replica *r = ctx;
    (void)q;
    if (r->env->counting) hist_add(&r->env->m->h[METRIC_ITL], gap_ns, 1);
}

static void on_done(void *ctx, struct sreq *q, int64_t t_ns)
{
    struct replica *r = ctx;
    r->env->m->digest += event_hash(DIGEST_DONE, q->t.id, t_ns);
    r->n_sys--;
    r->env->ended(r->env->ctx, q, t_ns);
}

static void on_preempt(void *ctx, struct sreq *q, int64_t t_ns)
{
    struct replica *r = ctx;
    r->env->m->digest += event_hash(DIGEST_PREEMPT, q->t.id, t_ns);
}

static void on_left(void *ctx, struct share_flight *x, int stage, const double span_ns[2]);

static void share_init(struct replica *r, struct arena *a)
{
    const struct replica_env *v = r->env;
    size_t n = (size_t)v->n_stage;
    r->share = (struct share){ .n_stage = v->n_stage,
                               .return_ns = (double)step_return_ns(v->step),
                               .stage0_drives = step_stage0_drives(v->step),
                               .copy = arena_array(a, n, sizeof *r->share.copy),
                               .left = on_left,
                               .ctx = r };
    for (size_t i = 0; i < n; i++) {
        struct share_flight *x = r->ring[i].share = arena_alloc(a, sizeof *x);
        x->work_ns = arena_array(a, n, sizeof(double));
        x->hop_ns = arena_array(a, n, sizeof(double));
    }
}

void replica_init(struct replica *r, struct replica_env *env, int index, struct arena *a)
{
    const struct sim_setup *u = env->u;
    const struct deploy *d = u->deploy;
    *r = (struct replica){ .env = env, .index = index };
    r->sink = (struct sched_sink){
        .ctx = r, .first = on_first, .gap = on_gap, .done = on_done, .preempt = on_preempt
    };
    int64_t max_ctx = u->sched->max_model_len > 0 ? u->sched->max_model_len : d->arch.max_ctx;
    sched_init(&r->s, u->sched, d->kv_blocks, env->n_stage, max_ctx, &r->sink, a);
    r->ring = arena_array(a, (size_t)env->n_stage, sizeof *r->ring);
    for (int i = 0; i < env->n_stage; i++)
        r->ring[i].line = arena_array(a, (size_t)env->n_stage, sizeof *r->ring[i].line);
    if (env->shared) share_init(r, a);
    r->free_ns = arena_array(a, (size_t)env->n_stage, sizeof *r->free_ns);
    r->rem_fp = arena_array(a, (size_t)env->n_stage, sizeof *r->rem_fp);
}

/* ---- time averages */

static int64_t kv_now(const struct replica *r)
{
    return r->s.paged ? kvpool_used(&r->s.pool) : 0;
}

void replica_integrate(struct replica *r, int64_t now_ns)
{
    int64_t t0 = r->t_seen_ns;
    if (now_ns <= t0) return;
    struct metrics *m = r->env->m;
    double dt = (double)(now_ns - t0), kv0 = (double)r->kv_seen, kv1 = kv0;
    const struct flight *f = r->n ? &r->ring[r->head] : NULL;
    if (f && f->run) kv1 += (double)(f->kv_end - r->kv_seen) * dt / (double)(f->t1_ns - t0);
    double queue = (double)r->s.n_wait, running = (double)r->s.n_run;
    m->in_system_area_ns += (double)r->n_sys * dt;
    if (r->env->counting) {
        m->w.queue_area_ns += queue * dt;
        m->w.running_area_ns += running * dt;
        m->w.kv_area_ns += (kv0 + kv1) / 2 * dt;
        if (r->s.n_wait) m->w.blocked_ns[r->s.blocked] += dt;
        if (r->n) m->w.active_ns += dt;
    }
    series_state(&r->env->series, t0, now_ns, running, queue, kv0, kv1);
    r->t_seen_ns = now_ns;
    r->kv_seen = (int64_t)(kv1 + .5);
}

/* After the state has changed at an instant. */
static void look(struct replica *r)
{
    r->kv_seen = kv_now(r);
    if (r->kv_seen > r->env->m->kv_peak) r->env->m->kv_peak = r->kv_seen;
}

/* ---- launching */

static struct flight *at(const struct replica *r, int i)
{
    int k = r->head + i;
    return &r->ring[k < r->env->n_stage ? k : k - r->env->n_stage];
}

static int64_t line_fp(const struct step_line *l, int64_t sum_ctx)
{
    return l->a_fp + l->b_fp * sum_ctx;
}

static void count_line(struct metrics *m, const struct step_line *l, double steps, double sum_ctx)
{
    const double ns = 1.0 / (1 << STEP_FP_BITS);
    for (int c = 0; c < STEP_N_CLASS; c++)
        m->w.class_ns[c] += ns * steps * (double)l->class_a_fp[c];
    if (l->line_class < STEP_N_CLASS)
        m->w.class_ns[l->line_class] += ns * (double)l->b_fp * sum_ctx;
}

/* Time of the batch on a stage, in fixed point, and where it goes. */
static int64_t stage_fp(struct replica *r, struct flight *f, int stage)
{
    const struct step_shape *s = &f->b.shape;
    struct replica_env *v = r->env;
    if (f->b.n_chunk || !f->b.cohort) {
        if (!f->counted) return step_total_fp(v->step, stage, s);
        struct step_cost c;
        step_cost(v->step, stage, s, &c);
        for (int i = 0; i < STEP_N_CLASS; i++)
            v->m->w.class_ns[i] += (double)c.class_fp[i] / (1 << STEP_FP_BITS);
        return c.total_fp;
    }
    struct step_line *l = &f->line[stage];
    if (!f->lined || s->sum_ctx >= l->ctx_end)
        step_line(v->step, stage, s->n_decode, s->sum_ctx, s->skew, l);
    if (f->counted) count_line(v->m, l, 1, (double)s->sum_ctx);
    return line_fp(l, s->sum_ctx);
}

static void tell_span(struct replica *r, const struct flight *f, int stage, int64_t t0, int64_t t1)
{
    const struct sim_setup *u = r->env->u;
    if (t1 <= u->span_t0_ns || t0 >= u->span_t1_ns || !u->sink || !u->sink->span) return;
    struct run_span row = { .t0_ns = t0,
                            .t1_ns = t1,
                            .replica = r->index,
                            .stage = stage,
                            .batch = (int32_t)(f - r->ring),
                            .n_prefill_tok = (int32_t)f->b.shape.prefill_tok,
                            .n_decode = (int32_t)f->b.shape.n_decode };
    row.kind = !f->b.n_chunk ? 0 : f->b.shape.n_decode ? 2 : 1;
    u->sink->span(u->sink->ctx, &row);
}

static void on_left(void *ctx, struct share_flight *x, int stage, const double span_ns[2])
{
    struct replica *r = ctx;
    const struct flight *f = r->ring;
    while (f->share != x) f++;
    if (f->counted) r->env->m->w.stage_busy_ns[stage] += span_ns[1] - span_ns[0];
    tell_span(r, f, stage, llround(span_ns[0]), llround(span_ns[1]));
}

/* The first n flights of the ring as of now_ns. */
static void settle(struct replica *r, struct share_flight **list, int n, int64_t now_ns)
{
    for (int i = 0; i < n; i++) list[i] = at(r, i)->share;
    share_move(&r->share, list, n, (double)r->share_ns, (double)now_ns);
    r->share_ns = now_ns;
}

static void settle_all(struct replica *r, int64_t now_ns)
{
    struct share_flight *list[STRATEGY_MAX_PP];
    settle(r, list, r->n, now_ns);
}

/* As fly, of stages that have to do with each other: moves the ends of older flights too. */
static void fly_shared(struct replica *r, struct flight *f, int64_t now_ns)
{
    const double fp_ns = 1.0 / (1 << STEP_FP_BITS);
    struct replica_env *v = r->env;
    struct share_flight *list[STRATEGY_MAX_PP], *x = f->share;
    double end_ns[STRATEGY_MAX_PP], hops = 0;
    int64_t tok = batch_tokens(&f->b);
    settle(r, list, r->n, now_ns);
    for (int p = 0; p < v->n_stage; p++) {
        x->work_ns[p] = fp_ns * (double)stage_fp(r, f, p);
        x->hop_ns[p] = fp_ns * (double)step_hop_fp(v->step, p, tok);
        hops += x->hop_ns[p];
    }
    if (f->counted) v->m->w.class_ns[STEP_P2P] += hops + r->share.return_ns;
    x->stage = 0;
    x->ready_ns = (double)now_ns;
    x->left_ns = x->work_ns[0];
    x->began_ns = -1;
    x->slow = step_beside(v->step, tok) - 1;
    list[r->n] = x;
    share_foresee(&r->share, list, r->n + 1, (double)now_ns, end_ns);
    f->lined = !f->b.n_chunk;
    f->run = false;
    f->t0_ns = now_ns;
    f->k = 1;
    for (int i = 0; i <= r->n; i++) at(r, i)->t1_ns = (int64_t)fmin(ceil(end_ns[i]), 0x1p61);
}

/* The batch's way through the stages, from now_ns on. */
static void fly(struct replica *r, struct flight *f, int64_t now_ns)
{
    struct replica_env *v = r->env;
    if (v->shared) {
        fly_shared(r, f, now_ns);
        return;
    }
    int64_t ready = now_ns, tok = batch_tokens(&f->b);
    for (int p = 0; p < v->n_stage; p++) {
        int64_t t0 = ready > r->free_ns[p] ? ready : r->free_ns[p];
        r->rem_fp[p] += stage_fp(r, f, p);
        int64_t t1 = t0 + (r->rem_fp[p] >> STEP_FP_BITS);
        r->rem_fp[p] &= (1 << STEP_FP_BITS) - 1;
        int64_t hop = (step_hop_fp(v->step, p, tok) + (1 << (STEP_FP_BITS - 1))) >> STEP_FP_BITS;
        if (f->counted) {
            v->m->w.stage_busy_ns[p] += (double)(t1 - t0);
            v->m->w.class_ns[STEP_P2P] += (double)hop;
        }
        tell_span(r, f, p, t0, t1);
        r->free_ns[p] = ready = t1;
        if (v->u->p2p == SIM_RENDEZVOUS && p + 1 < v->n_stage) {
            if (r->free_ns[p + 1] > ready) ready = r->free_ns[p + 1];
            r->free_ns[p] = ready + hop;
        }
        ready += hop;
    }
    f->lined = !f->b.n_chunk;
    f->run = false;
    f->t0_ns = now_ns;
    f->t1_ns = ready;
    f->k = 1;
}

/* Length of the first j steps, on top of the stage's carried fraction. */
static int64_t run_fp(const struct flight *f, int64_t j, int64_t *rem_fp)
{
    const struct step_line *l = &f->line[0];
    i128 ctx = (i128)j * f->b.shape.sum_ctx + (i128)f->b.shape.n_decode * ((i128)j * (j - 1) / 2);
    i128 sum = f->rem_fp + (i128)j * l->a_fp + (i128)l->b_fp * ctx;
    if (rem_fp) *rem_fp = (int64_t)(sum & ((1 << STEP_FP_BITS) - 1));
    sum >>= STEP_FP_BITS;
    return sum > INT64_MAX / 4 ? INT64_MAX / 4 : (int64_t)sum;
}

static void set_run(struct replica *r, struct flight *f, int64_t k)
{
    f->k = k;
    f->t1_ns = f->t0_ns + run_fp(f, k, &r->rem_fp[0]);
    f->kv_end = kv_now(r) + (k > 1 ? sched_ahead_blocks(&r->s, &f->b, k) : 0);
    r->free_ns[0] = f->t1_ns;
}

/* One stage: launches as many equal steps as the scheduler foresees. False: a single step. */
static bool fly_run(struct replica *r, struct flight *f, int64_t now_ns)
{
    const struct sim_setup *u = r->env->u;
    if (!u->fast || r->env->n_stage > 1 || f->b.n_chunk ||
        (u->sink && u->sink->span && now_ns < u->span_t1_ns))
        return false;
    int64_t k = sched_horizon(&r->s, &f->b);
    if (k <= 1) return false;
    const struct step_shape *s = &f->b.shape;
    step_line(r->env->step, 0, s->n_decode, s->sum_ctx, s->skew, &f->line[0]);
    if (f->line[0].ctx_end != INT64_MAX) {
        int64_t most = (f->line[0].ctx_end - s->sum_ctx + s->n_decode - 1) / s->n_decode;
        if (k > most) k = most;
    }
    if (k <= 1) return false;
    f->t0_ns = now_ns;
    f->run = true;
    f->rem_fp = r->rem_fp[0];
    set_run(r, f, k);
    return true;
}

static void note_extent(struct replica *r, const struct batch *b)
{
    struct metrics *m = r->env->m;
    struct step_extent *x = &m->extent;
    const struct step_shape *s = &b->shape;
    int64_t tok = batch_tokens(b);
    if (tok > x->max_tok) x->max_tok = tok;
    if (s->n_decode > x->max_seqs) x->max_seqs = s->n_decode;
    if (s->sum_ctx > x->max_ctx_sum) x->max_ctx_sum = s->sum_ctx;
    if (s->n_decode && (s->sum_ctx + s->skew) / s->n_decode > x->max_ctx)
        x->max_ctx = (s->sum_ctx + s->skew) / s->n_decode;
    for (int32_t i = 0; i < b->n_chunk; i++)
        if (b->chunk[i].past + b->chunk[i].tok > x->max_prefill)
            x->max_prefill = b->chunk[i].past + b->chunk[i].tok;
}

void replica_decide(struct replica *r, int64_t now_ns)
{
    bool launched = false;
    while (r->n < r->env->n_stage) {
        struct flight *f = at(r, r->n);
        sched_next(&r->s, &f->b, now_ns);
        if (batch_empty(&f->b)) break;
        f->counted = r->env->counting;
        f->lined = false;
        if (!fly_run(r, f, now_ns)) fly(r, f, now_ns);
        note_extent(r, &f->b);
        r->n++;
        launched = true;
    }
    if (launched) look(r);
}

/* ---- ending */

static void tell_step(struct replica *r, const struct flight *f)
{
    struct replica_env *v = r->env;
    const struct sim_sink *k = v->u->sink;
    if (!k || !k->step) return;
    if (v->n_row++ % v->row_stride) return;
    if (v->n_row / v->row_stride >= MANY_ROWS) v->row_stride *= 2;
    struct run_step row = { .t0_ns = f->t0_ns,
                            .t1_ns = f->t1_ns,
                            .kv_used_blocks = kv_now(r),
                            .replica = r->index,
                            .n_step = (int32_t)(f->k < INT32_MAX ? f->k : INT32_MAX),
                            .n_prefill_tok = (int32_t)f->b.shape.prefill_tok,
                            .n_decode = (int32_t)f->b.shape.n_decode,
                            .n_chunk = (int32_t)f->b.shape.n_prefill,
                            .n_logits = (int32_t)f->b.shape.n_logits,
                            .sum_ctx_tok = f->b.shape.sum_ctx,
                            .skew_tok = f->b.shape.skew,
                            .past_tok = f->b.shape.prefill_past,
                            .pairs = f->b.shape.prefill_pairs,
                            .queue = (int32_t)r->s.n_wait };
    k->step(k->ctx, &row);
}

/* Everything counted about the steps of a flight when it ends. */
static void count_flight(struct replica *r, const struct flight *f)
{
    struct replica_env *v = r->env;
    struct metrics *m = v->m;
    const struct step_shape *s = &f->b.shape;
    const struct cohort *c = f->b.cohort;
    double k = (double)f->k, n = (double)s->n_decode;
    int64_t live = c ? c->n_live : 0, made = live * f->k + s->n_logits - s->n_decode;
    series_tokens(&v->series, f->t0_ns, f->t1_ns, (double)s->prefill_tok, (double)made);
    if (!f->counted) return;
    m->w.out_tok += made;
    m->w.n_step += f->k;
    m->w.n_batch_tok += f->k * batch_tokens(&f->b);
    m->w.n_decode_sum += f->k * s->n_decode;
    if (f->run) {
        count_line(m, &f->line[0], k, k * (double)s->sum_ctx + n * k * (k - 1) / 2);
        m->w.stage_busy_ns[0] += (double)(f->t1_ns - f->t0_ns);
    }
    int64_t told = f->b.n_regular - (c ? c->n - c->n_live : 0);
    if (!c || told <= 0) return;
    const struct step_line *l = &f->line[0];
    if (v->n_stage > 1 || f->b.n_chunk)
        hist_add(&m->h[METRIC_ITL], f->t1_ns - c->t_emit_ns, told);
    else
        hist_add_line(&m->h[METRIC_ITL], l->a_fp, l->b_fp, s->sum_ctx, s->n_decode, f->k,
                      STEP_FP_BITS, told);
}

static struct flight *pop(struct replica *r)
{
    struct flight *f = &r->ring[r->head];
    if (r->env->shared) settle_all(r, f->t1_ns);
    r->head = r->head + 1 < r->env->n_stage ? r->head + 1 : 0;
    r->n--;
    return f;
}

/* Ends one decode step and launches the next of the same batch, if nothing is to be decided. */
static bool go_round(struct replica *r, struct flight *f)
{
    struct flight old = *f;
    int64_t emitted = f->b.cohort ? f->b.cohort->t_emit_ns : 0, now = f->t1_ns;
    if (!r->env->u->fast || r->env->n_stage == 1 || !sched_repeat(&r->s, &f->b, now)) return false;
    struct cohort seen = *f->b.cohort;
    seen.t_emit_ns = emitted;
    old.b.cohort = &seen;
    replica_integrate(r, now);
    count_flight(r, &old);
    tell_step(r, &old);
    pop(r);
    struct flight *g = at(r, r->n);
    if (g != f) {
        struct flight t = *g;
        *g = *f;
        *f = t;
    }
    g->counted = r->env->counting;
    fly(r, g, now);
    r->n++;
    note_extent(r, &g->b);
    look(r);
    return true;
}

bool replica_advance(struct replica *r, int64_t until_ns, int64_t *now_ns)
{
    for (;;) {
        struct flight *f = &r->ring[r->head];
        *now_ns = f->t1_ns;
        if (go_round(r, f)) {
            if (r->ring[r->head].t1_ns < until_ns) continue;
            return false;
        }
        replica_integrate(r, *now_ns);
        count_flight(r, f);
        if (f->k > 1) sched_extend(&r->s, &f->b, f->k);
        look(r);
        tell_step(r, f);
        pop(r);
        sched_complete(&r->s, &f->b, f->k, *now_ns);
        look(r);
        return true;
    }
}

int64_t replica_next_ns(const struct replica *r)
{
    return r->n ? r->ring[r->head].t1_ns : INT64_MAX;
}

void replica_cut(struct replica *r, int64_t now_ns)
{
    struct flight *f = r->n ? &r->ring[r->head] : NULL;
    if (!f || f->k <= 1 || f->t1_ns <= now_ns) return;
    int64_t lo = 0, hi = f->k; /* the lo-th step ends before now, the hi-th does not */
    while (hi - lo > 1) {
        int64_t mid = lo + (hi - lo) / 2;
        if (f->t0_ns + run_fp(f, mid, NULL) < now_ns)
            lo = mid;
        else
            hi = mid;
    }
    if (hi != f->k) set_run(r, f, hi);
}

void replica_split(struct replica *r, int64_t now_ns)
{
    replica_cut(r, now_ns);
    struct flight *f = r->n ? &r->ring[r->head] : NULL;
    if (!f || !f->run || f->t1_ns < now_ns) return;
    if (f->k > 1) {
        struct flight done = *f;
        done.k--;
        done.t1_ns = f->t0_ns + run_fp(f, done.k, &f->rem_fp);
        count_flight(r, &done);
        tell_step(r, &done);
        sched_advance(&r->s, &f->b, done.k, done.t1_ns);
        int64_t used = kv_now(r);
        if (used > r->env->m->kv_peak) r->env->m->kv_peak = used;
        f->t0_ns = done.t1_ns;
        f->k = 1;
    }
    f->run = false; /* a single step: counted from its launch on */
    if (!f->counted) return;
    count_line(r->env->m, &f->line[0], 1, (double)f->b.shape.sum_ctx);
    r->env->m->w.stage_busy_ns[0] += (double)(f->t1_ns - f->t0_ns);
}

bool replica_submit(struct replica *r, const struct trace_req *q, int64_t now_ns)
{
    replica_cut(r, now_ns);
    replica_integrate(r, now_ns);
    sched_submit(&r->s, q, now_ns)->replica = r->index;
    r->n_sys++;
    return r->n == 0 || (r->s.balanced && r->n < r->env->n_stage);
}
