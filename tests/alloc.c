/* tests/alloc.c - see alloc.h. SPDX-License-Identifier: Apache-2.0 */
#include "tests/alloc.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#if defined __has_feature
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED
#endif
#endif
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
#define SANITIZED
#endif

static atomic_llong made;

int64_t alloc_made(void)
{
    return atomic_load(&made);
}

#if defined __GLIBC__ && !defined SANITIZED

bool alloc_counts(void)
{
    return true;
}

/* The C library's own names of them. */
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t align, size_t n);

static void count(void)
{
    atomic_fetch_add_explicit(&made, 1, memory_order_relaxed);
}

void *malloc(size_t n)
{
    count();
    return __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    count();
    return __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    count();
    return __libc_realloc(p, n);
}

void *aligned_alloc(size_t align, size_t n)
{
    count();
    return __libc_memalign(align, n);
}

int posix_memalign(void **p, size_t align, size_t n)
{
    count();
    void *got = __libc_memalign(align, n);
    if (!got) return ENOMEM;
    *p = got;
    return 0;
}

#else

bool alloc_counts(void)
{
    return false;
}

#endif
