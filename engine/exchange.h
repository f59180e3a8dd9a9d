/* engine/exchange.h - activations between ranks, wherever the backend keeps them.
 *
 * Between memory of the host: directly. Between devices whose communicators know nothing of them:
 * through host memory that the device copies to and from, with a wait for it before each call.
 * Between devices whose communicators do (comm.h, on_device): issued like an operation.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_EXCHANGE_H
#define ENGINE_EXCHANGE_H

#include "engine/backend.h"
#include "engine/comm.h"

struct exchange {
    struct backend *b;
    struct comm *tp, *pipe; /* of sums; of messages between stages */
    void *host;             /* [bytes], NULL where nothing has to pass through it */
    size_t bytes;
    bool busy; /* the device may still read from it */
};

/* bytes: of the largest sum or message. The memory is the backend's. Errors: ST_DEVICE. */
int exchange_open(struct exchange *x, size_t bytes, struct err *e);

/* p[n] in the backend's memory becomes the sum over the tp ranks. */
int exchange_sum(struct exchange *x, float *p, size_t n, struct err *e);
/* all[tp rank][bytes]; tp's must be on_device. */
int exchange_gather(struct exchange *x, const void *mine, size_t bytes, void *all, struct err *e);
int exchange_send(struct exchange *x, int to, const void *p, size_t bytes, struct err *e);
int exchange_recv(struct exchange *x, int from, void *p, size_t bytes, struct err *e);
/* An exchange_recv of these will follow: where messages go from device to device, this one may come
 * while the queue is at something else. */
int exchange_expect(struct exchange *x, int from, size_t bytes, struct err *e);
/* Until all that was issued is done. Errors: ST_DEVICE of the backend or a communicator. */
int exchange_sync(struct exchange *x, struct err *e);

#endif
