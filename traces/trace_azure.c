/* traces/trace_azure.c - the csv of the Azure LLM inference traces.
 * Source: github.com/Azure/AzurePublicDataset, AzureLLMInferenceDataset2023.md and 2024.
 * SPDX-License-Identifier: Apache-2.0 */
#include "traces/trace_priv.h"

static const char *const name[3] = { "TIMESTAMP", "ContextTokens", "GeneratedTokens" };

static int header(struct lines *l, int at[3], struct err *e)
{
    struct text line, field[64];
    int got = lines_next(l, &line, e);
    if (got < 0) return ST_USAGE;
    int n = got ? text_split_csv(line, field, 64) : 0;
    for (int j = 0; j < 3; j++) {
        at[j] = -1;
        for (int i = 0; i < n; i++)
            if (text_is(field[i], name[j])) at[j] = i;
        if (at[j] < 0)
            return err_set(e, ST_USAGE, "%s:1: an azure trace has a column %s, this header has not",
                           l->path, name[j]);
    }
    return ST_OK;
}

static int row(struct lines *l, struct text line, const int at[3], struct build *b, struct err *e)
{
    struct text field[64];
    struct trace_req req = { .session = -1 };
    int64_t n_in, n_out;
    long long number = l->number;
    int n = text_split_csv(line, field, 64);
    for (int j = 0; j < 3; j++)
        if (at[j] >= n)
            return err_set(e, ST_USAGE, "%s:%lld: no field for %s", l->path, number, name[j]);
    struct text t = field[at[0]];
    if (!text_utc_ns(t, &req.t_due_ns))
        return err_set(e, ST_USAGE,
                       "%s:%lld: '%.*s' is no time in UTC like 2023-11-16 18:17:03.9799600",
                       l->path, number, (int)(t.n < 48 ? t.n : 48), t.s);
    for (int j = 1; j < 3; j++) {
        t = field[at[j]];
        if (!text_int(t, j == 1 ? &n_in : &n_out))
            return err_set(e, ST_USAGE, "%s:%lld: %s '%.*s' is no whole number", l->path, number,
                           name[j], (int)(t.n < 48 ? t.n : 48), t.s);
    }
    return build_row(b, number, req, n_in, n_out, e);
}

/* Times are dates: the earliest becomes 0. */
int trace_azure(struct lines l, struct build *b, struct err *e)
{
    int at[3] = { -1, -1, -1 }, got, st = header(&l, at, e);
    struct text line;
    while (st == ST_OK && (got = lines_next(&l, &line, e)) != 0) {
        if (got < 0) return ST_USAGE;
        if (text_trim(line).n > 0) st = row(&l, line, at, b, e);
    }
    if (st != ST_OK || b->n == 0) return st;
    int64_t first = b->row[0].req.t_due_ns;
    for (int64_t i = 1; i < b->n; i++)
        if (b->row[i].req.t_due_ns < first) first = b->row[i].req.t_due_ns;
    for (int64_t i = 0; i < b->n; i++) b->row[i].req.t_due_ns -= first;
    return ST_OK;
}
