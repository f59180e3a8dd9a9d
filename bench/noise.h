/* bench/noise.h - whether this machine was busy with something else while it was measured.
 *
 * A look covers the time since the look before. The machine was busy if in that time
 *   - a hypervisor took more than NOISE_STEAL of the processors (/proc/stat), or
 *   - work of other processes took more than NOISE_OTHERS of them (/proc/stat less our own, and less
 *     what ranks in other processes may have used), or
 *   - threads of this process lost their processor more than NOISE_SWITCHES times a second, and it is
 *     not ranks of its own job that share it (crowded), or
 *   - a loop of fixed work took NOISE_SPIN times as long as it did at best.
 * Of the processors that this process might use when it was first asked (noise_cpus, before threads
 * are pinned). /proc counts in hundredths of a second, so looks should be half a second apart or
 * more. Where there is no /proc/stat only the last two are known. SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_NOISE_H
#define BENCH_NOISE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "traces/points.h"

#define NOISE_STEAL    0.02
#define NOISE_OTHERS   0.05
#define NOISE_SWITCHES 100.0
#define NOISE_SPIN     1.25
#define NOISE_LEAST_S  0.5 /* below it only the loop says anything */

struct noise_count { /* since boot, or since the process began */
    double wall_s, busy_s, steal_s, own_s, switches;
};

struct noise {
    int cpus;       /* that this process may use */
    double helpers; /* processors that ranks in other processes of ours may keep busy */
    bool crowded;   /* ranks of ours are more than there are processors */
    double spin_best_s;
    struct noise_count last;
    double steal_ratio, others_ratio, switches_per_s, spin_ratio; /* of the last look */
    double worst_steal, worst_others;                             /* of all looks */
};

/* How many processors this process might use when it was first asked, by this or noise_init. */
int noise_cpus(void);
void noise_init(struct noise *n);
/* Reads the counters as they stand. Errors: none; what cannot be read is 0. */
void noise_count(struct noise_count *c);
/* The verdict on the time between two counts, of which `spin_ratio` is the loop's. */
bool noise_judge(struct noise *n, const struct noise_count *now, double spin_ratio);
/* Counts, spins and judges; out->t_s is the caller's. */
bool noise_look(struct noise *n, struct points_noise *out);

/* ---- a run that must not be looked into: one look before it and one behind */

struct noise_span {
    double wall_s;                    /* 0: the rest is not known */
    double steal_ratio, others_ratio; /* NAN: the run was too short to tell */
    double switches_per_s, spin_ratio;
    double load_begin, load_end;
    double clock_begin_hz, clock_end_hz; /* mean of the processors; 0: not known */
    bool disturbed, crowded;             /* disturbed: by the limits above */
};

/* helpers, crowded: as in struct noise. */
void noise_begin(struct noise *n, double helpers, bool crowded, struct noise_span *x);
void noise_end(struct noise *n, struct noise_span *x);
/* One line that says by what, where it was disturbed; else, or where nothing is known, none. */
void noise_print(const struct noise_span *x, FILE *f);
/* As noise.disturbed, noise.steal_ratio, ... of j, and as attributes noise_disturbed, ... of an object of
 * f. Errors: ST_IO. */
void noise_json(const struct noise_span *x, json_t *j);
int noise_store(const struct noise_span *x, h5 *f, const char *object, struct err *e);

#endif
