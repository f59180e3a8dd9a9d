/* traces/cmd_trace.c - `orrery trace`: describes, converts and synthesises request traces.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/stop.h"
#include "base/units.h"
#include "traces/cmd_trace.h"
#include "traces/trace_priv.h"

static const char usage[] =
    "orrery trace: request traces in and out\n"
    "\n"
    "  orrery trace describe FILE [--format=F] [--json]   rows, rate, burstiness, lengths, what "
    "repeats\n"
    "  orrery trace convert IN OUT [options]              to plain csv or JSON lines, by OUT's "
    "name\n"
    "  orrery trace synth OUT [options]                   a made-up trace, from --seed and "
    "workload options\n"
    "\n"
    "Formats are azure (csv), mooncake (jsonl), csv and jsonl; --format says which where the file "
    "does not.\n"
    "Options of the workload may be written without `workload.`, and with - for _.\n"
    "Exit status: 0; 2 a wrong option or file; 5 reading or writing failed.\n";
static const char examples[] =
    "\nExamples\n"
    "  orrery trace describe scenarios/traces/chat-sample.csv\n"
    "  orrery trace convert azure_llm_code.csv code.jsonl --rate-scale=2\n"
    "  orrery trace synth chat.csv --rate=4/s --arrivals=gamma --burstiness=1.8 --requests=2000 "
    "--turns=3 --think=30s\n";

struct cmd {
    bool json;
    int64_t seed, tpot_ns, round_ns;
    struct trace_opts workload;
};
#define AT(member) offsetof(struct cmd, member)
/* clang-format off */
static const struct conf_row rows[] = {
    { "json", CONF_BOOL, AT(json), "no", NULL, 0, 0, "describe: one JSON object instead of text" },
    { "seed", CONF_INT, AT(seed), "1", NULL, 0, 9e15, "synth: seed of every draw" },
    { "round", CONF_TIME, AT(round_ns), "1ns", NULL, 1e-9, 3600,
      "convert, synth: arrivals become multiples of this, rounded down" },
    { "assume_tpot", CONF_TIME, AT(tpot_ns), "20ms", NULL, 0, 60,
      "synth: a request ends this long per output token after it was due; then follow think time "
      "and next turn" },
    { .type = CONF_END },
};
/* clang-format on */
#undef AT

/* ---- describe */

static void put_lengths(json_t *j, const char *group, const struct trace_summary_len *l)
{
    json_t *o = json_object();
    json_put_f64(o, "mean", l->mean);
    json_put_f64(o, "p50", l->p50);
    json_put_f64(o, "p90", l->p90);
    json_put_f64(o, "p99", l->p99);
    json_put_f64(o, "min", l->min);
    json_put_f64(o, "max", l->max);
    json_put(j, group, o);
}

static void print_json(const struct trace_summary *s, const char *path, const char *format,
                       const struct trace_rows *t)
{
    json_t *j = json_object();
    json_put_text(j, "file", path);
    json_put_text(j, "format", format);
    json_put_i64(j, "requests", s->n);
    json_put_f64(j, "span_s", s->span_s);
    json_put_f64(j, "rate_per_s", s->rate_per_s);
    json_put_f64(j, "gap_cv_ratio", s->gap_cv_ratio);
    put_lengths(j, "in_tok", &s->in);
    put_lengths(j, "out_tok", &s->out);
    json_put_i64(j, "repeated_tok", s->repeated_tok);
    json_put_f64(j, "repeated_ratio", s->repeated_ratio);
    json_put_i64(j, "sessions", s->n_session);
    json_put_f64(j, "turns_mean", s->turns_mean);
    json_put_i64(j, "classes", t->n_class);
    json_put_i64(j, "lengths_raised", t->n_raised);
    json_print(j, stdout);
    json_decref(j);
}

static void print_lengths(const struct trace_summary_len *l, const char *label)
{
    printf("  %-10s mean %.1f, p50 %.0f, p90 %.0f, p99 %.0f, from %.0f to %.0f tokens\n", label,
           l->mean, l->p50, l->p90, l->p99, l->min, l->max);
}

static void print_text(const struct trace_summary *s, const char *path, const char *format,
                       const struct trace_rows *t)
{
    char span[40];
    units_human(UNIT_TIME, s->span_s, span, sizeof span);
    printf("%s (%s): %lld request%s over %s\n", path, format, (long long)s->n, units_s(s->n), span);
    if (s->span_s > 0 && isfinite(s->gap_cv_ratio))
        printf("  %-10s %.4g requests/s, coefficient of variation of gaps %.2f\n", "arrivals",
               s->rate_per_s, s->gap_cv_ratio);
    else if (s->span_s > 0)
        printf("  %-10s %.4g requests/s\n", "arrivals", s->rate_per_s);
    print_lengths(&s->in, "prompts");
    print_lengths(&s->out, "outputs");
    printf("  %-10s %.1f %% of prompt tokens repeat an earlier request's (%lld, with a cache "
           "without bound)\n",
           "sharing", 100 * s->repeated_ratio, (long long)s->repeated_tok);
    if (s->n_session)
        printf("  %-10s %lld, %.2f turns on average\n", "sessions", (long long)s->n_session,
               s->turns_mean);
    for (int i = 0; i < t->n_class && t->n_class > 1; i++)
        printf("  %-10s %s\n", i ? "" : "classes", t->class_name[i]);
    if (t->n_raised)
        printf("  %-10s %lld length%s of 0 read as 1\n", "note", (long long)t->n_raised,
               units_s(t->n_raised));
}

static int describe(const struct cmd *c, const char *path, struct arena *a, struct err *e)
{
    static const char *const format[] = { "auto", "azure", "mooncake", "csv", "jsonl" };
    struct trace_rows t;
    struct trace_summary s;
    int st = trace_read(path, c->workload.format, a, &t, e);
    if (st != ST_OK) return st;
    trace_summarise(&t, &s);
    if (c->json)
        print_json(&s, path, format[t.format], &t);
    else
        print_text(&s, path, format[t.format], &t);
    return fflush(stdout) == 0 && !ferror(stdout) ? ST_OK
                                                  : err_set(e, ST_IO, "cannot write the result");
}

/* ---- convert, synth */

static int format_of(const char *path, struct err *e)
{
    const char *dot = strrchr(path, '.');
    if (dot && strcmp(dot, ".csv") == 0) return TRACE_CSV;
    if (dot && strcmp(dot, ".jsonl") == 0) return TRACE_JSONL;
    err_set(e, ST_USAGE, "%s: a trace is written as .csv or .jsonl", path);
    return TRACE_AUTO;
}

/* in: a file to convert, or NULL to synthesise. comment: head of a csv. */
static int make(const struct cmd *c, const char *in, const char *out, const char *comment,
                struct arena *a, struct err *e)
{
    struct trace_rows t;
    struct trace *source;
    struct trace_opts o = c->workload;
    int format = format_of(out, e);
    if (format == TRACE_AUTO) return ST_USAGE;
    if (o.file)
        return err_set(e, ST_USAGE,
                       "workload.trace: convert and synth take files as arguments only");
    o.file = in;
    int st = trace_open(&o, NULL, (uint64_t)c->seed, &source, e);
    if (st != ST_OK) return st;
    trace_record(source, c->tpot_ns, a, &t);
    if (stop_asked())
        st = err_set(e, ST_STOPPED, "interrupted; nothing was written");
    else if (t.n == 0)
        st = err_set(e, ST_USAGE, "%s: no request is due within the limits", out);
    for (int64_t i = 0; i < t.n; i++) t.row[i].t_due_ns -= t.row[i].t_due_ns % c->round_ns;
    if (st == ST_OK) st = trace_write(out, format, &t, comment, e);
    if (st == ST_OK)
        fprintf(stderr, "%s: %lld request%s (%s)\n", out, (long long)t.n, units_s(t.n),
                trace_describe(source));
    trace_close(source);
    return st;
}

/* How to make the file again: the command without the path. */
static const char *recipe(int argc, char **argv, struct arena *a)
{
    const char *text =
        "Synthetic: drawn from laws, no row is from a real trace. Made by\norrery trace synth OUT";
    for (int i = 1; i < argc; i++)
        if (argv[i][0] == '-') text = arena_printf(a, "%s %s", text, argv[i]);
    return text;
}

/* ---- command line */

/* --key=value or --switch into the set. */
static int set_option(struct conf_set *s, const char *arg, struct arena *a, struct err *e)
{
    const char *equal = strchr(arg, '=');
    size_t n = equal ? (size_t)(equal - arg) - 2 : strlen(arg) - 2;
    char *key = arena_copy_text(a, arg + 2, n), *full;
    for (char *p = key; *p; p++)
        if (*p == '-') *p = '_';
    full = arena_printf(a, "workload.%s", key);
    const struct conf_row *row = conf_find(s, key, NULL);
    if (!row && (row = conf_find(s, full, NULL))) key = full;
    if (!equal && row && row->type != CONF_BOOL)
        return err_set(e, ST_USAGE, "--%.*s needs a value, as --%.*s=...", (int)n, arg + 2, (int)n,
                       arg + 2);
    return conf_set_text(s, key, equal ? equal + 1 : "yes",
                         arena_printf(a, "--%.*s", (int)n, arg + 2), e);
}

static int run_verb(int argc, char **argv, struct arena *a, struct err *e)
{
    struct cmd c = { 0 };
    struct conf_set s;
    const char *file[2] = { NULL, NULL };
    int n_file = 0, st = ST_OK;
    conf_init(&s, a);
    conf_add(&s, rows, &c, "trace");
    conf_add(&s, trace_rows, &c.workload, "workload");
    for (int i = 1; i < argc && st == ST_OK; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            fputs(usage, stdout);
            conf_help(&s, stdout);
            fputs(examples, stdout);
            return ST_OK;
        }
        if (strncmp(argv[i], "--", 2) == 0)
            st = set_option(&s, argv[i], a, e);
        else if (i > 1 && n_file < 2)
            file[n_file++] = argv[i];
        else if (i > 1)
            st =
                err_set(e, ST_USAGE, "'%s' is one file too many; see orrery trace --help", argv[i]);
    }
    if (st != ST_OK) return st;
    const char *verb = argc > 1 ? argv[1] : "";
    if (strcmp(verb, "describe") == 0 && n_file == 1) return describe(&c, file[0], a, e);
    if (strcmp(verb, "convert") == 0 && n_file == 2) return make(&c, file[0], file[1], NULL, a, e);
    if (strcmp(verb, "synth") == 0 && n_file == 1)
        return make(&c, NULL, file[0], recipe(argc, argv, a), a, e);
    bool known =
        strcmp(verb, "describe") == 0 || strcmp(verb, "convert") == 0 || strcmp(verb, "synth") == 0;
    if (known)
        return err_set(e, ST_USAGE, "%s takes %s; see orrery trace --help", verb,
                       strcmp(verb, "convert") == 0 ? "two files, IN and OUT" : "one file");
    return err_set(e, ST_USAGE, "'%s' is none of describe, convert, synth; see orrery trace --help",
                   verb);
}

int cmd_trace(int argc, char **argv)
{
    struct arena a;
    struct err e = { 0 };
    arena_init(&a);
    int st = run_verb(argc, argv, &a, &e);
    arena_release(&a);
    if (st == ST_OK) return 0;
    fprintf(stderr, "orrery trace: %s\n", e.text);
    return st == ST_USAGE || st == ST_RANGE ? 2 : st == ST_STOPPED ? 130 : 5;
}
