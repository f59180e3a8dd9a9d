/* engine/launch.c - reads the environment that launchers leave to their processes.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/launch.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/stop.h"
#include "engine/engine.h"

/* Within a batch job mpirun's processes see the SLURM_PROCID of its daemon, so mpirun comes first; a
 * batch script has SLURM_PROCID too, and only a step's tasks have SLURM_STEP_ID. */
static const struct {
    const char *rank, *size, *only_if;
} launcher[] = { { "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", NULL },
                 { "PMI_RANK", "PMI_SIZE", NULL },
                 { "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_ID" } };

struct started {
    int rank, n;
};

static struct started how_started(void)
{
    for (size_t i = 0; i < sizeof launcher / sizeof *launcher; i++) {
        const char *rank = getenv(launcher[i].rank), *size = getenv(launcher[i].size);
        if (!rank || !size || (launcher[i].only_if && !getenv(launcher[i].only_if))) continue;
        return (struct started){ (int)strtol(rank, NULL, 10), (int)strtol(size, NULL, 10) };
    }
    return (struct started){ 0, 1 };
}

int launch_start(struct launch *l, enum launch_comm how, struct err *e)
{
    struct started s = how_started();
    *l = (struct launch){ 0 };
    if (how == LAUNCH_THREAD && s.n > 1)
        return err_set(e, ST_USAGE,
                       "%d processes were started, each of which would run all ranks as "
                       "threads; start one, or leave --comm=thread out",
                       s.n);
    if (how != LAUNCH_MPI && s.n <= 1) return ST_OK;
    l->mpi = comm_mpi_open(e);
    if (!l->mpi) return e && e->status != ST_OK ? e->status : ST_DEVICE;
    if (s.n != comm_mpi_size(l->mpi) && s.n > 1)
        return err_set(e, ST_USAGE,
                       "%d processes were started, but MPI knows of %d: under srun, "
                       "--mpi=pmix is missing",
                       s.n, comm_mpi_size(l->mpi));
    l->follows = comm_mpi_rank(l->mpi) != 0;
    return ST_OK;
}

void launch_stall(struct launch *l, int64_t ns)
{
    if (l->mpi) comm_mpi_stall(l->mpi, ns);
}

/* What is wrong with the command line is so on all ranks, and launchers end a job of which one process
 * has failed. Where that does not come, the others wait for this one. */
static bool failed_alone(void)
{
    enum { PATIENCE = 4 * 50 };
    const struct timespec pause = { .tv_nsec = 20 * 1000 * 1000 };
    for (int i = 0; i < PATIENCE && !stop_asked(); i++) nanosleep(&pause, NULL);
    return !stop_asked();
}

void launch_say(const struct launch *l, const char *program, const char *text)
{
    int rank = how_started().rank;
    if (rank == 0 || (l->mpi && comm_mpi_orphan(l->mpi)))
        fprintf(stderr, "%s: %s\n", program, text);
    else if (!l->mpi && failed_alone())
        fprintf(stderr, "%s: rank %d: %s\n", program, rank, text);
}

void launch_end(struct launch *l)
{
    if (!l->mpi) return;
    if (!l->follows && comm_mpi_check(l->mpi, NULL) == ST_OK) engine_dismiss(l->mpi);
    comm_mpi_close(l->mpi);
    l->mpi = NULL;
}
