/* traces/arrive.c - instants of arrivals: Poisson, gamma gaps, constant, two-state
 * Markov-modulated, burst.
 *
 * Gaps are drawn with mean 1 and divided by the rate at the end: another rate sees the same
 * pattern, stretched.
 * SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <math.h>

#include "traces/trace_priv.h"

/* Two-state MMPP: intensity high for a mean of stay_s[1], low for stay_s[0], with the mean over
 * time equal to the rate: low * (H r + L) / (H + L) = rate, r = high / low. It starts in either
 * state with its share of time. Source: Fischer, Meier-Hellstern, "The MMPP cookbook", Performance
 * Evaluation 18, 1993. */
static void mmpp_init(struct arrive *p, const struct trace_opts *o)
{
    double h = 1e-9 * (double)o->mmpp_high_ns, l = 1e-9 * (double)o->mmpp_low_ns;
    assert(h > 0 && l > 0 && o->mmpp_ratio >= 1);
    p->state_per_s[0] = p->rate_per_s * (h + l) / (h * o->mmpp_ratio + l);
    p->state_per_s[1] = p->state_per_s[0] * o->mmpp_ratio;
    p->stay_s[0] = l;
    p->stay_s[1] = h;
    p->state = rng_unit(p->stay, p->n_stay++) < h / (h + l);
    p->until_s = rng_exp(p->stay, p->n_stay++, p->stay_s[p->state]);
}

/* The gap is a unit of integrated intensity, spent over as many stays as it takes. */
static double mmpp_next_s(struct arrive *p)
{
    double need = rng_exp(p->gap, p->n_gap++, 1);
    while ((p->until_s - p->t_s) * p->state_per_s[p->state] < need) {
        need -= (p->until_s - p->t_s) * p->state_per_s[p->state];
        p->t_s = p->until_s;
        if (p->t_s * 1e9 > (double)TRACE_MAX_NS) return p->t_s;
        p->state = !p->state;
        p->until_s += rng_exp(p->stay, p->n_stay++, p->stay_s[p->state]);
    }
    p->t_s += need / p->state_per_s[p->state];
    return p->t_s;
}

void arrive_init(struct arrive *p, const struct trace_opts *o, double rate_per_s, uint64_t seed)
{
    assert(o->arrivals != ARRIVE_AUTO && o->arrivals != ARRIVE_CLOSED &&
           o->arrivals != ARRIVE_TRACE);
    *p = (struct arrive){ .kind = o->arrivals, .rate_per_s = rate_per_s };
    p->gap = rng_stream(seed, "workload.arrivals");
    p->stay = rng_stream(seed, "workload.arrivals.state");
    if (p->kind == ARRIVE_GAMMA) p->shape = 1 / (o->burstiness * o->burstiness);
    if (p->kind == ARRIVE_MMPP) mmpp_init(p, o);
}

int64_t arrive_next(struct arrive *p)
{
    double t_s = 0;
    switch (p->kind) {
    case ARRIVE_BURST: return 0;
    case ARRIVE_MMPP: t_s = mmpp_next_s(p); break;
    case ARRIVE_POISSON: p->sum += rng_exp(p->gap, p->n_gap++, 1); break;
    case ARRIVE_GAMMA: p->sum += rng_gamma(p->gap, p->n_gap++, p->shape, 1 / p->shape); break;
    default: p->sum += 1; break;
    }
    if (p->kind != ARRIVE_MMPP) t_s = p->sum / p->rate_per_s;
    double t_ns = t_s * 1e9;
    return t_ns <= (double)TRACE_MAX_NS ? (int64_t)(t_ns + 0.5) : TRACE_MAX_NS + 1;
}
