/* engine/wire.h - a step as one message to every rank: counts, then arrays.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_WIRE_H
#define ENGINE_WIRE_H

#include "engine/engine.h"

enum wire_op { WIRE_STEP = 1, WIRE_STOP };
enum { WIRE_OPTS_BYTES = 8192 };

/* Room for the largest step. */
struct wire_limit {
    int32_t max_tok, max_out, max_table;
};

/* A received step; arrays point into its own memory. */
struct wire {
    enum wire_op op;
    struct backend_step step;
    const struct engine_out *out; /* [step.n_out] */
    size_t cap;
    unsigned char *bytes;          /* [cap], the message */
    int32_t *pos, *row;            /* [max_tok], [max_out] */
    struct backend_sample *sample; /* [max_out] */
    struct backend_seq *seq;
};

void wire_init(struct wire *w, const struct wire_limit *l);
void wire_release(struct wire *w);
/* Writes the message for s into w->bytes; returns its size. */
size_t wire_pack(struct wire *w, enum wire_op op, const struct engine_step *s);
/* Reads w->bytes, which wire_pack wrote here or elsewhere. */
void wire_unpack(struct wire *w);

/* What other processes must know to open the same engine; all but its functions. Returns the size,
 * at most WIRE_OPTS_BYTES, or 0 when the path of the model is too long. */
size_t wire_pack_opts(const struct engine_opts *o, unsigned char *to);
/* o points into `from`. */
void wire_unpack_opts(const unsigned char *from, struct engine_opts *o);

#endif
