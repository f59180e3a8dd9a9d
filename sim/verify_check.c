/* sim/verify_check.c - the checks of degrees, formats and memory, each by itself: a plan with five
 * faults gets five sentences. They are stated here anew rather than taken from strategy_check,
 * which stops at the first; a test holds both against each other. SPDX-License-Identifier:
 * Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/units.h"
#include "sim/verify.h"

static void figures(struct verify_check *k, double required, double available, const char *unit)
{
    k->required = required;
    k->available = available;
    k->deficit = required > available ? required - available : 0;
    k->unit = unit;
}

/* ---- degrees */

static void limit(struct verify_case *c, const char *name, int64_t v, int64_t hi)
{
    if (v >= 1 && v <= hi) return;
    struct verify_check *k = verify_add(c, name, VERIFY_FAIL, VERIFY_P_DEGREES);
    figures(k, (double)v, (double)hi, "");
    k->says = arena_printf(c->a, "%s %" PRId64 " is outside 1 .. %" PRId64, name, v, hi);
    k->rule = "limits of the program";
}

static void check_gpus(struct verify_case *c)
{
    const struct strategy *s = &c->q.strategy;
    double need = (double)s->tp * (double)s->pp * (double)s->dp;
    double have = c->none ? 0 : (double)c->hw.sys.n_gpu * c->hw.n_node;
    struct verify_check *k = verify_add(c, "gpus", need <= have ? VERIFY_PASS : VERIFY_FAIL,
                                        c->none ? VERIFY_P_NOTHING : VERIFY_P_GPUS);
    figures(k, need, have, "GPUs");
    k->says = arena_printf(c->a,
                           "TP%" PRId64 " x PP%" PRId64 " x DP%" PRId64 " needs %.0f GPU%s; %d x "
                           "%s %s %.0f",
                           s->tp, s->pp, s->dp, need, need == 1 ? "" : "s", c->hw.n_node,
                           c->hw.sys.name, c->hw.n_node == 1 ? "has" : "have", have);
    k->rule = "GPUs = tp * pp * dp; experts are spread inside the tp group (ep divides tp), so ep "
              "adds none";
    if (c->none)
        k->says = arena_printf(c->a, "%.0f GPU%s needed, and there is none", need,
                               need == 1 ? " is" : "s are");
    if (c->hw.n_node < 2 || c->none) return;
    double rate = c->hw.sys.inter_bytes_per_s;
    k = verify_add(c, "nodes", rate > 0 ? VERIFY_PASS : VERIFY_FAIL, VERIFY_P_GPUS);
    k->says = rate > 0
                  ? arena_printf(c->a, "%d nodes are joined at %s a GPU", c->hw.n_node,
                                 units_cell_in(c->a, UNIT_BYTES_PER_S, rate))
                  : arena_printf(c->a, "%d nodes of %s cannot be joined: no rate between nodes",
                                 c->hw.n_node, c->hw.sys.name);
    k->rule = "key inter.rate of the system";
    k->unit = "bytes/s";
    k->available = rate;
}

static void divides(struct verify_case *c, const char *name, bool ok, int64_t what, int64_t by)
{
    struct verify_check *k = verify_add(c, name, ok ? VERIFY_PASS : VERIFY_FAIL, VERIFY_P_DEGREES);
    k->required = (double)by;
    k->available = (double)what;
    k->deficit = ok ? 0 : (double)(what % by);
    k->says =
        arena_printf(c->a, "%" PRId64 " over %" PRId64 " GPU%s", what, by, by == 1 ? "" : "s");
    if (!ok) k->says = arena_printf(c->a, "%s leaves a remainder of %" PRId64, k->says, what % by);
}

static void last_rule(struct verify_case *c, const char *says, const char *rule)
{
    struct verify_check *k = &c->check[c->n_check - 1];
    if (says) k->says = says;
    k->rule = rule;
}

static void check_attention(struct verify_case *c, int64_t tp)
{
    const struct arch *m = &c->arch;
    int64_t kv = m->n_kv_head;
    divides(c, "heads", m->n_head % tp == 0, m->n_head, tp);
    last_rule(c, NULL, "attention heads % tp = 0");
    bool copied = tp % kv == 0 && kv % tp != 0;
    divides(c, "kv_heads", kv % tp == 0 || tp % kv == 0, kv, tp);
    last_rule(c,
              copied ? arena_printf(c->a,
                                    "%" PRId64 " KV heads over %" PRId64
                                    " GPUs: each is held %" PRId64 " times",
                                    kv, tp, tp / kv)
                     : NULL,
              "KV heads % tp = 0, or tp % KV heads = 0 (heads are then copied)");
}

static void check_mlp(struct verify_case *c, int64_t tp, int64_t ep)
{
    const struct arch *m = &c->arch;
    if (m->n_expert == 0) {
        divides(c, "ffn", m->ffn % tp == 0, m->ffn, tp);
        last_rule(c, NULL, "inner size of the MLP % tp = 0");
        if (ep == 1) return;
        verify_add(c, "experts", VERIFY_FAIL, VERIFY_P_DEGREES);
        last_rule(c, arena_printf(c->a, "ep %" PRId64 ", but %s has no experts", ep, m->name),
                  "ep = 1 without experts");
        return;
    }
    bool whole = tp % ep == 0;
    divides(c, "experts", whole && m->n_expert % ep == 0, whole ? m->n_expert : tp, ep);
    last_rule(c, NULL, "tp % ep = 0 and experts % ep = 0: experts are spread over the tp group");
    if (!whole) return;
    divides(c, "ffn", m->ffn % (tp / ep) == 0, m->ffn, tp / ep);
    last_rule(c, NULL, "inner size of an expert % (tp / ep) = 0");
}

static void check_padding(struct verify_case *c, int64_t tp)
{
    const struct arch *m = &c->arch;
    int64_t pad = (tp - m->vocab % tp) % tp;
    bool even = m->hidden % tp == 0;
    struct verify_check *k =
        verify_add(c, "hidden", even ? VERIFY_PASS : VERIFY_WARN, VERIFY_P_PAD);
    k->says = even ? arena_printf(c->a, "%d over %" PRId64 " GPU%s", m->hidden, tp, units_s(tp))
                   : arena_printf(c->a,
                                  "%d over %" PRId64 " GPUs is uneven: slices of hidden states "
                                  "between stages are padded",
                                  m->hidden, tp);
    k->rule = "hidden % tp = 0, or slices are padded";
    bool little = (double)pad <= 0.01 * m->vocab;
    k = verify_add(c, "vocab", little ? VERIFY_PASS : VERIFY_WARN, VERIFY_P_PAD);
    k->required = (double)(m->vocab + pad);
    k->available = m->vocab;
    k->says = arena_printf(c->a, "%d rows over %" PRId64 " GPU%s, padded by %" PRId64, m->vocab, tp,
                           units_s(tp), pad);
    k->rule = "rows = ceil(vocab / tp) * tp; a warning where more than 1 % is padding";
}

static void check_layers(struct verify_case *c, int64_t pp)
{
    const struct arch *m = &c->arch;
    bool ok = pp <= m->n_layer && !c->split_error;
    struct verify_check *k =
        verify_add(c, "layers", ok ? VERIFY_PASS : VERIFY_FAIL, VERIFY_P_DEGREES);
    figures(k, (double)pp, m->n_layer, "");
    if (pp > m->n_layer)
        k->says = arena_printf(c->a, "%" PRId64 " stages of %d layers: some would be empty", pp,
                               m->n_layer);
    else if (c->split_error)
        k->says = c->split_error;
    else
        k->says = arena_printf(
            c->a, "%d layers in %" PRId64 " stage%s, %s", m->n_layer, pp, pp == 1 ? "" : "s",
            m->n_layer % pp ? "not all the same number" : "the same number if split equally");
    k->rule = "at least a layer a stage; a list given as strategy.split has pp numbers that add up";
}

/* The split against the one with the least slowest stage: the slowest stage sets the pace of all. */
static void check_balance(struct verify_case *c)
{
    int best[STRATEGY_MAX_PP];
    double own = 0, least = 0;
    if (!c->predicted || c->n_stage < 2 || c->split_error) return;
    strategy_balance(c->arch.n_layer, c->n_stage, c->layer_s, c->first_s, c->last_s, best);
    for (int p = 0; p < c->n_stage; p++) {
        own = fmax(own, c->stage[p].time_s);
        least = fmax(least, best[p] * c->layer_s + (p == 0 ? c->first_s : 0) +
                                (p == c->n_stage - 1 ? c->last_s : 0));
    }
    double lost = own / least - 1;
    struct verify_check *k =
        verify_add(c, "balance", lost > VERIFY_UNEVEN ? VERIFY_WARN : VERIFY_PASS, VERIFY_P_LINK);
    figures(k, least, own, "s");
    k->says =
        arena_printf(c->a, "the slowest stage takes %.1f %% longer than that of the best split%s",
                     100 * lost, lost > VERIFY_UNEVEN ? " (strategy.split: auto)" : "");
    k->rule =
        "time of the slowest stage in a reference step, against strategy.split: auto; a warning "
        "past 10 %";
}

/* ---- formats */

static bool computes(const struct hw_gpu *g, int d)
{
    if (g->flop_per_s[d] > 0) return true;
    return d == DT_BF16 && g->flop_per_s[DT_F16] > 0; /* same size; runs as f16 */
}

static const char *formats(struct verify_case *c)
{
    const char *list = "";
    for (int d = 0; d < DT_N; d++)
        if (c->hw.gpu.flop_per_s[d] > 0)
            list = arena_printf(c->a, "%s%s%s", list, *list ? ", " : "", dtype_name((enum dtype)d));
    return list;
}

static void check_formats(struct verify_case *c)
{
    const struct hw_gpu *g = &c->hw.gpu;
    int w = c->q.strategy.weight_dtype, kv = c->q.strategy.kv_dtype;
    const char *name = dtype_name((enum dtype)w);
    bool native = g->flop_per_s[w] > 0, ok = computes(g, w);
    struct verify_check *k = verify_add(c, "weights_format",
                                        !ok       ? VERIFY_FAIL
                                        : !native ? VERIFY_WARN
                                                  : VERIFY_PASS,
                                        ok ? VERIFY_P_PAD : VERIFY_P_DEGREES);
    if (!ok)
        k->says =
            arena_printf(c->a, "%s cannot multiply %s; it can: %s", g->name, name, formats(c));
    else if (!native)
        k->says = arena_printf(c->a,
                               "%s has no bf16: the weights run as f16, of the same size but a "
                               "smaller range (largest 65504)",
                               g->name);
    else
        k->says = arena_printf(c->a, "%s multiplies %s at %s", g->name, name,
                               units_cell_in(c->a, UNIT_FLOP_PER_S, g->flop_per_s[w]));
    k->rule = arena_printf(c->a, "flops of %s in the catalog (%.120s)", g->name,
                           g->source ? g->source : "no source");
    bool stored = kv != DT_INT4 && kv != DT_NVFP4;
    k = verify_add(c, "kv_format", stored ? VERIFY_PASS : VERIFY_FAIL, VERIFY_P_DEGREES);
    k->says =
        stored ? arena_printf(c->a, "KV cache in %s, %.4g bytes an element",
                              dtype_name((enum dtype)kv), dtype_bytes((enum dtype)kv))
               : arena_printf(c->a, "a KV cache in %s is not modelled", dtype_name((enum dtype)kv));
    k->rule = "any format of 8 bits or more: kernels convert to the format they compute in";
}

void verify_check_degrees(struct verify_case *c)
{
    const struct strategy *s = &c->q.strategy;
    check_gpus(c);
    limit(c, "tp", s->tp, 1024);
    limit(c, "pp", s->pp, STRATEGY_MAX_PP);
    limit(c, "dp", s->dp, 4096);
    limit(c, "ep", s->ep, 1024);
    if (s->tp < 1 || s->ep < 1 || s->pp < 1) return;
    check_attention(c, s->tp);
    check_mlp(c, s->tp, s->ep);
    check_padding(c, s->tp);
    check_layers(c, s->pp);
    check_balance(c);
    if (!c->none) check_formats(c);
}

/* ---- memory */

static double overhead(const struct memory *m)
{
    return m->activation + m->comm + m->graphs + m->other;
}

/* A rank needs all but KV, and one block of KV. */
static double needed(const struct verify_case *c, const struct memory *m)
{
    if (c->q.kv_blocks > 0)
        return m->weights + (double)c->q.kv_blocks * (double)c->q.lim.block_tok * m->kv_token;
    return m->weights + overhead(m) + (double)c->q.lim.block_tok * m->kv_token;
}

static void check_stage(struct verify_case *c, int p, bool worst)
{
    const struct memory *m = &c->stage[p].mem;
    bool given = c->q.kv_blocks > 0;
    double have = c->hw.gpu.mem_bytes * (given ? 1 : c->q.lim.util), need = needed(c, m);
    bool fits = given ? need <= have : m->kv_blocks > 0;
    struct verify_check *k = verify_add(c, arena_printf(c->a, "memory.stage%d", p),
                                        c->q.fixed_ns > 0 ? VERIFY_UNKNOWN
                                        : fits            ? VERIFY_PASS
                                                          : VERIFY_FAIL,
                                        worst ? VERIFY_P_MEMORY : 0);
    figures(k, need, have, "bytes");
    const char *kv = given ? arena_printf(c->a, "%" PRId64 " KV blocks as given", c->q.kv_blocks)
                           : "one KV block";
    k->says = arena_printf(
        c->a,
        "stage %d needs %s on each GPU (weights %s, activations and overheads %s, %s %s); "
        "available %s of %s",
        p, units_cell_in(c->a, UNIT_BYTES, need), units_cell_in(c->a, UNIT_BYTES, m->weights),
        units_cell_in(c->a, UNIT_BYTES, given ? 0 : overhead(m)), kv,
        units_cell_in(c->a, UNIT_BYTES, need - m->weights - (given ? 0 : overhead(m))),
        units_cell_in(c->a, UNIT_BYTES, have),
        units_cell_in(c->a, UNIT_BYTES, c->hw.gpu.mem_bytes));
    if (!fits)
        k->says = arena_printf(c->a, "%s; a deficit of %s", k->says,
                               units_cell_in(c->a, UNIT_BYTES, need - have));
    k->rule =
        given ? "weights + given blocks * block tokens * KV bytes a token <= memory"
              : "weights + activation + communicators + graphs + context + one KV block <= memory "
                "* policy.memory_util; the rest is the safety margin (terms: model/memory.h)";
}

int64_t verify_max_ctx(const struct verify_case *c)
{
    int64_t asked = c->s->policy.max_model_len;
    return asked > 0 && asked < c->arch.max_ctx ? asked : c->arch.max_ctx;
}

int64_t verify_context_max(int64_t n_block, int64_t block_tok, int64_t batch, int64_t max_ctx)
{
    int64_t tok = n_block / (batch > 0 ? batch : 1) * block_tok;
    return tok < max_ctx ? tok : max_ctx;
}

/* Room for the context and the batch: asked on the command line, else the longest request alone. */
static void check_context(struct verify_case *c)
{
    const struct verify_ask *q = c->ask;
    bool asked = q->context > 0 || q->batch > 0;
    double ctx = q->context > 0 ? (double)q->context : c->load.longest;
    double batch = q->batch > 0 ? (double)q->batch : 1, block = (double)c->q.lim.block_tok;
    int64_t end = verify_max_ctx(c);
    double need = batch * ceil(ctx / block), most = (double)end;
    bool long_enough = ctx <= most, fits = need <= (double)c->kv_blocks && long_enough;
    int64_t longest = verify_context_max(c->kv_blocks, c->q.lim.block_tok, (int64_t)batch, end);
    struct verify_check *k = verify_add(c, "kv",
                                        fits    ? VERIFY_PASS
                                        : asked ? VERIFY_FAIL
                                                : VERIFY_WARN,
                                        asked ? VERIFY_P_ASKED : VERIFY_P_CONTEXT);
    figures(k, need, (double)c->kv_blocks, "KV blocks");
    const char *what = asked ? "asked" : "the longest request of the workload";
    k->says = arena_printf(
        c->a,
        "%.0f sequence%s of %.0f tokens (%s) take%s %.0f blocks of %.0f tokens; a "
        "replica has %" PRId64 ", %.0f remain; the longest context for %s is %" PRId64 " tokens",
        batch, batch == 1 ? "" : "s", ctx, what, batch == 1 ? "s" : "", need, block, c->kv_blocks,
        fmax(0, (double)c->kv_blocks - need), batch == 1 ? "one sequence" : "this batch", longest);
    if (!long_enough) {
        figures(k, ctx, most, "tokens");
        k->says = arena_printf(
            c->a, "%s; %s at %" PRId64 " tokens", k->says,
            end < c->arch.max_ctx ? "policy.max_model_len ends" : "the model ends", end);
    }
    k->rule =
        "blocks = batch * ceil(context / block); KV blocks = floor((memory * util - weights - "
        "overheads) / (block * 2 * layers * max(1, KV heads / tp) * head size * bytes)), the least "
        "over the stages";
}

void verify_check_memory(struct verify_case *c)
{
    int worst = 0;
    if (c->n_stage == 0) return;
    for (int p = 1; p < c->n_stage; p++)
        if (needed(c, &c->stage[p].mem) > needed(c, &c->stage[worst].mem)) worst = p;
    for (int p = 0; p < c->n_stage; p++) check_stage(c, p, p == worst);
    if (c->q.fixed_ns == 0) check_context(c);
}
