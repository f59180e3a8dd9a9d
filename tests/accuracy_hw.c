/* tests/accuracy_hw.c - the hardware catalog against AIConfigurator's system specifications.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/doc.h"
#include "tests/accuracy.h"

static const char root[] = "hardware_specs_aiconfigurator";

/* Their file, our node or GPU; NULL: not in the catalog. */
static const struct {
    const char *file, *name;
    bool node; /* a node of the catalog: its links are compared too */
} specs[] = {
    { "a100_pcie.yaml", "4xa100-pcie", true },
    { "a100_sxm.yaml", "dgx-a100", true },
    { "a30.yaml", "a30", false },
    { "b200_sxm.yaml", "dgx-b200", true },
    { "b300_sxm.yaml", "b300-sxm", false },
    { "b60.yaml", NULL, false },
    { "gb200.yaml", "gb200-nvl72", true },
    { "gb300.yaml", "gb300", false },
    { "h100_pcie.yaml", "4xh100-pcie", true },
    { "h100_sxm.yaml", "dgx-h100", true },
    { "h200_sxm.yaml", "hgx-h200", true },
    { "l4.yaml", "l4", false },
    { "l40s.yaml", "8xl40s-pcie", true },
    { "rtx_pro_6000_server.yaml", "8xrtxpro6000-pcie", true },
};

struct side {
    const char *what, *unit;
    double scale, ours;
    const char *group, *key; /* where theirs stands */
    bool node;
};

static double theirs(const struct doc *root_doc, const struct side *s)
{
    const struct doc *d = doc_get(doc_get(root_doc, s->group), s->key);
    return d && d->text && *d->text ? strtod(d->text, NULL) : NAN;
}

static void compare(struct acc *w, const char *file, const struct hw *h, const struct doc *d,
                    bool node, int count[3])
{
    const struct hw_gpu *g = &h->gpu;
    const struct hw_system *y = &h->sys;
    double link = g->link_bytes_per_s > 0 ? g->link_bytes_per_s : g->pcie_bytes_per_s;
    const struct side side[] = {
        { "memory rate", "GB/s", 1e-9, g->mem_bytes_per_s, "gpu", "mem_bw", false },
        { "memory (ours: usable)", "GB", 1e-9, g->mem_bytes, "gpu", "mem_capacity", false },
        { "bf16 peak", "TFLOP/s", 1e-12, g->flop_per_s[DT_BF16], "gpu", "bfloat16_tc_flops",
          false },
        { "int8 peak", "TOP/s", 1e-12, g->flop_per_s[DT_INT8], "gpu", "int8_tc_flops", false },
        { "fp8 peak", "TFLOP/s", 1e-12, g->flop_per_s[DT_FP8], "gpu", "fp8_tc_flops", false },
        { "nvfp4 peak", "TFLOP/s", 1e-12, g->flop_per_s[DT_NVFP4], "gpu", "fp4_tc_flops", false },
        { "power", "W", 1, g->tdp_w, "gpu", "power", false },
        { "host link", "GB/s", 1e-9, g->pcie_bytes_per_s, "node", "pcie_bw", false },
        { "link in the node", "GB/s", 1e-9, link, "node", "intra_node_bw", false },
        { "GPUs of a node", "", 1, y->n_gpu, "node", "num_gpus_per_node", true },
        { "between nodes (ours: reached)", "GB/s", 1e-9, y->inter_bytes_per_s, "node",
          "inter_node_bw", true },
    };
    for (size_t i = 0; i < sizeof side / sizeof *side; i++) {
        double them = theirs(d, side + i), us = side[i].ours;
        if (isnan(them) || (side[i].node && !node)) continue;
        if (!(us > 0) && !(them > 0)) continue;
        bool close = us > 0 && fabs(us / them - 1) <= 0.01;
        count[us > 0 ? !close : 2]++;
        if (close) continue;
        acc_say(w, "| %s | %s | %s | %.4g | ", file, h->sys.name ? h->sys.name : g->name,
                side[i].what, them * side[i].scale);
        if (us > 0)
            acc_say(w, "%.4g | %s | %+.1f %% |\n", us * side[i].scale, side[i].unit,
                    100 * (us / them - 1));
        else
            acc_say(w, "- | %s | not given |\n", side[i].unit);
    }
}

void acc_hardware(struct acc *w)
{
    int count[3] = { 0 };
    acc_say(w,
            "\n## Hardware catalog against AIConfigurator's specifications\n\nDifferences beyond "
            "1 %%. Ours of memory is what frameworks can use, theirs the nominal size; ours "
            "between nodes is what is reached, theirs the line rate.\n\n"
            "| file | ours | what | theirs | ours | unit | difference |\n"
            "|---|---|---|---:|---:|---|---:|\n");
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        struct arena a;
        struct err e = { 0 };
        struct hw h;
        struct doc *d;
        arena_init(&a);
        const char *path = acc_file(w, arena_printf(&w->a, "%s/%s", root, specs[i].file));
        if (!path) continue;
        if (!specs[i].name)
            acc_summary(w, arena_printf(&w->a, "%s/%s", root, specs[i].file), "-", NULL, 1,
                        "not modelled: not in the catalog");
        else if (doc_read_yaml(&a, path, &d, &e) != ST_OK ||
                 hw_load(specs[i].name, NULL, 1, &a, &h, &e) != ST_OK)
            acc_say(w, "| %s | %s | | | | | %s |\n", specs[i].file, specs[i].name, e.text);
        else
            compare(w, specs[i].file, &h, d, specs[i].node, count);
        arena_release(&a);
    }
    acc_say(w, "\n%d figures within 1 %%, %d differ, %d are missing on our side.\n", count[0],
            count[1], count[2]);
    acc_summary(w, root,
                arena_printf(&w->a, "figures; %d within 1 %%, %d differ, %d missing here", count[0],
                             count[1], count[2]),
                NULL, (size_t)(count[0] + count[1] + count[2]), "spec sheets, no error");
}
