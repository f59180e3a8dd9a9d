/* tests/fuzz/fuzz_jsonl.c - traces as JSON lines: our own and the Mooncake one.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/trace_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    check_trace(data, n, TRACE_AUTO, TRACE_JSONL);
    check_trace(data, n, TRACE_MOONCAKE, TRACE_JSONL);
    return 0;
}
