/* sim/verify_comm.c - what a plan sends, and whether the links suit it.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>

#include "base/units.h"
#include "sim/verify.h"

enum { ACT_BYTES = 2 };

/* Of a stage's time, what collectives or a hop may take before it is worth a warning on links that
 * are made for it. Assumed. */
static const double MUCH = 0.25, HOP_MUCH = 0.1;

/* The rate at which a GPU sends inside its node: what the fabric is made of. */
static double link_of(const struct hw *h, const char **name)
{
    bool own = h->gpu.link_bytes_per_s > 0 && h->sys.fabric != HW_PCIE && h->sys.fabric != HW_HOST;
    *name = own ? "GPU link" : "PCIe";
    return own ? h->gpu.link_bytes_per_s : h->gpu.pcie_bytes_per_s;
}

static void rates(const struct verify_case *c, struct verify_comm *m)
{
    const struct hw *h = &c->hw;
    double layers = 0, tp = (double)c->q.strategy.tp, pp = (double)c->q.strategy.pp;
    for (int p = 0; p < c->n_stage; p++) layers = fmax(layers, c->stage[p].step.n_layer);
    m->tok_per_s =
        c->load.rate_per_s * (c->load.mean_in + c->load.mean_out) / (double)c->q.strategy.dp;
    m->tp_wire_per_s = m->tok_per_s * layers * m->n_allreduce * m->tok_bytes * m->wire_ratio;
    m->pp_wire_per_s = pp > 1 ? m->tok_per_s * 2 * m->tok_bytes / tp : 0 * m->tok_per_s;
    m->link_bytes_per_s = link_of(h, &m->link_name);
    m->nic_bytes_per_s = h->sys.n_nic * h->sys.nic_bytes_per_s / h->sys.n_gpu;
    /* Over k nodes a message is reduced inside each, and each rank carries its share of it between them. */
    struct coll_group g = coll_group_of(h, (int)tp, m->tp_inter);
    double k = (double)g.n / g.per_node, per = g.per_node,
           msg = m->tok_per_s * layers * m->n_allreduce * m->tok_bytes;
    double inside = msg * 2 * (per - 1) / per + (m->pp_inter ? 0 : m->pp_wire_per_s);
    double outside = msg * 2 * (k - 1) / k / per + (m->pp_inter ? m->pp_wire_per_s : 0);
    m->link_util = m->link_bytes_per_s > 0 ? inside / m->link_bytes_per_s : NAN;
    m->nic_util = outside == 0 ? 0 : m->nic_bytes_per_s > 0 ? outside / m->nic_bytes_per_s : NAN;
}

void verify_comm_count(const struct verify_case *c, struct verify_comm *m)
{
    const struct strategy *s = &c->q.strategy;
    double slowest = 0, tp = (double)s->tp;
    *m = (struct verify_comm){ .ref_tok = DEPLOY_REF_DECODE };
    m->n_allreduce = s->tp > 1 ? c->arch.parallel_attn ? 1 : 2 : 0;
    m->tok_bytes = (double)c->arch.hidden * ACT_BYTES;
    m->wire_ratio = 2 * (tp - 1) / tp;
    m->pp_hop_bytes = s->pp > 1 ? 2 * m->tok_bytes * DEPLOY_REF_DECODE : 0;
    for (int p = 0; p < c->n_stage; p++) {
        const struct step_stage *g = &c->stage[p].step;
        m->tp_inter |= g->tp_inter;
        m->pp_inter |= g->hop_inter;
        m->tp_step_s[p] = c->stage[p].coll_s;
        if (c->stage[p].time_s > slowest) {
            slowest = c->stage[p].time_s;
            m->tp_share = c->stage[p].coll_s / slowest;
        }
        if (!c->predicted) continue;
        struct coll_group grp = coll_group_of(&c->hw, (int)s->tp, g->tp_inter);
        double bytes = m->tok_bytes * DEPLOY_REF_DECODE;
        double one = coll_allreduce_s(&c->profile, &grp, bytes);
        if (s->tp > 1) m->allreduce_s = fmax(m->allreduce_s, one + c->profile.p[P_RANK_SKEW_S].v);
        if (g->has_head) continue;
        grp = coll_group_of(&c->hw, (int)s->tp, c->stage[p + 1].step.tp_inter);
        double hop = coll_p2p_s(&c->profile, g->hop_inter, m->pp_hop_bytes / tp) +
                     coll_allgather_s(&c->profile, &grp, m->pp_hop_bytes);
        m->pp_hop_s = fmax(m->pp_hop_s, hop);
    }
    rates(c, m);
}

/* ---- checks */

static const char *weak_fabric(const struct verify_case *c, const struct verify_comm *m)
{
    int64_t tp = c->q.strategy.tp;
    if (m->tp_inter) return "over the network between nodes";
    switch (c->hw.sys.fabric) {
    case HW_PCIE: return "over PCIe";
    case HW_HOST: return "through host memory";
    case HW_PAIRS: return tp > 2 ? "over PCIe between bridged pairs" : NULL;
    case HW_SWITCHED:
    case HW_MESH:
    default: return NULL;
    }
}

static void check_tp(struct verify_case *c, const struct verify_comm *m)
{
    const char *weak = weak_fabric(c, m);
    bool warn = weak || m->tp_share > MUCH;
    double coll = 0, time = 0;
    for (int p = 0; p < c->n_stage; p++) {
        if (c->stage[p].time_s <= time) continue;
        time = c->stage[p].time_s;
        coll = c->stage[p].coll_s;
    }
    struct verify_check *k = verify_add(c, "link.tp",
                                        !c->predicted ? VERIFY_UNKNOWN
                                        : warn        ? VERIFY_WARN
                                                      : VERIFY_PASS,
                                        VERIFY_P_LINK);
    k->unit = "ratio";
    k->available = m->tp_share;
    k->required = MUCH;
    k->deficit = fmax(0, m->tp_share - MUCH);
    k->says = arena_printf(
        c->a,
        "TP%" PRId64 " %s: collectives take %s of the %s of the slowest stage (%.1f %%) in a "
        "decode step of %d sequences of %d tokens",
        c->q.strategy.tp, weak ? weak : "inside the node", units_cell_in(c->a, UNIT_TIME, coll),
        units_cell_in(c->a, UNIT_TIME, time), 100 * m->tp_share, DEPLOY_REF_DECODE, DEPLOY_REF_CTX);
    k->rule = arena_printf(
        c->a,
        "A + S/B + C S/(S+S0) for each all-reduce of S = tokens * hidden * 2 bytes "
        "(model/coll.h), constants: %s; a warning over PCIe, through the host, over "
        "nodes, or past %.0f %%",
        c->predicted && c->profile.p[P_AR_A_S].source ? c->profile.p[P_AR_A_S].source : "-",
        100 * MUCH);
}

static void check_pp(struct verify_case *c, const struct verify_comm *m)
{
    double time = 0;
    for (int p = 0; p < c->n_stage; p++) time = fmax(time, c->stage[p].time_s);
    double share = time > 0 ? m->pp_hop_s / time : 0;
    struct verify_check *k = verify_add(c, "link.pp",
                                        !c->predicted      ? VERIFY_UNKNOWN
                                        : share > HOP_MUCH ? VERIFY_WARN
                                                           : VERIFY_PASS,
                                        VERIFY_P_TIGHT);
    k->unit = "ratio";
    k->available = share;
    k->required = HOP_MUCH;
    k->deficit = fmax(0, share - HOP_MUCH);
    k->says = arena_printf(c->a, "a hop between stages%s takes %s, %.1f %% of a stage's %s",
                           m->pp_inter ? " (some between nodes)" : " (inside the node)",
                           units_cell_in(c->a, UNIT_TIME, m->pp_hop_s), 100 * share,
                           units_cell_in(c->a, UNIT_TIME, time));
    k->rule = "send of (hidden + residual) * 2 bytes * tokens / tp per rank, then an all-gather in "
              "the tp "
              "group; a warning past 10 % of the slowest stage";
}

void verify_check_links(struct verify_case *c)
{
    struct verify_comm m;
    if (c->n_stage == 0 || c->q.fixed_ns > 0) return;
    const struct strategy *s = &c->q.strategy;
    if (s->tp * s->pp > (int64_t)c->hw.sys.n_gpu * c->hw.n_node) {
        struct verify_check *k = verify_add(c, "links", VERIFY_UNKNOWN, 0);
        k->says = "not judged: there are fewer GPUs than one replica has";
        k->rule = "links are judged between GPUs that exist";
        return;
    }
    verify_comm_count(c, &m);
    if (c->q.strategy.tp > 1) check_tp(c, &m);
    if (c->q.strategy.pp > 1) check_pp(c, &m);
}

/* ---- the site: storage, host memory, power */

double verify_load_s(const struct verify_case *c, double *node_bytes, double *rank_bytes)
{
    int64_t n_gpu = c->hw.sys.n_gpu, tp = c->q.strategy.tp, pp = c->q.strategy.pp;
    double most_node = 0, most_rank = 0;
    /* Replicas on one node read the same files: the second finds them in memory. */
    for (int64_t node = 0; node * n_gpu < tp * pp; node++) {
        double bytes = 0;
        for (int64_t r = node * n_gpu; r < (node + 1) * n_gpu && r < tp * pp; r++) {
            double w = c->stage[r / tp].mem.weights;
            bytes += w;
            most_rank = fmax(most_rank, w);
        }
        most_node = fmax(most_node, bytes);
    }
    *node_bytes = most_node;
    *rank_bytes = most_rank;
    if (c->hw.sys.storage_bytes_per_s <= 0) return NAN;
    double copy = c->hw.gpu.pcie_bytes_per_s > 0 ? most_rank / c->hw.gpu.pcie_bytes_per_s : 0;
    return fmax(most_node / c->hw.sys.storage_bytes_per_s, copy);
}

static void check_storage(struct verify_case *c)
{
    double node, rank, s = verify_load_s(c, &node, &rank), limit_s = 1e-9 * (double)c->ask->load_ns;
    bool slow = limit_s > 0 && s > limit_s;
    struct verify_check *k = verify_add(c, "load_time",
                                        isnan(s) ? VERIFY_UNKNOWN
                                        : slow   ? VERIFY_FAIL
                                                 : VERIFY_PASS,
                                        VERIFY_P_ASKED);
    k->unit = "s";
    k->required = limit_s > 0 ? limit_s : NAN;
    k->available = s;
    k->deficit = slow ? s - limit_s : 0;
    k->says =
        isnan(s)
            ? arena_printf(c->a, "storage rate unknown; a node reads %s",
                           units_cell_in(c->a, UNIT_BYTES, node))
            : arena_printf(c->a, "a node reads %s of weights in %s (storage %s)",
                           units_cell_in(c->a, UNIT_BYTES, node), units_cell_in(c->a, UNIT_TIME, s),
                           units_cell_in(c->a, UNIT_BYTES_PER_S, c->hw.sys.storage_bytes_per_s));
    k->rule =
        "max(weights of a node / storage rate, weights of a rank / PCIe rate); fails only against "
        "verify.load_time";
    double host = c->hw.sys.host_mem_bytes;
    k = verify_add(c, "host_memory",
                   host <= 0     ? VERIFY_UNKNOWN
                   : node > host ? VERIFY_WARN
                                 : VERIFY_PASS,
                   VERIFY_P_HOST);
    k->unit = "bytes";
    k->required = node;
    k->available = host;
    k->deficit = host > 0 ? fmax(0, node - host) : 0;
    k->says = host > 0 ? arena_printf(c->a, "the weights of a node, %s, %s in its memory of %s",
                                      units_cell_in(c->a, UNIT_BYTES, node),
                                      node > host ? "do not fit" : "fit",
                                      units_cell_in(c->a, UNIT_BYTES, host))
                       : "host memory unknown";
    k->rule = "weights of a node <= host memory, else they are read from storage for every start";
}

/* Power of a node under load: its stated maximum, else the boards alone. */
static double node_power(const struct hw *h)
{
    return h->sys.node_max_w > 0 ? h->sys.node_max_w : h->sys.n_gpu * h->gpu.tdp_w;
}

static void check_power(struct verify_case *c)
{
    const struct hw *h = &c->hw;
    double boards = h->sys.n_gpu * h->gpu.tdp_w, node = node_power(h), most = c->ask->node_w;
    bool over = most > 0 && node > most, odd = h->sys.node_max_w > 0 && boards > h->sys.node_max_w;
    struct verify_check *k = verify_add(c, "power.node",
                                        node <= 0 ? VERIFY_UNKNOWN
                                        : over    ? VERIFY_FAIL
                                        : odd     ? VERIFY_WARN
                                                  : VERIFY_PASS,
                                        over ? VERIFY_P_ASKED : VERIFY_P_TIGHT);
    k->unit = "W";
    k->required = most > 0 ? node : boards;
    k->available = most > 0 ? most : h->sys.node_max_w > 0 ? h->sys.node_max_w : NAN;
    k->deficit = over ? node - most : odd ? boards - h->sys.node_max_w : 0;
    k->says =
        arena_printf(c->a, "%d x %s = %s of boards; a node draws up to %s%s", h->sys.n_gpu,
                     units_cell_in(c->a, UNIT_WATT, h->gpu.tdp_w),
                     units_cell_in(c->a, UNIT_WATT, boards), units_cell_in(c->a, UNIT_WATT, node),
                     h->sys.node_max_w > 0 ? "" : " (boards alone: the node is unknown)");
    k->rule = "GPUs * board limit <= power of the node (power.max of the catalog); "
              "verify.node_power sets "
              "a limit of the site";
    int64_t in_rack =
        c->ask->rack_nodes > 0 && c->ask->rack_nodes < h->n_node ? c->ask->rack_nodes : h->n_node;
    double rack = (double)in_rack * node, limit_w = c->ask->rack_w;
    over = limit_w > 0 && rack > limit_w;
    k = verify_add(c, "power.rack",
                   node <= 0 ? VERIFY_UNKNOWN
                   : over    ? VERIFY_FAIL
                             : VERIFY_PASS,
                   VERIFY_P_ASKED);
    k->unit = "W";
    k->required = rack;
    k->available = limit_w > 0 ? limit_w : NAN;
    k->deficit = over ? rack - limit_w : 0;
    /* Air of 1.2 kg/m3 and 1005 J/(kg K), warmed by 15 K. */
    k->says = arena_printf(c->a,
                           "%" PRId64
                           " node%s in a rack: %s, to be cooled away in full: %.2f m3/s of air "
                           "warmed by 15 K%s",
                           in_rack, in_rack == 1 ? "" : "s", units_cell_in(c->a, UNIT_WATT, rack),
                           rack / (1.2 * 1005 * 15), limit_w > 0 ? "" : "; no limit is given");
    k->rule =
        "nodes * node power <= verify.rack_power; air = power / (1.2 kg/m3 * 1005 J/(kg K) * 15 K)";
}

void verify_check_site(struct verify_case *c)
{
    if (c->n_stage > 0) check_storage(c);
    if (!c->none) check_power(c);
}
