/* plots/outfile.c - see outfile.h. SPDX-License-Identifier: Apache-2.0 */
#include "plots/outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int write_all(int fd, const char *bytes, size_t n)
{
    while (n > 0) {
        ssize_t put = write(fd, bytes, n);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) return -1;
        bytes += put;
        n -= (size_t)put;
    }
    return 0;
}

int outfile_write(const char *path, const void *bytes, size_t n, struct err *e)
{
    char part[4096];
    int len = snprintf(part, sizeof part, "%s.part.%ld", path, (long)getpid());
    if (len < 0 || (size_t)len >= sizeof part)
        return err_set(e, ST_IO, "a path of %zu bytes is too long", strlen(path));
    int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) return err_set(e, ST_IO, "cannot write %s: %s", path, strerror(errno));
    int bad = write_all(fd, bytes, n) != 0 || fsync(fd) != 0 ? errno : 0;
    if (close(fd) != 0 && !bad) bad = errno;
    if (!bad && rename(part, path) == 0) return ST_OK;
    if (!bad) bad = errno;
    unlink(part);
    return err_set(e, ST_IO, "cannot write %s: %s", path, strerror(bad));
}
