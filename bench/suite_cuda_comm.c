/* bench/suite_cuda_comm.c - messages between GPUs as the engine sends them (engine/exchange.h): over
 * NCCL where each rank has a GPU of its own, else through the host.
 *
 * Ranks are threads with a device each, for the length of a job. All make the same calls; a value
 * is the time of the slowest, by events on its queue. What is sent is drawn at random and lies in
 * several buffers, which take turns. Sums work in place and grow, so buffers are drawn anew between
 * the spans that are timed. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/progress.h"
#include "bench/suite_cuda.h"
#include "engine/backend_gpu.h"
#include "engine/exchange.h"
#include "engine/link.h"

enum { MAX_RANKS = 8, LEAST_BYTES = 4 << 10, MOST_BYTES = 64 << 20, FEW_BYTES = 1 << 20 };
enum { LEAST_CALLS = 4, MOST_CALLS = 2000, SPIN = 1000, SEED = 51, ALIGN_BYTES = 256 };
/* Drawn values are below 1 and a sum over n ranks is at most n times as large as what it is of: after
 * as many sums in place as keep the factors below 2^MOST_BITS all are within f32's 2^128. */
enum { MOST_BITS = 120 };

struct party {
    struct suite *s;
    const struct suite_job *j;
    int n;
    bool stages;                   /* messages from rank 0 to rank 1, else sums and gathers */
    size_t most_bytes, pool_bytes; /* of a point; of all buffers that take turns */
    struct comm_thread *host;
    struct link link;
    struct suite_value *value; /* [n][j->n] */
    double *error;             /* [j->n] of rank 0, -1: not checked */
};

struct member {
    struct party *p;
    int rank, st;
    bool started;
    pthread_t id;
    struct err e;
    struct backend *b;
    struct gpu *g;
    struct gpu_event *event[2];
    struct comm *world;
    struct comm_nccl *nccl;
    struct exchange x;
    char *pool;
    float *data, *all; /* data: the buffer whose turn it is */
    size_t bytes;      /* of the present point, and its operation */
    int op;
    int64_t n_var, turn; /* buffers, calls since they were drawn */
};

/* ---- a rank */

static int connect(struct member *m, struct err *e)
{
    struct party *p = m->p;
    struct comm *tp = comm_thread_tp(p->host, m->rank), *pipe = m->world;
    if (p->link.on) {
        m->nccl = link_start(&p->link, backend_gpu_device(m->b), m->rank, m->world, e);
        int st = m->nccl ? comm_nccl_ready(m->nccl, e) : ST_DEVICE;
        if (st != ST_OK) return st;
        tp = comm_nccl_tp(m->nccl);
        pipe = comm_nccl_pipe(m->nccl);
    }
    m->x = (struct exchange){ .b = m->b, .tp = tp, .pipe = p->stages ? pipe : NULL };
    return exchange_open(&m->x, p->most_bytes, e);
}

static int open_rank(struct member *m, struct err *e)
{
    m->g = device_open(&m->p->s->o.device, m->rank, e);
    if (!m->g) return ST_DEVICE;
    m->b = backend_gpu_open(m->g, NULL, e);
    int st = m->b ? connect(m, e) : ST_DEVICE;
    for (int i = 0; i < 2 && st == ST_OK; i++) st = m->g->ops->event_new(m->g, &m->event[i], e);
    if (st != ST_OK) return st;
    m->pool = m->b->ops->alloc(m->b, m->p->pool_bytes, e);
    if (m->pool) m->all = m->b->ops->alloc(m->b, m->p->most_bytes, e);
    return m->all ? ST_OK : ST_DEVICE;
}

/* Of a gather what this rank gives. */
static size_t share_of(const struct member *m)
{
    return m->bytes / (size_t)m->p->n / sizeof(float) * sizeof(float);
}

/* From one buffer to the next. */
static size_t stride_of(const struct member *m)
{
    size_t bytes = m->op == POINTS_ALLGATHER ? share_of(m) : m->bytes;
    return (bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
}

/* All buffers, and all of the pool that they leave. */
static int draw(struct member *m, struct err *e)
{
    struct gpu_fill a = { .x = m->pool,
                          .seed = (uint64_t)(SEED + m->rank),
                          .n = (int64_t)(m->p->pool_bytes / sizeof(float)),
                          .type = GPU_F32 };
    struct gpu_dim d;
    m->turn = 0;
    gpu_kern_dim(GPU_K_fill, &a, &m->g->info, &d);
    return m->g->ops->launch(m->g, GPU_K_fill, &d, &a, e);
}

static int call(struct member *m, struct err *e)
{
    m->data = (void *)(m->pool + (size_t)(m->turn++ % m->n_var) * stride_of(m));
    switch (m->op) {
    case POINTS_ALLREDUCE: return exchange_sum(&m->x, m->data, m->bytes / sizeof(float), e);
    case POINTS_ALLGATHER: return exchange_gather(&m->x, m->data, share_of(m), m->all, e);
    default:
        return m->rank == 0 ? exchange_send(&m->x, 1, m->data, m->bytes, e)
                            : exchange_recv(&m->x, 0, m->all, m->bytes, e);
    }
}

static double value_of(int rank, size_t i)
{
    return rank + 1 + (double)(i % 8);
}

/* What value i of the result has to be, by rank: of a message what rank 0 has sent. */
static double wanted(const struct member *m, size_t i)
{
    size_t share = m->bytes / (size_t)m->p->n / sizeof(float);
    double n = m->p->n;
    if (m->op == POINTS_ALLREDUCE) return n * (n + 1) / 2 + n * (double)(i % 8);
    return m->op == POINTS_ALLGATHER ? value_of((int)(i / share), i % share) : value_of(0, i);
}

/* One call on known values, in the first buffer. */
static int check(struct member *m, int at, struct err *e)
{
    size_t n = m->bytes / sizeof(float), held = n;
    float *v = mem_alloc(m->bytes);
    double worst = 0;
    for (size_t i = 0; i < n; i++) v[i] = (float)value_of(m->rank, i);
    m->turn = 0;
    m->b->ops->upload(m->b, m->pool, v, m->bytes);
    int st = call(m, e);
    if (st == ST_OK) st = exchange_sync(&m->x, e);
    if (m->op == POINTS_ALLGATHER) held = n / (size_t)m->p->n * (size_t)m->p->n;
    const float *from = m->op == POINTS_ALLREDUCE ? m->data : m->all;
    if (st == ST_OK) m->b->ops->download(m->b, v, from, m->bytes);
    for (size_t i = 0; i < held && st == ST_OK; i++)
        worst = fmax(worst, fabs((double)v[i] / wanted(m, i) - 1));
    if (st == ST_OK && m->rank == m->p->n - 1) m->p->error[at] = worst;
    free(v);
    return st == ST_OK ? exchange_sync(&m->x, e) : st;
}

/* Adds what the queue took for n calls. */
static int timed(struct member *m, int64_t n, double *ns, struct err *e)
{
    const struct gpu_ops *g = m->g->ops;
    double t = 0;
    int st = g->event_set(m->g, m->event[0], e);
    for (int64_t i = 0; i < n && st == ST_OK; i++) st = call(m, e);
    if (st == ST_OK) st = g->event_set(m->g, m->event[1], e);
    if (st == ST_OK) st = exchange_sync(&m->x, e);
    if (st == ST_OK) st = g->event_ns(m->g, m->event[0], m->event[1], &t, e);
    *ns += t;
    return st;
}

/* Messages one at a time, each timed from when both sides are ready. Sums and gathers one after the
 * other, behind one by which the devices meet, and no buffer in more of them than f32 holds. */
static int span(struct member *m, int64_t calls, double *ns, struct err *e)
{
    bool one = m->op == POINTS_SENDRECV;
    int64_t most = one ? 1 : calls, uses = (int64_t)(MOST_BITS / log2(m->p->n));
    int st = one ? draw(m, e) : ST_OK;
    if (m->op == POINTS_ALLREDUCE && most > m->n_var * uses - 1) most = m->n_var * uses - 1;
    *ns = 0;
    for (int64_t done = 0; done < calls && st == ST_OK; done += most) {
        if (!one) st = draw(m, e);
        if (st == ST_OK) st = exchange_sync(&m->x, e);
        if (st == ST_OK) st = comm_barrier(m->world, e);
        if (st == ST_OK && !one) st = call(m, e);
        if (st == ST_OK) st = timed(m, calls - done < most ? calls - done : most, ns, e);
    }
    return st;
}

/* A look at how long a call takes, by events or, where those are no clock, by the host's, from which
 * the last rank, which receives where one does, decides for all; the calls. */
static int measure(struct member *m, int at, struct err *e)
{
    int64_t want = LEAST_CALLS;
    m->n_var = (int64_t)(m->p->pool_bytes / stride_of(m));
    int st = check(m, at, e);
    for (int round = 0; round < 2 && st == ST_OK; round++) {
        double ns;
        int64_t t0 = clock_mono_ns();
        st = span(m, want, &ns, e);
        if (st != ST_OK) return st;
        double host_s = 1e-9 * (double)(clock_mono_ns() - t0) / (double)want;
        double once_s = 1e-9 * ns / (double)want;
        m->p->value[m->rank * m->p->j->n + at] = (struct suite_value){ want, once_s };
        double more = ceil(m->p->s->o.run_s / (fmax(once_s, 0.1 * host_s) + 1e-9));
        if (round == 0 && more > LEAST_CALLS) want = more > MOST_CALLS ? MOST_CALLS : (int64_t)more;
        st = comm_broadcast(m->world, m->p->n - 1, &want, sizeof want, e);
    }
    return st;
}

static void *live(void *arg)
{
    struct member *m = arg;
    struct party *p = m->p;
    m->world = comm_thread_world(p->host, m->rank);
    m->st = open_rank(m, &m->e);
    for (int i = 0; i < p->j->n && m->st == ST_OK; i++) {
        m->op = p->s->row[p->j->first + i].op;
        m->bytes = (size_t)p->s->row[p->j->first + i].bytes;
        m->st = measure(m, i, &m->e);
    }
    if (m->st == ST_OK)
        m->st = comm_barrier(m->world, &m->e);
    else
        comm_fail(m->world, m->e.text);
    comm_nccl_close(m->nccl);
    if (m->b) m->b->ops->close(m->b);
    return NULL;
}

/* ---- the party */

static int alive(void *arg, struct err *e)
{
    return comm_thread_check(arg, e);
}

static int meet(struct party *p, struct err *e)
{
    struct member *m = mem_zalloc((size_t)p->n, sizeof *m);
    int st = ST_OK;
    for (int r = 0; r < p->n; r++) {
        m[r].p = p;
        m[r].rank = r;
        if (r > 0) m[r].started = pthread_create(&m[r].id, NULL, live, &m[r]) == 0;
        if (r > 0 && !m[r].started)
            comm_fail(comm_thread_world(p->host, r), "the system refuses a thread");
    }
    live(&m[0]);
    for (int r = 1; r < p->n; r++)
        if (m[r].started) pthread_join(m[r].id, NULL);
    for (int r = 0; r < p->n; r++)
        if (m[r].st != ST_OK && st == ST_OK) st = err_set(e, m[r].st, "%s", m[r].e.text);
    free(m);
    return st;
}

static void tell(struct party *p, struct suite_value *v)
{
    for (int i = 0; i < p->j->n; i++) {
        v[i] = p->value[i];
        for (int r = 1; r < p->n; r++)
            v[i].s_per_call = fmax(v[i].s_per_call, p->value[r * p->j->n + i].s_per_call);
        if (p->error[i] >= 0) suite_error(p->s, p->j->first + i, p->error[i]);
    }
}

/* Buffers past twice the L2 cache, and one more of the largest point; fewer where the ranks, which may
 * share a device, would take more than half of what the suite's pool and the engine leave of it. */
static size_t pool_bytes(const struct suite *s, size_t most_bytes, int n)
{
    double left = (double)s->cuda->room_bytes - (double)s->cuda->need_bytes;
    double most = left / 2 / n, want = 2 * ((double)suite_cuda_l2(s) + (double)most_bytes);
    double bytes = fmax(want < most ? want : most, (double)most_bytes);
    return ((size_t)bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
}

/* arg: ranks, stages. What fails here is told, and the other jobs go on. */
static int run_messages(struct suite *s, const struct suite_job *j, struct suite_value *v,
                        struct err *e)
{
    struct party p = { .s = s, .j = j, .n = (int)j->arg[0], .stages = j->arg[1] };
    struct err why = { 0 };
    (void)e;
    if (s->cuda->comm_failed) return ST_OK;
    for (int i = 0; i < j->n; i++)
        p.most_bytes = (size_t)fmax((double)p.most_bytes, s->row[j->first + i].bytes);
    p.pool_bytes = pool_bytes(s, p.most_bytes, p.n);
    p.value = mem_zalloc((size_t)(p.n * j->n), sizeof *p.value);
    p.error = mem_alloc((size_t)j->n * sizeof *p.error);
    for (int i = 0; i < j->n; i++) p.error[i] = -1;
    p.host = comm_thread_open(p.stages ? 1 : p.n, p.stages ? p.n : 1, SPIN, &why);
    p.link = (struct link){ .tp = p.stages ? 1 : p.n,
                            .pp = p.stages ? p.n : 1,
                            .threads = true,
                            .message_bytes = p.most_bytes,
                            .alive = alive,
                            .alive_arg = p.host };
    int st = p.host ? link_choose(&p.link, &s->o.device, p.n, &why) : ST_DEVICE;
    if (st == ST_OK) st = link_make(&p.link, &why);
    if (p.host && p.stages) comm_thread_reserve(p.host, 0, 1, p.most_bytes);
    if (st == ST_OK) st = meet(&p, &why);
    if (st == ST_OK) tell(&p, v);
    link_release(&p.link);
    comm_thread_close(p.host);
    free(p.value);
    free(p.error);
    if (st == ST_OK) return ST_OK;
    s->cuda->comm_failed = true;
    suite_skip(s, arena_printf(&s->arena, "messages between GPUs: %s", why.text));
    return ST_OK;
}

static void add_messages(struct suite *s, int n, bool stages, bool nccl)
{
    static const uint8_t op[] = { POINTS_ALLREDUCE, POINTS_ALLGATHER };
    size_t most = s->o.cache_bytes ? FEW_BYTES / 16 : MOST_BYTES;
    size_t factor = s->o.kind == SUITE_FULL ? 4 : 16;
    char what[64];
    snprintf(what, sizeof what, "%s over %d GPUs, %s", stages ? "messages" : "sums", n,
             nccl ? "NCCL" : "through the host");
    struct suite_job *j = suite_add_job(s, what, 2);
    j->run = run_messages;
    j->arg[0] = n;
    j->arg[1] = stages;
    for (int k = 0; k < (stages || !nccl ? 1 : 2); k++)
        for (size_t bytes = LEAST_BYTES; bytes <= most; bytes *= factor) {
            struct points_row r = { .op = stages ? POINTS_SENDRECV : op[k],
                                    .dtype = POINTS_F32,
                                    .comm = nccl ? POINTS_NCCL : POINTS_THREAD,
                                    .threads = s->o.threads,
                                    .ranks = n,
                                    .bytes = (double)bytes,
                                    .error = -1 };
            suite_add_row(s, &r);
            s->job[s->n_job - 1].run_s += 2 * s->o.run_s;
        }
}

int suite_cuda_comm_add(struct suite *s, struct err *e)
{
    const struct device *d = &s->o.device;
    int n = suite_cuda_count(s) - d->first;
    struct link l = { .tp = 2, .pp = 1, .threads = true };
    struct err why = { 0 };
    (void)e;
    if (n < 2 && d->share) n = 2;
    if (n < 2) {
        suite_skip(s, "messages between GPUs: there is one GPU (--share_device: two ranks on it)");
        return ST_OK;
    }
    if (n > MAX_RANKS) n = MAX_RANKS;
    if (link_choose(&l, d, n, &why) != ST_OK) {
        suite_skip(s, arena_printf(&s->arena, "messages between GPUs: %s", why.text));
        return ST_OK;
    }
    for (int ranks = 2; ranks <= n; ranks *= 2) add_messages(s, ranks, false, l.on);
    add_messages(s, 2, true, l.on);
    return ST_OK;
}
