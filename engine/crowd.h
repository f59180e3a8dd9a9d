/* engine/crowd.h - whether other programs want the processors that ranks have pinned themselves to.
 *
 * Ranks that have a processor each are fastest pinned, and waiting by looking. Where another program
 * wants one of those processors that is the worst: the rank there has half of it, and the others look
 * on, keeping theirs from it; a sum of many ranks then waits for the unluckiest. Unpinned and asleep
 * while they wait, the ranks share what is left, about their fair share.
 *
 * So each rank asks the system, now and then, how long its threads could have run and were not let
 * (run delay, /proc/thread-self/schedstat; where there is none nothing is ever crowded). Past a
 * quarter of the time the host is crowded: for a while, then it is tried again, and the while doubles
 * as long as that fails. The board says so to all ranks of the process, or of the host.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_CROWD_H
#define ENGINE_CROWD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct crowd_board {
    _Atomic int64_t until_ns; /* crowded until then, by clock_mono_ns() */
    _Atomic int64_t hold_ns;  /* for so long, the last time */
};

/* The board of this process becomes one that others share; NULL: its own again. */
void crowd_share(struct crowd_board *b);
struct crowd_board *crowd_board(void);

#define CROWD_LOOK_NS      INT64_C(30000000)
#define CROWD_HOLD_NS      INT64_C(100000000)  /* the first while */
#define CROWD_HOLD_MOST_NS INT64_C(3200000000) /* the longest */

/* A thread could have run for waited_ns more in the last span_ns, up to now. */
void crowd_judge(struct crowd_board *b, int64_t now_ns, int64_t span_ns, int64_t waited_ns);

/* Threads that look together: a rank's. */
struct crowd {
    int n;
    struct crowd_seat *seat; /* [n] */
    int64_t since_ns;        /* of the present span; 0: none has begun */
};

void crowd_init(struct crowd *c, int n);
void crowd_release(struct crowd *c);     /* when its threads have ended, or no longer join */
void crowd_join(struct crowd *c, int i); /* by the i-th thread itself */
/* Often, by one thread: cheap but every CROWD_LOOK_NS. Whether it is crowded now; bells are told. */
bool crowd_look(struct crowd *c);

#endif
