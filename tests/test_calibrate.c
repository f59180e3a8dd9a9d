/* tests/test_calibrate.c - calibration: known constants come back within their intervals, tables and
 * host times of a synthetic engine, another engine's constants, and files that are refused.
 * SPDX-License-Identifier: Apache-2.0 */
#include "bench/calibrate.h"

#include <gsl/gsl_errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/rng.h"
#include "tests/cli.h"
#include "tests/test.h"

/* A synthetic machine. */
static const double PEAK = 60e9, RATE = 12e9;
static const struct law_gemm gemm_truth = { 2e-6, 0.8, 0.7, 2, 0, 60e9, 12e9 };
static const struct law_attn_decode decode_truth = { 2e-6, 0.6, 2e-8, 12e9, 0 };
static const struct law_attn_prefill prefill_truth = { 5e-6, 0.5, 0.6, 60e9, 12e9 };
enum { N_RUN = 6, EXTRA_PAIRS = 10 };

struct bench {
    points *p;
    struct err e;
    struct rng r;
    uint64_t draw;
    double noise;
    int threads, disturbed; /* every n-th sample is three times as long, and marked */
    int ranks;              /* 0: 1 */
};

static void put(struct bench *b, struct points_row row, double s)
{
    row.error = -1;
    if (row.threads == 0) row.threads = b->threads;
    if (row.ranks == 0) row.ranks = b->ranks ? b->ranks : 1;
    int at = points_add(b->p, &row, &b->e);
    for (int i = 0; i < N_RUN && at >= 0; i++) {
        bool bad = b->disturbed && (b->draw % (uint64_t)b->disturbed) == 1;
        struct points_sample x = { .point = at, .run = i, .calls = 1, .noisy = bad };
        x.s_per_call = s * exp(b->noise * rng_normal(b->r, b->draw++)) * (bad ? 3 : 1);
        points_put(b->p, &x, &b->e);
    }
}

static void bench_open(struct bench *b, const char *path, uint64_t seed, double noise)
{
    *b = (struct bench){ .r = rng_stream(seed, "bench"), .noise = noise, .threads = 1 };
    b->p = points_create(path, "synthetic", &b->e);
    if (!CHECK(b->p != NULL)) exit(1);
    struct points_row read = { .op = POINTS_READ, .bytes = RATE },
                      fma = { .op = POINTS_FMA, .dtype = POINTS_F32, .flop = PEAK };
    b->noise = 0; /* the references of the efficiencies */
    put(b, read, 1);
    put(b, fma, 1);
    b->noise = noise;
}

static void bench_close(struct bench *b, const char *cpu)
{
    struct prov v;
    char word[] = "test", *argv[] = { word };
    prov_collect(&v, 1, argv);
    if (cpu) snprintf(v.cpu, sizeof v.cpu, "%s", cpu);
    CHECK_OK(points_commit(b->p, &v, &b->e), &b->e);
    prov_release(&v);
}

static void put_gemms(struct bench *b)
{
    static const int64_t rows[] = { 1, 4, 16, 64, 256 };
    static const int64_t nk[][2] = { { 768, 256 },   { 256, 256 },   { 2048, 256 },  { 256, 1024 },
                                     { 32000, 256 }, { 3072, 1024 }, { 1024, 1024 }, { 128, 128 } };
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 8; j++) {
            struct law_gemm_shape s = {
                (double)rows[i], (double)nk[j][0], (double)nk[j][1], 4, 2, 2
            };
            put(b,
                (struct points_row){ .op = POINTS_GEMM,
                                     .dtype = POINTS_F32,
                                     .m = rows[i],
                                     .n = nk[j][0],
                                     .k = nk[j][1] },
                law_gemm_s(&gemm_truth, &s));
        }
}

static double prefill_s(double tok, double ctx, double heads, double dim)
{
    double pairs = tok * ctx + tok * (tok + 1) / 2;
    double io = 4 * tok * heads * dim + 8 * (ctx + tok) * heads * dim;
    return law_attn_prefill_s(&prefill_truth, pairs + EXTRA_PAIRS * tok, io, heads, dim);
}

static void put_attention(struct bench *b, bool many_heads)
{
    for (int64_t n = 1; n <= 64; n *= 4)
        for (int64_t c = 15; c < 1024; c = 4 * c + 3)
            for (int64_t h = many_heads ? 4 : 8; h <= (many_heads ? 16 : 8); h *= 2) {
                struct points_row r = { .op = POINTS_ATTN,
                                        .dtype = POINTS_F32,
                                        .m = n,
                                        .seqs = n,
                                        .ctx = c,
                                        .ctx_max = c,
                                        .n = h,
                                        .k = h,
                                        .head_dim = 32 };
                double heads = (double)h, seqs = (double)n, ctx = (double)c;
                put(b, r,
                    law_attn_decode_s(&decode_truth, seqs, seqs * (ctx + 1), heads, heads, 32, 4));
                r.m = 4 * n;
                r.seqs = 1;
                put(b, r, prefill_s(4 * seqs, ctx, heads, 32));
            }
}

static void put_bytes(struct bench *b)
{
    for (int i = 0; i < 24; i++) {
        int64_t n = (int64_t)exp2(4 + 0.5 * i);
        double bytes = 8.0 * 4 * (double)n;
        put(b,
            (struct points_row){
                .op = POINTS_ELT, .dtype = POINTS_F32, .part = POINTS_NORM, .m = 4, .n = n },
            1e-6 + bytes / (0.5 * RATE));
        /* f32 is moved, and counts as 16 bit */
        put(b,
            (struct points_row){ .op = POINTS_ALLREDUCE,
                                 .dtype = POINTS_F32,
                                 .comm = POINTS_THREAD,
                                 .ranks = 2,
                                 .bytes = 2 * bytes },
            4e-6 + bytes / 3e9);
    }
}

struct session {
    struct arena a;
    struct calibrate c;
    struct err e;
};

static struct session *begin(void)
{
    struct session *s = mem_zalloc(1, sizeof *s);
    struct calibrate_opts o = { .tables = true, .seed = 1 };
    gsl_set_error_handler_off();
    arena_init(&s->a);
    calibrate_init(&s->c, &o, &s->a);
    return s;
}

static void end(struct session *s)
{
    calibrate_release(&s->c);
    arena_release(&s->a);
    free(s);
}

static const struct fit *law_of(const struct calibrate *c, enum profile_law law)
{
    for (int i = 0; i < c->profile.n_fit; i++)
        if (c->fit[i].law == law) return &c->fit[i];
    return NULL;
}

/* |ln(v / truth)| in standard deviations; INFINITY where there is no such constant. */
static double off(const struct calibrate *c, enum profile_law law, enum profile_id id, double truth)
{
    const struct fit *f = law_of(c, law);
    for (int j = 0; f && j < f->n_par; j++)
        if (f->id[j] == id) return fabs(log(f->v[j] / truth)) / f->sd_log[j];
    return INFINITY;
}

TEST(calibrate_finds_the_constants_it_was_made_from)
{
    struct bench b;
    struct session *s = begin();
    struct profile_file back;
    const char *path = test_path("bench.h5"), *out = test_path("profile.h5");
    bench_open(&b, path, 3, 0.01);
    b.disturbed = 5;
    put_gemms(&b);
    put_attention(&b, true);
    put_bytes(&b);
    bench_close(&b, "test processor");
    CHECK_OK(calibrate_add(&s->c, path, &s->e), &s->e);
    CHECK_OK(calibrate_fit(&s->c, &s->e), &s->e);
    CHECK_NEAR(s->c.limit_mem, RATE, 1e-9);
    CHECK_NEAR(s->c.limit_flop, PEAK, 1e-9);
    CHECK(s->c.file[0].n_noisy > s->c.file[0].n_sample / 8);
    static const struct {
        enum profile_law law;
        enum profile_id id;
        double v;
    } truth[] = { { LAW_GEMM, P_GEMM_T0_S, 2e-6 },      { LAW_GEMM, P_GEMM_EC, 0.8 },
                  { LAW_GEMM, P_GEMM_EM, 0.7 },         { LAW_GEMM, P_GEMM_Q, 2 },
                  { LAW_DECODE, P_DEC_T0_S, 2e-6 },     { LAW_DECODE, P_DEC_EM, 0.6 },
                  { LAW_DECODE, P_DEC_S_PER_BH, 2e-8 }, { LAW_PREFILL, P_PRE_T0_S, 5e-6 },
                  { LAW_PREFILL, P_PRE_EC, 0.5 },       { LAW_PREFILL, P_PRE_EM, 0.6 },
                  { LAW_PREFILL, P_PRE_X_TOK, 10 },     { LAW_ELT, P_ELT_T0_S, 1e-6 },
                  { LAW_ELT, P_ELT_EM, 0.5 },           { LAW_ALLREDUCE, P_AR_A_S, 4e-6 },
                  { LAW_ALLREDUCE, P_AR_B, 3e9 } };
    for (size_t i = 0; i < sizeof truth / sizeof *truth; i++) {
        double d = off(&s->c, truth[i].law, truth[i].id, truth[i].v);
        if (!CHECK(d < 4)) fprintf(stderr, "%s: %g sd\n", profile_param_name(truth[i].id), d);
    }
    for (int i = 0; i < s->c.profile.n_fit; i++) CHECK(s->c.fit[i].held.mape < 0.03);
    s->c.o.out = out;
    char word[] = "test", *argv[] = { word };
    CHECK_OK(calibrate_write(&s->c, 1, argv, &s->e), &s->e);
    CHECK_OK(profile_file_read(out, &s->a, &back, &s->e), &s->e);
    CHECK_INT(back.n_fit, s->c.profile.n_fit);
    CHECK_TEXT(back.machine, "test processor, 1 thread a rank");
    CHECK_HAS(back.used, "points");
    CHECK(back.ops == NULL);
    end(s);
}

/* Nominal 90 % intervals over independent sessions of measuring. */
TEST(calibrate_intervals_cover)
{
    int in = 0, all = 0;
    for (uint64_t seed = 0; seed < 30; seed++) {
        struct bench b;
        struct session *s = begin();
        const char *path = test_path("bench.h5");
        bench_open(&b, path, 100 + seed, 0.03);
        put_gemms(&b);
        put_bytes(&b);
        bench_close(&b, NULL);
        CHECK_OK(calibrate_add(&s->c, path, &s->e), &s->e);
        CHECK_OK(calibrate_fit(&s->c, &s->e), &s->e);
        in += off(&s->c, LAW_GEMM, P_GEMM_EC, 0.8) < 1.645;
        in += off(&s->c, LAW_GEMM, P_GEMM_EM, 0.7) < 1.645;
        in += off(&s->c, LAW_ELT, P_ELT_EM, 0.5) < 1.645;
        in += off(&s->c, LAW_ALLREDUCE, P_AR_B, 3e9) < 1.645;
        all += 4;
        end(s);
    }
    /* 120 of which 108 are expected, 3.3 sd */
    if (!CHECK(in >= 96)) fprintf(stderr, "%d of %d\n", in, all);
}

/* ---- a synthetic engine: operators that no common law fits, attention by law */

enum { LAYERS = 16, HIDDEN = 256, FFN = 1024, VOCAB = 32000, HEADS = 8, DIM = 32 };
static const struct part {
    int op, part;
    int64_t n, k;
    double t0_us, us_a_row, times; /* in a step */
} parts[] = { { POINTS_GEMM, POINTS_QKV, 768, 256, 20, 3, LAYERS },
              { POINTS_GEMM, POINTS_OUT, 256, 256, 9, 2.5, LAYERS },
              { POINTS_GEMM, POINTS_GATE_UP, 2048, 256, 55, 4, LAYERS },
              { POINTS_GEMM, POINTS_DOWN, 256, 1024, 35, 5.5, LAYERS },
              { POINTS_ELT, POINTS_NORM, 256, 0, .1, .02, 2 * LAYERS },
              { POINTS_ELT, POINTS_ADD, 256, 0, .1, .03, 2 * LAYERS },
              { POINTS_ELT, POINTS_ROPE, 512, 0, .1, .04, LAYERS },
              { POINTS_ELT, POINTS_KV_PUT, 512, 0, 1, .9, LAYERS },
              { POINTS_ELT, POINTS_ACT, 1024, 0, .3, .1, LAYERS },
              { POINTS_ELT, POINTS_EMBED, 256, 0, .5, .6, 1 },
              { POINTS_GEMM, POINTS_HEAD, 32000, 256, 700, 60, 1 },
              { POINTS_SAMPLE, POINTS_NO_PART, 32000, 0, 2, 8, 1 } };
enum { N_PART = sizeof parts / sizeof *parts };

static double part_s(const struct part *p, double m)
{
    return 1e-6 * (p->t0_us + p->us_a_row * m);
}

static void put_engine(struct bench *b)
{
    for (int64_t m = 1; m <= 256; m *= 2)
        for (int i = 0; i < N_PART; i++)
            put(b,
                (struct points_row){ .op = (uint8_t)parts[i].op,
                                     .dtype = POINTS_F32,
                                     .part = (uint8_t)parts[i].part,
                                     .m = m,
                                     .n = parts[i].n,
                                     .k = parts[i].k,
                                     .seqs = 1 },
                part_s(&parts[i], (double)m));
    put_attention(b, false);
}

/* What the synthetic engine takes on the device for a step. */
static double engine_s(const struct step_shape *s)
{
    double tok = (double)(s->n_decode + s->prefill_tok), sum = 0;
    for (int i = 0; i < N_PART; i++) {
        bool by_seq = parts[i].part == POINTS_HEAD || parts[i].op == POINTS_SAMPLE;
        sum += parts[i].times * part_s(&parts[i], by_seq ? (double)s->n_logits : tok);
    }
    if (s->n_decode)
        sum += LAYERS * law_attn_decode_s(&decode_truth, (double)s->n_decode, (double)s->sum_ctx,
                                          HEADS, HEADS, DIM, 4);
    if (s->prefill_tok) sum += LAYERS * prefill_s((double)s->prefill_tok, 0, HEADS, DIM);
    return sum;
}

static const double LAW = 1.1, SUBMIT_S = 30e-6, HOST_S = 40e-6, HOST_SEQ_S = 3e-6;

static struct step_shape shape_of(int i)
{
    struct step_shape s = { .n_decode = i % 3 == 2 ? 0 : 1 + i % 16 };
    s.sum_ctx = s.n_decode * (20 + 7 * (i % 40));
    if (i % 3 != 0) {
        s.n_prefill = 1;
        s.prefill_tok = 8 + 4 * (i % 28);
        s.prefill_pairs = s.prefill_tok * (s.prefill_tok + 1) / 2;
    }
    s.n_logits = s.n_decode + s.n_prefill;
    return s;
}

static void write_run(const char *path, const char *kind, const char *yaml, bool steps)
{
    struct err e = { 0 };
    struct prov v;
    char word[] = "test", *argv[] = { word };
    struct rng r = rng_stream(5, "steps");
    run *o = run_create(path, &e);
    if (!CHECK(o != NULL)) exit(1);
    prov_collect(&v, 1, argv);
    CHECK_OK(prov_write(&v, run_h5(o), "orrery-run", "1.0.0", "test", &e), &e);
    prov_release(&v);
    CHECK_OK(h5_attr_text(run_h5(o), "/provenance", "kind", kind, &e), &e);
    CHECK_OK(h5_group(run_h5(o), "/scenario", "scenario", &e), &e);
    CHECK_OK(h5_text(run_h5(o), "/scenario/yaml", yaml, "effective scenario", &e), &e);
    int64_t now = 0;
    for (int i = 0; i < 900 && steps; i++) {
        struct step_shape s = shape_of(i);
        double device = (LAW * engine_s(&s) + SUBMIT_S) * exp(0.03 * rng_normal(r, (uint64_t)i));
        double host = HOST_S + HOST_SEQ_S * (double)(s.n_decode + s.n_prefill);
        struct run_step row = { .t0_ns = now,
                                .t1_ns = now + (int64_t)(1e9 * device),
                                .n_step = 1,
                                .n_prefill_tok = (int32_t)s.prefill_tok,
                                .n_decode = (int32_t)s.n_decode,
                                .n_chunk = (int32_t)s.n_prefill,
                                .n_logits = (int32_t)s.n_logits,
                                .sum_ctx_tok = s.sum_ctx,
                                .pairs = s.prefill_pairs,
                                .host_ns = (int64_t)(1e9 * host) };
        now = row.t1_ns + row.host_ns;
        CHECK_OK(run_put_step(o, &row, &e), &e);
    }
    CHECK_OK(run_commit(o, &e), &e);
}

#define ENGINE_YAML                                                                                \
    "model: llama-25m\nhardware: h100-sxm\nstrategy: {tp: 1, pp: 1, weights: f32, kv: f32}\n"

/* Points of an engine that serves llama-25m undivided. */
static void write_engine(const char *path)
{
    struct bench b;
    bench_open(&b, path, 4, 0.005);
    put_engine(&b);
    CHECK_OK(points_note(b.p, "model", "llama-25m", &b.e), &b.e);
    CHECK_OK(points_note(b.p, "strategy", "tp1 pp1 threads1", &b.e), &b.e);
    bench_close(&b, NULL);
}

/* --model is for points that do not say of what model they are. */
TEST(calibrate_refuses_points_of_another_model)
{
    static const char *const model[] = { "llama-25m", "llama-110m", "no-such" };
    const char *path = test_path("bench.h5");
    write_engine(path);
    for (int i = 0; i < 3; i++) {
        struct session *s = begin();
        s->c.o.model = model[i];
        CHECK_OK(calibrate_add(&s->c, path, &s->e), &s->e);
        CHECK_INT(calibrate_fit(&s->c, &s->e), i ? ST_USAGE : ST_OK);
        if (i) CHECK_HAS(s->e.text, i == 1 ? "are of llama-25m" : "no model 'no-such'");
        end(s);
    }
}

TEST(calibrate_predicts_the_steps_of_the_engine_it_measured)
{
    struct session *s = begin();
    const char *path = test_path("bench.h5"), *run_path = test_path("run.h5");
    const char *out = test_path("here.h5");
    write_engine(path);
    write_run(run_path, "measured", ENGINE_YAML, true);
    s->c.o.out = out;
    CHECK_OK(calibrate_add(&s->c, path, &s->e), &s->e);
    CHECK_OK(calibrate_add(&s->c, run_path, &s->e), &s->e);
    CHECK_OK(calibrate_fit(&s->c, &s->e), &s->e);
    const struct fit *f = law_of(&s->c, LAW_STEP);
    CHECK(f != NULL);
    if (f) {
        CHECK_NEAR(fit_value(f, P_LAW), LAW, 0.01);
        CHECK_NEAR(fit_value(f, P_HOST_STEP_S), SUBMIT_S + HOST_S, 0.5);
        CHECK_NEAR(fit_value(f, P_HOST_SEQ_S), HOST_SEQ_S, 0.05);
        CHECK(off(&s->c, LAW_STEP, P_LAW, LAW) < 3);
        CHECK(f->held.median < 0.03);
    }
    CHECK(s->c.n_table_row > 60);
    char word[] = "test", *argv[] = { word };
    CHECK_OK(calibrate_write(&s->c, 1, argv, &s->e), &s->e);

    /* A deployment on the profile takes as long as the engine did, between table rows too. */
    struct deploy d;
    struct deploy_request q = { .model = "llama-25m",
                                .hardware = out,
                                .kv_blocks = 512,
                                .strategy = { .tp = 1, .pp = 1, .dp = 1, .ep = 1, .split = "auto" },
                                .lim = { 256, 64, 16, .9 } };
    q.strategy.weight_dtype = q.strategy.kv_dtype = DT_F32;
    CHECK_OK(deploy_init(&q, &s->a, &d, &s->e), &s->e);
    CHECK(d.table != NULL);
    for (int i = 0; i < 200 && d.step; i++) {
        struct step_shape k = shape_of(i);
        double want = LAW * engine_s(&k) + SUBMIT_S + HOST_S +
                      HOST_SEQ_S * (double)(k.n_decode + k.n_prefill);
        double got = 1e-9 * (double)(step_total_fp(d.step, 0, &k) >> STEP_FP_BITS);
        if (!CHECK_NEAR(got, want, 0.03)) break;
    }
    /* Of another degree or model the tables are not taken. */
    q.strategy.weight_dtype = DT_BF16;
    CHECK_OK(deploy_init(&q, &s->a, &d, &s->e), &s->e);
    CHECK(d.table == NULL);
    end(s);
}

/* ---- which files gave which constants */

/* llama-25m f32 with its runs, numbered in `which`; -1 where no step was fitted. */
static double law_with(const char *bench, char path[][200], const char *which, bool plan,
                       struct session *s)
{
    int st = calibrate_add(&s->c, bench, &s->e);
    for (; *which && st == ST_OK; which++) st = calibrate_add(&s->c, path[*which - '0'], &s->e);
    if (st == ST_OK) st = plan ? calibrate_plan(&s->c, &s->e) : calibrate_fit(&s->c, &s->e);
    if (!CHECK_INT(st, ST_OK)) fprintf(stderr, "%s\n", s->e.text);
    const struct fit *f = law_of(&s->c, LAW_STEP);
    return f && isfinite(fit_value(f, P_LAW)) ? fit_value(f, P_LAW) : -1;
}

/* The common factor is what laws leave out of what they were measured on: other models and formats
 * move it not at all, and are named; a file that gave host times alone says so, planned or done. */
TEST(calibrate_says_which_run_gave_what)
{
    static const char *const yaml[] = {
        ENGINE_YAML, "model: llama-110m\nhardware: h100-sxm\nstrategy: {weights: f32, kv: f32}\n",
        "model: llama-25m\nhardware: h100-sxm\nstrategy: {weights: bf16, kv: f32}\n",
        "model: llama-25m\nhardware: h100-sxm\nstrategy: {weights: f32, kv: bf16}\n",
        "model: llama-25m\nhardware: h100-sxm\nstrategy: {tp: 2, weights: f32, kv: f32}\n"
    };
    static const char *const why[] = {
        NULL, "(of another model, llama-110m; the points are of llama-25m)",
        "(of another number format: no points of products of bf16)",
        "(of another number format: no points of attention over bf16)",
        "(of another strategy, TP2-PP1; the points are of TP1-PP1)"
    };
    char bench_path[200], path[5][200], name[20];
    snprintf(bench_path, sizeof bench_path, "%s", test_path("bench.h5"));
    write_engine(bench_path);
    for (int i = 0; i < 5; i++) {
        snprintf(name, sizeof name, "run%d.h5", i);
        snprintf(path[i], sizeof path[i], "%s", test_path(name));
        write_run(path[i], "measured", yaml[i], true);
    }
    struct session *s = begin();
    double law = law_with(bench_path, path, "0", false, s);
    CHECK_NEAR(law, LAW, 0.01);
    CHECK_HAS(s->c.profile.used, "run0.h5: 900 steps: host.step, law, host.seq, host.tok\n");
    CHECK_HAS(s->c.profile.runs, " device\n");
    end(s);
    s = begin();
    CHECK(law_with(bench_path, path, "12034", false, s) == law);
    for (int i = 1; i < 5; i++) CHECK_HAS(s->c.profile.used, why[i]);
    CHECK_HAS(s->c.profile.used, "run1.h5: 900 steps: not used (of another model");
    end(s);
    s = begin(); /* by themselves they give the host's times, and the factor stays the catalog's */
    CHECK(law_with(bench_path, path, "1", false, s) == -1);
    const struct fit *f = law_of(&s->c, LAW_STEP);
    if (CHECK(f != NULL)) CHECK_NEAR(fit_value(f, P_HOST_SEQ_S), HOST_SEQ_S, 0.05);
    CHECK_HAS(s->c.profile.used,
              "run1.h5: 900 steps: host.step, host.seq, host.tok, nothing of the device (");
    CHECK_HAS(s->c.profile.runs, " host\n");
    CHECK_HAS(s->c.skipped, "no fit of the common factor (law)");
    end(s);
    for (int k = 0; k < 2; k++) {
        s = begin();
        law_with(bench_path, path, k ? "01" : "4", true, s);
        CHECK_HAS(s->c.profile.used,
                  k ? "run0.h5: 900 steps: host.step, law, host.seq, host.tok\n"
                    : "run4.h5: 900 steps: host.step, host.seq, host.tok, nothing "
                      "of the device (of another strategy");
        CHECK(!k || strstr(s->c.profile.used, "run1.h5: 900 steps: not used (of another model"));
        CHECK_HAS(s->c.profile.used, "points (gemm 45, decode ");
        end(s);
    }
}

/* ---- a pipeline on one host */

static void put_stage(struct bench *b, int64_t tok, int64_t busy, double s)
{
    put(b,
        (struct points_row){ .op = POINTS_STAGE,
                             .dtype = POINTS_F32,
                             .ranks = 2,
                             .m = tok,
                             .n = 1,
                             .k = busy,
                             .seqs = 1 },
        s);
}

TEST(calibrate_stages_that_share_a_memory)
{
    static const double HALF = 12, BACK_S = 300e-6;
    /* with four stages each of the three others adds its share, but makes no step shorter */
    for (int k = 0; k < 4; k++) {
        struct bench b;
        struct session *s = begin();
        const char *path = test_path("bench.h5");
        int others = k % 2 ? 3 : 1;
        double slow = k < 2 ? 0.8 : -0.5;
        bench_open(&b, path, 6, 0.01);
        put_gemms(&b);
        for (int64_t tok = 1; tok <= 256; tok *= 2) {
            double alone = 1e-3 + 1e-4 * (double)tok;
            double more = slow / (1 + (double)tok / HALF) * (slow > 0 ? others : 1);
            put_stage(&b, tok, 1, alone);
            put_stage(&b, tok, 1 + others, alone * (1 + more) * (tok == 8 ? 2 : 1));
            put(&b, (struct points_row){ .op = POINTS_RETURN, .ranks = 2, .m = tok, .n = 1 },
                BACK_S);
        }
        bench_close(&b, NULL);
        s->c.o.ranks = 2;
        CHECK_OK(calibrate_add(&s->c, path, &s->e), &s->e);
        CHECK_OK(calibrate_choose(&s->c, &s->e), &s->e);
        calibrate_stages(&s->c, false); /* one of nine points is wrong: the median does not mind */
        const struct fit *f = law_of(&s->c, LAW_STAGE);
        if (CHECK(f != NULL)) {
            CHECK_NEAR(fit_value(f, P_STAGE_BESIDE), 1 + slow, 0.05);
            CHECK_NEAR(fit_value(f, P_STAGE_TOK), HALF, 0.25);
            CHECK_NEAR(fit_value(f, P_STAGE_RETURN_S), BACK_S, 0.02);
            CHECK(f->n_point == 9 && f->n_site == 9);
            CHECK(f->n_range == 1 && f->range[0].lo == 1 && f->range[0].hi == 256);
            CHECK(f->in.median < 0.03 && f->held.median < 0.05);
            CHECK(f->held.worst > 0.2); /* the wrong one is not hidden */
        }
        end(s);
    }
}

/* ---- another engine, as the simulator would be with other constants */

struct put_rows {
    run *o;
    struct err e;
    struct rng r;
    uint64_t draw;
    bool garbage;
};

static const char *put_text(const char *name, const char *text)
{
    const char *path = test_path(name);
    FILE *f = fopen(path, "w");
    if (f) {
        fputs(text, f);
        fclose(f);
    }
    return path;
}

/* What another engine is made to be. */
struct truth {
    double step_s, request_s, law; /* 0: the catalog's */
    const char *model;             /* that its run names; NULL: none */
    bool garbage;                  /* times at random, over six decades */
};

static void put_request(void *ctx, const struct run_request *r)
{
    struct put_rows *w = ctx;
    struct run_request x = *r;
    if (w->garbage) {
        double span = 1e9 * pow(10, 6 * rng_unit(w->r, w->draw++) - 4);
        x.t_first_ns = x.t_due_ns + (int64_t)(1e9 * pow(10, 6 * rng_unit(w->r, w->draw++) - 4));
        x.t_last_ns = x.t_first_ns + (int64_t)span;
    }
    run_put_request(w->o, &x, &w->e);
}

static void serve_foreign(const char *scenario, const char *path, const struct truth *t)
{
    struct arena a;
    struct scenario *s = mem_zalloc(1, sizeof *s);
    struct deploy d;
    struct step *step;
    struct metrics m;
    struct prov v;
    struct put_rows w = { .r = rng_stream(5, "garbage"), .garbage = t->garbage };
    struct sim_sink sink = { .ctx = &w, .request = put_request };
    char word[] = "test", *argv[] = { word };
    arena_init(&a);
    metrics_init(&m);
    scenario_init(s, NULL, NULL, &a);
    CHECK_OK(scenario_read(s, scenario, NULL, &w.e), &w.e);
    CHECK_OK(scenario_deploy(s, &d, &w.e), &w.e);
    if (t->step_s > 0) d.profile.p[P_HOST_STEP_S].v = t->step_s;
    if (t->request_s > 0) d.profile.p[P_HOST_REQ_S].v = t->request_s;
    if (t->law > 0) d.profile.p[P_LAW].v = t->law;
    CHECK_OK(deploy_step(&d, &d.profile, &a, &step, &w.e), &w.e);
    struct sim_setup u = { .deploy = &d,
                           .step = step,
                           .sched = &s->policy,
                           .router = s->sim.router,
                           .fast = true,
                           .bin_ns = INT64_C(1000000000),
                           .sink = &sink };
    w.o = run_create(path, &w.e);
    prov_collect(&v, 1, argv);
    CHECK_OK(prov_write(&v, run_h5(w.o), "orrery-run", "1.0.0", "test", &w.e), &w.e);
    prov_release(&v);
    h5_attr_text(run_h5(w.o), "/provenance", "kind", "measured", &w.e);
    h5_attr_text(run_h5(w.o), "/provenance", "source_tool", "vllm", &w.e);
    if (t->model) h5_attr_text(run_h5(w.o), "/provenance", "model", t->model, &w.e);
    CHECK_OK(trace_open(&s->workload, s->path, 9, &u.trace, &w.e), &w.e);
    CHECK_OK(sim_run(&u, &a, &m, &w.e), &w.e);
    trace_close(u.trace);
    CHECK_OK(run_commit(w.o, &w.e), &w.e);
    metrics_release(&m);
    arena_release(&a);
    free(s);
}

/* The constants that the run gave are the truth's, or within their interval of it. */
static void check_truth(const struct calibrate *c, const struct truth *t)
{
    for (int i = 0; i < c->profile.n_extra; i++) {
        const struct profile_extra *x = &c->extra[i];
        double truth = x->id == P_LAW ? t->law : x->id == P_HOST_STEP_S ? t->step_s : t->request_s;
        if (x->sd_log >= FIT_OPEN_SD) continue; /* said not to be known */
        if (truth > 0 && !CHECK(fabs(log(x->v / truth)) < fmax(0.05, 3 * x->sd_log)))
            fprintf(stderr, "%s of %g: %g +- %g\n", profile_param_name(x->id), truth, x->v,
                    x->sd_log);
    }
}

TEST(calibrate_moves_a_foreign_engines_constants)
{
    struct session *s = begin();
    const char *run_path = test_path("vllm.h5");
    const char *scenario = put_text(
        "s.yaml", "model: llama-3-8b\nhardware: h100-sxm\npolicy: {name: vllm, async: off}\n"
                  "workload: {rate: 12/s, requests: 400, prompt: {mean: 512tok}, "
                  "output: {mean: 96tok}}\n");
    const struct truth truth = { 3e-3, 0, 1.25, NULL, false };
    serve_foreign(scenario, run_path, &truth);
    CHECK_OK(calibrate_add(&s->c, run_path, &s->e), &s->e);
    CHECK_INT(calibrate_fit(&s->c, &s->e), ST_USAGE);
    CHECK_HAS(s->e.text, "--scenario");
    err_clear(&s->e);
    s->c.o.scenario = scenario;
    CHECK_OK(calibrate_fit(&s->c, &s->e), &s->e);
    CHECK(s->c.foreign.before[0] > 0.15);
    CHECK(s->c.foreign.after[0] < 0.02);
    CHECK(s->c.foreign.after[1] < 0.05);
    CHECK_TEXT(s->c.profile.engine, "vllm");
    check_truth(&s->c, &truth);
    end(s);
}

/* Where the host works beside the device, its time shows only when it is the longer one. One is far
 * from the catalog's, which is hidden; one is hidden itself, by a device slower than the catalog's. */
TEST_LIMIT(calibrate_finds_the_host_that_a_foreign_engine_waits_for, 120)
{
    static const struct truth truth[] = {
        { 12e-3, 10e-3, 1, NULL, false },
        { 5e-3, 1e-3, 1.5, NULL, false },
    };
    for (size_t i = 0; i < sizeof truth / sizeof *truth; i++) {
        struct session *s = begin();
        const char *path = test_path("vllm.h5");
        s->c.o.scenario = "scenarios/smoke.yaml";
        serve_foreign(s->c.o.scenario, path, truth + i);
        CHECK_OK(calibrate_add(&s->c, path, &s->e), &s->e);
        CHECK_OK(calibrate_fit(&s->c, &s->e), &s->e);
        check_truth(&s->c, truth + i);
        CHECK(s->c.foreign.after[0] < 0.02 && s->c.foreign.after[1] < 0.1);
        if (i == 0) CHECK(s->c.extra[0].sd_log < 0.05);
        if (i == 1) { /* the device takes longer than that host: it shows, the host does not */
            CHECK_NEAR(s->c.extra[0].v, 0.77e-3, 1e-9);
            CHECK_NEAR(s->c.extra[0].sd_log, FIT_OPEN_SD, 1e-12);
            CHECK_NEAR(s->c.extra[2].v, 1.5, 0.015);
        }
        end(s);
    }
}

/* One at a time and of one length, every step is alike: a slow host and a slow device look the same. */
TEST_LIMIT(calibrate_says_where_host_and_device_look_the_same, 60)
{
    struct session *s = begin();
    const char *path = test_path("vllm.h5");
    const struct truth truth = { 12e-3, 10e-3, 1, NULL, false };
    s->c.o.scenario =
        put_text("s.yaml", "model: llama-3-8b\nhardware: h100-sxm\n"
                           "workload: {rate: 0.2/s, requests: 60, prompt: {mean: 1tok, dist: "
                           "fixed}, output: {mean: 64tok, dist: fixed}}\n");
    serve_foreign(s->c.o.scenario, path, &truth);
    CHECK_OK(calibrate_add(&s->c, path, &s->e), &s->e);
    CHECK_OK(calibrate_fit(&s->c, &s->e), &s->e);
    CHECK_HAS(s->c.warned, "host and device cannot be told apart: host.step ");
    CHECK_NEAR(s->c.extra[0].sd_log, FIT_OPEN_SD, 1e-12);
    end(s);
}

TEST_LIMIT(calibrate_refuses_what_no_constants_explain, 60)
{
    struct session *s = begin();
    const char *path = test_path("vllm.h5");
    s->c.o.scenario = "scenarios/smoke.yaml";
    serve_foreign(s->c.o.scenario, path, &(struct truth){ .garbage = true });
    CHECK_OK(calibrate_add(&s->c, path, &s->e), &s->e);
    CHECK_INT(calibrate_fit(&s->c, &s->e), ST_USAGE);
    CHECK_HAS(s->e.text, "no constants explain its times (median error of TPOT ");
    end(s);
}

/* The catalog's own run leaves nothing to explain, which is no reason to refuse it. */
TEST_LIMIT(calibrate_doubts_a_run_of_another_model, 90)
{
    struct session *s = begin();
    const char *path = test_path("vllm.h5");
    s->c.o.scenario = "scenarios/smoke.yaml";
    serve_foreign(s->c.o.scenario, path, &(struct truth){ .model = "llama-3-70b" });
    CHECK_OK(calibrate_add(&s->c, path, &s->e), &s->e);
    CHECK_OK(calibrate_fit(&s->c, &s->e), &s->e);
    CHECK(s->c.foreign.after[0] < 1e-3 && s->c.foreign.after[1] < 1e-2);
    CHECK_HAS(s->c.warned, "calls llama-3-70b, scenarios/smoke.yaml is of llama-3-8b");
    end(s);
}

TEST(calibrate_takes_names_of_one_model_for_one)
{
    static const char *const same[][2] = {
        { "meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b" },
        { "llama3:8b", "llama-3-8b" },
        { "/models/Meta-Llama-3-8B-Instruct-FP8/", "llama-3-8b" },
        { "DeepSeek-R1-Distill-Llama-8B", "llama-3.1-8b" },
        { "Qwen/Qwen3-0.6B", "qwen3-600M" },
        { "mistralai/Mixtral-8x7B-Instruct-v0.1", "mixtral-8x7b-v0.1" },
        { "llama-1b1", "TinyLlama-1.1B-Chat-v1.0" },
        { "Qwen2.5-7B-Instruct-1M", "qwen2.5-7b" },
        { "my-model", "llama-3-8b" },
        { "", "llama-3-8b" },
    };
    static const char *const other[][2] = {
        { "llama-3-8b", "llama-3-70b" },  { "meta-llama/Llama-3.1-8B", "qwen3-8b" },
        { "llama-2-7b", "llama-3-8b" },   { "mixtral-8x7b", "mixtral-8x22b" },
        { "mistral-7b", "mixtral-8x7b" }, { "Qwen/Qwen2.5-0.5B", "qwen2.5-1.5b" },
    };
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        if (!CHECK(!calibrate_other_model(same[i][0], same[i][1])))
            fprintf(stderr, "%s, %s\n", same[i][0], same[i][1]);
    for (size_t i = 0; i < sizeof other / sizeof *other; i++)
        if (!CHECK(calibrate_other_model(other[i][0], other[i][1])))
            fprintf(stderr, "%s, %s\n", other[i][0], other[i][1]);
}

/* ---- what is refused */

#define calibrate(...) cli_run("", "calibrate " __VA_ARGS__)

static void refused(const char *args, const char *says)
{
    const char *out = test_path("never.h5");
    CHECK_INT(calibrate("%s --out=%s", args, out), 2);
    CHECK_HAS(cli_err, says);
    CHECK_INT(strlen(cli_out), 0);
    CHECK(access(out, F_OK) != 0);
    const char *line = strchr(cli_err, '\n');
    CHECK(line && line[1] == 0); /* one sentence */
}

static const char *small_bench(const char *name, const char *cpu, int threads, int what)
{
    struct bench b;
    const char *path = test_path(name);
    bench_open(&b, path, 1, 0.01);
    b.threads = threads;
    if (what == 0) put_gemms(&b);
    struct points_row r = { .op = POINTS_GEMM, .dtype = POINTS_F32, .m = 1, .n = 8, .k = 8 };
    for (int i = 0; i < 2 && what == 1; i++) put(&b, r, 1e-6 * (i + 1));
    for (int i = 0; i < 40 && what >= 2; i++) {
        r.m = i + 1;
        r.n = 8 * (i + 1);
        put(&b, r, i % 2 ? 1e-6 : 1e-1);
    }
    if (what == 3) put_bytes(&b); /* of these there is a law */
    for (int k = POINTS_THREAD; k <= POINTS_MPI && what == 4; k++) {
        r.threads = k - POINTS_THREAD + 1;
        put(&b, r, 1e-6);
        put(&b,
            (struct points_row){
                .op = POINTS_SENDRECV, .comm = (uint8_t)k, .ranks = 2, .bytes = 64 },
            1e-5);
    }
    bench_close(&b, cpu);
    return path;
}

TEST(calibrate_refuses_in_one_sentence)
{
    char a[200], b[200], args[500];
    snprintf(a, sizeof a, "%s", small_bench("a.h5", "first processor", 1, 0));
    refused("", "takes files");
    refused("no-such-file.h5", "no-such-file.h5");
    refused(put_text("text.h5", "not HDF5\n"), "text.h5");
    snprintf(b, sizeof b, "%s", small_bench("b.h5", "second processor", 1, 0));
    snprintf(args, sizeof args, "%s %s", a, b);
    refused(args, "one machine");
    snprintf(b, sizeof b, "%s", small_bench("c.h5", "first processor", 2, 0));
    snprintf(args, sizeof args, "%s %s", a, b);
    refused(args, "--threads");
    refused(small_bench("kinds.h5", "first processor", 1, 4),
            "say which with --threads (1, 2), --comm (thread, mpi)");
    snprintf(args, sizeof args, "%s --threads=3", a);
    refused(args, "points are of another number of threads: 1");
    refused(small_bench("few.h5", "first processor", 1, 1), "same size");
    refused(small_bench("odd.h5", "first processor", 1, 2), "contradict");
    refused(small_bench("half.h5", "first processor", 1, 3), "gemm: the points contradict the law");
    snprintf(b, sizeof b, "%s", test_path("sim.h5"));
    snprintf(a, sizeof a, "%s", small_bench("own.h5", NULL, 1, 0));
    write_run(b, "simulated", ENGINE_YAML, true);
    refused(b, "not measured");
    write_run(b, "measured", ENGINE_YAML, false);
    snprintf(args, sizeof args, "%s %s", a, b);
    refused(args, "steps/t0");
    write_run(b, "measured", "model: [\n", true);
    refused(args, "sim.h5");
    write_run(b, "measured", "hardware: h100-sxm\n", true);
    refused(args, "no model");
    refused("--pigeon=1", "pigeon");
    snprintf(args, sizeof args, "%s --comm=pigeon", a);
    refused(args, "pigeon");
}

/* The same samples twice would make constants look better known than they are. */
TEST(calibrate_refuses_a_file_twice)
{
    char a[200], b[200], args[900], cmd[900];
    snprintf(a, sizeof a, "%s", small_bench("a.h5", "first processor", 1, 0));
    snprintf(b, sizeof b, "%s", test_path("b.h5"));
    snprintf(args, sizeof args, "%s %s", a, a);
    refused(args, "a.h5 is given twice: its samples count once");
    snprintf(cmd, sizeof cmd, "cp %s %s", a, b);
    CHECK_INT(test_run(cmd, NULL, 0, NULL, 0), 0);
    snprintf(args, sizeof args, "%s %s", a, b);
    refused(args, "b.h5 hold the same measurement: its samples count once");
    snprintf(args, sizeof args, "%s %s/./a.h5", a, test_dir());
    refused(args, "./a.h5 hold the same measurement");
    write_run(b, "measured", ENGINE_YAML, true);
    snprintf(args, sizeof args, "%s %s %s", a, b, b);
    refused(args, "b.h5 is given twice");
}

/* Stages have units, errors, and a range that a simulation heeds and names. */
TEST(calibrate_stages_are_told_and_covered)
{
    struct bench b;
    char path[200], profile[200], yaml[900], cmd[900];
    snprintf(path, sizeof path, "%s", test_path("bench.h5"));
    snprintf(profile, sizeof profile, "%s", test_path("p.h5"));
    bench_open(&b, path, 6, 0.01);
    b.ranks = 2;
    put_gemms(&b);
    put_attention(&b, false);
    put_bytes(&b);
    for (int64_t tok = 1; tok <= 256; tok *= 2) {
        double alone = 1e-3 + 1e-4 * (double)tok;
        put_stage(&b, tok, 1, alone);
        put_stage(&b, tok, 2, alone * (1 + 0.8 / (1 + (double)tok / 12)));
        put(&b, (struct points_row){ .op = POINTS_RETURN, .ranks = 2, .m = tok, .n = 1 }, 3e-4);
    }
    bench_close(&b, "first processor");
    CHECK_INT(calibrate("%s --ranks=2 --dry-run", path), 0);
    CHECK_HAS(cli_out, "stage: 9 pairs of points, alone and beside busy stages");
    CHECK_HAS(cli_out, "stage: 9 points of the tokens' way back");
    CHECK_INT(calibrate("%s --ranks=2 --out=%s", path, profile), 0);
    CHECK_HAS(cli_out, "\n  stage: 9 points at 9 sites, their own spread ");
    CHECK_HAS(cli_out, " of alone   [");
    CHECK_HAS(cli_out, " tok        [");
    CHECK_HAS(cli_out, "\n    covers    tok 1 .. 256\n");
    CHECK_HAS(cli_out, "stage 27)");
    CHECK(strstr(strstr(cli_out, "\n  stage: "), "held out  MAPE "));
    CHECK_INT(calibrate("%s --ranks=2 --json", path), 0);
    CHECK_HAS(cli_out, "\"unit\": \"tok\"");
    for (int k = 0; k < 2; k++) {
        snprintf(yaml, sizeof yaml,
                 "model: llama-25m\nhardware: {name: %s, profile: %s}\n"
                 "strategy: {pp: 2, weights: f32, kv: f32}\n"
                 "policy: {max_batch_tokens: %dtok, max_seqs: 8, kv_blocks: 4000}\n"
                 "workload: {arrivals: burst, requests: 6, prompt: {mean: 400tok, max: 400tok}, "
                 "output: {mean: 8tok}}\n",
                 profile, profile, k ? 300 : 128);
        put_text("s.yaml", yaml);
        snprintf(cmd, sizeof cmd, "%s simulate %s", getenv("ORRERY_BIN"), test_path("s.yaml"));
        CHECK(test_run(cmd, cli_out, sizeof cli_out, cli_err, sizeof cli_err) <= 1);
        CHECK_TEXT(cli_err, "");
        CHECK_HAS(cli_out, "stages beside each other fitted (measured on first processor");
        CHECK(!k == !strstr(cli_out, "stage tok 300 (measured 1 to 256)"));
    }
}

TEST(calibrate_tells_and_plans)
{
    char a[200];
    snprintf(a, sizeof a, "%s", small_bench("a.h5", "first processor", 1, 0));
    const char *out = test_path("p.h5");
    CHECK_INT(calibrate("%s --dry-run --out=%s", a, out), 0);
    CHECK_HAS(cli_out, "gemm f32: 40 points");
    CHECK(access(out, F_OK) != 0);
    CHECK_INT(calibrate("%s --out=%s", a, out), 0);
    CHECK_HAS(cli_out, "held out");
    CHECK_HAS(cli_out, "covers");
    CHECK(access(out, F_OK) == 0);
    CHECK_INT(calibrate("%s --json", a), 0);
    json_t *j = json_loads(cli_out, JSON_REJECT_DUPLICATES, NULL);
    if (CHECK(j != NULL)) {
        json_t *law = json_array_get(json_object_get(j, "laws"), 0);
        CHECK_TEXT(json_string_value(json_object_get(law, "law")), "gemm");
        CHECK_INT(json_integer_value(json_object_get(law, "points")), 40);
        CHECK_INT(json_array_size(json_object_get(law, "constants")), 4);
    }
    json_decref(j);
}
