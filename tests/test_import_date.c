/* tests/test_import_date.c - dates of other tools, and files of them that do not belong together.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/cli.h"
#include "tests/test.h"
#include "traces/import.h"

TEST(import_reads_dates)
{
    static const struct {
        const char *text, *want;
    } row[] = { { "20260202-024000", "2026-02-02T02:40:00" },
                { "2026-02-02 02:40:00", "2026-02-02T02:40:00" },
                { "2026-02-02T02:40:00.0004", "2026-02-02T02:40:00" },
                { "2026-02-02T02:40:00Z", "2026-02-02T02:40:00" },
                { "2026-13-02 02:40:00", "" },
                { "2026-00-02 02:40:00", "" },
                { "2026-02-02", "" },
                { "02.02.2026 02:40:00", "" },
                { "", "" } };
    struct arena a;
    arena_init(&a);
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        CHECK_TEXT(import_date(row[i].text, &a), row[i].want);
    CHECK_TEXT(import_date_of(1770000000, &a), "2026-02-02T02:40:00");
    CHECK_TEXT(import_date_of(-1, &a), "");
    CHECK_TEXT(import_date_of(NAN, &a), "");
    CHECK_TEXT(import_date_of(1e18, &a), "");
    /* against the C library's calendar, over leap years and centuries */
    for (int i = 0; i < 2000; i++) {
        double x = 1e6 + 7654321. * i, y = 3e9 + 1234567. * i;
        double days = import_days_apart(import_date_of(x, &a), import_date_of(y, &a));
        if (!CHECK(fabs(days - fabs(floor(x) - floor(y)) / 86400) < 1e-6)) break;
    }
    CHECK(isnan(import_days_apart("", "2026-02-02T02:40:00")));
    CHECK(!import_differ("a", "2026-02-02T02:40:00", "a", "2026-02-03T02:40:00", &a));
    CHECK(!import_differ("a", "", "", "2026-02-03T02:40:00", &a));
    CHECK_TEXT(import_differ("a", "2026-02-28T00:00:00", "b", "2026-03-02T00:00:00", &a),
               "another model, a and b; another time, 2 days apart: 2026-02-28T00:00:00 and "
               "2026-03-02T00:00:00");
    arena_release(&a);
}

static const char *vllm(const char *name, const char *model, const char *date)
{
    char text[700];
    snprintf(text, sizeof text,
             "{\"date\": \"%s\", \"endpoint_type\": \"vllm\", \"model_id\": \"%s\", "
             "\"duration\": 3, \"completed\": 3, "
             "\"request_throughput\": 1, \"input_lens\": [5, 6, 7], \"output_lens\": [3, 3, 3], "
             "\"ttfts\": [0.1, 0.1, 0.1], \"itls\": [[0.01, 0.01], [0.01, 0.01], [0.01, 0.01]], "
             "\"start_times\": [0.0, 1.0, 2.0], \"generated_texts\": [\"\", \"\", \"\"], "
             "\"errors\": [\"\", \"\", \"\"]}\n",
             date, model);
    return cli_put(name, text);
}

static void import(const char *from, const char *to)
{
    CHECK_INT(cli_run("", "import %s --out=%s", from, to), 0);
}

TEST(import_compares_files_that_are_given_together)
{
    char a[200], b[200], text[2000];
    snprintf(a, sizeof a, "%s", test_path("a.h5"));
    snprintf(b, sizeof b, "%s", test_path("b.h5"));
    import(vllm("a.json", "llama-25m", "20260202-024000"), a);
    CHECK_HAS(cli_out, ", 2026-02-02T02:40:00\n");
    import(vllm("b.json", "llama-110m", "20260209-024000"), b);
    /* several results in one file */
    snprintf(text, sizeof text, "cat %s %s > %s", cli_path("a.json"), cli_path("b.json"),
             cli_path("both.json"));
    CHECK_INT(cli_shell("%s", text), 0);
    CHECK_INT(cli_run("", "import %s", cli_path("both.json")), 0);
    CHECK_HAS(cli_out, "Run 1 is of another model, llama-25m and llama-110m; another time, 7 days "
                       "apart: 2026-02-02T02:40:00 and 2026-02-09T02:40:00.");
    /* runs of one configuration */
    CHECK_INT(cli_run("", "validate %s",
                      cli_put("m.yaml", "cases:\n  - {name: n, refused: why, measured: "
                                        "[a.h5, b.h5]}\n")),
              3);
    CHECK_HAS(cli_out, "  imported: n: ");
    CHECK_HAS(cli_out, "b.h5 are of another model, llama-25m and llama-110m; another time, 7 days");
    import(vllm("b.json", "llama-25m", "20260202-034000"), b);
    CHECK_INT(cli_run("", "validate %s", cli_path("m.yaml")), 3);
    CHECK(!strstr(cli_out, "imported: n"));
}

static const char *nccl(const char *name, const char *date)
{
    char text[3000], rows[2000] = "";
    for (int i = 0; i < 8; i++)
        snprintf(rows + strlen(rows), sizeof rows - strlen(rows),
                 "%s{\"size\": %d, \"count\": %d, \"type\": \"float\", \"redop\": \"sum\", "
                 "\"out_of_place\": {\"time\": %g, \"alg_bw\": 0, \"bus_bw\": 0}}",
                 i ? ", " : "", 1024 << i, 256 << i, 10 + 1e-3 * (1024 << i));
    snprintf(text, sizeof text,
             "{\"start_time\": \"%s\", \"args\": [\"./all_reduce_perf\"], \"nccl_version\": "
             "22807, \"config\": {\"nthreads\": 1, \"ngpus\": 2, \"devices\": [{\"rank\": 0, "
             "\"device_info\": \"G\"}, {\"rank\": 1, \"device_info\": \"G\"}]}, \"results\": "
             "[%s]}\n",
             date, rows);
    return cli_put(name, text);
}

TEST(calibrate_notes_imported_files_of_other_times)
{
    char a[200], b[200];
    snprintf(a, sizeof a, "%s", test_path("a.h5"));
    snprintf(b, sizeof b, "%s", test_path("b.h5"));
    if (cli_run("", "import %s --out=%s", nccl("a.json", "2026-02-02 02:40:00"), a) != 0)
        CHECK_TEXT(cli_err, "");
    import(nccl("b.json", "2026-03-02 02:40:00"), b);
    CHECK_INT(cli_run("", "calibrate %s %s", a, b), 0);
    CHECK_HAS(cli_out, ", 2026-03-02T02:40:00\n"); /* the latest, as measured and not as imported */
    CHECK_HAS(cli_out, "b.h5 are of another time, 28 days apart: 2026-02-02T02:40:00 and 2026-03-");
}
