/* engine/desk.c - see desk.h. SPDX-License-Identifier: Apache-2.0 */
#include "engine/desk.h"

#include <string.h>
#include <time.h>

void desk_init(struct desk *d, struct trace *t, int router, int n_replica, int32_t vocab,
               uint64_t seed)
{
    pthread_condattr_t clock;
    memset(d, 0, sizeof *d);
    arena_init(&d->arena);
    pthread_mutex_init(&d->lock, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    d->trace = t;
    d->router = (struct router){ .kind = router, .n = n_replica };
    d->tray = arena_array(&d->arena, (size_t)n_replica, sizeof *d->tray);
    d->load = arena_array(&d->arena, (size_t)n_replica, sizeof *d->load);
    for (int i = 0; i < n_replica; i++) pthread_cond_init(&d->tray[i].moved, &clock);
    pthread_condattr_destroy(&clock);
    prompt_init(&d->prompt, vocab, seed);
    d->has_next = trace_next(t, &d->next) != 0;
}

void desk_release(struct desk *d)
{
    prompt_release(&d->prompt);
    for (int i = 0; i < d->router.n; i++) pthread_cond_destroy(&d->tray[i].moved);
    pthread_mutex_destroy(&d->lock);
    arena_release(&d->arena);
}

/* Twice the room, for what grows up to the largest number at a time. */
static struct trace_req *grown(struct desk *d, const struct trace_req *q, int32_t n, int32_t *cap)
{
    *cap = *cap ? 2 * *cap : 64;
    struct trace_req *more = arena_array(&d->arena, (size_t)*cap, sizeof *more);
    if (n) memcpy(more, q, (size_t)n * sizeof *more);
    return more;
}

/* Follow-ups are few (sessions and clients): a sorted array. */
static void follow_up(struct desk *d, const struct trace_req *q)
{
    if (d->n_later == d->cap_later) d->later = grown(d, d->later, d->n_later, &d->cap_later);
    int32_t lo = 0, hi = d->n_later; /* first place whose due time is not later than q's */
    while (lo < hi) {
        int32_t mid = lo + (hi - lo) / 2;
        if (d->later[mid].t_due_ns > q->t_due_ns)
            lo = mid + 1;
        else
            hi = mid;
    }
    memmove(d->later + lo + 1, d->later + lo, (size_t)(d->n_later - lo) * sizeof *d->later);
    d->later[lo] = *q;
    d->n_later++;
}

int64_t desk_due_ns(const struct desk *d)
{
    int64_t t = d->has_next ? d->next.t_due_ns : INT64_MAX;
    if (d->n_later && d->later[d->n_later - 1].t_due_ns < t) t = d->later[d->n_later - 1].t_due_ns;
    return t;
}

struct trace_req desk_take(struct desk *d, int *replica)
{
    const struct trace_req *follow = d->n_later ? &d->later[d->n_later - 1] : NULL;
    struct trace_req q = d->next;
    if (follow && (!d->has_next || follow->t_due_ns < d->next.t_due_ns))
        q = d->later[--d->n_later];
    else
        d->has_next = trace_next(d->trace, &d->next) != 0;
    *replica = router_pick(&d->router, &q, d->load);
    d->load[*replica]++;
    d->left++;
    return q;
}

void desk_put(struct desk *d, int replica, const struct trace_req *q)
{
    struct desk_tray *t = &d->tray[replica];
    if (t->n == t->cap) t->q = grown(d, t->q, t->n, &t->cap);
    t->q[t->n++] = *q;
    pthread_cond_signal(&t->moved);
}

void desk_end(struct desk *d, int replica, const struct trace_req *t, const struct desk_answer *k,
              int64_t now_ns)
{
    struct trace_req q = *t, more;
    uint64_t key = 0;
    if (k) {
        q.n_seg = k->n_seg;
        prompt_end(&d->prompt, &q, k->segs, k->tok, k->n);
    } else {
        prompt_refuse(&d->prompt, &q);
    }
    bool session = q.session >= 0 && trace_answers(d->trace) && q.n_seg > 0;
    if (session) key = q.seg[q.n_seg - 1].key; /* the segments go with trace_done */
    bool follows = trace_done(d->trace, &q, now_ns > q.t_due_ns ? now_ns : q.t_due_ns, &more);
    if (follows) follow_up(d, &more);
    if (session && !(follows && more.session == q.session)) prompt_forget(&d->prompt, key);
    d->load[replica]--;
    d->left--;
    if (follows || d->left == 0) desk_wake_all(d); /* what they wait for has changed */
}

void desk_wait(struct desk *d, int replica, int64_t until_ns)
{
    struct timespec t = { .tv_sec = (time_t)(until_ns / 1000000000),
                          .tv_nsec = (long)(until_ns % 1000000000) };
    pthread_cond_timedwait(&d->tray[replica].moved, &d->lock, &t);
}

void desk_wake_all(struct desk *d)
{
    for (int i = 0; i < d->router.n; i++) pthread_cond_signal(&d->tray[i].moved);
}
