/* sim/share.c - stages that slow each other: a small simulation of the flights in the air.
 * SPDX-License-Identifier: Apache-2.0 */
#include "sim/share.h"

#include <assert.h>
#include <math.h>

#include "model/strategy.h"

/* Whether flight i works at t: it is there, and no older one still is. */
static bool works(const struct share *v, struct share_flight *const *f, int i, double t)
{
    const struct share_flight *x = f[i];
    return x->stage < v->n_stage && x->ready_ns <= t && (i == 0 || f[i - 1]->stage > x->stage);
}

/* How many times as long as alone x takes while so many stages are busy. */
static double times_of(const struct share_flight *x, int busy)
{
    int others = x->slow < 0 && busy > 2 ? 1 : busy - 1;
    return 1 + others * x->slow;
}

/* To the first event after t, an arrival or the end of a stage's work, but not past `most`. */
static double step_on(const struct share *v, struct share_flight *const *f, int n, double t,
                      double most)
{
    double next = most;
    int busy = 0;
    for (int i = 0; i < n; i++) busy += works(v, f, i, t);
    for (int i = 0; i < n; i++) {
        const struct share_flight *x = f[i];
        if (works(v, f, i, t))
            next = fmin(next, t + x->left_ns * times_of(x, busy));
        else if (x->stage < v->n_stage && x->ready_ns > t)
            next = fmin(next, x->ready_ns);
    }
    for (int i = n - 1; i >= 0; i--) { /* who moves on changes only what younger ones may do */
        struct share_flight *x = f[i];
        if (!works(v, f, i, t)) continue;
        double times = times_of(x, busy);
        if (x->began_ns < 0) x->began_ns = t;
        if (t + x->left_ns * times > next) {
            x->left_ns -= (next - t) / times;
            continue;
        }
        if (v->left) v->left(v->ctx, x, x->stage, (double[]){ x->began_ns, next });
        x->ready_ns = next + x->hop_ns[x->stage];
        x->began_ns = -1;
        if (++x->stage < v->n_stage) x->left_ns = x->work_ns[x->stage];
    }
    return next;
}

void share_move(const struct share *v, struct share_flight *const *f, int n, double from_ns,
                double to_ns)
{
    while (from_ns < to_ns) from_ns = step_on(v, f, n, from_ns, to_ns);
}

/* When the first stage is at work, without a gap: nothing is launched while it is foreseen. */
static void note_stage0(void *ctx, struct share_flight *f, int stage, const double span_ns[2])
{
    double *busy = ctx;
    (void)f;
    if (stage != 0) return;
    busy[0] = fmin(busy[0], span_ns[0]);
    busy[1] = fmax(busy[1], span_ns[1]);
}

void share_foresee(const struct share *v, struct share_flight *const *f, int n, double from_ns,
                   double *end_ns)
{
    struct share_flight *in[STRATEGY_MAX_PP] = { NULL };
    double busy[2] = { INFINITY, -INFINITY }, t = from_ns;
    struct share w = *v;
    w.left = note_stage0;
    w.ctx = busy;
    assert(n >= 1 && n <= STRATEGY_MAX_PP);
    for (int i = 0; i < n; i++) {
        v->copy[i] = *f[i];
        in[i] = v->copy + i;
    }
    while (v->copy[n - 1].stage < v->n_stage) t = step_on(&w, in, n, t, INFINITY);
    for (int i = 0; i < n; i++) {
        end_ns[i] = in[i]->ready_ns + v->return_ns;
        bool held = v->stage0_drives && end_ns[i] >= busy[0] && end_ns[i] < busy[1];
        if (held) end_ns[i] = busy[1];
    }
}
