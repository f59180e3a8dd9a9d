/* engine/kern_pack.c - weights into panels of 32 outputs, and a row of them back.
 * SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "engine/kern.h"

enum {
    PANEL = KERN_PANEL,
    RUN = 512
}; /* RUN: k packed at once, so that a panel's lines stay in L1 */

static size_t panel_bytes(const struct kern_mat *w)
{
    size_t k = (size_t)w->k, g = (size_t)w->group;
    if (w->type == KERN_F32) return k * PANEL * 4;
    if (w->type == KERN_BF16) return (k + 1) / 2 * PANEL * 4;
    return (k + g - 1) / g * (PANEL * 2 + g * PANEL);
}

void kern_mat_init(struct kern_mat *w, enum kern_type type, int32_t n, int32_t k, int32_t group)
{
    assert(n > 0 && k > 0 && type != KERN_F16);
    assert(type != KERN_I8 || (group >= 8 && group <= 256 && group % 4 == 0));
    *w = (struct kern_mat){ .type = type, .n = n, .k = k, .group = type == KERN_I8 ? group : 0 };
    w->bytes = ((size_t)n + PANEL - 1) / PANEL * panel_bytes(w);
}

static void put_f32(char *col, const float *x, int32_t n)
{
    for (int32_t i = 0; i < n; i++) memcpy(col + (size_t)i * PANEL * 4, x + i, 4);
}

static void put_bf16(char *col, const float *x, int32_t n)
{
    for (int32_t i = 0; i < n; i += 2) {
        uint16_t pair[2] = { kern_bf16(x[i]), i + 1 < n ? kern_bf16(x[i + 1]) : 0 };
        memcpy(col + (size_t)(i / 2) * PANEL * 4, pair, 4);
    }
}

/* The smallest bf16 that is >= x, x >= 0. */
static uint16_t bf16_up(float x)
{
    uint16_t b = kern_bf16(x);
    return kern_f32(b) < x ? (uint16_t)(b + 1) : b;
}

static float largest(const float *x, int32_t n)
{
    float top = 0; /* fmaxf and rintf would be calls */
    for (int32_t i = 0; i < n; i++) top = fabsf(x[i]) > top ? fabsf(x[i]) : top;
    return top;
}

/* To the nearest integer, ties to even; |x| < 2^22. */
static float nearest(float x)
{
    static const float ones = 0x1.8p23f; /* from here on floats are a whole one apart */
    return x + ones - ones;
}

static void put_group(char *at, int32_t col, const float *x, int32_t n, int32_t group)
{
    float q[256] = { 0 };
    uint16_t scale = bf16_up(largest(x, n) / 127);
    float step = kern_f32(scale);
    memcpy(at + 2 * col, &scale, 2);
    at += PANEL * 2 + 4 * col;
    for (int32_t i = 0; i < n && step > 0; i++) {
        q[i] = x[i] / step;
        q[i] = q[i] < 127 ? q[i] : 127; /* only where x / step is not finite or step tiny */
        q[i] = q[i] > -127 ? q[i] : -127;
    }
    for (int32_t i = 0; i < group; i += 4, at += (size_t)PANEL * 4) {
        uint8_t four[4];
        for (int j = 0; j < 4; j++) four[j] = (uint8_t)((int)nearest(q[i + j]) + 128);
        memcpy(at, four, 4);
    }
}

/* src elements [k0, k0 + n) of one row into column col of a panel. */
static void put_run(const struct kern_mat *w, char *panel, int32_t col, int32_t k0, const float *x,
                    int32_t n)
{
    if (w->type == KERN_F32)
        put_f32(panel + ((size_t)k0 * PANEL + col) * 4, x, n);
    else if (w->type == KERN_BF16)
        put_bf16(panel + ((size_t)(k0 / 2) * PANEL + col) * 4, x, n);
    else
        put_group(panel + (size_t)(k0 / w->group) * (PANEL * 2 + (size_t)w->group * PANEL), col, x,
                  n, w->group);
}

void kern_pack(struct kern_mat *w, int32_t n_at, int32_t n_row, const struct kern_src *src)
{
    float x[RUN];
    int32_t run = w->type == KERN_I8 ? w->group : RUN;
    size_t size = kern_type_bytes(src->type);
    assert(n_at >= 0 && n_row >= 0 && n_at + n_row <= w->n && w->data);
    for (int32_t r0 = 0, r1; r0 < n_row; r0 = r1) {
        int32_t p = (n_at + r0) / PANEL;
        r1 = (p + 1) * PANEL - n_at < n_row ? (p + 1) * PANEL - n_at : n_row;
        char *panel = (char *)w->data + (size_t)p * panel_bytes(w);
        for (int32_t k = 0; k < w->k; k += run) {
            int32_t n = w->k - k < run ? w->k - k : run;
            for (int32_t r = r0; r < r1; r++) {
                const char *at = (const char *)src->data + (size_t)(r * src->ld + k) * size;
                kern_to_f32(x, at, src->type, n);
                put_run(w, panel, (n_at + r) % PANEL, k, x, n);
            }
        }
    }
}

void kern_unpack_row(const struct kern_mat *w, int32_t row, float *out)
{
    assert(row >= 0 && row < w->n);
    const char *p = (const char *)w->data + (size_t)(row / PANEL) * panel_bytes(w);
    size_t col = (size_t)(row % PANEL);
    for (int32_t k = 0; k < w->k; k++) {
        size_t i = (size_t)k, g = (size_t)w->group;
        uint16_t h;
        if (w->type == KERN_F32)
            memcpy(out + k, p + (i * PANEL + col) * 4, 4);
        else if (w->type == KERN_BF16) {
            memcpy(&h, p + (i / 2 * PANEL + col) * 4 + i % 2 * 2, 2);
            out[k] = kern_f32(h);
        } else {
            const char *at = p + i / g * (PANEL * 2 + g * PANEL);
            memcpy(&h, at + 2 * col, 2);
            int q = (uint8_t)at[PANEL * 2 + (i % g / 4 * PANEL + col) * 4 + i % 4];
            out[k] = kern_f32(h) * (float)(q - 128);
        }
    }
}
