/* plots/cmd_plot.h - `orrery plot`: figures of run files. SPDX-License-Identifier: Apache-2.0 */
#ifndef PLOTS_CMD_PLOT_H
#define PLOTS_CMD_PLOT_H

/* argv[0] is the verb's name. Returns the exit status. */
int cmd_plot(int argc, char **argv);

#endif
