/* bench/validate_read.c - run files as validate compares them: requests in one order, quantities,
 * intervals. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/utf8.h"
#include "bench/validate.h"
#include "traces/run.h"

static const double levels[VALIDATE_N_STAT] = { NAN, .5, .9, .95, .99 };
/* rows of a stored summary: mean p50 p90 p99 */
static const enum validate_stat stored[4] = { VALIDATE_MEAN, VALIDATE_P50, VALIDATE_P90,
                                              VALIDATE_P99 };

/* ---- the file */

static double scalar(struct run_file *f, const char *name)
{
    double v = NAN;
    int64_t i;
    if (!h5_has(f->h5, "/summary")) return NAN;
    if (h5_read_attr_f64(f->h5, "/summary", name, &v, NULL) == ST_OK) return v;
    return h5_read_attr_i64(f->h5, "/summary", name, &i, NULL) == ST_OK ? (double)i : NAN;
}

static void read_intervals(struct run_file *f, struct arena *a, struct validate_run *r)
{
    struct ci *c;
    int n = 0;
    for (int q = 0; q < VALIDATE_N; q++) r->ci[q] = (struct ci){ NAN, NAN, NAN };
    if (run_read_summary(f, "output_per_s", a, &c, &n, NULL) == ST_OK && n > 0)
        r->ci[VALIDATE_THROUGHPUT] = c[0];
    for (int m = 0; m < METRIC_N; m++) {
        if (run_read_summary(f, metric_name((enum metric)m), a, &c, &n, NULL) != ST_OK) continue;
        for (int i = 0; i < 4 && i < n; i++) r->ci[validate_q((enum metric)m, stored[i])] = c[i];
    }
}

/* ---- where a step's time goes, as validate.h defines it. Steps are those begun in the window. */

/* Replicas share the steps; the hops' share, p2p, is of time that no stage is busy with. */
static void simulated_parts(struct run_file *f, struct arena *a, struct validate_run *r)
{
    enum { GEMM, ATTENTION, COLLECTIVE, P2P, HOST, OTHER, N_CLASS }; /* as stored */
    static const int part_of[N_CLASS] = { 0, 0, 1, -1, 2, 0 };
    double *busy, *share, *t0, *count, steps = 0, total = 0, dp = scalar(f, "dp");
    size_t n_stage, n_share, n, m;
    double from = scalar(f, "window_begin_ns"), to = scalar(f, "window_end_ns");
    if (run_column(f, "summary/stage_busy", a, &busy, &n_stage, NULL) != ST_OK ||
        run_column(f, "summary/time_share", a, &share, &n_share, NULL) != ST_OK ||
        n_share != N_CLASS || run_column(f, "steps/t0", a, &t0, &n, NULL) != ST_OK ||
        run_column(f, "steps/n_step", a, &count, &m, NULL) != ST_OK || n != m)
        return;
    for (size_t i = 0; i < n; i++)
        if (t0[i] >= from && t0[i] < to) steps += count[i];
    for (size_t i = 0; i < n_stage; i++) total += busy[i] * (to - from) * 1e-9;
    total *= dp >= 1 ? dp : 1;
    if (!(steps > 0) || !isfinite(total) || !(share[P2P] < 1)) return;
    double busy_s = total / steps / (1 - share[P2P]); /* of a share of 1 */
    for (int k = 0; k < VALIDATE_N_PART; k++) r->part_s[k] = 0;
    for (int i = 0; i < N_CLASS; i++)
        if (part_of[i] >= 0) r->part_s[part_of[i]] += share[i] * busy_s;
    r->op_s[0] = share[GEMM] * busy_s;
    r->op_s[1] = share[ATTENTION] * busy_s;
    r->op_s[2] = share[OTHER] * busy_s;
}

struct monitor_cols { /* [n] ns but rank */
    double *rank, *t0, *t1, *compute, *comm, *wait, *host;
    double *gemm, *attn; /* NULL: the file is of before they were kept */
    size_t n;
};

static bool monitor_cols(struct run_file *f, struct arena *a, struct monitor_cols *m)
{
    const struct {
        const char *name;
        double **at;
    } col[] = { { "monitor/rank", &m->rank }, { "monitor/t0", &m->t0 },
                { "monitor/t1", &m->t1 },     { "monitor/compute", &m->compute },
                { "monitor/comm", &m->comm }, { "monitor/wait", &m->wait },
                { "monitor/host", &m->host } };
    size_t n;
    for (size_t i = 0; i < sizeof col / sizeof *col; i++) {
        if (run_column(f, col[i].name, a, col[i].at, &n, NULL) != ST_OK) return false;
        if (i && n != m->n) return false;
        m->n = n;
    }
    if (run_column(f, "monitor/gemm", a, &m->gemm, &n, NULL) != ST_OK || n != m->n) m->gemm = NULL;
    if (run_column(f, "monitor/attention", a, &m->attn, &n, NULL) != ST_OK || n != m->n)
        m->gemm = NULL;
    return true;
}

/* A rank's time from its input to its end is compute, calls to other ranks and sampling. Rank 0 waits
 * in calls alone, and its host time holds the scheduler's, in front of the step; that of others is
 * sampling (engine/monitor.h). */
static void measured_parts(struct run_file *f, struct arena *a, struct validate_run *r)
{
    struct monitor_cols m;
    double tp = scalar(f, "tp"), pp = scalar(f, "pp");
    double from = scalar(f, "window_begin_ns"), to = scalar(f, "window_end_ns");
    if (!(tp >= 1 && pp >= 1 && tp * pp <= VALIDATE_MAX_RANK) || !monitor_cols(f, a, &m)) return;
    int ranks = (int)(tp * pp);
    double op[VALIDATE_N_OP] = { 0 }, (*ops)[2] = arena_array(a, (size_t)ranks, sizeof *ops);
    bool known = m.gemm != NULL;
    double(*sum)[VALIDATE_N_PART] = arena_array(a, (size_t)ranks, sizeof *sum);
    double *rows = arena_array(a, (size_t)ranks, sizeof *rows);
    for (size_t i = 0; i < m.n; i++) {
        if (!(m.rank[i] >= 0 && m.rank[i] <= INT32_MAX) || m.t0[i] < from || m.t0[i] >= to)
            continue;
        int k = (int)m.rank[i] % ranks; /* of its replica */
        double rest = m.t1[i] - m.t0[i] - m.compute[i];
        double calls = k == 0 ? m.comm[i] + m.wait[i] : rest - m.host[i];
        rows[k]++;
        sum[k][0] += m.compute[i] / tp + rest - calls; /* one rank samples, all compute */
        sum[k][1] += calls / tp;
        sum[k][2] += m.host[i] - (rest - calls);
        known = known && m.gemm[i] >= 0 && m.attn[i] >= 0;
        ops[k][0] += known ? m.gemm[i] / tp : 0;
        ops[k][1] += known ? m.attn[i] / tp : 0;
    }
    double part[VALIDATE_N_PART] = { 0 };
    for (int k = 0; k < ranks; k++) /* NAN where a rank was not seen */
        for (int c = 0; c < VALIDATE_N_PART; c++) part[c] += 1e-9 * sum[k][c] / rows[k];
    if (!isfinite(part[0])) return;
    memcpy(r->part_s, part, sizeof part);
    for (int k = 0; k < ranks; k++)
        for (int c = 0; c < 2; c++) op[c] += 1e-9 * ops[k][c] / rows[k];
    op[2] = part[0] - op[0] - op[1];
    for (int c = 0; c < VALIDATE_N_OP; c++) r->op_s[c] = known ? op[c] : NAN;
}

static int read_rows(struct run_file *f, struct arena *a, struct validate_run *r, struct err *e)
{
    const struct {
        const char *name;
        double **at;
    } col[] = { { "requests/t_due", &r->t_due },   { "requests/t_first", &r->t_first },
                { "requests/t_last", &r->t_last }, { "requests/n_in", &r->n_in },
                { "requests/n_out", &r->n_out },   { "requests/session", &r->session },
                { "requests/turn", &r->turn },     { "requests/status", &r->status } };
    size_t n;
    if (f->n_request == 0) return err_set(e, ST_USAGE, "%s: holds no requests", f->path);
    for (size_t i = 0; i < sizeof col / sizeof *col; i++) {
        int st = run_column(f, col[i].name, a, col[i].at, &n, e);
        if (st != ST_OK) return st;
        if (n != (size_t)f->n_request)
            return err_set(e, ST_USAGE, "%s: %s has %zu rows, not %lld", f->path, col[i].name, n,
                           (long long)f->n_request);
    }
    r->n_request = f->n_request;
    for (int64_t i = 0; i < r->n_request; i++) r->n_ok += r->status[i] == RUN_OK;
    return ST_OK;
}

/* ---- one order */

struct key {
    double k[6];
    int64_t row;
};

static int by_key(const void *pa, const void *pb)
{
    const struct key *a = pa, *b = pb;
    for (int i = 0; i < 6; i++)
        if (a->k[i] != b->k[i]) return a->k[i] < b->k[i] ? -1 : 1;
    return (a->row > b->row) - (a->row < b->row);
}

/* Turns of sessions are due when the one before has ended, so that their due times differ from run
 * to run; other requests of one due time and equal lengths are told apart by who came first. */
static void sort_rows(struct validate_run *r, struct arena *a)
{
    struct key *k = arena_array(a, (size_t)r->n_request, sizeof *k);
    r->order = arena_array(a, (size_t)r->n_request, sizeof *r->order);
    for (int64_t i = 0; i < r->n_request; i++) {
        bool session = r->session[i] >= 0;
        k[i] = (struct key){ { session, session ? r->session[i] : r->t_due[i],
                               session ? r->turn[i] : 0, r->n_in[i], r->n_out[i], r->t_first[i] },
                             i };
    }
    qsort(k, (size_t)r->n_request, sizeof *k, by_key);
    for (int64_t i = 0; i < r->n_request; i++) r->order[i] = k[i].row;
    r->n_order = r->n_request;
}

/* A text attribute, or "". */
static const char *text_of(struct run_file *f, const char *object, const char *name,
                           struct arena *a)
{
    char *text = NULL;
    if (h5_has(f->h5, object)) h5_read_attr_text(f->h5, object, name, a, &text, NULL);
    return text ? text : "";
}

static const char *origin(struct run_file *f, const char *name, struct arena *a)
{
    return text_of(f, "/provenance", name, a);
}

/* The same as a part of a line. */
static const char *word_of(struct run_file *f, const char *object, const char *name,
                           struct arena *a)
{
    const char *text = text_of(f, object, name, a);
    char *out = arena_copy_text(a, text, strlen(text));
    utf8_tidy(out, '?');
    return out;
}

/* A prediction's own provenance is of where it was computed, which says nothing. */
static void read_machine(struct run_file *f, bool measured, struct arena *a,
                         struct validate_machine *out)
{
    const char *at = "/provenance";
    *out = (struct validate_machine){ "", "", "", word_of(f, at, "source_tool", a), "", "" };
    if (*out->tool) {
        out->model = word_of(f, at, "model", a);
        out->date = word_of(f, at, "source_date", a);
    }
    if (measured && *out->tool) return; /* of where it was imported */
    if (measured) {
        out->cpu = word_of(f, at, "cpu", a);
        out->host = word_of(f, at, "host", a);
        if (strcmp(text_of(f, "/summary", "engine_kernels", a), "cuda") == 0) out->gpu = "GPU";
        return;
    }
    at = "/scenario";
    out->cpu = word_of(f, at, "profile_cpu", a);
    out->host = word_of(f, at, "profile_host", a);
    out->gpu = word_of(f, at, "profile_gpu", a);
}

int validate_read(const char *path, struct arena *a, struct validate_run *out, struct err *e)
{
    struct run_file f;
    memset(out, 0, sizeof *out);
    int st = run_open(path, a, &f, e);
    if (st != ST_OK) return st;
    if (f.ended_early) {
        err_set(
            e, ST_USAGE,
            "%s: the run ended early (%s): only the requests that had finished are in it, and they "
            "are not the load's",
            path, f.ended_early);
        run_close(&f);
        return ST_USAGE;
    }
    out->created = origin(&f, "created_utc", a);
    out->run_id = origin(&f, "run_uuid", a);
    out->scenario_yaml = f.scenario_yaml;
    char *runs = NULL;
    if (h5_has(f.h5, "/scenario/calibrated_by"))
        st = h5_read_text(f.h5, "/scenario/calibrated_by", a, &runs, e);
    out->calibrated_by = runs ? runs : "";
    struct stat info;
    if (stat(path, &info) == 0) {
        out->device = (uint64_t)info.st_dev;
        out->inode = (uint64_t)info.st_ino;
    }
    out->measured = f.kind && strcmp(f.kind, "measured") == 0;
    out->simulated = f.kind && strcmp(f.kind, "simulated") == 0;
    out->path = f.path;
    read_machine(&f, out->measured, a, &out->machine);
    const char *noise = word_of(&f, "/summary", "profile_noise", a);
    out->profile_noise = *noise ? noise : NULL;
    for (int k = 0; k < VALIDATE_N_PART; k++) out->part_s[k] = NAN;
    for (int k = 0; k < VALIDATE_N_OP; k++) out->op_s[k] = NAN;
    if (st == ST_OK) st = read_rows(&f, a, out, e);
    if (st == ST_OK) {
        sort_rows(out, a);
        read_intervals(&f, a, out);
        if (!out->measured) simulated_parts(&f, a, out);
        measured_parts(&f, a, out);
        out->begin_ns = scalar(&f, "window_begin_ns");
        out->prefix_hit = scalar(&f, "prefix_hit");
        out->running_mean = scalar(&f, "running_mean");
        out->kv_peak = scalar(&f, "kv_peak");
        out->preempted = (int64_t)fmax(0, scalar(&f, "preemptions"));
        out->extrapolated = scalar(&f, "extrapolated") > 0;
        out->overloaded = scalar(&f, "overloaded") > 0;
        out->disturbed = scalar(&f, "noise_disturbed") > 0;
    }
    run_close(&f);
    return st;
}

/* ---- pairing */

/* What of a run's order is a turn that another run served too: written to `to`, if that is given.
 * Both are in order of (session, turn). */
static int64_t shared(const struct validate_run *r, const struct validate_run *with, int64_t *to)
{
    int64_t n = 0;
    for (int64_t i = 0, j = 0; i < r->n_order && j < with->n_order;) {
        int64_t x = r->order[i], y = with->order[j];
        double d = r->session[x] - with->session[y];
        if (d == 0) d = r->turn[x] - with->turn[y];
        if (d == 0 && to) to[n] = x;
        n += d == 0;
        i += d <= 0;
        j += d >= 0;
    }
    return n;
}

static bool all_sessions(const struct validate_run *r)
{
    int64_t n = 0;
    while (n < r->n_request && r->session[n] >= 0) n++;
    return n == r->n_request;
}

/* The requests of a load of sessions end with the first N that come due, and a turn comes due when
 * the one before has ended: runs of one load differ in their last few turns, which are left out. Runs
 * that differ in more than a tenth, or in how many they have, are of other loads: nothing is. */
static void meet(struct validate_case *c, struct arena *a)
{
    struct validate_run *p = &c->predicted;
    int64_t *common = arena_array(a, (size_t)p->n_request + 1, sizeof *common);
    struct validate_run all = *p; /* what every run served */
    for (int k = 0; k < c->n_measured; k++)
        if (c->measured[k].n_request != p->n_request || !all_sessions(&c->measured[k])) return;
    if (!all_sessions(p)) return;
    for (int k = 0; k < c->n_measured; k++) {
        all.n_order = shared(&all, &c->measured[k], common);
        all.order = common;
    }
    if (all.n_order * 10 < p->n_request * 9 || all.n_order == p->n_request) return;
    for (int k = -1; k < c->n_measured; k++) {
        struct validate_run *r = k < 0 ? p : &c->measured[k];
        r->n_order = shared(r, &all, r->order);
    }
}

static const char *differs(const struct validate_run *p, const struct validate_run *m,
                           struct arena *a)
{
    if (p->n_request != m->n_request)
        return arena_printf(a, "%lld requests predicted, %lld in %s", (long long)p->n_request,
                            (long long)m->n_request, m->path);
    for (int64_t i = 0; i < p->n_order; i++) {
        int64_t x = p->order[i], y = m->order[i];
        bool both = p->status[x] == RUN_OK && m->status[y] == RUN_OK;
        if (p->session[x] >= 0 && m->session[y] >= 0 && p->session[x] != m->session[y])
            return arena_printf(a,
                                "request %lld is of session %.0f predicted, of session %.0f in %s",
                                (long long)i, p->session[x], m->session[y], m->path);
        if (p->n_in[x] != m->n_in[y] || p->turn[x] != m->turn[y] ||
            (both && p->n_out[x] != m->n_out[y]))
            return arena_printf(
                a, "request %lld has %.0f + %.0f tokens predicted, %.0f + %.0f in %s", (long long)i,
                p->n_in[x], p->n_out[x], m->n_in[y], m->n_out[y], m->path);
    }
    return NULL;
}

/* Why a row does not count: a request of the warm-up, one that did not end well, or times that
 * contradict each other. */
enum drop { KEPT, WARM_UP, NOT_OK, NO_TOKEN, BEFORE_DUE, BACKWARDS, N_DROP };

static enum drop drop_of(const struct validate_run *r, int64_t row)
{
    if (r->t_due[row] < r->begin_ns) return WARM_UP;
    if (r->status[row] != RUN_OK) return NOT_OK;
    if (!(r->t_first[row] >= 0)) return NO_TOKEN;
    if (r->t_first[row] < r->t_due[row]) return BEFORE_DUE;
    return r->t_last[row] >= r->t_first[row] ? KEPT : BACKWARDS;
}

static bool counts(const struct validate_run *r, int64_t row)
{
    return drop_of(r, row) == KEPT;
}

/* "m.h5: 3 of 20 requests got their first token before they were due"; text without. all: why no
 * request is left, whatever the reason. */
static const char *say_dropped(const struct validate_run *r, bool all, const char *text,
                               struct arena *a)
{
    static const char *const says[N_DROP] = {
        [WARM_UP] = "were due in the warm-up",
        [NOT_OK] = "did not end well",
        [NO_TOKEN] = "ended well without a first token",
        [BEFORE_DUE] = "got their first token before they were due",
        [BACKWARDS] = "got their last token before their first",
    };
    int64_t n[N_DROP] = { 0 };
    for (int64_t i = 0; i < r->n_request; i++) n[drop_of(r, i)]++;
    if (r->n_order < r->n_request)
        text = arena_printf(a, "%s%s%s: %lld of %lld requests are turns that not every run served",
                            text, *text ? "; " : "", r->path,
                            (long long)(r->n_request - r->n_order), (long long)r->n_request);
    for (int k = all ? WARM_UP : NO_TOKEN; k < N_DROP; k++)
        if (n[k] > 0)
            text = arena_printf(a, "%s%s%s: %lld of %lld requests %s", text, *text ? "; " : "",
                                r->path, (long long)n[k], (long long)r->n_request, says[k]);
    return text;
}

/* What was left out of a case's requests that ought not to have been. */
static const char *left_out(const struct validate_case *c, struct arena *a)
{
    const char *text = "";
    bool none = false;
    for (int k = c->refused ? 0 : -1; k < c->n_measured; k++)
        none |= (k < 0 ? &c->predicted : &c->measured[k])->n_kept == 0;
    for (int k = c->refused ? 0 : -1; k < c->n_measured; k++)
        text = say_dropped(k < 0 ? &c->predicted : &c->measured[k], none, text, a);
    if (!none) return *text ? text : NULL;
    return arena_printf(a, "no request counts in every run%s%s", *text ? ": " : "", text);
}

static void keep(struct validate_run *r, const bool *kept, struct arena *a)
{
    double *in = arena_array(a, (size_t)r->n_request + 1, sizeof *in);
    double *out = arena_array(a, (size_t)r->n_request + 1, sizeof *out);
    for (int m = 0; m < METRIC_N; m++)
        r->x[m] = m == METRIC_ITL ? NULL : arena_array(a, (size_t)r->n_request + 1, sizeof **r->x);
    r->n_kept = 0;
    for (int64_t i = 0; i < r->n_order; i++) {
        int64_t row = r->order[i], n = r->n_kept;
        if (!kept[i]) continue;
        double gap = r->t_last[row] - r->t_first[row];
        r->x[METRIC_TTFT][n] = r->t_first[row] - r->t_due[row];
        r->x[METRIC_TPOT][n] = r->n_out[row] >= 2 ? gap / (r->n_out[row] - 1) : NAN;
        r->x[METRIC_E2E][n] = r->t_last[row] - r->t_due[row];
        in[n] = r->n_in[row];
        out[n] = r->n_out[row];
        r->n_kept++;
    }
    r->n_in = in;
    r->n_out = out;
}

/* Output tokens per second from the first due time to the last token. */
static double rate_of_rows(const struct validate_run *r)
{
    double tok = 0, from = INFINITY, to = -INFINITY;
    for (int64_t i = 0; i < r->n_request; i++) {
        if (r->status[i] != RUN_OK) continue;
        tok += r->n_out[i];
        from = fmin(from, r->t_due[i]);
        to = fmax(to, r->t_last[i]);
    }
    return to > from ? tok / (1e-9 * (to - from)) : NAN;
}

static void quantities(struct validate_run *r, struct arena *a)
{
    double *v = arena_array(a, (size_t)r->n_kept + 1, sizeof *v);
    bool has_rate = isfinite(r->ci[VALIDATE_THROUGHPUT].mid);
    r->q[VALIDATE_THROUGHPUT] = has_rate ? r->ci[VALIDATE_THROUGHPUT].mid : rate_of_rows(r);
    for (int m = 0; m < METRIC_N; m++) {
        size_t n = 0;
        for (int s = 0; s < VALIDATE_N_STAT; s++)
            r->q[validate_q((enum metric)m, (enum validate_stat)s)] = NAN;
        if (!r->x[m]) { /* gaps between tokens are in no table: what the run itself says */
            for (int s = 0; s < VALIDATE_N_STAT; s++) {
                int q = validate_q((enum metric)m, (enum validate_stat)s);
                r->q[q] = r->ci[q].mid;
            }
            continue;
        }
        for (int64_t i = 0; i < r->n_kept; i++)
            if (isfinite(r->x[m][i])) v[n++] = r->x[m][i];
        r->q[validate_q((enum metric)m, VALIDATE_MEAN)] = stat_mean(v, n);
        stat_sort(v, n);
        for (int s = VALIDATE_P50; s < VALIDATE_N_STAT; s++)
            r->q[validate_q((enum metric)m, (enum validate_stat)s)] =
                stat_quantile_sorted(v, n, levels[s]);
    }
}

int validate_disturbed(const struct validate_case *c)
{
    int n = 0;
    for (int k = 0; k < c->n_measured; k++) n += c->measured[k].disturbed;
    return n;
}

/* The rows of r that count, whatever other runs say of them. */
static bool *own_rows(const struct validate_run *r, struct arena *a)
{
    bool *kept = arena_array(a, (size_t)r->n_request + 1, sizeof *kept);
    for (int64_t i = 0; i < r->n_order; i++) kept[i] = counts(r, r->order[i]);
    return kept;
}

void validate_pair(struct validate_case *c, struct arena *a)
{
    struct validate_run *p = &c->predicted;
    bool *kept = NULL;
    if (!c->refused) meet(c, a);
    for (int i = 0; i < c->n_measured && !c->unlike && !c->refused; i++)
        c->unlike = differs(p, &c->measured[i], a);
    bool same = !c->unlike && !c->refused;
    if (same) {
        kept = arena_array(a, (size_t)p->n_request + 1, sizeof *kept);
        for (int64_t i = 0; i < p->n_order; i++) {
            kept[i] = counts(p, p->order[i]);
            for (int k = 0; k < c->n_measured; k++)
                kept[i] = kept[i] && counts(&c->measured[k], c->measured[k].order[i]);
        }
    }
    for (int k = c->refused ? 0 : -1; k < c->n_measured; k++) {
        struct validate_run *r = k < 0 ? p : &c->measured[k];
        keep(r, same ? kept : own_rows(r, a), a);
        quantities(r, a);
    }
    for (int k = 0; k < c->n_again; k++) {
        struct validate_run *r = &c->again[k];
        bool alike = same && r->n_order == p->n_order && !differs(p, r, a);
        keep(r, alike ? kept : own_rows(r, a), a); /* of other turns those that it served */
        quantities(r, a);
    }
    c->left_out = left_out(c, a);
}
