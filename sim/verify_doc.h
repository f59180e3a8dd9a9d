/* sim/verify_doc.h - a small document of headings, paragraphs, tables and a drawing, written as
 * text, Markdown or HTML: the content is put together once and cannot differ between the forms.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_VERIFY_DOC_H
#define SIM_VERIFY_DOC_H

#include <stdio.h>

#include "base/arena.h"

enum { VERIFY_DOC_COLS = 12 };
struct verify_doc_block;
struct verify_doc {
    struct arena *a;
    struct verify_doc_block *first, *last;
};

/* Texts are not copied; they live in the arena or longer. */
void verify_doc_head(struct verify_doc *d, const char *text);
void verify_doc_para(struct verify_doc *d, const char *text);
/* Shown in full by Markdown and HTML, left out of text on a terminal. */
void verify_doc_svg(struct verify_doc *d, const char *svg, const char *caption);
/* Columns "stage|layers|>bytes": '>' aligns numbers to the right. Then rows of as many cells. */
void verify_doc_table(struct verify_doc *d, const char *columns);
void verify_doc_row(struct verify_doc *d, const char *const *cells);

void verify_doc_text(const struct verify_doc *d, FILE *f); /* wrapped to 100 columns */
void verify_doc_markdown(const struct verify_doc *d, const char *title, FILE *f);
void verify_doc_html(const struct verify_doc *d, const char *title, FILE *f);

#endif
