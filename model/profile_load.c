/* model/profile_load.c - chooses a profile's constants from scenarios/hardware/profiles.yaml.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/doc.h"
#include "base/paths.h"
#include "base/units.h"
#include "model/coll.h"
#include "model/profile.h"
#include "model/profile_file.h"

static const double class_sd = 0.15;

struct load {
    const struct hw *hw;
    const struct strategy *strategy;
    const char *engine;
    struct arena *a;
    struct err *e;
    struct doc *root;
    const struct doc *gpu; /* its line under gpus, or NULL */
    const char *set;
    bool measured; /* the set was measured on this very GPU */
    struct profile *out;
    bool foreign_engine; /* a row of another engine had to do */
    int st;
};

static const char *text_of(const struct doc *d, const char *key)
{
    const struct doc *c = doc_get(d, key);
    return c && c->kind == DOC_SCALAR ? c->text : NULL;
}

static bool is(const struct doc *d, const char *key, const char *want)
{
    const char *t = text_of(d, key);
    return t && strcmp(t, want) == 0;
}

/* A quantity; `dflt` where the key is missing. */
static double get(struct load *l, const struct doc *d, const char *key, enum unit u, double dflt)
{
    const struct doc *c = doc_get(d, key);
    double v = dflt;
    if (!c || l->st != ST_OK) return v;
    l->st = units_parse(u, c->kind == DOC_SCALAR ? c->text : "", &v, l->e);
    char place[512];
    if (l->st != ST_OK) err_prefix(l->e, "%s: %s", doc_place(c, place, sizeof place), key);
    return v;
}

static void missing(struct load *l, const char *what)
{
    if (l->st == ST_OK)
        l->st = err_set(l->e, ST_USAGE, "%s: no %s for set '%s'", l->root->file, what, l->set);
}

static void put(struct load *l, enum profile_id id, double v, double sd, enum cover cover,
                const char *source)
{
    l->out->p[id] = (struct param){ v, v > 0 ? sd : 0, cover, source };
}

static int kind_matches(const struct doc *d, const char *set, const char *key, const char *value)
{
    return is(d, "set", set) && is(d, key, value);
}

/* The row of a list with this set and key = value, of the engine asked for, else of vLLM, else of
 * any. */
static const struct doc *row_of(struct load *l, const char *list, const char *set, const char *key,
                                const char *value)
{
    const struct doc *best = NULL;
    int best_rank = 0;
    const struct doc *all = doc_get(l->root, list);
    for (const struct doc *d = all ? all->first : NULL; d; d = d->next) {
        if (!kind_matches(d, set, key, value)) continue;
        int rank = is(d, "engine", l->engine) ? 3 : is(d, "engine", "vllm") ? 2 : 1;
        if (rank > best_rank) {
            best = d;
            best_rank = rank;
        }
    }
    return best;
}

struct basis {
    enum cover cover;
    double sd;
    const char *source;
};

/* How far the constants of a row can be trusted here: sd is the spread of its efficiencies. */
static struct basis basis_of(struct load *l, const struct doc *row, bool same_format)
{
    double mape = get(l, row, "mape", UNIT_RATIO, 15);
    const char *engine = text_of(row, "engine"), *version = text_of(row, "version");
    bool foreign = engine && strcmp(l->engine, "any") != 0 && strcmp(l->engine, engine) != 0;
    bool own = l->measured && same_format && !foreign;
    l->foreign_engine |= foreign;
    struct basis b = { own ? COVER_FIT : COVER_CLASS, fmax(mape / 100, own ? 0 : class_sd), NULL };
    const char *held = text_of(row, "held_out"), *points = text_of(row, "points");
    b.source = arena_printf(l->a, "%s%s%s%s%s fit, %s points, MAPE %.3g %%%s%s%s", l->set,
                            engine ? " " : "", engine ? engine : "", version ? " " : "",
                            version ? version : "", points ? points : "unknown", mape,
                            held ? ", held out " : "", held ? held : "", held ? " %" : "");
    return b;
}

static void find_set(struct load *l)
{
    const struct doc *all = doc_get(l->root, "gpus"), *near = doc_get(l->root, "nearest");
    const char *name = l->hw->gpu.name ? l->hw->gpu.name : "";
    for (const struct doc *d = all ? all->first : NULL; d && !l->gpu; d = d->next)
        if (is(d, "gpu", name)) l->gpu = d;
    l->out->note = "";
    if (l->gpu) {
        l->set = text_of(l->gpu, "set");
        l->measured = is(l->gpu, "measured", "true");
        if (!l->measured && l->set)
            l->out->note = arena_printf(
                l->a, "constants of %s taken over for %s, scaled by datasheet peaks", l->set, name);
    } else {
        const char *arch = l->hw->gpu.arch ? l->hw->gpu.arch : "";
        l->set = text_of(near, arch);
        if (!l->set) l->set = text_of(near, "any");
        const char *what = hw_on_processors(l->hw) ? "no processors are"
                                                   : arena_printf(l->a, "GPU '%s' is not", name);
        l->out->note = arena_printf(l->a,
                                    "%s in the profiles: constants of %s, nearest to architecture "
                                    "'%s', scaled by datasheet peaks",
                                    what, l->set ? l->set : "?", arch);
    }
    if (!l->set) l->st = err_set(l->e, ST_USAGE, "%s: no set for %s", l->root->file, name);
}

static double peak_of(const struct hw_gpu *g, enum dtype d)
{
    return (unsigned)d < DT_N ? g->flop_per_s[d] : 0;
}

static double peak16_of(const struct hw_gpu *g)
{
    double p = peak_of(g, DT_BF16);
    if (p <= 0) p = peak_of(g, DT_F16);
    return p > 0 ? p : peak_of(g, DT_F32);
}

double profile_peak(const struct hw_gpu *g, enum profile_law law, enum dtype d)
{
    double own = law == LAW_GEMM && dtype_bytes(d) < 2 && d != DT_INT4 ? peak_of(g, d) : 0;
    return own > 0 ? own : peak16_of(g);
}

static void load_gemm(struct load *l)
{
    enum dtype dt = (enum dtype)l->strategy->weight_dtype;
    struct profile *o = l->out;
    double peak = dt == DT_INT4 ? 0 : peak_of(&l->hw->gpu, dt);
    bool low = dt == DT_FP8 || dt == DT_INT8 || dt == DT_INT4 || dt == DT_NVFP4;
    bool same = dt == DT_BF16 || dt == DT_F16;
    const struct doc *base = row_of(l, "gemm", l->set, "dtype", "bf16"), *row = NULL;
    if (!base) {
        missing(l, "bf16 gemm row");
        return;
    }
    o->attn_peak_flop_per_s = peak16_of(&l->hw->gpu);
    o->peak_flop_per_s = peak > 0 ? peak : o->attn_peak_flop_per_s;
    if (low) {
        row = row_of(l, "gemm", l->set, "dtype", dtype_name(dt));
        same = row != NULL;
        /* int8 with int8 inputs has the cost structure of fp8. */
        if (!row && dt == DT_INT8 && peak > 0) row = row_of(l, "gemm", l->set, "dtype", "fp8");
        /* The format's row counts on its own peak; without it compute stays that of bf16. */
        if (peak <= 0 && dt != DT_INT4) row = NULL;
        if (!row) same = false;
    }
    if (!row) row = base;
    struct basis b = basis_of(l, row, same), b0 = basis_of(l, base, true);
    bool online = row != base && dt != DT_INT4;
    const char *ec_key = online && doc_get(l->gpu, "e_c_fp8") ? "e_c_fp8" : "e_c";
    bool replace_ec = l->gpu && (!online || dt == DT_FP8 || dt == DT_INT8);
    double e_c = get(l, row, "e_c", UNIT_RATIO, 0), e_m = get(l, row, "e_m", UNIT_RATIO, 0);
    if (replace_ec) e_c = get(l, l->gpu, ec_key, UNIT_RATIO, e_c);
    e_m = get(l, l->gpu, "e_m", UNIT_RATIO, e_m);
    put(l, P_GEMM_T0_S, get(l, base, "t0", UNIT_TIME, 0), 0.2, b0.cover, b0.source);
    put(l, P_GEMM_EC, e_c, b.sd, b.cover, b.source);
    put(l, P_GEMM_EM, e_m, b.sd, b.cover, b.source);
    put(l, P_GEMM_Q, get(l, row, "q", UNIT_RATIO, 1), 0, b.cover, b.source);
    put(l, P_GEMM_EQ, online ? get(l, row, "e_q", UNIT_RATIO, 0) : 0, 0.2, b.cover, b.source);
}

static void load_attention(struct load *l)
{
    bool fp8 = l->strategy->kv_dtype == DT_FP8 || l->strategy->kv_dtype == DT_INT8;
    const char *kv = fp8 ? "fp8" : "bf16";
    const struct doc *d = row_of(l, "decode", l->set, "kv", kv);
    const struct doc *p = row_of(l, "prefill", l->set, "kv", kv);
    bool same_d = d != NULL, same_p = p != NULL;
    if (!d) d = row_of(l, "decode", l->set, "kv", "bf16");
    if (!p) p = row_of(l, "prefill", l->set, "kv", "bf16");
    if (!d || !p) {
        missing(l, "attention row");
        return;
    }
    struct basis b = basis_of(l, d, same_d);
    put(l, P_DEC_T0_S, get(l, d, "t0", UNIT_TIME, 0), 0.2, b.cover, b.source);
    put(l, P_DEC_EM, get(l, l->gpu, "decode_e_m", UNIT_RATIO, get(l, d, "e_m", UNIT_RATIO, 0)),
        b.sd, b.cover, b.source);
    put(l, P_DEC_S_PER_BH, get(l, d, "per_bh", UNIT_TIME, 0), 0.2, b.cover, b.source);
    put(l, P_DEC_FLOOR_S, get(l, d, "floor", UNIT_TIME, 0), 0.2, b.cover, b.source);
    b = basis_of(l, p, same_p);
    put(l, P_PRE_T0_S, get(l, p, "t0", UNIT_TIME, 0), 0.2, b.cover, b.source);
    put(l, P_PRE_EC, get(l, p, "e_c", UNIT_RATIO, 0), b.sd, b.cover, b.source);
    put(l, P_PRE_EM, get(l, p, "e_m", UNIT_RATIO, 0), b.sd, b.cover, b.source);
    put(l, P_PRE_X_TOK, get(l, p, "extra", UNIT_TOKENS, 0), 0.2, b.cover, b.source);
}

static void load_rest(struct load *l)
{
    const struct doc *d = doc_get(l->root, "elementwise"), *k = doc_get(l->root, "skew");
    const char *source = text_of(d, "source");
    put(l, P_ELT_T0_S, get(l, d, "t0", UNIT_TIME, 0), get(l, d, "sd_t0", UNIT_RATIO, 0),
        COVER_CLASS, source);
    put(l, P_ELT_EM, get(l, d, "e_m", UNIT_RATIO, 0), get(l, d, "sd_e_m", UNIT_RATIO, 0),
        COVER_CLASS, source);
    const struct doc *w = doc_get(l->root, "law");
    put(l, P_LAW, 1, get(l, w, l->measured ? "sd" : "sd_scaled", UNIT_RATIO, class_sd),
        l->measured ? COVER_FIT : COVER_CLASS, text_of(w, "source"));
    put(l, P_SKEW_ALPHA, get(l, k, "alpha", UNIT_RATIO, 0), get(l, k, "sd", UNIT_RATIO, 0),
        COVER_CLASS, text_of(k, "source"));
    bool fp8 = l->strategy->weight_dtype == DT_FP8 || l->strategy->weight_dtype == DT_INT8;
    const struct doc *m = fp8 ? row_of(l, "moe", l->set, "dtype", "fp8") : NULL;
    bool same = m != NULL || l->strategy->weight_dtype == DT_BF16;
    if (!m) m = row_of(l, "moe", l->set, "dtype", "bf16");
    bool own = m != NULL;
    if (!m) m = row_of(l, "moe", "h100", "dtype", fp8 ? "fp8" : "bf16");
    if (!m) {
        missing(l, "moe row");
        return;
    }
    struct basis b = basis_of(l, m, same && own);
    put(l, P_MOE_T0_S, get(l, m, "t0", UNIT_TIME, 0), 0.2, b.cover, b.source);
    put(l, P_MOE_EC, get(l, m, "e_c", UNIT_RATIO, 0), b.sd, b.cover, b.source);
    put(l, P_MOE_EM, get(l, m, "e_m", UNIT_RATIO, 0), b.sd, b.cover, b.source);
}

enum { MAX_SIZES = 16 };
struct laws {
    struct coll_law law[MAX_SIZES];
    int n[MAX_SIZES], n_law;
    double limit[MAX_SIZES], mape;
};

static void collect(struct load *l, const char *by, const char *op, struct laws *w)
{
    *w = (struct laws){ .n_law = 0 };
    const struct doc *all = doc_get(l->root, "collective");
    for (const struct doc *d = all ? all->first : NULL; d && w->n_law < MAX_SIZES; d = d->next) {
        if (!is(d, "set", l->set) || !is(d, "by", by) || !is(d, "op", op)) continue;
        int i = w->n_law++;
        w->law[i] =
            (struct coll_law){ get(l, d, "a", UNIT_TIME, 0), get(l, d, "b", UNIT_BYTES_PER_S, 0),
                               get(l, d, "c", UNIT_TIME, 0), get(l, d, "s0", UNIT_BYTES, 0) };
        w->n[i] = (int)get(l, d, "n", UNIT_COUNT, 0);
        w->limit[i] = get(l, d, "limit", UNIT_BYTES, 0);
        w->mape = fmax(w->mape, get(l, d, "mape", UNIT_RATIO, 0));
        bool sound =
            w->n[i] >= 2 && w->law[i].b_bytes_per_s > 0 && (i == 0 || w->n[i] > w->n[i - 1]);
        if (!sound && l->st == ST_OK)
            l->st =
                err_set(l->e, ST_USAGE, "%s:%d: collective: n must grow from 2 and b be positive",
                        d->file, d->line);
    }
}

static void put_law(struct load *l, enum profile_id first, const struct coll_law *c, double sd,
                    enum cover cover, const char *source)
{
    put(l, first, c->a_s, sd, cover, source);
    put(l, first + 1, c->b_bytes_per_s, sd, cover, source);
    put(l, first + 2, c->c_s, sd, cover, source);
    put(l, first + 3, c->s0_bytes, 0, cover, source);
}

static bool has_size(const struct laws *w, int n)
{
    for (int i = 0; i < w->n_law; i++)
        if (w->n[i] == n) return true;
    return false;
}

static const struct doc *set_line(const struct load *l)
{
    const struct doc *all = doc_get(l->root, "sets");
    for (const struct doc *d = all ? all->first : NULL; d; d = d->next)
        if (is(d, "set", l->set)) return d;
    return NULL;
}

/* Fits hold for the kind of fabric they were measured on. */
static bool fits_apply(const struct load *l)
{
    enum hw_fabric f = l->hw->sys.fabric;
    return (f == HW_SWITCHED && is(set_line(l), "fabric", "switched")) ||
           (f == HW_PCIE && is(set_line(l), "fabric", "pcie"));
}

/* A law of this set at n ranks; bandwidth scaled by the link when the GPU is another one. */
static void put_fitted(struct load *l, enum profile_id first, const struct laws *w, int n,
                       const char *by)
{
    struct coll_law c = coll_law_at(w->law, w->n, w->n_law, n);
    bool exact = l->measured && has_size(w, n);
    double link = l->hw->gpu.link_bytes_per_s,
           ref = get(l, set_line(l), "link", UNIT_BYTES_PER_S, 0);
    if (!l->measured && link > 0 && ref > 0) c.b_bytes_per_s *= link / ref;
    double sd = fmax(w->mape / 100, exact ? 0 : class_sd);
    const char *source = arena_printf(l->a, "%s %s fit, %d ranks%s, MAPE %.3g %%", l->set, by, n,
                                      has_size(w, n) ? "" : " (interpolated)", w->mape);
    put_law(l, first, &c, sd, exact ? COVER_FIT : COVER_CLASS, source);
}

static void put_system(struct load *l, enum profile_id first, int n, bool gather)
{
    const struct doc *d = doc_get(l->root, "links");
    struct coll_law c = coll_from_system(l->hw, n);
    if (gather) { /* half the hops and half the wire bytes of an all-reduce */
        c.a_s /= 2;
        c.b_bytes_per_s *= 2;
    }
    put_law(l, first, &c, get(l, d, "sd_b", UNIT_RATIO, class_sd), COVER_CLASS,
            "from the system's link figures");
}

static void load_collectives(struct load *l)
{
    struct laws lib, own, gather;
    int n = (int)l->strategy->tp, per = l->hw->sys.n_gpu > 0 ? l->hw->sys.n_gpu : 1;
    struct coll_group g = coll_group_of(l->hw, n, n > per);
    int ranks = g.per_node > 1 ? g.per_node : 2;
    collect(l, "nccl", "all_reduce", &lib);
    collect(l, "nccl", "all_gather", &gather);
    const char *engine = strcmp(l->engine, "any") == 0 ? "vllm" : l->engine;
    collect(l, engine, "all_reduce", &own);
    if (fits_apply(l) && lib.n_law && gather.n_law) {
        put_fitted(l, P_AR_A_S, &lib, ranks, "NCCL");
        put_fitted(l, P_AG_A_S, &gather, ranks, "NCCL");
    } else {
        put_system(l, P_AR_A_S, ranks, false);
        put_system(l, P_AG_A_S, ranks, true);
    }
    l->out->ar_limit_bytes = 0;
    if (fits_apply(l) && own.n_law && ranks <= own.n[own.n_law - 1]) {
        put_fitted(l, P_CAR_A_S, &own, ranks, engine);
        int i = 0;
        while (own.n[i] < ranks) i++;
        l->out->ar_limit_bytes = own.limit[i];
    } else {
        for (int i = 0; i < 4; i++) l->out->p[P_CAR_A_S + i] = l->out->p[P_AR_A_S + i];
    }
}

static void load_links(struct load *l)
{
    const struct hw_system *s = &l->hw->sys;
    const struct doc *d = doc_get(l->root, "links"), *k = doc_get(l->root, "rank_skew");
    double sd_a = get(l, d, "sd_a", UNIT_RATIO, 0.4), sd_b = get(l, d, "sd_b", UNIT_RATIO, 0.2);
    double peer = s->peer_bytes_per_s > 0 ? s->peer_bytes_per_s : l->hw->gpu.pcie_bytes_per_s;
    /* Bridges join pairs: only two stages of one GPU each are neighbours on one. */
    if (s->fabric == HW_PAIRS && !(l->strategy->tp == 1 && l->strategy->pp == 2))
        peer = l->hw->gpu.pcie_bytes_per_s / 2;
    double net = s->inter_bytes_per_s > 0 ? s->inter_bytes_per_s : s->nic_bytes_per_s;
    const char *source = "from the system's link figures";
    put(l, P_P2P_A_S, s->peer_alpha_s > 0 ? s->peer_alpha_s : 10e-6, sd_a, COVER_CLASS, source);
    put(l, P_P2P_B, peer > 0 ? peer : 10e9, sd_b, COVER_CLASS, source);
    put(l, P_NET_A_S, s->inter_alpha_s > 0 ? s->inter_alpha_s : 50e-6, sd_a, COVER_CLASS, source);
    put(l, P_NET_B, net > 0 ? net : 1e9, sd_b, COVER_CLASS, source);
    double tp = (double)l->strategy->tp;
    put(l, P_RANK_SKEW_S, tp > 1 ? get(l, k, "time", UNIT_TIME, 0) * log2(tp) / 3 : 0,
        get(l, k, "sd", UNIT_RATIO, 0.7), COVER_GUESS, text_of(k, "source"));
}

static void load_host(struct load *l)
{
    const struct doc *all = doc_get(l->root, "host"), *d = NULL, *any = NULL;
    for (const struct doc *x = all ? all->first : NULL; x; x = x->next) {
        if (is(x, "engine", l->engine)) d = x;
        if (is(x, "engine", "any")) any = x;
    }
    if (!d) d = any;
    if (!d) {
        missing(l, "host row");
        return;
    }
    static const struct {
        enum profile_id id;
        const char *key, *sd;
    } rows[] = {
        { P_HOST_STEP_S, "step", "sd_step" },    { P_HOST_SEQ_S, "seq", "sd_seq" },
        { P_HOST_TOK_S, "tok", "sd_tok" },       { P_HOST_REQ_S, "request", "sd_request" },
        { P_HOST_OUT_S, "output", "sd_output" }, { P_HOST_GAP_S, "gap", "sd_gap" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        put(l, rows[i].id, get(l, d, rows[i].key, UNIT_TIME, 0),
            get(l, d, rows[i].sd, UNIT_RATIO, 0), COVER_CLASS, text_of(d, "source"));
    l->out->host_overlap = is(d, "overlap", "true");
    static const enum profile_id none[] = { P_STAGE_RETURN_S, P_STAGE_BESIDE, P_STAGE_TOK };
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        put(l, none[i], 0, 0, COVER_GUESS, "stages have memories of their own");
}

static void check(struct load *l)
{
    static const enum profile_id positive[] = { P_GEMM_EC, P_GEMM_EM, P_DEC_EM, P_PRE_EC, P_PRE_EM,
                                                P_ELT_EM,  P_MOE_EC,  P_MOE_EM, P_AR_B,   P_AG_B };
    for (size_t i = 0; i < sizeof positive / sizeof *positive && l->st == ST_OK; i++)
        if (!(l->out->p[positive[i]].v > 0))
            l->st = err_set(l->e, ST_USAGE, "%s: %s of set '%s' is missing or not positive",
                            l->root->file, profile_param_name(positive[i]), l->set);
    if (l->st == ST_OK && l->out->p[P_GEMM_Q].v < 1)
        l->st = err_set(l->e, ST_USAGE, "%s: gemm.q of set '%s' is below 1", l->root->file, l->set);
    if (l->st == ST_OK && (!(l->out->peak_flop_per_s > 0) || !(l->out->mem_bytes_per_s > 0)))
        l->st = err_set(l->e, ST_USAGE, "GPU '%s' has no tensor peak or no memory rate",
                        l->hw->gpu.name ? l->hw->gpu.name : "?");
}

int profile_load(const struct hw *h, const struct strategy *s, const char *engine,
                 const char *kernels, struct arena *a, struct profile *out, struct err *e)
{
    char path[1024];
    struct load l = {
        .hw = h, .strategy = s, .engine = engine ? engine : "any", .a = a, .e = e, .out = out
    };
    if (h->measured) l.engine = h->measured->engine;
    if (strcmp(l.engine, "vllm") != 0 && strcmp(l.engine, "trtllm") != 0 &&
        strcmp(l.engine, "any") != 0) {
        if (!h->measured)
            return err_set(e, ST_USAGE,
                           "engine '%s' is none of vllm, trtllm, any, whose constants are in the "
                           "catalog; another's come from a measured profile",
                           l.engine);
        l.engine = "any"; /* for what was not measured */
    }
    *out = (struct profile){ .kernels = kernels, .tp = (int)s->tp, .note = "" };
    if ((l.st = paths_find("scenarios/hardware/profiles.yaml", path, sizeof path, e)) != ST_OK)
        return l.st;
    if ((l.st = doc_read_yaml(a, path, &l.root, e)) != ST_OK) return l.st;
    out->mem_bytes_per_s = h->gpu.mem_bytes_per_s;
    static void (*const parts[])(
        struct load *) = { find_set,         load_gemm,  load_attention, load_rest,
                           load_collectives, load_links, load_host,      check };
    for (size_t i = 0; i < sizeof parts / sizeof *parts && l.st == ST_OK; i++) parts[i](&l);
    if (l.st != ST_OK) return l.st;
    out->name = arena_printf(a, "%s/%s/%s", h->gpu.name ? h->gpu.name : "?", l.engine,
                             dtype_name((enum dtype)s->weight_dtype));
    if (l.foreign_engine)
        out->note = arena_printf(a, "%s%ssome constants are those of another engine than %s",
                                 out->note, *out->note ? "; " : "", l.engine);
    out->catalog_own = l.measured && !l.foreign_engine;
    if (h->measured) profile_file_lay(h->measured, &h->gpu, s, a, out);
    return ST_OK;
}
