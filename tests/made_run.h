/* tests/made_run.h - run files made by hand: where they say they come from, and their end.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_MADE_RUN_H
#define TESTS_MADE_RUN_H

#include "traces/run.h"

/* Root and /provenance attributes; yaml: of /scenario, NULL: none. */
int made_origin(run *r, const char *title, const char *yaml, struct err *e);
/* Appears where all went well (st ST_OK), else not at all. */
int made_end(run *r, int st, struct err *e);

#endif
