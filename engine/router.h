/* engine/router.h - which replica gets a request.
 *
 *   round_robin   in turn
 *   least_loaded  fewest requests waiting and running; ties to the lowest number
 *   prefix        by hash of the session, or of the prompt's first shared segment, so that a
 *                 prefix meets its cache; falls back to least_loaded for requests that share
 *                 nothing, and when the chosen replica has over twice the mean load and 8 more
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_ROUTER_H
#define ENGINE_ROUTER_H

#include <stdint.h>

#include "traces/trace.h"

#define ROUTER_WORDS "round_robin least_loaded prefix"
enum router_kind { ROUTER_ROUND_ROBIN, ROUTER_LEAST_LOADED, ROUTER_PREFIX };

struct router {
    int kind, n;
    int64_t turn;
};

/* load[i]: requests of replica i. Returns 0..n-1. */
int router_pick(struct router *r, const struct trace_req *q, const int64_t *load);

#endif
