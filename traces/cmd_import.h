/* traces/cmd_import.h - the subcommand `orrery import`: results of other tools.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TRACES_CMD_IMPORT_H
#define TRACES_CMD_IMPORT_H

/* argv[0] is "import". Prints the result to stdout, "orrery import: sentence" to stderr on failure;
 * returns the exit status: 0; 1 limits missed or wrong data; 2 usage or a wrong file; 3 limits, but
 * no per-request data; 4 limits, but a client too slow to judge by; 5 I/O. */
int cmd_import(int argc, char **argv);

#endif
