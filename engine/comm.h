/* engine/comm.h - the communicator of the ranks: collectives in fixed order, messages between stages.
 *
 * A group is what a collective spans: the world (all ranks) or the tp ranks of one stage. Every rank
 * of a group makes the same calls in the same order. Sums are added as a balanced binary tree in
 * rank order, so their bits depend neither on timing nor on the rank that reads them. Messages are
 * buffered: a send returns once the message is copied, up to COMM_SLOTS of them; they arrive in
 * order. When a rank fails, every call of every other one, waiting or yet to come, returns ST_DEVICE
 * with the rank and its sentence.
 * Implementations: comm_thread.c (ranks are threads of one process), comm_mpi.c (processes under
 * mpirun or srun).
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_COMM_H
#define ENGINE_COMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum comm_call {
    COMM_ALLREDUCE,
    COMM_ALLGATHER,
    COMM_BROADCAST,
    COMM_BARRIER,
    COMM_SEND,
    COMM_RECV,
    COMM_N_CALL
};
#define COMM_CALL_WORDS "allreduce allgather broadcast barrier send recv"

enum { COMM_SLOTS = 8, COMM_MAX_RANKS = 256, COMM_MARKS = 2 * (COMM_SLOTS + 1) };

/* What one rank spent in one kind of call, waiting for the others included. */
struct comm_count {
    int64_t calls, bytes, ns, max_ns;
};

/* One rank's end of one group. */
struct comm {
    const struct comm_ops *ops;
    void *group;
    int rank, n;    /* within the group */
    bool on_device; /* data is in device memory, calls are issued on the backend's queue */
    struct comm_count count[COMM_N_CALL];
};

struct comm_ops {
    const char *name;
    int (*allreduce)(struct comm *c, float *x, size_t n, struct err *e);
    int (*allgather)(struct comm *c, const void *mine, size_t bytes, void *all, struct err *e);
    int (*broadcast)(struct comm *c, int root, void *data, size_t bytes, struct err *e);
    int (*barrier)(struct comm *c, struct err *e);
    int (*send)(struct comm *c, int to, const void *data, size_t bytes, struct err *e);
    int (*recv)(struct comm *c, int from, void *data, size_t *bytes, struct err *e);
    void (*fail)(struct comm *c, const char *why);
    /* on_device, else NULL: until all that is on the backend's queue is done or a rank has failed. */
    int (*wait)(struct comm *c, struct err *e);
    int (*check)(struct comm *c, struct err *e); /* NULL where the world's is the one to ask */
    /* Of the host, else NULL. */
    bool (*there)(struct comm *c, int from);
    /* on_device, else NULL. */
    int (*expect)(struct comm *c, int from, size_t bytes, struct err *e);
    int (*mark)(struct comm *c, struct err *e);
    int (*passed)(struct comm *c, int64_t *n, struct err *e);
};

/* x[n] on every rank becomes the sum over ranks. Bytes counted: 4n. */
int comm_allreduce(struct comm *c, float *x, size_t n, struct err *e);
/* all[rank][bytes]. Bytes counted: those received from others. */
int comm_allgather(struct comm *c, const void *mine, size_t bytes, void *all, struct err *e);
int comm_broadcast(struct comm *c, int root, void *data, size_t bytes, struct err *e);
int comm_barrier(struct comm *c, struct err *e);
int comm_send(struct comm *c, int to, const void *data, size_t bytes, struct err *e);
/* *bytes: room in, size out. Errors: ST_DEVICE also when the message is larger. */
int comm_recv(struct comm *c, int from, void *data, size_t *bytes, struct err *e);
int comm_wait(struct comm *c, struct err *e);
/* Whether comm_recv would not wait: a message from `from` is there, or a rank has failed. Of a
 * communicator of the host. */
bool comm_there(struct comm *c, int from);

/* ---- on_device: what is on the queue, followed without waiting */

/* The next message from `from` that is not yet expected, which a comm_recv of as many bytes will
 * take: it may come from now on, whatever the queue is at. At most two that no recv has taken. */
int comm_expect(struct comm *c, int from, size_t bytes, struct err *e);
/* A mark on the queue, which is passed when all before it is done. All ends of a rank share them;
 * COMM_MARKS at most that are not known to be passed. */
int comm_mark(struct comm *c, struct err *e);
/* *n: marks passed so far, in their order. Errors: those that a wait for the next one would have,
 * which has been waited for since the first of these calls that did not find it passed. */
int comm_passed(struct comm *c, int64_t *n, struct err *e);
/* ST_DEVICE with its sentence when a rank has failed, found without talking. */
int comm_check(struct comm *c, struct err *e);
/* Says that this rank cannot go on: wakes all others with the reason. The first failure wins. */
void comm_fail(struct comm *c, const char *why);

/* out[i], i < n, becomes the sum of in[lo..hi)[i] in the order of a sum over ranks: the left part of
 * the tree is the largest power of two below their number. */
void comm_tree(const float *const *in, int lo, int hi, size_t n, float *out);

/* ---- ranks as threads of this process */

struct comm_thread;

/* tp * pp ranks; rank = stage * tp + tp_rank. spin_max: see bell.h. NULL with a sentence if out of
 * range. */
struct comm_thread *comm_thread_open(int tp, int pp, int spin_max, struct err *e);
void comm_thread_close(struct comm_thread *t); /* when no rank uses it any more; NULL is fine */
/* ST_DEVICE with its sentence when a rank has failed. */
int comm_thread_check(struct comm_thread *t, struct err *e);
struct comm *comm_thread_world(struct comm_thread *t, int rank);
struct comm *comm_thread_tp(struct comm_thread *t, int rank); /* of its stage */
/* Room for messages of up to `bytes` between two world ranks; before anything is sent there. A pair
 * without it cannot talk. */
void comm_thread_reserve(struct comm_thread *t, int from, int to, size_t bytes);

/* ---- ranks as processes under mpirun or srun (Open MPI) */

struct comm_mpi;

struct comm_mpi_place { /* processes of this host */
    int nth, n;         /* this one among them */
    int cpus;           /* processors they may use, together */
    bool bound;         /* the launcher has given each its own */
};

/* All processes, once, together; the library is looked for at run time only. Errors: ST_USAGE when
 * there is no MPI, here or in this build; ST_DEVICE. */
struct comm_mpi *comm_mpi_open(struct err *e);
/* After a failure the job is not ended in good order: the process must then exit non-zero. NULL is
 * fine. */
void comm_mpi_close(struct comm_mpi *m);
int comm_mpi_rank(const struct comm_mpi *m);
int comm_mpi_size(const struct comm_mpi *m);
const struct comm_mpi_place *comm_mpi_place(const struct comm_mpi *m);
/* A process that is silent for so long has stopped: a failure. 0: never. See comm_watch.h. */
void comm_mpi_stall(struct comm_mpi *m, int64_t ns);
/* ST_DEVICE with its sentence when a rank has failed or its process ended, found without talking. */
int comm_mpi_check(struct comm_mpi *m, struct err *e);
/* Rank 0 has ended without a word, so the others may speak. */
bool comm_mpi_orphan(const struct comm_mpi *m);

struct comm *comm_mpi_world(struct comm_mpi *m);
struct comm *comm_mpi_tp(struct comm_mpi *m);
/* Groups of tp, as in comm_thread_open, and room for sums of n_sum floats; counts start anew.
 * spin_max: see bell.h. Until then the world only, without sums. */
void comm_mpi_split(struct comm_mpi *m, int tp, size_t n_sum, int spin_max);
/* Room for messages of up to `bytes` from this process to rank `to`. */
void comm_mpi_reserve(struct comm_mpi *m, int to, size_t bytes);

#endif
