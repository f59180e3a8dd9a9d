/* base/stop.c - the flag behind Ctrl-C.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/stop.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>

static atomic_bool asked;

static void on_signal(int sig)
{
    int saved = errno;
    if (atomic_exchange(&asked, true)) {
        signal(sig, SIG_DFL);
        raise(sig); /* delivered when the handler returns */
    }
    errno = saved;
}

void stop_install(void)
{
    struct sigaction act = { .sa_handler = on_signal };
    sigemptyset(&act.sa_mask);
    act.sa_flags = SA_RESTART; /* a library's read or write must not fail half way */
    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
}

bool stop_asked(void)
{
    return atomic_load_explicit(&asked, memory_order_relaxed);
}

void stop_reset(void)
{
    atomic_store(&asked, false);
}
