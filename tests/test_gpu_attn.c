/* tests/test_gpu_attn.c - the GPU's attention against f64, on the host GPU with threads and blocks
 * in several orders.
 *
 * Bounds, on the root of the summed squared errors over the summed squares of a row's head, and on
 * any one error over 4, about the largest |value| (queries, keys and values are standard normal):
 *   BF16  1e-2 and 8e-3: queries and shares are rounded to 8 bits, 2^-9 relative each; a score of
 *         about 1 to 4 is off by some 2^-8, a share by as much, and errors of shares average out
 *   F16   1.3e-3 and 1e-3: the same with 11 bits
 *   F32   1e-5 and 1e-5: sums of f32, exp2 of device precision
 * What is not to be read is NaN: the rest of the cache, table entries far off, rows of nobody.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "engine/elt.h"
#include "engine/gpu_kern_attn.h"
#include "tests/gpu_host.h"
#include "tests/test.h"

enum { MAX_SEQ = 12, MAX_ROW = 400, MAX_TILE = 16, NOWHERE = 1 << 28, UNTOUCHED = 0x5a };

static const double rms_bound[] = { [GPU_F32] = 1e-5, [GPU_BF16] = 1e-2, [GPU_F16] = 1.3e-3 };
static const double max_bound[] = { [GPU_F32] = 1e-5, [GPU_BF16] = 8e-3, [GPU_F16] = 1e-3 };

static struct err e;
static uint64_t drawn;

static int between(int lo, int hi)
{
    return lo + (int)rng_below(rng_stream(7, "gpu attention"), drawn++, (uint64_t)(hi - lo + 1));
}
static float normal(void)
{
    return (float)rng_normal(rng_stream(7, "gpu attention"), drawn++);
}

/* A step: what it is made of, and where. */
struct step {
    enum gpu_elt type, image_type;
    int n_head, n_kv, dim, tok, window, n_seq, n_row, n_tile, n_block, pad;
    int ctx[MAX_SEQ], n_q[MAX_SEQ]; /* n_q of ctx positions are computed, the last ones */
    int32_t row[MAX_SEQ], first[MAX_SEQ], pos[MAX_ROW], tile[2 * MAX_TILE];
    int32_t *table;
    void *k, *v;
    float *q;
    struct gpu *g;
    struct gpu_attn a;
};

static size_t elements(const struct step *t)
{
    return (size_t)t->n_block * t->n_kv * t->tok * t->dim;
}

static size_t kv_at(const struct step *t, int seq, int head, int key)
{
    int block = t->table[t->first[seq] + key / t->tok];
    return (((size_t)block * t->n_kv + head) * t->tok + key % t->tok) * t->dim;
}

static double kv_get(const struct step *t, const void *x, size_t i)
{
    if (t->type == GPU_F32) return (double)((const float *)x)[i];
    uint16_t b = ((const uint16_t *)x)[i];
    return (double)(t->type == GPU_BF16 ? elt_from_bf16(b) : elt_from_f16(b));
}

static void kv_put(const struct step *t, void *x, size_t i, float v)
{
    if (t->type == GPU_F32)
        ((float *)x)[i] = v;
    else
        ((uint16_t *)x)[i] = t->type == GPU_BF16 ? elt_to_bf16(v) : elt_to_f16(v);
}

/* Blocks in shuffled order; what no position has stays NaN. */
static void fill_cache(struct step *t)
{
    size_t bytes = elements(t) * gpu_elt_bytes(t->type);
    t->k = malloc(bytes);
    t->v = malloc(bytes);
    memset(t->k, 0xff, bytes);
    memset(t->v, 0xff, bytes);
    for (int s = 0; s < t->n_seq; s++) {
        int from = t->window && t->n_q[s] > 0 ? t->ctx[s] - t->n_q[s] - t->window + 1 : 0;
        for (int key = from > 0 ? from : 0; key < t->ctx[s]; key++)
            for (int h = 0; h < t->n_kv; h++)
                for (int d = 0; d < t->dim; d++) {
                    kv_put(t, t->k, kv_at(t, s, h, key) + d, normal());
                    kv_put(t, t->v, kv_at(t, s, h, key) + d, normal());
                }
    }
}

static void number_blocks(struct step *t)
{
    int n = 0;
    for (int s = 0; s < t->n_seq; s++) {
        t->first[s] = n;
        n += (t->ctx[s] + t->tok - 1) / t->tok;
    }
    t->n_block = n + 3;
    t->table = malloc((size_t)t->n_block * sizeof *t->table);
    for (int i = 0; i < t->n_block; i++) t->table[i] = i;
    for (int i = t->n_block - 1; i > 0; i--) {
        int j = between(0, i), x = t->table[i];
        t->table[i] = t->table[j];
        t->table[j] = x;
    }
}

/* Rows of the sequences with gaps of rows of nobody; tiles of those with more than one row. */
static void number_rows(struct step *t)
{
    t->n_row = t->n_tile = 0;
    for (int i = 0; i < MAX_ROW; i++) t->pos[i] = -1;
    for (int s = 0; s < t->n_seq; s++) {
        t->n_row += between(0, 1);
        t->row[s] = t->n_q[s] ? t->n_row : NOWHERE;
        if (!t->n_q[s]) t->first[s] = NOWHERE;
        for (int i = 0; i < t->n_q[s]; i++) t->pos[t->n_row++] = t->ctx[s] - t->n_q[s] + i;
        for (int i = 0; t->n_q[s] > 1 && i < t->n_q[s]; i += GPU_TILE_Q) {
            if (between(0, 2) == 0) t->tile[2 * t->n_tile++] = -1;
            t->tile[2 * t->n_tile] = s;
            t->tile[2 * t->n_tile++ + 1] = i;
        }
    }
    t->n_row++;
    t->tile[2 * t->n_tile++] = -1;
}

static void *on(struct step *t, const void *from, size_t bytes)
{
    void *p = NULL;
    if (t->g->ops->alloc(t->g, bytes ? bytes : 4, &p, &e)) abort();
    if (from && t->g->ops->put(t->g, p, from, bytes, &e)) abort();
    return p;
}

static void *filled(struct step *t, int with, size_t bytes)
{
    void *x = malloc(bytes);
    memset(x, with, bytes);
    void *p = on(t, x, bytes);
    free(x);
    return p;
}

/* t->ctx, n_q and the shapes are given. */
static void build(struct step *t, uint64_t order)
{
    /* the kernels choose other tiles on some */
    struct gpu_host_opts o = { .sm = order % 2 ? 90 : 75, .order = order };
    t->g = gpu_host_or_cuda(&o, &e);
    if (!t->g) abort();
    number_blocks(t);
    fill_cache(t);
    number_rows(t);
    int64_t ld = (int64_t)(t->n_head + 2 * t->n_kv) * t->dim + t->pad;
    t->q = malloc((size_t)(t->n_row * ld) * sizeof *t->q);
    memset(t->q, 0xff, (size_t)(t->n_row * ld) * sizeof *t->q);
    for (int r = 0; r < t->n_row; r++)
        for (int i = 0; t->pos[r] >= 0 && i < t->n_head * t->dim; i++) t->q[r * ld + i] = normal();

    size_t bytes = elements(t) * gpu_elt_bytes(t->type);
    size_t out = (size_t)t->n_row * t->n_head * t->dim;
    size_t part = (size_t)t->n_seq * t->n_head * GPU_MAX_SPLIT;
    t->a = (struct gpu_attn){
        .s = { .pos = on(t, t->pos, (size_t)t->n_row * 4),
               .row = on(t, t->row, (size_t)t->n_seq * 4),
               .n_q = on(t, t->n_q, (size_t)t->n_seq * 4),
               .first = on(t, t->first, (size_t)t->n_seq * 4),
               .table = on(t, t->table, (size_t)t->n_block * 4),
               .tile = on(t, t->tile, (size_t)t->n_tile * 8) },
        .kv = { .k = on(t, t->k, bytes),
                .v = on(t, t->v, bytes),
                .type = t->type,
                .n_head = t->n_kv,
                .head_dim = t->dim,
                .block_tok = t->tok },
        .q = on(t, t->q, (size_t)(t->n_row * ld) * 4),
        .ld = ld,
        .out = filled(t, UNTOUCHED, out * 4),
        .image = filled(t, UNTOUCHED, out * gpu_elt_bytes(t->image_type)),
        .part = filled(t, 0xff, part * t->dim * 4),
        .lse = filled(t, 0xff, part * 4),
        .image_type = t->image_type,
        .n_head = t->n_head,
        .n_seq = t->n_seq,
        .n_tile = t->n_tile,
        .n_split = 1,
        .window = t->window,
        .scale = 1 / sqrtf((float)t->dim),
    };
}

static void drop(struct step *t)
{
    t->g->ops->close(t->g);
    free(t->table);
    free(t->k);
    free(t->v);
    free(t->q);
}

/* Without shares there need be no memory for them. */
static void launch(struct step *t, enum gpu_kern k)
{
    struct gpu_dim d;
    struct gpu_attn a = t->a;
    if (a.n_split == 1) a.part = a.lse = NULL;
    gpu_kern_attn_dim(k, &a, &t->g->info, &d);
    CHECK(d.shared_bytes <= t->g->info.max_shared_bytes);
    CHECK(d.threads <= gpu_kern_max_threads(k));
    int st = t->g->ops->launch(t->g, k, &d, &a, &e);
    CHECK_TEXT(st ? e.text : "", "");
}

/* Decode in n shares; prefill where there is anything to. */
static void run(struct step *t, int n)
{
    t->a.n_split = n;
    launch(t, GPU_K_attn_decode);
    if (n > 1) launch(t, GPU_K_attn_combine);
    if (t->n_tile > 1) launch(t, t->type == GPU_F32 ? GPU_K_attn_prefill_f32 : GPU_K_attn_prefill);
    int st = t->g->ops->wait(t->g, &e);
    CHECK_TEXT(st ? e.text : "", "");
}

static void *back(struct step *t, const void *from, size_t bytes)
{
    void *to = malloc(bytes);
    if (t->g->ops->get(t->g, to, from, bytes, &e) || t->g->ops->wait(t->g, &e)) abort();
    return to;
}

static void reference(const struct step *t, int seq, int row, int head, double *out)
{
    int pos = t->pos[row], first = t->window && pos >= t->window ? pos - t->window + 1 : 0;
    const float *q = t->q + row * t->a.ld + head * t->dim;
    double max = -INFINITY, sum = 0, *s = malloc((size_t)(pos + 1) * sizeof *s);
    for (int key = first; key <= pos; key++) {
        size_t at = kv_at(t, seq, head / (t->n_head / t->n_kv), key);
        s[key] = 0;
        for (int d = 0; d < t->dim; d++) s[key] += (double)q[d] * kv_get(t, t->k, at + d);
        s[key] *= (double)t->a.scale;
        max = fmax(max, s[key]);
    }
    memset(out, 0, (size_t)t->dim * sizeof *out);
    for (int key = first; key <= pos; key++) {
        size_t at = kv_at(t, seq, head / (t->n_head / t->n_kv), key);
        double share = exp(s[key] - max);
        sum += share;
        for (int d = 0; d < t->dim; d++) out[d] += share * kv_get(t, t->v, at + d);
    }
    for (int d = 0; d < t->dim; d++) out[d] /= sum;
    free(s);
}

static double image_get(const struct step *t, const void *image, size_t i)
{
    struct step as = { .type = t->image_type };
    return kv_get(&as, image, i);
}

/* A row's head; worst: of the two errors over their bounds. */
static void compare(const struct step *t, const float *out, const double *want, double *worst)
{
    double error = 0, sum = 0, most = 0;
    for (int d = 0; d < t->dim; d++) {
        double off = (double)out[d] - want[d];
        error += off * off;
        sum += want[d] * want[d];
        most = fmax(most, fabs(off) / 4);
        if (!(fabs(off) < 1e9)) most = INFINITY;
    }
    *worst = fmax(*worst, fmax(sqrt(error / sum) / rms_bound[t->type], most / max_bound[t->type]));
}

static bool untouched(const void *x, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (((const unsigned char *)x)[i] != UNTOUCHED) return false;
    return true;
}

/* Every row, in out and image; rows of nobody are as they were. */
static double judge(struct step *t)
{
    size_t n = (size_t)t->n_head * t->dim;
    float *out = back(t, t->a.out, t->n_row * n * 4);
    void *image = back(t, t->a.image, t->n_row * n * gpu_elt_bytes(t->image_type));
    double want[GPU_MAX_HEAD_DIM], worst = 0;
    int images_off = 0, touched = 0;

    for (int s = 0; s < t->n_seq; s++)
        for (int i = 0; i < t->n_q[s] && t->pos[t->row[s]] >= 0; i++)
            for (int h = 0; h < t->n_head; h++) {
                int row = t->row[s] + i;
                size_t at = row * n + (size_t)h * t->dim;
                reference(t, s, row, h, want);
                compare(t, out + at, want, &worst);
            }
    struct step as = { .type = t->image_type };
    size_t bytes = gpu_elt_bytes(t->image_type);
    for (size_t i = 0; i < t->n_row * n; i++) {
        const char *at = (const char *)image + i * bytes;
        bool real = t->pos[i / n] >= 0;
        uint32_t bits = 0;
        kv_put(&as, &bits, 0, out[i]);
        if (real && image_get(t, image, i) != image_get(t, &bits, 0)) images_off++;
        if (!real && !(untouched(out + i, 4) && untouched(at, bytes))) touched++;
    }
    CHECK_INT(images_off, 0);
    CHECK_INT(touched, 0);
    free(out);
    free(image);
    return worst;
}

static void check(struct step *t, int n_split, const char *what)
{
    run(t, n_split);
    double worst = judge(t);
    if (!CHECK(worst <= 1))
        printf("  %s: type %d dim %d heads %d/%d block %d window %d split %d: %.2f of the bound\n",
               what, (int)t->type, t->dim, t->n_head, t->n_kv, t->tok, t->window, n_split, worst);
}

static const int dims[] = { 32, 64, 80, 96, 128, 256 };
static const int toks[] = { 16, 16, 8, 32, 5, 64 };
static const int windows[] = { 0, 0, 1, 20, 64, 100 };

static void shape(struct step *t, enum gpu_elt type, int dim, int n_kv, int group)
{
    *t = (struct step){ .type = type,
                        .image_type = (enum gpu_elt)between(GPU_F32, GPU_F16),
                        .n_head = n_kv * group,
                        .n_kv = n_kv,
                        .dim = dim,
                        .tok = toks[between(0, 5)],
                        .window = windows[between(0, 5)],
                        .pad = 4 * between(0, 2) };
}

static void decodes(enum gpu_elt type, uint64_t order)
{
    static const int groups[] = { 1, 3, 4, 8, 2, 12 };
    for (int i = 0; i < 6; i++) {
        struct step t;
        shape(&t, type, dims[i], between(1, 2), groups[between(0, 5)]);
        t.n_seq = 5;
        for (int s = 0; s < 5; s++) {
            t.ctx[s] = s == 0 ? 1 : between(1, s == 1 ? 330 : 70);
            t.n_q[s] = s == 2 ? 0 : 1;
        }
        build(&t, order);
        check(&t, 1, "decode");
        check(&t, 1 << between(1, 5), "decode");
        drop(&t);
    }
}

TEST(gpu_attn_decode_of_f32)
{
    for (uint64_t order = 0; order < 3; order++) decodes(GPU_F32, order);
}
TEST(gpu_attn_decode_of_bf16)
{
    for (uint64_t order = 0; order < 3; order++) decodes(GPU_BF16, order);
}
TEST(gpu_attn_decode_of_f16)
{
    for (uint64_t order = 0; order < 3; order++) decodes(GPU_F16, order);
}

/* Falcon-7B: 71 query heads of one KV head, and other odd groups, over both packs. */
TEST(gpu_attn_decode_of_large_groups)
{
    static const int groups[] = { 71, 64, 9, 16, 17 };
    for (int i = 0; i < 15; i++) {
        struct step t;
        shape(&t, (enum gpu_elt)(i % 3), (int[]){ 64, 128, 80 }[i / 5], 1, groups[i % 5]);
        t.n_seq = 2;
        t.ctx[0] = between(1, 40), t.ctx[1] = between(60, 150);
        t.n_q[0] = t.n_q[1] = 1;
        build(&t, 3 + (uint64_t)i);
        check(&t, 1, "group");
        check(&t, 2, "group");
        drop(&t);
    }
}

/* All splits of one sequence, window or none, agree with none and with the reference. */
TEST(gpu_attn_splits_agree)
{
    for (int i = 0; i < 6; i++) {
        struct step t;
        shape(&t, (enum gpu_elt)(i % 3), i < 3 ? 128 : 64, 1, 4);
        t.window = i % 2 ? 0 : 150;
        t.n_seq = 1;
        t.ctx[0] = between(400, 700);
        t.n_q[0] = 1;
        build(&t, 11);
        run(&t, 1);
        size_t n = (size_t)t.n_row * t.n_head * t.dim;
        float *one = back(&t, t.a.out, n * 4);
        for (int split = 1; split <= GPU_MAX_SPLIT; split += split < 4 ? 1 : split / 2) {
            check(&t, split, "split");
            float *many = back(&t, t.a.out, n * 4);
            double worst = 0;
            for (size_t j = 0; j < n; j++)
                if (t.pos[j / ((size_t)t.n_head * t.dim)] >= 0)
                    worst = fmax(worst, fabs((double)many[j] - (double)one[j]));
            CHECK(worst <= max_bound[t.type]);
            free(many);
        }
        free(one);
        drop(&t);
    }
}

static void prefills(enum gpu_elt type, uint64_t order)
{
    static const int groups[] = { 1, 3, 4, 1, 2, 1 };
    for (int i = 0; i < 6; i++) {
        struct step t;
        shape(&t, type, dims[i], 1, groups[between(0, 5)]);
        t.n_seq = 4;
        for (int s = 0; s < 4; s++) {
            t.n_q[s] = s == 0 ? between(65, 100) : s == 1 ? 0 : between(2, 40);
            t.ctx[s] = t.n_q[s] + (s == 2 ? between(50, 120) : 0);
        }
        build(&t, order);
        check(&t, 1, "prefill");
        drop(&t);
    }
}

TEST(gpu_attn_prefill_of_f32)
{
    for (uint64_t order = 0; order < 3; order++) prefills(GPU_F32, order);
}
TEST(gpu_attn_prefill_of_bf16)
{
    for (uint64_t order = 0; order < 3; order++) prefills(GPU_BF16, order);
}
TEST(gpu_attn_prefill_of_f16)
{
    for (uint64_t order = 0; order < 3; order++) prefills(GPU_F16, order);
}

/* Rows of prompts are not a decode's. */
static void check_not_decoded(struct step *t)
{
    size_t n = (size_t)t->n_head * t->dim;
    float *out = back(t, t->a.out, t->n_row * n * 4);
    for (int s = 0; s < t->n_seq; s++)
        if (t->n_q[s] > 1) CHECK(untouched(out + t->row[s] * n, t->n_q[s] * n * 4));
    free(out);
}

/* Decodes, chunks over a past, sequences that are none, in one step; decode in shares. */
TEST(gpu_attn_mixed_steps)
{
    for (int i = 0; i < 9; i++) {
        struct step t;
        shape(&t, (enum gpu_elt)(i % 3), dims[between(0, 4)], between(1, 2), between(1, 5));
        t.n_seq = 6;
        for (int s = 0; s < 6; s++) {
            t.n_q[s] = s % 3 == 0 ? 1 : s == 4 ? 0 : between(2, 30);
            t.ctx[s] = t.n_q[s] + between(0, 90);
        }
        build(&t, 20 + (uint64_t)i);
        t.a.n_split = i % 2 ? 4 : 1;
        launch(&t, GPU_K_attn_decode);
        if (t.a.n_split > 1) launch(&t, GPU_K_attn_combine);
        int st = t.g->ops->wait(t.g, &e);
        CHECK_TEXT(st ? e.text : "", "");
        check_not_decoded(&t);
        check(&t, t.a.n_split, "mixed");
        drop(&t);
    }
}

/* A sequence whose row is nobody's, a prefill without an image, a decode with nothing but one. */
TEST(gpu_attn_rows_and_results_left_out)
{
    struct step t;
    shape(&t, GPU_BF16, 64, 2, 2);
    t.image_type = GPU_BF16;
    t.n_seq = 3;
    for (int s = 0; s < 3; s++) t.ctx[s] = 30 + 40 * s, t.n_q[s] = s == 1 ? 3 : 1;
    build(&t, 5);
    t.pos[t.row[2]] = -1;
    t.a.s.pos = on(&t, t.pos, (size_t)t.n_row * 4);
    check(&t, 1, "left out");
    check(&t, 8, "left out");

    size_t n = (size_t)t.n_row * t.n_head * t.dim;
    uint16_t *both = back(&t, t.a.image, n * 2);
    void *image = t.a.image;
    float *out = t.a.out;
    t.a.out = NULL;
    t.a.image = filled(&t, UNTOUCHED, n * 2);
    run(&t, 8);
    uint16_t *only = back(&t, t.a.image, n * 2);
    CHECK(memcmp(both, only, n * 2) == 0);
    t.a.image = NULL;
    t.a.out = out;
    run(&t, 1);
    t.a.image = image;
    CHECK(judge(&t) <= 1);
    free(both);
    free(only);
    drop(&t);
}

/* Scores far apart: the largest of a row decides, wherever it stands. */
TEST(gpu_attn_of_large_scores)
{
    for (int type = 0; type < 3; type++) {
        struct step t;
        shape(&t, (enum gpu_elt)type, 64, 1, 1);
        t.window = 0;
        t.n_seq = 2;
        t.ctx[0] = 90, t.n_q[0] = 1;
        t.ctx[1] = 70, t.n_q[1] = 70;
        build(&t, 9);
        int64_t bytes = t.n_row * t.a.ld * 4;
        for (int64_t i = 0; i < t.n_row * t.a.ld; i++) t.q[i] *= 40;
        if (t.g->ops->put(t.g, (void *)(uintptr_t)t.a.q, t.q, (size_t)bytes, &e)) abort();
        run(&t, 1);
        float *out = back(&t, t.a.out, (size_t)t.n_row * t.dim * 4);
        for (int r = 0; r < t.n_row; r++)
            for (int d = 0; t.pos[r] >= 0 && d < t.dim; d++) CHECK(fabsf(out[r * t.dim + d]) < 6);
        free(out);
        if (type == GPU_F32) CHECK(judge(&t) <= 40);
        drop(&t);
    }
}

TEST(gpu_attn_split_fills_the_device)
{
    struct gpu_info h = { .n_sm = 132, .max_shared_bytes = 65536 };
    CHECK_INT(gpu_kern_split(&h, 1, 8, 100), 1);
    CHECK_INT(gpu_kern_split(&h, 1, 8, 511), 1);
    CHECK_INT(gpu_kern_split(&h, 1, 8, 512), 2);
    CHECK_INT(gpu_kern_split(&h, 1, 8, 1 << 20), GPU_MAX_SPLIT);
    CHECK_INT(gpu_kern_split(&h, 1000, 8, 1 << 20), 1);
    for (int i = 0; i < 2000; i++) {
        int n_seq = between(1, 300), n_kv = between(1, 16);
        int64_t ctx = between(1, 40000);
        h.n_sm = between(1, 160);
        int n = gpu_kern_split(&h, n_seq, n_kv, ctx);
        CHECK(n >= 1 && n <= GPU_MAX_SPLIT && (n & (n - 1)) == 0);
        CHECK(n == 1 || ctx / n >= 256);
        /* what could be filled and is not, has no room for another split */
        if (n_seq * n_kv * n < h.n_sm && n < GPU_MAX_SPLIT) CHECK(ctx / (2 * n) < 256);
    }
}

/* All head sizes and groups fit the smallest device that is served, 64 KiB for a block. */
TEST(gpu_attn_fits_a_small_device)
{
    struct gpu_info h = { .n_sm = 40, .max_shared_bytes = 65536 };
    static const int kern[] = { GPU_K_attn_decode, GPU_K_attn_combine, GPU_K_attn_prefill,
                                GPU_K_attn_prefill_f32 };
    for (int dim = 32; dim <= GPU_MAX_HEAD_DIM; dim += 8)
        for (int group = 1; group <= 71; group++)
            for (int type = GPU_F32; type <= GPU_F16; type++)
                for (int k = 0; k < 4; k++) {
                    struct gpu_attn a = {
                        .kv = { .type = type, .n_head = 2, .head_dim = dim, .block_tok = 16 },
                        .n_head = 2 * group,
                        .n_seq = 3,
                        .n_tile = 2,
                        .n_split = 4
                    };
                    struct gpu_dim d;
                    gpu_kern_attn_dim((enum gpu_kern)kern[k], &a, &h, &d);
                    if (d.x < 1 || d.y < 1 || d.z < 1 || d.threads % 32 != 0 || d.threads < 32 ||
                        d.threads > gpu_kern_max_threads((enum gpu_kern)kern[k]) ||
                        d.shared_bytes < 0 || d.shared_bytes > h.max_shared_bytes ||
                        (k < 2 && d.shared_bytes > 48 * 1024))
                        CHECK_TEXT("a launch out of bounds", "");
                }
}
