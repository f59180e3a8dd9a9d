/* tests/cli.c - see cli.h. SPDX-License-Identifier: Apache-2.0 */
#include "tests/cli.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/test.h"

char cli_out[1 << 18], cli_err[1 << 16], cli_page[4 << 20];

const char *cli_bin(void)
{
    const char *bin = getenv("ORRERY_BIN");
    if (!bin) SKIP("ORRERY_BIN does not name the program");
    return bin;
}

static int run(const char *cmd)
{
    return test_run(cmd, cli_out, sizeof cli_out, cli_err, sizeof cli_err);
}

int cli_run(const char *before, const char *fmt, ...)
{
    char cmd[8000];
    int n = snprintf(cmd, sizeof cmd, "%s %s ", before, cli_bin());
    va_list ap;
    va_start(ap, fmt);
    int more = vsnprintf(cmd + n, sizeof cmd - (size_t)n, fmt, ap);
    va_end(ap);
    CHECK(more >= 0 && (size_t)(n + more) < sizeof cmd);
    return run(cmd);
}

int cli_shell(const char *fmt, ...)
{
    char cmd[8000];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(cmd, sizeof cmd, fmt, ap);
    va_end(ap);
    CHECK(n >= 0 && (size_t)n < sizeof cmd);
    return run(cmd);
}

const char *cli_path(const char *name)
{
    static char ring[64][512];
    static int i;
    char *to = ring[i++ % 64];
    snprintf(to, sizeof ring[0], "%s", test_path(name));
    return to;
}

const char *cli_put(const char *name, const char *text)
{
    const char *path = cli_path(name);
    FILE *f = fopen(path, "w");
    if (CHECK(f != NULL)) {
        fputs(text, f);
        fclose(f);
    }
    return path;
}

const char *cli_slurp(const char *path)
{
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(cli_page, 1, sizeof cli_page - 1, f) : 0;
    cli_page[n] = 0;
    if (f) fclose(f);
    return cli_page;
}

void cli_need(const char *program)
{
    static char why[64];
    char cmd[200];
    snprintf(cmd, sizeof cmd, "command -v %s", program);
    snprintf(why, sizeof why, "no %s", program);
    if (test_run(cmd, NULL, 0, NULL, 0) != 0) SKIP(why);
}

json_t *cli_json(void)
{
    json_error_t e;
    json_t *j = json_loads(cli_out, JSON_REJECT_DUPLICATES, &e);
    if (!CHECK(j != NULL)) fprintf(stderr, "%s\n%.300s\n", e.text, cli_out);
    return j;
}

json_t *cli_at(json_t *j, const char *path)
{
    char copy[200];
    snprintf(copy, sizeof copy, "%s", path);
    for (char *p = strtok(copy, "."); p && j; p = strtok(NULL, ".")) j = json_object_get(j, p);
    return j;
}

double cli_number(json_t *j, const char *path)
{
    json_t *v = cli_at(j, path);
    if (!CHECK(json_is_number(v))) fprintf(stderr, "no number %s\n", path);
    return json_number_value(v);
}

const char *cli_text(json_t *j, const char *path)
{
    const char *t = json_string_value(cli_at(j, path));
    if (!CHECK(t != NULL)) fprintf(stderr, "no text %s\n", path);
    return t ? t : "";
}
