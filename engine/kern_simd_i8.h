/* engine/kern_simd_i8.h - int8 tiles and the quantising of x, over what kern_simd.h needs and
 *   vi (16 int32), vw (16 x 4 weights), vi_load1 (int32 broadcast), vi_float, vw_load, v_set1_at, v_round8,
 *   vi_dot(acc, w, x) (acc + the 4-term dot of each lane with the 4 X_BYTES-wide x at x)
 * SPDX-License-Identifier: Apache-2.0 */

/* One group of a tile. Its int32 sums have names, and a function of their own, so that they are what
 * the registers hold: gcc stores an array of sums in every round. The tile's acc waits in L1. */
enum { DOT_ROWS = 12 };
struct dots {
    v16 acc[DOT_ROWS][2];
    const char *w, *x; /* of the group; its columns begin at col of the panel */
    const char *next;
    int32_t next_step, group, col;
};
#define EACH_DOT(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
/* Rows past mr stand still, which costs nothing: mr and r are constants. */
#define DOT_BEGIN(r) vi a##r = vi_load1(d->x + 4 * mr + 4 * ((r) < mr ? (r) : 0)), b##r = a##r;
#define DOT_STEP(r)                                                                                \
    if ((r) < mr) {                                                                                \
        a##r = vi_dot(a##r, w0, x + (r)*X_BYTES * group);                                          \
        if (nv == 2) b##r = vi_dot(b##r, w1, x + (r)*X_BYTES * group);                             \
    }
#define DOT_END(r)                                                                                 \
    if ((r) < mr) {                                                                                \
        v16 scale = v_set1_at(d->x + 4 * (r));                                                     \
        d->acc[r][0] = v_fma(v_mul(vi_float(a##r), scale), s0, d->acc[r][0]);                      \
        if (nv == 2) d->acc[r][1] = v_fma(v_mul(vi_float(b##r), scale), s1, d->acc[r][1]);         \
    }

KEEP void dot_group(struct dots *d, int mr, int nv, int32_t group)
{
    const char *x = d->x + 8 * mr, *next = d->next;
    const char *w = d->w + PANEL * 2 + 4 * d->col;
    EACH_DOT(DOT_BEGIN)
    for (int32_t i = 0; i < group; i += 4, w += PANEL * 4, x += 4 * X_BYTES, next += d->next_step) {
        fetch_ahead(next);
        vw w0 = vw_load(w), w1 = vw_load(w + 64 * (nv - 1));
        EACH_DOT(DOT_STEP)
    }
    v16 s0 = v_bf16(d->w + 2 * d->col), s1 = v_bf16(d->w + 2 * d->col + 32 * (nv - 1));
    EACH_DOT(DOT_END)
    d->next = next;
}

/* x of a row panel, per group: { f32 scale[mr]; i32 -128 sum q[mr]; [mr][group] q }. Weights are
 * q + 128, so the sum starts at -128 sum q of x. */
KEEP void tile_i8(const struct kern_tile *t, int mr, int nv, void (*dot)(struct dots *))
{
    const int32_t group = t->group;
    for (int col = 0; col < PANEL; col += 16 * nv) {
        struct dots d;
        d.next = t->next;
        d.next_step = t->next_step;
        d.group = group;
        d.col = col;
        begin(d.acc, t, col, mr, nv);
        for (int32_t g = t->k0 / group; g < (t->k1 + group - 1) / group; g++) {
            d.w = (const char *)t->w + (int64_t)g * (PANEL * 2 + PANEL * group);
            d.x = (const char *)t->x + (int64_t)g * mr * (8 + X_BYTES * group);
            dot(&d);
        }
        finish(d.acc, t, col, mr, nv);
    }
}

/* Groups of 32 and 64 get their own code: a constant distance between rows keeps addresses cheap. */
#define DEFINE_TILE_I8(mr)                                                                         \
    TGT static __attribute__((noinline)) void dot_64_##mr(struct dots *d)                          \
    {                                                                                              \
        dot_group(d, mr, NV_I8(mr), 64);                                                           \
    }                                                                                              \
    TGT static __attribute__((noinline)) void dot_32_##mr(struct dots *d)                          \
    {                                                                                              \
        dot_group(d, mr, NV_I8(mr), 32);                                                           \
    }                                                                                              \
    TGT static __attribute__((noinline)) void dot_any_##mr(struct dots *d)                         \
    {                                                                                              \
        dot_group(d, mr, NV_I8(mr), d->group);                                                     \
    }                                                                                              \
    TGT static void tile_i8_##mr(const struct kern_tile *t)                                        \
    {                                                                                              \
        tile_i8(t, mr, NV_I8(mr),                                                                  \
                t->group == 64   ? dot_64_##mr                                                     \
                : t->group == 32 ? dot_32_##mr                                                     \
                                 : dot_any_##mr);                                                  \
    }
#define NAME_TILE_I8(mr) tile_i8_##mr,
EACH_MR_I8(DEFINE_TILE_I8)
static kern_tile_fn *const tiles_i8[] = { EACH_MR_I8(NAME_TILE_I8) };

/* One group of one row: n values at x, quantised to `group` (the rest 0). */
KEEP void quantise(char *scale_at, char *sum_at, char *q, const float *x, int32_t n, int32_t group)
{
    v16 top = v_zero(), bad = v_zero();
    int32_t sum = 0;
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
    memset(q, 0, (size_t)(X_BYTES * group));
    for (int32_t i = 0; i < n && per > 0; i += 16) {
        v16 v = n - i < 16 ? v_load_n(x + i, n - i) : v_load(x + i);
        int8_t b[16];
        v_round8(b, v_mul(v, v_set1(per)));
        int32_t end = group - i < 16 ? group - i : 16;
        for (int32_t j = 0; j < end; j++) sum += b[j];
        if (X_BYTES == 1)
            memcpy(q + i, b, (size_t)end);
        else
            for (int32_t j = 0; j < end; j += 4) {
                int16_t four[4] = { b[j], b[j + 2], b[j + 1], b[j + 3] };
                memcpy(q + 2 * (i + j), four, 8);
            }
    }
    sum *= -128;
    memcpy(scale_at, &scale, 4);
    memcpy(sum_at, &sum, 4);
}

TGT static void prep_i8(const struct kern_prep *a, int part, int n_part)
{
    int64_t lo, hi, g = a->group, n_group = (a->k + g - 1) / g,
                    row_bytes = n_group * (8 + X_BYTES * g);
    kern_split(n_group, part, n_part, &lo, &hi);
    for (int32_t i = 0, r0 = 0, mr; r0 < a->m; i++, r0 += mr) {
        mr = kern_row_panel(a->m, MR_I8, i, &r0);
        for (int64_t b = lo; b < hi; b++) {
            char *head = (char *)a->xp + r0 * row_bytes + b * mr * (8 + X_BYTES * g);
            for (int32_t r = 0; r < mr; r++)
                quantise(head + 4 * r, head + 4 * mr + 4 * r, head + 8 * mr + r * X_BYTES * g,
                         a->x + (r0 + r) * a->ldx + b * g,
                         (int32_t)(b * g + g <= a->k ? g : a->k - b * g), a->group);
        }
    }
}
