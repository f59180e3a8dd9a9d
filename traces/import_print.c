/* traces/import_print.c - imported results as text: our figures, and what others would call them.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "base/units.h"
#include "base/utf8.h"
#include "traces/import_out.h"

const char *import_due_text(enum import_due due)
{
    static const char *const text[] = { "the arrival plan", "release by the rate limiter",
                                        "entry into the client's own queue", "sending",
                                        "unknown: durations only" };
    return text[due];
}

const struct import_figure *import_stated(const struct import_run *r, const char *name)
{
    for (int i = 0; name && i < r->n_figure; i++)
        if (strcmp(r->figure[i].name, name) == 0) return &r->figure[i];
    return NULL;
}

bool import_agrees(double recomputed, double stated)
{
    return fabs(recomputed - stated) <= 1e-4 * fmax(fabs(recomputed), fabs(stated)) + 1e-6;
}

double import_point_mean_s(const struct import_point *p)
{
    return stat_mean(p->s_per_call, (size_t)p->n_sample);
}

/* Text of unknown origin, as one harmless line. Rotates over four buffers. */
static const char *clean(const char *text)
{
    static char ring[4][160];
    static int at;
    char *buf = ring[at++ % 4];
    snprintf(buf, sizeof ring[0], "%s", text);
    utf8_tidy(buf, '?');
    return buf;
}

/* At most six decimals, no zeros at their end; "-" for NAN. Rotates over eight buffers. */
static const char *number(double v)
{
    static char ring[8][48];
    static int at;
    char *buf = ring[at++ % 8];
    if (isnan(v)) return "-";
    if (isinf(v)) return v > 0 ? "inf" : "-inf";
    bool plain = fabs(v) < 1e12 && (fabs(v) >= 1e-3 || v == 0);
    snprintf(buf, sizeof ring[0], plain ? "%.6f" : "%.6g", v);
    if (plain) {
        size_t n = strlen(buf);
        while (n > 1 && buf[n - 1] == '0') buf[--n] = 0;
        if (buf[n - 1] == '.') buf[--n] = 0;
    }
    return buf;
}

static const char *ms(double ns)
{
    return number(ns / 1e6);
}

/* ---- runs */

static void print_latencies(const struct figures *g, enum import_due due, FILE *to)
{
    static const char *const label[] = { "TTFT from due",
                                         "TTFT from sending",
                                         "TPOT",
                                         "ITL",
                                         "ITL per token",
                                         "E2E from due",
                                         "E2E from sending",
                                         "E2E per token",
                                         "lag, due to sent" };
    bool one_clock = due == IMPORT_DUE_SENT || due == IMPORT_DUE_UNKNOWN;
    fprintf(to, "  %-18s %13s %13s %13s %13s %9s\n", "ms", "mean", "p50", "p90", "p99", "n");
    for (int k = 0; k < FIGURES_N_LATENCY; k++) {
        const struct figures_stat *s = &g->latency[k];
        if (s->n == 0) continue;
        if (one_clock && (k == FIGURES_TTFT || k == FIGURES_E2E || k == FIGURES_LAG)) continue;
        fprintf(to, "  %-18s %13s %13s %13s %13s %9lld\n", label[k], ms(s->mean), ms(s->p50),
                ms(s->p90), ms(s->p99), (long long)s->n);
    }
    if (g->n_due > g->n_ok && g->latency[FIGURES_TTFT].n > 0)
        fprintf(to, "  %-18s %13s %13s %13s %13s %9lld\n", "TTFT, failed inf", "",
                ms(g->ttft_p50_failed), "", ms(g->ttft_p99_failed), (long long)g->n_due);
}

static void print_limits(const struct figures *g, const struct figures_slo *slo, FILE *to)
{
    const struct {
        const char *name;
        int64_t limit_ns, met;
    } clause[] = { { "TTFT", slo->ttft_ns, g->met_ttft },
                   { "TPOT", slo->tpot_ns, g->met_tpot },
                   { "E2E", slo->e2e_ns, g->met_e2e } };
    char limit[48];
    bool any = false;
    for (int i = 0; i < 3; i++) any = any || clause[i].limit_ns > 0;
    if (!any) return;
    fprintf(to, "  within limits      %lld of %lld due (%.4g %%)", (long long)g->met,
            (long long)g->n_due, 100.0 * (double)g->met / (double)g->n_due);
    if (isfinite(g->goodput_per_s)) fprintf(to, ", goodput %.4g requests/s", g->goodput_per_s);
    for (int i = 0; i < 3; i++)
        if (clause[i].limit_ns > 0)
            fprintf(to, "; %s <= %s: %lld", clause[i].name,
                    units_text_ns(clause[i].limit_ns, limit, sizeof limit),
                    (long long)clause[i].met);
    if (g->n_vacuous) fprintf(to, "; %lld met TPOT by having one token", (long long)g->n_vacuous);
    fputc('\n', to);
    static const char *const verdict[] = { "", "held", "missed", "no verdict" };
    fprintf(to, "  asked for          %.4g %%: %s\n", 100 * slo->attain_ratio,
            verdict[figures_judge(g, slo)]);
    if (g->met_send != g->met)
        fprintf(to, "                     %lld if counted from sending\n", (long long)g->met_send);
}

static void print_lag(const struct figures *g, enum import_due due, FILE *to)
{
    const struct figures_stat *lag = &g->latency[FIGURES_LAG];
    if (due == IMPORT_DUE_SENT || due == IMPORT_DUE_UNKNOWN) {
        fputs("  The file has no due times: a lag of the client, and a queue in front of its "
              "limit, are in no figure.\n",
              to);
        return;
    }
    if (due == IMPORT_DUE_QUEUED)
        fputs(
            "  The plan's due times are not in the file: what the client lost before its queue is "
            "in no figure.\n",
            to);
    if (!g->client_limited) return;
    fprintf(to,
            "  CLIENT-LIMITED: requests were sent late, p99 %s ms, at most %s ms; limits are 5 ms "
            "and 2 %%\n  of the median TTFT. The run says little about the server: no verdict.\n",
            ms(lag->p99), ms(lag->max));
}

static void print_conventions(const struct import_run *r, const struct figures *g, FILE *to)
{
    const char *tool = "";
    fputs("\n  The same requests by the definitions of each tool\n", to);
    for (int i = 0; i < g->n_row; i++) {
        const struct figures_row *q = &g->row[i];
        if (isnan(q->value)) continue;
        const struct import_figure *s = import_stated(r, q->stated);
        fprintf(to, "  %-9s %-30s %14s %-9s %s", strcmp(tool, q->tool) ? q->tool : "", q->key,
                number(q->value), strcmp(q->unit, "1") ? q->unit : "", q->means);
        if (s)
            fprintf(to, " [file: %s%s]", number(s->value),
                    import_agrees(q->value, s->value) ? "" : ", differs");
        fputc('\n', to);
        tool = q->tool;
    }
}

static void print_figures(const struct import_run *r, FILE *to)
{
    const char *means = "";
    for (int i = 0; i < r->n_figure; i++) {
        const struct import_figure *q = &r->figure[i];
        fprintf(to, "  %-40s %14s %-13s", clean(q->name), number(q->value),
                strcmp(q->unit, "1") ? clean(q->unit) : "");
        if (isfinite(q->lo) && isfinite(q->hi))
            fprintf(to, " [%s, %s]", number(q->lo), number(q->hi));
        fprintf(to, " %s\n", strcmp(means, q->means) ? q->means : *means ? "\"" : "");
        means = q->means;
    }
}

void import_print_run(const struct import_file *f, int run_number, const struct figures *g,
                      const struct figures_slo *slo, FILE *to)
{
    const struct import_run *r = &f->run[run_number];
    fprintf(to, "%s: %s", f->path, f->tool_name);
    if (*f->version) fprintf(to, " %s", clean(f->version));
    if (f->n_run > 1) fprintf(to, ", run %d of %d", run_number + 1, f->n_run);
    if (*r->model) fprintf(to, ", %s", clean(r->model));
    if (*r->title) fprintf(to, ", %s", clean(r->title));
    if (*r->date) fprintf(to, ", %s", r->date);
    fputc('\n', to);
    if (r->n_request > 0) {
        fprintf(to, "  requests           %lld due: %lld ended well, %lld failed",
                (long long)g->n_due, (long long)g->n_ok, (long long)g->n_failed);
        if (g->n_unfinished) fprintf(to, ", %lld cut off", (long long)g->n_unfinished);
        fprintf(to, "; due is %s\n", import_due_text(r->due));
        if (isfinite(g->requests_per_s))
            fprintf(to, "  throughput         %.4g requests/s, %.4g output tokens/s over %.4g s\n",
                    g->requests_per_s, g->output_tok_per_s, g->window_s);
        print_latencies(g, r->due, to);
        print_limits(g, slo, to);
        print_lag(g, r->due, to);
        print_conventions(r, g, to);
    } else {
        fputs("  Per-request data are absent: these are the figures as the tool defines them, and "
              "no other\n  definition can be computed.\n",
              to);
        if (slo->ttft_ns || slo->tpot_ns || slo->e2e_ns)
            fputs("  The limits cannot be checked.\n", to);
        print_figures(r, to);
    }
    for (int i = 0; i < r->n_note; i++) fprintf(to, "  %s\n", clean(r->note[i]));
}

/* ---- points */

static void print_collectives(const struct import_file *f, FILE *to)
{
    int off = 0;
    fprintf(to, "  %-13s %-6s %-8s %5s %14s %12s %10s %10s %8s\n", "op", "type", "", "ranks",
            "bytes", "time (us)", "algbw", "busbw", "#wrong");
    for (int i = 0; i < f->n_point; i++) {
        const struct import_point *p = &f->point[i];
        char op[32], dtype[32];
        double t = import_point_mean_s(p), bw = p->row.bytes / t;
        double bus = bw * import_bus_factor((enum points_op)p->row.op, p->row.ranks);
        char bus_text[32] = "-"; /* unknown without a number of ranks */
        if (isfinite(bus)) snprintf(bus_text, sizeof bus_text, "%.2f", bus * 1e-9);
        fprintf(to, "  %-13s %-6s %-8s %5d %14.0f %12s %10.2f %10s %8s\n",
                points_word(POINTS_OP_WORDS, p->row.op, op, sizeof op),
                points_word(POINTS_DTYPE_WORDS, p->row.dtype, dtype, sizeof dtype),
                p->row.part == POINTS_IN_PLACE ? "in place" : "", p->row.ranks, p->row.bytes,
                number(t * 1e6), bw * 1e-9, bus_text, isnan(p->wrong) ? "-" : number(p->wrong));
        off += isfinite(p->stated_busbw) && isfinite(bus) &&
               !(fabs(bus - p->stated_busbw) <= .01 * bus + 1e7);
    }
    fputs("  algbw = bytes / time, busbw = algbw x factor of the collective, both in 1e9 byte/s, "
          "from the\n  stated time",
          to);
    if (off) fprintf(to, "; the stated busbw of %d rows differs by more than 1 %%", off);
    fputs(".\n", to);
    if (f->inferred)
        fputs("  The table does not name its collective: it follows from the text around it, or "
              "from busbw / algbw.\n",
              to);
    if (f->cpu_time)
        fputs("  Times are those of the launch on the CPU (-C 1), not of the transfer.\n", to);
}

static void print_rates(const struct import_file *f, FILE *to)
{
    fprintf(to, "  %-8s %8s %8s %8s %8s %8s %14s %14s %14s\n", "op", "prompt", "output", "depth",
            "threads", "samples", "time (ms)", "token/s", "stated avg_ts");
    for (int i = 0; i < f->n_point; i++) {
        const struct import_point *p = &f->point[i];
        char op[32];
        double t = import_point_mean_s(p);
        fprintf(to, "  %-8s %8lld %8lld %8lld %8d %8lld %14s %14s %14s\n",
                points_word(POINTS_OP_WORDS, p->row.op, op, sizeof op), (long long)p->row.m,
                (long long)p->row.n, (long long)p->row.ctx, p->row.threads, (long long)p->n_sample,
                number(t * 1e3), number((double)(p->row.m + p->row.n) / t),
                number(p->stated_tok_per_s));
    }
    fputs("  token/s is tokens over mean time; avg_ts is a mean of rates. Samples are of one "
          "process: one run.\n",
          to);
    if (f->mixed) fprintf(to, "  Rows differ in %s as well.\n", clean(f->mixed));
}

void import_print_points(const struct import_file *f, FILE *to)
{
    double wrong = 0;
    fprintf(to, "%s: %s", f->path, f->tool_name);
    if (*f->version) fprintf(to, " %s", clean(f->version));
    if (*f->model) fprintf(to, ", %s", clean(f->model));
    if (*f->machine) fprintf(to, ", %s", clean(f->machine));
    if (f->date && *f->date) fprintf(to, ", %s", f->date);
    fputc('\n', to);
    if (f->tool == IMPORT_NCCL_TESTS)
        print_collectives(f, to);
    else
        print_rates(f, to);
    for (int i = 0; i < f->n_point; i++) wrong += f->point[i].wrong > 0;
    if (wrong > 0) fprintf(to, "  WRONG DATA in %.0f rows: their times mean nothing.\n", wrong);
}
