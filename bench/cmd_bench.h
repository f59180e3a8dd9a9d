/* bench/cmd_bench.h - `orrery bench`. SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_CMD_BENCH_H
#define BENCH_CMD_BENCH_H

int cmd_bench(int argc, char **argv); /* the exit status */

#endif
