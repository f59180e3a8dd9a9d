/* base/conf.c - sets options from text and from YAML maps, and gives them back as text.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/conf.h"

#include <assert.h>
#include <ctype.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"
#include "base/utf8.h"

enum { FROM_DEFAULT, FROM_FILE, FROM_COMMAND_LINE };
enum { PLACE_BYTES = 320, KEY_BYTES = 256, LIST_BYTES = 400 };

static const char bool_words[] = "true false yes no on off";

/* ---- rows */

static enum unit unit_of(enum conf_type t)
{
    switch (t) {
    case CONF_TOKENS: return UNIT_TOKENS;
    case CONF_TIME: return UNIT_TIME;
    case CONF_RATE: return UNIT_RATE;
    case CONF_BYTES: return UNIT_BYTES;
    case CONF_BYTES_PER_S: return UNIT_BYTES_PER_S;
    case CONF_FLOP_PER_S: return UNIT_FLOP_PER_S;
    case CONF_WATT: return UNIT_WATT;
    case CONF_USD: return UNIT_USD;
    case CONF_USD_PER_H: return UNIT_USD_PER_H;
    case CONF_NUMBER: return UNIT_RATIO;
    default: return UNIT_COUNT;
    }
}

static void *member(const struct conf_table *t, const struct conf_row *r)
{
    return (char *)t->base + r->at;
}

/* The row of a key of `len` bytes, its table, and its index over all tables. */
static const struct conf_row *find(const struct conf_set *s, const char *key, size_t len,
                                   const struct conf_table **table, int *index)
{
    int at = 0;
    for (int i = 0; i < s->n_table; i++) {
        for (const struct conf_row *r = s->table[i].rows; r->type != CONF_END; r++, at++) {
            if (strncmp(r->key, key, len) != 0 || r->key[len]) continue;
            if (table) *table = &s->table[i];
            if (index) *index = at;
            return r;
        }
    }
    return NULL;
}

const struct conf_row *conf_find(const struct conf_set *s, const char *key,
                                 struct conf_table **table)
{
    const struct conf_table *t = NULL;
    const struct conf_row *r = find(s, key, strlen(key), &t, NULL);
    /* the set is the caller's, who may change its tables; find() only promises not to */
    if (r && table) *table = (struct conf_table *)s->table + (t - s->table);
    return r;
}

bool conf_given(const struct conf_set *s, const char *key)
{
    int at = 0;
    const struct conf_row *r = find(s, key, strlen(key), NULL, &at);
    assert(r);
    return r && s->given[at] != FROM_DEFAULT;
}

bool conf_typed(const struct conf_set *s, const char *key)
{
    int at = 0;
    const struct conf_row *r = find(s, key, strlen(key), NULL, &at);
    return r && s->given[at] == FROM_COMMAND_LINE;
}

/* Whether rows lie below "key.". */
static bool is_group(const struct conf_set *s, const char *key, size_t len)
{
    for (int i = 0; i < s->n_table; i++)
        for (const struct conf_row *r = s->table[i].rows; r->type != CONF_END; r++)
            if (strncmp(r->key, key, len) == 0 && r->key[len] == '.') return true;
    return false;
}

/* ---- nearest word */

enum { WORD_MAX = 64 };

/* Edits between two words of at most WORD_MAX bytes, letters alike in either case: insert, delete,
 * replace, swap neighbours (optimal string alignment). */
static int edits(const char *a, int na, const char *b, int nb)
{
    int row[3][WORD_MAX + 1];
    assert(na >= 0 && nb >= 0 && nb <= WORD_MAX);
    for (int j = 0; j <= nb; j++) row[0][j] = j;
    for (int i = 1; i <= na; i++) {
        int *now = row[i % 3], *up = row[(i + 2) % 3], *up2 = row[(i + 1) % 3];
        now[0] = i;
        for (int j = 1; j <= nb; j++) {
            int x = tolower((unsigned char)a[i - 1]), y = tolower((unsigned char)b[j - 1]);
            int best = up[j - 1] + (x != y);
            if (up[j] + 1 < best) best = up[j] + 1;
            if (now[j - 1] + 1 < best) best = now[j - 1] + 1;
            if (i > 1 && j > 1 && x == tolower((unsigned char)b[j - 2]) &&
                y == tolower((unsigned char)a[i - 2]) && up2[j - 2] + 1 < best)
                best = up2[j - 2] + 1;
            now[j] = best;
        }
    }
    return row[na % 3][nb];
}

/* Of the words the one least far from text, if that is less than `limit`; else NULL. */
static const char *nearest(const char *text, const char *words, int limit,
                           int (*far)(const char *, const char *), char *buf, size_t n)
{
    int best = limit;
    if (strnlen(text, WORD_MAX + 1) > WORD_MAX || !words) return NULL;
    for (const char *w = words; *w;) {
        size_t k = strcspn(w, " ");
        char word[WORD_MAX + 1];
        if (k > 0 && k <= WORD_MAX && k < n) {
            snprintf(word, sizeof word, "%.*s", (int)k, w);
            int d = far(text, word);
            if (d < best) {
                best = d;
                memcpy(buf, word, k + 1);
            }
        }
        w += k;
        while (*w == ' ') w++;
    }
    return best < limit ? buf : NULL;
}

static int edits_of(const char *text, const char *word)
{
    return edits(text, (int)strlen(text), word, (int)strlen(word));
}

const char *conf_nearest(const char *text, const char *words, char *buf, size_t n)
{
    return nearest(text, words, 3, edits_of, buf, n);
}

/* The word behind the last dot. */
static const char *leaf(const char *key)
{
    const char *dot = strrchr(key, '.');
    return dot ? dot + 1 : key;
}

/* How far a key is from a word that it is not near as a whole: like last words of different maps (seed
 * is sim.seed, whoever looks for it in workload), or a map that has a name (policy is policy.name). Of
 * like ones the nearer whole; a short word allows fewer edits. INT_MAX: not alike. */
static int far_from(const char *key, const char *word)
{
    const char *own = leaf(key), *end = leaf(word);
    int n = (int)strlen(own), len = (int)strlen(key), all = (int)strlen(word);
    int off = edits_of(own, end), most = n > 4 ? 2 : n > 2;
    bool named = end > word && strcmp(end, "name") == 0 && !strchr(key, '.');
    if (named && edits(key, len, word, all - 5) <= 2) return 0;
    if (off > most || (off > 0 && strlen(end) < 3)) return INT_MAX;
    return WORD_MAX * off + edits(key, len, word, all);
}

/* "; did you mean 'x'?" or "". */
static char *hint(const char *text, const char *words, char *buf, size_t n)
{
    char word[WORD_MAX + 1];
    if (conf_nearest(text, words, word, sizeof word))
        snprintf(buf, n, "; did you mean '%s'?", word);
    else
        buf[0] = 0;
    return buf;
}

/* "a b c" as "a, b, c", cut to "a, b, ..." where it does not fit. */
static char *comma_list(const char *words, char *buf, size_t n)
{
    size_t at = 0;
    buf[0] = 0;
    for (const char *w = words; *w;) {
        size_t k = strcspn(w, " ");
        if (at + k + 8 > n) {
            snprintf(buf + at, n - at, ", ...");
            break;
        }
        at += (size_t)snprintf(buf + at, n - at, "%s%.*s", at ? ", " : "", (int)k, w);
        w += k;
        while (*w == ' ') w++;
    }
    return buf;
}

/* ---- one value from text */

/* Index of `text` in blank-separated words, or -1. */
static int word_index(const char *text, const char *words)
{
    size_t len = strlen(text);
    int i = 0;
    for (const char *w = words; *w; i++) {
        size_t k = strcspn(w, " ");
        if (k == len && memcmp(w, text, k) == 0) return i;
        w += k;
        while (*w == ' ') w++;
    }
    return -1;
}

static int none_of(const char *where, const char *text, const char *words, struct err *e)
{
    char shown[64], list[LIST_BYTES], near[128];
    return err_set(e, ST_USAGE, "%s: '%s' is none of %s%s", where,
                   utf8_quote(text, shown, sizeof shown), comma_list(words, list, sizeof list),
                   hint(text, words, near, sizeof near));
}

static int check_range(const struct conf_row *r, double v, const char *text, const char *where,
                       struct err *e)
{
    char lo[64], hi[64], shown[64];
    if (r->lo == 0 && r->hi == 0) return ST_OK;
    if (v >= r->lo && v <= r->hi) return ST_OK;
    units_text(unit_of(r->type), r->lo, lo, sizeof lo);
    units_text(unit_of(r->type), r->hi, hi, sizeof hi);
    utf8_quote(text, shown, sizeof shown);
    if (isinf(r->hi) && v < r->lo)
        return err_set(e, ST_USAGE, "%s: %s is below %s", where, shown, lo);
    if (isinf(r->lo) && v > r->hi)
        return err_set(e, ST_USAGE, "%s: %s is above %s", where, shown, hi);
    return err_set(e, ST_USAGE, "%s: %s is outside %s .. %s", where, shown, lo, hi);
}

static int set_quantity(const struct conf_row *r, void *to, const char *text, const char *where,
                        struct err *e)
{
    struct err why = { 0 };
    double v = 0;
    int64_t ns = 0;
    int st = r->type == CONF_TIME ? units_parse_ns(text, &ns, &why)
                                  : units_parse(unit_of(r->type), text, &v, &why);
    if (st != ST_OK) return err_set(e, st, "%s: %s", where, why.text);
    if (r->type == CONF_TIME) v = (double)ns / 1e9;
    if (r->type == CONF_TOKENS && (v != floor(v) || fabs(v) > 9007199254740992.0)) {
        char shown[64];
        return err_set(e, ST_USAGE, "%s: '%s' is not a whole number of tokens", where,
                       utf8_quote(text, shown, sizeof shown));
    }
    if ((st = check_range(r, v, text, where, e)) != ST_OK) return st;
    if (r->type == CONF_TIME)
        *(int64_t *)to = ns;
    else if (r->type == CONF_INT || r->type == CONF_TOKENS)
        *(int64_t *)to = (int64_t)v;
    else
        *(double *)to = v;
    return ST_OK;
}

static int set_text(struct arena *a, void *to, const char *text, const char *where, struct err *e)
{
    size_t len = strlen(text);
    for (size_t at = 0, step; at < len; at += step) {
        if (!(step = utf8_step(text + at, len - at, NULL)))
            return err_set(e, ST_USAGE, "%s: text that is not UTF-8", where);
    }
    *(const char **)to = arena_copy_text(a, text, len);
    return ST_OK;
}

static void set_zero(const struct conf_row *r, void *to)
{
    switch (r->type) {
    case CONF_BOOL: *(bool *)to = false; break;
    case CONF_WORD: *(int *)to = 0; break;
    case CONF_TEXT: *(const char **)to = NULL; break;
    case CONF_INT:
    case CONF_TOKENS:
    case CONF_TIME: *(int64_t *)to = 0; break;
    default: *(double *)to = 0; break;
    }
}

static int set_value(const struct conf_set *s, const struct conf_row *r, void *to, const char *text,
                     const char *where, struct err *e)
{
    int i;
    switch (r->type) {
    case CONF_BOOL:
        if ((i = word_index(text, bool_words)) < 0) return none_of(where, text, bool_words, e);
        *(bool *)to = i % 2 == 0;
        return ST_OK;
    case CONF_WORD:
        if ((i = word_index(text, r->allow)) < 0) return none_of(where, text, r->allow, e);
        *(int *)to = i;
        return ST_OK;
    case CONF_TEXT: return set_text(s->arena, to, text, where, e);
    default: return set_quantity(r, to, text, where, e);
    }
}

/* A row whose default is "nothing" takes "-" to say so. */
static int set_row(struct conf_set *s, const struct conf_row *r, const struct conf_table *t,
                   const char *text, const char *where, struct err *e)
{
    void *to = member(t, r);
    if (!r->dflt && strcmp(text, "-") == 0) {
        set_zero(r, to);
        return ST_OK;
    }
    return set_value(s, r, to, text, where, e);
}

/* ---- tables */

void conf_init(struct conf_set *s, struct arena *a)
{
    *s = (struct conf_set){ .arena = a };
}

static void check_row(const struct conf_set *s, const struct conf_row *r)
{
    assert(r->key && *r->key && r->help);
    assert(strlen(r->key) < KEY_BYTES);
    assert(r->type != CONF_WORD || (r->allow && *r->allow));
    assert(!find(s, r->key, strlen(r->key), NULL, NULL)); /* unique */
    assert(!is_group(s, r->key, strlen(r->key)));         /* no option is also a group */
    for (const char *dot = strchr(r->key, '.'); dot; dot = strchr(dot + 1, '.'))
        assert(!find(s, r->key, (size_t)(dot - r->key), NULL, NULL));
    (void)s;
    (void)r;
}

void conf_add(struct conf_set *s, const struct conf_row *rows, void *base, const char *title)
{
    assert(s->n_table < CONF_MAX_TABLES);
    struct conf_table t = { rows, base, title };
    int n = 0;
    for (const struct conf_row *r = rows; r->type != CONF_END; r++, n++) {
        struct err e = { 0 };
        check_row(s, r);
        void *to = member(&t, r);
        if (!r->dflt) {
            set_zero(r, to);
        } else if (set_value(s, r, to, r->dflt, r->key, &e) != ST_OK) {
            fprintf(stderr, "orrery: wrong default in an option table: %s\n", e.text);
            abort();
        }
    }
    unsigned char *given = arena_array(s->arena, (size_t)(s->n_row + n), 1);
    if (s->n_row) memcpy(given, s->given, (size_t)s->n_row);
    s->given = given;
    s->n_row += n;
    s->table[s->n_table++] = t;
    for (const struct conf_row *r = rows; r->type != CONF_END; r++)
        for (const struct conf_row *q = rows; q < r; q++) assert(strcmp(q->key, r->key) != 0);
}

/* ---- setting */

/* Every key, blank-separated; in the arena. */
static char *all_keys(const struct conf_set *s)
{
    size_t len = 1;
    for (int i = 0; i < s->n_table; i++)
        for (const struct conf_row *r = s->table[i].rows; r->type != CONF_END; r++)
            len += strlen(r->key) + 1;
    char *list = arena_alloc(s->arena, len), *to = list;
    for (int i = 0; i < s->n_table; i++)
        for (const struct conf_row *r = s->table[i].rows; r->type != CONF_END; r++) {
            size_t k = strlen(r->key);
            if (to > list) *to++ = ' ';
            memcpy(to, r->key, k);
            to += k;
        }
    return list;
}

int conf_set_text(struct conf_set *s, const char *key, const char *text, const char *where,
                  struct err *e)
{
    const struct conf_table *t = NULL;
    int at = 0;
    const struct conf_row *r = find(s, key, strlen(key), &t, &at);
    if (!r && strlen(key) < KEY_BYTES - 6) { /* --policy=vllm is --policy.name=vllm */
        char full[KEY_BYTES];
        snprintf(full, sizeof full, "%s.name", key);
        r = find(s, full, strlen(full), &t, &at);
    }
    if (!r) {
        char shown[64], near[128], like[WORD_MAX + 1];
        const char *keys = all_keys(s);
        utf8_quote(key, shown, sizeof shown);
        hint(key, keys, near, sizeof near);
        if (!*near && nearest(key, keys, INT_MAX, far_from, like, sizeof like))
            snprintf(near, sizeof near, "; did you mean '%s'?", like);
        return err_set(e, ST_USAGE, "%s: no key '%s'%s%s", where, shown,
                       is_group(s, key, strlen(key)) ? ", only keys below it" : "", near);
    }
    int st = set_row(s, r, t, text, where, e);
    if (st == ST_OK)
        s->given[at] = !r->dflt && strcmp(text, "-") == 0 ? FROM_DEFAULT : FROM_COMMAND_LINE;
    return st;
}

/* The keys right below a group ("" is the top), blank-separated; `skip` are more of them. */
static char *keys_below(const struct conf_set *s, const char *group, const char *skip)
{
    size_t len = strlen(group), room = skip ? strlen(skip) + 2 : 2, used = 0;
    for (int i = 0; i < s->n_table; i++)
        for (const struct conf_row *r = s->table[i].rows; r->type != CONF_END; r++)
            room += strlen(r->key) + 1;
    char *list = arena_alloc(s->arena, room);
    for (int i = 0; i < s->n_table; i++)
        for (const struct conf_row *r = s->table[i].rows; r->type != CONF_END; r++) {
            if (len && (strncmp(r->key, group, len) != 0 || r->key[len] != '.')) continue;
            char part[KEY_BYTES];
            const char *from = r->key + len + (len > 0);
            snprintf(part, sizeof part, "%.*s", (int)strcspn(from, "."), from);
            if (word_index(part, list) >= 0) continue;
            used += (size_t)snprintf(list + used, room - used, "%s%s", used ? " " : "", part);
        }
    if (skip && *skip) snprintf(list + used, room - used, "%s%s", used ? " " : "", skip);
    return list;
}

struct apply {
    struct conf_set *set;
    const char *skip;
    struct err *err;
};

static char *key_place(const struct doc *d, char *buf, size_t n)
{
    if (d->key_line <= 0) return doc_place(d, buf, n);
    snprintf(buf, n, "%s:%d:%d", d->file, d->key_line, d->key_column);
    return buf;
}

static int unknown_key(struct apply *ap, const char *group, const struct doc *d)
{
    char place[PLACE_BYTES], shown[64], list[LIST_BYTES], near[128];
    char *words = keys_below(ap->set, group, *group ? NULL : ap->skip);
    return err_set(ap->err, ST_USAGE, "%s: %s%sno key '%s', only %s%s",
                   key_place(d, place, sizeof place), group, *group ? ": " : "",
                   utf8_quote(d->key, shown, sizeof shown), comma_list(words, list, sizeof list),
                   hint(d->key, words, near, sizeof near));
}

static const char *example_of(const struct conf_row *r)
{
    return r->dflt ? r->dflt : r->type == CONF_WORD ? r->allow : "";
}

static int apply_row(struct apply *ap, const char *key, const struct doc *d)
{
    char place[PLACE_BYTES], where[PLACE_BYTES + KEY_BYTES];
    const struct conf_table *t = NULL;
    int at = 0;
    const struct conf_row *r = find(ap->set, key, strlen(key), &t, &at);
    snprintf(where, sizeof where, "%s: %s", doc_place(d, place, sizeof place), key);
    if (d->kind != DOC_SCALAR) {
        const char *shape = d->kind == DOC_MAP ? "map" : "list", *like = example_of(r);
        int k = (int)strcspn(like, " ");
        return err_set(ap->err, ST_USAGE, "%s: a %s stands where one value is expected%s%.*s",
                       where, shape, *like ? ", as in " : "", k, like);
    }
    if (!*d->text && !d->quoted)
        return err_set(ap->err, ST_USAGE, "%s: nothing is given; write a value%s", where,
                       r->type == CONF_TEXT ? ", \"\" for an empty text" : " or leave the key out");
    int st = set_row(ap->set, r, t, d->text, where, ap->err);
    if (st == ST_OK)
        ap->set->given[at] = !r->dflt && strcmp(d->text, "-") == 0 ? FROM_DEFAULT : FROM_FILE;
    return st;
}

static int apply_map(struct apply *ap, const char *group, const struct doc *map);

static int apply_group(struct apply *ap, const char *key, const struct doc *d)
{
    char name[KEY_BYTES + 8], place[PLACE_BYTES], list[LIST_BYTES];
    if (d->kind == DOC_MAP) return apply_map(ap, key, d);
    snprintf(name, sizeof name, "%s.name", key);
    if (d->kind == DOC_SCALAR && (*d->text || d->quoted) &&
        find(ap->set, name, strlen(name), NULL, NULL))
        return apply_row(ap, name, d);
    return err_set(ap->err, ST_USAGE, "%s: %s: %s where a map is expected, with the keys %s",
                   doc_place(d, place, sizeof place), key,
                   d->kind == DOC_LIST ? "a list stands"
                   : *d->text          ? "one value stands"
                                       : "nothing stands",
                   comma_list(keys_below(ap->set, key, NULL), list, sizeof list));
}

/* Recursion ends with the depth of the rows: an unknown key goes no deeper. */
static int apply_map(struct apply *ap, const char *group, const struct doc *map)
{
    for (const struct doc *d = map->first; d; d = d->next) {
        char key[KEY_BYTES];
        int st;
        if (!*group && ap->skip && word_index(d->key, ap->skip) >= 0) continue;
        int len = snprintf(key, sizeof key, "%s%s%s", group, *group ? "." : "", d->key);
        if (strchr(d->key, '.') || len < 0 || len >= (int)sizeof key)
            return unknown_key(ap, group, d);
        if (find(ap->set, key, strlen(key), NULL, NULL))
            st = apply_row(ap, key, d);
        else if (is_group(ap->set, key, strlen(key)))
            st = apply_group(ap, key, d);
        else
            return unknown_key(ap, group, d);
        if (st != ST_OK) return st;
    }
    return ST_OK;
}

int conf_apply(struct conf_set *s, const struct doc *map, const char *skip, struct err *e)
{
    struct apply ap = { s, skip, e };
    char place[PLACE_BYTES];
    if (map->kind != DOC_MAP)
        return err_set(e, ST_USAGE, "%s: %s stands where a map of options is expected",
                       doc_place(map, place, sizeof place),
                       map->kind == DOC_LIST ? "a list" : "one value");
    return apply_map(&ap, "", map);
}

/* ---- back to text */

static bool is_zero(const struct conf_row *r, const void *at)
{
    switch (r->type) {
    case CONF_TEXT: return *(const char *const *)at == NULL;
    case CONF_INT:
    case CONF_TOKENS:
    case CONF_TIME: return *(const int64_t *)at == 0;
    case CONF_BOOL:
    case CONF_WORD: return false; /* their zero has a word of its own */
    default: return *(const double *)at == 0;
    }
}

static void word_at(const char *words, int i, char *buf, size_t n)
{
    for (; i > 0 && *words; i--) {
        words += strcspn(words, " ");
        while (*words == ' ') words++;
    }
    snprintf(buf, n, "%.*s", (int)strcspn(words, " "), words);
}

char *conf_text(const struct conf_set *s, const char *key, char *buf, size_t n)
{
    const struct conf_table *t = NULL;
    int index = 0;
    const struct conf_row *r = find(s, key, strlen(key), &t, &index);
    assert(r);
    const void *at = member(t, r);
    if (is_zero(r, at) && !r->dflt && s->given[index] == FROM_DEFAULT) {
        snprintf(buf, n, "-");
        return buf;
    }
    switch (r->type) {
    case CONF_BOOL: snprintf(buf, n, "%s", *(const bool *)at ? "true" : "false"); break;
    case CONF_WORD: word_at(r->allow, *(const int *)at, buf, n); break;
    case CONF_TEXT: snprintf(buf, n, "%s", is_zero(r, at) ? "-" : *(const char *const *)at); break;
    case CONF_TIME: units_text_ns(*(const int64_t *)at, buf, n); break;
    case CONF_INT: snprintf(buf, n, "%" PRId64, *(const int64_t *)at); break;
    case CONF_TOKENS: units_text(UNIT_TOKENS, (double)*(const int64_t *)at, buf, n); break;
    default: units_text(unit_of(r->type), *(const double *)at, buf, n); break;
    }
    return buf;
}
