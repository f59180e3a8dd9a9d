/* bench/cmd_calibrate.h - `orrery calibrate`. SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_CMD_CALIBRATE_H
#define BENCH_CMD_CALIBRATE_H

int cmd_calibrate(int argc, char **argv);

#endif
