/* traces/import_text.c - MLPerf's summary and nccl-tests' standard output.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "traces/import_priv.h"

/* The next line, a copy in the arena without its end; NULL at the end of the text. */
static char *next_line(struct import_in *in, const char **at)
{
    if (!**at) return NULL;
    size_t n = strcspn(*at, "\n");
    char *line = arena_copy_text(in->a, *at, n);
    *at += n + ((*at)[n] == '\n');
    if (n > 0 && line[n - 1] == '\r') line[n - 1] = 0;
    return line;
}

static char *trim(char *s)
{
    s += strspn(s, " \t");
    for (size_t n = strlen(s); n > 0 && strchr(" \t", s[n - 1]); n--) s[n - 1] = 0;
    return s;
}

static bool whole_number(const char *text, double *out)
{
    char *end;
    if (!*text || strchr(" \t", *text)) return false;
    *out = strtod(text, &end);
    return *end == 0;
}

/* ---- MLPerf LoadGen, mlperf_log_summary.txt: "key : value" lines, times in ns */

static const char *mlperf_means(const char *key)
{
    if (strstr(key, "_latency")) return "limit asked for";
    if (strstr(key, "irst")) return "first token - due, requests of 2 tokens or more";
    if (strstr(key, "utput")) return "(last - first token) / (tokens - 1), whole ns";
    if (strstr(key, "latency (ns)")) return "last token - due";
    if (strstr(key, "Completed")) return "over the time of the last completion";
    return "";
}

static void mlperf_line(struct import_in *in, struct import_run *r, char *line)
{
    double v;
    char *colon = strrchr(line, ':');
    if (!colon) return;
    *colon = 0;
    const char *key = trim(line), *value = trim(colon + 1);
    const char *unit = strstr(key, "(ns)") ? "ns" : strstr(key, "(ms)") ? "ms" : "1";
    if (strcmp(key, "SUT name") == 0 || strcmp(key, "Scenario") == 0)
        r->title = *r->title ? arena_printf(in->a, "%s, %s", r->title, value) : value;
    if (strcmp(key, "Result is") == 0)
        import_note(r, arena_printf(in->a, "MLPerf's own verdict on the run: %s.", value));
    if (whole_number(value, &v)) import_figure(r, key, v, unit, mlperf_means(key));
}

int import_mlperf(struct import_in *in)
{
    struct import_run *r = import_add_runs(in, 1);
    const char *at = in->text;
    char *line;
    size_t n = 1;
    for (const char *p = at; *p; p++) n += *p == '\n';
    import_room(in, r, n);
    while ((line = next_line(in, &at))) mlperf_line(in, r, line);
    if (r->n_figure == 0) return err_set(in->e, ST_USAGE, "%s: no figure in it", in->path);
    return ST_OK;
}

/* ---- nccl-tests */

enum { MAX_COLUMN = 64 };
struct table {
    const char *column[MAX_COLUMN];        /* of the header, "size" first */
    int n_column, first_time, second_time; /* columns of the two times; -1: none */
    enum points_op op;
    bool has_op;
    char redop[24], root[24]; /* of the last row */
    int ranks;
    int64_t iters;
};

static int split(char *line, const char **word)
{
    int n = 0;
    char *save = NULL;
    for (char *w = strtok_r(line, " \t", &save); w && n < MAX_COLUMN;
         w = strtok_r(NULL, " \t", &save))
        word[n++] = w;
    return n;
}

static bool is_time(const char *word)
{
    return strcmp(word, "time") == 0 || strcmp(word, "cputime") == 0;
}

bool import_nccl_op(const char *name, enum points_op *out)
{
    static const struct {
        const char *name;
        enum points_op op;
    } known[] = { { "allreduce", POINTS_ALLREDUCE },
                  { "allgather", POINTS_ALLGATHER },
                  { "reducescatter", POINTS_REDUCESCATTER },
                  { "broadcast", POINTS_BROADCAST },
                  { "alltoall", POINTS_ALLTOALL },
                  { "sendrecv", POINTS_SENDRECV },
                  { "reduce", POINTS_REDUCE },
                  { "gather", POINTS_GATHER },
                  { "scatter", POINTS_SCATTER } };
    char plain[64];
    size_t n = 0;
    const char *slash = strrchr(name, '/');
    for (const char *p = slash ? slash + 1 : name; *p && n + 1 < sizeof plain; p++)
        if (*p != '_' && *p != '-') plain[n++] = (char)(*p >= 'A' && *p <= 'Z' ? *p + 32 : *p);
    plain[n] = 0;
    if (n > 4 && strcmp(plain + n - 4, "perf") == 0) plain[n - 4] = 0;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(plain, known[i].name) == 0) {
            *out = known[i].op;
            return true;
        }
    return false;
}

enum points_dtype import_nccl_dtype(const char *name)
{
    static const struct {
        const char *name;
        enum points_dtype dtype;
    } known[] = {
        { "float", POINTS_F32 },  { "half", POINTS_F16 },     { "bfloat16", POINTS_BF16 },
        { "int8", POINTS_INT8 },  { "uint8", POINTS_INT8 },   { "f8e4m3", POINTS_FP8 },
        { "f8e5m2", POINTS_FP8 }, { "fp8_e4m3", POINTS_FP8 }, { "fp8_e5m2", POINTS_FP8 }
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(name, known[i].name) == 0) return known[i].dtype;
    return POINTS_OTHER;
}

/* Where a table does not name its collective: the one program of nccl-tests that the text mentions,
 * as in the command that made it. */
static bool nccl_program(struct import_in *in, enum points_op *out)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz_";
    bool found = false;
    for (const char *p = strstr(in->text, "_perf"); p; p = strstr(p + 1, "_perf")) {
        const char *from = p;
        enum points_op op;
        while (from > in->text && strchr(letters, from[-1])) from--;
        if (!import_nccl_op(arena_copy_text(in->a, from, (size_t)(p - from)), &op)) continue;
        if (found && op != *out) return false;
        *out = op;
        found = true;
    }
    return found;
}

/* Else what the columns leave possible: only these two reduce at every rank, and one moves twice
 * the bytes. Gathers and exchanges look alike. */
static bool nccl_guess(const struct import_file *f, const char *redop, const char *root, int ranks,
                       enum points_op *out)
{
    const struct import_point *p = f->n_point ? &f->point[f->n_point - 1] : NULL; /* the largest */
    if (!p || !(p->stated_algbw > 0 && p->stated_busbw > 0) || ranks < 2) return false;
    double ratio = p->stated_busbw / p->stated_algbw;
    if (strcmp(redop, "none") == 0 || strcmp(root, "-1") != 0) return false;
    for (int k = 0; k < 2; k++) {
        *out = k ? POINTS_REDUCESCATTER : POINTS_ALLREDUCE;
        double factor = import_bus_factor(*out, ranks);
        if (ratio > .97 * factor && ratio < 1.03 * factor) return true;
    }
    return false;
}

/* "Out of bounds values : 0 OK", "Avg bus bandwidth    : 261.111" */
static void nccl_ending(struct import_file *f, const char *text)
{
    const char *colon = strchr(text, ':');
    char *end;
    if (!colon) return;
    double v = strtod(colon + 1, &end);
    if (end == colon + 1) return;
    if (strncmp(text, "Out of bounds values", 20) == 0) f->stated_wrong = v;
    if (strncmp(text, "Avg bus bandwidth", 17) == 0) f->stated_mean_busbw = v * 1e9;
}

/* A comment line: header of the table, ranks, name of the test, iterations. */
static void nccl_comment(struct import_in *in, struct table *t, char *line)
{
    static const char starts[] = "Collective test starting: ", version[] = "nccl-tests version ";
    char *text = trim(line + 1), *iters = strstr(text, " iters: ");
    if (strncmp(text, "Rank ", 5) == 0 && t->ranks++ == 0) { /* "... device  0 [0000:10:00] NAME" */
        char *name = strstr(text, " device ");
        name = name ? strstr(name, "] ") : NULL;
        if (name) in->out->machine = arena_copy_text(in->a, name + 2, strlen(name + 2));
    }
    if (strncmp(text, starts, sizeof starts - 1) == 0)
        t->has_op = import_nccl_op(text + sizeof starts - 1, &t->op);
    if (strncmp(text, version, sizeof version - 1) == 0) {
        text += sizeof version - 1;
        in->out->version = arena_copy_text(in->a, text, strcspn(text, " "));
    }
    nccl_ending(in->out, text);
    if (strncmp(text, "nThread", 7) == 0)
        for (; iters; iters = strstr(iters + 1, " iters: ")) { /* "warmup iters: " comes first */
            double v;
            char *number = arena_copy_text(in->a, iters + 8, strcspn(iters + 8, " "));
            bool warmup = iters - text >= 6 && strncmp(iters - 6, "warmup", 6) == 0;
            bool agg = iters - text >= 3 && strncmp(iters - 3, "agg", 3) == 0;
            if (!warmup && !agg && whole_number(number, &v) && v >= 1 && v <= 1e9)
                t->iters = (int64_t)v;
        }
    if (strncmp(text, "size ", 5) != 0 || !strstr(text, "busbw")) return;
    t->n_column = split(text, t->column);
    t->first_time = t->second_time = -1;
    for (int i = 0; i < t->n_column; i++) {
        if (!is_time(t->column[i])) continue;
        if (strcmp(t->column[i], "cputime") == 0) in->out->cpu_time = true;
        if (t->first_time < 0)
            t->first_time = i;
        else if (t->second_time < 0)
            t->second_time = i;
    }
}

/* The half of a row that begins at word `at`: time, bandwidths, wrong values. */
static int nccl_half(struct import_in *in, const struct table *t, const char *const *word, int n,
                     int at, int from, struct import_point *p)
{
    double time_us = NAN, v;
    *p = (struct import_point){ .stated_algbw = NAN,
                                .stated_busbw = NAN,
                                .stated_tok_per_s = NAN,
                                .stated_s = NAN,
                                .wrong = NAN,
                                .calls = t->iters ? t->iters : 1,
                                .n_sample = 1 };
    for (int i = 0; at + i < n && from + i < t->n_column; i++) {
        const char *name = t->column[from + i];
        if (i > 0 && is_time(name)) break;
        if (!whole_number(word[at + i], &v)) continue;
        if (i == 0) time_us = v;
        if (strcmp(name, "algbw") == 0) p->stated_algbw = v * 1e9;
        if (strcmp(name, "busbw") == 0) p->stated_busbw = v * 1e9;
        if (strcmp(name, "#wrong") == 0 || strcmp(name, "error") == 0) p->wrong = v;
    }
    if (!isfinite(time_us) || time_us <= 0 || time_us > 1e15)
        return err_set(in->e, ST_USAGE, "%s: row %d of the table: '%.20s' is no time in us",
                       in->path, in->out->n_point + 1, at < n ? word[at] : "");
    p->s_per_call = arena_array(in->a, 1, sizeof *p->s_per_call);
    p->s_per_call[0] = time_us * 1e-6;
    return ST_OK;
}

static int nccl_row(struct import_in *in, struct table *t, char *line)
{
    const char *word[MAX_COLUMN];
    int n = split(line, word), from[2] = { t->first_time, t->second_time };
    double bytes;
    if (!whole_number(word[0], &bytes) || !(bytes >= 0 && bytes <= 1e18) || n < t->first_time + 3)
        return err_set(in->e, ST_USAGE, "%s: a row of the table begins with '%.20s'", in->path,
                       word[0]);
    int half = t->second_time < 0 ? 0 : t->second_time - t->first_time;
    for (int i = 1; i < t->first_time; i++) {
        if (strcmp(t->column[i], "redop") == 0) snprintf(t->redop, sizeof t->redop, "%s", word[i]);
        if (strcmp(t->column[i], "root") == 0) snprintf(t->root, sizeof t->root, "%s", word[i]);
    }
    bool in_place_only = half > 0 && n <= t->n_column - half; /* blank where it was not run */
    for (int k = 0; k < 2; k++) {
        if (from[k] < 0 || (in_place_only && k == 0)) continue;
        struct import_point *p = &in->out->point[in->out->n_point];
        int st = nccl_half(in, t, word, n, in_place_only ? from[0] : from[k], from[k], p);
        if (st != ST_OK) return st;
        p->row = (struct points_row){ .op = (uint8_t)t->op,
                                      .dtype = POINTS_OTHER,
                                      .comm = POINTS_NCCL,
                                      .part = k ? POINTS_IN_PLACE : POINTS_NO_PART,
                                      .ranks = t->ranks,
                                      .bytes = bytes };
        for (int i = 1; i < t->first_time; i++)
            if (strcmp(t->column[i], "type") == 0)
                p->row.dtype = (uint8_t)import_nccl_dtype(word[i]);
        in->out->n_point++;
    }
    return ST_OK;
}

/* mpirun --tag-output puts "[1,0]<stdout>:" in front of each line. */
static char *untag(char *line)
{
    static const char tag[] = "<stdout>:";
    char *at = *line == '[' ? strstr(line, tag) : NULL;
    return at ? trim(at + sizeof tag - 1) : line;
}

int import_nccl_named(struct import_in *in, enum points_op *out)
{
    if (import_nccl_op(in->collective, out)) return ST_OK;
    return err_set(in->e, ST_USAGE, "--collective: '%.40s' is no program of nccl-tests",
                   in->collective);
}

static int nccl_settle_op(struct import_in *in, struct table *t)
{
    if (in->collective) {
        enum points_op named = t->op;
        int st = import_nccl_named(in, &t->op);
        if (st == ST_OK && t->has_op && named != t->op)
            st = err_set(in->e, ST_USAGE, "--collective: %s is of another, as it says itself",
                         in->path);
        if (st != ST_OK) return st;
    } else if (!t->has_op) {
        in->out->inferred = true;
        if (!nccl_program(in, &t->op) && !nccl_guess(in->out, t->redop, t->root, t->ranks, &t->op))
            return err_set(in->e, ST_USAGE,
                           "%s: does not say which collective it is of: give it, as "
                           "--collective=all_gather",
                           in->path);
    }
    for (int i = 0; i < in->out->n_point; i++) in->out->point[i].row.op = (uint8_t)t->op;
    return ST_OK;
}

int import_nccl_text(struct import_in *in)
{
    struct table t = { .first_time = -1, .second_time = -1 };
    const char *at = in->text;
    char *line;
    size_t n = 1;
    int st = ST_OK;
    for (const char *p = at; *p; p++) n += *p == '\n';
    in->out->point = arena_array(in->a, 2 * n, sizeof *in->out->point);
    while (st == ST_OK && (line = next_line(in, &at))) {
        line = untag(trim(line));
        if (*line == '#') nccl_comment(in, &t, line);
        /* Other lines are messages of the library. */
        if (*line < '0' || *line > '9' || t.first_time < 1 || strchr(line, '[')) continue;
        st = nccl_row(in, &t, line);
    }
    if (st == ST_OK && in->out->n_point == 0)
        st = err_set(in->e, ST_USAGE, "%s: no row of a table of nccl-tests in it", in->path);
    if (st == ST_OK) st = nccl_settle_op(in, &t);
    in->out->title = "collectives by nccl-tests";
    return st;
}
