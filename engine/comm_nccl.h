/* engine/comm_nccl.h - communicators whose data is in GPU memory: NCCL, issued on the device's
 * queue.
 *
 * Two ends of comm.h for a rank: `tp`, whose all-reduce, all-gather and broadcast are issued on the
 * backend's queue, and `pipe`, which sends to the next stage and receives from the one before.
 * Calls return when they are issued; who needs the result on the host waits with comm_nccl_wait.
 * Sums are added in NCCL's order, the same on every rank, not that of comm_tree; counts of time are
 * of issuing. Everything else between ranks (steps, tokens, failures) goes by a communicator of the
 * host: `world`.
 *
 * Messages have streams of their own, one for each direction and each a communicator of two ranks,
 * so that neither a receive that waits nor a late neighbour holds up compute or the other
 * direction. They are buffered: a send copies on the queue to one of two buffers, from which the
 * side stream sends when the copy is done; a receive arrives in one of two buffers, from comm_expect
 * on if that was called, and is copied on the queue once it is there. So a message travels while
 * the queue computes, and `data` is the caller's again in the queue's order. A message is as long
 * where it is received as where it was sent.
 *
 * tp's calls may be part of a recording (gpu.h) once one of the same size has run before; pipe's
 * may not. NCCL's own handles stay in recordings: free those before comm_nccl_close. One thread
 * uses a comm_nccl: the one on which the device was opened. SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_COMM_NCCL_H
#define ENGINE_COMM_NCCL_H

#include <stdatomic.h>

#include "engine/comm.h"
#include "engine/gpu.h"
#include "engine/nccl_api.h"

struct comm_nccl;

enum { COMM_NCCL_ARRIVE_S = 30, COMM_NCCL_WAIT_S = 20 };

/* What the ranks tell of themselves in memory that they share (threads of a process, or a mapping
 * of processes of a host), by CLOCK_MONOTONIC: 0 not yet there; t > 0 waits for its queue, alive at
 * t ns; -t elsewhere, with its last call at t ns. */
typedef _Atomic int64_t comm_nccl_seen;

struct comm_nccl_opts {
    const struct nccl_api *api;
    struct gpu *gpu;
    int rank, tp, pp;         /* rank = stage * tp + tp rank */
    const struct nccl_id *id; /* [comm_nccl_n_id(tp, pp)], the same on all ranks: nccl_boot.h */
    size_t message_bytes;     /* largest between stages */
    struct comm *world;       /* told when this rank fails; NULL: nobody is */
    /* ST_DEVICE with its sentence when another rank has failed or its process has ended
     * (comm_thread_check, comm_mpi_check). Cheap. NULL: only NCCL tells. */
    int (*alive)(void *arg, struct err *e);
    void *alive_arg;
    comm_nccl_seen *seen;    /* [tp * pp], zeroed before the ranks start; NULL: there is none, and a
                              * rank that hangs is named only as one of those waited for */
    int wait_s;              /* longest wait for other ranks within a step; 0: COMM_NCCL_WAIT_S */
    bool shares_device;      /* with another rank */
    bool threads;            /* ranks are threads of this process */
    struct nccl_clock clock; /* zeroed: nccl_clock_real */
};

/* Identifiers that all ranks need, and making them: on rank 0, which keeps a thread for each.
 * Errors: ST_USAGE, ST_DEVICE. */
int comm_nccl_n_id(int tp, int pp);
int comm_nccl_make_ids(const struct nccl_api *a, int tp, int pp, struct nccl_id *id, struct err *e);

/* Begins to connect and returns: there is time to load weights before comm_nccl_ready. Takes
 * 2 * message_bytes of device memory for each neighbouring stage. With shares_device NCCL is told
 * through the environment to allow it: NCCL_HOSTID, each rank as if on a host of its own, which
 * sends its data through sockets; or NCCL_MULTI_RANK_GPU_ENABLE from 2.30 on, without which ranks
 * that share a device cannot be threads. Errors: ST_USAGE, ST_DEVICE, NULL. */
struct comm_nccl *comm_nccl_start(const struct comm_nccl_opts *o, struct err *e);
/* Until all ranks have connected, COMM_NCCL_ARRIVE_S at most. Errors: ST_DEVICE with who is
 * missing. */
int comm_nccl_ready(struct comm_nccl *n, struct err *e);
/* Ends connections in good order, or aborts them after a failure. NULL is fine. Before the gpu's.
 */
void comm_nccl_close(struct comm_nccl *n);

struct comm *comm_nccl_tp(struct comm_nccl *n);
/* rank and n are the world's; sends go to rank + tp, receives are from rank - tp, nothing else. */
struct comm *comm_nccl_pipe(struct comm_nccl *n);

/* What has gone wrong with NCCL, another rank or its process, found without waiting; to be called
 * by who waits for something else. After a failure, which aborts all of NCCL's work on the device,
 * it and every other call return the same sentence. */
int comm_nccl_check(struct comm_nccl *n, struct err *e);
/* Until all that was issued to the queue is done, looking out for failures, as comm_passed does and,
 * as long as this is open, the device in its own waits (gpu.h, watch).
 * Errors: ST_DEVICE with the rank that has failed, ended, or has not come for wait_s. */
int comm_nccl_wait(struct comm_nccl *n, struct err *e);

#endif
