/* engine/engine.c - the ranks together: starting, steps, stopping.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/engine.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/arena.h"
#include "base/progress.h"
#include "engine/bell.h"
#include "engine/kern.h"
#include "engine/need.h"
#include "engine/rank.h"
#include "engine/team.h"

enum { VERDICT_TURNS = 25 }; /* of 0.1 s: comm_watch.h takes 2 s at most */

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
    if (o->device.kind != DEVICE_CPU) o->operators = false; /* calls end before their work does */
    if (o->device.kind != DEVICE_CPU && o->kernels)
        return err_set(e, ST_USAGE, "kernels '%.40s' are for the CPU, and the device is a GPU",
                       o->kernels);
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
    for (int t = 1; t < o->tp; t++) reserve(g, rank_sampler(g) + t, rank_sampler(g), share);
    reserve(g, rank_sampler(g), 0, g->result_bytes);
    for (int r = 1; r < g->n && o->mpi; r++) {
        reserve(g, r, 0, sizeof(struct rank_told));
        reserve(g, r, 0, sizeof(struct engine_rank_report));
    }
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
    struct comm_mpi_place p = rank_place(g);
    int spin_max = bell_spin_max(p.n * o->threads, p.cpus);
    if (o->mpi)
        comm_mpi_split(o->mpi, o->tp, model_sum_floats(&g->spec, o->m.max_tok), spin_max);
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
        g->rank[i].host_tp = g->rank[i].tp;
        g->rank[i].pipe = g->rank[i].world;
    }
    return ST_OK;
}

static int alive(void *arg, struct err *e)
{
    struct engine *g = arg;
    return g->o.mpi ? comm_mpi_check(g->o.mpi, e) : comm_thread_check(g->comm, e);
}

static int choose_link(struct engine *g, struct err *e)
{
    const struct engine_opts *o = &g->o;
    g->link =
        (struct link){ .tp = o->tp,
                       .pp = o->pp,
                       .threads = !o->mpi,
                       .message_bytes = model_sum_floats(&g->spec, o->m.max_tok) * sizeof(float),
                       .alive = alive,
                       .alive_arg = g };
    return link_choose(&g->link, &o->device, rank_place(g).n, e);
}

static int prepare(struct engine *g, struct err *e)
{
    struct engine_opts *o = &g->o;
    int st = spec_read(o->model, &g->spec, e);
    if (st == ST_OK) st = check(g, e);
    g->n = o->tp * o->pp;
    if (st == ST_OK) st = device_check(&o->device, rank_place(g).n, e);
    if (st == ST_OK) st = choose_link(g, e);
    if (st == ST_OK && o->device.kind == DEVICE_CPU) st = need_memory(&g->spec, &o->m, 1, e);
    if (st != ST_OK) return st;
    if (o->random)
        weights_random(&g->w, o->seed);
    else if ((st = open_checkpoint(g, e)) != ST_OK ||
             (st = need_parameters(&g->spec, &g->w, e)) != ST_OK ||
             (st = model_check(&g->spec, &g->w, e)) != ST_OK)
        return st;
    g->limit = (struct wire_limit){ o->m.max_tok, o->m.max_out, o->max_table };
    g->result_bytes = RANK_HEAD_BYTES + rank_tokens_bytes(o->m.max_out);
    if (o->logits)
        g->result_bytes += (size_t)o->m.max_out * (size_t)g->spec.a.vocab * sizeof(float);
    g->result = mem_zalloc(1, g->result_bytes);
    const struct kern *k = o->kernels ? kern_named(o->kernels) : kern_best();
    g->kernels = o->device.kind == DEVICE_CUDA ? "cuda" : k ? k->name : "none";
    st = link_make(&g->link, e);
    return st == ST_OK ? connect_ranks(g, e) : st;
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
    if (st == ST_STOPPED && g->o.mpi) {
        err_clear(&told);
        st = engine_stopped(g, &told);
    }
    if (st != ST_OK)
        rank_give_up(&g->rank[0], &told);
    else
        st = comm_barrier(g->rank[0].world, &told);
    if (st == ST_OK) st = rank_warm(&g->rank[0], &told);
    if (st == ST_OK) return ST_OK;
    join_all(g);
    for (int i = 0; i < g->n; i++) { /* the cause, not its echo on other ranks */
        const struct err *own = &g->rank[i].own;
        if (own->status == ST_DEVICE && (g->n > 1 || g->o.device.kind != DEVICE_CPU))
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
    link_release(&g->link);
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
    struct rank_told x;
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
    rank_leave(&g->rank[0]); /* the others do, before they report */
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
    rank_leave(r);
    join_all(g);
    return st;
}

int engine_stopped(struct engine *g, struct err *e)
{
    /* the end of a process and the launcher's signal come on different ways; whether one signal
     * was for all, rank 0 says */
    int st = ST_OK, turns = g->me ? VERDICT_TURNS : 1;
    for (int i = 0; i < turns && st == ST_OK; i++) {
        if (g->o.mpi) nanosleep(&(struct timespec){ .tv_nsec = 100000000 }, NULL);
        st = alive(g, e);
    }
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
    st = rank_step(r, e);
    if (st != ST_OK) {
        comm_fail(r->world, e ? e->text : "failed");
        rank_sign(r, e);
    } else
        g->in_flight++;
    return st;
}

int engine_collect(struct engine *g, struct engine_result *r, struct err *e)
{
    size_t bytes = g->result_bytes;
    assert(g->in_flight > 0);
    int st = hear_times(g, e);
    if (st == ST_OK) st = rank_await(&g->rank[0], rank_sampler(g), e);
    if (st == ST_OK) st = comm_recv(g->rank[0].world, rank_sampler(g), g->result, &bytes, e);
    if (st != ST_OK) return st;
    g->in_flight--;
    g->untimed = true;
    memcpy(&r->n_out, g->result, sizeof r->n_out);
    r->tok = (void *)(g->result + RANK_HEAD_BYTES);
    r->logits =
        g->o.logits ? (void *)(g->result + RANK_HEAD_BYTES + rank_tokens_bytes(r->n_out)) : NULL;
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
