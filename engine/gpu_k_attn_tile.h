/* engine/gpu_k_attn_tile.h - attention of tiles of rows, chunked prefill: the rest of gpu_k_attn.h,
 * which says what lane has what. SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_GPU_K_ATTN_TILE_H
#define ENGINE_GPU_K_ATTN_TILE_H

#include <math.h>
#include <stdbool.h>

#include "engine/gpu_block.h"
#include "engine/gpu_k_attn.h"
#include "engine/gpu_kern.h"
#include "engine/gpu_kern_attn.h"

/* ------------------------------------------------------------- prefill of BF16 and F16 caches
 * A block has up to 64 neighbouring rows of a sequence and one query head (of heads over 128 dims
 * half the values' dims), a warp 16 rows. Keys and values pass through two pairs of buffers in
 * shared memory: one is filled while the other is worked on. Rows of keys are an odd multiple of 64
 * bytes, rows of values of 16, which spreads each 16-byte read of a warp over all banks. */

struct attn_tile {
    int32_t row, n, pos; /* first row, rows, position of the first */
    int32_t first;       /* in the table of blocks */
    int32_t lo, hi;      /* keys that any row sees */
    int32_t head, kv_head, half;
};

struct attn_stage {         /* in shared memory */
    struct attn_tile *tile; /* here it takes no registers */
    char *q;                /* fragments [32 dims][warp][rows][lane] of 16 bytes */
    int32_t *slot;          /* [2][keys] */
    uint16_t *k, *v;        /* [2][keys][ld] */
};

struct attn_rows {
    struct gpu_16 q[4][2]; /* of 32 dims: rows g, g + 8 */
    float s[8][4];         /* [8 keys] */
    float o[16][4];        /* [8 dims] */
    float m[2], l[2];      /* rows g, g + 8; l: of this lane's keys */
};

GPU_FN struct attn_stage attn_stage(char *shared, struct attn_spec p)
{
    struct attn_stage st;
    int32_t n = ATTN_KEYS(p.chunk);
    st.q = shared;
    st.tile = (struct attn_tile *)(shared + ATTN_Q_BYTES(p.chunk));
    st.slot = (int32_t *)((char *)st.tile + ATTN_TILE_BYTES);
    st.k = (uint16_t *)(st.slot + 2 * n);
    st.v = st.k + 2 * n * ATTN_K_LD(p.chunk);
    return st;
}

/* The tile and head of this block; false: none. Blocks begin with x, then y: those of a tile's heads
 * together, as they read the same keys, and tiles as listed. */
GPU_FN bool attn_tile(const struct gpu_attn *a, int32_t halves, struct attn_tile *t)
{
    int32_t seq = a->s.tile[2 * gpu_block_y()], skip = a->s.tile[2 * gpu_block_y() + 1];
    if (seq < 0) return false;
    t->row = a->s.row[seq] + skip;
    t->n = a->s.n_q[seq] - skip;
    if (t->n > GPU_TILE_Q) t->n = GPU_TILE_Q;
    if (t->n <= 0) return false;
    t->pos = a->s.pos[t->row];
    if (t->pos < 0) return false;
    t->first = a->s.first[seq];
    t->hi = t->pos + t->n;
    t->lo = a->window > 0 && t->pos >= a->window ? t->pos - a->window + 1 : 0;
    t->head = gpu_block_x() / halves;
    t->half = gpu_block_x() % halves;
    t->kv_head = t->head / (a->n_head / a->kv.n_head);
    return true;
}

/* n: at most the threads of a block. */
GPU_FN void attn_slots(const struct gpu_attn *a, const struct attn_tile *t, int32_t at, int32_t n,
                       int32_t *slot)
{
    if (gpu_tid() < n) {
        int32_t key = at + gpu_tid() < t->hi ? at + gpu_tid() : t->hi - 1;
        slot[gpu_tid()] = attn_slot(a, t->first, t->kv_head, key < t->lo ? t->lo : key);
    }
}

/* Keys and values at st->slot[buffer] on their way to that buffer; all threads of a token's row have
 * its place from one read. */
GPU_FN void attn_fetch(const struct gpu_attn *a, struct attn_spec p, const struct attn_stage *st,
                       int32_t buffer)
{
    int32_t dim = attn_dim(a, p), n = ATTN_KEYS(p.chunk), all = dim / 8, from = st->tile->half * 16;
    int32_t units = p.chunk > 2 && all - from > 16 ? 16 : all - from;
    int32_t step = ATTN_THREADS / n, key = gpu_tid() / step, mine = gpu_tid() % step;
    int64_t row = (int64_t)st->slot[buffer * n + key] * dim + mine * 8;
    uint16_t *k = st->k + (buffer * n + key) * ATTN_K_LD(p.chunk) + mine * 8;
    uint16_t *v = st->v + (buffer * n + key) * ATTN_V_LD(p.chunk) + mine * 8;
    const uint16_t *k_from = (const uint16_t *)a->kv.k + row;
    const uint16_t *v_from = (const uint16_t *)a->kv.v + row + from * 8;

    GPU_UNROLL
    for (int32_t u = 0; u < all; u += step) /* the sizes known beforehand come out even */
        if (p.dim || u + mine < all) gpu_stage16(k + u * 8, k_from + u * 8);
    GPU_UNROLL
    for (int32_t u = 0; u < units; u += step)
        if (p.dim || u + mine < units) gpu_stage16(v + u * 8, v_from + u * 8);
    gpu_stage_close();
}

/* Where this lane's first rows of 32 dims are that registers do not hold. */
GPU_FN char *attn_query_at(struct attn_spec p, char *q, int c)
{
    return q + (((c - ATTN_Q_HELD(p.chunk)) * ATTN_WARPS + gpu_warp()) * 64 + gpu_lane()) * 16;
}

/* Queries of the warp's rows; rows past the last are the last. */
GPU_FN void attn_queries(const struct gpu_attn *a, struct attn_spec p, const struct attn_tile *t,
                         struct attn_rows *w, char *q)
{
    int32_t dim = attn_dim(a, p);
    GPU_UNROLL
    for (int r = 0; r < 2; r++) {
        int32_t row = gpu_warp() * 16 + gpu_lane() / 4 + 8 * r;
        row = t->row + (row < t->n ? row : t->n - 1);
        const float *from = a->q + row * a->ld + t->head * dim;
        GPU_UNROLL
        for (int c = 0; c < p.chunk * 2; c++) {
            int32_t d = 32 * c + gpu_lane() % 4 * 8;
            struct gpu_16 x = p.dim || d < dim
                                  ? attn_query16(from + d, a->scale * ATTN_LOG2E, p.type)
                                  : attn_zero16();
            if (c < ATTN_Q_HELD(p.chunk))
                w->q[c % 4][r] = x;
            else
                gpu_store16(attn_query_at(p, q, c) + 512 * r, x);
        }
        w->m[r] = -INFINITY;
        w->l[r] = 0;
    }
    GPU_UNROLL
    for (int i = 0; i < 64; i++) w->o[i / 4][i % 4] = 0;
}

GPU_FN void attn_rows_score(struct attn_spec p, struct attn_rows *w, char *q, const uint16_t *k)
{
    GPU_UNROLL
    for (int i = 0; i < ATTN_KEYS(p.chunk) / 2; i++) w->s[i / 4][i % 4] = 0;
    GPU_UNROLL
    for (int c = 0; c < p.chunk * 2; c++) {
        bool held = c < ATTN_Q_HELD(p.chunk);
        struct gpu_16 x = held ? w->q[c % 4][0] : gpu_load16(attn_query_at(p, q, c));
        struct gpu_16 y = held ? w->q[c % 4][1] : gpu_load16(attn_query_at(p, q, c) + 512);
        GPU_UNROLL
        for (int n = 0; n < ATTN_KEYS(p.chunk) / 8; n++) {
            struct gpu_16 b = gpu_load16(k + (n * 8 + gpu_lane() / 4) * ATTN_K_LD(p.chunk) +
                                         32 * c + gpu_lane() % 4 * 8);
            GPU_UNROLL
            for (int e = 0; e < 2; e++) {
                uint32_t f[4] = { x.w[2 * e], y.w[2 * e], x.w[2 * e + 1], y.w[2 * e + 1] };
                gpu_mma(p.type, w->s[n], f, b.w + 2 * e);
            }
        }
    }
}

/* Scores of keys that a row must not see: none. ahead: from the first key to the first row. */
GPU_FN void attn_rows_mask(struct attn_spec p, struct attn_rows *w, int32_t ahead, int32_t window)
{
    ahead += gpu_lane() / 4 - gpu_lane() % 4 * 2;
    GPU_UNROLL
    for (int n = 0; n < ATTN_KEYS(p.chunk) / 8; n++) {
        GPU_UNROLL
        for (int i = 0; i < 4; i++) {
            int32_t at = ahead + i / 2 * 8 - 8 * n - i % 2;
            if (at < 0 || (window > 0 && at >= window)) w->s[n][i] = -INFINITY;
        }
    }
}

GPU_FN void attn_rows_soften(struct attn_spec p, struct attn_rows *w)
{
    GPU_UNROLL
    for (int r = 0; r < 2; r++) {
        float max = w->m[r], sum = 0;
        GPU_UNROLL
        for (int n = 0; n < ATTN_KEYS(p.chunk) / 8; n++)
            max = fmaxf(max, fmaxf(w->s[n][2 * r], w->s[n][2 * r + 1]));
        max = fmaxf(max, gpu_shfl_xor(max, 1));
        max = fmaxf(max, gpu_shfl_xor(max, 2));
        float base = max == -INFINITY ? 0 : max; /* nothing seen so far */
        float scale = gpu_exp2(w->m[r] - base);
        GPU_UNROLL
        for (int n = 0; n < ATTN_KEYS(p.chunk) / 8; n++) {
            GPU_UNROLL
            for (int i = 2 * r; i < 2 * r + 2; i++) {
                w->s[n][i] = gpu_exp2(w->s[n][i] - base);
                sum += w->s[n][i];
            }
        }
        w->m[r] = max;
        w->l[r] = w->l[r] * scale + sum;
        GPU_UNROLL
        for (int c = 0; c < attn_half_chunks(p) * 8; c++) {
            w->o[c][2 * r] *= scale;
            w->o[c][2 * r + 1] *= scale;
        }
    }
}

GPU_FN void attn_rows_weigh(struct attn_spec p, struct attn_rows *w, const uint16_t *v)
{
    GPU_UNROLL
    for (int n = 0; n < ATTN_KEYS(p.chunk) / 16; n++) {
        float *s = w->s[2 * n], *s1 = w->s[2 * n + 1];
        uint32_t f[4] = { gpu_pack2(p.type, s[0], s[1]), gpu_pack2(p.type, s[2], s[3]),
                          gpu_pack2(p.type, s1[0], s1[1]), gpu_pack2(p.type, s1[2], s1[3]) };
        GPU_UNROLL
        for (int c = 0; c < attn_half_chunks(p); c++) {
            struct gpu_16 x[4];
            GPU_UNROLL
            for (int r = 0; r < 4; r++)
                x[r] = gpu_load16(
                    v + (16 * n + gpu_lane() % 4 * 2 + r % 2 + r / 2 * 8) * ATTN_V_LD(p.chunk) +
                    64 * c + gpu_lane() / 4 * 8);
            GPU_UNROLL
            for (int j = 0; j < 4; j++) {
                uint32_t low[2] = { gpu_low2(x[0].w[j], x[1].w[j]),
                                    gpu_low2(x[2].w[j], x[3].w[j]) };
                uint32_t high[2] = { gpu_high2(x[0].w[j], x[1].w[j]),
                                     gpu_high2(x[2].w[j], x[3].w[j]) };
                gpu_mma(p.type, w->o[c * 8 + 2 * j], f, low);
                gpu_mma(p.type, w->o[c * 8 + 2 * j + 1], f, high);
            }
        }
    }
}

GPU_FN void attn_put8_f32(void *to, int64_t at, const float *v)
{
    struct gpu_16 lo, hi;
    GPU_UNROLL
    for (int i = 0; i < 4; i++) {
        lo.w[i] = gpu_bits(v[i]);
        hi.w[i] = gpu_bits(v[4 + i]);
    }
    gpu_store16((float *)to + at, lo);
    gpu_store16((float *)to + at + 4, hi);
}

/* 8 neighbouring elements, as attn_put. */
GPU_FN void attn_put8(const struct gpu_attn *a, int64_t at, const float *v)
{
    struct gpu_16 x;
    if (a->out) attn_put8_f32(a->out, at, v);
    if (!a->image) return;
    if (a->image_type == GPU_F32) {
        attn_put8_f32(a->image, at, v);
        return;
    }
    GPU_UNROLL
    for (int i = 0; i < 4; i++)
        x.w[i] = gpu_pack2((enum gpu_elt)a->image_type, v[2 * i], v[2 * i + 1]);
    gpu_store16((uint16_t *)a->image + at, x);
}

GPU_FN void attn_rows_put(const struct gpu_attn *a, struct attn_spec p, const struct attn_rows *w)
{
    int32_t dim = attn_dim(a, p);
    struct attn_tile tile, *t = &tile;
    if (!attn_tile(a, p.chunk > 2 ? 2 : 1, t)) return; /* read again: registers are dearer */
    GPU_UNROLL
    for (int r = 0; r < 2; r++) {
        int32_t row = gpu_warp() * 16 + gpu_lane() / 4 + 8 * r;
        float sum = w->l[r];
        sum += gpu_shfl_xor(sum, 1);
        sum += gpu_shfl_xor(sum, 2);
        int64_t at = ((int64_t)(t->row + row) * a->n_head + t->head) * dim;
        GPU_UNROLL
        for (int c = 0; c < attn_half_chunks(p) * 2; c++) {
            int32_t d = t->half * 128 + c / 2 * 64 + gpu_lane() % 4 * 16 + c % 2 * 8;
            float v[8];
            GPU_UNROLL
            for (int j = 0; j < 8; j++) v[j] = w->o[c / 2 * 8 + j][2 * r + c % 2] / sum;
            if (row < t->n && (p.dim || d < dim)) attn_put8(a, at + d, v);
        }
    }
}

/* What a warp does with the keys from `key` on. */
GPU_FN void attn_rows_step(const struct gpu_attn *a, struct attn_spec p,
                           const struct attn_stage *st, struct attn_rows *w, int32_t key)
{
    const struct attn_tile *t = st->tile;
    int32_t n = ATTN_KEYS(p.chunk), buffer = key / n % 2;
    int32_t low = t->pos + gpu_warp() * 16, high = low + 15; /* positions of the warp's rows */
    if (gpu_warp() * 16 >= t->n || key > high) return;
    if (a->window > 0 && key + n <= low - a->window + 1) return;
    attn_rows_score(p, w, st->q, st->k + buffer * n * ATTN_K_LD(p.chunk));
    if (key + n - 1 > low || (a->window > 0 && key <= high - a->window))
        attn_rows_mask(p, w, low - key, a->window);
    attn_rows_soften(p, w);
    attn_rows_weigh(p, w, st->v + buffer * n * ATTN_V_LD(p.chunk));
}

GPU_FN void attn_prefill_mma(const struct gpu_attn *a, char *shared, struct attn_spec p)
{
    int32_t n = ATTN_KEYS(p.chunk);
    struct attn_stage st = attn_stage(shared, p);
    struct attn_tile t;
    struct attn_rows w;

    if (!attn_tile(a, p.chunk > 2 ? 2 : 1, &t)) return;
    if (!p.dim) /* dims that a head does not have */
        for (int32_t i = gpu_tid(); i < n * ATTN_K_LD(p.chunk) / 4; i += gpu_threads())
            gpu_store16(st.k + i * 8, attn_zero16());
    attn_queries(a, p, &t, &w, st.q);
    int32_t first = t.lo / n * n;
    attn_slots(a, &t, first, n, st.slot + first / n % 2 * n);
    attn_slots(a, &t, first + n, n, st.slot + (first / n + 1) % 2 * n);
    if (gpu_tid() == 0) *st.tile = t;
    gpu_sync();
    attn_fetch(a, p, &st, first / n % 2);
    for (int32_t key = first; key < st.tile->hi; key += n) {
        int32_t buffer = key / n % 2;
        gpu_stage_wait(0);
        gpu_sync(); /* this buffer is full; all are done with the other and with its slots */
        if (key + n < st.tile->hi) attn_fetch(a, p, &st, 1 - buffer);
        attn_slots(a, st.tile, key + 2 * n, n, st.slot + buffer * n);
        attn_rows_step(a, p, &st, &w, key);
    }
    attn_rows_put(a, p, &w);
}

GPU_FN void attn_prefill_type(const struct gpu_attn *a, char *shared, enum gpu_elt type)
{
    int32_t dim = a->kv.head_dim;
    struct attn_spec p = { type, dim, 1, 1 };
    if (dim == 64) {
        p.dim = 64;
        attn_prefill_mma(a, shared, p);
    } else if (dim == 128) {
        p.dim = 128, p.chunk = 2;
        attn_prefill_mma(a, shared, p);
    } else if (dim <= 128) {
        p.dim = 0, p.chunk = 2;
        attn_prefill_mma(a, shared, p);
    } else {
        p.dim = 0, p.chunk = 4;
        attn_prefill_mma(a, shared, p);
    }
}

GPU_KERNEL_FULL(attn_prefill, struct gpu_attn, ATTN_RESIDENT)
{
    gpu_begin();
    if (a.kv.type == GPU_BF16)
        attn_prefill_type(&a, shared, GPU_BF16);
    else
        attn_prefill_type(&a, shared, GPU_F16);
}

/* ---------------------------------------------------------------------- prefill of F32 caches
 * A warp has a row at a time: lanes have a key each, then each a dim of every 32. */

struct attn_row_f32 {
    float o[8], m, l; /* dims lane + 32 i */
};

GPU_FN void attn_row_step(const struct gpu_attn *a, struct attn_row_f32 *w, const float *q,
                          int32_t slot, bool see)
{
    int32_t dim = a->kv.head_dim;
    const float *k = (const float *)a->kv.k + (int64_t)slot * dim;
    float s = 0, max;
    for (int32_t d = 0; d < dim; d += 4) s = attn_dot4(gpu_load16(k + d), gpu_load16(q + d), s);
    if (!see) s = -INFINITY;
    max = s;
    for (int x = 1; x < 32; x *= 2) max = fmaxf(max, gpu_shfl_xor(max, x));
    max = fmaxf(max, w->m);
    float share = gpu_exp2(s - max), scale = gpu_exp2(w->m - max);
    w->m = max;
    w->l = w->l * scale + share;
    GPU_UNROLL
    for (int i = 0; i < 8; i++) w->o[i] *= scale;
    for (int j = 0; j < 32; j++) {
        float weight = gpu_shfl(share, j);
        const float *v = (const float *)a->kv.v + (int64_t)gpu_shfl_i(slot, j) * dim;
        GPU_UNROLL
        for (int i = 0; i < 8; i++) {
            int32_t d = gpu_lane() + 32 * i;
            if (d < dim) w->o[i] = gpu_fma(weight, v[d], w->o[i]);
        }
    }
}

GPU_KERNEL(attn_prefill_f32, struct gpu_attn)
{
    gpu_begin();
    int32_t dim = a.kv.head_dim;
    float *q = (float *)shared + gpu_warp() * dim;
    struct attn_tile t;

    if (!attn_tile(&a, 1, &t)) return;
    for (int32_t r = gpu_warp(); r < t.n; r += ATTN_WARPS) {
        int32_t pos = t.pos + r;
        int32_t first = a.window > 0 && pos >= a.window ? pos - a.window + 1 : 0;
        struct attn_row_f32 w;
        w.m = -INFINITY;
        w.l = 0;
        GPU_UNROLL
        for (int i = 0; i < 8; i++) w.o[i] = 0;
        gpu_sync_warp();
        for (int32_t d = gpu_lane(); d < dim; d += 32)
            q[d] = a.q[(t.row + r) * a.ld + t.head * dim + d] * (a.scale * ATTN_LOG2E);
        gpu_sync_warp();
        for (int32_t at = first; at <= pos; at += 32) {
            int32_t key = at + gpu_lane(), near = key <= pos ? key : pos;
            attn_row_step(&a, &w, q, attn_slot(&a, t.first, t.kv_head, near), key <= pos);
        }
        for (int x = 1; x < 32; x *= 2) w.l += gpu_shfl_xor(w.l, x);
        GPU_UNROLL
        for (int i = 0; i < 8; i++) {
            int32_t d = gpu_lane() + 32 * i;
            if (d < dim)
                attn_put(&a, ((int64_t)(t.row + r) * a.n_head + t.head) * dim + d, w.o[i] / w.l);
        }
    }
}

#endif
