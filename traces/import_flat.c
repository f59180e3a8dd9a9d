/* traces/import_flat.c - vLLM `bench serve` and sglang `bench_serving`: one flat object a run.
 *
 * Summary keys are in ms, the lists of --save-detailed in s. A request that failed holds zeros in
 * the lists. TPOT is not stored: it follows from latencies, ttfts and output_lens.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "traces/import_priv.h"

#define S_NS INT64_C(1000000000)

/* Keys that end so. Definitions: vllm/benchmarks, sglang bench_serving. */
static const struct {
    const char *suffix, *unit, *means;
} known[] = {
    { "_ttft_ms", "ms", "first chunk - sent, completed requests" },
    { "_tpot_ms", "ms", "(last - first chunk) / (tokens - 1), requests of 2 tokens or more" },
    { "_itl_ms", "ms", "gap between chunks, all requests pooled" },
    { "_e2el_ms", "ms", "last chunk - sent" },
    { "_e2e_latency_ms", "ms", "last chunk - sent" },
    { "_client_queue_time_ms", "ms", "wait in front of the client's limit on concurrency" },
    { "_e2el_including_client_queue_ms", "ms", "last chunk - queued by the client" },
    { "request_goodput", "request/s", "requests within every limit over wall time" },
    { "request_goodput:", "request/s", "requests within every limit over wall time" },
    { "request_throughput", "request/s", "completed over wall time" },
    { "input_throughput", "token/s", "prompt tokens over wall time" },
    { "output_throughput", "token/s", "output tokens over wall time" },
    { "total_token_throughput", "token/s", "prompt and output tokens over wall time" },
    { "max_output_tokens_per_s", "1/s", "most chunks, not tokens, in a second" },
    { "request_rate", "request/s", "asked for" },
    { "duration", "s", "wall time, first dispatch to last gather" },
    { "completed", "request", "that ended well" },
    { "failed", "request", "that did not" },
    { "num_prompts", "request", "asked for" },
    { "total_input_tokens", "token", "of completed requests" },
    { "total_output_tokens", "token", "of completed requests" },
    { "max_concurrent_requests", "request", "most at once" },
    { "concurrency", "request", "sum of latencies over wall time" },
};

static void read_figures(struct import_in *in, struct import_run *r, const json_t *j)
{
    const char *key;
    json_t *value;
    double v;
    import_room(in, r, json_object_size(j));
    json_object_foreach((json_t *)(uintptr_t)j, key, value)
    {
        size_t n = strlen(key);
        if (!import_number(value, &v)) continue;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
            size_t m = strlen(known[i].suffix);
            bool whole = *known[i].suffix != '_';
            if (n < m || strcmp(key + n - m, known[i].suffix) != 0 || (whole && n != m)) continue;
            size_t colon = key[n - 1] == ':'; /* older vLLM: "request_goodput:" */
            import_figure(r, arena_copy_text(in->a, key, n - colon), v, known[i].unit,
                          known[i].means);
            break;
        }
    }
}

/* ---- lists of --save-detailed */

struct lists {
    const json_t *ttft, *latency, *start, *queue, *itl, *n_in, *n_out, *error;
    size_t n;
};

static int get_list(struct import_in *in, const json_t *j, const char *key, size_t n,
                    const json_t **out)
{
    *out = import_at(j, key);
    if (!*out) return ST_OK;
    if (!json_is_array(*out) || json_array_size(*out) != n)
        return err_set(in->e, ST_USAGE, "%s: %s is no list of %zu values, as ttfts is", in->path,
                       key, n);
    return ST_OK;
}

static int get_lists(struct import_in *in, const json_t *j, struct lists *l)
{
    const struct {
        const char *key;
        const json_t **at;
    } list[] = { { "latencies", &l->latency }, { "start_times", &l->start },
                 { "queue_times", &l->queue }, { "itls", &l->itl },
                 { "input_lens", &l->n_in },   { "output_lens", &l->n_out },
                 { "errors", &l->error } };
    *l = (struct lists){ .ttft = import_at(j, "ttfts") };
    l->n = json_array_size(l->ttft);
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        int st = get_list(in, j, list[i].key, l->n, list[i].at);
        if (st != ST_OK) return st;
    }
    if (!l->n_out || !(l->latency || l->itl))
        return err_set(in->e, ST_USAGE, "%s: has ttfts, but no %s", in->path,
                       l->n_out ? "latencies nor itls" : "output_lens");
    return ST_OK;
}

static int span(struct import_in *in, const json_t *list, size_t i, const char *key, int64_t *out)
{
    *out = 0;
    if (!list) return ST_OK;
    if (!import_ns(json_array_get(list, i), S_NS, out) || *out < 0)
        return err_set(in->e, ST_USAGE, "%s: %s[%zu] is no time in seconds", in->path, key, i);
    return ST_OK;
}

/* Gaps of request i into r->gap_ns from at; *sum their sum. */
static int read_gaps(struct import_in *in, struct import_run *r, const struct lists *l, size_t i,
                     int64_t at, int64_t *sum)
{
    const json_t *gaps = json_array_get(l->itl, i);
    struct import_request *q = &r->request[i];
    q->gap_at = at;
    q->n_gap = (int32_t)json_array_size(gaps);
    *sum = 0;
    for (int32_t k = 0; k < q->n_gap; k++) {
        int64_t *gap = &r->gap_ns[at + k];
        if (!import_ns(json_array_get(gaps, (size_t)k), S_NS, gap) || *gap < 0 ||
            *gap > IMPORT_MAX_NS - *sum)
            return err_set(in->e, ST_USAGE, "%s: itls[%zu][%d] is no time in seconds", in->path, i,
                           k);
        *sum += *gap;
    }
    return ST_OK;
}

static bool failed(const struct lists *l, size_t i, int64_t ttft, int64_t latency, int32_t n_out)
{
    const char *why = json_string_value(json_array_get(l->error, i));
    return (why && *why) || n_out == 0 || (!l->error && ttft == 0 && latency == 0);
}

static int read_request(struct import_in *in, struct import_run *r, const struct lists *l, size_t i,
                        int64_t *n_gap)
{
    struct import_request *q = &r->request[i];
    int64_t ttft, latency, start, queue, sum = 0;
    *q = import_empty_request();
    if (!import_tok(json_array_get(l->n_out, i), &q->row.n_out) ||
        (l->n_in && !import_tok(json_array_get(l->n_in, i), &q->row.n_in)))
        return err_set(in->e, ST_USAGE, "%s: input_lens[%zu] or output_lens[%zu] is no length",
                       in->path, i, i);
    int st = span(in, l->ttft, i, "ttfts", &ttft);
    if (st == ST_OK) st = span(in, l->latency, i, "latencies", &latency);
    if (st == ST_OK) st = span(in, l->start, i, "start_times", &start);
    if (st == ST_OK) st = span(in, l->queue, i, "queue_times", &queue);
    if (st == ST_OK && l->itl) st = read_gaps(in, r, l, i, *n_gap, &sum);
    if (st != ST_OK) return st;
    if (l->itl) *n_gap += q->n_gap;
    if (!l->latency) latency = ttft + (sum < IMPORT_MAX_NS - ttft ? sum : 0);
    q->row.t_start_ns = start;
    q->row.t_due_ns = l->start && queue <= start ? start - queue : start;
    if (failed(l, i, ttft, latency, q->row.n_out)) {
        const char *why = json_string_value(json_array_get(l->error, i));
        r->n_empty += !(why && *why) && latency > 0;
        q->row.status = RUN_FAILED;
        return ST_OK;
    }
    if (start > IMPORT_MAX_NS - latency)
        return err_set(in->e, ST_USAGE, "%s: latencies[%zu] is no time in seconds", in->path, i);
    q->row.t_last_ns = start + latency;
    if (ttft > 0) q->row.t_first_ns = start + ttft; /* 0: no stream, so none was seen */
    return import_check_request(in, q, (int64_t)i);
}

static int read_requests(struct import_in *in, struct import_run *r, const json_t *j)
{
    struct lists l;
    size_t n_gap = 0;
    int64_t at = 0;
    int st = get_lists(in, j, &l);
    if (st != ST_OK) return st;
    for (size_t i = 0; l.itl && i < l.n; i++) n_gap += json_array_size(json_array_get(l.itl, i));
    r->request = arena_array(in->a, l.n, sizeof *r->request);
    r->gap_ns = arena_array(in->a, n_gap, sizeof *r->gap_ns);
    r->n_request = r->n_kept = (int64_t)l.n;
    for (size_t i = 0; i < l.n && st == ST_OK; i++) st = read_request(in, r, &l, i, &at);
    if (st != ST_OK) return st;
    r->due = !l.start ? IMPORT_DUE_UNKNOWN : l.queue ? IMPORT_DUE_QUEUED : IMPORT_DUE_SENT;
    if (l.start) import_shift(r);
    return ST_OK;
}

int import_flat(struct import_in *in)
{
    struct import_run *runs = import_add_runs(in, in->n_value);
    for (int i = 0; i < in->n_value; i++) {
        struct import_run *r = &runs[i];
        const json_t *j = in->value[i];
        double v;
        if (!json_is_object(j))
            return err_set(in->e, ST_USAGE, "%s: value %d is no object", in->path, i + 1);
        const char *model = import_text(j, "model_id", import_text(j, "model", ""));
        const char *what = import_text(j, "label", import_text(j, "dataset_name", ""));
        r->model = arena_copy_text(in->a, model, strlen(model));
        r->title = arena_copy_text(in->a, what, strlen(what));
        r->date = import_date(import_text(j, "date", ""), in->a);
        read_figures(in, r, j);
        if (import_number(import_at(j, "duration"), &v) && isfinite(v) && v > 0) r->duration_s = v;
        if (json_array_size(import_at(j, "ttfts")) > 0) {
            int st = read_requests(in, r, j);
            if (st != ST_OK) return st;
        } else if (json_array_size(import_at(j, "latencies")) > 0) {
            r->n_kept = (int64_t)json_array_size(import_at(j, "latencies"));
            import_note(r, "Of the requests the file keeps latencies only (it was saved without "
                           "--save-detailed).");
        }
    }
    return ST_OK;
}
