/* traces/cmd_trace.h - the subcommand `orrery trace`: describe, convert, synth.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TRACES_CMD_TRACE_H
#define TRACES_CMD_TRACE_H

/* argv[0] is "trace". Prints the result to stdout, "orrery trace: sentence" to stderr on failure;
 * returns the exit status: 0, 2 usage or a wrong file, 5 I/O. */
int cmd_trace(int argc, char **argv);

#endif
