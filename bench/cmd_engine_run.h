/* bench/cmd_engine_run.h - the subcommand `orrery engine`: `run` serves a scenario for real, what
 * else there is (`generate`) is engine/cmd_engine.h. SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_CMD_ENGINE_RUN_H
#define BENCH_CMD_ENGINE_RUN_H

/* argv[0] is "engine". Prints the result to stdout, "orrery engine: sentence" to stderr on failure;
 * returns the exit status: 0, 1 the SLO is missed, 2 usage or a wrong file, 5 I/O or a rank, 130
 * interrupted. */
int cmd_engine_run(int argc, char **argv);

#endif
