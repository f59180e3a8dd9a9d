/* model/step_cover.c - where a step's constants come from, in words, and whether a run left their
 * range. SPDX-License-Identifier: Apache-2.0 */
#include "model/step_in.h"

/* The GEMM fits cover 1..32768 rows; the attention kernels at hand reach contexts of 32768 tokens
 * in decode and prompts of 16384 (public microbenchmark grids, head size 128). */
enum { FIT_MAX_TOK = 32768, FIT_MAX_CTX = 32768, FIT_MAX_PROMPT = 16384 };

static enum cover worst(const struct profile *p, enum profile_id first, enum profile_id last)
{
    enum cover c = COVER_TABLE;
    for (int i = first; i <= (int)last; i++)
        if (p->p[i].cover > c) c = p->p[i].cover;
    return c;
}

/* ---- a measured profile knows the sizes of its points */

/* A range ends where its last point was, but for rounding. */
static const double EDGE = 1e-6;

static const char *check_size(const struct profile *p, enum profile_law law, enum profile_size size,
                              double x, const char *text, struct arena *a)
{
    for (int i = 0; i < p->n_range; i++) {
        const struct profile_range *r = p->range + i;
        if (r->law != law || r->size != size) continue;
        if (x >= r->lo * (1 - EDGE) && x <= r->hi * (1 + EDGE)) continue;
        return arena_printf(a, "%s%s%s %s %.6g (measured %.6g to %.6g)", text, *text ? ", " : "",
                            profile_law_name(law), profile_size_name(size), x, r->lo, r->hi);
    }
    return text;
}

/* Only what grows with the load: small steps lie between a law's constant time and its first
 * point. */
static const char *check_most(const struct profile *p, enum profile_law law, enum profile_size size,
                              double x, const char *text, struct arena *a)
{
    for (int i = 0; i < p->n_range; i++)
        if (p->range[i].law == law && p->range[i].size == size && x < p->range[i].lo) return text;
    return check_size(p, law, size, x, text, a);
}

static enum profile_law law_of(const struct op *o)
{
    switch (o->kind) {
    case OP_GEMM: return LAW_GEMM;
    case OP_ELT: return LAW_ELT;
    case OP_DECODE: return LAW_DECODE;
    case OP_PREFILL: return LAW_PREFILL;
    case OP_ALLREDUCE: return LAW_ALLREDUCE;
    case OP_ALLGATHER: return LAW_ALLGATHER;
    default: return LAW_N;
    }
}

/* Each size that is out of range is named once, by the operator that is first to need it. */
static const char *check_op(const struct profile *p, const struct op *o, const char *text,
                            struct arena *a)
{
    enum profile_law law = law_of(o);
    const char *before = text;
    switch (law) {
    case LAW_GEMM:
        text = check_size(p, law, SIZE_N, o->n, text, a);
        if (text == before) text = check_size(p, law, SIZE_K, o->k, text, a);
        return text == before ? check_most(p, law, SIZE_M, o->m, text, a) : text;
    case LAW_DECODE:
        text = check_most(p, law, SIZE_SEQS, o->m, text, a);
        text = check_most(p, law, SIZE_CTX, o->k, text, a);
        return check_size(p, law, SIZE_HEADS, o->n, text, a);
    case LAW_PREFILL:
        text = check_most(p, law, SIZE_TOK, o->tok, text, a);
        text = check_most(p, law, SIZE_PAIRS, o->k, text, a);
        return check_size(p, law, SIZE_HEADS, o->n, text, a);
    case LAW_ELT:
    case LAW_ALLREDUCE:
    case LAW_ALLGATHER: return check_most(p, law, SIZE_BYTES, o->bytes, text, a);
    default: return text;
    }
}

/* The largest step of the run on every stage, operator by operator. Words of what lies outside; ""
 * if nothing does. */
static const char *outside_measured(const struct step *m, const struct step_extent *x,
                                    struct arena *a)
{
    const struct profile *p = m->env.profile;
    const char *text = "";
    bool named[LAW_N + 1] = { false };
    int64_t chunk = x->max_prefill < x->max_tok ? x->max_prefill : x->max_tok;
    int64_t past = x->max_prefill - chunk;
    struct step_shape s = { .n_decode = x->max_seqs,
                            .sum_ctx = x->max_ctx_sum,
                            .n_prefill = chunk > 0,
                            .prefill_tok = x->max_tok > x->max_seqs ? x->max_tok - x->max_seqs : 0,
                            .prefill_past = past,
                            .n_logits = x->max_seqs + (chunk > 0) };
    if (chunk > 0 && s.prefill_tok == 0) s.prefill_tok = chunk;
    s.prefill_pairs = chunk * past + chunk * (chunk + 1) / 2;
    for (int i = 0; i < m->n_stage; i++) {
        struct op op[OPS_MAX];
        int n = ops_list(&m->env, &m->stage[i]->stage, &s, op);
        for (int j = 0; j < n; j++) {
            enum profile_law law = law_of(op + j);
            bool by_table = op[j].by == OP_BY_CTX ? table_has_attn(m->env.table)
                                                  : m->env.table && op[j].cls != STEP_COLL;
            if (named[law] || by_table) continue;
            const char *more = check_op(p, op + j, text, a);
            named[law] = more != text;
            text = more;
        }
    }
    if (m->n_stage > 1) {
        double bytes = 2.0 * (double)x->max_tok * m->env.arch->hidden * 2;
        text = check_most(p, LAW_P2P, SIZE_BYTES, bytes / (double)m->env.strategy->tp, text, a);
        text = check_most(p, LAW_STAGE, SIZE_TOK, (double)x->max_tok, text, a);
    }
    text = check_most(p, LAW_STEP, SIZE_SEQS, (double)x->max_seqs, text, a);
    return check_most(p, LAW_STEP, SIZE_TOK, (double)x->max_tok, text, a);
}

/* Whether the sizes of the kernels' points are known; else the catalog's hold. */
static bool all_measured(const struct profile *p)
{
    bool have[LAW_N] = { false };
    for (int i = 0; i < p->n_range; i++) have[p->range[i].law] = true;
    return have[LAW_GEMM] && have[LAW_DECODE] && have[LAW_PREFILL];
}

static bool outside(const struct step *m, const struct step_extent *x)
{
    bool out = false;
    const struct table *t = m->env.table;
    if (!t)
        return x->max_tok > FIT_MAX_TOK || x->max_ctx > FIT_MAX_CTX ||
               x->max_prefill > FIT_MAX_PROMPT;
    int n_name;
    const char *const *names;
    n_name = table_dense_names(t, &names);
    for (int i = 0; i < n_name; i++) table_dense_s(t, names[i], (double)x->max_tok, &out);
    table_seq_s(t, "lm_head", (double)x->max_seqs, &out);
    if (!table_has_attn(t)) return out;
    if (x->max_seqs > 0) table_attn_s(t, 0, 0, (double)x->max_seqs, (double)x->max_ctx, &out);
    if (x->max_prefill > 0)
        table_attn_s(t, (double)(x->max_prefill < x->max_tok ? x->max_prefill : x->max_tok), 0, 0,
                     0, &out);
    return out;
}

/* ---- what a measured profile has no points of */

/* What neither the strategy alone nor a fit tells: transfers between nodes, experts. */
static const char *also_unmeasured(const struct step *m, struct arena *a)
{
    const struct profile *p = m->env.profile;
    bool inter = false, net = false, moe = m->env.arch->n_expert > 0;
    for (int i = 0; i < m->n_stage; i++)
        inter |= m->stage[i]->stage.hop_inter || m->stage[i]->stage.tp_inter;
    for (int i = 0; i < p->n_range; i++) net |= p->range[i].law == LAW_NET;
    bool no_net = inter && !net;
    return arena_printf(a, "%s%s%s", no_net ? profile_law_name(LAW_NET) : "",
                        no_net && moe ? ", " : "", moe ? "experts" : "");
}

/* Needed under this strategy and by this model, but for what tables hold. */
const char *step_unmeasured(const struct step *m, struct arena *a)
{
    const struct profile *p = m->env.profile;
    const char *text = "";
    if (m->fixed_fp || !p->measured) return text;
    text = also_unmeasured(m, a);
    for (int i = 0; i < LAW_N; i++) {
        bool by_table = (i == LAW_GEMM && m->env.table && !m->law_in[ROW_GEMM]) ||
                        (i == LAW_ELT && m->env.table && !m->law_in[ROW_OTHER]) ||
                        ((i == LAW_DECODE || i == LAW_PREFILL) && table_has_attn(m->env.table));
        if (!(p->unmeasured >> i & 1) || by_table) continue;
        text = arena_printf(a, "%s%s%s", text, *text ? ", " : "",
                            profile_law_name((enum profile_law)i));
    }
    if (p->crowd) text = arena_printf(a, "%s%s%s", text, *text ? ", " : "", p->crowd);
    return text;
}

/* Of a class its own constant's source; where others of the class are not as well known, whose and
 * theirs. */
static const char *source_of(const struct profile *p, enum profile_id own, enum profile_id first,
                             enum profile_id last, struct arena *a)
{
    const struct param *x = &p->p[own];
    for (int i = first; i <= (int)last && x->source; i++) {
        const struct param *y = &p->p[i];
        if (y->cover <= x->cover || y->cover < worst(p, first, last) || !y->source) continue;
        return arena_printf(a, "%s; %s: %s, %s", y->source, profile_param_name(own),
                            cover_name(x->cover), x->source);
    }
    return x->source;
}

const char *step_coverage(const struct step *m, const struct step_extent *x,
                          enum cover by_class[STEP_N_CLASS], bool *extrapolated, struct arena *a)
{
    for (int c = 0; c < STEP_N_CLASS; c++) by_class[c] = COVER_TABLE;
    *extrapolated = false;
    if (m->fixed_fp) return "constant step cost, as set";
    const struct profile *p = m->env.profile;
    bool table = m->env.table != NULL, tp = m->env.strategy->tp > 1, pp = m->n_stage > 1;
    bool moe = m->env.arch->n_expert > 0;
    by_class[STEP_GEMM] =
        table && !m->law_in[ROW_GEMM] ? COVER_TABLE : worst(p, P_GEMM_T0_S, P_GEMM_EM);
    if (moe && worst(p, P_MOE_T0_S, P_MOE_EM) > by_class[STEP_GEMM])
        by_class[STEP_GEMM] = worst(p, P_MOE_T0_S, P_MOE_EM);
    by_class[STEP_ATTN] =
        table_has_attn(m->env.table) ? COVER_TABLE : worst(p, P_DEC_T0_S, P_PRE_EM);
    by_class[STEP_OTHER] =
        table && !m->law_in[ROW_OTHER] ? COVER_TABLE : worst(p, P_ELT_T0_S, P_ELT_EM);
    by_class[STEP_HOST] = worst(p, P_HOST_STEP_S, P_HOST_OUT_S);
    if (tp) by_class[STEP_COLL] = worst(p, P_AR_A_S, P_AG_S0);
    if (pp) by_class[STEP_P2P] = worst(p, P_P2P_A_S, P_P2P_B);
    const char *text = "", *far = p->n_range ? outside_measured(m, x, a) : "";
    const char *none = step_unmeasured(m, a);
    bool guessed = *none && !p->catalog_own;
    *extrapolated = *far || guessed || (!all_measured(p) && outside(m, x));
    static const enum profile_id cites[STEP_N_CLASS] = { P_GEMM_EM, P_DEC_EM,      P_AR_B,
                                                         P_P2P_B,   P_HOST_STEP_S, P_ELT_EM };
    for (int c = 0; c < STEP_N_CLASS; c++) {
        if ((c == STEP_COLL && !tp) || (c == STEP_P2P && !pp)) continue;
        bool own = c == STEP_COLL && p->ar_limit_bytes > 0;
        const char *source = c == STEP_HOST ? source_of(p, cites[c], P_HOST_STEP_S, P_HOST_OUT_S, a)
                                            : p->p[own ? P_CAR_B : cites[c]].source;
        bool by_table = table && by_class[c] == COVER_TABLE;
        text = arena_printf(a, "%s%s%s %s%s%s%s", text, *text ? "; " : "",
                            step_class_name((enum step_class)c), cover_name(by_class[c]),
                            !by_table && source ? " (" : "", !by_table && source ? source : "",
                            !by_table && source ? ")" : "");
    }
    const struct param *stage = &p->p[P_STAGE_BESIDE]; /* none: nothing is known of it */
    if (!(stage->v > 0)) stage = &p->p[P_STAGE_RETURN_S];
    if (pp && stage->v > 0)
        text = arena_printf(a, "%s; stages beside each other %s (%s)", text,
                            cover_name(stage->cover), stage->source);
    if (*m->by_law)
        text = arena_printf(a, "%s; not in the kernel tables, by law: %s", text, m->by_law);
    if (p->note && *p->note) text = arena_printf(a, "%s; %s", text, p->note);
    const char *also = p->measured ? also_unmeasured(m, a) : "";
    if (*also) text = arena_printf(a, "%s; not measured: %s (as in the catalog)", text, also);
    if (p->measured && p->crowd)
        text = arena_printf(a, "%s; not measured: %s (as if each were alone)", text, p->crowd);
    if (*far || (*extrapolated && !guessed))
        text = arena_printf(a, "%s; outside the measured range%s%s", text, *far ? ": " : "", far);
    return text;
}
