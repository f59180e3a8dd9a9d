/* tests/fake_cublaslt.h - cuBLASLt on the CPU: products by the library's documented meaning, N_ALGO
 * algorithms that differ in their cost on a clock of its own. Builds with CUDA only.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_FAKE_CUBLASLT_H
#define TESTS_FAKE_CUBLASLT_H

#include <stdbool.h>

#include "engine/backend_cuda.h"

enum { FAKE_LT_ALGOS = 8 };

struct fake_lt {
    int n_algo;                       /* proposed; 0: none known */
    double cost_ns[FAKE_LT_ALGOS];    /* of a product */
    bool refuses[FAKE_LT_ALGOS];      /* proposed, but Matmul does not take it */
    size_t work_bytes[FAKE_LT_ALGOS]; /* that one needs, as a check says */
    bool unfit[FAKE_LT_ALGOS];        /* a check does not take it */
    bool recording; /* products are not computed, their cost goes to recorded_ns */
    double now_ns, recorded_ns;
    int fail_at; /* the n-th call fails; 0: none */
    /* what happened */
    int calls, live, asked; /* all, objects not yet destroyed, heuristic queries */
    int checked;
    int issued[FAKE_LT_ALGOS];
    int n_recorded;
    const void *first_w, *last_w; /* of the products recorded */
    unsigned align;               /* of operand A in the last query */
};
extern struct fake_lt fake_lt;

void fake_lt_reset(void); /* 4 algorithms of cost 1000 ns, all counts 0 */
const struct backend_cuda_lt *fake_lt_table(void);

#endif
