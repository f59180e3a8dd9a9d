/* base/units.c - reads and writes quantities with their units.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/units.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/utf8.h"

/* One suffix: value = number * mul / div, each exact, so that one rounding remains (1ms is 1/1000,
 * not 1 * 0.001). `text`: units_text may write it; `human`: units_human may, from `from` base
 * units. */
struct suffix {
    const char *name;
    double mul, div;
    bool text;
    double human_from; /* 0: units_human never writes it */
};

struct kind {
    const char *what;    /* "a time" */
    const char *hint[2]; /* suffixes shown in "write 6/s or 6/min" */
    const char *example;
    struct suffix suffix[10]; /* ascending among those with `text` */
};

/* clang-format off */
#define KIB 1024.0
#define BYTE_SUFFIXES(s)                                                                           \
    { "B" s, 1, 1, true, 1e-99 }, { "kB" s, 1e3, 1, true, 1e3 }, { "MB" s, 1e6, 1, true, 1e6 },    \
    { "GB" s, 1e9, 1, true, 1e9 }, { "TB" s, 1e12, 1, true, 1e12 }, { "KiB" s, KIB, 1, false, 0 }, \
    { "MiB" s, KIB * KIB, 1, false, 0 }, { "GiB" s, KIB * KIB * KIB, 1, false, 0 },                \
    { "TiB" s, KIB * KIB * KIB * KIB, 1, false, 0 }

static const struct kind kinds[] = {
    [UNIT_TIME] = { "a time", { "ms", "s" }, "500ms",
        { { "ns", 1, 1e9, true, 1e-99 }, { "us", 1, 1e6, true, 1e-6 }, { "ms", 1, 1e3, true, 1e-3 },
          { "s", 1, 1, true, 1 }, { "min", 60, 1, false, 300 }, { "h", 3600, 1, false, 18000 },
          { "d", 86400, 1, false, 259200 } } },
    [UNIT_RATE] = { "a rate", { "/s", "/min" }, "8.5/s",
        { { "/s", 1, 1, true, 1e-99 }, { "/min", 1, 60, false, 0 }, { "/h", 1, 3600, false, 0 } } },
    [UNIT_BYTES] = { "an amount of bytes", { "GB", "GiB" }, "80GB", { BYTE_SUFFIXES("") } },
    [UNIT_BYTES_PER_S] = { "a number of bytes per second", { "GB/s", "GiB/s" }, "900GB/s",
        { BYTE_SUFFIXES("/s") } },
    [UNIT_FLOP_PER_S] = { "a number of FLOP per second", { "GFLOP/s", "TFLOP/s" }, "989TFLOP/s",
        { { "GFLOP/s", 1e9, 1, true, 1e-99 }, { "TFLOP/s", 1e12, 1, true, 1e12 },
          { "PFLOP/s", 1e15, 1, true, 1e15 } } },
    [UNIT_TOKENS] = { "a number of tokens", { "tok", "ktok" }, "1.2ktok",
        { { "tok", 1, 1, true, 1e-99 }, { "ktok", 1e3, 1, true, 1e3 },
          { "Mtok", 1e6, 1, true, 1e6 } } },
    [UNIT_WATT] = { "a power", { "W", "kW" }, "700W",
        { { "W", 1, 1, true, 1e-99 }, { "kW", 1e3, 1, true, 1e3 }, { "MW", 1e6, 1, true, 1e6 } } },
    [UNIT_USD] = { "a sum of money", { "USD", "kUSD" }, "30kUSD",
        { { "USD", 1, 1, true, 1e-99 }, { "kUSD", 1e3, 1, true, 1e3 },
          { "MUSD", 1e6, 1, true, 1e6 } } },
    [UNIT_USD_PER_H] = { "a price per hour", { "USD/h", NULL }, "2.95USD/h",
        { { "USD/h", 1, 1, true, 1e-99 } } },
    [UNIT_RATIO] = { "a pure number", { NULL, NULL }, "0.5", { { "", 1, 1, true, 1e-99 } } },
    [UNIT_COUNT] = { "a whole number", { NULL, NULL }, "12 or 10k",
        { { "", 1, 1, true, 1e-99 }, { "k", 1e3, 1, false, 1e4 }, { "M", 1e6, 1, false, 1e6 } } },
};
/* clang-format on */

/* Largest count that a double holds with all its neighbours. */
#define COUNT_MAX 9007199254740992.0

/* Length of the number at the start of text, 0 if there is none; *zero: all its digits are 0. */
static size_t number_length(const char *text, bool *zero)
{
    const char *p = text;
    if (*p == '+' || *p == '-') p++;
    if (!isdigit((unsigned char)*p)) return 0;
    *zero = true;
    for (; isdigit((unsigned char)*p); p++) *zero = *zero && *p == '0';
    if (*p == '.') {
        if (!isdigit((unsigned char)p[1])) return 0;
        for (p++; isdigit((unsigned char)*p); p++) *zero = *zero && *p == '0';
    }
    if (*p == 'e') {
        const char *q = p + 1 + (p[1] == '+' || p[1] == '-');
        if (!isdigit((unsigned char)*q)) return (size_t)(p - text);
        for (p = q; isdigit((unsigned char)*p);) p++;
    }
    return (size_t)(p - text);
}

static int no_unit(const struct kind *k, const char *shown, struct err *e)
{
    if (k->hint[1])
        return err_set(e, ST_USAGE, "'%s' has no unit; write %s%s or %s%s", shown, shown,
                       k->hint[0], shown, k->hint[1]);
    return err_set(e, ST_USAGE, "'%s' has no unit; write %s%s", shown, shown, k->hint[0]);
}

static int wrong_unit(enum unit u, const char *text, size_t len, struct err *e)
{
    const struct kind *k = &kinds[u];
    char shown[64], list[128] = "";
    utf8_quote(text, shown, sizeof shown);
    if (u == UNIT_RATIO && strcmp(text + len, "%") == 0)
        return err_set(e, ST_USAGE, "'%s' is a percentage; write %.15g", shown,
                       strtod(text, NULL) / 100);
    if (!k->hint[0])
        return err_set(e, ST_USAGE, "'%s' is not %s; write it as in %s", shown, k->what,
                       k->example);
    for (const struct suffix *s = k->suffix; s->name; s++) {
        size_t at = strlen(list);
        snprintf(list + at, sizeof list - at, "%s%s", at ? " " : "", s->name);
    }
    return err_set(e, ST_USAGE, "'%s' is not %s: its unit is none of %s; write it as in %s", shown,
                   k->what, list, k->example);
}

/* Splits text into number and suffix. */
static int split(enum unit u, const char *text, size_t *len, const struct suffix **suffix,
                 struct err *e)
{
    const struct kind *k = &kinds[u];
    char shown[64];
    bool zero = false;

    assert(text);
    utf8_quote(text, shown, sizeof shown);
    if (!*text) return err_set(e, ST_USAGE, "'' is empty; write %s as in %s", k->what, k->example);
    if (strpbrk(text, " \t\r\n"))
        return err_set(e, ST_USAGE, "'%s' has a blank in it; write it without, as in %s", shown,
                       k->example);
    if (!(*len = number_length(text, &zero)))
        return err_set(e, ST_USAGE, "'%s' is not %s; write it as in %s", shown, k->what,
                       k->example);
    if (!text[*len] && k->hint[0]) return no_unit(k, shown, e);
    for (*suffix = k->suffix; (*suffix)->name; ++*suffix)
        if (strcmp((*suffix)->name, text + *len) == 0) break;
    if (!(*suffix)->name) return wrong_unit(u, text, *len, e);
    double v = strtod(text, NULL) * (*suffix)->mul / (*suffix)->div;
    if (!isfinite(v)) return err_set(e, ST_USAGE, "'%s' is too large", shown);
    if (!zero && fabs(v) < 2.2250738585072014e-308)
        return err_set(e, ST_USAGE, "'%s' is too small", shown);
    return ST_OK;
}

int units_parse(enum unit u, const char *text, double *out, struct err *e)
{
    size_t len = 0;
    const struct suffix *s = NULL;
    int st = split(u, text, &len, &s, e);
    if (st != ST_OK) return st;
    double v = strtod(text, NULL) * s->mul / s->div;
    if (u == UNIT_COUNT) {
        char shown[64];
        utf8_quote(text, shown, sizeof shown);
        if (v != floor(v))
            return err_set(e, ST_USAGE, "'%s' is not a whole number; write it as in 12 or 10k",
                           shown);
        if (fabs(v) > COUNT_MAX)
            return err_set(e, ST_USAGE, "'%s' is past 2^53, where counts are no longer exact",
                           shown);
    }
    *out = v;
    return ST_OK;
}

int units_parse_ns(const char *text, int64_t *out, struct err *e)
{
    size_t len = 0;
    const struct suffix *s = NULL;
    int st = split(UNIT_TIME, text, &len, &s, e);
    if (st != ST_OK) return st;
    assert(s); /* a time has a suffix, or split fails */
    /* long double: 100 years are 3.2e18 ns, past the 53 bits of a double */
    long double ns = strtold(text, NULL) * (long double)(s->mul * 1e9 / s->div);
    if (fabsl(ns) > 100 * 365.25L * 86400e9L) {
        char shown[64];
        return err_set(e, ST_USAGE, "'%s' is longer than 100 years",
                       utf8_quote(text, shown, sizeof shown));
    }
    *out = (int64_t)llroundl(ns);
    return ST_OK;
}

char *units_text(enum unit u, double value, char *buf, size_t n)
{
    const struct kind *k = &kinds[u];
    const struct suffix *best = k->suffix;
    for (const struct suffix *s = k->suffix; s->name; s++)
        if (s->text && fabs(value) >= s->mul / s->div) best = s;
    if (value == 0) /* in the base unit: 0s, not 0ns */
        for (const struct suffix *s = k->suffix; s->name; s++)
            if (s->mul == 1 && s->div == 1) best = s;
    /* Scaling rounds, so not every value has a text in the best unit: then the next smaller one. */
    for (const struct suffix *s = best; s >= k->suffix; s--) {
        for (int digits = 15; s->text && digits <= 17; digits++) {
            char text[64];
            snprintf(text, sizeof text, "%.*g", digits, value / s->mul * s->div);
            if (strtod(text, NULL) * s->mul / s->div != value) continue;
            snprintf(buf, n, "%s%s", text, s->name);
            return buf;
        }
    }
    for (const struct suffix *s = k->suffix; s->name; s++)
        if (s->mul == 1 && s->div == 1) best = s;
    snprintf(buf, n, "%.17g%s", value / best->mul * best->div, best->name);
    return buf;
}

char *units_text_ns(int64_t ns, char *buf, size_t n)
{
    static const struct {
        const char *name;
        uint64_t ns;
        int digits;
    } part[] = { { "s", 1000000000, 9 }, { "ms", 1000000, 6 }, { "us", 1000, 3 }, { "ns", 1, 0 } };
    uint64_t v = ns < 0 ? 0 - (uint64_t)ns : (uint64_t)ns;
    int i = 0;
    while (v && v < part[i].ns) i++;
    char frac[16] = "";
    if (v % part[i].ns) {
        int len = snprintf(frac, sizeof frac, ".%0*" PRIu64, part[i].digits, v % part[i].ns);
        while (frac[len - 1] == '0') frac[--len] = 0;
    }
    snprintf(buf, n, "%s%" PRIu64 "%s%s", ns < 0 ? "-" : "", v / part[i].ns, frac, part[i].name);
    return buf;
}

char *units_human(enum unit u, double value, char *buf, size_t n)
{
    const struct kind *k = &kinds[u];
    const struct suffix *best = k->suffix;
    double size = fabs(value) * (1 + 5e-5); /* 999.96 ms is printed as 1.00 s */
    if (!isfinite(value)) {
        snprintf(buf, n, "%s", isnan(value) ? "n/a" : value > 0 ? "inf" : "-inf");
        return buf;
    }
    for (const struct suffix *s = k->suffix; s->name; s++)
        if ((s->human_from > 0 && size >= s->human_from) ||
            (value == 0 && s->mul == 1 && s->div == 1))
            best = s;
    assert(best->name); /* every kind has a suffix */
    double v = value / best->mul * best->div, at = fabs(v);
    char num[64];
    if (v == 0 || (best == k->suffix && at < 1e15 && v == floor(v) && u != UNIT_TIME))
        snprintf(num, sizeof num, "%.0f", v);
    else if (at >= 1e15 || at < 0.999)
        snprintf(num, sizeof num, "%.3g", v);
    else
        snprintf(num, sizeof num, "%.*f", at < 99.995 ? 2 : at < 999.95 ? 1 : 0, v);
    snprintf(buf, n, "%s%s%s", num, *best->name ? " " : "", best->name);
    return buf;
}

char *units_human_ns(double ns, char *buf, size_t n)
{
    return units_human(UNIT_TIME, ns / 1e9, buf, n);
}

char *units_cell(enum unit u, double value, char *buf, size_t n)
{
    if (!isnan(value)) return units_human(u, value, buf, n);
    snprintf(buf, n, "-");
    return buf;
}

char *units_cell_ns(double ns, char *buf, size_t n)
{
    return units_cell(UNIT_TIME, ns / 1e9, buf, n);
}

const char *units_cell_in(struct arena *a, enum unit u, double value)
{
    char buf[80];
    return arena_printf(a, "%s", units_cell(u, value, buf, sizeof buf));
}

const char *units_s(int64_t n)
{
    return n == 1 ? "" : "s";
}
