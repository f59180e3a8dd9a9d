/* model/topo_in.h - what the readers of topologies share: the tree that devices hang in, and the
 * draft of a topo.
 *
 * A reader fills a draft (nodes, GPUs, NICs, NVLink) and topo_finish() derives the pairs from it.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_TOPO_IN_H
#define MODEL_TOPO_IN_H

#include <stddef.h>
#include <stdint.h>

#include "model/topo.h"

enum {
    TOPO_MAX_BYTES = 16 << 20,
    TOPO_MAX_NODE = 1 << 18, /* objects of a tree */
    TOPO_MAX_DEPTH = 128,    /* nesting of XML */
    TOPO_MAX_TEXT = 256,     /* bytes kept of a name */
    TOPO_MAX_LINKS = 18      /* NVLinks of one GPU, of any generation so far */
};

enum topo_node_kind { TOPO_CPU, TOPO_HOST, TOPO_SWITCH, TOPO_DEVICE };

struct topo_node {
    int parent, depth; /* parent -1 and depth 0 at the root */
    enum topo_node_kind kind;
    int numa; /* of a CPU node: -1 none or several */
};

struct topo_nv { /* NVLink between two GPUs */
    int n_link;
    bool switched;
    double bytes_per_s; /* where the description gives it; 0: from the generation */
};

struct topo_draft {
    struct arena *a;
    struct topo *t;
    struct topo_node *node; /* [cap_node] */
    int n_node, cap_node;
    int free_hops; /* bridges below the common one that still are one switch: hwloc shows the ports
                      of a switch as bridges (1), NCCL a switch as one (0) */
    int *gpu_node, *nic_node; /* [TOPO_MAX_GPU], [TOPO_MAX_NIC]: place in the tree, -1 none */
    struct topo_nv *nv;       /* [n_gpu][n_gpu] or NULL */
    enum topo_link
        *pcie; /* [n_gpu][n_gpu] or NULL: known otherwise than from the tree; UNKNOWN: not */
};

void topo_draft_init(struct topo_draft *d, struct arena *a, struct topo *t, int free_hops);
/* The new node, or -1 when there are TOPO_MAX_NODE. */
int topo_add_node(struct topo_draft *d, int parent, enum topo_node_kind kind, int numa);
/* NULL when there are TOPO_MAX_GPU or TOPO_MAX_NIC. */
struct topo_gpu *topo_add_gpu(struct topo_draft *d, int node);
struct topo_nic *topo_add_nic(struct topo_draft *d, int node);
void topo_note(struct topo *t, struct arena *a, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* NUMA node above a node of the tree; -1 unknown. */
int topo_numa_of(const struct topo_draft *d, int node);
enum topo_link topo_path(const struct topo_draft *d, int x, int y);
/* Pairs, NIC relations, rates and names. Errors: of reading the catalog. */
int topo_finish(struct topo_draft *d, struct err *e);
/* The last part of it, for a reader that knows the pairs: names, rates, nearest GPUs, notes on what
 * is missing. */
int topo_complete(struct topo *t, struct arena *a, struct err *e);

/* Readers: bytes end in a NUL that n leaves out; file is for messages. The text's fills the
 * pairs, then topo_complete() is due; those of XML fill the tree, then topo_finish() is. */
int topo_parse_smi(struct topo_draft *d, const char *file, const char *text, size_t n,
                   struct err *e);
int topo_parse_nccl(struct topo_draft *d, const char *file, const char *text, size_t n,
                    struct err *e);
int topo_parse_hwloc(struct topo_draft *d, const char *file, const char *text, size_t n,
                     struct err *e);

/* XML, element by element. Attributes: name, value, ..., NULL. Any function may set an error with
 * topo_xml_fail, after which no other is called. */
struct topo_xml {
    void (*start)(struct topo_xml *x, const char *tag, const char **attr);
    void (*end)(struct topo_xml *x, const char *tag);
    void (*text)(struct topo_xml *x, const char *bytes,
                 int n); /* NULL: character data is of no interest */
    const char *file;
    struct err *e;
    void *parser;
    int depth, status;
};
int topo_xml_parse(struct topo_xml *x, const char *bytes, size_t n);
void topo_xml_fail(struct topo_xml *x, int status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
long topo_xml_line(const struct topo_xml *x);
const char *topo_xml_get(const char **attr, const char *name); /* NULL when absent */
/* At most TOPO_MAX_TEXT bytes, control bytes as '?', in the arena. */
const char *topo_text(struct arena *a, const char *text);
/* Whole number in lo..hi, or `otherwise`. base as for strtol. */
int topo_int(const char *text, int base, int lo, int hi, int otherwise);
/* "0000:3b:00.0" in lower case with a domain of four digits ("00000000:3B:00.0" of NVML too), or
 * NULL. */
const char *topo_bus_id(struct arena *a, const char *text);

/* Names: from PCI ids ("NVIDIA A100-SXM4-80GB"; NULL unknown), with the compute capability in
 * tenths (0 unknown). */
const char *topo_pci_name(unsigned vendor, unsigned device, int *cc);
/* true: NVIDIA's or AMD's, of a class that computes. vendor 0: not said. class_id: 24 bits as in
 * sysfs, or 16. */
bool topo_pci_is_gpu(unsigned class_id, unsigned vendor);
bool topo_pci_is_nic(unsigned class_id);
int topo_identify(struct topo *t, struct arena *a, struct err *e);
/* One NVLink per direction, by compute capability; 0 unknown. */
double topo_nvlink_rate(int cc_major, int cc_minor);
/* One direction of a PCIe link after line coding; 0 for an unknown generation. */
double topo_pcie_rate(int gen, int width);
int topo_pcie_gen(double gt_per_s);

/* NVML, by hand: the library's functions that are used. NULL members are absent in an old driver.
 */
struct topo_nvml {
    int (*init)(void);
    int (*shutdown)(void);
    const char *(*error)(int);
    int (*count)(unsigned *);
    int (*handle)(unsigned, void **);
    int (*name)(void *, char *, unsigned);
    int (*memory_v2)(void *, void *);
    int (*memory)(void *, void *);
    int (*pci)(void *, void *);
    int (*cc)(void *, int *, int *);
    int (*gen)(void *, unsigned *);
    int (*width)(void *, unsigned *);
    int (*max_gen)(void *, unsigned *);
    int (*max_width)(void *, unsigned *);
    int (*mig)(void *, unsigned *, unsigned *);
    int (*power_limit)(void *, unsigned *);
    int (*ancestor)(void *, void *, int *);
    int (*link_state)(void *, unsigned, int *);
    int (*link_remote)(void *, unsigned, void *);
    int (*link_type)(void *, unsigned, int *);
};
struct topo_nvml_pci { /* nvmlPciInfo_t */
    char legacy[16];
    unsigned domain, bus, device, pci_device, pci_subsystem;
    char bus_id[32];
};
struct topo_nvml_memory_v2 { /* nvmlMemory_v2_t; version is its size | 2 << 24 */
    unsigned version;
    unsigned long long total, reserved, free, used;
};
struct topo_nvml_memory { /* nvmlMemory_t */
    unsigned long long total, free, used;
};
/* Puts what NVML says in place of the draft's NVIDIA GPUs. nvml NULL: the library is not there,
 * `why`. */
int topo_add_nvml(struct topo_draft *d, const struct topo_nvml *nvml, const char *why,
                  struct err *e);

/* SLURM_* of the environment, and the rate of reading `path`; see topo_detect. */
void topo_read_slurm(struct topo *t, struct arena *a);
void topo_measure_storage(const char *path, struct topo *t, struct arena *a);

#endif
