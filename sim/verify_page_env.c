/* sim/verify_page_env.c - the environment section: GPUs, links, NICs, host and allocation as they were read.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "base/json.h"
#include "sim/verify_page.h"

enum { SHOWN_GPU = 16, SHOWN_NIC = 32 };

static const char *or_unknown(const char *text)
{
    return text && *text ? text : "unknown";
}

static const char *count(int n, struct arena *a)
{
    return n > 0 ? arena_printf(a, "%d", n) : "unknown";
}

static const char *figure(double v, const char *unit, struct arena *a)
{
    return v > 0 ? verify_figure(v, unit, a) : "unknown";
}

static void gpus(const struct topo *t, struct verify_doc *d)
{
    struct arena *a = d->a;
    if (t->n_gpu == 0) return;
    verify_doc_table(d, ">GPU|name|catalog|>NUMA|>memory|PCIe|>NVLinks|>power limit");
    for (int i = 0; i < t->n_gpu && i < SHOWN_GPU; i++) {
        const struct topo_gpu *g = &t->gpu[i];
        const char *pcie = g->pcie_gen_max > 0
                               ? arena_printf(a, "gen %d x%d", g->pcie_gen_max, g->pcie_width_max)
                               : figure(g->pcie_bytes_per_s, "bytes/s", a);
        const char *cells[] = { arena_printf(a, "%d", g->index),
                                arena_printf(a, "%s%s", or_unknown(g->name),
                                             g->mig ? " (MIG)" : ""),
                                g->catalog ? g->catalog : "none",
                                g->numa >= 0 ? arena_printf(a, "%d", g->numa) : "unknown",
                                figure(g->mem_bytes, "bytes", a),
                                pcie,
                                t->knows_nvlink ? arena_printf(a, "%d", g->n_nvlink) : "unknown",
                                figure(g->power_limit_w, "W", a) };
        verify_doc_row(d, cells);
    }
    if (t->n_gpu > SHOWN_GPU)
        verify_doc_para(d, arena_printf(a, "and %d more", t->n_gpu - SHOWN_GPU));
}

/* What joins GPU 0, 1, ... to each other, a line a GPU. */
static void links(const struct topo *t, struct verify_doc *d)
{
    struct arena *a = d->a;
    if (t->n_gpu < 2) return;
    verify_doc_table(d, ">GPU|links to GPU 0, 1, ...");
    for (int i = 0; i < t->n_gpu && i < SHOWN_GPU; i++) {
        const char *line = "";
        for (int j = 0; j < t->n_gpu && j < SHOWN_GPU; j++) {
            const struct topo_pair *p = topo_pair(t, i, j);
            const char *word = i == j ? "-" : topo_link_word(p->kind);
            line = arena_printf(a, "%s%s%s%s", line, j ? " " : "", word,
                                i != j && p->switched ? "(switch)" : "");
        }
        const char *cells[] = { arena_printf(a, "%d", t->gpu[i].index), line };
        verify_doc_row(d, cells);
    }
}

static void nics(const struct topo *t, struct verify_doc *d)
{
    struct arena *a = d->a;
    if (t->n_nic == 0) return;
    verify_doc_table(d, "NIC|RDMA|>line rate|>NUMA|>nearest GPU");
    for (int i = 0; i < t->n_nic && i < SHOWN_NIC; i++) {
        const struct topo_nic *n = &t->nic[i];
        const char *cells[] = { or_unknown(n->name), n->rdma ? "yes" : "not said",
                                figure(n->bytes_per_s, "bytes/s", a),
                                n->numa >= 0 ? arena_printf(a, "%d", n->numa) : "unknown",
                                n->near_gpu >= 0 ? arena_printf(a, "%d", t->gpu[n->near_gpu].index)
                                                 : "-" };
        verify_doc_row(d, cells);
    }
}

void verify_page_environment(const struct verify_report *r, struct verify_doc *d)
{
    const struct topo *t = r->topo;
    struct arena *a = d->a;
    if (!t) return;
    verify_doc_head(d, arena_printf(a, "Environment, read from %s", t->source));
    verify_doc_para(
        d, arena_printf(
               a,
               "Machine: %s. Processor: %s, sockets %s, cores %s, NUMA nodes %s. Memory: %s. "
               "Storage reads: %s%s%s%s. NICs: %d.",
               or_unknown(t->machine), or_unknown(t->cpu_model), count(t->n_socket, a),
               count(t->n_core, a), count(t->n_numa, a), figure(t->mem_bytes, "bytes", a),
               figure(t->storage_bytes_per_s, "bytes/s", a), t->storage_source ? " (" : "",
               t->storage_source ? t->storage_source : "", t->storage_source ? ")" : "", t->n_nic));
    gpus(t, d);
    links(t, d);
    nics(t, d);
    if (t->slurm.inside)
        verify_doc_para(
            d, arena_printf(
                   a, "SLURM job %s, partition %s: nodes %s (%s), GPUs a node %s, features %s.",
                   or_unknown(t->slurm.job_id), or_unknown(t->slurm.partition),
                   count(t->slurm.n_node, a), or_unknown(t->slurm.nodes),
                   count(t->slurm.gpus_per_node, a), or_unknown(t->slurm.features)));
    for (int i = 0; i < t->n_note; i++)
        verify_doc_para(d, arena_printf(a, "Note: %s.", t->note[i]));
}

/* ---- JSON */

static double known(double v)
{
    return v > 0 ? v : NAN;
}

static json_t *gpus_json(const struct topo *t)
{
    json_t *list = json_array();
    for (int i = 0; i < t->n_gpu; i++) {
        const struct topo_gpu *g = &t->gpu[i];
        json_t *o = json_object(), *row = json_array();
        json_put_text(o, "name", g->name);
        json_put_text(o, "catalog", g->catalog);
        json_put_i64(o, "numa", g->numa);
        json_put_f64(o, "memory_bytes", known(g->mem_bytes));
        json_put_f64(o, "pcie_bytes_per_s", known(g->pcie_bytes_per_s));
        json_put_i64(o, "nvlinks", g->n_nvlink);
        json_put_f64(o, "power_limit_w", known(g->power_limit_w));
        for (int j = 0; j < t->n_gpu; j++)
            json_array_append_new(row, json_string(topo_link_word(topo_pair(t, i, j)->kind)));
        json_put(o, "links", row);
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *nics_json(const struct topo *t)
{
    json_t *list = json_array();
    for (int i = 0; i < t->n_nic; i++) {
        json_t *o = json_object();
        json_put_text(o, "name", t->nic[i].name);
        json_put_bool(o, "rdma", t->nic[i].rdma);
        json_put_f64(o, "bytes_per_s", known(t->nic[i].bytes_per_s));
        json_put_i64(o, "numa", t->nic[i].numa);
        json_array_append_new(list, o);
    }
    return list;
}

json_t *verify_json_environment(const struct topo *t)
{
    json_t *j = json_object(), *notes = json_array();
    json_put_text(j, "source", t->source);
    json_put_text(j, "machine", t->machine);
    json_put_text(j, "processor", t->cpu_model);
    json_put_i64(j, "cores", t->n_core);
    json_put_i64(j, "sockets", t->n_socket);
    json_put_i64(j, "numa_nodes", t->n_numa);
    json_put_f64(j, "memory_bytes", known(t->mem_bytes));
    json_put_f64(j, "storage_bytes_per_s", known(t->storage_bytes_per_s));
    json_put(j, "gpus", gpus_json(t));
    json_put(j, "nics", nics_json(t));
    if (t->slurm.inside) {
        json_put_text(j, "slurm.job_id", t->slurm.job_id);
        json_put_text(j, "slurm.partition", t->slurm.partition);
        json_put_i64(j, "slurm.nodes", t->slurm.n_node);
        json_put_i64(j, "slurm.gpus_per_node", t->slurm.gpus_per_node);
        json_put_text(j, "slurm.features", t->slurm.features);
    }
    for (int i = 0; i < t->n_note; i++) {
        json_t *text = json_string(t->note[i]);
        json_array_append_new(notes, text ? text : json_string("?"));
    }
    json_put(j, "notes", notes);
    return j;
}
