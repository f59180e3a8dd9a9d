/* bench/calibrate_files.c - what the files of a calibration say beside each other: busy machines,
 * imported ones of other models or times, names of models. SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "bench/calibrate.h"
#include "traces/import.h"

/* ---- busy machines */

enum { NAMED_MOST = 3 }; /* files on the line that goes into the profile */
static const double NOISY_SHARE = 0.1;

const char *calibrate_noise(const struct calibrate *c, const struct calibrate_file *f)
{
    if (f->is_run)
        return f->disturbed
                   ? arena_printf(c->a, "other work took processors while %s was measured", f->path)
                   : NULL;
    if ((double)f->n_kept_noisy <= NOISY_SHARE * (double)f->n_sample) return NULL;
    return arena_printf(c->a,
                        "%.0f %% of the samples kept of %s were taken while the machine was busy "
                        "with something else",
                        100 * (double)f->n_kept_noisy / (double)(f->n_sample - f->n_noisy),
                        f->path);
}

const char *calibrate_noise_of_all(const struct calibrate *c)
{
    const char *text = "";
    int n = 0;
    for (int i = 0; i < c->n_file; i++) {
        const struct calibrate_file *f = &c->file[i];
        const char *noise = calibrate_noise(c, f);
        if (!noise || (f->is_run && !calibrate_share_of(c, f).any)) continue;
        if (n++ < NAMED_MOST) text = arena_printf(c->a, "%s%s%s", text, *text ? "; " : "", noise);
    }
    return n <= NAMED_MOST ? text : arena_printf(c->a, "%s; and %d more", text, n - NAMED_MOST);
}

/* ---- imported files */

void calibrate_compare(struct calibrate *c)
{
    for (int i = 1; i < c->n_file; i++) {
        const struct calibrate_file *x = &c->file[0], *y = &c->file[i];
        if (!x->imported && !y->imported) continue; /* ours say so where it matters */
        const char *d = import_differ(x->model, x->dated ? x->date : "", y->model,
                                      y->dated ? y->date : "", c->a);
        if (d) calibrate_note(c, "%s and %s are of %s", x->path, y->path, d);
    }
}

/* ---- names of models */

/* Of paths and meta-llama/Llama-3-8B the last part. */
static const char *last_part(const char *name)
{
    const char *part = name;
    for (const char *s = name; *s; s++)
        if (*s == '/' && s[1]) part = s + 1;
    return part;
}

/* 8b, 0.5B, 500M, 8x7b as millions of parameters; 0: the word of n characters is no size. */
static double size_of(const char *word, size_t n)
{
    char *end;
    if (!isdigit((unsigned char)*word)) return 0;
    double times = 1, v = strtod(word, &end);
    if (tolower((unsigned char)*end) == 'x' && isdigit((unsigned char)end[1])) {
        times = v;
        v = strtod(end + 1, &end);
    }
    int unit = tolower((unsigned char)*end);
    if ((unit != 'b' && unit != 'm') || end + 1 != word + n) return 0;
    return times * v * (unit == 'b' ? 1000 : 1);
}

/* The first size among the words; 0: none. */
static double model_size(const char *name)
{
    static const char *const within =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.";
    while (*name) {
        size_t n = strspn(name, within);
        double v = n > 0 ? size_of(name, n) : 0;
        if (v > 0) return v;
        name += n > 0 ? n : 1;
    }
    return 0;
}

/* A bit for each family that the name has: a distilled model may name two. */
static unsigned model_families(const char *name)
{
    /* Mistral and Mixtral (which some call Mistral-8x7B) are told apart by their sizes. */
    static const char *const family[] = {
        "llama", "qwen", "mistral", "mixtral", "falcon", "gemma"
    };
    static const unsigned bit[] = { 1, 2, 4, 4, 8, 16 };
    unsigned has = 0;
    for (size_t i = 0; i < sizeof bit / sizeof *bit; i++)
        for (const char *s = name; *s; s++)
            if (strncasecmp(s, family[i], strlen(family[i])) == 0) has |= bit[i];
    return has;
}

bool calibrate_other_model(const char *a, const char *b)
{
    a = last_part(a);
    b = last_part(b);
    double size_a = model_size(a), size_b = model_size(b);
    unsigned of_a = model_families(a), of_b = model_families(b);
    /* 6.7b is also called 7b, 1.1b 1b; 7b and 8b are two models. */
    if (size_a > 0 && size_b > 0 && fabs(log(size_a / size_b)) > 0.1) return true;
    return of_a && of_b && !(of_a & of_b);
}
