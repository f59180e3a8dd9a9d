/* traces/import.h - results of other tools, read into events and stated figures.
 *
 * A file is recognised by its content. What it gives depends on what its tool wrote:
 *
 *     per-request   instants and lengths of every request: vLLM `bench serve` with lists, GuideLLM,
 *                   AIPerf's records (jsonl). All definitions can be recomputed from them
 *                   (traces/import_figures.h), and a run file written.
 *     summary       figures only: vLLM without lists, AIPerf's and genai-perf's export, AIPerf's
 *                   aggregate, sglang, MLPerf's summary. They keep their tool's definition.
 *     points        microbenchmarks: nccl-tests (text, JSON), llama-bench (JSON, JSON lines).
 *
 * Instants are int64 ns from run start, the earliest due time. Python writes times as doubles:
 * their shortest decimal, not their binary value, is taken to ns, so an epoch time loses nothing
 * here that the tool had. Tokens NaN, Infinity and -Infinity are accepted as values, numbers also
 * as text ("inf"); of duplicate keys the last one counts; unknown keys are ignored.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TRACES_IMPORT_H
#define TRACES_IMPORT_H

#include "traces/points.h"
#include "traces/run.h"

enum import_tool {
    IMPORT_AUTO,
    IMPORT_VLLM,
    IMPORT_GUIDELLM,
    IMPORT_AIPERF,
    IMPORT_GENAI_PERF,
    IMPORT_SGLANG,
    IMPORT_MLPERF,
    IMPORT_NCCL_TESTS,
    IMPORT_LLAMA_BENCH
};
#define IMPORT_TOOL_WORDS                                                                          \
    "auto vllm guidellm aiperf genai-perf sglang mlperf nccl-tests llama-bench"

/* What t_due is, best first. */
enum import_due {
    IMPORT_DUE_PLAN,     /* the arrival plan's time (GuideLLM targeted_start) */
    IMPORT_DUE_RELEASED, /* when the rate limiter let it go (AIPerf credit_issued_ns) */
    IMPORT_DUE_QUEUED,   /* when it entered the client's own queue (vLLM start - queue time) */
    IMPORT_DUE_SENT,     /* the file has none: the time of sending */
    IMPORT_DUE_UNKNOWN   /* no instants at all: durations only, every request is put at 0 */
};

struct import_request {
    struct run_request row; /* t_start: sent; -1 for what the file does not say, cached_in 0 */
    int32_t n_chunk;        /* chunks with tokens; 0: not in the file */
    int32_t n_gap;          /* gaps between chunks from gap_ns[gap_at]; -1: not in the file */
    int64_t gap_at;
};

struct import_figure {
    const char *name, *unit, *means; /* name: the file's key; means: its tool's definition */
    double value, lo, hi;            /* NAN: no interval */
};

/* Where figures that a file states are not those of its own rows, each in a sentence with both. */
enum { IMPORT_MAX_NOTE = 8, IMPORT_MAX_DOUBT = 24 };
struct import_doubts {
    const char *text[IMPORT_MAX_DOUBT];
    int n, n_more; /* n_more: left out */
};

struct import_run {
    const char *title, *model;      /* "" where the file names none */
    const char *date;               /* of the measurement, "2026-02-02T02:40:00"; "" */
    struct import_request *request; /* in the file's order */
    int64_t n_request;              /* 0: figures only */
    int64_t *gap_ns;
    enum import_due due;
    bool has_cached;   /* cached_in is from the file */
    double duration_s; /* wall time as stated; NAN */
    int64_t n_kept;    /* requests of which the file keeps anything; 0: not known */
    bool sampled;      /* it keeps some of them only, so totals are not theirs */
    int64_t n_empty;   /* that ended well for the tool, without a token: failed here */
    struct import_figure *figure;
    int n_figure;
    const char *note[IMPORT_MAX_NOTE]; /* sentences about what was read */
    int n_note;
    struct import_doubts doubts;
};

struct import_point {
    struct points_row row;
    int64_t calls; /* that each sample is the mean of */
    double *s_per_call;
    int64_t n_sample;
    double stated_algbw, stated_busbw, stated_tok_per_s; /* bytes/s, token/s; NAN */
    double stated_s;                                     /* mean of the samples; NAN */
    double wrong;                                        /* wrong elements; NAN: not checked */
};

struct import_file {
    const char *path;
    enum import_tool tool;
    const char *tool_name, *version; /* version: "" where the file does not say */
    char sha256[65];
    struct import_run *run;
    int n_run;                           /* 0: points */
    const char *title, *machine, *model; /* of points: "" where not stated */
    const char *date;                    /* as that of a run */
    struct import_point *point;
    int n_point;
    bool inferred;     /* the collective was not named in the file */
    const char *mixed; /* the key in which rows of a points file differ beside sizes; NULL: none */
    bool cpu_time;     /* nccl-tests -C 1: time of the launch, not of the transfer */
    double stated_mean_busbw, stated_wrong; /* of nccl-tests' last lines, bytes/s and values; NAN */
    struct import_doubts doubts;            /* about points; of a run: with it */
};

/* tool: IMPORT_AUTO, or what the file must be. collective: of nccl-tests' text, as its programs are
 * named ("all_reduce"), or NULL: older releases do not name it in the table; then the one program
 * that the text mentions is taken, else what the columns redop, root and busbw / algbw leave
 * possible, if that is one. Errors: ST_IO; ST_USAGE with path and place. */
int import_read(const char *path, int tool, const char *collective, struct arena *a,
                struct import_file *out, struct err *e);

/* A date as tools write it ("20260202-024000", "2026-02-02 02:40:00", with a fraction or a zone that
 * is left out: most write local time and do not say) as "2026-02-02T02:40:00"; "": it is none. */
const char *import_date(const char *text, struct arena *a);
const char *import_date_of(double epoch_s, struct arena *a); /* UTC */
/* Days between two such dates; NAN: one of them is none. */
double import_days_apart(const char *x, const char *y);
/* What two files that are given together differ in, in words; NULL: in nothing that both state. Dates
 * do by more than a day and a half: zones are not stated, and a benchmark may run over midnight. */
#define IMPORT_DAYS_APART 1.5
const char *import_differ(const char *model, const char *date, const char *other_model,
                          const char *other_date, struct arena *a);

/* Bus bandwidth over algorithm bandwidth, by nccl-tests' PERFORMANCE.md; NAN for n < 1 ranks. */
double import_bus_factor(enum points_op op, int n);

#endif
