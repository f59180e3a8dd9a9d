/* tests/bench_env.h - a suite that takes milliseconds, and made-up ones that take none.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_BENCH_ENV_H
#define TESTS_BENCH_ENV_H

#include "bench/suite_run.h"

/* Of a tiny model on one rank and one thread. */
struct suite_opts bench_tiny(int kind, const char *model);
const char *bench_model(void); /* a directory with weights; skips the test where it is not there */

/* ---- a suite of made-up jobs: of 1, 2, 3, 1 ... points; the second point of job 1 is never measured */

enum { BENCH_JOBS = 7, BENCH_RUNS = 4, BENCH_POINTS = 13, BENCH_SAMPLES = 12 * BENCH_RUNS };
void bench_fake(struct suite *s); /* the caller releases its arena */

/* Raises `sig` when so many jobs have ended. */
struct bench_ender {
    int left, sig;
};
/* end: NULL, to the end. */
int bench_fake_run(const char *path, bool resume, struct bench_ender *end, struct suite_log *log,
                   struct err *e);
/* times[point][run] of a file; how many samples it has, -1: cannot be read. */
int64_t bench_count(const char *path, int times[32][BENCH_RUNS], struct err *e);

#endif
