/* engine/kern_portable.c - every kernel as plain loops in the documented order: the slow twin.
 *
 * It shares no blocking and no tile with the vector tables, so that bit equality with them is a
 * test of both. fmaf is one instruction where the target has it (aarch64), else a library call.
 * SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "engine/kern_priv.h"

enum { PANEL = KERN_PANEL };

/* xp: f32[m][k]; with i8 weights [m][group]{ f32 scale; int8 q[group] }. */
static void quantise(float *scale, int8_t *q, const float *x, int32_t n, int32_t group)
{
    float top = 0;
    bool finite = true;
    for (int32_t i = 0; i < n; i++) {
        finite = finite && isfinite(x[i]);
        top = fmaxf(top, fabsf(x[i]));
    }
    memset(q, 0, (size_t)group);
    *scale = 0;
    if (!finite)
        *scale = NAN;
    else if (top >= 1e-30f) {
        *scale = top / 127;
        for (int32_t i = 0; i < n; i++) q[i] = (int8_t)rintf(x[i] * (127 / top));
    }
}

void kern_portable_prep(const struct kern_prep *a, int part, int n_part)
{
    int64_t lo, hi, g = a->type == KERN_I8 ? a->group : 1;
    kern_split((a->k + g - 1) / g, part, n_part, &lo, &hi);
    for (int32_t r = 0; r < a->m; r++)
        for (int64_t b = lo; b < hi; b++) {
            const float *x = a->x + r * a->ldx + b * g;
            int32_t n = (int32_t)(b * g + g <= a->k ? g : a->k - b * g);
            char *to = (char *)a->xp + (r * ((a->k + g - 1) / g) + b) * (g == 1 ? 4 : g + 4);
            float scale;
            if (a->type != KERN_I8)
                memcpy(to, x, 4);
            else {
                quantise(&scale, (int8_t *)to + 4, x, n, a->group);
                memcpy(to, &scale, 4);
            }
        }
}

/* Sum over [k0, k1) of one output; w is its panel, col its column. */
static float dot(const struct kern_mat *w, const char *panel, int32_t col, const char *x,
                 int32_t k0, int32_t k1)
{
    float acc = 0, v, s;
    uint16_t h;
    if (w->type != KERN_I8) {
        for (int32_t k = k0; k < k1; k++) {
            memcpy(&s, x + (size_t)k * 4, 4);
            if (w->type == KERN_F32)
                memcpy(&v, panel + ((size_t)k * PANEL + col) * 4, 4);
            else {
                memcpy(&h, panel + ((size_t)(k / 2) * PANEL + col) * 4 + k % 2 * 2, 2);
                v = kern_f32(h);
            }
            acc = fmaf(s, v, acc);
        }
        return acc;
    }
    int32_t g = w->group;
    assert(g > 0);
    for (int32_t b = k0 / g; b < (k1 + g - 1) / g; b++) {
        const char *wg = panel + (size_t)b * (PANEL * 2 + (size_t)g * PANEL);
        const char *xg = x + (size_t)b * ((size_t)g + 4);
        int32_t sum = 0;
        for (int32_t i = 0; i < g; i++)
            sum += ((uint8_t)wg[PANEL * 2 + (i / 4 * PANEL + col) * 4 + i % 4] - 128) *
                   (int8_t)xg[4 + i];
        memcpy(&s, xg, 4);
        memcpy(&h, wg + 2 * col, 2);
        acc = fmaf((float)sum * s, kern_f32(h), acc);
    }
    return acc;
}

static float tree(const float *s, int32_t n)
{
    return n == 1 ? s[0] : tree(s, n / 2) + tree(s + n / 2, n / 2);
}

void kern_portable_mm(const struct kern_mm *a, int part, int n_part)
{
    const struct kern_mat *w = a->w;
    int32_t n0, n1, long_k = w->k / a->n_slice;
    size_t panel_bytes = w->bytes / (size_t)((w->n + PANEL - 1) / PANEL), g = (size_t)w->group;
    size_t x_bytes = (size_t)w->k * 4;
    assert(kern_slice_ok(w->type, w->group, w->k, a->n_slice));
    if (g) x_bytes = ((size_t)w->k + g - 1) / g * (g + 4);
    kern_mm_range(w->n, part, n_part, &n0, &n1);
    for (int32_t j = n0; j < n1; j++)
        for (int32_t i = 0; i < a->m; i++) {
            const char *panel = (const char *)w->data + (size_t)(j / PANEL) * panel_bytes;
            const char *x = (const char *)a->xp + (size_t)i * x_bytes;
            float s[KERN_MAX_SLICE] = { 0 };
            for (int32_t c = 0; c < a->n_slice; c++)
                s[c] = dot(w, panel, j % PANEL, x, c * long_k,
                           c + 1 < a->n_slice ? (c + 1) * long_k : w->k);
            a->y[i * a->ldy + j] = tree(s, a->n_slice);
        }
}

static float exp_of(float x)
{
    if (isnan(x) || x < KERN_EXP_LO) return isnan(x) ? x : 0;
    x = x < KERN_EXP_HI ? x : KERN_EXP_HI;
    float n = rintf(x * KERN_LOG2E);
    float r = fmaf(n, -KERN_LN2_LOW, fmaf(n, -KERN_LN2_TOP, x)), p = KERN_EXP_C7;
    p = fmaf(p, r, KERN_EXP_C6);
    p = fmaf(p, r, KERN_EXP_C5);
    p = fmaf(p, r, KERN_EXP_C4);
    p = fmaf(p, r, KERN_EXP_C3);
    p = fmaf(p, r, KERN_EXP_C2);
    p = fmaf(p, r, 1);
    p = fmaf(p, r, 1);
    return ldexpf(p, (int)n);
}

/* Lanes i and i + 8, then 4, 2, 1 apart. */
static float lanes_sum(const float lane[16])
{
    float s[16];
    memcpy(s, lane, sizeof s);
    for (int h = 8; h; h /= 2)
        for (int i = 0; i < h; i++) s[i] += s[i + h];
    return s[0];
}

static float kv_elem(const struct kern_kv *kv, const char *at, size_t i)
{
    uint16_t h;
    float f;
    if (kv->type == KERN_BF16) {
        memcpy(&h, at + 2 * i, 2);
        return kern_f32(h);
    }
    memcpy(&f, at + 4 * i, 4);
    return f;
}

static float score(const struct kern_attn_tile *t, const float *q, int32_t pos)
{
    const struct kern_kv *kv = t->a->kv;
    const char *k = kern_kv_at(kv, kv->k, t->s->block[pos / kv->block_tok], t->head);
    int32_t slot = pos % kv->block_tok, dim = kv->head_dim;
    float even = 0, odd = 0;
    for (int32_t d = 0; d < dim; d += 2) {
        size_t at = (size_t)(slot / 8 * 8 * dim + d * 8 + slot % 8 * 2);
        even = fmaf(q[d] * t->a->scale, kv_elem(kv, k, at), even);
        odd = fmaf(q[d + 1] * t->a->scale, kv_elem(kv, k, at + 1), odd);
    }
    return even + odd;
}

static void attn_row(const struct kern_attn_tile *t, const float *q, float *out, int32_t lo,
                     int32_t hi)
{
    const struct kern_kv *kv = t->a->kv;
    float acc[KERN_MAX_HEAD_DIM] = { 0 }, top = -INFINITY, den = 0;
    for (int32_t k0 = lo / KERN_ATTN_KEYS * KERN_ATTN_KEYS; k0 < hi; k0 += KERN_ATTN_KEYS) {
        float s[KERN_ATTN_KEYS], lane[16] = { 0 }, new_top = top;
        int32_t a = k0 < lo ? lo - k0 : 0, b = hi - k0 < KERN_ATTN_KEYS ? hi - k0 : KERN_ATTN_KEYS;
        for (int32_t i = a; i < b; i++) {
            s[i] = score(t, q, k0 + i);
            new_top = s[i] > new_top ? s[i] : new_top;
        }
        float fade = exp_of(top - new_top);
        for (int32_t i = a; i < b; i++) lane[i % 16] += s[i] = exp_of(s[i] - new_top);
        den = fmaf(den, fade, lanes_sum(lane));
        for (int32_t d = 0; d < kv->head_dim; d++) acc[d] *= fade;
        for (int32_t i = a; i < b; i++) {
            int32_t block = t->s->block[(k0 + i) / kv->block_tok];
            size_t at = (size_t)((k0 + i) % kv->block_tok) * (size_t)kv->head_dim;
            const char *v = kern_kv_at(kv, kv->v, block, t->head);
            for (int32_t d = 0; d < kv->head_dim; d++)
                acc[d] = fmaf(s[i], kv_elem(kv, v, at + (size_t)d), acc[d]);
        }
        top = new_top;
    }
    for (int32_t d = 0; d < kv->head_dim; d++) out[d] = acc[d] / den;
}

static void attn_tile(const struct kern_attn_tile *t)
{
    const struct kern_attn *a = t->a;
    int32_t group = a->n_q_head / a->kv->n_head, lo, hi;
    for (int32_t r = t->r0; r < t->r1; r++) {
        int64_t row = t->s->row + r / group;
        int64_t at = (int64_t)(t->head * group + r % group) * a->kv->head_dim;
        kern_attn_seen(t, r, &lo, &hi);
        attn_row(t, a->q + row * a->ldq + at, a->out + row * a->ldo + at, lo, hi);
    }
}

void kern_portable_attn(const struct kern_attn *a, int part, int n_part)
{
    kern_attn_drive(a, part, n_part, attn_tile);
}

void kern_portable_rmsnorm(const struct kern_norm *a, int part, int n_part)
{
    int64_t lo, hi;
    kern_split(a->m, part, n_part, &lo, &hi);
    for (int64_t r = lo; r < hi; r++) {
        const float *x = a->x + r * a->ldx;
        float lane[16] = { 0 };
        for (int32_t i = 0; i < a->n; i++) lane[i % 16] = fmaf(x[i], x[i], lane[i % 16]);
        float per = 1 / sqrtf(lanes_sum(lane) / (float)a->n + a->eps);
        for (int32_t i = 0; i < a->n; i++) a->y[r * a->ldy + i] = x[i] * per * a->weight[i];
    }
}

void kern_portable_layernorm(const struct kern_norm *a, int part, int n_part)
{
    int64_t lo, hi;
    kern_split(a->m, part, n_part, &lo, &hi);
    for (int64_t r = lo; r < hi; r++) {
        const float *x = a->x + r * a->ldx;
        float lane[16] = { 0 }, square[16] = { 0 };
        for (int32_t i = 0; i < a->n; i++) lane[i % 16] += x[i];
        float mean = lanes_sum(lane) / (float)a->n;
        for (int32_t i = 0; i < a->n; i++)
            square[i % 16] = fmaf(x[i] - mean, x[i] - mean, square[i % 16]);
        float per = 1 / sqrtf(lanes_sum(square) / (float)a->n + a->eps);
        for (int32_t i = 0; i < a->n; i++)
            a->y[r * a->ldy + i] =
                fmaf((x[i] - mean) * per, a->weight[i], a->bias ? a->bias[i] : 0);
    }
}

void kern_portable_rope(const struct kern_rope *a, int part, int n_part)
{
    int64_t lo, hi;
    kern_split(a->m, part, n_part, &lo, &hi);
    for (int64_t r = lo; r < hi; r++)
        for (int32_t h = 0; h < a->n_head; h++) {
            float *x = a->x + r * a->ldx + (int64_t)h * a->head_dim;
            const float *c = a->cs + (a->at ? a->at[r] : r) * 2 * a->half, *s = c + a->half;
            for (int32_t i = 0; i < a->half; i++) {
                float u = x[i], v = x[i + a->half];
                x[i] = fmaf(u, c[i], -(v * s[i]));
                x[i + a->half] = fmaf(v, c[i], u * s[i]);
            }
        }
}

void kern_portable_silu_mul(float *y, const float *gate, const float *up, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] = gate[i] / (1 + exp_of(-gate[i])) * up[i];
}

/* |x| < 1: x P(x^2); else 1 - exp(-Q(|x|)), up to |x| = 4 where erf is 1 - 1.6e-8. */
static float erf_of(float x)
{
    static const float p[] = KERN_ERF_P, q[] = KERN_ERF_Q;
    float a = fabsf(x), s = x * x, f;
    if (a < 1) {
        f = p[7];
        for (int i = 6; i >= 0; i--) f = fmaf(f, s, p[i]);
        return f * x;
    }
    a = a > 4 ? 4 : a;
    f = q[8];
    for (int i = 7; i >= 0; i--) f = fmaf(f, a, q[i]);
    return copysignf(1 - exp_of(-f), x);
}

void kern_portable_gelu(float *y, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float h = x[i] * 0.5f;
        y[i] = fmaf(h, erf_of(x[i] * KERN_SQRT1_2), h);
    }
}

/* x/2 (1 + tanh z) = x - x / (1 + e^2z) */
void kern_portable_gelu_tanh(float *y, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float z = KERN_GELU_A * fmaf(x[i] * x[i] * x[i], KERN_GELU_B, x[i]);
        y[i] = x[i] - x[i] / (1 + exp_of(z + z));
    }
}

void kern_portable_add(float *y, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] += x[i];
}

void kern_portable_exp_from(float *y, const float *x, int64_t n, const float by[2])
{
    for (int64_t i = 0; i < n; i++) {
        float v = (x[i] - by[0]) * by[1];
        y[i] = v >= KERN_EXP_LO ? exp_of(v) : 0;
    }
}

float kern_portable_largest(const float *x, int64_t n)
{
    float top = -INFINITY;
    for (int64_t i = 0; i < n; i++) top = x[i] > top ? x[i] : top;
    return top;
}

/* Of one block, where x >= at. */
static float sum_from(const float *w, const float *x, int64_t n, float at)
{
    float lane[16] = { 0 };
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) /* without a branch, for the compiler to vectorise */
        for (int j = 0; j < 16; j++) lane[j] += x[i + j] < at ? 0 : w[i + j];
    for (; i < n; i++) lane[i % 16] += x[i] < at ? 0 : w[i];
    return lanes_sum(lane);
}

void kern_portable_mass_from(double mass[KERN_N_FROM], const float *w, const float *x, int64_t n,
                             const float at[KERN_N_FROM])
{
    for (int j = 0; j < KERN_N_FROM; j++) {
        mass[j] = 0;
        for (int64_t i = 0; i < n; i += KERN_SUM_BLOCK) {
            int64_t len = n - i < KERN_SUM_BLOCK ? n - i : KERN_SUM_BLOCK;
            mass[j] += (double)sum_from(w + i, x + i, len, at[j]);
        }
    }
}

void kern_portable_keep_from(float *sum, float *w, const float *x, int64_t n, float at)
{
    for (int64_t i = 0; i < n; i += KERN_SUM_BLOCK) {
        int64_t len = n - i < KERN_SUM_BLOCK ? n - i : KERN_SUM_BLOCK;
        *sum++ = sum_from(w + i, x + i, len, at);
        for (int64_t j = i; j < i + len; j++) w[j] = x[j] < at ? 0 : w[j];
    }
}

uint64_t kern_portable_read(const void *p, size_t n)
{
    uint64_t sum[4] = { 0 }, part[4], rest = 0;
    size_t i = 0;
    for (; i + sizeof part <= n; i += sizeof part) {
        memcpy(part, (const char *)p + i, sizeof part);
        for (int j = 0; j < 4; j++) sum[j] += part[j];
    }
    for (; i < n; i++) rest += ((const unsigned char *)p)[i];
    return sum[0] + sum[1] + sum[2] + sum[3] + rest;
}

double kern_portable_peak(enum kern_peak what, int64_t times)
{
    float acc[16] = { 0 };
    volatile float sink;
    if (what != KERN_PEAK_FMA) return 0;
    for (int64_t t = 0; t < times; t++)
        for (int i = 0; i < 16; i++) acc[i] = fmaf(acc[i], 0.5f, 1.0f);
    sink = lanes_sum(acc);
    (void)sink;
    return 32.0 * (double)times;
}

const struct kern kern_portable = {
    .name = "portable",
    .prep = kern_portable_prep,
    .mm = kern_portable_mm,
    .attn = kern_portable_attn,
    .rmsnorm = kern_portable_rmsnorm,
    .layernorm = kern_portable_layernorm,
    .rope = kern_portable_rope,
    .silu_mul = kern_portable_silu_mul,
    .gelu = kern_portable_gelu,
    .gelu_tanh = kern_portable_gelu_tanh,
    .add = kern_portable_add,
    .exp_from = kern_portable_exp_from,
    .largest = kern_portable_largest,
    .mass_from = kern_portable_mass_from,
    .keep_from = kern_portable_keep_from,
    .read = kern_portable_read,
    .peak = kern_portable_peak,
};
