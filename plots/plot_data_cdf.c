/* plots/plot_data_cdf.c - data of the latency distributions. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "base/units.h"
#include "plots/axis.h"
#include "plots/plot_data.h"

enum { MAX_POINT = 800, LINE_CHARS = 118, KEY_CHARS = 100, NAME_CHARS = 44 };

struct curve {
    double *x; /* [n], ns, ascending */
    size_t n, vacuous, due, met;
    double limit_ns; /* NAN: none */
};

static const char *const what[] = { "Time to first token, from due", "Time per output token",
                                    "End to end latency, from due" };

/* Latency of one request in ns; NAN: never; -1: has none and meets any limit. */
static double latency_ns(enum source_metric m, double due, double first, double last, double n_out)
{
    if (m == SOURCE_TTFT) return first < 0 ? NAN : first - due;
    if (last < 0) return NAN;
    if (m == SOURCE_E2E) return last - due;
    return n_out < 2 ? -1 : floor((last - first) / (n_out - 1) + .5); /* whole ns, as the summary */
}

/* Due in the window of the summary: both ends are in it. Without an end it is open. */
static bool in_window(const struct source *s, double due)
{
    return due >= (double)s->window_begin_ns &&
           (s->window_end_ns <= s->window_begin_ns || due <= (double)s->window_end_ns);
}

static int curve_read(struct source *s, enum source_metric m, struct curve *c, struct err *e)
{
    static const char *const col[] = { "t_due", "t_first", "t_last", "n_out", "status" };
    double *t[5];
    size_t n;
    int st = source_columns(s, "requests", col, 5, t, &n, e);
    if (st != ST_OK) return st;
    *c = (struct curve){ .limit_ns = s->slo_ns[m] > 0 ? (double)s->slo_ns[m] : NAN };
    c->x = arena_array(s->arena, n + 1, sizeof *c->x);
    for (size_t i = 0; i < n; i++) {
        if (!in_window(s, t[0][i])) continue;
        c->due++;
        if (t[4][i] != RUN_OK) continue;
        double v = latency_ns(m, t[0][i], t[1][i], t[2][i], t[3][i]);
        if (isnan(v)) continue;
        c->met += v < 0 || v <= c->limit_ns;
        if (v < 0)
            c->vacuous++;
        else
            c->x[c->n++] = v;
    }
    if (c->due == 0)
        return err_set(e, ST_USAGE, "%s: no request is due in the window", s->file.path);
    stat_sort(c->x, c->n);
    return ST_OK;
}

/* Steps up at each value; of long curves every n-th, and the last 50 one by one. Returns the number
 * of rows. */
static int curve_write(const struct curve *c, const struct axis *x, struct gnuplot *g)
{
    double share = 100. / (double)c->due;
    size_t every = c->n / MAX_POINT + 1;
    int n_row = 2;
    fprintf(g->data, "%.6g\t%.6g\n", x->from, share * (double)c->vacuous);
    for (size_t i = 0; i < c->n; i++)
        if (i % every == every - 1 || i + 50 >= c->n) {
            fprintf(g->data, "%.6g\t%.6g\n", c->x[i] * x->scale,
                    share * (double)(c->vacuous + i + 1));
            n_row++;
        }
    fprintf(g->data, "%.6g\t%.6g\n", x->to, share * (double)(c->vacuous + c->n));
    return n_row;
}

/* One line per limit; runs that share a limit share its line. */
static void limits(struct source *const *s, const struct curve *c, int n, const struct axis *x,
                   struct gnuplot *g)
{
    char text[40];
    int n_line = 0;
    for (int i = 0; i < n; i++) {
        bool known = isnan(c[i].limit_ns);
        for (int k = 0; k < i; k++) known = known || c[k].limit_ns == c[i].limit_ns;
        if (known) continue;
        n_line++;
        units_human_ns(c[i].limit_ns, text, sizeof text);
        double share = (double)c[i].met / (double)c[i].due;
        const char *label =
            n == 1 ? arena_printf(s[0]->arena, "SLO %s: %.1f %% meet it", text, 100 * share)
                   : arena_printf(s[0]->arena, "SLO %s", text);
        gnuplot_number(g, arena_printf(s[0]->arena, "slo_x[%d]", n_line), c[i].limit_ns * x->scale);
        gnuplot_text(g, arena_printf(s[0]->arena, "slo_text[%d]", n_line), label, KEY_CHARS);
        gnuplot_number(g, arena_printf(s[0]->arena, "slo_high[%d]", n_line), share < .5);
    }
    gnuplot_number(g, "n_slo", n_line);
}

/* Texts of a run that a legend may have to tell apart. */
enum which { OF_NAME, OF_SCENARIO, OF_WORKLOAD };

static const char *text_of(const struct source *s, enum which w)
{
    return w == OF_NAME ? s->name : w == OF_SCENARIO ? s->scenario : s->workload;
}

static bool same(struct source *const *s, int n, enum which w)
{
    for (int i = 1; i < n; i++)
        if (strcmp(text_of(s[i], w), text_of(s[0], w)) != 0) return false;
    return true;
}

/* Between two words; of file names also what stands for a blank there. */
static bool parts(char c, enum which w)
{
    return c == ' ' || (w == OF_NAME && (c == '-' || c == '_' || c == '.'));
}

/* What run i's text has that the others' have not: whole words between what all begin and all end
 * with, at most `max` bytes; "" where all are the same. */
static const char *apart(struct source *const *s, int n, int i, enum which w, size_t max)
{
    const char *own = text_of(s[i], w);
    size_t len = strlen(own), least = len, pre = len, post = len;
    if (same(s, n, w)) return "";
    for (int k = 0; k < n; k++) {
        const char *other = text_of(s[k], w);
        size_t m = strlen(other), p = 0, q = 0;
        while (p < len && own[p] == other[p]) p++;
        while (q < len && q < m && own[len - 1 - q] == other[m - 1 - q]) q++;
        if (m < least) least = m;
        if (p < pre) pre = p;
        if (q < post) post = q;
    }
    while (pre > 0 && !(parts(own[pre - 1], w) && pre < len)) pre--;
    if (post > least - pre) post = least - pre;
    while (post > 0 && !parts(own[len - post], w)) post--;
    size_t n_mid = len - pre - post, cut = n_mid > max ? max : n_mid;
    return arena_printf(s[0]->arena, "%s%.*s%s", pre ? "... " : "", (int)cut, own + pre,
                        cut < n_mid || post ? " ..." : "");
}

/* The file's name, what differs of scenario and workload, the share; the latter always has room. */
static const char *entry(struct source *const *s, int n, int i, const char *met)
{
    struct arena *a = s[0]->arena;
    const char *name = s[i]->name, *colon = ": ";
    if (strlen(name) > NAME_CHARS) name = apart(s, n, i, OF_NAME, strlen(name));
    if (strlen(name) > NAME_CHARS) /* its begin and its end */
        name = arena_printf(a, "%.*s...%s", NAME_CHARS / 2 - 2, name,
                            name + strlen(name) - NAME_CHARS / 2);
    size_t used = strlen(name) + strlen(met) + 20, room = used < KEY_CHARS ? KEY_CHARS - used : 0;
    for (enum which w = OF_SCENARIO; w <= OF_WORKLOAD; w++) {
        const char *part = room > 8 ? apart(s, n, i, w, room) : "";
        if (!*part) continue;
        name = arena_printf(a, "%s%s%s", name, colon, part);
        room = room > strlen(part) + 2 ? room - strlen(part) - 2 : 0;
        colon = "; ";
    }
    return arena_printf(a, "%s%s", name, met);
}

static void head(struct source *const *s, const struct curve *c, int n, enum source_metric m,
                 struct gnuplot *g)
{
    struct arena *a = s[0]->arena;
    const char *title =
        n == 1 ? arena_printf(a, "%s: %zu request%s", what[m], c[0].due, c[0].due == 1 ? "" : "s")
               : arena_printf(a, "%s: %d runs", what[m], n);
    plot_data_head(s[0], title, "first of", g);
    fprintf(g->args, "array run_name[%d]\n", PLOT_DATA_MAX_RUN);
    for (int i = 0; i < n; i++) {
        const char *met = isnan(c[i].limit_ns)
                              ? ""
                              : arena_printf(a, ", %.1f %% within the SLO",
                                             100. * (double)c[i].met / (double)c[i].due);
        gnuplot_text(g, arena_printf(a, "run_name[%d]", i + 1), entry(s, n, i, met), KEY_CHARS);
    }
    if (n == 1) return;
    bool seeds = false;
    for (int i = 0; i < n; i++) seeds = seeds || s[i]->seeds > 1;
    gnuplot_text(g, "fig_sub1",
                 same(s, n, OF_SCENARIO) ? s[0]->scenario : "Scenarios differ between the runs",
                 LINE_CHARS);
    gnuplot_text(g, "fig_sub2",
                 arena_printf(a, "%s%s", seeds ? "First seed of each run; " : "",
                              same(s, n, OF_WORKLOAD) ? s[0]->workload
                                                      : "Workloads differ between the runs"),
                 LINE_CHARS);
}

/* Where most requests meet a limit, its label stands to the right of the line, below the curve;
 * this makes room there. */
static void make_room(const struct curve *c, int n, struct axis *x)
{
    static const double LINE_AT = .66; /* of the width: the label takes a third */
    for (int i = 0; i < n; i++) {
        double at = c[i].limit_ns * x->scale;
        if (isnan(at) || 2 * c[i].met < c[i].due) continue;
        double to =
            x->log ? x->from * pow(at / x->from, 1 / LINE_AT) : x->from + (at - x->from) / LINE_AT;
        x->to = fmax(x->to, to);
    }
}

int plot_data_cdf(struct source *const *s, int n, enum source_metric m, struct gnuplot *g,
                  struct err *e)
{
    struct curve c[PLOT_DATA_MAX_RUN];
    struct axis x;
    char marks[400];
    size_t points = 0;
    axis_init(&x);
    for (int i = 0; i < n; i++) {
        int st = curve_read(s[i], m, &c[i], e);
        if (st != ST_OK) return st;
        if (c[i].n) axis_add(&x, c[i].x[0]), axis_add(&x, c[i].x[c[i].n - 1]);
        points += c[i].n;
        axis_add(&x, c[i].limit_ns);
    }
    if (points == 0)
        return err_set(e, ST_USAGE, "%s: no finished request in the window has a %s",
                       s[0]->file.path, source_metric_label[m]);
    axis_time(&x);
    make_room(c, n, &x);
    fprintf(g->args, "array n_point[%d]\n", PLOT_DATA_MAX_RUN);
    for (int i = 0; i < n; i++) {
        fprintf(g->data, "%s# run %d: %s [%s]\tshare of %zu requests due [%%]\n", i ? "\n\n" : "",
                i + 1, source_metric_label[m], x.unit, c[i].due);
        int n_row = curve_write(&c[i], &x, g);
        fprintf(g->args, "n_point[%d] = %d\n", i + 1, n_row);
    }
    head(s, c, n, m, g);
    fprintf(g->args, "array slo_x[%d]\narray slo_text[%d]\narray slo_high[%d]\n", PLOT_DATA_MAX_RUN,
            PLOT_DATA_MAX_RUN, PLOT_DATA_MAX_RUN);
    limits(s, c, n, &x, g);
    gnuplot_number(g, "n_run", n);
    gnuplot_text(g, "x_label", arena_printf(s[0]->arena, "%s [%s]", source_metric_label[m], x.unit),
                 40);
    gnuplot_number(g, "x_log", x.log);
    gnuplot_number(g, "x_from", x.from);
    gnuplot_number(g, "x_to", x.to);
    gnuplot_text(g, "x_marks", axis_marks(&x, marks, sizeof marks), sizeof marks);
    return ST_OK;
}
