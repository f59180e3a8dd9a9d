/* base/hist.h - log-bucket histogram of non-negative int64 values (ns), bounded memory.
 *
 * Values below 2^(HIST_SUB+1) are exact; above, a bucket spans 2^(e-HIST_SUB) around 2^e, so the
 * midpoint is off by at most 2^-(HIST_SUB+1) = 0.025 % of the value (HIST_SUB = 11). The layout is
 * that of Tene's HdrHistogram: power-of-two decades, each with 2^HIST_SUB linear sub-buckets.
 * Adding and merging are commutative and exact in counts, so results do not depend on order or
 * threads. SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_HIST_H
#define BASE_HIST_H

#include <stddef.h>
#include <stdint.h>

enum { HIST_SUB = 11, HIST_N = (64 - HIST_SUB) << HIST_SUB };

struct hist {
    int64_t *count;   /* [HIST_N], zeroed, from calloc: pages never touched cost no memory */
    int64_t n;        /* values added */
    int64_t min, max; /* exact; 0 when n = 0 */
    double sum;       /* exact for integers below 2^53 in all */
};

void hist_init(struct hist *h);
void hist_release(struct hist *h);
void hist_clear(struct hist *h);
void hist_add(struct hist *h, int64_t value, int64_t times); /* negative values count as 0 */
/* Adds, `weight` times each, the k values (a + b*s) >> shift for s = s0, s0+ds, ..., k of them; b,
 * ds >= 0. Costs O(buckets crossed), and equals k calls of hist_add to the last count (tested). */
void hist_add_line(struct hist *h, int64_t a, int64_t b, int64_t s0, int64_t ds, int64_t k,
                   int shift, int64_t weight);
void hist_merge(struct hist *into, const struct hist *from);
double hist_quantile(const struct hist *h,
                     double q); /* nearest rank, bucket midpoint; NAN if empty */
double hist_mean(const struct hist *h);
int64_t hist_count_upto(const struct hist *h, int64_t value); /* values in buckets <= value's */

#endif
