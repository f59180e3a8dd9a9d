/* bench/recover.c - see recover.h. SPDX-License-Identifier: Apache-2.0 */
#include "bench/recover.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/doc.h"
#include "base/outfile.h"
#include "base/prov.h"
#include "engine/monitor.h"
#include "sim/store.h"

static const char usage[] =
    "orrery engine recover: a run file of what a killed `orrery engine run` had finished\n"
    "\n"
    "  orrery engine recover RUN.h5.journal.csv --out=RUN.h5\n"
    "\n"
    "The run file holds the requests that had finished and the scenario; latencies, throughput "
    "and\n"
    "attainment are of these, from the first due time to the last token. A last row that was cut "
    "off\n"
    "is left out, and said. The journal stays.\n"
    "Exit status: 0; 2 a wrong option, or no journal; 5 reading or writing failed.\n";

/* ---- reading */

struct reader {
    const char *path;
    struct arena *a;
    struct recover_journal *j;
    int64_t cap, n_yaml_line; /* lines that yaml has so far */
    char *yaml;
    size_t n_yaml;
    bool heading;
};

/* The text after a key, where the line begins with it. */
static const char *after(const struct reader *r, const char *line, const char *key)
{
    size_t n = strlen(key);
    return strncmp(line, key, n) == 0 ? arena_copy_text(r->a, line + n, strlen(line + n)) : NULL;
}

/* The scenario keeps its lines and columns, so that what is wrong in it is told by the journal's; it is
 * as long as the file at most. */
static void comment(struct reader *r, const char *line, int64_t at)
{
    const char *text;
    if ((text = after(r, line, "#measured "))) r->j->measured = text;
    if ((text = after(r, line, "#workload "))) r->j->workload = text;
    if ((text = after(r, line, "#scenario "))) r->j->scenario = text;
    if (strncmp(line, "#|", 2) != 0) return;
    for (; r->n_yaml_line < at - 1; r->n_yaml_line++) r->yaml[r->n_yaml++] = '\n';
    size_t n = strlen(line + 2);
    memset(r->yaml + r->n_yaml, ' ', 2);
    memcpy(r->yaml + r->n_yaml + 2, line + 2, n);
    r->n_yaml += n + 2;
    r->yaml[r->n_yaml++] = '\n';
    r->n_yaml_line++;
}

enum { T_DUE, T_START, T_FIRST, T_LAST, N_IN, N_OUT, CACHED, PREEMPTED, SESSION, N_NUMBER = 12 };
#define MOST_NS INT64_C(1000000000000000000) /* 31 years */
static const struct {
    const char *name;
    int64_t lo, hi;
} column[N_NUMBER] = { { "t_due", 0, MOST_NS },       { "t_start", -1, MOST_NS },
                       { "t_first", -1, MOST_NS },    { "t_last", -1, MOST_NS },
                       { "n_in", 0, INT32_MAX },      { "n_out", 0, INT32_MAX },
                       { "cached_in", 0, INT32_MAX }, { "preempted", 0, INT32_MAX },
                       { "session", -1, INT64_MAX },  { "turn", 0, INT32_MAX },
                       { "replica", 0, INT32_MAX },   { "class", 0, 255 } };

/* A field up to `until`, and behind that. */
static bool number(const char **at, char until, int64_t lo, int64_t hi, int64_t *out)
{
    char *end;
    errno = 0;
    long long v = strtoll(*at, &end, 10);
    if (end == *at || *end != until || errno || v < lo || v > hi) return false;
    *out = v;
    *at = end + (until != 0);
    return true;
}

/* What cannot have been, in words; NULL: nothing. Times that are known come one after the other. */
static const char *impossible(const int64_t *v, int status, struct arena *a)
{
    int before = T_DUE;
    for (int i = T_START; i <= T_LAST; i++) {
        if (v[i] < 0 && status == RUN_OK && i > T_START)
            return arena_printf(a, "a finished request without %s", column[i].name);
        if (v[i] < 0) continue;
        if (v[i] < v[before])
            return arena_printf(a, "%s %" PRId64 " is before %s %" PRId64, column[i].name, v[i],
                                column[before].name, v[before]);
        before = i;
    }
    if (status == RUN_OK && v[N_OUT] == 0) return "a finished request without a token (n_out)";
    if (v[CACHED] > v[N_IN]) return "cached_in is more than n_in";
    return NULL;
}

/* NULL: fine; else what is wrong, in words. */
static const char *parse(const char *at, struct recover_row *row, struct arena *a)
{
    static const char *const status[] = { "ok,", "failed,", "rejected,", "unfinished," };
    int64_t v[N_NUMBER];
    int k = 0;
    if (!number(&at, ',', 0, INT64_MAX, &row->id)) return "request is no number from 0 on";
    while (k < 4 && strncmp(at, status[k], strlen(status[k])) != 0) k++;
    if (k == 4) return "status is none of ok, failed, rejected, unfinished";
    at += strlen(status[k]);
    for (int i = 0; i < N_NUMBER; i++)
        if (!number(&at, i + 1 < N_NUMBER ? ',' : 0, column[i].lo, column[i].hi, &v[i]))
            return arena_printf(a, "%s is no whole number from %" PRId64 " to %" PRId64,
                                column[i].name, column[i].lo, column[i].hi);
    row->r = (struct run_request){ .t_due_ns = v[T_DUE],
                                   .t_start_ns = v[T_START],
                                   .t_first_ns = v[T_FIRST],
                                   .t_last_ns = v[T_LAST],
                                   .n_in = (int32_t)v[N_IN],
                                   .n_out = (int32_t)v[N_OUT],
                                   .cached_in = (int32_t)v[CACHED],
                                   .preempted = (int32_t)v[PREEMPTED],
                                   .session = v[SESSION],
                                   .turn = (int32_t)v[SESSION + 1],
                                   .replica = (int32_t)v[SESSION + 2],
                                   .klass = (uint8_t)v[SESSION + 3],
                                   .status = (uint8_t)k };
    return impossible(v, k, a);
}

static int take(struct reader *r, const char *line, int64_t at, struct err *e)
{
    struct recover_journal *j = r->j;
    struct recover_row row = { .line = at };
    if (line[0] == '#') {
        comment(r, line, at);
        return ST_OK;
    }
    if (!r->heading) {
        r->heading = strncmp(line, "request,status,t_due,", 21) == 0;
        if (r->heading) return ST_OK;
        return err_set(e, ST_USAGE, "%s:%" PRId64 ": this is no journal of orrery engine run",
                       r->path, at);
    }
    const char *wrong = parse(line, &row, r->a);
    if (wrong)
        return err_set(e, ST_USAGE, "%s:%" PRId64 ": not a line of a journal: %s", r->path, at,
                       wrong);
    if (j->n == r->cap) {
        struct recover_row *more = arena_array(r->a, 2 * (size_t)r->cap, sizeof *more);
        memcpy(more, j->row, (size_t)j->n * sizeof *more);
        j->row = more;
        r->cap *= 2;
    }
    j->row[j->n++] = row;
    return ST_OK;
}

static int by_id(const void *a, const void *b)
{
    const struct recover_row *x = a, *y = b;
    if (x->id != y->id) return x->id < y->id ? -1 : 1;
    return x->line < y->line ? -1 : x->line > y->line;
}

/* A request ends once. */
static int each_once(const struct reader *r, struct err *e)
{
    const struct recover_journal *j = r->j;
    struct recover_row *x = mem_alloc(((size_t)j->n + 1) * sizeof *x), *twice = NULL;
    memcpy(x, j->row, (size_t)j->n * sizeof *x);
    qsort(x, (size_t)j->n, sizeof *x, by_id);
    for (int64_t i = 1; i < j->n; i++)
        if (x[i].id == x[i - 1].id && (!twice || x[i].line < twice->line)) twice = &x[i];
    int st =
        twice ? err_set(e, ST_USAGE,
                        "%s:%" PRId64 ": request %" PRId64 " has ended already, in line %" PRId64,
                        r->path, twice->line, twice->id, twice[-1].line)
              : ST_OK;
    free(x);
    return st;
}

int recover_read(const char *path, struct arena *a, struct recover_journal *out, struct err *e)
{
    char *bytes = NULL, *end, *at;
    size_t n = 0;
    *out = (struct recover_journal){ 0 };
    int st = doc_read_bytes(a, path, (size_t)1 << 36, &bytes, &n, e);
    if (st == ST_OK) st = doc_check_text(path, bytes, n, e);
    if (st != ST_OK) return st;
    struct reader r = { .path = path, .a = a, .j = out, .cap = 256 };
    r.yaml = arena_alloc(a, n + 1);
    out->row = arena_array(a, (size_t)r.cap, sizeof *out->row);
    int64_t line = 1;
    for (at = bytes; st == ST_OK && (end = strchr(at, '\n')); at = end + 1) {
        *end = 0;
        if (end > at && end[-1] == '\r') end[-1] = 0; /* as another system writes line ends */
        st = take(&r, at, line++, e);
    }
    r.yaml[r.n_yaml] = 0;
    out->yaml = r.yaml;
    out->n_cut = st == ST_OK && *at != 0;
    if (st == ST_OK && (!r.heading || !out->scenario || !out->measured || r.n_yaml == 0))
        st = err_set(e, ST_USAGE, "%s: this is no journal of orrery engine run: it has no %s%s",
                     path,
                     !out->measured   ? "#measured"
                     : !out->scenario ? "#scenario"
                     : r.n_yaml == 0  ? "#| lines of the scenario"
                                      : "heading of columns",
                     out->n_cut ? ", and ends within a line" : "");
    if (st == ST_OK) st = each_once(&r, e);
    if (!out->workload) out->workload = "";
    return st;
}

/* ---- writing */

static void count(struct metrics *m, const struct recover_journal *j, const struct slo *slo)
{
    int64_t first = INT64_MAX, last = 0;
    metrics_init(m);
    m->n_replica = m->n_stage = m->kv_blocks = m->n_run = 1;
    for (int64_t i = 0; i < j->n; i++) {
        const struct run_request *r = &j->row[i].r;
        m->due++;
        if (r->t_due_ns < first) first = r->t_due_ns;
        if (r->t_due_ns > m->t_last_due_ns) m->t_last_due_ns = r->t_due_ns;
        if (r->t_due_ns > last) last = r->t_due_ns;
        if (r->t_last_ns > last) last = r->t_last_ns;
        m->rejected += r->status == RUN_REJECTED;
        m->failed += r->status == RUN_FAILED || r->status == RUN_UNFINISHED;
        m->preempted += r->preempted;
        if (r->status == RUN_REJECTED) m->why_rejected = "it could not run there";
        m->kept++;
        if (r->status != RUN_OK) continue;
        m->finished++;
        m->w.done++;
        m->w.out_tok += r->n_out;
        metrics_add_request(m, slo, r);
    }
    m->t_begin_ns = j->n ? first : 0;
    m->t_stop_ns = last;
    metrics_close(m, last, NULL, true);
}

static int write_run(const struct recover_journal *j, struct scenario *s, const char *out, int argc,
                     char *const *argv, struct err *e)
{
    struct store t;
    struct prov p;
    struct outcome o = { 0 };
    struct metrics m;
    static struct deploy d; /* of which little is known */
    int st = store_begin(&t, out, false, e);
    if (st != ST_OK) return st;
    count(&m, j, &s->slo);
    metrics_init(&o.first);
    metrics_init(&o.all);
    metrics_merge(&o.first, &m);
    metrics_merge(&o.all, &m);
    outcome_single(&o);
    o.workload = j->workload;
    o.coverage = "measured";
    o.bottleneck = "not known: the run was killed";
    d = (struct deploy){ .strategy = s->strategy, .kv_blocks = s->policy.kv_blocks };
    d.lim.block_tok = s->policy.block_tok;
    struct print_in in = { .s = s, .d = &d, .o = &o, .line = j->measured, .out_path = out };
    for (int64_t i = 0; i < j->n; i++) t.sink.request(&t, &j->row[i].r);
    prov_collect(&p, argc, argv);
    if (!t.e.status && !h5_has(run_h5(t.run), "/summary"))
        h5_group(run_h5(t.run), "/summary", "estimates with their intervals", &t.e);
    if (!t.e.status)
        h5_attr_text(run_h5(t.run), "/summary", "ended_early",
                     "the process was killed; recovered from its journal", &t.e);
    st = store_finish(&t, &in, &p, e);
    prov_release(&p);
    metrics_release(&m);
    outcome_release(&o);
    return st;
}

/* The scenario's options are given by its text; what an engine alone knows is allowed there. What is
 * wrong with it stands in the journal. */
static int read_scenario(const struct recover_journal *j, const char *path, struct scenario *s,
                         struct arena *a, struct err *e)
{
    static struct monitor_opts unused;
    static const struct conf_args none;
    scenario_init(s, NULL, NULL, a);
    conf_add(&s->conf, monitor_rows, &unused, "monitor");
    s->n_own = s->conf.n_table;
    int st = scenario_read_text(s, path, j->yaml, &none, e);
    s->path = j->scenario;
    return st;
}

struct opts {
    const char *out;
};
static const struct conf_row rows[] = { { "out", CONF_TEXT, offsetof(struct opts, out), NULL, NULL,
                                          0, 0, "run file to write (HDF5); appears when complete" },
                                        { .type = CONF_END } };

static int recover_file(int argc, char **argv, struct arena *a, struct err *e)
{
    struct recover_journal j;
    struct scenario s;
    struct opts o;
    struct conf_set set;
    struct conf_args args;
    conf_init(&set, a);
    conf_add(&set, rows, &o, "recover");
    int st = conf_args(&set, argc - 1, argv + 1, &args, e);
    if (st != ST_OK) return st;
    if (args.help) {
        fputs(usage, stdout);
        conf_help(&set, stdout);
        return ST_OK;
    }
    st = conf_apply_args(&set, &args, e);
    if (st == ST_OK && (args.n_file != 1 || !o.out))
        st = err_set(e, ST_USAGE,
                     "recover takes one journal and --out=RUN.h5; see orrery engine recover "
                     "--help");
    const char *path = args.n_file ? args.file[0] : NULL;
    if (st == ST_OK) st = outfile_spares(o.out, path, e);
    if (st == ST_OK) st = recover_read(path, a, &j, e);
    if (st == ST_OK) st = read_scenario(&j, path, &s, a, e);
    if (st == ST_OK) st = write_run(&j, &s, o.out, argc, argv, e);
    if (st != ST_OK) return st;
    printf("recovered   %" PRId64 " request%s of %s\n", j.n, j.n == 1 ? "" : "s", j.measured);
    if (j.n_cut) printf("            %d unfinished last row dropped\n", j.n_cut);
    printf("written     %s\n", o.out);
    return ST_OK;
}

int recover(int argc, char **argv)
{
    struct arena a;
    struct err e = { 0 };
    arena_init(&a);
    int st = recover_file(argc, argv, &a, &e);
    if (st != ST_OK) fprintf(stderr, "orrery engine: %s\n", e.text);
    arena_release(&a);
    return st == ST_OK ? 0 : st == ST_USAGE || st == ST_RANGE ? 2 : 5;
}
