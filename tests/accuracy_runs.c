/* tests/accuracy_runs.c - serving runs measured request by request, replayed in the simulator.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/stat.h"
#include "tests/accuracy.h"
#include "traces/run.h"

struct measured { /* of one run, each sorted ascending; s */
    double *x[ACC_METRICS];
    size_t n[ACC_METRICS];
    double out_tok, span_s;
};

static const struct serving {
    const char *title, *trace, *requests;
    const char *scenario; /* all but the workload */
    bool engine_clock;    /* columns of serving_vllm, not of serving_llm_k8s */
    bool kernels, series;
    bool warmed; /* the same prompts were sent before, and are in the prefix cache */
    const char *sample;
} runs[] = {
    { .title = "serving_vllm, measured kernels",
      .trace = "serving_vllm/rtxpro6000_llama-3.1-8b/workload.csv",
      .requests = "serving_vllm/rtxpro6000_llama-3.1-8b/requests.csv",
      .scenario = "model: llama-3.1-8b\nstrategy: {tp: 1}\npolicy: {max_batch_tokens: 2048tok, "
                  "max_seqs: 128, kv_blocks: 36578}\nprofile: {host.request: 0s}\n",
      .engine_clock = true,
      .kernels = true,
      .series = true,
      .sample = "kernels measured there, serving not" },
    { .title = "serving_vllm, laws alone",
      .trace = "serving_vllm/rtxpro6000_llama-3.1-8b/workload.csv",
      .requests = "serving_vllm/rtxpro6000_llama-3.1-8b/requests.csv",
      .scenario = "model: llama-3.1-8b\nstrategy: {tp: 1}\npolicy: {max_batch_tokens: 2048tok, "
                  "max_seqs: 128, kv_blocks: 36578}\nprofile: {host.request: 0s}\n",
      .engine_clock = true,
      .series = true,
      .sample = "no" },
    { .title = "serving_llm_k8s, 1 request/s",
      .trace = "serving_llm_k8s/tp8_pp1_one_node_rate_01.csv",
      .requests = "serving_llm_k8s/tp8_pp1_one_node_rate_01.csv",
      .scenario = "model: llama-3.1-70b\nstrategy: {tp: 8}\npolicy: {name: vllm, async: off}\n",
      .sample = "no" },
    { .title = "serving_llm_k8s, all at once",
      .trace = "serving_llm_k8s/tp8_pp1_one_node_rate_inf.csv",
      .requests = "serving_llm_k8s/tp8_pp1_one_node_rate_inf.csv",
      .scenario = "model: llama-3.1-70b\nstrategy: {tp: 8}\npolicy: {name: vllm, async: off}\n",
      .sample = "no" },
    { .title = "serving_llm_k8s, all at once, prompts cached",
      .trace = "serving_llm_k8s/tp8_pp1_one_node_rate_inf.csv",
      .requests = "serving_llm_k8s/tp8_pp1_one_node_rate_inf.csv",
      .scenario = "model: llama-3.1-70b\nstrategy: {tp: 8}\npolicy: {name: vllm, async: off}\n",
      .warmed = true,
      .sample = "no; cached prompts inferred" },
};
enum { N_RUN = sizeof runs / sizeof *runs };

static void put(struct measured *m, enum acc_metric k, double s)
{
    m->x[k][m->n[k]++] = s;
}

/* The clock of serving_vllm starts when the engine has queued the request. */
static bool measure(struct acc *w, const struct serving *v, struct measured *m)
{
    struct acc_csv t;
    double first = INFINITY, last = 0;
    *m = (struct measured){ .out_tok = 0 };
    if (!acc_open(w, v->requests, &t)) return false;
    for (int k = 0; k < ACC_METRICS; k++) m->x[k] = arena_array(&w->a, t.n_row, sizeof(double));
    for (size_t i = 0; i < t.n_row; i++) {
        double n = acc_csv_named(&t, i, "output_tokens"), due, ttft, e2e;
        if (v->engine_clock) {
            due = acc_csv_named(&t, i, "queued_s");
            ttft = acc_csv_named(&t, i, "first_token_s") - due;
            e2e = acc_csv_named(&t, i, "last_token_s") - due;
        } else {
            due = acc_csv_named(&t, i, "arrival_s");
            ttft = acc_csv_named(&t, i, "ttft_s");
            e2e = acc_csv_named(&t, i, "e2e_s");
        }
        put(m, ACC_TTFT, ttft);
        put(m, ACC_E2E, e2e);
        if (n > 1) put(m, ACC_TPOT, (e2e - ttft) / (n - 1));
        m->out_tok += n;
        first = fmin(first, due);
        last = fmax(last, due + e2e);
    }
    m->span_s = last - first;
    for (int k = 0; k < ACC_METRICS; k++) stat_sort(m->x[k], m->n[k]);
    acc_csv_release(&t);
    return true;
}

static double stat_of(const struct measured *m, enum acc_metric k, enum acc_stat s)
{
    static const double q[ACC_STATS] = { 0, 0.5, 0.9, 0.99 };
    if (s == ACC_MEAN) return stat_mean(m->x[k], m->n[k]);
    return stat_quantile_sorted(m->x[k], m->n[k], q[s]);
}

static const char *absolute(struct acc *w, const char *relative)
{
    char *full = realpath(arena_printf(&w->a, "%s/%s", w->data, relative), NULL);
    const char *kept = full ? arena_copy_text(&w->a, full, strlen(full)) : relative;
    free(full);
    return kept;
}

/* The trace twice: one request every ten seconds, then all at once; blocks of a prompt are its own.
 * Only the second half is counted. */
static const char *warmed_trace(struct acc *w, const struct serving *v)
{
    struct acc_csv t;
    const char *path = arena_printf(&w->a, "%s/warmed.csv", acc_scratch(w));
    FILE *f = acc_open(w, v->trace, &t) ? fopen(path, "w") : NULL;
    if (!f) return "";
    fprintf(f, "arrival_s,input_tokens,output_tokens,shared_prefix_blocks\n");
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < t.n_row; i++) {
            double in = acc_csv_named(&t, i, "input_tokens");
            fprintf(f, "%zu,%g,%s,", pass ? 10 * t.n_row + 1000 : 10 * i, in,
                    acc_csv_word(&t, i, "output_tokens"));
            for (int b = 0; b < (int)(in / 16); b++)
                fprintf(f, "%s%zu", b ? " " : "", i * 1000000 + (size_t)b);
            fputc('\n', f);
        }
    fclose(f);
    acc_csv_release(&t);
    return path;
}

static const char *scenario_of(struct acc *w, const struct serving *v)
{
    const char *tables = "kernels_llmservingsim/rtxpro6000/llama-3.1-8b/tp1";
    const char *kernels =
        v->kernels ? arena_printf(&w->a, ", kernels: '%s'", absolute(w, tables)) : "";
    return arena_printf(&w->a,
                        "%shardware: {name: %s, engine: vllm%s}\n"
                        "workload: {trace: '%s', format: csv}\n"
                        "sim: {draws: 16, replications: 1, warmup: %g}\n",
                        v->scenario, v->engine_clock ? "rtxpro6000-1" : "azure-ndv4", kernels,
                        v->warmed ? warmed_trace(w, v) : absolute(w, v->trace),
                        v->warmed ? 0.5 : 0.0);
}

static void line(struct acc *w, const char *name, double m, const struct acc_value *p, double to,
                 struct acc_err *err)
{
    acc_say(w, "| %s | %.4g | %.4g | ", name, m * to, p->v * to);
    if (isnan(p->lo))
        acc_say(w, "- | ");
    else
        acc_say(w, "%.4g .. %.4g%s | ", p->lo * to, p->hi * to,
                m >= p->lo && m <= p->hi ? "" : " (outside)");
    acc_say(w, "%+.1f %% |\n", 100 * (p->v / m - 1));
    acc_err_add(err, p->v, m);
}

static void compare(struct acc *w, const struct serving *v, const struct acc_run *r,
                    const struct measured *m)
{
    static const char *const metric[] = { "TTFT", "TPOT", NULL, "E2E" };
    static const char *const stat[] = { "mean", "p50", "p90", "p99" };
    acc_say(w,
            "\n| | measured | predicted | 90 %% interval | error |\n|---|---:|---:|---:|---:|\n");
    for (int k = 0; k < ACC_METRICS; k++) {
        struct acc_err err = { NULL, 0, 0 };
        for (int s = 0; metric[k] && s < ACC_STATS; s++)
            line(w, arena_printf(&w->a, "%s %s, ms", metric[k], stat[s]),
                 stat_of(m, (enum acc_metric)k, (enum acc_stat)s), &r->latency[k][s], 1e3, &err);
        struct acc_sum sum = acc_err_sum(&err);
        if (sum.n)
            acc_summary(w, v->requests,
                        arena_printf(&w->a, "%s: %s mean, p50, p90, p99", v->title, metric[k]),
                        &sum, 0, v->sample);
        acc_err_release(&err);
    }
    struct acc_err err = { NULL, 0, 0 };
    struct acc_value tok = { m->out_tok / r->window_s, NAN, NAN };
    line(w, "output tokens/s over the run", m->out_tok / m->span_s, &tok, 1, &err);
    struct acc_sum sum = acc_err_sum(&err);
    acc_summary(w, v->requests, arena_printf(&w->a, "%s: throughput", v->title), &sum, 0,
                v->sample);
    acc_err_release(&err);
}

/* ---- the time series of serving_vllm */

static double correlation(const double *x, const double *y, size_t n)
{
    double mx = stat_mean(x, n), my = stat_mean(y, n), xy = 0, xx = 0, yy = 0;
    for (size_t i = 0; i < n; i++) {
        xy += (x[i] - mx) * (y[i] - my);
        xx += (x[i] - mx) * (x[i] - mx);
        yy += (y[i] - my) * (y[i] - my);
    }
    return xx > 0 && yy > 0 ? xy / sqrt(xx * yy) : NAN;
}

struct column {
    const char *ours, *theirs;
    double *p, *m;
};

/* Row t of the log speaks of the second before t, our bin of the second from its start. */
static size_t align(struct acc *w, const char *run_path, const struct acc_csv *t, struct column *c,
                    int n_col)
{
    struct run_file f;
    struct err e = { 0 };
    size_t n = t->n_row, have = 0;
    if (run_open(run_path, &w->a, &f, &e) != ST_OK) {
        acc_say(w, "\n* %s\n", e.text);
        return 0;
    }
    for (int k = 0; k < n_col; k++) {
        double *x = NULL;
        c[k].p = arena_array(&w->a, n, sizeof(double));
        c[k].m = arena_array(&w->a, n, sizeof(double));
        if (run_column(&f, c[k].ours, &w->a, &x, &have, &e) != ST_OK) have = 0;
        for (size_t i = 0; i < n; i++) {
            c[k].m[i] = acc_csv_named(t, i, c[k].theirs);
            double at = acc_csv_named(t, i, "t") - 1;
            c[k].p[i] = at >= 0 && at < (double)have ? x[(size_t)(at + 0.5)] : 0;
        }
    }
    run_close(&f);
    return have ? n : 0;
}

static void series(struct acc *w, const struct serving *v, const char *run_path)
{
    static const char file[] = "serving_vllm/rtxpro6000_llama-3.1-8b/timeseries.csv";
    struct column c[] = {
        { "series/running", "running", NULL, NULL },
        { "series/queue", "waiting", NULL, NULL },
        { "series/in_rate", "prompt_throughput", NULL, NULL },
        { "series/out_rate", "gen_throughput", NULL, NULL },
    };
    enum { N = sizeof c / sizeof *c };
    struct acc_csv t;
    if (!acc_open(w, file, &t)) return;
    size_t n = align(w, run_path, &t, c, N);
    acc_say(w,
            "\nEach second, %s (the log's kv_cache_pct is 0 throughout, so KV use is not "
            "compared):\n\n| | mean measured | mean predicted | mean deviation | correlation "
            "|\n|---|---:|---:|---:|---:|\n",
            v->title);
    for (int k = 0; n && k < N; k++) {
        double off = 0;
        for (size_t i = 0; i < n; i++) off += fabs(c[k].p[i] - c[k].m[i]) / (double)n;
        acc_say(w, "| %s | %.1f | %.1f | %.1f | %.3f |\n", c[k].theirs, stat_mean(c[k].m, n),
                stat_mean(c[k].p, n), off, correlation(c[k].p, c[k].m, n));
    }
    acc_say(w, "\n| t, s | running: measured, predicted | waiting | prompt tok/s | output tok/s "
               "|\n|---:|---:|---:|---:|---:|\n");
    for (size_t i = 9; i < n; i += 10) {
        acc_say(w, "| %g |", acc_csv_named(&t, i, "t"));
        for (int k = 0; k < N; k++) acc_say(w, " %.0f, %.0f |", c[k].m[i], c[k].p[i]);
        acc_say(w, "\n");
    }
    acc_csv_release(&t);
}

void acc_serving_runs(struct acc *w)
{
    struct acc_run r[N_RUN];
    acc_say(w,
            "\n## Serving runs, request by request\n\nThe recorded requests replayed: arrivals, "
            "lengths and, where known, shared prefixes. serving_vllm: the clock starts when the "
            "engine has queued a request, so HTTP time is set to 0; blocks and limits are those "
            "of its engine.json. serving_llm_k8s: Llama-3.3-70B (the shape of 3.1), TP 8 on 8 "
            "A100-40GB, vLLM's defaults. vLLM before 0.14 (here and in the sections above) is run "
            "with policy.async: off, as its scheduler did not yet work ahead. All at once, its "
            "42,659 prompt tokens had their first tokens "
            "within 0.45 s: 6.0e15 FLOP, 13e15 a second, where eight A100 peak at 2.5e15. So "
            "that run must have found its prompts in a prefix cache, filled by the run before "
            "with the same requests; it is replayed both ways.\n");
    for (int i = 0; i < N_RUN; i++) {
        const char *out =
            runs[i].series ? arena_printf(&w->a, "%s/run%d.h5", acc_scratch(w), i) : NULL;
        r[i] = (struct acc_run){ .yaml = scenario_of(w, runs + i), .out = out };
    }
    if (!acc_simulate(w, r, N_RUN)) return;
    for (int i = 0; i < N_RUN; i++) {
        struct measured m;
        acc_say(w, "\n### %s\n", runs[i].title);
        if (!measure(w, runs + i, &m)) continue;
        if (!r[i].ok) {
            acc_say(w, "\n* no result: %s\n", r[i].note);
            acc_summary(w, runs[i].requests, runs[i].title, NULL, m.n[ACC_TTFT],
                        "not scored: failed");
            continue;
        }
        compare(w, runs + i, r + i, &m);
        if (runs[i].series) series(w, runs + i, r[i].out);
    }
    acc_file(w, "serving_llm_k8s/runs.csv");
}
