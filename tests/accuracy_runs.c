/* tests/accuracy_runs.c - serving runs measured request by request.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/accuracy.h"

void acc_serving_runs(struct acc *w)
{
    (void)w;
}
