/* engine/kern.c - which table this CPU runs, and the scalar conversions all tables share.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/kern.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "engine/kern_priv.h"

size_t kern_type_bytes(enum kern_type t)
{
    return t == KERN_F32 ? 4 : t == KERN_I8 ? 1 : 2;
}

uint16_t kern_bf16(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

float kern_f32(uint16_t bf16)
{
    uint32_t u = (uint32_t)bf16 << 16;
    float x;
    memcpy(&x, &u, 4);
    return x;
}

static float half_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, mag = (uint32_t)(h & 0x7fff) << 13, u;
    float x;
    if (mag >= 0x0f800000u)
        u = mag + 0x70000000u; /* exponent 31: infinity or NaN */
    else
        u = mag + 0x38000000u;
    memcpy(&x, &u, 4);
    if (mag < 0x00800000u) x = (float)(h & 0x3ff) * 0x1p-24f; /* zero or subnormal */
    memcpy(&u, &x, 4);
    u |= sign;
    memcpy(&x, &u, 4);
    return x;
}

void kern_to_f32(float *out, const void *src, enum kern_type type, int64_t n)
{
    assert(type != KERN_I8);
    const char *p = src;
    if (type == KERN_F32) {
        memcpy(out, src, (size_t)n * 4);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, p + 2 * i, 2);
        out[i] = type == KERN_BF16 ? kern_f32(h) : half_f32(h);
    }
}

void kern_rope_cs(float *cs, const float *inv_freq, int32_t half, int32_t pos)
{
    for (int32_t i = 0; i < half; i++) {
        double angle = inv_freq[i] * (float)pos; /* in f32, as the models were trained */
        cs[i] = (float)cos(angle);
        cs[half + i] = (float)sin(angle);
    }
}

void kern_add_bias(float *y, int64_t ldy, const float *bias, int32_t m, int32_t n)
{
    for (int32_t i = 0; i < m; i++)
        for (int32_t j = 0; j < n; j++) y[i * ldy + j] += bias[j];
}

/* Its matmul with bf16 weights has bits of its own. */
static bool rounds_x(const struct kern *kern)
{
    return strcmp(kern->name, "avx512_bf16") == 0;
}

double kern_mm_tolerance(const struct kern *kern, enum kern_type type, int32_t k)
{
    if (type == KERN_I8) return KERN_TOL_I8;
    return type == KERN_BF16 && rounds_x(kern) ? 0x1p-8 : 6e-8 * sqrt(k) + 1e-7;
}

void kern_split(int64_t n, int part, int n_part, int64_t *lo, int64_t *hi)
{
    assert(part >= 0 && part < n_part);
    *lo = n * part / n_part;
    *hi = n * (part + 1) / n_part;
}

#if defined(__x86_64__)
static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

static bool has_vnni(void)
{
    return has_avx512() && __builtin_cpu_supports("avx512vnni");
}

static bool has_bf16(void)
{
    return has_vnni() && __builtin_cpu_supports("avx512bf16");
}
#endif

static bool has_always(void)
{
    return true;
}

static const struct {
    const struct kern *kern;
    bool (*has)(void);
} tables[] = {
    { &kern_portable, has_always },
#if defined(__x86_64__)
    { &kern_avx2, has_avx2 },       { &kern_avx512, has_avx512 },
    { &kern_vnni, has_vnni },       { &kern_bf16dp, has_bf16 },
#endif
};
enum { N_TABLE = sizeof tables / sizeof *tables };

const struct kern *kern_best(void)
{
    int best = 0;
    for (int i = 0; i < N_TABLE; i++)
        if (tables[i].has() && !rounds_x(tables[i].kern)) best = i;
    return tables[best].kern;
}

const struct kern *kern_named(const char *name)
{
    for (int i = 0; i < N_TABLE; i++)
        if (!strcmp(tables[i].kern->name, name) && tables[i].has()) return tables[i].kern;
    return NULL;
}

const struct kern *kern_at(int i)
{
    for (int j = 0; j < N_TABLE; j++)
        if (tables[j].has() && i-- == 0) return tables[j].kern;
    return NULL;
}
