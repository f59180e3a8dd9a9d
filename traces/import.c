/* traces/import.c - recognises a file by its content and hands it to its reader.
 * SPDX-License-Identifier: Apache-2.0 */
#include "traces/import.h"

#include <math.h>
#include <string.h>

#include "base/doc.h"
#include "base/prov.h"
#include "traces/import_priv.h"

#define MAX_BYTES ((size_t)1 << 30)

enum shape {
    SHAPE_NONE,
    SHAPE_FLAT,
    SHAPE_GUIDELLM,
    SHAPE_AIPERF_RECORDS,
    SHAPE_AIPERF_EXPORT,
    SHAPE_AIPERF_AGGREGATE,
    SHAPE_MLPERF,
    SHAPE_NCCL_JSON,
    SHAPE_NCCL_TEXT,
    SHAPE_LLAMA,
    SHAPE_HYPERFINE
};
struct found {
    enum shape shape;
    enum import_tool tool;
};

static bool has(const json_t *j, const char *path)
{
    return import_at(j, path) != NULL;
}

static struct found look_at_results(const json_t *j)
{
    const json_t *row = json_array_get(import_at(j, "results"), 0);
    if (has(j, "nccl_version") || has(row, "out_of_place") || has(row, "in_place"))
        return (struct found){ SHAPE_NCCL_JSON, IMPORT_NCCL_TESTS };
    if (has(row, "command")) return (struct found){ SHAPE_HYPERFINE, IMPORT_AUTO };
    return (struct found){ SHAPE_NONE, IMPORT_AUTO };
}

/* By keys that the tool has always written and others do not. */
static struct found look_at_json(const struct import_in *in)
{
    const json_t *j = in->value[0];
    if (json_is_array(j)) j = json_array_get(j, 0);
    if (has(j, "n_prompt") && has(j, "n_gen"))
        return (struct found){ SHAPE_LLAMA, IMPORT_LLAMA_BENCH };
    if (j != in->value[0]) return (struct found){ SHAPE_NONE, IMPORT_AUTO };
    if (has(j, "benchmarks") && (has(j, "metadata.guidellm_version") || has(j, "metadata.version")))
        return (struct found){ SHAPE_GUIDELLM, IMPORT_GUIDELLM };
    if (has(j, "metadata") && has(j, "metrics") && json_object_get(j, "error"))
        return (struct found){ SHAPE_AIPERF_RECORDS, IMPORT_AIPERF };
    if (has(j, "metadata.request_start_ns") && has(j, "metrics"))
        return (struct found){ SHAPE_AIPERF_RECORDS, IMPORT_AIPERF };
    if (has(j, "metadata.aggregation_type") && has(j, "metrics"))
        return (struct found){ SHAPE_AIPERF_AGGREGATE, IMPORT_AIPERF };
    if (has(j, "aiperf_version") || (has(j, "schema_version") && has(j, "request_latency.unit")))
        return (struct found){ SHAPE_AIPERF_EXPORT, IMPORT_AIPERF };
    if (has(j, "request_latency.unit") || has(j, "time_to_first_token.unit"))
        return (struct found){ SHAPE_AIPERF_EXPORT, IMPORT_GENAI_PERF };
    if (has(j, "mean_e2e_latency_ms") && has(j, "completed"))
        return (struct found){ SHAPE_FLAT, IMPORT_SGLANG };
    if (has(j, "completed") && has(j, "duration")) return (struct found){ SHAPE_FLAT, IMPORT_VLLM };
    return look_at_results(j);
}

static struct found look_at_text(const char *text)
{
    if (strstr(text, "MLPerf Results Summary"))
        return (struct found){ SHAPE_MLPERF, IMPORT_MLPERF };
    if (strstr(text, "busbw") && strstr(text, "algbw"))
        return (struct found){ SHAPE_NCCL_TEXT, IMPORT_NCCL_TESTS };
    return (struct found){ SHAPE_NONE, IMPORT_AUTO };
}

static const char *tool_name(int tool)
{
    static const char *const name[] = { "",       "vLLM bench serve", "GuideLLM",
                                        "AIPerf", "genai-perf",       "sglang bench_serving",
                                        "MLPerf", "nccl-tests",       "llama-bench" };
    return name[tool];
}

static int read_as(struct import_in *in, struct found f, int wanted)
{
    char word[32];
    const char *path = in->path;
    if (f.shape == SHAPE_HYPERFINE)
        return err_set(in->e, ST_USAGE,
                       "%s: hyperfine's times of commands: they bear on a claim about speed, but "
                       "are no serving run",
                       path);
    if (f.shape == SHAPE_NONE)
        return err_set(in->e, ST_USAGE,
                       "%s: none of vLLM bench serve, GuideLLM (JSON), AIPerf, genai-perf, sglang, "
                       "MLPerf (summary), nccl-tests, llama-bench (JSON)",
                       path);
    if (wanted != IMPORT_AUTO && wanted != (int)f.tool)
        return err_set(in->e, ST_USAGE, "%s: a file of %s, not of %s", path, tool_name(f.tool),
                       points_word(IMPORT_TOOL_WORDS, wanted, word, sizeof word));
    in->out->tool = f.tool;
    in->out->tool_name = tool_name(f.tool);
    switch (f.shape) {
    case SHAPE_FLAT: return import_flat(in);
    case SHAPE_GUIDELLM: return import_guidellm(in);
    case SHAPE_AIPERF_RECORDS: return import_aiperf_records(in);
    case SHAPE_AIPERF_EXPORT: return import_aiperf_export(in);
    case SHAPE_AIPERF_AGGREGATE: return import_aiperf_aggregate(in);
    case SHAPE_MLPERF: return import_mlperf(in);
    case SHAPE_NCCL_JSON: return import_nccl_json(in);
    case SHAPE_NCCL_TEXT: return import_nccl_text(in);
    default: return import_llama(in);
    }
}

/* A JSON value, and not a line of mpirun --tag-output, which begins with "[1,0]<stdout>:". */
static bool is_json(const char *first)
{
    const char *tag = strstr(first, "<std");
    return *first == '{' || (*first == '[' && !(tag && tag - first < 40));
}

/* A wrong value's relative error is not known; the row says that it is not 0. */
static void settle_errors(struct import_file *f)
{
    for (int i = 0; i < f->n_point; i++) {
        struct import_point *p = &f->point[i];
        if (f->tool == IMPORT_NCCL_TESTS)
            p->row.error = isnan(p->wrong) ? -1 : p->wrong > 0 ? 1 : 0;
    }
}

int import_read(const char *path, int tool, const char *collective, struct arena *a,
                struct import_file *out, struct err *e)
{
    struct import_in in = { .path = path, .a = a, .e = e, .collective = collective, .out = out };
    char *bytes = NULL;
    size_t n = 0;
    *out = (struct import_file){ .path = path,
                                 .tool_name = "",
                                 .version = "",
                                 .title = "",
                                 .machine = "",
                                 .model = "",
                                 .stated_mean_busbw = NAN,
                                 .stated_wrong = NAN };
    int st = doc_read_bytes(a, path, MAX_BYTES, &bytes, &n, e);
    if (st != ST_OK) return st;
    prov_sha256(bytes, n, out->sha256);
    if (n >= 3 && memcmp(bytes, "\xef\xbb\xbf", 3) == 0) { /* byte order mark */
        bytes += 3;
        n -= 3;
    }
    if (strlen(bytes) != n)
        return err_set(e, ST_USAGE, "%s: holds a zero byte, so it is no text", path);
    in.text = bytes;
    const char *first = bytes + strspn(bytes, " \t\r\n");
    struct found f = { SHAPE_NONE, IMPORT_AUTO };
    if (*first == 0) return err_set(e, ST_USAGE, "%s: the file is empty", path);
    if (is_json(first)) {
        st = import_json(&in, n);
        if (st == ST_OK) f = look_at_json(&in);
    } else {
        f = look_at_text(bytes);
    }
    if (st == ST_OK) st = read_as(&in, f, tool);
    if (st == ST_OK) settle_errors(out);
    if (st == ST_OK) st = import_check(&in);
    import_json_free(&in);
    return st;
}
