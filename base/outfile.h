/* base/outfile.h - a result file that appears whole or not at all.
 *
 * What is written goes to PATH.part.<pid> and takes PATH's name, synced, when it is complete; until
 * then an older file of that name stays as it is. What a killed run has left is removed by the next one
 * that writes PATH. A PATH that is there and is not a regular file (a
 * pipe, a device, a symbolic link) is never replaced: text is written into it, a run file is refused.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_OUTFILE_H
#define BASE_OUTFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/err.h"

struct outfile {
    FILE *f; /* for the caller to write; outfile_close reports its errors */
    char *path;
    char *part; /* NULL: written in place */
};

/* Errors: ST_IO. */
int outfile_open(struct outfile *o, const char *path, struct err *e);
int outfile_close(struct outfile *o, struct err *e); /* frees o, also on failure: nothing is left */
void outfile_abort(struct outfile *o);               /* frees o; nothing is left, but in a pipe */
/* Whether writing path would replace a file that is read: ST_USAGE then. NULLs are fine. */
int outfile_spares(const char *path, const char *input, struct err *e);
int outfile_write(const char *path, const void *bytes, size_t n, struct err *e);
/* Whether path can be written, before the work that makes it: its directory is there and takes a new
 * file; whole: it has to be replaced whole (HDF5), so nothing but a regular file may be there. NULL is
 * fine. Nothing is left and an older file stays. Errors: ST_IO. */
int outfile_check(const char *path, bool whole, struct err *e);

/* A file of lines at STEM.csv, each of which goes out by one write, so that a kill at any instant
 * leaves whole lines. One process at a time has it: it is locked while *fd, at its end, is open. What a
 * killed process left there is kept: as it is with `go_on`, else as STEM.1.csv (2, 3, ...), and *left
 * then has that name (else ""). Errors: ST_IO. */
enum { OUTFILE_PATH = 4352 };
int outfile_lines(const char *stem, bool go_on, int *fd, char left[OUTFILE_PATH], struct err *e);
/* Appends n bytes of whole lines. Errors: ST_IO, and no part of a line is left where that can be. */
int outfile_append(int fd, const char *path, const char *text, size_t n, struct err *e);

/* For who writes PATH.part.<pid> himself: fd is of that file, and open until it is renamed or removed.
 * It is locked, which says that its writer lives. */
void outfile_claim(int fd);
/* Removes what killed runs have left of path: PATH.part.<pid> that no process of this number and no
 * lock, of another host or container, speaks for. */
void outfile_sweep(const char *path);

/* Where a file that needs to be replaced whole goes: path, or what a link at path leads to. Errors:
 * ST_IO when something other than a regular file is there. The caller frees *place. */
int outfile_place(const char *path, char **place, struct err *e);

#endif
