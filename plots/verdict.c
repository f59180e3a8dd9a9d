/* plots/verdict.c - see verdict.h. SPDX-License-Identifier: Apache-2.0 */
#include "plots/verdict.h"

#include <math.h>
#include <string.h>

#include "base/units.h"
#include "plots/html.h"
#include "plots/plot_data.h"

static const char *const share_name[SOURCE_N_CLAUSE] = { "attainment_ttft", "attainment_tpot",
                                                         "attainment_e2e" };

enum verdict verdict_of(struct source *s)
{
    double a = source_scalar(s, "attainment").mid;
    if (s->ended_early || !source_has_slo(s) || isnan(a) || isnan(s->slo_attain_ratio))
        return VERDICT_NONE;
    return source_point_held(s, a) ? VERDICT_HELD : VERDICT_MISSED;
}

static void open_block(FILE *f, enum verdict v, const struct source *s, bool heading)
{
    static const char *const word[] = { "", " held", " missed" };
    if (heading) {
        fputs("<h3>", f);
        html_text(f, s->name);
        fputs("</h3>\n", f);
    }
    fprintf(f, "<div class=\"answer%s\">\n", word[v]);
}

/* "TTFT <= 2.00 s and TPOT <= 100.0 ms" */
static void clauses(FILE *f, const struct source *s)
{
    char t[HTML_NUMBER_BYTES];
    const char *and = "";
    for (int k = 0; k < SOURCE_N_CLAUSE; k++) {
        if (s->slo_ns[k] <= 0) continue;
        fprintf(f, "%s%s &le; %s", and, source_metric_label[k], html_ns((double)s->slo_ns[k], t));
        and = " and ";
    }
}

/* Points between two shares, with enough digits to be seen. */
static void points(FILE *f, double a, double b)
{
    double p = 100 * fabs(a - b);
    fprintf(f, p > 0 && p < .05 ? "%.3f points" : "%.1f points", p);
}

static void interval_words(FILE *f, struct source *s, struct ci a)
{
    char t[HTML_NUMBER_BYTES];
    if (isnan(a.lo)) {
        fputs(s->measured
                  ? "<p>There is no interval: one measured run.</p>\n"
                  : "<p>There is no interval: one run, with the constants taken as exact.</p>\n",
              f);
        return;
    }
    bool inside = a.lo < s->slo_attain_ratio && a.hi >= s->slo_attain_ratio;
    fprintf(f, "<p>%.0f %% interval of the share: %s", 100 * s->level_ratio, html_percent(a.lo, t));
    fprintf(f, " to %s. ", html_percent(a.hi, t));
    if (!inside) {
        fputs("What was asked for lies outside it.</p>\n", f);
        return;
    }
    fputs("<strong>Not certain:</strong> what was asked for lies inside the interval.", f);
    const char *constant = source_text(s, "/summary", "uncertain_1");
    if (*constant) {
        fputs(" Measuring the constant <code>", f);
        html_text(f, constant);
        fputs("</code> would narrow it most.", f);
    }
    fputs("</p>\n", f);
}

/* The clause that the fewest requests meet, where there are several. */
static void tightest(FILE *f, struct source *s)
{
    char t[HTML_NUMBER_BYTES];
    int worst = -1, n = 0;
    double least = INFINITY;
    for (int k = 0; k < SOURCE_N_CLAUSE; k++) {
        double a = source_scalar(s, share_name[k]).mid;
        if (s->slo_ns[k] <= 0 || isnan(a)) continue;
        n++;
        if (a < least) least = a, worst = k;
    }
    if (n > 1 && least < 1)
        fprintf(f, "<p>The tightest clause is %s, met by %s.</p>\n", source_metric_label[worst],
                html_percent(least, t));
}

static void limits_and_losses(FILE *f, struct source *s)
{
    bool none = strncmp(s->bottleneck, "none: ", 6) == 0;
    if (*s->bottleneck && strncmp(s->bottleneck, "not known", 9) != 0) {
        fputs(none          ? "<p>Nothing limits it: "
              : s->measured ? "<p>Where the time goes: "
                            : "<p>What limits it: ",
              f);
        html_text(f, s->bottleneck + (none ? 6 : 0));
        fputs(".</p>\n", f);
    }
    if (s->overloaded)
        fputs("<p><strong>Overloaded:</strong> arrivals outpace service, the queue grows all the "
              "time, so the latencies below depend on the length of the run.</p>\n",
              f);
    if (s->failed + s->rejected > 0 && !s->ended_early)
        fprintf(f,
                "<p>Not all were served: of %lld requests%s, failed %lld, rejected "
                "%lld%s.</p>\n",
                (long long)s->due, s->measured ? "" : " of the first seed", (long long)s->failed,
                (long long)s->rejected,
                source_has_slo(s) ? "; those due in the window count against the SLO" : "");
}

static void ended_early(FILE *f, struct source *s)
{
    fputs("<p class=\"word\"><strong>No verdict:</strong> the run ended early: ", f);
    html_text(f, s->ended_early);
    fprintf(f,
            ".</p>\n<p>All figures are of the <strong>%lld request%s that had finished</strong> by "
            "then",
            (long long)s->finished, units_s(s->finished));
    if (s->failed + s->rejected > 0)
        fprintf(f, "; %lld were under way and %lld rejected", (long long)s->failed,
                (long long)s->rejected);
    if (isnan(source_scalar(s, "attainment").mid))
        fputs("; none of them was due after the warm-up, so there are no latencies", f);
    fputs(". A run cut short has more short requests among its finished ones than the load has, so "
          "no SLO is judged by them",
          f);
    if (source_has_slo(s)) fputs(" (asked: ", f), clauses(f, s), fputs(")", f);
    fputs(".</p>\n", f);
}

void verdict_run(FILE *f, struct source *s, bool heading)
{
    char t[HTML_NUMBER_BYTES];
    enum verdict v = verdict_of(s);
    struct ci a = source_scalar(s, "attainment");
    open_block(f, v, s, heading);
    if (s->ended_early) {
        ended_early(f, s);
    } else if (v == VERDICT_NONE) {
        fputs(!s->has_summary ? "<p class=\"word\"><strong>No verdict:</strong> the file has no "
                                "summary.</p>\n"
              : !source_has_slo(s)
                  ? "<p class=\"word\"><strong>No SLO was given</strong>, so there is "
                    "nothing to hold or to miss.</p>\n"
                  : "<p class=\"word\"><strong>No verdict:</strong> no request was "
                    "due in the window.</p>\n",
              f);
    } else {
        fprintf(f, "<p class=\"word\"><strong>%s</strong>, by ",
                v == VERDICT_HELD ? "Yes, the SLO is held" : "No, the SLO is missed");
        points(f, a.mid, s->slo_attain_ratio);
        fprintf(f, ": %s of the requests due met ", html_percent(a.mid, t));
        clauses(f, s);
        fprintf(f, "; %.6g %% was asked for.</p>\n", 100 * s->slo_attain_ratio);
        interval_words(f, s, a);
        tightest(f, s);
    }
    limits_and_losses(f, s);
    fputs("</div>\n", f);
}

/* ---- sweeps */

struct point {
    double value, attain, lo, hi;
};

/* "2, 4, 8" of the points that held, or that did not. */
static void list(FILE *f, const struct point *p, size_t n, const struct source *s, bool held)
{
    const char *comma = "";
    for (size_t i = 0; i < n; i++) {
        if (isnan(p[i].attain) || source_point_held(s, p[i].attain) != held) continue;
        bool sure =
            isnan(p[i].lo) || p[i].lo >= s->slo_attain_ratio || p[i].hi < s->slo_attain_ratio;
        fputs(comma, f);
        html_text(f, source_sweep_label(s, i, p[i].value));
        fputs(sure ? "" : " (not certain)", f);
        comma = ", ";
    }
}

void verdict_sweep(FILE *f, struct source *s, bool heading)
{
    static const char *const col[] = { "value", "attain", "attain_lo", "attain_hi" };
    double *c[4];
    size_t n = 0, n_held = 0, n_known = 0;
    bool readable = source_columns(s, "sweep", col, 4, c, &n, NULL) == ST_OK;
    struct point *p = arena_array(s->arena, n + 1, sizeof *p);
    for (size_t i = 0; readable && i < n; i++) {
        p[i] = (struct point){ c[0][i], c[1][i], c[2][i], c[3][i] };
        n_known += !isnan(p[i].attain);
        n_held += !isnan(p[i].attain) && source_point_held(s, p[i].attain);
    }
    bool slo = source_has_slo(s) && n_known > 0;
    open_block(f,
               !slo || (n_held && n_held < n_known) ? VERDICT_NONE
               : n_held                             ? VERDICT_HELD
                                                    : VERDICT_MISSED,
               s, heading);
    if (!slo) {
        fputs("<p class=\"word\"><strong>No SLO was given</strong>, so there is nothing to hold or "
              "to "
              "miss.</p>\n",
              f);
    } else {
        fprintf(f,
                "<p class=\"word\"><strong>The SLO is held at %zu of %zu points</strong> of the "
                "sweep of <code>",
                n_held, n_known);
        html_text(f, s->sweep_key);
        fputs("</code>: ", f);
        clauses(f, s);
        fprintf(f, " for %.6g %% of the requests due.</p>\n", 100 * s->slo_attain_ratio);
        if (n_held) fputs("<p>Held at ", f), list(f, p, n, s, true), fputs(".</p>\n", f);
        if (n_held < n_known)
            fputs("<p>Missed at ", f), list(f, p, n, s, false), fputs(".</p>\n", f);
    }
    if (plot_data_varies(s, "gpus"))
        fprintf(f,
                "<p>Points that finish all that is offered are limited by the load: they say "
                "nothing about how throughput scales with %ss.</p>\n",
                s->device);
    fputs("</div>\n", f);
}
