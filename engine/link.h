/* engine/link.h - whether the ranks of an engine talk from device to device, and their way in.
 *
 * With NCCL each rank has communicators whose calls its device's queue makes (comm_nccl.h); without,
 * activations pass through the host (exchange.h). SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_LINK_H
#define ENGINE_LINK_H

#include "engine/comm_nccl.h"
#include "engine/device.h"

struct link { /* of an engine, the same for all its ranks in this process */
    bool on;
    bool shared, threads; /* ranks share devices; are threads of this process */
    int tp, pp;
    size_t message_bytes; /* largest between stages */
    struct nccl_api api;
    struct nccl_id *id;   /* [comm_nccl_n_id] */
    comm_nccl_seen *seen; /* [tp * pp]; NULL where ranks are processes of several hosts */
    int (*alive)(void *arg, struct err *e);
    void *alive_arg;
};

/* Decides: l's tp, pp, threads, message_bytes and alive are set. n_here: ranks of this host. Errors:
 * ST_USAGE when NCCL is wanted, or needed, and is not there. */
int link_choose(struct link *l, const struct device *d, int n_here, struct err *e);
/* Identifiers for threads, made once before they start. Nothing where ranks are processes. */
int link_make(struct link *l, struct err *e);
/* Rank 0's data on all ranks, which are processes, by the way that $ORRERY_NCCL_BOOT names: "mpi" or
 * unset: nccl_boot_comm; "slurm": nccl_boot_slurm's files; a path, with a '/': nccl_boot_file's.
 * Errors: theirs; ST_USAGE for another word, or when SLURM counts other tasks than there are ranks. */
int link_share(struct comm *world, void *data, size_t bytes, struct err *e);
/* On each rank, its device open: identifiers where ranks are processes, then comm_nccl_start. NULL
 * with a sentence. */
struct comm_nccl *link_start(struct link *l, struct gpu *g, int rank, struct comm *world,
                             struct err *e);
void link_release(struct link *l);

#endif
