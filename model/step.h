/* model/step.h - the time of one engine step on one pipeline stage, in O(1).
 *
 * What depends on the number of tokens only (GEMMs, norms, collectives, host) is tabulated once
 * per stage; attention is linear in the sum of contexts. Times are fixed-point nanoseconds with
 * STEP_FP_BITS fraction bits, so that the simulator can add k steps as an arithmetic series with
 * no rounding: for a pure decode batch of n sequences the cost is exactly a_fp + b_fp * sum_ctx
 * (struct step_line) as long as sum_ctx < ctx_end, and step_cost() is that same expression.
 *
 * The host prepares a step on stage 0 only; later stages follow its schedule. Where its work
 * overlaps the device's, a step is the longer of the two and the gap that is left (P_HOST_GAP_S).
 * A step of decode alone takes n_logits from n_decode. Costs saturate at one hour (class: other).
 * Tokens beyond max_batch_tok continue the last slope; n_decode beyond max_seqs is an error of the
 * caller (asserted).
 *
 * Not thread-safe while step_prepare runs; read-only afterwards.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_STEP_H
#define MODEL_STEP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "model/arch.h"
#include "model/hw.h"
#include "model/profile.h"
#include "model/strategy.h"
#include "model/table.h"

enum { STEP_FP_BITS = 16 };

/* Where the time goes. STEP_OTHER: norms, activations, rope, sampling. */
enum step_class { STEP_GEMM, STEP_ATTN, STEP_COLL, STEP_P2P, STEP_HOST, STEP_OTHER, STEP_N_CLASS };
const char *
step_class_name(enum step_class c); /* "GEMM", "attention", "collective", "p2p", "host", "other" */

struct step_shape {   /* all that a step's time depends on; sums kept incrementally by the caller */
    int64_t n_decode; /* sequences decoding one token each */
    int64_t sum_ctx;  /* their contexts, new token included, summed */
    int64_t skew;     /* n_decode * longest context - sum_ctx: does not change while all decode */
    int64_t n_prefill;     /* prompt chunks */
    int64_t prefill_tok;   /* their new tokens */
    int64_t prefill_past;  /* tokens cached before them, summed */
    int64_t prefill_pairs; /* sum of q*p + q(q+1)/2 over chunks: (query, key) pairs */
    int64_t n_logits;      /* sequences that get a token: n_decode + chunks that end their prompt */
};

struct step_cost {
    int64_t total_fp;
    int64_t class_fp[STEP_N_CLASS];
}; /* classes add up to total (host: the exposed part) */

/* Attention's constant part may be negative: an intercept. While the host hides the device,
 * STEP_HOST is host time less the other constants: what attention takes per context is counted
 * there. */
struct step_line {
    int64_t a_fp, b_fp; /* cost = a_fp + b_fp * sum_ctx */
    int64_t ctx_end;    /* first sum_ctx for which another line holds; INT64_MAX if none */
    int64_t class_a_fp[STEP_N_CLASS]; /* constant part; the b_fp part belongs to line_class */
    enum step_class
        line_class; /* STEP_ATTN, but STEP_N_CLASS while host time hides the device (b_fp = 0) */
};

struct step_stage { /* what the model needs to know of a stage */
    int n_layer;
    bool has_embed, has_head;
    bool hop_inter; /* the hop to the next stage crosses nodes */
    bool tp_inter;  /* the TP group spans nodes */
};

struct step; /* tables: opaque, in the arena */

/* Builds the tables for n_stage stages, up to max_batch_tok tokens and max_seqs sequences a step.
 * Instead of a model, `fixed_ns` > 0 gives every step of every stage that constant cost, whatever
 * the shape: the degenerate server of queueing theory, used to test the framework. Errors:
 * ST_USAGE, ST_IO. */
struct step_setup {
    const struct arch *arch;
    const struct hw *hw;
    const struct strategy *strategy;
    const struct profile *profile;
    const struct table *table; /* measured kernels, or NULL */
    const struct step_stage *stage;
    int n_stage;
    int64_t max_batch_tok, max_seqs;
    int64_t fixed_ns;
};
int step_prepare(const struct step_setup *u, struct arena *a, struct step **out, struct err *e);

void step_cost(const struct step *m, int stage, const struct step_shape *s, struct step_cost *out);
/* total_fp of step_cost alone, faster. */
int64_t step_total_fp(const struct step *m, int stage, const struct step_shape *s);
void step_line(const struct step *m, int stage, int64_t n_decode, int64_t sum_ctx, int64_t skew,
               struct step_line *out);
/* From stage to stage + 1: hidden states of n_tok tokens; fixed-point ns. 0 for the last stage. */
int64_t step_hop_fp(const struct step *m, int stage, int64_t n_tok);
int64_t
step_request_ns(const struct step *m); /* P_HOST_REQ_S: from due until the scheduler sees it */
int64_t
step_output_ns(const struct step *m); /* P_HOST_OUT_S: from step end until its tokens are out */

int64_t step_return_ns(const struct step *m); /* P_STAGE_RETURN_S with several stages, else 0 */
/* How many times as long a step of n_tok takes beside one other busy stage; 1: they share nothing. */
double step_beside(const struct step *m, int64_t n_tok);
bool step_stage0_drives(const struct step *m); /* of several stages, the first also schedules */

/* Cost of one layer, of the embedding, and of head + final norm + sampling at a reference decode
 * step of n_decode sequences with context ctx: what strategy_balance divides by. Seconds. */
void step_layer_costs(const struct step_setup *u, int64_t n_decode, int64_t ctx, double *layer_s,
                      double *first_s, double *last_s);

/* Coverage of a run: the extents it reached, against the ranges the constants come from. */
struct step_extent {
    int64_t max_tok, max_seqs, max_ctx_sum, max_ctx, max_prefill;
};
/* "decode, p2p": operators that the steps have and the measured profile no points of, so that their
 * constants are carried over or assumed, and what shares the host unmeasured; "" where there are none, or no profile was measured. */
const char *step_unmeasured(const struct step *m, struct arena *a);
/* Worst coverage of each class, and one line of words ("GEMM fitted (MAPE 6.5 %) ...").
 * *extrapolated is set when an extent lies outside the measured range, or where a measured profile
 * lacks an operator that the catalog has no constants of this very GPU for either. Text in a. */
const char *step_coverage(const struct step *m, const struct step_extent *x,
                          enum cover by_class[STEP_N_CLASS], bool *extrapolated, struct arena *a);

#endif
