/* engine/kern_priv.h - what the kernel files share: tiles of the matmul, attention row tiles, exp.
 *
 * The vector files (kern_avx2.c, kern_avx512.c, kern_vnni.c) supply tiles; kern_mm.c and kern_kv.c
 * drive them; kern_portable.c uses none of this but the constants, being their independent twin.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_KERN_PRIV_H
#define ENGINE_KERN_PRIV_H

#include "engine/kern.h"

enum { KERN_ATTN_ROWS = 48, KERN_ATTN_KEYS = 64 };

/* exp(x) = 2^n e^r, n = rint(x log2 e), |r| <= ln2 / 2 by Cody-Waite, e^r the Taylor sum to r^7 / 7!
 * (truncation below 6e-9); 0 under KERN_EXP_LO, held at KERN_EXP_HI so that 2^n stays finite. */
#define KERN_EXP_LO  (-87.0f)
#define KERN_EXP_HI  88.0f
#define KERN_LOG2E   1.44269504f
#define KERN_LN2_TOP 0.693359375f      /* 9 bits: n * top is exact */
#define KERN_LN2_LOW (-2.12194440e-4f) /* ln 2 - top */
#define KERN_EXP_C2  0.5f
#define KERN_EXP_C3  (1.0f / 6)
#define KERN_EXP_C4  (1.0f / 24)
#define KERN_EXP_C5  (1.0f / 120)
#define KERN_EXP_C6  (1.0f / 720)
#define KERN_EXP_C7  (1.0f / 5040)
#define KERN_GELU_A  0.797884561f /* sqrt(2 / pi) */
#define KERN_GELU_B  0.044715f
#define KERN_SQRT1_2 0.707106781f
/* erf(x) / x on x^2 in [0, 1], and -ln(1 - erf(x)) on [1, 4]: interpolated at Chebyshev nodes in
 * double, errors of erf below 1e-9 before rounding to f32. */
#define KERN_ERF_P                                                                                 \
    {                                                                                              \
        1.128379167f, -0.3761263847f, 0.1128378250f, -0.02686543073f, 5.221031807e-3f,             \
            -8.484080391e-4f, 1.126595892e-4f, -9.667044295e-6f                                    \
    }
#define KERN_ERF_Q                                                                                 \
    {                                                                                              \
        -3.201380501e-4f, 1.130233435f, 0.6318260516f, 0.1100800830f, -0.02642113601f,             \
            4.759596294e-3f, -5.968056258e-4f, 4.605804271e-5f, -1.637151416e-6f                   \
    }

/* One tile: c[mr][32] (rows ldc apart) = or, if cont, goes on from, the sum over k in [k0, k1) of a
 * row panel of x and one panel of w, both given by their beginning (k = 0). */
struct kern_tile {
    const void *w, *x;
    float *c;
    int64_t ldc;
    int32_t mr, k0, k1;
    int32_t group;
    bool cont;
    /* Weights wanted soon: two lines from `next` on with every 128 bytes that the tile takes. */
    const char *next;
    int32_t next_step;
};
typedef void kern_tile_fn(const struct kern_tile *t);

/* Rows of an int8 row panel at most: where one can hold all of x, so that weights stream, and in
 * larger products, whose weights stay in a cache from one row panel to the next. */
enum { KERN_ROWS_I8 = 32, KERN_ROWS_I8_MANY = 12 };
static inline int32_t kern_rows_i8(int32_t m)
{
    return m <= KERN_ROWS_I8 ? KERN_ROWS_I8 : KERN_ROWS_I8_MANY;
}

/* Tiles of a table: fn[mr - 1] for 1 <= mr <= mr_max rows. A row panel of x holds mr rows
 * interleaved in runs: f32 [k/16][mr][16]; bf16 pairs [k/32][mr][32]; i8 per group
 * { f32 scale[mr]; i32 -128 sum q[mr]; [mr][group] int8, or int16 in the order 0 2 1 3 }. */
struct kern_tiles {
    struct {
        int32_t mr_max;
        kern_tile_fn *const *fn;
    } of[2];          /* by enum kern_type: F32, BF16 */
    kern_tile_fn *i8; /* any number of rows up to KERN_ROWS_I8 */
    bool x_bf16;      /* with bf16 weights x is rounded to bf16 pairs */
    int32_t x_bytes;  /* of one quantised x: 1 or 2 */
    void (*add)(float *y, const float *x, int64_t n);
};
void kern_mm_drive(const struct kern_mm *a, int part, int n_part, const struct kern_tiles *ts);
/* Rows [*r0, *r0 + result) of row panel i of those m rows are cut into. */
int32_t kern_row_panel(int32_t m, int32_t mr_max, int32_t i, int32_t *r0);
size_t kern_x_row_bytes(const struct kern_tiles *ts, enum kern_type type, int32_t group, int32_t k);
void kern_prep_f32(const struct kern_prep *a, int part, int n_part, int32_t mr_max);
void kern_split(int64_t n, int part, int n_part, int64_t *lo, int64_t *hi);

/* One row tile: rows [r0, r1) of sequence s under KV head `head`; row r is token r / group, query
 * head head * group + r % group. */
struct kern_attn_tile {
    const struct kern_attn *a;
    const struct kern_seq *s;
    int32_t head, r0, r1;
    const struct kern_attn_tile *next; /* in this part; NULL: none */
};
void kern_attn_drive(const struct kern_attn *a, int part, int n_part,
                     void (*tile)(const struct kern_attn_tile *));
/* Positions [*lo, *hi) that row r of the tile sees. */
void kern_attn_seen(const struct kern_attn_tile *t, int32_t r, int32_t *lo, int32_t *hi);
const char *kern_kv_at(const struct kern_kv *kv, const void *pool, int32_t block, int32_t head);

#define KERN_DECLARE(isa)                                                                          \
    void kern_##isa##_prep(const struct kern_prep *a, int part, int n_part);                       \
    void kern_##isa##_mm(const struct kern_mm *a, int part, int n_part);                           \
    void kern_##isa##_attn(const struct kern_attn *a, int part, int n_part);                       \
    void kern_##isa##_rmsnorm(const struct kern_norm *a, int part, int n_part);                    \
    void kern_##isa##_layernorm(const struct kern_norm *a, int part, int n_part);                  \
    void kern_##isa##_rope(const struct kern_rope *a, int part, int n_part);                       \
    void kern_##isa##_silu_mul(float *y, const float *gate, const float *up, int64_t n);           \
    void kern_##isa##_gelu(float *y, const float *x, int64_t n);                                   \
    void kern_##isa##_gelu_tanh(float *y, const float *x, int64_t n);                              \
    void kern_##isa##_add(float *y, const float *x, int64_t n);                                    \
    void kern_##isa##_exp_from(float *y, const float *x, int64_t n, const float by[2]);            \
    float kern_##isa##_largest(const float *x, int64_t n);                                         \
    void kern_##isa##_mass_from(double mass[KERN_N_FROM], const float *w, const float *x,          \
                                int64_t n, const float at[KERN_N_FROM]);                           \
    void kern_##isa##_keep_from(float *sum, float *w, const float *x, int64_t n, float at);        \
    uint64_t kern_##isa##_read(const void *p, size_t n);                                           \
    double kern_##isa##_peak(enum kern_peak what, int64_t times);                                  \
    extern kern_tile_fn *const kern_##isa##_tiles_f32[], *const kern_##isa##_tiles_bf16[];         \
    extern const struct kern kern_##isa
KERN_DECLARE(portable);
KERN_DECLARE(avx2);
KERN_DECLARE(avx512);
extern const struct kern kern_vnni, kern_bf16dp;

#endif
