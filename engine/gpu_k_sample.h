/* engine/gpu_k_sample.h - tokens from logits on a GPU, as kern_sample of engine/kern.h does.
 *
 * Three questions, one search. Which are the top_k largest; which of them lead until they hold
 * top_p of what is left; and at which index does the sum pass u: each asks for the last of a
 * leading set, in some order, whose weights add up to a goal. Orders are ranks, uint32 and falling.
 * A pass over the row sums the weights above 8 thresholds of the bracket that holds the goal, which
 * makes it the ninth part; the thread block's worth that is left is sorted in shared memory. Equal
 * logits are ordered by index: once the bracket is one value, the rank becomes the index. Weights
 * are made from the logits in every pass, so that nothing is kept between passes.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_GPU_K_SAMPLE_H
#define ENGINE_GPU_K_SAMPLE_H

#include "engine/gpu_block.h"
#include "engine/gpu_kern.h"

enum { GPU_N_CUT = 8, GPU_N_AHEAD = 4 }; /* thresholds of a pass, logits of a thread under way */
enum gpu_rank_by { GPU_BY_LOGIT, GPU_BY_TIE, GPU_BY_INDEX };

#define GPU_RANK_ALL  1u          /* every rank of a token is at least this; 0: out */
#define GPU_RANK_TOP  0xffffffffu /* above all in the bracket */
#define GPU_RANK_LAST 0xfffffffeu /* of index 0; the next index is one less */

/* The block's shared memory. rank and index are read last by gpu_argmax and gpu_settle, and written
 * again only after the barriers of a gpu_measure. */
struct gpu_bowl {
    float *part;   /* [warps][16] */
    double *mass;  /* [GPU_N_CUT] */
    int32_t *n;    /* [GPU_N_CUT] */
    int32_t *word; /* one */
    uint32_t *rank;
    int32_t *index;
    float *weight, *sorted; /* [threads], like rank and index */
};

/* One row, the same in all threads. Left are those whose logit is above cut, or equal and whose
 * index is at most cut_index; and above them exp((x - top) per) has to be above 0. */
struct gpu_urn {
    const float *x;
    int32_t n;
    float top, per;
    uint32_t cut;
    int32_t cut_index;
};

/* A search: the goal lies in the ranks [lo, hi), which hold n_in tokens; those above add up to
 * above. */
struct gpu_quest {
    enum gpu_rank_by by;
    bool by_mass, beyond; /* weights are exp, or 1; the sum has to pass the goal, or to reach it */
    uint32_t tie, lo, hi;
    int32_t n_in;
    double above, goal;
};

GPU_FN struct gpu_bowl gpu_bowl_of(char *shared)
{
    struct gpu_bowl b;
    b.part = (float *)(void *)shared;
    b.mass = (double *)(void *)(b.part + 32 * 2 * GPU_N_CUT);
    b.n = (int32_t *)(void *)(b.mass + GPU_N_CUT);
    b.word = b.n + GPU_N_CUT;
    b.rank = (uint32_t *)(void *)(b.word + 4);
    b.index = (int32_t *)(void *)(b.rank + gpu_threads());
    b.weight = (float *)(void *)(b.index + gpu_threads());
    b.sorted = b.weight + gpu_threads();
    return b;
}

/* Larger for a larger logit; NaN 0. */
GPU_FN uint32_t gpu_key(float x)
{
    uint32_t u = gpu_bits(x + 0.0f); /* -0 to +0: they compare equal */
    if ((u & 0x7fffffffu) > 0x7f800000u) return 0;
    return u >> 31 ? ~u : u | 0x80000000u;
}

/* A thread's next logits, i and every gpu_threads() on; NaN, which is out, past the last. */
GPU_FN void gpu_logits(const struct gpu_urn *u, int32_t i, float x[GPU_N_AHEAD])
{
    GPU_UNROLL
    for (int32_t k = 0; k < GPU_N_AHEAD; k++) {
        int32_t at = i + k * gpu_threads();
        x[k] = at < u->n ? u->x[at] : gpu_of_bits(0x7fc00000u);
    }
}

/* Rank and weight of token i with logit x; rank 0: it is out. */
GPU_FN uint32_t gpu_rank(const struct gpu_urn *u, const struct gpu_quest *q, int32_t i, float x,
                         float *weight)
{
    float v = (x - u->top) * u->per;
    uint32_t key = gpu_key(x);
    *weight = 0.0f;
    if (!(v >= -87.0f)) return 0; /* as kern_sample: exp is 0 */
    if (key < u->cut || (key == u->cut && i > u->cut_index)) return 0;
    *weight = q->by_mass ? gpu_exp(v) : 1.0f;
    if (q->by == GPU_BY_LOGIT) return key;
    if (q->by == GPU_BY_INDEX) return GPU_RANK_LAST - (uint32_t)i;
    if (key != q->tie) return key > q->tie ? GPU_RANK_TOP : 0;
    return GPU_RANK_LAST - (uint32_t)i;
}

/* ---- one pass ------------------------------------------------------------------------------- */

/* Half of the 2 * half values are given to the lane 2 * half away, which gives its other half. */
GPU_FN void gpu_scatter_half(float v[2 * GPU_N_CUT], int32_t half)
{
    bool high = (gpu_lane() & (2 * half)) != 0;
    GPU_UNROLL
    for (int32_t j = 0; j < half; j++) {
        float give = high ? v[j] : v[j + half], keep = high ? v[j + half] : v[j];
        v[j] = keep + gpu_shfl_xor(give, 2 * half);
    }
}

/* The sums of 16 values over a warp: value k ends up in lanes 2 k and 2 k + 1. */
GPU_FN float gpu_scatter_sum(float v[2 * GPU_N_CUT])
{
    gpu_scatter_half(v, 8);
    gpu_scatter_half(v, 4);
    gpu_scatter_half(v, 2);
    gpu_scatter_half(v, 1);
    return v[0] + gpu_shfl_xor(v[0], 1);
}

/* Of the tokens in the bracket, weight and number of those with a rank of at least at[j]: into mass
 * and n of the bowl. at falls. */
GPU_FN void gpu_measure(const struct gpu_bowl *b, const struct gpu_urn *u,
                        const struct gpu_quest *q, const uint32_t at[GPU_N_CUT])
{
    float sum[2 * GPU_N_CUT];
    GPU_UNROLL
    for (int32_t j = 0; j < 2 * GPU_N_CUT; j++) sum[j] = 0.0f;
    for (int32_t i = gpu_tid(); i < u->n; i += GPU_N_AHEAD * gpu_threads()) {
        float x[GPU_N_AHEAD], weight;
        gpu_logits(u, i, x);
        GPU_UNROLL
        for (int32_t k = 0; k < GPU_N_AHEAD; k++) {
            uint32_t rank = gpu_rank(u, q, i + k * gpu_threads(), x[k], &weight);
            if (rank < q->lo || rank >= q->hi) continue;
            GPU_UNROLL
            for (int32_t j = 0; j < GPU_N_CUT; j++) {
                sum[j] += rank >= at[j] ? weight : 0.0f;
                sum[GPU_N_CUT + j] += rank >= at[j] ? 1.0f : 0.0f;
            }
        }
    }
    float mine = gpu_scatter_sum(sum);
    if (gpu_lane() % 2 == 0) b->part[gpu_warp() * 2 * GPU_N_CUT + gpu_lane() / 2] = mine;
    gpu_sync();
    int32_t t = gpu_tid();
    if (t < 2 * GPU_N_CUT) {
        double all = 0;
        for (int32_t w = 0; w < gpu_threads() / 32; w++)
            all += (double)b->part[w * 2 * GPU_N_CUT + t];
        if (t < GPU_N_CUT)
            b->mass[t] = all;
        else
            b->n[t - GPU_N_CUT] = (int32_t)all;
    }
    gpu_sync();
}

GPU_FN bool gpu_reached(const struct gpu_quest *q, double sum)
{
    return q->beyond ? sum > q->goal : sum >= q->goal;
}

/* The bracket becomes what lies between two thresholds. One that holds all counts as reaching the
 * goal, whatever rounding says, so that the bracket is never empty. */
GPU_FN void gpu_narrow(const struct gpu_bowl *b, struct gpu_quest *q, const uint32_t at[GPU_N_CUT])
{
    double above = q->above;
    int32_t n_above = 0, n_upto = q->n_in;
    uint32_t lo = q->lo, hi = q->hi;
    bool found = false;
    GPU_UNROLL
    for (int32_t j = 0; j < GPU_N_CUT; j++) {
        bool reached = b->n[j] == q->n_in || gpu_reached(q, q->above + b->mass[j]);
        if (!found && reached) {
            lo = at[j];
            n_upto = b->n[j];
            found = true;
        } else if (!found) {
            hi = at[j];
            above = q->above + b->mass[j];
            n_above = b->n[j];
        }
    }
    q->lo = lo;
    q->hi = hi;
    q->above = above;
    q->n_in = n_upto - n_above;
}

/* ---- what is left in the bracket ------------------------------------------------------------ */

/* Sums of v over the threads up to this one; part: 32 floats. */
GPU_FN float gpu_running_sum(float v, float *part)
{
    GPU_UNROLL
    for (int32_t d = 1; d < 32; d *= 2) {
        float before = gpu_shfl(v, gpu_lane() - d);
        if (gpu_lane() >= d) v += before;
    }
    if (gpu_lane() == 31) part[gpu_warp()] = v;
    gpu_sync();
    float before = 0.0f;
    for (int32_t w = 0; w < gpu_warp(); w++) before += part[w];
    return before + v;
}

/* The token of the bracket, of at most a thread each, with which the goal is reached, else the last.
 * They are put in order first, so that the sum does not depend on who came when. */
GPU_FN int32_t gpu_settle(const struct gpu_bowl *b, const struct gpu_urn *u,
                          const struct gpu_quest *q)
{
    int32_t t = gpu_tid(), place = 0, index = 0;
    float weight = 0.0f;
    if (t == 0) b->word[0] = 0;
    gpu_sync();
    for (int32_t i = t; i < u->n; i += GPU_N_AHEAD * gpu_threads()) {
        float x[GPU_N_AHEAD], w;
        gpu_logits(u, i, x);
        GPU_UNROLL
        for (int32_t k = 0; k < GPU_N_AHEAD; k++) {
            uint32_t rank = gpu_rank(u, q, i + k * gpu_threads(), x[k], &w);
            if (rank < q->lo || rank >= q->hi) continue;
            int32_t at = gpu_atomic_add_i(&b->word[0], 1);
            b->rank[at] = rank;
            b->index[at] = i + k * gpu_threads();
            b->weight[at] = w;
        }
    }
    gpu_sync();
    if (t < q->n_in) {
        index = b->index[t];
        weight = b->weight[t];
        uint32_t rank = b->rank[t];
        for (int32_t k = 0; k < q->n_in; k++)
            place += b->rank[k] > rank || (b->rank[k] == rank && b->index[k] < index);
    }
    gpu_sync();
    if (t < q->n_in) {
        b->sorted[place] = weight;
        b->index[place] = index;
    }
    gpu_sync();
    float upto = gpu_running_sum(t < q->n_in ? b->sorted[t] : 0.0f, b->part);
    /* the first that reaches the goal, of each warp and then of all */
    int32_t first = t < q->n_in && gpu_reached(q, q->above + (double)upto) ? t : q->n_in - 1;
    GPU_UNROLL
    for (int32_t m = 16; m > 0; m /= 2) {
        int32_t other = gpu_shfl_xor_i(first, m);
        first = other < first ? other : first;
    }
    if (gpu_lane() == 0) b->rank[gpu_warp()] = (uint32_t)first;
    gpu_sync();
    for (int32_t w = 0; w < gpu_threads() / 32; w++) {
        int32_t other = (int32_t)b->rank[w];
        first = other < first ? other : first;
    }
    return b->index[first];
}

/* The first thresholds: by logit, this far below the largest in units of the temperature; by index,
 * even shares. The last takes in all. */
GPU_FN void gpu_first_cuts(const struct gpu_urn *u, const struct gpu_quest *q,
                           uint32_t at[GPU_N_CUT])
{
    const float below[GPU_N_CUT] = { 0.5f, 1.0f, 2.0f, 3.5f, 6.0f, 10.0f, 20.0f, 87.0f };
    GPU_UNROLL
    for (int32_t j = 0; j < GPU_N_CUT; j++)
        at[j] = q->by == GPU_BY_LOGIT ? gpu_key(u->top - below[j] / u->per)
                                      : GPU_RANK_LAST - (uint32_t)((int64_t)u->n * (j + 1) / 8);
    at[GPU_N_CUT - 1] = GPU_RANK_ALL;
}

GPU_FN void gpu_even_cuts(const struct gpu_quest *q, uint32_t at[GPU_N_CUT])
{
    uint64_t span = q->hi - q->lo;
    GPU_UNROLL
    for (int32_t j = 0; j < GPU_N_CUT; j++)
        at[j] = q->hi - (uint32_t)(span * (uint64_t)(j + 1) / (GPU_N_CUT + 1));
}

/* The last token of the smallest leading set that reaches `goal` (share: of the sum of all). */
GPU_FN int32_t gpu_search(const struct gpu_bowl *b, const struct gpu_urn *u, enum gpu_rank_by by,
                          bool by_mass, double goal, bool share)
{
    struct gpu_quest q;
    uint32_t at[GPU_N_CUT];
    q.by = by;
    q.by_mass = by_mass;
    q.beyond = by == GPU_BY_INDEX;
    q.tie = 0;
    q.lo = GPU_RANK_ALL;
    q.hi = GPU_RANK_TOP;
    q.above = 0;
    gpu_first_cuts(u, &q, at);
    gpu_measure(b, u, &q, at);
    q.n_in = b->n[GPU_N_CUT - 1];
    q.goal = share ? goal * b->mass[GPU_N_CUT - 1] : goal;
    gpu_narrow(b, &q, at);
    while (q.n_in > gpu_threads()) {
        if (q.hi - q.lo == 1) { /* equal logits */
            q.by = GPU_BY_TIE;
            q.tie = q.lo;
            q.lo = GPU_RANK_LAST - (uint32_t)(u->n - 1);
            q.hi = GPU_RANK_TOP;
        }
        gpu_even_cuts(&q, at);
        gpu_measure(b, u, &q, at);
        gpu_narrow(b, &q, at);
    }
    return gpu_settle(b, u, &q);
}

/* ---- the kernel ----------------------------------------------------------------------------- */

/* Lowest index of the largest logit; NaN never wins, except when there is nothing else. */
GPU_FN int32_t gpu_argmax(const struct gpu_bowl *b, const float *x, int32_t n)
{
    uint32_t top = 0;
    int32_t index = 0;
    for (int32_t i = gpu_tid(); i < n; i += gpu_threads()) {
        uint32_t key = gpu_key(x[i]);
        if (key > top) {
            top = key;
            index = i;
        }
    }
    GPU_UNROLL
    for (int32_t m = 16; m > 0; m /= 2) {
        uint32_t key = (uint32_t)gpu_shfl_xor_i((int32_t)top, m);
        int32_t other = gpu_shfl_xor_i(index, m);
        if (key > top || (key == top && other < index)) {
            top = key;
            index = other;
        }
    }
    if (gpu_lane() == 0) {
        b->rank[gpu_warp()] = top;
        b->index[gpu_warp()] = index;
    }
    gpu_sync();
    for (int32_t w = 0; w < gpu_threads() / 32; w++)
        if (b->rank[w] > top || (b->rank[w] == top && b->index[w] < index)) {
            top = b->rank[w];
            index = b->index[w];
        }
    return index;
}

GPU_FN bool gpu_finite(float x)
{
    return (gpu_bits(x) & 0x7f800000u) != 0x7f800000u;
}

GPU_FN void gpu_cut_at(struct gpu_urn *u, int32_t index)
{
    u->cut = gpu_key(u->x[index]);
    u->cut_index = index;
}

GPU_KERNEL(sample, struct gpu_sample)
{
    gpu_begin();
    struct gpu_bowl b = gpu_bowl_of(shared);
    struct gpu_sample_row pick = a.row[gpu_block_x()];
    struct gpu_urn u;
    u.x = a.logits + (int64_t)gpu_block_x() * a.n;
    u.n = a.n;
    u.cut = GPU_RANK_ALL;
    u.cut_index = a.n;
    int32_t tok = gpu_argmax(&b, u.x, a.n);
    u.top = u.x[tok];
    if (gpu_finite(u.top) && pick.temperature > 0.0f && pick.top_k != 1) {
        u.per = 1.0f / pick.temperature;
        if (!gpu_finite(u.per)) u.per = 3.40282347e38f;
        if (pick.top_k > 0 && pick.top_k < a.n)
            gpu_cut_at(&u, gpu_search(&b, &u, GPU_BY_LOGIT, false, (double)pick.top_k, false));
        if (pick.top_p < 1.0f)
            gpu_cut_at(&u, gpu_search(&b, &u, GPU_BY_LOGIT, true, (double)pick.top_p, true));
        tok = gpu_search(&b, &u, GPU_BY_INDEX, true, pick.u, true);
    }
    if (gpu_tid() == 0) a.tok[gpu_block_x()] = gpu_finite(u.x[tok]) ? tok : -1;
}

#endif
