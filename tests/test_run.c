/* tests/test_run.c - the run store: written, read back, and opened by h5py and xarray.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "base/prov.h"
#include "tests/test.h"
#include "traces/run.h"

enum { N = 3000 };

/* A run with a row or more in every table. */
static int write_run(const char *path, struct err *e)
{
    struct prov p;
    char *argv[] = { (char *)(uintptr_t) "orrery", (char *)(uintptr_t) "test" };
    run *r = run_create(path, e);
    if (!r) return ST_IO;
    prov_collect(&p, 2, argv);
    int st = prov_write(&p, run_h5(r), "orrery-run", "1.0.0", "a test", e);
    prov_release(&p);
    if (st == ST_OK) st = h5_attr_text(run_h5(r), "/provenance", "kind", "simulated", e);
    if (st == ST_OK) st = h5_group(run_h5(r), "/scenario", "what was asked", e);
    if (st == ST_OK)
        st = h5_text(run_h5(r), "/scenario/yaml", "seed: 1\n", "effective scenario", e);
    for (int i = 0; i < N && st == ST_OK; i++) {
        struct run_request q = { .t_due_ns = INT64_C(1000000007) * i,
                                 .t_first_ns = i % 7 ? i : -1,
                                 .n_in = i + 1,
                                 .n_out = 2 * i + 1,
                                 .session = -1,
                                 .status = (uint8_t)(i % 4),
                                 .klass = 1 };
        st = run_put_request(r, &q, e);
    }
    struct run_step step = { .t0_ns = 1, .t1_ns = 2, .n_step = 3, .kv_used_blocks = 4 };
    struct run_bin bin = { .t_ns = 5, .running = 1.5, .kv_used_ratio = 0.25, .out_tok_per_s = 1e3 };
    struct run_span span = { .t0_ns = 1, .t1_ns = 9, .stage = 1, .kind = 2 };
    struct run_sweep sweep = {
        .value = 2, .rate_per_s = 4, .ttft_p99_s = 0.5, .ttft_p99_lo_s = NAN, .overloaded = 1
    };
    const struct ci stat[2] = { { 1, 2, 3 }, { NAN, 5, NAN } };
    if (st == ST_OK) st = run_put_step(r, &step, e);
    if (st == ST_OK) st = run_put_bin(r, &bin, e);
    if (st == ST_OK) st = run_put_span(r, &span, e);
    if (st == ST_OK) st = run_put_sweep(r, &sweep, e);
    if (st == ST_OK)
        st = run_put_summary(r, "ttft_due", stat, 2, "mean p99", "ns", "jackknife over runs", e);
    if (st == ST_OK)
        st = run_put_summary(r, "tpot", stat, 1, "mean", "ns", "jackknife over runs", e);
    if (st == ST_OK) return run_commit(r, e);
    run_abort(r);
    return st;
}

TEST(run_reads_what_it_wrote)
{
    struct arena a;
    struct err e = { 0 };
    struct run_file f;
    const char *path = test_path("a.h5");
    double *x;
    size_t n;
    struct ci *stat;
    int n_stat;
    arena_init(&a);
    CHECK_OK(write_run(path, &e), &e);
    CHECK_OK(run_open(path, &a, &f, &e), &e);
    CHECK_INT(f.n_request, N);
    CHECK_TEXT(f.title, "a test");
    CHECK_TEXT(f.kind, "simulated");
    CHECK_TEXT(f.scenario_yaml, "seed: 1\n");
    CHECK_OK(run_column(&f, "requests/t_due", &a, &x, &n, &e), &e);
    CHECK_INT(n, N);
    CHECK(x[N - 1] == 1000000007.0 * (N - 1));
    CHECK_OK(run_column(&f, "requests/status", &a, &x, &n, &e), &e);
    CHECK(x[5] == 1);
    CHECK_OK(run_column(&f, "/series/kv_used", &a, &x, &n, &e), &e);
    CHECK(n == 1 && x[0] == 0.25);
    CHECK_OK(run_column(&f, "sweep/ttft_p99_lo", &a, &x, &n, &e), &e);
    CHECK(n == 1 && isnan(x[0]));
    CHECK_OK(run_read_summary(&f, "ttft_due", &a, &stat, &n_stat, &e), &e);
    CHECK_INT(n_stat, 2);
    CHECK(stat[0].lo == 1 && stat[0].mid == 2 && stat[0].hi == 3 && isnan(stat[1].lo) &&
          stat[1].mid == 5);
    CHECK_INT(run_column(&f, "requests/nothing", &a, &x, &n, &e), ST_USAGE);
    CHECK_HAS(e.text, "no column requests/nothing");
    CHECK_INT(run_read_summary(&f, "nothing", &a, &stat, &n_stat, NULL), ST_USAGE);
    run_close(&f);
    arena_release(&a);
}

TEST(run_says_how_it_ended)
{
    struct arena a;
    struct err e = { 0 };
    struct run_file f;
    arena_init(&a);
    CHECK_OK(write_run(test_path("whole.h5"), &e), &e);
    CHECK_OK(run_open(test_path("whole.h5"), &a, &f, &e), &e);
    CHECK(f.ended_early == NULL);
    run_close(&f);
    run *r = run_create(test_path("cut.h5"), &e);
    struct run_request q = { .n_in = 1, .n_out = 1 };
    if (!CHECK(r != NULL)) return;
    CHECK_OK(h5_attr_text(run_h5(r), "/", "schema_name", "orrery-run", &e), &e);
    CHECK_OK(run_put_request(r, &q, &e), &e);
    CHECK_OK(h5_group(run_h5(r), "/summary", "estimates", &e), &e);
    CHECK_OK(h5_attr_text(run_h5(r), "/summary", "ended_early", "rank 2: lost", &e), &e);
    CHECK_OK(run_commit(r, &e), &e);
    CHECK_OK(run_open(test_path("cut.h5"), &a, &f, &e), &e);
    CHECK_TEXT(f.ended_early, "rank 2: lost");
    run_close(&f);
    arena_release(&a);
}

TEST(run_is_seen_whole_or_not_at_all)
{
    struct err e = { 0 };
    const char *path = test_path("b.h5");
    char cmd[600], out[64];
    run *r = run_create(path, &e);
    if (!CHECK(r != NULL)) return;
    struct run_request q = { .n_in = 1, .n_out = 1 };
    CHECK_OK(run_put_request(r, &q, &e), &e);
    CHECK(access(path, F_OK) != 0);
    run_abort(r);
    snprintf(cmd, sizeof cmd, "ls %s | grep -c b.h5", test_dir());
    test_run(cmd, out, sizeof out, NULL, 0);
    CHECK_TEXT(out, "0\n");
    CHECK(run_create(test_path("no/such/b.h5"), &e) == NULL);
    CHECK_INT(e.status, ST_IO);
}

TEST(run_refuses_other_files)
{
    struct arena a;
    struct err e = { 0 };
    struct run_file f;
    arena_init(&a);
    CHECK_INT(run_open(test_path("absent.h5"), &a, &f, &e), ST_USAGE);
    FILE *g = fopen(test_path("c.h5"), "w");
    if (g) {
        fputs("no HDF5 in here", g);
        fclose(g);
    }
    err_clear(&e);
    CHECK_INT(run_open(test_path("c.h5"), &a, &f, &e), ST_USAGE);
    err_clear(&e);
    h5 *h = h5_create(test_path("d.h5"), &e);
    if (!CHECK(h != NULL)) return;
    CHECK_OK(h5_attr_text(h, "/", "schema_name", "orrery-bench", &e), &e);
    CHECK_OK(h5_commit(h, &e), &e);
    CHECK_INT(run_open(test_path("d.h5"), &a, &f, &e), ST_USAGE);
    CHECK_HAS(e.text, "its schema_name is orrery-bench");
    arena_release(&a);
}

static bool python(const char *path, const char *code, char *out, size_t n)
{
    char cmd[3000], err[2000];
    const char *script = test_path("look.py");
    FILE *f = fopen(script, "w");
    if (!f) return false;
    fprintf(f, "import sys\n%s", code);
    fclose(f);
    snprintf(cmd, sizeof cmd, "/usr/bin/python3 %s %s", script, path);
    int rc = test_run(cmd, out, n, err, sizeof err);
    if (rc != 0) printf("    %s\n", err);
    return rc == 0;
}

TEST(run_opens_in_h5py)
{
    struct err e = { 0 };
    char out[2000];
    const char *path = test_path("a.h5");
    CHECK_OK(write_run(path, &e), &e);
    if (test_run("/usr/bin/python3 -c 'import h5py'", NULL, 0, NULL, 0) != 0) SKIP("no h5py");
    const char *code =
        "import h5py\n"
        "f = h5py.File(sys.argv[1])\n"
        "r = f['requests']\n"
        "print(f.attrs['schema_name'], list(r)[0], len(r['t_due']), r['t_due'].attrs['units'], "
        "r['t_due'][2])\n"
        "print(r['status'].attrs['flag_meanings'], r['status'].dtype, r['t_due'].dims[0][0].name)\n"
        "bad = []\n"
        "def look(name, d):\n"
        "    if isinstance(d, h5py.Dataset) and not all(k in d.attrs for k in ('units', "
        "'long_name', 'description')) \\\n"
        "            and d.dtype.kind in 'iuf' and 'CLASS' not in d.attrs:\n"
        "        bad.append(name)\n"
        "f.visititems(look)\n"
        "print(bad, f['summary/ttft_due'].attrs['stats'], f['summary/ttft_due'].shape)\n";
    CHECK(python(path, code, out, sizeof out));
    CHECK_TEXT(out, "orrery-run request 3000 ns 2000000014\nok failed rejected unfinished uint8 "
                    "/requests/request\n"
                    "[] mean p99 (2, 3)\n");
}

TEST(run_opens_in_xarray)
{
    struct err e = { 0 };
    char out[2000];
    const char *path = test_path("a.h5");
    CHECK_OK(write_run(path, &e), &e);
    if (test_run("/usr/bin/python3 -c 'import xarray, netCDF4'", NULL, 0, NULL, 0) != 0)
        SKIP("no xarray with netCDF4");
    const char *code =
        "import xarray\n"
        "for g in ('requests', 'steps', 'series', 'stages', 'sweep', 'summary'):\n"
        "    d = xarray.open_dataset(sys.argv[1], group=g, engine='netcdf4')\n"
        "    print(g, dict(d.sizes), len(d.data_vars))\n"
        "d = xarray.open_dataset(sys.argv[1], group='requests', engine='netcdf4')\n"
        "print(d.t_due.dtype, d.t_due.units, int(d.t_due[2]), d.to_dataframe().shape)\n";
    CHECK(python(path, code, out, sizeof out));
    CHECK_TEXT(out,
               "requests {'request': 3000} 13\nsteps {'step': 1} 15\nseries {'bin': 1} 8\nstages "
               "{'span': 1} 8\n"
               "sweep {'point': 1} 31\nsummary {'ttft_due_stat': 2, 'bound': 3, 'tpot_stat': 1} 2\n"
               "int64 ns 2000000014 (3000, 13)\n");
}
