/* tests/test_arch.c - config.json: published parameter counts, and files that must be refused.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/arch.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/rng.h"
#include "tests/test.h"

/* clang-format off */
/* Published counts, not computed here. Totals of the safetensors files for Llama 3.1, Mixtral and
 * Qwen3 0.6B, 1.7B, 8B, 32B. The others are as commonly quoted, and unverified but for this: a
 * shape that was misremembered would hardly give the quoted count to the last digit. */
static const struct { const char *name; int64_t params; double kv_bytes_tok; } published[] = {
    { "llama-2-7b", 6738415616, 524288 },       { "llama-2-13b", 13015864320, 819200 },
    { "llama-2-70b", 68976648192, 327680 },     { "llama-3-8b", 8030261248, 131072 },
    { "llama-3-70b", 70553706496, 327680 },     { "llama-3.1-8b", 8030261248, 131072 },
    { "llama-3.1-70b", 70553706496, 327680 },   { "llama-3.1-405b", 405853388800, 516096 },
    { "llama-3.2-1b", 1235814400, 32768 },      { "llama-3.2-3b", 3212749824, 114688 },
    { "tinyllama-1.1b", 1100048384, 22528 },    { "mistral-7b-v0.1", 7241732096, 131072 },
    { "mistral-7b-v0.3", 7248023552, 131072 },  { "mixtral-8x7b-v0.1", 46702792704, 131072 },
    { "mixtral-8x22b-v0.1", 140620634112, 229376 }, { "qwen2.5-0.5b", 494032768, 12288 },
    { "qwen2.5-1.5b", 1543714304, 28672 },      { "qwen2.5-3b", 3085938688, 36864 },
    { "qwen2.5-7b", 7615616512, 57344 },        { "qwen2.5-14b", 14770033664, 196608 },
    { "qwen2.5-32b", 32763876352, 262144 },     { "qwen2.5-72b", 72706203648, 327680 },
    { "qwen3-0.6b", 596049920, 114688 },        { "qwen3-1.7b", 1720574976, 114688 },
    { "qwen3-4b", 4022468096, 147456 },         { "qwen3-8b", 8190735360, 147456 },
    { "qwen3-14b", 14768307200, 163840 },       { "qwen3-32b", 32762123264, 262144 },
    { "falcon-7b", 6921720704, 8192 },          { "falcon-40b", 41303293952, 122880 },
    { "falcon-180b", 179522565120, 163840 },
};
/* clang-format on */

static void model_path(const char *name, char *buf, size_t n)
{
    snprintf(buf, n, "scenarios/models/%s.json", name);
}

TEST(arch_counts_published_parameters_exactly)
{
    for (size_t i = 0; i < sizeof published / sizeof *published; i++) {
        struct err e = { 0 };
        struct arch a;
        char path[128];
        model_path(published[i].name, path, sizeof path);
        CHECK_OK(arch_read(path, &a, &e), &e);
        CHECK_TEXT(a.name, published[i].name);
        CHECK_INT(arch_params(&a), published[i].params);
        CHECK_NEAR(a.n_layer * arch_kv_bytes_layer(&a, 2), published[i].kv_bytes_tok, 0);
    }
}

TEST(arch_counts_active_parameters_of_experts)
{
    struct err e = { 0 };
    struct arch a;
    CHECK_OK(arch_read("scenarios/models/mixtral-8x7b-v0.1.json", &a, &e), &e);
    CHECK_INT(arch_params_active(&a), 12879925248); /* 12.9 billion, as its publisher says */
    CHECK_INT(a.n_expert, 8);
    CHECK_INT(a.top_k, 2);
    CHECK_OK(arch_read("scenarios/models/llama-3-8b.json", &a, &e), &e);
    CHECK_INT(arch_params_active(&a), arch_params(&a));
}

TEST(arch_own_small_shapes_have_their_nominal_size)
{
    static const struct {
        const char *name;
        double nominal;
    } own[] = { { "llama-25m", 25e6 }, { "llama-110m", 110e6 }, { "llama-1b1", 1.1e9 } };
    for (size_t i = 0; i < 3; i++) {
        struct err e = { 0 };
        struct arch a;
        char path[128];
        model_path(own[i].name, path, sizeof path);
        CHECK_OK(arch_read(path, &a, &e), &e);
        CHECK_NEAR((double)arch_params(&a), own[i].nominal, 0.01);
    }
}

TEST(arch_parts_add_up)
{
    for (size_t i = 0; i < sizeof published / sizeof *published; i++) {
        struct err e = { 0 };
        struct arch a;
        char path[128];
        model_path(published[i].name, path, sizeof path);
        CHECK_OK(arch_read(path, &a, &e), &e);
        int64_t norm = (int64_t)a.hidden * (a.layer_norm ? 2 : 1);
        CHECK_INT(arch_params_layer(&a),
                  arch_params_attn(&a) + arch_params_mlp(&a) + a.n_norm_layer * norm);
        CHECK_INT(arch_params(&a), arch_params_embed(&a) + arch_params_head(&a) + norm +
                                       a.n_layer * arch_params_layer(&a));
        CHECK(a.tied == (arch_params_head(&a) == 0));
    }
}

TEST(arch_reads_what_sets_families_apart)
{
    struct err e = { 0 };
    struct arch a;
    CHECK_OK(arch_read("scenarios/models/falcon-7b.json", &a, &e), &e);
    CHECK(a.parallel_attn && a.layer_norm && a.tied && !a.gated_mlp && !a.qkv_bias);
    CHECK_INT(a.n_kv_head, 1);
    CHECK_INT(a.n_norm_layer, 1);
    CHECK_INT(a.max_ctx, 2048);
    CHECK_OK(arch_read("scenarios/models/falcon-40b.json", &a, &e), &e);
    CHECK_INT(a.n_kv_head, 8);
    CHECK_INT(a.n_norm_layer, 2);
    CHECK_OK(arch_read("scenarios/models/mistral-7b-v0.1.json", &a, &e), &e);
    CHECK_INT(a.sliding_window, 4096);
    CHECK_OK(arch_read("scenarios/models/mistral-7b-v0.3.json", &a, &e), &e);
    CHECK_INT(a.sliding_window, 0);
    CHECK_OK(arch_read("scenarios/models/llama-3.1-8b.json", &a, &e), &e);
    CHECK_NEAR(a.rope_factor, 8, 0);
    CHECK_NEAR(a.rope_theta, 500000, 0);
    CHECK_OK(arch_read("scenarios/models/qwen3-32b.json", &a, &e), &e);
    CHECK(a.qk_norm && !a.qkv_bias);
    CHECK_INT(a.head_dim, 128); /* not hidden / heads, which is 80 */
    CHECK_OK(arch_read("scenarios/models/qwen2.5-7b.json", &a, &e), &e);
    CHECK(a.qkv_bias && !a.o_bias && !a.qk_norm);
    CHECK_INT(a.sliding_window, 0); /* the key is there, but use_sliding_window is false */
}

/* ---- small files, changed one key at a time */

#define BASE                                                                                       \
    "\"hidden_size\":64,\"num_hidden_layers\":2,\"num_attention_heads\":4,\"vocab_size\":100,"     \
    "\"intermediate_size\":128,\"max_position_embeddings\":256"
#define LLAMA "\"model_type\":\"llama\","

static int parse(const char *json, struct arch *a, struct err *e)
{
    err_clear(e);
    return arch_parse("dir/m.json", json, strlen(json), a, e);
}

static void refused(const char *json, const char *sentence)
{
    struct err e = { 0 };
    struct arch a = { .hidden = -7 };
    CHECK_INT(parse(json, &a, &e), ST_USAGE);
    CHECK_HAS(e.text, sentence);
    CHECK_HAS(e.text, "dir/m.json");
    CHECK_INT(a.hidden, -7); /* untouched */
}

TEST(arch_takes_defaults_of_the_model_class)
{
    struct err e = { 0 };
    struct arch a;
    CHECK_OK(parse("{" LLAMA BASE "}", &a, &e), &e);
    CHECK_TEXT(a.name, "m");
    CHECK_INT(a.n_kv_head, 4);
    CHECK_INT(a.head_dim, 16);
    CHECK_NEAR(a.rope_theta, 10000, 0);
    CHECK(!a.tied && !a.qkv_bias && !a.o_bias && !a.mlp_bias);
    CHECK_OK(parse("{" LLAMA BASE ",\"head_dim\":null,\"num_key_value_heads\":null,"
                   "\"rope_scaling\":null,\"sliding_window\":32}",
                   &a, &e),
             &e);
    CHECK_INT(a.head_dim, 16);
    CHECK_INT(a.sliding_window, 0); /* Llama knows no such key */
    CHECK_OK(parse("{\"model_type\":\"mistral\"," BASE ",\"num_key_value_heads\":2}", &a, &e), &e);
    CHECK_INT(a.sliding_window, 4096);
    CHECK_OK(parse("{\"model_type\":\"qwen3\"," BASE ",\"num_key_value_heads\":2}", &a, &e), &e);
    CHECK_INT(a.head_dim, 128);
    CHECK_OK(parse("{" LLAMA BASE ",\"rope_parameters\":{\"rope_type\":\"default\","
                   "\"rope_theta\":5e5}}",
                   &a, &e),
             &e);
    CHECK_NEAR(a.rope_theta, 5e5, 0);
    CHECK_NEAR(a.rope_factor, 1, 0);
}

TEST(arch_counts_biases)
{
    struct err e = { 0 };
    struct arch plain, biased;
    CHECK_OK(parse("{" LLAMA BASE ",\"num_key_value_heads\":2}", &plain, &e), &e);
    CHECK_OK(parse("{" LLAMA BASE ",\"num_key_value_heads\":2,\"attention_bias\":true,"
                   "\"mlp_bias\":true}",
                   &biased, &e),
             &e);
    /* q 64, k 32, v 32, o 64; gate 128, up 128, down 64 */
    CHECK_INT(arch_params_layer(&biased) - arch_params_layer(&plain), 192 + 320);
    CHECK_OK(parse("{\"model_type\":\"falcon\"," BASE ",\"multi_query\":false,\"bias\":true,"
                   "\"parallel_attn\":false}",
                   &biased, &e),
             &e);
    CHECK_INT(biased.n_kv_head, 4);
    CHECK_INT(biased.n_norm_layer, 2);
    CHECK_INT(biased.ffn, 256);
    /* attention 4*64*64 + 4*64, MLP 2*64*256 + 256 + 64, two LayerNorms of weight and bias */
    CHECK_INT(arch_params_layer(&biased), 16384 + 256 + 32768 + 320 + 256);
}

TEST(arch_refuses_unknown_families)
{
    refused("{\"model_type\":\"lama\"," BASE "}", "did you mean 'llama'?");
    refused("{\"model_type\":\"deepseek_v3\"," BASE "}",
            "model_type 'deepseek_v3' is none of llama, mistral, qwen2, qwen3, falcon, mixtral");
    refused("{" BASE "}", "model_type is missing; known are llama, mistral");
    refused("{\"model_type\":null," BASE "}", "model_type is missing");
    refused("{\"model_type\":7," BASE "}", "model_type is 7, expected one of");
    refused("{\"model_type\":{}," BASE "}", "model_type is a map");
}

TEST(arch_refuses_missing_sizes)
{
    static const char *keys[] = { "hidden_size", "num_hidden_layers", "num_attention_heads",
                                  "vocab_size",  "intermediate_size", "max_position_embeddings" };
    for (size_t miss = 0; miss < 6; miss++) {
        char json[512] = "{" LLAMA "\"x\":1", want[80];
        for (size_t i = 0; i < 6; i++) {
            size_t at = strlen(json);
            if (i != miss) snprintf(json + at, sizeof json - at, ",\"%s\":64", keys[i]);
        }
        strcat(json, "}");
        snprintf(want, sizeof want, "the key %s is missing", keys[miss]);
        refused(json, want);
    }
    refused("{\"model_type\":\"qwen2\"," BASE "}", "num_key_value_heads is missing");
}

TEST(arch_refuses_wrong_values)
{
    /* clang-format off */
    static const struct { const char *value, *sentence; } bad[] = {
        { "-64", "hidden_size is -64, expected a whole number from 1 to 2^24" },
        { "0", "hidden_size is 0, expected" },
        { "\"4096\"", "hidden_size is the text \"4096\", expected" },
        { "64.5", "hidden_size is 64.5, expected" },
        { "16777217", "hidden_size is 16777217, expected" },
        { "1e30", "expected a whole number from 1 to 2^24" },
        { "1000000000000000000000000000000", "" },   /* too big for JSON's reader */
        { "NaN", "" },                               /* no JSON */
        { "-Infinity", "" },
        { "true", "hidden_size is true, expected" },
        { "[64]", "hidden_size is a list, expected" },
        { "{\"a\":{\"b\":64}}", "hidden_size is a map, expected" },
        { "null", "the key hidden_size is missing" },
    };
    /* clang-format on */
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char json[512];
        snprintf(json, sizeof json,
                 "{" LLAMA "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"vocab_size\":100,"
                 "\"intermediate_size\":128,\"max_position_embeddings\":256,\"hidden_size\":%s}",
                 bad[i].value);
        refused(json, bad[i].sentence);
    }
}

TEST(arch_refuses_contradictions)
{
    refused("{" LLAMA BASE ",\"num_key_value_heads\":3}",
            "num_attention_heads 4 is not a multiple of "
            "num_key_value_heads 3");
    refused("{" LLAMA BASE ",\"num_key_value_heads\":8}", "not a multiple");
    refused("{" LLAMA "\"hidden_size\":65,\"num_hidden_layers\":2,\"num_attention_heads\":4,"
            "\"vocab_size\":9,\"intermediate_size\":8,\"max_position_embeddings\":8}",
            "hidden_size 65 is not a multiple of num_attention_heads 4 and there is no head_dim");
    refused("{\"model_type\":\"mixtral\"," BASE
            ",\"num_key_value_heads\":2,\"num_local_experts\":2,"
            "\"num_experts_per_tok\":3}",
            "num_experts_per_tok 3 exceeds num_local_experts 2");
    refused("{\"model_type\":\"mixtral\"," BASE ",\"num_key_value_heads\":2,\"mlp_bias\":true}",
            "mlp_bias with experts is not modelled");
    refused("{\"model_type\":\"qwen2\"," BASE
            ",\"num_key_value_heads\":2,\"use_sliding_window\":true,"
            "\"sliding_window\":64,\"max_window_layers\":1}",
            "max_window_layers 1 of 2: a sliding window in some layers only is not modelled");
    refused("{" LLAMA "\"hidden_size\":16777216,\"num_hidden_layers\":16777216,"
            "\"num_attention_heads\":16777216,\"vocab_size\":16777216,\"head_dim\":16777216,"
            "\"intermediate_size\":16777216,\"max_position_embeddings\":1}",
            "parameters; at most 1e15");
    refused("{\"model_type\":\"falcon\",\"hidden_size\":8388608,\"num_hidden_layers\":2,"
            "\"num_attention_heads\":4,\"vocab_size\":100}",
            "needs an MLP wider than 2^24");
    refused("{\"model_type\":\"falcon\"," BASE ",\"num_ln_in_parallel_attn\":3}",
            "num_ln_in_parallel_attn is 3, expected 1 or 2");
}

TEST(arch_refuses_wrong_flags_and_rope)
{
    refused("{" LLAMA BASE ",\"tie_word_embeddings\":1}",
            "tie_word_embeddings is 1, expected true or false");
    refused("{" LLAMA BASE ",\"attention_bias\":\"false\"}",
            "attention_bias is the text \"false\"");
    refused("{" LLAMA BASE ",\"rope_theta\":-1}", "rope_theta is -1, expected a number from 1 to");
    refused("{" LLAMA BASE ",\"rope_theta\":\"1e4\"}", "rope_theta is the text");
    refused("{" LLAMA BASE ",\"rope_scaling\":8}", "rope_scaling is 8, expected a map");
    refused("{" LLAMA BASE ",\"rope_scaling\":{}}", "rope_scaling has no rope_type");
    refused("{" LLAMA BASE ",\"rope_scaling\":{\"rope_type\":\"llama3\"}}",
            "rope_scaling has no factor");
    refused("{" LLAMA BASE ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4}}",
            "rope_type is the text \"yarn\", expected llama3 or default");
    refused("{" LLAMA BASE ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":0}}",
            "factor is 0, expected a number from 1 to 1024");
}

TEST(arch_refuses_what_is_no_object)
{
    refused("[]", "not a JSON object");
    refused("7", "not a JSON object");
    refused("", "");
    refused("{", "");
    refused("{" LLAMA BASE "} x", "");
    refused("{" LLAMA "\"hidden_size\":64," BASE "}", ""); /* a key twice */
    struct err e = { 0 };
    struct arch a;
    CHECK_INT(arch_read("no/such/file.json", &a, &e), ST_USAGE);
    static const char big[8] = "{}";
    err_clear(&e);
    CHECK_INT(arch_parse("big", big, 17ul << 20, &a, &e), ST_USAGE);
    CHECK_HAS(e.text, "at most 16 MiB");
}

/* Any change of some bytes either parses to a sane shape or is refused with a sentence. */
TEST(arch_survives_damaged_files)
{
    static const char good[] = "{" LLAMA BASE ",\"num_key_value_heads\":2,\"rope_scaling\":"
                               "{\"rope_type\":\"llama3\",\"factor\":8.0}}";
    struct rng r = rng_stream(1, "test.arch.damage");
    for (uint64_t i = 0; i < 20000; i++) {
        char bytes[sizeof good];
        struct err e = { 0 };
        struct arch a;
        memcpy(bytes, good, sizeof good);
        for (uint64_t k = 0; k <= i % 3; k++)
            bytes[rng_below(r, 8 * i + 2 * k, sizeof good - 1)] =
                (char)rng_bits(r, 8 * i + 2 * k + 1);
        if (arch_parse("m", bytes, sizeof good - 1, &a, &e) == ST_OK)
            CHECK(arch_params(&a) > 0 && a.n_head % a.n_kv_head == 0 && a.rope_factor >= 1);
        else
            CHECK(e.status == ST_USAGE && e.text[0]);
    }
}
