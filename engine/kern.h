/* engine/kern.h - the CPU kernels: packed matmul, paged attention, and the small rest.
 *
 * A struct kern is a const table of functions for one instruction set, chosen once at run time from
 * CPUID. The portable table is plain C, the slow twin of every other, and always there. Kernels
 * know nothing of requests, layers, files or threads: they allocate nothing, take no lock, start no
 * thread. Work is split by (part, n_part): call the same function with part = 0..n_part-1 from as
 * many threads; parts write disjoint memory. A barrier is the caller's, and needed only where one
 * call reads what several parts of another wrote.
 *
 * Shapes are stated slowest first; every stride (ld*) is in elements of the array it names.
 * Pointers need the alignment of their type only; packed weights and xp are faster at KERN_ALIGN,
 * and need at least that of float.
 *
 * Which bits stay the same. One output element (a matmul y[i][j], a row of attention or of a norm)
 * is always summed in the same order, stated below, so its bits do not depend on:
 *   - m, or which other rows are in the batch, or the row's place in it;
 *   - part and n_part;
 *   - for attention: how a prompt was cut into chunks, block_tok, which physical blocks hold it;
 *   - the table, among portable, avx2, avx512 and avx512_vnni. avx512_bf16 differs from these in
 *     one thing: matmul with bf16 weights rounds x to bf16 and uses VDPBF16PS (denormals are zero
 *     there); its bits are still independent of the first three.
 * (A NaN stays a NaN; its payload, and the sign of a zero, are not promised.)
 * And with n_slice (below) a matmul split over k among 2^i ranks, summed pairwise, has the bits of
 * the unsplit one.
 *
 * How far from exact. Against its slow twin a fast kernel's tolerance is 0: the bits are the same, but
 * for avx512_bf16's matmul. Twin and avx512_bf16 are within these of the result in real numbers from
 * the same weights (as packed) and cache (as stored):
 *   - matmul: kern_mm_tolerance x sum_k |x w|. f32, bf16: 6e-8 sqrt(k) + 1e-7, k roundings of 2^-24
 *     with mixed signs. avx512_bf16 with bf16 weights: 2^-8; x is rounded by 2^-9 at most. int8: x is
 *     rounded by 1/254 of its group's largest, hence KERN_TOL_I8 where that is 12 times the mean at
 *     most. (What packing to int8 costs is below: half a scale of each weight.)
 *   - attention: KERN_TOL_ATTN for values of about 1.
 *   - rmsnorm, layernorm: KERN_TOL_NORM x (1 + |result| + 50 |mean|), from two elements on.
 *   - rope: KERN_TOL_ROPE x (|a| + |b|) of a pair (a, b): three roundings of each.
 *   - silu_mul, gelu, gelu_tanh: KERN_TOL_UNARY x |x| (|gate up|); exp_from: of the result.
 *   - mass_from, keep_from: KERN_TOL_MASS of the sum.
 * tests/test_kern*.c hold every table that the processor has to these, and to the twin's bits.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_KERN_H
#define ENGINE_KERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of options that name a table. */
#define KERN_HELP                                                                                  \
    "portable, avx2, avx512, avx512_vnni (int8 dot), avx512_bf16 (bf16 dot: rounds activations "   \
    "where weights are bf16); else the best for this processor but that one. All round "           \
    "activations to 8 bits where weights are int8, to the same bits"

#define KERN_TOL_I8    (0.5 / 127 * 12)
#define KERN_TOL_ATTN  2e-5
#define KERN_TOL_NORM  1e-6
#define KERN_TOL_ROPE  2e-7
#define KERN_TOL_UNARY 3e-7
#define KERN_TOL_MASS  1e-6

enum { KERN_ALIGN = 64, KERN_MAX_HEAD_DIM = 256, KERN_MAX_SLICE = 16, KERN_PANEL = 32 };

enum kern_type { KERN_F32, KERN_BF16, KERN_F16, KERN_I8 }; /* F16: as a source only */
size_t kern_type_bytes(enum kern_type t);                  /* of one element: 4, 2, 2, 1 */

/* ---- packed weights ------------------------------------------------------------------------
 * w[n][k], one row per output. Packed once at load into panels of KERN_PANEL outputs (the last
 * panel padded), a layout common to all tables:
 *   f32   [panel][k][32]
 *   bf16  [panel][k/2][32][2]                        k padded to even
 *   i8    [panel][k/group]{ bf16 scale[32]; [group/4][32][4] of q + 128 }   k padded to groups
 * i8 quantises symmetrically: scale = max|w| / 127 rounded up to bf16, q = round(w / scale),
 * |q| <= 127; so |w - scale q| <= scale / 2. group: a multiple of 4 in 8..256 (64 is good). */
struct kern_mat {
    enum kern_type type; /* F32, BF16 or I8 */
    int32_t n, k;
    int32_t group; /* I8 only, otherwise 0 */
    size_t bytes;  /* of data */
    void *data;    /* the caller's, of `bytes` */
};

/* Fills in type, n, k, group and bytes; data = NULL: allocate and set it before packing.
 * Preferably huge pages (MADV_HUGEPAGE): decode streams it. */
void kern_mat_init(struct kern_mat *w, enum kern_type type, int32_t n, int32_t k, int32_t group);
/* Packs rows [n_at, n_at + n_row) from src[n_row][ld] (F32, BF16 or F16), the first w->k elements
 * of each row. Several sources (q, k, v) may fill one matrix; threads may pack disjoint rows.
 * f32 -> bf16 rounds to nearest even. */
struct kern_src {
    const void *data;
    enum kern_type type;
    int64_t ld;
};
void kern_pack(struct kern_mat *w, int32_t n_at, int32_t n_row, const struct kern_src *src);
/* Row `row` of the packed matrix as f32[k] (a tied embedding; I8 gives scale * q). */
void kern_unpack_row(const struct kern_mat *w, int32_t row, float *out);
/* n elements of any of the three source types to f32 (embedding rows, norm weights). */
void kern_to_f32(float *out, const void *src, enum kern_type type, int64_t n);
uint16_t kern_bf16(float x); /* nearest even; NaN stays NaN */
float kern_f32(uint16_t bf16);

/* ---- matmul --------------------------------------------------------------------------------
 * y[m][n] = x[m][k] . w[n][k]^T, in two calls: prep writes x into the form the table wants (xp),
 * mm multiplies. One xp serves every matrix of the same type, k, group (q, k and v; gate and up).
 * Either all threads prep one shared xp by parts and meet in a barrier, or, for small m, each preps
 * its own whole copy (part 0 of 1) and none is needed.
 *
 * Order of summation. k is cut into n_slice equal slices (a power of two, up to KERN_MAX_SLICE).
 * Within a slice one accumulator, from 0, takes one fused multiply-add per k (F32, BF16: k
 * ascending; x is used in f32) or per group (I8: acc = fma(float(int32 dot) * xscale, wscale, acc),
 * groups ascending; x is quantised per row and group like w but with an f32 scale, a group with
 * max|x| < 1e-30 counts as 0, one that is not finite gives NaN). The slices are then added as a
 * balanced binary tree: ((s0 + s1) + (s2 + s3)) + ...
 * So for a row-parallel matrix of global size k over tp ranks take n_slice = S / tp with one S for
 * every tp (8, say) and add the ranks' y as the same tree in rank order: bits equal tp = 1.
 * n_slice must divide k into whole units (1 for F32, 2 for BF16, group for I8): kern_slice_ok. */
struct kern;
struct kern_mm {
    const struct kern_mat *w;
    const void *xp; /* from prep of the same table, m, k, type, group */
    float *y;       /* [m][ldy], first n of each row written; by outputs, see kern_mm_range */
    int64_t ldy;
    int32_t m;
    int32_t n_slice;
    void *tmp; /* this thread's own, kern_mm_tmp_bytes(m, n_slice) */
};
struct kern_prep {
    const float *x; /* [m][ldx] */
    int64_t ldx;
    int32_t m, k;
    enum kern_type type; /* of the weights to come */
    int32_t group;       /* I8 only */
    void *xp;            /* kern_xp_bytes */
};
/* Of one output element, as a share of sum_k |x w|: see the top. */
double kern_mm_tolerance(const struct kern *kern, enum kern_type type, int32_t k);
size_t kern_xp_bytes(enum kern_type type, int32_t group, int32_t m, int32_t k);
size_t kern_mm_tmp_bytes(int32_t m, int32_t n_slice);
bool kern_slice_ok(enum kern_type type, int32_t group, int32_t k, int32_t n_slice);
/* Outputs [*n0, *n1) that mm's part writes: whole panels, equal for all matrices of the same n, so
 * a thread may go on with its own columns (silu of gate and up) without a barrier. */
void kern_mm_range(int32_t n, int part, int n_part, int32_t *n0, int32_t *n1);

/* ---- attention over a paged KV cache -------------------------------------------------------
 * One layer's cache, F32 or BF16, [block][local kv head] with inside
 *   K  [block_tok / 8][head_dim / 2][8 tokens][2 dims]     (a vector holds 8 tokens x 2 dims)
 *   V  [block_tok][head_dim]
 * block_tok a multiple of 8, head_dim even and <= KERN_MAX_HEAD_DIM. Unwritten slots are never read
 * as values. */
struct kern_kv {
    enum kern_type type;
    int32_t n_head; /* local KV heads */
    int32_t head_dim;
    int32_t block_tok;
    void *k, *v;
};
size_t kern_kv_block_bytes(const struct kern_kv *kv); /* of K alone, or of V alone, one block */

/* Query tokens of one sequence in this step: decode has n_q = 1, a prefill chunk more. They are
 * rows [row, row + n_q) of q, out, and of the k and v given to kern_kv_put, at positions
 * [pos, pos + n_q). block[i] is the physical block of positions [i * block_tok, ...). */
struct kern_seq {
    int32_t row;
    int32_t n_q;
    int32_t pos;
    const int32_t *block;
};
/* Writes k[rows][ld] and v[rows][ld] (n_head * head_dim each; f32) of these sequences into the
 * cache; BF16 rounds to nearest even. Split over rows. */
struct kern_put {
    const struct kern_kv *kv;
    const struct kern_seq *seq;
    int32_t n_seq;
    const float *k, *v;
    int64_t ld;
};
void kern_kv_put(const struct kern_put *p, int part, int n_part);

/* out[row][head][head_dim] = softmax(scale q . K) V for n_q_head = group * kv->n_head query heads;
 * query head h reads KV head h / group. A query at position p sees positions
 * [max(0, p + 1 - window), p] (window 0: no limit); kern_kv_put of these must have happened.
 * Order: score = (even dims) + (odd dims), each one fma chain, q having been multiplied by scale
 * first; keys in tiles of 64 from position 0, online softmax in f32 per tile with 16 interleaved
 * partial sums of the denominator; values one fma chain in position order.
 * Split over (sequence, KV head, up to 48 rows of n_q * group), balanced by rows x positions; all
 * q heads of a row tile share one read of the KV head. */
struct kern_attn {
    const struct kern_kv *kv;
    const struct kern_seq *seq;
    int32_t n_seq;
    int32_t n_q_head;
    const float *q; /* [rows][ldq], n_q_head * head_dim used */
    int64_t ldq;
    float *out; /* [rows][ldo] */
    int64_t ldo;
    float scale; /* usually 1 / sqrt(head_dim) */
    int32_t window;
};

/* ---- the table ------------------------------------------------------------------------------ */
struct kern_norm { /* each of m rows of n; y may be x */
    float *y;
    int64_t ldy;
    const float *x;
    int64_t ldx;
    int32_t m, n;
    const float *weight; /* [n] */
    const float *bias;   /* [n], layernorm only; NULL: none */
    float eps;
};
struct kern_rope { /* rotates in place m rows of n_head heads */
    float *x;
    int64_t ldx;
    int32_t m, n_head, head_dim;
    int32_t half;      /* rotated dims / 2: pairs are (i, i + half); the rest stays as it is */
    const float *cs;   /* [.][2][half]: cosines then sines, kern_rope_cs */
    const int32_t *at; /* [m]: which cs entry each row takes; NULL: its own index */
};
enum { KERN_SUM_BLOCK = 256, KERN_N_FROM = 8 };
enum kern_peak { KERN_PEAK_FMA, KERN_PEAK_BF16, KERN_PEAK_I8 };
struct kern {
    const char *name;
    void (*prep)(const struct kern_prep *a, int part, int n_part); /* split over k */
    void (*mm)(const struct kern_mm *a, int part, int n_part);     /* split over n */
    void (*attn)(const struct kern_attn *a, int part, int n_part);
    void (*rmsnorm)(const struct kern_norm *a, int part, int n_part);   /* split over rows */
    void (*layernorm)(const struct kern_norm *a, int part, int n_part); /* mean, then variance */
    void (*rope)(const struct kern_rope *a, int part, int n_part);
    void (*silu_mul)(float *y, const float *gate, const float *up, int64_t n); /* y may be either */
    void (*gelu)(float *y, const float *x, int64_t n);      /* exact: x/2 (1 + erf(x/sqrt 2)) */
    void (*gelu_tanh)(float *y, const float *x, int64_t n); /* the tanh approximation */
    void (*add)(float *y, const float *x, int64_t n);       /* y += x */
    /* y = exp((x - by[0]) by[1]), by[1] > 0; 0 for a NaN, and under e^-87. */
    void (*exp_from)(float *y, const float *x, int64_t n, const float by[2]);
    /* Without NaN; -INFINITY when there is nothing else. */
    float (*largest)(const float *x, int64_t n);
    /* For sampling. w >= 0 is added up by blocks of KERN_SUM_BLOCK, each in f32 in 16 interleaved
     * partial sums; blocks in f64. Where x is NaN w has to be 0.
     * mass_from: mass[j] = the sum of w[i] where x[i] >= at[j].
     * keep_from: w[i] = 0 where x[i] < at; sum[b] = of what is left in block b. */
    void (*mass_from)(double mass[KERN_N_FROM], const float *w, const float *x, int64_t n,
                      const float at[KERN_N_FROM]);
    void (*keep_from)(float *sum, float *w, const float *x, int64_t n, float at);
    /* Ceilings, for a bench to put beside its figures. read: reads n bytes once, returns something
     * that depends on them all. peak: `times` rounds of independent register arithmetic; returns
     * the operations done (multiply and add are two), 0 where there is no such instruction. */
    uint64_t (*read)(const void *p, size_t n);
    double (*peak)(enum kern_peak what, int64_t times);
};

/* The best table this CPU and operating system support: avx512_vnni > avx512 > avx2 > portable.
 * avx512_bf16 is taken by name only: it rounds x, and VDPBF16PS has twice the FLOP rate of f32 FMA
 * on some CPUs (Zen 5) but half of it on others (Sapphire and Emerald Rapids). */
const struct kern *kern_best(void);
const struct kern *kern_named(const char *name); /* NULL: unknown, or not supported here */
const struct kern *kern_at(int i);               /* i-th supported one, portable first; NULL: end */

/* ---- plain C, the same for all tables -------------------------------------------------------- */
/* cs[2][half] for one position: cos and sin of float(inv_freq[i] * pos), to f32 accuracy. */
void kern_rope_cs(float *cs, const float *inv_freq, int32_t half, int32_t pos);
void kern_add_bias(float *y, int64_t ldy, const float *bias, int32_t m, int32_t n);
/* Lowest index of the maximum; NaN never wins. */
int32_t kern_argmax(const float *logit, int32_t n);
/* Draws an index with probability softmax(logit / temperature) restricted to the top_k largest
 * (0: all) and then to the smallest leading set whose share of what top_k left is >= top_p (>= 1:
 * all); they lead by logit descending, then index ascending. u in [0, 1) picks along the ascending
 * indices of what is left. temperature <= 0 is argmax; NaN and -inf are never drawn. Deterministic,
 * O(n). tmp: kern_sample_bytes(n). */
struct kern_pick {
    float temperature;
    int32_t top_k;
    float top_p;
};
size_t kern_sample_bytes(int32_t n);
int32_t kern_sample(const float *logit, int32_t n, const struct kern_pick *p, double u, void *tmp);

#endif
