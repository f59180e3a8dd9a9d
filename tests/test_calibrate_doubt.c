/* tests/test_calibrate_doubt.c - calibration of measurements that are wrong, cut short, of another
 * machine, or asked for with options that do not concern them. SPDX-License-Identifier: Apache-2.0 */
#include "bench/calibrate.h"

#include <gsl/gsl_errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/rng.h"
#include "tests/cli.h"
#include "tests/test.h"

static const double PEAK = 60e9, RATE = 12e9;
static const struct law_gemm gemm_truth = { 2e-6, 0.8, 0.7, 2, 0, 60e9, 12e9 };

/* Products by the law, of which every wrong-th gave a wrong result in a hundredth of the time. */
struct made {
    const char *host, *complete, *processors;
    int wrong, runs, noisy;                 /* noisy: of ten samples so many */
    void (*more)(points *p, struct err *e); /* NULL: nothing */
};

static const char *make_bench(const char *name, const struct made *m)
{
    static const int64_t rows[] = { 1, 4, 16, 64, 256 };
    static const int64_t nk[][2] = { { 768, 256 },   { 256, 256 },   { 2048, 256 },  { 256, 1024 },
                                     { 32000, 256 }, { 3072, 1024 }, { 1024, 1024 }, { 128, 128 } };
    struct err e = { 0 };
    struct prov v;
    struct rng r = rng_stream(3, "doubt");
    uint64_t draw = 0;
    char word[] = "test", *argv[] = { word };
    const char *path = test_path(name);
    points *p = points_create(path, "synthetic", &e);
    if (!CHECK(p != NULL)) exit(1);
    for (int i = 0; i < 42; i++) {
        struct points_row x = {
            .op = POINTS_GEMM, .dtype = POINTS_F32, .threads = 1, .error = 1e-6
        };
        x.m = rows[i % 5];
        x.n = nk[i / 5 % 8][0];
        x.k = nk[i / 5 % 8][1];
        struct law_gemm_shape s = { (double)x.m, (double)x.n, (double)x.k, 4, 2, 2 };
        double t = law_gemm_s(&gemm_truth, &s);
        if (i >= 40) x = (struct points_row){ .op = POINTS_READ, .threads = 1, .error = -1 };
        if (i >= 40) t = 1;
        if (i == 40) x.bytes = RATE;
        if (i == 41) x.op = POINTS_FMA, x.dtype = POINTS_F32, x.flop = PEAK;
        if (m->wrong && (m->wrong == 1 || (i < 40 && i % m->wrong == 0))) {
            x.error = 0.9;
            t *= 0.01;
        }
        int at = points_add(p, &x, &e);
        for (int k = 0; k < m->runs && at >= 0; k++) {
            struct points_sample y = { .point = at, .run = k, .calls = 1 };
            y.s_per_call = t * exp(0.01 * rng_normal(r, draw++));
            y.noisy = (int)(draw % 10) < m->noisy;
            points_put(p, &y, &e);
        }
    }
    if (m->more) m->more(p, &e);
    if (m->complete) points_note(p, "complete", m->complete, &e);
    if (m->processors) points_note(p, "processors", m->processors, &e);
    if (m->processors) points_note(p, "memory_bytes", "123000000000", &e);
    prov_collect(&v, 1, argv);
    snprintf(v.cpu, sizeof v.cpu, "first processor");
    if (m->host) snprintf(v.host_sha, sizeof v.host_sha, "%s", m->host);
    if (!CHECK_INT(points_commit(p, &v, &e), ST_OK)) exit(1);
    prov_release(&v);
    return path;
}

#define calibrate(...) cli_run("", "calibrate " __VA_ARGS__)

TEST(calibrate_leaves_wrong_results_out)
{
    const char *path = make_bench("a.h5", &(struct made){ .wrong = 4, .runs = 3 });
    const char *profile = test_path("p.h5");
    CHECK_INT(calibrate("%s", path), 0);
    CHECK_HAS(cli_out, "a.h5: 10 points gave wrong results and are left out");
    CHECK_HAS(cli_out, "gemm f32: 30 points");
    CHECK_INT(calibrate("%s --json", path), 0);
    json_t *j = json_loads(cli_out, 0, NULL);
    json_t *f = json_array_get(json_object_get(j, "files"), 0);
    json_t *law = json_array_get(json_object_get(j, "laws"), 0);
    CHECK_INT(json_integer_value(json_object_get(f, "points_wrong")), 10);
    CHECK(json_is_true(json_object_get(f, "complete")));
    CHECK(json_real_value(json_object_get(json_object_get(law, "held_out"), "mape")) < 0.1);
    CHECK_HAS(json_string_value(json_object_get(j, "warnings")), "10 points gave wrong results");
    json_decref(j);
    path = make_bench("b.h5", &(struct made){ .wrong = 1, .runs = 3 });
    CHECK_INT(calibrate("%s --out=%s", path, profile), 4);
    CHECK_HAS(cli_err, "all of its 42 points gave wrong results");
    CHECK(access(profile, F_OK) != 0);
}

TEST(calibrate_tells_of_an_interrupted_benchmark)
{
    CHECK_INT(calibrate("%s", make_bench("a.h5", &(struct made){ .complete = "no", .runs = 1 })),
              0);
    CHECK_HAS(cli_out, "a.h5 is of an interrupted benchmark");
    CHECK_HAS(cli_out, "sites, their own spread - (one sample each)\n");
    CHECK_INT(calibrate("%s", make_bench("b.h5", &(struct made){ .complete = "yes", .runs = 2 })),
              0);
    CHECK(!strstr(cli_out, "WARNING"));
    CHECK(!strstr(cli_out, "one sample each"));
}

#define simulate(...)                                                                              \
    cli_run("", "simulate scenarios/smoke.yaml --model=llama-25m --strategy.weights=f32 "          \
                "--strategy.kv=f32 --policy.kv_blocks=2k --workload.requests=20 " __VA_ARGS__)

/* From the samples' marks to the prediction, its JSON, its run file's report. */
TEST_LIMIT(calibrate_noise_goes_with_the_profile, 60)
{
    char profile[200], run_path[200], page[200];
    snprintf(profile, sizeof profile, "%s", test_path("p.h5"));
    snprintf(run_path, sizeof run_path, "%s", test_path("run.h5"));
    snprintf(page, sizeof page, "%s", test_path("run.html"));
    for (int noisy = 0; noisy < 10; noisy += 3) { /* up to two in three are left out */
        bool bad = noisy > 6;
        const char *path = make_bench("bench.h5", &(struct made){ .runs = 10, .noisy = noisy });
        CHECK_INT(calibrate("%s --out=%s", path, profile), 0);
        CHECK((strstr(cli_out, "NOISY MACHINE: 90 % of the samples kept of") != NULL) == bad);
        CHECK(simulate("--hardware=%s --out=%s", profile, run_path) < 2); /* or the SLO is missed */
        CHECK((strstr(cli_out, "\nnoise       NOISY PROFILE: 90 % of the samples kept of ") !=
               NULL) == bad);
        CHECK((strstr(cli_out, "NOISY") != NULL) == bad);
        CHECK(simulate("--hardware=%s --sweep=workload.rate=1/s,2/s", profile) < 2);
        CHECK((strstr(cli_out, " NOISY PROFILE\n") != NULL) == bad);
        CHECK(simulate("--hardware=%s --out=%s", profile, run_path) < 2);
        /* processors, not one of so many GPUs */
        CHECK_HAS(cli_out, " on measured-machine (1 rank of 1 thread, ");
        CHECK_HAS(cli_out, "of each rank (the host has ");
        CHECK_HAS(cli_out, " a rank\n");
        CHECK(!strstr(cli_out, "GPU"));
        CHECK(simulate("--hardware=%s --json", profile) < 2);
        CHECK((strstr(cli_out, "\"profile_noise\": \"\"") == NULL) == bad);
        CHECK_HAS(cli_out, "\"profile_noise\": \"");
        CHECK_INT(cli_run("", "report %s --out=%s", run_path, page), 0);
        CHECK_INT(
            cli_shell("grep -q '<strong>Noisy profile:</strong> 90 %% of the samples' %s", page),
            bad ? 0 : 1);
    }
}

TEST(calibrate_refuses_points_of_two_machines)
{
    const char *a = make_bench("a.h5", &(struct made){ .host = "00000000aaaaaaaa", .runs = 3 });
    const char *b = make_bench("b.h5", &(struct made){ .host = "00000000bbbbbbbb", .runs = 3 });
    CHECK_INT(calibrate("%s %s", a, b), 2);
    CHECK_HAS(cli_err, "a.h5 was measured on host 00000000aaaaaaaa (first processor), ");
    CHECK_HAS(cli_err, "b.h5 on host 00000000bbbbbbbb (first processor): one profile is of one");
}

/* Memory and processors are those of the machine that was measured. */
TEST(calibrate_describes_the_measured_machine)
{
    static const struct made made[] = {
        { .host = "00000000aaaaaaaa", .processors = "96", .runs = 3 },
        { .host = "00000000aaaaaaaa", .runs = 3 },
        { .runs = 3 },
    };
    gsl_set_error_handler_off();
    for (int i = 0; i < 3; i++) {
        struct arena a;
        struct err e = { 0 };
        struct calibrate_opts o = { .seed = 1 };
        struct calibrate *c = mem_zalloc(1, sizeof *c);
        arena_init(&a);
        calibrate_init(c, &o, &a);
        CHECK_OK(calibrate_add(c, make_bench("a.h5", made + i), &e), &e);
        CHECK_OK(calibrate_fit(c, &e), &e);
        const struct hw *h = &c->profile.hw;
        int here = (int)sysconf(_SC_NPROCESSORS_ONLN);
        CHECK_INT(h->sys.host_cores, i == 0 ? 96 : i == 1 ? 0 : here);
        if (i == 0) CHECK_NEAR(h->gpu.mem_bytes, 123e9, 1e-12);
        CHECK(i == 1 ? h->sys.host_mem_bytes == 0 : h->sys.host_mem_bytes > 0);
        CHECK((i == 1) == (strstr(c->warned, "measured machine are unknown") != NULL));
        calibrate_release(c);
        arena_release(&a);
        free(c);
    }
}

TEST(calibrate_refuses_options_that_concern_nothing)
{
    const char *path = make_bench("a.h5", &(struct made){ .runs = 3 });
    CHECK_INT(calibrate("%s --comm=nccl", path), 2);
    CHECK_HAS(cli_err, "--comm=nccl: the files have no points of messages");
    struct err e = { 0 };
    struct prov v;
    char word[] = "test", *argv[] = { word }, links[200];
    snprintf(links, sizeof links, "%s", test_path("links.h5"));
    points *p = points_create(links, "synthetic", &e);
    for (int i = 0; i < 12; i++) {
        struct points_row r = {
            .op = POINTS_ALLREDUCE, .dtype = POINTS_F32, .comm = POINTS_NCCL, .ranks = 4, .error = 0
        };
        r.bytes = exp2(10 + i);
        points_put(p,
                   &(struct points_sample){ .point = points_add(p, &r, &e),
                                            .calls = 1,
                                            .s_per_call = 1e-5 + r.bytes / 1e11 },
                   &e);
    }
    points_note(p, "kind", "imported", &e);
    prov_collect(&v, 1, argv);
    CHECK_OK(points_commit(p, &v, &e), &e);
    prov_release(&v);
    CHECK_INT(calibrate("%s --tp=7", links), 2);
    CHECK_HAS(cli_err, "--tp=7: the files have no points of a model");
    CHECK_INT(calibrate("%s --comm=nccl", links), 0);
    /* another tool's messages: as large as it says, on a machine that is not this one */
    CHECK_HAS(cli_out, "covers    bytes 1024 .. 2.09715e+06");
    CHECK_HAS(cli_out, "a machine that the files do not name, 1 thread a rank");
    CHECK_HAS(cli_out, "no point tells the rates of arithmetic and memory");
    CHECK(!strstr(cli_out, "Efficiencies refer"));
}

/* ---- host.step */

static const double HOST_S = 11e-6, LEFT_S = 3e-3;

static void put_decode(points *p, struct err *e)
{
    static const struct law_attn_decode truth = { 2e-6, 0.6, 2e-8, 12e9, 0 };
    for (int64_t n = 1; n <= 64; n *= 2)
        for (int64_t ctx = 15; ctx < 1024; ctx = 4 * ctx + 3) {
            struct points_row r = { .op = POINTS_ATTN,
                                    .dtype = POINTS_F32,
                                    .threads = 1,
                                    .m = n,
                                    .n = 8,
                                    .k = 8,
                                    .seqs = n,
                                    .ctx = ctx,
                                    .ctx_max = ctx,
                                    .head_dim = 32,
                                    .error = -1 };
            double seqs = (double)n, sum = seqs * (double)(ctx + 1);
            points_put(p,
                       &(struct points_sample){
                           .point = points_add(p, &r, e),
                           .calls = 1,
                           .s_per_call = law_attn_decode_s(&truth, seqs, sum, 8, 8, 32, 4) },
                       e);
        }
}

/* Steps that take what the profile's laws say and LEFT_S more, and the host 11 us and a little by
 * sequence beside; erratic: or a tenth, or ten times that. */
static void put_run(const char *path, const struct deploy *d, bool erratic)
{
    struct err e = { 0 };
    struct prov v;
    struct rng r = rng_stream(7, "host");
    char word[] = "test", *argv[] = { word };
    run *o = run_create(path, &e);
    if (!CHECK(o != NULL)) exit(1);
    prov_collect(&v, 1, argv);
    snprintf(v.cpu, sizeof v.cpu, "first processor");
    CHECK_OK(prov_write(&v, run_h5(o), "orrery-run", "1.0.0", "test", &e), &e);
    prov_release(&v);
    h5_attr_text(run_h5(o), "/provenance", "kind", "measured", &e);
    h5_group(run_h5(o), "/scenario", "scenario", &e);
    h5_text(run_h5(o), "/scenario/yaml",
            "model: llama-25m\nhardware: h100-sxm\nstrategy: {weights: f32, kv: f32}\n", "", &e);
    int64_t now = 0;
    for (int i = 0; i < 300; i++) {
        struct step_cost cost;
        struct step_shape s = { .n_decode = 1 + i % 16,
                                .sum_ctx = (1 + i % 16) * (20 + i % 7 * 70) };
        s.n_logits = s.n_decode;
        step_cost(d->step, 0, &s, &cost);
        double fp = (double)(cost.total_fp - cost.class_fp[STEP_HOST]);
        double device = 1e-9 * fp / (double)((int64_t)1 << STEP_FP_BITS) + LEFT_S;
        double host = HOST_S + 5e-7 * (double)s.n_decode;
        if (erratic) host *= pow(10, 2 * rng_normal(r, (uint64_t)i));
        struct run_step row = { .t0_ns = now,
                                .t1_ns = now + (int64_t)(1e9 * device),
                                .n_step = 1,
                                .n_decode = (int32_t)s.n_decode,
                                .n_logits = (int32_t)s.n_logits,
                                .sum_ctx_tok = s.sum_ctx,
                                .host_ns = 1 + (int64_t)(1e9 * fmin(host, 1)) };
        now = row.t1_ns + row.host_ns;
        CHECK_OK(run_put_step(o, &row, &e), &e);
    }
    CHECK_OK(h5_group(run_h5(o), "/summary", "estimates", &e), &e);
    h5_attr_i64(run_h5(o), "/summary", "noise_disturbed", erratic, &e);
    CHECK_OK(run_commit(o, &e), &e);
}

/* What the laws leave out of the device's part is the common factor's: the host's constant is no
 * longer than the host was measured to take, and some for submitting. */
TEST(calibrate_bounds_the_hosts_time_by_what_was_measured)
{
    struct arena a;
    struct err e = { 0 };
    struct deploy d;
    char path[200], run_path[200], profile[200], word[] = "test", *argv[] = { word };
    arena_init(&a);
    gsl_set_error_handler_off();
    snprintf(path, sizeof path, "%s",
             make_bench("a.h5", &(struct made){ .runs = 1, .more = put_decode }));
    snprintf(run_path, sizeof run_path, "%s", test_path("run.h5"));
    snprintf(profile, sizeof profile, "%s", test_path("p.h5"));
    for (int i = 0; i < 3; i++) {
        struct calibrate_opts o = { .seed = 1, .out = profile };
        struct calibrate *c = mem_zalloc(1, sizeof *c);
        double step = 0, law = 0;
        calibrate_init(c, &o, &a);
        CHECK_OK(calibrate_add(c, path, &e), &e);
        if (i > 0) put_run(run_path, &d, i == 2);
        if (i > 0) CHECK_OK(calibrate_add(c, run_path, &e), &e);
        CHECK_OK(calibrate_fit(c, &e), &e);
        if (i == 0) { /* the laws alone, which the runs are made by */
            CHECK_OK(calibrate_write(c, 1, argv, &e), &e);
            struct deploy_request q = {
                .model = "llama-25m",
                .hardware = profile,
                .kv_blocks = 512,
                .strategy = { .tp = 1, .pp = 1, .dp = 1, .ep = 1, .split = "auto" },
                .lim = { 256, 64, 16, .9 }
            };
            q.strategy.weight_dtype = q.strategy.kv_dtype = DT_F32;
            CHECK_OK(deploy_init(&q, &a, &d, &e), &e);
        }
        for (int k = 0; k < c->profile.n_fit; k++) {
            double v = fit_value(&c->fit[k], P_HOST_STEP_S), w = fit_value(&c->fit[k], P_LAW);
            if (isfinite(v)) step = v;
            if (isfinite(w)) law = w;
        }
        for (int k = 0; k < c->profile.n_extra; k++)
            if (c->extra[k].id == P_HOST_STEP_S) step = c->extra[k].v;
        if (i > 0 && !CHECK(step > 0 && step < (i == 1 ? 2 : 10) * HOST_S && law > 1.05))
            fprintf(stderr, "host.step %g, law %g: %s\n", step, law, c->skipped);
        if (i > 0) CHECK_INT(c->file[1].disturbed, i == 2);
        if (i == 1) CHECK_HAS(c->skipped, "so the common factor takes it");
        if (i == 2) CHECK_HAS(c->skipped, "host.step is their median");
        calibrate_release(c);
        free(c);
    }
    arena_release(&a);
}

/* Requests four times as fast as this model on one such GPU can be: of another model, or of more. */
TEST(calibrate_doubts_a_scenario_that_does_not_describe_the_run)
{
    struct err e = { 0 };
    struct prov v;
    char path[200], yaml[200], word[] = "test", *argv[] = { word };
    snprintf(path, sizeof path, "%s", test_path("vllm.h5"));
    snprintf(yaml, sizeof yaml, "%s", test_path("s.yaml"));
    FILE *f = fopen(yaml, "w");
    if (!CHECK(f != NULL)) return;
    fputs("model: llama-3-8b\nhardware: h100-sxm\npolicy: {name: vllm, async: off}\n", f);
    CHECK_INT(fclose(f), 0);
    run *o = run_create(path, &e);
    if (!CHECK(o != NULL)) return;
    prov_collect(&v, 1, argv);
    CHECK_OK(prov_write(&v, run_h5(o), "orrery-run", "1.0.0", "test", &e), &e);
    prov_release(&v);
    h5_attr_text(run_h5(o), "/provenance", "kind", "measured", &e);
    h5_attr_text(run_h5(o), "/provenance", "source_tool", "vllm", &e);
    for (int i = 0; i < 60; i++) {
        int64_t due = i * INT64_C(200000000);
        struct run_request r = { .t_due_ns = due,
                                 .t_start_ns = due,
                                 .t_first_ns = due + 5000000 + i % 7 * 10000,
                                 .n_in = 512,
                                 .n_out = 41,
                                 .session = -1,
                                 .status = RUN_OK };
        r.t_last_ns = r.t_first_ns + 40 * (INT64_C(1700000) + i % 5 * 1000);
        CHECK_OK(run_put_request(o, &r, &e), &e);
    }
    CHECK_OK(run_commit(o, &e), &e);
    CHECK_INT(calibrate("%s --scenario=%s", path, yaml), 0);
    CHECK_HAS(cli_out, "WARNING\n");
    CHECK_HAS(cli_out, "\n  law is 0.");
    CHECK_HAS(cli_out, "s.yaml may not describe the measured run");
}
