/* tests/fuzz/fuzz_hw.c - a hardware file: one entry of the catalog, brought by the user.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/hw.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct arena a;
    struct err e = { 0 };
    struct hw h;
    arena_init(&a);
    int st = hw_load(fuzz_file(0, data, n), NULL, 2, &a, &h, &e);
    fuzz_status(st, &e);
    if (st == ST_OK) FUZZ_CHECK(h.n_node == 2 && h.sys.n_gpu > 0 && h.gpu.mem_bytes > 0);
    arena_release(&a);
    return 0;
}
