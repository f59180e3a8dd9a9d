/* engine/backend_cuda_mm.c - products by cuBLASLt, the algorithm of each shape chosen by timing.
 *
 * Row-major y[m][n] = x[m][k] . w[n][k]^T is, to a column-major library, y^T = w^T . x with w
 * transposed and x not: the one layout in which it multiplies 8-bit numbers. The library proposes
 * up to N_TRY algorithms, by a model of the device; plan() runs each as a recording, over operands
 * that are random and that together exceed the L2 cache twice, and keeps the fastest. For few rows
 * of 16-bit numbers the kernel gemv is one more, which the library's have to beat. Shapes that
 * nobody has asked to time, most chunks of prompts, take the algorithm of the same matrix with the
 * fewest rows at or above theirs that was timed, and the library's first proposal where there is none
 * or it does not fit. Two runs may
 * choose differently where algorithms are equally fast, and differ in the last bits of f32.
 * The library is loaded when a device is opened: a program linked to it would not start on machines
 * without it. SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "engine/backend_cuda.h"

enum {
    N_TRY = 8,
    N_ROUND = 3, /* after the first, of those within NEAR_RATIO of the best */
    RUNS_MIN = 3,
    RUNS_MAX = 32,  /* of one recording; of the caller's operands 1, which take long enough */
    ALIGN_MAX = 16, /* bytes that algorithms may count on */
    ROW = 256,      /* operands of the timing begin at multiples of it */
    GUESSES_MAX = 4096
};
#define NEAR_RATIO     1.3
#define WORK_BYTES     ((size_t)32 << 20) /* what the library asks for on sm_90 */
#define POOL_MIN_BYTES ((size_t)8 << 20)
#define POOL_MAX_BYTES ((size_t)256 << 20)
#define E4M3_SM        89
#define E4M3_MULTIPLE  16

struct plan {
    enum gpu_elt type;
    int32_t m, n, k, align;
    bool planned;    /* was asked to be timed */
    bool timed, own; /* timed: algorithms were compared; own: by the kernel gemv */
    bool borrowed;   /* its algorithm is that of another number of rows */
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t w, x, y; /* NULL until made, as desc */
    cublasLtMatmulAlgo_t algo;
};

struct backend_cuda_mm {
    struct gpu *g;
    struct backend_cuda_lt lt;
    cublasLtHandle_t handle;
    cublasLtMatmulPreference_t pref;
    void *work; /* [WORK_BYTES], of whichever product runs: they run one by one */
    char *pool; /* operands for timing */
    size_t pool_bytes;
    struct plan **slot;  /* [cap] hash table, open addressing, at most half full */
    int n, n_guess, cap; /* plans, those not planned, slots */
    struct gpu_event *ev[2];
};

/* Operand sets in the pool, used in turn; n 0: the caller's own, too large to stay in a cache. */
struct sets {
    const struct gpu_mm *a;
    char *pool;
    size_t x_bytes, w_bytes, y_bytes;
    int n;
};

static int lt_fail(const struct backend_cuda_mm *m, cublasStatus_t rc, const char *what, int line,
                   struct err *e)
{
    return err_set(e, ST_DEVICE, "%s:%d: cublasLt%s: %s on %s", __FILE__, line, what,
                   m->lt.GetStatusString(rc), m->g->info.name);
}

#define LT_TRY(m_, name_, ...)                                                                     \
    do {                                                                                           \
        cublasStatus_t rc_ = (m_)->lt.name_(__VA_ARGS__);                                          \
        if (rc_ != CUBLAS_STATUS_SUCCESS) return lt_fail((m_), rc_, #name_, __LINE__, e);          \
    } while (0)

/* ---- the library */

static void *open_library(char *name, size_t n)
{
    const char *home = getenv("CUDA_HOME");
    char path[512];
    snprintf(name, n, "libcublasLt.so.%d", CUBLAS_VER_MAJOR);
    void *lib = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!lib && home && *home) {
        snprintf(path, sizeof path, "%s/lib64/%s", home, name);
        lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    }
    if (!lib) {
        snprintf(path, sizeof path, "/usr/local/cuda/lib64/%s", name);
        lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    }
    return lib;
}

int backend_cuda_lt_load(struct backend_cuda_lt *out, struct err *e)
{
    char name[64], symbol[64];
    void *lib = open_library(name, sizeof name);
    if (!lib)
        return err_set(
            e, ST_DEVICE,
            "%s is not found: install cuBLAS of CUDA %d, or name its directory in "
            "LD_LIBRARY_PATH (also looked in $CUDA_HOME/lib64 and /usr/local/cuda/lib64)",
            name, CUBLAS_VER_MAJOR);
#define WANT(name_)                                                                                \
    {                                                                                              \
#name_, &out->name_                                                                        \
    }
    const struct {
        const char *name;
        void *to;
    } want[] = { WANT(Create),
                 WANT(Destroy),
                 WANT(MatmulDescCreate),
                 WANT(MatmulDescDestroy),
                 WANT(MatmulDescSetAttribute),
                 WANT(MatrixLayoutCreate),
                 WANT(MatrixLayoutDestroy),
                 WANT(MatmulPreferenceCreate),
                 WANT(MatmulPreferenceDestroy),
                 WANT(MatmulPreferenceSetAttribute),
                 WANT(MatmulAlgoGetHeuristic),
                 WANT(MatmulAlgoCheck),
                 WANT(Matmul),
                 WANT(GetStatusString) };
#undef WANT
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        snprintf(symbol, sizeof symbol, "cublasLt%s", want[i].name);
        void *at = dlsym(lib, symbol);
        if (!at) return err_set(e, ST_DEVICE, "%s has no %s: it is too old", name, symbol);
        memcpy(want[i].to, &at, sizeof at); /* POSIX: a pointer to a function fits one to data */
    }
    return ST_OK;
}

/* ---- plans */

static void plan_free(struct backend_cuda_mm *m, struct plan *p)
{
    if (!p) return;
    if (p->y) m->lt.MatrixLayoutDestroy(p->y);
    if (p->x) m->lt.MatrixLayoutDestroy(p->x);
    if (p->w) m->lt.MatrixLayoutDestroy(p->w);
    if (p->desc) m->lt.MatmulDescDestroy(p->desc);
    free(p);
}

static bool same(const struct plan *p, const struct plan *q)
{
    return p->type == q->type && p->m == q->m && p->n == q->n && p->k == q->k &&
           p->align == q->align;
}

/* Where the plan is, or where it would go. */
static struct plan **slot_of(const struct backend_cuda_mm *m, const struct plan *key)
{
    const int32_t part[] = { (int32_t)key->type, key->m, key->n, key->k, key->align };
    uint64_t h = 0;
    for (size_t i = 0; i < sizeof part / sizeof *part; i++)
        h = (h ^ (uint64_t)part[i]) * 0x9e3779b97f4a7c15u, h ^= h >> 29;
    size_t mask = (size_t)m->cap - 1, at = (size_t)h & mask;
    while (m->slot[at] && !same(m->slot[at], key)) at = (at + 1) & mask;
    return &m->slot[at];
}

/* Room for one more. Shapes that nobody has planned for, the chunks of prefills, are without end:
 * when there are too many, they are forgotten. */
static void make_room(struct backend_cuda_mm *m)
{
    struct plan **old = m->slot;
    int cap = m->cap;
    bool forget = m->n_guess >= GUESSES_MAX;
    if (m->n * 2 < cap && !forget) return;
    m->cap = forget ? cap : cap * 2;
    m->slot = mem_zalloc((size_t)m->cap, sizeof *m->slot);
    m->n = m->n_guess = 0;
    for (int i = 0; i < cap; i++) {
        if (!old[i]) continue;
        if (forget && !old[i]->planned) {
            plan_free(m, old[i]);
            continue;
        }
        *slot_of(m, old[i]) = old[i];
        m->n++;
        m->n_guess += !old[i]->planned;
    }
    free(old);
}

static struct plan key_of(const struct gpu_mm *a)
{
    uintptr_t bits = (uintptr_t)a->x | (uintptr_t)a->w | (uintptr_t)a->y | ALIGN_MAX;
    return (struct plan){
        .type = a->type, .m = a->m, .n = a->n, .k = a->k, .align = (int32_t)(bits & (~bits + 1))
    };
}

static cudaDataType_t data_type(enum gpu_elt t)
{
    switch (t) {
    case GPU_BF16: return CUDA_R_16BF;
    case GPU_F16: return CUDA_R_16F;
    case GPU_E4M3: return CUDA_R_8F_E4M3;
    default: return CUDA_R_32F;
    }
}

static const char *type_name(enum gpu_elt t)
{
    return t == GPU_BF16 ? "bf16" : t == GPU_F16 ? "f16" : t == GPU_E4M3 ? "e4m3" : "f32";
}

static int refuse(const struct backend_cuda_mm *m, const struct plan *p, const char *why,
                  struct err *e)
{
    return err_set(e, ST_DEVICE,
                   "a product of %s x[%d][%d] . w[%d][%d]^T is not possible on %s (compute "
                   "capability %d.%d): %s",
                   type_name(p->type), p->m, p->k, p->n, p->k, m->g->info.name, m->g->info.sm / 10,
                   m->g->info.sm % 10, why);
}

static int check(const struct backend_cuda_mm *m, const struct plan *p, struct err *e)
{
    assert(p->m > 0 && p->n > 0 && p->k > 0);
    if (p->type != GPU_E4M3) return ST_OK;
    if (m->g->info.sm < E4M3_SM)
        return refuse(m, p, "8-bit floating point needs compute capability 8.9", e);
    if (p->n % E4M3_MULTIPLE || p->k % E4M3_MULTIPLE || p->align < ALIGN_MAX)
        return refuse(m, p, "8-bit matrices need both sizes and addresses to be multiples of 16",
                      e);
    return ST_OK;
}

/* The description of the product in p, whose key is set. On failure the caller frees p. */
static int describe(struct backend_cuda_mm *m, struct plan *p, struct err *e)
{
    const cublasOperation_t yes = CUBLAS_OP_T, no = CUBLAS_OP_N;
    const uint64_t rows = (uint64_t)p->n, columns = (uint64_t)p->m, inner = (uint64_t)p->k;
    cudaDataType_t type = data_type(p->type);
    LT_TRY(m, MatmulDescCreate, &p->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    LT_TRY(m, MatmulDescSetAttribute, p->desc, CUBLASLT_MATMUL_DESC_TRANSA, &yes, sizeof yes);
    LT_TRY(m, MatmulDescSetAttribute, p->desc, CUBLASLT_MATMUL_DESC_TRANSB, &no, sizeof no);
    LT_TRY(m, MatrixLayoutCreate, &p->w, type, inner, rows, p->k);
    LT_TRY(m, MatrixLayoutCreate, &p->x, type, inner, columns, p->k);
    LT_TRY(m, MatrixLayoutCreate, &p->y, CUDA_R_32F, rows, columns, p->n);
    return ST_OK;
}

/* Scales are addresses in the description. Algorithms are asked for with the scales set. */
static int set_scales(struct backend_cuda_mm *m, struct plan *p, const struct gpu_mm *a,
                      struct err *e)
{
    if (p->type != GPU_E4M3) return ST_OK;
    LT_TRY(m, MatmulDescSetAttribute, p->desc, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &a->w_scale,
           sizeof a->w_scale);
    LT_TRY(m, MatmulDescSetAttribute, p->desc, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &a->x_scale,
           sizeof a->x_scale);
    return ST_OK;
}

/* The library's proposals, best guess first; p->algo becomes the first. */
static int propose(struct backend_cuda_mm *m, struct plan *p, cublasLtMatmulAlgo_t *out, int *n,
                   struct err *e)
{
    cublasLtMatmulHeuristicResult_t got[N_TRY];
    const uint32_t align = (uint32_t)p->align;
    int n_got = 0;
    *n = 0;
    for (int i = CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES;
         i <= CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES; i++)
        LT_TRY(m, MatmulPreferenceSetAttribute, m->pref, (cublasLtMatmulPreferenceAttributes_t)i,
               &align, sizeof align);
    cublasStatus_t rc = m->lt.MatmulAlgoGetHeuristic(m->handle, p->desc, p->w, p->x, p->y, p->y,
                                                     m->pref, N_TRY, got, &n_got);
    if (rc != CUBLAS_STATUS_SUCCESS && rc != CUBLAS_STATUS_NOT_SUPPORTED)
        return lt_fail(m, rc, "MatmulAlgoGetHeuristic", __LINE__, e);
    for (int i = 0; i < n_got; i++)
        if (got[i].state == CUBLAS_STATUS_SUCCESS) out[(*n)++] = got[i].algo;
    if (*n == 0) return refuse(m, p, "cuBLASLt knows no algorithm for it", e);
    p->algo = out[0];
    return ST_OK;
}

static bool has_own(const struct plan *p)
{
    bool narrow = p->type == GPU_BF16 || p->type == GPU_F16;
    return narrow && p->m <= GPU_GEMV_MAX && p->k % 8 == 0 && p->align >= ALIGN_MAX;
}

/* Of the same matrix, that with the fewest rows at or above p's that was timed; NULL: none was. */
static const struct plan *timed_above(const struct backend_cuda_mm *m, const struct plan *p)
{
    const struct plan *best = NULL;
    for (int i = 0; i < m->cap; i++) {
        const struct plan *q = m->slot[i];
        bool like = q && q->timed && q->type == p->type && q->n == p->n && q->k == p->k &&
                    q->align == p->align && q->m >= p->m;
        if (like && (!best || q->m < best->m)) best = q;
    }
    return best;
}

/* Its algorithm for p, if the library takes it there. */
static bool borrow(const struct backend_cuda_mm *m, struct plan *p)
{
    cublasLtMatmulHeuristicResult_t is;
    const struct plan *q = timed_above(m, p);
    if (!q) return false;
    if (q->own) return p->own = p->borrowed = has_own(p);
    memset(&is, 0, sizeof is);
    cublasStatus_t rc =
        m->lt.MatmulAlgoCheck(m->handle, p->desc, p->w, p->x, p->y, p->y, &q->algo, &is);
    if (rc != CUBLAS_STATUS_SUCCESS || is.state != CUBLAS_STATUS_SUCCESS ||
        is.workspaceSize > WORK_BYTES)
        return false;
    p->algo = q->algo;
    return p->borrowed = true;
}

/* The plan of a's shape, made when there is none; then the proposals are in algo[*n], if it has not
 * got its algorithm elsewhere. */
static int find(struct backend_cuda_mm *m, const struct gpu_mm *a, struct plan **out,
                cublasLtMatmulAlgo_t *algo, int *n, struct err *e)
{
    struct plan key = key_of(a), *p = *slot_of(m, &key);
    *n = 0;
    if (p) {
        *out = p;
        return ST_OK;
    }
    int st = check(m, &key, e);
    if (st != ST_OK) return st;
    p = mem_zalloc(1, sizeof *p);
    *p = key;
    st = describe(m, p, e);
    if (st == ST_OK) st = set_scales(m, p, a, e);
    if (st == ST_OK && !borrow(m, p)) st = propose(m, p, algo, n, e);
    if (st != ST_OK) {
        plan_free(m, p);
        return st;
    }
    make_room(m);
    *slot_of(m, p) = *out = p;
    m->n++;
    m->n_guess++;
    return ST_OK;
}

static int issue_own(struct backend_cuda_mm *m, const struct gpu_mm *a, struct err *e)
{
    const struct gpu_gemv k = {
        .x = a->x, .w = a->w, .y = a->y, .type = (int32_t)a->type, .m = a->m, .n = a->n, .k = a->k
    };
    struct gpu_dim d;
    gpu_kern_dim(GPU_K_gemv, &k, &m->g->info, &d);
    return m->g->ops->launch(m->g, GPU_K_gemv, &d, &k, e);
}

/* algo NULL: the kernel. */
static int issue(struct backend_cuda_mm *m, const struct plan *p, const cublasLtMatmulAlgo_t *algo,
                 const struct gpu_mm *a, struct err *e)
{
    if (!algo) return issue_own(m, a, e);
    const float one = 1, zero = 0;
    LT_TRY(m, Matmul, m->handle, p->desc, &one, a->w, p->w, a->x, p->x, &zero, a->y, p->y, a->y,
           p->y, algo, m->work, WORK_BYTES, (cudaStream_t)m->g->ops->queue(m->g));
    return ST_OK;
}

int backend_cuda_mm_run(struct backend_cuda_mm *m, const struct gpu_mm *a, struct err *e)
{
    cublasLtMatmulAlgo_t algo[N_TRY];
    struct err why = { 0 };
    struct plan *p;
    int n;
    if (a->m == 0) return ST_OK;
    int st = find(m, a, &p, algo, &n, e);
    if (st == ST_OK) st = set_scales(m, p, a, e);
    if (st != ST_OK) return st;
    if (!p->borrowed) return issue(m, p, p->own ? NULL : &p->algo, a, e);
    st = issue(m, p, p->own ? NULL : &p->algo, a, &why);
    if (st == ST_OK) return ST_OK;
    p->borrowed = p->own = false; /* it does not fit after all */
    st = propose(m, p, algo, &n, e);
    return st == ST_OK ? issue(m, p, &p->algo, a, e) : st;
}

/* ---- timing */

static size_t rounded(size_t bytes)
{
    return (bytes + ROW - 1) / ROW * ROW;
}

static size_t set_bytes(const struct sets *s)
{
    return s->x_bytes + s->w_bytes + s->y_bytes;
}

static struct sets sets_of(const struct backend_cuda_mm *m, const struct gpu_mm *a)
{
    size_t elt = gpu_elt_bytes(a->type), rows = (size_t)a->m, n = (size_t)a->n, k = (size_t)a->k;
    struct sets s = { .a = a, .pool = m->pool };
    s.x_bytes = rounded(rows * k * elt);
    s.w_bytes = rounded(n * k * elt);
    s.y_bytes = rounded(rows * n * sizeof(float));
    s.n = (int)(m->pool_bytes / set_bytes(&s));
    return s;
}

static struct gpu_mm operands(const struct sets *s, int i)
{
    struct gpu_mm a = *s->a;
    if (s->n == 0) return a;
    char *at = s->pool + (size_t)(i % s->n) * set_bytes(s);
    a.x = at;
    a.w = at + s->x_bytes;
    a.y = (float *)(void *)(at + s->x_bytes + s->w_bytes);
    return a;
}

static int fill_pool(struct backend_cuda_mm *m, enum gpu_elt type, struct err *e)
{
    struct gpu_fill f = { .x = m->pool,
                          .seed = 1,
                          .n = (int64_t)(m->pool_bytes / gpu_elt_bytes(type)),
                          .type = (int32_t)type };
    struct gpu_dim d;
    gpu_kern_dim(GPU_K_fill, &f, &m->g->info, &d);
    return m->g->ops->launch(m->g, GPU_K_fill, &d, &f, e);
}

/* Keeps the candidates that can be issued, *n of them, each run once: its code is then loaded. */
static int try_each(struct backend_cuda_mm *m, const struct plan *p,
                    const cublasLtMatmulAlgo_t **algo, int *n, const struct sets *s, struct err *e)
{
    struct err first = { 0 };
    int kept = 0;
    for (int i = 0; i < *n; i++) {
        struct gpu_mm a = operands(s, i);
        if (issue(m, p, algo[i], &a, &first) == ST_OK) algo[kept++] = algo[i];
    }
    *n = kept;
    return kept ? m->g->ops->wait(m->g, e) : err_set(e, first.status, "%s", first.text);
}

/* n products with one algorithm as a recording. */
static int record_runs(struct backend_cuda_mm *m, const struct plan *p,
                       const cublasLtMatmulAlgo_t *algo, const struct sets *s, int first, int n,
                       struct gpu_graph **out, struct err *e)
{
    struct gpu *g = m->g;
    int st = g->ops->record(g, e);
    if (st != ST_OK) return st;
    for (int i = 0; i < n && st == ST_OK; i++) {
        struct gpu_mm a = operands(s, first + i);
        st = issue(m, p, algo, &a, e);
    }
    struct err end = { 0 }; /* a recording is ended also when a product has failed */
    int st_end = g->ops->recorded(g, out, st == ST_OK ? e : &end);
    return st == ST_OK ? st_end : st;
}

static int time_runs(struct gpu *g, struct gpu_graph *runs, struct gpu_event *const ev[2],
                     double *ns, struct err *e)
{
    int st = g->ops->event_set(g, ev[0], e);
    if (st == ST_OK) st = g->ops->graph_launch(g, runs, e);
    if (st == ST_OK) st = g->ops->event_set(g, ev[1], e);
    if (st == ST_OK) st = g->ops->wait(g, e);
    return st == ST_OK ? g->ops->event_ns(g, ev[0], ev[1], ns, e) : st;
}

/* Which recording is fastest: all once, then those near the best by turns, the least time of each
 * counting, as what disturbs only adds. */
static int fastest(struct backend_cuda_mm *m, struct gpu_graph *const *runs, int n, int *best,
                   struct err *e)
{
    double ns, least[N_TRY + 1] = { 0 };
    *best = 0;
    for (int round = 0; round <= N_ROUND; round++)
        for (int i = 0; i < n; i++) {
            if (round && least[i] > NEAR_RATIO * least[*best]) continue;
            int st = time_runs(m->g, runs[i], m->ev, &ns, e);
            if (st != ST_OK) return st;
            if (round == 0 || ns < least[i]) least[i] = ns;
            if (least[i] < least[*best]) *best = i;
        }
    return ST_OK;
}

static int choose(struct backend_cuda_mm *m, struct plan *p, const cublasLtMatmulAlgo_t *algo,
                  int n, const struct sets *s, struct err *e)
{
    struct gpu_graph *runs[N_TRY + 1] = { NULL };
    const cublasLtMatmulAlgo_t *each[N_TRY + 1];
    for (int i = 0; i < n; i++) each[i] = &algo[i];
    if (has_own(p)) each[n++] = NULL;
    int best = 0, st = try_each(m, p, each, &n, s, e);
    if (st != ST_OK || n == 0) return st;
    size_t twice = 2 * m->pool_bytes / (set_bytes(s) * (size_t)n) + 1;
    int n_run = twice < RUNS_MIN ? RUNS_MIN : twice > RUNS_MAX ? RUNS_MAX : (int)twice;
    if (s->n == 0) n_run = 1;
    for (int i = 0; i < n && st == ST_OK; i++)
        st = record_runs(m, p, each[i], s, i * n_run, n_run, &runs[i], e);
    if (st == ST_OK) st = fastest(m, runs, n, &best, e);
    for (int i = 0; i < n; i++)
        if (runs[i]) m->g->ops->graph_free(m->g, runs[i]);
    if (st != ST_OK) return st;
    p->own = !each[best];
    if (!p->own) p->algo = *each[best];
    p->timed = true;
    return ST_OK;
}

int backend_cuda_mm_plan(struct backend_cuda_mm *m, const struct gpu_mm *a, struct err *e)
{
    cublasLtMatmulAlgo_t algo[N_TRY];
    struct plan *p;
    int n;
    if (a->m == 0) return ST_OK;
    int st = find(m, a, &p, algo, &n, e);
    if (st != ST_OK || p->planned) return st;
    st = set_scales(m, p, a, e);
    if (st == ST_OK && n == 0) st = propose(m, p, algo, &n, e); /* issued before, or borrowed */
    struct sets s = sets_of(m, a);
    bool own = s.n == 0; /* the operands are the caller's, where he has any */
    if (st == ST_OK && n + has_own(p) > 1 && !(own && (!a->x || !a->w || !a->y))) {
        if (!own) st = fill_pool(m, a->type, e);
        if (st == ST_OK) st = choose(m, p, algo, n, &s, e);
    }
    if (st == ST_OK) {
        p->borrowed = false;
        p->planned = true;
        m->n_guess--;
    }
    return st;
}

/* ---- life */

static int open_parts(struct backend_cuda_mm *m, struct err *e)
{
    const uint64_t most = WORK_BYTES;
    struct gpu *g = m->g;
    void *pool;
    size_t twice = g->info.l2_bytes > 0 ? 2 * (size_t)g->info.l2_bytes : 0;
    LT_TRY(m, Create, &m->handle);
    LT_TRY(m, MatmulPreferenceCreate, &m->pref);
    LT_TRY(m, MatmulPreferenceSetAttribute, m->pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
           &most, sizeof most);
    m->pool_bytes = twice < POOL_MIN_BYTES   ? POOL_MIN_BYTES
                    : twice > POOL_MAX_BYTES ? POOL_MAX_BYTES
                                             : twice;
    int st = g->ops->alloc(g, WORK_BYTES, &m->work, e);
    if (st == ST_OK) st = g->ops->alloc(g, m->pool_bytes, &pool, e);
    if (st == ST_OK) m->pool = pool;
    for (int i = 0; i < 2 && st == ST_OK; i++) st = g->ops->event_new(g, &m->ev[i], e);
    return st;
}

struct backend_cuda_mm *backend_cuda_mm_open(struct gpu *g, const struct backend_cuda_lt *lt,
                                             struct err *e)
{
    struct backend_cuda_mm *m = mem_zalloc(1, sizeof *m);
    m->g = g;
    m->lt = *lt;
    m->cap = 64;
    m->slot = mem_zalloc((size_t)m->cap, sizeof *m->slot);
    if (open_parts(m, e) == ST_OK) return m;
    backend_cuda_mm_close(m, false);
    return NULL;
}

void backend_cuda_mm_close(struct backend_cuda_mm *m, bool hung)
{
    if (!m) return;
    for (int i = 0; i < m->cap; i++) plan_free(m, m->slot[i]);
    if (m->pref) m->lt.MatmulPreferenceDestroy(m->pref);
    if (m->handle && !hung) m->lt.Destroy(m->handle);
    free(m->slot);
    free(m);
}
