/* model/profile_file.c - writes a measured profile, and says what a sound one is.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/profile_file.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/profile_file_in.h"

#define HW(member) offsetof(struct hw, member)
const struct profile_figure profile_figures[] = {
    { "mem", "byte", HW(gpu.mem_bytes) },
    { "mem_rate", "byte s-1", HW(gpu.mem_bytes_per_s) },
    { "flops_bf16", "s-1", HW(gpu.flop_per_s[DT_BF16]) },
    { "flops_f16", "s-1", HW(gpu.flop_per_s[DT_F16]) },
    { "flops_f32", "s-1", HW(gpu.flop_per_s[DT_F32]) },
    { "flops_fp8", "s-1", HW(gpu.flop_per_s[DT_FP8]) },
    { "flops_int8", "s-1", HW(gpu.flop_per_s[DT_INT8]) },
    { "flops_int4", "s-1", HW(gpu.flop_per_s[DT_INT4]) },
    { "flops_nvfp4", "s-1", HW(gpu.flop_per_s[DT_NVFP4]) },
    { "l2", "byte", HW(gpu.l2_bytes) },
    { "pcie", "byte s-1", HW(gpu.pcie_bytes_per_s) },
    { "link", "byte s-1", HW(gpu.link_bytes_per_s) },
    { "power_max", "W", HW(gpu.tdp_w) },
    { "power_idle", "W", HW(gpu.idle_w) },
    { "peer_rate", "byte s-1", HW(sys.peer_bytes_per_s) },
    { "peer_alpha", "s", HW(sys.peer_alpha_s) },
    { "peer_busbw", "byte s-1", HW(sys.busbw_bytes_per_s) },
    { "nic_rate", "byte s-1", HW(sys.nic_bytes_per_s) },
    { "inter_rate", "byte s-1", HW(sys.inter_bytes_per_s) },
    { "inter_alpha", "s", HW(sys.inter_alpha_s) },
    { "host_mem", "byte", HW(sys.host_mem_bytes) },
    { "host_storage", "byte s-1", HW(sys.storage_bytes_per_s) },
    { "node_power_max", "W", HW(sys.node_max_w) },
    { "node_power_idle", "W", HW(sys.node_idle_w) },
    { NULL, NULL, 0 },
};
const struct profile_count profile_counts[] = {
    { "multiprocessors", HW(gpu.n_sm) },
    { "devices", HW(sys.n_gpu) },
    { "nics", HW(sys.n_nic) },
    { "host_cores", HW(sys.host_cores) },
    { NULL, 0 },
};
const struct profile_count profile_texts[] = {
    { "gpu_name", HW(gpu.name) },   { "gpu_title", HW(gpu.title) },
    { "arch", HW(gpu.arch) },       { "gpu_source", HW(gpu.source) },
    { "gpu_notes", HW(gpu.notes) }, { "name", HW(sys.name) },
    { "title", HW(sys.title) },     { "source", HW(sys.source) },
    { "notes", HW(sys.notes) },     { NULL, 0 },
};
#undef HW
#define FIT(member) offsetof(struct fit, member)
const struct profile_figure profile_law_figures[] = {
    { "tau", "1", FIT(tau) },
    { "spread", "1", FIT(spread) },
    { "in_mape", "1", FIT(in.mape) },
    { "in_median", "1", FIT(in.median) },
    { "in_p90", "1", FIT(in.p90) },
    { "in_worst", "1", FIT(in.worst) },
    { "in_bias", "1", FIT(in.bias) },
    { "held_mape", "1", FIT(held.mape) },
    { "held_median", "1", FIT(held.median) },
    { "held_p90", "1", FIT(held.p90) },
    { "held_worst", "1", FIT(held.worst) },
    { "held_bias", "1", FIT(held.bias) },
    { NULL, NULL, 0 },
};
#undef FIT
const struct profile_span profile_spans[LAW_N] = {
    [LAW_GEMM] = { P_GEMM_T0_S, P_GEMM_EQ },
    [LAW_DECODE] = { P_DEC_T0_S, P_DEC_FLOOR_S },
    [LAW_PREFILL] = { P_PRE_T0_S, P_PRE_X_TOK },
    [LAW_ELT] = { P_ELT_T0_S, P_ELT_EM },
    [LAW_ALLREDUCE] = { P_AR_A_S, P_AR_S0 },
    [LAW_OWN_ALLREDUCE] = { P_CAR_A_S, P_CAR_S0 },
    [LAW_ALLGATHER] = { P_AG_A_S, P_AG_S0 },
    [LAW_P2P] = { P_P2P_A_S, P_P2P_B },
    [LAW_NET] = { P_NET_A_S, P_NET_B },
    [LAW_STEP] = { P_HOST_STEP_S, P_HOST_TOK_S },
    [LAW_STAGE] = { P_STAGE_RETURN_S, P_STAGE_TOK },
};

/* ---- what a sound content is */

bool profile_cholesky(int n, const double *cov, double *chol)
{
    enum { ROW = PROFILE_BLOCK_MAX };
    memset(chol, 0, ROW * ROW * sizeof *chol);
    for (int i = 0; i < n; i++)
        for (int j = 0; j <= i; j++) {
            double sum = cov[i * ROW + j], *to = chol + i * ROW + j;
            for (int k = 0; k < j; k++) sum -= chol[i * ROW + k] * chol[j * ROW + k];
            if (i != j) {
                *to = chol[j * ROW + j] > 0 ? sum / chol[j * ROW + j] : 0;
                continue;
            }
            /* A constant without uncertainty has no row of its own. */
            if (!(sum >= -1e-9 * fabs(cov[i * ROW + i]) - 1e-300)) return false;
            *to = sum > 0 ? sqrt(sum) : 0;
        }
    return true;
}

static int check_constant(const char *law, enum profile_id id, double v, double sd_log,
                          struct err *e)
{
    struct profile probe;
    if ((unsigned)id >= P_N) return err_set(e, ST_USAGE, "%s: a constant is unknown", law);
    if (!isfinite(sd_log) || sd_log < 0 || sd_log > 10)
        return err_set(e, ST_USAGE, "%s: %s has an impossible sd of %g", law,
                       profile_param_name(id), sd_log);
    int st = profile_set(&probe, profile_param_name(id), v, e);
    if (st != ST_OK) err_prefix(e, "%s", law);
    return st;
}

static bool belongs(enum profile_law law, enum profile_id id)
{
    bool beside = law == LAW_STEP ? id == P_LAW || id == P_RANK_SKEW_S || id == P_HOST_GAP_S
                                  : law == LAW_DECODE && id == P_SKEW_ALPHA;
    return beside || (id >= profile_spans[law].first && id <= profile_spans[law].last);
}

/* Errors, shares of a time: NAN where there is none; a bias has a sign. */
static int check_figures(const struct fit *f, const char *law, struct err *e)
{
    for (const struct profile_figure *g = profile_law_figures; g->name; g++) {
        double v;
        memcpy(&v, (const char *)f + g->at, sizeof v);
        if (isnan(v) || (fabs(v) <= 1e6 && (v >= 0 || strstr(g->name, "bias")))) continue;
        return err_set(e, ST_USAGE, "%s: %s of %g is impossible", law, g->name, v);
    }
    return ST_OK;
}

static int check_fit(const struct fit *f, struct err *e)
{
    double chol[FIT_MAX_PAR][FIT_MAX_PAR];
    const char *law = profile_law_name(f->law);
    if ((unsigned)f->law >= LAW_N || f->n_par < 1 || f->n_par > FIT_MAX_PAR || f->n_range < 0 ||
        f->n_range > FIT_MAX_SIZE || f->ranks < 1 || f->ranks > 1 << 20 || f->dtype < 0 ||
        f->dtype >= DT_N)
        return err_set(e, ST_USAGE, "%s: not a law of this program, or of impossible size", law);
    for (int j = 0; j < f->n_par; j++)
        if ((unsigned)f->id[j] < P_N && !belongs(f->law, f->id[j]))
            return err_set(e, ST_USAGE, "%s: %s is no constant of it", law,
                           profile_param_name(f->id[j]));
    if (check_figures(f, law, e) != ST_OK) return ST_USAGE;
    for (int j = 0; j < f->n_par; j++) {
        int st = check_constant(law, f->id[j], f->v[j], f->sd_log[j], e);
        if (st != ST_OK) return st;
        for (int k = 0; k < f->n_par; k++)
            if (!isfinite(f->cov[j][k]) || fabs(f->cov[j][k] - f->cov[k][j]) > 1e-9 ||
                (k < j && f->id[j] == f->id[k]))
                return err_set(e, ST_USAGE, "%s: the covariance is none", law);
        if (fabs(sqrt(fmax(0, f->cov[j][j])) - f->sd_log[j]) > 1e-6 + 1e-6 * f->sd_log[j])
            return err_set(e, ST_USAGE, "%s: covariance and sd of %s differ", law,
                           profile_param_name(f->id[j]));
    }
    if (!profile_cholesky(f->n_par, &f->cov[0][0], &chol[0][0]))
        return err_set(e, ST_USAGE, "%s: the covariance is not positive", law);
    for (int j = 0; j < f->n_range; j++) {
        const struct fit_range *r = f->range + j;
        if ((unsigned)r->size >= SIZE_KINDS || !isfinite(r->lo) || !isfinite(r->hi) || r->lo < 0 ||
            r->hi < r->lo)
            return err_set(e, ST_USAGE, "%s: a range of sizes is none", law);
    }
    return ST_OK;
}

static int check_hardware(const struct hw *h, struct err *e)
{
    double peak = 0;
    for (const struct profile_figure *f = profile_figures; f->name; f++) {
        double v;
        memcpy(&v, (const char *)h + f->at, sizeof v);
        if (!isfinite(v) || v < 0 || v > 1e24)
            return err_set(e, ST_USAGE, "hardware: %s of %g is impossible", f->name, v);
    }
    for (const struct profile_count *c = profile_counts; c->name; c++) {
        int v;
        memcpy(&v, (const char *)h + c->at, sizeof v);
        if (v < 0 || v > 1 << 20)
            return err_set(e, ST_USAGE, "hardware: %d %s are impossible", v, c->name);
    }
    for (int d = 0; d < DT_N; d++) peak = fmax(peak, h->gpu.flop_per_s[d]);
    if (!(h->gpu.mem_bytes > 0) || !(h->gpu.mem_bytes_per_s > 0) || !(peak > 0))
        return err_set(e, ST_USAGE, "hardware: memory, memory rate or peak is missing");
    if (h->sys.n_gpu < 1) return err_set(e, ST_USAGE, "hardware: there is no device");
    if ((unsigned)h->sys.fabric > HW_HOST) return err_set(e, ST_USAGE, "hardware: no such fabric");
    if (!h->gpu.name || !*h->gpu.name || !h->sys.name || !*h->sys.name)
        return err_set(e, ST_USAGE, "hardware: it has no name");
    return ST_OK;
}

int profile_file_check(const struct profile_file *p, struct err *e)
{
    if (!p->machine || !*p->machine || !p->date || !*p->date || !p->engine || !*p->engine)
        return err_set(e, ST_USAGE, "machine, date and engine have to be named");
    if (p->n_fit < 0 || p->n_fit > PROFILE_FILE_MAX_LAWS || p->n_extra < 0 || p->n_extra > P_N)
        return err_set(e, ST_USAGE, "%d laws and %d constants are too many", p->n_fit, p->n_extra);
    if (p->n_fit + p->n_extra == 0) return err_set(e, ST_USAGE, "nothing was measured");
    if (p->threads < 1 || p->threads > 1 << 20 || !isfinite(p->ar_limit_bytes) ||
        p->ar_limit_bytes < 0)
        return err_set(e, ST_USAGE, "%d threads or an all-reduce limit of %g are impossible",
                       p->threads, p->ar_limit_bytes);
    int st = check_hardware(&p->hw, e);
    for (int i = 0; i < p->n_fit && st == ST_OK; i++) {
        st = check_fit(p->fit + i, e);
        for (int j = 0; j < i && st == ST_OK; j++)
            if (p->fit[i].law == p->fit[j].law && p->fit[i].dtype == p->fit[j].dtype &&
                p->fit[i].ranks == p->fit[j].ranks)
                st = err_set(e, ST_USAGE, "%s is there twice for the same format and ranks",
                             profile_law_name(p->fit[i].law));
    }
    for (int i = 0; i < p->n_extra && st == ST_OK; i++)
        st = check_constant("constants", p->extra[i].id, p->extra[i].v, p->extra[i].sd_log, e);
    return st;
}

/* ---- operators */

const char *profile_file_shape(const struct arch *m, struct arena *a)
{
    return arena_printf(a, "hidden %d, heads %d/%d x %d, ffn %d%s%s, vocab %d%s%s%s", m->hidden,
                        m->n_head, m->n_kv_head, m->head_dim, m->ffn, m->gated_mlp ? " gated" : "",
                        m->n_expert ? " sparse" : "", m->vocab, m->layer_norm ? ", layer norm" : "",
                        m->qkv_bias || m->o_bias || m->mlp_bias ? ", biases" : "",
                        m->qk_norm ? ", qk norm" : "");
}

struct table *profile_file_table(const struct profile_file *p, const struct arch *m,
                                 const struct strategy *s, struct arena *a)
{
    const struct profile_ops *o = p->ops;
    bool same = o && o->table && o->tp == s->tp && o->weight_dtype == s->weight_dtype &&
                strcmp(o->shape, profile_file_shape(m, a)) == 0;
    return same ? o->table : NULL;
}

/* ---- writing */

static int put_texts(h5 *f, const char *object, const char *const (*pair)[2], size_t n,
                     struct err *e)
{
    int st = ST_OK;
    for (size_t i = 0; i < n && st == ST_OK; i++)
        st = h5_attr_text(f, object, pair[i][0], pair[i][1] ? pair[i][1] : "", e);
    return st;
}

static int put_machine(h5 *f, const struct profile_file *p, struct err *e)
{
    const char *const text[][2] = { { "machine", p->machine }, { "date", p->date },
                                    { "engine", p->engine },   { "cpu", p->cpu },
                                    { "gpu", p->gpu },         { "host", p->host },
                                    { "noise", p->noise } };
    int st = h5_group(f, "/machine", "what was measured, and when", e);
    if (st == ST_OK) st = put_texts(f, "/machine", text, sizeof text / sizeof *text, e);
    if (st == ST_OK) st = h5_attr_i64(f, "/machine", "threads", p->threads, e);
    if (st == ST_OK) st = h5_attr_i64(f, "/machine", "ranks", p->ranks, e);
    if (st == ST_OK) st = h5_attr_i64(f, "/machine", "host_overlap", p->host_overlap, e);
    if (st == ST_OK) st = h5_attr_f64(f, "/machine", "allreduce_limit", p->ar_limit_bytes, e);
    if (st == ST_OK) st = h5_text(f, "/used", p->used ? p->used : "", "points and runs used", e);
    if (st == ST_OK && p->runs && *p->runs)
        st = h5_text(f, "/runs", p->runs, "measured runs used: run_uuid, and what for", e);
    return st;
}

static const char *word_of(const char *words, int i, char *buf, size_t n)
{
    while (i-- > 0) words += strcspn(words, " ") + 1;
    snprintf(buf, n, "%.*s", (int)strcspn(words, " "), words);
    return buf;
}

static int put_hardware(h5 *f, const struct hw *h, struct err *e)
{
    char word[32];
    int st = h5_group(f, "/hardware", "one device and a node of them; SI units", e);
    for (const struct profile_count *t = profile_texts; t->name && st == ST_OK; t++) {
        const char *text;
        memcpy(&text, (const char *)h + t->at, sizeof text);
        st = h5_attr_text(f, "/hardware", t->name, text ? text : "", e);
    }
    for (const struct profile_figure *g = profile_figures; g->name && st == ST_OK; g++) {
        double v;
        memcpy(&v, (const char *)h + g->at, sizeof v);
        st = h5_attr_f64(f, "/hardware", g->name, v, e);
    }
    for (const struct profile_count *c = profile_counts; c->name && st == ST_OK; c++) {
        int v;
        memcpy(&v, (const char *)h + c->at, sizeof v);
        st = h5_attr_i64(f, "/hardware", c->name, v, e);
    }
    if (st == ST_OK)
        st = h5_attr_text(f, "/hardware", "fabric",
                          word_of(HW_FABRIC_WORDS, (int)h->sys.fabric, word, sizeof word), e);
    return st;
}

/* The table beside the law; columns named by the sizes. */
static int put_points(h5 *f, const char *group, const struct fit *t, struct err *e)
{
    struct row {
        double x[FIT_MAX_SIZE], measured, predicted, weight;
    };
    struct h5col col[FIT_MAX_SIZE + 4] = { { .type = H5COL_END } };
    char path[96];
    int n = 0;
    if (!t->size) return ST_OK;
    for (; n < t->n_size; n++)
        col[n] = (struct h5col){ profile_size_name(t->size_of[n]),
                                 H5COL_F64,
                                 offsetof(struct row, x) + (size_t)n * sizeof(double),
                                 t->size_of[n] == SIZE_DEVICE_S ? "s" : "1",
                                 "a size of the point",
                                 NULL };
    col[n++] =
        (struct h5col){ "measured", H5COL_F64, offsetof(struct row, measured), "s", "time", NULL };
    col[n++] = (struct h5col){
        "predicted", H5COL_F64, offsetof(struct row, predicted), "s", "time by the law, in-sample",
        NULL
    };
    col[n++] = (struct h5col){
        "weight", H5COL_F64, offsetof(struct row, weight), "1", "in the fit, 0 for an outlier", NULL
    };
    col[n] = (struct h5col){ .type = H5COL_END };
    snprintf(path, sizeof path, "%s/points", group);
    h5table *table = h5_table(f, path, "point", col, "what was measured, beside the law", e);
    if (!table) return ST_IO;
    for (int64_t i = 0; i < t->n_point; i++) {
        struct row r = { .measured = t->measured_s[i],
                         .predicted = t->predicted_s[i],
                         .weight = t->weight[i] };
        memcpy(r.x, t->size + i * t->n_size, (size_t)t->n_size * sizeof(double));
        int st = h5_table_put(table, &r, 1, sizeof r, e);
        if (st != ST_OK) return st;
    }
    return ST_OK;
}

static int put_arrays(h5 *f, const char *group, const struct fit *t, struct err *e)
{
    static const char *const dim[] = { "constant", "with" }, *const range_dim[] = { "size", "end" };
    double known[FIT_MAX_PAR], cov[FIT_MAX_PAR * FIT_MAX_PAR], range[FIT_MAX_SIZE * 2];
    size_t n = (size_t)t->n_par, square[] = { n, n }, ends[] = { (size_t)t->n_range, 2 };
    char path[96];
    for (size_t j = 0; j < n; j++) {
        known[j] = t->known[j];
        for (size_t k = 0; k < n; k++) cov[j * n + k] = t->cov[j][k];
    }
    for (int j = 0; j < t->n_range; j++) {
        range[2 * j] = t->range[j].lo;
        range[2 * j + 1] = t->range[j].hi;
    }
    const struct {
        const char *name;
        const double *data;
        const char *says;
    } one[] = { { "value", t->v, "constants, SI units, in the order of the attribute constants" },
                { "sd_log", t->sd_log, "standard deviation of the logarithm" },
                { "known", known, "1: the points tell it; 0: they leave it open" } };
    int st = ST_OK;
    for (size_t i = 0; i < 3 && st == ST_OK; i++) {
        snprintf(path, sizeof path, "%s/%s", group, one[i].name);
        st = h5_array(f, path, 1, square, dim, NULL, NULL, one[i].data, "1", one[i].says, e);
    }
    snprintf(path, sizeof path, "%s/covariance", group);
    if (st == ST_OK)
        st = h5_array(f, path, 2, square, dim, NULL, NULL, cov, "1", "of the logarithms", e);
    snprintf(path, sizeof path, "%s/range", group);
    if (st == ST_OK && t->n_range)
        st = h5_array(f, path, 2, ends, range_dim, NULL, NULL, range, "1",
                      "smallest and largest of each size, in the order of the attribute covers", e);
    return st;
}

static void law_group(const struct fit *t, char *buf, size_t n)
{
    bool typed = t->law == LAW_GEMM || t->law == LAW_DECODE || t->law == LAW_PREFILL;
    int used = snprintf(buf, n, "/laws/%s", profile_law_name(t->law));
    if (typed && used > 0)
        used += snprintf(buf + used, n - (size_t)used, "_%s", dtype_name((enum dtype)t->dtype));
    if (t->ranks > 1 && used > 0) snprintf(buf + used, n - (size_t)used, "_%d", t->ranks);
}

static int put_law(h5 *f, const struct fit *t, struct err *e)
{
    char group[64], names[FIT_MAX_PAR * 24] = "", covers[FIT_MAX_SIZE * 16] = "";
    law_group(t, group, sizeof group);
    for (int j = 0; j < t->n_par; j++) {
        size_t at = strlen(names);
        snprintf(names + at, sizeof names - at, "%s%s", j ? " " : "", profile_param_name(t->id[j]));
    }
    for (int j = 0; j < t->n_range; j++) {
        size_t at = strlen(covers);
        snprintf(covers + at, sizeof covers - at, "%s%s", j ? " " : "",
                 profile_size_name(t->range[j].size));
    }
    const char *const text[][2] = { { "law", profile_law_name(t->law) },
                                    { "dtype", dtype_name((enum dtype)t->dtype) },
                                    { "constants", names },
                                    { "covers", covers },
                                    { "source", t->source },
                                    { "note", t->note } };
    int st = h5_group(f, group, "one law, fitted", e);
    if (st == ST_OK) st = put_texts(f, group, text, 6, e);
    if (st == ST_OK) st = h5_attr_i64(f, group, "ranks", t->ranks, e);
    if (st == ST_OK) st = h5_attr_i64(f, group, "points", t->n_point, e);
    if (st == ST_OK) st = h5_attr_i64(f, group, "sites", t->n_site, e);
    if (st == ST_OK) st = h5_attr_i64(f, group, "outliers", t->n_outlier, e);
    for (const struct profile_figure *g = profile_law_figures; g->name && st == ST_OK; g++) {
        double v;
        memcpy(&v, (const char *)t + g->at, sizeof v);
        st = h5_attr_f64(f, group, g->name, v, e);
    }
    if (st == ST_OK) st = put_arrays(f, group, t, e);
    return st == ST_OK ? put_points(f, group, t, e) : st;
}

static int put_extra(h5 *f, const struct profile_extra *x, struct err *e)
{
    char sd[48];
    snprintf(sd, sizeof sd, "%s_sd_log", profile_param_name(x->id));
    int st = h5_attr_f64(f, "/constants", profile_param_name(x->id), x->v, e);
    return st == ST_OK ? h5_attr_f64(f, "/constants", sd, x->sd_log, e) : st;
}

static int put_operators(h5 *f, const struct profile_ops *o, struct err *e)
{
    const char *const text[][2] = { { "model", o->model },
                                    { "shape", o->shape },
                                    { "dtype", dtype_name((enum dtype)o->weight_dtype) } };
    int st = h5_group(f, "/operators", "times of single operators, instead of laws", e);
    if (st == ST_OK) st = put_texts(f, "/operators", text, 3, e);
    if (st == ST_OK) st = h5_attr_i64(f, "/operators", "tp", o->tp, e);
    if (st == ST_OK) st = h5_text(f, "/operators/dense", o->dense, "CSV, by tokens", e);
    if (st == ST_OK)
        st = h5_text(f, "/operators/per_sequence", o->per_sequence, "CSV, by sequences", e);
    return st;
}

int profile_file_write(const char *path, const struct profile_file *p, const struct prov *v,
                       struct err *e)
{
    char title[256];
    int st = profile_file_check(p, e);
    if (st != ST_OK) {
        err_prefix(e, "%s", path);
        return st;
    }
    h5 *f = h5_create(path, e);
    if (!f) return e && e->status ? e->status : ST_IO;
    snprintf(title, sizeof title, "measured profile of %s, %s", p->machine, p->date);
    st = prov_write(v, f, "orrery-profile", "1.0", p->title && *p->title ? p->title : title, e);
    if (st == ST_OK) st = put_machine(f, p, e);
    if (st == ST_OK) st = put_hardware(f, &p->hw, e);
    if (st == ST_OK) st = h5_group(f, "/laws", "fitted laws", e);
    for (int i = 0; i < p->n_fit && st == ST_OK; i++) st = put_law(f, p->fit + i, e);
    if (st == ST_OK) st = h5_group(f, "/constants", "constants from elsewhere", e);
    for (int i = 0; i < p->n_extra && st == ST_OK; i++) st = put_extra(f, p->extra + i, e);
    if (st == ST_OK && p->ops) st = put_operators(f, p->ops, e);
    if (st == ST_OK) return h5_commit(f, e);
    h5_abort(f);
    return st;
}
