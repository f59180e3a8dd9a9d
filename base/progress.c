/* base/progress.c - the status line.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/progress.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static const int64_t SECOND_NS = 1000000000;

int64_t clock_mono_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * SECOND_NS + t.tv_nsec;
}

/* Three significant digits and a prefix: "1.24 M", "10 M", "731". */
static const char *human(double v, char *buf, size_t n)
{
    static const char *const prefix[] = { "", " k", " M", " G", " T" };
    int i = 0;
    for (; i < 4 && v >= 999.5; i++) v /= 1000;
    if (v >= 999.5)
        snprintf(buf, n, "%.3e", v * 1e12);
    else
        snprintf(buf, n, "%.3g%s", v, prefix[i]);
    return buf;
}

static const char *human_s(double s, char *buf, size_t n)
{
    if (s < 99.5)
        snprintf(buf, n, "%.2g s", s);
    else if (s < 5940)
        snprintf(buf, n, "%.0f min", s / 60);
    else if (s < 360000)
        snprintf(buf, n, "%.1f h", s / 3600);
    else
        snprintf(buf, n, "%.0f d", s / 86400);
    return buf;
}

void progress_start(struct progress *p, const char *what, const char *unit, double total,
                    bool force)
{
    *p = (struct progress){ .what = what, .unit = unit, .total = total };
    p->on = force || isatty(STDERR_FILENO);
    p->start_ns = p->last_ns = clock_mono_ns();
}

/* Columns of the terminal on stderr; 80 where it does not say. */
static int columns(void)
{
    struct winsize w;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : 80;
}

/* How much of `what` stays in so many columns: whole, or up to a comma, or the word it begins with. */
static int cut(const char *what, int room)
{
    int n = (int)strlen(what), word = (int)strcspn(what, " ");
    if (n <= room) return n;
    for (n = room; n > word; n--)
        if (what[n] == ',' || (what[n] == ' ' && what[n + 1] == ' ')) return n;
    return word;
}

static void print_line(const struct progress *p, double run_s, bool terminal)
{
    char done[24], total[24], rate[24], left[24], tail[160];
    double per_s = p->done / run_s;
    int n, most = (int)sizeof tail;
    if (p->total > 0)
        n = snprintf(tail, sizeof tail, "  %s / %s %s  %.0f%%  %s/s",
                     human(p->done, done, sizeof done), human(p->total, total, sizeof total),
                     p->unit, floor(100 * p->done / p->total), human(per_s, rate, sizeof rate));
    else
        n = snprintf(tail, sizeof tail, "  %s %s  %s/s", human(p->done, done, sizeof done), p->unit,
                     human(per_s, rate, sizeof rate));
    if (p->total > p->done && per_s > 0 && n < most)
        n += snprintf(tail + n, sizeof tail - (size_t)n, "  ETA %s",
                      human_s((p->total - p->done) / per_s, left, sizeof left));
    if (!terminal) {
        fprintf(stderr, "%s%s\n", p->what, tail);
    } else {
        /* the last column stays free: a cursor past it would be on the next line */
        int wide = columns() - 1, head = cut(p->what, wide > n ? wide - n : 0);
        if (head > wide) head = wide;
        if (n > wide - head) /* whole parts of it */
            for (n = wide - head; n > 0 && (tail[n] != ' ' || tail[n + 1] != ' ');) n--;
        fprintf(stderr, "\r%.*s%.*s\033[K", head, p->what, n, tail);
    }
    fflush(stderr);
}

void progress_at(struct progress *p, double done)
{
    if (p->on) progress_at_ns(p, done, clock_mono_ns());
}

void progress_at_ns(struct progress *p, double done, int64_t now)
{
    if (!p->on) return;
    p->done = done;
    if (now - p->start_ns < SECOND_NS || now - p->last_ns < SECOND_NS / 5) return;
    bool terminal = isatty(STDERR_FILENO);
    if (!terminal && now - p->last_ns < 10 * SECOND_NS) return;
    print_line(p, 1e-9 * (double)(now - p->start_ns), terminal);
    p->last_ns = now;
    p->shown = true;
}

void progress_end(struct progress *p)
{
    if (p->shown && isatty(STDERR_FILENO)) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
    }
    p->on = p->shown = false;
}
