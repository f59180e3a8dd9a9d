/* tests/accuracy_env.c - one configuration of the model, for predictions of single operators.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/paths.h"
#include "tests/accuracy.h"

/* A shape that matters to no prediction that does not name it. */
static const struct arch blank = { .name = "measured shape",
                                   .family = ARCH_LLAMA,
                                   .n_layer = 1,
                                   .hidden = 8192,
                                   .n_head = 64,
                                   .n_kv_head = 8,
                                   .head_dim = 128,
                                   .ffn = 28672,
                                   .gated_mlp = true,
                                   .vocab = 32000,
                                   .max_ctx = 1 << 20,
                                   .n_norm_layer = 2 };

int acc_env_ask(struct acc_env *v, const struct acc_ask *q)
{
    v->strategy = (struct strategy){ .tp = q->tp,
                                     .pp = 1,
                                     .dp = 1,
                                     .ep = q->ep,
                                     .weight_dtype = q->weight,
                                     .kv_dtype = q->kv,
                                     .split = "equal" };
    return profile_load(&v->hw, &v->strategy, q->engine, NULL, &v->a, &v->profile, &v->e);
}

int acc_env_init(struct acc_env *v, const struct acc_ask *q)
{
    *v = (struct acc_env){ .arch = blank, .stage = { .n_layer = 1 } };
    arena_init(&v->a);
    int st = hw_load(q->system, NULL, 1, &v->a, &v->hw, &v->e);
    if (st == ST_OK) st = acc_env_ask(v, q);
    v->ops = (struct ops_env){ &v->arch, &v->hw, &v->strategy, &v->profile, NULL };
    return st;
}

void acc_env_release(struct acc_env *v)
{
    arena_release(&v->a);
}

const struct op *acc_op(const struct acc_env *v, const struct step_shape *s, const char *name,
                        struct op list[OPS_MAX])
{
    int n = ops_list(&v->ops, &v->stage, s, list);
    for (int i = 0; i < n; i++)
        if (strcmp(list[i].name, name) == 0) return list + i;
    return NULL;
}

double acc_op_s(const struct acc_env *v, const struct op *o)
{
    return o ? ops_time_s(&v->ops, &v->stage, o, NULL, NULL) : 0;
}

int acc_arch(struct acc_env *v, const char *name)
{
    char path[4096];
    int st = paths_resolve(name, NULL, "scenarios/models", ".json", path, sizeof path, &v->e);
    return st == ST_OK ? arch_read(path, &v->arch, &v->e) : st;
}

const char *acc_sample(const struct acc_env *v, enum profile_id id, const char *engine,
                       const char *version)
{
    const struct param *p = v->profile.p + id;
    char own[96], release[128];
    snprintf(own, sizeof own, " %s ", engine);
    snprintf(release, sizeof release, " %s %s fit", engine, version);
    if (p->cover != COVER_FIT) {
        if (strncmp(v->profile.note, "constants of", 12) == 0) return "no: other GPU";
        return p->source && strstr(p->source, " fit") ? "no: other engine or format"
                                                      : "no: default";
    }
    if (strstr(p->source, release)) return "yes";
    return strstr(p->source, own) ? "no: other release" : "no: other engine or format";
}
