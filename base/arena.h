/* base/arena.h - memory that lives as long as one piece of work and is released at once.
 *
 * Chunks come from malloc; out of memory aborts with a message, because nothing sensible can be
 * simulated after it. Not thread-safe: one arena per thread of work.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include <stddef.h>

struct arena_chunk;
struct arena {
    struct arena_chunk *last; /* newest chunk; NULL while empty */
    size_t used, cap;         /* bytes of the newest chunk */
    size_t total_bytes;       /* handed out since init, alignment included */
};

void arena_init(struct arena *a);
/* n bytes, zeroed, aligned to 16. n may be 0: the pointer is then unique but not readable. */
void *arena_alloc(struct arena *a, size_t n);
/* The next n bytes, alignment included, come without asking the system for memory; those that are never
 * used are never touched. */
void arena_reserve(struct arena *a, size_t n);
/* count * size with the product checked. */
void *arena_array(struct arena *a, size_t count, size_t size);
char *arena_copy_text(struct arena *a, const char *text, size_t n); /* adds the final NUL */
char *arena_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void arena_release(struct arena *a); /* frees all; a is then as after arena_init */

/* malloc/realloc/calloc that abort with a message instead of returning NULL. */
void *mem_alloc(size_t n);
void *mem_zalloc(size_t count, size_t size);
void *mem_resize(void *p, size_t count, size_t size);

#endif
