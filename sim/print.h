/* sim/print.h - the result of a simulation as text for people and as one JSON object.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_PRINT_H
#define SIM_PRINT_H

#include <jansson.h>

#include "sim/evaluate.h"

struct print_in {
    const struct scenario *s;
    const struct deploy *d;
    const struct outcome *o;
    double wall_s;        /* of all runs */
    double peak_bytes;    /* largest resident memory of the process so far */
    const char *out_path; /* run file, or NULL */
    const char *line; /* of a measured run: what ran where. NULL: simulated, scenario_line has it */
    const char *ended_early; /* how the run ended before its time: no verdict. NULL: it did not */
};

void print_text(const struct print_in *in, FILE *f); /* under 40 lines */
json_t *print_json(const struct print_in *in);       /* the caller's */

/* The part that measured runs share: throughput, latency, SLO, KV and load; in JSON also requests
 * and stages. */
void print_results(const struct print_in *in, FILE *f);
void print_results_json(const struct print_in *in, json_t *j);

/* What has a part of the model: "GPU", or of processors and measured runs "rank". */
const char *print_device(const struct print_in *in);

/* Whether the attainment asked for is reached (no SLO: true). */
bool print_slo_held(const struct scenario *s, const struct outcome *o);
bool print_has_slo(const struct slo *slo);

/* Sweeps: a heading and a row per point. */
void print_sweep_head(const struct scenario *s, const char *device, FILE *f);
void print_sweep_row(const struct print_in *in, const char *value, FILE *f);

#endif
