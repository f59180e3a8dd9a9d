/* tests/accuracy.h - the accuracy report: predictions against every published measurement at hand.
 *
 * A program of its own (`make accuracy`), not a test: it reads the truth files of the real-data
 * folder (paths_data()), predicts each row with the models that the simulator uses, and prints a
 * Markdown document of errors. Nothing is tuned here, no row is dropped without being counted, and
 * each line says whether the constants behind it were fitted to the very table it is scored on.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_ACCURACY_H
#define TESTS_ACCURACY_H

#include <stdbool.h>
#include <stdio.h>

#include "base/arena.h"
#include "base/err.h"
#include "model/ops.h"

/* ---- accuracy_csv.c: a table in memory, all cells text; .gz through gzip(1) */

struct acc_csv {
    struct arena a;
    const char **name; /* [n_col] */
    char **cell;       /* [n_row][n_col] */
    int n_col;
    size_t n_row;
};
/* Errors: ST_IO, ST_USAGE (rows of unequal width, over 256 columns). Release it in either case. */
int acc_csv_read(const char *path, struct acc_csv *t, struct err *e);
void acc_csv_release(struct acc_csv *t);
/* Column by name; -1 if there is none. */
int acc_csv_col(const struct acc_csv *t, const char *name);
/* "" and NAN for a column of -1, an empty cell, or (num) text that is no number. */
const char *acc_csv_text(const struct acc_csv *t, size_t row, int col);
double acc_csv_num(const struct acc_csv *t, size_t row, int col);
double acc_csv_named(const struct acc_csv *t, size_t row, const char *name);
const char *acc_csv_word(const struct acc_csv *t, size_t row, const char *name);

/* ---- accuracy_stat.c: errors of predicted against measured */

struct acc_err {
    double *ratio; /* predicted / measured */
    size_t n, cap;
};
struct acc_sum {
    size_t n;
    double mape, median, p90; /* of |ratio - 1| */
    double bias;              /* mean of ratio - 1 */
    double middle;            /* median of ratio - 1: bias without the tails */
};
void acc_err_add(struct acc_err *v, double predicted, double measured);
void acc_err_join(struct acc_err *v, const struct acc_err *more);
void acc_err_release(struct acc_err *v);
struct acc_sum acc_err_sum(const struct acc_err *v);

/* Errors by a text key, in order of first use, each with up to three bins of its range. */
enum { ACC_BINS = 3, ACC_GROUPS = 256 };
struct acc_group {
    char key[192], sample[64];
    char part[128]; /* of its file, for the summary: "" the whole */
    bool odd;       /* the measurement is at fault, not the prediction: summed up apart */
    size_t n_interval, n_inside; /* predictions with an interval, and measurements inside it */
    struct acc_err all, bin[ACC_BINS];
};
struct acc_groups {
    struct acc_group *g;
    int n;
};
struct acc_group *acc_group_of(struct acc_groups *v, const char *key, const char *sample);
/* bin -1: none */
void acc_group_add(struct acc_group *g, int bin, double predicted, double measured);
void acc_groups_release(struct acc_groups *v);

/* ---- accuracy.c: the document */

struct acc {
    struct arena a;
    const char *data; /* folder */
    FILE *body;
    struct acc_line *line; /* summary at the top */
    int n_line;
    struct acc_seen *seen; /* files read */
    int n_seen;
    char scratch[64]; /* "" until asked for */
};
/* Path of a data file, which is then listed with its hash; NULL, and a line that says so, if it
 * cannot be read. */
const char *acc_file(struct acc *w, const char *relative);
/* acc_file and acc_csv_read; false, and a line that says why, if either fails. */
bool acc_open(struct acc *w, const char *relative, struct acc_csv *t);
void acc_say(struct acc *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A line of the summary. sample: whether the constants were fitted to this table. s NULL: not
 * modelled, n rows, `sample` says why. */
void acc_summary(struct acc *w, const char *file, const char *what, const struct acc_sum *s,
                 size_t n, const char *sample);
/* Lines of the summary for the groups from `first` on: one for each part, and the odd ones. */
void acc_groups_summary(struct acc *w, const struct acc_groups *v, int first, const char *file,
                        const char *what);
/* One Markdown table of all groups; bins names the three ranges, or NULL. */
void acc_table(struct acc *w, const struct acc_groups *v, const char *head,
               const char *const bins[ACC_BINS]);
/* Path of every regular file below `relative` that ends in `suffix`, sorted; in w->a. */
int acc_find(struct acc *w, const char *relative, const char *suffix, const char ***out);

/* ---- accuracy_env.c: one configuration of the model */

struct acc_env {
    struct arena a;
    struct err e;
    struct arch arch; /* the caller fills in what it needs */
    struct hw hw;
    struct strategy strategy;
    struct profile profile;
    struct ops_env ops;
    struct step_stage stage; /* one layer, no embedding, no head; to be changed */
};
struct acc_ask {
    const char *system, *engine;
    int tp, ep;
    enum dtype weight, kv;
};
int acc_env_init(struct acc_env *v, const struct acc_ask *q);
void acc_env_release(struct acc_env *v);
/* Changes the formats (and so the constants) or degrees of an open environment. */
int acc_env_ask(struct acc_env *v, const struct acc_ask *q);
/* The named operator of a step of shape s; NULL if the step has none. */
const struct op *acc_op(const struct acc_env *v, const struct step_shape *s, const char *name,
                        struct op list[OPS_MAX]);
double acc_op_s(const struct acc_env *v, const struct op *o);
/* A catalogued architecture by name. */
int acc_arch(struct acc_env *v, const char *name);
/* "yes", "other release", "other engine", "other GPU": how the fit behind a constant relates to a
 * table of this engine and version. */
const char *acc_sample(const struct acc_env *v, enum profile_id id, const char *engine,
                       const char *version);

/* ---- accuracy_sim.c: scenarios through the simulator's command line */

enum acc_stat { ACC_MEAN, ACC_P50, ACC_P90, ACC_P99, ACC_STATS };
enum acc_metric { ACC_TTFT, ACC_TPOT, ACC_ITL, ACC_E2E, ACC_METRICS };
struct acc_value {
    double v, lo, hi; /* estimate and prediction interval; NAN: none */
};
struct acc_run {
    const char *yaml; /* the scenario */
    const char *out;  /* run file to write, or NULL */
    bool ok;
    char note[200]; /* why there is no result: the simulator's own sentence */
    struct acc_value latency[ACC_METRICS][ACC_STATS]; /* s */
    struct acc_value requests_per_s, out_tok_per_s;
    double window_s; /* first due to last completion */
    double kv_tok;   /* room for KV of a replica, tokens */
};
/* Runs all scenarios, two at a time, by `$ORRERY_BIN simulate` (./orrery if unset). False, and a
 * line that says so, if there is no such program. */
bool acc_simulate(struct acc *w, struct acc_run *run, int n);
/* A private directory for files of this run, removed at the end; in w->a. */
const char *acc_scratch(struct acc *w);

/* ---- the sections */

void acc_kernels(struct acc *w);
void acc_serving_kernels(struct acc *w);
void acc_vidur(struct acc *w);
void acc_collectives(struct acc *w);
void acc_steps(struct acc *w);
void acc_hardware(struct acc *w);
void acc_end_to_end(struct acc *w);
void acc_serving_runs(struct acc *w);

#endif
