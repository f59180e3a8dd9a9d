/* plots/html.h - a page that needs nothing but itself: escaped text, style, pictures inline.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef PLOTS_HTML_H
#define PLOTS_HTML_H

#include <stddef.h>
#include <stdio.h>

#include "base/stat.h"

/* Text of unknown origin: & < > " ' become entities, bytes that are no UTF-8 '?', control bytes
 * blanks (line ends and tabs stay). */
void html_text(FILE *f, const char *text);
/* printf whose result is escaped as above; at most 2000 bytes of it. */
void html_printf(FILE *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void html_begin(FILE *f, const char *title); /* up to <main> */
void html_end(FILE *f);
/* An SVG of gnuplot as part of the page. `prefix` makes its ids its own, `label` is read aloud.
 * Bytes that are no such SVG are left out. */
void html_svg(FILE *f, const char *svg, size_t n, const char *prefix, const char *label);

/* Figures for people; "-" for NAN. buf of HTML_NUMBER_BYTES; return buf. */
enum { HTML_NUMBER_BYTES = 40 };
char *html_ns(double ns, char *buf);
char *html_number(double v, char *buf);      /* four digits */
char *html_percent(double ratio, char *buf); /* "94.1 %", with more digits close to 100 % */
/* <td> with an estimate and, below it, its interval; `form` is one of the above. */
void html_cell(FILE *f, struct ci c, char *(*form)(double, char *));

#endif
