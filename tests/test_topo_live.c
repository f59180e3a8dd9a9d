/* tests/test_topo_live.c - this machine: hwloc, storage, SLURM, and NVML played by tables.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/pool.h"
#include "model/topo_in.h"
#include "tests/test.h"
#include "tests/topo_check.h"

/* ---- this machine */

TEST(topo_detects_this_machine)
{
    struct arena a;
    struct err e = { 0 };
    struct topo t;
    int online = (int)sysconf(_SC_NPROCESSORS_ONLN);
    double mem = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    arena_init(&a);
    CHECK_OK(topo_detect(NULL, &a, &t, &e), &e);
    CHECK_SAME(topo_fault(&t), NULL);
    CHECK_TEXT(t.source, "this machine");
    CHECK(t.n_thread >= 1 && t.n_thread <= online);
    if (pool_cpus() == online) CHECK_INT(t.n_thread, online);
    CHECK(t.n_core >= 1 && t.n_core <= t.n_thread);
    CHECK(t.mem_bytes > 0 && t.mem_bytes <= mem);
    if (t.mem_bytes < mem)
        CHECK_HAS(t.n_note ? t.note[0] : "", "memory limit of its control group");
    CHECK(t.n_numa >= 1);
    CHECK_NEAR(t.storage_bytes_per_s, 0, 0);
    if (t.n_gpu == 0) CHECK_HAS(t.n_note ? t.note[t.n_note - 1] : "", "GPU");
    for (int i = 0; i < t.n_gpu; i++) CHECK(t.gpu[i].name && t.gpu[i].mem_bytes > 0);
    arena_release(&a);
}

TEST(topo_measures_storage_or_says_why_not)
{
    struct arena a;
    struct topo t = { 0 };
    char *block = calloc(1, 1 << 20);
    FILE *f = fopen(test_path("weights"), "wb");
    for (int i = 0; i < 32; i++) CHECK(f && fwrite(block, 1, 1 << 20, f) == 1 << 20);
    if (f) fclose(f);
    free(block);
    arena_init(&a);
    topo_measure_storage(test_dir(), &t, &a);
    CHECK(t.storage_bytes_per_s > 0 ? strstr(t.storage_source, "weights in") != NULL
                                    : strncmp(t.storage_source, "not measured", 12) == 0);
    topo_measure_storage("/nowhere/at/all", &t, &a);
    CHECK_NEAR(t.storage_bytes_per_s, 0, 0);
    CHECK_HAS(t.storage_source, "not measured: no file of 16 MiB or more in /nowhere/at/all");
    arena_release(&a);
}

TEST(topo_reads_a_slurm_allocation)
{
    struct arena a;
    struct topo t = { 0 };
    arena_init(&a);
    unsetenv("SLURM_JOB_ID");
    topo_read_slurm(&t, &a);
    CHECK(!t.slurm.inside);
    setenv("SLURM_JOB_ID", "4711", 1);
    setenv("SLURM_JOB_NUM_NODES", "2", 1);
    setenv("SLURM_GPUS_PER_NODE", "h100:8", 1);
    unsetenv("SLURM_GPUS_ON_NODE");
    setenv("SLURM_CPUS_ON_NODE", "96", 1);
    setenv("SLURM_MEM_PER_NODE", "1024", 1);
    setenv("SLURM_JOB_PARTITION", "gpu\033[31m", 1);
    setenv("SLURM_JOB_CONSTRAINTS", "(null)", 1);
    unsetenv("SLURM_CONSTRAINT");
    setenv("SBATCH_CONSTRAINT", "nvlink&ib", 1);
    topo_read_slurm(&t, &a);
    CHECK(t.slurm.inside);
    CHECK_INT(t.slurm.n_node, 2);
    CHECK_INT(t.slurm.gpus_per_node, 8);
    CHECK_TEXT(t.slurm.gpu_type, "h100");
    CHECK_INT(t.slurm.cpus_per_node, 96);
    CHECK_NEAR(t.slurm.mem_per_node_bytes, 1073741824, 0);
    CHECK_TEXT(t.slurm.partition, "gpu?[31m");
    CHECK_TEXT(t.slurm.features, "nvlink&ib");
    setenv("SLURM_GPUS_PER_NODE", "a100:4,h100:2", 1);
    topo_read_slurm(&t, &a);
    CHECK_INT(t.slurm.gpus_per_node, 6);
    CHECK_SAME(t.slurm.gpu_type, NULL);
    arena_release(&a);
}

/* ---- NVML, played by tables: 3 H100 behind NVSwitch, one of them split by MIG; GPU 3 has no
 * links */

static unsigned n_fake = 4;
static int fake_init(void)
{
    return 0;
}
static int fake_no_init(void)
{
    return 9;
}
static const char *fake_error(int st)
{
    return st == 9 ? "Driver Not Loaded" : "?";
}
static int fake_count(unsigned *n)
{
    *n = n_fake;
    return 0;
}
static int id_of(const void *dev)
{
    return (int)((const char *)dev - (const char *)&n_fake);
}
static int fake_handle(unsigned i, void **dev)
{
    *dev = (char *)&n_fake + i;
    return 0;
}
static int fake_name(void *dev, char *name, unsigned n)
{
    snprintf(name, n, "%s", id_of(dev) == 3 ? "NVIDIA T1000 8GB" : "NVIDIA H100 80GB HBM3");
    return 0;
}
static int fake_memory(void *dev, void *out)
{
    struct topo_nvml_memory_v2 *m = out;
    CHECK_INT(m->version, (2 << 24 | 40));
    m->total = 85520809984;
    m->reserved = 500000000;
    return id_of(dev) < 0;
}
static int fake_pci(void *dev, void *out)
{
    struct topo_nvml_pci *p = out;
    snprintf(p->bus_id, sizeof p->bus_id, "00000000:%02X:00.0", 0x1a + id_of(dev));
    return 0;
}
static int fake_cc(void *dev, int *major, int *minor)
{
    *major = id_of(dev) == 3 ? 7 : 9;
    *minor = id_of(dev) == 3 ? 5 : 0;
    return 0;
}
static int fake_gen(void *dev, unsigned *v)
{
    *v = 1 + 4 * (id_of(dev) < 0);
    return 0;
}
static int fake_max_gen(void *dev, unsigned *v)
{
    *v = 5 - 2 * (id_of(dev) == 3);
    return 0;
}
static int fake_width(void *dev, unsigned *v)
{
    *v = 16 + 0 * (unsigned)id_of(dev);
    return 0;
}
static int fake_mig(void *dev, unsigned *on, unsigned *pending)
{
    *on = id_of(dev) == 1;
    *pending = 0;
    return id_of(dev) == 3 ? 3 : 0;
}
static int fake_power(void *dev, unsigned *mw)
{
    *mw = id_of(dev) == 3 ? 50000 : 600000;
    return 0;
}
static int fake_ancestor(void *x, void *y, int *level)
{
    *level = id_of(x) + id_of(y) == 1 ? 20 : 50;
    return 0;
}
static int fake_state(void *dev, unsigned link, int *up)
{
    *up = link < 18 && (id_of(dev) != 2 || link != 5); /* one link of GPU 2 is down */
    return id_of(dev) == 3 ? 3 : 0;
}
static int fake_remote(void *dev, unsigned link, void *out)
{
    struct topo_nvml_pci *p = out;
    snprintf(p->bus_id, sizeof p->bus_id, "00000000:%02X:00.0", 0xc0 + link % 4);
    return id_of(dev) < 0;
}
static int fake_type(void *dev, unsigned link, int *type)
{
    *type = link < 18 ? 2 : 0;
    return id_of(dev) < 0;
}

static const struct topo_nvml fake = {
    .init = fake_init,
    .error = fake_error,
    .count = fake_count,
    .handle = fake_handle,
    .name = fake_name,
    .memory_v2 = fake_memory,
    .pci = fake_pci,
    .cc = fake_cc,
    .gen = fake_gen,
    .width = fake_width,
    .max_gen = fake_max_gen,
    .max_width = fake_width,
    .mig = fake_mig,
    .power_limit = fake_power,
    .ancestor = fake_ancestor,
    .link_state = fake_state,
    .link_remote = fake_remote,
    .link_type = fake_type,
};

TEST(topo_takes_nvml_at_its_word)
{
    struct arena a;
    struct topo_draft d;
    struct topo t;
    struct err e = { 0 };
    arena_init(&a);
    topo_draft_init(&d, &a, &t, 1);
    t.source = "this machine";
    /* the tree knows GPU 0 under another place, and one GPU that NVML does not list */
    int cpu = topo_add_node(&d, -1, TOPO_CPU, 1), dev = topo_add_node(&d, cpu, TOPO_DEVICE, -1);
    topo_add_gpu(&d, dev)->bus_id = "0000:1a:00.0";
    CHECK_OK(topo_add_nvml(&d, &fake, NULL, &e), &e);
    CHECK_OK(topo_finish(&d, &e), &e);
    CHECK_SAME(topo_fault(&t), NULL);
    CHECK_INT(t.n_gpu, 4);
    CHECK(t.knows_nvlink);
    CHECK_TEXT(t.gpu[0].catalog, "h100-sxm");
    CHECK_INT(t.gpu[0].numa, 1);
    CHECK_INT(t.gpu[1].numa, -1);
    CHECK(t.gpu[1].mig && !t.gpu[1].catalog);
    CHECK_SAME(t.gpu[3].catalog, NULL);
    CHECK_NEAR(t.gpu[0].mem_bytes, 85520809984.0 - 500000000, 0);
    CHECK_INT(t.gpu[0].pcie_gen, 1);
    CHECK_NEAR(t.gpu[0].pcie_bytes_per_s, 63.015385e9, 1e-6);
    CHECK_NEAR(t.gpu[0].power_limit_w, 600, 1e-12);
    CHECK_INT(t.gpu[0].n_nvlink, 18);
    CHECK_INT(t.gpu[2].n_nvlink, 17);
    CHECK_INT(topo_pair(&t, 0, 1)->n_nvlink, 18);
    CHECK_INT(topo_pair(&t, 0, 2)->n_nvlink, 17);
    CHECK(topo_pair(&t, 0, 1)->switched);
    CHECK_INT(topo_pair(&t, 0, 1)->pcie, TOPO_PXB);
    CHECK_INT(topo_pair(&t, 0, 3)->kind, TOPO_SYS);
    CHECK_NEAR(topo_pair(&t, 0, 2)->bytes_per_s, 17 * 25e9, 1e-12);
    CHECK_NEAR(topo_pair(&t, 0, 3)->bytes_per_s, 15.753846e9, 1e-6);
    arena_release(&a);
}

TEST(topo_says_when_nvml_does_not_work)
{
    struct arena a;
    struct topo_draft d;
    struct topo t;
    struct err e = { 0 };
    struct topo_nvml broken = { .init = fake_no_init, .error = fake_error };
    arena_init(&a);
    topo_draft_init(&d, &a, &t, 1);
    topo_add_gpu(&d, -1)->bus_id = "0000:1a:00.0";
    CHECK_OK(topo_add_nvml(&d, &broken, NULL, &e), &e);
    CHECK_INT(t.n_gpu, 0);
    CHECK_TEXT(t.note[0],
               "1 NVIDIA GPUs are on the PCI bus, but cannot be used: NVML does not start "
               "(Driver Not Loaded)");
    topo_draft_init(&d, &a, &t, 1);
    CHECK_OK(topo_add_nvml(&d, &(struct topo_nvml){ 0 }, NULL, &e), &e);
    CHECK_INT(t.n_gpu, 0);
    arena_release(&a);
}
