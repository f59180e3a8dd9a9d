/* model/topo_nccl.c - NCCL's topology XML (NCCL_TOPO_DUMP_FILE, and the files that clouds give to
 * NCCL_TOPO_FILE).
 *
 * <system><cpu numaid><pci busid class vendor device link_speed link_width> nest; in a <pci> stand
 * <gpu dev sm> with its <nvlink target count tclass>, or <nic><net name speed>. A <cpu> is a NUMA
 * node. A <pci> of class 0604 is a switch. Handwritten files leave <gpu>, <nic> and even classes
 * out: devices are then known by class alone. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/topo_in.h"

enum { MAX_LINK = 4096, TC_SWITCH = 0x068000 };

enum level { L_OTHER, L_SYSTEM, L_CPU, L_PCI, L_GPU, L_NIC };

struct frame { /* an element that is open */
    enum level level;
    int node, gpu;    /* in the tree; of a PCI device that is a GPU, else -1 */
    bool counted_nic; /* a PCI device of a network class that had no <net> yet: its number is nic */
    int nic;
    const char *id; /* bus id of a PCI device */
};

struct link {
    int gpu, count;
    const char *target;
    unsigned tclass;
};

struct nccl {
    struct topo_draft *d;
    struct frame stack[TOPO_MAX_DEPTH + 2];
    int top;
    struct link *link; /* [MAX_LINK] */
    int n_link, n_unclassed, n_cpu;
};

struct reader {
    struct topo_xml xml; /* first: the callbacks get its address */
    struct nccl n;
};

static struct nccl *self(struct topo_xml *x)
{
    return &((struct reader *)(void *)x)->n;
}

/* "16 GT/s", "32.0 GT/s PCIe" */
static int generation(const char *speed)
{
    return speed ? topo_pcie_gen(strtod(speed, NULL)) : 0;
}

static void describe_gpu(struct nccl *c, struct topo_gpu *g, const char **attr)
{
    unsigned vendor = (unsigned)topo_int(topo_xml_get(attr, "vendor"), 16, 0, 0xffff, 0);
    unsigned device = (unsigned)topo_int(topo_xml_get(attr, "device"), 16, 0, 0xffff, 0);
    int cc = 0;
    g->bus_id = topo_bus_id(c->d->a, topo_xml_get(attr, "busid"));
    g->name = topo_pci_name(vendor, device, &cc);
    g->cc_major = cc / 10;
    g->cc_minor = cc % 10;
    g->pcie_gen = generation(topo_xml_get(attr, "link_speed"));
    g->pcie_width = topo_int(topo_xml_get(attr, "link_width"), 10, 1, 32, 0);
    if (vendor && !g->name)
        topo_note(c->d->t, c->d->a, "GPU %d is PCI device %04x:%04x, which has no name here",
                  g->index, vendor, device);
}

/* The GPU of the PCI device in frame f; made where only <gpu> says that it is one. */
static struct topo_gpu *gpu_of(struct topo_xml *x, struct frame *f)
{
    struct nccl *c = self(x);
    if (f->gpu >= 0) return &c->d->t->gpu[f->gpu];
    struct topo_gpu *g = topo_add_gpu(c->d, f->node);
    if (!g)
        topo_xml_fail(x, ST_USAGE, "more than %d GPUs", TOPO_MAX_GPU);
    else
        f->gpu = c->d->t->n_gpu - 1;
    return g;
}

static struct topo_nic *add_nic(struct topo_xml *x, struct frame *f)
{
    struct nccl *c = self(x);
    struct topo_nic *n = topo_add_nic(c->d, f->node);
    if (!n) topo_xml_fail(x, ST_USAGE, "more than %d NICs", TOPO_MAX_NIC);
    return n;
}

static void open_pci(struct topo_xml *x, struct frame *f, const char **attr)
{
    struct nccl *c = self(x);
    const char *cls = topo_xml_get(attr, "class"), *id = topo_xml_get(attr, "busid");
    unsigned class_id = (unsigned)topo_int(cls, 16, 0, 0xffffff, 0);
    unsigned vendor = (unsigned)topo_int(topo_xml_get(attr, "vendor"), 16, 0, 0xffff, 0);
    bool is_switch = class_id >> 8 == 0x0604;
    f->level = L_PCI;
    f->id = topo_bus_id(c->d->a, id);
    f->node = topo_add_node(c->d, f->node, is_switch ? TOPO_SWITCH : TOPO_DEVICE, -1);
    if (f->node < 0) {
        topo_xml_fail(x, ST_USAGE, "more than %d devices", TOPO_MAX_NODE);
        return;
    }
    c->n_unclassed += class_id == 0;
    if (topo_pci_is_gpu(class_id, vendor)) {
        struct topo_gpu *g = gpu_of(x, f);
        if (g) describe_gpu(c, g, attr);
    } else if (topo_pci_is_nic(class_id)) {
        struct topo_nic *n = add_nic(x, f);
        if (!n) return;
        n->name = f->id ? f->id : "?";
        n->rdma = class_id >> 8 == 0x0207;
        f->nic = c->d->t->n_nic - 1;
        f->counted_nic = true;
    }
}

static void open_cpu(struct topo_xml *x, struct frame *f, const char **attr)
{
    struct nccl *c = self(x);
    struct topo *t = c->d->t;
    int numa = topo_int(topo_xml_get(attr, "numaid"), 10, 0, 4095, -1);
    const char *vendor = topo_xml_get(attr, "vendor"), *family = topo_xml_get(attr, "familyid");
    const char *model = topo_xml_get(attr, "modelid");
    f->level = L_CPU;
    f->node = topo_add_node(c->d, f->node, TOPO_CPU, numa);
    if (f->node < 0) topo_xml_fail(x, ST_USAGE, "more than %d devices", TOPO_MAX_NODE);
    c->n_cpu++;
    if (vendor && family && model && !t->cpu_model)
        t->cpu_model = arena_printf(c->d->a, "%s family %s model %s", topo_text(c->d->a, vendor),
                                    topo_text(c->d->a, family), topo_text(c->d->a, model));
}

static void open_gpu(struct topo_xml *x, struct frame *f, const char **attr)
{
    int dev = topo_int(topo_xml_get(attr, "dev"), 10, 0, 1 << 16, -1);
    int sm = topo_int(topo_xml_get(attr, "sm"), 10, 10, 999, 0);
    if (f->level != L_PCI) {
        topo_xml_fail(x, ST_USAGE, "<gpu> stands outside a <pci>");
        return;
    }
    struct topo_gpu *g = gpu_of(x, f);
    if (!g) return;
    f->level = L_GPU;
    if (dev >= 0) g->index = dev;
    if (!g->bus_id) g->bus_id = f->id;
    if (sm) {
        g->cc_major = sm / 10;
        g->cc_minor = sm % 10;
    }
}

static void open_link(struct topo_xml *x, const struct frame *f, const char **attr)
{
    struct nccl *c = self(x);
    const char *target = topo_bus_id(c->d->a, topo_xml_get(attr, "target"));
    int count = topo_int(topo_xml_get(attr, "count"), 10, 1, TOPO_MAX_LINKS, 0);
    if (f->level != L_GPU)
        return; /* of an NVSwitch or a processor: the GPUs say the same from their side */
    if (!target || !count) {
        topo_xml_fail(x, ST_USAGE, "<nvlink> needs a target (a bus id) and a count from 1 to %d",
                      TOPO_MAX_LINKS);
    } else if (c->n_link == MAX_LINK) {
        topo_xml_fail(x, ST_USAGE, "more than %d NVLinks", MAX_LINK);
    } else {
        unsigned tclass = (unsigned)topo_int(topo_xml_get(attr, "tclass"), 16, 0, 0xffffff, 0);
        c->link[c->n_link++] = (struct link){ f->gpu, count, target, tclass };
    }
}

/* The first <net> of a device names the NIC that its class announced; more are ports of their own.
 */
static void open_net(struct topo_xml *x, const char **attr)
{
    struct nccl *c = self(x);
    int k = c->top;
    while (k > 0 && c->stack[k].level == L_NIC) k--;
    struct frame *f = &c->stack[k];
    if (f->level != L_PCI && f->level != L_CPU) return;
    struct topo_nic *n = f->counted_nic ? &c->d->t->nic[f->nic] : add_nic(x, f);
    if (!n) return;
    const char *name = topo_xml_get(attr, "name");
    f->counted_nic = false;
    n->name = name ? topo_text(c->d->a, name) : "?";
    n->bytes_per_s = topo_int(topo_xml_get(attr, "speed"), 10, 0, 100000000, 0) * 1e6 / 8;
    n->rdma = n->rdma || topo_int(topo_xml_get(attr, "gdr"), 10, 0, 1, 0);
}

static void start(struct topo_xml *x, const char *tag, const char **attr)
{
    struct nccl *c = self(x);
    struct frame f = c->stack[c->top];
    f.counted_nic = false;
    if (f.level != L_GPU && f.level != L_NIC) f.gpu = -1;
    if (strcmp(tag, "system") == 0 && f.level == L_OTHER && c->top == 0) {
        f.level = L_SYSTEM;
        f.node = topo_add_node(c->d, -1, TOPO_CPU, -1);
    } else if (strcmp(tag, "cpu") == 0 && f.level == L_SYSTEM) {
        open_cpu(x, &f, attr);
    } else if (strcmp(tag, "pci") == 0 && (f.level == L_CPU || f.level == L_PCI)) {
        open_pci(x, &f, attr);
    } else if (strcmp(tag, "gpu") == 0) {
        f = c->stack[c->top];
        open_gpu(x, &f, attr);
        c->stack[c->top].gpu = f.gpu;
    } else if (strcmp(tag, "nic") == 0) {
        f.level = L_NIC;
    } else {
        if (strcmp(tag, "nvlink") == 0) open_link(x, &f, attr);
        if (strcmp(tag, "net") == 0) open_net(x, attr);
        f.level = L_OTHER;
    }
    c->stack[++c->top] = f;
}

static void end(struct topo_xml *x, const char *tag)
{
    (void)tag;
    self(x)->top--;
}

/* ---- NVLink */

static int gpu_at(const struct topo *t, const char *bus_id)
{
    for (int i = 0; i < t->n_gpu; i++)
        if (t->gpu[i].bus_id && strcmp(t->gpu[i].bus_id, bus_id) == 0) return i;
    return -1;
}

static int least(int x, int y)
{
    return x < y ? x : y;
}

/* Links of GPU i into the switch at a bus id. */
static int into(const struct nccl *c, int i, const char *target)
{
    int n = 0;
    for (int k = 0; k < c->n_link; k++)
        if (c->link[k].gpu == i && strcmp(c->link[k].target, target) == 0) n += c->link[k].count;
    return n;
}

static void join(struct nccl *c)
{
    struct topo *t = c->d->t;
    int n = t->n_gpu;
    c->d->nv = arena_array(c->d->a, (size_t)n * (size_t)n, sizeof *c->d->nv);
    for (int k = 0; k < c->n_link; k++) {
        const struct link *l = &c->link[k];
        int peer = gpu_at(t, l->target);
        t->gpu[l->gpu].n_nvlink += l->count;
        if (peer == l->gpu) {
            topo_note(
                t, c->d->a,
                "the NVLinks of some GPUs are said to lead to the GPU itself: where they lead "
                "is not known");
        } else if (peer >= 0) {
            c->d->nv[l->gpu * n + peer].n_link += l->count;
            t->knows_nvlink = true;
        } else if (l->tclass == TC_SWITCH) {
            for (int j = 0; j < n; j++) {
                int both = j == l->gpu ? 0 : least(l->count, into(c, j, l->target));
                if (!both) continue;
                c->d->nv[l->gpu * n + j].n_link += both;
                c->d->nv[l->gpu * n + j].switched = true;
            }
            t->knows_nvlink = true;
        }
    }
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < i; j++) {
            struct topo_nv *p = &c->d->nv[i * n + j], *q = &c->d->nv[j * n + i];
            if (p->n_link < q->n_link) *p = *q;
            *q = *p;
        }
    }
}

/* ---- the whole */

static void fill(struct nccl *c)
{
    struct topo *t = c->d->t;
    struct arena *a = c->d->a;
    if (c->n_link) join(c);
    t->n_numa = c->n_cpu;
    if (c->n_unclassed && t->n_gpu == 0)
        topo_note(t, a, "%d PCI devices have no class: which of them are GPUs is not said",
                  c->n_unclassed);
    topo_note(t, a,
              "cores and memory of the host are not in this format, nor is PHB told from NODE");
}

int topo_parse_nccl(struct topo_draft *d, const char *file, const char *text, size_t n,
                    struct err *e)
{
    struct reader *r = arena_alloc(d->a, sizeof *r);
    *r = (struct reader){ .xml = { .start = start, .end = end, .file = file, .e = e },
                          .n = { .d = d } };
    r->n.stack[0] = (struct frame){ .level = L_OTHER, .node = -1, .gpu = -1, .nic = -1 };
    r->n.link = arena_array(d->a, MAX_LINK, sizeof *r->n.link);
    int st = topo_xml_parse(&r->xml, text, n);
    if (st == ST_OK) fill(&r->n);
    return st;
}
