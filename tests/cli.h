/* tests/cli.h - the program as a user has it: runs it, keeps what it said, and reads its JSON.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_CLI_H
#define TESTS_CLI_H

#include <jansson.h>

/* stdout and stderr of the latest run, cut off at their size. */
extern char cli_out[1 << 18], cli_err[1 << 16];

const char *cli_bin(void); /* $ORRERY_BIN, which make sets; skips the test where it is not */

/* Runs `BEFORE PROGRAM ARGS`; before: words in front of the program (timeout, mpirun), or "". Returns
 * the exit status. */
int cli_run(const char *before, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Any other shell command, its output kept in the same place. */
int cli_shell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* As test_path, but good for a whole test: running something uses up that one's buffers. */
const char *cli_path(const char *name);
/* A file of this test, with that text; its path as cli_path gives it. */
const char *cli_put(const char *name, const char *text);
extern char cli_page[4 << 20];
const char *
cli_slurp(const char *path);        /* a file's text as cli_page, cut off at its size; "": none */
void cli_need(const char *program); /* skips the test where it is not installed */

json_t *cli_json(void); /* cli_out as one JSON value; a failed check and NULL where it is none */
json_t *cli_at(json_t *j, const char *path);       /* "latency.ttft.p99_ns"; NULL: not there */
double cli_number(json_t *j, const char *path);    /* a failed check where it is no number */
const char *cli_text(json_t *j, const char *path); /* a failed check, and "", where it is no text */

#endif
