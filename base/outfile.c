/* base/outfile.c - see outfile.h. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* F_OFD_SETLK: a lock of the open file, whoever else in this process has it open */
#include "base/outfile.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
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

/* ---- what killed runs leave */

enum lock { LOCK_HELD, LOCK_MINE, LOCK_NONE }; /* by somebody else; here; no locks on this disk */

static enum lock try_lock(int fd)
{
    struct flock all = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    if (fcntl(fd, F_OFD_SETLK, &all) == 0) return LOCK_MINE;
    return errno == EACCES || errno == EAGAIN ? LOCK_HELD : LOCK_NONE;
}

static bool lock(int fd)
{
    return try_lock(fd) == LOCK_MINE;
}

void outfile_claim(int fd)
{
    (void)lock(fd); /* where the file system has no locks, the process number has to do */
}

/* The writer's number in NAME.part.NUMBER; 0 for any other file. */
static long writer_of(const char *file, const char *name)
{
    static const char mark[] = ".part.";
    size_t n = strlen(name);
    if (strncmp(file, name, n) != 0 || strncmp(file + n, mark, sizeof mark - 1) != 0) return 0;
    const char *digits = file + n + sizeof mark - 1;
    if (strspn(digits, "0123456789") != strlen(digits) || strlen(digits) > 10) return 0;
    return strtol(digits, NULL, 10);
}

/* A file that another host writes on a shared disk may have the number of no process here, but it is
 * locked. */
static void remove_left(int dir, const char *file)
{
    struct stat st;
    int fd = openat(dir, file, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && lock(fd)) unlinkat(dir, file, 0);
    close(fd);
}

void outfile_sweep(const char *path)
{
    char *where = copy(path), *slash = strrchr(where, '/');
    const char *name = slash ? path + (slash - where) + 1 : path;
    if (slash) slash[slash == where] = 0;
    DIR *d = opendir(slash ? where : ".");
    for (struct dirent *f; d && (f = readdir(d));) {
        long pid = writer_of(f->d_name, name);
        if (pid > 0 && kill((pid_t)pid, 0) != 0 && errno == ESRCH) remove_left(dirfd(d), f->d_name);
    }
    if (d) closedir(d);
    free(where);
}

/* ---- files */

int outfile_open(struct outfile *o, const char *path, struct err *e)
{
    struct stat st;
    size_t n = strlen(path) + 40;
    *o = (struct outfile){ .path = copy(path) };
    if (lstat(path, &st) != 0 || S_ISREG(st.st_mode)) {
        o->part = mem_alloc(n);
        snprintf(o->part, n, "%s.part.%ld", path, (long)getpid());
        outfile_sweep(path);
        unlink(o->part); /* not through a link that somebody laid there */
        stop_guard(o->part);
    }
    o->f = fopen(o->part ? o->part : path, o->part ? "wxe" : "we");
    if (o->f && o->part) outfile_claim(fileno(o->f));
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

static int check_new(const char *path, const char *place, struct err *e)
{
    size_t n = strlen(place) + 40;
    char *part = mem_alloc(n);
    snprintf(part, n, "%s.part.%ld", place, (long)getpid());
    unlink(part);
    int fd = open(part, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0666), why = errno;
    if (fd >= 0) {
        close(fd);
        unlink(part);
    }
    free(part);
    return fd >= 0 ? ST_OK : err_set(e, ST_IO, "cannot create %s: %s", path, strerror(why));
}

int outfile_check(const char *path, bool whole, struct err *e)
{
    struct stat own;
    if (!path) return ST_OK;
    if (!*path) return err_set(e, ST_IO, "cannot write a file without a name");
    if (whole || lstat(path, &own) != 0 || S_ISREG(own.st_mode)) {
        char *place;
        int st = outfile_place(path, &place, e);
        if (st == ST_OK && place) st = check_new(path, place, e);
        free(place);
        return st;
    }
    int why = stat(path, &own) != 0     ? errno
              : S_ISDIR(own.st_mode)    ? EISDIR
              : access(path, W_OK) != 0 ? errno
                                        : 0;
    return why ? err_set(e, ST_IO, "cannot write %s: %s", path, strerror(why)) : ST_OK;
}

/* ---- lines */

/* The first free of STEM.1.csv, ... */
static int put_by(const char *path, const char *stem, char left[OUTFILE_PATH])
{
    for (int i = 1; i < 1000; i++) {
        if (snprintf(left, OUTFILE_PATH, "%s.%d.csv", stem, i) >= OUTFILE_PATH) return -1;
        if (link(path, left) == 0) return unlink(path);
        if (errno != EEXIST) return rename(path, left); /* no hard links here */
    }
    return -1;
}

/* Opens and locks path; a file that its writer has removed in between is opened anew. */
static int open_lines(const char *path, struct err *e)
{
    struct stat st;
    for (int i = 0; i < 100; i++) {
        int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0666);
        if (fd < 0) {
            err_set(e, ST_IO, "cannot create %s: %s", path, strerror(errno));
            return -1;
        }
        bool held = try_lock(fd) == LOCK_HELD, there = fstat(fd, &st) == 0;
        if (!held && there && S_ISREG(st.st_mode) && st.st_nlink > 0) return fd;
        close(fd);
        if (there && !S_ISREG(st.st_mode)) {
            err_set(e, ST_IO, "cannot create %s: it is there and not a regular file", path);
            return -1;
        }
        if (held) break;
    }
    err_set(e, ST_IO, "%s: another run is writing it", path);
    return -1;
}

int outfile_lines(const char *stem, bool go_on, int *fd, char left[OUTFILE_PATH], struct err *e)
{
    char path[OUTFILE_PATH];
    struct stat st;
    left[0] = 0;
    *fd = -1;
    if (snprintf(path, sizeof path, "%s.csv", stem) >= OUTFILE_PATH)
        return err_set(e, ST_IO, "cannot create %s.csv: %s", stem, strerror(ENAMETOOLONG));
    int f = open_lines(path, e);
    if (f >= 0 && !go_on && fstat(f, &st) == 0 && st.st_size > 0) {
        bool bad = put_by(path, stem, left) != 0;
        if (bad)
            err_set(e, ST_IO, "%s: a killed run has left it, and it cannot be renamed: %s", path,
                    strerror(errno));
        close(f);
        f = bad ? -1 : open_lines(path, e);
    }
    if (f < 0) return ST_IO;
    *fd = f;
    return ST_OK;
}

int outfile_append(int fd, const char *path, const char *text, size_t n, struct err *e)
{
    off_t before = lseek(fd, 0, SEEK_END);
    size_t done = 0;
    while (done < n) { /* once, but on a full disk: the second call says why */
        ssize_t put = write(fd, text + done, n - done);
        if (put < 0 && errno == EINTR) continue;
        if (put > 0) {
            done += (size_t)put;
            continue;
        }
        int why = put < 0 ? errno : ENOSPC;
        if (done && ftruncate(fd, before) != 0) why = ENOSPC; /* a cut last line then stays */
        return err_set(e, ST_IO, "%s: cannot write: %s", path, strerror(why));
    }
    return ST_OK;
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

int outfile_spares(const char *path, const char *input, struct err *e)
{
    struct stat a, b;
    if (!path || !input || stat(path, &a) != 0 || stat(input, &b) != 0) return ST_OK;
    if (a.st_dev != b.st_dev || a.st_ino != b.st_ino || !S_ISREG(a.st_mode)) return ST_OK;
    return err_set(e, ST_USAGE, "%s is read, and would be replaced: choose another output", path);
}
