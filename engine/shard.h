/* engine/shard.h - what one rank of tp x pp holds: layers, heads, MLP columns, vocabulary.
 *
 * rank = stage * tp + tp_rank. Query heads and MLP columns divide evenly; KV heads divide, or are
 * replicated on tp / n_kv_head ranks each; vocabulary rows differ by at most one.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_SHARD_H
#define ENGINE_SHARD_H

#include "model/arch.h"

struct shard {
    int tp, pp, tp_rank, stage;
    int layer0, n_layer;
    int head0, n_head; /* query heads */
    int kv0, n_kv;
    int ffn0, n_ffn;
    int vocab0, n_vocab;
    bool first, last; /* stage: has the embedding; has the head */
};

/* split: layers of each stage, pp of them, or NULL for an even split, later stages longer by at most
 * one. Errors: ST_USAGE, one sentence that names the division which fails. */
int shard_check(const struct arch *a, int tp, int pp, const int *split, struct err *e);
/* Of arguments that shard_check has passed. */
void shard_of(const struct arch *a, int tp, int pp, const int *split, int rank, struct shard *out);

#endif
