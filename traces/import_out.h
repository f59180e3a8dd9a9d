/* traces/import_out.h - what was imported, as text, JSON, run file or points file.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TRACES_IMPORT_OUT_H
#define TRACES_IMPORT_OUT_H

#include <stdio.h>

#include "base/json.h"
#include "base/prov.h"
#include "traces/import_figures.h"

/* ---- import_print.c */
void import_print_run(const struct import_file *f, int run, const struct figures *g,
                      const struct figures_slo *slo, FILE *to);
void import_print_points(const struct import_file *f, FILE *to);

/* ---- import_print_json.c: the caller frees. */
json_t *import_json_file(const struct import_file *f);
json_t *import_json_run(const struct import_run *r, const struct figures *g,
                        const struct figures_slo *slo);
json_t *import_json_points(const struct import_file *f);
json_t *import_json_doubts(const struct import_doubts *d);

/* ---- shared by both */
const char *import_due_text(enum import_due due);
/* The file's own figure of that name; NULL: none (or name is NULL). */
const struct import_figure *import_stated(const struct import_run *r, const char *name);
bool import_agrees(double recomputed, double stated); /* to 1e-4 relative: files are rounded */
double import_point_mean_s(const struct import_point *p);

/* ---- import_store.c: files that appear whole. Errors: ST_IO, ST_USAGE. */
int import_store_run(const char *path, const struct import_file *f, const struct import_run *r,
                     const struct figures *g, const struct figures_slo *slo, const struct prov *v,
                     struct err *e);
/* Points differ in sizes only (f->mixed), else ST_USAGE. */
int import_store_points(const char *path, const struct import_file *f, const struct prov *v,
                        struct err *e);

#endif
