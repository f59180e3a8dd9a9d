/* engine/team.h - the threads within one rank: each call is run by all of them, by parts.
 *
 * Workers live as long as the team and wait between calls by engine/bell.h; a team of one has none.
 * Threads are pinned when the process may use enough processors for all ranks' threads. The caller of
 * team_open is then pinned as well, until the last team that it has opened so is closed; threads that
 * it starts meanwhile inherit its one processor, unless it calls team_unpin before.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_TEAM_H
#define ENGINE_TEAM_H

#include "base/err.h"

struct team;
typedef void (*team_fn)(void *arg, int part, int n_part);

/* n threads, the caller one of them. first_cpu: the caller goes to the first_cpu-th processor that
 * it may use, its workers to the next ones; -1 pins nobody. Does team_unpin. spin_max: see bell.h. */
struct team *team_open(int n, int first_cpu, int spin_max, struct err *e);
/* By the thread that opened it, or after that has ended. NULL is fine. */
void team_close(struct team *t);
int team_size(const struct team *t);
/* Once a step, by its caller: where the team is pinned and others want the processors
 * (engine/crowd.h), its threads are unpinned as long as they do. */
void team_look(struct team *t);

/* Gives the calling thread the processors back that it had before teams pinned it. */
void team_unpin(void);
int team_cpus(void); /* how many these are, at least 1 */

/* fn(arg, part, n) on every thread, part 0 in the caller; returns when all have ended. */
void team_run(struct team *t, team_fn fn, void *arg);

#endif
