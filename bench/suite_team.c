/* bench/suite_team.c - see suite_team.h. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* sched_setaffinity, madvise */
#include "bench/suite_team.h"

#include <hwloc.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/bell.h"

enum { MAX_TEAM = 8, HUGE_BYTES = 2 << 20, DEFAULT_CACHE = 32 << 20 };

struct suite_micro {
    struct {
        struct team *t;
        cpu_set_t mask; /* where it has put the caller */
        int n;
    } team[MAX_TEAM];
    int n_team;
    void *mem[SUITE_N_USE];
};

static struct suite_micro *micro_of(struct suite *s)
{
    if (!s->micro) s->micro = arena_alloc(&s->arena, sizeof *s->micro);
    return s->micro;
}

struct team *suite_team(struct suite *s, int n, struct err *e)
{
    struct suite_micro *m = micro_of(s);
    int i = 0;
    while (i < m->n_team && m->team[i].n != n) i++;
    if (i < m->n_team) {
        sched_setaffinity(0, sizeof m->team[i].mask, &m->team[i].mask);
        return m->team[i].t;
    }
    if (i == MAX_TEAM) {
        err_set(e, ST_DEVICE, "too many teams of threads");
        return NULL;
    }
    suite_unpin(s);
    m->team[i].t = team_open(n, n <= s->cpus ? 0 : -1, bell_spin_max(n, s->cpus), e);
    if (!m->team[i].t) return NULL;
    sched_getaffinity(0, sizeof m->team[i].mask, &m->team[i].mask);
    m->team[i].n = n;
    m->n_team++;
    return m->team[i].t;
}

/* sysconf() knows only caches of the whole package, of which a virtual machine may have a part. */
size_t suite_cache_look(void)
{
    hwloc_topology_t h;
    size_t n = 0;
    if (hwloc_topology_init(&h) != 0) return DEFAULT_CACHE;
    hwloc_obj_t x = NULL;
    bool loaded = hwloc_topology_load(h) == 0;
    while (loaded && (x = hwloc_get_next_obj_by_type(h, HWLOC_OBJ_L3CACHE, x)))
        n += (size_t)x->attr->cache.size;
    hwloc_topology_destroy(h);
    return n > 0 ? n : DEFAULT_CACHE;
}

size_t suite_memory_bytes(const struct suite *s)
{
    size_t n = 6 * s->cache_bytes, most = (size_t)768 << 20;
    if (most < 3 * s->cache_bytes) most = 3 * s->cache_bytes;
    if (n > most) n = most;
    if (s->o.kind == SUITE_MODEL) n /= 2; /* it is read only, no third of it by itself */
    return (n + 3 * HUGE_BYTES - 1) / (3 * HUGE_BYTES) * (3 * HUGE_BYTES);
}

void *suite_memory(struct suite *s, enum suite_use use, struct err *e)
{
    struct suite_micro *m = micro_of(s);
    size_t n = suite_memory_bytes(s);
    if (m->mem[use]) return m->mem[use];
    m->mem[use] = aligned_alloc(HUGE_BYTES, n);
    if (!m->mem[use]) {
        err_set(e, ST_DEVICE, "not enough memory for %.0f MB", 1e-6 * (double)n);
        return NULL;
    }
    (void)madvise(m->mem[use], n, MADV_HUGEPAGE);
    memset(m->mem[use], 0, n);
    return m->mem[use];
}

int suite_threads(const struct suite *s, int out[8])
{
    int n = 0;
    for (int t = 1; t < s->cpus && n < 7; t *= 2) out[n++] = t;
    out[n++] = s->cpus;
    return n;
}

void suite_micro_release(struct suite *s)
{
    struct suite_micro *m = s->micro;
    if (!m) return;
    while (m->n_team > 0) team_close(m->team[--m->n_team].t);
    suite_unpin(s);
    for (int i = 0; i < SUITE_N_USE; i++) free(m->mem[i]);
    s->micro = NULL;
}
