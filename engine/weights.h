/* engine/weights.h - the numbers of a model by tensor name: a checkpoint, or drawn from a seed.
 *
 * A checkpoint is a directory with model.safetensors, or model.safetensors.index.json and the files
 * it names. It is mapped, so a rank that copies its shard reads that part of the files only. Random
 * weights depend on (seed, tensor, row, column) alone: every rank draws its shard of the same model.
 * Fetching is thread-safe; opening is not.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_WEIGHTS_H
#define ENGINE_WEIGHTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "engine/elt.h"
#include "engine/safetensors.h"

struct weights {
    struct arena arena;
    struct safetensors *file; /* [n_file] */
    int n_file;
    const struct safetensor **tensor; /* [n_tensor] by name */
    int n_tensor;
    bool random;
    uint64_t seed;
    const char *path;
};

/* A rectangle of a tensor of n_row x n_col (a vector is one row). */
struct weights_part {
    const char *name;
    int64_t n_row, n_col; /* of the whole tensor, checked against the file */
    int64_t row, col;     /* where the part begins */
    int64_t rows, cols;   /* its size */
};

/* Whether a directory holds a checkpoint, and which file says what is in it, in buf (NULL: not asked
 * for). Errors: ST_USAGE. */
int weights_find(const char *dir, char *buf, size_t n, struct err *e);

/* Errors: ST_IO, ST_USAGE (no checkpoint there, a malformed file, an index that disagrees with its
 * files). On failure nothing is left open. */
int weights_open(struct weights *w, const char *dir, struct err *e);
void weights_random(struct weights *w, uint64_t seed);
void weights_close(struct weights *w);

/* Whether there is a tensor of that name; random weights have all. */
bool weights_has(const struct weights *w, const char *name);

/* What the checkpoint stores name in; random weights are f32. Errors: ST_USAGE if it is missing or
 * of a dtype other than F32, F16, BF16. */
int weights_elt(const struct weights *w, const char *name, enum elt *out, struct err *e);

/* That the checkpoint has the part's tensor, in its shape and a dtype that can be run: before memory
 * is taken for it. Random weights pass. Errors: ST_USAGE. */
int weights_check(const struct weights *w, const struct weights_part *p, struct err *e);

/* Copies a part, converted to `to`, row after row to dst, rows `stride` elements apart. Errors:
 * ST_USAGE: missing, another shape, unsupported dtype. */
int weights_fetch(const struct weights *w, const struct weights_part *p, enum elt to, void *dst,
                  int64_t stride, struct err *e);

#endif
