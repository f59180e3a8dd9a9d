/* engine/cmd_engine.h - the subcommand `orrery engine`: run a model for real.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_CMD_ENGINE_H
#define ENGINE_CMD_ENGINE_H

/* argv[0] is "engine". Prints the result to stdout, "orrery engine: sentence" to stderr on failure;
 * returns the exit status: 0, 2 usage or a wrong file, 5 I/O or device, 130 interrupted. */
int cmd_engine(int argc, char **argv);

#endif
