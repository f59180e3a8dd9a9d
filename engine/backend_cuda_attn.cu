/* engine/backend_cuda_attn.cu - the attention kernels compiled for NVIDIA devices.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/gpu_block.h"

#include "engine/gpu_k_attn.h"
