/* base/paths.h - where catalogs, models and plot scripts are found.
 *
 * Looked in, in order: $ORRERY_HOME, the directory of the running program, share/orrery beside that
 * (an installation that was moved), PREFIX/share/orrery (as built), the current directory. SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_PATHS_H
#define BASE_PATHS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/* "scenarios/hardware/gpus.yaml" -> a path that exists, in buf. Errors: ST_IO naming every place.
 * */
int paths_find(const char *relative, char *buf, size_t n, struct err *e);
/* `name` itself if it is a readable file, relative to the directory of `beside` (a file, may be
 * NULL) if that exists; else `under`/`name``suffix` by paths_find. Errors: ST_USAGE, naming every place:
 * the name is the user's. */
int paths_resolve(const char *name, const char *beside, const char *under, const char *suffix,
                  char *buf, size_t n, struct err *e);
int paths_exe_dir(char *buf, size_t n);
const char *paths_installed(void); /* PREFIX/share/orrery, as built */
/* $ORRERY_DATA or ../shared/data: real data that tests and examples use where present. */
const char *paths_data(void);
/* Whether there is a name before that suffix. */
bool paths_ends_in(const char *path, const char *suffix);

#endif
