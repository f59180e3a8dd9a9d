/* base/banned.h - the Makefile forces this into sim/ (but its commands) and the pure part of
 * engine/: memory there comes from the run's arena, time is an argument, and nothing does I/O.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_BANNED_H
#define BASE_BANNED_H

#include <stdio.h> /* first the real prototypes, then the ban */
#include <stdlib.h>
#include <time.h>
#define malloc(n)           sorry_take_it_from_the_run_arena
#define fopen(path, mode)   sorry_no_io_here
#define clock_gettime(c, t) sorry_time_is_an_argument
#define rand()              sorry_use_a_named_stream

#endif
