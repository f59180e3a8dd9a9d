/* bench/cmd_validate.h - `orrery validate`: predicted runs against measured ones.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_CMD_VALIDATE_H
#define BENCH_CMD_VALIDATE_H

/* argv[0] is the verb's name. Returns the exit status: 0 accurate, 1 not, 2 a wrong option or file,
 * 3 inconclusive, 5 reading or writing failed, 130 interrupted. */
int cmd_validate(int argc, char **argv);

#endif
