/* plots/report.c - see report.h. SPDX-License-Identifier: Apache-2.0 */
#include "plots/report.h"

#include <math.h>
#include <string.h>

#include "base/conf.h"
#include "base/units.h"
#include "plots/figure.h"
#include "plots/html.h"
#include "plots/plot_data.h"
#include "plots/report_tables.h"
#include "plots/verdict.h"

struct report {
    FILE *f;
    struct source *run[CONF_MAX_FILES], *sweep[CONF_MAX_FILES];
    int n_run, n_sweep, n_figure;
};

static void split(struct report *r, struct source *s, int n)
{
    for (int i = 0; i < n; i++) {
        if (s[i].has_sweep)
            r->sweep[r->n_sweep++] = &s[i];
        else
            r->run[r->n_run++] = &s[i];
    }
}

/* ---- figures */

/* Left out when the file's content does not give it. */
static int figure(struct report *r, enum figure k, struct source *const *s, int n, struct err *e)
{
    struct arena a;
    struct err own = { 0 };
    char *svg, prefix[24];
    size_t bytes;
    if (figure_lacks(k, s[0])) return ST_OK;
    arena_init(&a);
    int st = figure_draw(k, s, n, GNUPLOT_SVG, &a, &svg, &bytes, &own);
    if (st == ST_OK) {
        snprintf(prefix, sizeof prefix, "f%d_", ++r->n_figure);
        fputs("<figure>\n", r->f);
        html_svg(r->f, svg, bytes, prefix, figure_says(k, s[0]));
        fputs("\n<figcaption>", r->f);
        html_text(r->f, figure_says(k, s[0]));
        fputs("</figcaption>\n</figure>\n", r->f);
    }
    arena_release(&a);
    return st == ST_OK || st == ST_USAGE ? ST_OK : err_set(e, st, "%s", own.text);
}

static int cdfs(struct report *r, struct err *e)
{
    struct source *have[PLOT_DATA_MAX_RUN];
    int n = 0, st = ST_OK;
    for (int i = 0; i < r->n_run && n < PLOT_DATA_MAX_RUN; i++)
        if (r->run[i]->has_requests) have[n++] = r->run[i];
    for (int k = FIGURE_CDF_TTFT; k <= FIGURE_CDF_E2E && n > 0 && st == ST_OK; k++)
        st = figure(r, (enum figure)k, have, n, e);
    return st;
}

/* ---- warnings */

static bool has_warning(const struct source *s)
{
    return s->extrapolated || s->overloaded || *s->profile_noise;
}

/* The text is a list with "; " between. */
static void coverage(FILE *f, const struct source *s, bool heading)
{
    if (!*s->coverage && !has_warning(s)) return;
    if (heading) fputs("<h3>", f), html_text(f, s->name), fputs("</h3>\n", f);
    if (s->extrapolated)
        fputs("<p class=\"warn\"><strong>Extrapolated:</strong> part of this run lies outside what "
              "was "
              "measured; its figures are less certain than their intervals say.</p>\n",
              f);
    if (*s->profile_noise) {
        fputs("<p class=\"warn\"><strong>Noisy profile:</strong> ", f);
        html_text(f, s->profile_noise);
        fputs(".</p>\n", f);
    }
    if (s->overloaded)
        fputs("<p class=\"warn\"><strong>Overloaded:</strong> no steady state; latencies grow with "
              "the "
              "length of the run.</p>\n",
              f);
    fputs("<ul>\n", f);
    for (const char *p = s->coverage; *p;) {
        const char *end = strstr(p, "; ");
        size_t n = end ? (size_t)(end - p) : strlen(p);
        fputs("<li>", f);
        html_text(f, arena_copy_text(s->arena, p, n));
        fputs("</li>\n", f);
        p += n + (end ? 2 : 0);
    }
    fputs("</ul>\n", f);
}

static void uncertainty(FILE *f, struct source *s)
{
    double share;
    bool open = false;
    for (int k = 1; k <= 3; k++) {
        const char *name = source_text(s, "/summary", arena_printf(s->arena, "uncertain_%d", k));
        const char *of = arena_printf(s->arena, "uncertain_%d_of_step", k);
        if (!*name || h5_read_attr_f64(s->file.h5, "/summary", of, &share, NULL) != ST_OK) break;
        fputs(open ? ", " : "<p>The constants whose uncertainty moves a step most: ", f);
        fputs("<code>", f);
        html_text(f, name);
        fprintf(f, "</code> (%.1f %% of a step)", 100 * share);
        open = true;
    }
    if (open) fputs(".</p>\n", f);
}

/* ---- definitions, origin */

static void window_line(FILE *f, const struct source *s)
{
    fprintf(f, "window</dt><dd>%.3f s to %.3f s", 1e-9 * (double)s->window_begin_ns,
            1e-9 * (double)s->window_end_ns);
    if (!s->measured)
        fprintf(f, " of the first seed; %lld seed%s, %lld draw%s of the constants",
                (long long)s->seeds, units_s(s->seeds), (long long)s->draws, units_s(s->draws));
    fputs("</dd>\n", f);
}

static void definitions(FILE *f, const struct report *r)
{
    int measured = 0;
    for (int i = 0; i < r->n_run; i++) measured += r->run[i]->measured;
    fputs(
        "<h2>Definitions</h2>\n<dl>\n"
        "<dt>TTFT</dt><dd>time to first token: from when a request was <em>due</em> by the arrival "
        "plan to its first output token, queueing included</dd>\n"
        "<dt>TPOT</dt><dd>time per output token: (last token &minus; first token) / (output tokens "
        "&minus; 1), per request with two output tokens or more</dd>\n"
        "<dt>ITL</dt><dd>gap between consecutive tokens of a request, pooled over all tokens</dd>\n"
        "<dt>E2E</dt><dd>from due to the last output token</dd>\n"
        "<dt>attainment</dt><dd>requests due in the window that met every clause, of all due in "
        "the "
        "window; failed and rejected ones count against it, one output token meets any TPOT</dd>\n"
        "<dt>goodput</dt><dd>requests due in the window that met the SLO, per second; finished "
        "counts completions inside the window, so the two may differ either way by what is under "
        "way "
        "at its ends</dd>\n"
        "<dt>percentiles</dt><dd>nearest rank in a histogram with buckets of 0.05 % width (off by "
        "0.025 % at most)",
        f);
    if (measured < r->n_run || r->n_run == 0)
        fputs("; of simulated runs pooled over seeds, while curves are every request of the first "
              "seed",
              f);
    fputs("</dd>\n<dt>clock</dt><dd>", f);
    if (measured == 0)
        fputs("simulated time", f);
    else if (measured == r->n_run)
        fputs("the load generator's monotonic clock", f);
    else
        fputs("simulated time of a simulated run, the load generator's monotonic clock of a "
              "measured one",
              f);
    fputs("</dd>\n", f);
    for (int i = 0; i < r->n_run; i++) {
        struct source *s = r->run[i];
        if (!s->has_summary) continue;
        fputs("<dt>", f);
        if (r->n_run > 1) html_text(f, s->name), fputs(": ", f);
        window_line(f, s);
        const char *method = source_text(s, "/summary/ttft", "method");
        if (i > 0 || !*method) continue;
        if (isnan(source_scalar(s, "ttft").lo)) {
            fprintf(f, "<dt>intervals</dt><dd>none: one %srun</dd>\n",
                    s->measured ? "measured " : "");
            continue;
        }
        fprintf(f, "<dt>intervals</dt><dd>%.0f %%: ", 100 * s->level_ratio);
        html_text(f, method);
        fputs("</dd>\n", f);
    }
    fputs("</dl>\n", f);
}

static void origin_line(FILE *f, const char *label, const char *text)
{
    if (!text || !*text) return;
    fprintf(f, "<dt>%s</dt><dd>", label);
    html_text(f, text);
    fputs("</dd>\n", f);
}

static void origin(FILE *f, struct source *s)
{
    static const struct {
        const char *label, *attr;
    } line[] = {
        { "command", "command" },
        { "date", "created_utc" },
        { "program", "source" },
        { "compiler", "compiler" },
        { "host (hash)", "host" },
        { "processor", "cpu" },
        { "scenario file", "scenario_file" },
        { "sha256 of scenario", "scenario_sha256" },
        { "run id", "run_uuid" },
    };
    fputs("<h3>", f);
    html_text(f, s->name);
    fputs("</h3>\n<dl>\n", f);
    origin_line(f, "kind", s->file.kind);
    for (size_t i = 0; i < sizeof line / sizeof *line; i++)
        origin_line(f, line[i].label, source_text(s, "/provenance", line[i].attr));
    origin_line(f, s->measured ? "digest of tokens" : "digest of events", s->digest);
    fputs("</dl>\n", f);
    if (!s->file.scenario_yaml) return;
    fputs("<p>The scenario, defaults included:</p>\n<pre>", f);
    html_text(f, s->file.scenario_yaml);
    fputs("</pre>\n", f);
}

/* ---- the page */

static void answers(struct report *r)
{
    bool several = r->n_run + r->n_sweep > 1;
    for (int i = 0; i < r->n_run; i++) verdict_run(r->f, r->run[i], several);
    for (int i = 0; i < r->n_sweep; i++) verdict_sweep(r->f, r->sweep[i], several);
}

static void head(struct report *r, const struct source *first)
{
    FILE *f = r->f;
    bool one = r->n_run + r->n_sweep == 1;
    const char *title = *first->title ? first->title : first->name;
    html_begin(f, title);
    fputs("<h1>", f);
    html_text(f, title);
    fputs("</h1>\n", f);
    if (one && *first->scenario) {
        fputs("<p class=\"dim\">", f);
        html_text(f, first->scenario);
        fputs("<br>\n", f);
        html_text(f, first->workload);
        fputs("</p>\n", f);
    }
}

static int per_run(struct report *r, struct source *s, struct err *e)
{
    static const enum figure kinds[] = { FIGURE_OPERATORS, FIGURE_RANKS, FIGURE_SERIES,
                                         FIGURE_GANTT };
    int st = ST_OK;
    if (r->n_run > 1) fputs("<h2>", r->f), html_text(r->f, s->name), fputs("</h2>\n", r->f);
    if (r->n_run > 1) report_tables_run(r->f, s);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds && st == ST_OK; k++)
        st = figure(r, kinds[k], &s, 1, e);
    return st;
}

static int body(struct report *r, struct err *e)
{
    int st = ST_OK;
    FILE *f = r->f;
    if (r->n_run == 1) {
        fputs("<h2>Figures</h2>\n", f);
        report_tables_run(f, r->run[0]);
    } else if (r->n_run > 1) {
        fputs("<h2>Comparison</h2>\n", f);
        report_tables_compare(f, r->run, r->n_run);
    }
    if (r->n_run > 0) fputs("<h2>Plots</h2>\n", f), st = cdfs(r, e);
    for (int i = 0; i < r->n_run && st == ST_OK; i++) st = per_run(r, r->run[i], e);
    for (int i = 0; i < r->n_sweep && st == ST_OK; i++) {
        fputs("<h2>Sweep", f);
        if (r->n_run + r->n_sweep > 1) fputs(": ", f), html_text(f, r->sweep[i]->name);
        fputs("</h2>\n", f);
        report_tables_sweep(f, r->sweep[i]);
        st = figure(r, FIGURE_RATE, &r->sweep[i], 1, e);
        if (st == ST_OK) st = figure(r, FIGURE_SCALING, &r->sweep[i], 1, e);
    }
    return st;
}

int report_write(FILE *f, struct source *s, int n, struct err *e)
{
    struct report r = { .f = f };
    split(&r, s, n);
    head(&r, &s[0]);
    answers(&r);
    int st = body(&r, e);
    if (st != ST_OK) return st;
    if (r.n_run > 0) fputs("<h2>How far to trust it</h2>\n", f);
    for (int i = 0; i < r.n_run; i++) {
        coverage(f, r.run[i], r.n_run > 1);
        uncertainty(f, r.run[i]);
    }
    definitions(f, &r);
    fputs("<h2>Where it comes from</h2>\n", f);
    for (int i = 0; i < n; i++) origin(f, &s[i]);
    html_end(f);
    return ST_OK;
}
