/* model/topo_names.c - which GPU is it: PCI ids, reported names, entries of the catalog, link
 * generations. SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/topo_in.h"

enum { NAME = 96, NVIDIA = 0x10de, AMD = 0x1002 };

/* Names as the driver reports them, by device id: "Supported NVIDIA GPU products" of the Linux
 * driver's README (580) and the PCI ID repository (2023-04). The third column: compute capability
 * in tenths. */
static const struct pci_row {
    unsigned vendor, device;
    const char *name;
    int cc;
} pci_rows[] = {
    { NVIDIA, 0x15f7, "Tesla P100-PCIE-12GB", 60 },
    { NVIDIA, 0x15f8, "Tesla P100-PCIE-16GB", 60 },
    { NVIDIA, 0x15f9, "Tesla P100-SXM2-16GB", 60 },
    { NVIDIA, 0x1db1, "Tesla V100-SXM2-16GB", 70 },
    { NVIDIA, 0x1db4, "Tesla V100-PCIE-16GB", 70 },
    { NVIDIA, 0x1db5, "Tesla V100-SXM2-32GB", 70 },
    { NVIDIA, 0x1db6, "Tesla V100-PCIE-32GB", 70 },
    { NVIDIA, 0x1db8, "Tesla V100-SXM3-32GB", 70 },
    { NVIDIA, 0x1df6, "Tesla V100S-PCIE-32GB", 70 },
    { NVIDIA, 0x1eb8, "Tesla T4", 75 },
    { NVIDIA, 0x20b0, "NVIDIA A100-SXM4-40GB", 80 },
    { NVIDIA, 0x20b2, "NVIDIA A100-SXM4-80GB", 80 },
    { NVIDIA, 0x20b3, "NVIDIA A100-SXM-64GB", 80 },
    { NVIDIA, 0x20b5, "NVIDIA A100 80GB PCIe", 80 },
    { NVIDIA, 0x20b7, "NVIDIA A30", 80 },
    { NVIDIA, 0x20bd, "NVIDIA A800-SXM4-40GB", 80 },
    { NVIDIA, 0x20f1, "NVIDIA A100-PCIE-40GB", 80 },
    { NVIDIA, 0x20f3, "NVIDIA A800-SXM4-80GB", 80 },
    { NVIDIA, 0x20f5, "NVIDIA A800 80GB PCIe", 80 },
    { NVIDIA, 0x2203, "NVIDIA GeForce RTX 3090 Ti", 86 },
    { NVIDIA, 0x2204, "NVIDIA GeForce RTX 3090", 86 },
    { NVIDIA, 0x2230, "NVIDIA RTX A6000", 86 },
    { NVIDIA, 0x2235, "NVIDIA A40", 86 },
    { NVIDIA, 0x2236, "NVIDIA A10", 86 },
    { NVIDIA, 0x2237, "NVIDIA A10G", 86 },
    { NVIDIA, 0x2321, "NVIDIA H100 NVL", 90 },
    { NVIDIA, 0x2322, "NVIDIA H800 PCIe", 90 },
    { NVIDIA, 0x2324, "NVIDIA H800", 90 },
    { NVIDIA, 0x2329, "NVIDIA H20", 90 },
    { NVIDIA, 0x232c, "NVIDIA H20-3e", 90 },
    { NVIDIA, 0x2330, "NVIDIA H100 80GB HBM3", 90 },
    { NVIDIA, 0x2331, "NVIDIA H100 PCIe", 90 },
    { NVIDIA, 0x2335, "NVIDIA H200", 90 },
    { NVIDIA, 0x233b, "NVIDIA H200 NVL", 90 },
    { NVIDIA, 0x2342, "NVIDIA GH200 480GB", 90 },
    { NVIDIA, 0x2348, "NVIDIA GH200 144G HBM3e", 90 },
    { NVIDIA, 0x2684, "NVIDIA GeForce RTX 4090", 89 },
    { NVIDIA, 0x2685, "NVIDIA GeForce RTX 4090 D", 89 },
    { NVIDIA, 0x26b1, "NVIDIA RTX 6000 Ada Generation", 89 },
    { NVIDIA, 0x26b5, "NVIDIA L40", 89 },
    { NVIDIA, 0x26b9, "NVIDIA L40S", 89 },
    { NVIDIA, 0x27b8, "NVIDIA L4", 89 },
    { NVIDIA, 0x2901, "NVIDIA B200", 100 },
    { NVIDIA, 0x2941, "NVIDIA GB200", 100 },
    { NVIDIA, 0x2b85, "NVIDIA GeForce RTX 5090", 120 },
    { NVIDIA, 0x2b87, "NVIDIA GeForce RTX 5090 D", 120 },
    { NVIDIA, 0x2bb1, "NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 120 },
    { NVIDIA, 0x2bb5, "NVIDIA RTX PRO 6000 Blackwell Server Edition", 120 },
    { NVIDIA, 0x3182, "NVIDIA B300 SXM6 AC", 103 },
    { NVIDIA, 0x31c2, "NVIDIA GB300", 103 },
    { AMD, 0x7408, "AMD Instinct MI250X", 0 },
    { AMD, 0x740c, "AMD Instinct MI250X/MI250", 0 },
    { AMD, 0x74a1, "AMD Instinct MI300X", 0 },
    { AMD, 0x74a5, "AMD Instinct MI325X", 0 },
};

/* Reported names in canonical words (see canonical()) and memory in GiB as sold. alt: another
 * number that the name may carry: of a GH200 it is the processor's memory. Exact: a word more is
 * another part. */
static const struct alias {
    const char *words;
    int gib, alt, cc;
    const char *catalog;
} aliases[] = {
    { "t4", 16, 0, 75, "t4" },
    { "v100 sxm2", 16, 0, 70, "v100-16gb" },
    { "v100 sxm2", 32, 0, 70, "v100-32gb" },
    { "v100 sxm3", 32, 0, 70, "v100-32gb" },
    { "a10", 24, 0, 86, "a10" },
    { "a30", 24, 0, 80, "a30" },
    { "a40", 48, 0, 86, "a40" },
    { "rtx a6000", 48, 0, 86, "rtx-a6000" },
    { "l4", 24, 0, 89, "l4" },
    { "l40s", 48, 0, 89, "l40s" },
    { "a100 pcie", 40, 0, 80, "a100-pcie-40gb" },
    { "a100 pcie", 80, 0, 80, "a100-pcie-80gb" },
    { "a100 sxm", 40, 0, 80, "a100-sxm-40gb" },
    { "a100 sxm4", 40, 0, 80, "a100-sxm-40gb" },
    { "a100 sxm", 80, 0, 80, "a100-sxm-80gb" },
    { "a100 sxm4", 80, 0, 80, "a100-sxm-80gb" },
    { "h100 pcie", 80, 0, 90, "h100-pcie" },
    { "h100 80gb hbm3", 80, 0, 90, "h100-sxm" },
    { "h100 sxm", 80, 0, 90, "h100-sxm" },
    { "h100 sxm5", 80, 0, 90, "h100-sxm" },
    { "h100 nvl", 94, 0, 90, "h100-nvl" },
    { "h200", 141, 0, 90, "h200-sxm" },
    { "h200 sxm", 141, 0, 90, "h200-sxm" },
    { "h20", 96, 0, 90, "h20" },
    { "gh200", 96, 480, 90, "gh200-96gb" },
    { "gh200", 96, 120, 90, "gh200-96gb" },
    { "b100", 192, 0, 100, "b100" },
    { "b200", 180, 0, 100, "b200-sxm" },
    { "b200 sxm", 180, 0, 100, "b200-sxm" },
    { "gb200", 186, 0, 100, "gb200" },
    { "b300", 288, 0, 103, "b300-sxm" },
    { "b300 sxm", 288, 0, 103, "b300-sxm" },
    { "b300 sxm6 ac", 288, 0, 103, "b300-sxm" },
    { "gb300", 288, 0, 103, "gb300" },
    { "mi250x", 64, 0, 0, "mi250x-gcd" },
    { "mi250x mi250", 64, 0, 0, "mi250x-gcd" },
    { "mi250x gcd", 64, 0, 0, "mi250x-gcd" },
    { "mi300x", 192, 0, 0, "mi300x" },
    { "mi300x oam", 192, 0, 0, "mi300x" },
    { "mi325x", 256, 0, 0, "mi325x" },
    { "mi325x oam", 256, 0, 0, "mi325x" },
    { "rtx 4090", 24, 0, 89, "rtx-4090" },
    { "rtx 5090", 32, 0, 120, "rtx-5090" },
    { "rtx pro 6000 blackwell server edition", 96, 0, 120, "rtx-pro-6000" },
};

const char *topo_pci_name(unsigned vendor, unsigned device, int *cc)
{
    for (size_t i = 0; i < sizeof pci_rows / sizeof *pci_rows; i++) {
        if (pci_rows[i].vendor != vendor || pci_rows[i].device != device) continue;
        if (cc) *cc = pci_rows[i].cc;
        return pci_rows[i].name;
    }
    return NULL;
}

/* Classes: 0300 VGA, 0302 3D, 0380 display, 1200 processing accelerator. An AMD device of class
 * 0300 is a desktop card or the graphics of a processor; a VGA controller of neither maker is the
 * console of a server. */
bool topo_pci_is_gpu(unsigned class_id, unsigned vendor)
{
    unsigned c = class_id > 0xffff ? class_id >> 8 : class_id;
    if (vendor == AMD) return c == 0x0302 || c == 0x0380 || c == 0x1200;
    return (vendor == NVIDIA || vendor == 0) && (c == 0x0302 || c == 0x0300);
}

bool topo_pci_is_nic(unsigned class_id)
{
    unsigned c = class_id > 0xffff ? class_id >> 8 : class_id;
    return c == 0x0200 || c == 0x0207 || c == 0x0208;
}

/* ---- link generations */

/* Datasheets: P100 4 x 20 GB/s a direction; V100 6 x 25; A100 12 x 25; A40, A6000, RTX 3090 4
 * x 14.0625; H100 18 x 25; B200 18 x 50. */
double topo_nvlink_rate(int cc_major, int cc_minor)
{
    switch (cc_major) {
    case 6: return 20e9;
    case 7: return cc_minor == 0 ? 25e9 : 0;
    case 8: return cc_minor == 0 ? 25e9 : cc_minor == 6 ? 14.0625e9 : 0;
    case 9: return 25e9;
    case 10: return 50e9;
    default: return 0;
    }
}

/* Transfers a second and lane times the line code: 8b/10b, from generation 3 128b/130b, 6 is 242 of
 * 256 bytes a flit. */
double topo_pcie_rate(int gen, int width)
{
    static const double lane[] = { 0,
                                   0.25e9,
                                   0.5e9,
                                   8e9 / 8 * 128 / 130,
                                   16e9 / 8 * 128 / 130,
                                   32e9 / 8 * 128 / 130,
                                   64e9 / 8 * 242 / 256 };
    if (gen < 1 || gen > 6 || width < 1 || width > 32) return 0;
    return lane[gen] * width;
}

int topo_pcie_gen(double gt_per_s)
{
    static const double rate[] = { 2.5, 5, 8, 16, 32, 64 };
    for (int i = 0; i < 6; i++)
        if (gt_per_s > rate[i] * 0.99 && gt_per_s < rate[i] * 1.01) return i + 1;
    return 0;
}

/* ---- names */

struct canon {
    char words[NAME];
    int gb; /* a number of gigabytes in the name; 0 none */
    bool mig;
};

static bool is_dropped(const char *w)
{
    static const char *const drop[] = { "nvidia", "tesla", "geforce", "amd",  "instinct",
                                        "hbm2",   "hbm2e", "hbm3",    "hbm3e" };
    for (size_t i = 0; i < sizeof drop / sizeof *drop; i++)
        if (strcmp(w, drop[i]) == 0) return true;
    return false;
}

/* "40gb", "144g", but not "3e" or "1g5gb". */
static int gigabytes(const char *w)
{
    char *end;
    if (!isdigit((unsigned char)*w)) return 0;
    long n = strtol(w, &end, 10);
    return n > 0 && n < 10000 && (strcmp(end, "gb") == 0 || strcmp(end, "g") == 0) ? (int)n : 0;
}

/* Lower-case words without the maker, the brand, memory types and sizes; false: longer than any
 * known name. */
static bool canonical(const char *name, struct canon *c)
{
    size_t used = 0;
    *c = (struct canon){ 0 };
    for (const char *p = name; *p;) {
        char w[NAME];
        size_t n = 0;
        while (*p && !isalnum((unsigned char)*p)) p++;
        for (; isalnum((unsigned char)*p); p++) {
            if (n + 1 >= sizeof w) return false;
            w[n++] = (char)tolower((unsigned char)*p);
        }
        w[n] = 0;
        if (!n || is_dropped(w)) continue;
        if (strcmp(w, "mig") == 0) c->mig = true;
        int gb = gigabytes(w);
        if (gb && !c->gb) {
            c->gb = gb;
            continue;
        }
        if (used + n + 2 > sizeof c->words) return false;
        used +=
            (size_t)snprintf(c->words + used, sizeof c->words - used, "%s%s", used ? " " : "", w);
    }
    return used > 0;
}

/* The usable memory is below the nominal one (ECC, the driver's own) by up to 12 %, or is rounded
 * up. */
static bool fits(double mem_bytes, int gib)
{
    double n = mem_bytes / (double)(1 << 30);
    return mem_bytes <= 0 || (n > 0.88 * gib && n < 1.03 * gib);
}

/* An H100 of 80 GB with HBM3 is the SXM part and says so by its memory type alone, which
 * canonical() drops. */
static const char *special(const char *name, const struct canon *c)
{
    if (strcmp(c->words, "h100") == 0 && c->gb == 80 && strstr(name, "HBM3") &&
        !strstr(name, "HBM3e"))
        return "h100 80gb hbm3";
    return c->words;
}

static const struct alias *find_alias(const char *name, double mem_bytes)
{
    struct canon c;
    const struct alias *found = NULL;
    if (!canonical(name, &c) || c.mig) return NULL;
    const char *words = special(name, &c);
    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++) {
        const struct alias *r = &aliases[i];
        if (strcmp(r->words, words) != 0 || !fits(mem_bytes, r->gib)) continue;
        if (c.gb && c.gb != r->gib && c.gb != r->alt) continue;
        if (found && strcmp(found->catalog, r->catalog) != 0) return NULL;
        found = r;
    }
    return found;
}

/* Entries that the aliases do not know, such as the user's: the reported name is the entry's name
 * or title. NULL also where two entries answer to it. */
static const char *find_entry(const char *name, double mem_bytes, const struct hw_gpu *gpus, int n)
{
    struct canon c, x;
    const char *found = NULL;
    if (!canonical(name, &c) || c.mig) return NULL;
    for (int i = 0; i < n; i++) {
        const char *text[] = { gpus[i].name, gpus[i].title };
        for (int k = 0; k < 2; k++) {
            if (!canonical(text[k], &x) || strcmp(x.words, c.words) != 0) continue;
            if (c.gb && x.gb && c.gb != x.gb) continue;
            double ratio = mem_bytes > 0 ? mem_bytes / gpus[i].mem_bytes : 1;
            if (ratio < 0.88 || ratio > 1.14 || found == gpus[i].name) continue;
            if (found) return NULL;
            found = gpus[i].name;
        }
    }
    return found;
}

static int load(struct arena *a, struct hw_gpu **gpus, int *n, struct err *e)
{
    struct hw_system *systems;
    int n_system;
    return *gpus ? ST_OK : hw_list(a, gpus, n, &systems, &n_system, e);
}

static int match(const char *name, double mem_bytes, struct arena *a, struct hw_gpu **gpus, int *n,
                 struct topo_gpu *g, struct err *e)
{
    const struct alias *r = find_alias(name, mem_bytes);
    g->catalog = r ? r->catalog : NULL;
    if (r) {
        if (!g->cc_major) {
            g->cc_major = r->cc / 10;
            g->cc_minor = r->cc % 10;
        }
        return ST_OK;
    }
    int st = load(a, gpus, n, e);
    if (st == ST_OK) g->catalog = find_entry(name, mem_bytes, *gpus, *n);
    return st;
}

int topo_match(const char *reported, double mem_bytes, struct arena *a, const char **catalog,
               struct err *e)
{
    struct hw_gpu *gpus = NULL;
    struct topo_gpu g = { 0 };
    int n = 0;
    assert(reported && a && catalog);
    int st = match(reported, mem_bytes, a, &gpus, &n, &g, e);
    *catalog = st == ST_OK ? g.catalog : NULL;
    return st;
}

int topo_identify(struct topo *t, struct arena *a, struct err *e)
{
    struct hw_gpu *gpus = NULL;
    int n = 0, st = ST_OK;
    for (int i = 0; i < t->n_gpu && st == ST_OK; i++) {
        struct topo_gpu *g = &t->gpu[i];
        const struct topo_gpu *before = i ? g - 1 : NULL;
        if (!g->name || g->mig) continue;
        if (before && before->name && !before->mig && strcmp(g->name, before->name) == 0 &&
            g->mem_bytes == before->mem_bytes) {
            g->catalog = before->catalog;
            if (!g->cc_major) g->cc_major = before->cc_major, g->cc_minor = before->cc_minor;
            continue;
        }
        st = match(g->name, g->mem_bytes, a, &gpus, &n, g, e);
        if (st == ST_OK && !g->catalog)
            topo_note(
                t, a,
                "the catalog has no '%s': name the GPU that stands for it, or describe it in a "
                "hardware file (gpu: {mem: ..., mem_rate: ..., flops: {...}})",
                g->name);
    }
    return st;
}
