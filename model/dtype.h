/* model/dtype.h - number formats of weights, activations and KV cache.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_DTYPE_H
#define MODEL_DTYPE_H

enum dtype { DT_BF16, DT_F16, DT_F32, DT_FP8, DT_INT8, DT_INT4, DT_NVFP4, DT_N };
#define DTYPE_WORDS "bf16 f16 f32 fp8 int8 int4 nvfp4" /* in enum order, for option rows */

const char *dtype_name(enum dtype d);
/* Bytes per element, scales included: int4 0.5 + 2.25/128 (group 128), nvfp4 0.5625, fp8 1 (one
 * scale per channel is < 0.1 %). Source: GPTQ/AWQ group layouts; NVFP4 4 bits + fp8 scale per 16.
 * */
double dtype_bytes(enum dtype d);

#endif
