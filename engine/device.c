/* engine/device.c - see device.h. SPDX-License-Identifier: Apache-2.0 */
#include "engine/device.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_INDEX = 1023 };

int device_parse(const char *text, struct device *out, struct err *e)
{
    char *end;
    out->first = 0;
    out->kind = DEVICE_CPU;
    if (strcmp(text, "cpu") == 0) return ST_OK;
    out->kind = DEVICE_CUDA;
    if (strcmp(text, "cuda") == 0) return ST_OK;
    if (strncmp(text, "cuda:", 5) == 0 && text[5] >= '0' && text[5] <= '9') {
        long n = strtol(text + 5, &end, 10);
        out->first = (int)n;
        if (!*end && n <= MAX_INDEX) return ST_OK;
    }
    return err_set(e, ST_USAGE, "--device: '%.40s' is not one of cpu, cuda, cuda:N with N 0 to %d",
                   text, MAX_INDEX);
}

int device_options(const char *text, bool share, enum device_link link, struct device *out,
                   struct err *e)
{
    int st = device_parse(text, out, e);
    out->share = share;
    out->link = link;
    if (st != ST_OK || out->kind != DEVICE_CPU) return st;
    if (share)
        return err_set(e, ST_USAGE,
                       "--share-device is for GPUs, and the device is cpu (--device=cuda)");
    if (link != DEVICE_LINK_AUTO)
        return err_set(e, ST_USAGE,
                       "--exchange is for GPUs, and the device is cpu "
                       "(--device=cuda)");
    return ST_OK;
}

static int count_of(const struct device *d, struct err *e)
{
    return d->count ? d->count(e) : gpu_cuda_count(e);
}

int device_check(const struct device *d, int n, struct err *e)
{
    struct err why = { 0 };
    if (d->kind == DEVICE_CPU) return ST_OK;
    int there = count_of(d, &why);
    if (there < 1) return err_set(e, ST_DEVICE, "%s", why.text[0] ? why.text : "no GPU is visible");
    if (d->first >= there)
        return err_set(e, ST_USAGE, "device cuda:%d; %d %s visible here, from cuda:0 on", d->first,
                       there, there > 1 ? "are" : "is");
    if (d->share || d->first + n <= there) return ST_OK;
    return err_set(e, ST_USAGE,
                   "%d ranks from cuda:%d on need a GPU each, and %d %s visible here; "
                   "--share-device=yes lets ranks share one",
                   n, d->first, there, there > 1 ? "are" : "is");
}

bool device_shared(const struct device *d, int n)
{
    return d->kind != DEVICE_CPU && d->share && n > count_of(d, NULL);
}

int device_memory(const struct device *d, int n, double *bytes, struct err *e)
{
    int there = d->share ? count_of(d, e) : n, each = n < there ? n : there;
    *bytes = 0;
    for (int i = 0; i < each; i++) {
        struct gpu *g = device_open(d, i, e);
        if (!g) return e && e->status != ST_OK ? e->status : ST_DEVICE;
        *bytes += (double)g->info.free_bytes;
        g->ops->close(g);
    }
    return ST_OK;
}

struct gpu *device_open(const struct device *d, int nth, struct err *e)
{
    int index = d->first + nth;
    assert(d->kind != DEVICE_CPU);
    if (d->share) {
        int there = count_of(d, e);
        if (there < 1) return NULL;
        index %= there;
    }
    return d->open ? d->open(index, e) : gpu_cuda_open(index, e);
}
