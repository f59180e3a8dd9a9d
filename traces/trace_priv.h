/* traces/trace_priv.h - what the files of the request sources share; nobody else includes it.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TRACES_TRACE_PRIV_H
#define TRACES_TRACE_PRIV_H

#include "base/rng.h"
#include "traces/trace.h"

#define TRACE_MAX_TOK INT64_C(1000000000) /* of one request: prompt and output fit an int32 */
#define TRACE_MAX_NS  INT64_C(3153600000000000000) /* 100 years */
enum {
    TRACE_MAX_CLASS = 255,
    TRACE_MAX_LINE = 16 << 20,
    TRACE_MOONCAKE_TOK = 512,
    TRACE_BLOCK_TOK = 16
};

/* ---- keys: one definition for synthesis and files, so that a synthesis written and read back is
 * itself. */
uint64_t trace_prefix_key(const char *group, int64_t tok);
uint64_t trace_turn_key(uint64_t before, int64_t session,
                        int64_t turn); /* before: key of the segment before, or 0 */

/* t + add_ns, at most TRACE_MAX_NS; t >= 0, add_ns >= 0 and finite or not. */
int64_t trace_later(int64_t t_ns, double add_ns);

/* ---- arrive.c: the instants of an open loop. */
enum arrive_kind {
    ARRIVE_AUTO,
    ARRIVE_POISSON,
    ARRIVE_GAMMA,
    ARRIVE_CONSTANT,
    ARRIVE_MMPP,
    ARRIVE_CLOSED,
    ARRIVE_BURST,
    ARRIVE_TRACE
};
#define ARRIVE_WORDS "auto poisson gamma constant mmpp closed burst trace"
struct arrive {
    int kind;
    struct rng gap, stay;
    double rate_per_s;
    double shape; /* gamma: 1 / CV^2 */
    double sum;   /* of gaps of mean 1: instant i is sum / rate, so a rate only stretches time */
    double state_per_s[2], stay_s[2], t_s, until_s; /* mmpp: low, high */
    int state;
    uint64_t n_gap, n_stay; /* drawn so far */
};
void arrive_init(struct arrive *p, const struct trace_opts *o, double rate_per_s, uint64_t seed);
int64_t arrive_next(struct arrive *p); /* ns from run start; past TRACE_MAX_NS: TRACE_MAX_NS + 1 */

/* ---- synth.c: lengths, prefixes and sessions. */
#define SYNTH_LEN_WORDS "lognormal fixed uniform exponential empirical"
enum synth_len { SYNTH_LOGNORMAL, SYNTH_FIXED, SYNTH_UNIFORM, SYNTH_EXPONENTIAL, SYNTH_EMPIRICAL };
struct synth;
int synth_open(const struct trace_opts *o, const char *beside, uint64_t seed, struct synth **out,
               struct err *e);
void synth_close(struct synth *s); /* NULL ok */
/* First (or only) request of arrival i: everything but id and t_due_ns. */
void synth_first(struct synth *s, int64_t i, struct trace_req *out);
/* The turn after r, or false if its session is over (or it has none); r's segments are then freed.
 */
bool synth_turn(struct synth *s, const struct trace_req *r, struct trace_req *out);
void synth_forget(struct synth *s, const struct trace_req *r); /* ends r's session */
/* "lognormal 1.2 ktok in, fixed 128 tok out" */
void synth_describe(const struct trace_opts *o, char *buf, size_t n);

/* ---- idmap.c: a hash table of 64-bit keys to 64-bit values, open addressing. */
struct idmap {
    uint64_t *key;
    int64_t *value;
    bool *used;
    size_t n, cap;
};
void idmap_release(struct idmap *m);                                 /* zero-initialised is empty */
bool idmap_get(const struct idmap *m, uint64_t key, int64_t *value); /* value may be NULL */
bool idmap_put(struct idmap *m, uint64_t key, int64_t value);        /* true if the key is new */
void idmap_drop(struct idmap *m, uint64_t key);                      /* absent: nothing */

/* ---- build.c: rows while a file is being read. */
struct build_row {
    struct trace_req req;   /* n_seg: its own segments until build_finish */
    int64_t seg_at, before; /* before: the row whose segments come in front of its own; -1: none */
    uint64_t last_key;
};
struct build {
    const char *path;
    struct build_row *row;
    int64_t n, cap;
    struct trace_seg *seg;
    int64_t n_seg, cap_seg, before; /* before: of the row being made */
    char **class_name;
    int n_class;
    int64_t n_raised;
    struct idmap last_turn; /* session -> its latest row */
};
void build_init(struct build *b, const char *path);
void build_release(struct build *b);
int build_class(struct build *b, const char *text, size_t n, int64_t line, int32_t *out,
                struct err *e);
/* Session number of a name: a plain decimal is itself, another text a hash of at least 2^62. */
int64_t build_session(const char *text, size_t n);
/* Appends a segment to the row being made (the one build_row will add next). */
void build_seg(struct build *b, int64_t end_tok, uint64_t key);
/* Adds a row made of req and the segments since the last: checks lengths, time and segments. */
int build_row(struct build *b, int64_t line, struct trace_req req, int64_t n_in, int64_t n_out,
              struct err *e);
void build_finish(struct build *b, struct arena *a, struct trace_rows *out);

/* ---- text.c: lines and numbers. All refuse what they do not wholly understand. */
struct text {
    const char *s;
    size_t n;
};
struct lines {
    const char *path, *at, *end;
    int64_t number; /* of the line handed out last, from 1 */
};
/* 1: a line (without its end, CRLF too) in *out; 0: no more; -1: refused, e says why. */
int lines_next(struct lines *l, struct text *out, struct err *e);
struct text text_trim(struct text t);
bool text_is(struct text t, const char *word);
bool text_int(struct text t, int64_t *out); /* [+-]digits */
/* Decimal number times unit_ns to whole ns, half up; exact however long. */
bool text_ns(struct text t, int64_t unit_ns, int64_t *out);
bool text_utc_ns(struct text t, int64_t *out); /* "2023-11-16 18:17:03.9799600" since 1970 */
/* Splits a csv line; quotes are undone in place, so the line is writable. Returns the number of
 * fields, at most max (the rest is dropped), or -1 for a quote that does not end. */
int text_split_csv(struct text line, struct text *field, int max);

/* ---- trace_<format>.c: text without a byte order mark into rows. */
int trace_azure(struct lines l, struct build *b, struct err *e);
int trace_mooncake(struct lines l, struct build *b, struct err *e);
int trace_plain_csv(struct lines l, struct build *b, struct err *e);
int trace_plain_jsonl(struct lines l, struct build *b, struct err *e);
/* Whether some column of a csv header is one of ours; undoes quotes in place. */
bool trace_plain_header(struct text line);
/* A whole file in `a`, without its byte order mark. */
int trace_load(const char *path, struct arena *a, struct lines *out, struct err *e);

/* A csv of lengths: columns input_tokens and output_tokens (or aliases); either may be absent (NULL
 * then). */
int trace_lengths(const char *path, struct arena *a, int32_t **in, int32_t **out, int64_t *n,
                  struct err *e);

/* ---- summary.c */
struct trace_summary {
    int64_t n, repeated_tok, n_session;
    double span_s, rate_per_s,
        gap_cv_ratio; /* of first to last arrival; NAN where all are due at once */
    struct trace_summary_len {
        double mean, p50, p90, p99, min, max;
    } in, out;
    double repeated_ratio; /* repeated_tok over all prompt tokens */
    double turns_mean;     /* of the sessions; NAN without any */
};
void trace_summarise(const struct trace_rows *t,
                     struct trace_summary *out); /* t->n >= 1, in due order */

/* ---- record.c */
/* Drains a source into rows (the arena's) in due order, as if each request ended n_out * tpot_ns
 * after it was due. */
void trace_record(struct trace *t, int64_t tpot_ns, struct arena *a, struct trace_rows *out);

#endif
