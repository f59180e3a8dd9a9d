/* base/doc.h - a YAML or JSON file as a tree of text with the place of each piece.
 *
 * Scalars stay text until the option row that owns them parses them, so YAML's own typing (`no`,
 * `010`, `1e3`) never acts. Refused with file:line:column: anchors, aliases, tags, second
 * documents, duplicate keys, non-scalar keys, nesting past 64, files past 256 MiB, more than 2^24
 * nodes, an empty document, bytes that are not UTF-8, control bytes.
 * YAML is read by libyaml, JSON by jansson (JSON nodes know their file; line and column are 0,
 * since jansson keeps none, and a JSON number's text is as jansson prints it with 17 digits).
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_DOC_H
#define BASE_DOC_H

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"
#include "base/err.h"

enum doc_kind { DOC_SCALAR, DOC_MAP, DOC_LIST };

enum { DOC_MAX_DEPTH = 64, DOC_MAX_BYTES = 256 << 20, DOC_MAX_NODES = 1 << 24 };

struct doc {
    enum doc_kind kind;
    const char *file;         /* as given to the reader */
    int line, column;         /* of this node, from 1; 0 if unknown */
    int key_line, key_column; /* of its key when it is a map entry */
    const char *key;          /* its key in the map above; NULL in lists and at the root */
    const char *text;         /* DOC_SCALAR; "" for an empty YAML scalar */
    bool quoted;              /* the scalar stood in quotes (YAML), or is a string (JSON) */
    int n;                    /* children of a map or list */
    struct doc *first, *next; /* children in file order; next sibling */
};

/* All nodes live in `a`. Errors: ST_IO if the file cannot be read, ST_USAGE if it is malformed, no file
 * or not there. */
int doc_read_yaml(struct arena *a, const char *path, struct doc **out, struct err *e);
int doc_parse_yaml(struct arena *a, const char *name, const void *bytes, size_t n, struct doc **out,
                   struct err *e);
int doc_read_json(struct arena *a, const char *path, struct doc **out, struct err *e);
int doc_parse_json(struct arena *a, const char *name, const void *bytes, size_t n, struct doc **out,
                   struct err *e);

/* Child of a map by key, or NULL (also when d is NULL or no map). */
struct doc *doc_get(const struct doc *d, const char *key);

/* "file:line:column" of a node, or "file" where the place is unknown. Returns buf. */
char *doc_place(const struct doc *d, char *buf, size_t n);

/* ST_USAGE with the place of the first byte that is no UTF-8 or a control byte (but tab, line
 * ends). */
int doc_check_text(const char *name, const char *bytes, size_t n, struct err *e);

/* A file for reading; -1 on ST_IO, and on ST_USAGE where there is none. A directory, a device or a named
 * pipe, where nobody may ever write, is refused at once (ST_USAGE); what the shell or the caller has
 * opened for this process (/dev/stdin, /dev/fd/N) is read to its end, and /dev/null is empty. */
int doc_open(const char *path, struct err *e);

/* A whole file as bytes (NUL-terminated, n excludes it) in `a`. Errors: ST_IO; ST_USAGE past `max`, and
 * where there is no file. */
int doc_read_bytes(struct arena *a, const char *path, size_t max, char **bytes, size_t *n,
                   struct err *e);

#endif
