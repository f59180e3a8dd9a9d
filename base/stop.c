/* base/stop.c - the flag behind Ctrl-C.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/stop.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <unistd.h>

enum { MAX_GUARDED = 16 };
static atomic_bool asked;
static atomic_int by; /* the first signal */
static _Atomic(const char *) guarded[MAX_GUARDED];

static void on_signal(int sig)
{
    int saved = errno;
    if (atomic_exchange(&asked, true)) {
        for (int i = 0; i < MAX_GUARDED; i++) {
            const char *path = atomic_load(&guarded[i]);
            if (path) unlink(path);
        }
        signal(sig, SIG_DFL);
        raise(sig); /* delivered when the handler returns */
    } else
        atomic_store(&by, sig);
    errno = saved;
}

void stop_install(void)
{
    struct sigaction act = { .sa_handler = on_signal };
    sigemptyset(&act.sa_mask);
    act.sa_flags = SA_RESTART; /* a library's read or write must not fail half way */
    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
    struct sigaction had;
    if (sigaction(SIGHUP, NULL, &had) == 0 && had.sa_handler != SIG_IGN) /* nohup stays nohup */
        sigaction(SIGHUP, &act, NULL);
    signal(SIGXFSZ, SIG_IGN); /* a file past the limit on its size is a write that fails */
}

bool stop_asked(void)
{
    return atomic_load_explicit(&asked, memory_order_relaxed);
}

const char *stop_by(void)
{
    int sig = atomic_load(&by);
    return sig == SIGINT ? "SIGINT" : sig == SIGTERM ? "SIGTERM" : sig == SIGHUP ? "SIGHUP" : "";
}

void stop_guard(const char *path)
{
    for (int i = 0; i < MAX_GUARDED; i++) {
        const char *none = NULL;
        if (atomic_compare_exchange_strong(&guarded[i], &none, path)) return;
    }
}

void stop_unguard(const char *path)
{
    for (int i = 0; i < MAX_GUARDED; i++) {
        const char *same = path;
        atomic_compare_exchange_strong(&guarded[i], &same, NULL);
    }
}

void stop_reset(void)
{
    atomic_store(&asked, false);
    atomic_store(&by, 0);
}
