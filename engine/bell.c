/* engine/bell.c - spin, then sleep on a condition variable.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/bell.h"

#include <sched.h>

/* About 1 to 2 ms: several times what waking a sleeper takes, also in a virtual machine (0.3 ms), or
 * two that wait for each other by turns would sleep and wake at every meeting. */
enum { SPIN_ALONE = 50000, SPIN_SHARED = 50, YIELDS = 4 };

static atomic_bool shared;

int bell_spin_max(int n_thread, int n_cpu)
{
    return n_thread <= n_cpu ? SPIN_ALONE : SPIN_SHARED;
}

void bell_share(bool on)
{
    if (atomic_load_explicit(&shared, memory_order_relaxed) != on) atomic_store(&shared, on);
}

int bell_spins(int spin_max)
{
    bool few = atomic_load_explicit(&shared, memory_order_relaxed) && spin_max > SPIN_SHARED;
    return few ? SPIN_SHARED : spin_max;
}

void bell_init(struct bell *b, int spin_max)
{
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->moved, NULL);
    atomic_init(&b->asleep, false);
    b->spin_max = spin_max;
}

void bell_release(struct bell *b)
{
    pthread_cond_destroy(&b->moved);
    pthread_mutex_destroy(&b->lock);
}

/* Either this thread, having set `asleep`, sees the counter moved, or who moved it sees `asleep`
 * and comes for the lock: no ring is lost. */
static bool sleep_until(struct bell *b, const bell_count *c, uint64_t value,
                        const atomic_bool *stop)
{
    bool there;
    pthread_mutex_lock(&b->lock);
    atomic_store(&b->asleep, true);
    while (!(there = atomic_load(c) >= value) && !atomic_load(stop))
        pthread_cond_wait(&b->moved, &b->lock);
    atomic_store(&b->asleep, false);
    pthread_mutex_unlock(&b->lock);
    return there;
}

bool bell_wait(struct bell *b, const bell_count *c, uint64_t value, const atomic_bool *stop)
{
    for (int i = 0, most = bell_spins(b->spin_max); i < most; i++) {
        if (atomic_load_explicit(c, memory_order_acquire) >= value) return true;
        if (atomic_load_explicit(stop, memory_order_relaxed)) return false;
        bell_relax();
    }
    for (int i = 0; i < YIELDS; i++) {
        if (atomic_load_explicit(c, memory_order_acquire) >= value) return true;
        sched_yield();
    }
    return sleep_until(b, c, value, stop);
}

void bell_ring(struct bell *b)
{
    if (!atomic_load(&b->asleep)) return;
    pthread_mutex_lock(&b->lock);
    pthread_cond_signal(&b->moved);
    pthread_mutex_unlock(&b->lock);
}
