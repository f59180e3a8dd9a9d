/* engine/kvmap.h - the numbers behind a pool that counts: which KV block of the device holds what.
 *
 * engine/kvpool.h decides how many blocks a chain holds and which it shares; a map attached to the
 * pool (kvpool.map) follows each of its moves with block numbers, so that an engine can address
 * memory. A number is in exactly one place: free, in the table of the one chain that owns it, or in
 * a node's list (and then also in the tables of the chains that use it). The simulator has no map.
 *
 * Blocks that the pool hands out in bulk (kvpool_take) get their numbers when the caller asks, with
 * kvmap_cover, before the step that writes them. Memory comes from the arena and is reused: nothing
 * is taken once the largest number of chains has been seen. SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_KVMAP_H
#define ENGINE_KVMAP_H

#include <stdint.h>

#include "base/arena.h"

struct kvmap_list { /* of blocks, linked both ways; -1: empty */
    int32_t first, last;
};

struct kvmap_table {
    int32_t *block; /* [per_chain], in order of position */
    int32_t n;
    int32_t next_free; /* table, -1 ends */
};

struct kvmap {
    int32_t n_block, n_free, per_chain; /* per_chain: blocks of the longest chain */
    int32_t *next, *prev;               /* [n_block] within a list */
    uint8_t *held;                      /* [n_block] 1: in a node's list */
    int32_t free_first;
    struct kvmap_list *node; /* [cap_node] by node of the pool */
    int32_t cap_node;
    struct kvmap_table *table; /* [cap_table] */
    int32_t n_table, cap_table, free_table;
    struct arena *arena;
};

/* n_block as the pool has it; per_chain: blocks of the longest prompt and output. */
void kvmap_init(struct kvmap *m, int32_t n_block, int32_t per_chain, struct arena *a);

/* Table `id` holds at least n blocks: the missing ones are taken from the free ones, of which there
 * must be as many (the pool has counted them off before). */
void kvmap_cover(struct kvmap *m, int32_t id, int64_t n);
static inline const struct kvmap_table *kvmap_at(const struct kvmap *m, int32_t id)
{
    return &m->table[id];
}

/* ---- for engine/kvpool.c */
int32_t kvmap_open(struct kvmap *m); /* an empty table */
void kvmap_close(struct kvmap *m, int32_t id);
void kvmap_more_nodes(struct kvmap *m, int32_t cap_node);
/* The first n blocks of a node go on the table as well. */
void kvmap_found(struct kvmap *m, int32_t id, int32_t node, int64_t n);
/* Blocks [at, at + n) of the table are from now on the node's, behind those it has. */
void kvmap_hold(struct kvmap *m, int32_t id, int32_t node, int64_t at, int64_t n);
void kvmap_trim(struct kvmap *m, int32_t node, int64_t n); /* its last n become free */
struct kvmap_list kvmap_detach(struct kvmap *m, int32_t node);
void kvmap_attach(struct kvmap *m, int32_t node, struct kvmap_list l); /* behind those it has */
/* Blocks of the table that no node holds. */
struct kvmap_list kvmap_loose(struct kvmap *m, int32_t id);
void kvmap_free(struct kvmap *m, struct kvmap_list l);

#endif
