/* tests/test_weights.c - safetensors files, whole and hostile; indexes; weights from a seed; shards.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/rng.h"
#include "engine/shard.h"
#include "engine/spec.h"
#include "engine/weights.h"
#include "tests/test.h"

/* ---- number formats */

/* Every half: to f32 by its definition, and back to the same bits. */
TEST(elt_f16_is_exact_for_every_value_and_rounds_to_even)
{
    long wrong = 0;
    for (uint32_t h = 0; h < 65536; h++) {
        int exponent = (int)(h >> 10 & 31), fraction = (int)(h & 1023);
        double want = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
        if (h & 0x8000) want = -want;
        float got = elt_from_f16((uint16_t)h);
        if (exponent == 31) {
            wrong += fraction ? !isnan(got) || !isnan(elt_from_f16(elt_to_f16(got))) : !isinf(got);
            continue;
        }
        wrong += (double)got != want || elt_to_f16(got) != h;
    }
    CHECK_INT(wrong, 0);
    CHECK_INT(elt_to_f16(1.0f + 0x1p-11f), 0x3c00); /* half way: to the even one */
    CHECK_INT(elt_to_f16(1.0f + 0x3p-11f), 0x3c02);
    CHECK_INT(elt_to_f16(1.0f + 0x1p-11f + 0x1p-20f), 0x3c01);
    CHECK_INT(elt_to_f16(65519.0f), 0x7bff);
    CHECK_INT(elt_to_f16(65520.0f), 0x7c00);
    CHECK_INT(elt_to_f16(-0x1p-25f), 0x8000); /* half the smallest: to even, zero */
    CHECK_INT(elt_to_f16(0x1.8p-25f), 1);
}

TEST(elt_bf16_rounds_to_even_and_keeps_nan)
{
    CHECK_INT(elt_to_bf16(1.0f), 0x3f80);
    CHECK_INT(elt_to_bf16(1.0f + 0x1p-8f), 0x3f80);
    CHECK_INT(elt_to_bf16(1.0f + 0x3p-8f), 0x3f82);
    CHECK_INT(elt_to_bf16(1.0f + 0x1p-8f + 0x1p-20f), 0x3f81);
    CHECK_INT(elt_to_bf16(3.4e38f), 0x7f80);
    CHECK(isnan(elt_from_bf16(elt_to_bf16(NAN))));
    CHECK(isnan(elt_from_bf16(elt_to_bf16(elt_f32_of_bits(0x7f800001u)))));
}

/* ---- files */

struct image {
    unsigned char b[4096];
    size_t n;
};

static struct image image(const char *header, size_t data)
{
    struct image m = { .n = 8 + strlen(header) + data };
    uint64_t h = strlen(header);
    for (int i = 0; i < 8; i++) m.b[i] = (unsigned char)(h >> 8 * i);
    memcpy(m.b + 8, header, h);
    for (size_t i = 0; i < data; i++) m.b[8 + h + i] = (unsigned char)(i + 1);
    return m;
}

static int parse(const struct image *m, struct err *e)
{
    struct safetensors s;
    struct arena a;
    arena_init(&a);
    unsigned char *exact = malloc(m->n + !m->n); /* so that a read past the end is seen */
    memcpy(exact, m->b, m->n);
    int st = safetensors_parse(&s, "x.safetensors", exact, m->n, &a, e);
    free(exact);
    arena_release(&a);
    return st;
}

#define A "\"a\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[0,8]}"

TEST(safetensors_reads_what_is_there)
{
    struct arena a;
    struct safetensors s;
    struct err e = { 0 };
    struct image m = image("{\"__metadata__\":{\"format\":\"pt\"}," A
                           ",\"b\":{\"dtype\":\"BF16\",\"shape\":[],\"data_offsets\":[8,10]},"
                           "\"none\":{\"dtype\":\"I64\",\"shape\":[0,5],\"data_offsets\":[8,8]}}  ",
                           10);
    arena_init(&a);
    CHECK_OK(safetensors_parse(&s, "x", m.b, m.n, &a, &e), &e);
    CHECK_INT(s.n, 3);
    const struct safetensor *t = safetensors_find(&s, "a");
    CHECK(t && t->n_dim == 2 && t->dim[0] == 2 && t->dim[1] == 1 && t->bytes == 8 &&
          t->data[0] == 1);
    t = safetensors_find(&s, "b");
    CHECK(t && t->n_dim == 0 && t->bytes == 2 && t->data[0] == 9);
    CHECK(safetensors_find(&s, "c") == NULL);
    arena_release(&a);
}

TEST(safetensors_refuses_hostile_files_with_one_sentence)
{
    static const struct {
        const char *header;
        size_t data;
        const char *says;
    } bad[] = {
        { "{" A "}", 7, "cut short" },
        { "{" A "}", 9, "after the last tensor" },
        { "{" A, 8, "no JSON" },
        { "[]", 0, "no JSON object" },
        { "{\"a\":7}", 0, "object" },
        { "{\"a\":{\"dtype\":\"F33\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "dtype" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":7,\"data_offsets\":[0,4]}}", 4, "shape" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "whole number" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}}", 4, "whole number" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,4]}}", 4,
          "2^63" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4,
          "dimensions" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, "need 8" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, "data_offsets" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "data_offsets" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 4, "data_offsets" },
        { "{" A ",\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "overlap" },
        { "{" A ",\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[9,13]}}", 13, "hole" },
        { "{" A "," A "}", 8, "no JSON" }, /* a name twice */
        { "{\"a\":[[[[[[[[[[]]]]]]]]]]}", 0, "nested" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err e = { 0 };
        struct image m = image(bad[i].header, bad[i].data);
        CHECK_INT(parse(&m, &e), ST_USAGE);
        CHECK_HAS(e.text, bad[i].says);
        CHECK_HAS(e.text, "x.safetensors");
    }
    struct image m = image("{}", 0);
    struct err e = { 0 };
    CHECK_INT(parse(&m, &e), ST_OK);
    for (m.n = 0; m.n < 10; m.n++) CHECK_INT(parse(&m, NULL), ST_USAGE);
    m = image("{}", 0);
    m.b[7] = 0xff; /* a header of 2^63 bytes */
    CHECK_INT(parse(&m, &e), ST_USAGE);
    CHECK_HAS(e.text, "100 MB");
}

/* Random damage: refused or read, never past the end (the sanitizers look). */
TEST(safetensors_survives_damaged_bytes)
{
    struct image whole = image("{" A ",\"b\":{\"dtype\":\"F16\",\"shape\":[4],"
                               "\"data_offsets\":[8,16]}}",
                               16);
    struct rng r = rng_stream(1, "damage");
    int refused = 0;
    for (uint64_t k = 0; k < 5000; k++) {
        struct image m = whole;
        for (uint64_t i = 0; i <= rng_below(r, k * 16, 3); i++)
            m.b[rng_below(r, k * 16 + 4 + i, m.n)] = (unsigned char)rng_bits(r, k * 16 + 8 + i);
        if (k % 3 == 0) m.n = rng_below(r, k * 16 + 15, m.n + 1);
        refused += parse(&m, NULL) != ST_OK;
    }
    CHECK(refused > 2500 && refused < 5000);
}

static void write_file(const char *name, const void *bytes, size_t n)
{
    FILE *f = fopen(test_path(name), "wb");
    CHECK(f && fwrite(bytes, 1, n, f) == n && fclose(f) == 0);
}

static int open_here(struct weights *w, struct err *e)
{
    return weights_open(w, test_dir(), e);
}

TEST(weights_index_must_agree_with_its_files)
{
    struct weights w;
    struct err e = { 0 };
    struct image m = image("{" A "}", 8);
    CHECK_INT(open_here(&w, &e), ST_USAGE);
    CHECK_HAS(e.text, "no model.safetensors");
    write_file("one.safetensors", m.b, m.n);
    static const struct {
        const char *index, *says;
    } bad[] = {
        { "{}", "weight_map" },
        { "{\"weight_map\": {}}", "weight_map" },
        { "{\"weight_map\": {\"b\": \"one.safetensors\"}}", "no such tensor" },
        { "{\"weight_map\": {\"a\": \"../one.safetensors\"}}", "beside the index" },
        { "{\"weight_map\": {\"a\": \"/etc/passwd\"}}", "beside the index" },
        { "{\"weight_map\": {\"a\": [1]}}", "beside the index" },
        { "{\"weight_map\": {\"a\": \"two.safetensors\"}}", "two.safetensors" },
        { "{\"weight_map\"", "model.safetensors.index.json" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        err_clear(&e);
        write_file("model.safetensors.index.json", bad[i].index, strlen(bad[i].index));
        CHECK(open_here(&w, &e) != ST_OK);
        CHECK_HAS(e.text, bad[i].says);
    }
    const char *good = "{\"weight_map\": {\"a\": \"one.safetensors\"}}";
    err_clear(&e);
    write_file("model.safetensors.index.json", good, strlen(good));
    CHECK_OK(open_here(&w, &e), &e);
    CHECK(weights_has(&w, "a") && !weights_has(&w, "b"));
    weights_close(&w);
}

TEST(weights_fetch_converts_cuts_and_checks)
{
    struct weights w;
    struct err e = { 0 };
    const char *header = "{\"m\":{\"dtype\":\"BF16\",\"shape\":[3,4],\"data_offsets\":[0,24]},"
                         "\"i\":{\"dtype\":\"I32\",\"shape\":[1],\"data_offsets\":[24,28]}}";
    struct image m = image(header, 28);
    for (int i = 0; i < 12; i++) {
        uint16_t v = elt_to_bf16((float)i);
        memcpy(m.b + 8 + strlen(header) + 2 * i, &v, 2);
    }
    write_file("model.safetensors", m.b, m.n);
    CHECK_OK(open_here(&w, &e), &e);
    float out[8] = { 0 };
    struct weights_part p = { "m", 3, 4, 1, 2, 2, 2 };
    CHECK_OK(weights_fetch(&w, &p, ELT_F32, out, 4, &e), &e);
    CHECK(out[0] == 6 && out[1] == 7 && out[2] == 0 && out[4] == 10 && out[5] == 11);
    uint16_t half[2];
    p.rows = 1;
    CHECK_OK(weights_fetch(&w, &p, ELT_F16, half, 2, &e), &e);
    CHECK(elt_from_f16(half[0]) == 6 && elt_from_f16(half[1]) == 7);
    p.n_row = 4;
    CHECK_INT(weights_fetch(&w, &p, ELT_F32, out, 4, &e), ST_USAGE);
    CHECK_HAS(e.text, "tensor m is 3 x 4, but the configuration needs 4 x 4");
    err_clear(&e);
    CHECK_INT(weights_check(&w, &p, &e), ST_USAGE);
    CHECK_HAS(e.text, "tensor m is 3 x 4, but the configuration needs 4 x 4");
    p.n_row = 3;
    CHECK_INT(weights_check(&w, &p, NULL), ST_OK);
    struct weights_part i = { "i", 1, 1, 0, 0, 1, 1 }, none = { "n", 1, 1, 0, 0, 1, 1 };
    err_clear(&e);
    CHECK_INT(weights_fetch(&w, &i, ELT_F32, out, 4, &e), ST_USAGE);
    CHECK_HAS(e.text, "I32");
    err_clear(&e);
    CHECK_INT(weights_fetch(&w, &none, ELT_F32, out, 4, &e), ST_USAGE);
    CHECK_HAS(e.text, "missing");
    CHECK_INT(weights_check(&w, &i, NULL), ST_USAGE);
    CHECK_INT(weights_check(&w, &none, NULL), ST_USAGE);
    weights_close(&w);
    weights_random(&w, 1);
    CHECK_INT(weights_check(&w, &none, NULL), ST_OK);
    weights_close(&w);
}

/* Tensor k of n is one byte, k mod 251; the index names them in another order. */
TEST(weights_index_finds_every_one_of_many)
{
    enum { N = 40000, STEP = 7919 }; /* a prime, no factor of N: all of them once */
    struct weights w;
    struct err e = { 0 };
    char *text = NULL, name[24];
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    fputc('{', f);
    for (int k = 0; k < N; k++)
        fprintf(f, "%s\"t.%d\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%d,%d]}",
                k ? "," : "", k, k, k + 1);
    fputc('}', f);
    fclose(f);
    f = fopen(test_path("many.safetensors"), "wb");
    for (int i = 0; i < 8; i++) fputc((int)(n >> 8 * i & 255), f);
    fwrite(text, 1, n, f);
    for (int k = 0; k < N; k++) fputc(k % 251, f);
    CHECK_INT(fclose(f), 0);
    free(text);
    f = fopen(test_path("model.safetensors.index.json"), "w");
    fputs("{\"weight_map\": {", f);
    for (int64_t k = 0; k < N; k++)
        fprintf(f, "%s\"t.%d\": \"many.safetensors\"", k ? ", " : "", (int)(k * STEP % N));
    fputs("}}", f);
    CHECK_INT(fclose(f), 0);
    if (!CHECK(open_here(&w, &e) == ST_OK)) return;
    CHECK_INT(w.n_tensor, N);
    for (int k = 0; k < N; k++) {
        snprintf(name, sizeof name, "t.%d", k);
        const struct safetensor *t = safetensors_find(&w.file[0], name);
        if (!CHECK(t && weights_has(&w, name) && t->data[0] == k % 251)) break;
    }
    CHECK(!weights_has(&w, "t.") && !weights_has(&w, "t.40000") && !weights_has(&w, ""));
    weights_close(&w);
}

/* ---- random weights */

TEST(weights_from_a_seed_are_the_same_whole_or_in_parts)
{
    enum { R = 37, C = 53 };
    struct weights w;
    static float all[R * C], part[R * C];
    weights_random(&w, 9);
    struct weights_part p = { "model.layers.0.mlp.up_proj.weight", R, C, 0, 0, R, C };
    CHECK_INT(weights_fetch(&w, &p, ELT_F32, all, C, NULL), ST_OK);
    double sum = 0, square = 0;
    long wrong = 0;
    for (int i = 0; i < R * C; i++) {
        sum += (double)all[i];
        square += (double)all[i] * (double)all[i];
    }
    CHECK(fabs(sum / (R * C)) < 4 / sqrt(C * (double)(R * C)));
    CHECK_NEAR(square / (R * C), 1.0 / C, 0.1);
    for (int row = 0; row < R; row += 5)
        for (int col = 0; col < C; col += 7) {
            struct weights_part q = p;
            q.row = row;
            q.col = col;
            q.rows = R - row;
            q.cols = C - col;
            weights_fetch(&w, &q, ELT_F32, part, C, NULL);
            for (int i = 0; i < R - row; i++)
                for (int k = 0; k < C - col; k++)
                    wrong += part[i * C + k] != all[(row + i) * C + col + k];
        }
    CHECK_INT(wrong, 0);
    weights_close(&w);
    weights_random(&w, 10);
    weights_fetch(&w, &p, ELT_F32, part, C, NULL);
    CHECK(memcmp(all, part, sizeof all) != 0);
    weights_close(&w);
}

/* What is drawn is part of every digest of a run with random weights: by the definition, number by
 * number, in each format. */
TEST(weights_from_a_seed_are_what_they_always_were)
{
    enum { R = 3, C = 1037, AT = 2 };
    static float f32[R * C];
    static uint16_t half[2][R * C];
    const char *name = "model.layers.3.self_attn.o_proj.weight";
    struct weights w;
    long wrong = 0;
    weights_random(&w, 77);
    for (int col = 0; col < 4; col++) {
        struct weights_part p = { name, 100, 1050, AT, col, R, C };
        struct rng r = rng_stream(77, name);
        weights_fetch(&w, &p, ELT_F32, f32, C, NULL);
        weights_fetch(&w, &p, ELT_F16, half[0], C, NULL);
        weights_fetch(&w, &p, ELT_BF16, half[1], C, NULL);
        for (int i = 0; i < R * C; i++) {
            uint64_t at = (uint64_t)((AT + i / C) * 1050 + col + i % C);
            int u = (int)(rng_bits(r, at / 4) >> at % 4 * 16 & 0xffff);
            float want = (float)sqrt(3.0 / 1050) / 32768.0f * ((float)u - 32767.5f);
            wrong +=
                f32[i] != want || half[0][i] != elt_to_f16(want) || half[1][i] != elt_to_bf16(want);
        }
    }
    CHECK_INT(wrong, 0);
    struct weights_part v = { "model.layers.3.self_attn.q_proj.bias", 1, C, 0, 0, 1, C };
    weights_fetch(&w, &v, ELT_F32, f32, C, NULL);
    CHECK(f32[5] ==
          0.1f / 32768.0f *
              ((float)(int)(rng_bits(rng_stream(77, v.name), 1) >> 16 & 0xffff) - 32767.5f));
    v.name = "model.layers.3.input_layernorm.weight";
    weights_fetch(&w, &v, ELT_F32, f32, C, NULL);
    for (int i = 0; i < C; i++) wrong += f32[i] != 1;
    CHECK_INT(wrong, 0);
    weights_close(&w);
}

/* ---- division */

static const struct arch shape = { .name = "x",
                                   .n_layer = 7,
                                   .n_head = 16,
                                   .n_kv_head = 4,
                                   .head_dim = 8,
                                   .ffn = 48,
                                   .vocab = 101,
                                   .hidden = 64 };

/* Every layer, query head, MLP column and vocabulary row belongs to exactly one rank; the KV head of
 * every query head is on its rank. */
TEST(shard_covers_the_model_exactly)
{
    for (int tp = 1; tp <= 16; tp *= 2)
        for (int pp = 1; pp <= 7; pp++) {
            int layers = 0, heads = 0, ffn = 0, vocab = 0;
            CHECK_INT(shard_check(&shape, tp, pp, NULL, NULL), ST_OK);
            for (int r = 0; r < tp * pp; r++) {
                struct shard s;
                shard_of(&shape, tp, pp, NULL, r, &s);
                CHECK_INT(s.layer0, s.tp_rank == 0 ? layers : s.layer0);
                layers += s.tp_rank == 0 ? s.n_layer : 0;
                CHECK(s.first == (s.stage == 0) && s.last == (s.stage == pp - 1));
                if (s.stage > 0) continue;
                CHECK(s.head0 == heads && s.ffn0 == ffn && s.vocab0 == vocab);
                heads += s.n_head;
                ffn += s.n_ffn;
                vocab += s.n_vocab;
                CHECK(s.kv0 <= s.head0 / 4 && s.kv0 + s.n_kv > (s.head0 + s.n_head - 1) / 4);
                CHECK(s.n_head % s.n_kv == 0);
            }
            CHECK(layers == 7 && heads == 16 && ffn == 48 && vocab == 101);
        }
}

TEST(shard_refuses_what_does_not_divide)
{
    static const int short_split[] = { 3, 3 }, empty[] = { 7, 0 };
    static const struct {
        int tp, pp;
        const int *split;
        const char *says;
    } bad[] = { { 3, 1, NULL, "tp 3 does not divide the 16 attention heads" },
                { 0, 1, NULL, "at least 1" },
                { 1, 8, NULL, "pp 8 exceeds the 7 layers" },
                { 1, 2, short_split, "6 layers in all" },
                { 1, 2, empty, "stage 1" } };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err e = { 0 };
        CHECK_INT(shard_check(&shape, bad[i].tp, bad[i].pp, bad[i].split, &e), ST_USAGE);
        CHECK_HAS(e.text, bad[i].says);
    }
    struct err e = { 0 };
    struct arch odd = shape;
    odd.n_head = odd.n_kv_head = 12;
    odd.n_kv_head = 6;
    CHECK_INT(shard_check(&odd, 4, 1, NULL, &e), ST_USAGE);
    CHECK_HAS(e.text, "neither divides");
    err_clear(&e);
    odd = shape;
    odd.ffn = 50;
    CHECK_INT(shard_check(&odd, 4, 1, NULL, &e), ST_USAGE);
    CHECK_HAS(e.text, "MLP width 50");
}

/* ---- configurations the engine cannot run */

TEST(spec_refuses_what_the_engine_cannot_run)
{
    static const struct {
        const char *json, *says;
    } bad[] = {
        { "\"hidden_act\": \"gelu\"", "silu" },
        { "\"partial_rotary_factor\": 0.5", "rotates whole heads" },
        { "\"rms_norm_eps\": \"x\"", "rms_norm_eps" },
        { "\"rms_norm_eps\": -1", "rms_norm_eps" },
        { "\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8}", "low_freq_factor" },
        { "\"head_dim\": 5", "odd" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[512];
        struct spec s;
        struct err e = { 0 };
        int n =
            snprintf(text, sizeof text,
                     "{\"model_type\": \"llama\", \"hidden_size\": 32, \"num_hidden_layers\": 1, "
                     "\"num_attention_heads\": 4, \"vocab_size\": 10, \"intermediate_size\": 8, "
                     "\"max_position_embeddings\": 64, %s}",
                     bad[i].json);
        write_file("config.json", text, (size_t)n);
        CHECK_INT(spec_read(test_dir(), &s, &e), ST_USAGE);
        CHECK_HAS(e.text, bad[i].says);
    }
}
