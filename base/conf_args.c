/* base/conf_args.c - a command line as files and options of a set.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/conf.h"

static int add_option(struct conf_set *s, const char *arg, const char *next, struct conf_args *out,
                      struct err *e)
{
    const char *equal = strchr(arg, '=');
    size_t n = equal ? (size_t)(equal - arg) - 2 : strlen(arg) - 2;
    struct conf_option *o = &out->option[out->n_option++];
    char *key = arena_copy_text(s->arena, arg + 2, n);
    for (char *p = key; *p; p++)
        if (*p == '-') *p = '_';
    *o = (struct conf_option){ .key = key, .text = equal ? equal + 1 : "yes" };
    o->where = arena_printf(s->arena, "--%.*s", (int)n, arg + 2);
    if (equal) return 0;
    const struct conf_row *row = conf_find(s, key, NULL);
    if (!row) row = conf_find(s, arena_printf(s->arena, "%s.name", key), NULL);
    if (!row && next && *next != '-') { /* its value, which would be taken for a file */
        struct err why = { 0 };
        conf_set_text(s, key, next, o->where, &why);
        if (strstr(why.text, "did you mean")) return err_set(e, ST_USAGE, "%s", why.text), -1;
    }
    if (!row || row->type == CONF_BOOL) return 0;
    if (!next) return err_set(e, ST_USAGE, "%s needs a value, as %s=...", o->where, o->where), -1;
    o->text = next;
    return 1;
}

int conf_args(struct conf_set *s, int argc, char *const *argv, struct conf_args *out, struct err *e)
{
    memset(out, 0, sizeof *out);
    out->option = arena_array(s->arena, (size_t)argc + 1, sizeof *out->option);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            out->help = true;
        } else if (strncmp(argv[i], "--", 2) == 0 && argv[i][2]) {
            int used = add_option(s, argv[i], i + 1 < argc ? argv[i + 1] : NULL, out, e);
            if (used < 0) return ST_USAGE;
            i += used;
        } else if (argv[i][0] == '-' && argv[i][1]) {
            return err_set(e, ST_USAGE, "'%s' is no option; they begin with --", argv[i]);
        } else if (out->n_file == CONF_MAX_FILES) {
            return err_set(e, ST_USAGE, "more than %d files", CONF_MAX_FILES);
        } else {
            out->file[out->n_file++] = argv[i];
        }
    }
    return ST_OK;
}

int conf_apply_args(struct conf_set *s, const struct conf_args *a, struct err *e)
{
    for (int i = 0; i < a->n_option; i++) {
        int st = conf_set_text(s, a->option[i].key, a->option[i].text, a->option[i].where, e);
        if (st != ST_OK) return st;
    }
    return ST_OK;
}
