/* model/topo_live.c - this machine: hwloc's tree, Linux's figures of NICs, NVML, SLURM, the rate
 * of storage.
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* O_DIRECT */
#include <assert.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <hwloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "model/topo_in.h"

enum {
    READ_BYTES = 4 << 20,
    READ_LEAST = 16 << 20,
    ALIGN = 4096,
    MAX_FILES = 4096,
    PATH_BYTES = 1024
};

#define READ_S 0.3 /* bound on the reading of storage */

/* ---- NVML */

/* Both names: a driver has one or the other. ISO C has no cast from an object's pointer to a
 * function's. */
static void find(void *lib, void *slot, const char *name, const char *older)
{
    void *p = dlsym(lib, name);
    if (!p && older) p = dlsym(lib, older);
    memcpy(slot, &p, sizeof p);
}

static void load_nvml(void *lib, struct topo_nvml *v)
{
    find(lib, &v->init, "nvmlInit_v2", "nvmlInit");
    find(lib, &v->shutdown, "nvmlShutdown", NULL);
    find(lib, &v->error, "nvmlErrorString", NULL);
    find(lib, &v->count, "nvmlDeviceGetCount_v2", "nvmlDeviceGetCount");
    find(lib, &v->handle, "nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetHandleByIndex");
    find(lib, &v->name, "nvmlDeviceGetName", NULL);
    find(lib, &v->memory_v2, "nvmlDeviceGetMemoryInfo_v2", NULL);
    find(lib, &v->memory, "nvmlDeviceGetMemoryInfo", NULL);
    find(lib, &v->pci, "nvmlDeviceGetPciInfo_v3", NULL);
    find(lib, &v->cc, "nvmlDeviceGetCudaComputeCapability", NULL);
    find(lib, &v->gen, "nvmlDeviceGetCurrPcieLinkGeneration", NULL);
    find(lib, &v->width, "nvmlDeviceGetCurrPcieLinkWidth", NULL);
    find(lib, &v->max_gen, "nvmlDeviceGetMaxPcieLinkGeneration", NULL);
    find(lib, &v->max_width, "nvmlDeviceGetMaxPcieLinkWidth", NULL);
    find(lib, &v->mig, "nvmlDeviceGetMigMode", NULL);
    find(lib, &v->power_limit, "nvmlDeviceGetEnforcedPowerLimit",
         "nvmlDeviceGetPowerManagementLimit");
    find(lib, &v->ancestor, "nvmlDeviceGetTopologyCommonAncestor", NULL);
    find(lib, &v->link_state, "nvmlDeviceGetNvLinkState", NULL);
    find(lib, &v->link_remote, "nvmlDeviceGetNvLinkRemotePciInfo_v2", NULL);
    find(lib, &v->link_type, "nvmlDeviceGetNvLinkRemoteDeviceType", NULL);
}

static int add_nvml(struct topo_draft *d, struct err *e)
{
    struct topo_nvml v = { 0 };
    void *lib = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!lib)
        return topo_add_nvml(d, NULL,
                             "NVIDIA's management library (libnvidia-ml.so.1) is not installed", e);
    load_nvml(lib, &v);
    int st = topo_add_nvml(d, &v, NULL, e);
    dlclose(lib);
    return st;
}

/* ---- hwloc */

/* Its own plug-ins for GPUs are left out: NVML is asked here, and OpenCL and CUDA take seconds
 * to start. */
static int load_hwloc(hwloc_topology_t *h, struct err *e)
{
    static const char *const without[] = { "nvml", "cuda", "opencl", "rsmi", "levelzero", "gl" };
    if (hwloc_topology_init(h) != 0)
        return err_set(e, ST_DEVICE, "hwloc does not start: %s", strerror(errno));
    for (size_t i = 0; i < sizeof without / sizeof *without; i++)
        hwloc_topology_set_components(*h, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST, without[i]);
    hwloc_topology_set_io_types_filter(*h, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
    if (hwloc_topology_load(*h) == 0) return ST_OK;
    int why = errno;
    hwloc_topology_destroy(*h);
    return err_set(e, ST_DEVICE, "hwloc cannot read this machine: %s", strerror(why));
}

static int add_hwloc(struct topo_draft *d, struct err *e)
{
    hwloc_topology_t h;
    char *xml = NULL;
    int n = 0, st = load_hwloc(&h, e);
    if (st != ST_OK) return st;
    if (hwloc_topology_export_xmlbuffer(h, &xml, &n, 0) != 0) {
        st = err_set(e, ST_DEVICE, "hwloc cannot write its XML: %s", strerror(errno));
    } else {
        st = topo_parse_hwloc(d, "hwloc of this machine", xml, n > 0 ? (size_t)n - 1 : 0, e);
        hwloc_free_xmlbuffer(h, xml);
    }
    hwloc_topology_destroy(h);
    return st;
}

/* ---- NICs */

static bool first_line(const char *path, char *buf, size_t n)
{
    FILE *f = fopen(path, "r");
    bool ok = f && fgets(buf, (int)n, f);
    if (f) (void)fclose(f);
    return ok;
}

/* "100 Gb/sec (4X EDR)" of an RDMA port; megabits a second of an interface, -1 while it is down. */
static void nic_rates(struct topo *t)
{
    for (int i = 0; i < t->n_nic; i++) {
        char path[PATH_BYTES], line[128];
        struct topo_nic *c = &t->nic[i];
        if (strchr(c->name, '/')) continue;
        snprintf(path, sizeof path, "/sys/class/infiniband/%s/ports/1/rate", c->name);
        if (c->rdma && first_line(path, line, sizeof line))
            c->bytes_per_s = strtod(line, NULL) * 1e9 / 8;
        snprintf(path, sizeof path, "/sys/class/net/%s/speed", c->name);
        if (!c->rdma && first_line(path, line, sizeof line))
            c->bytes_per_s = strtod(line, NULL) * 1e6 / 8;
        if (!(c->bytes_per_s > 0 && c->bytes_per_s < 1e13)) c->bytes_per_s = 0;
    }
}

/* ---- memory */

/* What Linux manages (sums over NUMA nodes miss memory added to a running machine), or less
 * where the control group of this process has a limit: a container's programs get no more. */
static void host_memory(struct topo *t, struct arena *a)
{
    static const char *const limit[] = { "/sys/fs/cgroup/memory.max",
                                         "/sys/fs/cgroup/memory/memory.limit_in_bytes" };
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    char line[64];
    if (pages > 0 && page > 0) t->mem_bytes = (double)pages * (double)page;
    for (int i = 0; i < 2; i++) {
        double v = first_line(limit[i], line, sizeof line) ? strtod(line, NULL) : 0;
        if (!(v > 0 && v < t->mem_bytes)) continue;
        topo_note(
            t, a,
            "host memory is the memory limit of its control group, of %.0f GiB in the machine",
            t->mem_bytes / (1 << 30));
        t->mem_bytes = v;
    }
}

/* ---- SLURM */

static const char *env_text(const char *name, struct arena *a)
{
    const char *v = getenv(name);
    return v && *v && strcmp(v, "(null)") != 0 ? topo_text(a, v) : NULL;
}

/* "8", "h100:8", "h100:4,a100:4" -> the sum, and the type where it is one. */
static int gpus_of(const char *text, struct arena *a, const char **type)
{
    int sum = 0, parts = 0;
    for (const char *p = text; p && *p; parts++) {
        size_t n = strcspn(p, ",");
        char part[TOPO_MAX_TEXT];
        snprintf(part, sizeof part, "%.*s", n < sizeof part ? (int)n : (int)sizeof part - 1, p);
        char *colon = strrchr(part, ':');
        sum += topo_int(colon ? colon + 1 : part, 10, 0, 4096, 0);
        if (colon) *colon = 0;
        *type = colon && !parts ? topo_text(a, part) : NULL;
        p += n + (p[n] == ',');
    }
    return sum;
}

void topo_read_slurm(struct topo *t, struct arena *a)
{
    struct topo_slurm *s = &t->slurm;
    const char *cpus = getenv("SLURM_CPUS_ON_NODE"), *mem = getenv("SLURM_MEM_PER_NODE");
    const char *nodes = getenv("SLURM_JOB_NUM_NODES"), *on_node = getenv("SLURM_GPUS_ON_NODE");
    *s = (struct topo_slurm){ 0 };
    s->job_id = env_text("SLURM_JOB_ID", a);
    if (!s->job_id) return;
    s->inside = true;
    s->n_node = topo_int(nodes ? nodes : getenv("SLURM_NNODES"), 10, 1, 1 << 20, 0);
    s->gpus_per_node = gpus_of(getenv("SLURM_GPUS_PER_NODE"), a, &s->gpu_type);
    int here = topo_int(on_node, 10, 0, 4096, 0);
    if (here) s->gpus_per_node = here;
    s->cpus_per_node = topo_int(cpus, 10, 1, 1 << 20, 0);
    s->mem_per_node_bytes = topo_int(mem, 10, 0, 1 << 30, 0) * (double)(1 << 20);
    s->partition = env_text("SLURM_JOB_PARTITION", a);
    s->nodes = env_text("SLURM_JOB_NODELIST", a);
    s->features = env_text("SLURM_JOB_CONSTRAINTS", a);
    if (!s->features) s->features = env_text("SLURM_CONSTRAINT", a);
    if (!s->features) s->features = env_text("SBATCH_CONSTRAINT", a);
}

/* ---- storage */

/* The largest file in a directory, or the path itself. */
static bool largest_file(const char *path, char *out, size_t n, double *bytes)
{
    struct stat s;
    struct dirent *f;
    if (stat(path, &s) != 0) return false;
    *bytes = S_ISREG(s.st_mode) ? (double)s.st_size : -1;
    snprintf(out, n, "%s", path);
    DIR *dir = S_ISDIR(s.st_mode) ? opendir(path) : NULL;
    for (int i = 0; dir && i < MAX_FILES && (f = readdir(dir)); i++) {
        char name[PATH_BYTES];
        int len = snprintf(name, sizeof name, "%s/%s", path, f->d_name);
        if (len >= (int)sizeof name || stat(name, &s) != 0 || !S_ISREG(s.st_mode)) continue;
        if ((double)s.st_size <= *bytes) continue;
        *bytes = (double)s.st_size;
        snprintf(out, n, "%s", name);
    }
    if (dir) (void)closedir(dir);
    return *bytes >= 0;
}

static double now_s(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

/* Reads for at most READ_S; returns the bytes read and the time taken. */
static double read_for(int fd, char *block, double *took_s)
{
    double got = 0, start = now_s();
    do {
        ssize_t n = read(fd, block, READ_BYTES);
        if (n <= 0) break;
        got += (double)n;
        *took_s = now_s() - start;
    } while (*took_s < READ_S);
    return got;
}

void topo_measure_storage(const char *path, struct topo *t, struct arena *a)
{
    char file[PATH_BYTES];
    double bytes = 0, took_s = 0;
    void *block = NULL;
    t->storage_bytes_per_s = 0;
    t->storage_source = "not measured: no directory to read from was given";
    if (!path) return;
    if (!largest_file(path, file, sizeof file, &bytes) || bytes < READ_LEAST) {
        t->storage_source = arena_printf(a, "not measured: no file of %d MiB or more in %s",
                                         READ_LEAST >> 20, topo_text(a, path));
        return;
    }
    int fd = open(file, O_RDONLY | O_DIRECT | O_CLOEXEC | O_NONBLOCK);
    bool direct = fd >= 0;
    if (!direct) fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    /* without O_DIRECT (tmpfs, some network file systems) pages in memory are first given up */
    if (fd >= 0 && !direct) (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    if (fd >= 0 && posix_memalign(&block, ALIGN, READ_BYTES) == 0) {
        double got = read_for(fd, block, &took_s);
        bool enough = got >= READ_LEAST / 4.0 && took_s > 0;
        if (enough) t->storage_bytes_per_s = got / took_s;
        t->storage_source = enough
                                ? arena_printf(a, "%.0f MiB of %s in %.0f ms, one reader, %s",
                                               got / (1 << 20), topo_text(a, file), took_s * 1e3,
                                               direct ? "past the page cache (O_DIRECT)"
                                                      : "page cache given up before, not past it")
                                : arena_printf(a, "not measured: reading %s failed or was too slow",
                                               topo_text(a, file));
    } else {
        t->storage_source = arena_printf(a, "not measured: cannot open %s", topo_text(a, file));
    }
    free(block);
    if (fd >= 0) (void)close(fd);
}

/* ---- the whole */

int topo_detect(const char *storage, struct arena *a, struct topo *t, struct err *e)
{
    struct topo_draft d;
    assert(a && t);
    topo_draft_init(&d, a, t, 1);
    int st = add_hwloc(&d, e);
    if (st != ST_OK) return st;
    host_memory(t, a);
    if ((st = add_nvml(&d, e)) != ST_OK) return st;
    t->source = "this machine";
    const char *visible = env_text("CUDA_VISIBLE_DEVICES", a);
    if (t->n_gpu && visible)
        topo_note(t, a,
                  "CUDA_VISIBLE_DEVICES=%s hides some GPUs from programs; all are listed here",
                  visible);
    nic_rates(t);
    topo_read_slurm(t, a);
    topo_measure_storage(storage, t, a);
    return topo_finish(&d, e);
}
