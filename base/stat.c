/* base/stat.c - quantiles, intervals and steady-state rules; distributions come from GSL.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/stat.h"

#include <assert.h>
#include <gsl/gsl_cdf.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>

#include "base/arena.h"

/* Running sum with the lost low part kept aside (Neumaier 1974). */
struct sum {
    double s, lost;
};

static void sum_add(struct sum *a, double x)
{
    double t = a->s + x;
    if (isfinite(t)) a->lost += fabs(a->s) >= fabs(x) ? (a->s - t) + x : (x - t) + a->s;
    a->s = t;
}

static double sum_of(const struct sum *a)
{
    return a->s + a->lost;
}

double stat_mean(const double *x, size_t n)
{
    struct sum a = { 0, 0 };
    for (size_t i = 0; i < n; i++) sum_add(&a, x[i]);
    return n ? sum_of(&a) / (double)n : NAN;
}

/* Sum of squared deviations from the mean m. */
static double squares_about(const double *x, size_t n, double m)
{
    struct sum a = { 0, 0 };
    for (size_t i = 0; i < n; i++) sum_add(&a, (x[i] - m) * (x[i] - m));
    return sum_of(&a);
}

double stat_sd(const double *x, size_t n)
{
    return n < 2 ? NAN : sqrt(squares_about(x, n, stat_mean(x, n)) / (double)(n - 1));
}

double stat_quantile_sorted(const double *x, size_t n, double q)
{
    if (n == 0 || isnan(q)) return NAN;
    double at = fmin(fmax(q, 0), 1) * (double)(n - 1);
    size_t i = (size_t)at;
    double part = at - (double)i;
    /* No sum when it falls on a value: 0 * inf would be NAN. */
    return part > 0 && i + 1 < n && x[i] != x[i + 1] ? x[i] + part * (x[i + 1] - x[i]) : x[i];
}

/* NANs last. */
static int by_value(const void *pa, const void *pb)
{
    double a = *(const double *)pa, b = *(const double *)pb;
    if (isnan(a) || isnan(b)) return (isnan(a) ? 1 : 0) - (isnan(b) ? 1 : 0);
    return (a > b) - (a < b);
}

void stat_sort(double *x, size_t n)
{
    if (n > 1) qsort(x, n, sizeof x[0], by_value);
}

double stat_t_quantile(double p, double dof)
{
    return gsl_cdf_tdist_Pinv(p, dof);
}

double stat_normal_quantile(double p)
{
    return gsl_cdf_ugaussian_Pinv(p);
}

struct ci stat_ci_mean(const double *x, size_t n, double level)
{
    assert(level > 0 && level < 1);
    double m = stat_mean(x, n);
    if (n < 2) return (struct ci){ NAN, m, NAN };
    double half =
        stat_t_quantile(0.5 + 0.5 * level, (double)(n - 1)) * stat_sd(x, n) / sqrt((double)n);
    return (struct ci){ m - half, m, m + half };
}

struct ci stat_ci_jackknife(double est, const double *minus, size_t R, double level)
{
    assert(level > 0 && level < 1);
    if (R < 2) return (struct ci){ NAN, est, NAN };
    double r = (double)R, mean_minus = stat_mean(minus, R);
    /* mean and sd of the pseudo-values R*est - (R-1)*minus[r], without storing them */
    double centre = r * est - (r - 1) * mean_minus;
    double sd = (r - 1) * sqrt(squares_about(minus, R, mean_minus) / (r - 1));
    double half = stat_t_quantile(0.5 + 0.5 * level, r - 1) * sd / sqrt(r);
    return (struct ci){ centre - half, est, centre + half };
}

struct ci stat_ci_batch(const double *x, size_t n, size_t skip, double level, double *lag1)
{
    enum { N_BATCH = 20 };
    double batch[N_BATCH];
    size_t kept = n > skip ? n - skip : 0, size = kept / N_BATCH;
    if (lag1) *lag1 = NAN;
    if (size == 0) return (struct ci){ NAN, stat_mean(x + (n - kept), kept), NAN };
    const double *from = x + (n - kept);
    size_t longer = kept % N_BATCH; /* the first so many batches hold one value more */
    for (size_t i = 0, at = 0; i < N_BATCH; i++) {
        size_t len = size + (i < longer);
        batch[i] = stat_mean(from + at, len);
        at += len;
    }
    if (lag1) *lag1 = stat_lag1(batch, N_BATCH);
    struct ci c = stat_ci_mean(batch, N_BATCH, level);
    double mean = longer ? stat_mean(from, kept) : c.mid, half = c.hi - c.mid;
    return (struct ci){ mean - half, mean, mean + half };
}

struct ci stat_ci_wilson(double k, double n, double level)
{
    assert(level > 0 && level < 1 && k >= 0 && k <= n);
    if (!(n > 0)) return (struct ci){ NAN, NAN, NAN };
    double z = stat_normal_quantile(0.5 + 0.5 * level), zz = z * z, p = k / n;
    double centre = (p + zz / (2 * n)) / (1 + zz / n);
    double half = z / (1 + zz / n) * sqrt(p * (1 - p) / n + zz / (4 * n * n));
    return (struct ci){ k > 0 ? fmax(centre - half, 0) : 0, p, k < n ? fmin(centre + half, 1) : 1 };
}

/* Smallest k in 0..n with P(X <= k) > bound, or >= bound when `reach`; X binomial(n, p). */
static size_t binomial_passes(size_t n, double p, double bound, bool reach)
{
    size_t lo = 0, hi = n; /* P(X <= n) = 1 passes any bound below 1 */
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        double below = gsl_cdf_binomial_P((unsigned)mid, p, (unsigned)n);
        if (reach ? below >= bound : below > bound)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

void stat_quantile_ranks(size_t n, double p, double level, size_t *l, size_t *u)
{
    assert(n <= UINT_MAX && p >= 0 && p <= 1 && level > 0 && level < 1);
    *l = binomial_passes(n, p, 0.5 * (1 - level), false);
    *u = binomial_passes(n, p, 0.5 * (1 + level), true) + 1;
}

size_t stat_mser5(const double *x, size_t n, bool *found)
{
    size_t k = n / 5, best = 0, best_any = 0;
    double low = INFINITY, low_any = INFINITY, mean = 0, squares = 0;
    /* From the end, so that mean and squares of the batches d..k-1 grow by one batch (Welford);
     * with
     * <=, the smallest d wins a tie. The last 5 batches have too few followers to judge. */
    for (size_t d = k; d-- > 0;) {
        double z = stat_mean(x + 5 * d, 5), m = (double)(k - d), off = z - mean;
        mean += off / m;
        squares += off * (z - mean);
        double value = squares / (m * m);
        if (k - d >= 5 && value <= low_any) {
            low_any = value;
            best_any = d;
        }
        if (d <= k / 2 && value <= low) {
            low = value;
            best = d;
        }
    }
    *found = k >= 10 && isfinite(low) && best_any <= k / 2;
    return 5 * best;
}

void stat_rising(double *y, const double *w, size_t n)
{
    double *mean = mem_alloc((2 * n + 1) * sizeof *mean), *weight = mean + n;
    size_t *count = mem_alloc((n + 1) * sizeof *count), k = 0;
    for (size_t i = 0; i < n; i++, k++) {
        mean[k] = y[i];
        weight[k] = w ? w[i] : 1;
        count[k] = 1;
        for (; k > 0 && mean[k - 1] > mean[k]; k--) {
            double all = weight[k - 1] + weight[k];
            mean[k - 1] = (mean[k - 1] * weight[k - 1] + mean[k] * weight[k]) / all;
            weight[k - 1] = all;
            count[k - 1] += count[k];
        }
    }
    for (size_t j = 0, i = 0; j < k; j++)
        for (size_t r = 0; r < count[j]; r++) y[i++] = mean[j];
    free(mean);
    free(count);
}

double stat_lag1(const double *x, size_t n)
{
    if (n < 2) return NAN;
    double m = stat_mean(x, n), squares = squares_about(x, n, m);
    struct sum a = { 0, 0 };
    for (size_t i = 1; i < n; i++) sum_add(&a, (x[i - 1] - m) * (x[i] - m));
    return squares > 0 ? sum_of(&a) / squares : NAN;
}

void stat_line(const double *x, const double *y, size_t n, double *a, double *b, double *t)
{
    double mx = stat_mean(x, n), my = stat_mean(y, n), sxx = n ? squares_about(x, n, mx) : 0;
    *a = my;
    *b = *t = NAN;
    if (!(sxx > 0)) return;
    struct sum xy = { 0, 0 }, rest = { 0, 0 };
    for (size_t i = 0; i < n; i++) sum_add(&xy, (x[i] - mx) * (y[i] - my));
    *b = sum_of(&xy) / sxx;
    *a = my - *b * mx;
    if (n < 3) return;
    for (size_t i = 0; i < n; i++) {
        double r = (y[i] - my) - *b * (x[i] - mx);
        sum_add(&rest, r * r);
    }
    double se = sqrt(sum_of(&rest) / (double)(n - 2) / sxx);
    *t = *b == 0 ? 0 : *b / se; /* an exact line: infinite */
}

double stat_kendall(const double *x, const double *y, size_t n)
{
    /* n^2 / 2 comparisons: series here are rankings of some thousand configurations at most. */
    double agree = 0, pairs_x = 0, pairs_y = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t j = i + 1; j < n; j++) {
            int dx = (x[i] > x[j]) - (x[i] < x[j]), dy = (y[i] > y[j]) - (y[i] < y[j]);
            agree += dx * dy;
            pairs_x += dx != 0;
            pairs_y += dy != 0;
        }
    return pairs_x > 0 && pairs_y > 0 ? agree / sqrt(pairs_x * pairs_y) : NAN;
}
