/* sim/series.c - see series.h. SPDX-License-Identifier: Apache-2.0 */
#include "sim/series.h"

#include <math.h>
#include <string.h>

void series_init(struct series *s, int64_t bin_ns, struct arena *a)
{
    s->bin_ns = bin_ns;
    s->n = 0;
    s->bin = arena_array(a, SERIES_MAX, sizeof *s->bin);
}

static void join(struct series_bin *into, const struct series_bin *a, const struct series_bin *b)
{
    *into = (struct series_bin){ a->running + b->running, a->queue + b->queue,
                                 a->kv + b->kv,           a->in_tok + b->in_tok,
                                 a->out_tok + b->out_tok, a->arrivals + b->arrivals,
                                 a->done + b->done };
}

/* The bin that holds t, after making room for it. */
static int bin_of(struct series *s, int64_t t_ns)
{
    while (t_ns / s->bin_ns >= SERIES_MAX) {
        for (int i = 0; i < SERIES_MAX / 2; i++)
            join(&s->bin[i], &s->bin[2 * i], &s->bin[2 * i + 1]);
        memset(&s->bin[SERIES_MAX / 2], 0, SERIES_MAX / 2 * sizeof *s->bin);
        s->bin_ns *= 2;
        s->n = (s->n + 1) / 2;
    }
    int i = (int)(t_ns / s->bin_ns);
    if (i >= s->n) s->n = i + 1;
    return i;
}

void series_state(struct series *s, int64_t t0, int64_t t1, double running, double queue,
                  double kv0, double kv1)
{
    if (t1 <= t0) return;
    int last = bin_of(s, t1 - 1);
    double slope = (kv1 - kv0) / (double)(t1 - t0);
    for (int i = bin_of(s, t0); i <= last; i++) {
        int64_t lo = i * s->bin_ns, hi = lo + s->bin_ns;
        if (lo < t0) lo = t0;
        if (hi > t1) hi = t1;
        double dt = (double)(hi - lo), mid = (double)(lo - t0) + dt / 2;
        s->bin[i].running += running * dt;
        s->bin[i].queue += queue * dt;
        s->bin[i].kv += (kv0 + slope * mid) * dt;
    }
}

void series_tokens(struct series *s, int64_t t0, int64_t t1, double in_tok, double out_tok)
{
    if (t1 <= t0) {
        struct series_bin *b = &s->bin[bin_of(s, t1)];
        b->in_tok += in_tok;
        b->out_tok += out_tok;
        return;
    }
    int last = bin_of(s, t1);
    double per_ns = 1 / (double)(t1 - t0);
    for (int i = bin_of(s, t0); i <= last; i++) {
        int64_t lo = i * s->bin_ns, hi = lo + s->bin_ns;
        if (lo < t0) lo = t0;
        if (hi > t1) hi = t1;
        s->bin[i].in_tok += in_tok * per_ns * (double)(hi - lo);
        s->bin[i].out_tok += out_tok * per_ns * (double)(hi - lo);
    }
}

void series_arrival(struct series *s, int64_t t_ns)
{
    s->bin[bin_of(s, t_ns)].arrivals++;
}

void series_done(struct series *s, int64_t t_ns)
{
    s->bin[bin_of(s, t_ns)].done++;
}

void series_row(const struct series *s, int i, double kv_all, int64_t t_stop_ns,
                struct run_bin *out)
{
    const struct series_bin *b = &s->bin[i];
    int64_t t0 = i * s->bin_ns, width = s->bin_ns;
    if (t_stop_ns > t0 && t_stop_ns < t0 + width) width = t_stop_ns - t0;
    double ns = (double)width, second = ns * 1e-9;
    *out = (struct run_bin){ .t_ns = t0,
                             .running = b->running / ns,
                             .queue = b->queue / ns,
                             .kv_used_ratio = kv_all > 0 ? b->kv / ns / kv_all : 0,
                             .in_tok_per_s = b->in_tok / second,
                             .out_tok_per_s = b->out_tok / second,
                             .arrivals_per_s = b->arrivals / second,
                             .done_per_s = b->done / second };
}

double series_in_system(const struct series *s, int64_t t0, int64_t t1)
{
    int64_t lo = (t0 + s->bin_ns - 1) / s->bin_ns, hi = t1 / s->bin_ns;
    double sum = 0;
    if (hi > s->n) hi = s->n;
    if (hi <= lo) return NAN;
    for (int64_t i = lo; i < hi; i++) sum += s->bin[i].running + s->bin[i].queue;
    return sum / ((double)(hi - lo) * (double)s->bin_ns);
}
