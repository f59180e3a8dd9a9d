/* bench/suite.c - the lists of points and jobs, and the formulas of their bytes and operations.
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* sched_setaffinity */
#include "bench/suite_cuda.h"
#include "bench/suite_team.h"

#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/pool.h"
#include "base/progress.h"
#include "base/rng.h"
#include "engine/kern.h"

/* ---- formulas */

enum points_dtype suite_dtype(enum model_weight w)
{
    switch (w) {
    case MODEL_INT8: return POINTS_INT8;
    case MODEL_BF16: return POINTS_BF16;
    case MODEL_F16: return POINTS_F16;
    case MODEL_FP8:
    case MODEL_FP8_TENSOR: return POINTS_FP8;
    default: return POINTS_F32;
    }
}

double suite_weight_bytes(enum points_dtype t)
{
    if (t == POINTS_FP8) return 1;
    return t == POINTS_INT8 ? 1 + 2.0 / 64 : t == POINTS_BF16 || t == POINTS_F16 ? 2 : 4;
}

struct points_row suite_gemm(enum points_dtype t, int64_t m, int64_t n, int64_t k)
{
    double dm = (double)m, dn = (double)n, dk = (double)k;
    return (struct points_row){ .op = POINTS_GEMM,
                                .dtype = (uint8_t)t,
                                .m = m,
                                .n = n,
                                .k = k,
                                .bytes = dn * dk * suite_weight_bytes(t) + 4 * dm * (dk + dn),
                                .flop = 2 * dm * dn * dk,
                                .error = -1 };
}

struct points_row suite_attn(const struct suite_heads *h, int n_seq, const int32_t *q,
                             const int32_t *p)
{
    struct points_row r = { .op = POINTS_ATTN,
                            .dtype = h->elt_bytes == 4 ? POINTS_F32 : POINTS_BF16,
                            .n = h->n_head,
                            .k = h->n_kv_head,
                            .head_dim = h->head_dim,
                            .seqs = n_seq,
                            .error = -1 };
    double pairs = 0, read = 0, past = 0, d = (double)h->head_dim;
    for (int i = 0; i < n_seq; i++) {
        r.m += q[i];
        past += p[i];
        if (p[i] > r.ctx_max) r.ctx_max = p[i];
        pairs += (double)q[i] * p[i] + 0.5 * q[i] * (q[i] + 1.0);
        read += (double)p[i] + q[i];
    }
    r.ctx = n_seq ? llround(past / n_seq) : 0;
    r.flop = 4 * pairs * (double)h->n_head * d;
    r.bytes = 2 * read * (double)(h->n_kv_head * h->elt_bytes) * d +
              8 * (double)r.m * (double)h->n_head * d;
    return r;
}

struct points_row suite_elt(enum points_part part, int64_t m, int64_t n, double weight_bytes)
{
    static const double per_value[] = {
        [POINTS_NORM] = 8,  [POINTS_ROPE] = 8,   [POINTS_ACT] = 12,    [POINTS_ADD] = 12,
        [POINTS_EMBED] = 4, [POINTS_KV_PUT] = 4, [POINTS_NO_PART] = 8,
    };
    bool weights = part == POINTS_EMBED || part == POINTS_KV_PUT;
    double size = (double)m * (double)n;
    return (struct points_row){ .op = POINTS_ELT,
                                .dtype = POINTS_F32,
                                .part = (uint8_t)part,
                                .m = m,
                                .n = n,
                                .bytes = size * (per_value[part] + (weights ? weight_bytes : 0)),
                                .error = -1 };
}

double suite_tolerance(const struct points_row *r)
{
    if (r->op == POINTS_GEMM && r->dtype == POINTS_INT8) return 0.03; /* 1/127 of the largest */
    if (r->op == POINTS_GEMM && r->dtype == POINTS_BF16) return 0.01; /* x may be rounded: 2^-8 */
    if (r->op == POINTS_GEMM && r->dtype == POINTS_FP8) return 0.01;  /* sums of 14 bits on sm_90 */
    if (r->op == POINTS_GEMM && r->dtype == POINTS_F16) return 0.002;
    if (r->op == POINTS_ATTN && r->dtype != POINTS_F32) return 0.01;
    if (r->op == POINTS_ELT && r->dtype != POINTS_F32) return 0.01; /* written as 16 or 8 bits */
    return 1e-4;
}

/* ---- the lists */

static void *grown(struct suite *s, void *old, int n, int *cap, size_t size)
{
    if (n < *cap) return old;
    int more = *cap ? 2 * *cap : 64;
    void *p = arena_array(&s->arena, (size_t)more, size);
    if (n) memcpy(p, old, (size_t)n * size);
    *cap = more;
    return p;
}

struct points_row suite_load_row(const struct suite *s, int64_t k)
{
    enum points_dtype t = suite_dtype(s->o.weight);
    return (struct points_row){ .op = POINTS_LOAD,
                                .dtype = (uint8_t)t,
                                .part = POINTS_IN_PLACE,
                                .threads = s->o.threads,
                                .ranks = s->o.tp * s->o.pp,
                                .m = s->o.random ? 0 : 1,
                                .k = k,
                                .bytes = (double)arch_params(&s->spec.a) * suite_weight_bytes(t),
                                .error = -1 };
}

int suite_add_row(struct suite *s, const struct points_row *r)
{
    s->row = grown(s, s->row, s->n_row, &s->cap_row, sizeof *s->row);
    s->row[s->n_row] = *r;
    if (s->n_job) s->job[s->n_job - 1].n++;
    return s->n_row++;
}

struct suite_job *suite_add_job(struct suite *s, const char *what, double run_s)
{
    s->job = grown(s, s->job, s->n_job, &s->cap_job, sizeof *s->job);
    struct suite_job *j = &s->job[s->n_job++];
    *j = (struct suite_job){ .what = arena_copy_text(&s->arena, what, strlen(what)),
                             .first = s->n_row,
                             .run_s = run_s };
    return j;
}

void suite_skip(struct suite *s, const char *why)
{
    for (int i = 0; i < s->n_skipped; i++)
        if (strcmp(s->skipped[i], why) == 0) return;
    if (s->n_skipped < (int)(sizeof s->skipped / sizeof *s->skipped))
        s->skipped[s->n_skipped++] = why;
}

void suite_error(struct suite *s, int row, double error)
{
    if (isnan(error) || error > 1e9) error = 1e9;
    if (error > s->row[row].error) s->row[row].error = error;
}

double suite_guess_s(const struct suite *s, double bytes, double flop)
{
    return bytes / s->read_bytes_per_s + flop / (0.5 * s->flop_per_s);
}

double suite_round_s(const struct suite *s)
{
    double sum = 0;
    for (int i = 0; i < s->n_job; i++) sum += s->job[i].run_s;
    return sum;
}

uint64_t suite_identity(const struct suite *s)
{
    uint64_t h = mix64((uint64_t)s->n_row);
    for (int i = 0; i < s->n_row; i++) {
        const struct points_row *r = &s->row[i];
        const int64_t v[] = { r->op, r->dtype, r->comm, r->part, r->threads, r->ranks,   r->m,
                              r->n,  r->k,     r->seqs, r->ctx,  r->ctx_max, r->head_dim };
        for (size_t k = 0; k < sizeof v / sizeof *v; k++) h = mix_pair(h, (uint64_t)v[k]);
        h = mix_pair(h, (uint64_t)llround(r->bytes));
        h = mix_pair(h, (uint64_t)llround(r->flop));
    }
    return h;
}

/* ---- running */

void suite_unpin(struct suite *s)
{
    sched_setaffinity(0, sizeof(cpu_set_t), s->may);
}

int suite_repeat(const struct suite *s, int (*call)(void *arg, struct err *e), void *arg,
                 struct suite_value *v, struct err *e)
{
    int64_t t0 = clock_mono_ns(), t1, n = 0, most = 1;
    int st = call(arg, e);
    if (st != ST_OK) return st;
    t1 = clock_mono_ns();
    double once_s = 1e-9 * (double)(t1 - t0) + 1e-9;
    if (once_s < s->o.run_s) most = (int64_t)ceil(s->o.run_s / once_s);
    if (most > 1000000) most = 1000000;
    t0 = clock_mono_ns();
    do { /* the first call may have been a slow one: in tenths, until the time is over */
        int64_t part = most / 10 > 0 ? most / 10 : 1;
        for (int64_t i = 0; i < part && st == ST_OK; i++) st = call(arg, e);
        n += part;
        t1 = clock_mono_ns();
    } while (st == ST_OK && 1e-9 * (double)(t1 - t0) < s->o.run_s);
    v->calls = n;
    v->s_per_call = 1e-9 * (double)(t1 - t0) / (double)n;
    return st;
}

int suite_run_job(struct suite *s, int j, struct suite_value *v, struct err *e)
{
    const struct suite_job *job = &s->job[j];
    suite_unpin(s);
    for (int i = 0; i < job->n; i++) v[i] = (struct suite_value){ 0 };
    suite_cuda_watch(s);
    int st = job->run(s, job, v, e);
    if (st != ST_OK) err_prefix(e, "%s", job->what);
    return st;
}

/* ---- the whole */

/* A few milliseconds of reading and of arithmetic on this thread, times the processors: only guesses
 * of how long the benchmark will take are made of it. */
static void rough_look(struct suite *s)
{
    enum { BYTES = 32 << 20, CLOCK_READS = 20000 };
    const struct kern *k = s->o.kernels ? kern_named(s->o.kernels) : kern_best();
    unsigned char *p = mem_alloc(BYTES);
    static volatile uint64_t seen;
    if (!k) k = kern_best();
    memset(p, 1, BYTES);
    int64_t t0 = clock_mono_ns();
    seen = k->read(p, BYTES);
    int64_t t1 = clock_mono_ns();
    double done = k->peak(KERN_PEAK_FMA, 500000);
    int64_t t2 = clock_mono_ns();
    for (int i = 0; i < CLOCK_READS; i++) seen = seen + (uint64_t)(clock_mono_ns() & 1);
    int64_t t3 = clock_mono_ns();
    s->read_bytes_per_s = 1e9 * BYTES / (double)(t1 - t0 + 1);
    s->flop_per_s = 1e9 * done / (double)(t2 - t1 + 1) * s->cpus;
    s->clock_s = 1e-9 * (double)(t3 - t2) / CLOCK_READS;
    free(p);
}

static int check(struct suite *s, struct err *e)
{
    const struct suite_opts *o = &s->o;
    int st = spec_read(o->model, &s->spec, e);
    if (st == ST_OK) st = shard_check(&s->spec.a, o->tp, o->pp, NULL, e);
    if (st != ST_OK) return st;
    shard_of(&s->spec.a, o->tp, o->pp, NULL, 0, &s->shard);
    if (s->o.max_ctx == 0 || s->o.max_ctx > s->spec.a.max_ctx) s->o.max_ctx = s->spec.a.max_ctx;
    if (o->kernels && !kern_named(o->kernels))
        return err_set(e, ST_USAGE, "no kernels '%.40s' on this processor", o->kernels);
    if (s->o.max_tok > s->o.max_ctx) s->o.max_tok = s->o.max_ctx;
    return ST_OK;
}

static int list_cpu(struct suite *s, struct err *e)
{
    int st = suite_machine_add(s, e);
    if (st == ST_OK && s->o.kind != SUITE_MODEL && !s->o.mpi) {
        st = suite_micro_add(s, e);
        if (st == ST_OK) st = suite_comm_add(s, e);
        if (st == ST_OK) st = suite_system_add(s, e);
    }
    return st == ST_OK ? suite_model_add(s, e) : st;
}

static int list_gpu(struct suite *s, struct err *e)
{
    int st = suite_cuda_open(s, e);
    if (st == ST_OK && s->no_engine && s->o.kind == SUITE_MODEL)
        return err_set(e, ST_USAGE, "%s", s->no_engine);
    if (st == ST_OK) st = suite_cuda_add(s, e);
    if (st != ST_OK) return st;
    if (!s->no_engine) return suite_model_add(s, e);
    suite_skip(s, s->no_engine);
    return ST_OK;
}

int suite_init(struct suite *s, const struct suite_opts *o, struct err *e)
{
    *s = (struct suite){ .o = *o };
    arena_init(&s->arena);
    s->may = arena_alloc(&s->arena, sizeof(cpu_set_t));
    s->cpus = pool_cpus();
    s->cache_bytes = o->cache_bytes ? o->cache_bytes : suite_cache_look();
    sched_getaffinity(0, sizeof(cpu_set_t), s->may);
    int st = check(s, e);
    if (st == ST_OK) rough_look(s);
    if (st == ST_OK) st = o->device.kind == DEVICE_CPU ? list_cpu(s, e) : list_gpu(s, e);
    if (st != ST_OK) suite_release(s);
    return st;
}

void suite_release(struct suite *s)
{
    suite_unpin(s);
    suite_model_release(s);
    suite_micro_release(s);
    suite_cuda_release(s);
    arena_release(&s->arena);
}
