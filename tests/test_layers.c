/* tests/test_layers.c - who includes whom, by tests/layers.sh; and that the script can fail.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/test.h"

TEST(layers_are_kept)
{
    char out[4000], err[1000];
    CHECK_INT(test_run("sh tests/layers.sh", out, sizeof out, err, sizeof err), 0);
    CHECK_TEXT(out, "");
    CHECK_TEXT(err, "");
}

static void put(const char *room, const char *file, const char *text)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", test_dir(), room);
    mkdir(path, 0777);
    snprintf(path, sizeof path, "%s/%s/%s", test_dir(), room, file);
    FILE *f = fopen(path, "w");
    if (!CHECK(f != NULL)) return;
    fputs(text, f);
    fclose(f);
}

TEST(layers_script_sees_what_is_wrong)
{
    char cmd[1500], out[4000], here[500];
    put("base", "x.c", "#include \"model/arch.h\"\n#include <stdio.h>\n#include \"base/x.h\"\n");
    put("engine", "sched_x.c", "  #  include \"engine/backend.h\"\n#include \"engine/sched.h\"\n");
    put("sim", "x.c", "#include \"engine/backend.h\"\n#include \"engine/kvpool.h\"\n");
    put("model", "x.c", "#include \"base/err.h\"\n#include \"tests/test.h\"\n");
    if (!CHECK(getcwd(here, sizeof here) != NULL)) return;
    snprintf(cmd, sizeof cmd, "cd %s && sh %s/tests/layers.sh", test_dir(), here);
    CHECK_INT(test_run(cmd, out, sizeof out, NULL, 0), 0);
    CHECK_TEXT(out, "base/x.c includes model/arch.h\nengine/sched_x.c includes engine/backend.h\n"
                    "model/x.c includes tests/test.h\nsim/x.c includes engine/backend.h\n");
}
