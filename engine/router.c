/* engine/router.c - see router.h. SPDX-License-Identifier: Apache-2.0 */
#include "engine/router.h"

#include "base/rng.h"

static int least_loaded(const struct router *r, const int64_t *load)
{
    int best = 0;
    for (int i = 1; i < r->n; i++)
        if (load[i] < load[best]) best = i;
    return best;
}

int router_pick(struct router *r, const struct trace_req *q, const int64_t *load)
{
    if (r->n == 1) return 0;
    if (r->kind == ROUTER_ROUND_ROBIN) return (int)(r->turn++ % r->n);
    if (r->kind == ROUTER_PREFIX && (q->session >= 0 || q->n_seg > 0)) {
        uint64_t key = q->session >= 0 ? (uint64_t)q->session : q->seg[0].key;
        int i = (int)(mix64(key) % (uint64_t)r->n);
        int64_t sum = 0;
        for (int k = 0; k < r->n; k++) sum += load[k];
        if (load[i] * r->n <= 2 * sum + 8 * (int64_t)r->n) return i;
    }
    return least_loaded(r, load);
}
