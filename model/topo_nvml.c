/* model/topo_nvml.c - what NVML says of the GPUs of this machine, in place of what the PCI tree
 * alone says.
 * SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "model/topo_in.h"

enum { NAME_BYTES = 96, PEER_GPU = 0, PEER_SWITCH = 2 };

/* A call that an old driver lacks has failed. */
#define ASK(v, fn, ...) ((v)->fn ? (v)->fn(__VA_ARGS__) : -1)

static unsigned asked(int (*fn)(void *, unsigned *), void *dev)
{
    unsigned v = 0;
    return fn && fn(dev, &v) == 0 ? v : 0;
}

/* Total less what the driver keeps, as a program sees it; the old call has no reserve and gives
 * the total. */
static double usable_memory(const struct topo_nvml *v, void *dev)
{
    struct topo_nvml_memory_v2 m = { .version = (unsigned)sizeof m | 2u << 24 };
    struct topo_nvml_memory old = { 0 };
    if (ASK(v, memory_v2, dev, &m) == 0 && m.total > m.reserved)
        return (double)(m.total - m.reserved);
    return ASK(v, memory, dev, &old) == 0 ? (double)old.total : 0;
}

static void describe(const struct topo_nvml *v, void *dev, struct topo_gpu *g, struct arena *a)
{
    char name[NAME_BYTES + 1] = "";
    struct topo_nvml_pci pci = { 0 };
    unsigned on = 0, pending = 0;
    int major = 0, minor = 0;
    if (ASK(v, name, dev, name, NAME_BYTES) == 0) g->name = topo_text(a, name);
    if (ASK(v, pci, dev, &pci) == 0) {
        pci.bus_id[sizeof pci.bus_id - 1] = 0;
        g->bus_id = topo_bus_id(a, pci.bus_id);
    }
    if (ASK(v, cc, dev, &major, &minor) == 0) {
        g->cc_major = major;
        g->cc_minor = minor;
    }
    g->mem_bytes = usable_memory(v, dev);
    g->pcie_gen = (int)asked(v->gen, dev);
    g->pcie_width = (int)asked(v->width, dev);
    g->pcie_gen_max = (int)asked(v->max_gen, dev);
    g->pcie_width_max = (int)asked(v->max_width, dev);
    g->power_limit_w = asked(v->power_limit, dev) / 1000.0;
    g->mig = ASK(v, mig, dev, &on, &pending) == 0 && on == 1;
}

/* nvmlGpuTopologyLevel_t */
static enum topo_link pcie_link(int level)
{
    switch (level) {
    case 0:
    case 10: return TOPO_PIX; /* 0: two GPUs on one board */
    case 20: return TOPO_PXB;
    case 30: return TOPO_PHB;
    case 40: return TOPO_NODE;
    case 50: return TOPO_SYS;
    default: return TOPO_UNKNOWN;
    }
}

static int gpu_at(const struct topo *t, const char *bus_id)
{
    for (int i = 0; bus_id && i < t->n_gpu; i++)
        if (t->gpu[i].bus_id && strcmp(t->gpu[i].bus_id, bus_id) == 0) return i;
    return -1;
}

/* Counts the links of GPU i that are up: to each peer, and into switches (*switched). */
static void read_links(const struct topo_nvml *v, void *dev, int i, struct topo_draft *d,
                       int *switched)
{
    struct topo *t = d->t;
    for (unsigned l = 0; l < TOPO_MAX_LINKS; l++) {
        struct topo_nvml_pci pci = { 0 };
        int up = 0, type = -1;
        if (ASK(v, link_state, dev, l, &up) != 0 || !up) continue;
        t->gpu[i].n_nvlink++;
        if (ASK(v, link_remote, dev, l, &pci) != 0) continue;
        pci.bus_id[sizeof pci.bus_id - 1] = 0;
        int peer = gpu_at(t, topo_bus_id(d->a, pci.bus_id));
        bool told = ASK(v, link_type, dev, l, &type) == 0;
        if (peer >= 0 && peer != i)
            d->nv[i * t->n_gpu + peer].n_link++;
        else if (told && type == PEER_SWITCH)
            ++*switched;
        else if (told && type == PEER_GPU)
            topo_note(t, d->a, "an NVLink of GPU %d leads to a GPU that is not visible here", i);
    }
}

static void read_pairs(const struct topo_nvml *v, void *const *dev, struct topo_draft *d)
{
    struct topo *t = d->t;
    int n = t->n_gpu;
    int *into = arena_array(d->a, (size_t)n, sizeof *into);
    d->nv = arena_array(d->a, (size_t)n * (size_t)n, sizeof *d->nv);
    d->pcie = arena_array(d->a, (size_t)n * (size_t)n, sizeof *d->pcie);
    for (int i = 0; i < n * n; i++) d->pcie[i] = TOPO_UNKNOWN;
    for (int i = 0; i < n; i++) {
        if (!dev[i]) continue; /* a GPU of another maker */
        read_links(v, dev[i], i, d, &into[i]);
        for (int j = 0; j < i; j++) {
            int level;
            if (!dev[j] || ASK(v, ancestor, dev[i], dev[j], &level) != 0) continue;
            d->pcie[i * n + j] = d->pcie[j * n + i] = pcie_link(level);
        }
    }
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
            struct topo_nv *p = &d->nv[i * n + j];
            int both = into[i] < into[j] ? into[i] : into[j];
            if (i == j || !both) continue;
            p->n_link += both;
            p->switched = true;
        }
}

struct places { /* of the NVIDIA GPUs that the tree has */
    int n, *node;
    const char **bus;
};

/* Keeps the tree's other GPUs (AMD's), drops its NVIDIA ones: NVML lists those that can be used. */
static struct places drop_nvidia(struct topo_draft *d)
{
    struct topo *t = d->t;
    struct places p = { .node = arena_array(d->a, TOPO_MAX_GPU, sizeof *p.node),
                        .bus = arena_array(d->a, TOPO_MAX_GPU, sizeof *p.bus) };
    int kept = 0;
    for (int i = 0; i < t->n_gpu; i++) {
        if (t->gpu[i].name && strncmp(t->gpu[i].name, "AMD", 3) == 0) {
            t->gpu[kept] = t->gpu[i];
            d->gpu_node[kept++] = d->gpu_node[i];
            continue;
        }
        p.node[p.n] = d->gpu_node[i];
        p.bus[p.n++] = t->gpu[i].bus_id;
    }
    t->n_gpu = kept;
    return p;
}

static void absent(struct topo *t, struct arena *a, const char *why, int on_bus)
{
    if (on_bus)
        topo_note(t, a, "%d NVIDIA GPUs are on the PCI bus, but cannot be used: %s", on_bus, why);
    else if (t->n_gpu == 0)
        topo_note(t, a, "no NVIDIA GPU: %s", why);
}

/* Adds GPU i of NVML; bus and node: the n_tree NVIDIA GPUs of the tree. */
static int add_gpu(const struct topo_nvml *v, unsigned i, struct topo_draft *d, void **dev,
                   const struct places *tree)
{
    struct topo *t = d->t;
    void *h = NULL;
    if (ASK(v, handle, i, &h) != 0) {
        topo_note(t, d->a, "NVML cannot open GPU %u", i);
        return ST_OK;
    }
    struct topo_gpu *g = topo_add_gpu(d, -1);
    if (!g) return ST_DEVICE;
    int at = t->n_gpu - 1;
    g->index = (int)i;
    dev[at] = h;
    describe(v, h, g, d->a);
    for (int k = 0; g->bus_id && k < tree->n; k++)
        if (tree->bus[k] && strcmp(tree->bus[k], g->bus_id) == 0) d->gpu_node[at] = tree->node[k];
    return ST_OK;
}

static int add_all(const struct topo_nvml *v, struct topo_draft *d, const struct places *tree,
                   struct err *e)
{
    struct topo *t = d->t;
    void **dev = arena_array(d->a, TOPO_MAX_GPU, sizeof *dev);
    unsigned n = 0;
    int before = t->n_gpu, st = ST_OK;
    if (ASK(v, count, &n) != 0) n = 0;
    for (unsigned i = 0; i < n && st == ST_OK; i++) st = add_gpu(v, i, d, dev, tree);
    if (st != ST_OK) return err_set(e, st, "more than %d GPUs", TOPO_MAX_GPU);
    t->knows_nvlink = n > 0;
    if (n == 0)
        absent(t, d->a, "NVML lists none", tree->n);
    else if ((int)n < tree->n)
        topo_note(t, d->a, "%d NVIDIA GPUs are on the PCI bus, NVML lists %u", tree->n, n);
    if (t->n_gpu > before) read_pairs(v, dev, d);
    return ST_OK;
}

int topo_add_nvml(struct topo_draft *d, const struct topo_nvml *v, const char *why, struct err *e)
{
    struct places tree = drop_nvidia(d);
    d->t->knows_nvlink = false;
    if (!v) {
        absent(d->t, d->a, why, tree.n);
        return ST_OK;
    }
    int st = v->init ? v->init() : -1;
    if (st != 0) {
        const char *said = v->error ? v->error(st) : NULL;
        absent(d->t, d->a,
               arena_printf(d->a, "NVML does not start (%s)",
                            said ? topo_text(d->a, said) : "no reason given"),
               tree.n);
        return ST_OK;
    }
    st = add_all(v, d, &tree, e);
    if (v->shutdown) (void)v->shutdown();
    return st;
}
