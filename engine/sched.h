/* engine/sched.h - the scheduler of one replica: who is in the next step.
 *
 * Pure: the clock is an argument, there is no device and no I/O, so the engine runs this very code
 * with a wall clock and the simulator with a virtual one. A policy is a const table in its own file
 * (engine/sched_<policy>.c) over the helpers of engine/sched_core.h.
 *
 *   vllm     decode first, then running prompts, then waiting ones under one token budget; chunked
 *            prefill; prefix cache; admission only if the whole prompt fits; preemption of the
 *            latest admitted by recompute (vLLM V1, 0.19)
 *   sarathi  stall-free chunks: as vllm with a budget of `chunk` tokens, blocks of the whole prompt
 *            taken at admission, no prefix cache unless asked for (Sarathi-Serve, OSDI 2024)
 *   orca     iteration-level batching, whole prompts, KV reserved for the longest output (OSDI 22)
 *   static   request-level batching: a batch runs until its last request ends (FasterTransformer)
 *   null     FCFS, no KV, one sequence a slot: measures the framework, plays the queues of theory
 *
 * Micro-batches of a pipeline: a replica may have up to `depth` batches in flight. `engine`
 * grouping is what vLLM's core does: every request that is not in flight goes into the next batch.
 * `balanced` grouping keeps groups of about running/depth sequences, as pipelined batch engines do.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_SCHED_H
#define ENGINE_SCHED_H

#include "base/conf.h"
#include "engine/batch.h"

#define SCHED_POLICY_WORDS "vllm sarathi orca static null"
enum sched_policy { SCHED_VLLM, SCHED_SARATHI, SCHED_ORCA, SCHED_STATIC, SCHED_NULL };

struct sched_opts { /* keys policy.* */
    int policy;
    int64_t max_batch_tok; /* token budget of a step; the caller resolves 0 */
    int64_t max_seqs;      /* sequences running at once */
    int64_t chunk_tok;     /* sarathi's budget */
    int64_t block_tok;     /* tokens of a KV block */
    int64_t kv_blocks;     /* 0: from memory */
    double memory_util;    /* share of GPU memory the engine may use */
    int prefix_cache;      /* auto on off */
    bool reserve_full;     /* vllm: admit only if the whole prompt fits */
    int reserve_out;       /* orca, static: oracle pow2 max */
    int64_t max_model_len; /* 0: the model's */
    int grouping;          /* auto engine balanced */
    int async;             /* auto on off */
};
extern const struct conf_row sched_rows[];

/* Whether steps are chosen one ahead: while a step runs, the next has been chosen already (vLLM's
 * asynchronous scheduling, on by default since 0.14). What arrives or ends during a step is then
 * seen by the choice after the next: an arrival waits a step longer, and the place and the KV
 * blocks of a request that has ended are free a step later. With a pipeline, vLLM keeps one batch a
 * stage in flight and none ahead. */
bool sched_is_async(const struct sched_opts *o, int depth);

/* What became of a request, told as it happens. ctx is the caller's. */
struct sched_sink {
    void *ctx;
    void (*first)(void *ctx, struct sreq *r, int64_t t_ns);
    void (*gap)(void *ctx, struct sreq *r, int64_t gap_ns); /* of irregular tokens only */
    void (*done)(void *ctx, struct sreq *r, int64_t t_ns);  /* r is recycled after the call */
    void (*preempt)(void *ctx, struct sreq *r, int64_t t_ns);
};

enum sched_blocked {
    SCHED_FREE,
    SCHED_BY_KV,         /* not enough KV blocks */
    SCHED_BY_SEQS,       /* max_seqs running */
    SCHED_BY_BUDGET,     /* the step's token budget is used up */
    SCHED_BY_GROUP,      /* this micro-batch has its share */
    SCHED_BY_BATCH,      /* static: the batch that runs has not ended */
    SCHED_BY_PREEMPTION, /* nobody is admitted in a step that preempted or lacked KV */
    SCHED_N_BLOCKED
};

struct sched;
struct sched_ops {
    const char *name;
    /* Chooses the next step. b arrives empty. Returns with s->blocked saying why the first waiting
     * request was not taken. */
    void (*fill)(struct sched *s, struct batch *b, int64_t now_ns);
};
extern const struct sched_ops sched_vllm, sched_sarathi, sched_orca, sched_static, sched_null;

struct sched {
    const struct sched_ops *ops;
    struct sched_opts o;
    struct kvpool pool;
    bool paged; /* false: null policy, no KV bookkeeping */
    bool hold;  /* static: members stay until the last of the batch ends */
    bool balanced;
    bool ahead; /* see sched_is_async */
    int depth;  /* batches in flight at most */
    struct arena *arena;
    const struct sched_sink *sink;
    struct sreq *wait_first, *wait_last; /* FCFS; preempted requests go to the front */
    struct sreq *run_first, *run_last;   /* in order of admission */
    struct sreq *part_first,
        *part_last; /* running with prompt left to launch, in order of admission */
    int64_t n_wait, n_run, n_partial;
    int64_t n_seen;           /* of those waiting, the first so many can be admitted now */
    struct sreq *ended_first; /* ahead: ended, but still holding place and blocks (by c_next) */
    int64_t wait_tok;         /* prompt tokens waiting */
    struct cohort *idle_first, *idle_last, *free_cohort;
    struct sreq *free_req;
    enum sched_blocked blocked;
    bool freed; /* slots or KV were given back since `blocked` was found */
    int64_t n_preempt, n_recomputed_tok;
    int64_t max_ctx;
};

/* n_block: KV blocks of the replica. depth: pipeline stages. sink stays the caller's. Errors:
 * none; options were checked by sched_check, and the caller has put its figure for a max_batch_tok
 * of 0. */
void sched_init(struct sched *s, const struct sched_opts *o, int64_t n_block, int depth,
                int64_t max_ctx, const struct sched_sink *sink, struct arena *a);
/* Contradictions between options in one sentence: ST_USAGE. */
int sched_check(const struct sched_opts *o, struct err *e);

/* Why a request can never run here: its context exceeds the model's length, or its KV exceeds the
 * pool, or its prompt exceeds what the policy can take in one step. NULL: it can. */
const char *sched_refuses(const struct sched *s, const struct trace_req *r);
/* Queues a request (sched_refuses must have been NULL). */
struct sreq *sched_submit(struct sched *s, const struct trace_req *r, int64_t now_ns);

/* The next step's batch, or an empty one. b->chunk is owned by b and reused. The batch counts as
 * in flight until sched_complete. */
void sched_next(struct sched *s, struct batch *b, int64_t now_ns);
/* The batch ended at now_ns, its decodes having done `steps` steps (1, or more when
 * fast-forwarded). */
void sched_complete(struct sched *s, struct batch *b, int64_t steps, int64_t now_ns);

/* How many steps in a row this pure decode batch would be chosen again unchanged if nothing
 * arrives: until its first member ends or KV runs out. 1 if anything else could change. Counts
 * this one. */
int64_t sched_horizon(const struct sched *s, const struct batch *b);
/* KV blocks of steps 2..k of this decode batch. */
int64_t sched_ahead_blocks(const struct sched *s, const struct batch *b, int64_t k);
/* Takes the KV blocks of steps 2..k of the batch; k at most sched_horizon. */
void sched_extend(struct sched *s, struct batch *b, int64_t k);
/* The first k of the steps of a batch launched for more (k < its horizon then) are done; the next
 * is in flight. Requests may have been submitted since: they see nothing of it. */
void sched_advance(struct sched *s, struct batch *b, int64_t k, int64_t now_ns);
/* Completes one step of a decode batch and launches it again in one go, exactly as sched_complete
 * and sched_next would; false, and nothing changed, if there is anything to decide. */
bool sched_repeat(struct sched *s, struct batch *b, int64_t now_ns);

static inline bool sched_idle(const struct sched *s)
{
    return s->n_wait == 0 && s->n_run == 0;
}

#endif
