/* plots/cmd_report.h - `orrery report`: run files as one HTML page.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef PLOTS_CMD_REPORT_H
#define PLOTS_CMD_REPORT_H

/* argv[0] is the verb's name. Returns the exit status. */
int cmd_report(int argc, char **argv);

#endif
