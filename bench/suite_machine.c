/* bench/suite_machine.c - limits of the machine: memory, arithmetic in registers, the clock.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/progress.h"
#include "base/units.h"
#include "bench/suite_team.h"
#include "engine/kern.h"

enum { PEAK_TIMES = 200000, CLOCK_READS = 4096, CHUNK = 512 };

struct work {
    struct suite *s;
    const struct suite_job *j;
    const struct kern *k;
    struct team *t;
    unsigned char *mem;
    size_t bytes;
    uint64_t seen[ENGINE_MAX_THREADS];
    double done[ENGINE_MAX_THREADS];
};

static const struct kern *kernels(const struct suite *s)
{
    return s->o.kernels ? kern_named(s->o.kernels) : kern_best();
}

/* ---- memory: each thread its part */

static size_t share(size_t n, int part, int n_part, size_t unit)
{
    return n / unit * (size_t)part / (size_t)n_part * unit;
}

static void read_part(void *arg, int part, int n_part)
{
    struct work *w = arg;
    size_t at = share(w->bytes, part, n_part, 4096), end = share(w->bytes, part + 1, n_part, 4096);
    w->seen[part] += w->k->read(w->mem + at, end - at);
}

/* a = b + 3 c over thirds of the memory; chunks of fixed length become vector code. */
static void triad_part(void *arg, int part, int n_part)
{
    struct work *w = arg;
    size_t third = w->bytes / 3 / sizeof(double);
    size_t at = share(third, part, n_part, CHUNK), end = share(third, part + 1, n_part, CHUNK);
    double *restrict a = (void *)w->mem;
    const double *restrict b = a + third, *restrict c = b + third;
    for (; at < end; at += CHUNK)
        for (size_t i = at; i < at + CHUNK; i++) a[i] = b[i] + 3 * c[i];
}

static void copy_part(void *arg, int part, int n_part)
{
    struct work *w = arg;
    size_t half = w->bytes / 2;
    size_t at = share(half, part, n_part, 4096), end = share(half, part + 1, n_part, 4096);
    memcpy(w->mem + at, w->mem + half + at, end - at);
}

static int sweep(void *arg, struct err *e)
{
    static const team_fn fn[] = { read_part, triad_part, copy_part };
    struct work *w = arg;
    (void)e;
    team_run(w->t, fn[w->j->arg[0]], w);
    return ST_OK;
}

static int run_memory(struct suite *s, const struct suite_job *j, struct suite_value *v,
                      struct err *e)
{
    struct work w = { .s = s, .j = j, .k = kernels(s), .bytes = suite_memory_bytes(s) };
    w.mem = suite_memory(s, SUITE_STREAM, e);
    if (!w.mem) return ST_DEVICE;
    w.t = suite_team(s, (int)j->arg[1], e);
    return w.t ? suite_repeat(s, sweep, &w, v, e) : ST_DEVICE;
}

static void add_memory(struct suite *s, int threads)
{
    static const char *const name[] = { "read", "triad", "copy" };
    int n = s->o.kind == SUITE_FULL ? 3 : s->o.kind == SUITE_QUICK ? 2 : 1;
    size_t bytes = suite_memory_bytes(s);
    for (int i = 0; i < n; i++) {
        char what[64];
        struct points_row r = { .op = (uint8_t)(POINTS_READ + i),
                                .threads = threads,
                                .bytes = (double)bytes,
                                .error = -1 };
        snprintf(what, sizeof what, "%s by %d thread%s", name[i], threads, units_s(threads));
        double once = 2 * (double)bytes / s->read_bytes_per_s;
        struct suite_job *j = suite_add_job(s, what, once + fmax(once, s->o.run_s));
        j->run = run_memory;
        j->arg[0] = i;
        j->arg[1] = threads;
        suite_add_row(s, &r);
    }
}

/* ---- arithmetic */

static void peak_part(void *arg, int part, int n_part)
{
    struct work *w = arg;
    (void)n_part;
    w->done[part] = w->k->peak((enum kern_peak)w->j->arg[0], PEAK_TIMES);
}

static int peak_once(void *arg, struct err *e)
{
    struct work *w = arg;
    (void)e;
    team_run(w->t, peak_part, w);
    return ST_OK;
}

static int run_peak(struct suite *s, const struct suite_job *j, struct suite_value *v,
                    struct err *e)
{
    struct work w = { .s = s, .j = j, .k = kernels(s) };
    w.t = suite_team(s, (int)j->arg[1], e);
    return w.t ? suite_repeat(s, peak_once, &w, v, e) : ST_DEVICE;
}

static void add_peaks(struct suite *s, int threads)
{
    static const struct {
        enum kern_peak what;
        enum points_dtype t;
        const char *name;
    } peak[] = { { KERN_PEAK_FMA, POINTS_F32, "f32 arithmetic" },
                 { KERN_PEAK_I8, POINTS_INT8, "int8 arithmetic" },
                 { KERN_PEAK_BF16, POINTS_BF16, "bf16 arithmetic" } };
    for (size_t i = 0; i < sizeof peak / sizeof *peak; i++) {
        char what[64];
        double done = kernels(s)->peak(peak[i].what, 1000) / 1000 * PEAK_TIMES * threads;
        struct points_row r = { .op = POINTS_FMA,
                                .dtype = (uint8_t)peak[i].t,
                                .threads = threads,
                                .flop = done,
                                .error = -1 };
        if (done <= 0) continue;
        snprintf(what, sizeof what, "%s by %d thread%s", peak[i].name, threads, units_s(threads));
        double once = done / s->flop_per_s * s->cpus / threads;
        struct suite_job *j = suite_add_job(s, what, once + fmax(once, s->o.run_s));
        j->run = run_peak;
        j->arg[0] = peak[i].what;
        j->arg[1] = threads;
        suite_add_row(s, &r);
    }
}

/* ---- the clock */

static int clock_once(void *arg, struct err *e)
{
    struct work *w = arg;
    (void)e;
    for (int i = 0; i < CLOCK_READS; i++) w->seen[0] += (uint64_t)(clock_mono_ns() & 1);
    return ST_OK;
}

/* The second point: the least step of the clock that is seen. */
static int run_clock(struct suite *s, const struct suite_job *j, struct suite_value *v,
                     struct err *e)
{
    struct work w = { .s = s, .j = j };
    int64_t least = INT64_MAX;
    int st = suite_repeat(s, clock_once, &w, v, e);
    v[0].calls *= CLOCK_READS;
    v[0].s_per_call /= CLOCK_READS;
    if (v[0].s_per_call < s->clock_s) s->clock_s = v[0].s_per_call;
    for (int i = 0; i < CLOCK_READS; i++) {
        int64_t a = clock_mono_ns(), b = clock_mono_ns();
        if (b > a && b - a < least) least = b - a;
    }
    if (least < INT64_MAX) v[1] = (struct suite_value){ 1, 1e-9 * (double)least };
    return st;
}

static void add_clock(struct suite *s)
{
    struct points_row r = { .op = POINTS_TIMER, .threads = 1, .error = -1 };
    struct suite_job *j = suite_add_job(s, "clock", 2 * s->o.run_s);
    j->run = run_clock;
    r.m = 1; /* one reading */
    suite_add_row(s, &r);
    r.m = 2; /* two readings apart */
    suite_add_row(s, &r);
}

int suite_machine_add(struct suite *s, struct err *e)
{
    int threads[8], n = suite_threads(s, threads);
    (void)e;
    for (int i = 0; i < n; i++) {
        add_memory(s, threads[i]);
        add_peaks(s, threads[i]);
    }
    add_clock(s);
    return ST_OK;
}
