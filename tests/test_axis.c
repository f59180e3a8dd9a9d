/* tests/test_axis.c - marks of an axis: enough of them to read a scale off, whatever the range.
 * SPDX-License-Identifier: Apache-2.0 */
#include "plots/axis.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/rng.h"
#include "tests/test.h"

/* Marks of a logarithmic axis in v[max]; how many. */
static int marks_of(double from, double to, double *v, int max)
{
    char text[400];
    struct axis x = { .log = true, .from = from, .to = to };
    int n = 0;
    for (char *p = axis_marks(&x, text, sizeof text) + 1, *end; n < max; p = end + 1) {
        v[n] = strtod(p, &end);
        if (end == p) break;
        n++;
        if (*end != ',') break;
    }
    return n;
}

TEST(axis_of_one_point_has_marks)
{
    double v[64];
    struct rng r = rng_stream(3, "axis");
    for (uint64_t i = 0; i < 3000; i++) {
        double from = pow(10, 12 * rng_unit(r, 2 * i) - 6);
        double to = from * (1.02 + pow(10, 4 * rng_unit(r, 2 * i + 1) - 1));
        int n = marks_of(from, to, v, 64);
        if (!CHECK(n >= 3 && n <= 16)) printf("  %g .. %g: %d marks\n", from, to, n);
        for (int k = 0; k < n; k++) {
            CHECK(v[k] >= from * (1 - 1e-5) && v[k] <= to * (1 + 1e-5));
            CHECK(k == 0 || v[k] > v[k - 1]);
        }
    }
}

TEST(axis_marks_are_round)
{
    double v[64];
    CHECK_INT(marks_of(340, 530, v, 64), 4); /* 350, 400, ... */
    CHECK(v[0] == 350 && v[1] == 400 && v[3] == 500);
    CHECK_INT(marks_of(0.9, 5.5, v, 64), 3); /* 1, 2, 5 */
    CHECK(v[2] == 5);
}
