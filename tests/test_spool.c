/* tests/test_spool.c - rows set aside: read back whole and in order, without a trace on the disk, and a
 * full disk said. SPDX-License-Identifier: Apache-2.0 */
#include "traces/spool.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/rng.h"
#include "tests/alloc.h"
#include "tests/test.h"
#include "traces/run.h"

struct row {
    int64_t i;
    uint64_t x;
    char pad[5];
};

static struct row row_of(int64_t i)
{
    struct row r;
    memset(&r, 0, sizeof r);
    r.i = i;
    r.x = mix64((uint64_t)i);
    return r;
}

struct check {
    int64_t n, stop_at;
    bool same;
};

static int take(void *ctx, const void *rows, size_t n, struct err *e)
{
    struct check *k = ctx;
    const struct row *r = rows;
    for (size_t i = 0; i < n; i++) {
        struct row want = row_of(k->n++);
        k->same &= memcmp(&r[i], &want, sizeof want) == 0;
    }
    return k->stop_at && k->n >= k->stop_at ? err_set(e, ST_RANGE, "enough") : ST_OK;
}

static int files_here(void)
{
    char cmd[600], out[32];
    snprintf(cmd, sizeof cmd, "ls -A %s | grep -vc std", test_dir());
    test_run(cmd, out, sizeof out, NULL, 0);
    return out[0] - '0';
}

TEST(spool_gives_rows_back_in_order)
{
    enum { CAP = SPOOL_BYTES / (int)sizeof(struct row) };
    static const int64_t many[] = { 0, 1, CAP - 1, CAP, CAP + 1, 3 * CAP, 100000 };
    struct err e = { 0 };
    for (size_t k = 0; k < sizeof many / sizeof *many; k++) {
        struct spool s;
        struct check c = { .same = true };
        CHECK_OK(spool_open(&s, test_path("x.h5"), sizeof(struct row), &e), &e);
        int64_t before = alloc_made();
        for (int64_t i = 0; i < many[k]; i++) {
            struct row r = row_of(i);
            CHECK_OK(spool_put(&s, &r, &e), &e);
        }
        CHECK_INT(alloc_made(), before);
        CHECK_INT(files_here(), 0);
        for (int again = 0; again < 2; again++) {
            c.n = 0;
            CHECK_OK(spool_each(&s, take, &c, &e), &e);
            CHECK(c.n == many[k] && c.same);
        }
        spool_close(&s);
        spool_close(&s);
    }
}

TEST(spool_stops_when_it_is_told)
{
    struct err e = { 0 };
    struct spool s;
    struct check c = { .same = true, .stop_at = 5000 };
    CHECK_OK(spool_open(&s, test_path("x.h5"), sizeof(struct row), &e), &e);
    for (int64_t i = 0; i < 50000; i++) {
        struct row r = row_of(i);
        spool_put(&s, &r, &e);
    }
    CHECK_INT(spool_each(&s, take, &c, &e), ST_RANGE);
    CHECK_TEXT(e.text, "enough");
    CHECK(c.n < 50000 && c.same);
    spool_close(&s);
}

TEST(spool_says_what_it_cannot_do)
{
    struct err e = { 0 };
    struct spool s;
    struct row r = row_of(0);
    struct rlimit little = { 100000, 100000 };
    CHECK_INT(spool_open(&s, test_path("no/such/x.h5"), sizeof r, &e), ST_IO);
    CHECK_HAS(e.text, "no/such/x.h5: cannot create a file for its rows: No such file");
    spool_close(&s);
    err_clear(&e);
    CHECK_OK(spool_open(&s, test_path("x.h5"), sizeof r, &e), &e);
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &little);
    int st = ST_OK;
    for (int i = 0; i < 100000 && st == ST_OK; i++) st = spool_put(&s, &r, &e);
    CHECK_INT(st, ST_IO);
    CHECK_HAS(e.text, "x.h5: cannot write its rows: File too large");
    spool_close(&s);
}

/* ---- of a run file */

static void put_rows(run *r, int n, struct err *e)
{
    for (int i = 0; i < n && e->status == ST_OK; i++) {
        struct run_request q = {
            .t_due_ns = i, .t_last_ns = 7 * (int64_t)i, .n_out = i % 100, .status = (uint8_t)(i % 4)
        };
        struct run_step s = { .t0_ns = i, .pairs = (int64_t)i * i, .queue = i % 9 };
        struct run_monitor m = { .step = i, .wait_ns = 3 * (int64_t)i };
        struct run_token t = { .request = i / 3, .token = i };
        struct run_anomaly a = { .t0_ns = i, .value = .5 * i };
        struct run_span g = { .t1_ns = i, .kind = (uint8_t)(i % 3) };
        run_put_request(r, &q, e);
        run_put_step(r, &s, e);
        run_put_monitor(r, &m, e);
        run_put_token(r, &t, e);
        if (i % 5 == 0) run_put_anomaly(r, &a, e);
        if (i % 7 == 0) run_put_span(r, &g, e);
    }
}

/* Rows set aside are in the file as those that were put into their tables at once, more than a chunk
 * of them; those after run_settle stand behind them. */
TEST(spool_of_a_run_file_changes_no_column)
{
    enum { N = 20000, LATE = 100 };
    static const char *const column[] = { "requests/request", "requests/t_last", "requests/status",
                                          "steps/pairs",      "steps/queue",     "monitor/wait",
                                          "tokens/request",   "tokens/token",    "anomalies/value",
                                          "stages/t1",        "stages/kind" };
    struct err e = { 0 };
    struct arena a;
    struct run_file f[2];
    arena_init(&a);
    for (int k = 0; k < 2; k++) {
        run *r = run_create(test_path(k ? "aside.h5" : "direct.h5"), &e);
        if (!CHECK(r != NULL)) return;
        CHECK_OK(h5_attr_text(run_h5(r), "/", "schema_name", "orrery-run", &e), &e);
        if (k) CHECK_OK(run_prepare(r, true, true, &e), &e);
        int64_t before = alloc_made();
        put_rows(r, N, &e);
        if (k) CHECK_INT(alloc_made(), before);
        if (k) CHECK_OK(run_settle(r, &e), &e);
        put_rows(r, LATE, &e);
        CHECK_TEXT(e.text, "");
        CHECK_OK(run_commit(r, &e), &e);
        CHECK_OK(run_open(test_path(k ? "aside.h5" : "direct.h5"), &a, &f[k], &e), &e);
    }
    for (size_t i = 0; i < sizeof column / sizeof *column; i++) {
        double *x[2];
        size_t n[2];
        for (int k = 0; k < 2; k++)
            CHECK_OK(run_column(&f[k], column[i], &a, &x[k], &n[k], &e), &e);
        CHECK(n[0] >= N / 7 && n[0] == n[1] && memcmp(x[0], x[1], n[0] * sizeof *x[0]) == 0);
    }
    CHECK_INT(f[1].n_request, N + LATE);
    for (int k = 0; k < 2; k++) run_close(&f[k]);
    arena_release(&a);
}

/* Committed without run_settle: the rows are there too. Aborted: nothing is. */
TEST(spool_of_a_run_file_ends_with_it)
{
    struct err e = { 0 };
    struct arena a;
    struct run_file f;
    arena_init(&a);
    run *r = run_create(test_path("a.h5"), &e);
    CHECK_OK(h5_attr_text(run_h5(r), "/", "schema_name", "orrery-run", &e), &e);
    CHECK_OK(run_prepare(r, false, false, &e), &e);
    put_rows(r, 10, &e);
    CHECK_OK(run_commit(r, &e), &e);
    CHECK_OK(run_open(test_path("a.h5"), &a, &f, &e), &e);
    CHECK_INT(f.n_request, 10);
    run_close(&f);
    unlink(test_path("a.h5"));
    r = run_create(test_path("a.h5"), &e);
    CHECK_OK(run_prepare(r, true, true, &e), &e);
    put_rows(r, 10, &e);
    run_abort(r);
    CHECK_INT(files_here(), 0);
    arena_release(&a);
}
