/* sim/verify_doc.c - see verify_doc.h. SPDX-License-Identifier: Apache-2.0 */
#include "sim/verify_doc.h"

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/utf8.h"

enum { WIDTH = 100, MAX_CELL = 60 };
enum kind { HEAD, PARA, SVG, TABLE };

struct row {
    const char *cell[VERIFY_DOC_COLS];
    struct row *next;
};
struct verify_doc_block {
    enum kind kind;
    const char *text, *svg;
    const char *col[VERIFY_DOC_COLS];
    bool right[VERIFY_DOC_COLS];
    int n_col;
    struct row *first, *last;
    struct verify_doc_block *next;
};

static struct verify_doc_block *add(struct verify_doc *d, enum kind kind, const char *text)
{
    struct verify_doc_block *b = arena_alloc(d->a, sizeof *b);
    b->kind = kind;
    b->text = text;
    if (d->last)
        d->last->next = b;
    else
        d->first = b;
    d->last = b;
    return b;
}

void verify_doc_head(struct verify_doc *d, const char *text)
{
    add(d, HEAD, text);
}

void verify_doc_para(struct verify_doc *d, const char *text)
{
    add(d, PARA, text);
}

void verify_doc_svg(struct verify_doc *d, const char *svg, const char *caption)
{
    add(d, SVG, caption)->svg = svg;
}

void verify_doc_table(struct verify_doc *d, const char *columns)
{
    struct verify_doc_block *b = add(d, TABLE, "");
    for (const char *p = columns;; p++) {
        size_t n = strcspn(p, "|");
        assert(b->n_col < VERIFY_DOC_COLS);
        b->right[b->n_col] = *p == '>';
        b->col[b->n_col] = arena_copy_text(d->a, p + (*p == '>'), n - (*p == '>'));
        b->n_col++;
        p += n;
        if (!*p) break;
    }
}

void verify_doc_row(struct verify_doc *d, const char *const *cells)
{
    struct verify_doc_block *b = d->last;
    assert(b && b->kind == TABLE);
    struct row *r = arena_alloc(d->a, sizeof *r);
    for (int i = 0; i < b->n_col; i++) r->cell[i] = cells[i] ? cells[i] : "";
    if (b->last)
        b->last->next = r;
    else
        b->first = r;
    b->last = r;
}

/* ---- text */

/* Columns that a text takes on a terminal: code points. */
static int width(const char *s)
{
    int n = 0;
    for (; *s; s++) n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

/* Words from `at`, as many as fit in `room` columns; returns where the next line begins. */
static const char *line_of(const char *at, int room, FILE *f, int *used)
{
    *used = 0;
    while (*at) {
        size_t n = strcspn(at, " ");
        int w = 0;
        for (size_t i = 0; i < n; i++) w += ((unsigned char)at[i] & 0xc0) != 0x80;
        if (*used > 0 && *used + 1 + w > room) break;
        if (*used > 0) fputc(' ', f);
        fwrite(at, 1, n, f);
        *used += w + (*used > 0);
        at += n;
        while (*at == ' ') at++;
    }
    return at;
}

static void para_text(const char *text, int indent, FILE *f)
{
    int used;
    while (*text) {
        text = line_of(text, WIDTH - indent, f, &used);
        fputc('\n', f);
        if (*text) fprintf(f, "%*s", indent, "");
    }
}

/* The last column takes what is left and is wrapped; the others stand on one line. */
static void table_text(const struct verify_doc_block *b, FILE *f)
{
    int w[VERIFY_DOC_COLS], sum = 2;
    for (int i = 0; i < b->n_col; i++) {
        w[i] = width(b->col[i]);
        for (const struct row *r = b->first; r; r = r->next)
            if (width(r->cell[i]) > w[i]) w[i] = width(r->cell[i]);
        if (i < b->n_col - 1) sum += w[i] + 2;
    }
    for (const struct row *r = NULL; r || b->first;) {
        fputs("  ", f);
        for (int i = 0; i < b->n_col; i++) {
            const char *c = r ? r->cell[i] : b->col[i];
            int pad = w[i] - width(c);
            bool last = i == b->n_col - 1;
            if (last && !b->right[i]) {
                para_text(*c ? c : " ", sum < WIDTH - MAX_CELL / 2 ? sum : 6, f);
                continue;
            }
            fprintf(f, "%*s%s%*s%s", b->right[i] ? pad : 0, "", c, b->right[i] || last ? 0 : pad,
                    "", last ? "\n" : "  ");
        }
        r = r ? r->next : b->first;
        if (!r) break;
    }
}

void verify_doc_text(const struct verify_doc *d, FILE *f)
{
    for (const struct verify_doc_block *b = d->first; b; b = b->next) {
        if (b->kind == SVG) continue;
        if (b->kind == HEAD)
            fprintf(f, "\n%s\n", b->text);
        else if (b->kind == PARA)
            para_text(b->text, 0, f);
        else
            table_text(b, f);
    }
}

/* ---- Markdown and HTML: text of unknown origin is escaped for both */

/* & < > " become entities; bytes that are no UTF-8 '?', control bytes blanks. In Markdown also the
 * characters that would begin a structure get a backslash. */
static void escaped(const char *s, bool markdown, FILE *f)
{
    size_t n = strlen(s);
    for (size_t i = 0; i < n;) {
        uint32_t code = 0;
        size_t step = utf8_step(s + i, n - i, &code);
        const char *entity = code == '&'   ? "&amp;"
                             : code == '<' ? "&lt;"
                             : code == '>' ? "&gt;"
                             : code == '"' ? "&quot;"
                                           : NULL;
        if (step == 0)
            fputc('?', f);
        else if (entity)
            fputs(entity, f);
        else if (code < 0x20 || (code >= 0x7f && code < 0xa0))
            fputc(' ', f);
        else {
            if (markdown && step == 1 && strchr("\\`*_[]|#!", s[i])) fputc('\\', f);
            fwrite(s + i, 1, step, f);
        }
        i += step ? step : 1;
    }
}

static void table_markdown(const struct verify_doc_block *b, FILE *f)
{
    fputc('\n', f);
    for (int i = 0; i < b->n_col; i++) {
        fputs(i ? " | " : "| ", f);
        escaped(b->col[i], true, f);
    }
    fputs(" |\n|", f);
    for (int i = 0; i < b->n_col; i++) fputs(b->right[i] ? "---:|" : "---|", f);
    fputc('\n', f);
    for (const struct row *r = b->first; r; r = r->next) {
        for (int i = 0; i < b->n_col; i++) {
            fputs(i ? " | " : "| ", f);
            escaped(r->cell[i], true, f);
        }
        fputs(" |\n", f);
    }
    fputc('\n', f);
}

void verify_doc_markdown(const struct verify_doc *d, const char *title, FILE *f)
{
    fputs("# ", f);
    escaped(title, true, f);
    fputs("\n", f);
    for (const struct verify_doc_block *b = d->first; b; b = b->next) {
        if (b->kind == TABLE) {
            table_markdown(b, f);
            continue;
        }
        fputs(b->kind == HEAD ? "\n## " : "\n", f);
        if (b->kind == SVG) fprintf(f, "%s\n", b->svg);
        escaped(b->text, true, f);
        fputc('\n', f);
    }
}

static const char style[] =
    ":root{--ink:#1a1a1a;--dim:#5c5c5c;--paper:#fff;--line:#d5d5d5;--bad:#a83a00}\n"
    "@media "
    "(prefers-color-scheme:dark){:root{--ink:#e8e8e6;--dim:#a9a9a5;--paper:#191a1b;--line:#404244;"
    "--bad:#ff9a5c}}\n"
    "html{color-scheme:light "
    "dark}body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 "
    "system-ui,sans-serif}main{max-width:70rem;margin:0 auto;padding:1.5rem 1.25rem 4rem}\n"
    "h1{font-size:1.5rem}h2{font-size:1.2rem;margin-top:2rem;border-bottom:1px solid var(--line)}\n"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.9rem}.scroll{"
    "overflow-x:auto}\n"
    "th,td{padding:.2rem .6rem;text-align:left;vertical-align:top;border-bottom:1px solid "
    "var(--line)}\n"
    ".n{text-align:right;white-space:nowrap}.fail,.no{color:var(--bad);font-weight:600}figure{"
    "margin:1rem 0;"
    "overflow-x:auto}figcaption{color:var(--dim)}p{max-width:60rem}\n";

static void table_html(const struct verify_doc_block *b, FILE *f)
{
    fputs("<div class=\"scroll\"><table><thead><tr>", f);
    for (int i = 0; i < b->n_col; i++) {
        fputs(b->right[i] ? "<th class=\"n\">" : "<th>", f);
        escaped(b->col[i], false, f);
        fputs("</th>", f);
    }
    fputs("</tr></thead><tbody>\n", f);
    for (const struct row *r = b->first; r; r = r->next) {
        fputs("<tr>", f);
        for (int i = 0; i < b->n_col; i++) {
            bool fail = strcmp(r->cell[i], "fail") == 0;
            fputs(fail ? "<td class=\"fail\">" : b->right[i] ? "<td class=\"n\">" : "<td>", f);
            escaped(r->cell[i], false, f);
            fputs("</td>", f);
        }
        fputs("</tr>\n", f);
    }
    fputs("</tbody></table></div>\n", f);
}

void verify_doc_html(const struct verify_doc *d, const char *title, FILE *f)
{
    fputs(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
        "content=\"width=device-width\"><title>",
        f);
    escaped(title, false, f);
    fprintf(f, "</title><style>\n%s</style></head><body><main>\n<h1>", style);
    escaped(title, false, f);
    fputs("</h1>\n", f);
    for (const struct verify_doc_block *b = d->first; b; b = b->next) {
        static const char *const open[] = { "<h2>", "<p>", "<figure>" };
        static const char *const close[] = { "</h2>\n", "</p>\n", "</figcaption></figure>\n" };
        if (b->kind == TABLE) {
            table_html(b, f);
            continue;
        }
        fputs(open[b->kind], f);
        if (b->kind == SVG) fprintf(f, "%s<figcaption>", b->svg);
        escaped(b->text, false, f);
        fputs(close[b->kind], f);
    }
    fputs("</main></body></html>\n", f);
}
