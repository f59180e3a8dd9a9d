/* tests/test_simulate.c - `orrery simulate` as a user has it: text, JSON, run file, wrong input,
 * real traces. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/cli.h"
#include "tests/test.h"

/* Files in the test's directory whose name holds `part`. */
static int n_files(const char *part)
{
    char cmd[600], count[32];
    snprintf(cmd, sizeof cmd, "find %s -name '*%s*' | wc -l", test_dir(), part);
    test_run(cmd, count, sizeof count, NULL, 0);
    return atoi(count);
}

/* The output without what depends on the machine's speed. */
static void drop_line(char *text, const char *begin)
{
    for (char *p = text; p && *p;) {
        char *end = strchr(p, '\n');
        if (strncmp(p, begin, strlen(begin)) == 0 && end)
            memmove(p, end + 1, strlen(end + 1) + 1);
        else
            p = end ? end + 1 : NULL;
    }
}

TEST(simulate_prints_the_smoke_case)
{
    CHECK_INT(cli_run("", "simulate scenarios/smoke.yaml"), 0);
    CHECK_TEXT(cli_err, "");
    int lines = 0;
    for (const char *p = cli_out; *p; p++) lines += *p == '\n';
    CHECK(lines < 40);
    drop_line(cli_out, "runs ");
    test_golden("simulate-smoke.txt", cli_out);
}

TEST(simulate_json_has_the_promised_keys)
{
    static const char *const keys[] = {
        "requests.due",         "requests.finished",         "requests.failed",
        "requests.rejected",    "throughput.requests_per_s", "throughput.output_tokens_per_s",
        "slo.attainment_ratio", "slo.goodput_per_s",         "kv.blocks",
        "kv.preemptions",       "wall.simulate_s",           "wall.requests_per_s"
    };
    char path[64];
    static const char *const metric[] = { "ttft", "tpot", "itl", "e2e" }, *const stat[] = {
        "mean", "p50", "p90", "p99"
    };
    CHECK_INT(cli_run("", "simulate scenarios/smoke.yaml --json"), 0);
    json_t *j = cli_json();
    if (!j) return;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) cli_number(j, keys[i]);
    for (int k = 0; k < 4; k++)
        for (int i = 0; i < 4; i++) {
            snprintf(path, sizeof path, "latency.%s.%s_ns", metric[k], stat[i]);
            CHECK(cli_number(j, path) > 0);
        }
    CHECK(json_is_string(cli_at(j, "scenario")) && json_is_string(cli_at(j, "digest")));
    CHECK(json_is_string(cli_at(j, "bottleneck")) && json_is_string(cli_at(j, "coverage")));
    CHECK(cli_number(j, "latency.e2e.mean_ns") > cli_number(j, "latency.ttft.mean_ns"));
    CHECK(cli_number(j, "latency.ttft.p50_ns") <= cli_number(j, "latency.ttft.p99_ns"));
    json_decref(j);
}

TEST(simulate_twice_gives_the_same_and_another_seed_another)
{
    char digest[3][32] = { "", "", "" };
    static const char *const how[] = { "--sim.threads=1", "--sim.threads=4 --sim.fast_forward=no",
                                       "--sim.seed=2" };
    for (int i = 0; i < 3; i++) {
        CHECK_INT(cli_run("", "simulate scenarios/smoke.yaml --json %s", how[i]), 0);
        json_t *j = cli_json();
        if (j) snprintf(digest[i], sizeof digest[i], "%s", json_string_value(cli_at(j, "digest")));
        json_decref(j);
    }
    CHECK_TEXT(digest[0], digest[1]);
    CHECK(strcmp(digest[0], digest[2]) != 0);
}

TEST(simulate_dry_run_can_be_run_again)
{
    CHECK_INT(cli_run("", "simulate scenarios/smoke.yaml --workload.rate=5/s --dry-run"), 0);
    CHECK_HAS(cli_out, "rate: 5/s");
    const char *path = cli_put("again.yaml", cli_out);
    static char first[sizeof cli_out];
    CHECK_INT(cli_run("", "simulate %s --dry-run", path), 0);
    snprintf(first, sizeof first, "%s", cli_out);
    CHECK_INT(cli_run("", "simulate %s --dry-run", cli_put("thrice.yaml", cli_out)), 0);
    CHECK_TEXT(cli_out, first);
    CHECK_INT(cli_run("", "simulate %s", path), 0);
}

/* One seed says nothing of how workloads scatter. */
TEST(simulate_says_what_its_intervals_hold)
{
    CHECK_INT(cli_run("", "simulate scenarios/smoke.yaml --sim.replications=1 --sim.draws=4"), 0);
    CHECK_HAS(cli_out,
              "intervals   of the constants alone, of one workload (sim.replications 1)\n");
    CHECK_INT(
        cli_run("", "simulate scenarios/smoke.yaml --sim.replications=1 --sim.draws=4 --json"), 0);
    CHECK_HAS(cli_out, "\"intervals_hold\": \"constants\"");
    CHECK_INT(
        cli_run("", "simulate scenarios/smoke.yaml --sim.replications=2 --sim.draws=4 --json"), 0);
    CHECK_HAS(cli_out, "\"intervals_hold\": \"workload seeds, constants\"");
}

TEST(simulate_exit_status_tells_whether_the_slo_held)
{
    CHECK_INT(cli_run("", "simulate scenarios/smoke.yaml --slo.ttft=1ms"), 1);
    CHECK_HAS(cli_out, "MISSED");
    CHECK_INT(cli_run("", "simulate scenarios/smoke.yaml --slo.ttft=10s --slo.tpot=1s"), 0);
    CHECK_HAS(cli_out, "held by");
}

TEST(simulate_run_file_opens_in_h5py_and_xarray)
{
    static const char code[] =
        "import sys, h5py, xarray\n"
        "f = h5py.File(sys.argv[1])\n"
        "bad = []\n"
        "def look(n, d):\n"
        "    if isinstance(d, h5py.Dataset) and d.dtype.kind in 'iuf' and not all(k in d.attrs for "
        "k in "
        "('units', 'long_name', 'description')) and 'CLASS' not in d.attrs: bad.append(n)\n"
        "f.visititems(look)\n"
        "s = f['summary'].attrs\n"
        "print(bad, len(f['requests/t_due']), s['due'], s['finished'] + s['failed'] + "
        "s['rejected'])\n"
        "d = xarray.open_dataset(sys.argv[1], group='requests', engine='netcdf4')\n"
        "ttft = (d.t_first - d.t_due).values\n"
        "print(d.t_due.units, int((ttft > 0).sum()), bool((d.t_last >= d.t_first).all()), "
        "int(d.n_in.min()) > 0)\n"
        "print(f['summary/ttft'].attrs['stats'], f['summary/ttft'].attrs['units'])\n"
        "print(sorted(k for k in f if k != 'provenance'))\n";
    char cmd[1200];
    char h5[300];
    snprintf(h5, sizeof h5, "%s", test_path("smoke.h5"));
    CHECK_INT(cli_run("", "simulate scenarios/smoke.yaml --out %s", h5), 0);
    if (test_run("/usr/bin/python3 -c 'import h5py, xarray, netCDF4'", NULL, 0, NULL, 0) != 0)
        SKIP("no h5py, xarray");
    snprintf(cmd, sizeof cmd, "/usr/bin/python3 %s %s", cli_put("look.py", code), h5);
    CHECK_INT(cli_shell("%s", cmd), 0);
    CHECK_TEXT(cli_out, "[] 300 300 300\nns 300 True True\nmean p50 p90 p99 ns\n"
                        "['requests', 'scenario', 'series', 'stages', 'steps', 'summary']\n");
}

/* ---- wrong input: one sentence, the right status, no file */

struct wrong {
    const char *line, *says;
    int status;
};

TEST(simulate_refuses_wrong_scenarios_with_one_sentence)
{
    static const struct wrong wrong[] = {
        { "modle: x", ":5:1: no key 'modle'", 2 },
        { "hardware: dgx-h10", "did you mean 'dgx-h100'?", 2 },
        { "model: llama-3-07b", "did you mean 'llama-3-70b'?", 2 },
        { "strategy: {tp: 3}", ":4:16: tp 3 does not divide 64 heads", 2 },
        { "strategy: {tp: -1}", ":4:16: strategy.tp: -1 is outside", 2 },
        { "strategy: {tp: 1}", "does not fit", 2 },
        { "strategy: {tp: 8, pp: 81}", "strategy.pp", 2 },
        { "strategy: {tp: eight}", "strategy.tp", 2 },
        { "strategy: {weights: fp3}", "strategy.weights", 2 },
        { "workload: {rate: 8}", "'8' has no unit; write 8/s", 2 },
        { "workload: {rate: 8/ms}", "workload.rate", 2 },
        { "workload: {rate: -8/s}", "workload.rate", 2 },
        { "workload: {rate: 1e300/s}", "is outside", 2 },
        { "workload: {rate: nan/s}", "workload.rate", 2 },
        { "workload: {rate: 1/s, requests: 0.5}", "workload.requests", 2 },
        { "workload: {rate: 1/s, output: {mean: 0tok}}", "output.mean", 2 },
        { "workload: {trace: /dev/null}", "an empty trace", 2 },
        { "workload: {trace: no-such.csv}", "no-such.csv", 2 },
        { "workload: 5", "workload", 2 },
        { "slo: {ttft: 500}", "has no unit", 2 },
        { "slo: {attainment: 95}", "slo.attainment", 2 },
        { "policy: sarathy", "did you mean 'sarathi'?", 2 },
        { "policy: {max_batch_tokens: 16tok}", "policy.max_batch_tokens", 2 },
        { "policy: {kv_blocks: 99999999}", "does not fit", 2 },
        { "policy: {memory_util: 1.1}", "policy.memory_util", 2 },
        { "sim: {seed: 1e99}", "sim.seed", 2 },
        { "sweep: {workload.rat: [1/s]}", "workload.rate", 2 },
        { "sweep: {workload.rate: []}", "no values", 2 },
        { "sweep: {workload.rate: [1/s, 2]}", "has no unit", 2 },
        { "profile: {host.stp: 1ms}", "did you mean 'host.step'?", 2 },
        { "profile: {host.step: fast}", "is no constant", 2 },
        { "profile: {gemm.e_m: -1}", "gemm.e_m", 2 },
        { "title: [a", "", 2 },
        { "\ttitle: x", "", 2 },
        { "title: &a x", "", 2 },
        { "title: \"\\xff\"", "", 0 },
    };
    static const char *const base[] = { "model: llama-3-70b\n", "hardware: dgx-h100\n",
                                        "strategy: {tp: 8}\n",
                                        "workload: {rate: 1/s, requests: 5}\n" };
    char text[1000];
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        size_t key = strcspn(wrong[i].line, ":") + 1, n = 0;
        for (size_t k = 0; k < 4; k++) /* the wrong line takes the place of the one with its key */
            if (strncmp(base[k], wrong[i].line, key) != 0)
                n += (size_t)snprintf(text + n, sizeof text - n, "%s", base[k]);
        snprintf(text + n, sizeof text - n, "%s\n", wrong[i].line);
        const char *path = cli_put("wrong.yaml", text);
        int status = cli_run("", "simulate %s --out %s", path, test_path("wrong.h5"));
        bool ok = CHECK_INT(status, wrong[i].status);
        if (wrong[i].status) {
            const char *end = strchr(cli_err, '\n');
            ok &= CHECK(end && !end[1] && strncmp(cli_err, "orrery simulate: ", 17) == 0);
            ok &= CHECK_HAS(cli_err, wrong[i].says);
            ok &= CHECK_TEXT(cli_out, "");
            ok &= CHECK_INT(n_files("wrong.h5"), 0);
        }
        if (!ok) fprintf(stderr, "for: %s\n", wrong[i].line);
        remove(test_path("wrong.h5"));
    }
}

TEST(simulate_refuses_wrong_command_lines)
{
    static const struct wrong wrong[] = {
        { "", "one scenario file", 2 },
        { "scenarios/smoke.yaml scenarios/smoke.yaml", "one scenario file", 2 },
        { "no-such.yaml", "no-such.yaml", 2 },
        { "scenarios", "it is a directory", 2 },
        { "scenarios/smoke.yaml --polcy.name=vllm", "did you mean 'policy.name'?", 2 },
        { "scenarios/smoke.yaml --workload.rate", "needs a value", 2 },
        { "scenarios/smoke.yaml --workload.rate=", "workload.rate", 2 },
        { "scenarios/smoke.yaml -x", "'-x' is no option", 2 },
        { "scenarios/smoke.yaml --sweep=workload.rate", "--sweep", 2 },
        { "scenarios/smoke.yaml --out /no/such/dir/x.h5", "/no/such/dir/x.h5", 5 },
        { "scenarios/smoke.yaml --out /proc/x.h5", "/proc/x.h5", 5 },
        { "scenarios/smoke.yaml > /dev/full", "", 5 },
        { "scenarios/smoke.yaml --json > /dev/full", "", 5 },
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        bool ok = CHECK_INT(cli_run("", "simulate %s", wrong[i].line), wrong[i].status);
        const char *end = strchr(cli_err, '\n');
        ok &= CHECK(end && !end[1]);
        ok &= CHECK_HAS(cli_err, wrong[i].says);
        if (!ok) fprintf(stderr, "for: %s\n%s", wrong[i].line, cli_err);
    }
}

/* A disk that is full after so many blocks of 512 bytes, at every stage of the writing. */
TEST(simulate_leaves_nothing_on_a_full_disk)
{
    char cmd[1000];
    const char *bin = cli_bin();
    for (int blocks = 8; blocks <= 64; blocks += 16) {
        snprintf(cmd, sizeof cmd,
                 "trap '' XFSZ; ulimit -f %d; %s simulate scenarios/smoke.yaml --out %s", blocks,
                 bin, test_path("full.h5"));
        CHECK_INT(test_run(cmd, NULL, 0, cli_err, sizeof cli_err), 5);
        CHECK_HAS(cli_err, "full.h5");
        CHECK_INT(n_files("full.h5"), 0);
    }
}

/* One signal ends it in order; a second one, soon after, at once. */
TEST(simulate_interrupted_leaves_nothing)
{
    const char *bin = cli_bin();
    for (int signals = 1; signals <= 2; signals++) {
        char cmd[1400];
        snprintf(cmd, sizeof cmd,
                 "%s simulate scenarios/smoke.yaml --workload.requests=100M --workload.rate=20/s "
                 "--sim.draws=0 "
                 "--sim.replications=1 --out %s & p=$!; while ! ls %s/stop.h5.part.* >/dev/null "
                 "2>&1; do :; done; "
                 "kill -TERM $p; %s wait $p; echo $?",
                 bin, test_path("stop.h5"), test_dir(), signals == 2 ? "kill -TERM $p;" : "");
        CHECK_INT(cli_shell("%s", cmd), 0);
        if (!CHECK(strcmp(cli_out, "130\n") == 0 || strcmp(cli_out, "143\n") == 0))
            fprintf(stderr, "%s%s", cli_out, cli_err);
        CHECK_INT(n_files("stop.h5"), 0);
    }
}

/* ---- real traces */

static void check_adds_up(const char *args, int64_t due)
{
    CHECK(cli_run("", "simulate scenarios/llama3-70b-tp2pp4.yaml %s --sim.draws=0 --json", args) <
          2);
    json_t *j = cli_json();
    if (!j) return;
    CHECK_INT(cli_number(j, "requests.due"), due);
    CHECK_INT(cli_number(j, "requests.finished") + cli_number(j, "requests.failed") +
                  cli_number(j, "requests.rejected"),
              due);
    CHECK(cli_number(j, "requests.finished") > 0.99 * (double)due || strstr(args, "mooncake"));
    CHECK(cli_number(j, "runs.little_error_ratio") < 1e-9);
    json_decref(j);
}

TEST(simulate_runs_the_azure_code_trace_on_tp2pp4_and_tp8)
{
    char args[1000];
    const char *trace = test_data("traces_azure_2023/azure_llm_code.csv");
    snprintf(args, sizeof args, "--workload.trace=%s --workload.arrivals=trace --workload.rate=0/s",
             trace);
    check_adds_up(args, 8819);
    snprintf(args, sizeof args,
             "--workload.trace=%s --workload.arrivals=trace --workload.rate=0/s --strategy.tp=8 "
             "--strategy.pp=1",
             trace);
    check_adds_up(args, 8819);
}

TEST(simulate_runs_the_mooncake_trace)
{
    char args[1000];
    const char *trace = test_data("traces_mooncake/synthetic_trace.jsonl");
    snprintf(
        args, sizeof args,
        "--model=llama-3.1-70b --workload.trace=%s --workload.arrivals=trace --workload.rate=0/s",
        trace);
    check_adds_up(args, 3993);
}

TEST(simulate_says_why_nothing_could_run)
{
    const char *path = cli_put(
        "long.yaml",
        "model: falcon-180b\nhardware: dgx-h100\nstrategy: {tp: 8, weights: fp8}\npolicy: orca\n"
        "workload: {rate: 1/s, requests: 2, prompt: {dist: fixed, mean: 2048tok}, "
        "output: {dist: fixed, mean: 1tok}}\n");
    CHECK_INT(cli_run("", "simulate %s", path), 0);
    CHECK_HAS(cli_out, "2 due = 0 finished + 0 failed + 2 rejected (prompt and output exceed the "
                       "model's context)");
    CHECK(strstr(cli_out, "nan") == NULL);
    CHECK_INT(cli_run("", "simulate %s --json", path), 0);
    json_t *j = cli_json();
    CHECK(json_is_null(cli_at(j, "latency.ttft.mean_ns")));
    json_decref(j);
}
