/* model/deploy.h - a model on hardware under a strategy: stages, memory, KV blocks, step times.
 *
 * The one entry that the simulator and the checks share: deploy_init either says why the plan
 * cannot run or fills in everything known before the first request.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_DEPLOY_H
#define MODEL_DEPLOY_H

#include "model/memory.h"
#include "model/step.h"

/* The decode step that a split "auto" balances: sequences, and tokens of context of each. */
enum { DEPLOY_REF_DECODE = 64, DEPLOY_REF_CTX = 1024 };

struct deploy_stage {
    struct step_stage step;
    int first_layer;
    struct memory mem;
    double time_s; /* predicted time of the reference decode step */
};

struct deploy {
    struct arch arch;
    struct hw hw;
    struct strategy strategy;
    struct profile profile;
    struct table *table;
    struct deploy_stage stage[STRATEGY_MAX_PP];
    int n_stage;
    struct memory_limits lim;
    int64_t kv_blocks;          /* per replica; smallest over stages unless given */
    int64_t fixed_ns;           /* as requested */
    double eps_bytes, eps_time; /* load imbalance of weights and of predicted stage time */
    struct step *step;          /* for the nominal constants */
};

struct deploy_request {
    const char *model;    /* path or name of a config.json */
    const char *hardware; /* name or path */
    const struct hw *hw; /* the hardware itself, instead of its name; its n_node is not looked at */
    const char *beside;  /* the scenario file: relative names are tried beside it first */
    const char *engine, *kernels; /* profile choice; kernels NULL for none */
    int n_node;                   /* 0: as many as the strategy needs */
    struct strategy strategy;
    struct memory_limits lim;
    int64_t kv_blocks; /* 0: from memory; else as the engine reported */
    int64_t fixed_ns; /* degenerate step cost, see step.h; model and memory are then only checked */
};

/* Errors ST_USAGE: unknown names, degrees that do not divide, a model that does not fit (which
 * stage, required, available, deficit, and the smallest TP that fits), ... Everything lives in a.
 * */
int deploy_init(const struct deploy_request *q, struct arena *a, struct deploy *out, struct err *e);
/* Its parts that need nothing to fit: the model asked for; the constants for it on h, and the
 * measured kernels (NULL: none). */
int deploy_model(const struct deploy_request *q, struct arena *a, struct arch *out, struct err *e);
int deploy_constants(const struct deploy_request *q, const struct hw *h, struct arena *a,
                     struct profile *out, struct table **table, struct err *e);
/* The step model of another draw of the constants, same stages. */
int deploy_step(const struct deploy *d, const struct profile *p, struct arena *a, struct step **out,
                struct err *e);

#endif
