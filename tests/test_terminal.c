/* tests/test_terminal.c - the status line on a terminal: it is drawn, never as wide as the terminal,
 * erased at the end; and without a terminal there is nothing. SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "base/progress.h"
#include "tests/test.h"

static char text[1 << 16];

/* A terminal of so many columns, its two ends. */
static bool terminal(int columns, int end[2])
{
    struct winsize size = { .ws_row = 24, .ws_col = (unsigned short)columns };
    struct termios how;
    end[0] = posix_openpt(O_RDWR | O_NOCTTY);
    if (end[0] < 0 || grantpt(end[0]) != 0 || unlockpt(end[0]) != 0) return false;
    end[1] = open(ptsname(end[0]), O_RDWR | O_NOCTTY);
    if (end[1] < 0 || tcgetattr(end[1], &how) != 0) return false;
    how.c_oflag &= ~(tcflag_t)OPOST; /* what is written comes as it is */
    return tcsetattr(end[1], TCSANOW, &how) == 0 && ioctl(end[1], TIOCSWINSZ, &size) == 0;
}

static int count(const char *part)
{
    int n = 0;
    for (const char *at = text; (at = strstr(at, part)); at += strlen(part)) n++;
    return n;
}

/* Runs the program, its stderr a terminal, and interrupts it when `draws` lines have been drawn and one
 * has what it should have, however long it takes to come so far; all that came there is in text. */
static void drive(int columns, int draws, const char *has, const char *args)
{
    int end[2];
    size_t n = 0;
    char cmd[2000];
    const char *bin = getenv("ORRERY_BIN");
    if (!bin) SKIP("ORRERY_BIN does not name the program");
    if (!terminal(columns, end)) SKIP("no pseudo-terminals here");
    snprintf(cmd, sizeof cmd, "exec %s %s", bin, args);
    pid_t pid = fork();
    if (pid == 0) {
        int none = open(test_path("stdout"), O_CREAT | O_TRUNC | O_WRONLY, 0600);
        dup2(none, STDOUT_FILENO);
        dup2(end[1], STDERR_FILENO);
        close(end[0]);
        close(end[1]);
        execl("/bin/sh", "sh", "-c", cmd, (char *)NULL);
        _exit(127);
    }
    close(end[1]);
    text[0] = 0;
    for (bool asked = false; n < sizeof text - 1;) {
        ssize_t got = read(end[0], text + n, sizeof text - 1 - n); /* EIO when all have closed it */
        if (got <= 0) break;
        n += (size_t)got;
        text[n] = 0;
        if (!asked && count("\033[K") >= draws && strstr(text, has)) {
            kill(pid, SIGINT);
            asked = true;
        }
    }
    close(end[0]);
    int st;
    CHECK(waitpid(pid, &st, 0) == pid);
}

/* "\rLINE\033[K" each, the last one empty: the line is erased; then perhaps a message. */
static void drawn(int columns, const char *begins, const char *has)
{
    int lines = 0, widest = 0;
    char *at = text, *end;
    CHECK(text[0] == '\r');
    while (*at == '\r' && (end = strstr(at, "\033[K"))) {
        int wide = (int)(end - at) - 1;
        for (char *c = at + 1; c < end; c++) CHECK(*c >= ' ' && *c <= '~');
        if (wide > 0) {
            lines++;
            *end = 0;
            CHECK(strncmp(at + 1, begins, strlen(begins)) == 0);
            if (!CHECK(strstr(at, has) != NULL)) printf("%d: '%s'\n", columns, at + 1);
        } else {
            CHECK(at[-1] == 'K'); /* an empty one ends it */
            at = end + 3;
            break;
        }
        if (wide > widest) widest = wide;
        end[0] = '\033';
        at = end + 3;
        if (*at != '\r') CHECK(false);
    }
    CHECK(lines >= 2);
    if (!CHECK(widest < columns)) printf("%d columns, a line of %d\n", columns, widest);
    CHECK(strchr(at, '\r') == NULL); /* nothing is drawn after it has been erased */
}

static void everywhere(const char *args, const char *begins)
{
    static const struct {
        int columns;
        const char *has;
    } size[] = { { 40, "requests" }, { 80, "/s" }, { 200, "ETA" } };
    for (int i = 0; i < 3; i++) {
        drive(size[i].columns, 2, size[i].has, args);
        drawn(size[i].columns, begins, size[i].has);
        CHECK_HAS(text, "interrupted");
    }
}

TEST(terminal_shows_the_progress_of_simulate)
{
    everywhere("simulate scenarios/smoke.yaml --workload.requests=100000000", "simulate  ");
}

TEST(terminal_shows_the_progress_of_engine_run)
{
    everywhere(
        "engine run scenarios/engine-chat.yaml --model=tests/golden/engine/llama31/config.json "
        "--policy.max_model_len=128tok --workload.prefix_tok=8tok --workload.turns=1 "
        "--workload.prompt.max=40tok --workload.rate=200/s --workload.requests=1000000 "
        "--random-weights=1",
        "engine  ");
}

/* A run that ends by itself leaves nothing, not even a line end. */
TEST(terminal_is_left_clean)
{
    drive(80, 1000, "", "simulate scenarios/smoke.yaml --workload.requests=60000");
    size_t n = strlen(text);
    if (n > 0) CHECK_TEXT(text + n - 4, "\r\033[K");
    CHECK(strchr(text, '\n') == NULL);
}

TEST(terminal_less_nothing_is_drawn)
{
    static char out[1 << 14], err[1 << 12];
    char cmd[1000];
    const char *bin = getenv("ORRERY_BIN");
    if (!bin) SKIP("ORRERY_BIN does not name the program");
    snprintf(cmd, sizeof cmd, "%s simulate scenarios/smoke.yaml --workload.requests=60000", bin);
    CHECK_INT(test_run(cmd, out, sizeof out, err, sizeof err), 0);
    CHECK_TEXT(err, "");
}

/* One line of a given width, of work that began 20 s ago. */
static void line(int columns, const char *what, char *out, size_t n)
{
    int end[2], keep = dup(STDERR_FILENO);
    struct progress p;
    if (!terminal(columns, end)) SKIP("no pseudo-terminals here");
    dup2(end[1], STDERR_FILENO);
    progress_start(&p, what, "requests", 10e6, false);
    progress_at_ns(&p, 1.24e6, p.start_ns + INT64_C(20000000000));
    ssize_t got = read(end[0], out, n - 1);
    out[got > 0 ? got : 0] = 0;
    p.shown = false;
    progress_end(&p);
    dup2(keep, STDERR_FILENO);
    close(keep);
    close(end[0]);
    close(end[1]);
}

TEST(terminal_narrow_lines_lose_details_first)
{
    static const char what[] = "engine  12 running, 3 waiting, KV 40 %";
    static const struct {
        int columns;
        const char *line;
    } want[] = {
        { 200, "engine  12 running, 3 waiting, KV 40 %  1.24 M / 10 M requests  12%  62 k/s  ETA 2 "
               "min" },
        { 87, "engine  12 running, 3 waiting, KV 40 %  1.24 M / 10 M requests  12%  62 k/s  ETA 2 "
              "min" },
        { 86, "engine  12 running, 3 waiting  1.24 M / 10 M requests  12%  62 k/s  ETA 2 min" },
        { 70, "engine  12 running  1.24 M / 10 M requests  12%  62 k/s  ETA 2 min" },
        { 60, "engine  1.24 M / 10 M requests  12%  62 k/s  ETA 2 min" },
        { 40, "engine  1.24 M / 10 M requests  12%" },
        { 4, "eng" },
        { 1, "" },
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        char out[400], line_of[400];
        line(want[i].columns, what, out, sizeof out);
        snprintf(line_of, sizeof line_of, "\r%s\033[K", want[i].line);
        CHECK_TEXT(out, line_of);
    }
}
