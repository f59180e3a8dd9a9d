/* engine/link.c - see link.h. SPDX-License-Identifier: Apache-2.0 */
#include "engine/link.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

int link_share(struct comm *world, void *data, size_t bytes, struct err *e)
{
    const char *how = getenv("ORRERY_NCCL_BOOT");
    struct nccl_boot_job j = { .rank = world->rank, .n = world->n, .key = "orrery" };
    int st = ST_OK;
    if (!how || !how[0] || strcmp(how, "mpi") == 0)
        return nccl_boot_comm(world, data, bytes, NCCL_BOOT_LIMIT_MS, e);
    if (strcmp(how, "slurm") == 0)
        st = nccl_boot_slurm(&j, e);
    else if (!strchr(how, '/') ||
             (size_t)snprintf(j.path, sizeof j.path, "%s", how) >= sizeof j.path)
        st = err_set(e, ST_USAGE,
                     "ORRERY_NCCL_BOOT is '%.80s': mpi, slurm, or the path of a file that all "
                     "ranks see",
                     how);
    if (st == ST_OK && (j.n != world->n || j.rank != world->rank))
        st = err_set(e, ST_USAGE,
                     "SLURM calls rank %d of %d task %d of %d: take "
                     "ORRERY_NCCL_BOOT=mpi",
                     world->rank, world->n, j.rank, j.n);
    j.world = world;
    return st == ST_OK ? nccl_boot_file(&j, data, bytes, e) : st;
}

struct comm_nccl *link_start(struct link *l, struct gpu *g, int rank, struct comm *world,
                             struct err *e)
{
    int st = ST_OK;
    assert(l->on);
    if (!l->threads && rank == 0) st = comm_nccl_make_ids(&l->api, l->tp, l->pp, l->id, e);
    if (!l->threads && st == ST_OK) st = link_share(world, l->id, id_bytes(l), e);
    if (!l->threads && st == ST_OK) st = nccl_boot_board(world, &l->seen, e);
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
    if (l->threads)
        free(l->seen);
    else
        nccl_boot_board_close(l->seen, l->tp * l->pp);
    l->id = NULL;
    l->seen = NULL;
}
