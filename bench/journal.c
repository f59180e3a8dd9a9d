/* bench/journal.c - see journal.h. SPDX-License-Identifier: Apache-2.0 */
#include "bench/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void put(struct journal *j, const char *text, int n)
{
    if (j->e.status != ST_OK) return;
    ssize_t put = write(j->fd, text, (size_t)n);
    if (put != n)
        err_set(&j->e, ST_IO, "%s: cannot write: %s", j->path, strerror(put < 0 ? errno : ENOSPC));
}

/* 1: this process has the file at j->fd to itself; 0: another one has; -1: no such lock. */
static int lock(int fd)
{
    struct flock all = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    if (fcntl(fd, F_SETLK, &all) == 0) return 1;
    return errno == EACCES || errno == EAGAIN ? 0 : -1;
}

/* What a killed run left is kept, under the first free name. */
static int put_by(const struct journal *j, const char *out_path)
{
    char old[sizeof j->path + 16];
    for (int i = 1; i < 1000; i++) {
        snprintf(old, sizeof old, "%s.journal.%d.csv", out_path, i);
        if (link(j->path, old) == 0) return unlink(j->path);
        if (errno != EEXIST) return rename(j->path, old); /* no hard links here */
    }
    errno = EEXIST;
    return -1;
}

/* Opens a fresh journal that no other run is writing. */
static int open_fresh(struct journal *j, const char *out_path, struct err *e)
{
    struct stat st;
    j->fd = open(j->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (j->fd < 0) return err_set(e, ST_IO, "%s: cannot create: %s", j->path, strerror(errno));
    int mine = lock(j->fd);
    if (mine != 0 && fstat(j->fd, &st) == 0 && st.st_size > 0 && S_ISREG(st.st_mode)) {
        close(j->fd);
        j->fd = -1;
        if (put_by(j, out_path) != 0)
            return err_set(e, ST_IO, "%s: a killed run has left it, and it cannot be renamed: %s",
                           j->path, strerror(errno));
        j->fd = open(j->path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
        if (j->fd < 0) return err_set(e, ST_IO, "%s: cannot create: %s", j->path, strerror(errno));
        mine = lock(j->fd);
    }
    if (mine != 0) return ST_OK;
    close(j->fd);
    j->fd = -1;
    return err_set(e, ST_IO, "%s: another run is writing it", j->path);
}

int journal_open(struct journal *j, const char *out_path, const char *about, struct err *e)
{
    static const char head[] = "# times in ns from run start\n"
                               "request,status,t_due,t_start,t_first,t_last,n_in,n_out,cached_in,"
                               "preempted,session,turn,replica,class\n";
    memset(j, 0, sizeof *j);
    j->fd = -1;
    if ((size_t)snprintf(j->path, sizeof j->path, "%s.journal.csv", out_path) >= sizeof j->path)
        return err_set(e, ST_USAGE, "the path of the run file is too long");
    if (open_fresh(j, out_path, e) != ST_OK) return e->status;
    put(j, about, (int)strlen(about));
    put(j, head, (int)sizeof head - 1);
    if (j->e.status != ST_OK) {
        *e = j->e;
        journal_close(j, true);
    }
    return j->e.status;
}

void journal_put(struct journal *j, const struct run_request *r, int64_t id)
{
    static const char *const status[] = { "ok", "failed", "rejected", "unfinished" };
    char line[400];
    if (j->fd < 0) return;
    int n = snprintf(line, sizeof line,
                     "%" PRId64 ",%s,%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64
                     ",%d,%d,%d,%d,%" PRId64 ",%d,%d,%d\n",
                     id, status[r->status], r->t_due_ns, r->t_start_ns, r->t_first_ns, r->t_last_ns,
                     r->n_in, r->n_out, r->cached_in, r->preempted, r->session, r->turn, r->replica,
                     r->klass);
    put(j, line, n);
}

void journal_close(struct journal *j, bool remove_it)
{
    if (j->fd < 0) return;
    close(j->fd);
    if (remove_it) unlink(j->path);
    j->fd = -1;
}
