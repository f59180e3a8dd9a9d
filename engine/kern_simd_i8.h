/* engine/kern_simd_i8.h - int8 tiles and the quantising of x, over what kern_simd.h needs and
 *   vi (16 int32), vw (16 x 4 weights), vi_load1 (int32 broadcast), vi_float, vw_load, v_set1_at, v_round8,
 *   vi_dot(acc, w, x) (acc + the 4-term dot of each lane with the 4 X_BYTES-wide x at x)
 * SPDX-License-Identifier: Apache-2.0 */

/* One group of one share of a tile's rows. Its int32 sums have names, and a function of their own, so
 * that they are what the registers hold: gcc stores an array of sums in every round. The tile's acc
 * waits in L1. */
enum { DOT_ROWS = 6 };
struct dots {
    v16 (*acc)[2];
    const char *w;               /* of the group; its columns begin at col of the panel */
    const char *scale, *sum, *q; /* of the share's first row */
    const char *next;
    int32_t next_step, group, col;
};
#define EACH_DOT(X) X(0) X(1) X(2) X(3) X(4) X(5)
/* Rows past mr stand still, which costs nothing: mr and r are constants. */
#define DOT_BEGIN(r) vi a##r = vi_load1(d->sum + 4 * ((r) < mr ? (r) : 0)), b##r = a##r;
#define DOT_STEP(r)                                                                                \
    if ((r) < mr) {                                                                                \
        a##r = vi_dot(a##r, w0, x + (r)*X_BYTES * group);                                          \
        if (nv == 2) b##r = vi_dot(b##r, w1, x + (r)*X_BYTES * group);                             \
    }
#define DOT_END(r)                                                                                 \
    if ((r) < mr) {                                                                                \
        v16 scale = v_set1_at(d->scale + 4 * (r));                                                 \
        acc[r][0] = v_fma(v_mul(vi_float(a##r), scale), s0, acc[r][0]);                            \
        if (nv == 2) acc[r][1] = v_fma(v_mul(vi_float(b##r), scale), s1, acc[r][1]);               \
    }

KEEP void dot_group(const struct dots *d, int mr, int nv, int32_t group)
{
    const char *x = d->q, *next = d->next;
    const char *w = d->w + PANEL * 2 + 4 * d->col;
    v16(*acc)[2] = d->acc;
    EACH_DOT(DOT_BEGIN)
    for (int32_t i = 0; i < group; i += 4, w += PANEL * 4, x += 4 * X_BYTES, next += d->next_step) {
        fetch_ahead(next);
        vw w0 = vw_load(w), w1 = vw_load(w + 64 * (nv - 1));
        EACH_DOT(DOT_STEP)
    }
    v16 s0 = v_bf16(d->w + 2 * d->col), s1 = v_bf16(d->w + 2 * d->col + 32 * (nv - 1));
    EACH_DOT(DOT_END)
}

/* Groups of 32 and 64 get their own code: a constant distance between rows keeps addresses cheap. */
#define DEFINE_DOT(mr)                                                                             \
    TGT static __attribute__((noinline)) void dot_64_##mr(const struct dots *d)                    \
    {                                                                                              \
        dot_group(d, mr, NV_I8, 64);                                                               \
    }                                                                                              \
    TGT static __attribute__((noinline)) void dot_32_##mr(const struct dots *d)                    \
    {                                                                                              \
        dot_group(d, mr, NV_I8, 32);                                                               \
    }                                                                                              \
    TGT static __attribute__((noinline)) void dot_any_##mr(const struct dots *d)                   \
    {                                                                                              \
        dot_group(d, mr, NV_I8, d->group);                                                         \
    }
#define NAME_DOT(mr) { dot_any_##mr, dot_32_##mr, dot_64_##mr },
EACH_MR_I8(DEFINE_DOT)
static void (*const dot_fns[][3])(const struct dots *) = { EACH_MR_I8(NAME_DOT) };

/* x of a row panel, per group: { f32 scale[mr]; i32 -128 sum q[mr]; [mr][group] q }. Weights are
 * q + 128, so the sum starts at -128 sum q of x. The rows take a group in equal shares of MR_I8 at
 * most, so that weights come from afar once and from L1 thereafter; of what to ask for ahead the
 * first two shares see to a half each. */
TGT static void tile_i8(const struct kern_tile *t)
{
    const int32_t group = t->group, mr = t->mr, n_share = (mr + MR_I8 - 1) / MR_I8;
    const int64_t w_bytes = PANEL * 2 + PANEL * group, x_bytes = mr * (8 + X_BYTES * group);
    const int kind = group == 64 ? 2 : group == 32;
    v16 acc[KERN_ROWS_I8][2];
    for (int col = 0; col < PANEL; col += 16 * NV_I8) {
        struct dots d = { .group = group, .col = col };
        for (int32_t r = 0; r < mr; r++)
            for (int v = 0; v < NV_I8; v++)
                acc[r][v] = t->cont ? v_load(t->c + r * t->ldc + col + v * 16) : v_zero();
        d.acc = acc;
        d.next = t->next;
        d.next_step = t->next_step;
        int32_t g0 = t->k0 / group, g1 = (t->k1 + group - 1) / group;
        /* A lone share is so little that what is around it shows. */
        for (int32_t g = g0; n_share == 1 && g < g1; g++) {
            d.w = (const char *)t->w + g * w_bytes;
            d.scale = (const char *)t->x + g * x_bytes;
            d.sum = d.scale + 4 * mr;
            d.q = d.sum + 4 * mr;
            dot_fns[mr - 1][kind](&d);
            d.next += group / 4 * t->next_step;
        }
        for (int32_t g = g0; n_share > 1 && g < g1; g++) {
            const char *x = (const char *)t->x + g * x_bytes;
            const char *next = t->next + (g - g0) * w_bytes * t->next_step / 128;
            d.w = (const char *)t->w + g * w_bytes;
            for (int32_t i = 0, r = 0, rows; i < n_share; i++, r += rows) {
                rows = (mr - r) / (n_share - i);
                d.acc = acc + r;
                d.scale = x + 4 * r;
                d.sum = d.scale + 4 * mr;
                d.q = x + 8 * mr + r * X_BYTES * group;
                d.next = i < 2 ? next + i * (group / 4 * t->next_step / 2) : x;
                d.next_step = i < 2 ? t->next_step / 2 : 0;
                dot_fns[rows - 1][kind](&d);
            }
        }
        for (int32_t r = 0; r < mr; r++)
            for (int v = 0; v < NV_I8; v++) v_store(t->c + r * t->ldc + col + v * 16, acc[r][v]);
    }
}

/* One group of one row: n values at x, quantised to `group` (the rest 0). */
KEEP void quantise(char *scale_at, char *sum_at, char *q, const float *x, int32_t n, int32_t group)
{
    v16 top = v_zero(), bad = v_zero(), total = v_zero();
    float scale = 0, per = 0;
    for (int32_t i = 0; i < n; i += 16) {
        v16 v = n - i < 16 ? v_load_n(x + i, n - i) : v_load(x + i);
        top = v_max(v_abs(v), top);
        bad = v_add(bad, v_sub(v, v)); /* NaN if v is not finite */
    }
    float most = v_top(top), odd = v_sum(bad);
    if (odd != 0)
        scale = NAN;
    else if (most >= 1e-30f) {
        scale = most / 127;
        per = 127 / most;
    }
    if (n < group || per == 0) memset(q, 0, (size_t)(X_BYTES * group));
    for (int32_t i = 0; i < n && per > 0; i += 16) {
        v16 v = n - i < 16 ? v_load_n(x + i, n - i) : v_load(x + i);
        int8_t b[16];
        v = v_rint(v_mul(v, v_set1(per)));
        v_round8(b, v);
        total = v_add(total, v); /* exact: below 2^24 */
        int32_t end = group - i < 16 ? group - i : 16;
        if (X_BYTES == 1 && end == 16)
            memcpy(q + i, b, 16);
        else if (X_BYTES == 1)
            memcpy(q + i, b, (size_t)end);
        else
            for (int32_t j = 0; j < end; j += 4) {
                int16_t four[4] = { b[j], b[j + 2], b[j + 1], b[j + 3] };
                memcpy(q + 2 * (i + j), four, 8);
            }
    }
    int32_t sum = -128 * (int32_t)v_sum(total);
    memcpy(scale_at, &scale, 4);
    memcpy(sum_at, &sum, 4);
}

TGT static void prep_i8(const struct kern_prep *a, int part, int n_part)
{
    int64_t lo, hi, g = a->group, n_group = (a->k + g - 1) / g,
                    row_bytes = n_group * (8 + X_BYTES * g);
    kern_split(n_group, part, n_part, &lo, &hi);
    for (int32_t i = 0, r0 = 0, mr; r0 < a->m; i++, r0 += mr) {
        mr = kern_row_panel(a->m, kern_rows_i8(a->m), i, &r0);
        for (int32_t r = 0; r < mr; r++)
            for (int64_t b = lo; b < hi; b++) {
                char *head = (char *)a->xp + r0 * row_bytes + b * mr * (8 + X_BYTES * g);
                quantise(head + 4 * r, head + 4 * mr + 4 * r, head + 8 * mr + r * X_BYTES * g,
                         a->x + (r0 + r) * a->ldx + b * g,
                         (int32_t)(b * g + g <= a->k ? g : a->k - b * g), a->group);
            }
    }
}
