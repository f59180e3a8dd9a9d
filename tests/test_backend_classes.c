/* tests/test_backend_classes.c - what products and attention of a step took, of a backend whose calls
 * take as long as the test says. SPDX-License-Identifier: Apache-2.0 */
#include "engine/backend_classes.h"

#include "base/progress.h"
#include "tests/test.h"

struct fake {
    struct backend b;
    int64_t least_ns; /* of a call */
    int mm, attn, adds, closed;
};

static void spend(struct fake *f)
{
    int64_t t0 = clock_mono_ns();
    while (clock_mono_ns() - t0 < f->least_ns)
        ;
}

static void fake_mm(struct backend *b, const struct backend_mm *a)
{
    struct fake *f = (struct fake *)b;
    CHECK(a->m == 3);
    f->mm++;
    spend(f);
}

static void fake_attn(struct backend *b, const struct backend_attn *a)
{
    struct fake *f = (struct fake *)b;
    CHECK(a->n_row == 4);
    f->attn++;
    spend(f);
}

static void fake_add(struct backend *b, float *y, const float *x, int64_t n)
{
    struct fake *f = (struct fake *)b;
    CHECK(y == x && n == 5);
    f->adds++;
    spend(f);
}

static void fake_close(struct backend *b)
{
    struct fake *f = (struct fake *)b;
    f->closed++;
}

/* Two layers of product, attention, product, addition, product. */
TEST(backend_classes_add_up_products_and_attention_alone)
{
    static const struct backend_ops ops = {
        .mm = fake_mm, .attn = fake_attn, .add = fake_add, .close = fake_close
    };
    static const struct backend_ops *const own = &ops;
    struct fake f = { .b = { own }, .least_ns = 20000 };
    struct backend_mm mm = { .m = 3 };
    struct backend_attn attn = { .n_row = 4 };
    struct backend_classes c;
    float x = 0;
    backend_classes_keep(&f.b);
    for (int round = 0; round < 2; round++) {
        int64_t t0 = clock_mono_ns();
        for (int i = 0; i < 2; i++) {
            f.b.ops->mm(&f.b, &mm);
            f.b.ops->attn(&f.b, &attn);
            f.b.ops->mm(&f.b, &mm);
            f.b.ops->add(&f.b, &x, &x, 5);
            f.b.ops->mm(&f.b, &mm);
        }
        int64_t all = clock_mono_ns() - t0;
        backend_classes_take(&f.b, &c);
        CHECK_INT(c.reads, 2 * 7); /* 2 a call, but 3 for attention and what is behind it */
        CHECK(c.gemm_ns >= 6 * f.least_ns && c.attn_ns >= 2 * f.least_ns);
        CHECK(c.gemm_ns + c.attn_ns + 2 * f.least_ns <= all); /* the additions are in neither */
    }
    CHECK_INT(f.mm, 12);
    CHECK_INT(f.attn, 4);
    CHECK_INT(f.adds, 4);
    backend_classes_take(&f.b, &c);
    CHECK_INT(c.gemm_ns + c.attn_ns + c.reads, 0);
    f.b.ops->close(&f.b);
    CHECK_INT(f.closed, 1);
    CHECK(f.b.ops == own);
}
