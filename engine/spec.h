/* engine/spec.h - what running a model needs beyond its sizes: norm epsilon, rotary frequencies.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_SPEC_H
#define ENGINE_SPEC_H

#include "model/arch.h"

enum spec_act { SPEC_SILU, SPEC_GELU /* by the error function */ };

struct spec {
    struct arch a;
    enum spec_act act;
    double norm_eps;
    /* llama3 rope scaling (a.rope_factor > 1); wavelengths are compared with rope_ctx tokens. */
    double rope_low, rope_high, rope_ctx;
};

/* Reads DIR/config.json or CONFIG.json. Errors: those of arch_read, and ST_USAGE for what the
 * engine cannot run: experts, ALiBi, another activation, partial rotary embedding. */
int spec_read(const char *path, struct spec *out, struct err *e);

/* Angle per position of rotary pair i of head_dim / 2, in radians. Source: RoFormer,
 * arXiv:2104.09864; for llama3 scaling modeling_rope_utils.py of transformers. */
double spec_rope_rate(const struct spec *s, int i);

#endif
