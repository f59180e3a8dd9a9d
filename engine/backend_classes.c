/* engine/backend_classes.c - see backend_classes.h. SPDX-License-Identifier: Apache-2.0 */
#include "engine/backend_classes.h"

#include <stdlib.h>

#include "base/arena.h"
#include "base/progress.h"

struct classes {
    struct backend_ops ops; /* first: b->ops leads here */
    const struct backend_ops *in;
    struct backend_classes sum;
    int64_t attn_end_ns; /* 0: something else has run since */
};

static struct classes *classes_of(const struct backend *b)
{
    return (struct classes *)(uintptr_t)b->ops;
}

static int64_t look(struct classes *c)
{
    c->sum.reads++;
    return clock_mono_ns();
}

static void classes_mm(struct backend *b, const struct backend_mm *a)
{
    struct classes *c = classes_of(b);
    int64_t t0 = c->attn_end_ns ? c->attn_end_ns : look(c);
    c->in->mm(b, a);
    c->sum.gemm_ns += look(c) - t0;
    c->attn_end_ns = 0;
}

static void classes_attn(struct backend *b, const struct backend_attn *a)
{
    struct classes *c = classes_of(b);
    int64_t t0 = look(c);
    c->in->attn(b, a);
    c->attn_end_ns = look(c);
    c->sum.attn_ns += c->attn_end_ns - t0;
}

static void classes_close(struct backend *b)
{
    struct classes *c = classes_of(b);
    b->ops = c->in;
    free(c);
    b->ops->close(b);
}

void backend_classes_keep(struct backend *b)
{
    struct classes *c = mem_zalloc(1, sizeof *c);
    c->in = b->ops;
    c->ops = *b->ops;
    c->ops.mm = classes_mm;
    c->ops.attn = classes_attn;
    c->ops.close = classes_close;
    b->ops = &c->ops;
}

void backend_classes_take(struct backend *b, struct backend_classes *out)
{
    struct classes *c = classes_of(b);
    *out = c->sum;
    c->sum = (struct backend_classes){ 0 };
    c->attn_end_ns = 0;
}
