/* bench/suite_run.c - see suite_run.h. SPDX-License-Identifier: Apache-2.0 */
#include "bench/suite_run.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/rng.h"
#include "base/stat.h"
#include "base/stop.h"
#include "base/units.h"
#include "bench/suite_cuda.h"

#define LOOK_S 0.5

void suite_order(uint64_t seed, int run, int n, int *order)
{
    struct rng r = rng_child(rng_stream(seed, "bench.order"), (uint64_t)run);
    for (int i = 0; i < n; i++) order[i] = i;
    for (int i = n - 1; i > 0; i--) {
        int k = (int)rng_below(r, (uint64_t)i, (uint64_t)i + 1), was = order[i];
        order[i] = order[k];
        order[k] = was;
    }
}

/* ---- the log */

static double now_s(const struct suite_log *log)
{
    return log->t0_s + 1e-9 * (double)(clock_mono_ns() - log->epoch_ns);
}

void suite_log_sample(struct suite_log *log, const struct points_sample *x)
{
    if (log->n_sample == log->cap_sample) {
        log->cap_sample = log->cap_sample ? 2 * log->cap_sample : 4096;
        log->sample = mem_resize(log->sample, (size_t)log->cap_sample, sizeof *log->sample);
    }
    log->sample[log->n_sample++] = *x;
    log->n_noisy += x->noisy;
}

void suite_log_look(struct suite_log *log, const struct points_noise *x)
{
    if (log->n_look == log->cap_look) {
        log->cap_look = log->cap_look ? 2 * log->cap_look : 256;
        log->look = mem_resize(log->look, (size_t)log->cap_look, sizeof *log->look);
    }
    log->look[log->n_look++] = *x;
}

void suite_log_gpu(struct suite_log *log, const struct points_gpu *x)
{
    if (log->n_gpu == log->cap_gpu) {
        log->cap_gpu = log->cap_gpu ? 2 * log->cap_gpu : 256;
        log->gpu = mem_resize(log->gpu, (size_t)log->cap_gpu, sizeof *log->gpu);
    }
    log->gpu[log->n_gpu++] = *x;
}

void suite_log_judge(struct suite_log *log, int64_t from, bool noisy)
{
    for (int64_t i = from; i < log->n_sample; i++) {
        log->n_noisy += noisy && !log->sample[i].noisy;
        log->sample[i].noisy |= noisy; /* a GPU that was slowed down stays so */
    }
}

/* What was measured since the last look was measured on a machine like this. */
static void look(struct suite_log *log)
{
    struct points_noise x = { .t_s = now_s(log) };
    bool busy = noise_look(&log->noise, &x);
    suite_log_look(log, &x);
    suite_log_judge(log, log->n_sample - log->unjudged, busy);
    suite_journal_look(&log->journal, &x);
    suite_journal_verdict(&log->journal, busy);
    log->unjudged = 0;
}

void suite_log_release(struct suite_log *log)
{
    free(log->sample);
    free(log->look);
    free(log->gpu);
    log->gpu = NULL;
    log->sample = NULL;
    log->look = NULL;
}

int suite_runs(const struct suite_log *log)
{
    int n = 0;
    for (int64_t i = 0; i < log->n_sample; i++)
        if (log->sample[i].run >= n) n = log->sample[i].run + 1;
    return n;
}

static size_t values(const struct suite_log *log, int point, double **x)
{
    size_t n = 0;
    *x = mem_alloc(((size_t)log->n_sample + 1) * sizeof **x);
    for (int64_t i = 0; i < log->n_sample; i++)
        if (log->sample[i].point == point) (*x)[n++] = log->sample[i].s_per_call;
    stat_sort(*x, n);
    return n;
}

double suite_median(const struct suite_log *log, int point)
{
    double *x;
    size_t n = values(log, point, &x);
    double v = stat_quantile_sorted(x, n, 0.5);
    free(x);
    return v;
}

double suite_spread(const struct suite_log *log, int point)
{
    double *x;
    size_t n = values(log, point, &x);
    double v = n < 2 ? NAN
                     : 0.5 * (stat_quantile_sorted(x, n, 0.75) - stat_quantile_sorted(x, n, 0.25)) /
                           stat_quantile_sorted(x, n, 0.5);
    free(x);
    return v;
}

int suite_wrong(const struct suite *s)
{
    for (int i = 0; i < s->n_row; i++)
        if (s->row[i].error > suite_tolerance(&s->row[i])) return i;
    return -1;
}

/* ---- the file */

/* What kind of GPU it was: calibration makes a machine of it. */
static int put_gpu_notes(const struct suite *s, points *p, struct err *e)
{
    const struct gpu_info *h = &s->cuda->g->info;
    const struct {
        const char *name;
        int64_t v;
    } number[] = { { "gpu_sm", h->sm },
                   { "gpu_multiprocessors", h->n_sm },
                   { "gpu_memory_bytes", h->memory_bytes },
                   { "gpu_l2_bytes", h->l2_bytes },
                   { "gpu_driver", h->driver },
                   { "gpu_runtime", h->runtime },
                   { "gpu_count", suite_cuda_count(s) } };
    char text[32];
    int st = points_note(p, "gpu", h->name, e);
    for (size_t i = 0; i < sizeof number / sizeof *number && st == ST_OK; i++) {
        snprintf(text, sizeof text, "%" PRId64, number[i].v);
        st = points_note(p, number[i].name, text, e);
    }
    return st;
}

/* The size of the host, which a profile made elsewhere cannot look up. */
static int put_host_notes(points *p, struct err *e)
{
    char text[32];
    int64_t page = sysconf(_SC_PAGESIZE), pages = sysconf(_SC_PHYS_PAGES);
    snprintf(text, sizeof text, "%ld", sysconf(_SC_NPROCESSORS_ONLN));
    int st = points_note(p, "processors", text, e);
    snprintf(text, sizeof text, "%" PRId64, page * pages);
    return st == ST_OK ? points_note(p, "memory_bytes", text, e) : st;
}

/* Options that change what samples mean, and are not in the rows. */
static const char *settings(struct suite *s, const struct suite_run_opts *o)
{
    char word[16];
    return arena_printf(
        &s->arena, "weights %s of %s%s, run_time %g s, seed %" PRIu64 ", kernels %s",
        points_word(POINTS_DTYPE_WORDS, (int)suite_dtype(s->o.weight), word, sizeof word),
        s->o.random ? "random_weights " : "the checkpoint",
        s->o.random ? arena_printf(&s->arena, "%" PRIu64, s->o.seed) : "", s->o.run_s, o->seed,
        s->o.kernels ? s->o.kernels : "best");
}

static int put_notes(struct suite *s, const struct suite_run_opts *o, const struct suite_log *log,
                     points *p, struct err *e)
{
    char text[64], kind[16];
    const struct suite_opts *q = &s->o;
    int st = points_note(p, "suite", points_word(SUITE_WORDS, q->kind, kind, sizeof kind), e);
    snprintf(text, sizeof text, "%016" PRIx64, suite_identity(s));
    if (st == ST_OK) st = points_note(p, "suite_identity", text, e);
    if (st == ST_OK) st = points_note(p, "model", s->spec.a.name, e);
    snprintf(text, sizeof text, "tp%d pp%d threads%d", q->tp, q->pp, q->threads);
    if (st == ST_OK) st = points_note(p, "strategy", text, e);
    snprintf(text, sizeof text, "%d", o->runs);
    if (st == ST_OK) st = points_note(p, "runs", text, e);
    snprintf(text, sizeof text, "%" PRIu64, o->seed);
    if (st == ST_OK) st = points_note(p, "order_seed", text, e);
    if (st == ST_OK) st = points_note(p, "settings", settings(s, o), e);
    if (st == ST_OK) st = put_host_notes(p, e);
    for (int i = 0; i < s->n_skipped && st == ST_OK; i++) {
        snprintf(text, sizeof text, "skipped_%d", i);
        st = points_note(p, text, s->skipped[i], e);
    }
    if (st == ST_OK && s->cuda) st = put_gpu_notes(s, p, e);
    return st == ST_OK ? points_note(p, "complete", log->complete ? "yes" : "no", e) : st;
}

/* Which ceiling a point is one of; NULL: none. */
static const char *limit_of(const struct suite *s, const struct points_row *r)
{
    static const char *const way[] = { [POINTS_NO_PART] = "copy_bytes_per_s",
                                       [POINTS_TO_DEVICE] = "to_device_bytes_per_s",
                                       [POINTS_FROM_DEVICE] = "from_device_bytes_per_s",
                                       [POINTS_ON_DEVICE] = "on_device_bytes_per_s" };
    static const char *const square[] = { [POINTS_F32] = "gemm_f32_flop_per_s",
                                          [POINTS_F16] = "gemm_f16_flop_per_s",
                                          [POINTS_BF16] = "gemm_bf16_flop_per_s",
                                          [POINTS_FP8] = "gemm_fp8_flop_per_s" };
    bool equal = r->m == r->n && r->n == r->k && r->part == POINTS_NO_PART;
    switch (r->op) {
    case POINTS_READ: return "read_bytes_per_s";
    case POINTS_TRIAD: return "triad_bytes_per_s";
    case POINTS_COPY: return way[r->part];
    case POINTS_GEMM: return s->cuda && equal ? square[r->dtype] : NULL;
    case POINTS_FMA:
        return r->dtype == POINTS_F32    ? "fma_flop_per_s"
               : r->dtype == POINTS_BF16 ? "bf16_flop_per_s"
                                         : "int8_op_per_s";
    default: return NULL;
    }
}

/* The ceilings, medians of the points of that name: of a processor by threads; where a GPU has
 * several sizes, the best of them. */
static int put_limits(struct suite *s, const struct suite_log *log, points *p, struct err *e)
{
    enum { MAX_LIMITS = 64 };
    struct {
        char name[64];
        double rate;
    } best[MAX_LIMITS] = { 0 };
    int n = 0, st = points_limit(p, "clock_s", s->clock_s, e);
    for (int i = 0; i < s->n_row; i++) {
        const struct points_row *r = &s->row[i];
        const char *what = limit_of(s, r);
        double t = what ? suite_median(log, i) : NAN;
        char name[64];
        int k = 0;
        if (!(t > 0)) continue;
        bool work = r->op == POINTS_FMA || r->op == POINTS_GEMM;
        if (s->cuda)
            snprintf(name, sizeof name, "%s", what);
        else
            snprintf(name, sizeof name, "%s_%d", what, r->threads);
        while (k < n && strcmp(best[k].name, name) != 0) k++;
        if (k == MAX_LIMITS) continue;
        if (k == n) memcpy(best[n++].name, name, sizeof name);
        best[k].rate = fmax(best[k].rate, (work ? r->flop : r->bytes) / t);
    }
    for (int k = 0; k < n && st == ST_OK; k++) st = points_limit(p, best[k].name, best[k].rate, e);
    return st;
}

static int save(struct suite *s, const struct suite_run_opts *o, const struct suite_log *log,
                struct err *e)
{
    struct prov v;
    char title[160], kind[16];
    if (!o->out) return ST_OK;
    snprintf(title, sizeof title, "bench %s, %s TP%d-PP%d, %d thread%s a rank",
             points_word(SUITE_WORDS, s->o.kind, kind, sizeof kind), s->spec.a.name, s->o.tp,
             s->o.pp, s->o.threads, units_s(s->o.threads));
    points *p = points_create(o->out, title, e);
    if (!p) return ST_IO;
    int st = ST_OK;
    for (int i = 0; i < s->n_row && st == ST_OK; i++)
        st = points_add(p, &s->row[i], e) < 0 ? ST_IO : ST_OK;
    for (int64_t i = 0; i < log->n_sample && st == ST_OK; i++)
        st = points_put(p, &log->sample[i], e);
    for (int64_t i = 0; i < log->n_look && st == ST_OK; i++)
        st = points_put_noise(p, &log->look[i], e);
    for (int64_t i = 0; i < log->n_gpu && st == ST_OK; i++) st = points_put_gpu(p, &log->gpu[i], e);
    if (st == ST_OK) st = put_notes(s, o, log, p, e);
    if (st == ST_OK) st = put_limits(s, log, p, e);
    if (st != ST_OK) {
        points_abort(p);
        return st;
    }
    prov_collect(&v, o->argc, o->argv);
    st = points_commit(p, &v, e);
    prov_release(&v);
    return st;
}

/* ---- what an earlier process has left */

static const char *note_of(struct suite *s, struct points_file *f, const char *name)
{
    char *text = NULL;
    return h5_read_attr_text(f->h5, "/provenance", name, &s->arena, &text, NULL) == ST_OK && text
               ? text
               : "";
}

static struct suite_origin origin_of(struct suite *s, const struct suite_run_opts *o)
{
    struct prov v;
    char word[] = "orrery", *argv[] = { word };
    prov_collect(&v, 1, argv);
    struct suite_origin x = {
        .identity = arena_printf(&s->arena, "%016" PRIx64, suite_identity(s)),
        .settings = settings(s, o),
        .host = arena_copy_text(&s->arena, v.host_sha, strlen(v.host_sha)),
        .machine = arena_copy_text(&s->arena, v.cpu, strlen(v.cpu)),
        .n_row = s->n_row,
    };
    prov_release(&v);
    return x;
}

/* What the file holds goes to log and journal. */
static void take_over(struct suite *s, const struct points_file *f, struct suite_log *log)
{
    for (int64_t i = 0; i < f->n_noise; i++) {
        suite_log_look(log, &f->noise[i]);
        suite_journal_look(&log->journal, &f->noise[i]);
    }
    for (int64_t i = 0; i < f->n_gpu; i++) {
        suite_log_gpu(log, &f->gpu[i]);
        suite_journal_gpu(&log->journal, &f->gpu[i]);
    }
    for (int i = 0; i < s->n_row; i++)
        if (f->row[i].error >= 0) suite_error(s, i, f->row[i].error);
    for (int64_t i = 0; i < f->n_sample; i++) {
        suite_log_sample(log, &f->sample[i]);
        suite_journal_sample(&log->journal, &f->sample[i], s->row[f->sample[i].point].error);
    }
    suite_journal_verdict(&log->journal, false); /* they keep what they have */
}

static int resume_file(struct suite *s, const struct suite_run_opts *o,
                       const struct suite_origin *here, struct suite_log *log, struct err *e)
{
    struct points_file f;
    if (access(o->out, F_OK) != 0)
        return err_set(e, ST_USAGE,
                       "--resume: there is nothing to go on from: nothing in %s, and no %s",
                       log->journal.path, o->out);
    int st = points_read(o->out, &s->arena, &f, e);
    if (st != ST_OK) return st;
    struct suite_origin was = { note_of(s, &f, "suite_identity"), note_of(s, &f, "settings"),
                                note_of(s, &f, "host"), f.machine, (int)f.n_row };
    st = suite_journal_same(&was, here, o->out, e);
    if (st == ST_OK) take_over(s, &f, log);
    points_close(&f);
    return st == ST_OK ? suite_journal_flush(&log->journal, true, e) : st;
}

/* The journal, and what an earlier process has measured. */
static int begin(struct suite *s, const struct suite_run_opts *o, struct suite_log *log,
                 struct err *e)
{
    struct suite_origin here = origin_of(s, o);
    bool found;
    int st = suite_journal_open(&log->journal, o->out, o->resume, &here, s, log, &found, e);
    if (st == ST_OK && log->journal.left[0] && o->set_aside) o->set_aside(log->journal.left);
    if (st == ST_OK && o->resume && !found) {
        st = resume_file(s, o, &here, log, e);
        if (st != ST_OK) suite_journal_close(&log->journal, true);
    }
    if (st != ST_OK) return st;
    if (log->n_sample) log->t0_s = log->sample[log->n_sample - 1].t_s;
    if (log->n_look) log->t0_s = fmax(log->t0_s, log->look[log->n_look - 1].t_s);
    if (log->n_gpu) log->t0_s = fmax(log->t0_s, log->gpu[log->n_gpu - 1].t_s);
    log->n_resumed = log->n_sample;
    return ST_OK;
}

/* done[run * n_job + job] of what the log holds; a job is done if any of its points is. */
static unsigned char *find_done(const struct suite *s, const struct suite_log *log, int runs)
{
    size_t n_job = (size_t)s->n_job;
    unsigned char *done = mem_zalloc((size_t)runs * n_job + 1, 1);
    int *job_of = mem_alloc(((size_t)s->n_row + 1) * sizeof *job_of);
    for (int j = 0; j < s->n_job; j++)
        for (int i = 0; i < s->job[j].n; i++) job_of[s->job[j].first + i] = j;
    for (int64_t i = 0; i < log->n_sample; i++) {
        const struct points_sample *x = &log->sample[i];
        if (x->run < runs) done[(size_t)x->run * n_job + (size_t)job_of[x->point]] = 1;
    }
    free(job_of);
    return done;
}

/* ---- running */

static int run_job(struct suite *s, struct suite_log *log, int run, int j, struct err *e)
{
    const struct suite_job *job = &s->job[j];
    struct suite_value *v = mem_zalloc((size_t)job->n + 1, sizeof *v);
    double t = now_s(log);
    int st = suite_run_job(s, j, v, e);
    struct points_gpu gpu;
    bool seen = suite_cuda_seen(s, &gpu), slowed = seen && gpu.slowed & NVML_DISTURBED;
    gpu.t_s = t;
    if (seen && st == ST_OK) {
        suite_log_gpu(log, &gpu);
        suite_journal_gpu(&log->journal, &gpu);
    }
    for (int i = 0; i < job->n && st == ST_OK; i++) {
        struct points_sample x = { .point = job->first + i,
                                   .run = run,
                                   .calls = v[i].calls,
                                   .s_per_call = v[i].s_per_call,
                                   .t_s = t,
                                   .noisy = slowed };
        if (v[i].calls < 1) continue;
        suite_log_sample(log, &x);
        suite_journal_sample(&log->journal, &x, s->row[x.point].error);
        log->unjudged++;
    }
    free(v);
    return st;
}

struct pace {
    struct progress progress;
    double look_s, save_s; /* when they were last */
    unsigned char *done;
    double n_done;
};

static int after_job(const struct suite_run_opts *o, struct suite_log *log, struct pace *p,
                     struct err *e)
{
    double now = now_s(log);
    bool sync = now - p->save_s >= o->save_s;
    if (now - p->look_s >= LOOK_S) {
        look(log);
        p->look_s = now_s(log);
    }
    int st = suite_journal_flush(&log->journal, sync, e);
    if (sync) p->save_s = now_s(log);
    return st;
}

static int rounds(struct suite *s, const struct suite_run_opts *o, struct suite_log *log,
                  struct pace *p, struct err *e)
{
    int *order = mem_alloc(((size_t)s->n_job + 1) * sizeof *order), st = ST_OK;
    for (int run = 0; run < o->runs && st == ST_OK; run++) {
        suite_order(o->seed, run, s->n_job, order);
        for (int i = 0; i < s->n_job && st == ST_OK; i++) {
            int j = order[i];
            if (p->done[(size_t)run * (size_t)s->n_job + (size_t)j]) continue;
            if (stop_asked()) st = err_set(e, ST_STOPPED, "interrupted");
            if (st == ST_OK) st = run_job(s, log, run, j, e);
            if (st == ST_OK) st = after_job(o, log, p, e);
            if (st != ST_OK) break;
            if (o->after) o->after(o->ctx, run, j);
            progress_at(&p->progress, p->n_done += s->job[j].run_s);
        }
    }
    free(order);
    return st;
}

/* The journal is kept until the file is there, and where there is nothing in it goes at once. */
static int finish(struct suite *s, const struct suite_run_opts *o, struct suite_log *log, int st,
                  struct err *e)
{
    (void)suite_journal_flush(&log->journal, true, NULL); /* what cannot be kept has been told */
    if (st == ST_OK) st = save(s, o, log, e);
    suite_journal_close(&log->journal, st == ST_OK || log->n_sample == 0);
    return st;
}

int suite_run(struct suite *s, const struct suite_run_opts *o, struct suite_log *log, struct err *e)
{
    struct pace p = { .done = NULL };
    *log = (struct suite_log){ .journal.fd = -1 };
    int st = begin(s, o, log, e);
    if (st != ST_OK) return st;
    p.done = find_done(s, log, o->runs);
    for (int run = 0; run < o->runs; run++)
        for (int j = 0; j < s->n_job; j++)
            if (p.done[(size_t)run * (size_t)s->n_job + (size_t)j]) p.n_done += s->job[j].run_s;
    progress_start(&p.progress, "bench", "s", suite_round_s(s) * o->runs, o->progress);
    noise_init(&log->noise);
    int here = s->o.mpi ? comm_mpi_place(s->o.mpi)->n : s->o.tp * s->o.pp;
    if (s->o.mpi) log->noise.helpers = (here - 1.0) * s->o.threads;
    log->noise.crowded = here * s->o.threads > log->noise.cpus;
    log->epoch_ns = clock_mono_ns();
    p.look_s = p.save_s = log->t0_s;
    st = rounds(s, o, log, &p, e);
    if (log->unjudged) look(log);
    log->complete = st == ST_OK;
    log->wall_s = 1e-9 * (double)(clock_mono_ns() - log->epoch_ns);
    progress_end(&p.progress);
    free(p.done);
    return finish(s, o, log, st, e);
}
