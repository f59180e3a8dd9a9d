/* tests/run.c - runs the registered tests, each in its own process, and counts.
 *
 *     tests/run [--write-golden] [--list] [NAME-PART ...]
 * The last line is "N passed, N failed, N skipped", alone; exit 1 if any failed.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/paths.h"

enum { EXIT_SKIPPED = 77 };

static struct test *all, **last = &all;
static int failed_checks;
static bool write_golden;
static char dir[256];
static volatile sig_atomic_t running; /* the test's process and group */

void test_register(struct test *t)
{
    *last = t;
    last = &t->next;
}

bool test_check(bool ok, const char *file, int line, const char *what)
{
    if (!ok) {
        failed_checks++;
        printf("    %s:%d: not true: %s\n", file, line, what);
    }
    return ok;
}

bool test_check_int(int64_t got, int64_t want, const char *file, int line, const char *what)
{
    if (got != want) {
        failed_checks++;
        printf("    %s:%d: %s is %" PRId64 ", expected %" PRId64 "\n", file, line, what, got, want);
    }
    return got == want;
}

bool test_check_near(double got, double want, double rel, const char *file, int line,
                     const char *what)
{
    bool ok = (isnan(got) && isnan(want)) || got == want ||
              fabs(got - want) <= rel * fmax(fabs(got), fabs(want));
    if (!ok) {
        failed_checks++;
        printf("    %s:%d: %s is %.12g, expected %.12g within %g (off by %.3g)\n", file, line, what,
               got, want, rel, fabs(got - want) / fmax(fabs(got), fabs(want)));
    }
    return ok;
}

bool test_check_text(const char *got, const char *want, const char *file, int line,
                     const char *what)
{
    bool ok = got && want && strcmp(got, want) == 0;
    if (!ok) {
        failed_checks++;
        printf("    %s:%d: %s is\n      \"%s\"\n    expected\n      \"%s\"\n", file, line, what,
               got ? got : "(null)", want ? want : "(null)");
    }
    return ok;
}

bool test_check_has(const char *got, const char *part, const char *file, int line, const char *what)
{
    bool ok = got && strstr(got, part);
    if (!ok) {
        failed_checks++;
        printf("    %s:%d: %s is\n      \"%s\"\n    without\n      \"%s\"\n", file, line, what,
               got ? got : "(null)", part);
    }
    return ok;
}

void test_skip(const char *why)
{
    printf("    skipped: %s\n", why);
    fflush(stdout);
    _exit(failed_checks ? 1 : EXIT_SKIPPED);
}

const char *test_dir(void)
{
    if (!dir[0]) {
        const char *tmp = getenv("TMPDIR");
        snprintf(dir, sizeof dir, "%s/orrery-test-XXXXXX", tmp && *tmp ? tmp : "/tmp");
        if (!mkdtemp(dir)) {
            printf("    cannot create %s: %s\n", dir, strerror(errno));
            _exit(1);
        }
    }
    return dir;
}

const char *test_path(const char *name)
{
    static char ring[8][512];
    static int at;
    char *p = ring[at++ % 8];
    snprintf(p, sizeof ring[0], "%s/%s", test_dir(), name);
    return p;
}

const char *test_data(const char *relative)
{
    static char ring[8][512];
    static int at;
    char *p = ring[at++ % 8];
    snprintf(p, sizeof ring[0], "%s/%s", paths_data(), relative);
    if (access(p, R_OK) != 0) {
        static char why[600];
        snprintf(why, sizeof why, "real data absent: %s (set ORRERY_DATA)", relative);
        test_skip(why);
    }
    return p;
}

void test_golden(const char *name, const char *text)
{
    char path[512], got_path[600];
    snprintf(path, sizeof path, "tests/golden/%s", name);
    if (write_golden) {
        FILE *f = fopen(path, "w");
        if (!f || fputs(text, f) < 0 || fclose(f) != 0) { test_check(false, path, 0, "written"); }
        return;
    }
    FILE *f = fopen(path, "r");
    if (!f) {
        test_check(false, path, 0, "golden file exists (make golden)");
        return;
    }
    static char want[1 << 20];
    size_t n = fread(want, 1, sizeof want - 1, f);
    want[n] = 0;
    fclose(f);
    if (strcmp(want, text) == 0) return;
    failed_checks++;
    snprintf(got_path, sizeof got_path, "%s/got", test_dir());
    if ((f = fopen(got_path, "w"))) {
        fputs(text, f);
        fclose(f);
        char cmd[1400];
        snprintf(cmd, sizeof cmd, "diff -u %s %s | head -60", path, got_path);
        fflush(stdout);
        if (system(cmd) < 0) printf("    (no diff)\n");
    }
    printf("    %s differs (read the diff; `make golden` rewrites)\n", path);
}

int test_slow(void)
{
    const char *slow = getenv("ORRERY_TEST_SLOW"); /* sanitizers: so many times longer */
    return slow && atoi(slow) > 0 ? atoi(slow) : 1;
}

int test_run(const char *cmd, char *out, size_t n_out, char *err, size_t n_err)
{
    char full[4096];
    const char *o = test_path("stdout"), *e = test_path("stderr");
    snprintf(full, sizeof full, "( %s ) >%s 2>%s </dev/null", cmd, o, e);
    fflush(stdout);
    int rc = system(full);
    const char *paths[2] = { o, e };
    char *bufs[2] = { out, err };
    size_t sizes[2] = { n_out, n_err };
    for (int i = 0; i < 2; i++) {
        if (!bufs[i] || !sizes[i]) continue;
        FILE *f = fopen(paths[i], "r");
        size_t n = f ? fread(bufs[i], 1, sizes[i] - 1, f) : 0;
        bufs[i][n] = 0;
        if (f) fclose(f);
    }
    return WIFEXITED(rc) ? WEXITSTATUS(rc) : 128 + WTERMSIG(rc);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *w)
{
    (void)st;
    (void)flag;
    (void)w;
    return remove(path);
}

/* A test's processes are a group of their own, which ends with it: one that was left, of a test that
 * took too long, would slow down all others. Ctrl-C is passed on. */
static void on_signal(int sig)
{
    if (running > 0) kill(-running, sig);
    signal(sig, SIG_DFL);
    raise(sig);
}

static void on_signals(void (*what)(int))
{
    static const int sig[] = { SIGINT, SIGTERM, SIGHUP };
    for (int i = 0; i < 3; i++)
        if (signal(sig[i], what) == SIG_IGN) signal(sig[i], SIG_IGN); /* nohup stays nohup */
}

static void run_child(const struct test *t)
{
    setpgid(0, 0);
    on_signals(SIG_DFL);
    alarm((unsigned)(t->limit_s * test_slow()));
    t->fn();
    if (dir[0]) nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    fflush(stdout);
    exit(failed_checks ? 1 : 0); /* exit, not _exit: the leak checker reports here */
}

/* False: the system gives no process. */
static bool run_one(const struct test *t, int *status)
{
    siginfo_t end;
    int got;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) run_child(t);
    if (pid < 0) return false;
    setpgid(pid, pid); /* whoever of the two comes first */
    running = pid;
    do got = waitid(P_PID, (id_t)pid, &end, WEXITED | WNOWAIT);
    while (got != 0 && errno == EINTR);
    kill(-pid, SIGKILL); /* while nobody else can have its number */
    running = 0;
    return waitpid(pid, status, 0) == pid;
}

static bool chosen(const struct test *t, int argc, char **argv, int first)
{
    if (first >= argc) return true;
    for (int i = first; i < argc; i++)
        if (strstr(t->name, argv[i]) || strstr(t->file, argv[i])) return true;
    return false;
}

/* What ended a test that did not end itself. */
static const char *death(int sig)
{
    static char text[80];
    if (sig == SIGALRM) return "(time limit)";
    snprintf(text, sizeof text, "(signal %d: %s)", sig, strsignal(sig));
    return text;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
    int first = 1, n_pass = 0, n_fail = 0, n_skip = 0;
    bool list = false;
    for (; first < argc && argv[first][0] == '-'; first++) {
        if (strcmp(argv[first], "--write-golden") == 0)
            write_golden = true;
        else if (strcmp(argv[first], "--list") == 0)
            list = true;
        else {
            fprintf(stderr, "tests/run: no option %s\n", argv[first]);
            return 2;
        }
    }
    on_signals(on_signal);
    for (struct test *t = all; t; t = t->next) {
        if (!chosen(t, argc, argv, first)) continue;
        if (list) {
            printf("%s %s\n", t->file, t->name);
            continue;
        }
        double start = seconds();
        int st = 0;
        if (!run_one(t, &st)) {
            perror("tests/run");
            return 5;
        }
        const char *word = "FAILED";
        if (WIFEXITED(st) && WEXITSTATUS(st) == 0) {
            word = "ok";
            n_pass++;
        } else if (WIFEXITED(st) && WEXITSTATUS(st) == EXIT_SKIPPED) {
            word = "skipped";
            n_skip++;
        } else
            n_fail++;
        printf("%-8s %-60s %6.2f s%s%s\n", word, t->name, seconds() - start,
               WIFSIGNALED(st) ? "  " : "", WIFSIGNALED(st) ? death(WTERMSIG(st)) : "");
    }
    if (list) return 0;
    printf("%d passed, %d failed, %d skipped\n", n_pass, n_fail, n_skip);
    return n_fail ? 1 : 0;
}
