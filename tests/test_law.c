/* tests/test_law.c - kernel laws against closed forms and limits, and against measured kernels.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/law.h"

#include <math.h>

#include "base/rng.h"
#include "tests/test.h"

TEST(law_smoothmax_limits)
{
    CHECK_NEAR(law_smoothmax(3, 4, 2), 5, 1e-14);
    CHECK_NEAR(law_smoothmax(3, 4, 1), 7, 1e-15);
    CHECK_NEAR(law_smoothmax(1, 1, 4), pow(2, 0.25), 1e-14);
    CHECK_NEAR(law_smoothmax(0, 4, 2), 4, 0);
    CHECK_NEAR(law_smoothmax(4, 0, 1), 4, 0);
    CHECK_NEAR(law_smoothmax(0, 0, 3), 0, 0);
    CHECK_NEAR(law_smoothmax(2, 3, 1e6), 3, 1e-6);
    CHECK_NEAR(law_smoothmax(1e300, 1e300, 3), 1e300 * cbrt(2), 1e-13);
    CHECK_NEAR(law_smoothmax(1e-300, 2e-300, 50), 2e-300, 1e-6);
}

TEST(law_smoothmax_is_a_rising_norm)
{
    struct rng r = rng_stream(7, "smoothmax");
    for (uint64_t i = 0; i < 2000; i++) {
        double x = exp(20 * rng_unit(r, 4 * i) - 10), y = exp(20 * rng_unit(r, 4 * i + 1) - 10);
        double q = 1 + 60 * rng_unit(r, 4 * i + 2) * rng_unit(r, 4 * i + 3);
        double z = law_smoothmax(x, y, q);
        CHECK(z >= fmax(x, y) && z <= (x + y) * (1 + 1e-14));
        CHECK_NEAR(z, law_smoothmax(y, x, q), 1e-15);
        CHECK_NEAR(law_smoothmax(3 * x, 3 * y, q), 3 * z, 1e-13);
        CHECK(law_smoothmax(1.01 * x, y, q) >= z);
        CHECK(law_smoothmax(x, y, q + 1) <= z * (1 + 1e-14));
    }
}

TEST(law_gemm_known_answers)
{
    /* 1000^3: 2 GFLOP at 1 TFLOP/s = 2 ms; 6 MB at 1 GB/s = 6 ms. */
    struct law_gemm l = { 1e-3, 1, 1, 1, 0, 1e12, 1e9 };
    struct law_gemm_shape s = { 1000, 1000, 1000, 2, 2, 2 };
    CHECK_NEAR(law_gemm_s(&l, &s), 9e-3, 1e-12);
    l.q = 2;
    CHECK_NEAR(law_gemm_s(&l, &s), 1e-3 + sqrt(40) * 1e-3, 1e-12);
    l.e_q = 0.5; /* 3 MB at half of 1 GB/s */
    CHECK_NEAR(law_gemm_s(&l, &s), 7e-3 + sqrt(40) * 1e-3, 1e-12);
    l = (struct law_gemm){ 0, 0.5, 1, 1e3, 0, 1e12, 1e30 };
    CHECK_NEAR(law_gemm_s(&l, &s), 4e-3, 1e-9);
    s.weight_bytes = 0.5;
    l = (struct law_gemm){ 0, 1, 0.5, 1e3, 0, 1e30, 1e9 };
    CHECK_NEAR(law_gemm_s(&l, &s), 2 * 4.5e-3, 1e-9);
}

TEST(law_attention_known_answers)
{
    struct law_attn_decode d = { 1e-5, 0.5, 2e-9, 1e12, 0 };
    /* 4 sequences of 1000 tokens, 8 heads over 2 KV heads of 64, 2 bytes: 2*4000*2*64*2 = 2.048 MB,
     * 4*4*8*64 = 8192 B */
    CHECK_NEAR(law_attn_decode_s(&d, 4, 4000, 8, 2, 64, 2),
               1e-5 + (2048000 + 8192) / 5e11 + 4 * 8 * 2e-9, 1e-12);
    /* floor 4 us: 2 us of streaming count double below the crossing, 6 us of it and more do not */
    d = (struct law_attn_decode){ 1e-5, 1, 0, 1e12, 4e-6 };
    CHECK_NEAR(law_attn_decode_s(&d, 0, 1e6, 1, 1, 1, 1), 8e-6, 1e-12);
    CHECK_NEAR(law_attn_decode_s(&d, 0, 3e6, 1, 1, 1, 1), 16e-6, 1e-12);
    CHECK_NEAR(law_attn_decode_s(&d, 0, 9e6, 1, 1, 1, 1), 28e-6, 1e-12);
    d = (struct law_attn_decode){ 1e-6, 1, 0, 1e12, 4e-6 };
    CHECK_NEAR(law_attn_decode_s(&d, 0, 1e6, 1, 1, 1, 1), 4e-6, 1e-12);
    CHECK_NEAR(law_attn_decode_s(&d, 0, 3e6, 1, 1, 1, 1), 7e-6, 1e-12);
    /* One prompt of 100 tokens: 5050 pairs */
    struct law_attn_prefill p = { 1e-5, 0.5, 0.5, 1e12, 1e9 };
    CHECK_NEAR(law_attn_prefill_s(&p, 5050, 1e6, 8, 64), 1e-5 + 4.0 * 5050 * 8 * 64 / 5e11 + 2e-3,
               1e-12);
}

TEST(law_collective_limits)
{
    CHECK_NEAR(law_coll_s(1e-5, 1e11, 2e-5, 1e6, 0), 0, 0);
    CHECK_NEAR(law_coll_s(1e-5, 1e11, 2e-5, 1e6, 1e6), 1e-5 + 1e-5 + 1e-5, 1e-12);
    CHECK_NEAR(law_coll_s(1e-5, 1e11, 2e-5, 1e6, 1e15), 3e-5 + 1e4, 1e-9);
    CHECK_NEAR(law_coll_s(1e-5, 1e11, 0, 0, 1e3), 1e-5 + 1e-8, 1e-12);
}
