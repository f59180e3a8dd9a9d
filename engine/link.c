/* engine/link.c - see link.h. SPDX-License-Identifier: Apache-2.0 */
#include "engine/link.h"

#include <assert.h>
#include <stdlib.h>

#include "base/arena.h"
#include "engine/nccl_boot.h"

int link_choose(struct link *l, const struct device *d, int n_here, struct err *e)
{
    bool one = l->tp * l->pp == 1;
    l->shared = d->kind == DEVICE_CUDA && device_shared(d, n_here);
    l->on = d->kind == DEVICE_CUDA && !one && d->link != DEVICE_LINK_HOST &&
            (d->link == DEVICE_LINK_NCCL || !(l->shared || d->open));
    if (!l->on) return ST_OK;
    int st = nccl_api_load(&l->api, e);
    if (st == ST_OK) st = nccl_api_check(&l->api, NULL, e);
    if (st != ST_OK && d->link == DEVICE_LINK_AUTO)
        err_prefix(e, "GPUs exchange by NCCL, or with --exchange=host through the host");
    return st;
}

static size_t id_bytes(const struct link *l)
{
    return (size_t)comm_nccl_n_id(l->tp, l->pp) * sizeof *l->id;
}

int link_make(struct link *l, struct err *e)
{
    if (!l->on) return ST_OK;
    l->id = mem_zalloc(1, id_bytes(l));
    if (!l->threads) return ST_OK;
    l->seen = mem_zalloc((size_t)l->tp * (size_t)l->pp, sizeof *l->seen);
    return comm_nccl_make_ids(&l->api, l->tp, l->pp, l->id, e);
}

struct comm_nccl *link_start(struct link *l, struct gpu *g, int rank, struct comm *world,
                             struct err *e)
{
    int st = ST_OK;
    assert(l->on);
    if (!l->threads && rank == 0) st = comm_nccl_make_ids(&l->api, l->tp, l->pp, l->id, e);
    if (!l->threads && st == ST_OK)
        st = nccl_boot_comm(world, l->id, id_bytes(l), NCCL_BOOT_LIMIT_MS, e);
    const struct comm_nccl_opts o = { .api = &l->api,
                                      .gpu = g,
                                      .rank = rank,
                                      .tp = l->tp,
                                      .pp = l->pp,
                                      .id = l->id,
                                      .message_bytes = l->message_bytes,
                                      .world = world,
                                      .alive = l->alive,
                                      .alive_arg = l->alive_arg,
                                      .seen = l->seen,
                                      .shares_device = l->shared,
                                      .threads = l->threads };
    return st == ST_OK ? comm_nccl_start(&o, e) : NULL;
}

void link_release(struct link *l)
{
    free(l->id);
    free(l->seen);
    l->id = NULL;
    l->seen = NULL;
}
