/* engine/comm_watch.h - life and failure of ranks that are processes: each has a connection to rank 0.
 *
 * MPI says nothing of a process that has ended. Here it is a closed connection: rank 0 tells the
 * others, and all know within milliseconds (a whole host lost without a word: 4 s, by keepalive). A
 * rank that cannot go on says why on the same way. A thread listens, without using a core; the first
 * failure wins. SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_COMM_WATCH_H
#define ENGINE_COMM_WATCH_H

#include <stdbool.h>

#include "base/err.h"

struct comm_watch;

enum { COMM_WATCH_PLACE = 512 };

/* Rank 0 of n listens, on the loopback address only if all ranks are on its host. `place` says
 * where, and holds a secret: it goes to the other ranks, who join. Errors: ST_DEVICE, NULL. */
struct comm_watch *comm_watch_listen(int n, bool one_host, char place[COMM_WATCH_PLACE],
                                     struct err *e);
struct comm_watch *comm_watch_join(int rank, const char *place, struct err *e);
/* On rank 0: waits until all have joined. Errors: ST_DEVICE with the missing rank after 30 s. */
int comm_watch_gather(struct comm_watch *w, struct err *e);

bool comm_watch_failed(const struct comm_watch *w); /* cheap: one atomic load */
/* ST_DEVICE and "rank 2: its process has ended", or the reason it gave. */
int comm_watch_why(struct comm_watch *w, struct err *e);
/* Rank 0 has ended without a word: nobody else can speak for all. */
bool comm_watch_orphan(const struct comm_watch *w);
/* Tells all. */
void comm_watch_fail(struct comm_watch *w, int rank, const char *why);

/* Says goodbye and frees. After a failure ranks other than 0 first wait, linger_ms at most, until
 * rank 0 has ended: launchers kill all others as soon as one is gone, and rank 0 has results to save.
 * NULL is fine. */
void comm_watch_close(struct comm_watch *w, int linger_ms);

#endif
