/* tests/fuzz/fuzz_csv.c - traces as csv: our own and the Azure one, and the csv of lengths.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/trace_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct arena a;
    struct err e = { 0 };
    int32_t *in, *out;
    int64_t n_len;
    check_trace(data, n, TRACE_AUTO, TRACE_CSV);
    check_trace(data, n, TRACE_AZURE, TRACE_CSV);
    arena_init(&a);
    fuzz_status(trace_lengths(fuzz_path(0), &a, &in, &out, &n_len, &e), &e);
    arena_release(&a);
    return 0;
}
