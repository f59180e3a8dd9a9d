/* plots/source.c - see source.h. SPDX-License-Identifier: Apache-2.0 */
#include "plots/source.h"

#include <math.h>
#include <string.h>

#include "base/doc.h"

const char *const source_metric_name[SOURCE_N_METRIC] = { "ttft", "tpot", "e2e", "itl" };
const char *const source_metric_label[SOURCE_N_METRIC] = { "TTFT", "TPOT", "E2E", "ITL" };

const char *source_text(struct source *s, const char *object, const char *name)
{
    char *text = NULL;
    if (!h5_has(s->file.h5, object) ||
        h5_read_attr_text(s->file.h5, object, name, s->arena, &text, NULL) != ST_OK)
        return "";
    return text;
}

static int64_t whole(struct source *s, const char *object, const char *name)
{
    int64_t v = 0;
    if (!h5_has(s->file.h5, object) ||
        h5_read_attr_i64(s->file.h5, object, name, &v, NULL) != ST_OK)
        return 0;
    return v;
}

static double number(struct source *s, const char *object, const char *name)
{
    double v = NAN;
    if (!h5_has(s->file.h5, object) ||
        h5_read_attr_f64(s->file.h5, object, name, &v, NULL) != ST_OK)
        return NAN;
    return v;
}

double source_number(struct source *s, const char *name)
{
    int64_t v;
    double x = number(s, "/summary", name);
    if (isnan(x) && h5_has(s->file.h5, "/summary") &&
        h5_read_attr_i64(s->file.h5, "/summary", name, &v, NULL) == ST_OK)
        x = (double)v;
    return x;
}

static const char *stem(const char *path, struct arena *a)
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    size_t n = strlen(base);
    if (n > 3 && strcmp(base + n - 3, ".h5") == 0) n -= 3;
    return arena_copy_text(a, base, n);
}

static void read_summary(struct source *s)
{
    const char *g = "/summary";
    const struct {
        const char *name;
        int64_t *at;
    } counts[] = {
        { "due", &s->due },
        { "finished", &s->finished },
        { "failed", &s->failed },
        { "rejected", &s->rejected },
        { "seeds", &s->seeds },
        { "draws", &s->draws },
        { "preemptions", &s->preemptions },
        { "tp", &s->tp },
        { "pp", &s->pp },
        { "dp", &s->dp },
        { "gpus", &s->gpus },
        { "kv_blocks", &s->kv_blocks },
        { "block_tok", &s->block_tok },
        { "window_begin_ns", &s->window_begin_ns },
        { "window_end_ns", &s->window_end_ns },
    };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        *counts[i].at = whole(s, g, counts[i].name);
    s->extrapolated = whole(s, g, "extrapolated") != 0;
    s->overloaded = whole(s, g, "overloaded") != 0;
    s->level_ratio = number(s, g, "interval_level");
    s->kv_mean_ratio = number(s, g, "kv_mean");
}

/* sweep: {KEY: [V1, V2]} of the effective scenario. */
static void read_sweep_texts(struct source *s)
{
    const char *yaml = s->file.scenario_yaml;
    struct doc *root;
    if (!s->has_sweep || !yaml ||
        doc_parse_yaml(s->arena, "scenario", yaml, strlen(yaml), &root, NULL) != ST_OK)
        return;
    const struct doc *list = doc_get(doc_get(root, "sweep"), s->sweep_key);
    if (!list || list->kind != DOC_LIST) return;
    s->sweep_text = arena_array(s->arena, (size_t)list->n + 1, sizeof *s->sweep_text);
    for (const struct doc *d = list->first; d && s->n_sweep_text < list->n; d = d->next)
        s->sweep_text[s->n_sweep_text++] = d->kind == DOC_SCALAR ? d->text : "-";
}

const char *source_sweep_label(const struct source *s, size_t i, double value)
{
    if (i < (size_t)s->n_sweep_text) return s->sweep_text[i];
    return arena_printf(s->arena, "%.6g", value);
}

int source_open(const char *path, struct arena *a, struct source *out, struct err *e)
{
    static const char *const slo[SOURCE_N_CLAUSE] = { "slo_ttft_ns", "slo_tpot_ns", "slo_e2e_ns" };
    *out = (struct source){ .arena = a };
    int st = run_open(path, a, &out->file, e);
    if (st != ST_OK) return st;
    h5 *f = out->file.h5;
    out->name = stem(path, a);
    out->has_requests = h5_has(f, "/requests/request");
    out->has_series = h5_has(f, "/series/bin");
    out->has_stages = h5_has(f, "/stages/span");
    out->has_sweep = h5_has(f, "/sweep/point");
    out->has_summary = h5_has(f, "/summary");
    out->measured = out->file.kind && strcmp(out->file.kind, "measured") == 0;
    out->title = out->file.title ? out->file.title : "";
    out->scenario = source_text(out, "/summary", "scenario");
    out->workload = source_text(out, "/summary", "workload");
    out->ended_early = out->file.ended_early;
    if (out->ended_early) /* under every figure, beside every table */
        out->workload = arena_printf(a, "ENDED EARLY, finished requests only; %s", out->workload);
    out->bottleneck = source_text(out, "/summary", "bottleneck");
    out->coverage = source_text(out, "/summary", "coverage");
    out->profile_noise = source_text(out, "/summary", "profile_noise");
    out->digest = source_text(out, "/summary", "digest");
    const char *device = source_text(out, out->has_sweep ? "/sweep" : "/summary", "device");
    out->device = out->measured || strcmp(device, "rank") == 0 ? "rank" : "GPU";
    out->sweep_key = source_text(out, "/sweep", "key");
    read_summary(out);
    if (out->ended_early && !out->has_series)
        out->kv_mean_ratio = NAN; /* a journal has no levels */
    read_sweep_texts(out);
    const char *g = out->has_summary ? "/summary" : "/sweep";
    for (int k = 0; k < SOURCE_N_CLAUSE; k++) out->slo_ns[k] = whole(out, g, slo[k]);
    out->slo_attain_ratio = number(out, g, "slo_attainment");
    return ST_OK;
}

void source_close(struct source *s)
{
    run_close(&s->file);
}

void source_tell_apart(struct source *s, int n)
{
    for (int i = n - 1; i > 0; i--) {
        int count = 1;
        for (int k = 0; k < i; k++) count += strcmp(s[k].name, s[i].name) == 0;
        if (count > 1) s[i].name = arena_printf(s[i].arena, "%s-%d", s[i].name, count);
    }
}

bool source_has_slo(const struct source *s)
{
    return s->slo_ns[SOURCE_TTFT] > 0 || s->slo_ns[SOURCE_TPOT] > 0 || s->slo_ns[SOURCE_E2E] > 0;
}

struct ci source_scalar(struct source *s, const char *name)
{
    struct ci *c;
    int n = 0;
    if (run_read_summary(&s->file, name, s->arena, &c, &n, NULL) == ST_OK && n > 0) return c[0];
    return (struct ci){ NAN, NAN, NAN };
}

void source_latency(struct source *s, enum source_metric m, struct ci out[SOURCE_N_STAT])
{
    struct ci *c = NULL;
    int n = 0;
    if (run_read_summary(&s->file, source_metric_name[m], s->arena, &c, &n, NULL) != ST_OK) n = 0;
    for (int i = 0; i < SOURCE_N_STAT; i++) out[i] = i < n ? c[i] : (struct ci){ NAN, NAN, NAN };
}

int source_columns(struct source *s, const char *table, const char *const *col, int n_col,
                   double **out, size_t *n_row, struct err *e)
{
    *n_row = 0;
    for (int i = 0; i < n_col; i++) {
        size_t n;
        const char *path = arena_printf(s->arena, "%s/%s", table, col[i]);
        int st = run_column(&s->file, path, s->arena, &out[i], &n, e);
        if (st != ST_OK) return st;
        if (i == 0 || n < *n_row) *n_row = n;
    }
    return ST_OK;
}

size_t source_array(struct source *s, const char *name, double **out)
{
    size_t n = 0;
    const char *path = arena_printf(s->arena, "summary/%s", name);
    if (run_column(&s->file, path, s->arena, out, &n, NULL) != ST_OK) return 0;
    return n;
}

bool source_point_held(const struct source *s, double attain_ratio)
{
    return attain_ratio >= s->slo_attain_ratio;
}
