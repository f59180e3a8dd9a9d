/* tests/test_hw.c - the hardware catalog and files in its form.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/hw.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/rng.h"
#include "tests/test.h"

static const char *write_file(const char *name, const char *text)
{
    const char *path = test_path(name);
    FILE *f = fopen(path, "w");
    CHECK(f && fputs(text, f) >= 0);
    if (f) fclose(f);
    return path;
}

TEST(hw_reads_a_system)
{
    struct arena a;
    struct err e = { 0 };
    struct hw h;
    arena_init(&a);
    CHECK_OK(hw_load("dgx-h100", NULL, 2, &a, &h, &e), &e);
    CHECK_INT(h.n_node, 2);
    CHECK_INT(h.sys.n_gpu, 8);
    CHECK_INT(h.sys.fabric, HW_SWITCHED);
    CHECK(h.sys.nvls);
    CHECK_TEXT(h.gpu.name, "h100-sxm");
    CHECK_NEAR(h.gpu.mem_bytes_per_s, 3.35e12, 1e-15);
    CHECK_NEAR(h.gpu.flop_per_s[DT_BF16], 989e12, 1e-15);
    CHECK_NEAR(h.gpu.flop_per_s[DT_FP8], 1979e12, 1e-15);
    CHECK_NEAR(h.gpu.mem_bytes, 79.1 * 1073741824, 1e-12);
    CHECK_NEAR(h.sys.peer_alpha_s, 5e-6, 1e-12);
    CHECK_NEAR(h.sys.n_nic * h.sys.nic_bytes_per_s, 400e9, 1e-12);
    arena_release(&a);
}

TEST(hw_takes_a_bare_gpu_as_a_node)
{
    struct arena a;
    struct err e = { 0 };
    struct hw h;
    arena_init(&a);
    CHECK_OK(hw_load("t4", NULL, 1, &a, &h, &e), &e);
    CHECK_INT(h.sys.n_gpu, 1);
    CHECK_TEXT(h.sys.name, "t4");
    CHECK_NEAR(h.gpu.mem_bytes, 15109.0 * 1048576, 1e-15);
    CHECK_NEAR(h.gpu.flop_per_s[DT_BF16], 0, 0);
    CHECK_NEAR(h.gpu.flop_per_s[DT_INT4], h.gpu.flop_per_s[DT_F16], 0);
    CHECK_INT(hw_load("t4", NULL, 2, &a, &h, &e), ST_USAGE);
    CHECK_TEXT(e.text, "t4 has no inter.rate, so 2 nodes of it cannot be joined");
    arena_release(&a);
}

/* Orders that hold whatever the figures: a wrong prefix or a swapped column breaks one. */
TEST(hw_catalog_is_plausible_and_sourced)
{
    struct arena a;
    struct err e = { 0 };
    struct hw_gpu *g;
    struct hw_system *s;
    int n_gpu, n_system;
    arena_init(&a);
    CHECK_OK(hw_list(&a, &g, &n_gpu, &s, &n_system, &e), &e);
    CHECK(n_gpu >= 25 && n_system >= 15);
    for (int i = 0; i < n_gpu; i++) {
        bool ok = g[i].mem_bytes > 14e9 && g[i].mem_bytes < 310e9 &&
                  g[i].mem_bytes_per_s >= 300e9 && g[i].mem_bytes_per_s <= 8e12 &&
                  g[i].flop_per_s[DT_F16] >= 60e12 &&
                  g[i].flop_per_s[DT_F32] < g[i].flop_per_s[DT_F16] && g[i].tdp_w >= 70 &&
                  g[i].idle_w < g[i].tdp_w / 3 && g[i].n_sm >= 40 && g[i].pcie_bytes_per_s > 15e9 &&
                  *g[i].source && *g[i].arch;
        if (!ok) printf("    %s\n", g[i].name);
        CHECK(ok);
        /* FP8 halves the operand: the dense peak doubles where it exists */
        if (g[i].flop_per_s[DT_FP8] > 0)
            CHECK_NEAR(g[i].flop_per_s[DT_FP8] / g[i].flop_per_s[DT_F16], 2, 0.015);
    }
    for (int i = 0; i < n_system; i++) {
        struct hw h;
        CHECK_OK(hw_load(s[i].name, NULL, 2, &a, &h, &e), &e);
        bool ok = h.sys.inter_bytes_per_s * h.sys.n_gpu <=
                      1.01 * h.sys.n_nic * h.sys.nic_bytes_per_s * 2 &&
                  (h.sys.n_gpu == 1 || h.sys.peer_bytes_per_s >= h.sys.inter_bytes_per_s * 0.9) &&
                  *h.sys.source && *h.sys.title && h.sys.host_mem_bytes > 1e10 &&
                  strcmp(h.gpu.name, h.sys.gpu_name) == 0;
        if (!ok) printf("    %s\n", s[i].name);
        CHECK(ok);
    }
    arena_release(&a);
}

TEST(hw_names_the_nearest)
{
    struct arena a;
    struct err e = { 0 };
    struct hw h;
    arena_init(&a);
    CHECK_INT(hw_load("dgx-h10", NULL, 1, &a, &h, &e), ST_USAGE);
    CHECK_HAS(e.text,
              "no hardware 'dgx-h10'; did you mean 'dgx-h100'? systems: dgx-a100, dgx-h100");
    CHECK_HAS(e.text, "GPUs: t4, v100-16gb");
    err_clear(&e);
    CHECK_INT(hw_load("abacus", NULL, 1, &a, &h, &e), ST_USAGE);
    CHECK_HAS(e.text, "no hardware 'abacus'; systems:");
    err_clear(&e);
    CHECK_INT(hw_load("dgx-h100", NULL, 0, &a, &h, &e), ST_USAGE);
    CHECK_HAS(e.text, "0 nodes: from 1 to 1048576 are possible");
    err_clear(&e);
    CHECK_INT(hw_load("no/such.yaml", NULL, 1, &a, &h, &e), ST_USAGE);
    arena_release(&a);
}

TEST(hw_reads_a_users_file)
{
    struct arena a;
    struct err e = { 0 };
    struct hw h;
    arena_init(&a);
    write_file("lab.yaml", "gpu: h100-sxm\ngpus: 4\nfabric: pairs\npeer: {rate: 200GB/s}\n"
                           "inter: {rate: 10GB/s}\nhost: {mem: 512GiB}\n");
    /* found beside the scenario, by a relative name */
    CHECK_OK(hw_load("lab.yaml", test_path("scenario.yaml"), 3, &a, &h, &e), &e);
    CHECK_TEXT(h.sys.name, "lab");
    CHECK_TEXT(h.gpu.name, "h100-sxm");
    CHECK_INT(h.sys.n_gpu, 4);
    CHECK_INT(h.sys.fabric, HW_PAIRS);
    CHECK_NEAR(h.sys.peer_alpha_s, 10e-6, 1e-12); /* the default of the key */
    CHECK_OK(hw_load(write_file("own.yaml", "gpu: {mem: 10GiB, mem_rate: 500GB/s, arch: ada,\n"
                                            "      flops: {f16: 50TFLOP/s}}\n"),
                     NULL, 1, &a, &h, &e),
             &e);
    CHECK_TEXT(h.gpu.name, "own");
    CHECK_TEXT(h.gpu.arch, "ada");
    CHECK_TEXT(h.gpu.source, "");
    CHECK_NEAR(h.gpu.flop_per_s[DT_INT4], 50e12, 0);
    CHECK_INT(h.sys.n_gpu, 1);
    arena_release(&a);
}

static void refused(const char *text, const char *sentence)
{
    struct arena a;
    struct err e = { 0 };
    struct hw h = { .n_node = -7 };
    arena_init(&a);
    CHECK_INT(hw_load(write_file("u.yaml", text), NULL, 1, &a, &h, &e), ST_USAGE);
    CHECK_HAS(e.text, sentence);
    CHECK_INT(h.n_node, -7);
    arena_release(&a);
}

TEST(hw_refuses_with_the_place)
{
    refused("gpu: h100-sxm\nfabrik: pcie\n",
            "u.yaml:2:1: no key 'fabrik', only title, gpus, fabric");
    refused("gpu: h100-sxm\nfabrik: pcie\n", "did you mean 'fabric'?");
    refused("gpu: h100-sxm\ninter: {rate: 50}\n", "u.yaml:2:15: inter.rate: '50' has no unit");
    refused("gpu: h100-sxm\ninter: {rate: 50TFLOP/s}\n", "u.yaml:2:15: inter.rate:");
    refused("gpu: h100-sxm\ninter: {rate: -5GB/s}\n", "u.yaml:2:15: inter.rate: -5GB/s is outside");
    refused("gpu: h100-sxm\nfabric: ring\n",
            "u.yaml:2:9: fabric: 'ring' is none of switched, pcie");
    refused("gpu: h100-sxm\ngpus: 0\n", "u.yaml:2:7: gpus: 0 is outside 1 .. 1024");
    refused("gpu: h100-sxm\ngpus: 8\n", "u: the key peer.rate is missing");
    refused("gpus: 1\n", "u: the key gpu is missing");
    refused("gpu: h100-sx\n", "u.yaml:1:6: gpu: 'h100-sx' is none of t4, v100-16gb");
    refused("gpu: h100-sx\n", "did you mean 'h100-sxm'?");
    refused("gpu: [t4]\n", "u.yaml:1:6: gpu: a list stands where a name or a map is expected");
    refused("gpu: {mem: 10GiB, mem_rate: 1TB/s}\n", "flops.bf16 (or flops.f16) is missing");
    refused("gpu: {mem_rate: 1TB/s, flops: {f16: 1TFLOP/s}}\n", "the key mem is missing");
    refused("gpu: {mem: 10GiB, flops: {f16: 1TFLOP/s}}\n", "the key mem_rate is missing");
    refused("gpu: {memory: 10GiB}\n", "u.yaml:1:7: no key 'memory'");
    refused("gpu: {flops: {bf61: 1TFLOP/s}}\n", "flops: no key 'bf61', only bf16, f16, f32, fp8");
    refused("gpu: t4\nprice: {low: 3kUSD, high: 2kUSD}\n",
            "price: the lower figure is above the higher");
    refused("gpu: t4\npower: {max: 1kW, idle: 2kW}\n",
            "power: the lower figure is above the higher");
    refused("gpu: t4\nprice: {rent_low: 3USD/h, rent_high: 2USD/h}\n", "the lower figure is above");
    refused("gpu: {mem: 10GiB, mem_rate: 1TB/s, flops: {f16: 1TFLOP/s}, power: {max: 10W, idle: "
            "20W}}\n",
            "power: the lower figure is above the higher");
    refused("- gpu\n", "");
    refused("gpu: t4\ngpu: t4\n", "");
}

TEST(hw_survives_damaged_files)
{
    static const char good[] = "gpu: {mem: 10GiB, mem_rate: 1TB/s, flops: {f16: 50TFLOP/s}}\n"
                               "gpus: 2\nfabric: mesh\npeer: {rate: 50GB/s, alpha: 5us}\n";
    struct rng r = rng_stream(2, "test.hw.damage");
    for (uint64_t i = 0; i < 150; i++) {
        char text[sizeof good];
        struct arena a;
        struct err e = { 0 };
        struct hw h;
        memcpy(text, good, sizeof good);
        for (uint64_t k = 0; k <= i % 2; k++) {
            char c = (char)rng_below(r, 8 * i + 2 * k + 1, 255);
            text[rng_below(r, 8 * i + 2 * k, sizeof good - 1)] = (char)(c ? c : '\n');
        }
        arena_init(&a);
        if (hw_load(write_file("d.yaml", text), NULL, 1, &a, &h, &e) == ST_OK)
            CHECK(h.gpu.mem_bytes > 0 && h.gpu.mem_bytes_per_s > 0 && h.sys.n_gpu >= 1);
        else
            CHECK(e.text[0] != 0);
        arena_release(&a);
    }
}
