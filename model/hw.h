/* model/hw.h - hardware catalog: GPUs, nodes, clusters of equal nodes; datasheet figures with
 * sources.
 *
 * Read from scenarios/hardware/gpus.yaml and systems.yaml (or a file of the user's in the same
 * form). Rates are per direction, dense (no sparsity), in SI units.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_HW_H
#define MODEL_HW_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/err.h"
#include "model/dtype.h"

struct hw_gpu {
    const char *name;         /* "h100-sxm" */
    const char *title, *arch; /* "NVIDIA H100 SXM5 80GB", "hopper" */
    double mem_bytes;         /* usable by the framework (what cudaMemGetInfo calls total) */
    double mem_bytes_per_s;   /* datasheet HBM rate */
    double flop_per_s
        [DT_N]; /* dense tensor peak by operand type; 0: not supported. int4: weights only,
                                      multiplied as bf16 or f16, so that peak where the file gives none */
    double l2_bytes;
    int n_sm;
    double pcie_bytes_per_s; /* host link, per direction */
    double link_bytes_per_s; /* NVLink or xGMI, all links, per direction; 0: none */
    double tdp_w, idle_w;
    double price_usd_lo, price_usd_hi, rent_usd_per_h_lo, rent_usd_per_h_hi; /* 0: unknown */
    const char *price_date, *source, *notes;
};

enum hw_fabric {
    HW_SWITCHED, /* NVSwitch: every pair at full rate */
    HW_PCIE,     /* PCIe tree with shared uplinks */
    HW_PAIRS,    /* NVLink bridges join pairs; between pairs PCIe */
    HW_MESH,     /* point-to-point links to every peer (xGMI) */
    HW_HOST      /* peer traffic through host memory */
};
#define HW_FABRIC_WORDS "switched pcie pairs mesh host"

struct hw_system {
    const char *name, *title;
    const char *gpu_name;
    int n_gpu; /* per node */
    enum hw_fabric fabric;
    bool nvls;               /* in-switch reduction */
    double peer_bytes_per_s; /* measured GPU to GPU in the node, per direction */
    double peer_alpha_s;
    double busbw_bytes_per_s; /* large-message all-reduce bus bandwidth over all GPUs; 0 unknown */
    int n_nic;
    double nic_bytes_per_s;   /* line rate of one NIC */
    double inter_bytes_per_s; /* between nodes, per GPU, measured or class default */
    double inter_alpha_s;
    double host_mem_bytes, storage_bytes_per_s;
    int host_cores;
    double node_max_w, node_idle_w;
    double price_usd_lo, price_usd_hi, rent_usd_per_h_lo, rent_usd_per_h_hi;
    const char *price_date, *source, *notes;
};

struct profile_file;
struct hw { /* a cluster of equal nodes */
    struct hw_gpu gpu;
    struct hw_system sys;
    int n_node;
    const struct profile_file *measured; /* its constants (model/profile_file.h), or NULL */
};

/* name: a catalog system ("dgx-h100"), or a path to a YAML file with the same keys as one entry, or
 * a measured profile (PATH.h5), which describes its own hardware. A
 * bare GPU name ("h100-sxm") is a node of one such GPU. Texts live in a. Errors: ST_USAGE with the
 * nearest name, ST_IO. */
int hw_load(const char *name, const char *beside, int n_node, struct arena *a, struct hw *out,
            struct err *e);
/* Has the constants of h come from the measured profile at path (relative ones are tried beside the
 * file `beside` first). Errors: ST_IO; ST_USAGE, also of another machine's where h is a measured
 * one, and of kernels measured on another architecture. */
int hw_measured(const char *path, const char *beside, struct arena *a, struct hw *h, struct err *e);
/* Nodes in range, and joined where there are several. Errors: ST_USAGE. */
int hw_check_nodes(const struct hw *h, struct err *e);
/* Of processors that a profile measured: a rank is some threads of the host, n_gpu how many ranks may
 * run there and mem_bytes all of the host's memory. */
bool hw_on_processors(const struct hw *h);
/* All names, sorted as in the catalog, for listings: systems then GPUs. */
int hw_list(struct arena *a, struct hw_gpu **gpus, int *n_gpu, struct hw_system **systems,
            int *n_system, struct err *e);

#endif
