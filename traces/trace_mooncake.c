/* traces/trace_mooncake.c - the JSON lines of the Mooncake traces: blocks of 512 tokens with ids of
 * prefixes. Source: github.com/kvcache-ai/Mooncake, FAST25-release; Qin et al., "Mooncake", FAST
 * 2025.
 * SPDX-License-Identifier: Apache-2.0 */
#include <jansson.h>
#include <math.h>

#include "traces/trace_priv.h"

static int get_int(const json_t *o, const char *name, struct lines *l, int64_t *out, struct err *e)
{
    const json_t *v = json_object_get(o, name);
    double x = json_is_real(v) ? json_real_value(v) : 0.5;
    if (!v)
        return err_set(e, ST_USAGE, "%s:%lld: no member %s", l->path, (long long)l->number, name);
    if (json_is_integer(v))
        *out = json_integer_value(v);
    else if (x == floor(x) && fabs(x) < 9e15)
        *out = (int64_t)x;
    else
        return err_set(e, ST_USAGE, "%s:%lld: %s is no whole number", l->path, (long long)l->number,
                       name);
    return ST_OK;
}

/* The last block may be partial: its end enters its key, so that the same id with another end is
 * another content. */
static int blocks(const json_t *o, int64_t n_in, struct lines *l, struct build *b, struct err *e)
{
    const json_t *ids = json_object_get(o, "hash_ids");
    if (!ids || json_is_null(ids)) return ST_OK;
    if (!json_is_array(ids))
        return err_set(e, ST_USAGE, "%s:%lld: hash_ids is no list", l->path, (long long)l->number);
    uint64_t key = 0;
    int64_t n = (int64_t)json_array_size(ids);
    if (n > 0 && TRACE_MOONCAKE_TOK * (n - 1) >= n_in)
        return err_set(e, ST_USAGE,
                       "%s:%lld: %lld hash_ids of 512 tokens are more than %lld tokens need",
                       l->path, (long long)l->number, (long long)n, (long long)n_in);
    for (int64_t i = 0; i < n; i++) {
        const json_t *id = json_array_get(ids, (size_t)i);
        if (!json_is_integer(id))
            return err_set(e, ST_USAGE, "%s:%lld: hash_ids holds what is no whole number", l->path,
                           (long long)l->number);
        int64_t end = TRACE_MOONCAKE_TOK * (i + 1);
        key = mix_pair(key, (uint64_t)json_integer_value(id));
        if (end > n_in) key = mix_pair(key, (uint64_t)n_in);
        build_seg(b, end < n_in ? end : n_in, key);
    }
    return ST_OK;
}

static int row(struct lines *l, struct text line, struct build *b, struct err *e)
{
    json_error_t why;
    struct trace_req req = { .session = -1 };
    int64_t n_in = 0, n_out = 0;
    json_t *o = json_loadb(line.s, line.n, JSON_REJECT_DUPLICATES, &why),
           *ms = json_object_get(o, "timestamp");
    int st = ST_OK;
    if (!json_is_object(o))
        st = err_set(e, ST_USAGE, "%s:%lld: not a JSON object: %s", l->path, (long long)l->number,
                     o ? "another value" : why.text);
    else if (!json_is_number(ms) || !(fabs(json_number_value(ms)) <= 1e-6 * (double)TRACE_MAX_NS))
        st = err_set(e, ST_USAGE, "%s:%lld: no timestamp in ms", l->path, (long long)l->number);
    if (st == ST_OK) st = get_int(o, "input_length", l, &n_in, e);
    if (st == ST_OK) st = get_int(o, "output_length", l, &n_out, e);
    if (st == ST_OK) st = blocks(o, n_in, l, b, e);
    if (st == ST_OK) {
        req.t_due_ns = json_is_integer(ms) ? json_integer_value(ms) * 1000000
                                           : (int64_t)floor(json_real_value(ms) * 1e6 + 0.5);
        st = build_row(b, l->number, req, n_in, n_out, e);
    }
    json_decref(o);
    return st;
}

int trace_mooncake(struct lines l, struct build *b, struct err *e)
{
    struct text line;
    int got, st = ST_OK;
    while (st == ST_OK && (got = lines_next(&l, &line, e)) != 0) {
        if (got < 0) return ST_USAGE;
        if (text_trim(line).n > 0) st = row(&l, line, b, e);
    }
    return st;
}
