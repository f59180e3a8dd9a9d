/* engine/backend.h - the device interface of the forward pass: memory, weights, KV cache, operations.
 *
 * A backend is one rank's device. Activations are f32, row-major, in memory from alloc(). Weight
 * matrices and KV caches have the backend's own form behind opaque handles. Operations are issued in
 * order; with a device that runs behind, sync() waits for them. Nothing but alloc, mat_new, kv_new
 * and reserve takes memory. Implementations: backend_cpu.c; the tests have a slow twin.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_BACKEND_H
#define ENGINE_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/elt.h"

enum backend_type { BACKEND_F32, BACKEND_BF16, BACKEND_INT8, BACKEND_N_TYPE };
#define BACKEND_TYPE_WORDS "f32 bf16 int8" /* of weights; a KV cache is f32 or bf16 */

struct backend_mat; /* w[n][k] */
struct backend_kv;  /* one layer: [block][kv head][token][head_dim], twice */

struct backend_norm {
    const float *weight; /* [n], on the device */
    const float *bias;   /* [n]; NULL: none */
    bool mean;           /* LayerNorm: the mean is taken off; else RMSNorm */
    float eps;
};

/* Query tokens of one sequence in this step: rows [row, row + n_q) at positions [pos, pos + n_q);
 * block[i] holds positions [i * block_tok, (i + 1) * block_tok). Host memory. */
struct backend_seq {
    int32_t row, n_q, pos;
    const int32_t *block;
};

struct backend_mm { /* y[m][ldy] = x[m][ldx] . w^T */
    const struct backend_mat *w;
    const float *x;
    int64_t ldx;
    float *y;
    int64_t ldy;
    int32_t m;
    int32_t n_split; /* ranks that share the sum over k of this matrix: see comm.h on its order */
};

struct backend_rope { /* rotates n_head heads of each row in place: pairs (i, i + head_dim / 2) */
    float *x;
    int64_t ldx;
    int32_t m, n_head, head_dim;
    const float *cs;   /* [position][2][head_dim / 2]: cosines, sines */
    const int32_t *at; /* [m] positions; host memory */
};

struct backend_attn {
    struct backend_kv *kv;
    const struct backend_seq *seq;
    int32_t n_seq, n_row;   /* rows in all */
    int32_t n_head;         /* query heads; head h reads KV head h / (n_head / kv heads) */
    const float *q, *k, *v; /* [rows][ld] */
    int64_t ld;
    float *out; /* [rows][ldo] */
    int64_t ldo;
    float scale;
    int32_t window; /* keys a query sees, itself included; 0: all before it */
};

struct backend {
    const struct backend_ops *ops;
};

struct backend_ops {
    const char *name;
    void (*close)(struct backend *b); /* with all that it has allocated */

    /* Zeroed. NULL and a sentence when there is not enough. Freed by close. */
    void *(*alloc)(struct backend *b, size_t bytes, struct err *e);
    void (*upload)(struct backend *b, void *to, const void *from, size_t bytes);
    void (*download)(struct backend *b, void *to, const void *from, size_t bytes);
    /* The same in host memory, valid until the next operation; NULL: it has to be downloaded. */
    const void *(*view)(struct backend *b, const void *p);
    void (*sync)(struct backend *b);

    struct backend_mat *(*mat_new)(struct backend *b, enum backend_type type, int n, int k,
                                   struct err *e);
    /* Rows [n_at, n_at + n_row) from rows[n_row][k], any format. */
    void (*mat_rows)(struct backend *b, struct backend_mat *w, int n_at, int n_row, enum elt from,
                     const void *rows);
    size_t (*mat_bytes)(const struct backend_mat *w);
    /* bf16 or f32. */
    struct backend_kv *(*kv_new)(struct backend *b, enum backend_type type, const int32_t shape[4],
                                 struct err *e); /* n_block, n_kv_head, block_tok, head_dim */
    size_t (*kv_bytes)(const struct backend_kv *kv);
    /* Scratch for products of up to m rows with the matrices made so far. */
    int (*reserve)(struct backend *b, int32_t m, struct err *e);

    /* x[i] = row tok[i] - row0 of w, zeros where it has none. */
    void (*embed)(struct backend *b, const struct backend_mat *w, const int32_t *tok, int32_t m,
                  int32_t row0, float *x);
    void (*mm)(struct backend *b, const struct backend_mm *a);
    /* y[m][n] = norm(x[m][n]) */
    void (*norm)(struct backend *b, const struct backend_norm *w, const float *x, float *y,
                 const int32_t shape[2]); /* m, n */
    /* Each head of each row by itself, in place: RMSNorm over head_dim. */
    void (*head_norm)(struct backend *b, const struct backend_norm *w,
                      const struct backend_rope *a);
    void (*rope)(struct backend *b, const struct backend_rope *a);
    void (*kv_put)(struct backend *b, const struct backend_attn *a);
    void (*attn)(struct backend *b, const struct backend_attn *a);
    /* y[m][n] = silu(x[i][0..n)) * x[i][n..2n) */
    void (*silu_mul)(struct backend *b, const float *x, float *y, int32_t m, int32_t n);
    void (*gelu)(struct backend *b, float *x, int64_t n); /* in place, exact */
    void (*add)(struct backend *b, float *y, const float *x, int64_t n);
    void (*add_bias)(struct backend *b, float *y, const float *bias, int32_t m, int32_t n);
    /* Rows at[i] of x to y. */
    void (*pick)(struct backend *b, const float *x, const int32_t *at, float *y,
                 const int32_t shape[2]); /* m, n */
};

struct team;
/* The kernels of engine/kern.h on a team's threads; NAME of a kernel table or NULL for the best one
 * here. The team stays the caller's. */
struct backend *backend_cpu_open(struct team *t, const char *kernels, struct err *e);

#endif
