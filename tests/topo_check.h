/* tests/topo_check.h - what holds of every topology that was read, whatever the input.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_TOPO_CHECK_H
#define TESTS_TOPO_CHECK_H

#include <math.h>
#include <stddef.h>

#include "model/topo.h"

/* Texts that may be NULL. */
static inline const char *or_none(const char *text)
{
    return text ? text : "(none)";
}
#define CHECK_SAME(got, want) test_check_text(or_none(got), or_none(want), __FILE__, __LINE__, #got)

static inline const char *topo_pair_fault(const struct topo *t, int i, int j)
{
    const struct topo_pair *p = topo_pair(t, i, j), *q = topo_pair(t, j, i);
    if ((p->kind == TOPO_SELF) != (i == j)) return "self is the diagonal";
    if ((unsigned)p->kind > TOPO_UNKNOWN || (unsigned)p->pcie > TOPO_UNKNOWN)
        return "a kind of link";
    if (p->kind != q->kind || p->pcie != q->pcie || p->n_nvlink != q->n_nvlink) return "symmetry";
    if (p->switched != q->switched || p->bytes_per_s != q->bytes_per_s) return "symmetry of rates";
    if ((p->kind == TOPO_NVLINK) != (p->n_nvlink > 0)) return "NVLink has links";
    if (p->pcie == TOPO_NVLINK) return "PCIe is not NVLink";
    if (!(p->bytes_per_s >= 0) || isinf(p->bytes_per_s)) return "a rate";
    return (i == j) != (p->source != NULL) ? NULL : "a rate has a source";
}

/* NULL: nothing is wrong. */
static inline const char *topo_fault(const struct topo *t)
{
    if (t->n_gpu < 0 || t->n_gpu > TOPO_MAX_GPU || t->n_nic < 0 || t->n_nic > TOPO_MAX_NIC)
        return "counts";
    if (!t->source || !t->storage_source) return "sources";
    for (int i = 0; i < t->n_gpu; i++) {
        const struct topo_gpu *g = &t->gpu[i];
        if (!(g->mem_bytes >= 0) || !(g->pcie_bytes_per_s >= 0) || !(g->nvlink_bytes_per_s >= 0))
            return "a GPU";
        if (g->numa < -1 || g->n_nvlink < 0) return "a GPU's places";
        if (g->catalog && (!g->name || g->mig)) return "a GPU of the catalog has a name";
        for (int j = 0; j < t->n_gpu; j++)
            if (topo_pair_fault(t, i, j)) return topo_pair_fault(t, i, j);
    }
    for (int k = 0; k < t->n_nic; k++) {
        const struct topo_nic *c = &t->nic[k];
        if (!c->name || !(c->bytes_per_s >= 0) || c->numa < -1) return "a NIC";
        if (c->near_gpu < -1 || c->near_gpu >= t->n_gpu || (c->near_gpu < 0) != (t->n_gpu == 0))
            return "nearest";
        for (int i = 0; i < t->n_gpu; i++)
            if (c->to_gpu[i] < c->to_gpu[c->near_gpu]) return "a nearer GPU";
    }
    for (int i = 0; i < t->n_note; i++)
        if (!t->note[i] || !t->note[i][0]) return "a note";
    return NULL;
}

#endif
