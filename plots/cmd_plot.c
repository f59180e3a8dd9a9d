/* plots/cmd_plot.c - `orrery plot`: figures of run files, by gnuplot.
 * SPDX-License-Identifier: Apache-2.0 */
#include "plots/cmd_plot.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/conf.h"
#include "base/outfile.h"
#include "plots/figure.h"
#include "plots/plot_data.h"

static const char usage[] =
    "orrery plot: figures of run files, drawn by gnuplot\n"
    "\n"
    "  orrery plot RUN.h5... [--figure=NAME,...] [--out=DIR] [--format=svg|png|both]\n"
    "\n"
    "Figures\n"
    "  cdf          cdf_ttft, cdf_tpot and cdf_e2e: distributions with the SLO; runs are overlaid\n"
    "  rate         latency, throughput and attainment against the offered rate (a sweep)\n"
    "  scaling      throughput against the number of GPUs (a sweep of strategy.tp, .pp or .dp)\n"
    "  gantt        what each pipeline stage does when (record.stages_for)\n"
    "  series       load, KV memory and tokens over time\n"
    "  operators    where the time of a step goes, and how busy the stages are\n"
    "  ranks        shares of computing, communication, waiting and host of each rank (measured "
    "runs)\n"
    "A figure that a run file cannot give is left out with a line on standard error; asked for by "
    "name it\n"
    "is an error. Exit status: 0; 2 a wrong option or file; 5 reading, writing or gnuplot "
    "failed.\n";
static const char examples[] =
    "\nExamples\n"
    "  orrery plot run.h5 --out=figures\n"
    "  orrery plot before.h5 after.h5 --figure=cdf_ttft,cdf_tpot --format=png\n"
    "  orrery simulate scenarios/smoke.yaml --sweep=workload.rate=2/s,4/s,8/s --out=sweep.h5\n"
    "  orrery plot sweep.h5 --figure=rate\n";

struct cmd {
    const char *figure, *out;
    int format;
};
enum { FORMAT_SVG, FORMAT_PNG, FORMAT_BOTH };
#define AT(m) offsetof(struct cmd, m)
/* clang-format off */
static const struct conf_row rows[] = {
    { "figure", CONF_TEXT, AT(figure), "all", NULL, 0, 0, "which, with commas between, or all" },
    { "out", CONF_TEXT, AT(out), ".", NULL, 0, 0, "directory to write to; made if it is missing" },
    { "format", CONF_WORD, AT(format), "svg", "svg png both", 0, 0, "kind of file" },
    { .type = CONF_END },
};
/* clang-format on */
#undef AT

struct job {
    struct cmd c;
    struct source source[CONF_MAX_FILES];
    int n_source, n_drawn;
    bool asked[FIGURE_N], by_name; /* by_name: not "all" */
};

/* ---- which figures */

static const char *figure_words(struct arena *a)
{
    const char *words = "all cdf";
    for (int f = 0; f < FIGURE_N; f++) words = arena_printf(a, "%s %s", words, figure_name[f]);
    return words;
}

static int ask(struct job *j, const char *word, struct arena *a, struct err *e)
{
    char near[64];
    bool known = false;
    for (int f = 0; f < FIGURE_N; f++) {
        bool all = strcmp(word, "all") == 0;
        bool cdf = strcmp(word, "cdf") == 0 && figure_overlays((enum figure)f);
        if (!all && !cdf && strcmp(word, figure_name[f]) != 0) continue;
        j->asked[f] = known = true;
        j->by_name = j->by_name || !all;
    }
    if (known) return ST_OK;
    const char *words = figure_words(a), *nearest = conf_nearest(word, words, near, sizeof near);
    if (nearest)
        return err_set(e, ST_USAGE, "--figure: no figure '%s'; did you mean '%s'?", word, nearest);
    return err_set(e, ST_USAGE, "--figure: '%s' is none of %s", word, words);
}

static int ask_all(struct job *j, struct arena *a, struct err *e)
{
    char *save = NULL, *list = arena_copy_text(a, j->c.figure, strlen(j->c.figure));
    int n = 0, st = ST_OK;
    for (char *w = strtok_r(list, ",", &save); w && st == ST_OK;
         w = strtok_r(NULL, ",", &save), n++)
        st = ask(j, w, a, e);
    if (st == ST_OK && n == 0) st = err_set(e, ST_USAGE, "--figure: names no figure");
    return st;
}

/* ---- drawing */

static int draw_as(struct job *j, enum figure f, struct source *const *s, int n, const char *name,
                   enum gnuplot_format format, struct err *e)
{
    struct arena a;
    char *bytes;
    size_t n_byte;
    arena_init(&a);
    const char *path =
        arena_printf(&a, "%s/%s.%s", j->c.out, name, format == GNUPLOT_PNG ? "png" : "svg");
    int st = figure_draw(f, s, n, format, &a, &bytes, &n_byte, e);
    if (st == ST_OK) st = outfile_write(path, bytes, n_byte, e);
    if (st == ST_OK) {
        printf("%s\n", path);
        j->n_drawn++;
    }
    arena_release(&a);
    return st;
}

/* Left out, with a line, when the run's content cannot give it and nobody named it. */
static int draw(struct job *j, enum figure f, struct source *const *s, int n, const char *name,
                struct err *e)
{
    struct err own = { 0 };
    int st = ST_OK;
    if (j->c.format != FORMAT_PNG) st = draw_as(j, f, s, n, name, GNUPLOT_SVG, &own);
    if (st == ST_OK && j->c.format != FORMAT_SVG) st = draw_as(j, f, s, n, name, GNUPLOT_PNG, &own);
    if (st == ST_USAGE && !j->by_name) {
        fprintf(stderr, "orrery plot: no %s: %s\n", figure_name[f], own.text);
        return ST_OK;
    }
    return st == ST_OK ? ST_OK : err_set(e, st, "%s: %s", figure_name[f], own.text);
}

static bool lacks(struct job *j, enum figure f, struct source *s, struct err *e)
{
    const char *why = figure_lacks(f, s);
    if (!why) return false;
    if (j->by_name)
        err_set(e, ST_USAGE, "%s: %s %s", figure_name[f], s->file.path, why);
    else
        fprintf(stderr, "orrery plot: no %s: %s %s\n", figure_name[f], s->file.path, why);
    return true;
}

static int draw_figure(struct job *j, enum figure f, struct arena *a, struct err *e)
{
    struct source *have[CONF_MAX_FILES];
    int n = 0, st = ST_OK;
    for (int i = 0; i < j->n_source; i++) {
        if (lacks(j, f, &j->source[i], e)) {
            if (e->status) return e->status;
            continue;
        }
        have[n++] = &j->source[i];
    }
    if (n == 0) return ST_OK;
    if (figure_overlays(f)) {
        if (n > PLOT_DATA_MAX_RUN)
            return err_set(e, ST_USAGE,
                           "%s: %d runs in one figure; more than %d cannot be told apart",
                           figure_name[f], n, PLOT_DATA_MAX_RUN);
        return draw(j, f, have, n, figure_name[f], e);
    }
    for (int i = 0; i < n && st == ST_OK; i++) {
        const char *name = figure_name[f];
        if (j->n_source > 1) name = arena_printf(a, "%s-%s", name, have[i]->name);
        st = draw(j, f, &have[i], 1, name, e);
    }
    return st;
}

static int make_directory(const char *path, struct err *e)
{
    struct stat info;
    if (mkdir(path, 0777) == 0 || (stat(path, &info) == 0 && S_ISDIR(info.st_mode))) return ST_OK;
    return err_set(e, ST_IO, "cannot make the directory %s: %s", path, strerror(errno));
}

static int draw_all(struct job *j, const struct conf_args *args, struct arena *a, struct err *e)
{
    int st = ST_OK;
    for (int i = 0; i < args->n_file && st == ST_OK; i++) {
        st = source_open(args->file[i], a, &j->source[i], e);
        j->n_source += st == ST_OK;
    }
    if (st == ST_OK) st = make_directory(j->c.out, e);
    source_tell_apart(j->source, j->n_source);
    for (int f = 0; f < FIGURE_N && st == ST_OK; f++)
        if (j->asked[f]) st = draw_figure(j, (enum figure)f, a, e);
    for (int i = 0; i < j->n_source; i++) source_close(&j->source[i]);
    if (st == ST_OK && j->n_drawn == 0)
        st = err_set(e, ST_USAGE, "%s holds nothing that a figure shows", args->file[0]);
    return st;
}

static int run_verb(int argc, char **argv, struct arena *a, struct err *e)
{
    struct job *j = arena_alloc(a, sizeof *j);
    struct conf_set s;
    struct conf_args args;
    conf_init(&s, a);
    conf_add(&s, rows, &j->c, "plot");
    int st = conf_args(&s, argc, argv, &args, e);
    if (st == ST_OK && args.help) {
        fputs(usage, stdout);
        conf_help(&s, stdout);
        fputs(examples, stdout);
        return ST_OK;
    }
    if (st == ST_OK) st = conf_apply_args(&s, &args, e);
    if (st == ST_OK && args.n_file == 0)
        st = err_set(e, ST_USAGE, "takes one run file or more; see orrery plot --help");
    if (st == ST_OK) st = ask_all(j, a, e);
    return st == ST_OK ? draw_all(j, &args, a, e) : st;
}

int cmd_plot(int argc, char **argv)
{
    struct arena a;
    struct err e = { 0 };
    arena_init(&a);
    int st = run_verb(argc, argv, &a, &e);
    arena_release(&a);
    if (st == ST_OK) return 0;
    fprintf(stderr, "orrery plot: %s\n", e.text);
    return st == ST_USAGE || st == ST_RANGE ? 2 : st == ST_STOPPED ? 130 : 5;
}
