/* model/coll.c - time of collectives and transfers over a group of GPUs.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/coll.h"

#include <assert.h>
#include <math.h>

#include "model/law.h"

/* Ring of a machine without measured collectives: kernel launch, and one hop over PCIe (NCCL tuner:
 * ring LL over PCI 1.0 us, LL128 2.5 us a hop; base latency 6.6 us). */
static const double launch_s = 6.6e-6, hop_s = 1.5e-6;

struct coll_group coll_group_of(const struct hw *h, int n, bool inter)
{
    struct coll_group g = { n, n };
    int per = h->sys.n_gpu > 0 ? h->sys.n_gpu : 1;
    if (!inter && n <= per) return g;
    while (per > 1 && (n % per != 0 || per >= n)) per--;
    g.per_node = per;
    return g;
}

double coll_law_s(const struct coll_law *l, double bytes)
{
    return law_coll_s(l->a_s, l->b_bytes_per_s, l->c_s, l->s0_bytes, bytes);
}

static double law4(const struct profile *p, enum profile_id first, double bytes)
{
    const struct param *q = p->p + first;
    return law_coll_s(q[0].v, q[1].v, q[2].v, q[3].v, bytes);
}

static double intra_allreduce_s(const struct profile *p, double bytes)
{
    double lib = law4(p, P_AR_A_S, bytes);
    if (p->ar_limit_bytes > 0 && bytes <= p->ar_limit_bytes)
        return fmin(lib, law4(p, P_CAR_A_S, bytes));
    return lib;
}

static double combine(double intra, double inter)
{
    return fmax(intra, inter) + COLL_SERIAL * fmin(intra, inter);
}

static double net_s(const struct profile *p, double messages, double bytes)
{
    return messages * p->p[P_NET_A_S].v + bytes / p->p[P_NET_B].v;
}

double coll_allreduce_s(const struct profile *p, const struct coll_group *g, double bytes)
{
    if (g->n < 2 || bytes <= 0) return 0;
    if (g->per_node == g->n) return intra_allreduce_s(p, bytes);
    /* Reduce-scatter and all-gather in the node move what one all-reduce there does; between the k
     * nodes each GPU carries its 1/per_node share, over a tree of depth log2 k up and down. */
    double k = (double)g->n / g->per_node;
    double inter = net_s(p, 2 * ceil(log2(k)), 2 * (k - 1) / k * bytes / g->per_node);
    return g->per_node > 1 ? combine(intra_allreduce_s(p, bytes), inter) : inter;
}

double coll_allgather_s(const struct profile *p, const struct coll_group *g, double bytes)
{
    if (g->n < 2 || bytes <= 0) return 0;
    if (g->per_node == g->n) return law4(p, P_AG_A_S, bytes);
    double k = (double)g->n / g->per_node;
    double inter = net_s(p, ceil(log2(k)), (k - 1) / k * bytes / g->per_node);
    return g->per_node > 1 ? combine(law4(p, P_AG_A_S, bytes), inter) : inter;
}

double coll_alltoall_s(const struct profile *p, const struct coll_group *g, double bytes)
{
    if (g->n < 2 || bytes <= 0) return 0;
    double n = g->n, per = g->per_node;
    double intra = log2(per) * p->p[P_P2P_A_S].v + (per - 1) / n * bytes / p->p[P_P2P_B].v;
    if (g->per_node == g->n) return intra;
    return combine(intra, net_s(p, log2(n / per), (n - per) / n * bytes));
}

double coll_p2p_s(const struct profile *p, bool inter, double bytes)
{
    if (bytes <= 0) return 0;
    enum profile_id a = inter ? P_NET_A_S : P_P2P_A_S, b = inter ? P_NET_B : P_P2P_B;
    return p->p[a].v + bytes / p->p[b].v;
}

static double bus_ratio(int n)
{
    return n / (2.0 * (n - 1));
}

static double geo(double x, double y, double w)
{
    return x > 0 && y > 0 ? exp((1 - w) * log(x) + w * log(y)) : (1 - w) * x + w * y;
}

struct coll_law coll_law_at(const struct coll_law *law, const int *sizes, int n_law, int n)
{
    assert(n_law >= 1 && n >= 2);
    int i = 0;
    while (i + 1 < n_law && sizes[i + 1] <= n) i++;
    if (n <= sizes[i]) return law[i];
    if (i + 1 < n_law) {
        const struct coll_law *x = law + i, *y = law + i + 1;
        double w = log2((double)n / sizes[i]) / log2((double)sizes[i + 1] / sizes[i]);
        return (struct coll_law){ (1 - w) * x->a_s + w * y->a_s,
                                  geo(x->b_bytes_per_s, y->b_bytes_per_s, w),
                                  (1 - w) * x->c_s + w * y->c_s, geo(x->s0_bytes, y->s0_bytes, w) };
    }
    struct coll_law z = law[i];
    if (i > 0) {
        double more = log2((double)n / sizes[i]) / log2((double)sizes[i] / sizes[i - 1]);
        z.a_s += fmax(0, (z.a_s - law[i - 1].a_s) * more);
        z.c_s += fmax(0, (z.c_s - law[i - 1].c_s) * more);
    }
    z.b_bytes_per_s *= bus_ratio(n) / bus_ratio(sizes[i]);
    return z;
}

struct coll_law coll_from_system(const struct hw *h, int n)
{
    const struct hw_system *s = &h->sys;
    double peer = s->peer_bytes_per_s > 0 ? s->peer_bytes_per_s
                                          : fmax(h->gpu.link_bytes_per_s, h->gpu.pcie_bytes_per_s);
    double bus = s->busbw_bytes_per_s > 0 ? s->busbw_bytes_per_s : peer;
    double alg;
    switch (s->fabric) {
    case HW_PAIRS: alg = n == 2 ? peer : h->gpu.pcie_bytes_per_s / 2; break;
    case HW_PCIE: alg = n == 2 ? peer : bus * bus_ratio(n); break;
    case HW_MESH: alg = fmin(bus, (n - 1) * peer) * bus_ratio(n); break;
    case HW_HOST:
        alg = (s->busbw_bytes_per_s > 0 ? s->busbw_bytes_per_s : peer * 2 / 3) * bus_ratio(n);
        break;
    case HW_SWITCHED:
    default: alg = bus * bus_ratio(n); break;
    }
    double hops = 2.0 * (n - 1);
    double extra = s->fabric == HW_HOST ? s->peer_alpha_s : 0;
    return (struct coll_law){ launch_s + hops * hop_s + extra, alg, 0, 1 };
}
