/* engine/kvpool.c - see kvpool.h. SPDX-License-Identifier: Apache-2.0 */
#include "engine/kvpool.h"

#include <assert.h>
#include <string.h>

#include "base/rng.h"

enum { NONE = -1, MIN_ENTRY_LOG2 = 2 };

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
    if (!share) return;
    /* A node holds at least a block or is referred to by a chain; chains run out of nodes only if there are more
     * live segments than blocks, and then simply do not share (node_new returns NONE). */
    int64_t want = n_block + n_block / 4 + 64;
    if (want > INT32_MAX / 4) want = INT32_MAX / 4;
    p->cap_node = (int32_t)want;
    p->node = arena_array(a, (size_t)want, sizeof *p->node);
    uint32_t n = 64;
    while (n < (uint64_t)want) n *= 2;
    p->mask = n - 1;
    p->bucket = arena_array(a, n, sizeof *p->bucket);
    memset(p->bucket, 0xff, n * sizeof *p->bucket);
}

/* ---- nodes */

static int32_t node_find(const struct kvpool *p, uint64_t key)
{
    for (int32_t i = p->bucket[slot(p, key)]; i != NONE; i = p->node[i].hash_next)
        if (p->node[i].key == key) return i;
    return NONE;
}

static int32_t node_new(struct kvpool *p, uint64_t key)
{
    int32_t i = p->free_node;
    if (i != NONE) p->free_node = p->node[i].next;
    else if (p->top_node < p->cap_node) i = p->top_node++;
    else return NONE;
    uint32_t s = slot(p, key);
    p->node[i] = (struct kvnode){ .key = key, .ref = 1, .hash_next = p->bucket[s], .prev = NONE,
                                  .next = NONE, .written = true, .hashed = true };
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
    if (p->lru_tail != NONE) p->node[p->lru_tail].next = i;
    else p->lru_head = i;
    p->lru_tail = i;
    p->n_cached += p->node[i].cached;
}

static void lru_remove(struct kvpool *p, int32_t i)
{
    struct kvnode *n = &p->node[i];
    if (n->prev != NONE) p->node[n->prev].next = n->next;
    else p->lru_head = n->next;
    if (n->next != NONE) p->node[n->next].prev = n->prev;
    else p->lru_tail = n->prev;
    p->n_cached -= n->cached;
}

/* Turns the n least recently used cached blocks into plain ones. */
static void evict(struct kvpool *p, int64_t n)
{
    p->evicted_blocks += n;
    while (n > 0) {
        int32_t i = p->lru_head;
        int64_t k = p->node[i].cached < n ? p->node[i].cached : n;
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

static void entry_push(struct kvpool *p, struct kvchain *c, int32_t value)
{
    if (!c->entry || c->n_entry == 1 << c->cap_log2) {
        int want = c->entry ? c->cap_log2 + 1 : MIN_ENTRY_LOG2;
        int32_t *room = p->spare[want];
        if (room) memcpy(&p->spare[want], room, sizeof room);   /* the link stands in the array itself */
        else room = arena_array(p->arena, (size_t)1 << want, sizeof *room);
        if (c->entry) {
            memcpy(room, c->entry, (size_t)c->n_entry * sizeof *room);
            memcpy(c->entry, &p->spare[c->cap_log2], sizeof(int32_t *));
            p->spare[c->cap_log2] = c->entry;
        }
        c->entry = room;
        c->cap_log2 = want;
    }
    c->entry[c->n_entry++] = value;
}

static void entry_release(struct kvpool *p, struct kvchain *c)
{
    if (!c->entry) return;
    memcpy(c->entry, &p->spare[c->cap_log2], sizeof(int32_t *));
    p->spare[c->cap_log2] = c->entry;
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

static void node_claim(struct kvpool *p, int32_t i)
{
    if (p->node[i].ref++ == 0) lru_remove(p, i);
}

int64_t kvpool_open(struct kvpool *p, struct kvchain *c, const struct trace_req *r, int64_t max_tok)
{
    memset(c, 0, sizeof *c);
    c->seg = r->seg;
    c->n_seg = r->n_seg;
    c->private_key = private_key(r);
    p->asked_tok += max_tok;
    if (!p->share) return 0;
    int64_t most = max_tok / p->block_tok, start = 0;
    for (int j = 0; j <= c->n_seg && c->full < most; j++) {
        int64_t end = seg_end(p, c, j), span = end - start;
        if (span == 0) { entry_push(p, c, NONE); continue; }
        int32_t i = node_find(p, seg_key(c, j));
        if (i == NONE || p->node[i].cached == 0) break;
        int64_t hit = p->node[i].cached < span ? p->node[i].cached : span;
        if (hit > most - c->full) hit = most - c->full;
        node_claim(p, i);
        entry_push(p, c, i << 1);
        c->full += hit;
        if (c->full < end) break;
        start = end;
    }
    c->blocks = c->full;
    p->hit_tok += c->full * p->block_tok;
    return c->full * p->block_tok;
}

/* The entry that full block number c->full belongs to, resolved on first use. */
static int entry_at(struct kvpool *p, struct kvchain *c, int j, int64_t start)
{
    while (seg_end(p, c, j) <= c->full) j++;
    while (c->n_entry < j) entry_push(p, c, NONE);   /* segments too short to own a block */
    if (c->n_entry > j) {
        int32_t v = c->entry[j];
        if (v == NONE || (v & 1)) return j;
        struct kvnode *n = &p->node[v >> 1];         /* hit at open; extend it if nobody else does */
        if (!n->written && n->cached == c->full - start) {
            n->written = true;
            c->entry[j] = v | 1;
        }
        return j;
    }
    int32_t i = node_find(p, seg_key(c, j));
    if (i == NONE) {
        i = c->full == start ? node_new(p, seg_key(c, j)) : NONE;
        entry_push(p, c, i == NONE ? NONE : i << 1 | 1);
    } else if (!p->node[i].written && p->node[i].cached == c->full - start) {
        node_claim(p, i);
        p->node[i].written = true;
        entry_push(p, c, i << 1 | 1);
    } else {
        entry_push(p, c, NONE);                      /* a second copy of content that exists */
    }
    return j;
}

/* Assigns the full blocks of the first `tok` tokens to segments. */
static void assign(struct kvpool *p, struct kvchain *c, int64_t tok)
{
    int64_t want = tok / p->block_tok;
    if (!p->share) { c->full = want; return; }
    while (c->full < want) {
        int j = c->n_entry > 0 ? c->n_entry - 1 : 0;
        while (seg_end(p, c, j) <= c->full) j++;
        int64_t start = j > 0 ? seg_end(p, c, j - 1) : 0;
        j = entry_at(p, c, j, start);
        int64_t end = seg_end(p, c, j), k = (end < want ? end : want) - c->full;
        int32_t v = c->entry[j];
        if (v != NONE && (v & 1) && p->node[v >> 1].cached == c->full - start) {
            p->node[v >> 1].cached += k;
            c->in_nodes += k;
        }
        c->full += k;
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

bool kvpool_grow(struct kvpool *p, struct kvchain *c, int64_t tok)
{
    int64_t need = kvpool_blocks_for(p, tok) - c->blocks;
    if (need > 0) {
        if (!kvpool_take(p, need)) return false;
        c->blocks += need;
        c->own += need;
    }
    assign(p, c, tok);
    return true;
}

void kvpool_settle(struct kvpool *p, struct kvchain *c, int64_t tok)
{
    int64_t need = kvpool_blocks_for(p, tok) - c->blocks;
    if (need > 0) {
        c->blocks += need;
        c->own += need;
    }
    assign(p, c, tok);
}

/* The last reference to node i went away. */
static void node_idle(struct kvpool *p, int32_t i, bool anonymous)
{
    struct kvnode *n = &p->node[i];
    if (n->cached == 0) { node_drop(p, i); return; }
    if (!anonymous) { lru_append(p, i); return; }
    node_unhash(p, i);
    int32_t t = p->lru_tail;
    if (t != NONE && !p->node[t].hashed) {           /* runs of dead blocks are one node */
        p->node[t].cached += n->cached;
        p->n_cached += n->cached;
        node_drop(p, i);
        return;
    }
    lru_append(p, i);
}

void kvpool_close(struct kvpool *p, struct kvchain *c, bool dead)
{
    p->n_plain += c->own - c->in_nodes;
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

int64_t kvpool_peek(const struct kvpool *p, const struct trace_req *r, int64_t max_tok, int64_t *evictable)
{
    struct kvchain c = { .seg = r->seg, .n_seg = r->n_seg };
    int64_t most = max_tok / p->block_tok, start = 0, full = 0;
    c.private_key = private_key(r);
    *evictable = 0;
    if (!p->share) return 0;
    for (int j = 0; j <= c.n_seg && full < most; j++) {
        int64_t end = seg_end(p, &c, j), span = end - start;
        if (span == 0) continue;
        int32_t i = node_find(p, seg_key(&c, j));
        if (i == NONE || p->node[i].cached == 0) break;
        int64_t hit = p->node[i].cached < span ? p->node[i].cached : span;
        if (hit > most - full) hit = most - full;
        if (p->node[i].ref == 0) *evictable += p->node[i].cached;
        full += hit;
        if (full < end) break;
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
    for (int64_t b = 0; p->share && b <= (int64_t)p->mask; b++)
        for (int32_t i = p->bucket[b]; i != NONE; i = p->node[i].hash_next)
            if (p->node[i].ref > 0) in_use += p->node[i].cached;
    return cached == p->n_cached && p->n_plain >= 0 && kvpool_used(p) == in_use + loose;
}
