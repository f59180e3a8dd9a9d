/* tests/gpu_fibre.c - fibres, and the places where the threads of a block meet.
 *
 * A fibre is entered once through its ucontext; from then on _setjmp and _longjmp switch, which make
 * no system call, as swapcontext does. ASan's _longjmp makes two; there it is the compiler's own, in
 * functions that ASan does not see. One that has finished a thread goes on with the next that has
 * not begun, so a kernel without a meeting takes one fibre. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* MAP_ANONYMOUS */
#include "tests/gpu_fibre.h"

#include <assert.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "base/rng.h"
#include "engine/gpu_block.h"

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#ifdef WITH_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
enum { STACK_BYTES = 256 * 1024 };
#define UNSEEN __attribute__((no_sanitize("address")))
typedef void *jump[5];
#define jump_set(at_) __builtin_setjmp(at_)
#define jump_to(at_)  __builtin_longjmp(at_, 1)
#else
enum { STACK_BYTES = 64 * 1024 };
#define UNSEEN
typedef jmp_buf jump;
#define jump_set(at_) _setjmp(at_)
#define jump_to(at_)  _longjmp(at_, 1)
#endif

enum { MAX_THREADS = 1024, WARP = 32, GUARD_BYTES = 4096 };

/* What a thread does: not begun, can go on, or waits. */
enum state { FRESH, READY, AT_BLOCK, AT_WARP, AT_TRADE, AT_MMA, ENDED, N_STATE };
static const char *const state_words[N_STATE] = { "has not begun",    "runs",
                                                  "is in gpu_sync",   "is in gpu_sync_warp",
                                                  "is in a gpu_shfl", "is in gpu_mma",
                                                  "has ended" };

struct side { /* a stack and where it stands */
    jump at;
    const void *stack;
    size_t stack_bytes;
    void *fake; /* ASan's */
};

struct copy {
    void *to;
    const void *from;
    uint32_t batch;
};

struct thread {
    enum state state;
    struct side *on;
    struct copy *copy; /* staged, not yet made */
    uint32_t n_copy, cap, batch;
};

struct warp {
    uint32_t met;
    uint32_t word[2][WARP]; /* of this trade and of the one before, which some may not have read */
    uint32_t a[WARP][4], b[WARP][2];
    float d[WARP][4];
    enum gpu_elt type; /* of a and b */
};

struct gpu_fibre {
    struct thread thread[MAX_THREADS];
    struct warp warp[MAX_THREADS / WARP];
    struct side main, side[MAX_THREADS], *idle[MAX_THREADS];
    int n_side, n_idle;
    char *stacks;
    const struct gpu_fibre_block *block;
    int32_t now;            /* thread */
    int32_t turn[WARP], at; /* of the warp that has its turn: its threads in order, the next */
    uint64_t drawn;         /* of the order's random numbers */
    char fault[160];
};

_Thread_local struct gpu_host_here gpu_host_here;
static _Thread_local struct gpu_fibre *runner;

struct gpu_fibre *gpu_fibre_new(struct err *e)
{
    struct gpu_fibre *f = calloc(1, sizeof *f);
    size_t bytes = (size_t)MAX_THREADS * STACK_BYTES;
    if (!f) {
        err_set(e, ST_DEVICE, "no memory for the threads of a block");
        return NULL;
    }
    f->stacks = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (f->stacks == MAP_FAILED) {
        err_set(e, ST_DEVICE, "no memory for the stacks of a block");
        free(f);
        return NULL;
    }
    return f;
}

void gpu_fibre_free(struct gpu_fibre *f)
{
    size_t bytes = (size_t)MAX_THREADS * STACK_BYTES;
    if (!f) return;
#ifdef WITH_ASAN
    __asan_unpoison_memory_region(f->stacks, bytes);
#endif
    munmap(f->stacks, bytes);
    for (int i = 0; i < MAX_THREADS; i++) free(f->thread[i].copy);
    free(f);
}

/* ---- switching ------------------------------------------------------------------------------ */
static void leave(struct side *from, const struct side *to)
{
#ifdef WITH_ASAN
    __sanitizer_start_switch_fiber(&from->fake, to->stack, to->stack_bytes);
#else
    (void)from;
    (void)to;
#endif
}

/* main: where to note the stack that was left, when it is the first time. */
static void arrive(struct side *here, struct side *left)
{
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(here->fake, &left->stack, &left->stack_bytes);
#else
    (void)here;
    (void)left;
#endif
}

UNSEEN static void go(struct side *from, struct side *to)
{
    leave(from, to);
    if (jump_set(from->at) == 0) jump_to(to->at);
    arrive(from, to);
}

static void begin(struct gpu_fibre *f, int32_t tid)
{
    f->now = tid;
    gpu_host_here.tid = tid;
}

static void fibre_main(void)
{
    struct gpu_fibre *f = runner;
    struct side *me = f->thread[f->now].on;
    me->fake = NULL;
    arrive(me, &f->main);
    for (;;) {
        f->block->fn(f->block->args, f->block->shared);
        f->thread[f->now].state = ENDED;
        if (f->at < WARP && f->thread[f->turn[f->at]].state == FRESH) {
            begin(f, f->turn[f->at++]);
            f->thread[f->now].on = me;
            continue;
        }
        f->idle[f->n_idle++] = me;
        go(me, &f->main);
    }
}

UNSEEN static void enter_new(struct gpu_fibre *f, struct side *s)
{
    ucontext_t at;
    char *low = f->stacks + (size_t)(s - f->side) * STACK_BYTES;
    (void)mprotect(low, GUARD_BYTES, PROT_NONE); /* an overflow ends the program */
    s->stack = low + GUARD_BYTES;
    s->stack_bytes = STACK_BYTES - GUARD_BYTES;
    (void)getcontext(&at);
    at.uc_stack.ss_sp = low + GUARD_BYTES;
    at.uc_stack.ss_size = s->stack_bytes;
    at.uc_link = NULL;
    makecontext(&at, fibre_main, 0);
    leave(&f->main, s);
    if (jump_set(f->main.at) == 0) (void)setcontext(&at);
    arrive(&f->main, s);
}

static void resume(struct gpu_fibre *f, int32_t tid)
{
    struct thread *t = &f->thread[tid];
    begin(f, tid);
    if (t->state == READY)
        go(&f->main, t->on);
    else if (f->n_idle > 0) {
        t->on = f->idle[--f->n_idle];
        go(&f->main, t->on);
    } else {
        t->on = &f->side[f->n_side++];
        enter_new(f, t->on);
    }
}

static void wait_as(struct gpu_fibre *f, enum state what)
{
    int32_t tid = f->now;
    f->thread[tid].state = what;
    go(f->thread[tid].on, &f->main);
}

/* ---- what kernels call ---------------------------------------------------------------------- */
void gpu_host_meet(void)
{
    wait_as(runner, AT_BLOCK);
}

void gpu_host_meet_warp(void)
{
    wait_as(runner, AT_WARP);
}

const uint32_t *gpu_host_trade(uint32_t word)
{
    struct gpu_fibre *f = runner;
    struct warp *w = &f->warp[f->now / WARP];
    uint32_t *all = w->word[w->met & 1];
    all[f->now % WARP] = word;
    wait_as(f, AT_TRADE);
    return all;
}

void gpu_host_mma(enum gpu_elt type, float d[4], const uint32_t a[4], const uint32_t b[2])
{
    struct gpu_fibre *f = runner;
    struct warp *w = &f->warp[f->now / WARP];
    int32_t lane = f->now % WARP;
    memcpy(w->a[lane], a, sizeof w->a[lane]);
    memcpy(w->b[lane], b, sizeof w->b[lane]);
    memcpy(w->d[lane], d, sizeof w->d[lane]);
    w->type = type;
    wait_as(f, AT_MMA);
    memcpy(d, w->d[lane], sizeof w->d[lane]);
}

void gpu_host_odd_address(const void *p)
{
    struct gpu_fibre *f = runner;
    snprintf(f->fault, sizeof f->fault,
             "a wide access at an address that is %d past a multiple of 16",
             (int)((uintptr_t)p % 16));
    wait_as(f, AT_BLOCK); /* for ever */
}

void gpu_host_stage16(void *to, const void *from)
{
    struct thread *t = &runner->thread[runner->now];
    if (t->n_copy == t->cap) {
        t->cap = t->cap ? 2 * t->cap : 16;
        t->copy = realloc(t->copy, t->cap * sizeof *t->copy);
        assert(t->copy);
    }
    memset(to, 0xff, 16); /* NaN until it has arrived */
    t->copy[t->n_copy++] = (struct copy){ to, from, t->batch };
}

void gpu_host_stage_close(void)
{
    runner->thread[runner->now].batch++;
}

void gpu_host_stage_wait(int32_t n)
{
    struct thread *t = &runner->thread[runner->now];
    uint32_t left = 0;
    for (uint32_t i = 0; i < t->n_copy; i++) {
        struct copy *c = &t->copy[i];
        if (c->batch + (uint32_t)n < t->batch)
            memcpy(c->to, c->from, 16);
        else
            t->copy[left++] = *c;
    }
    t->n_copy = left;
}

/* ---- meetings ------------------------------------------------------------------------------- */
static float half_of(enum gpu_elt type, uint32_t word, int high)
{
    uint16_t h = (uint16_t)(high ? word >> 16 : word);
    return type == GPU_F16 ? elt_from_f16(h) : elt_from_bf16(h);
}

/* Where the fragments lie: PTX ISA 9.7.14.5.8, m16n8k16. The products of 16-bit numbers are exact in
 * f64; the sum is rounded once. */
static void multiply(struct warp *w)
{
    float a[16][16], b[16][8];
    for (int lane = 0; lane < WARP; lane++)
        for (int i = 0; i < 8; i++) {
            int row = lane / 4 + (i / 2 % 2 ? 8 : 0), k = lane % 4 * 2 + i % 2 + (i / 4 ? 8 : 0);
            a[row][k] = half_of(w->type, w->a[lane][i / 2], i % 2);
            if (i < 4)
                b[lane % 4 * 2 + i % 2 + (i / 2 ? 8 : 0)][lane / 4] =
                    half_of(w->type, w->b[lane][i / 2], i % 2);
        }
    for (int lane = 0; lane < WARP; lane++)
        for (int i = 0; i < 4; i++) {
            int row = lane / 4 + (i / 2 ? 8 : 0), n = lane % 4 * 2 + i % 2;
            double sum = (double)w->d[lane][i];
            for (int k = 0; k < 16; k++) sum += (double)a[row][k] * (double)b[k][n];
            w->d[lane][i] = (float)sum;
        }
}

/* Lets the warp go on if all its lanes are at the same meeting. */
static bool settle_warp(struct gpu_fibre *f, int32_t warp)
{
    struct thread *t = &f->thread[warp * WARP];
    enum state what = t[0].state;
    if (what != AT_WARP && what != AT_TRADE && what != AT_MMA) return false;
    for (int i = 1; i < WARP; i++)
        if (t[i].state != what) return false;
    if (what == AT_TRADE) f->warp[warp].met++;
    if (what == AT_MMA) multiply(&f->warp[warp]);
    for (int i = 0; i < WARP; i++) t[i].state = READY;
    return true;
}

static void shuffle(struct gpu_fibre *f, int32_t *v, int32_t n)
{
    uint64_t order = f->block->order;
    if (order == GPU_FIBRE_REVERSE)
        for (int32_t i = 0; i < n / 2; i++) {
            int32_t was = v[i];
            v[i] = v[n - 1 - i];
            v[n - 1 - i] = was;
        }
    else if (order != GPU_FIBRE_FORWARD)
        for (int32_t i = n - 1; i > 0; i--) {
            uint64_t j = mix_pair(order, f->drawn++) % (uint64_t)(i + 1);
            int32_t was = v[i];
            v[i] = v[j];
            v[j] = was;
        }
}

/* Each lane of the warp that can, to its next meeting or end; false if none could. */
static bool turn_of_warp(struct gpu_fibre *f, int32_t warp)
{
    bool any = false;
    for (int32_t i = 0; i < WARP; i++) f->turn[i] = warp * WARP + i;
    shuffle(f, f->turn, WARP);
    for (f->at = 0; f->at < WARP && !f->fault[0];) {
        int32_t tid = f->turn[f->at++];
        if (f->thread[tid].state > READY) continue;
        any = true;
        resume(f, tid);
    }
    return any;
}

static bool all_are(const struct gpu_fibre *f, enum state what)
{
    for (int32_t i = 0; i < f->block->threads; i++)
        if (f->thread[i].state != what) return false;
    return true;
}

static int apart(const struct gpu_fibre *f, struct err *e)
{
    const struct gpu_fibre_block *b = f->block;
    if (f->fault[0])
        return err_set(e, ST_DEVICE, "kernel %s, block (%d, %d, %d), thread %d: %s", b->name, b->x,
                       b->y, b->z, f->now, f->fault);
    int32_t one = 0, other = 0; /* prefer lanes of one warp that are apart */
    while (one + 1 < b->threads &&
           (f->thread[one].state == f->thread[one + 1].state || (one + 1) % WARP == 0))
        one++;
    if (one + 1 < b->threads)
        other = one + 1;
    else
        for (one = 0; f->thread[other].state == f->thread[one].state;) other++;
    return err_set(e, ST_DEVICE,
                   "kernel %s, block (%d, %d, %d): thread %d %s, thread %d %s: they never meet",
                   b->name, b->x, b->y, b->z, one, state_words[f->thread[one].state], other,
                   state_words[f->thread[other].state]);
}

int gpu_fibre_run(struct gpu_fibre *f, const struct gpu_fibre_block *b, struct err *e)
{
    int32_t warps = b->threads / WARP, turn[MAX_THREADS / WARP];
    assert(b->threads % WARP == 0 && b->threads > 0 && b->threads <= MAX_THREADS);
    runner = f;
    f->block = b;
    gpu_host_here = (struct gpu_host_here){
        .threads = b->threads, .x = b->x, .y = b->y, .z = b->z, .n_x = b->n_x, .sm = b->sm
    };
    for (int32_t i = 0; i < b->threads; i++) {
        f->thread[i].state = FRESH;
        f->thread[i].n_copy = f->thread[i].batch = 0;
    }
    for (;;) {
        bool moved = false;
        for (int32_t i = 0; i < warps; i++) turn[i] = i;
        shuffle(f, turn, warps);
        for (int32_t i = 0; i < warps && !f->fault[0]; i++) {
            bool again = true;
            while (again && !f->fault[0]) { /* shuffled: now and then another warp comes between */
                moved |= turn_of_warp(f, turn[i]);
                again = settle_warp(f, turn[i]);
                moved |= again;
                if (b->order > GPU_FIBRE_REVERSE && mix_pair(b->order, f->drawn++) % 4 == 0) break;
            }
        }
        if (f->fault[0]) return apart(f, e);
        if (all_are(f, ENDED)) return ST_OK;
        if (all_are(f, AT_BLOCK))
            for (int32_t i = 0; i < b->threads; i++) f->thread[i].state = READY;
        else if (!moved)
            return apart(f, e);
    }
}
