/* base/conf_help.c - the option tables as help for people and as the effective YAML.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/conf.h"

#include <assert.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"
#include "base/utf8.h"

enum { COLUMNS = 100, LEFT = 36, KEY_BYTES = 256, VALUE_BYTES = 64 };

/* Plain only where no YAML reader could take it for something else than this text. */
static bool plain_is_safe(const char *text)
{
    static const char start[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_/";
    static const char rest[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_/.+-";
    bool number = text[0] == '-' && text[1] >= '0' && text[1] <= '9';
    return (number || (*text && strchr(start, *text))) && !text[1 + strspn(text + 1, rest)];
}

/* Line ends, controls and what libyaml takes for them are written as escapes. */
static void echo_quoted(const char *text, FILE *f)
{
    size_t n = strlen(text);
    fputc('"', f);
    for (size_t at = 0; at < n;) {
        uint32_t c = 0;
        size_t step = utf8_step(text + at, n - at, &c);
        if (step == 0) {
            c = 0xfffd;
            step = 1;
        } /* conf_set_text admits UTF-8 only */
        if (c == '"' || c == '\\')
            fprintf(f, "\\%c", (char)c);
        else if (c == '\n')
            fputs("\\n", f);
        else if (c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x2028 || c == 0x2029 || c == 0xfeff ||
                 c == 0xfffd || (c & 0xfffe) == 0xfffe)
            fprintf(f, "\\U%08X", (unsigned)c);
        else
            fwrite(text + at, 1, step, f);
        at += step;
    }
    fputc('"', f);
}

static void echo_value(const struct conf_set *s, const struct conf_row *r,
                       const struct conf_table *t, FILE *f)
{
    char value[VALUE_BYTES];
    if (r->type == CONF_TEXT) {
        const char *text = *(const char *const *)((const char *)t->base + r->at);
        echo_quoted(text ? text : "-", f);
        return;
    }
    conf_text(s, r->key, value, sizeof value);
    if (plain_is_safe(value))
        fputs(value, f);
    else
        echo_quoted(value, f);
}

/* Whether a row before `end` already lies in the group "key[0..len)". */
static bool group_seen(const struct conf_set *s, const struct conf_row *end, const char *key,
                       size_t len)
{
    for (int i = 0; i < s->n_table; i++)
        for (const struct conf_row *r = s->table[i].rows; r->type != CONF_END; r++) {
            if (r == end) return false;
            if (strncmp(r->key, key, len) == 0 && r->key[len] == '.') return true;
        }
    return false;
}

/* The rows under the first `len` bytes of `group`, at `depth` levels of indent. */
static void echo_group(const struct conf_set *s, const char *group, size_t len, int depth, FILE *f)
{
    size_t skip = len + (len > 0);
    for (int i = 0; i < s->n_table; i++) {
        const struct conf_table *t = &s->table[i];
        for (const struct conf_row *r = t->rows; r->type != CONF_END; r++) {
            if (len && (strncmp(r->key, group, len) != 0 || r->key[len] != '.')) continue;
            const char *name = r->key + skip, *dot = strchr(name, '.');
            if (!dot) {
                fprintf(f, "%*s%s: ", 2 * depth, "", name);
                echo_value(s, r, t, f);
                fputc('\n', f);
                continue;
            }
            size_t whole = (size_t)(dot - r->key);
            if (group_seen(s, r, r->key, whole)) continue;
            fprintf(f, "%*s%.*s:\n", 2 * depth, "", (int)(dot - name), name);
            echo_group(s, r->key, whole, depth + 1, f);
        }
    }
}

void conf_echo_yaml(const struct conf_set *s, FILE *f)
{
    echo_group(s, "", 0, 0, f);
}

/* clang-format off */
static const char *type_word(enum conf_type t)
{
    static const char *const words[] = {
        [CONF_END] = "", [CONF_BOOL] = "BOOL", [CONF_INT] = "N", [CONF_TOKENS] = "TOKENS",
        [CONF_NUMBER] = "X", [CONF_TIME] = "TIME", [CONF_RATE] = "RATE", [CONF_BYTES] = "BYTES",
        [CONF_BYTES_PER_S] = "BYTES/S", [CONF_FLOP_PER_S] = "FLOP/S", [CONF_WATT] = "WATT",
        [CONF_USD] = "USD", [CONF_USD_PER_H] = "USD/H",
        [CONF_WORD] = "WORD", [CONF_TEXT] = "TEXT" };
    return words[t];
}

static enum unit limit_unit(enum conf_type t)
{
    static const enum unit units[] = {
        [CONF_INT] = UNIT_COUNT, [CONF_TOKENS] = UNIT_TOKENS, [CONF_NUMBER] = UNIT_RATIO,
        [CONF_TIME] = UNIT_TIME, [CONF_RATE] = UNIT_RATE, [CONF_BYTES] = UNIT_BYTES,
        [CONF_BYTES_PER_S] = UNIT_BYTES_PER_S, [CONF_FLOP_PER_S] = UNIT_FLOP_PER_S,
        [CONF_WATT] = UNIT_WATT, [CONF_USD] = UNIT_USD, [CONF_USD_PER_H] = UNIT_USD_PER_H,
        [CONF_TEXT] = UNIT_COUNT };
    return units[t];
}
/* clang-format on */

static void limits_text(const struct conf_row *r, char *buf, size_t n)
{
    char lo[64], hi[64];
    buf[0] = 0;
    if (r->lo == 0 && r->hi == 0) return;
    units_text(limit_unit(r->type), r->lo, lo, sizeof lo);
    units_text(limit_unit(r->type), r->hi, hi, sizeof hi);
    if (isinf(r->hi))
        snprintf(buf, n, "; from %s", lo);
    else if (isinf(r->lo))
        snprintf(buf, n, "; up to %s", hi);
    else
        snprintf(buf, n, "; %s .. %s", lo, hi);
}

/* Prints text from column `at`, wrapped at blanks to COLUMNS with a hanging indent of LEFT. */
static void wrap(const char *text, int at, FILE *f)
{
    int column = at;
    for (const char *w = text; *w;) {
        int k = (int)strcspn(w, " ");
        bool first = column == LEFT;
        if (!first && column + 1 + k > COLUMNS) {
            fprintf(f, "\n%*s", LEFT, "");
            column = LEFT;
            first = true;
        }
        fprintf(f, "%s%.*s", first ? "" : " ", k, w);
        column += k + !first;
        w += k;
        while (*w == ' ') w++;
    }
    fputc('\n', f);
}

static void help_row(const struct conf_row *r, struct arena *a, FILE *f)
{
    char left[KEY_BYTES + 16], limits[160];
    limits_text(r, limits, sizeof limits);
    int n = snprintf(left, sizeof left, "  --%s=%s", r->key, type_word(r->type));
    const char *dflt = !r->dflt ? "-" : *r->dflt ? r->dflt : "\"\"";
    const char *text =
        arena_printf(a, "%s [%s%s%s%s]", r->help, dflt, r->type == CONF_WORD ? "; one of " : "",
                     r->type == CONF_WORD ? r->allow : "", limits);
    if (n < LEFT - 1)
        fprintf(f, "%-*s", LEFT, left);
    else
        fprintf(f, "%s\n%*s", left, LEFT, "");
    wrap(text, LEFT, f);
}

void conf_help(const struct conf_set *s, FILE *f)
{
    struct arena a;
    arena_init(&a);
    for (int i = 0; i < s->n_table; i++) {
        fprintf(f, "%s%s:\n", i ? "\n" : "", s->table[i].title ? s->table[i].title : "options");
        for (const struct conf_row *r = s->table[i].rows; r->type != CONF_END; r++)
            help_row(r, &a, f);
    }
    arena_release(&a);
}
