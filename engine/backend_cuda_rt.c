/* engine/backend_cuda_rt.c - a device of gpu.h over the CUDA runtime: one stream, checked calls.
 *
 * A failed call is fatal to the device and its sentence is kept: CUDA reports what went wrong in a
 * kernel at some later call, and again at every call after it. Only being out of memory is not
 * fatal. Waiting asks the stream over and over, because CUDA's own waits have no time limit; for
 * the same reason memory that is not pinned is copied on an idle queue only. With
 * $ORRERY_GPU_OVERLAP=1, from sm_90 on, a kernel's blocks come while the last ones of the kernel
 * before still run, and wait in gpu_begin; otherwise they come when it has ended. After a time limit
 * nothing of the device is freed: that would wait too. SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <cuda_runtime_api.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/progress.h"
#include "base/units.h"
#include "engine/backend_cuda.h"

#ifndef BACKEND_CUDA_ARCH
#define BACKEND_CUDA_ARCH "unknown"
#endif

enum {
    SM_MIN = 75,
    SM_OVERLAP = 90,
    GRID_YZ_MAX = 65535,
    ROW = 256,
    /* A stream takes some 1,024 launches before the next one blocks in the driver, where nothing looks
     * out for ranks that are gone: no more than so many marks of PACE launches are ahead of it. */
    PACE = 128,
    PACE_MARKS = 4,
    WATCH_NS = 1000000
};
#define CLOSE_NS INT64_C(2000000000) /* longest wait for a device that has failed */

struct gpu_graph {
    cudaGraphExec_t exec;
    struct gpu_graph *next;
};

struct gpu_event {
    cudaEvent_t event;
    struct gpu_event *next;
};

struct block { /* of memory */
    char *at;
    size_t bytes;
    struct block *next;
};

struct cuda {
    struct gpu g; /* first: a struct gpu * is one of these */
    int index;
    cudaStream_t stream;
    struct backend_cuda_mm *mm;
    bool recording, hung, overlap; /* overlap: kernels may come before the last one has ended */
    int64_t timeout_ns;
    int (*watch)(void *arg, int64_t waited_ns, struct err *e);
    void *watch_arg;
    cudaEvent_t pace[PACE_MARKS]; /* NULL until used first */
    int64_t n_launch;
    const char *last; /* kernel issued last, for sentences */
    struct err broken;
    struct block *device, *pinned;
    struct gpu_graph *graph;
    struct gpu_event *event;
    int shared_max[GPU_N_KERN]; /* dynamic, bytes */
};

/* ---- errors */

static struct cuda *self(struct gpu *g)
{
    return (struct cuda *)(void *)g;
}

static int broke(struct cuda *d, struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static int broke(struct cuda *d, struct err *e, const char *fmt, ...)
{
    char text[sizeof d->broken.text];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    err_set(&d->broken, ST_DEVICE, "%s", text);
    return err_set(e, ST_DEVICE, "%s", text);
}

static int fail(struct cuda *d, cudaError_t rc, const char *call, int line, struct err *e)
{
    cudaGetLastError(); /* else an unchecked call elsewhere would report it again */
    return broke(d, e, "%s:%d: %s: %s (%s) on GPU %d (%s)%s%s", __FILE__, line, call,
                 cudaGetErrorString(rc), cudaGetErrorName(rc), d->index, d->g.info.name,
                 d->last ? ", the last kernel issued was " : "", d->last ? d->last : "");
}

#define TRY(d_, call_)                                                                             \
    do {                                                                                           \
        cudaError_t rc_ = (call_);                                                                 \
        if (rc_ != cudaSuccess) return fail((d_), rc_, #call_, __LINE__, e);                       \
    } while (0)

/* Before each operation: a device is the current one of a thread, and threads have several. */
static int enter(struct cuda *d, struct err *e)
{
    if (d->broken.status != ST_OK) return err_set(e, d->broken.status, "%s", d->broken.text);
    TRY(d, cudaSetDevice(d->index));
    return ST_OK;
}

/* ---- waiting */

static int64_t timeout_ns(void)
{
    const char *text = getenv("ORRERY_GPU_TIMEOUT_S");
    char *end;
    double s = text ? strtod(text, &end) : 0;
    if (!text || end == text || *end || !(s >= 0 && s <= 1e6)) s = BACKEND_CUDA_TIMEOUT_S;
    return (int64_t)(s * 1e9);
}

/* What the watch says stays the device's: who waits for ranks that are gone has nothing to go on to. */
static int ask_watch(struct cuda *d, int64_t waited_ns, struct err *e)
{
    struct err why = { 0 };
    if (!d->watch || d->watch(d->watch_arg, waited_ns, &why) == ST_OK) return ST_OK;
    return broke(d, e, "%s", why.text);
}

/* event NULL: for all that was issued. */
static int wait_for(struct cuda *d, cudaEvent_t event, struct err *e)
{
    int64_t start_ns = clock_mono_ns(), asked_ns = start_ns;
    for (;;) {
        cudaError_t rc = event ? cudaEventQuery(event) : cudaStreamQuery(d->stream);
        if (rc == cudaSuccess) return ST_OK;
        if (rc != cudaErrorNotReady)
            return fail(d, rc, event ? "cudaEventQuery" : "cudaStreamQuery", __LINE__, e);
        int64_t now_ns = clock_mono_ns();
        if (now_ns - asked_ns > WATCH_NS) {
            asked_ns = now_ns;
            if (ask_watch(d, now_ns - start_ns, e) != ST_OK) return ST_DEVICE;
        }
        if (now_ns - start_ns > d->timeout_ns) break;
        sched_yield();
    }
    d->hung = true;
    return broke(
        d, e,
        "%s:%d: GPU %d (%s) has not finished after %.3g s ($ORRERY_GPU_TIMEOUT_S): a kernel does "
        "not end, or waits for a rank that is gone; the last one issued was %s",
        __FILE__, __LINE__, d->index, d->g.info.name, (double)d->timeout_ns * 1e-9,
        d->last ? d->last : "none");
}

static int wait_queue(struct cuda *d, struct err *e)
{
    return wait_for(d, NULL, e);
}

static int op_wait(struct gpu *g, struct err *e)
{
    struct cuda *d = self(g);
    int st = enter(d, e);
    assert(!d->recording);
    return st == ST_OK ? wait_queue(d, e) : st;
}

/* ---- memory */

/* bytes: what was asked for, 0: the driver knows. */
static int out_of_memory(struct cuda *d, const char *what, size_t bytes, int line, struct err *e)
{
    size_t free_bytes = 0, total = 0;
    char asked[32], left[32], all[32];
    cudaGetLastError();
    if (cudaMemGetInfo(&free_bytes, &total) != cudaSuccess) free_bytes = 0;
    units_human(UNIT_BYTES, (double)bytes, asked, sizeof asked);
    return err_set(e, ST_DEVICE, "%s:%d: out of %s on GPU %d (%s): %s%s%sfree %s of %s", __FILE__,
                   line, what, d->index, d->g.info.name, bytes ? "asked for " : "",
                   bytes ? asked : "", bytes ? ", " : "",
                   units_human(UNIT_BYTES, (double)free_bytes, left, sizeof left),
                   units_human(UNIT_BYTES, (double)total, all, sizeof all));
}

static void keep(struct block **list, void *at, size_t bytes)
{
    struct block *b = mem_alloc(sizeof *b);
    *b = (struct block){ .at = at, .bytes = bytes, .next = *list };
    *list = b;
}

static bool holds(const struct block *list, const void *p)
{
    uintptr_t at = (uintptr_t)p;
    for (; list; list = list->next)
        if (at >= (uintptr_t)list->at && at - (uintptr_t)list->at < list->bytes) return true;
    return false;
}

static int op_alloc(struct gpu *g, size_t bytes, void **out, struct err *e)
{
    struct cuda *d = self(g);
    void *at = NULL;
    int st = enter(d, e);
    assert(!d->recording);
    *out = NULL;
    if (st != ST_OK) return st;
    if (bytes == 0) bytes = ROW;
    cudaError_t rc = cudaMalloc(&at, bytes);
    if (rc == cudaErrorMemoryAllocation) return out_of_memory(d, "memory", bytes, __LINE__, e);
    if (rc != cudaSuccess) return fail(d, rc, "cudaMalloc", __LINE__, e);
    keep(&d->device, at, bytes);
    TRY(d, cudaMemsetAsync(at, 0, bytes, d->stream));
    *out = at;
    return ST_OK;
}

static int op_alloc_pinned(struct gpu *g, size_t bytes, void **out, struct err *e)
{
    struct cuda *d = self(g);
    void *at = NULL;
    int st = enter(d, e);
    assert(!d->recording);
    *out = NULL;
    if (st != ST_OK) return st;
    if (bytes == 0) bytes = ROW;
    cudaError_t rc = cudaHostAlloc(&at, bytes, cudaHostAllocPortable);
    if (rc == cudaErrorMemoryAllocation)
        return out_of_memory(d, "pinned memory", bytes, __LINE__, e);
    if (rc != cudaSuccess) return fail(d, rc, "cudaHostAlloc", __LINE__, e);
    keep(&d->pinned, at, bytes);
    memset(at, 0, bytes);
    *out = at;
    return ST_OK;
}

/* Can the device's copy engines reach it? Memory of other devices and ranks is asked for. */
static int reachable(struct cuda *d, const void *p, bool *yes, struct err *e)
{
    struct cudaPointerAttributes is;
    *yes = holds(d->pinned, p);
    if (*yes) return ST_OK;
    TRY(d, cudaPointerGetAttributes(&is, p));
    *yes = is.type != cudaMemoryTypeUnregistered;
    return ST_OK;
}

/* host: the side that may be any memory. */
static int copy(struct gpu *g, void *to, const void *from, size_t bytes, const void *host,
                struct err *e)
{
    struct cuda *d = self(g);
    bool at_once;
    int st = enter(d, e);
    if (st != ST_OK || bytes == 0) return st;
    st = reachable(d, host, &at_once, e);
    if (st != ST_OK) return st;
    assert(at_once || !d->recording);
    if (!at_once) st = wait_queue(d, e);
    if (st != ST_OK) return st;
    TRY(d, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, d->stream));
    return at_once ? ST_OK : wait_queue(d, e);
}

static int op_put(struct gpu *g, void *to, const void *from, size_t bytes, struct err *e)
{
    return copy(g, to, from, bytes, from, e);
}

static int op_get(struct gpu *g, void *to, const void *from, size_t bytes, struct err *e)
{
    return copy(g, to, from, bytes, to, e);
}

/* ---- kernels and products */

/* After each launch. */
static int keep_pace(struct cuda *d, struct err *e)
{
    if (d->recording || ++d->n_launch % PACE) return ST_OK;
    int64_t k = d->n_launch / PACE;
    cudaEvent_t *last = &d->pace[k % PACE_MARKS], oldest = d->pace[(k + 1) % PACE_MARKS];
    if (!*last) TRY(d, cudaEventCreateWithFlags(last, cudaEventDisableTiming));
    TRY(d, cudaEventRecord(*last, d->stream));
    return oldest ? wait_for(d, oldest, e) : ST_OK;
}

static int op_launch(struct gpu *g, enum gpu_kern k, const struct gpu_dim *dim, const void *args,
                     struct err *e)
{
    struct cuda *d = self(g);
    int st = enter(d, e);
    if (st != ST_OK || dim->x == 0 || dim->y == 0 || dim->z == 0) return st;
    assert(dim->x > 0 && dim->y > 0 && dim->z > 0 && dim->threads > 0);
    if (dim->threads > gpu_kern_max_threads(k) || dim->shared_bytes > d->shared_max[k] ||
        dim->y > GRID_YZ_MAX || dim->z > GRID_YZ_MAX)
        return err_set(e, ST_DEVICE,
                       "kernel %s cannot be issued as %d x %d x %d blocks of %d threads with %d B "
                       "of shared memory: GPU %d (%s) gives it %d threads, %d B",
                       gpu_kern_name(k), dim->x, dim->y, dim->z, dim->threads, dim->shared_bytes,
                       d->index, d->g.info.name, gpu_kern_max_threads(k), d->shared_max[k]);
    dim3 grid = { (unsigned)dim->x, (unsigned)dim->y, (unsigned)dim->z };
    dim3 block = { (unsigned)dim->threads, 1, 1 };
    void *arg[] = { (void *)(uintptr_t)args };
    d->last = gpu_kern_name(k);
    cudaLaunchAttribute early = { .id = cudaLaunchAttributeProgrammaticStreamSerialization };
    early.val.programmaticStreamSerializationAllowed = 1;
    const cudaLaunchConfig_t how = { .gridDim = grid,
                                     .blockDim = block,
                                     .dynamicSmemBytes = (size_t)dim->shared_bytes,
                                     .stream = d->stream,
                                     .attrs = &early,
                                     .numAttrs = d->overlap ? 1 : 0 };
    TRY(d, cudaLaunchKernelExC(&how, backend_cuda_kern(k), arg));
    return keep_pace(d, e);
}

static int op_mm(struct gpu *g, const struct gpu_mm *a, struct err *e)
{
    struct cuda *d = self(g);
    int st = enter(d, e);
    if (st != ST_OK) return st;
    d->last = "a product";
    st = backend_cuda_mm_run(d->mm, a, e);
    return st == ST_OK ? keep_pace(d, e) : st;
}

static int op_plan(struct gpu *g, const struct gpu_mm *a, struct err *e)
{
    struct cuda *d = self(g);
    int st = enter(d, e);
    assert(!d->recording);
    return st == ST_OK ? backend_cuda_mm_plan(d->mm, a, e) : st;
}

/* ---- recordings: stream capture. Of this thread only: other ranks go on allocating. */

static int op_record(struct gpu *g, struct err *e)
{
    struct cuda *d = self(g);
    int st = enter(d, e);
    assert(!d->recording);
    if (st != ST_OK) return st;
    TRY(d, cudaStreamBeginCapture(d->stream, cudaStreamCaptureModeThreadLocal));
    d->recording = true;
    return ST_OK;
}

static int instantiate(struct cuda *d, cudaGraph_t graph, struct gpu_graph *out, struct err *e)
{
    const char *call = "cudaGraphInstantiateWithFlags";
    cudaError_t rc = cudaGraphInstantiateWithFlags(&out->exec, graph, 0);
    if (rc == cudaSuccess) {
        call = "cudaGraphUpload";
        rc = cudaGraphUpload(out->exec, d->stream);
    }
    if (rc == cudaErrorMemoryAllocation)
        return out_of_memory(d, "memory for a recording", 0, __LINE__, e);
    return rc == cudaSuccess ? ST_OK : fail(d, rc, call, __LINE__, e);
}

static void end_recording(struct cuda *d)
{
    cudaGraph_t graph = NULL;
    d->recording = false;
    if (cudaStreamEndCapture(d->stream, &graph) == cudaSuccess && graph) cudaGraphDestroy(graph);
    cudaGetLastError();
}

static int op_recorded(struct gpu *g, struct gpu_graph **out, struct err *e)
{
    struct cuda *d = self(g);
    cudaGraph_t graph = NULL;
    int st = enter(d, e);
    *out = NULL;
    assert(d->recording);
    if (st != ST_OK) { /* else most calls of this thread would be refused */
        end_recording(d);
        return st;
    }
    d->recording = false;
    TRY(d, cudaStreamEndCapture(d->stream, &graph));
    struct gpu_graph *made = mem_zalloc(1, sizeof *made);
    st = instantiate(d, graph, made, e);
    cudaGraphDestroy(graph);
    made->next = d->graph;
    d->graph = made;
    if (st == ST_OK)
        *out = made;
    else
        g->ops->graph_free(g, made);
    return st;
}

static int op_graph_launch(struct gpu *g, struct gpu_graph *graph, struct err *e)
{
    struct cuda *d = self(g);
    int st = enter(d, e);
    if (st != ST_OK) return st;
    d->last = "in a recording";
    TRY(d, cudaGraphLaunch(graph->exec, d->stream));
    return keep_pace(d, e);
}

static void op_graph_free(struct gpu *g, struct gpu_graph *graph)
{
    struct cuda *d = self(g);
    struct gpu_graph **at = &d->graph;
    if (!graph) return;
    while (*at != graph) at = &(*at)->next;
    *at = graph->next;
    if (graph->exec && !d->hung) cudaGraphExecDestroy(graph->exec);
    free(graph);
}

/* ---- events */

static int op_event_new(struct gpu *g, struct gpu_event **out, struct err *e)
{
    struct cuda *d = self(g);
    cudaEvent_t event;
    int st = enter(d, e);
    *out = NULL;
    if (st != ST_OK) return st;
    TRY(d, cudaEventCreate(&event));
    *out = mem_alloc(sizeof **out);
    **out = (struct gpu_event){ .event = event, .next = d->event };
    d->event = *out;
    return ST_OK;
}

static int op_event_set(struct gpu *g, struct gpu_event *ev, struct err *e)
{
    struct cuda *d = self(g);
    int st = enter(d, e);
    assert(!d->recording);
    if (st != ST_OK) return st;
    TRY(d, cudaEventRecord(ev->event, d->stream));
    return ST_OK;
}

static int op_event_ns(struct gpu *g, const struct gpu_event *from, const struct gpu_event *to,
                       double *ns, struct err *e)
{
    struct cuda *d = self(g);
    float ms;
    int st = enter(d, e);
    if (st != ST_OK) return st;
    TRY(d, cudaEventElapsedTime(&ms, from->event, to->event));
    *ns = (double)ms * 1e6;
    return ST_OK;
}

static int op_event_wait(struct gpu *g, const struct gpu_event *ev, struct err *e)
{
    struct cuda *d = self(g);
    int st = enter(d, e);
    assert(!d->recording);
    return st == ST_OK ? wait_for(d, ev->event, e) : st;
}

static void op_watch(struct gpu *g, int (*fn)(void *, int64_t, struct err *), void *arg)
{
    self(g)->watch = fn;
    self(g)->watch_arg = arg;
}

static void *op_queue(struct gpu *g)
{
    return self(g)->stream;
}

/* ---- life */

static void free_host_side(struct cuda *d)
{
    for (struct gpu_graph *p = d->graph, *next; p; p = next) next = p->next, free(p);
    for (struct gpu_event *p = d->event, *next; p; p = next) next = p->next, free(p);
    for (struct block *p = d->device, *next; p; p = next) next = p->next, free(p);
    for (struct block *p = d->pinned, *next; p; p = next) next = p->next, free(p);
    free(d);
}

/* Errors have been told when they arose: what can be freed is. */
static void op_close(struct gpu *g)
{
    struct cuda *d = self(g);
    struct err unused = { 0 };
    cudaSetDevice(d->index);
    if (d->recording) end_recording(d);
    /* also after a failure: with work that does not end, what follows would wait for ever */
    if (d->broken.status != ST_OK && d->timeout_ns > CLOSE_NS) d->timeout_ns = CLOSE_NS;
    if (d->stream && !d->hung) (void)wait_queue(d, &unused);
    backend_cuda_mm_close(d->mm, d->hung);
    if (!d->hung) {
        for (struct gpu_graph *p = d->graph; p; p = p->next)
            if (p->exec) cudaGraphExecDestroy(p->exec);
        for (struct gpu_event *p = d->event; p; p = p->next) cudaEventDestroy(p->event);
        for (int i = 0; i < PACE_MARKS; i++)
            if (d->pace[i]) cudaEventDestroy(d->pace[i]);
        for (struct block *p = d->device; p; p = p->next) cudaFree(p->at);
        for (struct block *p = d->pinned; p; p = p->next) cudaFreeHost(p->at);
        if (d->stream) cudaStreamDestroy(d->stream);
        cudaGetLastError();
    }
    free_host_side(d);
}

static const struct gpu_ops ops = { .name = "cuda",
                                    .close = op_close,
                                    .alloc = op_alloc,
                                    .alloc_pinned = op_alloc_pinned,
                                    .put = op_put,
                                    .get = op_get,
                                    .launch = op_launch,
                                    .mm = op_mm,
                                    .plan = op_plan,
                                    .wait = op_wait,
                                    .record = op_record,
                                    .recorded = op_recorded,
                                    .graph_launch = op_graph_launch,
                                    .graph_free = op_graph_free,
                                    .event_new = op_event_new,
                                    .event_set = op_event_set,
                                    .event_ns = op_event_ns,
                                    .event_wait = op_event_wait,
                                    .watch = op_watch,
                                    .queue = op_queue };

/* A count of 0 has a sentence. The driver is loaded by the runtime, which is linked in. */
int gpu_cuda_count(struct err *e)
{
    int n = 0, driver = 0, runtime = 0;
    cudaError_t rc = cudaGetDeviceCount(&n);
    if (rc == cudaSuccess && n > 0) return n;
    cudaGetLastError();
    if (cudaDriverGetVersion(&driver) != cudaSuccess) driver = 0;
    if (cudaRuntimeGetVersion(&runtime) != cudaSuccess) runtime = CUDART_VERSION;
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    if (driver == 0)
        err_set(e, ST_DEVICE,
                "no NVIDIA driver on this machine: CUDA %d.%d finds no libcuda.so.1 that works "
                "(%s)",
                runtime / 1000, runtime % 1000 / 10, cudaGetErrorString(rc));
    else if (rc == cudaErrorInsufficientDriver)
        err_set(e, ST_DEVICE,
                "the NVIDIA driver is too old: it knows CUDA %d.%d, this build uses CUDA %d.%d; "
                "update the driver, or build with a toolkit of CUDA %d",
                driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10,
                driver / 1000);
    else if (rc == cudaErrorNoDevice || rc == cudaSuccess)
        err_set(e, ST_DEVICE, "no NVIDIA GPU is visible%s%s%s",
                visible ? " (CUDA_VISIBLE_DEVICES is '" : "", visible ? visible : "",
                visible ? "')" : "");
    else
        err_set(e, ST_DEVICE, "CUDA cannot start: %s (%s); driver of CUDA %d.%d, runtime %d.%d",
                cudaGetErrorString(rc), cudaGetErrorName(rc), driver / 1000, driver % 1000 / 10,
                runtime / 1000, runtime % 1000 / 10);
    return 0;
}

static int attribute(struct cuda *d, enum cudaDeviceAttr what, int *out, struct err *e)
{
    TRY(d, cudaDeviceGetAttribute(out, what, d->index));
    return ST_OK;
}

static int read_info(struct cuda *d, struct err *e)
{
    struct cudaDeviceProp is;
    struct gpu_info *h = &d->g.info;
    int l2 = 0;
    TRY(d, cudaGetDeviceProperties(&is, d->index));
    snprintf(h->name, sizeof h->name, "%.63s", is.name);
    h->sm = 10 * is.major + is.minor;
    h->n_sm = is.multiProcessorCount;
    h->memory_bytes = (int64_t)is.totalGlobalMem;
    snprintf(h->bus_id, sizeof h->bus_id, "%08x:%02x:%02x.0", (unsigned)is.pciDomainID,
             (unsigned)is.pciBusID & 0xff, (unsigned)is.pciDeviceID & 0xff);
    if (h->sm < SM_MIN)
        return err_set(e, ST_DEVICE,
                       "GPU %d (%s) has compute capability %d.%d: 7.5 (Turing) is the least",
                       d->index, h->name, h->sm / 10, h->sm % 10);
    int st = attribute(d, cudaDevAttrL2CacheSize, &l2, e);
    h->l2_bytes = l2;
    if (st == ST_OK)
        st = attribute(d, cudaDevAttrMaxSharedMemoryPerBlockOptin, &h->max_shared_bytes, e);
    if (st != ST_OK) return st;
    TRY(d, cudaDriverGetVersion(&h->driver));
    TRY(d, cudaRuntimeGetVersion(&h->runtime));
    return ST_OK;
}

/* Loads each kernel and lets it have all the shared memory there is. */
static int ready_kernels(struct cuda *d, struct err *e)
{
    for (int k = 0; k < GPU_N_KERN; k++) {
        const void *entry = backend_cuda_kern((enum gpu_kern)k);
        struct cudaFuncAttributes is;
        cudaError_t rc = cudaFuncGetAttributes(&is, entry);
        if (rc == cudaErrorNoKernelImageForDevice || rc == cudaErrorInvalidDeviceFunction)
            return broke(d, e,
                         "this build has no code for compute capability %d.%d of GPU %d (%s): it "
                         "was made for %s (make CUDA_ARCH=...)",
                         d->g.info.sm / 10, d->g.info.sm % 10, d->index, d->g.info.name,
                         BACKEND_CUDA_ARCH);
        if (rc != cudaSuccess) return fail(d, rc, "cudaFuncGetAttributes", __LINE__, e);
        d->shared_max[k] = d->g.info.max_shared_bytes - (int)is.sharedSizeBytes;
        if (is.ptxVersion < SM_OVERLAP) d->overlap = false; /* its gpu_begin does not wait */
        if (is.maxThreadsPerBlock < gpu_kern_max_threads((enum gpu_kern)k))
            return broke(d, e, "kernel %s can have %d threads of a block, not %d, on GPU %d (%s)",
                         gpu_kern_name((enum gpu_kern)k), is.maxThreadsPerBlock,
                         gpu_kern_max_threads((enum gpu_kern)k), d->index, d->g.info.name);
        TRY(d, cudaFuncSetAttribute(entry, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    d->shared_max[k]));
    }
    return ST_OK;
}

static int start(struct cuda *d, struct err *e)
{
    struct backend_cuda_lt lt;
    size_t free_bytes, total;
    const char *overlap = getenv("ORRERY_GPU_OVERLAP");
    int st = read_info(d, e);
    d->overlap = d->g.info.sm >= SM_OVERLAP && overlap && strcmp(overlap, "1") == 0;
    if (st == ST_OK) st = enter(d, e);
    if (st != ST_OK) return st;
    TRY(d, cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking));
    st = ready_kernels(d, e);
    if (st == ST_OK) st = backend_cuda_lt_load(&lt, e);
    if (st != ST_OK) return st;
    d->mm = backend_cuda_mm_open(&d->g, &lt, e);
    if (!d->mm) return ST_DEVICE;
    st = wait_queue(d, e);
    if (st != ST_OK) return st;
    TRY(d, cudaMemGetInfo(&free_bytes, &total));
    d->g.info.free_bytes = (int64_t)free_bytes;
    return ST_OK;
}

struct gpu *gpu_cuda_open(int index, struct err *e)
{
    int n = gpu_cuda_count(e);
    if (n == 0) return NULL;
    if (index < 0 || index >= n) {
        err_set(e, ST_DEVICE, "there is no GPU %d: %d %s visible, numbered from 0", index, n,
                n == 1 ? "is" : "are");
        return NULL;
    }
    struct cuda *d = mem_zalloc(1, sizeof *d);
    d->g.ops = &ops;
    d->index = index;
    d->timeout_ns = timeout_ns();
    if (start(d, e) == ST_OK) return &d->g;
    op_close(&d->g);
    return NULL;
}
