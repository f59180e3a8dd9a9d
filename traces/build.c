/* traces/build.c - collects the rows of a file, checks each, sorts them and hands them to an arena.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/utf8.h"
#include "traces/trace_priv.h"

void build_init(struct build *b, const char *path)
{
    *b = (struct build){ .path = path, .before = -1 };
}

void build_release(struct build *b)
{
    for (int i = 0; i < b->n_class; i++) free(b->class_name[i]);
    free(b->class_name);
    free(b->row);
    free(b->seg);
    idmap_release(&b->last_turn);
}

int build_class(struct build *b, const char *text, size_t n, int64_t line, int32_t *out,
                struct err *e)
{
    for (int i = 0; i < b->n_class; i++)
        if (text_is((struct text){ text, n }, b->class_name[i])) {
            *out = i;
            return ST_OK;
        }
    if (b->n_class == TRACE_MAX_CLASS)
        return err_set(e, ST_USAGE, "%s:%lld: more than %d classes", b->path, (long long)line,
                       TRACE_MAX_CLASS);
    for (size_t i = 0, step; i < n; i += step) {
        step = utf8_step(text + i, n - i, NULL);
        if (step == 0 || (unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return err_set(e, ST_USAGE, "%s:%lld: the name of the class is no printable UTF-8",
                           b->path, (long long)line);
    }
    b->class_name = mem_resize(b->class_name, (size_t)b->n_class + 1, sizeof *b->class_name);
    char *copy = mem_alloc(n + 1);
    memcpy(copy, text, n);
    copy[n] = 0;
    *out = b->n_class;
    b->class_name[b->n_class++] = copy;
    return ST_OK;
}

int64_t build_session(const char *text, size_t n)
{
    int64_t v;
    uint64_t h = n;
    bool plain = n > 0 && text[0] != '+' && text[0] != '-' && (text[0] != '0' || n == 1);
    if (plain && text_int((struct text){ text, n }, &v)) return v;
    for (size_t i = 0; i < n; i++) h = mix_pair(h, (unsigned char)text[i]);
    return (int64_t)(h >> 2 | UINT64_C(1) << 62);
}

void build_seg(struct build *b, int64_t end_tok, uint64_t key)
{
    if (b->n_seg == b->cap_seg) {
        b->cap_seg = b->cap_seg ? 2 * b->cap_seg : 256;
        b->seg = mem_resize(b->seg, (size_t)b->cap_seg, sizeof *b->seg);
    }
    b->seg[b->n_seg++] = (struct trace_seg){ end_tok, key };
}

static int length(struct build *b, int64_t line, const char *what, int64_t n, int32_t *out,
                  struct err *e)
{
    if (n < 0 || n > TRACE_MAX_TOK)
        return err_set(e, ST_USAGE, "%s:%lld: %s of %lld tokens; lengths are 0 to 1000000000",
                       b->path, (long long)line, what, (long long)n);
    b->n_raised += n == 0;
    *out = n == 0 ? 1 : (int32_t)n;
    return ST_OK;
}

int build_row(struct build *b, int64_t line, struct trace_req req, int64_t n_in, int64_t n_out,
              struct err *e)
{
    int64_t seg_at = b->n ? b->row[b->n - 1].seg_at + b->row[b->n - 1].req.n_seg : 0, before = 0;
    if (b->before >= 0) before = (int64_t)b->row[b->before].req.n_in + b->row[b->before].req.n_out;
    int st = length(b, line, "a prompt", n_in, &req.n_in, e);
    if (st == ST_OK) st = length(b, line, "an output", n_out, &req.n_out, e);
    if (st != ST_OK) return st;
    if ((int64_t)req.n_in + req.n_out > TRACE_MAX_TOK)
        return err_set(e, ST_USAGE, "%s:%lld: prompt and output together exceed 1000000000 tokens",
                       b->path, (long long)line);
    if (req.t_due_ns < 0 || req.t_due_ns > TRACE_MAX_NS)
        return err_set(e, ST_USAGE, "%s:%lld: an arrival before 0 or after 100 years", b->path,
                       (long long)line);
    req.n_seg = (int32_t)(b->n_seg - seg_at);
    for (int64_t i = seg_at; i < b->n_seg; i++) {
        if (b->seg[i].end_tok <= before || b->seg[i].end_tok > (int64_t)req.n_in + req.n_out)
            return err_set(
                e, ST_USAGE,
                "%s:%lld: a shared part ends at token %lld, but the one in front of it at %lld and "
                "the request at %lld",
                b->path, (long long)line, (long long)b->seg[i].end_tok, (long long)before,
                (long long)req.n_in + req.n_out);
        before = b->seg[i].end_tok;
    }
    if (b->n == b->cap) {
        b->cap = b->cap ? 2 * b->cap : 256;
        b->row = mem_resize(b->row, (size_t)b->cap, sizeof *b->row);
    }
    req.id = b->n;
    uint64_t last_key = b->n_seg > seg_at ? b->seg[b->n_seg - 1].key : 0;
    b->row[b->n++] = (struct build_row){ req, seg_at, b->before, last_key };
    b->before = -1;
    return ST_OK;
}

/* Ties keep file order, which id still is. */
static int by_due(const void *a, const void *b)
{
    const struct trace_req *x = &((const struct build_row *)a)->req,
                           *y = &((const struct build_row *)b)->req;
    if (x->t_due_ns != y->t_due_ns) return x->t_due_ns < y->t_due_ns ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

/* Chains share one array: a turn's segments are the leading ones of its successor's. So memory
 * grows with the rows, not with the square of a session's turns. next[i] is the row that continues
 * row i, or -1. */
static void join_chains(struct build *b, struct arena *a)
{
    int64_t *next = mem_alloc((size_t)b->n * sizeof *next + 1);
    for (int64_t i = 0; i < b->n; i++) next[i] = -1;
    for (int64_t i = 0; i < b->n; i++)
        if (b->row[i].before >= 0) next[b->row[i].before] = i;
    struct trace_seg *seg = arena_array(a, (size_t)b->n_seg, sizeof *seg);
    for (int64_t i = 0; i < b->n; i++) {
        if (b->row[i].before >= 0) continue;
        int32_t n = 0;
        for (int64_t j = i; j >= 0; j = next[j]) {
            struct build_row *r = &b->row[j];
            if (r->req.n_seg)
                memcpy(seg + n, b->seg + r->seg_at, (size_t)r->req.n_seg * sizeof *seg);
            n = r->req.n_seg += n;
            r->req.seg = n ? seg : NULL;
        }
        seg += n;
    }
    free(next);
}

/* Numbers classes in order of appearance, which a file written in time order keeps. */
static void name_classes(struct build *b, struct arena *a, struct trace_rows *out)
{
    int32_t number[TRACE_MAX_CLASS];
    out->n_class = b->n_class ? b->n_class : 1;
    out->class_name = arena_array(a, (size_t)out->n_class, sizeof *out->class_name);
    out->class_name[0] = "all";
    for (int i = 0; i < b->n_class; i++) number[i] = -1;
    for (int64_t i = 0, n = 0; i < out->n && n < b->n_class; i++) {
        int32_t k = out->row[i].klass;
        if (number[k] >= 0) continue;
        out->class_name[n] = arena_copy_text(a, b->class_name[k], strlen(b->class_name[k]));
        number[k] = (int32_t)n++;
    }
    for (int64_t i = 0; i < out->n && b->n_class; i++)
        out->row[i].klass = number[out->row[i].klass];
}

void build_finish(struct build *b, struct arena *a, struct trace_rows *out)
{
    *out = (struct trace_rows){ .n = b->n, .has_prefix = b->n_seg > 0, .n_raised = b->n_raised };
    join_chains(b, a);
    if (b->n) qsort(b->row, (size_t)b->n, sizeof *b->row, by_due);
    out->row = arena_array(a, (size_t)b->n, sizeof *out->row);
    for (int64_t i = 0; i < b->n; i++) {
        out->row[i] = b->row[i].req;
        out->row[i].id = i;
    }
    name_classes(b, a, out);
}
