/* engine/kvpool.c - see kvpool.h. SPDX-License-Identifier: Apache-2.0 */
#include "engine/kvpool.h"

#include <assert.h>
#include <string.h>

#include "base/rng.h"

enum { NONE = -1, MIN_ENTRY_LOG2 = 2, MIN_NODE = 64, MAX_NODE = INT32_MAX / 4 };

static uint32_t slot(const struct kvpool *p, uint64_t key)
{
    return (uint32_t)(mix64(key) >> 32) & p->mask;
}

void kvpool_init(struct kvpool *p, int64_t n_block, int block_tok, bool share, struct arena *a)
{
    assert(n_block >= 1 && block_tok >= 1);
    memset(p, 0, sizeof *p);
    p->n_block = p->n_plain = n_block;
    p->block_tok = block_tok;
    p->share = share;
    p->arena = a;
    p->free_node = p->lru_head = p->lru_tail = NONE;
    p->spare = arena_array(a, 32, sizeof *p->spare);
}

void kvpool_number(struct kvpool *p, struct kvmap *m)
{
    assert(p->n_plain == p->n_block && m->n_block == p->n_block);
    p->map = m;
    if (p->cap_node) kvmap_more_nodes(m, p->cap_node);
}

/* ---- nodes */

static int32_t node_find(const struct kvpool *p, uint64_t key)
{
    if (p->cap_node == 0) return NONE;
    for (int32_t i = p->bucket[slot(p, key)]; i != NONE; i = p->node[i].hash_next)
        if (p->node[i].key == key) return i;
    return NONE;
}

/* Twice the nodes and buckets. A node holds a block or is referred to by a live chain, so their
 * number is at most blocks and live segments together. */
static bool more_nodes(struct kvpool *p)
{
    if (p->cap_node >= MAX_NODE) return false;
    int32_t cap = p->cap_node ? 2 * p->cap_node : MIN_NODE;
    struct kvnode *node = arena_array(p->arena, (size_t)cap, sizeof *node);
    if (p->top_node) memcpy(node, p->node, (size_t)p->top_node * sizeof *node);
    p->node = node;
    p->cap_node = cap;
    if (p->map) kvmap_more_nodes(p->map, cap);
    p->mask = (uint32_t)cap - 1;
    p->bucket = arena_array(p->arena, (size_t)cap, sizeof *p->bucket);
    memset(p->bucket, 0xff, (size_t)cap * sizeof *p->bucket);
    for (int32_t i = 0; i < p->top_node; i++) { /* none is free, or there were no need for more */
        if (!node[i].hashed) continue;
        uint32_t s = slot(p, node[i].key);
        node[i].hash_next = p->bucket[s];
        p->bucket[s] = i;
    }
    return true;
}

static int32_t node_alloc(struct kvpool *p)
{
    int32_t i = p->free_node;
    if (i != NONE)
        p->free_node = p->node[i].next;
    else if (p->top_node < p->cap_node || more_nodes(p))
        i = p->top_node++;
    return i;
}

static int32_t node_new(struct kvpool *p, uint64_t key)
{
    int32_t i = node_alloc(p);
    if (i == NONE) return NONE;
    uint32_t s = slot(p, key);
    p->node[i] = (struct kvnode){ .key = key,
                                  .ref = 1,
                                  .hash_next = p->bucket[s],
                                  .prev = NONE,
                                  .next = NONE,
                                  .written = true,
                                  .hashed = true };
    p->bucket[s] = i;
    return i;
}

static void node_unhash(struct kvpool *p, int32_t i)
{
    int32_t *at = &p->bucket[slot(p, p->node[i].key)];
    while (*at != i) at = &p->node[*at].hash_next;
    *at = p->node[i].hash_next;
    p->node[i].hashed = false;
}

static void node_drop(struct kvpool *p, int32_t i)
{
    if (p->node[i].hashed) node_unhash(p, i);
    p->node[i].next = p->free_node;
    p->free_node = i;
}

static void lru_append(struct kvpool *p, int32_t i)
{
    p->node[i].prev = p->lru_tail;
    p->node[i].next = NONE;
    if (p->lru_tail != NONE)
        p->node[p->lru_tail].next = i;
    else
        p->lru_head = i;
    p->lru_tail = i;
    p->n_cached += p->node[i].cached;
}

static void lru_remove(struct kvpool *p, int32_t i)
{
    struct kvnode *n = &p->node[i];
    if (n->prev != NONE)
        p->node[n->prev].next = n->next;
    else
        p->lru_head = n->next;
    if (n->next != NONE)
        p->node[n->next].prev = n->prev;
    else
        p->lru_tail = n->prev;
    p->n_cached -= n->cached;
}

/* Turns the n least recently used cached blocks into plain ones. */
static void evict(struct kvpool *p, int64_t n)
{
    p->evicted_blocks += n;
    while (n > 0) {
        int32_t i = p->lru_head;
        int64_t k = p->node[i].cached < n ? p->node[i].cached : n;
        if (p->map) kvmap_trim(p->map, i, k);
        p->node[i].cached -= k;
        p->n_cached -= k;
        p->n_plain += k;
        n -= k;
        if (p->node[i].cached == 0) {
            lru_remove(p, i);
            node_drop(p, i);
        }
    }
}

/* ---- chains */

/* A spare array holds the link to the next one of its size. */
static void *spare_take(struct kvpool *p, int log2)
{
    void *room = p->spare[log2];
    if (room)
        memcpy(&p->spare[log2], room, sizeof(int32_t *));
    else
        room = arena_array(p->arena, (size_t)1 << log2, sizeof(int32_t));
    return room;
}

static void spare_give(struct kvpool *p, void *room, int log2)
{
    memcpy(room, &p->spare[log2], sizeof(int32_t *));
    p->spare[log2] = room;
}

static void entry_push(struct kvpool *p, struct kvchain *c, int32_t value)
{
    if (!c->entry || c->n_entry == 1 << c->cap_log2) {
        int want = c->entry ? c->cap_log2 + 1 : MIN_ENTRY_LOG2;
        int32_t *room = spare_take(p, want);
        if (c->entry) {
            memcpy(room, c->entry, (size_t)c->n_entry * sizeof *room);
            spare_give(p, c->entry, c->cap_log2);
        }
        c->entry = room;
        c->cap_log2 = want;
    }
    c->entry[c->n_entry++] = value;
}

static void entry_release(struct kvpool *p, struct kvchain *c)
{
    if (c->entry) spare_give(p, c->entry, c->cap_log2);
    c->entry = NULL;
}

/* First block past segment j, in blocks from the chain's start; the private tail has no end. */
static int64_t seg_end(const struct kvpool *p, const struct kvchain *c, int j)
{
    return j < c->n_seg ? c->seg[j].end_tok / p->block_tok : INT64_MAX;
}

static uint64_t seg_key(const struct kvchain *c, int j)
{
    return j < c->n_seg ? c->seg[j].key : c->private_key;
}

static uint64_t private_key(const struct trace_req *r)
{
    return mix_pair(0x70726976617465u, (uint64_t)r->id);
}

/* Refers to node i. An idle one keeps only its first `keep` blocks: those after them would be
 * second copies of what the chain is about to compute. */
static void node_claim(struct kvpool *p, int32_t i, int64_t keep)
{
    struct kvnode *n = &p->node[i];
    if (n->ref++ > 0) return;
    lru_remove(p, i);
    if (n->cached <= keep) return;
    if (p->map) kvmap_trim(p->map, i, n->cached - keep);
    p->n_plain += n->cached - keep;
    p->evicted_blocks += n->cached - keep;
    n->cached = keep;
}

/* One past the last block that a chain which still computes token max_tok finds in node i, whose
 * segment has the blocks [start, end). Only whole blocks of the first max_tok tokens are hits; if
 * token max_tok fills one more and nobody uses it, it is taken along, to be computed again in
 * place. */
static int64_t found_end(const struct kvpool *p, int32_t i, int64_t start, int64_t end,
                         int64_t max_tok)
{
    if (i == NONE) return start;
    const struct kvnode *n = &p->node[i];
    int64_t most = (n->ref == 0 ? max_tok + 1 : max_tok) / p->block_tok;
    if (most < end) end = most;
    return start + n->cached < end ? start + n->cached : end;
}

int64_t kvpool_open(struct kvpool *p, struct kvchain *c, const struct trace_req *r, int64_t max_tok)
{
    memset(c, 0, sizeof *c);
    c->seg = r->seg;
    c->n_seg = r->n_seg;
    c->private_key = private_key(r);
    if (p->map) c->table = kvmap_open(p->map) + 1;
    p->asked_tok += max_tok;
    if (!p->share) return 0;
    int64_t start = 0, most = max_tok / p->block_tok;
    for (int j = 0; j <= c->n_seg; j++) {
        int64_t end = seg_end(p, c, j);
        if (end == start) {
            entry_push(p, c, NONE);
            continue;
        }
        int32_t i = node_find(p, seg_key(c, j));
        int64_t top = found_end(p, i, start, end, max_tok);
        if (top <= start) break;
        node_claim(p, i, top - start);
        entry_push(p, c, i << 1);
        if (p->map) kvmap_found(p->map, c->table - 1, i, top - start);
        c->blocks = top;
        if (top < end) break;
        start = end;
    }
    c->full = c->blocks < most ? c->blocks : most;
    p->hit_tok += c->full * p->block_tok;
    return c->full * p->block_tok;
}

/* The node of segment j if this chain writes it or may begin to, else NONE. Nobody else may be
 * writing it; content of a node that nobody uses gives way to the chain's own. */
static int32_t node_to_write(struct kvpool *p, struct kvchain *c, int j)
{
    while (c->n_entry <= j) entry_push(p, c, NONE);
    int32_t v = c->entry[j];
    if (v != NONE && (v & 1)) return v >> 1;
    int32_t i = v == NONE ? node_find(p, seg_key(c, j)) : v >> 1;
    if (i == NONE) {
        i = node_new(p, seg_key(c, j));
        if (i == NONE) return NONE;
    } else if (v == NONE) {
        if (p->node[i].ref > 0) return NONE;
        node_claim(p, i, 0);
    } else if (p->node[i].written) {
        return NONE;
    }
    p->node[i].written = true;
    c->entry[j] = i << 1 | 1;
    return i;
}

/* Assigns the full blocks of the first `tok` tokens to segments. */
static void assign(struct kvpool *p, struct kvchain *c, int64_t tok)
{
    int64_t want = tok / p->block_tok;
    if (!p->share) c->full = want > c->full ? want : c->full;
    while (c->full < want) {
        int j = c->n_entry > 0 ? c->n_entry - 1 : 0;
        while (j > 0 && seg_end(p, c, j - 1) > c->full) j--;
        while (seg_end(p, c, j) <= c->full) j++;
        int64_t start = j > 0 ? seg_end(p, c, j - 1) : 0, end = seg_end(p, c, j);
        c->full = end < want ? end : want;
        int32_t i = node_to_write(p, c, j);
        if (i == NONE) continue; /* a second copy of content that is in use */
        int64_t more = c->full - start - p->node[i].cached;
        if (more <= 0) continue;
        if (p->map) kvmap_hold(p->map, c->table - 1, i, start + p->node[i].cached, more);
        p->node[i].cached += more;
        c->in_nodes += more;
    }
}

bool kvpool_take(struct kvpool *p, int64_t n)
{
    if (n > p->n_plain) {
        if (n > kvpool_available(p)) return false;
        evict(p, n - p->n_plain);
    }
    p->n_plain -= n;
    return true;
}

bool kvpool_reserve(struct kvpool *p, struct kvchain *c, int64_t tok)
{
    int64_t need = kvpool_blocks_for(p, tok) - c->blocks;
    if (need <= 0) return true;
    if (!kvpool_take(p, need)) return false;
    c->blocks += need;
    c->own += need;
    if (p->map) kvmap_cover(p->map, c->table - 1, c->blocks);
    return true;
}

bool kvpool_grow(struct kvpool *p, struct kvchain *c, int64_t tok)
{
    if (!kvpool_reserve(p, c, tok)) return false;
    assign(p, c, tok);
    return true;
}

void kvpool_settle(struct kvpool *p, struct kvchain *c, int64_t tok)
{
    int64_t need = kvpool_blocks_for(p, tok) - c->blocks;
    if (need > 0) {
        c->blocks += need;
        c->own += need;
        if (p->map) kvmap_cover(p->map, c->table - 1, c->blocks);
    }
    assign(p, c, tok);
}

/* n freed blocks that nobody can find: they wait for their turn to be taken as cached ones do.
 * list: their numbers, of a pool with a map. */
static void append_dead(struct kvpool *p, int64_t n, struct kvmap_list list)
{
    int32_t i = p->lru_tail;
    if (n <= 0) return;
    if (i != NONE && !p->node[i].hashed) { /* runs of dead blocks are one node */
        p->node[i].cached += n;
        p->n_cached += n;
    } else if ((i = node_alloc(p)) != NONE) {
        p->node[i] = (struct kvnode){ .cached = n, .hash_next = NONE };
        lru_append(p, i);
    } else {
        p->n_plain += n;
        if (p->map) kvmap_free(p->map, list);
        return;
    }
    if (p->map) kvmap_attach(p->map, i, list);
}

/* The last reference to node i went away. */
static void node_idle(struct kvpool *p, int32_t i, bool dead)
{
    int64_t n = p->node[i].cached;
    if (n > 0 && !dead) {
        lru_append(p, i);
        return;
    }
    struct kvmap_list list = { NONE, NONE };
    if (p->map) list = kvmap_detach(p->map, i);
    node_drop(p, i);
    append_dead(p, n, list);
}

void kvpool_close(struct kvpool *p, struct kvchain *c, bool dead)
{
    struct kvmap_list list = { NONE, NONE };
    if (p->map && c->table) list = kvmap_loose(p->map, c->table - 1);
    if (p->share) {
        append_dead(p, c->own - c->in_nodes, list); /* the partial last block, second copies */
    } else {
        p->n_plain += c->own;
        if (p->map) kvmap_free(p->map, list);
    }
    if (p->map && c->table) kvmap_close(p->map, c->table - 1);
    for (int j = c->n_entry - 1; j >= 0; j--) {
        int32_t v = c->entry[j];
        if (v == NONE) continue;
        struct kvnode *n = &p->node[v >> 1];
        if (v & 1) n->written = false;
        if (--n->ref == 0) node_idle(p, v >> 1, dead && j == c->n_seg);
    }
    entry_release(p, c);
    memset(c, 0, sizeof *c);
}

int64_t kvpool_peek(const struct kvpool *p, const struct trace_req *r, int64_t max_tok,
                    int64_t *evictable)
{
    struct kvchain c = { .seg = r->seg, .n_seg = r->n_seg, .private_key = private_key(r) };
    int64_t start = 0, full = 0, most = max_tok / p->block_tok;
    *evictable = 0;
    if (!p->share) return 0;
    for (int j = 0; j <= c.n_seg && full < most; j++) {
        int64_t end = seg_end(p, &c, j);
        if (end == start) continue;
        int32_t i = node_find(p, seg_key(&c, j));
        int64_t top = found_end(p, i, start, end, max_tok);
        if (top <= start) break;
        full = top < most ? top : most;
        if (p->node[i].ref == 0) *evictable += full - start;
        if (top < end) break;
        start = end;
    }
    return full * p->block_tok;
}

bool kvpool_consistent(const struct kvpool *p, int64_t loose)
{
    int64_t cached = 0, n_lru = 0, in_use = 0;
    for (int32_t i = p->lru_head; i != NONE; i = p->node[i].next) {
        if (p->node[i].ref != 0 || p->node[i].cached <= 0 || ++n_lru > p->cap_node) return false;
        cached += p->node[i].cached;
    }
    for (int64_t b = 0; b < p->cap_node; b++)
        for (int32_t i = p->bucket[b]; i != NONE; i = p->node[i].hash_next)
            if (p->node[i].ref > 0) in_use += p->node[i].cached;
    return cached == p->n_cached && p->n_plain >= 0 && kvpool_used(p) == in_use + loose;
}
