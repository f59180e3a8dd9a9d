/* bench/suite_system.c - storage, the scheduler by itself, and the serving loop with a null model.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/conf.h"
#include "base/progress.h"
#include "base/stop.h"
#include "bench/suite.h"
#include "engine/serve.h"

/* ---- storage: a file of our own, or the model's checkpoint */

enum { FILE_BYTES = 64 << 20, PIECE_BYTES = 1 << 20 };

/* Writes path anew, synced, so that its pages can be dropped from the cache. */
static int make_file(const char *path, char *piece, bool *made, struct err *e)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (fd < 0) return err_set(e, ST_IO, "cannot create %s: %s", path, strerror(errno));
    *made = true;
    stop_guard(path);
    for (int i = 0; i < PIECE_BYTES; i++) piece[i] = (char)(i * 31 + i / 4096);
    int why = 0;
    for (int at = 0; at < FILE_BYTES && !why; at += PIECE_BYTES) {
        ssize_t n = write(fd, piece, PIECE_BYTES);
        if (n != PIECE_BYTES) why = n < 0 ? errno : ENOSPC; /* a part of it: the disk is full */
    }
    if (fsync(fd) != 0 && !why) why = errno;
    if (close(fd) != 0 && !why) why = errno;
    if (!why) return ST_OK;
    return err_set(e, ST_IO, "cannot write %d MB to %s: %s", FILE_BYTES >> 20, path, strerror(why));
}

/* Seconds of reading the whole file; cold: after its pages were dropped. */
static int read_file(const char *path, bool cold, char *piece, double *s, struct err *e)
{
    int fd = open(path, O_RDONLY);
    ssize_t n = 1;
    if (fd < 0) return err_set(e, ST_IO, "cannot read %s: %s", path, strerror(errno));
    if (cold) (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    int64_t t0 = clock_mono_ns();
    while (n > 0) n = read(fd, piece, PIECE_BYTES);
    *s = 1e-9 * (double)(clock_mono_ns() - t0);
    close(fd);
    return n == 0 ? ST_OK : err_set(e, ST_IO, "cannot read %s: %s", path, strerror(errno));
}

double suite_file_bytes(const struct suite *s, bool *checkpoint)
{
    struct stat info;
    char path[4352];
    snprintf(path, sizeof path, "%s/model.safetensors", s->o.model);
    *checkpoint = stat(path, &info) == 0;
    return *checkpoint ? (double)info.st_size : FILE_BYTES;
}

int suite_file_open(const struct suite *s, bool checkpoint, struct suite_file *f, struct err *e)
{
    f->own = !checkpoint;
    if (checkpoint) {
        snprintf(f->path, sizeof f->path, "%s/model.safetensors", s->o.model);
        return ST_OK;
    }
    snprintf(f->path, sizeof f->path, "%s/orrery-bench.%ld.tmp", s->o.dir, (long)getpid());
    char *piece = mem_alloc(PIECE_BYTES);
    bool made = false;
    int st = make_file(f->path, piece, &made, e);
    free(piece);
    if (st != ST_OK && made) suite_file_close(f);
    return st;
}

void suite_file_close(struct suite_file *f)
{
    if (!f->own) return;
    unlink(f->path);
    stop_unguard(f->path);
}

/* arg[0]: the checkpoint, else a file made for it. Points: cold, warm. */
static int run_storage(struct suite *s, const struct suite_job *j, struct suite_value *v,
                       struct err *e)
{
    struct suite_file f;
    double t[2] = { 0 };
    int st = suite_file_open(s, j->arg[0], &f, e);
    if (st != ST_OK) return st;
    char *piece = mem_alloc(PIECE_BYTES);
    for (int i = 0; i < 2 && st == ST_OK; i++) st = read_file(f.path, i == 0, piece, &t[i], e);
    suite_file_close(&f);
    for (int i = 0; i < 2 && st == ST_OK; i++) v[i] = (struct suite_value){ 1, t[i] };
    free(piece);
    return st;
}

static void add_storage(struct suite *s, bool checkpoint, double bytes)
{
    struct suite_job *j = suite_add_job(s, checkpoint ? "checkpoint" : "storage", bytes / 3e8);
    j->run = run_storage;
    j->arg[0] = checkpoint;
    for (int i = 0; i < 2; i++) {
        struct points_row r = { .op = POINTS_LOAD,
                                .part = i ? POINTS_WARM : POINTS_COLD,
                                .threads = 1,
                                .m = checkpoint,
                                .bytes = bytes,
                                .error = -1 };
        suite_add_row(s, &r);
    }
}

/* The model as the engine loads it: checkpoint or drawn, packed, on all ranks' threads. */
static int run_load(struct suite *s, const struct suite_job *j, struct suite_value *v,
                    struct err *e)
{
    struct engine_opts o = { .model = s->o.model,
                             .random = s->o.random,
                             .seed = s->o.seed,
                             .tp = s->o.tp,
                             .pp = s->o.pp,
                             .threads = s->o.threads,
                             .kernels = s->o.kernels,
                             .max_table = 4,
                             .m = { .weight = s->o.weight,
                                    .kv = s->o.kv,
                                    .n_block = 4,
                                    .block_tok = s->o.block_tok,
                                    .max_tok = 8,
                                    .max_out = 1,
                                    .max_ctx = s->o.block_tok } };
    int64_t t0 = clock_mono_ns();
    (void)j;
    struct engine *g = engine_open(&o, e);
    if (!g) return e && e->status != ST_OK ? e->status : ST_DEVICE;
    *v = (struct suite_value){ 1, 1e-9 * (double)(clock_mono_ns() - t0) };
    engine_close(g);
    return ST_OK;
}

static void add_load(struct suite *s)
{
    struct points_row r = suite_load_row(s, 0);
    suite_add_job(s, s->o.random ? "model, weights drawn" : "model loaded", r.bytes / 2e8)->run =
        run_load;
    suite_add_row(s, &r);
}

/* ---- the scheduler alone */

static void on_req(void *ctx, struct sreq *r, int64_t t_ns)
{
    (void)ctx, (void)r, (void)t_ns;
}

static const struct sched_sink quiet = {
    .first = on_req, .gap = on_req, .done = on_req, .preempt = on_req
};
enum { MANY_TOK = 1 << 22 };

struct choosing {
    struct sched s;
    struct batch b;
    int64_t now;
};

static int choose(void *arg, struct err *e)
{
    struct choosing *c = arg;
    (void)e;
    sched_next(&c->s, &c->b, c->now);
    sched_complete(&c->s, &c->b, 1, ++c->now);
    return ST_OK;
}

static void sched_defaults(struct sched_opts *o, struct arena *a)
{
    struct conf_set set;
    conf_init(&set, a);
    conf_add(&set, sched_rows, o, "policy");
}

/* arg[0]: policy; arg[1]: sequences that decode. */
static int run_choose(struct suite *s, const struct suite_job *j, struct suite_value *v,
                      struct err *e)
{
    struct arena a;
    struct choosing *c = mem_zalloc(1, sizeof *c);
    struct sched_opts o;
    int64_t n = j->arg[1];
    arena_init(&a);
    sched_defaults(&o, &a);
    o.policy = (int)j->arg[0];
    o.max_seqs = n;
    o.max_batch_tok = 64 * n;
    sched_init(&c->s, &o, (MANY_TOK / o.block_tok + 2) * n, 1, MANY_TOK + 64, &quiet, &a);
    for (int64_t i = 0; i < n; i++) {
        struct trace_req q = { .id = i, .session = -1, .n_in = 16, .n_out = MANY_TOK };
        (void)sched_submit(&c->s, &q, 0);
    }
    for (int64_t i = 0; i < 2 * n + 8; i++) choose(c, e);
    int st = suite_repeat(s, choose, c, v, e);
    arena_release(&a);
    free(c);
    return st;
}

/* ---- the serving loop, its steps taking no time */

enum { MAX_SEQS = 256, STEPS = 200, PROMPT = 16 };

struct null_model {
    int32_t n_out, tok[MAX_SEQS];
    int64_t want, steps, ns; /* of steps that decode `want` sequences */
};

static int null_submit(void *ctx, const struct engine_step *s, struct err *e)
{
    struct null_model *m = ctx;
    (void)e;
    m->n_out = s->n_out;
    return ST_OK;
}

static int null_collect(void *ctx, struct engine_result *r, struct err *e)
{
    struct null_model *m = ctx;
    (void)e;
    *r = (struct engine_result){ .n_out = m->n_out, .tok = m->tok };
    return ST_OK;
}

static void on_step(void *ctx, const struct serve_step *x)
{
    struct null_model *m = ctx;
    if (x->shape.n_decode != m->want || x->shape.n_prefill) return;
    m->steps++;
    m->ns += x->host_ns;
}

static int run_loop(struct suite *s, const struct suite_job *j, struct suite_value *v,
                    struct err *e)
{
    struct arena a;
    struct null_model m = { .want = j->arg[1] };
    struct sched_opts o;
    struct trace_req row[MAX_SEQS] = { 0 };
    struct serve_result out = { 0 };
    struct serve_sink sink = { .ctx = &m, .step = on_step };
    arena_init(&a);
    sched_defaults(&o, &a);
    o.policy = SCHED_VLLM;
    o.max_seqs = m.want;
    o.max_batch_tok = PROMPT * m.want;
    for (int64_t i = 0; i < m.want; i++)
        row[i] = (struct trace_req){ .id = i, .session = -1, .n_in = PROMPT, .n_out = STEPS };
    struct serve_device dev = { &m, 1, null_submit, null_collect };
    struct serve_setup u = { .dev = &dev,
                             .n_replica = 1,
                             .sched = &o,
                             .kv_blocks = m.want * ((PROMPT + STEPS) / o.block_tok + 2),
                             .max_ctx = PROMPT + STEPS,
                             .vocab = s->spec.a.vocab,
                             .seed = 1,
                             .top_p = 1,
                             .sink = &sink };
    int st = trace_from_rows(row, m.want, &u.trace, e);
    if (st == ST_OK) st = serve_run(&u, &a, &out, e);
    trace_close(u.trace);
    arena_release(&a);
    if (st == ST_OK && out.stopped) st = err_set(e, ST_STOPPED, "interrupted");
    if (st == ST_OK && m.steps)
        *v = (struct suite_value){ m.steps, 1e-9 * (double)m.ns / (double)m.steps };
    return st;
}

static void add_sched(struct suite *s, int what, int64_t n)
{
    static const char *const name[] = { "null policy", "vllm policy", "serving loop" };
    char label[64];
    struct points_row r = { .op = POINTS_SCHED,
                            .threads = 1,
                            .m = what == 2 ? n : 0,
                            .k = what == 0,
                            .seqs = n,
                            .error = -1 };
    snprintf(label, sizeof label, "%s, %lld sequences", name[what], (long long)n);
    struct suite_job *j = suite_add_job(s, label, 2 * s->o.run_s);
    j->run = what == 2 ? run_loop : run_choose;
    j->arg[0] = what == 0 ? SCHED_NULL : SCHED_VLLM;
    j->arg[1] = n;
    suite_add_row(s, &r);
}

int suite_system_add(struct suite *s, struct err *e)
{
    struct stat info;
    bool full = s->o.kind == SUITE_FULL, checkpoint;
    if (stat(s->o.dir, &info) != 0 || !S_ISDIR(info.st_mode))
        return err_set(e, ST_USAGE, "--storage: %s is no directory", s->o.dir);
    double bytes = suite_file_bytes(s, &checkpoint);
    add_storage(s, false, FILE_BYTES);
    if (checkpoint)
        add_storage(s, true, bytes);
    else
        suite_skip(s, "reading the checkpoint: the model has none, its weights are drawn");
    add_load(s);
    for (int what = 0; what < 3; what++)
        for (int64_t n = 1; n <= MAX_SEQS; n *= full ? 4 : 16) add_sched(s, what, n);
    return ST_OK;
}
