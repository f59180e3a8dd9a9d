/* traces/import_store.c - imported requests as a run file, microbenchmarks as a points file.
 *
 * The run file holds what the other tool saw, with instants from run start; /summary is by our
 * definitions. One run has no interval: the run is the unit of replication.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "traces/import_out.h"

struct gap_row {
    int64_t request, gap_ns;
};
#define AT(member) offsetof(struct gap_row, member)
static const struct h5col gap_cols[] = {
    { "request", H5COL_I64, AT(request), "1", "row of /requests", NULL },
    { "gap", H5COL_I64, AT(gap_ns), "ns", "time since the chunk before", NULL },
    { .type = H5COL_END },
};
#undef AT

static int put_requests(run *o, const struct import_run *r, struct err *e)
{
    h5table *t = NULL;
    int st = ST_OK;
    for (int64_t i = 0; i < r->n_request && st == ST_OK; i++)
        st = run_put_request(o, &r->request[i].row, e);
    for (int64_t i = 0; i < r->n_request && st == ST_OK; i++) {
        const struct import_request *q = &r->request[i];
        for (int32_t k = 0; k < q->n_gap && st == ST_OK; k++) {
            struct gap_row row = { i, r->gap_ns[q->gap_at + k] };
            if (!t)
                t = h5_table(run_h5(o), "/tokens", "token", gap_cols,
                             "gaps between chunks, in order of requests", e);
            st = t ? h5_table_put(t, &row, 1, sizeof row, e) : ST_IO;
        }
    }
    return st;
}

static int put_one(run *o, const char *name, double v, const char *units, struct err *e)
{
    struct ci c = { NAN, v, NAN };
    return run_put_summary(o, name, &c, 1, "mean", units, "one run: no interval", e);
}

static int put_summary(run *o, const struct figures *g, const struct figures_slo *slo,
                       struct err *e)
{
    /* From when a latency counts; NULL: from an event of the request itself. */
    static const char *const clock[FIGURES_N_LATENCY] = {
        [FIGURES_TTFT] = "due",      [FIGURES_TTFT_SEND] = "send", [FIGURES_E2E] = "due",
        [FIGURES_E2E_SEND] = "send", [FIGURES_NORM_LAT] = "due",
    };
    char path[64];
    double due = (double)g->n_due;
    bool any = slo->ttft_ns || slo->tpot_ns || slo->e2e_ns;
    int st = ST_OK;
    for (int k = 0; k < FIGURES_N_LATENCY && st == ST_OK; k++) {
        const struct figures_stat *s = &g->latency[k];
        const struct ci c[4] = {
            { NAN, s->mean, NAN }, { NAN, s->p50, NAN }, { NAN, s->p90, NAN }, { NAN, s->p99, NAN }
        };
        const char *name = figures_latency_name(k);
        if (s->n == 0) continue;
        st = run_put_summary(o, name, c, 4, "mean p50 p90 p99", "ns", "one run: no interval", e);
        if (snprintf(path, sizeof path, "/summary/%s", name) > 0 && st == ST_OK)
            st = h5_attr_i64(run_h5(o), path, "n", s->n, e);
        if (st == ST_OK && clock[k]) st = h5_attr_text(run_h5(o), path, "clock", clock[k], e);
    }
    if (st == ST_OK && isfinite(g->requests_per_s))
        st = put_one(o, "requests_per_s", g->requests_per_s, "request s-1", e);
    if (st == ST_OK && isfinite(g->output_tok_per_s))
        st = put_one(o, "output_per_s", g->output_tok_per_s, "token s-1", e);
    if (st == ST_OK && any && isfinite(g->goodput_per_s))
        st = put_one(o, "goodput_per_s", g->goodput_per_s, "request s-1", e);
    const struct {
        const char *name;
        int64_t met;
    } share[] = { { "attainment", g->met },
                  { "attainment_ttft", g->met_ttft },
                  { "attainment_tpot", g->met_tpot },
                  { "attainment_e2e", g->met_e2e } };
    for (size_t i = 0; i < 4 && st == ST_OK && any; i++)
        st = put_one(o, share[i].name, (double)share[i].met / due, "1", e);
    return st;
}

static int put_scalars(run *o, const struct import_file *f, const struct import_run *r,
                       const struct figures *g, const struct figures_slo *slo, struct err *e)
{
    h5 *h = run_h5(o);
    const struct {
        const char *name, *text;
    } text[] = { { "scenario", *r->model ? r->model : f->tool_name },
                 { "title", r->title },
                 { "workload", r->title },
                 { "due_clock", import_due_text(r->due) } };
    const struct {
        const char *name;
        int64_t v;
    } whole[] = { { "due", g->n_due },
                  { "finished", g->n_ok },
                  { "failed", g->n_failed + g->n_unfinished },
                  { "unfinished", g->n_unfinished },
                  { "rejected", 0 },
                  { "seeds", 1 },
                  { "draws", 0 },
                  { "slo_ttft_ns", slo->ttft_ns },
                  { "slo_tpot_ns", slo->tpot_ns },
                  { "slo_e2e_ns", slo->e2e_ns },
                  { "one_token", g->n_vacuous },
                  { "client_limited", g->client_limited },
                  { "window_begin_ns", 0 },
                  { "window_end_ns", isfinite(g->window_s) && g->window_s < 9e9
                                         ? (int64_t)(1e9 * g->window_s)
                                         : 0 } };
    int st = ST_OK;
    for (size_t i = 0; i < sizeof text / sizeof *text && st == ST_OK; i++)
        st = h5_attr_text(h, "/summary", text[i].name, text[i].text, e);
    for (size_t i = 0; i < sizeof whole / sizeof *whole && st == ST_OK; i++)
        st = h5_attr_i64(h, "/summary", whole[i].name, whole[i].v, e);
    if (st == ST_OK) st = h5_attr_f64(h, "/summary", "slo_attainment", slo->attain_ratio, e);
    return st;
}

/* In one text, so that who reads the file knows of it. */
static const char *doubts(const struct import_doubts *d, struct arena *a)
{
    const char *text = d->n ? d->text[0] : "none";
    for (int i = 1; i < d->n; i++) text = arena_printf(a, "%s; %s", text, d->text[i]);
    return text;
}

static const char *stem(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

int import_store_run(const char *path, const struct import_file *f, const struct import_run *r,
                     const struct figures *g, const struct figures_slo *slo, const struct prov *v,
                     struct err *e)
{
    run *o = run_create(path, e);
    if (!o) return e->status;
    h5 *h = run_h5(o);
    struct arena a;
    arena_init(&a);
    const struct {
        const char *name, *text;
    } from[] = { { "kind", "measured" },
                 { "source_tool", f->tool_name },
                 { "source_version", f->version },
                 { "source_file", stem(f->path) },
                 { "source_sha256", f->sha256 },
                 { "model", r->model },
                 { "source_date", r->date },
                 { "due_clock", import_due_text(r->due) },
                 { "source_doubts", doubts(&r->doubts, &a) },
                 { "absent_columns",
                   r->has_cached ? "preempted replica" : "cached_in preempted replica" } };
    int st = prov_write(v, h, "orrery-run", "1.0.0", stem(f->path), e);
    for (size_t i = 0; i < sizeof from / sizeof *from && st == ST_OK; i++)
        st = h5_attr_text(h, "/provenance", from[i].name, from[i].text, e);
    arena_release(&a);
    if (st == ST_OK) st = put_requests(o, r, e);
    if (st == ST_OK) st = put_summary(o, g, slo, e);
    if (st == ST_OK) st = put_scalars(o, f, r, g, slo, e);
    if (st == ST_OK) return run_commit(o, e);
    run_abort(o);
    return st;
}

/* ---- points */

static int put_point(points *o, const struct import_point *p, struct err *e)
{
    int at = points_add(o, &p->row, e), st = at < 0 ? e->status : ST_OK;
    for (int64_t i = 0; i < p->n_sample && st == ST_OK; i++) {
        /* Repetitions within one process are calls of one run: run 0. When is not in the file. */
        struct points_sample s = { .point = at, .calls = p->calls, .s_per_call = p->s_per_call[i] };
        st = points_put(o, &s, e);
    }
    return st;
}

int import_store_points(const char *path, const struct import_file *f, const struct prov *v,
                        struct err *e)
{
    if (f->mixed)
        return err_set(e, ST_USAGE,
                       "%s: rows differ in %s, which a points file does not hold; import them one "
                       "setting at a time",
                       f->path, f->mixed);
    points *o = points_create(path, f->title, e);
    if (!o) return e->status;
    struct arena a;
    arena_init(&a);
    const struct {
        const char *name, *text;
    } note[] = { { "kind", "imported" },
                 { "source_tool", f->tool_name },
                 { "source_version", f->version },
                 { "source_file", stem(f->path) },
                 { "source_sha256", f->sha256 },
                 { "source_machine", f->machine },
                 { "model", f->model },
                 { "source_date", f->date ? f->date : "" },
                 { "source_doubts", doubts(&f->doubts, &a) },
                 { "clock", f->cpu_time ? "cpu" : "elapsed" } };
    int st = ST_OK;
    for (size_t i = 0; i < sizeof note / sizeof *note && st == ST_OK; i++)
        st = points_note(o, note[i].name, note[i].text, e);
    arena_release(&a);
    for (int i = 0; i < f->n_point && st == ST_OK; i++) st = put_point(o, &f->point[i], e);
    if (st == ST_OK) return points_commit(o, v, e);
    points_abort(o);
    return st;
}
