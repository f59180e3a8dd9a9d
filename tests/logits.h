/* tests/logits.h - distributions of logits that a search for the cut of a sampler could stumble over.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_LOGITS_H
#define TESTS_LOGITS_H

enum { LOGITS_SHAPES = 10 };

/* The i-th one of that shape; unit and normal draw. */
float logits_shaped(int shape, int i, double (*unit)(void), double (*normal)(void));

#endif
