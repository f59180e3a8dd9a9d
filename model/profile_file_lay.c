/* model/profile_file_lay.c - lays measured constants over those of the catalog.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "model/coll.h"
#include "model/profile_file_in.h"

/* As for catalog constants that are carried over to something that was not measured. */
static const double CLASS_SD = 0.15;

struct lay {
    const struct profile_file *p;
    const struct hw_gpu
        *gpu; /* that the constants are for: its peaks are what efficiencies multiply */
    const struct strategy *s;
    struct arena *a;
    struct profile *out;
    struct profile_block *block;
    struct profile_range *range;
    bool have[LAW_N]; /* measured */
    bool near[LAW_N]; /* not, but the like: collectives of fewer ranks and of more */
    const char
        *from[LAW_N]; /* what stands in for a law without points, in words; NULL: the catalog */
    bool by_catalog;  /* for one that is needed */
};

static const struct fit *find(const struct lay *l, enum profile_law law, int dtype, int ranks)
{
    for (int i = 0; i < l->p->n_fit; i++) {
        const struct fit *f = l->p->fit + i;
        if (f->law == law && (dtype < 0 || f->dtype == dtype) && (ranks < 0 || f->ranks == ranks))
            return f;
    }
    return NULL;
}

static const char *source_of(const struct lay *l, const struct fit *f, bool known)
{
    const char *held =
        isnan(f->held.mape) ? "" : arena_printf(l->a, ", held out %.3g %%", 100 * f->held.mape);
    return arena_printf(l->a, "measured on %s %s, %lld points%s%s", l->p->machine, l->p->date,
                        (long long)f->n_point, held, known ? "" : ", left open by them");
}

/* What was measured are rates: where the device's ceilings are other figures than those that the
 * profile's efficiencies refer to (a datasheet's, say), the share of them is another too. */
static double share_of(const struct lay *l, enum profile_id id)
{
    const struct hw_gpu *own = &l->p->hw.gpu, *to = l->gpu;
    enum dtype w = (enum dtype)l->s->weight_dtype, kv = (enum dtype)l->s->kv_dtype;
    double ratio = 1;
    switch (id) {
    case P_GEMM_EC: ratio = profile_peak(own, LAW_GEMM, w) / profile_peak(to, LAW_GEMM, w); break;
    case P_PRE_EC:
        ratio = profile_peak(own, LAW_PREFILL, kv) / profile_peak(to, LAW_PREFILL, kv);
        break;
    case P_GEMM_EM:
    case P_GEMM_EQ:
    case P_DEC_EM:
    case P_PRE_EM:
    case P_ELT_EM: ratio = own->mem_bytes_per_s / to->mem_bytes_per_s; break;
    default: break;
    }
    return isfinite(ratio) && ratio > 0 ? ratio : 1;
}

static void put_range(struct lay *l, const struct fit *f)
{
    for (int j = 0; j < f->n_range; j++)
        l->range[l->out->n_range++] =
            (struct profile_range){ f->law, f->range[j].size, f->range[j].lo, f->range[j].hi };
}

/* All constants of a fit, their covariance and their ranges. extra_var: added to the variance of
 * the last one named in `of`, P_N for none. */
static void put_fit(struct lay *l, const struct fit *f, enum profile_id of, double extra_var)
{
    struct profile_block *b = l->block + l->out->n_block;
    double cov[FIT_MAX_PAR][FIT_MAX_PAR];
    memcpy(cov, f->cov, sizeof cov);
    b->law = f->law;
    b->n = f->n_par;
    for (int j = 0; j < f->n_par; j++) {
        if (f->id[j] == of) cov[j][j] += extra_var;
        b->id[j] = f->id[j];
        l->out->p[f->id[j]] =
            (struct param){ f->v[j] * share_of(l, f->id[j]), sqrt(fmax(0, cov[j][j])), COVER_FIT,
                            source_of(l, f, f->known[j]) };
    }
    if (profile_cholesky(f->n_par, &cov[0][0], &b->chol[0][0])) l->out->n_block++;
    put_range(l, f);
    l->have[f->law] = true;
}

static void put_one(struct lay *l, enum profile_id id, double v, const char *source)
{
    l->out->p[id] = (struct param){ v, 0, COVER_FIT, source };
}

/* Constants that belong to a law, but not to its fitted form, are absent there. */
static void clear(struct lay *l, const struct fit *f, enum profile_id first, enum profile_id last)
{
    for (int id = (int)first; id <= (int)last; id++)
        put_one(l, (enum profile_id)id, 0, source_of(l, f, true));
}

/* The fit of this law whose number format is nearest by its size. */
static const struct fit *nearest(const struct lay *l, enum profile_law law, int dtype)
{
    const struct fit *best = NULL;
    double least = INFINITY, bytes = dtype_bytes((enum dtype)dtype);
    for (int i = 0; i < l->p->n_fit; i++) {
        const struct fit *f = l->p->fit + i;
        double far = fabs(log(dtype_bytes((enum dtype)f->dtype) / bytes));
        if (f->law != law || !(far < least)) continue;
        least = far;
        best = f;
    }
    return best;
}

/* Another number format than the points': this machine's efficiencies in theirs are nearer than
 * those of another machine, but no better known than what points leave open. */
static void put_like(struct lay *l, const struct fit *f, int dtype)
{
    const char *source = arena_printf(l->a, "as %s, which was measured on %s %s",
                                      dtype_name((enum dtype)f->dtype), l->p->machine, l->p->date);
    bool same = dtype_bytes((enum dtype)dtype) == dtype_bytes((enum dtype)f->dtype);
    for (int j = 0; j < f->n_par; j++) {
        bool form = f->id[j] == P_GEMM_Q || f->id[j] == P_SKEW_ALPHA; /* no time or rate */
        double wide = form ? 0 : same ? CLASS_SD : FIT_OPEN_SD;
        double sd = f->v[j] > 0 ? hypot(sqrt(fmax(0, f->cov[j][j])), wide) : 0;
        l->out->p[f->id[j]] =
            (struct param){ f->v[j] * share_of(l, f->id[j]), sd, COVER_CLASS, source };
    }
    put_range(l, f);
    l->from[f->law] = arena_printf(l->a, "as %s", dtype_name((enum dtype)f->dtype));
}

/* A law of one number format; `main` is the constant that tells how good the catalog's are,
 * `not_in` one that has no place in a fitted form (P_N: none). */
static void lay_format(struct lay *l, enum profile_law law, int dtype, enum profile_id main,
                       enum profile_id not_in)
{
    const struct fit *f = find(l, law, dtype, -1), *like = nearest(l, law, dtype);
    bool own = l->out->catalog_own && l->out->p[main].cover <= COVER_FIT;
    if (!f && (!like || own)) return;
    if (not_in < P_N) clear(l, f ? f : like, not_in, not_in);
    if (f)
        put_fit(l, f, P_N, 0);
    else
        put_like(l, like, dtype);
}

static void lay_kernels(struct lay *l)
{
    const struct fit *x = find(l, LAW_ELT, -1, -1);
    lay_format(l, LAW_GEMM, l->s->weight_dtype, P_GEMM_EM, P_GEMM_EQ);
    lay_format(l, LAW_DECODE, l->s->kv_dtype, P_DEC_EM, P_DEC_FLOOR_S);
    lay_format(l, LAW_PREFILL, l->s->kv_dtype, P_PRE_EM, P_N);
    if (x) put_fit(l, x, P_N, 0);
}

/* ---- collectives */

static struct coll_law coll_of(const struct fit *f, enum profile_id first)
{
    double c = fit_value(f, first + 2), s0 = fit_value(f, first + 3);
    return (struct coll_law){ fit_value(f, first), fit_value(f, first + 1), isnan(c) ? 0 : c,
                              isnan(s0) ? 1 : s0 };
}

/* Between measured numbers of ranks, or beyond them: the laws of the others, at best a class
 * default. */
static bool interpolate(struct lay *l, enum profile_law law, enum profile_id first, int n)
{
    struct coll_law c[PROFILE_FILE_MAX_LAWS];
    int size[PROFILE_FILE_MAX_LAWS], k = 0;
    for (int ranks = 2, last = 1; k < PROFILE_FILE_MAX_LAWS; last = ranks) {
        const struct fit *next = NULL;
        for (int i = 0; i < l->p->n_fit; i++) {
            const struct fit *f = l->p->fit + i;
            if (f->law == law && f->ranks > last && (!next || f->ranks < next->ranks)) next = f;
        }
        if (!next) break;
        ranks = next->ranks;
        size[k] = ranks;
        c[k++] = coll_of(next, first);
    }
    if (k == 0) return false;
    l->near[law] = n > size[0] && n < size[k - 1];
    l->from[law] = arena_printf(l->a, "from those of %d .. %d ranks", size[0], size[k - 1]);
    struct coll_law at = coll_law_at(c, size, k, n);
    const double v[] = { at.a_s, at.b_bytes_per_s, at.c_s, at.s0_bytes };
    const char *source = arena_printf(l->a, "from %d .. %d ranks measured on %s %s", size[0],
                                      size[k - 1], l->p->machine, l->p->date);
    for (int j = 0; j < 4; j++)
        l->out->p[first + j] =
            (struct param){ v[j], v[j] > 0 && j < 3 ? CLASS_SD : 0, COVER_CLASS, source };
    return true;
}

static bool lay_coll(struct lay *l, enum profile_law law, enum profile_id first)
{
    int n = (int)l->s->tp;
    const struct fit *f = find(l, law, -1, n);
    if (!f) return n > 1 && interpolate(l, law, first, n);
    clear(l, f, first, first + 2);
    put_one(l, first + 3, 1, source_of(l, f, true));
    put_fit(l, f, P_N, 0);
    return true;
}

static void lay_collectives(struct lay *l)
{
    bool all = lay_coll(l, LAW_ALLREDUCE, P_AR_A_S);
    lay_coll(l, LAW_ALLGATHER, P_AG_A_S);
    if (lay_coll(l, LAW_OWN_ALLREDUCE, P_CAR_A_S)) {
        l->out->ar_limit_bytes = l->p->ar_limit_bytes;
    } else if (all) {
        l->out->ar_limit_bytes = 0;
        for (int j = 0; j < 4; j++) {
            l->out->p[P_CAR_A_S + j] = l->out->p[P_AR_A_S + j];
            l->out->p[P_CAR_A_S + j].sd_log = 0; /* never used: nothing to draw */
        }
    }
    const struct fit *p = find(l, LAW_P2P, -1, -1), *net = find(l, LAW_NET, -1, -1);
    if (p) put_fit(l, p, P_N, 0);
    if (net) put_fit(l, net, P_N, 0);
}

/* ---- whole steps */

/* The common factor carries what a fit leaves out: of whole steps, where there are such, else the
 * largest of the laws' own held-out errors. */
static void lay_steps(struct lay *l)
{
    const struct fit *f = find(l, LAW_STEP, -1, (int)l->s->tp);
    bool same = f != NULL; /* ranks of one say nothing of how long several wait for each other */
    if (!f) f = find(l, LAW_STEP, -1, 1);
    double worst = 0;
    for (int i = 0; i < l->p->n_fit; i++) {
        const struct fit *k = l->p->fit + i;
        if (k->law <= LAW_ELT && l->have[k->law] && k->held.median > worst) worst = k->held.median;
    }
    bool kernels = l->have[LAW_GEMM] && l->have[LAW_DECODE];
    if (kernels)
        l->out->p[P_LAW] = (struct param){ 1, fmax(worst, 0.01), COVER_CLASS,
                                           "held-out error of the laws; no whole step measured" };
    if (!f) return;
    static const enum profile_id host[] = { P_HOST_STEP_S, P_HOST_SEQ_S, P_HOST_TOK_S, P_HOST_GAP_S,
                                            P_RANK_SKEW_S };
    double sd = isnan(f->held.median) ? 0 : f->held.median / 0.6745;
    bool device = !isnan(fit_value(f, P_LAW)), alone = l->s->tp < 2;
    for (size_t i = 0; i < sizeof host / sizeof *host; i++)
        if (host[i] != P_RANK_SKEW_S || alone) /* the catalog's stays where a fit has none */
            put_one(l, host[i], 0, source_of(l, f, true));
    put_fit(l, f, P_LAW, sd * sd);
    if (device) l->out->law_own_sd = sd;
    l->out->host_overlap = l->p->host_overlap;
    l->have[LAW_STEP] = alone || (same && device);
    l->near[LAW_STEP] = same;
    if (!same) l->from[LAW_STEP] = "of one rank, so rank_skew is assumed";
    if (same && !device) l->from[LAW_STEP] = "host times alone, so rank_skew is assumed";
}

/* Of stages that share a host's memory and processors. */
static void lay_stages(struct lay *l)
{
    const struct fit *f = find(l, LAW_STAGE, -1, -1);
    if (f && l->s->pp > 1) put_fit(l, f, P_N, 0);
}

/* ---- what is left */

/* A processor has no constants in the catalog: those of the nearest GPU do not count as known. */
static void guess(struct lay *l, enum profile_id first, enum profile_id last)
{
    if (!l->gpu->arch || strcmp(l->gpu->arch, "cpu") != 0) return;
    for (int id = (int)first; id <= (int)last; id++) {
        struct param *p = &l->out->p[id];
        p->cover = COVER_GUESS;
        if (p->v > 0 && p->sd_log > 0) p->sd_log = fmax(p->sd_log, FIT_OPEN_SD);
    }
}

static void guess_law(struct lay *l, enum profile_law law)
{
    guess(l, profile_spans[law].first, profile_spans[law].last);
}

/* Names what the strategy needs and no point tells, and what stands in for it. */
static const char *missing(struct lay *l)
{
    bool tp = l->s->tp > 1, pp = l->s->pp > 1, host = l->p->hw.sys.fabric == HW_HOST;
    const bool needed[LAW_N] = {
        [LAW_GEMM] = true, [LAW_DECODE] = true,  [LAW_PREFILL] = true,
        [LAW_ELT] = true,  [LAW_ALLREDUCE] = tp, [LAW_ALLGATHER] = tp,
        [LAW_P2P] = pp,    [LAW_STEP] = true,    [LAW_STAGE] = pp && host
    };
    const char *text = "";
    for (int i = 0; i < LAW_N; i++) {
        if (!needed[i] || l->have[i]) continue;
        int d = i == LAW_GEMM ? l->s->weight_dtype : l->s->kv_dtype;
        bool typed = i == LAW_GEMM || i == LAW_DECODE || i == LAW_PREFILL;
        text = arena_printf(l->a, "%s%s%s%s%s (%s)", text, *text ? ", " : "",
                            profile_law_name((enum profile_law)i), typed ? " " : "",
                            typed ? dtype_name((enum dtype)d) : "",
                            l->from[i] ? l->from[i] : "as in the catalog");
        if (!l->from[i]) {
            guess_law(l, (enum profile_law)i);
            l->by_catalog = true;
        }
        if (!l->near[i]) l->out->unmeasured |= 1u << i;
    }
    return text;
}

/* Points are of one engine alone on its host: replicas, and more threads than processors, share more
 * than the laws know of, unless the points are of an engine divided alike. */
static const char *crowd(const struct profile_file *p, const struct strategy *s, struct arena *a)
{
    int64_t threads = s->tp * s->pp * s->dp * (p->threads > 1 ? p->threads : 1);
    const struct hw_system *host = &p->hw.sys;
    if (host->fabric != HW_HOST || !hw_on_processors(&p->hw)) return NULL;
    bool alike = s->dp == 1 && p->ranks == s->tp * s->pp && (!p->ops || p->ops->tp == s->tp);
    if (host->host_cores > 0 && threads > host->host_cores && !alike)
        return arena_printf(a, "%lld threads on %d processors", (long long)threads,
                            (int)host->host_cores);
    return s->dp > 1 ? "replicas beside each other on one host" : NULL;
}

void profile_file_lay(const struct profile_file *p, const struct hw_gpu *g,
                      const struct strategy *s, struct arena *a, struct profile *out)
{
    struct lay l = { .p = p, .gpu = g, .s = s, .a = a, .out = out };
    size_t n = (size_t)p->n_fit + 1;
    l.block = arena_array(a, n, sizeof *l.block);
    l.range = arena_array(a, n * FIT_MAX_SIZE, sizeof *l.range);
    out->n_block = out->n_range = 0;
    lay_kernels(&l);
    lay_collectives(&l);
    lay_steps(&l);
    lay_stages(&l);
    for (int i = 0; i < p->n_extra; i++) {
        out->p[p->extra[i].id] =
            (struct param){ p->extra[i].v, p->extra[i].sd_log, COVER_FIT,
                            arena_printf(a, "measured on %s %s", p->machine, p->date) };
        l.have[LAW_STAGE] |= p->extra[i].id >= P_STAGE_RETURN_S;
    }
    out->stage0_drives = strcmp(p->engine, "orrery") == 0;
    out->block = l.block;
    out->range = l.range;
    out->measured = arena_printf(a, "%s %s", p->machine, p->date);
    out->noise = p->noise && *p->noise ? p->noise : NULL;
    out->name = arena_printf(a, "%s/%s/%s", p->hw.gpu.name, p->engine,
                             dtype_name((enum dtype)s->weight_dtype));
    const char *none = missing(&l), *also = out->note;
    /* which of these are needed, the strategy alone does not say */
    if (!l.have[LAW_NET]) guess_law(&l, LAW_NET);
    guess(&l, P_MOE_T0_S, P_MOE_EM);
    out->crowd = crowd(p, s, a);
    out->note = !*none ? "" : arena_printf(a, "not measured: %s", none);
    if (l.by_catalog && *also) out->note = arena_printf(a, "%s; catalog: %s", out->note, also);
}
