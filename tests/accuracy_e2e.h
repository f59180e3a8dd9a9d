/* tests/accuracy_e2e.h - rows of the end-to-end tables, and the scenarios that predict them.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_ACCURACY_E2E_H
#define TESTS_ACCURACY_E2E_H

#include "tests/accuracy.h"

struct e2e_row {
    const char *version, *system, *gpu, *precision, *model, *scenario, *metric, *unit;
    double n_gpu, tp, isl, osl, value; /* NAN where blank */
};

enum e2e_quantity { E2E_OUT_TOK, E2E_REQUESTS, E2E_ALL_TOK, E2E_WINDOW, E2E_LATENCY };

/* What a row asks of the simulator. why: not comparable, and the rest is unset. */
struct e2e_ask {
    const char *why;
    const char *yaml;
    char group[160];
    enum e2e_quantity what;
    enum acc_metric metric;
    enum acc_stat stat;
    double at_once_tok; /* KV of a static batch whose sequences all run at once; 0: no such batch */
    double in_tok;      /* E2E_ALL_TOK: prompt tokens of a request */
    double divide;      /* of the prediction, by number of GPUs */
    double to_base;     /* the row's value in s, 1/s */
};

/* The parts of a scenario that differ between cases. */
struct e2e_plan {
    const char *model, *hardware, *engine;
    int tp, dp;
    const char *weights, *kv;
    const char *workload, *policy;
    bool no_server; /* driven as a library: no HTTP, no tokenising */
};
const char *e2e_yaml(struct acc *w, const struct e2e_plan *p);
/* Value of key in "kind;key=value;...", in buf; "" if there is none. */
const char *e2e_key(const char *scenario, const char *key, char *buf, size_t n);
/* The catalog's name of a model or GPU as the tables call it; NULL: not in it. */
const char *e2e_model(const char *name);
const char *e2e_node(const char *gpu);
/* "ttft_p99" and the like; false if it is no latency. */
bool e2e_latency(const char *name, struct e2e_ask *q);

/* One for each table: q is zeroed, with divide and to_base 1. */
void e2e_trtllm(struct acc *w, const struct e2e_row *r, struct e2e_ask *q);
void e2e_online(struct acc *w, const struct e2e_row *r, struct e2e_ask *q);
void e2e_mlperf(struct acc *w, const struct e2e_row *r, struct e2e_ask *q);
void e2e_static_batch(struct acc *w, const struct e2e_row *r, struct e2e_ask *q);
void e2e_closed(struct acc *w, const struct e2e_row *r, struct e2e_ask *q);
/* The table that the rows to come stand in. */
void e2e_start(const struct e2e_row *rows, size_t n);

#endif
