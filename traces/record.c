/* traces/record.c - what a source hands out to a cluster that serves each request in a time known
 * beforehand.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/stop.h"
#include "traces/trace_priv.h"

/* Requests that have been handed out and not yet ended, soonest end on top: a binary heap. */
struct pending {
    struct open {
        int64_t end_ns;
        struct trace_req req;
    } * at;
    size_t n, cap;
};

static bool sooner(const struct open *x, const struct open *y)
{
    return x->end_ns != y->end_ns ? x->end_ns < y->end_ns : x->req.id < y->req.id;
}

static void pending_push(struct pending *p, struct open item)
{
    if (p->n == p->cap) p->at = mem_resize(p->at, p->cap = p->cap ? 2 * p->cap : 64, sizeof *p->at);
    size_t i = p->n++;
    for (; i > 0 && sooner(&item, &p->at[(i - 1) / 2]); i = (i - 1) / 2)
        p->at[i] = p->at[(i - 1) / 2];
    p->at[i] = item;
}

static struct open pending_pop(struct pending *p)
{
    struct open top = p->at[0], item = p->at[--p->n];
    size_t i = 0;
    for (size_t child = 1; child < p->n; child = 2 * i + 1) {
        if (child + 1 < p->n && sooner(&p->at[child + 1], &p->at[child])) child++;
        if (!sooner(&p->at[child], &item)) break;
        p->at[i] = p->at[child];
        i = child;
    }
    p->at[i] = item;
    return top;
}

static int by_due(const void *x, const void *y)
{
    const struct trace_req *a = x, *b = y;
    if (a->t_due_ns != b->t_due_ns) return a->t_due_ns < b->t_due_ns ? -1 : 1;
    return (a->id > b->id) - (a->id < b->id);
}

/* Appends a copy to rows, which have room for *cap. */
static void keep(struct trace_rows *rows, int64_t *cap, const struct trace_req *r, struct arena *a)
{
    if (rows->n == *cap)
        rows->row =
            mem_resize(rows->row, (size_t)(*cap = *cap ? 2 * *cap : 256), sizeof *rows->row);
    struct trace_req *to = &rows->row[rows->n++];
    *to = *r;
    to->seg = NULL;
    if (r->n_seg == 0) return;
    struct trace_seg *seg = arena_array(a, (size_t)r->n_seg, sizeof *seg);
    to->seg = memcpy(seg, r->seg, (size_t)r->n_seg * sizeof *seg);
    rows->has_prefix = true;
}

static int64_t end_of(const struct trace_req *r, int64_t tpot_ns)
{
    return trace_later(r->t_due_ns, (double)tpot_ns * r->n_out);
}

void trace_record(struct trace *t, int64_t tpot_ns, struct arena *a, struct trace_rows *out)
{
    struct pending p = { 0 };
    struct trace_req r;
    int64_t cap = 0;
    *out = (struct trace_rows){ .n_class = trace_n_class(t) };
    bool more = trace_next(t, &r);
    while ((more || p.n > 0) && !stop_asked()) {
        if (p.n > 0 && (!more || p.at[0].end_ns <= r.t_due_ns)) {
            struct open ended = pending_pop(&p);
            struct trace_req next;
            if (!trace_done(t, &ended.req, ended.end_ns, &next)) continue;
            keep(out, &cap, &next, a);
            pending_push(&p, (struct open){ end_of(&next, tpot_ns), next });
        } else {
            keep(out, &cap, &r, a);
            pending_push(&p, (struct open){ end_of(&r, tpot_ns), r });
            more = trace_next(t, &r);
        }
    }
    free(p.at);
    if (out->n) qsort(out->row, (size_t)out->n, sizeof *out->row, by_due);
    struct trace_req *kept = arena_array(a, (size_t)out->n, sizeof *kept);
    if (out->n) memcpy(kept, out->row, (size_t)out->n * sizeof *kept);
    free(out->row);
    out->row = kept;
    out->class_name = arena_array(a, (size_t)out->n_class, sizeof *out->class_name);
    for (int i = 0; i < out->n_class; i++) {
        const char *name = trace_class_name(t, i);
        out->class_name[i] = arena_copy_text(a, name, strlen(name));
    }
    for (int64_t i = 0; i < out->n; i++) out->row[i].id = i;
}
