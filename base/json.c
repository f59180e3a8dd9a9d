/* base/json.c - builds a JSON object by dotted paths and prints it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/json.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/doc.h"
#include "base/utf8.h"

void json_put(json_t *j, const char *path, json_t *stolen)
{
    assert(json_is_object(j) && stolen && *path);
    for (const char *dot; (dot = strchr(path, '.')); path = dot + 1) {
        char part[128];
        size_t len = (size_t)(dot - path);
        assert(len > 0 && len < sizeof part);
        memcpy(part, path, len);
        part[len] = 0;
        json_t *next = json_object_get(j, part);
        if (!next) {
            next = json_object();
            json_object_set_new(j, part, next);
        }
        assert(json_is_object(next)); /* a value stands where a group is asked for */
        j = next;
    }
    int failed = json_object_set_new(j, path, stolen);
    assert(!failed); /* only a key that is no UTF-8, or no memory */
    (void)failed;
}

void json_put_f64(json_t *j, const char *path, double v)
{
    json_put(j, path, isfinite(v) ? json_real(v) : json_null());
}

void json_put_i64(json_t *j, const char *path, int64_t v)
{
    json_put(j, path, json_integer(v));
}

void json_put_bool(json_t *j, const char *path, bool v)
{
    json_put(j, path, json_boolean(v));
}

void json_put_text(json_t *j, const char *path, const char *v)
{
    if (!v) {
        json_put(j, path, json_null());
        return;
    }
    size_t n = strlen(v);
    char *clean = mem_alloc(n + 1);
    for (size_t at = 0; at < n;) {
        size_t step = utf8_step(v + at, n - at, NULL);
        if (step)
            memcpy(clean + at, v + at, step);
        else
            clean[at] = '?';
        at += step ? step : 1;
    }
    clean[n] = 0;
    json_put(j, path, json_stringn(clean, n));
    free(clean);
}

/* Shortest of 15, 16 or 17 digits that reads back the same; jansson itself always writes 17. */
static void print_real(double v, FILE *f)
{
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v) break;
    }
    fprintf(f, "%s%s", text, strpbrk(text, ".e") ? "" : ".0");
}

static void print_value(const json_t *j, int depth, FILE *f)
{
    bool map = json_is_object(j);
    size_t n = map ? json_object_size(j) : json_array_size(j), i = 0;
    const char *key;
    json_t *value;

    if (json_is_real(j)) {
        print_real(json_real_value(j), f);
    } else if (!map && !json_is_array(j)) {
        json_dumpf(j, f, JSON_ENCODE_ANY);
    } else if (n == 0) {
        fputs(map ? "{}" : "[]", f);
    } else if (map) {
        fputs("{\n", f);
        json_object_foreach((json_t *)j, key, value)
        {
            json_t *name = json_string(key);
            fprintf(f, "%*s", 2 * depth + 2, "");
            json_dumpf(name, f, JSON_ENCODE_ANY);
            json_decref(name);
            fputs(": ", f);
            print_value(value, depth + 1, f);
            fputs(++i < n ? ",\n" : "\n", f);
        }
        fprintf(f, "%*s}", 2 * depth, "");
    } else {
        fputs("[\n", f);
        for (i = 0; i < n; i++) {
            fprintf(f, "%*s", 2 * depth + 2, "");
            print_value(json_array_get(j, i), depth + 1, f);
            fputs(i + 1 < n ? ",\n" : "\n", f);
        }
        fprintf(f, "%*s]", 2 * depth, "");
    }
}

json_t *json_of_doc(const struct doc *d)
{
    if (d->kind == DOC_SCALAR) return json_string(d->text);
    json_t *j = d->kind == DOC_MAP ? json_object() : json_array();
    for (const struct doc *c = d->first; c; c = c->next) {
        if (d->kind == DOC_MAP)
            json_object_set_new(j, c->key, json_of_doc(c));
        else
            json_array_append_new(j, json_of_doc(c));
    }
    return j;
}

void json_print(const json_t *j, FILE *f)
{
    print_value(j, 0, f);
    fputc('\n', f);
}
