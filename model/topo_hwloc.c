/* model/topo_hwloc.c - hwloc's XML, read here and not by libhwloc, which trusts its input.
 *
 * Objects nest: Machine, Package (before 2.0 Socket), NUMANode, Core, PU; Bridge (0-1 host, 1-1
 * PCI), PCIDev, OSDev. Links between GPUs are a matrix NVLinkBandwidth (XGMIBandwidth) of MB/s a
 * direction, in <distances2hetero> (or <distances2>): indexes "OSDev:802" (or "802"), then values;
 * NVSwitches and processors can be members. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/topo_in.h"

enum { MAX_MEMBER = 512, MAX_TOKEN = 32, OSDEV_NET = 2, OSDEV_RDMA = 3 };

enum object { O_OTHER, O_CPU, O_NUMA, O_BRIDGE, O_PCI, O_OSDEV };

struct frame {
    enum object what;
    int node;
    int gpu;   /* of a PCI device: its GPU, -1 none */
    int osdev; /* of an OS device: its type */
    unsigned class_id;
    const char *name, *id; /* of an OS device; PCI bus id */
    int nics, plain;       /* of a PCI device: RDMA devices and network interfaces under it */
};

/* What a member of a matrix is: gp_index -> GPU or NVSwitch. */
struct member {
    long long gp;
    int gpu; /* -1: a switch */
};

struct hwloc {
    struct topo_draft *d;
    struct frame stack[TOPO_MAX_DEPTH + 2];
    int top;
    struct member *member; /* [MAX_MEMBER] GPUs' devices and NVSwitches seen */
    int n_member;
    bool in_matrix, in_index, in_value, saw_nvml;
    int n_side, n_index, n_value;
    bool is_xgmi;
    int *side;     /* [n_side] index into member, or -1 */
    double *value; /* [n_side][n_side] bytes/s */
    char token[MAX_TOKEN];
    int n_token;
    double machine_bytes;
};

struct reader {
    struct topo_xml xml; /* first: the callbacks get its address */
    struct hwloc h;
};

static struct hwloc *self(struct topo_xml *x)
{
    return &((struct reader *)(void *)x)->h;
}

static double number(const char *text)
{
    double v = text ? strtod(text, NULL) : 0;
    return v > 0 && v < 1e18 ? v : 0;
}

/* The hexadecimal number, of 16 bits, that a text begins with: of "0302 [10de:2330] a1". */
static unsigned hex(const char *text)
{
    unsigned long v = strtoul(text, NULL, 16);
    return v <= 0xffff ? (unsigned)v : 0;
}

/* The one NUMA node of a set such as "0x00000001,0x0": words of 32 bits, highest first; -1 for
 * none or several. */
static int only_bit(const char *set)
{
    int bit = -1;
    if (!set || strstr(set, "...")) return -1;
    for (const char *p = set; p; p = strchr(p, ','), p = p ? p + 1 : NULL) {
        unsigned long v = strtoul(p, NULL, 16);
        if (bit >= 0) bit += 32;
        if (v == 0) continue;
        if (bit >= 0 || (v & (v - 1)) || v > 0xffffffffUL) return -1;
        for (bit = 0; v > 1; v >>= 1) bit++;
    }
    return bit <= 4095 ? bit : -1;
}

static void remember(struct topo_xml *x, const char **attr, int gpu)
{
    struct hwloc *h = self(x);
    const char *gp = topo_xml_get(attr, "gp_index");
    if (!gp) return;
    if (h->n_member == MAX_MEMBER)
        topo_xml_fail(x, ST_USAGE, "more than %d devices with links", MAX_MEMBER);
    else
        h->member[h->n_member++] = (struct member){ strtoll(gp, NULL, 10), gpu };
}

/* ---- objects */

static void open_pci(struct topo_xml *x, struct frame *f, const char **attr)
{
    struct hwloc *h = self(x);
    const char *type = topo_xml_get(attr, "pci_type"), *sub = topo_xml_get(attr, "subtype");
    unsigned vendor = 0, device = 0;
    int cc = 0;
    f->what = O_PCI;
    f->class_id = 0;
    const char *ids = type ? strchr(type, '[') : NULL, *colon = ids ? strchr(ids, ':') : NULL;
    if (type) f->class_id = hex(type);
    if (colon) {
        vendor = hex(ids + 1);
        device = hex(colon + 1);
    }
    f->id = topo_bus_id(h->d->a, topo_xml_get(attr, "pci_busid"));
    f->nics = f->plain = 0;
    if (sub && strcmp(sub, "NVSwitch") == 0) remember(x, attr, -1);
    if (!vendor || !topo_pci_is_gpu(f->class_id, vendor)) return;
    struct topo_gpu *g = topo_add_gpu(h->d, f->node);
    if (!g) {
        topo_xml_fail(x, ST_USAGE, "more than %d GPUs", TOPO_MAX_GPU);
        return;
    }
    f->gpu = h->d->t->n_gpu - 1;
    g->bus_id = f->id;
    g->name = topo_pci_name(vendor, device, &cc);
    g->cc_major = cc / 10;
    g->cc_minor = cc % 10;
    g->pcie_bytes_per_s = number(topo_xml_get(attr, "pci_link_speed")) * 1e9;
}

static void add_nic(struct topo_xml *x, int node, const char *name, bool rdma)
{
    struct topo_nic *n = topo_add_nic(self(x)->d, node);
    if (!n) {
        topo_xml_fail(x, ST_USAGE, "more than %d NICs", TOPO_MAX_NIC);
        return;
    }
    n->name = name ? name : "?";
    n->rdma = rdma;
}

static void open_osdev(struct topo_xml *x, struct frame *f, const char **attr)
{
    struct hwloc *h = self(x);
    const char *name = topo_xml_get(attr, "name"), *sub = topo_xml_get(attr, "subtype");
    f->what = O_OSDEV;
    f->osdev = topo_int(topo_xml_get(attr, "osdev_type"), 10, 0, 63, -1);
    f->name = name ? topo_text(h->d->a, name) : "?";
    bool nvml = strncmp(f->name, "nvml", 4) == 0 || (sub && strcmp(sub, "NVML") == 0);
    bool rsmi = strncmp(f->name, "rsmi", 4) == 0 || (sub && strcmp(sub, "RSMI") == 0);
    h->saw_nvml |= nvml || rsmi;
    if (f->gpu >= 0 && (nvml || rsmi)) {
        const char *digit = f->name + strcspn(f->name, "0123456789");
        remember(x, attr, f->gpu);
        h->d->t->gpu[f->gpu].index = topo_int(digit, 10, 0, 1 << 16, h->d->t->gpu[f->gpu].index);
    }
    struct frame *pci = &h->stack[h->top];
    if (pci->what != O_PCI || pci->gpu >= 0) return;
    if (f->osdev == OSDEV_RDMA) {
        pci->nics++;
        add_nic(x, f->node, f->name, true);
    } else if (f->osdev == OSDEV_NET) {
        if (!pci->plain++) pci->name = f->name;
    }
}

/* An RDMA device has network interfaces beside it: they are the same NIC. Without any name the
 * class tells. */
static void close_pci(struct topo_xml *x, const struct frame *f)
{
    if (f->gpu >= 0 || f->nics) return;
    if (f->plain || topo_pci_is_nic(f->class_id))
        add_nic(x, f->node, f->plain ? f->name : f->id, f->class_id == 0x0207);
}

static void open_cpu(struct topo_xml *x, struct frame *f, const char *type, const char **attr)
{
    struct hwloc *h = self(x);
    struct topo *t = h->d->t;
    bool is_numa = strcmp(type, "NUMANode") == 0 || strcmp(type, "Node") == 0;
    int numa = only_bit(topo_xml_get(attr, "nodeset"));
    f->what = O_CPU;
    if (is_numa) {
        f->what = O_NUMA;
        t->n_numa++;
        if (numa < 0) numa = topo_int(topo_xml_get(attr, "os_index"), 10, 0, 4095, -1);
        t->mem_bytes += number(topo_xml_get(attr, "local_memory"));
    }
    t->n_socket += strcmp(type, "Package") == 0 || strcmp(type, "Socket") == 0;
    t->n_core += strcmp(type, "Core") == 0;
    t->n_thread += strcmp(type, "PU") == 0;
    if (strcmp(type, "Machine") == 0) h->machine_bytes = number(topo_xml_get(attr, "local_memory"));
    f->node = topo_add_node(h->d, f->node, TOPO_CPU, numa);
    if (f->node < 0) topo_xml_fail(x, ST_USAGE, "more than %d objects", TOPO_MAX_NODE);
}

static void open_object(struct topo_xml *x, struct frame *f, const char **attr)
{
    struct hwloc *h = self(x);
    const char *type = topo_xml_get(attr, "type");
    if (!type) {
        topo_xml_fail(x, ST_USAGE, "<object> without a type");
        return;
    }
    bool bridge = strcmp(type, "Bridge") == 0, pci = strcmp(type, "PCIDev") == 0;
    if (!bridge && !pci && strcmp(type, "OSDev") != 0) {
        open_cpu(x, f, type, attr);
        return;
    }
    const char *kind = topo_xml_get(attr, "bridge_type");
    bool host = bridge && kind && strncmp(kind, "0-", 2) == 0;
    f->node = topo_add_node(h->d, f->node,
                            host     ? TOPO_HOST
                            : bridge ? TOPO_SWITCH
                                     : TOPO_DEVICE,
                            -1);
    if (f->node < 0) {
        topo_xml_fail(x, ST_USAGE, "more than %d objects", TOPO_MAX_NODE);
        return;
    }
    if (bridge) {
        f->what = O_BRIDGE;
        f->gpu = -1;
    } else if (pci) {
        f->gpu = -1;
        open_pci(x, f, attr);
    } else {
        open_osdev(x, f, attr);
    }
}

static void open_info(struct topo_xml *x, const char **attr)
{
    struct hwloc *h = self(x);
    struct topo *t = h->d->t;
    const struct frame *f = &h->stack[h->top];
    const char *name = topo_xml_get(attr, "name"), *value = topo_xml_get(attr, "value");
    if (!name || !value) return;
    bool is_gpu = (f->what == O_OSDEV || f->what == O_PCI) && f->gpu >= 0;
    if (strcmp(name, "CPUModel") == 0 && !t->cpu_model)
        t->cpu_model = topo_text(h->d->a, value);
    else if ((strcmp(name, "DMIProductName") == 0 || strcmp(name, "PlatformModel") == 0) &&
             !t->machine)
        t->machine = topo_text(h->d->a, value);
    else if (is_gpu && strcmp(name, "GPUModel") == 0)
        t->gpu[f->gpu].name = topo_text(h->d->a, value);
    else if (is_gpu && strcmp(name, "CUDAGlobalMemorySize") == 0)
        t->gpu[f->gpu].mem_bytes = number(value) * 1024;
}

/* ---- matrices */

static void open_matrix(struct topo_xml *x, const char **attr)
{
    struct hwloc *h = self(x);
    const char *name = topo_xml_get(attr, "name");
    int n = topo_int(topo_xml_get(attr, "nbobjs"), 10, 1, MAX_MEMBER, 0);
    bool nv = name && strcmp(name, "NVLinkBandwidth") == 0;
    h->is_xgmi = name && strcmp(name, "XGMIBandwidth") == 0;
    h->in_matrix = (nv || h->is_xgmi) && !h->value;
    if (!h->in_matrix) return;
    if (!n) {
        topo_xml_fail(x, ST_USAGE, "a matrix of links over none or more than %d objects",
                      MAX_MEMBER);
        return;
    }
    h->n_side = n;
    h->side = arena_array(h->d->a, (size_t)n, sizeof *h->side);
    h->value = arena_array(h->d->a, (size_t)n * (size_t)n, sizeof *h->value);
    h->n_index = h->n_value = 0;
}

static void take(struct topo_xml *x)
{
    struct hwloc *h = self(x);
    if (!h->n_token) return;
    h->token[h->n_token] = 0;
    h->n_token = 0;
    if (h->in_index && h->n_index < h->n_side) {
        const char *colon = strchr(h->token, ':');
        long long gp = strtoll(colon ? colon + 1 : h->token, NULL, 10);
        int at = -1;
        for (int i = 0; i < h->n_member; i++)
            if (h->member[i].gp == gp) at = i;
        h->side[h->n_index++] = at;
    } else if (h->in_value && h->n_value < h->n_side * h->n_side) {
        h->value[h->n_value++] = number(h->token) * 1e6;
    } else {
        topo_xml_fail(x, ST_USAGE, "the matrix of links has more entries than %d objects give",
                      h->n_side);
    }
}

static void text(struct topo_xml *x, const char *bytes, int n)
{
    struct hwloc *h = self(x);
    if (!h->in_matrix || (!h->in_index && !h->in_value)) return;
    for (int i = 0; i < n && x->status == ST_OK; i++) {
        if (bytes[i] == ' ' || bytes[i] == '\n' || bytes[i] == '\t' || bytes[i] == '\r')
            take(x);
        else if (h->n_token + 1 < MAX_TOKEN)
            h->token[h->n_token++] = bytes[i];
        else
            topo_xml_fail(x, ST_USAGE, "an entry of the matrix of links is longer than %d bytes",
                          MAX_TOKEN);
    }
}

/* Value from one side to another, by number of GPU. */
static double between(const struct hwloc *h, int i, int j)
{
    return h->value[i * h->n_side + j];
}

static int side_gpu(const struct hwloc *h, int i)
{
    return h->side[i] >= 0 ? h->member[h->side[i]].gpu : -2;
}

static void add_link(struct hwloc *h, int x, int y, double rate, bool switched)
{
    struct topo *t = h->d->t;
    struct topo_nv *p = &h->d->nv[x * t->n_gpu + y];
    double link = topo_nvlink_rate(t->gpu[x].cc_major, t->gpu[x].cc_minor);
    if (link <= 0) link = h->is_xgmi ? rate : 25e9;
    p->bytes_per_s += rate;
    p->switched |= switched;
    p->n_link = (int)(p->bytes_per_s / link + 0.5);
    if (p->n_link < 1) p->n_link = 1;
    if (p->n_link > TOPO_MAX_LINKS) p->n_link = TOPO_MAX_LINKS;
}

/* From the GPU of a side: links to each GPU, and the rate into switches, which is returned. */
static double join_one(struct hwloc *h, int side)
{
    struct topo_gpu *g = &h->d->t->gpu[side_gpu(h, side)];
    double all = 0, into = 0, link = topo_nvlink_rate(g->cc_major, g->cc_minor);
    for (int j = 0; j < h->n_side; j++) {
        double r = j == side ? 0 : between(h, side, j); /* the diagonal is the GPU's own memory */
        int y = side_gpu(h, j);
        all += r;
        if (r > 0 && y >= 0 && y != side_gpu(h, side)) add_link(h, side_gpu(h, side), y, r, false);
        if (y == -1) into += r;
    }
    double n = all / (link > 0 ? link : 25e9) + 0.5;
    g->n_nvlink = n < 1000 ? (int)n : 0;
    return into;
}

/* All NVSwitches are one fabric, as hwloc's own transformation has it: the trunks between the
 * two boards of a DGX-2 are in no matrix, yet join all of its GPUs. */
static void join(struct hwloc *h)
{
    struct topo *t = h->d->t;
    size_t n = (size_t)t->n_gpu;
    double *into = arena_array(h->d->a, n, sizeof *into);
    h->d->nv = arena_array(h->d->a, n * n, sizeof *h->d->nv);
    t->knows_nvlink = true;
    for (int i = 0; i < h->n_side; i++)
        if (side_gpu(h, i) >= 0) into[side_gpu(h, i)] = join_one(h, i);
    for (int i = 0; i < t->n_gpu; i++) {
        for (int j = 0; j < i; j++) {
            struct topo_nv *p = &h->d->nv[i * t->n_gpu + j], *q = &h->d->nv[j * t->n_gpu + i];
            double least = into[i] < into[j] ? into[i] : into[j];
            if (least > 0) add_link(h, i, j, least, true);
            if (p->bytes_per_s < q->bytes_per_s) *p = *q;
            *q = *p;
        }
    }
}

/* ---- the whole */

static bool is_matrix(const char *tag)
{
    return strcmp(tag, "distances2") == 0 || strcmp(tag, "distances2hetero") == 0;
}

static void start(struct topo_xml *x, const char *tag, const char **attr)
{
    struct hwloc *h = self(x);
    struct frame f = h->stack[h->top];
    if (h->top == 0 && strcmp(tag, "topology") != 0 && strcmp(tag, "root") != 0)
        topo_xml_fail(x, ST_USAGE, "<topology> is expected");
    else if (strcmp(tag, "object") == 0)
        open_object(x, &f, attr);
    else if (strcmp(tag, "info") == 0)
        open_info(x, attr);
    else if (is_matrix(tag))
        open_matrix(x, attr);
    h->in_index = strcmp(tag, "indexes") == 0;
    h->in_value = strcmp(tag, "u64values") == 0;
    h->n_token = 0;
    if (strcmp(tag, "object") != 0) f.what = O_OTHER;
    h->stack[++h->top] = f;
}

static void end(struct topo_xml *x, const char *tag)
{
    struct hwloc *h = self(x);
    const struct frame f = h->stack[h->top];
    if (h->in_matrix && (h->in_index || h->in_value)) take(x);
    h->in_index = h->in_value = false;
    if (is_matrix(tag) && h->in_matrix) {
        if (h->n_index != h->n_side || h->n_value != h->n_side * h->n_side)
            topo_xml_fail(x, ST_USAGE,
                          "the matrix of links has %d objects and %d values, not %d and %d",
                          h->n_index, h->n_value, h->n_side, h->n_side * h->n_side);
        h->in_matrix = false;
    }
    if (strcmp(tag, "object") == 0 && f.what == O_PCI) close_pci(x, &f);
    h->top--;
}

static void fill(struct hwloc *h)
{
    struct topo *t = h->d->t;
    if (h->value) join(h);
    t->knows_nvlink |= h->saw_nvml;
    if (t->mem_bytes <= 0) t->mem_bytes = h->machine_bytes;
    if (t->n_numa == 0) t->n_numa = 1;
}

int topo_parse_hwloc(struct topo_draft *d, const char *file, const char *bytes, size_t n,
                     struct err *e)
{
    struct reader *r = arena_alloc(d->a, sizeof *r);
    *r = (struct reader){ .xml = { .start = start, .end = end, .text = text, .file = file, .e = e },
                          .h = { .d = d } };
    r->h.stack[0] = (struct frame){ .what = O_OTHER, .node = -1, .gpu = -1 };
    r->h.member = arena_array(d->a, MAX_MEMBER, sizeof *r->h.member);
    int st = topo_xml_parse(&r->xml, bytes, n);
    if (st == ST_OK) fill(&r->h);
    return st;
}
