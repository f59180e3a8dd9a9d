/* tests/test_points.c - the store of microbenchmark results: written, read back, damaged.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/arena.h"
#include "tests/test.h"
#include "traces/points.h"

enum { N_POINT = 40, N_RUN = 30 };

static struct points_row row_of(int i)
{
    return (struct points_row){ .op = (uint8_t)(i % POINTS_N_OP),
                                .dtype = (uint8_t)(i % 7),
                                .comm = (uint8_t)(i % 5),
                                .part = (uint8_t)(i % 15),
                                .threads = i,
                                .ranks = 2 * i,
                                .m = INT64_C(3000000000) * i,
                                .n = i + 1,
                                .k = i + 2,
                                .seqs = i + 3,
                                .ctx = i + 4,
                                .ctx_max = i + 5,
                                .head_dim = i + 6,
                                .bytes = 1e12 / (i + 1),
                                .flop = 1e15 / (i + 3),
                                .error = i % 2 ? -1 : 1e-6 * i };
}

static struct points_sample sample_of(int i)
{
    return (struct points_sample){ .point = i % N_POINT,
                                   .run = i / N_POINT,
                                   .calls = i + 1,
                                   .s_per_call = 1e-6 / (i + 1),
                                   .t_s = .25 * i,
                                   .noisy = i % 3 == 0 };
}

/* N_POINT points, N_RUN samples of each, interleaved; note: of kind, or NULL. */
static int write_points(const char *path, const char *kind, struct err *e)
{
    struct prov v;
    char *argv[] = { (char *)(uintptr_t) "orrery", (char *)(uintptr_t) "test" };
    points *p = points_create(path, "a test", e);
    int st = p ? ST_OK : e->status;
    for (int i = 0; i < N_POINT && st == ST_OK; i++) {
        struct points_row row = row_of(i);
        st = points_add(p, &row, e) == i ? ST_OK : ST_RANGE;
    }
    for (int i = 0; i < N_POINT * N_RUN && st == ST_OK; i++) {
        struct points_sample s = sample_of(i);
        struct points_noise look = { .25 * i, 1 + i, .01, 1e-3 };
        st = points_put(p, &s, e);
        if (st == ST_OK && i % 10 == 0) st = points_put_noise(p, &look, e);
    }
    if (st == ST_OK) st = points_limit(p, "read_bytes_per_s", 2.5e10, e);
    if (st == ST_OK && kind) st = points_note(p, "kind", kind, e);
    if (st == ST_OK && kind) st = points_note(p, "source_tool", "x", e);
    if (st != ST_OK) {
        points_abort(p);
        return st;
    }
    prov_collect(&v, 2, argv);
    st = points_commit(p, &v, e);
    prov_release(&v);
    return st;
}

static bool same_row(const struct points_row *a, const struct points_row *b)
{
    return a->op == b->op && a->dtype == b->dtype && a->comm == b->comm && a->part == b->part &&
           a->threads == b->threads && a->ranks == b->ranks && a->m == b->m && a->n == b->n &&
           a->k == b->k && a->seqs == b->seqs && a->ctx == b->ctx && a->ctx_max == b->ctx_max &&
           a->head_dim == b->head_dim && a->bytes == b->bytes && a->flop == b->flop &&
           a->error == b->error;
}

static bool same_sample(const struct points_sample *a, const struct points_sample *b)
{
    return a->point == b->point && a->run == b->run && a->calls == b->calls &&
           a->s_per_call == b->s_per_call && a->t_s == b->t_s && a->noisy == b->noisy;
}

TEST(points_come_back)
{
    struct arena a;
    struct err e = { 0 };
    struct points_file f;
    const char *path = test_path("a.h5");
    int same = 0;
    double limit;
    arena_init(&a);
    CHECK_OK(write_points(path, NULL, &e), &e);
    CHECK_OK(points_read(path, &a, &f, &e), &e);
    CHECK_INT(f.n_row, N_POINT);
    CHECK_INT(f.n_sample, N_POINT * N_RUN);
    CHECK_INT(f.n_noise, N_POINT * N_RUN / 10);
    for (int i = 0; i < N_POINT; i++) {
        struct points_row row = row_of(i);
        same += same_row(&row, &f.row[i]);
    }
    for (int i = 0; i < N_POINT * N_RUN; i++) {
        struct points_sample s = sample_of(i);
        same += same_sample(&s, &f.sample[i]);
    }
    CHECK_INT(same, N_POINT + N_POINT * N_RUN);
    CHECK(f.noise[3].t_s == 7.5 && f.noise[3].load == 31 && f.noise[3].spin_s == 1e-3);
    CHECK_TEXT(f.title, "a test");
    CHECK_TEXT(f.kind, "measured");
    CHECK(f.date[4] == '-' && *f.machine);
    CHECK_OK(h5_read_attr_f64(f.h5, "/limits", "read_bytes_per_s", &limit, &e), &e);
    CHECK(limit == 2.5e10);
    points_close(&f);
    arena_release(&a);
}

TEST(points_without_rows_are_a_file)
{
    struct arena a;
    struct err e = { 0 };
    struct prov v;
    struct points_file f;
    const char *path = test_path("a.h5");
    char *argv[] = { (char *)(uintptr_t) "orrery" };
    points *p = points_create(path, "", &e);
    arena_init(&a);
    prov_collect(&v, 1, argv);
    if (!CHECK(p != NULL)) return;
    CHECK_OK(points_commit(p, &v, &e), &e);
    CHECK_OK(points_read(path, &a, &f, &e), &e);
    CHECK(f.n_row == 0 && f.n_sample == 0 && f.n_noise == 0);
    points_close(&f);
    prov_release(&v);
    arena_release(&a);
}

TEST(points_are_seen_whole_or_not_at_all)
{
    struct err e = { 0 };
    char cmd[600], out[64];
    const char *path = test_path("b.h5");
    struct points_row row = row_of(1);
    points *p = points_create(path, "", &e);
    if (!CHECK(p != NULL)) return;
    CHECK_INT(points_add(p, &row, &e), 0);
    CHECK(access(path, F_OK) != 0);
    points_abort(p);
    snprintf(cmd, sizeof cmd, "ls %s | grep -c b.h5", test_dir());
    test_run(cmd, out, sizeof out, NULL, 0);
    CHECK_TEXT(out, "0\n");
    CHECK(points_create(test_path("no/such/b.h5"), "", &e) == NULL);
    CHECK_INT(e.status, ST_IO);
    points_abort(NULL);
}

TEST(points_keep_notes)
{
    struct arena a;
    struct err e = { 0 };
    struct points_file f;
    const char *path = test_path("a.h5");
    char *tool;
    arena_init(&a);
    CHECK_OK(write_points(path, "imported", &e), &e);
    CHECK_OK(points_read(path, &a, &f, &e), &e);
    CHECK_TEXT(f.kind, "imported");
    CHECK_OK(h5_read_attr_text(f.h5, "/provenance", "source_tool", &a, &tool, &e), &e);
    CHECK_TEXT(tool, "x");
    points_close(&f);
    arena_release(&a);
}

/* One refused row: e holds one sentence with `part`, and the store goes on. */
#define REFUSED(call, want, part)                                                                  \
    do {                                                                                           \
        err_clear(&e);                                                                             \
        CHECK_INT(call, want);                                                                     \
        CHECK_INT(e.status, ST_RANGE);                                                             \
        CHECK_HAS(e.text, part);                                                                   \
    } while (0)

TEST(points_refuse_rows_that_mean_nothing)
{
    struct err e = { 0 };
    points *p = points_create(test_path("a.h5"), "", &e);
    if (!CHECK(p != NULL)) return;
    struct points_row row = row_of(3);
    struct points_sample s = sample_of(0);
    struct points_noise look = { 1, 1, .5, 1 };
    row.op = POINTS_N_OP;
    REFUSED(points_add(p, &row, &e), -1, "op");
    row = row_of(3);
    row.part = 200;
    REFUSED(points_add(p, &row, &e), -1, "part");
    row = row_of(3);
    row.ctx = -1;
    REFUSED(points_add(p, &row, &e), -1, "negative");
    row = row_of(3);
    row.bytes = INFINITY;
    REFUSED(points_add(p, &row, &e), -1, "bytes");
    row = row_of(3);
    row.error = -.5;
    REFUSED(points_add(p, &row, &e), -1, "error");
    REFUSED(points_put(p, &s, &e), ST_RANGE, "no point");
    row = row_of(3);
    CHECK_INT(points_add(p, &row, &e), 0);
    s.calls = 0;
    REFUSED(points_put(p, &s, &e), ST_RANGE, "calls");
    s = sample_of(0);
    s.s_per_call = NAN;
    REFUSED(points_put(p, &s, &e), ST_RANGE, "time");
    s = sample_of(0);
    s.t_s = 5;
    err_clear(&e);
    CHECK_OK(points_put(p, &s, &e), &e);
    s.t_s = 4;
    REFUSED(points_put(p, &s, &e), ST_RANGE, "in front");
    look.steal_ratio = 1.5;
    REFUSED(points_put_noise(p, &look, &e), ST_RANGE, "steal");
    REFUSED(points_limit(p, "x", NAN, &e), ST_RANGE, "limit x");
    points_abort(p);
}

/* ---- files that another hand wrote */

/* The tables of a points file with one point and one sample, but for what `change` says. */
struct change {
    const char *drop;  /* "points/op": a column that is not there */
    const char *words; /* of op; NULL: ours */
    int op, point;     /* values in the file */
    double time, error;
    const char *schema;
};

static int one_table(h5 *f, const char *group, const char *index, const struct h5col *cols,
                     const void *row, size_t row_bytes, const struct change *c, struct err *e)
{
    struct h5col kept[32];
    char name[64];
    int n = 0;
    for (; cols->type != H5COL_END; cols++) {
        snprintf(name, sizeof name, "%s/%s", group + 1, cols->name);
        if (c->drop && strcmp(name, c->drop) == 0) continue;
        kept[n] = *cols;
        if (c->words && strcmp(name, "points/op") == 0) kept[n].meanings = c->words;
        n++;
    }
    kept[n] = (struct h5col){ .type = H5COL_END };
    h5table *t = h5_table(f, group, index, kept, "", e);
    return t ? h5_table_put(t, row, 1, row_bytes, e) : ST_IO;
}

static const char *other_file(struct change c)
{
    struct err e = { 0 };
    struct points_row row = { .op = (uint8_t)c.op, .bytes = 1, .error = c.error };
    struct points_sample s = { .point = c.point, .calls = 1, .s_per_call = c.time };
    struct points_noise look = { .spin_s = 1 };
    const char *path = test_path("other.h5");
    h5 *f = h5_create(path, &e);
    if (!CHECK(f != NULL)) return path;
    int st = h5_attr_text(f, "/", "schema_name", c.schema ? c.schema : "orrery-bench", &e);
    if (st == ST_OK) st = one_table(f, "/points", "point", points_cols, &row, sizeof row, &c, &e);
    if (st == ST_OK)
        st = one_table(f, "/samples", "sample", points_sample_cols, &s, sizeof s, &c, &e);
    if (st == ST_OK)
        st = one_table(f, "/noise", "look", points_noise_cols, &look, sizeof look, &c, &e);
    CHECK_INT(st, ST_OK);
    CHECK_INT(h5_commit(f, &e), ST_OK);
    return path;
}

static void refuses(struct change c, const char *part)
{
    struct arena a;
    struct err e = { 0 };
    struct points_file f;
    arena_init(&a);
    CHECK_INT(points_read(other_file(c), &a, &f, &e), ST_USAGE);
    CHECK_HAS(e.text, part);
    CHECK_HAS(e.text, "other.h5");
    CHECK(f.h5 == NULL);
    arena_release(&a);
}

TEST(points_are_checked_when_read)
{
    struct arena a;
    struct err e = { 0 };
    struct points_file f;
    refuses((struct change){ .schema = "orrery-run" }, "schema_name is orrery-run");
    refuses((struct change){ .drop = "points/flop" }, "points/flop");
    refuses((struct change){ .drop = "samples/time" }, "samples/time");
    refuses((struct change){ .drop = "noise/load" }, "noise/load");
    refuses((struct change){ .point = 1 }, "no point");
    refuses((struct change){ .point = -1 }, "no point");
    refuses((struct change){ .time = INFINITY }, "not finite");
    refuses((struct change){ .time = -1 }, "time");
    refuses((struct change){ .error = NAN }, "error");
    refuses((struct change){ .op = 250 }, "points/op");
    refuses((struct change){ .op = 1, .words = "read waltz" }, "points/op");
    arena_init(&a);
    CHECK_INT(points_read(test_path("absent.h5"), &a, &f, &e), ST_USAGE);
    arena_release(&a);
}

TEST(points_find_words_by_name)
{
    struct arena a;
    struct err e = { 0 };
    struct points_file f;
    arena_init(&a);
    CHECK_OK(points_read(other_file((struct change){ .op = 1, .words = "waltz gemm" }), &a, &f, &e),
             &e);
    CHECK_INT(f.row[0].op, POINTS_GEMM);
    CHECK_TEXT(f.title, "");
    CHECK_TEXT(f.kind, "");
    points_close(&f);
    arena_release(&a);
}

TEST(points_words_match_their_numbers)
{
    static const struct {
        const char *words, *word;
        int i;
    } known[] = { { POINTS_OP_WORDS, "read", POINTS_READ },
                  { POINTS_OP_WORDS, "gemm", POINTS_GEMM },
                  { POINTS_OP_WORDS, "alltoall", POINTS_ALLTOALL },
                  { POINTS_OP_WORDS, "decode", POINTS_DECODE },
                  { POINTS_OP_WORDS, "scatter", POINTS_SCATTER },
                  { POINTS_OP_WORDS, "?", POINTS_N_OP },
                  { POINTS_DTYPE_WORDS, "other", POINTS_OTHER },
                  { POINTS_COMM_WORDS, "nccl", POINTS_NCCL },
                  { POINTS_PART_WORDS, "none", POINTS_NO_PART },
                  { POINTS_PART_WORDS, "in_place", POINTS_IN_PLACE } };
    char word[32];
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        CHECK_TEXT(points_word(known[i].words, known[i].i, word, sizeof word), known[i].word);
}

/* Whether a damaged file is refused in one sentence or read as something sound. */
static bool survives(const char *path)
{
    struct arena a;
    struct err e = { 0 };
    struct points_file f;
    arena_init(&a);
    int st = points_read(path, &a, &f, &e);
    bool ok = (st == ST_OK) == (e.text[0] == 0) && !strchr(e.text, '\n');
    if (st == ST_OK) points_close(&f);
    arena_release(&a);
    return ok;
}

/* Cut anywhere, or a byte changed. In a child, which ends without a look for leaks: the HDF5
 * library loses memory of its own when a chunk's checksum fails. */
TEST(points_survive_damage)
{
    struct err e = { 0 };
    static char bytes[1 << 20];
    const char *path = test_path("a.h5"), *bad = test_path("bad.h5");
    CHECK_OK(write_points(path, NULL, &e), &e);
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(bytes, 1, sizeof bytes, f) : 0, step = n / 60 + 1;
    if (f) fclose(f);
    CHECK(n > 1000 && n < sizeof bytes);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        bool ok = true;
        alarm(30);
        for (size_t at = 0; at < n && ok; at += step)
            for (int cut = 0; cut < 2 && ok; cut++) {
                char kept = bytes[at];
                if (!cut) bytes[at] = (char)~kept;
                f = fopen(bad, "wb");
                if (f) fwrite(bytes, 1, cut ? at : n, f);
                if (f) fclose(f);
                bytes[at] = kept;
                ok = survives(bad);
            }
        _exit(ok ? 0 : 1);
    }
    int st = -1;
    CHECK(waitpid(pid, &st, 0) == pid);
    CHECK_INT(st, 0);
}

TEST(points_open_in_h5py)
{
    struct err e = { 0 };
    char out[2000], err[2000], cmd[1200];
    const char *path = test_path("a.h5"), *script = test_path("look.py");
    CHECK_OK(write_points(path, NULL, &e), &e);
    if (test_run("/usr/bin/python3 -c 'import h5py'", NULL, 0, NULL, 0) != 0) SKIP("no h5py");
    FILE *f = fopen(script, "w");
    if (!CHECK(f != NULL)) return;
    fputs("import sys, h5py\n"
          "f = h5py.File(sys.argv[1])\n"
          "p, s = f['points'], f['samples']\n"
          "words = p['op'].attrs['flag_meanings'].split()\n"
          "print(f.attrs['schema_name'], list(f), list(p)[0], words[p['op'][4]])\n"
          "print(s['time'].attrs['units'], len(s['time']), s['point'][41], s['time'][3])\n"
          "print(f['limits'].attrs['read_bytes_per_s'], f['provenance'].attrs['kind'])\n",
          f);
    fclose(f);
    snprintf(cmd, sizeof cmd, "/usr/bin/python3 %s %s", script, path);
    CHECK_INT(test_run(cmd, out, sizeof out, err, sizeof err), 0);
    CHECK_TEXT(err, "");
    CHECK_TEXT(out, "orrery-bench ['limits', 'noise', 'points', 'provenance', 'samples'] point "
                    "gemm\n"
                    "s 1200 1 2.5e-07\n"
                    "25000000000.0 measured\n");
}
