/* engine/rank.c - one rank: its device and shard, its part of a step.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/rank.h"

#include <math.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/arena.h"
#include "base/progress.h"
#include "engine/backend_classes.h"
#include "engine/backend_gpu.h"
#include "engine/bell.h"
#include "engine/kern.h"
#include "engine/need.h"
#include "engine/team.h"

/* Between looks at the device: some 20 ms long at once, then with naps. */
enum { SPINS = 20000, NAP_NS = 50000 };

/* ---- one step on one rank */

static void place(const struct rank *r, const struct shard *s, const float *from, int32_t n_out)
{
    size_t vocab = (size_t)r->g->spec.a.vocab, n = (size_t)s->n_vocab;
    for (size_t i = 0; i < (size_t)n_out; i++)
        memcpy(r->logits + i * vocab + (size_t)s->vocab0, from + i * n, n * sizeof *from);
}

/* This rank's share of the logits, in host memory. */
static const float *own_logits(struct rank *r, size_t bytes)
{
    struct backend *b = r->b;
    const float *here = b->ops->view(b, r->m.logits);
    if (here) return here;
    b->ops->download(b, r->part, r->m.logits, bytes);
    return r->part;
}

/* The shares of the tp ranks make whole rows [n_out][vocab] on the sampling rank, *rows. */
static int gather_logits(struct rank *r, int32_t n_out, const float **rows, struct err *e)
{
    struct engine *g = r->g;
    size_t bytes = (size_t)n_out * (size_t)r->m.s.n_vocab * sizeof(float);
    const float *own = own_logits(r, bytes);
    if (r->rank != rank_sampler(g)) return comm_send(r->world, rank_sampler(g), own, bytes, e);
    *rows = g->o.tp > 1 ? r->logits : own;
    if (g->o.tp > 1) place(r, &r->m.s, own, n_out);
    for (int t = 1; t < g->o.tp; t++) {
        struct shard s;
        shard_of(&g->spec.a, g->o.tp, g->o.pp, g->o.split, r->rank + t, &s);
        size_t got = (size_t)n_out * (size_t)s.n_vocab * sizeof(float);
        int st = comm_recv(r->world, r->rank + t, r->part, &got, e);
        if (st != ST_OK) return st;
        place(r, &s, r->part, n_out);
    }
    return ST_OK;
}

struct sampling {
    struct rank *r;
    const float *rows; /* [n_out][vocab] */
    int32_t *tok;      /* [n_out] */
    _Atomic int32_t taken;
    atomic_bool lost; /* a token whose own logit is not finite */
};

/* Rows as they come: one takes more or less time with its logits, none depends on another. */
static void sample_rows(void *arg, int part, int n_part)
{
    struct sampling *s = arg;
    const struct wire *w = &s->r->wire;
    int32_t vocab = s->r->g->spec.a.vocab, i;
    void *tmp = s->r->tmp + s->r->tmp_bytes * (size_t)part;
    (void)n_part;
    while ((i = atomic_fetch_add_explicit(&s->taken, 1, memory_order_relaxed)) < w->step.n_out) {
        const struct engine_out *o = &w->out[i];
        struct kern_pick pick = { o->temperature, o->top_k, o->top_p };
        const float *row = s->rows + (size_t)i * (size_t)vocab;
        s->tok[i] = o->temperature > 0 ? kern_sample(row, vocab, &pick, o->u, tmp)
                                       : kern_argmax(row, vocab);
        if (!isfinite(row[s->tok[i]])) atomic_store(&s->lost, true);
    }
}

/* Tokens of rows of logits here; false: one has none. */
static bool sample_here(struct rank *r, const float *rows, int32_t *tok)
{
    struct sampling s = { .r = r, .rows = rows, .tok = tok };
    int64_t t0 = clock_mono_ns();
    if (r->wire.step.n_out > 1)
        team_run(r->team, sample_rows, &s);
    else
        sample_rows(&s, 0, 1);
    r->timing.now.sample_ns = clock_mono_ns() - t0;
    return !atomic_load(&s.lost);
}

/* Tokens that the device has made; false: one is none. */
static bool sampled_there(struct rank *r, int32_t *tok)
{
    int32_t n = r->wire.step.n_out, least = 0;
    memcpy(tok, r->b->ops->tokens(r->b), (size_t)n * sizeof *tok);
    for (int32_t i = 0; i < n; i++) least = tok[i] < least ? tok[i] : least;
    return least >= 0;
}

/* rows: whole rows of logits, or NULL where the device has made the tokens. */
static int answer(struct rank *r, const float *rows, struct err *e)
{
    struct engine *g = r->g;
    int32_t n = r->wire.step.n_out, *tok = (void *)(r->result + RANK_HEAD_BYTES);
    size_t bytes = RANK_HEAD_BYTES + rank_tokens_bytes(n);
    memcpy(r->result, &n, sizeof n);
    bool found = n == 0 || (rows ? sample_here(r, rows, tok) : sampled_there(r, tok));
    if (!found)
        return err_set(e, ST_DEVICE,
                       "no finite logits: are there NaN or infinities among the weights?");
    if (g->o.logits && n > 0) {
        size_t more = (size_t)n * (size_t)g->spec.a.vocab * sizeof(float);
        if (rows)
            memcpy(r->result + bytes, rows, more);
        else
            r->b->ops->download(r->b, r->result + bytes, model_rows(&r->m), more);
        bytes += more;
        int st = backend_sync(r->b, e);
        if (st != ST_OK) return st;
    }
    return comm_send(r->world, 0, r->result, bytes, e);
}

/* ---- steps that are issued and followed */

static int tell_times(struct rank *r, const struct engine_rank_step *x, struct err *e)
{
    struct rank_told t = { .times = *x };
    bool parts = backend_timed_is(r->b);
    if (parts) {
        backend_timed_read(r->b, &t.parts);
        backend_timed_clear(r->b);
    }
    return comm_send(r->world, 0, &t, parts ? sizeof t : sizeof t.times, e);
}

static void count_step(struct rank *r, const struct engine_rank_step *x)
{
    r->steps++;
    r->step_ns += x->t1_ns - x->t0_ns;
}

static bool under_way(const struct rank *r)
{
    return r->n_passed < 2 * r->n_issued;
}

static void pass(struct rank *r, struct engine_rank_step *x)
{
    int64_t now = clock_mono_ns();
    if (r->n_passed % 2 == 0) {
        int64_t since = x->t0_ns > r->over_ns ? x->t0_ns : r->over_ns;
        x->recv_ns = r->m.s.first ? 0 : now - since;
        x->t0_ns = now;
    } else {
        x->t1_ns = r->over_ns = now;
    }
    r->n_passed++;
}

/* What the device has passed, and failures; it does not wait. The last stage has something to do yet
 * before its step is over. */
static int look(struct rank *r, struct err *e)
{
    int64_t n;
    int st = comm_passed(r->tp, &n, e);
    while (st == ST_OK && r->n_passed < n) {
        struct engine_rank_step *x = &r->issued[r->n_passed / 2 % RANK_ISSUED];
        pass(r, x);
        if (r->n_passed % 2 || r->m.s.last) continue;
        timing_put(&r->timing, x);
        count_step(r, x);
        if (r->g->o.mpi && r->rank != 0) st = tell_times(r, x, e);
    }
    return st;
}

static void pause_turn(int turn)
{
    if (turn < SPINS)
        sched_yield();
    else
        nanosleep(&(struct timespec){ .tv_nsec = NAP_NS }, NULL);
}

int rank_await(struct rank *r, int from, struct err *e)
{
    int st = ST_OK;
    for (int turn = 0; st == ST_OK && under_way(r) && !comm_there(r->world, from); turn++) {
        st = look(r, e);
        pause_turn(turn);
    }
    return st == ST_OK && under_way(r) ? look(r, e) : st;
}

/* The next message of rank 0. */
static int hear(struct rank *r, struct wire *w, struct err *e)
{
    size_t bytes = w->cap;
    int st = comm_recv(r->world, 0, w->bytes, &bytes, e);
    if (st == ST_OK) wire_unpack(w);
    return st;
}

static size_t message_bytes(const struct rank *r, const struct wire *w)
{
    return (size_t)w->step.n_tok * (size_t)r->g->spec.a.hidden * sizeof(float);
}

/* When the next step is known already, its input may come while this one computes. */
static int look_ahead(struct rank *r, struct err *e)
{
    if (r->rank == 0 || r->has_next || !comm_there(r->world, 0)) return ST_OK;
    int st = hear(r, &r->next, e);
    r->has_next = st == ST_OK;
    if (st != ST_OK || r->next.op != WIRE_STEP || r->m.s.first) return st;
    return exchange_expect(&r->m.ranks, r->rank - r->g->o.tp, message_bytes(r, &r->next), e);
}

/* The one wait of a step on the last stage. */
static int await_queue(struct rank *r, struct err *e)
{
    int st = ST_OK;
    for (int turn = 0; st == ST_OK && under_way(r); turn++) {
        st = look(r, e);
        if (st == ST_OK) st = look_ahead(r, e);
        if (under_way(r)) pause_turn(turn);
    }
    return st == ST_OK ? backend_sync(r->b, e) : st;
}

/* The end of a step on the last stage. */
static int finish(struct rank *r, int32_t n_out, struct err *e)
{
    const float *rows = NULL;
    int st = r->queued ? await_queue(r, e) : exchange_sync(&r->m.ranks, e);
    if (st == ST_OK && !r->m.tokens) st = gather_logits(r, n_out, &rows, e);
    return st == ST_OK && r->rank == rank_sampler(r->g) ? answer(r, rows, e) : st;
}

/* The classes of model/step.h but STEP_OTHER, which is what is left of the step. */
static void put_operators(struct rank *r)
{
    struct engine_rank_step *x = &r->timing.now;
    struct backend_classes c;
    backend_classes_take(r->b, &c);
    x->gemm_ns = c.gemm_ns;
    x->attn_ns = c.attn_ns;
    x->operators = true;
}

/* Receives, computes and sends, or issues that. */
static int pass_on(struct rank *r, struct err *e)
{
    struct model *m = &r->m;
    int tp = r->g->o.tp;
    size_t bytes = message_bytes(r, &r->wire);
    int st = m->s.first ? ST_OK : exchange_recv(&m->ranks, r->rank - tp, m->x, bytes, e);
    if (st == ST_OK && r->queued) st = comm_mark(r->tp, e);
    if (!r->queued) timing_input(&r->timing, r->world);
    if (st == ST_OK) st = model_forward(m, &r->wire.step, e);
    if (st == ST_OK && !m->s.last) st = exchange_send(&m->ranks, r->rank + tp, m->x, bytes, e);
    if (st == ST_OK && r->queued) st = comm_mark(r->tp, e);
    return st;
}

static int step_queued(struct rank *r, struct err *e)
{
    struct engine_rank_step *x = &r->issued[r->n_issued % RANK_ISSUED];
    int st = ST_OK;
    for (int turn = 0; st == ST_OK && r->n_issued - r->n_passed / 2 == RANK_ISSUED; turn++) {
        st = look(r, e);
        pause_turn(turn);
    }
    timing_start(&r->timing, r->world, r->tp);
    if (st == ST_OK) st = pass_on(r, e);
    if (st != ST_OK) return st;
    timing_calls(&r->timing, r->world, r->tp);
    *x = r->timing.now;
    r->n_issued++;
    if (!r->m.s.last) return ST_OK;
    st = finish(r, r->wire.step.n_out, e);
    r->timing.now.t0_ns = x->t0_ns;
    r->timing.now.recv_ns = x->recv_ns;
    timing_end(&r->timing, r->world, r->tp);
    count_step(r, &r->timing.now);
    return st;
}

int rank_step(struct rank *r, struct err *e)
{
    team_look(r->team);
    if (r->queued) return step_queued(r, e);
    timing_start(&r->timing, r->world, r->tp);
    int st = pass_on(r, e);
    if (st == ST_OK && r->m.s.last) st = finish(r, r->wire.step.n_out, e);
    if (r->g->o.operators) put_operators(r);
    timing_end(&r->timing, r->world, r->tp);
    count_step(r, &r->timing.now);
    return st;
}

/* ---- life of a rank */

struct comm_mpi_place rank_place(const struct engine *g)
{
    if (g->o.mpi) return *comm_mpi_place(g->o.mpi);
    return (struct comm_mpi_place){ .n = g->o.n_beside ? g->o.n_beside : g->n,
                                    .cpus = team_cpus() };
}

/* nth: of this rank among those of this host. */
static int open_backend(struct rank *r, int nth, struct err *e)
{
    const struct engine_opts *o = &r->g->o;
    if (o->device.kind == DEVICE_CPU) {
        r->b = (o->backend ? o->backend : backend_cpu_open)(r->team, o->kernels, e);
        if (r->b && o->operators) backend_classes_keep(r->b);
        return r->b ? ST_OK : ST_USAGE;
    }
    struct gpu *gpu = device_open(&o->device, nth, e);
    if (!gpu) return ST_DEVICE;
    int st = need_device(&r->g->spec, &o->m, 1.0 / r->g->n, &gpu->info, e);
    if (st != ST_OK) {
        gpu->ops->close(gpu);
        return st;
    }
    r->b = backend_gpu_open(gpu, r->team, e);
    return r->b ? ST_OK : ST_DEVICE;
}

/* Begins to connect the devices, which goes on while weights are loaded. */
static int connect_device(struct rank *r, struct err *e)
{
    const struct device *d = &r->g->o.device;
    struct link *l = &r->g->link;
    struct comm *end[2];
    if (d->join && r->g->n > 1) {
        int st = d->join(backend_gpu_device(r->b), r->world, r->host_tp, end, e);
        if (st != ST_OK) return st;
    } else if (l->on) {
        r->nccl = link_start(l, backend_gpu_device(r->b), r->rank, r->world, e);
        if (!r->nccl) return ST_DEVICE;
        end[0] = comm_nccl_tp(r->nccl);
        end[1] = comm_nccl_pipe(r->nccl);
    } else {
        return ST_OK;
    }
    r->tp = end[0];
    r->pipe = end[1];
    r->queued = true;
    return ST_OK;
}

/* Recordings hold calls of the communicator; what it has counted is still asked for. */
void rank_leave(struct rank *r)
{
    struct err unused = { 0 };
    if (!r->queued) return;
    for (int turn = 0; under_way(r) && look(r, &unused) == ST_OK; turn++) pause_turn(turn);
    r->queued = false;
    if (r->b->ops->forget) r->b->ops->forget(r->b);
    memcpy(r->host_tp->count, r->tp->count, sizeof r->tp->count);
    r->tp = r->host_tp;
    r->pipe = r->world;
    comm_nccl_close(r->nccl);
    r->nccl = NULL;
}

/* Tokens are made where whole rows of logits can be had without the host. */
static int open_model(struct rank *r, struct err *e)
{
    struct engine *g = r->g;
    const struct engine_opts *o = &g->o;
    r->m = (struct model){ .spec = &g->spec,
                           .o = o->m,
                           .b = r->b,
                           .tp = r->tp,
                           .pipe = o->pp > 1 ? r->pipe : NULL,
                           .world = r->world,
                           .team = r->team,
                           .max_table = o->max_table,
                           .depth = engine_depth(g) };
    shard_of(&g->spec.a, o->tp, o->pp, o->split, r->rank, &r->m.s);
    bool whole = o->tp == 1 || (r->tp->on_device && g->spec.a.vocab % o->tp == 0);
    r->m.tokens = r->b->ops->sample && r->m.s.last && whole;
    int st = model_load(&r->m, &g->w, e);
    if (st == ST_OK && r->nccl) st = comm_nccl_ready(r->nccl, e);
    return st == ST_OK ? model_prepare(&r->m, e) : st;
}

/* All that is not shared: threads, device, shard, buffers. Runs on the rank's own thread, so that
 * memory comes from its processor's node. */
int rank_open(struct rank *r, struct err *e)
{
    struct engine *g = r->g;
    const struct engine_opts *o = &g->o;
    struct comm_mpi_place p = rank_place(g);
    int busy = p.n * o->threads, nth = o->mpi ? p.nth : o->n_before + r->rank;
    size_t vocab = (size_t)g->spec.a.vocab, out = (size_t)o->m.max_out;
    wire_init(&r->wire, &g->limit);
    wire_init(&r->next, &g->limit);
    r->team = team_open(o->threads, busy <= p.cpus && !p.bound ? nth * o->threads : -1,
                        bell_spin_max(busy, p.cpus), e);
    if (!r->team) return ST_DEVICE;
    int st = open_backend(r, nth, e);
    if (st == ST_OK) st = connect_device(r, e);
    if (st == ST_OK) st = open_model(r, e);
    if (st != ST_OK) return st;
    if (r->m.s.last && !r->m.tokens)
        r->part = mem_zalloc(out * ((size_t)r->m.s.n_vocab + 1), sizeof *r->part);
    if (r->rank != rank_sampler(g)) return ST_OK;
    r->result = mem_zalloc(1, g->result_bytes);
    if (r->m.tokens) return ST_OK;
    if (o->tp > 1) r->logits = mem_zalloc(out * vocab, sizeof *r->logits);
    /* threads write to lines of their own */
    r->tmp_bytes = (kern_sample_bytes((int32_t)vocab) + 2 * KERN_ALIGN) / KERN_ALIGN * KERN_ALIGN;
    r->tmp = mem_zalloc((size_t)o->threads, r->tmp_bytes);
    return ST_OK;
}

void rank_release(struct rank *r)
{
    rank_leave(r);
    model_release(&r->m);
    if (r->b) r->b->ops->close(r->b);
    team_close(r->team);
    wire_release(&r->wire);
    wire_release(&r->next);
    free(r->logits);
    free(r->part);
    free(r->result);
    free(r->tmp);
    free(r->warm);
}

void rank_give_up(struct rank *r, const struct err *e)
{
    struct err told = { 0 };
    if (comm_check(r->world, &told) != ST_OK && strcmp(told.text, e->text) == 0) return;
    r->own = *e;
    comm_fail(r->world, e->text);
}

/* What other processes hold now, so that it is known of one that is lost later. */
static int tell_report(struct rank *r, struct err *e)
{
    struct engine *g = r->g;
    struct engine_rank_report mine;
    int st = ST_OK;
    if (!g->o.mpi) return ST_OK;
    if (r->rank != 0) {
        engine_report(g, r->rank, &mine);
        return comm_send(r->world, 0, &mine, sizeof mine, e);
    }
    for (int i = 1; i < g->n && st == ST_OK; i++) {
        size_t bytes = sizeof g->told[i];
        st = comm_recv(r->world, i, &g->told[i], &bytes, e);
    }
    return st;
}

/* Floats of a message of this rank's share of logits, at most. */
static size_t share_of(const struct rank *r)
{
    return (size_t)r->g->o.m.max_out * (size_t)r->m.s.n_vocab;
}

/* On the queue: a sum of up to n floats, and a message of them from stage to stage. */
static int queue_once(struct rank *r, size_t n, struct err *e)
{
    struct model *m = &r->m;
    size_t hidden = (size_t)m->o.max_tok * (size_t)m->spec->a.hidden;
    size_t sums = model_sum_floats(m->spec, m->o.max_tok);
    size_t bytes = (n < hidden ? n : hidden) * sizeof(float);
    int st = r->tp->n > 1 ? exchange_sum(&m->ranks, m->out, n < sums ? n : sums, e) : ST_OK;
    if (st == ST_OK && !m->s.first)
        st = exchange_recv(&m->ranks, r->rank - m->s.tp, m->x, bytes, e);
    if (st == ST_OK && !m->s.last) st = exchange_send(&m->ranks, r->rank + m->s.tp, m->x, bytes, e);
    return st;
}

/* Ways between devices are opened when a call first takes them, and which one a call takes depends on
 * its size. What is sent is what the buffers hold; steps write there before they read. */
static int warm_queue(struct rank *r, struct err *e)
{
    struct model *m = &r->m;
    size_t most = model_sum_floats(m->spec, m->o.max_tok),
           row = (size_t)m->s.n_vocab * sizeof(float);
    int st = ST_OK;
    for (size_t n = 64; st == ST_OK && n < 2 * most; n *= 2) st = queue_once(r, n, e);
    for (int32_t n = 1; st == ST_OK && m->shares && n < 2 * m->o.max_out; n *= 2) {
        size_t rows = (size_t)(n < m->o.max_out ? n : m->o.max_out);
        st = exchange_gather(&m->ranks, m->logits, rows * row, m->shares, e);
    }
    return st == ST_OK ? exchange_sync(&m->ranks, e) : st;
}

/* One message of up to n floats of every kind that a step has. */
static int exchange_once(struct rank *r, float *x, size_t n, struct err *e)
{
    struct engine *g = r->g;
    size_t bytes = n * sizeof *x;
    int st = r->tp->n > 1 ? comm_allreduce(r->tp, x, n, e) : ST_OK;
    if (st == ST_OK && !r->m.s.first) st = comm_recv(r->world, r->rank - g->o.tp, x, &bytes, e);
    bytes = n * sizeof *x;
    if (st == ST_OK && !r->m.s.last) st = comm_send(r->world, r->rank + g->o.tp, x, bytes, e);
    if (st != ST_OK || !r->m.s.last) return st;
    if (r->rank != rank_sampler(g)) {
        size_t share = share_of(r);
        return comm_send(r->world, rank_sampler(g), r->part, (n < share ? n : share) * sizeof *x,
                         e);
    }
    for (int t = 1; t < g->o.tp && st == ST_OK; t++) {
        bytes = (share_of(r) + (size_t)g->o.m.max_out) * sizeof *x;
        st = comm_recv(r->world, r->rank + t, r->part, &bytes, e);
    }
    return st;
}

int rank_warm(struct rank *r, struct err *e)
{
    enum { ROUNDS = 4 };
    const struct engine *g = r->g;
    size_t hidden = (size_t)g->o.m.max_tok * (size_t)g->spec.a.hidden;
    size_t logits = (size_t)g->o.m.max_out * (size_t)(g->spec.a.vocab / g->o.tp + 1);
    size_t most = hidden > logits ? hidden : logits;
    int st = ST_OK;
    if (g->n == 1) return ST_OK;
    float *x = r->warm = mem_zalloc(hidden, sizeof *x);
    if (r->queued) st = warm_queue(r, e);
    for (int i = 0; i < ROUNDS && !r->queued; i++)
        for (size_t n = 64; st == ST_OK && n < 2 * most; n *= 2) {
            size_t now = n < hidden ? n : hidden;
            st = exchange_once(r, x, now, e);
        }
    if (st == ST_OK) st = tell_report(r, e);
    /* what is still on its way would be in the way of the first step */
    if (st == ST_OK) st = comm_barrier(r->world, e);
    if (st != ST_OK) return st; /* others may still be reading it */
    free(x);
    r->warm = NULL;
    memset(r->world->count, 0, sizeof r->world->count);
    memset(r->tp->count, 0, sizeof r->tp->count);
    memset(r->pipe->count, 0, sizeof r->pipe->count);
    return st;
}

void rank_sign(const struct rank *r, struct err *e)
{
    const struct backend_ops *op = r->b ? r->b->ops : NULL;
    if (op && op->check && op->check(r->b, NULL) != ST_OK) err_prefix(e, "rank %d", r->rank);
}

static int next_step(struct rank *r, struct err *e)
{
    struct wire past = r->wire;
    if (!r->has_next) {
        int st = rank_await(r, 0, e);
        return st == ST_OK ? hear(r, &r->wire, e) : st;
    }
    r->has_next = false;
    r->wire = r->next;
    r->next = past;
    return ST_OK;
}

static int live(struct rank *r, struct err *e)
{
    int st = rank_open(r, e);
    if (st == ST_STOPPED && r->g->o.mpi) {
        err_clear(e);
        st = engine_stopped(r->g, e);
    }
    if (st != ST_OK) {
        rank_give_up(r, e);
        return st;
    }
    st = comm_barrier(r->world, e);
    if (st == ST_OK) st = rank_warm(r, e);
    while (st == ST_OK) {
        st = next_step(r, e);
        if (st == ST_OK && r->wire.op == WIRE_STOP) return ST_OK;
        if (st == ST_OK) st = rank_step(r, e);
        if (st == ST_OK && r->g->o.mpi && (!r->queued || r->m.s.last)) /* threads look themselves */
            st = tell_times(r, &r->timing.now, e);
    }
    comm_fail(r->world, e->text); /* no effect when the failure came from there */
    return st;
}

int rank_live(struct rank *r, struct err *e)
{
    int st = live(r, e);
    rank_leave(r);
    return st;
}
