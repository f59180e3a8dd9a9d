/* engine/sched_cohort.c - groups of sequences that decode in lock step, with their sums.
 *
 * A member's context at the next step is its context on joining plus the steps since, so nothing
 * per member changes while the group decodes. SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <string.h>

#include "engine/sched_core.h"

static int64_t mod(int64_t x, int64_t m)
{
    int64_t r = x % m;
    return r < 0 ? r + m : r;
}

struct cohort *sched_cohort_new(struct sched *s)
{
    struct cohort *c = s->free_cohort;
    if (c) {
        s->free_cohort = c->next;
    } else {
        c = arena_alloc(s->arena, sizeof *c);
        if (s->paged) c->phase = arena_array(s->arena, (size_t)s->pool.block_tok, sizeof *c->phase);
    }
    c->n = c->n_live = c->n_irregular = c->steps = c->sum_ctx = c->max_off = c->t_emit_ns = 0;
    c->heap_n = 0;
    c->first = NULL;
    c->next = NULL;
    c->in_flight = false;
    return c;
}

void sched_cohort_free(struct sched *s, struct cohort *c)
{
    assert(c->n == 0);
    c->next = s->free_cohort;
    s->free_cohort = c;
}

void sched_cohort_idle(struct sched *s, struct cohort *c)
{
    c->next = NULL;
    if (s->idle_last)
        s->idle_last->next = c;
    else
        s->idle_first = c;
    s->idle_last = c;
}

struct cohort *sched_cohort_pop_idle(struct sched *s)
{
    struct cohort *c = s->idle_first;
    if (!c) return NULL;
    s->idle_first = c->next;
    if (!s->idle_first) s->idle_last = NULL;
    c->next = NULL;
    return c;
}

/* ---- finish heap: (finish step, id), so that members ending together end in order of id */

static bool heap_less(const struct cohort *c, int32_t i, int32_t j)
{
    if (c->finish[i] != c->finish[j]) return c->finish[i] < c->finish[j];
    return c->heap[i]->t.id < c->heap[j]->t.id;
}

static void heap_swap(struct cohort *c, int32_t i, int32_t j)
{
    struct sreq *r = c->heap[i];
    int64_t f = c->finish[i];
    c->heap[i] = c->heap[j];
    c->finish[i] = c->finish[j];
    c->heap[j] = r;
    c->finish[j] = f;
    c->heap[i]->heap_at = i;
    c->heap[j]->heap_at = j;
}

static void heap_up(struct cohort *c, int32_t i)
{
    for (; i > 0 && heap_less(c, i, (i - 1) / 2); i = (i - 1) / 2) heap_swap(c, i, (i - 1) / 2);
}

static void heap_down(struct cohort *c, int32_t i)
{
    for (;;) {
        int32_t k = 2 * i + 1;
        if (k >= c->heap_n) return;
        if (k + 1 < c->heap_n && heap_less(c, k + 1, k)) k++;
        if (!heap_less(c, k, i)) return;
        heap_swap(c, i, k);
        i = k;
    }
}

static void heap_push(struct sched *s, struct cohort *c, struct sreq *r, int64_t finish)
{
    if (c->heap_n == c->heap_cap) {
        int32_t cap = c->heap_cap ? 2 * c->heap_cap : 16;
        struct sreq **h = arena_array(s->arena, (size_t)cap, sizeof *h);
        int64_t *f = arena_array(s->arena, (size_t)cap, sizeof *f);
        if (c->heap_n) {
            memcpy(h, c->heap, (size_t)c->heap_n * sizeof *h);
            memcpy(f, c->finish, (size_t)c->heap_n * sizeof *f);
        }
        c->heap = h;
        c->finish = f;
        c->heap_cap = cap;
    }
    c->heap[c->heap_n] = r;
    c->finish[c->heap_n] = finish;
    r->heap_at = c->heap_n++;
    heap_up(c, r->heap_at);
}

static void heap_remove(struct cohort *c, int32_t i)
{
    int32_t last = --c->heap_n;
    c->heap[i]->heap_at = -1;
    if (i == last) return;
    c->heap[i] = c->heap[last];
    c->finish[i] = c->finish[last];
    c->heap[i]->heap_at = i;
    heap_up(c, i);
    heap_down(c, c->heap[i]->heap_at);
}

struct sreq *sched_cohort_first_due(const struct cohort *c)
{
    return c->heap_n ? c->heap[0] : NULL;
}

void sched_cohort_heap_pop(struct cohort *c)
{
    heap_remove(c, 0);
    c->n_live--;
}

/* ---- members */

void sched_cohort_add(struct sched *s, struct cohort *c, struct sreq *r)
{
    int64_t ctx = r->computed + 1, off = ctx - c->steps;
    if (c->n == 0 || off > c->max_off) c->max_off = off;
    c->n++;
    c->n_live++;
    c->sum_ctx += ctx;
    if (s->paged && !r->reserved) c->phase[mod(r->computed - c->steps, s->pool.block_tok)]++;
    if (r->irregular) c->n_irregular++;
    r->join_step = c->steps;
    r->cohort = c;
    r->state = SREQ_DECODE;
    r->c_prev = NULL;
    r->c_next = c->first;
    if (c->first) c->first->c_prev = r;
    c->first = r;
    heap_push(s, c, r, c->steps + r->t.n_out - r->made);
}

static void find_longest(struct cohort *c)
{
    c->max_off = INT64_MIN;
    for (const struct sreq *r = c->first; r; r = r->c_next) {
        int64_t off = r->computed + 1 - r->join_step;
        if (off > c->max_off) c->max_off = off;
    }
    if (!c->first) c->max_off = 0;
}

void sched_cohort_remove(struct sched *s, struct cohort *c, struct sreq *r)
{
    int64_t off = r->computed + 1 - r->join_step, done = c->steps - r->join_step;
    if (r->heap_at >= 0) {
        heap_remove(c, r->heap_at);
        c->n_live--;
    }
    if (s->paged && !r->reserved) c->phase[mod(r->computed - r->join_step, s->pool.block_tok)]--;
    c->n--;
    c->sum_ctx -= off + c->steps;
    if (r->irregular) c->n_irregular--;
    if (r->c_prev)
        r->c_prev->c_next = r->c_next;
    else
        c->first = r->c_next;
    if (r->c_next) r->c_next->c_prev = r->c_prev;
    r->c_prev = r->c_next = NULL;
    r->cohort = NULL;
    if (off == c->max_off) find_longest(c);
    r->computed += done;
    if (r->state == SREQ_DECODE) r->made += (int32_t)done;
}

int64_t sched_cohort_need(const struct sched *s, const struct cohort *c, int64_t ahead)
{
    return s->paged ? c->phase[mod(-(c->steps + ahead), s->pool.block_tok)] : 0;
}

int64_t sched_cohort_need_upto(const struct sched *s, const struct cohort *c, int64_t k)
{
    if (!s->paged || k <= 1) return 0;
    int64_t b = s->pool.block_tok, cycles = (k - 1) / b, rest = (k - 1) % b, sum = 0;
    if (cycles > 0) {
        int64_t all = 0;
        for (int64_t i = 0; i < b; i++) all += c->phase[i];
        sum = cycles * all;
    }
    for (int64_t i = 1; i <= rest; i++) sum += sched_cohort_need(s, c, i);
    return sum;
}
