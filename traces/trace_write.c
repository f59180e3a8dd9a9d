/* traces/trace_write.c - rows as our own csv or JSON lines.
 *
 * What is shared is written in the shortest form that reads back as the same segments: a prefix and
 * a session's history where these explain every row, else the segments themselves.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/outfile.h"
#include "base/stop.h"
#include "traces/trace_priv.h"

enum { N_NAME = 1 << 14 };

/* What one row's columns say. */
struct share {
    bool history;
    int64_t history_tok, prefix_tok; /* prefix_tok 0: no prefix */
    uint64_t prefix_key;
};
struct writer {
    FILE *f;
    const struct trace_rows *rows;
    bool json, has_session, has_history, has_prefix, has_class, in_segments;
    struct share *share; /* [n] */
    struct idmap name;   /* key of a prefix named 0, 1, 2, ... of name_tok tokens -> the number */
    int64_t name_tok;
};

static int64_t length_of(const struct trace_req *r)
{
    return (int64_t)r->n_in + r->n_out;
}

/* Whether the row's segments are those of `last`, its session's turn before, and its own. */
static bool follows(const struct trace_req *r, const struct trace_req *last)
{
    return last && last->n_seg > 0 && r->n_seg == last->n_seg + 1 &&
           last->seg[last->n_seg - 1].end_tok == length_of(last) && length_of(last) <= r->n_in &&
           memcmp(r->seg, last->seg, (size_t)last->n_seg * sizeof *r->seg) == 0;
}

static bool explain(const struct trace_req *r, const struct trace_req *last, struct share *out)
{
    *out = (struct share){ 0 };
    if (r->n_seg == 0) return true;
    const struct trace_seg *own = &r->seg[r->n_seg - 1];
    uint64_t before = r->n_seg > 1 ? own[-1].key : 0;
    if (r->session >= 0 && own->end_tok == length_of(r) &&
        own->key == trace_turn_key(before, r->session, r->turn)) {
        out->history = true;
        if (follows(r, last))
            out->history_tok = length_of(last);
        else if (r->n_seg > 2)
            return false;
        else if (r->n_seg == 2)
            *out = (struct share){ true, 0, own[-1].end_tok, own[-1].key };
        return out->prefix_tok <= r->n_in;
    }
    *out = (struct share){ .prefix_tok = own->end_tok, .prefix_key = own->key };
    return r->n_seg == 1 && own->end_tok <= r->n_in;
}

static void explain_all(struct writer *w)
{
    struct idmap last = { 0 };
    for (int64_t i = 0; i < w->rows->n; i++) {
        const struct trace_req *r = &w->rows->row[i];
        int64_t at = -1;
        if (r->session >= 0) idmap_get(&last, (uint64_t)r->session, &at);
        if (!w->in_segments && !explain(r, at >= 0 ? &w->rows->row[at] : NULL, &w->share[i]))
            w->in_segments = true;
        w->has_session |= r->session >= 0 || r->turn != 0;
        w->has_history |= w->share[i].history;
        w->has_prefix |= w->share[i].prefix_tok > 0;
        if (w->share[i].prefix_tok && !w->name_tok) w->name_tok = w->share[i].prefix_tok;
        if (r->session >= 0 && w->share[i].history) idmap_put(&last, (uint64_t)r->session, i);
    }
    idmap_release(&last);
    w->has_class = w->rows->n_class > 1 || strcmp(w->rows->class_name[0], "all") != 0;
    if (w->in_segments) w->has_history = w->has_prefix = false;
    for (int i = 0; i < N_NAME && w->has_prefix; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d", i);
        idmap_put(&w->name, trace_prefix_key(name, w->name_tok), i);
    }
}

/* The name of a prefix is lost; a number with the same key stands for it, else the key itself. */
static void prefix_name(const struct writer *w, const struct share *s, char *buf, size_t n)
{
    int64_t number;
    bool known = s->prefix_tok == w->name_tok && idmap_get(&w->name, s->prefix_key, &number);
    if (known)
        snprintf(buf, n, "%" PRId64, number);
    else
        snprintf(buf, n, "#%016" PRIx64, s->prefix_key);
}

static void put_segments(FILE *f, const struct trace_req *r)
{
    for (int32_t i = 0; i < r->n_seg; i++)
        fprintf(f, "%s%" PRId64 ":%016" PRIx64, i ? " " : "", r->seg[i].end_tok, r->seg[i].key);
}

static void put_csv_text(FILE *f, const char *text)
{
    fputc('"', f);
    for (const char *p = text; *p; p++) {
        if (*p == '"') fputc('"', f);
        fputc(*p, f);
    }
    fputc('"', f);
}

/* Whole seconds with as many decimals as it takes. */
static void put_seconds(FILE *f, int64_t t_ns)
{
    char frac[16];
    int n = snprintf(frac, sizeof frac, "%09d", (int)(t_ns % 1000000000));
    while (n > 0 && frac[n - 1] == '0') frac[--n] = 0;
    fprintf(f, "%" PRId64 "%s%s", t_ns / 1000000000, n ? "." : "", frac);
}

static void csv_header(const struct writer *w, const char *comment)
{
    for (const char *p = comment; p && *p;) {
        size_t n = strcspn(p, "\n");
        fprintf(w->f, "# %.*s\n", (int)n, p);
        p += n + (p[n] == '\n');
    }
    fprintf(w->f, "arrival_s,in,out%s%s%s%s%s\n", w->has_session ? ",session,turn" : "",
            w->has_history ? ",history_tok" : "", w->has_prefix ? ",prefix,prefix_tok" : "",
            w->in_segments ? ",segments" : "", w->has_class ? ",class" : "");
}

static void csv_row(const struct writer *w, const struct trace_req *r, const struct share *s)
{
    char name[32];
    put_seconds(w->f, r->t_due_ns);
    fprintf(w->f, ",%d,%d", r->n_in, r->n_out);
    if (w->has_session && r->session >= 0)
        fprintf(w->f, ",%" PRId64 ",%d", r->session, r->turn);
    else if (w->has_session)
        fprintf(w->f, ",,%d", r->turn);
    if (w->has_history && s->history)
        fprintf(w->f, ",%" PRId64, s->history_tok);
    else if (w->has_history)
        fputc(',', w->f);
    if (w->has_prefix && s->prefix_tok) {
        prefix_name(w, s, name, sizeof name);
        fprintf(w->f, ",%s,%" PRId64, name, s->prefix_tok);
    } else if (w->has_prefix) {
        fputs(",,", w->f);
    }
    if (w->in_segments) {
        fputc(',', w->f);
        put_segments(w->f, r);
    }
    if (w->has_class) {
        fputc(',', w->f);
        put_csv_text(w->f, w->rows->class_name[r->klass]);
    }
    fputc('\n', w->f);
}

static void json_row(const struct writer *w, const struct trace_req *r, const struct share *s)
{
    char name[32];
    fprintf(w->f, "{\"arrival_ns\": %" PRId64 ", \"in\": %d, \"out\": %d", r->t_due_ns, r->n_in,
            r->n_out);
    if (r->session >= 0) fprintf(w->f, ", \"session\": %" PRId64, r->session);
    if (r->session >= 0 || r->turn) fprintf(w->f, ", \"turn\": %d", r->turn);
    if (w->has_history && s->history) fprintf(w->f, ", \"history_tok\": %" PRId64, s->history_tok);
    if (w->has_prefix && s->prefix_tok) {
        prefix_name(w, s, name, sizeof name);
        fprintf(w->f, ", \"prefix\": \"%s\", \"prefix_tok\": %" PRId64, name, s->prefix_tok);
    }
    if (w->in_segments && r->n_seg) {
        fputs(", \"segments\": \"", w->f);
        put_segments(w->f, r);
        fputc('"', w->f);
    }
    if (w->has_class) {
        json_t *text = json_string(w->rows->class_name[r->klass]);
        char *dump = json_dumps(text, JSON_ENCODE_ANY);
        fprintf(w->f, ", \"class\": %s", dump ? dump : "null");
        free(dump);
        json_decref(text);
    }
    fputs("}\n", w->f);
}

int trace_write(const char *path, int format, const struct trace_rows *rows, const char *comment,
                struct err *e)
{
    struct outfile o;
    if (format != TRACE_CSV && format != TRACE_JSONL)
        return err_set(e, ST_USAGE, "%s: only csv and jsonl can be written", path);
    if (outfile_open(&o, path, e) != ST_OK) return ST_IO;
    struct writer w = { .rows = rows, .json = format == TRACE_JSONL, .f = o.f };
    w.share = mem_zalloc((size_t)rows->n + 1, sizeof *w.share);
    explain_all(&w);
    if (!w.json) csv_header(&w, comment);
    for (int64_t i = 0; i < rows->n && !stop_asked(); i++)
        (w.json ? json_row : csv_row)(&w, &rows->row[i], &w.share[i]);
    free(w.share);
    idmap_release(&w.name);
    if (!stop_asked()) return outfile_close(&o, e);
    outfile_abort(&o);
    return err_set(e, ST_STOPPED, "interrupted; nothing was written");
}
