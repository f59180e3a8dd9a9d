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
    const struct strategy *s;
    struct arena *a;
    struct profile *out;
    struct profile_block *block;
    struct profile_range *range;
    bool have[LAW_N];
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
        l->out->p[f->id[j]] = (struct param){ f->v[j], sqrt(fmax(0, cov[j][j])), COVER_FIT,
                                              source_of(l, f, f->known[j]) };
    }
    if (profile_cholesky(f->n_par, &cov[0][0], &b->chol[0][0])) l->out->n_block++;
    for (int j = 0; j < f->n_range; j++)
        l->range[l->out->n_range++] =
            (struct profile_range){ f->law, f->range[j].size, f->range[j].lo, f->range[j].hi };
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

static void lay_kernels(struct lay *l)
{
    const struct fit *g = find(l, LAW_GEMM, l->s->weight_dtype, -1);
    const struct fit *d = find(l, LAW_DECODE, l->s->kv_dtype, -1);
    const struct fit *p = find(l, LAW_PREFILL, l->s->kv_dtype, -1);
    const struct fit *x = find(l, LAW_ELT, -1, -1);
    if (g) {
        clear(l, g, P_GEMM_EQ, P_GEMM_EQ);
        put_fit(l, g, P_N, 0);
    }
    if (d) {
        clear(l, d, P_DEC_FLOOR_S, P_DEC_FLOOR_S);
        put_fit(l, d, P_N, 0);
    }
    if (p) put_fit(l, p, P_N, 0);
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
    for (size_t i = 0; i < sizeof host / sizeof *host; i++)
        put_one(l, host[i], 0, source_of(l, f, true));
    double sd = isnan(f->held.median) ? 0 : f->held.median / 0.6745;
    put_fit(l, f, P_LAW, sd * sd);
    l->out->host_overlap = l->p->host_overlap;
}

/* Of stages that share a host's memory and processors. */
static void lay_stages(struct lay *l)
{
    const struct fit *f = find(l, LAW_STAGE, -1, -1);
    if (f && l->s->pp > 1) put_fit(l, f, P_N, 0);
}

static const char *missing(const struct lay *l)
{
    bool tp = l->s->tp > 1, pp = l->s->pp > 1, host = l->p->hw.sys.fabric == HW_HOST;
    const bool needed[LAW_N] = {
        [LAW_GEMM] = true, [LAW_DECODE] = true,  [LAW_PREFILL] = true,
        [LAW_ELT] = true,  [LAW_ALLREDUCE] = tp, [LAW_ALLGATHER] = tp,
        [LAW_P2P] = pp,    [LAW_STEP] = true,    [LAW_STAGE] = pp && host
    };
    const char *text = "";
    for (int i = 0; i < LAW_N; i++)
        if (needed[i] && !l->have[i])
            text = arena_printf(l->a, "%s%s%s", text, *text ? ", " : "",
                                profile_law_name((enum profile_law)i));
    return text;
}

void profile_file_lay(const struct profile_file *p, const struct strategy *s, struct arena *a,
                      struct profile *out)
{
    struct lay l = { .p = p, .s = s, .a = a, .out = out };
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
    out->name = arena_printf(a, "%s/%s/%s", p->hw.gpu.name, p->engine,
                             dtype_name((enum dtype)s->weight_dtype));
    const char *none = missing(&l), *also = out->note;
    out->note = !*none ? ""
                       : arena_printf(a, "not measured, so as in the catalog%s%s%s: %s",
                                      *also ? " (" : "", also, *also ? ")" : "", none);
}
