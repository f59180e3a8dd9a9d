/* traces/trace_plain.c - our own csv and JSON lines: one set of column names, one row function.
 * SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "traces/trace_priv.h"

/* clang-format off */
enum field {
    F_ARRIVAL, F_IN, F_OUT, F_SESSION, F_TURN, F_CLASS, F_PREFIX, F_PREFIX_TOK, F_HISTORY, F_BLOCKS,
    F_SEGMENTS, N_FIELD
};
static const struct {
    const char *name;
    enum field field;
    int64_t unit_ns;
} names[] = {
    { "arrival", F_ARRIVAL, 1000000000 },
    { "arrival_s", F_ARRIVAL, 1000000000 },
    { "arrival_ms", F_ARRIVAL, 1000000 },
    { "arrival_us", F_ARRIVAL, 1000 },
    { "arrival_ns", F_ARRIVAL, 1 },
    { "in", F_IN, 0 },
    { "input_tokens", F_IN, 0 },
    { "n_in", F_IN, 0 },
    { "out", F_OUT, 0 },
    { "output_tokens", F_OUT, 0 },
    { "n_out", F_OUT, 0 },
    { "session", F_SESSION, 0 },
    { "turn", F_TURN, 0 },
    { "class", F_CLASS, 0 },
    { "prefix", F_PREFIX, 0 },
    { "prefix_tok", F_PREFIX_TOK, 0 },
    { "history_tok", F_HISTORY, 0 },
    { "shared_prefix_blocks", F_BLOCKS, 0 },
    { "segments", F_SEGMENTS, 0 },
};
/* clang-format on */
static const char *const need[3] = { "arrival (or arrival_ms, ...)", "in (or input_tokens)",
                                     "out (or output_tokens)" };
enum { N_NAME = sizeof names / sizeof names[0], MAX_COLUMN = 256 };

struct plain {
    struct lines l;
    struct build *b;
    int64_t unit_ns;            /* of the arrival column */
    struct text field[N_FIELD]; /* of the present row; s NULL or n 0: blank */
};

static int name_of(struct text t)
{
    for (int i = 0; i < N_NAME; i++)
        if (text_is(t, names[i].name)) return i;
    return -1;
}

/* "file:line: what 'text' why" */
static int refuse(const struct plain *p, const char *what, struct text t, const char *why,
                  struct err *e)
{
    return err_set(e, ST_USAGE, "%s:%lld: %s '%.*s' %s", p->l.path, (long long)p->l.number, what,
                   (int)(t.n < 48 ? t.n : 48), t.s ? t.s : "", why);
}

static int count(const struct plain *p, enum field f, const char *what, int64_t *out, struct err *e)
{
    if (p->field[f].n == 0) return ST_OK;
    if (!text_int(p->field[f], out)) return refuse(p, what, p->field[f], "is no whole number", e);
    return ST_OK;
}

/* The next word of a list separated by blanks; n = 0 at its end. */
static struct text word_of(struct text *list)
{
    if (list->n == 0) return (struct text){ "", 0 };
    while (list->n > 0 && (*list->s == ' ' || *list->s == '\t')) {
        list->s++;
        list->n--;
    }
    struct text w = { list->s, 0 };
    while (w.n < list->n && w.s[w.n] != ' ' && w.s[w.n] != '\t') w.n++;
    list->s += w.n;
    list->n -= w.n;
    return w;
}

static bool hex_key(struct text t, uint64_t *out)
{
    *out = 0;
    if (t.n == 0 || t.n > 16) return false;
    for (size_t i = 0; i < t.n; i++) {
        const char *digits = "0123456789abcdef", *d = strchr(digits, t.s[i]);
        if (!d) return false;
        *out = *out << 4 | (uint64_t)(d - digits);
    }
    return true;
}

static int block_ids(struct plain *p, int64_t n_in, struct err *e)
{
    struct text list = p->field[F_BLOCKS], w;
    uint64_t key = 0;
    int64_t end = 0;
    while ((w = word_of(&list)).n > 0) {
        end += TRACE_BLOCK_TOK;
        key = mix_pair(key, (uint64_t)build_session(w.s, w.n));
        if (end > n_in)
            return refuse(p, "shared_prefix_blocks: from", w,
                          "on, blocks are past the prompt's end", e);
        build_seg(p->b, end, key);
    }
    return ST_OK;
}

static int segments(struct plain *p, struct err *e)
{
    struct text list = p->field[F_SEGMENTS], w;
    while ((w = word_of(&list)).n > 0) {
        const char *colon = memchr(w.s, ':', w.n);
        size_t n_end = colon ? (size_t)(colon - w.s) : w.n;
        int64_t end;
        uint64_t key;
        if (!colon || !text_int((struct text){ w.s, n_end }, &end) ||
            !hex_key((struct text){ colon + 1, w.n - n_end - 1 }, &key))
            return refuse(p, "segments:", w, "is no end:key, as 512:00ab34cd00ab34cd", e);
        build_seg(p->b, end, key);
    }
    return ST_OK;
}

static int prefix(struct plain *p, int64_t n_in, uint64_t *key, struct err *e)
{
    struct text t = p->field[F_PREFIX];
    char name[256];
    int64_t tok = 0;
    int st = count(p, F_PREFIX_TOK, "prefix_tok", &tok, e);
    if (st != ST_OK) return st;
    if (tok < 1 || tok > n_in)
        return refuse(p, "prefix_tok", p->field[F_PREFIX_TOK],
                      "is not between 1 and the prompt's length", e);
    if (t.n >= sizeof name) return refuse(p, "prefix", t, "is longer than 255 bytes", e);
    if (t.s[0] != '#') {
        memcpy(name, t.s, t.n);
        name[t.n] = 0;
        *key = trace_prefix_key(name, tok);
    } else if (!hex_key((struct text){ t.s + 1, t.n - 1 }, key)) {
        return refuse(p, "prefix", t, "begins with # but is no key of hex digits", e);
    }
    build_seg(p->b, tok, *key);
    return ST_OK;
}

/* history_tok: 0 for a session's first turn, else exactly what the turn before ended with. The
 * turn's own segment follows; those in front of it are the row's before, which build_finish joins.
 */
static int history(struct plain *p, struct trace_req *req, int64_t n_in, int64_t n_out,
                   struct err *e)
{
    int64_t tok = 0, at = -1;
    uint64_t key = 0;
    struct build *b = p->b;
    int st = count(p, F_HISTORY, "history_tok", &tok, e);
    if (st != ST_OK) return st;
    if (req->session < 0)
        return refuse(p, "history_tok", p->field[F_HISTORY], "without a session", e);
    bool known = idmap_get(&b->last_turn, (uint64_t)req->session, &at);
    const struct trace_req *last = known ? &b->row[at].req : NULL;
    if (tok != 0) {
        if (!known || tok != (int64_t)last->n_in + last->n_out || tok > n_in)
            return refuse(p, "history_tok", p->field[F_HISTORY],
                          "is not the length, prompt and output, of the session's turn before", e);
        b->before = at;
        key = b->row[at].last_key;
        if (p->field[F_TURN].n == 0) req->turn = last->turn + 1;
    } else if (p->field[F_PREFIX].n > 0) {
        st = prefix(p, n_in, &key, e);
        if (st != ST_OK) return st;
    }
    build_seg(b, n_in + n_out, trace_turn_key(key, req->session, req->turn));
    idmap_put(&b->last_turn, (uint64_t)req->session, b->n);
    return ST_OK;
}

/* Lengths as build_row will take them: 0 is 1, and what it refuses is made harmless here. */
static int64_t as_length(int64_t n)
{
    return n < 1 ? 1 : n > TRACE_MAX_TOK ? TRACE_MAX_TOK : n;
}

static int sharing(struct plain *p, struct trace_req *req, int64_t n_in, int64_t n_out,
                   struct err *e)
{
    const struct text *f = p->field;
    uint64_t key;
    if ((f[F_PREFIX].n > 0) + (f[F_BLOCKS].n > 0) + (f[F_SEGMENTS].n > 0) > 1 ||
        (f[F_HISTORY].n > 0 && f[F_BLOCKS].n + f[F_SEGMENTS].n > 0))
        return err_set(
            e, ST_USAGE,
            "%s:%lld: only one of prefix, shared_prefix_blocks and segments can say what is shared",
            p->l.path, (long long)p->l.number);
    n_in = as_length(n_in);
    n_out = as_length(n_out);
    if (f[F_HISTORY].n > 0) return history(p, req, n_in, n_out, e);
    if (f[F_PREFIX].n > 0) return prefix(p, n_in, &key, e);
    if (f[F_BLOCKS].n > 0) return block_ids(p, n_in, e);
    return segments(p, e);
}

static int plain_row(struct plain *p, struct err *e)
{
    struct trace_req req = { .session = -1 };
    struct text *f = p->field;
    int64_t n_in = 0, n_out = 0, turn = 0;
    for (int i = 0; i < 3; i++)
        if (f[i].n == 0)
            return err_set(e, ST_USAGE, "%s:%lld: no value for %s", p->l.path,
                           (long long)p->l.number, need[i]);
    if (!text_ns(f[F_ARRIVAL], p->unit_ns, &req.t_due_ns))
        return refuse(p, "arrival", f[F_ARRIVAL], "is no time within 100 years", e);
    int st = count(p, F_IN, "input tokens", &n_in, e);
    if (st == ST_OK) st = count(p, F_OUT, "output tokens", &n_out, e);
    if (st == ST_OK) st = count(p, F_TURN, "turn", &turn, e);
    if (st != ST_OK) return st;
    if (turn < 0 || turn > INT32_MAX)
        return refuse(p, "turn", f[F_TURN], "is not between 0 and 2147483647", e);
    req.turn = (int32_t)turn;
    if (f[F_SESSION].n > 0) req.session = build_session(f[F_SESSION].s, f[F_SESSION].n);
    struct text klass = f[F_CLASS].n > 0 ? f[F_CLASS] : (struct text){ "all", 3 };
    st = build_class(p->b, klass.s, klass.n, p->l.number, &req.klass, e);
    if (st == ST_OK) st = sharing(p, &req, n_in, n_out, e);
    return st == ST_OK ? build_row(p->b, p->l.number, req, n_in, n_out, e) : st;
}

/* ---- csv */

/* Next line that is neither blank nor a comment; as lines_next. */
static int data_line(struct lines *l, struct text *line, struct err *e)
{
    int got;
    while ((got = lines_next(l, line, e)) > 0)
        if (text_trim(*line).n > 0 && line->s[0] != '#') break;
    return got;
}

/* Column of each field, -1 for none. Errors: two columns for one field, quotes that do not end. */
static int csv_header(struct lines *l, int at[N_FIELD], int64_t *unit_ns, struct err *e)
{
    struct text line, column[MAX_COLUMN];
    for (int f = 0; f < N_FIELD; f++) at[f] = -1;
    int got = data_line(l, &line, e), n = 0;
    if (got < 0) return ST_USAGE;
    if (got > 0) n = text_split_csv(line, column, MAX_COLUMN);
    for (int i = 0; i < n; i++) {
        int k = name_of(column[i]);
        if (k < 0) continue;
        if (at[names[k].field] >= 0)
            return err_set(e, ST_USAGE, "%s:%lld: two columns say the same, the second is %s",
                           l->path, (long long)l->number, names[k].name);
        at[names[k].field] = i;
        if (names[k].field == F_ARRIVAL) *unit_ns = names[k].unit_ns;
    }
    return ST_OK;
}

int trace_plain_csv(struct lines l, struct build *b, struct err *e)
{
    struct plain p = { .l = l, .b = b };
    struct text line, column[MAX_COLUMN];
    int at[N_FIELD], got, st = csv_header(&p.l, at, &p.unit_ns, e);
    for (int i = 0; i < 3 && st == ST_OK; i++)
        if (at[i] < 0)
            st = err_set(e, ST_USAGE, "%s:%lld: the header has no column %s", l.path,
                         (long long)p.l.number, need[i]);
    while (st == ST_OK && (got = data_line(&p.l, &line, e)) != 0) {
        if (got < 0) return ST_USAGE;
        int n = text_split_csv(line, column, MAX_COLUMN);
        if (n < 0)
            return err_set(e, ST_USAGE, "%s:%lld: a quote that does not end, or text after one",
                           l.path, (long long)p.l.number);
        for (int f = 0; f < N_FIELD; f++)
            p.field[f] = at[f] >= 0 && at[f] < n ? column[at[f]] : (struct text){ 0 };
        st = plain_row(&p, e);
    }
    return st;
}

static int length_value(struct text t, const struct lines *l, int32_t *out, struct err *e)
{
    int64_t v;
    if (!text_int(t, &v) || v < 0 || v > TRACE_MAX_TOK / 10)
        return err_set(e, ST_USAGE, "%s:%lld: '%.*s' is no length of 0 to 100000000 tokens",
                       l->path, (long long)l->number, (int)(t.n < 48 ? t.n : 48), t.n ? t.s : "");
    *out = v == 0 ? 1 : (int32_t)v;
    return ST_OK;
}

/* Reads the rows twice: to count, then to keep. */
static int lengths_rows(struct lines l, const int at[N_FIELD], int32_t *out[2], int64_t *n,
                        struct err *e)
{
    static const enum field which[2] = { F_IN, F_OUT };
    struct text line, column[MAX_COLUMN];
    int got, st = ST_OK;
    for (*n = 0; st == ST_OK && (got = data_line(&l, &line, e)) != 0; ++*n) {
        if (got < 0) return ST_USAGE;
        if (!out) continue;
        int n_column = text_split_csv(line, column, MAX_COLUMN);
        for (int j = 0; j < 2 && st == ST_OK; j++) {
            int c = at[which[j]];
            if (c >= 0)
                st = length_value(c < n_column ? column[c] : (struct text){ "", 0 }, &l,
                                  &out[j][*n], e);
        }
    }
    return st;
}

int trace_lengths(const char *path, struct arena *a, int32_t **in, int32_t **out, int64_t *n,
                  struct err *e)
{
    struct arena temp;
    struct lines l = { .path = path };
    int at[N_FIELD];
    int64_t unit_ns;
    arena_init(&temp);
    int st = trace_load(path, &temp, &l, e);
    if (st == ST_OK) st = csv_header(&l, at, &unit_ns, e);
    if (st == ST_OK) st = lengths_rows(l, at, NULL, n, e);
    if (st == ST_OK && *n == 0) st = err_set(e, ST_USAGE, "%s: no lengths in it", path);
    if (st == ST_OK) {
        int32_t *kept[2] = { arena_array(a, (size_t)*n, sizeof(int32_t)),
                             arena_array(a, (size_t)*n, sizeof(int32_t)) };
        *in = at[F_IN] >= 0 ? kept[0] : NULL;
        *out = at[F_OUT] >= 0 ? kept[1] : NULL;
        st = lengths_rows(l, at, kept, n, e);
    }
    arena_release(&temp);
    return st;
}

/* ---- JSON lines */

/* Text of a number or string; false for anything else. buf (32 bytes) holds numbers. */
static bool json_scalar(const json_t *v, char *buf, struct text *out)
{
    if (json_is_string(v)) {
        *out = (struct text){ json_string_value(v), json_string_length(v) };
        return true;
    }
    int n = -1;
    if (json_is_integer(v)) n = snprintf(buf, 32, "%lld", (long long)json_integer_value(v));
    if (json_is_real(v)) n = snprintf(buf, 32, "%.17g", json_real_value(v));
    *out = (struct text){ buf, n > 0 ? (size_t)n : 0 };
    return n > 0;
}

/* A list of scalars as words separated by blanks, in *joined (the caller frees it). */
static bool json_words(const json_t *list, char **joined, struct text *out)
{
    size_t n = 0, cap = 0;
    char buf[32];
    struct text t;
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (!json_scalar(json_array_get(list, i), buf, &t)) return false;
        if (n + t.n + 1 > cap) *joined = mem_resize(*joined, cap = 2 * (n + t.n + 1), 1);
        assert(*joined); /* there is room for a byte at least */
        memcpy(*joined + n, t.s, t.n);
        (*joined)[n + t.n] = ' ';
        n += t.n + 1;
    }
    *out = (struct text){ *joined, n };
    return true;
}

static int json_row(struct plain *p, json_t *o, struct err *e)
{
    char buf[N_FIELD][32], *joined = NULL;
    const char *key;
    json_t *v;
    int st = ST_OK;
    memset(p->field, 0, sizeof p->field);
    json_object_foreach(o, key, v)
    {
        int k = name_of((struct text){ key, strlen(key) });
        if (k < 0 || json_is_null(v)) continue;
        enum field f = names[k].field;
        if (f == F_ARRIVAL) p->unit_ns = names[k].unit_ns;
        bool list = f == F_BLOCKS && json_is_array(v) && !joined;
        if (p->field[f].s ||
            !(list ? json_words(v, &joined, &p->field[f]) : json_scalar(v, buf[f], &p->field[f]))) {
            st = err_set(e, ST_USAGE, "%s:%lld: %s is said twice, or no number or text", p->l.path,
                         (long long)p->l.number, key);
            break;
        }
    }
    if (st == ST_OK) st = plain_row(p, e);
    memset(p->field, 0, sizeof p->field); /* they point into buf and joined */
    free(joined);
    return st;
}

int trace_plain_jsonl(struct lines l, struct build *b, struct err *e)
{
    struct plain p = { .l = l, .b = b };
    struct text line;
    int got, st = ST_OK;
    while (st == ST_OK && (got = lines_next(&p.l, &line, e)) != 0) {
        if (got < 0) return ST_USAGE;
        if (text_trim(line).n == 0) continue;
        json_error_t why;
        json_t *o = json_loadb(line.s, line.n, JSON_REJECT_DUPLICATES, &why);
        if (json_is_object(o))
            st = json_row(&p, o, e);
        else
            st = err_set(e, ST_USAGE, "%s:%lld: not a JSON object: %s", l.path,
                         (long long)p.l.number, o ? "another value" : why.text);
        json_decref(o);
    }
    return st;
}

bool trace_plain_header(struct text line)
{
    struct text column[MAX_COLUMN];
    bool has[N_FIELD] = { false };
    int n = text_split_csv(line, column, MAX_COLUMN);
    for (int i = 0; i < n; i++) {
        int k = name_of(column[i]);
        if (k >= 0) has[names[k].field] = true;
    }
    return has[F_ARRIVAL] || has[F_IN] || has[F_OUT];
}
