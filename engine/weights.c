/* engine/weights.c - checkpoints over one or many mapped files; weights drawn from a seed.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/weights.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/doc.h"
#include "base/paths.h"
#include "base/rng.h"
#include "base/utf8.h"

enum { INDEX_BYTES = 64 << 20, NAME_BYTES = 56, PATH_BYTES = 4352 };

/* ---- files */

static int by_name(const void *x, const void *y)
{
    const struct safetensor *const *a = x, *const *b = y;
    return strcmp((*a)->name, (*b)->name);
}

static const struct safetensor *find(const struct weights *w, const char *name)
{
    int lo = 0, hi = w->n_tensor;
    while (lo < hi) {
        int mid = lo + (hi - lo) / 2, c = strcmp(name, w->tensor[mid]->name);
        if (c == 0) return w->tensor[mid];
        if (c < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}

static bool exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}

/* The open file of that name, opened now if it is new; -1 on failure. */
static int file_of(struct weights *w, const char *dir, const char *name, int cap, struct err *e)
{
    const char *path = arena_printf(&w->arena, "%s/%s", dir, name);
    for (int i = 0; i < w->n_file; i++)
        if (strcmp(w->file[i].path, path) == 0) return i;
    assert(w->n_file < cap);
    if (safetensors_open(&w->file[w->n_file], path, &w->arena, e) != ST_OK) return -1;
    return w->n_file++;
}

/* One tensor of the index: its file must hold it. */
static int take(struct weights *w, const char *dir, const struct doc *d, int cap, struct err *e)
{
    char shown[NAME_BYTES];
    if (d->kind != DOC_SCALAR || !*d->text || strchr(d->text, '/') || d->text[0] == '.')
        return err_set(e, ST_USAGE, "%s: weight_map: '%s' does not name a file beside the index",
                       d->file, utf8_quote(d->key, shown, sizeof shown));
    int f = file_of(w, dir, d->text, cap, e);
    if (f < 0) return e ? e->status : ST_USAGE;
    const struct safetensor *t = safetensors_find(&w->file[f], d->key);
    if (!t)
        return err_set(e, ST_USAGE,
                       "%s: weight_map says that '%s' is in %.64s, which has no such "
                       "tensor",
                       d->file, utf8_quote(d->key, shown, sizeof shown), d->text);
    w->tensor[w->n_tensor++] = t;
    return ST_OK;
}

static int open_index(struct weights *w, const char *dir, const char *index, struct err *e)
{
    char *bytes = NULL;
    size_t n = 0;
    struct doc *root = NULL;
    int st = doc_read_bytes(&w->arena, index, INDEX_BYTES, &bytes, &n, e);
    if (st == ST_OK) st = doc_parse_json(&w->arena, index, bytes, n, &root, e);
    if (st != ST_OK) return st;
    const struct doc *map = doc_get(root, "weight_map");
    if (!map || map->kind != DOC_MAP || map->n == 0)
        return err_set(e, ST_USAGE, "%s: no weight_map of tensors to files", index);
    w->file = arena_array(&w->arena, (size_t)map->n, sizeof *w->file);
    w->tensor = arena_array(&w->arena, (size_t)map->n, sizeof *w->tensor);
    for (const struct doc *d = map->first; d && st == ST_OK; d = d->next)
        st = take(w, dir, d, map->n, e);
    return st;
}

static int open_one(struct weights *w, const char *dir, struct err *e)
{
    w->file = arena_array(&w->arena, 1, sizeof *w->file);
    if (file_of(w, dir, "model.safetensors", 1, e) < 0) return e ? e->status : ST_USAGE;
    w->n_tensor = w->file[0].n;
    w->tensor = arena_array(&w->arena, (size_t)w->n_tensor, sizeof *w->tensor);
    for (int i = 0; i < w->n_tensor; i++) w->tensor[i] = &w->file[0].tensor[i];
    return ST_OK;
}

int weights_find(const char *dir, char *buf, size_t n, struct err *e)
{
    static const char *const name[] = { "model.safetensors", "model.safetensors.index.json" };
    char path[PATH_BYTES];
    for (size_t i = 0; i < sizeof name / sizeof *name; i++) {
        if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, name[i]) >= sizeof path)
            return err_set(e, ST_USAGE, "the path %.60s... is too long", dir);
        if (!exists(path)) continue;
        if (buf) snprintf(buf, n, "%s", path);
        return ST_OK;
    }
    return err_set(e, ST_USAGE, "%s: no %s and no %s there; --random-weights=SEED runs without",
                   dir, name[0], name[1]);
}

int weights_open(struct weights *w, const char *dir, struct err *e)
{
    char path[PATH_BYTES] = "";
    *w = (struct weights){ 0 };
    arena_init(&w->arena);
    w->path = arena_copy_text(&w->arena, dir, strlen(dir));
    struct err own = { 0 };
    int st = weights_find(dir, path, sizeof path, &own);
    if (st == ST_OK)
        st = paths_ends_in(path, ".json") ? open_index(w, w->path, path, &own)
                                          : open_one(w, w->path, &own);
    if (st == ST_OK) {
        qsort(w->tensor, (size_t)w->n_tensor, sizeof *w->tensor, by_name);
        return ST_OK;
    }
    weights_close(w);
    return err_set(e, own.status, "%s", own.text);
}

void weights_random(struct weights *w, uint64_t seed)
{
    *w = (struct weights){ .random = true, .seed = seed, .path = "random weights" };
    arena_init(&w->arena);
}

void weights_close(struct weights *w)
{
    for (int i = 0; i < w->n_file; i++) safetensors_close(&w->file[i]);
    arena_release(&w->arena);
    *w = (struct weights){ 0 };
}

bool weights_has(const struct weights *w, const char *name)
{
    return w->random || find(w, name) != NULL;
}

int weights_elt(const struct weights *w, const char *name, enum elt *out, struct err *e)
{
    static const struct {
        const char *name;
        enum elt elt;
    } known[] = { { "F32", ELT_F32 }, { "F16", ELT_F16 }, { "BF16", ELT_BF16 } };
    const struct safetensor *t = find(w, name);
    *out = ELT_F32;
    if (w->random) return ST_OK;
    if (!t) return err_set(e, ST_USAGE, "%s: the tensor %s is missing", w->path, name);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        *out = known[i].elt;
        if (strcmp(t->dtype, known[i].name) == 0) return ST_OK;
    }
    return err_set(e, ST_USAGE, "%s: the tensor %s is %s; only F32, F16 and BF16 can be run",
                   w->path, name, t->dtype);
}

/* ---- values */

static void convert(enum elt from, const unsigned char *src, enum elt to, void *dst, int64_t n)
{
    size_t bytes = elt_bytes(from);
    if (from == to) {
        memcpy(dst, src, (size_t)n * bytes);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        uint32_t word = 0; /* the mapping may not be aligned */
        uint16_t half = 0;
        memcpy(from == ELT_F32 ? (void *)&word : (void *)&half, src + (size_t)i * bytes, bytes);
        elt_put(to, dst, (size_t)i,
                elt_get(from, from == ELT_F32 ? (void *)&word : (void *)&half, 0));
    }
}

static int check_shape(const struct weights *w, const struct weights_part *p,
                       const struct safetensor *t, struct err *e)
{
    bool vector = p->n_row == 1 && t->n_dim == 1 && t->dim[0] == p->n_col;
    if (vector || (t->n_dim == 2 && t->dim[0] == p->n_row && t->dim[1] == p->n_col)) return ST_OK;
    char has[96] = "";
    for (int i = 0, at = 0; i < t->n_dim && at < 72; i++)
        at += snprintf(has + at, sizeof has - (size_t)at, "%s%lld", i ? " x " : "",
                       (long long)t->dim[i]);
    if (p->n_row == 1)
        return err_set(e, ST_USAGE, "%s: the tensor %s is %s, but the configuration needs %lld",
                       w->path, p->name, has, (long long)p->n_col);
    return err_set(e, ST_USAGE, "%s: the tensor %s is %s, but the configuration needs %lld x %lld",
                   w->path, p->name, has, (long long)p->n_row, (long long)p->n_col);
}

int weights_check(const struct weights *w, const struct weights_part *p, struct err *e)
{
    enum elt elt;
    int st = weights_elt(w, p->name, &elt, e);
    return st == ST_OK && !w->random ? check_shape(w, p, find(w, p->name), e) : st;
}

/* One of the four neighbours that 64 bits give, in (-32768, 32768). */
static float drawn(uint64_t bits, unsigned j)
{
    return (float)(int32_t)(bits >> 16 * j & 0xffff) - 32767.5f;
}

/* Values [at, at + n) of a tensor. */
static void draw_run(struct rng r, uint64_t at, int64_t n, float step, float *to)
{
    int64_t i = 0;
    for (; i < n && at % 4; i++, at++) to[i] = step * drawn(rng_bits(r, at / 4), at % 4);
    for (; i + 4 <= n; i += 4, at += 4) {
        uint64_t bits = rng_bits(r, at / 4);
        for (unsigned j = 0; j < 4; j++) to[i + j] = step * drawn(bits, j);
    }
    for (; i < n; i++, at++) to[i] = step * drawn(rng_bits(r, at / 4), at % 4);
}

/* Matrices are uniform with variance 1 / columns, so that a product keeps the size of its input;
 * biases uniform within 0.1; norms one. Drawn row-major. */
static void draw(const struct weights *w, const struct weights_part *p, enum elt to, void *dst,
                 int64_t stride)
{
    enum { RUN = 1024 };
    struct rng r = rng_stream(w->seed, p->name);
    bool bias = paths_ends_in(p->name, ".bias"), norm = p->n_row == 1 && !bias;
    float reach = bias ? 0.1f : (float)sqrt(3.0 / (double)p->n_col), step = reach / 32768.0f;
    float run[RUN];
    for (int64_t i = 0; i < RUN && norm; i++) run[i] = 1.0f;
    for (int64_t i = 0; i < p->rows; i++) {
        uint64_t at = (uint64_t)(p->row + i) * (uint64_t)p->n_col + (uint64_t)p->col;
        for (int64_t c = 0; c < p->cols; c += RUN) {
            int64_t n = p->cols - c < RUN ? p->cols - c : RUN;
            unsigned char *out = (unsigned char *)dst + (size_t)(i * stride + c) * elt_bytes(to);
            if (!norm) draw_run(r, at + (uint64_t)c, n, step, run);
            convert(ELT_F32, (const unsigned char *)run, to, out, n);
        }
    }
}

int weights_fetch(const struct weights *w, const struct weights_part *p, enum elt to, void *dst,
                  int64_t stride, struct err *e)
{
    assert(p->row >= 0 && p->rows >= 0 && p->row + p->rows <= p->n_row);
    assert(p->col >= 0 && p->cols >= 0 && p->col + p->cols <= p->n_col);
    if (w->random) {
        draw(w, p, to, dst, stride);
        return ST_OK;
    }
    enum elt from;
    int st = weights_elt(w, p->name, &from, e);
    const struct safetensor *t = find(w, p->name);
    if (st == ST_OK) st = check_shape(w, p, t, e);
    if (st != ST_OK) return st;
    size_t in = elt_bytes(from), out = elt_bytes(to);
    for (int64_t i = 0; i < p->rows; i++) {
        const unsigned char *src = t->data + (size_t)((p->row + i) * p->n_col + p->col) * in;
        convert(from, src, to, (unsigned char *)dst + (size_t)(i * stride) * out, p->cols);
    }
    return ST_OK;
}
