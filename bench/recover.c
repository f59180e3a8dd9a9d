/* bench/recover.c - see recover.h. SPDX-License-Identifier: Apache-2.0 */
#include "bench/recover.h"

#include <inttypes.h>
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
    "attainment are of these, from the first due time to the last token. The journal stays.\n"
    "Exit status: 0; 2 a wrong option, or no journal; 5 reading or writing failed.\n";

/* ---- reading */

struct reader {
    const char *path;
    struct arena *a;
    struct recover_journal *j;
    int64_t cap;
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

static void comment(struct reader *r, const char *line)
{
    const char *text;
    if ((text = after(r, line, "#measured "))) r->j->measured = text;
    if ((text = after(r, line, "#workload "))) r->j->workload = text;
    if ((text = after(r, line, "#scenario "))) r->j->scenario = text;
    if (strncmp(line, "#|", 2) != 0) return;
    size_t n = strlen(line + 2);
    memcpy(r->yaml + r->n_yaml, line + 2, n); /* as long as the file at most */
    r->yaml[r->n_yaml + n] = '\n';
    r->n_yaml += n + 1;
}

/* A field up to the next comma, or the last one. */
static bool number(const char **at, char until, int64_t lo, int64_t hi, int64_t *out)
{
    char *end;
    long long v = strtoll(*at, &end, 10);
    if (end == *at || *end != until || v < lo || v > hi) return false;
    *out = v;
    *at = end + (until != 0);
    return true;
}

static bool parse(const char *at, struct recover_row *row)
{
    static const char *const status[] = { "ok,", "failed,", "rejected,", "unfinished," };
    enum { N = 12 };
    static const struct {
        int64_t lo, hi;
    } range[N] = { { 0, INT64_MAX },  { -1, INT64_MAX }, { -1, INT64_MAX }, { -1, INT64_MAX },
                   { 0, INT32_MAX },  { 0, INT32_MAX },  { 0, INT32_MAX },  { 0, INT32_MAX },
                   { -1, INT64_MAX }, { 0, INT32_MAX },  { 0, INT32_MAX },  { 0, 255 } };
    int64_t v[N];
    int k = 0;
    if (!number(&at, ',', 0, INT64_MAX, &row->id)) return false;
    while (k < 4 && strncmp(at, status[k], strlen(status[k])) != 0) k++;
    if (k == 4) return false;
    at += strlen(status[k]);
    for (int i = 0; i < N; i++)
        if (!number(&at, i + 1 < N ? ',' : 0, range[i].lo, range[i].hi, &v[i])) return false;
    row->r = (struct run_request){ .t_due_ns = v[0],
                                   .t_start_ns = v[1],
                                   .t_first_ns = v[2],
                                   .t_last_ns = v[3],
                                   .n_in = (int32_t)v[4],
                                   .n_out = (int32_t)v[5],
                                   .cached_in = (int32_t)v[6],
                                   .preempted = (int32_t)v[7],
                                   .session = v[8],
                                   .turn = (int32_t)v[9],
                                   .replica = (int32_t)v[10],
                                   .klass = (uint8_t)v[11],
                                   .status = (uint8_t)k };
    return k != RUN_OK || (v[2] >= v[0] && v[3] >= v[2]);
}

static int take(struct reader *r, const char *line, int64_t at, struct err *e)
{
    struct recover_journal *j = r->j;
    struct recover_row row;
    if (line[0] == '#') {
        comment(r, line);
        return ST_OK;
    }
    if (!r->heading) {
        r->heading = strncmp(line, "request,status,t_due,", 21) == 0;
        if (r->heading) return ST_OK;
        return err_set(e, ST_USAGE, "%s:%" PRId64 ": this is no journal of orrery engine run",
                       r->path, at);
    }
    if (!parse(line, &row))
        return err_set(e, ST_USAGE, "%s:%" PRId64 ": not a line of a journal", r->path, at);
    if (j->n == r->cap) {
        struct recover_row *more = arena_array(r->a, 2 * (size_t)r->cap, sizeof *more);
        memcpy(more, j->row, (size_t)j->n * sizeof *more);
        j->row = more;
        r->cap *= 2;
    }
    j->row[j->n++] = row;
    return ST_OK;
}

int recover_read(const char *path, struct arena *a, struct recover_journal *out, struct err *e)
{
    char *bytes = NULL, *end;
    size_t n = 0;
    *out = (struct recover_journal){ 0 };
    int st = doc_read_bytes(a, path, (size_t)1 << 36, &bytes, &n, e);
    if (st == ST_OK) st = doc_check_text(path, bytes, n, e);
    if (st != ST_OK) return st;
    struct reader r = { .path = path, .a = a, .j = out, .cap = 256 };
    r.yaml = arena_alloc(a, n + 1);
    out->row = arena_array(a, (size_t)r.cap, sizeof *out->row);
    int64_t line = 1;
    for (char *at = bytes; st == ST_OK && (end = strchr(at, '\n')); at = end + 1) {
        *end = 0;
        st = take(&r, at, line++, e);
    }
    out->yaml = r.yaml;
    if (st == ST_OK && (!r.heading || !out->scenario || !out->measured || r.n_yaml == 0))
        st = err_set(e, ST_USAGE, "%s: this is no journal of orrery engine run", path);
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

/* The scenario's options are given by its text; what an engine alone knows is allowed there. */
static int read_scenario(const struct recover_journal *j, struct scenario *s, struct arena *a,
                         struct err *e)
{
    static struct monitor_opts unused;
    static const struct conf_args none;
    scenario_init(s, NULL, NULL, a);
    conf_add(&s->conf, monitor_rows, &unused, "monitor");
    s->n_own = s->conf.n_table;
    return scenario_read_text(s, j->scenario, j->yaml, &none, e);
}

static int recover_file(int argc, char **argv, struct arena *a, struct err *e)
{
    struct recover_journal j;
    struct scenario s;
    const char *path = NULL, *out = NULL;
    for (int i = 2; i < argc; i++) {
        bool last = i + 1 == argc;
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            fputs(usage, stdout);
            return ST_OK;
        }
        if (strncmp(argv[i], "--out=", 6) == 0)
            out = argv[i] + 6;
        else if (strcmp(argv[i], "--out") == 0 && !last)
            out = argv[++i];
        else if (argv[i][0] == '-' || path)
            return err_set(e, ST_USAGE, "'%s': recover takes one journal and --out=RUN.h5",
                           argv[i]);
        else
            path = argv[i];
    }
    if (!path || !out)
        return err_set(e, ST_USAGE,
                       "recover takes one journal and --out=RUN.h5; see orrery engine "
                       "recover --help");
    int st = outfile_spares(out, path, e);
    if (st == ST_OK) st = recover_read(path, a, &j, e);
    if (st == ST_OK) st = read_scenario(&j, &s, a, e);
    if (st == ST_OK) st = write_run(&j, &s, out, argc, argv, e);
    if (st == ST_OK)
        printf("recovered   %" PRId64 " requests of %s\nwritten     %s\n", j.n, j.measured, out);
    return st;
}

int recover(int argc, char **argv)
{
    struct arena a;
    struct err e = { 0 };
    arena_init(&a);
    int st = recover_file(argc, argv, &a, &e);
    if (st != ST_OK) fprintf(stderr, "orrery engine: %s\n", e.text);
    arena_release(&a);
    if (st == ST_OK && (fflush(stdout) != 0 || ferror(stdout))) return 5;
    return st == ST_OK ? 0 : st == ST_USAGE || st == ST_RANGE ? 2 : 5;
}
