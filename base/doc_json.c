/* base/doc_json.c - a JSON file, read by jansson, as a tree of text.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/doc.h"

#include <assert.h>
#include <inttypes.h>
#include <jansson.h>
#include <string.h>

struct builder {
    struct arena *arena;
    const char *name;
    long n_node;
};

/* Brackets are counted before jansson recurses, which keeps no place of its own in the tree. */
static int check_depth(const char *name, const char *text, size_t n, struct err *e)
{
    int depth = 0, line = 1, column = 0;
    bool in_text = false;
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        if (((unsigned char)c & 0xc0) != 0x80) column++;
        if (c == '\n') {
            line++;
            column = 0;
        }
        if (in_text) {
            if (c == '\\' && i + 1 < n && text[i + 1] != '\n') {
                i++;
                column++;
            } else if (c == '"')
                in_text = false;
            continue;
        }
        if (c == '"') in_text = true;
        if (c == '}' || c == ']') depth--;
        if ((c == '{' || c == '[') && ++depth > DOC_MAX_DEPTH)
            return err_set(e, ST_USAGE, "%s:%d:%d: nested deeper than 64 levels", name, line,
                           column);
    }
    return ST_OK;
}

static struct doc *new_node(struct builder *b, enum doc_kind kind)
{
    struct doc *d = arena_alloc(b->arena, sizeof *d);
    d->kind = kind;
    d->file = b->name;
    b->n_node++;
    return d;
}

static const char *scalar_text(struct builder *b, const json_t *j)
{
    switch (json_typeof(j)) {
    case JSON_STRING: return arena_copy_text(b->arena, json_string_value(j), json_string_length(j));
    case JSON_INTEGER:
        return arena_printf(b->arena, "%" JSON_INTEGER_FORMAT, json_integer_value(j));
    case JSON_REAL: return arena_printf(b->arena, "%.17g", json_real_value(j));
    case JSON_TRUE: return "true";
    case JSON_FALSE: return "false";
    default: return "null";
    }
}

static struct doc *build(struct builder *b, json_t *j);

static void append(struct doc *to, struct doc **last, struct doc *d)
{
    if (*last)
        (*last)->next = d;
    else
        to->first = d;
    *last = d;
    to->n++;
}

static struct doc *build_map(struct builder *b, json_t *j)
{
    struct doc *d = new_node(b, DOC_MAP), *last = NULL;
    const char *key;
    json_t *value;
    json_object_foreach(j, key, value)
    {
        struct doc *c = build(b, value);
        if (!c) return NULL;
        c->key = arena_copy_text(b->arena, key, strlen(key));
        append(d, &last, c);
    }
    return d;
}

static struct doc *build_list(struct builder *b, json_t *j)
{
    struct doc *d = new_node(b, DOC_LIST), *last = NULL;
    for (size_t i = 0; i < json_array_size(j); i++) {
        struct doc *c = build(b, json_array_get(j, i));
        if (!c) return NULL;
        append(d, &last, c);
    }
    return d;
}

/* Recursion is bounded by check_depth. NULL: too many nodes. */
static struct doc *build(struct builder *b, json_t *j)
{
    if (b->n_node >= DOC_MAX_NODES) return NULL;
    if (json_is_object(j)) return build_map(b, j);
    if (json_is_array(j)) return build_list(b, j);
    struct doc *d = new_node(b, DOC_SCALAR);
    d->text = scalar_text(b, j);
    d->quoted = json_is_string(j);
    return d;
}

int doc_parse_json(struct arena *a, const char *name, const void *bytes, size_t n, struct doc **out,
                   struct err *e)
{
    const char *text = bytes;
    json_error_t why;
    struct builder b = { .arena = a };

    b.name = arena_copy_text(a, name, strlen(name));
    if (n > DOC_MAX_BYTES) return err_set(e, ST_USAGE, "%s: longer than 256 MiB", name);
    if (n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) { /* byte order mark */
        text += 3;
        n -= 3;
    }
    if (n == 0) return err_set(e, ST_USAGE, "%s:1:1: the file is empty", name);
    int st = doc_check_text(name, text, n, e);
    if (st == ST_OK) st = check_depth(name, text, n, e);
    if (st != ST_OK) return st;
    json_t *j = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &why);
    if (!j)
        return err_set(e, ST_USAGE, "%s:%d:%d: %s", name, why.line > 0 ? why.line : 1,
                       why.column > 0 ? why.column : 1, why.text);
    struct doc *d = build(&b, j);
    json_decref(j);
    if (!d) return err_set(e, ST_USAGE, "%s: more than 2^24 nodes in one document", name);
    *out = d;
    return ST_OK;
}

int doc_read_json(struct arena *a, const char *path, struct doc **out, struct err *e)
{
    char *bytes = NULL;
    size_t n = 0;
    int st = doc_read_bytes(a, path, DOC_MAX_BYTES, &bytes, &n, e);
    return st != ST_OK ? st : doc_parse_json(a, path, bytes, n, out, e);
}
