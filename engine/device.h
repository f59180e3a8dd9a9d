/* engine/device.h - which device a rank runs on.
 *
 *   cpu      the processors
 *   cuda:N   NVIDIA GPUs: the k-th rank of a host takes device N + k of those visible (cuda: N 0)
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_DEVICE_H
#define ENGINE_DEVICE_H

#include <stdbool.h>

#include "engine/gpu.h"

struct comm;

enum device_kind { DEVICE_CPU, DEVICE_CUDA };

/* How devices exchange activations: through the host's communicator, or NCCL. auto: NCCL where there
 * is more than one rank and each has a device of its own. */
enum device_link { DEVICE_LINK_AUTO, DEVICE_LINK_HOST, DEVICE_LINK_NCCL };
#define DEVICE_LINK_WORDS "auto host nccl"

/* Help of the options that commands have in common. */
#define DEVICE_HELP       "cpu, or cuda:N: the k-th rank of a host on NVIDIA GPU N + k (cuda: N 0)"
#define DEVICE_SHARE_HELP "with more ranks than GPUs: they share them"
#define DEVICE_LINK_HELP                                                                           \
    "between GPUs: through the host, or NCCL (auto: NCCL where each rank has a GPU of its own)"

/* Zeroed: the CPU. */
struct device {
    enum device_kind kind;
    int first;  /* index of the first rank's device */
    bool share; /* ranks may share a device: indices are taken modulo the visible number */
    enum device_link link;
    /* NULL: gpu_cuda_open and gpu_cuda_count */
    struct gpu *(*open)(int index, struct err *e);
    int (*count)(struct err *e);
    /* In place of NCCL, where there is more than one rank: on_device ends of rank world->rank for the
     * calls of its stage and for messages, beside those of the host. NULL: none. */
    int (*join)(struct gpu *g, struct comm *world, struct comm *host_tp, struct comm *tp_pipe[2],
                struct err *e);
};

/* Errors: ST_USAGE, naming --device. */
int device_parse(const char *text, struct device *out, struct err *e);
/* The options that commands have in common: --device, --share-device, --exchange. Errors: ST_USAGE,
 * naming the option; what is for GPUs is refused beside the processors. */
int device_options(const char *text, bool share, enum device_link link, struct device *out,
                   struct err *e);
/* n ranks of this host have a device each. Errors: ST_USAGE, ST_DEVICE when there is no such device. */
int device_check(const struct device *d, int n, struct err *e);
/* Of the nth rank of this host. NULL with a sentence. */
struct gpu *device_open(const struct device *d, int nth, struct err *e);
/* Bytes that n ranks of this host have free together. Errors: those of opening a device. */
int device_memory(const struct device *d, int n, double *bytes, struct err *e);
/* Whether some of n ranks of this host have the same device. */
bool device_shared(const struct device *d, int n);

#endif
