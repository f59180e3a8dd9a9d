/* tests/test_pool.c - the thread pool, the stop flag, the progress line.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/pool.h"

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/progress.h"
#include "base/stop.h"
#include "tests/test.h"

enum { N_JOB = 1000 };
static atomic_int calls[N_JOB];

static void count_call(void *arg, int i)
{
    (void)arg;
    atomic_fetch_add(&calls[i], 1);
}

TEST(pool_runs_each_job_once)
{
    for (int threads = 0; threads <= 9; threads++) {
        for (int i = 0; i < N_JOB; i++) calls[i] = 0;
        pool_run(threads, N_JOB, count_call, NULL);
        for (int i = 0; i < N_JOB; i++)
            if (!CHECK(calls[i] == 1)) return;
    }
    pool_run(4, 0, count_call, NULL);
    CHECK_INT(calls[0], 1);
    CHECK(pool_cpus() >= 1);
}

TEST(stop_sets_a_flag_and_the_second_signal_kills)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        stop_install();
        if (stop_asked()) _exit(1);
        raise(SIGINT);
        if (!stop_asked()) _exit(2);
        stop_reset();
        raise(SIGTERM);
        if (!stop_asked()) _exit(3);
        raise(SIGINT);
        _exit(4);
    }
    int st = 0;
    CHECK(waitpid(pid, &st, 0) == pid);
    CHECK(WIFSIGNALED(st) && WTERMSIG(st) == SIGINT);
}

/* What a report on 1.24 of 10 million requests prints when `ago_s` seconds have passed. */
static void report(double ago_s, bool force, double total, char *out, size_t n)
{
    const char *path = test_path("progress");
    int keep = dup(STDERR_FILENO), fd = open(path, O_CREAT | O_TRUNC | O_RDWR, 0600);
    dup2(fd, STDERR_FILENO);
    struct progress p;
    progress_start(&p, "simulate", "requests", total, force);
    progress_at_ns(&p, 1.24e6, p.start_ns + (int64_t)(ago_s * 1e9));
    progress_end(&p);
    dup2(keep, STDERR_FILENO);
    ssize_t got = pread(fd, out, n - 1, 0);
    out[got > 0 ? got : 0] = 0;
    close(fd);
    close(keep);
}

TEST(progress_line)
{
    char out[300];
    report(20, true, 10e6, out, sizeof out);
    CHECK_TEXT(out, "simulate  1.24 M / 10 M requests  12%  62 k/s  ETA 2 min\n");
    report(20, true, 0, out, sizeof out);
    CHECK_TEXT(out, "simulate  1.24 M requests  62 k/s\n");
    report(3, true, 10e6, out, sizeof out); /* without a terminal only every 10 s */
    CHECK_TEXT(out, "");
    report(20, false, 10e6, out, sizeof out);
    CHECK_TEXT(out, "");
}
