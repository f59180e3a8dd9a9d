/* tests/accuracy_csv.c - a comma-separated table in memory.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "tests/accuracy.h"

enum { MAX_COLS = 256 };

/* Whole text of a file, or of what gzip makes of it, NUL-terminated; free() it. */
static char *slurp(const char *path, size_t *n, struct err *e)
{
    size_t len = strlen(path), cap = 1 << 16;
    bool gz = len > 3 && strcmp(path + len - 3, ".gz") == 0;
    char cmd[4200];
    if (strchr(path, '\'') || snprintf(cmd, sizeof cmd, "gzip -dc '%s'", path) >= (int)sizeof cmd) {
        err_set(e, ST_USAGE, "%s: not a name that can be read here", path);
        return NULL;
    }
    FILE *f = gz ? popen(cmd, "r") : fopen(path, "r");
    if (!f) {
        err_set(e, ST_IO, "%s: %s", path, strerror(errno));
        return NULL;
    }
    char *text = mem_alloc(cap);
    *n = 0;
    for (size_t k; (k = fread(text + *n, 1, cap - *n - 1, f)) > 0;) {
        *n += k;
        if (cap - *n < 4096) text = mem_resize(text, cap *= 2, 1);
    }
    text[*n] = 0;
    int bad = ferror(f), st = gz ? pclose(f) : fclose(f);
    if (!bad && st == 0) return text;
    free(text);
    err_set(e, ST_IO, "%s: reading failed", path);
    return NULL;
}

/* Next line of fields, quotes aside (RFC 4180, no line breaks inside); 0 at the end, -1 if there
 * are too many. */
static int fields(char **at, char *out[MAX_COLS])
{
    char *p = *at;
    while (*p == '\n' || *p == '\r') p++;
    if (!*p) return 0;
    int n = 0;
    for (bool more = true; more;) {
        if (n == MAX_COLS) return -1;
        char *to = p;
        bool quoted = *p == '"';
        if (quoted) p++;
        out[n++] = to;
        while (*p && *p != '\n' && (quoted || *p != ',')) {
            if (quoted && *p == '"') {
                if (p[1] != '"') {
                    quoted = false;
                    p++;
                    continue;
                }
                p++;
            }
            *to++ = *p++;
        }
        more = *p == ',';
        char *end = p;
        if (*p) p++;
        if (to > out[n - 1] && to[-1] == '\r' && !more) to--;
        if (to <= end) *to = 0;
    }
    *at = p;
    return n;
}

int acc_csv_read(const char *path, struct acc_csv *t, struct err *e)
{
    *t = (struct acc_csv){ .n_col = 0 };
    arena_init(&t->a);
    size_t n, cap = 1024;
    char *raw = slurp(path, &n, e), *f[MAX_COLS];
    if (!raw) return e ? e->status : ST_IO;
    char *at = arena_copy_text(&t->a, raw, n);
    free(raw);
    if ((t->n_col = fields(&at, f)) <= 0) return err_set(e, ST_USAGE, "%s: no header", path);
    t->name = arena_array(&t->a, (size_t)t->n_col, sizeof *t->name);
    memcpy(t->name, f, (size_t)t->n_col * sizeof *f);
    size_t width = (size_t)t->n_col;
    t->cell = mem_alloc(cap * width * sizeof *t->cell);
    for (int k; (k = fields(&at, f)) != 0; t->n_row++) {
        if (k != t->n_col)
            return err_set(e, ST_USAGE, "%s: data row %zu has %d fields, the header %d", path,
                           t->n_row + 1, k, t->n_col);
        if (t->n_row == cap) t->cell = mem_resize(t->cell, (cap *= 2) * width, sizeof *t->cell);
        memcpy(t->cell + t->n_row * width, f, width * sizeof *f);
    }
    return ST_OK;
}

void acc_csv_release(struct acc_csv *t)
{
    free(t->cell);
    arena_release(&t->a);
    *t = (struct acc_csv){ .n_col = 0 };
}

int acc_csv_col(const struct acc_csv *t, const char *name)
{
    for (int i = 0; i < t->n_col; i++)
        if (strcmp(t->name[i], name) == 0) return i;
    return -1;
}

const char *acc_csv_text(const struct acc_csv *t, size_t row, int col)
{
    return col < 0 || row >= t->n_row ? "" : t->cell[row * (size_t)t->n_col + (size_t)col];
}

double acc_csv_num(const struct acc_csv *t, size_t row, int col)
{
    const char *text = acc_csv_text(t, row, col);
    char *end;
    double v = strtod(text, &end);
    return end == text || *end ? NAN : v;
}

double acc_csv_named(const struct acc_csv *t, size_t row, const char *name)
{
    return acc_csv_num(t, row, acc_csv_col(t, name));
}

const char *acc_csv_word(const struct acc_csv *t, size_t row, const char *name)
{
    return acc_csv_text(t, row, acc_csv_col(t, name));
}
