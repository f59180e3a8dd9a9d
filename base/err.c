/* base/err.c - writes the one sentence that goes with a failure.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/err.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

/* Ends a text that filled its buffer in "...", at the border of a character. */
static void mark_cut(char *text, size_t size)
{
    size_t at = size - 4;
    while (at > 0 && ((unsigned char)text[at] & 0xc0) == 0x80) at--;
    memcpy(text + at, "...", 4);
}

int err_set(struct err *e, int status, const char *fmt, ...)
{
    assert(status != ST_OK);
    if (!e || e->status != ST_OK) return status;
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(e->text, sizeof e->text, fmt, args);
    va_end(args);
    e->status = status;
    if (n < 0) snprintf(e->text, sizeof e->text, "a message that could not be written");
    if (n >= (int)sizeof e->text) mark_cut(e->text, sizeof e->text);
    utf8_tidy(e->text, '?');
    return status;
}

void err_prefix(struct err *e, const char *fmt, ...)
{
    if (!e || e->status == ST_OK) return;
    char front[sizeof e->text], all[2 * sizeof e->text + 2];
    va_list args;
    va_start(args, fmt);
    vsnprintf(front, sizeof front, fmt, args);
    va_end(args);
    int n = snprintf(all, sizeof all, "%s: %s", front, e->text);
    size_t keep = n < (int)sizeof e->text ? (size_t)n : sizeof e->text - 1;
    memcpy(e->text, all, keep);
    e->text[keep] = 0;
    if (n >= (int)sizeof e->text) mark_cut(e->text, sizeof e->text);
    utf8_tidy(e->text, '?');
}

void err_clear(struct err *e)
{
    if (!e) return;
    e->status = ST_OK;
    e->text[0] = 0;
}

int err_file(struct err *e, const char *what, const char *path, int number)
{
    bool named = number == ENOENT || number == ENOTDIR;
    return err_set(e, named ? ST_USAGE : ST_IO, "cannot %s %s: %s", what, path, strerror(number));
}
