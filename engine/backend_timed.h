/* engine/backend_timed.h - a backend around another one that keeps where the time of a step went.
 *
 * Every operation goes to the inner backend unchanged, so results have the same bits. The clock is
 * read once after each operation, and once before the first one of a step and the first one after a
 * sync: what lies between a sync and the next operation is communication of the rank, everything
 * else belongs to the operation that has just ended, the few instructions between two of them
 * included. So the cells' ns and comm_ns add up to t1_ns - t0_ns exactly.
 * A product is named by where it stands: after attention `out`, after the activation `down`, after
 * pick `head`, of the others the first one of a layer `qkv` and the second one `gate_up`.
 *
 * One step at a time: the driver clears before it submits and reads when it has collected; ranks
 * that are threads are read from the driver's thread. SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_BACKEND_TIMED_H
#define ENGINE_BACKEND_TIMED_H

#include "engine/backend.h"

#define BACKEND_TIMED_WORDS                                                                        \
    "embed qkv out gate_up down head norm norm_final norm_head rope kv_put attn act add bias pick"
enum backend_timed_part {
    BACKEND_TIMED_EMBED,
    BACKEND_TIMED_QKV,
    BACKEND_TIMED_OUT,
    BACKEND_TIMED_GATE_UP,
    BACKEND_TIMED_DOWN,
    BACKEND_TIMED_HEAD,
    BACKEND_TIMED_NORM,
    BACKEND_TIMED_NORM_FINAL, /* of the rows that get logits */
    BACKEND_TIMED_NORM_HEAD,  /* of query and key heads */
    BACKEND_TIMED_ROPE,
    BACKEND_TIMED_KV_PUT,
    BACKEND_TIMED_ATTN,
    BACKEND_TIMED_ACT,
    BACKEND_TIMED_ADD,
    BACKEND_TIMED_BIAS,
    BACKEND_TIMED_PICK,
    BACKEND_TIMED_N_PART
};

struct backend_timed_cell {
    int64_t calls, ns;
    int64_t elt;     /* values written, over the calls */
    int64_t m, n, k; /* rows and columns of the last call; of a product its inner size, else 0 */
};

struct backend_timed_step {
    int64_t t0_ns, t1_ns; /* clock_mono_ns(): first operation begins, last one has ended */
    int64_t comm_ns, comm_calls, reads; /* reads of the clock */
    struct backend_timed_cell cell[BACKEND_TIMED_N_PART];
    struct { /* of the last attention; bytes and operations of all of them follow from it */
        int64_t n_row, n_seq, n_head, n_kv_head, head_dim, kv_elt_bytes;
        int64_t sum_pos, max_pos; /* cached before */
        int64_t pairs;            /* of query and key */
    } attn;
};

struct team;
/* An engine_backend_fn: backend_cpu_open with the time kept. */
struct backend *backend_timed_open(struct team *t, const char *kernels, struct err *e);
/* Owns `inner` from now on: closes it. */
struct backend *backend_timed_wrap(struct backend *inner);
/* b: from one of the two above. */
void backend_timed_clear(struct backend *b);
void backend_timed_read(const struct backend *b, struct backend_timed_step *out);
bool backend_timed_is(const struct backend *b);
struct backend *backend_timed_inner(const struct backend *b);
/* For the inner one: what the product or norm that it is called for is a part of. */
enum backend_timed_part backend_timed_now(const struct backend *b);

#endif
