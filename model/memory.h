/* model/memory.h - memory of one rank of a stage, and the KV blocks that remain, as engines
 * compute them.
 *
 *     KV bytes = gpu.mem_bytes * util - weights - activation peak - communicator buffers - other
 *     blocks   = floor(KV bytes / (block_tok * kv_bytes_token))
 * A replica's block count is the smallest over its stages: a block holds all layers of one token
 * range. Sources: vLLM gpu_worker (non-torch memory and profiled peak are subtracted from
 * gpu_memory_utilization * total); activation peak and NCCL constants as noted at each member.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_MEMORY_H
#define MODEL_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

#include "model/arch.h"
#include "model/hw.h"
#include "model/strategy.h"

struct memory {    /* per rank (GPU), bytes */
    double params; /* parameters held by the rank (a count, not bytes) */
    double weights;
    double activation; /* max(T*(2f/t + 4h)*2, logits S*V*4*3 on the last stage), floor 70 MiB;
                                    T = max_batch_tok, f times top_k with experts,
                                    S = min(max_seqs, T, 1024) */
    double comm;       /* NCCL, by the tp*pp ranks: 0 for one, 342 MiB for 2, 392 MiB for more */
    double graphs;     /* CUDA graphs, 0.3 GiB class default (0.11-1.10 GiB observed) */
    double other;      /* context, cuBLAS: 551 MiB measured */
    double kv_token;   /* KV bytes of one token: 2*L_p*max(1,K/t)*d*bk */
    double kv_bytes;   /* room for KV at `util`; negative: does not fit */
    int64_t kv_blocks; /* 0 when it does not fit */
};

struct memory_limits {
    int64_t max_batch_tok, max_seqs, block_tok;
    double util;
};

/* stage p of s->pp with n_layer layers. The embedding is on stage 0, final norm and head on the
 * last; a tied head on a stage of its own (pp > 1) holds a copy. KV heads are replicated when tp >
 * kv heads. Embedding and head stay 2 bytes when weights are quantized. */
void memory_stage(const struct arch *a, const struct hw *h, const struct strategy *s, int stage,
                  int n_layer, const struct memory_limits *lim, struct memory *out);

#endif
