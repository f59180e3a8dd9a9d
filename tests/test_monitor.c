/* tests/test_monitor.c - the monitor's sums against steps whose times are known.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/monitor.h"

#include <math.h>

#include "tests/test.h"

struct script {
    struct engine_rank_step rank[8];
    int64_t rows, spans, anomalies;
    struct run_monitor last[8];
    struct run_anomaly what[16];
    double class_ns[STEP_N_CLASS]; /* summed */
    int64_t classes;
    bool blind;
    int sees; /* ranks; 0: all */
};

static bool read_script(void *ctx, int64_t step, int rank, struct engine_rank_step *out)
{
    struct script *s = ctx;
    *out = s->rank[rank];
    out->t0_ns += 1000 * step;
    out->t1_ns += 1000 * step;
    return !s->blind && (s->sees == 0 || rank < s->sees);
}

static void on_row(void *ctx, const struct run_monitor *row)
{
    struct script *s = ctx;
    s->rows++;
    s->last[row->rank] = *row;
}

static void on_span(void *ctx, const struct run_span *row)
{
    struct script *s = ctx;
    s->spans += row->t1_ns > row->t0_ns;
}

static void on_anomaly(void *ctx, const struct run_anomaly *row)
{
    struct script *s = ctx;
    if (s->anomalies < 16) s->what[s->anomalies] = *row;
    s->anomalies++;
}

static void on_classes(void *ctx, const double ns[STEP_N_CLASS])
{
    struct script *s = ctx;
    s->classes++;
    for (int c = 0; c < STEP_N_CLASS; c++) s->class_ns[c] += ns[c];
}

static void begin(struct monitor *m, struct script *s, int tp, int pp, struct arena *a)
{
    struct monitor_setup u = { .o = { .window = 10,
                                      .allreduce_ns = 50,
                                      .imbalance = .25,
                                      .straggler = 1.5,
                                      .memory = .95 },
                               .tp = tp,
                               .pp = pp,
                               .kv_blocks = 100,
                               .block_tok = 16,
                               .span_t1_ns = INT64_MAX,
                               .read = read_script,
                               .read_ctx = s,
                               .sink = { s, on_row, on_span, on_anomaly, on_classes } };
    arena_init(a);
    monitor_init(m, &u, a);
}

/* n steps, one every 1000 ns, 900 long, with 20 of host time before each. */
static void steps(struct monitor *m, int n, int64_t kv_used)
{
    for (int i = 0; i < n; i++) {
        struct serve_step s = { .index = i,
                                .t0_ns = 1000 * i + 20,
                                .t1_ns = 1000 * i + 920,
                                .host_ns = 20,
                                .kv_used_blocks = kv_used,
                                .kv_unfilled_tok = 4 * kv_used,
                                .queue = i % 3,
                                .running = 4 };
        monitor_step(m, &s);
    }
    monitor_end(m);
}

/* Two ranks of one stage: the fast one waits in the all-reduces for the slow one. */
TEST(monitor_divides_time_into_compute_communication_and_wait)
{
    struct script s = { 0 };
    struct monitor m;
    struct arena a;
    begin(&m, &s, 2, 1, &a);
    s.rank[0] = (struct engine_rank_step){ .t0_ns = 20,
                                           .t1_ns = 920,
                                           .allreduce_ns = 500,
                                           .n_allreduce = 4,
                                           .p2p_ns = 10,
                                           .sample_ns = 30 };
    s.rank[1] = (struct engine_rank_step){
        .t0_ns = 20, .t1_ns = 910, .allreduce_ns = 100, .n_allreduce = 4, .p2p_ns = 20
    };
    steps(&m, 25, 10);
    CHECK_INT(s.rows, 50);
    CHECK_INT(s.spans, 25);
    CHECK_INT(s.last[0].compute_ns, 900 - 500 - 10 - 30);
    CHECK_INT(s.last[0].comm_ns, 100 + 10);
    CHECK_INT(s.last[0].wait_ns, 400);
    CHECK_INT(s.last[0].host_ns, 20 + 30);
    CHECK_INT(s.last[0].allreduce_ns, 25);
    CHECK_INT(s.last[1].compute_ns, 890 - 100 - 20);
    CHECK_INT(s.last[1].comm_ns, 100 + 20);
    CHECK_INT(s.last[1].wait_ns, 0);
    CHECK_INT(s.last[1].host_ns, 0);
    CHECK_INT(s.last[1].kv_reserved_tok, 160);
    CHECK_INT(s.last[1].kv_used_tok, 120);
    CHECK_NEAR(monitor_step_s(&m), 920e-9, 1e-12);
    CHECK_NEAR(monitor_schedule_share(&m), 20. / 920, 1e-12);
    CHECK_NEAR(monitor_sample_share(&m), 30. / 920, 1e-12);
    CHECK_NEAR(monitor_allreduce_s(&m), 25e-9, 1e-12);
    CHECK_NEAR(monitor_balance(&m), (360. + 770) / 2 / 770, 1e-12);
    CHECK_NEAR(monitor_overlap(&m), 0, 0);
    CHECK_NEAR(monitor_kv_efficiency(&m), .75, 1e-12);
    CHECK_NEAR(monitor_queue_mean(&m), 24. / 25, 1e-12);
    CHECK_INT(m.queue_max, 2);
    arena_release(&a);
}

/* Three windows of which the last is short; rank 1 is slow: twice the median of the others. */
TEST(monitor_names_anomalies_by_window)
{
    struct script s = { 0 };
    struct monitor m;
    struct arena a;
    begin(&m, &s, 4, 1, &a);
    for (int i = 0; i < 4; i++)
        s.rank[i] = (struct engine_rank_step){
            .t0_ns = 20, .t1_ns = 920, .allreduce_ns = i == 1 ? 300 : 600, .n_allreduce = 4
        };
    steps(&m, 25, 97);
    CHECK_INT(s.anomalies, 12);
    CHECK_INT(m.seen[MONITOR_COMM].windows, 3);
    CHECK_NEAR(m.seen[MONITOR_COMM].worst, 75e-9, 1e-12);
    CHECK_INT(m.seen[MONITOR_COMM].rank, -1);
    CHECK_INT(m.seen[MONITOR_IMBALANCE].windows, 3);
    CHECK_NEAR(m.seen[MONITOR_IMBALANCE].worst, 600. / 375 - 1, 1e-12);
    CHECK_INT(m.seen[MONITOR_STRAGGLER].windows, 3);
    CHECK_NEAR(m.seen[MONITOR_STRAGGLER].worst, 2, 1e-12);
    CHECK_INT(m.seen[MONITOR_STRAGGLER].rank, 1);
    CHECK_NEAR(m.seen[MONITOR_MEMORY].worst, .97, 1e-12);
    CHECK_INT(s.what[4].t0_ns, 10020);
    CHECK_INT(s.what[4].t1_ns, 19920);
    static const double limit[] = { 50e-9, .25, 1.5, .95 };
    for (int i = 0; i < 12; i++) CHECK_NEAR(s.what[i].limit, limit[s.what[i].kind], 1e-12);
    for (int k = 0; k < MONITOR_N_KIND; k++)
        CHECK_NEAR(monitor_limit(&m, (enum monitor_kind)k), limit[k], 1e-12);
    arena_release(&a);
}

/* Two stages: a message sent at 400 while the receiver computes until 700 is hidden for 300 less
 * the sender's 10; of one that the receiver waits for nothing is. */
TEST(monitor_counts_communication_behind_computing_as_overlapped)
{
    struct script s = { 0 };
    struct monitor m;
    struct arena a;
    begin(&m, &s, 1, 2, &a);
    s.rank[0] = (struct engine_rank_step){ .t0_ns = 20, .t1_ns = 410, .p2p_ns = 10 };
    s.rank[1] = (struct engine_rank_step){ .t0_ns = 700, .t1_ns = 900 };
    steps(&m, 4, 10);
    CHECK_INT(m.hidden_ns, 4 * 290);
    CHECK_INT(m.exposed_ns, 4 * 10);
    CHECK_NEAR(monitor_overlap(&m), .967, .001);
    arena_release(&a);
    begin(&m, &s, 1, 2, &a);
    s.rank[1] = (struct engine_rank_step){ .t0_ns = 450, .t1_ns = 900, .recv_ns = 300 };
    steps(&m, 4, 10);
    CHECK_INT(m.hidden_ns, 0);
    CHECK_NEAR(monitor_overlap(&m), 0, 0);
    CHECK_INT(s.last[1].wait_ns, 300);
    arena_release(&a);
}

/* Only rank 0 of four is seen: its own time is known, nothing is compared, nothing is a message. */
TEST(monitor_compares_only_what_it_sees)
{
    struct script s = { .sees = 1 };
    struct monitor m;
    struct arena a;
    begin(&m, &s, 2, 2, &a);
    s.rank[0] = (struct engine_rank_step){
        .t0_ns = 20, .t1_ns = 920, .allreduce_ns = 80, .n_allreduce = 4
    };
    steps(&m, 25, 10);
    CHECK_INT(s.rows, 25);
    CHECK_INT(s.spans, 25);
    CHECK_INT(s.anomalies, 0);
    CHECK_INT(s.last[0].comm_ns, 80);
    CHECK_INT(m.rank[0].compute_ns, 25 * 820);
    CHECK_INT(m.rank[1].steps, 0);
    CHECK_INT(m.hidden_ns, 0);
    CHECK_NEAR(monitor_allreduce_s(&m), 20e-9, 1e-12);
    arena_release(&a);
}

/* Ranks in other processes: steps, queue and memory are still known; a lone rank has no peers. */
TEST(monitor_says_little_where_it_sees_little)
{
    struct script s = { .blind = true };
    struct monitor m;
    struct arena a;
    begin(&m, &s, 2, 2, &a);
    steps(&m, 25, 10);
    CHECK_INT(m.steps, 25);
    CHECK_INT(s.rows + s.spans + s.anomalies, 0);
    CHECK(isnan(monitor_allreduce_s(&m)) && isnan(monitor_overlap(&m)) &&
          isnan(monitor_balance(&m)));
    arena_release(&a);
    s.blind = false;
    begin(&m, &s, 1, 1, &a);
    s.rank[0] =
        (struct engine_rank_step){ .t0_ns = 20, .t1_ns = 920, .n_allreduce = 4, .allreduce_ns = 3 };
    steps(&m, 25, 10);
    CHECK_INT(m.allreduce_calls, 0);
    CHECK_INT(m.seen[MONITOR_IMBALANCE].windows + m.seen[MONITOR_STRAGGLER].windows, 0);
    CHECK_INT(s.last[0].compute_ns, 900);
    arena_release(&a);
    begin(&m, &s, 1, 1, &a);
    monitor_end(&m);
    CHECK(isnan(monitor_step_s(&m)) && isnan(monitor_kv_efficiency(&m)));
    arena_release(&a);
}

/* TP2-PP2. Stage 0: 390 and 380 long, calls 100 and 120, 10 of sending; taken by a stage 1 that was at work
 * until 450 and waited to 460. Stage 1: 400 and 390 long from there, 30 of sampling on its first rank. */
static void four_ranks(struct script *s)
{
    s->rank[0] = (struct engine_rank_step){ .t0_ns = 20,
                                            .t1_ns = 410,
                                            .allreduce_ns = 100,
                                            .n_allreduce = 4,
                                            .p2p_ns = 10,
                                            .operators = true,
                                            .gemm_ns = 150,
                                            .attn_ns = 50 };
    s->rank[1] = s->rank[0];
    s->rank[1].t1_ns = 400;
    s->rank[1].allreduce_ns = 120;
    s->rank[1].gemm_ns = 130;
    s->rank[2] = (struct engine_rank_step){ .t0_ns = 460,
                                            .t1_ns = 860,
                                            .recv_ns = 10,
                                            .allreduce_ns = 60,
                                            .n_allreduce = 4,
                                            .p2p_ns = 20,
                                            .sample_ns = 30,
                                            .operators = true,
                                            .gemm_ns = 200,
                                            .attn_ns = 40 };
    s->rank[3] = s->rank[2];
    s->rank[3].t1_ns = 850;
    s->rank[3].sample_ns = 0;
    s->rank[3].p2p_ns = 0;
    s->rank[3].gemm_ns = 220;
}

TEST(monitor_sums_operator_classes_over_stages)
{
    struct script s = { 0 };
    struct monitor m;
    struct arena a;
    begin(&m, &s, 2, 2, &a);
    four_ranks(&s);
    steps(&m, 25, 10);
    CHECK_INT(s.classes, 25);
    CHECK_NEAR(s.class_ns[STEP_GEMM], 25 * (140. + 210), 1e-12);
    CHECK_NEAR(s.class_ns[STEP_ATTN], 25 * (50. + 40), 1e-12);
    CHECK_NEAR(s.class_ns[STEP_COLL], 25 * (110. + 60 + 10), 1e-12);
    CHECK_NEAR(s.class_ns[STEP_HOST], 25 * 20., 1e-12);
    /* each message is 10 of the sender and 10 of the receiver; the 40 or 50 between are hidden */
    CHECK_NEAR(s.class_ns[STEP_P2P], 25 * 20., 1e-12);
    /* compute 280, 250 and 290, 330; sampling of one rank counts whole */
    CHECK_NEAR(s.class_ns[STEP_OTHER], 25 * (265. - 190 + 310 - 250 + 30), 1e-12);
    double busy = 0;
    for (int c = 0; c < STEP_N_CLASS; c++) busy += c == STEP_P2P ? 0 : s.class_ns[c];
    /* the stages' time, mean of their ranks, less the sending; sampling for half more; and host */
    CHECK_NEAR(busy, 25 * (385. - 10 + 395 + 15 + 20), 1e-12);
    CHECK_INT(s.last[1].gemm_ns, 130);
    CHECK_INT(m.rank[3].gemm_ns, 25 * 220);
    CHECK_INT(m.rank[3].op_steps, 25);
    arena_release(&a);
}

/* One rank without, such as one on a GPU, and the step's classes are not known; its row says so. */
TEST(monitor_has_no_classes_unless_all_ranks_keep_operators)
{
    struct script s = { 0 };
    struct monitor m;
    struct arena a;
    begin(&m, &s, 2, 2, &a);
    four_ranks(&s);
    s.rank[3].operators = false;
    steps(&m, 5, 10);
    CHECK_INT(s.classes, 0);
    CHECK_INT(s.last[3].gemm_ns, -1);
    CHECK_INT(s.last[3].attn_ns, -1);
    CHECK_INT(s.last[2].gemm_ns, 200);
    CHECK_INT(m.rank[3].op_steps, 0);
    arena_release(&a);
    s.sees = 3;
    begin(&m, &s, 2, 2, &a);
    four_ranks(&s);
    steps(&m, 5, 10);
    CHECK_INT(s.classes, 0);
    arena_release(&a);
}
