/* traces/trace_read.c - a trace file into rows: finds the format and calls its reader.
 * SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <string.h>

#include "base/doc.h"
#include "traces/trace_priv.h"

int trace_load(const char *path, struct arena *a, struct lines *out, struct err *e)
{
    char *bytes = NULL;
    size_t n = 0;
    int st = doc_read_bytes(a, path, (size_t)16 << 30, &bytes, &n, e);
    if (st != ST_OK) return st;
    size_t skip = n >= 3 && memcmp(bytes, "\xef\xbb\xbf", 3) == 0 ? 3 : 0; /* a byte order mark */
    *out = (struct lines){ .path = path, .at = bytes + skip, .end = bytes + n };
    return ST_OK;
}

static bool line_has(struct text line, const char *word)
{
    size_t n = strlen(word);
    for (size_t i = 0; i + n <= line.n; i++)
        if (memcmp(line.s + i, word, n) == 0) return true;
    return false;
}

/* The header test undoes quotes in place, so it sees a copy. */
static bool is_plain_header(struct text line)
{
    struct arena a;
    arena_init(&a);
    struct text copy = { arena_copy_text(&a, line.s, line.n), line.n };
    bool plain = trace_plain_header(copy);
    arena_release(&a);
    return plain;
}

static int find_format(struct lines l, int *format, struct err *e)
{
    struct text line = { 0 };
    int got;
    while ((got = lines_next(&l, &line, e)) > 0) {
        line = text_trim(line);
        if (line.n > 0 && line.s[0] != '#') break;
    }
    if (got < 0) return ST_USAGE;
    if (got == 0) return err_set(e, ST_USAGE, "%s: an empty trace", l.path);
    if (line.s[0] == '{')
        *format = line_has(line, "\"input_length\"") || line_has(line, "\"hash_ids\"")
                      ? TRACE_MOONCAKE
                      : TRACE_JSONL;
    else if (line_has(line, "TIMESTAMP") && line_has(line, "ContextTokens"))
        *format = TRACE_AZURE;
    else if (is_plain_header(line))
        *format = TRACE_CSV;
    else
        return err_set(e, ST_USAGE,
                       "%s:%lld: cannot tell the format: '%.*s' is neither a JSON object nor a csv "
                       "header with "
                       "arrival, in and out or TIMESTAMP, ContextTokens and GeneratedTokens",
                       l.path, (long long)l.number, (int)(line.n < 60 ? line.n : 60), line.s);
    return ST_OK;
}

int trace_read(const char *path, int format, struct arena *a, struct trace_rows *out, struct err *e)
{
    static int (*const reader[])(struct lines, struct build *,
                                 struct err *) = { [TRACE_AZURE] = trace_azure,
                                                   [TRACE_MOONCAKE] = trace_mooncake,
                                                   [TRACE_CSV] = trace_plain_csv,
                                                   [TRACE_JSONL] = trace_plain_jsonl };
    struct arena temp;
    struct build b;
    struct lines l;
    arena_init(&temp);
    build_init(&b, path);
    int st = trace_load(path, &temp, &l, e);
    if (st == ST_OK && format == TRACE_AUTO) st = find_format(l, &format, e);
    assert(format != TRACE_AUTO || st != ST_OK);
    if (st == ST_OK) st = reader[format](l, &b, e);
    if (st == ST_OK && b.n == 0) st = err_set(e, ST_USAGE, "%s: no requests in it", path);
    if (st == ST_OK) {
        build_finish(&b, a, out);
        out->format = format;
    }
    build_release(&b);
    arena_release(&temp);
    return st;
}
