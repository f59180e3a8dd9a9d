/* model/topo.h - what is there: the GPUs, links, NICs, processors, memory and storage of one
 * machine, read from the machine itself or from a description of it.
 *
 * Three descriptions are read, told apart by their content: the text of `nvidia-smi topo -m`,
 * hwloc's XML (2.x) and NCCL's topology XML. Each leaves things out; what is not said is 0,
 * -1, NULL or TOPO_UNKNOWN, never a guess, and topo.note says what could not be read. All texts and
 * arrays live in the arena that the caller gives. SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_TOPO_H
#define MODEL_TOPO_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/err.h"
#include "model/hw.h"

enum { TOPO_MAX_GPU = 256, TOPO_MAX_NIC = 512 };

/* How two devices reach each other: the worst hop on the way, as nvidia-smi and NCCL name it, best
 * first. */
enum topo_link {
    TOPO_SELF,
    TOPO_NVLINK, /* NVLink (or xGMI), directly or through NVSwitch */
    TOPO_PIX,    /* one PCIe switch */
    TOPO_PXB,    /* several PCIe switches, no host bridge */
    TOPO_PHB,    /* a host bridge (the processor); of NCCL files also what NODE is */
    TOPO_NODE,   /* two host bridges of one NUMA node */
    TOPO_SYS,    /* the link between NUMA nodes */
    TOPO_UNKNOWN
};
/* "self" "NVLink" "PIX" "PXB" "PHB" "NODE" "SYS" "unknown" */
const char *topo_link_word(enum topo_link kind);

struct topo_gpu {
    const char *name; /* as reported ("NVIDIA A100-SXM4-80GB"), from the PCI id where only that is
                         known; NULL: the description does not name it */
    const char *catalog;    /* entry of the hardware catalog that it is; NULL: none, or not known */
    bool mig;               /* split by MIG: what a process gets is a part of the figures here */
    int index;              /* as the driver or the file counts */
    const char *bus_id;     /* PCI "0000:3b:00.0", lower case; NULL unknown */
    int numa;               /* -1 unknown */
    int cc_major, cc_minor; /* compute capability; 0 unknown */
    double mem_bytes;       /* usable: what the driver keeps for itself taken off; 0 unknown */
    int pcie_gen, pcie_width, pcie_gen_max, pcie_width_max; /* link now and at most; 0 unknown. An
                                 idle GPU lowers its generation: rates below are of the most */
    double pcie_bytes_per_s;   /* host link per direction after line coding; 0 unknown */
    int n_nvlink;              /* links that are up; 0 none, or not said (see topo.knows_nvlink) */
    double nvlink_bytes_per_s; /* one link per direction, datasheet; 0 unknown generation */
    double power_limit_w;      /* as set on the board; 0 unknown */
};

struct topo_pair {       /* what joins two GPUs */
    enum topo_link kind; /* NVLink where there is any, else pcie */
    enum topo_link pcie; /* the way without NVLink; UNKNOWN where the description hides it */
    int n_nvlink;        /* links between the two, or into the switch that joins them */
    bool switched; /* through NVSwitch: the links are shared by all peers. The text of nvidia-smi
                      does not say: taken so where the links to all peers are more than the 18
                      that any board has */
    double bytes_per_s; /* per direction: an upper bound from datasheets; 0 unknown */
    const char *source; /* of that figure, one phrase */
};

struct topo_nic {
    const char *name;   /* "mlx5_0"; PCI bus id where no name is given */
    bool rdma;          /* InfiniBand, RoCE or EFA device; false: plain or not said */
    double bytes_per_s; /* line rate; 0 unknown */
    int numa;           /* -1 unknown */
    int near_gpu;       /* index into topo.gpu of the nearest (first of equals); -1 without GPUs */
    enum topo_link *to_gpu; /* [n_gpu] */
};

struct topo_slurm { /* the allocation around this process; all unknown outside one */
    bool inside;
    int n_node, gpus_per_node, cpus_per_node;                     /* 0 unknown */
    double mem_per_node_bytes;                                    /* 0 unknown or all */
    const char *job_id, *partition, *nodes, *features, *gpu_type; /* NULL unknown */
};

struct topo {
    const char *source;  /* "this machine", "nvidia-smi topo text box.txt", "NCCL XML ...", "hwloc
                            XML ..." */
    const char *machine; /* product name; NULL unknown */
    bool knows_nvlink; /* false: NVLink may be there unsaid (bare NCCL files, hwloc without NVML) */
    int n_gpu;
    struct topo_gpu *gpu;   /* [n_gpu] */
    struct topo_pair *pair; /* [n_gpu][n_gpu], symmetric; see topo_pair() */
    int n_nic;
    struct topo_nic *nic;                   /* [n_nic] */
    const char *cpu_model;                  /* NULL unknown */
    int n_socket, n_core, n_thread, n_numa; /* 0 unknown; n_thread: logical processors */
    double mem_bytes;                       /* host memory; 0 unknown */
    double storage_bytes_per_s;             /* measured on reading; 0 not measured */
    const char *storage_source;             /* what was read and how, or why nothing was */
    struct topo_slurm slurm;
    const char **note; /* [n_note] what could not be read, what was assumed: one sentence each */
    int n_note;
};

static inline const struct topo_pair *topo_pair(const struct topo *t, int i, int j)
{
    return &t->pair[i * t->n_gpu + j];
}

/* This machine: GPUs and links by NVML (loaded at run time), the rest by hwloc and Linux. Without
 * NVML or a GPU n_gpu is 0 and a note says so; that is no error. storage: a directory or file (the
 * checkpoint) whose largest file is read for at most 0.3 s, past the page cache; NULL: not
 * measured. Errors: ST_DEVICE when hwloc fails. */
int topo_detect(const char *storage, struct arena *a, struct topo *t, struct err *e);

/* A description in a file of at most 16 MiB. Errors, with file:line where there is one: ST_IO
 * unreadable; ST_USAGE not one of the three formats, malformed, or beyond the limits on counts and
 * nesting. XML entities are refused. */
int topo_read(const char *path, struct arena *a, struct topo *t, struct err *e);

/* The catalog entry that a reported name is ("NVIDIA H100 80GB HBM3" -> "h100-sxm"), in the arena,
 * or NULL. mem_bytes tells parts of one name apart (0: unknown; ambiguous is then NULL). Variants
 * which the catalog does not have (A10G, RTX 4090 D, H20-3e, MIG parts) are NULL, not their nearest
 * relative. Errors: of reading the catalog. */
int topo_match(const char *reported, double mem_bytes, struct arena *a, const char **catalog,
               struct err *e);

/* The machine as one node (n_node 1, or that of the SLURM allocation where it has NICs) of the
 * hardware model. gpu_override: catalog name for descriptions that do not name the GPU, or NULL; it
 * replaces what was matched. Where the catalog has a measured system of this GPU and fabric, its
 * latencies and its measured fraction of the link rate are taken; else the class defaults printed
 * in out->sys.notes. Errors: ST_USAGE no GPU, unlike GPUs, no or unknown catalog entry (the
 * sentence says how to add one). */
int topo_to_hw(const struct topo *t, const char *gpu_override, struct arena *a, struct hw *out,
               struct err *e);

#endif
