/* model/topo_hw.c - a machine that was read or detected as one node of the hardware model.
 *
 * What the description gives is taken from it; latencies, and the fraction of a link's datasheet
 * rate that copies reach, are those of the catalog system that is most like it, which the notes
 * name.
 * SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "model/topo_in.h"

/* Of the NICs' line rate; the class default of scenarios/hardware/systems.yaml (entry dgx-a100). */
static const double nic_fraction = 0.88, nic_alpha_s = 24e-6;

struct maker {
    const struct topo *t;
    struct arena *a;
    struct hw *h;
    struct err *e;
    const char *notes;
    double link_bytes_per_s; /* one NVLink of this GPU, by the catalog */
};

static void say(struct maker *m, const char *text)
{
    m->notes = m->notes ? arena_printf(m->a, "%s; %s", m->notes, text) : text;
}

/* ---- the GPU */

/* All GPUs of the node are one entry of the catalog. NULL: an error was set. */
static const char *only_gpu(const struct maker *m, const char *given)
{
    const struct topo *t = m->t;
    if (t->n_gpu == 0) {
        err_set(m->e, ST_USAGE, "%s: no GPU is known there%s%s", t->source, t->n_note ? ": " : "",
                t->n_note ? t->note[0] : "");
        return NULL;
    }
    if (given) return given;
    for (int i = 0; i < t->n_gpu; i++) {
        const struct topo_gpu *g = &t->gpu[i];
        if (g->mig)
            err_set(m->e, ST_USAGE,
                    "%s: GPU %d is split by MIG: name the GPU that stands for one part", t->source,
                    g->index);
        else if (!g->name)
            err_set(m->e, ST_USAGE,
                    "%s: GPU %d is not named there: name the GPU of the catalog that it is",
                    t->source, g->index);
        else if (!g->catalog)
            err_set(m->e, ST_USAGE,
                    "%s: the catalog has no '%s': name the GPU that stands for it, or describe it "
                    "in a hardware "
                    "file (gpu: {mem: ..., mem_rate: ..., flops: {...}})",
                    t->source, g->name);
        else if (strcmp(g->catalog, t->gpu[0].catalog ? t->gpu[0].catalog : "") != 0)
            err_set(m->e, ST_USAGE, "%s: unlike GPUs (%s, %s): a node has equal ones", t->source,
                    t->gpu[0].catalog, g->catalog);
        else
            continue;
        return NULL;
    }
    return t->gpu[0].catalog;
}

/* Per direction and link, going by the catalog: all links over those that such a part has (see
 * topo_nvlink_rate). */
static double link_rate(const struct hw_gpu *g)
{
    if (g->link_bytes_per_s <= 0) return 0;
    if (strncmp(g->arch, "blackwell", 9) == 0) return 50e9;
    if (strcmp(g->arch, "ampere") == 0 && g->link_bytes_per_s < 100e9) return 14.0625e9;
    if (strncmp(g->arch, "cdna", 4) == 0) return 64e9;
    return 25e9;
}

/* The least of a figure that every GPU has; 0 where one is unknown. */
static double least(const struct topo *t, size_t offset)
{
    double v = 0;
    for (int i = 0; i < t->n_gpu; i++) {
        double x;
        memcpy(&x, (const char *)&t->gpu[i] + offset, sizeof x);
        if (x <= 0) return 0;
        v = i == 0 || x < v ? x : v;
    }
    return v;
}

static void measured_gpu(struct maker *m, bool given)
{
    const struct topo *t = m->t;
    struct hw_gpu *g = &m->h->gpu;
    double mem = given ? 0 : least(t, offsetof(struct topo_gpu, mem_bytes));
    double pcie = least(t, offsetof(struct topo_gpu, pcie_bytes_per_s));
    double watt = given ? 0 : least(t, offsetof(struct topo_gpu, power_limit_w));
    if (mem > 0) {
        g->mem_bytes = mem;
        say(m, "memory as reported");
    }
    if (pcie > 0) {
        g->pcie_bytes_per_s = pcie;
        say(m, "PCIe as reported");
    }
    if (watt > 0 && watt < g->tdp_w) {
        g->tdp_w = watt;
        say(m, "power limit as set");
    }
    if (t->knows_nvlink) {
        int links = t->gpu[0].n_nvlink;
        for (int i = 1; i < t->n_gpu; i++)
            links = t->gpu[i].n_nvlink < links ? t->gpu[i].n_nvlink : links;
        double rate = links * m->link_bytes_per_s;
        if (rate < g->link_bytes_per_s || links == 0) g->link_bytes_per_s = rate;
    }
}

/* ---- the fabric */

struct fabric {
    enum hw_fabric kind;
    double link_bytes_per_s; /* of the pair that decides, datasheet */
    enum topo_link worst;    /* of the ways over PCIe */
    bool partial;            /* NVLink joins some pairs only, and not as pairs */
};

static double pair_rate(const struct maker *m, const struct topo_pair *p)
{
    if (p->kind != TOPO_NVLINK) return m->h->gpu.pcie_bytes_per_s;
    return p->bytes_per_s > 0 ? p->bytes_per_s : p->n_nvlink * m->link_bytes_per_s;
}

static struct fabric fabric_of(const struct maker *m)
{
    const struct topo *t = m->t;
    struct fabric f = { .kind = HW_PCIE, .worst = TOPO_SELF };
    int joined = 0, most = 0, pairs = t->n_gpu * (t->n_gpu - 1);
    bool switched = false;
    double nv = 0;
    for (int i = 0; i < t->n_gpu; i++) {
        int peers = 0;
        for (int j = 0; j < t->n_gpu; j++) {
            const struct topo_pair *p = topo_pair(t, i, j);
            if (i == j) continue;
            if (p->kind != TOPO_NVLINK) {
                f.worst = p->kind > f.worst ? p->kind : f.worst;
                continue;
            }
            double r = pair_rate(m, p);
            nv = joined++ == 0 || r < nv ? r : nv;
            peers++;
            switched |= p->switched;
        }
        most = peers > most ? peers : most;
    }
    f.link_bytes_per_s = nv > 0 ? nv : m->h->gpu.pcie_bytes_per_s;
    if (nv <= 0) return f; /* none, or the GPU that was named has no NVLink */
    if (joined == pairs && switched)
        f.kind = HW_SWITCHED;
    else if (most == 1)
        f.kind = HW_PAIRS;
    else
        f.kind = HW_MESH;
    f.partial = joined < pairs && f.kind == HW_MESH;
    return f;
}

/* ---- what the catalog has measured of such a machine */

static const struct hw_gpu *gpu_named(const struct hw_gpu *g, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (strcmp(g[i].name, name) == 0) return &g[i];
    return NULL;
}

/* How alike a system is: the GPU counts most, then the architecture, then the number of GPUs. */
static int likeness(const struct hw_system *s, const struct hw_gpu *g, const struct hw *h,
                    int n_gpu)
{
    bool same = strcmp(g->name, h->gpu.name) == 0;
    return 8 * same + 2 * (strcmp(g->arch, h->gpu.arch) == 0) + (s->n_gpu == n_gpu);
}

struct model {
    const struct hw_system *sys; /* NULL: nothing of this fabric */
    const struct hw_gpu *gpu;
};

/* fabric -1: any, but of this very GPU. */
static int find_model(const struct maker *m, int fabric, struct model *out)
{
    struct hw_gpu *gpus;
    struct hw_system *systems;
    int n_gpu, n_system, best = -1;
    *out = (struct model){ 0 };
    int st = hw_list(m->a, &gpus, &n_gpu, &systems, &n_system, m->e);
    for (int i = 0; st == ST_OK && i < n_system; i++) {
        const struct hw_gpu *g = gpu_named(gpus, n_gpu, systems[i].gpu_name);
        if (!g || systems[i].n_gpu < 2) continue;
        if (fabric >= 0 ? (int)systems[i].fabric != fabric : strcmp(g->name, m->h->gpu.name) != 0)
            continue;
        int like = likeness(&systems[i], g, m->h, m->t->n_gpu);
        if (like <= best) continue;
        best = like;
        *out = (struct model){ &systems[i], g };
    }
    return st;
}

/* The datasheet rate that stands behind the measured rate of a system. */
static double datasheet(const struct model *r)
{
    switch (r->sys->fabric) {
    case HW_SWITCHED:
    case HW_PAIRS: return r->gpu->link_bytes_per_s;
    case HW_MESH: return r->gpu->link_bytes_per_s / (r->sys->n_gpu - 1);
    case HW_PCIE:
    case HW_HOST:
    default: return r->gpu->pcie_bytes_per_s;
    }
}

/* A board whose NVLink is part of it, in a description that leaves NVLink out; or a GPU that has
 * no peer-to-peer. */
static int unsaid_fabric(struct maker *m, struct fabric *f)
{
    struct model r;
    if (m->t->n_gpu < 2 || f->kind != HW_PCIE) return ST_OK;
    int st = find_model(m, -1, &r);
    if (st != ST_OK || !r.sys) return st;
    if (r.sys->fabric == HW_HOST) {
        f->kind = HW_HOST;
        say(m, arena_printf(m->a, "no peer-to-peer, as %s", r.sys->name));
    } else if (!m->t->knows_nvlink && (r.sys->fabric == HW_SWITCHED || r.sys->fabric == HW_MESH)) {
        f->kind = r.sys->fabric;
        f->link_bytes_per_s = f->kind == HW_MESH ? r.gpu->link_bytes_per_s / (m->t->n_gpu - 1)
                                                 : r.gpu->link_bytes_per_s;
        say(m, arena_printf(m->a, "NVLink is not described: taken to be as in %s", r.sys->name));
    }
    return ST_OK;
}

static int make_fabric(struct maker *m)
{
    struct hw_system *s = &m->h->sys;
    struct fabric f = fabric_of(m);
    struct model r;
    int st = unsaid_fabric(m, &f);
    s->fabric = f.kind;
    if (st != ST_OK || m->t->n_gpu < 2) return st;
    if ((st = find_model(m, (int)f.kind, &r)) != ST_OK) return st;
    if (!r.sys)
        return err_set(
            m->e, ST_USAGE,
            "%s: the catalog has no system whose GPUs are joined alike, to take latencies "
            "from",
            m->t->source);
    double base = datasheet(&r), fraction = base > 0 ? r.sys->peer_bytes_per_s / base : 1;
    s->peer_bytes_per_s = (fraction < 1 ? fraction : 1) * f.link_bytes_per_s;
    s->peer_alpha_s = r.sys->peer_alpha_s;
    if (r.sys->n_gpu == m->t->n_gpu && !f.partial) {
        double scale = base > 0 ? f.link_bytes_per_s / base : 1;
        s->busbw_bytes_per_s = r.sys->busbw_bytes_per_s * (scale < 1 ? scale : 1);
        s->nvls = r.sys->nvls && strcmp(r.gpu->name, m->h->gpu.name) == 0;
    }
    say(m, arena_printf(m->a, "latency and %.2f of the link rate as %s",
                        fraction < 1 ? fraction : 1, r.sys->name));
    if (f.kind == HW_PCIE && f.worst >= TOPO_NODE)
        say(m, "some pairs go through the processors, where rates may be lower than taken here");
    if (f.partial) say(m, "NVLink joins some pairs alone: rates are of a joined pair");
    return ST_OK;
}

/* ---- network and host */

/* RDMA devices where there are any, else the fastest plain NIC. */
static void make_network(struct maker *m)
{
    const struct topo *t = m->t;
    struct hw_system *s = &m->h->sys;
    bool rdma = false;
    for (int i = 0; i < t->n_nic; i++) rdma |= t->nic[i].rdma && t->nic[i].bytes_per_s > 0;
    for (int i = 0; i < t->n_nic; i++) {
        const struct topo_nic *c = &t->nic[i];
        if (rdma != c->rdma || c->bytes_per_s < s->nic_bytes_per_s || c->bytes_per_s <= 0) continue;
        s->n_nic = rdma && c->bytes_per_s == s->nic_bytes_per_s ? s->n_nic + 1 : 1;
        s->nic_bytes_per_s = c->bytes_per_s;
    }
    if (s->n_nic == 0) {
        s->n_nic = t->n_nic; /* there, but of unknown rate */
        if (t->n_nic) say(m, "the rate of the NICs is not said");
        return;
    }
    s->inter_bytes_per_s = nic_fraction * s->n_nic * s->nic_bytes_per_s / t->n_gpu;
    s->inter_alpha_s = nic_alpha_s;
    say(m, "network: class default, 0.88 of line rate shared by the GPUs");
}

int topo_to_hw(const struct topo *t, const char *gpu_override, struct arena *a, struct hw *out,
               struct err *e)
{
    struct hw h;
    struct maker m = { .t = t, .a = a, .h = &h, .e = e };
    assert(t && a && out);
    const char *gpu = only_gpu(&m, gpu_override);
    if (!gpu) return ST_USAGE;
    int st = hw_load(gpu, NULL, 1, a, &h, e);
    if (st != ST_OK) return st;
    if (strcmp(h.gpu.name, gpu) != 0 && !strchr(gpu, '/') && !strstr(gpu, ".y"))
        return err_set(e, ST_USAGE, "'%.60s' is a system; the name of one of its GPUs is expected",
                       gpu);
    h.sys = (struct hw_system){ .name = "detected",
                                .gpu_name = h.gpu.name,
                                .n_gpu = t->n_gpu,
                                .price_date = "",
                                .source = t->source };
    h.sys.title = t->machine ? t->machine : t->source;
    if (gpu_override) say(&m, arena_printf(a, "GPU named by the user: %s", gpu_override));
    m.link_bytes_per_s = link_rate(&h.gpu);
    measured_gpu(&m, gpu_override != NULL);
    if ((st = make_fabric(&m)) != ST_OK) return st;
    make_network(&m);
    h.sys.host_mem_bytes = t->mem_bytes;
    h.sys.host_cores = t->n_core;
    h.sys.storage_bytes_per_s = t->storage_bytes_per_s;
    if (t->slurm.inside && t->slurm.n_node > 1 && h.sys.inter_bytes_per_s > 0) {
        h.n_node = t->slurm.n_node;
        say(&m, "nodes of the SLURM allocation, all taken to be as this one");
    }
    h.sys.notes = m.notes ? m.notes : "";
    *out = h;
    return ST_OK;
}
