/* tests/test_engine_run.c - `orrery engine run` as a user has it: a scenario on a tiny checkpoint,
 * its run file, interruptions, wrong input. SPDX-License-Identifier: Apache-2.0 */
#include <glob.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/journal.h"
#include "bench/recover.h"
#include "model/step.h"
#include "tests/cli.h"
#include "tests/test.h"
#include "traces/run.h"

static const char *scenario(void)
{
    return cli_put("s.yaml",
                   "title: does it run?\n"
                   "model: tests/golden/engine/llama31/config.json\n"
                   "hardware: h100-sxm\n"
                   "strategy: {weights: f32, kv: f32}\n"
                   "policy: {max_seqs: 4, max_batch_tokens: 32tok, block: 8tok, kv_blocks: 64}\n"
                   "workload:\n"
                   "  {rate: 3000/s, requests: 60, prefix_tok: 20tok, prefix_groups: 2,\n"
                   "   prompt: {mean: 10tok, max: 30tok}, output: {mean: 12tok, max: 30tok}}\n"
                   "slo: {ttft: 30s, tpot: 10s, attainment: 0.9}\n"
                   "monitor: {window: 20, memory: 0.5}\n");
}

static size_t column(struct run_file *f, const char *name, struct arena *a, double **v)
{
    size_t n = 0;
    struct err e = { 0 };
    *v = NULL;
    CHECK_INT(run_column(f, name, a, v, &n, &e), ST_OK);
    CHECK_TEXT(e.text, "");
    return n;
}

/* ---- what it says */

TEST(engine_run_reports_what_it_measured)
{
    CHECK_INT(cli_run("", "engine run %s", scenario()), 0);
    CHECK_HAS(cli_out, "question    does it run?");
    CHECK_HAS(cli_out, "measured    llama31 TP1-PP1 on this machine (1 rank of ");
    CHECK_HAS(cli_out, "h100-sxm is for simulate and not used here");
    CHECK_HAS(cli_out, "60 due = 60 finished + 0 unfinished + 0 rejected");
    CHECK_HAS(cli_out, "all of them: 100.0 %");
    CHECK_HAS(cli_out, "scheduling and bookkeeping");
    CHECK_HAS(cli_out, "anomalies   ");
    CHECK_TEXT(cli_err, "");
    CHECK_INT(cli_run("", "engine run %s --slo.ttft=1ns", scenario()), 1);
    CHECK_HAS(cli_out, "MISSED");
}

/* An anomaly beside the threshold that it passed; how to get what it says to compare. */
TEST(engine_run_says_limits_and_how_to_compare_sessions)
{
    CHECK_INT(cli_run("", "engine run %s --policy.kv_blocks=12 --monitor.memory=0.625", scenario()),
              0);
    CHECK_HAS(cli_out, "memory pressure in ");
    CHECK_HAS(cli_out, ", limit 0.625");
    CHECK(!strstr(cli_out, "/tokens"));
    CHECK_INT(cli_run("", "engine run %s --workload.turns=2", scenario()), 0);
    CHECK_HAS(cli_out, "compare /tokens (--tokens), not digests");
    CHECK_INT(cli_run("", "engine run %s --workload.turns=2 --tokens --out=%s", scenario(),
                      test_path("t.h5")),
              0);
    CHECK_HAS(cli_out, "compare /tokens, not digests");
}

/* A replica that nothing was sent to is here all the same. */
TEST(engine_run_says_which_replicas_had_no_steps)
{
    CHECK_INT(cli_run("",
                      "engine run %s --strategy.dp=3 --threads=1 --workload.requests=1 "
                      "--sim.warmup=0",
                      scenario()),
              0);
    CHECK_HAS(cli_out, "   no steps\n");
    CHECK(!strstr(cli_out, "another process"));
}

/* The tokens are the same however the model is divided and the cache is used. */
TEST_LIMIT(engine_run_says_the_same_tokens_divided_or_not, 120)
{
    static const char *const way[] = {
        "",
        "--strategy.tp=2 --strategy.pp=2 --threads=1",
        "--strategy.pp=4 --strategy.split=1,1,1,1 --threads=1",
        "--policy.prefix_cache=off --policy.kv_blocks=12",
        "--strategy.dp=3 --threads=1 --policy.kv_blocks=12",
        "--strategy.dp=2 --strategy.tp=2 --strategy.pp=2 --threads=1",
        "--policy=sarathi --policy.chunk=7tok",
        "--policy=static --policy.max_batch_tokens=64tok",
        "--kernels=portable --temperature=0",
        "--monitor.operators=no"
    };
    char digest[40] = "";
    for (size_t i = 0; i < sizeof way / sizeof *way; i++) {
        CHECK_INT(cli_run("", "engine run %s --json %s", scenario(), way[i]), 0);
        json_t *j = cli_json();
        const char *said = json_string_value(cli_at(j, "digest"));
        CHECK(said != NULL);
        if (i == 0) snprintf(digest, sizeof digest, "%s", said ? said : "");
        if (!CHECK(said && strcmp(said, digest) == 0)) printf("%s\n", way[i]);
        if (i == 1) CHECK_INT(json_array_size(cli_at(j, "ranks")), 4);
        if (i == 3) CHECK(cli_number(j, "kv.preemptions") > 0);
        if (i == 3) CHECK(json_array_size(cli_at(j, "anomalies")) > 0); /* memory pressure */
        CHECK(cli_number(j, "runs.little_error_ratio") < .05);
        json_decref(j);
    }
    CHECK_INT(cli_run("", "engine run %s --json --temperature=1", scenario()), 0);
    json_t *j = cli_json();
    CHECK(strcmp(json_string_value(cli_at(j, "digest")), digest) != 0);
    json_decref(j);
}

/* ---- the run file */

TEST(engine_run_writes_the_same_file_as_simulate_and_more)
{
    struct arena a;
    struct err e = { 0 };
    struct run_file f;
    double *due, *first, *last, *n_out, *status, *who, *v, *w;
    arena_init(&a);
    CHECK_INT(cli_run("", "engine run %s --tokens --out=%s --record.stages_for=10s", scenario(),
                      test_path("run.h5")),
              0);
    CHECK(access(test_path("run.h5.journal.csv"), F_OK) != 0);
    CHECK_OK(run_open(test_path("run.h5"), &a, &f, &e), &e);
    CHECK_TEXT(f.kind, "measured");
    CHECK_HAS(f.scenario_yaml, "window: 20");
    size_t n = column(&f, "requests/t_due", &a, &due);
    column(&f, "requests/t_first", &a, &first);
    column(&f, "requests/t_last", &a, &last);
    column(&f, "requests/n_out", &a, &n_out);
    column(&f, "requests/status", &a, &status);
    size_t n_tok = column(&f, "tokens/request", &a, &who), total = 0;
    CHECK_INT(n, 60);
    for (size_t i = 0; i < n && n == 60; i++) {
        CHECK(status[i] == RUN_OK && first[i] > due[i] && last[i] >= first[i] && n_out[i] >= 1);
        total += (size_t)n_out[i];
    }
    CHECK_INT(n_tok, total);
    for (size_t i = 1; i < n_tok; i++) CHECK(who[i] >= who[i - 1]);
    size_t steps = column(&f, "steps/t0", &a, &v), rows = column(&f, "monitor/compute", &a, &w);
    CHECK(steps > 10);
    CHECK_INT(rows, steps);
    for (size_t i = 0; i < rows; i++) CHECK(w[i] >= 0);
    double *gemm, *attn, sum = 0;
    column(&f, "monitor/gemm", &a, &gemm);
    column(&f, "monitor/attention", &a, &attn);
    for (size_t i = 0; i < rows; i++) {
        CHECK(gemm[i] > 0 && attn[i] > 0 && gemm[i] + attn[i] <= w[i]);
    }
    CHECK_INT(column(&f, "summary/time_share", &a, &v), STEP_N_CLASS);
    for (int i = 0; i < STEP_N_CLASS; i++) sum += v[i];
    CHECK_NEAR(sum, 1, 1e-9);
    CHECK(v[STEP_GEMM] > 0 && v[STEP_ATTN] > 0 && v[STEP_OTHER] > 0 && v[STEP_HOST] > 0);
    CHECK(v[STEP_P2P] == 0); /* one rank; its result to itself is all that is said */
    CHECK(column(&f, "stages/t0", &a, &v) == steps);
    CHECK(column(&f, "series/running", &a, &v) > 0);
    struct ci *c;
    int k;
    CHECK_OK(run_read_summary(&f, "ttft", &a, &c, &k, &e), &e);
    CHECK(isnan(c[0].lo) && c[0].mid > 0);
    double host;
    CHECK_OK(h5_read_attr_f64(f.h5, "/summary", "monitor_schedule_share", &host, &e), &e);
    CHECK(host > 0 && host < 1);
    run_close(&f);
    arena_release(&a);
}

/* What is not kept is not known, and not zero. */
TEST(engine_run_without_operators_says_nothing_of_them)
{
    struct arena a;
    struct err e = { 0 };
    struct run_file f;
    double *gemm;
    arena_init(&a);
    CHECK_INT(cli_run("", "engine run %s --json --monitor.operators=no --out=%s", scenario(),
                      test_path("run.h5")),
              0);
    json_t *j = cli_json();
    CHECK(cli_at(j, "time_share") == NULL);
    CHECK_INT(cli_run("", "plot %s --figure=operators --out=%s", test_path("run.h5"), test_dir()),
              2);
    CHECK(json_is_null(json_object_get(json_array_get(cli_at(j, "ranks"), 0), "gemm_s")));
    json_decref(j);
    CHECK_OK(run_open(test_path("run.h5"), &a, &f, &e), &e);
    CHECK(!h5_has(f.h5, "/summary/time_share"));
    size_t n = column(&f, "monitor/gemm", &a, &gemm);
    for (size_t i = 0; i < n; i++) CHECK(gemm[i] == -1);
    run_close(&f);
    arena_release(&a);
}

TEST(engine_run_operators_can_be_plotted)
{
    if (system("gnuplot --version > /dev/null 2>&1") != 0) SKIP("no gnuplot");
    CHECK_INT(cli_run("", "engine run %s --out=%s", scenario(), test_path("run.h5")), 0);
    CHECK_INT(cli_run("", "plot %s --figure=operators --out=%s", test_path("run.h5"), test_dir()),
              0);
    CHECK_TEXT(cli_err, "");
}

TEST(engine_run_file_can_be_reported_and_its_scenario_simulated)
{
    char cmd[1500];
    const char *bin = cli_bin();
    CHECK_INT(cli_run("", "engine run %s --out=%s", scenario(), test_path("run.h5")), 0);
    snprintf(cmd, sizeof cmd, "%s report %s --out=%s", bin, test_path("run.h5"),
             test_path("r.html"));
    CHECK_INT(cli_shell("%s", cmd), 0);
    snprintf(cmd, sizeof cmd, "%s simulate %s", bin, test_path("s.yaml"));
    CHECK_INT(cli_shell("%s", cmd), 0);
    CHECK_HAS(cli_out, "60 due = 60 finished");
}

/* ---- replicas */

/* Which replica each request went to, by when it was due, which is the workload's alone. */
static size_t routes(const char *path, struct arena *a, double **due, double **replica)
{
    struct err e = { 0 };
    struct run_file f;
    CHECK_INT(run_open(path, a, &f, &e), ST_OK);
    CHECK_TEXT(e.text, "");
    size_t n = column(&f, "requests/t_due", a, due);
    column(&f, "requests/replica", a, replica);
    run_close(&f);
    return n;
}

/* The simulator and the engine send the same requests to the same replicas. Of 24 no replica has so many
 * more than the others that a prefix goes elsewhere, however late one of them is (router.h). */
TEST(engine_run_routes_as_simulate_does)
{
    static const char *const router[] = { "round_robin", "prefix" };
    for (int k = 0; k < 2; k++) {
        struct arena a;
        char cmd[1500];
        double *due[2], *replica[2], all[3] = { 0 };
        const char *bin = cli_bin();
        arena_init(&a);
        CHECK_INT(cli_run("",
                          "engine run %s --strategy.dp=3 --threads=1 --sim.router=%s --out=%s "
                          "--workload.rate=500/s --workload.prefix_groups=20 "
                          "--workload.requests=24",
                          scenario(), router[k], test_path("m.h5")),
                  0);
        snprintf(
            cmd, sizeof cmd,
            "%s simulate %s --hardware=dgx-h100 --strategy.dp=3 --sim.router=%s --out=%s "
            "--sim.replications=1 --sim.draws=0 --workload.rate=500/s --workload.prefix_groups=20 "
            "--workload.requests=24",
            bin, test_path("s.yaml"), router[k], test_path("p.h5"));
        CHECK_INT(cli_shell("%s", cmd), 0);
        size_t n = routes(test_path("m.h5"), &a, &due[0], &replica[0]);
        if (!CHECK_INT(routes(test_path("p.h5"), &a, &due[1], &replica[1]), n)) return;
        for (size_t i = 0; i < n; i++) {
            size_t j = 0;
            while (j < n && due[1][j] != due[0][i]) j++;
            if (!CHECK(j < n)) break;
            CHECK(replica[0][i] == replica[1][j]);
            all[(int)replica[0][i]]++;
        }
        CHECK(all[0] > 0 && all[1] > 0 && all[2] > 0);
        CHECK(k > 0 || (all[0] == 8 && all[1] == 8));
        arena_release(&a);
    }
}

/* Sums by replica, and rows that say whose they are. */
TEST(engine_run_of_replicas_is_recorded_by_replica)
{
    struct arena a;
    struct err e = { 0 };
    struct run_file f;
    double *who, *v, *rank, *due, *steps, seen[2] = { 0 }, ran[2] = { 0 }, told[8] = { 0 };
    arena_init(&a);
    CHECK_INT(cli_run("",
                      "engine run %s --strategy.dp=2 --strategy.tp=2 --strategy.pp=2 --threads=1 "
                      "--workload.turns=2 --out=%s --record.stages_for=10s",
                      scenario(), test_path("run.h5")),
              0);
    CHECK_HAS(cli_out, "llama31 TP2-PP2-DP2 on this machine (8 ranks of 1 thread");
    CHECK_HAS(cli_out, "replicas    requests  finished");
    CHECK_HAS(cli_out, "(least_loaded)");
    CHECK_OK(run_open(test_path("run.h5"), &a, &f, &e), &e);
    size_t n = column(&f, "requests/replica", &a, &who);
    for (size_t i = 0; i < n; i++) seen[who[i] == 1]++;
    size_t n_step = column(&f, "steps/replica", &a, &who);
    for (size_t i = 0; i < n_step; i++) ran[who[i] == 1]++;
    CHECK_INT(column(&f, "replicas/due", &a, &due), 2);
    column(&f, "replicas/steps", &a, &steps);
    for (int i = 0; i < 2; i++) CHECK(due[i] == seen[i] && steps[i] == ran[i] && seen[i] > 0);
    size_t rows = column(&f, "monitor/rank", &a, &rank);
    CHECK_INT(rows, 4 * n_step);
    for (size_t i = 0; i < rows; i++) told[(int)rank[i]]++;
    for (int i = 0; i < 8; i++) CHECK(told[i] == ran[i / 4]);
    size_t spans = column(&f, "stages/replica", &a, &v);
    CHECK_INT(spans, 2 * n_step);
    int64_t dp;
    CHECK_OK(h5_read_attr_i64(f.h5, "/summary", "dp", &dp, &e), &e);
    CHECK_INT(dp, 2);
    run_close(&f);
    arena_release(&a);
}

/* The memory of all replicas is asked for, before anything starts. */
TEST(engine_run_refuses_replicas_that_do_not_fit)
{
    struct arena a;
    int64_t kib = 0;
    char line[200];
    arena_init(&a);
    FILE *f = fopen("/proc/meminfo", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %" SCNd64 " kB", &kib) == 1) break;
    if (f) fclose(f);
    if (kib == 0) SKIP("/proc/meminfo does not say what is available");
    /* 8 tokens of 4 layers, 2 KV heads of 8, f32: a block of 4 KiB; 40 % of the memory for one */
    int64_t blocks = kib * 4 / 10 / 4;
    CHECK_INT(cli_run("", "engine run %s --strategy.dp=4 --policy.kv_blocks=%lld", scenario(),
                      (long long)blocks),
              2);
    CHECK_HAS(cli_err, "4 times llama31 needs ");
    arena_release(&a);
}

/* ---- ends before its time */

/* A long run that gets a signal once the journal has five lines; its exit status. */
static int signalled(const char *name, const char *args)
{
    char cmd[1800];
    const char *bin = cli_bin();
    snprintf(
        cmd, sizeof cmd,
        "%s engine run %s --out=%s --workload.rate=40/s --workload.requests=100000 %s & p=$!; "
        "while kill -0 $p && ! [ \"$(grep -vc '^#' %s.journal.csv)\" -gt 6 ]; do :; done 2>%s; "
        "kill -%s $p; wait $p",
        bin, scenario(), test_path("run.h5"), args, test_path("run.h5"), test_path("waits"), name);
    return cli_shell("%s", cmd);
}

/* Ctrl-C: what has finished is in the file, what has not is marked. */
TEST(engine_run_keeps_what_finished_when_interrupted)
{
    struct arena a;
    struct err e = { 0 };
    struct run_file f;
    double *status;
    for (int k = 0; k < 2; k++) {
        int64_t finished = 0;
        arena_init(&a);
        CHECK_INT(signalled("INT", k ? "--strategy.dp=2 --strategy.pp=2 --threads=1 --sim.warmup=0"
                                     : "--sim.warmup=0"),
                  130);
        CHECK_HAS(cli_err, "orrery engine: interrupted; ");
        CHECK_HAS(cli_err, "requests had finished, they are in ");
        CHECK_HAS(cli_out, "ended early interrupted\n            the figures are of the ");
        CHECK_HAS(cli_out, "SLO         no verdict: the run ended early\n");
        CHECK(strstr(cli_out, "held") == NULL && strstr(cli_out, "MISSED") == NULL);
        CHECK_OK(run_open(test_path("run.h5"), &a, &f, &e), &e);
        size_t n = column(&f, "requests/status", &a, &status);
        for (size_t i = 0; i < n; i++) {
            CHECK(status[i] == RUN_OK || status[i] == RUN_UNFINISHED);
            finished += status[i] == RUN_OK;
        }
        CHECK(finished > 0);
        char *why = NULL;
        CHECK_OK(h5_read_attr_text(f.h5, "/summary", "ended_early", &a, &why, &e), &e);
        CHECK_TEXT(why, "interrupted");
        run_close(&f);
        arena_release(&a);
    }
}

TEST(engine_run_gives_no_verdict_in_json_when_interrupted)
{
    CHECK_INT(signalled("INT", "--json --sim.warmup=0"), 130);
    json_t *j = cli_json();
    CHECK_TEXT(cli_text(j, "ended_early"), "interrupted");
    CHECK(json_is_null(cli_at(j, "slo.held")));
    CHECK(json_is_null(cli_at(j, "slo.attainment_ratio")));
    CHECK(json_is_null(cli_at(j, "slo.ttft.attainment_ratio")));
    CHECK_NEAR(cli_number(j, "slo.asked_ratio"), .9, 1e-9);
    json_decref(j);
}

/* A run file of the journal has its requests, every one, and can be reported. */
static void recovered(const char *journal, int n_line)
{
    struct arena a;
    struct err e = { 0 };
    struct run_file f;
    struct recover_journal j;
    double *due, *last, *n_out, kv;
    char cmd[1500], *why = NULL;
    arena_init(&a);
    CHECK_OK(recover_read(journal, &a, &j, &e), &e);
    CHECK_INT(j.n, n_line);
    CHECK_INT(cli_run("", "engine recover %s --out=%s", journal, test_path("back.h5")), 0);
    CHECK_HAS(cli_out, "recovered   ");
    CHECK_OK(run_open(test_path("back.h5"), &a, &f, &e), &e);
    CHECK_TEXT(f.kind, "measured");
    CHECK_HAS(f.scenario_yaml, "window: 20");
    CHECK_INT(column(&f, "requests/t_due", &a, &due), n_line);
    column(&f, "requests/t_last", &a, &last);
    column(&f, "requests/n_out", &a, &n_out);
    for (int i = 0; i < n_line && i < f.n_request; i++)
        CHECK(due[i] == (double)j.row[i].r.t_due_ns && last[i] == (double)j.row[i].r.t_last_ns &&
              n_out[i] == j.row[i].r.n_out && j.row[i].r.status == RUN_OK);
    CHECK_OK(h5_read_attr_text(f.h5, "/summary", "ended_early", &a, &why, &e), &e);
    CHECK_HAS(why, "recovered from its journal");
    CHECK_OK(h5_read_attr_f64(f.h5, "/summary", "kv_mean", &kv, &e), &e);
    CHECK(isnan(kv));
    struct ci *c;
    int k;
    CHECK_OK(run_read_summary(&f, "ttft", &a, &c, &k, &e), &e);
    CHECK(c[0].mid > 0);
    run_close(&f);
    snprintf(cmd, sizeof cmd, "%s report %s --out=%s", cli_bin(), test_path("back.h5"),
             test_path("back.html"));
    CHECK_INT(cli_shell("%s", cmd), 0);
    static const char *const says[] = {
        "<strong>No verdict:</strong> the run ended early: the process was killed",
        "<tr><th>KV blocks in use, mean</th><td>-</td></tr>", /* no step was seen: not 0 % */
    };
    for (int i = 0; i < 2; i++)
        CHECK_INT(cli_shell("grep -qF '%s' %s", says[i], test_path("back.html")), 0);
    CHECK_INT(cli_shell("grep -q 'SLO is held\\|SLO is missed\\|What limits it' %s",
                        test_path("back.html")),
              1);
    arena_release(&a);
}

/* A disk that is full in mid-run: the run goes on, then says so; there is no half of a run file. */
TEST(engine_run_says_that_the_disk_is_full)
{
    char cmd[1500];
    const char *bin = cli_bin();
    snprintf(cmd, sizeof cmd,
             "trap '' XFSZ; ulimit -f 300; %s engine run %s --tokens --threads=1 --out=%s "
             "--workload.requests=800 --workload.rate=1e6/s",
             bin, scenario(), test_path("full.h5"));
    CHECK_INT(cli_shell("%s", cmd), 5);
    CHECK_HAS(cli_err, "full.h5: cannot write its rows: File too large");
    CHECK_INT(cli_shell("ls %s | grep -c 'full.h5$\\|part\\|rows'", test_dir()), 1);
    CHECK_TEXT(cli_out, "0\n");
    CHECK(access(test_path("full.h5.journal.csv"), F_OK) == 0);
}

TEST(engine_recover_refuses_what_is_no_journal)
{
    CHECK_INT(cli_run("", "engine recover"), 2);
    CHECK_HAS(cli_err, "recover takes one journal and --out=RUN.h5");
    CHECK_INT(cli_run("", "engine recover %s --out=%s", scenario(), test_path("x.h5")), 2);
    CHECK_HAS(cli_err, "s.yaml:1: this is no journal of orrery engine run");
    CHECK_INT(cli_run("", "engine recover %s --out=%s", test_path("absent"), test_path("x.h5")), 2);
    cli_put("bad.csv", "#measured m\n#workload w\n#scenario s\n#|title: t\n"
                       "request,status,t_due,t_start\n1,ok,5,6,7,x\n");
    CHECK_INT(cli_run("", "engine recover %s --out=%s", test_path("bad.csv"), test_path("x.h5")),
              2);
    CHECK_HAS(cli_err, "bad.csv:6: not a line of a journal");
    CHECK(access(test_path("x.h5"), F_OK) != 0);
    CHECK_INT(cli_run("", "engine recover --help"), 0);
}

/* Killed: no run file, and a journal whose lines are whole. */
TEST(engine_run_leaves_a_journal_when_killed)
{
    char line[400];
    int n = 0;
    signalled("KILL", "");
    CHECK(access(test_path("run.h5"), F_OK) != 0);
    FILE *f = fopen(test_path("run.h5.journal.csv"), "r");
    if (!CHECK(f != NULL)) return;
    while (fgets(line, sizeof line, f)) {
        int commas = 0;
        if (line[0] == '#') continue;
        for (char *p = line; *p; p++) commas += *p == ',';
        CHECK(line[strlen(line) - 1] == '\n');
        if (n > 0) CHECK_INT(commas, 13);
        if (n > 1) CHECK_HAS(line, ",ok,");
        n++;
    }
    fclose(f);
    CHECK(n > 3);
    recovered(test_path("run.h5.journal.csv"), n - 1);
    glob_t g;
    CHECK(glob(test_path("run.h5.part.*"), 0, NULL, &g) == 0 && g.gl_pathc == 1);
    globfree(&g);
    /* The next run keeps it by another name, and has one of its own that a third cannot take. */
    struct journal mine;
    struct err e = { 0 };
    CHECK_OK(journal_open(&mine, test_path("run.h5"), "", &e), &e);
    CHECK(access(test_path("run.h5.journal.1.csv"), F_OK) == 0);
    CHECK_INT(cli_run("", "engine run %s --out=%s", scenario(), test_path("run.h5")), 5);
    CHECK_HAS(cli_err, "another run is writing it");
    journal_close(&mine, true);
    CHECK(access(test_path("run.h5.journal.csv"), F_OK) != 0);
    /* and removes the half-written run file. */
    CHECK(glob(test_path("run.h5.part.*"), 0, NULL, &g) == GLOB_NOMATCH);
}

/* ---- ranks as processes */

/* What MPI itself leaves allocated at its end is not ours. */
#define MPIENV                                                                                     \
    "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "                                   \
    "ASAN_OPTIONS=detect_leaks=0:$ASAN_OPTIONS "
#define MPIRUN MPIENV "mpirun --oversubscribe -n 4"

static void need_mpirun(void)
{
    if (test_run("command -v mpirun", cli_out, sizeof cli_out, cli_err, sizeof cli_err) != 0)
        SKIP("mpirun is not installed");
    if (test_run(MPIENV "timeout 60 mpirun -n 1 true", NULL, 0, NULL, 0) != 0)
        SKIP("mpirun starts nothing here (no network interface?)");
}

TEST_LIMIT(engine_run_is_the_same_under_mpirun, 240)
{
    char digest[40] = "";
    need_mpirun();
    for (int i = 0; i < 2; i++) {
        CHECK_INT(cli_run(i ? MPIRUN : "",
                          "engine run %s --json --strategy.tp=2 --strategy.pp=2 --threads=1",
                          scenario()),
                  0);
        json_t *j = cli_json();
        const char *said = json_string_value(cli_at(j, "digest"));
        if (i == 0) snprintf(digest, sizeof digest, "%s", said ? said : "");
        CHECK(said && strcmp(said, digest) == 0);
        CHECK_INT(json_array_size(cli_at(j, "ranks")), 4);
        for (size_t r = 0; r < 4; r++) {
            json_t *rank = json_array_get(cli_at(j, "ranks"), r);
            CHECK(cli_number(rank, "gemm_s") > 0 && cli_number(rank, "attention_s") > 0);
            CHECK(cli_number(rank, "gemm_s") + cli_number(rank, "attention_s") <
                  cli_number(rank, "compute_s"));
        }
        CHECK(cli_number(j, "time_share.collective_ratio") > 0);
        CHECK(cli_number(j, "time_share.p2p_ratio") > 0);
        json_decref(j);
    }
}

TEST(engine_run_refuses_replicas_under_mpirun)
{
    need_mpirun();
    CHECK(cli_run(MPIENV "mpirun --oversubscribe -n 2", "engine run %s --strategy.dp=2",
                  scenario()) != 0);
    CHECK_HAS(cli_err,
              "strategy.dp: 2 replicas run as threads of one process; start it without mpirun "
              "or srun");
}

/* One rank is killed when a few requests have finished: the message names it, and they are in the
 * file. */
TEST_LIMIT(engine_run_keeps_what_finished_when_a_rank_is_killed, 240)
{
    struct arena a;
    struct err e = { 0 };
    struct run_file f;
    double *status;
    char journal[600], script[2000];
    int64_t finished = 0;
    need_mpirun();
    arena_init(&a);
    snprintf(journal, sizeof journal, "%s.journal.csv", test_path("run.h5"));
    snprintf(script, sizeof script,
             "\"$@\" & p=$!; n=0\n"
             "while ! [ \"${n:-0}\" -ge 8 ]; do n=$(grep -vc '^#' %s 2>/dev/null); done\n"
             "for r in $(ps -o pid= --ppid $p); do\n"
             "tr '\\0' '\\n' < /proc/$r/environ | grep -qx OMPI_COMM_WORLD_RANK=2 && kill -9 $r\n"
             "done; wait $p\n",
             journal);
    char before[800];
    snprintf(before, sizeof before, MPIENV "timeout %d sh %s mpirun --oversubscribe -n 4",
             100 * test_slow(), cli_put("kill.sh", script));
    CHECK(cli_run(before,
                  "engine run %s --out=%s --workload.rate=60/s --workload.requests=100000 "
                  "--strategy.tp=2 --strategy.pp=2 --threads=1",
                  scenario(), test_path("run.h5")) != 0);
    CHECK_HAS(cli_err, "orrery engine: rank 2: ");
    CHECK_OK(run_open(test_path("run.h5"), &a, &f, &e), &e);
    size_t n = column(&f, "requests/status", &a, &status);
    for (size_t i = 0; i < n; i++) finished += status[i] == RUN_OK;
    CHECK(finished >= 6);
    run_close(&f);
    arena_release(&a);
}

/* ---- wrong input */

static void refused(const char *args, const char *says)
{
    CHECK_INT(cli_run("", "engine run %s --out=%s %s", scenario(), test_path("no.h5"), args), 2);
    if (!CHECK(strstr(cli_err, says) != NULL)) printf("%s: %s", args, cli_err);
    CHECK_TEXT(cli_out, "");
    CHECK(access(test_path("no.h5"), F_OK) != 0);
}

TEST(engine_run_refuses_what_cannot_run_before_it_starts)
{
    refused("--strategy.tp=3", "tp 3 does not divide the 8 attention heads");
    refused("--strategy.pp=5", "pp 5 exceeds the 4 layers");
    refused("--strategy.weights=fp8", "the engine runs bf16, f32 or int8, not fp8");
    refused("--strategy.kv=int8", "the engine keeps bf16 or f32, not int8");
    refused("--policy=null", "null keeps no KV cache");
    refused("--policy.max_model_len=4ktok", "policy.max_model_len: 4000tok; the context of llama31 "
                                            "is 128");
    refused("--policy.kv_blocks=1 --policy.block=1tok", "too small for a request");
    refused("--policy.kv_blocks=2", "workload: none of its 60 requests can run: of the smallest, ");
    refused("--policy.kv_blocks=2", ", its KV exceeds the pool of a replica; the KV cache holds 16 "
                                    "tokens (policy.kv_blocks), a context 128");
    refused("--policy.max_model_len=20tok --workload.turns=3",
            "prompt and output exceed the model's context");
    refused("--model=no-such-model", "no-such-model");
    refused("--kernels=abacus", "no kernels 'abacus'");
    refused("--monitor.window=0", "monitor.window");
    refused("--monitor.windw=3", "did you mean 'monitor.window'?");
    refused("--sweep=workload.rate=1/s,2/s", "an engine runs one point");
    CHECK_INT(cli_run("", "engine run"), 2);
    CHECK_HAS(cli_err, "run takes one scenario file, not 0");
    CHECK_INT(cli_run("", "engine sprint"), 2);
}

/* What can only be waited on is refused at once: nobody writes into these pipes. */
TEST(engine_run_refuses_pipes_devices_and_directories)
{
    char dir[600], file[700], args[1000];
    static const char *const name[] = { "config.json", "model.safetensors",
                                        "model.safetensors.index.json" };
    CHECK_INT(mkfifo(test_path("pipe.yaml"), 0600), 0);
    CHECK_INT(cli_run("timeout 20", "engine run %s", test_path("pipe.yaml")), 2);
    CHECK_HAS(cli_err, "pipe.yaml: it is a pipe, not a file");
    CHECK_INT(cli_run("timeout 20", "engine run %s", test_dir()), 2);
    CHECK_HAS(cli_err, "it is a directory");
    CHECK_INT(cli_run("timeout 20", "engine run /dev/zero"), 2);
    CHECK_HAS(cli_err, "/dev/zero: it is a device, not a file");
    for (int i = 0; i < 3; i++) {
        snprintf(dir, sizeof dir, "%s/m%d", test_dir(), i);
        CHECK_INT(mkdir(dir, 0777), 0);
        for (int k = 0; k < 2; k++) {
            snprintf(args, sizeof args, "cp tests/golden/engine/llama31/%s %s/", name[k], dir);
            CHECK_INT(test_run(args, cli_out, sizeof cli_out, cli_err, sizeof cli_err), 0);
        }
        snprintf(file, sizeof file, "%s/%s", dir, name[i]);
        unlink(file);
        if (i == 2) unlink(strcat(strcpy(args, dir), "/model.safetensors"));
        CHECK_INT(mkfifo(file, 0600), 0);
        CHECK_INT(cli_run("timeout 20", "engine run %s --model=%s", scenario(), dir), 2);
        CHECK_HAS(cli_err, i == 1 ? "model.safetensors: not a regular file" : "it is a pipe");
    }
}

/* Requests that cannot run are counted, and say why. */
TEST(engine_run_counts_requests_that_do_not_fit)
{
    CHECK_INT(
        cli_run("",
                "engine run %s --json --workload.prompt.mean=100tok --workload.prompt.max=400tok",
                scenario()),
        1);
    json_t *j = cli_json();
    CHECK(cli_number(j, "requests.rejected") > 0 && cli_number(j, "requests.finished") > 0);
    CHECK_INT(cli_number(j, "requests.due"),
              cli_number(j, "requests.rejected") + cli_number(j, "requests.finished"));
    CHECK_TEXT(json_string_value(cli_at(j, "requests.why_rejected")),
               "prompt and output exceed the model's context");
    json_decref(j);
}

TEST(engine_run_dry_and_help)
{
    CHECK_INT(cli_run("", "engine run %s --dry-run", scenario()), 0);
    CHECK_HAS(cli_out, "# llama31 TP1-PP1 on this machine");
    CHECK_HAS(cli_out, "monitor:\n  window: 20");
    CHECK_INT(cli_run("", "engine run --help"), 0);
    CHECK_HAS(cli_out, "--random_weights=N");
    CHECK_HAS(cli_out, "--monitor.straggler=");
    CHECK_HAS(cli_out, "All round activations to 8");
    CHECK_INT(cli_run("", "engine run %s --model=llama-25m --dry-run", scenario()), 0);
    CHECK_HAS(cli_out, "weights f32 drawn");
}
