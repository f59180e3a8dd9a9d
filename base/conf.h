/* base/conf.h - options as rows of a table: CLI, scenario file, --help, range checks and the echo.
 *
 * One row describes one option: dotted key, type, where it lives in the caller's struct, default as
 * text, limits, allowed words, help. From the same rows come the YAML reader, --key=value, --help
 * and the effective configuration stored with every result, so that they cannot drift apart.
 *
 *     struct serve { int policy; double rate_per_s; int64_t ttft_ns; };
 *     static const struct conf_row rows[] = {
 *         { "policy.name",   CONF_WORD, offsetof(struct serve, policy), "vllm", "static orca vllm",
 *           0, 0, "scheduler" },
 *         { "workload.rate", CONF_RATE, offsetof(struct serve, rate_per_s), "4/s", NULL, 1e-9, 1e9,
 *           "mean arrivals" },
 *         { .type = CONF_END } };
 *
 * Several tables (one per room) are joined in a conf_set, each with its own struct.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_CONF_H
#define BASE_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/arena.h"
#include "base/doc.h"
#include "base/err.h"

enum conf_type { /* type of the struct member */
                 CONF_END,
                 CONF_BOOL,        /* bool: true false yes no on off */
                 CONF_INT,         /* int64_t, UNIT_COUNT */
                 CONF_TOKENS,      /* int64_t, UNIT_TOKENS; a bare integer is refused */
                 CONF_NUMBER,      /* double, pure number */
                 CONF_TIME,        /* int64_t ns */
                 CONF_RATE,        /* double, per second */
                 CONF_BYTES,       /* double, bytes */
                 CONF_BYTES_PER_S, /* double */
                 CONF_FLOP_PER_S,  /* double */
                 CONF_WATT,        /* double */
                 CONF_USD,         /* double */
                 CONF_USD_PER_H,   /* double */
                 CONF_WORD,        /* int: index into `allow`, words separated by one blank */
                 CONF_TEXT /* const char *, in the arena; NULL when unset and the default is NULL */
};

struct conf_row {
    const char *key; /* "strategy.tp"; what stands before the last dot is its YAML map */
    enum conf_type type;
    size_t at;         /* offset of the member */
    const char *dflt;  /* default as text; NULL: zero (NULL text), shown as "-" */
    const char *allow; /* words of CONF_WORD */
    double lo, hi;     /* inclusive limits in base units (s for time); both 0: no limits */
    const char *help;  /* one line, lower case, no full stop */
};

enum { CONF_MAX_TABLES = 12 };
struct conf_table {
    const struct conf_row *rows;
    void *base;
    const char *title;
};
struct conf_set {
    struct conf_table table[CONF_MAX_TABLES];
    int n_table;
    struct arena *arena;  /* texts live here */
    unsigned char *given; /* per row over all tables: 0 default, 1 file, 2 command line */
    int n_row;
};

/* Joins tables; keys must be unique over all (asserted). Sets every member to its default. */
void conf_init(struct conf_set *s, struct arena *a);
void conf_add(struct conf_set *s, const struct conf_row *rows, void *base, const char *title);

/* Applies a YAML map. `skip` lists top-level keys, separated by blanks, that belong to somebody
 * else (NULL for none). Where a key is a group ("policy") and the file gives a scalar, the scalar
 * goes to "<group>.name" if there is such a row: `policy: vllm` is `policy: {name: vllm}`.
 * Errors ST_USAGE, one sentence in the form
 *     x.yaml:11:9: policy.name: 'sarathy' is none of static, orca, sarathi; did you mean 'sarathi'?
 *     x.yaml:12:3: policy: no key 'chnk', only name, kv, chunk; did you mean 'chunk'?
 * The nearest match is at most two edits away, else it is not offered. */
int conf_apply(struct conf_set *s, const struct doc *map, const char *skip, struct err *e);

/* Sets one option from text, as `--key=value` does; "policy" finds "policy.name" as in a file. "-"
 * means unset for a row whose default is NULL. where: prefix of an error ("--policy.name"), as in
 *     --polcy.name: no key 'polcy.name'; did you mean 'policy.name'?
 * Where no key is near as a whole, one whose last word is: --workload.sed is sim.seed. */
int conf_set_text(struct conf_set *s, const char *key, const char *text, const char *where,
                  struct err *e);

/* The row of a key, or NULL; *table gets its table when not NULL. */
const struct conf_row *conf_find(const struct conf_set *s, const char *key,
                                 struct conf_table **table);
bool conf_given(const struct conf_set *s, const char *key); /* by file or command line */
bool conf_typed(const struct conf_set *s,
                const char *key); /* by the command line; false: no such key */

/* Present value as text that conf_set_text reads back to the same value; "-" for an unset row whose
 * default is NULL. Returns buf. */
char *conf_text(const struct conf_set *s, const char *key, char *buf, size_t n);

/* The whole set as YAML (nested maps, in row order), defaults included: the effective scenario. */
void conf_echo_yaml(const struct conf_set *s, FILE *f);
/* Options grouped by table title, with type, default, allowed words and help; 100 columns. */
void conf_help(const struct conf_set *s, FILE *f);

/* A command line taken apart: files, and options in order. A switch (CONF_BOOL) stands alone and
 * means "yes"; another option takes its value after '=' or as the next argument. '-' in a key is
 * read as '_'. -h is --help; keys that are no row of the set need '='. Errors ST_USAGE. Texts live
 * in the set's arena. */
enum { CONF_MAX_FILES = 64 };
struct conf_args {
    const char *file[CONF_MAX_FILES];
    int n_file, n_option;
    struct conf_option {
        const char *key, *text, *where;
    } * option; /* where: "--key" as typed */
    bool help;
};
int conf_args(struct conf_set *s, int argc, char *const *argv, struct conf_args *out,
              struct err *e);
/* Applies the options, in order. */
int conf_apply_args(struct conf_set *s, const struct conf_args *a, struct err *e);

/* Nearest of `words` (blank-separated) within two edits of `text`, or NULL; result in buf. */
const char *conf_nearest(const char *text, const char *words, char *buf, size_t n);

#endif
