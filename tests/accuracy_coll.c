/* tests/accuracy_coll.c - collectives against AIConfigurator's, Vidur's and DeepEP's tables.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/doc.h"
#include "base/paths.h"
#include "model/coll.h"
#include "tests/accuracy.h"

static const struct {
    const char *dir, *system, *set, *title;
} gpus[] = {
    { "a100_sxm", "dgx-a100", "a100", "A100 SXM" },
    { "h100_sxm", "dgx-h100", "h100", "H100 SXM" },
    { "l40s", "8xl40s-pcie", "l40s", "L40S" },
    { "rtx_pro_6000_server", "8xrtxpro6000-pcie", "rtx-pro-6000", "RTX PRO 6000" },
};
enum { N_GPU = sizeof gpus / sizeof *gpus };

struct coll {
    struct acc *w;
    struct acc_groups groups;
    struct doc *profiles; /* profiles.yaml, for the release of each fit */
};

static int bin_of(double bytes)
{
    return bytes < 65536 ? 0 : bytes < 4194304 ? 1 : 2;
}

static bool says(const struct doc *d, const char *key, const char *want)
{
    const struct doc *c = doc_get(d, key);
    return c && c->text && strcmp(c->text, want) == 0;
}

/* Whether the laws of this set, maker and operation were fitted to this release. */
static const char *sample_of(const struct coll *c, const char *set, const char *by,
                             const char *version, const char *op)
{
    const char *why = "no: not fitted, link figures";
    const struct doc *all = doc_get(c->profiles, "collective");
    for (const struct doc *d = all ? all->first : NULL; d; d = d->next) {
        if (!says(d, "set", set) || !says(d, "op", op) || !says(d, "by", by)) continue;
        if (says(d, "version", version)) return "yes";
        why = "no: other release";
    }
    return why;
}

static bool open_env(struct coll *c, struct acc_env *v, const char *system, const char *engine,
                     int n)
{
    struct acc_ask q = { system, engine, n, 1, DT_BF16, DT_BF16 };
    if (acc_env_init(v, &q) == ST_OK) return true;
    acc_say(c->w, "\n* %s: %s\n", system, v->e.text);
    acc_env_release(v);
    return false;
}

/* ---- AIConfigurator: message sizes in elements */

struct release { /* of one file */
    const char *path;
    char dir[64], by[32], version[32];
    int gpu;
};

static bool release_of(const char *path, struct release *r)
{
    char name[64];
    *r = (struct release){ .path = path, .gpu = -1 };
    if (sscanf(path, "collectives_aiconfigurator/%63[^/]/%63[^/]/", r->dir, name) != 2 ||
        sscanf(name, "%31[^-]-%31s", r->by, r->version) != 2)
        return false;
    for (int i = 0; i < N_GPU; i++)
        if (strcmp(gpus[i].dir, r->dir) == 0) r->gpu = i;
    return r->gpu >= 0;
}

static struct acc_group *group(struct coll *c, const struct release *r, const char *op, int n)
{
    bool nccl = strcmp(r->by, "nccl") == 0;
    const char *sample = sample_of(c, gpus[r->gpu].set, r->by, r->version, op);
    if (strcmp(sample, "yes") != 0 && !nccl && strstr(sample, "link"))
        sample = "no: kernel of another engine or NCCL's law";
    char key[128];
    snprintf(key, sizeof key, "%s, %s %s, %s, %d GPUs", gpus[r->gpu].title, r->by, r->version, op,
             n);
    return acc_group_of(&c->groups, key, sample);
}

static void summary_of(struct coll *c, const char *path, const char *what, int first)
{
    acc_groups_summary(c->w, &c->groups, first, path, what);
}

static void nccl_file(struct coll *c, const struct release *r)
{
    struct acc_csv csv;
    if (!acc_open(c->w, r->path, &csv)) return;
    int first = c->groups.n;
    for (int n = 2; n <= 8; n *= 2) {
        struct acc_env v;
        if (!open_env(c, &v, gpus[r->gpu].system, "any", n)) continue;
        v.profile.ar_limit_bytes = 0; /* the library alone */
        struct coll_group g = coll_group_of(&v.hw, n, false);
        for (size_t i = 0; i < csv.n_row; i++) {
            if (acc_csv_named(&csv, i, "num_gpus") != n) continue;
            bool half = strcmp(acc_csv_word(&csv, i, "nccl_dtype"), "half") == 0;
            const char *op = acc_csv_word(&csv, i, "op_name");
            double bytes = acc_csv_named(&csv, i, "message_size") * (half ? 2 : 1);
            bool gather = strcmp(op, "all_gather") == 0;
            acc_group_add(group(c, r, op, n), bin_of(bytes),
                          gather ? coll_allgather_s(&v.profile, &g, bytes)
                                 : coll_allreduce_s(&v.profile, &g, bytes),
                          acc_csv_named(&csv, i, "latency") * 1e-3);
        }
        acc_env_release(&v);
    }
    summary_of(c, r->path, "NCCL in a node", first);
    acc_csv_release(&csv);
}

static void custom_file(struct coll *c, const struct release *r)
{
    struct acc_csv csv;
    if (!acc_open(c->w, r->path, &csv)) return;
    int first = c->groups.n;
    size_t eager = 0;
    bool known = strcmp(r->by, "vllm") == 0 || strcmp(r->by, "trtllm") == 0;
    for (int n = 2; n <= 8; n *= 2) {
        struct acc_env v;
        if (!open_env(c, &v, gpus[r->gpu].system, known ? r->by : "any", n)) continue;
        struct coll_group g = coll_group_of(&v.hw, n, false);
        for (size_t i = 0; i < csv.n_row; i++) {
            if (acc_csv_named(&csv, i, "num_gpus") != n) continue;
            if (strstr(acc_csv_word(&csv, i, "backend"), "eager")) {
                eager++;
                continue;
            }
            double bytes = acc_csv_named(&csv, i, "message_size") * 2;
            acc_group_add(group(c, r, "all_reduce", n), bin_of(bytes),
                          coll_allreduce_s(&v.profile, &g, bytes),
                          acc_csv_named(&csv, i, "latency") * 1e-3);
        }
        acc_env_release(&v);
    }
    summary_of(c, r->path, "engine's all-reduce in a node", first);
    if (eager) acc_summary(c->w, r->path, "-", NULL, eager, "not modelled: eager launch");
    acc_csv_release(&csv);
}

/* ---- expert dispatch and combine */

/* Bytes that a rank hands over: once per distinct rank among a token's choices, 16-bit. */
static double deepep_bytes(double tok, double hidden, double topk, double ranks)
{
    return tok * ranks * -expm1(topk * log1p(-1 / ranks)) * hidden * 2;
}

static void deepep_row(struct coll *c, const struct acc_csv *csv, size_t i, const char *kind,
                       const struct acc_env *v)
{
    double nodes = acc_csv_named(csv, i, "node_num"), tok = acc_csv_named(csv, i, "num_token");
    bool low = strcmp(kind, "low latency") == 0;
    double bytes = deepep_bytes(tok, acc_csv_named(csv, i, "hidden_size"),
                                acc_csv_named(csv, i, "num_topk"), 8 * nodes);
    struct coll_group g = { (int)(8 * nodes), 8 };
    double p = coll_alltoall_s(&v->profile, &g, bytes);
    static const char *const ops[] = { "dispatch", "combine" };
    for (int k = 0; k < 2; k++) {
        char col[64], more[64];
        snprintf(col, sizeof col, "%s_%s", ops[k], low ? "avg_t_us" : "transmit_us");
        snprintf(more, sizeof more, "%s_notify_us", ops[k]);
        double us = acc_csv_named(csv, i, col) + (low ? 0 : acc_csv_named(csv, i, more));
        const char *key = arena_printf(&c->w->a, "DeepEP %s, %s, %g node%s", kind, ops[k], nodes,
                                       nodes > 1 ? "s" : "");
        acc_group_add(acc_group_of(&c->groups, key, "no"),
                      tok <= 16    ? 0
                      : tok <= 256 ? 1
                                   : 2,
                      p, us * 1e-6);
    }
}

/* Normal mode was timed over the number of SMs lent to it: 20, the library's default, is taken. */
static void deepep_file(struct coll *c, const struct release *r)
{
    struct acc_csv csv;
    struct acc_env v;
    if (!acc_open(c->w, r->path, &csv)) return;
    int first = c->groups.n;
    size_t other = 0;
    bool low = strstr(r->path, "_ll_") != NULL;
    if (open_env(c, &v, "dgx-h100", "any", 8)) {
        for (size_t i = 0; i < csv.n_row; i++) {
            if (!low && acc_csv_named(&csv, i, "dispatch_sms") != 20)
                other++;
            else
                deepep_row(c, &csv, i, low ? "low latency" : "normal", &v);
        }
        acc_env_release(&v);
    }
    summary_of(c, r->path, low ? "all-to-all, low latency" : "all-to-all, normal, 20 SMs", first);
    if (other) acc_summary(c->w, r->path, "-", NULL, other, "not modelled: other numbers of SMs");
    acc_csv_release(&csv);
}

static void published_file(struct coll *c, const char *path)
{
    struct acc_csv csv;
    struct acc_env v;
    if (!acc_open(c->w, path, &csv)) return;
    int first = c->groups.n;
    size_t no_time = 0;
    if (open_env(c, &v, "dgx-h100", "any", 8)) {
        for (size_t i = 0; i < csv.n_row; i++) {
            double us = acc_csv_named(&csv, i, "latency_us"),
                   ep = acc_csv_named(&csv, i, "ep_size");
            if (!(us > 0)) {
                no_time++;
                continue;
            }
            double bytes =
                deepep_bytes(acc_csv_named(&csv, i, "tokens_per_rank"),
                             acc_csv_named(&csv, i, "hidden"), acc_csv_named(&csv, i, "topk"), ep);
            struct coll_group g = { (int)ep, 8 };
            const char *key = arena_printf(&c->w->a, "DeepEP page, H800 as H100, %s, EP %g",
                                           acc_csv_word(&csv, i, "op"), ep);
            acc_group_add(acc_group_of(&c->groups, key, "no"), 1,
                          coll_alltoall_s(&v.profile, &g, bytes), us * 1e-6);
        }
        acc_env_release(&v);
    }
    summary_of(c, path, "all-to-all, low latency", first);
    if (no_time)
        acc_summary(c->w, path, "-", NULL, no_time, "not comparable: bandwidth alone is given");
    acc_csv_release(&csv);
}

/* ---- Vidur: sizes in bytes */

static const struct {
    const char *stem, *system;
} nodes[] = {
    { "a100_dgx", "dgx-a100" },
    { "h100_dgx", "dgx-h100" },
    { "a100_pairwise_nvlink", "4xa100-pcie" },
    { "h100_pairwise_nvlink", "4xh100-pcie" },
    { "a40_pairwise_nvlink", NULL },
};

/* devices_per_node below num_workers: between nodes; on the boxes of pairs, over PCIe in the node,
 * for which the model has the one law of any two GPUs of a node. */
static void vidur_rows(struct coll *c, const struct acc_csv *csv, const char *stem,
                       const char *system, bool send)
{
    for (int n = 2; n <= 8; n *= 2) {
        struct acc_env v;
        if (!open_env(c, &v, system, "any", n)) continue;
        v.profile.ar_limit_bytes = 0;
        for (size_t i = 0; i < csv->n_row; i++) {
            double per = acc_csv_named(csv, i, "devices_per_node");
            double bytes = acc_csv_named(csv, i, "size");
            if (acc_csv_named(csv, i, "num_workers") != n) continue;
            double ms = acc_csv_named(
                csv, i, send ? "time_stats.send_recv.median" : "time_stats.all_reduce.median");
            bool pairs = strstr(stem, "pairwise") != NULL, apart = per < n;
            struct coll_group g = { n, pairs ? n : (int)per };
            const char *where = !apart ? "in a node" : pairs ? "across pairs" : "between nodes";
            char key[128];
            snprintf(key, sizeof key, "Vidur %s, %s, %d GPUs, %s", stem,
                     send ? "send-receive" : "all-reduce", n, where);
            bool from = strcmp(stem, "h100_dgx") == 0 && apart;
            acc_group_add(
                acc_group_of(&c->groups, key, from ? "in part: the system's link figure" : "no"),
                bin_of(bytes),
                send ? coll_p2p_s(&v.profile, apart && !pairs, bytes)
                     : coll_allreduce_s(&v.profile, &g, bytes),
                ms * 1e-3);
        }
        acc_env_release(&v);
    }
}

static void vidur_file(struct coll *c, const char *path)
{
    struct acc_csv csv;
    const char *name = strrchr(path, '/') + 1;
    bool send = strstr(name, "send_recv") != NULL;
    if (!acc_open(c->w, path, &csv)) return;
    int first = c->groups.n;
    for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++) {
        if (strncmp(name, nodes[i].stem, strlen(nodes[i].stem)) != 0) continue;
        if (nodes[i].system)
            vidur_rows(c, &csv, nodes[i].stem, nodes[i].system, send);
        else
            acc_summary(c->w, path, "-", NULL, csv.n_row,
                        "not modelled: no such node in the catalog");
    }
    summary_of(c, path, send ? "send-receive" : "all-reduce", first);
    acc_csv_release(&csv);
}

/* ---- all */

static void table(struct coll *c, const char *head)
{
    static const char *const bins[ACC_BINS] = { "< 64 KiB", "to 4 MiB", "> 4 MiB" };
    static const char *const toks[ACC_BINS] = { "<= 16 tok", "17-256", "> 256" };
    acc_table(c->w, &c->groups, head, strcmp(head, "experts") == 0 ? toks : bins);
    acc_groups_release(&c->groups);
}

void acc_collectives(struct acc *w)
{
    struct coll c = { .w = w };
    char path[4096];
    const char **file;
    if (paths_find("scenarios/hardware/profiles.yaml", path, sizeof path, NULL) == ST_OK)
        doc_read_yaml(&w->a, path, &c.profiles, NULL);
    acc_say(w, "\n## Collectives\n\n### AIConfigurator: NCCL and the engines' own kernels\n\n"
               "Columns before the last: median bias by bytes of the whole tensor. Of NCCL the "
               "library's law alone; of an engine the smaller of its own and NCCL's, in CUDA "
               "graphs. The L40S tables reach 1-5 GB/s over 4 and 8 GPUs in all but SGLang 0.5.12: "
               "most likely a host without working peer-to-peer. RTX PRO 6000 pairs reach 15 GB/s "
               "in the older tables, 38 in the newer: two hosts.\n");
    int n = acc_find(w, "collectives_aiconfigurator", ".csv", &file);
    for (int pass = 0; pass < 3; pass++) {
        for (int i = 0; i < n; i++) {
            struct release r;
            bool nccl = strstr(file[i], "nccl_perf"), own = strstr(file[i], "custom_allreduce");
            if (!release_of(file[i], &r) || (nccl ? 0 : own ? 1 : 2) != pass) continue;
            (nccl ? nccl_file : own ? custom_file : deepep_file)(&c, &r);
        }
        if (pass == 1) table(&c, "collective");
    }
    published_file(&c, "collectives_published/expert_dispatch_combine.csv");
    acc_say(w,
            "\n### Expert dispatch and combine (DeepEP)\n\nThe model has one all-to-all law with "
            "16-bit payloads from point-to-point figures, no DeepEP constants: dispatch was "
            "measured in fp8, half the bytes.\n");
    table(&c, "experts");
    acc_say(w, "\n### Vidur\n\nLinks between nodes are facts of the cluster they were measured "
               "on.\n");
    n = acc_find(w, "collectives_vidur", ".csv", &file);
    for (int i = 0; i < n; i++) vidur_file(&c, file[i]);
    table(&c, "collective");
}
