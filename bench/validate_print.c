/* bench/validate_print.c - the comparison as text and as JSON. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "base/json.h"
#include "base/prov.h"
#include "base/units.h"
#include "bench/validate.h"

static const char *const use_word[VALIDATE_N_USE] = { "held out", "calibrated" };
static const char *const tost_word[3] = { "accurate", "not accurate", "inconclusive" };

/* "-1.2 %", or "-". */
static const char *percent(double ratio, bool sign, char *buf)
{
    if (!isfinite(ratio)) return strcpy(buf, "-");
    snprintf(buf, 24, sign ? "%+.1f %%" : "%.1f %%", 100 * ratio);
    return buf;
}

/* Rows of a table; text pads with blanks, Markdown with bars. */
struct table {
    FILE *f;
    bool md;
    int column, width; /* of all columns but the first */
};

static void cell(struct table *t, const char *text)
{
    if (t->md)
        fprintf(t->f, "| %s ", text);
    else
        fprintf(t->f, t->column ? "  %*s" : "  %-*s", t->column ? t->width : 18, text);
    t->column++;
}

static void end_row(struct table *t)
{
    fputs(t->md ? "|\n" : "\n", t->f);
    t->column = 0;
}

static void head_row(struct table *t, const char *const *name, int n)
{
    for (int i = 0; i < n; i++) cell(t, name[i]);
    end_row(t);
    if (!t->md) return;
    for (int i = 0; i < n; i++) fputs(i ? "|---:" : "|---", t->f);
    fputs("|\n", t->f);
}

static void heading(struct table *t, const char *text)
{
    fprintf(t->f, t->md ? "\n### %s\n\n" : "\n%s\n", text);
}

static void cell_percent(struct table *t, double ratio, bool sign)
{
    char buf[24];
    cell(t, percent(ratio, sign, buf));
}

static void cell_range(struct table *t, double lo, double hi)
{
    char buf[64] = "-";
    if (isfinite(lo) && isfinite(hi))
        snprintf(buf, sizeof buf, "%+.1f .. %+.1f %%", 100 * lo, 100 * hi);
    cell(t, buf);
}

/* ---- tables */

static void print_head(const struct validate *v, FILE *f, bool md)
{
    int runs = 0, most = 0;
    for (int i = 0; i < v->n_case; i++) {
        runs += v->c[i].n_measured;
        if (v->c[i].n_measured > most) most = v->c[i].n_measured;
    }
    if (v->title) fprintf(f, md ? "## %s\n\n" : "%s\n", v->title);
    for (int i = 0; i < v->n_note; i++) fprintf(f, md ? "%s\n\n" : "%s\n", v->note[i]);
    fprintf(f,
            "%d configuration%s: %d held out, %d calibrated the prediction, %d without a "
            "prediction; %d measured run%s",
            v->n_case, v->n_case == 1 ? "" : "s", v->n_of[VALIDATE_HELD_OUT],
            v->n_of[VALIDATE_CALIBRATED], v->n_refused, runs, runs == 1 ? "" : "s");
    if (most > 1)
        fprintf(f, " (at most %d each)\n", most);
    else
        fputs(runs > 1 ? " (one each)\n" : "\n", f);
    fprintf(f, "%sverdict: %s%s", md ? "\n**" : "", tost_word[v->verdict], md ? "**" : "");
    fprintf(f, " %s +-%.3g %% throughput, %.3g %% mean TPOT, %.3g %% mean TTFT, %.3g %% p99 TPOT",
            v->verdict == VALIDATE_INCONCLUSIVE ? "at" : "within", 100 * v->o.delta_throughput,
            100 * v->o.delta_tpot, 100 * v->o.delta_ttft, 100 * v->o.delta_tail);
    if (v->n_single && v->n_single == v->n_of[VALIDATE_HELD_OUT])
        fputs(": " VALIDATE_NO_FLOOR, f);
    else if (v->n_single)
        fprintf(f, "; %d configuration%s of one run not judged: noise floor unknown", v->n_single,
                v->n_single == 1 ? "" : "s");
    else if (!v->n_of[VALIDATE_HELD_OUT])
        fputs(": nothing was held out", f);
    if (v->disturbed) fputs("; other work disturbed most measured runs", f);
    fputc('\n', f);
    for (int i = 0; i < v->n_case; i++)
        if (v->c[i].calibrated)
            fprintf(f, "%s%s: calibrated, not held out: %s\n", md ? "\n" : "", v->c[i].name,
                    v->c[i].calibrated);
}

static void print_bars(const struct validate *v, struct table *t)
{
    heading(t, "Bars, on configurations that were held out");
    for (int i = 0; i < VALIDATE_N_BAR; i++) {
        const struct validate_bar *b = &v->bar[i];
        fprintf(t->f, t->md ? "- %s: **%s**: %s\n" : "  %-12s%-14s%s\n", b->name,
                validate_verdict_word[b->verdict], b->text);
    }
}

/* Errors over their bar that only the floor of the worst of n accounts for. */
static void print_beyond(const struct validate *v, struct table *t)
{
    bool any = false;
    for (int i = 0; i < v->n_case; i++)
        for (int k = 0; k < VALIDATE_N_JUDGED; k++) {
            int q = validate_judged[k];
            const struct validate_case *c = &v->c[i];
            const struct validate_error *x = &c->err[q];
            double ape = fabs(expm1(x->e));
            if (c->refused || c->use != VALIDATE_HELD_OUT || !isfinite(x->floor)) continue;
            if (!(ape > validate_worst_limit(&v->o, q) && ape > expm1(x->floor))) continue;
            if (!any) heading(t, "Beyond the bar and the configuration's own noise floor");
            any = true;
            fprintf(t->f, "%s%s, %s: %+.1f %%; own floor %.1f %%, that of the worst %.1f %%\n",
                    t->md ? "- " : "  ", c->name, validate_q_name(q), 100 * expm1(x->e),
                    100 * expm1(x->floor), 100 * expm1(x->floor_all));
        }
}

static void print_sums(const struct validate *v, enum validate_use use, struct table *t)
{
    static const char *const head[] = { "quantity",   "bias",   "90 % interval", "MAPE",
                                        "MAPE floor", "median", "worst",         "equivalence" };
    static const int shown[] = { 0, 1, 5, 6, 10, 16, 20 };
    char text[64];
    if (!v->n_of[use]) return;
    snprintf(text, sizeof text, "Errors, %s (%d)", use_word[use], v->n_of[use]);
    heading(t, text);
    head_row(t, head, 8);
    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++) {
        const struct validate_sum *s = &v->sum[use][shown[i]];
        if (!s->n) continue;
        cell(t, validate_q_name(shown[i]));
        cell_percent(t, expm1(s->bias.mid), true);
        cell_range(t, expm1(s->bias.lo), expm1(s->bias.hi));
        cell_percent(t, s->mape, false);
        cell_percent(t, s->floor, false);
        cell_percent(t, s->median, false);
        cell_percent(t, s->worst, false);
        if (s->delta > 0)
            snprintf(text, sizeof text, "%s",
                     s->tost == VALIDATE_MISSED ? "no" : tost_word[s->tost]);
        cell(t, s->delta > 0 ? text : "-");
        end_row(t);
    }
}

static void print_quantiles(const struct validate *v, enum validate_use use, struct table *t)
{
    static const char *const head[] = { "predicted/measured", "mean", "p50", "p90", "p95", "p99" };
    char text[64];
    if (!v->n_of[use]) return;
    snprintf(text, sizeof text, "Ratios (geometric mean), %s", use_word[use]);
    heading(t, text);
    head_row(t, head, 6);
    for (int m = 0; m < METRIC_N; m++) {
        cell(t, (const char *[]){ "TTFT", "TPOT", "ITL", "E2E" }[m]);
        for (int s = 0; s < VALIDATE_N_STAT; s++) {
            const struct validate_sum *x =
                &v->sum[use][validate_q((enum metric)m, (enum validate_stat)s)];
            snprintf(text, sizeof text, x->n ? "%.3f" : "-", exp(x->bias.mid));
            cell(t, text);
        }
        end_row(t);
    }
}

static void print_requests(const struct validate *v, struct table *t)
{
    static const char *const head[] = {
        "request by request", "paired", "bias",   "90 % interval", "MAPE",
        "request scatter",    "KS",     "W1/mean"
    };
    char text[200];
    heading(t, "Requests (TTFT, TPOT, E2E of every configuration)");
    head_row(t, head, 8);
    for (int i = 0; i < v->n_case; i++) {
        const struct validate_case *c = &v->c[i];
        for (int m = 0; m < METRIC_N && !c->refused; m++) {
            const struct validate_paired *p = &c->paired[m];
            if (m == METRIC_ITL) continue;
            snprintf(text, sizeof text, "%.100s %s", c->name,
                     (const char *[]){ "TTFT", "TPOT", "ITL", "E2E" }[m]);
            cell(t, text);
            snprintf(text, sizeof text, "%lld", (long long)p->n);
            cell(t, text);
            cell_percent(t, expm1(p->bias.mid), true);
            cell_range(t, expm1(p->bias.lo), expm1(p->bias.hi));
            cell_percent(t, p->mape, false);
            cell_percent(t, p->scatter, false);
            cell_percent(t, p->ks, false);
            cell_percent(t, p->w1, false);
            end_row(t);
        }
        if (c->unlike) fprintf(t->f, "  %s: distributions only: %s\n", c->name, c->unlike);
    }
}

/* "-3.3 % (2.1)": a figure and its noise floor. */
static void cell_floor(struct table *t, const char *figure, double floor)
{
    char text[64];
    if (isfinite(floor))
        snprintf(text, sizeof text, "%s (%.1f)", figure, 100 * expm1(floor));
    else
        snprintf(text, sizeof text, "%s (-)", figure);
    cell(t, text);
}

static void cell_error(struct table *t, const struct validate_error *x)
{
    char a[24];
    percent(expm1(x->e), true, a);
    if (isfinite(x->e))
        cell_floor(t, a, x->floor);
    else
        cell(t, a);
}

static void cell_measured(struct table *t, const struct validate_error *x, int q)
{
    char text[32];
    if (q == VALIDATE_THROUGHPUT)
        snprintf(text, sizeof text, "%.4g token/s", x->measured);
    else
        units_human_ns(x->measured, text, sizeof text);
    if (isfinite(x->measured))
        cell_floor(t, text, x->floor_runs);
    else
        cell(t, "-");
}

static void print_cases(const struct validate *v, struct table *t)
{
    static const char *const head[] = { "configuration", "use",       "runs",    "throughput",
                                        "TPOT mean",     "TTFT mean", "TPOT p99" };
    char text[24];
    heading(t, "Errors of every configuration: predicted / measured - 1 (and the noise floor, %)");
    head_row(t, head, 7);
    for (int i = 0; i < v->n_case; i++) {
        const struct validate_case *c = &v->c[i];
        cell(t, c->name);
        cell(t, c->refused ? "refused" : use_word[c->use]);
        snprintf(text, sizeof text, "%d", c->n_measured);
        cell(t, text);
        for (int k = 0; k < VALIDATE_N_JUDGED; k++) cell_error(t, &c->err[validate_judged[k]]);
        end_row(t);
    }
}

/* What was measured where nothing was predicted: a figure and its noise floor. */
static void print_unpredicted(const struct validate *v, struct table *t)
{
    static const char *const head[] = { "configuration", "runs",      "throughput",
                                        "TPOT mean",     "TTFT mean", "TPOT p99" };
    char text[24];
    int n = 0;
    for (int i = 0; i < v->n_case; i++) {
        const struct validate_case *c = &v->c[i];
        if (!c->refused || c->n_measured == 0) continue;
        if (n++ == 0) {
            heading(t, "Measured without a prediction (and the noise floor, %)");
            head_row(t, head, 6);
        }
        cell(t, c->name);
        snprintf(text, sizeof text, "%d", c->n_measured);
        cell(t, text);
        for (int k = 0; k < VALIDATE_N_JUDGED; k++)
            cell_measured(t, &c->err[validate_judged[k]], validate_judged[k]);
        end_row(t);
    }
}

static void print_rank(const struct validate *v, struct table *t)
{
    static const char *const head[] = { "strategies of one load",
                                        "by",
                                        "members",
                                        "decided pairs",
                                        "right",
                                        "tau",
                                        "top-1",
                                        "regret" };
    char text[24];
    if (!v->n_rank) return;
    heading(t, "Order of strategies");
    head_row(t, head, 8);
    for (int i = 0; i < v->n_rank; i++) {
        const struct validate_rank *r = &v->rank[i];
        const int whole[] = { r->n, r->n_decided, r->n_right };
        cell(t, r->group);
        cell(t, validate_q_name(r->q));
        for (int k = 0; k < 3; k++) {
            snprintf(text, sizeof text, "%d", whole[k]);
            cell(t, text);
        }
        snprintf(text, sizeof text, isfinite(r->tau) ? "%.2f" : "-", r->tau);
        cell(t, text);
        cell(t, r->top1 ? "yes" : "no");
        cell_percent(t, r->regret, false);
        end_row(t);
    }
}

static void print_parts(const struct validate *v, struct table *t)
{
    static const char *const head[] = { "busy a step", "compute", "measured", "in-stage comm.",
                                        "measured",    "host",    "measured" };
    char text[40];
    bool any = false;
    for (int i = 0; i < v->n_case; i++) {
        const struct validate_case *c = &v->c[i];
        if (c->refused || !isfinite(c->predicted.part_s[0]) || !isfinite(c->part_s[0])) continue;
        if (!any) {
            heading(t, "Time the stages are busy with a step, predicted and measured");
            head_row(t, head, 7);
        }
        any = true;
        cell(t, c->name);
        for (int k = 0; k < VALIDATE_N_PART; k++) {
            cell(t, units_human_ns(1e9 * c->predicted.part_s[k], text, sizeof text));
            cell(t, units_human_ns(1e9 * c->part_s[k], text, sizeof text));
        }
        end_row(t);
    }
}

/* Of the measured step, so that a row adds up to what the whole is off by. */
static void print_residual(const struct validate *v, struct table *t)
{
    static const char *const head[] = { "residual a step", "compute",        "GEMM", "attention",
                                        "other",           "in-stage comm.", "host" };
    int n_case = 0, n_coarse = 0;
    for (int i = 0; i < v->n_case; i++) {
        struct validate_residual r[VALIDATE_N_RESIDUAL];
        const struct validate_case *c = &v->c[i];
        int n = validate_residuals(c, r);
        double whole = c->part_s[0] + c->part_s[1] + c->part_s[2];
        if (n == 0 || !(whole > 0)) continue;
        if (n_case++ == 0) {
            heading(t, "Residual by operator: predicted less measured, % of the measured step");
            head_row(t, head, 7);
        }
        cell(t, c->name);
        cell_percent(t, (c->predicted.part_s[0] - c->part_s[0]) / whole, true);
        n_coarse += n == VALIDATE_N_PART;
        for (int k = 0; k < VALIDATE_N_OP && n == VALIDATE_N_PART; k++) cell(t, "-");
        for (int k = n == VALIDATE_N_PART ? 1 : 0; k < n; k++)
            cell_percent(t, (r[k].predicted - r[k].measured) / whole, true);
        end_row(t);
    }
    if (n_coarse)
        fprintf(t->f,
                "%s%d of %d without operators: a run did not keep their time "
                "(monitor.operators, CPU), so compute is not divided\n",
                t->md ? "- " : "  ", n_coarse, n_case);
}

static void print_structure(const struct validate *v, struct table *t)
{
    static const char *const head[] = { "structure", "preempted", "measured", "prefix hits",
                                        "measured",  "running",   "measured" };
    char text[40];
    heading(t, "Structure, predicted and measured (first run)");
    head_row(t, head, 7);
    for (int i = 0; i < v->n_case; i++) {
        const struct validate_case *c = &v->c[i];
        if (c->refused || !c->n_measured) continue;
        cell(t, c->name);
        for (int k = 0; k < 6; k++) {
            const struct validate_run *r = k % 2 ? c->measured : &c->predicted;
            double value = k < 2   ? (double)r->preempted
                           : k < 4 ? 100 * r->prefix_hit
                                   : r->running_mean;
            snprintf(text, sizeof text, k < 2 ? "%.0f" : k < 4 ? "%.1f %%" : "%.2f", value);
            cell(t, isfinite(value) ? text : "-");
        }
        end_row(t);
    }
}

/* Why there is no A/A check, of arms or of the first against the last runs; NULL: there is one. */
static const char *no_check(const struct validate *v, bool drift)
{
    int several = 0;
    for (int i = 0; i < VALIDATE_N_AA; i++)
        if (isfinite((drift ? v->drift : v->aa)[i].diff.lo)) return NULL;
    for (int i = 0; i < v->n_case; i++) several += v->c[i].n_measured > 1;
    if (drift && several == 0) return "one run a configuration: no A/A check";
    if (drift)
        return several == 1 ? "several runs of one configuration only: no interval"
                            : "the runs have no common figure";
    if (!v->n_arm[0]) return "no equal runs in turns were given (aa in a manifest): no A/A check";
    if (v->n_arm[0] < 2 || v->n_arm[1] < 2) return "one run an arm: no A/A check";
    return "the runs of an arm do not differ at all: no A/A check";
}

static void print_aa(const struct validate *v, struct table *t)
{
    static const char *const what[2] = { "A/A arms", "first against last run" };
    heading(t, "The measurement itself");
    for (int k = 0; k < 2; k++) {
        const char *none = no_check(v, k == 1);
        if (none) fprintf(t->f, "%s%s: %s\n", t->md ? "- " : "  ", what[k], none);
        for (int i = 0; i < VALIDATE_N_AA; i++) {
            const struct validate_aa *x = k ? &v->drift[i] : &v->aa[i];
            if (!isfinite(x->diff.lo)) continue;
            fprintf(t->f, "%s%s, %s: %+.2f %% (95 %%: %+.2f .. %+.2f %%, n %d): %s\n",
                    t->md ? "- " : "  ", what[k], validate_q_name(x->q), 100 * x->diff.mid,
                    100 * x->diff.lo, 100 * x->diff.hi, x->n,
                    x->differs ? "DIFFERS: equal runs were not equal"
                    : x->blind ? "too noisy to tell a difference"
                               : "no difference");
        }
    }
}

/* "  NOISY: name: " */
static void lead(struct table *t, const char *what, const struct validate_case *c)
{
    fprintf(t->f, "%s%s: %s: ", t->md ? "- " : "  ", what, c->name);
}

static void print_doubts(const struct validate *v, struct table *t)
{
    for (int i = 0; i < v->n_case; i++) {
        const struct validate_case *c = &v->c[i];
        const struct validate_run *p = &c->predicted;
        const struct {
            const char *what, *says;
        } text[] = { { "no prediction", c->refused },
                     { "not paired request by request", c->unlike },
                     { "left out", c->left_out },
                     { "machine", c->machine },
                     { "imported", c->sources },
                     { "noisy profile", c->refused ? NULL : p->profile_noise },
                     { "extrapolated", !c->refused && p->extrapolated
                                           ? "outside what was measured for the prediction"
                                           : NULL } };
        char a[24], b[24];
        if (c->noisy) {
            lead(t, "NOISY", c);
            fprintf(t->f, "run scatter %s (throughput), %s (mean TPOT); limit %.3g %%\n",
                    percent(c->err[0].cv, false, a), percent(c->err[6].cv, false, b),
                    100 * v->o.noise);
        }
        if (validate_disturbed(c)) {
            lead(t, "NOISY", c);
            fprintf(t->f, "other work took processors during %d of %d measured run%s\n",
                    validate_disturbed(c), c->n_measured, c->n_measured == 1 ? "" : "s");
        }
        for (size_t k = 0; k < sizeof text / sizeof *text; k++) {
            if (!text[k].says) continue;
            lead(t, text[k].what, c);
            fprintf(t->f, "%s\n", text[k].says);
        }
    }
}

static void print_all(const struct validate *v, struct table *t)
{
    print_head(v, t->f, t->md);
    print_bars(v, t);
    print_beyond(v, t);
    for (int u = 0; u < VALIDATE_N_USE; u++) print_sums(v, (enum validate_use)u, t);
    print_quantiles(v, VALIDATE_HELD_OUT, t);
    print_cases(v, t);
    print_unpredicted(v, t);
    print_rank(v, t);
    print_aa(v, t);
    print_doubts(v, t);
}

/* A term and its text, in lines of 100 columns. */
static void term(FILE *f, const char *name, const char *text)
{
    enum { INDENT = 16, WIDTH = 100 };
    int column = fprintf(f, "  %-*s", INDENT - 3, name); /* a blank precedes every word */
    for (const char *p = text; *p; p += strspn(p, " ")) {
        int n = (int)strcspn(p, " ");
        if (column + 1 + n > WIDTH) column = fprintf(f, "\n%*s", INDENT - 1, "") - 1;
        column += fprintf(f, " %.*s", n, p);
        p += n;
    }
    fputc('\n', f);
}

static void print_definitions(struct table *t)
{
    static const struct {
        const char *term, *text;
        bool of_report; /* of tables that the report alone has */
    } def[] = {
        { "error",
          "e = ln(predicted / measured); bias = exp(mean e) - 1, Student's t over "
          "configurations",
          false },
        { "noise floor",
          "of a configuration's figure: half-width of the 90 % interval of its "
          "measured value over its runs (quantiles of runs whose requests cannot be "
          "paired: jackknife of the pooled requests); unknown of one run; in quadrature "
          "with that of its prediction over the repetitions of the profile's "
          "measurements, where each gave one; the worst of n is judged by the floor at "
          "the level 0.9^(1/n), within which nine times in ten all n of a perfect "
          "predictor are",
          false },
        { "run scatter",
          "of a configuration's figure: coefficient of variation of one run among "
          "its runs; NOISY where that of throughput or mean TPOT exceeds --noise",
          false },
        { "request scatter",
          "of a configuration's latency: how much one and the same request "
          "differs from run to run (sd of its logarithm, rms over the requests)",
          true },
        { "MAPE floor",
          "the MAPE that a perfect predictor would show, by what the noise floor is made of",
          false },
        { "equivalence",
          "the 90 % interval of mean e lies within the limits (two one-sided tests "
          "at 5 %)",
          false },
        { "coverage",
          "how many predicted intervals hold the measured value; they are of the workload's seeds "
          "and of the constants (the laws' own error included), not of the scatter of measured "
          "runs, so the runs' part of the noise floor is added in quadrature; `without` it "
          "is said beside",
          false },
        { "latencies",
          "of requests due after the warm-up, paired one by one; throughput and ITL "
          "are those of the runs' summaries",
          false },
        { "busy a step",
          "time that the stages are busy with one step, summed over them: compute "
          "(sampling included), calls to other ranks of the stage (waiting for them "
          "included; measured also the handing over of the result), and the host's "
          "scheduling; not the hops between stages and the waiting for them, which "
          "keep no stage busy",
          true },
    };
    heading(t, "Definitions");
    for (size_t i = 0; i < sizeof def / sizeof *def; i++)
        if (t->md)
            fprintf(t->f, "- %s: %s\n", def[i].term, def[i].text);
        else if (!def[i].of_report)
            term(t->f, def[i].term, def[i].text);
}

void validate_print(const struct validate *v, FILE *f)
{
    struct table t = { .f = f, .width = 14 };
    print_all(v, &t);
    print_residual(v, &t);
    print_definitions(&t);
}

void validate_markdown(const struct validate *v, FILE *f)
{
    struct table t = { .f = f, .md = true, .width = 14 };
    print_all(v, &t);
    print_requests(v, &t);
    print_structure(v, &t);
    print_parts(v, &t);
    print_residual(v, &t);
    print_definitions(&t);
}

/* ---- JSON */

static json_t *json_ci(struct ci c)
{
    json_t *j = json_object();
    json_put_f64(j, "lo", c.lo);
    json_put_f64(j, "mid", c.mid);
    json_put_f64(j, "hi", c.hi);
    return j;
}

static json_t *json_sums(const struct validate *v, enum validate_use use)
{
    json_t *all = json_object();
    for (int q = 0; q < VALIDATE_N; q++) {
        const struct validate_sum *s = &v->sum[use][q];
        if (!s->n) continue;
        json_t *j = json_object();
        json_put_i64(j, "n", s->n);
        json_put(j, "mean_log_error", json_ci(s->bias));
        json_put(j, "mape", json_ci(s->mape_ci));
        json_put_f64(j, "mape_floor", s->floor);
        json_put_f64(j, "median", s->median);
        json_put_f64(j, "p90", s->p90);
        json_put_f64(j, "worst", s->worst);
        json_put_text(j, "worst_case", v->c[s->worst_case].name);
        json_put_f64(j, "spread", s->spread);
        json_put_f64(j, "rmse_log", s->rmse);
        json_put_f64(j, "excess", s->excess);
        json_put_i64(j, "intervals", s->n_interval);
        json_put_i64(j, "covered", s->n_covered);
        json_put_i64(j, "covered_with_noise", s->n_covered_noisy);
        if (s->delta > 0) json_put_f64(j, "delta", s->delta);
        if (s->delta > 0) json_put_text(j, "equivalence", tost_word[s->tost]);
        json_object_set_new(all, validate_q_name(q), j);
    }
    return all;
}

/* null where there is nothing to compare */
static json_t *json_residual(const struct validate_case *c)
{
    struct validate_residual r[VALIDATE_N_RESIDUAL];
    int n = validate_residuals(c, r);
    json_t *j = n ? json_object() : json_null();
    for (int k = 0; k < n; k++) json_put_f64(j, r[k].name, r[k].predicted - r[k].measured);
    return j;
}

static void json_step(json_t *j, const struct validate_case *c, const char *group, const char *name,
                      double predicted, double measured)
{
    char path[80];
    snprintf(path, sizeof path, "step_s.%s%s.predicted", group, name);
    json_put_f64(j, path, c->refused ? NAN : predicted);
    snprintf(path, sizeof path, "step_s.%s%s.measured", group, name);
    json_put_f64(j, path, c->refused ? NAN : measured);
}

static json_t *json_case(const struct validate_case *c)
{
    json_t *j = json_object(), *err = json_object(), *pair = json_object();
    json_put_text(j, "name", c->name);
    json_put_text(j, "use", c->refused ? "refused" : use_word[c->use]);
    if (c->calibrated) json_put_text(j, "calibrated_by", c->calibrated);
    json_put_text(j, "group", c->group);
    json_put_i64(j, "runs", c->n_measured);
    json_put_bool(j, "noisy", c->noisy);
    json_put_i64(j, "runs_disturbed", validate_disturbed(c));
    if (c->refused) json_put_text(j, "refused", c->refused);
    if (c->unlike) json_put_text(j, "unlike", c->unlike);
    if (c->left_out) json_put_text(j, "left_out", c->left_out);
    if (c->machine) json_put_text(j, "machine", c->machine);
    if (c->sources) json_put_text(j, "imported", c->sources);
    if (!c->refused && c->predicted.profile_noise)
        json_put_text(j, "profile_noise", c->predicted.profile_noise);
    for (int q = 0; q < VALIDATE_N; q++) {
        const struct validate_error *x = &c->err[q];
        json_t *k = json_object();
        json_put_f64(k, "predicted", x->predicted);
        json_put_f64(k, "measured", x->measured);
        json_put_f64(k, "log_error", x->e);
        json_put_f64(k, "log_floor", x->floor);
        json_put_f64(k, "log_floor_runs", x->floor_runs);
        json_put_f64(k, "log_floor_of_worst", x->floor_all);
        if (isfinite(x->spread)) json_put_f64(k, "prediction_scatter", x->spread);
        json_put_f64(k, "run_scatter", x->cv);
        if (x->has_interval) json_put_bool(k, "covered", x->covered);
        if (x->has_interval) json_put_bool(k, "covered_with_noise", x->covered_noisy);
        json_object_set_new(err, validate_q_name(q), k);
    }
    for (int m = 0; m < METRIC_N && !c->refused; m++) {
        const struct validate_paired *p = &c->paired[m];
        json_t *k = json_object();
        json_put_i64(k, "n", p->n);
        json_put(k, "mean_log_error", json_ci(p->bias));
        json_put_f64(k, "mape", p->mape);
        json_put_f64(k, "median", p->median);
        json_put_f64(k, "request_scatter", p->scatter);
        json_put_f64(k, "ks", p->ks);
        json_put_f64(k, "w1_of_mean", p->w1);
        if (m != METRIC_ITL)
            json_object_set_new(pair, metric_name((enum metric)m), k);
        else
            json_decref(k);
    }
    json_put(j, "quantities", err);
    json_put(j, "requests", pair);
    for (int k = 0; k < VALIDATE_N_PART; k++)
        json_step(j, c, "", validate_part_name[k], c->predicted.part_s[k], c->part_s[k]);
    for (int k = 0; k < VALIDATE_N_OP; k++)
        json_step(j, c, "operators.", validate_op_name[k], c->predicted.op_s[k], c->op_s[k]);
    json_put(j, "residual_s", json_residual(c));
    return j;
}

static json_t *json_ranks(const struct validate *v)
{
    json_t *list = json_array();
    for (int i = 0; i < v->n_rank; i++) {
        const struct validate_rank *r = &v->rank[i];
        json_t *j = json_object();
        json_put_text(j, "group", r->group);
        json_put_text(j, "by", validate_q_name(r->q));
        json_put_i64(j, "members", r->n);
        json_put_i64(j, "decided_pairs", r->n_decided);
        json_put_i64(j, "right_pairs", r->n_right);
        json_put_f64(j, "kendall_tau", r->tau);
        json_put_bool(j, "top1", r->top1);
        json_put_f64(j, "regret", r->regret);
        json_put_bool(j, "has_calibrated", r->has_calibrated);
        json_array_append_new(list, j);
    }
    return list;
}

static json_t *json_aa(const struct validate_aa *x)
{
    json_t *list = json_array();
    for (int i = 0; i < VALIDATE_N_AA; i++) {
        json_t *j = json_object();
        json_put_text(j, "quantity", validate_q_name(x[i].q));
        json_put_i64(j, "n", x[i].n);
        json_put(j, "mean_log_difference", json_ci(x[i].diff));
        json_put_bool(j, "differs", x[i].differs);
        json_put_bool(j, "blind", x[i].blind);
        json_array_append_new(list, j);
    }
    return list;
}

json_t *validate_json(const struct validate *v)
{
    json_t *j = json_object(), *cases = json_array(), *bars = json_array();
    json_put_text(j, "verdict", tost_word[v->verdict]);
    json_put_text(j, "revision", prov_revision());
    json_put_text(j, "title", v->title);
    json_t *notes = json_array();
    for (int i = 0; i < v->n_note; i++) json_array_append_new(notes, json_string(v->note[i]));
    json_put(j, "notes", notes);
    json_put_bool(j, "runs_mostly_disturbed", v->disturbed);
    json_put_i64(j, "configurations.held_out", v->n_of[VALIDATE_HELD_OUT]);
    json_put_i64(j, "configurations.calibrated", v->n_of[VALIDATE_CALIBRATED]);
    json_put_i64(j, "configurations.refused", v->n_refused);
    json_put_i64(j, "configurations.noisy", v->n_noisy);
    json_put_i64(j, "configurations.extrapolated", v->n_extrapolated);
    for (int i = 0; i < VALIDATE_N_BAR; i++) {
        json_t *b = json_object();
        json_put_text(b, "name", v->bar[i].name);
        json_put_text(b, "verdict", validate_verdict_word[v->bar[i].verdict]);
        json_put_text(b, "text", v->bar[i].text);
        json_array_append_new(bars, b);
    }
    for (int i = 0; i < v->n_case; i++) json_array_append_new(cases, json_case(&v->c[i]));
    json_put(j, "bars", bars);
    json_put(j, "held_out", json_sums(v, VALIDATE_HELD_OUT));
    json_put(j, "calibrated", json_sums(v, VALIDATE_CALIBRATED));
    json_put(j, "ranking", json_ranks(v));
    json_put(j, "aa", json_aa(v->aa));
    json_put(j, "drift", json_aa(v->drift));
    json_put_text(j, "no_aa", no_check(v, false));
    json_put_text(j, "no_drift", no_check(v, true));
    json_put(j, "cases", cases);
    return j;
}
