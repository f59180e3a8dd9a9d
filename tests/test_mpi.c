/* tests/test_mpi.c - ranks as processes under mpirun: sums, tokens, failures, the command line.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/test.h"

/* Ranks wait for each other thousands of times: beside other programs that want the processors each
 * may take milliseconds. */
enum { RANKS_S = 100, LIMIT_S = 300 };

static char out[1 << 16], err[1 << 16];

/* tests/ranks, or another program of this build. */
static const char *program(const char *name)
{
    static char path[2][1024];
    static int at;
    char *p = path[at++ % 2];
    ssize_t n = readlink("/proc/self/exe", p, sizeof path[0] - 64);
    if (n < 0) SKIP("no /proc");
    p[n] = 0;
    char *slash = strrchr(p, '/');
    snprintf(slash + 1, 64, "%s", name);
    if (access(p, X_OK) != 0) SKIP("not built: make tests");
    return p;
}

#define MPIENV "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "

/* Ends long before its limit, or something waits for ever. What sanitizers find inside Open MPI, which
 * was not built for them (memory kept until exit, orders of its own locks), is left out. */
static int mpirun(int n, const char *command)
{
    static bool starts;
    char cmd[3000];
    if (test_run("mpirun --version", out, sizeof out, NULL, 0) != 0 || !strstr(out, "Open MPI"))
        SKIP("no mpirun of Open MPI (openmpi-bin)");
    if (!starts && test_run(MPIENV "timeout 60 mpirun -n 1 true", NULL, 0, NULL, 0) != 0)
        SKIP("mpirun starts nothing here (no network interface?)");
    starts = true;
    snprintf(cmd, sizeof cmd,
             MPIENV "ASAN_OPTIONS=detect_leaks=0:$ASAN_OPTIONS "
                    "TSAN_OPTIONS=ignore_noninstrumented_modules=1:$TSAN_OPTIONS "
                    "timeout -k 1 %d mpirun --oversubscribe --bind-to none -n %d %s",
             RANKS_S * test_slow(), n, command);
    int rc = test_run(cmd, out, sizeof out, err, sizeof err);
    if (strstr(err, "this build has no MPI")) SKIP("built without Open MPI (libopenmpi-dev)");
    return rc;
}

static int ranks(int n, const char *args)
{
    char command[1200];
    snprintf(command, sizeof command, "%s %s", program("ranks"), args);
    return mpirun(n, command);
}

/* Bits of sums, messages, and greedy tokens of all golden cases for all divisions into n. */
static void checked(int n)
{
    char want[64];
    snprintf(want, sizeof want, "%d ranks: 0 wrong\n", n);
    CHECK_INT(ranks(n, "check"), 0);
    CHECK_TEXT(out, want);
}

TEST_LIMIT(mpi_2_ranks_add_and_generate_as_threads_do, LIMIT_S)
{
    checked(2);
}

TEST_LIMIT(mpi_3_ranks_add_as_threads_do, LIMIT_S)
{
    checked(3);
}

TEST_LIMIT(mpi_4_ranks_add_and_generate_as_threads_do, LIMIT_S)
{
    checked(4);
}

TEST_LIMIT(mpi_8_ranks_add_and_generate_as_threads_do, LIMIT_S)
{
    checked(8);
}

/* Something happens to rank k; the others end by themselves and say `why`. */
static void lost(const char *what, int k, const char *why)
{
    char args[600], want[200], name[32], saved[200] = "";
    snprintf(name, sizeof name, "saved-%s-%d", what, k);
    const char *path = test_path(name);
    snprintf(args, sizeof args, "%s %d %s", what, k, path);
    snprintf(want, sizeof want, "ranks: rank %d: %s\n", k, why);
    int rc = ranks(4, args);
    CHECK(rc != 0 && rc != 124); /* 124: it had to be stopped */
    CHECK_HAS(err, want);
    FILE *f = fopen(path, "r");
    if (f) {
        CHECK(fgets(saved, sizeof saved, f) != NULL);
        fclose(f);
    }
    snprintf(want, sizeof want, "saved after: rank %d: %s\n", k, why);
    CHECK_TEXT(saved, k == 0 ? "" : want);
}

/* In the middle of a step. */
static void killed(int k)
{
    lost("kill", k, "its process has ended");
}

TEST_LIMIT(mpi_a_killed_rank_ends_all_with_its_number_and_rank_0_may_save, LIMIT_S)
{
    killed(1);
    killed(3);
}

TEST_LIMIT(mpi_without_rank_0_the_others_end_and_say_so, LIMIT_S)
{
    killed(0);
}

TEST_LIMIT(mpi_a_rank_killed_while_loading_is_named_though_the_launcher_stops_rank_0, LIMIT_S)
{
    lost("load", 2, "its process has ended");
}

TEST_LIMIT(mpi_a_rank_that_is_stopped_is_named, LIMIT_S)
{
    lost("halt", 3, "its process has not answered for 2 s: it is stopped, or its machine hangs");
}

TEST_LIMIT(mpi_a_rank_that_alone_is_told_to_stop_is_named, LIMIT_S)
{
    lost("term", 1, "its process was told to stop (SIGTERM), and rank 0 was not");
}

TEST_LIMIT(mpi_a_rank_that_fails_gives_its_reason, LIMIT_S)
{
    CHECK_INT(ranks(2, "backend 1"), 5);
    CHECK_HAS(err, "ranks: rank 1: the device is on fire\n");
    CHECK_INT(ranks(2, "backend 0"), 5);
    CHECK_HAS(err, "ranks: rank 0: the device is on fire\n");
}

/* ---- the command line */

#define GENERATE "engine generate --model=llama-25m --random-weights=1 --tokens=1,2,3 --max-new=8 "

static int orrery(int n, const char *args)
{
    char command[1200];
    snprintf(command, sizeof command, "%s %s", program("../orrery"), args);
    return n ? mpirun(n, command) : test_run(command, out, sizeof out, err, sizeof err);
}

TEST_LIMIT(mpi_the_command_prints_what_threads_print, LIMIT_S)
{
    char want[200];
    CHECK_INT(orrery(0, GENERATE "--tp=2 --pp=2"), 0);
    snprintf(want, sizeof want, "%.190s", out);
    CHECK_INT(orrery(4, GENERATE "--tp=2 --pp=2"), 0);
    CHECK_TEXT(out, want);
    CHECK_INT(orrery(2, GENERATE "--pp=2 --comm=mpi"), 0);
    CHECK_TEXT(out, want);
}

/* Nothing but one sentence of ours; mpirun has its own to say. */
static void complains(int n, const char *args, const char *sentence)
{
    CHECK_INT(orrery(n, args), 2);
    const char *first = strstr(err, "orrery engine: ");
    CHECK_HAS(err, sentence);
    CHECK(first && !strstr(first + 1, "orrery engine: "));
    CHECK_TEXT(out, "");
}

/* A file that one host lacks: rank 0 knows of no failure, it waits for a rank that never joins. */
TEST_LIMIT(mpi_a_rank_that_fails_before_it_joins_says_so, LIMIT_S)
{
    char command[1200];
    const char *orrery_at = program("../orrery");
    snprintf(command, sizeof command, "%s %s --tp=2 : -n 1 %s engine run absent.yaml", orrery_at,
             GENERATE, orrery_at);
    CHECK_INT(mpirun(1, command), 2);
    CHECK_HAS(err, "orrery engine: rank 1: cannot open absent.yaml");
    CHECK_TEXT(out, "");
}

TEST_LIMIT(mpi_wrong_input_is_named_once, LIMIT_S)
{
    complains(3, GENERATE "--tp=2", "orrery engine: tp 2 x pp 1 is 2 ranks, but ");
    complains(2, GENERATE "--tp=2 --comm=thread", "each of which would run all ranks");
    complains(2, GENERATE "--tpp=2", "did you mean 'tp'");
    complains(2, "engine generate --model=llama-25m --random-weights=1 --tokens=99999999 --tp=2",
              "vocabulary");
}
