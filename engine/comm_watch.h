/* engine/comm_watch.h - life and failure of ranks that are processes: each has a connection to rank 0.
 *
 * MPI says nothing of a process that has ended. Here it is a closed connection: rank 0 tells the
 * others, and all know within milliseconds (a whole host lost without a word: 4 s, by keepalive). A
 * rank that cannot go on says why on the same way. A thread listens, without using a core; the first
 * failure wins.
 *
 * Two more kinds of loss are seen by the beats that this thread exchanges with rank 0's, twice a
 * second or more. A process that is stopped, or whose machine hangs, beats no more, while one that computes
 * for long beats on: so silence is a failure, however long a step may take. Beats missed are counted
 * by who listens, not timed: a job that is stopped and continued as a whole has missed none. And a
 * rank that a signal told to stop (base/stop.h) says so: where rank 0 was told as well, as by Ctrl-C,
 * the run ends in its order; else the job cannot go on without that rank, which is a failure.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_COMM_WATCH_H
#define ENGINE_COMM_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct comm_watch;

enum { COMM_WATCH_PLACE = 512 };

/* Silence that is a failure where nothing else is said. Debuggers stop processes for longer. */
#define COMM_WATCH_STALL_NS INT64_C(30000000000)

/* Rank 0 of n listens, on the loopback address only if all ranks are on its host. `place` says
 * where, and holds a secret: it goes to the other ranks, who join. Errors: ST_DEVICE, NULL. */
struct comm_watch *comm_watch_listen(int n, bool one_host, char place[COMM_WATCH_PLACE],
                                     struct err *e);
struct comm_watch *comm_watch_join(int rank, const char *place, struct err *e);
/* On rank 0: waits until all have joined. Errors: ST_DEVICE with the missing rank after 30 s. */
int comm_watch_gather(struct comm_watch *w, struct err *e);

/* The same on all ranks. 0: never. */
void comm_watch_stall(struct comm_watch *w, int64_t ns);

bool comm_watch_failed(const struct comm_watch *w); /* cheap: one atomic load */
/* ST_DEVICE and "rank 2: its process has ended", "... has not answered for 30 s: ...", "... was told
 * to stop (SIGTERM), and rank 0 was not", or the reason it gave. */
int comm_watch_why(struct comm_watch *w, struct err *e);
/* Rank 0 has ended, or fallen silent, without a word: nobody else can speak for all. */
bool comm_watch_orphan(const struct comm_watch *w);
/* Tells all. */
void comm_watch_fail(struct comm_watch *w, int rank, const char *why);

/* Says goodbye and frees. After a failure ranks other than 0 first wait, linger_ms at most, until
 * rank 0 has ended: launchers kill all others as soon as one is gone, and rank 0 has results to save.
 * NULL is fine. */
void comm_watch_close(struct comm_watch *w, int linger_ms);

#endif
