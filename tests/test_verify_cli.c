/* tests/test_verify_cli.c - `orrery verify` as a user has it: text, JSON, reports, wrong input, agreement with simulate.
 * SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/cli.h"
#include "tests/test.h"

/* A whole file in `out`. */
static const char *content(const char *path)
{
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(cli_out, 1, sizeof cli_out - 1, f) : 0;
    if (f) fclose(f);
    cli_out[n] = 0;
    return cli_out;
}

static json_t *check_named(json_t *j, const char *name)
{
    size_t i;
    json_t *k;
    json_array_foreach(json_object_get(j, "checks"), i,
                       k) if (strcmp(json_string_value(json_object_get(k, "name")), name) ==
                              0) return k;
    return NULL;
}

static double number(json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

static const char *text(json_t *o, const char *key)
{
    const char *t = json_string_value(json_object_get(o, key));
    return t ? t : "";
}

#define PLAN_70B "scenarios/verify-llama3-70b.yaml"

/* ---- the plan for eight H100 on one T4 */

TEST(verify_cli_t4_is_not_enough)
{
    CHECK_INT(cli_run("", "verify " PLAN_70B " --on=t4-1 --json"), 1);
    json_t *j = cli_json(), *k;
    size_t i;
    if (!j) return;
    CHECK(json_is_false(json_object_get(j, "compatible")));
    CHECK_INT(number(json_object_get(j, "dag"), "nodes"), 8);
    CHECK_INT(number(json_object_get(j, "dag"), "edges"), 14);
    CHECK_INT(number(check_named(j, "gpus"), "deficit"), 7);
    CHECK_NEAR(number(json_object_get(j, "found"), "gpu_memory_bytes"), 15109.0 * 1048576, 0);
    CHECK_NEAR(number(json_object_get(j, "division"), "params") * 2, 141e9, 1e-2);
    /* the score is what its rule says */
    int points = 0;
    bool fails = false;
    json_array_foreach(json_object_get(j, "checks"), i, k)
    {
        const char *status = text(k, "status");
        bool takes = strcmp(status, "fail") == 0 || strcmp(status, "warn") == 0;
        fails |= strcmp(status, "fail") == 0;
        points += (int)number(k, "points");
        CHECK(takes || number(k, "points") == 0);
        CHECK(*text(k, "rule") && *text(k, "finding"));
        if (strcmp(status, "fail") == 0) CHECK(number(k, "deficit") > 0);
    }
    int score = 100 - points;
    if (fails && score > 40) score = 40;
    CHECK_INT(number(j, "score"), score > 0 ? score : 0);
    CHECK(json_array_size(json_object_get(j, "alternatives")) > 5);
    json_decref(j);
}

TEST(verify_cli_h100_node_is)
{
    CHECK_INT(cli_run("", "verify " PLAN_70B " --json"), 0);
    json_t *j = cli_json();
    if (!j) return;
    CHECK(json_is_true(json_object_get(j, "compatible")));
    json_t *c = json_object_get(j, "communication"), *tp = json_object_get(c, "tp"),
           *pp = json_object_get(c, "pp");
    CHECK_INT(number(tp, "allreduces_per_layer"), 2);
    CHECK_INT(number(tp, "token_bytes"), 16384);
    CHECK_INT(number(pp, "token_bytes"), 16384);
    /* 80 layers: 20 a stage if equal, and then unequal in time */
    json_t *d = json_object_get(j, "division");
    CHECK(number(d, "equal_epsilon_time_ratio") > number(d, "epsilon_time_ratio"));
    CHECK(number(check_named(j, "slo.attainment"), "available") >= 0.9);
    json_decref(j);
}

/* ---- verify and simulate say the same */

static const char *const scenarios[] = { "smoke",
                                         "llama3-70b-tp2pp4",
                                         "llama3-70b-tp8",
                                         "falcon-180b-16xh100",
                                         "verify-llama3-70b",
                                         "verify-llama3-70b-4xa100-40gb",
                                         "verify-falcon-180b-16xh100",
                                         "verify-llama3-8b-t4",
                                         "verify-llama3-70b-8xl40s",
                                         "verify-pcie-tp8-or-tp2" };

TEST(verify_cli_status_is_that_of_simulate)
{
    for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++) {
        int s = cli_run("", "simulate scenarios/%s.yaml --sim.draws=0", scenarios[i]);
        int v = cli_run("", "verify scenarios/%s.yaml --alternatives=no", scenarios[i]);
        if (!CHECK_INT(v, s != 0)) fprintf(stderr, "%s\n", scenarios[i]);
    }
}

/* What is offered is run as the reader would run it. */
TEST_LIMIT(verify_cli_alternatives_hold_in_simulate, 240)
{
    size_t i;
    json_t *x;
    int n = 0;
    CHECK_INT(cli_run("", "verify scenarios/verify-llama3-8b-t4.yaml --json"), 1);
    json_t *j = cli_json();
    if (!j) return;
    json_array_foreach(json_object_get(j, "alternatives"), i, x)
    {
        json_t *s = json_object_get(x, "strategy"), *run = json_object_get(x, "simulation");
        if (n == 12) break;
        int status = cli_run(
            "",
            "simulate scenarios/verify-llama3-8b-t4.yaml --sim.draws=0 --sim.replications=1 "
            "--model=%s "
            "--hardware=%s --hardware.nodes=%d --strategy.tp=%d --strategy.pp=%d --strategy.dp=%d "
            "--strategy.weights=%s",
            text(x, "model"), text(x, "hardware"), (int)number(x, "nodes"), (int)number(s, "tp"),
            (int)number(s, "pp"), (int)number(s, "dp"), text(s, "weights"));
        CHECK_INT(status, json_is_true(json_object_get(run, "slo_held")) ? 0 : 1);
        n++;
    }
    CHECK(n > 5);
    json_decref(j);
}

TEST_LIMIT(verify_cli_does_not_depend_on_threads, 120)
{
    char *one = malloc(sizeof cli_out);
    cli_run("", "verify scenarios/verify-llama3-8b-t4.yaml --json --suggest --verify.threads=1");
    memcpy(one, cli_out, sizeof cli_out);
    cli_run("", "verify scenarios/verify-llama3-8b-t4.yaml --json --suggest --verify.threads=3");
    CHECK(strcmp(one, cli_out) == 0);
    free(one);
}

/* ---- what the command line asks for */

TEST(verify_cli_context_and_batch_asked_are_demands)
{
    static const char run[] =
        "verify scenarios/smoke.yaml --simulate=no --verify.context=%s --verify.batch=%d --json";
    CHECK_INT(cli_run("", run, "2048tok", 32), 0);
    CHECK_INT(cli_run("", run, "8192tok", 4000), 1);
    json_t *j = cli_json();
    if (j) {
        json_t *k = check_named(j, "kv");
        CHECK_TEXT(text(k, "status"), "fail");
        CHECK_NEAR(number(k, "required"), 4000.0 * 8192 / 16, 0);
        CHECK_NEAR(number(k, "deficit"), number(k, "required") - number(k, "available"), 0);
        json_decref(j);
    }
    CHECK_INT(cli_run("", run, "8193tok", 1), 1); /* the model ends at 8192 */
    CHECK_INT(cli_run("", "verify scenarios/smoke.yaml --simulate=no --verify.node_power=500W"), 1);
    CHECK_HAS(cli_out, "power.node");
    CHECK_INT(cli_run("", "verify scenarios/smoke.yaml --simulate=no --verify.node_power=800W"), 0);
    CHECK_INT(cli_run("", "verify " PLAN_70B " --simulate=no --verify.load_time=1s"), 1);
    CHECK_INT(cli_run("", "verify " PLAN_70B " --simulate=no --verify.rack_power=9kW"), 1);
}

TEST(verify_cli_without_simulation_has_no_slo)
{
    CHECK_INT(cli_run("", "verify scenarios/smoke.yaml --simulate=no --json --slo.ttft=1us"), 0);
    json_t *j = cli_json();
    if (j) CHECK(!check_named(j, "slo.attainment") && !json_object_get(j, "simulation"));
    json_decref(j);
    CHECK_INT(cli_run("", "verify scenarios/smoke.yaml --alternatives=no --slo.ttft=1us"), 1);
    CHECK_HAS(cli_out, "slo.attainment");
}

static int rank_of(json_t *j, int tp, int pp, int dp)
{
    size_t i;
    json_t *x;
    json_array_foreach(json_object_get(j, "advice"), i, x)
    {
        json_t *s = json_object_get(x, "strategy");
        CHECK(*text(x, "reason"));
        if (number(s, "tp") == tp && number(s, "pp") == pp && number(s, "dp") == dp) return (int)i;
    }
    return 1000;
}

TEST(verify_cli_advises_tp2_over_tp8_on_pcie)
{
    static const char *const urgency[] = { "latency", "throughput", "cost" };
    for (int u = 0; u < 3; u++) {
        cli_run("",
                "verify scenarios/verify-pcie-tp8-or-tp2.yaml --suggest --alternatives=no "
                "--verify.urgency=%s --json",
                urgency[u]);
        json_t *j = cli_json();
        if (!j) return;
        CHECK(rank_of(j, 2, 1, 4) < rank_of(j, 8, 1, 1));
        CHECK(rank_of(j, 8, 1, 1) < 1000); /* the plan itself is always shown */
        CHECK(json_array_size(json_object_get(j, "advice")) > 3);
        json_decref(j);
    }
}

/* A context or a batch makes the load: so many clients, each with a request of that many tokens. */
TEST(verify_cli_advises_for_a_context_and_a_batch)
{
    static const char *const ask[] = { "--verify.context=2048tok", "--verify.batch=16",
                                       "--verify.context=4096tok --verify.batch=8" };
    for (int k = 0; k < 3; k++) {
        CHECK_INT(cli_run("", "verify " PLAN_70B " --suggest --alternatives=no %s --json", ask[k]),
                  0);
        json_t *j = cli_json(), *best = json_array_get(json_object_get(j, "advice"), 0);
        CHECK_INT(number(best, "rank"), 1);
        CHECK(number(json_object_get(best, "simulation"), "output_tokens_per_s") > 100);
        CHECK_INT(number(best, "gpus"), 8);
        json_decref(j);
    }
}

/* ---- files */

/* Every '<' of a page that is no tag of ours would be a hole. */
TEST(verify_cli_reports_escape_what_they_quote)
{
    const char *path = cli_put(
        "x.yaml",
        "title: '<script>alert(1)</script> & \"x\" | `y`'\nmodel: llama-3-8b\nhardware: h100-sxm\n"
        "workload: {rate: 4/s, requests: 50}\n");
    char html[300], md[300];
    snprintf(html, sizeof html, "%s", test_path("r.html"));
    snprintf(md, sizeof md, "%s", test_path("r.md"));
    CHECK_INT(cli_run("", "verify %s --out=%s", path, html), 0);
    CHECK(!strstr(content(html), "<script"));
    CHECK_HAS(cli_out, "&lt;script&gt;");
    CHECK_HAS(cli_out, "<svg ");
    CHECK_HAS(cli_out, "</html>");
    CHECK(!strstr(cli_out, "src=") && !strstr(cli_out, "@import") && !strstr(cli_out, "url(http"));
    CHECK_INT(cli_run("", "verify %s --out=%s", path, md), 0);
    CHECK(!strstr(content(md), "<script"));
    CHECK_HAS(cli_out, "<svg ");
    CHECK_HAS(cli_out, "\\|");
}

TEST(verify_cli_writes_the_graph)
{
    char dot[300], svg[300];
    snprintf(dot, sizeof dot, "%s", test_path("g.dot"));
    snprintf(svg, sizeof svg, "%s", test_path("g.svg"));
    CHECK_INT(cli_run("", "verify " PLAN_70B " --simulate=no --dot=%s --svg=%s", dot, svg), 0);
    test_golden("verify-llama3-70b.dot", content(dot));
    test_golden("verify-llama3-70b.svg", content(svg));
}

TEST(verify_cli_leaves_no_half_files)
{
    char cmd[700], names[200];
    CHECK_INT(cli_run("", "verify scenarios/smoke.yaml --out=%s/no/such/r.html", test_dir()), 5);
    CHECK_INT(cli_run("", "verify scenarios/smoke.yaml --out=%s", test_path("r.pdf")), 2);
    CHECK_INT(cli_run("", "verify scenarios/smoke.yaml --simulate=no > /dev/full"), 5);
    snprintf(cmd, sizeof cmd, "ls %s | grep -v '^std'", test_dir());
    test_run(cmd, names, sizeof names, NULL, 0);
    CHECK_TEXT(names, "");
}

/* ---- what is there */

TEST(verify_cli_reads_topology_files)
{
    char path[600];
    snprintf(path, sizeof path, "%s",
             test_data("hardware_topology_accelmark/nvidia_h200_box_of_8.txt"));
    CHECK_INT(cli_run("", "verify " PLAN_70B " --on=%s --gpu=h200-sxm --json", path), 0);
    json_t *j = cli_json();
    if (j) {
        CHECK_INT(json_array_size(json_object_get(json_object_get(j, "environment"), "gpus")), 8);
        CHECK_INT(number(json_object_get(j, "found"), "gpus_per_node"), 8);
        json_decref(j);
    }
    CHECK_INT(cli_run("", "verify " PLAN_70B " --on=%s", path), 2);
    CHECK_HAS(cli_err, "--gpu=");
    snprintf(path, sizeof path, "%s", test_data("hardware_topology_xml/aws-p5.48xl-topo.xml"));
    CHECK_INT(cli_run("", "verify " PLAN_70B " --on=%s --gpu=h100-sxm --simulate=no", path), 0);
}

/* A machine without GPUs is an answer, not an error: the plan lacks all of them, and others are found. */
TEST_LIMIT(verify_cli_without_any_gpu_is_not_compatible, 120)
{
    const char *path =
        cli_put("none.xml", "<?xml version=\"1.0\"?>\n<topology version=\"2.0\"><object "
                            "type=\"Machine\" os_index=\"0\">"
                            "</object></topology>\n");
    CHECK_INT(cli_run("", "verify scenarios/smoke.yaml --on=%s --json", path), 1);
    json_t *j = cli_json();
    if (!j) return;
    CHECK_INT(number(j, "score"), 0);
    CHECK_NEAR(number(check_named(j, "gpus"), "deficit"), 1, 0);
    CHECK(json_is_null(json_object_get(j, "found")));
    CHECK(json_array_size(json_object_get(j, "alternatives")) > 5);
    json_decref(j);
}

TEST(verify_cli_refuses_wrong_input_with_one_sentence)
{
    char xml[300], junk[300], config[300];
    snprintf(xml, sizeof xml, "%s", cli_put("bad.xml", "<system version=\"1\"><cpu"));
    snprintf(junk, sizeof junk, "%s", cli_put("junk.txt", "\x01\x02 nothing\n"));
    snprintf(config, sizeof config, "%s",
             cli_put("config.json", "{\"model_type\": \"llama\", \"hidden_size\": -1}"));
    struct {
        const char *args, *arg, *says;
        int status;
    } wrong[] = {
        { "verify", "", "takes one scenario file", 2 },
        { "verify " PLAN_70B " --on=t5", "", "did you mean 't4'?", 2 },
        { "verify " PLAN_70B " --on=%s", xml, "bad.xml", 2 },
        { "verify " PLAN_70B " --on=%s", junk, "junk.txt", 2 },
        { "verify " PLAN_70B " --model=%s", config, "config.json", 2 },
        { "verify " PLAN_70B " --gpus=t4", "", "--gpus", 2 },
        { "verify " PLAN_70B " --simulate=maybe", "", "simulate", 2 },
        { "verify " PLAN_70B " --verify.context=8192", "", "has no unit", 2 },
        { "verify " PLAN_70B " --on=t4-1 --detect", "", "both", 2 },
        { "verify " PLAN_70B " --workload.trace=no-such.csv", "", "no-such.csv", 2 },
        { "verify no-such.yaml", "", "no-such.yaml", 2 },
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char args[900], *hole = NULL;
        snprintf(args, sizeof args, "%s", wrong[i].args);
        if ((hole = strstr(args, "%s")) != NULL)
            snprintf(hole, sizeof args - (size_t)(hole - args), "%s", wrong[i].arg);
        bool ok = CHECK_INT(cli_run("", "%s", args), wrong[i].status);
        ok &= CHECK_HAS(cli_err, wrong[i].says);
        ok &= CHECK_TEXT(cli_out, "");
        const char *end = strchr(cli_err, '\n');
        ok &= CHECK(end && !end[1] && strncmp(cli_err, "orrery verify: ", 15) == 0);
        if (!ok) fprintf(stderr, "  %s\n", args);
    }
}

/* ---- reports as they are shipped */

static void golden(const char *name, const char *args)
{
    char path[200];
    cli_run("", "verify %s", args);
    CHECK_TEXT(cli_err, "");
    snprintf(path, sizeof path, "verify-%s.txt", name);
    test_golden(path, cli_out);
}

TEST_LIMIT(verify_cli_report_llama3_70b_on_t4, 120)
{
    golden("llama3-70b-on-t4", PLAN_70B " --on=t4-1");
}
TEST(verify_cli_report_llama3_70b_on_h100)
{
    golden("llama3-70b-on-8xh100", PLAN_70B);
}
TEST_LIMIT(verify_cli_report_llama3_70b_on_4xa100, 120)
{
    golden("llama3-70b-4xa100-40gb", "scenarios/verify-llama3-70b-4xa100-40gb.yaml");
}
TEST(verify_cli_report_falcon_180b)
{
    golden("falcon-180b-16xh100", "scenarios/verify-falcon-180b-16xh100.yaml");
}
TEST_LIMIT(verify_cli_report_llama3_8b_on_t4, 120)
{
    golden("llama3-8b-t4", "scenarios/verify-llama3-8b-t4.yaml");
}
TEST(verify_cli_report_llama3_70b_on_l40s)
{
    golden("llama3-70b-8xl40s", "scenarios/verify-llama3-70b-8xl40s.yaml");
}
TEST_LIMIT(verify_cli_report_pcie, 120)
{
    golden("pcie-tp8-or-tp2", "scenarios/verify-pcie-tp8-or-tp2.yaml --suggest");
}
TEST(verify_cli_report_in_html)
{
    char path[300];
    snprintf(path, sizeof path, "%s", test_path("r.html"));
    CHECK_INT(cli_run("", "verify " PLAN_70B " --out=%s", path), 0);
    test_golden("verify-llama3-70b-on-8xh100.html", content(path));
}
