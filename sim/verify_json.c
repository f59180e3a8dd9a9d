/* sim/verify_json.c - the report as one JSON object. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "base/json.h"
#include "sim/print.h"
#include "sim/verify_page.h"

static void put_strategy(json_t *j, const char *path, const struct strategy *s)
{
    json_t *o = json_object();
    json_put_i64(o, "tp", s->tp);
    json_put_i64(o, "pp", s->pp);
    json_put_i64(o, "dp", s->dp);
    json_put_i64(o, "ep", s->ep);
    json_put_text(o, "weights", dtype_name((enum dtype)s->weight_dtype));
    json_put_text(o, "kv", dtype_name((enum dtype)s->kv_dtype));
    json_put(j, path, o);
}

static void put_place(json_t *j, const char *path, const struct hw *h)
{
    json_t *o = json_object();
    json_put_text(o, "system", h->sys.name);
    json_put_text(o, "gpu", h->gpu.name);
    json_put_i64(o, "nodes", h->n_node);
    json_put_i64(o, "gpus_per_node", h->sys.n_gpu);
    json_put_f64(o, "gpu_memory_bytes", h->gpu.mem_bytes);
    json_put(j, path, o);
}

static void put_checks(json_t *j, const struct verify_case *c)
{
    json_t *list = json_array();
    for (int i = 0; i < c->n_check; i++) {
        const struct verify_check *k = &c->check[i];
        json_t *o = json_object();
        json_put_text(o, "name", k->name);
        json_put_text(o, "status", verify_status_word(k->status));
        json_put_f64(o, "required", k->required);
        json_put_f64(o, "available", k->available);
        json_put_f64(o, "deficit", k->deficit);
        json_put_text(o, "unit", k->unit);
        json_put_i64(o, "points", k->points);
        json_put_text(o, "finding", k->says);
        json_put_text(o, "rule", k->rule);
        json_array_append_new(list, o);
    }
    json_put(j, "checks", list);
}

static void put_stages(json_t *j, const struct verify_case *c)
{
    json_t *list = json_array();
    for (int p = 0; p < c->n_stage; p++) {
        const struct verify_stage *g = &c->stage[p];
        json_t *o = json_object();
        json_put_i64(o, "layers", g->step.n_layer);
        json_put_i64(o, "first_layer", g->first_layer);
        json_put_f64(o, "rank_params", g->mem.params);
        json_put_f64(o, "weights_bytes", g->mem.weights);
        json_put_f64(o, "activation_bytes", g->mem.activation);
        json_put_f64(o, "communicator_bytes", g->mem.comm);
        json_put_f64(o, "graph_bytes", g->mem.graphs);
        json_put_f64(o, "context_bytes", g->mem.other);
        json_put_f64(o, "kv_token_bytes", g->mem.kv_token);
        json_put_f64(o, "kv_room_bytes", g->mem.kv_bytes);
        json_put_i64(o, "kv_blocks", g->mem.kv_blocks);
        json_put_f64(o, "step_s", c->predicted ? g->time_s : NAN);
        json_put_f64(o, "collective_s", c->predicted ? g->coll_s : NAN);
        json_array_append_new(list, o);
    }
    json_put(j, "stages", list);
}

static void put_division(json_t *j, const struct verify_case *c)
{
    int equal[STRATEGY_MAX_PP];
    double t[STRATEGY_MAX_PP];
    json_put_f64(j, "division.params", (double)arch_params(&c->arch));
    json_put_f64(j, "division.epsilon_bytes_ratio", c->eps_bytes);
    json_put_f64(j, "division.epsilon_time_ratio", c->predicted ? c->eps_time : NAN);
    json_put_f64(j, "division.layer_s", c->predicted ? c->layer_s : NAN);
    json_put_f64(j, "division.embedding_s", c->predicted ? c->first_s : NAN);
    json_put_f64(j, "division.head_s", c->predicted ? c->last_s : NAN);
    strategy_balance(c->arch.n_layer, c->n_stage, 1, 0, 0, equal);
    for (int p = 0; p < c->n_stage; p++)
        t[p] = equal[p] * c->layer_s + (p == 0 ? c->first_s : 0) +
               (p == c->n_stage - 1 ? c->last_s : 0);
    json_put_f64(j, "division.equal_epsilon_time_ratio",
                 c->predicted ? strategy_epsilon(t, c->n_stage) : NAN);
}

static void put_comm(json_t *j, const struct verify_case *c)
{
    struct verify_comm m;
    verify_comm_count(c, &m);
    json_put_i64(j, "communication.tp.allreduces_per_layer", m.n_allreduce);
    json_put_f64(j, "communication.tp.token_bytes", m.n_allreduce ? m.tok_bytes : 0);
    json_put_f64(j, "communication.tp.allreduce_s", m.allreduce_s);
    json_put_f64(j, "communication.tp.share_of_step_ratio", m.tp_share);
    json_put_f64(j, "communication.tp.sent_bytes_per_s", m.tp_wire_per_s);
    json_put_bool(j, "communication.tp.between_nodes", m.tp_inter);
    json_put_f64(j, "communication.pp.token_bytes", c->n_stage > 1 ? m.tok_bytes : 0);
    json_put_f64(j, "communication.pp.hop_s", m.pp_hop_s);
    json_put_f64(j, "communication.pp.sent_bytes_per_s", m.pp_wire_per_s);
    json_put_bool(j, "communication.pp.between_nodes", m.pp_inter);
    json_put_f64(j, "communication.tokens_per_s", m.tok_per_s);
    json_put_f64(j, "communication.link_used_ratio", m.link_util);
    json_put_f64(j, "communication.nic_used_ratio", m.nic_util);
}

static void put_run(json_t *j, const char *path, const struct verify_run *r)
{
    json_t *o = json_object();
    json_put_bool(o, "slo_held", r->held);
    json_put_f64(o, "attainment_ratio", r->attain);
    json_put_f64(o, "ttft_p99_ns", r->ttft_p99_ns);
    json_put_f64(o, "tpot_p50_ns", r->tpot_p50_ns);
    json_put_f64(o, "tpot_p99_ns", r->tpot_p99_ns);
    json_put_f64(o, "e2e_mean_ns", r->e2e_mean_ns);
    json_put_f64(o, "requests_per_s", r->requests_per_s);
    json_put_f64(o, "output_tokens_per_s", r->out_tok_per_s);
    json_put_i64(o, "rejected", r->rejected);
    json_put_text(o, "bottleneck", r->bottleneck);
    json_put(j, path, o);
}

static void put_alts(json_t *j, const char *path, const struct verify_alts *all)
{
    json_t *list = json_array();
    for (int i = 0; i < all->n; i++) {
        const struct verify_alt *x = &all->alt[i];
        json_t *o = json_object();
        json_put_text(o, "kind", x->kind);
        json_put_text(o, "plan", x->plan);
        json_put_text(o, "model", x->model);
        json_put_text(o, "hardware", x->hardware);
        put_strategy(o, "strategy", &x->strategy);
        json_put_i64(o, "gpus", x->gpus);
        json_put_i64(o, "nodes", x->nodes);
        json_put_i64(o, "score", x->score);
        if (x->run.ran) put_run(o, "simulation", &x->run);
        json_put_f64(o, "max_power_w", x->power_w > 0 ? x->power_w : NAN);
        json_put_f64(o, "price.buy_low_usd", x->usd_lo > 0 ? x->usd_lo : NAN);
        json_put_f64(o, "price.buy_high_usd", x->usd_hi > 0 ? x->usd_hi : NAN);
        json_put_f64(o, "price.rent_low_usd_per_h", x->usd_per_h_lo > 0 ? x->usd_per_h_lo : NAN);
        json_put_f64(o, "price.rent_high_usd_per_h", x->usd_per_h_hi > 0 ? x->usd_per_h_hi : NAN);
        json_put_text(o, "price.date", x->price_date);
        if (x->rank) json_put_i64(o, "rank", x->rank);
        if (x->reason) json_put_text(o, "reason", x->reason);
        json_array_append_new(list, o);
    }
    json_put(j, path, list);
}

json_t *verify_json(const struct verify_report *r)
{
    const struct verify_case *c = r->c;
    struct verify_dag g = verify_dag_count(&c->q.strategy);
    json_t *j = json_object();
    json_put_bool(j, "compatible", r->compatible);
    json_put_i64(j, "score", r->score);
    json_put_text(j, "score_rule", verify_score_rule);
    json_put_text(j, "title", c->s->o.title);
    json_put_text(j, "model", c->arch.name);
    put_strategy(j, "strategy", &c->q.strategy);
    put_place(j, "planned", &r->plan->hw);
    if (c->none)
        json_put(j, "found", json_null());
    else
        put_place(j, "found", &c->hw);
    if (r->topo) json_put(j, "environment", verify_json_environment(r->topo));
    put_checks(j, c);
    json_put_i64(j, "kv_blocks", c->kv_blocks);
    json_put_i64(
        j, "longest_context_tok",
        verify_context_max(c->kv_blocks, c->q.lim.block_tok, c->ask->batch, verify_max_ctx(c)));
    put_stages(j, c);
    if (r->plan->n_stage) {
        put_division(j, r->plan);
        put_comm(j, r->plan);
    }
    json_put_i64(j, "dag.nodes", g.nodes);
    json_put_i64(j, "dag.edges", g.edges);
    json_put_i64(j, "dag.tp_edges", g.tp_edges);
    json_put_i64(j, "dag.pp_edges", g.pp_edges);
    if (r->run.ran) put_run(j, "simulation", &r->run);
    put_alts(j, "alternatives", &r->alts);
    if (r->with_advice) put_alts(j, "advice", &r->advice);
    return j;
}
