/* sim/series.h - what went on over time, in bins of bounded number.
 *
 * When a run outgrows SERIES_MAX bins, neighbours are joined and the bin doubles, so memory does
 * not grow with the run. SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_SERIES_H
#define SIM_SERIES_H

#include <stdint.h>

#include "base/arena.h"
#include "traces/run.h"

enum { SERIES_MAX = 4096 };

struct series_bin { /* running, queue, kv: integrals over the bin, in units times ns */
    double running, queue, kv, in_tok, out_tok, arrivals, done;
};
struct series {
    int64_t bin_ns;
    int n;                  /* bins touched */
    struct series_bin *bin; /* [SERIES_MAX] */
};

void series_init(struct series *s, int64_t bin_ns, struct arena *a);
/* Over [t0, t1): so many running and queued; KV blocks in use go linearly from kv0 to kv1. */
void series_state(struct series *s, int64_t t0, int64_t t1, double running, double queue,
                  double kv0, double kv1);
/* Tokens made evenly over (t0, t1]. */
void series_tokens(struct series *s, int64_t t0, int64_t t1, double in_tok, double out_tok);
void series_arrival(struct series *s, int64_t t_ns);
void series_done(struct series *s, int64_t t_ns);
/* Bin i as rates and averages. kv_all: KV blocks of all replicas. t_stop_ns: end of the run, in
 * the last bin. */
void series_row(const struct series *s, int i, double kv_all, int64_t t_stop_ns,
                struct run_bin *out);
/* Mean number of requests in the system over [t0, t1), from whole bins; NAN when shorter than a
 * bin. */
double series_in_system(const struct series *s, int64_t t0, int64_t t1);

#endif
