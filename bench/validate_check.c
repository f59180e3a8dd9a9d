/* bench/validate_check.c - what cannot be compared: one run in two places, a prediction of another
 * scenario than was measured. SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/doc.h"
#include "base/prov.h"
#include "bench/validate.h"
#include "traces/import.h"

/* ---- one run in two places */

static const char *const use_word[VALIDATE_N_USE] = { "held out", "calibrated" };

/* One file by any path, or a copy of it. NULL: two runs. */
static const char *same(const struct validate_run *x, const struct validate_run *y)
{
    if (!x->path || !y->path) return NULL;
    if (x->inode && x->inode == y->inode && x->device == y->device) return "one file";
    return *x->run_id && strcmp(x->run_id, y->run_id) == 0 ? "copies of one run" : NULL;
}

/* Case c and an earlier one, each with its use. */
static int both(const struct validate_case *c, const struct validate_case *d, const char *share,
                const struct validate_run *x, const struct validate_run *y, struct err *e)
{
    if (c->use == d->use || c->refused || d->refused)
        return err_set(e, ST_USAGE, "case '%s' and case '%s' share %s: %s and %s are %s", d->name,
                       c->name, share, y->path, x->path, same(x, y));
    return err_set(e, ST_USAGE, "case '%s' (%s) and case '%s' (%s) share %s: %s and %s are %s",
                   d->name, use_word[d->use], c->name, use_word[c->use], share, y->path, x->path,
                   same(x, y));
}

/* Runs of c among those of d; of itself, each once. */
static int shared(const struct validate_case *c, const struct validate_case *d, struct err *e)
{
    for (int i = 0; i < c->n_measured; i++)
        for (int k = 0; k < (c == d ? i : d->n_measured); k++) {
            const struct validate_run *x = &c->measured[i], *y = &d->measured[k];
            if (!same(x, y)) continue;
            if (c != d) return both(c, d, "a measured run", x, y, e);
            return err_set(e, ST_USAGE, "case '%s' has a measured run twice: %s and %s are %s",
                           c->name, y->path, x->path, same(x, y));
        }
    return ST_OK;
}

/* The prediction of c among what was measured in d. */
static int self(const struct validate_case *c, const struct validate_case *d, struct err *e)
{
    for (int i = 0; i < d->n_measured; i++) {
        const struct validate_run *x = &c->predicted, *y = &d->measured[i];
        if (!same(x, y)) continue;
        return err_set(e, ST_USAGE,
                       "case '%s': %s, its prediction, and %s, measured in case '%s', are %s",
                       c->name, x->path, y->path, d->name, same(x, y));
    }
    return ST_OK;
}

int validate_check_files(const struct validate *v, const struct validate_case *c, struct err *e)
{
    int st = ST_OK;
    for (const struct validate_case *d = v->c; d <= c && st == ST_OK; d++) {
        st = shared(c, d, e);
        if (st == ST_OK) st = self(c, d, e);
        if (st == ST_OK && c != d) st = self(d, c, e);
        if (st == ST_OK && c->use != d->use && same(&c->predicted, &d->predicted))
            st = both(c, d, "a prediction", &c->predicted, &d->predicted, e);
    }
    return st;
}

int validate_check_arms(const struct validate *v, struct err *e)
{
    for (int i = 0; i < v->n_arm[0]; i++)
        for (int k = 0; k < v->n_arm[1]; k++) {
            const struct validate_run *x = &v->arm[0][i], *y = &v->arm[1][k];
            if (same(x, y))
                return err_set(e, ST_USAGE, "both arms of aa hold one run: %s and %s are %s",
                               x->path, y->path, same(x, y));
            if (strcmp(x->machine.cpu, y->machine.cpu) != 0 ||
                strcmp(x->machine.host, y->machine.host) != 0)
                return err_set(e, ST_USAGE,
                               "the arms of aa are of two machines: %s of %s on host %s, %s of %s "
                               "on host %s",
                               x->path, x->machine.cpu, x->machine.host, y->path, y->machine.cpu,
                               y->machine.host);
        }
    return ST_OK;
}

/* ---- what the prediction was made of */

/* The line of r in `runs` (model/profile_file.h); NULL: it is none of them. */
static const char *line_of(const struct validate_run *r, const char *runs)
{
    char sha[65] = "";
    const char *id = r->run_id;
    if (!*runs) return NULL;
    if (!*id && prov_sha256_file(r->path, sha, NULL) == ST_OK) id = sha;
    size_t n = strlen(id);
    for (const char *p = runs; n && *p; p += strcspn(p, "\n"), p += *p == '\n')
        if (strncmp(p, id, n) == 0 && p[n] == ' ') return p + n + 1;
    return NULL;
}

const char *validate_calibrated(const struct validate_case *c, struct arena *a)
{
    for (int i = 0; i < c->n_measured && c->predicted.path; i++) {
        const char *how = line_of(&c->measured[i], c->predicted.calibrated_by);
        if (how)
            return arena_printf(a, "%s calibrated the profile that %s was predicted with%s",
                                c->measured[i].path, c->predicted.path,
                                strncmp(how, "host", 4) == 0 ? " (for host times)" : "");
    }
    return NULL;
}

const char *validate_first_file(const struct validate_case *c)
{
    return c->predicted.path ? c->predicted.path : c->n_measured ? c->measured->path : "no file";
}

/* ---- scenarios */

/* The file's name without directories and ending; of a config.json the directory that it is in. */
static const char *stem(const char *path, struct arena *a)
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    if (slash > path && strcmp(base, "config.json") == 0)
        return stem(arena_copy_text(a, path, (size_t)(slash - path)), a);
    const char *dot = strrchr(base, '.');
    return arena_copy_text(a, base, dot && dot > base ? (size_t)(dot - base) : strlen(base));
}

static bool is_path(const char *key)
{
    return strcmp(key, "model") == 0 || strcmp(key, "trace") == 0 || strcmp(key, "file") == 0;
}

static bool equal(const struct doc *x, const struct doc *y, struct arena *a)
{
    if (strcmp(x->text, y->text) == 0) return true;
    if (is_path(x->key)) return strcmp(stem(x->text, a), stem(y->text, a)) == 0;
    bool open = strcmp(x->text, "auto") == 0 || strcmp(y->text, "auto") == 0;
    return open && strcmp(x->key, "split") == 0; /* what became of it is not told */
}

/* "workload.rate=6/s against workload.rate=8/s"; NULL where all that both say is equal. A key that only one
 * has, of another version, says nothing. */
static const char *difference(const struct doc *x, const struct doc *y, const char *path,
                              struct arena *a)
{
    if (!x || !y || !x->key) return NULL;
    path = *path ? arena_printf(a, "%s.%s", path, x->key) : x->key;
    if (x->kind == DOC_SCALAR && y->kind == DOC_SCALAR && !equal(x, y, a))
        return arena_printf(a, "%s=%s against %s=%s", path, x->text, path, y->text);
    if (x->kind != DOC_MAP || y->kind != DOC_MAP) return NULL;
    for (const struct doc *k = x->first; k; k = k->next) {
        const char *d = difference(k, doc_get(y, k->key), path, a);
        if (d) return d;
    }
    return NULL;
}

static const struct doc *scenario_of(const struct validate_run *r, struct arena *a)
{
    struct doc *root;
    const char *yaml = r->scenario_yaml;
    if (!yaml || doc_parse_yaml(a, r->path, yaml, strlen(yaml), &root, NULL) != ST_OK) return NULL;
    return root;
}

bool validate_draws(const struct doc *scenario)
{
    const struct doc *t = doc_get(doc_get(scenario, "workload"), "trace");
    return !t || t->kind != DOC_SCALAR || strcmp(t->text, "-") == 0;
}

/* Which part of the scenarios differs, and how; NULL: none, or not known of a run of another tool. */
static const char *unlike(const struct validate_run *x, const struct validate_run *y,
                          const char **part, struct arena *a)
{
    static const char *const key[] = { "model", "strategy", "workload", "policy" };
    static const char *const word[] = { "model", "strategy", "load", "policy" };
    const struct doc *p = scenario_of(x, a), *m = scenario_of(y, a);
    for (int i = 0; i < 4; i++) {
        const char *d = difference(doc_get(p, key[i]), doc_get(m, key[i]), "", a);
        *part = word[i];
        if (d) return d;
    }
    *part = "draw of requests";
    if (!validate_draws(p) && !validate_draws(m)) return NULL;
    return difference(doc_get(doc_get(p, "sim"), "seed"), doc_get(doc_get(m, "sim"), "seed"), "sim",
                      a);
}

int validate_check_equal(const struct validate *v, struct err *e)
{
    const char *part = "", *d;
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < v->n_arm[i]; k++)
            if ((d = unlike(&v->arm[0][0], &v->arm[i][k], &part, v->arena)))
                return err_set(e, ST_USAGE,
                               "aa takes equal runs: %s and %s measured another %s: %s",
                               v->arm[0][0].path, v->arm[i][k].path, part, d);
    return ST_OK;
}

int validate_check_scenario(const struct validate_case *c, struct arena *a, struct err *e)
{
    const char *part = "", *d;
    for (int i = 0; i < c->n_measured; i++) {
        const struct validate_run *m = &c->measured[i];
        if (c->predicted.path && (d = unlike(&c->predicted, m, &part, a)))
            return err_set(e, ST_USAGE, "case '%s': %s predicts another %s than %s measured: %s",
                           c->name, c->predicted.path, part, m->path, d);
        if (!c->predicted.path && (d = unlike(c->measured, m, &part, a)))
            return err_set(e, ST_USAGE, "case '%s': %s and %s measured another %s: %s", c->name,
                           c->measured->path, m->path, part, d);
    }
    return ST_OK;
}

/* ---- machines */

/* "Xeon 8481C (host 0123)", with "GPU, " in front. */
static const char *machine_words(const struct validate_machine *m, struct arena *a)
{
    return arena_printf(a, "%s%s%s%s%s%s", m->gpu, *m->gpu ? ", " : "", m->cpu,
                        *m->host ? " (host " : "", m->host, *m->host ? ")" : "");
}

/* How two machines differ. */
enum alike { ALIKE, OTHER_HOST, OTHER_KIND, UNKNOWN };

static enum alike alike(const struct validate_machine *x, const struct validate_machine *y)
{
    if (!*x->cpu || !*y->cpu) return UNKNOWN;
    if (strcmp(x->cpu, y->cpu) != 0 || !*x->gpu != !*y->gpu) return OTHER_KIND;
    return *x->host && *y->host && strcmp(x->host, y->host) != 0 ? OTHER_HOST : ALIKE;
}

/* What cannot be compared, in words. */
static const char *unknown(const struct validate_run *p, const struct validate_run *m,
                           struct arena *a)
{
    if (*m->machine.tool)
        return arena_printf(a, "not compared: %s is a run of %s, which does not name its machine",
                            m->path, m->machine.tool);
    if (!*p->machine.cpu)
        return "not compared: no measured profile that names its machine stands behind the "
               "prediction";
    return arena_printf(a, "not compared: %s does not name its machine", m->path);
}

int validate_check_machine(struct validate_case *c, struct arena *a, struct err *e)
{
    bool predicted = c->predicted.path != NULL;
    const struct validate_run *p = predicted ? &c->predicted : c->measured;
    for (int i = 0; i < c->n_measured; i++) {
        const struct validate_run *m = &c->measured[i], *first = c->measured;
        enum alike how = alike(&p->machine, &m->machine),
                   among = alike(&first->machine, &m->machine);
        if (how == OTHER_KIND && predicted)
            return err_set(e, ST_USAGE,
                           "case '%s': %s was predicted with a profile of %s, %s was measured on "
                           "%s: errors are of one machine",
                           c->name, p->path, machine_words(&p->machine, a), m->path,
                           machine_words(&m->machine, a));
        if (among == OTHER_KIND)
            return err_set(e, ST_USAGE,
                           "case '%s': %s was measured on %s, %s on %s: a configuration is of one "
                           "machine",
                           c->name, first->path, machine_words(&first->machine, a), m->path,
                           machine_words(&m->machine, a));
        const char *d = import_differ(first->machine.model, first->machine.date, m->machine.model,
                                      m->machine.date, a);
        if (d && !c->sources)
            c->sources = arena_printf(a, "%s and %s are of %s", first->path, m->path, d);
        if (c->machine) continue;
        if (how == UNKNOWN && predicted) c->machine = unknown(p, m, a);
        if (how == OTHER_HOST || among == OTHER_HOST)
            c->machine =
                arena_printf(a, "ANOTHER HOST of the same kind: %s is of %s, %s of %s",
                             how == OTHER_HOST ? p->path : first->path,
                             machine_words(how == OTHER_HOST ? &p->machine : &first->machine, a),
                             m->path, machine_words(&m->machine, a));
    }
    return ST_OK;
}

/* ---- the prediction again */

int validate_check_again(const struct validate_case *c, struct arena *a, struct err *e)
{
    const struct validate_run *p = &c->predicted;
    const char *part = "", *d, *one = NULL;
    for (int i = 0; i < c->n_again; i++) {
        const struct validate_run *x = &c->again[i], *twin = NULL;
        for (int k = -1; k < i && !twin; k++) {
            const struct validate_run *y = k < 0 ? p : &c->again[k];
            if ((one = same(x, y))) twin = y;
        }
        if (twin)
            return err_set(e, ST_USAGE, "case '%s', again: %s and %s are %s", c->name, twin->path,
                           x->path, one);
        if (x->measured)
            return err_set(e, ST_USAGE, "case '%s', again: %s is no prediction: it was measured",
                           c->name, x->path);
        if ((d = unlike(p, x, &part, a)))
            return err_set(e, ST_USAGE, "case '%s', again: %s predicts another %s than %s: %s",
                           c->name, x->path, part, p->path, d);
        if (alike(&p->machine, &x->machine) != ALIKE)
            return err_set(e, ST_USAGE,
                           "case '%s', again: %s was not predicted with a profile that was "
                           "measured on the machine of %s",
                           c->name, x->path, p->path);
    }
    return ST_OK;
}
