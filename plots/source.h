/* plots/source.h - a run file as figures and the report see it: texts, counts and limits at hand.
 *
 * What a file does not hold is NULL, 0 or NAN; nothing in it is trusted but what was checked here.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef PLOTS_SOURCE_H
#define PLOTS_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "traces/run.h"

enum source_metric { SOURCE_TTFT, SOURCE_TPOT, SOURCE_E2E, SOURCE_ITL, SOURCE_N_METRIC };
enum { SOURCE_N_CLAUSE = SOURCE_E2E + 1, SOURCE_N_STAT = 4 };  /* ITL has no clause */
extern const char *const source_metric_name[SOURCE_N_METRIC];  /* "ttft" */
extern const char *const source_metric_label[SOURCE_N_METRIC]; /* "TTFT" */

struct source {
    struct run_file file;
    const char *name; /* of the file, without directory and .h5 */
    const char *title, *scenario, *workload, *bottleneck, *coverage, *digest; /* "" where absent */
    const char *device;      /* what has a part of the model: "GPU" or "rank" */
    const char *sweep_key;   /* "" without a sweep */
    const char **sweep_text; /* [n_sweep_text] values as they stand in the scenario, in row order */
    int n_sweep_text;
    bool measured; /* by an engine or a client; else simulated */
    bool has_requests, has_series, has_stages, has_sweep, has_summary;
    bool extrapolated, overloaded;
    const char *profile_noise; /* what of the profile a busy machine gave; "" */
    const char *ended_early; /* how; its requests are those that had finished. NULL: a whole run */
    int64_t due, finished, failed, rejected, seeds, draws, preemptions;
    int64_t tp, pp, dp, gpus, kv_blocks, block_tok;
    int64_t window_begin_ns, window_end_ns;
    int64_t slo_ns[SOURCE_N_CLAUSE]; /* 0: no such clause */
    double slo_attain_ratio, level_ratio, kv_mean_ratio;
    struct arena *arena;
};

/* Errors as run_open. The arena keeps what is read until it is released. */
int source_open(const char *path, struct arena *a, struct source *out, struct err *e);
void source_close(struct source *s);
/* Files of one name in different directories: the second becomes "run-2". */
void source_tell_apart(struct source *s, int n);

bool source_has_slo(const struct source *s);
/* Text attribute, or "" where there is none. */
const char *source_text(struct source *s, const char *object, const char *name);
/* A number that is an attribute of /summary; NAN where there is none. */
double source_number(struct source *s, const char *name);
/* A scalar of /summary with its interval; NAN where there is none. */
struct ci source_scalar(struct source *s, const char *name);
/* Latency in ns: mean, p50, p90, p99; NAN where there is none. */
void source_latency(struct source *s, enum source_metric m, struct ci out[SOURCE_N_STAT]);
/* Columns `table/col` of a table, all cut to the length of the shortest. Errors: ST_USAGE. */
int source_columns(struct source *s, const char *table, const char *const *col, int n_col,
                   double **out, size_t *n_row, struct err *e);
/* An array of /summary ("stage_busy"); n = 0 where there is none. */
size_t source_array(struct source *s, const char *name, double **out);

/* Value of row i of /sweep: as in the scenario, or the number. */
const char *source_sweep_label(const struct source *s, size_t i, double value);
/* The row of /sweep held its SLO: attainment at least what was asked. */
bool source_point_held(const struct source *s, double attain_ratio);

#endif
