/* tests/accuracy_tables.c - LLMServingSim's kernels of vLLM 0.19 on an RTX PRO 6000: the laws, and
 * the interpolation of the tables themselves with every other grid point held out.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/stat.h"
#include "model/table.h"
#include "tests/accuracy.h"

static const char root[] = "kernels_llmservingsim/rtxpro6000";
static const char no_release[] = "no: vLLM 0.19, fits of 0.24";
static const char held[] = "no: held out";

struct profile_dir { /* one model and degree */
    const char *model, *dir;
    int tp;
};
static const struct profile_dir dirs[] = {
    { "llama-3.1-8b", "llama-3.1-8b/tp1", 1 },
    { "llama-3.1-8b", "llama-3.1-8b/tp2", 2 },
    { "qwen3-32b", "qwen3-32b/tp1", 1 },
    { "qwen3-32b", "qwen3-32b/tp2", 2 },
};
enum { N_DIR = sizeof dirs / sizeof *dirs };

struct tables {
    struct acc *w;
    struct acc_groups law, hold;
};

static const char *file_of(struct acc *w, const struct profile_dir *d, const char *name)
{
    return arena_printf(&w->a, "%s/%s/%s", root, d->dir, name);
}

/* ---- laws */

static bool env_of(struct tables *t, const struct profile_dir *d, struct acc_env *v)
{
    struct acc_ask q = { "8xrtxpro6000-pcie", "vllm", d->tp, 1, DT_BF16, DT_BF16 };
    int st = acc_env_init(v, &q);
    if (st == ST_OK) st = acc_arch(v, d->model);
    v->stage = (struct step_stage){ .n_layer = 1, .has_embed = true, .has_head = true };
    if (st == ST_OK) return true;
    acc_say(t->w, "\n* %s: %s\n", d->dir, v->e.text);
    return false;
}

static void law_lists(struct tables *t, const struct profile_dir *d, struct acc_env *v,
                      const char *file, bool dense)
{
    struct acc_csv csv;
    const char *path = file_of(t->w, d, file);
    if (!acc_open(t->w, path, &csv)) return;
    struct acc_err all[2] = { { NULL, 0, 0 } }; /* GEMMs, the rest */
    size_t unknown = 0;
    for (size_t i = 0; i < csv.n_row; i++) {
        const char *layer = acc_csv_word(&csv, i, "layer");
        double x = acc_csv_named(&csv, i, dense ? "tokens" : "sequences");
        double us = acc_csv_named(&csv, i, "time_us");
        struct step_shape s = { .n_prefill = dense,
                                .prefill_tok = dense ? (int64_t)x : 0,
                                .n_logits = dense ? 1 : (int64_t)x };
        struct op list[OPS_MAX];
        const struct op *o = acc_op(v, &s, layer, list);
        if (!o) {
            unknown++;
            continue;
        }
        double p = acc_op_s(v, o);
        acc_err_add(all + (o->kind != OP_GEMM), p, us * 1e-6);
        char key[96];
        snprintf(key, sizeof key, "%s, %s", dense ? "dense" : "per sequence", layer);
        acc_group_add(acc_group_of(&t->law, key, no_release),
                      x <= 64    ? 0
                      : x <= 512 ? 1
                                 : 2,
                      p, us * 1e-6);
    }
    for (int i = 0; i < 2; i++) {
        struct acc_sum s = acc_err_sum(all + i);
        acc_summary(t->w, path, i == 0 ? "laws, GEMMs" : "laws, norms, activations, sampling", &s,
                    0, no_release);
        acc_err_release(all + i);
    }
    if (unknown) acc_summary(t->w, path, "operators unknown to the model", NULL, unknown, "-");
    acc_csv_release(&csv);
}

/* Coordinates of an attention row: chunk, past, sequences, context. */
enum { N_AXIS = 4 };
static const char *const axis_name[N_AXIS] = { "prefill_chunk", "kv_prefill", "n_decode",
                                               "kv_decode" };

static void axes_of(const struct acc_csv *csv, size_t row, double x[N_AXIS])
{
    for (int i = 0; i < N_AXIS; i++) x[i] = acc_csv_named(csv, row, axis_name[i]);
}

static const char *kind_of(const double x[N_AXIS])
{
    return x[0] <= 0 ? "pure decode" : x[2] <= 0 ? "pure prefill" : "mixed";
}

/* Seconds of one layer's attention and cache write: what the measured module spans. */
static double law_attention_s(const struct acc_env *v, const double x[N_AXIS])
{
    double q = x[0], past = x[1];
    struct step_shape s = { .n_decode = (int64_t)x[2],
                            .sum_ctx = (int64_t)(x[2] * x[3]),
                            .n_prefill = q > 0,
                            .prefill_tok = (int64_t)q,
                            .prefill_past = (int64_t)past,
                            .prefill_pairs = (int64_t)(q * past + q * (q + 1) / 2) };
    struct op list[OPS_MAX];
    double t = 0;
    int n = ops_list(&v->ops, &v->stage, &s, list);
    for (int i = 0; i < n; i++)
        if (list[i].by == OP_BY_CTX || strcmp(list[i].name, "kv_write") == 0)
            t += acc_op_s(v, list + i);
    return t;
}

static void law_attention(struct tables *t, const struct profile_dir *d, struct acc_env *v)
{
    struct acc_csv csv;
    const char *path = file_of(t->w, d, "attention.csv");
    if (!acc_open(t->w, path, &csv)) return;
    struct acc_err all = { NULL, 0, 0 };
    for (size_t i = 0; i < csv.n_row; i++) {
        double x[N_AXIS], us = acc_csv_named(&csv, i, "time_us");
        axes_of(&csv, i, x);
        double p = law_attention_s(v, x), kv = x[1] + x[2] * x[3];
        char key[64];
        snprintf(key, sizeof key, "attention, %s%s", kind_of(x),
                 x[0] <= 0     ? ""
                 : x[0] <= 128 ? ", chunk <= 128"
                 : x[0] <= 512 ? ", 256-512"
                               : ", > 512");
        acc_err_add(&all, p, us * 1e-6);
        acc_group_add(acc_group_of(&t->law, key, no_release),
                      kv < 4096    ? 0
                      : kv < 65536 ? 1
                                   : 2,
                      p, us * 1e-6);
    }
    struct acc_sum s = acc_err_sum(&all);
    acc_summary(t->w, path, "laws, attention", &s, 0, no_release);
    acc_err_release(&all);
    acc_csv_release(&csv);
}

/* t_skew from the measured t_mean and t_max by the default weight. */
static void law_skew(struct tables *t, const struct profile_dir *d, struct acc_env *v)
{
    struct acc_csv csv;
    const char *path = file_of(t->w, d, "skew.csv");
    if (!acc_open(t->w, path, &csv)) return;
    double alpha = v->profile.p[P_SKEW_ALPHA].v;
    struct acc_err all = { NULL, 0, 0 };
    for (size_t i = 0; i < csv.n_row; i++) {
        double mean = acc_csv_named(&csv, i, "t_mean_us"), max = acc_csv_named(&csv, i, "t_max_us");
        double t_s = acc_csv_named(&csv, i, "t_skew_us"), n = acc_csv_named(&csv, i, "n");
        double p = mean + alpha * (max - mean);
        const char *sample = "yes: mean of these tables";
        acc_err_add(&all, p, t_s);
        acc_group_add(acc_group_of(&t->law, "unequal contexts, default weight", sample),
                      n <= 8    ? 0
                      : n <= 64 ? 1
                                : 2,
                      p, t_s);
    }
    struct acc_sum s = acc_err_sum(&all);
    acc_summary(t->w, path, "default weight of skew", &s, 0, "yes: mean of these tables");
    acc_err_release(&all);
    acc_csv_release(&csv);
}

/* ---- held-out points of the table path */

/* Which rows of a table stay; the rest is held out. */
typedef bool keep_row(const struct acc_csv *csv, size_t row, const void *how);

static bool keep_all(const struct acc_csv *csv, size_t row, const void *how)
{
    (void)csv, (void)row, (void)how;
    return true;
}

/* Every other value of one axis goes, the ends stay. */
struct thin {
    const char *axis;
    double *value;
    int n;
};

static int thin_index(const struct thin *h, double x)
{
    for (int i = 0; i < h->n; i++)
        if (h->value[i] == x) return i;
    return -1;
}

static bool keep_thin(const struct acc_csv *csv, size_t row, const void *how)
{
    const struct thin *h = how;
    int i = thin_index(h, acc_csv_named(csv, row, h->axis));
    return i < 0 || i % 2 == 0 || i == h->n - 1;
}

static bool keep_even(const struct acc_csv *csv, size_t row, const void *how)
{
    (void)csv, (void)how;
    return row % 2 == 0;
}

/* The positive values of an axis (0: the part is absent, or past 0, which stays). */
static void thin_init(struct thin *h, const struct acc_csv *csv, const char *axis)
{
    *h = (struct thin){ .axis = axis, .value = mem_alloc((csv->n_row + 1) * sizeof(double)) };
    for (size_t i = 0; i < csv->n_row; i++) {
        double x = acc_csv_named(csv, i, axis);
        if (x > 0 && thin_index(h, x) < 0) h->value[h->n++] = x;
    }
    stat_sort(h->value, (size_t)h->n);
}

static bool write_rows(const struct acc_csv *csv, const char *path, keep_row *keep, const void *how)
{
    FILE *f = fopen(path, "w");
    if (!f) return false;
    for (int c = 0; c < csv->n_col; c++)
        fprintf(f, "%s%s", csv->name[c], c + 1 < csv->n_col ? "," : "\n");
    for (size_t i = 0; i < csv->n_row; i++)
        for (int c = 0; keep(csv, i, how) && c < csv->n_col; c++)
            fprintf(f, "%s%s", acc_csv_text(csv, i, c), c + 1 < csv->n_col ? "," : "\n");
    return fclose(f) == 0;
}

enum { DENSE, SEQ, ATTN, SKEW, N_FILE };
static const char *const file_name[N_FILE] = { "dense.csv", "per_sequence.csv", "attention.csv",
                                               "skew.csv" };

/* The four files in a temporary directory, one of them thinned, read as the simulator would. */
static struct table *reduced(struct tables *t, struct acc_csv csv[N_FILE], int which,
                             keep_row *keep, const void *how)
{
    const char *dir = acc_scratch(t->w);
    struct err e = { 0 };
    struct table *out = NULL;
    bool ok = true;
    for (int i = 0; i < N_FILE; i++)
        ok &= write_rows(csv + i, arena_printf(&t->w->a, "%s/%s", dir, file_name[i]),
                         i == which ? keep : keep_all, how);
    if (ok && table_read(dir, &t->w->a, &out, &e) != ST_OK)
        acc_say(t->w, "\n* reduced table: %s\n", e.text);
    return out;
}

static double table_s(const struct table *k, const struct acc_csv *csv, size_t i, int which,
                      double *measured)
{
    *measured = acc_csv_named(csv, i, which == SKEW ? "t_skew_us" : "time_us") * 1e-6;
    if (which == DENSE)
        return table_dense_s(k, acc_csv_word(csv, i, "layer"), acc_csv_named(csv, i, "tokens"),
                             NULL);
    if (which == SEQ)
        return table_seq_s(k, acc_csv_word(csv, i, "layer"), acc_csv_named(csv, i, "sequences"),
                           NULL);
    if (which == ATTN) {
        double x[N_AXIS];
        axes_of(csv, i, x);
        return table_attn_s(k, x[0], x[1], x[2], x[3], NULL);
    }
    double mean = acc_csv_named(csv, i, "t_mean_us"), max = acc_csv_named(csv, i, "t_max_us");
    double a = table_skew_alpha(k, acc_csv_named(csv, i, "n"), acc_csv_named(csv, i, "kv_mean"),
                                acc_csv_named(csv, i, "kv_big"), acc_csv_named(csv, i, "pc"), 0.06);
    return 1e-6 * (mean + a * (max - mean));
}

static void hold_out(struct tables *t, struct acc_csv csv[N_FILE], int which, keep_row *keep,
                     const void *how, const char *what)
{
    struct table *k = reduced(t, csv, which, keep, how);
    if (!k) return;
    for (size_t i = 0; i < csv[which].n_row; i++) {
        if (keep(csv + which, i, how)) continue;
        double x[N_AXIS] = { 0 }, measured, p = table_s(k, csv + which, i, which, &measured);
        if (which == ATTN) axes_of(csv + which, i, x);
        char key[128];
        snprintf(key, sizeof key, "%s%s%s", what, which == ATTN ? ", " : "",
                 which == ATTN ? kind_of(x) : "");
        acc_group_add(acc_group_of(&t->hold, key, held), -1, p, measured);
    }
}

static void hold_dir(struct tables *t, const struct profile_dir *d)
{
    struct acc_csv csv[N_FILE];
    bool ok = true;
    for (int i = 0; i < N_FILE; i++) ok &= acc_open(t->w, file_of(t->w, d, file_name[i]), csv + i);
    struct thin h;
    if (ok) {
        thin_init(&h, csv + DENSE, "tokens");
        hold_out(t, csv, DENSE, keep_thin, &h, "dense, every other token count");
        free(h.value);
        thin_init(&h, csv + SEQ, "sequences");
        hold_out(t, csv, SEQ, keep_thin, &h, "per sequence, every other count");
        free(h.value);
        hold_out(t, csv, SKEW, keep_even, NULL, "unequal contexts, every other row");
    }
    for (int a = 0; ok && a < N_AXIS; a++) {
        thin_init(&h, csv + ATTN, axis_name[a]);
        hold_out(t, csv, ATTN, keep_thin, &h,
                 arena_printf(&t->w->a, "attention, every other %s", axis_name[a]));
        free(h.value);
    }
    for (int i = 0; i < N_FILE; i++) acc_csv_release(csv + i);
}

void acc_serving_kernels(struct acc *w)
{
    static const char *const bins[ACC_BINS] = { "small", "middle", "large" };
    struct tables t = { .w = w };
    acc_say(w, "\n## Kernels of LLMServingSim (vLLM 0.19, RTX PRO 6000)\n");
    for (int i = 0; i < N_DIR; i++) {
        struct acc_env v;
        if (env_of(&t, dirs + i, &v)) {
            law_lists(&t, dirs + i, &v, "dense.csv", true);
            law_lists(&t, dirs + i, &v, "per_sequence.csv", false);
            law_attention(&t, dirs + i, &v);
            law_skew(&t, dirs + i, &v);
        }
        acc_env_release(&v);
        hold_dir(&t, dirs + i);
    }
    acc_say(w, "\n### Laws\n\nLlama-3.1-8B and Qwen3-32B, TP 1 and 2 together. Ranges of the last "
               "columns: 64 and 512 tokens or sequences; 4,096 and 65,536 cached tokens; 8 and 64 "
               "sequences.\n");
    acc_table(w, &t.law, "operator", bins);
    acc_say(w, "\n### Tables, held-out points\n\nEvery other value of one axis is left out of the "
               "tables and predicted from the rest, so the gaps are twice as wide as those the "
               "simulator interpolates over. `skew_fit.csv`, the publisher's own fit, is not "
               "read.\n");
    acc_table(w, &t.hold, "held out", NULL);
    struct acc_err all = { NULL, 0, 0 };
    for (int i = 0; i < t.hold.n; i++) acc_err_join(&all, &t.hold.g[i].all);
    struct acc_sum s = acc_err_sum(&all);
    if (s.n) acc_summary(w, root, "table path, every other point", &s, 0, held);
    acc_err_release(&all);
    acc_groups_release(&t.law);
    acc_groups_release(&t.hold);
}
