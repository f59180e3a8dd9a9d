/* model/profile.c - names, settings and draws of the constants of a profile.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/profile.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/conf.h"

/* Which values are possible. Efficiencies are fractions of a peak. */
enum form { TIME, RATE, EFFICIENCY, NUMBER, RATIO };
static const struct {
    const char *name;
    enum form form;
} params[P_N] = {
    [P_GEMM_T0_S] = { "gemm.t0", TIME },
    [P_GEMM_EC] = { "gemm.e_c", EFFICIENCY },
    [P_GEMM_EM] = { "gemm.e_m", EFFICIENCY },
    [P_GEMM_Q] = { "gemm.q", NUMBER },
    [P_GEMM_EQ] = { "gemm.e_q", NUMBER },
    [P_DEC_T0_S] = { "decode.t0", TIME },
    [P_DEC_EM] = { "decode.e_m", EFFICIENCY },
    [P_DEC_S_PER_BH] = { "decode.per_bh", TIME },
    [P_DEC_FLOOR_S] = { "decode.floor", TIME },
    [P_PRE_T0_S] = { "prefill.t0", TIME },
    [P_PRE_EC] = { "prefill.e_c", EFFICIENCY },
    [P_PRE_EM] = { "prefill.e_m", EFFICIENCY },
    [P_PRE_X_TOK] = { "prefill.extra", NUMBER },
    [P_SKEW_ALPHA] = { "skew.alpha", RATIO },
    [P_ELT_T0_S] = { "elementwise.t0", TIME },
    [P_ELT_EM] = { "elementwise.e_m", EFFICIENCY },
    [P_MOE_T0_S] = { "moe.t0", TIME },
    [P_MOE_EC] = { "moe.e_c", EFFICIENCY },
    [P_MOE_EM] = { "moe.e_m", EFFICIENCY },
    [P_AR_A_S] = { "allreduce.a", TIME },
    [P_AR_B] = { "allreduce.b", RATE },
    [P_AR_C_S] = { "allreduce.c", TIME },
    [P_AR_S0] = { "allreduce.s0", NUMBER },
    [P_CAR_A_S] = { "allreduce_own.a", TIME },
    [P_CAR_B] = { "allreduce_own.b", RATE },
    [P_CAR_C_S] = { "allreduce_own.c", TIME },
    [P_CAR_S0] = { "allreduce_own.s0", NUMBER },
    [P_AG_A_S] = { "allgather.a", TIME },
    [P_AG_B] = { "allgather.b", RATE },
    [P_AG_C_S] = { "allgather.c", TIME },
    [P_AG_S0] = { "allgather.s0", NUMBER },
    [P_P2P_A_S] = { "p2p.a", TIME },
    [P_P2P_B] = { "p2p.b", RATE },
    [P_NET_A_S] = { "net.a", TIME },
    [P_NET_B] = { "net.b", RATE },
    [P_RANK_SKEW_S] = { "rank_skew", TIME },
    [P_HOST_STEP_S] = { "host.step", TIME },
    [P_HOST_SEQ_S] = { "host.seq", TIME },
    [P_HOST_TOK_S] = { "host.tok", TIME },
    [P_HOST_REQ_S] = { "host.request", TIME },
    [P_HOST_OUT_S] = { "host.output", TIME },
    [P_HOST_GAP_S] = { "host.gap", TIME },
    [P_LAW] = { "law", NUMBER },
    [P_STAGE_RETURN_S] = { "stage.return", TIME },
    [P_STAGE_BESIDE] = { "stage.beside", NUMBER },
    [P_STAGE_TOK] = { "stage.tok", NUMBER },
};

const char *cover_name(enum cover c)
{
    static const char *const names[] = { "measured table", "fitted", "class default", "assumed" };
    return (unsigned)c < 4 ? names[c] : "?";
}

const char *profile_param_name(enum profile_id id)
{
    return (unsigned)id < P_N ? params[id].name : "?";
}

const char *profile_law_name(enum profile_law l)
{
    static const char *const names[LAW_N] = { "gemm",        "decode",    "prefill",
                                              "elementwise", "allreduce", "allreduce_own",
                                              "allgather",   "p2p",       "net",
                                              "step",        "stage" };
    return (unsigned)l < LAW_N ? names[l] : "?";
}

const char *profile_size_name(enum profile_size s)
{
    static const char *const names[SIZE_KINDS] = {
        "m",         "n",         "k",      "bytes",      "seqs",     "ctx",       "ctx_max",
        "tok",       "pairs",     "heads",  "kv_heads",   "head_dim", "elt_bytes", "weight_bytes",
        "act_bytes", "out_bytes", "device", "collectives"
    };
    return (unsigned)s < SIZE_KINDS ? names[s] : "?";
}

bool profile_is_own_error(const struct profile *p, enum profile_id id)
{
    double sd = p->p[id].sd_log;
    return id == P_LAW && sd > 0 && 2 * p->law_own_sd * p->law_own_sd >= sd * sd;
}

const char *profile_advice(const struct profile *p, enum profile_id id, bool by_table)
{
    if (profile_is_own_error(p, id))
        return by_table ? "time attention and whole steps nearer to this load's batches and "
                          "contexts (all else is by table)"
                        : "time this model's operators under this strategy (bench --suite=model: "
                          "their table is then taken instead of laws)";
    if (id <= P_GEMM_EQ) return "time matrix products of this model's shapes";
    if (id <= P_DEC_FLOOR_S || id == P_SKEW_ALPHA)
        return "time decode attention at this load's batches and contexts";
    if (id <= P_PRE_X_TOK) return "time prefill attention at this load's prompt lengths";
    if (id <= P_ELT_EM) return "time norms and element-wise work at this model's width";
    if (id <= P_MOE_EM) return "time the experts of this model";
    if (id <= P_CAR_S0) return "time all-reduces of this model's messages at this TP degree";
    if (id <= P_AG_S0) return "time all-gathers of this model's messages at this TP degree";
    if (id <= P_P2P_B) return "time transfers between stages in the node";
    if (id <= P_NET_B) return "time transfers between nodes";
    if (id == P_RANK_SKEW_S) return "time whole steps at this TP degree";
    if (id <= P_HOST_GAP_S) return "time whole steps over batch sizes, host work included";
    if (id >= P_STAGE_RETURN_S) return "time steps with all stages of the pipeline busy";
    return "time one run of this model on this hardware";
}

static const char *refusal(enum form f, double v)
{
    if (!isfinite(v) || v < 0) return "must not be negative";
    if (v == 0 && (f == RATE || f == EFFICIENCY)) return "must be positive";
    if (v > 1 && f == RATIO) return "is a weight from 0 to 1";
    if (v > 2 && f == EFFICIENCY) return "is a fraction of a peak";
    return NULL;
}

int profile_set(struct profile *p, const char *name, double v, struct err *e)
{
    char words[P_N * 20] = "", near[64];
    for (int i = 0; i < P_N; i++) {
        if (strcmp(params[i].name, name) == 0) {
            const char *why = refusal(params[i].form, v);
            if (!why && i == P_GEMM_Q && v < 1) why = "must be at least 1";
            if (!why && i == P_LAW && (v < 0.01 || v > 100)) why = "must be from 0.01 to 100";
            if (!why && i == P_STAGE_BESIDE && (v < 0.1 || v > 1000))
                why = "must be from 0.1 to 1000";
            if (!why && i == P_STAGE_RETURN_S && v > 3600) why = "must be at most an hour";
            if (why) return err_set(e, ST_USAGE, "profile.%s: %g: it %s", name, v, why);
            p->p[i] = (struct param){ v, 0, COVER_GUESS, "set by the user" };
            return ST_OK;
        }
        size_t used = strlen(words);
        snprintf(words + used, sizeof words - used, "%s%s", used ? " " : "", params[i].name);
    }
    const char *hint = conf_nearest(name, words, near, sizeof near);
    return err_set(e, ST_USAGE, "profile.%s: no such constant%s%s%s", name,
                   hint ? "; did you mean '" : "", hint ? hint : "", hint ? "'?" : "");
}

/* The same normal draws as without a block, mixed: constants outside keep theirs. */
static void draw_block(const struct profile_block *b, struct rng stream, double log_dev[P_N])
{
    double z[PROFILE_BLOCK_MAX];
    for (int i = 0; i < b->n; i++) {
        z[i] = rng_normal(stream, (uint64_t)b->id[i]);
        double sum = 0;
        for (int j = 0; j <= i; j++) sum += b->chol[i][j] * z[j];
        log_dev[b->id[i]] = sum;
    }
}

void profile_draw(const struct profile *p, struct rng r, int draw, struct profile *out)
{
    assert(draw >= 0);
    *out = *p;
    if (draw == 0) return;
    struct rng stream = rng_child(r, (uint64_t)draw);
    double log_dev[P_N];
    for (int i = 0; i < P_N; i++)
        log_dev[i] = p->p[i].sd_log > 0 ? p->p[i].sd_log * rng_normal(stream, (uint64_t)i) : 0;
    for (int k = 0; k < p->n_block; k++) draw_block(p->block + k, stream, log_dev);
    for (int i = 0; i < P_N; i++) {
        const struct param *q = p->p + i;
        if (q->sd_log <= 0 || q->v <= 0) continue;
        double v = q->v * exp(log_dev[i]);
        /* A fit above 1 means that some tensors came from cache; it stays the cap then. */
        if (params[i].form == EFFICIENCY || params[i].form == RATIO) v = fmin(v, fmax(1, q->v));
        if (i == P_GEMM_Q) v = fmax(1, v);
        out->p[i].v = v;
    }
}
