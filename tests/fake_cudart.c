/* tests/fake_cudart.c - see fake_cudart.h. SPDX-License-Identifier: Apache-2.0 */
#define FAKE_CUDART_ITSELF
#include "tests/fake_cudart.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "tests/fake_cublaslt.h"

enum {
    RUNTIME = 13000,
    SHARED_MAX = 232448,
    SHARED_STATIC = 48,
    SET_MAX = 1 << 16 /* enough to tell */
};

enum what { SET, COPY, KERNEL };
struct op {
    enum what what;
    void *to;
    const void *from;
    size_t n;
    enum gpu_kern k;
    struct gpu_add add;
};
struct list {
    struct op *op;
    size_t n, cap;
};

struct fake_rt fake_rt;
static struct list queue, captured; /* of the one stream */
static bool capturing;
static char entry[GPU_N_KERN];
static void
    *volatile left[8]; /* newest streams and events: reachable, should they never be destroyed */

static struct {
    char *at;
    size_t n;
    enum cudaMemoryType type;
} mem[64];

void fake_rt_reset(void)
{
    free(queue.op), free(captured.op);
    queue = captured = (struct list){ 0 };
    capturing = false;
    memset(mem, 0, sizeof mem);
    fake_rt = (struct fake_rt){ .n_device = 1,
                                .driver = RUNTIME,
                                .major = 9,
                                .ptx = 90,
                                .memory_bytes = 1000000000,
                                .fail_rc = cudaErrorUnknown };
}

/* The error of this call: what broke before, or its turn to fail. */
static cudaError_t turn(void)
{
    fake_rt.calls++;
    return fake_rt.calls == fake_rt.fail_at ? fake_rt.fail_rc : cudaSuccess;
}

#define TURN()                                                                                     \
    do {                                                                                           \
        cudaError_t rc_ = turn();                                                                  \
        if (rc_ != cudaSuccess) return rc_;                                                        \
    } while (0)

const void *backend_cuda_kern(enum gpu_kern k)
{
    return &entry[k];
}

int backend_cuda_lt_load(struct backend_cuda_lt *out, struct err *e)
{
    (void)e;
    *out = *fake_lt_table();
    return ST_OK;
}

/* ---- the machine */

cudaError_t fake_cudaGetDeviceCount(int *n)
{
    TURN();
    *n = fake_rt.n_device;
    return fake_rt.count_rc;
}
cudaError_t fake_cudaDriverGetVersion(int *v)
{
    TURN();
    *v = fake_rt.driver;
    return cudaSuccess;
}
cudaError_t fake_cudaRuntimeGetVersion(int *v)
{
    TURN();
    *v = RUNTIME;
    return cudaSuccess;
}
cudaError_t fake_fake_properties(struct cudaDeviceProp *p, int device)
{
    (void)device;
    TURN();
    memset(p, 0, sizeof *p);
    strcpy(p->name, "Fake GPU");
    p->major = fake_rt.major, p->minor = fake_rt.minor;
    p->multiProcessorCount = 132;
    p->totalGlobalMem = fake_rt.memory_bytes;
    return cudaSuccess;
}
cudaError_t fake_cudaDeviceGetAttribute(int *v, enum cudaDeviceAttr what, int device)
{
    (void)device;
    TURN();
    *v = what == cudaDevAttrL2CacheSize ? 1 << 20 : SHARED_MAX;
    return cudaSuccess;
}
cudaError_t fake_cudaSetDevice(int device)
{
    (void)device;
    TURN();
    return cudaSuccess;
}
cudaError_t fake_cudaFuncGetAttributes(struct cudaFuncAttributes *a, const void *f)
{
    (void)f;
    TURN();
    memset(a, 0, sizeof *a);
    a->maxThreadsPerBlock = 1024;
    a->sharedSizeBytes = SHARED_STATIC;
    a->ptxVersion = fake_rt.ptx;
    return fake_rt.kernel_rc;
}
cudaError_t fake_cudaFuncSetAttribute(const void *f, enum cudaFuncAttribute what, int v)
{
    (void)f;
    TURN();
    return what == cudaFuncAttributeMaxDynamicSharedMemorySize && v == SHARED_MAX - SHARED_STATIC
               ? cudaSuccess
               : cudaErrorInvalidValue;
}

/* ---- memory */

static cudaError_t take(void **p, size_t n, enum cudaMemoryType type)
{
    size_t i = 0;
    if (fake_rt.used_bytes + n > fake_rt.memory_bytes) return cudaErrorMemoryAllocation;
    while (mem[i].at) i++;
    mem[i].at = mem_alloc(n);
    memset(mem[i].at, 0xff, n < 4096 ? n : 4096);
    mem[i].n = n, mem[i].type = type;
    fake_rt.used_bytes += n;
    fake_rt.live++;
    *p = mem[i].at;
    return cudaSuccess;
}
static cudaError_t drop(void *p)
{
    size_t i = 0;
    while (mem[i].at != p) i++;
    fake_rt.used_bytes -= mem[i].n;
    fake_rt.live--;
    mem[i].at = NULL;
    free(p);
    return cudaSuccess;
}

cudaError_t fake_cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    TURN();
    *free_bytes = fake_rt.memory_bytes - fake_rt.used_bytes;
    *total = fake_rt.memory_bytes;
    return cudaSuccess;
}
cudaError_t fake_cudaMalloc(void **p, size_t n)
{
    TURN();
    return take(p, n, cudaMemoryTypeDevice);
}
cudaError_t fake_cudaHostAlloc(void **p, size_t n, unsigned flags)
{
    TURN();
    return flags == cudaHostAllocPortable ? take(p, n, cudaMemoryTypeHost) : cudaErrorInvalidValue;
}
cudaError_t fake_cudaFree(void *p)
{
    return drop(p);
}
cudaError_t fake_cudaFreeHost(void *p)
{
    return drop(p);
}
cudaError_t fake_cudaPointerGetAttributes(struct cudaPointerAttributes *a, const void *p)
{
    TURN();
    memset(a, 0, sizeof *a);
    a->type = cudaMemoryTypeUnregistered;
    for (size_t i = 0; i < sizeof mem / sizeof *mem; i++)
        if (mem[i].at && (uintptr_t)p - (uintptr_t)mem[i].at < mem[i].n) a->type = mem[i].type;
    return cudaSuccess;
}

/* ---- the stream */

static cudaError_t push(struct op op)
{
    struct list *l = capturing ? &captured : &queue;
    if (l->n == l->cap) l->op = mem_resize(l->op, l->cap = 2 * l->cap + 8, sizeof *l->op);
    l->op[l->n++] = op;
    if (!capturing && l->n > fake_rt.most) fake_rt.most = l->n;
    return cudaSuccess;
}

static void run(const struct op *op)
{
    if (op->what == SET) memset(op->to, 0, op->n < SET_MAX ? op->n : SET_MAX);
    if (op->what == COPY) memcpy(op->to, op->from, op->n);
    if (op->what != KERNEL) return;
    fake_rt.launched++;
    for (int64_t i = 0; op->k == GPU_K_add && i < op->add.n; i++) op->add.y[i] += op->add.x[i];
}

cudaError_t fake_cudaMemsetAsync(void *p, int v, size_t n, cudaStream_t s)
{
    (void)s;
    TURN();
    return v ? cudaErrorInvalidValue : push((struct op){ .what = SET, .to = p, .n = n });
}
cudaError_t fake_cudaMemcpyAsync(void *to, const void *from, size_t n, enum cudaMemcpyKind kind,
                                 cudaStream_t s)
{
    (void)s;
    TURN();
    return kind != cudaMemcpyDefault
               ? cudaErrorInvalidValue
               : push((struct op){ .what = COPY, .to = to, .from = from, .n = n });
}
cudaError_t fake_cudaLaunchKernelExC(const cudaLaunchConfig_t *how, const void *f, void **args)
{
    struct op op = { .what = KERNEL, .k = (enum gpu_kern)((const char *)f - entry) };
    TURN();
    fake_rt.early += how->numAttrs == 1 &&
                     how->attrs->id == cudaLaunchAttributeProgrammaticStreamSerialization &&
                     how->attrs->val.programmaticStreamSerializationAllowed == 1;
    if (op.k == GPU_K_add) memcpy(&op.add, args[0], sizeof op.add);
    return push(op);
}
cudaError_t fake_cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags)
{
    TURN();
    *s = left[fake_rt.live++ % 8] = mem_alloc(1);
    return flags == cudaStreamNonBlocking ? cudaSuccess : cudaErrorInvalidValue;
}
cudaError_t fake_cudaStreamDestroy(cudaStream_t s)
{
    fake_rt.live--;
    free(s);
    return cudaSuccess;
}
cudaError_t fake_cudaStreamQuery(cudaStream_t s)
{
    (void)s;
    TURN();
    if (fake_rt.run_rc != cudaSuccess) return fake_rt.run_rc;
    if (fake_rt.busy) {
        fake_rt.busy -= fake_rt.busy > 0;
        return cudaErrorNotReady;
    }
    for (size_t i = 0; i < queue.n; i++) run(&queue.op[i]);
    queue.n = 0;
    return cudaSuccess;
}

/* ---- recordings: a graph and what is made of it are lists of operations */

static void *copy_of(const struct list *l)
{
    struct list *to = mem_zalloc(1, sizeof *to);
    to->n = l->n;
    to->op = mem_alloc((l->n + 1) * sizeof *to->op);
    if (l->n) memcpy(to->op, l->op, l->n * sizeof *to->op);
    fake_rt.live++;
    return to;
}
static cudaError_t drop_list(void *p)
{
    struct list *l = p;
    fake_rt.live--;
    free(l->op);
    free(l);
    return cudaSuccess;
}

cudaError_t fake_cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode mode)
{
    (void)s;
    TURN();
    if (mode != cudaStreamCaptureModeThreadLocal || capturing) return cudaErrorIllegalState;
    capturing = true;
    fake_lt.recording = true;
    captured.n = 0;
    return cudaSuccess;
}
cudaError_t fake_cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g)
{
    (void)s;
    capturing = false;
    fake_lt.recording = false;
    TURN();
    *g = copy_of(&captured);
    return cudaSuccess;
}
cudaError_t fake_cudaGraphInstantiateWithFlags(cudaGraphExec_t *x, cudaGraph_t g,
                                               unsigned long long flags)
{
    TURN();
    if (flags) return cudaErrorInvalidValue;
    *x = copy_of((const struct list *)(const void *)g);
    return cudaSuccess;
}
cudaError_t fake_cudaGraphUpload(cudaGraphExec_t x, cudaStream_t s)
{
    (void)x, (void)s;
    TURN();
    return cudaSuccess;
}
cudaError_t fake_cudaGraphLaunch(cudaGraphExec_t x, cudaStream_t s)
{
    const struct list *l = (const void *)x;
    (void)s;
    TURN();
    fake_rt.graph_launches++;
    for (size_t i = 0; i < l->n; i++) push(l->op[i]);
    return cudaSuccess;
}
cudaError_t fake_cudaGraphDestroy(cudaGraph_t g)
{
    return drop_list(g);
}
cudaError_t fake_cudaGraphExecDestroy(cudaGraphExec_t x)
{
    return drop_list(x);
}

/* ---- events: the number of calls is the time, in us */

cudaError_t fake_cudaEventCreate(cudaEvent_t *ev)
{
    TURN();
    int *at = mem_zalloc(1, sizeof *at);
    *ev = left[fake_rt.live++ % 8] = (void *)at;
    return cudaSuccess;
}
cudaError_t fake_cudaEventCreateWithFlags(cudaEvent_t *ev, unsigned flags)
{
    return flags == cudaEventDisableTiming ? fake_cudaEventCreate(ev) : cudaErrorInvalidValue;
}
/* As the stream: what was issued after the event has run too. */
cudaError_t fake_cudaEventQuery(cudaEvent_t ev)
{
    (void)ev;
    return fake_cudaStreamQuery(NULL);
}
cudaError_t fake_cudaEventDestroy(cudaEvent_t ev)
{
    fake_rt.live--;
    free(ev);
    return cudaSuccess;
}
cudaError_t fake_cudaEventRecord(cudaEvent_t ev, cudaStream_t s)
{
    (void)s;
    TURN();
    *(int *)(void *)ev = fake_rt.calls;
    return cudaSuccess;
}
cudaError_t fake_cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    TURN();
    *ms = (float)(*(const int *)(const void *)to - *(const int *)(const void *)from) * 1e-3F;
    return cudaSuccess;
}
