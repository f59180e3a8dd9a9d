/* tests/test_calibrate_wait.c - what requests wait before the scheduler sees them, of one run and of
 * several. SPDX-License-Identifier: Apache-2.0 */
#include "bench/calibrate.h"

#include <math.h>
#include <stdio.h>

#include "base/rng.h"
#include "tests/test.h"

TEST(calibrate_waits_have_a_robust_centre)
{
    struct calibrate_wait w[] = { { 50e-6, .05 }, { 10e-6, .05 }, { 11e-6, .05 } }, all;
    double x[100];
    for (int i = 0; i < 100; i++) x[i] = 1e-6 * (i + 1);
    all = calibrate_wait_of(x, 100); /* ranks 0 and 5 of the hundred */
    CHECK_NEAR(all.s, 2.98e-6, 1e-9);
    CHECK_NEAR(all.sd_log, FIT_OPEN_SD, 1e-9); /* a factor of 6 between them */
    for (int i = 0; i < 100; i++) x[i] = 1e-5 * exp(0.01 * i);
    CHECK_NEAR(calibrate_wait_of(x, 100).sd_log, 0.05 / (2 * 1.645), 1e-9);
    CHECK_NEAR(calibrate_wait_of(x, 1).sd_log, FIT_OPEN_SD, 0);
    all = calibrate_waits(w, 3); /* neither the worst nor the one with the most requests */
    CHECK_NEAR(all.s, 11e-6, 1e-12);
    CHECK_NEAR(all.sd_log, FIT_OPEN_SD, 1e-9);
    w[2] = (struct calibrate_wait){ 10.5e-6, .05 };
    w[1] = (struct calibrate_wait){ 10.4e-6, .05 };
    w[0] = (struct calibrate_wait){ 10.6e-6, .05 };
    all = calibrate_waits(w, 3); /* the runs' own spread is more than what is between them */
    CHECK_NEAR(all.sd_log, 1.2533 * .05 / sqrt(3), 1e-6);
    w[0] = (struct calibrate_wait){ 0, .5 };
    all = calibrate_waits(w, 1);
    CHECK(all.s == 0 && all.sd_log == 0);
}

/* Nominal 90 % intervals over sets of runs that scatter. */
TEST(calibrate_intervals_of_waits_cover)
{
    struct rng r = rng_stream(8, "waits");
    uint64_t draw = 0;
    for (int n = 2; n <= 6; n++) {
        int in = 0;
        for (int k = 0; k < 1000; k++) {
            struct calibrate_wait w[6];
            for (int i = 0; i < n; i++)
                w[i] = (struct calibrate_wait){ 1e-5 * exp(0.1 * rng_normal(r, draw++)), 0 };
            struct calibrate_wait all = calibrate_waits(w, (size_t)n);
            in += fabs(log(all.s / 1e-5)) <= 1.645 * all.sd_log;
        }
        /* 3 sd of 900; the standard error of a median of few is less than that of many, so more */
        if (!CHECK(in >= 870 && in <= 970)) fprintf(stderr, "%d runs: %d\n", n, in);
    }
}
