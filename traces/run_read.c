/* traces/run_read.c - reads what run.c wrote, and refuses what it did not.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "traces/run.h"

/* Text at path or, with a name, an attribute of it; NULL where there is none. */
static char *text_if_any(h5 *f, const char *path, const char *name, struct arena *a)
{
    char *text = NULL;
    if (!h5_has(f, path)) return NULL;
    int st = name ? h5_read_attr_text(f, path, name, a, &text, NULL)
                  : h5_read_text(f, path, a, &text, NULL);
    return st == ST_OK ? text : NULL;
}

int run_open(const char *path, struct arena *a, struct run_file *out, struct err *e)
{
    *out = (struct run_file){ .h5 = h5_open(path, e) };
    if (!out->h5) return e && e->status ? e->status : ST_IO;
    char *schema = text_if_any(out->h5, "/", "schema_name", a);
    if (!schema || strcmp(schema, "orrery-run") != 0) {
        run_close(out);
        return err_set(e, ST_USAGE, "%s: not a run file: its schema_name is %s, not orrery-run",
                       path, schema ? schema : "absent");
    }
    out->path = arena_copy_text(a, path, strlen(path));
    out->title = text_if_any(out->h5, "/", "title", a);
    out->kind = text_if_any(out->h5, "/provenance", "kind", a);
    if (h5_has(out->h5, "/summary"))
        out->ended_early = text_if_any(out->h5, "/summary", "ended_early", a);
    out->scenario_yaml = text_if_any(out->h5, "/scenario/yaml", NULL, a);
    if (h5_has(out->h5, "/requests/request")) {
        int64_t *index;
        size_t n;
        int st = h5_read_i64(out->h5, "/requests/request", a, &index, &n, e);
        if (st != ST_OK) {
            run_close(out);
            return st;
        }
        out->n_request = (int64_t)n;
    }
    return ST_OK;
}

void run_close(struct run_file *f)
{
    h5_close(f->h5);
    f->h5 = NULL;
}

int run_column(struct run_file *f, const char *table_column, struct arena *a, double **out,
               size_t *n, struct err *e)
{
    const char *path = *table_column == '/' ? table_column : arena_printf(a, "/%s", table_column);
    if (!h5_has(f->h5, path)) return err_set(e, ST_USAGE, "%s: no column %s", f->path, path + 1);
    return h5_read_f64(f->h5, path, a, out, n, e);
}

/* Rows are statistics, columns lower, estimate, upper; stored row by row. */
int run_read_summary(struct run_file *f, const char *name, struct arena *a, struct ci **out,
                     int *n_stat, struct err *e)
{
    const char *path = arena_printf(a, "/summary/%s", name);
    double *x;
    size_t n;
    if (!h5_has(f->h5, path)) return err_set(e, ST_USAGE, "%s: no summary %s", f->path, name);
    int st = h5_read_f64(f->h5, path, a, &x, &n, e);
    if (st != ST_OK) return st;
    if (n % 3 != 0 || n / 3 > 1000000)
        return err_set(e, ST_USAGE, "%s: %s is no summary of rows of 3", f->path, path);
    *n_stat = (int)(n / 3);
    *out = arena_array(a, n / 3, sizeof **out);
    for (size_t i = 0; i < n / 3; i++)
        (*out)[i] = (struct ci){ x[3 * i], x[3 * i + 1], x[3 * i + 2] };
    return ST_OK;
}
