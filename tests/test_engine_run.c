/* tests/test_engine_run.c - `orrery engine run` as a user has it: a scenario on a tiny checkpoint,
 * its run file, interruptions, wrong input. SPDX-License-Identifier: Apache-2.0 */
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench/journal.h"
#include "tests/test.h"
#include "traces/run.h"

static char out[1 << 16], err[1 << 14];

/* Words before the program (a signal to come, say), then what follows `orrery engine`. */
static int engine(const char *before, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int engine(const char *before, const char *fmt, ...)
{
    char cmd[3000];
    const char *bin = getenv("ORRERY_BIN");
    if (!bin) SKIP("ORRERY_BIN does not name the program");
    if (access("tests/golden/engine/llama31", R_OK) != 0)
        SKIP("tests run from the root of the repository");
    int n = snprintf(cmd, sizeof cmd, "%s %s engine ", before, bin);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(cmd + n, sizeof cmd - (size_t)n, fmt, ap);
    va_end(ap);
    return test_run(cmd, out, sizeof out, err, sizeof err);
}

static const char *put(const char *name, const char *text)
{
    const char *path = test_path(name);
    FILE *f = fopen(path, "w");
    if (f) {
        fputs(text, f);
        fclose(f);
    }
    return path;
}

static const char *scenario(void)
{
    return put("s.yaml",
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

static json_t *parsed(void)
{
    json_error_t e;
    json_t *j = json_loads(out, JSON_REJECT_DUPLICATES, &e);
    if (!CHECK(j != NULL)) fprintf(stderr, "%s\n%.300s\n", e.text, out);
    return j;
}

static json_t *at(json_t *j, const char *path)
{
    char copy[200];
    snprintf(copy, sizeof copy, "%s", path);
    for (char *p = strtok(copy, "."); p && j; p = strtok(NULL, ".")) j = json_object_get(j, p);
    return j;
}

static double number(json_t *j, const char *path)
{
    json_t *v = at(j, path);
    if (!CHECK(json_is_number(v))) fprintf(stderr, "no number %s\n", path);
    return json_number_value(v);
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
    CHECK_INT(engine("", "run %s", scenario()), 0);
    CHECK_HAS(out, "question    does it run?");
    CHECK_HAS(out, "measured    llama31 TP1-PP1 on this machine (1 rank of ");
    CHECK_HAS(out, "h100-sxm is for simulate and not used here");
    CHECK_HAS(out, "60 due = 60 finished + 0 unfinished + 0 rejected");
    CHECK_HAS(out, "all of them: 100.0 %");
    CHECK_HAS(out, "scheduling and bookkeeping");
    CHECK_HAS(out, "anomalies   ");
    CHECK_TEXT(err, "");
    CHECK_INT(engine("", "run %s --slo.ttft=1ns", scenario()), 1);
    CHECK_HAS(out, "MISSED");
}

/* The tokens are the same however the model is divided and the cache is used. */
TEST_LIMIT(engine_run_says_the_same_tokens_divided_or_not, 120)
{
    static const char *const way[] = { "",
                                       "--strategy.tp=2 --strategy.pp=2 --threads=1",
                                       "--strategy.pp=4 --strategy.split=1,1,1,1 --threads=1",
                                       "--policy.prefix_cache=off --policy.kv_blocks=12",
                                       "--policy=sarathi --policy.chunk=7tok",
                                       "--policy=static --policy.max_batch_tokens=64tok",
                                       "--kernels=portable --temperature=0" };
    char digest[40] = "";
    for (size_t i = 0; i < sizeof way / sizeof *way; i++) {
        CHECK_INT(engine("", "run %s --json %s", scenario(), way[i]), 0);
        json_t *j = parsed();
        const char *said = json_string_value(at(j, "digest"));
        CHECK(said != NULL);
        if (i == 0) snprintf(digest, sizeof digest, "%s", said ? said : "");
        if (!CHECK(said && strcmp(said, digest) == 0)) printf("%s\n", way[i]);
        if (i == 1) CHECK_INT(json_array_size(at(j, "ranks")), 4);
        if (i == 3) CHECK(number(j, "kv.preemptions") > 0);
        if (i == 3) CHECK(json_array_size(at(j, "anomalies")) > 0); /* memory pressure */
        CHECK(number(j, "runs.little_error_ratio") < .05);
        json_decref(j);
    }
    CHECK_INT(engine("", "run %s --json --temperature=1", scenario()), 0);
    json_t *j = parsed();
    CHECK(strcmp(json_string_value(at(j, "digest")), digest) != 0);
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
    CHECK_INT(engine("", "run %s --tokens --out=%s --record.stages_for=10s", scenario(),
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

TEST(engine_run_file_can_be_reported_and_its_scenario_simulated)
{
    char cmd[1500];
    const char *bin = getenv("ORRERY_BIN");
    CHECK_INT(engine("", "run %s --out=%s", scenario(), test_path("run.h5")), 0);
    snprintf(cmd, sizeof cmd, "%s report %s --out=%s", bin, test_path("run.h5"),
             test_path("r.html"));
    CHECK_INT(test_run(cmd, out, sizeof out, err, sizeof err), 0);
    snprintf(cmd, sizeof cmd, "%s simulate %s", bin, test_path("s.yaml"));
    CHECK_INT(test_run(cmd, out, sizeof out, err, sizeof err), 0);
    CHECK_HAS(out, "60 due = 60 finished");
}

/* A long run that gets a signal once the journal has five lines; its exit status. */
static int signalled(const char *name)
{
    char cmd[1800];
    const char *bin = getenv("ORRERY_BIN");
    if (!bin) SKIP("ORRERY_BIN does not name the program");
    snprintf(cmd, sizeof cmd,
             "%s engine run %s --out=%s --workload.rate=40/s --workload.requests=100000 & p=$!; "
             "while kill -0 $p && ! [ \"$(wc -l < %s.journal.csv)\" -gt 6 ]; do :; done 2>%s; "
             "kill -%s $p; wait $p",
             bin, scenario(), test_path("run.h5"), test_path("run.h5"), test_path("waits"), name);
    return test_run(cmd, out, sizeof out, err, sizeof err);
}

/* Ctrl-C: what has finished is in the file, what has not is marked. */
TEST(engine_run_keeps_what_finished_when_interrupted)
{
    struct arena a;
    struct err e = { 0 };
    struct run_file f;
    double *status;
    int64_t finished = 0;
    arena_init(&a);
    CHECK_INT(signalled("INT"), 130);
    CHECK_HAS(err, "orrery engine: interrupted; ");
    CHECK_HAS(err, "requests had finished, they are in ");
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

/* Killed: no run file, and a journal whose lines are whole. */
TEST(engine_run_leaves_a_journal_when_killed)
{
    char line[400];
    int n = 0;
    signalled("KILL");
    CHECK(access(test_path("run.h5"), F_OK) != 0);
    FILE *f = fopen(test_path("run.h5.journal.csv"), "r");
    if (!CHECK(f != NULL)) return;
    while (fgets(line, sizeof line, f)) {
        int commas = 0;
        for (char *p = line; *p; p++) commas += *p == ',';
        CHECK(line[strlen(line) - 1] == '\n');
        if (n > 0) CHECK_INT(commas, 11);
        if (n > 1) CHECK_HAS(line, ",ok,");
        n++;
    }
    fclose(f);
    CHECK(n > 3);
    /* The next run keeps it by another name, and has one of its own that a third cannot take. */
    struct journal mine;
    struct err e = { 0 };
    CHECK_OK(journal_open(&mine, test_path("run.h5"), &e), &e);
    CHECK(access(test_path("run.h5.journal.1.csv"), F_OK) == 0);
    CHECK_INT(engine("", "run %s --out=%s", scenario(), test_path("run.h5")), 5);
    CHECK_HAS(err, "another run is writing it");
    journal_close(&mine, true);
    CHECK(access(test_path("run.h5.journal.csv"), F_OK) != 0);
}

/* ---- ranks as processes */

/* What MPI itself leaves allocated at its end is not ours. */
#define MPIENV                                                                                     \
    "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "                                   \
    "ASAN_OPTIONS=detect_leaks=0:$ASAN_OPTIONS "
#define MPIRUN MPIENV "mpirun --oversubscribe -n 4"

static void need_mpirun(void)
{
    if (test_run("command -v mpirun", out, sizeof out, err, sizeof err) != 0)
        SKIP("mpirun is not installed");
}

TEST(engine_run_is_the_same_under_mpirun)
{
    char digest[40] = "";
    need_mpirun();
    for (int i = 0; i < 2; i++) {
        CHECK_INT(engine(i ? MPIRUN : "",
                         "run %s --json --strategy.tp=2 --strategy.pp=2 --threads=1", scenario()),
                  0);
        json_t *j = parsed();
        const char *said = json_string_value(at(j, "digest"));
        if (i == 0) snprintf(digest, sizeof digest, "%s", said ? said : "");
        CHECK(said && strcmp(said, digest) == 0);
        json_decref(j);
    }
}

/* One rank is killed when a few requests have finished: the message names it, and they are in the
 * file. */
TEST(engine_run_keeps_what_finished_when_a_rank_is_killed)
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
             "while [ $n -lt 8 ]; do n=$(cat %s 2>/dev/null | wc -l); done\n"
             "kill -9 $(ps -o pid= --ppid $p | sed -n 3p); wait $p\n",
             journal);
    char before[800];
    snprintf(before, sizeof before, MPIENV "timeout 30 sh %s mpirun --oversubscribe -n 4",
             put("kill.sh", script));
    CHECK(engine(before,
                 "run %s --out=%s --workload.rate=60/s --workload.requests=100000 "
                 "--strategy.tp=2 --strategy.pp=2 --threads=1",
                 scenario(), test_path("run.h5")) != 0);
    CHECK_HAS(err, "orrery engine: rank 2: ");
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
    CHECK_INT(engine("", "run %s --out=%s %s", scenario(), test_path("no.h5"), args), 2);
    if (!CHECK(strstr(err, says) != NULL)) printf("%s: %s", args, err);
    CHECK_TEXT(out, "");
    CHECK(access(test_path("no.h5"), F_OK) != 0);
}

TEST(engine_run_refuses_what_cannot_run_before_it_starts)
{
    refused("--strategy.dp=2", "strategy.dp: 2 replicas; the engine runs one");
    refused("--strategy.tp=3", "tp 3 does not divide the 8 attention heads");
    refused("--strategy.pp=5", "pp 5 exceeds the 4 layers");
    refused("--strategy.weights=fp8", "the engine runs bf16, f32 or int8, not fp8");
    refused("--strategy.kv=int8", "the engine keeps bf16 or f32, not int8");
    refused("--policy=null", "null keeps no KV cache");
    refused("--policy.max_model_len=4ktok", "policy.max_model_len: 4000tok; the context of llama31 "
                                            "is 128");
    refused("--policy.kv_blocks=1 --policy.block=1tok", "too small for a request");
    refused("--model=no-such-model", "no-such-model");
    refused("--kernels=abacus", "no kernels 'abacus'");
    refused("--monitor.window=0", "monitor.window");
    refused("--monitor.windw=3", "did you mean 'monitor.window'?");
    refused("--sweep=workload.rate=1/s,2/s", "an engine runs one point");
    CHECK_INT(engine("", "run"), 2);
    CHECK_HAS(err, "run takes one scenario file, not 0");
    CHECK_INT(engine("", "sprint"), 2);
}

/* Requests that cannot run are counted, and say why. */
TEST(engine_run_counts_requests_that_do_not_fit)
{
    CHECK_INT(engine("", "run %s --json --workload.prompt.mean=100tok --workload.prompt.max=400tok",
                     scenario()),
              1);
    json_t *j = parsed();
    CHECK(number(j, "requests.rejected") > 0 && number(j, "requests.finished") > 0);
    CHECK_INT(number(j, "requests.due"),
              number(j, "requests.rejected") + number(j, "requests.finished"));
    CHECK_TEXT(json_string_value(at(j, "requests.why_rejected")),
               "prompt and output exceed the model's context");
    json_decref(j);
}

TEST(engine_run_dry_and_help)
{
    CHECK_INT(engine("", "run %s --dry-run", scenario()), 0);
    CHECK_HAS(out, "# llama31 TP1-PP1 on this machine");
    CHECK_HAS(out, "monitor:\n  window: 20");
    CHECK_INT(engine("", "run --help"), 0);
    CHECK_HAS(out, "--random_weights=N");
    CHECK_HAS(out, "--monitor.straggler=");
    CHECK_INT(engine("", "run %s --model=llama-25m --dry-run", scenario()), 0);
    CHECK_HAS(out, "weights f32 drawn");
}
