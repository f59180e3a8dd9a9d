/* engine/engine.h - a running model: tp x pp ranks, one of them the caller, that execute steps.
 * The other ranks are threads of this process, or processes that MPI connects.
 *
 * The caller is rank 0 and drives: a submitted step travels to all ranks, its result comes from the
 * first tp rank of the last stage. With pp stages up to engine_depth() steps may be in flight, so
 * that stages overlap: submit, submit, collect, ... Results come in the order of submission.
 * Between steps ranks wait without burning a core. SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/comm.h"
#include "engine/device.h"
#include "engine/model.h"
#include "engine/timing.h"

struct team;
typedef struct backend *(*engine_backend_fn)(struct team *t, const char *kernels, struct err *e);

enum { ENGINE_MAX_PP = 128, ENGINE_MAX_THREADS = 256 };

struct engine_opts {
    const char *model; /* DIR with config.json and weights, or CONFIG.json with random weights */
    bool random;
    uint64_t seed;             /* of random weights */
    int tp, pp, threads;       /* threads of one rank */
    const int *split;          /* layers per stage [pp], or NULL */
    struct model_opts m;       /* max_ctx 0: the model's own */
    int max_table;             /* block numbers of a step, all sequences together */
    bool logits;               /* results carry logits */
    const char *kernels;       /* a table of engine/kern.h; NULL: the best here */
    engine_backend_fn backend; /* of device cpu; NULL: backend_cpu_open */
    bool
        operators; /* of device cpu: engine_rank_step has what operators took (backend_classes.h) */
    struct device device;
    struct comm_mpi *mpi; /* this is its rank 0, the others are in engine_follow; NULL: threads */
    /* Of an engine that runs beside others of this process, each from a thread of its own: the ranks
     * of all of them (0: it is alone), and how many of these come before its own. They share the
     * processors. */
    int n_beside, n_before;
};

/* Logits of one row become a token: kern_sample of engine/kern.h. temperature 0: the largest. */
struct engine_out {
    int32_t row; /* of the step */
    int32_t top_k;
    float temperature, top_p;
    double u; /* [0, 1), the draw */
};

struct engine_seq {
    int32_t row, n_q, pos;
    int32_t n_block; /* of its table, enough for pos + n_q tokens */
    const int32_t *block;
};

struct engine_step {
    int32_t n_tok, n_seq, n_out;
    const int32_t *tok; /* [n_tok], rows of the sequences in order, without gaps */
    const struct engine_seq *seq;
    const struct engine_out *out;
};

struct engine_result {
    int32_t n_out;
    const int32_t *tok;  /* [n_out] */
    const float *logits; /* [n_out][vocab] with engine_opts.logits, else NULL */
};

/* Of ranks in other processes: as they stood when they had loaded, until the engine has stopped. */
struct engine_rank_report {
    int rank;
    double load_s, step_s; /* step_s: inside steps, waiting for other ranks included */
    int64_t read_bytes;    /* of the checkpoint, or drawn */
    int64_t weight_bytes, kv_bytes, steps;
    struct comm_count world[COMM_N_CALL], tp[COMM_N_CALL];
};

struct engine;

/* Reads, checks, starts the ranks, loads. The caller becomes rank 0: all calls are to come from it,
 * and while engines are open it may be pinned to one processor (engine/team.h). Errors: all wrong
 * input is found here; NULL. */
struct engine *engine_open(const struct engine_opts *o, struct err *e);
void engine_close(struct engine *g); /* NULL is fine */

/* The life of a process that is not rank 0: its rank of every engine that rank 0 opens, until that
 * calls engine_dismiss. backend: NULL as in engine_opts. Errors: what went wrong on this rank, or
 * the sentence of the one that failed. */
int engine_follow(struct comm_mpi *m, engine_backend_fn backend, struct err *e);
void engine_dismiss(struct comm_mpi *m); /* rank 0, with no engine open */

/* Threads of a rank when the processors are shared out; at least 1. mpi may be NULL. */
int engine_threads(const struct comm_mpi *mpi, int n_rank);
/* What it means that this process was told to stop: ST_STOPPED, or ST_DEVICE when a rank has failed:
 * launchers then end the others by a signal that looks like the user's. May take 0.1 s, on other
 * ranks than 0 2.5 s. */
int engine_stopped(struct engine *g, struct err *e);

const struct spec *engine_spec(const struct engine *g);
const char *engine_kernels(const struct engine *g); /* name of the table in use */
/* Of a rank that is a thread of this process, or this process itself; else NULL. For reading only,
 * between a collect and the next submit. */
struct backend *engine_backend(const struct engine *g, int rank);
int engine_depth(const struct engine *g);

/* At most engine_depth() steps between submit and collect. Errors: ST_RANGE for a step that is not
 * possible (a token out of the vocabulary, positions past the context, more than was reserved):
 * nothing has happened then; ST_DEVICE when a rank has failed: the engine can only be closed. */
int engine_submit(struct engine *g, const struct engine_step *s, struct err *e);
/* r stays valid until the next collect. */
int engine_collect(struct engine *g, struct engine_result *r, struct err *e);

/* Ends the ranks; after it reports can be read, and nothing else be done but engine_close. */
int engine_stop(struct engine *g, struct err *e);
int engine_n_rank(const struct engine *g);
void engine_report(const struct engine *g, int rank, struct engine_rank_report *out);
/* Where the time of a rank's step went; steps are counted from 0. Known of the latest steps, once
 * the step after it has been collected or the engine has stopped. Times are of the rank's own host. */
bool engine_rank_step(const struct engine *g, int64_t step, int rank, struct engine_rank_step *out);
/* Its operators, where the backend keeps their time (engine/backend_timed.h): of a rank in this
 * process since they were last cleared, of another process the latest step known of. */
struct backend_timed_step;
bool engine_rank_parts(const struct engine *g, int rank, struct backend_timed_step *out);

#endif
