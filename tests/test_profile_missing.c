/* tests/test_profile_missing.c - what a measured profile has no points of: carried over from the
 * like or assumed, with a wide interval, named, and the answer marked; what would make it smaller.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "model/deploy.h"
#include "tests/machine.h"
#include "tests/test.h"

static const struct strategy one = { 1, 1, 1, 1, DT_F32, DT_F32, "auto" };

static int load(struct machine *m, const char *path, struct strategy s, struct profile *out)
{
    struct hw h;
    int st = hw_load(path, NULL, 1, &m->a, &h, &m->e);
    return st == ST_OK ? profile_load(&h, &s, "orrery", NULL, &m->a, out, &m->e) : st;
}

/* A smaller machine file: without the laws of `without` (bits). */
static const char *part_file(struct machine *m, const char *name, unsigned without)
{
    static struct fit kept[MACHINE_N_LAW];
    if (machine_init(m, 0.02) != ST_OK) return NULL;
    int n = 0;
    for (int i = 0; i < MACHINE_N_LAW; i++)
        if (!(without >> m->fit[i].law & 1)) kept[n++] = m->fit[i];
    m->p.fit = kept;
    m->p.n_fit = n;
    const char *path = arena_printf(&m->a, "%s", test_path(name));
    return profile_file_write(path, &m->p, &m->prov, &m->e) == ST_OK ? path : NULL;
}

TEST(profile_missing_format_is_carried_over_and_marked)
{
    struct machine m;
    struct profile p, same;
    struct strategy s = one;
    const char *path = machine_file(&m, "machine.h5", 0.02);
    if (!path) return;
    CHECK_OK(load(&m, path, one, &same), &m.e);
    CHECK_INT(same.unmeasured, 0);
    s.kv_dtype = DT_BF16;
    CHECK_OK(load(&m, path, s, &p), &m.e);
    /* this machine's efficiency, and not that of the catalog's nearest GPU */
    CHECK(p.p[P_DEC_EM].v == same.p[P_DEC_EM].v && p.p[P_PRE_EC].v == same.p[P_PRE_EC].v);
    CHECK(p.p[P_GEMM_EM].sd_log == same.p[P_GEMM_EM].sd_log);
    CHECK(p.p[P_DEC_EM].sd_log >= FIT_OPEN_SD && p.p[P_PRE_EC].sd_log >= FIT_OPEN_SD);
    CHECK_INT(p.p[P_DEC_EM].cover, COVER_CLASS);
    CHECK_HAS(p.p[P_DEC_EM].source, "as f32");
    CHECK_INT(p.unmeasured, 1u << LAW_DECODE | 1u << LAW_PREFILL);
    CHECK_HAS(p.note, "decode bf16 (as f32), prefill bf16 (as f32)");
    CHECK(!strstr(p.note, "gemm") && !strstr(p.note, "catalog"));
    machine_release(&m);
}

TEST(profile_missing_laws_of_a_processor_are_not_those_of_a_gpu)
{
    struct machine m;
    struct profile p;
    struct strategy s = one;
    const char *path = part_file(&m, "part.h5", 1u << LAW_P2P | 1u << LAW_ELT | 1u << LAW_STEP);
    if (!CHECK(path)) return;
    s.pp = 2;
    CHECK_OK(load(&m, path, s, &p), &m.e);
    CHECK_INT(p.unmeasured, 1u << LAW_ELT | 1u << LAW_P2P | 1u << LAW_STEP | 1u << LAW_STAGE);
    CHECK_HAS(p.note, "p2p (as in the catalog)");
    static const enum profile_id id[] = { P_ELT_EM, P_P2P_B, P_P2P_A_S, P_HOST_STEP_S };
    for (size_t i = 0; i < sizeof id / sizeof *id; i++) {
        CHECK_INT(p.p[id[i]].cover, COVER_GUESS);
        CHECK(p.p[id[i]].v > 0 && p.p[id[i]].sd_log >= FIT_OPEN_SD);
    }
    CHECK_INT(p.p[P_GEMM_EM].cover, COVER_FIT);
    machine_release(&m);
}

/* A fit that could not tell rank_skew leaves the catalog's in place, not none. */
TEST(profile_missing_rank_skew_of_a_fit_stays_assumed)
{
    struct machine m;
    struct profile p;
    struct strategy s = one;
    CHECK_OK(machine_init(&m, 0.02), &m.e);
    for (int i = 0; i < m.p.n_fit; i++)
        if (m.fit[i].law == LAW_STEP) m.fit[i].ranks = 2;
    const char *path = test_path("machine.h5");
    CHECK_OK(profile_file_write(path, &m.p, &m.prov, &m.e), &m.e);
    s.tp = 2;
    CHECK_OK(load(&m, path, s, &p), &m.e);
    CHECK(p.p[P_RANK_SKEW_S].v > 0);
    CHECK_INT(p.p[P_RANK_SKEW_S].cover, COVER_GUESS);
    CHECK_INT(p.p[P_HOST_STEP_S].cover, COVER_FIT);
    machine_release(&m);
}

/* Steps of one rank say nothing of how long two wait for each other. */
TEST(profile_missing_rank_skew_is_assumed_not_zero)
{
    struct machine m;
    struct profile p;
    struct strategy s = one;
    const char *path = machine_file(&m, "machine.h5", 0.02);
    if (!path) return;
    CHECK_OK(load(&m, path, s, &p), &m.e);
    CHECK(p.p[P_RANK_SKEW_S].v == 0);
    s.tp = 2;
    CHECK_OK(load(&m, path, s, &p), &m.e);
    CHECK(p.p[P_RANK_SKEW_S].v > 0 && p.p[P_RANK_SKEW_S].sd_log >= FIT_OPEN_SD);
    CHECK_INT(p.p[P_RANK_SKEW_S].cover, COVER_GUESS);
    CHECK_HAS(p.note, "step (of one rank, so rank_skew is assumed)");
    CHECK_INT(p.unmeasured, 1u << LAW_STEP);
    machine_release(&m);
}

/* ---- the answer */

static const char *coverage(struct machine *m, const char *path, const char *model,
                            struct strategy s, bool *extrapolated, const char **none)
{
    struct deploy d;
    enum cover by_class[STEP_N_CLASS];
    struct deploy_request q = {
        .model = model,
        .hardware = path,
        .engine = "orrery",
        .strategy = s,
        .lim = { .util = 0.9, .block_tok = 16, .max_batch_tok = 256, .max_seqs = 16 },
        .kv_blocks = 64
    };
    struct step_extent x = { 64, 4, 1024, 256, 128 };
    *extrapolated = false;
    *none = "";
    if (deploy_init(&q, &m->a, &d, &m->e) != ST_OK) return m->e.text;
    *none = step_unmeasured(d.step, &m->a);
    return step_coverage(d.step, &x, by_class, extrapolated, &m->a);
}

TEST(profile_missing_operators_mark_the_answer)
{
    struct machine m;
    struct strategy s = one;
    bool extrapolated;
    const char *none, *path = machine_file(&m, "machine.h5", 0.02), *text;
    if (!path) return;
    text = coverage(&m, path, "llama-25m", s, &extrapolated, &none);
    CHECK(!extrapolated);
    CHECK_TEXT(none, "");
    CHECK(!strstr(text, "not measured"));
    s.kv_dtype = DT_BF16;
    text = coverage(&m, path, "llama-25m", s, &extrapolated, &none);
    CHECK(extrapolated);
    CHECK_TEXT(none, "decode, prefill");
    CHECK_HAS(text, "not measured: decode bf16");
    s = one;
    s.pp = 2;
    text = coverage(&m, path, "llama-25m", s, &extrapolated, &none);
    CHECK(extrapolated);
    CHECK_TEXT(none, "stage");
    s = one;
    s.dp = 2; /* the points are of one engine alone on its host */
    text = coverage(&m, path, "llama-25m", s, &extrapolated, &none);
    CHECK(extrapolated);
    CHECK_TEXT(none, "replicas beside each other on one host");
    CHECK_HAS(text, "not measured: replicas beside each other on one host (as if each were alone)");
    s = one;
    s.tp = 4; /* from those of two */
    m.p.hw.sys.n_gpu = 4;
    path = arena_printf(&m.a, "%s", test_path("four.h5"));
    CHECK_OK(profile_file_write(path, &m.p, &m.prov, &m.e), &m.e);
    text = coverage(&m, path, "llama-25m", s, &extrapolated, &none);
    CHECK(extrapolated);
    CHECK_HAS(text, "not measured: allreduce (from those of 2 .. 2 ranks)");
    CHECK_TEXT(none, "allreduce, allgather, step");
    m.p.hw.sys.host_cores = 2;
    CHECK_OK(profile_file_write(path, &m.p, &m.prov, &m.e), &m.e);
    coverage(&m, path, "llama-25m", s, &extrapolated, &none);
    CHECK_TEXT(none, "allreduce, allgather, step, 4 threads on 2 processors");
    m.p.ranks = 4; /* the points are of four that shared the two */
    CHECK_OK(profile_file_write(path, &m.p, &m.prov, &m.e), &m.e);
    coverage(&m, path, "llama-25m", s, &extrapolated, &none);
    CHECK_TEXT(none, "allreduce, allgather, step");
    s.dp = 2;
    m.p.hw.sys.n_gpu = 8;
    CHECK_OK(profile_file_write(path, &m.p, &m.prov, &m.e), &m.e);
    coverage(&m, path, "llama-25m", s, &extrapolated, &none);
    CHECK_TEXT(none, "allreduce, allgather, step, 8 threads on 2 processors");
    machine_release(&m);
}

/* A GPU that the catalog has constants of its own for is no guess. */
TEST(profile_missing_laws_of_a_known_gpu_are_the_catalogs)
{
    struct machine m;
    struct hw h;
    struct profile p, catalog;
    struct strategy s = { 2, 1, 1, 1, DT_BF16, DT_BF16, "auto" };
    const char *path = part_file(&m, "coll.h5", ~(1u << LAW_ALLREDUCE));
    if (!CHECK(path)) return;
    CHECK_OK(hw_load("dgx-h100", NULL, 1, &m.a, &h, &m.e), &m.e);
    CHECK_OK(profile_load(&h, &s, "any", NULL, &m.a, &catalog, &m.e), &m.e);
    CHECK_OK(hw_measured(path, NULL, &m.a, &h, &m.e), &m.e);
    CHECK_OK(profile_load(&h, &s, "any", NULL, &m.a, &p, &m.e), &m.e);
    CHECK(p.catalog_own);
    for (int i = P_GEMM_T0_S; i <= P_PRE_X_TOK; i++)
        CHECK(p.p[i].cover == catalog.p[i].cover && p.p[i].sd_log == catalog.p[i].sd_log);
    machine_release(&m);
}

/* ---- a profile over other hardware than its own */

TEST(profile_missing_devices_are_not_others)
{
    struct machine m;
    struct hw h;
    CHECK_OK(machine_init(&m, 0.02), &m.e);
    const char *path = arena_printf(&m.a, "%s", test_path("machine.h5"));
    CHECK_OK(profile_file_write(path, &m.p, &m.prov, &m.e), &m.e);
    CHECK_OK(hw_load("dgx-h100", NULL, 1, &m.a, &h, &m.e), &m.e);
    CHECK_INT(hw_measured(path, NULL, &m.a, &h, &m.e), ST_USAGE);
    CHECK_HAS(m.e.text, "architecture cpu");
    CHECK_HAS(m.e.text, "architecture hopper");
    CHECK(!h.measured);
    err_clear(&m.e);
    /* nor those of another machine, but for another file of the same one */
    CHECK_OK(hw_load(path, NULL, 1, &m.a, &h, &m.e), &m.e);
    CHECK_OK(hw_measured(path, NULL, &m.a, &h, &m.e), &m.e);
    m.p.machine = "another machine";
    path = arena_printf(&m.a, "%s", test_path("another.h5"));
    CHECK_OK(profile_file_write(path, &m.p, &m.prov, &m.e), &m.e);
    CHECK_INT(hw_measured(path, NULL, &m.a, &h, &m.e), ST_USAGE);
    CHECK_HAS(m.e.text, "measured on another machine: its constants are not those of a synthetic");
    machine_release(&m);
}

/* What was measured are rates: with a datasheet's ceilings the shares of them are others. */
TEST(profile_missing_ceilings_do_not_change_the_rates)
{
    struct machine m;
    struct hw own, sheet;
    struct profile p, q;
    const char *path = machine_file(&m, "machine.h5", 0.02);
    if (!path) return;
    CHECK_OK(hw_load(path, NULL, 1, &m.a, &own, &m.e), &m.e);
    sheet = own;
    sheet.gpu.mem_bytes_per_s *= 1.25;
    for (int d = 0; d < DT_N; d++) sheet.gpu.flop_per_s[d] *= 2;
    CHECK_OK(profile_load(&own, &one, "orrery", NULL, &m.a, &p, &m.e), &m.e);
    CHECK_OK(profile_load(&sheet, &one, "orrery", NULL, &m.a, &q, &m.e), &m.e);
    static const enum profile_id rate[] = { P_GEMM_EM, P_DEC_EM, P_PRE_EM, P_ELT_EM };
    static const enum profile_id peak[] = { P_GEMM_EC, P_PRE_EC };
    for (int i = 0; i < 4; i++)
        CHECK_NEAR(p.p[rate[i]].v * p.mem_bytes_per_s, q.p[rate[i]].v * q.mem_bytes_per_s, 1e-12);
    for (int i = 0; i < 2; i++)
        CHECK_NEAR(p.p[peak[i]].v * p.peak_flop_per_s, q.p[peak[i]].v * q.peak_flop_per_s, 1e-12);
    CHECK(q.mem_bytes_per_s > p.mem_bytes_per_s && p.p[P_GEMM_T0_S].v == q.p[P_GEMM_T0_S].v);
    machine_release(&m);
}

/* ---- what would make the uncertainty smaller */

TEST(profile_missing_samples_are_not_what_the_laws_own_error_needs)
{
    struct machine m;
    struct profile p;
    const char *path = machine_file(&m, "machine.h5", 0.02);
    if (!path) return;
    CHECK_OK(load(&m, path, one, &p), &m.e);
    double held = m.fit[8].held.median / 0.6745, all = p.p[P_LAW].sd_log;
    CHECK(held > 0);
    CHECK_NEAR(p.law_own_sd, held, 1e-12);
    for (int j = 0; j < m.fit[8].n_par; j++)
        if (m.fit[8].id[j] == P_LAW) CHECK_NEAR(all, hypot(held, m.fit[8].sd_log[j]), 1e-9);
    CHECK(!profile_is_own_error(&p, P_LAW)); /* sixty points: more of them would tell it better */
    CHECK_HAS(profile_advice(&p, P_LAW, false), "one run");
    p.law_own_sd = 0.9 * p.p[P_LAW].sd_log;
    CHECK(profile_is_own_error(&p, P_LAW));
    CHECK(!profile_is_own_error(&p, P_GEMM_EM));
    CHECK_HAS(profile_advice(&p, P_LAW, false), "--suite=model");
    CHECK(!strstr(profile_advice(&p, P_LAW, true), "--suite=model"));
    CHECK_HAS(profile_advice(&p, P_LAW, true), "contexts");
    /* set by the user it is no longer the laws' */
    CHECK_OK(profile_set(&p, "law", 1.1, &m.e), &m.e);
    CHECK(!profile_is_own_error(&p, P_LAW));
    machine_release(&m);
    /* without whole steps one run of the model does help */
    path = part_file(&m, "nostep.h5", 1u << LAW_STEP);
    if (!CHECK(path)) return;
    CHECK_OK(load(&m, path, one, &p), &m.e);
    CHECK(!profile_is_own_error(&p, P_LAW));
    CHECK_HAS(profile_advice(&p, P_LAW, false), "one run");
    machine_release(&m);
}
