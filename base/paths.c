/* base/paths.c - finds the files that belong to the program.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/paths.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/utf8.h"

#ifndef PATHS_PREFIX
#define PATHS_PREFIX "/usr/local"
#endif

const char *paths_installed(void)
{
    return PATHS_PREFIX "/share/orrery";
}

enum { PATH_BYTES = 4096 };

static bool fits(int printed, size_t n)
{
    return printed >= 0 && (size_t)printed < n;
}

static bool readable_file(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && !S_ISDIR(info.st_mode) && access(path, R_OK) == 0;
}

int paths_exe_dir(char *buf, size_t n)
{
    char exe[PATH_BYTES];
    ssize_t len = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (len <= 0 || len >= (ssize_t)sizeof exe - 1) return ST_IO;
    exe[len] = 0;
    char *slash = strrchr(exe, '/');
    if (!slash) return ST_IO;
    slash[slash == exe ? 1 : 0] = 0;
    return fits(snprintf(buf, n, "%s", exe), n) ? ST_OK : ST_IO;
}

int paths_find(const char *relative, char *buf, size_t n, struct err *e)
{
    char exe[PATH_BYTES], share[PATH_BYTES], shown[64], tried[1024] = "";
    const char *home = getenv("ORRERY_HOME");
    bool known = paths_exe_dir(exe, sizeof exe) == ST_OK;
    bool moved =
        known && fits(snprintf(share, sizeof share, "%s/../share/orrery", exe), sizeof share);
    const char *places[5] = { home && *home ? home : NULL, known ? exe : NULL,
                              moved ? share : NULL /* installed, wherever that was moved to */,
                              paths_installed(), "." };
    utf8_quote(relative, shown, sizeof shown);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        if (!places[i] || *relative == '/') continue;
        bool here = strcmp(places[i], ".") == 0;
        if (fits(snprintf(buf, n, "%s%s%s", here ? "" : places[i], here ? "" : "/", relative), n) &&
            access(buf, R_OK) == 0)
            return ST_OK;
        size_t at = strlen(tried);
        snprintf(tried + at, sizeof tried - at, "%s%s", at ? ", " : "",
                 here ? "the current directory" : places[i]);
    }
    if (*relative == '/') {
        if (fits(snprintf(buf, n, "%s", relative), n) && access(buf, R_OK) == 0) return ST_OK;
        return err_set(e, ST_IO, "cannot read '%s'", shown);
    }
    return err_set(e, ST_IO, "cannot find '%s'; looked in %s%s", shown, tried,
                   home && *home ? "" : " (ORRERY_HOME=DIR names another place)");
}

int paths_resolve(const char *name, const char *beside, const char *under, const char *suffix,
                  char *buf, size_t n, struct err *e)
{
    char relative[PATH_BYTES];
    const char *slash = beside && *name != '/' ? strrchr(beside, '/') : NULL;
    if (*name && fits(snprintf(buf, n, "%s", name), n) && readable_file(buf)) return ST_OK;
    if (slash && *name &&
        fits(snprintf(buf, n, "%.*s/%s", (int)(slash - beside), beside, name), n) &&
        readable_file(buf))
        return ST_OK;
    if (!*name) return err_set(e, ST_USAGE, "an empty name where one from %s is expected", under);
    if (!fits(snprintf(relative, sizeof relative, "%s%s%s%s", *name == '/' ? "" : under,
                       *name == '/' ? "" : "/", name, *name == '/' ? "" : suffix),
              sizeof relative))
        return err_set(e, ST_USAGE, "a name of %zu bytes is too long for a path", strlen(name));
    struct err why = { 0 };
    if (paths_find(relative, buf, n, &why) == ST_OK) return ST_OK;
    if (access(name, R_OK) != 0 && (*name == '/' || errno != ENOENT))
        return err_file(e, "read", name, errno);
    return err_set(e, ST_USAGE, "no file '%.200s', and %s", name, why.text);
}

const char *paths_data(void)
{
    const char *data = getenv("ORRERY_DATA");
    return data && *data ? data : "../shared/data";
}

bool paths_ends_in(const char *path, const char *suffix)
{
    size_t n = strlen(path), k = strlen(suffix);
    return n > k && strcmp(path + n - k, suffix) == 0;
}
