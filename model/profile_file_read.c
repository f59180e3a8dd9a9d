/* model/profile_file_read.c - reads measured profiles; trusts nothing in them.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "model/profile_file_in.h"

enum { MAX_NAME = 256 };

struct in {
    h5 *f;
    struct arena *a;
    struct err *e;
    int st;
};

/* An attribute's text on one harmless line of at most MAX_NAME bytes; "" where there is none. */
static const char *text(struct in *in, const char *object, const char *name)
{
    char *t = NULL;
    if (in->st != ST_OK || h5_read_attr_text(in->f, object, name, in->a, &t, NULL) != ST_OK)
        return "";
    if (strlen(t) > PROFILE_FILE_MAX_TEXT) t[PROFILE_FILE_MAX_TEXT] = 0;
    utf8_tidy(t, '?');
    return t;
}

static const char *name(struct in *in, const char *object, const char *key)
{
    const char *t = text(in, object, key);
    if (strlen(t) <= MAX_NAME) return t;
    char *cut = arena_copy_text(in->a, t, MAX_NAME);
    utf8_tidy(cut, '?');
    return cut;
}

static double number(struct in *in, const char *object, const char *key)
{
    double v = NAN;
    if (in->st == ST_OK) in->st = h5_read_attr_f64(in->f, object, key, &v, in->e);
    return v;
}

/* 0 .. most, else refused. */
static int64_t count(struct in *in, const char *object, const char *key, int64_t most)
{
    int64_t v = 0;
    if (in->st == ST_OK) in->st = h5_read_attr_i64(in->f, object, key, &v, in->e);
    if (in->st == ST_OK && (v < 0 || v > most))
        in->st =
            err_set(in->e, ST_USAGE, "%s: %s of %lld is impossible", object, key, (long long)v);
    return in->st == ST_OK ? v : 0;
}

/* ---- words */

static int find(const char *word, size_t len, const char *(*name_of)(int), int n)
{
    for (int i = 0; i < n; i++)
        if (strlen(name_of(i)) == len && memcmp(name_of(i), word, len) == 0) return i;
    return -1;
}

static const char *law_at(int i)
{
    return profile_law_name((enum profile_law)i);
}
static const char *size_at(int i)
{
    return profile_size_name((enum profile_size)i);
}
static const char *constant_at(int i)
{
    return profile_param_name((enum profile_id)i);
}
static const char *dtype_at(int i)
{
    return dtype_name((enum dtype)i);
}
static const char *fabric_at(int i)
{
    static const char *const words[] = { "switched", "pcie", "pairs", "mesh", "host" };
    return words[i];
}

/* One word of an attribute, or each of a list; refused if unknown. Returns how many. */
static int words(struct in *in, const char *object, const char *key, const char *(*name_of)(int),
                 int n_name, int *out, int max)
{
    int n = 0;
    const char *t = text(in, object, key);
    while (in->st == ST_OK && *t) {
        size_t len = strcspn(t, " ");
        int i = find(t, len, name_of, n_name);
        if (i < 0 || n == max) {
            in->st = err_set(in->e, ST_USAGE, "%s: %s: '%.*s' is unknown or one too many", object,
                             key, (int)(len < 40 ? len : 40), t);
            return 0;
        }
        out[n++] = i;
        t += len;
        while (*t == ' ') t++;
    }
    return n;
}

static int word(struct in *in, const char *object, const char *key, const char *(*name_of)(int),
                int n_name)
{
    int i = 0;
    if (words(in, object, key, name_of, n_name, &i, 1) == 0 && in->st == ST_OK)
        in->st = err_set(in->e, ST_USAGE, "%s: %s is missing", object, key);
    return i;
}

/* ---- laws */

/* Exactly n values of a dataset. */
static const double *values(struct in *in, const char *group, const char *what, size_t n)
{
    double *v = NULL;
    size_t got = 0;
    const char *path = arena_printf(in->a, "%s/%s", group, what);
    if (in->st != ST_OK) return NULL;
    in->st = h5_read_f64(in->f, path, in->a, &v, &got, in->e);
    if (in->st == ST_OK && got != n)
        in->st = err_set(in->e, ST_USAGE, "%s: %zu values where %zu belong", path, got, n);
    return in->st == ST_OK ? v : NULL;
}

static void read_law(struct in *in, const char *group, struct fit *out)
{
    int id[FIT_MAX_PAR], size[FIT_MAX_SIZE];
    *out = (struct fit){ .law = (enum profile_law)word(in, group, "law", law_at, LAW_N),
                         .dtype = word(in, group, "dtype", dtype_at, DT_N),
                         .ranks = (int)count(in, group, "ranks", 1 << 20),
                         .n_point = count(in, group, "points", INT64_MAX),
                         .n_site = count(in, group, "sites", INT64_MAX),
                         .n_outlier = count(in, group, "outliers", INT64_MAX),
                         .source = name(in, group, "source"),
                         .note = text(in, group, "note") };
    out->n_par = words(in, group, "constants", constant_at, P_N, id, FIT_MAX_PAR);
    out->n_range = words(in, group, "covers", size_at, SIZE_KINDS, size, FIT_MAX_SIZE);
    if (in->st == ST_OK && out->n_par == 0)
        in->st = err_set(in->e, ST_USAGE, "%s: no constants", group);
    for (const struct profile_figure *g = profile_law_figures; g->name; g++) {
        double v = number(in, group, g->name);
        memcpy((char *)out + g->at, &v, sizeof v);
    }
    size_t n = (size_t)out->n_par;
    const double *v = values(in, group, "value", n), *sd = values(in, group, "sd_log", n);
    const double *known = values(in, group, "known", n);
    const double *cov = values(in, group, "covariance", n * n);
    const double *range =
        out->n_range ? values(in, group, "range", 2 * (size_t)out->n_range) : NULL;
    if (in->st != ST_OK) return;
    for (size_t j = 0; j < n; j++) {
        out->id[j] = (enum profile_id)id[j];
        out->v[j] = v[j];
        out->sd_log[j] = sd[j];
        out->known[j] = known[j] != 0;
        for (size_t k = 0; k < n; k++) out->cov[j][k] = cov[j * n + k];
    }
    for (int j = 0; j < out->n_range; j++)
        out->range[j] =
            (struct fit_range){ (enum profile_size)size[j], range[2 * j], range[2 * j + 1] };
}

static void read_laws(struct in *in, struct profile_file *out)
{
    char **names = NULL;
    size_t n = 0;
    if (in->st == ST_OK) in->st = h5_list(in->f, "/laws", in->a, &names, &n, in->e);
    if (in->st == ST_OK && n > PROFILE_FILE_MAX_LAWS)
        in->st = err_set(in->e, ST_USAGE, "/laws: %zu laws are too many", n);
    if (in->st != ST_OK) return;
    struct fit *fit = arena_array(in->a, n + 1, sizeof *fit);
    for (size_t i = 0; i < n && in->st == ST_OK; i++)
        read_law(in, arena_printf(in->a, "/laws/%.200s", names[i]), fit + i);
    out->fit = fit;
    out->n_fit = (int)n;
}

/* ---- the rest */

static void read_machine(struct in *in, struct profile_file *out)
{
    char *used = NULL, *runs = NULL;
    struct err older = { 0 };
    int64_t ranks;
    out->machine = name(in, "/machine", "machine");
    out->date = name(in, "/machine", "date");
    out->engine = name(in, "/machine", "engine");
    out->cpu = name(in, "/machine", "cpu");
    out->gpu = name(in, "/machine", "gpu");
    out->host = name(in, "/machine", "host");
    out->noise = text(in, "/machine", "noise");
    out->title = name(in, "/", "title");
    out->threads = (int)count(in, "/machine", "threads", 1 << 20);
    if (in->st == ST_OK && h5_read_attr_i64(in->f, "/machine", "ranks", &ranks, &older) == ST_OK)
        out->ranks = (int)count(in, "/machine", "ranks", 1 << 20);
    out->host_overlap = count(in, "/machine", "host_overlap", 1) != 0;
    out->ar_limit_bytes = number(in, "/machine", "allreduce_limit");
    out->used = "";
    if (in->st == ST_OK && h5_has(in->f, "/used"))
        in->st = h5_read_text(in->f, "/used", in->a, &used, in->e);
    if (used) out->used = used;
    if (in->st == ST_OK && h5_has(in->f, "/runs"))
        in->st = h5_read_text(in->f, "/runs", in->a, &runs, in->e);
    out->runs = runs ? runs : "";
}

static void read_hardware(struct in *in, struct hw *out)
{
    *out = (struct hw){ .n_node = 1 };
    for (const struct profile_count *t = profile_texts; t->name; t++) {
        const char *v = name(in, "/hardware", t->name);
        memcpy((char *)out + t->at, &v, sizeof v);
    }
    for (const struct profile_figure *g = profile_figures; g->name; g++) {
        double v = number(in, "/hardware", g->name);
        memcpy((char *)out + g->at, &v, sizeof v);
    }
    for (const struct profile_count *c = profile_counts; c->name; c++) {
        int v = (int)count(in, "/hardware", c->name, 1 << 20);
        memcpy((char *)out + c->at, &v, sizeof v);
    }
    out->sys.fabric = (enum hw_fabric)word(in, "/hardware", "fabric", fabric_at, HW_HOST + 1);
    out->gpu.price_date = out->sys.price_date = "";
    out->sys.gpu_name = out->gpu.name;
}

static void read_extra(struct in *in, struct profile_file *out)
{
    struct profile_extra *x = arena_array(in->a, P_N, sizeof *x);
    char sd[48];
    for (int i = 0; i < P_N && in->st == ST_OK; i++) {
        const char *key = profile_param_name((enum profile_id)i);
        double v;
        if (h5_read_attr_f64(in->f, "/constants", key, &v, NULL) != ST_OK) continue;
        snprintf(sd, sizeof sd, "%s_sd_log", key);
        x[out->n_extra++] =
            (struct profile_extra){ (enum profile_id)i, v, number(in, "/constants", sd) };
    }
    out->extra = x;
}

static void read_operators(struct in *in, struct profile_file *out)
{
    struct profile_ops *o = arena_alloc(in->a, sizeof *o);
    char *dense, *seq;
    if (in->st != ST_OK || !h5_has(in->f, "/operators")) return;
    o->model = name(in, "/operators", "model");
    o->shape = name(in, "/operators", "shape");
    o->tp = (int)count(in, "/operators", "tp", 1 << 20);
    o->weight_dtype = word(in, "/operators", "dtype", dtype_at, DT_N);
    if (in->st == ST_OK) in->st = h5_read_text(in->f, "/operators/dense", in->a, &dense, in->e);
    if (in->st == ST_OK)
        in->st = h5_read_text(in->f, "/operators/per_sequence", in->a, &seq, in->e);
    if (in->st != ST_OK) return;
    o->dense = dense;
    o->per_sequence = seq;
    in->st = table_parse("/operators", dense, seq, in->a, &o->table, in->e);
    out->ops = o;
}

int profile_file_read(const char *path, struct arena *a, struct profile_file *out, struct err *e)
{
    struct err own = { 0 };
    struct in in = { h5_open(path, e), a, &own, ST_OK };
    *out = (struct profile_file){ 0 };
    if (!in.f) return e && e->status ? e->status : ST_IO;
    const char *schema = name(&in, "/", "schema_name"), *version = name(&in, "/", "schema_version");
    if (strcmp(schema, "orrery-profile") != 0)
        in.st = err_set(&own, ST_USAGE, "not a measured profile: its schema_name is %s",
                        *schema ? schema : "absent");
    else if (strncmp(version, "1.", 2) != 0)
        in.st = err_set(&own, ST_USAGE, "profile version '%.20s': this program reads 1.x", version);
    read_machine(&in, out);
    read_hardware(&in, &out->hw);
    read_laws(&in, out);
    read_extra(&in, out);
    read_operators(&in, out);
    h5_close(in.f);
    if (in.st == ST_OK) in.st = profile_file_check(out, &own);
    if (in.st == ST_OK) return ST_OK;
    if (strncmp(own.text, path, strlen(path)) == 0) return err_set(e, in.st, "%s", own.text);
    return err_set(e, in.st, "%s: %s", path, own.text);
}
