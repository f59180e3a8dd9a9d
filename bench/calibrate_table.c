/* bench/calibrate_table.c - the times of single operators as tables that the simulator takes instead
 * of laws. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/stat.h"
#include "base/units.h"
#include "bench/calibrate.h"

/* Operators of the list of model/ops.h, and which points are theirs. Attention goes by law, which
 * depends on more than a count of tokens; so do messages of points that were not measured inside
 * the engine. There, waiting for the other rank is part of an all-reduce. */
static const struct table_op {
    const char *name;
    int op, part;
    bool by_seq;
} table_ops[] = { { "embedding", POINTS_ELT, POINTS_EMBED, false },
                  { "layernorm", POINTS_ELT, POINTS_NORM, false },
                  { "qkv_proj", POINTS_GEMM, POINTS_QKV, false },
                  { "rotary_emb", POINTS_ELT, POINTS_ROPE, false },
                  { "kv_write", POINTS_ELT, POINTS_KV_PUT, false },
                  { "o_proj", POINTS_GEMM, POINTS_OUT, false },
                  { "gate_up_proj", POINTS_GEMM, POINTS_GATE_UP, false },
                  { "act_fn", POINTS_ELT, POINTS_ACT, false },
                  { "down_proj", POINTS_GEMM, POINTS_DOWN, false },
                  { "embed_allreduce", POINTS_ALLREDUCE, POINTS_NO_PART, false },
                  { "attn_allreduce", POINTS_ALLREDUCE, POINTS_NO_PART, false },
                  { "mlp_allreduce", POINTS_ALLREDUCE, POINTS_NO_PART, false },
                  { "lm_head", POINTS_GEMM, POINTS_HEAD, true },
                  { "logits_gather", POINTS_ALLGATHER, POINTS_NO_PART, true },
                  { "sampler", POINTS_SAMPLE, POINTS_NO_PART, true } };
enum { N_TABLE_OP = sizeof table_ops / sizeof *table_ops, LEAST_ROWS = 2 };

static int by_size(const void *a, const void *b)
{
    const struct calibrate_row *x = a, *y = b;
    return x->m != y->m ? (x->m < y->m ? -1 : 1) : x->s < y->s ? -1 : x->s > y->s;
}

/* Of several times for one m their median. More rows take no less time to compute: where a larger m
 * was measured faster, both are noise about a curve that rises. */
static int64_t reduce(struct calibrate_row *x, int64_t n, bool waits)
{
    double *log_s = mem_alloc((2 * (size_t)n + 1) * sizeof *log_s), *weight = log_s + n;
    int64_t kept = 0;
    qsort(x, (size_t)n, sizeof *x, by_size);
    for (int64_t i = 0, k; i < n; i = k) {
        for (k = i; k < n && x[k].m == x[i].m; k++) continue;
        log_s[kept] = log(0.5 * (x[(i + k) / 2].s + x[(i + k - 1) / 2].s));
        weight[kept] = (double)(k - i);
        x[kept++] = x[i];
    }
    if (!waits) stat_rising(log_s, weight, (size_t)kept);
    for (int64_t i = 0; i < kept; i++) x[i].s = exp(log_s[i]);
    free(log_s);
    return kept;
}

/* Ranks of the sums of the points' model. */
static int origin_tp(const struct calibrate *c)
{
    for (int i = 0; i < c->n_file; i++)
        if (!c->file[i].is_run && c->file[i].tp > 0) return c->file[i].tp;
    return 1;
}

int64_t calibrate_collect(const struct calibrate *c, const char *name, struct calibrate_row *x,
                          bool *mixed)
{
    const struct table_op *t = table_ops;
    int64_t n = 0;
    while (strcmp(t->name, name) != 0) t++;
    bool message = t->op == POINTS_ALLREDUCE || t->op == POINTS_ALLGATHER, fused = *c->gpu.name;
    *mixed = false;
    for (int64_t i = 0; i < c->n_point; i++) {
        const struct calibrate_point *p = &c->point[i];
        if (!p->used || p->row.op != t->op || p->row.part != t->part || p->row.m < 1) continue;
        double s = p->s;
        if (message && (p->row.seqs < 1 || p->row.ranks != origin_tp(c))) continue;
        if (t->op == POINTS_ELT && t->part == POINTS_NORM) {
            double add = calibrate_beside(c, p, POINTS_ADD);
            /* a norm of heads, or of the rows that get logits; or the addition is in it */
            if (add <= 0 && !fused) continue;
            s += add;
        }
        *mixed |= n > 0 && (x[0].n != p->row.n || x[0].k != p->row.k);
        x[n++] = (struct calibrate_row){ p->row.m, p->row.n, p->row.k, s };
    }
    return reduce(x, n, message);
}

/* How far each inner row is from the line between its neighbours: the error of a table between its
 * rows, at twice their distance. */
static void held_out(const struct calibrate_row *x, int64_t n, double *median, double *worst)
{
    double *d = mem_alloc(((size_t)n + 1) * sizeof *d);
    size_t k = 0;
    for (int64_t i = 1; i + 1 < n; i++) {
        double w = (double)(x[i].m - x[i - 1].m) / (double)(x[i + 1].m - x[i - 1].m);
        d[k++] = fabs((x[i - 1].s + w * (x[i + 1].s - x[i - 1].s)) / x[i].s - 1);
    }
    stat_sort(d, k);
    *median = stat_quantile_sorted(d, k, 0.5);
    *worst = k > 0 ? d[k - 1] : NAN;
    free(d);
}

/* The CSV of one kind; NULL: no operator has rows, or widths are mixed. */
static const char *csv(struct calibrate *c, bool by_seq)
{
    struct calibrate_row *x = mem_alloc(((size_t)c->n_point + 1) * sizeof *x);
    const char *text = arena_printf(c->a, "layer,%s,time_us\n", by_seq ? "sequences" : "tokens");
    int rows = 0;
    for (int i = 0; i < N_TABLE_OP; i++) {
        const struct table_op *t = &table_ops[i];
        bool mixed;
        double median, worst;
        if (t->by_seq != by_seq) continue;
        int64_t n = calibrate_collect(c, t->name, x, &mixed);
        if (mixed) {
            calibrate_note(c,
                           "no tables: points of %s have several widths, so they are of several "
                           "models or degrees",
                           t->name);
            rows = 0;
            break;
        }
        if (n < LEAST_ROWS) continue;
        held_out(x, n, &median, &worst);
        for (int64_t k = 0; k < n; k++)
            text = arena_printf(c->a, "%s%s,%lld,%.9g\n", text, t->name, (long long)x[k].m,
                                1e6 * x[k].s);
        const char *off = "none has neighbours to tell its error by"; /* of two rows */
        if (isfinite(median))
            off = arena_printf(c->a, "a row from its neighbours: median %.2f %%, worst %.2f %% off",
                               100 * median, 100 * worst);
        calibrate_note(c, "table of %s: %lld row%s, %lld .. %lld %s; %s", t->name, (long long)n,
                       units_s(n), (long long)x[0].m, (long long)x[n - 1].m,
                       by_seq ? "sequences" : "tokens", off);
        rows += (int)n;
    }
    free(x);
    c->n_table_row += rows;
    return rows > 0 ? text : NULL;
}

/* The file that names the model of the products timed inside an engine. */
static const struct calibrate_file *origin(const struct calibrate *c, int *dtype)
{
    for (int64_t i = 0; i < c->n_point; i++) {
        const struct calibrate_point *p = &c->point[i];
        if (!p->used || p->row.op != POINTS_GEMM || p->row.part == POINTS_NO_PART ||
            p->row.part == POINTS_HEAD)
            continue;
        *dtype = (int)calibrate_dtype(p->row.dtype);
        return &c->file[p->file];
    }
    return NULL;
}

int calibrate_tables(struct calibrate *c, struct err *e)
{
    struct arch arch;
    struct profile_ops *o = &c->ops;
    const struct calibrate_file *f = origin(c, &o->weight_dtype);
    struct deploy_request q = { .model = c->o.model };
    if (!f) return ST_OK;
    if (!q.model && *f->model) q.model = f->model;
    if (!q.model) {
        calibrate_note(c, "no tables: the points do not name their model (--model)");
        return ST_OK;
    }
    int st = deploy_model(&q, c->a, &arch, e);
    if (st != ST_OK) return st;
    o->model = q.model;
    o->shape = profile_file_shape(&arch, c->a);
    o->tp = c->o.tp > 0 ? (int)c->o.tp : f->tp > 0 ? f->tp : c->ranks;
    o->dense = csv(c, false);
    o->per_sequence = o->dense ? csv(c, true) : NULL;
    if (!o->dense || !o->per_sequence) {
        c->n_table_row = 0;
        return ST_OK;
    }
    st = table_parse("tables", o->dense, o->per_sequence, c->a, &o->table, e);
    if (st == ST_OK) c->profile.ops = o;
    return st;
}
