/* tests/test_engine_input.c - what `orrery engine run` and `orrery simulate` are given: checkpoints
 * that are none, outputs that would replace what is read, sizes past what can be counted.
 * SPDX-License-Identifier: Apache-2.0 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/cli.h"
#include "tests/test.h"

#define TINY "tests/golden/engine/llama31"
#define REST                                                                                       \
    "strategy: {weights: f32, kv: f32}\n"                                                          \
    "policy: {max_seqs: 4, max_batch_tokens: 32tok, block: 8tok, kv_blocks: 64}\n"

static const char *scenario(void)
{
    return cli_put("s.yaml",
                   "model: " TINY "/config.json\nhardware: h100-sxm\n" REST
                   "workload: {rate: 3000/s, requests: 20, prompt: {mean: 10tok, max: 30tok},\n"
                   "           output: {mean: 6tok, max: 30tok}}\n");
}

/* A directory of this test with the named file of the tiny model in it. */
static const char *model_dir(const char *name, const char *file)
{
    static char dir[600];
    snprintf(dir, sizeof dir, "%s/%s", test_dir(), name);
    mkdir(dir, 0777);
    CHECK_INT(cli_shell("cp " TINY "/%s %s/", file, dir), 0);
    return dir;
}

TEST(engine_run_wants_weights_of_a_directory)
{
    const char *dir = model_dir("empty", "config.json");
    static const char *const other[] = { "pytorch_model.bin", "model-00001-of-00002.safetensors",
                                         "tokenizer.json" };
    for (int i = 0; i < 3; i++) {
        CHECK_INT(cli_run("", "engine run %s --model=%s", scenario(), dir), 2);
        CHECK_HAS(cli_err, "orrery engine: --model: ");
        CHECK_HAS(cli_err, "empty: no model.safetensors and no model.safetensors.index.json there; "
                           "--random-weights=SEED runs without");
        CHECK_TEXT(cli_out, "");
        CHECK_INT(cli_shell("echo x > %s/%s", dir, other[i]), 0);
    }
    CHECK_INT(cli_run("", "engine run %s --model=%s --random-weights=3", scenario(), dir), 0);
    CHECK_HAS(cli_out, "weights f32 drawn");
    CHECK_INT(cli_run("", "engine run %s --model=%s/config.json", scenario(), dir), 0);
    CHECK_HAS(cli_out, "weights f32 drawn");
    CHECK_INT(cli_run("", "engine run %s --model=" TINY, scenario()), 0);
    CHECK(!strstr(cli_out, "drawn"));
}

/* ---- outputs */

static void spared(const char *verb, const char *options, const char *path)
{
    char out[700];
    snprintf(out, sizeof out, "%s", path);
    CHECK_INT(cli_shell("cp %s %s.before", out, out), 0);
    int st = cli_run("", "%s %s %s --out=%s", verb, scenario(), options, out);
    if (!CHECK(st == 2)) printf("%s %s %s: %d %s", verb, options, out, st, cli_err);
    CHECK_HAS(cli_err, " is read, and would be replaced: choose another output\n");
    CHECK(strchr(cli_err, '\n') && strchr(cli_err, '\n')[1] == 0);
    CHECK_TEXT(cli_out, "");
    CHECK_INT(cli_shell("cmp %s %s.before && rm %s.before", out, out, out), 0);
}

TEST(runs_do_not_replace_what_they_read)
{
    static const char *const verb[] = { "engine run", "simulate" };
    char dir[600], args[2000], file[700];
    scenario();
    cli_put("t.csv", "arrival,in,out\n0,5,5\n0.1,6,3\n");
    cli_put("len.csv", "input_tokens,output_tokens\n5,5\n6,3\n");
    snprintf(dir, sizeof dir, "%s", model_dir("m", "config.json"));
    model_dir("m", "model.safetensors");
    CHECK_INT(cli_shell("echo x > %s/tokenizer.json", dir), 0);
    CHECK_INT(cli_shell("ln -s t.csv %s/link.csv", test_dir()), 0);
    CHECK_INT(cli_shell("mkdir %s/kern && echo x > %s/kern/k.csv", test_dir(), test_dir()), 0);
    CHECK_INT(cli_shell("cp scenarios/hardware/gpus.yaml %s/hw.yaml", test_dir()), 0);
    for (int i = 0; i < 2; i++) {
        spared(verb[i], "", test_path("s.yaml"));
        snprintf(args, sizeof args, "--workload.trace=%s", test_path("t.csv"));
        spared(verb[i], args, test_path("t.csv"));
        snprintf(args, sizeof args, "--workload.trace=t.csv"); /* beside the scenario */
        spared(verb[i], args, test_path("t.csv"));
        spared(verb[i], args, test_path("link.csv"));
        snprintf(args, sizeof args, "--workload.prompt.file=%s", test_path("len.csv"));
        spared(verb[i], args, test_path("len.csv"));
        snprintf(args, sizeof args, "--model=%s", dir);
        static const char *const in[] = { "config.json", "model.safetensors", "tokenizer.json" };
        for (int k = 0; k < 3; k++) {
            snprintf(file, sizeof file, "%s/%s", dir, in[k]);
            spared(verb[i], args, file);
        }
        snprintf(args, sizeof args, "--model=%s/config.json", dir);
        for (int k = 0; k < 2; k++) {
            snprintf(file, sizeof file, "%s/%s", dir, in[k]);
            spared(verb[i], args, file);
        }
        snprintf(args, sizeof args, "--hardware=%s", test_path("hw.yaml"));
        spared(verb[i], args, test_path("hw.yaml"));
        snprintf(args, sizeof args, "--hardware.profile=%s", test_path("t.csv"));
        spared(verb[i], args, test_path("t.csv"));
        snprintf(args, sizeof args, "--hardware.kernels=%s/kern", test_dir());
        spared(verb[i], args, test_path("kern/k.csv"));
    }
    snprintf(args, sizeof args, "--sweep=workload.trace=%s", test_path("t.csv"));
    spared("simulate", args, test_path("t.csv"));
}

/* A journal lies beside the run file: it does not push a trace aside either. */
TEST(engine_run_does_not_move_a_trace_for_its_journal)
{
    char trace[600];
    snprintf(trace, sizeof trace, "%s", cli_put("r.h5.journal.csv", "arrival,in,out\n0,5,5\n"));
    CHECK_INT(cli_run("", "engine run %s --workload.trace=%s --out=%s", scenario(), trace,
                      test_path("r.h5")),
              2);
    CHECK_HAS(cli_err, "r.h5.journal.csv is read, and would be replaced");
    CHECK(access(trace, F_OK) == 0);
}

/* An old result is no input, beside a model or not. */
TEST(runs_replace_their_own_old_results)
{
    char out[700], bin[PATH_MAX];
    if (!CHECK(realpath(cli_bin(), bin) != NULL)) return;
    snprintf(out, sizeof out, "%s/run.h5", model_dir("m", "config.json"));
    for (int i = 0; i < 2; i++)
        CHECK_INT(cli_run("", "engine run %s --model=%s/m/config.json --out=%s", scenario(),
                          test_dir(), out),
                  0);
    for (int i = 0; i < 2; i++) CHECK_INT(cli_run("", "simulate %s --out=%s", scenario(), out), 0);
    for (int i = 0; i < 2; i++) /* a directory that is called as a policy is */
        CHECK_INT(cli_shell("export ORRERY_HOME=$PWD; cd %s && mkdir -p sarathi && %s simulate "
                            "s.yaml --model=llama-3-8b "
                            "--sweep=policy.name=sarathi,vllm --out=sarathi/x.h5",
                            test_dir(), bin),
                  0);
}

/* ---- sizes */

/* The tiny model with another number under a key of its config.json. */
static const char *altered(const char *name, const char *key, const char *value)
{
    const char *dir = model_dir(name, "config.json");
    CHECK_INT(cli_shell("sed -i 's/\"%s\": [0-9]*/\"%s\": %s/' %s/config.json && "
                        "grep -q '\"%s\": %s' %s/config.json && cp " TINY "/model.safetensors %s/",
                        key, key, value, dir, key, value, dir, dir),
              0);
    return dir;
}

TEST(engine_run_refuses_tables_past_what_can_be_counted)
{
    static const char *const seqs[] = { "65536", "40000", "17180" }; /* 17180: 2^31 and some */
    const char *dir = altered("long", "max_position_embeddings", "1000000");
    for (int i = 0; i < 3; i++) {
        CHECK_INT(cli_run("",
                          "engine run %s --model=%s --policy.max_seqs=%s --policy.block=8tok "
                          "--policy.max_batch_tokens=65536tok --policy.max_model_len=1000000tok",
                          scenario(), dir, seqs[i]),
                  2);
        CHECK_HAS(cli_err, "--policy.max_seqs: ");
        CHECK_HAS(cli_err, "tokens (policy.max_model_len) in blocks of 8 (policy.block) may list ");
        CHECK_TEXT(cli_out, "");
    }
}

TEST(engine_run_refuses_another_shape_with_the_tensor)
{
    const char *dir = altered("wide", "vocab_size", "1000000");
    CHECK_INT(cli_run("", "engine run %s --model=%s", scenario(), dir), 2);
    CHECK_HAS(cli_err, "the tensor model.embed_tokens.weight is ");
    CHECK_HAS(cli_err, ", but the configuration needs 1000000 x ");
}

/* Every byte of the data is read once: what is read is the file less its header. */
TEST(engine_run_reads_the_bytes_of_the_file)
{
    static const char *const model[] = { "llama31", "falcon-40b", "falcon-7b", "llama-bias",
                                         "mistral" };
    for (size_t i = 0; i < sizeof model / sizeof *model; i++) {
        char path[300];
        unsigned char head[8];
        struct stat info;
        int64_t header = 0;
        snprintf(path, sizeof path, "tests/golden/engine/%s/model.safetensors", model[i]);
        FILE *f = fopen(path, "rb");
        if (!CHECK(f && fread(head, 1, 8, f) == 8 && fstat(fileno(f), &info) == 0)) return;
        fclose(f);
        for (int k = 7; k >= 0; k--) header = header << 8 | head[k];
        CHECK_INT(cli_run("",
                          "engine run %s --json --workload.requests=2 --sim.warmup=0 "
                          "--model=tests/golden/engine/%s",
                          scenario(), model[i]),
                  0);
        json_t *j = cli_json();
        if (!CHECK(cli_number(j, "engine.read_bytes") == (double)(info.st_size - 8 - header)))
            printf("%s: %s\n", model[i], cli_err);
        json_decref(j);
    }
}

/* ---- what is not given, or is nothing */

TEST(engine_run_needs_no_hardware)
{
    char s[600];
    const char *put = cli_put("bare.yaml", "model: " TINY "/config.json\n" REST
                                           "workload: {rate: 3000/s, requests: 20,\n"
                                           "  prompt: {mean: 10tok, max: 30tok},\n"
                                           "  output: {mean: 6tok, max: 30tok}}\n");
    snprintf(s, sizeof s, "%s", put);
    CHECK_INT(cli_run("", "engine run %s --out=%s", s, test_path("bare.h5")), 0);
    CHECK_TEXT(cli_err, "");
    CHECK(!strstr(cli_out, "hardware:"));
    CHECK_INT(cli_run("", "engine run %s --dry-run", s), 0);
    cli_put("again.yaml", cli_out);
    CHECK_INT(cli_run("", "engine run %s", test_path("again.yaml")), 0);
    CHECK_INT(cli_run("", "report %s --out=%s", test_path("bare.h5"), test_path("bare.html")), 0);
    CHECK_INT(cli_run("", "simulate %s", s), 2);
    CHECK_HAS(cli_err, "no hardware; write hardware: dgx-h100");
    CHECK_INT(cli_run("", "engine run %s --hardware=dgx-h10", s), 2);
    CHECK_HAS(cli_err, "did you mean 'dgx-h100'?");
}

/* As the format has it, in both: a length of 0 is 1, and it is said. */
TEST(lengths_of_0_mean_the_same_served_and_simulated)
{
    static const char *const verb[] = { "engine run", "simulate" };
    char trace[600];
    snprintf(trace, sizeof trace, "%s",
             cli_put("zero.csv", "arrival,in,out\n0,0,4\n0.001,3,0\n0.002,3,4\n"));
    for (int i = 0; i < 2; i++) {
        CHECK_INT(cli_run("", "%s %s --workload.trace=%s --workload.requests=0", verb[i],
                          scenario(), trace),
                  0);
        CHECK_HAS(cli_out, "3 requests (2 lengths of 0 read as 1)");
    }
}

/* The reader has gone before anything is written. */
TEST(help_to_a_reader_that_left_is_silent)
{
    static const char *const verb[] = { "engine run", "engine generate", "engine recover",
                                        "simulate",   "bench",           "trace",
                                        "engine",     "report" };
    if (test_run("command -v bash", NULL, 0, NULL, 0) != 0) SKIP("no bash");
    for (size_t i = 0; i < sizeof verb / sizeof *verb; i++) {
        int st =
            cli_shell("bash -c 'exec 3> >(true); wait $!; %s %s --help >&3'", cli_bin(), verb[i]);
        if (!CHECK(st == 0)) printf("%s: %d\n", verb[i], st);
        CHECK_TEXT(cli_err, "");
    }
}
