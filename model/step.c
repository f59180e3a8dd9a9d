/* model/step.c - the time of one engine step on one pipeline stage, in O(1).
 *
 * The host prepares a step on the first stage only: later stages follow its schedule. Tokens beyond
 * the tables continue their last slope. SPDX-License-Identifier: Apache-2.0 */
#include "model/step.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "model/step_in.h"

__extension__ typedef __int128 wide;

struct dec_line { /* a pure decode step: device = base + attn + b*sum_ctx */
    int64_t base, attn, b, ctx_end, host, gap;
};

const char *step_class_name(enum step_class c)
{
    static const char *const names[STEP_N_CLASS] = { "GEMM", "attention", "collective",
                                                     "p2p",  "host",      "other" };
    return (unsigned)c < STEP_N_CLASS ? names[c] : "?";
}

int64_t step_to_fp(double seconds)
{
    double fp = seconds * 1e9 * (double)((int64_t)1 << STEP_FP_BITS);
    if (!(fp < (double)STEP_MAX_FP)) return STEP_MAX_FP;
    return fp > 0 ? (int64_t)(fp + 0.5) : 0;
}

static int64_t capped(wide x)
{
    return x > STEP_MAX_FP ? STEP_MAX_FP : x < 0 ? 0 : (int64_t)x;
}

int step_skew_bucket(int64_t skew, int64_t n)
{
    int64_t per = skew / n;
    return per < 256 ? 0 : per < 1024 ? 1 : per < 4096 ? 2 : per < 16384 ? 3 : 4;
}

static const struct step_seg *seg_at(const struct step_dec *d, int64_t sum_ctx)
{
    int lo = 0, hi = d->n_seg - 1;
    while (lo < hi) {
        int mid = (lo + hi) / 2;
        if (sum_ctx < d->seg[mid].ctx_end)
            hi = mid;
        else
            lo = mid + 1;
    }
    return d->seg + lo;
}

/* Decode attention alone: constant part into *attn, slope and end of the line. */
static const struct step_seg *dec_attn(const struct step_tables *t, const struct step_shape *s,
                                       int64_t *attn)
{
    const struct step_dec *d = t->dec + s->n_decode;
    const struct step_seg *seg = seg_at(d, s->sum_ctx);
    *attn = seg->a_fp;
    if (s->skew > 0)
        *attn += capped((wide)d->skew_fp[step_skew_bucket(s->skew, s->n_decode)] * s->skew);
    return seg;
}

static int64_t host_of(const struct step *m, int stage, int64_t n_seq, int64_t n_tok)
{
    if (stage != 0) return 0;
    return capped((wide)m->host_fp + (wide)m->host_seq_fp * n_seq + (wide)m->host_tok_fp * n_tok);
}

static struct step_row row_at(const struct step_row *row, int64_t max, int64_t i)
{
    assert(i >= 0);
    if (i <= max) return row[i];
    struct step_row r = row[max];
    for (int c = 0; c < N_ROW; c++) {
        int64_t slope = max > 1 ? row[max].part[c] - row[max - 1].part[c] : 0;
        r.part[c] = capped((wide)r.part[c] + (wide)slope * (i - max));
    }
    r.total = r.part[0] + r.part[1] + r.part[2];
    return r;
}

static struct dec_line dec_at(const struct step *m, int stage, const struct step_shape *s)
{
    const struct step_tables *t = m->stage[stage];
    assert(s->n_decode >= 1 && s->n_decode <= m->max_seq && s->sum_ctx >= 0 && s->skew >= 0);
    struct dec_line l;
    const struct step_seg *seg = dec_attn(t, s, &l.attn);
    l.b = seg->b_fp;
    l.ctx_end = seg->ctx_end;
    l.base = t->tok[s->n_decode].total + t->seq[s->n_decode].total;
    l.host = host_of(m, stage, s->n_decode, 0);
    l.gap = stage == 0 ? m->gap_fp : 0;
    return l;
}

static int64_t dec_total(const struct step *m, const struct dec_line *l, int64_t sum_ctx)
{
    int64_t dev = capped((wide)l->base + l->attn + (wide)l->b * sum_ctx);
    if (m->overlap) return capped((wide)(dev > l->host ? dev : l->host) + l->gap);
    return capped((wide)dev + l->host);
}

static void parts_of_row(const struct step_row *r, int64_t part[STEP_N_CLASS])
{
    part[STEP_GEMM] += r->part[ROW_GEMM];
    part[STEP_COLL] += r->part[ROW_COLL];
    part[STEP_OTHER] += r->part[ROW_OTHER];
}

static void saturate(int64_t part[STEP_N_CLASS])
{
    for (int c = 0; c < STEP_N_CLASS; c++) part[c] = 0;
    part[STEP_OTHER] = STEP_MAX_FP;
}

void step_line(const struct step *m, int stage, int64_t n_decode, int64_t sum_ctx, int64_t skew,
               struct step_line *out)
{
    assert(stage >= 0 && stage < m->n_stage);
    *out = (struct step_line){ .ctx_end = INT64_MAX, .line_class = STEP_N_CLASS };
    if (m->fixed_fp) {
        out->a_fp = out->class_a_fp[STEP_OTHER] = m->fixed_fp;
        return;
    }
    struct step_shape s = { .n_decode = n_decode, .sum_ctx = sum_ctx, .skew = skew };
    struct dec_line l = dec_at(m, stage, &s);
    wide constant = (wide)l.base + l.attn, limit = STEP_MAX_FP - (m->overlap ? l.gap : l.host);
    if (constant + (wide)l.b * sum_ctx > limit) {
        saturate(out->class_a_fp);
        out->a_fp = STEP_MAX_FP;
        return;
    }
    const struct step_tables *t = m->stage[stage];
    parts_of_row(t->tok + n_decode, out->class_a_fp);
    parts_of_row(t->seq + n_decode, out->class_a_fp);
    out->class_a_fp[STEP_ATTN] = l.attn;
    out->ctx_end = l.ctx_end;
    bool hidden = m->overlap && constant + (wide)l.b * sum_ctx <= l.host;
    if (hidden) limit = l.host;
    if (l.b > 0) {
        wide end = (limit - constant) / l.b + 1;
        if (end < out->ctx_end) out->ctx_end = (int64_t)end;
    }
    if (hidden) {
        out->class_a_fp[STEP_HOST] = capped(l.host - constant + l.gap);
        out->a_fp = capped((wide)l.host + l.gap);
        return;
    }
    out->class_a_fp[STEP_HOST] = m->overlap ? l.gap : l.host;
    out->a_fp = (int64_t)(constant + out->class_a_fp[STEP_HOST]);
    out->b_fp = l.b;
    out->line_class = STEP_ATTN;
}

/* A measured table is looked up with one chunk that has the same (query, key) pairs as all of them:
 * its tokens and a past that makes up the pairs; several short prompts have fewer pairs than one
 * chunk of all their tokens, and then the chunk is shorter. */
static int64_t mixed_table_fp(const struct step *m, const struct step_tables *t,
                              const struct step_shape *s)
{
    double q = (double)s->prefill_tok, pairs = (double)s->prefill_pairs, n = (double)s->n_decode;
    double past = (pairs - q * (q + 1) / 2) / q;
    if (past < 0) {
        past = 0;
        q = (sqrt(1 + 8 * pairs) - 1) / 2;
    }
    double mean = n > 0 ? (double)s->sum_ctx / n : 0, window = m->window;
    double max = n > 0 ? mean + (double)s->skew / n : 0;
    if (window > 0) {
        past = fmin(past, window);
        mean = fmin(mean, window);
        max = fmin(max, window);
    }
    const struct table *k = m->env.table;
    double at_mean = table_attn_s(k, q, past, n, mean, NULL);
    if (max > mean) {
        double alpha = table_skew_alpha(k, n, mean, max, q, m->env.profile->p[P_SKEW_ALPHA].v);
        at_mean += alpha * fmax(0, table_attn_s(k, q, past, n, max, NULL) - at_mean);
    }
    return step_to_fp(at_mean * t->stage.n_layer);
}

static int64_t mixed_attn_fp(const struct step *m, const struct step_tables *t,
                             const struct step_shape *s)
{
    if (table_has_attn(m->env.table) && s->prefill_tok > 0) return mixed_table_fp(m, t, s);
    int64_t fp = 0;
    if (s->n_decode > 0) {
        int64_t attn;
        const struct step_seg *seg = dec_attn(t, s, &attn);
        fp = capped((wide)attn + (wide)seg->b_fp * s->sum_ctx);
    }
    if (s->prefill_tok > 0) {
        double pairs = (double)s->prefill_pairs, past = (double)s->prefill_past;
        double tok = (double)s->prefill_tok;
        if (m->window > 0) {
            pairs = fmin(pairs, m->window * tok);
            past = fmin(past, m->window * (double)s->n_prefill);
        }
        fp += step_to_fp(t->pre_a_s + pairs * t->pre_pair_s + tok * t->pre_tok_s +
                         past * t->pre_past_s);
    }
    return fp;
}

static int64_t mixed_total(const struct step *m, int stage, const struct step_shape *s,
                           int64_t part[STEP_N_CLASS])
{
    const struct step_tables *t = m->stage[stage];
    assert(s->n_decode >= 0 && s->n_decode <= m->max_seq && s->prefill_tok >= 0);
    struct step_row tok = row_at(t->tok, m->max_tok, s->n_decode + s->prefill_tok);
    struct step_row seq = row_at(t->seq, m->max_seq, s->n_logits);
    int64_t attn = mixed_attn_fp(m, t, s);
    int64_t host = host_of(m, stage, s->n_decode + s->n_prefill, s->prefill_tok);
    int64_t dev = tok.total + seq.total + attn;
    int64_t extra = !m->overlap ? host : host > dev ? host - dev : 0;
    if (stage == 0) extra += m->gap_fp;
    int64_t total = capped((wide)dev + extra);
    if (part) {
        parts_of_row(&tok, part);
        parts_of_row(&seq, part);
        part[STEP_ATTN] = attn;
        part[STEP_HOST] = extra;
        if ((wide)dev + extra > STEP_MAX_FP) saturate(part);
    }
    return total;
}

void step_cost(const struct step *m, int stage, const struct step_shape *s, struct step_cost *out)
{
    assert(stage >= 0 && stage < m->n_stage);
    *out = (struct step_cost){ 0 };
    if (m->fixed_fp || (s->n_prefill == 0 && s->n_decode > 0)) {
        struct step_line l;
        step_line(m, stage, s->n_decode, s->sum_ctx, s->skew, &l);
        memcpy(out->class_fp, l.class_a_fp, sizeof out->class_fp);
        if (l.line_class < STEP_N_CLASS) out->class_fp[l.line_class] += l.b_fp * s->sum_ctx;
        out->total_fp = l.a_fp + l.b_fp * s->sum_ctx;
        return;
    }
    out->total_fp = mixed_total(m, stage, s, out->class_fp);
}

int64_t step_total_fp(const struct step *m, int stage, const struct step_shape *s)
{
    assert(stage >= 0 && stage < m->n_stage);
    if (m->fixed_fp) return m->fixed_fp;
    if (s->n_prefill == 0 && s->n_decode > 0) {
        struct dec_line l = dec_at(m, stage, s);
        return dec_total(m, &l, s->sum_ctx);
    }
    return mixed_total(m, stage, s, NULL);
}

int64_t step_hop_fp(const struct step *m, int stage, int64_t n_tok)
{
    assert(stage >= 0 && stage < m->n_stage);
    if (m->fixed_fp || stage == m->n_stage - 1 || n_tok <= 0) return 0;
    /* vLLM sends hidden states and residual, a 1/t slice per TP rank; the receivers gather them. */
    const struct step_stage *g = &m->stage[stage]->stage;
    const struct step_stage *to = &m->stage[stage + 1]->stage;
    double bytes = 2.0 * (double)n_tok * m->env.arch->hidden * 2, t = (double)m->env.strategy->tp;
    struct coll_group grp = coll_group_of(m->env.hw, (int)t, to->tp_inter);
    return step_to_fp(coll_p2p_s(m->env.profile, g->hop_inter, bytes / t) +
                      coll_allgather_s(m->env.profile, &grp, bytes));
}

int64_t step_request_ns(const struct step *m)
{
    return m->request_ns;
}

int64_t step_output_ns(const struct step *m)
{
    return m->output_ns;
}

int64_t step_return_ns(const struct step *m)
{
    return m->return_ns;
}

double step_beside(const struct step *m, int64_t n_tok)
{
    double tok = m->stage_tok > 0 ? (double)n_tok / m->stage_tok : 0;
    return 1 + m->stage_slow / (1 + tok);
}

bool step_stage0_drives(const struct step *m)
{
    return m->stage0_drives;
}
