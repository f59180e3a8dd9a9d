/* bench/suite_journal.h - samples of a benchmark as they are taken, in a file that survives a kill.
 *
 * A points file appears when all is measured (base/h5.h). Until then what there is lies in OUT.journal.csv
 * beside it: comments that say what is measured and where, then lines of one letter and numbers, those
 * of a job written by one call when it has ended:
 *     s,point,run,calls,s_per_call,t_s,noisy,error   a sample; error of its point so far, -1: none
 *     n,t_s,load,steal_ratio,spin_s                  a look at the machine
 *     j,noisy                                        the verdict of it on all samples since the last j
 *     g,t_s,power_w,power_max_w,clock_hz,clock_min_hz,temperature_c,slowed,looks
 *     e                                              all that was written by one call is there
 * What follows the last e is left out, and samples that nobody could judge any more are noisy.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_SUITE_JOURNAL_H
#define BENCH_SUITE_JOURNAL_H

#include "base/outfile.h"
#include "bench/suite.h"

/* What makes two benchmarks the same, so that the samples of one may go on with those of the other. */
struct suite_origin {
    const char *identity, *settings, *host, *machine; /* host, machine "": not known */
    int n_row;
};

struct suite_log;
struct suite_journal {
    char path[OUTFILE_PATH], left[OUTFILE_PATH]; /* left: where an earlier one has gone, or "" */
    int fd;                                      /* -1: none */
    char *text;                                  /* what the next flush writes */
    size_t n, cap;
    int64_t n_sample, n_kept; /* told of; that are in the file */
};

/* A journal for `out`. go_on: with the one that is there, if any: its samples go to log, the worst
 * errors to s, and *found says whether there were any. Errors: ST_IO; ST_USAGE where it is of another
 * origin, or is no journal. Nothing is then open. */
int suite_journal_open(struct suite_journal *j, const char *out, bool go_on,
                       const struct suite_origin *o, struct suite *s, struct suite_log *log,
                       bool *found, struct err *e);
/* Whether samples of `was`, in the file at path, may be gone on with here. Errors: ST_USAGE. */
int suite_journal_same(const struct suite_origin *was, const struct suite_origin *here,
                       const char *path, struct err *e);

/* Into the next flush. Without an open journal nothing happens. */
void suite_journal_sample(struct suite_journal *j, const struct points_sample *x, double error);
void suite_journal_look(struct suite_journal *j, const struct points_noise *x);
void suite_journal_verdict(struct suite_journal *j, bool noisy);
void suite_journal_gpu(struct suite_journal *j, const struct points_gpu *x);
/* Writes what has gathered; sync: onto the disk. Errors: ST_IO. */
int suite_journal_flush(struct suite_journal *j, bool sync, struct err *e);
/* remove_it: the points file has appeared, or there is nothing to keep. */
void suite_journal_close(struct suite_journal *j, bool remove_it);

#endif
