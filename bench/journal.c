/* bench/journal.c - see journal.h. SPDX-License-Identifier: Apache-2.0 */
#include "bench/journal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/outfile.h"

static void put(struct journal *j, const char *text, int n)
{
    if (j->e.status == ST_OK) (void)outfile_append(j->fd, j->path, text, (size_t)n, &j->e);
}

int journal_open(struct journal *j, const char *out_path, const char *about, struct err *e)
{
    static const char head[] = "# times in ns from run start\n"
                               "request,status,t_due,t_start,t_first,t_last,n_in,n_out,cached_in,"
                               "preempted,session,turn,replica,class\n";
    char stem[OUTFILE_PATH], left[OUTFILE_PATH];
    memset(j, 0, sizeof *j);
    j->fd = -1;
    if ((size_t)snprintf(j->path, sizeof j->path, "%s.journal.csv", out_path) >= sizeof j->path)
        return err_set(e, ST_USAGE, "the path of the run file is too long");
    snprintf(stem, sizeof stem, "%s.journal", out_path);
    int st = outfile_lines(stem, false, &j->fd, left, e);
    if (st != ST_OK) return st;
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
