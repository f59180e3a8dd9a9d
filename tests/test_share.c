/* tests/test_share.c - stages that slow each other, or speed each other up: closed forms, and a clock that only knows ticks.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "sim/share.h"
#include "tests/test.h"

enum { N_STAGE = 4, N_FLIGHT = 4 };

struct air {
    struct share v;
    struct share_flight f[N_FLIGHT], copy[N_FLIGHT], *list[N_FLIGHT];
    double work[N_FLIGHT][N_STAGE], hop[N_FLIGHT][N_STAGE];
};

static void air_init(struct air *a, int n_stage)
{
    *a = (struct air){ .v = { .n_stage = n_stage } };
    a->v.copy = a->copy;
    for (int i = 0; i < N_FLIGHT; i++) {
        a->f[i].work_ns = a->work[i];
        a->f[i].hop_ns = a->hop[i];
        a->list[i] = &a->f[i];
    }
}

static void launch(struct air *a, int i, double now, double slow)
{
    a->f[i].stage = 0;
    a->f[i].ready_ns = now;
    a->f[i].left_ns = a->work[i][0];
    a->f[i].began_ns = -1;
    a->f[i].slow = slow;
}

TEST(share_alone_is_a_pipeline)
{
    struct rng r = rng_stream(7, "share");
    uint64_t draw = 0;
    for (int k = 0; k < 200; k++) {
        struct air a;
        double end[N_FLIGHT], free_ns[N_STAGE] = { 0 };
        air_init(&a, 1 + k % N_STAGE);
        for (int i = 0; i < N_FLIGHT; i++) {
            for (int p = 0; p < a.v.n_stage; p++) {
                a.work[i][p] = floor(1000 * rng_unit(r, draw++));
                a.hop[i][p] = p + 1 < a.v.n_stage ? floor(100 * rng_unit(r, draw++)) : 0;
            }
            launch(&a, i, 5, 0);
        }
        share_foresee(&a.v, a.list, N_FLIGHT, 5, end);
        for (int i = 0; i < N_FLIGHT; i++) {
            double t = 5;
            for (int p = 0; p < a.v.n_stage; p++) {
                t = fmax(t, free_ns[p]) + a.work[i][p];
                free_ns[p] = t;
                t += a.hop[i][p];
            }
            CHECK_NEAR(end[i], t, 1e-12);
        }
    }
}

/* Two stages of equal work w, two batches, each twice as slow beside the other: the first batch is
 * alone for w; then both are on the way for 2 w; the second is alone for its last w. */
TEST(share_two_batches_by_hand)
{
    struct air a;
    double end[2];
    air_init(&a, 2);
    for (int i = 0; i < 2; i++) a.work[i][0] = a.work[i][1] = 100;
    launch(&a, 0, 0, 1);
    launch(&a, 1, 0, 1);
    share_foresee(&a.v, a.list, 2, 0, end);
    CHECK_NEAR(end[0], 300, 1e-12);
    CHECK_NEAR(end[1], 400, 1e-12);
    a.v.return_ns = 7;
    share_foresee(&a.v, a.list, 2, 0, end);
    CHECK_NEAR(end[0], 307, 1e-12);
    /* Only one of them is slowed: it does half of its work meanwhile. */
    a.v.return_ns = 0;
    a.f[0].slow = 0;
    share_foresee(&a.v, a.list, 2, 0, end);
    CHECK_NEAR(end[0], 200, 1e-12);
    CHECK_NEAR(end[1], 350, 1e-12);
    /* Each in half of its time beside the other: 100 alone, 50 for both, 100 alone. */
    a.f[0].slow = a.f[1].slow = -0.5;
    share_foresee(&a.v, a.list, 2, 0, end);
    CHECK_NEAR(end[0], 150, 1e-12);
    CHECK_NEAR(end[1], 250, 1e-12);
}

/* The scheduler on the first stage takes tokens when that has nothing to do. */
TEST(share_first_stage_drives)
{
    struct air a;
    double end[2];
    air_init(&a, 2);
    a.work[0][0] = 10, a.work[0][1] = 20, a.work[1][0] = 50, a.work[1][1] = 1;
    launch(&a, 0, 0, 0);
    launch(&a, 1, 0, 0);
    share_foresee(&a.v, a.list, 2, 0, end);
    CHECK_NEAR(end[0], 30, 1e-12);
    a.v.stage0_drives = true;
    share_foresee(&a.v, a.list, 2, 0, end);
    CHECK_NEAR(end[0], 60, 1e-12);
    CHECK_NEAR(end[1], 61, 1e-12);
}

/* The slow twin: a clock of small ticks, each flight that can goes on at its rate. */
static void by_ticks(const struct air *a, int n, double tick, double *end)
{
    int stage[N_FLIGHT] = { 0 };
    double left[N_FLIGHT], ready[N_FLIGHT], t = 0;
    int through = 0;
    for (int i = 0; i < n; i++) {
        left[i] = a->work[i][0];
        ready[i] = a->f[i].ready_ns;
    }
    for (; through < n; t += tick) {
        bool on[N_FLIGHT];
        int busy = 0;
        for (int i = 0; i < n; i++) {
            on[i] = stage[i] < a->v.n_stage && ready[i] <= t;
            for (int k = 0; k < i; k++) on[i] = on[i] && stage[k] != stage[i];
            busy += on[i];
        }
        for (int i = 0; i < n; i++) {
            if (!on[i]) continue;
            left[i] -= tick / (1 + (a->f[i].slow < 0 ? busy > 1 : busy - 1) * a->f[i].slow);
            if (left[i] > 0) continue;
            ready[i] = t + tick + a->hop[i][stage[i]];
            if (++stage[i] < a->v.n_stage) {
                left[i] = a->work[i][stage[i]];
            } else {
                end[i] = ready[i];
                through++;
            }
        }
    }
}

TEST(share_is_what_ticks_add_up_to)
{
    struct rng r = rng_stream(11, "share");
    uint64_t draw = 0;
    for (int k = 0; k < 60; k++) {
        struct air a;
        double end[N_FLIGHT], want[N_FLIGHT];
        int n = 2 + k % 3;
        air_init(&a, n);
        for (int i = 0; i < n; i++) {
            for (int p = 0; p < n; p++) {
                a.work[i][p] = 20 + 80 * rng_unit(r, draw++);
                a.hop[i][p] = p + 1 < n ? 10 * rng_unit(r, draw++) : 0;
            }
            launch(&a, i, 0, -0.8 + 2.3 * rng_unit(r, draw++));
        }
        share_foresee(&a.v, a.list, n, 0, end);
        by_ticks(&a, n, 1e-3, want);
        for (int i = 0; i < n; i++) CHECK_NEAR(end[i], want[i], 1e-3);
    }
}

/* Moved by pieces or at once, flights arrive alike; and a stage is told of once, in order. */
struct told {
    int n;
    double last[N_STAGE];
    bool in_order;
};

static void on_left(void *ctx, struct share_flight *f, int stage, const double span_ns[2])
{
    struct told *t = ctx;
    (void)f;
    t->in_order &= span_ns[0] >= t->last[stage] && span_ns[1] >= span_ns[0];
    t->last[stage] = span_ns[1];
    t->n++;
}

TEST(share_by_pieces)
{
    struct rng r = rng_stream(13, "share");
    uint64_t draw = 0;
    for (int k = 0; k < 100; k++) {
        struct air a, b;
        struct told told = { .in_order = true };
        double end[N_FLIGHT], rest[N_FLIGHT], t = 0;
        air_init(&a, 3);
        for (int i = 0; i < 3; i++) {
            for (int p = 0; p < 3; p++) a.work[i][p] = 10 + 90 * rng_unit(r, draw++);
            launch(&a, i, 0, -0.8 + 1.8 * rng_unit(r, draw++));
        }
        b = a;
        for (int i = 0; i < 3; i++) {
            b.list[i] = &b.f[i];
            b.f[i].work_ns = b.work[i];
            b.f[i].hop_ns = b.hop[i];
        }
        b.v.copy = b.copy;
        b.v.left = on_left;
        b.v.ctx = &told;
        share_foresee(&a.v, a.list, 3, 0, end);
        for (int s = 0; s < 20; s++) {
            double to = t + 40 * rng_unit(r, draw++);
            share_move(&b.v, b.list, 3, t, to);
            t = to;
            if (b.f[0].stage == 3) break;
            share_foresee(&b.v, b.list, 3, t, rest);
            for (int i = 0; i < 3; i++) CHECK_NEAR(rest[i], end[i], 1e-9);
        }
        share_move(&b.v, b.list, 3, t, 1e6);
        CHECK(told.n == 9 && told.in_order);
    }
}
