/* bench/suite_cuda.h - points of a GPU: what its files share.
 *
 * All goes through struct gpu (engine/gpu.h). A job takes its memory from one pool, which the next job
 * takes anew. Inputs are drawn by the `fill` kernel and used in rotation, more of them than the L2
 * cache holds. Calls are recorded and replayed, so that what is timed is the device and not who
 * issues; times are those of events around replays. SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_SUITE_CUDA_H
#define BENCH_SUITE_CUDA_H

#include "bench/nvml.h"
#include "bench/suite.h"
#include "engine/gpu.h"

/* A recording has each copy at least once: so many launches take the host some 10 ms to record and
 * the driver some MB. What is smaller than 2 L2 / 4096, 25 to 60 kB, is not rotated past L2: its time
 * is that of a launch. */
enum { SUITE_CUDA_MAX_VAR = 4096 };

struct suite_cuda {
    struct gpu *g;
    struct gpu_event *event[2];
    char *pool, *pinned;
    size_t pool_bytes, pinned_bytes, used;
    size_t need_bytes; /* of the job that takes most */
    size_t room_bytes; /* what a job may take */
    struct nvml *nvml;
    struct points_gpu seen; /* while the latest job ran */
    bool comm_failed;       /* between devices: not tried again */
};

/* Opens the device, lists points. Errors: ST_USAGE, ST_DEVICE. */
int suite_cuda_open(struct suite *s, struct err *e);
int suite_cuda_add(struct suite *s, struct err *e);
void suite_cuda_release(struct suite *s);

/* Beside a job: suite_cuda_seen tells what NVML saw since, false where there is none. */
void suite_cuda_watch(struct suite *s);
bool suite_cuda_seen(struct suite *s, struct points_gpu *out);

int suite_cuda_count(const struct suite *s); /* devices that are visible here */
/* Of another type than the device multiplies or keeps: false. */
bool suite_cuda_can(const struct suite *s, enum gpu_elt t);
enum gpu_elt suite_cuda_weight(const struct suite *s);
enum gpu_elt suite_cuda_kv(const struct suite *s);
enum points_dtype suite_cuda_dtype(enum gpu_elt t);

/* ---- listing */

size_t suite_cuda_l2(const struct suite *s);
/* Copies of what a call reads, so that together they exceed L2 twice; 1 to SUITE_CUDA_MAX_VAR. */
int suite_cuda_copies(const struct suite *s, double bytes);
/* Whether a job that takes so much finds room; if not, it is told as skipped. */
bool suite_cuda_fits(struct suite *s, double bytes);
/* A row of a kernel as the engine's steps launch it: has the suite's threads and ranks. */
int suite_cuda_row(struct suite *s, struct points_row r);
/* Adds to the guess of the latest job's time: a call of so much. */
void suite_cuda_guess(struct suite *s, double bytes, double flop);

int suite_cuda_mem_add(struct suite *s, struct err *e);  /* bandwidth, copies, launches, loading */
int suite_cuda_mm_add(struct suite *s, struct err *e);   /* products */
int suite_cuda_attn_add(struct suite *s, struct err *e); /* attention */
int suite_cuda_elt_add(struct suite *s, struct err *e);  /* element-wise work, sampling */
int suite_cuda_comm_add(struct suite *s, struct err *e); /* messages */

/* ---- running */

/* The pool, empty, and the device ready. */
int suite_cuda_start(struct suite *s, struct err *e);
/* Of the pool, at a multiple of 256 bytes; the job has said in listing that it fits. */
void *suite_cuda_take(struct suite *s, size_t bytes);
/* n values of a type, drawn on the device; NULL with a sentence. */
void *suite_cuda_drawn(struct suite *s, enum gpu_elt type, int64_t n, uint64_t seed, struct err *e);
/* Value i of it, by hand. */
double suite_cuda_value(enum gpu_elt type, uint64_t seed, int64_t i);
/* Host memory copied to the pool; NULL with a sentence. */
void *suite_cuda_given(struct suite *s, const void *from, size_t bytes, struct err *e);
int suite_cuda_launch(struct suite *s, enum gpu_kern k, const void *args, struct err *e);
/* Copied and waited for. */
int suite_cuda_get(struct suite *s, void *to, const void *from, size_t bytes, struct err *e);

struct suite_cuda_work {
    int (*issue)(void *arg, int i, struct err *e); /* call i, of n_var kinds in rotation */
    void *arg;
    int n_var;
};
/* One call and one replay that are not counted, then replays for the suite's run_s at least. */
int suite_cuda_time(struct suite *s, const struct suite_cuda_work *w, struct suite_value *v,
                    struct err *e);

/* The largest difference as a share of the largest value of the reference. */
struct suite_cuda_worst {
    double off, largest;
};
void suite_cuda_compare(struct suite_cuda_worst *w, double got, double want);
double suite_cuda_error(const struct suite_cuda_worst *w);

#endif
