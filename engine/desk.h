/* engine/desk.h - where requests arrive: what is due next, the answers that later turns repeat, and
 * the router that spreads requests over replicas (the one of the simulator, engine/router.h).
 *
 * Replicas are threads that share one desk. Whoever looks in when a request is due routes it; the
 * replica that got it finds it in its tray. All but init, release, lock and unlock is called under the
 * lock. SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_DESK_H
#define ENGINE_DESK_H

#include <pthread.h>

#include "engine/prompt.h"
#include "engine/router.h"

struct desk_tray {
    struct trace_req *q; /* [cap], the first n are there, in order of arrival */
    int32_t n, cap;
    pthread_cond_t moved;
};

struct desk {
    pthread_mutex_t lock;
    struct trace *trace;
    struct prompt prompt;
    struct trace_req next, *later; /* next arrival; follow-ups by due time, earliest last */
    int32_t n_later, cap_later;
    bool has_next;
    struct router router;
    struct desk_tray *tray; /* [n_replica] */
    int64_t *load;          /* [n_replica] requests routed there and not ended */
    int64_t left;           /* their sum */
    struct arena arena;
};

void desk_init(struct desk *d, struct trace *t, int router, int n_replica, int32_t vocab,
               uint64_t seed);
void desk_release(struct desk *d);

static inline void desk_lock(struct desk *d)
{
    pthread_mutex_lock(&d->lock);
}
static inline void desk_unlock(struct desk *d)
{
    pthread_mutex_unlock(&d->lock);
}

/* When the next one is due, from run start; INT64_MAX: none that is known. */
int64_t desk_due_ns(const struct desk *d);
/* The next one, and which replica it goes to; that one's load has grown. */
struct trace_req desk_take(struct desk *d, int *replica);
/* Into the tray of another replica, which is woken. */
void desk_put(struct desk *d, int replica, const struct trace_req *q);

/* A request of a replica is over: its answer is kept for the turns that repeat it, and what follows it
 * is due. tok: [n] prompt and output, of which segs segments are shared, n_seg being those of the
 * trace; NULL: it was refused. */
struct desk_answer {
    const int32_t *tok;
    int32_t n, n_seg, segs;
};
void desk_end(struct desk *d, int replica, const struct trace_req *t, const struct desk_answer *k,
              int64_t now_ns);

/* Until something moves, or CLOCK_MONOTONIC is at until_ns. */
void desk_wait(struct desk *d, int replica, int64_t until_ns);
void desk_wake_all(struct desk *d);

#endif
