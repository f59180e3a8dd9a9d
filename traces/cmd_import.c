/* traces/cmd_import.c - `orrery import`: other tools' results by our definitions and by theirs.
 * SPDX-License-Identifier: Apache-2.0 */
#include "traces/cmd_import.h"

#include <math.h>
#include <string.h>

#include "base/conf.h"
#include "base/outfile.h"
#include "base/utf8.h"
#include "traces/import_out.h"

static const char usage[] =
    "orrery import FILE [options]: results of other tools, by our definitions and by theirs\n"
    "\n"
    "FILE is recognised by its content: vLLM bench serve (--save-result), GuideLLM (JSON), AIPerf\n"
    "(export, records, aggregate), genai-perf, sglang bench_serving, MLPerf's log summary,\n"
    "nccl-tests (text or -J), llama-bench (-o json or jsonl). From per-request data every\n"
    "definition of TTFT, TPOT, ITL and goodput is computed, and --out writes a run file that\n"
    "`orrery plot` and `orrery report` read. From nccl-tests and llama-bench --out writes a file\n"
    "of points. Figures without per-request data are shown with their tool's definition.\n"
    "Totals and means that the file states are compared with its requests: what differs beyond "
    "rounding\n"
    "is a warning with both figures; more completed requests than rows is an error. Models and "
    "dates\n"
    "of a file's runs, and of files that calibrate or validate get together, are compared: a "
    "difference\n"
    "is noted.\n"
    "\n"
    "Exit status: 0; 1 if limits are given and missed, or nccl-tests found wrong data; 2 a wrong "
    "option\n"
    "or file; if limits are given, 3 where the file has no requests to check them on, 4 where the "
    "client\n"
    "was too slow to judge the server by them; 5 reading or writing failed.\n"
    "\n";
static const char examples[] =
    "\nExamples\n"
    "  orrery import vllm.json --slo.ttft=200ms --slo.tpot=20ms\n"
    "  orrery import benchmarks.json --run=2 --out=run.h5 && orrery report run.h5 --out=run.html\n"
    "  orrery import all_reduce.txt --out=points.h5\n";

struct cmd {
    int tool;
    const char *out, *collective;
    bool json;
    int64_t run; /* from 1; 0: all */
    struct figures_slo slo;
};
#define AT(member) offsetof(struct cmd, member)
/* clang-format off */
static const struct conf_row rows[] = {
    { "format", CONF_WORD, AT(tool), "auto", IMPORT_TOOL_WORDS, 0, 0,
      "tool that the file must be of" },
    { "out", CONF_TEXT, AT(out), NULL, NULL, 0, 0, "write a run file, or a file of points (HDF5)" },
    { "json", CONF_BOOL, AT(json), "no", NULL, 0, 0, "one JSON object instead of text" },
    { "run", CONF_INT, AT(run), "0", NULL, 0, 1e6, "which run of a file of many, from 1; 0: all" },
    { "collective", CONF_TEXT, AT(collective), NULL, NULL, 0, 0,
      "nccl-tests: which, where the table does not say: all_reduce, all_gather ..." },
    { "slo.ttft", CONF_TIME, AT(slo.ttft_ns), "0s", NULL, 0, 1e6,
      "longest time from due to first token; deadline of the fluidity index" },
    { "slo.tpot", CONF_TIME, AT(slo.tpot_ns), "0s", NULL, 0, 1e6,
      "longest time per output token after the first; deadline of the fluidity index" },
    { "slo.e2e", CONF_TIME, AT(slo.e2e_ns), "0s", NULL, 0, 1e6,
      "longest time from due to last token" },
    { "slo.attainment", CONF_NUMBER, AT(slo.attain_ratio), "0.99", NULL, 0, 1,
      "share of requests due that must be within the limits, if there are any" },
    { .type = CONF_END },
};
/* clang-format on */
#undef AT

enum { EXIT_MISSED = 1, EXIT_UNDECIDED = 3, EXIT_INVALID = 4 };

struct call {
    struct cmd c;
    struct import_file f;
    struct prov prov;
    const struct conf_set *set;
    struct arena *a;
    int verdict; /* exit status */
};

/* The worst of the runs: invalid, then missed, then undecided for want of per-request data. */
static void judge(struct call *k, const struct import_run *r, const struct figures *g)
{
    enum figures_verdict v = r->n_request > 0 ? figures_judge(g, &k->c.slo) : FIGURES_NO_LIMIT;
    bool limits = k->c.slo.ttft_ns || k->c.slo.tpot_ns || k->c.slo.e2e_ns;
    if (limits && r->n_request == 0 && k->verdict == 0) k->verdict = EXIT_UNDECIDED;
    if (v == FIGURES_INVALID) k->verdict = EXIT_INVALID;
    if (v == FIGURES_MISSED && k->verdict != EXIT_INVALID) k->verdict = EXIT_MISSED;
}

static int pick(const struct call *k, int *from, int *to, struct err *e)
{
    int n = k->f.n_run;
    if (k->c.run > n)
        return err_set(e, ST_USAGE, "--run: %s holds %d run%s", k->f.path, n, n == 1 ? "" : "s");
    *from = k->c.run ? (int)k->c.run - 1 : 0;
    *to = k->c.run ? (int)k->c.run : n;
    if (!k->c.out) return ST_OK;
    if (*to - *from > 1)
        return err_set(e, ST_USAGE, "%s holds %d runs, a run file one: say which with --run=1",
                       k->f.path, n);
    if (k->f.run[*from].n_request == 0)
        return err_set(e, ST_USAGE,
                       "%s holds no per-request data, so there is nothing to write to %s",
                       k->f.path, k->c.out);
    return ST_OK;
}

static void say_doubts(const struct call *k, const struct import_doubts *d)
{
    for (int i = 0; i < d->n; i++) {
        char text[400];
        snprintf(text, sizeof text, "%s", d->text[i]);
        utf8_tidy(text, '?');
        fprintf(stderr, "orrery import: warning: %s: %s\n", k->f.path, text);
    }
    if (d->n_more)
        fprintf(stderr, "orrery import: warning: %s: and %d more of the kind\n", k->f.path,
                d->n_more);
}

static int do_runs(struct call *k, struct err *e)
{
    int from = 0, to = 0, st = pick(k, &from, &to, e);
    if (st != ST_OK) return st;
    json_t *j = k->c.json ? import_json_file(&k->f) : NULL, *list = json_array();
    for (int i = from; i < to && st == ST_OK; i++) {
        const struct import_run *r = &k->f.run[i];
        struct figures *g = arena_alloc(k->a, sizeof *g);
        say_doubts(k, &r->doubts);
        figures_of(r, k->f.tool, &k->c.slo, k->a, g);
        judge(k, r, g);
        if (k->c.out) st = import_store_run(k->c.out, &k->f, r, g, &k->c.slo, &k->prov, e);
        if (st != ST_OK) break;
        if (j)
            json_array_append_new(list, import_json_run(r, g, &k->c.slo));
        else
            import_print_run(&k->f, i, g, &k->c.slo, stdout);
        if (!j && i + 1 < to) putchar('\n');
    }
    if (j && st == ST_OK) {
        json_put(j, "runs", json_incref(list));
        json_print(j, stdout);
    }
    json_decref(list);
    json_decref(j);
    return st;
}

static int do_points(struct call *k, struct err *e)
{
    int st = ST_OK;
    static const char *const of_runs[] = { "run", "slo.ttft", "slo.tpot", "slo.e2e",
                                           "slo.attainment" };
    for (size_t i = 0; i < sizeof of_runs / sizeof *of_runs; i++)
        if (conf_given(k->set, of_runs[i]))
            return err_set(e, ST_USAGE, "--%s: %s holds microbenchmarks, not runs", of_runs[i],
                           k->f.path);
    say_doubts(k, &k->f.doubts);
    if (k->c.out) st = import_store_points(k->c.out, &k->f, &k->prov, e);
    if (st != ST_OK) return st;
    for (int i = 0; i < k->f.n_point; i++)
        if (k->f.point[i].wrong > 0) k->verdict = EXIT_MISSED;
    if (k->c.json) {
        json_t *j = import_json_file(&k->f);
        json_put(j, "points", import_json_points(&k->f));
        json_put(j, "doubts", import_json_doubts(&k->f.doubts));
        json_print(j, stdout);
        json_decref(j);
    } else {
        import_print_points(&k->f, stdout);
    }
    return st;
}

static int run_verb(struct call *k, int argc, char **argv, struct err *e)
{
    struct conf_set s;
    struct conf_args args;
    k->set = &s;
    conf_init(&s, k->a);
    conf_add(&s, rows, &k->c, "import");
    int st = conf_args(&s, argc, argv, &args, e);
    if (st != ST_OK) return st;
    if (args.help) {
        fputs(usage, stdout);
        conf_help(&s, stdout);
        fputs(examples, stdout);
        return ST_OK;
    }
    if (args.n_file != 1)
        return err_set(e, ST_USAGE, "takes one file, not %d; see orrery import --help",
                       args.n_file);
    st = conf_apply_args(&s, &args, e);
    if (st == ST_OK) st = outfile_spares(k->c.out, args.file[0], e);
    if (st == ST_OK) st = outfile_check(k->c.out, true, e);
    if (st == ST_OK) st = import_read(args.file[0], k->c.tool, k->c.collective, k->a, &k->f, e);
    if (st == ST_OK && k->c.collective && k->f.tool != IMPORT_NCCL_TESTS)
        st = err_set(e, ST_USAGE, "--collective: %s is of %s, not of nccl-tests", k->f.path,
                     k->f.tool_name);
    bool limits = k->c.slo.ttft_ns || k->c.slo.tpot_ns || k->c.slo.e2e_ns;
    if (st == ST_OK && k->f.n_run > 0 && !limits && conf_given(&s, "slo.attainment"))
        st = err_set(e, ST_USAGE, "--slo.attainment: of which limit? --slo.ttft, .tpot, .e2e");
    if (st != ST_OK) return st;
    return k->f.n_run > 0 ? do_runs(k, e) : do_points(k, e);
}

int cmd_import(int argc, char **argv)
{
    struct arena a;
    struct err e = { 0 };
    arena_init(&a);
    struct call *k = arena_alloc(&a, sizeof *k);
    k->a = &a;
    prov_collect(&k->prov, argc, argv);
    int st = run_verb(k, argc, argv, &e), verdict = k->verdict;
    prov_release(&k->prov);
    arena_release(&a);
    if (st == ST_OK) return verdict;
    fprintf(stderr, "orrery import: %s\n", e.text);
    return st == ST_USAGE || st == ST_RANGE ? 2 : st == ST_STOPPED ? 130 : 5;
}
