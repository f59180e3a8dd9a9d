/* tests/test_import_answers.c - other tools' files that come with the real data, against the
 * answers that come with them. SPDX-License-Identifier: Apache-2.0 */
#include <jansson.h>

#include "tests/import_env.h"

#define FORMATS "../formats/"

static json_t *answers(void)
{
    json_t *j = json_load_file(test_data(FORMATS "known_answers.json"), 0, NULL);
    CHECK(j != NULL);
    return j;
}

static double answer(const json_t *j, const char *group, const char *key)
{
    return json_number_value(json_object_get(json_object_get(j, group), key));
}

static int64_t count(const json_t *j, const char *group, const char *key, size_t i)
{
    return json_integer_value(json_array_get(json_object_get(json_object_get(j, group), key), i));
}

/* got rounds to the answer: at least six decimals are given. */
static void exact(double got, double want, const char *what)
{
    if (!CHECK(fabs(got - want) <= 0.5000001e-6))
        printf("    %s is %.9f, not %.9f\n", what, got, want);
}

#define EXACT(group, key, got) exact(got, answer(j, group, key), group "." key)

TEST(import_answers_vllm)
{
    json_t *j = answers();
    struct seen *s = look(test_data(FORMATS "vllm_bench_serve.detailed.json"), 200, 20);
    if (!CHECK_INT(s->st, ST_OK)) return;
    CHECK_INT(s->f.tool, IMPORT_VLLM);
    EXACT("vllm", "mean_ttft_ms", row(s, "vllm", "mean_ttft_ms"));
    EXACT("vllm", "mean_tpot_ms", row(s, "vllm", "mean_tpot_ms"));
    EXACT("vllm", "mean_itl_ms", row(s, "vllm", "mean_itl_ms"));
    EXACT("vllm", "n_itl", row(s, "vllm", "n_itl"));
    EXACT("vllm", "good", row(s, "vllm", "good"));
    CHECK_NEAR(row(s, "vllm", "request_goodput"), answer(j, "vllm", "request_goodput"), 1e-9);
    CHECK_NEAR(row(s, "vllm", "output_throughput"), answer(j, "vllm", "output_throughput"), 1e-9);
    EXACT("guidellm", "mean_time_per_output_token_ms",
          row(s, "guidellm", "mean_time_per_output_token_ms"));
    EXACT("guidellm", "mean_inter_token_latency_ms",
          row(s, "guidellm", "mean_inter_token_latency_ms"));
    EXACT("aiperf", "mean_itl_ms", row(s, "aiperf", "mean_itl_ms"));
    EXACT("aiperf", "mean_icl_ms", row(s, "aiperf", "mean_icl_ms"));
    EXACT("aiperf", "good", row(s, "aiperf", "good"));
    EXACT("aiperf", "benchmark_duration_s", row(s, "aiperf", "benchmark_duration_s"));
    EXACT("aiperf", "goodput", row(s, "aiperf", "goodput"));
    EXACT("llmperf_style", "mean_itl_ms", row(s, "llmperf", "mean_itl_ms"));
    CHECK(isnan(row(s, "mlperf", "mean_ttft_ms"))); /* no due times */
    EXACT("vllm", "mean_ttft_ms", stated(s, "mean_ttft_ms"));
    CHECK_NEAR(s->g.latency[FIGURES_ITL].p99, 1e6 * stated(s, "p99_itl_ms"), 1e-9);
    CHECK_NEAR(s->g.latency[FIGURES_TPOT].p90, 1e6 * stated(s, "p90_tpot_ms"), 1e-9);
    done(s);
    json_decref(j);
}

TEST(import_answers_fluidity)
{
    json_t *j = answers();
    const json_t *list = json_object_get(j, "etalon_like"), *one;
    size_t i;
    json_array_foreach(list, i, one)
    {
        int64_t limit_ms = llround(1e3 * json_number_value(json_object_get(one, "Dp_s")));
        struct seen *s = look(test_data(FORMATS "vllm_bench_serve.detailed.json"), limit_ms, 20);
        if (!CHECK_INT(s->st, ST_OK)) return;
        for (int64_t r = 0; r < 6; r++) {
            char key[8];
            snprintf(key, sizeof key, "R%d", (int)r);
            const json_t *pair = json_object_get(json_object_get(one, "missed_total"), key);
            CHECK_INT(s->g.fluid[r].missed, json_integer_value(json_array_get(pair, 0)));
            CHECK_INT(s->g.fluid[r].total, json_integer_value(json_array_get(pair, 1)));
        }
        CHECK_INT(s->g.n_fluid, 5);
        done(s);
    }
    CHECK_INT(json_array_size(list), 2);
    json_decref(j);
}

static void check_ours(const struct seen *s, const json_t *j)
{
    const struct figures_stat *l = s->g.latency;
    const json_t *lag = json_object_get(json_object_get(j, "orrery"), "lag_ms");
    EXACT("orrery", "mean_ttft_due_ms", l[FIGURES_TTFT].mean / 1e6);
    EXACT("orrery", "mean_ttft_send_ms", l[FIGURES_TTFT_SEND].mean / 1e6);
    EXACT("orrery", "mean_tpot_ms", l[FIGURES_TPOT].mean / 1e6);
    EXACT("orrery", "n_tpot", (double)l[FIGURES_TPOT].n);
    EXACT("orrery", "mean_itl_ms", l[FIGURES_ITL].mean / 1e6);
    EXACT("orrery", "n_itl", (double)l[FIGURES_ITL].n);
    EXACT("orrery", "mean_itl_tok_ms", l[FIGURES_ITL_TOK].mean / 1e6);
    EXACT("orrery", "n_itl_tok", (double)l[FIGURES_ITL_TOK].n);
    EXACT("orrery", "mean_norm_lat_ms", l[FIGURES_NORM_LAT].mean / 1e6);
    exact(l[FIGURES_LAG].p50 / 1e6, json_number_value(json_object_get(lag, "p50")), "lag p50");
    exact(l[FIGURES_LAG].p99 / 1e6, json_number_value(json_object_get(lag, "p99")), "lag p99");
    exact(l[FIGURES_LAG].max / 1e6, json_number_value(json_object_get(lag, "max")), "lag max");
    EXACT("orrery", "p50_ttft_due_ms_ok_only", l[FIGURES_TTFT].p50 / 1e6);
    EXACT("orrery", "p50_ttft_due_ms_failed_as_inf", s->g.ttft_p50_failed / 1e6);
    CHECK(s->g.ttft_p99_failed == INFINITY);
}

static void check_counts(const struct seen *s, const json_t *j)
{
    CHECK(s->g.client_limited);
    CHECK_INT(s->g.met, count(j, "orrery", "attainment_due", 0));
    CHECK_INT(s->g.n_due, count(j, "orrery", "attainment_due", 1));
    CHECK_INT(s->g.met_send, count(j, "orrery", "attainment_send", 0));
    CHECK_INT(s->g.met_ttft, count(j, "orrery", "attainment_ttft_only_due", 0));
    CHECK_INT(s->g.n_vacuous, (int64_t)answer(j, "orrery", "n_tpot_vacuous"));
    CHECK_INT(row(s, "guidellm", "good"), count(j, "guidellm", "good_of_evaluable", 0));
    CHECK_INT(row(s, "guidellm", "evaluable"), count(j, "guidellm", "good_of_evaluable", 1));
    CHECK_INT(row(s, "aiperf", "good"), (int64_t)answer(j, "aiperf", "good"));
    CHECK_INT(row(s, "vllm", "good"), (int64_t)answer(j, "vllm", "good"));
}

TEST(import_answers_guidellm)
{
    json_t *j = answers();
    struct seen *s = look(test_data(FORMATS "guidellm_benchmarks.json"), 200, 20);
    if (!CHECK_INT(s->st, ST_OK)) return;
    CHECK_INT(s->f.tool, IMPORT_GUIDELLM);
    CHECK_INT(s->f.run[0].due, IMPORT_DUE_PLAN);
    check_ours(s, j);
    check_counts(s, j);
    EXACT("guidellm", "mean_ttft_ms", row(s, "guidellm", "mean_ttft_ms"));
    EXACT("guidellm", "mean_time_per_output_token_ms",
          row(s, "guidellm", "mean_time_per_output_token_ms"));
    EXACT("guidellm", "mean_inter_token_latency_ms",
          row(s, "guidellm", "mean_inter_token_latency_ms"));
    EXACT("guidellm", "count_itl", row(s, "guidellm", "count_itl"));
    EXACT("mlperf", "mean_ttft_from_schedule_ms_excluding_single_token",
          row(s, "mlperf", "mean_ttft_ms"));
    EXACT("llmperf_style", "mean_itl_ms", row(s, "llmperf", "mean_itl_ms"));
    EXACT("guidellm", "mean_time_per_output_token_ms", stated(s, "time_per_output_token_ms mean"));
    done(s);
    json_decref(j);
}

/* Its instants were rounded to 256 ns, as doubles of epoch ns are, so due-clock answers hold to
 * that; what counts durations is exact. */
TEST(import_answers_aiperf)
{
    json_t *j = answers();
    struct seen *s = look(test_data(FORMATS "aiperf_profile_export.jsonl"), 200, 20);
    if (!CHECK_INT(s->st, ST_OK)) return;
    CHECK_INT(s->f.tool, IMPORT_AIPERF);
    CHECK_INT(s->f.run[0].due, IMPORT_DUE_RELEASED);
    EXACT("aiperf", "mean_ttft_ms", row(s, "aiperf", "mean_ttft_ms"));
    EXACT("aiperf", "mean_itl_ms", row(s, "aiperf", "mean_itl_ms"));
    EXACT("aiperf", "mean_icl_ms", row(s, "aiperf", "mean_icl_ms"));
    EXACT("aiperf", "goodput", row(s, "aiperf", "goodput"));
    EXACT("aiperf", "benchmark_duration_s", row(s, "aiperf", "benchmark_duration_s"));
    check_counts(s, j);
    CHECK(fabs(s->g.latency[FIGURES_TTFT].mean / 1e6 - answer(j, "orrery", "mean_ttft_due_ms")) <
          256e-6);
    done(s);
    s = look(test_data(FORMATS "aiperf_profile_export.json"), 0, 0);
    CHECK_INT(s->f.tool, IMPORT_AIPERF);
    EXACT("aiperf", "mean_itl_ms", stated(s, "inter_token_latency avg"));
    EXACT("aiperf", "goodput", stated(s, "goodput avg"));
    EXACT("aiperf", "benchmark_duration_s", stated(s, "benchmark_duration avg"));
    CHECK_INT(s->f.run[0].n_request, 0);
    done(s);
    json_decref(j);
}

TEST(import_reads_every_summary)
{
    json_t *j = answers();
    struct seen *s = look(test_data(FORMATS "mlperf_log_summary.txt"), 0, 0);
    CHECK_INT(s->f.tool, IMPORT_MLPERF);
    EXACT("mlperf", "mean_ttft_from_schedule_ms_excluding_single_token",
          stated(s, "Mean First Token latency (ns)") / 1e6);
    CHECK_HAS(s->f.run[0].note[0], "INVALID");
    done(s);
    s = look(test_data(FORMATS "vllm_bench_serve.legacy.json"), 0, 0);
    CHECK_INT(s->f.tool, IMPORT_VLLM);
    CHECK_NEAR(stated(s, "request_goodput"), answer(j, "vllm", "request_goodput"), 1e-9);
    CHECK(stated(s, "request_rate") == INFINITY);
    done(s);
    s = look(test_data(FORMATS "vllm_bench_serve.summary.json"), 0, 0);
    CHECK_INT(s->f.run[0].n_request, 0);
    CHECK(stated(s, "p99.9_itl_ms") == 146.75);
    done(s);
    s = look(test_data(FORMATS "sglang_bench_serving.jsonl"), 0, 0);
    CHECK_INT(s->f.tool, IMPORT_SGLANG);
    CHECK(stated(s, "p99_e2e_latency_ms") == 447.36);
    done(s);
    s = look(test_data(FORMATS "genai_perf_profile_export.json"), 0, 0);
    CHECK_INT(s->f.tool, IMPORT_GENAI_PERF);
    EXACT("aiperf", "mean_itl_ms", stated(s, "inter_token_latency avg"));
    done(s);
    s = look(test_data(FORMATS "aiperf_aggregate.json"), 0, 0);
    CHECK_INT(s->f.tool, IMPORT_AIPERF);
    CHECK(s->f.run[0].figure[1].lo == 276.832498 && s->f.run[0].figure[1].hi == 323.367502);
    done(s);
    s = look(test_data(FORMATS "hyperfine.json"), 0, 0);
    CHECK_INT(s->st, ST_USAGE);
    CHECK_HAS(s->e.text, "hyperfine");
    done(s);
    json_decref(j);
}

/* busbw and algbw from sizes and times, against the digits of the JSON form. */
TEST(import_answers_nccl_tests)
{
    static const char *const name[] = { FORMATS "nccl_tests_all_reduce.json",
                                        FORMATS "nccl_tests_all_reduce.txt" };
    for (int k = 0; k < 2; k++) {
        struct seen *s = look(test_data(name[k]), 0, 0);
        CHECK_INT(s->f.tool, IMPORT_NCCL_TESTS);
        CHECK(strcmp(s->f.machine, "Synthetic GPU 80GB") == 0);
        if (!CHECK_INT(s->f.n_point, 8)) return;
        for (int i = 0; i < 8; i++) {
            const struct import_point *p = &s->f.point[i];
            double bw = p->row.bytes / p->s_per_call[0],
                   bus = bw * import_bus_factor((enum points_op)p->row.op, p->row.ranks);
            CHECK_INT(p->row.op, POINTS_ALLREDUCE);
            CHECK_INT(p->row.dtype, POINTS_F32);
            CHECK_INT(p->row.ranks, 8);
            CHECK_INT(p->row.part, i % 2 ? POINTS_IN_PLACE : POINTS_NO_PART);
            CHECK_INT(p->calls, 20);
            CHECK(p->row.error == 0);
            CHECK_NEAR(bw, p->stated_algbw, k ? 1.5e-4 : 2e-8);
            CHECK_NEAR(bus, p->stated_busbw, k ? 1.5e-4 : 2e-8);
        }
        done(s);
    }
}

TEST(import_answers_llama_bench)
{
    static const char *const name[] = { FORMATS "llama_bench.json", FORMATS "llama_bench.jsonl" };
    json_t *j = answers();
    for (int k = 0; k < 2; k++) {
        struct seen *s = look(test_data(name[k]), 0, 0);
        CHECK_INT(s->f.tool, IMPORT_LLAMA_BENCH);
        if (!CHECK_INT(s->f.n_point, 2)) return;
        const struct import_point *p = &s->f.point[0];
        EXACT("llama_bench", "pp512_tok_per_s_of_mean_time",
              512 / stat_mean(p->s_per_call, (size_t)p->n_sample));
        EXACT("llama_bench", "pp512_avg_ts_as_printed", p->stated_tok_per_s);
        CHECK(p->row.op == POINTS_PREFILL && p->row.m == 512 && p->row.threads == 8);
        p = &s->f.point[1];
        CHECK(p->row.op == POINTS_DECODE && p->row.n == 128 && p->row.ctx == 512);
        CHECK_INT(p->n_sample, 5);
        CHECK(s->f.mixed == NULL);
        done(s);
    }
    json_decref(j);
}
