/* traces/import_aiperf.c - AIPerf's records, export and aggregate, and genai-perf's export.
 *
 * The unit beside a metric is authoritative. Records hold epoch ns (integers) and durations; the
 * time a credit was issued is the nearest thing to a due time, absent in older files.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "traces/import_priv.h"

/* ---- exports */

static const struct {
    const char *tag, *means;
} known[] = {
    { "time_to_first_token", "first chunk with content - sent" },
    { "time_to_second_token", "second chunk - first" },
    { "inter_token_latency", "(last - first) / (tokens - 1), mean over requests" },
    { "inter_chunk_latency", "gap between chunks, all requests pooled" },
    { "request_latency", "last chunk with content - sent" },
    { "output_sequence_length", "tokens of an output" },
    { "input_sequence_length", "tokens of a prompt" },
    { "output_token_throughput_per_user", "1 / inter_token_latency, by request" },
    { "output_token_throughput", "output tokens, first sent to last response" },
    { "request_throughput", "requests, first sent to last response" },
    { "goodput", "requests within every limit, first sent to last response" },
    { "benchmark_duration", "first sent to last response" },
    { "request_count", "requests that ended well" },
    { "error_request_count", "requests that failed" },
    { "good_request_count", "requests within every limit; one of one token fails an ITL limit" },
};

static const char *means_of(const char *tag)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(tag, known[i].tag) == 0) return known[i].means;
    return "";
}

static const char *copy(struct import_in *in, const char *text)
{
    return arena_copy_text(in->a, text, strlen(text));
}

int import_aiperf_export(struct import_in *in)
{
    static const char *const stat[] = { "avg", "p50", "p90", "p99" };
    const json_t *j = in->value[0];
    const char *key;
    json_t *block;
    double v;
    if (in->n_value != 1)
        return err_set(in->e, ST_USAGE, "%s: more than one object in an export", in->path);
    struct import_run *r = import_add_runs(in, 1);
    import_room(in, r, 4 * json_object_size(j));
    in->out->version = copy(in, import_text(j, "aiperf_version", ""));
    const json_t *names = import_at(j, "input_config.endpoint.model_names");
    if (!names) names = import_at(j, "input_config.model_names");
    const char *model = json_string_value(json_array_get(names, 0));
    r->model = copy(in, model ? model : "");
    r->date = import_date(import_text(j, "start_time", ""), in->a);
    json_object_foreach((json_t *)(uintptr_t)j, key, block)
    {
        const char *unit = import_text(block, "unit", NULL);
        for (int k = 0; unit && k < 4; k++)
            if (import_number(import_at(block, stat[k]), &v))
                import_figure(r, arena_printf(in->a, "%s %s", key, stat[k]), v, copy(in, unit),
                              means_of(key));
    }
    if (r->n_figure == 0)
        return err_set(in->e, ST_USAGE, "%s: no metric with a unit in it", in->path);
    if (json_is_true(import_at(j, "was_cancelled"))) import_note(r, "The benchmark was cancelled.");
    return ST_OK;
}

int import_aiperf_aggregate(struct import_in *in)
{
    const json_t *metrics = import_at(in->value[0], "metrics");
    const char *key;
    json_t *m;
    double v;
    struct import_run *r = import_add_runs(in, 1);
    import_room(in, r, json_object_size(metrics));
    json_object_foreach((json_t *)(uintptr_t)metrics, key, m)
    {
        int at = r->n_figure;
        if (!import_number(import_at(m, "mean"), &v)) continue;
        import_figure(r, copy(in, key), v, copy(in, import_text(m, "unit", "")),
                      "mean over runs of one seed");
        if (r->n_figure == at) continue;
        import_number(import_at(m, "ci_low"), &r->figure[at].lo);
        import_number(import_at(m, "ci_high"), &r->figure[at].hi);
    }
    if (r->n_figure == 0) return err_set(in->e, ST_USAGE, "%s: metrics is empty", in->path);
    if (import_number(import_at(in->value[0], "metadata.num_successful_runs"), &v))
        r->title = arena_printf(in->a, "%.0f runs", v);
    import_note(r,
                "The intervals are over runs of one seed: they hold the noise of the system, not "
                "that of the workload.");
    return ST_OK;
}

/* ---- records */

/* An instant in epoch ns; *out -1 where absent. */
static int instant(struct import_in *in, const json_t *j, const char *key, int64_t i, int64_t *out)
{
    const json_t *v = import_at(j, key);
    *out = -1;
    if (!v || (import_ns(v, 1, out) && *out >= 0)) return ST_OK;
    return err_set(in->e, ST_USAGE, "%s: record %lld: %s is no time in ns", in->path, (long long)i,
                   key);
}

/* A duration of {value, unit}; *out -1 where absent. */
static int duration(struct import_in *in, const json_t *m, int64_t i, const char *key, int64_t *out)
{
    const json_t *v = import_at(m, "value");
    *out = -1;
    if (!v) return ST_OK;
    int64_t unit = import_unit_ns(import_text(m, "unit", ""));
    if (unit && import_ns(v, unit, out) && *out >= 0) return ST_OK;
    return err_set(in->e, ST_USAGE, "%s: record %lld: %s is no time with a unit", in->path,
                   (long long)i, key);
}

static int tokens(struct import_in *in, const json_t *metrics, int64_t i, const char *key,
                  int32_t *out)
{
    const json_t *v = import_at(import_at(metrics, key), "value");
    if (!v || import_tok(v, out)) return ST_OK;
    return err_set(in->e, ST_USAGE, "%s: record %lld: %s is no length", in->path, (long long)i,
                   key);
}

static int read_gaps(struct import_in *in, struct import_run *r, const json_t *metrics, int64_t i,
                     int64_t *at)
{
    const json_t *m = import_at(metrics, "inter_chunk_latency"), *list = import_at(m, "value");
    struct import_request *q = &r->request[i];
    if (!json_is_array(list)) return ST_OK;
    int64_t unit = import_unit_ns(import_text(m, "unit", ""));
    q->gap_at = *at;
    q->n_gap = (int32_t)json_array_size(list);
    for (size_t k = 0; k < json_array_size(list); k++) {
        int64_t *gap = &r->gap_ns[(*at)++];
        if (!unit || !import_ns(json_array_get(list, k), unit, gap) || *gap < 0)
            return err_set(in->e, ST_USAGE,
                           "%s: record %lld: inter_chunk_latency[%zu] is no time with a unit",
                           in->path, (long long)i, k);
    }
    return ST_OK;
}

static int read_record(struct import_in *in, struct import_run *r, const json_t *j, int64_t i,
                       int64_t *n_gap)
{
    struct import_request *q = &r->request[i];
    const json_t *m = import_at(j, "metrics"), *meta = import_at(j, "metadata");
    int64_t ttft, latency, session;
    bool fail = import_at(j, "error") != NULL;
    *q = import_empty_request();
    int st = instant(in, meta, "credit_issued_ns", i, &q->row.t_due_ns);
    if (st == ST_OK) st = instant(in, meta, "request_start_ns", i, &q->row.t_start_ns);
    if (st == ST_OK)
        st = duration(in, import_at(m, "time_to_first_token"), i, "time_to_first_token", &ttft);
    if (st == ST_OK)
        st = duration(in, import_at(m, "request_latency"), i, "request_latency", &latency);
    if (st == ST_OK)
        st = tokens(in, m, i, fail ? "error_isl" : "input_sequence_length", &q->row.n_in);
    if (st == ST_OK) st = tokens(in, m, i, "output_sequence_length", &q->row.n_out);
    if (st == ST_OK && !fail) st = read_gaps(in, r, m, i, n_gap);
    if (st != ST_OK) return st;
    if (import_ns(import_at(meta, "session_num"), 1, &session) && session >= 0)
        q->row.session = session;
    import_tok(import_at(meta, "turn_index"), &q->row.turn);
    q->row.status = json_is_true(import_at(meta, "was_cancelled")) ? RUN_UNFINISHED
                    : fail || q->row.n_out == 0                    ? RUN_FAILED
                                                                   : RUN_OK;
    /* A gap list is absent where there is one chunk only. */
    if (q->row.status == RUN_OK && q->n_gap < 0 && ttft >= 0 && ttft == latency) q->n_gap = 0;
    if (q->row.status == RUN_OK && q->row.t_start_ns >= 0 && latency >= 0 &&
        latency <= IMPORT_MAX_NS) {
        q->row.t_last_ns = q->row.t_start_ns + latency;
        if (ttft >= 0) q->row.t_first_ns = q->row.t_start_ns + ttft;
    }
    return import_check_request(in, q, i);
}

static bool is_warmup(const json_t *j)
{
    return strcmp(import_text(j, "metadata.benchmark_phase", ""), "warmup") == 0;
}

int import_aiperf_records(struct import_in *in)
{
    size_t n = 0, n_gap = 0;
    int64_t at = 0, gap_at = 0;
    int st = ST_OK;
    struct import_run *r = import_add_runs(in, 1);
    for (int i = 0; i < in->n_value; i++) {
        if (!json_is_object(in->value[i]) || !import_at(in->value[i], "metadata"))
            return err_set(in->e, ST_USAGE, "%s: line %d is no record", in->path, i + 1);
        n += !is_warmup(in->value[i]);
        n_gap += json_array_size(import_at(in->value[i], "metrics.inter_chunk_latency.value"));
    }
    if (n == 0) return err_set(in->e, ST_USAGE, "%s: no record outside the warm-up", in->path);
    r->request = arena_array(in->a, n, sizeof *r->request);
    r->gap_ns = arena_array(in->a, n_gap, sizeof *r->gap_ns);
    r->n_request = (int64_t)n;
    r->due = IMPORT_DUE_RELEASED;
    for (int i = 0; i < in->n_value && st == ST_OK; i++) {
        if (is_warmup(in->value[i])) continue;
        st = read_record(in, r, in->value[i], at, &gap_at);
        if (r->request[at++].row.t_due_ns < 0) r->due = IMPORT_DUE_SENT;
    }
    if (st != ST_OK) return st;
    if ((size_t)in->n_value > n)
        import_note(r, arena_printf(in->a, "%zu records of the warm-up are left out.",
                                    (size_t)in->n_value - n));
    for (int64_t i = 0; r->due == IMPORT_DUE_SENT && i < r->n_request; i++)
        r->request[i].row.t_due_ns = r->request[i].row.t_start_ns;
    import_shift(r);
    return ST_OK;
}
