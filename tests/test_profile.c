/* tests/test_profile.c - choice of constants, draws, settings.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/profile.h"

#include <math.h>

#include "base/stat.h"
#include "tests/model_env.h"

enum { N_DRAW = 4000 };

TEST(profile_measured_gpus_are_fitted)
{
    static const struct {
        const char *gpu;
        double gemm_em, dec_em, mape;
    } want[] = { { "a100-sxm-80gb", 0.7685, 0.7936, 8.394 },
                 { "h100-sxm", 0.8746, 0.9459, 6.455 },
                 { "l40s", 0.7855, 0.8144, 11.39 },
                 { "rtx-pro-6000", 0.8482, 0.8525, 8.299 } };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        struct env v;
        CHECK_OK(env_init(&v, &env_llama8, want[i].gpu, 1), &v.e);
        CHECK_NEAR(v.profile.p[P_GEMM_EM].v, want[i].gemm_em, 1e-9);
        CHECK_NEAR(v.profile.p[P_DEC_EM].v, want[i].dec_em, 1e-3);
        CHECK_NEAR(v.profile.p[P_GEMM_EM].sd_log, want[i].mape / 100, 1e-9);
        CHECK_INT(v.profile.p[P_GEMM_EM].cover, COVER_FIT);
        CHECK_INT(v.profile.p[P_PRE_EC].cover, COVER_FIT);
        CHECK_HAS(v.profile.p[P_GEMM_EM].source, "held out");
        CHECK_TEXT(v.profile.note, "");
        env_release(&v);
    }
}

TEST(profile_other_gpus_are_class_defaults_and_say_so)
{
    static const char *const gpus[] = { "h200-sxm", "b200-sxm", "rtx-4090",
                                        "t4",       "mi300x",   "a100-pcie-40gb" };
    for (size_t i = 0; i < sizeof gpus / sizeof *gpus; i++) {
        struct env v;
        CHECK_OK(env_init(&v, &env_llama8, gpus[i], 1), &v.e);
        CHECK_HAS(v.profile.note, "taken over");
        static const enum profile_id ids[] = { P_GEMM_EC, P_GEMM_EM, P_DEC_EM, P_PRE_EC, P_PRE_EM };
        for (size_t k = 0; k < 5; k++) {
            CHECK_INT(v.profile.p[ids[k]].cover, COVER_CLASS);
            CHECK(v.profile.p[ids[k]].sd_log >= 0.15);
        }
        env_release(&v);
    }
}

TEST(profile_rtx_4090_keeps_its_measured_decode_bandwidth)
{
    struct env v;
    CHECK_OK(env_init(&v, &env_llama8, "rtx-4090", 1), &v.e);
    CHECK_NEAR(v.profile.p[P_DEC_EM].v, 0.95, 1e-9);
    CHECK_NEAR(v.profile.p[P_GEMM_EC].v, 0.85, 1e-9);
    v.strategy.weight_dtype = DT_FP8;
    CHECK_OK(profile_load(&v.hw, &v.strategy, "any", NULL, &v.a, &v.profile, &v.e), &v.e);
    CHECK_NEAR(v.profile.p[P_GEMM_EC].v, 0.8, 1e-9);
    env_release(&v);
}

TEST(profile_unknown_gpu_falls_back_with_a_note)
{
    struct env v;
    CHECK_OK(env_init(&v, &env_llama8, "h100-sxm", 1), &v.e);
    v.hw.gpu.name = "zx81";
    v.hw.gpu.arch = "ada";
    CHECK_OK(profile_load(&v.hw, &v.strategy, "any", NULL, &v.a, &v.profile, &v.e), &v.e);
    CHECK_HAS(v.profile.note, "zx81");
    CHECK_HAS(v.profile.note, "l40s");
    CHECK_NEAR(v.profile.p[P_GEMM_EM].v, 0.7855, 1e-9);
    v.hw.gpu.arch = "harvard";
    CHECK_OK(profile_load(&v.hw, &v.strategy, "any", NULL, &v.a, &v.profile, &v.e), &v.e);
    CHECK_HAS(v.profile.note, "harvard");
    CHECK(v.profile.p[P_GEMM_EC].sd_log >= 0.15);
    CHECK_INT(profile_load(&v.hw, &v.strategy, "sglang", NULL, &v.a, &v.profile, &v.e), ST_USAGE);
    CHECK_HAS(v.e.text, "trtllm");
    env_release(&v);
}

TEST(profile_number_formats)
{
    struct env v;
    CHECK_OK(env_init(&v, &env_llama8, "h100-sxm", 1), &v.e);
    double bf16_t0 = v.profile.p[P_GEMM_T0_S].v, bf16_peak = v.profile.peak_flop_per_s;
    CHECK_NEAR(v.profile.p[P_GEMM_EQ].v, 0, 0);
    v.strategy.weight_dtype = DT_FP8;
    CHECK_OK(profile_load(&v.hw, &v.strategy, "vllm", NULL, &v.a, &v.profile, &v.e), &v.e);
    CHECK_NEAR(v.profile.p[P_GEMM_EQ].v, 0.298, 1e-9);
    CHECK_NEAR(v.profile.p[P_GEMM_T0_S].v, bf16_t0, 0);
    CHECK_NEAR(v.profile.peak_flop_per_s, 2 * bf16_peak, 1e-3);
    CHECK_NEAR(v.profile.attn_peak_flop_per_s, bf16_peak, 0);
    v.strategy.weight_dtype = DT_INT4;
    CHECK_OK(profile_load(&v.hw, &v.strategy, "vllm", NULL, &v.a, &v.profile, &v.e), &v.e);
    CHECK_NEAR(v.profile.peak_flop_per_s, bf16_peak, 0);
    CHECK_NEAR(v.profile.p[P_GEMM_EQ].v, 0, 0);
    env_release(&v);
    CHECK_OK(env_init(&v, &env_llama8, "a100-sxm-80gb", 1), &v.e);
    v.strategy.weight_dtype = DT_FP8; /* no fp8 units: weight-only */
    CHECK_OK(profile_load(&v.hw, &v.strategy, "vllm", NULL, &v.a, &v.profile, &v.e), &v.e);
    CHECK_NEAR(v.profile.peak_flop_per_s, 312e12, 1e-9);
    CHECK_NEAR(v.profile.p[P_GEMM_EQ].v, 0, 0);
    CHECK_INT(v.profile.p[P_GEMM_EM].cover, COVER_CLASS);
    env_release(&v);
}

TEST(profile_every_system_and_engine_loads)
{
    struct arena a;
    arena_init(&a);
    struct err e = { 0 };
    struct hw_gpu *g;
    struct hw_system *s;
    int n_gpu, n_sys;
    static const char *const engines[] = { "vllm", "trtllm", "any" };
    CHECK_OK(hw_list(&a, &g, &n_gpu, &s, &n_sys, &e), &e);
    for (int i = 0; i < n_sys; i++)
        for (int k = 0; k < 3; k++)
            for (int tp = 1; tp <= s[i].n_gpu * 2; tp *= 4)
                for (int dt = 0; dt < DT_N; dt++) {
                    struct hw h;
                    struct profile p;
                    struct strategy st = { .tp = tp,
                                           .pp = 1,
                                           .dp = 1,
                                           .ep = 1,
                                           .weight_dtype = dt,
                                           .kv_dtype = dt % 2 ? DT_FP8 : DT_BF16 };
                    CHECK_OK(hw_load(s[i].name, NULL, 2, &a, &h, &e), &e);
                    CHECK_OK(profile_load(&h, &st, engines[k], NULL, &a, &p, &e), &e);
                    for (int id = 0; id < P_N; id++) {
                        CHECK(isfinite(p.p[id].v) && p.p[id].v >= 0 && p.p[id].sd_log >= 0);
                        CHECK(p.p[id].source != NULL);
                    }
                    if (dt == DT_BF16)
                        dt = DT_F32 + i % 3; /* bf16 and some others on each system */
                }
    arena_release(&a);
}

TEST(profile_draws_have_the_stated_spread)
{
    struct env v;
    CHECK_OK(env_init(&v, &env_llama70, "dgx-h100", 8), &v.e);
    struct rng r = rng_stream(42, "profile");
    static double x[P_N][N_DRAW];
    for (int k = 0; k < N_DRAW; k++) {
        struct profile p;
        profile_draw(&v.profile, r, k + 1, &p);
        for (int i = 0; i < P_N; i++) x[i][k] = log(p.p[i].v / v.profile.p[i].v);
    }
    for (int i = 0; i < P_N; i++) {
        const struct param *q = v.profile.p + i;
        if (q->v <= 0 || q->sd_log <= 0) {
            CHECK(q->v <= 0 || x[i][0] == 0);
            continue;
        }
        /* Uncapped constants: mean within 4.5 standard errors, spread within 6 %. */
        bool capped =
            q->v <= 1 && q->v * exp(4 * q->sd_log) > 1 &&
            (i == P_GEMM_EC || i == P_GEMM_EM || i == P_DEC_EM || i == P_PRE_EC || i == P_PRE_EM ||
             i == P_ELT_EM || i == P_MOE_EC || i == P_MOE_EM || i == P_SKEW_ALPHA);
        for (int k = 0; capped && k < N_DRAW; k++) CHECK(q->v * exp(x[i][k]) <= 1 + 1e-12);
        if (capped) continue;
        CHECK(fabs(stat_mean(x[i], N_DRAW)) < 4.5 * q->sd_log / sqrt(N_DRAW));
        CHECK_NEAR(stat_sd(x[i], N_DRAW), q->sd_log, 0.06);
    }
    env_release(&v);
}

TEST(profile_draws_are_common_random_numbers)
{
    struct env h, l;
    CHECK_OK(env_init(&h, &env_llama70, "dgx-h100", 8), &h.e);
    CHECK_OK(env_init(&l, &env_llama8, "l40s", 1), &l.e);
    struct rng r = rng_stream(1, "profile");
    for (int k = 1; k < 50; k++) {
        struct profile x, y, again;
        profile_draw(&h.profile, r, k, &x);
        profile_draw(&h.profile, r, k, &again);
        profile_draw(&l.profile, r, k, &y);
        for (int i = 0; i < P_N; i++) CHECK(x.p[i].v == again.p[i].v);
        double zx = log(x.p[P_HOST_STEP_S].v / h.profile.p[P_HOST_STEP_S].v) /
                    h.profile.p[P_HOST_STEP_S].sd_log;
        double zy = log(y.p[P_HOST_STEP_S].v / l.profile.p[P_HOST_STEP_S].v) /
                    l.profile.p[P_HOST_STEP_S].sd_log;
        CHECK(fabs(zx - zy) < 1e-9);
    }
    struct profile zero;
    profile_draw(&h.profile, r, 0, &zero);
    for (int i = 0; i < P_N; i++) CHECK(zero.p[i].v == h.profile.p[i].v);
    env_release(&h);
    env_release(&l);
}

TEST(profile_set_by_name)
{
    struct env v;
    CHECK_OK(env_init(&v, &env_llama8, "h100-sxm", 1), &v.e);
    for (int i = 0; i < P_N; i++) {
        CHECK_OK(profile_set(&v.profile, profile_param_name((enum profile_id)i), 1, &v.e), &v.e);
        CHECK_NEAR(v.profile.p[i].v, 1, 0);
        CHECK_NEAR(v.profile.p[i].sd_log, 0, 0);
    }
    struct err e = { 0 };
    CHECK_INT(profile_set(&v.profile, "host.stop", 1, &e), ST_USAGE);
    CHECK_HAS(e.text, "host.step");
    static const struct {
        const char *name;
        double v;
    } bad[] = {
        { "host.step", -1 }, { "gemm.e_m", 0 },    { "gemm.e_c", 3 }, { "skew.alpha", 1.5 },
        { "gemm.q", 0.5 },   { "allreduce.b", 0 }, { "p2p.a", NAN },  { "net.b", INFINITY }
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        err_clear(&e);
        CHECK_INT(profile_set(&v.profile, bad[i].name, bad[i].v, &e), ST_USAGE);
        CHECK_HAS(e.text, bad[i].name);
    }
    env_release(&v);
}
