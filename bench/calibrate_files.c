/* bench/calibrate_files.c - what the files of a calibration say beside each other: busy machines,
 * imported ones of other models or times. SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

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
