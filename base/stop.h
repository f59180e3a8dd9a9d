/* base/stop.h - Ctrl-C as a flag that long loops look at.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_STOP_H
#define BASE_STOP_H

#include <stdbool.h>

/* SIGINT, SIGTERM and SIGHUP (unless ignored, as under nohup) set the flag; a second one kills the
 * process. Writing past the limit on the size of files becomes an error of the write. */
void stop_install(void);
bool stop_asked(void);     /* cheap: one relaxed atomic load */
const char *stop_by(void); /* "SIGTERM": the signal that set it; "" before one has */
void stop_reset(void);     /* for tests */

/* A half-written file that the second signal removes before it kills. The text must live until
 * stop_unguard; files beyond the sixteenth at a time are not removed. */
void stop_guard(const char *path);
void stop_unguard(const char *path);

#endif
