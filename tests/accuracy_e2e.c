/* tests/accuracy_e2e.c - whole systems: the end-to-end tables against simulated runs.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "tests/accuracy_e2e.h"

typedef void e2e_maker(struct acc *w, const struct e2e_row *r, struct e2e_ask *q);

static const struct {
    const char *file, *title, *note;
    e2e_maker *make;
} tables[] = {
    { "end_to_end/trtllm_perf_overview.csv", "TensorRT-LLM, full load",
      "FP8 means weights and KV cache. Burst of the number of requests that the publisher lists; "
      "KV room is 0.9 of the GPU less weights and overheads, theirs 0.9 of what is free.",
      e2e_trtllm },
    { "end_to_end/trtllm_online_serving.csv", "TensorRT-LLM, online serving",
      "Poisson arrivals of 500 requests at the rate named.", e2e_online },
    { "end_to_end/mlperf.csv", "MLPerf Inference 4.1, Llama-2-70B on H100",
      "Inputs assumed log-normal with mean 300 tokens, cut at 1,024: their mean is not published, "
      "so "
      "the level of these errors depends on it.",
      e2e_mlperf },
    { "end_to_end/anl_static_batch.csv", "ANL, static batches on A100-40GB",
      "Time of a whole batch.", e2e_static_batch },
    { "end_to_end/silicon_sample.csv", "AIConfigurator's sample, closed loops on H100",
      "Ten requests a client. A blank precision is taken as bf16.", e2e_closed },
};

struct e2e_case {
    struct e2e_ask q;
    double measured;
    int run;
};

struct e2e_set {
    struct acc *w;
    struct e2e_row *row;
    struct e2e_case *c;
    struct acc_run *run;
    int n_run;
    size_t n;
};

struct reason {
    const char *why;
    size_t n;
};

static struct e2e_row row_of(const struct acc_csv *t, size_t i)
{
    return (struct e2e_row){ .version = acc_csv_word(t, i, "version"),
                             .system = acc_csv_word(t, i, "system"),
                             .gpu = acc_csv_word(t, i, "gpu"),
                             .precision = acc_csv_word(t, i, "precision"),
                             .model = acc_csv_word(t, i, "model"),
                             .scenario = acc_csv_word(t, i, "scenario"),
                             .metric = acc_csv_word(t, i, "metric"),
                             .unit = acc_csv_word(t, i, "unit"),
                             .n_gpu = acc_csv_named(t, i, "n_gpus"),
                             .tp = acc_csv_named(t, i, "tp"),
                             .isl = acc_csv_named(t, i, "isl"),
                             .osl = acc_csv_named(t, i, "osl"),
                             .value = acc_csv_named(t, i, "value") };
}

/* Equal scenarios run once. */
static int run_of(struct e2e_set *s, const char *yaml)
{
    for (int i = 0; i < s->n_run; i++)
        if (strcmp(s->run[i].yaml, yaml) == 0) return i;
    s->run[s->n_run] = (struct acc_run){ .yaml = yaml };
    return s->n_run++;
}

static struct acc_value predicted(const struct acc_run *r, const struct e2e_ask *q)
{
    struct acc_value v = { NAN, NAN, NAN };
    switch (q->what) {
    case E2E_OUT_TOK: v = r->out_tok_per_s; break;
    case E2E_REQUESTS: v = r->requests_per_s; break;
    case E2E_ALL_TOK: v.v = r->requests_per_s.v * q->in_tok + r->out_tok_per_s.v; break;
    case E2E_WINDOW: v.v = r->window_s; break;
    case E2E_LATENCY: v = r->latency[q->metric][q->stat]; break;
    }
    v.v /= q->divide;
    v.lo /= q->divide;
    v.hi /= q->divide;
    return v;
}

static void count(struct reason *list, int *n, const char *why)
{
    for (int i = 0; i < *n; i++)
        if (strcmp(list[i].why, why) == 0) {
            list[i].n++;
            return;
        }
    if (*n < 32) list[(*n)++] = (struct reason){ why, 1 };
}

static void score(const struct e2e_set *s, struct acc_groups *g, struct reason *list, int *n_reason)
{
    for (size_t i = 0; i < s->n; i++) {
        const struct e2e_case *c = s->c + i;
        if (c->q.why) {
            count(list, n_reason, c->q.why);
            continue;
        }
        const struct acc_run *r = s->run + c->run;
        if (!r->ok) {
            bool fit = strstr(r->note, "does not fit") != NULL;
            count(list, n_reason, fit ? "does not fit, says the model" : r->note);
            if (fit) acc_say(s->w, "\n* measured, but: %s\n", r->note);
            continue;
        }
        struct acc_value v = predicted(r, &c->q);
        double m = c->measured * c->q.to_base;
        char key[192];
        bool full = c->q.at_once_tok > r->kv_tok;
        snprintf(key, sizeof key, "%s%s", full ? "KV full: " : "", c->q.group);
        struct acc_group *group = acc_group_of(g, key, "no");
        acc_group_add(group, -1, v.v, m);
        if (isnan(v.lo)) continue;
        group->n_interval++;
        group->n_inside += m >= v.lo && m <= v.hi;
    }
}

static void print_groups(struct acc *w, const struct acc_groups *g)
{
    acc_say(w, "\n| case | n | MAPE %% | median %% | p90 %% | bias %% | median bias %% | in 90 %% "
               "interval |\n|---|---:|---:|---:|---:|---:|---:|---:|\n");
    for (int i = 0; i < g->n; i++) {
        struct acc_sum s = acc_err_sum(&g->g[i].all);
        acc_say(w, "| %s | %zu | %.1f | %.1f | %.1f | %+.1f | %+.1f |", g->g[i].key, s.n,
                100 * s.mape, 100 * s.median, 100 * s.p90, 100 * s.bias, 100 * s.middle);
        if (g->g[i].n_interval)
            acc_say(w, " %zu of %zu |\n", g->g[i].n_inside, g->g[i].n_interval);
        else
            acc_say(w, " - |\n");
    }
}

/* A line of the summary for each first part of the group names, up to the comma. */
static void summarise(struct acc *w, const struct acc_groups *g, const char *file)
{
    for (int i = 0; i < g->n; i++) {
        size_t len = strcspn(g->g[i].key, ",");
        bool first = true;
        for (int k = 0; k < i; k++) first &= strncmp(g->g[k].key, g->g[i].key, len + 1) != 0;
        if (!first) continue;
        struct acc_err all = { NULL, 0, 0 };
        size_t in = 0, of = 0;
        for (int k = i; k < g->n; k++) {
            if (strncmp(g->g[k].key, g->g[i].key, len + 1) != 0) continue;
            acc_err_join(&all, &g->g[k].all);
            in += g->g[k].n_inside;
            of += g->g[k].n_interval;
        }
        struct acc_sum s = acc_err_sum(&all);
        const char *what =
            arena_printf(&w->a, "%.*s%s", (int)len, g->g[i].key,
                         of ? arena_printf(&w->a, " (%zu of %zu in interval)", in, of) : "");
        acc_summary(w, file, what, &s, 0, "no");
        acc_err_release(&all);
    }
}

static void table(struct acc *w, int t)
{
    struct acc_csv csv;
    struct acc_groups g = { NULL, 0 };
    struct reason list[32];
    int n_reason = 0;
    acc_say(w, "\n### %s\n\n%s\n", tables[t].title, tables[t].note);
    if (!acc_open(w, tables[t].file, &csv)) return;
    struct e2e_set s = { .w = w, .n = csv.n_row };
    s.row = mem_zalloc(s.n + 1, sizeof *s.row);
    s.c = mem_zalloc(s.n + 1, sizeof *s.c);
    s.run = mem_zalloc(s.n + 1, sizeof *s.run);
    for (size_t i = 0; i < s.n; i++) s.row[i] = row_of(&csv, i);
    e2e_start(s.row, s.n);
    for (size_t i = 0; i < s.n; i++) {
        struct e2e_case *c = s.c + i;
        c->q = (struct e2e_ask){ .divide = 1, .to_base = 1 };
        c->measured = s.row[i].value;
        tables[t].make(w, s.row + i, &c->q);
        if (!c->q.why) c->run = run_of(&s, c->q.yaml);
    }
    if (acc_simulate(w, s.run, s.n_run)) {
        score(&s, &g, list, &n_reason);
        print_groups(w, &g);
        summarise(w, &g, tables[t].file);
        for (int i = 0; i < n_reason; i++)
            acc_summary(w, tables[t].file, "-", NULL, list[i].n,
                        arena_printf(&w->a, "not scored: %s", list[i].why));
    }
    acc_groups_release(&g);
    free(s.row);
    free(s.c);
    free(s.run);
    acc_csv_release(&csv);
}

/* ---- AccelMark: ratios over GPU counts */

/* Tokens/s of a burst of its 150 requests; output lengths are not recorded, so one is assumed and
 * ratios alone are compared. */
static const char *accelmark_yaml(struct acc *w, const char *node, int tp)
{
    char prompts[4200];
    snprintf(prompts, sizeof prompts, "%s/request_lengths/accelmark_prompt_lengths.csv", w->data);
    char *full = realpath(prompts, NULL);
    struct e2e_plan p = { .model = "llama-3-8b",
                          .hardware = node,
                          .engine = "vllm",
                          .tp = tp,
                          .dp = 1,
                          .weights = "bf16",
                          .kv = "bf16",
                          .policy = "name: vllm",
                          .no_server = true };
    p.workload =
        arena_printf(&w->a,
                     "arrivals: burst, requests: 150, prompt: {dist: empirical, file: '%s'}, "
                     "output: {dist: fixed, mean: 400tok}",
                     full ? full : prompts);
    free(full);
    return e2e_yaml(w, &p);
}

static void accelmark(struct acc *w)
{
    static const char file[] = "end_to_end/accelmark.csv";
    struct acc_csv csv;
    struct acc_groups g = { NULL, 0 };
    acc_say(w, "\n### AccelMark, TP 2 over TP 1\n\nRatios of tokens/s. The output length is not "
               "recorded: 400 tokens are assumed.\n");
    if (!acc_file(w, "request_lengths/accelmark_prompt_lengths.csv")) return;
    if (!acc_open(w, file, &csv)) return;
    size_t missing = 0;
    for (size_t i = 0; i < csv.n_row; i++) {
        struct e2e_row a = row_of(&csv, i);
        const char *node = e2e_node(a.gpu);
        if (a.tp != 1) continue;
        for (size_t k = 0; k < csv.n_row; k++) {
            struct e2e_row b = row_of(&csv, k);
            if (b.tp != 2 || strcmp(a.gpu, b.gpu) || strcmp(a.scenario, b.scenario)) continue;
            if (!node) {
                missing += 2;
                continue;
            }
            struct acc_run run[2] = { { .yaml = accelmark_yaml(w, node, 1) },
                                      { .yaml = accelmark_yaml(w, node, 2) } };
            if (!acc_simulate(w, run, 2) || !run[0].ok || !run[1].ok) {
                acc_say(w, "\n* %s %s %s\n", a.gpu, run[0].note, run[1].note);
                continue;
            }
            acc_group_add(acc_group_of(&g, arena_printf(&w->a, "tokens/s ratio, %s", a.gpu), "no"),
                          -1, run[1].out_tok_per_s.v / run[0].out_tok_per_s.v, b.value / a.value);
        }
    }
    print_groups(w, &g);
    summarise(w, &g, file);
    if (missing)
        acc_summary(w, file, "-", NULL, missing, "not scored: no such node in the catalog");
    acc_groups_release(&g);
    acc_csv_release(&csv);
}

void acc_end_to_end(struct acc *w)
{
    acc_say(
        w,
        "\n## Whole systems\n\nEach case is a scenario for `orrery simulate`, run with the "
        "nominal constants and 16 draws of them: the last column counts measurements inside "
        "the 90 %% prediction interval. *KV full*: the model says that a static batch does not fit "
        "into memory at once, which makes it a test of capacity. Of library benchmarks the HTTP "
        "time is set to 0. "
        "Nothing was fitted to these tables.\n");
    for (int t = 0; t < (int)(sizeof tables / sizeof *tables); t++) table(w, t);
    accelmark(w);
}
