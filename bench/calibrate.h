/* bench/calibrate.h - from what was measured to a profile: the constants of the kernel laws, host
 * times, and a common factor, with their uncertainty.
 *
 * Points (traces/points.h) give the laws of operators. Where a file holds both, those timed inside a
 * running engine (they name a part of the model) are taken before stand-alone ones. Bytes are
 * counted as the simulator's operator list counts them (model/ops.h), whatever was moved: so
 *     norm      is the norm and the addition of the residual before it, of equal rows
 *     rope      rotation of queries and keys
 *     messages  of the engine's in f32 count half; those between stages, and imported ones, count as
 *               they are
 * Samples marked noisy are left out where a third or more of a point's are not; the count is kept.
 *
 * Steps of measured runs then give host times, rank skew and the common factor of device times by
 * law, with device times predicted from those laws. Host times are fitted to the host's time that
 * the runs' files have for each step. What is constant in the device's part beside the factor
 * (submitting) is host time too, unless it is more than the median of that: then the factor takes
 * all of it; of several ranks it is how long they wait for each other (rank_skew; of points alone, which
 * have no host times, that cannot be told: the catalog's stays and a note says so). Runs of one
 * stage only: with several, a step's time holds the waiting of the others.
 * Without runs, whole steps of the points files serve. The common factor is what these laws and
 * tables leave out of the times of what they were measured on: runs of another strategy, model or
 * number format than the points' have no say in it. They give the host's times between steps, which
 * depend on none of these, where no other run does. Each file says which constants it gave.
 *
 * Of a pipeline, points of its stages give how much they slow each other and the way of the tokens
 * back to the scheduler (LAW_STAGE).
 *
 * Points whose result was wrong (suite_tolerance of bench/suite.h) are left out, and counted.
 * Warnings say so, and what else makes a profile doubtful; they do not change it. What of it a busy
 * machine gave stays in the profile (struct profile_file's noise), and predictions with it say so.
 *
 * Errors: ST_USAGE in one sentence: another kind of file, one given twice, several machines
 * (processor or host), options that concern none of the points, wrong results only (then `invalid`),
 * thread counts or communicators with none chosen, points that no law can be fitted to.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_CALIBRATE_H
#define BENCH_CALIBRATE_H

#include "base/conf.h"
#include "base/json.h"
#include "model/profile_file.h"
#include "model/table.h"
#include "sim/scenario.h"
#include "traces/points.h"
#include "traces/run.h"

enum { CALIBRATE_MAX_FILES = CONF_MAX_FILES, CALIBRATE_MAX_FITS = 24 };

struct calibrate_opts {
    const char *out, *scenario, *model;
    bool json, dry_run, tables;
    int64_t threads, ranks, tp, seed;
    int comm; /* of enum points_comm; 0: the one there is */
};
extern const struct conf_row calibrate_rows[];

/* One row of a points file, its samples made one value. */
struct calibrate_point {
    struct points_row row;
    double s, sd_log; /* median of the samples kept; standard error of its logarithm */
    double own_sd;    /* of the logarithm of one sample, by this point's alone */
    int n, n_noisy;   /* samples kept; left out as noisy */
    int n_kept_noisy; /* of those kept, for want of others */
    int file;
    bool used;
    unsigned laws; /* 1 << enum profile_law: those that it was given to */
};

/* The GPU that a points file names; name "": none. */
struct calibrate_gpu {
    const char *name;
    int64_t sm, n_sm, memory_bytes, l2_bytes, count;
};

struct calibrate_file {
    const char *path, *title, *machine, *date, *model;
    const char *host; /* id of the host it was measured on; "" where that is not known */
    int64_t processors, memory_bytes; /* of that host; 0: the file does not say */
    struct calibrate_gpu gpu;
    bool is_run, imported;
    bool dated;      /* by what was measured: an imported file's date may be that of importing it */
    bool partial;    /* points of an interrupted benchmark */
    int tp, pp;      /* of a points file; 0: it does not say */
    int64_t n_wrong; /* points left out because their result was wrong */
    int64_t n_point, n_sample, n_noisy, n_kept_noisy;
    bool disturbed; /* a run beside which other work took processors, as its file says */
    struct run_file run;
    const char *uuid;   /* that its writer gave it; "" */
    char sha[65];       /* of the file, where it has no uuid; else "" */
    int64_t n_step;     /* of a run: that can be used */
    int64_t n_request;  /* of a run: whose waiting is known */
    const char *beside; /* why its steps tell nothing of the device, in words; NULL: they do */
    bool own;           /* a run of what the points are of */
    const char *said;   /* what became of it, in words */
};

struct calibrate {
    struct calibrate_opts o;
    struct arena *a;
    struct calibrate_file file[CALIBRATE_MAX_FILES];
    int n_file, n_run;
    struct calibrate_point *point;
    int64_t n_point, cap_point;
    double limit_mem, limit_flop; /* bytes/s, FLOP/s that efficiencies refer to */
    bool limit_assumed;           /* no point tells either */
    double limit_of[DT_N];        /* FLOP/s by type of the operands; of a processor all the same */
    struct calibrate_gpu gpu;     /* of the points; name "": a processor */
    int threads, ranks;
    enum points_comm comm;
    unsigned has[LAW_N]; /* 1 << enum dtype: laws that there is a fit (or, planning, points) of */
    /* Constants that steps gave, in words: of the device, of the host; "" */
    const char *of_device, *of_host;
    struct fit fit[CALIBRATE_MAX_FITS];
    struct profile_extra extra[P_N];
    struct profile_file profile;
    const char *skipped; /* lines: what was there and was not fitted, and why; "" */
    const char *warned;  /* lines: what makes the result doubtful; "" */
    bool invalid;        /* refused because the measurement itself is wrong */
    /* Tables of the operators' times, per layer (model/table.h), or none. */
    struct profile_ops ops;
    int n_table_row;
    struct { /* a foreign engine: how far its requests are off, before and after */
        bool done;
        int64_t n;
        double before[2], after[2]; /* median |predicted / measured - 1| of TPOT and TTFT */
        const char *scenario;
    } foreign;
};

void calibrate_init(struct calibrate *c, const struct calibrate_opts *o, struct arena *a);
void calibrate_release(struct calibrate *c);
/* Reads one file of either kind. */
int calibrate_add(struct calibrate *c, const char *path, struct err *e);
/* Chooses threads, ranks and communicator; fits every law there are points for; then runs. */
int calibrate_fit(struct calibrate *c, struct err *e);
/* Which points and steps would go where; no fit. */
int calibrate_plan(struct calibrate *c, struct err *e);
int calibrate_write(struct calibrate *c, int argc, char *const *argv, struct err *e);

void calibrate_print(const struct calibrate *c, FILE *f);
json_t *calibrate_json(const struct calibrate *c);

/* ---- parts */

/* Points as the laws take them. */
int calibrate_choose(struct calibrate *c, struct err *e);
int calibrate_laws(struct calibrate *c, bool plan, struct err *e);
/* DT_N for a format the simulator has none of. */
enum dtype calibrate_dtype(uint8_t points_dtype);
/* bytes of an element-wise operator's point as the simulator counts them; 0: not one of its own */
double calibrate_elt_bytes(const struct points_row *r, double kv_elt);
/* Seconds of the point with the same sizes and another part; 0: none. */
double calibrate_beside(const struct calibrate *c, const struct calibrate_point *p, int part);
void calibrate_note(struct calibrate *c, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* A line that is shown as a warning. */
void calibrate_warn(struct calibrate *c, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
struct fit_ask calibrate_ask(struct calibrate *c, enum dtype d, int ranks);

/* What a run had a say in. */
struct calibrate_share {
    bool device, host, any;
};
struct calibrate_share calibrate_share_of(const struct calibrate *c,
                                          const struct calibrate_file *f);

/* ---- the files beside each other */

/* That a file was measured on a busy machine, as far as it counts, in words; NULL: it was not. */
const char *calibrate_noise(const struct calibrate *c, const struct calibrate_file *f);
/* The same of all files that have a say in the profile, on one line; "". */
const char *calibrate_noise_of_all(const struct calibrate *c);
/* Notes of imported files that are of other models or other times than each other. */
void calibrate_compare(struct calibrate *c);
/* That two names of models are evidently not of one: other sizes (8b, 70b), other families. One model
 * is written in many ways, so where a name tells neither they are taken for one. */
bool calibrate_other_model(const char *a, const char *b);

/* Host times and the common factor from runs; from whole steps of points without runs. */
int calibrate_steps(struct calibrate *c, bool plan, struct err *e);
/* What stages of a pipeline have to do with each other. */
void calibrate_stages(struct calibrate *c, bool plan);
/* Samples of requests' waiting, before and between runs, as one constant. */
struct calibrate_wait {
    double s, sd_log; /* the fiftieth part that waits least; standard error of its logarithm */
};
/* Of n waits that rise. */
struct calibrate_wait calibrate_wait_of(const double *s, size_t n);
/* Of n > 0 runs, which are sorted: their median, with the error that their scatter gives. */
struct calibrate_wait calibrate_waits(struct calibrate_wait *of, size_t n);
/* Runs without steps of another engine: host.step, host.request and law over the catalog's. */
int calibrate_foreign(struct calibrate *c, struct err *e);
/* The times of single operators, where the points' model is known: c->profile.ops. */
int calibrate_tables(struct calibrate *c, struct err *e);
/* Several points of an operator as rows rising in m; *mixed: they are of several widths. */
struct calibrate_row {
    int64_t m, n, k;
    double s;
};
int64_t calibrate_collect(const struct calibrate *c, const char *name, struct calibrate_row *x,
                          bool *mixed);

#endif
