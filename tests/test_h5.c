/* tests/test_h5.c - HDF5 files: round trip, other readers, full disks, damaged files.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/h5.h"

#include <glob.h>
#include <hdf5.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/rng.h"
#include "tests/test.h"

struct row {
    int64_t t;
    int32_t n;
    double x;
    float y;
    uint8_t kind;
    uint32_t gap;
};
static const struct h5col cols[] = {
    { "t_due", H5COL_I64, offsetof(struct row, t), "ns", "due", NULL },
    { "n_out", H5COL_I32, offsetof(struct row, n), "1", "tokens", NULL },
    { "x", H5COL_F64, offsetof(struct row, x), "token s-1", "a rate", NULL },
    { "y", H5COL_F32, offsetof(struct row, y), "1", NULL, NULL },
    { "status", H5COL_U8, offsetof(struct row, kind), "1", "how it ended", "done failed shed" },
    { "gap", H5COL_U32, offsetof(struct row, gap), "us", "gap", NULL },
    { .type = H5COL_END },
};

static struct row row_at(int64_t i)
{
    uint64_t m = mix64((uint64_t)i + 1);
    return (struct row){ INT64_MAX - i, (int32_t)-i,      (double)i * 0.1,
                         (float)i,      (uint8_t)(i % 3), (uint32_t)m };
}

static int write_file(const char *path, int64_t n, struct err *e)
{
    h5 *f = h5_create(path, e);
    if (!f) return e->status;
    h5table *t = h5_table(f, "/run/requests", "request", cols, "what happened", e);
    for (int64_t i = 0; t && i < n; i++) {
        struct row r = row_at(i);
        if (h5_table_put(t, &r, 1, sizeof r, e) != ST_OK) break;
    }
    if (t && e->status == ST_OK) CHECK_INT(h5_table_rows(t), n);
    static const double q[] = { 0.5, 0.9, 0.99 }, data[] = { 1, 2, 3, 4, 5, 6 };
    const char *const dims[] = { "bound", "quantile" }, *const units[] = { "1", "1" };
    const double *const scale[] = { NULL, q };
    h5_array(f, "/summary/ttft", 2, (const size_t[]){ 2, 3 }, dims, scale, units, data, "s", "d",
             e);
    h5_array(f, "/summary/tpot", 1, (const size_t[]){ 3 }, dims + 1, NULL, NULL, data, "s", "d", e);
    h5_text(f, "/scenario/text", "policy: vllm\n# \xc3\xa9 \xff\n", "as used", e);
    h5_attr_i64(f, "/", "seed", -7, e);
    h5_attr_f64(f, "/summary/ttft", "level", 0.95, e);
    h5_attr_text(f, "/", "title", "first", e);
    h5_attr_text(f, "/", "title", "t\xc3\xa9st", e);
    return h5_commit(f, e);
}

static int n_part_files(void)
{
    glob_t g;
    int n = glob(test_path("*.part.*"), 0, NULL, &g) == 0 ? (int)g.gl_pathc : 0;
    globfree(&g);
    return n;
}

TEST(h5_round_trip)
{
    enum { N = 40000 };
    struct err e = { 0 };
    struct arena a;
    int64_t *t, *idx, seed;
    double *x, level;
    char *text, **names;
    size_t n;
    arena_init(&a);
    CHECK_OK(write_file(test_path("a.h5"), N, &e), &e);
    CHECK_INT(n_part_files(), 0);
    h5 *f = h5_open(test_path("a.h5"), &e);
    if (!CHECK(f != NULL)) return;
    CHECK_OK(h5_read_i64(f, "/run/requests/t_due", &a, &t, &n, &e), &e);
    CHECK_INT(n, N);
    CHECK_OK(h5_read_i64(f, "/run/requests/request", &a, &idx, &n, &e), &e);
    CHECK_OK(h5_read_f64(f, "/run/requests/x", &a, &x, &n, &e), &e);
    for (int64_t i = 0; i < N; i++)
        if (!CHECK(t[i] == row_at(i).t && idx[i] == i && x[i] == row_at(i).x)) break;
    CHECK_OK(h5_read_i64(f, "/run/requests/gap", &a, &t, &n, &e), &e);
    for (int64_t i = 0; i < N; i++)
        if (!CHECK(t[i] == row_at(i).gap)) break;
    CHECK_OK(h5_read_f64(f, "/summary/ttft", &a, &x, &n, &e), &e);
    CHECK(n == 6 && x[5] == 6);
    CHECK_OK(h5_read_text(f, "/scenario/text", &a, &text, &e), &e);
    CHECK_TEXT(text, "policy: vllm\n# \xc3\xa9 ?\n");
    CHECK_OK(h5_read_attr_text(f, "/", "title", &a, &text, &e), &e);
    CHECK_TEXT(text, "t\xc3\xa9st");
    CHECK_OK(h5_read_attr_i64(f, "/", "seed", &seed, &e), &e);
    CHECK_INT(seed, -7);
    CHECK_OK(h5_read_attr_f64(f, "/summary/ttft", "level", &level, &e), &e);
    CHECK_NEAR(level, 0.95, 0);
    CHECK_OK(h5_list(f, "/run/requests", &a, &names, &n, &e), &e);
    CHECK_INT(n, 7);
    CHECK_TEXT(names[0], "request"); /* creation order, not the alphabet */
    CHECK_TEXT(names[1], "t_due");
    CHECK(h5_has(f, "/run/requests/x") && h5_has(f, "/") && !h5_has(f, "/run/none/x"));
    CHECK_INT(h5_read_i64(f, "/none", &a, &t, &n, NULL), ST_USAGE);
    CHECK_INT(h5_read_i64(f, "/run", &a, &t, &n, NULL), ST_USAGE);
    CHECK_INT(h5_read_i64(f, "/scenario/text", &a, &t, &n, NULL), ST_USAGE);
    CHECK_INT(h5_read_text(f, "/summary/ttft", &a, &text, NULL), ST_USAGE);
    CHECK_INT(h5_read_attr_i64(f, "/", "title", &seed, NULL), ST_USAGE);
    CHECK_INT(h5_read_attr_i64(f, "/", "none", &seed, NULL), ST_USAGE);
    h5_close(f);
    arena_release(&a);
}

TEST(h5_other_readers_agree)
{
    char out[2000], err[2000], cmd[1600];
    struct err e = { 0 };
    if (test_run("/usr/bin/python3 -c 'import h5py, xarray, netCDF4'", NULL, 0, NULL, 0) != 0)
        SKIP("no h5py, xarray, netCDF4 in /usr/bin/python3");
    CHECK_OK(write_file(test_path("py.h5"), 20000, &e), &e);
    snprintf(
        cmd, sizeof cmd,
        "/usr/bin/python3 -c '\n"
        "import h5py, xarray, sys\n"
        "p = sys.argv[1]\n"
        "f = h5py.File(p)\n"
        "g = f[\"run/requests\"]\n"
        "print(list(g)[:2], g[\"t_due\"][19999], g[\"x\"].attrs[\"units\"], f.attrs[\"title\"])\n"
        "print(f[\"scenario/text\"][()].decode().split()[1], g[\"t_due\"].dims[0][0].name)\n"
        "d = xarray.open_dataset(p, group=\"run/requests\", engine=\"netcdf4\")\n"
        "print(dict(d.sizes), d.status.attrs[\"flag_meanings\"], int(d.n_out[5]), d.t_due.dtype)\n"
        "s = xarray.open_dataset(p, group=\"summary\", engine=\"netcdf4\")\n"
        "print(s.ttft.dims, float(s.ttft.sel(quantile=0.99)[1]), s.tpot.dims)\n"
        "' %s",
        test_path("py.h5"));
    CHECK_INT(test_run(cmd, out, sizeof out, err, sizeof err), 0);
    CHECK_TEXT(out, "['request', 't_due'] 9223372036854755808 token s-1 t\xc3\xa9st\n"
                    "vllm /run/requests/request\n"
                    "{'request': 20000} done failed shed -5 int64\n"
                    "('bound', 'quantile') 6.0 ('quantile',)\n");
}

TEST(h5_abort_and_bad_paths_leave_nothing)
{
    struct err e = { 0 };
    h5 *f = h5_create(test_path("b.h5"), &e);
    if (!CHECK(f != NULL)) return;
    CHECK_INT(n_part_files(), 1);
    CHECK(h5_create(test_path("b.h5"), &e) == NULL);
    CHECK_HAS(e.text, "being written already");
    h5_abort(f);
    CHECK_INT(n_part_files(), 0);
    err_clear(&e);
    CHECK(h5_create(test_path("none/b.h5"), &e) == NULL);
    CHECK_INT(e.status, ST_IO);
    CHECK_HAS(e.text, "No such file or directory");
    f = h5_create(test_path("c.h5"), NULL);
    h5_abort_all();
    CHECK_INT(n_part_files(), 0);
    CHECK_INT(h5_commit(f, NULL), ST_STOPPED);
    CHECK(access(test_path("c.h5"), F_OK) != 0);
    err_clear(&e);
    CHECK(h5_open(test_path("c.h5"), &e) == NULL);
    CHECK_INT(e.status, ST_USAGE);
    err_clear(&e);
    CHECK(h5_open(test_dir(), &e) == NULL);
    CHECK_INT(e.status, ST_USAGE);
    h5_abort(NULL);
    h5_close(NULL);
}

TEST(h5_full_disk_fails_the_commit)
{
    struct err whole = { 0 };
    struct stat fs;
    CHECK_OK(write_file(test_path("whole.h5"), 60000, &whole), &whole);
    CHECK(stat(test_path("whole.h5"), &fs) == 0);
    rlim_t all = (rlim_t)fs.st_size, limits[] = { 4096, all / 2, all - 64 };
    for (int i = 0; i < 3; i++) {
        fflush(stdout);
        pid_t pid = fork();
        if (pid == 0) { /* a file size limit fails writes as a full disk does */
            struct err e = { 0 };
            struct rlimit l = { limits[i], limits[i] };
            signal(SIGXFSZ, SIG_IGN);
            setrlimit(RLIMIT_FSIZE, &l);
            int st = write_file(test_path("full.h5"), 60000, &e);
            bool said = test_check_has(e.text, "File too large", __FILE__, __LINE__, "sentence");
            fflush(stdout);
            _exit(st == ST_IO && said ? 0 : 1);
        }
        int st = 0;
        CHECK(waitpid(pid, &st, 0) == pid);
        CHECK(WIFEXITED(st) && WEXITSTATUS(st) == 0);
        CHECK_INT(n_part_files(), 0);
        CHECK(access(test_path("full.h5"), F_OK) != 0);
    }
}

/* Reads all there is; how it fails does not matter here, only that it returns. */
static void read_all(const char *path)
{
    struct arena a;
    int64_t *v, k;
    double *x;
    char *text, **names;
    size_t n;
    h5 *f = h5_open(path, NULL);
    if (!f) return;
    arena_init(&a);
    for (int i = 0; cols[i].type != H5COL_END; i++) {
        char at[64];
        snprintf(at, sizeof at, "/run/requests/%s", cols[i].name);
        if (h5_read_i64(f, at, &a, &v, &n, NULL) == ST_OK && n > (size_t)1 << 24) abort();
        h5_read_attr_text(f, at, "units", &a, &text, NULL);
    }
    h5_read_f64(f, "/summary/ttft", &a, &x, &n, NULL);
    h5_read_text(f, "/scenario/text", &a, &text, NULL);
    h5_read_attr_text(f, "/", "title", &a, &text, NULL);
    h5_read_attr_i64(f, "/", "seed", &k, NULL);
    h5_list(f, "/", &a, &names, &n, NULL);
    h5_list(f, "/run/requests", &a, &names, &n, NULL);
    arena_release(&a);
    h5_close(f);
}

TEST(h5_damaged_files_never_crash)
{
    static unsigned char whole[1 << 20], bad[1 << 20];
    struct err e = { 0 };
    struct rng r = rng_stream(9, "h5.damage");
    CHECK_OK(write_file(test_path("ok.h5"), 500, &e), &e);
    FILE *f = fopen(test_path("ok.h5"), "rb");
    size_t n = fread(whole, 1, sizeof whole, f);
    fclose(f);
    int n_bad = 0;
    for (uint64_t k = 0; k < 300; k++) {
        struct rng c = rng_child(r, k);
        size_t len = k % 5 == 0 ? rng_below(c, 0, n) : n;
        memcpy(bad, whole, n);
        for (uint64_t j = 0; k % 5 != 0 && j < 1 + k % 40; j++)
            bad[rng_below(c, 2 * j, n)] = (unsigned char)rng_bits(c, 2 * j + 1);
        f = fopen(test_path("bad.h5"), "wb");
        fwrite(bad, 1, len, f);
        fclose(f);
        fflush(stdout);
        pid_t pid = fork();
        if (pid == 0) {
            alarm(5);
            read_all(test_path("bad.h5"));
            _exit(0);
        }
        int st = 0;
        if (waitpid(pid, &st, 0) == pid && WIFEXITED(st) && WEXITSTATUS(st) == 0) continue;
        printf("    variant %d: status %#x\n", (int)k, (unsigned)st);
        n_bad++;
    }
    CHECK_INT(n_bad, 0);
}

/* n bytes under `name`: written, in deflated chunks, or only promised. */
static void put_bytes(hid_t f, const char *name, hsize_t n, const void *bytes, hsize_t chunk)
{
    hid_t space = H5Screate_simple(1, &n, NULL), dcpl = H5Pcreate(H5P_DATASET_CREATE);
    if (chunk) {
        H5Pset_chunk(dcpl, 1, &chunk);
        H5Pset_deflate(dcpl, 9);
    }
    hid_t d = H5Dcreate2(f, name, H5T_STD_U8LE, space, H5P_DEFAULT, dcpl, H5P_DEFAULT);
    if (bytes) CHECK(H5Dwrite(d, H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes) >= 0);
    H5Dclose(d);
    H5Pclose(dcpl);
    H5Sclose(space);
}

/* Rows that were promised and never written cost a file nothing, but their reader memory. */
TEST(h5_small_files_cannot_ask_for_much_memory)
{
    enum { N = 1 << 22 };
    struct arena a;
    struct err e = { 0 };
    double *x;
    size_t n;
    unsigned char *zeros = calloc(N, 1);
    hid_t f = H5Fcreate(test_path("big.h5"), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    put_bytes(f, "ballast", 1 << 16, zeros, 0); /* a file of some size makes no promise better */
    put_bytes(f, "promised", 1 << 26, NULL, 0);
    put_bytes(f, "promised_chunks", 1 << 26, NULL, 1 << 16);
    put_bytes(f, "few", 100, NULL, 0);
    put_bytes(f, "dense", N, zeros, 1 << 16);
    H5Fclose(f);
    free(zeros);
    arena_init(&a);
    h5 *h = h5_open(test_path("big.h5"), &e);
    if (!CHECK(h != NULL)) return;
    CHECK_INT(h5_read_f64(h, "/promised", &a, &x, &n, &e), ST_USAGE);
    CHECK_HAS(e.text, "claims 67108864 values, more than the file can hold");
    CHECK_INT(h5_read_f64(h, "/promised_chunks", &a, &x, &n, NULL), ST_USAGE);
    CHECK(a.total_bytes < 1 << 16);
    err_clear(&e);
    CHECK_OK(h5_read_f64(h, "/few", &a, &x, &n, &e), &e);
    CHECK(n == 100 && x[99] == 0);
    CHECK_OK(h5_read_f64(h, "/dense", &a, &x, &n, &e), &e); /* as dense as deflate gets */
    CHECK(n == N && x[N - 1] == 0);
    h5_close(h);
    arena_release(&a);
}
