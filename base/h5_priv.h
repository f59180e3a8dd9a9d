/* base/h5_priv.h - what h5_write.c and h5_read.c share: the handle, the lock, errors as sentences.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_H5_PRIV_H
#define BASE_H5_PRIV_H

#include <hdf5.h>

#include "base/h5.h"

struct h5 {
    hid_t file;
    char *path;            /* as the caller gave it; owned */
    char *part;            /* what is written until the commit; NULL in a reader; owned */
    int claim;             /* of a writer: holds the lock on part; -1: none */
    size_t file_bytes;     /* readers: size when opened */
    struct h5table *table; /* writers: newest first */
    struct err first;      /* first failed write; the file is then never renamed */
    struct h5 *next;       /* writers, in the list that h5_abort_all() walks */
};

/* One thread at a time in the library, its printing turned off. May be taken twice by one thread.
 */
void h5_lock(void);
void h5_unlock(void);

/* "path: cannot WHAT: reason" with the innermost reason of the HDF5 error stack, if there is one.
 */
int h5_fail(h5 *f, int status, struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* A variable-length UTF-8 string type; the caller closes it. */
hid_t h5_text_type(H5T_cset_t cset);

#endif
