/* tests/fuzz/fuzz_json.c - JSON into a tree, and a config.json into an architecture.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/doc.h"
#include "model/arch.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct arena a;
    struct err e = { 0 };
    struct doc *d = NULL;
    struct arch m;
    arena_init(&a);
    fuzz_status(doc_parse_json(&a, "fuzz.json", data, n, &d, &e), &e);
    arena_release(&a);
    err_clear(&e);
    int st = arch_parse("fuzz", data, n, &m, &e);
    fuzz_status(st, &e);
    if (st != ST_OK) return 0;
    FUZZ_CHECK(m.n_layer > 0 && m.n_head > 0 && m.n_kv_head > 0 && m.n_head % m.n_kv_head == 0);
    FUZZ_CHECK(arch_params(&m) > 0 && arch_params_active(&m) <= arch_params(&m));
    FUZZ_CHECK(arch_kv_bytes_layer(&m, 2) > 0);
    return 0;
}
