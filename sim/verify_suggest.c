/* sim/verify_suggest.c - TP, PP and DP for the GPUs at hand, ranked by simulation, with the reason of each rank.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/pool.h"
#include "base/units.h"
#include "sim/verify_try.h"

enum { MAX_PLAN = 512, SHOWN = 12, N_TEXT = 40 };

struct plan {
    struct strategy s;
    struct verify_alt x;
    enum verify_tried is;
    struct err e;
};
struct plans {
    struct verify_site site;
    struct plan *plan;
    int n;
};

/* ---- what is asked of every plan */

/* The scenario with another workload: given context and batch, as many clients as the batch in a closed loop, each
 * request of that context; else for throughput and cost all requests at once, and for latency as it is. */
static int workload(const struct verify_world *w, struct scenario *s, struct arena *a,
                    struct err *e)
{
    const struct verify_ask *q = w->in->ask;
    struct conf_set set;
    int64_t batch = q->batch > 0 ? q->batch : w->in->base->policy.max_seqs;
    *s = *w->in->base;
    if (q->context == 0 && q->batch == 0 && q->urgency == VERIFY_LATENCY) return ST_OK;
    /* conf_add writes the defaults into what it is given: start from them, then set again what is kept. */
    struct trace_opts asked = s->workload;
    conf_init(&set, a);
    conf_add(&set, trace_rows, &s->workload, "workload");
    if (q->context == 0 && q->batch == 0) {
        int st = conf_set_text(&set, "workload.arrivals", "burst", "suggest", e);
        int burst = s->workload.arrivals;
        s->workload = asked;
        s->workload.arrivals = burst;
        return st;
    }
    double out = fmin(w->in->load->mean_out, 0.25 * (double)(q->context > 0 ? q->context : 4096));
    double all = q->context > 0 ? (double)q->context : w->in->load->mean_in + w->in->load->mean_out;
    out = fmax(1, floor(out));
    const struct {
        const char *key;
        int64_t v;
        const char *unit;
    } set_to[] = { { "workload.concurrency", batch, "" },
                   { "workload.requests", batch < 250 ? 4 * batch : VERIFY_TRY_REQUESTS, "" },
                   { "workload.prompt.mean", (int64_t)fmax(1, all - out), "tok" },
                   { "workload.output.mean", (int64_t)out, "tok" },
                   { "workload.prompt.sigma", 0, "" },
                   { "workload.output.sigma", 0, "" } };
    int st = conf_set_text(&set, "workload.arrivals", "closed", "suggest", e);
    for (size_t i = 0; i < sizeof set_to / sizeof *set_to && st == ST_OK; i++)
        st = conf_set_text(&set, set_to[i].key,
                           arena_printf(a, "%" PRId64 "%s", set_to[i].v, set_to[i].unit), "suggest",
                           e);
    return st;
}

/* ---- plans */

static void add_plans(struct plans *p, const struct strategy *base, int64_t gpus)
{
    struct strategy s = *base;
    struct hw one = p->site.hw;
    s.split = "auto";
    one.n_node = 1 << 20;
    for (s.tp = 1; s.tp <= gpus && s.tp <= 1024; s.tp++)
        for (s.pp = 1; s.tp * s.pp <= gpus && s.pp <= STRATEGY_MAX_PP; s.pp++) {
            s.dp = s.ep = 1;
            if (strategy_check(&s, &p->site.arch, &one, NULL) != ST_OK) continue;
            if ((s.pp & (s.pp - 1)) && gpus % (s.tp * s.pp))
                continue; /* odd stage counts that leave GPUs over */
            if (!verify_site_may_fit(&p->site, &s)) continue;
            int64_t most = gpus / (s.tp * s.pp);
            for (int64_t dp = 1;; dp = 2 * dp < most ? 2 * dp : most) {
                s.dp = dp;
                if (p->n < MAX_PLAN) p->plan[p->n++].s = s;
                if (dp == most) break;
            }
        }
}

static void work(void *arg, int i)
{
    struct plans *p = arg;
    struct plan *x = &p->plan[i];
    x->is = verify_try(&p->site, &x->s, &x->x, &x->e);
}

static double value_of(const struct verify_alt *x, int urgency)
{
    double tok = x->run.out_tok_per_s;
    switch (urgency) {
    case VERIFY_THROUGHPUT: return -tok;
    case VERIFY_COST:
        return x->gpu_usd_per_h > 0 ? x->gpu_usd_per_h / 3600 / tok * 1e6
                                    : (double)x->gpus / tok * 1e6;
    case VERIFY_LATENCY:
    default: return x->run.e2e_mean_ns;
    }
}

static int by_value(const void *px, const void *py)
{
    const struct verify_alt *x = px, *y = py;
    if ((x->score < 0) != (y->score < 0)) return x->score < 0 ? 1 : -1;
    if (x->value != y->value) return x->value < y->value ? -1 : 1;
    if (x->gpus != y->gpus) return x->gpus < y->gpus ? -1 : 1;
    return x->strategy.tp < y->strategy.tp ? -1 : x->strategy.tp > y->strategy.tp;
}

/* ---- why */

static const char *value_text(const struct verify_alt *x, int urgency, struct arena *a)
{
    char buf[N_TEXT];
    switch (urgency) {
    case VERIFY_THROUGHPUT: return arena_printf(a, "%.4g tokens/s", -x->value);
    case VERIFY_COST:
        return x->gpu_usd_per_h > 0
                   ? arena_printf(a, "%.3g USD per million tokens", x->value)
                   : arena_printf(a, "%.3g GPU seconds per million tokens", x->value);
    case VERIFY_LATENCY:
    default: return arena_printf(a, "mean E2E %s", units_human_ns(x->value, buf, sizeof buf));
    }
}

static double coll_ns(const struct verify_alt *x)
{
    return x->run.share[STEP_COLL] * x->run.tpot_p50_ns;
}

/* In what the plan differs from the best one so much that it tells; "" where in nothing. */
static const char *differences(const struct verify_alt *x, const struct verify_alt *best,
                               struct arena *a)
{
    char u[N_TEXT], v[N_TEXT];
    const char *text = "";
    if (x->gpus < best->gpus)
        text = arena_printf(a, "; uses %" PRId64 " GPUs (best %" PRId64 ")", x->gpus, best->gpus);
    if (x->serial_bytes > 1.2 * best->serial_bytes)
        text = arena_printf(a, "%s; a token passes %s of weights in a row (best %s)", text,
                            units_human(UNIT_BYTES, x->serial_bytes, u, sizeof u),
                            units_human(UNIT_BYTES, best->serial_bytes, v, sizeof v));
    if (x->kv_tok < 0.5 * best->kv_tok)
        text = arena_printf(a, "%s; KV room for %.3g tokens (best %.3g)", text, x->kv_tok,
                            best->kv_tok);
    if (coll_ns(x) > coll_ns(best) + 0.05 * best->run.tpot_p50_ns)
        text = arena_printf(a, "%s; collectives are %s of each token's time (best %s)", text,
                            units_human_ns(coll_ns(x), u, sizeof u),
                            units_human_ns(coll_ns(best), v, sizeof v));
    if (x->run.bubble > best->run.bubble + 0.05)
        text =
            arena_printf(a, "%s; stages idle %.0f %% of the time that there is work (best %.0f %%)",
                         text, 100 * x->run.bubble, 100 * best->run.bubble);
    if (x->strategy.dp < best->strategy.dp && x->gpus == best->gpus)
        text =
            arena_printf(a, "%s; %" PRId64 " replica%s with larger batches (best %" PRId64 ")",
                         text, x->strategy.dp, x->strategy.dp == 1 ? "" : "s", best->strategy.dp);
    if (x->run.rejected > best->run.rejected)
        text = arena_printf(a, "%s; %" PRId64 " requests rejected (best %" PRId64 ")", text,
                            x->run.rejected, best->run.rejected);
    return text;
}

static const char *reason(const struct verify_alt *x, const struct verify_alt *best, int urgency,
                          struct arena *a)
{
    const char *value = value_text(x, urgency, a);
    if (x == best) {
        int most = 0;
        char u[N_TEXT];
        for (int k = 1; k < STEP_N_CLASS; k++)
            if (x->run.share[k] > x->run.share[most]) most = k;
        return arena_printf(a,
                            "%s; most of the time is %s (%.0f %%); a token passes %s of weights in "
                            "a row; KV room for "
                            "%.3g tokens; busiest stage %.0f %% busy",
                            value, step_class_name((enum step_class)most), 100 * x->run.share[most],
                            units_human(UNIT_BYTES, x->serial_bytes, u, sizeof u), x->kv_tok,
                            100 * x->run.busy);
    }
    double worse = 100 * fabs(x->value - best->value) / fabs(best->value);
    bool missed = !x->run.held && best->run.held && urgency == VERIFY_LATENCY;
    return arena_printf(a, "%s, %.1f %% %s%s%s", value, worse,
                        x->value < best->value ? "better" : "worse",
                        missed ? "; misses the SLO" : "", differences(x, best, a));
}

/* ---- all of it */

/* The best, and the plan itself wherever it stands. */
static void cut(const struct verify_world *w, struct verify_alts *out)
{
    const struct strategy *s = w->in->strategy ? w->in->strategy : &w->in->base->strategy;
    for (int i = 0; i < out->n; i++) {
        const struct strategy *x = &out->alt[i].strategy;
        bool own = x->tp == s->tp && x->pp == s->pp && x->dp == s->dp;
        out->alt[i].rank = i + 1;
        if (own && i >= SHOWN) out->alt[SHOWN - 1] = out->alt[i];
    }
    if (out->n > SHOWN) out->n = SHOWN;
}

static int collect(const struct plans *p, const struct verify_world *w, struct arena *a,
                   struct verify_alts *out, struct err *e)
{
    int urgency = w->in->ask->urgency;
    out->alt = arena_array(a, (size_t)p->n, sizeof *out->alt);
    out->n_tried = p->n;
    for (int i = 0; i < p->n; i++) {
        struct plan *x = &p->plan[i];
        if (x->is == VERIFY_TRY_FAILED)
            return err_set(e, x->e.status ? x->e.status : ST_RANGE, "%s", x->e.text);
        if (x->is != VERIFY_TRY_FITS || !x->x.run.ran || !isfinite(value_of(&x->x, urgency)))
            continue;
        struct verify_alt *y = &out->alt[out->n++];
        *y = x->x;
        y->value = value_of(y, urgency);
        /* For latency a plan that holds the SLO stands before any that does not. */
        y->score = urgency == VERIFY_LATENCY && !y->run.held ? -1 - y->score : y->score;
    }
    out->n_simulated = out->n;
    qsort(out->alt, (size_t)out->n, sizeof *out->alt, by_value);
    cut(w, out);
    for (int i = 0; i < out->n; i++) {
        struct verify_alt *x = &out->alt[i];
        if (x->score < 0) x->score = -1 - x->score;
        x->kind = "advice";
        x->plan = verify_try_text(x, a);
        x->reason = reason(x, out->alt, urgency, a);
    }
    return ST_OK;
}

int verify_suggest(const struct verify_world *w, struct arena *a, struct verify_alts *out,
                   struct err *e)
{
    struct scenario s;
    struct verify_in in = *w->in;
    struct plans p = { .plan = arena_array(a, MAX_PLAN, sizeof(struct plan)) };
    const struct strategy *base = in.strategy ? in.strategy : &in.base->strategy;
    struct deploy_request q = { .model = in.base->o.model, .beside = in.base->path };
    struct verify_ask ask = *in.ask;
    *out = (struct verify_alts){ 0 };
    if (in.none) return ST_OK;
    int st = workload(w, &s, a, e);
    ask.context = ask.batch =
        0; /* asked by the workload now: a plan that cannot batch it all may still run */
    in.base = &s;
    in.ask = &ask;
    p.site = (struct verify_site){
        .in = &in, .hw = *w->in->hw, .fixed = w->in->fixed, .simulate = true
    };
    if (st == ST_OK) st = deploy_model(&q, a, &p.site.arch, e);
    if (st != ST_OK) return st;
    int64_t gpus = base->tp * base->pp * base->dp, node = p.site.hw.sys.n_gpu;
    if (in.fixed || gpus < node) gpus = node * p.site.hw.n_node;
    add_plans(&p, base, gpus);
    pool_run(w->threads, p.n, work, &p);
    return collect(&p, w, a, out, e);
}
