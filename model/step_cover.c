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
    if (x->max_seqs > 0) table_attn_s(t, 0, 0, (double)x->max_seqs, (double)x->max_ctx, &out);
    if (x->max_prefill > 0)
        table_attn_s(t, (double)(x->max_prefill < x->max_tok ? x->max_prefill : x->max_tok), 0, 0,
                     0, &out);
    return out;
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
    by_class[STEP_ATTN] = table ? COVER_TABLE : worst(p, P_DEC_T0_S, P_PRE_EM);
    by_class[STEP_OTHER] =
        table && !m->law_in[ROW_OTHER] ? COVER_TABLE : worst(p, P_ELT_T0_S, P_ELT_EM);
    by_class[STEP_HOST] = worst(p, P_HOST_STEP_S, P_HOST_OUT_S);
    if (tp) by_class[STEP_COLL] = worst(p, P_AR_A_S, P_AG_S0);
    if (pp) by_class[STEP_P2P] = worst(p, P_P2P_A_S, P_P2P_B);
    *extrapolated = outside(m, x);
    const char *text = "";
    static const enum profile_id cites[STEP_N_CLASS] = { P_GEMM_EM, P_DEC_EM,      P_AR_B,
                                                         P_P2P_B,   P_HOST_STEP_S, P_ELT_EM };
    for (int c = 0; c < STEP_N_CLASS; c++) {
        if ((c == STEP_COLL && !tp) || (c == STEP_P2P && !pp)) continue;
        bool own = c == STEP_COLL && p->ar_limit_bytes > 0;
        const char *source = p->p[own ? P_CAR_B : cites[c]].source;
        bool by_table = table && by_class[c] == COVER_TABLE;
        text = arena_printf(a, "%s%s%s %s%s%s%s", text, *text ? "; " : "",
                            step_class_name((enum step_class)c), cover_name(by_class[c]),
                            !by_table && source ? " (" : "", !by_table && source ? source : "",
                            !by_table && source ? ")" : "");
    }
    if (*m->by_law)
        text = arena_printf(a, "%s; not in the kernel tables, by law: %s", text, m->by_law);
    if (p->note && *p->note) text = arena_printf(a, "%s; %s", text, p->note);
    if (*extrapolated) text = arena_printf(a, "%s; outside the measured range", text);
    return text;
}
