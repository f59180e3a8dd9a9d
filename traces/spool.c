/* traces/spool.c - see spool.h. SPDX-License-Identifier: Apache-2.0 */
#include "traces/spool.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arena.h"

/* A fresh file whose name is gone at once. */
static int nameless(const char *beside)
{
    size_t n = strlen(beside) + sizeof ".rows.XXXXXX";
    char *name = mem_alloc(n);
    snprintf(name, n, "%s.rows.XXXXXX", beside);
    int fd = mkstemp(name), saved = errno;
    if (fd >= 0) {
        unlink(name);
        fcntl(fd, F_SETFD, FD_CLOEXEC);
    }
    free(name);
    errno = saved;
    return fd;
}

int spool_open(struct spool *s, const char *beside, size_t row_bytes, struct err *e)
{
    assert(row_bytes > 0 && row_bytes <= SPOOL_BYTES);
    *s = (struct spool){ .row_bytes = row_bytes, .cap = SPOOL_BYTES / row_bytes };
    s->fd = nameless(beside);
    if (s->fd < 0)
        return err_set(e, ST_IO, "%s: cannot create a file for its rows: %s", beside,
                       strerror(errno));
    s->what = strcpy(mem_alloc(strlen(beside) + 1), beside);
    s->buf = mem_alloc(s->cap * row_bytes);
    return ST_OK;
}

static int write_all(int fd, const unsigned char *from, size_t n)
{
    while (n > 0) {
        ssize_t put = write(fd, from, n);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) {
            if (put == 0) errno = ENOSPC;
            return -1;
        }
        from += put;
        n -= (size_t)put;
    }
    return 0;
}

static int read_all(int fd, unsigned char *to, size_t n, off_t at)
{
    while (n > 0) {
        ssize_t got = pread(fd, to, n, at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            if (got == 0) errno = EIO; /* it was cut by somebody */
            return -1;
        }
        to += got;
        at += got;
        n -= (size_t)got;
    }
    return 0;
}

int spool_put(struct spool *s, const void *row, struct err *e)
{
    memcpy(s->buf + s->n_buf * s->row_bytes, row, s->row_bytes);
    if (++s->n_buf < s->cap) return ST_OK;
    s->n_buf = 0;
    if (write_all(s->fd, s->buf, s->cap * s->row_bytes) != 0)
        return err_set(e, ST_IO, "%s: cannot write its rows: %s", s->what, strerror(errno));
    s->n_file += (int64_t)s->cap;
    return ST_OK;
}

int spool_each(struct spool *s, int (*take)(void *ctx, const void *rows, size_t n, struct err *e),
               void *ctx, struct err *e)
{
    unsigned char *rows = mem_alloc(s->cap * s->row_bytes);
    int st = ST_OK;
    for (int64_t at = 0; at < s->n_file && st == ST_OK; at += (int64_t)s->cap) {
        size_t n = s->cap * s->row_bytes; /* the file grew by whole buffers */
        if (read_all(s->fd, rows, n, (off_t)at * (off_t)s->row_bytes) != 0)
            st = err_set(e, ST_IO, "%s: cannot read its rows: %s", s->what, strerror(errno));
        else
            st = take(ctx, rows, s->cap, e);
    }
    if (st == ST_OK && s->n_buf) st = take(ctx, s->buf, s->n_buf, e);
    free(rows);
    return st;
}

void spool_close(struct spool *s)
{
    if (!s->what) return;
    close(s->fd);
    free(s->buf);
    free(s->what);
    *s = (struct spool){ 0 };
}
