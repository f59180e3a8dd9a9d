/* traces/run.c - writes a run file: tables appear with their first row, the file with run_commit.
 * SPDX-License-Identifier: Apache-2.0 */
#include "traces/run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "traces/spool.h"

enum {
    TABLE_REQUESTS,
    TABLE_STEPS,
    TABLE_SERIES,
    TABLE_STAGES,
    TABLE_MONITOR,
    TABLE_ANOMALIES,
    TABLE_COMM,
    TABLE_REPLICAS,
    TABLE_TOKENS,
    TABLE_SWEEP,
    N_TABLE
};

struct run {
    h5 *h5;
    char *path;
    h5table *table[N_TABLE];
    struct spool aside[N_TABLE]; /* rows that are for their table when the run ends */
    bool has_summary;
};

#define COL(member) offsetof(struct run_request, member)
/* clang-format off */
const struct h5col run_request_cols[] = {
    { "t_due", H5COL_I64, COL(t_due_ns), "ns", "due by the arrival plan, from run start", NULL },
    { "t_start", H5COL_I64, COL(t_start_ns), "ns",
      "submitted to the scheduler, from run start; -1: never", NULL },
    { "t_first", H5COL_I64, COL(t_first_ns), "ns",
      "first output token, from run start; -1: never", NULL },
    { "t_last", H5COL_I64, COL(t_last_ns), "ns", "last output token, from run start; -1: never",
      NULL },
    { "n_in", H5COL_I32, COL(n_in), "1", "prompt tokens", NULL },
    { "n_out", H5COL_I32, COL(n_out), "1", "output tokens made", NULL },
    { "cached_in", H5COL_I32, COL(cached_in), "1",
      "prompt tokens from the prefix cache at first admission", NULL },
    { "preempted", H5COL_I32, COL(preempted), "1", "times it lost its place in the batch", NULL },
    { "replica", H5COL_I32, COL(replica), "1", "replica that served it, from 0; -1: none", NULL },
    { "session", H5COL_I64, COL(session), "1", "session it is a turn of; -1: none", NULL },
    { "turn", H5COL_I32, COL(turn), "1", "turn of its session, from 0", NULL },
    { "status", H5COL_U8, COL(status), "1", "how it ended", RUN_STATUS_WORDS },
    { "class", H5COL_U8, COL(klass), "1", "class of the request, from 0", NULL },
    { .type = H5COL_END },
};
/* clang-format on */
#undef COL
#define COL(member) offsetof(struct run_step, member)
/* clang-format off */
const struct h5col run_step_cols[] = {
    { "t0", H5COL_I64, COL(t0_ns), "ns", "start of the step, from run start", NULL },
    { "t1", H5COL_I64, COL(t1_ns), "ns", "end of the step, from run start", NULL },
    { "replica", H5COL_I32, COL(replica), "1", "replica that ran it, from 0", NULL },
    { "n_step", H5COL_I32, COL(n_step), "1", "engine steps that this row stands for", NULL },
    { "n_prefill", H5COL_I32, COL(n_prefill_tok), "1", "prompt tokens computed", NULL },
    { "n_decode", H5COL_I32, COL(n_decode), "1", "requests decoding", NULL },
    { "queue", H5COL_I32, COL(queue), "1", "requests waiting", NULL },
    { "kv_used", H5COL_I64, COL(kv_used_blocks), "1", "KV blocks in use", NULL },
    { "chunks", H5COL_I32, COL(n_chunk), "1", "prompt chunks computed", NULL },
    { "logits", H5COL_I32, COL(n_logits), "1", "sequences that got a token", NULL },
    { "ctx", H5COL_I64, COL(sum_ctx_tok), "1", "contexts of those decoding, summed", NULL },
    { "skew", H5COL_I64, COL(skew_tok), "1",
      "n_decode times the longest context of those decoding, less ctx", NULL },
    { "past", H5COL_I64, COL(past_tok), "1", "tokens cached before the chunks, summed", NULL },
    { "pairs", H5COL_I64, COL(pairs), "1", "(query, key) pairs of the chunks", NULL },
    { "host", H5COL_I64, COL(host_ns), "ns",
      "choosing, building and booking it, beside t0 to t1; 0 where simulated", NULL },
    { .type = H5COL_END },
};
/* clang-format on */
#undef COL
#define COL(member) offsetof(struct run_bin, member)
/* clang-format off */
const struct h5col run_bin_cols[] = {
    { "t", H5COL_I64, COL(t_ns), "ns", "start of the bin, from run start", NULL },
    { "running", H5COL_F64, COL(running), "1", "requests running, average over the bin", NULL },
    { "queue", H5COL_F64, COL(queue), "1", "requests waiting, average over the bin", NULL },
    { "kv_used", H5COL_F64, COL(kv_used_ratio), "1",
      "share of KV blocks in use, average over the bin", NULL },
    { "in_rate", H5COL_F64, COL(in_tok_per_s), "token s-1", "prompt tokens computed", NULL },
    { "out_rate", H5COL_F64, COL(out_tok_per_s), "token s-1", "output tokens made", NULL },
    { "arrivals", H5COL_F64, COL(arrivals_per_s), "request s-1", "requests due", NULL },
    { "done", H5COL_F64, COL(done_per_s), "request s-1", "requests finished", NULL },
    { .type = H5COL_END },
};
/* clang-format on */
#undef COL
#define COL(member) offsetof(struct run_span, member)
/* clang-format off */
const struct h5col run_span_cols[] = {
    { "t0", H5COL_I64, COL(t0_ns), "ns", "start, from run start", NULL },
    { "t1", H5COL_I64, COL(t1_ns), "ns", "end, from run start", NULL },
    { "replica", H5COL_I32, COL(replica), "1", "replica, from 0", NULL },
    { "stage", H5COL_I32, COL(stage), "1", "pipeline stage, from 0", NULL },
    { "batch", H5COL_I32, COL(batch), "1", "number of the batch", NULL },
    { "n_prefill", H5COL_I32, COL(n_prefill_tok), "1", "prompt tokens in the batch", NULL },
    { "n_decode", H5COL_I32, COL(n_decode), "1", "requests decoding in the batch", NULL },
    { "kind", H5COL_U8, COL(kind), "1", "what the batch holds", RUN_SPAN_WORDS },
    { .type = H5COL_END },
};
/* clang-format on */
#undef COL
#define COL(member) offsetof(struct run_monitor, member)
/* clang-format off */
const struct h5col run_monitor_cols[] = {
    { "t0", H5COL_I64, COL(t0_ns), "ns", "the rank had its input, from run start", NULL },
    { "t1", H5COL_I64, COL(t1_ns), "ns", "the rank was done, from run start", NULL },
    { "step", H5COL_I64, COL(step), "1", "engine step, from 0", NULL },
    { "rank", H5COL_I32, COL(rank), "1", "rank: stage times tp, plus place in the stage", NULL },
    { "compute", H5COL_I64, COL(compute_ns), "ns", "computing", NULL },
    { "gemm", H5COL_I64, COL(gemm_ns), "ns", "of compute: matrix products; -1: not known", NULL },
    { "attention", H5COL_I64, COL(attn_ns), "ns",
      "of compute: attention over the cache; -1: not known", NULL },
    { "comm", H5COL_I64, COL(comm_ns), "ns",
      "communicating: what the fastest rank of the stage spent in its all-reduces, and sends", NULL },
    { "wait", H5COL_I64, COL(wait_ns), "ns",
      "waiting: for slower ranks of the stage, and for the stage in front", NULL },
    { "host", H5COL_I64, COL(host_ns), "ns",
      "scheduling and bookkeeping on rank 0 (before t0, after t1), sampling on the rank that samples", NULL },
    { "allreduce", H5COL_I64, COL(allreduce_ns), "ns",
      "mean latency of an all-reduce of the stage, on its fastest rank; 0: none", NULL },
    { "kv_used", H5COL_I64, COL(kv_used_tok), "1", "tokens in KV blocks in use", NULL },
    { "kv_reserved", H5COL_I64, COL(kv_reserved_tok), "1",
      "tokens that the KV blocks in use have room for", NULL },
    { "queue", H5COL_I32, COL(queue), "1", "requests waiting", NULL },
    { .type = H5COL_END },
};
/* clang-format on */
#undef COL
#define COL(member) offsetof(struct run_anomaly, member)
/* clang-format off */
const struct h5col run_anomaly_cols[] = {
    { "t0", H5COL_I64, COL(t0_ns), "ns", "start of the steps it was seen in, from run start", NULL },
    { "t1", H5COL_I64, COL(t1_ns), "ns", "their end", NULL },
    { "value", H5COL_F64, COL(value), "1",
      "what was measured: seconds of an all-reduce, else a ratio", NULL },
    { "limit", H5COL_F64, COL(limit), "1", "the threshold it exceeds, in the same unit", NULL },
    { "rank", H5COL_I32, COL(rank), "1", "the rank it concerns; -1: none in particular", NULL },
    { "kind", H5COL_U8, COL(kind), "1", "what is wrong", RUN_ANOMALY_WORDS },
    { .type = H5COL_END },
};
/* clang-format on */
#undef COL
#define COL(member) offsetof(struct run_comm, member)
/* clang-format off */
const struct h5col run_comm_cols[] = {
    { "rank", H5COL_I32, COL(rank), "1", "rank, numbered through all replicas", NULL },
    { "group", H5COL_U8, COL(group), "1", "whom the call spans: all ranks, those of a stage",
      RUN_COMM_GROUP_WORDS },
    { "call", H5COL_U8, COL(call), "1", "kind of call", RUN_COMM_CALL_WORDS },
    { "calls", H5COL_I64, COL(calls), "1", "calls that the rank made", NULL },
    { "bytes", H5COL_I64, COL(bytes), "byte", "bytes of all of them", NULL },
    { "time", H5COL_I64, COL(ns), "ns", "time in all of them, waiting for the others included", NULL },
    { "longest", H5COL_I64, COL(max_ns), "ns", "the longest of them", NULL },
    { .type = H5COL_END },
};
/* clang-format on */
#undef COL
#define COL(member) offsetof(struct run_replica, member)
/* clang-format off */
const struct h5col run_replica_cols[] = {
    { "due", H5COL_I64, COL(due), "1", "requests routed to it", NULL },
    { "finished", H5COL_I64, COL(finished), "1", "of these, finished", NULL },
    { "rejected", H5COL_I64, COL(rejected), "1", "of these, impossible", NULL },
    { "unfinished", H5COL_I64, COL(unfinished), "1", "of these, cut off by the end of the run", NULL },
    { "steps", H5COL_I64, COL(steps), "1", "engine steps", NULL },
    { "in_tok", H5COL_I64, COL(in_tok), "1", "prompt tokens computed", NULL },
    { "out_tok", H5COL_I64, COL(out_tok), "1", "output tokens made", NULL },
    { "preempted", H5COL_I64, COL(preempted), "1", "preemptions", NULL },
    { "recomputed_tok", H5COL_I64, COL(recomputed_tok), "1", "tokens computed again after them", NULL },
    { "hit_tok", H5COL_I64, COL(hit_tok), "1", "prompt tokens found in the prefix cache", NULL },
    { "asked_tok", H5COL_I64, COL(asked_tok), "1", "prompt tokens looked up there", NULL },
    { "kv_peak", H5COL_I64, COL(kv_peak_blocks), "1", "most KV blocks in use at a time", NULL },
    { .type = H5COL_END },
};
/* clang-format on */
#undef COL
#define COL(member) offsetof(struct run_token, member)
/* clang-format off */
const struct h5col run_token_cols[] = {
    { "request", H5COL_I64, COL(request), "1", "row of the request in /requests", NULL },
    { "token", H5COL_I32, COL(token), "1", "id of the generated token", NULL },
    { .type = H5COL_END },
};
/* clang-format on */
#undef COL
#define COL(member) offsetof(struct run_sweep, member)
#define TTFT        "time to first token from due, "
#define TPOT        "time per output token after the first, "
#define E2E         "end to end latency from due, "
/* clang-format off */
const struct h5col run_sweep_cols[] = {
    { "value", H5COL_F64, COL(value), "1", "of the swept option, in its base unit", NULL },
    { "rate", H5COL_F64, COL(rate_per_s), "request s-1", "offered load", NULL },
    { "requests", H5COL_F64, COL(requests_per_s), "request s-1", "requests finished", NULL },
    { "output", H5COL_F64, COL(output_tok_per_s), "token s-1", "output tokens made", NULL },
    { "goodput", H5COL_F64, COL(goodput_per_s), "request s-1", "attainment times offered load",
      NULL },
    { "attain", H5COL_F64, COL(attain_ratio), "1", "share of due requests that met all limits",
      NULL },
    { "attain_lo", H5COL_F64, COL(attain_lo), "1", "lower bound of attain", NULL },
    { "attain_hi", H5COL_F64, COL(attain_hi), "1", "upper bound of attain", NULL },
    { "ttft_mean", H5COL_F64, COL(ttft_mean_s), "s", TTFT "mean", NULL },
    { "ttft_p50", H5COL_F64, COL(ttft_p50_s), "s", TTFT "p50", NULL },
    { "ttft_p90", H5COL_F64, COL(ttft_p90_s), "s", TTFT "p90", NULL },
    { "ttft_p99", H5COL_F64, COL(ttft_p99_s), "s", TTFT "p99", NULL },
    { "tpot_mean", H5COL_F64, COL(tpot_mean_s), "s", TPOT "mean", NULL },
    { "tpot_p50", H5COL_F64, COL(tpot_p50_s), "s", TPOT "p50", NULL },
    { "tpot_p90", H5COL_F64, COL(tpot_p90_s), "s", TPOT "p90", NULL },
    { "tpot_p99", H5COL_F64, COL(tpot_p99_s), "s", TPOT "p99", NULL },
    { "e2e_mean", H5COL_F64, COL(e2e_mean_s), "s", E2E "mean", NULL },
    { "e2e_p50", H5COL_F64, COL(e2e_p50_s), "s", E2E "p50", NULL },
    { "e2e_p90", H5COL_F64, COL(e2e_p90_s), "s", E2E "p90", NULL },
    { "e2e_p99", H5COL_F64, COL(e2e_p99_s), "s", E2E "p99", NULL },
    { "ttft_p99_lo", H5COL_F64, COL(ttft_p99_lo_s), "s", "lower bound of ttft_p99", NULL },
    { "ttft_p99_hi", H5COL_F64, COL(ttft_p99_hi_s), "s", "upper bound of ttft_p99", NULL },
    { "tpot_p99_lo", H5COL_F64, COL(tpot_p99_lo_s), "s", "lower bound of tpot_p99", NULL },
    { "tpot_p99_hi", H5COL_F64, COL(tpot_p99_hi_s), "s", "upper bound of tpot_p99", NULL },
    { "output_lo", H5COL_F64, COL(out_lo), "token s-1", "lower bound of output", NULL },
    { "output_hi", H5COL_F64, COL(out_hi), "token s-1", "upper bound of output", NULL },
    { "gpus", H5COL_F64, COL(gpus), "1", "GPUs used", NULL },
    { "tp", H5COL_F64, COL(tp), "1", "tensor parallel degree", NULL },
    { "pp", H5COL_F64, COL(pp), "1", "pipeline stages", NULL },
    { "dp", H5COL_F64, COL(dp), "1", "replicas", NULL },
    { "overloaded", H5COL_U8, COL(overloaded), "1", "whether the queue grew without bound",
      "no yes" },
    { .type = H5COL_END },
};
/* clang-format on */
#undef COL

/* Table of each row type: group, name of its index, columns, size of a row, description. */
/* clang-format off */
static const struct {
    const char *group, *index;
    const struct h5col *cols;
    size_t row_bytes;
    const char *description;
} layout[N_TABLE] = {
    [TABLE_REQUESTS] = { "/requests", "request", run_request_cols, sizeof(struct run_request),
                         "one row per request" },
    [TABLE_STEPS] = { "/steps", "step", run_step_cols, sizeof(struct run_step), "engine steps" },
    [TABLE_SERIES] = { "/series", "bin", run_bin_cols, sizeof(struct run_bin),
                       "what happened in each interval of time" },
    [TABLE_STAGES] = { "/stages", "span", run_span_cols, sizeof(struct run_span),
                       "what each pipeline stage did when" },
    [TABLE_MONITOR] = { "/monitor", "row", run_monitor_cols, sizeof(struct run_monitor),
                        "where each rank's time went, step by step" },
    [TABLE_ANOMALIES] = { "/anomalies", "anomaly", run_anomaly_cols, sizeof(struct run_anomaly),
                          "thresholds exceeded" },
    [TABLE_COMM] = { "/comm", "row", run_comm_cols, sizeof(struct run_comm),
                     "what each rank spent in each kind of call" },
    [TABLE_REPLICAS] = { "/replicas", "replica", run_replica_cols, sizeof(struct run_replica),
                         "sums over the run, by replica" },
    [TABLE_TOKENS] = { "/tokens", "index", run_token_cols, sizeof(struct run_token),
                       "generated tokens, request after request" },
    [TABLE_SWEEP] = { "/sweep", "point", run_sweep_cols, sizeof(struct run_sweep),
                      "one row per point of a sweep" },
};
/* clang-format on */

run *run_create(const char *path, struct err *e)
{
    h5 *file = h5_create(path, e);
    if (!file) return NULL;
    run *r = mem_zalloc(1, sizeof *r);
    r->h5 = file;
    r->path = strcpy(mem_alloc(strlen(path) + 1), path);
    return r;
}

static int make(run *r, int which, struct err *e)
{
    if (r->table[which]) return ST_OK;
    r->table[which] = h5_table(r->h5, layout[which].group, layout[which].index, layout[which].cols,
                               layout[which].description, e);
    return r->table[which] ? ST_OK : e && e->status ? e->status : ST_IO;
}

int run_prepare(run *r, bool steps, bool tokens, struct err *e)
{
    static const int told[] = { TABLE_REQUESTS, TABLE_STEPS,     TABLE_MONITOR,
                                TABLE_TOKENS,   TABLE_ANOMALIES, TABLE_STAGES };
    int st = make(r, TABLE_REQUESTS, e);
    if (st == ST_OK && steps) st = make(r, TABLE_STEPS, e);
    if (st == ST_OK && steps) st = make(r, TABLE_MONITOR, e);
    if (st == ST_OK && tokens) st = make(r, TABLE_TOKENS, e);
    for (size_t i = 0; i < sizeof told / sizeof *told && st == ST_OK; i++)
        st = spool_open(&r->aside[told[i]], r->path, layout[told[i]].row_bytes, e);
    return st;
}

static int put(run *r, int which, const void *row, struct err *e)
{
    if (r->aside[which].what) return spool_put(&r->aside[which], row, e);
    int st = make(r, which, e);
    return st == ST_OK ? h5_table_put(r->table[which], row, 1, layout[which].row_bytes, e) : st;
}

/* What has been set aside goes where it belongs, and what is told from now on too. */
struct settle {
    run *r;
    int which;
};

static int settle_rows(void *ctx, const void *rows, size_t n, struct err *e)
{
    const struct settle *k = ctx;
    int st = make(k->r, k->which, e);
    if (st != ST_OK) return st;
    return h5_table_put(k->r->table[k->which], rows, n, layout[k->which].row_bytes, e);
}

int run_settle(run *r, struct err *e)
{
    int st = ST_OK;
    for (int i = 0; i < N_TABLE && st == ST_OK; i++) {
        struct settle k = { r, i };
        if (!r->aside[i].what) continue;
        st = spool_each(&r->aside[i], settle_rows, &k, e);
        spool_close(&r->aside[i]);
    }
    return st;
}

int run_put_request(run *r, const struct run_request *row, struct err *e)
{
    return put(r, TABLE_REQUESTS, row, e);
}

int run_put_step(run *r, const struct run_step *row, struct err *e)
{
    return put(r, TABLE_STEPS, row, e);
}

int run_put_bin(run *r, const struct run_bin *row, struct err *e)
{
    return put(r, TABLE_SERIES, row, e);
}

int run_put_span(run *r, const struct run_span *row, struct err *e)
{
    return put(r, TABLE_STAGES, row, e);
}

int run_put_monitor(run *r, const struct run_monitor *row, struct err *e)
{
    return put(r, TABLE_MONITOR, row, e);
}

int run_put_anomaly(run *r, const struct run_anomaly *row, struct err *e)
{
    return put(r, TABLE_ANOMALIES, row, e);
}

int run_put_comm(run *r, const struct run_comm *row, struct err *e)
{
    return put(r, TABLE_COMM, row, e);
}

int run_put_replica(run *r, const struct run_replica *row, struct err *e)
{
    return put(r, TABLE_REPLICAS, row, e);
}

int run_put_token(run *r, const struct run_token *row, struct err *e)
{
    return put(r, TABLE_TOKENS, row, e);
}

int run_put_sweep(run *r, const struct run_sweep *row, struct err *e)
{
    return put(r, TABLE_SWEEP, row, e);
}

h5 *run_h5(run *r)
{
    return r->h5;
}

/* The two dimensions carry numbers only: scales of text do not survive all readers, so their names
 * are attributes. The scales are named after the metric, as metrics may have other statistics. */
int run_put_summary(run *r, const char *name, const struct ci *stat, int n_stat, const char *stats,
                    const char *units, const char *method, struct err *e)
{
    char path[256], dim[256];
    size_t n[2] = { (size_t)n_stat, 3 };
    if (snprintf(path, sizeof path, "/summary/%s", name) >= (int)sizeof path ||
        snprintf(dim, sizeof dim, "%s_stat", name) >= (int)sizeof dim)
        return err_set(e, ST_USAGE, "the name of a summary is longer than 240 bytes");
    if (!r->has_summary) {
        int st = h5_group(r->h5, "/summary", "estimates with their intervals", e);
        if (st != ST_OK) return st;
        r->has_summary = true;
    }
    double *data = mem_zalloc(3 * n[0] + 1, sizeof *data),
           *index = mem_zalloc(n[0] + 1, sizeof *index);
    for (size_t i = 0; i < n[0]; i++) {
        data[3 * i] = stat[i].lo;
        data[3 * i + 1] = stat[i].mid;
        data[3 * i + 2] = stat[i].hi;
        index[i] = (double)i;
    }
    const char *const dims[2] = { dim, "bound" };
    const double bound[3] = { 0, 1, 2 };
    const double *const scale[2] = { index, bound };
    const char *const scale_units[2] = { "1", "1" };
    int st = h5_array(
        r->h5, path, 2, n, dims, scale, scale_units, data, units,
        "rows: the statistics named in the attribute stats; columns: lower, estimate, upper", e);
    if (st == ST_OK) st = h5_attr_text(r->h5, path, "stats", stats, e);
    if (st == ST_OK) st = h5_attr_text(r->h5, path, "bounds", "lower estimate upper", e);
    if (st == ST_OK) st = h5_attr_text(r->h5, path, "method", method, e);
    free(data);
    free(index);
    return st;
}

static void run_free(run *r)
{
    for (int i = 0; i < N_TABLE; i++) spool_close(&r->aside[i]);
    free(r->path);
    free(r);
}

int run_commit(run *r, struct err *e)
{
    int st = run_settle(r, e);
    if (st == ST_OK)
        st = h5_commit(r->h5, e);
    else
        h5_abort(r->h5);
    run_free(r);
    return st;
}

void run_abort(run *r)
{
    if (!r) return;
    h5_abort(r->h5);
    run_free(r);
}
