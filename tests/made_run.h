/* tests/made_run.h - run files made by hand: where they say they come from.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_MADE_RUN_H
#define TESTS_MADE_RUN_H

#include "traces/run.h"

/* Root and /provenance attributes; yaml: of /scenario, NULL: none. */
int made_origin(run *r, const char *title, const char *yaml, struct err *e);

#endif
