/* engine/crowd.c - run delays of threads, and the board that says whether they are too long.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/crowd.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/progress.h"
#include "engine/bell.h"

struct crowd_seat {
    atomic_int fd; /* schedstat of the thread, -1 before it has joined */
    int64_t waited_ns;
};

static struct crowd_board own;
static _Atomic(struct crowd_board *) board = &own;

void crowd_share(struct crowd_board *b)
{
    atomic_store(&board, b ? b : &own);
}

struct crowd_board *crowd_board(void)
{
    return atomic_load(&board);
}

/* Tried again soon after the last while: it was too short. */
void crowd_judge(struct crowd_board *b, int64_t now_ns, int64_t span_ns, int64_t waited_ns)
{
    int64_t until = atomic_load(&b->until_ns), hold = atomic_load(&b->hold_ns);
    if (4 * waited_ns <= span_ns || now_ns < until) return;
    bool again = hold > 0 && now_ns - until < hold / 2 + 2 * CROWD_LOOK_NS;
    hold = !again ? CROWD_HOLD_NS : hold < CROWD_HOLD_MOST_NS / 2 ? 2 * hold : CROWD_HOLD_MOST_NS;
    atomic_store(&b->hold_ns, hold);
    atomic_store(&b->until_ns, now_ns + hold);
}

void crowd_init(struct crowd *c, int n)
{
    *c = (struct crowd){ .n = n, .seat = mem_zalloc((size_t)n, sizeof *c->seat) };
    for (int i = 0; i < n; i++) atomic_init(&c->seat[i].fd, -1);
}

void crowd_release(struct crowd *c)
{
    for (int i = 0; i < c->n; i++)
        if (atomic_load(&c->seat[i].fd) >= 0) close(atomic_load(&c->seat[i].fd));
    free(c->seat);
    *c = (struct crowd){ 0 };
}

void crowd_join(struct crowd *c, int i)
{
    atomic_store(&c->seat[i].fd, open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC));
}

/* "RUN WAITED SLICES", the first two in ns. */
static int64_t waited(int fd)
{
    char text[100], *end;
    ssize_t got = fd < 0 ? -1 : pread(fd, text, sizeof text - 1, 0);
    if (got <= 0) return 0;
    text[got] = 0;
    (void)strtoll(text, &end, 10);
    return strtoll(end, NULL, 10);
}

/* The longest wait of a thread since the last call. */
static int64_t longest(struct crowd *c)
{
    int64_t most = 0;
    for (int i = 0; i < c->n; i++) {
        struct crowd_seat *s = &c->seat[i];
        int64_t now = waited(atomic_load(&s->fd)), more = now - s->waited_ns;
        s->waited_ns = now;
        if (more > most) most = more;
    }
    return most;
}

bool crowd_look(struct crowd *c)
{
    struct crowd_board *b = crowd_board();
    int64_t now = clock_mono_ns();
    bool on = now < atomic_load_explicit(&b->until_ns, memory_order_relaxed);
    if (on) {
        c->since_ns = 0; /* waits of these times say nothing of those to come */
    } else if (c->since_ns == 0) {
        (void)longest(c);
        c->since_ns = now;
    } else if (now - c->since_ns >= CROWD_LOOK_NS) {
        crowd_judge(b, now, now - c->since_ns, longest(c));
        c->since_ns = now;
    }
    bell_share(on);
    return on;
}
