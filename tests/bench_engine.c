/* tests/bench_engine.c - how near the CPU engine comes to what the machine can do: a Markdown table.
 *
 *     bench_engine [--threads=N] [--reps=N] [--kernels=NAME] [--parts] [--cpu]
 *                  [decode batch prefill tp tp-all step]
 *
 * Without parts named: all but tp-all (tp in all weight types). --parts says on stderr where steps
 * spend their time. Random weights; context is a KV cache of zeros, as speed does not depend
 * on values. Limits are measured beside the figures: a repetition takes every limit and every
 * configuration in turn, and a ratio is that of one repetition. Medians with (min-max) over
 * repetitions; a bar is met when the median ratio reaches it. Nothing is gated. A repetition that
 * lost more than a tenth of the processors' time to other work is repeated, within limits.
 *   read     bytes/s of kern->read over 1 GiB in huge pages, each thread its part
 *   FMA, i8  operations/s of kern->peak in registers
 *   decode   limit: read / (bytes of weights and KV that a step reads)
 *   prefill  limit: FMA / (operations: linear layers, causal attention, one row of the head)
 *   batch    limit: the lower of both, with i8 instead of FMA for int8
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* sched_setaffinity, madvise */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/arena.h"
#include "base/pool.h"
#include "base/stat.h"
#include "engine/bell.h"
#include "engine/engine.h"
#include "engine/kern.h"
#include "engine/sched.h"
#include "engine/team.h"
#include "tests/alloc.h"

enum { CTX = 512, PROMPT = 512, PREFILL_TP = 128, BATCH = 16, BLOCK = 16 };
enum { MAX_REPS = 32, VOCAB_MAX = 65536 };
enum { READ_BYTES = 1 << 30, HUGE_BYTES = 2 << 20 };
#define SHARE_MIN 0.9
static bool cpu_time; /* of this thread instead of the wall: on a busy host, with one thread */
static const char *const type_name[] = { "auto", "f32", "bf16", "int8" };

static int64_t at_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int64_t now_ns(void)
{
    return at_ns(cpu_time ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC);
}

/* ---- a backend that keeps the time of each operation */

enum op { OP_MM, OP_ATTN, OP_NORM, OP_ROPE, OP_PUT, OP_ACT, OP_ADD, OP_REST, N_OP };
static const char *const op_name[] = { "matmul", "attention",  "norm",     "rope",
                                       "kv put", "activation", "residual", "embed, pick" };
static double op_s[N_OP];
static int64_t forward_t0, forward_t1; /* of the last step: first operation, last one */
static const struct backend_ops *inner;
static struct backend_ops timed;

#define TIMED(op, call)                                                                            \
    do {                                                                                           \
        int64_t t0 = now_ns();                                                                     \
        call;                                                                                      \
        op_s[op] += 1e-9 * (double)(now_ns() - t0);                                                \
    } while (0)

static void t_embed(struct backend *b, const struct backend_mat *w, const int32_t *tok, int32_t m,
                    int32_t row0, float *x)
{
    forward_t0 = now_ns();
    TIMED(OP_REST, inner->embed(b, w, tok, m, row0, x));
}

static void t_sync(struct backend *b)
{
    inner->sync(b);
    forward_t1 = now_ns();
}

static void t_mm(struct backend *b, const struct backend_mm *a)
{
    TIMED(OP_MM, inner->mm(b, a));
}

static void t_norm(struct backend *b, const struct backend_norm *w, const float *x, float *y,
                   const int32_t shape[2])
{
    TIMED(OP_NORM, inner->norm(b, w, x, y, shape));
}

static void t_rope(struct backend *b, const struct backend_rope *a)
{
    TIMED(OP_ROPE, inner->rope(b, a));
}

static void t_kv_put(struct backend *b, const struct backend_attn *a)
{
    TIMED(OP_PUT, inner->kv_put(b, a));
}

static void t_attn(struct backend *b, const struct backend_attn *a)
{
    TIMED(OP_ATTN, inner->attn(b, a));
}

static void t_silu_mul(struct backend *b, const float *x, float *y, int32_t m, int32_t n)
{
    TIMED(OP_ACT, inner->silu_mul(b, x, y, m, n));
}

static void t_add(struct backend *b, float *y, const float *x, int64_t n)
{
    TIMED(OP_ADD, inner->add(b, y, x, n));
}

static void t_pick(struct backend *b, const float *x, const int32_t *at, float *y,
                   const int32_t shape[2])
{
    TIMED(OP_REST, inner->pick(b, x, at, y, shape));
}

static struct backend *timed_open(struct team *t, const char *kernels, struct err *e)
{
    struct backend *b = backend_cpu_open(t, kernels, e);
    if (!b) return NULL;
    inner = b->ops;
    timed = *inner;
    timed.embed = t_embed;
    timed.sync = t_sync;
    timed.mm = t_mm;
    timed.norm = t_norm;
    timed.rope = t_rope;
    timed.kv_put = t_kv_put;
    timed.attn = t_attn;
    timed.silu_mul = t_silu_mul;
    timed.add = t_add;
    timed.pick = t_pick;
    b->ops = &timed;
    return b;
}

/* ---- limits of the machine */

struct bench {
    int threads, reps;
    const char *kernels;
    bool parts; /* print where steps spend their time */
    const struct kern *k;
    struct team *team, *one;
    unsigned char *mem;
    cpu_set_t may;
    int missed;
    int64_t wall_ns, cpu_ns; /* when the repetition began */
    int again;               /* repetitions that had to be repeated */
    double least;            /* share of the processors that a kept one had */
};

struct limits {
    double read, fma, i8;
};

struct measure {
    const struct bench *b;
    double done[ENGINE_MAX_THREADS]; /* operations of each part */
    int64_t times;
    enum kern_peak what;
};

static void read_part(void *arg, int part, int n_part)
{
    struct measure *m = arg;
    size_t n = READ_BYTES / (size_t)n_part / 4096 * 4096;
    m->done[part] = (double)(m->b->k->read(m->b->mem + n * (size_t)part, n) & 1);
}

static void peak_part(void *arg, int part, int n_part)
{
    struct measure *m = arg;
    (void)n_part;
    m->done[part] = m->b->k->peak(m->what, m->times);
}

static double peak_of(const struct bench *b, struct team *t, enum kern_peak what)
{
    struct measure m = { .b = b, .times = 4000000, .what = what };
    double done = 0;
    int64_t t0 = now_ns();
    team_run(t, peak_part, &m);
    int64_t t1 = now_ns();
    for (int i = 0; i < team_size(t); i++) done += m.done[i];
    return 1e9 * done / (double)(t1 - t0);
}

static double read_of(const struct bench *b, struct team *t)
{
    struct measure m = { .b = b };
    int64_t t0 = now_ns();
    for (int i = 0; i < 3; i++) team_run(t, read_part, &m);
    int64_t t1 = now_ns();
    return 3e9 * READ_BYTES / (double)(t1 - t0);
}

static struct limits limits_of(const struct bench *b, struct team *t)
{
    struct limits l = { .read = read_of(b, t) };
    l.fma = peak_of(b, t, KERN_PEAK_FMA);
    l.i8 = peak_of(b, t, KERN_PEAK_I8);
    return l;
}

/* ---- one engine */

struct rig {
    struct engine *g;
    struct arch a;
    enum model_weight type;
    double mat_bytes, kv_tok_bytes; /* read by every step; KV of one position */
    int32_t *block, tok[PROMPT];
    double u;
    float temperature, top_p;
};

static double linear_params(const struct arch *a)
{
    double d = a->head_dim, qkvo = a->hidden * d * (2 * a->n_head + 2 * a->n_kv_head);
    return a->n_layer * (qkvo + 3.0 * a->hidden * a->ffn);
}

static double head_params(const struct arch *a)
{
    return (double)a->hidden * a->vocab;
}

/* Operations of n_tok tokens of which n_out need the head, over `pairs` of query and key. */
static double operations(const struct arch *a, double n_tok, double n_out, double pairs)
{
    double attn = 4.0 * a->n_layer * a->n_head * a->head_dim * pairs;
    return 2 * (linear_params(a) * n_tok + head_params(a) * n_out) + attn;
}

static bool rig_open(struct rig *r, struct bench *b, const char *model, enum model_weight type,
                     const int shape[2])
{
    static const double bytes[] = { 0, 4, 2, 66.0 / 64 };
    struct err e = { 0 };
    int32_t n_block = BATCH * (CTX / BLOCK + 16);
    struct engine_opts o = { .model = model,
                             .random = true,
                             .seed = 1,
                             .tp = shape[0],
                             .pp = 1,
                             .threads = shape[1],
                             .kernels = b->kernels,
                             .max_table = n_block,
                             .m = { .weight = type,
                                    .kv = BACKEND_BF16,
                                    .n_block = n_block,
                                    .block_tok = BLOCK,
                                    .max_tok = PROMPT,
                                    .max_out = BATCH } };
    if (b->parts || type == MODEL_AUTO) o.backend = timed_open;
    *r = (struct rig){ .type = type };
    /* the last engine has pinned this thread, which is rank 0 of this one as well */
    sched_setaffinity(0, sizeof b->may, &b->may);
    r->g = engine_open(&o, &e);
    if (!r->g) {
        fprintf(stderr, "bench_engine: %s\n", e.text);
        return false;
    }
    r->a = engine_spec(r->g)->a;
    r->mat_bytes =
        (linear_params(&r->a) + head_params(&r->a)) * bytes[type == MODEL_AUTO ? 1 : type];
    r->kv_tok_bytes = r->a.n_layer * arch_kv_bytes_layer(&r->a, 2);
    r->block = mem_zalloc((size_t)n_block, sizeof *r->block);
    for (int i = 0; i < n_block; i++)
        r->block[i] = (i * 5 + 3) % n_block; /* n_block has no factor 5 */
    for (int i = 0; i < PROMPT; i++) r->tok[i] = (i * 31 + 7) % r->a.vocab;
    return true;
}

static void rig_close(struct rig *r)
{
    engine_close(r->g);
    free(r->block);
}

/* One step: n_seq sequences of n_q tokens each at position pos, a token drawn for each. Seconds. */
static double step(struct rig *r, int n_seq, int n_q, int pos)
{
    struct engine_seq seq[BATCH];
    struct engine_out out[BATCH];
    struct engine_result got;
    struct err e = { 0 };
    int per = CTX / BLOCK + 16;
    for (int i = 0; i < n_seq; i++) {
        seq[i] = (struct engine_seq){ i * n_q, n_q, pos, per, r->block + i * per };
        out[i] = (struct engine_out){
            .row = (i + 1) * n_q - 1, .temperature = r->temperature, .top_p = r->top_p, .u = r->u
        };
    }
    struct engine_step s = { n_seq * n_q, n_seq, n_seq, r->tok, seq, out };
    int64_t t0 = now_ns();
    int st = engine_submit(r->g, &s, &e);
    if (st == ST_OK) st = engine_collect(r->g, &got, &e);
    double s_wall = 1e-9 * (double)(now_ns() - t0);
    if (st != ST_OK) {
        fprintf(stderr, "bench_engine: %s\n", e.text);
        exit(5);
    }
    return s_wall;
}

/* Tokens per second of decode steps from context CTX. */
static double decode_rate(struct rig *r, int n_seq, int n_step)
{
    double s = 0;
    for (int i = 0; i < n_step; i++) s += step(r, n_seq, 1, CTX + i);
    return n_seq * n_step / s;
}

/* ---- the table */

struct series {
    double x[MAX_REPS];
    int n;
};

static void put(struct series *s, double x)
{
    s->x[s->n++] = x;
}

static double quantile(const struct series *s, double q)
{
    double x[MAX_REPS];
    memcpy(x, s->x, sizeof x);
    stat_sort(x, (size_t)s->n);
    return stat_quantile_sorted(x, (size_t)s->n, q);
}

/* A repetition in which other work on the host took more than a tenth of the processors' time is
 * repeated, twice as often as there are repetitions; after that it counts. Threads that wait for one
 * another spin, so what is missing was taken. */
static void begin_rep(struct bench *b)
{
    b->wall_ns = at_ns(CLOCK_MONOTONIC);
    b->cpu_ns = at_ns(CLOCK_PROCESS_CPUTIME_ID);
}

static bool spoilt(struct bench *b)
{
    int64_t wall = at_ns(CLOCK_MONOTONIC) - b->wall_ns;
    int64_t cpu = at_ns(CLOCK_PROCESS_CPUTIME_ID) - b->cpu_ns;
    double share = (double)cpu / ((double)wall * b->threads);
    if (share < SHARE_MIN && b->again < 2 * b->reps) {
        b->again++;
        return true;
    }
    if (share < b->least) b->least = share;
    return false;
}

static void head(void)
{
    printf("| what | threads | measured | limit | ratio, min-max | bar | |\n");
    printf("|---|---|---|---|---|---|---|\n");
}

/* at_least false: the ratio has to stay below the bar. */
static void row(struct bench *b, const char *what, const char *threads, const struct series *fig,
                const struct series *lim, const char *unit, double bar)
{
    struct series ratio = { .n = fig->n };
    bool below = bar < 0;
    for (int i = 0; i < fig->n; i++) ratio.x[i] = fig->x[i] / lim->x[i];
    double r = quantile(&ratio, 0.5);
    bool met = below ? r < -bar : r >= bar;
    printf("| %s | %s | %.4g %s | %.4g | %.3f (%.3f-%.3f) | %s %.3g | %s |\n", what, threads,
           quantile(fig, 0.5), unit, quantile(lim, 0.5), r, quantile(&ratio, 0),
           quantile(&ratio, 1), below ? "<" : ">=", below ? -bar : bar, met ? "met" : "missed");
    fflush(stdout);
    b->missed += !met;
}

static void show_parts(const struct bench *b, const char *what, double wall_s)
{
    double sum = 0;
    if (!b->parts) return;
    fprintf(stderr, "%-28s %8.3f ms:", what, 1e3 * wall_s);
    for (int i = 0; i < N_OP; i++) sum += op_s[i];
    for (int i = 0; i < N_OP; i++) {
        fprintf(stderr, " %s %.2f%%", op_name[i], 100 * op_s[i] / wall_s);
        op_s[i] = 0;
    }
    fprintf(stderr, " other %.2f%%\n", 100 * (1 - sum / wall_s));
}

/* ---- the parts of the bench */

static const char *const part_name[] = { "decode", "batch", "prefill", "tp", "tp-all", "step" };
enum { DECODE, MANY, PREFILL, TP, TP_ALL, STEP, N_PART };

#define MODEL_1B1  "scenarios/models/llama-1b1.json"
#define MODEL_110M "scenarios/models/llama-110m.json"

static void say(char *to, size_t room, const char *what, enum model_weight type)
{
    snprintf(to, room, "%s, llama-1b1 %s", what, type_name[type]);
}

struct run_1b1 {
    struct rig rig[4]; /* by enum model_weight from 1 */
    struct series read, fma, i8;
    struct series one[4], lim_one[4], many[4], lim_many[4], gain[4], base[4], pre[4], lim_pre[4];
};

static void repeat_1b1(struct bench *b, struct run_1b1 *u, const bool *want)
{
    struct limits l = limits_of(b, b->team);
    static const int steps[] = { 0, 4, 6, 10 };
    put(&u->read, l.read);
    put(&u->fma, l.fma);
    put(&u->i8, l.i8);
    for (int t = 1; t < 4; t++) {
        struct rig *r = &u->rig[t];
        double mid = CTX + 0.5 * (steps[t] + 1);
        char name[80];
        if (want[DECODE] || want[MANY]) {
            /* before and after: memory that neighbours slow down changes within a second */
            double before = read_of(b, b->team), rate = decode_rate(r, 1, steps[t]);
            l.read = 0.5 * (before + read_of(b, b->team));
            put(&u->one[t], rate);
            put(&u->lim_one[t], l.read / (r->mat_bytes + r->kv_tok_bytes * mid));
            say(name, sizeof name, "decode 1", t);
            show_parts(b, name, steps[t] / rate);
        }
        if (want[MANY]) {
            int n = steps[t] / 2;
            double rate = decode_rate(r, BATCH, n), peak = t == MODEL_INT8 ? l.i8 : l.fma;
            double mem_s = (r->mat_bytes + BATCH * r->kv_tok_bytes * mid) / l.read;
            double ops_s = operations(&r->a, BATCH, BATCH, BATCH * mid) / peak;
            put(&u->many[t], rate);
            put(&u->lim_many[t], BATCH / (mem_s > ops_s ? mem_s : ops_s));
            say(name, sizeof name, "decode 16", t);
            show_parts(b, name, BATCH * n / rate);
        }
        if (want[PREFILL]) {
            double ops = operations(&r->a, PROMPT, 1, 0.5 * PROMPT * (PROMPT + 1));
            double s = step(r, 1, PROMPT, 0);
            put(&u->pre[t], PROMPT / s);
            put(&u->lim_pre[t], PROMPT * l.fma / ops);
            say(name, sizeof name, "prefill 512", t);
            show_parts(b, name, s);
        }
    }
}

static void rows_1b1(struct bench *b, const struct run_1b1 *u, const bool *want)
{
    static const double bar_one[] = { 0, 0.95, 0.85, 0.70 };
    char name[120], threads[24];
    snprintf(threads, sizeof threads, "1 x %d", b->threads);
    for (int t = 1; t < 4 && want[DECODE]; t++) {
        snprintf(name, sizeof name, "decode, batch 1, llama-1b1 %s, context 512", type_name[t]);
        row(b, name, threads, &u->one[t], &u->lim_one[t], "tok/s", bar_one[t]);
    }
    for (int t = 1; t < 4 && want[PREFILL]; t++) {
        snprintf(name, sizeof name, "prefill of 512, llama-1b1 %s, against %s", type_name[t],
                 t == MODEL_INT8 ? "the f32 rate" : "FMA");
        row(b, name, threads, &u->pre[t], t == MODEL_INT8 ? &u->pre[MODEL_F32] : &u->lim_pre[t],
            "tok/s", t == MODEL_INT8 ? 2 : 0.65);
    }
    for (int t = 1; t < 4 && want[MANY]; t++) {
        snprintf(name, sizeof name, "decode, batch 16, llama-1b1 %s, context 512, against batch 1",
                 type_name[t]);
        row(b, name, threads, &u->many[t], &u->one[t], "tok/s", 5);
        snprintf(name, sizeof name, "decode, batch 16, llama-1b1 %s, context 512", type_name[t]);
        row(b, name, threads, &u->many[t], &u->lim_many[t], "tok/s", 0.45);
    }
}

static bool bench_1b1(struct bench *b, const bool *want, struct limits *seen)
{
    static struct run_1b1 u;
    const int shape[2] = { 1, b->threads };
    for (int t = 1; t < 4; t++)
        if (!rig_open(&u.rig[t], b, MODEL_1B1, t, shape)) return false;
    for (bool warm = false; u.read.n < b->reps; warm = true) {
        struct run_1b1 before = u;
        begin_rep(b);
        repeat_1b1(b, &u, want);
        if (!warm || spoilt(b)) u = before;
    }
    rows_1b1(b, &u, want);
    *seen = (struct limits){ quantile(&u.read, 0.5), quantile(&u.fma, 0.5), quantile(&u.i8, 0.5) };
    for (int t = 1; t < 4; t++) rig_close(&u.rig[t]);
    return true;
}

/* rate: of one thread, of one rank of two threads, of two ranks of one; limit: of one thread, of two. */
static void rows_tp(struct bench *b, const char *what, const struct series rate[3],
                    const char *limit_name, const struct series limit[2])
{
    char name[160];
    snprintf(name, sizeof name, "%s, TP2 against 2 threads", what);
    row(b, name, "2 x 1", &rate[2], &rate[1], "tok/s", 0.97);
    snprintf(name, sizeof name, "the same against 1 thread (%s scales by %.2f from 1 thread to %d)",
             limit_name, quantile(&limit[1], 0.5) / quantile(&limit[0], 0.5), b->threads);
    row(b, name, "2 x 1", &rate[2], &rate[0], "tok/s", 1.85);
}

/* Two ranks of one thread against one rank of two threads, and of one. */
static bool bench_tp(struct bench *b, enum model_weight type)
{
    static const int shape[3][2] = { { 1, 1 }, { 1, 2 }, { 2, 1 } };
    struct rig rig[3];
    struct tp_series {
        struct series rate[3], read[2], prefill[3], fma[2];
    } u = { 0 };
    char name[80];
    for (int i = 0; i < 3; i++)
        if (!rig_open(&rig[i], b, MODEL_1B1, type, shape[i])) return false;
    for (bool warm = false; u.read[0].n < b->reps; warm = true) {
        struct tp_series before = u;
        put(&u.read[0], read_of(b, b->one));
        put(&u.rate[0], decode_rate(&rig[0], 1, 3));
        put(&u.fma[0], peak_of(b, b->one, KERN_PEAK_FMA));
        put(&u.prefill[0], PREFILL_TP / step(&rig[0], 1, PREFILL_TP, 0));
        begin_rep(b); /* what follows uses all processors */
        put(&u.read[1], read_of(b, b->team));
        for (int i = 1; i < 3; i++) put(&u.rate[i], decode_rate(&rig[i], 1, 3));
        put(&u.fma[1], peak_of(b, b->team, KERN_PEAK_FMA));
        for (int i = 1; i < 3; i++)
            put(&u.prefill[i], PREFILL_TP / step(&rig[i], 1, PREFILL_TP, 0));
        if (!warm || spoilt(b)) u = before;
    }
    for (int i = 0; i < 3; i++) rig_close(&rig[i]);
    snprintf(name, sizeof name, "decode, batch 1, llama-1b1 %s", type_name[type]);
    rows_tp(b, name, u.rate, "read bandwidth", u.read);
    snprintf(name, sizeof name, "prefill of %d, llama-1b1 %s", PREFILL_TP, type_name[type]);
    rows_tp(b, name, u.prefill, "FMA peak", u.fma);
    return true;
}

/* ---- what surrounds the arithmetic, on a model small enough for it to show */

static void on_req(void *ctx, struct sreq *r, int64_t t_ns)
{
    (void)ctx, (void)r, (void)t_ns;
}

/* Seconds that choosing and completing a step of BATCH decodes takes. */
static double sched_s(void)
{
    enum { STEPS = 1000 };
    struct arena a;
    struct sched s;
    struct batch b = { 0 };
    const struct sched_sink sink = { NULL, on_req, on_req, on_req, on_req };
    const struct sched_opts o = { .policy = SCHED_VLLM,
                                  .max_batch_tok = 2048,
                                  .max_seqs = 256,
                                  .chunk_tok = 512,
                                  .block_tok = BLOCK,
                                  .reserve_full = true };
    const struct trace_req req = { .n_in = CTX, .n_out = 2 * STEPS, .session = -1 };
    arena_init(&a);
    sched_init(&s, &o, BATCH * 256, 1, 1 << 20, &sink, &a);
    for (int i = 0; i < BATCH; i++) {
        struct trace_req r = req;
        r.id = i;
        sched_submit(&s, &r, 0);
    }
    int64_t t = 0, t0 = 0;
    for (int i = 0; i < STEPS; i++) {
        if (i == STEPS / 2) t0 = now_ns();
        sched_next(&s, &b, t);
        sched_complete(&s, &b, 1, ++t);
    }
    double took = 1e-9 * (double)(now_ns() - t0) / (STEPS - STEPS / 2);
    arena_release(&a);
    return took;
}

struct how {
    const char *name;
    int batch;
    float temperature, top_p;
};

static void step_row(struct bench *b, struct rig *r, const struct how *h, const char *threads)
{
    struct series around = { 0 }, whole = { 0 };
    double own = sched_s();
    long long before = 0;
    char name[160];
    r->temperature = h->temperature;
    r->top_p = h->top_p;
    for (int i = 0; i < 20; i++) {
        if (i == 4) before = alloc_made(); /* the first four warm up */
        r->u = 0.05 * i;
        double s = step(r, h->batch, 1, CTX + i);
        if (i < 4) continue;
        put(&whole, 1e3 * (s + own));
        put(&around, 1e3 * (s + own - 1e-9 * (double)(forward_t1 - forward_t0)));
    }
    long long made = alloc_made() - before;
    snprintf(name, sizeof name,
             "scheduling, sampling (%s) and bookkeeping, of a step of %d, llama-110m f32", h->name,
             h->batch);
    row(b, name, threads, &around, &whole, "ms", -0.02);
    printf("| allocations in 16 of these steps | %s | %lld | | | 0 | %s |\n", threads, made,
           made ? "missed" : "met");
    b->missed += made != 0;
}

static bool bench_step(struct bench *b)
{
    static const struct how how[] = { { "greedy", 1, 0, 1 },
                                      { "greedy", BATCH, 0, 1 },
                                      { "temperature 0.8", BATCH, 0.8f, 1 },
                                      { "temperature 0.8, top-p 0.95", 1, 0.8f, 0.95f },
                                      { "temperature 0.8, top-p 0.95", BATCH, 0.8f, 0.95f } };
    const int shape[2] = { 1, b->threads };
    struct rig r;
    char threads[24];
    snprintf(threads, sizeof threads, "1 x %d", b->threads);
    if (!rig_open(&r, b, MODEL_110M, MODEL_AUTO, shape)) return false;
    for (size_t i = 0; i < sizeof how / sizeof *how; i++) step_row(b, &r, &how[i], threads);
    rig_close(&r);
    return true;
}

/* ---- arguments */

static bool option(struct bench *b, const char *arg, bool *want)
{
    for (int p = 0; p < N_PART; p++)
        if (strcmp(arg, part_name[p]) == 0) return want[p] = true;
    if (strncmp(arg, "--threads=", 10) == 0) return (b->threads = atoi(arg + 10)) > 0;
    if (strncmp(arg, "--reps=", 7) == 0) return (b->reps = atoi(arg + 7)) > 0 && b->reps < MAX_REPS;
    if (strncmp(arg, "--kernels=", 10) == 0) return kern_named(b->kernels = arg + 10) != NULL;
    if (strcmp(arg, "--parts") == 0) return b->parts = true;
    if (strcmp(arg, "--cpu") == 0) return cpu_time = true;
    return false;
}

static bool prepare(struct bench *b)
{
    struct err e = { 0 };
    b->k = b->kernels ? kern_named(b->kernels) : kern_best();
    sched_getaffinity(0, sizeof b->may, &b->may);
    b->one = team_open(1, 0, bell_spin_max(1, b->threads), &e);
    sched_setaffinity(0, sizeof b->may, &b->may);
    b->team = team_open(b->threads, 0, bell_spin_max(b->threads, pool_cpus()), &e);
    b->mem = aligned_alloc(HUGE_BYTES, READ_BYTES);
    if (!b->mem || !b->team || !b->one) return false;
    (void)madvise(b->mem, READ_BYTES, MADV_HUGEPAGE);
    memset(b->mem, 1, READ_BYTES);
    return true;
}

int main(int argc, char **argv)
{
    struct bench b = { .reps = 5, .threads = pool_cpus(), .least = 1 };
    bool want[N_PART] = { false }, any = false, ok = true;
    struct limits seen = { 0 };
    for (int i = 1; i < argc; i++)
        if (!option(&b, argv[i], want)) {
            fprintf(stderr, "bench_engine: what is '%s'?\n", argv[i]);
            return 2;
        }
    for (int p = 0; p < N_PART; p++) any |= want[p];
    if (!any) want[DECODE] = want[MANY] = want[PREFILL] = want[TP] = want[STEP] = true;
    if (!prepare(&b)) return 5;
    head();
    if (want[DECODE] || want[MANY] || want[PREFILL]) ok = bench_1b1(&b, want, &seen);
    if (want[TP_ALL])
        for (int t = 1; t < 4 && ok; t++) ok = bench_tp(&b, t);
    else if (want[TP])
        ok = bench_tp(&b, MODEL_BF16);
    if (want[STEP] && ok) ok = bench_step(&b);
    if (!ok) return 5;
    printf("\nKernels %s; %d repetitions, after one that only warms up; %d bars missed. Every one "
           "had at "
           "least %.0f%% of the processors' time; %d that had less than %.0f%% were repeated.",
           b.k->name, b.reps, b.missed, 100 * b.least, b.again, 100 * SHARE_MIN);
    if (seen.read > 0)
        printf(" Limits of %d threads: read %.1f GB/s, FMA %.0f GFLOP/s, int8 %.0f GOP/s.",
               b.threads, 1e-9 * seen.read, 1e-9 * seen.fma, 1e-9 * seen.i8);
    printf("\n");
    team_close(b.team);
    team_close(b.one);
    free(b.mem);
    return 0;
}
