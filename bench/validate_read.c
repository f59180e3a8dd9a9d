/* bench/validate_read.c - run files as validate compares them: requests in one order, quantities,
 * intervals. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

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

/* Seconds per engine step, of the simulator's stages: busy time of the window over its steps. */
static void simulated_parts(struct run_file *f, struct arena *a, struct validate_run *r)
{
    static const int part_of[] = {
        0, 0, 1, 1, 2, 0
    }; /* GEMM attention collective p2p host other */
    double *busy, *share, *t0, *count, steps = 0, total = 0;
    size_t n_stage, n_share, n, m;
    double from = scalar(f, "window_begin_ns"), to = scalar(f, "window_end_ns");
    if (run_column(f, "summary/stage_busy", a, &busy, &n_stage, NULL) != ST_OK ||
        run_column(f, "summary/time_share", a, &share, &n_share, NULL) != ST_OK ||
        n_share != sizeof part_of / sizeof *part_of ||
        run_column(f, "steps/t0", a, &t0, &n, NULL) != ST_OK ||
        run_column(f, "steps/n_step", a, &count, &m, NULL) != ST_OK || n != m)
        return;
    for (size_t i = 0; i < n; i++)
        if (t0[i] >= from && t0[i] < to) steps += count[i];
    for (size_t i = 0; i < n_stage; i++) total += busy[i] * (to - from) * 1e-9;
    if (!(steps > 0) || !isfinite(total)) return;
    for (int k = 0; k < VALIDATE_N_PART; k++) r->part_s[k] = 0;
    for (size_t i = 0; i < n_share; i++) r->part_s[part_of[i]] += share[i] * total / steps;
}

/* The same of the monitor's rows: mean of each rank, mean over the ranks of a stage, sum over
 * stages. Time spent waiting for other ranks belongs to the communication. */
static void measured_parts(struct run_file *f, struct arena *a, struct validate_run *r)
{
    static const char *const name[] = { "monitor/rank", "monitor/compute", "monitor/comm",
                                        "monitor/host" };
    double *col[4], rows = 0, tp = scalar(f, "tp"), pp = scalar(f, "pp");
    size_t n = 0, m;
    for (int i = 0; i < 4; i++) {
        if (run_column(f, name[i], a, &col[i], &m, NULL) != ST_OK || (i && m != n)) return;
        n = m;
    }
    if (!(tp >= 1 && pp >= 1)) return;
    for (size_t i = 0; i < n; i++) rows += col[0][i] == 0;
    if (rows == 0) return;
    for (int k = 0; k < VALIDATE_N_PART; k++) {
        r->part_s[k] = 0;
        for (size_t i = 0; i < n; i++) r->part_s[k] += col[k + 1][i] * 1e-9;
        r->part_s[k] /= rows * (k == 2 ? 1 : tp);
    }
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
}

int validate_read(const char *path, struct arena *a, struct validate_run *out, struct err *e)
{
    struct run_file f;
    memset(out, 0, sizeof *out);
    int st = run_open(path, a, &f, e);
    if (st != ST_OK) return st;
    char *created = NULL;
    if (h5_has(f.h5, "/provenance"))
        h5_read_attr_text(f.h5, "/provenance", "created_utc", a, &created, NULL);
    out->created = created ? created : "";
    out->measured = f.kind && strcmp(f.kind, "measured") == 0;
    out->simulated = f.kind && strcmp(f.kind, "simulated") == 0;
    out->path = f.path;
    for (int k = 0; k < VALIDATE_N_PART; k++) out->part_s[k] = NAN;
    st = read_rows(&f, a, out, e);
    if (st == ST_OK) {
        sort_rows(out, a);
        read_intervals(&f, a, out);
        simulated_parts(&f, a, out);
        measured_parts(&f, a, out);
        out->begin_ns = scalar(&f, "window_begin_ns");
        out->prefix_hit = scalar(&f, "prefix_hit");
        out->running_mean = scalar(&f, "running_mean");
        out->kv_peak = scalar(&f, "kv_peak");
        out->preempted = (int64_t)fmax(0, scalar(&f, "preemptions"));
        out->extrapolated = scalar(&f, "extrapolated") > 0;
        out->overloaded = scalar(&f, "overloaded") > 0;
    }
    run_close(&f);
    return st;
}

/* ---- pairing */

static const char *differs(const struct validate_run *p, const struct validate_run *m,
                           struct arena *a)
{
    if (p->n_request != m->n_request)
        return arena_printf(a, "%lld requests predicted, %lld in %s", (long long)p->n_request,
                            (long long)m->n_request, m->path);
    for (int64_t i = 0; i < p->n_request; i++) {
        int64_t x = p->order[i], y = m->order[i];
        bool both = p->status[x] == RUN_OK && m->status[y] == RUN_OK;
        if (p->n_in[x] != m->n_in[y] || p->turn[x] != m->turn[y] ||
            (both && p->n_out[x] != m->n_out[y]))
            return arena_printf(
                a, "request %lld has %.0f + %.0f tokens predicted, %.0f + %.0f in %s", (long long)i,
                p->n_in[x], p->n_out[x], m->n_in[y], m->n_out[y], m->path);
    }
    return NULL;
}

/* Whether row i of the common order counts: due after the warm-up, ended well. */
static bool counts(const struct validate_run *r, int64_t row)
{
    return r->status[row] == RUN_OK && r->t_first[row] >= 0 && r->t_last[row] >= r->t_first[row] &&
           !(r->t_due[row] < r->begin_ns);
}

static void keep(struct validate_run *r, const bool *kept, struct arena *a)
{
    double *in = arena_array(a, (size_t)r->n_request + 1, sizeof *in);
    double *out = arena_array(a, (size_t)r->n_request + 1, sizeof *out);
    for (int m = 0; m < METRIC_N; m++)
        r->x[m] = m == METRIC_ITL ? NULL : arena_array(a, (size_t)r->n_request + 1, sizeof **r->x);
    r->n_kept = 0;
    for (int64_t i = 0; i < r->n_request; i++) {
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

void validate_pair(struct validate_case *c, struct arena *a)
{
    struct validate_run *p = &c->predicted;
    bool *kept = NULL;
    for (int i = 0; i < c->n_measured && !c->unlike && !c->refused; i++)
        c->unlike = differs(p, &c->measured[i], a);
    bool same = !c->unlike && !c->refused;
    if (same) {
        kept = arena_array(a, (size_t)p->n_request + 1, sizeof *kept);
        for (int64_t i = 0; i < p->n_request; i++) {
            kept[i] = counts(p, p->order[i]);
            for (int k = 0; k < c->n_measured; k++)
                kept[i] = kept[i] && counts(&c->measured[k], c->measured[k].order[i]);
        }
    }
    for (int k = c->refused ? 0 : -1; k < c->n_measured; k++) {
        struct validate_run *r = k < 0 ? p : &c->measured[k];
        if (!same) {
            kept = arena_array(a, (size_t)r->n_request + 1, sizeof *kept);
            for (int64_t i = 0; i < r->n_request; i++) kept[i] = counts(r, r->order[i]);
        }
        keep(r, kept, a);
        quantities(r, a);
    }
}
