/* model/hw.c - reads the hardware catalog, or a user's file in the form of one of its entries.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/hw.h"

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/conf.h"
#include "base/doc.h"
#include "base/paths.h"
#include "model/profile_file.h"

enum { PATH_BYTES = 1024, PLACE_BYTES = 320, MAX_NODE = 1 << 20 };

#define GPU_CATALOG    "scenarios/hardware/gpus.yaml"
#define SYSTEM_CATALOG "scenarios/hardware/systems.yaml"

/* The rows need int64_t where the structs hold int or seconds. */
struct gpu_raw {
    struct hw_gpu g;
    int64_t n_sm;
};
struct system_raw {
    struct hw_system s;
    int64_t n_gpu, n_nic, host_cores, peer_alpha_ns, inter_alpha_ns;
    int fabric;
};

#define GPU(member)    offsetof(struct gpu_raw, member)
#define SYSTEM(member) offsetof(struct system_raw, member)

/* clang-format off */
/* Limits catch a wrong prefix (GB for TB), not an unusual part. */
static const struct conf_row gpu_rows[] = {
    { "title", CONF_TEXT, GPU(g.title), NULL, NULL, 0, 0, "name for people" },
    { "arch", CONF_TEXT, GPU(g.arch), NULL, NULL, 0, 0, "architecture, lower case" },
    { "mem", CONF_BYTES, GPU(g.mem_bytes), NULL, NULL, 1e8, 1e13, "usable device memory" },
    { "mem_rate", CONF_BYTES_PER_S, GPU(g.mem_bytes_per_s), NULL, NULL, 1e9, 1e15,
      "memory rate" },
    { "flops.bf16", CONF_FLOP_PER_S, GPU(g.flop_per_s[DT_BF16]), NULL, NULL, 1e9, 1e18,
      "dense peak" },
    { "flops.f16", CONF_FLOP_PER_S, GPU(g.flop_per_s[DT_F16]), NULL, NULL, 1e9, 1e18,
      "dense peak" },
    { "flops.f32", CONF_FLOP_PER_S, GPU(g.flop_per_s[DT_F32]), NULL, NULL, 1e9, 1e18,
      "peak of the FP32 units" },
    { "flops.fp8", CONF_FLOP_PER_S, GPU(g.flop_per_s[DT_FP8]), NULL, NULL, 1e9, 1e18,
      "dense peak" },
    { "flops.int8", CONF_FLOP_PER_S, GPU(g.flop_per_s[DT_INT8]), NULL, NULL, 1e9, 1e18,
      "dense peak" },
    { "flops.int4", CONF_FLOP_PER_S, GPU(g.flop_per_s[DT_INT4]), NULL, NULL, 1e9, 1e18,
      "dense peak; left out: as bf16 or f16" },
    { "flops.nvfp4", CONF_FLOP_PER_S, GPU(g.flop_per_s[DT_NVFP4]), NULL, NULL, 1e9, 1e18,
      "dense peak" },
    { "l2", CONF_BYTES, GPU(g.l2_bytes), NULL, NULL, 1e3, 1e11, "last cache before memory" },
    { "sms", CONF_INT, GPU(n_sm), NULL, NULL, 1, 1e6, "multiprocessors or compute units" },
    { "pcie", CONF_BYTES_PER_S, GPU(g.pcie_bytes_per_s), NULL, NULL, 1e7, 1e13,
      "host link, per direction" },
    { "link", CONF_BYTES_PER_S, GPU(g.link_bytes_per_s), NULL, NULL, 1e7, 1e14,
      "all NVLink or xGMI links, per direction" },
    { "power.max", CONF_WATT, GPU(g.tdp_w), NULL, NULL, 1, 1e5, "board power limit" },
    { "power.idle", CONF_WATT, GPU(g.idle_w), NULL, NULL, 0.1, 1e5, "board idle" },
    { "price.low", CONF_USD, GPU(g.price_usd_lo), NULL, NULL, 0.01, 1e9, "to buy, from" },
    { "price.high", CONF_USD, GPU(g.price_usd_hi), NULL, NULL, 0.01, 1e9, "to buy, to" },
    { "price.rent_low", CONF_USD_PER_H, GPU(g.rent_usd_per_h_lo), NULL, NULL, 1e-4, 1e6,
      "to rent, from" },
    { "price.rent_high", CONF_USD_PER_H, GPU(g.rent_usd_per_h_hi), NULL, NULL, 1e-4, 1e6,
      "to rent, to" },
    { "price.date", CONF_TEXT, GPU(g.price_date), NULL, NULL, 0, 0,
      "when prices were looked at" },
    { "source", CONF_TEXT, GPU(g.source), NULL, NULL, 0, 0, "where the figures come from" },
    { "notes", CONF_TEXT, GPU(g.notes), NULL, NULL, 0, 0, "what to know about them" },
    { .type = CONF_END }
};

static const struct conf_row system_rows[] = {
    { "title", CONF_TEXT, SYSTEM(s.title), NULL, NULL, 0, 0, "name for people" },
    { "gpus", CONF_INT, SYSTEM(n_gpu), "1", NULL, 1, 1024, "GPUs in a node" },
    { "fabric", CONF_WORD, SYSTEM(fabric), "pcie", HW_FABRIC_WORDS, 0, 0, "links between GPUs" },
    { "nvls", CONF_BOOL, SYSTEM(s.nvls), "no", NULL, 0, 0, "reduction in the switch" },
    { "peer.rate", CONF_BYTES_PER_S, SYSTEM(s.peer_bytes_per_s), NULL, NULL, 1e6, 1e14,
      "GPU to GPU, per direction" },
    { "peer.alpha", CONF_TIME, SYSTEM(peer_alpha_ns), "10us", NULL, 0, 0.1, "GPU to GPU latency" },
    { "peer.busbw", CONF_BYTES_PER_S, SYSTEM(s.busbw_bytes_per_s), NULL, NULL, 1e6, 1e14,
      "all-reduce bus bandwidth, large messages" },
    { "nic.count", CONF_INT, SYSTEM(n_nic), NULL, NULL, 1, 1024, "NICs of a node" },
    { "nic.rate", CONF_BYTES_PER_S, SYSTEM(s.nic_bytes_per_s), NULL, NULL, 1e6, 1e13,
      "line rate of one NIC" },
    { "inter.rate", CONF_BYTES_PER_S, SYSTEM(s.inter_bytes_per_s), NULL, NULL, 1e6, 1e13,
      "between nodes, per GPU" },
    { "inter.alpha", CONF_TIME, SYSTEM(inter_alpha_ns), "20us", NULL, 0, 1,
      "between nodes, latency" },
    { "host.mem", CONF_BYTES, SYSTEM(s.host_mem_bytes), NULL, NULL, 1e9, 1e15, "host memory" },
    { "host.storage", CONF_BYTES_PER_S, SYSTEM(s.storage_bytes_per_s), NULL, NULL, 1e6, 1e13,
      "reading weights from storage" },
    { "host.cores", CONF_INT, SYSTEM(host_cores), NULL, NULL, 1, 1e6, "host cores" },
    { "power.max", CONF_WATT, SYSTEM(s.node_max_w), NULL, NULL, 1, 1e7, "node under load" },
    { "power.idle", CONF_WATT, SYSTEM(s.node_idle_w), NULL, NULL, 1, 1e7, "node idle" },
    { "price.low", CONF_USD, SYSTEM(s.price_usd_lo), NULL, NULL, 0.01, 1e9, "to buy, from" },
    { "price.high", CONF_USD, SYSTEM(s.price_usd_hi), NULL, NULL, 0.01, 1e9, "to buy, to" },
    { "price.rent_low", CONF_USD_PER_H, SYSTEM(s.rent_usd_per_h_lo), NULL, NULL, 1e-4, 1e6,
      "to rent, from" },
    { "price.rent_high", CONF_USD_PER_H, SYSTEM(s.rent_usd_per_h_hi), NULL, NULL, 1e-4, 1e6,
      "to rent, to" },
    { "price.date", CONF_TEXT, SYSTEM(s.price_date), NULL, NULL, 0, 0,
      "when prices were looked at" },
    { "source", CONF_TEXT, SYSTEM(s.source), NULL, NULL, 0, 0, "where the figures come from" },
    { "notes", CONF_TEXT, SYSTEM(s.notes), NULL, NULL, 0, 0, "what to know about them" },
    { .type = CONF_END }
};
/* clang-format on */

/* The place of an entry's key, or of the file's root. */
static const char *place(const struct doc *d, char *buf, size_t n)
{
    if (d->key_line <= 0) return doc_place(d, buf, n);
    snprintf(buf, n, "%s:%d:%d", d->file, d->key_line, d->key_column);
    return buf;
}

static int missing(const struct doc *d, const char *name, const char *key, struct err *e)
{
    char at[PLACE_BYTES];
    return err_set(e, ST_USAGE, "%s: %s: the key %s is missing", place(d, at, sizeof at), name,
                   key);
}

static int check_order(const struct doc *d, const char *key, double lo, double hi, struct err *e)
{
    char at[PLACE_BYTES];
    if (lo == 0 || hi == 0 || lo <= hi) return ST_OK;
    return err_set(e, ST_USAGE, "%s: %s: the lower figure is above the higher one",
                   place(d, at, sizeof at), key);
}

static const char *or_empty(const char *text)
{
    return text ? text : "";
}

static int parse_gpu(const struct doc *d, const char *name, struct arena *a, struct hw_gpu *out,
                     struct err *e)
{
    struct gpu_raw raw = { 0 };
    struct conf_set set;
    conf_init(&set, a);
    conf_add(&set, gpu_rows, &raw, "GPU");
    int st = conf_apply(&set, d, NULL, e);
    if (st != ST_OK) return st;
    struct hw_gpu *g = &raw.g;
    double half = g->flop_per_s[DT_BF16] > g->flop_per_s[DT_F16] ? g->flop_per_s[DT_BF16]
                                                                 : g->flop_per_s[DT_F16];
    if (g->mem_bytes == 0) return missing(d, name, "mem", e);
    if (g->mem_bytes_per_s == 0) return missing(d, name, "mem_rate", e);
    if (half == 0) return missing(d, name, "flops.bf16 (or flops.f16)", e);
    if (g->flop_per_s[DT_INT4] == 0) g->flop_per_s[DT_INT4] = half;
    if ((st = check_order(d, "power", g->idle_w, g->tdp_w, e)) != ST_OK) return st;
    if ((st = check_order(d, "price", g->price_usd_lo, g->price_usd_hi, e)) != ST_OK) return st;
    st = check_order(d, "price", g->rent_usd_per_h_lo, g->rent_usd_per_h_hi, e);
    g->name = name;
    g->n_sm = (int)raw.n_sm;
    g->title = g->title ? g->title : name;
    g->arch = or_empty(g->arch);
    g->price_date = or_empty(g->price_date);
    g->source = or_empty(g->source);
    g->notes = or_empty(g->notes);
    if (st == ST_OK) *out = *g;
    return st;
}

/* All but the key `gpu`, which is the caller's. */
static int parse_system(const struct doc *d, const char *name, struct arena *a,
                        struct hw_system *out, struct err *e)
{
    struct system_raw raw = { 0 };
    struct conf_set set;
    conf_init(&set, a);
    conf_add(&set, system_rows, &raw, "system");
    int st = conf_apply(&set, d, "gpu", e);
    if (st != ST_OK) return st;
    struct hw_system *s = &raw.s;
    if (raw.n_gpu > 1 && s->peer_bytes_per_s == 0) return missing(d, name, "peer.rate", e);
    if ((st = check_order(d, "power", s->node_idle_w, s->node_max_w, e)) != ST_OK) return st;
    if ((st = check_order(d, "price", s->price_usd_lo, s->price_usd_hi, e)) != ST_OK) return st;
    st = check_order(d, "price", s->rent_usd_per_h_lo, s->rent_usd_per_h_hi, e);
    s->name = name;
    s->n_gpu = (int)raw.n_gpu;
    s->n_nic = (int)raw.n_nic;
    s->host_cores = (int)raw.host_cores;
    s->fabric = (enum hw_fabric)raw.fabric;
    s->peer_alpha_s = (double)raw.peer_alpha_ns * 1e-9;
    s->inter_alpha_s = (double)raw.inter_alpha_ns * 1e-9;
    s->title = s->title ? s->title : name;
    s->price_date = or_empty(s->price_date);
    s->source = or_empty(s->source);
    s->notes = or_empty(s->notes);
    if (st == ST_OK) *out = *s;
    return st;
}

/* ---- the catalog */

struct catalog {
    struct hw_gpu *gpu;
    struct hw_system *system;
    int n_gpu, n_system;
};

static const struct hw_gpu *find_gpu(const struct catalog *c, const char *name)
{
    for (int i = 0; i < c->n_gpu; i++)
        if (strcmp(c->gpu[i].name, name) == 0) return &c->gpu[i];
    return NULL;
}

static const struct hw_system *find_system(const struct catalog *c, const char *name)
{
    for (int i = 0; i < c->n_system; i++)
        if (strcmp(c->system[i].name, name) == 0) return &c->system[i];
    return NULL;
}

/* Names separated by `between`, in the arena. */
static char *names(const struct catalog *c, bool systems, bool gpus, const char *between,
                   struct arena *a)
{
    char *list = arena_printf(a, "%s", "");
    for (int i = 0; systems && i < c->n_system; i++)
        list = arena_printf(a, "%s%s%s", list, *list ? between : "", c->system[i].name);
    for (int i = 0; gpus && i < c->n_gpu; i++)
        list = arena_printf(a, "%s%s%s", list, *list ? between : "", c->gpu[i].name);
    return list;
}

/* Reads gpu: NAME, or in a user's file gpu: {...} with the keys of a GPU. */
static int resolve_gpu(const struct doc *d, const char *name, const struct catalog *c,
                       struct arena *a, struct hw_gpu *out, struct err *e)
{
    const struct doc *g = doc_get(d, "gpu");
    char at[PLACE_BYTES], near[64];
    if (!g) return missing(d, name, "gpu", e);
    if (g->kind == DOC_MAP) return parse_gpu(g, name, a, out, e);
    const struct hw_gpu *known = g->kind == DOC_SCALAR ? find_gpu(c, g->text) : NULL;
    if (known) {
        *out = *known;
        return ST_OK;
    }
    if (g->kind == DOC_LIST)
        return err_set(e, ST_USAGE, "%s: gpu: a list stands where a name or a map is expected",
                       doc_place(g, at, sizeof at));
    const char *hint = conf_nearest(g->text, names(c, false, true, " ", a), near, sizeof near);
    return err_set(e, ST_USAGE, "%s: gpu: '%.60s' is none of %s%s%s%s", doc_place(g, at, sizeof at),
                   g->text, names(c, false, true, ", ", a), hint ? "; did you mean '" : "",
                   hint ? hint : "", hint ? "'?" : "");
}

static int read_map(const char *relative, struct arena *a, struct doc **out, struct err *e)
{
    char path[PATH_BYTES], at[PLACE_BYTES];
    int st = paths_find(relative, path, sizeof path, e);
    if (st == ST_OK) st = doc_read_yaml(a, path, out, e);
    if (st == ST_OK && (*out)->kind != DOC_MAP)
        st = err_set(e, ST_USAGE, "%s: a map of entries is expected",
                     doc_place(*out, at, sizeof at));
    return st;
}

static int read_catalog(struct arena *a, struct catalog *c, struct err *e)
{
    struct doc *gpus = NULL, *systems = NULL;
    *c = (struct catalog){ 0 };
    int st = read_map(GPU_CATALOG, a, &gpus, e);
    if (st == ST_OK) st = read_map(SYSTEM_CATALOG, a, &systems, e);
    if (st != ST_OK) return st;
    c->gpu = arena_array(a, (size_t)gpus->n, sizeof *c->gpu);
    c->system = arena_array(a, (size_t)systems->n, sizeof *c->system);
    for (const struct doc *d = gpus->first; d && st == ST_OK; d = d->next)
        if ((st = parse_gpu(d, d->key, a, &c->gpu[c->n_gpu], e)) == ST_OK) c->n_gpu++;
    for (const struct doc *d = systems->first; d && st == ST_OK; d = d->next) {
        struct hw_gpu gpu = { 0 };
        struct hw_system *s = &c->system[c->n_system];
        if ((st = parse_system(d, d->key, a, s, e)) != ST_OK) return st;
        if ((st = resolve_gpu(d, d->key, c, a, &gpu, e)) != ST_OK) return st;
        s->gpu_name = gpu.name;
        c->n_system++;
    }
    return st;
}

/* ---- one system */

/* One GPU alone: no peers, no network, nothing known of the host. */
static void bare_gpu(const struct hw_gpu *g, struct hw *out)
{
    out->gpu = *g;
    out->sys = (struct hw_system){ .name = g->name,
                                   .title = g->title,
                                   .gpu_name = g->name,
                                   .n_gpu = 1,
                                   .fabric = HW_PCIE,
                                   .price_date = g->price_date,
                                   .price_usd_lo = g->price_usd_lo,
                                   .price_usd_hi = g->price_usd_hi,
                                   .rent_usd_per_h_lo = g->rent_usd_per_h_lo,
                                   .rent_usd_per_h_hi = g->rent_usd_per_h_hi,
                                   .source = g->source,
                                   .notes = "one GPU; nothing known of its host" };
}

static const char *stem(const char *path, struct arena *a)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    const char *dot = strrchr(name, '.');
    return arena_copy_text(a, name, dot && dot > name ? (size_t)(dot - name) : strlen(name));
}

static int read_file(const char *name, const char *beside, const struct catalog *c, struct arena *a,
                     struct hw *out, struct err *e)
{
    char path[PATH_BYTES];
    struct doc *d = NULL;
    int st = paths_resolve(name, beside, "scenarios/hardware", "", path, sizeof path, e);
    if (st == ST_OK) st = doc_read_yaml(a, path, &d, e);
    if (st != ST_OK) return st;
    const char *own = stem(path, a);
    if ((st = parse_system(d, own, a, &out->sys, e)) != ST_OK) return st;
    if ((st = resolve_gpu(d, own, c, a, &out->gpu, e)) != ST_OK) return st;
    out->sys.gpu_name = out->gpu.name;
    return ST_OK;
}

int hw_measured(const char *path, const char *beside, struct arena *a, struct hw *h, struct err *e)
{
    char at[PATH_BYTES];
    struct profile_file *p = arena_alloc(a, sizeof *p);
    int st = paths_resolve(path, beside, "scenarios/hardware", "", at, sizeof at, e);
    if (st == ST_OK) st = profile_file_read(at, a, p, e);
    if (st != ST_OK) return st;
    if (h->measured && strcmp(h->measured->machine, p->machine) != 0)
        return err_set(
            e, ST_USAGE,
            "%s was measured on %s: its constants are not those of %s, which the hardware "
            "is",
            path, p->machine, h->measured->machine);
    bool kernels = false, named = h->gpu.arch && *h->gpu.arch && p->hw.gpu.arch && *p->hw.gpu.arch;
    for (int i = 0; i < p->n_fit; i++) kernels |= p->fit[i].law <= LAW_ELT;
    if (kernels && named && strcmp(h->gpu.arch, p->hw.gpu.arch) != 0)
        return err_set(e, ST_USAGE,
                       "%s was measured on %s (architecture %s): its kernels are not those of %s "
                       "(architecture %s)",
                       path, p->machine, p->hw.gpu.arch, h->gpu.name, h->gpu.arch);
    h->measured = p;
    return ST_OK;
}

static int read_measured(const char *path, const char *beside, int n_node, struct arena *a,
                         struct hw *out, struct err *e)
{
    struct hw h = { .n_node = n_node };
    int st = hw_measured(path, beside, a, &h, e);
    if (st != ST_OK) return st;
    const struct profile_file *p = h.measured;
    h = p->hw;
    h.measured = p;
    h.n_node = n_node;
    if ((st = hw_check_nodes(&h, e)) == ST_OK) *out = h;
    return st;
}

static bool looks_like_a_path(const char *name)
{
    return strchr(name, '/') || paths_ends_in(name, ".yaml") || paths_ends_in(name, ".yml");
}

static int unknown_name(const char *name, const struct catalog *c, struct arena *a, struct err *e)
{
    char near[64];
    const char *hint = conf_nearest(name, names(c, true, true, " ", a), near, sizeof near);
    return err_set(e, ST_USAGE, "no hardware '%.60s'%s%s%s systems: %s; GPUs: %s", name,
                   hint ? "; did you mean '" : "", hint ? hint : "", hint ? "'?" : ";",
                   names(c, true, false, ", ", a), names(c, false, true, ", ", a));
}

int hw_check_nodes(const struct hw *h, struct err *e)
{
    if (h->n_node < 1 || h->n_node > MAX_NODE)
        return err_set(e, ST_USAGE, "%d nodes: from 1 to %d are possible", h->n_node, MAX_NODE);
    if (h->n_node > 1 && h->sys.inter_bytes_per_s == 0)
        return err_set(e, ST_USAGE, "%s has no inter.rate, so %d nodes of it cannot be joined",
                       h->sys.name, h->n_node);
    return ST_OK;
}

int hw_load(const char *name, const char *beside, int n_node, struct arena *a, struct hw *out,
            struct err *e)
{
    struct catalog c;
    struct hw h = { .n_node = n_node };
    assert(name && a && out);
    if (n_node < 1) return hw_check_nodes(&h, e);
    if (paths_ends_in(name, ".h5")) return read_measured(name, beside, n_node, a, out, e);
    int st = read_catalog(a, &c, e);
    if (st != ST_OK) return st;
    const struct hw_system *s = find_system(&c, name);
    const struct hw_gpu *g = find_gpu(&c, name);
    if (s) {
        h.sys = *s;
        h.gpu = *find_gpu(&c, s->gpu_name);
    } else if (g) {
        bare_gpu(g, &h);
    } else if (looks_like_a_path(name)) {
        st = read_file(name, beside, &c, a, &h, e);
    } else {
        st = unknown_name(name, &c, a, e);
    }
    h.n_node = n_node;
    if (st == ST_OK) st = hw_check_nodes(&h, e);
    if (st == ST_OK) *out = h;
    return st;
}

int hw_list(struct arena *a, struct hw_gpu **gpus, int *n_gpu, struct hw_system **systems,
            int *n_system, struct err *e)
{
    struct catalog c;
    int st = read_catalog(a, &c, e);
    if (st != ST_OK) return st;
    *gpus = c.gpu;
    *n_gpu = c.n_gpu;
    *systems = c.system;
    *n_system = c.n_system;
    return ST_OK;
}

bool hw_on_processors(const struct hw *h)
{
    return h->gpu.arch && strcmp(h->gpu.arch, "cpu") == 0;
}
