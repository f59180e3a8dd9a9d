/* tests/accuracy_kernels.c - kernel laws against the AIConfigurator operator tables.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "tests/accuracy.h"

static const char root[] = "kernels_aiconfigurator";

/* Which node a table's GPU is predicted as. */
static const struct {
    const char *dir, *system, *title;
} gpus[] = {
    { "a100_sxm", "dgx-a100", "A100 SXM" },
    { "h100_sxm", "dgx-h100", "H100 SXM" },
    { "l40s", "8xl40s-pcie", "L40S" },
    { "rtx_pro_6000_server", "8xrtxpro6000-pcie", "RTX PRO 6000" },
};

struct table_of {     /* one file: whose it is */
    const char *path; /* below root */
    char gpu[64], engine[32], version[32], file[64];
    const char *ask_engine; /* profile that predicts it */
    int which;              /* index into gpus, -1 unknown */
};

struct kernels { /* what one section collects */
    struct acc *w;
    struct acc_groups groups;
    struct acc_env env;
    struct table_of t;
    char key[192];
    struct profile kept[DT_N][DT_N]; /* of env, by weight and KV format; loaded where name is set */
};

static bool split_path(const char *path, struct table_of *t)
{
    *t = (struct table_of){ .path = path, .which = -1 };
    char release[64];
    if (sscanf(path, "kernels_aiconfigurator/%63[^/]/%63[^/]/%63[^/]", t->gpu, release, t->file) !=
        3)
        return false;
    if (sscanf(release, "%31[^-]-%31s", t->engine, t->version) != 2) return false;
    bool known = strcmp(t->engine, "vllm") == 0 || strcmp(t->engine, "trtllm") == 0;
    t->ask_engine = known ? t->engine : "any";
    for (int i = 0; i < (int)(sizeof gpus / sizeof *gpus); i++)
        if (strcmp(gpus[i].dir, t->gpu) == 0) t->which = i;
    return t->which >= 0;
}

static bool starts(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

/* Format of a table's word; false: no format of the model. block: fp8 with a scale per block,
 * predicted as plain fp8. */
static bool format_of(const char *word, enum dtype *out)
{
    static const struct {
        const char *word;
        enum dtype dt;
    } known[] = {
        { "bfloat16", DT_BF16 }, { "fp8", DT_FP8 }, { "fp8_block", DT_FP8 }, { "nvfp4", DT_NVFP4 }
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(word, known[i].word) == 0) {
            *out = known[i].dt;
            return true;
        }
    return false;
}

static struct acc_ask ask_of(const struct table_of *t)
{
    return (struct acc_ask){ .system = gpus[t->which].system,
                             .engine = t->ask_engine,
                             .tp = 1,
                             .ep = 1,
                             .weight = DT_BF16,
                             .kv = DT_BF16 };
}

/* The constants for these formats; tables mix formats row by row. */
static void use_formats(struct kernels *k, enum dtype weight, enum dtype kv)
{
    struct profile *p = &k->kept[weight][kv];
    if (!p->name) {
        struct acc_ask q = ask_of(&k->t);
        q.weight = weight;
        q.kv = kv;
        acc_env_ask(&k->env, &q);
        *p = k->env.profile;
    }
    k->env.profile = *p;
    k->env.strategy.weight_dtype = (int)weight;
    k->env.strategy.kv_dtype = (int)kv;
}

static const char *label(struct kernels *k, const char *what, const char *more)
{
    snprintf(k->key, sizeof k->key, "%s, %s %s, %s%s", gpus[k->t.which].title, k->t.engine,
             k->t.version, what, more);
    return k->key;
}

static bool open_table(struct kernels *k, const char *path, struct acc_csv *csv)
{
    if (!split_path(path, &k->t)) return false;
    struct acc_ask q = ask_of(&k->t);
    memset(k->kept, 0, sizeof k->kept);
    if (!acc_open(k->w, path, csv)) return false;
    if (acc_env_init(&k->env, &q) == ST_OK) return true;
    acc_say(k->w, "\n* %s: %s\n", path, k->env.e.text);
    acc_env_release(&k->env);
    acc_csv_release(csv);
    return false;
}

static void close_table(struct kernels *k, struct acc_csv *csv, int first_group, const char *what)
{
    acc_groups_summary(k->w, &k->groups, first_group, k->t.path, what);
    acc_env_release(&k->env);
    acc_csv_release(csv);
}

/* ---- GEMM */

static struct acc_group *gemm_group(struct kernels *k, const char *word, bool small)
{
    enum profile_id id = P_GEMM_EC;
    const char *sample = acc_sample(&k->env, id, k->t.engine, k->t.version);
    bool block = strcmp(word, "fp8_block") == 0;
    if (block) sample = "no: block scales as plain fp8";
    if (small && strcmp(sample, "yes") == 0) sample = "no: N or K below 1024";
    const char *range = small ? ", N or K < 1024" : "";
    struct acc_group *g = acc_group_of(&k->groups, label(k, word, range), sample);
    snprintf(g->part, sizeof g->part, "%s%s", word, range);
    return g;
}

static void gemm_file(struct kernels *k, const char *path)
{
    struct acc_csv csv;
    if (!open_table(k, path, &csv)) return;
    int first = k->groups.n, ct = acc_csv_col(&csv, "gemm_dtype"), cm = acc_csv_col(&csv, "m");
    int cn = acc_csv_col(&csv, "n"), ck = acc_csv_col(&csv, "k"), cl = acc_csv_col(&csv, "latency");
    size_t no_rows = 0, no_format = 0;
    const char *last = "";
    struct acc_group *group[2] = { NULL, NULL };
    enum dtype dt = DT_BF16;
    for (size_t i = 0; i < csv.n_row; i++) {
        const char *word = acc_csv_text(&csv, i, ct);
        double m = acc_csv_num(&csv, i, cm), n = acc_csv_num(&csv, i, cn);
        double kk = acc_csv_num(&csv, i, ck);
        if (!(m > 0)) {
            no_rows++;
            continue;
        }
        if (!format_of(word, &dt)) {
            no_format++;
            continue;
        }
        if (strcmp(word, last) != 0) {
            use_formats(k, dt, DT_BF16);
            group[0] = gemm_group(k, word, false);
            group[1] = gemm_group(k, word, true);
            last = word;
        }
        struct op o = { .kind = OP_GEMM, .m = m, .n = n, .k = kk, .weight_elt = dtype_bytes(dt) };
        bool small = n < 1024 || kk < 1024;
        acc_group_add(group[small],
                      m <= 64     ? 0
                      : m <= 1024 ? 1
                                  : 2,
                      acc_op_s(&k->env, &o), acc_csv_num(&csv, i, cl) * 1e-3);
    }
    if (no_rows) acc_say(k->w, "\n* %s: %zu rows with m = 0 dropped\n", path, no_rows);
    if (no_format) acc_say(k->w, "\n* %s: %zu rows in unknown formats\n", path, no_format);
    close_table(k, &csv, first, "GEMM");
}

/* ---- attention */

struct attn_cols {
    int b, isl, h, kv, d, window, attn, cache, step, t;
};

static struct attn_cols attn_cols(const struct acc_csv *c)
{
    return (struct attn_cols){ .b = acc_csv_col(c, "batch_size"),
                               .isl = acc_csv_col(c, "isl"),
                               .h = acc_csv_col(c, "num_heads"),
                               .kv = acc_csv_col(c, "num_key_value_heads"),
                               .d = acc_csv_col(c, "head_dim"),
                               .window = acc_csv_col(c, "window_size"),
                               .attn = acc_csv_col(c, "attn_dtype"),
                               .cache = acc_csv_col(c, "kv_cache_dtype"),
                               .step = acc_csv_col(c, "step"),
                               .t = acc_csv_col(c, "latency") };
}

/* What the constants of an fp8 cache stand for: they were fitted to attention computed in fp8 for
 * TensorRT-LLM on H100, in 16 bit elsewhere. */
static const char *attn_sample(const struct kernels *k, const char *attn, bool prefill)
{
    bool fp8 = strcmp(attn, "fp8") == 0, kv8 = k->env.strategy.kv_dtype == DT_FP8;
    bool fit8 = strcmp(k->t.gpu, "h100_sxm") == 0 && strcmp(k->t.ask_engine, "trtllm") == 0;
    if (prefill && kv8 && fp8 && !fit8) return "no: fp8 attention by constants of 16-bit";
    if (prefill && kv8 && !fp8 && fit8) return "no: 16-bit attention by constants of fp8";
    return acc_sample(&k->env, prefill ? P_PRE_EC : P_DEC_EM, k->t.engine, k->t.version);
}

struct attn_row {
    double b, isl, past, s; /* s: measured seconds */
    const char *attn, *cache;
    double kv_bytes, flop;
    bool prefill;
};

/* Whether it ran faster than the GPU can: the tensor peak, or the memory rate for KV that the L2
 * cache cannot hold. */
static bool impossible(const struct kernels *k, const struct attn_row *r)
{
    const struct hw_gpu *g = &k->env.hw.gpu;
    double peak = g->flop_per_s[strcmp(r->attn, "fp8") == 0 ? DT_FP8 : DT_BF16];
    return r->prefill ? r->flop > peak * r->s
                      : r->kv_bytes > 1.5 * g->l2_bytes && r->kv_bytes > g->mem_bytes_per_s * r->s;
}

static struct acc_group *attn_group(struct kernels *k, const struct attn_row *r)
{
    enum dtype kv = DT_BF16;
    format_of(r->cache, &kv);
    if (k->env.strategy.kv_dtype != (int)kv) use_formats(k, DT_BF16, kv);
    bool odd = impossible(k, r);
    bool grouped = k->env.arch.n_head >= 2 * k->env.arch.n_kv_head;
    bool far = r->kv_bytes > 1.5 * k->env.hw.gpu.l2_bytes && grouped;
    const char *sample = attn_sample(k, r->attn, r->prefill);
    if (!r->prefill && !far && strcmp(sample, "yes") == 0) sample = "no: KV in cache or MHA";
    if (odd) sample = "no: impossible at datasheet rates";
    char what[64];
    snprintf(what, sizeof what, "attention %s, KV %s", r->attn, r->cache);
    const char *more = odd ? ", faster than the hardware" : "";
    if (!odd && !r->prefill) more = far ? ", KV > 1.5 L2, GQA" : ", less KV or MHA";
    struct acc_group *g = acc_group_of(&k->groups, label(k, what, more), sample);
    g->odd = odd;
    snprintf(g->part, sizeof g->part, "%s%s", what, r->prefill ? "" : more);
    return g;
}

static double attn_predict(const struct kernels *k, const struct attn_row *r)
{
    struct step_shape s = { 0 };
    struct op list[OPS_MAX];
    if (r->prefill) {
        s.n_prefill = (int64_t)r->b;
        s.prefill_tok = (int64_t)(r->b * r->isl);
        s.prefill_past = (int64_t)(r->b * r->past);
        s.prefill_pairs = (int64_t)(r->b * (r->isl * r->past + r->isl * (r->isl + 1) / 2));
    } else {
        s.n_decode = (int64_t)r->b;
        s.sum_ctx = (int64_t)(r->b * (r->isl + r->past));
    }
    return acc_op_s(&k->env,
                    acc_op(&k->env, &s, r->prefill ? "attn_prefill" : "attn_decode", list));
}

/* Heads in these tables are per GPU; isl of a decode row is 1 and the context isl + step. */
static void attn_file(struct kernels *k, const char *path, bool prefill)
{
    struct acc_csv csv;
    if (!open_table(k, path, &csv)) return;
    struct attn_cols c = attn_cols(&csv);
    int first = k->groups.n;
    for (size_t i = 0; i < csv.n_row; i++) {
        struct arch *a = &k->env.arch;
        double window = acc_csv_num(&csv, i, c.window);
        a->n_head = (int)acc_csv_num(&csv, i, c.h);
        a->n_kv_head = (int)acc_csv_num(&csv, i, c.kv);
        a->head_dim = (int)acc_csv_num(&csv, i, c.d);
        a->sliding_window = window > 0 ? (int)window : 0;
        struct attn_row r = { .b = acc_csv_num(&csv, i, c.b),
                              .isl = acc_csv_num(&csv, i, c.isl),
                              .past = acc_csv_num(&csv, i, c.step),
                              .s = acc_csv_num(&csv, i, c.t) * 1e-3,
                              .attn = acc_csv_text(&csv, i, c.attn),
                              .cache = acc_csv_text(&csv, i, c.cache),
                              .prefill = prefill };
        double elt = strcmp(r.cache, "fp8") == 0 ? 1 : 2;
        r.kv_bytes = 2 * r.b * (r.isl + r.past) * a->n_kv_head * a->head_dim * elt;
        r.flop = 4 * r.b * (r.isl * r.past + r.isl * (r.isl + 1) / 2) * a->n_head * a->head_dim;
        int bin = prefill ? (r.isl < 512    ? 0
                             : r.isl < 4096 ? 1
                                            : 2)
                          : (r.kv_bytes < 4e6    ? 0
                             : r.kv_bytes < 64e6 ? 1
                                                 : 2);
        struct acc_group *g = attn_group(k, &r);
        acc_group_add(g, bin, attn_predict(k, &r), r.s);
    }
    close_table(k, &csv, first, prefill ? "attention, prefill" : "attention, decode");
}

/* ---- experts */

/* The fp8 constants come from tables with block scales; the release of H100's is not recorded. */
static const char *moe_sample(const struct kernels *k, const char *word, bool split)
{
    bool a100 = strcmp(k->t.gpu, "a100_sxm") == 0, h100 = strcmp(k->t.gpu, "h100_sxm") == 0;
    if (!a100 && !h100) return "no: other GPU";
    if (strcmp(k->t.engine, "vllm") != 0) return "no: other engine";
    if (strcmp(word, "nvfp4") == 0) return "no: other format";
    if (strcmp(word, "fp8") == 0) return "no: constants of block scales";
    if (split) return "no: fits at ep 1";
    return a100 ? "yes" : "perhaps: release of the fit unrecorded";
}

static void moe_row(struct kernels *k, const struct acc_csv *csv, size_t i, enum dtype dt,
                    struct acc_group *g)
{
    struct arch *a = &k->env.arch;
    int tp = (int)acc_csv_named(csv, i, "moe_tp_size");
    int ep = (int)acc_csv_named(csv, i, "moe_ep_size");
    double tok = acc_csv_named(csv, i, "num_tokens");
    a->hidden = (int)acc_csv_named(csv, i, "hidden_size");
    a->ffn = (int)acc_csv_named(csv, i, "inter_size");
    a->top_k = (int)acc_csv_named(csv, i, "topk");
    a->n_expert = (int)acc_csv_named(csv, i, "num_experts");
    k->env.strategy.tp = tp * ep;
    k->env.strategy.ep = ep;
    k->env.strategy.weight_dtype = (int)dt;
    struct step_shape s = { .n_prefill = 1, .prefill_tok = (int64_t)tok };
    struct op list[OPS_MAX];
    const struct op *o = acc_op(&k->env, &s, "experts", list);
    acc_group_add(g,
                  tok <= 64     ? 0
                  : tok <= 1024 ? 1
                                : 2,
                  acc_op_s(&k->env, o), acc_csv_named(csv, i, "latency") * 1e-3);
}

static void moe_file(struct kernels *k, const char *path)
{
    struct acc_csv csv;
    if (!open_table(k, path, &csv)) return;
    int first = k->groups.n;
    size_t unknown = 0;
    enum dtype last = DT_N;
    for (size_t i = 0; i < csv.n_row; i++) {
        const char *word = acc_csv_word(&csv, i, "moe_dtype");
        const char *dist = acc_csv_word(&csv, i, "distribution");
        enum dtype dt;
        if (!format_of(word, &dt)) {
            unknown++;
            continue;
        }
        if (dt != last) use_formats(k, last = dt, DT_BF16);
        bool split = acc_csv_named(&csv, i, "moe_ep_size") > 1;
        char what[64];
        snprintf(what, sizeof what, "%s, %s", word, dist);
        moe_row(k, &csv, i, dt,
                acc_group_of(&k->groups, label(k, what, split ? ", ep > 1" : ", ep 1"),
                             moe_sample(k, word, split)));
    }
    close_table(k, &csv, first, "experts");
    if (unknown)
        acc_summary(k->w, path, "experts, other formats", NULL, unknown,
                    "not modelled: number format");
}

/* ---- all */

static void each(struct kernels *k, const char *const *path, int n, const char *stem)
{
    for (int i = 0; i < n; i++) {
        const char *file = strrchr(path[i], '/') + 1;
        if (!starts(file, stem) || strstr(path[i], "SOURCE")) continue;
        if (starts(stem, "gemm"))
            gemm_file(k, path[i]);
        else if (starts(stem, "moe"))
            moe_file(k, path[i]);
        else
            attn_file(k, path[i], starts(stem, "context"));
    }
}

static void section(struct acc *w, const char *const *path, int n, const char *stem,
                    const char *const bins[ACC_BINS])
{
    struct kernels k = { .w = w };
    each(&k, path, n, stem);
    acc_table(w, &k.groups, "table", bins);
    acc_groups_release(&k.groups);
}

static void not_modelled(struct acc *w, const char *const *path, int n)
{
    static const char *const why[] = {
        "not modelled: latent attention (DeepSeek)",
        "not modelled: wide expert parallelism",
    };
    for (int i = 0; i < n; i++) {
        const char *file = strrchr(path[i], '/') + 1;
        bool mla = strstr(file, "mla") != NULL, wide = starts(file, "wideep_");
        struct acc_csv csv;
        if ((!mla && !wide) || !acc_open(w, path[i], &csv)) continue;
        acc_summary(w, path[i], "-", NULL, csv.n_row, why[mla ? 0 : 1]);
        acc_csv_release(&csv);
    }
}

void acc_kernels(struct acc *w)
{
    static const char *const tok[ACC_BINS] = { "M <= 64", "65-1024", "> 1024" };
    static const char *const len[ACC_BINS] = { "isl < 512", "512-4095", ">= 4096" };
    static const char *const kv[ACC_BINS] = { "KV < 4 MB", "4-64 MB", "> 64 MB" };
    const char **path;
    int n = acc_find(w, root, "", &path);
    acc_say(w, "\n## Kernels of AIConfigurator\n\nLaws of model/law.h with the constants of the "
               "profile; the three columns before the last are the median bias by range.\n");
    acc_say(w, "\n### GEMM\n\nThe fp8 and nvfp4 tables time the launch of an online quantization "
               "too; the profile takes t0 from bf16 by design, so small products there are "
               "predicted faster than measured.\n");
    section(w, path, n, "gemm_perf", tok);
    acc_say(w, "\n### Attention, prefill\n");
    section(w, path, n, "context_attention_perf", len);
    acc_say(w,
            "\n### Attention, decode\n\nThe fits hold for KV beyond 1.5 times the L2 cache and "
            "grouped heads; below, the tables are cache-hot, which serving is not. Rows that ran "
            "faster than the memory rate allows (or, in prefill, than the tensor peak) are "
            "shown apart: there the table, not the law, is at fault.\n");
    section(w, path, n, "generation_attention_perf", kv);
    acc_say(w, "\n### Experts\n");
    section(w, path, n, "moe_perf", tok);
    not_modelled(w, path, n);
}
