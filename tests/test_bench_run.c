/* tests/test_bench_run.c - how a suite is run: its order, what interruption and kill leave, and what goes
 * on with what. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/stop.h"
#include "tests/bench_env.h"
#include "tests/cli.h"
#include "tests/test.h"

TEST(bench_order_mixes_jobs_anew_in_each_run)
{
    int a[50], b[50], seen[50] = { 0 }, same_place = 0;
    suite_order(1, 0, 50, a);
    suite_order(1, 1, 50, b);
    for (int i = 0; i < 50; i++) {
        seen[a[i]]++;
        same_place += a[i] == b[i];
    }
    for (int i = 0; i < 50; i++) CHECK_INT(seen[i], 1);
    CHECK(same_place < 10);
    suite_order(1, 0, 50, b);
    CHECK(memcmp(a, b, sizeof a) == 0);
    suite_order(2, 0, 50, b);
    CHECK(memcmp(a, b, sizeof a) != 0);
}

TEST(bench_runs_are_interleaved_and_all_samples_kept)
{
    struct err e = { 0 };
    struct suite_log log;
    struct arena a;
    struct points_file f;
    int times[32][BENCH_RUNS], order[BENCH_JOBS];
    const char *path = test_path("a.h5");
    CHECK_OK(bench_fake_run(path, false, NULL, &log, &e), &e);
    CHECK(log.complete);
    CHECK_INT(log.n_sample, BENCH_SAMPLES); /* 13 points, one is never measured */
    CHECK_NEAR(suite_median(&log, 4), 5e-3, 1e-12);
    CHECK(isnan(suite_median(&log, 2)));
    suite_log_release(&log);
    CHECK_INT(bench_count(path, times, &e), BENCH_SAMPLES);
    for (int i = 0; i < 13; i++)
        for (int r = 0; r < BENCH_RUNS; r++) CHECK_INT(times[i][r], i != 2);
    arena_init(&a);
    CHECK_OK(points_read(path, &a, &f, &e), &e);
    for (int64_t i = 1; i < f.n_sample; i++) CHECK(f.sample[i].run >= f.sample[i - 1].run);
    suite_order(5, 0, BENCH_JOBS, order);
    static const int first[BENCH_JOBS] = { 0, 1, 3, 6, 7, 9, 12 };
    CHECK_INT(f.sample[0].point, first[order[0]]);
    CHECK(f.n_noise >= 1);
    points_close(&f);
    arena_release(&a);
}

static void check_all_there(const char *path)
{
    struct err e = { 0 };
    int times[32][BENCH_RUNS];
    CHECK_INT(bench_count(path, times, &e), BENCH_SAMPLES);
    for (int i = 0; i < BENCH_POINTS; i++)
        for (int r = 0; r < BENCH_RUNS; r++) CHECK_INT(times[i][r], i != 2);
}

static const char *journal_of(const char *path)
{
    static char text[300];
    snprintf(text, sizeof text, "%s.journal.csv", path);
    return text;
}

/* Lines that begin so. */
static int n_lines(const char *path, const char *begin)
{
    int n = 0;
    for (const char *at = cli_slurp(path); *at; at += strcspn(at, "\n") + 1) {
        n += strncmp(at, begin, strlen(begin)) == 0;
        if (!strchr(at, '\n')) break;
    }
    return n;
}

/* Ended by a signal between two jobs; what came of it. */
static int64_t interrupted(const char *path, bool resume, int after)
{
    struct err e = { 0 };
    struct suite_log log;
    struct bench_ender end = { after, SIGINT };
    stop_install();
    CHECK_INT(bench_fake_run(path, resume, &end, &log, &e), ST_STOPPED);
    CHECK(!log.complete && log.n_sample > 0);
    CHECK_TEXT(log.journal.path, journal_of(path));
    int64_t kept = log.n_sample;
    suite_log_release(&log);
    stop_reset();
    return kept;
}

static void to_the_end(const char *path, bool resume, int64_t resumed)
{
    struct err e = { 0 };
    struct suite_log log;
    CHECK_OK(bench_fake_run(path, resume, NULL, &log, &e), &e);
    CHECK_INT(log.n_resumed, resumed);
    suite_log_release(&log);
    check_all_there(path);
    CHECK(access(journal_of(path), F_OK) != 0);
}

TEST(bench_interrupted_and_resumed_has_the_same_points)
{
    for (int after = 0; after < BENCH_JOBS * BENCH_RUNS - 1; after += 5) {
        char path[200];
        snprintf(path, sizeof path, "%s", test_path("a.h5"));
        int64_t kept = interrupted(path, false, after);
        CHECK(access(path, F_OK) != 0);
        CHECK_INT(n_lines(journal_of(path), "s,"), kept);
        to_the_end(path, true, kept);
        unlink(path);
    }
}

TEST(bench_interrupted_leaves_a_whole_file_alone)
{
    char path[200], aside[300];
    int times[32][BENCH_RUNS];
    struct err e = { 0 };
    snprintf(path, sizeof path, "%s", test_path("a.h5"));
    snprintf(aside, sizeof aside, "%s.journal.1.csv", path);
    to_the_end(path, false, 0);
    int64_t first = interrupted(path, false, 3);
    check_all_there(path);
    int64_t second = interrupted(path, true, 4);
    CHECK(second > first && n_lines(journal_of(path), "s,") == second);
    check_all_there(path);
    /* without --resume what there is, is kept beside the new one */
    int64_t third = interrupted(path, false, 1);
    CHECK_INT(n_lines(aside, "s,"), second);
    CHECK_INT(n_lines(journal_of(path), "s,"), third);
    CHECK_INT(bench_count(path, times, &e), BENCH_SAMPLES);
    to_the_end(path, true, third);
    CHECK_INT(n_lines(aside, "s,"), second);
    to_the_end(path, true, BENCH_SAMPLES); /* of the file: nothing is missing */
}

/* Every sample of a job that has ended is in the file when it is killed. */
TEST(bench_killed_loses_no_sample)
{
    for (int after = 0; after < BENCH_JOBS * BENCH_RUNS; after += 3) {
        struct err e = { 0 };
        struct suite_log log;
        char path[200];
        int status, want = 0, order[BENCH_JOBS];
        static const int n_value[BENCH_JOBS] = { 1, 1, 3, 1, 2, 3, 1 };
        snprintf(path, sizeof path, "%s", test_path("a.h5"));
        pid_t id = fork();
        if (id == 0) {
            struct bench_ender end = { after, SIGKILL };
            bench_fake_run(path, false, &end, &log, &e);
            _exit(1);
        }
        CHECK(waitpid(id, &status, 0) == id && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        for (int i = 0; i <= after; i++) {
            if (i % BENCH_JOBS == 0) suite_order(5, i / BENCH_JOBS, BENCH_JOBS, order);
            want += n_value[order[i % BENCH_JOBS]];
        }
        CHECK_INT(n_lines(journal_of(path), "s,"), want);
        to_the_end(path, true, want);
        unlink(path);
    }
}

/* Where a kill may leave it: what has no end is measured anew, what nobody judged is called noisy. */
TEST(bench_journal_that_was_cut_anywhere_goes_on)
{
    char path[200];
    snprintf(path, sizeof path, "%s", test_path("a.h5"));
    (void)interrupted(path, false, 9);
    char *text = strdup(cli_slurp(journal_of(path)));
    size_t n = strlen(text), head = (size_t)(strstr(text, "\ne\n") - text) + 3;
    CHECK(n > head + 500);
    for (size_t cut = 1; cut < n; cut += cut < head ? 97 : 13) {
        struct err e = { 0 };
        struct suite_log log;
        FILE *f = fopen(journal_of(path), "w");
        if (!CHECK(f != NULL)) break;
        fwrite(text, 1, cut, f);
        fclose(f);
        int64_t whole = 0, judged = 0, so_far = 0;
        for (const char *at = text; at < text + cut && strchr(at, '\n') < text + cut;
             at = strchr(at, '\n') + 1) {
            so_far += strncmp(at, "s,", 2) == 0;
            if (strncmp(at, "j,", 2) == 0) judged = so_far;
            if (strncmp(at, "e\n", 2) == 0) whole = so_far;
        }
        if (cut < head)
            CHECK_INT(bench_fake_run(path, true, NULL, &log, &e), ST_USAGE);
        else
            CHECK_INT(bench_fake_run(path, true, NULL, &log, &e), ST_OK);
        CHECK_INT(log.n_resumed, whole);
        for (int64_t i = judged; i < whole; i++) CHECK(log.sample[i].noisy);
        suite_log_release(&log);
        if (cut >= head) check_all_there(path);
        unlink(path);
    }
    free(text);
}

/* Whatever stands in it: refused in a sentence, and left as it is. */
TEST(bench_refuses_a_journal_that_is_none)
{
    static const char *const wrong[][2] = {
        { "s,0,0,1,nan,0.5,0,-1\n", "is no line" },
        { "s,99,0,1,1,0.5,0,-1\n", "is no line" },
        { "s,0,-1,1,1,0.5,0,-1\n", "is no line" },
        { "s,0,0,0,1,0.5,0,-1\n", "is no line" },
        { "s,0,0,1,-1,0.5,0,-1\n", "is no line" },
        { "s,0,0,1,1,0.5,0\n", "is no line" },
        { "s,0,0,1,1,0.5,0,-1,7\n", "is no line" },
        { "s,0,0,1,1,0.5,2,-1\n", "is no line" },
        { "s,0.5,0,1,1,0.5,0,-1\n", "is no line" },
        { "s,0,0,1,1,1e999,0,-1\n", "is no line" },
        { "s,0,0,1,1,2,0,-1\ns,0,1,1,1,1,0,-1\n", "is no line" },
        { "n,1,1,7,1\n", "is no line" },
        { "g,1,-1,1,1,1,1,0,0\n", "is no line" },
        { "x\n", "is no line" },
        { "\n", "is no line" },
        { "#points 12\ns,0,0,1,1,0.5,0,-1\n", "another suite" },
        { "#host 0123456789abcdef\ns,0,0,1,1,0.5,0,-1\n", "one file is of one machine" },
        { "#settings else\ns,0,0,1,1,0.5,0,-1\n", "was made with else" },
    };
    char path[200], *head;
    snprintf(path, sizeof path, "%s", test_path("a.h5"));
    (void)interrupted(path, false, 0);
    if (!CHECK(strstr(cli_slurp(journal_of(path)), "\ns,") != NULL)) return;
    head = strdup(cli_page);
    *strstr(head, "\ne\n") = 0;
    for (size_t i = 0; i <= sizeof wrong / sizeof *wrong; i++) {
        struct err e = { 0 };
        struct suite_log log;
        bool none = i == sizeof wrong / sizeof *wrong;
        char text[4000];
        snprintf(text, sizeof text, "%s\n%se\n", none ? "no journal" : head,
                 none ? "" : wrong[i][0]);
        FILE *f = fopen(journal_of(path), "w");
        if (!CHECK(f != NULL)) return;
        fputs(text, f);
        fclose(f);
        CHECK_INT(bench_fake_run(path, true, NULL, &log, &e), ST_USAGE);
        CHECK_HAS(e.text, none ? "no journal of a benchmark" : wrong[i][1]);
        CHECK_TEXT(cli_slurp(journal_of(path)), text);
        CHECK(access(path, F_OK) != 0);
        suite_log_release(&log);
    }
    free(head);
}

TEST(bench_of_a_file_that_another_one_writes_is_refused)
{
    struct err e = { 0 };
    struct suite_log log;
    char path[200], left[OUTFILE_PATH], stem[300];
    int fd;
    snprintf(path, sizeof path, "%s", test_path("a.h5"));
    snprintf(stem, sizeof stem, "%s.journal", path);
    CHECK_OK(outfile_lines(stem, false, &fd, left, &e), &e);
    for (int resume = 0; resume < 2; resume++) {
        CHECK_INT(bench_fake_run(path, resume, NULL, &log, &e), ST_IO);
        CHECK_HAS(e.text, "another run is writing it");
        suite_log_release(&log);
        err_clear(&e);
    }
    CHECK(access(journal_of(path), F_OK) == 0);
    close(fd);
    to_the_end(path, false, 0);
}

TEST(bench_resumes_only_its_own_suite)
{
    struct err e = { 0 };
    struct suite_log log;
    struct points_row more = { .op = POINTS_GEMM, .m = 99, .error = -1 };
    struct suite s;
    const char *path = test_path("a.h5");
    CHECK_OK(bench_fake_run(path, false, NULL, &log, &e), &e);
    suite_log_release(&log);
    bench_fake(&s);
    uint64_t before = suite_identity(&s);
    s.row[3].error = 0.5; /* found while measuring: no other suite */
    CHECK(suite_identity(&s) == before);
    suite_add_row(&s, &more);
    struct suite_run_opts o = { .out = path, .runs = 1, .resume = true };
    CHECK_INT(suite_run(&s, &o, &log, &e), ST_USAGE);
    CHECK_HAS(e.text, "another suite");
    suite_log_release(&log);
    err_clear(&e);
    o.out = test_path("none.h5");
    CHECK_INT(suite_run(&s, &o, &log, &e), ST_USAGE);
    CHECK_HAS(e.text, "none.h5");
    suite_log_release(&log);
    arena_release(&s.arena);
}

/* The samples of two machines in one file could not be told apart. */
TEST(bench_resumes_only_on_its_own_machine)
{
    struct err e = { 0 };
    struct suite_log log;
    struct prov v;
    char path[200], cmd[500], name[] = "test", *argv[] = { name };
    snprintf(path, sizeof path, "%s", test_path("a.h5"));
    CHECK_OK(bench_fake_run(path, false, NULL, &log, &e), &e);
    suite_log_release(&log);
    prov_collect(&v, 1, argv);
    snprintf(cmd, sizeof cmd, "sed -i s/%s/0123456789abcdef/g %s", v.host_sha, path);
    prov_release(&v);
    CHECK_INT(test_run(cmd, NULL, 0, NULL, 0), 0);
    CHECK_INT(bench_fake_run(path, true, NULL, &log, &e), ST_USAGE);
    CHECK_HAS(e.text, "(host 0123456789abcdef)");
    CHECK_HAS(e.text, "one file is of one machine");
    suite_log_release(&log);
}
