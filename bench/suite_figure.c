/* bench/suite_figure.c - see suite_figure.h. SPDX-License-Identifier: Apache-2.0 */
#include "bench/suite_figure.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define BAR_DECODE    0.85
#define BAR_PREFILL   0.70
#define BAR_ATTENTION 0.85
#define BAR_HOST_GAP  0.05
enum { PROMPT_TOK = 2048, LONG_CTX = 4096 };

struct list {
    const struct suite *s;
    const struct suite_log *log;
    struct suite_figure *out;
    int n;
};

static struct suite_figure *add(struct list *l, const char *name, const char *unit, double value)
{
    struct suite_figure *x = &l->out[l->n++];
    *x = (struct suite_figure){
        .unit = unit, .value = value, .ceiling = NAN, .share = NAN, .bar = NAN
    };
    snprintf(x->name, sizeof x->name, "%s", name);
    return x;
}

static void judge(struct suite_figure *x, double ceiling, double bar, bool below)
{
    x->ceiling = ceiling;
    x->share = x->value / ceiling;
    x->bar = bar;
    x->below = below;
    x->verdict = isnan(x->share)                              ? SUITE_NOT_MEASURED
                 : (below ? x->share < bar : x->share >= bar) ? SUITE_MET
                                                              : SUITE_MISSED;
}

/* The best rate of points of an operation; NAN without any. */
static double best_rate(const struct list *l, int op, int dtype, bool square)
{
    double best = NAN;
    for (int i = 0; i < l->s->n_row; i++) {
        const struct points_row *r = &l->s->row[i];
        bool equal = r->m == r->n && r->n == r->k;
        if (r->op != op || r->part != POINTS_NO_PART || (square && (!equal || r->dtype != dtype)))
            continue;
        best = fmax(best, (square ? r->flop : r->bytes) / suite_median(l->log, i));
    }
    return best;
}

static double embed_params(const struct arch *a)
{
    return (double)a->vocab * a->hidden;
}

/* What a step of one sequence reads: all weights but rows of the embedding, and its KV. */
static double decode_bytes(const struct suite *s, const struct points_row *r)
{
    const struct arch *a = &s->spec.a;
    double params = (double)arch_params(a) - (a->tied ? 0 : embed_params(a));
    double kv = a->n_layer * arch_kv_bytes_layer(a, s->o.kv == BACKEND_F32 ? 4 : 2);
    return params * suite_weight_bytes(suite_dtype(s->o.weight)) + ((double)r->ctx + 1) * kv;
}

/* Products of all tokens, the head's of one, and attention. */
static double prompt_flop(const struct suite *s, const struct points_row *r)
{
    const struct arch *a = &s->spec.a;
    double m = (double)r->m, head = embed_params(a);
    double layers = (double)arch_params(a) - head * (a->tied ? 1 : 2);
    double pairs = m * (double)r->ctx + m * (m + 1) / 2;
    return 2 * m * layers + 2 * (double)r->n * head +
           4.0 * a->n_layer * a->n_head * a->head_dim * pairs;
}

static bool alone(const struct list *l)
{
    return l->s->o.tp * l->s->o.pp == 1;
}

static void decode(struct list *l, double bandwidth)
{
    int step = -1, replay = -1;
    double value = NAN, gap = NAN, t = NAN;
    for (int i = 0; i < l->s->n_row; i++) {
        const struct points_row *r = &l->s->row[i];
        bool one = r->m == 1 && r->seqs == 1 && r->k == 0;
        if (one && r->op == POINTS_STEP && (step < 0 || r->ctx < l->s->row[step].ctx)) step = i;
        if (one && r->op == POINTS_REPLAY && (replay < 0 || r->ctx < l->s->row[replay].ctx))
            replay = i;
    }
    if (step >= 0) t = suite_median(l->log, step);
    if (step >= 0 && alone(l)) value = decode_bytes(l->s, &l->s->row[step]) / t;
    if (replay >= 0) gap = t - suite_median(l->log, replay);
    judge(add(l, "decode, batch 1", "B/s", value), bandwidth, BAR_DECODE, false);
    judge(add(l, "host gap, batch 1", "s", gap), t, BAR_HOST_GAP, true);
}

static void prefill(struct list *l, double rate)
{
    int at = -1;
    char name[48];
    for (int i = 0; i < l->s->n_row; i++) {
        const struct points_row *r = &l->s->row[i];
        if (r->op == POINTS_STEP && r->seqs == 1 && r->ctx == 0 && r->m >= PROMPT_TOK &&
            (at < 0 || r->m < l->s->row[at].m))
            at = i;
    }
    double value =
        at >= 0 && alone(l) ? prompt_flop(l->s, &l->s->row[at]) / suite_median(l->log, at) : NAN;
    snprintf(name, sizeof name, "prefill, %lld tokens",
             at >= 0 ? (long long)l->s->row[at].m : (long long)PROMPT_TOK);
    judge(add(l, name, "FLOP/s", value), rate, BAR_PREFILL, false);
}

static void attention(struct list *l, double bandwidth)
{
    int at = -1;
    char name[48];
    for (int i = 0; i < l->s->n_row; i++) {
        const struct points_row *r = &l->s->row[i];
        if (r->op == POINTS_ATTN && r->m == r->seqs && r->ctx >= LONG_CTX && r->ctx == r->ctx_max &&
            (at < 0 || r->bytes > l->s->row[at].bytes))
            at = i;
    }
    const struct points_row *r = at >= 0 ? &l->s->row[at] : NULL;
    snprintf(name, sizeof name, "decode attention, %lld x %lld", r ? (long long)r->m : 0,
             r ? (long long)r->ctx : (long long)LONG_CTX);
    judge(add(l, name, "B/s", r ? r->bytes / suite_median(l->log, at) : NAN), bandwidth,
          BAR_ATTENTION, false);
}

int suite_figures(const struct suite *s, const struct suite_log *log,
                  struct suite_figure out[SUITE_FIGURE_MAX])
{
    static const struct {
        enum points_dtype dtype;
        const char *name;
    } type[] = { { POINTS_BF16, "products bf16" },
                 { POINTS_F16, "products f16" },
                 { POINTS_F32, "products f32" },
                 { POINTS_FP8, "products fp8" } };
    struct list l = { s, log, out, 0 };
    double read = best_rate(&l, POINTS_READ, 0, false), own = NAN;
    add(&l, "read", "B/s", read);
    add(&l, "copy", "B/s", best_rate(&l, POINTS_COPY, 0, false));
    for (size_t i = 0; i < sizeof type / sizeof *type; i++) {
        double rate = best_rate(&l, POINTS_GEMM, type[i].dtype, true);
        if (type[i].dtype == suite_dtype(s->o.weight)) own = rate;
        if (!isnan(rate)) add(&l, type[i].name, "FLOP/s", rate);
    }
    decode(&l, read);
    prefill(&l, own);
    attention(&l, read);
    return l.n;
}

static void quantity(double v, const char *unit, FILE *f)
{
    static const char *const prefix[] = { "n", "u", "m", "", "k", "M", "G", "T", "P" };
    int k = 3;
    for (; fabs(v) >= 1000 && k < 8; k++) v /= 1000;
    for (; v != 0 && fabs(v) < 1 && k > 0; k--) v *= 1000;
    fprintf(f, "%.4g %s%s", v, prefix[k], unit);
}

void suite_figure_print(const struct suite_figure *x, FILE *f)
{
    static const char *const word[] = { "", ": met", ": missed", ": not measured" };
    fprintf(f, "figure %s: ", x->name);
    if (isnan(x->value))
        fprintf(f, "-");
    else
        quantity(x->value, x->unit, f);
    if (!isnan(x->ceiling) && !isnan(x->value)) {
        fprintf(f, " of ");
        quantity(x->ceiling, x->unit, f);
        fprintf(f, ", %.1f %%", 100 * x->share);
    }
    if (!isnan(x->bar)) fprintf(f, " (bar %s %.0f %%)", x->below ? "<" : ">=", 100 * x->bar);
    fprintf(f, "%s\n", word[x->verdict]);
}
