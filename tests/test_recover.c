/* tests/test_recover.c - what a killed run has left: journals that are cut, damaged or of another
 * system, each told by file and line. SPDX-License-Identifier: Apache-2.0 */
#include "bench/recover.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/cli.h"
#include "tests/test.h"

#define HEAD                                                                                       \
    "# orrery engine recover THIS --out=RUN.h5 makes a run file of it\n"                           \
    "#measured llama-25m TP1-PP1 on this machine\n"                                                \
    "#workload two requests\n"                                                                     \
    "#scenario s.yaml\n"                                                                           \
    "#|model: llama-25m\n"                                                                         \
    "#|hardware: h100-sxm\n"
#define COLUMNS                                                                                    \
    "request,status,t_due,t_start,t_first,t_last,n_in,n_out,cached_in,preempted,session,turn,"     \
    "replica,class\n"
/* Lines 8 and 9. */
#define ROWS                                                                                       \
    "0,ok,1000,2000,3000,9000,5,3,0,0,-1,0,0,0\n"                                                  \
    "1,failed,1500,2500,-1,-1,5,0,0,0,-1,0,0,0\n"

static int recovered(const char *text)
{
    char journal[300];
    snprintf(journal, sizeof journal, "%s", cli_put("run.h5.journal.csv", text));
    return cli_run("", "engine recover %s --out=%s", journal, test_path("run.h5"));
}

static void refused(const char *text, const char *says)
{
    CHECK_INT(recovered(text), 2);
    CHECK_HAS(cli_err, says);
    CHECK_TEXT(cli_out, "");
    const char *end = strchr(cli_err, '\n');
    CHECK(end && !end[1]);
    CHECK(access(test_path("run.h5"), F_OK) != 0);
}

TEST(recover_says_what_it_left_out)
{
    CHECK_INT(recovered(HEAD COLUMNS ROWS), 0);
    CHECK_HAS(cli_out, "recovered   2 requests of llama-25m TP1-PP1 on this machine\nwritten  ");
    CHECK_INT(recovered(HEAD COLUMNS ROWS "2,ok,2000,30"), 0);
    CHECK_HAS(cli_out, "recovered   2 requests of llama-25m TP1-PP1 on this machine\n"
                       "            1 unfinished last row dropped\nwritten  ");
    CHECK_INT(recovered(HEAD COLUMNS), 0);
    CHECK_HAS(cli_out, "recovered   0 requests");
}

TEST(recover_reads_lines_that_end_as_elsewhere)
{
    char text[2000], *to = text;
    for (const char *p = HEAD COLUMNS ROWS; *p; p++) {
        if (*p == '\n') *to++ = '\r';
        *to++ = *p;
    }
    *to = 0;
    CHECK_INT(recovered(text), 0);
    CHECK_HAS(cli_out, "recovered   2 requests of llama-25m TP1-PP1 on this machine\nwritten  ");
}

TEST(recover_refuses_what_cannot_have_been)
{
    static const struct {
        const char *row, *says;
    } wrong[] = {
        { "2,ok,1000,2000,500,9000,5,3,0,0,-1,0,0,0", "t_first 500 is before t_start 2000" },
        { "2,ok,1000,-1,500,9000,5,3,0,0,-1,0,0,0", "t_first 500 is before t_due 1000" },
        { "2,ok,1000,900,3000,9000,5,3,0,0,-1,0,0,0", "t_start 900 is before t_due 1000" },
        { "2,ok,1000,2000,3000,2500,5,3,0,0,-1,0,0,0", "t_last 2500 is before t_first 3000" },
        { "2,failed,1000,2000,3000,2500,5,3,0,0,-1,0,0,0", "t_last 2500 is before t_first 3000" },
        { "2,ok,1000,2000,-1,9000,5,3,0,0,-1,0,0,0", "a finished request without t_first" },
        { "2,ok,1000,2000,3000,9000,5,0,0,0,-1,0,0,0", "a finished request without a token" },
        { "2,ok,-5,2000,3000,9000,5,3,0,0,-1,0,0,0", "t_due is no whole number from 0 to " },
        { "2,ok,1000,-2,3000,9000,5,3,0,0,-1,0,0,0", "t_start is no whole number from -1 to " },
        { "2,ok,1000,2000,3000,99999999999999999999,5,3,0,0,-1,0,0,0",
          "t_last is no whole number" },
        { "2,ok,1000,2000,3000,9000,5,3,6,0,-1,0,0,0", "cached_in is more than n_in" },
        { "2,ok,1000,2000,3000,9000,5,3,0,0,-1,0,0", "replica is no whole number" },
        { "2,ok,1000,2000,3000,9000,5,3,0,0,-1,0,0,0,7", "class is no whole number" },
        { "2,fine,1000,2000,3000,9000,5,3,0,0,-1,0,0,0", "status is none of ok, failed, " },
        { "x,ok,1000,2000,3000,9000,5,3,0,0,-1,0,0,0", "request is no number from 0 on" },
        { "0,ok,4000,5000,6000,9000,5,3,0,0,-1,0,0,0", "request 0 has ended already, in line 8" },
    };
    char text[2000], says[200];
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        snprintf(text, sizeof text, HEAD COLUMNS ROWS "%s\n", wrong[i].row);
        bool twice = strstr(wrong[i].says, "already") != NULL;
        snprintf(says, sizeof says, "run.h5.journal.csv:10: %s%s",
                 twice ? "" : "not a line of a journal: ", wrong[i].says);
        refused(text, says);
    }
}

/* What is wrong with the scenario is told by the journal's lines and columns: the file that the
 * scenario was read from may be as it should be, or gone. */
TEST(recover_blames_the_journal_for_its_scenario)
{
    refused(HEAD "#|strategy: {tp: x}\n" COLUMNS ROWS,
            "run.h5.journal.csv:7:18: strategy.tp: 'x' is not a whole number");
    refused(HEAD "#|strategy: [tp\n" COLUMNS ROWS, "run.h5.journal.csv:8:1: did not find");
    refused(HEAD "# a remark\n#|model: falcon-7b\n" COLUMNS ROWS,
            "run.h5.journal.csv:8:3: key 'model' stands twice in one map, first in line 5");
    refused("#measured m\n#scenario s.yaml\n", "it has no #| lines of the scenario");
    refused(HEAD, "it has no heading of columns");
    refused("#measured m\n#scen", "it has no #scenario, and ends within a line");
}

/* Random damage: a run file or one sentence. */
TEST(recover_survives_damage)
{
    static const char good[] = HEAD COLUMNS ROWS;
    struct recover_journal j;
    srand(11);
    for (int i = 0; i < 3000; i++) {
        static const char odd[] = ",-0129\n\r#|\x80 x";
        char text[sizeof good];
        struct arena a;
        struct err e = { 0 };
        memcpy(text, good, sizeof good);
        for (int k = rand() % 4; k >= 0; k--)
            text[(size_t)rand() % (sizeof good - 1)] = odd[(size_t)rand() % (sizeof odd - 1)];
        text[(size_t)rand() % sizeof good] = 0;
        arena_init(&a);
        int st = recover_read(cli_put("j.csv", text), &a, &j, &e);
        CHECK(st == ST_OK ? j.n <= 3 && j.scenario && j.measured : e.text[0] != 0);
        arena_release(&a);
    }
}
