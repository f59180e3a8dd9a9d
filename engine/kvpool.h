/* engine/kvpool.h - paged KV blocks of one replica: allocation, prefix cache, LRU eviction.
 *
 * Pure: no clock, no device, no I/O. Blocks are counted, not numbered (a map may follow with
 * numbers: kvmap.h): a block is either plain
 * (free, first to be taken), used, or cached (freed: it waits for its turn to be taken again, and
 * may be hit until then if it holds tokens that another request can have). Cached and shared
 * content is kept as nodes: a node is the run of full blocks of one segment of a token chain
 * (traces/trace.h), so a request costs O(segments), not O(blocks).
 *
 * Semantics are those of vLLM V1's block pool, with full blocks shared by content:
 *   - a block belongs to the segment that holds its last token; only full blocks are shared;
 *   - a block can be hit as soon as it has been scheduled;
 *   - freed blocks are evicted least recently used first, within a chain the deepest first;
 *   - freed blocks that nobody can hit take their turn as well;
 * with three differences, all of them rare:
 *   - two running requests that compute the same block at once hold two copies; ours cannot be hit
 *     in the second copy (vLLM keeps both until evicted);
 *   - a block that is computed again while its cached copy is idle takes the copy's place (vLLM:
 *     two copies until the older one is evicted): the last block of a prompt that is cached to its
 *     very end;
 *   - what a chain uses of a segment comes free together, when the last chain that uses any block
 *     of it ends (vLLM: block by block; the difference is blocks written after a shorter hit by a
 *     chain that ended first).
 * Tests compare it with a pool that keeps every block by itself.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_KVPOOL_H
#define ENGINE_KVPOOL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "engine/kvmap.h"
#include "traces/trace.h"

struct kvnode {
    uint64_t key;
    int64_t cached;     /* full blocks that hold content, from the segment's start on */
    int32_t ref;        /* chains that use it; 0: evictable, in the LRU list */
    int32_t hash_next;  /* -1 ends */
    int32_t prev, next; /* LRU list, -1 ends; `next` also links the free nodes */
    bool written;       /* a live chain is extending it */
    bool hashed;        /* can be found by key */
};

struct kvpool {
    int64_t n_block;  /* in all */
    int64_t n_plain;  /* free; with a prefix cache those not used since init */
    int64_t n_cached; /* freed: evictable, in LRU order */
    int32_t block_tok;
    bool share;          /* prefix cache on */
    struct kvnode *node; /* [cap_node], grows */
    int32_t *bucket;     /* [cap_node], first node of each hash chain */
    int32_t cap_node, top_node, free_node, lru_head, lru_tail;
    uint32_t mask; /* cap_node - 1 */
    int64_t hit_tok, asked_tok,
        evicted_blocks; /* counters since init; evicted: freed blocks used anew */
    struct arena *arena;
    int32_t **spare;   /* [32] free entry arrays by log2 of capacity */
    struct kvmap *map; /* numbers of the blocks, kept in step; NULL: they are only counted */
};

/* The blocks of one request. Zero-initialise; opened by kvpool_open, ended by kvpool_close. */
struct kvchain {
    const struct trace_seg *seg;
    int32_t n_seg;
    int32_t n_entry, cap_log2; /* entries resolved so far: segments, then the private tail */
    int32_t *entry;            /* node << 1 | writes; -1: nothing of ours is shared there */
    uint64_t private_key;      /* of the tail past the last segment */
    int64_t full;              /* full blocks assigned to entries */
    int64_t blocks;            /* blocks held: found at open and own */
    int64_t own;               /* of these, taken from the pool by this chain */
    int64_t in_nodes;          /* of `own`, now held by nodes that this chain writes */
    int32_t table;             /* of the map, plus one; 0: none */
};

/* n_block >= 1, block_tok a power of two or not, >= 1. Memory comes from a, none is freed before
 * it. */
void kvpool_init(struct kvpool *p, int64_t n_block, int block_tok, bool share, struct arena *a);
/* Numbers for the blocks of a fresh pool; m was initialised with as many. */
void kvpool_number(struct kvpool *p, struct kvmap *m);

static inline int64_t kvpool_available(const struct kvpool *p)
{
    return p->n_plain + p->n_cached;
}
static inline int64_t kvpool_used(const struct kvpool *p)
{
    return p->n_block - kvpool_available(p);
}
static inline int64_t kvpool_blocks_for(const struct kvpool *p, int64_t tok)
{
    return (tok + p->block_tok - 1) / p->block_tok;
}

/* Starts the chain of request r and claims the cached blocks it hits, at most those of the first
 * max_tok tokens. Returns hit tokens (a multiple of block_tok). The claimed blocks leave the
 * evictable ones. The caller computes token max_tok next; if that fills a block which is cached
 * and idle, it is claimed as well. */
int64_t kvpool_open(struct kvpool *p, struct kvchain *c, const struct trace_req *r,
                    int64_t max_tok);
/* Blocks so that `tok` tokens fit, all of them scheduled now or before; false, and nothing
 * changed, if there are not enough. */
bool kvpool_grow(struct kvpool *p, struct kvchain *c, int64_t tok);
/* As kvpool_grow, for tokens that will be scheduled later: the blocks cannot be hit yet. */
bool kvpool_reserve(struct kvpool *p, struct kvchain *c, int64_t tok);
/* Takes n blocks without saying for whom: decode steps of a batch take blocks in bulk, and each
 * chain gets its share by kvpool_settle (and can be hit there only then) before it is looked at
 * again. false, nothing changed, if there are not enough. */
bool kvpool_take(struct kvpool *p, int64_t n);
/* tok: tokens in the chain's blocks, those taken in bulk included; never fewer than it was grown
 * to. */
void kvpool_settle(struct kvpool *p, struct kvchain *c, int64_t tok);
/* Gives everything back; full blocks of the tokens that were scheduled stay cached. dead: the
 * request has ended, so its private tail can never be hit again (it still takes its turn in the
 * eviction order). */
void kvpool_close(struct kvpool *p, struct kvchain *c, bool dead);

/* What kvpool_open would hit, changing nothing: hit tokens; *evictable gets the hit blocks that
 * are evictable now. The chain then grows to tok > max_tok tokens iff blocks_for(tok) - hit blocks
 * <= available - *evictable. */
int64_t kvpool_peek(const struct kvpool *p, const struct trace_req *r, int64_t max_tok,
                    int64_t *evictable);

/* Every counter against a recount, for tests: `loose` is the sum of own - in_nodes over live
 * chains, plus blocks taken by kvpool_take and not settled yet. */
bool kvpool_consistent(const struct kvpool *p, int64_t loose);

#endif
