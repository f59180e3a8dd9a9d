/* sim/scenario_spare.c - an output may not take the place of what its scenario reads.
 * SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/outfile.h"
#include "base/paths.h"
#include "sim/scenario.h"

enum { PATH_BYTES = 4096 };

/* Whatever lies in a directory; checkpoint: the files that weights are read from only. */
static int spare_all(const char *out, const char *dir, bool checkpoint, struct err *e)
{
    DIR *d = opendir(dir);
    int st = ST_OK;
    const struct dirent *x;
    while (d && st == ST_OK && (x = readdir(d))) {
        char path[PATH_BYTES + 260];
        if (checkpoint && !paths_ends_in(x->d_name, ".safetensors") &&
            !paths_ends_in(x->d_name, ".safetensors.index.json"))
            continue;
        snprintf(path, sizeof path, "%s/%s", dir, x->d_name);
        st = outfile_spares(out, path, e);
    }
    if (d) closedir(d);
    return st;
}

/* A model's config.json has the weights beside it. */
static int spare_beside(const char *out, const char *config, struct err *e)
{
    char dir[PATH_BYTES];
    const char *slash = strrchr(config, '/');
    snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - config) + 1 : 1, slash ? config : ".");
    return spare_all(out, dir, true, e);
}

/* What a name of a file, a directory or of something that comes with the program leads to. */
static int spare(const struct scenario *s, const char *out, const char *key, const char *name,
                 struct err *e)
{
    static const char *const under[][3] = { { "model", "scenarios/models", ".json" },
                                            { "hardware.name", "scenarios/hardware", "" },
                                            { "hardware.profile", "scenarios/hardware", "" },
                                            { "hardware", "scenarios/hardware", "" },
                                            { "workload.trace", "scenarios/traces", "" },
                                            { "workload.prompt.file", "scenarios/traces", "" },
                                            { "workload.output.file", "scenarios/traces", "" } };
    char path[PATH_BYTES];
    struct stat info;
    if (!name || !*name) return ST_OK;
    bool tables = strcmp(key, "hardware.kernels") == 0, model = strcmp(key, "model") == 0;
    if ((tables || model) && stat(name, &info) == 0 && S_ISDIR(info.st_mode))
        return spare_all(out, name, false, e);
    if (tables && *name != '/') { /* or beside the scenario */
        const char *slash = strrchr(s->path, '/');
        int n = slash ? (int)(slash - s->path) + 1 : 0;
        snprintf(path, sizeof path, "%.*s%s", n, s->path, name);
        return spare_all(out, path, false, e);
    }
    for (size_t i = 0; i < sizeof under / sizeof *under; i++) {
        if (strcmp(key, under[i][0]) != 0) continue;
        if (paths_resolve(name, s->path, under[i][1], under[i][2], path, sizeof path, NULL) !=
            ST_OK)
            return ST_OK; /* who reads it says so */
        int st = outfile_spares(out, path, e);
        return st == ST_OK && model ? spare_beside(out, path, e) : st;
    }
    return ST_OK;
}

int scenario_spares(const struct scenario *s, const char *out, struct err *e)
{
    const char *const given[][2] = { { "model", s->o.model },
                                     { "hardware.name", s->o.hardware },
                                     { "hardware.profile", s->o.measured },
                                     { "hardware.kernels", s->o.kernels },
                                     { "workload.trace", s->workload.file },
                                     { "workload.prompt.file", s->workload.in.file },
                                     { "workload.output.file", s->workload.out.file } };
    if (!out) return ST_OK;
    int st = outfile_spares(out, s->path, e);
    for (size_t i = 0; i < sizeof given / sizeof *given && st == ST_OK; i++)
        st = spare(s, out, given[i][0], given[i][1], e);
    for (int i = 0; i < s->n_sweep && st == ST_OK; i++)
        st = spare(s, out, s->sweep_key, s->sweep[i], e);
    return st;
}
