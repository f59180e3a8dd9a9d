/* tests/logits.c - see logits.h. SPDX-License-Identifier: Apache-2.0 */
#include "tests/logits.h"

#include <math.h>

float logits_shaped(int shape, int i, double (*unit)(void), double (*normal)(void))
{
    double x = normal();
    switch (shape) {
    case 0: return (float)(1e-3 * x);                   /* all in one narrow interval */
    case 1: return (float)(2 * x);                      /* flat enough for a cut among many */
    case 2: return (float)(-4 * log(-log(1 - unit()))); /* a few hold nearly all */
    case 3: return 1;                                   /* all equal */
    case 4: return floorf((float)(2 * x));              /* a handful of values */
    case 5: return (float)(i % 5 ? x : 60 + 0.01 * x);  /* two heaps far apart */
    case 6: return i % 3 ? -INFINITY : i % 2 ? NAN : (float)x;
    case 7: return (float)(1e38 * unit() * (i % 2 ? 3 : -3)); /* differences overflow */
    case 8: return i % 2 ? -0.0f : 0.0f;
    default: return (float)(1e-42 * x); /* subnormal */
    }
}
