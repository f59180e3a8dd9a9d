/* engine/gpu_kern_attn.c - launch of the attention kernels: blocks, shared memory, shares of a decode.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/gpu_kern_attn.h"

#include <assert.h>

#include "engine/gpu.h"
#include "engine/gpu_kern.h"

enum { SHARE_MIN_TOK = 256 };

/* Of heads rows: the warps' sums, maxima and values. */
static int32_t state_bytes(int32_t heads, int32_t dim)
{
    return ATTN_WARPS * heads * (dim + 3) * (int32_t)sizeof(float);
}

static int32_t decode_bytes(const struct gpu_attn *a, int32_t pack)
{
    int32_t dim = a->kv.head_dim;
    if (a->kv.type == GPU_F32) /* queries, shares of 8 tokens */
        return pack * (dim + ATTN_WARPS * 8) * (int32_t)sizeof(float) + state_bytes(pack, dim);
    return pack * ATTN_K_LD(ATTN_CHUNK(dim)) * 2 + state_bytes(pack, dim);
}

static int32_t prefill_bytes(int32_t chunk)
{
    int32_t row = (ATTN_K_LD(chunk) + ATTN_V_LD(chunk)) * 2 + (int32_t)sizeof(int32_t);
    return ATTN_Q_BYTES(chunk) + ATTN_TILE_BYTES + 2 * ATTN_KEYS(chunk) * row;
}

void gpu_kern_attn_dim(enum gpu_kern k, const struct gpu_attn *a, const struct gpu_info *h,
                       struct gpu_dim *out)
{
    int32_t dim = a->kv.head_dim, group = a->n_head / a->kv.n_head;
    int32_t pack = a->kv.type == GPU_F32 ? ATTN_PACK_F32(dim) : ATTN_PACK(group, dim);

    assert(dim >= 32 && dim <= GPU_MAX_HEAD_DIM && dim % 8 == 0);
    assert(a->n_head % a->kv.n_head == 0 && a->n_split >= 1 && a->n_split <= GPU_MAX_SPLIT);
    *out = (struct gpu_dim){ .x = 1, .y = 1, .z = 1, .threads = ATTN_THREADS };
    switch (k) {
    case GPU_K_attn_decode:
        out->x = a->n_seq;
        out->y = a->kv.n_head * ((group + pack - 1) / pack);
        out->z = a->n_split;
        out->shared_bytes = decode_bytes(a, pack);
        break;
    case GPU_K_attn_combine:
        out->x = (int32_t)(((int64_t)a->n_seq * a->n_head + ATTN_WARPS - 1) / ATTN_WARPS);
        break;
    case GPU_K_attn_prefill:
        out->x = a->n_head * (dim > 128 ? 2 : 1);
        out->y = a->n_tile;
        out->shared_bytes = prefill_bytes(ATTN_CHUNK(dim));
        break;
    default:
        assert(k == GPU_K_attn_prefill_f32);
        out->x = a->n_head;
        out->y = a->n_tile;
        out->shared_bytes = ATTN_WARPS * dim * (int32_t)sizeof(float);
    }
    assert(out->shared_bytes <= h->max_shared_bytes);
}

/* The smallest split whose blocks fill the last round of the device well, or what comes nearest. */
int gpu_kern_split(const struct gpu_info *h, int n_seq, int n_kv_head, int64_t max_ctx)
{
    double blocks = (double)n_seq * n_kv_head, room = (double)h->n_sm * ATTN_RESIDENT, best = 0;
    int split = 1;

    for (int n = 1; n <= GPU_MAX_SPLIT && (n == 1 || max_ctx / n >= SHARE_MIN_TOK); n *= 2) {
        double rounds = blocks * n / room, whole = (double)(int64_t)rounds;
        double full = rounds / (whole < rounds ? whole + 1 : whole);
        if (full > best) {
            best = full;
            split = n;
        }
        if (full >= 0.85) break;
    }
    return split;
}
