/* engine/safetensors.h - one safetensors file, mapped and checked.
 *
 * Format (huggingface/safetensors, README): 8 bytes little-endian header length n, n bytes of JSON
 * {"name": {"dtype", "shape", "data_offsets": [begin, end)}, "__metadata__": {text: text}}, then the
 * data, which the tensors cover without holes or overlaps. Everything is checked before a tensor can
 * be seen; nothing of the data is read by that.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_SAFETENSORS_H
#define ENGINE_SAFETENSORS_H

#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"

enum { SAFETENSORS_MAX_DIM = 8 };

struct safetensor {
    const char *name;  /* in the arena */
    const char *dtype; /* as written: "F32", "BF16", "I64", ... */
    int n_dim;
    int64_t dim[SAFETENSORS_MAX_DIM];
    const unsigned char *data; /* in the mapping; not necessarily aligned */
    int64_t bytes;
};

struct safetensors {
    const char *path;
    void *map;
    size_t map_bytes;
    struct safetensor *tensor;         /* [n], by offset */
    const struct safetensor **by_name; /* [n] the same, sorted */
    int n;
};

/* Errors: ST_IO if it cannot be read; ST_USAGE if it is malformed, no file or not there: one sentence
 * with the path. On failure nothing is left open. path and a must outlive s. */
int safetensors_open(struct safetensors *s, const char *path, struct arena *a, struct err *e);
void safetensors_close(struct safetensors *s);

/* The same from bytes that the caller holds; nothing is mapped. For fuzzing. */
int safetensors_parse(struct safetensors *s, const char *name, const void *bytes, size_t n,
                      struct arena *a, struct err *e);

/* By name, or NULL. */
const struct safetensor *safetensors_find(const struct safetensors *s, const char *name);

/* Bytes of one element of a dtype, 0 for one that the format does not have. */
int safetensors_elt_bytes(const char *dtype);

#endif
