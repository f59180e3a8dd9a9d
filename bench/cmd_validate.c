/* bench/cmd_validate.c - see cmd_validate.h. SPDX-License-Identifier: Apache-2.0 */
#include "bench/cmd_validate.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/outfile.h"
#include "bench/validate.h"

static const char usage[] =
    "orrery validate: how far predicted runs are from measured ones, beside the measurement's "
    "noise\n"
    "\n"
    "  orrery validate --predicted=P.h5,... --measured=M1.h5,M2.h5,...\n"
    "  orrery validate --predicted=DIR --measured=DIR [--calibrated=NAME,...]\n"
    "  orrery validate MANIFEST.yaml [--out=report.html|report.md] [--json]\n"
    "\n"
    "Run files of one scenario belong together (model, strategy, workload, policy and seed); give "
    "each\n"
    "configuration several measured runs, by which the measurement's noise is known: the noise "
    "floor of\n"
    "a figure (90 % interval of its measured value over the runs), the run scatter (of one run "
    "among\n"
    "them; --noise) and the request scatter (of one request over them). Requests are paired one "
    "by one;\n"
    "a run that ended early is refused.\n"
    "Configurations that calibrated the prediction are marked and never averaged with "
    "those "
    "held\n"
    "out; only the latter are judged: an error within its bar, or within its noise floor where "
    "that is\n"
    "larger, and the mean error's equivalence to none (two one-sided tests at 5 %).\n"
    "A manifest is a YAML map:\n"
    "  title: ...\n"
    "  notes: [what a reader must know of the measurement]\n"
    "  aa: {a: [x1.h5, x3.h5], b: [x2.h5, x4.h5]}      equal runs, in turns: the A/A check\n"
    "  cases:\n"
    "    - {name: N, use: held-out, group: G, predicted: p.h5, measured: [m1.h5, m2.h5]}\n"
    "    - {name: N, use: calibrated, predicted: p.h5, measured: [m.h5]}\n"
    "    - {name: N, refused: the reason, measured: [m.h5]}\n"
    "Beside `predicted`, `again: [p1.h5, p2.h5]` gives the prediction with a profile of each\n"
    "repetition of the microbenchmarks alone: what it varies by joins the noise floor.\n"
    "A run that the prediction's hardware profile was calibrated with is never held out. One run "
    "a\n"
    "configuration leaves the noise unknown: inconclusive.\n"
    "Strategies of one group are put in order by prediction and by measurement. Names differ; a "
    "run is\n"
    "in one case once, and was measured with the model, strategy, load, policy and requests that "
    "were\n"
    "predicted. Both sides are of one machine: a profile of another processor or device than was\n"
    "measured is refused, another host of the same kind marked, what does not say is noted.\n"
    "Exit status: 0 accurate; 1 not; 2 a wrong option or file; 3 inconclusive; 5 reading or "
    "writing\n"
    "failed; 130 interrupted.\n";
static const char examples[] =
    "\nExamples\n"
    "  orrery simulate chat.yaml --sim.replications=1 --out=p.h5\n"
    "  orrery engine run chat.yaml --out=m1.h5; orrery engine run chat.yaml --out=m2.h5\n"
    "  orrery validate --predicted=p.h5 --measured=m1.h5,m2.h5 --out=validation.html\n";

struct cmd {
    bool json;
    const char *out, *predicted, *measured, *calibrated;
};
#define AT(m) offsetof(struct cmd, m)
/* clang-format off */
static const struct conf_row rows[] = {
    { "predicted", CONF_TEXT, AT(predicted), NULL, NULL, 0, 0,
      "predicted run files or directories of such, with commas between" },
    { "measured", CONF_TEXT, AT(measured), NULL, NULL, 0, 0, "measured ones" },
    { "calibrated", CONF_TEXT, AT(calibrated), NULL, NULL, 0, 0,
      "parts of names of predicted files whose measurement calibrated the prediction" },
    { "out", CONF_TEXT, AT(out), NULL, NULL, 0, 0,
      "report to write: .html with figures, .md tables; appears when complete" },
    { "json", CONF_BOOL, AT(json), "no", NULL, 0, 0, "one JSON object on stdout instead of text" },
    { .type = CONF_END }
};
/* clang-format on */
#undef AT

static int read_all(struct validate *v, const struct cmd *c, const struct conf_args *args,
                    struct err *e)
{
    if (args->n_file > 1) return err_set(e, ST_USAGE, "takes one manifest, not %d", args->n_file);
    if (args->n_file == 1 && (c->predicted || c->measured || c->calibrated))
        return err_set(e, ST_USAGE,
                       "a manifest names the runs; --predicted, --measured and --calibrated do not "
                       "go with it");
    if (args->n_file == 1) return validate_manifest(v, args->file[0], e);
    if (!c->predicted || !c->measured)
        return err_set(e, ST_USAGE,
                       "takes --predicted=RUN.h5,... and --measured=RUN.h5,..., or a manifest; see "
                       "orrery validate --help");
    return validate_find(v, c->predicted, c->measured, c->calibrated, e);
}

static bool ends(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static int check_out(const char *out, struct err *e)
{
    if (!out || ends(out, ".html") || ends(out, ".md")) return ST_OK;
    return err_set(e, ST_USAGE, "--out: '%s' is neither .html nor .md", out);
}

static int write_report(const struct validate *v, const char *path, struct err *e)
{
    char *text = NULL;
    size_t n = 0;
    int st = ST_OK;
    FILE *f = open_memstream(&text, &n);
    if (!f) return err_set(e, ST_IO, "out of memory for the report");
    if (ends(path, ".md"))
        validate_markdown(v, f);
    else
        st = validate_page(v, f, e);
    bool bad = ferror(f);
    bad = fclose(f) != 0 || bad;
    if (st == ST_OK && bad) st = err_set(e, ST_IO, "out of memory for the report");
    if (st == ST_OK) st = outfile_write(path, text, n, e);
    free(text);
    return st;
}

static void show(const struct validate *v, bool as_json)
{
    if (!as_json) {
        validate_print(v, stdout);
        return;
    }
    json_t *j = validate_json(v);
    json_print(j, stdout);
    json_decref(j);
}

static int run_verb(int argc, char **argv, struct validate *v, struct err *e)
{
    struct cmd c = { 0 };
    struct conf_set set;
    struct conf_args args;
    conf_init(&set, v->arena);
    conf_add(&set, rows, &c, "validate");
    conf_add(&set, validate_rows, &v->o, "limits");
    int st = conf_args(&set, argc, argv, &args, e);
    if (st == ST_OK && args.help) {
        fputs(usage, stdout);
        conf_help(&set, stdout);
        fputs(examples, stdout);
        return ST_OK;
    }
    if (st == ST_OK) st = conf_apply_args(&set, &args, e);
    if (st == ST_OK) st = check_out(c.out, e);
    if (st == ST_OK) st = outfile_check(c.out, false, e);
    if (st == ST_OK) st = read_all(v, &c, &args, e);
    if (st != ST_OK) return st;
    for (int i = 0; i < v->n_case; i++) validate_pair(&v->c[i], v->arena);
    validate_compute(v);
    show(v, c.json);
    if (c.out) st = write_report(v, c.out, e);
    return st;
}

int cmd_validate(int argc, char **argv)
{
    static const int exit_of[] = { 0, 1, 3 };
    struct arena a;
    struct err e = { 0 };
    struct validate v = { .arena = &a };
    arena_init(&a);
    int st = run_verb(argc, argv, &v, &e), code = exit_of[v.verdict];
    arena_release(&a);
    if (st == ST_OK) return code;
    fprintf(stderr, "orrery validate: %s\n", e.text);
    return st == ST_USAGE || st == ST_RANGE ? 2 : st == ST_STOPPED ? 130 : 5;
}
