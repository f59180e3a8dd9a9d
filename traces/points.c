/* traces/points.c - writes and reads the store of microbenchmark results.
 * SPDX-License-Identifier: Apache-2.0 */
#include "traces/points.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"

#define COL(member) offsetof(struct points_row, member)
/* clang-format off */
const struct h5col points_cols[] = {
    { "op", H5COL_U8, COL(op), "1", "what is measured", POINTS_OP_WORDS },
    { "dtype", H5COL_U8, COL(dtype), "1", "type of the numbers", POINTS_DTYPE_WORDS },
    { "comm", H5COL_U8, COL(comm), "1", "how ranks communicate", POINTS_COMM_WORDS },
    { "part", H5COL_U8, COL(part), "1", "which part of the operation", POINTS_PART_WORDS },
    { "threads", H5COL_I32, COL(threads), "1", "threads of a rank; 0: not stated", NULL },
    { "ranks", H5COL_I32, COL(ranks), "1", "ranks; 0: not stated", NULL },
    { "m", H5COL_I64, COL(m), "1", "rows, or new tokens", NULL },
    { "n", H5COL_I64, COL(n), "1", "columns, query heads, logits, or output tokens", NULL },
    { "k", H5COL_I64, COL(k), "1", "inner size, or KV heads", NULL },
    { "seqs", H5COL_I64, COL(seqs), "1", "sequences", NULL },
    { "ctx", H5COL_I64, COL(ctx), "1", "cached tokens of a sequence, on average", NULL },
    { "ctx_max", H5COL_I64, COL(ctx_max), "1", "cached tokens of a sequence, at most", NULL },
    { "head_dim", H5COL_I64, COL(head_dim), "1", "size of a head", NULL },
    { "bytes", H5COL_F64, COL(bytes), "byte",
      "moved by a call, or size of the tensor of a collective; 0: not counted", NULL },
    { "flop", H5COL_F64, COL(flop), "1", "operations of a call, by formula; 0: not counted", NULL },
    { "error", H5COL_F64, COL(error), "1",
      "worst relative error against a reference; -1: not checked", NULL },
    { .type = H5COL_END },
};
/* clang-format on */
#undef COL
#define COL(member) offsetof(struct points_sample, member)
/* clang-format off */
const struct h5col points_sample_cols[] = {
    { "point", H5COL_I32, COL(point), "1", "row of /points, from 0", NULL },
    { "run", H5COL_I32, COL(run), "1", "repetition, from 0", NULL },
    { "calls", H5COL_I64, COL(calls), "1", "calls timed together", NULL },
    { "time", H5COL_F64, COL(s_per_call), "s", "time of a call, mean over the calls", NULL },
    { "t", H5COL_F64, COL(t_s), "s", "when it began, from the start of the benchmark", NULL },
    { "noisy", H5COL_U8, COL(noisy), "1", "whether the machine was busy with something else",
      "no yes" },
    { .type = H5COL_END },
};
/* clang-format on */
#undef COL
#define COL(member) offsetof(struct points_noise, member)
/* clang-format off */
const struct h5col points_noise_cols[] = {
    { "t", H5COL_F64, COL(t_s), "s", "when, from the start of the benchmark", NULL },
    { "load", H5COL_F64, COL(load), "1", "tasks that run or want to", NULL },
    { "steal", H5COL_F64, COL(steal_ratio), "1", "share of time taken by the hypervisor", NULL },
    { "spin", H5COL_F64, COL(spin_s), "s", "time of a loop of fixed work", NULL },
    { .type = H5COL_END },
};
/* clang-format on */
#undef COL

#define COL(member) offsetof(struct points_gpu, member)
/* clang-format off */
const struct h5col points_gpu_cols[] = {
    { "t", H5COL_F64, COL(t_s), "s", "when the job began, from the start of the benchmark", NULL },
    { "power", H5COL_F64, COL(power_w), "W", "mean of the looks", NULL },
    { "power_max", H5COL_F64, COL(power_max_w), "W", "largest of the looks", NULL },
    { "clock", H5COL_F64, COL(clock_hz), "Hz", "of the multiprocessors, mean of the looks", NULL },
    { "clock_min", H5COL_F64, COL(clock_min_hz), "Hz", "of the multiprocessors, lowest", NULL },
    { "temperature", H5COL_F64, COL(temperature_c), "degC", "highest", NULL },
    { "slowed", H5COL_I64, COL(slowed), "1", "NVML's reasons for a lower clock, bits of any look", NULL },
    { "looks", H5COL_I32, COL(looks), "1", "how often it was looked at", NULL },
    { .type = H5COL_END },
};
/* clang-format on */
#undef COL

enum { TABLE_POINTS, TABLE_SAMPLES, TABLE_NOISE, TABLE_GPU, N_TABLE };
/* clang-format off */
static const struct layout {
    const char *group, *index, *description;
    const struct h5col *cols;
    size_t row_bytes;
} layout[N_TABLE] = {
    [TABLE_POINTS] = { "/points", "point", "one row per thing measured", points_cols,
                       sizeof(struct points_row) },
    [TABLE_SAMPLES] = { "/samples", "sample", "one row per timed run", points_sample_cols,
                        sizeof(struct points_sample) },
    [TABLE_NOISE] = { "/noise", "look", "how busy the machine was", points_noise_cols,
                      sizeof(struct points_noise) },
    [TABLE_GPU] = { "/gpu", "job", "the GPU while a job ran", points_gpu_cols,
                    sizeof(struct points_gpu) },
};
/* clang-format on */

const char *points_word(const char *words, int i, char *buf, size_t n)
{
    for (; i > 0 && *words; i--) {
        words += strcspn(words, " ");
        words += *words == ' ';
    }
    size_t len = strcspn(words, " ");
    snprintf(buf, n, "%.*s", (int)len, len ? words : "?");
    if (!len) snprintf(buf, n, "?");
    return buf;
}

static int n_words(const char *words)
{
    int n = *words != 0;
    for (; *words; words++) n += *words == ' ';
    return n;
}

/* ---- what a row may hold; NULL: nothing is wrong */

static const char *row_problem(const struct points_row *r)
{
    const int64_t size[] = { r->threads, r->ranks, r->m,       r->n,       r->k,
                             r->seqs,    r->ctx,   r->ctx_max, r->head_dim };
    if (r->op >= POINTS_N_OP) return "its op is unknown";
    if (r->dtype >= n_words(POINTS_DTYPE_WORDS)) return "its dtype is unknown";
    if (r->comm >= n_words(POINTS_COMM_WORDS)) return "its comm is unknown";
    if (r->part >= n_words(POINTS_PART_WORDS)) return "its part is unknown";
    for (size_t i = 0; i < sizeof size / sizeof *size; i++)
        if (size[i] < 0) return "a size is negative";
    if (!isfinite(r->bytes) || r->bytes < 0) return "bytes is negative or not finite";
    if (!isfinite(r->flop) || r->flop < 0) return "flop is negative or not finite";
    if (!isfinite(r->error) || (r->error < 0 && r->error != -1))
        return "error is negative or not finite";
    return NULL;
}

static const char *sample_problem(const struct points_sample *s, int64_t n_row, double last_s)
{
    if (s->point < 0 || s->point >= n_row) return "it is of no point";
    if (s->run < 0) return "run is negative";
    if (s->calls < 1) return "calls is less than 1";
    if (!isfinite(s->s_per_call) || s->s_per_call < 0) return "time is negative or not finite";
    if (!isfinite(s->t_s) || s->t_s < 0) return "t is negative or not finite";
    if (s->t_s < last_s) return "t is before that of the sample in front of it";
    if (s->noisy > 1) return "noisy is neither no nor yes";
    return NULL;
}

static const char *noise_problem(const struct points_noise *s, double last_s)
{
    if (!isfinite(s->t_s) || s->t_s < 0) return "t is negative or not finite";
    if (s->t_s < last_s) return "t is before that of the look in front of it";
    if (!isfinite(s->load) || s->load < 0) return "load is negative or not finite";
    if (!isfinite(s->steal_ratio) || s->steal_ratio < 0 || s->steal_ratio > 1)
        return "steal is no share";
    if (!isfinite(s->spin_s) || s->spin_s < 0) return "spin is negative or not finite";
    return NULL;
}

/* Not a number: not read. */
static bool is_unread_or_positive(double x)
{
    return isnan(x) || (isfinite(x) && x >= 0);
}

static const char *gpu_problem(const struct points_gpu *s, double last_s)
{
    const double v[] = { s->power_w, s->power_max_w, s->clock_hz, s->clock_min_hz };
    if (!isfinite(s->t_s) || s->t_s < 0) return "t is negative or not finite";
    if (s->t_s < last_s) return "t is before that of the job in front of it";
    for (size_t i = 0; i < sizeof v / sizeof *v; i++)
        if (!is_unread_or_positive(v[i])) return "a power or clock is negative or infinite";
    if (isinf(s->temperature_c)) return "temperature is infinite";
    if (s->slowed < 0) return "slowed is negative";
    if (s->looks < 0) return "looks is negative";
    return NULL;
}

/* ---- writing */

struct note {
    const char *name, *text;
    struct note *next;
};
struct points {
    h5 *h5;
    h5table *table[N_TABLE];
    struct arena arena;
    const char *title;
    struct note *note;
    int64_t n_row;
    double sample_s, noise_s, gpu_s; /* of the last ones */
};

points *points_create(const char *path, const char *title, struct err *e)
{
    struct err own = { 0 };
    h5 *file = h5_create(path, &own);
    if (!file) {
        err_set(e, own.status, "%s", own.text);
        return NULL;
    }
    points *p = mem_zalloc(1, sizeof *p);
    p->h5 = file;
    arena_init(&p->arena);
    p->title = arena_copy_text(&p->arena, title, strlen(title));
    for (int i = 0; i < TABLE_GPU; i++) {
        p->table[i] = h5_table(file, layout[i].group, layout[i].index, layout[i].cols,
                               layout[i].description, &own);
        if (!p->table[i]) break;
    }
    if (!own.status) h5_group(file, "/limits", "ceilings measured beside the points", &own);
    if (!own.status) return p;
    err_set(e, own.status, "%s", own.text);
    points_abort(p);
    return NULL;
}

int points_add(points *p, const struct points_row *row, struct err *e)
{
    const char *problem = p->n_row == INT32_MAX ? "there are 2^31 already" : row_problem(row);
    if (problem) {
        err_set(e, ST_RANGE, "point %lld: %s", (long long)p->n_row, problem);
        return -1;
    }
    if (h5_table_put(p->table[TABLE_POINTS], row, 1, sizeof *row, e) != ST_OK) return -1;
    return (int)p->n_row++;
}

int points_put(points *p, const struct points_sample *s, struct err *e)
{
    const char *problem = sample_problem(s, p->n_row, p->sample_s);
    if (problem)
        return err_set(e, ST_RANGE, "sample %lld: %s",
                       (long long)h5_table_rows(p->table[TABLE_SAMPLES]), problem);
    p->sample_s = s->t_s;
    return h5_table_put(p->table[TABLE_SAMPLES], s, 1, sizeof *s, e);
}

int points_put_noise(points *p, const struct points_noise *s, struct err *e)
{
    const char *problem = noise_problem(s, p->noise_s);
    if (problem) return err_set(e, ST_RANGE, "look at the machine: %s", problem);
    p->noise_s = s->t_s;
    return h5_table_put(p->table[TABLE_NOISE], s, 1, sizeof *s, e);
}

/* The table is made with its first row: most files have none. */
int points_put_gpu(points *p, const struct points_gpu *s, struct err *e)
{
    const struct layout *l = &layout[TABLE_GPU];
    const char *problem = gpu_problem(s, p->gpu_s);
    if (problem) return err_set(e, ST_RANGE, "look at the GPU: %s", problem);
    if (!p->table[TABLE_GPU])
        p->table[TABLE_GPU] = h5_table(p->h5, l->group, l->index, l->cols, l->description, e);
    if (!p->table[TABLE_GPU]) return ST_IO;
    p->gpu_s = s->t_s;
    return h5_table_put(p->table[TABLE_GPU], s, 1, sizeof *s, e);
}

int points_limit(points *p, const char *name, double v, struct err *e)
{
    if (!isfinite(v) || v < 0)
        return err_set(e, ST_RANGE, "limit %s: negative or not finite", name);
    return h5_attr_f64(p->h5, "/limits", name, v, e);
}

int points_note(points *p, const char *name, const char *text, struct err *e)
{
    struct note *n = arena_alloc(&p->arena, sizeof *n), **at = &p->note;
    (void)e; /* the group is there with points_commit only */
    *n = (struct note){ arena_copy_text(&p->arena, name, strlen(name)),
                        arena_copy_text(&p->arena, text, strlen(text)), NULL };
    while (*at) at = &(*at)->next;
    *at = n;
    return ST_OK;
}

int points_commit(points *p, const struct prov *v, struct err *e)
{
    bool has_kind = false;
    int st = prov_write(v, p->h5, "orrery-bench", "1.0.0", p->title, e);
    for (const struct note *n = p->note; n && st == ST_OK; n = n->next) {
        has_kind = has_kind || strcmp(n->name, "kind") == 0;
        st = h5_attr_text(p->h5, "/provenance", n->name, n->text, e);
    }
    if (st == ST_OK && !has_kind) st = h5_attr_text(p->h5, "/provenance", "kind", "measured", e);
    if (st == ST_OK) {
        st = h5_commit(p->h5, e);
        p->h5 = NULL;
    }
    points_abort(p);
    return st;
}

void points_abort(points *p)
{
    if (!p) return;
    h5_abort(p->h5);
    arena_release(&p->arena);
    free(p);
}

/* ---- reading */

/* What the file's words of a category mean here: to[i] is our number of its word i, -1 unknown. */
static int map_words(h5 *f, const char *path, const char *ours, struct arena *a, int to[256],
                     struct err *e)
{
    char *theirs, one[64], our[64];
    int st = h5_read_attr_text(f, path, "flag_meanings", a, &theirs, e);
    for (int i = 0; i < 256; i++) to[i] = -1;
    if (st != ST_OK) return st;
    int n = n_words(theirs), n_ours = n_words(ours);
    for (int i = 0; i < n && i < 256; i++) {
        points_word(theirs, i, one, sizeof one);
        for (int k = 0; k < n_ours && to[i] < 0; k++)
            if (strcmp(points_word(ours, k, our, sizeof our), one) == 0) to[i] = k;
    }
    return ST_OK;
}

static int read_whole(h5 *f, const char *path, const struct h5col *c, struct arena *a, char *rows,
                      size_t row_bytes, size_t n_row, struct err *e)
{
    int64_t *v;
    size_t n;
    int to[256];
    int st = h5_read_i64(f, path, a, &v, &n, e);
    if (st == ST_OK && n != n_row)
        st = err_set(e, ST_USAGE, "%s has %zu rows, not %zu", path, n, n_row);
    if (st == ST_OK && c->meanings) st = map_words(f, path, c->meanings, a, to, e);
    for (size_t i = 0; i < n_row && st == ST_OK; i++, rows += row_bytes) {
        bool fits = c->type == H5COL_I64 ||
                    (c->type == H5COL_I32 ? v[i] >= INT32_MIN && v[i] <= INT32_MAX
                                          : v[i] >= 0 && v[i] < 256 && to[v[i]] >= 0);
        if (!fits)
            return err_set(e, ST_USAGE, "%s: row %zu holds %lld, which means nothing", path, i,
                           (long long)v[i]);
        if (c->type == H5COL_I64)
            memcpy(rows + c->at, &v[i], sizeof v[i]);
        else if (c->type == H5COL_I32)
            memcpy(rows + c->at, &(int32_t){ (int32_t)v[i] }, sizeof(int32_t));
        else
            rows[c->at] = (char)(uint8_t)to[v[i]];
    }
    return st;
}

static int read_real(h5 *f, const char *path, const struct h5col *c, struct arena *a, char *rows,
                     size_t row_bytes, size_t n_row, struct err *e)
{
    double *v;
    size_t n;
    int st = h5_read_f64(f, path, a, &v, &n, e);
    if (st == ST_OK && n != n_row)
        st = err_set(e, ST_USAGE, "%s has %zu rows, not %zu", path, n, n_row);
    for (size_t i = 0; i < n_row && st == ST_OK; i++, rows += row_bytes)
        memcpy(rows + c->at, &v[i], sizeof v[i]);
    return st;
}

/* A table as rows in `a`; *n its rows. */
static int read_table(h5 *f, const struct layout *l, struct arena *a, void **rows, int64_t *n,
                      struct err *e)
{
    int64_t *index;
    size_t n_row;
    int st = h5_read_i64(f, arena_printf(a, "%s/%s", l->group, l->index), a, &index, &n_row, e);
    if (st != ST_OK) return st;
    if (n_row > INT32_MAX) {
        err_set(e, ST_USAGE, "%s has more than 2^31 rows", l->group);
        return ST_USAGE;
    }
    char *to = arena_array(a, n_row, l->row_bytes);
    for (const struct h5col *c = l->cols; c->type != H5COL_END && st == ST_OK; c++) {
        const char *path = arena_printf(a, "%s/%s", l->group, c->name);
        st = (c->type == H5COL_F64 ? read_real : read_whole)(f, path, c, a, to, l->row_bytes, n_row,
                                                             e);
    }
    *rows = to;
    *n = (int64_t)n_row;
    return st;
}

static int check_rows(const struct points_file *f, struct err *e)
{
    double last_s = 0;
    for (int64_t i = 0; i < f->n_row; i++) {
        const char *problem = row_problem(&f->row[i]);
        if (problem) return err_set(e, ST_USAGE, "/points, row %lld: %s", (long long)i, problem);
    }
    for (int64_t i = 0; i < f->n_sample; i++) {
        const char *problem = sample_problem(&f->sample[i], f->n_row, last_s);
        if (problem) return err_set(e, ST_USAGE, "/samples, row %lld: %s", (long long)i, problem);
        last_s = f->sample[i].t_s;
    }
    last_s = 0;
    for (int64_t i = 0; i < f->n_noise; i++) {
        const char *problem = noise_problem(&f->noise[i], last_s);
        if (problem) return err_set(e, ST_USAGE, "/noise, row %lld: %s", (long long)i, problem);
        last_s = f->noise[i].t_s;
    }
    last_s = 0;
    for (int64_t i = 0; i < f->n_gpu; i++) {
        const char *problem = gpu_problem(&f->gpu[i], last_s);
        if (problem) return err_set(e, ST_USAGE, "/gpu, row %lld: %s", (long long)i, problem);
        last_s = f->gpu[i].t_s;
    }
    return ST_OK;
}

static char *text_if_any(h5 *f, const char *object, const char *name, struct arena *a)
{
    static char none[] = "";
    char *text = none;
    if (h5_has(f, object)) h5_read_attr_text(f, object, name, a, &text, NULL);
    return text;
}

int points_read(const char *path, struct arena *a, struct points_file *out, struct err *e)
{
    struct err own = { 0 };
    void *row = NULL, *sample = NULL, *noise = NULL, *gpu = NULL;
    *out = (struct points_file){ .h5 = h5_open(path, &own) };
    if (!out->h5) return err_set(e, own.status, "%s", own.text);
    const char *schema = text_if_any(out->h5, "/", "schema_name", a);
    int st = ST_OK;
    if (strcmp(schema, "orrery-bench") != 0)
        st = err_set(&own, ST_USAGE, "no file of benchmark results: its schema_name is %s",
                     *schema ? schema : "absent");
    if (st == ST_OK) st = read_table(out->h5, &layout[TABLE_POINTS], a, &row, &out->n_row, &own);
    if (st == ST_OK)
        st = read_table(out->h5, &layout[TABLE_SAMPLES], a, &sample, &out->n_sample, &own);
    if (st == ST_OK) st = read_table(out->h5, &layout[TABLE_NOISE], a, &noise, &out->n_noise, &own);
    if (st == ST_OK && h5_has(out->h5, layout[TABLE_GPU].group))
        st = read_table(out->h5, &layout[TABLE_GPU], a, &gpu, &out->n_gpu, &own);
    out->gpu = gpu;
    if (!gpu) out->n_gpu = 0;
    out->row = row;
    out->sample = sample;
    out->noise = noise;
    if (st == ST_OK) st = check_rows(out, &own);
    if (st != ST_OK) {
        points_close(out);
        if (strncmp(own.text, path, strlen(path)) != 0) err_prefix(&own, "%s", path);
        return err_set(e, st, "%s", own.text);
    }
    out->title = text_if_any(out->h5, "/", "title", a);
    out->kind = text_if_any(out->h5, "/provenance", "kind", a);
    out->machine = text_if_any(out->h5, "/provenance", "cpu", a);
    out->date = text_if_any(out->h5, "/provenance", "created_utc", a);
    return ST_OK;
}

void points_close(struct points_file *f)
{
    h5_close(f->h5);
    f->h5 = NULL;
}
