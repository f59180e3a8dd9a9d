/* bench/serving_print.c - a measured run as text, as JSON, and the monitor's part of its run file.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>
#include <sys/resource.h>

#include "base/json.h"
#include "base/units.h"
#include "bench/serving.h"
#include "engine/comm_sum.h"

enum { N_TEXT = 40 };

static double percent(double share)
{
    return isnan(share) ? 0 : 100 * share;
}

static double peak_bytes(void)
{
    struct rusage u;
    return getrusage(RUSAGE_SELF, &u) == 0 ? 1024.0 * (double)u.ru_maxrss : NAN;
}

static struct print_in parts(const struct serving *v)
{
    return (struct print_in){ .s = v->s,
                              .d = &v->d,
                              .o = &v->outcome,
                              .wall_s = v->wall_s,
                              .peak_bytes = peak_bytes(),
                              .out_path = v->o.out,
                              .line = v->line,
                              .ended_early = v->failed != ST_OK ? v->failure.text : NULL };
}

static void print_capacity(const struct serving *v, FILE *f)
{
    char w[N_TEXT], k[N_TEXT], r[N_TEXT], t[N_TEXT];
    fprintf(f,
            "capacity    weights %s (%s %s in %s), %d KV block%s of %d tokens%s (%lld tokens, %s); "
            "%s kernels\n",
            units_cell(UNIT_BYTES, (double)v->weight_bytes, w, N_TEXT),
            v->eo.random ? "drawn" : "read",
            units_cell(UNIT_BYTES, (double)v->read_bytes, r, N_TEXT),
            units_cell(UNIT_TIME, v->load_s, t, N_TEXT), v->eo.m.n_block, units_s(v->eo.m.n_block),
            v->eo.m.block_tok, v->n_replica > 1 ? " a replica" : "",
            (long long)v->eo.m.n_block * v->eo.m.block_tok,
            units_cell(UNIT_BYTES, (double)v->kv_bytes / v->n_replica, k, N_TEXT),
            engine_kernels(v->engine[0]));
    if (v->s->o.hardware)
        fprintf(f, "            hardware: %s is for simulate and not used here\n",
                v->s->o.hardware);
}

static void print_replicas(const struct serving *v, FILE *f)
{
    if (v->n_replica == 1) return;
    fprintf(f,
            "replicas    requests  finished  output tokens     steps  KV peak  preempted  prefix "
            "cache   (%s)\n",
            (const char *[]){ "round_robin", "least_loaded", "prefix" }[v->s->sim.router]);
    for (int i = 0; i < v->n_replica; i++) {
        const struct run_replica *p = &v->result.part[i];
        if (i == 8 && v->n_replica > 12) {
            fprintf(f, "  ...    %d more replicas\n", v->n_replica - 8);
            break;
        }
        fprintf(f, "  %5d     %8lld  %8lld  %13lld  %8lld  %5.1f %%  %9lld       %5.1f %%\n", i,
                (long long)p->due, (long long)p->finished, (long long)p->out_tok,
                (long long)p->steps, 100 * (double)p->kv_peak_blocks / v->eo.m.n_block,
                (long long)p->preempted,
                p->asked_tok ? 100 * (double)p->hit_tok / (double)p->asked_tok : 0);
    }
}

static void print_ranks(const struct serving *v, FILE *f)
{
    const struct monitor *m = &v->monitor;
    fprintf(f, "ranks        stage  layers   compute      comm      wait      host   of the rank's "
               "time in steps\n");
    for (int i = 0; i < m->n_rank; i++) {
        const struct monitor_rank *r = &m->rank[i];
        double all = (double)(r->compute_ns + r->comm_ns + r->wait_ns + r->host_ns) / 100;
        int stage = i % (v->eo.tp * v->eo.pp) / v->eo.tp;
        if (i == 8 && m->n_rank > 12) {
            fprintf(f, "  ...    %d more ranks\n", m->n_rank - 8);
            break;
        }
        if (r->steps == 0) {
            fprintf(f, "  %5d      %5d  %6d   %s\n", i, stage, v->d.stage[stage].step.n_layer,
                    v->eo.mpi ? "not seen from here (another process)" : "no steps");
            continue;
        }
        fprintf(f, "  %5d      %5d  %6d   %5.1f %%   %5.1f %%   %5.1f %%   %5.1f %%\n", i, stage,
                v->d.stage[stage].step.n_layer, (double)r->compute_ns / all,
                (double)r->comm_ns / all, (double)r->wait_ns / all, (double)r->host_ns / all);
    }
}

static void sum_calls(const struct serving *v, struct comm_sum *s)
{
    *s = (struct comm_sum){ 0 };
    for (int i = 0; i < v->n_replica; i++) comm_sum_add(s, v->engine[i]);
}

static const char *anomaly_cell(enum monitor_kind k, double value, char *buf)
{
    if (k == MONITOR_COMM) return units_cell(UNIT_TIME, value, buf, N_TEXT);
    snprintf(buf, N_TEXT, "%.3g", value);
    return buf;
}

static void print_anomalies(const struct monitor *m, FILE *f)
{
    char worst[N_TEXT], limit[N_TEXT];
    int n = 0;
    fprintf(f, "anomalies   ");
    for (int i = 0; i < MONITOR_N_KIND; i++) {
        enum monitor_kind k = (enum monitor_kind)i;
        const struct monitor_seen *s = &m->seen[k];
        if (!s->windows) continue;
        fprintf(f, "%s%s in %lld of %lld window%s, worst %s", n++ ? "; " : "", monitor_kind_name(k),
                (long long)s->windows, (long long)m->windows, units_s(m->windows),
                anomaly_cell(k, s->worst, worst));
        if (s->rank >= 0) fprintf(f, " (rank %d)", s->rank);
        fprintf(f, ", limit %s", anomaly_cell(k, monitor_limit(m, k), limit));
    }
    fprintf(f, n ? "\n" : "none\n");
}

static void print_monitor(const struct serving *v, FILE *f)
{
    const struct monitor *m = &v->monitor;
    char a[N_TEXT], b[N_TEXT], c[N_TEXT];
    struct comm_sum calls;
    print_replicas(v, f);
    print_ranks(v, f);
    sum_calls(v, &calls);
    comm_sum_print(&calls, f);
    fprintf(f,
            "monitor     %lld step%s of %s; scheduling and bookkeeping %.2f %%, sampling %.2f %%; "
            "queue %.1f on average, %lld at most\n",
            (long long)m->steps, units_s(m->steps),
            units_cell(UNIT_TIME, monitor_step_s(m), a, N_TEXT), percent(monitor_schedule_share(m)),
            percent(monitor_sample_share(m)), monitor_queue_mean(m), (long long)m->queue_max);
    fprintf(f, "            ");
    if (m->allreduce_calls)
        fprintf(f, "all-reduce %s (worst step %s); ",
                units_cell(UNIT_TIME, monitor_allreduce_s(m), b, N_TEXT),
                units_cell(UNIT_TIME, 1e-9 * (double)m->allreduce_max_ns, c, N_TEXT));
    if (v->eo.tp * v->eo.pp > 1 && !isnan(monitor_overlap(m)))
        fprintf(f, "communication overlapped %.0f %%; ", percent(monitor_overlap(m)));
    if (m->n_rank > 1 && !isnan(monitor_balance(m)))
        fprintf(f, "balance of ranks %.2f; ", monitor_balance(m));
    fprintf(f, "KV blocks filled %.0f %%\n", percent(monitor_kv_efficiency(m)));
    print_anomalies(m, f);
}

void serving_print(const struct serving *v, FILE *f)
{
    const struct metrics *m = &v->outcome.first;
    struct print_in in = parts(v);
    char wall[N_TEXT], peak[N_TEXT];
    if (v->s->o.title) fprintf(f, "question    %s\n", v->s->o.title);
    fprintf(f, "measured    %s\n            %s\n", v->line, v->outcome.workload);
    print_capacity(v, f);
    if (in.ended_early)
        fprintf(f,
                "ended early %s\n            the figures are of the %lld request%s that had "
                "finished, of %lld due by then\n",
                in.ended_early, (long long)m->finished, units_s(m->finished), (long long)m->due);
    if (m->kept > 0)
        print_results(&in, f);
    else
        fprintf(f, "results     none: no request was due after the warm-up (sim.warmup)\n");
    print_monitor(v, f);
    fprintf(f,
            "requests    %lld due = %lld finished + %lld unfinished + %lld rejected%s%s%s; "
            "Little's law holds to %.1e; digest of tokens %016llx\n",
            (long long)m->due, (long long)m->finished, (long long)m->failed, (long long)m->rejected,
            m->rejected ? " (" : "", m->rejected ? m->why_rejected : "", m->rejected ? ")" : "",
            metrics_little_error(m), (unsigned long long)m->digest);
    if (v->s->workload.turns > 1)
        fprintf(f,
                "            which turns are among the requests depends on timing: compare "
                "/tokens%s, not digests\n",
                v->o.tokens ? "" : " (--tokens)");
    if (v->result.n_early)
        fprintf(f,
                "            %lld turn%s due before the answer they repeat: drawn tokens in its "
                "place, nothing shared\n",
                (long long)v->result.n_early, v->result.n_early == 1 ? " was" : "s were");
    fprintf(f, "run         served for %s, %s of memory\n",
            units_human(UNIT_TIME, v->wall_s, wall, N_TEXT),
            units_cell(UNIT_BYTES, in.peak_bytes, peak, N_TEXT));
    noise_print(&v->quiet, f);
    if (v->o.out) fprintf(f, "written     %s\n", v->o.out);
}

/* ---- JSON */

static void put_ranks(json_t *j, const struct monitor *m)
{
    json_t *list = json_array();
    for (int i = 0; i < m->n_rank; i++) {
        const struct monitor_rank *r = &m->rank[i];
        json_t *o = json_object();
        json_put_i64(o, "stage", i / m->u.tp);
        json_put_i64(o, "steps", r->steps);
        json_put_f64(o, "compute_s", 1e-9 * (double)r->compute_ns);
        json_put_f64(o, "comm_s", 1e-9 * (double)r->comm_ns);
        json_put_f64(o, "wait_s", 1e-9 * (double)r->wait_ns);
        json_put_f64(o, "host_s", 1e-9 * (double)r->host_ns);
        bool op = r->steps > 0 && r->op_steps == r->steps;
        json_put_f64(o, "gemm_s", op ? 1e-9 * (double)r->gemm_ns : NAN);
        json_put_f64(o, "attention_s", op ? 1e-9 * (double)r->attn_ns : NAN);
        json_array_append_new(list, o);
    }
    json_put(j, "ranks", list);
}

static void put_anomalies(json_t *j, const struct monitor *m)
{
    static const char *const key[] = { "high_communication_latency", "load_imbalance", "straggler",
                                       "memory_pressure" };
    json_t *list = json_array();
    for (int k = 0; k < MONITOR_N_KIND; k++) {
        if (!m->seen[k].windows) continue;
        json_t *o = json_object();
        json_put_text(o, "kind", key[k]);
        json_put_i64(o, "windows", m->seen[k].windows);
        json_put_f64(o, "worst", m->seen[k].worst);
        json_put_f64(o, "limit", monitor_limit(m, (enum monitor_kind)k));
        json_put_i64(o, "rank", m->seen[k].rank);
        json_array_append_new(list, o);
    }
    json_put(j, "anomalies", list);
}

static void put_replicas(json_t *j, const struct serving *v)
{
    json_t *list = json_array();
    for (int i = 0; i < v->n_replica; i++) {
        const struct run_replica *p = &v->result.part[i];
        json_t *o = json_object();
        json_put_i64(o, "due", p->due);
        json_put_i64(o, "finished", p->finished);
        json_put_i64(o, "rejected", p->rejected);
        json_put_i64(o, "unfinished", p->unfinished);
        json_put_i64(o, "steps", p->steps);
        json_put_i64(o, "in_tok", p->in_tok);
        json_put_i64(o, "out_tok", p->out_tok);
        json_put_i64(o, "preemptions", p->preempted);
        json_put_i64(o, "recomputed_tok", p->recomputed_tok);
        json_put_i64(o, "hit_tok", p->hit_tok);
        json_put_i64(o, "asked_tok", p->asked_tok);
        json_put_i64(o, "kv_peak_blocks", p->kv_peak_blocks);
        json_array_append_new(list, o);
    }
    json_put(j, "replicas", list);
}

json_t *serving_json(const struct serving *v)
{
    const struct monitor *m = &v->monitor;
    struct print_in in = parts(v);
    struct comm_sum calls;
    json_t *j = json_object();
    sum_calls(v, &calls);
    json_put_text(j, "kind", "measured");
    print_results_json(&in, j);
    json_put_i64(j, "requests.early_turns", v->result.n_early);
    json_put_text(j, "engine.kernels", engine_kernels(v->engine[0]));
    json_put_i64(j, "engine.threads", v->eo.threads);
    json_put_bool(j, "engine.random_weights", v->eo.random);
    json_put_f64(j, "engine.load_s", v->load_s);
    json_put_i64(j, "engine.read_bytes", v->read_bytes);
    json_put_i64(j, "engine.weight_bytes", v->weight_bytes);
    json_put_i64(j, "engine.kv_bytes", v->kv_bytes);
    json_put_i64(j, "monitor.steps", m->steps);
    json_put_f64(j, "monitor.step_s", monitor_step_s(m));
    json_put_f64(j, "monitor.schedule_ratio", monitor_schedule_share(m));
    json_put_f64(j, "monitor.sample_ratio", monitor_sample_share(m));
    json_put_f64(j, "monitor.allreduce_s", monitor_allreduce_s(m));
    json_put_f64(j, "monitor.overlap_ratio", monitor_overlap(m));
    json_put_f64(j, "monitor.balance_ratio", monitor_balance(m));
    json_put_f64(j, "monitor.kv_efficiency_ratio", monitor_kv_efficiency(m));
    json_put_f64(j, "monitor.queue_mean", monitor_queue_mean(m));
    json_put_i64(j, "monitor.queue_max", m->queue_max);
    put_replicas(j, v);
    put_ranks(j, m);
    put_anomalies(j, m);
    json_put(j, "comm", comm_sum_json(&calls));
    noise_json(&v->quiet, j);
    json_put_f64(j, "wall.serve_s", v->wall_s);
    json_put_f64(j, "wall.peak_memory_bytes", in.peak_bytes);
    if (in.out_path) json_put_text(j, "run_file", in.out_path);
    return j;
}

/* ---- the run file */

static void store_calls(struct serving *v, struct err *e)
{
    int ranks = v->eo.tp * v->eo.pp;
    for (int i = 0; i < v->n_replica * ranks && !e->status; i++) {
        struct engine_rank_report r;
        engine_report(v->engine[i / ranks], i % ranks, &r);
        const struct comm_count *count[COMM_SUM_N] = { r.world, r.tp };
        for (int k = 0; k < COMM_SUM_N * COMM_N_CALL && !e->status; k++) {
            const struct comm_count *c = &count[k / COMM_N_CALL][k % COMM_N_CALL];
            struct run_comm row = { .rank = i,
                                    .group = (uint8_t)(k / COMM_N_CALL),
                                    .call = (uint8_t)(k % COMM_N_CALL),
                                    .calls = c->calls,
                                    .bytes = c->bytes,
                                    .ns = c->ns,
                                    .max_ns = c->max_ns };
            if (c->calls > 0) run_put_comm(v->store.run, &row, e);
        }
    }
}

/* Sums over all steps; /monitor has every n-th step of a long run. */
static void store_ranks(struct serving *v, struct err *e)
{
    static const char *const name[] = { "compute", "comm", "wait", "host", "gemm", "attention" };
    const struct monitor *m = &v->monitor;
    const char *dim = "rank", *one = "1";
    size_t n = (size_t)m->n_rank;
    double *index = arena_array(v->s->arena, n, sizeof *index);
    double *x = arena_array(v->s->arena, n, sizeof *x);
    const double *scale = index;
    for (int k = 0; k < 6 && n > 0 && !e->status; k++) {
        for (size_t i = 0; i < n; i++) {
            const struct monitor_rank *r = &m->rank[i];
            const int64_t ns[] = { r->compute_ns, r->comm_ns, r->wait_ns,
                                   r->host_ns,    r->gemm_ns, r->attn_ns };
            bool seen = k < 4 ? r->steps > 0 : r->steps > 0 && r->op_steps == r->steps;
            index[i] = (double)i;
            x[i] = seen ? (double)ns[k] : NAN; /* not seen: of another process */
        }
        h5_array(run_h5(v->store.run), arena_printf(v->s->arena, "/summary/rank_%s", name[k]), 1,
                 &n, &dim, &scale, &one, x, "ns", "time of each rank over all steps, as /monitor",
                 e);
    }
}

void serving_store(struct serving *v)
{
    const struct monitor *m = &v->monitor;
    struct err *e = &v->store.e;
    h5 *f = run_h5(v->store.run);
    const struct {
        const char *name;
        double v;
    } real[] = { { "engine_load_s", v->load_s },
                 { "monitor_step_s", monitor_step_s(m) },
                 { "monitor_schedule_share", monitor_schedule_share(m) },
                 { "monitor_sample_share", monitor_sample_share(m) },
                 { "monitor_allreduce_s", monitor_allreduce_s(m) },
                 { "monitor_overlap", monitor_overlap(m) },
                 { "monitor_balance", monitor_balance(m) },
                 { "monitor_kv_efficiency", monitor_kv_efficiency(m) },
                 { "monitor_queue_mean", monitor_queue_mean(m) } };
    const struct {
        const char *name;
        int64_t v;
    } whole[] = {
        { "engine_threads", v->eo.threads },    { "engine_random_weights", v->eo.random },
        { "engine_read_bytes", v->read_bytes }, { "engine_weight_bytes", v->weight_bytes },
        { "engine_kv_bytes", v->kv_bytes },     { "early_turns", v->result.n_early },
        { "monitor_steps", m->steps },          { "monitor_queue_max", m->queue_max },
        { "monitor_windows", m->windows }
    };
    if (!e->status && !h5_has(f, "/summary"))
        h5_group(f, "/summary", "estimates with their intervals", e);
    for (size_t i = 0; i < sizeof real / sizeof *real && !e->status; i++)
        h5_attr_f64(f, "/summary", real[i].name, real[i].v, e);
    for (size_t i = 0; i < sizeof whole / sizeof *whole && !e->status; i++)
        h5_attr_i64(f, "/summary", whole[i].name, whole[i].v, e);
    if (!e->status) noise_store(&v->quiet, f, "/summary", e);
    if (!e->status) store_ranks(v, e);
    if (!e->status) store_calls(v, e);
    if (!e->status) h5_attr_text(f, "/summary", "engine_kernels", engine_kernels(v->engine[0]), e);
    for (int i = 0; i < v->n_replica && v->n_replica > 1 && !e->status; i++)
        run_put_replica(v->store.run, &v->result.part[i], e);
    for (int k = 0; k < MONITOR_N_KIND && !e->status; k++) {
        static const char *const name[] = { "anomaly_communication", "anomaly_imbalance",
                                            "anomaly_straggler", "anomaly_memory" };
        h5_attr_i64(f, "/summary", name[k], m->seen[k].windows, e);
    }
    if (!e->status && v->failed != ST_OK)
        h5_attr_text(f, "/summary", "ended_early", v->failure.text, e);
}
