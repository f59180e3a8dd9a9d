/* model/profile_file.h - a measured profile: what was measured about one machine, in one HDF5 file.
 *
 *     /             schema "orrery-profile", version, title, source, history, ... (base/prov.h)
 *     /machine      attributes: machine, date, engine, threads, ranks, host_overlap, and, "" where not
 *                   known, cpu, gpu, host (as measured files name them) and noise
 *     /used         text: points and runs used
 *     /runs         optional, text: the measured runs among them (struct profile_file)
 *     /hardware     attributes of one device, and of the node of such devices (SI units)
 *     /laws/NAME    one fit each ("gemm_bf16", "allreduce_2"): attributes law, dtype, ranks,
 *                   constants (names), covers (names of sizes), source, note, points, sites,
 *                   outliers, tau, spread, errors in_* and held_* (shares, see model/fit.h);
 *                   datasets value, sd_log, known, covariance (of the logarithms), range (lo, hi
 *                   of each size), and the table `points`: sizes, measured, predicted, weight
 *     /constants    attributes: constants that come from elsewhere; NAME, NAME_sd_log
 *     /operators    optional: times of single operators of one model under one TP degree, as the
 *                   texts dense and per_sequence of model/table.h, with attributes model, shape, tp
 *                   and dtype. They are taken instead of the laws where shape, tp and dtype agree
 *
 * hw_load takes such a file for hardware ("hardware: machine.h5" in a scenario), and profile_load
 * then lays its constants over those of the catalog: the law of the model's weight and KV formats,
 * collectives of the TP degree (or between those measured, and then no better than a class
 * default). What the file does not hold is carried over from the like of it (another number format,
 * other numbers of ranks) or stays as in the catalog, both less certain; the profile's note names it
 * and what stands in for it, and answers that need it are marked extrapolated (model/step.h).
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_PROFILE_FILE_H
#define MODEL_PROFILE_FILE_H

#include "base/h5.h"
#include "base/prov.h"
#include "model/fit.h"
#include "model/hw.h"
#include "model/strategy.h"
#include "model/table.h"

enum { PROFILE_FILE_MAX_LAWS = 128, PROFILE_FILE_MAX_TEXT = 16384 };

struct profile_extra { /* a constant from elsewhere: host.request of a load test, law of a run */
    enum profile_id id;
    double v, sd_log;
};

struct profile_ops {           /* tables of operators, see model/table.h */
    const char *model, *shape; /* its name; profile_file_shape of it */
    int tp, weight_dtype;
    const char *dense, *per_sequence; /* CSV */
    struct table *table;              /* of both; set by the reader */
};

struct profile_file {
    const char *machine; /* "2 x Xeon 8481C, 1 thread a rank": the words of every source */
    const char *date;    /* ISO 8601, when it was measured */
    const char *engine;  /* whose kernels and host times: "orrery" */
    /* The same machine as the provenance of measured files names it: processor, GPU, id of the host
     * (base/prov.h); "" or NULL: not known, as of imported points */
    const char *cpu, *gpu, *host;
    /* Which of it was measured while the machine was busy with something else, in words; "" or NULL:
     * none that has a say in it */
    const char *noise;
    const char *used; /* which points and runs were used, lines of text; "" */
    /* Measured runs that constants were fitted to, a line each: their run_uuid (without one the
     * file's SHA-256), a blank, "device" or, where they gave host times only, "host"; "" or NULL */
    const char *runs;
    const char *title; /* NULL: made of machine and date */
    int threads;       /* of a rank */
    int ranks;         /* of the engine inside which operators were measured; 0: not known */
    bool host_overlap; /* of the host's work with the device's, see struct profile */
    double ar_limit_bytes;
    /* One node: gpu is one device, sys.n_gpu how many ranks it can hold. Efficiencies of the fits
     * refer to gpu.flop_per_s[dtype] (16 bit, else 32, for attention) and gpu.mem_bytes_per_s. */
    struct hw hw;
    const struct fit *fit;
    int n_fit;
    const struct profile_extra *extra;
    int n_extra;
    const struct profile_ops *ops; /* NULL: none */
};

/* Writes the whole file or none. v: as collected for this command. Errors: ST_USAGE for a content
 * that its own reader would refuse, ST_IO. */
int profile_file_write(const char *path, const struct profile_file *p, const struct prov *v,
                       struct err *e);
/* Everything checked; texts live in a, tables of points stay in the file (fit.size is NULL).
 * Errors: ST_IO, ST_USAGE. */
int profile_file_read(const char *path, struct arena *a, struct profile_file *out, struct err *e);
/* What the sizes of a model's operators follow from, in words. */
const char *profile_file_shape(const struct arch *m, struct arena *a);
/* The tables of p, if it has some of this model under this strategy; else NULL. */
struct table *profile_file_table(const struct profile_file *p, const struct arch *m,
                                 const struct strategy *s, struct arena *a);
/* A sound content: what both of them ask. Errors: ST_USAGE. */
int profile_file_check(const struct profile_file *p, struct err *e);

/* Lays the measured constants over out, which holds those of the catalog for the same strategy on
 * devices g; efficiencies are made shares of its ceilings, the rates staying those measured. */
void profile_file_lay(const struct profile_file *p, const struct hw_gpu *g,
                      const struct strategy *s, struct arena *a, struct profile *out);

#endif
