/* traces/import_guidellm.c - GuideLLM's JSON report, version 2 of its metadata.
 *
 * Instants are epoch seconds of the wall clock (time.time), absent values null. Gaps between tokens
 * are not stored, but the number of chunks is. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "traces/import_priv.h"

#define S_NS INT64_C(1000000000)

static const struct {
    const char *key, *unit, *means;
} known[] = {
    { "requests_per_second", "request/s", "rate between completions, weighted by time" },
    { "request_concurrency", "request", "at once, weighted by time" },
    { "request_latency", "s", "end of the stream - sent" },
    { "prompt_token_count", "token", "of a prompt" },
    { "output_token_count", "token", "of an output" },
    { "time_to_first_token_ms", "ms", "first chunk - sent" },
    { "time_per_output_token_ms", "ms", "(last - sent) / tokens: TTFT inside, weighted by tokens" },
    { "inter_token_latency_ms", "ms", "(last - first) / (tokens - 1), weighted by tokens - 1" },
    { "output_tokens_per_second", "token/s", "rate, weighted by time" },
    { "tokens_per_second", "token/s", "prompt and output, weighted by time" },
};

static void read_figures(struct import_in *in, struct import_run *r, const json_t *b)
{
    static const struct {
        const char *at, *label;
    } stat[] = { { "mean", "mean" },
                 { "median", "p50" },
                 { "percentiles.p90", "p90" },
                 { "percentiles.p99", "p99" } };
    static const struct {
        const char *at, *name, *means;
    } total[] = {
        { "metrics.request_totals.successful", "request_totals successful", "that ended well" },
        { "metrics.request_totals.errored", "request_totals errored", "that failed" },
        { "metrics.request_totals.incomplete", "request_totals incomplete", "that were cut off" }
    };
    double v;
    import_room(in, r, sizeof known / sizeof *known * 4 + sizeof total / sizeof *total);
    for (size_t i = 0; i < sizeof total / sizeof *total; i++)
        if (import_number(import_at(b, total[i].at), &v))
            import_figure(r, total[i].name, v, "request", total[i].means);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const json_t *m = import_at(b, arena_printf(in->a, "metrics.%s.successful", known[i].key));
        if (!import_number(import_at(m, "count"), &v) || v <= 0) continue;
        for (int k = 0; k < 4; k++)
            if (import_number(import_at(m, stat[k].at), &v))
                import_figure(r, arena_printf(in->a, "%s %s", known[i].key, stat[k].label), v,
                              known[i].unit, known[i].means);
    }
}

/* An instant of a request; -1 where null. */
static int instant(struct import_in *in, const json_t *timings, const char *key, int64_t i,
                   int64_t *out)
{
    const json_t *j = import_at(timings, key);
    *out = -1;
    if (!j || (import_ns(j, S_NS, out) && *out >= 0)) return ST_OK;
    return err_set(in->e, ST_USAGE, "%s: request %lld: %s is no time in seconds", in->path,
                   (long long)i, key);
}

static int length(struct import_in *in, const json_t *j, const char *key, const char *or_key,
                  int64_t i, int32_t *out)
{
    const json_t *v = import_at(j, key);
    if (!v) v = import_at(j, or_key);
    if (!v || import_tok(v, out)) return ST_OK;
    return err_set(in->e, ST_USAGE, "%s: request %lld: %s is no length", in->path, (long long)i,
                   or_key);
}

static int read_request(struct import_in *in, struct import_run *r, const json_t *j, int status,
                        int64_t i)
{
    struct import_request *q = &r->request[i];
    const json_t *t = import_at(j, "info.timings");
    int64_t end;
    double chunks;
    if (!json_is_object(j))
        return err_set(in->e, ST_USAGE, "%s: request %lld is no object", in->path, (long long)i);
    *q = import_empty_request();
    q->row.status = (uint8_t)status;
    int st = instant(in, t, "targeted_start", i, &q->row.t_due_ns);
    if (st == ST_OK) st = instant(in, t, "request_start", i, &q->row.t_start_ns);
    if (st == ST_OK) st = instant(in, t, "first_token_iteration", i, &q->row.t_first_ns);
    if (st == ST_OK) st = instant(in, t, "last_token_iteration", i, &q->row.t_last_ns);
    if (st == ST_OK) st = instant(in, t, "request_end", i, &end);
    if (st == ST_OK)
        st = length(in, j, "prompt_tokens", "input_metrics.text_tokens", i, &q->row.n_in);
    if (st == ST_OK)
        st = length(in, j, "output_tokens", "output_metrics.text_tokens", i, &q->row.n_out);
    if (st == ST_OK)
        st = length(in, j, "cached_tokens", "input_metrics.cached_tokens", i, &q->row.cached_in);
    if (st != ST_OK) return st;
    if (status == RUN_OK && q->row.n_out == 0) { /* an empty answer */
        q->row.status = RUN_FAILED;
        r->n_empty++;
    }
    if (q->row.status != RUN_OK)
        q->row.t_first_ns = q->row.t_last_ns = -1;
    else if (q->row.t_last_ns < 0)
        q->row.t_last_ns = end; /* not streamed */
    r->has_cached = r->has_cached || import_at(j, "cached_tokens");
    if (import_number(import_at(t, "token_iterations"), &chunks) && chunks >= 1 &&
        chunks <= IMPORT_MAX_TOK)
        q->n_chunk = (int32_t)chunks;
    return import_check_request(in, q, i);
}

/* Where one request has no due time all count from sending, so that they compare. */
static void settle_due(struct import_run *r)
{
    r->due = IMPORT_DUE_PLAN;
    for (int64_t i = 0; i < r->n_request; i++)
        if (r->request[i].row.t_due_ns < 0) r->due = IMPORT_DUE_SENT;
    for (int64_t i = 0; r->due == IMPORT_DUE_SENT && i < r->n_request; i++)
        r->request[i].row.t_due_ns = r->request[i].row.t_start_ns;
    import_shift(r);
}

static int read_requests(struct import_in *in, struct import_run *r, const json_t *b)
{
    static const struct {
        const char *key;
        int status;
    } group[] = { { "requests.successful", RUN_OK },
                  { "requests.errored", RUN_FAILED },
                  { "requests.incomplete", RUN_UNFINISHED } };
    size_t n = 0;
    int64_t at = 0;
    int st = ST_OK;
    double made;
    for (int k = 0; k < 3; k++) n += json_array_size(import_at(b, group[k].key));
    if (json_array_size(import_at(b, group[0].key)) == 0) return ST_OK;
    r->request = arena_array(in->a, n, sizeof *r->request);
    r->n_request = (int64_t)n;
    for (int k = 0; k < 3 && st == ST_OK; k++) {
        const json_t *list = import_at(b, group[k].key);
        for (size_t i = 0; i < json_array_size(list) && st == ST_OK; i++)
            st = read_request(in, r, json_array_get(list, i), group[k].status, at++);
    }
    if (st != ST_OK) return st;
    settle_due(r);
    r->n_kept = (int64_t)n;
    r->sampled = import_number(import_at(b, "scheduler_metrics.requests_made.total"), &made) &&
                 made > (double)n;
    if (r->sampled)
        import_note(r, arena_printf(in->a,
                                    "The file keeps %zu of %.0f requests: figures from them are of "
                                    "a sample, rates are too low.",
                                    n, made));
    return ST_OK;
}

int import_guidellm(struct import_in *in)
{
    const json_t *j = in->value[0], *list = import_at(j, "benchmarks");
    size_t n = json_array_size(list);
    double version;
    const char *release = import_text(j, "metadata.guidellm_version", "");
    if (import_number(import_at(j, "metadata.version"), &version) && version != 2)
        return err_set(in->e, ST_USAGE, "%s: version %g of GuideLLM's report; 2 is known", in->path,
                       version);
    if (n == 0 || n > 100000)
        return err_set(in->e, ST_USAGE, "%s: benchmarks is no list of runs", in->path);
    in->out->version = arena_copy_text(in->a, release, strlen(release));
    struct import_run *runs = import_add_runs(in, (int)n);
    for (size_t i = 0; i < n; i++) {
        const json_t *b = json_array_get(list, i);
        const char *strategy = import_text(b, "config.strategy.type_", "");
        const char *model = import_text(b, "config.backend.model", "");
        double rate, start;
        runs[i].model = arena_copy_text(in->a, model, strlen(model));
        runs[i].title = import_number(import_at(b, "config.strategy.rate"), &rate)
                            ? arena_printf(in->a, "%s %g/s", strategy, rate)
                            : arena_copy_text(in->a, strategy, strlen(strategy));
        if (import_number(import_at(b, "start_time"), &start))
            runs[i].date = import_date_of(start, in->a);
        import_number(import_at(b, "duration"), &runs[i].duration_s);
        if (!isfinite(runs[i].duration_s) || runs[i].duration_s <= 0) runs[i].duration_s = NAN;
        read_figures(in, &runs[i], b);
        int st = read_requests(in, &runs[i], b);
        if (st != ST_OK) return st;
    }
    return ST_OK;
}
