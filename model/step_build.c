/* model/step_build.c - the tables behind struct step: operators evaluated once per token count.
 *
 * Up to 1024 tokens each count is computed; above, every eighth, with straight lines between (the
 * laws curve over thousands of tokens: the error is below 0.1 %, tested; measured tables are given
 * every 16). SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "model/step_in.h"

enum { EXACT_TOK = 1024, STRIDE_TOK = 8, MAX_SEGS = 64 };

static const int64_t limit_tok = (int64_t)1 << 24, limit_seq = (int64_t)1 << 20;

struct sums {
    double part[N_ROW];
};

static int row_of(enum step_class c)
{
    return c == STEP_GEMM ? ROW_GEMM : c == STEP_COLL ? ROW_COLL : ROW_OTHER;
}

/* Seconds by row of everything on stage g that depends on `by`, at a count of x. */
static struct sums evaluate(struct step *m, const struct step_stage *g, enum op_by by, double x)
{
    struct sums sum = { { 0 } };
    struct step_shape s = { .prefill_tok = by == OP_BY_TOK ? (int64_t)x : 0,
                            .n_logits = by == OP_BY_SEQ ? (int64_t)x : 0 };
    struct op op[OPS_MAX];
    int n = ops_list(&m->env, g, &s, op);
    for (int i = 0; i < n; i++)
        if (op[i].by == by && op[i].count > 0)
            sum.part[row_of(op[i].cls)] += op[i].count * ops_time_s(&m->env, g, op + i, NULL, NULL);
    return sum;
}

static struct step_row row_from(const struct sums *s)
{
    struct step_row r = { 0 };
    for (int c = 0; c < N_ROW; c++) {
        r.part[c] = step_to_fp(s->part[c]);
        r.total += r.part[c];
    }
    return r;
}

static struct step_row *fill(struct step *m, const struct step_stage *g, enum op_by by, int64_t max,
                             struct arena *a)
{
    struct step_row *row = arena_array(a, (size_t)max + 1, sizeof *row);
    int64_t i = 1;
    for (; i <= max && i <= EXACT_TOK; i++) {
        struct sums s = evaluate(m, g, by, (double)i);
        row[i] = row_from(&s);
    }
    struct sums lo = evaluate(m, g, by, (double)(i - 1));
    while (i <= max) {
        int64_t from = i - 1, to = from + STRIDE_TOK;
        struct sums hi = evaluate(m, g, by, (double)to);
        for (; i <= to && i <= max; i++) {
            double w = (double)(i - from) / STRIDE_TOK;
            struct sums mid;
            for (int c = 0; c < N_ROW; c++) mid.part[c] = (1 - w) * lo.part[c] + w * hi.part[c];
            row[i] = row_from(&mid);
        }
        lo = hi;
    }
    return row;
}

/* A segment that starts at sum_ctx `from` with the value `at_from` (seconds, all layers) and slope
 * b. */
static void push(struct step_seg *seg, int *n_seg, int64_t from, double at_from, double b)
{
    struct step_seg *s = seg + *n_seg;
    if (*n_seg > 0) seg[*n_seg - 1].ctx_end = from;
    s->b_fp = step_to_fp(fmax(0, b));
    double a =
        at_from * 1e9 * (double)((int64_t)1 << STEP_FP_BITS) - (double)s->b_fp * (double)from;
    double cap = (double)STEP_MAX_FP;
    s->a_fp = (int64_t)floor(fmin(cap, fmax(-16 * cap, a)) + 0.5);
    s->ctx_end = INT64_MAX;
    ++*n_seg;
}

/* Decode attention of one layer by the law is made of two lines (little and much KV): seconds a[]
 * and slopes b[] per token of context, found by evaluating it at both ends. */
static void law_lines(const struct step *m, const struct step_stage *g, int64_t n, double a[2],
                      double b[2])
{
    static const int64_t at[4] = { 0, 64, (int64_t)1 << 40, (int64_t)1 << 41 };
    struct arch wide_open = *m->env.arch;
    struct ops_env v = m->env;
    wide_open.sliding_window = 0;
    v.arch = &wide_open;
    double t[4] = { 0 };
    for (int i = 0; i < 4; i++) {
        struct step_shape s = { .n_decode = n, .sum_ctx = at[i] };
        struct op op[OPS_MAX];
        int k = ops_list(&v, g, &s, op);
        for (int j = 0; j < k; j++)
            if (op[j].kind == OP_DECODE) t[i] = ops_time_s(&v, g, op + j, NULL, NULL);
    }
    a[0] = t[0];
    b[0] = (t[1] - t[0]) / (double)at[1];
    b[1] = (t[3] - t[2]) / (double)at[2];
    a[1] = t[2] - b[1] * (double)at[2];
}

static int law_segs(const struct step *m, const struct step_stage *g, int64_t n,
                    struct step_seg *seg)
{
    double a[2], b[2];
    int n_seg = 0;
    law_lines(m, g, n, a, b);
    double kink = (a[1] - a[0]) / (b[0] - b[1]);
    if (kink >= 1 && kink < 1e15) {
        push(seg, &n_seg, 0, a[0] * g->n_layer, b[0] * g->n_layer);
        int64_t from = (int64_t)ceil(kink);
        push(seg, &n_seg, from, (a[1] + b[1] * (double)from) * g->n_layer, b[1] * g->n_layer);
    } else {
        push(seg, &n_seg, 0, a[1] * g->n_layer, b[1] * g->n_layer);
    }
    return n_seg;
}

static int table_segs(const struct step *m, int64_t n, int n_layer, struct step_seg *seg)
{
    int n_seg = 0;
    double kv = 0, last = 0;
    while (n_seg < MAX_SEGS - 2) {
        double c0, c1, end;
        table_attn_line(m->env.table, (double)n, kv, &c0, &c1, &end);
        int64_t from = (int64_t)ceil(kv * (double)n);
        double at = fmax(0, c0 + c1 * (double)from / (double)n);
        at = fmax(at, last);
        push(seg, &n_seg, from, at * n_layer, c1 * n_layer / (double)n);
        if (!(end < 1e9)) break;
        last = at + fmax(0, c1) * (end - (double)from / (double)n);
        kv = end;
    }
    return n_seg;
}

static void cut_at_window(const struct step *m, int64_t n, struct step_seg *seg, int *n_seg)
{
    if (m->window <= 0) return;
    int64_t edge = (int64_t)m->window * n;
    int i = 0;
    while (seg[i].ctx_end <= edge) i++;
    struct step_seg flat = { INT64_MAX, seg[i].a_fp + seg[i].b_fp * edge, 0 };
    seg[i].ctx_end = edge;
    seg[i + 1] = flat;
    *n_seg = i + 2;
}

static void decode_of(struct step *m, const struct step_stage *g, int64_t n, struct arena *a,
                      struct step_dec *out)
{
    struct step_seg seg[MAX_SEGS];
    int n_seg = 0;
    double alpha = m->env.profile->p[P_SKEW_ALPHA].v;
    n_seg =
        table_has_attn(m->env.table) ? table_segs(m, n, g->n_layer, seg) : law_segs(m, g, n, seg);
    /* One slope for all segments, of the outermost: a skew term that jumped with the segment would
     * make a step cheaper as it grows. */
    double slope = (double)seg[n_seg - 1].b_fp;
    for (int i = 0; i < STEP_SKEW_BUCKETS; i++) {
        double w = alpha;
        if (table_has_attn(m->env.table)) {
            double far = 128.0 * (double)((int64_t)1 << (2 * i)), mean = far / 2;
            w = table_skew_alpha(m->env.table, (double)n, mean, mean + far, 0, alpha);
        }
        out->skew_fp[i] = (int64_t)(fmin(1, fmax(0, w)) * slope + 0.5);
    }
    cut_at_window(m, n, seg, &n_seg);
    struct step_seg *kept = arena_array(a, (size_t)n_seg, sizeof *kept);
    memcpy(kept, seg, (size_t)n_seg * sizeof *kept);
    out->seg = kept;
    out->n_seg = n_seg;
}

static void prefill_of(const struct step *m, const struct step_stage *g, struct step_tables *out)
{
    /* The law is linear in pairs, tokens and past: four evaluations give its coefficients. */
    struct arch wide_open = *m->env.arch;
    struct ops_env v = m->env;
    wide_open.sliding_window = 0;
    v.arch = &wide_open;
    v.table = NULL;
    const int64_t far = (int64_t)1 << 30;
    struct step_shape s[4] = { { .n_prefill = 1, .prefill_tok = far },
                               { .n_prefill = 1, .prefill_tok = 2 * far },
                               { .n_prefill = 1, .prefill_tok = far, .prefill_past = far },
                               { .n_prefill = 1, .prefill_tok = far, .prefill_pairs = far } };
    double t[4] = { 0 };
    for (int i = 0; i < 4; i++) {
        struct op op[OPS_MAX];
        int k = ops_list(&v, g, s + i, op);
        for (int j = 0; j < k; j++)
            if (op[j].kind == OP_PREFILL)
                t[i] = op[j].count * ops_time_s(&v, g, op + j, NULL, NULL);
    }
    out->pre_tok_s = (t[1] - t[0]) / (double)far;
    out->pre_past_s = (t[2] - t[0]) / (double)far;
    out->pre_pair_s = (t[3] - t[0]) / (double)far;
    out->pre_a_s = g->n_layer * m->env.profile->p[P_PRE_T0_S].v;
}

void step_build(struct step *m, const struct step_stage *g, struct arena *a,
                struct step_tables *out)
{
    out->stage = *g;
    out->tok = fill(m, g, OP_BY_TOK, m->max_tok, a);
    out->seq = fill(m, g, OP_BY_SEQ, m->max_seq, a);
    out->dec = arena_array(a, (size_t)m->max_seq + 1, sizeof *out->dec);
    for (int64_t n = 1; n <= m->max_seq; n++) decode_of(m, g, n, a, out->dec + n);
    prefill_of(m, g, out);
}

static const char *ops_by_law(struct step *m, struct arena *a)
{
    const struct ops_env *v = &m->env;
    if (!v->table) return "";
    struct step_stage g = { .n_layer = 1, .has_embed = true, .has_head = true };
    struct step_shape s = { .n_decode = 1, .sum_ctx = 1, .n_logits = 1 };
    struct op op[OPS_MAX];
    int n = ops_list(v, &g, &s, op);
    const char *text = "";
    for (int i = 0; i < n; i++) {
        bool attn = op[i].by == OP_BY_CTX || strcmp(op[i].name, "kv_write") == 0;
        bool measured = op[i].cls == STEP_COLL || (attn && table_has_attn(v->table));
        ops_time_s(v, &g, op + i, &measured, NULL);
        if (measured) continue;
        if (op[i].by != OP_BY_CTX) m->law_in[row_of(op[i].cls)] = true;
        text = arena_printf(a, "%s%s%s", text, *text ? " " : "", op[i].name);
    }
    return text;
}

static bool same_stage(const struct step_stage *x, const struct step_stage *y)
{
    return x->n_layer == y->n_layer && x->has_embed == y->has_embed && x->has_head == y->has_head &&
           x->hop_inter == y->hop_inter && x->tp_inter == y->tp_inter;
}

/* The caller's objects may change or go before the tables do: keep copies. */
static void keep_env(const struct step_setup *u, struct arena *a, struct ops_env *v)
{
    struct arch *arch = arena_alloc(a, sizeof *arch);
    struct hw *hw = arena_alloc(a, sizeof *hw);
    struct strategy *strategy = arena_alloc(a, sizeof *strategy);
    struct profile *profile = arena_alloc(a, sizeof *profile);
    *arch = *u->arch;
    *hw = *u->hw;
    *strategy = *u->strategy;
    *profile = *u->profile;
    *v = (struct ops_env){ arch, hw, strategy, profile, u->table };
}

static int prepare_tables(const struct step_setup *u, struct step *m, struct arena *a,
                          struct err *e)
{
    if (u->max_batch_tok < 1 || u->max_batch_tok > limit_tok || u->max_seqs < 1 ||
        u->max_seqs > limit_seq)
        return err_set(e, ST_USAGE,
                       "a step of %lld tokens and %lld sequences is outside 1..%lld and 1..%lld",
                       (long long)u->max_batch_tok, (long long)u->max_seqs, (long long)limit_tok,
                       (long long)limit_seq);
    keep_env(u, a, &m->env);
    const struct param *p = m->env.profile->p;
    m->max_seq = u->max_seqs;
    m->max_tok = u->max_batch_tok > u->max_seqs ? u->max_batch_tok : u->max_seqs;
    m->overlap = m->env.profile->host_overlap;
    m->window = m->env.arch->sliding_window;
    m->host_fp = step_to_fp(p[P_HOST_STEP_S].v);
    m->host_seq_fp = step_to_fp(p[P_HOST_SEQ_S].v);
    m->host_tok_fp = step_to_fp(p[P_HOST_TOK_S].v);
    m->gap_fp = m->overlap ? step_to_fp(p[P_HOST_GAP_S].v) : 0;
    m->request_ns = step_to_fp(p[P_HOST_REQ_S].v) >> STEP_FP_BITS;
    m->output_ns = step_to_fp(p[P_HOST_OUT_S].v) >> STEP_FP_BITS;
    if (u->n_stage > 1) {
        m->return_ns = step_to_fp(p[P_STAGE_RETURN_S].v) >> STEP_FP_BITS;
        if (p[P_STAGE_BESIDE].v > 0) m->stage_slow = p[P_STAGE_BESIDE].v - 1;
        m->stage_tok = p[P_STAGE_TOK].v;
        m->stage0_drives = m->env.profile->stage0_drives;
    }
    int st = ops_check_table(&m->env, e);
    if (st != ST_OK) return st;
    m->by_law = ops_by_law(m, a);
    for (int i = 0; i < u->n_stage; i++) {
        for (int j = 0; j < i && !m->stage[i]; j++)
            if (same_stage(u->stage + i, u->stage + j)) m->stage[i] = m->stage[j];
        if (m->stage[i]) continue;
        struct step_tables *t = arena_alloc(a, sizeof *t);
        step_build(m, u->stage + i, a, t);
        m->stage[i] = t;
    }
    return ST_OK;
}

int step_prepare(const struct step_setup *u, struct arena *a, struct step **out, struct err *e)
{
    assert(u->n_stage >= 1);
    struct step *m = arena_alloc(a, sizeof *m);
    m->n_stage = u->n_stage;
    m->by_law = "";
    m->stage = arena_array(a, (size_t)u->n_stage, sizeof(struct step_tables *));
    if (u->fixed_ns > 0) {
        int64_t most = STEP_MAX_FP >> STEP_FP_BITS;
        m->fixed_fp = (u->fixed_ns < most ? u->fixed_ns : most) << STEP_FP_BITS;
    } else {
        int st = prepare_tables(u, m, a, e);
        if (st != ST_OK) return st;
    }
    *out = m;
    return ST_OK;
}

static double stage_s(const struct step_setup *u, const struct step_stage *g, int64_t n,
                      int64_t ctx)
{
    struct ops_env v = { u->arch, u->hw, u->strategy, u->profile, u->table };
    struct step_shape s = { .n_decode = n, .sum_ctx = n * ctx, .n_logits = n };
    struct op op[OPS_MAX];
    double t = 0;
    int k = ops_list(&v, g, &s, op);
    for (int i = 0; i < k; i++)
        t += op[i].count * (table_has_attn(v.table) && op[i].by == OP_BY_CTX
                                ? table_attn_s(v.table, 0, 0, (double)n, (double)ctx, NULL)
                                : ops_time_s(&v, g, op + i, NULL, NULL));
    return t;
}

void step_layer_costs(const struct step_setup *u, int64_t n_decode, int64_t ctx, double *layer_s,
                      double *first_s, double *last_s)
{
    struct step_stage layer = { .n_layer = 1 }, first = { .has_embed = true },
                      last = { .has_head = true };
    layer.tp_inter = first.tp_inter = last.tp_inter = u->n_stage > 0 && u->stage[0].tp_inter;
    *layer_s = stage_s(u, &layer, n_decode, ctx);
    *first_s = stage_s(u, &first, n_decode, ctx);
    *last_s = stage_s(u, &last, n_decode, ctx);
}
