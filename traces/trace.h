/* traces/trace.h - what is asked of a cluster: a source of requests, read from a file or
 * synthesised.
 *
 * A source hands out requests in due order (next) and, for closed loops and sessions, a follow-up
 * when one has ended (done). The simulator and the engine pull from the same source, so both see
 * the same requests. Sources are deterministic in (options, seed), hold bounded memory when
 * synthesising, and never schedule.
 *
 * Content identity, for prefix caches: the tokens of a request are a chain of segments. Segment j
 * covers tokens [seg[j-1].end_tok, seg[j].end_tok) of prompt and output together; two requests with
 * the same key at the same place of the chain hold the same tokens from 0 to its end. Tokens past
 * the last segment are the request's own and are never shared. Rules:
 * end_tok increases strictly and ends within prompt and output (checked for files, by construction
 * otherwise); a key always comes with the same start, the same end_tok and the same predecessor
 * key (keys are hashes of the chain in front of them, so only a file's own `segments` column could
 * break it).
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TRACES_TRACE_H
#define TRACES_TRACE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/arena.h"
#include "base/conf.h"
#include "base/err.h"

struct trace_seg {
    int64_t end_tok;
    uint64_t key;
};

struct trace_req {
    int64_t id;          /* 0, 1, 2, ... in order of being handed out */
    int64_t t_due_ns;    /* from run start */
    int32_t n_in, n_out; /* prompt and output tokens, both >= 1 */
    int32_t klass;       /* index into the source's class names; 0 if there is one only */
    int32_t turn;        /* turn of its session, from 0 */
    int64_t session;     /* -1: none */
    int32_t n_seg;
    const struct trace_seg *seg; /* valid until done() of this request, or release */
};

struct trace; /* a source; opaque */

/* Options "workload.*": one table for traces and synthesis. */
struct trace_opts {
    const char *file;  /* workload.trace: path; NULL: synthesise */
    int format;        /* auto azure mooncake csv jsonl */
    double rate_scale; /* arrivals come this many times faster (trace replay) */
    double rate_per_s; /* workload.rate: requests (all turns) per second of a synthesis; a trace
                        * with a rate given (not 0) is scaled to it: (n - 1) / (last - first) of the
                        * whole file */
    int arrivals; /* auto poisson gamma constant mmpp closed burst trace; auto: trace with a file,
                   * else poisson. With a file and another process, the rows (lengths, sharing) come
                   * in file order at drawn times. burst: all at 0 */
    double burstiness;                 /* gamma: coefficient of variation of gaps (1: poisson) */
    double mmpp_ratio;                 /* mmpp: high rate / low rate */
    int64_t mmpp_high_ns, mmpp_low_ns; /* mean stay in each state */
    int64_t concurrency; /* closed: clients; each starts with a think time, as all that follow */
    int64_t think_ns;    /* closed and sessions: mean pause before the next turn, exponential */
    /* How many in all, turns included; 0: as many as the trace has (synthesis: 1000, or no limit
     * if there is a duration). More than the trace has: ST_USAGE. */
    int64_t requests;
    int64_t duration_ns; /* stop handing out after this time; 0: no limit */
    /* Lengths of a synthesis: prompt.* and output.*; drawn, rounded to nearest, then clipped to
     * [min, max] (max 0: 100 Mtok), which moves the mean. lognormal: mean is that of the unclipped
     * law, sigma that of its log, so mu = ln(mean) - sigma^2 / 2. empirical: rows of a csv with
     * input_tokens, output_tokens, with equal chances; one row serves both lengths when both name
     * one file. A file's own lengths are never clipped. */
    struct trace_len {
        int dist;
        int64_t mean, min, max;
        double sigma;
        const char *file;
    } in, out;
    /* Tokens of a system prompt shared by a group, on top of the drawn prompt; 0: none. */
    int64_t prefix_tok;
    int64_t prefix_groups; /* group i is chosen with weight 1 / (i + 1) */
    /* Mean turns of a session, geometric: another turn follows with chance 1 - 1/turns; 1: no
     * sessions. A turn's prompt is the whole history and a newly drawn prompt; it is due a think
     * time after the last turn's end. Sessions arrive at rate / turns. A caller that rejects a
     * request calls done as well: the session goes on as if it had been answered, until prompt +
     * output would pass 1e9 tokens. */
    int64_t turns;
};
extern const struct conf_row trace_rows[]; /* keys workload.* */

/* Opens a source. beside: file that relative paths are tried beside first. Errors: ST_IO, ST_USAGE
 * with file:line (an empty trace, a negative or absurd length, ...). Requests longer than a model's
 * context are handed out unchanged: to reject them is the simulator's work, to count them too. */
int trace_open(const struct trace_opts *o, const char *beside, uint64_t seed, struct trace **out,
               struct err *e);
void trace_close(struct trace *t); /* NULL ok */

/* Next open-loop arrival (or initial closed-loop request): 1 and *out, or 0 when there is none, now
 * or later. t_due_ns never decreases from one call to the next. */
int trace_next(struct trace *t, struct trace_req *out);
/* Request r ended at t_end_ns: its segments may be freed; 1 and *out if a follow-up is now due
 * (next turn of its session, next request of its closed-loop client), else 0. out may be r. Each
 * request ends at most once. */
int trace_done(struct trace *t, const struct trace_req *r, int64_t t_end_ns, struct trace_req *out);
/* Requests known to come, -1 if unknown (a duration): for progress. */
int64_t trace_total(const struct trace *t);
int trace_n_class(const struct trace *t);
const char *trace_class_name(const struct trace *t, int klass);
/* Whether the end of a request can bring another: a closed loop or sessions. */
bool trace_answers(const struct trace *t);
/* Whether clients wait for their answers; sessions whose first turns come at a rate do not count. */
bool trace_is_closed(const struct trace *t);
/* Whether arrivals are drawn at a lasting rate or concurrency, so that the run has a steady state:
 * neither the replay of recorded times nor a burst. */
bool trace_is_steady(const struct trace *t);
/* Whether replications over seeds draw new requests (false for replay of a file without random
 * lengths). */
bool trace_is_random(const struct trace *t);
/* One line: "azure_llm_code.csv, 8819 requests, x1" or "poisson 8.5 /s, lognormal 512 tok ...". */
const char *trace_describe(const struct trace *t);

/* A source over rows in memory, in due order (tests, conversion, bench). rows and segs stay the
 * caller's. */
int trace_from_rows(const struct trace_req *rows, int64_t n, struct trace **out, struct err *e);

/* Formats of a file. auto looks at the first line: a header with TIMESTAMP is azure, a JSON object
 * with hash_ids or input_length is mooncake, other objects are jsonl, other headers csv.
 *
 *   azure     TIMESTAMP (UTC, up to 9 fractional digits), ContextTokens, GeneratedTokens; the
 *             earliest row is time 0
 *   mooncake  timestamp (ms), input_length, output_length, hash_ids: 512-token blocks, the last
 *             may be partial
 *   csv       a header names the columns, in any order; # starts a comment line; RFC 4180 quotes
 *   jsonl     one object a line with the same names
 *
 * Columns: arrival (s; arrival_s, arrival_ms, arrival_us, arrival_ns), in (input_tokens, n_in), out
 * (output_tokens, n_out); optional: session (any text), turn, class, prefix (name of a group) with
 * prefix_tok, history_tok (how many leading tokens are the session's turn before, prompt and output
 * together; 0 for a first turn), shared_prefix_blocks (ids of leading 16-token blocks separated by
 * blanks; an equal id means an equal prefix), segments ("end:key ..." in hex, what trace_write
 * falls back to). Others are ignored.
 *
 * Lengths of 0 are read as 1 and counted; negative ones, lengths over 1e9, times over 100 years and
 * lines over 16 MiB are refused. Rows out of order are sorted, ties by file order. */
enum trace_format { TRACE_AUTO, TRACE_AZURE, TRACE_MOONCAKE, TRACE_CSV, TRACE_JSONL };
#define TRACE_FORMAT_WORDS "auto azure mooncake csv jsonl"

/* Whole file into memory (the arena's), sorted by due time, ids renumbered. */
struct trace_rows {
    struct trace_req *row;
    int64_t n;
    bool has_prefix; /* some row has segments */
    int n_class;     /* >= 1 */
    const char **class_name;
    int64_t n_raised; /* lengths of 0 that are read as 1 */
    int format;       /* as found: never TRACE_AUTO */
};
int trace_read(const char *path, int format, struct arena *a, struct trace_rows *out,
               struct err *e);
/* Writes plain csv or jsonl (TRACE_CSV, TRACE_JSONL) that trace_read reads back identically: times
 * to the ns, segments as prefix, session and history where these say it all, else as `segments`.
 * Through a temporary file: path is whole or untouched. comment: lines for the head of a csv, each
 * given a "# "; NULL for none. */
int trace_write(const char *path, int format, const struct trace_rows *rows, const char *comment,
                struct err *e);

#endif
