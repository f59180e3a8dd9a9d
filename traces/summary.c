/* traces/summary.c - figures of a trace: rate, burstiness, lengths, how much repeats.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>

#include "base/arena.h"
#include "base/stat.h"
#include "traces/trace_priv.h"

static void lengths_of(double *x, size_t n, struct trace_summary_len *out)
{
    stat_sort(x, n);
    *out = (struct trace_summary_len){ stat_mean(x, n),
                                       stat_quantile_sorted(x, n, 0.5),
                                       stat_quantile_sorted(x, n, 0.9),
                                       stat_quantile_sorted(x, n, 0.99),
                                       x[0],
                                       x[n - 1] };
}

/* Prompt tokens that an unbounded cache would hold when the request comes: up to the last segment
 * of its chain that an earlier request had, in tokens, not blocks. */
static int64_t repeated_tok(const struct trace_rows *t)
{
    struct idmap seen = { 0 };
    int64_t sum = 0;
    for (int64_t i = 0; i < t->n; i++) {
        const struct trace_req *r = &t->row[i];
        int64_t hit = 0;
        for (int32_t j = 0; j < r->n_seg && idmap_get(&seen, r->seg[j].key, NULL); j++)
            hit = r->seg[j].end_tok;
        sum += hit < r->n_in ? hit : r->n_in;
        for (int32_t j = r->n_seg - 1; j >= 0 && idmap_put(&seen, r->seg[j].key, 0); j--) {}
    }
    idmap_release(&seen);
    return sum;
}

static int64_t n_session(const struct trace_rows *t)
{
    struct idmap seen = { 0 };
    for (int64_t i = 0; i < t->n; i++)
        if (t->row[i].session >= 0) idmap_put(&seen, (uint64_t)t->row[i].session, 0);
    int64_t n = (int64_t)seen.n;
    idmap_release(&seen);
    return n;
}

void trace_summarise(const struct trace_rows *t, struct trace_summary *out)
{
    size_t n = (size_t)t->n;
    double *x = mem_alloc((n + 1) * sizeof *x), in_session = 0, sum_in = 0;
    *out = (struct trace_summary){
        .n = t->n, .rate_per_s = NAN, .gap_cv_ratio = NAN, .turns_mean = NAN
    };
    out->span_s = 1e-9 * (double)(t->row[n - 1].t_due_ns - t->row[0].t_due_ns);
    if (out->span_s > 0) out->rate_per_s = (double)(n - 1) / out->span_s;
    for (size_t i = 1; i < n; i++) x[i - 1] = (double)(t->row[i].t_due_ns - t->row[i - 1].t_due_ns);
    if (n > 2 && out->span_s > 0) out->gap_cv_ratio = stat_sd(x, n - 1) / stat_mean(x, n - 1);
    for (size_t i = 0; i < n; i++) {
        x[i] = t->row[i].n_in;
        sum_in += x[i];
        in_session += t->row[i].session >= 0;
    }
    lengths_of(x, n, &out->in);
    for (size_t i = 0; i < n; i++) x[i] = t->row[i].n_out;
    lengths_of(x, n, &out->out);
    out->repeated_tok = repeated_tok(t);
    out->repeated_ratio = (double)out->repeated_tok / sum_in;
    out->n_session = n_session(t);
    if (out->n_session) out->turns_mean = in_session / (double)out->n_session;
    free(x);
}
