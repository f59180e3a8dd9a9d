/* engine/shard.c - the division of a model over ranks.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/shard.h"

int shard_check(const struct arch *a, int tp, int pp, const int *split, struct err *e)
{
    if (tp < 1 || pp < 1) return err_set(e, ST_USAGE, "tp %d x pp %d: both are at least 1", tp, pp);
    if (a->n_head % tp != 0)
        return err_set(e, ST_USAGE, "tp %d does not divide the %d attention heads of %s", tp,
                       a->n_head, a->name);
    if (a->n_kv_head % tp != 0 && tp % a->n_kv_head != 0)
        return err_set(e, ST_USAGE,
                       "tp %d and the %d KV heads of %s: neither divides the other, so they can be "
                       "neither split nor replicated",
                       tp, a->n_kv_head, a->name);
    if (a->ffn % tp != 0)
        return err_set(e, ST_USAGE, "tp %d does not divide the MLP width %d of %s", tp, a->ffn,
                       a->name);
    if (tp > a->vocab)
        return err_set(e, ST_USAGE, "tp %d exceeds the vocabulary of %d", tp, a->vocab);
    if (pp > a->n_layer)
        return err_set(e, ST_USAGE, "pp %d exceeds the %d layers of %s", pp, a->n_layer, a->name);
    int sum = 0;
    for (int s = 0; split && s < pp; s++) {
        if (split[s] < 1 || split[s] > a->n_layer)
            return err_set(e, ST_USAGE,
                           "stage %d of the layer split has %d layers; each has 1 to "
                           "%d",
                           s, split[s], a->n_layer);
        sum += split[s];
    }
    if (split && sum != a->n_layer)
        return err_set(e, ST_USAGE, "the layer split has %d layers in all, but %s has %d", sum,
                       a->name, a->n_layer);
    return ST_OK;
}

static int part_at(int n, int i, int parts)
{
    return (int)((int64_t)n * i / parts);
}

void shard_of(const struct arch *a, int tp, int pp, const int *split, int rank, struct shard *out)
{
    struct shard s = { .tp = tp, .pp = pp, .tp_rank = rank % tp, .stage = rank / tp };
    if (split) {
        for (int i = 0; i < s.stage; i++) s.layer0 += split[i];
        s.n_layer = split[s.stage];
    } else {
        s.layer0 = part_at(a->n_layer, s.stage, pp);
        s.n_layer = part_at(a->n_layer, s.stage + 1, pp) - s.layer0;
    }
    s.n_head = a->n_head / tp;
    s.head0 = s.tp_rank * s.n_head;
    s.n_kv = tp > a->n_kv_head ? 1 : a->n_kv_head / tp;
    s.kv0 = (int)((int64_t)s.tp_rank * a->n_kv_head / tp);
    s.n_ffn = a->ffn / tp;
    s.ffn0 = s.tp_rank * s.n_ffn;
    s.vocab0 = part_at(a->vocab, s.tp_rank, tp);
    s.n_vocab = part_at(a->vocab, s.tp_rank + 1, tp) - s.vocab0;
    s.first = s.stage == 0;
    s.last = s.stage == pp - 1;
    *out = s;
}
