/* bench/nvml.h - power, clock and heat of an NVIDIA GPU while something runs on it: NVML, looked for at
 * run time.
 *
 * A thread looks every NVML_EVERY_MS between begin and end. A look is a few calls of the driver by a
 * processor, which the GPU does not notice. SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_NVML_H
#define BENCH_NVML_H

#include "traces/points.h"

enum { NVML_EVERY_MS = 10 };

/* Reasons for a lower clock (nvml.h, nvmlClocksEventReasons): those under which a time says little of
 * the GPU at its best. A limit of power alone is none of them: large products reach it in service
 * too. */
enum {
    NVML_POWER_CAP = 0x4,
    NVML_HW_SLOWDOWN = 0x8,
    NVML_SW_THERMAL = 0x20,
    NVML_HW_THERMAL = 0x40,
    NVML_HW_BRAKE = 0x80,
    NVML_DISTURBED = NVML_HW_SLOWDOWN | NVML_SW_THERMAL | NVML_HW_THERMAL | NVML_HW_BRAKE
};

/* The library's functions that are used; those of NULL are absent in an old driver. 0: fine. */
struct nvml_api {
    int (*init)(void);
    int (*shutdown)(void);
    int (*by_bus)(const char *bus_id, void **device);
    int (*power)(void *device, unsigned *milliwatt);
    int (*clock)(void *device, int which, unsigned *mhz);
    int (*temperature)(void *device, int sensor, unsigned *celsius);
    int (*reasons)(void *device, unsigned long long *bits);
};

struct nvml;
/* The GPU of that PCI address. api NULL: the installed library. NULL with a sentence: there is none,
 * or it does not know the GPU. */
struct nvml *nvml_open(const char *bus_id, const struct nvml_api *api, struct err *e);
void nvml_close(struct nvml *n); /* NULL is fine */

void nvml_begin(struct nvml *n);
/* Of all looks since begin, at least one. out->t_s is the caller's. */
void nvml_end(struct nvml *n, struct points_gpu *out);

#endif
