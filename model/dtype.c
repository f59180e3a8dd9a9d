/* model/dtype.c - names and sizes of number formats.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/dtype.h"

#include <assert.h>

static const struct {
    const char *name;
    double bytes;
} formats[DT_N] = {
    [DT_BF16] = { "bf16", 2 },
    [DT_F16] = { "f16", 2 },
    [DT_F32] = { "f32", 4 },
    [DT_FP8] = { "fp8", 1 },
    [DT_INT8] = { "int8", 1 },
    [DT_INT4] = { "int4", 0.5 + 2.25 / 128 }, /* f16 scale and a 2-bit share of zero per 128 */
    [DT_NVFP4] = { "nvfp4", 0.5625 },         /* one fp8 scale per 16 */
};

const char *dtype_name(enum dtype d)
{
    assert((int)d >= 0 && d < DT_N);
    return formats[d].name;
}

double dtype_bytes(enum dtype d)
{
    assert((int)d >= 0 && d < DT_N);
    return formats[d].bytes;
}
