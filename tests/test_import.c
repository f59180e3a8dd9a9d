/* tests/test_import.c - other tools' results: recognised, read to the ns, recomputed by every
 * definition, and refused in one sentence where they are not what they seem.
 * SPDX-License-Identifier: Apache-2.0 */
#include <jansson.h>
#include <unistd.h>

#include "base/rng.h"
#include "tests/cli.h"
#include "tests/import_env.h"

static const char *put_bytes(const char *name, const char *bytes, size_t n)
{
    const char *path = cli_path(name);
    FILE *f = fopen(path, "wb");
    if (f) fwrite(bytes, 1, n, f);
    if (f) fclose(f);
    return path;
}

static const char *put(const char *name, const char *text)
{
    return put_bytes(name, text, strlen(text));
}

static int import(const char *a, const char *b, const char *c, const char *d)
{
    const char *given[] = { a, b, c, d };
    char args[2000] = "";
    for (int i = 0; i < 4 && given[i]; i++)
        snprintf(args + strlen(args), sizeof args - strlen(args), " '%s'", given[i]);
    return cli_run("", "import%s", args);
}

/* stderr holds one sentence with `part`, stdout nothing. */
static void check_refused(int rc, int want, const char *part)
{
    const char *end = strchr(cli_err, '\n');
    CHECK_INT(rc, want);
    CHECK_TEXT(cli_out, "");
    CHECK(strncmp(cli_err, "orrery import: ", 15) == 0 && end && end[1] == 0);
    CHECK_HAS(cli_err, part);
}

/* ---- small files of our own */

/* Three requests: 2 s to the first of 3 tokens, then 1 s and 3 s; one token after 4 s; a failure.
 * NaN, a duplicate key (the last counts), a number as text, an unknown key. */
static const char vllm_text[] =
    "{\"duration\": 1.0, \"completed\": 2, \"model_id\": \"m\", \"odd\": NaN, \"rtfx\": Infinity,\n"
    " \"duration\": 20.0, \"request_rate\": \"inf\", \"mean_tpot_ms\": \"2000.0\",\n"
    " \"input_lens\": [5, 6, 7], \"output_lens\": [3, 1, 0], \"ttfts\": [2.0, 4, 0.0],\n"
    " \"latencies\": [6.0, 4.0, 0.0], \"start_times\": [100.25, 101.5, 110.0],\n"
    " \"itls\": [[1.0, 3.0], [], []], \"errors\": [\"\", \"\", \"no\"]}\n";

TEST(import_reads_vllm_lists)
{
    struct seen *s = look(put("v.json", vllm_text), 3000, 2000);
    if (!CHECK_INT(s->st, ST_OK)) return;
    const struct import_run *r = &s->f.run[0];
    CHECK_INT(s->f.n_run, 1);
    CHECK_INT(r->n_request, 3);
    CHECK_INT(r->due, IMPORT_DUE_SENT);
    CHECK_TEXT(r->model, "m");
    CHECK(r->duration_s == 20 && stated(s, "mean_tpot_ms") == 2000);
    CHECK_INT(r->request[1].row.t_start_ns, 1250000000);
    CHECK_INT(r->request[1].row.t_first_ns, 5250000000);
    CHECK_INT(r->request[2].row.status, RUN_FAILED);
    CHECK_INT(r->request[2].row.t_first_ns, -1);
    CHECK_INT(r->request[2].row.n_in, 7);
    CHECK(s->g.latency[FIGURES_TTFT].mean == 3e9 && s->g.latency[FIGURES_TTFT].n == 2);
    CHECK(s->g.latency[FIGURES_TPOT].mean == 2e9 && s->g.latency[FIGURES_TPOT].n == 1);
    CHECK(s->g.latency[FIGURES_ITL].mean == 2e9 && s->g.latency[FIGURES_ITL].p50 == 2e9);
    CHECK(s->g.latency[FIGURES_NORM_LAT].mean == 3e9);
    CHECK(s->g.window_s == 6 && s->g.requests_per_s == 2 / 6.0);
    CHECK_INT(s->g.met, 1); /* 2 s <= 3 s and 2 s <= 2 s; the other is late, the last failed */
    CHECK_INT(s->g.met_tpot, 2);
    CHECK_INT(s->g.n_vacuous, 1);
    CHECK(row(s, "guidellm", "mean_time_per_output_token_ms") == 2500);
    CHECK(row(s, "guidellm", "evaluable") == 2);
    CHECK(row(s, "aiperf", "good") == 1);
    CHECK(row(s, "vllm", "request_goodput") == 1 / 20.0);
    CHECK(row(s, "llmperf", "mean_itl_ms") == 3000);
    CHECK(!s->g.client_limited);
    /* Deadlines 3 s then 2 s: met, 1 s over; met, 2 s over; met. The other is late by 1 s: one. */
    CHECK(s->g.fluid[0].missed == 0 && s->g.fluid[0].total == 3);
    CHECK(s->g.fluid[1].missed == 1 && s->g.fluid[1].total == 1);
    CHECK(s->g.fluidity == .5);
    done(s);
}

/* Older files have neither instants nor latencies: durations remain. */
TEST(import_reads_vllm_without_instants)
{
    struct seen *s = look(put("v.json", "{\"duration\": 8, \"completed\": 2, \"output_lens\": [2, "
                                        "2], \"ttfts\": [1.0, 3.0], \"itls\": [[1.0], [3.0]]}"),
                          0, 0);
    if (!CHECK_INT(s->st, ST_OK)) return;
    CHECK_INT(s->f.run[0].due, IMPORT_DUE_UNKNOWN);
    CHECK(s->g.latency[FIGURES_E2E_SEND].mean == 4e9);
    CHECK(s->g.latency[FIGURES_TPOT].mean == 2e9);
    CHECK(s->g.requests_per_s == .25 && s->g.output_tok_per_s == .5);
    CHECK(isnan(row(s, "aiperf", "benchmark_duration_s")));
    done(s);
}

/* What the client's own limit on concurrency held back counts from when it was queued. */
TEST(import_counts_the_queue_of_vllm)
{
    struct seen *s = look(
        put("v.json", "{\"duration\": 8, \"completed\": 2, \"output_lens\": [1, 1], \"ttfts\": "
                      "[1.0, 1.0], \"latencies\": [1.0, 1.0], \"start_times\": [10.0, 12.5], "
                      "\"queue_times\": [0.0, 2.5]}"),
        0, 0);
    if (!CHECK_INT(s->st, ST_OK)) return;
    CHECK_INT(s->f.run[0].due, IMPORT_DUE_QUEUED);
    CHECK(s->g.latency[FIGURES_TTFT].max == 3.5e9 && s->g.latency[FIGURES_TTFT_SEND].max == 1e9);
    CHECK(s->g.latency[FIGURES_LAG].max == 2.5e9 && s->g.client_limited);
    done(s);
}

/* An epoch time as Python prints it is taken at its decimals, not at its double's 2e-7 s. */
static const char guide_text[] =
    "{\"metadata\": {\"version\": 2, \"guidellm_version\": \"0.9\"}, \"benchmarks\": [{\"config\": "
    "{\"strategy\": {\"type_\": \"constant\", \"rate\": 2}}, \"duration\": 9.5, \"requests\": "
    "{\"successful\": [{\"prompt_tokens\": 4, \"output_tokens\": 3, \"info\": {\"timings\": "
    "{\"targeted_start\": 1700000000.1, \"request_start\": 1700000000.1007, "
    "\"first_token_iteration\": 1700000000.3000002, \"last_token_iteration\": 1700000001.3, "
    "\"token_iterations\": 2, \"request_end\": 1700000001.31}}}], \"errored\": null, "
    "\"incomplete\": [{\"prompt_tokens\": 9, \"output_tokens\": null, \"info\": {\"timings\": "
    "{\"targeted_start\": 1700000000, \"request_start\": 1700000000.0}}}]}}]}";

TEST(import_reads_epoch_seconds_to_the_ns)
{
    struct seen *s = look(put("g.json", guide_text), 0, 0);
    if (!CHECK_INT(s->st, ST_OK)) return;
    const struct run_request *r = &s->f.run[0].request[0].row;
    CHECK_TEXT(s->f.version, "0.9");
    CHECK_TEXT(s->f.run[0].title, "constant 2/s");
    CHECK_INT(r->t_due_ns, 100000000);
    CHECK_INT(r->t_start_ns, 100700000);
    CHECK_INT(r->t_first_ns, 300000200);
    CHECK_INT(r->t_last_ns, 1300000000);
    CHECK(s->g.latency[FIGURES_ITL].mean == 999999800 && s->g.latency[FIGURES_ITL].n == 1);
    CHECK(isnan(s->g.latency[FIGURES_ITL].p50));
    CHECK_INT(s->f.run[0].request[1].row.status, RUN_UNFINISHED);
    CHECK_INT(s->g.n_unfinished, 1);
    CHECK_INT(s->g.n_due, 2);
    done(s);
}

static const char aiperf_text[] =
    "{\"metadata\": {\"benchmark_phase\": \"warmup\", \"request_start_ns\": 5}, \"metrics\": {}, "
    "\"error\": null}\n"
    "{\"metadata\": {\"credit_issued_ns\": 1770000000000000001, \"request_start_ns\": "
    "1770000000000000011, \"session_num\": 3}, \"metrics\": {\"time_to_first_token\": {\"value\": "
    "2.5, \"unit\": \"us\"}, \"request_latency\": {\"value\": 0.001, \"unit\": \"s\"}, "
    "\"output_sequence_length\": {\"value\": 2, \"unit\": \"tokens\"}, \"inter_chunk_latency\": "
    "{\"value\": [997.5], \"unit\": \"us\"}}, \"error\": null}\n"
    "{\"metadata\": {\"credit_issued_ns\": 1770000000000000021, \"request_start_ns\": "
    "1770000000000000021}, \"metrics\": {\"error_isl\": {\"value\": 8, \"unit\": \"tokens\"}}, "
    "\"error\": {\"code\": 500}}\n";

TEST(import_reads_units_beside_values)
{
    struct seen *s = look(put("a.jsonl", aiperf_text), 0, 0);
    if (!CHECK_INT(s->st, ST_OK)) return;
    const struct import_run *r = &s->f.run[0];
    CHECK_INT(r->n_request, 2);
    CHECK_HAS(r->note[0], "1 records of the warm-up");
    CHECK_INT(r->request[0].row.t_due_ns, 0);
    CHECK_INT(r->request[0].row.t_start_ns, 10);
    CHECK_INT(r->request[0].row.t_first_ns, 2510);
    CHECK_INT(r->request[0].row.t_last_ns, 1000010);
    CHECK_INT(r->request[0].row.session, 3);
    CHECK(s->g.latency[FIGURES_ITL].mean == 997500);
    CHECK_INT(r->request[1].row.status, RUN_FAILED);
    CHECK_INT(r->request[1].row.n_in, 8);
    done(s);
}

static const char nccl_text[] =
    "host:1:1 [0] NCCL INFO busy\n"
    "# Collective test starting: all_gather_perf\n"
    "# nThread 1 nGpus 2 minBytes 8 maxBytes 8 step: 2(factor) warmup iters: 5 iters: 7 agg iters: "
    "3 validation: 1\n"
    "#  Rank  0 Group  0 Pid 1 on h device 0 [0x00] G\n"
    "#  Rank  1 Group  0 Pid 1 on h device 1 [0x00] G\n"
    "#       size         count      type   redop    root     time   algbw   busbw   error     "
    "time  "
    " algbw   busbw  error\n"
    "#        (B)    (elements)                               (us)  (GB/s)  (GB/s)             "
    "(us)\n"
    "host:1:1 [0] NCCL INFO more\n"
    "  2e+09  500000000  bfloat16  none  -1  1e+06  2.00  1.00  N/A  500000  4.00  2.00  3\n"
    "# Out of bounds values : 3 FAILED\n";

TEST(import_maps_columns_of_nccl_tests)
{
    struct seen *s = look(put("n.txt", nccl_text), 0, 0);
    if (!CHECK_INT(s->st, ST_OK) || !CHECK_INT(s->f.n_point, 2)) return;
    const struct import_point *p = s->f.point;
    CHECK(p[0].row.op == POINTS_ALLGATHER && p[0].row.ranks == 2 && p[0].row.bytes == 2e9);
    CHECK_INT(p[0].row.dtype, POINTS_BF16);
    CHECK(strcmp(s->f.machine, "G") == 0);
    CHECK_INT(p[0].calls, 7);
    CHECK(p[0].s_per_call[0] == 1 && p[0].stated_busbw == 1e9);
    CHECK(p[0].row.error == -1 && p[1].row.error == 1);
    CHECK(import_bus_factor(POINTS_ALLGATHER, 2) == .5);
    CHECK(import_bus_factor(POINTS_ALLREDUCE, 4) == 1.5);
    CHECK(import_bus_factor(POINTS_BROADCAST, 4) == 1);
    CHECK(isnan(import_bus_factor(POINTS_ALLREDUCE, 0)));
    done(s);
    CHECK_INT(import(put("n.txt", nccl_text), NULL, NULL, NULL), 1);
    CHECK_HAS(cli_out, "WRONG DATA in 1 rows");
}

/* Older tables do not say what they are of; mpirun may tag each line. */
#define OLD_HEAD                                                                                   \
    "[1,0]<stdout>:#  Rank  0 Pid 1\n[1,0]<stdout>:#  Rank  1 Pid 1\n#  Rank  2 Pid 1\n"           \
    "[1,0]<stdout>:#  Rank  3 Pid 1\n"                                                             \
    "# size count type redop root time algbw busbw #wrong time algbw busbw #wrong\n"
#define OLD_ROW(redop, root, busbw)                                                                \
    "[1,0]<stdout>: 1000 250 float " redop " " root " 1.0 1.00 " busbw " 0 1.0 1.00 " busbw " 0\n"

TEST(import_finds_the_collective)
{
    static const struct {
        const char *text;
        int op; /* -1: cannot be known */
    } known[] = { { OLD_HEAD OLD_ROW("sum", "-1", "1.50"), POINTS_ALLREDUCE },
                  { OLD_HEAD OLD_ROW("sum", "-1", "0.75"), POINTS_REDUCESCATTER },
                  { OLD_HEAD OLD_ROW("sum", "-1", "0.20"), -1 },
                  { OLD_HEAD OLD_ROW("none", "-1", "0.75"), -1 },
                  { OLD_HEAD OLD_ROW("sum", "0", "1.50"), -1 },
                  { "$ ./build/alltoall_perf -b 8\n" OLD_HEAD OLD_ROW("none", "-1", "0.75"),
                    POINTS_ALLTOALL },
                  { "alltoall_perf all_gather_perf\n" OLD_HEAD OLD_ROW("none", "-1", "0.75"),
                    -1 } };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const char *path = put("n.txt", known[i].text);
        struct seen *s = look(path, 0, 0);
        CHECK_INT(s->st, known[i].op < 0 ? ST_USAGE : ST_OK);
        if (known[i].op < 0)
            CHECK_HAS(s->e.text, "--collective=");
        else
            CHECK(s->f.n_point == 2 && s->f.point[1].row.op == known[i].op && s->f.inferred &&
                  s->f.point[0].row.ranks == 4);
        done(s);
        CHECK_INT(import(path, "--collective=all_gather", NULL, NULL), 0);
        CHECK_HAS(cli_out, "allgather");
        check_refused(import(path, "--collective=waltz", NULL, NULL), 2, "waltz");
    }
}

static const char llama_text[] = "{\"n_prompt\": 8, \"n_gen\": 0, \"model_type\": \"t 1B F16\", "
                                 "\"n_batch\": 1, \"samples_ns\": [1000, 3000]}\n"
                                 "{\"n_prompt\": 0, \"n_gen\": 4, \"model_type\": \"t 1B F16\", "
                                 "\"n_batch\": 2, \"avg_ns\": 2000}\n";
static const char mlperf_text[] = "MLPerf Results Summary\nScenario : Server\nResult is : VALID\n"
                                  "Mean latency (ns) : 306200000\n";

/* ---- what the command writes */

TEST(import_writes_a_run_file)
{
    struct arena a;
    struct err e = { 0 };
    struct run_file f;
    struct ci *c;
    double *x;
    size_t n;
    int n_stat;
    char *text, option[600];
    const char *h5_path = cli_path("run.h5");
    arena_init(&a);
    snprintf(option, sizeof option, "--out=%s", h5_path);
    CHECK_INT(import(put("v.json", vllm_text), option, "--slo.ttft=3s", "--slo.tpot=2s"), 1);
    CHECK_HAS(cli_out, "1 of 3 due");
    CHECK_OK(run_open(h5_path, &a, &f, &e), &e);
    CHECK_TEXT(f.kind, "measured");
    CHECK_INT(f.n_request, 3);
    CHECK_OK(run_column(&f, "requests/t_first", &a, &x, &n, &e), &e);
    CHECK(n == 3 && x[0] == 2e9 && x[1] == 5.25e9 && x[2] == -1);
    CHECK_OK(run_column(&f, "tokens/gap", &a, &x, &n, &e), &e);
    CHECK(n == 2 && x[0] == 1e9 && x[1] == 3e9);
    CHECK_OK(run_read_summary(&f, "ttft", &a, &c, &n_stat, &e), &e);
    CHECK(n_stat == 4 && c[0].mid == 3e9 && isnan(c[0].lo) && c[1].mid == 3e9);
    CHECK_OK(run_read_summary(&f, "attainment", &a, &c, &n_stat, &e), &e);
    CHECK_NEAR(c[0].mid, 1 / 3.0, 1e-15);
    CHECK_OK(h5_read_attr_text(f.h5, "/provenance", "source_tool", &a, &text, &e), &e);
    CHECK_TEXT(text, "vLLM bench serve");
    CHECK_OK(h5_read_attr_text(f.h5, "/provenance", "source_sha256", &a, &text, &e), &e);
    CHECK_INT(strlen(text), 64);
    run_close(&f);
    arena_release(&a);
}

TEST(import_writes_points)
{
    struct arena a;
    struct err e = { 0 };
    struct points_file f;
    char option[600];
    const char *h5_path = cli_path("points.h5");
    arena_init(&a);
    snprintf(option, sizeof option, "--out=%s", h5_path);
    CHECK_INT(import(put("n.txt", nccl_text), option, NULL, NULL), 1);
    CHECK_OK(points_read(h5_path, &a, &f, &e), &e);
    CHECK_TEXT(f.kind, "imported");
    CHECK(f.n_row == 2 && f.n_sample == 2 && f.row[1].part == POINTS_IN_PLACE);
    CHECK(f.sample[1].point == 1 && f.sample[1].s_per_call == .5 && f.sample[1].calls == 7);
    points_close(&f);
    arena_release(&a);
    unlink(h5_path);
    check_refused(import(put("l.jsonl", llama_text), option, NULL, NULL), 2, "differ in n_batch");
    CHECK(access(h5_path, F_OK) != 0);
    CHECK_INT(import(put("l.jsonl", llama_text), NULL, NULL, NULL), 0);
    CHECK_HAS(cli_out, "4000000");
}

TEST(import_picks_a_run)
{
    char both[2 * sizeof vllm_text], option[600];
    const char *h5_path = cli_path("run.h5");
    snprintf(both, sizeof both, "%s%s", vllm_text, vllm_text);
    snprintf(option, sizeof option, "--out=%s", h5_path);
    const char *path = put("two.json", both);
    CHECK_INT(import(path, NULL, NULL, NULL), 0);
    CHECK_HAS(cli_out, "run 2 of 2");
    check_refused(import(path, option, NULL, NULL), 2, "holds 2 runs");
    check_refused(import(path, "--run=3", NULL, NULL), 2, "holds 2 runs");
    CHECK(access(h5_path, F_OK) != 0);
    CHECK_INT(import(path, option, "--run=2", NULL), 0);
    CHECK(access(h5_path, F_OK) == 0);
}

TEST(import_says_what_it_means)
{
    const char *guide = put("g.json", guide_text), *vllm = put("v.json", vllm_text);
    CHECK_INT(import(guide, "--slo.ttft=10s", NULL, NULL), 1); /* one of two was cut off */
    CHECK_HAS(cli_out, "99 %: missed");
    CHECK_INT(import(guide, "--slo.ttft=10s", "--slo.attainment=0.5", NULL), 0);
    CHECK_HAS(cli_out, "50 %: held");
    CHECK_INT(import(vllm, "--json", NULL, NULL), 0);
    json_t *j = json_loads(cli_out, 0, NULL);
    CHECK_TEXT(json_string_value(json_object_get(j, "tool")), "vLLM bench serve");
    CHECK_INT(json_array_size(json_object_get(j, "runs")), 1);
    json_decref(j);
    CHECK_INT(import(put("m.txt", mlperf_text), NULL, NULL, NULL), 0);
    CHECK_HAS(cli_out, "Per-request data are absent");
    CHECK_HAS(cli_out, "306200000 ns");
    CHECK_INT(import(test_path("m.txt"), "--slo.ttft=1s", NULL, NULL), 3);
    CHECK_HAS(cli_out, "limits cannot be checked");
    check_refused(import(vllm, "--format=guidellm", NULL, NULL), 2, "a file of vLLM bench serve");
    check_refused(import(put("e.json", ""), NULL, NULL, NULL), 2, "empty");
    check_refused(import(put("x.csv", "a,b\n1,2\n"), NULL, NULL, NULL), 2, "none of vLLM");
    check_refused(import(test_path("absent"), NULL, NULL, NULL), 2, "absent");
    check_refused(import(NULL, NULL, NULL, NULL), 2, "takes one file");
}

/* The client sends everything 50 ms late: no verdict on the server, exit 4. */
TEST(import_knows_a_slow_client)
{
    char text[20000];
    size_t n = 0;
    for (int i = 0; i < 20; i++)
        n += (size_t)snprintf(
            text + n, sizeof text - n,
            "{\"metadata\": {\"credit_issued_ns\": %d000000, \"request_start_ns\": %d000000}, "
            "\"metrics\": {\"time_to_first_token\": {\"value\": 9, \"unit\": \"ms\"}, "
            "\"request_latency\": {\"value\": 9, \"unit\": \"ms\"}, \"output_sequence_length\": "
            "{\"value\": 1}}, \"error\": null}\n",
            100 * i + 1, 100 * i + 51);
    const char *path = put("late.jsonl", text);
    CHECK_INT(import(path, NULL, NULL, NULL), 0);
    CHECK_HAS(cli_out, "CLIENT-LIMITED");
    CHECK_INT(import(path, "--slo.ttft=1s", NULL, NULL), 4);
    CHECK_HAS(cli_out, "no verdict");
    CHECK_INT(import(path, "--slo.ttft=1s", "--slo.attainment=0.5", NULL), 4);
}

/* ---- properties */

struct draws {
    struct rng r;
    uint64_t i;
};

static int below(struct draws *d, int n)
{
    return (int)rng_below(d->r, d->i++, (uint64_t)n);
}

/* Random requests; all times in whole ms times `scale`, so that limits fall on values. */
static const char *random_vllm(uint64_t seed, int n, int scale)
{
    static char text[1 << 17];
    char *part[4], *p = text;
    struct draws g = { rng_stream(seed, "import"), 0 };
    size_t used[4] = { 0 }, cap = 1 << 15;
    for (int k = 0; k < 4; k++) part[k] = calloc(1, cap);
    for (int i = 0; i < n; i++) {
        int out_tok = 1 + below(&g, 5), ttft = 1 + below(&g, 9), sum = ttft;
        const char *comma = i ? ", " : "";
        used[0] += (size_t)sprintf(part[0] + used[0], "%s%d", comma, out_tok);
        used[1] += (size_t)sprintf(part[1] + used[1], "%s%.3f", comma, 1e-3 * ttft * scale);
        used[2] += (size_t)sprintf(part[2] + used[2], "%s[", comma);
        for (int k = 1; k < out_tok; k++) {
            int gap = below(&g, 9);
            sum += gap;
            used[2] +=
                (size_t)sprintf(part[2] + used[2], "%s%.3f", k > 1 ? ", " : "", 1e-3 * gap * scale);
        }
        used[2] += (size_t)sprintf(part[2] + used[2], "]");
        used[3] += (size_t)sprintf(part[3] + used[3], "%s%.3f", comma, 1e-3 * sum * scale);
    }
    p += sprintf(p, "{\"duration\": 1, \"completed\": %d, \"output_lens\": [%s], \"ttfts\": [%s], ",
                 n, part[0], part[1]);
    sprintf(p, "\"itls\": [%s], \"latencies\": [%s]}", part[2], part[3]);
    for (int k = 0; k < 4; k++) free(part[k]);
    return put("r.json", text);
}

/* Scaling all times and limits by c changes no count and scales every latency. */
TEST(import_figures_scale)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct seen *a = look(random_vllm(seed, 40, 1), 5, 4),
                    *b = look(random_vllm(seed, 40, 7), 35, 28);
        if (!CHECK(a->st == ST_OK && b->st == ST_OK)) return;
        for (int k = 0; k < FIGURES_N_LATENCY; k++) {
            CHECK_NEAR(7 * a->g.latency[k].mean, b->g.latency[k].mean, 1e-12);
            CHECK_INT(a->g.latency[k].n, b->g.latency[k].n);
        }
        CHECK_INT(a->g.met, b->g.met);
        CHECK_NEAR(a->g.fluidity, b->g.fluidity, 1e-12);
        CHECK(a->g.met <= a->g.met_ttft && a->g.met <= a->g.met_tpot);
        CHECK(row(a, "aiperf", "good") <= row(a, "vllm", "good"));
        /* One token a chunk: the mean over tokens is that over gaps. */
        CHECK_NEAR(a->g.latency[FIGURES_ITL].mean, a->g.latency[FIGURES_ITL_TOK].mean, 1e-12);
        done(a);
        done(b);
    }
}

/* ---- hostile files */

/* Every proper prefix is refused, or for text forms read as what is there. */
static void cut(const char *text, bool json, size_t step)
{
    size_t n = strlen(text);
    while (n > 0 && text[n - 1] == '\n') n--;
    for (size_t i = 0; i < n; i += step) {
        bool line_end = text[i] == '\n' || (i > 0 && text[i - 1] == '\n');
        struct seen *s = look(put_bytes("cut", text, i), 1, 1);
        if (json && !line_end) CHECK_INT(s->st, ST_USAGE);
        CHECK(s->st == ST_OK || s->st == ST_USAGE);
        done(s);
    }
}

TEST(import_refuses_cut_files)
{
    cut(vllm_text, true, 1);
    cut(guide_text, true, 7);
    cut(aiperf_text, true, 7);
    cut(llama_text, true, 1);
    cut(nccl_text, false, 3);
    cut(mlperf_text, false, 1);
}

/* Any byte of a file becomes any of these: a value, or one sentence. */
TEST_LIMIT(import_survives_changed_bytes, 120)
{
    static const char *const text[] = { vllm_text,  guide_text, aiperf_text,
                                        llama_text, nccl_text,  mlperf_text };
    static const char change[] = "\"[{}:,-9eN.\\\n";
    static char bytes[1 << 13];
    struct draws g = { rng_stream(1, "changed"), 0 };
    for (int k = 0; k < 6; k++)
        for (int i = 0; i < 120; i++) {
            size_t n = strlen(text[k]);
            memcpy(bytes, text[k], n);
            for (int m = 1 + below(&g, 3); m; m--) {
                int at = below(&g, (int)n);
                bytes[at] = change[below(&g, (int)sizeof change - 1)];
            }
            struct seen *s = look(put_bytes("changed", bytes, n), 1, 1);
            CHECK(s->st == ST_OK || s->st == ST_USAGE);
            done(s);
        }
}

#define VLLM(lists) "{\"duration\": 1, \"completed\": 1, " lists "}"
#define GOOD        "\"output_lens\": [2], \"ttfts\": [1.0], "

TEST(import_refuses_what_is_not_so)
{
    static const struct {
        const char *text, *part;
    } bad[] = {
        { VLLM(GOOD "\"latencies\": [0.5]"), "last token before its first" },
        { VLLM(GOOD "\"latencies\": [-1.0]"), "latencies[0]" },
        { VLLM(GOOD "\"latencies\": [1e308]"), "latencies[0]" },
        { VLLM(GOOD "\"latencies\": [NaN]"), "latencies[0]" },
        { VLLM(GOOD "\"latencies\": [\"inf\"]"), "latencies[0]" },
        { VLLM(GOOD "\"latencies\": [{}]"), "latencies[0]" },
        { VLLM(GOOD "\"latencies\": [1.0, 2.0]"), "latencies is no list of 1" },
        { VLLM(GOOD "\"latencies\": 7"), "latencies is no list" },
        { VLLM(GOOD "\"start_times\": [1e300], \"latencies\": [2.0]"), "start_times[0]" },
        { VLLM(GOOD "\"itls\": [[1.0, -0.5]]"), "itls[0][1]" },
        { VLLM(GOOD "\"tokens\": 1"), "latencies nor itls" },
        { VLLM("\"ttfts\": [1.0], \"latencies\": [1.0]"), "no output_lens" },
        { VLLM("\"output_lens\": [2.5], \"ttfts\": [1.0], \"latencies\": [1.0]"), "no length" },
        { VLLM("\"output_lens\": [1e18], \"ttfts\": [1.0], \"latencies\": [1.0]"), "no length" },
        { VLLM("\"output_lens\": [-1], \"ttfts\": [1.0], \"latencies\": [1.0]"), "no length" },
        { VLLM("\"x\": 123456789012345678901234567890"), ":1:" },
        { VLLM("\"x\": 1e999"), ":1:" },
        { "{\"duration\": 1, \"completed\": 1}\n[]", "value 2 is no object" },
        { "{\"metadata\": {\"version\": 3}, \"benchmarks\": [{}]}", "version 3" },
        { "{\"metadata\": {\"version\": 2}, \"benchmarks\": []}", "no list of runs" },
        { "{\"metadata\": {\"version\": 2}, \"benchmarks\": [{\"requests\": {\"successful\": "
          "[7]}}]}",
          "request 0 is no object" },
        { "{\"metadata\": {\"request_start_ns\": -5}, \"metrics\": {}}", "request_start_ns" },
        { "{\"metadata\": {\"request_start_ns\": 5}, \"metrics\": {\"request_latency\": "
          "{\"value\": 1, \"unit\": \"furlong\"}}}",
          "request_latency" },
        { "{\"results\": [{\"out_of_place\": {\"time\": 1}, \"size\": 8, \"experiment_name\": "
          "\"Waltz\"}]}",
          "Waltz" },
        { "{\"results\": [{\"out_of_place\": {\"time\": \"nan\"}, \"size\": 8, "
          "\"experiment_name\": \"AllReduce\"}]}",
          "no time in us" },
        { "[{\"n_prompt\": 0, \"n_gen\": 0}]", "no length" },
        { "[{\"n_prompt\": 1, \"n_gen\": 0, \"samples_ns\": [0]}]", "samples_ns[0]" },
        { "[]", "none of vLLM" },
        { "{}", "none of vLLM" },
        { "{", ":1:2" },
        { "\xef\xbb\xbf ", "empty" },
        { "# algbw busbw\n", "no row" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct seen *s = look(put("bad", bad[i].text), 1, 1);
        CHECK_INT(s->st, ST_USAGE);
        CHECK_HAS(s->e.text, bad[i].part);
        done(s);
    }
}

TEST(import_refuses_deep_nesting)
{
    static char deep[200001];
    memset(deep, '[', 100000);
    memset(deep + 100000, ']', 100000);
    struct seen *s = look(put_bytes("deep", deep, 200000), 0, 0);
    CHECK_INT(s->st, ST_USAGE);
    done(s);
    s = look(put_bytes("zero", "{\"a\": 1}\0{}", 11), 0, 0);
    CHECK_INT(s->st, ST_USAGE);
    CHECK_HAS(s->e.text, "zero byte");
    done(s);
}

TEST(import_writes_nothing_for_a_refused_file)
{
    char option[600], found[64], cmd[700];
    const char *path = put("v.json", VLLM(GOOD "\"latencies\": [-1.0]"));
    snprintf(option, sizeof option, "--out=%s", test_path("run.h5"));
    check_refused(import(path, option, NULL, NULL), 2, "latencies[0]");
    check_refused(import(put("m.txt", mlperf_text), option, NULL, NULL), 2, "no per-request data");
    snprintf(cmd, sizeof cmd, "ls %s | grep -c run.h5", test_dir());
    test_run(cmd, found, sizeof found, NULL, 0);
    CHECK_TEXT(found, "0\n");
}
