/* tests/test_err.c - the sentence of a failure, and the memory it may come from.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/paths.h"
#include "base/utf8.h"
#include "tests/alloc.h"
#include "tests/test.h"

TEST(err_first_failure_wins)
{
    struct err e = { 0 };
    CHECK_INT(err_set(&e, ST_USAGE, "%s:%d: bad", "x.yaml", 3), ST_USAGE);
    CHECK_INT(err_set(&e, ST_IO, "later"), ST_IO);
    CHECK_TEXT(e.text, "x.yaml:3: bad");
    CHECK_INT(e.status, ST_USAGE);
    err_prefix(&e, "profile %d", 2);
    CHECK_TEXT(e.text, "profile 2: x.yaml:3: bad");
    err_clear(&e);
    err_prefix(&e, "nothing to prefix");
    CHECK_TEXT(e.text, "");
    CHECK_INT(err_set(NULL, ST_IO, "nobody listens"), ST_IO);
}

TEST(err_is_one_harmless_line)
{
    struct err e = { 0 };
    err_set(&e, ST_USAGE, "a\x1b[31m\nb\x7f \xc3\xa4 \xc2\x9b \xff\xc3");
    CHECK_TEXT(e.text, "a?[31m?b? \xc3\xa4 ? ??");
}

TEST(err_cuts_long_text_between_characters)
{
    for (size_t lead = 0; lead < 4; lead++) {
        struct err e = { 0 };
        char *text = mem_alloc(4000);
        size_t at = 0;
        while (at < lead) text[at++] = 'x';
        while (at < 3990) {
            memcpy(text + at, "\xf0\x9f\x98\x80", 4); /* four bytes, one character */
            at += 4;
        }
        text[at] = 0;
        err_set(&e, ST_USAGE, "%s", text);
        size_t n = strlen(e.text);
        CHECK(n < sizeof e.text && n > sizeof e.text - 9);
        CHECK_TEXT(e.text + n - 3, "...");
        CHECK(!strchr(e.text, '?'));
        err_prefix(&e, "%s", text);
        CHECK(!strchr(e.text, '?'));
        CHECK_TEXT(e.text + strlen(e.text) - 3, "...");
        free(text);
    }
}

TEST(utf8_steps_over_well_formed_sequences_only)
{
    static const struct {
        const char *bytes;
        size_t n, step;
        uint32_t code;
    } row[] = { { "a", 1, 1, 'a' },
                { "\xc3\xa4", 2, 2, 0xe4 },
                { "\xe2\x82\xac", 3, 3, 0x20ac },
                { "\xf0\x9f\x98\x80", 4, 4, 0x1f600 },
                { "\xf4\x8f\xbf\xbf", 4, 4, 0x10ffff },
                { "\xc3\xa4", 1, 0, 0 },         /* cut short */
                { "\xc0\x80", 2, 0, 0 },         /* overlong NUL */
                { "\xe0\x80\xaf", 3, 0, 0 },     /* overlong slash */
                { "\xed\xa0\x80", 3, 0, 0 },     /* surrogate */
                { "\xf4\x90\x80\x80", 4, 0, 0 }, /* past U+10FFFF */
                { "\x80", 1, 0, 0 },
                { "\xff", 1, 0, 0 },
                { "\xc3(", 2, 0, 0 } };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        uint32_t code = 0;
        CHECK_INT(utf8_step(row[i].bytes, row[i].n, &code), row[i].step);
        CHECK_INT(code, row[i].code);
    }
}

TEST(arena_gives_zeroed_aligned_memory_that_does_not_overlap)
{
    struct arena a;
    enum { N = 2000 };
    static unsigned char *p[N];
    static size_t size[N];
    arena_init(&a);
    srand(7);
    for (int i = 0; i < N; i++) {
        size[i] = (size_t)(i % 97 == 0 ? rand() % 2000000 : rand() % 300);
        if (i % 53 == 0) arena_reserve(&a, (size_t)(rand() % 20000));
        p[i] = arena_alloc(&a, size[i]);
        CHECK_INT((uintptr_t)p[i] % 16, 0);
        for (size_t k = 0; k < size[i]; k += 1 + size[i] / 64) CHECK(p[i][k] == 0);
        if (size[i]) memset(p[i], i & 255, size[i]);
    }
    size_t sum = 0;
    for (int i = 0; i < N; i++) {
        sum += size[i];
        for (size_t k = 0; k < size[i]; k += 1 + size[i] / 64) CHECK(p[i][k] == (i & 255));
    }
    CHECK(a.total_bytes >= sum && a.total_bytes <= sum + 16 * N);
    arena_release(&a);
    CHECK(!a.last && a.total_bytes == 0);
}

TEST(arena_asks_for_nothing_within_what_is_reserved)
{
    struct arena a;
    arena_init(&a);
    for (int i = 0; i < 3; i++) {
        arena_alloc(&a, 100);
        arena_reserve(&a, 100000);
        int64_t before = alloc_made();
        arena_reserve(&a, 100000);
        arena_alloc(&a, 60000);
        for (int k = 0; k < 2500; k++) arena_alloc(&a, 16);
        CHECK_INT(alloc_made(), before);
        arena_alloc(&a, 16);
        if (i == 0 && alloc_counts()) CHECK_INT(alloc_made(), before + 1);
    }
    arena_release(&a);
}

TEST(arena_texts)
{
    struct arena a;
    arena_init(&a);
    CHECK_TEXT(arena_copy_text(&a, "hello", 3), "hel");
    CHECK_TEXT(arena_copy_text(&a, NULL, 0), "");
    CHECK_TEXT(arena_printf(&a, "%d %s", 42, "x"), "42 x");
    CHECK_INT(strlen(arena_printf(&a, "%100000d", 1)), 100000);
    CHECK(arena_alloc(&a, 0) != arena_alloc(&a, 0));
    arena_release(&a);
}

TEST(paths_are_found_in_order_and_every_place_is_named)
{
    char buf[512];
    struct err e = { 0 };
    const char *file = test_path("thing.yaml");
    FILE *f = fopen(file, "w");
    CHECK(f != NULL);
    if (f) fclose(f);
    setenv("ORRERY_HOME", test_dir(), 1);
    CHECK_OK(paths_find("thing.yaml", buf, sizeof buf, &e), &e);
    CHECK_TEXT(buf, file);
    CHECK_INT(paths_find("no/such.yaml", buf, sizeof buf, &e), ST_IO);
    CHECK_HAS(e.text, "cannot find 'no/such.yaml'; looked in ");
    CHECK_HAS(e.text, test_dir());
    CHECK_HAS(e.text, "/share/orrery");
    CHECK_HAS(e.text, "the current directory");
    CHECK_INT(paths_find("thing.yaml", buf, 5, NULL), ST_IO);
    CHECK_OK(paths_resolve(file, NULL, "x", ".y", buf, sizeof buf, &e), &e);
    CHECK_TEXT(buf, file);
    CHECK_OK(paths_resolve("thing.yaml", test_path("other.yaml"), "x", ".y", buf, sizeof buf, &e),
             &e);
    CHECK_TEXT(buf, file);
    CHECK_OK(paths_resolve("thing", NULL, ".", ".yaml", buf, sizeof buf, &e), &e);
    CHECK_HAS(buf, "/./thing.yaml");
    CHECK_INT(paths_resolve("", NULL, "models", ".json", buf, sizeof buf, NULL), ST_USAGE);
    /* A name is the user's: nothing of that name is his mistake, and where it was looked for is said. */
    err_clear(&e);
    CHECK_INT(paths_resolve("such", NULL, "no", ".json", buf, sizeof buf, &e), ST_USAGE);
    CHECK_HAS(e.text, "no file 'such', and cannot find 'no/such.json'; looked in ");
    CHECK(!strstr(e.text, "ORRERY_HOME"));
    err_clear(&e);
    CHECK_INT(paths_resolve("/no/such", NULL, "no", ".json", buf, sizeof buf, &e), ST_USAGE);
    CHECK_TEXT(e.text, "cannot read /no/such: No such file or directory");
    unsetenv("ORRERY_HOME");
    err_clear(&e);
    CHECK_INT(paths_find("no/such.yaml", buf, sizeof buf, &e), ST_IO);
    CHECK_HAS(e.text, "the current directory (ORRERY_HOME=DIR names another place)");
}
