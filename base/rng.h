/* base/rng.h - named random streams, indexed by draw.
 *
 * Every source of chance draws from its own stream, derived from (seed, name) and indexed (by
 * request id, say): adding one source moves no other, and two configurations see the same requests
 * (common random numbers). Counter-based: value i of a stream needs no state, so any order and any
 * thread gives the same numbers. Generator: two rounds of the SplitMix64 finaliser over key + i *
 * odd constant (Steele, Lea, Flood, OOPSLA 2014); passes the repository's own chi-square and
 * autocorrelation tests; not for cryptography.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_RNG_H
#define BASE_RNG_H

#include <stdint.h>

struct rng {
    uint64_t key;
};

uint64_t mix64(uint64_t x);                /* SplitMix64 finaliser; a bijection */
uint64_t mix_pair(uint64_t a, uint64_t b); /* order matters */
uint64_t mix_text(const char *text);

struct rng rng_stream(uint64_t seed, const char *name); /* "workload.arrivals" */
struct rng rng_child(struct rng r, uint64_t index);     /* a stream of streams */
uint64_t rng_bits(struct rng r, uint64_t i);
double rng_unit(struct rng r, uint64_t i); /* in (0, 1), never 0 or 1 */
double rng_exp(struct rng r, uint64_t i, double mean);
double rng_normal(struct rng r, uint64_t i); /* by inverse CDF: one draw each */
double rng_gamma(struct rng r, uint64_t i, double shape, double scale); /* inverse CDF (GSL) */
uint64_t rng_below(struct rng r, uint64_t i, uint64_t n); /* 0..n-1, unbiased to 2^-32 */

#endif
