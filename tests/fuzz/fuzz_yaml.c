/* tests/fuzz/fuzz_yaml.c - YAML into a tree and into options; accepted options survive their own
 * echo. SPDX-License-Identifier: Apache-2.0 */
#include <stdbool.h>

#include "base/conf.h"
#include "tests/fuzz/fuzz.h"

struct all {
    bool flag;
    int word;
    int64_t n, tok, t_ns;
    double x, rate, bytes, bytes_per_s, flop_per_s, w, usd, usd_per_h;
    const char *text, *unset;
};
#define AT(member) offsetof(struct all, member)
/* clang-format off */
static const struct conf_row rows[] = {
    { "flag", CONF_BOOL, AT(flag), "no", NULL, 0, 0, "a" },
    { "seed", CONF_INT, AT(n), "1", NULL, 0, 9e15, "b" },
    { "policy.name", CONF_WORD, AT(word), "vllm", "static orca vllm sarathi", 0, 0, "c" },
    { "policy.max_tokens", CONF_TOKENS, AT(tok), "2048tok", NULL, 1, 1e9, "d" },
    { "workload.rate", CONF_RATE, AT(rate), "4/s", NULL, 1e-9, 1e9, "e" },
    { "workload.trace", CONF_TEXT, AT(unset), NULL, NULL, 0, 0, "f" },
    { "slo.ttft.p99", CONF_TIME, AT(t_ns), "500ms", NULL, 0, 3600, "g" },
    { "x", CONF_NUMBER, AT(x), "0.9", NULL, 0, 1, "h" },
    { "hw.mem", CONF_BYTES, AT(bytes), "80GB", NULL, 0, 0, "i" },
    { "hw.mem_rate", CONF_BYTES_PER_S, AT(bytes_per_s), "3.35TB/s", NULL, 0, 0, "j" },
    { "hw.peak", CONF_FLOP_PER_S, AT(flop_per_s), "989TFLOP/s", NULL, 0, 0, "k" },
    { "hw.power", CONF_WATT, AT(w), "700W", NULL, 0, 0, "l" },
    { "price", CONF_USD, AT(usd), "30kUSD", NULL, 0, 0, "m" },
    { "rent", CONF_USD_PER_H, AT(usd_per_h), "3USD/h", NULL, 0, 0, "n" },
    { "title", CONF_TEXT, AT(text), "", NULL, 0, 0, "o" },
    { .type = CONF_END },
};
/* clang-format on */

/* Reads the map into a fresh set; *echo gets its YAML (free it) when that worked. */
static int apply(struct arena *a, const char *name, const void *bytes, size_t n, char **echo,
                 struct err *e)
{
    struct all all;
    struct conf_set set;
    struct doc *d = NULL;
    size_t n_echo;
    int st = doc_parse_yaml(a, name, bytes, n, &d, e);
    if (st != ST_OK) return st;
    conf_init(&set, a);
    conf_add(&set, rows, &all, "all");
    if ((st = conf_apply(&set, d, "extra", e)) != ST_OK) return st;
    FILE *f = open_memstream(echo, &n_echo);
    if (!f) abort();
    conf_echo_yaml(&set, f);
    fclose(f);
    return ST_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct arena a;
    struct err e = { 0 };
    char *once = NULL, *twice = NULL;
    arena_init(&a);
    int st = apply(&a, "fuzz.yaml", data, n, &once, &e);
    fuzz_status(st, &e);
    if (st == ST_OK) {
        if (apply(&a, "echo.yaml", once, strlen(once), &twice, &e) != ST_OK)
            fprintf(stderr, "%s\n%s", e.text, once);
        FUZZ_CHECK(twice && strcmp(once, twice) == 0);
    }
    free(once);
    free(twice);
    arena_release(&a);
    return 0;
}
