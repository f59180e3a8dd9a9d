/* engine/gpu_k_attn.h - the attention kernels: paged decode and its merge; prefill is included.
 *
 * BF16 and F16 caches are multiplied on the tensor cores in fragments of m16n8k16 (gpu_mma). Lane
 * 4 g + t holds of an operand rows g and g + 8 (B: column g) at k = 2 t, 2 t + 1, 2 t + 8, 2 t + 9.
 * Any order of k gives the same sum as long as both operands have it, and any order of rows and
 * columns is undone where the result is written. So a lane reads 16 bytes, 8 neighbouring dims, of
 * a token and they serve as they are:
 *   keys    dims 8 t .. 8 t + 7 of 32: words 0 and 1 are k of one product, 2 and 3 of the next;
 *   values  dims 8 g .. 8 g + 7 of 64 of the tokens 2 t, 2 t + 1, 2 t + 8, 2 t + 9: the halves of
 *           two tokens' words are sorted into pairs along k, and each half is a row (column) of an
 *           own product.
 * Softmax is in powers of two: the queries are scaled by scale * log2(e), then rounded to the type.
 * Keys that a row must not see are read as one that it may: their products are finite, their share
 * is 0. SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_GPU_K_ATTN_H
#define ENGINE_GPU_K_ATTN_H

#include <math.h>
#include <stdbool.h>

#include "engine/gpu_block.h"
#include "engine/gpu_kern.h"
#include "engine/gpu_kern_attn.h"

/* What a copy of a kernel is made for. */
struct attn_spec {
    enum gpu_elt type;
    int dim;   /* head_dim, 0: read it */
    int chunk; /* chunks of 64 dims that hold a head: 1, 2 or 4 */
    int group; /* of 8 query heads: 1 or 2 */
};

/* What a block of a decode reads: keys [lo, hi) of a sequence, for n_head query heads from head. */
struct attn_share {
    int32_t seq, row, first, lo, hi, head, n_head, kv_head; /* first: in the table of blocks */
};

GPU_FN int32_t attn_dim(const struct gpu_attn *a, struct attn_spec p)
{
    return p.dim ? p.dim : a->kv.head_dim;
}

/* Chunks that are worked on at once: 128 dims. */
GPU_FN int attn_half_chunks(struct attn_spec p)
{
    return p.chunk > 2 ? 2 : p.chunk;
}

/* The same of a decode. Beside the sums of heads of more than 128 dims there are few registers left:
 * with 64 dims none is spilled on sm_90 and later, with 128 on those before (ptxas of CUDA 13.0). */
GPU_FN int attn_part_chunks(struct attn_spec p)
{
    if (p.chunk > 2) return gpu_sm() >= 90 ? 1 : 2;
    return p.chunk;
}

/* Where a token's key and value lie: a row of head_dim elements. */
GPU_FN int32_t attn_slot(const struct gpu_attn *a, int32_t first, int32_t head, int32_t key)
{
    uint32_t tok = (uint32_t)a->kv.block_tok, block = (uint32_t)key / tok;
    int32_t offset = (int32_t)((uint32_t)key - block * tok);
    int32_t number = a->s.table[first + (int32_t)block];
    return (number * a->kv.n_head + head) * a->kv.block_tok + offset;
}

GPU_FN struct gpu_16 attn_zero16(void)
{
    struct gpu_16 z = { { 0, 0, 0, 0 } };
    return z;
}

/* 8 neighbouring queries as 16-bit elements. */
GPU_FN struct gpu_16 attn_query16(const float *q, float scale, enum gpu_elt type)
{
    struct gpu_16 lo = gpu_load16(q), hi = gpu_load16(q + 4), v;
    GPU_UNROLL
    for (int i = 0; i < 2; i++) {
        v.w[i] =
            gpu_pack2(type, gpu_of_bits(lo.w[2 * i]) * scale, gpu_of_bits(lo.w[2 * i + 1]) * scale);
        v.w[i + 2] =
            gpu_pack2(type, gpu_of_bits(hi.w[2 * i]) * scale, gpu_of_bits(hi.w[2 * i + 1]) * scale);
    }
    return v;
}

/* To element at of out and image, where there are any. */
GPU_FN void attn_put(const struct gpu_attn *a, int64_t at, float v)
{
    if (a->out) a->out[at] = v;
    if (!a->image) return;
    if (a->image_type == GPU_F32)
        ((float *)a->image)[at] = v;
    else
        ((uint16_t *)a->image)[at] = (uint16_t)gpu_pack2((enum gpu_elt)a->image_type, v, v);
}

/* ------------------------------------------------------------------ decode: what a block does */

/* The share of this block; false: this sequence decodes nothing. Shares begin at multiples of 16
 * and hold a multiple of 64 tokens, so a short sequence fills the first ones and the rest are
 * empty (lo >= hi). */
GPU_FN bool attn_share(const struct gpu_attn *a, int32_t n_pack, struct attn_share *s)
{
    int32_t group = a->n_head / a->kv.n_head, packs = (group + n_pack - 1) / n_pack;
    int32_t pack = gpu_block_y() % packs * n_pack;

    s->seq = gpu_block_x();
    s->kv_head = gpu_block_y() / packs;
    if (a->s.n_q[s->seq] != 1) return false;
    s->row = a->s.row[s->seq];
    int32_t pos = a->s.pos[s->row];
    if (pos < 0) return false;
    s->first = a->s.first[s->seq];
    s->head = s->kv_head * group + pack;
    s->n_head = group - pack < n_pack ? group - pack : n_pack;

    int32_t seen = a->window > 0 && pos >= a->window ? pos - a->window + 1 : 0;
    int32_t begin = seen & ~15, n = pos + 1 - begin;
    int32_t share = ((n + a->n_split - 1) / a->n_split + 63) & ~63;
    int64_t lo = begin + (int64_t)share * gpu_block_z(), hi = lo + share;
    s->lo = lo < seen ? seen : lo > pos ? pos + 1 : (int32_t)lo;
    s->hi = hi > pos ? pos + 1 : (int32_t)hi;
    return true;
}

GPU_FN int64_t attn_part(const struct gpu_attn *a, const struct attn_share *s, int32_t head)
{
    return ((int64_t)s->seq * a->n_head + s->head + head) * a->n_split + gpu_block_z();
}

GPU_FN void attn_empty(const struct gpu_attn *a, const struct attn_share *s)
{
    for (int32_t h = gpu_tid(); h < s->n_head; h += gpu_threads())
        a->lse[attn_part(a, s, h)] = -INFINITY;
}

/* The warps' states of n heads in shared memory: m and l [warp][n], o [warp][n][head_dim + 1], the
 * odd rows against bank conflicts. */
struct attn_states {
    float *m, *l, *o;
    int32_t n, ld;
};

GPU_FN struct attn_states attn_states(char *shared, int32_t n, int32_t dim)
{
    struct attn_states st;
    st.n = n;
    st.ld = dim + 1;
    st.m = (float *)shared;
    st.l = st.m + ATTN_WARPS * n;
    st.o = st.l + ATTN_WARPS * n;
    return st;
}

/* Merges the warps' states and writes the share's result. */
GPU_FN void attn_finish(const struct gpu_attn *a, const struct attn_share *s,
                        const struct attn_states *st, int32_t dim)
{
    for (int32_t i = gpu_tid(); i < s->n_head * dim; i += gpu_threads()) {
        int32_t h = i / dim, d = i - h * dim;
        float max = -INFINITY, sum = 0, v = 0;
        GPU_UNROLL
        for (int w = 0; w < ATTN_WARPS; w++) max = fmaxf(max, st->m[w * st->n + h]);
        GPU_UNROLL
        for (int w = 0; w < ATTN_WARPS; w++) {
            float scale = gpu_exp2(st->m[w * st->n + h] - max);
            sum += scale * st->l[w * st->n + h];
            v += scale * st->o[(w * st->n + h) * st->ld + d];
        }
        v /= sum;
        if (a->n_split == 1) {
            attn_put(a, ((int64_t)s->row * a->n_head + s->head + h) * dim + d, v);
            continue;
        }
        a->part[attn_part(a, s, h) * dim + d] = v;
        if (d == 0) a->lse[attn_part(a, s, h)] = max + gpu_log(sum) * ATTN_LOG2E;
    }
}

/* ------------------------------------------------------------- decode of BF16 and F16 caches
 * Tokens are the rows of S = K q^T and dims the rows of O = V^T P^T, heads the columns of both: up
 * to 8 heads cost what 1 costs. A warp works on 16 tokens at a time, straight from device memory
 * to fragments; keys of its next 16 are under way while it works on these values. */

struct attn_warp {
    struct gpu_16 k[2][4];  /* of tokens g, g + 8: 32 dims each */
    struct gpu_16 v[4][2];  /* of tokens 2 t, 2 t + 1, 2 t + 8, 2 t + 9: 64 dims each */
    float s[2][4];          /* [group] */
    float o[16][4];         /* [group][chunk * 4]: rows of 16 dims */
    float m[2][2], l[2][2]; /* [group] head 2 t, 2 t + 1; l: of this lane's tokens */
    uint32_t p[2][2];
};

GPU_FN bool attn_tight(struct attn_spec p) /* no register to spare */
{
    return p.group * p.chunk > 2;
}

/* v of lane ^ x; tight: by two shuffles instead of an own lane number for each x. */
GPU_FN int32_t attn_from(struct attn_spec p, int32_t v, int32_t lane, int x)
{
    return attn_tight(p) ? gpu_shfl_i(gpu_shfl_xor_i(v, x), lane) : gpu_shfl_i(v, lane ^ x);
}

/* Keys of 16 tokens, dims [64 part, 64 (part + parts)); slot: of token lane % 16. */
GPU_FN void attn_get_k(const struct gpu_attn *a, struct attn_spec p, struct attn_warp *w,
                       int32_t slot, int part, int parts)
{
    int32_t dim = attn_dim(a, p), at = part * 64 + gpu_lane() % 4 * 8, left = dim - at;
    GPU_UNROLL
    for (int r = 0; r < 2; r++) {
        int32_t row = attn_from(p, slot, gpu_lane() / 4, 8 * r);
        const uint16_t *k = (const uint16_t *)a->kv.k + (int64_t)row * dim + at;
        GPU_UNROLL
        for (int c = 0; c < parts * 2; c++)
            w->k[r][(part * 2 + c) % 4] =
                p.dim || left > 32 * c ? gpu_load16(k + 32 * c) : attn_zero16();
    }
}

GPU_FN void attn_get_v(const struct gpu_attn *a, struct attn_spec p, struct attn_warp *w,
                       int32_t slot, int part)
{
    int32_t dim = attn_dim(a, p), at = part * attn_part_chunks(p) * 64 + gpu_lane() / 4 * 8;
    int32_t left = dim - at;
    GPU_UNROLL
    for (int r = 0; r < 4; r++) {
        int32_t row = attn_from(p, slot, gpu_lane() % 4 * 2, r % 2 + r / 2 * 8);
        const uint16_t *v = (const uint16_t *)a->kv.v + (int64_t)row * dim + at;
        GPU_UNROLL
        for (int c = 0; c < attn_part_chunks(p); c++)
            w->v[r][c] = p.dim || left > 64 * c ? gpu_load16(v + 64 * c) : attn_zero16();
    }
}

/* s += K q^T over a part of the dims; q: [8 * group][ld] elements, rows shifted by half the banks. */
GPU_FN void attn_score(struct attn_spec p, struct attn_warp *w, const uint16_t *q, int part)
{
    int32_t ld = p.chunk * 64 + 32;
    GPU_UNROLL
    for (int c = 0; c < attn_part_chunks(p) * 2; c++) {
        int at = (part * attn_part_chunks(p) * 2 + c) % 4;
        GPU_UNROLL
        for (int n = 0; n < p.group; n++) {
            struct gpu_16 b =
                gpu_load16(q + (n * 8 + gpu_lane() / 4) * ld + part * attn_part_chunks(p) * 64 +
                           32 * c + gpu_lane() % 4 * 8);
            GPU_UNROLL
            for (int e = 0; e < 2; e++) {
                uint32_t k[4] = { w->k[0][at].w[2 * e], w->k[1][at].w[2 * e],
                                  w->k[0][at].w[2 * e + 1], w->k[1][at].w[2 * e + 1] };
                gpu_mma(p.type, w->s[n], k, b.w + 2 * e);
            }
        }
    }
}

/* Scores become shares of the sum so far, which what is there is rescaled to. */
GPU_FN void attn_soften(struct attn_spec p, struct attn_warp *w, bool see_low, bool see_high)
{
    GPU_UNROLL
    for (int n = 0; n < p.group; n++) {
        GPU_UNROLL
        for (int i = 0; i < 2; i++) {
            float low = see_low ? w->s[n][i] : -INFINITY;
            float high = see_high ? w->s[n][2 + i] : -INFINITY;
            float max = fmaxf(low, high);
            GPU_UNROLL
            for (int x = 4; x < 32; x *= 2) max = fmaxf(max, gpu_shfl_xor(max, x));
            max = fmaxf(max, w->m[n][i]);
            float scale = gpu_exp2(w->m[n][i] - max);
            w->s[n][i] = gpu_exp2(low - max);
            w->s[n][2 + i] = gpu_exp2(high - max);
            w->m[n][i] = max;
            w->l[n][i] = w->l[n][i] * scale + w->s[n][i] + w->s[n][2 + i];
            GPU_UNROLL
            for (int c = 0; c < p.chunk * 4; c++) {
                w->o[n * p.chunk * 4 + c][i] *= scale;
                w->o[n * p.chunk * 4 + c][2 + i] *= scale;
            }
        }
    }
}

/* Lane 4 g + t has tokens g, g + 8 of heads 2 t, 2 t + 1; as an operand it needs head g of tokens
 * 2 t, 2 t + 1, 2 t + 8, 2 t + 9. */
GPU_FN void attn_turn(struct attn_spec p, struct attn_warp *w)
{
    int32_t g = gpu_lane() / 4, from = gpu_lane() % 4 * 8 + g / 2;
    GPU_UNROLL
    for (int n = 0; n < p.group; n++) {
        GPU_UNROLL
        for (int r = 0; r < 2; r++) {
            int32_t pair = (int32_t)gpu_pack2(p.type, w->s[n][2 * r], w->s[n][2 * r + 1]);
            uint32_t x = (uint32_t)gpu_shfl_i(pair, from);
            uint32_t y = (uint32_t)attn_from(p, pair, from, 4);
            w->p[n][r] = g % 2 ? gpu_high2(x, y) : gpu_low2(x, y);
        }
    }
}

GPU_FN void attn_weigh(struct attn_spec p, struct attn_warp *w, int part)
{
    GPU_UNROLL
    for (int c = 0; c < attn_part_chunks(p); c++) {
        GPU_UNROLL
        for (int j = 0; j < 4; j++) {
            uint32_t x0 = w->v[0][c].w[j], x1 = w->v[1][c].w[j];
            uint32_t y0 = w->v[2][c].w[j], y1 = w->v[3][c].w[j];
            uint32_t v[4] = { gpu_low2(x0, x1), gpu_high2(x0, x1), gpu_low2(y0, y1),
                              gpu_high2(y0, y1) };
            GPU_UNROLL
            for (int n = 0; n < p.group; n++)
                gpu_mma(p.type, w->o[n * p.chunk * 4 + part * attn_part_chunks(p) * 4 + c * 4 + j],
                        v, w->p[n]);
        }
    }
}

/* This warp's part of the share: every fourth 16 tokens. Where there are many sums to keep, keys are
 * not asked for ahead, nor values before the keys are done with: other warps fill the time. Parts are
 * written out: in a loop over them ptxas spills on sm_80. */
GPU_FN void attn_run(const struct gpu_attn *a, struct attn_spec p, const struct attn_share *s,
                     struct attn_warp *w, const uint16_t *q)
{
    int32_t at = (s->lo & ~15) + gpu_warp() * 16, end = gpu_lane() % 16 + 1;
    int32_t key = (at + end > s->hi ? s->hi : at + end) - 1;
    int32_t slot = attn_slot(a, s->first, s->kv_head, key < s->lo ? s->lo : key);

    if (!attn_tight(p) && at < s->hi) attn_get_k(a, p, w, slot, 0, p.chunk);
    for (; at < s->hi; at += 16 * ATTN_WARPS) {
        int32_t next = at + 16 * ATTN_WARPS, low = at + gpu_lane() / 4, high = low + 8;
        if (attn_tight(p))
            attn_get_k(a, p, w, slot, 0, attn_part_chunks(p));
        else
            attn_get_v(a, p, w, slot, 0);
        key = (next + end > s->hi ? s->hi : next + end) - 1;
        int32_t slot_next = attn_slot(a, s->first, s->kv_head, key);
        GPU_UNROLL
        for (int n = 0; n < p.group; n++) {
            GPU_UNROLL
            for (int i = 0; i < 4; i++) w->s[n][i] = 0;
        }
        attn_score(p, w, q, 0);
        if (p.chunk > 2) {
            attn_get_k(a, p, w, slot, attn_part_chunks(p), attn_part_chunks(p));
            attn_score(p, w, q, 1);
        }
        if (p.chunk > 2 && attn_part_chunks(p) == 1) {
            attn_get_k(a, p, w, slot, 2, 1);
            attn_score(p, w, q, 2);
            attn_get_k(a, p, w, slot, 3, 1);
            attn_score(p, w, q, 3);
        }
        if (attn_tight(p)) attn_get_v(a, p, w, slot, 0);
        if (!attn_tight(p) && next < s->hi) attn_get_k(a, p, w, slot_next, 0, p.chunk);
        attn_soften(p, w, low >= s->lo && low < s->hi, high >= s->lo && high < s->hi);
        attn_turn(p, w);
        attn_weigh(p, w, 0);
        if (p.chunk > 2) {
            attn_get_v(a, p, w, slot, 1);
            attn_weigh(p, w, 1);
        }
        if (p.chunk > 2 && attn_part_chunks(p) == 1) {
            attn_get_v(a, p, w, slot, 2);
            attn_weigh(p, w, 2);
            attn_get_v(a, p, w, slot, 3);
            attn_weigh(p, w, 3);
        }
        slot = slot_next;
    }
}

GPU_FN void attn_keep(struct attn_spec p, const struct attn_warp *w, const struct attn_states *st,
                      int32_t dim)
{
    int32_t g = gpu_lane() / 4, t = gpu_lane() % 4;
    GPU_UNROLL
    for (int n = 0; n < p.group; n++) {
        GPU_UNROLL
        for (int i = 0; i < 2; i++) {
            float sum = w->l[n][i];
            int32_t at = gpu_warp() * st->n + n * 8 + 2 * t + i;
            GPU_UNROLL
            for (int x = 4; x < 32; x *= 2) sum += gpu_shfl_xor(sum, x);
            if (g == 0) {
                st->m[at] = w->m[n][i];
                st->l[at] = sum;
            }
            GPU_UNROLL
            for (int c = 0; c < p.chunk * 4; c++) {
                int32_t d = c / 4 * 64 + 8 * g + c % 4 * 2;
                if (!p.dim && d >= dim) continue;
                st->o[at * st->ld + d] = w->o[n * p.chunk * 4 + c][i];
                st->o[at * st->ld + d + 1] = w->o[n * p.chunk * 4 + c][2 + i];
            }
        }
    }
}

GPU_FN void attn_decode_mma(const struct gpu_attn *a, char *shared, struct attn_spec p)
{
    int32_t dim = attn_dim(a, p), units = p.chunk * 8, ld = p.chunk * 64 + 32;
    struct attn_states st = attn_states(shared + p.group * 8 * ld * 2, p.group * 8, dim);
    struct attn_share s;
    struct attn_warp w;
    uint16_t *q = (uint16_t *)shared;

    if (!attn_share(a, p.group * 8, &s)) return;
    if (s.lo >= s.hi) {
        attn_empty(a, &s);
        return;
    }
    for (int32_t i = gpu_tid(); i < p.group * 8 * units; i += gpu_threads()) {
        int32_t h = i / units, d = i % units * 8;
        const float *from = a->q + s.row * a->ld + (s.head + h) * dim + d;
        bool is = h < s.n_head && d < dim;
        gpu_store16(q + h * ld + d,
                    is ? attn_query16(from, a->scale * ATTN_LOG2E, p.type) : attn_zero16());
    }
    GPU_UNROLL
    for (int i = 0; i < 4; i++) {
        w.m[i / 2][i % 2] = -INFINITY;
        w.l[i / 2][i % 2] = 0;
    }
    GPU_UNROLL
    for (int i = 0; i < 64; i++) w.o[i / 4][i % 4] = 0;
    gpu_sync();
    attn_run(a, p, &s, &w, q);
    attn_keep(p, &w, &st, dim);
    gpu_sync();
    attn_share(a, p.group * 8, &s); /* again: in the loop registers are dearer */
    attn_finish(a, &s, &st, dim);
}

/* ------------------------------------------------------------------------ decode of F32 caches
 * 8 tokens and `heads` heads at a time: lane 4 g + t sums dims 4 t .. 4 t + 3 of each 16 of token g;
 * then lane l weighs dims 4 l .. 4 l + 3 of each 128 of all 8 values. heads: 8 of up to 128 dims,
 * 4 of more. */

struct attn_warp_f32 {
    float s[8], m[8], l[8]; /* [head] */
    float o[8][2][4];       /* [head][128 dims][dim of the lane's 4] */
};

GPU_FN float attn_dot4(struct gpu_16 x, struct gpu_16 y, float sum)
{
    GPU_UNROLL
    for (int i = 0; i < 4; i++) sum = gpu_fma(gpu_of_bits(x.w[i]), gpu_of_bits(y.w[i]), sum);
    return sum;
}

GPU_FN void attn_score_f32(const struct gpu_attn *a, struct attn_warp_f32 *w, const float *q,
                           int32_t slot, int heads)
{
    int32_t dim = a->kv.head_dim;
    const float *k = (const float *)a->kv.k + (int64_t)slot * dim;
    GPU_UNROLL
    for (int h = 0; h < heads; h++) w->s[h] = 0;
    for (int32_t b = 0; b < 8 / heads; b++) {
        int32_t at = b * 128 + gpu_lane() % 4 * 4;
        struct gpu_16 x[8];
        GPU_UNROLL
        for (int c = 0; c < 8; c++)
            x[c] = at + 16 * c < dim ? gpu_load16(k + at + 16 * c) : attn_zero16();
        GPU_UNROLL
        for (int c = 0; c < 8; c++)
            if (at + 16 * c < dim) {
                GPU_UNROLL
                for (int h = 0; h < heads; h++)
                    w->s[h] = attn_dot4(x[c], gpu_load16(q + h * dim + at + 16 * c), w->s[h]);
            }
    }
}

/* p: [8 heads][8 tokens] of this warp in shared memory. */
GPU_FN void attn_soften_f32(struct attn_warp_f32 *w, float *p, bool see, int heads)
{
    int32_t g = gpu_lane() / 4;
    GPU_UNROLL
    for (int h = 0; h < heads; h++) {
        float s = w->s[h];
        s += gpu_shfl_xor(s, 1);
        s += gpu_shfl_xor(s, 2);
        float max = see ? s : -INFINITY;
        s = max;
        GPU_UNROLL
        for (int x = 4; x < 32; x *= 2) max = fmaxf(max, gpu_shfl_xor(max, x));
        max = fmaxf(max, w->m[h]);
        float scale = gpu_exp2(w->m[h] - max), share = gpu_exp2(s - max);
        w->m[h] = max;
        w->l[h] = w->l[h] * scale + share;
        GPU_UNROLL
        for (int i = 0; i < 32 / heads; i++) w->o[h][i / 4][i % 4] *= scale;
        if (gpu_lane() % 4 == 0) p[h * 8 + g] = share;
    }
}

GPU_FN void attn_weigh_f32(const struct gpu_attn *a, struct attn_warp_f32 *w, const float *p,
                           int32_t slot, int heads)
{
    int32_t dim = a->kv.head_dim;
    GPU_UNROLL
    for (int b = 0; b < 8 / heads; b++) {
        int32_t at = b * 128 + gpu_lane() * 4;
        struct gpu_16 v[8];
        GPU_UNROLL
        for (int j = 0; j < 8; j++) {
            int64_t row = gpu_shfl_i(slot, 4 * j);
            v[j] = at < dim ? gpu_load16((const float *)a->kv.v + row * dim + at) : attn_zero16();
        }
        GPU_UNROLL
        for (int h = 0; h < heads; h++) {
            GPU_UNROLL
            for (int j = 0; j < 8; j++) {
                float share = p[h * 8 + j];
                GPU_UNROLL
                for (int i = 0; i < 4; i++)
                    w->o[h][b][i] = gpu_fma(share, gpu_of_bits(v[j].w[i]), w->o[h][b][i]);
            }
        }
    }
}

GPU_FN void attn_keep_f32(const struct attn_warp_f32 *w, const struct attn_states *st, int32_t dim,
                          int heads)
{
    GPU_UNROLL
    for (int h = 0; h < heads; h++) {
        float sum = w->l[h];
        int32_t at = gpu_warp() * st->n + h;
        GPU_UNROLL
        for (int x = 4; x < 32; x *= 2) sum += gpu_shfl_xor(sum, x);
        if (gpu_lane() == 0) {
            st->m[at] = w->m[h];
            st->l[at] = sum;
        }
        GPU_UNROLL
        for (int i = 0; i < 32 / heads; i++) {
            int32_t d = i / 4 * 128 + gpu_lane() * 4 + i % 4;
            if (d < dim) st->o[at * st->ld + d] = w->o[h][i / 4][i % 4];
        }
    }
}

GPU_FN void attn_decode_f32(const struct gpu_attn *a, char *shared, int heads)
{
    int32_t dim = a->kv.head_dim;
    float *q = (float *)shared, *p = q + heads * dim + gpu_warp() * heads * 8;
    struct attn_states st = attn_states((char *)(q + heads * (dim + ATTN_WARPS * 8)), heads, dim);
    struct attn_share s;
    struct attn_warp_f32 w;

    if (!attn_share(a, heads, &s)) return;
    if (s.lo >= s.hi) {
        attn_empty(a, &s);
        return;
    }
    for (int32_t i = gpu_tid(); i < heads * dim; i += gpu_threads())
        q[i] = i < s.n_head * dim ? a->q[s.row * a->ld + s.head * dim + i] * (a->scale * ATTN_LOG2E)
                                  : 0;
    GPU_UNROLL
    for (int h = 0; h < heads; h++) {
        w.m[h] = -INFINITY;
        w.l[h] = 0;
        GPU_UNROLL
        for (int i = 0; i < 32 / heads; i++) w.o[h][i / 4][i % 4] = 0;
    }
    gpu_sync();
    for (int32_t at = s.lo + gpu_warp() * 8; at < s.hi; at += 8 * ATTN_WARPS) {
        int32_t key = at + gpu_lane() / 4, near = key < s.hi ? key : s.hi - 1;
        int32_t slot = attn_slot(a, s.first, s.kv_head, near);
        attn_score_f32(a, &w, q, slot, heads);
        attn_soften_f32(&w, p, key < s.hi, heads);
        gpu_sync_warp();
        attn_weigh_f32(a, &w, p, slot, heads);
        gpu_sync_warp();
    }
    attn_keep_f32(&w, &st, dim, heads);
    gpu_sync();
    attn_finish(a, &s, &st, dim);
}

/* Copies of the decode: the two head sizes that most models have, and any other. */
GPU_FN void attn_decode_type(const struct gpu_attn *a, char *shared, enum gpu_elt type)
{
    int32_t dim = a->kv.head_dim, pack = ATTN_PACK(a->n_head / a->kv.n_head, dim);
    struct attn_spec p = { type, dim, 1, 1 };
    if (dim == 64 && pack == 8) {
        p.dim = 64;
        attn_decode_mma(a, shared, p);
    } else if (dim == 64) {
        p.dim = 64, p.group = 2;
        attn_decode_mma(a, shared, p);
    } else if (dim == 128 && pack == 8) {
        p.dim = 128, p.chunk = 2;
        attn_decode_mma(a, shared, p);
    } else if (dim == 128) {
        p.dim = 128, p.chunk = 2, p.group = 2;
        attn_decode_mma(a, shared, p);
    } else if (dim <= 128) {
        p.dim = 0, p.chunk = 2;
        attn_decode_mma(a, shared, p);
    } else {
        p.dim = 0, p.chunk = 4;
        attn_decode_mma(a, shared, p);
    }
}

GPU_KERNEL_FULL(attn_decode, struct gpu_attn, ATTN_RESIDENT)
{
    gpu_begin();
    if (a.kv.type == GPU_BF16)
        attn_decode_type(&a, shared, GPU_BF16);
    else if (a.kv.type == GPU_F16)
        attn_decode_type(&a, shared, GPU_F16);
    else if (a.kv.head_dim <= 128)
        attn_decode_f32(&a, shared, 8);
    else
        attn_decode_f32(&a, shared, 4);
}

/* One warp for each sequence and query head; lane i has the sum of share i. */
GPU_KERNEL(attn_combine, struct gpu_attn)
{
    gpu_begin();
    int32_t i = gpu_block_x() * (gpu_threads() / 32) + gpu_warp(), dim = a.kv.head_dim;
    int32_t seq = i / a.n_head, head = i - seq * a.n_head;

    if (seq >= a.n_seq || a.s.n_q[seq] != 1) return;
    int32_t row = a.s.row[seq];
    if (a.s.pos[row] < 0) return;
    float lse = gpu_lane() < a.n_split ? a.lse[(int64_t)i * a.n_split + gpu_lane()] : -INFINITY;
    float max = lse, sum;
    for (int x = 1; x < 32; x *= 2) max = fmaxf(max, gpu_shfl_xor(max, x));
    float share = gpu_exp2(lse - max);
    sum = share;
    for (int x = 1; x < 32; x *= 2) sum += gpu_shfl_xor(sum, x);
    share /= sum;

    for (int32_t b = 0; b < dim; b += 128) { /* all lanes, for the shuffles */
        int32_t d = b + gpu_lane() * 4;
        float v[4] = { 0, 0, 0, 0 };
        for (int32_t n = 0; n < a.n_split; n += 4) { /* four loads under way */
            const float *part = a.part + ((int64_t)i * a.n_split + n) * dim + d;
            float weight[4];
            struct gpu_16 x[4];
            GPU_UNROLL
            for (int k = 0; k < 4; k++) {
                weight[k] = gpu_shfl(share, n + k);
                /* an empty share wrote nothing */
                bool is = weight[k] != 0 && n + k < a.n_split && d < dim;
                x[k] = is ? gpu_load16(part + k * dim) : attn_zero16();
            }
            GPU_UNROLL
            for (int e = 0; e < 16; e++)
                v[e % 4] = gpu_fma(weight[e / 4], gpu_of_bits(x[e / 4].w[e % 4]), v[e % 4]);
        }
        if (d >= dim) continue;
        GPU_UNROLL
        for (int e = 0; e < 4; e++)
            attn_put(&a, ((int64_t)row * a.n_head + head) * dim + d + e, v[e]);
    }
}

#include "engine/gpu_k_attn_tile.h"

#endif
