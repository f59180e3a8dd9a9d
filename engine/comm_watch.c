/* engine/comm_watch.c - a star of TCP connections around rank 0, and a thread that listens to it.
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* getifaddrs, TCP_KEEPIDLE */
#include "engine/comm_watch.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/progress.h"
#include "base/stop.h"

enum { GATHER_MS = 30000, CONNECT_MS = 2000, SECRET_BYTES = 16, SECRET_TEXT = 33, MAX_ADDR = 16 };
enum { BEAT_MS = 500, BEATS = 8 }; /* between two, at most; in a silence that fails, at least */
enum { STOP_MS = 1000 };           /* by then a signal to all has reached rank 0 */
enum note_kind { NOTE_HELLO = 0x4f72, NOTE_FAIL, NOTE_BYE, NOTE_BEAT, NOTE_STOP };

struct note { /* all that is ever sent; ranks run the same program */
    int32_t kind, rank;
    char text[400];
};

/* A connection. Ranks send a beat to rank 0, which answers; the next follows an answer, so that a
 * stopped process finds two of them at most when it goes on. */
struct line {
    int fd;     /* -1 when closed */
    int silent; /* own beats since the other's last; -1: it has not begun */
    bool sent;  /* a beat that is not answered */
};

struct comm_watch {
    int rank, n; /* n: of connections; rank 0 has one to each other rank, the others one to it */
    struct line *line; /* [n] */
    int listen_fd;     /* rank 0 while gathering, else -1 */
    int wake[2];       /* a byte ends the thread */
    char secret[SECRET_TEXT];
    pthread_t id;
    bool started;
    pthread_mutex_t lock;              /* of writing to connections, who and why */
    atomic_bool failed, alone, orphan; /* alone: the connection to rank 0 is closed */
    atomic_int beat_ms, stall_beats;   /* silence that is a failure; 0: none is */
    bool said_stop;
    int stop_rank, stop_beats; /* on rank 0: who was told to stop; own beats since */
    char stop_by[16];
    int who;
    char why[400];
};

/* Rank at the other end of connection i. */
static int peer(const struct comm_watch *w, int i)
{
    return w->rank == 0 ? i + 1 : 0;
}

static void put(int fd, enum note_kind kind, int rank, const char *text)
{
    struct note m = { .kind = (int32_t)kind, .rank = rank };
    snprintf(m.text, sizeof m.text, "%s", text);
    if (fd >= 0) (void)!send(fd, &m, sizeof m, MSG_NOSIGNAL); /* a dead peer is seen by reading */
}

/* The next note of a connection; false when it has ended. */
static bool take(int fd, struct note *m)
{
    ssize_t got;
    do got = recv(fd, m, sizeof *m, MSG_WAITALL);
    while (got < 0 && errno == EINTR);
    if (got != (ssize_t)sizeof *m) return false;
    m->text[sizeof m->text - 1] = 0;
    return true;
}

/* ---- failure */

/* Keeps the first failure; rank 0 tells the others, who tell rank 0 of their own. */
static void failed(struct comm_watch *w, int rank, const char *why)
{
    pthread_mutex_lock(&w->lock);
    if (!atomic_load(&w->failed)) {
        w->who = rank;
        snprintf(w->why, sizeof w->why, "%s", why);
        for (int i = 0; i < w->n; i++)
            if (w->rank == 0 || rank == w->rank) put(w->line[i].fd, NOTE_FAIL, rank, w->why);
        atomic_store(&w->failed, true);
    }
    pthread_mutex_unlock(&w->lock);
}

void comm_watch_fail(struct comm_watch *w, int rank, const char *why)
{
    failed(w, rank, why);
}

void comm_watch_stall(struct comm_watch *w, int64_t ns)
{
    int64_t ms = ns / BEATS / 1000000;
    ms = ns <= 0 || ms > BEAT_MS ? BEAT_MS : ms < 1 ? 1 : ms;
    int64_t n = (ns + ms * 1000000 - 1) / (ms * 1000000);
    atomic_store(&w->beat_ms, (int)ms);
    atomic_store(&w->stall_beats, n < 0 ? 0 : n < INT32_MAX ? (int)n : INT32_MAX);
}

bool comm_watch_failed(const struct comm_watch *w)
{
    return atomic_load_explicit(&w->failed, memory_order_acquire);
}

bool comm_watch_orphan(const struct comm_watch *w)
{
    return atomic_load(&w->orphan);
}

int comm_watch_why(struct comm_watch *w, struct err *e)
{
    pthread_mutex_lock(&w->lock);
    int st = err_set(e, ST_DEVICE, "rank %d: %s", w->who, w->why);
    pthread_mutex_unlock(&w->lock);
    return st;
}

/* ---- the thread */

static void tell(struct comm_watch *w, int i, enum note_kind kind, const char *text)
{
    pthread_mutex_lock(&w->lock);
    put(w->line[i].fd, kind, w->rank, text);
    pthread_mutex_unlock(&w->lock);
}

static void heard(struct comm_watch *w, int i, const struct note *m)
{
    if (m->kind == NOTE_FAIL) failed(w, m->rank, m->text);
    if (m->kind == NOTE_BEAT) {
        w->line[i].silent = 0;
        w->line[i].sent = false;
        if (w->rank == 0) tell(w, i, NOTE_BEAT, "");
    }
    if (m->kind == NOTE_STOP && w->stop_rank == 0) {
        w->stop_rank = peer(w, i);
        snprintf(w->stop_by, sizeof w->stop_by, "%.15s", m->text);
    }
}

static void hear(struct comm_watch *w, int i)
{
    struct note m;
    bool there = take(w->line[i].fd, &m), bye = there && m.kind == NOTE_BYE;
    if (there && !bye) {
        heard(w, i, &m);
        return;
    }
    pthread_mutex_lock(&w->lock);
    close(w->line[i].fd);
    w->line[i].fd = -1;
    pthread_mutex_unlock(&w->lock);
    if (w->rank != 0 && !bye && !comm_watch_failed(w)) atomic_store(&w->orphan, true);
    if (!bye) failed(w, peer(w, i), "its process has ended");
    if (w->rank != 0) atomic_store(&w->alone, true);
}

/* One beat more without a word of line i. */
static void silent(struct comm_watch *w, int i)
{
    int most = atomic_load(&w->stall_beats);
    struct line *l = &w->line[i];
    if (l->silent < 0 || l->silent == INT32_MAX || ++l->silent <= most || most == 0) return;
    char why[120];
    snprintf(why, sizeof why,
             "its process has not answered for %g s: it is stopped, or its machine hangs",
             1e-3 * atomic_load(&w->beat_ms) * most);
    if (w->rank != 0 && !comm_watch_failed(w)) atomic_store(&w->orphan, true);
    failed(w, peer(w, i), why);
}

static void beat(struct comm_watch *w)
{
    char why[80];
    for (int i = 0; i < w->n; i++) {
        struct line *l = &w->line[i];
        if (l->fd < 0) continue;
        silent(w, i);
        if (w->rank == 0 || l->sent) continue;
        tell(w, i, NOTE_BEAT, "");
        l->sent = true;
    }
    if (w->rank != 0 && stop_asked() && !w->said_stop) {
        tell(w, 0, NOTE_STOP, stop_by());
        w->said_stop = true;
    }
    if (w->stop_rank == 0 || stop_asked()) return;
    if (++w->stop_beats * atomic_load(&w->beat_ms) <= STOP_MS) return;
    snprintf(why, sizeof why, "its process was told to stop (%s), and rank 0 was not", w->stop_by);
    failed(w, w->stop_rank, why);
}

static void *listen_to_all(void *p)
{
    struct comm_watch *w = p;
    struct pollfd *at = mem_zalloc((size_t)w->n + 1, sizeof *at);
    int64_t last_ns = clock_mono_ns();
    for (;;) {
        int64_t next_ns = last_ns + atomic_load(&w->beat_ms) * INT64_C(1000000);
        for (int i = 0; i < w->n; i++)
            at[i] = (struct pollfd){ .fd = w->line[i].fd, .events = POLLIN };
        at[w->n] = (struct pollfd){ .fd = w->wake[0], .events = POLLIN };
        int64_t left_ns = next_ns - clock_mono_ns();
        int ms = left_ns > 0 ? (int)((left_ns + 999999) / 1000000) : 0;
        if (poll(at, (nfds_t)w->n + 1, ms) < 0) continue; /* EINTR */
        if (at[w->n].revents) break;
        for (int i = 0; i < w->n; i++) /* first what came while this process was stopped itself */
            if (at[i].fd >= 0 && at[i].revents) hear(w, i);
        if (clock_mono_ns() < next_ns) continue;
        if (!comm_watch_failed(w)) beat(w);
        last_ns = clock_mono_ns();
    }
    free(at);
    return NULL;
}

static int start(struct comm_watch *w, struct err *e)
{
    sigset_t all, before;
    sigfillset(&all); /* signals are the main thread's */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    w->started = pthread_create(&w->id, NULL, listen_to_all, w) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return w->started ? ST_OK : err_set(e, ST_DEVICE, "the system refuses a thread");
}

/* ---- connecting */

static struct comm_watch *fresh(int rank, int n)
{
    struct comm_watch *w = mem_zalloc(1, sizeof *w);
    w->rank = rank;
    w->n = n;
    w->line = mem_zalloc((size_t)n + 1, sizeof *w->line);
    for (int i = 0; i < n; i++) /* rank 0 begins when it has gathered all, who beat from then on */
        w->line[i] = (struct line){ .fd = -1, .silent = rank == 0 ? 0 : -1 };
    w->listen_fd = -1;
    comm_watch_stall(w, COMM_WATCH_STALL_NS);
    pthread_mutex_init(&w->lock, NULL);
    if (pipe(w->wake) != 0) abort(); /* no descriptors at the very start */
    return w;
}

static int tcp(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    static const struct {
        int level, name, value;
    } opt[] = { { SOL_SOCKET, SO_KEEPALIVE, 1 },
                { IPPROTO_TCP, TCP_KEEPIDLE, 1 }, /* s */
                { IPPROTO_TCP, TCP_KEEPINTVL, 1 },
                { IPPROTO_TCP, TCP_KEEPCNT, 3 },
                { IPPROTO_TCP, TCP_NODELAY, 1 } };
    for (size_t i = 0; i < sizeof opt / sizeof *opt; i++)
        setsockopt(fd, opt[i].level, opt[i].name, &opt[i].value, sizeof opt[i].value);
    return fd;
}

static void receive_within(int fd, int ms)
{
    struct timeval t = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
}

/* "SECRET PORT ADDRESS..." */
static void describe(const struct comm_watch *w, int port, bool one_host, char *place)
{
    size_t at = (size_t)snprintf(place, COMM_WATCH_PLACE, "%s %d", w->secret, port);
    struct ifaddrs *all = NULL, *a;
    int n = 0;
    if (one_host || getifaddrs(&all) != 0) {
        snprintf(place + at, COMM_WATCH_PLACE - at, " 127.0.0.1");
        return;
    }
    for (a = all; a && n < MAX_ADDR; a = a->ifa_next) {
        char text[INET_ADDRSTRLEN];
        struct sockaddr_in in;
        if (!a->ifa_addr || a->ifa_addr->sa_family != AF_INET) continue;
        memcpy(&in, a->ifa_addr, sizeof in);
        if (ntohl(in.sin_addr.s_addr) >> 24 == 127) continue;
        inet_ntop(AF_INET, &in.sin_addr, text, sizeof text);
        at += (size_t)snprintf(place + at, COMM_WATCH_PLACE - at, " %s", text);
        n++;
    }
    freeifaddrs(all);
}

struct comm_watch *comm_watch_listen(int n, bool one_host, char place[COMM_WATCH_PLACE],
                                     struct err *e)
{
    struct comm_watch *w = fresh(0, n - 1);
    unsigned char raw[SECRET_BYTES];
    struct sockaddr_in in = { .sin_family = AF_INET };
    socklen_t len = sizeof in;
    in.sin_addr.s_addr = htonl(one_host ? INADDR_LOOPBACK : INADDR_ANY);
    w->listen_fd = tcp();
    if (w->listen_fd < 0 || getrandom(raw, sizeof raw, 0) != sizeof raw ||
        bind(w->listen_fd, (struct sockaddr *)&in, sizeof in) != 0 ||
        listen(w->listen_fd, n) != 0 ||
        getsockname(w->listen_fd, (struct sockaddr *)&in, &len) != 0) {
        err_set(e, ST_DEVICE, "rank 0 cannot listen for the others: %s", strerror(errno));
        comm_watch_close(w, 0);
        return NULL;
    }
    for (int i = 0; i < SECRET_BYTES; i++) snprintf(w->secret + 2 * i, 3, "%02x", raw[i]);
    describe(w, ntohs(in.sin_port), one_host, place);
    return w;
}

/* Who has come; strangers are sent away. */
static void admit(struct comm_watch *w, int fd)
{
    struct note m;
    receive_within(fd, CONNECT_MS);
    if (!take(fd, &m) || m.kind != NOTE_HELLO || m.rank < 1 || m.rank > w->n ||
        w->line[m.rank - 1].fd >= 0 || strcmp(m.text, w->secret) != 0) {
        close(fd);
        return;
    }
    receive_within(fd, 0);
    w->line[m.rank - 1].fd = fd;
}

static int missing(const struct comm_watch *w)
{
    for (int i = 0; i < w->n; i++)
        if (w->line[i].fd < 0) return i + 1;
    return 0;
}

int comm_watch_gather(struct comm_watch *w, struct err *e)
{
    int64_t end = clock_mono_ns() + (int64_t)GATHER_MS * 1000000;
    while (missing(w)) {
        int64_t left_ms = (end - clock_mono_ns()) / 1000000;
        struct pollfd at = { .fd = w->listen_fd, .events = POLLIN };
        if (left_ms <= 0)
            return err_set(e, ST_DEVICE, "rank %d has not connected to rank 0 within %d s",
                           missing(w), GATHER_MS / 1000);
        if (poll(&at, 1, (int)left_ms) <= 0) continue;
        int fd = accept(w->listen_fd, NULL, NULL);
        if (fd >= 0) admit(w, fd);
    }
    close(w->listen_fd);
    w->listen_fd = -1;
    for (int i = 0; i < w->n; i++)
        put(w->line[i].fd, NOTE_BEAT, 0, ""); /* silence counts from now */
    return start(w, e);
}

/* A connection to one address within CONNECT_MS, or -1. */
static int reach(const char *address, int port)
{
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    int fd = tcp(), why = 0;
    socklen_t len = sizeof why;
    if (fd < 0 || inet_pton(AF_INET, address, &in.sin_addr) != 1) return -1;
    int flags = fcntl(fd, F_GETFL);
    fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    struct pollfd at = { .fd = fd, .events = POLLOUT };
    bool on_way = connect(fd, (struct sockaddr *)&in, sizeof in) == 0 || errno == EINPROGRESS;
    if (on_way && poll(&at, 1, CONNECT_MS) == 1 &&
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &why, &len) == 0 && why == 0) {
        fcntl(fd, F_SETFL, flags);
        return fd;
    }
    close(fd);
    return -1;
}

struct comm_watch *comm_watch_join(int rank, const char *place, struct err *e)
{
    char text[COMM_WATCH_PLACE], *rest = NULL;
    struct comm_watch *w = fresh(rank, 1);
    snprintf(text, sizeof text, "%s", place);
    const char *secret = strtok_r(text, " ", &rest), *port = strtok_r(NULL, " ", &rest), *a;
    while (port && w->line[0].fd < 0 && (a = strtok_r(NULL, " ", &rest)))
        w->line[0].fd = reach(a, (int)strtol(port, NULL, 10));
    if (w->line[0].fd < 0) {
        err_set(e, ST_DEVICE, "rank %d cannot reach rank 0", rank);
        comm_watch_close(w, 0);
        return NULL;
    }
    put(w->line[0].fd, NOTE_HELLO, rank, secret);
    if (start(w, e) == ST_OK) return w;
    comm_watch_close(w, 0);
    return NULL;
}

void comm_watch_close(struct comm_watch *w, int linger_ms)
{
    if (!w) return;
    int64_t end = clock_mono_ns() + (int64_t)linger_ms * 1000000;
    while (w->rank != 0 && w->started && comm_watch_failed(w) && !atomic_load(&w->alone) &&
           clock_mono_ns() < end)
        nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
    if (w->started) {
        (void)!write(w->wake[1], "", 1);
        pthread_join(w->id, NULL);
    }
    for (int i = 0; i < w->n; i++) {
        put(w->line[i].fd, NOTE_BYE, w->rank, "");
        if (w->line[i].fd >= 0) close(w->line[i].fd);
    }
    if (w->listen_fd >= 0) close(w->listen_fd);
    close(w->wake[0]);
    close(w->wake[1]);
    pthread_mutex_destroy(&w->lock);
    free(w->line);
    free(w);
}
