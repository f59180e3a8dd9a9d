/* plots/axis.c - see axis.h. SPDX-License-Identifier: Apache-2.0 */
#include "plots/axis.h"

#include <math.h>
#include <stdio.h>

static const double LOG_FROM = 20, MOST = 1e18;

void axis_init(struct axis *x)
{
    *x = (struct axis){ .lo = NAN, .hi = NAN, .scale = 1, .unit = "" };
}

void axis_add(struct axis *x, double v)
{
    if (!(fabs(v) <= MOST)) return;
    if (isnan(x->lo) || v < x->lo) x->lo = v;
    if (isnan(x->hi) || v > x->hi) x->hi = v;
}

void axis_time(struct axis *x)
{
    static const struct {
        double ns;
        const char *unit;
    } units[] = { { 1e9, "s" }, { 1e6, "ms" }, { 1e3, "us" }, { 1, "ns" } };
    size_t u = 0;
    if (isnan(x->hi) || x->hi < 0) x->lo = 0, x->hi = 1e9;
    while (u + 1 < sizeof units / sizeof *units && x->hi < units[u].ns) u++;
    x->scale = 1 / units[u].ns;
    x->unit = units[u].unit;
    double lo = x->lo * x->scale, hi = x->hi * x->scale;
    x->log = lo > 0 && hi > LOG_FROM * lo;
    if (x->log) {
        x->from = lo / 1.25;
        x->to = hi * 1.25;
    } else {
        double margin = .06 * (hi - lo > 0 ? hi - lo : hi > 0 ? hi : 1);
        x->from = lo - margin;
        x->to = hi + margin;
        if (x->from < 0 || x->from < .25 * x->to) x->from = 0;
    }
}

static const double step[] = { 1, 2, 5 };

/* Fewer than three 1-2-5 steps in the range: a scale cannot be read off them. */
static bool few(const struct axis *x)
{
    int n = 0;
    for (int p = (int)floor(log10(x->from)); p <= (int)ceil(log10(x->to)); p++)
        for (int i = 0; i < 3; i++) {
            double v = step[i] * pow(10, p);
            n += v >= x->from && v <= x->to;
        }
    return n < 3;
}

/* Multiples of a 1-2-5 step, three to eight of them. */
static char *even_marks(const struct axis *x, char *buf, size_t n)
{
    double least = (x->to - x->from) / 8, power = pow(10, floor(log10(least)));
    double by = power * (least / power > 5 ? 10 : least / power > 2 ? 5 : 2);
    size_t at = (size_t)snprintf(buf, n, "(");
    for (double k = ceil(x->from / by); k * by <= x->to && at + 40 < n; k++)
        at += (size_t)snprintf(buf + at, n - at, "%s%.6g", at > 1 ? "," : "", k * by);
    snprintf(buf + at, n - at, ")");
    return buf;
}

char *axis_marks(const struct axis *x, char *buf, size_t n)
{
    size_t at = 0;
    if (!x->log) {
        snprintf(buf, n, "auto");
        return buf;
    }
    bool sparse = x->to / x->from > 1e3;
    if (few(x)) return even_marks(x, buf, n);
    buf[at++] = '(';
    for (int p = (int)floor(log10(x->from)); p <= (int)ceil(log10(x->to)); p++)
        for (int i = 0; i < (sparse ? 1 : 3); i++) {
            double v = step[i] * pow(10, p);
            if (v < x->from || v > x->to || at + 40 > n) continue;
            at += (size_t)snprintf(buf + at, n - at, "%s%.6g", at > 1 ? "," : "", v);
        }
    snprintf(buf + at, n - at, ")");
    return buf;
}
