/* model/arch.h - the architecture of a decoder-only transformer, read from a Hugging Face
 * config.json.
 *
 * Read as published, never hand-typed. Families: llama (Llama 2/3/3.1, Mistral), qwen2 (QKV bias),
 * qwen3 (QK norm), falcon (7B multi-query; 40B/180B grouped; parallel attention and MLP,
 * LayerNorm), mixtral (sparse experts). Others are refused by model_type with the list of those
 * known. SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_ARCH_H
#define MODEL_ARCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum arch_family { ARCH_LLAMA, ARCH_QWEN2, ARCH_QWEN3, ARCH_FALCON, ARCH_MIXTRAL };

struct arch {
    char name[96]; /* file stem, e.g. "llama-3-70b" */
    enum arch_family family;
    int n_layer, hidden, n_head, n_kv_head, head_dim;
    int ffn;            /* inner size of the dense MLP, or of one expert */
    bool gated_mlp;     /* gate and up matrices, else up only */
    int vocab, max_ctx; /* max_position_embeddings */
    int sliding_window; /* 0: full attention */
    bool tied;          /* head shares the embedding matrix */
    bool qkv_bias, o_bias, mlp_bias, qk_norm;
    bool parallel_attn;  /* attention and MLP read the same input: one all-reduce a layer */
    bool layer_norm;     /* LayerNorm (weight and bias) instead of RMSNorm */
    int n_norm_layer;    /* norms per layer over hidden (2; falcon-7b 1) */
    int n_expert, top_k; /* 0, 0: dense */
    double rope_theta;
    double rope_factor; /* llama3 rope scaling; 1: none */
};

/* Errors: ST_IO, ST_USAGE (malformed, unknown family, a size missing, not positive, or > 2^24,
 * heads not divisible by KV heads, ...). A config that contradicts itself is refused, not
 * repaired. */
int arch_read(const char *path, struct arch *out, struct err *e);
/* From the bytes of a config.json; name is used in errors and as out->name. For fuzzing too. */
int arch_parse(const char *name, const void *bytes, unsigned long n, struct arch *out,
               struct err *e);

/* Parameters, exact counts. layer: one block (attention, MLP or all experts, router, norms,
 * biases). */
int64_t arch_params_layer(const struct arch *a);
int64_t arch_params_attn(const struct arch *a);   /* of one layer, projections and their biases */
int64_t arch_params_mlp(const struct arch *a);    /* of one layer, all experts and router */
int64_t arch_params_embed(const struct arch *a);  /* vocab * hidden */
int64_t arch_params_head(const struct arch *a);   /* 0 when tied */
int64_t arch_params(const struct arch *a);        /* all, final norm included */
int64_t arch_params_active(const struct arch *a); /* used by one token: top_k experts */

/* KV cache bytes of one token in one layer, all heads, at elt_bytes per element:
 * 2*n_kv_head*head_dim*b. */
double arch_kv_bytes_layer(const struct arch *a, double elt_bytes);

#endif
