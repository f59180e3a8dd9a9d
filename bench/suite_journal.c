/* bench/suite_journal.c - see suite_journal.h. SPDX-License-Identifier: Apache-2.0 */
#include "bench/suite_journal.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/doc.h"
#include "bench/suite_run.h"

#define MAX_BYTES ((size_t)1 << 31)
static const char first_line[] =
    "# samples of a benchmark that has not ended; orrery bench --resume goes on with it";

/* ---- writing */

static void put(struct suite_journal *j, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static void put(struct suite_journal *j, const char *fmt, ...)
{
    va_list ap, again;
    if (j->fd < 0) return;
    va_start(ap, fmt);
    va_copy(again, ap);
    size_t n = (size_t)vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (j->n + n + 1 > j->cap) {
        j->cap = 2 * (j->n + n + 1);
        j->text = mem_resize(j->text, j->cap, 1);
    }
    vsnprintf(j->text + j->n, n + 1, fmt, again);
    va_end(again);
    j->n += n;
}

void suite_journal_sample(struct suite_journal *j, const struct points_sample *x, double error)
{
    j->n_sample++;
    put(j, "s,%d,%d,%" PRId64 ",%.17g,%.17g,%d,%.17g\n", x->point, x->run, x->calls, x->s_per_call,
        x->t_s, x->noisy, error);
}

void suite_journal_look(struct suite_journal *j, const struct points_noise *x)
{
    put(j, "n,%.17g,%.17g,%.17g,%.17g\n", x->t_s, x->load, x->steal_ratio, x->spin_s);
}

void suite_journal_verdict(struct suite_journal *j, bool noisy)
{
    put(j, "j,%d\n", noisy);
}

void suite_journal_gpu(struct suite_journal *j, const struct points_gpu *x)
{
    put(j, "g,%.17g,%.17g,%.17g,%.17g,%.17g,%.17g,%" PRId64 ",%d\n", x->t_s, x->power_w,
        x->power_max_w, x->clock_hz, x->clock_min_hz, x->temperature_c, x->slowed, x->looks);
}

int suite_journal_flush(struct suite_journal *j, bool sync, struct err *e)
{
    if (j->fd < 0) return ST_OK;
    if (j->n) put(j, "e\n");
    size_t n = j->n;
    j->n = 0;
    int st = n ? outfile_append(j->fd, j->path, j->text, n, e) : ST_OK;
    if (st == ST_OK) j->n_kept = j->n_sample;
    if (st == ST_OK && sync && fsync(j->fd) != 0)
        st = err_set(e, ST_IO, "%s: cannot write: %s", j->path, strerror(errno));
    return st;
}

void suite_journal_close(struct suite_journal *j, bool remove_it)
{
    free(j->text);
    j->text = NULL;
    if (j->fd < 0) return;
    if (remove_it) unlink(j->path);
    close(j->fd);
    j->fd = -1;
}

static void put_origin(struct suite_journal *j, const struct suite_origin *o)
{
    put(j, "%s\n#identity %s\n#points %d\n#settings %s\n#host %s\n#machine %s\n", first_line,
        o->identity, o->n_row, o->settings, o->host, o->machine);
}

/* ---- whose samples they are */

/* What is not known of a file is believed. */
int suite_journal_same(const struct suite_origin *was, const struct suite_origin *here,
                       const char *path, struct err *e)
{
    if (strcmp(was->identity, here->identity) != 0 || was->n_row != here->n_row)
        return err_set(e, ST_USAGE,
                       "--resume: %s is of another suite, model, strategy or machine; give the "
                       "options it was made with, or leave --resume out",
                       path);
    if ((*was->host && strcmp(was->host, here->host) != 0) ||
        (*was->machine && strcmp(was->machine, here->machine) != 0))
        return err_set(e, ST_USAGE,
                       "--resume: %s was measured on %s (host %s), this is %s (host %s): one file "
                       "is of one machine",
                       path, was->machine, was->host, here->machine, here->host);
    if (*was->settings && strcmp(was->settings, here->settings) != 0)
        return err_set(e, ST_USAGE,
                       "--resume: %s was made with %s, this would go on with %s: give the options "
                       "it was made with, or leave --resume out",
                       path, was->settings, here->settings);
    return ST_OK;
}

/* ---- reading */

/* The next n fields behind a comma each, the last one up to the line's end. */
static bool fields(const char *at, int n, double *v)
{
    for (int i = 0; i < n; i++) {
        char *end;
        if (*at != ',' || at[1] == ' ') return false;
        v[i] = strtod(at + 1, &end);
        if (end == at + 1) return false;
        at = end;
    }
    return *at == 0;
}

static bool whole(double x, double lo, double hi)
{
    return x >= lo && x <= hi && x == floor(x);
}

static bool time_of(double x, double *last)
{
    bool fine = isfinite(x) && x >= *last;
    if (fine) *last = x;
    return fine;
}

struct reader {
    struct suite *s;
    struct suite_log *log;
    int64_t judged; /* samples before it have been */
    double sample_s, look_s, gpu_s;
};

static bool read_sample(struct reader *r, const double *v)
{
    if (!whole(v[0], 0, r->s->n_row - 1) || !whole(v[1], 0, 1e6) || !whole(v[2], 1, 1e15) ||
        !(isfinite(v[3]) && v[3] >= 0) || !time_of(v[4], &r->sample_s) || !whole(v[5], 0, 1) ||
        !(v[6] == -1 || (isfinite(v[6]) && v[6] >= 0)))
        return false;
    struct points_sample x = { .point = (int32_t)v[0],
                               .run = (int32_t)v[1],
                               .calls = (int64_t)v[2],
                               .s_per_call = v[3],
                               .t_s = v[4],
                               .noisy = v[5] > 0 };
    suite_log_sample(r->log, &x);
    if (v[6] >= 0) suite_error(r->s, x.point, v[6]);
    return true;
}

static bool read_look(struct reader *r, const double *v)
{
    struct points_noise x = { v[0], v[1], v[2], v[3] };
    if (!time_of(v[0], &r->look_s) || !(isfinite(v[1]) && v[1] >= 0) || !(v[2] >= 0 && v[2] <= 1) ||
        !(isfinite(v[3]) && v[3] >= 0))
        return false;
    suite_log_look(r->log, &x);
    return true;
}

static bool read_gpu(struct reader *r, const double *v)
{
    struct points_gpu x = { v[0], v[1], v[2], v[3], v[4], v[5], 0, 0 };
    for (int i = 1; i <= 4; i++)
        if (v[i] < 0 || isinf(v[i])) return false; /* NAN: could not be read */
    if (!time_of(v[0], &r->gpu_s) || isinf(v[5]) || !whole(v[6], 0, 9e15) ||
        !whole(v[7], 0, INT32_MAX))
        return false;
    x.slowed = (int64_t)v[6];
    x.looks = (int32_t)v[7];
    suite_log_gpu(r->log, &x);
    return true;
}

static bool read_line(struct reader *r, const char *line)
{
    double v[8];
    switch (*line) {
    case 's': return fields(line + 1, 7, v) && read_sample(r, v);
    case 'n': return fields(line + 1, 4, v) && read_look(r, v);
    case 'g': return fields(line + 1, 8, v) && read_gpu(r, v);
    case 'j':
        if (!fields(line + 1, 1, v) || !whole(v[0], 0, 1)) return false;
        suite_log_judge(r->log, r->judged, v[0] > 0);
        r->judged = r->log->n_sample;
        return true;
    case 'e': return line[1] == 0;
    default: return false;
    }
}

static void read_comment(struct suite_origin *o, const char *line)
{
    const struct {
        const char *key;
        const char **at;
    } known[] = { { "#identity ", &o->identity },
                  { "#settings ", &o->settings },
                  { "#host ", &o->host },
                  { "#machine ", &o->machine } };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strncmp(line, known[i].key, strlen(known[i].key)) == 0)
            *known[i].at = line + strlen(known[i].key);
    if (strncmp(line, "#points ", 8) == 0) o->n_row = (int)strtol(line + 8, NULL, 10);
}

/* text: whole lines. */
static int read_lines(const char *path, char *text, const struct suite_origin *here,
                      struct reader *r, struct err *e)
{
    struct suite_origin was = { "", "", "", "", -1 };
    bool compared = false;
    int64_t at = 1;
    int st = ST_OK;
    if (strncmp(text, first_line, sizeof first_line - 1) != 0)
        return err_set(e, ST_USAGE, "%s: no journal of a benchmark", path);
    for (char *line = text, *end; st == ST_OK && (end = strchr(line, '\n')); line = end + 1, at++) {
        *end = 0;
        if (*line == '#' && !compared) {
            read_comment(&was, line);
            continue;
        }
        if (!compared) st = suite_journal_same(&was, here, path, e);
        compared = true;
        if (st == ST_OK && !read_line(r, line))
            st = err_set(e, ST_USAGE, "%s:%" PRId64 ": '%.60s' is no line of a journal", path, at,
                         line);
    }
    return st;
}

/* Bytes up to the last block's end. */
static size_t whole_blocks(const char *text, size_t n)
{
    for (; n >= 3; n--)
        if (memcmp(text + n - 3, "\ne\n", 3) == 0) return n;
    return 0;
}

/* What is there, and the file cut to its whole blocks. */
static int read_back(struct suite_journal *j, const struct suite_origin *here, struct suite *s,
                     struct suite_log *log, bool *found, struct err *e)
{
    struct reader r = { .s = s, .log = log };
    struct arena a;
    char *text = NULL;
    size_t n = 0;
    arena_init(&a);
    int st = doc_read_bytes(&a, j->path, MAX_BYTES, &text, &n, e);
    if (st == ST_OK && strlen(text) != n)
        st = err_set(e, ST_USAGE, "%s: holds a zero byte, so it is no text", j->path);
    if (st == ST_OK && n > 0) {
        size_t most = n < sizeof first_line - 1 ? n : sizeof first_line - 1;
        bool ours = strncmp(text, first_line, most) == 0;
        size_t keep = ours ? whole_blocks(text, n) : n;
        text[keep] = 0;
        if (keep) st = read_lines(j->path, text, here, &r, e);
        if (st == ST_OK && keep < n && ftruncate(j->fd, (off_t)keep) != 0)
            st = err_set(e, ST_IO, "%s: cannot write: %s", j->path, strerror(errno));
        *found = keep > 0;
    }
    if (st == ST_OK) j->n_sample = j->n_kept = log->n_sample;
    if (st == ST_OK && r.judged < log->n_sample) {
        suite_log_judge(log, r.judged, true);
        suite_journal_verdict(j, true);
    }
    arena_release(&a);
    return st;
}

int suite_journal_open(struct suite_journal *j, const char *out, bool go_on,
                       const struct suite_origin *o, struct suite *s, struct suite_log *log,
                       bool *found, struct err *e)
{
    char stem[OUTFILE_PATH];
    *j = (struct suite_journal){ .fd = -1 };
    *found = false;
    if (!out) return ST_OK;
    if (snprintf(stem, sizeof stem, "%s.journal", out) >= OUTFILE_PATH - 16)
        return err_set(e, ST_USAGE, "the path of the file to write is too long");
    snprintf(j->path, sizeof j->path, "%.*s.csv", OUTFILE_PATH - 8, stem);
    int st = outfile_lines(stem, go_on, &j->fd, j->left, e);
    if (st == ST_OK && go_on) st = read_back(j, o, s, log, found, e);
    if (st == ST_OK && !*found) {
        put_origin(j, o);
        st = suite_journal_flush(j, false, e);
        if (st != ST_OK) suite_journal_close(j, true);
    }
    if (st != ST_OK) suite_journal_close(j, false);
    return st;
}
