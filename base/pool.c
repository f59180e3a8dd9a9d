/* base/pool.c - threads that take the next job number from a counter.
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* sched_getaffinity */
#include "base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/arena.h"

struct jobs {
    atomic_int next;
    int n;
    void (*fn)(void *arg, int i);
    void *arg;
};

static void *work(void *p)
{
    struct jobs *j = p;
    for (int i; (i = atomic_fetch_add(&j->next, 1)) < j->n;) j->fn(j->arg, i);
    return NULL;
}

void pool_run(int n_thread, int n, void (*fn)(void *arg, int i), void *arg)
{
    struct jobs j = { .n = n, .fn = fn, .arg = arg };
    if (n <= 0) return;
    int n_extra = (n_thread < n ? n_thread : n) - 1, n_started = 0;
    pthread_t *id = n_extra > 0 ? mem_alloc((size_t)n_extra * sizeof *id) : NULL;
    /* A thread that the system refuses is no failure: the others, the caller at least, do its jobs.
     */
    while (n_started < n_extra && pthread_create(&id[n_started], NULL, work, &j) == 0) n_started++;
    work(&j);
    for (int t = 0; t < n_started; t++) pthread_join(id[t], NULL);
    free(id);
}

int pool_cpus(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN); /* machines with more processors than the set holds */
    return n > 0 ? (int)n : 1;
}
