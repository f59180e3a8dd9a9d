/* tests/nccl_job.h - a function on every rank, each on a thread of its own.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_NCCL_JOB_H
#define TESTS_NCCL_JOB_H

#include <pthread.h>

#include "engine/comm.h"

struct nccl_job {
    struct comm_thread *t;
    int rank;
    void (*fn)(struct nccl_job *);
    void *arg;
    int st;
    struct err e;
    pthread_t id;
};

/* fn on ranks 0 to n - 1 until all have ended; j[n] is then for the caller to look at. */
void nccl_job_run(struct comm_thread *t, int n, void (*fn)(struct nccl_job *), void *arg,
                  struct nccl_job *j);

#endif
