/* engine/sched_core.h - what the policies are made of; for engine/sched*.c only.
 *
 * A fill function is a few of these in a row, sharing one token budget:
 *     sched_take_decodes -> sched_continue_prompts -> sched_admit
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_SCHED_CORE_H
#define ENGINE_SCHED_CORE_H

#include "engine/sched.h"

/* Puts the idle decodes into b (all of them, or the longest idle group when groups are balanced)
 * and takes their KV blocks, preempting the latest admitted requests until they fit. Returns
 * whether anyone was preempted. */
bool sched_take_decodes(struct sched *s, struct batch *b, int64_t now_ns);

/* Next chunks of prompts under way, at most *budget tokens. Returns whether KV ran out: then the
 * prompt was preempted (or waits for its chunk in flight), and nobody may be admitted. */
bool sched_continue_prompts(struct sched *s, struct batch *b, int64_t *budget, int64_t now_ns);

/* How much KV an admission asks for. */
enum sched_need { SCHED_NEED_CHUNK, SCHED_NEED_PROMPT, SCHED_TAKE_PROMPT, SCHED_TAKE_ALL };

/* Admits waiting requests in order while they fit; sets s->blocked for the first that does not.
 * whole: only whole prompts, no chunks. */
void sched_admit(struct sched *s, struct batch *b, int64_t *budget, enum sched_need need,
                 bool whole, int64_t now_ns);

/* Tokens of KV that a reserving policy sets aside for r: prompt and longest output it may make. */
int64_t sched_reserve_tok(const struct sched *s, const struct trace_req *r);

/* ---- groups of decodes (engine/sched_cohort.c) */
struct cohort *sched_cohort_new(struct sched *s);
void sched_cohort_free(struct sched *s, struct cohort *c);
void sched_cohort_add(struct sched *s, struct cohort *c, struct sreq *r);
void sched_cohort_remove(struct sched *s, struct cohort *c,
                         struct sreq *r); /* r->computed and made are brought up to date */
void sched_cohort_idle(struct sched *s, struct cohort *c);
struct cohort *sched_cohort_pop_idle(struct sched *s);
/* KV blocks of the step that lies `ahead` steps after the present one. */
int64_t sched_cohort_need(const struct sched *s, const struct cohort *c, int64_t ahead);
int64_t sched_cohort_need_upto(const struct sched *s, const struct cohort *c,
                               int64_t k); /* of steps 1..k-1 ahead */
struct sreq *
sched_cohort_first_due(const struct cohort *c); /* member that ends first; NULL if none is live */
void sched_cohort_heap_pop(struct cohort *c);

/* ---- lists and ends (engine/sched.c) */
void sched_run_remove(struct sched *s, struct sreq *r);
void sched_run_append(struct sched *s, struct sreq *r);
void sched_part_remove(struct sched *s, struct sreq *r);
void sched_part_append(struct sched *s, struct sreq *r);
void sched_wait_push_front(struct sched *s, struct sreq *r);
struct sreq *sched_wait_pop(struct sched *s);

#endif
