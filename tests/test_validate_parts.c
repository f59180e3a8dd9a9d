/* tests/test_validate_parts.c - where a step's time goes, predicted and measured: by hand-made files whose
 * times are known. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/validate.h"
#include "tests/made_run.h"
#include "tests/test.h"

static const char *file(const char *name)
{
    char full[200];
    snprintf(full, sizeof full, "%s.h5", name);
    return test_path(full);
}

static void put_rate(run *r, struct err *e)
{
    struct ci c = { NAN, 1, NAN };
    run_put_summary(r, "output_per_s", &c, 1, "mean", "ns", "by hand", e);
}

enum { STEPS = 10 };

/* Monitor rows of TP2-PP2 in two replicas: rank 0 schedules, rank 2 samples. In us: compute 100, 120 of
 * stage 0, 200, 220 of stage 1; all-reduce 30, of which 10 or 0 waiting; hand-over 4; sampling 6;
 * scheduling 9; and 50 of waiting for the stage in front. Of compute, GEMM 60, 80 and 140, 150, attention
 * 20; in the last step of the window not kept, where `kept` is false. */
static bool make_monitored(const char *path, bool kept)
{
    struct err e = { 0 };
    run *r = run_create(path, &e);
    if (!r) return false;
    struct run_request q = { .n_in = 1, .n_out = 1, .session = -1 };
    made_origin(r, "made by hand", NULL, &e);
    run_put_request(r, &q, &e);
    for (int64_t i = 0; i < 8 * (STEPS + 2); i++) {
        int rank = (int)(i % 8), at = rank % 4, stage = at / 2;
        int64_t t0 = 1000000 * (i / 8), compute = 100 + 100 * stage + 20 * (at % 2);
        int64_t wait = at % 2 ? 10 : 0, sampling = at == 2 ? 6 : 0;
        struct run_monitor row = { .t0_ns = t0,
                                   .t1_ns = t0 + 1000 * (compute + 30 + 4 + sampling),
                                   .compute_ns = 1000 * compute,
                                   .comm_ns = 1000 * (30 - wait + 4),
                                   .wait_ns = 1000 * (wait + (stage ? 50 : 0)),
                                   .host_ns = 1000 * (sampling + (at == 0 ? 9 : 0)),
                                   .gemm_ns = 1000 * (stage ? 140 + 10 * (at % 2) : 60 + 20 * at),
                                   .attn_ns = 20000,
                                   .step = i / 8,
                                   .rank = rank };
        if (!kept && i / 8 == STEPS) row.gemm_ns = row.attn_ns = -1;
        run_put_monitor(r, &row, &e);
    }
    put_rate(r, &e);
    h5_attr_i64(run_h5(r), "/summary", "tp", 2, &e);
    h5_attr_i64(run_h5(r), "/summary", "pp", 2, &e);
    h5_attr_i64(run_h5(r), "/summary", "window_begin_ns", 1000000, &e); /* all but the first step */
    h5_attr_i64(run_h5(r), "/summary", "window_end_ns", 1000000 * (STEPS + 1),
                &e); /* and the last */
    if (e.status != ST_OK) run_abort(r);
    return e.status == ST_OK && run_commit(r, &e) == ST_OK;
}

/* Two stages, two replicas: busy 0.3 and 0.5 of 1 s; a fifth of what operators take is hops, in which
 * nobody is busy. */
static bool make_predicted(const char *path)
{
    struct err e = { 0 };
    const double busy[2] = { .3, .5 }, share[6] = { .4, .1, .16, .2, .04, .1 };
    const double index[6] = { 0, 1, 2, 3, 4, 5 }, *scale[1] = { index };
    const char *const unit[1] = { "1" }, *const dim[2] = { "stage", "operator_class" };
    const size_t n[2] = { 2, 6 };
    run *r = run_create(path, &e);
    if (!r) return false;
    struct run_request q = { .n_in = 1, .n_out = 1, .session = -1 };
    made_origin(r, "made by hand", NULL, &e);
    run_put_request(r, &q, &e);
    for (int i = 0; i < 4; i++) { /* two of them in the window */
        struct run_step s = { .t0_ns = 500000000 * (int64_t)i, .n_step = 100 };
        run_put_step(r, &s, &e);
    }
    put_rate(r, &e);
    h5 *f = run_h5(r);
    h5_array(f, "/summary/stage_busy", 1, n, dim, scale, unit, busy, "1", "busy", &e);
    h5_array(f, "/summary/time_share", 1, n + 1, dim + 1, scale, unit, share, "1", "share", &e);
    h5_attr_i64(f, "/summary", "dp", 2, &e);
    h5_attr_i64(f, "/summary", "window_begin_ns", 500000000, &e);
    h5_attr_i64(f, "/summary", "window_end_ns", 1500000000, &e);
    if (e.status != ST_OK) run_abort(r);
    return e.status == ST_OK && run_commit(r, &e) == ST_OK;
}

TEST(validate_parts_of_a_step_known)
{
    struct arena a;
    struct validate_run m, p;
    struct err e = { 0 };
    arena_init(&a);
    CHECK(make_monitored(file("m"), true));
    CHECK(make_predicted(file("p")));
    CHECK_OK(validate_read(file("m"), &a, &m, &e), &e);
    CHECK_OK(validate_read(file("p"), &a, &p, &e), &e);
    CHECK_NEAR(m.part_s[0], 1e-6 * (110 + 210 + 6), 1e-12); /* mean of the ranks, sum of stages */
    CHECK_NEAR(m.part_s[1], 1e-6 * (34 + 34), 1e-12);       /* waiting there, not in front */
    CHECK_NEAR(m.part_s[2], 1e-6 * 9, 1e-12);
    /* 0.8 s of two replicas each, over 200 steps, all of it but the hops */
    CHECK_NEAR(p.part_s[0], .6 / .8 * 1.6 / 200, 1e-12);
    CHECK_NEAR(p.part_s[1], .16 / .8 * 1.6 / 200, 1e-12);
    CHECK_NEAR(p.part_s[2], .04 / .8 * 1.6 / 200, 1e-12);
    CHECK_NEAR(p.part_s[0] + p.part_s[1] + p.part_s[2], 1.6 / 200, 1e-12);
    CHECK_NEAR(m.op_s[0], 1e-6 * (70 + 145), 1e-12);
    CHECK_NEAR(m.op_s[1], 1e-6 * 40, 1e-12);
    CHECK_NEAR(m.op_s[2], 1e-6 * (110 - 90 + 210 - 165 + 6), 1e-12); /* sampling among it */
    CHECK_NEAR(p.op_s[0], .4 / .8 * 1.6 / 200, 1e-12);
    CHECK_NEAR(p.op_s[1], .1 / .8 * 1.6 / 200, 1e-12);
    CHECK_NEAR(p.op_s[2], .1 / .8 * 1.6 / 200, 1e-12);
    arena_release(&a);
}

/* 4, 1, 1, 1.6 and 0.4 ms against 215, 40, 71, 68 and 9 us. */
TEST(validate_residual_by_operator_known)
{
    static const char *const name[] = { "GEMM", "attention", "other", "communication", "host" };
    static const double us[] = { 4000 - 215, 1000 - 40, 1000 - 71, 1600 - 68, 400 - 9 };
    struct validate_residual r[VALIDATE_N_RESIDUAL];
    struct err e = { 0 };
    for (int kept = 1; kept >= 0; kept--) {
        struct arena a;
        struct validate_run m[2];
        arena_init(&a);
        CHECK(make_monitored(file("m"), true) && make_monitored(file("m2"), kept));
        CHECK(make_predicted(file("p")));
        struct validate_case c = { .name = "x", .group = "", .measured = m, .n_measured = 2 };
        struct validate v = {
            .arena = &a, .o = { .03, .03, .1, .1, .08, .05, 1 }, .c = &c, .n_case = 1
        };
        CHECK_OK(validate_read(file("p"), &a, &c.predicted, &e), &e);
        CHECK_OK(validate_read(file("m"), &a, &m[0], &e), &e);
        CHECK_OK(validate_read(file("m2"), &a, &m[1], &e), &e);
        validate_pair(&c, &a);
        validate_compute(&v);
        int n = validate_residuals(&c, r);
        CHECK_INT(n, kept ? 5 : 3); /* one run without, and compute is not divided */
        for (int k = 0; k < 5 && kept; k++) {
            CHECK_TEXT(r[k].name, name[k]);
            CHECK_NEAR(r[k].predicted - r[k].measured, 1e-6 * us[k], 1e-9);
        }
        if (!kept) CHECK_TEXT(r[0].name, "compute");
        if (!kept) CHECK_NEAR(r[0].predicted - r[0].measured, 6e-3 - 326e-6, 1e-9);
        json_t *j = validate_json(&v), *one = json_array_get(json_object_get(j, "cases"), 0);
        json_t *res = json_object_get(one, "residual_s");
        CHECK_INT(json_object_size(res), (size_t)n);
        CHECK_NEAR(json_real_value(json_object_get(res, r[0].name)), r[0].predicted - r[0].measured,
                   1e-12);
        json_decref(j);
        char *text = NULL;
        size_t n_text = 0;
        FILE *f = open_memstream(&text, &n_text);
        if (f) validate_print(&v, f);
        if (f) fclose(f);
        CHECK_HAS(text, "Residual by operator");
        CHECK((strstr(text, "a run did not keep their time") != NULL) == !kept);
        free(text);
        c.refused = "no";
        CHECK_INT(validate_residuals(&c, r), 0);
        arena_release(&a);
    }
}
