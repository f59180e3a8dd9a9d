/* traces/import_date.c - dates as other tools write them, and how far two are apart.
 * SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "traces/import.h"

/* The next n digits, or -1. */
static int digits(const char **at, int n)
{
    int v = 0;
    for (int i = 0; i < n; i++, (*at)++) {
        if (!isdigit((unsigned char)**at)) return -1;
        v = 10 * v + (**at - '0');
    }
    return v;
}

static void skip(const char **at, const char *any)
{
    if (**at && strchr(any, **at)) (*at)++;
}

/* Year to second; false for what is no date. */
static bool fields(const char *text, int v[6])
{
    static const int most[6] = { 9999, 12, 31, 23, 59, 60 };
    for (int i = 0; i < 6; i++) {
        v[i] = digits(&text, i ? 2 : 4);
        if (v[i] < (i < 3) || v[i] > most[i]) return false;
        skip(&text, i < 2 ? "-/" : i == 2 ? "-T " : ":");
    }
    return true;
}

const char *import_date(const char *text, struct arena *a)
{
    int v[6];
    if (!fields(text, v)) return "";
    return arena_printf(a, "%04d-%02d-%02dT%02d:%02d:%02d", v[0], v[1], v[2], v[3], v[4], v[5]);
}

const char *import_date_of(double epoch_s, struct arena *a)
{
    struct tm tm;
    char text[32] = "";
    if (!(epoch_s > 0 && epoch_s < 1e11)) return "";
    time_t t = (time_t)epoch_s;
    if (!gmtime_r(&t, &tm) || !strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm)) return "";
    return arena_copy_text(a, text, strlen(text));
}

/* Days since 0000-03-01 in the proleptic Gregorian calendar; leap days end such a year. */
static double days_of(const int v[6])
{
    int y = v[1] > 2 ? v[0] : v[0] - 1, m = (v[1] + 9) % 12;
    int whole = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + v[2];
    return whole + (v[3] + (v[4] + v[5] / 60.) / 60) / 24;
}

double import_days_apart(const char *x, const char *y)
{
    int u[6], v[6];
    return fields(x, u) && fields(y, v) ? fabs(days_of(u) - days_of(v)) : NAN;
}

const char *import_differ(const char *model, const char *date, const char *other_model,
                          const char *other_date, struct arena *a)
{
    double days = import_days_apart(date, other_date);
    const char *text = "";
    if (*model && *other_model && strcmp(model, other_model) != 0)
        text = arena_printf(a, "another model, %s and %s", model, other_model);
    if (days > IMPORT_DAYS_APART)
        text = arena_printf(a, "%s%sanother time, %.0f days apart: %s and %s", text,
                            *text ? "; " : "", days, date, other_date);
    return *text ? text : NULL;
}
