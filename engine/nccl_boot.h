/* engine/nccl_boot.h - how NCCL's identifiers get from rank 0 to all ranks.
 *
 * By a communicator of the host (threads, MPI), or through files on a disk that all ranks see,
 * which a user or SLURM's environment names. All ways end within the limit, with a sentence that
 * says which rank is missing. SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_NCCL_BOOT_H
#define ENGINE_NCCL_BOOT_H

#include "engine/comm_nccl.h"

enum { NCCL_BOOT_LIMIT_MS = 30000, NCCL_BOOT_HELLO_BYTES = 8, NCCL_BOOT_KEY = 64 };

/* data[bytes] of rank 0 on all ranks of `world`, in which every rank can send
 * NCCL_BOOT_HELLO_BYTES to rank 0 (comm_thread_reserve, comm_mpi_reserve). A rank that fails wakes
 * the others, as always; one that hangs is named by rank 0, and rank 0 by the others, limit_ms
 * later. Errors: ST_DEVICE. */
int nccl_boot_comm(struct comm *world, void *data, size_t bytes, int limit_ms, struct err *e);

/* Memory for comm_nccl_opts.seen of processes on one host: all call it, together. *seen [world->n],
 * or NULL on all where there is no such memory. Errors: those of world. (Threads share what one of
 * them has allocated; processes on several hosts have none.) */
int nccl_boot_board(struct comm *world, comm_nccl_seen **seen, struct err *e);
void nccl_boot_board_close(comm_nccl_seen *seen, int n); /* NULL is fine */

struct nccl_boot_job {
    char path[3800];         /* begins the names of all files; the directory must exist */
    char key[NCCL_BOOT_KEY]; /* of this job: what other jobs left there is not ours */
    int rank, n;
    int limit_ms;            /* 0: NCCL_BOOT_LIMIT_MS */
    struct nccl_clock clock; /* zeroed: nccl_clock_real */
    struct comm *world; /* of the same ranks, asked meanwhile for one that has failed; NULL: none */
};

/* From SLURM_JOB_ID, SLURM_STEP_ID, SLURM_PROCID and SLURM_STEP_NUM_TASKS (or SLURM_NTASKS); in
 * $ORRERY_NCCL_DIR, $SLURM_SUBMIT_DIR or $HOME, the first that is set. Errors: ST_USAGE with the
 * variable that is missing or makes no sense. */
int nccl_boot_slurm(struct nccl_boot_job *j, struct err *e);

/* data[bytes] of rank 0 on all ranks of the job. Each rank writes PATH.RANK with a number drawn for
 * this start; rank 0 answers in PATH with all of those, and a rank takes only an answer that holds
 * its own: a file that an earlier start left, of the same key too, is never taken for one of this.
 * Files appear whole, and rank 0 removes them. Errors: ST_DEVICE with who is missing or, of the
 * world, has failed; ST_IO. */
int nccl_boot_file(const struct nccl_boot_job *j, void *data, size_t bytes, struct err *e);

#endif
