/* tests/import_env.h - what the tests of imports share: a file read in memory, and its figures.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_IMPORT_ENV_H
#define TESTS_IMPORT_ENV_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/arena.h"
#include "tests/test.h"
#include "traces/import_figures.h"

/* One file, read. */
struct seen {
    struct arena a;
    struct import_file f;
    struct figures g; /* of run 0, if it has requests */
    struct err e;
    int st;
};

static inline struct seen *look(const char *path, int64_t ttft_ms, int64_t tpot_ms)
{
    struct seen *s = calloc(1, sizeof *s);
    struct figures_slo slo = { ttft_ms * 1000000, tpot_ms * 1000000, 0, 0 };
    if (!s) abort();
    arena_init(&s->a);
    s->st = import_read(path, IMPORT_AUTO, NULL, &s->a, &s->f, &s->e);
    CHECK((s->st == ST_OK) == (s->e.text[0] == 0) && !strchr(s->e.text, '\n'));
    if (s->st == ST_OK && s->f.n_run > 0 && s->f.run[0].n_request > 0)
        figures_of(&s->f.run[0], s->f.tool, &slo, &s->a, &s->g);
    return s;
}

static inline void done(struct seen *s)
{
    arena_release(&s->a);
    free(s);
}

static inline double row(const struct seen *s, const char *tool, const char *key)
{
    for (int i = 0; i < s->g.n_row; i++)
        if (strcmp(s->g.row[i].tool, tool) == 0 && strcmp(s->g.row[i].key, key) == 0)
            return s->g.row[i].value;
    printf("    no row %s %s\n", tool, key);
    return NAN;
}

static inline double stated(const struct seen *s, const char *name)
{
    const struct import_run *r = &s->f.run[0];
    for (int i = 0; i < r->n_figure; i++)
        if (strcmp(r->figure[i].name, name) == 0) return r->figure[i].value;
    printf("    no figure %s\n", name);
    return NAN;
}

#endif
