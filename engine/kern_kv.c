/* engine/kern_kv.c - writes the paged KV cache and cuts attention into row tiles.
 * SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <string.h>

#include "engine/kern_priv.h"

size_t kern_kv_block_bytes(const struct kern_kv *kv)
{
    assert(kv->block_tok > 0 && kv->block_tok % 8 == 0);
    assert(kv->head_dim > 0 && kv->head_dim % 2 == 0 && kv->head_dim <= KERN_MAX_HEAD_DIM);
    assert(kv->type == KERN_F32 || kv->type == KERN_BF16);
    size_t one = kern_type_bytes(kv->type);
    return (size_t)kv->n_head * (size_t)kv->block_tok * (size_t)kv->head_dim * one;
}

const char *kern_kv_at(const struct kern_kv *kv, const void *pool, int32_t block, int32_t head)
{
    size_t head_bytes = kern_kv_block_bytes(kv) / (size_t)kv->n_head;
    return (const char *)pool + ((size_t)block * (size_t)kv->n_head + (size_t)head) * head_bytes;
}

static void put_head(const struct kern_kv *kv, char *k_at, char *v_at, const float *k,
                     const float *v)
{
    bool wide = kv->type == KERN_F32;
    size_t one = wide ? 4 : 2;
    for (int32_t d = 0; d < kv->head_dim; d += 2, k_at += 16 * one, v_at += 2 * one) {
        uint16_t kp[2] = { kern_bf16(k[d]), kern_bf16(k[d + 1]) };
        uint16_t vp[2] = { kern_bf16(v[d]), kern_bf16(v[d + 1]) };
        memcpy(k_at, wide ? (const void *)(k + d) : kp, 2 * one);
        memcpy(v_at, wide ? (const void *)(v + d) : vp, 2 * one);
    }
}

static void put_token(const struct kern_put *p, const struct kern_seq *s, int32_t i)
{
    const struct kern_kv *kv = p->kv;
    int32_t pos = s->pos + i, slot = pos % kv->block_tok, dim = kv->head_dim;
    size_t one = kern_type_bytes(kv->type);
    const float *k = p->k + (s->row + i) * p->ld, *v = p->v + (s->row + i) * p->ld;
    for (int32_t h = 0; h < kv->n_head; h++, k += dim, v += dim) {
        int32_t b = s->block[pos / kv->block_tok];
        size_t k_off = (size_t)(slot / 8 * 8 * dim + slot % 8 * 2) * one;
        size_t v_off = (size_t)(slot * dim) * one;
        put_head(kv, (char *)kv->k + (kern_kv_at(kv, kv->k, b, h) - (const char *)kv->k) + k_off,
                 (char *)kv->v + (kern_kv_at(kv, kv->v, b, h) - (const char *)kv->v) + v_off, k, v);
    }
}

void kern_kv_put(const struct kern_put *p, int part, int n_part)
{
    int64_t total = 0, lo, hi, at = 0;
    for (int32_t s = 0; s < p->n_seq; s++) total += p->seq[s].n_q;
    kern_split(total, part, n_part, &lo, &hi);
    for (int32_t s = 0; s < p->n_seq; at += p->seq[s].n_q, s++)
        for (int32_t i = 0; i < p->seq[s].n_q; i++)
            if (at + i >= lo && at + i < hi) put_token(p, p->seq + s, i);
}

void kern_attn_seen(const struct kern_attn_tile *t, int32_t r, int32_t *lo, int32_t *hi)
{
    int32_t group = t->a->n_q_head / t->a->kv->n_head;
    *hi = t->s->pos + r / group + 1;
    *lo = t->a->window > 0 && *hi > t->a->window ? *hi - t->a->window : 0;
}

/* A tile costs rows x (positions + a constant for what is done once a row). */
static int64_t cost(const struct kern_attn_tile *t)
{
    int32_t lo, hi;
    kern_attn_seen(t, t->r1 - 1, &lo, &hi);
    return (int64_t)(t->r1 - t->r0) * (hi - lo + 32);
}

/* Visits the row tiles in order; the part that holds the middle of a tile's cost runs it, one behind,
 * so that it knows the next. tile NULL: only adds the cost up. */
static int64_t walk(const struct kern_attn *a, int part, int n_part, int64_t total,
                    void (*tile)(const struct kern_attn_tile *))
{
    int32_t group = a->n_q_head / a->kv->n_head;
    struct kern_attn_tile held = { .a = NULL };
    int64_t sum = 0;
    for (int32_t s = 0; s < a->n_seq; s++) {
        int32_t rows = a->seq[s].n_q * group;
        int32_t n_tile = (rows + KERN_ATTN_ROWS - 1) / KERN_ATTN_ROWS;
        for (int32_t h = 0; h < a->kv->n_head; h++)
            for (int32_t i = 0; i < n_tile; i++) {
                struct kern_attn_tile t = { .a = a, .s = a->seq + s, .head = h };
                t.r0 = (int32_t)((int64_t)rows * i / n_tile);
                t.r1 = (int32_t)((int64_t)rows * (i + 1) / n_tile);
                int64_t c = cost(&t);
                if (tile && (sum + c / 2) * n_part / total == part) {
                    held.next = &t;
                    if (held.a) tile(&held);
                    held = t;
                }
                sum += c;
            }
    }
    if (held.a) tile(&held);
    return sum;
}

void kern_attn_drive(const struct kern_attn *a, int part, int n_part,
                     void (*tile)(const struct kern_attn_tile *))
{
    assert(a->kv->n_head > 0 && a->n_q_head % a->kv->n_head == 0);
    assert(part >= 0 && part < n_part);
    int64_t total = walk(a, part, n_part, 0, NULL);
    if (total > 0) walk(a, part, n_part, total, tile);
}
