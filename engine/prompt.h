/* engine/prompt.h - the token ids of a trace: requests that share content share tokens.
 *
 * A trace says how long prompts are and which of them begin alike (traces/trace.h: a chain of keyed
 * segments), not what they say. Tokens are drawn from the random stream "engine.prompt": inside a
 * segment by its key and position, past the last segment by the request, so that equal keys give
 * equal tokens. A segment that reaches into its request's output, as a session's turn does, holds
 * what the model really answered; later turns repeat it. A turn that comes before the answer is
 * there (a trace replayed faster than the engine) has drawn tokens in its place, and shares nothing
 * from there on; so has one whose turn before was refused.
 *
 * Nothing is allocated once the most answers at a time have been there.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_PROMPT_H
#define ENGINE_PROMPT_H

#include "base/rng.h"
#include "base/rooms.h"
#include "engine/batch.h"

struct prompt_answer {    /* a segment that holds output */
    uint64_t key, before; /* before: of the segment in front of it; 0: none */
    int64_t from;         /* first position of the output */
    int32_t n; /* tokens known, those past them are drawn; -1: its request has not ended */
    int log2;
    int32_t *token; /* [n], a room of 1 << log2; NULL where n is not above 0 */
    struct prompt_answer *next;
};

struct prompt {
    int32_t vocab;
    struct rng shared, own;
    struct prompt_answer **bucket; /* [n_bucket], a power of two */
    int64_t n_bucket, n_answer;
    struct prompt_answer *spare; /* records to use again */
    struct rooms rooms;          /* of tokens */
    struct arena arena;
    int64_t n_early; /* requests that came before an answer they repeat */
};

/* What names a request whatever the order of arrivals: its session and turn, else its number. */
static inline uint64_t prompt_identity(int64_t id, int64_t session, int32_t turn)
{
    return session >= 0 ? mix_pair((uint64_t)session + 1, (uint64_t)turn)
                        : mix_pair(0, (uint64_t)id);
}

/* Not to be moved until prompt_release. */
void prompt_init(struct prompt *p, int32_t vocab, uint64_t seed);
void prompt_release(struct prompt *p);

/* The n_in tokens of r's prompt. Returns how many of its segments, from the first, others may share
 * with it. */
int32_t prompt_begin(struct prompt *p, const struct trace_req *r, int32_t *tok);
/* r ended: n tokens of prompt and output. Fewer than n_in + n_out: it has no answer. segs: as
 * prompt_begin returned. Before r's segments become invalid. */
void prompt_end(struct prompt *p, const struct trace_req *r, int32_t segs, const int32_t *tok,
                int64_t n);
/* r was refused: what it would have answered is drawn. */
void prompt_refuse(struct prompt *p, const struct trace_req *r);
/* Nobody will repeat the chain that ends with the segment of this key. */
void prompt_forget(struct prompt *p, uint64_t key);

#endif
