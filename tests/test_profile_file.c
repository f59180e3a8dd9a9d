/* tests/test_profile_file.c - measured profiles: round trip, constants for a strategy, correlated
 * draws, damaged and hostile files, and a simulation on a synthetic machine.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/profile_file.h"

#include <gsl/gsl_errno.h>
#include <hdf5.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/rng.h"
#include "base/stat.h"
#include "model/deploy.h"
#include "tests/machine.h"
#include "tests/test.h"

/* ---- round trip */

TEST(profile_file_reads_what_was_written)
{
    struct machine m;
    struct profile_file r;
    const char *path = machine_file(&m, "machine.h5", 0.02);
    if (!path) return;
    CHECK_OK(profile_file_read(path, &m.a, &r, &m.e), &m.e);
    CHECK_TEXT(r.machine, m.p.machine);
    CHECK_TEXT(r.used, m.p.used);
    CHECK_TEXT(r.runs, m.p.runs);
    CHECK_INT(r.threads, 1);
    CHECK(r.hw.gpu.mem_bytes_per_s == MACHINE_RATE && r.hw.gpu.flop_per_s[DT_F32] == MACHINE_PEAK);
    CHECK_INT(r.hw.sys.n_gpu, 2);
    CHECK_INT(r.hw.sys.fabric, HW_HOST);
    CHECK_INT(r.n_fit, MACHINE_N_LAW);
    for (int i = 0; i < r.n_fit && i < MACHINE_N_LAW; i++) {
        const struct fit *x = r.fit + i, *y = m.fit + i;
        CHECK_INT(x->law, y->law);
        CHECK_INT(x->n_par, y->n_par);
        CHECK_INT(x->n_range, y->n_range);
        CHECK_INT(x->n_point, y->n_point);
        CHECK(x->held.mape == y->held.mape);
        CHECK_TEXT(x->note, y->note);
        for (int j = 0; j < x->n_par; j++) {
            CHECK(x->id[j] == y->id[j] && x->v[j] == y->v[j] && x->known[j] == y->known[j]);
            for (int k = 0; k < x->n_par; k++) CHECK(x->cov[j][k] == y->cov[j][k]);
        }
        for (int j = 0; j < x->n_range; j++)
            CHECK(x->range[j].size == y->range[j].size && x->range[j].hi == y->range[j].hi);
    }
    CHECK_INT(r.n_extra, 2);
    machine_release(&m);
}

TEST(profile_file_texts_are_harmless)
{
    struct machine m;
    struct profile_file r;
    const char *path = test_path("evil.h5");
    CHECK_OK(machine_init(&m, 0.02), &m.e);
    m.p.machine = "evil \033[2J\nmachine";
    m.p.hw.gpu.name = "a\tb";
    CHECK_OK(profile_file_write(path, &m.p, &m.prov, &m.e), &m.e);
    CHECK_OK(profile_file_read(path, &m.a, &r, &m.e), &m.e);
    CHECK_TEXT(r.machine, "evil ?[2J?machine");
    CHECK_TEXT(r.hw.gpu.name, "a?b");
    CHECK_TEXT(r.hw.sys.gpu_name, "a?b");
    machine_release(&m);
}

TEST(profile_file_is_whole_or_absent)
{
    struct machine m;
    struct err e = { 0 };
    const char *path = test_path("none.h5");
    CHECK_OK(machine_init(&m, 0.02), &m.e);
    m.fit[0].cov[0][1] = m.fit[0].cov[1][0] = 5;
    CHECK_INT(profile_file_write(path, &m.p, &m.prov, &e), ST_USAGE);
    CHECK_HAS(e.text, "covariance");
    CHECK(access(path, F_OK) != 0);
    err_clear(&e);
    CHECK_INT(profile_file_write("/nonexistent/x.h5", &m.p, &m.prov, &e), ST_USAGE);
    m.fit[0].cov[0][1] = m.fit[0].cov[1][0] = 0;
    err_clear(&e);
    CHECK_INT(profile_file_write("/nonexistent/x.h5", &m.p, &m.prov, &e), ST_IO);
    m.fit[0].id[0] = P_HOST_STEP_S; /* one law does not set the constants of another */
    err_clear(&e);
    CHECK_INT(profile_file_write(path, &m.p, &m.prov, &e), ST_USAGE);
    CHECK_HAS(e.text, "gemm: host.step is no constant of it");
    m.fit[0].id[0] = P_GEMM_T0_S;
    m.fit[1].law = LAW_GEMM;
    m.fit[1].dtype = m.fit[0].dtype;
    err_clear(&e);
    CHECK_INT(profile_file_write(path, &m.p, &m.prov, &e), ST_USAGE);
    machine_release(&m);
}

/* ---- constants for a strategy */

static int load(struct machine *m, const char *path, struct strategy s, struct hw *h,
                struct profile *out)
{
    int st = hw_load(path, NULL, 1, &m->a, h, &m->e);
    return st == ST_OK ? profile_load(h, &s, "vllm", NULL, &m->a, out, &m->e) : st;
}

static const struct strategy one = { 1, 1, 1, 1, DT_F32, DT_F32, "auto" };

TEST(profile_file_gives_the_constants_of_the_strategy)
{
    struct machine m;
    struct hw h;
    struct profile p;
    struct strategy s = one;
    const char *path = machine_file(&m, "machine.h5", 0.02);
    if (!path) return;
    CHECK_OK(load(&m, path, s, &h, &p), &m.e);
    CHECK_TEXT(p.measured, "a synthetic machine 2026-08-01");
    CHECK_TEXT(p.note, "");
    CHECK(p.peak_flop_per_s == MACHINE_PEAK && p.mem_bytes_per_s == MACHINE_RATE);
    CHECK(p.peak_flop_per_s == profile_peak(&h.gpu, LAW_GEMM, DT_F32));
    CHECK_NEAR(p.p[P_GEMM_EC].v, 0.8, 0.1);
    CHECK_NEAR(p.p[P_LAW].v, 1.05, 0.05);
    CHECK(p.p[P_HOST_REQ_S].v == 1e-4);
    CHECK(p.p[P_HOST_GAP_S].v == 0 && !p.host_overlap);
    CHECK_INT(p.p[P_GEMM_EC].cover, COVER_FIT);
    CHECK_HAS(p.p[P_GEMM_EC].source, "measured on a synthetic machine 2026-08-01");
    CHECK_HAS(p.p[P_GEMM_EC].source, "held out");
    CHECK_INT(p.p[P_MOE_EC].cover, COVER_GUESS); /* of a GPU: it says nothing of a processor */
    s.tp = 2;
    CHECK_OK(load(&m, path, s, &h, &p), &m.e);
    CHECK_NEAR(p.p[P_AR_B].v, 3e9, 0.1);
    CHECK_INT(p.p[P_AR_B].cover, COVER_FIT);
    CHECK(p.ar_limit_bytes == 0);
    /* Four ranks were not measured: from those of two, and no better than a class default. */
    s.tp = 4;
    CHECK_OK(load(&m, path, s, &h, &p), &m.e);
    CHECK_INT(p.p[P_AR_B].cover, COVER_CLASS);
    CHECK(p.p[P_AR_B].sd_log >= 0.15);
    CHECK_HAS(p.note, "allreduce");
    /* Nor were bf16 weights. */
    s.tp = 1;
    s.weight_dtype = DT_BF16;
    CHECK_OK(load(&m, path, s, &h, &p), &m.e);
    CHECK_HAS(p.note, "not measured");
    CHECK_HAS(p.note, "gemm");
    CHECK_INT(p.p[P_GEMM_EC].cover, COVER_CLASS);
    machine_release(&m);
}

/* All-reduces of a cluster, measured by another tool, for hardware of the catalog. */
TEST(profile_file_of_a_part_leaves_the_rest_to_the_catalog)
{
    struct machine m;
    struct hw h;
    struct profile p, catalog;
    struct strategy s = { 2, 1, 1, 1, DT_BF16, DT_BF16, "auto" };
    CHECK_OK(machine_init(&m, 0.02), &m.e);
    const char *path = arena_printf(&m.a, "%s", test_path("part.h5"));
    m.p.fit = m.fit + 4;
    m.p.n_fit = 1;
    m.p.n_extra = 0;
    m.p.engine = "vllm";
    CHECK_OK(profile_file_write(path, &m.p, &m.prov, &m.e), &m.e);
    CHECK_OK(hw_load("dgx-h100", NULL, 1, &m.a, &h, &m.e), &m.e);
    CHECK_OK(profile_load(&h, &s, "vllm", NULL, &m.a, &catalog, &m.e), &m.e);
    CHECK_OK(hw_measured(path, NULL, &m.a, &h, &m.e), &m.e);
    CHECK_OK(profile_load(&h, &s, "vllm", NULL, &m.a, &p, &m.e), &m.e);
    for (int i = 0; i < P_N; i++)
        if (i < P_AR_A_S || i > P_CAR_S0) CHECK(p.p[i].v == catalog.p[i].v);
    CHECK_NEAR(p.p[P_AR_B].v, 3e9, 0.1);
    CHECK_HAS(p.note, "gemm");
    CHECK_HAS(p.note, "allgather");
    CHECK(!strstr(p.note, "allreduce"));
    CHECK_INT(hw_measured("/nonexistent.h5", NULL, &m.a, &h, &m.e), ST_USAGE);
    machine_release(&m);
}

TEST(profile_file_draws_have_its_covariance)
{
    enum { N = 20000 };
    struct machine m;
    struct hw h;
    struct profile p, d;
    const char *path = machine_file(&m, "machine.h5", 0.02);
    if (!path) return;
    CHECK_OK(load(&m, path, one, &h, &p), &m.e);
    CHECK(p.n_block >= 5);
    for (int b = 0; b < p.n_block; b++) {
        const struct profile_block *k = p.block + b;
        double sum[PROFILE_BLOCK_MAX][PROFILE_BLOCK_MAX] = { { 0 } };
        for (int i = 0; i < N / 10; i++) {
            double x[PROFILE_BLOCK_MAX];
            profile_draw(&p, rng_stream(3, "draws"), i + 1, &d);
            for (int j = 0; j < k->n; j++) x[j] = log(d.p[k->id[j]].v / p.p[k->id[j]].v);
            for (int j = 0; j < k->n; j++)
                for (int l = 0; l < k->n; l++) sum[j][l] += x[j] * x[l] / (N / 10);
        }
        for (int j = 0; j < k->n; j++)
            for (int l = 0; l < k->n; l++) {
                double want = 0, size = p.p[k->id[j]].sd_log * p.p[k->id[l]].sd_log;
                for (int q = 0; q < k->n; q++) want += k->chol[j][q] * k->chol[l][q];
                bool capped = k->id[j] == P_GEMM_Q || k->id[l] == P_GEMM_Q ||
                              p.p[k->id[j]].sd_log > 0.3 || p.p[k->id[l]].sd_log > 0.3;
                if (!capped) CHECK(fabs(sum[j][l] - want) < 0.12 * size);
            }
    }
    /* Draw 0 is the profile, and the same draw is the same. */
    profile_draw(&p, rng_stream(3, "draws"), 0, &d);
    for (int i = 0; i < P_N; i++) CHECK(d.p[i].v == p.p[i].v);
    machine_release(&m);
}

/* ---- hostile files */

/* A copy of the file at `from`, without the flush to disk that a new one takes. */
static void copy_file(const char *from, const char *to)
{
    char block[1 << 16];
    FILE *in = fopen(from, "rb"), *f = fopen(to, "wb");
    for (size_t n; in && f && (n = fread(block, 1, sizeof block, in)) > 0;) fwrite(block, 1, n, f);
    if (in) fclose(in);
    if (f) fclose(f);
}

static bool refused(const char *path, struct err *e)
{
    struct arena a;
    struct profile_file r;
    arena_init(&a);
    err_clear(e);
    int st = profile_file_read(path, &a, &r, e);
    arena_release(&a);
    return st != ST_OK && e->text[0];
}

/* Overwrites one value of a dataset or attribute. */
static void spoil(const char *path, const char *object, const char *attr, double v)
{
    hid_t f = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    if (attr) { /* made anew: HDF5 1.10 does not overwrite one of many attributes */
        hid_t old = H5Aopen_by_name(f, object, attr, H5P_DEFAULT, H5P_DEFAULT);
        hid_t type = H5Aget_type(old), space = H5Screate(H5S_SCALAR);
        H5Aclose(old);
        H5Adelete_by_name(f, object, attr, H5P_DEFAULT);
        hid_t a =
            H5Acreate_by_name(f, object, attr, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
        CHECK(H5Awrite(a, H5T_NATIVE_DOUBLE, &v) >= 0);
        H5Aclose(a);
        H5Sclose(space);
        H5Tclose(type);
    } else {
        hid_t d = H5Dopen2(f, object, H5P_DEFAULT), s = H5Dget_space(d);
        double x[64];
        CHECK(H5Sget_simple_extent_npoints(s) <= 64);
        H5Dread(d, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, x);
        x[1] = v;
        CHECK(H5Dwrite(d, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, x) >= 0);
        H5Sclose(s);
        H5Dclose(d);
    }
    H5Fclose(f);
}

static void remove_object(const char *path, const char *object)
{
    hid_t f = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    CHECK(H5Ldelete(f, object, H5P_DEFAULT) >= 0);
    H5Fclose(f);
}

/* A text in place of an object. */
static void put_text(const char *path, const char *object, const char *text)
{
    hid_t f = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT), type = H5Tcopy(H5T_C_S1);
    if (H5Lexists(f, object, H5P_DEFAULT) > 0) H5Ldelete(f, object, H5P_DEFAULT);
    H5Tset_size(type, H5T_VARIABLE);
    hid_t space = H5Screate(H5S_SCALAR),
          d = H5Dcreate2(f, object, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    CHECK(H5Dwrite(d, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, &text) >= 0);
    H5Dclose(d);
    H5Sclose(space);
    H5Tclose(type);
    H5Fclose(f);
}

TEST(profile_file_of_endless_texts)
{
    enum { LONG = 1 << 20 };
    struct machine m;
    struct profile_file r;
    struct err e = { 0 };
    const char *first = machine_file(&m, "first.h5", 0.02), *path = test_path("long.h5");
    if (!first) return;
    char *text = mem_alloc(LONG + 1);
    memset(text, 'x', LONG);
    text[LONG] = 0;
    copy_file(first, path);
    put_text(path, "/used", text);
    put_text(path, "/runs", text);
    CHECK_OK(profile_file_read(path, &m.a, &r, &e), &e);
    CHECK(strlen(r.used) <= LONG && strlen(r.runs) <= LONG);
    CHECK_TEXT(r.machine, m.p.machine);
    for (int k = 0; k < 2; k++) { /* tables that are none */
        copy_file(first, path);
        hid_t f = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
        H5Gclose(H5Gcreate2(f, "/operators", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
        H5Fclose(f);
        put_text(path, "/operators/dense", text);
        if (k) put_text(path, "/operators/per_sequence", text);
        if (!CHECK(refused(path, &e))) printf("  %d\n", k);
        CHECK(strlen(e.text) < 600);
    }
    free(text);
    machine_release(&m);
}

TEST(profile_file_refuses_what_it_did_not_write)
{
    static const struct {
        const char *object, *attr;
        double v;
        const char *words;
    } bad[] = { { "/laws/gemm_f32/value", NULL, -1, "gemm.e_c" },
                { "/laws/gemm_f32/value", NULL, NAN, "gemm.e_c" },
                { "/laws/gemm_f32/value", NULL, 1e9, "gemm.e_c" },
                { "/laws/gemm_f32/sd_log", NULL, -1, "sd" },
                { "/laws/gemm_f32/covariance", NULL, 1e6, "covariance" },
                { "/laws/gemm_f32/covariance", NULL, NAN, "covariance" },
                { "/laws/gemm_f32/range", NULL, -5, "range" },
                { "/hardware", "mem", -1, "mem" },
                { "/hardware", "mem_rate", NAN, "mem_rate" },
                { "/hardware", "flops_f32", INFINITY, "flops_f32" },
                { "/machine", "allreduce_limit", NAN, "limit" },
                { "/machine", "threads", 0, "threads" },
                { "/hardware", "devices", -3, "devices" },
                { "/laws/gemm_f32", "ranks", 1e9, "ranks" },
                { "/machine", "ranks", 1e9, "ranks" },
                { "/laws/step", "held_median", INFINITY, "held_median" },
                { "/laws/step", "held_median", -0.1, "held_median" },
                { "/laws/gemm_f32", "tau", 1e300, "tau" },
                { "/constants", "host.request", -1, "host.request" } };
    static const char *const gone[] = { "/laws", "/laws/gemm_f32/value", "/hardware", "/machine",
                                        "/laws/decode_f32/covariance" };
    struct machine m;
    struct err e = { 0 };
    const char *first = machine_file(&m, "first.h5", 0.02), *path = test_path("spoilt.h5");
    if (!first) return;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        copy_file(first, path);
        spoil(path, bad[i].object, bad[i].attr, bad[i].v);
        if (!CHECK(refused(path, &e))) printf("  %s %s\n", bad[i].object, bad[i].words);
        CHECK_HAS(e.text, bad[i].words);
        CHECK_HAS(e.text, "spoilt.h5");
    }
    for (size_t i = 0; i < sizeof gone / sizeof *gone; i++) {
        copy_file(first, path);
        remove_object(path, gone[i]);
        if (!CHECK(refused(path, &e))) printf("  %s\n", gone[i]);
    }
    machine_release(&m);
}

static herr_t count_link(hid_t g, const char *name, const H5L_info_t *info, void *n)
{
    (void)g, (void)name, (void)info;
    ++*(int *)n;
    return 0;
}

/* Removes the i-th link of a group and puts something else in its place: nothing, a text, a matrix,
 * a group, a loop of links. */
static void replace(const char *path, const char *group, int i, int kind)
{
    char name[64];
    hid_t f = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT), g = H5Gopen2(f, group, H5P_DEFAULT);
    H5Lget_name_by_idx(g, ".", H5_INDEX_NAME, H5_ITER_INC, (hsize_t)i, name, sizeof name,
                       H5P_DEFAULT);
    H5Ldelete(g, name, H5P_DEFAULT);
    hsize_t dim[] = { 3, 5 };
    hid_t space = kind == 1 ? H5Screate(H5S_SCALAR) : H5Screate_simple(2, dim, NULL);
    hid_t text = H5Tcopy(H5T_C_S1), d = -1;
    H5Tset_size(text, 8);
    if (kind == 1 || kind == 2)
        d = H5Dcreate2(g, name, kind == 1 ? text : H5T_STD_I32BE, space, H5P_DEFAULT, H5P_DEFAULT,
                       H5P_DEFAULT);
    if (d >= 0) H5Dclose(d);
    if (kind == 3) H5Gclose(H5Gcreate2(g, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    if (kind == 4) H5Lcreate_soft(group, g, name, H5P_DEFAULT, H5P_DEFAULT);
    H5Tclose(text);
    H5Sclose(space);
    H5Gclose(g);
    H5Fclose(f);
}

TEST_LIMIT(profile_file_other_objects_in_place_of_its_own, 120)
{
    static const char *const group[] = { "/laws/gemm_f32", "/laws", "/" };
    struct machine m;
    struct err e = { 0 };
    const char *first = machine_file(&m, "first.h5", 0.02), *path = test_path("other.h5");
    if (!first) return;
    m.p.n_fit = 2; /* a small file is enough */
    CHECK_OK(profile_file_write(first, &m.p, &m.prov, &m.e), &m.e);
    int n_refused = 0, n_all = 0;
    for (int k = 0; k < 3; k++) {
        hid_t f = H5Fopen(first, H5F_ACC_RDONLY, H5P_DEFAULT);
        hid_t g = H5Gopen2(f, group[k], H5P_DEFAULT);
        int n = 0;
        H5Literate(g, H5_INDEX_NAME, H5_ITER_INC, NULL, count_link, &n);
        H5Gclose(g);
        H5Fclose(f);
        CHECK(n > 0);
        for (int i = 0; i < n; i++)
            for (int kind = 0; kind < 5; kind++, n_all++) {
                copy_file(first, path);
                replace(path, group[k], i, kind);
                n_refused += refused(path, &e);
            }
    }
    /* What is not needed (points, dimension scales, /used) may be missing. */
    printf("    %d of %d refused\n", n_refused, n_all);
    CHECK(n_refused > n_all / 2 && n_refused < n_all);
    machine_release(&m);
}

TEST_LIMIT(profile_file_survives_damage, 120)
{
    struct machine m;
    struct err e = { 0 };
    const char *path = machine_file(&m, "whole.h5", 0.02), *hurt = test_path("hurt.h5");
    if (!path) return;
    FILE *f = fopen(path, "rb");
    fseek(f, 0, SEEK_END);
    long n = ftell(f);
    rewind(f);
    char *bytes = mem_alloc((size_t)n), *copy = mem_alloc((size_t)n);
    CHECK(fread(bytes, 1, (size_t)n, f) == (size_t)n);
    fclose(f);
    struct rng r = rng_stream(5, "damage");
    for (uint64_t k = 0; k < 120; k++) {
        long keep = k % 3 == 0 ? (long)rng_below(r, 9 * k, (uint64_t)n) : n;
        memcpy(copy, bytes, (size_t)n);
        for (uint64_t j = 0; j < 1 + k % 7; j++)
            copy[rng_below(r, 1000 + 9 * k + j, (uint64_t)n)] ^=
                (char)(1 + rng_below(r, 5000 + 9 * k + j, 255));
        f = fopen(hurt, "wb");
        fwrite(copy, 1, (size_t)keep, f);
        fclose(f);
        fflush(stdout);
        pid_t pid = fork(); /* on its own: the library leaks where it finds an object damaged */
        if (pid == 0) {
            alarm(20);
            refused(hurt, &e);
            _exit(0);
        }
        int status = 0;
        waitpid(pid, &status, 0);
        if (!CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0)) printf("  variant %d\n", (int)k);
    }
    free(copy);
    free(bytes);
    CHECK(refused("/nonexistent.h5", &e));
    CHECK_INT(e.status, ST_USAGE);
    machine_release(&m);
}

/* ---- simulation */

static char out[1 << 16], err[1 << 14];

static int simulate(const char *profile, const char *more, const char *options)
{
    char cmd[2000];
    const char *bin = getenv("ORRERY_BIN"), *path = test_path("scenario.yaml");
    if (!bin) SKIP("ORRERY_BIN does not name the program");
    FILE *f = fopen(path, "w");
    fprintf(f,
            "model: llama-25m\n"
            "hardware: {profile: %s}\n"
            "strategy: {weights: f32, kv: f32%s}\n"
            "workload: {rate: 2/s, requests: 100, prompt: {mean: 40tok, max: 200tok}, "
            "output: {mean: 20tok, max: 60tok}}\n"
            "policy: {max_seqs: 64, max_batch_tokens: 256tok, kv_blocks: 2000}\n"
            "sim: {replications: 2, draws: 20}\n",
            profile, more);
    fclose(f);
    snprintf(cmd, sizeof cmd, "%s simulate %s %s", bin, path, options);
    return test_run(cmd, out, sizeof out, err, sizeof err);
}

TEST_LIMIT(profile_file_is_what_a_simulation_runs_on, 120)
{
    struct machine m;
    const char *path = machine_file(&m, "machine.h5", 0.02);
    if (!path) return;
    CHECK_INT(simulate(path, "", ""), 0);
    CHECK_TEXT(err, "");
    CHECK_HAS(out, "on synthetic-2");
    CHECK_HAS(out, "GEMM fitted (measured on a synthetic machine 2026-08-01");
    CHECK_HAS(out, "to shrink it, time ");
    CHECK_HAS(out, "calibrate again");
    CHECK(!strstr(out, "EXTRAPOLATED"));
    CHECK_INT(simulate(path, ", tp: 2", ""), 0);
    CHECK_HAS(out, "collective fitted (measured on");
    CHECK_INT(simulate(path, ", pp: 2", ""), 0);
    CHECK_HAS(out, "p2p fitted (measured on");
    /* A prediction tells which runs it was made of. */
    char run_path[200], *runs = NULL;
    snprintf(run_path, sizeof run_path, "--out=%s", test_path("p.h5"));
    CHECK_INT(simulate(path, "", run_path), 0);
    h5 *f = h5_open(run_path + 6, &m.e);
    if (f) h5_read_text(f, "/scenario/calibrated_by", &m.a, &runs, &m.e);
    CHECK_TEXT(runs ? runs : "", m.p.runs);
    if (f) h5_read_attr_text(f, "/scenario", "profile_cpu", &m.a, &runs, &m.e);
    CHECK_TEXT(runs ? runs : "", "a synthetic processor");
    if (f) h5_read_attr_text(f, "/scenario", "profile_host", &m.a, &runs, &m.e);
    CHECK_TEXT(runs ? runs : "", "00000000aaaaaaaa");
    h5_close(f);
    /* Hardware by the file alone; the engine is the file's. */
    CHECK_INT(simulate(path, "", "--dry-run"), 0);
    CHECK_HAS(out, "engine: orrery");
    CHECK_INT(simulate("machine.h5, name: machine.h5", "", ""), 0);
    CHECK_HAS(out, "on synthetic-2");
    CHECK_INT(simulate("nowhere.h5", "", ""), 2);
    CHECK_HAS(err, "nowhere.h5");
    /* Beyond the contexts and rows measured. */
    CHECK_INT(simulate(path, "",
                       "--workload.prompt.mean=600tok --workload.prompt.max=900tok "
                       "--policy.max_batch_tokens=1024tok"),
              0);
    CHECK_HAS(out, "EXTRAPOLATED");
    CHECK_HAS(out, "gemm m ");
    CHECK_HAS(out, "measured 1 to 256");
    /* A wider model than was measured. */
    CHECK_INT(simulate(path, "", "--model=llama-110m"), 0);
    CHECK_HAS(out, "EXTRAPOLATED");
    CHECK_HAS(out, "outside the measured range: ");
    machine_release(&m);
}

static bool number_of(const char *key, double *v, double *lo, double *hi)
{
    json_t *j = json_loads(out, 0, NULL);
    json_t *mean = json_object_get(json_object_get(json_object_get(j, "latency"), key), "mean_ns");
    json_t *pair =
        json_object_get(json_object_get(json_object_get(j, "latency"), key), "mean_interval_ns");
    bool found = json_is_number(mean) && json_is_array(pair);
    if (found) {
        *v = json_number_value(mean);
        *lo = json_number_value(json_array_get(pair, 0));
        *hi = json_number_value(json_array_get(pair, 1));
    }
    json_decref(j);
    return found;
}

TEST_LIMIT(profile_file_intervals_hold_the_truth_of_the_machine, 120)
{
    struct machine exact, noisy_one;
    double v[2], lo[2], hi[2];
    const char *a = machine_file(&exact, "exact.h5", 1e-5);
    if (!a || !CHECK_INT(simulate(a, "", "--json"), 0)) return;
    CHECK(number_of("tpot", v, lo, hi));
    const char *b = machine_file(&noisy_one, "noisy.h5", 0.05);
    if (!b || !CHECK_INT(simulate(b, "", "--json"), 0)) return;
    CHECK(number_of("tpot", v + 1, lo + 1, hi + 1));
    CHECK(v[0] >= lo[1] && v[0] <= hi[1]);
    CHECK_NEAR(v[0], v[1], 0.1);
    CHECK(hi[1] - lo[1] > hi[0] - lo[0]);
    machine_release(&exact);
    machine_release(&noisy_one);
}

/* Constants of one fit make up for each other: what the report says they move a step by must be
 * what the draws do to the time of a token, not the sum of the parts taken alone. */
TEST_LIMIT(profile_file_shares_of_the_uncertainty_are_those_of_the_draws, 120)
{
    struct machine m;
    double v, lo, hi, gemm = 0, rest = 0;
    const char *path = machine_file(&m, "machine.h5", 0.1);
    if (!path) return;
    if (!CHECK_INT(simulate(path, "",
                            "--json --profile.law=1 --sim.replications=1 "
                            "--sim.draws=300 --workload.requests=40"),
                   0))
        return;
    CHECK(number_of("tpot", &v, &lo, &hi));
    json_t *j = json_loads(out, 0, NULL), *list = json_object_get(j, "uncertainty"), *t;
    size_t i;
    json_array_foreach(list, i, t)
    {
        double share = json_number_value(json_object_get(t, "of_step_ratio"));
        const char *name = json_string_value(json_object_get(t, "constant"));
        if (name && strncmp(name, "gemm.", 5) == 0)
            gemm += share;
        else
            rest = hypot(rest, share);
        CHECK_HAS(json_string_value(json_object_get(t, "measure")), "time ");
    }
    json_decref(j);
    double of_draws = log(hi / lo) / (2 * 1.6448536);
    printf("    one sd of a token's time: %.2f %% by the draws, %.2f %% by the shares\n",
           100 * of_draws, 100 * hypot(gemm, rest));
    CHECK(gemm > rest);
    CHECK_NEAR(hypot(gemm, rest), of_draws, 0.3);
    machine_release(&m);
}
