/* base/h5_write.c - HDF5 files written whole or not at all.
 * SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <hdf5_hl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/h5_priv.h"
#include "base/outfile.h"
#include "base/stop.h"
#include "base/utf8.h"

/* Rows per chunk: 16 Ki values of 4 or 8 bytes are 64 or 128 KiB, where deflate has all it can use.
 */
enum { CHUNK_ROWS = 16384, MAX_RANK = 8 };

struct h5table {
    h5 *f;
    char *group;
    struct h5col *col; /* [n_col]; the texts in it stay the caller's */
    int n_col;
    hid_t index, *dset;  /* [n_col] */
    unsigned char **buf; /* [n_col][CHUNK_ROWS * size] */
    size_t n_buf;        /* rows waiting in buf */
    int64_t n_row;       /* rows in the file */
    struct h5table *next;
};

/* ---- shared with h5_read.c */

static pthread_mutex_t lock;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static h5 *writers; /* under lock */

static void start_library(void)
{
    pthread_mutexattr_t a;
    pthread_mutexattr_init(&a);
    pthread_mutexattr_settype(&a, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&lock, &a);
    pthread_mutexattr_destroy(&a);
    /* At exit the library would try again to flush a file whose disk is full, and may crash in it.
     */
    H5dont_atexit();
    /* A file may name filters that the library then loads as shared objects from the environment's
     * path: no file gets to run code. */
    H5PLset_loading_state(0);
}

void h5_lock(void)
{
    pthread_once(&once, start_library);
    pthread_mutex_lock(&lock);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL); /* each time: error stacks are per thread */
}

void h5_unlock(void)
{
    pthread_mutex_unlock(&lock);
}

/* Keeps the first, innermost entry. The file drivers' descriptions carry the system's message among
 * much else: "... errno = 28, error message = 'No space left on device', buf = ..." */
static herr_t innermost(unsigned n, const H5E_error2_t *at, void *arg)
{
    char *text = arg;
    static const char mark[] = "error message = '";
    const char *desc = at->desc ? at->desc : "", *os = strstr(desc, mark);
    if (n == 0 && os) {
        os += sizeof mark - 1;
        snprintf(text, 200, "%.*s", (int)strcspn(os, "'"), os);
    } else if (n == 0) {
        snprintf(text, 200, "%s", desc);
    }
    return 0;
}

int h5_fail(h5 *f, int status, struct err *e, const char *fmt, ...)
{
    char what[400], reason[200] = "";
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, innermost, reason);
    H5Eclear2(H5E_DEFAULT);
    if (f->part)
        err_set(&f->first, status, "%s: %s%s%s", f->path, what, *reason ? ": " : "", reason);
    return err_set(e, status, "%s: %s%s%s", f->path, what, *reason ? ": " : "", reason);
}

hid_t h5_text_type(H5T_cset_t cset)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, H5T_VARIABLE);
    H5Tset_cset(type, cset);
    return type;
}

/* ---- life of a file */

static void free_tables(h5 *f)
{
    for (struct h5table *t = f->table, *next; t; t = next) {
        next = t->next;
        for (int i = 0; i < t->n_col; i++) {
            if (t->dset[i] >= 0) H5Dclose(t->dset[i]);
            free(t->buf[i]);
        }
        if (t->index >= 0) H5Dclose(t->index);
        free(t->dset);
        free(t->buf);
        free(t->col);
        free(t->group);
        free(t);
    }
    f->table = NULL;
}

static void forget(h5 *f)
{
    for (h5 **p = &writers; *p; p = &(*p)->next)
        if (*p == f) {
            *p = f->next;
            break;
        }
    if (f->claim >= 0) close(f->claim);
    free(f->path);
    stop_unguard(f->part);
    free(f->part);
    free(f);
}

static hid_t create_part(const h5 *f)
{
    hid_t fapl = H5Pcreate(H5P_FILE_ACCESS), fcpl = H5Pcreate(H5P_FILE_CREATE);
    H5Pset_libver_bounds(fapl, H5F_LIBVER_V18, H5F_LIBVER_V18);
    H5Pset_fclose_degree(fapl, H5F_CLOSE_STRONG);
    H5Pset_file_locking(fapl, false, true); /* the private name is lock enough; NFS may have none */
    H5Pset_link_creation_order(fcpl, H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED);
    H5Pset_attr_creation_order(fcpl, H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED);
    hid_t file = H5Fcreate(f->part, H5F_ACC_TRUNC, fcpl, fapl);
    H5Pclose(fcpl);
    H5Pclose(fapl);
    return file;
}

h5 *h5_create(const char *path, struct err *e)
{
    char *place;
    if (outfile_place(path, &place, e) != ST_OK) return NULL; /* now, not after hours of work */
    size_t n = strlen(place) + 40;
    h5 *f = mem_zalloc(1, sizeof *f);
    f->path = place;
    f->claim = -1;
    f->part = mem_alloc(n);
    snprintf(f->part, n, "%s.part.%ld", place, (long)getpid());
    h5_lock();
    for (const h5 *w = writers; w; w = w->next)
        if (strcmp(w->path, place) == 0) {
            err_set(e, ST_IO, "cannot create %s: it is being written already", path);
            goto fail;
        }
    /* The system's own words for why not; HDF5 gives them in a paragraph. Not through a link that
     * somebody laid at the predictable name. */
    outfile_sweep(place);
    unlink(f->part);
    f->claim = open(f->part, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0666);
    if (f->claim < 0) {
        err_set(e, ST_IO, "cannot create %s: %s", path, strerror(errno));
        goto fail;
    }
    outfile_claim(f->claim);
    stop_guard(f->part);
    f->file = create_part(f);
    if (f->file < 0) {
        h5_fail(f, ST_IO, e, "cannot create");
        unlink(f->part);
        goto fail;
    }
    f->next = writers;
    writers = f;
    h5_unlock();
    return f;
fail:
    forget(f);
    h5_unlock();
    return NULL;
}

static int sync_path(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0) return -1;
    int rc = fsync(fd), saved = errno;
    close(fd);
    errno = saved;
    return rc;
}

/* The new name survives a power cut only once its directory is on disk. File systems that cannot
 * sync a directory say EINVAL. */
static int sync_directory(const char *path)
{
    char *dir = mem_alloc(strlen(path) + 2), *slash;
    strcpy(dir, path);
    if ((slash = strrchr(dir, '/')))
        slash[slash == dir] = 0;
    else
        strcpy(dir, ".");
    int rc = sync_path(dir, O_RDONLY | O_DIRECTORY), saved = errno;
    free(dir);
    errno = saved;
    return rc != 0 && errno != EINVAL && errno != EACCES ? -1 : 0;
}

static int flush_rows(struct h5table *t, struct err *e);

int h5_commit(h5 *f, struct err *e)
{
    h5_lock();
    int st = ST_OK;
    for (struct h5table *t = f->table; t && f->first.status == ST_OK; t = t->next)
        flush_rows(t, NULL);
    free_tables(f);
    if (f->first.status == ST_OK && H5Fflush(f->file, H5F_SCOPE_GLOBAL) < 0)
        h5_fail(f, ST_IO, NULL, "cannot write");
    if (H5Fclose(f->file) < 0) h5_fail(f, ST_IO, NULL, "cannot close");
    H5Eclear2(H5E_DEFAULT);
    if (f->first.status == ST_OK && sync_path(f->part, O_RDWR) != 0)
        err_set(&f->first, ST_IO, "cannot write %s: %s", f->path, strerror(errno));
    if (f->first.status == ST_OK && rename(f->part, f->path) != 0)
        err_set(&f->first, ST_IO, "cannot create %s: %s", f->path, strerror(errno));
    if (f->first.status != ST_OK) {
        unlink(f->part);
        st = err_set(e, f->first.status, "%s", f->first.text);
    } else if (sync_directory(f->path) != 0) {
        st = err_set(e, ST_IO, "cannot sync the directory of %s: %s", f->path, strerror(errno));
    }
    forget(f);
    h5_unlock();
    return st;
}

void h5_abort(h5 *f)
{
    if (!f) return;
    h5_lock();
    unlink(f->part);
    free_tables(f);
    H5Fclose(f->file);
    H5Eclear2(H5E_DEFAULT);
    forget(f);
    h5_unlock();
}

void h5_abort_all(void)
{
    h5_lock();
    for (h5 *f = writers; f; f = f->next) {
        unlink(f->part);
        err_set(&f->first, ST_STOPPED, "%s: given up", f->path);
    }
    h5_unlock();
}

/* ---- attributes */

/* A copy of text whose bytes that are no UTF-8 became '?': readers decode without asking. */
static char *clean_utf8(const char *text)
{
    size_t n = strlen(text);
    char *copy = mem_alloc(n + 1);
    memcpy(copy, text, n + 1);
    for (size_t i = 0, step; i < n; i += step) {
        step = utf8_step(copy + i, n - i, NULL);
        if (step) continue;
        copy[i] = '?';
        step = 1;
    }
    return copy;
}

static int put_attr(h5 *f, const char *object, const char *name, hid_t file_type, hid_t mem_type,
                    size_t n, const void *value, struct err *e)
{
    hsize_t dim = n;
    int st = ST_OK;
    hid_t space = n ? H5Screate_simple(1, &dim, NULL) : H5Screate(H5S_SCALAR), attr = -1;
    if (H5Aexists_by_name(f->file, object, name, H5P_DEFAULT) > 0)
        H5Adelete_by_name(f->file, object, name, H5P_DEFAULT);
    attr = H5Acreate_by_name(f->file, object, name, file_type, space, H5P_DEFAULT, H5P_DEFAULT,
                             H5P_DEFAULT);
    if (attr < 0 || H5Awrite(attr, mem_type, value) < 0)
        st = h5_fail(f, ST_IO, e, "cannot write attribute %s of %s", name, object);
    if (attr >= 0) H5Aclose(attr);
    H5Sclose(space);
    return st;
}

int h5_attr_text(h5 *f, const char *object, const char *name, const char *text, struct err *e)
{
    char *copy = clean_utf8(text ? text : "");
    h5_lock();
    hid_t type = h5_text_type(H5T_CSET_UTF8);
    int st = put_attr(f, object, name, type, type, 0, &copy, e);
    H5Tclose(type);
    h5_unlock();
    free(copy);
    return st;
}

int h5_attr_i64(h5 *f, const char *object, const char *name, int64_t v, struct err *e)
{
    h5_lock();
    int st = put_attr(f, object, name, H5T_STD_I64LE, H5T_NATIVE_INT64, 0, &v, e);
    h5_unlock();
    return st;
}

int h5_attr_f64(h5 *f, const char *object, const char *name, double v, struct err *e)
{
    h5_lock();
    int st = put_attr(f, object, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, 0, &v, e);
    h5_unlock();
    return st;
}

/* units, long_name and description of the dataset at path. */
static int describe(h5 *f, const char *path, const char *units, const char *description,
                    struct err *e)
{
    const char *slash = strrchr(path, '/');
    char name[256];
    snprintf(name, sizeof name, "%s", slash ? slash + 1 : path);
    for (char *p = name; *p; p++)
        if (*p == '_') *p = ' ';
    int st = h5_attr_text(f, path, "units", units ? units : "1", e);
    if (st == ST_OK) st = h5_attr_text(f, path, "long_name", name, e);
    if (st == ST_OK && description) st = h5_attr_text(f, path, "description", description, e);
    return st;
}

/* ---- groups, arrays, texts */

/* Creates the groups of `path` that are missing; with `parents`, all but the last component. */
static int make_groups(h5 *f, const char *path, bool parents, struct err *e)
{
    int st = ST_OK;
    char *at = mem_alloc(strlen(path) + 1);
    strcpy(at, path);
    hid_t gcpl = H5Pcreate(H5P_GROUP_CREATE);
    H5Pset_link_creation_order(gcpl, H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED);
    H5Pset_attr_creation_order(gcpl, H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED);
    for (char *p = at; st == ST_OK && *p;) {
        char *end = p + 1 + strcspn(p + 1, "/"), kept = *end;
        if (!kept && parents) break;
        *end = 0;
        if (strcmp(at, "/") != 0 && H5Lexists(f->file, at, H5P_DEFAULT) <= 0) {
            hid_t g = H5Gcreate2(f->file, at, H5P_DEFAULT, gcpl, H5P_DEFAULT);
            if (g < 0)
                st = h5_fail(f, ST_IO, e, "cannot create group %s", at);
            else
                H5Gclose(g);
        }
        *end = kept;
        p = end;
    }
    H5Pclose(gcpl);
    free(at);
    return st;
}

int h5_group(h5 *f, const char *path, const char *description, struct err *e)
{
    h5_lock();
    int st = make_groups(f, path, false, e);
    if (st == ST_OK && description) st = h5_attr_text(f, path, "description", description, e);
    h5_unlock();
    return st;
}

static hid_t dataset_props(hsize_t chunk_rows)
{
    hid_t dcpl = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_attr_creation_order(dcpl, H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED);
    if (chunk_rows) {
        H5Pset_chunk(dcpl, 1, &chunk_rows);
        H5Pset_shuffle(dcpl);
        H5Pset_deflate(dcpl, 4);
        H5Pset_fletcher32(dcpl);
    }
    return dcpl;
}

/* A whole array of doubles, stored contiguously. Returns the open dataset, or -1 with e set. */
static hid_t put_doubles(h5 *f, const char *path, int rank, const hsize_t *dim, const double *data,
                         struct err *e)
{
    hid_t space = rank ? H5Screate_simple(rank, dim, NULL) : H5Screate(H5S_SCALAR);
    hid_t dcpl = dataset_props(0);
    hid_t d = H5Dcreate2(f->file, path, H5T_IEEE_F64LE, space, H5P_DEFAULT, dcpl, H5P_DEFAULT);
    if (d < 0 || H5Dwrite(d, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0) {
        h5_fail(f, ST_IO, e, "cannot write %s", path);
        if (d >= 0) H5Dclose(d);
        d = -1;
    }
    H5Pclose(dcpl);
    H5Sclose(space);
    return d;
}

/* Opens the scale `path` of n values, creating it when absent: from v, else 0..n-1. */
static hid_t open_scale(h5 *f, const char *path, size_t n, const double *v, const char *units,
                        struct err *e)
{
    const char *name = strrchr(path, '/') + 1;
    if (H5Lexists(f->file, path, H5P_DEFAULT) > 0) {
        hid_t d = H5Dopen2(f->file, path, H5P_DEFAULT), space = d < 0 ? -1 : H5Dget_space(d);
        bool fits = space >= 0 && H5Sget_simple_extent_ndims(space) == 1 &&
                    (size_t)H5Sget_simple_extent_npoints(space) == n && H5DSis_scale(d) > 0;
        if (space >= 0) H5Sclose(space);
        if (fits) return d;
        h5_fail(f, ST_IO, e, "%s is no dimension of %zu values", path, n);
        if (d >= 0) H5Dclose(d);
        return -1;
    }
    double *own = NULL;
    hsize_t dim = n;
    if (!v) {
        v = own = mem_zalloc(n, sizeof *own);
        for (size_t i = 0; i < n; i++) own[i] = (double)i;
    }
    hid_t d = put_doubles(f, path, 1, &dim, v, e);
    free(own);
    if (d < 0) return -1;
    if (H5DSset_scale(d, name) >= 0 && describe(f, path, units, NULL, e) == ST_OK) return d;
    h5_fail(f, ST_IO, e, "cannot make %s a dimension", path);
    H5Dclose(d);
    return -1;
}

int h5_array(h5 *f, const char *path, int rank, const size_t *n, const char *const *dim_name,
             const double *const *scale, const char *const *scale_units, const double *data,
             const char *units, const char *description, struct err *e)
{
    assert(rank >= 0 && rank <= MAX_RANK && path[0] == '/');
    hsize_t dim[MAX_RANK];
    size_t n_at = strlen(path) + 256;
    int n_parent = (int)(strrchr(path, '/') - path), st = ST_IO;
    char *at = mem_alloc(n_at);
    for (int i = 0; i < rank; i++) dim[i] = n[i];
    h5_lock();
    hid_t d =
        make_groups(f, path, true, e) == ST_OK ? put_doubles(f, path, rank, dim, data, e) : -1;
    if (d < 0) goto out;
    if ((st = describe(f, path, units, description, e)) != ST_OK) goto out;
    for (int i = 0; i < rank && st == ST_OK; i++) {
        snprintf(at, n_at, "%.*s/%.200s", n_parent, path, dim_name[i]);
        hid_t s =
            open_scale(f, at, n[i], scale ? scale[i] : NULL, scale_units ? scale_units[i] : "1", e);
        if (s < 0)
            st = ST_IO;
        else if (H5DSattach_scale(d, s, (unsigned)i) < 0)
            st = h5_fail(f, ST_IO, e, "cannot attach %s to %s", at, path);
        if (s >= 0) H5Dclose(s);
    }
out:
    if (d >= 0) H5Dclose(d);
    h5_unlock();
    free(at);
    return st;
}

int h5_text(h5 *f, const char *path, const char *text, const char *description, struct err *e)
{
    char *copy = clean_utf8(text ? text : "");
    h5_lock();
    int st = make_groups(f, path, true, e);
    hid_t type = h5_text_type(H5T_CSET_UTF8), space = H5Screate(H5S_SCALAR),
          dcpl = dataset_props(0);
    H5Pset_layout(dcpl, H5D_COMPACT); /* the reference to the text is then under a checksum */
    hid_t d =
        st != ST_OK ? -1 : H5Dcreate2(f->file, path, type, space, H5P_DEFAULT, dcpl, H5P_DEFAULT);
    if (st == ST_OK && (d < 0 || H5Dwrite(d, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, &copy) < 0))
        st = h5_fail(f, ST_IO, e, "cannot write %s", path);
    if (st == ST_OK && description) st = h5_attr_text(f, path, "description", description, e);
    if (d >= 0) H5Dclose(d);
    H5Pclose(dcpl);
    H5Sclose(space);
    H5Tclose(type);
    h5_unlock();
    free(copy);
    return st;
}

/* ---- tables */

static const size_t col_bytes[] = {
    [H5COL_I64] = 8, [H5COL_I32] = 4, [H5COL_F64] = 8,
    [H5COL_F32] = 4, [H5COL_U8] = 1,  [H5COL_U32] = 4,
};

static hid_t mem_type_of(enum h5col_type t) /* the H5T names are calls, no constants */
{
    switch (t) {
    case H5COL_I64: return H5T_NATIVE_INT64;
    case H5COL_I32: return H5T_NATIVE_INT32;
    case H5COL_F64: return H5T_NATIVE_DOUBLE;
    case H5COL_F32: return H5T_NATIVE_FLOAT;
    case H5COL_U8: return H5T_NATIVE_UINT8;
    case H5COL_U32: return H5T_NATIVE_UINT32;
    case H5COL_END: break;
    }
    return -1;
}

static hid_t file_type_of(enum h5col_type t)
{
    switch (t) {
    case H5COL_I64: return H5T_STD_I64LE;
    case H5COL_I32: return H5T_STD_I32LE;
    case H5COL_F64: return H5T_IEEE_F64LE;
    case H5COL_F32: return H5T_IEEE_F32LE;
    case H5COL_U8: return H5T_STD_U8LE;
    case H5COL_U32: return H5T_STD_U32LE;
    case H5COL_END: break;
    }
    return -1;
}

/* An empty column that grows by rows. Its chunk cache holds the one chunk being written. */
static hid_t make_column(h5table *t, const char *path, enum h5col_type type, struct err *e)
{
    hsize_t none = 0, any = H5S_UNLIMITED;
    hid_t space = H5Screate_simple(1, &none, &any), dcpl = dataset_props(CHUNK_ROWS);
    hid_t dapl = H5Pcreate(H5P_DATASET_ACCESS);
    H5Pset_chunk_cache(dapl, 11, CHUNK_ROWS * 8, 1.0);
    hid_t d = H5Dcreate2(t->f->file, path, file_type_of(type), space, H5P_DEFAULT, dcpl, dapl);
    if (d < 0) h5_fail(t->f, ST_IO, e, "cannot create %s", path);
    H5Pclose(dapl);
    H5Pclose(dcpl);
    H5Sclose(space);
    return d;
}

/* CF's flag_values and flag_meanings, from the blank-separated names of 0, 1, 2, ... */
static int put_meanings(h5 *f, const char *path, const char *meanings, struct err *e)
{
    unsigned char value[256];
    size_t n = 0;
    for (const char *p = meanings; *p && n < sizeof value; n++) {
        value[n] = (unsigned char)n;
        p += strcspn(p, " ");
        p += strspn(p, " ");
    }
    int st = put_attr(f, path, "flag_values", H5T_STD_U8LE, H5T_NATIVE_UINT8, n, value, e);
    return st == ST_OK ? h5_attr_text(f, path, "flag_meanings", meanings, e) : st;
}

static int add_column(h5table *t, int i, char *path, size_t n_path, struct err *e)
{
    const struct h5col *c = &t->col[i];
    snprintf(path, n_path, "%s/%.200s", t->group, c->name);
    t->buf[i] = mem_alloc(CHUNK_ROWS * col_bytes[c->type]);
    if ((t->dset[i] = make_column(t, path, c->type, e)) < 0) return ST_IO;
    int st = describe(t->f, path, c->units, c->description, e);
    if (st == ST_OK && c->meanings) st = put_meanings(t->f, path, c->meanings, e);
    if (st != ST_OK) return st;
    if (H5DSattach_scale(t->dset[i], t->index, 0) < 0)
        return h5_fail(t->f, ST_IO, e, "cannot attach the index to %s", path);
    return ST_OK;
}

h5table *h5_table(h5 *f, const char *group, const char *index_name, const struct h5col *cols,
                  const char *description, struct err *e)
{
    assert(group[0] == '/' && index_name);
    int n = 0, st;
    while (cols[n].type != H5COL_END) n++;
    size_t n_path = strlen(group) + 256;
    char *path = mem_alloc(n_path);
    h5table *t = mem_zalloc(1, sizeof *t);
    *t = (h5table){ .f = f, .n_col = n, .index = -1 };
    t->group = mem_alloc(strlen(group) + 1);
    strcpy(t->group, group);
    t->col = mem_alloc((size_t)n * sizeof *t->col + 1);
    memcpy(t->col, cols, (size_t)n * sizeof *t->col);
    t->dset = mem_alloc((size_t)n * sizeof *t->dset + 1);
    t->buf = mem_zalloc((size_t)n + 1, sizeof *t->buf);
    for (int i = 0; i < n; i++) t->dset[i] = -1;

    h5_lock();
    t->next = f->table; /* from here on the file owns it */
    f->table = t;
    snprintf(path, n_path, "%s/%.200s", group, index_name);
    st = h5_group(f, group, description, e);
    if (st == ST_OK && (t->index = make_column(t, path, H5COL_I64, e)) < 0) st = ST_IO;
    if (st == ST_OK && H5DSset_scale(t->index, index_name) < 0)
        st = h5_fail(f, ST_IO, e, "cannot make %s a dimension", path);
    if (st == ST_OK) st = describe(f, path, "1", "row number", e);
    for (int i = 0; i < n && st == ST_OK; i++) st = add_column(t, i, path, n_path, e);
    h5_unlock();
    free(path);
    return st == ST_OK ? t : NULL;
}

/* Appends n values to one column. `what` names it in an error. */
static int append(h5table *t, hid_t dset, hid_t type, const void *data, const char *what,
                  struct err *e)
{
    hsize_t at = (hsize_t)t->n_row, n = t->n_buf, size = at + n;
    int st = ST_OK;
    hid_t mem = H5Screate_simple(1, &n, NULL), file = -1;
    if (H5Dset_extent(dset, &size) < 0 || (file = H5Dget_space(dset)) < 0 ||
        H5Sselect_hyperslab(file, H5S_SELECT_SET, &at, NULL, &n, NULL) < 0 ||
        H5Dwrite(dset, type, mem, file, H5P_DEFAULT, data) < 0)
        st = h5_fail(t->f, ST_IO, e, "cannot write %s/%s", t->group, what); /* before other calls */
    if (file >= 0) H5Sclose(file);
    H5Sclose(mem);
    return st;
}

static int flush_rows(struct h5table *t, struct err *e)
{
    size_t n = t->n_buf;
    if (n == 0) return ST_OK;
    int64_t *row = mem_alloc(n * sizeof *row);
    for (size_t i = 0; i < n; i++) row[i] = t->n_row + (int64_t)i;
    h5_lock();
    int st = append(t, t->index, H5T_NATIVE_INT64, row, "index", e);
    for (int i = 0; i < t->n_col && st == ST_OK; i++)
        st = append(t, t->dset[i], mem_type_of(t->col[i].type), t->buf[i], t->col[i].name, e);
    h5_unlock();
    free(row);
    t->n_row += (int64_t)n;
    t->n_buf = 0;
    return st;
}

/* Gathers one member of n rows; the sizes are spelt out so that each copy is one move. */
static void gather(unsigned char *to, const unsigned char *from, size_t n, size_t stride,
                   size_t size)
{
    switch (size) {
    case 8:
        for (size_t i = 0; i < n; i++) memcpy(to + 8 * i, from + stride * i, 8);
        break;
    case 4:
        for (size_t i = 0; i < n; i++) memcpy(to + 4 * i, from + stride * i, 4);
        break;
    default:
        for (size_t i = 0; i < n; i++) to[i] = from[stride * i];
    }
}

int h5_table_put(h5table *t, const void *rows, size_t n, size_t row_bytes, struct err *e)
{
    const unsigned char *from = rows;
    while (n > 0) {
        size_t part = CHUNK_ROWS - t->n_buf < n ? CHUNK_ROWS - t->n_buf : n;
        for (int i = 0; i < t->n_col; i++) {
            size_t size = col_bytes[t->col[i].type];
            gather(t->buf[i] + t->n_buf * size, from + t->col[i].at, part, row_bytes, size);
        }
        t->n_buf += part;
        from += part * row_bytes;
        n -= part;
        if (t->n_buf < CHUNK_ROWS) continue;
        if (t->f->first.status != ST_OK) { /* no use writing on */
            t->n_buf = 0;
            return err_set(e, t->f->first.status, "%s", t->f->first.text);
        }
        int st = flush_rows(t, e);
        if (st != ST_OK) return st;
    }
    return ST_OK;
}

int64_t h5_table_rows(const h5table *t)
{
    return t->n_row + (int64_t)t->n_buf;
}
