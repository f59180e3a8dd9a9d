/* tests/machine.c - see machine.h. SPDX-License-Identifier: Apache-2.0 */
#include "tests/machine.h"

#include <gsl/gsl_errno.h>
#include <math.h>

#include "base/rng.h"
#include "model/law.h"
#include "tests/test.h"

enum { MAX_POINT = 400 };

static double noisy(double s, double noise, int64_t i)
{
    return s * exp(noise * rng_normal(rng_stream(17, "machine"), (uint64_t)i));
}

/* Shapes of a model of 25 million parameters and of one four times as wide. */
static int fit_gemms(struct machine *m, const struct fit_ask *q, double noise, struct fit *out)
{
    static const double rows[] = { 1, 4, 16, 64, 256 };
    static const double nk[][2] = { { 768, 256 },   { 256, 256 },   { 2048, 256 },  { 256, 1024 },
                                    { 32000, 256 }, { 3072, 1024 }, { 1024, 1024 }, { 128, 128 } };
    struct fit_gemm_point p[40];
    struct law_gemm l = { 2e-6, 0.8, 0.7, 2, 0, MACHINE_PEAK, MACHINE_RATE };
    int n = 0;
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 8; j++, n++) {
            struct law_gemm_shape s = { rows[i], nk[j][0], nk[j][1], 4, 2, 2 };
            p[n] = (struct fit_gemm_point){ s, noisy(law_gemm_s(&l, &s), noise, n), noise };
        }
    return fit_gemm(q, p, n, out, &m->e);
}

static int fit_attention(struct machine *m, const struct fit_ask *ask, double noise,
                         struct fit *decode, struct fit *prefill)
{
    struct fit_decode_point d[MAX_POINT];
    struct fit_prefill_point p[MAX_POINT];
    struct law_attn_decode ld = { 2e-6, 0.6, 2e-8, MACHINE_RATE, 0 };
    struct law_attn_prefill lp = { 5e-6, 0.5, 0.6, MACHINE_PEAK, MACHINE_RATE };
    int n = 0, k = 0;
    for (double b = 1; b <= MACHINE_MAX_SEQS; b *= 4)
        for (double c = 16; c <= MACHINE_MAX_CTX; c *= 4)
            for (double h = 4; h <= 16; h *= 2) {
                double s = law_attn_decode_s(&ld, b, b * c, h, h, 32, 4);
                d[n] = (struct fit_decode_point){ b, b * c, 0, h, h, 32, 4, 0, noise };
                d[n].s = noisy(s, noise, 1000 + n);
                n++;
                double q = b * 4, pairs = q * c + q * (q + 1) / 2;
                double io = 4 * q * h * 32 + 8 * (q + c) * h * 32;
                s = law_attn_prefill_s(&lp, pairs + 10 * q, io, h, 32);
                p[k] = (struct fit_prefill_point){ pairs, q, io, h, 32, 0, noise };
                p[k].s = noisy(s, noise, 2000 + k);
                k++;
            }
    int st = fit_decode(ask, d, n, decode, &m->e);
    return st == ST_OK ? fit_prefill(ask, p, k, prefill, &m->e) : st;
}

static int fit_bytes(struct machine *m, const struct fit_ask *q, enum profile_law law, double a,
                     double b, double noise, struct fit *out)
{
    struct fit_bytes_point p[40];
    for (int i = 0; i < 40; i++) {
        double bytes = exp2(6 + 0.5 * i);
        p[i] = (struct fit_bytes_point){ bytes, noisy(a + bytes / b, noise, 3000 + i), noise };
    }
    return law == LAW_ELT                     ? fit_elt(q, p, 40, out, &m->e)
           : law == LAW_P2P || law == LAW_NET ? fit_p2p(q, law, p, 40, out, &m->e)
                                              : fit_coll(q, law, p, 40, out, &m->e);
}

static int fit_steps(struct machine *m, const struct fit_ask *q, double noise, struct fit *out)
{
    struct fit_step_point p[60];
    int n = 0;
    for (double seqs = 1; seqs <= MACHINE_MAX_SEQS; seqs *= 2)
        for (double tok = 0; tok <= 256; tok += 64, n++) {
            double device = 5e-4 + 1e-4 * sqrt(seqs * 16 + tok * tok / 64);
            double s = 1.05 * device + 5e-5 + 2e-6 * seqs + 1e-7 * tok;
            p[n] =
                (struct fit_step_point){ seqs, tok, device, 0, noisy(s, noise, 4000 + n), noise };
        }
    return fit_step(q, p, n, out, &m->e);
}

static int fit_all(struct machine *m, double noise)
{
    struct fit_ask q = { .peak_flop_per_s = MACHINE_PEAK,
                         .mem_bytes_per_s = MACHINE_RATE,
                         .dtype = DT_F32,
                         .ranks = 1,
                         .seed = 1,
                         .source = "synthetic",
                         .a = &m->a };
    struct fit_ask q2 = q, any = q;
    q2.ranks = 2;
    q2.dtype = any.dtype = 0;
    struct fit *f = m->fit;
    int st = fit_gemms(m, &q, noise, f);
    if (st == ST_OK) st = fit_attention(m, &q, noise, f + 1, f + 2);
    if (st == ST_OK) st = fit_bytes(m, &any, LAW_ELT, 1e-6, 0.5 * MACHINE_RATE, noise, f + 3);
    if (st == ST_OK) st = fit_bytes(m, &q2, LAW_ALLREDUCE, 4e-6, 3e9, noise, f + 4);
    if (st == ST_OK) st = fit_bytes(m, &q2, LAW_ALLGATHER, 3e-6, 5e9, noise, f + 5);
    if (st == ST_OK) st = fit_bytes(m, &any, LAW_P2P, 5e-6, 4e9, noise, f + 6);
    if (st == ST_OK) st = fit_bytes(m, &any, LAW_NET, 50e-6, 1e9, noise, f + 7);
    return st == ST_OK ? fit_steps(m, &any, noise, f + 8) : st;
}

int machine_init(struct machine *m, double noise)
{
    gsl_set_error_handler_off();
    *m = (struct machine){ .extra = { { P_HOST_REQ_S, 1e-4, 0.3 }, { P_HOST_OUT_S, 2e-5, 0.3 } } };
    arena_init(&m->a);
    static char name[] = "orrery", verb[] = "calibrate";
    char *const argv[] = { name, verb, NULL };
    prov_collect(&m->prov, 2, argv);
    m->p = (struct profile_file){ .machine = "a synthetic machine",
                                  .cpu = "a synthetic processor",
                                  .host = "00000000aaaaaaaa",
                                  .date = "2026-08-01",
                                  .engine = "orrery",
                                  .used = "points of bench.h5\nrun a.h5",
                                  .runs = "d9d3a9d0 device\n5a1b host\n",
                                  .threads = 1,
                                  .hw = { .gpu = { .name = "synthetic",
                                                   .title = "a synthetic rank",
                                                   .arch = "cpu",
                                                   .mem_bytes = 8e9,
                                                   .mem_bytes_per_s = MACHINE_RATE,
                                                   .source = "measured" },
                                          .sys = { .name = "synthetic-2",
                                                   .n_gpu = 2,
                                                   .fabric = HW_HOST,
                                                   .peer_bytes_per_s = 4e9,
                                                   .peer_alpha_s = 5e-6 },
                                          .n_node = 1 },
                                  .fit = m->fit,
                                  .n_fit = MACHINE_N_LAW,
                                  .extra = m->extra,
                                  .n_extra = 2 };
    m->p.hw.gpu.flop_per_s[DT_F32] = m->p.hw.gpu.flop_per_s[DT_BF16] = MACHINE_PEAK;
    return fit_all(m, noise);
}

void machine_release(struct machine *m)
{
    prov_release(&m->prov);
    arena_release(&m->a);
}

/* The machine's file in the test's directory; NULL after a failed check. */
const char *machine_file(struct machine *m, const char *name, double noise)
{
    int st = machine_init(m, noise);
    const char *path = arena_printf(&m->a, "%s", test_path(name)); /* outlives the ring */
    if (st == ST_OK) st = profile_file_write(path, &m->p, &m->prov, &m->e);
    return test_check_text(st == ST_OK ? "" : m->e.text, "", __FILE__, __LINE__, "file written")
               ? path
               : NULL;
}
