/* engine/bell.h - waiting for a counter to reach a value: spin for a bounded time, then sleep.
 *
 * A thread that waits owns a bell. Who advances the counter does so with bell_advance and then rings
 * the bells of those who may wait for it; a ring costs one load while nobody sleeps. With as many
 * cores as threads spinning saves the wake-up (tens of us); with fewer it takes the core from the one
 * that is waited for, so spin_max is then small, and so it is while others want the processors
 * (engine/crowd.h). SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_BELL_H
#define ENGINE_BELL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#if defined __x86_64__
#include <immintrin.h>
#endif

typedef _Atomic uint64_t bell_count;

struct bell {
    pthread_mutex_t lock;
    pthread_cond_t moved;
    atomic_bool asleep;
    int spin_max; /* looks at the counter before sleeping, about 10 to 40 ns each */
};

/* Between two looks at what is waited for. */
static inline void bell_relax(void)
{
#if defined __x86_64__
    _mm_pause();
#endif
}

/* Rounds of spinning for n_thread busy threads in all on n_cpu processors. */
int bell_spin_max(int n_thread, int n_cpu);

/* All bells of this process, and who else waits so: few rounds for the time being, or their own. */
void bell_share(bool on);
int bell_spins(int spin_max); /* what spin_max is at present */

void bell_init(struct bell *b, int spin_max);
void bell_release(struct bell *b);

/* Returns true when *c >= value, false when *stop was found true. Only the owner waits. */
bool bell_wait(struct bell *b, const bell_count *c, uint64_t value, const atomic_bool *stop);
static inline void bell_advance(bell_count *c, uint64_t value)
{
    atomic_store(c, value); /* sequentially consistent: ordered before the look at `asleep` */
}
void bell_ring(struct bell *b);

#endif
