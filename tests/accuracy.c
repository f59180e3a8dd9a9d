/* tests/accuracy.c - prints the accuracy report: summary, sections, and the files behind them.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/accuracy.h"

#include <dirent.h>
#include <gsl/gsl_errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/paths.h"
#include "base/prov.h"

enum { MAX_LINES = 512, MAX_SEEN = 512, MAX_FOUND = 512 };

struct acc_line {
    const char *file, *what, *sample;
    struct acc_sum s;
    size_t n;
    bool modelled;
};

struct acc_seen {
    const char *name, *twin; /* twin: an earlier file with the same bytes */
    char sha[65];
};

void acc_say(struct acc *w, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vfprintf(w->body, fmt, ap);
    va_end(ap);
}

const char *acc_file(struct acc *w, const char *relative)
{
    struct err e = { 0 };
    const char *path = arena_printf(&w->a, "%s/%s", w->data, relative);
    for (int i = 0; i < w->n_seen; i++)
        if (strcmp(w->seen[i].name, relative) == 0) return path;
    struct acc_seen *s = w->seen + w->n_seen;
    if (access(path, R_OK) != 0 || prov_sha256_file(path, s->sha, &e) != ST_OK) {
        for (int i = 0; i < w->n_line; i++)
            if (strcmp(w->line[i].file, relative) == 0) return NULL;
        acc_say(w, "\n* data not found: %s\n", relative);
        acc_summary(w, relative, "-", NULL, 0, "data not found");
        return NULL;
    }
    if (w->n_seen + 1 >= MAX_SEEN) abort();
    s->name = arena_copy_text(&w->a, relative, strlen(relative));
    for (int i = 0; i < w->n_seen; i++)
        if (strcmp(w->seen[i].sha, s->sha) == 0) s->twin = w->seen[i].name;
    w->n_seen++;
    return path;
}

bool acc_open(struct acc *w, const char *relative, struct acc_csv *t)
{
    struct err e = { 0 };
    *t = (struct acc_csv){ .n_col = 0 };
    const char *path = acc_file(w, relative);
    if (!path) return false;
    if (acc_csv_read(path, t, &e) == ST_OK) return true;
    acc_say(w, "\n* not read: %s\n", e.text);
    acc_summary(w, relative, "-", NULL, 0, "not readable");
    acc_csv_release(t);
    return false;
}

void acc_summary(struct acc *w, const char *file, const char *what, const struct acc_sum *s,
                 size_t n, const char *sample)
{
    if (w->n_line >= MAX_LINES) abort();
    struct acc_line *l = w->line + w->n_line++;
    l->file = arena_copy_text(&w->a, file, strlen(file));
    l->what = arena_copy_text(&w->a, what, strlen(what));
    l->sample = arena_copy_text(&w->a, sample, strlen(sample));
    l->modelled = s != NULL;
    l->n = s ? s->n : n;
    if (s) l->s = *s;
}

static void cell(FILE *f, bool sign, double ratio)
{
    if (isnan(ratio))
        fputs(" - |", f);
    else if (sign)
        fprintf(f, " %+.1f |", 100 * ratio);
    else
        fprintf(f, " %.1f |", 100 * ratio);
}

static void sums(FILE *f, const struct acc_sum *s)
{
    cell(f, false, s->mape);
    cell(f, false, s->median);
    cell(f, false, s->p90);
    cell(f, true, s->bias);
    cell(f, true, s->middle);
}

void acc_table(struct acc *w, const struct acc_groups *v, const char *head,
               const char *const bins[ACC_BINS])
{
    acc_say(w, "\n| %s | n | MAPE %% | median %% | p90 %% | bias %% | median bias %% |", head);
    for (int b = 0; bins && b < ACC_BINS; b++) acc_say(w, " %s |", bins[b]);
    acc_say(w, " in-sample |\n|---|---:|---:|---:|---:|---:|---:|");
    for (int b = 0; bins && b < ACC_BINS; b++) acc_say(w, "---:|");
    acc_say(w, "---|\n");
    for (int i = 0; i < v->n; i++) {
        const struct acc_group *g = v->g + i;
        struct acc_sum s = acc_err_sum(&g->all);
        acc_say(w, "| %s | %zu |", g->key, s.n);
        sums(w->body, &s);
        for (int b = 0; bins && b < ACC_BINS; b++) {
            struct acc_sum t = acc_err_sum(g->bin + b);
            cell(w->body, true, t.middle);
        }
        acc_say(w, " %s |\n", g->sample);
    }
}

static void summarise_part(struct acc *w, const struct acc_groups *v, int first, const char *file,
                           const char *what)
{
    struct acc_err all = { NULL, 0, 0 };
    const char *sample = "", *part = v->g[first].part;
    for (int i = first; i < v->n; i++) {
        const struct acc_group *g = v->g + i;
        if (g->odd || strcmp(g->part, part) != 0) continue;
        acc_err_join(&all, &g->all);
        bool mixed = *sample && strcmp(sample, g->sample) != 0;
        bool yes = strncmp(sample, "yes", 3) == 0 || strncmp(g->sample, "yes", 3) == 0;
        sample = !mixed ? g->sample : yes || strcmp(sample, "in part") == 0 ? "in part" : "no";
    }
    struct acc_sum s = acc_err_sum(&all);
    const char *text = arena_printf(&w->a, "%s%s%s", what, *part ? ", " : "", part);
    if (s.n) acc_summary(w, file, text, &s, 0, sample);
    acc_err_release(&all);
}

void acc_groups_summary(struct acc *w, const struct acc_groups *v, int first, const char *file,
                        const char *what)
{
    size_t odd = 0;
    for (int i = first; i < v->n; i++) {
        bool seen = v->g[i].odd;
        if (v->g[i].odd) odd += v->g[i].all.n;
        for (int k = first; k < i; k++)
            seen |= !v->g[k].odd && strcmp(v->g[k].part, v->g[i].part) == 0;
        if (!seen) summarise_part(w, v, i, file, what);
    }
    if (odd)
        acc_summary(w, file, what, NULL, odd, "not scored: faster than the hardware's peak rates");
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void walk(struct acc *w, const char *dir, const char *suffix, const char **out, int *n)
{
    DIR *d = opendir(arena_printf(&w->a, "%s/%s", w->data, dir));
    for (struct dirent *x; d && (x = readdir(d));) {
        if (x->d_name[0] == '.') continue;
        const char *name = arena_printf(&w->a, "%s/%s", dir, x->d_name);
        size_t len = strlen(name), end = strlen(suffix);
        struct stat st;
        if (stat(arena_printf(&w->a, "%s/%s", w->data, name), &st) != 0) continue;
        if (S_ISDIR(st.st_mode))
            walk(w, name, suffix, out, n);
        else if (len >= end && strcmp(name + len - end, suffix) == 0 && *n < MAX_FOUND)
            out[(*n)++] = name;
    }
    if (d) closedir(d);
}

int acc_find(struct acc *w, const char *relative, const char *suffix, const char ***out)
{
    int n = 0;
    *out = arena_array(&w->a, MAX_FOUND, sizeof **out);
    walk(w, relative, suffix, *out, &n);
    qsort(*out, (size_t)n, sizeof **out, by_name);
    if (n == 0) {
        acc_say(w, "\n* data not found: %s\n", relative);
        acc_summary(w, relative, "-", NULL, 0, "data not found");
    }
    return n;
}

static void print_head(const struct acc *w)
{
    printf("# Accuracy: predictions against published measurements\n\n"
           "Command: `make accuracy` (data folder from `ORRERY_DATA`). Revision: %s.\n\n"
           "Errors are predicted / measured - 1. *median* and *p90* are of its size, *bias* is its "
           "signed mean: negative is too fast. In-sample: yes = these constants were fitted to "
           "this very table; otherwise why not. No constant was tuned on any other row; what "
           "is not modelled is listed with its number of rows. All data are other people's "
           "measurements; the last section names each file and its sha256.\n\n",
           prov_revision());
    if (access(w->data, R_OK) != 0) {
        printf("data not found: set ORRERY_DATA to the folder of measurements.\n");
        return;
    }
    printf("## Summary\n\n| file | what | n | median %% | bias %% | in-sample |\n"
           "|---|---|---:|---:|---:|---|\n");
    for (int i = 0; i < w->n_line; i++) {
        const struct acc_line *l = w->line + i;
        printf("| %s | %s | %zu |", l->file, l->what, l->n);
        if (l->modelled) {
            cell(stdout, false, l->s.median);
            cell(stdout, true, l->s.bias);
            printf(" %s |\n", l->sample);
        } else {
            printf(" - | - | %s |\n", l->sample);
        }
    }
}

static void print_files(const struct acc *w)
{
    printf("\n## Files\n\n| file | sha256 | |\n|---|---|---|\n");
    for (int i = 0; i < w->n_seen; i++) {
        const struct acc_seen *s = w->seen + i;
        printf("| %s | %s | %s%s |\n", s->name, s->sha, s->twin ? "same bytes as " : "",
               s->twin ? s->twin : "");
    }
}

const char *acc_scratch(struct acc *w)
{
    if (!*w->scratch) {
        snprintf(w->scratch, sizeof w->scratch, "/tmp/orrery-accuracy-XXXXXX");
        if (!mkdtemp(w->scratch)) abort();
    }
    return w->scratch;
}

static void remove_scratch(struct acc *w)
{
    if (!*w->scratch) return;
    DIR *d = opendir(w->scratch);
    for (struct dirent *x; d && (x = readdir(d));)
        if (x->d_name[0] != '.') unlink(arena_printf(&w->a, "%s/%s", w->scratch, x->d_name));
    if (d) closedir(d);
    rmdir(w->scratch);
}

static const struct {
    const char *name;
    void (*run)(struct acc *);
} sections[] = {
    { "kernels", acc_kernels },   { "serving", acc_serving_kernels },
    { "vidur", acc_vidur },       { "collectives", acc_collectives },
    { "steps", acc_steps },       { "end_to_end", acc_end_to_end },
    { "runs", acc_serving_runs }, { "hardware", acc_hardware },
};

/* Arguments: the sections to run, all if none is named. */
int main(int argc, char **argv)
{
    gsl_set_error_handler_off();
    struct acc w = { .data = paths_data() };
    char *text = NULL;
    size_t size = 0;
    arena_init(&w.a);
    w.line = arena_array(&w.a, MAX_LINES, sizeof *w.line);
    w.seen = arena_array(&w.a, MAX_SEEN, sizeof *w.seen);
    w.body = open_memstream(&text, &size);
    if (!w.body) abort();
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) {
        bool wanted = argc < 2;
        for (int k = 1; k < argc; k++) wanted |= strcmp(argv[k], sections[i].name) == 0;
        if (wanted && access(w.data, R_OK) == 0) sections[i].run(&w);
    }
    fclose(w.body);
    remove_scratch(&w);
    print_head(&w);
    fwrite(text, 1, size, stdout);
    if (w.n_seen > 0) print_files(&w);
    free(text);
    arena_release(&w.a);
    return ferror(stdout) || fflush(stdout) != 0;
}
