/* base/rooms.h - arrays that come and go: their sizes are powers of two, and what is given back is
 * taken again, so that a work whose demand has ceased to grow asks for no more memory.
 *
 * All of them live as long as the arena. Not thread-safe. SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_ROOMS_H
#define BASE_ROOMS_H

#include <stdint.h>

#include "base/arena.h"

enum { ROOMS_MAX_LOG2 = 31 };

struct rooms {
    struct arena *arena;
    size_t size;                     /* bytes of an element */
    int least_log2;                  /* of the smallest room */
    void *spare[ROOMS_MAX_LOG2 + 1]; /* by size: the first bytes of each link to the next */
};

/* least: elements that the smallest room has at least; a pointer fits into them in any case. */
void rooms_init(struct rooms *r, size_t size, int64_t least, struct arena *a);
/* Of the smallest room for n elements, n <= 2^ROOMS_MAX_LOG2. */
int rooms_log2(const struct rooms *r, int64_t n);
/* 2^log2 elements of any content; log2 as rooms_log2 gave it. */
void *rooms_take(struct rooms *r, int log2);
void rooms_give(struct rooms *r, void *room, int log2);

#endif
