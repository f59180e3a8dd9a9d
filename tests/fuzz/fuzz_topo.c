/* tests/fuzz/fuzz_topo.c - a description of a machine: nvidia-smi text, NCCL's or hwloc's XML.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/topo.h"
#include "tests/fuzz/fuzz.h"
#include "tests/topo_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct arena a;
    struct err e = { 0 };
    struct topo t;
    struct hw h;
    arena_init(&a);
    int st = topo_read(fuzz_file(0, data, n), &a, &t, &e);
    fuzz_status(st, &e);
    if (st == ST_OK) {
        const char *fault = topo_fault(&t);
        if (fault) fprintf(stderr, "not true: %s\n", fault);
        FUZZ_CHECK(!fault);
        /* the catalog is read for this: not for each input */
        if (data[n / 2] % 16 == 0) {
            struct err e2 = { 0 };
            st = topo_to_hw(&t, "h100-sxm", &a, &h, &e2);
            fuzz_status(st, &e2);
            if (st == ST_OK)
                FUZZ_CHECK(h.sys.n_gpu == t.n_gpu && (t.n_gpu < 2 || h.sys.peer_bytes_per_s > 0));
        }
    }
    arena_release(&a);
    return 0;
}
