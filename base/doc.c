/* base/doc.c - reads whole files, checks their bytes, and walks the tree of a document.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/doc.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/utf8.h"

struct doc *doc_get(const struct doc *d, const char *key)
{
    if (!d || d->kind != DOC_MAP) return NULL;
    for (struct doc *c = d->first; c; c = c->next)
        if (strcmp(c->key, key) == 0) return c;
    return NULL;
}

char *doc_place(const struct doc *d, char *buf, size_t n)
{
    if (d->line > 0)
        snprintf(buf, n, "%s:%d:%d", d->file, d->line, d->column);
    else
        snprintf(buf, n, "%s", d->file);
    return buf;
}

static int too_big(const char *path, size_t max, struct err *e)
{
    if (max < 10000) return err_set(e, ST_USAGE, "%s: longer than %zu bytes", path, max);
    return err_set(e, ST_USAGE, "%s: longer than %.4g MB", path, (double)max / 1e6);
}

/* Up to `most` bytes into buf; *got says how many. */
static int read_up_to(int fd, const char *path, char *buf, size_t most, size_t *got, struct err *e)
{
    *got = 0;
    while (*got < most) {
        size_t want = most - *got < (1u << 30) ? most - *got : 1u << 30;
        ssize_t k = read(fd, buf + *got, want);
        if (k == 0) break;
        if (k > 0)
            *got += (size_t)k;
        else if (errno != EINTR)
            return err_set(e, ST_IO, "cannot read %s: %s", path, strerror(errno));
    }
    return ST_OK;
}

/* Files handed over and those of /proc: their length is known only at their end, if they have one. */
static int read_stream(int fd, const char *path, size_t max, struct arena *a, char **bytes,
                       size_t *n, struct err *e)
{
    char *buf = NULL;
    size_t len = 0, cap = 0;
    int st = ST_OK;
    for (;;) {
        if (len == cap) {
            if (cap > max) {
                st = too_big(path, max, e);
                break;
            }
            cap = cap == 0 ? 65536 : cap > SIZE_MAX / 4 ? SIZE_MAX / 2 : cap * 2;
            if (cap > max) cap = max + 1; /* one byte past: to see that there is more */
            buf = mem_resize(buf, cap, 1);
        }
        size_t got = 0;
        if ((st = read_up_to(fd, path, buf + len, cap - len, &got, e)) != ST_OK) break;
        len += got;
        if (len < cap) break;
    }
    if (st == ST_OK) {
        *bytes = arena_copy_text(a, buf, len);
        *n = len;
    }
    free(buf);
    return st;
}

/* Pipes that the shell or the caller has opened for this process are read to their end; nothing is
 * known to be there at once. */
static bool handed_over(const char *path)
{
    return strcmp(path, "/dev/null") == 0 || strcmp(path, "/dev/stdin") == 0 ||
           strncmp(path, "/dev/fd/", 8) == 0 || strncmp(path, "/proc/self/fd/", 14) == 0;
}

int doc_open(const char *path, struct err *e)
{
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* nobody may ever write into a pipe */
    if (fd < 0) return err_file(e, "open", path, errno), -1;
    bool known = fstat(fd, &info) == 0;
    const char *what = NULL;
    int st = ST_USAGE;
    if (known && S_ISDIR(info.st_mode))
        what = "it is a directory";
    else if (known && !S_ISREG(info.st_mode) && !handed_over(path))
        what = S_ISFIFO(info.st_mode)   ? "it is a pipe, not a file"
               : S_ISSOCK(info.st_mode) ? "it is a socket, not a file"
                                        : "it is a device, not a file";
    else if (!known || fcntl(fd, F_SETFL, 0) != 0) { /* from here on reading waits */
        what = strerror(errno);
        st = ST_IO;
    }
    if (!what) return fd;
    err_set(e, st, "cannot read %s: %s", path, what);
    close(fd);
    return -1;
}

int doc_read_bytes(struct arena *a, const char *path, size_t max, char **bytes, size_t *n,
                   struct err *e)
{
    struct stat info;
    struct err why = { 0 };
    int st = ST_IO, fd = -1;

    assert(max < SIZE_MAX / 2);
    if ((fd = doc_open(path, &why)) < 0) return err_set(e, why.status, "%s", why.text);
    if (fstat(fd, &info) != 0) {
        err_set(e, ST_IO, "cannot read %s: %s", path, strerror(errno));
    } else if (S_ISREG(info.st_mode) && info.st_size > 0) {
        size_t size = (size_t)info.st_size;
        if (size > max) {
            st = too_big(path, max, e);
        } else {
            char *buf = arena_alloc(a, size + 1);
            st = read_up_to(fd, path, buf, size, n, e);
            *bytes = buf;
        }
    } else {
        st = read_stream(fd, path, max, a, bytes, n, e);
    }
    close(fd);
    return st;
}

int doc_check_text(const char *name, const char *bytes, size_t n, struct err *e)
{
    int line = 1, column = 1;
    for (size_t at = 0; at < n;) {
        uint32_t code = 0;
        size_t step = utf8_step(bytes + at, n - at, &code);
        if (step == 0)
            return err_set(e, ST_USAGE, "%s:%d:%d: byte 0x%02x is not UTF-8", name, line, column,
                           (unsigned char)bytes[at]);
        if ((code < 0x20 && code != '\t' && code != '\n' && code != '\r') || code == 0x7f)
            return err_set(e, ST_USAGE, "%s:%d:%d: control byte 0x%02x in a text file", name, line,
                           column, code);
        at += step;
        column++;
        if (code == '\n' || (code == '\r' && (at == n || bytes[at] != '\n'))) {
            line++;
            column = 1;
        }
    }
    return ST_OK;
}
