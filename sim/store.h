/* sim/store.h - a simulation as a run file: rows while it runs, the summary when it has ended.
 *
 * Rows (/requests, /steps, /series, /stages) are those of the first seed with nominal constants;
 * /summary pools all seeds and holds the intervals. SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_STORE_H
#define SIM_STORE_H

#include "base/prov.h"
#include "sim/print.h"
#include "traces/run.h"

struct store {
    run *run;
    struct err e; /* of the first row that could not be written */
    struct sim_sink sink;
    bool measured;      /* not simulated */
    const char *device; /* print_device of a sweep's latest row; NULL: none yet */
};

/* Opens the file; s->sink then writes rows. The simulation goes on after a failed row;
 * store_finish reports it. */
int store_begin(struct store *t, const char *path, bool steps, struct err *e);
/* Summary, scenario and provenance (kind = measured where in->line is set); the file appears. Frees the store, also on failure. */
int store_finish(struct store *t, const struct print_in *in, const struct prov *p, struct err *e);
void store_abort(struct store *t);
void store_sweep_row(struct store *t, const struct print_in *in, double value);
/* A file with a sweep only. */
int store_finish_sweep(struct store *t, const struct scenario *s, const struct prov *p,
                       struct err *e);

#endif
