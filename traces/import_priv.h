/* traces/import_priv.h - what the readers of other tools' files share; nobody else includes it.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TRACES_IMPORT_PRIV_H
#define TRACES_IMPORT_PRIV_H

#include <jansson.h>
#include <stdbool.h>

#include "traces/import.h"

#define IMPORT_MAX_NS INT64_C(3153600000000000000) /* 100 years: 1970 to 2070 too */
enum { IMPORT_MAX_TOK = 1000000000 };

/* One file while it is read: its values (JSON, one or many) or its text. */
struct import_in {
    const char *path;
    struct arena *a;
    struct err *e;
    const char *text;       /* NUL-terminated */
    const char *collective; /* of nccl-tests' text, or NULL */
    json_t **value;         /* NULL: not JSON */
    int n_value;
    struct import_file *out;
};

/* ---- import_json.c */
/* Reads all of the text as JSON values, one after the other; *value is malloced, also on failure:
 * import_json_free. */
int import_json(struct import_in *in, size_t n);
void import_json_free(struct import_in *in);
json_t *import_at(const json_t *j, const char *path); /* "a.b.c", or NULL; null counts as absent */
bool import_number(const json_t *j, double *out);     /* also from text; may be inf or nan */
const char *import_text(const json_t *j, const char *path, const char *otherwise);
/* A time in units of unit_ns, to whole ns; false unless finite and within 100 years. */
bool import_ns(const json_t *j, int64_t unit_ns, int64_t *out);
bool import_tok(const json_t *j, int32_t *out); /* a whole number from 0 to 1e9 */
/* ns of "s", "sec", "ms", "us", "ns"; 0: no unit of time. */
int64_t import_unit_ns(const char *unit);

/* ---- parts of a run */
struct import_run *import_add_runs(struct import_in *in, int n);
void import_room(struct import_in *in, struct import_run *r, size_t most); /* for figures */
void import_figure(struct import_run *r, const char *name, double v, const char *unit,
                   const char *means);
void import_note(struct import_run *r, const char *text);
struct import_request import_empty_request(void);
/* Checks a request whose instants are all set (-1: never), in order of start, first, last. */
int import_check_request(struct import_in *in, const struct import_request *q, int64_t i);
/* Shifts instants so that the earliest is 0. */
void import_shift(struct import_run *r);

/* ---- readers: fill in->out. */
int import_flat(struct import_in *in); /* vLLM and sglang */
int import_guidellm(struct import_in *in);
int import_aiperf_records(struct import_in *in);
int import_aiperf_export(struct import_in *in); /* genai-perf too */
int import_aiperf_aggregate(struct import_in *in);
int import_mlperf(struct import_in *in);
int import_nccl_json(struct import_in *in);
int import_nccl_text(struct import_in *in);
int import_llama(struct import_in *in);

/* ---- import_check.c: after the reader. Errors: ST_USAGE for what cannot be. */
int import_check(struct import_in *in);

/* ---- import_text.c: names of nccl-tests ("all_reduce_perf", "AllReduce"; "float"). */
bool import_nccl_op(const char *name, enum points_op *out);
int import_nccl_named(struct import_in *in, enum points_op *out); /* in->collective; ST_USAGE */
enum points_dtype import_nccl_dtype(const char *name);            /* POINTS_OTHER if unknown */

#endif
