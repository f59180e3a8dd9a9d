/* sim/verify.c - see verify.h: loads a case, divides it into stages, judges it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "sim/verify.h"

#include <math.h>
#include <string.h>

enum { MAX_COUNTED = 20000, MAX_NODES = 1000000 };

const char *verify_status_word(enum verify_status s)
{
    static const char *const word[] = { "pass", "warn", "fail", "unknown" };
    return (unsigned)s < 4 ? word[s] : "?";
}

struct verify_check *verify_add(struct verify_case *c, const char *name, enum verify_status st,
                                int points)
{
    static struct verify_check spare;
    struct verify_check *k = c->n_check < VERIFY_MAX_CHECK ? &c->check[c->n_check++] : &spare;
    bool takes = st == VERIFY_WARN || st == VERIFY_FAIL;
    *k = (struct verify_check){ .name = name,
                                .status = st,
                                .required = NAN,
                                .available = NAN,
                                .unit = "",
                                .says = "",
                                .rule = "",
                                .points = takes ? points : 0 };
    return k;
}

bool verify_possible(const struct verify_case *c)
{
    for (int i = 0; i < c->n_check; i++)
        if (c->check[i].status == VERIFY_FAIL) return false;
    return true;
}

int verify_score(const struct verify_case *c)
{
    int score = 100;
    for (int i = 0; i < c->n_check; i++) score -= c->check[i].points;
    if (!verify_possible(c) && score > VERIFY_FAIL_CAP) score = VERIFY_FAIL_CAP;
    return score > 0 ? score : 0;
}

/* ---- the workload */

static void count(const struct trace_req *r, struct verify_load *out)
{
    double all = (double)r->n_in + r->n_out;
    out->n++;
    out->mean_in += r->n_in;
    out->mean_out += r->n_out;
    if (all > out->longest) out->longest = all;
}

int verify_load_count(const struct scenario *s, struct verify_load *out, struct err *e)
{
    struct trace *t;
    struct trace_req r;
    int64_t first_ns = 0, last_ns = 0;
    *out = (struct verify_load){ .rate_per_s = NAN };
    int st = trace_open(&s->workload, s->path, (uint64_t)s->sim.seed, &t, e);
    if (st != ST_OK) return st;
    while (out->n < MAX_COUNTED && trace_next(t, &r)) {
        if (out->n == 0) first_ns = r.t_due_ns;
        last_ns = r.t_due_ns;
        do {
            count(&r, out);
        } while (trace_done(t, &r, r.t_due_ns, &r) && out->n < MAX_COUNTED);
    }
    double span_s = 1e-9 * (double)(last_ns - first_ns), n = (double)out->n;
    if (!trace_answers(t) && span_s > 0) out->rate_per_s = (n - 1) / span_s;
    if (trace_is_steady(t) && s->workload.rate_per_s > 0) out->rate_per_s = s->workload.rate_per_s;
    trace_close(t);
    out->mean_in /= n;
    out->mean_out /= n;
    return ST_OK;
}

/* ---- a case */

/* Nodes that the strategy fills, as deploy_init counts them. */
static int nodes_filled(const struct strategy *s, const struct hw *h)
{
    double need = (double)s->tp * (double)s->pp * (double)s->dp / h->sys.n_gpu;
    if (need <= 1 || need > MAX_NODES) return 1;
    return (int)ceil(need);
}

/* Ranks are laid out tp fastest, then pp, then dp; a stage has the worse links of its replicas. */
static void place(struct verify_case *c)
{
    int64_t tp = c->q.strategy.tp, pp = c->q.strategy.pp, n_gpu = c->hw.sys.n_gpu;
    for (int64_t p = 0; p < pp; p++) {
        struct step_stage *g = &c->stage[p].step;
        *g = (struct step_stage){ .has_embed = p == 0, .has_head = p == pp - 1 };
        for (int64_t r = 0; r < c->q.strategy.dp; r++) {
            int64_t first = (r * pp + p) * tp, node = first / n_gpu;
            if ((first + tp - 1) / n_gpu != node) g->tp_inter = true;
            if (p < pp - 1 && (first + 2 * tp - 1) / n_gpu != node) g->hop_inter = true;
        }
    }
}

static struct step_setup setup(const struct verify_case *c, struct step_stage *stage)
{
    for (int p = 0; p < c->n_stage; p++) stage[p] = c->stage[p].step;
    return (struct step_setup){ .arch = &c->arch,
                                .hw = &c->hw,
                                .strategy = &c->q.strategy,
                                .profile = &c->profile,
                                .table = c->table,
                                .stage = stage,
                                .n_stage = c->n_stage,
                                .max_batch_tok = c->q.lim.max_batch_tok,
                                .max_seqs = c->q.lim.max_seqs,
                                .fixed_ns = c->q.fixed_ns };
}

/* What the reference step spends in collectives on this stage. */
static double stage_coll_s(const struct verify_case *c, const struct step_stage *g)
{
    struct ops_env v = { &c->arch, &c->hw, &c->q.strategy, &c->profile, c->table };
    struct step_shape s = { .n_decode = DEPLOY_REF_DECODE,
                            .sum_ctx = (int64_t)DEPLOY_REF_DECODE * DEPLOY_REF_CTX,
                            .n_logits = DEPLOY_REF_DECODE };
    struct op op[OPS_MAX];
    double t = 0;
    int n = ops_list(&v, g, &s, op);
    for (int i = 0; i < n; i++)
        if (op[i].cls == STEP_COLL) t += op[i].count * ops_time_s(&v, g, op + i, NULL, NULL);
    return t;
}

static void divide(struct verify_case *c)
{
    int layers[STRATEGY_MAX_PP], first = 0;
    struct step_stage stage[STRATEGY_MAX_PP];
    const char *how = c->q.strategy.split ? c->q.strategy.split : "auto";
    double bytes[STRATEGY_MAX_PP], time_s[STRATEGY_MAX_PP];
    struct step_setup u = setup(c, stage);
    bool listed = strcmp(how, "auto") != 0 && strcmp(how, "equal") != 0;
    struct err e = { 0 };

    c->layer_s = 1;
    if (c->predicted && c->q.fixed_ns == 0)
        step_layer_costs(&u, DEPLOY_REF_DECODE, DEPLOY_REF_CTX, &c->layer_s, &c->first_s,
                         &c->last_s);
    if (listed && strategy_parse_split(how, c->arch.n_layer, c->n_stage, layers, &e) != ST_OK) {
        c->split_error = arena_printf(c->a, "%s", e.text);
        listed = false;
        how = "auto";
    }
    if (!listed && strcmp(how, "equal") == 0)
        strategy_balance(c->arch.n_layer, c->n_stage, 1, 0, 0, layers);
    else if (!listed)
        strategy_balance(c->arch.n_layer, c->n_stage, c->layer_s, c->first_s, c->last_s, layers);
    for (int p = 0; p < c->n_stage; p++) {
        struct verify_stage *g = &c->stage[p];
        g->step.n_layer = layers[p];
        g->first_layer = first;
        first += layers[p];
        g->time_s = layers[p] * c->layer_s + (p == 0 ? c->first_s : 0) +
                    (p == c->n_stage - 1 ? c->last_s : 0);
        if (c->predicted) g->coll_s = stage_coll_s(c, &g->step);
        memory_stage(&c->arch, &c->hw, &c->q.strategy, p, layers[p], &c->q.lim, &g->mem);
        bytes[p] = g->mem.weights;
        time_s[p] = g->time_s;
    }
    c->eps_bytes = strategy_epsilon(bytes, c->n_stage);
    c->eps_time = strategy_epsilon(time_s, c->n_stage);
}

/* Whether the degrees make stages at all: memory and times can then be counted, even where they do
 * not divide or fit. */
static bool makes_stages(const struct strategy *s, const struct arch *a)
{
    return s->tp >= 1 && s->tp <= 1024 && s->pp >= 1 && s->pp <= STRATEGY_MAX_PP &&
           s->pp <= a->n_layer && s->dp >= 1 && s->dp <= 4096 && s->ep >= 1 && s->ep <= 1024;
}

static void stages(struct verify_case *c)
{
    struct err e = { 0 };
    if (!makes_stages(&c->q.strategy, &c->arch)) return;
    c->n_stage = (int)c->q.strategy.pp;
    c->predicted = deploy_constants(&c->q, &c->hw, c->a, &c->profile, &c->table, &e) == ST_OK;
    if (!c->predicted) c->not_predicted = arena_printf(c->a, "%s", e.text);
    place(c);
    divide(c);
    c->kv_blocks = c->stage[0].mem.kv_blocks;
    for (int p = 1; p < c->n_stage; p++)
        if (c->stage[p].mem.kv_blocks < c->kv_blocks) c->kv_blocks = c->stage[p].mem.kv_blocks;
    if (c->q.kv_blocks > 0) c->kv_blocks = c->q.kv_blocks;
}

int verify_case_open(struct verify_case *c, const struct verify_in *in, struct arena *a,
                     struct err *e)
{
    memset(c, 0, sizeof *c);
    struct hw *h = arena_alloc(a, sizeof *h);
    c->s = arena_alloc(a, sizeof *c->s);
    *h = *in->hw;
    *c->s = *in->base;
    c->s->arena = a;
    c->s->hw = h;
    if (in->model) c->s->o.model = in->model;
    if (in->strategy) c->s->strategy = *in->strategy;
    c->a = a;
    c->ask = in->ask;
    c->load = *in->load;
    if (in->fixed) c->s->o.nodes = in->hw->n_node;
    scenario_request(c->s, h, &c->q);
    int st = deploy_model(&c->q, a, &c->arch, e);
    if (st != ST_OK) {
        scenario_place(c->s, e);
        return st;
    }
    c->hw = *h;
    c->none = in->none;
    c->hw.n_node = c->q.n_node > 0 ? c->q.n_node : nodes_filled(&c->q.strategy, h);
    if (!c->none) stages(c);
    return ST_OK;
}

void verify_case_check(struct verify_case *c)
{
    verify_check_degrees(c);
    verify_check_memory(c);
    verify_check_links(c);
    verify_check_site(c);
}

int verify_case_deploy(struct verify_case *c, struct err *e)
{
    struct deploy *d = arena_alloc(c->a, sizeof *d);
    int st = scenario_deploy(c->s, d, e);
    if (st == ST_OK) c->deploy = d;
    return st;
}
