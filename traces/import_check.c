/* traces/import_check.c - what a file states of itself against what its rows give.
 *
 * A tool computes its totals and means from the requests that it keeps, so they have to agree, but for
 * rounding: 1e-3 and half a unit of the second decimal. What does not is a doubt that names both
 * figures. More requests completed than there are rows of cannot be: that is an error.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "traces/import_out.h"
#include "traces/import_priv.h"

struct check {
    struct import_in *in;
    const struct import_run *r;
    const struct figures *g; /* NULL: the file keeps no requests */
    struct import_doubts *to;
    const char *where; /* "run 2: " */
};

static bool agree(double a, double b)
{
    return fabs(a - b) <= 1e-3 * fmax(fabs(a), fabs(b)) + 0.00501;
}

static void doubt(struct import_doubts *d, const char *text)
{
    if (d->n < IMPORT_MAX_DOUBT)
        d->text[d->n++] = text;
    else
        d->n_more++;
}

static double claim(const struct check *c, const char *name)
{
    const struct import_figure *f = import_stated(c->r, name);
    return f ? f->value : NAN;
}

/* NAN on either side: nothing to compare. */
static void compare(const struct check *c, const char *name, double stated, double found,
                    const char *whose)
{
    if (!isfinite(stated) || !isfinite(found) || agree(stated, found)) return;
    doubt(c->to, arena_printf(c->in->a, "%s%s: the file states %.9g, %s give %.9g", c->where, name,
                              stated, whose, found));
}

/* Whole numbers. */
static void count(const struct check *c, const char *name, double found)
{
    double stated = claim(c, name);
    if (!isfinite(stated) || stated == found) return;
    doubt(c->to, arena_printf(c->in->a, "%s%s: the file states %.15g, its requests give %.15g",
                              c->where, name, stated, found));
}

/* ---- runs */

struct totals {
    double n_ok, in, out; /* of requests that ended well, tokens of these */
    double span_s;        /* first sent to last token; NAN */
};

static struct totals totals_of(const struct import_run *r)
{
    struct totals t = { .span_s = NAN };
    int64_t first = INT64_MAX, last = -1;
    for (int64_t i = 0; i < r->n_request; i++) {
        const struct run_request *q = &r->request[i].row;
        if (q->t_start_ns >= 0 && q->t_start_ns < first) first = q->t_start_ns;
        if (q->t_last_ns > last) last = q->t_last_ns;
        if (q->status != RUN_OK) continue;
        t.n_ok++;
        t.in += q->n_in;
        t.out += q->n_out;
    }
    if (r->due != IMPORT_DUE_UNKNOWN && last > first) t.span_s = 1e-9 * (double)(last - first);
    return t;
}

static void check_latencies(const struct check *c, const char *end, enum figures_latency k)
{
    const struct figures_stat *s = &c->g->latency[k];
    const struct {
        const char *stat;
        double ns;
    } at[] = { { "mean", s->mean },
               { "median", s->p50 },
               { "p50", s->p50 },
               { "p90", s->p90 },
               { "p99", s->p99 } };
    if (s->n == 0) return;
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        const char *name = arena_printf(c->in->a, "%s_%s_ms", at[i].stat, end);
        compare(c, name, claim(c, name), at[i].ns / 1e6, "its requests");
    }
}

/* The same of two figures: of the rows where there are any, else of the file's own totals. */
static void check_rates(const struct check *c, const struct totals *t)
{
    const char *whose = c->g ? "its requests" : "its totals";
    double wall = c->r->duration_s;
    double n = c->g ? t->n_ok + (double)c->r->n_empty : claim(c, "completed");
    double in = c->r->n_empty       ? NAN /* their prompts count for the tool */
                : c->g && t->in > 0 ? t->in
                                    : claim(c, "total_input_tokens");
    double out = c->g ? t->out : claim(c, "total_output_tokens");
    compare(c, "request_throughput", claim(c, "request_throughput"), n / wall, whose);
    compare(c, "input_throughput", claim(c, "input_throughput"), in / wall, whose);
    compare(c, "output_throughput", claim(c, "output_throughput"), out / wall, whose);
    compare(c, "total_token_throughput", claim(c, "total_token_throughput"), (in + out) / wall,
            whose);
}

/* vLLM and sglang: lists and what was computed from them. */
static void check_flat(const struct check *c)
{
    struct totals t = totals_of(c->r);
    double asked = claim(c, "num_prompts");
    if (c->g) {
        count(c, "completed", t.n_ok + (double)c->r->n_empty);
        count(c, "failed", (double)(c->g->n_due - c->g->n_ok - c->r->n_empty));
        if (t.in > 0 && !c->r->n_empty) count(c, "total_input_tokens", t.in);
        count(c, "total_output_tokens", t.out);
        if (asked < (double)c->r->n_request) count(c, "num_prompts", (double)c->r->n_request);
    } else {
        double n = claim(c, "completed");
        if (n > asked) compare(c, "num_prompts", asked, n, "its completed requests alone");
    }
    check_rates(c, &t);
    if (c->r->duration_s < t.span_s)
        compare(c, "duration", c->r->duration_s, t.span_s, "its requests");
    if (!c->g || c->r->n_empty) return; /* the tool's means are over empty answers too */
    check_latencies(c, "ttft", FIGURES_TTFT_SEND);
    check_latencies(c, "tpot", FIGURES_TPOT);
    check_latencies(c, "itl", FIGURES_ITL);
    check_latencies(c, "e2el", FIGURES_E2E_SEND);
    check_latencies(c, "e2e_latency", FIGURES_E2E_SEND);
}

/* Its percentiles are of another kind, its request_latency goes to the end of the stream. */
static void check_guidellm(const struct check *c)
{
    struct totals t = totals_of(c->r);
    if (!c->g || c->r->sampled) return;
    count(c, "request_totals successful", t.n_ok + (double)c->r->n_empty);
    count(c, "request_totals errored", (double)(c->g->n_failed - c->r->n_empty));
    count(c, "request_totals incomplete", (double)c->g->n_unfinished);
    if (c->r->n_empty) return; /* its means are over empty answers too */
    compare(c, "prompt_token_count mean", claim(c, "prompt_token_count mean"), t.in / t.n_ok,
            "its requests");
    compare(c, "output_token_count mean", claim(c, "output_token_count mean"), t.out / t.n_ok,
            "its requests");
    for (int i = 0; i < c->g->n_row; i++)
        if (c->g->row[i].stated && strcmp(c->g->row[i].tool, "guidellm") == 0)
            compare(c, c->g->row[i].stated, claim(c, c->g->row[i].stated), c->g->row[i].value,
                    "its requests");
    if (c->r->duration_s < t.span_s)
        compare(c, "duration", c->r->duration_s, t.span_s, "its requests");
}

static void check_export(const struct check *c)
{
    double n = claim(c, "request_count avg"), good = claim(c, "good_request_count avg");
    double wall = claim(c, "benchmark_duration avg");
    const struct import_figure *unit = import_stated(c->r, "benchmark_duration avg");
    if (unit) wall *= 1e-9 * (double)import_unit_ns(unit->unit);
    if (!(wall > 0)) wall = NAN;
    compare(c, "request_throughput avg", claim(c, "request_throughput avg"), n / wall,
            "its totals");
    compare(c, "output_token_throughput avg", claim(c, "output_token_throughput avg"),
            n * claim(c, "output_sequence_length avg") / wall, "its totals");
    compare(c, "goodput avg", claim(c, "goodput avg"), good / wall, "its totals");
    if (good > n) compare(c, "good_request_count avg", good, n, "all that ended well");
}

/* Percentiles of one figure do not fall. */
static void check_order(const struct check *c)
{
    static const char *const stat[] = { "p50", "p90", "p99" };
    for (int i = 0; i < c->r->n_figure; i++) {
        const char *name = c->r->figure[i].name, *at = strstr(name, "p50");
        if (!at) continue;
        for (int k = 1; k < 3; k++) {
            const char *lower =
                arena_printf(c->in->a, "%.*s%s%s", (int)(at - name), name, stat[k - 1], at + 3);
            const char *upper =
                arena_printf(c->in->a, "%.*s%s%s", (int)(at - name), name, stat[k], at + 3);
            double lo = claim(c, lower), hi = claim(c, upper);
            if (lo > hi && !agree(lo, hi))
                doubt(c->to, arena_printf(c->in->a, "%s%s: the file states %.9g, and %.9g as %s",
                                          c->where, upper, hi, lo, lower));
        }
    }
}

/* Times, counts and rates. */
static void check_signs(const struct check *c)
{
    for (int i = 0; i < c->r->n_figure; i++) {
        const struct import_figure *f = &c->r->figure[i];
        if (f->value < 0)
            doubt(c->to, arena_printf(c->in->a, "%s%s: the file states %.9g %s, below zero",
                                      c->where, f->name, f->value, f->unit));
    }
}

/* A request's gaps between chunks add up to last - first. */
static void check_gaps(const struct check *c)
{
    const struct import_run *r = c->r;
    int64_t n = 0, n_off = 0, worst = -1;
    double off = 0, sum_s = 0, whole_s = 0;
    for (int64_t i = 0; i < r->n_request; i++) {
        const struct import_request *q = &r->request[i];
        double sum = 0, span = (double)(q->row.t_last_ns - q->row.t_first_ns);
        if (q->row.status != RUN_OK || q->row.t_first_ns < 0 || q->n_gap < 0) continue;
        for (int32_t k = 0; k < q->n_gap; k++) sum += (double)r->gap_ns[q->gap_at + k];
        n++;
        if (fabs(sum - span) <= 0.01 * fmax(sum, span) + 1e6) continue;
        n_off++;
        if (fabs(sum - span) <= off) continue;
        off = fabs(sum - span);
        worst = i;
        sum_s = 1e-9 * sum;
        whole_s = 1e-9 * span;
    }
    if (n_off)
        doubt(c->to,
              arena_printf(c->in->a,
                           "%sgaps between chunks of %lld of %lld requests do not add up to the "
                           "time from first to last: of request %lld %.6g s, not %.6g s",
                           c->where, (long long)n_off, (long long)n, (long long)worst, sum_s,
                           whole_s));
}

static int check_run(struct import_in *in, int i)
{
    static const struct figures_slo none = { 0 };
    struct import_run *r = &in->out->run[i];
    enum import_tool tool = in->out->tool;
    struct check c = { .in = in, .r = r, .to = &r->doubts, .where = "" };
    double n = claim(&c, "completed");
    if (in->out->n_run > 1) c.where = arena_printf(in->a, "run %d: ", i + 1);
    if (r->n_kept > 0 && n > (double)r->n_kept)
        return err_set(in->e, ST_USAGE,
                       "%s: %sstates %.15g completed requests, and has rows of %lld: one of the "
                       "two is not of this run",
                       in->path, c.where, n, (long long)r->n_kept);
    if (r->n_request > 0) {
        struct figures *g = arena_alloc(in->a, sizeof *g);
        figures_of(r, tool, &none, in->a, g);
        c.g = g;
    }
    check_signs(&c);
    if (tool == IMPORT_VLLM || tool == IMPORT_SGLANG) check_flat(&c);
    if (tool == IMPORT_GUIDELLM) check_guidellm(&c);
    if (tool == IMPORT_AIPERF || tool == IMPORT_GENAI_PERF) check_export(&c);
    if (tool != IMPORT_GUIDELLM) check_order(&c);
    if (c.g) check_gaps(&c);
    return ST_OK;
}

/* ---- points */

/* Bandwidths are printed to two decimals of 1e9, times to four digits: 1 %. */
static void check_collectives(struct import_in *in)
{
    struct import_file *f = in->out;
    int n_off = 0, n_busbw = 0, worst = -1;
    double off = 0, sum = 0, wrong = 0;
    bool checked = false;
    for (int i = 0; i < f->n_point; i++) {
        const struct import_point *p = &f->point[i];
        double bus = p->row.bytes / import_point_mean_s(p) *
                     import_bus_factor((enum points_op)p->row.op, p->row.ranks);
        if (isfinite(p->stated_busbw)) {
            sum += p->stated_busbw;
            n_busbw++;
        }
        checked = checked || isfinite(p->wrong);
        if (p->wrong > 0) wrong += p->wrong;
        if (!isfinite(p->stated_busbw) || !isfinite(bus)) continue;
        double d = fabs(bus - p->stated_busbw) / (0.01 * bus + 1e7);
        n_off += d > 1;
        if (d > fmax(off, 1)) worst = i;
        off = fmax(off, d);
    }
    if (n_off) {
        const struct import_point *p = &f->point[worst];
        doubt(&f->doubts,
              arena_printf(in->a,
                           "busbw of %d of %d rows is not bytes / time x factor: of %.0f bytes the "
                           "file states %.4g GB/s, its time gives %.4g GB/s",
                           n_off, f->n_point, p->row.bytes, 1e-9 * p->stated_busbw,
                           1e-9 * p->row.bytes / import_point_mean_s(p) *
                               import_bus_factor((enum points_op)p->row.op, p->row.ranks)));
    }
    if (n_busbw && isfinite(f->stated_mean_busbw) &&
        !agree(1e-9 * f->stated_mean_busbw, 1e-9 * sum / n_busbw))
        doubt(&f->doubts,
              arena_printf(in->a,
                           "average bus bandwidth: the file states %.6g GB/s, its rows give "
                           "%.6g GB/s",
                           1e-9 * f->stated_mean_busbw, 1e-9 * sum / n_busbw));
    if (checked && isfinite(f->stated_wrong) && (f->stated_wrong > 0) != (wrong > 0))
        doubt(&f->doubts,
              arena_printf(in->a, "out of bounds values: the file states %.9g, its rows give %.9g",
                           f->stated_wrong, wrong));
}

static void check_rates_of(struct import_in *in, int i)
{
    const struct import_point *p = &in->out->point[i];
    double mean = import_point_mean_s(p), rate = 0, tok = (double)(p->row.m + p->row.n);
    for (int64_t k = 0; k < p->n_sample; k++) rate += tok / p->s_per_call[k] / (double)p->n_sample;
    if (isfinite(p->stated_s) && !(fabs(p->stated_s - mean) <= 1e-3 * mean + 1e-9))
        doubt(&in->out->doubts,
              arena_printf(in->a, "test %d, avg_ns: the file states %.9g, its samples give %.9g",
                           i + 1, 1e9 * p->stated_s, 1e9 * mean));
    bool samples = p->n_sample > 1 || isfinite(p->stated_s);
    if (samples && isfinite(p->stated_tok_per_s) && !agree(p->stated_tok_per_s, rate))
        doubt(&in->out->doubts,
              arena_printf(in->a, "test %d, avg_ts: the file states %.9g, its samples give %.9g",
                           i + 1, p->stated_tok_per_s, rate));
}

/* Runs of one file that are not of one benchmark. */
static void compare_runs(struct import_in *in)
{
    const struct import_run *first = in->out->run;
    for (int i = 1; i < in->out->n_run; i++) {
        struct import_run *r = &in->out->run[i];
        const char *d = import_differ(first->model, first->date, r->model, r->date, in->a);
        if (d) import_note(r, arena_printf(in->a, "Run 1 is of %s.", d));
    }
}

int import_check(struct import_in *in)
{
    struct import_file *f = in->out;
    int st = ST_OK;
    compare_runs(in);
    for (int i = 0; i < f->n_run && st == ST_OK; i++) st = check_run(in, i);
    if (f->n_run == 0 && f->tool == IMPORT_NCCL_TESTS) check_collectives(in);
    for (int i = 0; f->n_run == 0 && f->tool == IMPORT_LLAMA_BENCH && i < f->n_point; i++)
        check_rates_of(in, i);
    return st;
}
