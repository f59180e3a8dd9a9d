/* model/topo.c - the draft of a topology, what joins its devices, and the reading of a file of any
 * known format. SPDX-License-Identifier: Apache-2.0 */
#include "model/topo.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/doc.h"
#include "model/topo_in.h"

enum { NOTE_BYTES = 512, MAX_NOTE = 32 };

const char *topo_link_word(enum topo_link kind)
{
    static const char *const word[] = { "self", "NVLink", "PIX", "PXB",
                                        "PHB",  "NODE",   "SYS", "unknown" };
    return (unsigned)kind <= TOPO_UNKNOWN ? word[kind] : word[TOPO_UNKNOWN];
}

/* ---- the draft */

void topo_draft_init(struct topo_draft *d, struct arena *a, struct topo *t, int free_hops)
{
    *t = (struct topo){ 0 };
    *d = (struct topo_draft){ .a = a, .t = t, .free_hops = free_hops };
    t->gpu = arena_array(a, TOPO_MAX_GPU, sizeof *t->gpu);
    t->nic = arena_array(a, TOPO_MAX_NIC, sizeof *t->nic);
    t->note = arena_array(a, MAX_NOTE, sizeof *t->note);
    t->storage_source = "not measured";
    d->gpu_node = arena_array(a, TOPO_MAX_GPU, sizeof *d->gpu_node);
    d->nic_node = arena_array(a, TOPO_MAX_NIC, sizeof *d->nic_node);
}

int topo_add_node(struct topo_draft *d, int parent, enum topo_node_kind kind, int numa)
{
    if (d->n_node == TOPO_MAX_NODE) return -1;
    if (d->n_node == d->cap_node) {
        int cap = d->cap_node ? 2 * d->cap_node : 256;
        struct topo_node *more = arena_array(d->a, (size_t)cap, sizeof *more);
        if (d->n_node) memcpy(more, d->node, (size_t)d->n_node * sizeof *more);
        d->node = more;
        d->cap_node = cap;
    }
    int depth = parent >= 0 ? d->node[parent].depth + 1 : 0;
    d->node[d->n_node] = (struct topo_node){ parent, depth, kind, numa };
    return d->n_node++;
}

struct topo_gpu *topo_add_gpu(struct topo_draft *d, int node)
{
    struct topo *t = d->t;
    if (t->n_gpu == TOPO_MAX_GPU) return NULL;
    t->gpu[t->n_gpu] = (struct topo_gpu){ .index = t->n_gpu, .numa = -1 };
    d->gpu_node[t->n_gpu] = node;
    return &t->gpu[t->n_gpu++];
}

struct topo_nic *topo_add_nic(struct topo_draft *d, int node)
{
    struct topo *t = d->t;
    if (t->n_nic == TOPO_MAX_NIC) return NULL;
    t->nic[t->n_nic] = (struct topo_nic){ .numa = -1, .near_gpu = -1 };
    d->nic_node[t->n_nic] = node;
    return &t->nic[t->n_nic++];
}

void topo_note(struct topo *t, struct arena *a, const char *fmt, ...)
{
    char text[NOTE_BYTES];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    for (int i = 0; i < t->n_note; i++)
        if (strcmp(t->note[i], text) == 0) return;
    if (t->n_note < MAX_NOTE) t->note[t->n_note++] = arena_copy_text(a, text, strlen(text));
}

/* ---- ways through the tree */

int topo_numa_of(const struct topo_draft *d, int node)
{
    for (; node >= 0; node = d->node[node].parent)
        if (d->node[node].kind == TOPO_CPU && d->node[node].numa >= 0) return d->node[node].numa;
    return -1;
}

static int common_ancestor(const struct topo_draft *d, int x, int y)
{
    while (x != y && x >= 0 && y >= 0) {
        if (d->node[x].depth >= d->node[y].depth)
            x = d->node[x].parent;
        else
            y = d->node[y].parent;
    }
    return x == y ? x : -1;
}

/* Switches strictly between a node and one above it; host tells of a host bridge there. */
static int hops_below(const struct topo_draft *d, int node, int top, bool *host)
{
    int n = 0;
    for (node = d->node[node].parent; node != top && node >= 0; node = d->node[node].parent) {
        n += d->node[node].kind == TOPO_SWITCH;
        *host |= d->node[node].kind == TOPO_HOST;
    }
    return n;
}

enum topo_link topo_path(const struct topo_draft *d, int x, int y)
{
    if (x < 0 || y < 0) return TOPO_UNKNOWN;
    if (x == y) return TOPO_SELF;
    int top = common_ancestor(d, x, y), nx = topo_numa_of(d, x), ny = topo_numa_of(d, y);
    bool host = false;
    int hx = top >= 0 ? hops_below(d, x, top, &host) : 0;
    int hy = top >= 0 ? hops_below(d, y, top, &host) : 0;
    enum topo_node_kind kind = top >= 0 ? d->node[top].kind : TOPO_CPU;
    if (kind == TOPO_DEVICE) return TOPO_PIX;
    if (kind == TOPO_SWITCH) return hx <= d->free_hops && hy <= d->free_hops ? TOPO_PIX : TOPO_PXB;
    if (kind == TOPO_HOST) return TOPO_PHB;
    if (nx >= 0 && ny >= 0) return nx != ny ? TOPO_SYS : host ? TOPO_NODE : TOPO_PHB;
    return top > 0 ? TOPO_NODE : TOPO_UNKNOWN;
}

/* ---- what follows from the draft */

static void make_pairs(struct topo_draft *d)
{
    struct topo *t = d->t;
    int n = t->n_gpu;
    t->pair = arena_array(d->a, (size_t)n * (size_t)n, sizeof *t->pair);
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < n; j++) {
            struct topo_pair *p = &t->pair[i * n + j];
            p->pcie = i == j ? TOPO_SELF : topo_path(d, d->gpu_node[i], d->gpu_node[j]);
            if (i != j && d->pcie && d->pcie[i * n + j] != TOPO_UNKNOWN)
                p->pcie = d->pcie[i * n + j];
            p->kind = p->pcie;
            if (i == j || !d->nv || !d->nv[i * n + j].n_link) continue;
            p->kind = TOPO_NVLINK;
            p->n_nvlink = d->nv[i * n + j].n_link;
            p->switched = d->nv[i * n + j].switched;
            p->bytes_per_s = d->nv[i * n + j].bytes_per_s;
            if (p->bytes_per_s > 0) p->source = "NVLink rate given by the description";
        }
    }
}

int topo_finish(struct topo_draft *d, struct err *e)
{
    struct topo *t = d->t;
    make_pairs(d);
    for (int i = 0; i < t->n_gpu; i++)
        if (t->gpu[i].numa < 0) t->gpu[i].numa = topo_numa_of(d, d->gpu_node[i]);
    for (int k = 0; k < t->n_nic; k++) {
        struct topo_nic *c = &t->nic[k];
        if (c->numa < 0) c->numa = topo_numa_of(d, d->nic_node[k]);
        c->to_gpu = arena_array(d->a, (size_t)t->n_gpu, sizeof *c->to_gpu);
        for (int i = 0; i < t->n_gpu; i++)
            c->to_gpu[i] = topo_path(d, d->nic_node[k], d->gpu_node[i]);
    }
    return topo_complete(t, d->a, e);
}

static double least(double x, double y)
{
    return x < y ? x : y;
}

static void rate_of_pair(struct topo *t, struct topo_pair *p, int i, int j, struct arena *a)
{
    const struct topo_gpu *x = &t->gpu[i], *y = &t->gpu[j];
    if (p->kind == TOPO_NVLINK) {
        double link = least(x->nvlink_bytes_per_s, y->nvlink_bytes_per_s);
        if (p->bytes_per_s > 0) return;
        p->bytes_per_s = p->n_nvlink * link;
        p->source = link > 0 ? arena_printf(a, "%d NVLinks of %g GB/s a direction (datasheet)%s",
                                            p->n_nvlink, link / 1e9,
                                            p->switched ? ", through NVSwitch" : "")
                             : "the GPU and so its NVLink generation is not named";
        return;
    }
    p->bytes_per_s = least(x->pcie_bytes_per_s, y->pcie_bytes_per_s);
    if (p->bytes_per_s <= 0)
        p->source = "PCIe generation and width are not said";
    else if (p->kind <= TOPO_PXB)
        p->source = "PCIe link of the slower GPU; switch ports are shared";
    else if (p->kind == TOPO_SYS)
        p->source =
            "at most the PCIe link of the slower GPU; the link between NUMA nodes may be slower";
    else
        p->source = "at most the PCIe link of the slower GPU; through the processor";
}

static void missing_notes(struct topo *t, struct arena *a)
{
    int unnamed = 0, no_rate = 0;
    for (int i = 0; i < t->n_gpu; i++) {
        unnamed += !t->gpu[i].name;
        no_rate += t->gpu[i].pcie_bytes_per_s <= 0;
    }
    if (unnamed)
        topo_note(t, a, "%d of %d GPUs are not named: say which GPU of the catalog they are",
                  unnamed, t->n_gpu);
    if (no_rate) topo_note(t, a, "the PCIe link of %d of %d GPUs is not said", no_rate, t->n_gpu);
    if (t->n_gpu > 1 && !t->knows_nvlink)
        topo_note(t, a, "NVLink is not described: links are as if there were none");
}

int topo_complete(struct topo *t, struct arena *a, struct err *e)
{
    int st = topo_identify(t, a, e);
    if (st != ST_OK) return st;
    for (int i = 0; i < t->n_gpu; i++) {
        struct topo_gpu *g = &t->gpu[i];
        if (g->nvlink_bytes_per_s <= 0)
            g->nvlink_bytes_per_s = topo_nvlink_rate(g->cc_major, g->cc_minor);
        if (g->pcie_bytes_per_s <= 0)
            g->pcie_bytes_per_s = g->pcie_gen_max > 0
                                      ? topo_pcie_rate(g->pcie_gen_max, g->pcie_width_max)
                                      : topo_pcie_rate(g->pcie_gen, g->pcie_width);
    }
    for (int i = 0; i < t->n_gpu; i++)
        for (int j = 0; j < t->n_gpu; j++)
            if (i != j) rate_of_pair(t, &t->pair[i * t->n_gpu + j], i, j, a);
    for (int k = 0; k < t->n_nic; k++) {
        struct topo_nic *c = &t->nic[k];
        for (int i = 0; i < t->n_gpu; i++)
            if (c->near_gpu < 0 || c->to_gpu[i] < c->to_gpu[c->near_gpu]) c->near_gpu = i;
    }
    missing_notes(t, a);
    return ST_OK;
}

/* ---- files */

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Comments, the declaration and the document type stand before the element that tells. NULL: no
 * element at all. */
static const char *first_element(const char *p)
{
    for (;;) {
        p = strchr(p, '<');
        if (!p) return NULL;
        if (strncmp(p, "<!--", 4) == 0) {
            p = strstr(p, "-->");
            if (!p) return NULL;
        } else if (p[1] != '?' && p[1] != '!') {
            return p + 1;
        } else {
            p++;
        }
    }
}

static bool is_element(const char *p, const char *tag)
{
    size_t n = strlen(tag);
    return p && strncmp(p, tag, n) == 0 && (strchr(" \t\r\n/>", p[n]) != NULL);
}

static int read_bytes(struct topo_draft *d, const char *path, const char *text, size_t n,
                      struct err *e)
{
    struct topo *t = d->t;
    const char *name = topo_text(d->a, base_name(path)), *p = text;
    if (n >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0) p += 3;
    while (*p && strchr(" \t\r\n", *p)) p++;
    if (*p == '<') {
        const char *tag = first_element(p);
        bool nccl = is_element(tag, "system"),
             hwloc = is_element(tag, "topology") || is_element(tag, "root");
        if (!nccl && !hwloc)
            return err_set(e, ST_USAGE,
                           "%s: XML whose first element is neither <system> (NCCL) nor "
                           "<topology> (hwloc)",
                           path);
        t->source = arena_printf(d->a, "%s XML %s", nccl ? "NCCL" : "hwloc", name);
        d->free_hops = hwloc;
        int st =
            nccl ? topo_parse_nccl(d, path, text, n, e) : topo_parse_hwloc(d, path, text, n, e);
        return st == ST_OK ? topo_finish(d, e) : st;
    }
    t->source = arena_printf(d->a, "nvidia-smi topo text %s", name);
    int st = topo_parse_smi(d, path, text, n, e);
    return st == ST_OK ? topo_complete(t, d->a, e) : st;
}

int topo_read(const char *path, struct arena *a, struct topo *t, struct err *e)
{
    struct topo_draft d;
    char *text;
    size_t n;
    assert(path && a && t);
    topo_draft_init(&d, a, t, 0);
    int st = doc_read_bytes(a, path, TOPO_MAX_BYTES, &text, &n, e);
    if (st != ST_OK) return st;
    if (memchr(text, 0, n)) return err_set(e, ST_USAGE, "%s: a zero byte: this is no text", path);
    return read_bytes(&d, path, text, n, e);
}
