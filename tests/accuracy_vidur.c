/* tests/accuracy_vidur.c - laws against Vidur's operator times by tokens and TP degree.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/accuracy.h"

static const struct {
    const char *dir, *system;
} gpus[] = { { "a100", "dgx-a100" }, { "h100", "dgx-h100" }, { "a40", "a40" } };
enum { N_GPU = sizeof gpus / sizeof *gpus };

/* Operators of the model and the columns that add up to them. Vidur times the residual addition
 * and the norm as two kernels, which the model takes as one. */
static const struct {
    const char *op, *column[2];
} ops[] = {
    { "embedding", { "emb", NULL } },          { "layernorm", { "input_layernorm", "add" } },
    { "qkv_proj", { "attn_pre_proj", NULL } }, { "rotary_emb", { "attn_rope", NULL } },
    { "o_proj", { "attn_post_proj", NULL } },  { "gate_up_proj", { "mlp_up_proj", NULL } },
    { "act_fn", { "mlp_act", NULL } },         { "down_proj", { "mlp_down_proj", NULL } },
};
enum { N_OP = sizeof ops / sizeof *ops };

struct vidur {
    struct acc *w;
    struct acc_groups absolute, ratio;
    struct acc_env env;
};

struct point { /* one row, to be matched with the same tokens at TP 1 */
    double tok, tp, predicted[N_OP], measured[N_OP];
};

static bool is_gemm(int op)
{
    return strstr(ops[op].op, "proj") != NULL;
}

static void shape_of(const struct acc_csv *csv, size_t i, struct acc_env *v)
{
    struct arch *a = &v->arch;
    a->n_head = (int)acc_csv_named(csv, i, "n_head");
    a->n_kv_head = (int)acc_csv_named(csv, i, "n_kv_head");
    a->hidden = (int)acc_csv_named(csv, i, "n_embd");
    a->ffn = (int)acc_csv_named(csv, i, "n_expanded_embd");
    a->vocab = (int)acc_csv_named(csv, i, "vocab_size");
    a->head_dim = a->hidden / a->n_head;
    a->gated_mlp = strcmp(acc_csv_word(csv, i, "use_gated_mlp"), "True") == 0;
    v->strategy.tp = (int64_t)acc_csv_named(csv, i, "num_tensor_parallel_workers");
}

static double measured_ms(const struct acc_csv *csv, size_t i, int op)
{
    double sum = 0;
    for (int c = 0; c < 2 && ops[op].column[c]; c++) {
        char name[80];
        snprintf(name, sizeof name, "time_stats.%s.median", ops[op].column[c]);
        sum += acc_csv_named(csv, i, name);
    }
    return sum;
}

static int predict(struct vidur *d, const struct acc_csv *csv, struct point *p)
{
    for (size_t i = 0; i < csv->n_row; i++) {
        shape_of(csv, i, &d->env);
        p[i].tok = acc_csv_named(csv, i, "num_tokens");
        p[i].tp = (double)d->env.strategy.tp;
        struct step_shape s = { .n_prefill = 1, .prefill_tok = (int64_t)p[i].tok, .n_logits = 1 };
        struct op list[OPS_MAX];
        for (int k = 0; k < N_OP; k++) {
            p[i].predicted[k] = acc_op_s(&d->env, acc_op(&d->env, &s, ops[k].op, list));
            p[i].measured[k] = measured_ms(csv, i, k) * 1e-3;
        }
    }
    return (int)csv->n_row;
}

static const struct point *at_tp1(const struct point *p, int n, double tok)
{
    for (int i = 0; i < n; i++)
        if (p[i].tp == 1 && p[i].tok == tok) return p + i;
    return NULL;
}

static void score(struct vidur *d, const char *gpu, const struct point *p, int n,
                  struct acc_err *all)
{
    const char *sample = acc_sample(&d->env, P_GEMM_EC, "vidur", "2023");
    for (int i = 0; i < n; i++) {
        int bin = p[i].tok <= 64 ? 0 : p[i].tok <= 1024 ? 1 : 2;
        const struct point *one = p[i].tp > 1 ? at_tp1(p, n, p[i].tok) : NULL;
        double sum[2] = { 0 }, first[2] = { 0 };
        for (int k = 0; k < N_OP; k++) {
            if (!(p[i].measured[k] > 0)) continue;
            char key[64];
            snprintf(key, sizeof key, "%s, %s", gpu, ops[k].op);
            const char *why = is_gemm(k) ? sample : "no: class default";
            acc_group_add(acc_group_of(&d->absolute, key, why), bin, p[i].predicted[k],
                          p[i].measured[k]);
            if (is_gemm(k)) acc_err_add(all, p[i].predicted[k], p[i].measured[k]);
            if (!one || !is_gemm(k)) continue;
            sum[0] += p[i].predicted[k];
            sum[1] += p[i].measured[k];
            first[0] += one->predicted[k];
            first[1] += one->measured[k];
        }
        char key[64];
        snprintf(key, sizeof key, "%s, TP %g against TP 1", gpu, p[i].tp);
        if (sum[1] > 0)
            acc_group_add(acc_group_of(&d->ratio, key, sample), bin, sum[0] / first[0],
                          sum[1] / first[1]);
    }
}

static void file(struct vidur *d, int gpu, const char *path)
{
    struct acc_csv csv;
    struct acc_ask q = { gpus[gpu].system, "any", 1, 1, DT_BF16, DT_BF16 };
    if (!acc_open(d->w, path, &csv)) return;
    struct acc_err all = { NULL, 0, 0 };
    if (acc_env_init(&d->env, &q) != ST_OK) {
        acc_summary(d->w, path, "-", NULL, csv.n_row, d->env.e.text);
    } else {
        d->env.stage.has_embed = true;
        struct point *p = mem_zalloc(csv.n_row + 1, sizeof *p);
        int n = predict(d, &csv, p);
        score(d, gpus[gpu].dir, p, n, &all);
        struct acc_sum s = acc_err_sum(&all);
        acc_summary(d->w, path, "GEMMs, absolute", &s, 0,
                    acc_sample(&d->env, P_GEMM_EC, "vidur", "2023"));
        free(p);
    }
    acc_err_release(&all);
    acc_env_release(&d->env);
    acc_csv_release(&csv);
}

void acc_vidur(struct acc *w)
{
    static const char *const bins[ACC_BINS] = { "<= 64 tok", "65-1024", "> 1024" };
    struct vidur d = { .w = w };
    for (int g = 0; g < N_GPU; g++) {
        const char **path;
        int n = acc_find(w, arena_printf(&w->a, "kernels_vidur/%s", gpus[g].dir), ".csv", &path);
        for (int i = 0; i < n; i++) file(&d, g, path[i]);
    }
    acc_say(w, "\n## Kernels of Vidur\n\nMedians of 2023-24, timed operator by operator; its "
               "attention profiles are not among the data. All models of a GPU together.\n");
    acc_table(w, &d.absolute, "absolute", bins);
    acc_say(w, "\nThe same as ratios: the GEMMs of a layer at TP t over those at TP 1, predicted "
               "against measured.\n");
    acc_table(w, &d.ratio, "ratio", bins);
    struct acc_err all = { NULL, 0, 0 };
    for (int i = 0; i < d.ratio.n; i++) acc_err_join(&all, &d.ratio.g[i].all);
    struct acc_sum s = acc_err_sum(&all);
    if (s.n) acc_summary(w, "kernels_vidur", "GEMMs of a layer, TP t / TP 1", &s, 0, "no");
    acc_err_release(&all);
    acc_groups_release(&d.absolute);
    acc_groups_release(&d.ratio);
}
