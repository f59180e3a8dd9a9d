/* sim/verify.h - whether a strategy is possible on given hardware, why not, and what is.
 *
 * A verify_case is one model under one strategy on one kind of hardware. verify_case_open loads it
 * and verify_case_check lists the checks, each by itself, with what is required, what is there, the
 * deficit and the rule. The list says "fail" exactly where deploy_init refuses (tested in both
 * directions), so that a case passes here if and only if `orrery simulate` runs it; demands that
 * only the command line makes (a context, a batch, a power limit) can fail a case as well, and a
 * missed SLO does.
 *
 * Score: 100 less the points of every check that warns or fails (each check carries its points),
 * not below 0, and at most VERIFY_FAIL_CAP where any check fails. SPDX-License-Identifier:
 * Apache-2.0 */
#ifndef SIM_VERIFY_H
#define SIM_VERIFY_H

#include <stdbool.h>

#include "model/ops.h"
#include "model/topo.h"
#include "sim/evaluate.h"

enum { VERIFY_FAIL_CAP = 40, VERIFY_MAX_CHECK = 128 };

enum verify_status {
    VERIFY_PASS,
    VERIFY_WARN,
    VERIFY_FAIL,
    VERIFY_UNKNOWN /* the figure that it needs is not known: no points */
};
const char *verify_status_word(enum verify_status s); /* "pass" "warn" "fail" "unknown" */

#define VERIFY_UNEVEN 0.1 /* slowest stage against the best split's, past which balance warns */
enum verify_points {      /* what a check takes off the score */
                     VERIFY_P_NOTHING = 100, /* fails: there is no GPU at all */
                     VERIFY_P_DEGREES = 40,  /* fails: a degree, a dimension or a format */
                     VERIFY_P_GPUS = 60,     /* fails: GPUs missing, nodes that cannot be joined */
                     VERIFY_P_MEMORY = 60,   /* fails: of the worst stage; the others add nothing */
                     VERIFY_P_ASKED =
                         40, /* fails: what the command line asks for (context x batch, power) */
                     VERIFY_P_SLO = 50,     /* fails: attainment below what is asked */
                     VERIFY_P_LINK = 10,    /* warns: TP over PCIe or over nodes; an uneven split */
                     VERIFY_P_CONTEXT = 10, /* warns: the longest request does not fit */
                     VERIFY_P_TIGHT = 5,    /* warns: little is left (KV, SLO margin, node power) */
                     VERIFY_P_HOST = 3,     /* warns: host memory, load time */
                     VERIFY_P_PAD = 2       /* warns: padding */
};

/* A check of one thing. Figures are in `unit`; NAN where there is none. */
struct verify_check {
    const char *name; /* "memory.stage0" */
    enum verify_status status;
    double required, available;
    double deficit;   /* > 0: how much is lacking */
    const char *unit; /* "GPUs", "bytes", "W", "s", ""; never NULL */
    const char *says; /* one sentence, with the figures */
    const char *rule; /* the formula or the source */
    int points;       /* taken off the score */
};

struct verify_load { /* what the workload asks for, counted over its requests */
    int64_t n;
    double mean_in, mean_out; /* tokens */
    double longest;           /* prompt and output of the longest request */
    double rate_per_s;        /* NAN: no rate of its own (closed loop, burst) */
};

struct verify_ask {         /* keys verify.* of the command line */
    int64_t context, batch; /* 0: not asked */
    double node_w, rack_w;  /* limits; 0: none */
    int64_t load_ns;        /* longest time to load the weights; 0: none */
    int64_t rack_nodes;     /* nodes in a rack; 0: all */
    int64_t max_gpus;       /* of an alternative */
    int urgency;            /* enum verify_urgency */
};
enum verify_urgency { VERIFY_LATENCY, VERIFY_THROUGHPUT, VERIFY_COST };
#define VERIFY_URGENCY_WORDS "latency throughput cost"

struct verify_stage {
    struct step_stage step;
    int first_layer;
    struct memory mem; /* of one rank */
    double time_s;     /* reference decode step */
    double coll_s;     /* of it, in collectives */
};

struct verify_case {
    struct scenario *s; /* a copy of its own, with s->hw set */
    struct arena *a;
    struct deploy_request q;
    struct arch arch;
    struct hw hw; /* n_node resolved */
    bool none;    /* no GPU is there */
    struct verify_load load;
    const struct verify_ask *ask;
    /* the plan, stage by stage; n_stage 0 where the degrees make none */
    bool predicted;            /* constants were found: times and the split "auto" hold */
    const char *not_predicted; /* else why */
    struct profile profile;
    struct table *table;
    int n_stage;
    struct verify_stage stage[STRATEGY_MAX_PP];
    const char *split_error; /* a list of layers that does not add up; NULL: fine */
    double layer_s, first_s, last_s;
    double eps_bytes, eps_time;
    int64_t kv_blocks; /* of a replica */
    struct verify_check check[VERIFY_MAX_CHECK];
    int n_check;
    struct deploy *deploy; /* set by verify_case_deploy; NULL: refused */
};

/* base is copied, hw too (its n_node: nodes that are there; fixed says that there are no more, else
 * as many as the strategy needs are taken). Loads the model. Errors: ST_USAGE, ST_IO of the
 * scenario itself. */
struct verify_in {
    const struct scenario *base;
    const struct hw *hw;
    const struct verify_ask *ask;
    const struct verify_load *load;
    bool fixed;
    bool none;                       /* no GPU is there: hw says nothing */
    const char *model;               /* NULL: the scenario's */
    const struct strategy *strategy; /* NULL: the scenario's */
};
int verify_case_open(struct verify_case *c, const struct verify_in *in, struct arena *a,
                     struct err *e);
/* Fills in the list of checks, but for the simulated ones. */
void verify_case_check(struct verify_case *c);
/* deploy_init on the case. ST_OK and c->deploy, or its refusal. */
int verify_case_deploy(struct verify_case *c, struct err *e);
/* Counts requests of the workload (the first 20,000). Errors as trace_open. */
int verify_load_count(const struct scenario *s, struct verify_load *out, struct err *e);

bool verify_possible(const struct verify_case *c); /* no check fails */
int verify_score(const struct verify_case *c);
/* Appends to c->check; the texts stay the caller's. */
struct verify_check *verify_add(struct verify_case *c, const char *name, enum verify_status st,
                                int points);

/* ---- parts of verify_case_check: each adds its checks */
void verify_check_degrees(struct verify_case *c);
void verify_check_memory(struct verify_case *c);
void verify_check_links(struct verify_case *c);
void verify_check_site(struct verify_case *c); /* storage, host memory, power */

/* The longest context that is allowed: the model's, or policy.max_model_len. */
int64_t verify_max_ctx(const struct verify_case *c);
/* Tokens of context that each of `batch` sequences can have in n_block blocks; 0: none. */
int64_t verify_context_max(int64_t n_block, int64_t block_tok, int64_t batch, int64_t max_ctx);
/* Load time of a node's share of the weights: the longer of reading it once from storage and of the
 * copy to the fullest GPU over its host link. NAN: storage rate unknown. */
double verify_load_s(const struct verify_case *c, double *node_bytes, double *rank_bytes);

/* ---- communication of the plan; bytes and seconds, per rank where it says so */

struct verify_comm {
    int n_allreduce;   /* in a layer: after attention and after the MLP; 1 where both are one */
    double tok_bytes;  /* hidden states of one token: hidden * 2 */
    double wire_ratio; /* bytes that a rank sends in a ring all-reduce of 1 byte: 2 (tp - 1) / tp */
    int64_t ref_tok;   /* tokens of the reference step */
    double allreduce_s;                /* one of the reference step */
    double tp_step_s[STRATEGY_MAX_PP]; /* collectives of a reference step, by stage */
    double tp_share;                   /* of the slowest stage's time */
    double pp_hop_bytes;     /* a reference step sends so much over a stage boundary: hidden and
                                residual */
    double pp_hop_s;         /* slowest of the boundaries, reference step */
    bool tp_inter, pp_inter; /* leaves the node */
    double tok_per_s;        /* of a replica at the planned rate; NAN: no rate */
    double tp_wire_per_s;    /* bytes that a rank of the fullest stage sends for all-reduces */
    double pp_wire_per_s;    /* and to the next stage */
    double link_bytes_per_s, nic_bytes_per_s; /* of a GPU, per direction */
    double link_util, nic_util;               /* NAN: rate or traffic unknown */
    const char *link_name;
};
void verify_comm_count(const struct verify_case *c, struct verify_comm *out);

/* ---- simulation */

struct verify_run {
    bool ran;
    const char *error; /* why not; NULL */
    double attain, ttft_p99_ns, tpot_p50_ns, tpot_p99_ns, e2e_mean_ns;
    double requests_per_s, out_tok_per_s;
    double share[STEP_N_CLASS]; /* of the time of a mean step */
    double busy, bubble;        /* of the busiest stage */
    int64_t due, rejected;      /* requests; those that failed or were rejected */
    bool held;                  /* the SLO, or there is none */
    bool overloaded;
    const char *bottleneck;
};

/* Simulates a deployed case with the constants as they are. requests > 0: at most so many;
 * replications > 0: instead of the scenario's. With checks: adds slo.* to the list. Errors: of the
 * workload. */
struct verify_sim {
    int64_t requests, replications;
    int threads;
    bool checks;
};
int verify_simulate(struct verify_case *c, const struct verify_sim *how, struct verify_run *out,
                    struct err *e);

/* ---- the plan as a graph */

struct verify_dag {
    int64_t nodes, edges, tp_edges, pp_edges;
};
/* GPUs and directed edges: a ring over each TP group (tp edges, none for tp 1) and, from every rank
 * of a stage, one to its fellow of the next. Replicas are alike and not joined. */
struct verify_dag verify_dag_count(const struct strategy *s);
const char *verify_dag_dot(const struct verify_case *c);
/* Drawn: columns are stages, rows ranks; more than 8 replicas, 16 ranks or 16 stages are cut, and
 * said so. */
const char *verify_dag_svg(const struct verify_case *c);

/* ---- alternatives and advice */

struct verify_alt {
    const char *kind; /* "same hardware" ... */
    const char *plan; /* "llama-3-70b fp8 TP2-PP1-DP1 on 1 x dgx-h100" */
    const char *model, *hardware;
    struct strategy strategy;
    int64_t gpus, nodes;
    int score;
    struct verify_run run;
    double power_w; /* most that the nodes (or the GPUs used) draw */
    double usd_lo, usd_hi, usd_per_h_lo, usd_per_h_hi; /* of whole nodes; 0: unknown */
    double gpu_usd_per_h;                              /* of the GPUs used, mean rent; 0: unknown */
    double serial_bytes; /* weights that a token passes in a row: of a rank of each stage */
    double kv_tok;       /* tokens that fit in the KV cache, all replicas */
    int rank;            /* of advice, from 1 */
    const char *price_date;
    double value; /* what advice is ranked by; smaller is better */
    const char *reason;
};

struct verify_alts {
    struct verify_alt *alt;
    int n, n_tried, n_simulated;
};
/* models: names known, for smaller ones of the family. Works in threads; results do not depend on
 * how many. Errors: of the scenario and catalog, ST_STOPPED. Everything lives in a. */
struct verify_world {
    const struct verify_in *in; /* what is asked, on the hardware that is there */
    const char *const *models;
    int n_model;
    bool simulate;
    int threads;
};
int verify_alternatives(const struct verify_world *w, struct arena *a, struct verify_alts *out,
                        struct err *e);
/* TP, PP and DP for the GPUs at hand, best first by ask->urgency. */
int verify_suggest(const struct verify_world *w, struct arena *a, struct verify_alts *out,
                   struct err *e);

/* All that was found, for printing. */
struct verify_report {
    struct verify_case *c;    /* on the hardware that is there */
    struct verify_case *plan; /* on the hardware that was planned; c where they are the same */
    const struct topo *topo;  /* NULL: from the catalog */
    struct verify_run run;
    struct verify_alts alts, advice;
    bool with_alts, with_advice;
    bool compatible;
    int score;
};

#endif
