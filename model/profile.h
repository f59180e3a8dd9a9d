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
                  P_LAW, /* common factor on device times by law: what the laws' forms leave out */
                  P_STAGE_RETURN_S, /* from the last stage's end until the scheduler has its tokens */
                  P_STAGE_BESIDE,
                  P_STAGE_TOK, /* stages that share a memory: with slow = beside - 1, a step of n tokens
                                  takes 1 + slow / (1 + n / tok) times as long beside a busy stage;
                                  each further one adds as much where that is more than alone */
                  P_N
};

/* The laws that measured constants belong to, and the sizes that measured points have. */
enum profile_law {
    LAW_GEMM,
    LAW_DECODE,
    LAW_PREFILL,
    LAW_ELT,
    LAW_ALLREDUCE,
    LAW_OWN_ALLREDUCE,
    LAW_ALLGATHER,
    LAW_P2P,
    LAW_NET,
    LAW_STEP,  /* whole steps: host times, rank skew, the common factor on device times */
    LAW_STAGE, /* stages of a pipeline on one host: how they slow each other, the tokens' way back */
    LAW_N
};
#define PROFILE_LAW_WORDS                                                                          \
    "gemm decode prefill elementwise allreduce allreduce_own allgather p2p net step stage"
enum profile_size {
    SIZE_M,
    SIZE_N,
    SIZE_K,     /* of a matrix product */
    SIZE_BYTES, /* moved, or of a message */
    SIZE_SEQS,
    SIZE_CTX,     /* tokens of context, summed over sequences */
    SIZE_CTX_MAX, /* the longest context */
    SIZE_TOK,     /* new tokens */
    SIZE_PAIRS,   /* (query, key) pairs */
    SIZE_HEADS,
    SIZE_KV_HEADS,
    SIZE_HEAD_DIM,
    SIZE_ELT_BYTES,
    SIZE_WEIGHT_BYTES,
    SIZE_ACT_BYTES,
    SIZE_OUT_BYTES,
    SIZE_DEVICE_S, /* predicted device time of a step */
    SIZE_COLLS,    /* collectives in a step */
    SIZE_KINDS
};
#define PROFILE_SIZE_WORDS                                                                         \
    "m n k bytes seqs ctx ctx_max tok pairs heads kv_heads head_dim elt_bytes weight_bytes "       \
    "act_bytes out_bytes device collectives"
const char *profile_law_name(enum profile_law l);
const char *profile_size_name(enum profile_size s);

struct profile_range { /* sizes that the points of a law covered */
    enum profile_law law;
    enum profile_size size;
    double lo, hi;
};

/* Constants fitted together: chol * chol^T is the covariance of their logarithms (chol lower
 * triangular, in the order of id). */
enum { PROFILE_BLOCK_MAX = 6 };
struct profile_block {
    enum profile_law law;
    int n;
    enum profile_id id[PROFILE_BLOCK_MAX];
    double chol[PROFILE_BLOCK_MAX][PROFILE_BLOCK_MAX];
};

struct profile {
    struct param p[P_N];
    double ar_limit_bytes; /* the engine's own all-reduce exists up to this message; 0: never */
    bool host_overlap;     /* true: step = max(device, host); false: sum */
    bool stage0_drives; /* the first stage's processor schedules: it takes results between steps */
    double peak_flop_per_s, attn_peak_flop_per_s,
        mem_bytes_per_s; /* references that e_* multiply */
    const char *name;    /* "h100-sxm/vllm/bf16" */
    const char *note;    /* "constants of h100-sxm scaled to h200-sxm" or "" */
    const char *kernels; /* directory of measured kernel tables, or NULL */
    int tp;              /* the TP degree the collective constants are for */
    /* Of a measured profile (model/profile_file.h); all none for constants of the catalog. */
    const char *measured; /* "machine date", or NULL */
    const char *noise;    /* what of it a busy machine gave, in words, or NULL */
    const struct profile_block *block;
    int n_block;
    const struct profile_range *range;
    int n_range;
    /* 1 << enum profile_law: what the strategy needs and a measured profile has no points of, so
     * that it is carried over from others or taken from the catalog, as the note says */
    unsigned unmeasured;
    const char
        *crowd;       /* what shares a measured host in a way that nobody measured; NULL: nothing */
    bool catalog_own; /* the catalog's constants were fitted on this very GPU */
    /* The part of P_LAW's sd_log that is how far whole steps held out are from the laws: no want of
     * samples. 0: none known */
    double law_own_sd;
};

/* Chooses constants for (GPU, weight dtype, kv dtype, tp, fabric, engine). engine: "vllm",
 * "trtllm", "any"; hardware that names a measured profile takes that one's instead, whatever the
 * engine. kernels: directory of measured tables (see table.h) or NULL. Errors: ST_IO, ST_USAGE. */
int profile_load(const struct hw *h, const struct strategy *s, const char *engine,
                 const char *kernels, struct arena *a, struct profile *out, struct err *e);

/* FLOP/s that the efficiency of a law refers to, for weights (or a KV cache) of a format: the peak
 * of the format where products are computed in it, else that of 16 bit, else of 32. 0: none. */
double profile_peak(const struct hw_gpu *g, enum profile_law law, enum dtype d);

const char *profile_param_name(enum profile_id id); /* "gemm.e_m" */
/* Sets one constant by name: what an option "--profile.host.step=1.5ms" does; sd_log becomes 0. */
int profile_set(struct profile *p, const char *name, double v, struct err *e);

/* What to measure so that a constant is known better, as an order: "time matrix products ...". For
 * the laws' own error (profile_is_own_error) what would make it smaller; by_table: this model's
 * operators go by measured table already. */
const char *profile_advice(const struct profile *p, enum profile_id id, bool by_table);
/* Most of the constant's variance is the laws' own error, which more samples do not shrink. */
bool profile_is_own_error(const struct profile *p, enum profile_id id);

/* A draw of all constants: v * exp(sd_log * z), those of a block with its covariance. draw 0 is the profile itself; the same (r, draw)
 * gives the same constants in every configuration (common random numbers). Efficiencies are capped
 * at 1 (or their own value), gemm.q does not fall below 1. */
void profile_draw(const struct profile *p, struct rng r, int draw, struct profile *out);

#endif
