/* tests/test_comm.c - the thread communicator: sums, order, messages, failure; life of processes.
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* sched_getaffinity */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/progress.h"
#include "base/stop.h"
#include "engine/bell.h"
#include "engine/comm.h"
#include "engine/comm_watch.h"
#include "engine/crowd.h"
#include "engine/team.h"
#include "tests/comm_check.h"
#include "tests/test.h"

struct job {
    struct comm_thread *t;
    int rank;
    void (*fn)(struct job *);
    int st;
    struct err e;
    long wrong;
};

static void *call(void *p)
{
    struct job *j = p;
    j->fn(j);
    return NULL;
}

/* fn on every rank of tp x pp; the jobs, for the caller to look at and free. */
static struct job *on_all(struct comm_thread *t, int n, void (*fn)(struct job *))
{
    struct job *j = mem_zalloc((size_t)n, sizeof *j);
    pthread_t *id = mem_zalloc((size_t)n, sizeof *id);
    for (int i = 0; i < n; i++) {
        j[i] = (struct job){ .t = t, .rank = i, .fn = fn };
        if (pthread_create(&id[i], NULL, call, &j[i]) != 0) abort();
    }
    for (int i = 0; i < n; i++) pthread_join(id[i], NULL);
    free(id);
    return j;
}

static void sums(struct job *j)
{
    j->wrong = comm_check_sums(comm_thread_world(j->t, j->rank), 40, 1000, &j->e);
}

static void check_all(struct job *j, int n)
{
    for (int i = 0; i < n; i++) {
        CHECK_INT(j[i].st, ST_OK);
        CHECK_INT(j[i].wrong, 0);
    }
    free(j);
}

/* Bits, on every rank, of the tree in rank order; also with more ranks than processors, asleep. */
TEST(comm_allreduce_is_the_tree_in_rank_order_on_all_ranks)
{
    static const int ranks[] = { 1, 2, 3, 4, 5, 8 };
    for (size_t k = 0; k < sizeof ranks / sizeof *ranks; k++)
        for (int spin = 0; spin <= 2000; spin += 2000) {
            struct comm_thread *t = comm_thread_open(ranks[k], 1, spin, NULL);
            check_all(on_all(t, ranks[k], sums), ranks[k]);
            comm_thread_close(t);
        }
}

static void others(struct job *j)
{
    j->wrong =
        comm_check_others(comm_thread_world(j->t, j->rank), comm_thread_tp(j->t, j->rank), &j->e);
}

TEST(comm_gathers_within_the_stage_and_broadcasts_to_the_world)
{
    struct comm_thread *t = comm_thread_open(2, 3, 50, NULL);
    check_all(on_all(t, 6, others), 6);
    comm_thread_close(t);
}

static void pipeline(struct job *j)
{
    j->wrong = comm_check_messages(comm_thread_world(j->t, j->rank), &j->e);
}

TEST(comm_messages_arrive_whole_and_in_order)
{
    struct comm_thread *t = comm_thread_open(1, 4, 100, NULL);
    for (int r = 0; r < 4; r++) comm_thread_reserve(t, r, (r + 1) % 4, COMM_CHECK_BYTES);
    check_all(on_all(t, 4, pipeline), 4);
    comm_thread_close(t);
}

static void one_fails(struct job *j)
{
    struct comm *c = comm_thread_world(j->t, j->rank);
    float x[4] = { 0 };
    size_t bytes = sizeof x;
    j->st = comm_barrier(c, &j->e);
    if (j->rank == 2)
        comm_fail(c, "out of memory");
    else if (j->rank == 0)
        j->st = comm_recv(c, 1, x, &bytes, &j->e);
    else
        j->st = comm_allreduce(c, x, 4, &j->e);
    if (j->rank != 2) j->wrong = comm_barrier(c, NULL) == ST_OK; /* and it stays broken */
}

TEST(comm_a_failing_rank_wakes_all_others_with_its_reason)
{
    struct comm_thread *t = comm_thread_open(4, 1, 10, NULL);
    comm_thread_reserve(t, 1, 0, 64);
    struct job *j = on_all(t, 4, one_fails);
    for (int i = 0; i < 4; i++) {
        CHECK_INT(j[i].st, i == 2 ? ST_OK : ST_DEVICE);
        CHECK_INT(j[i].wrong, 0);
        CHECK_TEXT(j[i].e.text, i == 2 ? "" : "rank 2: out of memory");
    }
    free(j);
    comm_thread_close(t);
}

static void talks_wrong(struct job *j)
{
    j->wrong = comm_check_misfits(comm_thread_world(j->t, j->rank), &j->e);
}

TEST(comm_refuses_messages_that_do_not_fit)
{
    struct err e = { 0 };
    struct comm_thread *t = comm_thread_open(2, 1, 10, NULL);
    comm_thread_reserve(t, 0, 1, 64);
    check_all(on_all(t, 2, talks_wrong), 2);
    comm_thread_close(t);
    CHECK(comm_thread_open(0, 1, 0, &e) == NULL);
    CHECK_HAS(e.text, "ranks");
}

/* ---- life of processes */

enum { WATCHED = 4, PATIENCE_MS = 20000 };
enum end { END_WELL, END_KILLED, END_SAYS, END_SILENT, END_TOLD };
static const int64_t STALL_NS = 400000000;
static const char *const end_words[] = {
    "", "its process has ended", "out of memory",
    "its process has not answered for 0.4 s: it is stopped, or its machine hangs",
    "its process was told to stop (SIGTERM), and rank 0 was not"
};

/* An address can be had, and not reached, where the interface is down. */
static void need_loopback(void)
{
    char place[COMM_WATCH_PLACE];
    struct comm_watch *w = comm_watch_listen(2, true, place, NULL);
    struct comm_watch *other = w ? comm_watch_join(1, place, NULL) : NULL;
    if (!other) SKIP("no loopback interface");
    comm_watch_close(other, 0);
    comm_watch_close(w, 0);
}

/* What rank `rank` of a watch sees when rank `who` ends that way; 0 when it is as it should be. */
static int watched(int rank, int who, enum end how, struct comm_watch *w)
{
    char want[100];
    struct err e = { 0 };
    if (!w || (rank == 0 && comm_watch_gather(w, &e) != ST_OK)) return 10;
    if (how == END_KILLED && rank == who) raise(SIGKILL);
    if (how == END_SAYS && rank == who) comm_watch_fail(w, who, "out of memory");
    comm_watch_stall(w, how == END_SILENT ? STALL_NS : 0);
    if (how == END_SILENT && rank == who) raise(SIGSTOP);
    if (how == END_TOLD) stop_install();
    if (how == END_TOLD && rank == who) raise(SIGTERM);
    for (int ms = 0; how != END_WELL && !comm_watch_failed(w) && ms < PATIENCE_MS; ms++)
        nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
    bool failed = comm_watch_failed(w), orphan = comm_watch_orphan(w);
    if (failed) comm_watch_why(w, &e);
    comm_watch_close(w, how == END_SILENT && who == 0 ? 0 : PATIENCE_MS);
    if (failed != (how != END_WELL)) return 11;
    bool mute = how == END_KILLED || how == END_SILENT;
    if (orphan != (mute && who == 0 && rank != 0)) return 12;
    snprintf(want, sizeof want, "rank %d: %s", who, end_words[how]);
    return failed && strcmp(e.text, want) != 0 ? 13 : 0;
}

/* Ranks of a watch as processes; how many ended otherwise than they should. */
static int watch_ends(int who, enum end how)
{
    char place[COMM_WATCH_PLACE];
    pid_t id[WATCHED];
    int wrong = 0, st;
    need_loopback();
    struct comm_watch *w = comm_watch_listen(WATCHED, true, place, NULL);
    if (!w) SKIP("no loopback interface");
    for (int rank = 0; rank < WATCHED; rank++) {
        if ((id[rank] = fork()) != 0) continue;
        if (rank == 0) _exit(watched(0, who, how, w));
        comm_watch_close(w, 0); /* its copy */
        _exit(watched(rank, who, how, comm_watch_join(rank, place, NULL)));
    }
    comm_watch_close(w, 0);
    for (int i = 1; i <= WATCHED; i++) { /* who is stopped last: he ends by being killed */
        int rank = (who + i) % WATCHED;
        if (how == END_SILENT && rank == who) kill(id[rank], SIGKILL);
        waitpid(id[rank], &st, 0);
        bool killed = (how == END_KILLED || how == END_SILENT) && rank == who;
        bool fine = killed ? WIFSIGNALED(st) : WIFEXITED(st) && WEXITSTATUS(st) == 0;
        if (!fine) printf("rank %d ended with %x\n", rank, (unsigned)st);
        wrong += !fine;
    }
    return wrong;
}

TEST(comm_watch_a_killed_process_is_named_to_all)
{
    CHECK_INT(watch_ends(2, END_KILLED), 0);
    CHECK_INT(watch_ends(0, END_KILLED), 0);
}

TEST(comm_watch_a_failure_reaches_all_with_its_reason)
{
    CHECK_INT(watch_ends(3, END_SAYS), 0);
    CHECK_INT(watch_ends(0, END_SAYS), 0);
}

TEST(comm_watch_a_stopped_process_is_named_to_all)
{
    CHECK_INT(watch_ends(2, END_SILENT), 0);
    CHECK_INT(watch_ends(0, END_SILENT), 0);
}

TEST(comm_watch_a_rank_that_alone_is_told_to_stop_is_named_to_all)
{
    CHECK_INT(watch_ends(1, END_TOLD), 0);
}

/* Longer than a busy machine keeps a process waiting, shorter than the job's sleep, which its life
 * contains. */
static const int64_t PATIENCE_NS = 1500000000, SLEEP_NS = 1800000000, LIFE_NS = 2500000000;

/* Says on `ready` that it is there, and how its life went. */
static int lives(int rank, struct comm_watch *w, bool told, int ready)
{
    if (!w || (rank == 0 && comm_watch_gather(w, NULL) != ST_OK)) return 10;
    comm_watch_stall(w, PATIENCE_NS);
    stop_install();
    const int64_t end = clock_mono_ns() + LIFE_NS;
    if (write(ready, "", 1) != 1) return 12;
    if (told) raise(SIGTERM);
    while (clock_mono_ns() < end) nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
    bool failed = comm_watch_failed(w);
    comm_watch_close(w, 0);
    return failed ? 11 : 0;
}

static int all_live(bool paused, bool told)
{
    char place[COMM_WATCH_PLACE], byte;
    const struct timespec nap = { SLEEP_NS / 1000000000, SLEEP_NS % 1000000000 };
    pid_t id[2];
    int wrong = 0, st, ready[2];
    need_loopback();
    struct comm_watch *w = comm_watch_listen(2, true, place, NULL);
    if (!w) SKIP("no loopback interface");
    if (pipe(ready) != 0) SKIP("no pipe");
    for (int rank = 0; rank < 2; rank++) {
        if ((id[rank] = fork()) != 0) continue;
        if (rank == 0) _exit(lives(0, w, told, ready[1]));
        comm_watch_close(w, 0); /* its copy */
        _exit(lives(rank, comm_watch_join(rank, place, NULL), told, ready[1]));
    }
    comm_watch_close(w, 0);
    close(ready[1]);
    for (int i = 0; i < 2; i++) wrong += read(ready[0], &byte, 1) != 1;
    close(ready[0]);
    for (int i = 0; i < 2 && paused; i++) kill(id[i], SIGSTOP);
    for (int i = 0; i < 2 && paused; i++) waitpid(id[i], &st, WUNTRACED);
    if (paused) nanosleep(&nap, NULL);
    for (int i = 0; i < 2 && paused; i++) kill(id[i], SIGCONT);
    for (int i = 0; i < 2; i++) {
        waitpid(id[i], &st, 0);
        if (st) printf("rank %d ended with %x\n", i, (unsigned)st);
        wrong += st != 0;
    }
    return wrong;
}

TEST(comm_watch_a_job_that_sleeps_as_a_whole_or_is_told_to_stop_lives_on)
{
    CHECK_INT(all_live(true, false), 0);
    CHECK_INT(all_live(false, true), 0);
}

TEST(comm_watch_an_end_in_good_order_is_no_failure)
{
    CHECK_INT(watch_ends(-1, END_WELL), 0);
}

/* Who does not know the secret, or says nothing, is not taken for a rank. */
TEST(comm_watch_sends_strangers_away)
{
    char place[COMM_WATCH_PLACE], wrong[COMM_WATCH_PLACE];
    need_loopback();
    struct comm_watch *w = comm_watch_listen(2, true, place, NULL);
    if (!CHECK(w != NULL)) return;
    snprintf(wrong, sizeof wrong, "%s", place);
    wrong[0] = place[0] == 'a' ? 'b' : 'a';
    struct comm_watch *stranger = comm_watch_join(1, wrong, NULL);
    struct comm_watch *no_rank = comm_watch_join(7, place, NULL);
    struct comm_watch *friend = comm_watch_join(1, place, NULL);
    CHECK(stranger && no_rank && friend);
    CHECK_INT(comm_watch_gather(w, NULL), ST_OK);
    CHECK(!comm_watch_failed(w));
    CHECK(!comm_watch_failed(friend));
    comm_watch_close(stranger, 0);
    comm_watch_close(no_rank, 0);
    CHECK(!comm_watch_failed(w));
    comm_watch_close(friend, 0);
    comm_watch_close(w, 0);
}

TEST(comm_watch_says_that_nobody_listens)
{
    char place[COMM_WATCH_PLACE];
    struct err e = { 0 };
    struct comm_watch *w = comm_watch_listen(2, true, place, NULL);
    if (!w) SKIP("no loopback interface");
    comm_watch_close(w, 0);
    CHECK(comm_watch_join(1, place, &e) == NULL);
    CHECK_TEXT(e.text, "rank 1 cannot reach rank 0");
}

static void add_part(void *arg, int part, int n_part)
{
    int *x = arg;
    for (int i = part; i < 97; i += n_part) x[i]++;
}

TEST(team_runs_every_part_once_a_call)
{
    for (int n = 1; n <= 5; n++)
        for (int spin = 0; spin <= 500; spin += 500) {
            int x[97] = { 0 };
            struct team *t = team_open(n, -1, spin, NULL);
            CHECK_INT(team_size(t), n);
            for (int k = 0; k < 50; k++) team_run(t, add_part, x);
            team_close(t);
            for (int i = 0; i < 97; i++) CHECK_INT(x[i], 50);
        }
}

static void note_cpus(void *arg, int part, int n_part)
{
    cpu_set_t may;
    (void)n_part;
    ((int *)arg)[part] = sched_getaffinity(0, sizeof may, &may) == 0 ? CPU_COUNT(&may) : 0;
}

/* Two at once, closed in either order. */
TEST(team_gives_its_caller_the_processors_back)
{
    cpu_set_t before, now;
    CHECK_INT(sched_getaffinity(0, sizeof before, &before), 0);
    for (int order = 0; order < 2; order++) {
        int cpus[2];
        struct team *t[3];
        for (int i = 0; i < 2; i++) t[i] = team_open(2, 0, 0, NULL);
        CHECK_INT(sched_getaffinity(0, sizeof now, &now), 0);
        CHECK_INT(CPU_COUNT(&now), 1);
        CHECK_INT(team_cpus(), CPU_COUNT(&before));
        t[2] = team_open(2, -1, 0, NULL); /* not of one processor, whatever its caller has */
        team_run(t[2], note_cpus, cpus);
        CHECK_INT(cpus[1], CPU_COUNT(&before));
        team_close(t[2]);
        team_close(t[order]);
        team_close(t[!order]);
        CHECK_INT(sched_getaffinity(0, sizeof now, &now), 0);
        CHECK(CPU_EQUAL(&now, &before));
    }
}

/* ---- others on the same processors */

enum { MS = 1000000 };

TEST(crowd_a_quarter_of_the_time_is_too_long_and_each_try_in_vain_doubles_the_while)
{
    struct crowd_board b = { 0 };
    int64_t now = INT64_C(1000000000000);
    crowd_judge(&b, now, 32 * MS, 8 * MS);
    CHECK_INT(b.until_ns, 0);
    crowd_judge(&b, now, 32 * MS, 9 * MS);
    CHECK_INT(b.until_ns, now + CROWD_HOLD_NS);
    crowd_judge(&b, now + 50 * MS, 32 * MS, 32 * MS); /* of before: known already */
    CHECK_INT(b.until_ns, now + CROWD_HOLD_NS);
    for (int64_t want = 2 * CROWD_HOLD_NS; want < 4 * CROWD_HOLD_MOST_NS; want *= 2) {
        int64_t hold = want < CROWD_HOLD_MOST_NS ? want : CROWD_HOLD_MOST_NS;
        now = b.until_ns + 40 * MS;
        crowd_judge(&b, now, 32 * MS, 20 * MS);
        CHECK_INT(b.until_ns, now + hold);
    }
    now = b.until_ns + CROWD_HOLD_MOST_NS; /* that went well for long */
    crowd_judge(&b, now, 32 * MS, 20 * MS);
    CHECK_INT(b.until_ns, now + CROWD_HOLD_NS);
}

TEST(crowd_a_team_leaves_its_processors_while_others_want_them)
{
    struct crowd_board b = { 0 };
    cpu_set_t before;
    int cpus[2];
    CHECK_INT(sched_getaffinity(0, sizeof before, &before), 0);
    crowd_share(&b);
    struct team *t = team_open(2, 0, 1000, NULL);
    for (int i = 0; i < 3; i++) {
        atomic_store(&b.until_ns, i == 1 ? INT64_MAX : 0);
        team_look(t);
        team_run(t, note_cpus, cpus);
        for (int k = 0; k < 2; k++) CHECK_INT(cpus[k], i == 1 ? CPU_COUNT(&before) : 1);
        CHECK(i == 1 ? bell_spins(1000) < 1000 : bell_spins(1000) == 1000);
    }
    team_close(t);
    crowd_share(NULL);
}
