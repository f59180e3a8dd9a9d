/* bench/suite.h - what a benchmark measures: points, and the jobs that measure them.
 *
 * A point is a row of traces/points.h. A job is one thing that can be run alone; a run of it gives a
 * value for each of its points. Runs of different jobs may follow each other in any order. Jobs:
 *   quick   a few of each kind, about half a minute
 *   full    memory, arithmetic, products, attention, element-wise work, sampling, communication by
 *           threads and by MPI over shared memory and over TCP, storage, scheduler, clock; and `model`
 *   model   the operators of one model and strategy inside the running engine, all ranks working and
 *           weights streamed as in serving; and the limits of the machine they are compared with
 *
 * Rows of products, attention, element-wise work and sampling that were measured inside a step
 * (`model`) have ranks > 0, of products also a part, and seqs, ctx, ctx_max of that step; there a time
 * is that of one call on one rank, the mean over ranks (where ranks are processes, of rank 0; what
 * only later stages have is then not measured). Measured by themselves they have ranks 0. Besides
 * traces/points.h:
 *   error      of operators inside a step by bench/suite_check.h, once for each shape and run; of step,
 *              sample and allgather 0 or 1: the tokens are the columns of the largest logits
 *   step       m new tokens, n rows of logits, k tokens of prompts (sequences with more than one new
 *              token) among m; seqs sequences; the time as the driver sees it
 *   attn       flop = 4 * pairs * n * head_dim, pairs of query and key: sum q*p + q*(q+1)/2
 *   elt        norm, add, embed: one call; rope, kv_put, act: the work of one layer; part none: biases
 *   allreduce  m rows of n, waiting for the slowest rank included; micro rows have m = 0 and no seqs
 *   sendrecv   m rows of n from a stage to the next one: from the end of the one's work until the
 *              other has it
 *   sample     m rows of n logits; k = 1: drawn, 0: the largest; inside a step the largest
 *   load       m = 1: of the model's checkpoint; part in_place: into the engine, ready to run
 *   On a GPU the kernels stand alone, issued as a step issues them, and timed by its events; rows of
 *   them have the suite's ranks all the same, products in the model's format a part, others none.
 *   Rotation and cache write are one kernel there, whose time the two rows share by their bytes; norm
 *   has the addition before it. sample: part drawn at temperature 1, top_k of the 50 likeliest with
 *   0.9 of the probability. load: k = 1, a file into device memory.
 *   sched      m = 0: choosing and completing a step of seqs sequences; k = 1: the null policy,
 *              k = 0: vllm. m > 0: the serving loop's host time of such a step, with a null model
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_SUITE_H
#define BENCH_SUITE_H

#include "base/arena.h"
#include "engine/engine.h"
#include "engine/shard.h"
#include "traces/points.h"

#define SUITE_WORDS "quick full model"
enum suite_kind { SUITE_QUICK, SUITE_FULL, SUITE_MODEL };

struct suite_opts {
    int kind;
    const char *model; /* directory or config.json */
    bool random;
    uint64_t seed;
    int tp, pp, threads;
    enum model_weight weight; /* not auto */
    enum backend_type kv;
    int32_t max_tok, max_ctx, max_seqs, block_tok; /* of a step; max_ctx 0: the model's */
    double kv_bytes;                               /* of the KV cache at most, all ranks */
    double run_s; /* a run repeats its calls for so long at least */
    const char *kernels;
    engine_backend_fn backend; /* of points of processors; NULL: the CPU */
    struct device device;      /* a GPU: its points in place of the processors' */
    int32_t square;            /* side of the largest product of a GPU; 0: 8192 */
    size_t cache_bytes;   /* of the last cache, beyond which data is laid out; 0: the machine's */
    const char *dir;      /* where files for storage points are made */
    const char *self;     /* this program, to be started by mpirun; NULL: no MPI points */
    struct comm_mpi *mpi; /* this is rank 0 of a job: points of `model` only */
};

struct suite_value {
    int64_t calls; /* 0: not measured this time */
    double s_per_call;
};

struct suite;
struct suite_job {
    const char *what; /* "decode 16 x 512" */
    int first, n;     /* its points */
    double run_s;     /* a guess at the time of a run, warm-up included */
    int (*run)(struct suite *s, const struct suite_job *j, struct suite_value *v, struct err *e);
    int64_t arg[6];
    void *own;
};

struct suite_model;
struct suite_micro;
struct suite_cuda;
struct suite {
    struct suite_opts o;
    struct spec spec;
    struct shard shard; /* of rank 0 */
    struct points_row *row;
    struct suite_job *job;
    int n_row, cap_row, n_job, cap_job;
    double read_bytes_per_s, flop_per_s; /* of all processors, a rough look: for guesses of time */
    size_t cache_bytes;                  /* o.cache_bytes, or of all last-level caches */
    double clock_s, clock_share; /* one reading of the clock; all readings of a step, at worst */
    int cpus, n_skipped;
    const char *skipped[8]; /* what cannot be measured here, in words */
    void *may;              /* the processors of this process, as they were */
    struct suite_model *model;
    struct suite_micro *micro;
    struct suite_cuda *cuda; /* NULL: device cpu */
    const char *no_engine;   /* why there are no points of whole steps; NULL: there are */
    struct arena arena;
};

/* Points and jobs, nothing measured yet but the rough look. Errors: ST_USAGE, ST_IO; nothing is then
 * to be released. */
int suite_init(struct suite *s, const struct suite_opts *o, struct err *e);
void suite_release(struct suite *s);
/* One run of job j; v[j->n]. Errors: ST_DEVICE, ST_IO. */
int suite_run_job(struct suite *s, int j, struct suite_value *v, struct err *e);
/* Estimated seconds of one run of all jobs. */
double suite_round_s(const struct suite *s);
/* The error from which on a result is wrong: of f32 and of what rounds its inputs. */
double suite_tolerance(const struct points_row *r);
/* A hash of all rows but their errors: what makes two suites the same. */
uint64_t suite_identity(const struct suite *s);

/* ---- rows with their bytes and operations by formula */

enum points_dtype suite_dtype(enum model_weight w);
double suite_weight_bytes(enum points_dtype t); /* of one weight: int8 has a bf16 scale for 64 */
struct points_row suite_gemm(enum points_dtype t, int64_t m, int64_t n, int64_t k);
struct suite_heads {
    int64_t n_head, n_kv_head, head_dim, elt_bytes;
};
/* n_seq sequences of q[i] new tokens after p[i] cached ones. */
struct points_row suite_attn(const struct suite_heads *h, int n_seq, const int32_t *q,
                             const int32_t *p);
/* embed: weight_bytes of a weight; kv_put: of a cached element; else not used. */
struct points_row suite_elt(enum points_part part, int64_t m, int64_t n, double weight_bytes);

/* ---- for the files of this module */

/* The row of loading the whole model; k 1: into an engine that goes on running, 0: one of its own. */
struct points_row suite_load_row(const struct suite *s, int64_t k);
int suite_add_row(struct suite *s, const struct points_row *r);
/* Adds a job with no points yet; its points are those added until the next job. */
struct suite_job *suite_add_job(struct suite *s, const char *what, double run_s);
void suite_skip(struct suite *s, const char *why);
void suite_error(struct suite *s, int row, double error); /* keeps the worst */
void suite_unpin(struct suite *s); /* the calling thread may go where the process may */

int suite_model_add(struct suite *s, struct err *e);
void suite_model_release(struct suite *s);
int suite_micro_add(struct suite *s, struct err *e);   /* products, attention, ... */
int suite_machine_add(struct suite *s, struct err *e); /* memory, arithmetic, clock */
int suite_comm_add(struct suite *s, struct err *e);
int suite_system_add(struct suite *s, struct err *e); /* storage, scheduler */
void suite_micro_release(struct suite *s);
/* Rough seconds: bytes and operations at the rates found, all processors. */
double suite_guess_s(const struct suite *s, double bytes, double flop);
/* Repeats call(arg) for at least run_s after one call that is not counted. */
int suite_repeat(const struct suite *s, int (*call)(void *arg, struct err *e), void *arg,
                 struct suite_value *v, struct err *e);

/* A file to be read: the model's checkpoint, or one made for it in suite_opts.dir, which close
 * removes. f stays where it is meanwhile. */
struct suite_file {
    char path[4352];
    bool own;
};
double suite_file_bytes(const struct suite *s, bool *checkpoint);
int suite_file_open(const struct suite *s, bool checkpoint, struct suite_file *f, struct err *e);
void suite_file_close(struct suite_file *f);

/* The life of a process that mpirun started with --comm-worker, argv[1]. */
int suite_comm_worker(int argc, char *const *argv, struct err *e);

#endif
