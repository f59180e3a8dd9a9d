/* engine/backend.h - the device interface of the forward pass: memory, weights, KV cache, operations.
 *
 * A backend is one rank's device. Activations are f32, row-major, in memory from alloc(). Weight
 * matrices and KV caches have the backend's own form behind opaque handles. Operations are issued in
 * order; with a device that runs behind, backend_sync() waits for them. Nothing but alloc, mat_new,
 * kv_new, reserve, host and room takes memory. Implementations: backend_cpu.c, backend_gpu.c; the
 * tests have a slow twin.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_BACKEND_H
#define ENGINE_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/elt.h"

/* Of weights; a KV cache is f32, bf16 or f16. FP8 is e4m3 with a scale for each row of the matrix,
 * FP8_TENSOR with one for all of it; its products round their input to e4m3 too, with one scale. */
enum backend_type {
    BACKEND_F32,
    BACKEND_BF16,
    BACKEND_INT8,
    BACKEND_F16,
    BACKEND_FP8,
    BACKEND_FP8_TENSOR,
    BACKEND_N_TYPE
};
#define BACKEND_TYPE_WORDS "f32 bf16 int8 f16 fp8 fp8_tensor"

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

/* How the logits of one row become a token: kern_sample of engine/kern.h. */
struct backend_sample {
    double u; /* [0, 1), the draw */
    float temperature, top_p;
    int32_t top_k;
};

/* A step's work, the same on every rank. All host memory, the caller's. */
struct backend_step {
    int32_t n_tok, n_seq, n_out;
    const int32_t *tok;                  /* [n_tok] */
    const int32_t *pos;                  /* [n_tok] */
    const struct backend_seq *seq;       /* [n_seq] */
    const int32_t *out;                  /* [n_out] rows whose logits are wanted */
    const struct backend_sample *sample; /* [n_out] */
};

/* The most that a step can have, and what of it runs here. */
struct backend_room {
    int32_t max_tok, max_out, max_ctx;
    int32_t max_table; /* block numbers of all its sequences */
    int32_t n_head;    /* query heads of this rank */
    int32_t window;    /* as in backend_attn */
    int32_t n_sample;  /* logits of a row that sample gets; 0: it is not called */
    int32_t n_part;    /* of weave; 1: it is not called */
    int32_t depth;     /* steps between begin and the sync after it */
    bool record;       /* nothing between begin and end needs the host */
};

struct backend_add_norm {            /* x += add + bias + bias2; y = norm(x) */
    float *x;                        /* [m][n] */
    const float *add, *bias, *bias2; /* [m][n], [n], [n]; biases may be NULL */
    const struct backend_norm *norm; /* NULL: the sum only */
    float *y;
    int32_t m, n;
};

struct backend_rope_put { /* qkv + bias, norms of q and k heads, rope of both, kv_put */
    struct backend_attn at;
    float *qkv;                                 /* at.q, at.k and at.v are parts of it */
    const float *bias, *cs;                     /* bias [at.ld]; may be NULL */
    const struct backend_norm *norm_q, *norm_k; /* weight NULL: none */
    const int32_t *pos;
    int32_t n_kv_head, head_dim;
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

    /* ---- several operations as one; NULL: the caller takes those they are made of */

    void (*add_norm)(struct backend *b, const struct backend_add_norm *a);
    void (*rope_put)(struct backend *b, const struct backend_rope_put *a);

    /* ---- a device with memory of its own that runs behind has all of these; else all are NULL */

    /* Whether it takes weights of a type. */
    bool (*takes)(const struct backend *b, enum backend_type type);
    /* The failure of anything issued so far that is known: after one nothing is issued any more and
     * the backend can only be closed. Errors: ST_DEVICE with file, line and what the driver said. */
    int (*check)(struct backend *b, struct err *e);
    /* Drops recordings: before a communicator goes whose calls they hold. */
    void (*forget)(struct backend *b);
    /* Host memory for copy. NULL and a sentence when there is not enough. Freed by close. */
    void *(*host)(struct backend *b, size_t bytes, struct err *e);
    /* Issued like an operation, either side the device's or from host(), which is not to be touched
     * before the next sync. */
    void (*copy)(struct backend *b, void *to, const void *from, size_t bytes);
    /* Once, after reserve, before begin. */
    int (*room)(struct backend *b, const struct backend_room *r, struct err *e);
    /* Once, after the last weights, before the first step: what steps would else stop for. Waits.
     * scratch: n floats of the device that are not in use, overwritten. */
    void (*prepare)(struct backend *b, float *scratch, size_t n);
    /* Operations that take arrays of a step are issued between its begin and its end and know them
     * from begin: what they are given is not read. What norm, add_norm, attn, silu_mul and gelu
     * write there is for products only. begin may raise the counts of s to those of a recording:
     * operations then use the raised ones, rows past the real ones have no meaning. True: all that
     * was issued in an earlier step of these counts has been issued now; end follows at once. */
    bool (*begin)(struct backend *b, struct backend_step *s);
    void (*end)(struct backend *b);
    /* y[i][t] = x[t][i], rows of n: shares [n_part][n_out][n] of logits become whole rows. */
    void (*weave)(struct backend *b, const float *x, float *y, int32_t n);
    /* Logits [n_out][n_sample] become tokens, */
    void (*sample)(struct backend *b, const float *logits);
    /* which are here after end and sync, until the begin after the next `depth` ones. -1: the chosen
     * logit was not finite. */
    const int32_t *(*tokens)(struct backend *b);
};

/* Waits for all that has been issued. Errors: those of check. */
static inline int backend_sync(struct backend *b, struct err *e)
{
    b->ops->sync(b);
    return b->ops->check ? b->ops->check(b, e) : ST_OK;
}

struct team;
/* The kernels of engine/kern.h on a team's threads; NAME of a kernel table or NULL for the best one
 * here. The team stays the caller's. */
struct backend *backend_cpu_open(struct team *t, const char *kernels, struct err *e);

#endif
