/* tests/comm_check.h - what every communicator must do, called on each rank by its own thread or
 * process. Each returns the number of things that were wrong on this rank; e keeps a failed call.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_COMM_CHECK_H
#define TESTS_COMM_CHECK_H

#include "engine/comm.h"

/* Bits of all-reduces of many lengths up to `longest` floats, against a tree of its own. */
long comm_check_sums(struct comm *world, int rounds, int longest, struct err *e);
/* All-gather within the stage, broadcast and barrier over the world. */
long comm_check_others(struct comm *world, struct comm *tp, struct err *e);
/* A ring of many messages under way, of different sizes up to COMM_CHECK_BYTES to the next rank. */
enum { COMM_CHECK_BYTES = 32 * sizeof(int) };
long comm_check_messages(struct comm *world, struct err *e);
/* Rank 0 sends to rank 1 what does not fit; room is for 64 bytes. */
long comm_check_misfits(struct comm *world, struct err *e);

#endif
