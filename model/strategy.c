/* model/strategy.c - checks the degrees of a strategy and divides layers over stages.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/strategy.h"
#include "base/units.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TP = 1024, MAX_DP = 4096, LIST_BYTES = 240 };

/* clang-format off */
const struct conf_row strategy_rows[] = {
    { "strategy.tp", CONF_INT, offsetof(struct strategy, tp), "1", NULL, 1, MAX_TP,
      "tensor-parallel degree: GPUs that share each layer" },
    { "strategy.pp", CONF_INT, offsetof(struct strategy, pp), "1", NULL, 1, STRATEGY_MAX_PP,
      "pipeline stages" },
    { "strategy.dp", CONF_INT, offsetof(struct strategy, dp), "1", NULL, 1, MAX_DP,
      "replicas behind the router" },
    { "strategy.ep", CONF_INT, offsetof(struct strategy, ep), "1", NULL, 1, MAX_TP,
      "expert-parallel degree, within the tp group" },
    { "strategy.weights", CONF_WORD, offsetof(struct strategy, weight_dtype), "bf16", DTYPE_WORDS,
      0, 0, "format of the layers' matrices" },
    { "strategy.kv", CONF_WORD, offsetof(struct strategy, kv_dtype), "bf16", DTYPE_WORDS, 0, 0,
      "format of the KV cache" },
    { "strategy.split", CONF_TEXT, offsetof(struct strategy, split), "auto", NULL, 0, 0,
      "layers per stage: auto (equal time), equal, or a list such as 20,20,19,21" },
    { .type = CONF_END }
};
/* clang-format on */

/* ---- degrees */

static bool kv_divides(const struct arch *a, int64_t tp)
{
    return a->n_kv_head % tp == 0 || tp % a->n_kv_head == 0;
}

static bool ffn_divides(const struct arch *a, int64_t tp, int64_t ep)
{
    return a->ffn % (tp / ep) == 0;
}

/* With experts any tp has some ep that divides it, so the MLP says nothing yet. */
static bool tp_works(const struct arch *a, int64_t tp)
{
    return a->n_head % tp == 0 && kv_divides(a, tp) && (a->n_expert > 0 || ffn_divides(a, tp, 1));
}

static bool ep_works(const struct arch *a, int64_t tp, int64_t ep)
{
    return tp % ep == 0 && a->n_expert % ep == 0 && ffn_divides(a, tp, ep);
}

static void append(char *list, int64_t v)
{
    size_t at = strlen(list);
    if (at + 24 < LIST_BYTES)
        snprintf(list + at, LIST_BYTES - at, "%s%" PRId64, at ? ", " : "", v);
    else if (list[at - 1] != '.')
        snprintf(list + at, LIST_BYTES - at, ", ...");
}

static int check_tp(const struct strategy *s, const struct arch *a, struct err *e)
{
    char list[LIST_BYTES] = "";
    if (tp_works(a, s->tp)) return ST_OK;
    for (int64_t t = 1; t <= MAX_TP; t++)
        if (tp_works(a, t)) append(list, t);
    if (a->n_head % s->tp != 0)
        return err_set(e, ST_USAGE, "tp %" PRId64 " does not divide %d heads; degrees that do: %s",
                       s->tp, a->n_head, list);
    if (!kv_divides(a, s->tp))
        return err_set(e, ST_USAGE,
                       "tp %" PRId64
                       " neither divides %d KV heads nor is a multiple of them; degrees "
                       "that work: %s",
                       s->tp, a->n_kv_head, list);
    return err_set(e, ST_USAGE, "tp %" PRId64 " does not divide an MLP of %d; degrees that do: %s",
                   s->tp, a->ffn, list);
}

static int check_ep(const struct strategy *s, const struct arch *a, struct err *e)
{
    char list[LIST_BYTES] = "";
    if (s->ep > 1 && a->n_expert == 0)
        return err_set(e, ST_USAGE, "ep %" PRId64 ": %s has no experts; leave ep at 1", s->ep,
                       a->name);
    if (a->n_expert == 0 || ep_works(a, s->tp, s->ep)) return ST_OK;
    for (int64_t x = 1; x <= s->tp; x++)
        if (ep_works(a, s->tp, x)) append(list, x);
    if (!*list) snprintf(list, sizeof list, "none at this tp");
    if (s->tp % s->ep != 0)
        return err_set(e, ST_USAGE,
                       "ep %" PRId64 " does not divide tp %" PRId64
                       " (experts are spread over the GPUs "
                       "of one tp group); degrees that do: %s",
                       s->ep, s->tp, list);
    if (a->n_expert % s->ep != 0)
        return err_set(e, ST_USAGE,
                       "ep %" PRId64 " does not divide %d experts; degrees that do: %s", s->ep,
                       a->n_expert, list);
    return err_set(e, ST_USAGE,
                   "tp %" PRId64 " / ep %" PRId64
                   " does not divide an expert of %d; ep that works: %s",
                   s->tp, s->ep, a->ffn, list);
}

static int check_gpus(const struct strategy *s, const struct hw *h, struct err *e)
{
    int64_t need = s->tp * s->pp * s->dp, have = (int64_t)h->sys.n_gpu * h->n_node;
    if (need <= have) return ST_OK;
    return err_set(e, ST_USAGE,
                   "tp %" PRId64 " x pp %" PRId64 " x dp %" PRId64 " needs %" PRId64
                   " %s%s; %d node%s of "
                   "%s ha%s %" PRId64 ", %" PRId64 " nodes would do",
                   s->tp, s->pp, s->dp, need, hw_on_processors(h) ? "rank" : "GPU", units_s(need),
                   h->n_node, units_s(h->n_node), h->sys.name, h->n_node == 1 ? "s" : "ve", have,
                   (need + h->sys.n_gpu - 1) / h->sys.n_gpu);
}

/* ---- formats */

/* bf16 weights run as f16 where the GPU has no bf16: same size. */
static bool weights_work(const struct hw_gpu *g, int d)
{
    return g->flop_per_s[d] > 0 || (d == DT_BF16 && g->flop_per_s[DT_F16] > 0);
}

/* The cache is storage: kernels convert to the format they compute in. */
static bool kv_works(int d)
{
    return d != DT_INT4 && d != DT_NVFP4;
}

static int check_formats(const struct strategy *s, const struct hw_gpu *g, struct err *e)
{
    char w_list[LIST_BYTES] = "", kv_list[LIST_BYTES] = "";
    for (int d = 0; d < DT_N; d++) {
        size_t w = strlen(w_list), k = strlen(kv_list);
        if (weights_work(g, d))
            snprintf(w_list + w, sizeof w_list - w, "%s%s", w ? ", " : "",
                     dtype_name((enum dtype)d));
        if (kv_works(d))
            snprintf(kv_list + k, sizeof kv_list - k, "%s%s", k ? ", " : "",
                     dtype_name((enum dtype)d));
    }
    if (!weights_work(g, s->weight_dtype))
        return err_set(e, ST_USAGE, "%s cannot compute with %s weights; formats that it can: %s",
                       g->name, dtype_name((enum dtype)s->weight_dtype), w_list);
    if (!kv_works(s->kv_dtype))
        return err_set(e, ST_USAGE, "a KV cache in %s is not modelled; formats that are: %s",
                       dtype_name((enum dtype)s->kv_dtype), kv_list);
    return ST_OK;
}

static int check_limit(const char *what, int64_t v, int64_t hi, struct err *e)
{
    if (v >= 1 && v <= hi) return ST_OK;
    return err_set(e, ST_USAGE, "%s %" PRId64 " is outside 1 .. %" PRId64, what, v, hi);
}

int strategy_check(const struct strategy *s, const struct arch *a, const struct hw *h,
                   struct err *e)
{
    int st;
    assert(s->weight_dtype >= 0 && s->weight_dtype < DT_N && s->kv_dtype >= 0 &&
           s->kv_dtype < DT_N);
    if ((st = check_limit("tp", s->tp, MAX_TP, e)) != ST_OK) return st;
    if ((st = check_limit("pp", s->pp, STRATEGY_MAX_PP, e)) != ST_OK) return st;
    if ((st = check_limit("dp", s->dp, MAX_DP, e)) != ST_OK) return st;
    if ((st = check_limit("ep", s->ep, MAX_TP, e)) != ST_OK) return st;
    if ((st = check_tp(s, a, e)) != ST_OK) return st;
    if ((st = check_ep(s, a, e)) != ST_OK) return st;
    if (s->pp > a->n_layer)
        return err_set(e, ST_USAGE, "pp %" PRId64 " exceeds the %d layers of %s; at most %d", s->pp,
                       a->n_layer, a->name, a->n_layer);
    if ((st = check_formats(s, &h->gpu, e)) != ST_OK) return st;
    return check_gpus(s, h, e);
}

/* ---- layers per stage */

static double extra(int stage, int pp, double first, double last)
{
    return (stage == 0 ? first : 0) + (stage == pp - 1 ? last : 0);
}

/* Layers that each stage surely holds, and how many are then left. The level is the mean cost over
 * the stages not yet settled; a stage whose ends cost so much that one layer exceeds the level
 * keeps that one layer and leaves the mean. The others are filled to one layer below the level,
 * which no optimum does not reach. Only the two end stages can be settled, so the loop runs three
 * times at most. */
static int fill_below(int n_layer, int pp, const double cost[3], int *out)
{
    bool settled[STRATEGY_MAX_PP] = { false };
    double level = 0;
    for (bool again = true; again;) {
        double sum = 0;
        int n = n_layer, active = 0;
        again = false;
        for (int p = 0; p < pp; p++) {
            if (settled[p])
                n--;
            else
                active++;
            if (!settled[p]) sum += extra(p, pp, cost[1], cost[2]);
        }
        level = active ? (sum + n * cost[0]) / active : 0;
        for (int p = 0; p < pp; p++)
            if (!settled[p] && extra(p, pp, cost[1], cost[2]) + cost[0] > level * (1 + 1e-12)) {
                settled[p] = true;
                again = true;
            }
    }
    for (int p = 0; p < pp; p++) {
        double room = (level - extra(p, pp, cost[1], cost[2])) / cost[0];
        out[p] = settled[p] || room < 2 ? 1 : (int)room - 1;
        n_layer -= out[p];
    }
    return n_layer;
}

/* Every next layer goes where the cost after it is least. For equal layers this is exact: the
 * greedy set holds the n_layer smallest of all "cost after layer j of stage p". */
void strategy_balance(int n_layer, int pp, double layer, double first, double last, int *out)
{
    assert(pp >= 1 && pp <= STRATEGY_MAX_PP && n_layer >= pp);
    bool sane = layer > 0 && isfinite(layer) && first >= 0 && isfinite(first) && last >= 0 &&
                isfinite(last);
    double cost[3] = { sane ? layer : 1, sane ? first : 0, sane ? last : 0 };
    for (int left = fill_below(n_layer, pp, cost, out); left > 0; left--) {
        int best = 0, best_off = 0;
        double best_cost = INFINITY;
        for (int p = 0; p < pp; p++) {
            double c = extra(p, pp, cost[1], cost[2]) + (out[p] + 1) * cost[0];
            int off = abs(2 * p - (pp - 1)); /* twice the distance from the middle */
            if (c > best_cost || (c == best_cost && off >= best_off)) continue;
            best = p;
            best_off = off;
            best_cost = c;
        }
        out[best]++;
    }
}

double strategy_epsilon(const double *cost, int n)
{
    double sum = 0, high = 0;
    assert(n >= 1);
    for (int i = 0; i < n; i++) {
        sum += cost[i];
        if (cost[i] > high) high = cost[i];
    }
    return sum > 0 ? high * n / sum - 1 : 0;
}

int strategy_parse_split(const char *text, int n_layer, int pp, int *out, struct err *e)
{
    const char *at = text;
    int64_t sum = 0;
    int n = 0;
    assert(pp >= 1 && pp <= STRATEGY_MAX_PP);
    for (bool more = true; more; n++) {
        char *end = NULL;
        errno = 0;
        long v = *at >= '0' && *at <= '9' ? strtol(at, &end, 10) : 0;
        if (v < 1 || errno || v > n_layer || (*end && *end != ','))
            return err_set(
                e, ST_USAGE,
                "split '%.80s': expected %d whole numbers from 1 to %d with commas between, "
                "such as 20,20,19,21, or auto or equal",
                text, pp, n_layer);
        if (n < pp) out[n] = (int)v;
        sum += v;
        more = *end == ',';
        at = end + 1;
    }
    if (n != pp)
        return err_set(e, ST_USAGE, "split '%.80s' has %d stage%s, but pp is %d", text, n,
                       n == 1 ? "" : "s", pp);
    if (sum != n_layer)
        return err_set(e, ST_USAGE,
                       "split '%.80s' adds up to %" PRId64 " layers, but the model has %d", text,
                       sum, n_layer);
    return ST_OK;
}
