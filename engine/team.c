/* engine/team.c - fork and join over threads that stay.
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* pthread_setaffinity_np */
#include "engine/team.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "base/arena.h"
#include "base/pool.h"
#include "engine/bell.h"
#include "engine/crowd.h"

struct worker {
    struct team *team;
    struct bell bell;
    bell_count done; /* calls this worker has finished */
    pthread_t id;
    int part;
};

struct team {
    int n, n_started, first_cpu;
    struct team *below; /* in pinned_by */
    team_fn fn;
    void *arg;
    uint64_t calls;
    bell_count go;
    atomic_bool stop, never;
    struct bell bell;      /* the caller's */
    struct worker *worker; /* [n - 1] */
    struct crowd crowd;    /* of its threads, where they are pinned */
    bool away;             /* unpinned for the time being */
};

static _Thread_local struct team *pinned_by; /* teams that pinned this thread, the latest first */
static _Thread_local cpu_set_t before;       /* where it could run before the first of them */

void team_unpin(void)
{
    if (pinned_by) pthread_setaffinity_np(pthread_self(), sizeof before, &before);
}

int team_cpus(void)
{
    return pinned_by ? CPU_COUNT(&before) : pool_cpus();
}

/* Thread id to the nth processor of `may`. */
static void pin_to(pthread_t id, const cpu_set_t *may, int nth)
{
    cpu_set_t one;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, may) || nth-- > 0) continue;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        pthread_setaffinity_np(id, sizeof one, &one);
        return;
    }
}

static void pin(int nth)
{
    cpu_set_t may;
    if (nth >= 0 && sched_getaffinity(0, sizeof may, &may) == 0) pin_to(pthread_self(), &may, nth);
}

void team_look(struct team *t)
{
    if (pinned_by != t) return; /* by nobody, or by another */
    bool away = crowd_look(&t->crowd);
    if (away == t->away) return;
    t->away = away;
    for (int i = 0; i < t->n; i++) {
        pthread_t id = i ? t->worker[i - 1].id : pthread_self();
        if (away)
            pthread_setaffinity_np(id, sizeof before, &before);
        else
            pin_to(id, &before, t->first_cpu + i);
    }
}

static void *work(void *p)
{
    struct worker *w = p;
    struct team *t = w->team;
    pin(t->first_cpu < 0 ? -1 : t->first_cpu + w->part);
    if (t->first_cpu >= 0) crowd_join(&t->crowd, w->part);
    for (uint64_t call = 1; bell_wait(&w->bell, &t->go, call, &t->stop); call++) {
        t->fn(t->arg, w->part, t->n);
        bell_advance(&w->done, call);
        bell_ring(&t->bell);
    }
    return NULL;
}

struct team *team_open(int n, int first_cpu, int spin_max, struct err *e)
{
    struct team *t = mem_zalloc(1, sizeof *t);
    team_unpin();
    t->n = n;
    t->first_cpu = first_cpu;
    if (first_cpu >= 0) crowd_init(&t->crowd, n);
    t->worker = n > 1 ? mem_zalloc((size_t)n - 1, sizeof *t->worker) : NULL;
    bell_init(&t->bell, spin_max);
    for (int i = 0; i < n - 1; i++) {
        struct worker *w = &t->worker[i];
        w->team = t;
        w->part = i + 1;
        bell_init(&w->bell, spin_max);
        if (pthread_create(&w->id, NULL, work, w) != 0) {
            bell_release(&w->bell);
            team_close(t);
            err_set(e, ST_DEVICE, "the system refuses a thread");
            return NULL;
        }
        t->n_started++;
    }
    /* Last: workers inherit the mask of their creator. */
    if (first_cpu >= 0 && (pinned_by || sched_getaffinity(0, sizeof before, &before) == 0)) {
        t->below = pinned_by;
        pinned_by = t;
        pin(first_cpu);
        crowd_join(&t->crowd, 0);
    }
    return t;
}

static void leave(const struct team *t)
{
    struct team **at = &pinned_by;
    while (*at && *at != t) at = &(*at)->below;
    if (!*at) return;
    *at = t->below;
    if (!pinned_by) pthread_setaffinity_np(pthread_self(), sizeof before, &before);
}

void team_close(struct team *t)
{
    if (!t) return;
    atomic_store(&t->stop, true);
    for (int i = 0; i < t->n_started; i++) {
        bell_ring(&t->worker[i].bell);
        pthread_join(t->worker[i].id, NULL);
        bell_release(&t->worker[i].bell);
    }
    leave(t);
    crowd_release(&t->crowd);
    bell_release(&t->bell);
    free(t->worker);
    free(t);
}

int team_size(const struct team *t)
{
    return t->n;
}

void team_run(struct team *t, team_fn fn, void *arg)
{
    if (t->n == 1) {
        fn(arg, 0, 1);
        return;
    }
    t->fn = fn;
    t->arg = arg;
    bell_advance(&t->go, ++t->calls);
    for (int i = 0; i < t->n - 1; i++) bell_ring(&t->worker[i].bell);
    fn(arg, 0, t->n);
    for (int i = 0; i < t->n - 1; i++) bell_wait(&t->bell, &t->worker[i].done, t->calls, &t->never);
}
