/* sim/window.h - which requests a run's figures are of: the window of sim/metrics.h, kept while
 * requests arrive. Served by the simulator's clock and by the engine's.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_WINDOW_H
#define SIM_WINDOW_H

#include "sim/metrics.h"
#include "sim/series.h"
#include "traces/trace.h"

struct window {
    struct metrics *m;
    bool steady, closed_loop; /* of the trace: traces/trace.h */
    int64_t total;            /* requests known to come; -1: unknown */
    bool begun, closed;
    int64_t warm_n, warm_ns;       /* not kept: so many arrivals, those due before */
    int64_t first_id;              /* of the first one kept: arrivals come by due time, then id */
    struct metrics_window at_last; /* as it stood at the last arrival */
    struct metrics late;           /* of those kept but due after it: turns of sessions */
};

/* m was initialised by metrics_init. warmup_ratio is of the total; warm_ns counts where that is
 * unknown. window_end frees. */
void window_init(struct window *w, struct metrics *m, const struct trace *t, bool steady,
                 double warmup_ratio, int64_t warm_ns);
/* A request arrives; by due time, then id. True: the window begins with it. */
bool window_arrive(struct window *w, const struct trace_req *q);
/* Whether that was the last arrival of a steady state: `first` of the trace's own are to come, or
 * `follow` to an answer. In an open loop the latter are a session's later turns, which no new
 * session joins any more. The caller then brings m->w up to date and closes. */
bool window_is_last(const struct window *w, bool first, bool follow);
void window_close(struct window *w, int64_t due_ns);
/* Where a request counts: NULL if it is not kept. */
struct metrics *window_of(struct window *w, int64_t due_ns, int64_t id);
/* The run ended, its last token at t_end_ns. Without a steady state the late ones count too. Fills
 * in m->half from the series. */
void window_end(struct window *w, const struct series *s, int64_t t_end_ns);

#endif
