/* tests/test.h - a test is a function; each runs in its own process with a time limit.
 *
 *     TEST(units_refuses_a_bare_number)
 *     {
 *         double v;
 *         CHECK_INT(units_parse(UNIT_RATE, "6", &v, NULL), ST_USAGE);
 *     }
 *
 * A failed CHECK prints file:line, actual and expected, and the test goes on; it has then failed.
 * SKIP("why") ends the test and is counted. Temporary files go under test_dir(), removed
 * afterwards. SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_TEST_H
#define TESTS_TEST_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/err.h"

struct test {
    const char *name;
    const char *file;
    void (*fn)(void);
    int limit_s;
    struct test *next;
};
void test_register(struct test *t);

#define TEST_LIMIT(name_, limit_)                                                                  \
    static void test_##name_(void);                                                                \
    static struct test test_reg_##name_ = { #name_, __FILE__, test_##name_, limit_, NULL };        \
    __attribute__((constructor)) static void test_ctor_##name_(void)                               \
    {                                                                                              \
        test_register(&test_reg_##name_);                                                          \
    }                                                                                              \
    static void test_##name_(void)
#define TEST(name_) TEST_LIMIT(name_, 60)

bool test_check(bool ok, const char *file, int line, const char *what);
bool test_check_int(int64_t got, int64_t want, const char *file, int line, const char *what);
bool test_check_near(double got, double want, double rel, const char *file, int line,
                     const char *what);
bool test_check_text(const char *got, const char *want, const char *file, int line,
                     const char *what);
bool test_check_has(const char *got, const char *part, const char *file, int line,
                    const char *what);
void test_skip(const char *why) __attribute__((noreturn));

#define CHECK(cond) test_check((cond), __FILE__, __LINE__, #cond)
#define CHECK_INT(got, want)                                                                       \
    test_check_int((int64_t)(got), (int64_t)(want), __FILE__, __LINE__, #got)
/* |got - want| <= rel * max(|got|, |want|), or both NAN */
#define CHECK_NEAR(got, want, rel) test_check_near((got), (want), (rel), __FILE__, __LINE__, #got)
#define CHECK_TEXT(got, want)      test_check_text((got), (want), __FILE__, __LINE__, #got)
#define CHECK_HAS(got, part)       test_check_has((got), (part), __FILE__, __LINE__, #got)
#define CHECK_OK(call, e)                                                                          \
    do {                                                                                           \
        if ((call) != ST_OK) {                                                                     \
            test_check_text((e)->text, "(no error)", __FILE__, __LINE__, #call);                   \
            return;                                                                                \
        }                                                                                          \
    } while (0)
#define SKIP(why) test_skip(why)

const char *test_dir(void);              /* a fresh directory of this test, removed after it */
const char *test_path(const char *name); /* test_dir()/name, in a static ring of 8 buffers */
/* A file of the real data ($ORRERY_DATA, default ../shared/data), or skips the test, counted. */
const char *test_data(const char *relative);
/* Compares text with tests/golden/<name>; with --write-golden writes it instead. */
void test_golden(const char *name, const char *text);
int test_slow(void); /* what limits in seconds are multiplied by: more than 1 with sanitizers */
/* Runs a shell command; stdout and stderr of at most n-1 bytes each; returns the exit status. */
int test_run(const char *cmd, char *out, size_t n_out, char *err, size_t n_err);

#endif
