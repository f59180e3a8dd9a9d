/* sim/cmd_simulate.c - `orrery simulate`: a scenario becomes a predicted run.
 * SPDX-License-Identifier: Apache-2.0 */
#include "sim/cmd_simulate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/doc.h"
#include "base/json.h"
#include "base/paths.h"
#include "base/progress.h"
#include "base/units.h"
#include "sim/store.h"

static const char usage[] =
    "orrery simulate: what a scenario would do, predicted\n"
    "\n"
    "  orrery simulate SCENARIO.yaml [--out=RUN.h5] [--json] [--dry-run] [--key=value ...]\n"
    "  orrery simulate SCENARIO.yaml --sweep=workload.rate=2/s,4/s,8/s\n"
    "\n"
    "Options below may stand in the scenario file (dots are maps: `strategy: {tp: 2}`) or on the "
    "command\n"
    "line, which wins. Coverage says what stands behind the answer: EXTRAPOLATED where nothing "
    "was\n"
    "measured, NOISY PROFILE where a busy machine was. profile.NAME=VALUE sets a constant of the "
    "kernel laws, as "
    "profile.host.step=1.5ms.\n"
    "Exit status: 0; 1 the SLO is missed; 2 a wrong option or file; 5 reading or writing failed.\n";
static const char examples[] = "\nExamples\n"
                               "  orrery simulate scenarios/llama3-70b-tp2pp4.yaml --out run.h5\n"
                               "  orrery simulate scenarios/llama3-70b-tp2pp4.yaml --strategy.tp=8 "
                               "--strategy.pp=1 --workload.rate=12/s\n"
                               "  orrery simulate scenarios/smoke.yaml --json | jq .latency.ttft\n"
                               "  orrery report run.h5 --out report.html\n";

struct cmd {
    bool json, dry_run, progress;
    const char *out, *sweep;
};
#define AT(m) offsetof(struct cmd, m)
static const struct conf_row rows[] = { { "out", CONF_TEXT, AT(out), NULL, NULL, 0, 0,
                                          "run file to write (HDF5); appears when complete" },
                                        { "json", CONF_BOOL, AT(json), "no", NULL, 0, 0,
                                          "one JSON object on stdout instead of text" },
                                        { "dry_run", CONF_BOOL, AT(dry_run), "no", NULL, 0, 0,
                                          "print the effective scenario and run nothing" },
                                        { "progress", CONF_BOOL, AT(progress), "no", NULL, 0, 0,
                                          "progress on stderr also without a terminal" },
                                        { "sweep", CONF_TEXT, AT(sweep), NULL, NULL, 0, 0,
                                          "KEY=V1,V2,...: one row of results per value" },
                                        { .type = CONF_END } };
#undef AT

struct call {
    struct cmd c;
    const char *path;
    struct conf_args args;
    int argc;
    char *const *argv; /* with the program's name in front */
    struct store store;
    struct progress progress;
    int exit_status;
    int n_point;           /* of a sweep, simulated */
    bool headed;           /* its table */
    struct err impossible; /* the first point of a sweep that could not be deployed */
};

static void on_progress(void *ctx, int64_t ended, int64_t now_ns)
{
    struct call *k = ctx;
    (void)now_ns;
    progress_at(&k->progress, (double)ended);
}

/* Rows go to the store, progress to the terminal. */
static void tee_request(void *ctx, const struct run_request *r)
{
    struct call *k = ctx;
    k->store.sink.request(&k->store, r);
}
static void tee_step(void *ctx, const struct run_step *r)
{
    struct call *k = ctx;
    k->store.sink.step(&k->store, r);
}
static void tee_span(void *ctx, const struct run_span *r)
{
    struct call *k = ctx;
    k->store.sink.span(&k->store, r);
}
static void tee_bin(void *ctx, const struct run_bin *r)
{
    struct call *k = ctx;
    k->store.sink.bin(&k->store, r);
}

/* Runs the scenario in s; rows: into the store. */
static int run_scenario(struct call *k, struct scenario *s, bool rows_too, struct deploy *d,
                        struct outcome *o, double *wall_s, struct err *e)
{
    struct sim_sink sink = { .ctx = k, .progress = on_progress };
    if (rows_too) {
        sink.request = tee_request;
        sink.step = k->store.sink.step ? tee_step : NULL;
        sink.span = tee_span;
        sink.bin = tee_bin;
    }
    double total = s->workload.requests ? (double)s->workload.requests : 0;
    int64_t t0 = clock_mono_ns();
    progress_start(&k->progress, "simulate", "requests", total, k->c.progress);
    int st = evaluate(s, d, &sink, o, e);
    progress_end(&k->progress);
    *wall_s = 1e-9 * (double)(clock_mono_ns() - t0);
    return st;
}

static double peak_bytes(void)
{
    struct rusage u;
    return getrusage(RUSAGE_SELF, &u) == 0 ? 1024.0 * (double)u.ru_maxrss : NAN;
}

static int written(FILE *f, struct err *e)
{
    return fflush(f) == 0 && !ferror(f) ? ST_OK
                                        : err_set(e, ST_IO, "cannot write the result to stdout");
}

static int one(struct call *k, struct scenario *s, struct err *e)
{
    struct deploy d;
    struct outcome o;
    struct print_in in = { .s = s, .d = &d, .o = &o, .out_path = k->c.out };
    int st = scenario_deploy(s, &d, e);
    if (st != ST_OK) return st;
    if (s->policy.max_model_len > d.arch.max_ctx) /* engines allow it when told to */
        fprintf(stderr,
                "orrery simulate: note: policy.max_model_len is past the %d tokens that the model "
                "was made for\n",
                d.arch.max_ctx);
    if (k->c.out && (st = store_begin(&k->store, k->c.out, s->o.steps, e)) != ST_OK) return st;
    st = run_scenario(k, s, k->c.out != NULL, &d, &o, &in.wall_s, e);
    if (st == ST_OK && k->c.out) {
        struct prov p;
        prov_collect(&p, k->argc, k->argv);
        st = store_finish(&k->store, &in, &p, e);
        prov_release(&p);
    } else if (k->c.out) {
        store_abort(&k->store);
    }
    in.peak_bytes = peak_bytes();
    if (st == ST_OK && k->c.json) {
        json_t *j = print_json(&in);
        json_print(j, stdout);
        json_decref(j);
    } else if (st == ST_OK) {
        print_text(&in, stdout);
    }
    if (st == ST_OK) st = written(stdout, e);
    if (st == ST_OK && !print_slo_held(s, &o)) k->exit_status = 1;
    outcome_release(&o);
    return st;
}

/* ---- sweeps */

/* The value of a swept option as a number, if it has one; else its place in the list. */
static double sweep_number(const struct scenario *s, int i)
{
    static const enum unit unit[] = { UNIT_TIME,   UNIT_RATE,  UNIT_BYTES,
                                      UNIT_TOKENS, UNIT_COUNT, UNIT_RATIO };
    double v;
    for (size_t k = 0; k < sizeof unit / sizeof *unit; k++)
        if (units_parse(unit[k], s->sweep[i], &v, NULL) == ST_OK) return v;
    return i;
}

/* In front of the first row, since devices are known of what was deployed. */
static void head(struct call *k, const struct scenario *all, const char *device)
{
    if (!k->headed) print_sweep_head(all, device, stdout);
    k->headed = true;
}

/* A point that cannot be deployed is a result of the sweep, and the last word only if all are. */
static void tell_impossible(struct call *k, const struct scenario *all, const char *value,
                            const struct err *why, json_t *list)
{
    k->exit_status = 1;
    if (!k->impossible.status) k->impossible = *why;
    if (list) {
        json_t *point = json_object();
        json_put_text(point, "value", value);
        json_put_text(point, "impossible", why->text);
        json_array_append_new(list, point);
    } else {
        head(k, all, "GPU");
        printf("%-16.16s not possible: %s\n", value, why->text);
    }
}

/* Point i: the scenario read again with the swept option set. */
static int sweep_point(struct call *k, const struct scenario *all, int i, json_t *list,
                       struct err *e)
{
    struct arena a;
    struct scenario s;
    struct cmd ignored = { 0 };
    struct deploy d;
    struct outcome o;
    struct err why = { 0 };
    arena_init(&a);
    scenario_init(&s, rows, &ignored, &a);
    struct print_in in = { .s = &s, .d = &d, .o = &o };
    int st = scenario_read(&s, k->path, &k->args, e);
    if (st == ST_OK) st = conf_set_text(&s.conf, all->sweep_key, all->sweep[i], "sweep", e);
    if (st == ST_OK && scenario_deploy(&s, &d, &why) == ST_USAGE) {
        tell_impossible(k, all, all->sweep[i], &why, list);
        arena_release(&a);
        return ST_OK;
    }
    if (st == ST_OK && why.status != ST_OK) st = err_set(e, why.status, "%s", why.text);
    if (st != ST_OK) {
        err_prefix(e, "sweep, %s=%s", all->sweep_key, all->sweep[i]);
        arena_release(&a);
        return st;
    }
    k->n_point++;
    st = run_scenario(k, &s, false, &d, &o, &in.wall_s, e);
    in.peak_bytes = peak_bytes();
    if (st == ST_OK) {
        if (k->c.out) store_sweep_row(&k->store, &in, sweep_number(all, i));
        if (list) {
            json_t *point = print_json(&in);
            json_put_text(point, "value", all->sweep[i]);
            json_array_append_new(list, point);
        } else {
            head(k, all, print_device(&in));
            print_sweep_row(&in, all->sweep[i], stdout);
            fflush(stdout);
        }
        if (!print_slo_held(&s, &o)) k->exit_status = 1;
    }
    outcome_release(&o);
    arena_release(&a);
    return st;
}

static int sweep(struct call *k, struct scenario *s, struct err *e)
{
    int st = ST_OK;
    json_t *list = k->c.json ? json_array() : NULL;
    if (k->c.out) st = store_begin(&k->store, k->c.out, false, e);
    for (int i = 0; i < s->n_sweep && st == ST_OK; i++) st = sweep_point(k, s, i, list, e);
    if (st == ST_OK && k->n_point == 0)
        st = err_set(e, ST_USAGE, "sweep: no point is possible; the first: %s", k->impossible.text);
    if (k->store.run && st == ST_OK) {
        struct prov p;
        prov_collect(&p, k->argc, k->argv);
        st = store_finish_sweep(&k->store, s, &p, e);
        prov_release(&p);
    } else if (k->store.run) {
        store_abort(&k->store);
    }
    if (list && st == ST_OK) {
        json_t *j = json_object();
        json_put_text(j, "title", s->o.title);
        json_put_text(j, "sweep", s->sweep_key);
        json_put(j, "points", json_incref(list));
        json_print(j, stdout);
        json_decref(j);
    }
    json_decref(list);
    return st == ST_OK ? written(stdout, e) : st;
}

/* ---- command line */

/* The effective scenario: YAML that is a scenario again, or its values as they stand there in JSON. */
static int dry_run(const struct call *k, const struct scenario *s, const struct deploy *d,
                   struct err *e)
{
    char *text = NULL;
    size_t n = 0;
    struct doc *doc;
    if (!k->c.json) {
        printf("# %s\n", scenario_line(s, d));
        scenario_echo(s, stdout);
        return written(stdout, e);
    }
    FILE *f = open_memstream(&text, &n);
    scenario_echo(s, f);
    fclose(f);
    int st = doc_parse_yaml(s->arena, s->path, text, n, &doc, e);
    free(text);
    if (st != ST_OK) return st;
    json_t *j = json_object();
    json_put_text(j, "scenario", scenario_line(s, d));
    json_put(j, "effective", json_of_doc(doc));
    json_print(j, stdout);
    json_decref(j);
    return written(stdout, e);
}

static int run_verb(struct call *k, struct arena *a, struct err *e)
{
    struct scenario s;
    scenario_init(&s, rows, &k->c, a);
    int st = conf_args(&s.conf, k->argc - 1, k->argv + 1, &k->args, e);
    if (st != ST_OK) return st;
    if (k->args.help) {
        fputs(usage, stdout);
        conf_help(&s.conf, stdout);
        fputs(examples, stdout);
        return ST_OK; /* whether it went out is main's to see: a reader may leave early */
    }
    if (k->args.n_file != 1)
        return err_set(e, ST_USAGE, "takes one scenario file, not %d; see orrery simulate --help",
                       k->args.n_file);
    k->path = k->args.file[0];
    st = scenario_read(&s, k->path, &k->args, e);
    if (st == ST_OK) st = scenario_spares(&s, k->c.out, e);
    if (st != ST_OK) return st;
    if (k->c.dry_run) {
        struct deploy d;
        if ((st = scenario_deploy(&s, &d, e)) != ST_OK) return st;
        return dry_run(k, &s, &d, e);
    }
    return s.n_sweep ? sweep(k, &s, e) : one(k, &s, e);
}

int cmd_simulate(int argc, char **argv)
{
    struct arena a;
    struct err e = { 0 };
    struct call k = { 0 };
    static char name[] = "orrery";
    char **full = mem_alloc(((size_t)argc + 2) * sizeof *full);
    full[0] = name;
    for (int i = 0; i <= argc; i++) full[i + 1] = argv[i];
    k.argc = argc + 1;
    k.argv = full;
    arena_init(&a);
    int st = run_verb(&k, &a, &e);
    arena_release(&a);
    free(full);
    if (st == ST_OK) return k.exit_status;
    fprintf(stderr, "orrery simulate: %s\n", e.text);
    return st == ST_USAGE || st == ST_RANGE ? 2 : st == ST_STOPPED ? 130 : 5;
}
