/* engine/launch.h - how this process was started: alone, or as one rank under mpirun or srun.
 *
 * A command that runs ranks calls launch_start when its options are read, runs engine_follow where
 * `follows` says so and its own work elsewhere (on rank 0, or alone), and ends with launch_end. All
 * processes read the same command line; messages come from one of them.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_LAUNCH_H
#define ENGINE_LAUNCH_H

#include <stdbool.h>

#include "engine/comm.h"

enum launch_comm { LAUNCH_AUTO, LAUNCH_THREAD, LAUNCH_MPI };
#define LAUNCH_WORDS "auto thread mpi"

/* Of an option, in ns, of every command that runs ranks. */
#define LAUNCH_STALL_DFLT "30s"
#define LAUNCH_STALL_HELP                                                                          \
    "a rank whose process is silent for so long (stopped, or its machine hangs) has failed; 0s: "  \
    "never"

struct launch {
    struct comm_mpi *mpi; /* NULL: ranks are threads */
    bool follows;         /* not rank 0 */
};

/* auto: processes where a launcher has started more than one. Errors: ST_USAGE when that cannot be;
 * those of comm_mpi_open. */
int launch_start(struct launch *l, enum launch_comm how, struct err *e);
void launch_stall(struct launch *l, int64_t ns); /* after launch_start, on all processes */
void launch_end(struct launch *l);
/* Says on stderr what is wrong, once for all processes: as rank 0, or where rank 0 has gone. One of the
 * others that fails before launch_start, with a zeroed struct, says so, with its rank, if the launcher
 * has not ended it seconds later, for then it failed alone. Before launch_end. */
void launch_say(const struct launch *l, const char *program, const char *text);

#endif
