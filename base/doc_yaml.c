/* base/doc_yaml.c - YAML events from libyaml as a tree.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/doc.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/utf8.h"

struct frame {
    struct doc *node, *last; /* open map or list, its newest child */
    const char *key;         /* key read, value to come; NULL: none */
    yaml_mark_t key_mark;
};

struct reader {
    struct arena *arena;
    const char *name;
    struct err *err;
    struct doc *root;
    int depth, n_doc;
    long n_node;
    bool ended;
    struct frame frame[DOC_MAX_DEPTH];
};

static int refuse(struct reader *r, yaml_mark_t at, const char *why)
{
    return err_set(r->err, ST_USAGE, "%s:%zu:%zu: %s", r->name, at.line + 1, at.column + 1, why);
}

static int refuse_key(struct reader *r, size_t line, size_t column, const char *key, int first)
{
    char shown[64];
    return err_set(r->err, ST_USAGE,
                   "%s:%zu:%zu: key '%s' stands twice in one map, first in line %d", r->name, line,
                   column, utf8_quote(key, shown, sizeof shown), first);
}

/* What libyaml itself objects to. Its reader knows offsets only, but UTF-8 was checked before. */
static int refuse_syntax(struct reader *r, const yaml_parser_t *p)
{
    const char *why = p->problem ? p->problem : "malformed YAML";
    if (p->error == YAML_MEMORY_ERROR)
        return err_set(r->err, ST_USAGE, "%s: out of memory while reading YAML", r->name);
    if (p->error == YAML_READER_ERROR)
        return err_set(r->err, ST_USAGE, "%s: %s (at byte %zu)", r->name, why, p->problem_offset);
    yaml_mark_t at = p->problem_mark;
    if (p->context)
        return err_set(r->err, ST_USAGE, "%s:%zu:%zu: %s (%s in line %zu)", r->name, at.line + 1,
                       at.column + 1, why, p->context, p->context_mark.line + 1);
    return refuse(r, at, why);
}

static int by_key_then_place(const void *pa, const void *pb)
{
    const struct doc *a = *(struct doc *const *)pa, *b = *(struct doc *const *)pb;
    int c = strcmp(a->key, b->key);
    if (c) return c;
    if (a->key_line != b->key_line) return a->key_line < b->key_line ? -1 : 1;
    return a->key_column < b->key_column ? -1 : a->key_column > b->key_column;
}

/* Sorted, so that a map of a million keys costs no quadratic time. */
static int check_keys(struct reader *r, const struct doc *map)
{
    const struct doc *first = NULL, *again = NULL;
    if (map->n < 2) return ST_OK;
    struct doc **sorted = mem_zalloc((size_t)map->n, sizeof *sorted);
    int n = 0;
    for (struct doc *c = map->first; c; c = c->next) sorted[n++] = c;
    qsort(sorted, (size_t)n, sizeof *sorted, by_key_then_place);
    for (int i = 1; i < n; i++) {
        const struct doc *c = sorted[i];
        if (strcmp(c->key, sorted[i - 1]->key) != 0) continue;
        if (again && (c->key_line > again->key_line ||
                      (c->key_line == again->key_line && c->key_column > again->key_column)))
            continue;
        again = c;
        first = sorted[i - 1];
    }
    free(sorted);
    if (!again) return ST_OK;
    return refuse_key(r, (size_t)again->key_line, (size_t)again->key_column, again->key,
                      first->key_line);
}

/* A node where the stream stands: at the root, in a list, or as the value of the key just read. */
static int add_node(struct reader *r, enum doc_kind kind, yaml_mark_t at, struct doc **out)
{
    if (++r->n_node > DOC_MAX_NODES) return refuse(r, at, "more than 2^24 nodes in one document");
    struct doc *d = arena_alloc(r->arena, sizeof *d);
    d->kind = kind;
    d->file = r->name;
    d->line = (int)at.line + 1;
    d->column = (int)at.column + 1;
    *out = d;
    if (r->depth == 0) {
        r->root = d;
        return ST_OK;
    }
    struct frame *f = &r->frame[r->depth - 1];
    if (f->node->kind == DOC_MAP) {
        d->key = f->key;
        d->key_line = (int)f->key_mark.line + 1;
        d->key_column = (int)f->key_mark.column + 1;
        f->key = NULL;
    }
    if (f->last)
        f->last->next = d;
    else
        f->node->first = d;
    f->last = d;
    f->node->n++;
    return ST_OK;
}

static bool key_expected(const struct reader *r)
{
    return r->depth > 0 && r->frame[r->depth - 1].node->kind == DOC_MAP &&
           !r->frame[r->depth - 1].key;
}

static int on_scalar(struct reader *r, const yaml_event_t *v)
{
    const char *text = (const char *)v->data.scalar.value;
    size_t n = v->data.scalar.length;
    struct doc *d = NULL;
    if (memchr(text, 0, n)) return refuse(r, v->start_mark, "a NUL character in a scalar");
    char *copy = arena_copy_text(r->arena, text, n);
    if (key_expected(r)) {
        struct frame *f = &r->frame[r->depth - 1];
        f->key = copy;
        f->key_mark = v->start_mark;
        return ST_OK;
    }
    int st = add_node(r, DOC_SCALAR, v->start_mark, &d);
    if (st != ST_OK) return st;
    d->text = copy;
    d->quoted = v->data.scalar.style == YAML_SINGLE_QUOTED_SCALAR_STYLE ||
                v->data.scalar.style == YAML_DOUBLE_QUOTED_SCALAR_STYLE;
    return ST_OK;
}

static int on_open(struct reader *r, enum doc_kind kind, yaml_mark_t at)
{
    struct doc *d = NULL;
    if (key_expected(r)) return refuse(r, at, "a key must be plain text, not a map or a list");
    if (r->depth == DOC_MAX_DEPTH) return refuse(r, at, "nested deeper than 64 levels");
    int st = add_node(r, kind, at, &d);
    if (st != ST_OK) return st;
    r->frame[r->depth++] = (struct frame){ .node = d };
    return ST_OK;
}

static int on_close(struct reader *r)
{
    assert(r->depth > 0);
    const struct doc *d = r->frame[--r->depth].node;
    return d->kind == DOC_MAP ? check_keys(r, d) : ST_OK;
}

static int refuse_properties(struct reader *r, const yaml_event_t *v, const yaml_char_t *anchor,
                             const yaml_char_t *tag)
{
    if (anchor) return refuse(r, v->start_mark, "anchors (&name) are not allowed");
    if (tag) return refuse(r, v->start_mark, "tags (!name) are not allowed");
    return ST_OK;
}

static int on_event(struct reader *r, const yaml_event_t *v)
{
    int st;
    switch (v->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (r->n_doc++) return refuse(r, v->start_mark, "a second document in the file");
        return ST_OK;
    case YAML_ALIAS_EVENT: return refuse(r, v->start_mark, "aliases (*name) are not allowed");
    case YAML_SCALAR_EVENT:
        st = refuse_properties(r, v, v->data.scalar.anchor, v->data.scalar.tag);
        return st != ST_OK ? st : on_scalar(r, v);
    case YAML_MAPPING_START_EVENT:
        st = refuse_properties(r, v, v->data.mapping_start.anchor, v->data.mapping_start.tag);
        return st != ST_OK ? st : on_open(r, DOC_MAP, v->start_mark);
    case YAML_SEQUENCE_START_EVENT:
        st = refuse_properties(r, v, v->data.sequence_start.anchor, v->data.sequence_start.tag);
        return st != ST_OK ? st : on_open(r, DOC_LIST, v->start_mark);
    case YAML_MAPPING_END_EVENT:
    case YAML_SEQUENCE_END_EVENT: return on_close(r);
    case YAML_STREAM_END_EVENT: r->ended = true; return ST_OK;
    default: return ST_OK;
    }
}

int doc_parse_yaml(struct arena *a, const char *name, const void *bytes, size_t n, struct doc **out,
                   struct err *e)
{
    yaml_parser_t parser;
    struct reader r = { .arena = a, .err = e };
    const char *text = bytes;

    r.name = arena_copy_text(a, name, strlen(name));
    if (n > DOC_MAX_BYTES) return err_set(e, ST_USAGE, "%s: longer than 256 MiB", name);
    if (n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) { /* byte order mark */
        text += 3;
        n -= 3;
    }
    int st = doc_check_text(name, text, n, e);
    if (st != ST_OK) return st;
    if (!yaml_parser_initialize(&parser))
        return err_set(e, ST_USAGE, "%s: out of memory while reading YAML", name);
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, n);
    while (st == ST_OK && !r.ended) {
        yaml_event_t event;
        if (!yaml_parser_parse(&parser, &event)) {
            st = refuse_syntax(&r, &parser);
            break;
        }
        st = on_event(&r, &event);
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    if (st == ST_OK && !r.root) st = err_set(e, ST_USAGE, "%s:1:1: the file is empty", name);
    if (st == ST_OK) *out = r.root;
    return st;
}

int doc_read_yaml(struct arena *a, const char *path, struct doc **out, struct err *e)
{
    char *bytes = NULL;
    size_t n = 0;
    int st = doc_read_bytes(a, path, DOC_MAX_BYTES, &bytes, &n, e);
    return st != ST_OK ? st : doc_parse_yaml(a, path, bytes, n, out, e);
}
