/* tests/test_outfile.c - result files appear whole; what is no regular file is never replaced.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/outfile.h"

#include <fcntl.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/h5.h"
#include "tests/cli.h"
#include "tests/test.h"

static int n_parts(void)
{
    glob_t g;
    int n = glob(test_path("*.part.*"), 0, NULL, &g) == 0 ? (int)g.gl_pathc : 0;
    globfree(&g);
    return n;
}

static mode_t kind(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 ? st.st_mode & (mode_t)S_IFMT : 0;
}

TEST(outfile_is_whole_or_absent)
{
    struct err e = { 0 };
    struct outfile o;
    const char *path = test_path("whole.txt");
    CHECK_OK(outfile_write(path, "abc", 3, &e), &e);
    CHECK_OK(outfile_open(&o, path, &e), &e);
    fputs("newer", o.f);
    fflush(o.f);
    CHECK_TEXT(cli_slurp(path), "abc");
    CHECK_OK(outfile_close(&o, &e), &e);
    CHECK_TEXT(cli_slurp(path), "newer");
    CHECK_INT(outfile_write(test_path("no/such/x"), "abc", 3, &e), ST_IO);
    mkdir(test_path("dir"), 0777);
    err_clear(&e);
    CHECK_INT(outfile_write(test_path("dir"), "abc", 3, &e), ST_IO);
    CHECK_HAS(e.text, "cannot write");
    CHECK_INT(n_parts(), 0);
}

static void leave(const char *path)
{
    FILE *f = fopen(path, "w");
    if (CHECK(f != NULL)) fclose(f);
}

/* Of path, of a number that is no process's, and not locked: nothing else goes. */
TEST(outfile_sweeps_what_killed_runs_left)
{
    struct err e = { 0 };
    char dead[600], alive[600], held[600], other[600], odd[600];
    const char *path = test_path("r.txt");
    pid_t pid = fork();
    if (pid == 0) _exit(0);
    waitpid(pid, NULL, 0); /* its number is free now */
    snprintf(dead, sizeof dead, "%s.part.%ld", path, (long)pid);
    snprintf(alive, sizeof alive, "%s.part.%ld", path, (long)getppid());
    snprintf(other, sizeof other, "%s.part.%ld", test_path("other.txt"), (long)pid);
    snprintf(odd, sizeof odd, "%s.part.%ldx", path, (long)pid);
    snprintf(held, sizeof held, "%s.part.0%ld", path, (long)pid);
    leave(dead);
    leave(alive);
    leave(other);
    leave(odd);
    int fd = open(held, O_CREAT | O_RDWR, 0600); /* somebody writes it, on another machine */
    outfile_claim(fd);
    CHECK_OK(outfile_write(path, "abc", 3, &e), &e);
    CHECK(access(dead, F_OK) != 0);
    CHECK(access(alive, F_OK) == 0 && access(other, F_OK) == 0 && access(odd, F_OK) == 0);
    CHECK(access(held, F_OK) == 0);
    close(fd);
    leave(dead);
    h5 *f = h5_create(path, &e);
    CHECK_TEXT(e.text, "");
    CHECK(access(dead, F_OK) != 0 && access(held, F_OK) != 0);
    h5_abort(f);
    CHECK(access(alive, F_OK) == 0);
}

TEST(outfile_writes_into_pipes_and_through_links)
{
    struct err e = { 0 };
    char got[8] = "";
    const char *pipe = test_path("pipe"), *link = test_path("link"), *real = test_path("real");
    CHECK_INT(mkfifo(pipe, 0600), 0);
    int fd = open(pipe, O_RDWR | O_NONBLOCK);
    CHECK_OK(outfile_write(pipe, "abc", 3, &e), &e);
    CHECK_INT(read(fd, got, 7), 3);
    CHECK_TEXT(got, "abc");
    CHECK(S_ISFIFO(kind(pipe)));
    close(fd);
    CHECK_OK(outfile_write(real, "older and longer", 16, &e), &e);
    CHECK_INT(symlink("real", link), 0);
    CHECK_OK(outfile_write(link, "new", 3, &e), &e);
    CHECK(S_ISLNK(kind(link)));
    CHECK_TEXT(cli_slurp(real), "new");
    CHECK_INT(n_parts(), 0);
}

TEST(outfile_run_files_replace_only_regular_files)
{
    struct err e = { 0 };
    const char *pipe = test_path("pipe"), *link = test_path("link"), *lost = test_path("lost");
    const char *other = test_path("other"), *real = test_path("real");
    CHECK_INT(mkfifo(pipe, 0600), 0);
    CHECK_INT(symlink("pipe", link), 0);
    CHECK_INT(symlink("nowhere", lost), 0);
    CHECK(!h5_create(pipe, &e));
    CHECK_HAS(e.text, "not a regular file");
    err_clear(&e);
    CHECK(!h5_create(link, &e));
    CHECK_HAS(e.text, "not a regular file");
    err_clear(&e);
    CHECK(!h5_create(lost, &e));
    CHECK_HAS(e.text, "leads nowhere");
    CHECK(S_ISFIFO(kind(pipe)) && S_ISLNK(kind(link)));
    err_clear(&e);
    CHECK_OK(outfile_write(real, "abc", 3, &e), &e);
    CHECK_INT(symlink("real", other), 0);
    h5 *f = h5_create(other, &e);
    CHECK(f && h5_commit(f, &e) == ST_OK);
    CHECK(S_ISLNK(kind(other)) && S_ISREG(kind(real)));
    CHECK(memcmp(cli_slurp(real), "\x89HDF", 4) == 0);
    CHECK_INT(n_parts(), 0);
}

TEST(outfile_spares_what_is_read)
{
    struct err e = { 0 };
    const char *path = test_path("in.txt"), *other = test_path("out.txt"),
               *link_ = test_path("link");
    CHECK_OK(outfile_write(path, "x", 1, &e), &e);
    CHECK_INT(outfile_spares(other, path, &e), ST_OK);
    CHECK_INT(outfile_spares(NULL, path, &e), ST_OK);
    CHECK_INT(outfile_spares(path, NULL, &e), ST_OK);
    CHECK_INT(outfile_spares(path, path, &e), ST_USAGE);
    CHECK_HAS(e.text, "would be replaced");
    CHECK_INT(symlink(path, link_), 0);
    CHECK_INT(outfile_spares(link_, path, &e), ST_USAGE);
}

TEST(outfile_check_finds_what_cannot_be_written)
{
    struct err e = { 0 };
    const char *old = cli_put("old.txt", "abc"), *dir = cli_path("dir"), *pipe = cli_path("pipe");
    const char *lost = cli_path("lost"), *under = cli_path("old.txt/x");
    char deep[5000];
    CHECK_INT(mkdir(dir, 0777), 0);
    CHECK_INT(mkfifo(pipe, 0600), 0);
    CHECK_INT(symlink("nowhere", lost), 0);
    memset(deep, 'x', sizeof deep - 1);
    deep[sizeof deep - 1] = 0;
    CHECK_OK(outfile_check(NULL, true, &e), &e);
    for (int whole = 0; whole < 2; whole++) {
        CHECK_OK(outfile_check(old, whole, &e), &e);
        CHECK_OK(outfile_check(cli_path("new.txt"), whole, &e), &e);
        const char *const wrong[] = { dir, lost, under, cli_path("no/x"), deep, "" };
        for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
            CHECK_INT(outfile_check(wrong[i], whole, &e), ST_IO);
            CHECK_HAS(e.text, "cannot ");
            err_clear(&e);
        }
    }
    CHECK_OK(outfile_check(pipe, false, &e), &e); /* text may go there */
    CHECK_INT(outfile_check(pipe, true, &e), ST_IO);
    CHECK_HAS(e.text, "not a regular file");
    CHECK_TEXT(cli_slurp(old), "abc");
    CHECK(access(cli_path("new.txt"), F_OK) != 0);
    CHECK_INT(n_parts(), 0);
}

TEST(outfile_lines_have_one_writer_and_keep_what_was_left)
{
    struct err e = { 0 };
    char left[OUTFILE_PATH];
    int fd, again;
    const char *stem = cli_path("j"), *path = cli_path("j.csv");
    for (int i = 0; i < 3; i++) {
        char want[600] = "";
        CHECK_OK(outfile_lines(stem, false, &fd, left, &e), &e);
        if (i) snprintf(want, sizeof want, "%s.%d.csv", stem, i);
        CHECK_TEXT(left, want);
        CHECK_INT(outfile_lines(stem, false, &again, left, &e), ST_IO);
        CHECK_HAS(e.text, "another run is writing it");
        err_clear(&e);
        CHECK_OK(outfile_append(fd, path, i ? "b\n" : "a\n", 2, &e), &e);
        close(fd);
    }
    CHECK_TEXT(cli_slurp(cli_path("j.1.csv")), "a\n");
    CHECK_TEXT(cli_slurp(cli_path("j.2.csv")), "b\n");
    CHECK_OK(outfile_lines(stem, true, &fd, left, &e), &e);
    CHECK_TEXT(left, "");
    CHECK_OK(outfile_append(fd, path, "c\n", 2, &e), &e);
    close(fd);
    CHECK_TEXT(cli_slurp(path), "b\nc\n");
    CHECK_INT(outfile_lines(cli_path("no/j"), false, &fd, left, &e), ST_IO);
}
