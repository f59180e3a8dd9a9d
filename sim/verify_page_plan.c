/* sim/verify_page_plan.c - sections of the report about the plan itself: memory, division, communication, graph.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>

#include "sim/verify_page.h"

static const char *bytes(double v, struct arena *a)
{
    return verify_figure(v, "bytes", a);
}

static const char *seconds(double v, struct arena *a)
{
    return verify_figure(v, "s", a);
}

static const char *percent(double v, struct arena *a)
{
    return isfinite(v) ? arena_printf(a, "%.2f %%", 100 * v) : "-";
}

static const char *number(double v, struct arena *a)
{
    return isfinite(v) ? arena_printf(a, "%.6g", v) : "-";
}

/* ---- memory */

/* KV blocks of the context and batch asked, else of the longest request alone. */
static double blocks_asked(const struct verify_case *c)
{
    double ctx = c->ask->context > 0 ? (double)c->ask->context : c->load.longest;
    double batch = c->ask->batch > 0 ? (double)c->ask->batch : 1;
    return batch * ceil(ctx / (double)c->q.lim.block_tok);
}

static void memory(const struct verify_case *c, struct verify_doc *d)
{
    struct arena *a = d->a;
    const struct memory_limits *l = &c->q.lim;
    const struct memory *first = &c->stage[0].mem;
    double asked = blocks_asked(c), margin = c->hw.gpu.mem_bytes * (1 - l->util);
    verify_doc_head(d, arena_printf(a, "Memory of a GPU, by stage, on %s", c->hw.sys.name));
    verify_doc_para(d, arena_printf(a,
                                    "%s usable on each GPU; policy.memory_util %g leaves %s of it "
                                    "free as a safety margin. Overheads: "
                                    "communicators %s, CUDA graphs %s, context and libraries %s. "
                                    "Activations: the peak of a step of "
                                    "%" PRId64 " tokens. KV asked: %.0f blocks of %" PRId64
                                    " tokens. Room for KV = memory * util - weights - activations "
                                    "- overheads; blocks = room / (block "
                                    "tokens * KV bytes a token).",
                                    bytes(c->hw.gpu.mem_bytes, a), l->util, bytes(margin, a),
                                    bytes(first->comm, a), bytes(first->graphs, a),
                                    bytes(first->other, a), l->max_batch_tok, asked, l->block_tok));
    verify_doc_table(
        d,
        ">stage|>layers|>weights|>activations|>overheads|>margin|>KV a token|>KV asked|>room for "
        "KV|>blocks|>remain");
    for (int p = 0; p < c->n_stage; p++) {
        const struct memory *m = &c->stage[p].mem;
        double n = (double)(c->q.kv_blocks > 0 ? c->q.kv_blocks : m->kv_blocks);
        const char *room = bytes(fabs(m->kv_bytes), a);
        const char *cells[] = { arena_printf(a, "%d", p),
                                arena_printf(a, "%d", c->stage[p].step.n_layer),
                                bytes(m->weights, a),
                                bytes(m->activation, a),
                                bytes(m->comm + m->graphs + m->other, a),
                                bytes(margin, a),
                                bytes(m->kv_token, a),
                                bytes(asked * (double)l->block_tok * m->kv_token, a),
                                m->kv_bytes < 0 ? arena_printf(a, "-%s", room) : room,
                                arena_printf(a, "%.0f", n),
                                arena_printf(a, "%.0f", n - asked) };
        verify_doc_row(d, cells);
    }
}

/* Blocks of a replica if its weights had another format, or the engine another share of the memory. */
static int64_t blocks_with(const struct verify_case *c, int dtype, double util)
{
    struct strategy s = c->q.strategy;
    struct memory_limits lim = c->q.lim;
    int64_t least = INT64_MAX;
    s.weight_dtype = dtype;
    lim.util = util;
    for (int p = 0; p < c->n_stage; p++) {
        struct memory m;
        memory_stage(&c->arch, &c->hw, &s, p, c->stage[p].step.n_layer, &lim, &m);
        if (m.kv_blocks < least) least = m.kv_blocks;
    }
    return least;
}

static const char *context_text(const struct verify_case *c, int dtype, double util,
                                struct arena *a)
{
    int64_t n = blocks_with(c, dtype, util), batch = c->ask->batch > 0 ? c->ask->batch : 1;
    if (n == 0) return "does not fit";
    return arena_printf(a, "%" PRId64 " tokens",
                        verify_context_max(n, c->q.lim.block_tok, batch, verify_max_ctx(c)));
}

static void contexts(const struct verify_case *c, struct verify_doc *d)
{
    struct arena *a = d->a;
    verify_doc_head(d, arena_printf(a, "Longest context by weight format, on %s", c->hw.sys.name));
    verify_doc_para(d, arena_printf(a,
                                    "For a batch of %" PRId64
                                    " at this TP and PP; the model ends at %" PRId64
                                    " tokens. Weights: "
                                    "those of the fullest rank; embedding and head keep 2 bytes.",
                                    c->ask->batch > 0 ? c->ask->batch : 1, verify_max_ctx(c)));
    verify_doc_table(d,
                     arena_printf(a, "weights|>bytes|>at memory use %g|>at memory use 1|computes",
                                  c->q.lim.util));
    for (int t = 0; t < DT_N; t++) {
        bool can =
            c->hw.gpu.flop_per_s[t] > 0 || (t == DT_BF16 && c->hw.gpu.flop_per_s[DT_F16] > 0);
        double most = 0;
        struct strategy s = c->q.strategy;
        s.weight_dtype = t;
        for (int p = 0; p < c->n_stage; p++) {
            struct memory m;
            memory_stage(&c->arch, &c->hw, &s, p, c->stage[p].step.n_layer, &c->q.lim, &m);
            most = fmax(most, m.weights);
        }
        const char *cells[] = { dtype_name((enum dtype)t), bytes(most, a),
                                context_text(c, t, c->q.lim.util, a), context_text(c, t, 1, a),
                                can ? "yes" : arena_printf(a, "not on %s", c->hw.gpu.name) };
        verify_doc_row(d, cells);
    }
}

/* ---- division */

static double part_bytes(const struct verify_case *c, double params, bool end)
{
    double elt = dtype_bytes((enum dtype)c->q.strategy.weight_dtype);
    if (end) elt = c->q.strategy.weight_dtype == DT_F32 ? 4 : 2;
    return params * elt;
}

static void parts(const struct verify_case *c, struct verify_doc *d)
{
    struct arena *a = d->a;
    const struct arch *m = &c->arch;
    const struct {
        const char *name;
        double params;
        int n;
        bool end;
        double s;
    } part[] = {
        { "embedding", (double)arch_params_embed(m), 1, true, c->first_s },
        { "attention of a layer", (double)arch_params_attn(m), m->n_layer, false, NAN },
        { "MLP of a layer", (double)arch_params_mlp(m), m->n_layer, false, NAN },
        { "layer", (double)arch_params_layer(m), m->n_layer, false, c->layer_s },
        { m->tied ? "head (tied to the embedding)" : "head", (double)arch_params_head(m), 1, true,
          c->last_s },
    };
    verify_doc_table(d, "part|>number|>parameters|>bytes of one|>time of one, reference step");
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        const char *cells[] = { part[i].name, arena_printf(a, "%d", part[i].n),
                                arena_printf(a, "%.0f", part[i].params),
                                bytes(part_bytes(c, part[i].params, part[i].end), a),
                                c->predicted ? seconds(part[i].s, a) : "-" };
        verify_doc_row(d, cells);
    }
    double all = (double)arch_params(m),
           ends = (double)(arch_params_embed(m) + arch_params_head(m));
    const char *cells[] = { "model", "1", arena_printf(a, "%.0f", all),
                            bytes(part_bytes(c, all - ends, false) + part_bytes(c, ends, true), a),
                            "-" };
    verify_doc_row(d, cells);
}

/* "20,20,20,20" with its slowest stage and imbalance. */
static void split_row(const struct verify_case *c, const char *name, const int *layers,
                      struct verify_doc *d)
{
    struct arena *a = d->a;
    double t[STRATEGY_MAX_PP], slowest = 0;
    const char *list = "";
    for (int p = 0; p < c->n_stage; p++) {
        t[p] = layers[p] * c->layer_s + (p == 0 ? c->first_s : 0) +
               (p == c->n_stage - 1 ? c->last_s : 0);
        slowest = fmax(slowest, t[p]);
        list = arena_printf(a, "%s%s%d", list, p ? "," : "", layers[p]);
    }
    double eps = strategy_epsilon(t, c->n_stage);
    const char *cells[] = { name, seconds(slowest, a), seconds(slowest / (1 + eps), a),
                            percent(eps, a), list };
    verify_doc_row(d, cells);
}

static void division(const struct verify_case *c, struct verify_doc *d)
{
    struct arena *a = d->a;
    int layers[STRATEGY_MAX_PP], equal[STRATEGY_MAX_PP], best[STRATEGY_MAX_PP];
    verify_doc_head(d, "Division into modules");
    parts(c, d);
    verify_doc_table(d, ">stage|>layers|>from|>to|>parameters of a rank|>bytes of a rank|>of the "
                        "stage|>time, reference step");
    for (int p = 0; p < c->n_stage; p++) {
        const struct verify_stage *g = &c->stage[p];
        layers[p] = g->step.n_layer;
        const char *cells[] = { arena_printf(a, "%d", p),
                                arena_printf(a, "%d", g->step.n_layer),
                                arena_printf(a, "%d", g->first_layer),
                                arena_printf(a, "%d", g->first_layer + g->step.n_layer - 1),
                                arena_printf(a, "%.0f", g->mem.params),
                                bytes(g->mem.weights, a),
                                bytes(g->mem.weights * (double)c->q.strategy.tp, a),
                                c->predicted ? seconds(g->time_s, a) : "-" };
        verify_doc_row(d, cells);
    }
    verify_doc_para(d, arena_printf(a,
                                    "Imbalance epsilon = max / mean - 1: %s by bytes, %s by "
                                    "predicted time (one decode step of "
                                    "%d sequences of %d tokens).",
                                    percent(c->eps_bytes, a),
                                    c->predicted ? percent(c->eps_time, a) : "-", DEPLOY_REF_DECODE,
                                    DEPLOY_REF_CTX));
    if (!c->predicted || c->n_stage < 2) return;
    strategy_balance(c->arch.n_layer, c->n_stage, 1, 0, 0, equal);
    strategy_balance(c->arch.n_layer, c->n_stage, c->layer_s, c->first_s, c->last_s, best);
    verify_doc_table(d, "split|>slowest stage|>mean|>epsilon|layers");
    split_row(c, "this plan", layers, d);
    split_row(c, "equal", equal, d);
    split_row(c, "least slowest stage", best, d);
    verify_doc_para(d, arena_printf(a,
                                    "Final norm, head and sampling take as long as %.2f layers, "
                                    "the embedding as %.2f; that is "
                                    "why equal layers are unequal in time.",
                                    c->last_s / c->layer_s, c->first_s / c->layer_s));
}

/* ---- communication */

static void comm_row(struct verify_doc *d, const char *what, const char *tp, const char *pp,
                     const char *how)
{
    const char *cells[] = { what, tp, pp, how };
    verify_doc_row(d, cells);
}

static double most_layers(const struct verify_case *c)
{
    double n = 0;
    for (int p = 0; p < c->n_stage; p++) n = fmax(n, c->stage[p].step.n_layer);
    return n;
}

static void communication(const struct verify_case *c, struct verify_doc *d)
{
    struct verify_comm m;
    struct arena *a = d->a;
    int64_t tp = c->q.strategy.tp, pp = c->q.strategy.pp;
    double coll = 0, kib = 1024;
    verify_comm_count(c, &m);
    verify_doc_head(d, arena_printf(a, "Communication, on %s", c->hw.sys.name));
    for (int p = 0; p < c->n_stage; p++) coll = fmax(coll, m.tp_step_s[p]);
    bool tp_on = tp > 1, pp_on = pp > 1;
    verify_doc_table(d, "quantity|>TP all-reduce|>PP send|formula");
    comm_row(d, "per token and layer / boundary",
             tp_on ? arena_printf(a, "%d x %.4g KiB", m.n_allreduce, m.tok_bytes / kib) : "-",
             pp_on ? arena_printf(a, "%.4g KiB", m.tok_bytes / kib) : "-",
             "hidden * 2 bytes; all-reduces after attention and after the MLP");
    comm_row(
        d, "as sent, per token",
        tp_on ? arena_printf(a, "%.4g KiB a rank", m.wire_ratio * m.n_allreduce * m.tok_bytes / kib)
              : "-",
        pp_on ? arena_printf(a, "%.4g KiB", 2 * m.tok_bytes / kib) : "-",
        "ring: 2 (tp - 1) / tp of the message; PP: vLLM sends hidden states and residual, 1/tp a "
        "rank");
    comm_row(d, arena_printf(a, "step of %" PRId64 " tokens, message", m.ref_tok),
             tp_on ? bytes(m.tok_bytes * (double)m.ref_tok, a) : "-",
             pp_on ? bytes(m.pp_hop_bytes, a) : "-", "tokens * bytes of a token");
    double sent = m.wire_ratio * m.n_allreduce * m.tok_bytes * (double)m.ref_tok * most_layers(c);
    comm_row(d, "step, bytes sent by a rank", tp_on ? bytes(sent, a) : "-",
             pp_on ? bytes(m.pp_hop_bytes / (double)tp, a) : "-",
             "as sent * tokens * layers of the fullest stage; as sent * tokens / tp");
    comm_row(d, "time of one message", tp_on && c->predicted ? seconds(m.allreduce_s, a) : "-",
             pp_on && c->predicted ? seconds(m.pp_hop_s, a) : "-",
             "A + S/B + C S/(S+S0) and rank skew; send and all-gather");
    comm_row(d, "time in a step, worst stage", tp_on && c->predicted ? seconds(coll, a) : "-",
             pp_on && c->predicted ? seconds(m.pp_hop_s, a) : "-",
             "all collectives of a stage; one hop");
    comm_row(d, "tokens/s of a replica", number(m.tok_per_s, a), number(m.tok_per_s, a),
             "workload rate * (mean prompt + mean output) / dp, without prefix hits");
    comm_row(d, "bytes/s sent by a rank",
             tp_on ? verify_figure(m.tp_wire_per_s, "bytes/s", a) : "-",
             pp_on ? verify_figure(m.pp_wire_per_s, "bytes/s", a) : "-",
             "tokens/s * layers of the stage * as sent; tokens/s * as sent / tp");
    comm_row(d,
             arena_printf(a, "%s used (%s)", m.link_name,
                          verify_figure(m.link_bytes_per_s, "bytes/s", a)),
             percent(m.link_util, a), "",
             "bytes/s inside the node / rate of the link per direction");
    comm_row(d,
             arena_printf(a, "NIC used (%s)",
                          m.nic_bytes_per_s > 0 ? verify_figure(m.nic_bytes_per_s, "bytes/s", a)
                                                : "unknown"),
             percent(m.nic_util, a), "", "bytes/s between nodes / (NICs * line rate / GPUs)");
}

static void graph(const struct verify_case *c, struct verify_doc *d)
{
    struct verify_dag g = verify_dag_count(&c->q.strategy);
    struct arena *a = d->a;
    const char *text = arena_printf(
        a,
        "%" PRId64 " GPUs and %" PRId64 " directed edges: %" PRId64 " for TP (a ring over each "
        "group), %" PRId64 " for PP (each rank to its fellow of the next stage).",
        g.nodes, g.edges, g.tp_edges, g.pp_edges);
    verify_doc_head(d, "Graph");
    verify_doc_para(d, text);
    verify_doc_svg(d, verify_dag_svg(c), "The plan as a graph; colours of boxes tell nodes apart.");
}

void verify_page_plan(const struct verify_report *r, struct verify_doc *d)
{
    if (r->c->n_stage) {
        memory(r->c, d);
        contexts(r->c, d);
    }
    if (!r->plan->n_stage) return;
    division(r->plan, d);
    communication(r->plan, d);
    graph(r->plan, d);
}
