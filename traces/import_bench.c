/* traces/import_bench.c - microbenchmarks in JSON: nccl-tests -J and llama-bench -o json, jsonl.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "traces/import_priv.h"

double import_bus_factor(enum points_op op, int n)
{
    if (n < 1) return NAN;
    switch (op) {
    case POINTS_ALLREDUCE: return 2.0 * (n - 1) / n;
    case POINTS_REDUCESCATTER:
    case POINTS_ALLGATHER:
    case POINTS_ALLTOALL:
    case POINTS_GATHER:
    case POINTS_SCATTER: return (n - 1.0) / n;
    default: return 1;
    }
}

static const char *copy(struct import_in *in, const char *text)
{
    return arena_copy_text(in->a, text, strlen(text));
}

/* ---- nccl-tests: times in us, bandwidths in 1e9 byte/s, NaN as "nan" */

static int nccl_times(struct import_in *in, const json_t *row, const json_t *half, bool in_place,
                      struct import_point *p)
{
    const json_t *each =
        import_at(row, in_place ? "in_place_per_iter.times_us" : "out_of_place_per_iter.times_us");
    const json_t *time = import_at(half, "time");
    double v;
    if (!time) {
        time = import_at(half, "cpu_time");
        in->out->cpu_time = in->out->cpu_time || time;
    }
    p->n_sample = json_array_size(each) > 0 ? (int64_t)json_array_size(each) : 1;
    p->calls = 1;
    if (json_array_size(each) == 0 && import_number(import_at(row, "actual_iterations"), &v) &&
        v >= 1 && v <= 1e9)
        p->calls = (int64_t)v;
    p->s_per_call = arena_array(in->a, (size_t)p->n_sample, sizeof *p->s_per_call);
    for (int64_t i = 0; i < p->n_sample; i++) {
        const json_t *at = json_array_size(each) > 0 ? json_array_get(each, (size_t)i) : time;
        if (!import_number(at, &v) || !(v > 0 && v <= 1e15))
            return err_set(in->e, ST_USAGE, "%s: result %d: no time in us", in->path,
                           in->out->n_point + 1);
        p->s_per_call[i] = v * 1e-6;
    }
    return ST_OK;
}

static int nccl_half(struct import_in *in, const json_t *j, const json_t *row, bool in_place)
{
    const json_t *half = import_at(row, in_place ? "in_place" : "out_of_place");
    struct import_point *p = &in->out->point[in->out->n_point];
    const char *name = import_text(row, "experiment_name", "");
    enum points_op op;
    double bytes, ranks;
    if (!half) return ST_OK;
    if (!import_nccl_op(name, &op)) {
        const char *program = json_string_value(json_array_get(import_at(j, "args"), 0));
        if (!import_nccl_op(program ? program : "", &op))
            return err_set(in->e, ST_USAGE, "%s: result %d: '%.40s' is no known collective",
                           in->path, in->out->n_point + 1, name);
    }
    if (in->collective) {
        enum points_op asked;
        int st = import_nccl_named(in, &asked);
        if (st == ST_OK && asked != op)
            st = err_set(in->e, ST_USAGE, "--collective: %s is of another, as it says itself",
                         in->path);
        if (st != ST_OK) return st;
    }
    if (!import_number(import_at(row, "size"), &bytes) || !(bytes >= 0 && bytes <= 1e18))
        return err_set(in->e, ST_USAGE, "%s: result %d: size is no number of bytes", in->path,
                       in->out->n_point + 1);
    ranks = (double)json_array_size(import_at(j, "config.devices"));
    *p = (struct import_point){ .stated_tok_per_s = NAN, .stated_s = NAN };
    p->row = (struct points_row){
        .op = (uint8_t)op,
        .dtype = (uint8_t)import_nccl_dtype(import_text(row, "type", "")),
        .comm = POINTS_NCCL,
        .part = in_place ? POINTS_IN_PLACE : POINTS_NO_PART,
        .ranks = ranks <= 1e6 ? (int32_t)ranks : 0,
        .bytes = bytes,
    };
    import_number(import_at(half, "alg_bw"), &p->stated_algbw);
    import_number(import_at(half, "bus_bw"), &p->stated_busbw);
    import_number(import_at(half, "nwrong"), &p->wrong);
    p->stated_algbw *= 1e9;
    p->stated_busbw *= 1e9;
    int st = nccl_times(in, row, half, in_place, p);
    if (st == ST_OK) in->out->n_point++;
    return st;
}

int import_nccl_json(struct import_in *in)
{
    const json_t *j = in->value[0], *rows = import_at(j, "results");
    size_t n = json_array_size(rows);
    double version, busbw;
    int st = ST_OK;
    if (n > 1000000) return err_set(in->e, ST_USAGE, "%s: more than 1e6 results", in->path);
    in->out->point = arena_array(in->a, 2 * n, sizeof *in->out->point);
    for (size_t i = 0; i < n && st == ST_OK; i++) {
        st = nccl_half(in, j, json_array_get(rows, i), false);
        if (st == ST_OK) st = nccl_half(in, j, json_array_get(rows, i), true);
    }
    if (st == ST_OK && in->out->n_point == 0)
        st = err_set(in->e, ST_USAGE, "%s: no result in it", in->path);
    if (import_number(import_at(j, "nccl_version"), &version) && version > 0 && version < 1e9)
        in->out->version = arena_printf(in->a, "with NCCL %d.%d.%d", (int)version / 10000,
                                        (int)version / 100 % 100, (int)version % 100);
    import_number(import_at(j, "out_of_bounds.count"), &in->out->stated_wrong);
    if (import_number(import_at(j, "average_bus_bandwidth.bandwidth"), &busbw))
        in->out->stated_mean_busbw = busbw * 1e9;
    const char *device =
        import_text(json_array_get(import_at(j, "config.devices"), 0), "device_info", "");
    in->out->machine = copy(in, device);
    in->out->date = import_date(import_text(j, "start_time", ""), in->a);
    in->out->title = "collectives by nccl-tests";
    return st;
}

/* ---- llama-bench: samples in ns; tokens of a test are n_prompt + n_gen, the depth not counted */

static enum points_dtype llama_dtype(const char *type)
{
    size_t n = strlen(type);
    static const struct {
        const char *end;
        enum points_dtype dtype;
    } known[] = { { " BF16", POINTS_BF16 }, { " F16", POINTS_F16 }, { " all F32", POINTS_F32 } };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        size_t m = strlen(known[i].end);
        if (n >= m && strcmp(type + n - m, known[i].end) == 0) return known[i].dtype;
    }
    return POINTS_OTHER;
}

static int llama_samples(struct import_in *in, const json_t *j, int row, struct import_point *p)
{
    const json_t *list = import_at(j, "samples_ns");
    double v;
    size_t n = json_array_size(list);
    p->n_sample = n ? (int64_t)n : 1;
    p->calls = 1;
    if (n == 0) p->stated_s = NAN; /* it is the sample */
    p->s_per_call = arena_array(in->a, (size_t)p->n_sample, sizeof *p->s_per_call);
    for (int64_t i = 0; i < p->n_sample; i++) {
        const json_t *at = n ? json_array_get(list, (size_t)i) : import_at(j, "avg_ns");
        if (!import_number(at, &v) || !(v > 0 && v <= 1e18))
            return err_set(in->e, ST_USAGE, "%s: test %d: samples_ns[%lld] is no time in ns",
                           in->path, row + 1, (long long)i);
        p->s_per_call[i] = v * 1e-9;
    }
    return ST_OK;
}

static int llama_row(struct import_in *in, const json_t *j, int row)
{
    struct import_point *p = &in->out->point[row];
    int32_t n_prompt = 0, n_gen = 0, depth = 0, threads = 0;
    *p = (struct import_point){ .stated_algbw = NAN, .stated_busbw = NAN, .wrong = NAN };
    import_number(import_at(j, "avg_ts"), &p->stated_tok_per_s);
    import_number(import_at(j, "avg_ns"), &p->stated_s);
    p->stated_s *= 1e-9;
    if (import_at(j, "n_depth") && !import_tok(import_at(j, "n_depth"), &depth)) depth = -1;
    import_tok(import_at(j, "n_threads"), &threads);
    if (!import_tok(import_at(j, "n_prompt"), &n_prompt) ||
        !import_tok(import_at(j, "n_gen"), &n_gen) || depth < 0 || n_prompt + n_gen == 0)
        return err_set(in->e, ST_USAGE, "%s: test %d: n_prompt, n_gen or n_depth is no length",
                       in->path, row + 1);
    p->row = (struct points_row){ .op = n_gen ? POINTS_DECODE : POINTS_PREFILL,
                                  .dtype = (uint8_t)llama_dtype(import_text(j, "model_type", "")),
                                  .threads = threads,
                                  .ranks = 1,
                                  .m = n_prompt,
                                  .n = n_gen,
                                  .seqs = 1,
                                  .ctx = depth,
                                  .ctx_max = depth,
                                  .error = -1 };
    return llama_samples(in, j, row, p);
}

/* A key beside sizes and results in which a and b differ, or NULL: a points file has no column for
 * it. */
static const char *difference(struct import_in *in, const json_t *a, const json_t *b)
{
    static const char free_keys[] = " n_prompt n_gen n_depth n_threads test_time avg_ns stddev_ns "
                                    "avg_ts stddev_ts samples_ns samples_ts ";
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)a, key, value)
    {
        if (strlen(key) < 60 && strstr(free_keys, arena_printf(in->a, " %s ", key))) continue;
        if (!json_equal(value, json_object_get(b, key))) return copy(in, key);
    }
    return NULL;
}

int import_llama(struct import_in *in)
{
    const json_t *first = in->value[0];
    bool list = json_is_array(first);
    size_t n = list ? json_array_size(first) : (size_t)in->n_value;
    if (n > 1000000) return err_set(in->e, ST_USAGE, "%s: more than 1e6 tests", in->path);
    if (list) first = json_array_get(first, 0);
    in->out->point = arena_array(in->a, n, sizeof *in->out->point);
    for (size_t i = 0; i < n; i++) {
        const json_t *j = list ? json_array_get(in->value[0], i) : in->value[i];
        int st = llama_row(in, j, (int)i);
        if (st != ST_OK) return st;
        if (!in->out->mixed) in->out->mixed = difference(in, first, j);
    }
    in->out->n_point = (int)n;
    in->out->version = copy(in, import_text(first, "build_commit", ""));
    in->out->model = copy(in, import_text(first, "model_type", ""));
    in->out->date = import_date(import_text(first, "test_time", ""), in->a);
    const char *gpu = import_text(first, "gpu_info", "");
    in->out->machine = copy(in, *gpu ? gpu : import_text(first, "cpu_info", ""));
    in->out->title =
        *in->out->model ? arena_printf(in->a, "%s by llama-bench", in->out->model) : "llama-bench";
    return ST_OK;
}
