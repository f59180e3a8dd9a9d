/* tests/test_nccl.c - ranks on devices over a fake NCCL: results, order, overlap, failure; finding
 * the library.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/rng.h"
#include "engine/comm_nccl.h"
#include "tests/nccl_fake.h"
#include "tests/nccl_job.h"
#include "tests/test.h"

enum { MAX_IDS = 32, STEPS = 12, MAX_N = 200, MESSAGE = MAX_N * sizeof(float) };

/* All ranks of a job, started on the fake. */
struct world {
    int tp, pp, n;
    struct nccl_id id[MAX_IDS];
    comm_nccl_seen seen[NCCL_FAKE_RANKS];
    struct comm_nccl_opts o;
    struct comm_nccl *rank[NCCL_FAKE_RANKS];
    struct err e[NCCL_FAKE_RANKS];
};

static void prepare(struct world *w, int tp, int pp, uint64_t seed)
{
    *w = (struct world){ .tp = tp, .pp = pp, .n = tp * pp };
    nccl_fake_open(seed);
    CHECK_INT(comm_nccl_make_ids(&nccl_fake_api, tp, pp, w->id, NULL), ST_OK);
    w->o = (struct comm_nccl_opts){ .api = &nccl_fake_api,
                                    .tp = tp,
                                    .pp = pp,
                                    .id = w->id,
                                    .message_bytes = MESSAGE,
                                    .seen = w->seen,
                                    .clock = nccl_fake_clock };
}

static bool start(struct world *w, int rank)
{
    nccl_fake_use(rank);
    w->o.rank = rank;
    w->o.gpu = nccl_fake_gpu(rank);
    w->rank[rank] = comm_nccl_start(&w->o, &w->e[rank]);
    return w->rank[rank] != NULL;
}

static void start_all(struct world *w, int tp, int pp, uint64_t seed)
{
    prepare(w, tp, pp, seed);
    for (int r = 0; r < w->n; r++) CHECK(start(w, r));
    for (int r = 0; r < w->n; r++) CHECK_INT(comm_nccl_ready(w->rank[r], NULL), ST_OK);
}

/* All that was taken has been given back, and nothing was used as it must not be. */
static void stop_all(struct world *w)
{
    for (int r = 0; r < w->n; r++) {
        nccl_fake_use(r);
        comm_nccl_close(w->rank[r]);
    }
    CHECK_INT(nccl_fake.alive, 0);
    CHECK_INT(nccl_fake.misuses, 0);
    nccl_fake_close();
}

static float value(int rank, int step, int i)
{
    struct rng r = rng_child(rng_stream(7, "nccl"), (uint64_t)(rank * 1000 + step));
    return (float)(rng_unit(r, (uint64_t)i) - 0.5);
}

/* ---- the same calls on the threads' communicator */

enum { TP = 4 };
struct sums {
    int n;
    float x[TP][MAX_N], all[TP][TP][MAX_N], told[TP][MAX_N];
};

static void fill(struct sums *s, int n, bool whole)
{
    s->n = n;
    for (int r = 0; r < TP; r++)
        for (int i = 0; i < n; i++) {
            float v = value(r, n, i);
            s->x[r][i] = s->told[r][i] = whole ? (float)(int)(v * 1000) : v;
        }
}

static int call_all(struct comm *c, struct sums *s, struct err *e)
{
    int r = c->rank;
    int st = comm_allgather(c, s->x[r], (size_t)s->n * 4, s->all[r], e);
    if (st == ST_OK) st = comm_broadcast(c, 2, s->told[r], (size_t)s->n * 4, e);
    return st == ST_OK ? comm_allreduce(c, s->x[r], (size_t)s->n, e) : st;
}

static void call_on_thread(struct nccl_job *j)
{
    j->st = call_all(comm_thread_tp(j->t, j->rank), j->arg, &j->e);
}

static void compare_sums(const struct sums *got, const struct sums *want, bool whole)
{
    long wrong = 0;
    for (int r = 0; r < TP; r++)
        for (int i = 0; i < got->n; i++) {
            float d = got->x[r][i] - want->x[r][i];
            wrong += whole ? d != 0 : d > 1e-6F || d < -1e-6F;
            wrong += got->x[r][i] != got->x[0][i]; /* all ranks have the same bits */
        }
    CHECK_INT(wrong, 0);
    CHECK(memcmp(got->all, want->all, sizeof got->all) == 0);
    CHECK(memcmp(got->told, want->told, sizeof got->told) == 0);
}

TEST(nccl_calls_give_what_threads_get)
{
    static const int length[] = { 1, 7, 64, MAX_N };
    static struct sums got, want;
    for (int k = 0; k < 8; k++) {
        struct nccl_job job[TP];
        struct world w;
        bool whole = k % 2;
        memset(&got, 0, sizeof got);
        fill(&got, length[k / 2], whole);
        want = got;
        struct comm_thread *t = comm_thread_open(TP, 1, 50, NULL);
        nccl_job_run(t, TP, call_on_thread, &want, job);
        comm_thread_close(t);
        start_all(&w, TP, 1, (uint64_t)k);
        for (int r = 0; r < TP; r++) {
            struct comm *c = comm_nccl_tp(w.rank[r]);
            CHECK(c->on_device && c->n == TP && c->rank == r);
            CHECK_INT(call_all(c, &got, NULL), ST_OK);
            CHECK_INT(c->count[COMM_ALLREDUCE].bytes, got.n * 4);
        }
        for (int r = 0; r < TP; r++) CHECK_INT(comm_wait(comm_nccl_tp(w.rank[r]), NULL), ST_OK);
        compare_sums(&got, &want, whole);
        stop_all(&w);
    }
}

/* ---- a pipeline */

enum { PIPE_TP = 2, PIPE_PP = 3, PIPE_N = PIPE_TP * PIPE_PP };

struct work { /* what one kernel of one rank does in one step */
    struct pipe *p;
    int rank, step;
};

struct pipe {
    float x[PIPE_N][MAX_N];           /* one buffer per rank for all steps, as in the model */
    float out[PIPE_TP][STEPS][MAX_N]; /* of the last stage */
    struct work work[PIPE_N][STEPS];
};

static int length_of(int step)
{
    return 20 + step * 37 % (MAX_N - 20);
}

static void before_sum(void *arg)
{
    const struct work *k = arg;
    float *x = k->p->x[k->rank];
    for (int i = 0; i < length_of(k->step); i++)
        x[i] = (k->rank < PIPE_TP ? value(k->rank, k->step, i) : x[i]) *
               (1 + 0.25F * (float)(k->rank % PIPE_TP));
}

static void after_sum(void *arg)
{
    const struct work *k = arg;
    float *x = k->p->x[k->rank];
    for (int i = 0; i < length_of(k->step); i++) x[i] = x[i] * 0.5F + 0.125F;
    if (k->rank >= PIPE_N - PIPE_TP)
        memcpy(k->p->out[k->rank % PIPE_TP][k->step], x, (size_t)length_of(k->step) * sizeof *x);
}

/* On a device kernels are issued, else called. */
static void compute(const struct comm *pipe, void (*fn)(void *), struct work *k)
{
    if (pipe->on_device)
        nccl_fake_kernel(k->rank, fn, k, NULL);
    else
        fn(k);
}

static int one_step(struct comm *tp, struct comm *pipe, struct work *k, struct err *e)
{
    int st = ST_OK, n = length_of(k->step);
    float *x = k->p->x[k->rank];
    size_t bytes = (size_t)n * sizeof *x;
    if (k->rank >= PIPE_TP) st = comm_recv(pipe, k->rank - PIPE_TP, x, &bytes, e);
    compute(pipe, before_sum, k);
    if (st == ST_OK) st = comm_allreduce(tp, x, (size_t)n, e);
    compute(pipe, after_sum, k);
    if (st == ST_OK && k->rank < PIPE_N - PIPE_TP)
        st = comm_send(pipe, k->rank + PIPE_TP, x, bytes, e);
    return st;
}

static struct pipe *pipe_new(void)
{
    struct pipe *p = mem_zalloc(1, sizeof *p);
    for (int r = 0; r < PIPE_N; r++)
        for (int k = 0; k < STEPS; k++) p->work[r][k] = (struct work){ p, r, k };
    return p;
}

static void steps_on_thread(struct nccl_job *j)
{
    struct pipe *p = j->arg;
    for (int k = 0; k < STEPS && j->st == ST_OK; k++)
        j->st = one_step(comm_thread_tp(j->t, j->rank), comm_thread_world(j->t, j->rank),
                         &p->work[j->rank][k], &j->e);
}

static struct pipe *expected(void)
{
    struct nccl_job job[PIPE_N];
    struct pipe *p = pipe_new();
    struct comm_thread *t = comm_thread_open(PIPE_TP, PIPE_PP, 50, NULL);
    for (int r = PIPE_TP; r < PIPE_N; r++) comm_thread_reserve(t, r - PIPE_TP, r, MESSAGE);
    nccl_job_run(t, PIPE_N, steps_on_thread, p, job);
    for (int r = 0; r < PIPE_N; r++) CHECK_INT(job[r].st, ST_OK);
    comm_thread_close(t);
    return p;
}

/* All steps are issued before any runs. */
static void issue_all(struct world *w, struct pipe *p)
{
    for (int k = 0; k < STEPS; k++)
        for (int r = 0; r < PIPE_N; r++) {
            nccl_fake_use(r);
            CHECK_INT(one_step(comm_nccl_tp(w->rank[r]), comm_nccl_pipe(w->rank[r]), &p->work[r][k],
                               NULL),
                      ST_OK);
        }
}

TEST(nccl_pipeline_of_stages_is_that_of_threads_in_any_order_of_streams)
{
    struct pipe *want = expected();
    for (uint64_t seed = 0; seed < 24; seed++) {
        struct pipe *got = pipe_new();
        struct world w;
        start_all(&w, PIPE_TP, PIPE_PP, seed);
        nccl_fake.order = (enum nccl_fake_order)(seed % NCCL_FAKE_N_ORDER);
        issue_all(&w, got);
        CHECK_INT(nccl_fake.queries, 0); /* nothing waits on the host */
        CHECK(nccl_fake_run());
        CHECK(memcmp(got->out, want->out, sizeof got->out) == 0);
        for (int r = 0; r < PIPE_N; r++) CHECK_INT(comm_nccl_wait(w.rank[r], NULL), ST_OK);
        stop_all(&w);
        free(got);
    }
    free(want);
}

/* That the test before would see a wait that is missing. */
TEST(nccl_pipeline_without_waits_between_streams_is_wrong)
{
    struct pipe *want = expected();
    for (int order = 0; order < NCCL_FAKE_N_ORDER; order++) {
        struct pipe *got = pipe_new();
        struct world w;
        start_all(&w, PIPE_TP, PIPE_PP, 3);
        nccl_fake.order = (enum nccl_fake_order)order;
        nccl_fake.no_waits = true;
        issue_all(&w, got);
        nccl_fake_run();
        CHECK(memcmp(got->out, want->out, sizeof got->out) != 0);
        stop_all(&w);
        free(got);
    }
    free(want);
}

static void nothing(void *arg)
{
    (void)arg;
}

/* Stage 1 computes for ever, its next two steps issued behind that; their messages arrive meanwhile.
 * Stage 0 goes on, and the third message waits for a room, on the device. */
TEST(nccl_messages_travel_while_both_sides_compute)
{
    static float x[3][16], y[3][16], z[16];
    const size_t bytes = sizeof *x;
    size_t got = bytes;
    bool gate = false;
    struct world w;
    start_all(&w, 1, 3, 5);
    for (int i = 0; i < 16; i++) x[0][i] = x[1][i] = x[2][i] = (float)i;
    nccl_fake_use(1);
    nccl_fake_kernel(1, nothing, NULL, &gate); /* a step under way, which uses y[0] */
    for (int k = 0; k < 2; k++)
        CHECK_INT(comm_recv(comm_nccl_pipe(w.rank[1]), 0, y[k], &got, NULL), ST_OK);
    nccl_fake_use(0);
    for (int k = 0; k < 3; k++)
        CHECK_INT(comm_send(comm_nccl_pipe(w.rank[0]), 1, x[k], bytes, NULL), ST_OK);
    CHECK(!nccl_fake_run());
    CHECK(nccl_fake_idle(1, true)); /* two have arrived; the step does not know */
    CHECK(!nccl_fake_idle(1, false));
    CHECK(nccl_fake_idle(0, false)); /* all copies made: two rooms were free again */
    for (int k = 0; k < 3; k++) {
        if (k == 2) CHECK_INT(comm_recv(comm_nccl_pipe(w.rank[1]), 0, y[k], &got, NULL), ST_OK);
        CHECK_INT(comm_send(comm_nccl_pipe(w.rank[1]), 2, y[k], bytes, NULL), ST_OK);
        CHECK_INT(comm_recv(comm_nccl_pipe(w.rank[2]), 1, z, &got, NULL), ST_OK);
    }
    gate = true;
    CHECK(nccl_fake_run());
    CHECK(memcmp(x, y, sizeof x) == 0 && memcmp(z, x[2], sizeof z) == 0);
    CHECK_INT(comm_wait(comm_nccl_pipe(w.rank[2]), NULL), ST_OK);
    stop_all(&w);
    CHECK_INT(nccl_fake.aborts, 0);
}

/* Stage 1 computes for ever; the messages of its next two steps arrive, before any recv takes them and
 * however the streams take turns. */
TEST(nccl_messages_that_are_expected_come_while_a_step_computes)
{
    static float x[4][16], y[16];
    for (int order = 0; order < NCCL_FAKE_N_ORDER; order++) {
        size_t bytes = sizeof *x, less = 8;
        struct err e = { 0 };
        int64_t n = -1;
        bool gate = false;
        struct world w;
        start_all(&w, 1, 2, 5);
        nccl_fake.order = (enum nccl_fake_order)order;
        struct comm *out = comm_nccl_pipe(w.rank[0]), *in = comm_nccl_pipe(w.rank[1]);
        for (int i = 0; i < 64; i++) x[i / 16][i % 16] = (float)(i + 1);
        nccl_fake_use(1);
        CHECK_INT(comm_recv(in, 0, y, &bytes, NULL), ST_OK);
        nccl_fake_kernel(1, nothing, NULL, &gate);
        CHECK_INT(comm_mark(in, NULL), ST_OK);
        for (int k = 0; k < 2; k++) CHECK_INT(comm_expect(in, 0, bytes, NULL), ST_OK);
        CHECK_INT(comm_expect(in, 0, bytes, NULL), ST_DEVICE); /* two rooms */
        nccl_fake_use(0);
        for (int k = 0; k < 3; k++) CHECK_INT(comm_send(out, 1, x[k], bytes, NULL), ST_OK);
        CHECK(!nccl_fake_run());
        CHECK(nccl_fake_idle(0, true) &&
              nccl_fake_idle(1, true)); /* sent and received, all three */
        CHECK(memcmp(y, x[0], bytes) == 0);
        CHECK_INT(comm_passed(in, &n, NULL), ST_OK);
        CHECK_INT(n, 0);
        nccl_fake_use(1);
        CHECK_INT(comm_recv(in, 0, y, &less, &e), ST_DEVICE);
        CHECK_HAS(e.text, "rank 1 takes a message of 8 bytes, expected were 64");
        gate = true;
        for (int k = 1; k < 3; k++) {
            CHECK_INT(comm_recv(in, 0, y, &bytes, NULL), ST_OK);
            CHECK(nccl_fake_run());
            CHECK(memcmp(y, x[k], bytes) == 0);
        }
        CHECK_INT(comm_send(out, 1, x[3], bytes, NULL), ST_OK);
        CHECK_INT(comm_recv(in, 0, y, &bytes, NULL), ST_OK); /* that nobody expected */
        CHECK(nccl_fake_run());
        CHECK(memcmp(y, x[3], bytes) == 0);
        CHECK_INT(comm_passed(in, &n, NULL), ST_OK);
        CHECK_INT(n, 1);
        stop_all(&w);
    }
}

TEST(nccl_first_calls_that_go_on_in_the_background_are_waited_for)
{
    float x[2][4] = { { 1, 2, 3, 4 }, { 5, 6, 7, 8 } };
    struct world w;
    start_all(&w, 2, 1, 5);
    nccl_fake.busy_polls = 7;
    for (int k = 0; k < 2; k++)
        for (int r = 0; r < 2; r++)
            CHECK_INT(comm_allreduce(comm_nccl_tp(w.rank[r]), x[r], 4, NULL), ST_OK);
    CHECK(nccl_fake_run());
    CHECK(x[0][0] == 12 && x[1][3] == 24);
    stop_all(&w);
}

TEST(nccl_refuses_what_does_not_fit)
{
    char data[8] = { 0 };
    size_t room = 8, more = MESSAGE + 1;
    struct err e = { 0 };
    struct world w;
    start_all(&w, 2, 2, 1);
    struct comm *p = comm_nccl_pipe(w.rank[0]), *q = comm_nccl_pipe(w.rank[2]);
    CHECK_INT(comm_send(p, 2, data, MESSAGE + 1, NULL), ST_DEVICE);
    CHECK_INT(comm_send(p, 1, data, 8, NULL), ST_DEVICE);
    CHECK_INT(comm_send(q, 4, data, 8, NULL), ST_DEVICE);
    CHECK_INT(comm_recv(q, 1, data, &room, NULL), ST_DEVICE);
    CHECK_INT(comm_recv(p, -2, data, &room, NULL), ST_DEVICE); /* the first stage hears no one */
    CHECK_INT(comm_recv(q, 0, data, &more, &e), ST_DEVICE);
    CHECK_HAS(e.text, "rank 2 expects a message of");
    CHECK_INT(comm_barrier(comm_nccl_tp(w.rank[0]), NULL), ST_DEVICE);
    CHECK_INT(comm_allreduce(p, NULL, 1, NULL), ST_DEVICE);
    CHECK_INT(comm_send(comm_nccl_tp(w.rank[0]), 1, data, 8, NULL), ST_DEVICE);
    stop_all(&w);
}

/* ---- failure */

static int told(void *arg, struct err *e)
{
    return comm_thread_check(arg, e);
}

TEST(nccl_start_that_is_refused_says_where_and_why)
{
    struct err e = { 0 };
    struct world w;
    struct comm_thread *t = comm_thread_open(2, 1, 0, NULL);
    prepare(&w, 2, 1, 0);
    nccl_fake.init_result[1] = 2;
    nccl_fake.last_error = "Call to bind failed";
    w.o.world = comm_thread_world(t, 1);
    CHECK(!start(&w, 1));
    CHECK_HAS(w.e[1].text, "engine/comm_nccl.c:");
    CHECK_HAS(w.e[1].text,
              "rank 1: ncclCommInitRankConfig: unhandled system error; Call to bind failed");
    CHECK_INT(comm_thread_check(t, &e), ST_DEVICE); /* the others know */
    CHECK_HAS(e.text, "Call to bind failed");
    comm_thread_close(t);
    nccl_fake.no_memory = true;
    prepare(&w, 1, 2, 0);
    nccl_fake.no_memory = true;
    CHECK(!start(&w, 0));
    CHECK_HAS(w.e[0].text, "0 are free");
    w.n = 0;
    stop_all(&w);
}

TEST(nccl_a_rank_that_never_starts_is_named_within_30_s)
{
    for (int board = 0; board < 2; board++) {
        struct world w;
        prepare(&w, 4, 1, 0);
        if (!board) w.o.seen = NULL;
        for (int r = 0; r < 3; r++) CHECK(start(&w, r));
        int64_t t0 = nccl_fake.now_ns;
        CHECK_INT(comm_nccl_ready(w.rank[0], &w.e[0]), ST_DEVICE);
        CHECK((nccl_fake.now_ns - t0) / 1000000000 <= 30);
        CHECK_HAS(w.e[0].text, board ? "rank 3 has not come to the start of NCCL within 30 s"
                                     : "rank 0 cannot connect to one of ranks 0 to 3 by NCCL");
        CHECK_INT(nccl_fake.aborts, 1);
        stop_all(&w);
    }
}

static void step_of(struct world *w, int rank)
{
    static float x[NCCL_FAKE_RANKS][8];
    nccl_fake_use(rank);
    CHECK_INT(comm_allreduce(comm_nccl_tp(w->rank[rank]), x[rank], 8, NULL), ST_OK);
}

/* NCCL's abort waits until recordings are freed, which the rank does when its step has failed: the
 * step must end all the same. */
TEST(nccl_a_failure_ends_a_step_whose_calls_were_recorded)
{
    struct err e = { 0 };
    struct world w;
    start_all(&w, 2, 2, 3);
    nccl_fake.recorded = true;
    nccl_fake.async_result[0] = 5;
    CHECK_INT(comm_nccl_check(w.rank[0], &e), ST_DEVICE);
    CHECK_HAS(e.text, "invalid usage");
    CHECK_INT(nccl_fake.aborts, 0);
    nccl_fake_forget();
    nccl_fake_use(0);
    comm_nccl_close(w.rank[0]);
    w.rank[0] = NULL;
    CHECK_INT(nccl_fake.aborts, 2); /* of its stage, of the next one */
    for (int r = 1; r < w.n; r++) comm_fail(comm_nccl_tp(w.rank[r]), "rank 0 is gone");
    stop_all(&w);
}

/* Rank 0 waits in a sum for rank 2, which never enters the step, or entered it and fell silent. */
TEST(nccl_a_rank_that_hangs_is_named_within_30_s)
{
    for (int how = 0; how < 3; how++) {
        struct world w;
        struct comm_thread *t = comm_thread_open(3, 1, 0, NULL);
        prepare(&w, 3, 1, 0);
        if (how == 2) w.o.seen = NULL;
        for (int r = 0; r < 3; r++) {
            w.o.world = comm_thread_world(t, r);
            CHECK(start(&w, r));
        }
        for (int r = 0; r < 3; r++) CHECK_INT(comm_nccl_ready(w.rank[r], NULL), ST_OK);
        step_of(&w, 1);
        step_of(&w, 0);
        if (how == 1) atomic_store(&w.seen[2], nccl_fake.now_ns);
        if (how < 2) atomic_store(&w.seen[1], nccl_fake.now_ns + INT64_C(15000000000)); /* alive */
        int64_t t0 = nccl_fake.now_ns;
        CHECK_INT(comm_nccl_wait(w.rank[0], &w.e[0]), ST_DEVICE);
        CHECK((nccl_fake.now_ns - t0) / 1000000000 < 30);
        CHECK_HAS(w.e[0].text, how == 0   ? "rank 2 has not come to the step that rank 0"
                               : how == 1 ? "rank 2 hangs: it fell silent 20 s ago"
                                          : "rank 0 has waited 20 s for the ranks of its stage: "
                                            "one of ranks 0 to 2 hangs");
        CHECK_INT(comm_thread_check(t, NULL), ST_DEVICE);
        CHECK_INT(comm_nccl_check(w.rank[0], NULL), ST_DEVICE); /* and it stays so */
        CHECK_INT(comm_allreduce(comm_nccl_tp(w.rank[0]), NULL, 1, NULL), ST_DEVICE);
        nccl_fake_run();
        CHECK(nccl_fake_idle(0, false)); /* its device is free */
        stop_all(&w);
        comm_thread_close(t);
    }
}

/* Looks at marks, and the device's own waits, find out as a wait does. */
TEST(nccl_a_rank_that_hangs_is_named_by_who_looks_at_marks)
{
    for (int how = 0; how < 2; how++) {
        int64_t n = 0;
        struct world w;
        start_all(&w, 2, 1, 0);
        struct comm *c = comm_nccl_tp(w.rank[0]);
        CHECK_INT(comm_mark(c, NULL), ST_OK);
        step_of(&w, 0);
        CHECK_INT(comm_mark(c, NULL), ST_OK);
        int64_t t0 = nccl_fake.now_ns, t = t0;
        int st = ST_OK;
        for (; st == ST_OK && t - t0 < INT64_C(60000000000); t = nccl_fake.now_ns) {
            st = how ? nccl_fake_ask(0, t - t0, &w.e[0]) : comm_passed(c, &n, &w.e[0]);
            nccl_fake_clock.nap(NULL, 1000000);
        }
        CHECK_INT(st, ST_DEVICE);
        CHECK((t - t0) / 1000000000 < 30);
        CHECK_HAS(w.e[0].text,
                  "rank 1 has not come to the step that rank 0 has waited in for 20 s");
        CHECK_INT(how ? 1 : n, 1); /* the first mark was passed */
        CHECK_INT(comm_mark(c, NULL), ST_DEVICE);
        CHECK_INT(comm_passed(c, &n, NULL), ST_DEVICE);
        CHECK_INT(nccl_fake_ask(0, 0, NULL), ST_DEVICE);
        nccl_fake_run();
        CHECK(nccl_fake_idle(0, false)); /* its device is free */
        comm_nccl_close(w.rank[0]);
        w.rank[0] = NULL;
        CHECK_INT(nccl_fake_ask(0, 0, NULL), -1);
        stop_all(&w);
    }
}

TEST(nccl_marks_are_passed_in_order)
{
    int64_t n;
    bool gate = false;
    struct world w;
    start_all(&w, 1, 2, 2);
    struct comm *c = comm_nccl_pipe(w.rank[0]);
    for (int round = 0; round < 3; round++) {
        gate = false;
        for (int i = 0; i < COMM_MARKS; i++) {
            if (i == 5) nccl_fake_kernel(0, nothing, NULL, &gate);
            CHECK_INT(comm_mark(c, NULL), ST_OK);
        }
        CHECK_INT(comm_mark(c, &w.e[0]), ST_DEVICE);
        CHECK_HAS(w.e[0].text, "marks on its queue and looks at none");
        nccl_fake_run();
        CHECK_INT(comm_passed(c, &n, NULL), ST_OK);
        CHECK_INT(n, round * COMM_MARKS + 5);
        gate = true;
        nccl_fake_run();
        CHECK_INT(comm_passed(comm_nccl_tp(w.rank[0]), &n, NULL), ST_OK); /* any end of the rank */
        CHECK_INT(n, (round + 1) * COMM_MARKS);
    }
    stop_all(&w);
}

/* Whose failure is known does not end connections in good order: others would not come to that. */
TEST(nccl_that_closes_after_a_failure_aborts)
{
    struct world w;
    struct comm_thread *t = comm_thread_open(2, 1, 0, NULL);
    prepare(&w, 2, 1, 0);
    w.o.alive = told;
    w.o.alive_arg = t;
    for (int r = 0; r < 2; r++) CHECK(start(&w, r));
    for (int r = 0; r < 2; r++) CHECK_INT(comm_nccl_ready(w.rank[r], NULL), ST_OK);
    step_of(&w, 0);
    comm_fail(comm_thread_world(t, 1), "a file cannot be read");
    stop_all(&w);
    CHECK_INT(nccl_fake.aborts, 2);
    CHECK_INT(nccl_fake.destroyed, 0);
    comm_thread_close(t);
}

TEST(nccl_a_stage_that_hangs_is_named_by_its_neighbours)
{
    float x[4] = { 0 };
    size_t bytes = sizeof x;
    struct world w;
    start_all(&w, 1, 3, 0);
    for (int k = 0; k < 4; k++) /* stage 1 takes none of them */
        CHECK_INT(comm_send(comm_nccl_pipe(w.rank[0]), 1, x, bytes, NULL), ST_OK);
    CHECK_INT(comm_recv(comm_nccl_pipe(w.rank[2]), 1, x, &bytes, NULL), ST_OK);
    CHECK_INT(comm_nccl_wait(w.rank[2], &w.e[2]), ST_DEVICE);
    CHECK_HAS(w.e[2].text, "rank 1 has not come to the step that rank 2 has waited in");
    CHECK_INT(comm_nccl_wait(w.rank[0], &w.e[0]), ST_DEVICE);
    CHECK_HAS(w.e[0].text, "rank 1 has not come to the step that rank 0 has waited in");
    stop_all(&w);
}

TEST(nccl_a_device_that_hangs_is_not_blamed_on_others)
{
    bool gate = false;
    struct world w;
    start_all(&w, 1, 2, 0);
    nccl_fake_kernel(0, nothing, NULL, &gate);
    CHECK_INT(comm_nccl_wait(w.rank[0], &w.e[0]), ST_DEVICE);
    CHECK_HAS(w.e[0].text, "rank 0 has waited 20 s for its own device");
    stop_all(&w);
}

struct death {
    int64_t at_ns;
};

static int watch(void *arg, struct err *e)
{
    const struct death *d = arg;
    if (nccl_fake.now_ns < d->at_ns) return ST_OK;
    return err_set(e, ST_DEVICE, "rank 1: its process has ended");
}

/* The watch speaks at once, or half a second after NCCL has noticed. */
TEST(nccl_a_rank_whose_process_ended_is_named)
{
    for (int noticed = 0; noticed < 2; noticed++) {
        struct death d = { INT64_MAX };
        struct world w;
        prepare(&w, 2, 1, 0);
        w.o.alive = watch;
        w.o.alive_arg = &d;
        for (int r = 0; r < 2; r++) CHECK(start(&w, r));
        CHECK_INT(comm_nccl_ready(w.rank[0], NULL), ST_OK);
        step_of(&w, 0);
        int64_t t0 = nccl_fake.now_ns;
        d.at_ns = t0 + 500000000;
        if (noticed) nccl_fake.async_result[0] = NCCL_API_REMOTE;
        CHECK_INT(comm_nccl_wait(w.rank[0], &w.e[0]), ST_DEVICE);
        CHECK_TEXT(w.e[0].text, "rank 1: its process has ended");
        CHECK(nccl_fake.now_ns - t0 < 1000000000);
        nccl_fake.async_result[0] = 0;
        nccl_fake_run();
        CHECK(nccl_fake_idle(0, false));
        stop_all(&w);
    }
}

TEST(nccl_errors_of_calls_and_of_the_background_say_where)
{
    struct world w;
    float x[4];
    start_all(&w, 2, 1, 0);
    nccl_fake.call_result[0] = 5;
    CHECK_INT(comm_allreduce(comm_nccl_tp(w.rank[0]), x, 4, &w.e[0]), ST_DEVICE);
    CHECK_HAS(w.e[0].text, "rank 0: ncclAllReduce: invalid usage");
    CHECK_HAS(w.e[0].text, "engine/comm_nccl.c:");
    nccl_fake.async_result[1] = 2;
    nccl_fake.last_error = "Connection reset by peer";
    CHECK_INT(comm_nccl_check(w.rank[1], &w.e[1]), ST_DEVICE);
    CHECK_HAS(w.e[1].text, "rank 1: ncclCommGetAsyncError: unhandled system error; Connection");
    stop_all(&w);
    start_all(&w, 2, 1, 0);
    nccl_fake.cu_result = 700;
    CHECK_INT(comm_nccl_wait(w.rank[0], &w.e[0]), ST_DEVICE);
    CHECK_HAS(w.e[0].text, "rank 0: cuEventRecord: an illegal memory access was encountered (700)");
    stop_all(&w);
}

/* A failure of the rank itself is told to the others, whose waits end. */
TEST(nccl_a_failing_rank_tells_the_others)
{
    struct world w;
    struct comm_thread *t = comm_thread_open(2, 1, 0, NULL);
    prepare(&w, 2, 1, 0);
    w.o.alive = told;
    w.o.alive_arg = t;
    for (int r = 0; r < 2; r++) {
        w.o.world = comm_thread_world(t, r);
        CHECK(start(&w, r));
    }
    for (int r = 0; r < 2; r++) CHECK_INT(comm_nccl_ready(w.rank[r], NULL), ST_OK);
    step_of(&w, 0);
    comm_fail(comm_nccl_tp(w.rank[1]), "out of device memory");
    CHECK_INT(comm_nccl_wait(w.rank[0], &w.e[0]), ST_DEVICE);
    CHECK_TEXT(w.e[0].text, "rank 1: out of device memory");
    stop_all(&w);
    comm_thread_close(t);
}

/* ---- the library */

TEST(nccl_of_another_age_is_refused)
{
    static const struct {
        int code;
        const char *says; /* NULL: fine */
    } age[] = { { 2804, "NCCL 2.8.4 is too old" },
                { 21304, "NCCL 2.13.4 is too old" },
                { 21403, NULL },
                { 23007, NULL },
                { 30100, "NCCL 3.1.0 is too new" } };
    for (size_t i = 0; i < sizeof age / sizeof *age; i++) {
        struct err e = { 0 };
        struct nccl_id id[1];
        nccl_fake_open(0);
        nccl_fake.version = age[i].code;
        CHECK_INT(comm_nccl_make_ids(&nccl_fake_api, 2, 1, id, &e), age[i].says ? ST_USAGE : ST_OK);
        if (age[i].says) CHECK_HAS(e.text, age[i].says);
        nccl_fake_close();
    }
}

TEST(nccl_that_is_absent_or_something_else_is_a_sentence)
{
    struct nccl_api a;
    struct err e = { 0 }, f = { 0 };
    setenv("ORRERY_NCCL", test_path("libnccl.so.2"), 1);
    CHECK_INT(nccl_api_load(&a, &e), ST_USAGE);
    CHECK_HAS(e.text, "no NCCL here");
    CHECK_HAS(e.text, "ORRERY_NCCL=PATH");
    setenv("ORRERY_NCCL", "libm.so.6", 1);
    CHECK_INT(nccl_api_load(&a, &f), ST_USAGE);
    CHECK_HAS(f.text, "libm.so.6 is no NCCL of 2.14 or later: no ncclGetVersion");
}

TEST(nccl_of_this_machine_has_all_that_is_used)
{
    struct nccl_api a;
    struct err e = { 0 };
    int st = nccl_api_load(&a, &e);
    if (st != ST_OK && strstr(e.text, "no NCCL here")) SKIP("no NCCL");
    if (st != ST_OK && strstr(e.text, "no CUDA driver here")) {
        CHECK_INT(nccl_api_check(&a, NULL, NULL), ST_OK);
        SKIP("no CUDA driver");
    }
    CHECK_OK(st, &e);
}

TEST(nccl_is_told_when_ranks_share_a_device)
{
    struct err e = { 0 };
    struct world w;
    prepare(&w, 2, 1, 0);
    w.o.shares_device = true;
    w.o.threads = true;
    CHECK(!start(&w, 1));
    CHECK_HAS(w.e[1].text, "must be processes");
    w.o.threads = false;
    CHECK(start(&w, 1));
    CHECK_TEXT(getenv("NCCL_HOSTID"), "orrery-rank-1");
    CHECK(!getenv("NCCL_MULTI_RANK_GPU_ENABLE"));
    nccl_fake.version = 23007;
    w.o.threads = true;
    CHECK(start(&w, 0));
    CHECK_TEXT(getenv("NCCL_MULTI_RANK_GPU_ENABLE"), "1");
    (void)e;
    stop_all(&w);
}
