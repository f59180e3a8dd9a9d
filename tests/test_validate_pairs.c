/* tests/test_validate_pairs.c - which runs may stand beside a prediction: of the right kind, none
 * that it was made of, of its policy and its requests, and enough of them to know their noise.
 * SPDX-License-Identifier: Apache-2.0 */
#include <hdf5.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/prov.h"
#include "bench/validate.h"
#include "tests/cli.h"
#include "tests/test.h"
#include "traces/run.h"

/* ---- run files of 40 requests, a token each, all latencies times f */

struct made {
    const char *kind, *scenario;
    double f;
    const char *made_of; /* /scenario/calibrated_by; NULL: none */
    int early;           /* of the requests, the first ones, got a token before they were due */
};

static const char *file(const char *name)
{
    char full[80];
    snprintf(full, sizeof full, "%s.h5", name);
    return test_path(full);
}

/* Its run_uuid in id[37]; false where it could not be made. */
static bool make(const char *name, struct made m, char *id)
{
    struct err e = { 0 };
    struct prov p;
    static char word[] = "test";
    char *argv[] = { word, NULL };
    run *r = run_create(file(name), &e);
    if (!r) return false;
    prov_collect(&p, 1, argv);
    prov_write(&p, run_h5(r), "orrery-run", "1.0.0", "made by hand", &e);
    h5_attr_text(run_h5(r), "/provenance", "kind", m.kind, &e);
    h5_group(run_h5(r), "/scenario", "what was asked", &e);
    h5_text(run_h5(r), "/scenario/yaml", m.scenario, "scenario", &e);
    if (m.made_of) h5_text(run_h5(r), "/scenario/calibrated_by", m.made_of, "runs", &e);
    for (int64_t i = 0; i < 40; i++) {
        struct run_request q = { .t_due_ns = (i + 1) * 100000000,
                                 .t_start_ns = (i + 1) * 100000000,
                                 .n_in = 10,
                                 .n_out = 3,
                                 .session = -1 };
        q.t_first_ns = q.t_due_ns + (int64_t)(m.f * 2e7);
        q.t_last_ns = q.t_first_ns + (int64_t)(m.f * 1e7);
        if (i < m.early) q.t_first_ns = q.t_due_ns - 1;
        run_put_request(r, &q, &e);
    }
    struct ci c = { NAN, 100 / m.f, NAN };
    run_put_summary(r, "output_per_s", &c, 1, "mean", "token s-1", "by hand", &e);
    memcpy(id, p.run_uuid, sizeof p.run_uuid);
    prov_release(&p);
    if (e.status != ST_OK) run_abort(r);
    return e.status == ST_OK && run_commit(r, &e) == ST_OK;
}

static const char *yaml(const char *workload, int max_seqs, int seed)
{
    static char text[4][200];
    static int at;
    char *t = text[at++ % 4];
    snprintf(t, sizeof text[0],
             "model: m\nworkload: {%s}\npolicy: {name: vllm, max_seqs: %d}\nsim: {seed: %d}\n",
             workload, max_seqs, seed);
    return t;
}

static int manifest(const char *use, const char *predicted, const char *measured)
{
    char text[300];
    snprintf(text, sizeof text, "cases:\n  - {name: one, %spredicted: %s, measured: [%s]}\n", use,
             predicted, measured);
    return cli_run("", "validate %s", cli_put("m.yaml", text));
}

static int pair(const char *predicted, const char *measured)
{
    char path[200];
    snprintf(path, sizeof path, "%s", file(predicted));
    return cli_run("", "validate --predicted=%s --measured=%s", path, file(measured));
}

/* ---- what a prediction was made of */

TEST(validate_knows_the_runs_that_calibrated)
{
    char a[37], b[37], p[37], lines[200];
    const char *s = yaml("rate: 1/s", 4, 1);
    CHECK(make("a", (struct made){ "measured", s, 1, NULL, 0 }, a));
    CHECK(make("b", (struct made){ "measured", s, 1.01, NULL, 0 }, b));
    CHECK(make("c", (struct made){ "measured", s, 1.02, NULL, 0 }, p));
    snprintf(lines, sizeof lines, "%s device\n%s host\n", a, b);
    CHECK(make("p", (struct made){ "simulated", s, 1, lines, 0 }, p));
    CHECK_INT(pair("p", "a"), 3);
    CHECK_HAS(cli_out, "0 held out, 1 calibrated the prediction");
    CHECK_HAS(cli_out, "p: calibrated, not held out: ");
    CHECK_HAS(cli_out, "a.h5 calibrated the profile that ");
    CHECK_HAS(cli_out, "p.h5 was predicted with\n");
    CHECK_INT(pair("p", "b"), 3);
    CHECK_HAS(cli_out, "b.h5 calibrated the profile that ");
    CHECK_HAS(cli_out, "p.h5 was predicted with (for host times)\n");
    CHECK_INT(pair("p", "c"), 3);
    CHECK_HAS(cli_out, "1 held out, 0 calibrated");
    /* one of several is enough, a copy is the same run, and saying nothing says held out */
    CHECK_INT(cli_shell("cp %s %s/copy.h5", file("a"), test_dir()), 0);
    CHECK_INT(manifest("use: held-out, ", "p.h5", "c.h5, copy.h5"), 2);
    CHECK_HAS(cli_err, "m.yaml:2:");
    CHECK_HAS(cli_err, "case 'one' is not held out: ");
    CHECK_HAS(cli_err, "copy.h5 calibrated the profile that ");
    CHECK_HAS(cli_err, "p.h5 was predicted with; say use: calibrated");
    CHECK_INT(manifest("", "p.h5", "b.h5"), 2);
    CHECK_HAS(cli_err, "(for host times)");
    CHECK_INT(manifest("use: calibrated, ", "p.h5", "a.h5, b.h5"), 3);
    CHECK_INT(manifest("use: held-out, ", "p.h5", "c.h5"), 3);
}

/* ---- kinds */

TEST(validate_refuses_the_wrong_kind)
{
    char id[37];
    const char *s = yaml("rate: 1/s", 4, 1);
    CHECK(make("m", (struct made){ "measured", s, 1, NULL, 0 }, id));
    CHECK(make("n", (struct made){ "measured", s, 1, NULL, 0 }, id));
    CHECK(make("p", (struct made){ "simulated", s, 1, NULL, 0 }, id));
    CHECK(make("q", (struct made){ "simulated", s, 1, NULL, 0 }, id));
    CHECK_INT(pair("p", "q"), 2);
    CHECK_HAS(cli_err, "q.h5 is no measurement: it was simulated");
    CHECK_INT(pair("m", "n"), 2);
    CHECK_HAS(cli_err, "m.h5 is no prediction: it was measured");
    CHECK_INT(pair("m", "p"), 2);
    CHECK_HAS(cli_err, "the wrong way round");
    CHECK_INT(manifest("", "p.h5", "m.h5, q.h5"), 2);
    CHECK_HAS(cli_err, "case 'one': ");
    CHECK_HAS(cli_err, "q.h5 is no measurement: it was simulated");
    CHECK_INT(manifest("", "m.h5", "n.h5"), 2);
    CHECK_HAS(cli_err, "m.h5 is no prediction: it was measured");
    CHECK_INT(cli_run("", "validate %s",
                      cli_put("m.yaml", "aa: {a: [m.h5], b: [q.h5]}\n"
                                        "cases: [{name: one, predicted: p.h5, measured: [n.h5]}]")),
              2);
    CHECK_HAS(cli_err, "case 'aa': ");
    CHECK_HAS(cli_err, "q.h5 is no measurement");
    CHECK_INT(pair("p", "m"), 3);
}

/* ---- policy and seed */

TEST(validate_refuses_another_policy_or_draw)
{
    char id[37];
    const char *drawn = "trace: \"-\", rate: 1/s", *trace = "trace: t.csv";
    const struct {
        const char *workload;
        int max_seqs, seed;
        const char *says; /* NULL: may be compared */
    } with[] = {
        { drawn, 8, 1, "predicts another policy than" },
        { drawn, 4, 2, "predicts another draw of requests than" },
        { drawn, 4, 1, NULL },
        { trace, 8, 1, "policy.max_seqs=4 against policy.max_seqs=8" },
        { trace, 4, 2, NULL },
    };
    for (size_t i = 0; i < sizeof with / sizeof *with; i++) {
        CHECK(
            make("p", (struct made){ "simulated", yaml(with[i].workload, 4, 1), 1, NULL, 0 }, id));
        CHECK(
            make("m",
                 (struct made){ "measured", yaml(with[i].workload, with[i].max_seqs, with[i].seed),
                                1, NULL, 0 },
                 id));
        CHECK_INT(manifest("", "p.h5", "m.h5"), with[i].says ? 2 : 3);
        if (with[i].says) CHECK_HAS(cli_err, with[i].says);
        CHECK_INT(pair("p", "m"), with[i].says ? 2 : 3);
    }
    CHECK(make("p", (struct made){ "simulated", yaml("rate: 1/s", 4, 1), 1, NULL, 0 }, id));
    CHECK(make("m", (struct made){ "measured", yaml("rate: 1/s", 4, 9), 1, NULL, 0 }, id));
    CHECK_INT(manifest("", "p.h5", "m.h5"), 2);
    CHECK_HAS(cli_err, "sim.seed=1 against sim.seed=9");
    CHECK(make("n", (struct made){ "measured", yaml("rate: 1/s", 4, 1), 1, NULL, 0 }, id));
    CHECK(make("o", (struct made){ "measured", yaml("rate: 1/s", 8, 9), 1, NULL, 0 }, id));
    for (int i = 0; i < 2;
         i++) { /* arms, of which the runs are equal, within one and between them */
        CHECK_INT(cli_run("", "validate %s",
                          cli_put("m.yaml", i ? "aa: {a: [m.h5, o.h5], b: [n.h5]}\n"
                                                "cases: [{name: one, refused: x}]\n"
                                              : "aa: {a: [m.h5], b: [n.h5]}\n"
                                                "cases: [{name: one, refused: x}]\n")),
                  2);
        CHECK_HAS(cli_err, "m.yaml:1:5: aa takes equal runs: ");
        CHECK_HAS(cli_err,
                  i ? "o.h5 measured another policy: policy.max_seqs=4 against"
                    : "n.h5 measured another draw of requests: sim.seed=9 against sim.seed=1");
    }
}

/* ---- noise that is not known */

TEST(validate_judges_nothing_by_one_run)
{
    char id[37];
    const char *s = yaml("rate: 1/s", 4, 1);
    CHECK(make("p", (struct made){ "simulated", s, 2, NULL, 0 }, id)); /* twice as long */
    CHECK(make("m", (struct made){ "measured", s, 1, NULL, 0 }, id));
    CHECK(make("n", (struct made){ "measured", s, 1.001, NULL, 0 }, id));
    CHECK_INT(pair("p", "m"), 3);
    CHECK_HAS(cli_out, "verdict: inconclusive at +-3 % throughput, 3 % mean TPOT, 10 % mean TTFT, "
                       "10 % p99 TPOT: one run a configuration: noise floor unknown\n");
    CHECK_HAS(cli_out, "1 of 1 over it; one run a configuration: noise floor unknown\n");
    CHECK(strstr(cli_out, "missed") == NULL && strstr(cli_out, "nan") == NULL);
    CHECK_INT(manifest("", "p.h5", "m.h5, n.h5"), 1);
    CHECK_HAS(cli_out, "verdict: not accurate within +-3 % throughput, ");
    CHECK_INT(cli_run("", "validate %s",
                      cli_put("m.yaml", "cases:\n"
                                        "  - {name: one, predicted: p.h5, measured: [m.h5]}\n"
                                        "  - {name: r, refused: why, measured: [n.h5]}\n")),
              3);
}

/* ---- runs of the simulator itself */

/* Simulations that take the part of measurements: no other kind of run has known constants. */
static bool say_measured(const char *path)
{
    const char *kind = "measured";
    hid_t f = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT), t = H5Tcopy(H5T_C_S1);
    hid_t space = H5Screate(H5S_SCALAR);
    H5Tset_size(t, H5T_VARIABLE);
    H5Tset_cset(t, H5T_CSET_UTF8);
    H5Adelete_by_name(f, "/provenance", "kind", H5P_DEFAULT);
    hid_t a = H5Acreate_by_name(f, "/provenance", "kind", t, space, H5P_DEFAULT, H5P_DEFAULT,
                                H5P_DEFAULT);
    bool ok = a >= 0 && H5Awrite(a, t, &kind) >= 0;
    H5Aclose(a);
    H5Sclose(space);
    H5Tclose(t);
    return H5Fclose(f) >= 0 && ok;
}

/* Equal constants are accurate, a law 6 % slower is found. */
TEST(validate_simulated_runs)
{
    char p[300], same[300], slow[300], also[2][300];
    snprintf(p, sizeof p, "%s", file("p"));
    snprintf(same, sizeof same, "%s", file("same"));
    snprintf(slow, sizeof slow, "%s", file("slow"));
    snprintf(also[0], sizeof also[0], "%s", file("same2"));
    snprintf(also[1], sizeof also[1], "%s", file("slow2"));
    const char *one = "simulate scenarios/smoke.yaml --sim.replications=1";
    if (access("scenarios/smoke.yaml", R_OK) != 0)
        SKIP("tests run from the root of the repository");
    CHECK_INT(cli_run("", "%s --sim.draws=16 --out=%s", one, p), 0);
    CHECK_INT(cli_run("", "%s --sim.draws=0 --out=%s", one, same), 0);
    CHECK_INT(cli_run("", "%s --sim.draws=0 --profile.law=1.06 --out=%s", one, slow), 0);
    CHECK_INT(cli_run("", "%s --sim.draws=0 --out=%s", one, also[0]), 0);
    CHECK_INT(cli_run("", "%s --sim.draws=0 --profile.law=1.06 --out=%s", one, also[1]), 0);
    CHECK(say_measured(same) && say_measured(slow) && say_measured(also[0]) &&
          say_measured(also[1]));
    CHECK_INT(cli_run("", "validate --predicted=%s --measured=%s,%s --json", p, same, also[0]), 0);
    CHECK_INT(cli_run("", "validate --predicted=%s --measured=%s,%s --json", p, slow, also[1]), 1);
    json_t *j = json_loads(cli_out, 0, NULL);
    json_t *s = json_object_get(json_object_get(j, "held_out"), "TPOT mean");
    double bias = json_real_value(json_object_get(json_object_get(s, "mean_log_error"), "mid"));
    CHECK(bias < -.045 && bias > -.075);
    json_decref(j);
}

/* ---- requests whose times contradict each other */

static json_t *compared(const char *measured)
{
    char path[200];
    snprintf(path, sizeof path, "%s", file("p"));
    CHECK_INT(cli_run("", "validate --predicted=%s --measured=%s --json", path, measured), 3);
    return cli_json();
}

TEST(validate_says_what_it_leaves_out)
{
    char id[37];
    const char *s = yaml("rate: 1/s", 4, 1);
    CHECK(make("p", (struct made){ "simulated", s, 1, NULL, 0 }, id));
    CHECK(make("m", (struct made){ "measured", s, 1, NULL, 0 }, id));
    CHECK(make("few", (struct made){ "measured", s, 1, NULL, 3 }, id));
    CHECK(make("all", (struct made){ "measured", s, 1, NULL, 40 }, id));
    json_t *j = compared(file("m"));
    CHECK(!json_object_get(json_array_get(cli_at(j, "cases"), 0), "left_out"));
    json_decref(j);
    j = compared(file("few"));
    json_t *one = json_array_get(cli_at(j, "cases"), 0);
    CHECK_HAS(cli_text(one, "left_out"), "few.h5: 3 of 40 requests got their first token before");
    CHECK_INT(json_integer_value(
                  json_object_get(json_object_get(json_object_get(one, "requests"), "ttft"), "n")),
              37);
    json_decref(j);
    CHECK_INT(pair("p", "few"), 3);
    CHECK_HAS(cli_out, "left out: p: ");
    /* of none that is left, the reason, and not that nothing was held out */
    CHECK_INT(pair("p", "all"), 3);
    CHECK_HAS(cli_out,
              "TTFT mean of 1 held-out configuration cannot be compared: no request counts "
              "in every run: ");
    CHECK_HAS(cli_out, "all.h5: 40 of 40 requests got their first token before they were due");
    CHECK(!strstr(cli_out, "no configuration was held out"));
}

/* ---- names go into tables */

TEST(validate_names_are_one_cell)
{
    char id[37], text[4000];
    const char *s = yaml("rate: 1/s", 4, 1);
    CHECK(make("p", (struct made){ "simulated", s, 1, NULL, 0 }, id));
    CHECK(make("m", (struct made){ "measured", s, 1, NULL, 0 }, id));
    snprintf(text, sizeof text,
             "title: \"a\\nb\"\ncases:\n  - {name: \"c|d\\ne\", predicted: p.h5, measured: "
             "[m.h5]}\n  - {name: %0*d, refused: \"f\\ng\"}\n",
             3000, 0);
    CHECK_INT(cli_run("", "validate %s --out=%s", cli_put("m.yaml", text), test_path("r.md")), 3);
    CHECK_HAS(cli_out, "a?b\n");
    CHECK_HAS(cli_out, "c?d?e ");
    CHECK_HAS(cli_out, ": f?g\n");
    CHECK(strlen(cli_out) < 10000);
    CHECK_INT(cli_shell("grep '^| c' %s | tr -cd '|\\n' | sort -u | wc -l", test_path("r.md")), 0);
    CHECK_INT(cli_run("", "validate %s",
                      cli_put("m.yaml", "cases:\n  - {name: \"\", predicted: p.h5, measured: "
                                        "[m.h5]}\n")),
              2);
    CHECK_HAS(cli_err, "a case needs a name");
}

/* ---- the page says what the text says */

static const char *page_of(const char *measured)
{
    static char text[1 << 20];
    char path[200], to[200];
    snprintf(path, sizeof path, "%s", file("p"));
    snprintf(to, sizeof to, "%s", test_path("page.html"));
    CHECK_INT(cli_run("", "validate --predicted=%s --measured=%s --out=%s", path, measured, to), 3);
    FILE *f = fopen(to, "r");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    text[n] = 0;
    if (f) fclose(f);
    return text;
}

TEST(validate_page_tells_limits_calibration_and_every_run)
{
    char id[37], one[37], lines[100], list[700];
    if (system("gnuplot --version > /dev/null 2>&1") != 0) SKIP("no gnuplot");
    const char *s = yaml("rate: 1/s", 4, 1);
    CHECK(make("m", (struct made){ "measured", s, 1, NULL, 0 }, id));
    CHECK(make("n", (struct made){ "measured", s, 1.05, NULL, 0 }, one));
    snprintf(lines, sizeof lines, "%s device\n", id);
    CHECK(make("p", (struct made){ "simulated", s, 1, lines, 0 }, one));
    const char *text = page_of(file("m"));
    CHECK_HAS(text, "p: calibrated, not held out: ");
    CHECK_HAS(text, "+-3 % throughput, 3 % mean TPOT, 10 % mean TTFT, 10 % p99 TPOT");
    CHECK_HAS(text, "nothing was held out");
    CHECK_HAS(text, "hollow: noise unknown");
    CHECK(make("p", (struct made){ "simulated", s, 1, NULL, 0 }, one));
    snprintf(list, sizeof list, "%s,", file("m"));
    snprintf(list + strlen(list), sizeof list - strlen(list), "%s", file("n"));
    text = page_of(list);
    CHECK(!strstr(text, "hollow: noise unknown"));
    CHECK_HAS(text, "measured, run 1");
    CHECK_HAS(text, "measured, run 2");
    CHECK_HAS(text, ">predicted<");
    /* two runs, of twice the other's time: half a decade either way, and more */
    CHECK(!strstr(text, "arrow: the noise goes on past the frame"));
    CHECK(make("n", (struct made){ "measured", s, 2, NULL, 0 }, one));
    text = page_of(list);
    CHECK_HAS(text, "arrow: the noise goes on past the frame");
}

/* ---- machines */

static void attr(const char *name, const char *object, const char *key, const char *text)
{
    hid_t f = H5Fopen(file(name), H5F_ACC_RDWR, H5P_DEFAULT), type = H5Tcopy(H5T_C_S1);
    hid_t at = H5Oopen(f, object, H5P_DEFAULT), space = H5Screate(H5S_SCALAR);
    H5Tset_size(type, H5T_VARIABLE);
    H5Tset_cset(type, H5T_CSET_UTF8);
    if (H5Aexists(at, key) > 0) H5Adelete(at, key);
    hid_t a = H5Acreate2(at, key, type, space, H5P_DEFAULT, H5P_DEFAULT);
    CHECK(H5Awrite(a, type, &text) >= 0);
    H5Aclose(a);
    H5Sclose(space);
    H5Tclose(type);
    H5Oclose(at);
    H5Fclose(f);
}

static void measured_on(const char *name, const char *cpu, const char *host)
{
    attr(name, "/provenance", "cpu", cpu);
    attr(name, "/provenance", "host", host);
}

static void predicted_for(const char *name, const char *cpu, const char *host, const char *gpu)
{
    attr(name, "/scenario", "profile_cpu", cpu);
    attr(name, "/scenario", "profile_host", host);
    attr(name, "/scenario", "profile_gpu", gpu);
}

/* Where a prediction was computed says nothing; what its profile is of does. */
TEST(validate_compares_machines)
{
    char id[37];
    const char *s = yaml("rate: 1/s", 4, 1);
    CHECK(make("p", (struct made){ "simulated", s, 1, NULL, 0 }, id));
    CHECK(make("a", (struct made){ "measured", s, 1, NULL, 0 }, id));
    CHECK(make("b", (struct made){ "measured", s, 1.01, NULL, 0 }, id));
    measured_on("a", "first cpu", "00000000aaaaaaaa");
    measured_on("b", "first cpu", "00000000aaaaaaaa");
    CHECK_INT(pair("p", "a"), 3);
    CHECK_HAS(cli_out, "machine: p: not compared: no measured profile that names its machine");
    predicted_for("p", "first cpu", "00000000aaaaaaaa", "");
    CHECK_INT(pair("p", "a"), 3);
    CHECK(!strstr(cli_out, "machine: p"));
    CHECK_INT(manifest("", "p.h5", "a.h5, b.h5"), 3);
    CHECK(!strstr(cli_out, "machine: "));
    /* the same kind by another name is told, another kind refused */
    predicted_for("p", "first cpu", "00000000bbbbbbbb", "");
    CHECK_INT(pair("p", "a"), 3);
    CHECK_HAS(cli_out, "machine: p: ANOTHER HOST of the same kind: ");
    CHECK_HAS(cli_out, "p.h5 is of first cpu (host 00000000bbbbbbbb), ");
    CHECK_HAS(cli_out, "a.h5 of first cpu (host 00000000aaaaaaaa)\n");
    predicted_for("p", "second cpu", "00000000aaaaaaaa", "");
    CHECK_INT(pair("p", "a"), 2);
    CHECK_HAS(cli_err, "case 'p': ");
    CHECK_HAS(cli_err, "p.h5 was predicted with a profile of second cpu (host 00000000aaaaaaaa), ");
    CHECK_HAS(cli_err, "a.h5 was measured on first cpu (host 00000000aaaaaaaa)");
    CHECK_INT(manifest("", "p.h5", "a.h5"), 2);
    CHECK_HAS(cli_err, "m.yaml:2:");
    predicted_for("p", "first cpu", "00000000aaaaaaaa", "a GPU of name");
    CHECK_INT(pair("p", "a"), 2);
    CHECK_HAS(cli_err, "a profile of a GPU of name, first cpu");
    attr("a", "/summary", "engine_kernels", "cuda");
    CHECK_INT(pair("p", "a"), 3);
    predicted_for("p", "first cpu", "00000000aaaaaaaa", "");
    CHECK_INT(pair("p", "a"), 2);
    CHECK_HAS(cli_err, "a.h5 was measured on GPU, first cpu");
    attr("a", "/summary", "engine_kernels", "avx2");
    /* a configuration of two machines has no noise floor */
    measured_on("b", "second cpu", "00000000aaaaaaaa");
    CHECK_INT(manifest("", "p.h5", "a.h5, b.h5"), 2);
    CHECK_INT(cli_run("", "validate %s",
                      cli_put("n.yaml", "cases:\n  - {name: n, refused: why, measured: "
                                        "[a.h5, b.h5]}\n")),
              2);
    CHECK_HAS(cli_err, "b.h5 on second cpu (host 00000000aaaaaaaa): a configuration is of one");
    CHECK_INT(cli_run("", "validate %s",
                      cli_put("aa.yaml", "aa: {a: [a.h5], b: [b.h5]}\ncases:\n  - {name: n, "
                                         "predicted: p.h5, measured: [a.h5]}\n")),
              2);
    CHECK_HAS(cli_err, "the arms of aa are of two machines");
    /* a run of another tool names where it was imported, not where it ran */
    attr("b", "/provenance", "source_tool", "vllm");
    CHECK_INT(pair("p", "b"), 3);
    CHECK_HAS(cli_out, "machine: p: not compared: ");
    CHECK_HAS(cli_out, "b.h5 is a run of vllm, which does not name its machine");
}

TEST(validate_takes_predictions_again)
{
    char id[37];
    const char *s = yaml("rate: 1/s", 4, 1), *other = yaml("rate: 2/s", 4, 1);
    const struct {
        const char *name, *kind, *scenario;
        double f;
    } made[] = { { "p", "simulated", s, 1 },     { "p1", "simulated", s, .9 },
                 { "p2", "simulated", s, 1.1 },  { "load", "simulated", other, 1 },
                 { "there", "simulated", s, 1 }, { "a", "measured", s, 1.02 },
                 { "b", "measured", s, 1.03 },   { "c", "measured", s, 1.01 } };
    for (size_t i = 0; i < sizeof made / sizeof *made; i++) {
        CHECK(make(made[i].name,
                   (struct made){ made[i].kind, made[i].scenario, made[i].f, NULL, 0 }, id));
        measured_on(made[i].name, "a cpu", "00000000aaaaaaaa");
        if (*made[i].kind == 's')
            predicted_for(made[i].name, i == 4 ? "another cpu" : "a cpu", "00000000aaaaaaaa", "");
    }
    CHECK_INT(manifest("again: [p1.h5, p2.h5], ", "p.h5", "a.h5, b.h5, c.h5"), 3);
    CHECK_INT(cli_run("", "validate %s --json", test_path("m.yaml")), 3);
    CHECK_HAS(cli_out, "\"prediction_scatter\": 0.14"); /* sd of ln 1/.9, ln 1/1.1 */
    static const struct {
        const char *again, *says;
    } bad[] = { { "[p1.h5]", "two at least" },
                { "p1.h5", "takes a list" },
                { "[p1.h5, a.h5]", "a.h5 is no prediction: it was measured" },
                { "[p1.h5, p1.h5]", "p1.h5 are one file" },
                { "[p1.h5, p.h5]", "p.h5 are one file" },
                { "[p1.h5, load.h5]", "load.h5 predicts another load than" },
                { "[p1.h5, there.h5]", "there.h5 was not predicted with a profile" },
                { "[p1.h5, none.h5]", "none.h5" } };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char use[80];
        snprintf(use, sizeof use, "again: %s, ", bad[i].again);
        int rc = manifest(use, "p.h5", "a.h5, b.h5");
        CHECK(rc == 2 || rc == 5);
        CHECK_HAS(cli_err, bad[i].says);
        CHECK_TEXT(cli_out, "");
    }
    CHECK_INT(
        cli_run("", "validate %s",
                cli_put("n.yaml", "cases:\n  - {name: n, refused: why, again: [p1.h5, p2.h5]}\n")),
        2);
    CHECK_HAS(cli_err, "there is no prediction");
}

TEST(validate_says_what_a_manifest_notes)
{
    char id[37], out[2][600], text[1400];
    const char *s = yaml("rate: 1/s", 4, 1);
    static const char rest[] = "cases:\n  - {name: n, predicted: p.h5, measured: [a.h5, b.h5]}\n";
    CHECK(make("p", (struct made){ "simulated", s, 2, NULL, 0 }, id));
    CHECK(make("a", (struct made){ "measured", s, 1, NULL, 0 }, id));
    CHECK(make("b", (struct made){ "measured", s, 1.01, NULL, 0 }, id));
    for (int i = 0; i < 2; i++)
        snprintf(out[i], sizeof out[i], "%s", test_path(i ? "n.html" : "n.md"));
    snprintf(text, sizeof text, "notes: [\"NOISY: a \\\"busy\\\" <hour>\", second]\n%s", rest);
    const char *path = cli_put("notes.yaml", text);
    CHECK_INT(cli_run("", "validate %s --out=%s", path, out[0]), 1);
    CHECK_HAS(cli_out, "NOISY: a \"busy\" <hour>\nsecond\n1 configuration");
    CHECK_HAS(cli_out, "Beyond the bar and the configuration's own noise floor\n  n, ");
    CHECK_HAS(cli_out, "; own floor ");
    CHECK_INT(cli_run("", "validate %s --out=%s", path, out[1]), 1);
    for (int i = 0; i < 2; i++) {
        snprintf(text, sizeof text, "grep NOISY: %s", out[i]);
        CHECK_INT(test_run(text, cli_out, sizeof cli_out, NULL, 0), 0);
        CHECK_HAS(cli_out, i ? "busy" : "NOISY: a \"busy\" <hour>\n");
        if (i) CHECK_HAS(cli_out, "&lt;hour&gt;");
    }
    for (int i = 0; i < 2; i++) {
        snprintf(text, sizeof text, "notes: %s\n%s", i ? "[{a: b}]" : "a line", rest);
        CHECK_INT(cli_run("", "validate %s", cli_put("notes.yaml", text)), 2);
        CHECK_HAS(cli_err, i ? "a note is a line of text" : "notes takes a list of lines");
    }
}

TEST(validate_says_that_a_profile_is_noisy)
{
    char id[37];
    const char *s = yaml("rate: 1/s", 4, 1);
    CHECK(make("p", (struct made){ "simulated", s, 1, NULL, 0 }, id));
    CHECK(make("a", (struct made){ "measured", s, 1, NULL, 0 }, id));
    attr("p", "/summary", "profile_noise", "30 % of it\nwas busy");
    CHECK_INT(pair("p", "a"), 3);
    CHECK_HAS(cli_out, "  noisy profile: p: 30 % of it?was busy\n");
}
