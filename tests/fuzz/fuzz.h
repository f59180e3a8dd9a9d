/* tests/fuzz/fuzz.h - what the fuzz targets share: bytes as a file, and a check that stops the
 * fuzzer.
 *
 * A target is one LLVMFuzzerTestOneInput: whatever the bytes, the reader must answer with a value
 * that keeps its contract or with one sentence, in bounded memory, and free what it took.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/err.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define FUZZ_CHECK(cond)                                                                           \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #cond);                   \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* The path of file `which` (0 to 3) of this process, in memory where there is such a place. */
static inline const char *fuzz_path(int which)
{
    static char path[4][64];
    const char *place = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(path[which], sizeof path[which], "%s/orrery-fuzz-%ld-%d", place, (long)getpid(),
             which);
    return path[which];
}

static inline void fuzz_remove(void)
{
    for (int i = 0; i < 4; i++) unlink(fuzz_path(i));
}

/* Writes the bytes to file `which` and returns its path. */
static inline const char *fuzz_file(int which, const void *bytes, size_t n)
{
    static int once;
    const char *path = fuzz_path(which);
    FILE *f = fopen(path, "wb");
    if (!once) once = atexit(fuzz_remove) == 0;
    if (!f || (n && fwrite(bytes, 1, n, f) != n) || fclose(f) != 0) abort();
    return path;
}

/* A failed call has said why, in one line; one that worked has said nothing. */
static inline void fuzz_status(int st, const struct err *e)
{
    FUZZ_CHECK(st == e->status);
    FUZZ_CHECK((st == ST_OK) == (e->text[0] == 0));
    FUZZ_CHECK(!strchr(e->text, '\n'));
}

#endif
