/* bench/suite_run.h - runs the jobs of a suite, interleaved, and keeps every sample.
 *
 * Run r of every job comes before run r + 1 of any, in an order shuffled by (seed, r), so that a drift
 * of the machine falls on all points. The file is written, and an older one of its name replaced, when
 * all is measured; until then every sample is in a journal beside it (bench/suite_journal.h) as soon as
 * its job has ended, so that kill -9 loses none. Ctrl-C ends between two jobs. A later call with `resume`
 * goes on with the runs that are missing: of the journal, or where there is none of the file.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_SUITE_RUN_H
#define BENCH_SUITE_RUN_H

#include "base/progress.h"
#include "bench/noise.h"
#include "bench/suite_journal.h"

struct suite_run_opts {
    const char *out; /* NULL: no file */
    int runs;
    uint64_t seed;
    bool resume, progress;
    double save_s; /* so often the journal is forced onto the disk */
    int argc;      /* for provenance */
    char *const *argv;
    void (*set_aside)(const char *path);        /* told of an earlier journal; NULL: nobody is */
    void (*after)(void *ctx, int run, int job); /* of each job; NULL: none */
    void *ctx;
};

struct suite_log {
    struct points_sample *sample;
    struct points_noise *look;
    struct points_gpu *gpu;
    int64_t n_sample, n_look, n_gpu, cap_sample, cap_look, cap_gpu;
    int64_t n_resumed;         /* samples that were there */
    int64_t n_noisy, unjudged; /* unjudged: samples since the last look */
    struct noise noise;
    double t0_s; /* of this process on the benchmark's time axis */
    int64_t epoch_ns;
    bool complete;
    double wall_s; /* of this process; those before it took t0_s */
    struct suite_journal journal;
};

/* order[n]: the jobs of run `run`. */
void suite_order(uint64_t seed, int run, int n, int *order);
/* Errors: ST_IO; ST_USAGE for a file to resume that is not there, of another suite, machine or options;
 * ST_STOPPED and those of jobs: what there is, is then in log->journal.path, and the file is as it was.
 * log is to be released in any case. */
int suite_run(struct suite *s, const struct suite_run_opts *o, struct suite_log *log,
              struct err *e);
void suite_log_release(struct suite_log *log);
/* Runs that the samples are of: more than were asked for, of a file that had more. */
int suite_runs(const struct suite_log *log);
/* Of a point's samples, noisy ones too; NAN without any. */
double suite_median(const struct suite_log *log, int point);
/* Half the distance of the quartiles as a share of the median; NAN of fewer than two samples. */
double suite_spread(const struct suite_log *log, int point);
/* A point whose result is wrong, or -1. */
int suite_wrong(const struct suite *s);

/* ---- for the files of this module */

void suite_log_sample(struct suite_log *log, const struct points_sample *x);
void suite_log_look(struct suite_log *log, const struct points_noise *x);
void suite_log_gpu(struct suite_log *log, const struct points_gpu *x);
/* The verdict on the samples from `from` on. */
void suite_log_judge(struct suite_log *log, int64_t from, bool noisy);

#endif
