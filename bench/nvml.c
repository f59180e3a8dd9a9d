/* bench/nvml.c - see nvml.h. SPDX-License-Identifier: Apache-2.0 */
#include "bench/nvml.h"

#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/arena.h"

enum { CLOCK_SM = 1, SENSOR_GPU = 0 }; /* nvmlClockType_t, nvmlTemperatureSensors_t */

struct nvml {
    struct nvml_api api;
    void *lib, *device;
    pthread_t thread;
    pthread_mutex_t lock; /* of all below */
    bool looking, ends;
    struct points_gpu sum; /* power and clock: sums of the looks */
    int n_power, n_clock;
};

/* Both names: a driver has one or the other. ISO C has no cast from an object's pointer to a
 * function's. */
static void find(void *lib, void *slot, const char *name, const char *older)
{
    void *p = dlsym(lib, name);
    if (!p && older) p = dlsym(lib, older);
    memcpy(slot, &p, sizeof p);
}

static int load(struct nvml *n, struct err *e)
{
    n->lib = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!n->lib)
        return err_set(e, ST_DEVICE,
                       "NVIDIA's management library (libnvidia-ml.so.1) is not installed");
    find(n->lib, &n->api.init, "nvmlInit_v2", "nvmlInit");
    find(n->lib, &n->api.shutdown, "nvmlShutdown", NULL);
    find(n->lib, &n->api.by_bus, "nvmlDeviceGetHandleByPciBusId_v2",
         "nvmlDeviceGetHandleByPciBusId");
    find(n->lib, &n->api.power, "nvmlDeviceGetPowerUsage", NULL);
    find(n->lib, &n->api.clock, "nvmlDeviceGetClockInfo", NULL);
    find(n->lib, &n->api.temperature, "nvmlDeviceGetTemperature", NULL);
    find(n->lib, &n->api.reasons, "nvmlDeviceGetCurrentClocksEventReasons",
         "nvmlDeviceGetCurrentClocksThrottleReasons");
    return ST_OK;
}

static void clear(struct nvml *n)
{
    n->n_power = n->n_clock = 0;
    n->sum = (struct points_gpu){ .power_max_w = NAN, .clock_min_hz = NAN, .temperature_c = NAN };
}

/* fmax and fmin take the number where the other is none. */
static void look(struct nvml *n)
{
    unsigned mw, mhz, celsius;
    unsigned long long bits;
    struct points_gpu *x = &n->sum;
    if (n->api.power && n->api.power(n->device, &mw) == 0) {
        x->power_w += 1e-3 * mw;
        x->power_max_w = fmax(x->power_max_w, 1e-3 * mw);
        n->n_power++;
    }
    if (n->api.clock && n->api.clock(n->device, CLOCK_SM, &mhz) == 0) {
        x->clock_hz += 1e6 * mhz;
        x->clock_min_hz = fmin(x->clock_min_hz, 1e6 * mhz);
        n->n_clock++;
    }
    if (n->api.temperature && n->api.temperature(n->device, SENSOR_GPU, &celsius) == 0)
        x->temperature_c = fmax(x->temperature_c, celsius);
    if (n->api.reasons && n->api.reasons(n->device, &bits) == 0)
        x->slowed |= (int64_t)(bits & INT64_MAX);
    x->looks++;
}

static void *watch(void *arg)
{
    struct nvml *n = arg;
    const struct timespec nap = { .tv_nsec = NVML_EVERY_MS * 1000000L };
    for (bool ends = false; !ends;) {
        pthread_mutex_lock(&n->lock);
        ends = n->ends;
        if (n->looking && !ends) look(n);
        pthread_mutex_unlock(&n->lock);
        if (!ends) nanosleep(&nap, NULL);
    }
    return NULL;
}

static int start(struct nvml *n, const char *bus_id, struct err *e)
{
    if (!n->api.init || !n->api.shutdown || !n->api.by_bus || n->api.init() != 0)
        return err_set(e, ST_DEVICE, "NVIDIA's management library does not start");
    if (n->api.by_bus(bus_id, &n->device) != 0) {
        n->api.shutdown();
        return err_set(e, ST_DEVICE, "NVIDIA's management library knows no GPU at '%.24s'", bus_id);
    }
    pthread_mutex_init(&n->lock, NULL);
    clear(n);
    if (pthread_create(&n->thread, NULL, watch, n) == 0) return ST_OK;
    n->api.shutdown();
    pthread_mutex_destroy(&n->lock);
    return err_set(e, ST_DEVICE, "the system refuses a thread");
}

struct nvml *nvml_open(const char *bus_id, const struct nvml_api *api, struct err *e)
{
    struct nvml *n = mem_zalloc(1, sizeof *n);
    int st = ST_OK;
    if (api)
        n->api = *api;
    else
        st = load(n, e);
    if (st == ST_OK) st = start(n, bus_id, e);
    if (st == ST_OK) return n;
    if (n->lib) dlclose(n->lib);
    free(n);
    return NULL;
}

void nvml_close(struct nvml *n)
{
    if (!n) return;
    pthread_mutex_lock(&n->lock);
    n->ends = true;
    pthread_mutex_unlock(&n->lock);
    pthread_join(n->thread, NULL);
    pthread_mutex_destroy(&n->lock);
    n->api.shutdown();
    if (n->lib) dlclose(n->lib);
    free(n);
}

void nvml_begin(struct nvml *n)
{
    pthread_mutex_lock(&n->lock);
    clear(n);
    n->looking = true;
    pthread_mutex_unlock(&n->lock);
}

void nvml_end(struct nvml *n, struct points_gpu *out)
{
    pthread_mutex_lock(&n->lock);
    if (n->sum.looks == 0) look(n);
    n->looking = false;
    *out = n->sum;
    out->power_w = n->n_power > 0 ? n->sum.power_w / n->n_power : NAN;
    out->clock_hz = n->n_clock > 0 ? n->sum.clock_hz / n->n_clock : NAN;
    pthread_mutex_unlock(&n->lock);
}
