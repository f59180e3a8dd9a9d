/* plots/cmd_report.c - `orrery report`: run files as one HTML page.
 * SPDX-License-Identifier: Apache-2.0 */
#include "plots/cmd_report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/conf.h"
#include "base/outfile.h"
#include "plots/report.h"

static const char usage[] =
    "orrery report: run files as one HTML page that needs nothing else\n"
    "\n"
    "  orrery report RUN.h5... [--out=report.html]\n"
    "\n"
    "The page answers first, in words: is the SLO held, by how much and how surely, what limits "
    "it. "
    "Then\n"
    "come tables, figures (drawn by gnuplot), coverage, definitions, the scenario and where the "
    "run "
    "comes\n"
    "from. Several runs are compared with the first one; sweeps are shown point by point.\n"
    "Exit status: 0; 2 a wrong option or file; 5 reading, writing or gnuplot failed.\n";
static const char examples[] = "\nExamples\n"
                               "  orrery report run.h5 --out=report.html\n"
                               "  orrery report before.h5 after.h5 --out=comparison.html\n";

struct cmd {
    const char *out;
};
/* clang-format off */
static const struct conf_row rows[] = {
    { "out", CONF_TEXT, offsetof(struct cmd, out), "report.html", NULL, 0, 0,
      "file to write; appears when complete" },
    { .type = CONF_END },
};
/* clang-format on */

/* The page is made in memory: it appears whole or not at all. */
static int write_page(const char *path, struct source *s, int n, struct err *e)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *f = open_memstream(&text, &bytes);
    if (!f) return err_set(e, ST_IO, "out of memory for the page");
    int st = report_write(f, s, n, e);
    bool bad = ferror(f);
    bad = fclose(f) != 0 || bad;
    if (st == ST_OK && bad) st = err_set(e, ST_IO, "out of memory for the page");
    if (st == ST_OK) st = outfile_write(path, text, bytes, e);
    free(text);
    return st;
}

static int run_verb(int argc, char **argv, struct arena *a, struct err *e)
{
    struct cmd c = { 0 };
    struct conf_set set;
    struct conf_args args;
    int n = 0;
    conf_init(&set, a);
    conf_add(&set, rows, &c, "report");
    int st = conf_args(&set, argc, argv, &args, e);
    if (st == ST_OK && args.help) {
        fputs(usage, stdout);
        conf_help(&set, stdout);
        fputs(examples, stdout);
        return ST_OK;
    }
    if (st == ST_OK) st = conf_apply_args(&set, &args, e);
    if (st == ST_OK && args.n_file == 0)
        st = err_set(e, ST_USAGE, "takes one run file or more; see orrery report --help");
    if (st != ST_OK) return st;
    struct source *s = arena_array(a, (size_t)args.n_file, sizeof *s);
    while (n < args.n_file && (st = source_open(args.file[n], a, &s[n], e)) == ST_OK) n++;
    if (st == ST_OK) source_tell_apart(s, n);
    if (st == ST_OK) st = write_page(c.out, s, n, e);
    for (int i = 0; i < n; i++) source_close(&s[i]);
    if (st == ST_OK) printf("%s\n", c.out);
    return st;
}

int cmd_report(int argc, char **argv)
{
    struct arena a;
    struct err e = { 0 };
    arena_init(&a);
    int st = run_verb(argc, argv, &a, &e);
    arena_release(&a);
    if (st == ST_OK) return 0;
    fprintf(stderr, "orrery report: %s\n", e.text);
    return st == ST_USAGE || st == ST_RANGE ? 2 : st == ST_STOPPED ? 130 : 5;
}
