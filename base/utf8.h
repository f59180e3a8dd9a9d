/* base/utf8.h - stepping through bytes that should be UTF-8, and quoting text of unknown origin.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Length (1..4) of the well-formed sequence at s, which has n >= 1 bytes, and its code point in
 * *code (may be NULL); 0 if there is none: stray, overlong, cut short, a surrogate, past U+10FFFF
 * (Unicode 15, table 3-7). */
static inline size_t utf8_step(const char *s, size_t n, uint32_t *code)
{
    const unsigned char *b = (const unsigned char *)s;
    static const uint32_t least[5] = { 0, 0, 0x80, 0x800, 0x10000 };
    size_t len = b[0] < 0x80   ? 1
                 : b[0] < 0xc2 ? 0
                 : b[0] < 0xe0 ? 2
                 : b[0] < 0xf0 ? 3
                 : b[0] < 0xf5 ? 4
                               : 0;
    if (len == 0 || len > n) return 0;
    uint32_t c = len == 1 ? b[0] : b[0] & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((b[i] & 0xc0) != 0x80) return 0;
        c = c << 6 | (b[i] & 0x3fu);
    }
    if (c < least[len] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) return 0;
    if (code) *code = c;
    return len;
}

/* Makes text one harmless line, in place: `mark` for control characters and for bytes that are no
 * UTF-8. */
static inline void utf8_tidy(char *text, char mark)
{
    size_t n = strlen(text), to = 0;
    for (size_t at = 0; at < n;) {
        uint32_t code = 0;
        size_t step = utf8_step(text + at, n - at, &code);
        if (step == 0 || code < 0x20 || (code >= 0x7f && code < 0xa0)) {
            at += step ? step : 1;
            text[to++] = mark;
            continue;
        }
        memmove(text + to, text + at, step);
        at += step;
        to += step;
    }
    text[to] = 0;
}

/* The text for a message: whole, or its first bytes and "..." where longer than n - 1 or 48 bytes.
 * Never cuts a well-formed sequence. n >= 8. Returns buf. */
static inline char *utf8_quote(const char *text, char *buf, size_t n)
{
    size_t len = strlen(text), most = n - 1 < 48 ? n - 1 : 48;
    if (len <= most) return memcpy(buf, text, len + 1);
    size_t at = 0;
    while (at < most - 3) {
        size_t step = utf8_step(text + at, len - at, NULL);
        if (step == 0) step = 1;
        if (at + step > most - 3) break;
        at += step;
    }
    memcpy(buf, text, at);
    memcpy(buf + at, "...", 4);
    return buf;
}

#endif
