/* engine/comm_door.h - bells between processes of one host, in memory that they share.
 *
 * What bell.h is for threads, for those who wait by looking (at MPI): arm, look once more, sleep. Who
 * has sent something rings; that costs one atomic exchange while nobody sleeps there. A sleep is
 * bounded, since not all that one may wait for is announced by a ring.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_COMM_DOOR_H
#define ENGINE_COMM_DOOR_H

#include <stdbool.h>
#include <stdint.h>

struct comm_door;
struct crowd_board;

/* Memory of that name ("/x") for n processes, of which this is the nth; one creates it, and unlinks
 * it when all others have opened it. NULL where there is no such memory. */
struct comm_door *comm_door_open(const char *name, int nth, int n, bool create);
void comm_door_unlink(const char *name);
void comm_door_close(struct comm_door *d); /* NULL is fine */

/* Theirs together; zero when created. */
struct crowd_board *comm_door_board(struct comm_door *d);

void comm_door_arm(struct comm_door *d);
void comm_door_sleep(struct comm_door *d, int64_t ns); /* until rung since arm, or ns have passed */
void comm_door_ring(struct comm_door *d, int nth);

#endif
