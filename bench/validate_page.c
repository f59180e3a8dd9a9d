/* bench/validate_page.c - the comparison as one HTML page with figures.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/prov.h"
#include "bench/validate.h"
#include "plots/axis.h"
#include "plots/figure.h"
#include "plots/html.h"
#include "plots/plot_data.h"

enum { N_PANEL = VALIDATE_N_JUDGED, N_OVERLAY = 4, MAX_NAME = 26 };

struct page {
    const struct validate *v;
    FILE *f;
    int n_figure;
};

/* ---- figures */

static void put_svg(struct page *p, const char *svg, size_t n, const char *caption)
{
    char prefix[24];
    snprintf(prefix, sizeof prefix, "v%d_", ++p->n_figure);
    fputs("<figure>\n", p->f);
    html_svg(p->f, svg, n, prefix, caption);
    fputs("\n<figcaption>", p->f);
    html_text(p->f, caption);
    fputs("</figcaption>\n</figure>\n", p->f);
}

static void head_lines(const struct page *p, struct gnuplot *g, const char *title)
{
    char text[200];
    gnuplot_text(g, "fig_title", title, 90);
    gnuplot_text(g, "fig_sub1", p->v->title ? p->v->title : "", 118);
    snprintf(text, sizeof text, "%d held out, %d calibrated the prediction",
             p->v->n_of[VALIDATE_HELD_OUT], p->v->n_of[VALIDATE_CALIBRATED]);
    gnuplot_text(g, "fig_sub2", text, 118);
}

static const char *const panel_name[N_PANEL] = { "throughput [token/s]", "TPOT mean [ms]",
                                                 "TTFT mean [ms]", "TPOT p99 [ms]" };

/* Measured [panel's unit] and predicted value of a case; false where a panel has no point of it. */
static bool scatter_point(const struct validate_case *c, int k, double *y, double *z)
{
    const struct validate_error *x = &c->err[validate_judged[k]];
    double unit = validate_judged[k] == VALIDATE_THROUGHPUT ? 1 : 1e-6;
    *y = x->measured * unit;
    *z = x->predicted * unit;
    return !c->refused && isfinite(x->e);
}

/* Points of one panel; false without any. *n_past: counts those whose noise is wider than it. */
static bool scatter_panel(const struct validate *v, int k, double range[2], int *n_past,
                          struct gnuplot *g)
{
    double y, z;
    range[0] = INFINITY;
    range[1] = 0;
    for (int i = 0; i < v->n_case; i++) {
        if (!scatter_point(&v->c[i], k, &y, &z)) continue;
        range[0] = fmin(range[0], fmin(y, z) / 1.25);
        range[1] = fmax(range[1], fmax(y, z) * 1.25);
    }
    for (int i = 0; i < v->n_case; i++) {
        const struct validate_case *c = &v->c[i];
        double floor = c->err[validate_judged[k]].floor_runs;
        bool known = isfinite(floor);
        double h = known ? exp(fmin(floor, 100)) : 1;
        if (!scatter_point(c, k, &y, &z)) continue;
        int past = (y / h < range[0]) + 2 * (y * h > range[1]);
        *n_past += past > 0;
        fprintf(g->data, "%.6g\t%.6g\t%.6g\t%.6g\t%d\t%d\t%d\n", y, z, past & 1 ? y : y / h,
                past & 2 ? y : y * h, c->use == VALIDATE_CALIBRATED, known, past);
    }
    fputs("\n\n", g->data);
    return range[1] > 0;
}

/* Configurations with a prediction whose noise floor is not known. */
static int n_open(const struct validate *v)
{
    int n = 0;
    for (int i = 0; i < v->n_case; i++) n += !v->c[i].refused && v->c[i].n_measured < 2;
    return n;
}

static bool scatter_data(const struct page *p, struct gnuplot *g)
{
    double range[N_PANEL][2];
    bool any = true;
    int n_past = 0;
    for (int k = 0; k < N_PANEL; k++) any = scatter_panel(p->v, k, range[k], &n_past, g) && any;
    if (!any) return false;
    head_lines(p, g, "Predicted against measured");
    fprintf(g->args, "n_panel = %d\nn_held = %d\nn_used = %d\n", N_PANEL,
            p->v->n_of[VALIDATE_HELD_OUT], p->v->n_of[VALIDATE_CALIBRATED]);
    fprintf(g->args, "n_open = %d\nn_past = %d\n", n_open(p->v), n_past);
    fprintf(g->args,
            "array panel_name[%d]\narray panel_marks[%d]\narray panel_lo[%d]\narray panel_hi[%d]\n",
            N_PANEL, N_PANEL, N_PANEL, N_PANEL);
    for (int k = 0; k < N_PANEL; k++) {
        char name[32], marks[400];
        struct axis x = { .log = true, .from = range[k][0], .to = range[k][1] };
        snprintf(name, sizeof name, "panel_marks[%d]", k + 1);
        gnuplot_text(g, name, axis_marks(&x, marks, sizeof marks), sizeof marks);
        snprintf(name, sizeof name, "panel_name[%d]", k + 1);
        gnuplot_text(g, name, panel_name[k], 40);
        fprintf(g->args, "panel_lo[%d] = %.6g\npanel_hi[%d] = %.6g\n", k + 1, range[k][0], k + 1,
                range[k][1]);
    }
    return true;
}

/* Columns of the figure; a run that kept no operators has compute in place of the first three. */
static int residual_column(const char *name)
{
    static const char *const column[] = { "GEMM",          "attention", "other",
                                          "communication", "host",      "compute" };
    int k = 0;
    while (strcmp(column[k], name) != 0) k++;
    return k;
}

static bool residual_row(const struct validate_case *c, int row, double range[2], struct gnuplot *g)
{
    enum { N_COLUMN = VALIDATE_N_RESIDUAL + 1 };
    struct validate_residual r[VALIDATE_N_RESIDUAL];
    double d[N_COLUMN], all = c->part_s[0] + c->part_s[1] + c->part_s[2];
    int n = validate_residuals(c, r);
    if (n == 0 || !(all > 0)) return false;
    for (int k = 0; k < N_COLUMN; k++) d[k] = NAN;
    for (int k = 0; k < n; k++)
        d[residual_column(r[k].name)] = 100 * (r[k].predicted - r[k].measured) / all;
    fprintf(g->data, "%d\t\"", row);
    for (int k = 0; c->name[k] && k < MAX_NAME; k++) { /* inside quotes, in a data file */
        bool plain = (unsigned char)c->name[k] >= 0x20 && (unsigned char)c->name[k] < 0x7f;
        fputc(plain && !strchr("\"\\", c->name[k]) ? c->name[k] : '?', g->data);
    }
    fputc('"', g->data);
    for (int k = 0; k < N_COLUMN; k++) {
        gnuplot_value(g->data, d[k]);
        range[0] = fmin(range[0], d[k]);
        range[1] = fmax(range[1], d[k]);
    }
    fputc('\n', g->data);
    return true;
}

/* Configurations of which a run kept no operators. */
static int n_coarse(const struct validate *v)
{
    struct validate_residual r[VALIDATE_N_RESIDUAL];
    int n = 0;
    for (int i = 0; i < v->n_case; i++) n += validate_residuals(&v->c[i], r) == VALIDATE_N_PART;
    return n;
}

static bool residual_data(const struct page *p, struct gnuplot *g)
{
    double range[2] = { -1, 1 };
    int row = 0, coarse = n_coarse(p->v);
    for (int i = 0; i < p->v->n_case; i++) row += residual_row(&p->v->c[i], row, range, g);
    head_lines(p, g, "Residual of a step's time by operator class");
    fprintf(g->args, "n_row = %d\nn_coarse = %d\n", row, coarse < row ? coarse : row);
    gnuplot_number(g, "x_lo", 1.15 * range[0]);
    gnuplot_number(g, "x_hi", 1.15 * range[1]);
    return row > 0;
}

static int figure(struct page *p, const char *script, const char *caption,
                  bool (*data)(const struct page *, struct gnuplot *), struct err *e)
{
    struct arena a;
    struct gnuplot g;
    char *svg;
    size_t n;
    arena_init(&a);
    int st = gnuplot_begin(&g, e);
    if (st == ST_OK && data(p, &g)) {
        st = gnuplot_run(&g, script, GNUPLOT_SVG, &a, &svg, &n, e);
        if (st == ST_OK) put_svg(p, svg, n, caption);
    }
    gnuplot_end(&g);
    arena_release(&a);
    return st;
}

/* The prediction and every measured run, as far as eyes can tell them apart. */
static int overlay(struct page *p, const struct validate_case *c, enum figure k, struct err *e)
{
    struct arena a;
    struct source s[PLOT_DATA_MAX_RUN];
    struct source *all[PLOT_DATA_MAX_RUN];
    char *svg;
    size_t n;
    int open = 0, st = ST_OK, n_run = 1 + c->n_measured;
    if (n_run > PLOT_DATA_MAX_RUN) n_run = PLOT_DATA_MAX_RUN;
    arena_init(&a);
    while (open < n_run) {
        const char *path = open ? c->measured[open - 1].path : c->predicted.path;
        if ((st = source_open(path, &a, &s[open], e)) != ST_OK) break;
        s[open].name = !open                ? "predicted"
                       : c->n_measured == 1 ? "measured"
                                            : arena_printf(&a, "measured, run %d", open);
        s[open].scenario = s[open].title = c->name;
        s[open].workload = "";
        all[open] = &s[open];
        open++;
    }
    const char *some =
        n_run < 1 + c->n_measured
            ? arena_printf(&a, " Of %d measured runs the first %d.", c->n_measured, n_run - 1)
            : "";
    struct err own = { 0 };
    if (st == ST_OK) st = figure_draw(k, all, n_run, GNUPLOT_SVG, &a, &svg, &n, &own);
    if (st == ST_OK)
        put_svg(p, svg, n, arena_printf(&a, "%s: %s%s", c->name, figure_caption[k], some));
    for (int i = 0; i < open; i++) source_close(&s[i]);
    if (own.status == ST_USAGE) st = ST_OK; /* nothing to draw */
    if (own.status && st != ST_OK) err_set(e, own.status, "%s", own.text);
    arena_release(&a);
    return st;
}

/* The held-out configurations whose mean TPOT is furthest off. */
static int overlays(struct page *p, struct err *e)
{
    bool drawn[VALIDATE_MAX_CASE] = { false };
    int st = ST_OK;
    for (int k = 0; k < N_OVERLAY && st == ST_OK; k++) {
        int worst = -1;
        for (int i = 0; i < p->v->n_case; i++) {
            const struct validate_case *c = &p->v->c[i];
            if (drawn[i] || c->refused || c->use != VALIDATE_HELD_OUT || !isfinite(c->err[6].e))
                continue;
            if (worst < 0 || fabs(c->err[6].e) > fabs(p->v->c[worst].err[6].e)) worst = i;
        }
        if (worst < 0) break;
        drawn[worst] = true;
        st = overlay(p, &p->v->c[worst], FIGURE_CDF_TTFT, e);
        if (st == ST_OK) st = overlay(p, &p->v->c[worst], FIGURE_CDF_TPOT, e);
    }
    return st;
}

/* ---- tables: the Markdown's, as HTML */

static void row_cells(FILE *f, char *line, const char *tag)
{
    char *save = NULL;
    int column = 0;
    fputs("<tr>", f);
    for (char *c = strtok_r(line, "|", &save); c; c = strtok_r(NULL, "|", &save)) {
        while (*c == ' ') c++;
        size_t n = strlen(c);
        while (n && c[n - 1] == ' ') c[--n] = 0;
        fprintf(f, column++ ? "<%s>" : "<%s class=\"text\">", tag);
        html_text(f, c);
        fprintf(f, "</%s>", tag);
    }
    fputs("</tr>\n", f);
}

static void html_of_markdown(FILE *f, char *text)
{
    bool table = false, list = false;
    char *next;
    for (char *line = text; line && *line; line = next) {
        next = strchr(line, '\n');
        if (next) *next++ = 0;
        bool row = *line == '|', rule = strncmp(line, "|---", 4) == 0;
        if (table && !row) fputs("</table></div>\n", f);
        if (list && strncmp(line, "- ", 2) != 0) fputs("</ul>\n", f), list = false;
        if (rule || !*line) {
            table = table && row;
            continue;
        }
        if (row && !table) fputs("<div class=\"scroll\"><table>\n", f);
        if (row) {
            row_cells(f, line, table ? "td" : "th");
        } else if (strncmp(line, "- ", 2) == 0) {
            if (!list) fputs("<ul>\n", f);
            list = true;
            fputs("<li>", f), html_text(f, line + 2), fputs("</li>\n", f);
        } else {
            size_t skip = strspn(line, "# ");
            const char *tag = skip >= 4 ? "h3" : skip ? "h2" : "p";
            fprintf(f, "<%s>", tag), html_text(f, line + skip), fprintf(f, "</%s>\n", tag);
        }
        table = row;
    }
    if (table) fputs("</table></div>\n", f);
    if (list) fputs("</ul>\n", f);
}

/* Stars of Markdown go; nothing in the figures has them. */
static int tables(const struct page *p, struct err *e)
{
    char *text = NULL;
    size_t n = 0;
    FILE *m = open_memstream(&text, &n);
    if (!m) return err_set(e, ST_IO, "out of memory for the page");
    validate_markdown(p->v, m);
    fclose(m);
    char *to = text;
    for (const char *from = text; *from; from++)
        if (!(from[0] == '*' && (from[1] == '*' || (from > text && from[-1] == '*'))))
            *to++ = *from;
    *to = 0;
    html_of_markdown(p->f, text);
    free(text);
    return ST_OK;
}

int validate_page(const struct validate *v, FILE *f, struct err *e)
{
    struct page p = { .v = v, .f = f };
    html_begin(f, v->title ? v->title : "Predicted against measured");
    fputs("<p class=\"dim\">", f);
    html_printf(f, "Revision %s.", prov_revision());
    fputs("</p>\n", f);
    int st = tables(&p, e);
    if (st == ST_OK) fputs("<h2>Figures</h2>\n", f);
    if (st == ST_OK)
        st = figure(&p, "validate_scatter.gp",
                    "Every configuration, on logarithmic axes; bars are the 90 % interval of the "
                    "measured value over repeated runs, with an arrow where it goes on past the "
                    "frame; hollow points have one run, whose noise is "
                    "not known.",
                    scatter_data, e);
    if (st == ST_OK)
        st = figure(
            &p, "validate_residual.gp",
            "Time that the pipeline stages are busy with an engine step, summed over them: "
            "where the prediction and the engine's monitor differ. GEMM, attention and other "
            "(norms, rotation, cache writes, activations, sampling, what lies between "
            "operators) are compute; a run that did not keep its operators' time "
            "(monitor.operators, CPU) has compute undivided. Hops between stages are not "
            "in it.",
            residual_data, e);
    if (st == ST_OK) st = overlays(&p, e);
    html_end(f);
    return st;
}
