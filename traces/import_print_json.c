/* traces/import_print_json.c - imported results as JSON; latencies in ms, infinity as "inf".
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "traces/import_out.h"

static void put_number(json_t *j, const char *path, double v)
{
    if (isinf(v))
        json_put_text(j, path, v > 0 ? "inf" : "-inf");
    else
        json_put_f64(j, path, v);
}

/* Counts as whole numbers. */
static void put_count(json_t *j, const char *path, double v, const char *unit)
{
    bool counts =
        strcmp(unit, "gap") == 0 || strcmp(unit, "request") == 0 || strcmp(unit, "token") == 0;
    if (counts && fabs(v) < 1e15)
        json_put_i64(j, path, (int64_t)v);
    else
        json_put_f64(j, path, v);
}

static void put_text(json_t *j, const char *path, const char *text)
{
    json_put_text(j, path, *text ? text : NULL);
}

json_t *import_json_doubts(const struct import_doubts *d)
{
    json_t *list = json_array();
    for (int i = 0; i < d->n; i++) {
        json_t *one = json_object(); /* which takes care of text that is no UTF-8 */
        json_put_text(one, "text", d->text[i]);
        json_array_append(list, json_object_get(one, "text"));
        json_decref(one);
    }
    return list;
}

static json_t *stat_json(const struct figures_stat *s)
{
    json_t *j = json_object();
    json_put_f64(j, "mean", s->mean / 1e6);
    json_put_f64(j, "p50", s->p50 / 1e6);
    json_put_f64(j, "p90", s->p90 / 1e6);
    json_put_f64(j, "p99", s->p99 / 1e6);
    json_put_f64(j, "max", s->max / 1e6);
    json_put_i64(j, "n", s->n);
    return j;
}

static json_t *ours_json(const struct figures *g, const struct figures_slo *slo)
{
    char path[64];
    json_t *j = json_object();
    for (int k = 0; k < FIGURES_N_LATENCY; k++) {
        snprintf(path, sizeof path, "%s_ms", figures_latency_name(k));
        json_put(j, path, stat_json(&g->latency[k]));
    }
    put_number(j, "ttft_failed_inf_ms.p50", g->ttft_p50_failed / 1e6);
    put_number(j, "ttft_failed_inf_ms.p99", g->ttft_p99_failed / 1e6);
    json_put_f64(j, "window_s", g->window_s);
    json_put_f64(j, "requests_per_s", g->requests_per_s);
    json_put_f64(j, "output_tok_per_s", g->output_tok_per_s);
    json_put_bool(j, "client_limited", g->client_limited);
    if (!(slo->ttft_ns || slo->tpot_ns || slo->e2e_ns)) return j;
    json_put_i64(j, "slo.ttft_ns", slo->ttft_ns);
    json_put_i64(j, "slo.tpot_ns", slo->tpot_ns);
    json_put_i64(j, "slo.e2e_ns", slo->e2e_ns);
    json_put_f64(j, "slo.asked_ratio", slo->attain_ratio);
    json_put_text(
        j, "slo.verdict",
        points_word(FIGURES_VERDICT_WORDS, (int)figures_judge(g, slo), path, sizeof path));
    json_put_i64(j, "slo.due", g->n_due);
    json_put_i64(j, "slo.met", g->met);
    json_put_i64(j, "slo.met_from_sending", g->met_send);
    json_put_i64(j, "slo.met_ttft", g->met_ttft);
    json_put_i64(j, "slo.met_tpot", g->met_tpot);
    json_put_i64(j, "slo.met_e2e", g->met_e2e);
    json_put_i64(j, "slo.met_tpot_by_one_token", g->n_vacuous);
    json_put_f64(j, "slo.goodput_per_s", g->goodput_per_s);
    return j;
}

static json_t *fluidity_json(const struct import_run *r, const struct figures *g)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < r->n_request; i++) {
        const struct figures_fluid *f = &g->fluid[i];
        json_t *j = json_object();
        json_put_i64(j, "request", i);
        json_put_f64(j, "index", f->total ? 1 - (double)f->missed / (double)f->total : NAN);
        json_put_i64(j, "missed", f->missed);
        json_put_i64(j, "total", f->total);
        json_array_append_new(list, j);
    }
    return list;
}

json_t *import_json_run(const struct import_run *r, const struct figures *g,
                        const struct figures_slo *slo)
{
    char path[128];
    json_t *j = json_object(), *stated = json_array(), *notes = json_array();
    put_text(j, "model", r->model);
    put_text(j, "title", r->title);
    put_text(j, "date", r->date);
    json_put_bool(j, "per_request", r->n_request > 0);
    if (r->n_request > 0) {
        json_put_text(j, "due_clock", import_due_text(r->due));
        json_put_i64(j, "requests.due", g->n_due);
        json_put_i64(j, "requests.ok", g->n_ok);
        json_put_i64(j, "requests.failed", g->n_failed);
        json_put_i64(j, "requests.unfinished", g->n_unfinished);
        json_put(j, "ours", ours_json(g, slo));
        for (int i = 0; i < g->n_row; i++) {
            snprintf(path, sizeof path, "conventions.%s.%s", g->row[i].tool, g->row[i].key);
            put_count(j, path, g->row[i].value, g->row[i].unit);
        }
        if (g->fluid) json_put(j, "conventions.etalon.requests", fluidity_json(r, g));
    }
    for (int i = 0; i < r->n_figure; i++) {
        const struct import_figure *q = &r->figure[i];
        json_t *s = json_object();
        json_put_text(s, "name", q->name);
        put_number(s, "value", q->value);
        json_put_text(s, "unit", q->unit);
        put_text(s, "means", q->means);
        if (isfinite(q->lo)) json_put_f64(s, "lower", q->lo);
        if (isfinite(q->hi)) json_put_f64(s, "upper", q->hi);
        json_array_append_new(stated, s);
    }
    json_put(j, "stated", stated);
    for (int i = 0; i < r->n_note; i++) {
        json_t *one = json_object();
        json_put_text(one, "text", r->note[i]);
        json_array_append(notes, json_object_get(one, "text"));
        json_decref(one);
    }
    json_put(j, "notes", notes);
    json_put(j, "doubts", import_json_doubts(&r->doubts));
    return j;
}

json_t *import_json_points(const struct import_file *f)
{
    json_t *list = json_array();
    char word[64];
    for (int i = 0; i < f->n_point; i++) {
        const struct import_point *p = &f->point[i];
        double t = import_point_mean_s(p);
        json_t *j = json_object();
        json_put_text(j, "op", points_word(POINTS_OP_WORDS, p->row.op, word, sizeof word));
        json_put_text(j, "dtype", points_word(POINTS_DTYPE_WORDS, p->row.dtype, word, sizeof word));
        json_put_i64(j, "samples", p->n_sample);
        json_put_i64(j, "calls", p->calls);
        json_put_f64(j, "time_s", t);
        if (f->tool == IMPORT_NCCL_TESTS) {
            double bw = p->row.bytes / t;
            json_put_bool(j, "in_place", p->row.part == POINTS_IN_PLACE);
            json_put_i64(j, "ranks", p->row.ranks);
            json_put_f64(j, "bytes", p->row.bytes);
            json_put_f64(j, "algbw_bytes_per_s", bw);
            json_put_f64(j, "busbw_bytes_per_s",
                         bw * import_bus_factor((enum points_op)p->row.op, p->row.ranks));
            json_put_f64(j, "stated_algbw_bytes_per_s", p->stated_algbw);
            json_put_f64(j, "stated_busbw_bytes_per_s", p->stated_busbw);
            json_put_f64(j, "wrong", p->wrong);
        } else {
            json_put_i64(j, "prompt_tok", p->row.m);
            json_put_i64(j, "output_tok", p->row.n);
            json_put_i64(j, "depth_tok", p->row.ctx);
            json_put_i64(j, "threads", p->row.threads);
            json_put_f64(j, "tok_per_s", (double)(p->row.m + p->row.n) / t);
            json_put_f64(j, "stated_avg_ts", p->stated_tok_per_s);
        }
        json_array_append_new(list, j);
    }
    return list;
}

json_t *import_json_file(const struct import_file *f)
{
    json_t *j = json_object();
    json_put_text(j, "schema_version", "1.0.0");
    json_put_text(j, "file", f->path);
    json_put_text(j, "sha256", f->sha256);
    json_put_text(j, "tool", f->tool_name);
    put_text(j, "tool_version", f->version);
    return j;
}
