/* engine/comm_mpi_none.c - takes the place of comm_mpi.c where Open MPI's headers are absent.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "engine/comm.h"

struct comm_mpi *comm_mpi_open(struct err *e)
{
    err_set(e, ST_USAGE,
            "this build has no MPI: ranks are threads of one process. To have it, install Open MPI "
            "(libopenmpi-dev, openmpi-bin) and build again");
    return NULL;
}

void comm_mpi_close(struct comm_mpi *m)
{
    (void)m; /* NULL */
}

/* The rest cannot be reached: nobody has a comm_mpi. */

int comm_mpi_rank(const struct comm_mpi *m)
{
    (void)m;
    abort();
}

int comm_mpi_size(const struct comm_mpi *m)
{
    (void)m;
    abort();
}

const struct comm_mpi_place *comm_mpi_place(const struct comm_mpi *m)
{
    (void)m;
    abort();
}

void comm_mpi_stall(struct comm_mpi *m, int64_t ns)
{
    (void)m, (void)ns;
    abort();
}

int comm_mpi_check(struct comm_mpi *m, struct err *e)
{
    (void)m, (void)e;
    abort();
}

bool comm_mpi_orphan(const struct comm_mpi *m)
{
    (void)m;
    abort();
}

struct comm *comm_mpi_world(struct comm_mpi *m)
{
    (void)m;
    abort();
}

struct comm *comm_mpi_tp(struct comm_mpi *m)
{
    (void)m;
    abort();
}

void comm_mpi_split(struct comm_mpi *m, int tp, size_t n_sum, int spin_max)
{
    (void)m, (void)tp, (void)n_sum, (void)spin_max;
    abort();
}

void comm_mpi_reserve(struct comm_mpi *m, int to, size_t bytes)
{
    (void)m, (void)to, (void)bytes;
    abort();
}
