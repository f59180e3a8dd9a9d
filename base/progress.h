/* base/progress.h - one status line on stderr with rate and time left; nothing if stderr is no
 * terminal. It is never wider than the terminal: what goes first is detail of `what`. SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_PROGRESS_H
#define BASE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    const char *what; /* "simulate", or details after it: "engine  3 running, 2 waiting"; ASCII */
    const char *unit; /* "requests" */
    double total, done;
    int64_t start_ns, last_ns;
    bool on, shown;
};

/* on: forced by --progress (also without a terminal: one line every 10 s) or, with `force` false,
 * by stderr being a terminal. Shown only once the work has lasted a second. Thread-safe calls are
 * the caller's business: one thread reports. */
void progress_start(struct progress *p, const char *what, const char *unit, double total,
                    bool force);
void progress_at(struct progress *p,
                 double done); /* cheap: looks at the clock every call, prints 5/s */
void progress_at_ns(struct progress *p, double done, int64_t now_ns); /* the same at that instant */
void progress_end(struct progress *p);                                /* wipes the line */

int64_t clock_mono_ns(void); /* CLOCK_MONOTONIC */

#endif
