/* engine/engine.c - the ranks: starting, one step on each, stopping.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/engine.h"

#include <assert.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/arena.h"
#include "base/progress.h"
#include "engine/backend_timed.h"
#include "engine/bell.h"
#include "engine/kern.h"
#include "engine/need.h"
#include "engine/team.h"
#include "engine/wire.h"

struct rank {
    struct engine *g;
    int rank;
    pthread_t id;
    bool started;
    struct err own; /* what went wrong on this rank itself */
    struct comm *world, *tp;
    struct team *team;
    struct backend *b;
    struct model m;
    struct wire wire;
    float *part; /* [max_out][s.n_vocab], last stage only: one tp rank's share on its way */
    /* sampling rank only */
    float *logits;         /* [max_out][vocab]; NULL where tp is 1, and part has them all */
    unsigned char *result; /* int32 n_out, pad, tokens [max_out], logits */
    unsigned char *tmp;    /* [threads][tmp_bytes] */
    size_t tmp_bytes;
    int64_t steps, step_ns;
    struct timing timing;
    struct backend_timed_step parts; /* of a rank in another process, its latest known */
};

/* What a process tells rank 0 after a step. */
struct told {
    struct engine_rank_step times;
    struct backend_timed_step parts; /* only of a backend that keeps them */
};

struct engine {
    struct engine_opts o;
    struct spec spec;
    struct weights w;
    struct wire_limit limit;
    struct comm_thread *comm;        /* NULL where ranks are processes */
    struct rank *rank;               /* [n]; where ranks are processes, rank[me] only is alive */
    struct engine_rank_report *told; /* [n], of other processes when they have stopped */
    int n, me, in_flight;
    bool untimed; /* a step was collected, and the times of other processes are on their way */
    size_t result_bytes;
    unsigned char *result; /* the last collected */
    bool stopped;
    const char *kernels;
};

enum { RESULT_HEAD_BYTES = 8 };

/* Rank that samples: the first of the last stage. */
static int sampler(const struct engine *g)
{
    return g->n - g->o.tp;
}

static size_t tokens_bytes(int32_t n_out)
{
    return ((size_t)n_out * sizeof(int32_t) + 7) / 8 * 8;
}

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
    if (r->rank != sampler(g)) return comm_send(r->world, sampler(g), own, bytes, e);
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

static int answer(struct rank *r, const float *rows, struct err *e)
{
    struct engine *g = r->g;
    int32_t n = r->wire.step.n_out;
    size_t bytes = RESULT_HEAD_BYTES + tokens_bytes(n);
    struct sampling s = { .r = r, .rows = rows, .tok = (void *)(r->result + RESULT_HEAD_BYTES) };
    int64_t t0 = clock_mono_ns();
    memcpy(r->result, &n, sizeof n);
    if (n > 1)
        team_run(r->team, sample_rows, &s);
    else
        sample_rows(&s, 0, 1);
    r->timing.now.sample_ns = clock_mono_ns() - t0;
    if (atomic_load(&s.lost))
        return err_set(e, ST_DEVICE,
                       "no finite logits: are there NaN or infinities among the weights?");
    if (g->o.logits) {
        size_t more = (size_t)n * (size_t)g->spec.a.vocab * sizeof(float);
        memcpy(r->result + bytes, rows, more);
        bytes += more;
    }
    return comm_send(r->world, 0, r->result, bytes, e);
}

static int step(struct rank *r, struct err *e)
{
    struct engine *g = r->g;
    struct model *m = &r->m;
    const struct model_step *s = &r->wire.step;
    size_t bytes = (size_t)s->n_tok * (size_t)g->spec.a.hidden * sizeof(float), got = bytes;
    timing_start(&r->timing, r->world, r->tp);
    int st = m->s.first ? ST_OK : comm_recv(r->world, r->rank - g->o.tp, m->x, &got, e);
    int64_t t0 = clock_mono_ns();
    timing_input(&r->timing, r->world);
    if (st == ST_OK) st = model_forward(m, s, e);
    if (st == ST_OK && !m->s.last) st = comm_send(r->world, r->rank + g->o.tp, m->x, bytes, e);
    if (st == ST_OK && m->s.last) {
        const float *rows = NULL;
        st = gather_logits(r, s->n_out, &rows, e);
        if (st == ST_OK && r->rank == sampler(g)) st = answer(r, rows, e);
    }
    timing_end(&r->timing, r->world, r->tp);
    r->steps++;
    r->step_ns += clock_mono_ns() - t0;
    return st;
}

/* ---- life of a rank */

/* What ranks on this host share. */
static struct comm_mpi_place place_of(const struct engine *g)
{
    if (g->o.mpi) return *comm_mpi_place(g->o.mpi);
    return (struct comm_mpi_place){ .n = g->n, .cpus = team_cpus() };
}

/* All that is not shared: threads, device, shard, buffers. Runs on the rank's own thread, so that
 * memory comes from its processor's node. */
static int rank_open(struct rank *r, struct err *e)
{
    struct engine *g = r->g;
    const struct engine_opts *o = &g->o;
    struct comm_mpi_place p = place_of(g);
    int busy = p.n * o->threads, nth = o->mpi ? p.nth : r->rank;
    size_t vocab = (size_t)g->spec.a.vocab, out = (size_t)o->m.max_out;
    wire_init(&r->wire, &g->limit);
    r->team = team_open(o->threads, busy <= p.cpus && !p.bound ? nth * o->threads : -1,
                        bell_spin_max(busy, p.cpus), e);
    if (!r->team) return ST_DEVICE;
    r->b = (o->backend ? o->backend : backend_cpu_open)(r->team, o->kernels, e);
    if (!r->b) return ST_USAGE;
    r->m = (struct model){ .spec = &g->spec, .o = o->m, .b = r->b, .tp = r->tp };
    shard_of(&g->spec.a, o->tp, o->pp, o->split, r->rank, &r->m.s);
    int st = model_load(&r->m, &g->w, e);
    if (st != ST_OK) return st;
    if (r->m.s.last) r->part = mem_zalloc(out * ((size_t)r->m.s.n_vocab + 1), sizeof *r->part);
    if (r->rank != sampler(g)) return ST_OK;
    if (o->tp > 1) r->logits = mem_zalloc(out * vocab, sizeof *r->logits);
    r->result = mem_zalloc(1, g->result_bytes);
    /* threads write to lines of their own */
    r->tmp_bytes = (kern_sample_bytes((int32_t)vocab) + 2 * KERN_ALIGN) / KERN_ALIGN * KERN_ALIGN;
    r->tmp = mem_zalloc((size_t)o->threads, r->tmp_bytes);
    return ST_OK;
}

static void rank_release(struct rank *r)
{
    model_release(&r->m);
    if (r->b) r->b->ops->close(r->b);
    team_close(r->team);
    wire_release(&r->wire);
    free(r->logits);
    free(r->part);
    free(r->result);
    free(r->tmp);
}

/* A failure of this rank itself is kept for the caller and told to the others; one that was told by
 * another rank is not. */
static void give_up(struct rank *r, const struct err *e)
{
    r->own = *e;
    comm_fail(r->world, e->text);
}

static int tell_times(struct rank *r, struct err *e)
{
    struct told t = { .times = r->timing.now };
    bool parts = backend_timed_is(r->b);
    if (parts) {
        backend_timed_read(r->b, &t.parts);
        backend_timed_clear(r->b);
    }
    return comm_send(r->world, 0, &t, parts ? sizeof t : sizeof t.times, e);
}

/* Floats of a message of this rank's share of logits, at most. */
static size_t share_of(const struct rank *r)
{
    return (size_t)r->g->o.m.max_out * (size_t)r->m.s.n_vocab;
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
    if (r->rank != sampler(g)) {
        size_t share = share_of(r);
        return comm_send(r->world, sampler(g), r->part, (n < share ? n : share) * sizeof *x, e);
    }
    for (int t = 1; t < g->o.tp && st == ST_OK; t++) {
        bytes = (share_of(r) + (size_t)g->o.m.max_out) * sizeof *x;
        st = comm_recv(r->world, r->rank + t, r->part, &bytes, e);
    }
    return st;
}

/* The first messages of a size are slow, as the library makes room for them: all sizes that steps
 * will have, several times, before the first request. Not counted. */
static int warm(struct rank *r, struct err *e)
{
    enum { ROUNDS = 4 };
    const struct engine *g = r->g;
    size_t hidden = (size_t)g->o.m.max_tok * (size_t)g->spec.a.hidden;
    size_t logits = (size_t)g->o.m.max_out * (size_t)(g->spec.a.vocab / g->o.tp + 1);
    size_t most = hidden > logits ? hidden : logits;
    int st = ST_OK;
    if (g->n == 1) return ST_OK;
    float *x = mem_zalloc(hidden, sizeof *x);
    for (int i = 0; i < ROUNDS; i++)
        for (size_t n = 64; st == ST_OK && n < 2 * most; n *= 2) {
            size_t now = n < hidden ? n : hidden;
            st = exchange_once(r, x, now, e);
        }
    free(x);
    memset(r->world->count, 0, sizeof r->world->count);
    memset(r->tp->count, 0, sizeof r->tp->count);
    return st;
}

/* Until the engine is stopped. */
static int rank_live(struct rank *r, struct err *e)
{
    int st = rank_open(r, e);
    if (st != ST_OK) {
        give_up(r, e);
        return st;
    }
    st = comm_barrier(r->world, e);
    if (st == ST_OK) st = warm(r, e);
    while (st == ST_OK) {
        size_t bytes = r->wire.cap;
        st = comm_recv(r->world, 0, r->wire.bytes, &bytes, e);
        if (st != ST_OK) break;
        wire_unpack(&r->wire);
        if (r->wire.op == WIRE_STOP) return ST_OK;
        st = step(r, e);
        if (st == ST_OK && r->g->o.mpi) /* threads look for themselves */
            st = tell_times(r, e);
    }
    comm_fail(r->world, e->text); /* no effect when the failure came from there */
    return st;
}

static void *rank_main(void *p)
{
    struct err e = { 0 };
    (void)rank_live(p, &e);
    return NULL;
}

static void join_all(struct engine *g)
{
    for (int i = 1; i < g->n; i++)
        if (g->rank[i].started) pthread_join(g->rank[i].id, NULL);
    for (int i = 1; i < g->n; i++) g->rank[i].started = false;
    g->stopped = true;
}

/* ---- the whole */

static int check(struct engine *g, struct err *e)
{
    struct engine_opts *o = &g->o;
    const struct arch *a = &g->spec.a;
    int st = shard_check(a, o->tp, o->pp, o->split, e);
    if (st != ST_OK) return st;
    if ((int64_t)o->tp * o->pp > COMM_MAX_RANKS || o->pp > ENGINE_MAX_PP)
        return err_set(e, ST_USAGE, "tp %d x pp %d: at most %d ranks and %d stages", o->tp, o->pp,
                       COMM_MAX_RANKS, ENGINE_MAX_PP);
    if (o->threads < 1 || o->threads > ENGINE_MAX_THREADS)
        return err_set(e, ST_USAGE, "%d threads; 1 to %d", o->threads, ENGINE_MAX_THREADS);
    if (o->m.max_ctx > a->max_ctx)
        return err_set(e, ST_USAGE, "%d tokens of prompt and output; %s has a context of %d",
                       o->m.max_ctx, a->name, a->max_ctx);
    if (o->m.max_ctx == 0) o->m.max_ctx = a->max_ctx;
    if (o->mpi && comm_mpi_size(o->mpi) != o->tp * o->pp)
        return err_set(e, ST_USAGE, "tp %d x pp %d is %d ranks, but the number of processes is %d",
                       o->tp, o->pp, o->tp * o->pp, comm_mpi_size(o->mpi));
    return ST_OK;
}

static void reserve(struct engine *g, int from, int to, size_t bytes)
{
    if (g->comm) comm_thread_reserve(g->comm, from, to, bytes);
    if (!g->comm && from == g->me) comm_mpi_reserve(g->o.mpi, to, bytes);
}

static void reserve_channels(struct engine *g)
{
    const struct engine_opts *o = &g->o;
    struct wire sizes;
    size_t x = (size_t)o->m.max_tok * (size_t)g->spec.a.hidden * sizeof(float);
    size_t share = (size_t)o->m.max_out * ((size_t)g->spec.a.vocab / (size_t)o->tp + 1) * 4;
    wire_init(&sizes, &g->limit);
    for (int r = 1; r < g->n; r++) reserve(g, 0, r, sizes.cap);
    for (int r = o->tp; r < g->n; r++) reserve(g, r - o->tp, r, x);
    for (int t = 1; t < o->tp; t++) reserve(g, sampler(g) + t, sampler(g), share);
    reserve(g, sampler(g), 0, g->result_bytes);
    for (int r = 1; r < g->n && o->mpi; r++) reserve(g, r, 0, sizeof(struct told));
    wire_release(&sizes);
}

/* The weights lie beside config.json. */
static int open_checkpoint(struct engine *g, struct err *e)
{
    struct stat info;
    char dir[4096];
    const char *slash = strrchr(g->o.model, '/');
    if (stat(g->o.model, &info) == 0 && S_ISDIR(info.st_mode))
        return weights_open(&g->w, g->o.model, e);
    size_t n = slash ? (size_t)(slash - g->o.model) : 0;
    if (n >= sizeof dir) return err_set(e, ST_USAGE, "the path of the model is too long");
    snprintf(dir, sizeof dir, "%.*s", slash ? (int)n : 1, slash ? g->o.model : ".");
    return weights_open(&g->w, slash && n == 0 ? "/" : dir, e);
}

static int connect_ranks(struct engine *g, struct err *e)
{
    const struct engine_opts *o = &g->o;
    struct comm_mpi_place p = place_of(g);
    int spin_max = bell_spin_max(p.n * o->threads, p.cpus);
    if (o->mpi)
        comm_mpi_split(o->mpi, o->tp, (size_t)o->m.max_tok * (size_t)g->spec.a.hidden, spin_max);
    else if (!(g->comm = comm_thread_open(o->tp, o->pp, spin_max, e)))
        return ST_USAGE;
    reserve_channels(g);
    g->rank = mem_zalloc((size_t)g->n, sizeof *g->rank);
    g->told = mem_zalloc((size_t)g->n, sizeof *g->told);
    for (int i = 0; i < g->n; i++) {
        g->rank[i].g = g;
        g->rank[i].rank = i;
        g->rank[i].world = o->mpi ? comm_mpi_world(o->mpi) : comm_thread_world(g->comm, i);
        g->rank[i].tp = o->mpi ? comm_mpi_tp(o->mpi) : comm_thread_tp(g->comm, i);
    }
    return ST_OK;
}

static int prepare(struct engine *g, struct err *e)
{
    struct engine_opts *o = &g->o;
    int st = spec_read(o->model, &g->spec, e);
    if (st == ST_OK) st = check(g, e);
    if (st == ST_OK) st = need_memory(&g->spec, &o->m, 1, e);
    if (st != ST_OK) return st;
    if (o->random)
        weights_random(&g->w, o->seed);
    else if ((st = open_checkpoint(g, e)) != ST_OK ||
             (st = need_parameters(&g->spec, &g->w, e)) != ST_OK)
        return st;
    g->n = o->tp * o->pp;
    g->limit = (struct wire_limit){ o->m.max_tok, o->m.max_out, o->max_table };
    g->result_bytes = RESULT_HEAD_BYTES + tokens_bytes(o->m.max_out);
    if (o->logits)
        g->result_bytes += (size_t)o->m.max_out * (size_t)g->spec.a.vocab * sizeof(float);
    g->result = mem_zalloc(1, g->result_bytes);
    const struct kern *k = o->kernels ? kern_named(o->kernels) : kern_best();
    g->kernels = k ? k->name : "none";
    return connect_ranks(g, e);
}

static int start_threads(struct engine *g, struct err *e)
{
    int st = ST_OK;
    for (int i = 1; i < g->n && st == ST_OK; i++) {
        g->rank[i].started = pthread_create(&g->rank[i].id, NULL, rank_main, &g->rank[i]) == 0;
        if (!g->rank[i].started) st = err_set(e, ST_DEVICE, "the system refuses a thread");
    }
    return st;
}

/* Processes are there already: they are told what to open. */
static int start_processes(struct engine *g, struct err *e)
{
    struct comm *world = comm_mpi_world(g->o.mpi);
    unsigned char text[WIRE_OPTS_BYTES];
    size_t n = wire_pack_opts(&g->o, text);
    int st = n ? ST_OK : err_set(e, ST_USAGE, "the path of the model is too long");
    for (int i = 1; i < g->n; i++) comm_mpi_reserve(g->o.mpi, i, WIRE_OPTS_BYTES);
    for (int i = 1; i < g->n && st == ST_OK; i++) st = comm_send(world, i, text, n, e);
    return st;
}

static int start(struct engine *g, struct err *e)
{
    struct err told = { 0 };
    int st = g->o.mpi ? start_processes(g, &told) : start_threads(g, &told);
    if (st == ST_OK) st = rank_open(&g->rank[0], &told);
    if (st != ST_OK)
        give_up(&g->rank[0], &told);
    else
        st = comm_barrier(g->rank[0].world, &told);
    if (st == ST_OK) st = warm(&g->rank[0], &told);
    if (st == ST_OK) return ST_OK;
    join_all(g);
    for (int i = 0; i < g->n; i++) { /* the cause, not its echo on other ranks */
        const struct err *own = &g->rank[i].own;
        if (own->status == ST_DEVICE && g->n > 1)
            return err_set(e, ST_DEVICE, "rank %d: %s", i, own->text);
        if (own->status != ST_OK) return err_set(e, own->status, "%s", own->text);
    }
    return err_set(e, told.status, "%s", told.text);
}

struct engine *engine_open(const struct engine_opts *o, struct err *e)
{
    struct engine *g = mem_zalloc(1, sizeof *g);
    g->o = *o;
    g->stopped = true;
    team_unpin(); /* of another engine's rank 0 here: the other ranks are to start unpinned */
    int st = prepare(g, e);
    if (st == ST_OK) {
        g->stopped = false;
        st = start(g, e);
    }
    if (st == ST_OK) return g;
    engine_close(g);
    return NULL;
}

void engine_close(struct engine *g)
{
    if (!g) return;
    if (!g->stopped) (void)engine_stop(g, NULL);
    for (int i = 0; i < g->n && g->rank; i++) rank_release(&g->rank[i]);
    comm_thread_close(g->comm);
    weights_close(&g->w);
    free(g->told);
    free(g->rank);
    free(g->result);
    free(g);
}

/* Messages from a rank come in order: logits or result of a step, its times, those of the next. */
static int hear_times(struct engine *g, struct err *e)
{
    struct told x;
    int st = ST_OK;
    for (int i = 1; i < g->n && st == ST_OK && g->untimed && g->o.mpi; i++) {
        size_t bytes = sizeof x;
        st = comm_recv(g->rank[0].world, i, &x, &bytes, e);
        if (st != ST_OK) break;
        timing_put(&g->rank[i].timing, &x.times);
        if (bytes == sizeof x) g->rank[i].parts = x.parts;
    }
    g->untimed = false;
    return st;
}

/* What other processes have still to say, their reports last. */
static int hear_all(struct engine *g, struct err *e)
{
    struct engine_result unused;
    int st = ST_OK;
    while (g->in_flight > 0 && st == ST_OK) st = engine_collect(g, &unused, e);
    if (st == ST_OK) st = hear_times(g, e);
    for (int i = 1; i < g->n && st == ST_OK; i++) {
        size_t got = sizeof g->told[i];
        st = comm_recv(g->rank[0].world, i, &g->told[i], &got, e);
    }
    return st;
}

int engine_stop(struct engine *g, struct err *e)
{
    struct rank *r = &g->rank[0];
    int st = ST_OK;
    if (g->stopped) return ST_OK;
    size_t bytes = wire_pack(&r->wire, WIRE_STOP, NULL);
    for (int i = 1; i < g->n && st == ST_OK; i++)
        st = comm_send(r->world, i, r->wire.bytes, bytes, e);
    if (st == ST_OK && g->o.mpi) st = hear_all(g, e);
    join_all(g);
    return st;
}

int engine_stopped(struct engine *g, struct err *e)
{
    /* the end of a process and the launcher's signal come on different ways */
    if (g->o.mpi) nanosleep(&(struct timespec){ .tv_nsec = 100000000 }, NULL);
    int st = g->o.mpi ? comm_mpi_check(g->o.mpi, e) : comm_thread_check(g->comm, e);
    return st == ST_OK ? err_set(e, ST_STOPPED, "interrupted") : st;
}

int engine_threads(const struct comm_mpi *mpi, int n_rank)
{
    int cpus = mpi ? comm_mpi_place(mpi)->cpus : team_cpus();
    int share = cpus / (mpi ? comm_mpi_place(mpi)->n : n_rank);
    return share > 1 ? share : 1;
}

/* ---- life of another process */

/* One engine of rank 0. */
static int follow_one(const struct engine_opts *o, struct err *e)
{
    struct engine *g = mem_zalloc(1, sizeof *g);
    g->o = *o;
    g->me = comm_mpi_rank(o->mpi);
    g->stopped = true; /* rank 0 stops it */
    int st = prepare(g, e);
    if (st != ST_OK) comm_fail(comm_mpi_world(o->mpi), e->text);
    if (st == ST_OK) st = rank_live(&g->rank[g->me], e);
    if (st == ST_OK) {
        struct engine_rank_report mine;
        engine_report(g, g->me, &mine);
        st = comm_send(g->rank[g->me].world, 0, &mine, sizeof mine, e);
    }
    engine_close(g);
    return st;
}

int engine_follow(struct comm_mpi *m, engine_backend_fn backend, struct err *e)
{
    unsigned char text[WIRE_OPTS_BYTES];
    int st;
    for (;;) {
        size_t bytes = sizeof text;
        struct engine_opts o;
        st = comm_recv(comm_mpi_world(m), 0, text, &bytes, e);
        if (st != ST_OK || bytes == 0) return st;
        wire_unpack_opts(text, &o);
        o.mpi = m;
        o.backend = backend;
        st = follow_one(&o, e);
        if (st != ST_OK) return st;
    }
}

void engine_dismiss(struct comm_mpi *m)
{
    for (int i = 1; i < comm_mpi_size(m); i++)
        if (comm_send(comm_mpi_world(m), i, "", 0, NULL) != ST_OK) return;
}

const struct spec *engine_spec(const struct engine *g)
{
    return &g->spec;
}

const char *engine_kernels(const struct engine *g)
{
    return g->kernels;
}

struct backend *engine_backend(const struct engine *g, int rank)
{
    return g->rank[rank].b;
}

int engine_depth(const struct engine *g)
{
    return g->o.pp < COMM_SLOTS ? g->o.pp : COMM_SLOTS;
}

int engine_n_rank(const struct engine *g)
{
    return g->n;
}

/* ---- steps */

static int check_seq(const struct engine *g, const struct engine_seq *q, int32_t row, struct err *e)
{
    const struct model_opts *o = &g->o.m;
    if (q->row != row || q->n_q < 1 || q->pos < 0)
        return err_set(e, ST_RANGE, "a step whose sequences are not its rows in order");
    if ((int64_t)q->pos + q->n_q > o->max_ctx)
        return err_set(e, ST_RANGE, "position %d is past the context of %d tokens",
                       q->pos + q->n_q - 1, o->max_ctx);
    if ((int64_t)q->n_block * o->block_tok < (int64_t)q->pos + q->n_q)
        return err_set(e, ST_RANGE, "%d KV blocks are too few for %d tokens", q->n_block,
                       q->pos + q->n_q);
    for (int32_t i = 0; i < q->n_block; i++)
        if (q->block[i] < 0 || q->block[i] >= o->n_block)
            return err_set(e, ST_RANGE, "KV block %d; there are %d", q->block[i], o->n_block);
    return ST_OK;
}

static int check_step(const struct engine *g, const struct engine_step *s, struct err *e)
{
    const struct model_opts *o = &g->o.m;
    int64_t row = 0, table = 0;
    if (s->n_tok < 1 || s->n_tok > o->max_tok || s->n_out < 0 || s->n_out > o->max_out)
        return err_set(e, ST_RANGE, "a step of %d tokens and %d outputs; room is for %d and %d",
                       s->n_tok, s->n_out, o->max_tok, o->max_out);
    for (int32_t i = 0; i < s->n_tok; i++)
        if (s->tok[i] < 0 || s->tok[i] >= g->spec.a.vocab)
            return err_set(e, ST_RANGE, "token %d is not in the vocabulary of %d", s->tok[i],
                           g->spec.a.vocab);
    for (int32_t i = 0; i < s->n_seq; i++) {
        int st = check_seq(g, &s->seq[i], (int32_t)row, e);
        if (st != ST_OK) return st;
        row += s->seq[i].n_q;
        table += s->seq[i].n_block;
    }
    if (row != s->n_tok || table > g->o.max_table)
        return err_set(e, ST_RANGE,
                       "a step of %d tokens has sequences of %lld, with %lld KV blocks "
                       "of %d",
                       s->n_tok, (long long)row, (long long)table, g->o.max_table);
    for (int32_t i = 0; i < s->n_out; i++)
        if (s->out[i].row < 0 || s->out[i].row >= s->n_tok)
            return err_set(e, ST_RANGE, "logits of row %d of %d", s->out[i].row, s->n_tok);
    return ST_OK;
}

int engine_submit(struct engine *g, const struct engine_step *s, struct err *e)
{
    struct rank *r = &g->rank[0];
    int st = check_step(g, s, e);
    if (st != ST_OK) return st;
    assert(!g->stopped && g->in_flight < engine_depth(g));
    st = hear_times(g, e);
    if (st != ST_OK) return st;
    size_t bytes = wire_pack(&r->wire, WIRE_STEP, s);
    for (int i = 1; i < g->n && st == ST_OK; i++)
        st = comm_send(r->world, i, r->wire.bytes, bytes, e);
    if (st != ST_OK) return st;
    wire_unpack(&r->wire);
    st = step(r, e);
    if (st != ST_OK)
        comm_fail(r->world, e ? e->text : "failed");
    else
        g->in_flight++;
    return st;
}

int engine_collect(struct engine *g, struct engine_result *r, struct err *e)
{
    size_t bytes = g->result_bytes;
    assert(g->in_flight > 0);
    int st = hear_times(g, e);
    if (st == ST_OK) st = comm_recv(g->rank[0].world, sampler(g), g->result, &bytes, e);
    if (st != ST_OK) return st;
    g->in_flight--;
    g->untimed = true;
    memcpy(&r->n_out, g->result, sizeof r->n_out);
    r->tok = (void *)(g->result + RESULT_HEAD_BYTES);
    r->logits =
        g->o.logits ? (void *)(g->result + RESULT_HEAD_BYTES + tokens_bytes(r->n_out)) : NULL;
    return ST_OK;
}

void engine_report(const struct engine *g, int rank, struct engine_rank_report *out)
{
    const struct rank *r = &g->rank[rank];
    if (g->o.mpi && rank != g->me) {
        *out = g->told[rank];
        return;
    }
    *out = (struct engine_rank_report){ .rank = rank,
                                        .load_s = r->m.load_s,
                                        .step_s = 1e-9 * (double)r->step_ns,
                                        .read_bytes = r->m.read_bytes,
                                        .weight_bytes = r->m.weight_bytes,
                                        .kv_bytes = r->m.kv_bytes,
                                        .steps = r->steps };
    memcpy(out->world, r->world->count, sizeof out->world);
    memcpy(out->tp, r->tp->count, sizeof out->tp);
}

bool engine_rank_step(const struct engine *g, int64_t step, int rank, struct engine_rank_step *out)
{
    return timing_read(&g->rank[rank].timing, step, out);
}

bool engine_rank_parts(const struct engine *g, int rank, struct backend_timed_step *out)
{
    const struct rank *r = &g->rank[rank];
    bool here = !g->o.mpi || rank == g->me;
    if (here && (!r->b || !backend_timed_is(r->b))) return false;
    if (here)
        backend_timed_read(r->b, out);
    else
        *out = r->parts;
    return here || out->t1_ns > 0;
}
