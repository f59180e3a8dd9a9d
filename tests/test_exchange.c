/* tests/test_exchange.c - activations that travel from device to device: a model on four devices that
 * the CPU plays (gpu_host.h), joined by a communicator whose data is theirs, against an engine on the
 * CPU. SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "engine/backend_gpu.h"
#include "engine/exchange.h"
#include "tests/engine_env.h"
#include "tests/gpu_env.h"
#include "tests/test.h"

enum { TP = 2, PP = 2, N = TP * PP, VOCAB = GPU_ENV_VOCAB, N_STEP = 3, MAX_TOK = 8 };

/* ---- a communicator of devices: copies, waits, and asks one of the host */

struct fake {
    struct comm c;
    struct gpu *g;
    struct comm *host;
    char *pinned;
    size_t half; /* bytes, two of them */
};

static int bring(struct fake *f, const void *from, size_t bytes, struct err *e)
{
    int st = f->g->ops->get(f->g, f->pinned, from, bytes, e);
    return st == ST_OK ? f->g->ops->wait(f->g, e) : st;
}

static int fake_allreduce(struct comm *c, float *x, size_t n, struct err *e)
{
    struct fake *f = c->group;
    int st = bring(f, x, n * sizeof *x, e);
    if (st == ST_OK) st = comm_allreduce(f->host, (float *)(void *)f->pinned, n, e);
    if (st == ST_OK) st = f->g->ops->put(f->g, x, f->pinned, n * sizeof *x, e);
    return st == ST_OK ? f->g->ops->wait(f->g, e) : st;
}

static int fake_allgather(struct comm *c, const void *mine, size_t bytes, void *all, struct err *e)
{
    struct fake *f = c->group;
    int st = bring(f, mine, bytes, e);
    if (st == ST_OK) st = comm_allgather(f->host, f->pinned, bytes, f->pinned + f->half, e);
    if (st == ST_OK) st = f->g->ops->put(f->g, all, f->pinned + f->half, bytes * TP, e);
    return st == ST_OK ? f->g->ops->wait(f->g, e) : st;
}

static int fake_send(struct comm *c, int to, const void *data, size_t bytes, struct err *e)
{
    struct fake *f = c->group;
    int st = bring(f, data, bytes, e);
    return st == ST_OK ? comm_send(f->host, to, f->pinned, bytes, e) : st;
}

static int fake_recv(struct comm *c, int from, void *data, size_t *bytes, struct err *e)
{
    struct fake *f = c->group;
    int st = comm_recv(f->host, from, f->pinned, bytes, e);
    if (st == ST_OK) st = f->g->ops->put(f->g, data, f->pinned, *bytes, e);
    return st == ST_OK ? f->g->ops->wait(f->g, e) : st;
}

static int fake_wait(struct comm *c, struct err *e)
{
    struct fake *f = c->group;
    return f->g->ops->wait(f->g, e);
}

static const struct comm_ops fake_ops = { .name = "fake",
                                          .allreduce = fake_allreduce,
                                          .allgather = fake_allgather,
                                          .send = fake_send,
                                          .recv = fake_recv,
                                          .wait = fake_wait };

static int fake_open(struct fake *f, struct gpu *g, struct comm *host, struct err *e)
{
    void *p = NULL;
    *f = (struct fake){ .g = g, .host = host, .half = 1 << 16 };
    f->c = (struct comm){
        .ops = &fake_ops, .group = f, .rank = host->rank, .n = host->n, .on_device = true
    };
    int st = g->ops->alloc_pinned(g, 2 * f->half, &p, e);
    f->pinned = p;
    return st;
}

/* ---- the model and its steps */

static const int32_t tok[] = { 5, 99, 3, 64, 17, 80, 41, 7, 22, 110 }, block[] = { 4, 1 };
static const int32_t from[N_STEP + 1] = { 0, 5, 9, 10 };

struct world {
    struct engine_opts o;
    struct spec spec;
    struct weights w;
    struct comm_thread *comm;
};

struct member {
    struct world *u;
    int rank;
    pthread_t id;
    struct err e;
    struct gpu *g;
    struct model m;
    int32_t tok[N_STEP][MAX_TOK];
    float rows[N_STEP][MAX_TOK * VOCAB];
};

static int open_member(struct member *r, struct fake *tp, struct fake *pipe)
{
    struct world *u = r->u;
    struct err *e = &r->e;
    r->g = gpu_host_open(NULL, e);
    struct backend *b = r->g ? backend_gpu_open(r->g, NULL, e) : NULL;
    if (!b) return ST_DEVICE;
    int st = fake_open(tp, r->g, comm_thread_tp(u->comm, r->rank), e);
    if (st == ST_OK) st = fake_open(pipe, r->g, comm_thread_world(u->comm, r->rank), e);
    r->m = (struct model){ .spec = &u->spec,
                           .o = u->o.m,
                           .b = b,
                           .tp = &tp->c,
                           .pipe = &pipe->c,
                           .max_table = 16,
                           .depth = 1 };
    shard_of(&u->spec.a, TP, PP, NULL, r->rank, &r->m.s);
    r->m.tokens = r->m.s.last;
    return st == ST_OK ? model_load(&r->m, &u->w, e) : st;
}

static int one_step(struct member *r, int k)
{
    struct model *m = &r->m;
    int32_t n = from[k + 1] - from[k], pos[MAX_TOK], out[MAX_TOK];
    struct backend_sample sample[MAX_TOK] = { 0 };
    struct backend_seq seq = { 0, n, from[k], block };
    struct backend_step s = { n, 1, n, tok + from[k], pos, &seq, out, sample };
    size_t bytes = (size_t)n * (size_t)m->spec->a.hidden * sizeof(float);
    for (int32_t i = 0; i < n; i++) pos[i] = from[k] + i, out[i] = n - 1 - i;
    int st = m->s.first ? ST_OK : exchange_recv(&m->ranks, r->rank - TP, m->x, bytes, &r->e);
    if (st == ST_OK) st = model_forward(m, &s, &r->e);
    if (st == ST_OK && !m->s.last) st = exchange_send(&m->ranks, r->rank + TP, m->x, bytes, &r->e);
    if (st == ST_OK) st = exchange_sync(&m->ranks, &r->e);
    if (st != ST_OK || !m->s.last || m->s.tp_rank != 0) return st;
    memcpy(r->tok[k], m->b->ops->tokens(m->b), (size_t)n * sizeof(int32_t));
    m->b->ops->download(m->b, r->rows[k], model_rows(m), (size_t)n * VOCAB * sizeof(float));
    return backend_sync(m->b, &r->e);
}

static void *run_member(void *arg)
{
    struct member *r = arg;
    struct fake tp, pipe;
    struct comm *world = comm_thread_world(r->u->comm, r->rank);
    int st = open_member(r, &tp, &pipe);
    for (int k = 0; k < N_STEP && st == ST_OK; k++) st = one_step(r, k);
    if (st != ST_OK) comm_fail(world, r->e.text);
    model_release(&r->m);
    if (r->m.b) r->m.b->ops->close(r->m.b);
    return NULL;
}

/* The same steps on the CPU. */
static void compare(const struct world *u, const struct member *got)
{
    struct err e = { 0 };
    struct engine *g = engine_open(&u->o, &e);
    CHECK_TEXT(e.text, "");
    for (int k = 0; k < N_STEP && g; k++) {
        int32_t n = from[k + 1] - from[k];
        struct engine_seq seq = { 0, n, from[k], 2, block };
        struct engine_out out[MAX_TOK] = { 0 };
        struct engine_step s = { n, 1, n, tok + from[k], &seq, out };
        struct engine_result r;
        for (int32_t i = 0; i < n; i++) out[i].row = n - 1 - i;
        CHECK_OK(engine_submit(g, &s, &e), &e);
        CHECK_OK(engine_collect(g, &r, &e), &e);
        CHECK(engine_env_miss(got->rows[k], r.logits, n, VOCAB) <= 1e-4);
        CHECK(memcmp(got->tok[k], r.tok, (size_t)n * sizeof(int32_t)) == 0);
    }
    engine_close(g);
}

/* Sums, messages and logits never pass through the host's side; tokens are made of whole rows. */
TEST_LIMIT(exchange_from_device_to_device, 60)
{
    struct world u = { .o = gpu_env_drawn(gpu_env_model("llama31", 32), 1, 1) };
    struct member *r = calloc(N, sizeof *r);
    struct err e = { 0 };
    u.o.m.max_tok = u.o.m.max_out = MAX_TOK;
    CHECK_OK(spec_read(u.o.model, &u.spec, &e), &e);
    weights_random(&u.w, u.o.seed);
    u.comm = comm_thread_open(TP, PP, 0, &e);
    CHECK(u.comm != NULL);
    for (int i = 0; i < TP && u.comm; i++) comm_thread_reserve(u.comm, i, TP + i, 1 << 16);
    for (int i = 0; i < N; i++) {
        r[i].u = &u;
        r[i].rank = i;
        CHECK_INT(pthread_create(&r[i].id, NULL, run_member, &r[i]), 0);
    }
    for (int i = 0; i < N; i++) pthread_join(r[i].id, NULL);
    for (int i = 0; i < N; i++) CHECK_TEXT(r[i].e.text, "");
    compare(&u, &r[TP]);
    comm_thread_close(u.comm);
    weights_close(&u.w);
    free(r);
}
