/* tests/fuzz/fuzz_h5.c - HDF5 files that are sound as files, but not what a reader expects.
 *
 * The bytes are a program: each instruction makes, links or removes an object under the names that
 * run files use, with any type, shape, layout and attribute. The library itself writes the file, so
 * what is tested is our reading of it, not the library's own parser (tests/test_h5.c damages
 * bytes). SPDX-License-Identifier: Apache-2.0 */
#include <hdf5.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "traces/run.h"

/* Where external data and links point: a place that is not there, since to write the data of such
 * an object is to write that file. */
#define ELSEWHERE "/nonexistent/orrery-fuzz/file"
static const char *const names[] = { "/requests",      "/requests/request", "/requests/t_due",
                                     "/summary",       "/summary/ttft",     "/scenario",
                                     "/scenario/yaml", "/provenance" };
static const char *const attrs[] = { "schema_name", "title", "kind", "units", "seed", "stats" };
enum { N_NAME = sizeof names / sizeof *names, N_ATTR = sizeof attrs / sizeof *attrs };

struct program {
    const uint8_t *at, *end;
};

static unsigned next(struct program *p)
{
    return p->at < p->end ? *p->at++ : 0;
}

static const char *name(struct program *p)
{
    return names[next(p) % N_NAME];
}

/* Any type that a file may hold; the caller closes it. */
static hid_t make_type(struct program *p)
{
    const hid_t plain[] = { H5T_STD_I64LE,  H5T_STD_U8BE,  H5T_STD_I32BE,   H5T_IEEE_F64LE,
                            H5T_IEEE_F32BE, H5T_STD_B16LE, H5T_STD_REF_OBJ, H5T_UNIX_D32LE };
    unsigned kind = next(p) % 16;
    hid_t base = H5Tcopy(plain[kind % 8]), type = -1;
    hsize_t n = 1 + next(p) % 5;
    if (kind < 8) return base;
    if (kind < 11) {
        type = H5Tcopy(H5T_C_S1);
        H5Tset_size(type, kind == 8 ? H5T_VARIABLE : (size_t)n * (kind == 9 ? 1 : 4096));
        H5Tset_cset(type, next(p) & 1 ? H5T_CSET_UTF8 : H5T_CSET_ASCII);
        H5Tset_strpad(type, (H5T_str_t)(next(p) % 3));
    } else if (kind == 11) {
        type = H5Tvlen_create(base);
    } else if (kind == 12) {
        type = H5Tarray_create2(base, 1, &n);
    } else if (kind == 13) {
        type = H5Tcreate(H5T_COMPOUND, 16);
        H5Tinsert(type, "a", 0, base);
    } else if (kind == 14) {
        type = H5Tcreate(H5T_OPAQUE, (size_t)n * 7);
    } else {
        int value = 1;
        type = H5Tenum_create(H5T_NATIVE_INT);
        H5Tenum_insert(type, "one", &value);
    }
    H5Tclose(base);
    return type;
}

/* null, scalar, or up to 9 dimensions, of datasets some huge. */
static hid_t make_space(struct program *p, bool huge, hsize_t *n, int *rank)
{
    unsigned kind = next(p) % 12;
    *rank = 0;
    if (kind == 0) return H5Screate(H5S_NULL);
    if (kind == 1) return H5Screate(H5S_SCALAR);
    *rank = kind < 8 ? 1 : (int)kind - 2;
    for (int i = 0; i < *rank; i++) {
        unsigned b = next(p);
        n[i] = !huge ? b % 3 : b < 200 ? b % 9 : (hsize_t)1 << (b - 200);
    }
    return H5Screate_simple(*rank, n, NULL);
}

static hid_t make_layout(struct program *p, const hsize_t *n, int rank)
{
    hsize_t chunk[16];
    unsigned kind = next(p) % 8;
    hid_t dcpl = H5Pcreate(H5P_DATASET_CREATE);
    if (kind == 1) H5Pset_layout(dcpl, H5D_COMPACT);
    if (kind == 2) H5Pset_external(dcpl, ELSEWHERE, 0, H5F_UNLIMITED);
    if (kind >= 3 && rank > 0) {
        for (int i = 0; i < rank; i++) chunk[i] = n[i] && n[i] < 1 << 12 ? n[i] : 1 + next(p);
        H5Pset_chunk(dcpl, rank, chunk);
        if (kind & 1) H5Pset_deflate(dcpl, 1);
        if (kind & 2) H5Pset_fletcher32(dcpl);
    }
    H5Pset_alloc_time(dcpl, H5D_ALLOC_TIME_LATE);
    return dcpl;
}

/* A value for a small object, so that variable-length ones point somewhere. */
static void fill(struct program *p, hid_t object, hid_t type, hid_t space, bool is_attr)
{
    static char bytes[1 << 16];
    hssize_t n = H5Sget_simple_extent_npoints(space);
    size_t size = H5Tget_size(type);
    if (n <= 0 || n > 64 || (size_t)n * size > sizeof bytes) return;
    if (H5Tdetect_class(type, H5T_VLEN) > 0 || H5Tdetect_class(type, H5T_REFERENCE) > 0) return;
    if (H5Tis_variable_str(type) > 0) {
        const char *texts[64];
        for (int i = 0; i < 64; i++) texts[i] = i % 3 ? "orrery-run" : "a\xff\n";
        if (is_attr)
            H5Awrite(object, type, texts);
        else
            H5Dwrite(object, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, texts);
        return;
    }
    for (size_t i = 0; i < (size_t)n * size; i++) bytes[i] = (char)next(p);
    if (is_attr)
        H5Awrite(object, type, bytes);
    else
        H5Dwrite(object, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes);
}

static void add_dataset(struct program *p, hid_t f)
{
    hsize_t n[16];
    int rank;
    const char *at = name(p);
    hid_t type = make_type(p), space = make_space(p, true, n, &rank),
          dcpl = make_layout(p, n, rank);
    hid_t lcpl = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(lcpl, 1);
    hid_t d = H5Dcreate2(f, at, type, space, lcpl, dcpl, H5P_DEFAULT);
    if (d >= 0 && H5Pget_external_count(dcpl) == 0) fill(p, d, type, space, false);
    if (d >= 0) H5Dclose(d);
    H5Pclose(lcpl);
    H5Pclose(dcpl);
    H5Sclose(space);
    H5Tclose(type);
}

static void add_attr(struct program *p, hid_t f)
{
    hsize_t n[16];
    int rank;
    unsigned which = next(p);
    const char *at = which % (N_NAME + 1) < N_NAME ? names[which % (N_NAME + 1)] : "/";
    const char *attr = attrs[next(p) % N_ATTR];
    hid_t type = make_type(p), space = make_space(p, false, n, &rank);
    H5Adelete_by_name(f, at, attr, H5P_DEFAULT);
    hid_t a = H5Acreate_by_name(f, at, attr, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    if (a >= 0) {
        fill(p, a, type, space, true);
        H5Aclose(a);
    }
    H5Sclose(space);
    H5Tclose(type);
}

static void build(struct program *p, const char *path)
{
    hid_t fapl = H5Pcreate(H5P_FILE_ACCESS), gcpl = H5Pcreate(H5P_GROUP_CREATE);
    if (next(p) & 1) H5Pset_libver_bounds(fapl, H5F_LIBVER_V18, H5F_LIBVER_V18);
    H5Pset_link_creation_order(gcpl, next(p) & 1 ? H5P_CRT_ORDER_TRACKED : 0);
    hid_t f = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, fapl);
    hid_t text = H5Tcopy(H5T_C_S1), scalar = H5Screate(H5S_SCALAR);
    H5Tset_size(text, 10);
    hid_t a = H5Acreate2(f, "schema_name", text, scalar, H5P_DEFAULT, H5P_DEFAULT);
    H5Awrite(a, text, "orrery-run");
    H5Aclose(a);
    H5Tclose(text);
    H5Sclose(scalar);
    for (int i = 0; i < 24 && p->at < p->end; i++) {
        unsigned op = next(p) % 10;
        if (op < 4) add_dataset(p, f);
        if (op == 4 || op == 5) add_attr(p, f);
        if (op == 6) H5Ldelete(f, name(p), H5P_DEFAULT);
        if (op == 7) {
            hid_t g = H5Gcreate2(f, name(p), H5P_DEFAULT, gcpl, H5P_DEFAULT);
            if (g >= 0) H5Gclose(g);
        }
        if (op == 8)
            H5Lcreate_hard(f, next(p) & 1 ? "/" : name(p), f, name(p), H5P_DEFAULT, H5P_DEFAULT);
        if (op == 9 && next(p) & 1) H5Lcreate_soft(name(p), f, name(p), H5P_DEFAULT, H5P_DEFAULT);
        if (op == 9) H5Lcreate_external(ELSEWHERE, "/", f, name(p), H5P_DEFAULT, H5P_DEFAULT);
    }
    H5Pclose(gcpl);
    H5Pclose(fapl);
    H5Fclose(f);
}

static void read_as_anything(h5 *f, const char *at)
{
    struct arena a;
    struct err e = { 0 };
    int64_t *v, k;
    double *x, y;
    char *text, **list;
    size_t n;
    arena_init(&a);
    fuzz_status(h5_read_i64(f, at, &a, &v, &n, &e), &e);
    err_clear(&e);
    fuzz_status(h5_read_f64(f, at, &a, &x, &n, &e), &e);
    err_clear(&e);
    fuzz_status(h5_read_text(f, at, &a, &text, &e), &e);
    err_clear(&e);
    fuzz_status(h5_list(f, at, &a, &list, &n, &e), &e);
    for (int i = 0; i < N_ATTR; i++) {
        err_clear(&e);
        fuzz_status(h5_read_attr_text(f, at, attrs[i], &a, &text, &e), &e);
        h5_read_attr_i64(f, at, attrs[i], &k, NULL);
        h5_read_attr_f64(f, at, attrs[i], &y, NULL);
    }
    arena_release(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct program p = { data, data + n };
    struct arena a;
    struct err e = { 0 };
    struct run_file r;
    struct ci *stat;
    double *x;
    size_t n_x;
    int n_stat;
    /* h5_open knows heaps of texts by this word: one among the values is rightly taken for damage. */
    for (size_t i = 0; i + 4 <= n; i++)
        if (memcmp(data + i, "GCOL", 4) == 0) return 0;
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    fuzz_file(0, "", 0);
    build(&p, fuzz_path(0));
    h5 *f = h5_open(fuzz_path(0), &e);
    if (!f) fprintf(stderr, "%s\n", e.text);
    FUZZ_CHECK(f);
    read_as_anything(f, "/");
    for (int i = 0; i < N_NAME; i++) read_as_anything(f, names[i]);
    h5_close(f);
    arena_init(&a);
    int st = run_open(fuzz_path(0), &a, &r, &e);
    fuzz_status(st, &e);
    if (st == ST_OK) {
        fuzz_status(run_column(&r, "requests/t_due", &a, &x, &n_x, &e), &e);
        err_clear(&e);
        fuzz_status(run_read_summary(&r, "ttft", &a, &stat, &n_stat, &e), &e);
        run_close(&r);
    }
    arena_release(&a);
    return 0;
}
