/* traces/import_figures.c - see import_figures.h. SPDX-License-Identifier: Apache-2.0 */
#include "traces/import_figures.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *figures_latency_name(int k)
{
    static const char *const name[] = { "ttft", "ttft_send", "tpot",     "itl", "itl_tok",
                                        "e2e",  "e2e_send",  "norm_lat", "lag" };
    return name[k];
}

static bool ok(const struct import_request *q)
{
    return q->row.status == RUN_OK;
}

/* ---- of one request, in ns; NAN: not defined for it */

static double ttft(const struct import_request *q, int64_t from_ns)
{
    if (!ok(q) || q->row.t_first_ns < 0) return NAN;
    return (double)(q->row.t_first_ns - from_ns);
}

static double tpot(const struct import_request *q)
{
    if (!ok(q) || q->row.t_first_ns < 0 || q->row.n_out < 2) return NAN;
    return (double)(q->row.t_last_ns - q->row.t_first_ns) / (q->row.n_out - 1);
}

static double e2e(const struct import_request *q, int64_t from_ns)
{
    return ok(q) ? (double)(q->row.t_last_ns - from_ns) : NAN;
}

static double value_of(const struct import_request *q, enum figures_latency k)
{
    const struct run_request *r = &q->row;
    switch (k) {
    case FIGURES_TTFT: return ttft(q, r->t_due_ns);
    case FIGURES_TTFT_SEND: return ttft(q, r->t_start_ns);
    case FIGURES_TPOT: return tpot(q);
    case FIGURES_E2E: return e2e(q, r->t_due_ns);
    case FIGURES_E2E_SEND: return e2e(q, r->t_start_ns);
    case FIGURES_NORM_LAT: return e2e(q, r->t_due_ns) / r->n_out; /* n_out >= 1 where ok */
    case FIGURES_LAG:
        return r->t_start_ns < 0 || r->t_due_ns < 0 ? NAN : (double)(r->t_start_ns - r->t_due_ns);
    default: return NAN;
    }
}

/* ---- over requests */

static struct figures_stat stat_of(double *x, int64_t n)
{
    size_t m = (size_t)n;
    stat_sort(x, m);
    return (struct figures_stat){ stat_mean(x, m),
                                  stat_quantile_sorted(x, m, .5),
                                  stat_quantile_sorted(x, m, .9),
                                  stat_quantile_sorted(x, m, .99),
                                  n ? x[n - 1] : NAN,
                                  n };
}

static void latencies(const struct import_run *r, struct figures *f)
{
    double *x = mem_alloc((size_t)(r->n_request + 1) * sizeof *x);
    for (int k = 0; k < FIGURES_N_LATENCY; k++) {
        int64_t n = 0;
        for (int64_t i = 0; i < r->n_request; i++) {
            double v = value_of(&r->request[i], (enum figures_latency)k);
            if (!isnan(v)) x[n++] = v;
        }
        f->latency[k] = stat_of(x, n);
        if (k != FIGURES_TTFT) continue;
        int64_t with_failed = n;
        while (with_failed < f->n_due) x[with_failed++] = INFINITY;
        f->ttft_p50_failed = stat_quantile_sorted(x, (size_t)with_failed, .5);
        f->ttft_p99_failed = stat_quantile_sorted(x, (size_t)with_failed, .99);
    }
    free(x);
}

/* Sums over the requests that ended well and whose first token was seen. */
struct sums {
    int64_t n, tok, later_tok, chunks, n_gap;
    double after_first, whole; /* ns: l - f and l - s */
    bool gaps, chunked;        /* every one of them has gaps, a number of chunks */
};

static struct sums sums_of(const struct import_run *r)
{
    struct sums s = { .gaps = true, .chunked = true };
    for (int64_t i = 0; i < r->n_request; i++) {
        const struct import_request *q = &r->request[i];
        if (isnan(ttft(q, 0))) continue;
        s.n++;
        s.tok += q->row.n_out;
        s.later_tok += q->row.n_out - 1;
        s.after_first += (double)(q->row.t_last_ns - q->row.t_first_ns);
        s.whole += (double)(q->row.t_last_ns - q->row.t_start_ns);
        s.gaps = s.gaps && q->n_gap >= 0;
        s.n_gap += q->n_gap;
        s.chunked = s.chunked && q->n_chunk > 0;
        s.chunks += q->n_chunk - 1;
    }
    s.gaps = s.gaps && s.n > 0;
    s.chunked = s.chunked && s.n > 0;
    return s;
}

/* Pooled gaps where the file has them. The sum of a request's gaps is l - f, so numbers of chunks
 * and of tokens give the means without them (the first chunk taken to hold one token). */
static void gaps(const struct import_run *r, const struct sums *s, struct figures *f)
{
    const struct figures_stat none = { NAN, NAN, NAN, NAN, NAN, 0 };
    f->latency[FIGURES_ITL] = f->latency[FIGURES_ITL_TOK] = none;
    if (s->later_tok > 0) {
        f->latency[FIGURES_ITL_TOK].mean = s->after_first / (double)s->later_tok;
        f->latency[FIGURES_ITL_TOK].n = s->later_tok;
    }
    if (s->gaps) {
        double *x = mem_alloc((size_t)(s->n_gap + 1) * sizeof *x);
        int64_t n = 0;
        for (int64_t i = 0; i < r->n_request; i++) {
            const struct import_request *q = &r->request[i];
            if (isnan(ttft(q, 0))) continue;
            for (int32_t k = 0; k < q->n_gap; k++) x[n++] = (double)r->gap_ns[q->gap_at + k];
        }
        f->latency[FIGURES_ITL] = stat_of(x, n);
        free(x);
    } else if (s->chunked && s->chunks > 0) {
        f->latency[FIGURES_ITL].mean = s->after_first / (double)s->chunks;
        f->latency[FIGURES_ITL].n = s->chunks;
    }
}

static void rates(const struct import_run *r, struct figures *f)
{
    int64_t first = INT64_MAX, last = -1, tok = 0;
    for (int64_t i = 0; i < r->n_request; i++) {
        const struct run_request *q = &r->request[i].row;
        if (q->t_due_ns >= 0 && q->t_due_ns < first) first = q->t_due_ns;
        if (q->t_last_ns > last) last = q->t_last_ns;
        if (q->status == RUN_OK) tok += q->n_out;
    }
    f->window_s = r->due == IMPORT_DUE_UNKNOWN ? r->duration_s
                  : last > first               ? 1e-9 * (double)(last - first)
                                               : NAN;
    f->requests_per_s = (double)f->n_ok / f->window_s;
    f->output_tok_per_s = (double)tok / f->window_s;
}

/* ---- limits */

static bool within(double v, int64_t limit_ns)
{
    return limit_ns == 0 || v <= (double)limit_ns; /* NAN is not within */
}

static bool one_token(const struct import_request *q)
{
    return ok(q) && q->row.n_out == 1;
}

static bool met_ours(const struct import_request *q, const struct figures_slo *s, int64_t from_ns)
{
    return ok(q) && within(ttft(q, from_ns), s->ttft_ns) && within(e2e(q, from_ns), s->e2e_ns) &&
           (one_token(q) || within(tpot(q), s->tpot_ns));
}

static void attainment(const struct import_run *r, const struct figures_slo *s, struct figures *f)
{
    for (int64_t i = 0; i < r->n_request; i++) {
        const struct import_request *q = &r->request[i];
        int64_t due = q->row.t_due_ns;
        f->met += met_ours(q, s, due);
        f->met_send += met_ours(q, s, q->row.t_start_ns);
        f->met_ttft += ok(q) && within(ttft(q, due), s->ttft_ns);
        f->met_tpot += ok(q) && (one_token(q) || within(tpot(q), s->tpot_ns));
        f->met_e2e += ok(q) && within(e2e(q, due), s->e2e_ns);
        f->n_vacuous += s->tpot_ns > 0 && one_token(q);
    }
    f->goodput_per_s = (double)f->met / f->window_s;
}

/* Deadlines of one request (etalon's deadline_miss_rate, in whole ns). */
static struct figures_fluid fluid_of(const struct import_run *r, const struct import_request *q,
                                     const struct figures_slo *s)
{
    const int64_t most = INT64_MAX / 4; /* of slack and counts: no sum overflows */
    struct figures_fluid f = { 0, 0 };
    int64_t slack = 0;
    for (int32_t k = -1; k < q->n_gap; k++) {
        int64_t x = k < 0 ? q->row.t_first_ns - q->row.t_start_ns : r->gap_ns[q->gap_at + k];
        int64_t limit = k < 0 ? s->ttft_ns : s->tpot_ns, miss = 0;
        if (x - slack > limit) {
            miss = k < 0 ? 1 + (x - slack - s->ttft_ns) / s->tpot_ns : (x - slack) / s->tpot_ns;
            slack = 0;
        } else {
            slack = slack + limit - x < most ? slack + limit - x : most;
        }
        if (miss > most) miss = most;
        f.missed = f.missed < most - miss ? f.missed + miss : most;
        f.total = f.total < most - miss ? f.total + (miss ? miss : 1) : most;
    }
    return f;
}

static void fluidity(const struct import_run *r, const struct figures_slo *s, struct arena *a,
                     struct figures *f)
{
    double sum = 0;
    f->fluidity = NAN;
    if (s->ttft_ns == 0 || s->tpot_ns == 0) return;
    f->fluid = arena_array(a, (size_t)r->n_request, sizeof *f->fluid);
    for (int64_t i = 0; i < r->n_request; i++) {
        const struct import_request *q = &r->request[i];
        if (isnan(ttft(q, 0)) || q->n_gap < 0) continue;
        f->fluid[i] = fluid_of(r, q, s);
        sum += 1 - (double)f->fluid[i].missed / (double)f->fluid[i].total;
        f->n_fluid++;
    }
    if (f->n_fluid) f->fluidity = sum / (double)f->n_fluid;
}

/* ---- what other tools would say of the same requests */

struct tools {
    const struct import_run *r;
    const struct figures_slo *slo;
    const struct sums *s;
    enum import_tool own;
    bool has_slo;
    struct figures *f;
};

static void add(struct tools *t, struct figures_row row)
{
    if (t->f->n_row < FIGURES_MAX_ROW) t->f->row[t->f->n_row++] = row;
}

static const char *stated(const struct tools *t, enum import_tool tool, const char *name)
{
    return t->own == tool ? name : NULL;
}

static double mean_ms(const struct figures *f, enum figures_latency k)
{
    return f->latency[k].mean / 1e6;
}

static void vllm(struct tools *t)
{
    struct figures *f = t->f;
    double good = 0, tok = (double)t->s->tok, wall = t->r->duration_s;
    const char *name = "vllm";
    enum import_tool v = IMPORT_VLLM;
    for (int64_t i = 0; i < t->r->n_request; i++)
        good += met_ours(&t->r->request[i], t->slo, t->r->request[i].row.t_start_ns);
    if (t->own != v) wall = NAN; /* its wall time is that of its own client */
    add(t, (struct figures_row){ name, "mean_ttft_ms", "ms", "first chunk - sent",
                                 stated(t, v, "mean_ttft_ms"), mean_ms(f, FIGURES_TTFT_SEND) });
    add(t, (struct figures_row){ name, "mean_tpot_ms", "ms", "(last - first) / (tokens - 1)",
                                 stated(t, v, "mean_tpot_ms"), mean_ms(f, FIGURES_TPOT) });
    add(t, (struct figures_row){ name, "mean_itl_ms", "ms", "gaps between chunks, pooled",
                                 stated(t, v, "mean_itl_ms"), mean_ms(f, FIGURES_ITL) });
    add(t, (struct figures_row){ name, "n_itl", "gap", "between chunks", NULL,
                                 (double)f->latency[FIGURES_ITL].n });
    add(t, (struct figures_row){ name, "output_throughput", "token/s", "over the stated wall time",
                                 stated(t, v, "output_throughput"), tok / wall });
    if (!t->has_slo) return;
    add(t, (struct figures_row){ name, "good", "request", "within the limits; TPOT is 0 at 1 token",
                                 NULL, good });
    add(t, (struct figures_row){ name, "request_goodput", "request/s", "good / stated wall time",
                                 stated(t, v, "request_goodput"), good / wall });
}

static void guidellm(struct tools *t)
{
    struct figures *f = t->f;
    const struct sums *s = t->s;
    const char *name = "guidellm";
    enum import_tool g = IMPORT_GUIDELLM;
    double good = 0, evaluable = 0;
    for (int64_t i = 0; i < t->r->n_request; i++) {
        const struct import_request *q = &t->r->request[i];
        if (q->row.status == RUN_UNFINISHED) continue;
        if (ok(q) && t->slo->tpot_ns && isnan(tpot(q))) continue;
        if (ok(q) && t->slo->ttft_ns && q->row.t_first_ns < 0) continue;
        evaluable++;
        good += met_ours(q, t->slo, q->row.t_start_ns);
    }
    add(t, (struct figures_row){ name, "mean_ttft_ms", "ms", "first chunk - sent",
                                 stated(t, g, "time_to_first_token_ms mean"),
                                 mean_ms(f, FIGURES_TTFT_SEND) });
    add(t, (struct figures_row){ name, "mean_time_per_output_token_ms", "ms",
                                 "(last - sent) / tokens, weighted by tokens",
                                 stated(t, g, "time_per_output_token_ms mean"),
                                 s->tok ? s->whole / (double)s->tok / 1e6 : NAN });
    add(t, (struct figures_row){ name, "mean_inter_token_latency_ms", "ms",
                                 "(last - first) / (tokens - 1), weighted by tokens - 1",
                                 stated(t, g, "inter_token_latency_ms mean"),
                                 mean_ms(f, FIGURES_ITL_TOK) });
    add(t, (struct figures_row){ name, "count_itl", "token", "after the first", NULL,
                                 (double)s->later_tok });
    if (!t->has_slo) return;
    add(t, (struct figures_row){ name, "good", "request", "within the limits", NULL, good });
    add(t, (struct figures_row){ name, "evaluable", "request", "one-token requests left out", NULL,
                                 evaluable });
}

static void aiperf(struct tools *t)
{
    struct figures *f = t->f;
    const char *name = "aiperf";
    double good = 0;
    int64_t first = INT64_MAX, last = -1;
    for (int64_t i = 0; i < t->r->n_request; i++) {
        const struct import_request *q = &t->r->request[i];
        if (!ok(q)) continue;
        good += met_ours(q, t->slo, q->row.t_start_ns) && !(t->slo->tpot_ns && one_token(q));
        if (q->row.t_start_ns < first) first = q->row.t_start_ns;
        if (q->row.t_last_ns > last) last = q->row.t_last_ns;
    }
    double wall =
        t->r->due == IMPORT_DUE_UNKNOWN || last <= first ? NAN : 1e-9 * (double)(last - first);
    add(t, (struct figures_row){ name, "mean_ttft_ms", "ms", "first chunk - sent", NULL,
                                 mean_ms(f, FIGURES_TTFT_SEND) });
    add(t, (struct figures_row){ name, "mean_itl_ms", "ms", "(last - first) / (tokens - 1)", NULL,
                                 mean_ms(f, FIGURES_TPOT) });
    add(t, (struct figures_row){ name, "mean_icl_ms", "ms", "gaps between chunks, pooled", NULL,
                                 mean_ms(f, FIGURES_ITL) });
    add(t, (struct figures_row){ name, "benchmark_duration_s", "s", "first sent to last token",
                                 NULL, wall });
    if (!t->has_slo) return;
    add(t, (struct figures_row){ name, "good", "request", "within the limits; one token fails TPOT",
                                 NULL, good });
    add(t,
        (struct figures_row){ name, "goodput", "request/s", "good / duration", NULL, good / wall });
}

/* MLPerf's percentile: sorted[int(n p)]. */
static double mlperf_quantile(const double *x, int64_t n, double p)
{
    return n ? x[(int64_t)((double)n * p)] : NAN;
}

static void mlperf(struct tools *t)
{
    double *x = mem_alloc((size_t)(t->r->n_request + 1) * sizeof *x);
    int64_t n = 0;
    const char *name = "mlperf", *means = "first token - due, requests of 2 tokens or more";
    for (int64_t i = 0; i < t->r->n_request; i++) {
        const struct import_request *q = &t->r->request[i];
        if (!isnan(tpot(q))) x[n++] = ttft(q, q->row.t_due_ns);
    }
    bool due = t->r->due == IMPORT_DUE_PLAN || t->r->due == IMPORT_DUE_RELEASED;
    struct figures_stat s = stat_of(x, due ? n : 0);
    add(t, (struct figures_row){ name, "mean_ttft_ms", "ms", means, NULL, s.mean / 1e6 });
    add(t, (struct figures_row){ name, "p50_ttft_ms", "ms", "the same, sorted[int(n p)]", NULL,
                                 mlperf_quantile(x, s.n, .5) / 1e6 });
    add(t, (struct figures_row){ name, "p99_ttft_ms", "ms", "the same, sorted[int(n p)]", NULL,
                                 mlperf_quantile(x, s.n, .99) / 1e6 });
    add(t, (struct figures_row){ name, "mean_tpot_ms", "ms", "(last - first) / (tokens - 1)", NULL,
                                 mean_ms(t->f, FIGURES_TPOT) });
    free(x);
}

static void llmperf(struct tools *t)
{
    double sum = 0;
    for (int64_t i = 0; i < t->r->n_request; i++) {
        const struct import_request *q = &t->r->request[i];
        if (!isnan(ttft(q, 0))) sum += e2e(q, q->row.t_start_ns) / q->row.n_out;
    }
    add(t, (struct figures_row){ "llmperf", "mean_itl_ms", "ms", "(last - sent) / tokens", NULL,
                                 t->s->n ? sum / (double)t->s->n / 1e6 : NAN });
    add(t, (struct figures_row){ "etalon", "fluidity_index", "1", "token deadlines met, mean", NULL,
                                 t->f->fluidity });
}

void figures_of(const struct import_run *r, enum import_tool tool, const struct figures_slo *slo,
                struct arena *a, struct figures *out)
{
    struct sums s = sums_of(r);
    struct tools t = { r, slo, &s, tool, slo->ttft_ns || slo->tpot_ns || slo->e2e_ns, out };
    *out = (struct figures){ .n_due = r->n_request };
    for (int64_t i = 0; i < r->n_request; i++) {
        out->n_ok += ok(&r->request[i]);
        out->n_unfinished += r->request[i].row.status == RUN_UNFINISHED;
    }
    out->n_failed = out->n_due - out->n_ok - out->n_unfinished;
    latencies(r, out);
    gaps(r, &s, out);
    rates(r, out);
    attainment(r, slo, out);
    fluidity(r, slo, a, out);
    const struct figures_stat *lag = &out->latency[FIGURES_LAG];
    out->client_limited = r->due != IMPORT_DUE_SENT && r->due != IMPORT_DUE_UNKNOWN &&
                          (lag->p99 > 5e6 || lag->p99 > .02 * out->latency[FIGURES_TTFT_SEND].p50);
    vllm(&t);
    guidellm(&t);
    aiperf(&t);
    mlperf(&t);
    llmperf(&t);
}

enum figures_verdict figures_judge(const struct figures *f, const struct figures_slo *slo)
{
    if (!slo->ttft_ns && !slo->tpot_ns && !slo->e2e_ns) return FIGURES_NO_LIMIT;
    if (f->client_limited) return FIGURES_INVALID;
    return (double)f->met >= slo->attain_ratio * (double)f->n_due ? FIGURES_HELD : FIGURES_MISSED;
}
