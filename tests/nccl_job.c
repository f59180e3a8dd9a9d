/* tests/nccl_job.c - see nccl_job.h. SPDX-License-Identifier: Apache-2.0 */
#include "tests/nccl_job.h"

#include <stdlib.h>

static void *run(void *p)
{
    struct nccl_job *j = p;
    j->fn(j);
    return NULL;
}

void nccl_job_run(struct comm_thread *t, int n, void (*fn)(struct nccl_job *), void *arg,
                  struct nccl_job *j)
{
    for (int i = 0; i < n; i++) {
        j[i] = (struct nccl_job){ .t = t, .rank = i, .fn = fn, .arg = arg };
        if (pthread_create(&j[i].id, NULL, run, &j[i]) != 0) abort();
    }
    for (int i = 0; i < n; i++) pthread_join(j[i].id, NULL);
}
