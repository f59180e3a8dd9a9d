/* engine/rank.h - between engine.c (the ranks together) and rank.c (one of them): opening, its part of
 * a step, closing. SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_RANK_H
#define ENGINE_RANK_H

#include <pthread.h>

#include "engine/backend_timed.h"
#include "engine/engine.h"
#include "engine/link.h"
#include "engine/wire.h"

enum { RANK_ISSUED = COMM_MARKS / 2 }; /* steps that are issued and not known to be over */

struct rank {
    struct engine *g;
    int rank;
    pthread_t id;
    bool started;
    struct err own;                 /* what went wrong on this rank itself */
    struct comm *world, *tp, *pipe; /* pipe: of activations between stages */
    struct comm *host_tp;           /* tp, or beside it where that is NCCL's */
    struct comm_nccl *nccl;         /* NULL: activations go through the host */
    struct team *team;
    struct backend *b;
    struct model m;
    struct wire wire, next; /* next: read ahead, with has_next */
    bool has_next;
    /* Calls between devices are on_device: a step is issued, and followed by two marks on the queue,
     * the first behind its input. */
    bool queued;
    struct engine_rank_step issued[RANK_ISSUED]; /* in turn; over when their marks are passed */
    int64_t n_issued, n_passed;                  /* steps; marks */
    int64_t over_ns;                             /* end of the last one that was */
    float *part; /* [max_out][s.n_vocab], last stage only: one tp rank's share on its way */
    /* sampling rank only */
    float *logits;         /* [max_out][vocab]; NULL where tp is 1, and part has them all */
    unsigned char *result; /* int32 n_out, pad, tokens [max_out], logits */
    unsigned char *tmp;    /* [threads][tmp_bytes] */
    size_t tmp_bytes;
    float *warm; /* of rank_warm, where that has failed */
    int64_t steps, step_ns;
    struct timing timing;
    struct backend_timed_step parts; /* of a rank in another process, its latest known */
};

/* What a process tells rank 0 after a step. */
struct rank_told {
    struct engine_rank_step times;
    struct backend_timed_step parts; /* only of a backend that keeps them */
};

struct engine {
    struct engine_opts o;
    struct spec spec;
    struct weights w;
    struct wire_limit limit;
    struct comm_thread *comm; /* NULL where ranks are processes */
    struct link link;
    struct rank *rank;               /* [n]; where ranks are processes, rank[me] only is alive */
    struct engine_rank_report *told; /* [n], of other processes: once loaded, and stopped */
    int n, me, in_flight;
    bool untimed; /* a step was collected, and the times of other processes are on their way */
    size_t result_bytes;
    unsigned char *result; /* the last collected */
    bool stopped;
    const char *kernels;
};

enum { RANK_HEAD_BYTES = 8 }; /* of a result, before its tokens */

/* Rank that samples: the first of the last stage. */
static inline int rank_sampler(const struct engine *g)
{
    return g->n - g->o.tp;
}

static inline size_t rank_tokens_bytes(int32_t n_out)
{
    return ((size_t)n_out * sizeof(int32_t) + 7) / 8 * 8;
}

/* What ranks on this host share. */
struct comm_mpi_place rank_place(const struct engine *g);

/* On the rank's own thread. */
int rank_open(struct rank *r, struct err *e);
/* A failure of this rank itself is kept for the caller and told to the others; one that was told by
 * another rank is not. */
void rank_give_up(struct rank *r, const struct err *e);
/* The first messages of a size are slow, as the library makes room for them: all sizes that steps
 * will have, several times, before the first request; once of those from device to device, which
 * connect meanwhile. Not counted. All ranks; those in other processes report to rank 0
 * (engine_report). */
int rank_warm(struct rank *r, struct err *e);
/* The step in r->wire. On the last stage it is done then; on the others, where calls are on_device, it
 * is issued: no call waits for the device. */
int rank_step(struct rank *r, struct err *e);
/* Before a comm_recv from `from` of the world: until that would not wait, or nothing is under way on the
 * device, which is looked at meanwhile. */
int rank_await(struct rank *r, int from, struct err *e);
/* Whose device has failed says which rank it is. */
void rank_sign(const struct rank *r, struct err *e);
/* The end of what ranks do together: all of them at about the same time, each on its thread. */
void rank_leave(struct rank *r);
/* All that a rank is that is not rank 0: until the engine is stopped. */
int rank_live(struct rank *r, struct err *e);
void rank_release(struct rank *r);

#endif
