/* tests/test_json.c - JSON objects by dotted path, and how they print.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/json.h"
#include "tests/test.h"

static char *printed(const json_t *j, char *buf, size_t n)
{
    FILE *f = fmemopen(buf, n, "w");
    json_print(j, f);
    fclose(f);
    return buf;
}

TEST(json_prints_in_one_style)
{
    char b[2048];
    json_t *j = json_object(), *list = json_array();
    json_put_f64(j, "latency.ttft.mean_ns", 0.1);
    json_put_i64(j, "requests", 9007199254740993);
    json_put_f64(j, "latency.ttft.p99_ns", NAN);
    json_put_f64(j, "latency.whole", 3);
    json_put_text(j, "name", "a\"b\n\xff\xc3\xa4");
    json_put_text(j, "none", NULL);
    json_put_bool(j, "ok", true);
    json_array_append_new(list, json_integer(1));
    json_array_append_new(list, json_object());
    json_put(j, "list", list);
    CHECK_TEXT(printed(j, b, sizeof b), "{\n"
                                        "  \"latency\": {\n"
                                        "    \"ttft\": {\n"
                                        "      \"mean_ns\": 0.1,\n"
                                        "      \"p99_ns\": null\n"
                                        "    },\n"
                                        "    \"whole\": 3.0\n"
                                        "  },\n"
                                        "  \"requests\": 9007199254740993,\n"
                                        "  \"name\": \"a\\\"b\\n?\xc3\xa4\",\n"
                                        "  \"none\": null,\n"
                                        "  \"ok\": true,\n"
                                        "  \"list\": [\n"
                                        "    1,\n"
                                        "    {}\n"
                                        "  ]\n"
                                        "}\n");
    json_decref(j);
}

TEST(json_numbers_read_back_the_same)
{
    char b[256];
    srand(5);
    for (int i = 0; i < 20000; i++) {
        double v = ((double)rand() - 1e9) / (1 + rand() % 1000) * pow(10, rand() % 600 - 300);
        json_t *j = json_object();
        json_put_f64(j, "v", v);
        json_put_i64(j, "i", (int64_t)rand() << 32);
        json_t *back = json_loads(printed(j, b, sizeof b), 0, NULL);
        CHECK(back && json_equal(j, back));
        json_decref(j);
        json_decref(back);
    }
    json_t *j = json_object();
    json_put_f64(j, "v", INFINITY);
    json_put_i64(j, "i", INT64_MIN);
    json_put_f64(j, "v", -INFINITY); /* a second put replaces */
    CHECK_TEXT(printed(j, b, sizeof b), "{\n  \"v\": null,\n  \"i\": -9223372036854775808\n}\n");
    json_decref(j);
}
