/* base/h5_read.c - reading HDF5 files that may be cut short, damaged or made to harm.
 *
 * Only what the file itself holds is read: soft and external links, external storage and virtual
 * datasets are refused, since they would name other files. Sizes are checked against the file's
 * before anything is allocated.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <hdf5_hl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/h5_priv.h"

enum { MAX_RANK = 8, MAX_NAMES = 1 << 20 };
static const hsize_t MAX_ELEMENTS = (hsize_t)1 << 31; /* 16 GiB as int64 or double */
static const size_t MAX_TEXT_BYTES = (size_t)1 << 30;

static uint64_t little_endian(const unsigned char *b, int n)
{
    uint64_t v = 0;
    while (n-- > 0) v = v << 8 | b[n];
    return v;
}

/* A global heap collection (HDF5 file format 2.0, III.E, 8-byte lengths): a head of 16 bytes with
 * the size of the whole, then objects, each a head of 16 bytes (index, uses, 0, size) and its bytes
 * padded to 8; index 0 is the free rest and counts its own head. */
static bool heap_is_sound(int fd, off_t at, uint64_t bytes)
{
    unsigned char head[16];
    for (uint64_t pos = 16; pos + 16 <= bytes;) {
        if (pread(fd, head, sizeof head, at + (off_t)pos) != (ssize_t)sizeof head) return false;
        uint64_t size = little_endian(head + 8, 8);
        if (little_endian(head, 2) == 0) { /* size 0 would keep the library here for ever */
            if (size < 16 || size > bytes - pos) return false;
            pos += size;
        } else {
            if (size > bytes - pos - 16) return false;
            pos += 16 + ((size + 7) & ~(uint64_t)7);
        }
    }
    return true;
}

/* The library trusts the object sizes in these heaps, which hold the variable-length texts, and
 * would read past its buffers: so each one is checked first. They carry no checksum and are found
 * by their signature "GCOL", version 1, three zeros; by chance it comes once in 2^64 bytes. */
static bool heaps_are_sound(int fd, size_t file_bytes)
{
    enum { BLOCK = 1 << 20, HEAD = 16 };
    static const unsigned char mark[8] = { 'G', 'C', 'O', 'L', 1, 0, 0, 0 };
    unsigned char *block = mem_alloc(BLOCK);
    bool ok = true;
    for (size_t base = 0; ok && base + HEAD <= file_bytes; base += BLOCK - HEAD) {
        ssize_t got = pread(fd, block, BLOCK, (off_t)base);
        if (got < HEAD) break;
        const unsigned char *p = block, *end = block + got - HEAD + 1;
        for (; ok && p < end && (p = memchr(p, 'G', (size_t)(end - p))); p++) {
            if (memcmp(p, mark, sizeof mark) != 0) continue;
            size_t at = base + (size_t)(p - block);
            uint64_t bytes = little_endian(p + 8, 8);
            ok = bytes >= HEAD && bytes <= file_bytes - at && heap_is_sound(fd, (off_t)at, bytes);
        }
    }
    free(block);
    return ok;
}

h5 *h5_open(const char *path, struct err *e)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hold us up */
    if (fd < 0 || fstat(fd, &st) != 0) {
        err_file(e, "read", path, errno);
        if (fd >= 0) close(fd);
        return NULL;
    }
    bool file = S_ISREG(st.st_mode), sound = file && heaps_are_sound(fd, (size_t)st.st_size);
    close(fd);
    if (!sound) {
        err_set(e, ST_USAGE,
                file ? "%s: damaged HDF5 file: a heap of texts is broken" : "%s is no file", path);
        return NULL;
    }
    h5 *f = mem_zalloc(1, sizeof *f);
    f->path = mem_alloc(strlen(path) + 1);
    strcpy(f->path, path);
    f->file_bytes = (size_t)st.st_size;
    h5_lock();
    hid_t fapl = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_fclose_degree(fapl, H5F_CLOSE_STRONG);
    H5Pset_file_locking(fapl, false, true); /* files appear whole, by rename */
    f->file = H5Fopen(path, H5F_ACC_RDONLY, fapl);
    H5Pclose(fapl);
    if (f->file < 0) {
        h5_fail(f, ST_USAGE, e, "no HDF5 file, or a damaged one");
        free(f->path);
        free(f);
        f = NULL;
    }
    h5_unlock();
    return f;
}

void h5_close(h5 *f)
{
    if (!f) return;
    h5_lock();
    H5Fclose(f->file);
    H5Eclear2(H5E_DEFAULT);
    h5_unlock();
    free(f->path);
    free(f);
}

/* Every link on the way is hard, so the object lies in this file. */
static bool reachable(h5 *f, const char *path)
{
    if (strcmp(path, "/") == 0) return true;
    bool ok = path[0] != 0;
    char *at = mem_alloc(strlen(path) + 1);
    strcpy(at, path);
    for (char *p = at; ok && *p;) {
        char *end = p + 1 + strcspn(p + 1, "/"), kept = *end;
        H5L_info_t info;
        *end = 0;
        ok = H5Lexists(f->file, at, H5P_DEFAULT) > 0 &&
             H5Lget_info(f->file, at, &info, H5P_DEFAULT) >= 0 && info.type == H5L_TYPE_HARD;
        *end = kept;
        p = end;
    }
    free(at);
    return ok && H5Oexists_by_name(f->file, path, H5P_DEFAULT) > 0;
}

bool h5_has(h5 *f, const char *path)
{
    h5_lock();
    bool ok = reachable(f, path);
    H5Eclear2(H5E_DEFAULT);
    h5_unlock();
    return ok;
}

/* Opens the dataset if its bytes are in this file and no more than could be. */
static hid_t open_dataset(h5 *f, const char *path, size_t *n, struct err *e)
{
    if (!reachable(f, path)) {
        H5Eclear2(H5E_DEFAULT);
        err_set(e, ST_USAGE, "%s: no dataset %s", f->path, path);
        return -1;
    }
    hid_t d = H5Dopen2(f->file, path, H5P_DEFAULT);
    if (d < 0) {
        h5_fail(f, ST_USAGE, e, "cannot open dataset %s", path);
        return -1;
    }
    hid_t space = H5Dget_space(d), dcpl = H5Dget_create_plist(d);
    int rank = space < 0 ? -1 : H5Sget_simple_extent_ndims(space);
    hssize_t count = space < 0 ? -1 : H5Sget_simple_extent_npoints(space);
    bool inside = dcpl >= 0 && H5Pget_layout(dcpl) != H5D_VIRTUAL && H5Pget_layout(dcpl) >= 0 &&
                  (H5Pget_layout(dcpl) != H5D_CONTIGUOUS || H5Pget_external_count(dcpl) == 0);
    if (space >= 0) H5Sclose(space);
    if (dcpl >= 0) H5Pclose(dcpl);
    if (rank >= 0 && rank <= MAX_RANK && count >= 0 && (hsize_t)count <= MAX_ELEMENTS && inside) {
        *n = (size_t)count;
        return d;
    }
    if (!inside)
        h5_fail(f, ST_USAGE, e, "%s keeps its data outside the file", path);
    else
        h5_fail(f, ST_USAGE, e, "%s has a shape that is refused: rank %d, %lld values", path, rank,
                (long long)count);
    H5Dclose(d);
    return -1;
}

/* Whether so many bytes can come from what the file stores of d. Deflate packs 1032 to 1 at best;
 * rows that were never written are read as zeros, and few of them are allowed for. */
static bool could_hold(const h5 *f, hid_t d, size_t bytes)
{
    enum { MOST_RATIO = 1040, MOST_UNWRITTEN = 1 << 16 };
    hsize_t stored = H5Dget_storage_size(d);
    if (stored > f->file_bytes) stored = f->file_bytes; /* what the file claims is not believed */
    return bytes <= MOST_UNWRITTEN || bytes / MOST_RATIO <= stored;
}

/* Chunks must be no larger than 1 GiB each: the library allocates one before it looks into it. */
static bool chunks_fit(hid_t d, size_t elt_bytes)
{
    hsize_t chunk[MAX_RANK], bytes = elt_bytes;
    hid_t dcpl = H5Dget_create_plist(d);
    int rank =
        dcpl >= 0 && H5Pget_layout(dcpl) == H5D_CHUNKED ? H5Pget_chunk(dcpl, MAX_RANK, chunk) : 0;
    if (dcpl >= 0) H5Pclose(dcpl);
    for (int i = 0; i < rank && i < MAX_RANK; i++) {
        if (chunk[i] == 0 || chunk[i] > MAX_TEXT_BYTES) return false;
        bytes *= chunk[i];
        if (bytes > MAX_TEXT_BYTES) return false;
    }
    return dcpl >= 0 && rank >= 0;
}

static int read_numbers(h5 *f, const char *path, hid_t mem_type, struct arena *a, void **out,
                        size_t *n, struct err *e)
{
    size_t count = 0;
    int st = ST_OK;
    h5_lock();
    hid_t d = open_dataset(f, path, &count, e);
    if (d < 0) {
        h5_unlock();
        return ST_USAGE;
    }
    hid_t type = H5Dget_type(d);
    H5T_class_t class = type < 0 ? H5T_NO_CLASS : H5Tget_class(type);
    size_t size = type < 0 ? 0 : H5Tget_size(type);
    if ((class != H5T_INTEGER && class != H5T_FLOAT) || size == 0 || size > 16)
        st = h5_fail(f, ST_USAGE, e, "%s holds no numbers", path);
    else if (!could_hold(f, d, count * size) || !chunks_fit(d, size))
        st = h5_fail(f, ST_USAGE, e, "%s claims %zu values, more than the file can hold", path,
                     count);
    if (st == ST_OK) {
        void *to = arena_array(a, count, 8);
        if (count && H5Dread(d, mem_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, to) < 0)
            st = h5_fail(f, ST_USAGE, e, "cannot read %s", path);
        *out = to;
        *n = count;
    }
    if (type >= 0) H5Tclose(type);
    H5Dclose(d);
    H5Eclear2(H5E_DEFAULT);
    h5_unlock();
    return st;
}

int h5_read_i64(h5 *f, const char *path, struct arena *a, int64_t **out, size_t *n, struct err *e)
{
    void *to = NULL;
    int st = read_numbers(f, path, H5T_NATIVE_INT64, a, &to, n, e);
    if (st == ST_OK) *out = to;
    return st;
}

int h5_read_f64(h5 *f, const char *path, struct arena *a, double **out, size_t *n, struct err *e)
{
    void *to = NULL;
    int st = read_numbers(f, path, H5T_NATIVE_DOUBLE, a, &to, n, e);
    if (st == ST_OK) *out = to;
    return st;
}

/* Text of a dataset or attribute of one string, variable or fixed; reads it by `is_attr`. */
static int read_string(h5 *f, hid_t from, bool is_attr, struct arena *a, char **out)
{
    hid_t type = is_attr ? H5Aget_type(from) : H5Dget_type(from);
    int st = ST_USAGE;
    if (type < 0) return st;
    if (H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) > 0) {
        hid_t mem = h5_text_type(H5Tget_cset(type)), space = H5Screate(H5S_SCALAR);
        char *text = NULL;
        herr_t rc = is_attr ? H5Aread(from, mem, &text)
                            : H5Dread(from, mem, H5S_ALL, H5S_ALL, H5P_DEFAULT, &text);
        if (rc >= 0) {
            *out = arena_copy_text(a, text ? text : "", text ? strlen(text) : 0);
            if (text) H5Dvlen_reclaim(mem, space, H5P_DEFAULT, &text);
            st = ST_OK;
        }
        H5Sclose(space);
        H5Tclose(mem);
    } else if (H5Tget_class(type) == H5T_STRING) {
        size_t n = H5Tget_size(type);
        if (n > 0 && n <= MAX_TEXT_BYTES && n <= f->file_bytes) {
            char *to = arena_alloc(a, n + 1); /* zeroed: the final NUL is there */
            hid_t mem = H5Tcopy(type);
            herr_t rc = is_attr ? H5Aread(from, mem, to)
                                : H5Dread(from, mem, H5S_ALL, H5S_ALL, H5P_DEFAULT, to);
            if (rc >= 0) {
                *out = to;
                st = ST_OK;
            }
            H5Tclose(mem);
        }
    }
    H5Tclose(type);
    return st;
}

int h5_read_text(h5 *f, const char *path, struct arena *a, char **out, struct err *e)
{
    size_t n = 0;
    int st = ST_USAGE;
    h5_lock();
    hid_t d = open_dataset(f, path, &n, e);
    if (d >= 0) {
        st = n == 1 && chunks_fit(d, 16) ? read_string(f, d, false, a, out) : ST_USAGE;
        if (st != ST_OK) h5_fail(f, st, e, "cannot read %s as a text", path);
        H5Dclose(d);
    }
    H5Eclear2(H5E_DEFAULT);
    h5_unlock();
    return st;
}

/* Opens an attribute of one element whose class is among the two; -1 with e set otherwise. */
static hid_t open_attr(h5 *f, const char *object, const char *name, H5T_class_t class,
                       H5T_class_t or_class, struct err *e)
{
    if (!reachable(f, object)) {
        err_set(e, ST_USAGE, "%s: no object %s", f->path, object);
        return -1;
    }
    if (H5Aexists_by_name(f->file, object, name, H5P_DEFAULT) <= 0) {
        err_set(e, ST_USAGE, "%s: %s has no attribute %s", f->path, object, name);
        return -1;
    }
    hid_t attr = H5Aopen_by_name(f->file, object, name, H5P_DEFAULT, H5P_DEFAULT);
    hid_t type = attr < 0 ? -1 : H5Aget_type(attr), space = attr < 0 ? -1 : H5Aget_space(attr);
    H5T_class_t has = type < 0 ? H5T_NO_CLASS : H5Tget_class(type);
    bool ok = (has == class || has == or_class) && space >= 0 &&
              H5Sget_simple_extent_npoints(space) == 1 &&
              (has == H5T_STRING || H5Tget_size(type) <= 16);
    if (type >= 0) H5Tclose(type);
    if (space >= 0) H5Sclose(space);
    if (ok) return attr;
    h5_fail(f, ST_USAGE, e, "attribute %s of %s is no %s", name, object,
            class == H5T_STRING ? "text"
            : or_class == class ? "integer"
                                : "number");
    if (attr >= 0) H5Aclose(attr);
    return -1;
}

int h5_read_attr_text(h5 *f, const char *object, const char *name, struct arena *a, char **out,
                      struct err *e)
{
    int st = ST_USAGE;
    h5_lock();
    hid_t attr = open_attr(f, object, name, H5T_STRING, H5T_STRING, e);
    if (attr >= 0) {
        st = read_string(f, attr, true, a, out);
        if (st != ST_OK) h5_fail(f, st, e, "cannot read attribute %s of %s", name, object);
        H5Aclose(attr);
    }
    H5Eclear2(H5E_DEFAULT);
    h5_unlock();
    return st;
}

static int read_number_attr(h5 *f, const char *object, const char *name, bool integer, void *out,
                            struct err *e)
{
    int st = ST_USAGE;
    h5_lock();
    hid_t attr = open_attr(f, object, name, H5T_INTEGER, integer ? H5T_INTEGER : H5T_FLOAT, e);
    if (attr >= 0) {
        st = ST_OK;
        if (H5Aread(attr, integer ? H5T_NATIVE_INT64 : H5T_NATIVE_DOUBLE, out) < 0)
            st = h5_fail(f, ST_USAGE, e, "cannot read attribute %s of %s", name, object);
        H5Aclose(attr);
    }
    H5Eclear2(H5E_DEFAULT);
    h5_unlock();
    return st;
}

int h5_read_attr_i64(h5 *f, const char *object, const char *name, int64_t *out, struct err *e)
{
    return read_number_attr(f, object, name, true, out, e);
}

int h5_read_attr_f64(h5 *f, const char *object, const char *name, double *out, struct err *e)
{
    return read_number_attr(f, object, name, false, out, e);
}

struct name {
    int64_t order; /* of creation; -1: not tracked, as files of other tools often have it */
    char *text;
};
struct names {
    struct arena *a;
    struct name *name; /* [cap], malloced */
    size_t n, cap;
};

static herr_t take_name(hid_t group, const char *name, const H5L_info_t *info, void *arg)
{
    (void)group;
    struct names *l = arg;
    if (l->n == MAX_NAMES) return -1;
    if (l->n == l->cap) {
        l->cap = l->cap ? 2 * l->cap : 64;
        l->name = mem_resize(l->name, l->cap, sizeof *l->name);
    }
    l->name[l->n++] = (struct name){ info->corder_valid ? info->corder : -1,
                                     arena_copy_text(l->a, name, strlen(name)) };
    return 0;
}

static int by_creation(const void *a, const void *b)
{
    const struct name *x = a, *y = b;
    if (x->order != y->order) return x->order < y->order ? -1 : 1;
    return strcmp(x->text, y->text);
}

int h5_list(h5 *f, const char *group, struct arena *a, char ***names, size_t *n, struct err *e)
{
    struct names l = { .a = a };
    int st = ST_OK;
    h5_lock();
    hid_t g = reachable(f, group) ? H5Gopen2(f->file, group, H5P_DEFAULT) : -1;
    if (g < 0) {
        H5Eclear2(H5E_DEFAULT);
        st = err_set(e, ST_USAGE, "%s: no group %s", f->path, group);
        goto out;
    }
    /* The library's own sorting first makes a table of all links; in a damaged group HDF5 1.10 then
     * frees rows of it that it has not filled. */
    herr_t rc = H5Literate(g, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, take_name, &l);
    if (rc < 0) st = h5_fail(f, ST_USAGE, e, "cannot list group %s", group);
    H5Gclose(g);
    if (st != ST_OK) goto out;
    if (l.n) qsort(l.name, l.n, sizeof *l.name, by_creation);
    *names = arena_array(a, l.n, sizeof **names);
    for (size_t i = 0; i < l.n; i++) (*names)[i] = l.name[i].text;
    *n = l.n;
out:
    free(l.name);
    h5_unlock();
    return st;
}
