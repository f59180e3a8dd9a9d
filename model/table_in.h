/* model/table_in.h - inside of struct table, shared by table.c (interpolation) and table_read.c
 * (files). Not for other files. SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_TABLE_IN_H
#define MODEL_TABLE_IN_H

#include "model/table.h"

struct table_list {
    const char *name;
    int n;
    double *x, *y;
}; /* x ascending, y seconds */

/* One axis of a ragged grid: n ascending values, each with its own subtree or, innermost, its
 * value. */
struct table_tree {
    int n;
    double *x;
    struct table_tree *kid;
    double *y;
};

enum {
    SKEW_CHUNK_BINS = 8,
    SKEW_SEQ_BINS = 8,
    SKEW_FAR_BINS = 5,
    SKEW_BINS = SKEW_CHUNK_BINS * SKEW_SEQ_BINS * SKEW_FAR_BINS
};

struct table {
    struct table_list *dense, *seq;
    int n_dense, n_seq;
    const char **dense_name;
    struct table_tree dec;   /* sequences, context; rising along context */
    struct table_tree pre;   /* chunk, past */
    struct table_tree mixed; /* chunk, past, sequences, context; n = 0 if there is none */
    bool has_skew;
    double alpha[SKEW_BINS]; /* -1 where nothing was measured */
};

int table_skew_bin(double x, const double *edge, int n);
/* Bin of a batch: its chunk, its sequences, and longest minus mean context. */
int table_skew_index(double prefill_tok, double n, double spread);

#endif
