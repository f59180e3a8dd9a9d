/* tests/test_cli.c - the program as the shell sees it: exit codes, one-line messages, no half
 * files. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/cli.h"
#include "tests/test.h"

/* stderr holds one sentence, which begins with the program's name and contains `part`. */
static void check_sentence(const char *part)
{
    const char *end = strchr(cli_err, '\n');
    CHECK(strncmp(cli_err, "orrery", 6) == 0);
    CHECK(end && end[1] == 0);
    CHECK_HAS(cli_err, part);
}

static int n_part_files(void)
{
    char cmd[600], count[32];
    snprintf(cmd, sizeof cmd, "find %s -name '*.part*' | wc -l", test_dir());
    test_run(cmd, count, sizeof count, NULL, 0);
    return atoi(count);
}

TEST(cli_helps)
{
    static char first[sizeof cli_out];
    CHECK_INT(cli_run("", "--help"), 0);
    CHECK_TEXT(cli_err, "");
    CHECK_HAS(cli_out, "\n  trace ");
    CHECK_HAS(cli_out, "\n  5    ");
    strcpy(first, cli_out);
    CHECK_INT(cli_run("", "help"), 0);
    CHECK_TEXT(cli_out, first);
    CHECK_INT(cli_run("", "-h"), 0);
    CHECK_TEXT(cli_out, first);
    CHECK_INT(cli_run("", " "),
              2); /* nothing asked: the help, but a script that lost its words hears of it */
    CHECK_TEXT(cli_out, "");
    CHECK_TEXT(cli_err, first);
    CHECK_INT(cli_run("", "help trace"), 0);
    strcpy(first, cli_out);
    CHECK_HAS(first, "--workload.format");
    CHECK_INT(cli_run("", "trace --help"), 0);
    CHECK_TEXT(cli_out, first);
}

TEST(cli_says_its_version)
{
    CHECK_INT(cli_run("", "--version"), 0);
    CHECK(strncmp(cli_out, "orrery ", 7) == 0);
    CHECK_HAS(cli_out, ", revision ");
    CHECK(strchr(cli_out, '\n') == cli_out + strlen(cli_out) - 1);
    CHECK_TEXT(cli_err, "");
}

TEST(cli_refuses_unknown_verbs)
{
    CHECK_INT(cli_run("", "trcae"), 2);
    CHECK_TEXT(cli_err, "orrery: no verb 'trcae'; did you mean 'trace'?\n");
    CHECK_TEXT(cli_out, "");
    CHECK_INT(cli_run("", "abracadabra"), 2);
    check_sentence("no verb 'abracadabra'; there are: ");
    CHECK_INT(cli_run("", "--trace"), 2);
    check_sentence("no verb '--trace'");
    CHECK_INT(cli_run("", "''"), 2);
    check_sentence("no verb ''");
    CHECK_INT(cli_run("", "help trcae"), 2);
    check_sentence("did you mean 'trace'?");
    CHECK_INT(cli_run("", "\"$(printf 'a\\033[31m\\nb')\""), 2);
    check_sentence("no verb 'a?[31m?b'");
}

/* Every verb that the help lists answers to --help, and the scripts know it. */
TEST(cli_completes_every_verb)
{
    static char bash[sizeof cli_out], zsh[sizeof cli_out], man[sizeof cli_out];
    char verb[64];
    CHECK_INT(cli_run("", "completion bash > %s", test_path("c.bash")), 0);
    CHECK_INT(cli_run("", "completion bash"), 0);
    strcpy(bash, cli_out);
    CHECK_INT(cli_run("", "completion zsh"), 0);
    strcpy(zsh, cli_out);
    CHECK_INT(cli_run("", "man"), 0);
    strcpy(man, cli_out);
    CHECK_INT(cli_run("", "completion fish"), 2);
    check_sentence("bash or zsh");
    CHECK_INT(cli_run("", "help"), 0);
    char *list = strdup(cli_out), *save = NULL;
    bool in_list = false;
    int n = 0;
    for (char *line = strtok_r(list, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        if (strcmp(line, "Verbs:") == 0) in_list = true;
        if (strncmp(line, "Exit", 4) == 0 || strncmp(line, "`orrery", 7) == 0) in_list = false;
        if (!in_list || sscanf(line, "  %63s", verb) != 1 || line[0] != ' ') continue;
        CHECK_HAS(bash, verb);
        CHECK_HAS(zsh, verb);
        CHECK_HAS(man, verb);
        CHECK_INT(cli_run("", "%s --help", verb), 0);
        CHECK(cli_out[0] != 0);
        CHECK_TEXT(cli_err, "");
        n++;
    }
    free(list);
    CHECK(n >= 5);
}

TEST(cli_bash_completion_works)
{
    char cmd[1200];
    if (test_run("command -v bash", NULL, 0, NULL, 0) != 0) SKIP("no bash");
    CHECK_INT(cli_run("", "completion bash > %s", test_path("c.bash")), 0);
    FILE *f = fopen(test_path("c.bash"), "a");
    if (!CHECK(f != NULL)) return;
    fputs("compopt() { :; }\n"
          "try() { COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); _orrery; echo \"${COMPREPLY[@]}\"; "
          "}\n"
          "try \"$ORRERY_BIN\" tr\n"
          "try \"$ORRERY_BIN\" help ma\n"
          "try \"$ORRERY_BIN\" trace --workload.prompt.m\n"
          "try \"$ORRERY_BIN\" engine r\n"
          "try \"$ORRERY_BIN\" help engine g\n"
          "try \"$ORRERY_BIN\" engine run x.yaml --workload.prompt.m\n"
          "try \"$ORRERY_BIN\" engine generate --max_n\n"
          "try \"$ORRERY_BIN\" engine recover --\n"
          "try \"$ORRERY_BIN\" completion z\n",
          f);
    fclose(f);
    snprintf(cmd, sizeof cmd, "bash %s", test_path("c.bash"));
    CHECK_INT(cli_shell("%s", cmd), 0);
    CHECK_TEXT(cli_out, "trace\nman\n"
                        "--workload.prompt.mean= --workload.prompt.min= --workload.prompt.max=\n"
                        "run recover\ngenerate\n"
                        "--workload.prompt.mean= --workload.prompt.min= --workload.prompt.max=\n"
                        "--max_new=\n--out=\nzsh\n");
    CHECK_TEXT(cli_err, "");
}

TEST(cli_man_page_is_sound)
{
    if (test_run("command -v groff", NULL, 0, NULL, 0) != 0) SKIP("no groff");
    CHECK_INT(cli_run("", "man | groff -man -ww -z"), 0);
    CHECK_TEXT(cli_err, "");
}

TEST(cli_trace_refuses_wrong_files)
{
    struct {
        const char *name, *text, *part;
        int rc;
    } bad[] = {
        { "empty.csv", "", "an empty trace", 2 },
        { "header.csv", "arrival,in,out\n", "no requests", 2 },
        { "letters.csv", "arrival,in,out\n0.5,ten,3\n", "letters.csv:2: ", 2 },
        { "negative.csv", "arrival,in,out\n0.5,-1,3\n", "negative.csv:2: ", 2 },
        { "short.csv", "arrival,in,out\n0.5,10\n", "short.csv:2: ", 2 },
        { "cut.jsonl", "{\"arrival\": 1, \"in\": 5, \"out\": 2}\n{\"arrival\": 2, \"in\": 5, ",
          "cut.jsonl:2: ", 2 },
        { "prose.txt", "Dear reader,\n", "cannot tell the format", 2 },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_INT(cli_run("", "trace describe %s", cli_put(bad[i].name, bad[i].text)), bad[i].rc);
        check_sentence(bad[i].part);
        CHECK_TEXT(cli_out, "");
    }
    CHECK_INT(cli_run("", "trace describe %s", test_path("absent.csv")), 2);
    check_sentence("No such file");
    CHECK_INT(cli_run("", "trace describe %s", test_dir()), 2);
    check_sentence("directory");
    CHECK_INT(cli_run("", "trace describe"), 2);
    check_sentence("takes one file");
    CHECK_INT(cli_run("", "trace descibe x"), 2);
    check_sentence("describe, convert, synth");
    CHECK_INT(cli_run("", "trace synth %s --rte=4/s", test_path("x.csv")), 2);
    check_sentence("rte");
    CHECK_INT(cli_run("", "trace synth %s --rate=4", test_path("x.csv")), 2);
    check_sentence("has no unit");
    CHECK(access(test_path("x.csv"), F_OK) != 0);
}

TEST(cli_leaves_no_half_file)
{
    struct stat st;
    char good[300], old[300]; /* test_path keeps a few only */
    snprintf(good, sizeof good, "%s", cli_put("good.csv", "arrival,in,out\n0,5,3\n1,7,2\n"));
    snprintf(old, sizeof old, "%s", cli_put("old.csv", "keep me\n"));
    CHECK_INT(cli_run("", "trace convert %s %s", good, test_path("no/such/x.csv")), 5);
    check_sentence("No such file");
    CHECK_INT(cli_run("", "trace convert %s %s",
                      cli_put("bad.csv", "arrival,in,out\n0,5,3\n1,x,2\n"), old),
              2);
    check_sentence("bad.csv:3: ");
    CHECK(stat(old, &st) == 0 && st.st_size == 8);
    CHECK_INT(n_part_files(), 0);
    CHECK_INT(cli_run("", "trace convert %s %s", good, old), 0);
    CHECK_INT(cli_run("", "trace describe %s", old), 0);
    CHECK_HAS(cli_out, "2 requests");
    CHECK_INT(n_part_files(), 0);
}

/* A file size limit fails the write as a full disk does. */
TEST(cli_full_disk_leaves_no_file)
{
    char cmd[1500];
    const char *bin = cli_bin();
    snprintf(cmd, sizeof cmd,
             "trap '' XFSZ; ulimit -f 8; %s trace synth %s --rate=4/s --requests=9000", bin,
             test_path("full.csv"));
    CHECK_INT(cli_shell("%s", cmd), 5);
    check_sentence("full.csv");
    CHECK(access(test_path("full.csv"), F_OK) != 0);
    CHECK_INT(n_part_files(), 0);
}

TEST(cli_notices_a_full_standard_output)
{
    if (access("/dev/full", W_OK) != 0) SKIP("no /dev/full");
    char good[300];
    snprintf(good, sizeof good, "%s", cli_put("good.csv", "arrival,in,out\n0,5,3\n1,7,2\n"));
    CHECK_INT(cli_run("", "--help > /dev/full"), 5);
    check_sentence("cannot write to standard output: No space left on device");
    CHECK_INT(cli_run("", "trace describe %s > /dev/full", good), 5);
    check_sentence("cannot write");
    CHECK_INT(cli_run("", "trace describe %s --json > /dev/full", good), 5);
    check_sentence("cannot write");
    CHECK_INT(cli_run("", "--version >&-"), 5);
    check_sentence("cannot write to standard output");
    CHECK_INT(cli_run("", "trcae > /dev/full"), 2);
    check_sentence("did you mean");
}

/* With standard streams closed, no file may land on their numbers and take messages in. */
TEST(cli_keeps_closed_streams_out_of_files)
{
    char path[300];
    snprintf(path, sizeof path, "%s", test_path("c.csv"));
    CHECK_INT(cli_run("", "trace synth %s --rate=4/s --requests=5 <&- >&- 2>&-", path), 0);
    CHECK_INT(cli_run("", "trace describe %s", path), 0);
    CHECK_HAS(cli_out, "5 requests");
    CHECK_INT(cli_run("", "trace synth %s --rate=4/s --requests=5 --seed=1", test_path("d.csv")),
              0);
    char cmd[1200];
    snprintf(cmd, sizeof cmd, "grep -v '^#' %s > %s.x; grep -v '^#' %s | cmp - %s.x", path, path,
             test_path("d.csv"), path);
    CHECK_INT(test_run(cmd, NULL, 0, NULL, 0), 0);
}

TEST(cli_reader_that_leaves_early_is_no_failure)
{
    if (test_run("command -v bash", NULL, 0, NULL, 0) != 0) SKIP("no bash");
    const char *bin = cli_bin();
    char cmd[1200];
    if (!bin) SKIP("ORRERY_BIN does not name the program");
    snprintf(cmd, sizeof cmd, "bash -c 'set -o pipefail; %s help trace | true'", bin);
    CHECK_INT(test_run(cmd, NULL, 0, cli_err, sizeof cli_err), 0);
    CHECK_TEXT(cli_err, "");
}

/* A name of nothing is the command line's mistake, wherever it stands: 2, as every help has it. */
TEST_LIMIT(cli_missing_files_are_wrong_command_lines, 120)
{
    static const char *const args[] = {
        "simulate nosuch.yaml",
        "simulate scenarios/smoke.yaml --model=nosuch/config.json",
        "simulate scenarios/smoke.yaml --hardware=nosuch.h5",
        "simulate scenarios/smoke.yaml --hardware.profile=nosuch.h5",
        "simulate scenarios/smoke.yaml --workload.trace=nosuch.csv",
        "verify nosuch.yaml",
        "verify scenarios/smoke.yaml --on=nosuch.yaml",
        "engine run nosuch.yaml",
        "engine run scenarios/engine-chat.yaml --model=nosuch",
        "engine generate --model=nosuch --tokens=1",
        "engine generate --model=/nosuch/config.json --tokens=1",
        "engine recover nosuch.csv --out=%s/x.h5",
        "bench --model=nosuch --dry-run",
        "bench --model=/nosuch --dry-run",
        "bench --suite=model --resume --run_time=1us --out=%s/nosuch.h5",
        "calibrate nosuch.h5",
        "validate nosuch.yaml",
        "validate --predicted=nosuch.h5 --measured=%s/other.h5",
        "plot nosuch.h5 --out=%s",
        "report nosuch.h5 --out=%s/x.html",
        "trace describe nosuch.csv",
        "trace convert nosuch.csv %s/x.csv",
        "import nosuch.json",
    };
    char line[600];
    for (size_t i = 0; i < sizeof args / sizeof *args; i++) {
        const char *hole = strstr(args[i], "%s");
        if (hole)
            snprintf(line, sizeof line, "%.*s%s%s", (int)(hole - args[i]), args[i], test_dir(),
                     hole + 2);
        else
            snprintf(line, sizeof line, "%s", args[i]);
        bool ok = CHECK_INT(cli_run("", "%s", line), 2);
        ok &= CHECK_TEXT(cli_out, "");
        ok &= CHECK_HAS(cli_err, "nosuch");
        if (strncmp(args[i], "bench --suite", 13) != 0) check_sentence("nosuch");
        if (!ok) printf("for: %s\n%s", line, cli_err);
    }
}

/* What is for GPUs is refused beside the processors, and a device that is none is the option's fault. */
TEST(cli_options_of_gpus_are_not_ignored)
{
    static const char *const command[] = { "engine run scenarios/engine-chat.yaml --dry-run",
                                           "engine generate --model=llama-25m --tokens=1",
                                           "bench --dry-run" };
    for (size_t i = 0; i < sizeof command / sizeof *command; i++) {
        const char *verb = i < 2 ? "orrery engine: " : "orrery bench: ";
        char want[200];
        CHECK_INT(cli_run("", "%s --share-device", command[i]), 2);
        snprintf(want, sizeof want,
                 "%s--share-device is for GPUs, and the device is cpu (--device=cuda)\n", verb);
        CHECK_TEXT(cli_err, want);
        CHECK_INT(cli_run("", "%s --exchange=host", command[i]), 2);
        snprintf(want, sizeof want,
                 "%s--exchange is for GPUs, and the device is cpu (--device=cuda)\n", verb);
        CHECK_TEXT(cli_err, want);
        CHECK_INT(cli_run("", "%s --device=gpu", command[i]), 2);
        snprintf(want, sizeof want,
                 "%s--device: 'gpu' is not one of cpu, cuda, cuda:N with N 0 to 1023\n", verb);
        CHECK_TEXT(cli_err, want);
    }
}

/* Who gave a wrong value is blamed: the file, or the command line. */
TEST(cli_blames_the_option_or_the_file)
{
    char path[300];
    snprintf(path, sizeof path, "%s",
             cli_put("s.yaml", "model: llama-3-8b\nhardware: dgx-h100\nstrategy: {tp: 5}\n"
                               "workload: {rate: 1/s, requests: 5}\n"));
    CHECK_INT(cli_run("", "simulate %s", path), 2);
    check_sentence("s.yaml:3:");
    CHECK_INT(cli_run("", "simulate %s --strategy.tp=3", path), 2);
    check_sentence("orrery simulate: --strategy.tp: tp 3 does not divide");
    CHECK_INT(cli_run("", "simulate %s --model=llama-3-9b", path), 2);
    check_sentence("orrery simulate: --model: no model 'llama-3-9b'; did you mean");
}

TEST(cli_helps_with_parts_of_a_verb)
{
    static char first[sizeof cli_out];
    static const char *const part[] = { "engine run", "engine generate", "engine recover",
                                        "trace synth" };
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        CHECK_INT(cli_run("", "%s --help", part[i]), 0);
        strcpy(first, cli_out);
        CHECK_HAS(first, "\n  --");
        CHECK_INT(cli_run("", "help %s", part[i]), 0);
        CHECK_TEXT(cli_out, first);
        CHECK_TEXT(cli_err, "");
    }
    CHECK_INT(cli_run("", "help engine rnu"), 2);
    CHECK_TEXT(cli_err, "orrery: engine has no 'rnu'; there are: run generate recover\n");
    CHECK_INT(cli_run("", "help simulate run"), 2);
    check_sentence("help takes one verb");
    CHECK_INT(cli_run("", "help engine run x"), 2);
    check_sentence("help takes one verb");
}

/* The manual has every option that --help has, and where files are looked for. */
TEST(cli_man_page_lists_the_options)
{
    static char man[sizeof cli_out];
    static const char *const verb[] = { "simulate",       "engine run", "engine generate",
                                        "engine recover", "bench",      "calibrate",
                                        "trace",          "import" };
    char key[64], line[128];
    CHECK_INT(cli_run("", "man | sed 's/[\\]-/-/g; s/[\\]&//g'"), 0);
    CHECK_TEXT(cli_err, "");
    strcpy(man, cli_out);
    CHECK_HAS(man, "$ORRERY_HOME, where that is set");
    for (size_t i = 0; i < sizeof verb / sizeof *verb; i++) {
        int n = 0;
        snprintf(line, sizeof line, "\n.SS orrery %s\n", verb[i]);
        const char *at = strstr(man, line);
        if (!CHECK(at != NULL)) continue;
        CHECK_INT(cli_run("", "%s --help", verb[i]), 0);
        char *save = NULL;
        for (char *l = strtok_r(cli_out, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
            if (sscanf(l, "  --%60[a-z0-9_.]=", key) != 1) continue;
            snprintf(line, sizeof line, "\n  --%s=", key);
            CHECK_HAS(at, line);
            n++;
        }
        CHECK(n > 0);
    }
}

TEST(cli_says_where_it_looks_for_files)
{
    char cmd[1500];
    CHECK_INT(cli_run("", "help"), 0);
    CHECK_HAS(cli_out, "\nFiles\n");
    CHECK_HAS(cli_out, "$ORRERY_HOME, where that is set");
    CHECK_HAS(cli_out, "/share/orrery\n  the current directory\n");
    /* by itself elsewhere it has no models, and says where they should be */
    snprintf(cmd, sizeof cmd, "p=$(realpath %s); home=$PWD; cp $p %s/ && cd %s && ", cli_bin(),
             test_dir(), test_dir());
    if (cli_shell("%s[ -e /usr/local/share/orrery ]", cmd) == 0) SKIP("orrery is installed");
    CHECK_INT(
        cli_shell("%s unset ORRERY_HOME; ./orrery engine generate --model=llama-25m --tokens=1",
                  cmd),
        2);
    check_sentence("(ORRERY_HOME=DIR names another place)");
    cli_put("s.yaml", "model: llama-25m\nhardware: h100-sxm\nworkload: {rate: 1/s}\n");
    CHECK_INT(
        cli_shell("%s mkdir -p own/scenarios && cp -r $home/scenarios/hardware own/scenarios; "
                  "ORRERY_HOME=own ./orrery simulate s.yaml",
                  cmd),
        2);
    check_sentence("no such config.json, and no list of names: cannot find 'scenarios/models'");
    CHECK_INT(cli_shell("%s ORRERY_HOME=$home ./orrery simulate s.yaml --workload.requests=5 "
                        "--dry-run",
                        cmd),
              0);
}
