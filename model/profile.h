/* model/profile.h - the constants of the kernel laws for one GPU and engine, with uncertainty and
 * source.
 *
 * Every constant is a parameter: value, standard deviation of its logarithm, where it comes from.
 * Fitted sets exist for some GPUs (scenarios/hardware/profiles.yaml, figures from public
 * microbenchmark tables with their origin named there); other GPUs take the set of the nearest
 * architecture, scaled by datasheet peaks, with sd widened to at least 0.15 (class default) and
 * say so in `coverage`. SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_PROFILE_H
#define MODEL_PROFILE_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/rng.h"
#include "model/hw.h"
#include "model/strategy.h"

/* How far a figure can be trusted, best first. */
enum cover { COVER_TABLE, COVER_FIT, COVER_CLASS, COVER_GUESS };
const char *cover_name(enum cover c); /* "measured table", "fitted", "class default", "assumed" */

struct param {
    double v;      /* value in the law's unit */
    double sd_log; /* of ln v; 0: exact by definition */
    enum cover cover;
    const char *source; /* one line */
};

enum profile_id { /* every uncertain constant, in the order of drawing */
                  P_GEMM_T0_S,
                  P_GEMM_EC,
                  P_GEMM_EM,
                  P_GEMM_Q,
                  P_GEMM_EQ,
                  P_DEC_T0_S,
                  P_DEC_EM,
                  P_DEC_S_PER_BH,
                  P_DEC_FLOOR_S,
                  P_PRE_T0_S,
                  P_PRE_EC,
                  P_PRE_EM,
                  P_PRE_X_TOK, /* pairs a prompt token costs besides its own: causal tiles in full */
                  P_SKEW_ALPHA, /* unequal contexts: T = T(mean) + alpha*(T(max) - T(mean)) */
                  P_ELT_T0_S,
                  P_ELT_EM, /* element-wise kernels, norms, sampling */
                  P_MOE_T0_S,
                  P_MOE_EC,
                  P_MOE_EM,
                  P_AR_A_S,
                  P_AR_B,
                  P_AR_C_S,
                  P_AR_S0, /* all-reduce within the TP group: A + S/B + C S/(S+S0), S bytes */
                  P_CAR_A_S,
                  P_CAR_B,
                  P_CAR_C_S,
                  P_CAR_S0, /* the engine's own all-reduce, up to ar_limit_bytes */
                  P_AG_A_S,
                  P_AG_B,
                  P_AG_C_S,
                  P_AG_S0, /* all-gather, S bytes of the gathered tensor */
                  P_P2P_A_S,
                  P_P2P_B, /* stage to stage, in the node */
                  P_NET_A_S,
                  P_NET_B,       /* per GPU between nodes */
                  P_RANK_SKEW_S, /* per all-reduce: waiting for the slowest rank */
                  P_HOST_STEP_S,
                  P_HOST_SEQ_S,
                  P_HOST_TOK_S, /* host time of a step: c0 + c1*sequences + c2*new tokens */
                  P_HOST_REQ_S, /* before a request reaches the scheduler: HTTP, tokenising */
                  P_HOST_OUT_S, /* from a step's end until its tokens leave: copy, detokenising */
                  P_HOST_GAP_S, /* device idle between steps although the host's work overlaps */
    P_LAW,        /* common factor on device times by law: what the laws' forms leave out */
                  P_N
};

struct profile {
    struct param p[P_N];
    double ar_limit_bytes; /* the engine's own all-reduce exists up to this message; 0: never */
    bool host_overlap;     /* true: step = max(device, host); false: sum */
    double peak_flop_per_s, attn_peak_flop_per_s,
        mem_bytes_per_s; /* references that e_* multiply */
    const char *name;    /* "h100-sxm/vllm/bf16" */
    const char *note;    /* "constants of h100-sxm scaled to h200-sxm" or "" */
    const char *kernels; /* directory of measured kernel tables, or NULL */
    int tp;              /* the TP degree the collective constants are for */
};

/* Chooses constants for (GPU, weight dtype, kv dtype, tp, fabric, engine). engine: "vllm",
 * "trtllm", "any". kernels: directory of measured tables (see table.h) or NULL. Errors: ST_IO,
 * ST_USAGE. */
int profile_load(const struct hw *h, const struct strategy *s, const char *engine,
                 const char *kernels, struct arena *a, struct profile *out, struct err *e);

const char *profile_param_name(enum profile_id id); /* "gemm.e_m" */
/* Sets one constant by name: what an option "--profile.host.step=1.5ms" does; sd_log becomes 0. */
int profile_set(struct profile *p, const char *name, double v, struct err *e);

/* A draw of all constants: v * exp(sd_log * z). draw 0 is the profile itself; the same (r, draw)
 * gives the same constants in every configuration (common random numbers). Efficiencies are capped
 * at 1. */
void profile_draw(const struct profile *p, struct rng r, int draw, struct profile *out);

#endif
