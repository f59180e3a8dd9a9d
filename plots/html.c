/* plots/html.c - see html.h. SPDX-License-Identifier: Apache-2.0 */
#include "plots/html.h"

#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/units.h"
#include "base/utf8.h"

static const char style[] =
    ":root{--ink:#1a1a1a;--dim:#5c5c5c;--paper:#fff;--line:#d5d5d5;--soft:#f4f4f2;--good:#00684c;"
    "--bad:#a83a00;--link:#00588c}\n"
    "@media (prefers-color-scheme:dark){:root{--ink:#e8e8e6;--dim:#a9a9a5;--paper:#191a1b;"
    "--line:#404244;--soft:#242628;--good:#4fd1a5;--bad:#ff9a5c;--link:#7cc4f2}}\n"
    "html{color-scheme:light dark}\n"
    "body{margin:0;background:var(--paper);color:var(--ink);"
    "font:16px/1.5 system-ui,'Segoe UI','Helvetica Neue',Arial,sans-serif}\n"
    "main{max-width:62rem;margin:0 auto;padding:1.5rem 1.25rem 4rem}\n"
    "h1{font-size:1.6rem;line-height:1.25;margin:.5rem 0}\n"
    "h2{font-size:1.25rem;margin:2.5rem 0 .5rem;border-bottom:1px solid var(--line);"
    "padding-bottom:.2rem}\n"
    "h3{font-size:1.05rem;margin:1.6rem 0 .4rem}\n"
    "p{margin:.5rem 0;max-width:46rem}\n"
    ".dim,small{color:var(--dim)}\nsmall{font-size:.8rem}\n"
    ".answer{border-left:.4rem solid var(--dim);background:var(--soft);padding:.6rem 1rem;"
    "margin:1rem 0}\n"
    ".answer.held{border-color:var(--good)}.answer.missed{border-color:var(--bad)}\n"
    ".answer .word{font-size:1.15rem}\n"
    ".held .word strong{color:var(--good)}.missed .word strong,.warn strong{color:var(--bad)}\n"
    ".warn{border:1px solid var(--bad);padding:.4rem .8rem;margin:.6rem 0}\n"
    ".scroll{overflow-x:auto}\n"
    "table{border-collapse:collapse;margin:.6rem 0;font-variant-numeric:tabular-nums}\n"
    "th,td{padding:.25rem .7rem;text-align:right;border-bottom:1px solid var(--line);"
    "vertical-align:top}\n"
    "th{font-weight:600}thead th{border-bottom:2px solid var(--line)}\n"
    "th:first-child,td.text,th.text{text-align:left}\n"
    "td small{display:block;white-space:nowrap;font-size:.85em}\n"
    "figure{margin:1.2rem 0;break-inside:avoid}\n"
    "figure svg{display:block;width:100%;height:auto;background:#fff;border:1px solid "
    "var(--line)}\n"
    "figcaption{color:var(--dim);font-size:.9rem;margin-top:.3rem;max-width:46rem}\n"
    "dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem;margin:.6rem 0}\n"
    "dt{font-weight:600}dd{margin:0;overflow-wrap:anywhere}\n"
    "pre{background:var(--soft);padding:.8rem;overflow:auto;max-height:26rem;font-size:.85rem;"
    "line-height:1.35}\n"
    "@media (max-width:40rem){dl{display:block}dd{margin:0 0 .4rem}}\n"
    "@media print{:root{--ink:#000;--dim:#444;--paper:#fff;--line:#aaa;--soft:#fff;--good:#000;"
    "--bad:#000}body{font-size:10pt}main{max-width:none;padding:0}pre{max-height:none;"
    "white-space:pre-wrap;border:1px solid #aaa}.scroll{overflow:visible}h2,h3{break-after:avoid}"
    "tr{break-inside:avoid}table{font-size:8pt}th,td{padding:.12rem .3rem}"
    "td small{white-space:normal}}\n";

void html_text(FILE *f, const char *text)
{
    size_t n = strlen(text);
    for (size_t i = 0; i < n;) {
        uint32_t code = 0;
        size_t step = utf8_step(text + i, n - i, &code);
        const char *entity = code == '&'    ? "&amp;"
                             : code == '<'  ? "&lt;"
                             : code == '>'  ? "&gt;"
                             : code == '"'  ? "&quot;"
                             : code == '\'' ? "&#39;"
                                            : NULL;
        bool control = code < 0x20 ? code != '\n' && code != '\t' : code >= 0x7f && code < 0xa0;
        if (step == 0 || code == 0xfffe || code == 0xffff)
            fputc('?', f);
        else if (entity)
            fputs(entity, f);
        else if (control)
            fputc(' ', f);
        else
            fwrite(text + i, 1, step, f);
        i += step ? step : 1;
    }
}

void html_printf(FILE *f, const char *fmt, ...)
{
    char text[2000];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    html_text(f, text);
}

void html_begin(FILE *f, const char *title)
{
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>",
          f);
    html_text(f, title);
    fprintf(f, "</title>\n<style>\n%s</style>\n</head>\n<body>\n<main>\n", style);
}

void html_end(FILE *f)
{
    fputs("</main>\n</body>\n</html>\n", f);
}

/* ---- pictures */

static const char *find(const char *p, const char *end, const char *what)
{
    size_t n = strlen(what);
    for (; p + n <= end; p++)
        if (memcmp(p, what, n) == 0) return p;
    return NULL;
}

static bool starts(const char *p, const char *end, const char *what)
{
    size_t n = strlen(what);
    return p + n <= end && memcmp(p, what, n) == 0;
}

/* Elements that a page shows as tooltips, left out whole: their length, or 0. */
static size_t unwanted(const char *p, const char *end)
{
    static const char *const element[][2] = { { "<title>", "</title>" }, { "<desc>", "</desc>" } };
    for (int i = 0; i < 2; i++) {
        if (!starts(p, end, element[i][0])) continue;
        const char *close = find(p, end, element[i][1]);
        if (close) return (size_t)(close - p) + strlen(element[i][1]);
    }
    return 0;
}

void html_svg(FILE *f, const char *svg, size_t n, const char *prefix, const char *label)
{
    static const char *const reference[] = { " id=\"", " id='", "href=\"#", "href='#", "url(#" };
    const char *end = svg + n, *open = find(svg, end, "<svg");
    const char *box = open ? find(open, end, "viewBox=\"") : NULL;
    const char *body = box ? find(box, end, ">") : NULL;
    if (!body) return;
    const char *quote = find(box + 9, body, "\"");
    fprintf(f, "<svg viewBox=\"%.*s\" role=\"img\" aria-label=\"",
            quote ? (int)(quote - box - 9) : 0, box + 9);
    html_text(f, label);
    fputs("\">", f);
    for (const char *p = body + 1; p < end;) {
        size_t skip = *p == '<' ? unwanted(p, end) : 0;
        const char *found = NULL;
        for (size_t i = 0; i < sizeof reference / sizeof *reference && !found; i++)
            if (starts(p, end, reference[i])) found = reference[i];
        if (skip) {
            p += skip;
        } else if (starts(p, end, "xlink:")) {
            p += 6;
        } else if (found) {
            fprintf(f, "%s%s", found, prefix);
            p += strlen(found);
        } else {
            fputc(*p++, f);
        }
    }
}

/* ---- figures for people */

char *html_ns(double ns, char *buf)
{
    if (!isfinite(ns)) return strcpy(buf, "-");
    return units_human_ns(ns, buf, HTML_NUMBER_BYTES);
}

char *html_number(double v, char *buf)
{
    if (!isfinite(v)) return strcpy(buf, "-");
    snprintf(buf, HTML_NUMBER_BYTES, fabs(v) >= 1000 && fabs(v) < 1e9 ? "%.0f" : "%.4g", v);
    return buf;
}

char *html_percent(double ratio, char *buf)
{
    if (!isfinite(ratio)) return strcpy(buf, "-");
    bool close = ratio < 1 && ratio > .9995;
    snprintf(buf, HTML_NUMBER_BYTES, close ? "%.3f %%" : "%.1f %%", 100 * ratio);
    return buf;
}

void html_cell(FILE *f, struct ci c, char *(*form)(double, char *))
{
    char buf[HTML_NUMBER_BYTES];
    fprintf(f, "<td>%s", form(c.mid, buf));
    if (isfinite(c.lo) && isfinite(c.hi)) {
        fprintf(f, "<small>%s", form(c.lo, buf));
        fprintf(f, " .. %s</small>", form(c.hi, buf));
    }
    fputs("</td>", f);
}
