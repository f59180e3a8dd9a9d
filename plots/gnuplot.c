/* plots/gnuplot.c - see gnuplot.h. SPDX-License-Identifier: Apache-2.0 */
#include "plots/gnuplot.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/doc.h"
#include "base/paths.h"
#include "base/stop.h"
#include "base/utf8.h"

extern char **environ;

enum { PATH_BYTES = 4096, MAX_PICTURE = 256 << 20 };
static const char *const files[] = { "data", "args", "out", "said" };

static const char *in_dir(const struct gnuplot *g, const char *name, char *buf)
{
    snprintf(buf, PATH_BYTES, "%s/%s", g->dir, name);
    return buf;
}

int gnuplot_begin(struct gnuplot *g, struct err *e)
{
    char path[PATH_BYTES];
    const char *tmp = getenv("TMPDIR");
    *g = (struct gnuplot){ .data = NULL };
    int n = snprintf(g->dir, sizeof g->dir, "%s/orrery-plot-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (n < 0 || (size_t)n >= sizeof g->dir || !mkdtemp(g->dir)) {
        err_set(e, ST_IO, "cannot make a directory %s: %s", g->dir, strerror(errno));
        g->dir[0] = 0;
        return ST_IO;
    }
    g->data = fopen(in_dir(g, "data", path), "w");
    g->args = fopen(in_dir(g, "args", path), "w");
    if (g->data && g->args) return ST_OK;
    return err_set(e, ST_IO, "cannot write in %s: %s", g->dir, strerror(errno));
}

void gnuplot_end(struct gnuplot *g)
{
    char path[PATH_BYTES];
    if (g->data) fclose(g->data);
    if (g->args) fclose(g->args);
    if (g->dir[0]) {
        for (size_t i = 0; i < sizeof files / sizeof *files; i++) unlink(in_dir(g, files[i], path));
        rmdir(g->dir);
    }
    *g = (struct gnuplot){ .data = NULL };
}

/* Inside double quotes gnuplot runs `commands` and knows escapes; written as octal escapes, bytes
 * are only themselves. */
static void put_byte(FILE *f, unsigned char c)
{
    bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                 (c && strchr(" /._-+=:,()[]", c));
    fprintf(f, plain ? "%c" : "\\%03o", c);
}

void gnuplot_text(struct gnuplot *g, const char *name, const char *text, size_t max)
{
    size_t n = strlen(text), count = 0;
    fprintf(g->args, "%s = \"", name);
    for (size_t i = 0; i < n;) {
        uint32_t code = 0;
        size_t step = utf8_step(text + i, n - i, &code);
        if (count++ == max) {
            fputs("...", g->args);
            break;
        }
        bool control = code < 0x20 || (code >= 0x7f && code < 0xa0);
        if (step == 0 || code == 0xfffe || code == 0xffff)
            put_byte(g->args, '?');
        else if (control)
            put_byte(g->args, ' ');
        else
            for (size_t k = 0; k < step; k++) put_byte(g->args, (unsigned char)text[i + k]);
        i += step ? step : 1;
    }
    fputs("\"\n", g->args);
}

double gnuplot_sane(double v)
{
    return fabs(v) <= 1e15 ? v : NAN;
}

void gnuplot_value(FILE *f, double v)
{
    if (!isnan(gnuplot_sane(v)))
        fprintf(f, "\t%.6g", v);
    else
        fputs("\tNaN", f);
}

void gnuplot_number(struct gnuplot *g, const char *name, double v)
{
    if (!isnan(gnuplot_sane(v)))
        fprintf(g->args, "%s = %.17g\n", name, v);
    else
        fprintf(g->args, "%s = NaN\n", name);
}

/* Starts gnuplot without start-up files, with standard error in the file `said`; in a process group
 * of its own, since it may hang when a terminal's Ctrl-C reaches it while it writes. */
static int start(const struct gnuplot *g, const char *script, pid_t *pid)
{
    char args[PATH_BYTES], said[PATH_BYTES], script_path[PATH_BYTES];
    static char name[] = "gnuplot", plain[] = "-d";
    snprintf(script_path, sizeof script_path, "%s", script);
    in_dir(g, "args", args);
    in_dir(g, "said", said);
    char *argv[] = { name, plain, args, script_path, NULL };
    posix_spawn_file_actions_t act;
    if (posix_spawn_file_actions_init(&act) != 0) return ENOMEM;
    posix_spawnattr_t own;
    if (posix_spawnattr_init(&own) != 0) {
        posix_spawn_file_actions_destroy(&act);
        return ENOMEM;
    }
    int flags = O_WRONLY | O_CREAT | O_TRUNC;
    int rc = posix_spawnattr_setflags(&own, POSIX_SPAWN_SETPGROUP); /* group 0: its own */
    if (!rc) rc = posix_spawn_file_actions_addopen(&act, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (!rc) rc = posix_spawn_file_actions_addopen(&act, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    if (!rc) rc = posix_spawn_file_actions_addopen(&act, STDERR_FILENO, said, flags, 0600);
    if (!rc) rc = posix_spawnp(pid, name, &act, &own, argv, environ);
    posix_spawnattr_destroy(&own);
    posix_spawn_file_actions_destroy(&act);
    return rc;
}

/* The line of gnuplot's messages that says what is wrong: the one with its place, else the first.
 */
static const char *complaint(const struct gnuplot *g, struct arena *a)
{
    char path[PATH_BYTES], *text, *save = NULL, *first = NULL;
    size_t n;
    if (doc_read_bytes(a, in_dir(g, "said", path), 1 << 20, &text, &n, NULL) != ST_OK)
        return "no message";
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        if (strstr(line, "line ")) return line;
        if (!first && line[strspn(line, " \t^")]) first = line;
    }
    return first ? first : "no message";
}

/* Until it has ended, or has been killed because we are to stop. */
static int wait_end(pid_t pid, int *status)
{
    static const struct timespec nap = { .tv_nsec = 2000000 };
    for (;;) {
        bool stop = stop_asked();
        if (stop) kill(pid, SIGKILL);
        pid_t got = waitpid(pid, status, stop ? 0 : WNOHANG);
        if (got == pid) return 0;
        if (got < 0 && errno != EINTR) return -1;
        nanosleep(&nap, NULL);
    }
}

static int wait_for(pid_t pid, struct gnuplot *g, struct arena *a, struct err *e)
{
    int status = 0;
    if (wait_end(pid, &status) != 0)
        return err_set(e, ST_IO, "waiting for gnuplot: %s", strerror(errno));
    if (stop_asked()) return err_set(e, ST_STOPPED, "interrupted");
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return ST_OK;
    if (WIFEXITED(status) && WEXITSTATUS(status) != 127)
        return err_set(e, ST_IO, "gnuplot failed: %s", complaint(g, a));
    if (WIFEXITED(status)) return err_set(e, ST_IO, "gnuplot could not be started");
    return err_set(e, ST_IO, "gnuplot was killed by signal %d", WTERMSIG(status));
}

int gnuplot_run(struct gnuplot *g, const char *script, enum gnuplot_format format, struct arena *a,
                char **bytes, size_t *n, struct err *e)
{
    char path[PATH_BYTES], common[PATH_BYTES], out[PATH_BYTES];
    pid_t pid;
    int st = paths_find(arena_printf(a, "plots/%s", script), path, sizeof path, e);
    if (st == ST_OK) st = paths_find("plots/common.gp", common, sizeof common, e);
    if (st != ST_OK) return st;
    gnuplot_text(g, "fig_common", common, PATH_BYTES);
    gnuplot_text(g, "fig_format", format == GNUPLOT_PNG ? "png" : "svg", 8);
    gnuplot_text(g, "fig_data", in_dir(g, "data", out), PATH_BYTES);
    gnuplot_text(g, "fig_out", in_dir(g, "out", out), PATH_BYTES);
    bool bad = ferror(g->data) || ferror(g->args);
    bad = fclose(g->data) != 0 || bad;
    bad = fclose(g->args) != 0 || bad;
    g->data = g->args = NULL;
    if (bad) return err_set(e, ST_IO, "cannot write the data of a figure in %s", g->dir);
    int rc = start(g, path, &pid);
    if (rc == ENOENT)
        return err_set(e, ST_IO,
                       "gnuplot is not in PATH; figures need it (package gnuplot-nox or gnuplot)");
    if (rc != 0) return err_set(e, ST_IO, "cannot start gnuplot: %s", strerror(rc));
    st = wait_for(pid, g, a, e);
    if (st != ST_OK) return st;
    return doc_read_bytes(a, out, MAX_PICTURE, bytes, n, e);
}
