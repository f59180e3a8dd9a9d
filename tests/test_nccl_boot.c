/* tests/test_nccl_boot.c - how NCCL's identifiers get to all ranks, and who is named when they do
 * not. SPDX-License-Identifier: Apache-2.0 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/link.h"
#include "engine/nccl_boot.h"
#include "tests/nccl_fake.h"
#include "tests/nccl_job.h"
#include "tests/test.h"

enum { BLOB = 1000, LIMIT_MS = 20000 };

struct blobs {
    unsigned char data[NCCL_FAKE_RANKS][BLOB];
    struct nccl_boot_job job;
    int absent, impatient; /* -1: none */
};

static void boot_on_thread(struct nccl_job *j)
{
    struct blobs *b = j->arg;
    if (j->rank == b->absent) return;
    int limit_ms = j->rank == b->impatient ? 60 : LIMIT_MS;
    j->st =
        nccl_boot_comm(comm_thread_world(j->t, j->rank), b->data[j->rank], BLOB, limit_ms, &j->e);
}

static void fill_root(struct blobs *b)
{
    memset(b->data, 0, sizeof b->data);
    for (int i = 0; i < BLOB; i++) b->data[0][i] = (unsigned char)(i * 7);
}

/* Rank 0 knows who is missing; the others know of rank 0 only. */
TEST(nccl_ids_reach_all_ranks_of_a_communicator)
{
    static const struct {
        int absent, impatient;
        const char *says;
    } of[] = { { -1, -1, NULL },
               { 3, 0, "rank 3 has not come to the start of NCCL" },
               { 0, 2, "rank 0 has not come to the start of NCCL" } };
    static struct blobs b;
    struct nccl_job job[5];
    for (size_t k = 0; k < sizeof of / sizeof *of; k++) {
        struct comm_thread *t = comm_thread_open(5, 1, 50, NULL);
        for (int r = 1; r < 5; r++) comm_thread_reserve(t, r, 0, NCCL_BOOT_HELLO_BYTES);
        fill_root(&b);
        b.absent = of[k].absent;
        b.impatient = of[k].impatient;
        nccl_job_run(t, 5, boot_on_thread, &b, job);
        for (int r = 0; r < 5; r++) {
            bool all = of[k].absent < 0;
            if (all) CHECK(memcmp(b.data[r], b.data[0], BLOB) == 0);
            CHECK_INT(job[r].st, all || r == of[k].absent ? ST_OK : ST_DEVICE);
            if (!all && r != of[k].absent) CHECK_HAS(job[r].e.text, of[k].says);
        }
        comm_thread_close(t);
    }
}

static void board_on_thread(struct nccl_job *j)
{
    struct comm *c = comm_thread_world(j->t, j->rank);
    comm_nccl_seen *seen;
    j->st = nccl_boot_board(c, &seen, &j->e);
    if (j->st != ST_OK || !seen) return;
    atomic_store(&seen[j->rank], j->rank + 5);
    if (comm_barrier(c, &j->e) != ST_OK) j->st = ST_DEVICE;
    for (int r = 0; r < c->n && j->st == ST_OK; r++)
        if (atomic_load(&seen[r]) != r + 5) j->st = ST_RANGE;
    nccl_boot_board_close(seen, c->n);
}

TEST(nccl_ranks_see_each_other_in_shared_memory)
{
    struct nccl_job job[4];
    struct comm_thread *t = comm_thread_open(2, 2, 50, NULL);
    nccl_job_run(t, 4, board_on_thread, NULL, job);
    for (int r = 0; r < 4; r++) CHECK_OK(job[r].st, &job[r].e);
    comm_thread_close(t);
}

static void file_on_thread(struct nccl_job *j)
{
    struct blobs *b = j->arg;
    struct nccl_boot_job job = b->job;
    if (j->rank == b->absent) return;
    job.rank = j->rank;
    j->st = nccl_boot_file(&job, b->data[j->rank], BLOB, &j->e);
}

static void put_file(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "w");
    if (!f || fwrite(data, 1, n, f) != n || fclose(f) != 0) abort();
}

static bool is_there(const char *path)
{
    return access(path, F_OK) == 0;
}

TEST(nccl_ids_reach_all_ranks_by_files)
{
    static struct blobs b;
    struct nccl_job job[4];
    char name[4200];
    fill_root(&b);
    b.absent = -1;
    b.job = (struct nccl_boot_job){ .n = 4, .limit_ms = LIMIT_MS };
    snprintf(b.job.path, sizeof b.job.path, "%s", test_path("id"));
    for (int round = 0; round < 3; round++) {
        snprintf(b.job.key, sizeof b.job.key, "job %d", round / 2);
        if (round == 1) { /* what is torn or foreign is not taken */
            put_file(b.job.path, "torn", 4);
            put_file(test_path("id.2"), "orrNCCL1", 8);
        }
        fill_root(&b);
        b.data[0][5] = (unsigned char)round;
        nccl_job_run(NULL, 4, file_on_thread, &b, job);
        for (int r = 0; r < 4; r++) {
            CHECK_OK(job[r].st, &job[r].e);
            CHECK(memcmp(b.data[r], b.data[0], BLOB) == 0);
            snprintf(name, sizeof name, "%s.%d", b.job.path, r);
            CHECK(!is_there(name));
        }
        CHECK(!is_there(b.job.path));
    }
}

/* A virtual clock that keeps a copy of a file once it has appeared. */
struct stash {
    const char *path;
    char data[4 * BLOB];
    size_t n;
    int64_t now_ns;
};

static int64_t stash_now(void *arg)
{
    return ((struct stash *)arg)->now_ns;
}

static void stash_nap(void *arg, int64_t ns)
{
    struct stash *k = arg;
    FILE *f = k->n ? NULL : fopen(k->path, "r");
    k->now_ns += ns;
    if (!f) return;
    k->n = fread(k->data, 1, sizeof k->data, f);
    fclose(f);
}

/* What starts that were killed have left, with the same path and key: rank 1's file, and the answer
 * of a rank 0 that took it for a living one. Neither ends the wait nor is taken for new. */
TEST(nccl_ids_of_an_earlier_start_are_not_taken)
{
    static struct blobs b;
    struct nccl_job job[2];
    struct err e = { 0 };
    struct stash hello = { .path = test_path("id.1") }, answer = { .path = test_path("id") };
    struct nccl_boot_job j = { .n = 2, .rank = 1, .key = "same" };
    snprintf(j.path, sizeof j.path, "%s", answer.path);
    fill_root(&b);
    b.absent = -1;
    j.clock = (struct nccl_clock){ stash_now, stash_nap, &hello };
    CHECK_INT(nccl_boot_file(&j, b.data[1], BLOB, NULL), ST_DEVICE);
    put_file(hello.path, hello.data, hello.n);
    j.rank = 0;
    j.clock.arg = &answer;
    CHECK_INT(nccl_boot_file(&j, b.data[0], BLOB, &e), ST_DEVICE);
    CHECK_HAS(e.text, "rank 1 has not come");
    CHECK(hello.n > 0 && answer.n > BLOB);
    put_file(hello.path, hello.data, hello.n);
    put_file(answer.path, answer.data, answer.n);
    b.data[0][7] = 99; /* of this start */
    b.job = j;
    b.job.limit_ms = LIMIT_MS;
    b.job.clock = nccl_clock_real;
    nccl_job_run(NULL, 2, file_on_thread, &b, job);
    for (int r = 0; r < 2; r++) CHECK_OK(job[r].st, &job[r].e);
    CHECK(memcmp(b.data[1], b.data[0], BLOB) == 0);
}

/* Rank 0 alone, its clock virtual: the first who is missing is named after 30 s. */
TEST(nccl_ids_wait_30_s_at_most)
{
    struct nccl_boot_job j = { .n = 3, .clock = nccl_fake_clock, .key = "7.0" };
    unsigned char data[16] = { 1 };
    struct err e = { 0 }, f = { 0 };
    snprintf(j.path, sizeof j.path, "%s", test_path("id"));
    nccl_fake.now_ns = 0;
    CHECK_INT(nccl_boot_file(&j, data, sizeof data, &e), ST_DEVICE);
    CHECK(nccl_fake.now_ns / 1000000000 <= 30);
    CHECK_HAS(e.text, "rank 1 has not come to the start of NCCL within 30 s");
    CHECK_HAS(e.text, "job 7.0");
    j.rank = 1;
    CHECK_INT(nccl_boot_file(&j, data, sizeof data, &f), ST_DEVICE);
    CHECK_HAS(f.text, "rank 2 has not come");
    CHECK(!is_there(test_path("id.1")));
    snprintf(j.path, sizeof j.path, "%s", test_path("nowhere/id"));
    CHECK_INT(nccl_boot_file(&j, data, sizeof data, NULL), ST_IO);
}

static void slurm_says(const char *rank, const char *n)
{
    static const char *const all[] = { "ORRERY_NCCL_DIR",      "SLURM_SUBMIT_DIR",   "SLURM_JOB_ID",
                                       "SLURM_STEP_ID",        "SLURM_PROCID",       "SLURM_NTASKS",
                                       "SLURM_STEP_NUM_TASKS", "SLURM_RESTART_COUNT" };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) unsetenv(all[i]);
    setenv("SLURM_JOB_ID", "4711", 1);
    setenv("SLURM_STEP_ID", "2", 1);
    setenv("SLURM_SUBMIT_DIR", "/shared/run", 1);
    if (rank) setenv("SLURM_PROCID", rank, 1);
    if (n) setenv("SLURM_NTASKS", n, 1);
}

TEST(nccl_ids_find_their_place_in_the_environment_of_slurm)
{
    struct nccl_boot_job j;
    struct err e = { 0 }, f = { 0 };
    slurm_says("3", "8");
    CHECK_INT(nccl_boot_slurm(&j, NULL), ST_OK);
    CHECK_INT(j.rank, 3);
    CHECK_INT(j.n, 8);
    CHECK_TEXT(j.path, "/shared/run/.orrery-nccl-4711.2");
    CHECK_TEXT(j.key, "4711.2.0");
    setenv("SLURM_STEP_NUM_TASKS", "4", 1); /* of the step, not of the job */
    setenv("SLURM_RESTART_COUNT", "1", 1);
    setenv("ORRERY_NCCL_DIR", "/scratch", 1);
    CHECK_INT(nccl_boot_slurm(&j, NULL), ST_OK);
    CHECK_INT(j.n, 4);
    CHECK_TEXT(j.path, "/scratch/.orrery-nccl-4711.2");
    CHECK_TEXT(j.key, "4711.2.1");
    slurm_says("8", "8");
    CHECK_INT(nccl_boot_slurm(&j, &e), ST_USAGE);
    CHECK_HAS(e.text, "SLURM_PROCID is '8', which is no number of 0 to 7");
    slurm_says(NULL, "8");
    CHECK_INT(nccl_boot_slurm(&j, &f), ST_USAGE);
    CHECK_HAS(f.text, "SLURM_PROCID is not set");
    slurm_says("0", "-2");
    CHECK_INT(nccl_boot_slurm(&j, NULL), ST_USAGE);
    slurm_says("0", "0");
    CHECK_INT(nccl_boot_slurm(&j, NULL), ST_USAGE);
}

static void share_on_thread(struct nccl_job *j)
{
    struct blobs *b = j->arg;
    j->st = link_share(comm_thread_world(j->t, j->rank), b->data[j->rank], BLOB, &j->e);
}

/* The way that the environment names: through the world, or a file. */
TEST(nccl_ids_go_the_way_that_the_environment_names)
{
    for (int way = 0; way < 5; way++) {
        static struct blobs b;
        struct nccl_job job[3];
        const char *how[] = { "mpi", test_path("id"), "slurm", "tcp", "" };
        struct comm_thread *t = comm_thread_open(3, 1, 50, NULL);
        for (int r = 1; r < 3; r++) {
            comm_thread_reserve(t, r, 0, NCCL_BOOT_HELLO_BYTES);
            comm_thread_reserve(t, 0, r, BLOB);
        }
        fill_root(&b);
        slurm_says("1", "8");
        setenv("ORRERY_NCCL_BOOT", how[way], 1);
        nccl_job_run(t, 3, share_on_thread, &b, job);
        comm_thread_close(t);
        bool fine = way != 2 && way != 3;
        for (int r = 0; r < 3; r++) {
            CHECK_INT(job[r].st, fine ? ST_OK : ST_USAGE);
            if (fine) CHECK(memcmp(b.data[r], b.data[0], BLOB) == 0);
            if (way == 2) CHECK_HAS(job[r].e.text, "task 1 of 8");
            if (way == 3) CHECK_HAS(job[r].e.text, "mpi, slurm, or the path");
        }
        CHECK(!is_there(test_path("id")));
    }
}

/* As the engine does: who has failed says so. */
static void share_or_tell(struct nccl_job *j)
{
    share_on_thread(j);
    if (j->st != ST_OK) comm_fail(comm_thread_world(j->t, j->rank), j->e.text);
}

/* A file that only rank 0 could wait for: what is wrong with it is said at once, and by all. */
TEST_LIMIT(nccl_ids_that_no_file_can_bring_are_not_waited_for, 10)
{
    static struct blobs b;
    struct nccl_job job[2];
    struct comm_thread *t = comm_thread_open(2, 1, 50, NULL);
    fill_root(&b);
    setenv("ORRERY_NCCL_BOOT", test_path("nowhere/id"), 1);
    nccl_job_run(t, 2, share_or_tell, &b, job);
    unsetenv("ORRERY_NCCL_BOOT");
    comm_thread_close(t);
    CHECK_INT(job[1].st, ST_IO);
    CHECK_INT(job[0].st, ST_DEVICE);
    CHECK_HAS(job[0].e.text, job[1].e.text);
}
