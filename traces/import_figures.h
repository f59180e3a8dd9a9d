/* traces/import_figures.h - latency by every definition, from the events of requests.
 *
 * d due, s sent, f first token, l last token, n output tokens, of requests that ended well:
 *
 *     ours       TTFT f - d     TPOT (l - f)/(n - 1), n >= 2     E2E l - d     per token (l - d)/n
 *                ITL gaps between chunks, pooled; per token of a chunk as well
 *                lag s - d, of all requests
 *                attainment: requests that met every limit / requests due; failed and unfinished
 *                ones count against; one of a single token meets TPOT
 *     vLLM       TTFT f - s     TPOT as ours; 0 in its goodput where n = 1     ITL pooled gaps
 *                rates over the wall time that the file states
 *     GuideLLM   TPOT (l - s)/n weighted by n     ITL (l - f)/(n - 1) weighted by n - 1
 *                requests of one token are left out of its goodput
 *     AIPerf     ITL (l - f)/(n - 1), mean over requests     ICL pooled gaps
 *                rates from first sent to last token; n = 1 fails an ITL limit
 *     MLPerf     TTFT f - d and TPOT of requests with n >= 2; percentile p is sorted[int(n p)]
 *     LLMPerf    ITL (l - s)/n, mean over requests
 *     etalon     fluidity: share of token deadlines met. D_p for the first, D_d for each later
 *                token, slack accumulates while early; in whole ns
 *
 * What the events do not allow is NAN, its count 0. Quantiles are of type 7 unless MLPerf's.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TRACES_IMPORT_FIGURES_H
#define TRACES_IMPORT_FIGURES_H

#include "traces/import.h"

struct figures_slo {
    int64_t ttft_ns, tpot_ns, e2e_ns; /* 0: no such clause */
    double attain_ratio;              /* share of requests to hold them */
};

struct figures_stat {
    double mean, p50, p90, p99, max; /* ns */
    int64_t n;
};
struct figures_fluid {
    int64_t missed, total; /* total 0: not known */
};
enum figures_latency {
    FIGURES_TTFT,
    FIGURES_TTFT_SEND,
    FIGURES_TPOT,
    FIGURES_ITL,
    FIGURES_ITL_TOK,
    FIGURES_E2E,
    FIGURES_E2E_SEND,
    FIGURES_NORM_LAT,
    FIGURES_LAG,
    FIGURES_N_LATENCY
};

/* One figure of one tool, recomputed. */
struct figures_row {
    const char *tool, *key; /* as in JSON: conventions.<tool>.<key> */
    const char *unit, *means;
    const char *stated; /* name of the file's own figure, if its tool is this one; NULL */
    double value;
};
enum { FIGURES_MAX_ROW = 48 };

struct figures {
    int64_t n_due, n_ok, n_failed, n_unfinished;
    struct figures_stat latency[FIGURES_N_LATENCY];
    double ttft_p50_failed, ttft_p99_failed; /* TTFT from due with failed requests as infinite */
    bool client_limited; /* p99 of lag over 5 ms or over 2 % of the median TTFT from sending */
    double window_s;     /* first due to last token; without instants the stated wall time */
    double requests_per_s, output_tok_per_s, goodput_per_s;
    int64_t met, met_send, met_ttft, met_tpot, met_e2e; /* requests; jointly, and by clause */
    int64_t n_vacuous;                                  /* met TPOT by having one token */
    struct figures_fluid *fluid; /* of each request; NULL without TTFT and TPOT limits, or gaps */
    double fluidity;             /* mean index */
    int64_t n_fluid;
    struct figures_row row[FIGURES_MAX_ROW];
    int n_row;
};

void figures_of(const struct import_run *r, enum import_tool tool, const struct figures_slo *slo,
                struct arena *a, struct figures *out);
const char *figures_latency_name(int k); /* "ttft", "ttft_send", ... */

enum figures_verdict { FIGURES_NO_LIMIT, FIGURES_HELD, FIGURES_MISSED, FIGURES_INVALID };
#define FIGURES_VERDICT_WORDS "none held missed invalid"
/* Invalid: the client was too slow to judge the server. */
enum figures_verdict figures_judge(const struct figures *f, const struct figures_slo *slo);

#endif
