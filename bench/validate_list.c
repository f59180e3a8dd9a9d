/* bench/validate_list.c - which prediction belongs to which measurement.
 * SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/doc.h"
#include "base/utf8.h"
#include "bench/validate.h"
#include "traces/run.h"

enum { MAX_FILE = 4096, MAX_NAME = 200, MAX_NOTE = 2000 };

struct file {
    const char *path, *title;
    const char *whole, *rest; /* what identifies the scenario; the same without the strategy */
};
struct list {
    struct file f[MAX_FILE];
    int n;
};

/* ---- what a scenario is: model, strategy, workload, policy and, where requests are
 * drawn, seed. Hardware, SLO, records and the number of draws change nothing about what is asked. */

static const char *stem(const char *path, struct arena *a)
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    const char *dot = strrchr(base, '.');
    return arena_copy_text(a, base, dot && dot > base ? (size_t)(dot - base) : strlen(base));
}

/* What a table can show in a cell: one line of at most MAX_NAME bytes, no bars. */
static const char *plain(const char *text, struct arena *a)
{
    char *out = arena_copy_text(a, text, strnlen(text, MAX_NAME));
    utf8_tidy(out, '?');
    for (char *c = out; *c; c++)
        if (*c == '|') *c = '?';
    return out;
}

static void put_tree(FILE *f, const struct doc *d, const char *prefix, struct arena *a)
{
    for (const struct doc *x = d ? d->first : NULL; x; x = x->next) {
        const char *key = arena_printf(a, "%s.%s", prefix, x->key ? x->key : "");
        if (x->kind == DOC_SCALAR)
            fprintf(f, "%s=%s\n", key, x->text);
        else
            put_tree(f, x, key, a);
    }
}

/* NULL without a scenario. */
static const char *identity(const struct run_file *r, bool strategy, struct arena *a)
{
    struct doc *root;
    char *text = NULL;
    size_t n = 0;
    if (!r->scenario_yaml || doc_parse_yaml(a, "scenario", r->scenario_yaml,
                                            strlen(r->scenario_yaml), &root, NULL) != ST_OK)
        return NULL;
    FILE *f = open_memstream(&text, &n);
    if (!f) return NULL;
    const struct doc *model = doc_get(root, "model"), *seed = doc_get(doc_get(root, "sim"), "seed");
    if (model && model->kind == DOC_SCALAR) fprintf(f, "model=%s\n", stem(model->text, a));
    if (strategy) put_tree(f, doc_get(root, "strategy"), "strategy", a);
    put_tree(f, doc_get(root, "workload"), "workload", a);
    put_tree(f, doc_get(root, "policy"), "policy", a);
    if (seed && seed->kind == DOC_SCALAR && validate_draws(root))
        fprintf(f, "sim.seed=%s\n", seed->text);
    fclose(f);
    const char *out = arena_copy_text(a, text, n);
    free(text);
    return out;
}

static int add_file(struct list *l, const char *path, struct arena *a, struct err *e)
{
    struct run_file r;
    if (l->n == MAX_FILE) return err_set(e, ST_USAGE, "more than %d run files", MAX_FILE);
    int st = run_open(path, a, &r, e);
    if (st != ST_OK) return st;
    l->f[l->n++] = (struct file){ .path = r.path,
                                  .title = r.title ? r.title : "",
                                  .whole = identity(&r, true, a),
                                  .rest = identity(&r, false, a) };
    run_close(&r);
    return ST_OK;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int add_directory(struct list *l, const char *path, struct arena *a, struct err *e)
{
    const char **name = arena_array(a, MAX_FILE, sizeof *name);
    size_t n = 0;
    DIR *d = opendir(path);
    if (!d) return err_set(e, ST_IO, "cannot read the directory %s", path);
    for (struct dirent *x; (x = readdir(d)) && n < MAX_FILE;) {
        size_t len = strlen(x->d_name);
        if (len > 3 && strcmp(x->d_name + len - 3, ".h5") == 0)
            name[n++] = arena_printf(a, "%s/%s", path, x->d_name);
    }
    closedir(d);
    qsort(name, n, sizeof *name, by_text);
    int st = n ? ST_OK : err_set(e, ST_USAGE, "%s: no run file (*.h5) in it", path);
    for (size_t i = 0; i < n && st == ST_OK; i++) st = add_file(l, name[i], a, e);
    return st;
}

static int add_list(struct list *l, const char *text, struct arena *a, struct err *e)
{
    struct stat info;
    int st = ST_OK;
    for (const char *p = text; *p && st == ST_OK;) {
        size_t n = strcspn(p, ",");
        char *path = arena_copy_text(a, p, n);
        p += n + (p[n] == ',');
        if (n == 0) continue;
        if (stat(path, &info) == 0 && S_ISDIR(info.st_mode))
            st = add_directory(l, path, a, e);
        else
            st = add_file(l, path, a, e);
    }
    return st;
}

/* ---- pairing by scenario */

/* The first line in which two identities differ. */
static const char *difference(const char *x, const char *y, struct arena *a)
{
    while (*x && *y) {
        size_t n = strcspn(x, "\n"), m = strcspn(y, "\n");
        if (n != m || memcmp(x, y, n) != 0)
            return arena_printf(a, "%.*s against %.*s", (int)(n < 120 ? n : 120), x,
                                (int)(m < 120 ? m : 120), y);
        x += n + (x[n] == '\n');
        y += m + (y[m] == '\n');
    }
    return "their options differ";
}

/* The predicted file of a measured one, or -1; -2 with a sentence. */
static int partner(const struct list *p, const struct file *m, struct err *e)
{
    int found = -1, count = 0;
    if (!m->whole) return p->n == 1 ? 0 : -1; /* of another tool: only one can be meant */
    for (int title = 0; title < 2; title++) {
        count = 0;
        for (int i = 0; i < p->n; i++)
            if (p->f[i].whole && strcmp(p->f[i].whole, m->whole) == 0 &&
                (!title || strcmp(p->f[i].title, m->title) == 0)) {
                found = i;
                count++;
            }
        if (count <= 1) break;
    }
    if (count <= 1) return count == 1 ? found : -1;
    err_set(e, ST_USAGE,
            "%s fits several predictions of one scenario and title, %s among them; a manifest can "
            "tell them apart",
            m->path, p->f[found].path);
    return -2;
}

static bool named(const char *calibrated, const char *path, struct arena *a)
{
    for (const char *p = calibrated ? calibrated : ""; *p;) {
        size_t n = strcspn(p, ",");
        if (n && strstr(path, arena_copy_text(a, p, n))) return true;
        p += n + (p[n] == ',');
    }
    return false;
}

/* A word of --calibrated that fits no prediction is a slip, by which a calibrated one would be held out. */
static int check_named(const struct list *p, const char *calibrated, struct arena *a, struct err *e)
{
    for (const char *t = calibrated ? calibrated : ""; *t;) {
        size_t n = strcspn(t, ",");
        const char *word = arena_copy_text(a, t, n);
        bool fits = n == 0;
        for (int i = 0; i < p->n && !fits; i++) fits = strstr(p->f[i].path, word) != NULL;
        if (!fits)
            return err_set(e, ST_USAGE, "--calibrated: no predicted file has '%s' in its name",
                           word);
        t += n + (t[n] == ',');
    }
    return ST_OK;
}

static int add_measured(struct validate_case *c, const char *path, struct arena *a, struct err *e)
{
    if (c->n_measured == VALIDATE_MAX_RUN)
        return err_set(e, ST_USAGE, "%s: more than %d runs of one configuration", path,
                       VALIDATE_MAX_RUN);
    struct validate_run *more = arena_array(a, (size_t)c->n_measured + 1, sizeof *more);
    if (c->n_measured) memcpy(more, c->measured, (size_t)c->n_measured * sizeof *more);
    c->measured = more;
    int st = validate_read(path, a, &more[c->n_measured], e);
    if (st != ST_OK) return st;
    if (c->predicted.measured && more[c->n_measured].simulated)
        return err_set(e, ST_USAGE,
                       "%s was measured and %s simulated: they are the wrong way round",
                       c->predicted.path, path);
    if (more[c->n_measured].simulated)
        return err_set(e, ST_USAGE, "case '%s': %s is no measurement: it was simulated", c->name,
                       path);
    if (c->predicted.measured)
        return err_set(e, ST_USAGE, "case '%s': %s is no prediction: it was measured", c->name,
                       c->predicted.path);
    c->n_measured++;
    return ST_OK;
}

static struct validate_case *add_case(struct validate *v, const char *name, struct err *e)
{
    if (v->n_case == VALIDATE_MAX_CASE) {
        err_set(e, ST_USAGE, "more than %d configurations", VALIDATE_MAX_CASE);
        return NULL;
    }
    if (!v->c) v->c = arena_array(v->arena, VALIDATE_MAX_CASE, sizeof *v->c);
    struct validate_case *c = &v->c[v->n_case++];
    c->name = name;
    c->group = "";
    return c;
}

/* A predicted file with what was measured of it; without, there is no case. */
static int fill_case(struct validate *v, const struct file *p, const struct list *m, const int *of,
                     int k, const char *calibrated, struct err *e)
{
    struct validate_case *c = add_case(v, plain(stem(p->path, v->arena), v->arena), e);
    if (!c) return ST_USAGE;
    c->use = named(calibrated, p->path, v->arena) ? VALIDATE_CALIBRATED : VALIDATE_HELD_OUT;
    c->group = p->rest ? p->rest : "";
    int st = validate_read(p->path, v->arena, &c->predicted, e);
    for (int i = 0; i < m->n && st == ST_OK; i++)
        if (of[i] == k) st = add_measured(c, m->f[i].path, v->arena, e);
    if (st == ST_OK && (c->calibrated = validate_calibrated(c, v->arena)))
        c->use = VALIDATE_CALIBRATED;
    if (st == ST_OK) st = validate_check_files(v, c, e);
    return st == ST_OK ? validate_check_machine(c, v->arena, e) : st;
}

/* Groups get short names; one of a single case is none. */
static void name_groups(struct validate *v)
{
    int n = 0;
    for (int i = 0; i < v->n_case; i++) {
        const char *g = v->c[i].group;
        if (!*g || !strchr(g, '\n')) continue;
        int count = 0;
        for (int j = 0; j < v->n_case; j++) count += strcmp(v->c[j].group, g) == 0;
        const char *name =
            count > 1 ? arena_printf(v->arena, "group %d (%s, ...)", ++n, v->c[i].name) : "";
        for (int j = i; j < v->n_case; j++)
            if (strcmp(v->c[j].group, g) == 0) v->c[j].group = name;
    }
}

static int pair_lists(struct validate *v, const struct list *p, const struct list *m,
                      const char *calibrated, struct err *e)
{
    int *of = arena_array(v->arena, (size_t)m->n + 1, sizeof *of), st = ST_OK, found = 0;
    for (int i = 0; i < m->n; i++) {
        if ((of[i] = partner(p, &m->f[i], e)) == -2) return ST_USAGE;
        found += of[i] >= 0;
    }
    if (!found)
        return err_set(e, ST_USAGE, "no measured run is of a predicted scenario: %s",
                       p->f[0].whole && m->f[0].whole
                           ? difference(p->f[0].whole, m->f[0].whole, v->arena)
                           : "they hold no scenario");
    for (int k = 0; k < p->n && st == ST_OK; k++) {
        int count = 0;
        for (int i = 0; i < m->n; i++) count += of[i] == k;
        if (count)
            st = fill_case(v, &p->f[k], m, of, k, calibrated, e);
        else
            fprintf(stderr, "orrery validate: %s was not measured\n", p->f[k].path);
    }
    for (int i = 0; i < m->n && st == ST_OK; i++) {
        if (of[i] >= 0) continue;
        struct validate_case *c = add_case(v, plain(stem(m->f[i].path, v->arena), v->arena), e);
        if (!c) return ST_USAGE;
        c->refused = "no prediction of this scenario was given";
        st = add_measured(c, m->f[i].path, v->arena, e);
        if (st == ST_OK) st = validate_check_files(v, c, e);
    }
    name_groups(v);
    return st;
}

int validate_find(struct validate *v, const char *predicted, const char *measured,
                  const char *calibrated, struct err *e)
{
    struct list *p = arena_alloc(v->arena, sizeof *p), *m = arena_alloc(v->arena, sizeof *m);
    int st = add_list(p, predicted, v->arena, e);
    if (st == ST_OK) st = add_list(m, measured, v->arena, e);
    if (st == ST_OK && (p->n == 0 || m->n == 0))
        st = err_set(e, ST_USAGE, "%s names no file", p->n == 0 ? "--predicted" : "--measured");
    if (st == ST_OK) st = check_named(p, calibrated, v->arena, e);
    return st == ST_OK ? pair_lists(v, p, m, calibrated, e) : st;
}

/* ---- a manifest */

static int wrong(const struct doc *d, struct err *e, const char *what)
{
    char place[300];
    return err_set(e, ST_USAGE, "%s: %s", doc_place(d, place, sizeof place), what);
}

static const char *beside(const char *manifest, const char *path, struct arena *a)
{
    const char *slash = strrchr(manifest, '/');
    if (*path == '/' || !slash) return path;
    return arena_printf(a, "%.*s/%s", (int)(slash - manifest), manifest, path);
}

static int check_keys(const struct doc *d, const char *const *key, int n, struct err *e)
{
    for (const struct doc *x = d->first; x; x = x->next) {
        bool known = false;
        for (int i = 0; i < n; i++) known = known || strcmp(x->key, key[i]) == 0;
        if (!known) return wrong(x, e, "no such key in a manifest");
    }
    return ST_OK;
}

/* The text of a key, or NULL. */
static const char *text_of(const struct doc *d, const char *key)
{
    const struct doc *x = doc_get(d, key);
    return x && x->kind == DOC_SCALAR ? x->text : NULL;
}

/* The same as a part of a line, and of a table's. */
static const char *line_of(const struct doc *d, const char *key, struct arena *a)
{
    const char *text = text_of(d, key);
    return text ? plain(text, a) : NULL;
}

static int read_files(const struct doc *list, const char *path, struct arena *a,
                      struct validate_case *c, struct err *e)
{
    int st = ST_OK;
    if (!list || list->kind != DOC_LIST || !list->n)
        return wrong(list, e, "takes a list of run files");
    for (const struct doc *x = list->first; x && st == ST_OK; x = x->next)
        st = x->kind == DOC_SCALAR ? add_measured(c, beside(path, x->text, a), a, e)
                                   : wrong(x, e, "is no file name");
    return st;
}

static int read_again(const struct doc *list, const char *path, struct arena *a,
                      struct validate_case *c, struct err *e)
{
    int st = ST_OK;
    if (list->kind != DOC_LIST || list->n < 2 || list->n > VALIDATE_MAX_RUN)
        return wrong(list, e, "again takes a list of predicted files, two at least");
    c->again = arena_array(a, (size_t)list->n, sizeof *c->again);
    for (const struct doc *x = list->first; x && st == ST_OK; x = x->next)
        st = x->kind == DOC_SCALAR
                 ? validate_read(beside(path, x->text, a), a, &c->again[c->n_again++], e)
                 : wrong(x, e, "is no file name");
    return st;
}

/* The case that was just read, beside those before it. */
static int check_case(const struct validate *v, struct validate_case *c, const struct doc *d,
                      struct err *e)
{
    char place[300];
    struct err why = { 0 };
    int st = ST_OK;
    for (const struct validate_case *x = v->c; x < c && st == ST_OK; x++)
        if (strcmp(x->name, c->name) == 0)
            st = err_set(&why, ST_USAGE, "two cases are named '%s': of %s and of %s", c->name,
                         validate_first_file(x), validate_first_file(c));
    if (st == ST_OK) st = validate_check_files(v, c, &why);
    if (st == ST_OK) st = validate_check_scenario(c, v->arena, &why);
    if (st == ST_OK) st = validate_check_machine(c, v->arena, &why);
    if (st == ST_OK) st = validate_check_again(c, v->arena, &why);
    c->calibrated = validate_calibrated(c, v->arena);
    if (st == ST_OK && c->calibrated && c->use == VALIDATE_HELD_OUT)
        st = err_set(&why, ST_USAGE, "case '%s' is not held out: %s; say use: calibrated", c->name,
                     c->calibrated);
    if (st == ST_OK) return ST_OK;
    return err_set(e, st, "%s: %s", doc_place(d, place, sizeof place), why.text);
}

static int read_case(struct validate *v, const struct doc *d, const char *path, struct err *e)
{
    static const char *const keys[] = { "name",     "use",     "group", "predicted",
                                        "measured", "refused", "again" };
    if (d->kind != DOC_MAP) return wrong(d, e, "a case is a map");
    int st = check_keys(d, keys, 7, e);
    const char *name = line_of(d, "name", v->arena), *group = line_of(d, "group", v->arena);
    const char *use = text_of(d, "use"), *predicted = text_of(d, "predicted");
    const char *refused = line_of(d, "refused", v->arena);
    if (st == ST_OK && (!name || !*name)) st = wrong(d, e, "a case needs a name");
    if (st == ST_OK && !predicted == !refused)
        st = wrong(d, e, "a case is either predicted or refused");
    if (st == ST_OK && use && strcmp(use, "held-out") != 0 && strcmp(use, "calibrated") != 0)
        st = wrong(doc_get(d, "use"), e, "use is held-out or calibrated");
    struct validate_case *c = st == ST_OK ? add_case(v, name, e) : NULL;
    if (!c) return ST_USAGE;
    c->group = group ? group : "";
    c->refused = refused;
    c->use = use && strcmp(use, "calibrated") == 0 ? VALIDATE_CALIBRATED : VALIDATE_HELD_OUT;
    if (predicted)
        st = validate_read(beside(path, predicted, v->arena), v->arena, &c->predicted, e);
    const struct doc *m = doc_get(d, "measured");
    if (st == ST_OK && (predicted || m))
        st = m ? read_files(m, path, v->arena, c, e) : wrong(d, e, "measured: is missing");
    const struct doc *again = doc_get(d, "again");
    if (st == ST_OK && again)
        st = predicted ? read_again(again, path, v->arena, c, e)
                       : wrong(again, e, "there is no prediction");
    return st == ST_OK ? check_case(v, c, d, e) : st;
}

static int read_arms(struct validate *v, const struct doc *d, const char *path, struct err *e)
{
    static const char *const key[2] = { "a", "b" };
    for (int i = 0; i < 2; i++) {
        struct validate_case c = { .name = "aa", .refused = "an arm of the A/A check" };
        const struct doc *list = doc_get(d, key[i]);
        if (!list) return wrong(d, e, "aa takes two lists of run files, a and b");
        int st = read_files(list, path, v->arena, &c, e);
        if (st == ST_OK) st = validate_check_machine(&c, v->arena, e);
        if (st != ST_OK) return st;
        validate_pair(&c, v->arena);
        v->arm[i] = c.measured;
        v->n_arm[i] = c.n_measured;
    }
    struct err why = { 0 };
    int st = validate_check_arms(v, &why);
    if (st == ST_OK) st = validate_check_equal(v, &why);
    return st == ST_OK ? ST_OK : wrong(d, e, why.text);
}

static int read_notes(struct validate *v, const struct doc *list, struct err *e)
{
    if (list->kind != DOC_LIST) return wrong(list, e, "notes takes a list of lines");
    v->note = arena_array(v->arena, (size_t)list->n + 1, sizeof *v->note);
    for (const struct doc *x = list->first; x; x = x->next) {
        if (x->kind != DOC_SCALAR) return wrong(x, e, "a note is a line of text");
        char *text = arena_copy_text(v->arena, x->text, strnlen(x->text, MAX_NOTE));
        utf8_tidy(text, '?');
        v->note[v->n_note++] = text;
    }
    return ST_OK;
}

int validate_manifest(struct validate *v, const char *path, struct err *e)
{
    static const char *const keys[] = { "title", "notes", "aa", "cases" };
    struct doc *root;
    int st = doc_read_yaml(v->arena, path, &root, e);
    if (st != ST_OK) return st;
    if (root->kind != DOC_MAP) return wrong(root, e, "a manifest is a map with `cases`");
    st = check_keys(root, keys, 4, e);
    const struct doc *cases = doc_get(root, "cases"), *aa = doc_get(root, "aa");
    const struct doc *notes = doc_get(root, "notes");
    v->title = line_of(root, "title", v->arena);
    if (st == ST_OK && notes) st = read_notes(v, notes, e);
    if (st == ST_OK && (!cases || cases->kind != DOC_LIST || !cases->n))
        st = wrong(root, e, "cases: is missing, or no list");
    for (const struct doc *x = cases ? cases->first : NULL; x && st == ST_OK; x = x->next)
        st = read_case(v, x, path, e);
    if (st == ST_OK && aa) st = read_arms(v, aa, path, e);
    return st;
}
