/* engine/backend_cuda_none.c - takes the place of backend_cuda*.{cu,c} where nvcc is absent.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/gpu.h"

int gpu_cuda_count(struct err *e)
{
    err_set(e, ST_DEVICE,
            "built without CUDA: install NVIDIA's toolkit (nvcc) and build again (make CUDA=1)");
    return 0;
}

struct gpu *gpu_cuda_open(int index, struct err *e)
{
    (void)index;
    gpu_cuda_count(e);
    return NULL;
}
