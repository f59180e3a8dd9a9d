/* tests/accuracy_step.c - whole prefill and decode steps against Splitwise's.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/stat.h"
#include "tests/accuracy.h"

static const char path[] = "step_times_splitwise/perf_model.csv";
static const char fitted[] = "no: kernels fitted elsewhere, host default";
enum { MAX_BATCH_TOK = 64 * 512, MAX_SEQS = 64, REPEATS = 64 };

struct key { /* repeats of one measurement */
    double tp, prompt, batch, tokens;
    char model[32], gpu[32];
};

struct steps {
    struct acc *w;
    struct acc_groups groups;
    struct acc_csv csv;
};

static struct key key_of(const struct acc_csv *csv, size_t i)
{
    struct key k = { .tp = acc_csv_named(csv, i, "tensor_parallel"),
                     .prompt = acc_csv_named(csv, i, "prompt_size"),
                     .batch = acc_csv_named(csv, i, "batch_size"),
                     .tokens = acc_csv_named(csv, i, "token_size") };
    snprintf(k.model, sizeof k.model, "%s", acc_csv_word(csv, i, "model"));
    snprintf(k.gpu, sizeof k.gpu, "%s", acc_csv_word(csv, i, "hardware"));
    return k;
}

static bool same(const struct key *a, const struct key *b)
{
    return a->tp == b->tp && a->prompt == b->prompt && a->batch == b->batch &&
           a->tokens == b->tokens && !strcmp(a->model, b->model) && !strcmp(a->gpu, b->gpu);
}

/* Median over the repeats of k; seconds. */
static double median_s(const struct acc_csv *csv, const struct key *k, const char *column)
{
    double x[REPEATS];
    size_t n = 0;
    for (size_t i = 0; i < csv->n_row && n < REPEATS; i++) {
        struct key other = key_of(csv, i);
        if (same(k, &other)) x[n++] = acc_csv_named(csv, i, column);
    }
    stat_sort(x, n);
    return stat_quantile_sorted(x, n, 0.5) * 1e-3;
}

static bool is_first(const struct acc_csv *csv, size_t row, const struct key *k)
{
    for (size_t i = 0; i < row; i++) {
        struct key other = key_of(csv, i);
        if (same(k, &other)) return false;
    }
    return true;
}

static double cost_s(const struct step *m, const struct step_shape *s)
{
    return (double)step_total_fp(m, 0, s) / (double)((int64_t)1 << STEP_FP_BITS) * 1e-9;
}

/* A batch's prompts as one step: vLLM of 2024 did not cut them into chunks. */
static double prefill_s(const struct step *m, const struct key *k)
{
    struct step_shape s = { .n_prefill = (int64_t)k->batch,
                            .prefill_tok = (int64_t)(k->batch * k->prompt),
                            .prefill_pairs = (int64_t)(k->batch * k->prompt * (k->prompt + 1) / 2),
                            .n_logits = (int64_t)k->batch };
    return cost_s(m, &s);
}

/* A decode step at the mean context of the run. */
static double decode_s(const struct step *m, const struct key *k)
{
    struct step_shape s = { .n_decode = (int64_t)k->batch,
                            .sum_ctx = (int64_t)(k->batch * (k->prompt + k->tokens / 2)),
                            .n_logits = (int64_t)k->batch };
    return cost_s(m, &s);
}

static struct step *steps_of(struct steps *t, struct acc_env *v, const char *gpu, int tp)
{
    bool h100 = strstr(gpu, "h100") != NULL;
    struct acc_ask q = { h100 ? "dgx-h100" : "dgx-a100", "vllm", tp, 1, DT_BF16, DT_BF16 };
    struct step *m = NULL;
    int st = acc_env_init(v, &q);
    if (st == ST_OK) st = acc_arch(v, "llama-2-70b");
    v->stage =
        (struct step_stage){ .n_layer = v->arch.n_layer, .has_embed = true, .has_head = true };
    struct step_setup u = { .arch = &v->arch,
                            .hw = &v->hw,
                            .strategy = &v->strategy,
                            .profile = &v->profile,
                            .stage = &v->stage,
                            .n_stage = 1,
                            .max_batch_tok = MAX_BATCH_TOK,
                            .max_seqs = MAX_SEQS };
    if (st == ST_OK) st = step_prepare(&u, &v->a, &m, &v->e);
    if (st != ST_OK) acc_say(t->w, "\n* %s TP %d: %s\n", gpu, tp, v->e.text);
    return m;
}

static void add(struct steps *t, const struct key *k, const char *what, double p, double m)
{
    const char *name = arena_printf(&t->w->a, "%s, TP %g, %s", k->gpu, k->tp, what);
    acc_group_add(acc_group_of(&t->groups, name, fitted),
                  k->batch == 1 ? (k->prompt <= 512 ? 0 : 1) : 2, p, m);
}

struct scores {
    struct acc_err err[3];
    double *rest; /* measured less predicted decode step, of one GPU and TP */
    size_t n_rest, odd, cut;
};

/* One case; false if it is left out. */
static bool score_case(struct steps *t, const struct key *k, const struct step *m, struct scores *s)
{
    struct key half = *k;
    half.batch /= 2;
    double pre = median_s(&t->csv, k, "prompt_time"), tok = median_s(&t->csv, k, "token_time");
    double e2e = median_s(&t->csv, k, "e2e_time");
    if (pre < median_s(&t->csv, &half, "prompt_time")) {
        acc_say(t->w,
                "\n* left out: %s TP %g, batch %g of %g tokens: prompt time %.0f ms is less "
                "than that of half the batch\n",
                k->gpu, k->tp, k->batch, k->prompt, pre * 1e3);
        return false;
    }
    double p = prefill_s(m, k), d = decode_s(m, k);
    add(t, k, "prefill step", p, pre);
    add(t, k, "decode step", d, tok);
    acc_err_add(s->err, p, pre);
    acc_err_add(s->err + 1, d, tok);
    s->rest[s->n_rest++] = tok - d;
    /* Runs that ended before their number of tokens say nothing on the sum. */
    if (e2e < 0.95 * (pre + tok * (k->tokens - 1))) {
        s->cut++;
        return true;
    }
    double run = p + d * (k->tokens - 1);
    add(t, k, "whole run", run, e2e);
    acc_err_add(s->err + 2, run, e2e);
    return true;
}

static void score(struct steps *t, const char *gpu, int tp, struct scores *s)
{
    struct acc_env v;
    struct step *m = steps_of(t, &v, gpu, tp);
    s->rest = mem_zalloc(t->csv.n_row + 1, sizeof *s->rest);
    s->n_rest = 0;
    for (size_t i = 0; m && i < t->csv.n_row; i++) {
        struct key k = key_of(&t->csv, i);
        if (!strcmp(k.gpu, gpu) && k.tp == tp && !strcmp(k.model, "llama2-70b") &&
            is_first(&t->csv, i, &k))
            s->odd += !score_case(t, &k, m, s);
    }
    stat_sort(s->rest, s->n_rest);
    acc_say(t->w,
            "\n* %s TP %d: a decode step takes %.1f ms more than predicted (median of %zu; 10 "
            "to 90 %%: %.1f to %.1f ms)\n",
            gpu, tp, 1e3 * stat_quantile_sorted(s->rest, s->n_rest, 0.5), s->n_rest,
            1e3 * stat_quantile_sorted(s->rest, s->n_rest, 0.1),
            1e3 * stat_quantile_sorted(s->rest, s->n_rest, 0.9));
    free(s->rest);
    acc_env_release(&v);
}

void acc_steps(struct acc *w)
{
    static const char *const bins[ACC_BINS] = { "one, <= 512 tok", "one, longer", "batch > 1" };
    static const char *const what[3] = { "prefill step", "decode step", "whole run" };
    struct steps t = { .w = w };
    struct scores c = { .odd = 0 };
    size_t bloom = 0;
    acc_say(w,
            "\n## Whole steps of Splitwise (vLLM of early 2024, DGX, fp16)\n\nLlama-2-70B; medians "
            "over the repeats of a case. The power columns are readings, not settings: no run is "
            "capped, so none is left out for it. Measured steps contain the host time of that "
            "vLLM, which did not overlap it with the device; the profile has today's class "
            "default, overlapped. The step model is asked without the memory check.\n");
    if (!acc_open(w, path, &t.csv)) return;
    for (size_t i = 0; i < t.csv.n_row; i++)
        bloom += strcmp(acc_csv_word(&t.csv, i, "model"), "llama2-70b") != 0;
    score(&t, "a100-80gb", 2, &c);
    score(&t, "a100-80gb", 4, &c);
    score(&t, "a100-80gb", 8, &c);
    score(&t, "h100-80gb", 4, &c);
    acc_table(w, &t.groups, "step", bins);
    for (int i = 0; i < 3; i++) {
        struct acc_sum s = acc_err_sum(c.err + i);
        acc_summary(w, path, what[i], &s, 0, fitted);
        acc_err_release(c.err + i);
    }
    if (c.odd)
        acc_summary(w, path, "-", NULL, c.odd,
                    "left out: prompt time below that of half the batch");
    acc_summary(w, path, "whole run", NULL, c.cut, "left out: ended before its number of tokens");
    acc_summary(w, path, "-", NULL, bloom, "not modelled: BLOOM is no known architecture");
    acc_groups_release(&t.groups);
    acc_csv_release(&t.csv);
}
