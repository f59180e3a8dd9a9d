/* bench/calibrate.c - reads points and runs, fits, and makes the profile of it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "bench/calibrate.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/stat.h"
#include "base/units.h"
#include "bench/suite.h"

#define AT(m) offsetof(struct calibrate_opts, m)
/* clang-format off */
const struct conf_row calibrate_rows[] = {
    { "out", CONF_TEXT, AT(out), NULL, NULL, 0, 0, "profile to write (HDF5); appears when complete" },
    { "tables", CONF_BOOL, AT(tables), "yes", NULL, 0, 0,
      "keep the times of single operators too, to be taken instead of laws where they fit" },
    { "scenario", CONF_TEXT, AT(scenario), NULL, NULL, 0, 0,
      "what an imported run was: hardware, model, strategy, policy" },
    { "model", CONF_TEXT, AT(model), NULL, NULL, 0, 0,
      "of points files that do not name theirs; for whole steps and tables" },
    { "threads", CONF_INT, AT(threads), "0", NULL, 0, 1024, "of a rank, where points are of several; 0: the one there is" },
    { "ranks", CONF_INT, AT(ranks), "0", NULL, 0, 65536, "that ran together, where points are of several; 0: the one there is" },
    { "tp", CONF_INT, AT(tp), "0", NULL, 0, 65536, "of whole steps in points files; 0: as the ranks" },
    { "comm", CONF_WORD, AT(comm), "none", POINTS_COMM_WORDS, 0, 0, "communicator, where points are of several; none: the one there is" },
    { "seed", CONF_INT, AT(seed), "1", NULL, 0, 1e9, "of the fits' starts and folds" },
    { "json", CONF_BOOL, AT(json), "no", NULL, 0, 0, "one JSON object on stdout instead of text" },
    { "dry_run", CONF_BOOL, AT(dry_run), "no", NULL, 0, 0, "say which points and runs would be used, fit and write nothing" },
    { .type = CONF_END }
};
/* clang-format on */
#undef AT

/* A point is known no better than this: what one session's clock and heat do to all its samples. */
static const double LEAST_SD = 1e-3;
/* Standard error of a median over that of a mean, and sd over median absolute deviation. */
static const double MEDIAN_SE = 1.2533, MAD_SD = 1.4826;

void calibrate_init(struct calibrate *c, const struct calibrate_opts *o, struct arena *a)
{
    *c = (struct calibrate){
        .o = *o, .a = a, .skipped = "", .warned = "", .of_device = "", .of_host = ""
    };
}

void calibrate_release(struct calibrate *c)
{
    for (int i = 0; i < c->n_file; i++)
        if (c->file[i].is_run) run_close(&c->file[i].run);
    free(c->point);
    c->point = NULL;
}

static const char *with_line(struct calibrate *c, const char *text, const char *fmt, va_list ap)
    __attribute__((format(printf, 3, 0)));
static const char *with_line(struct calibrate *c, const char *text, const char *fmt, va_list ap)
{
    char line[512];
    vsnprintf(line, sizeof line, fmt, ap);
    return arena_printf(c->a, "%s%s\n", text, line);
}

void calibrate_note(struct calibrate *c, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    c->skipped = with_line(c, c->skipped, fmt, ap);
    va_end(ap);
}

void calibrate_warn(struct calibrate *c, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    c->warned = with_line(c, c->warned, fmt, ap);
    va_end(ap);
}

enum dtype calibrate_dtype(uint8_t d)
{
    static const enum dtype of[] = {
        [POINTS_NONE] = DT_N,    [POINTS_F32] = DT_F32,   [POINTS_F16] = DT_F16,
        [POINTS_BF16] = DT_BF16, [POINTS_INT8] = DT_INT8, [POINTS_FP8] = DT_FP8,
        [POINTS_OTHER] = DT_N
    };
    return d < sizeof of / sizeof *of ? of[d] : DT_N;
}

/* ---- reading */

/* Median of x[n], and the spread of one about it. */
static void robust(double *x, int n, double *s, double *sd)
{
    stat_sort(x, (size_t)n);
    *s = stat_quantile_sorted(x, (size_t)n, 0.5);
    *sd = 0;
    if (n < 2) return;
    for (int i = 0; i < n; i++) x[i] = fabs(log(x[i] / *s));
    stat_sort(x, (size_t)n);
    *sd = MAD_SD * stat_quantile_sorted(x, (size_t)n, 0.5);
}

/* Standard errors. A handful of samples tells their own spread badly, and weights by it would be
 * worse than none: it counts as n - 1 looks beside ten at what is usual for the operation. */
static void pool_spread(struct calibrate *c)
{
    enum { USUAL = 10 };
    double *x = mem_alloc(((size_t)c->n_point + 1) * sizeof *x);
    for (int op = 0; op < POINTS_N_OP; op++) {
        size_t n = 0;
        for (int64_t i = 0; i < c->n_point; i++)
            if (c->point[i].row.op == op && c->point[i].n > 1) x[n++] = c->point[i].own_sd;
        stat_sort(x, n);
        double usual = n > 0 ? stat_quantile_sorted(x, n, 0.5) : 0;
        for (int64_t i = 0; i < c->n_point; i++) {
            struct calibrate_point *p = &c->point[i];
            if (p->row.op != op) continue;
            double var =
                ((p->n - 1) * p->own_sd * p->own_sd + USUAL * usual * usual) / (p->n - 1 + USUAL);
            p->sd_log = hypot(LEAST_SD, MEDIAN_SE * sqrt(var / p->n));
        }
    }
    free(x);
}

/* The samples of one point: those of a quiet machine if there are enough. Of a wrong result the time
 * says nothing. */
static void add_point(struct calibrate *c, const struct points_file *f, int32_t row,
                      const int64_t *at, int n)
{
    if (n > 0 && f->row[row].error > suite_tolerance(&f->row[row])) {
        c->file[c->n_file].n_wrong++;
        return;
    }
    double *x = mem_alloc((size_t)(n > 0 ? n : 1) * sizeof *x);
    int clean = 0, k = 0;
    for (int i = 0; i < n; i++) clean += !f->sample[at[i]].noisy;
    bool drop = clean > 0 && 3 * clean >= n;
    for (int i = 0; i < n; i++)
        if (!drop || !f->sample[at[i]].noisy) x[k++] = f->sample[at[i]].s_per_call;
    struct calibrate_point p = { .row = f->row[row], .n = k, .n_noisy = n - k, .file = c->n_file };
    if (!drop) p.n_kept_noisy = n - clean;
    if (k > 0) robust(x, k, &p.s, &p.own_sd);
    free(x);
    if (k == 0 || p.s <= 0) return;
    if (c->n_point == c->cap_point) {
        c->cap_point = c->cap_point ? 2 * c->cap_point : 256;
        c->point = mem_resize(c->point, (size_t)c->cap_point, sizeof *c->point);
    }
    c->point[c->n_point++] = p;
}

static const char *text_of(h5 *f, const char *name, struct arena *a)
{
    char *text = NULL;
    if (!h5_has(f, "/provenance")) return "";
    return h5_read_attr_text(f, "/provenance", name, a, &text, NULL) == ST_OK && text ? text : "";
}

static int64_t number_of(h5 *f, const char *name, struct arena *a)
{
    long long v = strtoll(text_of(f, name, a), NULL, 10);
    return v > 0 ? v : 0;
}

static void read_gpu(h5 *f, struct calibrate_gpu *g, struct arena *a)
{
    g->name = text_of(f, "gpu", a);
    g->sm = number_of(f, "gpu_sm", a);
    g->n_sm = number_of(f, "gpu_multiprocessors", a);
    g->memory_bytes = number_of(f, "gpu_memory_bytes", a);
    g->l2_bytes = number_of(f, "gpu_l2_bytes", a);
    g->count = number_of(f, "gpu_count", a);
}

/* An imported file names the machine and the time of importing it, not those that were measured. */
static void read_host(h5 *f, struct calibrate_file *k, struct arena *a)
{
    const char *date = text_of(f, "source_date", a);
    k->dated = !k->imported || *date;
    if (k->imported && *date) k->date = date;
    k->host = k->imported ? "" : text_of(f, "host", a);
    k->processors = number_of(f, "processors", a);
    k->memory_bytes = number_of(f, "memory_bytes", a);
}

/* "tp2 pp1 ..."; else zeros. */
static void read_strategy(const char *text, struct calibrate_file *k)
{
    char *end;
    if (strncmp(text, "tp", 2) != 0) return;
    long tp = strtol(text + 2, &end, 10);
    if (strncmp(end, " pp", 3) != 0) return;
    long pp = strtol(end + 3, &end, 10);
    if (tp < 1 || tp > 1 << 20 || pp < 1 || pp > 1 << 20) return;
    k->tp = (int)tp;
    k->pp = (int)pp;
}

/* Samples sorted to their points by counting. */
static int add_points(struct calibrate *c, const char *path, struct err *e)
{
    struct points_file f;
    struct calibrate_file *k = &c->file[c->n_file];
    int st = points_read(path, c->a, &f, e);
    if (st != ST_OK) return st;
    k->title = f.title;
    k->imported = strcmp(f.kind, "imported") == 0;
    k->machine = k->imported ? text_of(f.h5, "source_machine", c->a) : f.machine;
    k->date = f.date;
    k->model = text_of(f.h5, "model", c->a);
    read_strategy(text_of(f.h5, "strategy", c->a), k);
    read_host(f.h5, k, c->a);
    k->partial = strcmp(text_of(f.h5, "complete", c->a), "no") == 0;
    read_gpu(f.h5, &k->gpu, c->a);
    k->n_sample = f.n_sample;
    size_t rows = (size_t)f.n_row;
    int64_t *first = mem_zalloc(rows + 2, sizeof *first);
    int64_t *at = mem_alloc(((size_t)f.n_sample + 1) * sizeof *at);
    for (int64_t i = 0; i < f.n_sample; i++) first[f.sample[i].point + 2]++;
    for (size_t i = 2; i < rows + 2; i++) first[i] += first[i - 1];
    for (int64_t i = 0; i < f.n_sample; i++) at[first[f.sample[i].point + 1]++] = i;
    int64_t before = c->n_point;
    for (size_t i = 0; i < rows; i++)
        add_point(c, &f, (int32_t)i, at + first[i], (int)(first[i + 1] - first[i]));
    for (int64_t i = before; i < c->n_point; i++) {
        k->n_noisy += c->point[i].n_noisy;
        k->n_kept_noisy += c->point[i].n_kept_noisy;
    }
    k->n_point = c->n_point - before;
    free(at);
    free(first);
    points_close(&f);
    c->invalid = k->n_point == 0 && k->n_wrong > 0;
    if (c->invalid)
        return err_set(e, ST_USAGE,
                       "%s: all of its %lld points gave wrong results, so their times say nothing",
                       path, (long long)k->n_wrong);
    if (k->n_point == 0) return err_set(e, ST_USAGE, "%s: no point in it has a sample", path);
    if (k->n_wrong > 0)
        calibrate_warn(c, "%s: %lld point%s gave wrong results and %s left out", path,
                       (long long)k->n_wrong, units_s(k->n_wrong), k->n_wrong > 1 ? "are" : "is");
    if (k->partial)
        calibrate_warn(
            c, "%s is of an interrupted benchmark: some points have fewer samples or none", path);
    c->n_file++;
    return ST_OK;
}

static int add_run(struct calibrate *c, const char *path, struct err *e)
{
    struct calibrate_file *k = &c->file[c->n_file];
    int st = run_open(path, c->a, &k->run, e);
    if (st != ST_OK) return st;
    k->is_run = true;
    k->title = k->run.title ? k->run.title : "";
    k->machine = text_of(k->run.h5, "cpu", c->a);
    k->date = text_of(k->run.h5, "created_utc", c->a);
    k->model = text_of(k->run.h5, "model", c->a);
    k->imported = *text_of(k->run.h5, "source_tool", c->a) != 0;
    read_host(k->run.h5, k, c->a);
    c->n_file++;
    c->n_run++;
    int64_t disturbed = 0;
    if (h5_has(k->run.h5, "/summary"))
        h5_read_attr_i64(k->run.h5, "/summary", "noise_disturbed", &disturbed, NULL);
    k->disturbed = disturbed > 0;
    if (k->run.ended_early)
        calibrate_warn(c, "%s is of a run that ended early: %s", path, k->run.ended_early);
    if (!k->run.kind || strcmp(k->run.kind, "measured") != 0)
        return err_set(e, ST_USAGE, "%s: a run that is %s, not measured", path,
                       k->run.kind ? k->run.kind : "of no kind");
    return ST_OK;
}

/* Samples that count twice make a constant look better known than it is. */
static int not_twice(const struct calibrate *c, struct err *e)
{
    const struct calibrate_file *f = &c->file[c->n_file];
    for (int i = 0; i < c->n_file; i++) {
        const struct calibrate_file *k = &c->file[i];
        if (strcmp(k->path, f->path) == 0)
            return err_set(e, ST_USAGE, "%s is given twice: its samples count once", f->path);
        if (*f->uuid ? strcmp(k->uuid, f->uuid) == 0 : strcmp(k->sha, f->sha) == 0)
            return err_set(e, ST_USAGE,
                           "%s and %s hold the same measurement: its samples count once", k->path,
                           f->path);
    }
    return ST_OK;
}

int calibrate_add(struct calibrate *c, const char *path, struct err *e)
{
    char *schema = NULL;
    if (c->n_file == CALIBRATE_MAX_FILES)
        return err_set(e, ST_USAGE, "more than %d files", CALIBRATE_MAX_FILES);
    struct calibrate_file *k = &c->file[c->n_file];
    *k = (struct calibrate_file){ .path = path, .said = "" };
    h5 *f = h5_open(path, e);
    if (!f) return e && e->status ? e->status : ST_IO;
    if (h5_read_attr_text(f, "/", "schema_name", c->a, &schema, NULL) != ST_OK) schema = NULL;
    k->uuid = text_of(f, "run_uuid", c->a);
    h5_close(f);
    int st = *k->uuid ? ST_OK : prov_sha256_file(path, k->sha, e);
    if (st == ST_OK) st = not_twice(c, e);
    if (st != ST_OK) return st;
    if (schema && strcmp(schema, "orrery-bench") == 0) return add_points(c, path, e);
    if (schema && strcmp(schema, "orrery-run") == 0) return add_run(c, path, e);
    return err_set(e, ST_USAGE, "%s: %s%s: neither points of `orrery bench` nor a measured run",
                   path, schema ? "its schema_name is " : "no schema_name", schema ? schema : "");
}

/* ---- the machine */

static bool is_foreign(const struct calibrate *c)
{
    for (int i = 0; i < c->n_file; i++)
        if (c->file[i].is_run && c->file[i].imported) return true;
    return false;
}

static int one_machine(struct calibrate *c, const char **machine, struct err *e)
{
    const char *name = NULL, *from = NULL, *cpu = "";
    const struct calibrate_file *host = NULL;
    for (int i = 0; i < c->n_file; i++) {
        const struct calibrate_file *f = &c->file[i];
        if (f->is_run && f->imported) continue; /* the client's machine, not the server's */
        if (host && *f->host && strcmp(host->host, f->host) != 0)
            return err_set(e, ST_USAGE,
                           "%s was measured on host %s (%s), %s on host %s (%s): one profile is of "
                           "one machine",
                           host->path, host->host, host->machine, f->path, f->host, f->machine);
        if (!host && *f->host) host = f;
        if (!f->machine || !*f->machine) continue;
        if (!f->imported) cpu = f->machine;
        if (name && strcmp(name, f->machine) != 0)
            return err_set(e, ST_USAGE,
                           "%s was measured on %s, %s on %s: one profile is of one machine", from,
                           name, f->path, f->machine);
        name = f->machine;
        from = f->path;
    }
    *machine = name ? name : "a machine that the files do not name";
    c->profile.cpu = cpu;
    c->profile.host = host ? host->host : "";
    return ST_OK;
}

static void latest_date(const struct calibrate *c, const char **date)
{
    *date = "";
    for (int i = 0; i < c->n_file; i++)
        if (c->file[i].date && strcmp(c->file[i].date, *date) > 0) *date = c->file[i].date;
    if (!**date) *date = "undated";
}

/* Points files are of one GPU, or all of processors. */
static int one_gpu(struct calibrate *c, struct err *e)
{
    const struct calibrate_file *first = NULL;
    for (int i = 0; i < c->n_file; i++) {
        const struct calibrate_file *f = &c->file[i];
        if (f->is_run) continue;
        if (first && strcmp(first->gpu.name, f->gpu.name) != 0)
            return err_set(e, ST_USAGE, "%s is of %s, %s of %s: one profile is of one device",
                           first->path, *first->gpu.name ? first->gpu.name : "processors", f->path,
                           *f->gpu.name ? f->gpu.name : "processors");
        if (!first) first = f;
    }
    c->gpu.name = "";
    if (first) c->gpu = first->gpu;
    return ST_OK;
}

/* Efficiencies multiply these; where nobody measured ceilings, the best that a point reached. */
static void ceilings(struct calibrate *c)
{
    double mem = 0, flop = 0, best = 0;
    bool gpu = *c->gpu.name != 0;
    for (int64_t i = 0; i < c->n_point; i++) {
        const struct calibrate_point *p = &c->point[i];
        const struct points_row *r = &p->row;
        double moved = 0, done = 0;
        bool alike = (r->threads > 1 ? r->threads : 1) == c->threads;
        if (r->op <= POINTS_COPY && r->part == POINTS_NO_PART && alike) moved = r->bytes;
        if (r->op == POINTS_FMA && r->dtype == POINTS_F32 && alike) done = r->flop;
        if (r->op == POINTS_GEMM && p->used) {
            double elt = fmax(2, dtype_bytes(calibrate_dtype(r->dtype)));
            done = 2.0 * (double)r->m * (double)r->n * (double)r->k;
            if (!gpu) moved = elt * (double)r->n * (double)r->k;
        }
        mem = fmax(mem, moved / p->s);
        flop = fmax(flop, done / p->s);
        if (gpu && r->op == POINTS_GEMM && calibrate_dtype(r->dtype) != DT_N) {
            double *of = &c->limit_of[calibrate_dtype(r->dtype)];
            *of = fmax(*of, r->flop / p->s); /* the large squares too, which no law is fitted to */
            best = fmax(best, *of);
        }
    }
    c->limit_assumed = !(mem > 0 || flop > 0 || best > 0);
    if (c->limit_assumed && !is_foreign(c))
        calibrate_warn(c,
                       "no point tells the rates of arithmetic and memory: 100 GFLOP/s and 10 GB/s "
                       "stand for them where the profile is the hardware; with hardware: {name: "
                       "..., profile: ...} those of the catalog do");
    c->limit_mem = mem > 0 ? mem : 1e10;
    c->limit_flop = flop > 0 ? flop : 1e11;
    /* formats that were not measured: as fast as the best that was */
    for (int d = 0; d < DT_N; d++)
        if (!(c->limit_of[d] > 0)) c->limit_of[d] = best > 0 ? best : c->limit_flop;
}

/* "NVIDIA H100 80GB HBM3" as names are written here: nvidia-h100-80gb-hbm3. */
static const char *slug(struct calibrate *c, const char *name)
{
    char *out = arena_copy_text(c->a, name, strlen(name)), *to = out;
    for (const char *p = name; *p; p++) {
        bool word = (*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'z');
        bool upper = *p >= 'A' && *p <= 'Z';
        if (word || upper)
            *to++ = (char)(upper ? *p + 'a' - 'A' : *p);
        else if (to > out && to[-1] != '-')
            *to++ = '-';
    }
    while (to > out && to[-1] == '-') to--;
    *to = 0;
    return *out ? out : "gpu";
}

static const char *architecture(int64_t sm)
{
    return sm >= 100  ? "blackwell"
           : sm >= 90 ? "hopper"
           : sm == 89 ? "ada"
           : sm >= 80 ? "ampere"
                      : "turing";
}

/* The fastest copy that goes this way; 0: none was measured. */
static double copy_rate(const struct calibrate *c, int part)
{
    double best = 0;
    for (int64_t i = 0; i < c->n_point; i++) {
        const struct calibrate_point *p = &c->point[i];
        if (p->row.op == POINTS_COPY && p->row.part == part) best = fmax(best, p->row.bytes / p->s);
    }
    return best;
}

/* Messages over NCCL: between devices; else they went through the host. */
static void gpu_hardware(struct calibrate *c, struct hw *h)
{
    double up = copy_rate(c, POINTS_TO_DEVICE), peer = 0;
    for (int64_t i = 0; i < c->n_point; i++) {
        const struct calibrate_point *p = &c->point[i];
        if (p->row.op == POINTS_SENDRECV && p->row.comm == POINTS_NCCL)
            peer = fmax(peer, p->row.bytes / p->s);
    }
    h->gpu.name = slug(c, c->gpu.name);
    h->gpu.title = c->gpu.name;
    h->gpu.arch = architecture(c->gpu.sm);
    h->gpu.mem_bytes = (double)c->gpu.memory_bytes;
    h->gpu.l2_bytes = (double)c->gpu.l2_bytes;
    h->gpu.n_sm = (int)c->gpu.n_sm;
    if (up > 0) h->gpu.pcie_bytes_per_s = up;
    h->sys.name = arena_printf(c->a, "measured-%s", h->gpu.name);
    h->sys.title = arena_printf(c->a, "%s, %s", c->gpu.name, h->sys.title);
    h->sys.gpu_name = h->gpu.name;
    h->sys.n_gpu = c->gpu.count > 1 ? (int)c->gpu.count : 1;
    if (c->ranks > h->sys.n_gpu) h->sys.n_gpu = c->ranks; /* ranks that share one */
    h->sys.fabric = peer > 0 ? HW_PCIE : HW_HOST;
    h->sys.peer_bytes_per_s = h->sys.inter_bytes_per_s = peer > 0 ? peer
                                                         : up > 0 ? up / 2
                                                                  : c->limit_mem / 2;
    h->sys.peer_alpha_s = h->sys.inter_alpha_s = 1e-5;
}

static double memory_here(void)
{
    return (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
}

/* Memory and processors of the machine that was measured: by its files, or where they are silent and
 * it is this one; 0: unknown. */
static void size_of_host(const struct calibrate *c, double *memory, int *cpus)
{
    struct prov v;
    char word[] = "orrery", *argv[] = { word };
    prov_collect(&v, 1, argv);
    *memory = 0;
    *cpus = 0;
    for (int i = 0; i < c->n_file; i++) {
        const struct calibrate_file *f = &c->file[i];
        bool here = strcmp(f->host, v.host_sha) == 0;
        if (*memory <= 0)
            *memory = f->memory_bytes > 0 ? (double)f->memory_bytes : here ? memory_here() : 0;
        if (*cpus <= 0)
            *cpus = f->processors > 0 ? (int)f->processors
                    : here            ? (int)sysconf(_SC_NPROCESSORS_ONLN)
                                      : 0;
    }
    prov_release(&v);
}

/* Points of other tools alone, which do not say whose they are. */
static bool all_imported(const struct calibrate *c)
{
    for (int i = 0; i < c->n_file; i++)
        if (!c->file[i].imported) return false;
    return c->n_file > 0;
}

static void hardware(struct calibrate *c, struct hw *h, const char *machine)
{
    double memory;
    int cpus, ranks = c->ranks > 1 ? c->ranks : 1;
    size_of_host(c, &memory, &cpus);
    if (!is_foreign(c) && (memory <= 0 || cpus <= 0))
        calibrate_warn(c, "memory and processors of the measured machine are unknown%s",
                       *c->gpu.name ? "" : ": as the device's memory stands that of this one");
    if (cpus / c->threads > ranks) ranks = cpus / c->threads;
    for (int i = 0; i < c->n_file; i++)
        if (c->file[i].is_run && ranks < 64) ranks = 64; /* more ranks than processors may run */
    *h = (struct hw){ .n_node = 1 };
    h->gpu.name = all_imported(c) ? "measured-device" : "measured-cpu";
    h->gpu.title = machine;
    h->gpu.arch = all_imported(c) ? "" : "cpu";
    h->gpu.mem_bytes = memory > 0 ? memory : memory_here();
    h->gpu.mem_bytes_per_s = c->limit_mem;
    for (int d = 0; d < DT_N; d++) h->gpu.flop_per_s[d] = c->limit_of[d];
    h->gpu.price_date = h->gpu.source = h->gpu.notes = "";
    h->sys.name = "measured-machine";
    h->sys.title = machine;
    h->sys.gpu_name = h->gpu.name;
    h->sys.n_gpu = ranks;
    h->sys.fabric = HW_HOST;
    h->sys.peer_bytes_per_s = h->sys.inter_bytes_per_s = c->limit_mem / 2;
    h->sys.peer_alpha_s = h->sys.inter_alpha_s = 1e-6;
    h->gpu.pcie_bytes_per_s = c->limit_mem;
    h->sys.host_mem_bytes = memory;
    h->sys.host_cores = cpus;
    if (*c->gpu.name) gpu_hardware(c, h);
    h->sys.price_date = h->sys.source = h->sys.notes = "";
}

static int describe(struct calibrate *c, struct err *e)
{
    struct profile_file *p = &c->profile;
    const char *machine = "";
    int st = one_machine(c, &machine, e);
    if (st != ST_OK) return st;
    st = one_gpu(c, e);
    if (st != ST_OK) return st;
    latest_date(c, &p->date);
    ceilings(c);
    p->machine = arena_printf(c->a, "%s%s%s, %d thread%s a rank", c->gpu.name,
                              *c->gpu.name ? ", " : "", machine, c->threads, units_s(c->threads));
    p->engine = "orrery";
    p->gpu = c->gpu.name;
    p->threads = c->threads;
    p->ranks = c->ranks;
    p->fit = c->fit;
    p->extra = c->extra;
    hardware(c, &p->hw, machine);
    return ST_OK;
}

struct fit_ask calibrate_ask(struct calibrate *c, enum dtype d, int ranks)
{
    return (struct fit_ask){ .peak_flop_per_s = c->limit_of[d],
                             .mem_bytes_per_s = c->limit_mem,
                             .dtype = d,
                             .ranks = ranks,
                             .seed = (uint64_t)c->o.seed,
                             .source =
                                 arena_printf(c->a, "%s, %s", c->profile.machine, c->profile.date),
                             .a = c->a };
}

/* ---- all of it */

/* "gemm 172, decode 24": which laws the points of a file went to. */
static const char *laws_of(const struct calibrate *c, int file)
{
    const char *text = "";
    for (int law = 0; law < LAW_N; law++) {
        int64_t n = 0;
        for (int64_t k = 0; k < c->n_point; k++)
            n += c->point[k].file == file && c->point[k].laws >> law & 1;
        if (n)
            text = arena_printf(c->a, "%s%s%s %lld", text, *text ? ", " : "",
                                profile_law_name((enum profile_law)law), (long long)n);
    }
    return text;
}

static const char *say_points(const struct calibrate *c, int file)
{
    const struct calibrate_file *f = &c->file[file];
    int64_t used = 0;
    for (int64_t k = 0; k < c->n_point; k++) used += c->point[k].file == file && c->point[k].used;
    const char *laws = laws_of(c, file);
    return arena_printf(
        c->a,
        "%lld of %lld point%s%s%s%s; of %lld sample%s %lld noisy and left out, %lld "
        "noisy and kept for want of others",
        (long long)used, (long long)f->n_point, units_s(f->n_point), *laws ? " (" : "", laws,
        *laws ? ")" : "", (long long)f->n_sample, units_s(f->n_sample), (long long)f->n_noisy,
        (long long)f->n_kept_noisy);
}

/* The words of a, then those of b that are not among them. */
static const char *united(const char *x, const char *y, struct arena *a)
{
    const char *text = x;
    for (size_t n; *y; y += n, y += strspn(y, ", ")) {
        const char *at = x;
        n = strcspn(y, ",");
        for (size_t k; *at; at += k, at += strspn(at, ", "))
            if ((k = strcspn(at, ",")) == n && strncmp(at, y, n) == 0) break;
        if (!*at) text = arena_printf(a, "%s%s%.*s", text, *text ? ", " : "", (int)n, y);
    }
    return text;
}

struct calibrate_share calibrate_share_of(const struct calibrate *c, const struct calibrate_file *f)
{
    bool any_own = false;
    if (f->imported) return (struct calibrate_share){ .device = true, .any = true };
    for (int i = 0; i < c->n_file; i++) any_own |= c->file[i].own;
    struct calibrate_share r = { .device = f->own && !f->beside && *c->of_device,
                                 .host = (f->own || !any_own) && *c->of_host };
    r.any = f->n_request > 0 || (f->n_step > 0 && (r.device || r.host));
    return r;
}

/* Which constants that were, and why not others. */
static const char *say_run(const struct calibrate *c, const struct calibrate_file *f)
{
    struct calibrate_share r = calibrate_share_of(c, f);
    const char *gave = united(r.device ? c->of_device : "", r.host ? c->of_host : "", c->a);
    const char *not = !*gave || r.device ? "" : ", nothing of the device", *text = "";
    if (f->n_step > 0)
        text =
            arena_printf(c->a, "%lld step%s: %s%s%s%s%s", (long long)f->n_step, units_s(f->n_step),
                         *gave ? gave : "not used", not, f->beside ? " (" : "",
                         f->beside ? f->beside : "", f->beside ? ")" : "");
    if (f->n_request > 0)
        text = arena_printf(c->a, "%s%s%lld request%s: host.request", text, *text ? "; " : "",
                            (long long)f->n_request, units_s(f->n_request));
    return *text ? text : "not used";
}

/* A line of struct profile_file's runs; "": nothing of it was used. */
static const char *run_line(const struct calibrate *c, const struct calibrate_file *f)
{
    struct calibrate_share r = calibrate_share_of(c, f);
    if (!r.any) return "";
    return arena_printf(c->a, "%s %s\n", *f->uuid ? f->uuid : f->sha, r.device ? "device" : "host");
}

static void list_used(struct calibrate *c)
{
    calibrate_compare(c);
    const char *text = "", *runs = "";
    for (int i = 0; i < c->n_file; i++) {
        struct calibrate_file *f = &c->file[i];
        if (!f->is_run)
            f->said = say_points(c, i);
        else if (!*f->said)
            f->said = say_run(c, f);
        text = arena_printf(c->a, "%s%s: %s\n", text, f->path, f->said);
        if (f->is_run) runs = arena_printf(c->a, "%s%s", runs, run_line(c, f));
    }
    c->profile.runs = runs;
    c->profile.noise = calibrate_noise_of_all(c);
    c->profile.used = arena_printf(c->a, "%s%s", text, c->skipped);
}

static int plan_foreign(struct calibrate *c)
{
    for (int i = 0; i < c->n_file; i++)
        if (c->file[i].is_run)
            c->file[i].said =
                arena_printf(c->a, "%lld request%s: host.step, host.request, law, with %s",
                             (long long)c->file[i].run.n_request, units_s(c->file[i].run.n_request),
                             c->o.scenario ? c->o.scenario : "--scenario");
    return ST_OK;
}

int calibrate_plan(struct calibrate *c, struct err *e)
{
    int st = calibrate_choose(c, e);
    if (st == ST_OK) st = describe(c, e);
    if (st == ST_OK) st = calibrate_laws(c, true, e);
    if (st == ST_OK) st = is_foreign(c) ? plan_foreign(c) : calibrate_steps(c, true, e);
    if (st == ST_OK) calibrate_stages(c, true);
    if (st == ST_OK) list_used(c);
    return st;
}

/* Laws that say nothing of points they were not fitted to. */
static void doubt(struct calibrate *c)
{
    for (int i = 0; i < c->profile.n_fit; i++) {
        const struct fit *f = &c->fit[i];
        if (f->held.mape > expm1(FIT_HOPELESS_TAU))
            calibrate_warn(c,
                           "%s is off by %.0f %% on points that it was not fitted to: predictions "
                           "with it mean little",
                           profile_law_name(f->law), 100 * f->held.mape);
    }
}

int calibrate_fit(struct calibrate *c, struct err *e)
{
    bool foreign = is_foreign(c);
    pool_spread(c);
    if (foreign && c->n_point > 0)
        return err_set(e, ST_USAGE,
                       "runs of another engine and points of this one are two profiles: calibrate "
                       "them apart");
    if (foreign && c->n_run > 1)
        return err_set(e, ST_USAGE, "one imported run at a time: %d were given", c->n_run);
    int st = calibrate_choose(c, e);
    if (st == ST_OK) st = describe(c, e);
    if (st == ST_OK && foreign) {
        st = calibrate_foreign(c, e);
    } else {
        if (st == ST_OK) st = calibrate_laws(c, false, e);
        if (st == ST_OK && c->o.tables) st = calibrate_tables(c, e);
        if (st == ST_OK) st = calibrate_steps(c, false, e);
        if (st == ST_OK) calibrate_stages(c, false);
    }
    if (st != ST_OK) return st;
    if (c->profile.n_fit + c->profile.n_extra == 0)
        return err_set(e, ST_USAGE, "no law can be fitted to these files%s%.*s",
                       *c->skipped ? ": " : "", (int)strcspn(c->skipped, "\n"), c->skipped);
    doubt(c);
    list_used(c);
    if (strlen(c->profile.used) >= PROFILE_FILE_MAX_TEXT)
        c->profile.used = arena_copy_text(c->a, c->profile.used, PROFILE_FILE_MAX_TEXT - 1);
    return profile_file_check(&c->profile, e);
}

int calibrate_write(struct calibrate *c, int argc, char *const *argv, struct err *e)
{
    struct prov v;
    prov_collect(&v, argc, argv);
    int st = c->o.out ? profile_file_write(c->o.out, &c->profile, &v, e) : ST_OK;
    prov_release(&v);
    return st;
}
