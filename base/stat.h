/* base/stat.h - quantiles, intervals and steady-state rules.
 *
 * The percentile method is type 7 (linear interpolation, as numpy and vLLM); the unit of
 * replication is the run, never the request: see each interval's contract.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_STAT_H
#define BASE_STAT_H

#include <stdbool.h>
#include <stddef.h>

struct ci {
    double lo, mid, hi;
}; /* NAN bounds: no interval can be given */

double stat_mean(const double *x, size_t n); /* compensated sum; NAN for n = 0 */
double stat_sd(const double *x, size_t n);   /* sample sd, n - 1; NAN for n < 2 */
/* Type 7 quantile of x sorted ascending; NAN for n = 0. */
double stat_quantile_sorted(const double *x, size_t n, double q);
void stat_sort(double *x, size_t n);

/* Mean with Student t interval over n independent runs. NAN bounds for n < 2. */
struct ci stat_ci_mean(const double *x, size_t n, double level);
/* Delete-one jackknife over R runs of any pooled estimate: est is the estimate over all runs,
 * minus[r] the estimate without run r. Interval: pseudo-values est*R-(R-1)*minus[r], t with R-1,
 * around their mean; mid is est itself. */
struct ci stat_ci_jackknife(double est, const double *minus, size_t R, double level);
/* Mean of a single run after deleting `skip` leading values, with the interval that 20 batch means
 * of all the others give: the first n mod 20 batches are one value longer. *lag1 gets the lag-1
 * correlation of the batch means: |lag1| >= .45 says that the interval is optimistic. NAN bounds
 * for fewer than 20. */
struct ci stat_ci_batch(const double *x, size_t n, size_t skip, double level, double *lag1);
/* Wilson score interval of k successes in n independent trials. */
struct ci stat_ci_wilson(double k, double n, double level);

/* Order-statistic interval of the p-quantile of n independent values: 1-based ranks l, u; l = 0 and
 * u = n + 1 mean unbounded. Known answers: (10,.5,.95) -> 2,9; (100,.99,.95) -> 97,101. */
void stat_quantile_ranks(size_t n, double p, double level, size_t *l, size_t *u);

/* MSER-5 (White 1997) on a series averaged over replications: index of the first value kept, a
 * multiple of 5; *found = false when the minimiser lies in the second half (no steady state).
 * Known answer: ten 10s then 0,1,0,1,...(40 values) -> 10. */
size_t stat_mser5(const double *x, size_t n, bool *found);

/* y becomes the least-squares rising curve of weights w (NULL: all one; pool adjacent violators). Known
 * answer: 1 4 2 3 5 -> 1 3 3 3 5. */
void stat_rising(double *y, const double *w, size_t n);
double stat_lag1(const double *x, size_t n);
/* Least squares y = a + b x; t of b under independent errors. */
void stat_line(const double *x, const double *y, size_t n, double *a, double *b, double *t);
double stat_t_quantile(double p, double dof);
double stat_normal_quantile(double p);
/* Kendall's tau-b of two paired series. */
double stat_kendall(const double *x, const double *y, size_t n);

#endif
