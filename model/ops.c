/* model/ops.c - the operators of one step on one rank of one stage.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/ops.h"

#include <math.h>
#include <string.h>

#include "model/law.h"

enum { ACT_BYTES = 2, LOGIT_BYTES = 4, SAMPLER_PASSES = 4 };

/* Where experts are split over ranks, the slowest rank has more than the mean; assumed, 1.1-1.6 are
 * seen. */
static const double expert_imbalance = 1.2;

struct dims { /* of one rank */
    double t, h, heads, kv, d, f, weight, kv_elt, ep, expert_tp;
};

struct list {
    struct op *out;
    int n;
    int n_layer;
};

static struct dims dims_of(const struct ops_env *v)
{
    const struct arch *a = v->arch;
    const struct strategy *s = v->strategy;
    double t = (double)(s->tp > 0 ? s->tp : 1), ep = (double)(s->ep > 0 ? s->ep : 1);
    struct dims d = { .t = t,
                      .h = a->hidden,
                      .heads = a->n_head / t,
                      .kv = fmax(1, a->n_kv_head / t),
                      .d = a->head_dim,
                      .f = a->ffn / t,
                      .weight = dtype_bytes((enum dtype)s->weight_dtype),
                      .kv_elt = dtype_bytes((enum dtype)s->kv_dtype),
                      .ep = ep,
                      .expert_tp = ep < t ? t / ep : 1 };
    return d;
}

static struct op *add(struct list *l, const char *name, enum op_kind kind, enum step_class cls)
{
    struct op *o = l->out + l->n++;
    *o = (struct op){ .name = name, .kind = kind, .cls = cls, .by = OP_BY_TOK, .count = 1 };
    return o;
}

static struct op *add_layer(struct list *l, const char *name, enum op_kind kind,
                            enum step_class cls)
{
    struct op *o = add(l, name, kind, cls);
    o->per_layer = true;
    o->count = l->n_layer;
    return o;
}

static void gemm(struct op *o, double m, double n, double k, double weight)
{
    o->m = m;
    o->n = n;
    o->k = k;
    o->weight_elt = weight;
    o->flop = 2 * m * n * k;
    o->bytes = n * k * weight + m * k * ACT_BYTES + m * n * ACT_BYTES;
}

static void layer_gemm(struct list *l, const char *name, double m, double n, double k,
                       double weight)
{
    gemm(add_layer(l, name, OP_GEMM, STEP_GEMM), m, n, k, weight);
}

static void layer_elt(struct list *l, const char *name, double bytes)
{
    add_layer(l, name, OP_ELT, STEP_OTHER)->bytes = bytes;
}

static void layer_coll(struct list *l, const char *name, enum op_kind kind, double bytes)
{
    add_layer(l, name, kind, STEP_COLL)->bytes = bytes;
}

static void attention(const struct ops_env *v, const struct dims *d, const struct step_shape *s,
                      struct list *l)
{
    double window = v->arch->sliding_window, tok = (double)s->prefill_tok;
    if (s->n_decode > 0) {
        struct op *o = add_layer(l, "attn_decode", OP_DECODE, STEP_ATTN);
        o->by = OP_BY_CTX;
        o->m = (double)s->n_decode;
        o->n = d->heads;
        o->k = (double)s->sum_ctx;
        if (window > 0) o->k = fmin(o->k, window * o->m);
        o->flop = 4 * o->k * d->heads * d->d;
        o->bytes = 2 * o->k * d->kv * d->d * d->kv_elt + 4 * o->m * d->heads * d->d;
    }
    if (s->n_prefill > 0 && s->prefill_tok > 0) {
        struct op *o = add_layer(l, "attn_prefill", OP_PREFILL, STEP_ATTN);
        double past = (double)s->prefill_past;
        o->by = OP_BY_CTX;
        o->m = (double)s->n_prefill;
        o->n = d->heads;
        o->k = (double)s->prefill_pairs;
        o->tok = tok;
        if (window > 0) {
            o->k = fmin(o->k, window * tok);
            past = fmin(past, window * o->m);
        }
        o->flop = 4 * o->k * d->heads * d->d;
        o->bytes =
            2 * tok * d->heads * d->d * ACT_BYTES + 2 * (past + tok) * d->kv * d->d * d->kv_elt;
    }
}

double ops_active_experts(const struct arch *a, double ep, double tokens)
{
    double e = a->n_expert;
    return e / ep * -expm1(tokens * log1p(-fmin(a->top_k / e, 1 - 1e-12)));
}

static void experts(const struct ops_env *v, const struct dims *d, double tok, struct list *l)
{
    const struct arch *a = v->arch;
    double rho = d->ep > 1 ? expert_imbalance : 1;
    double mats = a->gated_mlp ? 3 : 2, inner = a->ffn / d->expert_tp;
    /* With ep > tp, ep/tp replicas with a batch like this one each send their tokens to the
     * experts. */
    double all = tok * fmax(1, d->ep / d->t);
    double pairs = rho * all * a->top_k / d->ep;
    double active = fmin(a->n_expert / d->ep, rho * ops_active_experts(a, d->ep, all));
    layer_gemm(l, "router", tok, a->n_expert, d->h, ACT_BYTES);
    struct op *o = add_layer(l, "experts", OP_MOE, STEP_GEMM);
    o->m = pairs;
    o->n = inner;
    o->k = d->h;
    o->weight_elt = d->weight;
    o->flop = 2 * mats * pairs * d->h * inner;
    o->bytes =
        mats * d->h * inner * d->weight * active + pairs * (2 * d->h + mats * inner) * ACT_BYTES;
    if (d->ep > d->t) {
        /* A token goes once to each distinct rank among its top_k choices. */
        double ranks = d->ep * -expm1(a->top_k * log1p(-1 / d->ep));
        struct op *c = add_layer(l, "moe_alltoall", OP_ALLTOALL, STEP_COLL);
        c->bytes = tok / d->t * ranks * d->h * ACT_BYTES;
        c->count *= 2;
    }
}

static void layer(const struct ops_env *v, const struct dims *d, const struct step_shape *s,
                  struct list *l)
{
    const struct arch *a = v->arch;
    double tok = (double)(s->n_decode + s->prefill_tok), act = tok * ACT_BYTES;
    double q = d->heads * d->d, kv = d->kv * d->d, mlp_out = a->n_expert ? 0 : d->f;
    layer_elt(l, "layernorm", 4 * act * d->h);
    l->out[l->n - 1].count *= a->n_norm_layer;
    layer_gemm(l, "qkv_proj", tok, q + 2 * kv, d->h, d->weight);
    if (a->qk_norm) {
        layer_elt(l, "qk_norm", act * (q + kv));
        l->out[l->n - 1].count *= 2;
    }
    layer_elt(l, "rotary_emb", 2 * act * (q + kv));
    layer_elt(l, "kv_write", tok * 2 * kv * (ACT_BYTES + d->kv_elt));
    attention(v, d, s, l);
    layer_gemm(l, "o_proj", tok, d->h, q, d->weight);
    if (d->t > 1 && !a->parallel_attn) layer_coll(l, "attn_allreduce", OP_ALLREDUCE, act * d->h);
    if (a->n_expert) {
        experts(v, d, tok, l);
    } else {
        layer_gemm(l, "gate_up_proj", tok, mlp_out * (a->gated_mlp ? 2 : 1), d->h, d->weight);
        layer_elt(l, "act_fn", (a->gated_mlp ? 3 : 2) * act * mlp_out);
        layer_gemm(l, "down_proj", tok, d->h, mlp_out, d->weight);
    }
    if (d->t > 1) layer_coll(l, "mlp_allreduce", OP_ALLREDUCE, act * d->h);
}

static void head(const struct ops_env *v, const struct dims *d, const struct step_shape *s,
                 struct list *l)
{
    double tok = (double)(s->n_decode + s->prefill_tok), seq = (double)s->n_logits;
    double vocab = v->arch->vocab;
    add(l, "final_layernorm", OP_ELT, STEP_OTHER)->bytes = 4 * tok * d->h * ACT_BYTES;
    struct op *o = add(l, "lm_head", OP_GEMM, STEP_GEMM);
    gemm(o, seq, ceil(vocab / d->t), d->h, fmax(ACT_BYTES, d->weight));
    o->full_precision = true;
    if (d->t > 1) {
        struct op *g = add(l, "logits_gather", OP_ALLGATHER, STEP_COLL);
        g->bytes = seq * vocab * ACT_BYTES;
        g->m = seq;
        g->by = OP_BY_SEQ;
    }
    struct op *p = add(l, "sampler", OP_ELT, STEP_OTHER);
    p->m = seq;
    p->bytes = SAMPLER_PASSES * seq * vocab * LOGIT_BYTES;
    o->by = p->by = OP_BY_SEQ;
}

int ops_list(const struct ops_env *v, const struct step_stage *g, const struct step_shape *s,
             struct op out[OPS_MAX])
{
    struct list l = { out, 0, g->n_layer };
    struct dims d = dims_of(v);
    double tok = (double)(s->n_decode + s->prefill_tok);
    if (g->has_embed) {
        add(&l, "embedding", OP_ELT, STEP_OTHER)->bytes = 2 * tok * d.h * ACT_BYTES;
        if (d.t > 1)
            add(&l, "embed_allreduce", OP_ALLREDUCE, STEP_COLL)->bytes = tok * d.h * ACT_BYTES;
    }
    if (g->n_layer > 0) layer(v, &d, s, &l);
    if (g->has_head) head(v, &d, s, &l);
    /* The token count of operators that are no GEMM: what a measured table is looked up by. */
    for (int i = 0; i < l.n; i++)
        if (out[i].kind != OP_GEMM && out[i].by == OP_BY_TOK && out[i].kind != OP_MOE)
            out[i].m = tok;
    return l.n;
}

static double gemm_s(const struct ops_env *v, const struct op *o)
{
    const struct profile *p = v->profile;
    const struct param *q = p->p;
    int dt = v->strategy->weight_dtype;
    /* The router and the head stay in 16 bit: the peak of attention, no quantization pass. */
    bool low = o->weight_elt < ACT_BYTES && !o->full_precision && dt != DT_INT4;
    struct law_gemm l = { q[P_GEMM_T0_S].v,
                          q[P_GEMM_EC].v,
                          q[P_GEMM_EM].v,
                          q[P_GEMM_Q].v,
                          low ? q[P_GEMM_EQ].v : 0,
                          o->weight_elt < ACT_BYTES ? p->peak_flop_per_s : p->attn_peak_flop_per_s,
                          p->mem_bytes_per_s };
    struct law_gemm_shape s = { o->m, o->n, o->k, o->weight_elt, ACT_BYTES, ACT_BYTES };
    return law_gemm_s(&l, &s);
}

static double moe_s(const struct profile *p, const struct op *o)
{
    /* Two grouped GEMMs, hardly overlapped: the fits give q of 1.0 to 1.1. */
    double compute = o->flop / (p->p[P_MOE_EC].v * p->peak_flop_per_s);
    double memory = o->bytes / (p->p[P_MOE_EM].v * p->mem_bytes_per_s);
    return p->p[P_MOE_T0_S].v + law_smoothmax(compute, memory, 1.1);
}

static double attn_s(const struct ops_env *v, const struct op *o)
{
    const struct profile *p = v->profile;
    struct dims d = dims_of(v);
    if (o->kind == OP_DECODE) {
        struct law_attn_decode l = { p->p[P_DEC_T0_S].v, p->p[P_DEC_EM].v, p->p[P_DEC_S_PER_BH].v,
                                     p->mem_bytes_per_s, p->p[P_DEC_FLOOR_S].v };
        return law_attn_decode_s(&l, o->m, o->k, o->n, d.kv, d.d, d.kv_elt);
    }
    struct law_attn_prefill l = { p->p[P_PRE_T0_S].v, p->p[P_PRE_EC].v, p->p[P_PRE_EM].v,
                                  p->attn_peak_flop_per_s, p->mem_bytes_per_s };
    double pairs = o->k + p->p[P_PRE_X_TOK].v * o->tok;
    return law_attn_prefill_s(&l, pairs, o->bytes, o->n, d.d);
}

static double coll_s(const struct ops_env *v, const struct step_stage *g, const struct op *o)
{
    const struct strategy *s = v->strategy;
    int n = (int)(o->kind == OP_ALLTOALL ? s->ep : s->tp);
    struct coll_group grp = coll_group_of(v->hw, n, g->tp_inter);
    switch (o->kind) {
    case OP_ALLGATHER: return coll_allgather_s(v->profile, &grp, o->bytes);
    case OP_ALLTOALL: return coll_alltoall_s(v->profile, &grp, o->bytes);
    default:
        return coll_allreduce_s(v->profile, &grp, o->bytes) +
               (o->bytes > 0 ? v->profile->p[P_RANK_SKEW_S].v : 0);
    }
}

static double law_s(const struct ops_env *v, const struct step_stage *g, const struct op *o)
{
    const struct profile *p = v->profile;
    switch (o->kind) {
    case OP_GEMM: return gemm_s(v, o);
    case OP_MOE: return moe_s(p, o);
    case OP_ELT: return p->p[P_ELT_T0_S].v + o->bytes / (p->p[P_ELT_EM].v * p->mem_bytes_per_s);
    case OP_DECODE:
    case OP_PREFILL: return attn_s(v, o);
    default: return coll_s(v, g, o);
    }
}

double ops_time_s(const struct ops_env *v, const struct step_stage *g, const struct op *o,
                  bool *measured, bool *extrapolated)
{
    const struct profile *p = v->profile;
    if (v->table && o->by != OP_BY_CTX) {
        bool out = false, sum = o->kind == OP_ALLREDUCE;
        double s = o->by == OP_BY_SEQ ? table_seq_s(v->table, o->name, o->m, &out)
                                      : table_dense_s(v->table, o->name, o->m, &out);
        if (s >= 0) {
            if (measured) *measured = true;
            if (extrapolated && out) *extrapolated = true;
            /* Whole steps were compared with tables and laws alike where both are of one machine. */
            return p->measured ? p->p[P_LAW].v * s + (sum ? p->p[P_RANK_SKEW_S].v : 0) : s;
        }
        /* Measured attention is the whole module, cache write included. */
        if (table_has_attn(v->table) && strcmp(o->name, "kv_write") == 0) return 0;
    }
    return p->p[P_LAW].v * law_s(v, g, o);
}

int ops_check_table(const struct ops_env *v, struct err *e)
{
    if (!v->table) return ST_OK;
    const char *const *names;
    int n = table_dense_names(v->table, &names);
    struct op list[OPS_MAX];
    struct step_stage all = { .n_layer = 1, .has_embed = true, .has_head = true };
    struct step_shape one = { .n_decode = 1, .sum_ctx = 1, .n_logits = 1 };
    int n_op = ops_list(v, &all, &one, list);
    for (int i = 0; i < n; i++) {
        bool known = false;
        for (int j = 0; j < n_op; j++) known |= strcmp(names[i], list[j].name) == 0;
        if (!known)
            return err_set(e, ST_USAGE, "kernel table: '%s' is no operator of %s", names[i],
                           v->arch->name);
    }
    return ST_OK;
}
