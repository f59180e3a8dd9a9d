/* base/arena.c - chunked bump allocation, and malloc that does not return NULL.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/arena.h"

#include <assert.h>
#include <stdalign.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 16, CHUNK_MIN = 4 << 10, CHUNK_MAX = 1 << 20 };

struct arena_chunk {
    struct arena_chunk *older;
    alignas(ALIGN) unsigned char data[];
};

static void __attribute__((noreturn)) out_of_memory(size_t n)
{
    fprintf(stderr, "orrery: out of memory (%zu bytes asked)\n", n);
    abort();
}

static size_t product(size_t count, size_t size)
{
    if (size && count > PTRDIFF_MAX / size) out_of_memory(SIZE_MAX);
    return count * size;
}

void arena_init(struct arena *a)
{
    *a = (struct arena){ 0 };
}

static struct arena_chunk *chunk_new(size_t cap)
{
    size_t bytes = offsetof(struct arena_chunk, data) + cap;
    struct arena_chunk *c = calloc(1, bytes); /* big ones come as untouched zero pages */
    if (!c) out_of_memory(bytes);
    return c;
}

static void chunk_add(struct arena *a, size_t cap)
{
    struct arena_chunk *c = chunk_new(cap);
    c->older = a->last;
    a->last = c;
    a->cap = cap;
    a->used = 0;
}

void arena_reserve(struct arena *a, size_t n)
{
    if (n > PTRDIFF_MAX - (size_t)CHUNK_MAX) out_of_memory(n);
    if (n > a->cap - a->used) chunk_add(a, (n + ALIGN - 1) / ALIGN * ALIGN);
}

void *arena_alloc(struct arena *a, size_t n)
{
    if (n > PTRDIFF_MAX - (size_t)CHUNK_MAX) out_of_memory(n);
    size_t need = n ? (n + ALIGN - 1) / ALIGN * ALIGN : ALIGN;
    a->total_bytes += need;
    if (need <= a->cap - a->used) {
        void *p = a->last->data + a->used;
        a->used += need;
        return p;
    }
    if (need > CHUNK_MAX / 4) { /* its own chunk, behind the newest, whose rest stays in use */
        struct arena_chunk *c = chunk_new(need);
        if (a->last) {
            c->older = a->last->older;
            a->last->older = c;
        } else {
            a->last = c;
            a->used = a->cap = need;
        }
        return c->data;
    }
    size_t cap = a->cap < CHUNK_MIN ? CHUNK_MIN : a->cap >= CHUNK_MAX ? CHUNK_MAX : a->cap * 2;
    while (cap < need) cap *= 2;
    chunk_add(a, cap);
    a->used = need;
    return a->last->data;
}

void *arena_array(struct arena *a, size_t count, size_t size)
{
    return arena_alloc(a, product(count, size));
}

char *arena_copy_text(struct arena *a, const char *text, size_t n)
{
    assert(text || n == 0);
    if (n == SIZE_MAX) out_of_memory(n);
    char *p = arena_alloc(a, n + 1);
    if (n) memcpy(p, text, n);
    return p;
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0) { /* past INT_MAX bytes, or a wide character that has no multibyte form */
        fprintf(stderr, "orrery: arena_printf: text could not be formatted\n");
        abort();
    }
    char *p = arena_alloc(a, (size_t)n + 1);
    vsnprintf(p, (size_t)n + 1, fmt, again);
    va_end(again);
    return p;
}

void arena_release(struct arena *a)
{
    for (struct arena_chunk *c = a->last; c;) {
        struct arena_chunk *older = c->older;
        free(c);
        c = older;
    }
    arena_init(a);
}

void *mem_alloc(size_t n)
{
    void *p = malloc(n ? n : 1);
    if (!p) out_of_memory(n);
    return p;
}

void *mem_zalloc(size_t count, size_t size)
{
    size_t n = product(count, size);
    void *p = calloc(1, n ? n : 1);
    if (!p) out_of_memory(n);
    return p;
}

void *mem_resize(void *p, size_t count, size_t size)
{
    size_t n = product(count, size);
    void *q = realloc(p, n ? n : 1);
    if (!q) out_of_memory(n);
    return q;
}
