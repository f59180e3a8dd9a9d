/* base/outfile.c - see outfile.h. SPDX-License-Identifier: Apache-2.0 */
#include "base/outfile.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/stop.h"

static char *copy(const char *text)
{
    char *c = mem_alloc(strlen(text) + 1);
    return strcpy(c, text);
}

int outfile_open(struct outfile *o, const char *path, struct err *e)
{
    struct stat st;
    size_t n = strlen(path) + 40;
    *o = (struct outfile){ .path = copy(path) };
    if (lstat(path, &st) != 0 || S_ISREG(st.st_mode)) {
        o->part = mem_alloc(n);
        snprintf(o->part, n, "%s.part.%ld", path, (long)getpid());
        unlink(o->part); /* not through a link that somebody laid there */
        stop_guard(o->part);
    }
    o->f = fopen(o->part ? o->part : path, o->part ? "wxe" : "we");
    if (o->f) return ST_OK;
    err_set(e, ST_IO, "cannot write %s: %s", path, strerror(errno));
    if (o->part) stop_unguard(o->part);
    free(o->part);
    free(o->path);
    return ST_IO;
}

int outfile_close(struct outfile *o, struct err *e)
{
    bool bad = fflush(o->f) != 0 || ferror(o->f) || (o->part && fsync(fileno(o->f)) != 0);
    int why = errno, st = ST_OK;
    if (fclose(o->f) != 0 && !bad) {
        bad = true;
        why = errno;
    }
    if (!bad && o->part && rename(o->part, o->path) != 0) {
        bad = true;
        why = errno;
    }
    if (bad) st = err_set(e, ST_IO, "cannot write %s: %s", o->path, strerror(why));
    if (bad && o->part) unlink(o->part);
    if (o->part) stop_unguard(o->part);
    free(o->part);
    free(o->path);
    return st;
}

void outfile_abort(struct outfile *o)
{
    fclose(o->f);
    if (o->part) {
        unlink(o->part);
        stop_unguard(o->part);
    }
    free(o->part);
    free(o->path);
}

int outfile_write(const char *path, const void *bytes, size_t n, struct err *e)
{
    struct outfile o;
    int st = outfile_open(&o, path, e);
    if (st != ST_OK) return st;
    fwrite(bytes, 1, n, o.f);
    return outfile_close(&o, e);
}

int outfile_place(const char *path, char **place, struct err *e)
{
    struct stat own, st;
    *place = NULL;
    if (lstat(path, &own) != 0) {
        *place = copy(path); /* not there, or not to be reached: creating it will say why */
        return ST_OK;
    }
    if (stat(path, &st) != 0)
        return err_set(e, ST_IO, "cannot create %s: it is a link that leads nowhere", path);
    if (S_ISDIR(st.st_mode))
        return err_set(e, ST_IO, "cannot create %s: %s", path, strerror(EISDIR));
    if (!S_ISREG(st.st_mode))
        return err_set(e, ST_IO, "cannot create %s: it is there and not a regular file", path);
    *place = S_ISLNK(own.st_mode) ? realpath(path, NULL) : copy(path);
    if (!*place) return err_set(e, ST_IO, "cannot create %s: %s", path, strerror(errno));
    return ST_OK;
}
