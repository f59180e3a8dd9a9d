/* engine/safetensors.c - maps a safetensors file and checks its header against its size.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/utf8.h"

enum { LENGTH_BYTES = 8, HEADER_MAX_BYTES = 100000000 /* the reference reader's own limit */ };

struct reader {
    struct safetensors *s;
    const unsigned char *data; /* after the header */
    int64_t data_bytes;
    struct arena *arena;
    struct err *e;
};

int safetensors_elt_bytes(const char *dtype)
{
    static const struct {
        const char *name;
        int bytes;
    } known[] = { { "F32", 4 },     { "F16", 2 },     { "BF16", 2 }, { "F64", 8 }, { "I64", 8 },
                  { "I32", 4 },     { "I16", 2 },     { "I8", 1 },   { "U8", 1 },  { "BOOL", 1 },
                  { "F8_E4M3", 1 }, { "F8_E5M2", 1 }, { "U16", 2 },  { "U32", 4 }, { "U64", 8 } };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(dtype, known[i].name) == 0) return known[i].bytes;
    return 0;
}

static int bad(const struct reader *r, const char *tensor, const char *what)
{
    char shown[56];
    return err_set(r->e, ST_USAGE, "%s: tensor '%s' %s", r->s->path,
                   utf8_quote(tensor, shown, sizeof shown), what);
}

/* Whole number 0..INT64_MAX from JSON; -1 for anything else. */
static int64_t whole(const json_t *j)
{
    return json_is_integer(j) && json_integer_value(j) >= 0 ? (int64_t)json_integer_value(j) : -1;
}

static int read_shape(const struct reader *r, const json_t *shape, struct safetensor *t)
{
    int64_t n = safetensors_elt_bytes(t->dtype);
    if (!json_is_array(shape)) return bad(r, t->name, "has no shape");
    if (json_array_size(shape) > SAFETENSORS_MAX_DIM)
        return bad(r, t->name, "has more than 8 dimensions");
    t->n_dim = (int)json_array_size(shape);
    for (int i = 0; i < t->n_dim; i++) {
        int64_t d = t->dim[i] = whole(json_array_get(shape, (size_t)i));
        if (d < 0) return bad(r, t->name, "has a dimension that is no whole number");
        if (d != 0 && n > INT64_MAX / d) return bad(r, t->name, "has a size past 2^63 bytes");
        n *= d;
    }
    t->bytes = n;
    return ST_OK;
}

static int read_tensor(const struct reader *r, const char *name, const json_t *j,
                       struct safetensor *t)
{
    const json_t *dtype = json_object_get(j, "dtype"), *at = json_object_get(j, "data_offsets");
    t->name = arena_copy_text(r->arena, name, strlen(name));
    if (!json_is_object(j)) return bad(r, name, "is not described by an object");
    if (!json_is_string(dtype) || safetensors_elt_bytes(json_string_value(dtype)) == 0)
        return bad(r, name, "has no dtype, or one that is not known");
    t->dtype = arena_copy_text(r->arena, json_string_value(dtype), json_string_length(dtype));
    int st = read_shape(r, json_object_get(j, "shape"), t);
    if (st != ST_OK) return st;
    int64_t begin = whole(json_array_get(at, 0)), end = whole(json_array_get(at, 1));
    if (json_array_size(at) != 2 || begin < 0 || end < begin)
        return bad(r, name, "has no data_offsets [begin, end] with begin <= end");
    if (end > r->data_bytes)
        return err_set(r->e, ST_USAGE,
                       "%s: tensor '%.48s' ends at byte %lld of the data, which has %lld: the file "
                       "is cut short or its header is wrong",
                       r->s->path, t->name, (long long)end, (long long)r->data_bytes);
    if (end - begin != t->bytes)
        return err_set(r->e, ST_USAGE,
                       "%s: tensor '%.48s' has %lld bytes between its offsets, but its shape and "
                       "dtype need %lld",
                       r->s->path, t->name, (long long)(end - begin), (long long)t->bytes);
    t->data = r->data + begin;
    return ST_OK;
}

static int by_place(const void *x, const void *y)
{
    const struct safetensor *a = x, *b = y;
    if (a->data != b->data) return a->data < b->data ? -1 : 1;
    if (a->bytes != b->bytes) return a->bytes < b->bytes ? -1 : 1; /* empty ones first */
    return strcmp(a->name, b->name);
}

static int by_name(const void *x, const void *y)
{
    const struct safetensor *const *a = x, *const *b = y;
    return strcmp((*a)->name, (*b)->name);
}

/* The tensors, by place, must follow each other exactly to the end of the file. */
static int check_cover(const struct reader *r)
{
    struct safetensors *s = r->s;
    const unsigned char *at = r->data;
    if (s->n > 1) qsort(s->tensor, (size_t)s->n, sizeof *s->tensor, by_place);
    for (int i = 0; i < s->n; i++) {
        if (s->tensor[i].data < at) return bad(r, s->tensor[i].name, "overlaps another");
        if (s->tensor[i].data > at) return bad(r, s->tensor[i].name, "comes after a hole");
        at += s->tensor[i].bytes;
    }
    if (at != r->data + r->data_bytes)
        return err_set(r->e, ST_USAGE, "%s: %lld bytes after the last tensor", s->path,
                       (long long)(r->data + r->data_bytes - at));
    return ST_OK;
}

static int read_header(const struct reader *r, const json_t *root)
{
    const char *name;
    json_t *j;
    struct safetensors *s = r->s;
    if (!json_is_object(root))
        return err_set(r->e, ST_USAGE, "%s: its header is no JSON object", s->path);
    s->tensor = arena_array(r->arena, json_object_size(root), sizeof *s->tensor);
    json_object_foreach((json_t *)(uintptr_t)root, name, j)
    {
        if (strcmp(name, "__metadata__") == 0) continue;
        int st = read_tensor(r, name, j, &s->tensor[s->n]);
        if (st != ST_OK) return st;
        s->n++;
    }
    int st = check_cover(r);
    if (st != ST_OK) return st;
    s->by_name = arena_array(r->arena, (size_t)s->n, sizeof *s->by_name);
    for (int i = 0; i < s->n; i++) s->by_name[i] = &s->tensor[i];
    if (s->n > 1) qsort(s->by_name, (size_t)s->n, sizeof *s->by_name, by_name);
    return ST_OK;
}

/* Nesting past what a header can have is refused before jansson recurses into it. */
static bool shallow(const char *text, size_t n)
{
    int depth = 0;
    bool in_text = false;
    for (size_t i = 0; i < n; i++) {
        if (in_text && text[i] == '\\') {
            i++;
        } else if (text[i] == '"') {
            in_text = !in_text;
        } else if (!in_text) {
            depth += (text[i] == '{' || text[i] == '[') - (text[i] == '}' || text[i] == ']');
            if (depth > 8) return false;
        }
    }
    return true;
}

int safetensors_parse(struct safetensors *s, const char *name, const void *bytes, size_t n,
                      struct arena *a, struct err *e)
{
    const unsigned char *p = bytes;
    uint64_t header = 0;
    json_error_t je;
    *s = (struct safetensors){ .path = name };
    if (n < LENGTH_BYTES)
        return err_set(e, ST_USAGE, "%s: %zu bytes are no safetensors file", name, n);
    for (int i = LENGTH_BYTES - 1; i >= 0; i--) header = header << 8 | p[i];
    if (header > HEADER_MAX_BYTES)
        return err_set(e, ST_USAGE,
                       "%s: a header of %llu bytes; at most 100 MB (no safetensors file?)", name,
                       (unsigned long long)header);
    if (header > n - LENGTH_BYTES)
        return err_set(
            e, ST_USAGE,
            "%s: the header has %llu bytes, but the file ends after %zu: it is cut short", name,
            (unsigned long long)header, n - LENGTH_BYTES);
    const char *text = (const char *)p + LENGTH_BYTES;
    if (!shallow(text, header))
        return err_set(e, ST_USAGE, "%s: its header is nested too deeply", name);
    json_t *root = json_loadb(text, header, JSON_REJECT_DUPLICATES, &je);
    if (!root)
        return err_set(e, ST_USAGE, "%s: its header is no JSON: %.120s (byte %d)", name, je.text,
                       je.position);
    struct reader r = { .s = s, .arena = a, .e = e };
    r.data = p + LENGTH_BYTES + header;
    r.data_bytes = (int64_t)(n - LENGTH_BYTES - header);
    int st = read_header(&r, root);
    json_decref(root);
    return st;
}

int safetensors_open(struct safetensors *s, const char *path, struct arena *a, struct err *e)
{
    struct stat info;
    *s = (struct safetensors){ .path = path };
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* not to wait for a pipe */
    if (fd < 0) return err_file(e, "open", path, errno);
    void *map = MAP_FAILED;
    int st = ST_OK;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode))
        st = err_set(e, ST_USAGE, "%s: not a regular file", path);
    else if (info.st_size < LENGTH_BYTES)
        st = err_set(e, ST_USAGE, "%s: %lld bytes are no safetensors file", path,
                     (long long)info.st_size);
    else if ((map = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0)) == MAP_FAILED)
        st = err_set(e, ST_IO, "cannot map %s: %s", path, strerror(errno));
    close(fd); /* the mapping stays */
    if (st != ST_OK) return st;
    st = safetensors_parse(s, path, map, (size_t)info.st_size, a, e);
    s->map = map;
    s->map_bytes = (size_t)info.st_size;
    if (st != ST_OK) safetensors_close(s);
    return st;
}

void safetensors_close(struct safetensors *s)
{
    if (s->map) munmap(s->map, s->map_bytes);
    *s = (struct safetensors){ 0 };
}

const struct safetensor *safetensors_find(const struct safetensors *s, const char *name)
{
    int lo = 0, hi = s->n;
    while (lo < hi) {
        int mid = lo + (hi - lo) / 2, c = strcmp(name, s->by_name[mid]->name);
        if (c == 0) return s->by_name[mid];
        if (c < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}
