/* bench/journal.h - finished requests as they finish, in a file that survives a kill.
 *
 * A run file appears when it is whole (base/h5.h), so a measured run that is killed would leave
 * nothing of minutes of work. The journal is PATH.journal.csv beside it: what runs as comments, a
 * header, then one line per ended request, each written by one call, so that a kill at any instant leaves whole lines (a last
 * one without its line end is to be ignored). `orrery engine recover` makes a run file of it. It is removed when the run file is there. One run at a
 * time writes a journal; what a killed run left becomes PATH.journal.1.csv (2, 3, ...).
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_JOURNAL_H
#define BENCH_JOURNAL_H

#include <stdbool.h>

#include "base/err.h"
#include "traces/run.h"

struct journal {
    char path[4096];
    int fd;       /* -1: none */
    struct err e; /* the first line that could not be written */
};

/* about: comment lines in front, each with its line end. */
int journal_open(struct journal *j, const char *out_path, const char *about, struct err *e);
void journal_put(struct journal *j, const struct run_request *row, int64_t id);
/* remove_it: the run file has appeared. Without an open journal: nothing. */
void journal_close(struct journal *j, bool remove_it);

#endif
