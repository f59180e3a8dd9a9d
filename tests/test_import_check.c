/* tests/test_import_check.c - what a file states of itself against its own rows: files that agree, and
 * the same with one figure changed. SPDX-License-Identifier: Apache-2.0 */
#include "tests/cli.h"
#include "tests/import_env.h"

/* `text` with the one place of `from` become `to`. */
static const char *with(const char *text, const char *from, const char *to)
{
    static char out[8000];
    const char *at = strstr(text, from);
    if (!CHECK(at && !strstr(at + 1, from))) {
        printf("    '%s' is not there once\n", from);
        return text;
    }
    snprintf(out, sizeof out, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    return out;
}

struct change {
    const char *from, *to, *doubt; /* NULL: refused with an error */
    int n;                         /* doubts in all */
};

static const struct import_doubts *doubts_of(const struct seen *s)
{
    return s->f.n_run > 0 ? &s->f.run[0].doubts : &s->f.doubts;
}

static void check_changes(const char *text, const struct change *c, size_t n)
{
    struct seen *s = look(cli_put("same", text), 0, 0);
    CHECK_INT(s->st, ST_OK);
    CHECK_INT(doubts_of(s)->n, 0);
    for (int k = 0; k < doubts_of(s)->n; k++) printf("    %s\n", doubts_of(s)->text[k]);
    done(s);
    for (size_t i = 0; i < n; i++) {
        s = look(cli_put("changed", with(text, c[i].from, c[i].to)), 0, 0);
        bool found = false;
        const struct import_doubts *d = doubts_of(s);
        for (int k = 0; s->st == ST_OK && k < d->n; k++)
            found = found || strstr(d->text[k], c[i].doubt);
        if (!CHECK(s->st == ST_OK && found && d->n == c[i].n)) {
            printf("    %s became %s: %s, %d doubts\n", c[i].from, c[i].to, s->e.text, d->n);
            for (int k = 0; k < d->n; k++) printf("      %s\n", d->text[k]);
        }
        done(s);
    }
}

/* Three requests: first tokens after 100, 200 and 300 ms; gaps 10, 10 and 20 ms. */
static const char vllm[] =
    "{\"num_prompts\": 3, \"duration\": 2.5, \"completed\": 3, \"failed\": 0,\n"
    "\"total_input_tokens\": 18, \"total_output_tokens\": 6, \"request_throughput\": 1.2,\n"
    "\"output_throughput\": 2.4, \"total_token_throughput\": 9.6, \"mean_ttft_ms\": 200,\n"
    "\"median_ttft_ms\": 200.0, \"p99_ttft_ms\": 298, \"mean_tpot_ms\": 15, \"mean_itl_ms\": "
    "13.3333,\n"
    "\"mean_e2el_ms\": 213.333, \"p50_e2el_ms\": 220,\n"
    "\"input_lens\": [5, 6, 7], \"output_lens\": [3, 2, 1], \"ttfts\": [0.1, 0.2, 0.3],\n"
    "\"itls\": [[0.01, 0.01], [0.02], []], \"latencies\": [0.12, 0.22, 0.3],\n"
    "\"start_times\": [10, 11, 12], \"errors\": [\"\", \"\", \"\"]}\n";

TEST(import_check_of_vllm_names_both_figures)
{
    static const struct change c[] = {
        { "\"completed\": 3", "\"completed\": 2",
          "completed: the file states 2, its requests give 3", 1 },
        { "\"failed\": 0", "\"failed\": 1", "failed: the file states 1, its requests give 0", 1 },
        { "_input_tokens\": 18", "_input_tokens\": 19", "states 19, its requests give 18", 1 },
        { "_output_tokens\": 6", "_output_tokens\": 60", "states 60, its requests give 6", 1 },
        { "\"num_prompts\": 3", "\"num_prompts\": 2", "num_prompts: the file states 2", 1 },
        { "\"request_throughput\": 1.2", "\"request_throughput\": 1.3",
          "request_throughput: the file states 1.3, its requests give 1.2", 1 },
        { "\"output_throughput\": 2.4", "\"output_throughput\": 24", "states 24, its", 1 },
        { "\"total_token_throughput\": 9.6", "\"total_token_throughput\": 9.5", "states 9.5", 1 },
        { "\"duration\": 2.5", "\"duration\": 2.2", "duration: the file states 2.2, its", 4 },
        { "\"mean_ttft_ms\": 200", "\"mean_ttft_ms\": 20", "mean_ttft_ms: the file states 20,", 1 },
        { "\"median_ttft_ms\": 200", "\"median_ttft_ms\": 210", "its requests give 200", 1 },
        { "\"p99_ttft_ms\": 298", "\"p99_ttft_ms\": 300", "states 300, its requests give 298", 1 },
        { "\"mean_tpot_ms\": 15", "\"mean_tpot_ms\": 16", "mean_tpot_ms", 1 },
        { "13.3333", "15", "mean_itl_ms", 1 },
        { "213.333", "220.5", "mean_e2el_ms", 1 },
        { "\"duration\": 2.5", "\"duration\": -2.5", "duration: the file states -2.5 s, below zero",
          1 },
        { "\"mean_ttft_ms\": 200", "\"mean_ttft_ms\": -200", "the file states -200 ms, below zero",
          2 },
        { "[0.01, 0.01]", "[0.01, 0.05]", "of request 0 0.06 s, not 0.02 s", 2 },
    };
    check_changes(vllm, c, sizeof c / sizeof *c);
    struct seen *s = look(cli_put("rounded", with(vllm, "13.3333", "13.33")), 0, 0);
    CHECK_INT(s->f.run[0].doubts.n, 0);
    done(s);
    s = look(cli_put("many", with(vllm, "\"completed\": 3", "\"completed\": 4")), 0, 0);
    CHECK_INT(s->st, ST_USAGE);
    CHECK_HAS(s->e.text, "states 4 completed requests, and has rows of 3");
    done(s);
}

/* An answer without a token ended well for the tool, and is a failure here: no contradiction. */
TEST(import_check_knows_empty_answers)
{
    char text[4000];
    snprintf(text, sizeof text, "%s", with(vllm, "[3, 2, 1]", "[3, 2, 0]"));
    struct seen *s = look(cli_put("empty", text), 0, 0);
    const struct import_doubts *d = &s->f.run[0].doubts;
    CHECK_INT(s->st, ST_OK);
    CHECK_INT(d->n, 2); /* the token that was taken away, and the rate of it */
    for (int k = 0; k < d->n; k++) CHECK_HAS(d->text[k], "output_");
    done(s);
}

/* Without rows: totals against each other. */
TEST(import_check_of_totals_alone)
{
    static const char sglang[] =
        "{\"duration\": 2.0, \"completed\": 8, \"total_input_tokens\": 100, "
        "\"total_output_tokens\": 50,\n"
        "\"request_throughput\": 4.0, \"input_throughput\": 50, \"output_throughput\": 25,\n"
        "\"mean_e2e_latency_ms\": 10, \"p90_itl_ms\": 5, \"p50_itl_ms\": 4, \"p99_itl_ms\": 6}\n";
    static const struct change c[] = {
        { "\"completed\": 8", "\"completed\": 9",
          "request_throughput: the file states 4, its totals give 4.5", 1 },
        { "\"input_throughput\": 50", "\"input_throughput\": 51", "states 51, its totals give 50",
          1 },
        { "\"p90_itl_ms\": 5", "\"p90_itl_ms\": 7", "p99_itl_ms: the file states 6, and 7 as p90",
          1 },
        { "\"p90_itl_ms\": 5", "\"p90_itl_ms\": 3", "p90_itl_ms: the file states 3, and 4 as p50",
          1 },
    };
    static const char kept[] =
        "{\"num_prompts\": 2, \"duration\": 2.0, \"completed\": 2, \"latencies\": [1, 1]}\n";
    static const char export[] =
        "{\"schema_version\": \"1.4\", \"request_latency\": {\"unit\": \"ms\", \"avg\": 5},\n"
        "\"request_throughput\": {\"unit\": \"requests/sec\", \"avg\": 2.5},\n"
        "\"request_count\": {\"unit\": \"requests\", \"avg\": 5},\n"
        "\"output_sequence_length\": {\"unit\": \"tokens\", \"avg\": 7},\n"
        "\"output_token_throughput\": {\"unit\": \"tokens/sec\", \"avg\": 17.5},\n"
        "\"good_request_count\": {\"unit\": \"requests\", \"avg\": 4},\n"
        "\"benchmark_duration\": {\"unit\": \"ms\", \"avg\": 2000}}\n";
    static const struct change d[] = {
        { "\"avg\": 2000", "\"avg\": 2500", "request_throughput avg: the file states 2.5", 2 },
        { "\"avg\": 17.5", "\"avg\": 18", "output_token_throughput avg: the file states 18", 1 },
        { "\"avg\": 4}", "\"avg\": 6}", "good_request_count avg: the file states 6", 1 },
    };
    check_changes(sglang, c, sizeof c / sizeof *c);
    check_changes(export, d, sizeof d / sizeof *d);
    check_changes(kept, NULL, 0);
    struct seen *s = look(cli_put("more", with(kept, "[1, 1]", "[1]")), 0, 0);
    CHECK_INT(s->st, ST_USAGE);
    CHECK_HAS(s->e.text, "states 2 completed requests, and has rows of 1");
    done(s);
}

TEST(import_check_of_guidellm)
{
    static const char text[] =
        "{\"metadata\": {\"version\": 2}, \"benchmarks\": [{\"duration\": 2.0, "
        "\"scheduler_metrics\":\n"
        "{\"requests_made\": {\"total\": 2}}, \"requests\": {\"successful\": [\n"
        "{\"prompt_tokens\": 4, \"output_tokens\": 3, \"info\": {\"timings\": {\"targeted_start\": "
        "10.0,\n"
        "\"request_start\": 10.0, \"first_token_iteration\": 10.5, \"last_token_iteration\": "
        "10.9,\n"
        "\"request_end\": 11.0}}}], \"errored\": [{\"info\": {\"timings\": {\"request_start\": "
        "11.0}}}],\n"
        "\"incomplete\": []}, \"metrics\": {\"request_totals\": {\"successful\": 1, \"errored\": "
        "1},\n"
        "\"time_to_first_token_ms\": {\"successful\": {\"count\": 1, \"mean\": 500.0}},\n"
        "\"output_token_count\": {\"successful\": {\"count\": 1, \"mean\": 3.0}}}}]}\n";
    static const struct change c[] = {
        { "\"successful\": 1,", "\"successful\": 7,",
          "request_totals successful: the file states 7, its requests give 1", 1 },
        { "\"errored\": 1", "\"errored\": 0", "request_totals errored: the file states 0", 1 },
        { "500.0", "400.0",
          "time_to_first_token_ms mean: the file states 400, its requests give 500", 1 },
        { "\"mean\": 3.0", "\"mean\": 4.0", "output_token_count mean", 1 },
        { "\"duration\": 2.0", "\"duration\": 0.5", "duration: the file states 0.5", 1 },
    };
    check_changes(text, c, sizeof c / sizeof *c);
    /* of a sample totals say nothing */
    struct seen *s = look(cli_put("sample", with(text, "\"total\": 2", "\"total\": 20")), 0, 0);
    CHECK_INT(s->f.run[0].doubts.n, 0);
    done(s);
}

TEST(import_check_of_points)
{
    static const char nccl[] =
        "# nccl-tests version 2.17.6\n# Collective test starting: all_reduce_perf\n"
        "#  Rank  0 Pid 1\n#  Rank  1 Pid 1\n"
        "#  size count type redop root time algbw busbw #wrong time algbw busbw #wrong\n"
        " 1000000 250000 float sum -1 100.0 10.00 10.00 0 200.0 5.00 5.00 0\n"
        "# Out of bounds values : 0 OK\n# Avg bus bandwidth    : 7.5\n";
    static const struct change c[] = {
        { ": 7.5", ": 8.5", "average bus bandwidth: the file states 8.5 GB/s, its rows give 7.5",
          1 },
        { "values : 0 OK", "values : 3 FAILED", "out of bounds values: the file states 3", 1 },
        { "5.00 5.00 0", "5.00 5.00 2", "its rows give 2", 1 },
        { "100.0 10.00 10.00", "50.0 10.00 10.00",
          "the file states 10 GB/s, its time gives 20 GB/s", 1 },
    };
    static const char llama[] =
        "{\"n_prompt\": 10, \"n_gen\": 0, \"n_threads\": 2, \"avg_ns\": 1500000000,\n"
        "\"avg_ts\": 7.5, \"samples_ns\": [1000000000, 2000000000]}\n";
    static const struct change d[] = {
        { "1500000000", "1600000000", "avg_ns: the file states 1.6e+09, its samples give 1.5e+09",
          1 },
        { "7.5", "6.67", "avg_ts: the file states 6.67, its samples give 7.5", 1 },
    };
    check_changes(nccl, c, sizeof c / sizeof *c);
    check_changes(llama, d, sizeof d / sizeof *d);
}

/* The files that stand for each tool agree with themselves. */
TEST(import_check_doubts_no_file_that_agrees)
{
    static const char *const name[] = { "vllm_bench_serve.detailed.json",
                                        "vllm_bench_serve.summary.json",
                                        "vllm_bench_serve.legacy.json",
                                        "guidellm_benchmarks.json",
                                        "aiperf_profile_export.json",
                                        "aiperf_profile_export.jsonl",
                                        "genai_perf_profile_export.json",
                                        "sglang_bench_serving.jsonl",
                                        "mlperf_log_summary.txt",
                                        "nccl_tests_all_reduce.json",
                                        "nccl_tests_all_reduce.txt",
                                        "llama_bench.json",
                                        "llama_bench.jsonl",
                                        "aiperf_aggregate.json" };
    for (size_t i = 0; i < sizeof name / sizeof *name; i++) {
        char path[200];
        snprintf(path, sizeof path, "../formats/%s", name[i]);
        struct seen *s = look(test_data(path), 0, 0);
        CHECK_INT(s->st, ST_OK);
        const struct import_doubts *d = doubts_of(s);
        if (!CHECK_INT(d->n, 0)) printf("    %s: %s\n", name[i], d->text[0]);
        done(s);
    }
}

TEST(import_warns_of_what_it_doubts)
{
    const char *path =
        cli_put("v.json", with(vllm, "\"mean_ttft_ms\": 200", "\"mean_ttft_ms\": 20"));
    const char *h5_path = cli_path("run.h5");
    CHECK_INT(cli_run("", "import %s --json --out=%s", path, h5_path), 0);
    CHECK_HAS(cli_err, "orrery import: warning: ");
    CHECK_HAS(cli_err, "mean_ttft_ms: the file states 20, its requests give 200\n");
    json_t *j = cli_json(), *first = json_array_get(cli_at(j, "runs"), 0);
    CHECK_INT(json_array_size(cli_at(first, "doubts")), 1);
    json_decref(j);
    struct arena a;
    struct err e = { 0 };
    char *text = NULL;
    arena_init(&a);
    h5 *f = h5_open(h5_path, &e);
    CHECK_OK(h5_read_attr_text(f, "/provenance", "source_doubts", &a, &text, &e), &e);
    CHECK_HAS(text, "states 20, its requests give 200");
    h5_close(f);
    arena_release(&a);
}

TEST(import_refuses_options_without_an_effect)
{
    const char *serving = cli_put("v.json", vllm);
    const char *bench = cli_put(
        "l.json", "{\"n_prompt\": 10, \"n_gen\": 0, \"n_threads\": 2, \"avg_ns\": 1500000000}\n");
    CHECK_INT(cli_run("", "import %s --collective=all_reduce", serving), 2);
    CHECK_HAS(cli_err, "not of nccl-tests");
    CHECK_INT(cli_run("", "import %s --slo.attainment=0.9", serving), 2);
    CHECK_HAS(cli_err, "of which limit");
    CHECK_INT(cli_run("", "import %s --slo.ttft=1s", bench), 2);
    CHECK_HAS(cli_err, "holds microbenchmarks, not runs");
    CHECK_INT(cli_run("", "import %s --out=/nowhere/x.h5", serving), 5);
    CHECK_HAS(cli_err, "No such file");
    CHECK_INT(cli_run("", "import %s --out=%s", serving, serving), 2);
    CHECK_HAS(cli_err, "would be replaced");
}
