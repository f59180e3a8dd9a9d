/* engine/gpu_kern.h - the kernels of a GPU: names, arguments, launch bounds, and what each computes.
 *
 * Activations are f32, row-major. What a product reads is a second, 16-bit (or 8-bit) image of them
 * which the kernel that makes the activation writes beside it: `image` of `image_type`, NULL: none,
 * rows without gaps. All that changes from step to step lies in device memory (struct gpu_step), so
 * that a recorded step can be replayed with other sequences.
 * Every kernel's reference is the same computation in f64. SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_GPU_KERN_H
#define ENGINE_GPU_KERN_H

#include <stddef.h>
#include <stdint.h>

enum gpu_elt { GPU_F32, GPU_BF16, GPU_F16, GPU_E4M3, GPU_N_ELT };
#define GPU_ELT_WORDS "f32 bf16 f16 e4m3"

enum { GPU_MAX_HEAD_DIM = 256, GPU_MAX_SPLIT = 32, GPU_TILE_Q = 64, GPU_MAX_PART = 256 };
enum { GPU_GEMV_MAX = 4, GPU_GEMV_ROWS = 2 }; /* rows of x; of the matrix by a warp */

/* A step's work in device memory, written by one copy before anything else of the step. Rows and
 * sequences past the real ones (a recording made for more) have pos -1 and n_q 0: kernels skip
 * them, what they leave in those rows is finite and of no meaning. */
struct gpu_step {
    const int32_t *tok;   /* [n_row] */
    const int32_t *pos;   /* [n_row] position in its sequence; -1: no row */
    const int32_t *slot;  /* [n_row] block * block_tok + offset: where its key and value go */
    const int32_t *row;   /* [n_seq] first row */
    const int32_t *n_q;   /* [n_seq] rows; 0: no sequence */
    const int32_t *first; /* [n_seq] where its block numbers begin in table */
    const int32_t *table; /* block numbers of all sequences */
    /* [n_tile][2] sequence, first of up to GPU_TILE_Q of its rows; -1: none. The longest are to come
     * first, so that no long one is left for the end. */
    const int32_t *tile;
    const int32_t *out; /* [n_out] rows whose logits are wanted */
};

/* KV cache of one layer: k and v each [block][kv head][token][head_dim], F32, BF16 or F16. */
struct gpu_kv {
    void *k, *v;
    int32_t type; /* enum gpu_elt */
    int32_t n_head, head_dim, block_tok;
};

struct gpu_embed { /* x[i] = row tok[i] - row0 of w, zeros where w has none */
    struct gpu_step s;
    const void *w; /* [n_row_w][n] */
    float *x;
    int32_t type, row0, n_row_w, m, n;
    const float *w_scale; /* E4M3: [n_row_w] or NULL */
};

struct
    gpu_norm { /* x += add + bias + bias2 where given; y = norm(x) of m rows of n; one block a row */
    float *x;
    const float *add, *bias, *bias2; /* [m][n], [n], [n]; NULL: none */
    const float *weight, *shift;     /* [n]; shift NULL: none */
    float *y;                        /* NULL: only the sum (weight NULL too) or only the image */
    void *image;
    int32_t image_type, m, n;
    int32_t mean; /* LayerNorm; else RMSNorm */
    float eps;
};

/* In a product's rows [m][ld] = q heads, k heads, v heads: + bias [ld] where given, RMSNorm of each
 * q and k head where weights are given, rotation of pairs (i, i + head_dim / 2) by the angles of
 * cs[position][2][head_dim / 2]; q back in place, k and v into the cache at slot[row]. */
struct gpu_rope_put {
    struct gpu_step s;
    struct gpu_kv kv;
    float *qkv;
    const float *bias, *norm_q, *norm_k, *cs;
    int32_t m, n_head; /* query heads */
    int64_t ld;
    float eps;
};

/* out[row][head][head_dim] = softmax(scale q . K) V over positions (p - window, p] (window 0: all).
 * The rows of a sequence are neighbours in position. Who computes a row:
 * decode: every sequence of n_q 1, no other, tiles or not. Grid (n_seq, kv heads times packs of up
 * to 16 of a kv head's query heads, n_split); each split takes its share of the tokens. With n_split
 * 1 out and image are written, else part[seq][q head][split][head_dim] and lse[seq][q head][split]
 * (log2 of the sum, -inf for an empty share, which writes no part) for combine.
 * prefill: the rows of the tiles in s.tile, whatever the n_q (so a step lists tiles only of the
 * sequences that decode leaves out). Grid (q heads, times 2 of over 128 dims; n_tile).
 * BF16 and F16 caches by tensor cores, P rounded to that type; prefill_f32 for F32 caches, plain.
 * Queries are rounded to the cache's type after scaling. A row sees what is in the cache, its own
 * key included. head_dim: a multiple of 8 from 32 to 256; ld: a multiple of 4. */
struct gpu_attn {
    struct gpu_step s;
    struct gpu_kv kv;
    const float *q; /* [rows][ld] */
    int64_t ld;
    float *out;        /* [rows][n_head * head_dim]; NULL: only the image */
    void *image;       /* F32, BF16 or F16 */
    float *part, *lse; /* n_split 1: not used */
    int32_t image_type, n_head, n_seq, n_tile, n_split, window;
    float scale;
};

struct gpu_act { /* y[i] = silu(x[i][0..n)) x[i][n..2n), or gelu(x[i][0..n)), + bias before */
    const float *x, *bias;
    float *y; /* NULL: only the image */
    void *image;
    int32_t image_type, m, n;
    int32_t gated; /* bias [2n], else [n] */
};

struct gpu_add { /* y[i] += x[i] */
    float *y;
    const float *x;
    int64_t n;
};

struct gpu_add_bias { /* y[m][n] += bias[n] */
    float *y;
    const float *bias;
    int32_t m, n;
};

struct gpu_pick { /* rows out[i] of x to y */
    struct gpu_step s;
    const float *x;
    float *y;
    int32_t m, n;
};

/* to[i] = from[i] in another format. E4M3: divided by *scale first, where scale is given. With part
 * (of absmax) the scale is found and *scale written: max |x| / 448, at least 2^-120. */
struct gpu_cast {
    const float *from;
    void *to;
    float *scale;
    const float *part; /* [n_part] or NULL */
    int64_t n;
    int32_t type, n_part;
};

/* part[block] = max |x[i]| of what the block has read, 0 of nothing: up to GPU_MAX_PART blocks, for
 * the cast that follows. */
struct gpu_absmax {
    const float *x;
    float *part;
    int64_t n;
};

/* y[m][n] *= scale[n]: the per-row scales of an E4M3 matrix, after its product. */
struct gpu_col_scale {
    float *y;
    const float *scale;
    int32_t m, n;
};

/* y[m][n] = x[m][k] . w[n][k]^T, f32 sums, of BF16 or F16: m <= GPU_GEMV_MAX, k a multiple of 8, x
 * and w at multiples of 16 bytes. */
struct gpu_gemv {
    const void *x, *w;
    float *y;
    int32_t type, m, n, k;
};

/* Logits [m][n] become tokens: as kern_sample of engine/kern.h. One block a row. tok[row] -1: the
 * chosen logit was not finite. */
struct gpu_sample_row {
    double u;
    float temperature, top_p;
    int32_t top_k, unused;
};
struct gpu_sample {
    const float *logits;
    const struct gpu_sample_row *row; /* [m] in device memory */
    int32_t *tok;                     /* [m] */
    int32_t m, n;                     /* n <= 2^24 */
};

struct gpu_read { /* sum of n 16-byte words, to sum[block]: for measuring bandwidth */
    const void *x;
    uint32_t *sum;
    int64_t n;
};
struct gpu_copy { /* to = from, n 16-byte words */
    void *to;
    const void *from;
    int64_t n;
};
struct gpu_fill { /* x[i] = hash of (seed, i), uniform in [-1, 1) of the type */
    void *x;
    uint64_t seed;
    int64_t n;
    int32_t type;
};
struct gpu_nothing { /* returns at once */
    int32_t unused;
};

/* name, arguments, most threads of a block */
#define GPU_KERNELS(X)                                                                             \
    X(embed, struct gpu_embed, 256)                                                                \
    X(norm, struct gpu_norm, 1024)                                                                 \
    X(rope_put, struct gpu_rope_put, 256)                                                          \
    X(attn_decode, struct gpu_attn, 128)                                                           \
    X(attn_combine, struct gpu_attn, 128)                                                          \
    X(attn_prefill, struct gpu_attn, 128)                                                          \
    X(attn_prefill_f32, struct gpu_attn, 128)                                                      \
    X(act, struct gpu_act, 256)                                                                    \
    X(add, struct gpu_add, 256)                                                                    \
    X(add_bias, struct gpu_add_bias, 256)                                                          \
    X(pick, struct gpu_pick, 256)                                                                  \
    X(cast, struct gpu_cast, 256)                                                                  \
    X(absmax, struct gpu_absmax, 256)                                                              \
    X(col_scale, struct gpu_col_scale, 256)                                                        \
    X(gemv, struct gpu_gemv, 256)                                                                  \
    X(sample, struct gpu_sample, 1024)                                                             \
    X(read, struct gpu_read, 256)                                                                  \
    X(copy, struct gpu_copy, 256)                                                                  \
    X(fill, struct gpu_fill, 256)                                                                  \
    X(nothing, struct gpu_nothing, 1024)

#define GPU_KERN_ENUM(name, args, threads) GPU_K_##name,
enum gpu_kern { GPU_KERNELS(GPU_KERN_ENUM) GPU_N_KERN };
#undef GPU_KERN_ENUM

/* Grid and shared memory of a kernel for these arguments. h: of the device. Defined beside the
 * kernels: gpu_kern.c. */
struct gpu_dim;
struct gpu_info;
void gpu_kern_dim(enum gpu_kern k, const void *args, const struct gpu_info *h, struct gpu_dim *out);
/* Of the attention kernels: gpu_kern_attn.c. */
void gpu_kern_attn_dim(enum gpu_kern k, const struct gpu_attn *a, const struct gpu_info *h,
                       struct gpu_dim *out);
size_t gpu_kern_arg_bytes(enum gpu_kern k);
const char *gpu_kern_name(enum gpu_kern k);
int gpu_kern_max_threads(enum gpu_kern k);
/* Shares into which a decode's cache is split, a power of two: enough blocks to fill the device,
 * none shorter than 256 tokens. */
int gpu_kern_split(const struct gpu_info *h, int n_seq, int n_kv_head, int64_t max_ctx);
size_t gpu_elt_bytes(enum gpu_elt t);

#endif
