/* engine/backend_classes.h - how long the products and the attention of a rank's step took, of a backend
 * whose calls end when their work does: for runs, which backend_timed.h would slow by twice as much.
 *
 * The backend stays the one it is, its results have the same bits: only mm and attn are entered through
 * here. The clock is read before and after each, but once between attention and the product behind it,
 * which model.c calls one after the other: nine times a layer. The few instructions between those two
 * are the product's. SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_BACKEND_CLASSES_H
#define ENGINE_BACKEND_CLASSES_H

#include "engine/backend.h"

struct backend_classes {
    int64_t gemm_ns, attn_ns, reads; /* of the clock */
};

/* From now on, until b is closed. */
void backend_classes_keep(struct backend *b);
/* b: of which they are kept. Since the last call, which is when they begin again. */
void backend_classes_take(struct backend *b, struct backend_classes *out);

#endif
