/* tests/test_units.c - quantities as text: known answers, refusals, round trips.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/arena.h"
#include "base/units.h"
#include "tests/test.h"

TEST(units_known_answers)
{
    static const struct {
        enum unit u;
        const char *text;
        double want;
    } row[] = { { UNIT_TIME, "500ms", 0.5 },
                { UNIT_TIME, "0.1ms", 1e-4 },
                { UNIT_TIME, "3us", 3e-6 },
                { UNIT_TIME, "7ns", 7e-9 },
                { UNIT_TIME, "2min", 120 },
                { UNIT_TIME, "1.5h", 5400 },
                { UNIT_TIME, "2d", 172800 },
                { UNIT_TIME, "-1s", -1 },
                { UNIT_RATE, "8.5/s", 8.5 },
                { UNIT_RATE, "90/min", 1.5 },
                { UNIT_RATE, "7200/h", 2 },
                { UNIT_RATE, "+1e3/s", 1000 },
                { UNIT_BYTES, "80GB", 80e9 },
                { UNIT_BYTES, "64GiB", 64.0 * 1073741824 },
                { UNIT_BYTES, "1TiB", 1099511627776 },
                { UNIT_BYTES, "12B", 12 },
                { UNIT_BYTES, "4kB", 4000 },
                { UNIT_BYTES, "4KiB", 4096 },
                { UNIT_BYTES_PER_S, "900GB/s", 900e9 },
                { UNIT_BYTES_PER_S, "1MiB/s", 1048576 },
                { UNIT_FLOP_PER_S, "989TFLOP/s", 989e12 },
                { UNIT_FLOP_PER_S, "1.9PFLOP/s", 1.9e15 },
                { UNIT_TOKENS, "1.2ktok", 1200 },
                { UNIT_TOKENS, "3Mtok", 3e6 },
                { UNIT_WATT, "700W", 700 },
                { UNIT_WATT, "10.2kW", 10200 },
                { UNIT_USD, "30kUSD", 30000 },
                { UNIT_USD_PER_H, "2.95USD/h", 2.95 },
                { UNIT_RATIO, "0.95", 0.95 },
                { UNIT_RATIO, "1e-3", 1e-3 },
                { UNIT_COUNT, "12", 12 },
                { UNIT_COUNT, "10k", 10000 },
                { UNIT_COUNT, "1.5M", 1500000 },
                { UNIT_COUNT, "-3", -3 },
                { UNIT_COUNT, "010", 10 },
                { UNIT_TIME, "0s", 0 } };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct err e = { 0 };
        double v = -99;
        CHECK_OK(units_parse(row[i].u, row[i].text, &v, &e), &e);
        CHECK_NEAR(v, row[i].want, 3e-16);
    }
}

TEST(units_sentences)
{
    static const struct {
        enum unit u;
        const char *text, *want;
    } row[] = { { UNIT_RATE, "6", "'6' has no unit; write 6/s or 6/min" },
                { UNIT_TIME, "30", "'30' has no unit; write 30ms or 30s" },
                { UNIT_BYTES, "80", "'80' has no unit; write 80GB or 80GiB" },
                { UNIT_BYTES_PER_S, "900", "'900' has no unit; write 900GB/s or 900GiB/s" },
                { UNIT_FLOP_PER_S, "1e15", "'1e15' has no unit; write 1e15GFLOP/s or 1e15TFLOP/s" },
                { UNIT_TOKENS, "512", "'512' has no unit; write 512tok or 512ktok" },
                { UNIT_WATT, "700", "'700' has no unit; write 700W or 700kW" },
                { UNIT_USD, "3", "'3' has no unit; write 3USD or 3kUSD" },
                { UNIT_USD_PER_H, "3", "'3' has no unit; write 3USD/h" },
                { UNIT_TIME, "", "'' is empty; write a time as in 500ms" },
                { UNIT_BYTES, "1 GB", "'1 GB' has a blank in it; write it without, as in 80GB" },
                { UNIT_BYTES, "80Gb",
                  "'80Gb' is not an amount of bytes: its unit is none of "
                  "B kB MB GB TB KiB MiB GiB TiB; write it as in 80GB" },
                { UNIT_BYTES, "0x10GB",
                  "'0x10GB' is not an amount of bytes: its unit is none of "
                  "B kB MB GB TB KiB MiB GiB TiB; write it as in 80GB" },
                { UNIT_TIME, "infs", "'infs' is not a time; write it as in 500ms" },
                { UNIT_RATIO, "nan", "'nan' is not a pure number; write it as in 0.5" },
                { UNIT_RATIO, "50%", "'50%' is a percentage; write 0.5" },
                { UNIT_RATIO, "5x", "'5x' is not a pure number; write it as in 0.5" },
                { UNIT_COUNT, "1.5", "'1.5' is not a whole number; write it as in 12 or 10k" },
                { UNIT_COUNT, "1e17", "'1e17' is past 2^53, where counts are no longer exact" },
                { UNIT_RATIO, "1e9999", "'1e9999' is too large" },
                { UNIT_FLOP_PER_S, "1e300PFLOP/s", "'1e300PFLOP/s' is too large" },
                { UNIT_RATIO, "1e-9999", "'1e-9999' is too small" } };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct err e = { 0 };
        double v = -99;
        CHECK_INT(units_parse(row[i].u, row[i].text, &v, &e), ST_USAGE);
        CHECK_TEXT(e.text, row[i].want);
        CHECK(v == -99);
    }
}

TEST(units_refuses_all_but_the_grammar)
{
    static const char *const bad[] = { ".5s",    "5.s",  "1e s", "--1s",  "+-1s",   "1,5s",
                                       "1_000s", " 1s",  "1s ",  "1\ts",  "s",      "e5s",
                                       "1e+s",   "INFs", "NaNs", "-infs", "0x1p3s", "1.2.3s",
                                       "1S",     "1sec", "1s1",  "1m",    "\xffs",  "1\xc2\xb5s",
                                       "1.e5s",  "+",    "-",    "1E3s" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        double v = -99;
        int64_t ns = -99;
        if (!CHECK_INT(units_parse(UNIT_TIME, bad[i], &v, NULL), ST_USAGE)) printf("%s\n", bad[i]);
        CHECK_INT(units_parse_ns(bad[i], &ns, NULL), ST_USAGE);
        CHECK(v == -99 && ns == -99);
    }
}

TEST(units_survives_very_long_text)
{
    enum { N = 1 << 20 };
    char *text = malloc(N + 1);
    struct err e = { 0 };
    double v = 0;
    memset(text, '9', N);
    text[N] = 0;
    CHECK_INT(units_parse(UNIT_RATIO, text, &v, &e), ST_USAGE);
    CHECK_HAS(e.text, "999...' is too large");
    err_clear(&e);
    CHECK_INT(units_parse(UNIT_TIME, text, &v, &e), ST_USAGE);
    CHECK_HAS(e.text, "...' has no unit");
    memset(text, 'x', N);
    CHECK_INT(units_parse(UNIT_BYTES, text, &v, NULL), ST_USAGE);
    memset(text, '0', N);
    text[N - 1] = 's';
    CHECK_INT(units_parse(UNIT_TIME, text, &v, NULL), ST_OK);
    CHECK(v == 0);
    free(text);
}

TEST(units_ns_is_exact_and_bounded)
{
    static const struct {
        const char *text;
        int64_t want;
    } row[] = { { "1ns", 1 },
                { "1.5us", 1500 },
                { "0.1ms", 100000 },
                { "1.0000000006s", 1000000001 },
                { "-2s", -2000000000 },
                { "1h", 3600000000000 },
                { "365d", 31536000000000000 },
                { "1234567890123456789ns", 1234567890123456789 },
                { "1234567890.123456789s", 1234567890123456789 },
                { "0.4ns", 0 },
                { "0.6ns", 1 } };
    int64_t v;
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct err e = { 0 };
        CHECK_OK(units_parse_ns(row[i].text, &v, &e), &e);
        CHECK_INT(v, row[i].want);
    }
    struct err e = { 0 };
    CHECK_INT(units_parse_ns("36526d", &v, &e), ST_USAGE);
    CHECK_TEXT(e.text, "'36526d' is longer than 100 years");
    CHECK_INT(units_parse_ns("1e300s", &v, NULL), ST_USAGE);
}

TEST(units_text_known_answers)
{
    char b[64];
    CHECK_TEXT(units_text(UNIT_RATE, 8.5, b, sizeof b), "8.5/s");
    CHECK_TEXT(units_text(UNIT_TIME, 0.5, b, sizeof b), "500ms");
    CHECK_TEXT(units_text(UNIT_TIME, 0, b, sizeof b), "0s");
    CHECK_TEXT(units_text(UNIT_BYTES, 1.5 * 1073741824, b, sizeof b), "1.610612736GB");
    CHECK_TEXT(units_text(UNIT_BYTES_PER_S, 900e9, b, sizeof b), "900GB/s");
    CHECK_TEXT(units_text(UNIT_FLOP_PER_S, 989e12, b, sizeof b), "989TFLOP/s");
    CHECK_TEXT(units_text(UNIT_TOKENS, 1200, b, sizeof b), "1.2ktok");
    CHECK_TEXT(units_text(UNIT_COUNT, 10000, b, sizeof b), "10000");
    CHECK_TEXT(units_text(UNIT_USD_PER_H, 2.95, b, sizeof b), "2.95USD/h");
    CHECK_TEXT(units_text(UNIT_RATIO, 0.1, b, sizeof b), "0.1");
    CHECK_TEXT(units_text(UNIT_TIME, -0.25, b, sizeof b), "-250ms");
    CHECK_TEXT(units_text_ns(1500000000, b, sizeof b), "1.5s");
    CHECK_TEXT(units_text_ns(0, b, sizeof b), "0s");
    CHECK_TEXT(units_text_ns(-250, b, sizeof b), "-250ns");
    CHECK_TEXT(units_text_ns(30050000, b, sizeof b), "30.05ms");
}

static double random_value(void)
{
    double m = (double)rand() / RAND_MAX + (double)rand() / RAND_MAX / RAND_MAX;
    return (rand() % 2 ? 1 : -1) * m * pow(10, rand() % 60 - 30);
}

TEST(units_text_round_trips)
{
    static const enum unit all[] = { UNIT_TIME,       UNIT_RATE,   UNIT_BYTES, UNIT_BYTES_PER_S,
                                     UNIT_FLOP_PER_S, UNIT_TOKENS, UNIT_WATT,  UNIT_USD,
                                     UNIT_USD_PER_H,  UNIT_RATIO };
    char b[64];
    srand(1);
    for (int i = 0; i < 100000; i++) {
        enum unit u = all[i % 10];
        double v = random_value(), back = 0;
        struct err e = { 0 };
        units_text(u, v, b, sizeof b);
        CHECK_OK(units_parse(u, b, &back, &e), &e);
        if (!CHECK_NEAR(back, v, u == UNIT_FLOP_PER_S ? 1e-15 : 0)) return;
    }
    for (int i = 0; i < 100000; i++) {
        int64_t v = ((int64_t)rand() << 31 | rand()) >> rand() % 62, back = 0;
        v %= 3155760000000000000;
        if (rand() % 2) v = -v;
        struct err e = { 0 };
        units_text_ns(v, b, sizeof b);
        CHECK_OK(units_parse_ns(b, &back, &e), &e);
        if (!CHECK_INT(back, v)) return;
    }
}

TEST(units_human_known_answers)
{
    char b[64];
    CHECK_TEXT(units_human(UNIT_TIME, 0.03246, b, sizeof b), "32.46 ms");
    CHECK_TEXT(units_human(UNIT_BYTES, 1.05e9, b, sizeof b), "1.05 GB");
    CHECK_TEXT(units_human(UNIT_TIME, 0.99996, b, sizeof b), "1.00 s");
    CHECK_TEXT(units_human(UNIT_TIME, 7200, b, sizeof b), "120.0 min");
    CHECK_TEXT(units_human(UNIT_TIME, 0, b, sizeof b), "0 s");
    CHECK_TEXT(units_human(UNIT_TIME, NAN, b, sizeof b), "n/a");
    CHECK_TEXT(units_human(UNIT_COUNT, 12, b, sizeof b), "12");
    CHECK_TEXT(units_human(UNIT_COUNT, 1.25e6, b, sizeof b), "1.25 M");
    CHECK_TEXT(units_human(UNIT_RATE, 8.5, b, sizeof b), "8.50 /s");
    CHECK_TEXT(units_human(UNIT_RATIO, 0.0123, b, sizeof b), "0.0123");
    CHECK_TEXT(units_human(UNIT_FLOP_PER_S, 9.89e14, b, sizeof b), "989.0 TFLOP/s");
    CHECK_TEXT(units_human_ns(1.5e6, b, sizeof b), "1.50 ms");
    CHECK_TEXT(units_human_ns(-1.5e6, b, sizeof b), "-1.50 ms");
}

TEST(units_cell_shows_what_there_is_none_of_as_a_dash)
{
    struct arena a;
    char b[64];
    CHECK_TEXT(units_cell(UNIT_BYTES, 1.05e9, b, sizeof b), "1.05 GB");
    CHECK_TEXT(units_cell(UNIT_TIME, NAN, b, sizeof b), "-");
    CHECK_TEXT(units_cell_ns(1.5e6, b, sizeof b), "1.50 ms");
    CHECK_TEXT(units_cell_ns(NAN, b, sizeof b), "-");
    arena_init(&a);
    CHECK_TEXT(units_cell_in(&a, UNIT_RATE, 8.5), "8.50 /s");
    CHECK_TEXT(units_cell_in(&a, UNIT_RATE, NAN), "-");
    arena_release(&a);
}
