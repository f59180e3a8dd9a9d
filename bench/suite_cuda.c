/* bench/suite_cuda.c - the device of the GPU's points: memory, timing, what NVML sees meanwhile.
 * SPDX-License-Identifier: Apache-2.0 */
#include "bench/suite_cuda.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/progress.h"
#include "base/rng.h"

enum { ALIGN_BYTES = 256, MAX_REPS = 512, DEFAULT_L2_BYTES = 32 << 20 };
/* Below a job's least memory the device is of no use for this. */
enum { LEAST_ROOM_BYTES = 32 << 20 };
#define RECORDING_S    1e-3  /* a recording is to last so long: beside it, its launch is nothing */
#define ENGINE_BYTES   1.5e9 /* of an engine, beside weights and KV: rows, the library's memory */
#define GUESS_BYTES_S  5e11  /* of guesses of time only */
#define GUESS_FLOP_S   5e13
#define GUESS_SET_UP_S 0.02

/* ---- types */

enum points_dtype suite_cuda_dtype(enum gpu_elt t)
{
    static const enum points_dtype of[] = { [GPU_F32] = POINTS_F32,
                                            [GPU_BF16] = POINTS_BF16,
                                            [GPU_F16] = POINTS_F16,
                                            [GPU_E4M3] = POINTS_FP8 };
    return of[t];
}

enum gpu_elt suite_cuda_weight(const struct suite *s)
{
    switch (s->o.weight) {
    case MODEL_BF16: return GPU_BF16;
    case MODEL_F16: return GPU_F16;
    case MODEL_FP8:
    case MODEL_FP8_TENSOR: return GPU_E4M3;
    default: return GPU_F32;
    }
}

enum gpu_elt suite_cuda_kv(const struct suite *s)
{
    return s->o.kv == BACKEND_F32 ? GPU_F32 : s->o.kv == BACKEND_F16 ? GPU_F16 : GPU_BF16;
}

bool suite_cuda_can(const struct suite *s, enum gpu_elt t)
{
    int least = t == GPU_E4M3 ? 89 : t == GPU_BF16 ? 80 : 0;
    return s->cuda->g->info.sm >= least;
}

/* ---- opening */

/* The engine has its weights and KV cache on the same device, beside the pool. */
static double engine_bytes(const struct suite *s)
{
    double weights = (double)arch_params(&s->spec.a) *
                     suite_weight_bytes(suite_cuda_dtype(suite_cuda_weight(s)));
    int ranks = s->o.device.share ? 1 : s->o.tp * s->o.pp;
    return (weights + s->o.kv_bytes) / ranks + ENGINE_BYTES;
}

static int check(const struct suite *s, struct err *e)
{
    const struct gpu_info *h = &s->cuda->g->info;
    if (s->o.weight == MODEL_INT8)
        return err_set(e, ST_USAGE, "--strategy.weights: there are no int8 products on a GPU");
    if (!suite_cuda_can(s, suite_cuda_weight(s)))
        return err_set(e, ST_USAGE,
                       "--strategy.weights: %s has compute capability %d.%d, which "
                       "has none of that type; f16 and f32 are everywhere",
                       h->name, h->sm / 10, h->sm % 10);
    if (suite_cuda_kv(s) == GPU_BF16 && !suite_cuda_can(s, GPU_BF16))
        return err_set(e, ST_USAGE,
                       "--strategy.kv: bf16 needs compute capability 8.0, %s has "
                       "%d.%d; f16 and f32 are everywhere",
                       h->name, h->sm / 10, h->sm % 10);
    return ST_OK;
}

static void find_room(struct suite *s)
{
    struct suite_cuda *c = s->cuda;
    double there = 0.9 * (double)c->g->info.free_bytes, engine = engine_bytes(s);
    c->room_bytes = (size_t)there;
    if (engine + LEAST_ROOM_BYTES <= there)
        c->room_bytes = (size_t)(there - engine);
    else
        s->no_engine = "the model's weights and KV cache do not fit on the GPU: no steps of it";
}

int suite_cuda_open(struct suite *s, struct err *e)
{
    struct suite_cuda *c = s->cuda = arena_alloc(&s->arena, sizeof *c);
    int st = device_check(&s->o.device, s->o.tp * s->o.pp, e);
    if (st != ST_OK) return st;
    c->g = device_open(&s->o.device, 0, e);
    if (!c->g) return ST_DEVICE;
    st = check(s, e);
    for (int i = 0; i < 2 && st == ST_OK; i++) st = c->g->ops->event_new(c->g, &c->event[i], e);
    if (st != ST_OK) return st;
    s->read_bytes_per_s = GUESS_BYTES_S;
    s->flop_per_s = GUESS_FLOP_S;
    find_room(s);
    return ST_OK;
}

int suite_cuda_add(struct suite *s, struct err *e)
{
    struct err why = { 0 };
    struct suite_cuda *c = s->cuda;
    c->nvml = nvml_open(c->g->info.bus_id, NULL, &why);
    if (!c->nvml) suite_skip(s, arena_printf(&s->arena, "power and clocks: %s", why.text));
    int st = suite_cuda_mem_add(s, e);
    if (st == ST_OK) st = suite_cuda_mm_add(s, e);
    if (s->o.kind == SUITE_MODEL || st != ST_OK) return st;
    st = suite_cuda_attn_add(s, e);
    if (st == ST_OK) st = suite_cuda_elt_add(s, e);
    if (st == ST_OK) st = suite_cuda_comm_add(s, e);
    return st;
}

void suite_cuda_release(struct suite *s)
{
    struct suite_cuda *c = s->cuda;
    if (!c) return;
    nvml_close(c->nvml);
    if (c->g) c->g->ops->close(c->g);
    s->cuda = NULL;
}

int suite_cuda_count(const struct suite *s)
{
    return s->o.device.count ? s->o.device.count(NULL) : gpu_cuda_count(NULL);
}

void suite_cuda_watch(struct suite *s)
{
    if (s->cuda && s->cuda->nvml) nvml_begin(s->cuda->nvml);
}

bool suite_cuda_seen(struct suite *s, struct points_gpu *out)
{
    if (!s->cuda || !s->cuda->nvml) return false;
    nvml_end(s->cuda->nvml, out);
    return true;
}

/* ---- listing */

size_t suite_cuda_l2(const struct suite *s)
{
    if (s->o.cache_bytes) return s->o.cache_bytes;
    int64_t told = s->cuda->g->info.l2_bytes;
    return told > 0 ? (size_t)told : DEFAULT_L2_BYTES;
}

int suite_cuda_copies(const struct suite *s, double bytes)
{
    double n = ceil(2 * (double)suite_cuda_l2(s) / (bytes + 1)) + 1;
    return n > SUITE_CUDA_MAX_VAR ? SUITE_CUDA_MAX_VAR : (int)n;
}

bool suite_cuda_fits(struct suite *s, double bytes)
{
    struct suite_cuda *c = s->cuda;
    bytes += 64 * ALIGN_BYTES; /* what lies between the pieces */
    if (bytes > (double)c->room_bytes) {
        suite_skip(s, "points that need more memory than the GPU has beside the model");
        return false;
    }
    if ((size_t)bytes > c->need_bytes) c->need_bytes = (size_t)bytes;
    return true;
}

int suite_cuda_row(struct suite *s, struct points_row r)
{
    r.threads = s->o.threads;
    r.ranks = s->o.tp * s->o.pp;
    return suite_add_row(s, &r);
}

void suite_cuda_guess(struct suite *s, double bytes, double flop)
{
    double once = bytes / GUESS_BYTES_S + flop / GUESS_FLOP_S;
    s->job[s->n_job - 1].run_s += GUESS_SET_UP_S + 3 * once + s->o.run_s;
}

/* ---- memory */

int suite_cuda_start(struct suite *s, struct err *e)
{
    struct suite_cuda *c = s->cuda;
    c->used = 0;
    if (c->pool) return ST_OK;
    void *p = NULL;
    int st = c->g->ops->alloc(c->g, c->need_bytes, &p, e);
    c->pool = p;
    c->pool_bytes = c->need_bytes;
    return st;
}

void *suite_cuda_take(struct suite *s, size_t bytes)
{
    struct suite_cuda *c = s->cuda;
    char *p = c->pool + c->used;
    c->used += (bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
    assert(c->used <= c->pool_bytes);
    return p;
}

int suite_cuda_launch(struct suite *s, enum gpu_kern k, const void *args, struct err *e)
{
    struct gpu *g = s->cuda->g;
    struct gpu_dim d;
    gpu_kern_dim(k, args, &g->info, &d);
    return g->ops->launch(g, k, &d, args, e);
}

void *suite_cuda_drawn(struct suite *s, enum gpu_elt type, int64_t n, uint64_t seed, struct err *e)
{
    struct gpu_fill a = { .seed = seed, .n = n, .type = (int32_t)type };
    a.x = suite_cuda_take(s, (size_t)n * gpu_elt_bytes(type));
    return suite_cuda_launch(s, GPU_K_fill, &a, e) == ST_OK ? a.x : NULL;
}

/* Written after gpu_kern.h's words: a hash of (seed, i), as many bits as the type's significand. */
double suite_cuda_value(enum gpu_elt type, uint64_t seed, int64_t i)
{
    static const int bits[] = { [GPU_F32] = 24, [GPU_BF16] = 8, [GPU_F16] = 11, [GPU_E4M3] = 4 };
    uint64_t h = mix64(mix64(seed) + (uint64_t)i * UINT64_C(0x9e3779b97f4a7c15));
    return ldexp((double)(h >> (64 - bits[type])), 1 - bits[type]) - 1;
}

void *suite_cuda_given(struct suite *s, const void *from, size_t bytes, struct err *e)
{
    struct gpu *g = s->cuda->g;
    void *p = suite_cuda_take(s, bytes);
    return g->ops->put(g, p, from, bytes, e) == ST_OK ? p : NULL;
}

int suite_cuda_get(struct suite *s, void *to, const void *from, size_t bytes, struct err *e)
{
    struct gpu *g = s->cuda->g;
    int st = g->ops->get(g, to, from, bytes, e);
    return st == ST_OK ? g->ops->wait(g, e) : st;
}

/* ---- timing */

static double since_s(int64_t t0)
{
    return 1e-9 * (double)(clock_mono_ns() - t0);
}

/* One call: of its time by events and, where those are no clock, by the host's. */
static int look_once(struct suite *s, const struct suite_cuda_work *w, double *once_s,
                     struct err *e)
{
    struct suite_cuda *c = s->cuda;
    struct gpu *g = c->g;
    double ns = 0;
    int st = w->issue(w->arg, 0, e); /* the first call may load code */
    if (st == ST_OK) st = g->ops->wait(g, e);
    int64_t t0 = clock_mono_ns();
    if (st == ST_OK) st = g->ops->event_set(g, c->event[0], e);
    if (st == ST_OK) st = w->issue(w->arg, 0, e);
    if (st == ST_OK) st = g->ops->event_set(g, c->event[1], e);
    if (st == ST_OK) st = g->ops->wait(g, e);
    if (st == ST_OK) st = g->ops->event_ns(g, c->event[0], c->event[1], &ns, e);
    *once_s = fmax(1e-9 * ns, 0.1 * since_s(t0));
    return st;
}

static int record(struct suite *s, const struct suite_cuda_work *w, int reps,
                  struct gpu_graph **out, struct err *e)
{
    struct gpu *g = s->cuda->g;
    int st = g->ops->record(g, e);
    for (int i = 0; i < reps && st == ST_OK; i++) st = w->issue(w->arg, i % w->n_var, e);
    return st == ST_OK ? g->ops->recorded(g, out, e) : st;
}

static int replay(struct suite *s, struct gpu_graph *graph, int times, double *ns, struct err *e)
{
    struct suite_cuda *c = s->cuda;
    struct gpu *g = c->g;
    int st = g->ops->event_set(g, c->event[0], e);
    for (int i = 0; i < times && st == ST_OK; i++) st = g->ops->graph_launch(g, graph, e);
    if (st == ST_OK) st = g->ops->event_set(g, c->event[1], e);
    if (st == ST_OK) st = g->ops->wait(g, e);
    return st == ST_OK ? g->ops->event_ns(g, c->event[0], c->event[1], ns, e) : st;
}

int suite_cuda_time(struct suite *s, const struct suite_cuda_work *w, struct suite_value *v,
                    struct err *e)
{
    struct gpu *g = s->cuda->g;
    struct gpu_graph *graph = NULL;
    double once_s, ns = 0;
    int st = look_once(s, w, &once_s, e);
    if (st != ST_OK) return st;
    double want = ceil(RECORDING_S / (once_s + 1e-12));
    int reps = want < 1 ? 1 : want > MAX_REPS ? MAX_REPS : (int)want;
    reps = (reps + w->n_var - 1) / w->n_var * w->n_var;
    st = record(s, w, reps, &graph, e);
    int64_t t0 = clock_mono_ns();
    if (st == ST_OK) st = replay(s, graph, 1, &ns, e);
    double times = ceil(s->o.run_s / fmax(since_s(t0), 1e-6));
    int n = times > 10000 ? 10000 : times < 1 ? 1 : (int)times;
    if (st == ST_OK) st = replay(s, graph, n, &ns, e);
    if (graph) g->ops->graph_free(g, graph);
    if (st == ST_OK) *v = (struct suite_value){ (int64_t)n * reps, 1e-9 * ns / n / reps };
    return st;
}

/* ---- errors */

void suite_cuda_compare(struct suite_cuda_worst *w, double got, double want)
{
    double off = fabs(got - want);
    if (!(off <= w->off)) w->off = off; /* a NaN stays */
    w->largest = fmax(w->largest, fabs(want));
}

double suite_cuda_error(const struct suite_cuda_worst *w)
{
    return w->largest > 0 ? w->off / w->largest : w->off;
}
