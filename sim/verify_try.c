/* sim/verify_try.c - see verify_try.h. SPDX-License-Identifier: Apache-2.0 */
#include "sim/verify_try.h"

#include <inttypes.h>
#include <math.h>

int64_t verify_site_gpus(const struct verify_site *w, int64_t most)
{
    int64_t have = (int64_t)w->hw.sys.n_gpu * w->hw.n_node;
    if (w->fixed || w->hw.sys.inter_bytes_per_s <= 0) return have < most ? have : most;
    return most;
}

/* Some stage has the mean number of layers or more; if not even the lightest stage could hold as many, no split
 * fits. */
bool verify_site_may_fit(const struct verify_site *w, const struct strategy *s)
{
    const struct sched_opts *o = &w->in->base->policy;
    struct memory_limits lim = { o->max_seqs, o->max_seqs, o->block_tok, o->memory_util };
    int layers = (int)((w->arch.n_layer + s->pp - 1) / s->pp);
    int light[3] = { 0, (int)s->pp / 2, (int)s->pp - 1 };
    if (o->kv_blocks > 0) return true;
    for (int i = 0; i < 3; i++) {
        struct memory m;
        memory_stage(&w->arch, &w->hw, s, light[i], layers, &lim, &m);
        if (m.kv_blocks > 0) return true;
    }
    return false;
}

static double times(double per_node, int64_t nodes)
{
    return per_node > 0 ? per_node * (double)nodes : 0;
}

/* Prices of the nodes; where the catalog has none, of their GPUs alone. */
static void price(const struct hw *h, struct verify_alt *x)
{
    const struct hw_system *s = &h->sys;
    const struct hw_gpu *g = &h->gpu;
    double n = s->n_gpu, gpu_rent = (g->rent_usd_per_h_lo + g->rent_usd_per_h_hi) / 2;
    bool buys = s->price_usd_lo > 0 || s->price_usd_hi > 0;
    bool rents = s->rent_usd_per_h_lo > 0 || s->rent_usd_per_h_hi > 0;
    x->usd_lo = times(buys ? s->price_usd_lo : n * g->price_usd_lo, x->nodes);
    x->usd_hi = times(buys ? s->price_usd_hi : n * g->price_usd_hi, x->nodes);
    x->usd_per_h_lo = times(rents ? s->rent_usd_per_h_lo : n * g->rent_usd_per_h_lo, x->nodes);
    x->usd_per_h_hi = times(rents ? s->rent_usd_per_h_hi : n * g->rent_usd_per_h_hi, x->nodes);
    if (rents) gpu_rent = (s->rent_usd_per_h_lo + s->rent_usd_per_h_hi) / 2 / n;
    x->gpu_usd_per_h = gpu_rent * (double)x->gpus;
    x->price_date = rents || buys ? s->price_date : g->price_date;
    x->power_w = s->node_max_w > 0 ? times(s->node_max_w, x->nodes) : times(g->tdp_w, x->gpus);
}

enum verify_tried verify_try(const struct verify_site *w, const struct strategy *s,
                             struct verify_alt *out, struct err *e)
{
    struct arena a;
    struct err refusal = { 0 };
    struct verify_in in = *w->in;
    struct scenario base = *in.base;
    enum verify_tried is = VERIFY_TRY_REFUSED;
    arena_init(&a);
    struct verify_case *c = arena_alloc(&a, sizeof *c);
    base.o.nodes = 0; /* of the plan; here as many as the strategy fills */
    in.base = &base;
    in.hw = &w->hw;
    in.fixed = w->fixed;
    in.none = false;
    in.model = w->model;
    in.strategy = s;
    if (verify_case_open(c, &in, &a, e) != ST_OK) {
        arena_release(&a);
        return VERIFY_TRY_FAILED;
    }
    verify_case_check(c);
    if (verify_possible(c) && verify_case_deploy(c, &refusal) == ST_OK) {
        struct verify_sim how = { VERIFY_TRY_REQUESTS, 1, 1, true };
        *out = (struct verify_alt){ .model = w->model ? w->model : in.base->o.model,
                                    .hardware = w->hw.sys.name,
                                    .strategy = *s,
                                    .gpus = s->tp * s->pp * s->dp,
                                    .nodes = c->hw.n_node };
        price(&w->hw, out);
        for (int k = 0; k < c->n_stage; k++) out->serial_bytes += c->stage[k].mem.weights;
        out->kv_tok = (double)(c->deploy->kv_blocks * c->q.lim.block_tok * s->dp);
        is = VERIFY_TRY_FITS;
        if (w->simulate && verify_simulate(c, &how, &out->run, e) != ST_OK) is = VERIFY_TRY_FAILED;
        out->run.bottleneck = NULL;
        out->score = verify_score(c);
    }
    arena_release(&a);
    return is;
}

const char *verify_try_text(const struct verify_alt *x, struct arena *a)
{
    const struct strategy *s = &x->strategy;
    const char *ep = s->ep > 1 ? arena_printf(a, "-EP%" PRId64, s->ep) : "";
    return arena_printf(a, "%s %s TP%" PRId64 "-PP%" PRId64 "-DP%" PRId64 "%s on %" PRId64 " x %s",
                        x->model, dtype_name((enum dtype)s->weight_dtype), s->tp, s->pp, s->dp, ep,
                        x->nodes, x->hardware);
}
