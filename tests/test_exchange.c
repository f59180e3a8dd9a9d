/* tests/test_exchange.c - activations that travel from device to device: a model on four devices that
 * the CPU plays (gpu_host.h), joined by a communicator whose data is theirs, against an engine on the
 * CPU. SPDX-License-Identifier: Apache-2.0 */
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
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
    struct sight *sight;
};

/* What a rank of an engine has asked of it, and what it is told: a step counts as done on its device
 * only when the receive of the next one, if there is to be one, has been issued. */
enum { PATIENCE = 100000 };
struct sight {
    int n_step;    /* that there will be */
    bool receives; /* from a stage before */
    int n_mark, n_expected, n_received, n_late, n_wait, turns;
    int warm_sums, warm_received; /* before the first wait, which is the end of getting warm */
    size_t largest;               /* bytes of those */
    size_t bytes[2];              /* of those expected and not received */
};

static void saw_recv(struct sight *s, size_t bytes)
{
    if (s->n_expected == s->n_received)
        s->n_expected++; /* it had not been expected */
    else
        CHECK_INT((long long)s->bytes[s->n_received % 2], (long long)bytes);
    s->n_received++;
}

static int fake_expect(struct comm *c, int from, size_t bytes, struct err *e)
{
    struct sight *s = ((struct fake *)c->group)->sight;
    (void)from, (void)e;
    CHECK(s->n_expected - s->n_received < 2);
    s->bytes[s->n_expected++ % 2] = bytes;
    return ST_OK;
}

static int fake_mark(struct comm *c, struct err *e)
{
    (void)e;
    ((struct fake *)c->group)->sight->n_mark++;
    return ST_OK;
}

static int fake_passed(struct comm *c, int64_t *n, struct err *e)
{
    struct fake *f = c->group;
    struct sight *s = f->sight;
    int step = s->n_mark / 2; /* the one after the last that is issued */
    *n = s->n_mark;
    if (s->receives && s->n_mark % 2 == 0 && step < s->n_step && s->n_expected <= step) {
        if (s->turns++ < PATIENCE) {
            *n = s->n_mark - 1;
            return ST_OK;
        }
        s->n_late++;
    }
    s->turns = 0;
    return f->g->ops->wait(f->g, e);
}

static int bring(struct fake *f, const void *from, size_t bytes, struct err *e)
{
    int st = f->g->ops->get(f->g, f->pinned, from, bytes, e);
    return st == ST_OK ? f->g->ops->wait(f->g, e) : st;
}

static int fake_allreduce(struct comm *c, float *x, size_t n, struct err *e)
{
    struct fake *f = c->group;
    if (f->sight && f->sight->n_wait == 0) f->sight->warm_sums++;
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
    struct sight *s = f->sight;
    if (s && s->n_wait > 0) {
        saw_recv(s, *bytes);
    } else if (s) {
        s->warm_received++;
        if (*bytes > s->largest) s->largest = *bytes;
    }
    int st = comm_recv(f->host, from, f->pinned, bytes, e);
    if (st == ST_OK) st = f->g->ops->put(f->g, data, f->pinned, *bytes, e);
    return st == ST_OK ? f->g->ops->wait(f->g, e) : st;
}

static int fake_wait(struct comm *c, struct err *e)
{
    struct fake *f = c->group;
    if (f->sight) f->sight->n_wait++;
    return f->g->ops->wait(f->g, e);
}

static const struct comm_ops fake_ops = { .name = "fake",
                                          .allreduce = fake_allreduce,
                                          .allgather = fake_allgather,
                                          .send = fake_send,
                                          .recv = fake_recv,
                                          .wait = fake_wait,
                                          .expect = fake_expect,
                                          .mark = fake_mark,
                                          .passed = fake_passed };

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
    static struct member r[N];
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
}

/* ---- an engine whose devices are joined so */

enum { RANKS = 4, LAYERS = 4, ROUNDS = 6, SEQS = 4 };

static struct sight sight[RANKS];
static struct fake end[RANKS][2];

static int join(struct gpu *g, struct comm *world, struct comm *host_tp, struct comm *tp_pipe[2],
                struct err *e)
{
    struct fake *f = end[world->rank];
    int st = fake_open(&f[0], g, host_tp, e);
    if (st == ST_OK) st = fake_open(&f[1], g, world, e);
    for (int i = 0; i < 2; i++) {
        f[i].sight = &sight[world->rank];
        tp_pipe[i] = &f[i].c;
    }
    return st;
}

static const char *deep_model(void)
{
    static char path[300];
    const char *dir = gpu_env_model("llama31", 32);
    snprintf(path, sizeof path, "%s/config.json", dir);
    json_t *c = json_load_file(path, 0, NULL);
    json_object_set_new(c, "num_hidden_layers", json_integer(LAYERS));
    CHECK_INT(json_dump_file(c, path, 0), 0);
    json_decref(c);
    return dir;
}

/* Step k: a prompt of each sequence in turn, of other lengths, then `each` tokens at a time. */
static int submit(struct engine *g, int k, int each, struct err *e)
{
    int q = k % SEQS, first = 3 + 2 * q, n = k < SEQS ? first : each;
    int pos = k < SEQS ? 0 : first + (k / SEQS - 1) * each;
    int32_t own[3] = { 3 * q, 3 * q + 1, 3 * q + 2 }, t[MAX_TOK + 4];
    for (int i = 0; i < n; i++) t[i] = (q * 37 + (pos + i) * 11 + 5) % VOCAB;
    struct engine_seq seq = { 0, n, pos, 3, own };
    struct engine_out out = { .row = n - 1 };
    struct engine_step s = { n, 1, 1, t, &seq, &out };
    return engine_submit(g, &s, e);
}

struct seen {
    int32_t tok[SEQS * ROUNDS];
    float rows[SEQS * ROUNDS][VOCAB];
};

/* As many steps under way as the engine takes. */
static void run_steps(const struct engine_opts *o, int each, struct seen *out)
{
    struct err e = { 0 };
    struct engine_result r;
    struct engine_rank_step x;
    struct engine *g = engine_open(o, &e);
    int n = SEQS * ROUNDS, ranks = o->tp * o->pp;
    CHECK_TEXT(e.text, "");
    if (!g) return;
    int depth = engine_depth(g);
    for (int k = 0, done = 0; done < n; done++) {
        for (; k < n && k - done < depth; k++) CHECK_OK(submit(g, k, each, &e), &e);
        CHECK_OK(engine_collect(g, &r, &e), &e);
        out->tok[done] = r.tok[0];
        memcpy(out->rows[done], r.logits, sizeof out->rows[done]);
    }
    CHECK_OK(engine_stop(g, &e), &e);
    for (int i = 0; i < ranks; i++) { /* each rank knows when its steps began and were done */
        struct engine_rank_step before = { 0 };
        for (int k = n - depth; k < n; k++) {
            CHECK(engine_rank_step(g, k, i, &x));
            CHECK(x.t0_ns >= before.t1_ns && x.t1_ns >= x.t0_ns && x.recv_ns >= 0);
            before = x;
        }
    }
    engine_close(g);
}

static void check_sights(const struct engine_opts *o)
{
    struct spec spec;
    struct err e = { 0 };
    CHECK_OK(spec_read(o->model, &spec, &e), &e);
    for (int i = 0; i < o->tp * o->pp; i++) {
        const struct sight *s = &sight[i];
        CHECK_INT(s->n_mark, 2 * s->n_step);
        CHECK_INT(s->n_received, s->receives ? s->n_step : 0);
        CHECK_INT(s->n_expected, s->n_received);
        CHECK_INT(s->n_late, 0); /* the receive of a step comes before the end of the one before */
        CHECK_INT(s->n_wait, 1); /* and nothing waits for all that is on a queue, but once warm */
        CHECK((s->warm_sums > 0) == (o->tp > 1));
        CHECK((s->warm_received > 0) == s->receives);
        if (s->receives) CHECK_INT((long long)s->largest, 4LL * o->m.max_tok * spec.a.hidden);
        /* what made it warm is not counted */
        CHECK_INT(end[i][1].c.count[COMM_RECV].calls, s->receives ? s->n_step : 0);
        int sums = 2 * LAYERS / o->pp + (i < o->tp);
        CHECK_INT(end[i][0].c.count[COMM_ALLREDUCE].calls, o->tp > 1 ? s->n_step * sums : 0);
    }
}

/* The sums of these communicators are none that a recording could hold: with tp no step is one of
 * single tokens. */
static void compare_ahead(int tp, int pp, const char *dir)
{
    static struct seen want, got;
    struct engine_opts o = gpu_env_drawn(dir, 1, 1);
    run_steps(&o, tp, &want);
    o = gpu_env_on(gpu_env_drawn(dir, tp, pp));
    o.device.join = join;
    for (int i = 0; i < tp * pp; i++)
        sight[i] = (struct sight){ .n_step = SEQS * ROUNDS, .receives = i >= tp };
    run_steps(&o, tp, &got);
    check_sights(&o);
    CHECK(memcmp(got.tok, want.tok, sizeof got.tok) == 0);
    for (int k = 0; k < SEQS * ROUNDS; k++)
        CHECK(engine_env_miss(got.rows[k], want.rows[k], 1, VOCAB) <= 1e-4);
}

/* Of two stages, of four, of two with two ranks each: the receive of a step is issued before the end
 * of the one before is waited for, stages but the last wait for nothing, and the tokens are those of
 * one rank on the CPU. */
TEST_LIMIT(exchange_receives_ahead_of_what_is_computed, 120)
{
    const char *dir = deep_model();
    compare_ahead(1, 2, dir);
    compare_ahead(1, 4, dir);
    compare_ahead(2, 2, dir);
}
