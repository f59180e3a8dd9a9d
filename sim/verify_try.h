/* sim/verify_try.h - one plan tried in memory of its own, for alternatives and advice.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_VERIFY_TRY_H
#define SIM_VERIFY_TRY_H

#include "sim/verify.h"

enum { VERIFY_TRY_REQUESTS = 1000 };

/* Where plans are tried: a model in a format on hardware. */
struct verify_site {
    const struct verify_in *in; /* what is asked; its hw, model and strategy are replaced */
    const char *model;          /* NULL: the scenario's */
    struct arch arch;           /* of that model, for pruning */
    struct hw hw;
    bool fixed; /* hw.n_node nodes and no more */
    bool simulate;
};

/* How many GPUs are there to use: those of fixed nodes, else most. */
int64_t verify_site_gpus(const struct verify_site *w, int64_t most);
/* False: no split of these degrees can fit, so that trying it is a waste; cheap. */
bool verify_site_may_fit(const struct verify_site *w, const struct strategy *s);

enum verify_tried { VERIFY_TRY_REFUSED, VERIFY_TRY_FITS, VERIFY_TRY_FAILED };
/* Checks, deploys and simulates. FITS: *out filled but for kind, plan and reason, without texts of its own but the
 * plan's names (the caller's). FAILED: *e says why (the workload cannot be read, Ctrl-C). */
enum verify_tried verify_try(const struct verify_site *w, const struct strategy *s,
                             struct verify_alt *out, struct err *e);
/* "llama-3-70b fp8 TP2-PP1-DP1 on 1 x dgx-h100", in a. */
const char *verify_try_text(const struct verify_alt *x, struct arena *a);

#endif
