/* sim/share.h - a pipeline whose stages slow each other, as those of one host do that share its
 * memory, or speed each other up, as was measured there too; and whose first stage may also be the
 * scheduler's.
 *
 * A flight's work on a stage is the time it takes alone. While k > 1 stages are busy, each goes on at
 * 1 / (1 + (k - 1) slow) of that rate, slow = step_beside - 1 of its own batch; where slow is
 * negative, at 1 / (1 + slow), however many they are. Flights keep their order, one on a stage,
 * messages between stages are buffered. Ends are foreseen with those in the air alone; whatever joins
 * them later moves them, so all are foreseen anew at each launch.
 * Times are ns as double: up to 2^53, and sums of the same steps are the same.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_SHARE_H
#define SIM_SHARE_H

#include <stdbool.h>
#include <stdint.h>

struct share_flight {
    double *work_ns, *hop_ns; /* [n_stage] alone on a stage; from it to the next */
    int stage;                /* where it is, or is on its way to; n_stage: through */
    double ready_ns;          /* when it is there; through: when it was */
    double left_ns;           /* of the work there */
    double began_ns;          /* the work there; -1: not yet */
    double slow;
};

struct share {
    int n_stage;
    double return_ns;          /* from the last stage to the scheduler */
    bool stage0_drives;        /* which takes tokens only while the first stage has nothing to do */
    struct share_flight *copy; /* [n_stage] room to foresee in */
    /* A flight has left a stage. */
    void (*left)(void *ctx, struct share_flight *f, int stage, const double span_ns[2]);
    void *ctx;
};

/* Moves flights f[n], oldest first, from one time to another. */
void share_move(const struct share *v, struct share_flight *const *f, int n, double from_ns,
                double to_ns);
/* When the scheduler has the tokens of each, as things stand at from_ns. The flights stay. */
void share_foresee(const struct share *v, struct share_flight *const *f, int n, double from_ns,
                   double *end_ns);

#endif
