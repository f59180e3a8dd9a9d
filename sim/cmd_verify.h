/* sim/cmd_verify.h - the subcommand `orrery verify`. SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_CMD_VERIFY_H
#define SIM_CMD_VERIFY_H

/* argv[0] is "verify". Report on stdout, errors on stderr. Returns the exit status: 0 compatible; 1 not; 2 usage,
 * scenario or topology file; 5 I/O or device; 130 interrupted. */
int cmd_verify(int argc, char **argv);

#endif
