/* tests/fuzz/trace_check.h - a trace file from any bytes: its rows keep the rules, and what is
 * written from them reads back the same. SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_FUZZ_TRACE_CHECK_H
#define TESTS_FUZZ_TRACE_CHECK_H

#include "tests/fuzz/fuzz.h"
#include "traces/trace_priv.h"

static inline void check_row(const struct trace_req *r, const struct trace_req *before, int n_class)
{
    FUZZ_CHECK(r->n_in >= 1 && r->n_out >= 1 && r->n_in <= TRACE_MAX_TOK);
    FUZZ_CHECK(!before || (r->t_due_ns >= before->t_due_ns && r->id == before->id + 1));
    FUZZ_CHECK(r->klass >= 0 && r->klass < n_class && r->turn >= 0 && r->session >= -1);
    for (int i = 0; i < r->n_seg; i++)
        FUZZ_CHECK(r->seg[i].end_tok > (i ? r->seg[i - 1].end_tok : 0) &&
                   r->seg[i].end_tok <= (int64_t)r->n_in + r->n_out);
}

static inline void check_same(const struct trace_rows *x, const struct trace_rows *y)
{
    FUZZ_CHECK(x->n == y->n && x->n_class == y->n_class);
    for (int64_t i = 0; i < x->n; i++) {
        const struct trace_req *p = &x->row[i], *q = &y->row[i];
        FUZZ_CHECK(p->t_due_ns == q->t_due_ns && p->n_in == q->n_in && p->n_out == q->n_out);
        FUZZ_CHECK(p->session == q->session && p->turn == q->turn && p->n_seg == q->n_seg);
        FUZZ_CHECK(strcmp(x->class_name[p->klass], y->class_name[q->klass]) == 0);
        for (int j = 0; j < p->n_seg; j++)
            FUZZ_CHECK(p->seg[j].end_tok == q->seg[j].end_tok && p->seg[j].key == q->seg[j].key);
    }
}

/* format: of the reader; back: of the rewritten file. */
static inline void check_trace(const uint8_t *data, size_t n, int format, int back)
{
    struct arena a;
    struct err e = { 0 };
    struct trace_rows rows, again;
    struct trace_summary s;
    arena_init(&a);
    int st = trace_read(fuzz_file(0, data, n), format, &a, &rows, &e);
    fuzz_status(st, &e);
    if (st == ST_OK) {
        FUZZ_CHECK(rows.n > 0);
        for (int64_t i = 0; i < rows.n; i++)
            check_row(&rows.row[i], i ? &rows.row[i - 1] : NULL, rows.n_class);
        trace_summarise(&rows, &s);
        st = trace_write(fuzz_path(1), back, &rows, "a\ncomment", &e);
        if (st == ST_OK) st = trace_read(fuzz_path(1), back, &a, &again, &e);
        if (st != ST_OK) fprintf(stderr, "%s\n", e.text);
        FUZZ_CHECK(st == ST_OK);
        check_same(&rows, &again);
    }
    arena_release(&a);
}

#endif
