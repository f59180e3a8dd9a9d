/* model/table.h - measured kernel tables and their interpolation.
 *
 * A directory of tables for one (GPU, engine, model, TP degree), in microseconds per layer:
 *     dense.csv         layer,tokens,time_us
 *     per_sequence.csv  layer,sequences,time_us              (lm_head, sampler)
 *     attention.csv     optional: prefill_chunk,kv_prefill,n_decode,kv_decode,time_us
 *     skew.csv          optional: unequal decode contexts
 *     (n,...,kv_mean,...,t_mean_us,t_max_us,t_skew_us,alpha)
 * the layout that LLMServingSim's profiler writes. Files are read once; hostile files give
 * ST_USAGE with file:line. Between points: linear in the axis within a cell (so decode time stays
 * piecewise linear in the sum of contexts, which the simulator's fast-forward relies on); outside
 * the grid the boundary's slope is kept and the answer is marked extrapolated.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_TABLE_H
#define MODEL_TABLE_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/err.h"

struct table;

int table_read(const char *dir, struct arena *a, struct table **out, struct err *e);
/* The same from texts of dense.csv and per_sequence.csv alone; name is used in errors. */
int table_parse(const char *name, const char *dense, const char *per_sequence, struct arena *a,
                struct table **out, struct err *e);
/* Whether attention was measured; without attention.csv it goes by law, and so does kv_write where
 * dense.csv has none. The functions of attention below then must not be called. */
bool table_has_attn(const struct table *t); /* NULL: no */
/* Seconds of one dense operator ("qkv_proj", "o_proj", "gate_up_proj", "act_fn", "down_proj",
 * "layernorm", "rotary_emb", "embedding", "final_layernorm", ... as named in the file) at
 * `tokens`; -1 if the table has no such operator. */
double table_dense_s(const struct table *t, const char *layer, double tokens, bool *extrapolated);
double table_seq_s(const struct table *t, const char *layer, double sequences, bool *extrapolated);
/* Names in the dense table, for checking against the operator list. */
int table_dense_names(const struct table *t, const char *const **names);

/* Attention of one layer: prefill_tok new tokens over prefill_past cached ones, and n_decode
 * sequences of mean context kv. */
double table_attn_s(const struct table *t, double prefill_tok, double prefill_past, double n_decode,
                    double kv_mean, bool *extrapolated);
/* Decode only, as a line in kv_mean over its grid cell: t = c0 + c1*kv_mean for kv_mean < kv_end.
 * */
void table_attn_line(const struct table *t, double n_decode, double kv_mean, double *c0_s,
                     double *c1_s, double *kv_end);
/* Skew weight alpha for a batch of n with mean and max context and a prefill chunk beside it:
 * fitted on skew.csv; `dflt` if there is none. */
double table_skew_alpha(const struct table *t, double n, double kv_mean, double kv_max,
                        double prefill_tok, double dflt);

#endif
