/* engine/comm_door.c - a futex for each process.
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* syscall */
#include "engine/comm_door.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/arena.h"
#include "engine/crowd.h"

enum { LINE_BYTES = 64 };

struct door {
    _Alignas(LINE_BYTES) _Atomic uint32_t asleep; /* 1 from arm to a ring */
};

struct comm_door {
    int nth, n;
    struct door *door; /* [n], shared; one more for the board */
};

struct comm_door *comm_door_open(const char *name, int nth, int n, bool create)
{
    size_t bytes = ((size_t)n + 1) * sizeof(struct door);
    int fd = shm_open(name, O_RDWR | O_CLOEXEC | (create ? O_CREAT | O_EXCL : 0), 0600);
    if (fd < 0) return NULL;
    void *at = MAP_FAILED;
    if (!create || ftruncate(fd, (off_t)bytes) == 0)
        at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (at == MAP_FAILED) return NULL;
    struct comm_door *d = mem_zalloc(1, sizeof *d);
    *d = (struct comm_door){ nth, n, at };
    return d;
}

void comm_door_unlink(const char *name)
{
    shm_unlink(name);
}

void comm_door_close(struct comm_door *d)
{
    if (!d) return;
    munmap(d->door, ((size_t)d->n + 1) * sizeof *d->door);
    free(d);
}

struct crowd_board *comm_door_board(struct comm_door *d)
{
    _Static_assert(sizeof(struct crowd_board) <= sizeof(struct door), "the board has a line");
    return (void *)&d->door[d->n];
}

/* Both sides exchange: either the sleeper sees what was sent before the ring, or the ring sees that
 * it sleeps. */
void comm_door_arm(struct comm_door *d)
{
    atomic_exchange(&d->door[d->nth].asleep, 1);
}

void comm_door_sleep(struct comm_door *d, int64_t ns)
{
    struct timespec t = { .tv_sec = ns / 1000000000, .tv_nsec = (long)(ns % 1000000000) };
    syscall(SYS_futex, &d->door[d->nth].asleep, FUTEX_WAIT, 1, &t, NULL, 0);
    atomic_store(&d->door[d->nth].asleep, 0);
}

void comm_door_ring(struct comm_door *d, int nth)
{
    struct door *other = &d->door[nth];
    if (atomic_exchange(&other->asleep, 0) == 1)
        syscall(SYS_futex, &other->asleep, FUTEX_WAKE, 1, NULL, NULL, 0);
}
