/* engine/serve.h - a running model serves a trace: the scheduler of engine/sched.h on a wall clock.
 *
 * One loop on the caller's thread: requests whose time has come go to the scheduler, its batch
 * becomes a step of the engine, sampled tokens go back, and what has ended is told. As many steps
 * are in flight as the engine is deep. Nothing to do: it sleeps until the next request is due.
 * Arrivals are open-loop: a late engine does not delay them. A token's time is when it has come
 * back. A request that cannot run at all is rejected and counted, with the simulator's words.
 *
 * Several replicas: such a loop each, on a thread of its own, with a scheduler and a KV pool of its
 * own; requests are spread over them by the simulator's router (engine/desk.h). What is told comes
 * from their threads, one at a time.
 *
 * Nothing is allocated per step once the largest batch, the longest queue and the most sessions under
 * way have been seen.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_SERVE_H
#define ENGINE_SERVE_H

#include "engine/engine.h"
#include "engine/router.h"
#include "engine/sched.h"
#include "engine/team.h"
#include "traces/run.h"

/* What executes steps: an engine, or in tests something that behaves like one. */
struct serve_device {
    void *ctx;
    int depth; /* steps in flight at most */
    int (*submit)(void *ctx, const struct engine_step *s, struct err *e);
    int (*collect)(void *ctx, struct engine_result *r, struct err *e);
};
struct serve_device serve_engine(struct engine *g);

/* Between two instants all this of one replica stayed as it was. */
struct serve_level {
    int64_t t0_ns, t1_ns, kv_used_blocks;
    int64_t queue, running, in_system; /* in_system: submitted and not ended */
    int replica;
    enum sched_blocked blocked;
    bool active; /* a step was in flight */
};
struct serve_step {
    int replica;
    int64_t index;           /* 0, 1, 2, ... as the replica's engine counts them */
    int64_t t0_ns, t1_ns;    /* submitted; its tokens had come back. From run start */
    int64_t epoch_ns;        /* clock_mono_ns() at run start */
    int64_t host_ns;         /* choosing, building and booking it: the time outside the device */
    int64_t kv_used_blocks;  /* while it ran */
    int64_t kv_unfilled_tok; /* room in the blocks of running requests that holds no token yet */
    int64_t queue, running;
    struct step_shape shape;
    int64_t told, gap_ns; /* decodes whose token came gap_ns after the one before */
};

enum { SERVE_FIRST = 1, SERVE_FOLLOW = 2 };

/* As it happens; any function may be NULL. Rows of requests come once each. */
struct serve_sink {
    void *ctx;
    /* Where none of the open process is left, the state of all replicas up to now has been told. left:
     * what may still come, SERVE_FIRST for requests of the open process, SERVE_FOLLOW for turns
     * and clients' next requests that are known already. */
    void (*arrive)(void *ctx, const struct trace_req *q, int left, int64_t now_ns);
    void (*level)(void *ctx, const struct serve_level *l);
    void (*step)(void *ctx, const struct serve_step *s);
    void (*gap)(void *ctx, int64_t gap_ns); /* of a token outside the decodes' common rhythm */
    /* id: of the trace. tok: [n_out] output tokens made. t_ready_ns: when the scheduler had it; -1
     * for rejected ones. */
    void (*request)(void *ctx, const struct run_request *row, int64_t id, int64_t t_ready_ns,
                    const int32_t *tok);
};

struct serve_setup {
    const struct serve_device *dev; /* [n_replica] */
    int n_replica;                  /* at least 1 */
    int router;                     /* enum router_kind */
    struct team *crew; /* of n_replica threads, the caller one of them; NULL: of one replica */
    const struct sched_opts *sched; /* max_batch_tok resolved */
    int64_t kv_blocks;              /* of a replica */
    int32_t max_ctx, vocab;
    struct trace *trace; /* consumed */
    uint64_t seed;       /* of prompts and sampling */
    float temperature, top_p;
    int32_t top_k;
    int64_t limit_ns; /* of wall time; 0: until all have ended */
    const struct serve_sink *sink;
};

struct serve_result {
    int64_t due, finished, rejected, unfinished; /* the last three add up to the first */
    int64_t steps, t_stop_ns;
    int64_t preempted, recomputed_tok, hit_tok, asked_tok;
    int64_t kv_peak;          /* of the replica with most */
    struct run_replica *part; /* [n_replica], in the arena */
    int64_t n_early;          /* turns that were due before the answer they repeat: drawn instead */
    const char *why_rejected;
    bool stopped; /* Ctrl-C */
};

/* Room that a policy's steps need: max_tok, max_out, max_table, n_block, block_tok, max_ctx of o. */
void serve_sizes(const struct sched_opts *s, int64_t kv_blocks, int32_t max_ctx,
                 struct engine_opts *o);
/* ST_USAGE, naming the options, when max_seqs sequences of max_ctx tokens have more blocks than a step
 * can list; to be asked before serve_sizes. */
enum { SERVE_MAX_TABLE = 1 << 29 }; /* 2 GiB of block numbers a rank */
int serve_check_table(const struct sched_opts *s, int64_t max_ctx, struct err *e);
/* Wrong settings in one sentence, ST_USAGE: a policy without KV, a pool that holds no request. */
int serve_check(const struct sched_opts *s, int64_t kv_blocks, struct err *e);

/* ST_USAGE when no request of a trace can ever run there, in one sentence. Takes requests from t until
 * one fits. */
int serve_fits(const struct sched_opts *s, int64_t kv_blocks, int32_t max_ctx, struct trace *t,
               struct err *e);

/* Until all have ended, the limit, Ctrl-C, or a failure of a device: then what has not ended is
 * told as RUN_UNFINISHED, and *out is filled in any case. Errors: ST_DEVICE; ST_RANGE for a
 * scheduler that stalls. Memory comes from a; of several replicas, from arenas of their own. */
int serve_run(const struct serve_setup *u, struct arena *a, struct serve_result *out,
              struct err *e);

#endif
