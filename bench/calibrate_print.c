/* bench/calibrate_print.c - what a calibration found, as text and as JSON.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "base/units.h"
#include "bench/calibrate.h"

/* Of a constant: as shown, by how much its SI value is multiplied for that, and the SI unit. */
struct scale {
    const char *shown, *si;
    double scale;
};

static bool ends_in(const char *name, const char *end)
{
    size_t n = strlen(name), k = strlen(end);
    return n > k && strcmp(name + n - k, end) == 0;
}

static struct scale unit_of(enum profile_id id)
{
    static const char *const times[] = { ".t0", ".a", ".c", ".per_bh", ".floor", ".return" };
    const char *name = profile_param_name(id);
    bool time = strncmp(name, "host.", 5) == 0 || id == P_RANK_SKEW_S;
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) time |= ends_in(name, times[i]);
    if (time) return (struct scale){ "us", "s", 1e6 };
    if (ends_in(name, ".b")) return (struct scale){ "GB/s", "B/s", 1e-9 };
    if (ends_in(name, ".s0")) return (struct scale){ "B", "B", 1 };
    if (id == P_STAGE_TOK) return (struct scale){ "tok", "tok", 1 };
    if (id == P_PRE_X_TOK) return (struct scale){ "pairs/tok", "1/tok", 1 };
    if (id == P_STAGE_BESIDE) return (struct scale){ "of alone", "1", 1 };
    return (struct scale){ "", "1", 1 };
}

static void print_constant(enum profile_id id, double v, double sd, bool known, FILE *f)
{
    struct scale u = unit_of(id);
    fprintf(f, "    %-18s %11.4g %-9s  [%.4g, %.4g]%s\n", profile_param_name(id), u.scale * v,
            u.shown, u.scale * v * exp(-1.645 * sd), u.scale * v * exp(1.645 * sd),
            known ? "" : "  not identifiable from these points");
}

static void print_error(const char *what, const struct fit_error *x, FILE *f)
{
    if (isnan(x->mape))
        fprintf(f, "    %-9s none: too few sites\n", what);
    else
        fprintf(f,
                "    %-9s MAPE %5.2f %%, median %5.2f %%, p90 %5.2f %%, worst %5.2f %%, bias %+.2f "
                "%%\n",
                what, 100 * x->mape, 100 * x->median, 100 * x->p90, 100 * x->worst, 100 * x->bias);
}

/* Points of one sample have no spread of their own; steps of runs are many. */
static bool spread_is_known(const struct calibrate *c, const struct fit *t)
{
    if (t->law == LAW_STEP && c->n_run > 0) return true;
    for (int64_t i = 0; i < c->n_point; i++) {
        const struct calibrate_point *p = &c->point[i];
        bool its = p->laws >> t->law & 1 || (t->law == LAW_STEP && p->row.op == POINTS_STEP);
        if (p->used && its && p->n > 1) return true;
    }
    return false;
}

static void print_fit(const struct calibrate *c, const struct fit *t, FILE *f)
{
    bool typed = t->law == LAW_GEMM || t->law == LAW_DECODE || t->law == LAW_PREFILL;
    fprintf(f, "\n  %s%s%s", profile_law_name(t->law), typed ? " " : "",
            typed ? dtype_name((enum dtype)t->dtype) : "");
    if (t->ranks > 1) fprintf(f, " over %d ranks", t->ranks);
    fprintf(f, ": %lld point%s at %lld site%s, their own spread ", (long long)t->n_point,
            units_s(t->n_point), (long long)t->n_site, units_s(t->n_site));
    if (spread_is_known(c, t))
        fprintf(f, "%.2f %%\n", 100 * t->spread);
    else
        fputs("- (one sample each)\n", f);
    for (int j = 0; j < t->n_par; j++)
        print_constant(t->id[j], t->v[j], t->sd_log[j], t->known[j], f);
    print_error("held out", &t->held, f);
    print_error("in sample", &t->in, f);
    if (t->n_range) fputs("    covers    ", f);
    for (int j = 0; j < t->n_range; j++)
        fprintf(f, "%s%s %.6g .. %.6g", j ? ", " : "", profile_size_name(t->range[j].size),
                t->range[j].lo, t->range[j].hi);
    if (t->n_range) fputc('\n', f);
    if (*t->note) fprintf(f, "    note      %s\n", t->note);
}

static void print_lines(const char *text, FILE *f)
{
    while (*text) {
        size_t n = strcspn(text, "\n");
        fprintf(f, "  %.*s\n", (int)n, text);
        text += n + (text[n] == '\n');
    }
}

void calibrate_print(const struct calibrate *c, FILE *f)
{
    const struct profile_file *p = &c->profile;
    fprintf(f, "%s, %s\n", p->machine, p->date);
    if (!c->foreign.done && !c->limit_assumed)
        fprintf(f, "Efficiencies refer to %.4g GFLOP/s and %.4g GB/s a rank\n",
                1e-9 * c->limit_flop, 1e-9 * c->limit_mem);
    if (c->o.dry_run) fputs("Nothing fitted (--dry-run).\n", f);
    if (p->n_fit)
        fputs("\nLaws: constants with 90 % intervals; those without a unit are ratios\n", f);
    for (int i = 0; i < p->n_fit; i++) print_fit(c, &p->fit[i], f);
    if (p->n_extra) fputs("\nConstants over those of the catalog, with 90 % intervals\n", f);
    for (int i = 0; i < p->n_extra; i++)
        if (p->extra[i].v > 0 || p->extra[i].sd_log > 0)
            print_constant(p->extra[i].id, p->extra[i].v, p->extra[i].sd_log,
                           p->extra[i].sd_log < FIT_OPEN_SD, f);
        else
            fprintf(f, "    %-18s none: within the step of the engine that was measured\n",
                    profile_param_name(p->extra[i].id));
    if (c->foreign.done)
        fprintf(f,
                "  %lld request%s of %s; median error by the catalog, and now:\n"
                "    TPOT %.2f %% -> %.2f %%, TTFT %.2f %% -> %.2f %% (in sample)\n",
                (long long)c->foreign.n, units_s(c->foreign.n), c->foreign.scenario,
                100 * c->foreign.before[0], 100 * c->foreign.after[0], 100 * c->foreign.before[1],
                100 * c->foreign.after[1]);
    if (*c->warned) fputs("\nWARNING\n", f);
    print_lines(c->warned, f);
    for (int i = 0; i < c->n_file; i++) {
        const char *noise = calibrate_noise(c, &c->file[i]);
        if (noise) fprintf(f, "\nNOISY MACHINE: %s\n", noise);
    }
    fputs("\nUsed\n", f);
    print_lines(p->used ? p->used : "", f);
    if (!c->o.dry_run)
        fprintf(f, "\nprofile   %s\n", c->o.out ? c->o.out : "none written, for want of --out");
    if (c->profile.ops)
        fprintf(f,
                "tables    %d row%s of operators of %s under TP%d, taken instead of laws there\n",
                c->n_table_row, units_s(c->n_table_row), c->ops.model, c->ops.tp);
}

static json_t *error_json(const struct fit_error *x)
{
    json_t *j = json_object();
    json_put_f64(j, "mape", x->mape);
    json_put_f64(j, "median", x->median);
    json_put_f64(j, "p90", x->p90);
    json_put_f64(j, "worst", x->worst);
    json_put_f64(j, "bias", x->bias);
    return j;
}

static void put_constant(json_t *list, enum profile_id id, double v, double sd, bool known)
{
    json_t *k = json_object();
    json_put_text(k, "name", profile_param_name(id));
    json_put_text(k, "unit", unit_of(id).si);
    json_put_f64(k, "value", v);
    json_put_f64(k, "sd_log", sd);
    json_put_f64(k, "lo", v * exp(-1.645 * sd));
    json_put_f64(k, "hi", v * exp(1.645 * sd));
    json_put_bool(k, "known", known);
    json_array_append_new(list, k);
}

static json_t *fit_json(const struct calibrate *c, const struct fit *t)
{
    json_t *j = json_object(), *constants = json_array(), *range = json_object();
    json_put_text(j, "law", profile_law_name(t->law));
    json_put_text(j, "dtype", dtype_name((enum dtype)t->dtype));
    json_put_i64(j, "ranks", t->ranks);
    json_put_i64(j, "points", t->n_point);
    json_put_i64(j, "sites", t->n_site);
    json_put_i64(j, "outliers", t->n_outlier);
    json_put_f64(j, "spread", spread_is_known(c, t) ? t->spread : NAN);
    json_put_f64(j, "tau", t->tau);
    for (int k = 0; k < t->n_par; k++)
        put_constant(constants, t->id[k], t->v[k], t->sd_log[k], t->known[k]);
    json_put(j, "constants", constants);
    json_put(j, "held_out", error_json(&t->held));
    json_put(j, "in_sample", error_json(&t->in));
    for (int k = 0; k < t->n_range; k++) {
        const char *name = profile_size_name(t->range[k].size);
        json_t *ends = json_array();
        json_array_append_new(ends, json_real(t->range[k].lo));
        json_array_append_new(ends, json_real(t->range[k].hi));
        json_object_set_new(range, name, ends);
    }
    json_put(j, "covers", range);
    json_put_text(j, "note", t->note);
    return j;
}

static json_t *files_json(const struct calibrate *c)
{
    json_t *list = json_array();
    for (int i = 0; i < c->n_file; i++) {
        const struct calibrate_file *f = &c->file[i];
        int64_t used = 0;
        json_t *j = json_object();
        for (int64_t k = 0; k < c->n_point; k++) used += c->point[k].file == i && c->point[k].used;
        json_put_text(j, "path", f->path);
        json_put_text(j, "kind", f->is_run ? "run" : "points");
        json_put_text(j, "used", f->said);
        if (!f->is_run) {
            json_put_i64(j, "points", f->n_point);
            json_put_i64(j, "points_used", used);
            json_put_i64(j, "points_wrong", f->n_wrong);
            json_put_bool(j, "complete", !f->partial);
            json_put_i64(j, "samples", f->n_sample);
            json_put_i64(j, "samples_noisy_left_out", f->n_noisy);
            json_put_i64(j, "samples_noisy_kept", f->n_kept_noisy);
        } else {
            json_put_bool(j, "disturbed", f->disturbed);
        }
        json_array_append_new(list, j);
    }
    return list;
}

json_t *calibrate_json(const struct calibrate *c)
{
    const struct profile_file *p = &c->profile;
    json_t *j = json_object(), *laws = json_array(), *extra = json_array();
    json_put_text(j, "machine", p->machine);
    json_put_text(j, "date", p->date);
    json_put_text(j, "engine", p->engine);
    json_put_i64(j, "threads", p->threads);
    json_put_i64(j, "ranks", c->ranks);
    for (int i = 0; i < p->n_fit; i++) json_array_append_new(laws, fit_json(c, &p->fit[i]));
    json_put(j, "laws", laws);
    for (int i = 0; i < p->n_extra; i++)
        put_constant(extra, p->extra[i].id, p->extra[i].v, p->extra[i].sd_log,
                     p->extra[i].sd_log < FIT_OPEN_SD);
    json_put(j, "constants", extra);
    if (c->foreign.done) {
        json_put_i64(j, "requests", c->foreign.n);
        json_put_f64(j, "median_error.tpot.before", c->foreign.before[0]);
        json_put_f64(j, "median_error.tpot.after", c->foreign.after[0]);
        json_put_f64(j, "median_error.ttft.before", c->foreign.before[1]);
        json_put_f64(j, "median_error.ttft.after", c->foreign.after[1]);
    }
    json_put(j, "files", files_json(c));
    json_put_text(j, "notes", c->skipped);
    json_put_text(j, "warnings", c->warned);
    json_put_text(j, "noise", p->noise ? p->noise : "");
    json_put_text(j, "profile", c->o.dry_run ? NULL : c->o.out);
    json_put_i64(j, "table_rows", c->n_table_row);
    return j;
}
