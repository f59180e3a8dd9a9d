/* model/coll.h - time of collectives and transfers over a group of GPUs, in a node or across nodes.
 *
 * Inside a node T = A + S/B + C*S/(S+S0), S = bytes of the full tensor, constants for the group's
 * size from the profile: of the communication library (P_AR_*) and of the engine's own kernel
 * (P_CAR_*). Engines take their own kernel where it is faster and the message is within its limit,
 * so the smaller of the two holds. Across nodes phases overlap in part: T = max(intra, inter) +
 * COLL_SERIAL * min(intra, inter). Pure functions. SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_COLL_H
#define MODEL_COLL_H

#include "model/hw.h"
#include "model/profile.h"

/* Share of the shorter phase that is not hidden behind the longer one, between full overlap (0) and
 * none (1). Assumed. */
#define COLL_SERIAL 0.4

struct coll_group {
    int n, per_node;
}; /* ranks in all, and of them in one node; per_node divides n */

/* Group of n ranks placed on nodes of h, filled node by node. inter: the group spans nodes. */
struct coll_group coll_group_of(const struct hw *h, int n, bool inter);

/* All four: 0 for a group of one or for no bytes. */
double coll_allreduce_s(const struct profile *p, const struct coll_group *g, double bytes);
/* bytes of the gathered tensor; a reduce-scatter of the same tensor costs the same. */
double coll_allgather_s(const struct profile *p, const struct coll_group *g, double bytes);
/* Each rank sends `bytes` in all, spread evenly over the n ranks, itself included: alpha grows with
 * log2 n. */
double coll_alltoall_s(const struct profile *p, const struct coll_group *g, double bytes);
double coll_p2p_s(const struct profile *p, bool inter, double bytes);

struct coll_law {
    double a_s, b_bytes_per_s, c_s, s0_bytes;
};
double coll_law_s(const struct coll_law *l, double bytes);
/* Law for n ranks from laws measured at sizes[0..n_law-1], ascending: each constant is interpolated
 * linearly in log2 n (B and S0 geometrically). Beyond the last size A and C grow as the last
 * doubling did and B keeps the last bus bandwidth. n_law >= 1, n >= 2. */
struct coll_law coll_law_at(const struct coll_law *law, const int *sizes, int n_law, int n);
/* All-reduce from the node's datasheet figures, for fabrics without measured collectives:
 *   A = 2(n-1) hops over a ring, hop_s each after launch_s; B = bus bandwidth * n / (2(n-1)).
 * Bus bandwidth of n ranks, by fabric:
 *
 *     switched  the node's figure, else peer rate
 *     pcie      the peer rate for a pair, else the node's figure
 *     pairs     the peer rate for a bridged pair; for more ranks half the PCIe rate, of algorithm
 *               bandwidth (measured: A100 15.7 GB/s on PCIe 4, H100 32.5 GB/s on PCIe 5)
 *     mesh      n - 1 links of the peer rate, at most the node's figure
 *     host      the node's figure, else 2/3 of the peer rate */
struct coll_law coll_from_system(const struct hw *h, int n);

#endif
