/* tests/test_kernels.c - the profiles' laws against measured kernels of other releases than they
 * were fitted on.
 *
 * The constants come from fits of newer tables (vLLM 0.24, TensorRT-LLM 1.3) for H100, L40S and RTX
 * PRO 6000, and of the same ones (vLLM 0.14) for A100. So these errors hold the change of the
 * engine too; the bounds are what is reached, rounded up, and so catch a law or constant that
 * breaks, not one that is a point worse. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/stat.h"
#include "model/law.h"
#include "tests/model_env.h"

struct fit {
    double sum, *e;
    size_t n;
};

static void add(struct fit *f, double want, double got)
{
    if ((f->n & (f->n - 1)) == 0) f->e = realloc(f->e, (f->n ? 2 * f->n : 1) * sizeof *f->e);
    f->e[f->n++] = fabs(got / want - 1);
    f->sum += fabs(got / want - 1);
}

/* Mean within `mape_max` percent. */
static void report(const char *what, struct fit *f, double mape_max)
{
    if (!CHECK(f->n > 100)) return;
    stat_sort(f->e, f->n);
    double mape = 100 * f->sum / (double)f->n;
    printf("    %-34s n=%-6zu MAPE %5.1f %%  median %5.1f %%  p90 %5.1f %%\n", what, f->n, mape,
           100 * stat_quantile_sorted(f->e, f->n, 0.5),
           100 * stat_quantile_sorted(f->e, f->n, 0.9));
    CHECK(mape < mape_max);
    free(f->e);
}

static FILE *open_data(const char *relative)
{
    const char *path = test_data(relative);
    size_t n = strlen(path);
    char cmd[600];
    if (n < 3 || strcmp(path + n - 3, ".gz") != 0) return fopen(path, "r");
    snprintf(cmd, sizeof cmd, "gzip -dc '%s'", path);
    return popen(cmd, "r");
}

static void close_data(FILE *f, const char *relative)
{
    size_t n = strlen(relative);
    if (strcmp(relative + n - 3, ".gz") == 0)
        pclose(f);
    else
        fclose(f);
}

/* Value of a named column in a row, as text in buf. */
static const char *column(const char *header, const char *row, const char *name, char *buf,
                          size_t n)
{
    int at = 0;
    size_t len = strlen(name);
    buf[0] = 0;
    for (const char *p = header; p; at++) {
        size_t w = strcspn(p, ",\r\n");
        if (w == len && memcmp(p, name, len) == 0) break;
        p = strchr(p, ',');
        if (!p) return buf;
        p++;
    }
    while (at-- > 0 && row)
        if ((row = strchr(row, ','))) row++;
    if (row) snprintf(buf, n, "%.*s", (int)strcspn(row, ",\r\n"), row);
    return buf;
}

static double number(const char *header, const char *row, const char *name)
{
    char buf[64];
    return atof(column(header, row, name, buf, sizeof buf));
}

struct set {
    const char *gpu, *engine, *dir;
    double gemm_max, decode_max, prefill_max;
};
static const struct set sets[] = { { "a100-sxm-80gb", "vllm", "a100_sxm/vllm-0.14.0", 10, 10, 16 },
                                   { "h100-sxm", "vllm", "h100_sxm/vllm-0.14.0", 12, 16, 20 },
                                   { "l40s", "vllm", "l40s/vllm-0.14.0", 18, 12, 20 },
                                   { "rtx-pro-6000", "trtllm",
                                     "rtx_pro_6000_server/trtllm-1.3.0rc10", 15, 0, 20 } };

static int load(struct env *v, const struct set *s)
{
    int st = env_init(v, &env_llama8, s->gpu, 1);
    if (st != ST_OK) return st;
    return profile_load(&v->hw, &v->strategy, s->engine, NULL, &v->a, &v->profile, &v->e);
}

static void gemm_of(const struct set *s)
{
    struct env v;
    struct fit f = { 0 };
    char name[256], header[512], row[512], buf[64];
    CHECK_OK(load(&v, s), &v.e);
    const struct param *p = v.profile.p;
    struct law_gemm l = {
        p[P_GEMM_T0_S].v,          p[P_GEMM_EC].v,           p[P_GEMM_EM].v, p[P_GEMM_Q].v, 0,
        v.profile.peak_flop_per_s, v.profile.mem_bytes_per_s
    };
    bool gz = strstr(s->dir, "rtx") != NULL;
    snprintf(name, sizeof name, "kernels_aiconfigurator/%s/gemm_perf.csv%s", s->dir,
             gz ? ".gz" : "");
    FILE *in = open_data(name);
    if (!CHECK(in && fgets(header, sizeof header, in))) return;
    while (fgets(row, sizeof row, in)) {
        struct law_gemm_shape g = {
            number(header, row, "m"), number(header, row, "n"), number(header, row, "k"), 2, 2, 2
        };
        const char *dt = column(header, row, "gemm_dtype", buf, sizeof buf);
        double t = number(header, row, "latency") * 1e-3;
        /* The domain of the fits. */
        if (strcmp(dt, "bfloat16") != 0 || g.m < 1 || g.m > 32768 || g.n < 1024 || g.k < 1024 ||
            t <= 0)
            continue;
        add(&f, t, law_gemm_s(&l, &g));
    }
    close_data(in, name);
    snprintf(name, sizeof name, "%s GEMM bf16", s->gpu);
    report(name, &f, s->gemm_max);
    env_release(&v);
}

TEST(kernels_gemm_law_against_tables)
{
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) gemm_of(sets + i);
}

static bool in_scope(const char *header, const char *row)
{
    char buf[64];
    const char *kv = column(header, row, "kv_cache_dtype", buf, sizeof buf);
    if (strcmp(kv, "bfloat16") != 0 && strcmp(kv, "float16") != 0) return false;
    const char *dt = column(header, row, "attn_dtype", buf, sizeof buf);
    if (*dt && strcmp(dt, "bfloat16") != 0 && strcmp(dt, "float16") != 0) return false;
    return number(header, row, "window_size") == 0 && number(header, row, "head_dim") == 128;
}

static void decode_of(const struct set *s)
{
    struct env v;
    struct fit much = { 0 }, little = { 0 };
    char name[256], header[512], row[512];
    CHECK_OK(load(&v, s), &v.e);
    const struct param *p = v.profile.p;
    struct law_attn_decode l = { p[P_DEC_T0_S].v, p[P_DEC_EM].v, p[P_DEC_S_PER_BH].v,
                                 v.profile.mem_bytes_per_s, p[P_DEC_FLOOR_S].v };
    snprintf(name, sizeof name, "kernels_aiconfigurator/%s/generation_attention_perf.csv", s->dir);
    FILE *in = open_data(name);
    if (!CHECK(in && fgets(header, sizeof header, in))) return;
    while (fgets(row, sizeof row, in)) {
        double b = number(header, row, "batch_size"), h = number(header, row, "num_heads");
        double k = number(header, row, "num_key_value_heads"),
               c = number(header, row, "isl") + number(header, row, "step");
        double t = number(header, row, "latency") * 1e-3;
        if (!in_scope(header, row) || k <= 0 || h / k < 2) continue;
        double bytes = 4 * b * c * k * 128, got = law_attn_decode_s(&l, b, b * c, h, k, 128, 2);
        if (bytes > 1.5 * v.hw.gpu.l2_bytes)
            add(&much, t, got);
        else
            add(&little, t, got);
    }
    fclose(in);
    snprintf(name, sizeof name, "%s decode, KV > 1.5 L2", s->gpu);
    report(name, &much, s->decode_max > 0 ? s->decode_max : 1000);
    snprintf(name, sizeof name, "%s decode, less (L2-hot)", s->gpu);
    report(name, &little, 1000);
    env_release(&v);
}

/* What fits in cache was measured hot, as serving never finds it: printed, not judged. The RTX PRO
 * 6000 table of this release has decode attention faster than memory allows: printed likewise. */
TEST(kernels_decode_attention_law_against_tables)
{
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) decode_of(sets + i);
}

static void prefill_of(const struct set *s)
{
    struct env v;
    struct fit all = { 0 }, deep = { 0 };
    char name[256], header[512], row[512];
    CHECK_OK(load(&v, s), &v.e);
    const struct param *p = v.profile.p;
    struct law_attn_prefill l = { p[P_PRE_T0_S].v, p[P_PRE_EC].v, p[P_PRE_EM].v,
                                  v.profile.attn_peak_flop_per_s, v.profile.mem_bytes_per_s };
    snprintf(name, sizeof name, "kernels_aiconfigurator/%s/context_attention_perf.csv", s->dir);
    FILE *in = open_data(name);
    if (!CHECK(in && fgets(header, sizeof header, in))) return;
    while (fgets(row, sizeof row, in)) {
        double b = number(header, row, "batch_size"), h = number(header, row, "num_heads");
        double k = number(header, row, "num_key_value_heads"), q = number(header, row, "isl");
        double past = number(header, row, "step"), t = number(header, row, "latency") * 1e-3;
        if (!in_scope(header, row) || k <= 0 || q < 1024) continue;
        double pairs = b * (q * past + q * (q + 1) / 2) + p[P_PRE_X_TOK].v * b * q;
        double io = 4 * b * q * h * 128 + 4 * b * (past + q) * k * 128;
        double got = law_attn_prefill_s(&l, pairs, io, h, 128);
        if (past > 0)
            add(&deep, t, got);
        else
            add(&all, t, got);
    }
    fclose(in);
    snprintf(name, sizeof name, "%s prefill, from 1024", s->gpu);
    report(name, &all, s->prefill_max);
    snprintf(name, sizeof name, "%s prefill over a past", s->gpu);
    if (deep.n > 100) report(name, &deep, 1000);
    env_release(&v);
}

TEST(kernels_prefill_attention_law_against_tables)
{
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) prefill_of(sets + i);
}
