/* engine/gpu_kern.c - names, sizes and launch shapes of the GPU's kernels.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/gpu_kern.h"

#include "engine/gpu.h"

#define NAME(name, args, threads) #name,
static const char *const names[GPU_N_KERN] = { GPU_KERNELS(NAME) };
#define BYTES(name, args, threads) sizeof(args),
static const size_t arg_bytes[GPU_N_KERN] = { GPU_KERNELS(BYTES) };
#define THREADS(name, args, threads) threads,
static const int max_threads[GPU_N_KERN] = { GPU_KERNELS(THREADS) };

/* Element-wise kernels: threads of a block, elements that it takes of a row. */
enum { ROW_THREADS = 256, ROW_PART = 4 * ROW_THREADS };
/* Kernels that stride over all their data: blocks per multiprocessor, 8 of 256 fill one. */
enum { STRIDE_THREADS = 256, STRIDE_BLOCKS = 8 };
enum { MAX_WARPS = 32, ROPE_THREADS = 128, EMBED_EACH = 16 /* elements of a thread */ };

const char *gpu_kern_name(enum gpu_kern k)
{
    return names[k];
}

size_t gpu_kern_arg_bytes(enum gpu_kern k)
{
    return arg_bytes[k];
}

int gpu_kern_max_threads(enum gpu_kern k)
{
    return max_threads[k];
}

size_t gpu_elt_bytes(enum gpu_elt t)
{
    return t == GPU_F32 ? 4 : t == GPU_E4M3 ? 1 : 2;
}

static struct gpu_dim dim_of(int32_t x, int32_t threads)
{
    struct gpu_dim d = { x > 0 ? x : 1, 1, 1, threads, 0 };
    return d;
}

/* m rows in parts of ROW_PART elements, one block each. */
static struct gpu_dim by_row(int32_t m, int32_t n)
{
    return dim_of(m * ((n + ROW_PART - 1) / ROW_PART), ROW_THREADS);
}

/* n items, `each` by a thread at a time. */
static struct gpu_dim by_stride(int64_t n, int64_t each, const struct gpu_info *h)
{
    int64_t most = (int64_t)h->n_sm * STRIDE_BLOCKS;
    int64_t want = (n + each * STRIDE_THREADS - 1) / (each * STRIDE_THREADS);
    return dim_of((int32_t)(want < most ? want : most), STRIDE_THREADS);
}

/* Threads for a row of n, `each` by one: whole warps, from least to most. */
static int32_t threads_for(int64_t n, int64_t each, int32_t least, int32_t most)
{
    int64_t want = (n + each * 32 - 1) / (each * 32) * 32;
    return want < least ? least : want > most ? most : (int32_t)want;
}

static struct gpu_dim rope_dim(const struct gpu_rope_put *a)
{
    /* as many lanes per head as its quarter of pairs, see rope_put */
    int32_t half = a->kv.head_dim / 2, lanes = 32, heads;
    if (half % 4 == 0)
        for (lanes = 1; lanes < half / 4;) lanes *= 2;
    heads = ROPE_THREADS / lanes;
    struct gpu_dim d = dim_of(a->m, ROPE_THREADS);
    d.y = (a->n_head + 2 * a->kv.n_head + heads - 1) / heads;
    return d;
}

static struct gpu_dim sample_dim(const struct gpu_sample *a)
{
    struct gpu_dim d = dim_of(a->m, threads_for(a->n, 16, 64, max_threads[GPU_K_sample]));
    /* 16 sums of each warp, the totals (8 of f64, 8 of int32, 4 more), 16 bytes a thread */
    d.shared_bytes = MAX_WARPS * 16 * 4 + 8 * 8 + 8 * 4 + 16 + d.threads * 16;
    return d;
}

void gpu_kern_dim(enum gpu_kern k, const void *args, const struct gpu_info *h, struct gpu_dim *out)
{
    switch (k) {
    case GPU_K_embed: {
        const struct gpu_embed *a = args;
        int32_t threads = threads_for(a->n, EMBED_EACH, 32, max_threads[k]);
        int32_t size = EMBED_EACH * threads;
        *out = dim_of(a->m * ((a->n + size - 1) / size), threads);
        break;
    }
    case GPU_K_norm: {
        const struct gpu_norm *a = args;
        *out = dim_of(a->m, threads_for(a->n, 4, 32, max_threads[k]));
        out->shared_bytes = 2 * MAX_WARPS * 4;
        break;
    }
    case GPU_K_rope_put: *out = rope_dim(args); break;
    case GPU_K_act: {
        const struct gpu_act *a = args;
        *out = by_row(a->m, a->n);
        break;
    }
    case GPU_K_add: *out = by_stride(((const struct gpu_add *)args)->n, 4, h); break;
    case GPU_K_add_bias: {
        const struct gpu_add_bias *a = args;
        *out = by_row(a->m, a->n);
        break;
    }
    case GPU_K_pick: {
        const struct gpu_pick *a = args;
        *out = by_row(a->m, a->n);
        break;
    }
    case GPU_K_cast:
        *out = by_stride(((const struct gpu_cast *)args)->n, 4, h);
        out->shared_bytes = MAX_WARPS * 4;
        break;
    case GPU_K_absmax:
        *out = by_stride(((const struct gpu_absmax *)args)->n, 16, h);
        if (out->x > GPU_MAX_PART) out->x = GPU_MAX_PART;
        out->shared_bytes = MAX_WARPS * 4;
        break;
    case GPU_K_col_scale: {
        const struct gpu_col_scale *a = args;
        *out = by_row(a->m, a->n);
        break;
    }
    case GPU_K_gemv: {
        const struct gpu_gemv *a = args;
        int32_t each = GPU_GEMV_ROWS * (max_threads[k] / 32);
        *out = dim_of((a->n + each - 1) / each, max_threads[k]);
        break;
    }
    case GPU_K_sample: *out = sample_dim(args); break;
    case GPU_K_read:
        *out = by_stride(((const struct gpu_read *)args)->n, 4, h);
        out->shared_bytes = MAX_WARPS * 4;
        break;
    case GPU_K_copy: *out = by_stride(((const struct gpu_copy *)args)->n, 4, h); break;
    case GPU_K_fill: *out = by_stride(((const struct gpu_fill *)args)->n, 4, h); break;
    case GPU_K_nothing: *out = dim_of(1, 32); break;
    case GPU_K_attn_decode:
    case GPU_K_attn_combine:
    case GPU_K_attn_prefill:
    case GPU_K_attn_prefill_f32: gpu_kern_attn_dim(k, args, h, out); break;
    case GPU_N_KERN: break;
    }
}
