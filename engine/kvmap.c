/* engine/kvmap.c - see kvmap.h. SPDX-License-Identifier: Apache-2.0 */
#include "engine/kvmap.h"

#include <assert.h>
#include <string.h>

enum { NONE = -1, MIN_TABLE = 16 };
static const struct kvmap_list empty = { NONE, NONE };

void kvmap_init(struct kvmap *m, int32_t n_block, int32_t per_chain, struct arena *a)
{
    memset(m, 0, sizeof *m);
    m->n_block = m->n_free = n_block;
    m->per_chain = per_chain;
    m->arena = a;
    m->next = arena_array(a, (size_t)n_block, sizeof *m->next);
    m->prev = arena_array(a, (size_t)n_block, sizeof *m->prev);
    m->held = arena_array(a, (size_t)n_block, sizeof *m->held);
    for (int32_t i = 0; i < n_block; i++) m->next[i] = i + 1 < n_block ? i + 1 : NONE;
    m->free_first = 0;
    m->free_table = NONE;
}

void kvmap_more_nodes(struct kvmap *m, int32_t cap_node)
{
    struct kvmap_list *node = arena_array(m->arena, (size_t)cap_node, sizeof *node);
    if (m->cap_node) memcpy(node, m->node, (size_t)m->cap_node * sizeof *node);
    for (int32_t i = m->cap_node; i < cap_node; i++) node[i] = empty;
    m->node = node;
    m->cap_node = cap_node;
}

/* ---- tables */

int32_t kvmap_open(struct kvmap *m)
{
    int32_t id = m->free_table;
    if (id != NONE) {
        m->free_table = m->table[id].next_free;
        m->table[id].n = 0;
        return id;
    }
    if (m->n_table == m->cap_table) {
        int32_t cap = m->cap_table ? 2 * m->cap_table : MIN_TABLE;
        struct kvmap_table *table = arena_array(m->arena, (size_t)cap, sizeof *table);
        if (m->n_table) memcpy(table, m->table, (size_t)m->n_table * sizeof *table);
        m->table = table;
        m->cap_table = cap;
    }
    id = m->n_table++;
    m->table[id].block = arena_array(m->arena, (size_t)m->per_chain, sizeof(int32_t));
    return id;
}

void kvmap_close(struct kvmap *m, int32_t id)
{
    m->table[id].n = 0;
    m->table[id].next_free = m->free_table;
    m->free_table = id;
}

void kvmap_cover(struct kvmap *m, int32_t id, int64_t n)
{
    struct kvmap_table *t = &m->table[id];
    assert(n <= m->per_chain);
    while (t->n < n) {
        int32_t b = m->free_first;
        assert(b != NONE);
        m->free_first = m->next[b];
        m->n_free--;
        m->held[b] = 0;
        t->block[t->n++] = b;
    }
}

/* ---- lists of nodes */

static void push(struct kvmap *m, struct kvmap_list *l, int32_t b)
{
    m->next[b] = NONE;
    m->prev[b] = l->last;
    if (l->last != NONE)
        m->next[l->last] = b;
    else
        l->first = b;
    l->last = b;
}

void kvmap_found(struct kvmap *m, int32_t id, int32_t node, int64_t n)
{
    struct kvmap_table *t = &m->table[id];
    int32_t b = m->node[node].first;
    for (; n > 0; n--, b = m->next[b]) {
        assert(b != NONE && t->n < m->per_chain);
        t->block[t->n++] = b;
    }
}

void kvmap_hold(struct kvmap *m, int32_t id, int32_t node, int64_t at, int64_t n)
{
    const struct kvmap_table *t = &m->table[id];
    assert(at + n <= t->n);
    for (int64_t i = at; i < at + n; i++) {
        int32_t b = t->block[i];
        assert(!m->held[b]);
        m->held[b] = 1;
        push(m, &m->node[node], b);
    }
}

static void release(struct kvmap *m, int32_t b)
{
    m->held[b] = 0;
    m->next[b] = m->free_first;
    m->free_first = b;
    m->n_free++;
}

void kvmap_trim(struct kvmap *m, int32_t node, int64_t n)
{
    struct kvmap_list *l = &m->node[node];
    for (; n > 0; n--) {
        int32_t b = l->last;
        assert(b != NONE);
        l->last = m->prev[b];
        if (l->last != NONE)
            m->next[l->last] = NONE;
        else
            l->first = NONE;
        release(m, b);
    }
}

struct kvmap_list kvmap_detach(struct kvmap *m, int32_t node)
{
    struct kvmap_list l = m->node[node];
    m->node[node] = empty;
    return l;
}

void kvmap_attach(struct kvmap *m, int32_t node, struct kvmap_list l)
{
    for (int32_t b = l.first, next; b != NONE; b = next) {
        next = m->next[b];
        m->held[b] = 1;
        push(m, &m->node[node], b);
    }
}

struct kvmap_list kvmap_loose(struct kvmap *m, int32_t id)
{
    const struct kvmap_table *t = &m->table[id];
    struct kvmap_list l = empty;
    for (int32_t i = 0; i < t->n; i++)
        if (!m->held[t->block[i]]) push(m, &l, t->block[i]);
    return l;
}

void kvmap_free(struct kvmap *m, struct kvmap_list l)
{
    for (int32_t b = l.first, next; b != NONE; b = next) {
        next = m->next[b];
        release(m, b);
    }
}
