/* model/fit_points.c - points of each law as rows of sizes, and the choice between two forms of a
 * collective. SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "model/fit_in.h"

/* Rows of n_size sizes; the caller fills them, and frees with data_release. */
static void data_init(struct fit_data *d, int64_t n, int n_size)
{
    *d = (struct fit_data){ .n = n > 0 ? n : 0 };
    size_t rows = (size_t)d->n + 1; /* the forms look at the first even when there is none */
    d->x = mem_zalloc(rows, (size_t)n_size * sizeof *d->x);
    d->s = mem_zalloc(rows, sizeof *d->s);
    d->sd = mem_zalloc(rows, sizeof *d->sd);
}

static void data_release(struct fit_data *d)
{
    free(d->x);
    free(d->s);
    free(d->sd);
}

static void put(struct fit_data *d, int64_t i, double s, double sd_log, int n_size, const double *x)
{
    d->s[i] = s;
    d->sd[i] = sd_log;
    for (int j = 0; j < n_size; j++) d->x[i * n_size + j] = x[j];
}

/* Priors are set from the points: so the points come first, with a form that has no priors. */
static int check_first(enum profile_law law, int n_size, const enum profile_size *size,
                       const struct fit_data *d, struct err *e)
{
    struct fit_form bare = { .law = law, .n_size = n_size };
    for (int j = 0; j < n_size; j++) bare.size[j] = size[j];
    if (d->n == 0) return err_set(e, ST_USAGE, "%s: there are no points", profile_law_name(law));
    return fit_check(&bare, d, e);
}

static int reference(const char *law, double peak, double rate, struct err *e)
{
    if (peak > 0 && isfinite(peak) && rate > 0 && isfinite(rate)) return ST_OK;
    return err_set(e, ST_USAGE,
                   "%s: the peak of %g FLOP/s or the memory rate of %g bytes/s, which "
                   "efficiencies refer to, is not positive",
                   law, peak, rate);
}

int fit_gemm(const struct fit_ask *q, const struct fit_gemm_point *p, int64_t n, struct fit *out,
             struct err *e)
{
    static const enum profile_size size[] = { SIZE_M,         SIZE_N,
                                              SIZE_K,         SIZE_WEIGHT_BYTES,
                                              SIZE_ACT_BYTES, SIZE_OUT_BYTES };
    struct fit_data d;
    struct fit_form f;
    int st = reference("gemm", q->peak_flop_per_s, q->mem_bytes_per_s, e);
    if (st != ST_OK) return st;
    data_init(&d, n, 6);
    for (int64_t i = 0; i < d.n; i++) {
        const struct law_gemm_shape *s = &p[i].shape;
        put(&d, i, p[i].s, p[i].sd_log, 6,
            (double[]){ s->m, s->n, s->k, s->weight_bytes, s->act_bytes, s->out_bytes });
    }
    if ((st = check_first(LAW_GEMM, 6, size, &d, e)) == ST_OK) {
        fit_form_gemm(&f, q, &d);
        st = fit_run(&f, &d, q, out, e);
    }
    data_release(&d);
    return st;
}

int fit_decode(const struct fit_ask *q, const struct fit_decode_point *p, int64_t n,
               struct fit *out, struct err *e)
{
    static const enum profile_size size[] = { SIZE_SEQS,     SIZE_CTX,      SIZE_CTX_MAX,
                                              SIZE_HEADS,    SIZE_KV_HEADS, SIZE_HEAD_DIM,
                                              SIZE_ELT_BYTES };
    struct fit_data d;
    struct fit_form f;
    int st = reference("decode", 1, q->mem_bytes_per_s, e);
    if (st != ST_OK) return st;
    data_init(&d, n, 7);
    for (int64_t i = 0; i < d.n; i++) {
        const struct fit_decode_point *s = p + i;
        /* The longest is no shorter than the mean; 0 says that all are equal. */
        double most = s->max_ctx == 0 && s->seqs > 0 ? s->sum_ctx / s->seqs : s->max_ctx;
        put(&d, i, s->s, s->sd_log, 7,
            (double[]){ s->seqs, s->sum_ctx, most, s->n_head, s->n_kv_head, s->head_dim,
                        s->kv_bytes });
    }
    if ((st = check_first(LAW_DECODE, 7, size, &d, e)) == ST_OK) {
        fit_form_decode(&f, q, &d);
        st = fit_run(&f, &d, q, out, e);
    }
    data_release(&d);
    return st;
}

int fit_prefill(const struct fit_ask *q, const struct fit_prefill_point *p, int64_t n,
                struct fit *out, struct err *e)
{
    static const enum profile_size size[] = { SIZE_PAIRS, SIZE_TOK, SIZE_BYTES, SIZE_HEADS,
                                              SIZE_HEAD_DIM };
    struct fit_data d;
    struct fit_form f;
    int st = reference("prefill", q->peak_flop_per_s, q->mem_bytes_per_s, e);
    if (st != ST_OK) return st;
    data_init(&d, n, 5);
    for (int64_t i = 0; i < d.n; i++)
        put(&d, i, p[i].s, p[i].sd_log, 5,
            (double[]){ p[i].pairs, p[i].tok, p[i].io_bytes, p[i].n_head, p[i].head_dim });
    if ((st = check_first(LAW_PREFILL, 5, size, &d, e)) == ST_OK) {
        fit_form_prefill(&f, q, &d);
        st = fit_run(&f, &d, q, out, e);
    }
    data_release(&d);
    return st;
}

static int bytes_data(enum profile_law law, const struct fit_bytes_point *p, int64_t n,
                      struct fit_data *d, struct err *e)
{
    static const enum profile_size size[] = { SIZE_BYTES };
    data_init(d, n, 1);
    for (int64_t i = 0; i < d->n; i++) put(d, i, p[i].s, p[i].sd_log, 1, &p[i].bytes);
    return check_first(law, 1, size, d, e);
}

int fit_elt(const struct fit_ask *q, const struct fit_bytes_point *p, int64_t n, struct fit *out,
            struct err *e)
{
    struct fit_data d;
    struct fit_form f;
    int st = reference("elementwise", 1, q->mem_bytes_per_s, e);
    if (st != ST_OK) return st;
    if ((st = bytes_data(LAW_ELT, p, n, &d, e)) == ST_OK) {
        fit_form_elt(&f, q, &d);
        st = fit_run(&f, &d, q, out, e);
    }
    data_release(&d);
    return st;
}

/* Twice the negative log likelihood with each point's own spread and the fit's tau, robustly: by
 * the median of |r|, as tau is. */
static double criterion(const struct fit *r)
{
    double n = (double)r->n_point, sum = 0, scale = fmax(r->tau, 1e-6);
    for (int64_t i = 0; i < r->n_point; i++) {
        double u = log(r->predicted_s[i] / r->measured_s[i]) / scale;
        sum += fmin(u * u, 20);
    }
    return 2 * n * log(scale) + sum + r->n_par * log(n);
}

int fit_coll(const struct fit_ask *q, enum profile_law law, const struct fit_bytes_point *p,
             int64_t n, struct fit *out, struct err *e)
{
    assert(law == LAW_ALLREDUCE || law == LAW_OWN_ALLREDUCE || law == LAW_ALLGATHER);
    struct fit_data d;
    struct fit_form f;
    struct fit line, ramp;
    struct err no_line = { 0 }, no_ramp = { 0 };
    int st = bytes_data(law, p, n, &d, e);
    if (st == ST_OK) {
        fit_form_coll(&f, law, false, &d);
        bool straight = fit_run(&f, &d, q, &line, &no_line) == ST_OK;
        fit_form_coll(&f, law, true, &d);
        bool curved = fit_run(&f, &d, q, &ramp, &no_ramp) == ST_OK;
        if (curved && (!straight || criterion(&ramp) < criterion(&line)))
            *out = ramp;
        else if (straight)
            *out = line;
        else
            st = err_set(e, no_line.status, "%s", no_line.text);
    }
    data_release(&d);
    return st;
}

int fit_p2p(const struct fit_ask *q, enum profile_law law, const struct fit_bytes_point *p,
            int64_t n, struct fit *out, struct err *e)
{
    assert(law == LAW_P2P || law == LAW_NET);
    struct fit_data d;
    struct fit_form f;
    int st = bytes_data(law, p, n, &d, e);
    if (st == ST_OK) {
        fit_form_coll(&f, law, false, &d);
        st = fit_run(&f, &d, q, out, e);
    }
    data_release(&d);
    return st;
}

bool fit_tells_rank_skew(const struct fit_ask *q, const struct fit_step_point *p, int64_t n)
{
    for (int64_t i = 1; i < n; i++)
        if (p[i].n_coll != p[0].n_coll) return true;
    return n == 0 || q->device_only || q->host_apart;
}

int fit_step(const struct fit_ask *q, const struct fit_step_point *p, int64_t n, struct fit *out,
             struct err *e)
{
    static const enum profile_size size[] = { SIZE_SEQS, SIZE_TOK, SIZE_DEVICE_S, SIZE_COLLS };
    struct fit_data d;
    struct fit_form f;
    data_init(&d, n, 4);
    for (int64_t i = 0; i < d.n; i++)
        put(&d, i, p[i].s, p[i].sd_log, 4,
            (double[]){ p[i].seqs, p[i].tok, p[i].device_s, p[i].n_coll });
    int st = check_first(LAW_STEP, 4, size, &d, e);
    if (st == ST_OK) {
        fit_form_step(&f, q, fit_tells_rank_skew(q, p, n), &d);
        st = fit_run(&f, &d, q, out, e);
    }
    data_release(&d);
    return st;
}
