/* tests/fuzz/fuzz_table.c - kernel tables: an accepted one answers with finite times everywhere.
 *
 * The bytes are dense.csv, per_sequence.csv, attention.csv and skew.csv, each ended by a line "--".
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <sys/stat.h>

#include "model/table.h"
#include "tests/fuzz/fuzz.h"

static char dir[64];

static void remove_dir(void)
{
    static const char *const names[] = { "dense", "per_sequence", "attention", "skew" };
    char path[128];
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/%s.csv", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
}

/* The bytes up to the next line "--" into a file, or no file where nothing is left. */
static const uint8_t *split_off(const uint8_t *at, const uint8_t *end, const char *name)
{
    char path[128];
    const uint8_t *stop = at;
    snprintf(path, sizeof path, "%s/%s.csv", dir, name);
    unlink(path);
    if (at == end) return end;
    while (stop < end && !(end - stop >= 3 && memcmp(stop, "--\n", 3) == 0)) stop++;
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(at, 1, (size_t)(stop - at), f) != (size_t)(stop - at) || fclose(f)) abort();
    return end - stop >= 3 ? stop + 3 : end;
}

static void ask(const struct table *t)
{
    static const double at[] = { 0, 1, 3.5, 64, 1000, 1e6 };
    const char *const *name;
    bool out;
    int n = table_dense_names(t, &name);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < 6; k++) FUZZ_CHECK(isfinite(table_dense_s(t, name[i], at[k], &out)));
    for (int i = 0; i < 6 && table_has_attn(t); i++)
        for (int k = 0; k < 6; k++) {
            double c0, c1, end;
            FUZZ_CHECK(isfinite(table_attn_s(t, at[i], at[k], at[5 - i], at[k], &out)));
            FUZZ_CHECK(isfinite(table_attn_s(t, 0, 0, at[i], at[k], &out)));
            FUZZ_CHECK(isfinite(table_skew_alpha(t, at[i], at[k], 2 * at[k], at[i], 0.5)));
            if (at[i] < 1) continue;
            table_attn_line(t, at[i], at[k], &c0, &c1, &end);
            FUZZ_CHECK(isfinite(c0) && isfinite(c1) && end > at[k]);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct arena a;
    struct err e = { 0 };
    struct table *t;
    const uint8_t *at = data, *end = data + n;
    if (!dir[0]) {
        snprintf(dir, sizeof dir, "%s", fuzz_path(0));
        if (mkdir(dir, 0700) != 0 || atexit(remove_dir) != 0) abort();
    }
    at = split_off(at, end, "dense");
    at = split_off(at, end, "per_sequence");
    at = split_off(at, end, "attention");
    split_off(at, end, "skew");
    arena_init(&a);
    int st = table_read(dir, &a, &t, &e);
    fuzz_status(st, &e);
    if (st == ST_OK) ask(t);
    arena_release(&a);
    return 0;
}
