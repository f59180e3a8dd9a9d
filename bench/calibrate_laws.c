/* bench/calibrate_laws.c - points of operators and messages as the kernel laws take them, and their
 * fits. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"
#include "bench/calibrate.h"
#include "model/deploy.h"

enum { ACT_BYTES = 2, LOGIT_BYTES = 4, SAMPLER_PASSES = 4, MAX_GROUPS = 16 };

static bool is_kernel(const struct points_row *r)
{
    return r->op == POINTS_GEMM || r->op == POINTS_ATTN || r->op == POINTS_ELT ||
           r->op == POINTS_SAMPLE || r->op == POINTS_STEP || r->op == POINTS_STAGE ||
           r->op == POINTS_RETURN;
}

static bool is_message(const struct points_row *r)
{
    return r->op == POINTS_ALLREDUCE || r->op == POINTS_ALLGATHER || r->op == POINTS_SENDRECV;
}

/* ---- which of them belong together */

/* The one value that a number of the kernel points has, or the wanted one. Where there are several, the
 * option that chooses comes to *ask. */
static int only(const struct calibrate *c, size_t at, int64_t wanted, const char *what, int *out,
                const char **ask, struct err *e)
{
    int32_t seen[MAX_GROUPS];
    int n = 0;
    const char *list = "";
    for (int64_t i = 0; i < c->n_point; i++) {
        const struct calibrate_point *p = &c->point[i];
        int32_t v;
        int k = 0;
        if (!is_kernel(&p->row)) continue;
        memcpy(&v, (const char *)&p->row + at, sizeof v);
        if (v < 1) v = 1;
        while (k < n && seen[k] != v) k++;
        if (k < n || n == MAX_GROUPS) continue;
        seen[n++] = v;
        list = arena_printf(c->a, "%s%s%d", list, *list ? ", " : "", (int)v);
    }
    *out = wanted > 0 ? (int)wanted : n == 1 ? seen[0] : 1;
    bool found = n == 0;
    for (int k = 0; k < n; k++) found |= seen[k] == *out;
    if (wanted <= 0 && n > 1)
        *ask = arena_printf(c->a, "%s%s--%s (%s)", *ask, **ask ? ", " : "", what, list);
    else if (!found)
        return err_set(e, ST_USAGE, "--%s=%d: points are of another number of %s: %s", what, *out,
                       what, list);
    return ST_OK;
}

static int choose_comm(struct calibrate *c, const char **ask, struct err *e)
{
    bool has[POINTS_NCCL + 1] = { false };
    char word[24];
    const char *list = "";
    int n = 0;
    for (int64_t i = 0; i < c->n_point; i++)
        if (is_message(&c->point[i].row)) has[c->point[i].row.comm] = true;
    for (int k = 0; k <= POINTS_NCCL; k++) {
        if (!has[k]) continue;
        c->comm = (enum points_comm)k;
        list = arena_printf(c->a, "%s%s%s", list, n++ ? ", " : "",
                            points_word(POINTS_COMM_WORDS, k, word, sizeof word));
    }
    if (c->o.comm) c->comm = (enum points_comm)c->o.comm;
    if (n == 0 && c->o.comm)
        return err_set(e, ST_USAGE, "--comm=%s: the files have no points of messages",
                       points_word(POINTS_COMM_WORDS, c->o.comm, word, sizeof word));
    if (n > 1 && !c->o.comm)
        *ask = arena_printf(c->a, "%s%s--comm (%s)", *ask, **ask ? ", " : "", list);
    else if (n > 0 && !has[c->comm])
        return err_set(e, ST_USAGE, "--comm=%s: messages were measured over %s",
                       points_word(POINTS_COMM_WORDS, (int)c->comm, word, sizeof word), list);
    return ST_OK;
}

/* --tp says of what degree points of a model are that do not say so themselves. */
static int check_tp(const struct calibrate *c, struct err *e)
{
    bool kernels = false;
    int told = 0;
    for (int64_t i = 0; i < c->n_point; i++) kernels |= is_kernel(&c->point[i].row);
    for (int i = 0; i < c->n_file; i++) {
        if (c->file[i].is_run || c->file[i].tp == 0) continue;
        told = c->file[i].tp;
        if (told == c->o.tp) return ST_OK;
    }
    if (c->o.tp > 0 && told > 0)
        return err_set(e, ST_USAGE, "--tp=%lld: the points are of TP%d", (long long)c->o.tp, told);
    if (c->o.tp > 0 && !kernels)
        return err_set(e, ST_USAGE, "--tp=%lld: the files have no points of a model",
                       (long long)c->o.tp);
    return ST_OK;
}

/* --model says of what model points are that do not say so themselves: not another one than they say. One
 * whose sizes are not known here may be any. */
static int check_model(const struct calibrate *c, struct err *e)
{
    struct arch asked, told;
    struct deploy_request q = { .model = c->o.model };
    if (!c->o.model) return ST_OK;
    int st = deploy_model(&q, c->a, &asked, e);
    for (int i = 0; i < c->n_file && st == ST_OK; i++) {
        q.model = c->file[i].model;
        if (c->file[i].is_run || !q.model || !*q.model || strcmp(q.model, c->o.model) == 0 ||
            deploy_model(&q, c->a, &told, NULL) != ST_OK)
            continue;
        if (told.n_layer != asked.n_layer ||
            strcmp(profile_file_shape(&told, c->a), profile_file_shape(&asked, c->a)) != 0)
            st = err_set(e, ST_USAGE, "--model=%s: the points of %s are of %s", c->o.model,
                         c->file[i].path, q.model);
    }
    return st;
}

static bool is_in_situ(const struct points_row *r)
{
    return r->op == POINTS_GEMM ? r->part != POINTS_NO_PART : r->ranks > 0;
}

/* Points of the threads and ranks chosen; in-situ ones only, for an operator that has such. */
static void mark_used(struct calibrate *c)
{
    bool in_situ[POINTS_N_OP] = { false };
    for (int64_t i = 0; i < c->n_point; i++) {
        struct calibrate_point *p = &c->point[i];
        int threads = p->row.threads > 1 ? p->row.threads : 1;
        int ranks = p->row.ranks > 1 ? p->row.ranks : 1;
        p->used = (is_kernel(&p->row) && threads == c->threads && ranks == c->ranks) ||
                  (is_message(&p->row) && p->row.comm == c->comm && p->row.ranks > 1);
        if (p->used && is_kernel(&p->row) && is_in_situ(&p->row)) in_situ[p->row.op] = true;
    }
    for (int64_t i = 0; i < c->n_point; i++) {
        struct calibrate_point *p = &c->point[i];
        if (in_situ[p->row.op] && !is_in_situ(&p->row)) p->used = false;
    }
}

int calibrate_choose(struct calibrate *c, struct err *e)
{
    const char *ask = "";
    int st = only(c, offsetof(struct points_row, threads), c->o.threads, "threads", &c->threads,
                  &ask, e);
    if (st == ST_OK)
        st = only(c, offsetof(struct points_row, ranks), c->o.ranks, "ranks", &c->ranks, &ask, e);
    if (st == ST_OK) st = choose_comm(c, &ask, e);
    if (st == ST_OK && *ask)
        st =
            err_set(e, ST_USAGE,
                    "the points are of several kinds, a profile is of one: say which with %s", ask);
    if (st == ST_OK) st = check_tp(c, e);
    if (st == ST_OK) st = check_model(c, e);
    if (st == ST_OK) mark_used(c);
    return st;
}

/* ---- each kind of point */

double calibrate_beside(const struct calibrate *c, const struct calibrate_point *p, int part)
{
    for (int64_t i = 0; i < c->n_point; i++) {
        const struct calibrate_point *q = &c->point[i];
        if (q->used && q->row.op == p->row.op && q->row.part == part && q->row.m == p->row.m &&
            q->row.n == p->row.n && q->file == p->file)
            return q->s;
    }
    return 0;
}

double calibrate_elt_bytes(const struct points_row *r, double kv_elt)
{
    double x = (double)r->m * (double)r->n;
    if (r->op == POINTS_SAMPLE) return SAMPLER_PASSES * x * LOGIT_BYTES;
    switch (r->part) {
    case POINTS_NORM: return 4 * x * ACT_BYTES;
    case POINTS_ROPE:
    case POINTS_EMBED: return 2 * x * ACT_BYTES;
    case POINTS_ACT: return 3 * x * ACT_BYTES;
    case POINTS_KV_PUT: return x * (ACT_BYTES + kv_elt);
    default: return 0;
    }
}

/* The format of the layers' matrices, which the head's products are fitted with. */
static enum dtype weights_of(const struct calibrate *c, const struct calibrate_point *p)
{
    if (p->row.part == POINTS_HEAD)
        for (int64_t i = 0; i < c->n_point; i++) {
            const struct points_row *r = &c->point[i].row;
            if (c->point[i].file == p->file && c->point[i].used && r->op == POINTS_GEMM &&
                r->part != POINTS_HEAD)
                return calibrate_dtype(r->dtype);
        }
    return calibrate_dtype(p->row.dtype);
}

static struct fit_gemm_point gemm_point(const struct calibrate_point *p)
{
    const struct points_row *r = &p->row;
    double weight = dtype_bytes(calibrate_dtype(r->dtype));
    if (r->part == POINTS_HEAD) weight = fmax(weight, ACT_BYTES);
    return (struct fit_gemm_point){
        { (double)r->m, (double)r->n, (double)r->k, weight, ACT_BYTES, ACT_BYTES }, p->s, p->sd_log
    };
}

/* (query, key) pairs: of the operations where the file counts them, else of equal chunks. */
static double pairs_of(const struct points_row *r)
{
    double tok = (double)r->m, q = tok / (double)r->seqs;
    if (r->flop > 0 && r->n > 0 && r->head_dim > 0)
        return r->flop / (4 * (double)r->n * (double)r->head_dim);
    return tok * (double)r->ctx + tok * (q + 1) / 2;
}

static struct fit_decode_point decode_point(const struct calibrate_point *p)
{
    const struct points_row *r = &p->row;
    double seqs = (double)r->seqs, sum = pairs_of(r), longest = (double)r->ctx_max + 1;
    return (struct fit_decode_point){ .seqs = seqs,
                                      .sum_ctx = sum,
                                      .max_ctx = fmax(longest, sum / seqs),
                                      .n_head = (double)r->n,
                                      .n_kv_head = (double)r->k,
                                      .head_dim = (double)r->head_dim,
                                      .kv_bytes = dtype_bytes(calibrate_dtype(r->dtype)),
                                      .s = p->s,
                                      .sd_log = p->sd_log };
}

/* Chunks of equal length; io as model/ops.c counts it. */
static struct fit_prefill_point prefill_point(const struct calibrate_point *p)
{
    const struct points_row *r = &p->row;
    double tok = (double)r->m, seqs = (double)r->seqs, dim = (double)r->head_dim;
    double past = seqs * (double)r->ctx, kv = dtype_bytes(calibrate_dtype(r->dtype));
    double io =
        2 * tok * (double)r->n * dim * ACT_BYTES + 2 * (past + tok) * (double)r->k * dim * kv;
    return (struct fit_prefill_point){ .pairs = pairs_of(r),
                                       .tok = tok,
                                       .io_bytes = io,
                                       .n_head = (double)r->n,
                                       .head_dim = dim,
                                       .s = p->s,
                                       .sd_log = p->sd_log };
}

/* The engine adds up in f32 what the simulator counts as two bytes a value; other tools' messages
 * are as large as they say. */
static double message_bytes(const struct calibrate *c, const struct calibrate_point *p)
{
    bool halved =
        !c->file[p->file].imported && p->row.dtype == POINTS_F32 && p->row.op != POINTS_SENDRECV;
    return halved ? p->row.bytes / 2 : p->row.bytes;
}

/* ---- one law after the other */

struct laws {
    struct calibrate *c;
    bool plan;
    struct err *e;
    struct calibrate_point **p; /* of the present law */
    int64_t n;
    bool points; /* p[n] are what it is fitted to, not means of them */
    double kv_elt;
    bool adds; /* there are points of residual additions */
    int st;
};

/* What a law's fit made of its points: kept, or told and left out. Times of products or attention that
 * contradict each other are refused, as tables of them would stand for the law. */
static void keep(struct laws *l, enum profile_law law, const struct fit *f, int st,
                 const struct err *why)
{
    struct calibrate *c = l->c;
    if (st != ST_OK) {
        calibrate_note(c, "no fit of %s: %s", profile_law_name(law), why->text);
        if (st == ST_RANGE && (law == LAW_GEMM || law == LAW_DECODE || law == LAW_PREFILL))
            l->st = err_set(l->e, ST_USAGE, "%s; no profile is made of such times", why->text);
        return;
    }
    if (c->profile.n_fit == CALIBRATE_MAX_FITS) return;
    c->fit[c->profile.n_fit++] = *f;
    c->has[law] |= 1u << f->dtype;
    for (int64_t i = 0; i < l->n && l->points; i++) l->p[i]->laws |= 1u << law;
}

static void plan_line(struct laws *l, enum profile_law law, enum dtype d, int ranks)
{
    bool typed = law == LAW_GEMM || law == LAW_DECODE || law == LAW_PREFILL;
    const char *over = ranks > 1 ? arena_printf(l->c->a, " over %d ranks", ranks) : "";
    calibrate_note(l->c, "%s%s%s%s: %lld point%s", profile_law_name(law), typed ? " " : "",
                   typed ? dtype_name(d) : "", over, (long long)l->n, units_s(l->n));
    l->c->has[law] |= 1u << d;
    for (int64_t i = 0; i < l->n && l->points; i++) l->p[i]->laws |= 1u << law;
}

static void gather(struct laws *l, bool (*take)(struct laws *, const struct calibrate_point *, int),
                   int arg)
{
    l->n = 0;
    l->points = true;
    for (int64_t i = 0; i < l->c->n_point; i++)
        if (l->c->point[i].used && take(l, &l->c->point[i], arg)) l->p[l->n++] = &l->c->point[i];
}

static bool take_gemm(struct laws *l, const struct calibrate_point *p, int d)
{
    return p->row.op == POINTS_GEMM && (int)weights_of(l->c, p) == d;
}

static bool is_attn(const struct calibrate_point *p, int d)
{
    return p->row.op == POINTS_ATTN && (int)calibrate_dtype(p->row.dtype) == d && p->row.seqs > 0 &&
           p->row.m >= p->row.seqs;
}

static bool take_decode(struct laws *l, const struct calibrate_point *p, int d)
{
    (void)l;
    return is_attn(p, d) && p->row.m == p->row.seqs;
}

/* Chunks of equal length and past: of others the row does not say which. */
static bool take_prefill(struct laws *l, const struct calibrate_point *p, int d)
{
    struct points_row equal = p->row;
    (void)l;
    if (!is_attn(p, d) || p->row.m <= p->row.seqs || p->row.m % p->row.seqs) return false;
    equal.flop = 0;
    return fabs(pairs_of(&p->row) / pairs_of(&equal) - 1) < 1e-6;
}

/* A norm is one with the addition before it; norms of heads have none. */
static bool take_elt(struct laws *l, const struct calibrate_point *p, int unused)
{
    (void)unused;
    if (p->row.op == POINTS_ELT && p->row.part == POINTS_NORM && l->adds &&
        calibrate_beside(l->c, p, POINTS_ADD) <= 0)
        return false;
    bool drawn = p->row.op == POINTS_SAMPLE && p->row.part != POINTS_NO_PART;
    return (p->row.op == POINTS_ELT || p->row.op == POINTS_SAMPLE) && !drawn &&
           calibrate_elt_bytes(&p->row, l->kv_elt) > 0;
}

static bool take_allreduce(struct laws *l, const struct calibrate_point *p, int ranks)
{
    (void)l;
    return p->row.op == POINTS_ALLREDUCE && p->row.ranks == ranks && p->row.bytes > 0;
}

static bool take_allgather(struct laws *l, const struct calibrate_point *p, int ranks)
{
    (void)l;
    return p->row.op == POINTS_ALLGATHER && p->row.ranks == ranks && p->row.bytes > 0;
}

static bool take_p2p(struct laws *l, const struct calibrate_point *p, int unused)
{
    (void)l;
    (void)unused;
    return p->row.op == POINTS_SENDRECV && p->row.bytes > 0;
}

static void do_gemm(struct laws *l, enum dtype d)
{
    struct fit f;
    struct err why = { 0 };
    gather(l, take_gemm, (int)d);
    if (l->n == 0) return;
    if (l->plan) {
        plan_line(l, LAW_GEMM, d, 1);
        return;
    }
    struct fit_gemm_point *p = mem_alloc((size_t)l->n * sizeof *p);
    for (int64_t i = 0; i < l->n; i++) p[i] = gemm_point(l->p[i]);
    struct fit_ask q = calibrate_ask(l->c, d, 1);
    keep(l, LAW_GEMM, &f, fit_gemm(&q, p, l->n, &f, &why), &why);
    free(p);
}

static void do_decode(struct laws *l, enum dtype d)
{
    struct fit f;
    struct err why = { 0 };
    gather(l, take_decode, (int)d);
    if (l->n == 0) return;
    if (l->plan) {
        plan_line(l, LAW_DECODE, d, 1);
        return;
    }
    struct fit_decode_point *p = mem_alloc((size_t)l->n * sizeof *p);
    for (int64_t i = 0; i < l->n; i++) p[i] = decode_point(l->p[i]);
    struct fit_ask q = calibrate_ask(l->c, d, 1);
    keep(l, LAW_DECODE, &f, fit_decode(&q, p, l->n, &f, &why), &why);
    free(p);
}

static void do_prefill(struct laws *l, enum dtype d)
{
    struct fit f;
    struct err why = { 0 };
    gather(l, take_prefill, (int)d);
    if (l->n == 0) return;
    if (l->plan) {
        plan_line(l, LAW_PREFILL, d, 1);
        return;
    }
    struct fit_prefill_point *p = mem_alloc((size_t)l->n * sizeof *p);
    for (int64_t i = 0; i < l->n; i++) p[i] = prefill_point(l->p[i]);
    struct fit_ask q = calibrate_ask(l->c, d, 1);
    keep(l, LAW_PREFILL, &f, fit_prefill(&q, p, l->n, &f, &why), &why);
    free(p);
}

/* Element-wise work of a layer by rows, its operators averaged: one law of bytes holds for none of
 * them on a processor, where a cache write takes ten times the time a byte of a norm does, and what
 * counts is their sum. Returns points, 0 without all of them. */
static int64_t layer_means(struct laws *l, struct fit_bytes_point *out)
{
    static const struct {
        const char *name;
        double times, bytes; /* in a layer; of a value, as calibrate_elt_bytes */
    } op[] = {
        { "layernorm", 2, 8 }, { "rotary_emb", 1, 4 }, { "kv_write", 1, 0 }, { "act_fn", 1, 6 }
    };
    enum { N_OP = sizeof op / sizeof *op };
    struct calibrate *c = l->c;
    size_t most = (size_t)c->n_point + 1;
    struct calibrate_row *x = mem_alloc(N_OP * most * sizeof *x);
    int64_t n[N_OP], n_out = 0;
    bool mixed = false, one;
    for (int k = 0; k < N_OP; k++, mixed |= one)
        n[k] = calibrate_collect(c, op[k].name, x + (size_t)k * most, &one);
    for (int64_t i = 0; i < n[0] && !mixed; i++) {
        double s = 0, bytes = 0, times = 0;
        int found = 0;
        for (int k = 0; k < N_OP; k++)
            for (int64_t j = 0; j < n[k]; j++) {
                const struct calibrate_row *r = x + (size_t)k * most + j;
                if (r->m != x[i].m) continue;
                double value = op[k].bytes > 0 ? op[k].bytes : ACT_BYTES + l->kv_elt;
                s += op[k].times * r->s;
                bytes += op[k].times * (double)r->m * (double)r->n * value;
                times += op[k].times;
                found++;
            }
        if (found == N_OP)
            out[n_out++] = (struct fit_bytes_point){ bytes / times, s / times, 0.02 };
    }
    free(x);
    return n_out;
}

static void do_layer_means(struct laws *l, struct fit_bytes_point *p, int64_t n)
{
    struct fit f;
    struct err why = { 0 };
    struct fit_ask q = calibrate_ask(l->c, DT_F32, 1);
    l->n = n;
    l->points = false;
    for (int64_t i = 0; i < l->c->n_point; i++)
        if (l->c->point[i].used && l->c->point[i].row.op == POINTS_ELT)
            l->c->point[i].laws |= 1u << LAW_ELT;
    if (l->plan) {
        plan_line(l, LAW_ELT, DT_F32, 1);
        return;
    }
    keep(l, LAW_ELT, &f, fit_elt(&q, p, n, &f, &why), &why);
    calibrate_note(l->c, "elementwise: of a layer's operators the mean; embedding and sampling are "
                         "not in it");
}

static void do_elt(struct laws *l)
{
    struct fit f;
    struct err why = { 0 };
    struct fit_bytes_point *mean = mem_alloc(((size_t)l->c->n_point + 1) * sizeof *mean);
    int64_t n_mean = layer_means(l, mean);
    if (n_mean >= 5) do_layer_means(l, mean, n_mean);
    free(mean);
    if (n_mean >= 5) return;
    gather(l, take_elt, 0);
    if (l->n == 0) return;
    if (l->plan) {
        plan_line(l, LAW_ELT, DT_F32, 1);
        return;
    }
    struct fit_bytes_point *p = mem_alloc((size_t)l->n * sizeof *p);
    for (int64_t i = 0; i < l->n; i++) {
        double s = l->p[i]->s;
        if (l->p[i]->row.part == POINTS_NORM) s += calibrate_beside(l->c, l->p[i], POINTS_ADD);
        p[i] = (struct fit_bytes_point){ calibrate_elt_bytes(&l->p[i]->row, l->kv_elt), s,
                                         l->p[i]->sd_log };
    }
    struct fit_ask q = calibrate_ask(l->c, DT_F32, 1);
    keep(l, LAW_ELT, &f, fit_elt(&q, p, l->n, &f, &why), &why);
    free(p);
}

static void do_messages(struct laws *l, enum profile_law law, int ranks)
{
    struct fit f;
    struct err why = { 0 };
    bool hop = law == LAW_P2P || law == LAW_NET;
    gather(l, law == LAW_ALLREDUCE ? take_allreduce : hop ? take_p2p : take_allgather, ranks);
    if (l->n == 0) return;
    if (l->plan) {
        plan_line(l, law, DT_F32, hop ? 1 : ranks);
        return;
    }
    struct fit_bytes_point *p = mem_alloc((size_t)l->n * sizeof *p);
    for (int64_t i = 0; i < l->n; i++)
        p[i] =
            (struct fit_bytes_point){ message_bytes(l->c, l->p[i]), l->p[i]->s, l->p[i]->sd_log };
    struct fit_ask q = calibrate_ask(l->c, DT_F32, hop ? 1 : ranks);
    int st = hop ? fit_p2p(&q, law, p, l->n, &f, &why) : fit_coll(&q, law, p, l->n, &f, &why);
    keep(l, law, &f, st, &why);
    free(p);
}

/* Every number of ranks that messages were measured over, rising. */
static void do_groups(struct laws *l)
{
    for (int32_t last = 1;;) {
        int32_t next = INT32_MAX;
        for (int64_t i = 0; i < l->c->n_point; i++) {
            const struct calibrate_point *p = &l->c->point[i];
            if (p->used && is_message(&p->row) && p->row.ranks > last && p->row.ranks < next)
                next = p->row.ranks;
        }
        if (next == INT32_MAX) break;
        do_messages(l, LAW_ALLREDUCE, next);
        do_messages(l, LAW_ALLGATHER, next);
        last = next;
    }
    /* A hop over TCP is between nodes for the simulator, and in the node where nothing else is. */
    do_messages(l, LAW_P2P, 0);
    if (l->c->comm == POINTS_MPI_TCP) do_messages(l, LAW_NET, 0);
}

int calibrate_laws(struct calibrate *c, bool plan, struct err *e)
{
    struct laws l = { .c = c, .plan = plan, .e = e, .kv_elt = 4 };
    l.p = mem_alloc(((size_t)c->n_point + 1) * sizeof(struct calibrate_point *));
    for (int64_t i = 0; i < c->n_point; i++)
        l.adds |= c->point[i].used && c->point[i].row.op == POINTS_ELT &&
                  c->point[i].row.part == POINTS_ADD;
    for (int64_t i = 0; i < c->n_point; i++)
        if (c->point[i].used && c->point[i].row.op == POINTS_ATTN &&
            calibrate_dtype(c->point[i].row.dtype) != DT_N)
            l.kv_elt = dtype_bytes(calibrate_dtype(c->point[i].row.dtype));
    for (int d = 0; d < DT_N; d++) {
        do_gemm(&l, (enum dtype)d);
        do_decode(&l, (enum dtype)d);
        do_prefill(&l, (enum dtype)d);
    }
    do_elt(&l);
    do_groups(&l);
    free(l.p);
    return l.st;
}
