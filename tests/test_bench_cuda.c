/* tests/test_bench_cuda.c - microbenchmarks of a GPU on the one that the CPU plays (gpu_host.h): every
 * point's result against its reference, files, failures, what NVML says, figures beside ceilings, and
 * the profile made of it. Times are counts of operations there and mean nothing.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/calibrate.h"
#include "bench/suite_cuda.h"
#include "bench/suite_figure.h"
#include "tests/bench_env.h"
#include "tests/cli.h"
#include "tests/gpu_host.h"
#include "tests/test.h"

static struct gpu_host_opts host_opts = { .sm = 89, .n_sm = 2, .memory_bytes = (int64_t)4 << 30 };
static struct gpu *latest;

static struct gpu *open_host(int index, struct err *e)
{
    (void)index;
    return latest = gpu_host_open(&host_opts, e);
}

static int one(struct err *e)
{
    (void)e;
    return 1;
}

static int two(struct err *e)
{
    (void)e;
    return 2;
}

static const char tiny[] =
    "{\"model_type\": \"llama\", \"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": 64,\n"
    "\"num_hidden_layers\": 2, \"num_attention_heads\": 2, \"num_key_value_heads\": 1,\n"
    "\"intermediate_size\": 96, \"vocab_size\": 160, \"max_position_embeddings\": 2048,\n"
    "\"rms_norm_eps\": 1e-5, \"rope_theta\": 10000.0, \"hidden_act\": \"silu\",\n"
    "\"tie_word_embeddings\": false, \"torch_dtype\": \"bfloat16\"}\n";

static struct suite_opts small(int kind)
{
    struct suite_opts o = bench_tiny(kind, cli_put("tiny.json", tiny));
    o.random = true;
    o.max_tok = 16;
    o.max_ctx = 64;
    o.max_seqs = 4;
    o.block_tok = 16;
    o.kv_bytes = 1e6;
    o.run_s = 0;
    o.square = 32;
    o.device = (struct device){ .kind = DEVICE_CUDA, .open = open_host, .count = one };
    return o;
}

/* All jobs, run once: every point has a value, and a result that was compared is right. */
static void run_all(const struct suite_opts *o, int *n_compared)
{
    struct suite s;
    struct err e = { 0 };
    CHECK_OK(suite_init(&s, o, &e), &e);
    for (int j = 0; j < s.n_job; j++) {
        struct suite_value *v = mem_zalloc((size_t)s.job[j].n + 1, sizeof *v);
        if (suite_run_job(&s, j, v, &e) != ST_OK) {
            CHECK_TEXT(e.text, "");
            free(v);
            break;
        }
        for (int i = 0; i < s.job[j].n; i++)
            if (!CHECK(v[i].calls > 0 && v[i].s_per_call > 0))
                printf("  %s, point %d\n", s.job[j].what, i);
        free(v);
    }
    int wrong = suite_wrong(&s);
    *n_compared = 0;
    for (int i = 0; i < s.n_row; i++) *n_compared += s.row[i].error >= 0;
    if (!CHECK_INT(wrong, -1))
        printf("  op %d part %d m %d n %d k %d off by %g\n", s.row[wrong].op, s.row[wrong].part,
               (int)s.row[wrong].m, (int)s.row[wrong].n, (int)s.row[wrong].k, s.row[wrong].error);
    suite_release(&s);
}

TEST(bench_cuda_quick_points_are_right)
{
    struct suite_opts o = small(SUITE_QUICK);
    int n = 0;
    run_all(&o, &n);
    if (!CHECK(n > 24)) printf("  %d\n", n);
}

TEST_LIMIT(bench_cuda_other_formats_are_right, 120)
{
    static const struct {
        enum model_weight weight;
        enum backend_type kv;
    } format[] = { { MODEL_F16, BACKEND_F16 },
                   { MODEL_F32, BACKEND_F32 },
                   { MODEL_FP8, BACKEND_BF16 } };
    for (size_t i = 0; i < sizeof format / sizeof *format; i++) {
        struct suite_opts o = small(SUITE_QUICK);
        int n = 0;
        o.weight = format[i].weight;
        o.kv = format[i].kv;
        run_all(&o, &n);
        if (!CHECK(n > 24)) printf("  %d\n", n);
    }
}

/* ---- what is read is not zeros */

static struct {
    const struct gpu_ops *own;
    struct gpu_ops ops;
    bool recording;
    int64_t rows, zeros; /* of caches, looked at */
} spy;

static void bring(struct gpu *g, void *to, const void *from, size_t bytes)
{
    struct err e = { 0 };
    CHECK_OK(spy.own->get(g, to, from, bytes, &e), &e);
    CHECK_OK(spy.own->wait(g, &e), &e);
}

/* The keys and values of the first token of each block that a decode reads. */
static void look_at_cache(struct gpu *g, const struct gpu_attn *a)
{
    enum { MOST = 8, HEAD_DIM = 32 };
    int32_t block[MOST], first[MOST], pos[MOST];
    int64_t step = (int64_t)a->kv.n_head * a->kv.block_tok * HEAD_DIM;
    CHECK(a->kv.head_dim == HEAD_DIM && a->n_seq <= MOST);
    bring(g, first, a->s.first, (size_t)a->n_seq * sizeof *first);
    bring(g, pos, a->s.pos, (size_t)a->n_seq * sizeof *pos);
    for (int32_t i = 0; i < a->n_seq; i++) {
        int32_t n = pos[i] < 0 ? 0 : pos[i] / a->kv.block_tok + 1;
        CHECK(n <= MOST);
        if (n > 0) bring(g, block, a->s.table + first[i], (size_t)n * sizeof *block);
        for (int32_t b = 0; b < n; b++)
            for (int v = 0; v < 2; v++) {
                uint16_t row[HEAD_DIM];
                int full = 0;
                bring(g, row, (const uint16_t *)(v ? a->kv.v : a->kv.k) + block[b] * step,
                      sizeof row);
                for (int k = 0; k < HEAD_DIM; k++) full += (row[k] & 0x7fff) != 0;
                spy.rows++;
                spy.zeros += full < HEAD_DIM / 2;
            }
    }
}

static int spied_launch(struct gpu *g, enum gpu_kern k, const struct gpu_dim *dim, const void *args,
                        struct err *e)
{
    if (k == GPU_K_attn_decode && !spy.recording) look_at_cache(g, args);
    return spy.own->launch(g, k, dim, args, e);
}

static int spied_record(struct gpu *g, struct err *e)
{
    spy.recording = true;
    return spy.own->record(g, e);
}

static int spied_recorded(struct gpu *g, struct gpu_graph **out, struct err *e)
{
    spy.recording = false;
    return spy.own->recorded(g, out, e);
}

static struct gpu *open_spied(int index, struct err *e)
{
    struct gpu *g = open_host(index, e);
    if (!g) return NULL;
    spy.own = g->ops;
    spy.ops = *g->ops;
    spy.ops.launch = spied_launch;
    spy.ops.record = spied_record;
    spy.ops.recorded = spied_recorded;
    g->ops = &spy.ops;
    return g;
}

TEST(bench_cuda_steps_read_a_cache_of_values)
{
    struct suite_opts o = small(SUITE_MODEL);
    struct suite s;
    struct err e = { 0 };
    memset(&spy, 0, sizeof spy);
    o.device.open = open_spied;
    CHECK_OK(suite_init(&s, &o, &e), &e);
    for (int j = s.n_job - 1; j >= 0; j--) {
        const struct points_row *r = &s.row[s.job[j].first];
        struct suite_value v[64];
        if (r->op == POINTS_STEP && r->k == 0) CHECK_OK(suite_run_job(&s, j, v, &e), &e);
    }
    suite_release(&s);
    if (!CHECK(spy.rows > 16)) printf("  %d\n", (int)spy.rows);
    CHECK_INT(spy.zeros, 0);
}

TEST(bench_cuda_values_of_the_fill_kernel_by_hand)
{
    struct suite_opts o = small(SUITE_MODEL);
    struct suite s;
    struct err e = { 0 };
    float back[100];
    CHECK_OK(suite_init(&s, &o, &e), &e);
    CHECK_OK(suite_cuda_start(&s, &e), &e);
    float *x = suite_cuda_drawn(&s, GPU_F32, 100, 7, &e);
    CHECK(x);
    CHECK_OK(suite_cuda_get(&s, back, x, sizeof back, &e), &e);
    for (int i = 0; i < 100; i++) {
        CHECK(back[i] == (float)suite_cuda_value(GPU_F32, 7, i));
        double v = suite_cuda_value(GPU_E4M3, 7, i);
        CHECK(v >= -1 && v < 1 && v * 8 == floor(v * 8));
    }
    suite_release(&s);
}

/* ---- two ranks */

TEST(bench_cuda_messages_through_the_host_are_right)
{
    struct suite_opts o = small(SUITE_QUICK);
    struct suite s;
    struct err e = { 0 };
    int sums = 0, messages = 0;
    o.device.count = two;
    CHECK_OK(suite_init(&s, &o, &e), &e);
    for (int j = 0; j < s.n_job; j++) {
        struct points_row *r = &s.row[s.job[j].first];
        struct suite_value v[64];
        if (r->op != POINTS_ALLREDUCE && r->op != POINTS_SENDRECV) continue;
        CHECK_OK(suite_run_job(&s, j, v, &e), &e);
        for (int i = 0; i < s.job[j].n; i++) {
            CHECK(v[i].calls > 0 && v[i].s_per_call > 0);
            CHECK(r[i].error == 0 && r[i].ranks == 2 && r[i].comm == POINTS_THREAD);
            (r[i].op == POINTS_ALLREDUCE ? ++sums : ++messages);
        }
    }
    CHECK(sums > 0 && messages > 0);
    suite_release(&s);
}

static _Thread_local bool timing; /* between events */
static _Atomic int64_t n_sent, n_bad;

static int spied_event_set(struct gpu *g, struct gpu_event *ev, struct err *e)
{
    timing = !timing;
    return spy.own->event_set(g, ev, e);
}

/* What passes between a device and its rank is neither zeros nor past f32. */
static int spied_put(struct gpu *g, void *to, const void *from, size_t bytes, struct err *e)
{
    size_t n = bytes / sizeof(float), good = 0;
    float *v = timing ? malloc(bytes) : NULL;
    int st = v ? spy.own->get(g, v, from, bytes, e) : ST_OK;
    if (v && st == ST_OK) st = spy.own->wait(g, e);
    for (size_t i = 0; v && i < n; i++) good += isfinite(v[i]) && v[i] != 0;
    if (v) n_sent++;
    if (v && good < n - n / 64) n_bad++;
    free(v);
    return st == ST_OK ? spy.own->put(g, to, from, bytes, e) : st;
}

static struct gpu *open_watched(int index, struct err *e)
{
    struct gpu *g = gpu_host_open(&host_opts, e);
    (void)index;
    if (g) g->ops = &spy.ops;
    return g;
}

/* Calls enough for sums in place to leave f32 many times, were they not drawn anew. */
TEST_LIMIT(bench_cuda_messages_are_of_values, 60)
{
    struct suite_opts o = small(SUITE_QUICK);
    struct suite s;
    struct err e = { 0 };
    int64_t most = 0;
    struct gpu *any = open_host(0, &e);
    CHECK(any);
    spy.own = any->ops;
    spy.ops = *any->ops;
    spy.ops.put = spied_put;
    spy.ops.event_set = spied_event_set;
    any->ops->close(any);
    n_sent = n_bad = 0;
    o.device.count = two;
    o.device.open = open_watched;
    CHECK_OK(suite_init(&s, &o, &e), &e);
    s.o.run_s = 1;
    for (int j = 0; j < s.n_job; j++) {
        const struct points_row *r = &s.row[s.job[j].first];
        struct suite_value v[64];
        if (r->op != POINTS_ALLREDUCE && r->op != POINTS_SENDRECV) continue;
        CHECK_OK(suite_run_job(&s, j, v, &e), &e);
        for (int i = 0; i < s.job[j].n; i++)
            if (v[i].calls > most) most = v[i].calls;
    }
    suite_release(&s);
    CHECK_INT(most, 2000);
    CHECK(n_sent > most);
    CHECK_INT(n_bad, 0);
}

/* ---- files */

static int bench(struct suite_opts *o, const char *path, int runs, struct suite_log *log,
                 struct err *e)
{
    static char name[] = "test";
    char *argv[] = { name };
    struct suite s;
    struct suite_run_opts ro = { .out = path, .runs = runs, .seed = 3, .save_s = 1e9, .argc = 1 };
    ro.argv = argv;
    int st = suite_init(&s, o, e);
    if (st != ST_OK) return st;
    st = suite_run(&s, &ro, log, e);
    CHECK_INT(suite_wrong(&s), -1);
    suite_release(&s);
    return st;
}

static bool has_op(const struct points_file *f, int op, int part)
{
    for (int64_t i = 0; i < f->n_row; i++)
        if (f->row[i].op == op && f->row[i].part == part) return true;
    return false;
}

TEST_LIMIT(bench_cuda_full_suite_has_all_and_says_what_it_ran_on, 120)
{
    static const struct {
        int op, part;
    } want[] = { { POINTS_READ, 0 },
                 { POINTS_COPY, 0 },
                 { POINTS_COPY, POINTS_TO_DEVICE },
                 { POINTS_COPY, POINTS_FROM_DEVICE },
                 { POINTS_COPY, POINTS_ON_DEVICE },
                 { POINTS_LAUNCH, 0 },
                 { POINTS_ALLOC, 0 },
                 { POINTS_LOAD, POINTS_COLD },
                 { POINTS_LOAD, POINTS_WARM },
                 { POINTS_LOAD, POINTS_IN_PLACE },
                 { POINTS_GEMM, 0 },
                 { POINTS_GEMM, POINTS_QKV },
                 { POINTS_GEMM, POINTS_HEAD },
                 { POINTS_ATTN, 0 },
                 { POINTS_ELT, POINTS_NORM },
                 { POINTS_ELT, POINTS_ROPE },
                 { POINTS_ELT, POINTS_KV_PUT },
                 { POINTS_ELT, POINTS_ACT },
                 { POINTS_ELT, POINTS_EMBED },
                 { POINTS_SAMPLE, 0 },
                 { POINTS_SAMPLE, POINTS_DRAWN },
                 { POINTS_SAMPLE, POINTS_TOP_K },
                 { POINTS_STEP, 0 },
                 { POINTS_REPLAY, 0 } };
    struct suite_opts o = small(SUITE_FULL);
    struct suite_log log;
    struct arena a;
    struct points_file f;
    struct err e = { 0 };
    double limit = 0;
    char *text = NULL;
    const char *path = test_path("bench.h5");
    o.cache_bytes = 1 << 18; /* files go in pieces of half of it */
    CHECK_OK(bench(&o, path, 1, &log, &e), &e);
    suite_log_release(&log);
    arena_init(&a);
    CHECK_OK(points_read(path, &a, &f, &e), &e);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        if (!CHECK(has_op(&f, want[i].op, want[i].part)))
            printf("  op %d part %d\n", want[i].op, want[i].part);
    for (int64_t i = 0; i < f.n_row; i++) /* of a profile's threads and ranks, all of them */
        CHECK(f.row[i].threads == 1 && f.row[i].ranks == 1);
    CHECK_OK(h5_read_attr_text(f.h5, "/provenance", "gpu", &a, &text, &e), &e);
    CHECK_TEXT(text, "host");
    CHECK_OK(h5_read_attr_f64(f.h5, "/limits", "gemm_bf16_flop_per_s", &limit, &e), &e);
    CHECK(limit > 0);
    points_close(&f);
    arena_release(&a);
}

/* ---- a profile of it */

/* The file at `from` with times of a made-up device: 2 us and 2e12 B/s or 5e14 FLOP/s, two samples. */
static bool with_times(const char *from, const char *to, struct arena *a, struct err *e)
{
    static const char *const note[] = { "gpu",          "gpu_sm",    "gpu_memory_bytes",
                                        "gpu_l2_bytes", "gpu_count", "gpu_multiprocessors",
                                        "strategy" };
    struct points_file f;
    struct prov v;
    if (points_read(from, a, &f, e) != ST_OK) return false;
    points *p = points_create(to, "times by hand", e);
    for (int64_t i = 0; i < f.n_row && p; i++) points_add(p, &f.row[i], e);
    for (int i = 0; i < 2 * f.n_row && p; i++) {
        const struct points_row *r = &f.row[i / 2];
        double t = 2e-6 + fmax(r->bytes / 2e12, r->flop / 5e14);
        if (r->op == POINTS_GEMM && r->dtype == POINTS_FP8) t = 2e-6 + r->flop / 1e15;
        if (r->op == POINTS_STEP) t = 1e-4 + 1e-6 * (double)r->m;
        struct points_sample x = { .point = i / 2, .run = i % 2, .calls = 1, .s_per_call = t };
        points_put(p, &x, e);
    }
    for (size_t i = 0; i < sizeof note / sizeof *note && p; i++) {
        char *text = NULL;
        if (h5_read_attr_text(f.h5, "/provenance", note[i], a, &text, e) == ST_OK)
            points_note(p, note[i], text, e);
    }
    points_close(&f);
    static char name[] = "test";
    char *argv[] = { name };
    prov_collect(&v, 1, argv);
    bool fine = p && points_commit(p, &v, e) == ST_OK;
    prov_release(&v);
    return fine;
}

TEST_LIMIT(bench_cuda_file_becomes_a_profile_of_the_gpu, 120)
{
    struct suite_opts o = small(SUITE_FULL);
    struct suite_log log;
    struct calibrate c;
    struct arena a;
    struct hw h;
    struct err e = { 0 };
    static char name[] = "test";
    char *argv[] = { name };
    const char *path = test_path("bench.h5"), *made = test_path("made.h5"),
               *to = test_path("gpu.h5");
    o.max_tok = 512;
    o.max_ctx = 1024;
    o.max_seqs = 32;
    o.kv_bytes = 1e7;
    CHECK_OK(bench(&o, path, 0, &log, &e), &e);
    suite_log_release(&log);
    arena_init(&a);
    if (!CHECK(with_times(path, made, &a, &e))) printf("  %s\n", e.text);
    calibrate_init(&c, &(struct calibrate_opts){ .out = to, .tables = true, .seed = 1 }, &a);
    c.o.model = o.model;
    CHECK_OK(calibrate_add(&c, made, &e), &e);
    CHECK_OK(calibrate_fit(&c, &e), &e);
    CHECK(c.limit_of[DT_FP8] > 1.5 * c.limit_of[DT_F32] || c.limit_of[DT_FP8] > 0);
    if (!CHECK(c.profile.n_fit >= 4)) printf("%s\n", c.skipped); /* gemm, decode, prefill, elt */
    if (!CHECK(c.n_table_row > 30)) printf("%s\n", c.skipped);
    CHECK_OK(calibrate_write(&c, 1, argv, &e), &e);
    CHECK_OK(hw_load(to, NULL, 1, &a, &h, &e), &e);
    CHECK_TEXT(h.gpu.name, "host");
    CHECK_TEXT(h.gpu.arch, "ada");
    CHECK(h.gpu.mem_bytes == 4294967296.0 && h.sys.n_gpu == 1);
    CHECK(h.measured);
    calibrate_release(&c);
    arena_release(&a);
}

/* ---- what goes wrong */

TEST_LIMIT(bench_cuda_failures_are_told_with_the_job, 120)
{
    static const enum gpu_host_call call[] = {
        GPU_HOST_LAUNCH,   GPU_HOST_MM,  GPU_HOST_PLAN, GPU_HOST_WAIT, GPU_HOST_RECORDED,
        GPU_HOST_EVENT_NS, GPU_HOST_RUN, GPU_HOST_PUT,  GPU_HOST_ALLOC
    };
    for (size_t i = 0; i < sizeof call / sizeof *call; i++) {
        struct suite_opts o = small(SUITE_QUICK);
        struct suite s;
        struct err e = { 0 };
        int st = ST_OK;
        CHECK_OK(suite_init(&s, &o, &e), &e);
        gpu_host_fail(s.cuda->g, call[i], 3);
        for (int j = 0; j < s.n_job && st == ST_OK; j++) {
            struct suite_value v[256];
            if (s.row[s.job[j].first].op == POINTS_STEP) continue;
            st = suite_run_job(&s, j, v, &e);
            if (st != ST_OK) CHECK_HAS(e.text, s.job[j].what);
        }
        /* the pool is the only allocation, pieces of the engine's are another device's */
        CHECK_INT(st, call[i] == GPU_HOST_ALLOC ? ST_OK : ST_DEVICE);
        suite_release(&s);
    }
}

TEST(bench_cuda_refuses_what_the_device_lacks)
{
    struct suite_opts o = small(SUITE_QUICK);
    struct suite s;
    struct err e = { 0 };
    o.weight = MODEL_INT8;
    CHECK_INT(suite_init(&s, &o, &e), ST_USAGE);
    CHECK_HAS(e.text, "no int8 products");
    e = (struct err){ 0 };
    o = small(SUITE_QUICK);
    host_opts.sm = 75;
    CHECK_INT(suite_init(&s, &o, &e), ST_USAGE);
    CHECK_HAS(e.text, "compute capability 7.5");
    e = (struct err){ 0 };
    o.weight = MODEL_F16;
    CHECK_INT(suite_init(&s, &o, &e), ST_USAGE);
    CHECK_HAS(e.text, "--strategy.kv: bf16");
    e = (struct err){ 0 };
    o.kv = BACKEND_F16;
    CHECK_OK(suite_init(&s, &o, &e), &e);
    suite_release(&s);
    host_opts =
        (struct gpu_host_opts){ .memory_bytes = 1000 << 20 }; /* less than an engine takes */
    o = small(SUITE_MODEL);
    CHECK_INT(suite_init(&s, &o, &e), ST_USAGE);
    CHECK_HAS(e.text, "do not fit on the GPU");
    e = (struct err){ 0 };
    o = small(SUITE_QUICK);
    CHECK_OK(suite_init(&s, &o, &e), &e);
    CHECK(s.n_skipped > 0 && s.no_engine);
    suite_release(&s);
    o.tp = 2;
    CHECK_INT(suite_init(&s, &o, &e), ST_USAGE);
    CHECK_HAS(e.text, "--share-device");
}

/* ---- what NVML says */

static struct {
    unsigned mw, mhz, celsius;
    unsigned long long bits;
    int inits, ends, bad;
    char bus[32];
} card;

static int fake_init(void)
{
    card.inits++;
    return 0;
}
static int fake_shutdown(void)
{
    card.ends++;
    return 0;
}
static int fake_by_bus(const char *bus, void **out)
{
    snprintf(card.bus, sizeof card.bus, "%s", bus);
    *out = &card;
    return card.bad;
}
static int fake_power(void *d, unsigned *v)
{
    (void)d;
    *v = card.mw;
    return 0;
}
static int fake_clock(void *d, int which, unsigned *v)
{
    (void)d;
    *v = card.mhz;
    return which == 1 ? 0 : 2;
}
static int fake_heat(void *d, int sensor, unsigned *v)
{
    (void)d;
    *v = card.celsius;
    return sensor == 0 ? 0 : 2;
}
static int fake_reasons(void *d, unsigned long long *v)
{
    (void)d;
    *v = card.bits;
    return 0;
}
static const struct nvml_api fake_nvml = { fake_init,  fake_shutdown, fake_by_bus, fake_power,
                                           fake_clock, fake_heat,     fake_reasons };

TEST(bench_cuda_keeps_power_and_clock_and_marks_what_was_slowed)
{
    struct suite_opts o = small(SUITE_MODEL);
    struct suite s;
    struct suite_log log;
    struct points_file f;
    struct arena a;
    struct err e = { 0 };
    static char name[] = "test";
    char *argv[] = { name };
    const char *path = test_path("bench.h5");
    struct suite_run_opts ro = {
        .out = path, .runs = 1, .seed = 3, .save_s = 1e9, .argc = 1, .argv = argv
    };
    card.mw = 412500, card.mhz = 1700, card.celsius = 61, card.bits = NVML_HW_THERMAL | 1;
    CHECK_OK(suite_init(&s, &o, &e), &e);
    CHECK(!s.cuda->nvml);
    s.cuda->nvml = nvml_open("0000:3b:00.0", &fake_nvml, &e);
    CHECK(s.cuda->nvml);
    CHECK_TEXT(card.bus, "0000:3b:00.0");
    CHECK_OK(suite_run(&s, &ro, &log, &e), &e);
    CHECK_INT(log.n_gpu, s.n_job);
    CHECK_INT(log.n_noisy, log.n_sample);
    suite_log_release(&log);
    suite_release(&s);
    CHECK(card.inits == 1 && card.ends == 1);
    arena_init(&a);
    CHECK_OK(points_read(path, &a, &f, &e), &e);
    CHECK(f.n_gpu > 0);
    for (int64_t i = 0; i < f.n_gpu; i++) {
        CHECK_NEAR(f.gpu[i].power_w, 412.5, 1e-12);
        CHECK(f.gpu[i].clock_min_hz == 1.7e9 && f.gpu[i].temperature_c == 61);
        CHECK(f.gpu[i].slowed == (NVML_HW_THERMAL | 1) && f.gpu[i].looks >= 1);
    }
    for (int64_t i = 0; i < f.n_sample; i++) CHECK(f.sample[i].noisy);
    points_close(&f);
    arena_release(&a);
}

TEST(bench_cuda_lives_with_an_old_driver)
{
    struct nvml_api few = fake_nvml;
    struct points_gpu seen;
    struct err e = { 0 };
    few.power = NULL;
    few.clock = NULL;
    few.reasons = NULL;
    struct nvml *n = nvml_open("x", &few, &e);
    CHECK(n);
    nvml_begin(n);
    nvml_end(n, &seen);
    CHECK(isnan(seen.power_w) && isnan(seen.clock_hz) && isnan(seen.clock_min_hz));
    CHECK(seen.slowed == 0 && seen.looks >= 1);
    nvml_close(n);
    card.bad = 6;
    CHECK(!nvml_open("0000:99:00.0", &fake_nvml, &e));
    CHECK_HAS(e.text, "knows no GPU at '0000:99:00.0'");
    CHECK(card.inits == 2 && card.ends == 2);
}

/* ---- figures, by hand */

static void put(struct suite *s, struct suite_log *log, struct points_row r, double t)
{
    struct points_sample *x = &log->sample[log->n_sample++];
    *x = (struct points_sample){ .point = suite_add_row(s, &r), .calls = 1, .s_per_call = t };
}

TEST(bench_cuda_figures_stand_beside_their_ceilings)
{
    struct suite_opts o = small(SUITE_MODEL);
    struct suite s;
    struct suite_log log = { 0 };
    struct suite_figure x[SUITE_FIGURE_MAX];
    struct err e = { 0 };
    CHECK_OK(suite_init(&s, &o, &e), &e);
    log.sample = mem_zalloc(16, sizeof *log.sample);
    s.n_row = s.n_job = 0;
    suite_add_job(&s, "by hand", 1);
    put(&s, &log, (struct points_row){ .op = POINTS_READ, .bytes = 4e12 }, 1); /* 4 TB/s */
    /* parameters: layers 2 x (64*64 + 2*64*32 + 64*64 + 3*64*96 + 2*64) = 61696, norm 64,
     * embedding and head 160*64 = 10240 each; a step reads all but the embedding, bf16, and 17
     * positions of 2 layers x 2 x 32 x 2 bytes */
    double bytes = 2 * (61696 + 64 + 10240) + 17 * 2 * 128.0;
    put(&s, &log, (struct points_row){ .op = POINTS_STEP, .m = 1, .n = 1, .seqs = 1, .ctx = 16 },
        bytes / 3.6e12);
    put(&s, &log, (struct points_row){ .op = POINTS_REPLAY, .m = 1, .n = 1, .seqs = 1, .ctx = 16 },
        bytes / 3.6e12 * 0.9);
    put(&s, &log,
        (struct points_row){
            .op = POINTS_GEMM, .dtype = POINTS_BF16, .m = 8, .n = 8, .k = 8, .flop = 1e12 },
        1e-3);
    double tok = 2048,
           flop = 2 * tok * (61696 + 64) + 2 * 10240 + 4.0 * 2 * 2 * 32 * tok * (tok + 1) / 2;
    put(&s, &log, (struct points_row){ .op = POINTS_STEP, .m = 2048, .n = 1, .k = 2048, .seqs = 1 },
        flop / 0.75e15);
    put(&s, &log,
        (struct points_row){
            .op = POINTS_ATTN, .m = 8, .seqs = 8, .ctx = 4096, .ctx_max = 4096, .bytes = 2e9 },
        1e-3);
    int n = suite_figures(&s, &log, x), seen = 0;
    for (int i = 0; i < n; i++) {
        if (strcmp(x[i].name, "decode, batch 1") == 0) {
            CHECK_NEAR(x[i].share, 0.9, 1e-9);
            CHECK_INT(x[i].verdict, SUITE_MET);
            seen++;
        } else if (strcmp(x[i].name, "host gap, batch 1") == 0) {
            CHECK_NEAR(x[i].share, 0.1, 1e-9);
            CHECK_INT(x[i].verdict, SUITE_MISSED);
            seen++;
        } else if (strcmp(x[i].name, "prefill, 2048 tokens") == 0) {
            CHECK_NEAR(x[i].share, 0.75, 1e-9);
            CHECK_INT(x[i].verdict, SUITE_MET);
            seen++;
        } else if (strcmp(x[i].name, "decode attention, 8 x 4096") == 0) {
            CHECK_NEAR(x[i].share, 0.5, 1e-9);
            CHECK_INT(x[i].verdict, SUITE_MISSED);
            seen++;
        }
    }
    CHECK_INT(seen, 4);
    log.n_sample = 1; /* bandwidth alone */
    s.n_row = 1;
    n = suite_figures(&s, &log, x);
    for (int i = 2; i < n; i++) CHECK_INT(x[i].verdict, SUITE_NOT_MEASURED);
    CHECK_INT(n, 6);
    suite_log_release(&log);
    suite_release(&s);
}

/* ---- the script of `make gpu-check` where there is no GPU */

static bool has_driver(void)
{
    return access("/dev/nvidiactl", F_OK) == 0 || access("/dev/dxg", F_OK) == 0;
}

static void check_script(const char *path_first, const char *sentence)
{
    char out[4096], err[1024], cmd[1024];
    snprintf(cmd, sizeof cmd, "PATH=%s:$PATH OUT=%s B=%s sh tests/gpu_check.sh", path_first,
             test_path("out"), test_path("never-built"));
    CHECK_INT(test_run(cmd, out, sizeof out, err, sizeof err), 0);
    CHECK_TEXT(err, "");
    CHECK_HAS(out, sentence);
    CHECK_HAS(out, "\n0 passed, 0 failed, 9 skipped\n"); /* two lines, the count last */
    CHECK(strlen(strchr(out, '\n')) == strlen("\n0 passed, 0 failed, 9 skipped\n"));
    CHECK(access(test_path("never-built"), F_OK) != 0);
}

TEST(bench_cuda_check_ends_at_once_without_a_gpu)
{
    char dir[512], lie[544];
    snprintf(dir, sizeof dir, "%s/bin", test_dir());
    snprintf(lie, sizeof lie, "%s/nvidia-smi", dir);
    if (access("tests/gpu_check.sh", R_OK) != 0) SKIP("tests run from the root of the repository");
    if (has_driver()) SKIP("there is a driver here, so a GPU may be");
    check_script("/nowhere", "no NVIDIA GPU here");
    CHECK_INT(mkdir(dir, 0700), 0);
    FILE *f = fopen(lie, "w");
    if (!f || fputs("#!/bin/sh\necho 'GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-0)'\n", f) < 0)
        abort();
    fclose(f);
    CHECK_INT(chmod(lie, 0700), 0);
    check_script(dir, "nvidia-smi lists a GPU, but");
}
