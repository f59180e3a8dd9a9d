/* plots/outfile.h - a result file that appears whole or not at all.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef PLOTS_OUTFILE_H
#define PLOTS_OUTFILE_H

#include <stddef.h>

#include "base/err.h"

/* Writes PATH.part.<pid>, syncs and renames it; on failure nothing is left. Errors: ST_IO. */
int outfile_write(const char *path, const void *bytes, size_t n, struct err *e);

#endif
