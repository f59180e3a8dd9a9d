/* engine/nccl_api.c - finds NCCL and the driver.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/nccl_api.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/progress.h"

struct symbol {
    const char *name;
    size_t at; /* of its pointer in the table */
};
#define AT(field) offsetof(struct nccl_api, field)

static const struct symbol of_nccl[] = { { "ncclGetVersion", AT(version) },
                                         { "ncclGetUniqueId", AT(unique_id) },
                                         { "ncclCommInitRankConfig", AT(init) },
                                         { "ncclCommFinalize", AT(finalize) },
                                         { "ncclCommDestroy", AT(destroy) },
                                         { "ncclCommAbort", AT(abort) },
                                         { "ncclCommGetAsyncError", AT(async_error) },
                                         { "ncclGetErrorString", AT(error_string) },
                                         { "ncclGetLastError", AT(last_error) },
                                         { "ncclAllReduce", AT(all_reduce) },
                                         { "ncclAllGather", AT(all_gather) },
                                         { "ncclBroadcast", AT(broadcast) },
                                         { "ncclSend", AT(send) },
                                         { "ncclRecv", AT(recv) } };
static const struct symbol of_driver[] = { { "cuCtxGetStreamPriorityRange", AT(stream_priorities) },
                                           { "cuStreamCreateWithPriority", AT(stream_new) },
                                           { "cuStreamDestroy_v2", AT(stream_free) },
                                           { "cuStreamWaitEvent", AT(stream_wait) },
                                           { "cuEventCreate", AT(event_new) },
                                           { "cuEventDestroy_v2", AT(event_free) },
                                           { "cuEventRecord", AT(event_record) },
                                           { "cuEventQuery", AT(event_query) },
                                           { "cuGetErrorString", AT(cu_error) } };
enum { N_NCCL = sizeof of_nccl / sizeof *of_nccl, N_DRIVER = sizeof of_driver / sizeof *of_driver };

/* NULL, or the first name that is not there. */
static const char *fill(struct nccl_api *a, void *lib, const struct symbol *s, int n)
{
    for (int i = 0; i < n; i++) {
        void *at = dlsym(lib, s[i].name);
        if (!at) return s[i].name;
        memcpy((char *)a + s[i].at, &at, sizeof at); /* POSIX: functions have data's pointers */
    }
    return NULL;
}

int nccl_api_check(const struct nccl_api *a, int *code, struct err *e)
{
    int v = 0;
    if (a->version(&v) != NCCL_API_OK)
        return err_set(e, ST_USAGE, "NCCL does not tell its version");
    if (code) *code = v;
    /* 2.8.4 is 2804, 2.14.3 is 21403: see NCCL_VERSION in nccl.h */
    int major = v < 10000 ? v / 1000 : v / 10000, minor = (v < 10000 ? v % 1000 : v % 10000) / 100;
    if (v < NCCL_API_MIN_VERSION)
        return err_set(e, ST_USAGE,
                       "NCCL %d.%d.%d is too old: 2.14 is the first whose calls need not block",
                       major, minor, v % 100);
    if (major != 2)
        return err_set(e, ST_USAGE, "NCCL %d.%d.%d is too new: its ABI is unknown here", major,
                       minor, v % 100);
    return ST_OK;
}

int nccl_api_load(struct nccl_api *a, struct err *e)
{
    const char *path = getenv("ORRERY_NCCL"), *lacks;
    if (!path || !path[0]) path = "libnccl.so.2";
    void *nccl = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!nccl)
        return err_set(e, ST_USAGE,
                       "no NCCL here (%s): install it (libnccl2), or say where it is with "
                       "ORRERY_NCCL=PATH",
                       dlerror());
    lacks = fill(a, nccl, of_nccl, N_NCCL);
    if (lacks) return err_set(e, ST_USAGE, "%s is no NCCL of 2.14 or later: no %s", path, lacks);
    int st = nccl_api_check(a, NULL, e);
    if (st != ST_OK) return st;
    void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!driver) return err_set(e, ST_USAGE, "no CUDA driver here (%s): NCCL needs one", dlerror());
    lacks = fill(a, driver, of_driver, N_DRIVER);
    if (lacks) return err_set(e, ST_USAGE, "the CUDA driver is too old: no %s", lacks);
    return ST_OK;
}

static int64_t real_now(void *arg)
{
    (void)arg;
    return clock_mono_ns();
}

static void real_nap(void *arg, int64_t ns)
{
    (void)arg;
    nanosleep(&(struct timespec){ .tv_sec = ns / 1000000000, .tv_nsec = (long)(ns % 1000000000) },
              NULL);
}

const struct nccl_clock nccl_clock_real = { real_now, real_nap, NULL };
