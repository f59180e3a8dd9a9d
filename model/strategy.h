/* model/strategy.h - how a model is cut over GPUs: TP, PP, DP, EP, layers per stage, number
 * formats. SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_STRATEGY_H
#define MODEL_STRATEGY_H

#include <stdint.h>

#include "base/conf.h"
#include "base/err.h"
#include "model/arch.h"
#include "model/dtype.h"
#include "model/hw.h"

enum { STRATEGY_MAX_PP = 64 };

struct strategy {
    int64_t tp, pp, dp, ep;
    int weight_dtype, kv_dtype; /* enum dtype; compute is bf16 (f16 where the GPU lacks bf16) */
    const char *split;          /* "auto" (balance predicted time), "equal", or "20,20,19,21" */
};

extern const struct conf_row strategy_rows[]; /* keys strategy.tp ... */

/* Divisibility and fit of the degrees: heads % tp, kv heads (tp % kv or kv % tp), ffn % tp,
 * experts % ep, ep within the tp group (tp % ep, ffn % (tp/ep)),
 * pp <= layers, tp*pp <= GPUs... (dp*tp*pp over the cluster), dtypes the GPU supports. One
 * sentence, naming the nearest degrees that work. Errors: ST_USAGE. */
int strategy_check(const struct strategy *s, const struct arch *a, const struct hw *h,
                   struct err *e);

/* Layers per stage that minimise the slowest stage, for identical layers of `layer` cost each, plus
 * `first` on stage 0 and `last` on stage pp-1 (embedding; head). Contiguous, every stage >= 1
 * layer. Exact optimum; ties give the remainder to middle stages first. Source: fill to the mean
 * cost, then greedily where the cost after a layer is least (exact for equal layers); checked
 * against exhaustive search in the tests. */
void strategy_balance(int n_layer, int pp, double layer, double first, double last, int *out);
/* Load imbalance epsilon of stage costs: max/mean - 1. */
double strategy_epsilon(const double *cost, int n);
/* Parses "20,20,19,21": pp positive integers that add up to n_layer. Errors: ST_USAGE. */
int strategy_parse_split(const char *text, int n_layer, int pp, int *out, struct err *e);

#endif
