/* model/topo_xml.c - XML by expat, with limits: no entities, bounded nesting, one sentence on the
 * first fault. SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <expat.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/topo_in.h"

long topo_xml_line(const struct topo_xml *x)
{
    return (long)XML_GetCurrentLineNumber(x->parser);
}

void topo_xml_fail(struct topo_xml *x, int status, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    if (x->status != ST_OK) return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    x->status = err_set(x->e, status, "%s:%ld: %s", x->file, topo_xml_line(x), text);
    XML_StopParser(x->parser, XML_FALSE);
}

static void XMLCALL on_start(void *user, const char *tag, const char **attr)
{
    struct topo_xml *x = user;
    if (x->status != ST_OK) return;
    if (++x->depth > TOPO_MAX_DEPTH)
        topo_xml_fail(x, ST_USAGE, "elements nest deeper than %d", TOPO_MAX_DEPTH);
    else
        x->start(x, tag, attr);
}

static void XMLCALL on_end(void *user, const char *tag)
{
    struct topo_xml *x = user;
    if (x->status != ST_OK) return;
    x->end(x, tag);
    x->depth--;
}

static void XMLCALL on_text(void *user, const char *bytes, int n)
{
    struct topo_xml *x = user;
    if (x->status == ST_OK) x->text(x, bytes, n);
}

/* An entity is of no use in a topology, and a few lines of them can grow to gigabytes. */
static void XMLCALL on_entity(void *user, const char *name, int is_parameter, const char *value,
                              int n_value, const char *base, const char *system,
                              const char *public_id, const char *notation)
{
    (void)is_parameter, (void)value, (void)n_value, (void)base;
    (void)system, (void)public_id, (void)notation;
    topo_xml_fail(user, ST_USAGE, "the entity '%.60s' is declared; entities are not read", name);
}

int topo_xml_parse(struct topo_xml *x, const char *bytes, size_t n)
{
    XML_Parser p = XML_ParserCreate(NULL);
    x->status = ST_OK;
    x->depth = 0;
    if (!p) return err_set(x->e, ST_IO, "%s: out of memory", x->file);
    x->parser = p;
    XML_SetUserData(p, x);
    XML_SetElementHandler(p, on_start, on_end);
    XML_SetEntityDeclHandler(p, on_entity);
    if (x->text) XML_SetCharacterDataHandler(p, on_text);
    enum XML_Status ok = XML_Parse(p, bytes, (int)n, 1);
    if (x->status == ST_OK && ok != XML_STATUS_OK)
        x->status = err_set(x->e, ST_USAGE, "%s:%ld: %s", x->file, topo_xml_line(x),
                            XML_ErrorString(XML_GetErrorCode(p)));
    XML_ParserFree(p);
    x->parser = NULL;
    return x->status;
}

const char *topo_xml_get(const char **attr, const char *name)
{
    for (; *attr; attr += 2)
        if (strcmp(attr[0], name) == 0) return attr[1];
    return NULL;
}

const char *topo_text(struct arena *a, const char *text)
{
    size_t n = strlen(text);
    if (n > TOPO_MAX_TEXT) {
        n = TOPO_MAX_TEXT;
        while (n && ((unsigned char)text[n] & 0xc0) == 0x80) n--;
    }
    char *copy = arena_copy_text(a, text, n);
    for (char *p = copy; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f) *p = '?';
    return copy;
}

int topo_int(const char *text, int base, int lo, int hi, int otherwise)
{
    char *end;
    if (!text || !*text) return otherwise;
    errno = 0;
    long v = strtol(text, &end, base);
    while (*end == ' ') end++;
    return *end || errno || v < lo || v > hi ? otherwise : (int)v;
}

/* A hexadecimal number of at most `digits` digits at *p, which moves behind it and the mark. */
static bool take_hex(const char **p, int digits, char mark, unsigned *out)
{
    size_t n = strspn(*p, "0123456789abcdefABCDEF");
    if (n < 1 || n > (size_t)digits || (*p)[n] != mark) return false;
    *out = (unsigned)strtoul(*p, NULL, 16);
    *p += n + (mark != 0);
    return true;
}

const char *topo_bus_id(struct arena *a, const char *text)
{
    unsigned domain, bus, device, function;
    if (!text || !take_hex(&text, 8, ':', &domain) || !take_hex(&text, 2, ':', &bus) ||
        !take_hex(&text, 2, '.', &device) || !take_hex(&text, 1, 0, &function))
        return NULL;
    return arena_printf(a, "%04x:%02x:%02x.%x", domain, bus, device, function);
}
