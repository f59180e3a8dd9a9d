/* model/table_read.c - reads the CSV files of a kernel table; everything in them may be hostile.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/doc.h"
#include "base/stat.h"
#include "model/table_in.h"

enum {
    MAX_BYTES = 64 << 20,
    MAX_ROWS = 2000000,
    MAX_COLS = 32,
    MAX_NAME = 64,
    MAX_LISTS = 64,
    MAX_LINE = 4096
};
static const double max_x = 1e9, max_us = 1e9;

struct csv {
    const char *path;
    char *at, *end; /* rest of the file */
    int line;
    int col[MAX_COLS]; /* file column of each wanted one */
    int n_col;
    char *field[MAX_COLS]; /* of the present row, in file order */
    int n_field;
    struct err *e;
};

/* One measured point: up to four coordinates, seconds, and its line in the file. */
struct point {
    double x[4], s;
    int line;
};

static int split(struct csv *c)
{
    while (c->at < c->end) {
        char *nl = memchr(c->at, '\n', (size_t)(c->end - c->at));
        char *stop = nl ? nl : c->end;
        char *line = c->at;
        c->at = nl ? nl + 1 : c->end;
        c->line++;
        if (stop > line && stop[-1] == '\r') stop--;
        if (stop - line > MAX_LINE)
            return err_set(c->e, ST_USAGE, "%s:%d: line longer than %d bytes", c->path, c->line,
                           MAX_LINE);
        if (memchr(line, 0, (size_t)(stop - line)))
            return err_set(c->e, ST_USAGE, "%s:%d: a zero byte", c->path, c->line);
        if (stop == line) continue;
        *stop = 0;
        c->n_field = 0;
        for (char *p = line; p; c->n_field++) {
            if (c->n_field == MAX_COLS)
                return err_set(c->e, ST_USAGE, "%s:%d: more than %d columns", c->path, c->line,
                               MAX_COLS);
            c->field[c->n_field] = p;
            if ((p = strchr(p, ','))) *p++ = 0;
        }
        return ST_OK;
    }
    c->n_field = 0;
    return ST_OK;
}

/* Opens (or takes `text`) and finds the wanted columns (blank-separated) in the header. */
static int csv_open(struct csv *c, const char *path, const char *text, const char *wanted,
                    struct arena *a, struct err *e)
{
    size_t n = text ? strlen(text) : 0;
    int st = ST_OK;
    *c = (struct csv){ .path = path, .e = e };
    if (text)
        c->at = arena_copy_text(a, text, n);
    else
        st = doc_read_bytes(a, path, MAX_BYTES, &c->at, &n, e);
    if (st != ST_OK) return st;
    c->end = c->at + n;
    if ((st = split(c)) != ST_OK) return st;
    while (*wanted) {
        size_t len = strcspn(wanted, " ");
        int found = -1;
        for (int i = 0; i < c->n_field; i++)
            if (strlen(c->field[i]) == len && memcmp(c->field[i], wanted, len) == 0) found = i;
        if (found < 0)
            return err_set(e, ST_USAGE, "%s:1: no column '%.*s'", path, (int)len, wanted);
        c->col[c->n_col++] = found;
        wanted += len;
        while (*wanted == ' ') wanted++;
    }
    return ST_OK;
}

/* Next row into field; *more is false at the end. */
static int csv_next(struct csv *c, bool *more)
{
    int st = split(c);
    *more = st == ST_OK && c->n_field > 0;
    for (int i = 0; i < c->n_col && *more; i++)
        if (c->col[i] >= c->n_field)
            return err_set(c->e, ST_USAGE, "%s:%d: %d columns, expected more", c->path, c->line,
                           c->n_field);
    return st;
}

static int csv_number(struct csv *c, int i, double lo, double hi, double *out)
{
    const char *text = c->field[c->col[i]];
    char *end;
    *out = strtod(text, &end);
    if (end == text || *end || !isfinite(*out) || strpbrk(text, "xXnN"))
        return err_set(c->e, ST_USAGE, "%s:%d: '%.32s' is no number", c->path, c->line, text);
    if (*out < lo || *out > hi)
        return err_set(c->e, ST_USAGE, "%s:%d: %g is outside %g to %g", c->path, c->line, *out, lo,
                       hi);
    return ST_OK;
}

struct points {
    struct point *p;
    int n;
    size_t cap;
};

static int push(struct points *v, const struct point *p, struct csv *c)
{
    if (v->n == MAX_ROWS)
        return err_set(c->e, ST_USAGE, "%s: more than %d rows", c->path, MAX_ROWS);
    if ((size_t)v->n == v->cap) {
        v->cap = v->cap ? 2 * v->cap : 256;
        v->p = mem_resize(v->p, v->cap, sizeof *v->p);
    }
    v->p[v->n++] = *p;
    return ST_OK;
}

static int by_place(const void *a, const void *b)
{
    const struct point *x = a, *y = b;
    for (int i = 0; i < 4; i++)
        if (x->x[i] != y->x[i]) return x->x[i] < y->x[i] ? -1 : 1;
    return (x->line > y->line) - (x->line < y->line);
}

/* By value, not by bytes: -0 is 0. */
static bool same_place(const struct point *a, const struct point *b)
{
    for (int i = 0; i < 4; i++)
        if (a->x[i] != b->x[i]) return false;
    return true;
}

static int sort(struct points *v, struct csv *c)
{
    if (v->n > 1) qsort(v->p, (size_t)v->n, sizeof *v->p, by_place);
    for (int i = 1; i < v->n; i++)
        if (same_place(&v->p[i], &v->p[i - 1]))
            return err_set(c->e, ST_USAGE, "%s:%d: the same point as line %d", c->path,
                           v->p[i].line, v->p[i - 1].line);
    return ST_OK;
}

/* Points sorted by x[axis..axis+depth-1] become a tree of that depth. */
static void plant(const struct point *p, int n, int axis, int depth, struct arena *a,
                  struct table_tree *out)
{
    int n_value = 0;
    for (int i = 0; i < n; i++) n_value += i == 0 || p[i].x[axis] != p[i - 1].x[axis];
    out->n = n_value;
    out->x = arena_array(a, (size_t)n_value, sizeof *out->x);
    out->y = depth == 1 ? arena_array(a, (size_t)n_value, sizeof *out->y) : NULL;
    out->kid = depth > 1 ? arena_array(a, (size_t)n_value, sizeof *out->kid) : NULL;
    for (int i = 0, k = 0, j; i < n; i = j, k++) {
        for (j = i + 1; j < n && p[j].x[axis] == p[i].x[axis]; j++) continue;
        out->x[k] = p[i].x[axis];
        if (depth == 1)
            out->y[k] = p[i].s;
        else
            plant(p + i, j - i, axis + 1, depth - 1, a, out->kid + k);
    }
}

static int list_index(struct table_list *l, int *n, const char *name, struct csv *c,
                      struct arena *a)
{
    for (int i = 0; i < *n; i++)
        if (strcmp(l[i].name, name) == 0) return i;
    size_t len = strlen(name);
    if (len == 0 || len > MAX_NAME ||
        strspn(name, "abcdefghijklmnopqrstuvwxyz_0123456789") != len) {
        err_set(c->e, ST_USAGE, "%s:%d: '%.64s' is no operator name", c->path, c->line, name);
        return -1;
    }
    if (*n == MAX_LISTS) {
        err_set(c->e, ST_USAGE, "%s:%d: more than %d operators", c->path, c->line, MAX_LISTS);
        return -1;
    }
    l[*n] = (struct table_list){ .name = arena_copy_text(a, name, len) };
    return (*n)++;
}

static int read_rows(struct csv *c, struct arena *a, struct table_list *l, int *n_list,
                     struct points *v)
{
    bool more;
    int st;
    while ((st = csv_next(c, &more)) == ST_OK && more) {
        struct point p = { .line = c->line };
        int i = list_index(l, n_list, c->field[c->col[0]], c, a);
        if (i < 0) return ST_USAGE;
        p.x[0] = i;
        if ((st = csv_number(c, 1, 0, max_x, &p.x[1])) != ST_OK) return st;
        if ((st = csv_number(c, 2, 0, max_us, &p.s)) != ST_OK) return st;
        p.s *= 1e-6;
        if ((st = push(v, &p, c)) != ST_OK) return st;
    }
    return st;
}

struct source {
    const char *path, *text; /* text NULL: the file at path */
};

static int read_lists(const struct source *from, const char *columns, struct arena *a,
                      struct table_list **out, int *n_out, struct err *e)
{
    struct csv c;
    struct points v = { 0 };
    struct table_list *l = arena_array(a, MAX_LISTS, sizeof *l);
    int n_list = 0;
    int st = csv_open(&c, from->path, from->text, columns, a, e);
    if (st == ST_OK) st = read_rows(&c, a, l, &n_list, &v);
    if (st == ST_OK && v.n == 0) st = err_set(e, ST_USAGE, "%s:1: no rows", c.path);
    if (st == ST_OK) st = sort(&v, &c);
    for (int i = 0, j; st == ST_OK && i < v.n; i = j) {
        for (j = i; j < v.n && v.p[j].x[0] == v.p[i].x[0]; j++) continue;
        struct table_list *t = l + (int)v.p[i].x[0];
        t->n = j - i;
        t->x = arena_array(a, (size_t)t->n, sizeof *t->x);
        t->y = arena_array(a, (size_t)t->n, sizeof *t->y);
        for (int k = i; k < j; k++) {
            t->x[k - i] = v.p[k].x[1];
            t->y[k - i] = v.p[k].s;
        }
    }
    free(v.p);
    *out = l;
    *n_out = n_list;
    return st;
}

enum { DEC, PRE, MIXED, N_KIND };

static int read_points(struct csv *c, struct points v[N_KIND])
{
    bool more;
    int st;
    while ((st = csv_next(c, &more)) == ST_OK && more) {
        struct point p = { .line = c->line };
        for (int i = 0; i < 4 && st == ST_OK; i++) st = csv_number(c, i, 0, max_x, p.x + i);
        if (st == ST_OK) st = csv_number(c, 4, 0, max_us, &p.s);
        if (st != ST_OK) return st;
        p.s *= 1e-6;
        bool pre = p.x[0] > 0, dec = p.x[2] > 0;
        if (!pre && !dec) return err_set(c->e, ST_USAGE, "%s:%d: an empty batch", c->path, c->line);
        if ((st = push(v + (pre && dec ? MIXED : pre ? PRE : DEC), &p, c)) != ST_OK) return st;
    }
    return st;
}

static int read_attention(const char *dir, struct arena *a, struct table *t, struct err *e)
{
    struct csv c;
    struct points v[N_KIND] = { { 0 } };
    const char *path = arena_printf(a, "%s/attention.csv", dir);
    if (access(path, F_OK) != 0 && errno == ENOENT) return ST_OK;
    int st = csv_open(&c, path, NULL, "prefill_chunk kv_prefill n_decode kv_decode time_us", a, e);
    if (st == ST_OK) st = read_points(&c, v);
    if (st == ST_OK && (v[DEC].n == 0 || v[PRE].n == 0))
        st = err_set(e, ST_USAGE, "%s: no %s points", c.path,
                     v[DEC].n ? "pure prefill" : "pure decode");
    for (int k = 0; k < N_KIND && st == ST_OK; k++) st = sort(v + k, &c);
    if (st == ST_OK) {
        plant(v[DEC].p, v[DEC].n, 2, 2, a, &t->dec);
        plant(v[PRE].p, v[PRE].n, 0, 2, a, &t->pre);
        if (v[MIXED].n) plant(v[MIXED].p, v[MIXED].n, 0, 4, a, &t->mixed);
        /* a decode step never gets cheaper with longer contexts, which measurement noise of a fraction
         * of a microsecond pretends */
        for (int i = 0; i < t->dec.n; i++)
            stat_rising(t->dec.kid[i].y, NULL, (size_t)t->dec.kid[i].n);
    }
    for (int k = 0; k < N_KIND; k++) free(v[k].p);
    return st;
}

/* alpha of each bin by least squares of (t_skew - t_mean) on (t_max - t_mean), relative to t_skew,
 * in 0..1. */
static int read_skew(const char *dir, struct arena *a, struct table *t, struct err *e)
{
    struct csv c;
    const char *path = arena_printf(a, "%s/skew.csv", dir);
    if (access(path, F_OK) != 0) return ST_OK;
    int st = csv_open(&c, path, NULL, "n pc kv_mean kv_big t_mean_us t_max_us t_skew_us", a, e);
    double *num = mem_zalloc(SKEW_BINS, sizeof *num), *den = mem_zalloc(SKEW_BINS, sizeof *den);
    bool more = true;
    while (st == ST_OK && (st = csv_next(&c, &more)) == ST_OK && more) {
        double x[7];
        for (int i = 0; i < 7 && st == ST_OK; i++) st = csv_number(&c, i, 0, max_us, x + i);
        if (st != ST_OK || x[6] <= 0) continue;
        int b = table_skew_index(x[1], x[0], x[3] - x[2]);
        num[b] += (x[6] - x[4]) * (x[5] - x[4]) / (x[6] * x[6]);
        den[b] += (x[5] - x[4]) * (x[5] - x[4]) / (x[6] * x[6]);
    }
    for (int b = 0; b < SKEW_BINS; b++)
        t->alpha[b] = den[b] > 0 ? fmin(1, fmax(0, num[b] / den[b])) : -1;
    t->has_skew = st == ST_OK;
    free(num);
    free(den);
    return st;
}

static int read_both(const struct source *dense, const struct source *seq, struct arena *a,
                     struct table *t, struct err *e)
{
    int st = read_lists(dense, "layer tokens time_us", a, &t->dense, &t->n_dense, e);
    if (st == ST_OK) st = read_lists(seq, "layer sequences time_us", a, &t->seq, &t->n_seq, e);
    if (st != ST_OK) return st;
    t->dense_name = arena_array(a, (size_t)t->n_dense + 1, sizeof(char *));
    for (int i = 0; i < t->n_dense; i++) t->dense_name[i] = t->dense[i].name;
    return ST_OK;
}

int table_parse(const char *name, const char *dense, const char *per_sequence, struct arena *a,
                struct table **out, struct err *e)
{
    struct table *t = arena_alloc(a, sizeof *t);
    struct source d = { arena_printf(a, "%s:dense", name), dense };
    struct source s = { arena_printf(a, "%s:per_sequence", name), per_sequence };
    int st = read_both(&d, &s, a, t, e);
    if (st == ST_OK) *out = t;
    return st;
}

int table_read(const char *dir, struct arena *a, struct table **out, struct err *e)
{
    struct table *t = arena_alloc(a, sizeof *t);
    struct source d = { arena_printf(a, "%s/dense.csv", dir), NULL };
    struct source s = { arena_printf(a, "%s/per_sequence.csv", dir), NULL };
    int st = read_both(&d, &s, a, t, e);
    if (st == ST_OK) st = read_attention(dir, a, t, e);
    if (st == ST_OK) st = read_skew(dir, a, t, e);
    if (st == ST_OK) *out = t;
    return st;
}
