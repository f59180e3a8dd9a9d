/* tests/alloc.h - how often this process has asked for memory, its libraries included.
 *
 * The program's own malloc, calloc, realloc and aligned ones stand in front of the C library's, so
 * that a piece of memory that is freed again is seen too; mallinfo2() sees only what stays. Not
 * under sanitizers, which have an allocator of their own, nor with other C libraries.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_ALLOC_H
#define TESTS_ALLOC_H

#include <stdbool.h>
#include <stdint.h>

bool alloc_counts(void);  /* whether this build can tell */
int64_t alloc_made(void); /* calls since the start, by all threads */

#endif
