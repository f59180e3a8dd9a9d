/* tests/gpu_host_kern.c - the one place where the kernels are compiled for the host.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/gpu_host_kern.h"

#include "engine/gpu_k_attn.h"
#include "engine/gpu_k_bench.h"
#include "engine/gpu_k_elt.h"
#include "engine/gpu_k_gemv.h"
#include "engine/gpu_k_sample.h"

#define FN(name, args, threads) gpu_host_k_##name,
static const gpu_host_kern_fn fn[GPU_N_KERN] = { GPU_KERNELS(FN) };

gpu_host_kern_fn gpu_host_kern(enum gpu_kern k)
{
    return fn[k];
}

#define AT(kern, type, member)                                                                     \
    {                                                                                              \
        GPU_K_##kern, offsetof(struct type, member), #member                                       \
    }
#define STEP(kern, type)                                                                           \
    AT(kern, type, s.tok), AT(kern, type, s.pos), AT(kern, type, s.slot), AT(kern, type, s.row),   \
        AT(kern, type, s.n_q), AT(kern, type, s.first), AT(kern, type, s.table),                   \
        AT(kern, type, s.tile), AT(kern, type, s.out)
#define ATTN(kern)                                                                                 \
    STEP(kern, gpu_attn), AT(kern, gpu_attn, kv.k), AT(kern, gpu_attn, kv.v),                      \
        AT(kern, gpu_attn, q), AT(kern, gpu_attn, out), AT(kern, gpu_attn, image),                 \
        AT(kern, gpu_attn, part), AT(kern, gpu_attn, lse)

static const struct gpu_host_pointer pointer[] = {
    STEP(embed, gpu_embed),
    AT(embed, gpu_embed, w),
    AT(embed, gpu_embed, x),
    AT(embed, gpu_embed, w_scale),
    AT(norm, gpu_norm, x),
    AT(norm, gpu_norm, add),
    AT(norm, gpu_norm, bias),
    AT(norm, gpu_norm, bias2),
    AT(norm, gpu_norm, weight),
    AT(norm, gpu_norm, shift),
    AT(norm, gpu_norm, y),
    AT(norm, gpu_norm, image),
    STEP(rope_put, gpu_rope_put),
    AT(rope_put, gpu_rope_put, kv.k),
    AT(rope_put, gpu_rope_put, kv.v),
    AT(rope_put, gpu_rope_put, qkv),
    AT(rope_put, gpu_rope_put, bias),
    AT(rope_put, gpu_rope_put, norm_q),
    AT(rope_put, gpu_rope_put, norm_k),
    AT(rope_put, gpu_rope_put, cs),
    ATTN(attn_decode),
    ATTN(attn_combine),
    ATTN(attn_prefill),
    ATTN(attn_prefill_f32),
    AT(act, gpu_act, x),
    AT(act, gpu_act, bias),
    AT(act, gpu_act, y),
    AT(act, gpu_act, image),
    AT(add, gpu_add, y),
    AT(add, gpu_add, x),
    AT(add_bias, gpu_add_bias, y),
    AT(add_bias, gpu_add_bias, bias),
    STEP(pick, gpu_pick),
    AT(pick, gpu_pick, x),
    AT(pick, gpu_pick, y),
    AT(cast, gpu_cast, from),
    AT(cast, gpu_cast, to),
    AT(cast, gpu_cast, scale),
    AT(cast, gpu_cast, part),
    AT(absmax, gpu_absmax, x),
    AT(absmax, gpu_absmax, part),
    AT(col_scale, gpu_col_scale, y),
    AT(col_scale, gpu_col_scale, scale),
    AT(gemv, gpu_gemv, x),
    AT(gemv, gpu_gemv, w),
    AT(gemv, gpu_gemv, y),
    AT(sample, gpu_sample, logits),
    AT(sample, gpu_sample, row),
    AT(sample, gpu_sample, tok),
    AT(read, gpu_read, x),
    AT(read, gpu_read, sum),
    AT(copy, gpu_copy, to),
    AT(copy, gpu_copy, from),
    AT(fill, gpu_fill, x),
};

const struct gpu_host_pointer *gpu_host_pointer(int i)
{
    return (size_t)i < sizeof pointer / sizeof *pointer ? &pointer[i] : NULL;
}
