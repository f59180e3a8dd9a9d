/* traces/idmap.c - open addressing with linear probing; at most half full, so probes are short.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "base/arena.h"
#include "traces/trace_priv.h"

static size_t slot_of(const struct idmap *m, uint64_t key)
{
    size_t i = (size_t)mix64(key) & (m->cap - 1);
    while (m->used[i] && m->key[i] != key) i = (i + 1) & (m->cap - 1);
    return i;
}

static void grow(struct idmap *m)
{
    struct idmap old = *m;
    m->cap = old.cap ? 2 * old.cap : 64;
    m->key = mem_zalloc(m->cap, sizeof *m->key);
    m->value = mem_zalloc(m->cap, sizeof *m->value);
    m->used = mem_zalloc(m->cap, sizeof *m->used);
    m->n = 0;
    for (size_t i = 0; i < old.cap; i++)
        if (old.used[i]) idmap_put(m, old.key[i], old.value[i]);
    idmap_release(&old);
}

void idmap_release(struct idmap *m)
{
    free(m->key);
    free(m->value);
    free(m->used);
    *m = (struct idmap){ 0 };
}

bool idmap_get(const struct idmap *m, uint64_t key, int64_t *value)
{
    if (m->n == 0) return false;
    size_t i = slot_of(m, key);
    if (m->used[i] && value) *value = m->value[i];
    return m->used[i];
}

bool idmap_put(struct idmap *m, uint64_t key, int64_t value)
{
    if (2 * (m->n + 1) > m->cap) grow(m);
    size_t i = slot_of(m, key);
    bool fresh = !m->used[i];
    m->key[i] = key;
    m->value[i] = value;
    m->used[i] = true;
    m->n += fresh;
    return fresh;
}

void idmap_drop(struct idmap *m, uint64_t key)
{
    if (m->n == 0) return;
    size_t mask = m->cap - 1, hole = slot_of(m, key);
    if (!m->used[hole]) return;
    m->n--;
    /* Close the hole, so that no probe stops short: move up each later entry of the run whose own
     * place is not between the hole and it (Knuth, TAOCP 3, 6.4, algorithm R). */
    for (size_t i = (hole + 1) & mask; m->used[i]; i = (i + 1) & mask) {
        size_t home = (size_t)mix64(m->key[i]) & mask;
        if (((i - home) & mask) < ((i - hole) & mask)) continue;
        m->key[hole] = m->key[i];
        m->value[hole] = m->value[i];
        hole = i;
    }
    m->used[hole] = false;
}
