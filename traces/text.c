/* traces/text.c - lines, fields and numbers of text files that nobody vouches for.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/stop.h"
#include "traces/trace_priv.h"

enum { LOOK_EVERY = 1024 }; /* lines between looks at Ctrl-C */

int lines_next(struct lines *l, struct text *out, struct err *e)
{
    if (l->at == l->end) return 0;
    const char *newline = memchr(l->at, '\n', (size_t)(l->end - l->at));
    const char *stop = newline ? newline : l->end;
    if (l->number++ % LOOK_EVERY == 0 && stop_asked()) {
        err_set(e, ST_STOPPED, "interrupted");
        return -1;
    }
    *out = (struct text){ l->at, (size_t)(stop - l->at) };
    l->at = newline ? newline + 1 : l->end;
    if (out->n > TRACE_MAX_LINE) {
        err_set(e, ST_USAGE, "%s:%lld: the line is longer than 16 MiB", l->path,
                (long long)l->number);
        return -1;
    }
    if (memchr(out->s, 0, out->n)) {
        err_set(e, ST_USAGE, "%s:%lld: a NUL byte, so this is no text file", l->path,
                (long long)l->number);
        return -1;
    }
    if (out->n > 0 && out->s[out->n - 1] == '\r') out->n--;
    return 1;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

struct text text_trim(struct text t)
{
    while (t.n > 0 && is_blank(t.s[0])) {
        t.s++;
        t.n--;
    }
    while (t.n > 0 && is_blank(t.s[t.n - 1])) t.n--;
    return t;
}

bool text_is(struct text t, const char *word)
{
    return strlen(word) == t.n && memcmp(t.s, word, t.n) == 0;
}

bool text_int(struct text t, int64_t *out)
{
    bool minus = t.n > 0 && t.s[0] == '-';
    size_t i = minus || (t.n > 0 && t.s[0] == '+');
    int64_t v = 0;
    if (i == t.n) return false;
    for (; i < t.n; i++) {
        int digit = t.s[i] - '0';
        if (!is_digit(t.s[i]) || v > (INT64_MAX - digit) / 10) return false;
        v = 10 * v + digit;
    }
    *out = minus ? -v : v;
    return true;
}

/* A number with an exponent: as close as double is. */
static bool ns_by_double(struct text t, int64_t unit_ns, int64_t *out)
{
    char buf[64], *end;
    if (t.n >= sizeof buf) return false;
    for (size_t i = 0; i < t.n; i++)
        if (!is_digit(t.s[i]) && !strchr("+-.eE", t.s[i])) return false;
    memcpy(buf, t.s, t.n);
    buf[t.n] = 0;
    double v = strtod(buf, &end) * (double)unit_ns;
    if (*end || end == buf || !(fabs(v) <= (double)TRACE_MAX_NS)) return false;
    *out = (int64_t)floor(v + 0.5);
    return true;
}

bool text_ns(struct text t, int64_t unit_ns, int64_t *out)
{
    bool minus = t.n > 0 && t.s[0] == '-';
    size_t i = minus || (t.n > 0 && t.s[0] == '+'), digits = 0;
    int64_t v = 0, frac = 0, place = unit_ns, most = TRACE_MAX_NS / unit_ns;
    for (; i < t.n && is_digit(t.s[i]); i++, digits++) {
        int digit = t.s[i] - '0';
        if (v > (most - digit) / 10) return false;
        v = 10 * v + digit;
    }
    if (i < t.n && t.s[i] == '.')
        for (i++; i < t.n && is_digit(t.s[i]); i++, digits++) {
            if (place == 1) frac += t.s[i] >= '5'; /* the first digit below 1 ns rounds */
            place /= 10;
            frac += place * (t.s[i] - '0');
        }
    if (i < t.n) return ns_by_double(t, unit_ns, out);
    if (digits == 0) return false;
    v = v * unit_ns + frac;
    *out = minus ? -v : v;
    return true;
}

static bool digits_at(const char *s, int n, int *out)
{
    *out = 0;
    for (int i = 0; i < n; i++) {
        if (!is_digit(s[i])) return false;
        *out = 10 * *out + (s[i] - '0');
    }
    return true;
}

/* Days since 1970-01-01 of a Gregorian date, counted in years that begin in March. Source: Hinnant,
 * "chrono-Compatible Low-Level Date Algorithms", days_from_civil. */
static int64_t days_of(int year, int month, int day)
{
    int y = year - (month <= 2), era = y / 400, of_era = y - 400 * era;
    int of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return (int64_t)era * 146097 + (int64_t)of_era * 365 + of_era / 4 - of_era / 100 + of_year -
           719468;
}

bool text_utc_ns(struct text t, int64_t *out)
{
    int year, month, day, hour, minute, second;
    if (t.n < 19 || !digits_at(t.s, 4, &year) || !digits_at(t.s + 5, 2, &month) ||
        !digits_at(t.s + 8, 2, &day) || !digits_at(t.s + 11, 2, &hour) ||
        !digits_at(t.s + 14, 2, &minute) || !digits_at(t.s + 17, 2, &second))
        return false;
    if (t.s[4] != '-' || t.s[7] != '-' || (t.s[10] != ' ' && t.s[10] != 'T') || t.s[13] != ':' ||
        t.s[16] != ':')
        return false;
    if (year < 1970 || year > 2200 || month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 ||
        minute > 59 || second > 60)
        return false;
    int64_t frac_ns = 0, place = 1000000000;
    size_t i = 19;
    if (i < t.n && t.s[i] == '.')
        for (i++; i < t.n && is_digit(t.s[i]); i++) frac_ns += (place /= 10) * (t.s[i] - '0');
    /* UTC is said by nothing, by Z or by an offset of zero; other offsets are not understood. */
    struct text zone = { t.s + i, t.n - i };
    if (zone.n > 0 && !text_is(zone, "Z") && !text_is(zone, "+00:00")) return false;
    *out = ((days_of(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    *out = *out * 1000000000 + frac_ns;
    return true;
}

/* A quoted field from its opening quote: *at moves past it and the comma. */
static bool quoted_field(const char **at, const char *end, struct text *out)
{
    char *to = (char *)(uintptr_t)*at;
    const char *from = *at + 1;
    out->s = to;
    while (from < end && !(*from == '"' && (from + 1 == end || from[1] != '"'))) {
        if (*from == '"') from++;
        *to++ = *from++;
    }
    if (from == end) return false;
    out->n = (size_t)(to - out->s);
    for (from++; from < end && *from != ','; from++)
        if (!is_blank(*from)) return false;
    *at = from;
    return true;
}

int text_split_csv(struct text line, struct text *field, int max)
{
    const char *at = line.s, *end = line.s + line.n;
    int n = 0;
    for (;;) {
        struct text f;
        while (at < end && is_blank(*at)) at++;
        if (at < end && *at == '"') {
            if (!quoted_field(&at, end, &f)) return -1;
        } else {
            const char *comma = memchr(at, ',', (size_t)(end - at));
            f = text_trim((struct text){ at, (size_t)((comma ? comma : end) - at) });
            at = comma ? comma : end;
        }
        if (n < max) field[n++] = f;
        if (at == end) return n;
        at++;
    }
}
