/* tests/test_conf.c - option tables: every sentence, precedence, echo and help.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/conf.h"
#include "tests/test.h"

struct work {
    int policy;
    bool chunk;
    const char *trace, *label;
    double rate, ratio, mem, link, flops, watt, usd, usd_h;
    int64_t ttft_ns, seed, ctx_tok;
};
struct plan {
    int64_t tp, pp;
    const char *kv;
};

static const struct conf_row plan_rows[] = { { "strategy.tp", CONF_INT, offsetof(struct plan, tp),
                                               "1", NULL, 1, 4096, "tensor parallel ranks" },
                                             { "strategy.pp", CONF_INT, offsetof(struct plan, pp),
                                               "1", NULL, 1, INFINITY, "pipeline stages" },
                                             { "policy.kv", CONF_TEXT, offsetof(struct plan, kv),
                                               NULL, NULL, 0, 0, "cache file" },
                                             { .type = CONF_END } };

static const struct conf_row work_rows[] = {
    { "policy.name", CONF_WORD, offsetof(struct work, policy), "vllm", "static orca vllm sarathi",
      0, 0, "scheduler" },
    { "policy.chunk", CONF_BOOL, offsetof(struct work, chunk), "yes", NULL, 0, 0,
      "chunked prefill" },
    { "workload.trace.file", CONF_TEXT, offsetof(struct work, trace), NULL, NULL, 0, 0,
      "arrivals" },
    { "workload.label", CONF_TEXT, offsetof(struct work, label), "", NULL, 0, 0, "free text" },
    { "workload.rate", CONF_RATE, offsetof(struct work, rate), "4/s", NULL, 1e-9, 1e9,
      "mean arrivals over the whole window, counted from the first request that is due to the "
      "last" },
    { "workload.ratio", CONF_NUMBER, offsetof(struct work, ratio), "0.5", NULL, 0, 1, "a share" },
    { "slo.ttft", CONF_TIME, offsetof(struct work, ttft_ns), "500ms", NULL, 1e-9, 3600,
      "first token" },
    { "seed", CONF_INT, offsetof(struct work, seed), "10k", NULL, 0, 0, "seed" },
    { "ctx", CONF_TOKENS, offsetof(struct work, ctx_tok), "4ktok", NULL, 0, 0, "context" },
    { "hw.mem", CONF_BYTES, offsetof(struct work, mem), "80GB", NULL, 0, 0, "memory" },
    { "hw.link", CONF_BYTES_PER_S, offsetof(struct work, link), NULL, NULL, 1, 1e15, "link" },
    { "hw.flops", CONF_FLOP_PER_S, offsetof(struct work, flops), "989TFLOP/s", NULL, 0, 0, "peak" },
    { "hw.watt", CONF_WATT, offsetof(struct work, watt), "700W", NULL, 0, 0, "power" },
    { "hw.usd", CONF_USD, offsetof(struct work, usd), "30kUSD", NULL, 0, 0, "price" },
    { "hw.usd_h", CONF_USD_PER_H, offsetof(struct work, usd_h), "2.95USD/h", NULL, 0, 0, "rent" },
    { .type = CONF_END }
};

static struct arena arena;
static struct work work;
static struct plan plan;
static struct conf_set set;

static void start(void)
{
    arena_release(&arena);
    conf_init(&set, &arena);
    conf_add(&set, plan_rows, &plan, "strategy");
    conf_add(&set, work_rows, &work, "workload");
}

static int apply(const char *text, struct err *e)
{
    struct doc *d = NULL;
    int st = doc_parse_yaml(&arena, "x.yaml", text, strlen(text), &d, e);
    return st != ST_OK ? st : conf_apply(&set, d, "question hardware", e);
}

TEST(conf_defaults)
{
    start();
    CHECK_INT(plan.tp, 1);
    CHECK(!plan.kv && !work.trace);
    CHECK_TEXT(work.label, "");
    CHECK_INT(work.policy, 2);
    CHECK(work.chunk);
    CHECK_NEAR(work.rate, 4, 0);
    CHECK_INT(work.ttft_ns, 500000000);
    CHECK_INT(work.seed, 10000);
    CHECK_INT(work.ctx_tok, 4000);
    CHECK_NEAR(work.mem, 80e9, 0);
    CHECK(work.link == 0);
    CHECK(!conf_given(&set, "seed"));
    struct conf_table *t = NULL;
    CHECK(conf_find(&set, "hw.mem", &t) == &work_rows[9] && t == &set.table[1]);
    CHECK(!conf_find(&set, "hw", NULL) && !conf_find(&set, "hw.memo", NULL));
    arena_release(&arena);
}

TEST(conf_file_then_command_line)
{
    struct err e = { 0 };
    start();
    CHECK_OK(apply("question: {any: [thing]}\npolicy: sarathi\nstrategy: {tp: 4, pp: 2}\n"
                   "workload:\n  rate: 90/min\n  trace: {file: \"a b\"}\nhw: {link: 900GB/s}\n",
                   &e),
             &e);
    CHECK_INT(work.policy, 3);
    CHECK_INT(plan.tp, 4);
    CHECK_NEAR(work.rate, 1.5, 0);
    CHECK_TEXT(work.trace, "a b");
    CHECK(conf_given(&set, "policy.name") && !conf_given(&set, "policy.chunk"));
    CHECK_OK(conf_set_text(&set, "strategy.tp", "8", "--strategy.tp", &e), &e);
    CHECK_OK(conf_set_text(&set, "policy", "orca", "--policy", &e), &e);
    CHECK_OK(conf_set_text(&set, "policy.chunk", "off", "--policy.chunk", &e), &e);
    CHECK_INT(plan.tp, 8);
    CHECK_INT(work.policy, 1);
    CHECK(!work.chunk && conf_given(&set, "policy.chunk"));
    CHECK_OK(conf_set_text(&set, "hw.link", "-", "--hw.link", &e), &e);
    CHECK(work.link == 0 && !conf_given(&set, "hw.link"));
    CHECK_OK(apply("policy: {name: static, chunk: true}\n", &e), &e);
    CHECK(work.policy == 0 && work.chunk);
    arena_release(&arena);
}

TEST(conf_sentences_of_files)
{
    static const struct {
        const char *text, *want;
    } row[] = {
        { "policy:\n  name: sarathy\n",
          "x.yaml:2:9: policy.name: 'sarathy' is none of static, orca, "
          "vllm, sarathi; did you mean 'sarathi'?" },
        { "policy: orcb\n", "x.yaml:1:9: policy.name: 'orcb' is none of static, orca, vllm, "
                            "sarathi; did you mean 'orca'?" },
        { "policy: {name: x1234}\n",
          "x.yaml:1:16: policy.name: 'x1234' is none of static, orca, vllm, sarathi" },
        { "policy:\n  chnk: 1\n",
          "x.yaml:2:3: policy: no key 'chnk', only kv, name, chunk; did you mean 'chunk'?" },
        { "hardwre: 1\n",
          "x.yaml:1:1: no key 'hardwre', only strategy, policy, workload, slo, seed, "
          "ctx, hw, question, hardware; did you mean 'hardware'?" },
        { "policy.name: orca\n",
          "x.yaml:1:1: no key 'policy.name', only strategy, policy, workload, "
          "slo, seed, ctx, hw, question, hardware" },
        { "workload:\n  rate: 6\n",
          "x.yaml:2:9: workload.rate: '6' has no unit; write 6/s or 6/min" },
        { "strategy:\n  tp: 0\n", "x.yaml:2:7: strategy.tp: 0 is outside 1 .. 4096" },
        { "strategy: {pp: 0}\n", "x.yaml:1:16: strategy.pp: 0 is below 1" },
        { "workload: {rate: -5/s}\n",
          "x.yaml:1:18: workload.rate: -5/s is outside 1e-09/s .. 1000000000/s" },
        { "workload: {ratio: nan}\n",
          "x.yaml:1:19: workload.ratio: 'nan' is not a pure number; write it as in 0.5" },
        { "workload: {ratio: 1.5}\n", "x.yaml:1:19: workload.ratio: 1.5 is outside 0 .. 1" },
        { "slo: {ttft: 2h}\n", "x.yaml:1:13: slo.ttft: 2h is outside 1ns .. 3600s" },
        { "slo: {ttft: 0s}\n", "x.yaml:1:13: slo.ttft: 0s is outside 1ns .. 3600s" },
        { "seed: 1.5\n",
          "x.yaml:1:7: seed: '1.5' is not a whole number; write it as in 12 or 10k" },
        { "ctx: 100\n", "x.yaml:1:6: ctx: '100' has no unit; write 100tok or 100ktok" },
        { "ctx: 1.5tok\n", "x.yaml:1:6: ctx: '1.5tok' is not a whole number of tokens" },
        { "policy: {chunk: maybe}\n",
          "x.yaml:1:17: policy.chunk: 'maybe' is none of true, false, yes, no, on, off" },
        { "seed: [1, 2]\n",
          "x.yaml:1:7: seed: a list stands where one value is expected, as in 10k" },
        { "seed: {a: 1}\n",
          "x.yaml:1:7: seed: a map stands where one value is expected, as in 10k" },
        { "policy: {name: [vllm, orca]}\n",
          "x.yaml:1:16: policy.name: a list stands where one value is expected, as in vllm" },
        { "policy: [vllm, orca]\n", "x.yaml:1:9: policy: a list stands where a map is expected, "
                                    "with the keys kv, name, chunk" },
        { "strategy: 4\n",
          "x.yaml:1:11: strategy: one value stands where a map is expected, with the keys tp, pp" },
        { "strategy:\n",
          "x.yaml:1:10: strategy: nothing stands where a map is expected, with the keys tp, pp" },
        { "strategy:\n  tp:\n",
          "x.yaml:2:6: strategy.tp: nothing is given; write a value or leave the key out" },
        { "workload: {label: }\n",
          "x.yaml:1:19: workload.label: nothing is given; write a value, \"\" for an empty text" },
        { "seed: \"\"\n", "x.yaml:1:7: seed: '' is empty; write a whole number as in 12 or 10k" },
        { "hw: {link: 0B/s}\n", "x.yaml:1:12: hw.link: 0B/s is outside 1B/s .. 1000TB/s" },
        { "- 1\n", "x.yaml:1:1: a list stands where a map of options is expected" },
        { "text\n", "x.yaml:1:1: one value stands where a map of options is expected" }
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct err e = { 0 };
        start();
        CHECK_INT(apply(row[i].text, &e), ST_USAGE);
        CHECK_TEXT(e.text, row[i].want);
    }
    struct err e = { 0 };
    struct doc *d = NULL;
    start();
    CHECK_OK(doc_parse_json(&arena, "c.json", "{\"seed\": null}", 14, &d, &e), &e);
    CHECK_INT(conf_apply(&set, d, NULL, &e), ST_USAGE);
    CHECK_TEXT(e.text, "c.json: seed: 'null' is not a whole number; write it as in 12 or 10k");
    arena_release(&arena);
}

TEST(conf_sentences_of_the_command_line)
{
    static const struct {
        const char *key, *text, *want;
    } row[] = { { "strategy.tpp", "1", "--k: no key 'strategy.tpp'; did you mean 'strategy.tp'?" },
                { "strategy.rate", "1",
                  "--k: no key 'strategy.rate'; did you mean 'workload.rate'?" },
                { "polcy", "1", "--k: no key 'polcy'; did you mean 'policy.name'?" },
                { "usd", "1", "--k: no key 'usd'; did you mean 'hw.usd'?" },
                { "workload.nam", "1", "--k: no key 'workload.nam'; did you mean 'policy.name'?" },
                { "quite.other", "1", "--k: no key 'quite.other'" },
                { "", "1", "--k: no key ''" },
                { "strategy", "1", "--k: no key 'strategy', only keys below it" },
                { "policy", "vlm",
                  "--k: 'vlm' is none of static, orca, vllm, sarathi; did you mean 'vllm'?" },
                { "policy.name", "VLLM",
                  "--k: 'VLLM' is none of static, orca, vllm, sarathi; did you mean 'vllm'?" },
                { "policy.name", "", "--k: '' is none of static, orca, vllm, sarathi" },
                { "policy.name", "static orca",
                  "--k: 'static orca' is none of static, orca, vllm, sarathi" },
                { "seed", "-", "--k: '-' is not a whole number; write it as in 12 or 10k" },
                { "workload.label", "\xff", "--k: text that is not UTF-8" } };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct err e = { 0 };
        start();
        CHECK_INT(conf_set_text(&set, row[i].key, row[i].text, "--k", &e), ST_USAGE);
        CHECK_TEXT(e.text, row[i].want);
    }
    enum { N = 100000 };
    char *huge = malloc(N + 1);
    memset(huge, 'k', N);
    huge[N] = 0;
    CHECK_INT(conf_set_text(&set, huge, "1", "--k", NULL), ST_USAGE);
    CHECK_INT(conf_set_text(&set, "policy", huge, "--k", NULL), ST_USAGE);
    CHECK_INT(conf_set_text(&set, "seed", huge, "--k", NULL), ST_USAGE);
    CHECK_INT(conf_set_text(&set, "workload.label", huge, "--k", NULL), ST_OK);
    CHECK_INT(strlen(work.label), N);
    free(huge);
    arena_release(&arena);
}

TEST(conf_nearest_within_two_edits)
{
    char b[16];
    CHECK_TEXT(conf_nearest("sarathy", "static orca sarathi", b, sizeof b), "sarathi");
    CHECK_TEXT(conf_nearest("ocra", "static orca sarathi", b, sizeof b), "orca");
    CHECK_TEXT(conf_nearest("ORCA", "static orca", b, sizeof b), "orca");
    CHECK_TEXT(conf_nearest("abcd", "abcdef abcde", b, sizeof b), "abcde");
    CHECK(!conf_nearest("abc", "xyz abcdef", b, sizeof b));
    CHECK(!conf_nearest("abc", "", b, sizeof b));
    CHECK(!conf_nearest("abc", NULL, b, sizeof b));
    CHECK(!conf_nearest("a_word_longer_than_buf", "a_word_longer_than_buf", b, sizeof b));
}

static char *echoed(char *buf, size_t n)
{
    FILE *f = fmemopen(buf, n, "w");
    conf_echo_yaml(&set, f);
    fclose(f);
    return buf;
}

TEST(conf_echo_known_answer)
{
    char b[4096];
    struct err e = { 0 };
    start();
    CHECK_OK(conf_set_text(&set, "workload.label", "a \"b\"\n\\ \xc3\xa4 \x01", "--k", &e), &e);
    CHECK_TEXT(echoed(b, sizeof b),
               "strategy:\n  tp: 1\n  pp: 1\n"
               "policy:\n  kv: \"-\"\n  name: vllm\n  chunk: true\n"
               "workload:\n  trace:\n    file: \"-\"\n"
               "  label: \"a \\\"b\\\"\\n\\\\ \xc3\xa4 \\U00000001\"\n"
               "  rate: 4/s\n  ratio: 0.5\n"
               "slo:\n  ttft: 500ms\n"
               "seed: 10000\nctx: 4ktok\n"
               "hw:\n  mem: 80GB\n  link: \"-\"\n  flops: 989TFLOP/s\n  watt: 700W\n  usd: 30kUSD\n"
               "  usd_h: 2.95USD/h\n");
    arena_release(&arena);
}

static double any(double lo, double hi)
{
    return lo * pow(hi / lo, (double)rand() / RAND_MAX);
}

/* Random settings -> echo -> apply to a fresh set -> the same members and the same echo. */
TEST(conf_echo_reads_back_the_same)
{
    static const char *const texts[] = { "",
                                         "-x",
                                         "a: b",
                                         "# c",
                                         "\xe2\x80\xa8",
                                         "\xef\xbb\xbf",
                                         "\t\r\n",
                                         "\xf0\x9f\x98\x80",
                                         "'",
                                         "null",
                                         "\xc2\x85",
                                         " lead",
                                         "~",
                                         "\x7f",
                                         "\xef\xbf\xbf",
                                         "\xef\xbf\xbd" };
    static char first[8192], second[8192];
    srand(11);
    for (int i = 0; i < 3000; i++) {
        struct err e = { 0 };
        char ratio[64];
        start();
        plan.tp = 1 + rand() % 4096;
        plan.kv = rand() % 3 ? texts[rand() % 16] : NULL;
        work.policy = rand() % 4;
        work.chunk = rand() % 2;
        work.label = texts[rand() % 16];
        work.rate = any(1e-9, 1e9);
        work.ttft_ns = (int64_t)any(1, 3.6e12);
        work.seed = ((int64_t)rand() << 22 | rand()) * (rand() % 2 ? 1 : -1);
        work.ctx_tok = (int64_t)any(1, 1e12);
        work.mem = any(1e-3, 1e20);
        work.link = rand() % 4 ? any(1, 1e15) : 0;
        work.watt = any(1e-6, 1e9);
        work.usd = -any(1e-6, 1e9);
        work.usd_h = any(1e-6, 1e9);
        snprintf(ratio, sizeof ratio, "%.17g", (double)rand() / RAND_MAX);
        CHECK_OK(conf_set_text(&set, "workload.ratio", ratio, "--k", &e), &e);
        struct work w = work;
        struct plan p = plan;
        echoed(first, sizeof first);
        start();
        CHECK_OK(apply(first, &e), &e);
        CHECK_TEXT(echoed(second, sizeof second), first);
        CHECK_TEXT(work.label, w.label);
        CHECK(p.kv ? plan.kv && strcmp(plan.kv, p.kv) == 0 : !plan.kv);
        CHECK(plan.tp == p.tp && work.policy == w.policy && work.chunk == w.chunk);
        CHECK(work.rate == w.rate && work.ratio == w.ratio && work.mem == w.mem);
        CHECK(work.link == w.link && work.watt == w.watt && work.usd == w.usd);
        CHECK(work.usd_h == w.usd_h && work.ttft_ns == w.ttft_ns && work.seed == w.seed);
        if (!CHECK(work.ctx_tok == w.ctx_tok)) return;
    }
    arena_release(&arena);
}

TEST(conf_help_shows_every_row_within_100_columns)
{
    static char b[8192];
    start();
    FILE *f = fmemopen(b, sizeof b, "w");
    conf_help(&set, f);
    fclose(f);
    CHECK_HAS(
        b, "strategy:\n  --strategy.tp=N                   tensor parallel ranks [1; 1 .. 4096]\n");
    CHECK_HAS(b, "pipeline stages [1; from 1]\n");
    CHECK_HAS(b, "\n\nworkload:\n");
    CHECK_HAS(b, "scheduler [vllm; one of static orca vllm sarathi]\n");
    CHECK_HAS(b, "cache file [-]\n");
    CHECK_HAS(b, "free text [\"\"]\n");
    for (int i = 0; i < set.n_table; i++)
        for (const struct conf_row *r = set.table[i].rows; r->type != CONF_END; r++) {
            char want[64];
            snprintf(want, sizeof want, "--%s=", r->key);
            CHECK_HAS(b, want);
        }
    for (char *line = strtok(b, "\n"); line; line = strtok(NULL, "\n")) {
        CHECK(strlen(line) <= 100);
        CHECK(line[strlen(line) - 1] != ' ');
    }
    arena_release(&arena);
}
