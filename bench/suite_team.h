/* bench/suite_team.h - teams of threads for micro points, kept as long as the suite.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_SUITE_TEAM_H
#define BENCH_SUITE_TEAM_H

#include <stddef.h>

#include "bench/suite.h"
#include "engine/team.h"

/* n threads, the caller now among them, each on a processor of its own. NULL with a sentence. */
struct team *suite_team(struct suite *s, int n, struct err *e);
/* Memory beyond the last cache, kept, in huge pages where there are any; zeros at first. Two: values
 * of one use, read as those of another, may be denormal and slow. */
enum suite_use { SUITE_STREAM, SUITE_VALUES, SUITE_N_USE };
void *suite_memory(struct suite *s, enum suite_use use, struct err *e);
size_t suite_memory_bytes(const struct suite *s);
size_t suite_cache_look(void); /* bytes of all last-level caches; 32 MiB where that is not told */
/* Thread counts to measure with: 1, 2, 4 ... and all; returns how many. */
int suite_threads(const struct suite *s, int out[8]);

#endif
