/* tests/test_trace.c - trace files: real ones against published figures, round trips, hostile
 * input.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/test.h"
#include "traces/cmd_trace.h"
#include "traces/trace_priv.h"

static const char *put(const char *name, const void *bytes, size_t n)
{
    const char *path = test_path(name);
    FILE *f = fopen(path, "wb");
    if (f) {
        fwrite(bytes, 1, n, f);
        fclose(f);
    }
    return path;
}

static const char *put_text(const char *name, const char *text)
{
    return put(name, text, strlen(text));
}

/* The rules of trace.h: ends increase, and a key has one start, one end and one key in front of it.
 */
static void check_rules(const struct trace_rows *t)
{
    struct idmap first = { 0 }; /* key -> index of the first segment that had it */
    const struct trace_seg **at = NULL;
    int64_t n = 0, cap = 0, bad = 0;
    int64_t(*before)[2] = NULL;
    for (int64_t i = 0; i < t->n; i++) {
        const struct trace_req *r = &t->row[i];
        for (int32_t j = 0; j < r->n_seg; j++) {
            int64_t start = j ? r->seg[j - 1].end_tok : 0, k;
            int64_t key = j ? (int64_t)r->seg[j - 1].key : 0;
            bad += r->seg[j].end_tok <= start || r->seg[j].end_tok > (int64_t)r->n_in + r->n_out;
            if (idmap_get(&first, r->seg[j].key, &k)) {
                bad += at[k]->end_tok != r->seg[j].end_tok || before[k][0] != start ||
                       before[k][1] != key;
                continue;
            }
            if (n == cap) {
                cap = cap ? 2 * cap : 1024;
                at = mem_resize(at, (size_t)cap, sizeof *at);
                before = mem_resize(before, (size_t)cap, sizeof *before);
            }
            idmap_put(&first, r->seg[j].key, n);
            at[n] = &r->seg[j];
            before[n][0] = start;
            before[n++][1] = key;
        }
    }
    CHECK_INT(bad, 0);
    idmap_release(&first);
    free(at);
    free(before);
}

static void check_same(const struct trace_rows *a, const struct trace_rows *b)
{
    int64_t bad = 0;
    CHECK_INT(a->n, b->n);
    CHECK_INT(a->n_class, b->n_class);
    CHECK_INT(a->has_prefix, b->has_prefix);
    for (int64_t i = 0; i < a->n && a->n == b->n; i++) {
        const struct trace_req *x = &a->row[i], *y = &b->row[i];
        bool same = x->id == y->id && x->t_due_ns == y->t_due_ns && x->n_in == y->n_in &&
                    x->n_out == y->n_out && x->session == y->session && x->turn == y->turn &&
                    x->n_seg == y->n_seg &&
                    strcmp(a->class_name[x->klass], b->class_name[y->klass]) == 0;
        for (int32_t j = 0; same && j < x->n_seg; j++)
            same = x->seg[j].key == y->seg[j].key && x->seg[j].end_tok == y->seg[j].end_tok;
        bad += !same;
    }
    CHECK_INT(bad, 0);
}

/* Writes as csv and as jsonl, reads both back. */
static void check_round_trip(const struct trace_rows *t, struct arena *a)
{
    static const int format[2] = { TRACE_CSV, TRACE_JSONL };
    for (int i = 0; i < 2; i++) {
        struct err e = { 0 };
        struct trace_rows back;
        const char *path = test_path(i ? "back.jsonl" : "back.csv");
        CHECK_OK(trace_write(path, format[i], t, "one line\nand another", &e), &e);
        CHECK_OK(trace_read(path, TRACE_AUTO, a, &back, &e), &e);
        CHECK_INT(back.format, format[i]);
        check_same(t, &back);
    }
}

TEST(trace_azure_known_answers)
{
    struct arena a;
    struct err e = { 0 };
    struct trace_rows t;
    struct trace_summary s;
    arena_init(&a);
    CHECK_OK(trace_read(test_data("traces_azure_2023/azure_llm_code.csv"), TRACE_AUTO, &a, &t, &e),
             &e);
    trace_summarise(&t, &s);
    CHECK_INT(t.format, TRACE_AZURE);
    CHECK_INT(t.n, 8819);
    CHECK_INT(round(s.in.mean), 2048);
    CHECK_INT(round(s.out.mean), 28);
    CHECK_INT(t.row[0].t_due_ns, 0);
    CHECK_INT(t.row[1].t_due_ns, 52000000); /* 18:17:04.0319600 - 18:17:03.9799600 */
    CHECK_INT(t.row[8818].t_due_ns,
              INT64_C(3435948056000)); /* 19:14:19.9280160 - 18:17:03.9799600 */
    CHECK_INT(t.row[0].n_in, 4808);
    CHECK_INT(t.row[8818].n_out, 173);
    CHECK(!t.has_prefix && t.n_raised == 0);
    check_round_trip(&t, &a);
    arena_release(&a);
}

TEST(trace_mooncake_known_answers)
{
    struct arena a;
    struct err e = { 0 };
    struct trace_rows t;
    arena_init(&a);
    CHECK_OK(trace_read(test_data("traces_mooncake/synthetic_trace.jsonl"), TRACE_AUTO, &a, &t, &e),
             &e);
    CHECK_INT(t.format, TRACE_MOONCAKE);
    CHECK_INT(t.n, 3993);
    struct idmap seen = { 0 };
    int64_t blocks = 0;
    for (int64_t i = 0; i < t.n; i++)
        for (int32_t j = 0; j < t.row[i].n_seg; j++, blocks++)
            idmap_put(&seen, t.row[i].seg[j].key, 0);
    /* Counted from hash_ids by a separate program: 121,877 blocks, 43,924 distinct ids, so 64 %
     * repeat. */
    CHECK_INT(blocks, 121877);
    CHECK_INT(seen.n, 43924);
    CHECK_INT(t.row[0].n_seg, 79);
    CHECK_INT(t.row[0].seg[78].end_tok, 40160);
    CHECK_INT(t.row[0].seg[0].end_tok, 512);
    check_rules(&t);
    check_round_trip(&t, &a);
    idmap_release(&seen);
    arena_release(&a);
}

/* Longest common chain with any earlier request, pair by pair: slow, and another way than the
 * summary's. */
static int64_t repeated_pairwise(const struct trace_rows *t)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < t->n; i++) {
        int64_t best = 0;
        for (int64_t k = 0; k < i; k++) {
            const struct trace_req *x = &t->row[i], *y = &t->row[k];
            int32_t j = 0;
            while (j < x->n_seg && j < y->n_seg && x->seg[j].key == y->seg[j].key) j++;
            if (j > 0 && x->seg[j - 1].end_tok > best) best = x->seg[j - 1].end_tok;
        }
        sum += best < t->row[i].n_in ? best : t->row[i].n_in;
    }
    return sum;
}

TEST(trace_vllm_workload_hits_with_an_unbounded_cache)
{
    struct arena a;
    struct err e = { 0 };
    struct trace_rows t;
    struct trace_summary s;
    arena_init(&a);
    CHECK_OK(trace_read(test_data("serving_vllm/rtxpro6000_llama-3.1-8b/workload.csv"), TRACE_AUTO,
                        &a, &t, &e),
             &e);
    trace_summarise(&t, &s);
    CHECK_INT(t.n, 300);
    CHECK_INT(t.row[0].t_due_ns, 46927000);
    CHECK_INT(s.repeated_tok, 19520); /* published with the run */
    CHECK_INT(repeated_pairwise(&t), 19520);
    check_rules(&t);
    check_round_trip(&t, &a);
    arena_release(&a);
}

TEST(trace_sample_is_what_its_header_says)
{
    struct arena a;
    struct err e = { 0 };
    struct trace_rows t, again;
    struct trace_summary s;
    arena_init(&a);
    const char *path = "scenarios/traces/chat-sample.csv";
    if (access(path, R_OK) != 0) SKIP("not in the root of the sources");
    CHECK_OK(trace_read(path, TRACE_AUTO, &a, &t, &e), &e);
    trace_summarise(&t, &s);
    CHECK(s.gap_cv_ratio > 1.4 && s.gap_cv_ratio < 2.2);
    CHECK(s.in.mean > 800 && s.in.mean < 1200 && s.out.mean > 160 && s.out.mean < 240);
    CHECK(s.n_session > 500 && s.turns_mean > 1.5);
    check_rules(&t);
    check_round_trip(&t, &a);
    /* The second line of the header is the command. */
    char line[1024] = "", *arg[64] = { (char *)(uintptr_t) "trace", (char *)(uintptr_t) "synth" };
    FILE *f = fopen(path, "r");
    while (f && !strstr(line, "orrery trace synth OUT") && fgets(line, sizeof line, f)) {}
    if (f) fclose(f);
    int n = 2;
    arg[n++] = (char *)(uintptr_t)test_path("again.csv");
    for (char *w = strtok(line, " \n"); w && n < 64; w = strtok(NULL, " \n"))
        if (w[0] == '-') arg[n++] = w;
    CHECK(n > 6);
    CHECK_INT(cmd_trace(n, arg), 0);
    CHECK_OK(trace_read(arg[2], TRACE_AUTO, &a, &again, &e), &e);
    check_same(&t, &again);
    arena_release(&a);
}

TEST(trace_csv_with_everything_unusual)
{
    struct arena a;
    struct err e = { 0 };
    struct trace_rows t;
    arena_init(&a);
    const char *text = "\xef\xbb\xbf# made by hand\r\n"
                       "\"class\",note,n_out, arrival_ms ,n_in,session,turn\r\n"
                       "\"a, \"\"b\"\"\",x,7,1500.25,10,alice,0\r\n"
                       "\r\n"
                       "# in between\r\n"
                       "chat,\"y,z\",0,1e3,20,7,3\r\n"
                       "chat,,5,1000,0,,";
    CHECK_OK(trace_read(put_text("odd.csv", text), TRACE_AUTO, &a, &t, &e), &e);
    CHECK_INT(t.n, 3);
    CHECK_INT(t.n_raised, 2);
    CHECK_INT(t.row[0].t_due_ns, 1000000000); /* file order at equal times */
    CHECK_INT(t.row[0].n_out, 1);
    CHECK_INT(t.row[0].session, 7);
    CHECK_INT(t.row[0].turn, 3);
    CHECK_INT(t.row[1].n_in, 1);
    CHECK_INT(t.row[1].session, -1);
    CHECK_INT(t.row[2].t_due_ns, 1500250000);
    CHECK_TEXT(t.class_name[t.row[2].klass], "a, \"b\"");
    CHECK_TEXT(t.class_name[t.row[0].klass], "chat");
    check_round_trip(&t, &a);
    arena_release(&a);
}

TEST(trace_jsonl_prefixes_and_blocks)
{
    struct arena a;
    struct err e = { 0 };
    struct trace_rows t;
    arena_init(&a);
    const char *text =
        "{\"arrival\": 0.5, \"in\": 100, \"out\": 5, \"prefix\": \"sys\", \"prefix_tok\": 64}\n"
        "{\"arrival_ns\": 2, \"input_tokens\": 40, \"n_out\": 6, \"shared_prefix_blocks\": [3, "
        "4]}\n"
        "{\"arrival_us\": 7, \"in\": 50, \"out\": 6, \"shared_prefix_blocks\": \"3 5\", \"class\": "
        "\"b\\u00e9\"}\n"
        "{\"arrival\": 1, \"in\": 64, \"out\": 5, \"prefix\": \"sys\", \"prefix_tok\": 64, "
        "\"session\": null}";
    CHECK_OK(trace_read(put_text("p.jsonl", text), TRACE_AUTO, &a, &t, &e), &e);
    CHECK_INT(t.n, 4);
    CHECK_INT(t.row[0].t_due_ns, 2);
    CHECK_INT(t.row[1].t_due_ns, 7000);
    CHECK_INT(t.row[0].n_seg, 2);
    CHECK_INT(t.row[0].seg[1].end_tok, 32);
    CHECK(t.row[0].seg[0].key == t.row[1].seg[0].key && t.row[0].seg[1].key != t.row[1].seg[1].key);
    CHECK(t.row[2].n_seg == 1 && t.row[2].seg[0].key == t.row[3].seg[0].key &&
          t.row[2].seg[0].end_tok == 64);
    CHECK_TEXT(t.class_name[t.row[1].klass], "b\xc3\xa9");
    check_rules(&t);
    check_round_trip(&t, &a);
    arena_release(&a);
}

TEST(trace_history_chains)
{
    struct arena a;
    struct err e = { 0 };
    struct trace_rows t;
    arena_init(&a);
    const char *text = "arrival,in,out,session,turn,history_tok,prefix,prefix_tok\n"
                       "0,100,10,5,0,0,p,32\n"
                       "1,100,10,6,0,0,p,32\n"
                       "2,150,20,5,1,110,,\n"
                       "3,200,30,5,2,170,,\n";
    CHECK_OK(trace_read(put_text("h.csv", text), TRACE_AUTO, &a, &t, &e), &e);
    CHECK_INT(t.row[3].n_seg, 4);
    const int64_t end[4] = { 32, 110, 170, 230 };
    for (int i = 0; i < 4; i++) CHECK_INT(t.row[3].seg[i].end_tok, end[i]);
    CHECK_INT(t.row[2].n_seg, 3);
    CHECK(t.row[0].seg[0].key == t.row[1].seg[0].key && t.row[0].seg[1].key != t.row[1].seg[1].key);
    CHECK(t.row[3].seg[1].key == t.row[0].seg[1].key && t.row[3].seg[2].key == t.row[2].seg[2].key);
    check_rules(&t);
    check_round_trip(&t, &a);
    arena_release(&a);
}

/* A session of 20,000 turns: 2e8 segments if each turn kept its own copy of the chain. */
TEST(trace_long_sessions_take_linear_memory)
{
    enum { N = 20000 };
    struct arena a;
    struct err e = { 0 };
    struct trace_rows t;
    arena_init(&a);
    const char *path = test_path("long.csv");
    FILE *f = fopen(path, "w");
    if (!f) SKIP("cannot write");
    fprintf(f, "arrival,in,out,session,turn,history_tok\n");
    for (int i = 0, h = 0; i < N; i++, h += 3) fprintf(f, "%d,%d,1,1,%d,%d\n", i, h + 2, i, h);
    fclose(f);
    CHECK_OK(trace_read(path, TRACE_AUTO, &a, &t, &e), &e);
    CHECK_INT(t.row[N - 1].n_seg, N);
    CHECK_INT(t.row[N - 1].seg[N - 1].end_tok, 3 * N);
    CHECK(a.total_bytes < 4 << 20);
    arena_release(&a);
}

TEST(trace_times_are_exact)
{
    /* clang-format off */
    static const struct {
        const char *text;
        int64_t unit_ns, want;
    } good[] = {
        { "0", 1000000000, 0 },
        { "1700000000.123456789", 1000000000, INT64_C(1700000000123456789) },
        { ".5", 1000000000, 500000000 },
        { "5.", 1000, 5000 },
        { "0.0000000005", 1000000000, 1 },
        { "0.00000000049999999999999999", 1000000000, 0 },
        { "1.9999999999", 1000000000, 2000000000 },
        { "12.3456785", 1000000, 12345679 },
        { "1e-3", 1000000000, 1000000 },
        { "2.5E2", 1000000, 250000000 },
        { "-1", 1000000000, -1000000000 },
        { "3153600000", 1000000000, TRACE_MAX_NS },
    };
    /* clang-format on */
    static const char *const bad[] = { "",
                                       ".",
                                       "-",
                                       "1s",
                                       "nan",
                                       "inf",
                                       "0x10",
                                       "1 2",
                                       "3153600001",
                                       "1e10",
                                       "1e",
                                       "--1",
                                       "99999999999999999999999999",
                                       "1.2.3",
                                       "1e400" };
    int64_t v;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        v = -7;
        CHECK(text_ns((struct text){ good[i].text, strlen(good[i].text) }, good[i].unit_ns, &v));
        CHECK_INT(v, good[i].want);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (!CHECK(!text_ns((struct text){ bad[i], strlen(bad[i]) }, 1000000000, &v)))
            printf("    '%s'\n", bad[i]);
    const char *utc = "2024-02-29T23:59:59.1234567Z"; /* date -u -d ... +%s */
    CHECK(text_utc_ns((struct text){ utc, strlen(utc) }, &v));
    CHECK_INT(v, INT64_C(1709251199123456700));
    /* as ns more digits fit than as seconds, but not these */
    const char *long_ = "1555555555555555555555";
    CHECK(!text_ns((struct text){ long_, strlen(long_) }, 1, &v));
    CHECK(text_ns((struct text){ "3153600000000000000", 19 }, 1, &v));
    CHECK(!text_ns((struct text){ "3153600000000000001", 19 }, 1, &v));
}

TEST(trace_refuses_with_file_and_line)
{
    /* clang-format off */
    static const struct {
        const char *text, *want;
    } bad[] = {
        { "", "bad: an empty trace" },
        { "\n\n", "bad: an empty trace" },
        { "# only\n", "bad: an empty trace" },
        { "arrival,in,out\n", "bad: no requests in it" },
        { "1,2,3\n4,5,6\n", "bad:1: cannot tell the format" },
        { "hello world\n", "bad:1: cannot tell the format" },
        { "arrival,in\n0,1\n", "bad:1: the header has no column out" },
        { "arrival,in,out,n_in\n0,1,1,1\n", "bad:1: two columns say the same" },
        { "arrival,in,out\n0,1\n", "bad:2: no value for out" },
        { "arrival,in,out\n0,1,1\n0,x,1\n", "bad:3: input tokens 'x'" },
        { "arrival,in,out\n0,-1,1\n", "bad:2: a prompt of -1 tokens" },
        { "arrival,in,out\n0,1,1000000001\n", "bad:2: an output of 1000000001 tokens" },
        { "arrival,in,out\n0,900000000,900000000\n", "bad:2: prompt and output together" },
        { "arrival,in,out\n0,99999999999999999999,1\n", "bad:2: input tokens" },
        { "arrival,in,out\n0,1.5,1\n", "bad:2: input tokens '1.5'" },
        { "arrival,in,out\n-1,1,1\n", "bad:2: an arrival before 0" },
        { "arrival,in,out\n1e30,1,1\n", "bad:2: arrival '1e30'" },
        { "arrival,in,out\n0,\"1,1\n", "bad:2: a quote that does not end" },
        { "arrival,in,out,prefix\n0,9,1,a\n", "bad:2: prefix_tok" },
        { "arrival,in,out,prefix,prefix_tok\n0,9,1,a,10\n", "bad:2: prefix_tok '10'" },
        { "arrival,in,out,shared_prefix_blocks\n0,31,1,1 2\n", "past the prompt's end" },
        { "arrival,in,out,segments\n0,9,1,5:zz\n", "bad:2: segments: '5:zz'" },
        { "arrival,in,out,segments\n0,9,1,5:1 5:2\n", "bad:2: a shared part ends at token 5" },
        { "arrival,in,out,segments\n0,9,1,11:1\n", "bad:2: a shared part ends at token 11" },
        { "arrival,in,out,session,history_tok\n0,9,1,1,0\n1,20,1,1,9\n", "bad:3: history_tok '9'" },
        { "arrival,in,out,history_tok\n0,9,1,0\n", "without a session" },
        { "arrival,in,out,session,turn\n0,9,1,1,-1\n", "bad:2: turn '-1'" },
        { "arrival,in,out,class\n0,9,1,\x01\n", "bad:2: the name of the class" },
        { "arrival,in,out,class\n0,9,1,\xff\n", "bad:2: the name of the class" },
        { "TIMESTAMP,ContextTokens\n", "bad:1: an azure trace has a column GeneratedTokens" },
        { "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-13-01 00:00:00,1,1\n",
          "bad:2: '2023-13-01" },
        { "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03+01:00,1,1\n",
          "is no time in UTC" },
        { "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,1\n",
          "bad:2: no field for GeneratedTokens" },
        { "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,1,\n",
          "bad:2: GeneratedTokens ''" },
        { "{\"input_length\": 1", "bad:1: not a JSON object" },
        { "{\"input_length\": 1}\n", "bad:1: no timestamp" },
        { "{\"timestamp\": 0, \"input_length\": 1}\n", "bad:1: no member output_length" },
        { "{\"timestamp\": 1e99, \"input_length\": 1, \"output_length\": 1}\n",
          "bad:1: no timestamp" },
        { "{\"timestamp\": 0, \"input_length\": 1.5, \"output_length\": 1}\n",
          "input_length is no whole number" },
        { "{\"timestamp\": 0, \"input_length\": 512, \"output_length\": 1, \"hash_ids\": [1, 2]}\n",
          "more than 512 tokens" },
        { "{\"timestamp\": 0, \"input_length\": 512, \"output_length\": 1, \"hash_ids\": "
          "[\"a\"]}\n", "hash_ids holds" },
        { "{\"timestamp\": 0, \"input_length\": 512, \"output_length\": 1, \"hash_ids\": 3}\n",
          "hash_ids is no list" },
        { "{\"arrival\": 0, \"in\": [1], \"out\": 1}\n", "bad:1: in is said twice, or no number" },
        { "{\"arrival\": 0, \"in\": 1, \"n_in\": 1, \"out\": 1}\n", "is said twice" },
        { "{\"arrival\": 0, \"in\": 1, \"out\": 1}\n[1]\n", "bad:2: not a JSON object" },
        { "{\"arrival\": 0, \"in\": 1, \"out\": 1, \"out\": 1}\n",
          "bad:1: not a JSON object: duplicate" },
    };
    /* clang-format on */
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct arena a;
        struct err e = { 0 };
        struct trace_rows t;
        arena_init(&a);
        CHECK_INT(trace_read(put_text("bad", bad[i].text), TRACE_AUTO, &a, &t, &e), ST_USAGE);
        CHECK_HAS(e.text, bad[i].want);
        arena_release(&a);
    }
}

TEST(trace_refuses_nul_bytes_and_endless_lines)
{
    struct arena a;
    struct err e = { 0 };
    struct trace_rows t;
    arena_init(&a);
    static const char nul[] = "arrival,in,out\n0,1,1\n0,1\0,1\n";
    CHECK_INT(trace_read(put("nul", nul, sizeof nul - 1), TRACE_AUTO, &a, &t, &e), ST_USAGE);
    CHECK_HAS(e.text, "nul:3: a NUL byte");
    enum { N = 100 << 20 };
    char *big = mem_alloc(N);
    memset(big, '1', N);
    memcpy(big, "arrival,in,out\n", 15);
    err_clear(&e);
    CHECK_INT(trace_read(put("big", big, N), TRACE_AUTO, &a, &t, &e), ST_USAGE);
    CHECK_HAS(e.text, "big:2: the line is longer than 16 MiB");
    free(big);
    err_clear(&e);
    CHECK_INT(trace_read(test_path("absent.csv"), TRACE_AUTO, &a, &t, &e), ST_USAGE);
    err_clear(&e);
    CHECK_INT(trace_read(test_dir(), TRACE_AUTO, &a, &t, &e), ST_USAGE);
    arena_release(&a);
}

/* Whatever the damage, the reader answers with rows that keep the rules or with a sentence. */
TEST(trace_survives_damaged_files)
{
    static const char *const seed[] = {
        "arrival_s,in,out,session,turn,history_tok,prefix,prefix_tok\n0.5,100,10,5,0,0,p,32\n1,150,"
        "20,5,1,110,,\n",
        "arrival,in,out,segments,class\n0,90,10,16:ab 32:cd,\"x \"\"y\"\"\"\n1,90,10,16:ab "
        "48:ef,z\n",
        "{\"timestamp\": 27, \"input_length\": 700, \"output_length\": 6, \"hash_ids\": [0, 1]}\n",
        "{\"arrival\": 0.5, \"in\": 100, \"out\": 5, \"shared_prefix_blocks\": [1, 2, \"x\"]}\n",
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n",
    };
    static const char odd[] = "\0\"\\,\n\r{}[]:-+.eE0123456789 #\xff\xc3\t";
    struct rng r = rng_stream(1, "damage");
    uint64_t k = 0;
    for (int i = 0; i < 3000; i++) {
        char buf[512];
        size_t n = strlen(seed[i % 5]);
        memcpy(buf, seed[i % 5], n);
        for (uint64_t hits = 1 + rng_below(r, k++, 4); hits > 0; hits--) {
            size_t at = rng_below(r, k++, n);
            if (rng_below(r, k++, 4) == 0) n = at + 1;
            buf[at] = odd[rng_below(r, k++, sizeof odd)];
        }
        struct arena a;
        struct err e = { 0 };
        struct trace_rows t;
        arena_init(&a);
        int st = trace_read(put("damaged", buf, n), TRACE_AUTO, &a, &t, &e);
        if (st == ST_OK) {
            for (int64_t j = 0; j < t.n; j++)
                CHECK(t.row[j].n_in >= 1 && t.row[j].n_out >= 1 && t.row[j].t_due_ns >= 0);
            for (int64_t j = 1; j < t.n; j++) CHECK(t.row[j].t_due_ns >= t.row[j - 1].t_due_ns);
        } else {
            CHECK_HAS(e.text, "damaged");
        }
        arena_release(&a);
    }
}

TEST(trace_write_leaves_nothing_on_failure)
{
    struct err e = { 0 };
    struct trace_req row = { .n_in = 1, .n_out = 1, .session = -1 };
    const char *name = "all";
    struct trace_rows t = { .row = &row, .n = 1, .n_class = 1, .class_name = &name };
    CHECK_INT(trace_write(test_path("no/such/dir.csv"), TRACE_CSV, &t, NULL, &e), ST_IO);
    CHECK_HAS(e.text, "dir.csv");
    err_clear(&e);
    CHECK_INT(trace_write(test_dir(), TRACE_CSV, &t, NULL, &e),
              ST_IO); /* a directory cannot be replaced */
    char cmd[600], out[256], msg[256];
    snprintf(cmd, sizeof cmd, "ls -d %s.part.* | wc -l", test_dir());
    test_run(cmd, out, sizeof out, msg, sizeof msg);
    CHECK_INT(atoi(out), 0);
    CHECK_INT(trace_write(test_path("x.csv"), TRACE_AZURE, &t, NULL, NULL), ST_USAGE);
}

TEST(trace_command)
{
    char *none[] = { (char *)(uintptr_t) "trace" };
    char *wrong[] = { (char *)(uintptr_t) "trace", (char *)(uintptr_t) "describe",
                      (char *)(uintptr_t)test_path("absent") };
    char *option[] = { (char *)(uintptr_t) "trace", (char *)(uintptr_t) "synth",
                       (char *)(uintptr_t)test_path("a.csv"), (char *)(uintptr_t) "--rat=4/s" };
    char *name[] = { (char *)(uintptr_t) "trace", (char *)(uintptr_t) "synth",
                     (char *)(uintptr_t)test_path("a.txt"), (char *)(uintptr_t) "--rate=4/s" };
    CHECK_INT(cmd_trace(1, none), 2);
    CHECK_INT(cmd_trace(3, wrong), 2);
    CHECK_INT(cmd_trace(4, option), 2);
    CHECK_INT(cmd_trace(4, name), 2);
    CHECK(access(test_path("a.csv"), F_OK) != 0);
}

TEST(trace_idmap_against_an_array)
{
    enum { KEYS = 200 };
    struct idmap m = { 0 };
    bool in[KEYS] = { false };
    int64_t value[KEYS];
    struct rng r = rng_stream(2, "idmap");
    size_t n = 0;
    for (uint64_t i = 0; i < 40000; i++) {
        uint64_t key = rng_below(r, 3 * i, KEYS);
        int64_t v = (int64_t)i, got;
        if (rng_below(r, 3 * i + 1, 2)) {
            CHECK(idmap_put(&m, key << 40, v) == !in[key]);
            n += !in[key];
            in[key] = true;
            value[key] = v;
        } else {
            idmap_drop(&m, key << 40);
            n -= in[key];
            in[key] = false;
        }
        uint64_t look = rng_below(r, 3 * i + 2, KEYS);
        CHECK(idmap_get(&m, look << 40, &got) == in[look]);
        if (in[look]) CHECK_INT(got, value[look]);
        CHECK(m.n == n);
    }
    idmap_release(&m);
}
