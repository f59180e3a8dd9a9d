/* tests/nccl_fake.h - NCCL and devices for tests: ranks in one thread, memory of the host.
 *
 * What is issued to a stream is only kept; it runs when the test says so (or looks at an event),
 * one operation at a time of any stream whose first one can run, in an order that a seed draws or
 * that favours or holds back the streams beside the queue. So work that an event should have held
 * up does run too early, and shows as wrong data. Collectives run when all ranks have come to them.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_NCCL_FAKE_H
#define TESTS_NCCL_FAKE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/gpu.h"
#include "engine/nccl_api.h"

enum { NCCL_FAKE_RANKS = 16 };
enum nccl_fake_order {
    NCCL_FAKE_ANY,
    NCCL_FAKE_SIDE_FIRST,
    NCCL_FAKE_SIDE_LAST,
    NCCL_FAKE_N_ORDER
};

struct nccl_fake {
    /* to be set by the test after open */
    enum nccl_fake_order order;
    int version;
    int init_result[NCCL_FAKE_RANKS];  /* of init on that rank; 0: as it should be */
    int call_result[NCCL_FAKE_RANKS];  /* of sums and messages */
    int async_result[NCCL_FAKE_RANKS]; /* what async_error finds */
    int cu_result;                     /* of event_record */
    int busy_polls;                    /* looks until the first call on a communicator is issued */
    bool no_waits;                     /* stream_wait does nothing */
    bool no_memory;
    bool recorded; /* aborts last until nccl_fake_forget, as with recordings that hold calls */
    const char *last_error;
    /* to be read */
    int64_t now_ns;                 /* passes with each look at the clock, and by naps */
    int64_t queries;                /* looks at events */
    int aborts, destroyed, misuses; /* misuses: calls on what is not ready, unequal messages */
    int alive;                      /* communicators, streams, events */
};
extern struct nccl_fake nccl_fake;
extern const struct nccl_api nccl_fake_api;
extern const struct nccl_clock nccl_fake_clock;

void nccl_fake_open(uint64_t seed);
void nccl_fake_close(void);
void nccl_fake_forget(void);  /* recordings are freed */
void nccl_fake_use(int rank); /* whose device the calls that follow are for */
struct gpu *nccl_fake_gpu(int rank);
/* Issues fn(arg) to the rank's queue; *gate, where there is one, must be true before it can run. */
void nccl_fake_kernel(int rank, void (*fn)(void *), void *arg, const bool *gate);
/* Runs what can run. Returns whether nothing is left. */
bool nccl_fake_run(void);
bool nccl_fake_idle(int rank, bool side); /* nothing left on its queue, or beside it */
/* What the rank's device is told by its watch (gpu.h), -1: it has none. */
int nccl_fake_ask(int rank, int64_t waited_ns, struct err *e);

#endif
