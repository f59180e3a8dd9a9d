/* base/h5.h - HDF5 files in the style that h5py, xarray, netCDF4 and pandas all read.
 *
 * Columnar: a table is a group; its first dataset is the index (int64 0..n-1), a dimension scale
 * that every column is attached to. Columns are 1-D, chunked, shuffled, deflated, checksummed;
 * categories are u8 with flag_values/flag_meanings; long texts are variable-length UTF-8. Every
 * column has `units` (UDUNITS short form: ns, s, 1, byte, "token s-1", "request s-1"), `long_name`
 * and `description`. Links and attributes keep creation order. Format bound to HDF5 1.8.
 * Crash safety: everything goes to PATH.part.<pid>, which is flushed, fsynced and renamed by
 * h5_commit; h5_abort removes it. A reader sees a whole file or none.
 * The HDF5 library is not re-entrant: calls are serialised by a lock inside this file.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_H5_H
#define BASE_H5_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"

typedef struct h5 h5;

enum h5col_type { H5COL_END, H5COL_I64, H5COL_I32, H5COL_F64, H5COL_F32, H5COL_U8, H5COL_U32 };

/* A column as a member of a row struct; the table of a row type ends with H5COL_END. */
struct h5col {
    const char *name;
    enum h5col_type type;
    size_t at; /* offset in the row struct */
    const char *units, *description;
    const char *meanings; /* H5COL_U8 only: blank-separated names of 0,1,2,...; else NULL */
};

/* ---- writing */
h5 *h5_create(const char *path, struct err *e); /* NULL on failure */
int h5_commit(h5 *f, struct err *e);            /* flush, fsync, rename, free */
void h5_abort(h5 *f);                           /* remove the part file, free; NULL ok */
void h5_abort_all(void); /* for a signal's orderly exit: unlinks every part file still open */

int h5_attr_text(h5 *f, const char *object, const char *name, const char *text, struct err *e);
int h5_attr_i64(h5 *f, const char *object, const char *name, int64_t v, struct err *e);
int h5_attr_f64(h5 *f, const char *object, const char *name, double v, struct err *e);
int h5_group(h5 *f, const char *path, const char *description, struct err *e);

/* A table that rows are appended to: buffered, flushed in chunks, bounded memory. */
typedef struct h5table h5table;
h5table *h5_table(h5 *f, const char *group, const char *index_name, const struct h5col *cols,
                  const char *description, struct err *e);
int h5_table_put(h5table *t, const void *rows, size_t n, size_t row_bytes, struct err *e);
int64_t h5_table_rows(const h5table *t);
/* (tables are finished by h5_commit) */

/* An n-D array of doubles with its own dimension scales, for small summaries and kernel tables.
 * dim_name[i] names a scale dataset beside it: created from scale[i] (size n[i]) on first use, and
 * then shared by name. */
int h5_array(h5 *f, const char *path, int rank, const size_t *n, const char *const *dim_name,
             const double *const *scale, const char *const *scale_units, const double *data,
             const char *units, const char *description, struct err *e);
int h5_text(h5 *f, const char *path, const char *text, const char *description, struct err *e);

/* ---- reading. Hostile files give ST_USAGE, missing ones ST_IO; nothing is trusted but lengths
 * that were checked. */
h5 *h5_open(const char *path, struct err *e);
void h5_close(h5 *f); /* NULL ok */
bool h5_has(h5 *f, const char *path);
/* A whole column as int64 or double (converted), in `a`; *n rows. Arrays of rank up to 8 come flat,
 * slowest dimension first, *n values in all. */
int h5_read_i64(h5 *f, const char *path, struct arena *a, int64_t **out, size_t *n, struct err *e);
int h5_read_f64(h5 *f, const char *path, struct arena *a, double **out, size_t *n, struct err *e);
int h5_read_text(h5 *f, const char *path, struct arena *a, char **out, struct err *e);
int h5_read_attr_text(h5 *f, const char *object, const char *name, struct arena *a, char **out,
                      struct err *e);
int h5_read_attr_i64(h5 *f, const char *object, const char *name, int64_t *out, struct err *e);
int h5_read_attr_f64(h5 *f, const char *object, const char *name, double *out, struct err *e);
/* Names of the links of a group, in creation order. */
int h5_list(h5 *f, const char *group, struct arena *a, char ***names, size_t *n, struct err *e);

#endif
