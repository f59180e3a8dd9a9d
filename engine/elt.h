/* engine/elt.h - number formats of weights and KV cache, and conversion of single values.
 *
 * Fast conversions of whole rows are the kernels' business; these are the definition.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_ELT_H
#define ENGINE_ELT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum elt { ELT_F32, ELT_F16, ELT_BF16, ELT_N };
#define ELT_WORDS "f32 f16 bf16" /* in enum order, for option rows */

static inline size_t elt_bytes(enum elt t)
{
    return t == ELT_F32 ? 4 : 2;
}

static inline const char *elt_name(enum elt t)
{
    return t == ELT_F32 ? "f32" : t == ELT_F16 ? "f16" : "bf16";
}

static inline float elt_f32_of_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t elt_bits_of_f32(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* bf16 is the upper half of an f32. */
static inline float elt_from_bf16(uint16_t b)
{
    return elt_f32_of_bits((uint32_t)b << 16);
}

/* To the nearest, ties to even; a NAN stays one. */
static inline uint16_t elt_to_bf16(float f)
{
    uint32_t u = elt_bits_of_f32(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40u);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

/* IEEE binary16: 1 sign, 5 exponent (bias 15), 10 fraction bits. */
static inline float elt_from_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = h >> 10 & 31u, fraction = h & 0x3ffu;
    if (exponent == 31) return elt_f32_of_bits(sign | 0x7f800000u | fraction << 13);
    if (exponent == 0) {
        float tiny = (float)fraction * 0x1p-24f;
        return sign ? -tiny : tiny;
    }
    return elt_f32_of_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

/* To the nearest, ties to even; past 65504 infinity. */
static inline uint16_t elt_to_f16(float f)
{
    uint32_t u = elt_bits_of_f32(f), sign = u >> 16 & 0x8000u, abs = u & 0x7fffffffu;
    if (abs > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (abs >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* 65520 rounds to infinity */
    if (abs <
        0x38800000u) { /* below 2^-14: adding 0.5 leaves the rounded fraction in the low bits */
        uint32_t sub = elt_bits_of_f32(elt_f32_of_bits(abs) + 0.5f) - 0x3f000000u;
        return (uint16_t)(sign | sub);
    }
    uint32_t rounded = abs + 0xfffu + (abs >> 13 & 1u);
    return (uint16_t)(sign | ((rounded - 0x38000000u) >> 13));
}

/* 8-bit e4m3 of OCP OFP8: 1 sign, 4 exponent (bias 7), 3 fraction bits, no infinity; 0x7f is NAN. To
 * the nearest, ties to even; past 448 saturates. Not of weights in a file: no ELT_ of it. */
static inline uint8_t elt_to_e4m3(float f)
{
    uint32_t u = elt_bits_of_f32(f), sign = u >> 24 & 0x80u, abs = u & 0x7fffffffu;
    if (abs > 0x7f800000u) return (uint8_t)(sign | 0x7fu);
    if (abs >= 0x43e00000u) return (uint8_t)(sign | 0x7eu); /* 448 */
    if (abs < 0x3c800000u) /* below 2^-6: adding 2^14 leaves multiples of 2^-9 in the low bits */
        return (uint8_t)(sign | (elt_bits_of_f32(elt_f32_of_bits(abs) + 0x1p14f) - 0x46800000u));
    uint32_t rounded = abs + 0x7ffffu + (abs >> 20 & 1u);
    return (uint8_t)(sign | ((rounded - 0x3c000000u) >> 20));
}

static inline float elt_from_e4m3(uint8_t b)
{
    uint32_t sign = (uint32_t)(b & 0x80u) << 24, exponent = b >> 3 & 15u, fraction = b & 7u;
    if ((b & 0x7fu) == 0x7fu) return elt_f32_of_bits(sign | 0x7fc00000u);
    if (exponent == 0) {
        float tiny = (float)fraction * 0x1p-9f;
        return sign ? -tiny : tiny;
    }
    return elt_f32_of_bits(sign | (exponent + 120) << 23 | fraction << 20);
}

static inline float elt_get(enum elt t, const void *p, size_t i)
{
    if (t == ELT_F32) return ((const float *)p)[i];
    uint16_t h = ((const uint16_t *)p)[i];
    return t == ELT_F16 ? elt_from_f16(h) : elt_from_bf16(h);
}

static inline void elt_put(enum elt t, void *p, size_t i, float f)
{
    if (t == ELT_F32)
        ((float *)p)[i] = f;
    else
        ((uint16_t *)p)[i] = t == ELT_F16 ? elt_to_f16(f) : elt_to_bf16(f);
}

#endif
