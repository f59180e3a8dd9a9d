/* bench/replay.c - the requests of a measured run, simulated at their own instants, and how far off.
 * SPDX-License-Identifier: Apache-2.0 */
#include "bench/replay.h"

#include <math.h>
#include <stdlib.h>

#include "base/stat.h"
#include "sim/sim.h"

enum { FEW_REQUESTS = 40 };
const enum profile_id replay_moved[REPLAY_N_PAR] = { P_HOST_STEP_S, P_HOST_REQ_S, P_LAW };

static int by_request(const void *a, const void *b)
{
    const struct replay_request *x = a, *y = b;
    if (x->due_ns != y->due_ns) return x->due_ns < y->due_ns ? -1 : 1;
    if (x->n_in != y->n_in) return x->n_in < y->n_in ? -1 : 1;
    if (x->n_out != y->n_out) return x->n_out < y->n_out ? -1 : 1;
    return x->ttft_s < y->ttft_s ? -1 : x->ttft_s > y->ttft_s;
}

static struct replay_request request_of(double due, double first, double last, double n_in,
                                        double n_out)
{
    struct replay_request q = { (int64_t)due, n_in, n_out, NAN, 1e-9 * (first - due) };
    if (n_out >= 2 && last > first) q.tpot_s = 1e-9 * (last - first) / (n_out - 1);
    if (!(q.ttft_s > 0)) q.ttft_s = NAN;
    return q;
}

static void on_request(void *ctx, const struct run_request *r)
{
    struct replay *k = ctx;
    if (r->status == RUN_OK && k->n_sim < k->n)
        k->simulated[k->n_sim++] =
            request_of((double)r->t_due_ns, (double)r->t_first_ns, (double)r->t_last_ns,
                       (double)r->n_in, (double)r->n_out);
}

int replay_run(struct replay *k, const double *log_v)
{
    struct arena a;
    struct metrics m;
    struct step *step;
    if (k->e.status) return k->e.status;
    const struct scenario *s = k->s;
    struct profile p = k->d->profile;
    struct sim_sink sink = { .ctx = k, .request = on_request };
    struct sim_setup u = { .deploy = k->d,
                           .sched = &s->policy,
                           .router = s->sim.router,
                           .p2p = s->sim.p2p,
                           .fast = true,
                           .bin_ns = s->o.bin_ns,
                           .sink = &sink };
    for (int j = 0; j < REPLAY_N_PAR; j++) p.p[replay_moved[j]].v = exp(log_v[j]);
    k->n_sim = 0;
    arena_init(&a);
    metrics_init(&m);
    int st = deploy_step(k->d, &p, &a, &step, &k->e);
    u.step = step;
    if (st == ST_OK) st = trace_from_rows(k->row, k->n, &u.trace, &k->e);
    if (st == ST_OK) {
        st = sim_run(&u, &a, &m, &k->e);
        trace_close(u.trace);
    }
    if (st == ST_OK && m.stopped) st = err_set(&k->e, ST_STOPPED, "interrupted");
    metrics_release(&m);
    arena_release(&a);
    qsort(k->simulated, (size_t)k->n_sim, sizeof *k->simulated, by_request);
    if (st == ST_OK && k->n_sim != k->n)
        st = err_set(&k->e, ST_USAGE,
                     "the scenario ends %lld of the %lld requests that the run ended: it is not "
                     "what was measured",
                     (long long)k->n_sim, (long long)k->n);
    return st;
}

/* ln(simulated / measured) of one request: kind 0 per output token, 1 to the first. */
static double ratio(const struct replay *k, int64_t i, int kind)
{
    const struct replay_request *x = k->simulated + i, *y = k->measured + i;
    return kind ? log(x->ttft_s / y->ttft_s) : log(x->tpot_s / y->tpot_s);
}

static void group_mean(const struct replay *k, int g, int kind, double *mean, double *se)
{
    int64_t from = g * k->n / REPLAY_GROUPS, to = (g + 1) * k->n / REPLAY_GROUPS;
    double *x = mem_alloc((size_t)(to - from + 1) * sizeof *x);
    size_t n = 0;
    for (int64_t i = from; i < to; i++) {
        double r = ratio(k, i, kind);
        if (isfinite(r)) x[n++] = fmax(-5, fmin(5, r));
    }
    *mean = n > 0 ? stat_mean(x, n) : 0;
    *se = n > 1 ? fmax(2e-3, stat_sd(x, n) / sqrt((double)n)) : 1e3;
    free(x);
}

void replay_weigh(struct replay *k)
{
    double mean;
    for (int g = 0; g < REPLAY_N_OFF; g++)
        group_mean(k, g % REPLAY_GROUPS, g / REPLAY_GROUPS, &mean, &k->sd[g]);
}

void replay_off(const struct replay *k, double off[REPLAY_N_OFF])
{
    double se;
    for (int g = 0; g < REPLAY_N_OFF; g++) {
        group_mean(k, g % REPLAY_GROUPS, g / REPLAY_GROUPS, &off[g], &se);
        off[g] /= k->sd[g];
    }
}

/* Of n values, which it sorts; NAN of none. */
static double median(double *x, size_t n)
{
    stat_sort(x, n);
    return n > 0 ? stat_quantile_sorted(x, n, 0.5) : NAN;
}

double replay_median_error(const struct replay *k, int kind)
{
    double *x = mem_alloc((size_t)k->n * sizeof *x);
    size_t n = 0;
    for (int64_t i = 0; i < k->n; i++) {
        double r = ratio(k, i, kind);
        if (isfinite(r)) x[n++] = fabs(exp(r) - 1);
    }
    double mid = median(x, n);
    free(x);
    return mid;
}

double replay_step_s(const struct replay *k)
{
    double *x = mem_alloc((size_t)k->n * sizeof *x);
    size_t n = 0;
    for (int64_t i = 0; i < k->n; i++)
        if (isfinite(k->measured[i].tpot_s)) x[n++] = k->measured[i].tpot_s;
    double mid = median(x, n);
    free(x);
    return mid;
}

int replay_read(struct replay *k, struct run_file *r, const char *path, size_t *n_all,
                struct err *e)
{
    static const char *const names[] = { "requests/t_due", "requests/t_first", "requests/t_last",
                                         "requests/n_in",  "requests/n_out",   "requests/status" };
    double *col[6];
    size_t n = 0;
    for (int i = 0; i < 6; i++) {
        size_t rows;
        int st = run_column(r, names[i], k->a, &col[i], &rows, e);
        if (st != ST_OK) return st;
        if (i > 0 && rows != n)
            return err_set(e, ST_USAGE, "%s: columns of /requests differ in length", path);
        n = rows;
    }
    k->row = arena_array(k->a, n + 1, sizeof *k->row);
    k->measured = arena_array(k->a, n + 1, sizeof *k->measured);
    k->simulated = arena_array(k->a, n + 1, sizeof *k->simulated);
    for (size_t i = 0; i < n; i++) {
        bool sound = col[5][i] == RUN_OK && col[1][i] > 0 && col[2][i] >= col[1][i] &&
                     col[3][i] >= 1 && col[3][i] < 1e9 && col[4][i] >= 1 && col[4][i] < 1e9 &&
                     col[0][i] >= 0;
        if (sound)
            k->measured[k->n++] = request_of(col[0][i], col[1][i], col[2][i], col[3][i], col[4][i]);
    }
    qsort(k->measured, (size_t)k->n, sizeof *k->measured, by_request);
    for (int64_t i = 0; i < k->n; i++)
        k->row[i] = (struct trace_req){ .id = i,
                                        .t_due_ns = k->measured[i].due_ns,
                                        .n_in = (int32_t)k->measured[i].n_in,
                                        .n_out = (int32_t)k->measured[i].n_out,
                                        .session = -1 };
    *n_all = n;
    if (k->n < FEW_REQUESTS)
        return err_set(e, ST_USAGE, "%s: %lld finished requests are too few, at least %d", path,
                       (long long)k->n, FEW_REQUESTS);
    if (k->measured[0].due_ns == k->measured[k->n - 1].due_ns && !isfinite(k->measured[0].tpot_s))
        return err_set(e, ST_USAGE, "%s: its requests have no instants", path);
    return ST_OK;
}
