/* traces/points.h - microbenchmark results: what was measured (points) and every sample of it.
 *
 *     /                schema "orrery-bench", version, title, source, history
 *     /provenance      base/prov.h: machine, command, revision, date; kind = measured | imported;
 *                      notes (of an import: source_tool, source_version, source_sha256, ...; else
 *                      processors, memory_bytes of the host, settings that the rows do not show)
 *     /points          one row per thing measured
 *     /samples         one row per timed run: point, run (repetition), calls, time per call
 *     /limits          attributes: ceilings measured beside them (bandwidths, FMA peak)
 *     /noise           one row per look at the machine: load, steal, the spin's time
 *     /gpu             of a GPU: one row per run of a job: power, clock, heat while it ran
 *
 * A sample is a mean over `calls` calls timed together; runs are interleaved over points, so that a
 * drift of the machine falls on all of them. Nothing is dropped or averaged in the file. One that says
 * complete = no (older ones can) holds the runs that had ended. SPDX-License-Identifier: Apache-2.0 */
#ifndef TRACES_POINTS_H
#define TRACES_POINTS_H

#include <stdint.h>

#include "base/h5.h"
#include "base/prov.h"

/* What the sizes m, n, k mean, by operation:
 *   gemm          y[m][n] = x[m][k] w[n][k]^T
 *   attn          m new tokens in `seqs` sequences of `ctx` cached tokens on average and ctx_max at
 *                 most; n query heads, k KV heads, head_dim
 *   elt           m rows of n: one step's norms and element-wise work of a layer, named by `part`
 *   sample        m rows of n logits
 *   read, triad, copy   `bytes` moved a call
 *   allreduce ... alltoall, reduce, gather, scatter   `bytes` of the whole tensor, over `ranks`
 *   load          a checkpoint or file of `bytes`
 *   step, sched   a whole engine step (host work included); the scheduler's choice alone
 *   stage         the first stage's part of a step, while k stages of the pipeline are busy
 *   return        from the end of the last stage until the scheduler has the tokens
 *   launch        a kernel that does nothing, of m in a row; k 0: each issued and the last waited
 *                 for, 1: of a recording, on the device alone, 2: each issued and waited for
 *   alloc         `bytes` of device memory
 *   replay        the part of a step (its m, n, seqs, ctx) that the device spends in its recording
 *   prefill, decode     whole-model rates of another tool: m tokens in, n tokens out after ctx */
#define POINTS_OP_WORDS                                                                            \
    "read triad copy fma gemm attn elt sample allreduce allgather sendrecv broadcast "             \
    "reducescatter alltoall load step sched timer prefill decode reduce gather scatter stage "     \
    "return launch alloc replay"
enum points_op {
    POINTS_READ,
    POINTS_TRIAD,
    POINTS_COPY,
    POINTS_FMA,
    POINTS_GEMM,
    POINTS_ATTN,
    POINTS_ELT,
    POINTS_SAMPLE,
    POINTS_ALLREDUCE,
    POINTS_ALLGATHER,
    POINTS_SENDRECV,
    POINTS_BROADCAST,
    POINTS_REDUCESCATTER,
    POINTS_ALLTOALL,
    POINTS_LOAD,
    POINTS_STEP,
    POINTS_SCHED,
    POINTS_TIMER,
    POINTS_PREFILL,
    POINTS_DECODE,
    POINTS_REDUCE,
    POINTS_GATHER,
    POINTS_SCATTER,
    POINTS_STAGE,
    POINTS_RETURN,
    POINTS_LAUNCH,
    POINTS_ALLOC,
    POINTS_REPLAY,
    POINTS_N_OP
};
#define POINTS_DTYPE_WORDS "none f32 f16 bf16 int8 fp8 other"
enum points_dtype {
    POINTS_NONE,
    POINTS_F32,
    POINTS_F16,
    POINTS_BF16,
    POINTS_INT8,
    POINTS_FP8,
    POINTS_OTHER
};
#define POINTS_COMM_WORDS "none thread mpi mpi_tcp nccl"
enum points_comm { POINTS_NO_COMM, POINTS_THREAD, POINTS_MPI, POINTS_MPI_TCP, POINTS_NCCL };
/* Norms, rotary, activation ... of one layer; embedding; the cache state of a load; which way a copy
 * of a GPU goes, from and to pinned memory of the host; how tokens are drawn. */
#define POINTS_PART_WORDS                                                                          \
    "none norm rope act add embed kv_put qkv out gate_up down head cold warm in_place to_device "  \
    "from_device on_device drawn top_k"
enum points_part {
    POINTS_NO_PART,
    POINTS_NORM,
    POINTS_ROPE,
    POINTS_ACT,
    POINTS_ADD,
    POINTS_EMBED,
    POINTS_KV_PUT,
    POINTS_QKV,
    POINTS_OUT,
    POINTS_GATE_UP,
    POINTS_DOWN,
    POINTS_HEAD,
    POINTS_COLD,
    POINTS_WARM,
    POINTS_IN_PLACE,
    POINTS_TO_DEVICE,
    POINTS_FROM_DEVICE,
    POINTS_ON_DEVICE,
    POINTS_DRAWN,
    POINTS_TOP_K
};

struct points_row {
    uint8_t op, dtype, comm, part;
    int32_t threads, ranks;
    int64_t m, n, k, seqs, ctx, ctx_max, head_dim;
    double bytes, flop; /* a call moves and does, by formula; 0: not counted */
    double error;       /* worst relative error against a reference; -1: not checked */
};

struct points_sample {
    int32_t point, run;
    int64_t calls;
    double s_per_call;
    double t_s; /* when it began, from the start of the benchmark */
    uint8_t
        noisy; /* the machine was busy with something else: bench/noise.h says how it is known */
};

struct points_noise {
    double t_s, load, steal_ratio, spin_s;
};

/* A GPU while a job ran: samples of that t_s. What could not be read is NAN, and slowed 0. */
struct points_gpu {
    double t_s, power_w, power_max_w; /* mean and largest of the looks */
    double clock_hz, clock_min_hz;    /* of the multiprocessors */
    double temperature_c;             /* highest */
    int64_t slowed;                   /* any look's reasons of NVML for a lower clock, as bits */
    int32_t looks;
};

extern const struct h5col points_cols[], points_sample_cols[], points_noise_cols[],
    points_gpu_cols[];

/* ---- writing: rows are streamed; nothing is visible at `path` before points_commit.
 *
 * What the reader would refuse is refused here, as ST_RANGE: numbers that are not finite, negative
 * sizes and times, a point that was not added yet, samples or looks that go back in time (equal
 * t_s are in order). p stays usable after a refused row. */
typedef struct points points;
points *points_create(const char *path, const char *title, struct err *e); /* NULL on failure */
int points_add(points *p, const struct points_row *row, struct err *e);    /* its number, or -1 */
int points_put(points *p, const struct points_sample *s, struct err *e);
int points_put_noise(points *p, const struct points_noise *s, struct err *e);
int points_put_gpu(points *p, const struct points_gpu *s, struct err *e);
int points_limit(points *p, const char *name, double v, struct err *e);
/* A text attribute of /provenance; "kind" is "measured" unless noted otherwise. */
int points_note(points *p, const char *name, const char *text, struct err *e);
int points_commit(points *p, const struct prov *v, struct err *e); /* frees p, also on failure */
void points_abort(points *p);                                      /* NULL ok */

/* ---- reading, all of it checked as above; categories are found by their words, so a file of
 * another version is read if all of its words are known. Errors: ST_IO, ST_USAGE; nothing is then
 * left open. */
struct points_file {
    struct points_row *row;
    struct points_sample *sample; /* in order of time */
    struct points_noise *noise;
    struct points_gpu *gpu; /* n_gpu 0: the file has none */
    int64_t n_row, n_sample, n_noise, n_gpu;
    char *title, *kind, *machine, *date; /* "" where the file has none; machine: the processor */
    h5 *h5;                              /* for limits and notes; points_close closes it */
};
int points_read(const char *path, struct arena *a, struct points_file *out, struct err *e);
void points_close(struct points_file *f);
/* Word i of a blank-separated list, in buf; "?" past its end. Returns buf. */
const char *points_word(const char *words, int i, char *buf, size_t n);

#endif
