/* bench/suite_model.c - points inside the running engine: the operators of whole steps, by shape.
 *
 * One engine for all of them, its KV blocks scattered. A GPU's hold keys and values of random tokens,
 * as a GPU that multiplies zeros takes less power and so keeps a higher clock; a processor's, whose
 * speed does not depend on values, hold zeros until a step writes there. A run of a job is one step
 * that is not counted and then some that are. Of a processor's decode steps a dozen are, unless they
 * are long: weights that a last cache can hold come into it step by step once no prompts are between,
 * and answers are made in rows of such steps.
 *
 * A GPU computes while the host looks elsewhere, so its operators have no times of their own here
 * (bench/suite_cuda.h has): a step is one point, and of a step that is a recording the replay's part
 * of it, by events around it.
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* sched_setaffinity */
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/progress.h"
#include "base/rng.h"
#include "bench/suite_check.h"
#include "bench/suite_cuda.h"
#include "engine/backend_gpu.h"
#include "engine/backend_timed.h"

enum { N_GROUP = 2, WAIT_LOOKS = 20000, ROW_STEPS = 12 };
#define ROW_S 0.06 /* a row of decode steps is not continued beyond */

/* `count` sequences of n_q new tokens after pos cached ones each. */
struct group {
    int32_t count, n_q, pos;
};

/* What a job measures besides the parts of engine/backend_timed.h. */
enum {
    SLOT_STEP = BACKEND_TIMED_N_PART,
    SLOT_ALLREDUCE,
    SLOT_GATHER, /* of logits, on the rank that samples */
    SLOT_SENDRECV,
    SLOT_SAMPLE,
    SLOT_STAGE,
    SLOT_BUSY, /* the same, of a pipeline that is kept full */
    SLOT_RETURN,
    SLOT_REPLAY, /* the device's part of a step */
    N_SLOT
};

struct shape {
    struct group g[N_GROUP];
    int at[N_SLOT]; /* which of the job's points; -1: none */
    int32_t n_tok, n_seq, n_prompt;
};

/* The device of rank 0, its replays between events. Its table of operations is the device's own but
 * for graph_launch. */
struct replay {
    struct gpu *gpu; /* NULL: none */
    const struct gpu_ops *own;
    struct gpu_ops ops;
    struct gpu_event *event[2];
    bool on, seen; /* events are set; there was a replay since it was cleared */
};

struct suite_model {
    struct engine *g;
    struct replay replay;
    int64_t load_ns; /* of opening the engine, until it was told */
    struct engine_opts eo;
    cpu_set_t pinned;   /* where the engine has put the calling thread */
    int64_t steps;      /* done so far */
    int64_t end_ns;     /* of the latest */
    int32_t most_block; /* of any shape; all take their blocks from the first on */
    int32_t *block, *tok;
    struct engine_seq *seq;
    struct engine_out *out;
};

/* ---- the engine */

static double kv_block_bytes(const struct suite *s)
{
    const struct arch *a = &s->spec.a;
    double copies = s->o.tp > a->n_kv_head ? (double)s->o.tp / a->n_kv_head : 1;
    return a->n_layer * copies * arch_kv_bytes_layer(a, s->o.kv == BACKEND_F32 ? 4 : 2) *
           s->o.block_tok;
}

static int32_t blocks_of(const struct suite *s, int32_t tok)
{
    return (tok + s->o.block_tok - 1) / s->o.block_tok;
}

static int32_t blocks_most(const struct suite *s)
{
    double fit = s->o.kv_bytes / kv_block_bytes(s);
    double most = (double)s->o.max_seqs * blocks_of(s, s->o.max_ctx);
    return (int32_t)(fit < most ? fit : most);
}

static void model_sizes(const struct suite *s, struct engine_opts *o)
{
    int32_t n_block = blocks_most(s);
    *o = (struct engine_opts){ .model = s->o.model,
                               .random = s->o.random,
                               .seed = s->o.seed,
                               .tp = s->o.tp,
                               .pp = s->o.pp,
                               .threads = s->o.threads,
                               .kernels = s->o.kernels,
                               .max_table = n_block,
                               .backend = s->cuda ? NULL : suite_check_open,
                               .device = s->o.device,
                               .mpi = s->o.mpi };
    o->m = (struct model_opts){ .weight = s->o.weight,
                                .kv = s->o.kv,
                                .n_block = n_block,
                                .block_tok = s->o.block_tok,
                                .max_tok = s->o.max_tok + s->o.max_seqs,
                                .max_out = s->o.max_seqs,
                                .max_ctx = s->o.max_ctx };
}

/* ---- replays */

static struct replay *watched; /* the one engine's */

static int launch_watched(struct gpu *g, struct gpu_graph *graph, struct err *e)
{
    struct replay *r = watched;
    int st = r->on ? r->own->event_set(g, r->event[0], e) : ST_OK;
    if (st == ST_OK) st = r->own->graph_launch(g, graph, e);
    if (st == ST_OK && r->on) st = r->own->event_set(g, r->event[1], e);
    r->seen |= r->on && st == ST_OK;
    return st;
}

static int watch_replays(struct suite *s, struct err *e)
{
    struct replay *r = &s->model->replay;
    struct gpu *g = backend_gpu_device(engine_backend(s->model->g, 0));
    int st = ST_OK;
    for (int i = 0; i < 2 && st == ST_OK; i++) st = g->ops->event_new(g, &r->event[i], e);
    if (st != ST_OK) return st;
    r->gpu = g;
    r->own = g->ops;
    r->ops = *g->ops;
    r->ops.graph_launch = launch_watched;
    g->ops = &r->ops;
    watched = r;
    return ST_OK;
}

static int take_replay(struct replay *r, int64_t *ns, int64_t *replays, struct err *e)
{
    double t;
    if (!r->seen) return ST_OK;
    r->seen = false;
    int st = r->own->event_ns(r->gpu, r->event[0], r->event[1], &t, e);
    if (st != ST_OK) return st;
    *ns += llround(t);
    ++*replays;
    return ST_OK;
}

/* A walk over all blocks in scattered order: a stride without a common factor. */
static void scatter(int32_t *block, int32_t n)
{
    int32_t stride = 5;
    while (n % stride == 0) stride += 2;
    for (int32_t i = 0; i < n; i++) block[i] = (int32_t)(((int64_t)i * stride + 3) % n);
}

static int model_open(struct suite *s, struct err *e)
{
    struct suite_model *m = s->model;
    if (m->g) {
        sched_setaffinity(0, sizeof m->pinned, &m->pinned);
        return ST_OK;
    }
    int64_t t0 = clock_mono_ns();
    model_sizes(s, &m->eo);
    suite_check_use(s->o.backend);
    m->g = engine_open(&m->eo, e);
    if (!m->g) return e && e->status != ST_OK ? e->status : ST_DEVICE;
    m->load_ns = clock_mono_ns() - t0;
    if (s->cuda && s->o.pp == 1 && watch_replays(s, e) != ST_OK) return ST_DEVICE;
    sched_getaffinity(0, sizeof m->pinned, &m->pinned);
    size_t rows = (size_t)m->eo.m.max_tok, seqs = (size_t)s->o.max_seqs;
    m->block = arena_array(&s->arena, (size_t)m->eo.m.n_block, sizeof *m->block);
    m->tok = arena_array(&s->arena, rows, sizeof *m->tok);
    m->seq = arena_array(&s->arena, seqs, sizeof *m->seq);
    m->out = arena_array(&s->arena, seqs, sizeof *m->out);
    scatter(m->block, m->eo.m.n_block);
    /* bench/suite_check.c keeps the first ones' rows */
    for (size_t i = 0; i < rows; i++) m->tok[i] = (int32_t)((i * 31 + 7) % (size_t)s->spec.a.vocab);
    return ST_OK;
}

/* ---- one step */

static struct engine_step step_of(const struct suite *s, const struct shape *h)
{
    struct suite_model *m = s->model;
    struct engine_step x = { .tok = m->tok, .seq = m->seq, .out = m->out };
    int32_t at = 0;
    for (int i = 0; i < N_GROUP; i++)
        for (int32_t k = 0; k < h->g[i].count; k++) {
            int32_t n = blocks_of(s, h->g[i].pos + h->g[i].n_q);
            m->seq[x.n_seq++] = (struct engine_seq){ .row = x.n_tok,
                                                     .n_q = h->g[i].n_q,
                                                     .pos = h->g[i].pos,
                                                     .n_block = n,
                                                     .block = m->block + at };
            x.n_tok += h->g[i].n_q;
            at += n;
            m->out[x.n_out++] = (struct engine_out){ .row = x.n_tok - 1 };
        }
    return x;
}

struct sums {                                             /* over the steps of a run */
    struct backend_timed_cell cell[BACKEND_TIMED_N_PART]; /* and over ranks */
    int64_t steps, ns, comm_ns, comm_calls, sample_ns, samples, send_ns, sends, reads;
    int64_t stage_ns, stages, return_ns, returns, gather_ns, replay_ns, replays;
};

/* Times of a rank of the same process are there a moment after the result is; those of another
 * process come with the next step. */
static bool rank_times(const struct suite *s, int64_t step, int rank, struct engine_rank_step *out)
{
    for (int i = 0; i < WAIT_LOOKS; i++) {
        if (engine_rank_step(s->model->g, step, rank, out)) return true;
        if (s->o.mpi) return false;
        sched_yield();
    }
    return false;
}

/* What the first stage computed. */
static void add_stage(const struct suite *s, int64_t step, struct sums *u)
{
    struct engine_rank_step a;
    if (!rank_times(s, step, 0, &a)) return;
    u->stage_ns += a.t1_ns - a.t0_ns - a.allreduce_ns - a.p2p_ns;
    u->stages++;
}

/* end_ns: when rank 0 had the step's tokens. */
static void add_rank_times(const struct suite *s, int64_t step, int64_t end_ns, struct sums *u)
{
    struct engine_rank_step a, b;
    int tp = s->o.tp;
    add_stage(s, step, u);
    for (int g = 0; g + 1 < s->o.pp; g++) {
        if (!rank_times(s, step, g * tp, &a) || !rank_times(s, step, (g + 1) * tp, &b)) continue;
        int64_t ns = b.t0_ns - (a.t1_ns - a.p2p_ns);
        u->send_ns += ns > 0 ? ns : 0;
        u->sends++;
    }
    if (!rank_times(s, step, (s->o.pp - 1) * tp, &a)) return;
    u->sample_ns += a.sample_ns;
    u->samples++;
    u->gather_ns += a.p2p_ns;
    u->return_ns += end_ns > a.t1_ns ? end_ns - a.t1_ns : 0;
    u->returns++;
}

/* Of ranks in this process the step just done, or of the others the one before it. */
static void add_parts(const struct suite *s, bool here, struct sums *u)
{
    for (int r = 0; r < s->o.tp * s->o.pp; r++) {
        struct backend_timed_step x;
        bool own = engine_backend(s->model->g, r) != NULL;
        if (own != here || !engine_rank_parts(s->model->g, r, &x)) continue;
        for (int i = 0; i < BACKEND_TIMED_N_PART; i++) {
            u->cell[i].calls += x.cell[i].calls;
            u->cell[i].ns += x.cell[i].ns;
        }
        u->comm_ns += x.comm_ns;
        u->comm_calls += x.comm_calls;
        if (x.reads > u->reads) u->reads = x.reads;
    }
}

static int one_step(struct suite *s, const struct engine_step *x, struct sums *u,
                    struct engine_result *got, struct err *e)
{
    struct suite_model *m = s->model;
    for (int r = 0; r < s->o.tp * s->o.pp; r++) {
        struct backend *b = engine_backend(m->g, r);
        if (backend_timed_is(b)) backend_timed_clear(b);
    }
    int64_t t0 = clock_mono_ns();
    int st = engine_submit(m->g, x, e);
    if (st == ST_OK && u->steps > 0) add_parts(s, false, u);
    if (st == ST_OK) st = engine_collect(m->g, got, e);
    int64_t t1 = clock_mono_ns();
    if (st != ST_OK) return st;
    u->ns += t1 - t0;
    u->steps++;
    add_parts(s, true, u);
    int64_t known = s->o.mpi ? m->steps - 1 : m->steps;
    if (known > m->steps - u->steps) add_rank_times(s, known, s->o.mpi ? m->end_ns : t1, u);
    m->end_ns = t1;
    m->steps++;
    return ST_OK;
}

/* As many steps at once as the engine takes, so that all stages are busy but at the ends. */
static int full_pipeline(struct suite *s, const struct engine_step *x, struct sums *u,
                         struct err *e)
{
    struct suite_model *m = s->model;
    struct engine_result got;
    int depth = engine_depth(m->g), st = ST_OK, in = 0;
    int64_t t0 = clock_mono_ns(), first = m->steps;
    while (st == ST_OK) {
        bool more =
            m->steps - first < depth + 2 || 1e-9 * (double)(clock_mono_ns() - t0) < s->o.run_s;
        for (; st == ST_OK && more && in < depth; in++) st = engine_submit(m->g, x, e);
        if (st != ST_OK || in == 0) break;
        st = engine_collect(m->g, &got, e);
        in--;
        /* the first ones fill it, the last ones find the stages behind them idle */
        int64_t known = m->steps - 1;
        if (st == ST_OK && more && known >= first + depth) add_stage(s, known, u);
        m->steps++;
    }
    return st;
}

/* ---- the KV cache */

/* Prompts of random tokens into all blocks that shapes read: as long as a step may be, so that little
 * of it is attention. */
static int fill_cache(struct suite *s, struct err *e)
{
    struct suite_model *m = s->model;
    struct rng draw = rng_stream(s->o.seed, "bench.cached");
    int32_t bt = s->o.block_tok, per = s->o.max_tok / bt > 1 ? s->o.max_tok / bt : 1;
    int32_t *tok = mem_alloc((size_t)s->o.max_tok * sizeof *tok);
    struct sums unused = { 0 };
    struct engine_result got;
    uint64_t drawn = 0;
    int st = ST_OK;
    for (int32_t at = 0; at < m->most_block && st == ST_OK; at += per) {
        int32_t n_block = m->most_block - at < per ? m->most_block - at : per;
        int32_t end = n_block * bt < s->o.max_ctx ? n_block * bt : s->o.max_ctx, n;
        for (int32_t pos = 0; pos < end && st == ST_OK; pos += n) {
            n = end - pos < s->o.max_tok ? end - pos : s->o.max_tok;
            for (int32_t i = 0; i < n; i++)
                tok[i] = (int32_t)rng_below(draw, drawn++, (uint64_t)s->spec.a.vocab);
            struct engine_seq seq = { 0, n, pos, n_block, m->block + at };
            struct engine_out out = { .row = n - 1 };
            struct engine_step x = { n, 1, 1, tok, &seq, &out };
            st = one_step(s, &x, &unused, &got, e);
        }
    }
    free(tok);
    return st;
}

static int open_filled(struct suite *s, struct err *e)
{
    bool fresh = !s->model->g;
    int st = model_open(s, e);
    return st == ST_OK && fresh && s->cuda ? fill_cache(s, e) : st;
}

/* ---- a run */

/* Steps with events around their replays: by themselves, as events take time too. */
static int watched_steps(struct suite *s, const struct engine_step *x, struct sums *u,
                         struct err *e)
{
    struct replay *r = &s->model->replay;
    struct engine_result got;
    struct sums unused = { 0 };
    int st = ST_OK;
    if (!r->gpu) return ST_OK;
    r->on = true;
    while (st == ST_OK && (unused.steps < 2 || 1e-9 * (double)unused.ns < s->o.run_s)) {
        st = one_step(s, x, &unused, &got, e);
        if (st == ST_OK) st = take_replay(r, &u->replay_ns, &u->replays, e);
    }
    r->on = false;
    return st;
}

static struct suite_value per(int64_t ns, int64_t calls)
{
    if (calls < 1) return (struct suite_value){ 0 };
    return (struct suite_value){ calls, 1e-9 * (double)ns / (double)calls };
}

static void tell(const struct shape *h, const struct sums *u, struct suite_value *v)
{
    int64_t layers = u->cell[BACKEND_TIMED_KV_PUT].calls; /* one a layer, over ranks and steps */
    for (int i = 0; i < BACKEND_TIMED_N_PART; i++) {
        bool layer = i == BACKEND_TIMED_ROPE || i == BACKEND_TIMED_NORM_HEAD ||
                     i == BACKEND_TIMED_BIAS || i == BACKEND_TIMED_ACT;
        const struct backend_timed_cell *c = &u->cell[i];
        if (h->at[i] >= 0) v[h->at[i]] = per(c->ns, layer && c->calls ? layers : c->calls);
    }
    v[h->at[SLOT_STEP]] = per(u->ns, u->steps);
    if (h->at[SLOT_ALLREDUCE] >= 0) v[h->at[SLOT_ALLREDUCE]] = per(u->comm_ns, u->comm_calls);
    if (h->at[SLOT_SENDRECV] >= 0) v[h->at[SLOT_SENDRECV]] = per(u->send_ns, u->sends);
    if (h->at[SLOT_SAMPLE] >= 0) v[h->at[SLOT_SAMPLE]] = per(u->sample_ns, u->samples);
    if (h->at[SLOT_REPLAY] >= 0) v[h->at[SLOT_REPLAY]] = per(u->replay_ns, u->replays);
    if (h->at[SLOT_GATHER] >= 0) v[h->at[SLOT_GATHER]] = per(u->gather_ns, u->samples);
    if (h->at[SLOT_STAGE] >= 0) v[h->at[SLOT_STAGE]] = per(u->stage_ns, u->stages);
    if (h->at[SLOT_RETURN] >= 0) v[h->at[SLOT_RETURN]] = per(u->return_ns, u->returns);
}

/* A step that is not counted, what it computes compared with references. took_s: how long it took. */
static int checked_step(struct suite *s, const struct suite_job *j, const struct engine_step *x,
                        double *took_s, struct err *e)
{
    const struct shape *h = j->own;
    struct sums unused = { 0 };
    struct engine_result got;
    struct suite_check_all seen;
    suite_check_set_all(s->model->g, true, (uint64_t)j->first);
    int st = one_step(s, x, &unused, &got, e);
    if (st != ST_OK) return st;
    *took_s = 1e-9 * (double)unused.ns;
    suite_check_all(s->model->g, s->o.tp, s->o.pp, &got, &seen);
    suite_check_set_all(s->model->g, false, 0);
    for (int i = 0; i < BACKEND_TIMED_N_PART; i++)
        if (h->at[i] >= 0) suite_error(s, j->first + h->at[i], seen.part[i]);
    const struct {
        int at;
        double error;
    } more[] = { { h->at[SLOT_ALLREDUCE], seen.sum },
                 { h->at[SLOT_SENDRECV], seen.send },
                 { h->at[SLOT_SAMPLE], seen.token },
                 { h->at[SLOT_GATHER], seen.token },
                 { h->at[SLOT_STEP], seen.token } };
    for (size_t i = 0; i < sizeof more / sizeof *more; i++)
        if (more[i].at >= 0) suite_error(s, j->first + more[i].at, more[i].error);
    return ST_OK;
}

/* Whether one more step is to be counted. */
static bool counts_on(const struct suite *s, const struct shape *h, const struct sums *u)
{
    double took_s = 1e-9 * (double)u->ns;
    /* what ranks of other processes tell comes with the step after it */
    if (u->steps < (s->o.mpi || s->cuda ? 2 : 1) || took_s < s->o.run_s) return true;
    return !s->cuda && h->n_prompt == 0 && u->steps < ROW_STEPS && took_s < ROW_S;
}

static int run_shape(struct suite *s, const struct suite_job *j, struct suite_value *v,
                     struct err *e)
{
    const struct shape *h = j->own;
    struct sums warm = { 0 }, u = { 0 };
    struct engine_result got;
    double took_s = 0;
    int st = open_filled(s, e);
    if (st != ST_OK) return st;
    struct engine_step x = step_of(s, h);
    st = checked_step(s, j, &x, &took_s, e);
    /* a GPU records the second step of a shape; the third is like all after it. A processor has had
     * the references in its cache, which is nothing in a long step */
    int n_warm = s->cuda ? 2 : took_s < s->o.run_s;
    for (int i = 0; i < n_warm && st == ST_OK; i++) st = one_step(s, &x, &warm, &got, e);
    while (st == ST_OK && counts_on(s, h, &u)) st = one_step(s, &x, &u, &got, e);
    if (st == ST_OK && h->at[SLOT_REPLAY] >= 0) st = watched_steps(s, &x, &u, e);
    if (st != ST_OK) return st;
    tell(h, &u, v);
    if (h->at[SLOT_BUSY] >= 0) {
        struct sums full = { 0 };
        st = full_pipeline(s, &x, &full, e);
        if (st != ST_OK) return st;
        v[h->at[SLOT_BUSY]] = per(full.stage_ns, full.stages);
    }
    double share = (double)u.reads * s->clock_s * (double)u.steps / (1e-9 * (double)u.ns);
    if (share > s->clock_share) s->clock_share = share;
    return ST_OK;
}

/* ---- which points a shape has */

static int put(struct suite *s, const struct shape *h, struct points_row r)
{
    const struct group *g = h->g;
    const struct suite_job *j = &s->job[s->n_job - 1];
    double past = 0;
    for (int i = 0; i < N_GROUP; i++) {
        past += (double)g[i].count * g[i].pos;
        if (g[i].count && g[i].pos > r.ctx_max) r.ctx_max = g[i].pos;
    }
    r.seqs = h->n_seq;
    r.ctx = llround(past / h->n_seq);
    r.threads = s->o.threads;
    r.ranks = s->o.tp * s->o.pp;
    return suite_add_row(s, &r) - j->first;
}

static int put_gemm(struct suite *s, const struct shape *h, enum points_part part,
                    const int64_t size[3])
{
    struct points_row r = suite_gemm(suite_dtype(s->o.weight), size[0], size[1], size[2]);
    r.part = (uint8_t)part;
    return put(s, h, r);
}

static void put_products(struct suite *s, struct shape *h)
{
    const struct arch *a = &s->spec.a;
    const struct shard *d = &s->shard;
    int64_t m = h->n_tok, hid = a->hidden, q = (int64_t)a->head_dim * d->n_head;
    int64_t kv = 2 * (int64_t)a->head_dim * d->n_kv,
            up = (a->gated_mlp ? 2 : 1) * (int64_t)d->n_ffn;
    h->at[BACKEND_TIMED_QKV] = put_gemm(s, h, POINTS_QKV, (int64_t[]){ m, q + kv, hid });
    h->at[BACKEND_TIMED_OUT] = put_gemm(s, h, POINTS_OUT, (int64_t[]){ m, hid, q });
    h->at[BACKEND_TIMED_GATE_UP] = put_gemm(s, h, POINTS_GATE_UP, (int64_t[]){ m, up, hid });
    h->at[BACKEND_TIMED_DOWN] = put_gemm(s, h, POINTS_DOWN, (int64_t[]){ m, hid, d->n_ffn });
    h->at[BACKEND_TIMED_HEAD] =
        put_gemm(s, h, POINTS_HEAD, (int64_t[]){ h->n_seq, d->n_vocab, hid });
}

static void put_attn(struct suite *s, struct shape *h)
{
    const struct arch *a = &s->spec.a;
    struct suite_heads heads = { s->shard.n_head, s->shard.n_kv, a->head_dim,
                                 s->o.kv == BACKEND_F32 ? 4 : 2 };
    int32_t q[1024], p[1024], n = 0;
    for (int i = 0; i < N_GROUP; i++)
        for (int32_t k = 0; k < h->g[i].count && n < 1024; k++) {
            q[n] = h->g[i].n_q;
            p[n++] = h->g[i].pos;
        }
    h->at[BACKEND_TIMED_ATTN] = put(s, h, suite_attn(&heads, n, q, p));
}

static void put_rest(struct suite *s, struct shape *h)
{
    const struct arch *a = &s->spec.a;
    const struct shard *d = &s->shard;
    int64_t m = h->n_tok, hid = a->hidden, qk = (int64_t)a->head_dim * (d->n_head + d->n_kv);
    int64_t kv = 2 * (int64_t)a->head_dim * d->n_kv;
    double weight = suite_weight_bytes(suite_dtype(s->o.weight));
    double cached = s->o.kv == BACKEND_F32 ? 4 : 2;
    int64_t bias = (a->qkv_bias ? (int64_t)a->head_dim * d->n_head + kv : 0) +
                   (a->o_bias ? hid : 0) +
                   (a->mlp_bias ? hid + (a->gated_mlp ? 2 : 1) * (int64_t)d->n_ffn : 0);
    h->at[BACKEND_TIMED_EMBED] = put(s, h, suite_elt(POINTS_EMBED, m, hid, weight));
    h->at[BACKEND_TIMED_NORM] = put(s, h, suite_elt(POINTS_NORM, m, hid, 0));
    h->at[BACKEND_TIMED_NORM_FINAL] = put(s, h, suite_elt(POINTS_NORM, h->n_seq, hid, 0));
    if (a->qk_norm) h->at[BACKEND_TIMED_NORM_HEAD] = put(s, h, suite_elt(POINTS_NORM, m, qk, 0));
    h->at[BACKEND_TIMED_ROPE] = put(s, h, suite_elt(POINTS_ROPE, m, qk, 0));
    h->at[BACKEND_TIMED_KV_PUT] = put(s, h, suite_elt(POINTS_KV_PUT, m, kv, cached));
    h->at[BACKEND_TIMED_ACT] = put(s, h, suite_elt(POINTS_ACT, m, d->n_ffn, 0));
    h->at[BACKEND_TIMED_ADD] = put(s, h, suite_elt(POINTS_ADD, m, hid, 0));
    if (bias) h->at[BACKEND_TIMED_BIAS] = put(s, h, suite_elt(POINTS_NO_PART, m, bias, 0));
}

static void put_ends(struct suite *s, struct shape *h)
{
    enum points_comm comm = s->o.mpi ? POINTS_MPI : POINTS_THREAD;
    struct points_row step = { .op = POINTS_STEP,
                               .dtype = (uint8_t)suite_dtype(s->o.weight),
                               .m = h->n_tok,
                               .n = h->n_seq,
                               .k = h->n_prompt,
                               .error = -1 };
    struct points_row sample = { .op = POINTS_SAMPLE,
                                 .dtype = POINTS_F32,
                                 .m = h->n_seq,
                                 .n = s->spec.a.vocab,
                                 .bytes = 4.0 * h->n_seq * s->spec.a.vocab,
                                 .error = -1 };
    struct points_row sum = { .op = POINTS_ALLREDUCE,
                              .dtype = POINTS_F32,
                              .comm = (uint8_t)comm,
                              .m = h->n_tok,
                              .n = s->spec.a.hidden,
                              .bytes = 4.0 * h->n_tok * s->spec.a.hidden,
                              .error = -1 };
    if (s->o.tp * s->o.pp > 1) step.comm = (uint8_t)comm;
    h->at[SLOT_STEP] = put(s, h, step);
    if (s->cuda) {
        step.op = POINTS_REPLAY;
        if (s->o.pp == 1 && h->n_prompt == 0) h->at[SLOT_REPLAY] = put(s, h, step);
        return;
    }
    h->at[SLOT_SAMPLE] = put(s, h, sample);
    if (s->o.tp > 1) {
        h->at[SLOT_ALLREDUCE] = put(s, h, sum);
        s->row[s->n_row - 1].ranks = s->o.tp;
        struct points_row all = sum;
        all.op = POINTS_ALLGATHER;
        all.m = h->n_seq;
        all.n = s->spec.a.vocab;
        all.bytes = 4.0 * (double)(all.m * all.n);
        h->at[SLOT_GATHER] = put(s, h, all);
        s->row[s->n_row - 1].ranks = s->o.tp;
    }
    if (s->o.pp > 1) {
        sum.op = POINTS_SENDRECV;
        h->at[SLOT_SENDRECV] = put(s, h, sum);
        s->row[s->n_row - 1].ranks = 2;
        step.op = POINTS_RETURN;
        h->at[SLOT_RETURN] = put(s, h, step);
        step.op = POINTS_STAGE;
        step.k = 1;
        h->at[SLOT_STAGE] = put(s, h, step);
        step.k = s->o.pp;
        h->at[SLOT_BUSY] = put(s, h, step);
    }
}

static double guess_s(const struct suite *s, const struct shape *h, int first)
{
    if (s->cuda) {
        double weights = 2.0 * (double)arch_params(&s->spec.a);
        return 3 * s->o.run_s + 4 * suite_guess_s(s, weights, weights * h->n_tok);
    }
    double a_step = 0, run;
    for (int i = first; i < s->n_row; i++) {
        const struct points_row *r = &s->row[i];
        if (r->op != POINTS_GEMM && r->op != POINTS_ATTN) continue;
        int times = r->part == POINTS_HEAD ? 1 : s->spec.a.n_layer;
        a_step += times * suite_guess_s(s, r->bytes, r->flop);
    }
    a_step = a_step * s->o.tp * s->o.pp + 5e-5;
    double row_s = h->n_prompt == 0 ? fmin(ROW_S, ROW_STEPS * a_step) : 0;
    run = ceil(fmax(s->o.run_s, row_s) / a_step) * a_step;
    if (s->o.mpi && run < 2 * a_step) run = 2 * a_step;
    return a_step + (a_step < s->o.run_s ? a_step : 0) + run;
}

/* Adds the shape where the engine has room for it. */
static void add(struct suite *s, struct group a, struct group b)
{
    struct shape *h = arena_alloc(&s->arena, sizeof *h);
    char what[96];
    int64_t block = 0, longest = 0;
    *h = (struct shape){ .g = { a, b } };
    for (int i = 0; i < N_GROUP; i++) {
        const struct group *g = &h->g[i];
        if (g->count == 0) continue;
        if (g->pos < 0 || g->n_q < 1) return;
        h->n_tok += g->count * g->n_q;
        h->n_seq += g->count;
        if (g->n_q > 1) h->n_prompt += g->count * g->n_q;
        block += (int64_t)g->count * blocks_of(s, g->pos + g->n_q);
        if (g->pos + g->n_q > longest) longest = g->pos + g->n_q;
    }
    if (longest > s->o.max_ctx || block > blocks_most(s) || h->n_seq > s->o.max_seqs ||
        h->n_tok > s->o.max_tok + s->o.max_seqs)
        return;
    if (block > s->model->most_block) s->model->most_block = (int32_t)block;
    int at = snprintf(what, sizeof what, "step of %d x %d after %d", a.count, a.n_q, a.pos);
    if (b.count)
        snprintf(what + at, sizeof what - (size_t)at, " and %d x %d after %d", b.count, b.n_q,
                 b.pos);
    int first = s->n_row;
    suite_add_job(s, what, 0);
    for (int i = 0; i < N_SLOT; i++) h->at[i] = -1;
    put_ends(s, h);
    if (!s->cuda) {
        put_products(s, h);
        put_attn(s, h);
        put_rest(s, h);
    }
    struct suite_job *j = &s->job[s->n_job - 1];
    j->own = h;
    j->run = run_shape;
    j->run_s = guess_s(s, h, first);
}

static void add_decodes(struct suite *s, const int32_t *batch, const int32_t *ctx)
{
    static const struct group none = { 0 };
    for (; *batch; batch++)
        for (const int32_t *c = ctx; *c; c++) {
            bool double_max = c > ctx && *c == c[-1];
            if (!double_max) add(s, (struct group){ *batch, 1, *c }, none);
        }
}

static void add_prompts(struct suite *s, const int32_t *tok, const int32_t *past)
{
    static const struct group none = { 0 };
    for (const int32_t *t = tok; *t; t++)
        for (const int32_t *p = past; *p >= 0; p++) {
            if (*t > s->o.max_tok || (t > tok && t[1] == 0 && t[-1] == *t)) continue;
            bool twin = p[1] >= 0 && abs(p[1] - p[0]) <= p[0] / 8; /* as good as the same */
            if (twin) continue;
            add(s, (struct group){ 1, *t, *p }, none);
        }
}

/* Chunks beside decodes, several prompts at once, and contexts of unequal length. */
static void add_mixed(struct suite *s, int32_t most)
{
    static const int32_t decodes[] = { 4, 16 }, chunk[] = { 32, 128, 384 };
    struct group none = { 0 };
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < 3; k++)
            add(s, (struct group){ decodes[i], 1, most / 4 },
                (struct group){ 1, chunk[k], k == 1 ? most / 4 : 0 });
    add(s, (struct group){ 4, 64, 0 }, none);
    add(s, (struct group){ 8, 16, most / 4 }, none);
    add(s, (struct group){ 15, 1, 16 }, (struct group){ 1, 1, most });
    add(s, (struct group){ 7, 1, 16 }, (struct group){ 1, 1, most });
    add(s, (struct group){ 8, 1, 16 }, (struct group){ 8, 1, most });
    add(s, (struct group){ 12, 1, most / 8 }, (struct group){ 4, 1, most / 2 });
}

/* Opening the engine, weights and all: done once, so one sample. */
static int run_load(struct suite *s, const struct suite_job *j, struct suite_value *v,
                    struct err *e)
{
    int st = open_filled(s, e);
    (void)j;
    if (st != ST_OK || s->model->load_ns == 0) return st;
    *v = (struct suite_value){ 1, 1e-9 * (double)s->model->load_ns };
    s->model->load_ns = 0;
    return ST_OK;
}

static void add_load(struct suite *s)
{
    struct points_row r = suite_load_row(s, 1);
    suite_add_job(s, s->o.random ? "model onto the GPU, weights drawn" : "model onto the GPU",
                  r.bytes / 1e9)
        ->run = run_load;
    suite_add_row(s, &r);
}

/* Larger steps than a processor's, and longer contexts. */
static void add_gpu(struct suite *s)
{
    int32_t last = s->o.max_ctx - 1 < 16384 ? s->o.max_ctx - 1 : 16384;
    const int32_t batch[] = { 1, 2, 4, 8, 16, 32, 64, 128, 256, 0 }, few[] = { 1, 16, 0 };
    const int32_t ctx[] = { 16, 512, 2048, last, 0 }, few_ctx[] = { 16, last, 0 };
    int32_t tok[10] = { 16, 64, 256, 512, 1024, 2048, 4096, 8192 }, n = 0;
    while (n < 8 && tok[n] < s->o.max_tok) n++;
    tok[n] = s->o.max_tok;
    for (n++; n < 10; n++) tok[n] = 0;
    const int32_t few_tok[] = { 256, s->o.max_tok, 0 };
    const int32_t past[] = { 0, 1024, last / 2, -1 }, no_past[] = { 0, -1 };
    bool quick = s->o.kind == SUITE_QUICK;
    add_load(s);
    add_decodes(s, quick ? few : batch, quick ? few_ctx : ctx);
    add_prompts(s, quick ? few_tok : tok, quick ? no_past : past);
    if (!quick) add_mixed(s, last);
}

int suite_model_add(struct suite *s, struct err *e)
{
    int32_t last = s->o.max_ctx - 1 < 4096 ? s->o.max_ctx - 1 : 4096; /* one more token fits */
    const int32_t batch[] = { 1, 2, 4, 8, 16, 32, 64, 0 }, few[] = { 1, 8, 0 };
    const int32_t ctx[] = { 16, 128, 384, last, 0 }, few_ctx[] = { 16, last / 2, 0 };
    const int32_t tok[] = { 8, 24, 64, 128, 256, s->o.max_tok, 0 };
    const int32_t few_tok[] = { 64, s->o.max_tok, 0 };
    const int32_t past[] = { 0, 256, last / 2, -1 }, no_past[] = { 0, -1 };
    s->model = arena_alloc(&s->arena, sizeof *s->model);
    if (blocks_most(s) < blocks_of(s, s->o.max_ctx))
        return err_set(e, ST_USAGE, "a KV cache of %.3g MB does not hold one sequence of %d tokens",
                       1e-6 * s->o.kv_bytes, s->o.max_ctx);
    if (s->cuda) {
        add_gpu(s);
        return ST_OK;
    }
    bool quick = s->o.kind == SUITE_QUICK;
    add_decodes(s, quick ? few : batch, quick ? few_ctx : ctx);
    add_prompts(s, quick ? few_tok : tok, quick ? no_past : past);
    if (!quick) add_mixed(s, last);
    return ST_OK;
}

void suite_model_release(struct suite *s)
{
    if (s->model && s->model->replay.gpu) s->model->replay.gpu->ops = s->model->replay.own;
    if (s->model) engine_close(s->model->g);
    s->model = NULL;
}
