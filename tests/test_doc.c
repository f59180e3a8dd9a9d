/* tests/test_doc.c - YAML and JSON trees: places, refusals, hostile files.
 * SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/doc.h"
#include "tests/test.h"

static struct arena arena;

static int yaml(const char *text, struct doc **d, struct err *e)
{
    return doc_parse_yaml(&arena, "x.yaml", text, strlen(text), d, e);
}

static int json(const char *text, struct doc **d, struct err *e)
{
    return doc_parse_json(&arena, "x.json", text, strlen(text), d, e);
}

TEST(doc_yaml_tree_and_places)
{
    struct doc *d = NULL;
    struct err e = { 0 };
    char b[64];
    CHECK_OK(yaml("# question\nstrategy: {tp: 4, pp: 1}\nrates:\n  - 4/s\n  - 'no'\nempty:\n"
                  "text: \"a\\tb\"\nfold: >\n  one\n  two\n",
                  &d, &e),
             &e);
    CHECK_INT(d->kind, DOC_MAP);
    CHECK_INT(d->n, 5);
    const struct doc *tp = doc_get(doc_get(d, "strategy"), "tp");
    CHECK_TEXT(tp->text, "4");
    CHECK_TEXT(tp->key, "tp");
    CHECK_TEXT(doc_place(tp, b, sizeof b), "x.yaml:2:16");
    CHECK_INT(tp->key_line, 2);
    CHECK_INT(tp->key_column, 12);
    CHECK_TEXT(tp->next->key, "pp");
    CHECK(!tp->next->next);
    const struct doc *rates = doc_get(d, "rates");
    CHECK_INT(rates->kind, DOC_LIST);
    CHECK_INT(rates->n, 2);
    CHECK(!rates->first->key && !rates->first->quoted);
    CHECK_TEXT(doc_place(rates->first->next, b, sizeof b), "x.yaml:5:5");
    CHECK(rates->first->next->quoted);
    CHECK_TEXT(doc_get(d, "empty")->text, "");
    CHECK(!doc_get(d, "empty")->quoted);
    CHECK_TEXT(doc_get(d, "text")->text, "a\tb");
    CHECK_TEXT(doc_get(d, "fold")->text, "one two\n");
    CHECK(!doc_get(d, "none") && !doc_get(NULL, "x") && !doc_get(rates, "x"));
    arena_release(&arena);
}

TEST(doc_yaml_typing_never_acts)
{
    struct doc *d = NULL;
    struct err e = { 0 };
    CHECK_OK(yaml("[no, 010, 1e3, ~, 0x1F, 12:30, true, .inf]", &d, &e), &e);
    static const char *const want[] = { "no", "010", "1e3", "~", "0x1F", "12:30", "true", ".inf" };
    int i = 0;
    for (const struct doc *c = d->first; c; c = c->next) CHECK_TEXT(c->text, want[i++]);
    CHECK_INT(i, 8);
    CHECK_OK(yaml("\xef\xbb\xbf"
                  "a: 1\r\nb: \xc3\xa4\r\n",
                  &d, &e),
             &e);
    CHECK_TEXT(doc_get(d, "b")->text, "\xc3\xa4");
    CHECK_INT(doc_get(d, "b")->line, 2);
    CHECK_OK(yaml("just a scalar", &d, &e), &e);
    CHECK_INT(d->kind, DOC_SCALAR);
    arena_release(&arena);
}

TEST(doc_yaml_refusals)
{
    static const struct {
        const char *text, *want;
    } row[] = { { "a: 1\nb: 2\na: 3\n",
                  "x.yaml:3:1: key 'a' stands twice in one map, first in line 1" },
                { "{a: 1, b: {c: 1, c: 2}}", "x.yaml:1:18: key 'c' stands twice in one map" },
                { "a: &x 1\n", "x.yaml:1:4: anchors (&name) are not allowed" },
                { "a: *x\n", "x.yaml:1:4: aliases (*name) are not allowed" },
                { "a: &x [1]\n", "x.yaml:1:4: anchors" },
                { "a: &x {b: 1}\n", "x.yaml:1:4: anchors" },
                { "a: !!str 1\n", "x.yaml:1:4: tags (!name) are not allowed" },
                { "a: !foo [1]\n", "x.yaml:1:4: tags" },
                { "&k a: 1\n", "x.yaml:1:1: anchors" },
                { "a: 1\n---\nb: 2\n", "x.yaml:2:1: a second document in the file" },
                { "? [a, b]\n: 1\n", "x.yaml:1:3: a key must be plain text, not a map or a list" },
                { "? {a: b}\n: 1\n", "x.yaml:1:3: a key must be plain text" },
                { "", "x.yaml:1:1: the file is empty" },
                { "# only talk\n", "x.yaml:1:1: the file is empty" },
                { "a: 1\nb: \x80\n", "x.yaml:2:4: byte 0x80 is not UTF-8" },
                { "a: \xe2\x82", "x.yaml:1:4: byte 0xe2 is not UTF-8" },
                { "a: 1\nb: \x01\n", "x.yaml:2:4: control byte 0x01 in a text file" },
                { "a: \"\\0\"\n", "x.yaml:1:4: a NUL character in a scalar" },
                { "a: {b: 1\n", "x.yaml:2:1: did not find expected ',' or '}'" },
                { "a: [1, 2\nb: 3\n", "x.yaml:2:" },
                { "a:\n\t- 1\n", "x.yaml:2:1: found character that cannot start any token" },
                { "a: 'x\n", "x.yaml:2:1: found unexpected end of stream" },
                { "a: b: c\n", "x.yaml:1:5: mapping values are not allowed in this context" },
                { "a: \xef\xbf\xbe\n", "x.yaml: control characters are not allowed" },
                { "%FOO\n a", "x.yaml:" } };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct doc *d = NULL;
        struct err e = { 0 };
        CHECK_INT(yaml(row[i].text, &d, &e), ST_USAGE);
        CHECK(!d && strncmp(e.text, row[i].want, strlen(row[i].want)) == 0);
        CHECK_HAS(e.text, row[i].want);
    }
    arena_release(&arena);
}

static char *nested(char open, int depth, char close)
{
    char *t = malloc((size_t)depth * 2 + 1);
    memset(t, open, (size_t)depth);
    memset(t + depth, close, (size_t)depth);
    t[2 * depth] = 0;
    return t;
}

TEST(doc_depth_is_bounded)
{
    struct doc *d = NULL;
    struct err e = { 0 };
    char *fine = nested('[', 64, ']'), *deep = nested('[', 65, ']');
    char *wild = nested('[', 100000, ']');
    CHECK_OK(yaml(fine, &d, &e), &e);
    CHECK_OK(json(fine, &d, &e), &e);
    CHECK_INT(yaml(deep, &d, &e), ST_USAGE);
    CHECK_TEXT(e.text, "x.yaml:1:65: nested deeper than 64 levels");
    err_clear(&e);
    CHECK_INT(json(deep, &d, &e), ST_USAGE);
    CHECK_TEXT(e.text, "x.json:1:65: nested deeper than 64 levels");
    CHECK_INT(yaml(wild, &d, NULL), ST_USAGE);
    CHECK_INT(json(wild, &d, NULL), ST_USAGE);
    free(fine);
    free(deep);
    free(wild);
    arena_release(&arena);
}

TEST(doc_large_map_is_checked_for_duplicates)
{
    enum { N = 50000 };
    char *text = malloc(N * 16), *p = text;
    struct doc *d = NULL;
    struct err e = { 0 };
    for (int i = 0; i < N; i++) p += sprintf(p, "k%d: %d\n", i, i);
    CHECK_OK(yaml(text, &d, &e), &e);
    CHECK_INT(d->n, N);
    CHECK_TEXT(doc_get(d, "k49999")->text, "49999");
    sprintf(p, "k77: 1\nk5: 1\n");
    CHECK_INT(yaml(text, &d, &e), ST_USAGE);
    CHECK_TEXT(e.text, "x.yaml:50001:1: key 'k77' stands twice in one map, first in line 78");
    free(text);
    arena_release(&arena);
}

TEST(doc_json_tree)
{
    struct doc *d = NULL;
    struct err e = { 0 };
    char b[64];
    CHECK_OK(json("\xef\xbb\xbf{\"h\": 4096, \"eps\": 1e-05, \"tie\": false, \"none\": null,\n"
                  " \"name\": \"no [[\\\"\", \"list\": [1, {\"x\": 0.1}]}",
                  &d, &e),
             &e);
    CHECK_TEXT(doc_get(d, "h")->text, "4096");
    CHECK_NEAR(strtod(doc_get(d, "eps")->text, NULL), 1e-5, 0);
    CHECK_TEXT(doc_get(d, "tie")->text, "false");
    CHECK_TEXT(doc_get(d, "none")->text, "null");
    CHECK_TEXT(doc_get(d, "name")->text, "no [[\"");
    CHECK(doc_get(d, "name")->quoted && !doc_get(d, "h")->quoted);
    CHECK_TEXT(doc_get(d, "list")->first->next->first->text, "0.10000000000000001");
    CHECK_TEXT(doc_place(d, b, sizeof b), "x.json");
    CHECK_TEXT(d->first->key, "h");
    arena_release(&arena);
}

TEST(doc_json_refusals)
{
    static const char *const bad[] = { "",
                                       " ",
                                       "{",
                                       "{\"a\": }",
                                       "{\"a\": 1, \"a\": 2}",
                                       "[1,]",
                                       "nan",
                                       "[Infinity]",
                                       "[1e9999]",
                                       "[99999999999999999999]",
                                       "{\"a\": \"\\u0000\"}",
                                       "[1] [2]",
                                       "{a: 1}",
                                       "[01]",
                                       "[\"\\ud800\"]",
                                       "[\"\x80\"]",
                                       "\"open",
                                       "// c\n[1]",
                                       "[\x01]",
                                       "\"\\" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct doc *d = NULL;
        struct err e = { 0 };
        if (!CHECK_INT(json(bad[i], &d, &e), ST_USAGE)) printf("%s\n", bad[i]);
        CHECK(!d && strncmp(e.text, "x.json:1:", 9) == 0);
    }
    struct doc *d = NULL;
    struct err e = { 0 };
    CHECK_INT(json("{\"a\": 1,\n \"b\" 2}", &d, &e), ST_USAGE);
    CHECK_HAS(e.text, "x.json:2:6: ':' expected near '2'");
    arena_release(&arena);
}

TEST(doc_reads_of_what_is_no_plain_file)
{
    struct doc *d = NULL;
    struct err e = { 0 };
    char *bytes = NULL;
    size_t n = 0;
    CHECK_INT(doc_read_yaml(&arena, test_path("absent.yaml"), &d, &e), ST_USAGE);
    CHECK_HAS(e.text, "No such file");
    err_clear(&e);
    CHECK_INT(doc_read_yaml(&arena, test_dir(), &d, &e), ST_USAGE);
    CHECK_HAS(e.text, "it is a directory");
    err_clear(&e);
    CHECK_INT(doc_read_bytes(&arena, "/dev/zero", 1 << 20, &bytes, &n, &e), ST_USAGE);
    CHECK_HAS(e.text, "/dev/zero: it is a device, not a file");
    err_clear(&e);
    CHECK_OK(doc_read_bytes(&arena, "/dev/null", 10, &bytes, &n, &e), &e);
    CHECK(n == 0 && bytes[0] == 0);
    int fd = open("/dev/zero", O_RDONLY);
    char handed[32];
    snprintf(handed, sizeof handed, "/dev/fd/%d", fd);
    CHECK_INT(doc_read_bytes(&arena, handed, 1 << 20, &bytes, &n, &e), ST_USAGE);
    CHECK_HAS(e.text, ": longer than 1.049 MB");
    close(fd);
    err_clear(&e);
    CHECK_OK(doc_read_bytes(&arena, "/proc/self/stat", 1 << 20, &bytes, &n, &e), &e);
    CHECK(n > 0 && strlen(bytes) == n);
    arena_release(&arena);
}

TEST(doc_reads_up_to_its_limit)
{
    struct err e = { 0 };
    char *bytes = NULL;
    size_t n = 0;
    const char *path = test_path("x.yaml");
    FILE *f = fopen(path, "w");
    fwrite("a: 1\0b", 1, 6, f);
    fclose(f);
    CHECK_OK(doc_read_bytes(&arena, path, 6, &bytes, &n, &e), &e);
    CHECK(n == 6 && memcmp(bytes, "a: 1\0b", 7) == 0);
    CHECK_INT(doc_read_bytes(&arena, path, 5, &bytes, &n, &e), ST_USAGE);
    CHECK_HAS(e.text, "x.yaml: longer than 5 bytes");
    err_clear(&e);
    struct doc *d = NULL;
    CHECK_INT(doc_read_yaml(&arena, path, &d, &e), ST_USAGE);
    CHECK_HAS(e.text, "x.yaml:1:5: control byte 0x00 in a text file");
    CHECK_INT(doc_read_json(&arena, path, &d, NULL), ST_USAGE);
    const char *fifo = test_path("fifo");
    char cmd[1200];
    CHECK_INT(mkfifo(fifo, 0600), 0);
    err_clear(&e);
    CHECK_INT(doc_read_bytes(&arena, fifo, 200000, &bytes, &n, &e), ST_USAGE);
    CHECK_HAS(e.text, "it is a pipe, not a file");
    snprintf(cmd, sizeof cmd, "(head -c 200000 /dev/zero | tr '\\0' x > %s) &", fifo);
    CHECK_INT(test_run(cmd, NULL, 0, NULL, 0), 0);
    err_clear(&e);
    int fd = open(fifo, O_RDONLY); /* the shell does that for /dev/stdin and <(...) */
    snprintf(cmd, sizeof cmd, "/dev/fd/%d", fd);
    CHECK_OK(doc_read_bytes(&arena, cmd, 200000, &bytes, &n, &e), &e);
    CHECK_INT(n, 200000);
    CHECK(bytes[0] == 'x' && bytes[199999] == 'x' && bytes[200000] == 0);
    close(fd);
    arena_release(&arena);
}

/* Random damage to a good file: every outcome is a tree or one sentence, and no sanitizer report.
 */
TEST(doc_survives_random_damage)
{
    static const char good[] =
        "a: {b: [1, 'x', \"y\\n\"], c: >\n d}\ne:\n- f: 1\n  g: |\n   t\n- !x &y *z\n";
    static const char goodj[] = "{\"a\": [1, -2.5e3, \"\\u00e4\", null], \"b\": {\"c\": true}}";
    srand(3);
    for (int i = 0; i < 6000; i++) {
        char t[sizeof good];
        bool j = i % 2;
        size_t n = (j ? sizeof goodj : sizeof good) - 1;
        memcpy(t, j ? goodj : good, n + 1);
        for (int k = rand() % 4; k >= 0; k--) {
            static const char odd[] = "{}[]:,-?&*!|>'\"%@#\n\t \\\x80\xff"
                                      "0aZ";
            t[(size_t)rand() % n] = odd[(size_t)rand() % (sizeof odd - 1)];
        }
        struct doc *d = NULL;
        struct err e = { 0 };
        n = (size_t)rand() % (n + 1);
        int st = j ? doc_parse_json(&arena, "x", t, n, &d, &e)
                   : doc_parse_yaml(&arena, "x", t, n, &d, &e);
        CHECK(st == ST_OK ? d && !e.text[0]
                          : st == ST_USAGE && !d && strncmp(e.text, "x:", 2) == 0);
        arena_release(&arena);
    }
}
