/* bench/recover.h - `orrery engine recover`: the journal of a run that was killed becomes a run file.
 *
 * It holds what had finished: /requests, /scenario, and a /summary in which every finished request
 * counts, from the first due time to the last token (no warm-up is left out, what was under way is not
 * known). The journal stays. SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_RECOVER_H
#define BENCH_RECOVER_H

#include "base/arena.h"
#include "base/err.h"
#include "traces/run.h"

struct recover_row {
    int64_t id, line; /* line: of the file */
    struct run_request r;
};
struct recover_journal {
    const char *measured, *workload, *scenario; /* what ran where; the load; the scenario's path */
    const char *yaml;        /* the effective scenario, at the lines and columns of the journal */
    struct recover_row *row; /* [n] in order of their ends */
    int64_t n;
    int n_cut; /* 1: the last line has no end, and is left out */
};

/* Texts and rows in a; lines may end as on other systems. Errors: ST_IO; ST_USAGE with the line where it
 * is no journal: also a request that ends twice, and times that cannot have been. */
int recover_read(const char *path, struct arena *a, struct recover_journal *out, struct err *e);

/* argv[0] "engine", argv[1] "recover". Prints to stdout, errors to stderr; the exit status. */
int recover(int argc, char **argv);

#endif
