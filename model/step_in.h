/* model/step_in.h - inside of struct step, shared by step.c (evaluation), step_build.c (tables) and
 * step_cover.c (words). Not for other files. SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_STEP_IN_H
#define MODEL_STEP_IN_H

#include "model/ops.h"
#include "model/step.h"

/* Every fixed-point cost is at most one hour: far beyond any step, and a sum of a dozen of them
 * stays far below 2^63. */
#define STEP_MAX_FP ((int64_t)3600 * 1000000000 * ((int64_t)1 << STEP_FP_BITS))

/* Skew per sequence, skew / n, in buckets of factor 4 from 256 tokens: measured weights depend on
 * it. */
enum { STEP_SKEW_BUCKETS = 5 };

enum { ROW_GEMM, ROW_COLL, ROW_OTHER, N_ROW };
struct step_row {
    int64_t total, part[N_ROW];
};

/* Decode attention of all layers of the stage for one n: a + b*sum_ctx below ctx_end. Ascending,
 * continuous up to rounding, b >= 0; the last ctx_end is INT64_MAX. */
struct step_seg {
    int64_t ctx_end, a_fp, b_fp;
};
struct step_dec {
    const struct step_seg *seg;
    int n_seg;
    int64_t skew_fp[STEP_SKEW_BUCKETS]; /* per token of skew */
};

struct step_tables { /* of one stage; equal stages share them */
    struct step_stage stage;
    struct step_row *tok, *seq;                        /* [max_tok + 1], [max_seq + 1] */
    struct step_dec *dec;                              /* [max_seq + 1], entry 0 unused */
    double pre_a_s, pre_pair_s, pre_tok_s, pre_past_s; /* prefill attention, all layers */
};

struct step {
    struct ops_env env; /* points into the caller's objects, copied into the arena */
    const struct step_tables **stage;
    int n_stage;
    int64_t max_tok, max_seq;
    int64_t fixed_fp; /* > 0: the constant server */
    int64_t host_fp, host_seq_fp, host_tok_fp;
    int64_t gap_fp; /* between steps, when the host overlaps */
    bool overlap;
    int64_t request_ns, output_ns, return_ns;
    double stage_slow, stage_tok;
    bool stage0_drives;
    double window;      /* sliding window, 0 for none */
    bool law_in[N_ROW]; /* a table lacks an operator of this row */
    const char *by_law; /* operators a table did not hold, blank-separated; "" */
};

/* Rounds to fixed-point nanoseconds, 0 <= result <= STEP_MAX_FP; NAN gives the maximum. */
int64_t step_to_fp(double seconds);
int step_skew_bucket(int64_t skew, int64_t n);
/* Tables of one stage. */
void step_build(struct step *m, const struct step_stage *g, struct arena *a,
                struct step_tables *out);

#endif
