/* engine/backend_gpu_mat.c - matrices on a GPU: weights on their way there, and products with the
 * images of activations. SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "engine/backend_gpu_priv.h"
#include "engine/team.h"

enum {
    BOUNCE_BYTES = 64 << 20,
    SLICE_BYTES = 4 << 20, /* of one copy: the next is converted while it runs */
    UNIT_BYTES = 256,
    ALONE_BYTES = 1 << 16, /* conversions that are not worth a meeting */
    SM_BF16 = 80,
    SM_E4M3 = 89,
    E4M3_UNIT = 16
};
#define E4M3_MAX  448.0f
#define MIN_SCALE 0x1p-120f

/* ---- made */

static bool is_e4m3(enum backend_type t)
{
    return t == BACKEND_FP8 || t == BACKEND_FP8_TENSOR;
}

bool backend_gpu_takes(const struct backend *b, enum backend_type type)
{
    int sm = ((const struct backend_gpu *)b)->g->info.sm;
    if (type == BACKEND_INT8) return false;
    return !(is_e4m3(type) && sm < SM_E4M3) && !(type == BACKEND_BF16 && sm < SM_BF16);
}

static void refuse(const struct backend_gpu *c, enum backend_type type, struct err *e)
{
    const struct gpu_info *i = &c->g->info;
    if (type == BACKEND_INT8)
        err_set(e, ST_USAGE,
                "int8 weights are for the CPU; a GPU keeps them as f32, bf16, f16 or fp8");
    else
        err_set(e, ST_USAGE, "%s weights need compute capability %s, %s has %d.%d%s",
                is_e4m3(type) ? "fp8" : "bf16", is_e4m3(type) ? "8.9" : "8.0", i->name, i->sm / 10,
                i->sm % 10, is_e4m3(type) ? "" : ": take f16");
}

struct backend_mat *backend_gpu_mat_new(struct backend *b, enum backend_type type, int n, int k,
                                        struct err *e)
{
    static const enum gpu_elt elt[] = { [BACKEND_F32] = GPU_F32,
                                        [BACKEND_BF16] = GPU_BF16,
                                        [BACKEND_F16] = GPU_F16,
                                        [BACKEND_FP8] = GPU_E4M3,
                                        [BACKEND_FP8_TENSOR] = GPU_E4M3 };
    struct backend_gpu *c = backend_gpu_of(b);
    if (!backend_gpu_takes(b, type)) {
        refuse(c, type, e);
        return NULL;
    }
    if (is_e4m3(type) && (n % E4M3_UNIT || k % E4M3_UNIT)) {
        err_set(e, ST_USAGE, "a matrix of %d x %d: fp8 weights need multiples of %d", n, k,
                E4M3_UNIT);
        return NULL;
    }
    struct backend_mat *w = backend_gpu_hold(c, sizeof *w);
    *w = (struct backend_mat){ .n = n, .k = k, .elt = elt[type], .per_row = type == BACKEND_FP8 };
    w->bytes = (size_t)n * (size_t)k * gpu_elt_bytes(w->elt);
    w->data = backend_gpu_alloc(b, w->bytes, e);
    if (w->data && w->elt == GPU_E4M3) {
        w->scale = backend_gpu_alloc(b, (size_t)n * sizeof *w->scale, e);
        if (!w->scale) return NULL;
        w->bytes += (size_t)n * sizeof *w->scale;
    }
    if (!w->data) return NULL;
    c->mat = mem_resize(c->mat, (size_t)c->n_mat + 1, sizeof(struct backend_mat *));
    return c->mat[c->n_mat++] = w;
}

size_t backend_gpu_mat_bytes(const struct backend_mat *w)
{
    return w->bytes;
}

void backend_gpu_mat_release(struct backend_gpu *c)
{
    for (int i = 0; i < c->n_mat; i++) free(c->mat[i]->waiting);
    free(c->mat);
}

int32_t backend_gpu_widest(const struct backend_gpu *c)
{
    int32_t n = 0;
    for (int i = 0; i < c->n_mat; i++) {
        if (c->mat[i]->n > n) n = c->mat[i]->n;
        if (c->mat[i]->elt == GPU_F32 && c->mat[i]->k > n) n = c->mat[i]->k;
    }
    return n;
}

static int32_t deepest(const struct backend_gpu *c)
{
    int32_t k = 0;
    for (int i = 0; i < c->n_mat; i++)
        if (c->mat[i]->k > k) k = c->mat[i]->k;
    return k;
}

/* ---- weights on their way: rows are converted into pinned memory, by all threads of the rank */

struct convert {
    const struct backend_mat *w;
    enum elt from;
    const unsigned char *rows; /* [n_row][k] */
    int n_row;
    unsigned char *to;
    float *scale; /* [n_row] e4m3: read where given, else written */
    bool given;
};

static float scale_of(enum elt from, const void *row, int64_t n)
{
    float most = 0;
    for (int64_t i = 0; i < n; i++) {
        float v = fabsf(elt_get(from, row, (size_t)i));
        if (v > most) most = v;
    }
    return fmaxf(most / E4M3_MAX, MIN_SCALE);
}

static void convert_row(const struct convert *v, int r)
{
    static const enum elt kept[] = {
        [GPU_F32] = ELT_F32, [GPU_BF16] = ELT_BF16, [GPU_F16] = ELT_F16
    };
    size_t k = (size_t)v->w->k;
    const void *from = v->rows + (size_t)r * k * elt_bytes(v->from);
    unsigned char *to = v->to + (size_t)r * k * gpu_elt_bytes(v->w->elt);
    if (v->w->elt == GPU_E4M3) {
        if (!v->given) v->scale[r] = scale_of(v->from, from, (int64_t)k);
        float by = 1 / v->scale[r];
        for (size_t i = 0; i < k; i++) to[i] = elt_to_e4m3(elt_get(v->from, from, i) * by);
    } else if (kept[v->w->elt] == v->from) {
        memcpy(to, from, k * elt_bytes(v->from));
    } else {
        for (size_t i = 0; i < k; i++) elt_put(kept[v->w->elt], to, i, elt_get(v->from, from, i));
    }
}

static void convert_part(void *arg, int part, int n_part)
{
    const struct convert *v = arg;
    int at = (int)((int64_t)v->n_row * part / n_part);
    int end = (int)((int64_t)v->n_row * (part + 1) / n_part);
    for (; at < end; at++) convert_row(v, at);
}

/* Pinned memory until the next wait. */
static void *bounce(struct backend_gpu *c, size_t bytes)
{
    void *p = NULL;
    size_t whole = (bytes + UNIT_BYTES - 1) / UNIT_BYTES * UNIT_BYTES;
    assert(whole <= BOUNCE_BYTES);
    if (!c->bounce && !backend_gpu_failed(c) &&
        c->g->ops->alloc_pinned(c->g, BOUNCE_BYTES, &p, &c->err) == ST_OK)
        c->bounce = p;
    if (c->bounce_used + whole > BOUNCE_BYTES) backend_gpu_wait(c);
    if (backend_gpu_failed(c)) return NULL;
    c->bounce_used += whole;
    return c->bounce + c->bounce_used - whole;
}

/* Rows [n_at, ...) of the device's matrix. given: their scale, or NULL. */
static void send_rows(struct backend_gpu *c, struct convert *v, int n_at, const float *given)
{
    struct gpu *g = c->g;
    size_t row = (size_t)v->w->k * gpu_elt_bytes(v->w->elt), bytes = (size_t)v->n_row * row;
    size_t scales = (bytes + UNIT_BYTES - 1) / UNIT_BYTES * UNIT_BYTES; /* where they begin */
    v->to = bounce(c, scales + (size_t)v->n_row * sizeof *v->scale);
    if (!v->to) return;
    v->scale = (void *)(v->to + scales);
    v->given = given != NULL;
    for (int r = 0; given && r < v->n_row; r++) v->scale[r] = *given;
    if (c->team && bytes > ALONE_BYTES)
        team_run(c->team, convert_part, v);
    else
        convert_part(v, 0, 1);
    int st = g->ops->put(g, (char *)v->w->data + (size_t)n_at * row, v->to, bytes, &c->err);
    if (st == ST_OK && v->w->elt == GPU_E4M3)
        (void)g->ops->put(g, v->w->scale + n_at, v->scale, (size_t)v->n_row * sizeof *v->scale,
                          &c->err);
}

static void all_rows(struct backend_gpu *c, const struct convert *all, int n_at, const float *given)
{
    size_t row = (size_t)all->w->k * gpu_elt_bytes(all->w->elt);
    int step = (int)(SLICE_BYTES / row) + 1;
    for (int at = 0; at < all->n_row && !backend_gpu_failed(c); at += step) {
        struct convert v = *all;
        v.rows += (size_t)at * (size_t)all->w->k * elt_bytes(all->from);
        v.n_row = all->n_row - at < step ? all->n_row - at : step;
        send_rows(c, &v, n_at + at, given);
    }
}

/* One scale for the matrix is known when all of it has been seen. */
static void gather_rows(struct backend_gpu *c, struct backend_mat *w, const struct convert *v,
                        int n_at)
{
    size_t row = (size_t)w->k * elt_bytes(v->from);
    if (!w->waiting) {
        w->waiting = mem_alloc((size_t)w->n * row);
        w->from = v->from;
    }
    assert(w->from == v->from);
    memcpy(w->waiting + (size_t)n_at * row, v->rows, (size_t)v->n_row * row);
    w->n_waiting += v->n_row;
    if (w->n_waiting < w->n) return;
    struct convert all = { .w = w, .from = w->from, .rows = w->waiting, .n_row = w->n };
    float scale = scale_of(w->from, w->waiting, (int64_t)w->n * w->k);
    all_rows(c, &all, 0, &scale);
    free(w->waiting);
    w->waiting = NULL;
    w->n_waiting = 0;
}

void backend_gpu_mat_rows(struct backend *b, struct backend_mat *w, int n_at, int n_row,
                          enum elt from, const void *rows)
{
    struct backend_gpu *c = backend_gpu_of(b);
    struct convert v = { .w = w, .from = from, .rows = rows, .n_row = n_row };
    if (w->elt == GPU_E4M3 && !w->per_row)
        gather_rows(c, w, &v, n_at);
    else
        all_rows(c, &v, n_at, NULL);
}

/* ---- images */

/* The format that most of the weights want to be multiplied in. */
static void choose_image(struct backend_gpu *c)
{
    size_t bytes[GPU_N_ELT] = { 0 };
    for (int i = 0; i < c->n_mat; i++) bytes[c->mat[i]->elt] += c->mat[i]->bytes;
    c->image_type = bytes[GPU_F16] > bytes[GPU_BF16] ? GPU_F16 : GPU_BF16;
    if (bytes[c->image_type] == 0) c->image_type = GPU_F32;
    c->uniform = c->image_type != GPU_F32;
    for (int i = 0; i < c->n_mat; i++)
        if (c->mat[i]->elt != c->image_type) c->uniform = false;
}

int backend_gpu_reserve(struct backend *b, int32_t m, struct err *e)
{
    struct backend_gpu *c = backend_gpu_of(b);
    size_t bytes = (size_t)m * (size_t)deepest(c) * 2;
    bool narrow = false;
    for (int i = 0; i < c->n_mat; i++) narrow |= c->mat[i]->elt != GPU_F32;
    choose_image(c);
    if (!narrow || bytes <= c->image_bytes) return ST_OK;
    for (int i = 0; i < BACKEND_GPU_N_IMAGE; i++) {
        struct image *p = &c->image[i];
        *p = (struct image){ .scale = p->scale };
        p->data = backend_gpu_alloc(b, bytes, e);
        if (!p->scale) p->scale = backend_gpu_alloc(b, (1 + GPU_MAX_PART) * sizeof *p->scale, e);
        if (!p->data || !p->scale) return ST_DEVICE;
    }
    c->image_bytes = bytes;
    return ST_OK;
}

void backend_gpu_written(struct backend_gpu *c, const float *y)
{
    for (int i = 0; i < BACKEND_GPU_N_IMAGE; i++)
        if (c->image[i].of == y) c->image[i].of = NULL;
}

void backend_gpu_no_images(struct backend_gpu *c)
{
    for (int i = 0; i < BACKEND_GPU_N_IMAGE; i++) c->image[i].of = NULL;
}

/* A place for an image of y: the one that has not been used for longest. */
static struct image *take(struct backend_gpu *c, const float *y, enum gpu_elt type)
{
    struct image *best = &c->image[0];
    for (int i = 1; i < BACKEND_GPU_N_IMAGE; i++) {
        struct image *p = &c->image[i];
        if (!p->of != !best->of ? !p->of : p->used < best->used) best = p;
    }
    best->of = y;
    best->type = type;
    best->used = ++c->clock;
    best->only = false;
    return best;
}

void *backend_gpu_image(struct backend_gpu *c, const float *y, int64_t n, bool *f32)
{
    backend_gpu_written(c, y);
    *f32 = true;
    if (c->image_type == GPU_F32 || (size_t)n * gpu_elt_bytes(c->image_type) > c->image_bytes)
        return NULL;
    struct image *p = take(c, y, c->image_type);
    p->only = c->uniform && c->in_step;
    *f32 = !p->only;
    return p->data;
}

/* x[n] in a format that products take; NULL after a failure. */
static const struct image *operand(struct backend_gpu *c, const float *x, int64_t n,
                                   enum gpu_elt type)
{
    for (int i = 0; i < BACKEND_GPU_N_IMAGE; i++) {
        struct image *p = &c->image[i];
        if (p->of != x || p->type != type) continue;
        p->used = ++c->clock;
        return p;
    }
    if ((size_t)n * gpu_elt_bytes(type) > c->image_bytes && !backend_gpu_failed(c))
        err_set(&c->err, ST_DEVICE, "a product of %lld values of input; room is for %zu bytes",
                (long long)n, c->image_bytes);
    struct image *p = take(c, x, type);
    struct gpu_cast cast = { .from = x, .to = p->data, .n = n, .type = type };
    if (type == GPU_E4M3) {
        const struct gpu_absmax most = { .x = x, .part = p->scale + 1, .n = n };
        struct gpu_dim d;
        gpu_kern_dim(GPU_K_absmax, &most, &c->g->info, &d);
        cast.scale = p->scale;
        cast.part = most.part;
        cast.n_part = d.x;
        backend_gpu_launch(c, GPU_K_absmax, &most);
    }
    backend_gpu_launch(c, GPU_K_cast, &cast);
    return backend_gpu_failed(c) ? NULL : p;
}

/* ---- products */

void backend_gpu_mm(struct backend *b, const struct backend_mm *a)
{
    struct backend_gpu *c = backend_gpu_of(b);
    struct backend_mat *w = (struct backend_mat *)a->w;
    struct gpu_mm mm = {
        .x = a->x, .w = w->data, .y = a->y, .type = w->elt, .m = a->m, .n = w->n, .k = w->k
    };
    assert(a->ldx == w->k && a->ldy == w->n);
    w->multiplied = true;
    if (w->elt != GPU_F32) {
        const struct image *x = operand(c, a->x, (int64_t)a->m * w->k, w->elt);
        if (!x) return;
        mm.x = x->data;
        if (w->elt == GPU_E4M3) mm.x_scale = x->scale;
    }
    if (w->elt == GPU_E4M3) mm.w_scale = w->per_row ? c->one : w->scale;
    backend_gpu_written(c, a->y);
    if (!backend_gpu_failed(c)) (void)c->g->ops->mm(c->g, &mm, &c->err);
    if (w->elt == GPU_E4M3 && w->per_row)
        backend_gpu_launch(
            c, GPU_K_col_scale,
            &(struct gpu_col_scale){ .y = a->y, .scale = w->scale, .m = a->m, .n = w->n });
}

void backend_gpu_plan_input(struct backend_gpu *c)
{
    enum gpu_elt type = c->image_type == GPU_F32 ? GPU_E4M3 : c->image_type;
    const struct gpu_fill f = { .x = c->image[0].data,
                                .seed = 1,
                                .n = (int64_t)(c->image_bytes / gpu_elt_bytes(type)),
                                .type = (int32_t)type };
    backend_gpu_written(c, c->image[0].of);
    if (f.n > 0) backend_gpu_launch(c, GPU_K_fill, &f);
}

void backend_gpu_plan(struct backend_gpu *c, int32_t m, float *y, size_t n)
{
    for (int i = 0; i < c->n_mat && !backend_gpu_failed(c); i++) {
        const struct backend_mat *w = c->mat[i];
        int32_t widest = w->elt == GPU_F32 && w->k > w->n ? w->k : w->n;
        bool seen = (w->looked_up && !w->multiplied) || (size_t)m * (size_t)widest > n;
        for (int k = 0; k < i && !seen; k++)
            seen = c->mat[k]->elt == w->elt && c->mat[k]->n == w->n && c->mat[k]->k == w->k;
        if (seen) continue;
        const struct gpu_mm mm = { .x = w->elt == GPU_F32 ? y : c->image[0].data,
                                   .w = w->data,
                                   .y = y,
                                   .type = w->elt,
                                   .m = m,
                                   .n = w->n,
                                   .k = w->k,
                                   .x_scale = w->elt == GPU_E4M3 ? c->one : NULL,
                                   .w_scale = w->elt == GPU_E4M3 ? c->one : NULL };
        (void)c->g->ops->plan(c->g, &mm, &c->err);
    }
}
