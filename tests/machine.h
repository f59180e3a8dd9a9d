/* tests/machine.h - a synthetic machine: laws fitted to points that known constants and some noise
 * made, as a measured profile. SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_MACHINE_H
#define TESTS_MACHINE_H

#include "model/profile_file.h"

/* Two ranks: 60 GFLOP/s and 12 GB/s each. */
#define MACHINE_PEAK 60e9
#define MACHINE_RATE 12e9
/* gemm, decode and prefill in f32, elementwise, allreduce and allgather over 2 ranks, p2p, net, step */
enum { MACHINE_N_LAW = 9, MACHINE_MAX_CTX = 1024, MACHINE_MAX_SEQS = 64 };

struct machine {
    struct arena a;
    struct fit fit[MACHINE_N_LAW];
    struct profile_extra extra[2];
    struct profile_file p;
    struct err e;
    struct prov prov;
};

/* noise: sd of the logarithm of a point. Errors: in m->e. */
int machine_init(struct machine *m, double noise);
void machine_release(struct machine *m);
/* Its file in the test's directory; NULL after a failed check. */
const char *machine_file(struct machine *m, const char *name, double noise);

#endif
