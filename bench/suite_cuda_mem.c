/* bench/suite_cuda_mem.c - bandwidth of a GPU's memory, copies to and from it, launches, allocation,
 * files into it. SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/progress.h"
#include "bench/suite_cuda.h"

enum { WORD_BYTES = 16, L2_TIMES = 8, LOOKED_AT = 64 };
enum { LAUNCHES = 1000, WAITS = 100 };
enum { PINNED_BYTES = 64 << 20, PIECE_BYTES = 8 << 20 };

static const char *const part_name[] = { "to the GPU", "from the GPU", "on the GPU" };

/* ---- bandwidth */

struct sweep {
    struct suite *s;
    enum gpu_kern k;
    struct gpu_read read;
    struct gpu_copy copy;
};

static int sweep(void *arg, int i, struct err *e)
{
    struct sweep *w = arg;
    (void)i;
    return suite_cuda_launch(w->s, w->k, w->k == GPU_K_read ? (void *)&w->read : (void *)&w->copy,
                             e);
}

/* Sums of 32-bit words, each word given as the fill kernel's f32 has it. */
static int check_read(struct suite *s, const struct sweep *w, int row, struct err *e)
{
    struct gpu_dim d;
    uint32_t got = 0, want = 0, *sum;
    gpu_kern_dim(GPU_K_read, &w->read, &s->cuda->g->info, &d);
    sum = mem_alloc((size_t)d.x * sizeof *sum);
    int st = suite_cuda_get(s, sum, w->read.sum, (size_t)d.x * sizeof *sum, e);
    for (int i = 0; i < d.x; i++) got += sum[i];
    free(sum);
    unsigned char *x = mem_alloc((size_t)w->read.n * WORD_BYTES);
    if (st == ST_OK) st = suite_cuda_get(s, x, w->read.x, (size_t)w->read.n * WORD_BYTES, e);
    for (int64_t i = 0; i < 4 * w->read.n; i++) {
        uint32_t one;
        memcpy(&one, x + 4 * i, sizeof one);
        want += one;
    }
    free(x);
    if (st == ST_OK) suite_error(s, row, got == want ? 0 : 1);
    return st;
}

static int check_copy(struct suite *s, const float *to, int64_t n, uint64_t seed, int row,
                      struct err *e)
{
    struct suite_cuda_worst w = { 0 };
    int st = ST_OK;
    for (int i = 0; i < LOOKED_AT && st == ST_OK; i++) {
        float got;
        int64_t at = (n - 1) * i / (LOOKED_AT - 1);
        st = suite_cuda_get(s, &got, to + at, sizeof got, e);
        if (st == ST_OK) suite_cuda_compare(&w, got, suite_cuda_value(GPU_F32, seed, at));
    }
    if (st == ST_OK) suite_error(s, row, suite_cuda_error(&w));
    return st;
}

/* arg[0]: read, else copy. */
static int run_sweep(struct suite *s, const struct suite_job *j, struct suite_value *v,
                     struct err *e)
{
    bool copy = !j->arg[0];
    int64_t n = (int64_t)s->row[j->first].bytes / (copy ? 2 : 1) / WORD_BYTES;
    struct sweep w = { .s = s, .k = copy ? GPU_K_copy : GPU_K_read };
    struct gpu_dim d;
    int st = suite_cuda_start(s, e);
    if (st != ST_OK) return st;
    float *x = suite_cuda_drawn(s, GPU_F32, 4 * n, 1, e);
    if (!x) return ST_DEVICE;
    w.read = (struct gpu_read){ .x = x, .n = n };
    w.copy = (struct gpu_copy){ .from = x, .n = n };
    gpu_kern_dim(GPU_K_read, &w.read, &s->cuda->g->info, &d);
    if (copy)
        w.copy.to = suite_cuda_take(s, (size_t)n * WORD_BYTES);
    else
        w.read.sum = suite_cuda_take(s, (size_t)d.x * sizeof *w.read.sum);
    const struct suite_cuda_work work = { sweep, &w, 1 };
    st = suite_cuda_time(s, &work, v, e);
    if (st != ST_OK || s->row[j->first].error >= 0) return st;
    return copy ? check_copy(s, w.copy.to, 4 * n, 1, j->first, e) : check_read(s, &w, j->first, e);
}

static void add_sweep(struct suite *s, bool read, double bytes)
{
    struct points_row r = { .op = read ? POINTS_READ : POINTS_COPY, .bytes = bytes, .error = -1 };
    if (!suite_cuda_fits(s, bytes + 65536.0)) return;
    struct suite_job *j = suite_add_job(s, read ? "GPU memory, read" : "GPU memory, copied", 0);
    j->run = run_sweep;
    j->arg[0] = read;
    suite_cuda_row(s, r);
    suite_cuda_guess(s, bytes, 0);
}

/* ---- copies */

struct mover {
    struct suite *s;
    char *to[2], *from[2];
    size_t bytes, step;
    int n_var;
};

static int move_piece(void *arg, int i, struct err *e)
{
    struct mover *m = arg;
    struct gpu *g = m->s->cuda->g;
    size_t at = (size_t)i * m->step;
    return g->ops->put(g, m->to[0] + at, m->from[0] + at, m->bytes, e);
}

static int pinned(struct suite *s, size_t bytes, struct err *e)
{
    struct suite_cuda *c = s->cuda;
    void *p;
    if (c->pinned_bytes >= bytes) return ST_OK;
    int st = c->g->ops->alloc_pinned(c->g, bytes, &p, e);
    if (st != ST_OK) return st;
    c->pinned = p;
    c->pinned_bytes = bytes;
    return ST_OK;
}

static int get_piece(void *arg, int i, struct err *e)
{
    struct mover *m = arg;
    struct gpu *g = m->s->cuda->g;
    size_t at = (size_t)i * m->step;
    return g->ops->get(g, m->to[0] + at, m->from[0] + at, m->bytes, e);
}

static size_t pinned_bytes(const struct suite *s)
{
    size_t room = s->cuda->room_bytes / 4;
    return s->o.cache_bytes && s->o.cache_bytes < PINNED_BYTES ? s->o.cache_bytes
           : room < PINNED_BYTES                               ? room
                                                               : PINNED_BYTES;
}

/* arg[0]: POINTS_TO_DEVICE, _FROM_DEVICE or _ON_DEVICE. A point for each size. */
static int run_copies(struct suite *s, const struct suite_job *j, struct suite_value *v,
                      struct err *e)
{
    size_t all = pinned_bytes(s);
    int64_t way = j->arg[0], n = (int64_t)(all / sizeof(float));
    int st = suite_cuda_start(s, e);
    if (st == ST_OK) st = pinned(s, all, e);
    if (st != ST_OK) return st;
    char *a = suite_cuda_drawn(s, GPU_F32, n, 2, e), *b = suite_cuda_take(s, all);
    if (!a) return ST_DEVICE;
    struct mover m = { .s = s, .from = { a }, .to = { b } };
    if (way == POINTS_TO_DEVICE) { /* what is sent is what the device has drawn */
        st = suite_cuda_get(s, s->cuda->pinned, a, all, e);
        m.from[0] = s->cuda->pinned;
    } else if (way == POINTS_FROM_DEVICE) {
        m.to[0] = s->cuda->pinned;
    }
    for (int i = 0; i < j->n && st == ST_OK; i++) {
        m.bytes = (size_t)(s->row[j->first + i].bytes / (way == POINTS_ON_DEVICE ? 2 : 1));
        m.step = (m.bytes + 255) / 256 * 256;
        int n_var = (int)(all / m.step < 16 ? all / m.step : 16);
        const struct suite_cuda_work w = { way == POINTS_FROM_DEVICE ? get_piece : move_piece, &m,
                                           n_var > 0 ? n_var : 1 };
        st = suite_cuda_time(s, &w, &v[i], e);
    }
    if (st != ST_OK) return st;
    if (way != POINTS_FROM_DEVICE)
        return check_copy(s, (float *)(void *)b, n < 256 ? n : 256, 2, j->first, e);
    struct suite_cuda_worst w = { 0 };
    for (int i = 0; i < LOOKED_AT; i++) {
        float got;
        memcpy(&got, s->cuda->pinned + sizeof got * (size_t)i, sizeof got);
        suite_cuda_compare(&w, got, suite_cuda_value(GPU_F32, 2, i));
    }
    suite_error(s, j->first, suite_cuda_error(&w));
    return ST_OK;
}

static void add_copies(struct suite *s, enum points_part way)
{
    char what[64];
    size_t most = pinned_bytes(s), factor = s->o.kind == SUITE_FULL ? 4 : 64;
    if (!suite_cuda_fits(s, 2.0 * (double)most)) return;
    snprintf(what, sizeof what, "copies %s", part_name[way - POINTS_TO_DEVICE]);
    struct suite_job *j = suite_add_job(s, what, 0);
    j->run = run_copies;
    j->arg[0] = way;
    for (size_t n = 4096; n <= most; n *= factor) {
        struct points_row r = { .op = POINTS_COPY,
                                .part = (uint8_t)way,
                                .bytes = (double)n * (way == POINTS_ON_DEVICE ? 2 : 1),
                                .error = -1 };
        suite_cuda_row(s, r);
        suite_cuda_guess(s, 10 * (double)n, 0);
    }
}

/* ---- launches */

static int nothing(void *arg, int i, struct err *e)
{
    const struct gpu_nothing a = { 0 };
    (void)i;
    return suite_cuda_launch(arg, GPU_K_nothing, &a, e);
}

static int by_host(struct suite *s, int64_t n, bool each, struct suite_value *v, struct err *e)
{
    struct gpu *g = s->cuda->g;
    int st = nothing(s, 0, e);
    if (st == ST_OK) st = g->ops->wait(g, e);
    int64_t t0 = clock_mono_ns();
    for (int64_t i = 0; i < n && st == ST_OK; i++) {
        st = nothing(s, 0, e);
        if (each && st == ST_OK) st = g->ops->wait(g, e);
    }
    if (st == ST_OK) st = g->ops->wait(g, e);
    *v = (struct suite_value){ n, 1e-9 * (double)(clock_mono_ns() - t0) / (double)n };
    return st;
}

static int run_launches(struct suite *s, const struct suite_job *j, struct suite_value *v,
                        struct err *e)
{
    const struct suite_cuda_work w = { nothing, s, 1 };
    int st = suite_cuda_start(s, e);
    for (int i = 0; i < j->n && st == ST_OK; i++) {
        const struct points_row *r = &s->row[j->first + i];
        st = r->k == 1 ? suite_cuda_time(s, &w, &v[i], e) : by_host(s, r->m, r->k == 2, &v[i], e);
    }
    return st;
}

static void add_launches(struct suite *s)
{
    suite_add_job(s, "launches", 0.01)->run = run_launches;
    for (int k = 0; k < 3; k++) {
        struct points_row r = {
            .op = POINTS_LAUNCH, .m = k == 2 ? WAITS : LAUNCHES, .k = k, .error = -1
        };
        suite_cuda_row(s, r);
        suite_cuda_guess(s, 0, 0);
    }
}

/* ---- allocation: by another opening of the device, whose end gives it back */

static int run_alloc(struct suite *s, const struct suite_job *j, struct suite_value *v,
                     struct err *e)
{
    enum { TIMES = 4 };
    int st = ST_OK;
    struct gpu *g = device_open(&s->o.device, 0, e);
    if (!g) return ST_DEVICE;
    for (int i = 0; i < j->n && st == ST_OK; i++) {
        size_t bytes = (size_t)s->row[j->first + i].bytes;
        void *p;
        int64_t t0 = clock_mono_ns();
        if (4.0 * TIMES * (double)bytes > (double)g->info.free_bytes) continue;
        for (int k = 0; k < TIMES && st == ST_OK; k++) st = g->ops->alloc(g, bytes, &p, e);
        if (st == ST_OK) st = g->ops->wait(g, e);
        v[i] = (struct suite_value){ TIMES, 1e-9 * (double)(clock_mono_ns() - t0) / TIMES };
    }
    g->ops->close(g);
    return st;
}

static void add_alloc(struct suite *s)
{
    suite_add_job(s, "allocation", 0.5)->run = run_alloc;
    for (int64_t bytes = 2 << 20; bytes <= 512 << 20; bytes *= 16) {
        struct points_row r = { .op = POINTS_ALLOC, .bytes = (double)bytes, .error = -1 };
        suite_cuda_row(s, r);
    }
}

/* ---- a file into the device: read into one pinned piece while the other one is sent */

static int load_file(struct suite *s, const char *path, bool cold, double *t, struct err *e)
{
    struct suite_cuda *c = s->cuda;
    struct gpu *g = c->g;
    size_t piece = c->pinned_bytes / 2 < PIECE_BYTES ? c->pinned_bytes / 2 : PIECE_BYTES;
    char *to = suite_cuda_take(s, piece);
    int st = ST_OK, turn = 0, fd = open(path, O_RDONLY);
    ssize_t n = 1;
    if (fd < 0) return err_set(e, ST_IO, "cannot read %s: %s", path, strerror(errno));
    if (cold) (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    int64_t t0 = clock_mono_ns();
    while (st == ST_OK) {
        n = read(fd, c->pinned + (size_t)turn * piece, piece);
        if (n <= 0) break;
        st = g->ops->wait(g, e); /* for the other piece, which was on its way meanwhile */
        if (st == ST_OK) st = g->ops->put(g, to, c->pinned + (size_t)turn * piece, (size_t)n, e);
        turn = !turn;
    }
    if (st == ST_OK) st = g->ops->wait(g, e);
    *t = 1e-9 * (double)(clock_mono_ns() - t0);
    close(fd);
    if (st == ST_OK && n < 0) return err_set(e, ST_IO, "cannot read %s: %s", path, strerror(errno));
    return st;
}

/* arg[0]: the checkpoint, else a file made for it. Points: cold, warm. */
static int run_load(struct suite *s, const struct suite_job *j, struct suite_value *v,
                    struct err *e)
{
    struct suite_file f;
    double t[2] = { 0 };
    int st = suite_cuda_start(s, e);
    if (st == ST_OK) st = pinned(s, pinned_bytes(s), e);
    if (st == ST_OK) st = suite_file_open(s, j->arg[0], &f, e);
    if (st != ST_OK) return st;
    for (int i = 0; i < 2 && st == ST_OK; i++) {
        st = load_file(s, f.path, i == 0, &t[i], e);
        s->cuda->used = 0;
    }
    suite_file_close(&f);
    for (int i = 0; i < 2 && st == ST_OK; i++) v[i] = (struct suite_value){ 1, t[i] };
    return st;
}

static void add_load(struct suite *s)
{
    bool checkpoint;
    double bytes = suite_file_bytes(s, &checkpoint);
    if (!suite_cuda_fits(s, PIECE_BYTES)) return;
    struct suite_job *j =
        suite_add_job(s, checkpoint ? "checkpoint to the GPU" : "file to the GPU", bytes / 3e8);
    j->run = run_load;
    j->arg[0] = checkpoint;
    for (int i = 0; i < 2; i++) {
        struct points_row r = { .op = POINTS_LOAD,
                                .part = i ? POINTS_WARM : POINTS_COLD,
                                .m = checkpoint,
                                .k = 1,
                                .bytes = bytes,
                                .error = -1 };
        suite_cuda_row(s, r);
    }
}

int suite_cuda_mem_add(struct suite *s, struct err *e)
{
    double l2 = (double)suite_cuda_l2(s), bytes = L2_TIMES * l2;
    (void)e;
    if (bytes < 256 << 20 && !s->o.cache_bytes) bytes = 256 << 20;
    bytes = floor(bytes / 4096) * 4096;
    add_sweep(s, true, bytes);
    add_sweep(s, false, 2 * bytes);
    add_launches(s);
    if (s->o.kind == SUITE_MODEL) return ST_OK;
    for (int way = POINTS_TO_DEVICE; way <= POINTS_ON_DEVICE; way++)
        add_copies(s, (enum points_part)way);
    if (s->o.kind != SUITE_FULL) return ST_OK;
    add_alloc(s);
    add_load(s);
    return ST_OK;
}
