/* sim/cmd_simulate.h - the subcommand `orrery simulate`. SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_CMD_SIMULATE_H
#define SIM_CMD_SIMULATE_H

/* argv[0] is "simulate". Result on stdout, progress and errors on stderr. Returns the exit status:
 * 0; 1 an SLO was missed; 2 usage, scenario or trace; 5 I/O; 130 interrupted. */
int cmd_simulate(int argc, char **argv);

#endif
