/* traces/import_json.c - JSON as Python tools write it: NaN, numbers as text, one value a line.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "traces/import_priv.h"

static bool ends_word(char c)
{
    return c == 0 || strchr(" \t\r\n,]}", c);
}

/* The text with NaN and infinities in quotes, so that a JSON parser takes them. *n its length. */
static char *quote_words(const char *text, size_t *n)
{
    static const char *const word[] = { "NaN", "Infinity", "-Infinity" };
    size_t count = 0, to = 0;
    for (const char *p = text; *p; p++) count += *p == 'N' || *p == 'I';
    char *out = mem_alloc(*n + 2 * count + 1);
    bool in_text = false;
    for (const char *p = text; *p;) {
        size_t len = 0;
        for (int i = 0; i < 3 && !in_text && !len; i++)
            if (strncmp(p, word[i], strlen(word[i])) == 0 && ends_word(p[strlen(word[i])]))
                len = strlen(word[i]);
        if (len) {
            out[to++] = '"';
            memcpy(out + to, p, len);
            to += len;
            out[to++] = '"';
            p += len;
            continue;
        }
        if (*p == '"') in_text = !in_text;
        if (*p == '\\' && in_text && p[1]) out[to++] = *p++;
        out[to++] = *p++;
    }
    out[to] = 0;
    *n = to;
    return out;
}

static void place(const char *text, size_t at, int *line, int *column)
{
    *line = *column = 1;
    for (size_t i = 0; i < at && text[i]; i++) {
        ++*column;
        if (text[i] == '\n') {
            ++*line;
            *column = 1;
        }
    }
}

int import_json(struct import_in *in, size_t n)
{
    char *text = quote_words(in->text, &n);
    size_t at = strspn(text, " \t\r\n");
    int cap = 0, st = ST_OK, line, column;
    while (at < n && st == ST_OK) {
        json_error_t why;
        json_t *j = json_loadb(text + at, n - at, JSON_DISABLE_EOF_CHECK, &why);
        if (!j) {
            size_t off = why.position > 0 ? (size_t)why.position : 0;
            place(text, at + (off < n - at ? off : n - at), &line, &column);
            st = err_set(in->e, ST_USAGE, "%s:%d:%d: %s", in->path, line, column, why.text);
            break;
        }
        if (in->n_value == cap) {
            cap = cap ? 2 * cap : 16;
            in->value = mem_resize(in->value, (size_t)cap, sizeof(json_t *));
        }
        in->value[in->n_value++] = j;
        at += (size_t)why.position;
        at += strspn(text + at, " \t\r\n");
    }
    free(text);
    return st;
}

void import_json_free(struct import_in *in)
{
    for (int i = 0; i < in->n_value; i++) json_decref(in->value[i]);
    free(in->value);
    in->value = NULL;
    in->n_value = 0;
}

json_t *import_at(const json_t *j, const char *path)
{
    char part[64];
    while (j && *path) {
        size_t n = strcspn(path, ".");
        if (n >= sizeof part) return NULL;
        memcpy(part, path, n);
        part[n] = 0;
        j = json_object_get(j, part);
        path += n + (path[n] == '.');
    }
    return json_is_null(j) ? NULL : (json_t *)(uintptr_t)j;
}

bool import_number(const json_t *j, double *out)
{
    *out = NAN;
    if (json_is_number(j)) {
        *out = json_number_value(j);
        return true;
    }
    const char *text = json_string_value(j);
    char *end;
    if (!text || !*text || strspn(text, " \t\n") > 0) return false;
    *out = strtod(text, &end);
    if (*end == 0) return true;
    *out = NAN;
    return false;
}

const char *import_text(const json_t *j, const char *path, const char *otherwise)
{
    const char *text = json_string_value(import_at(j, path));
    return text ? text : otherwise;
}

/* The shortest decimal that reads back as x, to whole ns. */
static int64_t decimal_ns(double x, int64_t unit_ns)
{
    char text[64];
    int digits = 0;
    do {
        snprintf(text, sizeof text, "%.*f", digits, fabs(x));
    } while (strtod(text, NULL) != fabs(x) && ++digits <= 9);
    int64_t ns = strtoll(text, NULL, 10) * unit_ns, scale = 1, part = 0;
    const char *dot = strchr(text, '.');
    for (const char *p = dot ? dot + 1 : ""; *p; p++) {
        part = 10 * part + (*p - '0');
        scale *= 10;
    }
    ns += (part * unit_ns + scale / 2) / scale;
    return x < 0 ? -ns : ns;
}

bool import_ns(const json_t *j, int64_t unit_ns, int64_t *out)
{
    const double exact = 1e15; /* below it the rounding of x * unit stays far under half a ns */
    double x;
    if (json_is_integer(j)) {
        int64_t v = json_integer_value(j);
        if (v > IMPORT_MAX_NS / unit_ns || v < -(IMPORT_MAX_NS / unit_ns)) return false;
        *out = v * unit_ns;
        return true;
    }
    if (!import_number(j, &x) || !isfinite(x)) return false;
    double ns = x * (double)unit_ns;
    if (fabs(ns) > (double)IMPORT_MAX_NS) return false;
    *out = fabs(ns) < exact ? llround(ns) : decimal_ns(x, unit_ns);
    return true;
}

bool import_tok(const json_t *j, int32_t *out)
{
    double x;
    if (!import_number(j, &x) || !(x >= 0 && x <= IMPORT_MAX_TOK) || x != floor(x)) return false;
    *out = (int32_t)x;
    return true;
}

int64_t import_unit_ns(const char *unit)
{
    static const struct {
        const char *name;
        int64_t ns;
    } known[] = { { "s", 1000000000 },         { "sec", 1000000000 },
                  { "seconds", 1000000000 },   { "ms", 1000000 },
                  { "milliseconds", 1000000 }, { "us", 1000 },
                  { "microseconds", 1000 },    { "ns", 1 },
                  { "nanoseconds", 1 } };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(unit, known[i].name) == 0) return known[i].ns;
    return 0;
}

/* ---- parts of a run */

struct import_run *import_add_runs(struct import_in *in, int n)
{
    in->out->run = arena_array(in->a, (size_t)n, sizeof *in->out->run);
    in->out->n_run = n;
    for (int i = 0; i < n; i++)
        in->out->run[i] = (struct import_run){
            .title = "", .model = "", .date = "", .due = IMPORT_DUE_UNKNOWN, .duration_s = NAN
        };
    return in->out->run;
}

void import_room(struct import_in *in, struct import_run *r, size_t most)
{
    r->figure = arena_array(in->a, most + 1, sizeof *r->figure);
}

void import_figure(struct import_run *r, const char *name, double v, const char *unit,
                   const char *means)
{
    if (isnan(v)) return;
    r->figure[r->n_figure++] = (struct import_figure){ name, unit, means, v, NAN, NAN };
}

void import_note(struct import_run *r, const char *text)
{
    if (r->n_note < IMPORT_MAX_NOTE) r->note[r->n_note++] = text;
}

struct import_request import_empty_request(void)
{
    return (struct import_request){ .row = { .t_due_ns = -1,
                                             .t_start_ns = -1,
                                             .t_first_ns = -1,
                                             .t_last_ns = -1,
                                             .session = -1,
                                             .preempted = -1,
                                             .replica = -1 },
                                    .n_gap = -1 };
}

int import_check_request(struct import_in *in, const struct import_request *q, int64_t i)
{
    const struct run_request *r = &q->row;
    const char *problem = NULL;
    if (r->t_due_ns >= 0 && r->t_start_ns >= 0 && r->t_due_ns > r->t_start_ns + 1000000000)
        problem = "was sent more than a second before it was due";
    if (r->t_first_ns >= 0 && r->t_first_ns < r->t_start_ns)
        problem = "has its first token before it was sent";
    if (r->t_last_ns >= 0 && r->t_last_ns < r->t_start_ns)
        problem = "has its last token before it was sent";
    if (r->t_first_ns >= 0 && r->t_last_ns >= 0 && r->t_last_ns < r->t_first_ns)
        problem = "has its last token before its first";
    if (r->status == RUN_OK && (r->t_start_ns < 0 || r->t_last_ns < 0))
        problem = "ended well, but its times are missing";
    if (!problem) return ST_OK;
    return err_set(in->e, ST_USAGE, "%s: request %lld %s", in->path, (long long)i, problem);
}

void import_shift(struct import_run *r)
{
    int64_t least = INT64_MAX;
    for (int64_t i = 0; i < r->n_request; i++) {
        const struct run_request *q = &r->request[i].row;
        if (q->t_due_ns >= 0 && q->t_due_ns < least) least = q->t_due_ns;
        if (q->t_start_ns >= 0 && q->t_start_ns < least) least = q->t_start_ns;
    }
    for (int64_t i = 0; i < r->n_request; i++) {
        struct run_request *q = &r->request[i].row;
        int64_t *const t[] = { &q->t_due_ns, &q->t_start_ns, &q->t_first_ns, &q->t_last_ns };
        for (int k = 0; k < 4; k++)
            if (*t[k] >= 0) *t[k] -= least;
    }
}
