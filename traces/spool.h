/* traces/spool.h - rows of one size, set aside while something runs that must not wait for their
 * table, and read back in order.
 *
 * They go through a buffer into a file that has no name: it takes room on the disk of `beside`, never in
 * memory, and is gone with the process however that ends. spool_put allocates nothing and takes a
 * system call every SPOOL_BYTES. SPDX-License-Identifier: Apache-2.0 */
#ifndef TRACES_SPOOL_H
#define TRACES_SPOOL_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { SPOOL_BYTES = 64 << 10 };

struct spool {
    char *what; /* for messages: the file that the rows are for */
    int fd;
    size_t row_bytes, n_buf, cap; /* n_buf: rows in the buffer, which holds cap */
    int64_t n_file;               /* rows in the file */
    unsigned char *buf;
};

/* In the directory of `beside`. row_bytes: 1 .. SPOOL_BYTES. Errors: ST_IO. */
int spool_open(struct spool *s, const char *beside, size_t row_bytes, struct err *e);
/* Errors: ST_IO, after which the spool is good for nothing but spool_close. */
int spool_put(struct spool *s, const void *row, struct err *e);
/* Calls take for all rows in order, many at a time, until it gives another status than ST_OK, which
 * is then returned; the rows stay. */
int spool_each(struct spool *s, int (*take)(void *ctx, const void *rows, size_t n, struct err *e),
               void *ctx, struct err *e);
void spool_close(struct spool *s); /* one that is not open, all zero, is fine */

#endif
