/* engine/kern_mm.c - blocks a packed matmul into tiles; what the vector tables share of it.
 * SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <string.h>

#include "engine/kern_priv.h"

/* Rows, panels and k worked on at once: x of a block is 480 KB (half of an L2), a panel's run 32 KB
 * of f32 or int8, 16 KB of bf16 (an L1, with x of a row panel). A small m goes panel by panel, so
 * that its weights stream. AHEAD_BYTES: how far in front of use they are asked for, some 100 ns of
 * one row's; AHEAD_MANY: of int8 for many rows, where reading has to go on beside the arithmetic. */
enum {
    PANEL = KERN_PANEL,
    BLOCK_ROW = 480,
    BLOCK_PANEL = 8,
    RUN = 256,
    RUN_I8 = 1024,
    SMALL_M = 32,
    MAX_DEPTH = 5,
    AHEAD_BYTES = 4096,
    AHEAD_MANY = 12288
};

static int32_t min32(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

size_t kern_xp_bytes(enum kern_type type, int32_t group, int32_t m, int32_t k)
{
    size_t n_group = type == KERN_I8 ? (size_t)(k + group - 1) / (size_t)group : 0;
    /* the widest form of any table, so that the answer does not depend on it */
    size_t row = type == KERN_I8 ? n_group * (8 + 2 * (size_t)group) : ((size_t)k + 31) / 32 * 128;
    return (size_t)m * row;
}

static int32_t depth_of(int32_t n_slice)
{
    int32_t d = 0;
    while (n_slice >> (d + 1)) d++;
    return d;
}

/* Partial sums of the tree (one level per depth), and one panel for the last, padded one. */
size_t kern_mm_tmp_bytes(int32_t m, int32_t n_slice)
{
    size_t row = (size_t)min32(m, BLOCK_ROW), panel = m <= SMALL_M ? 1 : BLOCK_PANEL;
    return ((size_t)depth_of(n_slice) * panel + 1) * row * PANEL * sizeof(float);
}

bool kern_slice_ok(enum kern_type type, int32_t group, int32_t k, int32_t n_slice)
{
    int32_t unit = type == KERN_I8 ? group : type == KERN_BF16 ? 2 : 1;
    if (n_slice < 1 || n_slice > KERN_MAX_SLICE || (n_slice & (n_slice - 1))) return false;
    return n_slice == 1 || k % (n_slice * unit) == 0;
}

void kern_mm_range(int32_t n, int part, int n_part, int32_t *n0, int32_t *n1)
{
    int64_t lo, hi;
    kern_split((n + PANEL - 1) / PANEL, part, n_part, &lo, &hi);
    *n0 = min32((int32_t)lo * PANEL, n);
    *n1 = min32((int32_t)hi * PANEL, n);
}

int32_t kern_row_panel(int32_t m, int32_t mr_max, int32_t i, int32_t *r0)
{
    int32_t count = (m + mr_max - 1) / mr_max, rows = m / count, more = m % count;
    *r0 = i * rows + min32(i, more);
    return rows + (i < more);
}

size_t kern_x_row_bytes(const struct kern_tiles *ts, enum kern_type type, int32_t group, int32_t k)
{
    if (type == KERN_I8)
        return (size_t)((k + group - 1) / group) * (size_t)(8 + ts->x_bytes * group);
    if (type == KERN_BF16 && ts->x_bf16) return (size_t)(k + 31) / 32 * 64;
    return (size_t)(k + 15) / 16 * 64;
}

void kern_prep_f32(const struct kern_prep *a, int part, int n_part, int32_t mr_max)
{
    int64_t lo, hi;
    size_t row_bytes = (size_t)(a->k + 15) / 16 * 64;
    kern_split((a->k + 15) / 16, part, n_part, &lo, &hi);
    for (int32_t i = 0, r0 = 0, mr; r0 < a->m; i++, r0 += mr) {
        mr = kern_row_panel(a->m, mr_max, i, &r0);
        char *to = (char *)a->xp + (size_t)r0 * row_bytes;
        for (int64_t b = lo; b < hi; b++) {
            size_t n = (size_t)(b * 16 + 16 <= a->k ? 16 : a->k - b * 16);
            for (int32_t r = 0; r < mr; r++) {
                float run[16] = { 0 };
                memcpy(run, a->x + (r0 + r) * a->ldx + b * 16, n * 4);
                memcpy(to + (b * mr + r) * 64, run, 64);
            }
        }
    }
}

/* One call's constants and where it stands. */
struct walk {
    const struct kern_mm *a;
    const struct kern_tiles *ts;
    size_t panel_bytes, x_row_bytes;
    int32_t mr_max, run; /* rows of a tile; k of one visit to a panel */
    int32_t rp0, rp1;    /* row panels of the block, beginning at row `row`, n_row of them */
    int32_t row, n_row;
    int32_t p0, p1; /* its panels of w */
    bool apart;     /* sums of a panel lie in tmp, not in y */
};

/* Level 0 is y itself, but for a padded panel and, so that sums lie close together, where panels with
 * slices go one by one; deeper ones hold slices that wait for their pair. */
static float *level(const struct walk *s, int32_t depth, int32_t panel, int64_t *ld)
{
    float *tmp = s->a->tmp;
    bool padded = (panel + 1) * PANEL > s->a->w->n;
    if (depth == 0 && !padded && !s->apart) {
        *ld = s->a->ldy;
        return s->a->y + s->row * s->a->ldy + (int64_t)panel * PANEL;
    }
    *ld = PANEL;
    if (depth == 0) return tmp;
    int32_t wide = s->a->m <= SMALL_M ? 1 : BLOCK_PANEL;
    return tmp + (1 + (int64_t)(depth - 1) * wide + panel - s->p0) * s->n_row * PANEL;
}

static void add_level(const struct walk *s, int32_t depth)
{
    for (int32_t p = s->p0; p < s->p1; p++) {
        int64_t ld_to, ld_from;
        float *to = level(s, depth - 1, p, &ld_to), *from = level(s, depth, p, &ld_from);
        if (ld_to == PANEL) {
            s->ts->add(to, from, (int64_t)s->n_row * PANEL);
            continue;
        }
        for (int32_t r = 0; r < s->n_row; r++)
            s->ts->add(to + r * ld_to, from + r * ld_from, PANEL);
    }
}

static int64_t bytes_of(const struct kern_mat *w, int32_t k)
{
    if (w->type == KERN_I8) return (int64_t)(k / w->group) * PANEL * (2 + w->group);
    return (int64_t)k * PANEL * (w->type == KERN_F32 ? 4 : 2);
}

/* Has tile t of panel p and row panel i ask for the weights that come next. A lone row panel
 * streams: the lines a little further on. Else the first two of a run's row panels ask for half each
 * of the next run, which so arrives under the arithmetic of all; the others name a line they have. */
static void look_ahead(const struct walk *s, struct kern_tile *t, int32_t p, int32_t i)
{
    const char *here = (const char *)t->w + bytes_of(s->a->w, t->k0);
    int64_t run = bytes_of(s->a->w, t->k1 - t->k0), back = (p - s->p0) * (int64_t)s->panel_bytes;
    t->next = t->x;
    t->next_step = 0;
    if (s->rp1 - s->rp0 == 1) {
        t->next = here + (s->a->w->type == KERN_I8 && s->a->m > 1 ? AHEAD_MANY : AHEAD_BYTES);
        t->next_step = 128;
    } else if (i < s->rp0 + 2) {
        t->next = p + 1 < s->p1 ? here + s->panel_bytes : here - back + run;
        t->next += (i - s->rp0) * run / 2;
        t->next_step = 64;
    }
}

static void slice(const struct walk *s, int32_t depth, int32_t k0, int32_t k1)
{
    const struct kern_mm *a = s->a;
    enum kern_type type = a->w->type;
    for (int32_t k = k0; k < k1; k += s->run) {
        for (int32_t p = s->p0; p < s->p1; p++) {
            int64_t ld;
            float *c = level(s, depth, p, &ld);
            struct kern_tile t = { .w = (const char *)a->w->data + (size_t)p * s->panel_bytes,
                                   .ldc = ld,
                                   .k0 = k,
                                   .k1 = min32(k1, k + s->run),
                                   .group = a->w->group,
                                   .cont = k > k0 };
            for (int32_t i = s->rp0; i < s->rp1; i++) {
                int32_t r0, mr = kern_row_panel(a->m, s->mr_max, i, &r0);
                t.x = (const char *)a->xp + (size_t)r0 * s->x_row_bytes;
                t.c = c + (r0 - s->row) * ld;
                t.mr = mr;
                look_ahead(s, &t, p, i);
                (type == KERN_I8 ? s->ts->i8 : s->ts->of[type].fn[mr - 1])(&t);
            }
        }
    }
}

static void block(const struct walk *s)
{
    const struct kern_mm *a = s->a;
    int32_t long_k = a->w->k / a->n_slice, depth = 0;
    for (int32_t i = 0; i < a->n_slice; i++) {
        int32_t k0 = i * long_k;
        slice(s, depth, k0, i + 1 < a->n_slice ? k0 + long_k : a->w->k);
        depth++;
        for (int32_t done = i; done & 1; done >>= 1) add_level(s, --depth);
    }
    if (s->apart || s->p1 * PANEL > a->w->n) {
        int64_t ld;
        const float *from = level(s, 0, s->p1 - 1, &ld);
        int32_t j0 = (s->p1 - 1) * PANEL, n = min32(PANEL, a->w->n - j0);
        for (int32_t r = 0; r < s->n_row; r++)
            memcpy(a->y + (s->row + r) * a->ldy + j0, from + r * ld, (size_t)n * 4);
    }
}

void kern_mm_drive(const struct kern_mm *a, int part, int n_part, const struct kern_tiles *ts)
{
    const struct kern_mat *w = a->w;
    struct walk s = { .a = a, .ts = ts };
    int64_t lo, hi;
    assert(a->m > 0 && a->tmp && kern_slice_ok(w->type, w->group, w->k, a->n_slice));
    kern_split((w->n + PANEL - 1) / PANEL, part, n_part, &lo, &hi);
    s.mr_max = w->type == KERN_I8 ? kern_rows_i8(a->m) : ts->of[w->type].mr_max;
    s.panel_bytes = w->bytes / (size_t)((w->n + PANEL - 1) / PANEL);
    s.x_row_bytes = kern_x_row_bytes(ts, w->type, w->group, w->k);
    int32_t n_rp = (a->m + s.mr_max - 1) / s.mr_max, wide = a->m <= SMALL_M ? 1 : BLOCK_PANEL;
    s.apart = wide == 1 && a->n_slice > 1;
    s.run = n_rp == 1 ? w->k : w->type == KERN_I8 ? RUN_I8 / w->group * w->group : RUN;
    int32_t n_block = (n_rp * s.mr_max + BLOCK_ROW - 1) / BLOCK_ROW;
    int32_t rp_block = (n_rp + n_block - 1) / n_block;
    for (s.rp0 = 0; s.rp0 < n_rp; s.rp0 = s.rp1) {
        s.rp1 = min32(n_rp, s.rp0 + rp_block);
        int32_t last, n = kern_row_panel(a->m, s.mr_max, s.rp1 - 1, &last);
        kern_row_panel(a->m, s.mr_max, s.rp0, &s.row);
        s.n_row = last + n - s.row;
        for (s.p0 = (int32_t)lo; s.p0 < hi; s.p0 = s.p1) {
            s.p1 = min32((int32_t)hi, s.p0 + wide);
            block(&s);
        }
    }
}
