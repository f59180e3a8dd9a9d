/* model/arch.c - reads a Hugging Face config.json and counts parameters.
 *
 * What a published file leaves out has the value that the model class of its model_type gives it
 * (transformers, configuration_<type>.py); each such default stands beside the key below.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/arch.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/conf.h"
#include "base/doc.h"

enum { SIZE_MAX_ANY = 1 << 24, CONFIG_BYTES = 16 << 20 };

/* No model is near; above it the counts below could leave int64_t. */
#define PARAMS_MAX 1e15

/* ---- one value */

struct reader {
    const char *name; /* of the file, for errors */
    const char *type; /* model_type */
    const struct doc *map;
    struct arch *a;
    struct err *e;
};

/* A key that is absent or null is not there: published files write both. */
static const struct doc *get(const struct doc *map, const char *key)
{
    const struct doc *d = doc_get(map, key);
    if (d && d->kind == DOC_SCALAR && !d->quoted && strcmp(d->text, "null") == 0) return NULL;
    return d;
}

static const char *shown(const struct doc *d)
{
    return d->kind == DOC_MAP ? "a map" : d->kind == DOC_LIST ? "a list" : d->text;
}

static int wrong(const struct reader *r, const char *key, const struct doc *d, const char *want)
{
    bool text = d->kind == DOC_SCALAR && d->quoted;
    return err_set(r->e, ST_USAGE, "%s: %s is %s%.60s%s, expected %s", r->name, key,
                   text ? "the text \"" : "", shown(d), text ? "\"" : "", want);
}

/* A whole number lo..2^24. dflt < 0: the key must be there. */
static int read_size(const struct reader *r, const char *key, int lo, int dflt, int *out)
{
    const struct doc *d = get(r->map, key);
    char *end = NULL;
    if (!d && dflt < 0) return err_set(r->e, ST_USAGE, "%s: the key %s is missing", r->name, key);
    *out = dflt;
    if (!d) return ST_OK;
    char want[64];
    snprintf(want, sizeof want, "a whole number from %d to 2^24", lo);
    if (d->kind != DOC_SCALAR || d->quoted) return wrong(r, key, d, want);
    errno = 0;
    long long v = strtoll(d->text, &end, 10);
    if (errno || end == d->text || *end || v < lo || v > SIZE_MAX_ANY)
        return wrong(r, key, d, want);
    *out = (int)v;
    return ST_OK;
}

static int read_bool(const struct reader *r, const char *key, bool dflt, bool *out)
{
    const struct doc *d = get(r->map, key);
    *out = dflt;
    if (!d) return ST_OK;
    bool yes = d->kind == DOC_SCALAR && strcmp(d->text, "true") == 0;
    bool no = d->kind == DOC_SCALAR && strcmp(d->text, "false") == 0;
    if (d->quoted || (!yes && !no)) return wrong(r, key, d, "true or false");
    *out = yes;
    return ST_OK;
}

/* A finite number from lo to hi in `map`, which is the file or its rope_scaling. */
static int read_number(const struct reader *r, const struct doc *map, const char *key, double lo,
                       double hi, double *out)
{
    const struct doc *d = get(map, key);
    char *end = NULL, want[80];
    if (!d) return ST_OK;
    snprintf(want, sizeof want, "a number from %g to %g", lo, hi);
    if (d->kind != DOC_SCALAR || d->quoted) return wrong(r, key, d, want);
    double v = strtod(d->text, &end);
    if (end == d->text || *end || !(v >= lo && v <= hi)) return wrong(r, key, d, want);
    *out = v;
    return ST_OK;
}

/* ---- parts of the file */

static const struct {
    const char *type;
    enum arch_family family;
} families[] = {
    { "llama", ARCH_LLAMA }, { "mistral", ARCH_LLAMA }, { "qwen2", ARCH_QWEN2 },
    { "qwen3", ARCH_QWEN3 }, { "falcon", ARCH_FALCON }, { "mixtral", ARCH_MIXTRAL },
};
#define FAMILY_WORDS "llama mistral qwen2 qwen3 falcon mixtral"
#define FAMILY_LIST  "llama, mistral, qwen2, qwen3, falcon, mixtral"

static int read_family(struct reader *r)
{
    const struct doc *d = get(r->map, "model_type");
    char near[64];
    if (!d)
        return err_set(r->e, ST_USAGE, "%s: the key model_type is missing; known are %s", r->name,
                       FAMILY_LIST);
    if (d->kind != DOC_SCALAR || !d->quoted)
        return wrong(r, "model_type", d, "one of " FAMILY_LIST);
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        if (strcmp(families[i].type, d->text) != 0) continue;
        r->a->family = families[i].family;
        r->type = families[i].type;
        return ST_OK;
    }
    const char *hint = conf_nearest(d->text, FAMILY_WORDS, near, sizeof near);
    return err_set(r->e, ST_USAGE, "%s: model_type '%.60s' is none of %s%s%s%s", r->name, d->text,
                   FAMILY_LIST, hint ? "; did you mean '" : "", hint ? hint : "", hint ? "'?" : "");
}

/* rope_scaling, or rope_parameters as newer files call it (which holds rope_theta too). */
static int read_rope(const struct reader *r)
{
    const struct doc *d = get(r->map, "rope_parameters"), *type;
    int st;
    r->a->rope_theta = 10000; /* default of all families */
    r->a->rope_factor = 1;
    if ((st = read_number(r, r->map, "rope_theta", 1, 1e12, &r->a->rope_theta)) != ST_OK) return st;
    if (!d) d = get(r->map, "rope_scaling");
    if (!d) return ST_OK;
    if (d->kind != DOC_MAP) return wrong(r, "rope_scaling", d, "a map");
    if ((st = read_number(r, d, "rope_theta", 1, 1e12, &r->a->rope_theta)) != ST_OK) return st;
    if (!(type = get(d, "rope_type"))) type = get(d, "type");
    if (!type) return err_set(r->e, ST_USAGE, "%s: rope_scaling has no rope_type", r->name);
    if (type->kind == DOC_SCALAR && strcmp(type->text, "default") == 0) return ST_OK;
    if (type->kind != DOC_SCALAR || strcmp(type->text, "llama3") != 0)
        return wrong(r, "rope_type", type, "llama3 or default (others are not modelled)");
    if (!get(d, "factor"))
        return err_set(r->e, ST_USAGE, "%s: rope_scaling has no factor", r->name);
    return read_number(r, d, "factor", 1, 1024, &r->a->rope_factor);
}

/* KV heads and head size. Llama and Falcon take as many KV heads as heads where the key is absent
 * (their older files); head_dim is hidden / heads, but 128 for Qwen3. */
static int read_heads(const struct reader *r)
{
    struct arch *a = r->a;
    bool old = strcmp(r->type, "llama") == 0 || a->family == ARCH_FALCON;
    const char *kv_key = a->family == ARCH_FALCON ? "num_kv_heads" : "num_key_value_heads";
    int st = read_size(r, kv_key, 1, old ? a->n_head : -1, &a->n_kv_head);
    if (st == ST_OK)
        st = read_size(r, "head_dim", 1, a->family == ARCH_QWEN3 ? 128 : 0, &a->head_dim);
    if (st != ST_OK) return st;
    if (a->head_dim == 0 && a->hidden % a->n_head != 0)
        return err_set(
            r->e, ST_USAGE,
            "%s: hidden_size %d is not a multiple of num_attention_heads %d and there is "
            "no head_dim",
            r->name, a->hidden, a->n_head);
    if (a->head_dim == 0) a->head_dim = a->hidden / a->n_head;
    if (a->n_head % a->n_kv_head != 0)
        return err_set(r->e, ST_USAGE, "%s: num_attention_heads %d is not a multiple of %s %d",
                       r->name, a->n_head, kv_key, a->n_kv_head);
    return ST_OK;
}

/* Llama has no window whatever its file says; an absent key means 4096 for Mistral and Qwen, null
 * means none. Windows that hold in some layers only would need a context sum per layer: refused. */
static int read_window(const struct reader *r)
{
    struct arch *a = r->a;
    if (strcmp(r->type, "llama") == 0) return ST_OK;
    int dflt = doc_get(r->map, "sliding_window") || a->family == ARCH_MIXTRAL ? 0 : 4096;
    bool qwen = a->family == ARCH_QWEN2 || a->family == ARCH_QWEN3, use = true;
    int full = 0, st = read_size(r, "sliding_window", 1, dflt, &a->sliding_window);
    if (st == ST_OK && qwen) st = read_bool(r, "use_sliding_window", false, &use);
    if (st == ST_OK && qwen) st = read_size(r, "max_window_layers", 0, 28, &full);
    if (st != ST_OK) return st;
    if (!use || full >= a->n_layer)
        a->sliding_window = 0; /* the first `full` layers have none */
    else if (full > 0 && a->sliding_window > 0)
        return err_set(
            r->e, ST_USAGE,
            "%s: max_window_layers %d of %d: a sliding window in some layers only is not "
            "modelled",
            r->name, full, a->n_layer);
    return ST_OK;
}

static int read_experts(const struct reader *r)
{
    struct arch *a = r->a;
    int st = read_size(r, "num_local_experts", 1, 8, &a->n_expert);
    if (st == ST_OK) st = read_size(r, "num_experts_per_tok", 1, 2, &a->top_k);
    if (st == ST_OK && a->top_k > a->n_expert)
        st = err_set(r->e, ST_USAGE, "%s: num_experts_per_tok %d exceeds num_local_experts %d",
                     r->name, a->top_k, a->n_expert);
    return st;
}

/* Llama, Mistral, Qwen2, Qwen3, Mixtral: gated MLP, RMSNorm twice a layer. */
static int read_llama_like(const struct reader *r)
{
    struct arch *a = r->a;
    bool bias = false;
    int st = read_size(r, "intermediate_size", 1, -1, &a->ffn);
    if (st == ST_OK) st = read_size(r, "max_position_embeddings", 1, -1, &a->max_ctx);
    if (st == ST_OK) st = read_heads(r);
    if (st == ST_OK) st = read_window(r);
    if (st == ST_OK) st = read_bool(r, "tie_word_embeddings", false, &a->tied);
    if (st == ST_OK) st = read_bool(r, "attention_bias", false, &bias);
    if (st == ST_OK) st = read_bool(r, "mlp_bias", false, &a->mlp_bias);
    if (st == ST_OK && a->family == ARCH_MIXTRAL) st = read_experts(r);
    a->gated_mlp = true;
    a->n_norm_layer = 2;
    a->qk_norm = a->family == ARCH_QWEN3;
    a->qkv_bias = bias || a->family == ARCH_QWEN2; /* Qwen2 has it always, and no key for it */
    a->o_bias = bias && a->family != ARCH_QWEN2;
    if (st == ST_OK && a->mlp_bias && a->n_expert > 0)
        st = err_set(r->e, ST_USAGE, "%s: mlp_bias with experts is not modelled", r->name);
    return st;
}

/* Falcon: KV heads and norms follow from three flags (modeling_falcon.py). */
static int read_falcon(const struct reader *r)
{
    struct arch *a = r->a;
    bool multi, grouped, bias, parallel;
    int n_norm, st = read_bool(r, "multi_query", true, &multi);
    if (st == ST_OK) st = read_bool(r, "new_decoder_architecture", false, &grouped);
    if (st == ST_OK) st = read_bool(r, "parallel_attn", true, &parallel);
    if (st == ST_OK) st = read_bool(r, "bias", false, &bias);
    if (st == ST_OK) st = read_bool(r, "tie_word_embeddings", true, &a->tied);
    if (st == ST_OK) st = read_heads(r);
    if (st == ST_OK) st = read_size(r, "num_ln_in_parallel_attn", 1, 2, &n_norm);
    if (st != ST_OK) return st;
    if (n_norm > 2)
        return err_set(r->e, ST_USAGE, "%s: num_ln_in_parallel_attn is %d, expected 1 or 2",
                       r->name, n_norm);
    /* num_kv_heads counts in the new decoder only; the old one has one KV head or all of them. */
    if (!grouped) a->n_kv_head = multi ? 1 : a->n_head;
    a->parallel_attn = parallel || grouped;
    a->n_norm_layer = grouped ? n_norm : parallel ? 1 : 2;
    a->layer_norm = true;
    a->qkv_bias = a->o_bias = a->mlp_bias = bias;
    if ((int64_t)a->hidden * 4 > SIZE_MAX_ANY)
        return err_set(r->e, ST_USAGE, "%s: hidden_size %d needs an MLP wider than 2^24", r->name,
                       a->hidden);
    st = read_size(r, "ffn_hidden_size", 1, 4 * a->hidden, &a->ffn);
    if (st == ST_OK) st = read_size(r, "max_position_embeddings", 1, 2048, &a->max_ctx);
    return st;
}

/* In double, before the exact counts, which could overflow. */
static int check_total(const struct reader *r)
{
    const struct arch *a = r->a;
    double d = a->head_dim, h = a->hidden, f = a->ffn, n = a->n_expert ? a->n_expert : 1;
    double layer = 2 * (h + 1) * d * ((double)a->n_head + a->n_kv_head) + 3 * (h + 1) * (f + 1) * n;
    double total = 2 * (double)a->vocab * h + a->n_layer * (layer + 8 * h);
    if (total <= PARAMS_MAX) return ST_OK;
    return err_set(r->e, ST_USAGE, "%s: these sizes give about %.3g parameters; at most 1e15",
                   r->name, total);
}

/* The file stem: "scenarios/models/llama-3-70b.json" is "llama-3-70b". */
static void set_name(struct arch *a, const char *path)
{
    const char *slash = strrchr(path, '/'), *stem = slash ? slash + 1 : path;
    size_t n = strlen(stem);
    if (n > 5 && strcmp(stem + n - 5, ".json") == 0) n -= 5;
    if (n >= sizeof a->name) n = sizeof a->name - 1;
    memcpy(a->name, stem, n);
    a->name[n] = 0;
}

static int read_map(const char *name, const struct doc *map, struct arch *out, struct err *e)
{
    struct arch a = { 0 };
    struct reader r = { name, "", map, &a, e };
    if (map->kind != DOC_MAP) return err_set(e, ST_USAGE, "%s: not a JSON object", name);
    set_name(&a, name);
    int st = read_family(&r);
    if (st == ST_OK) st = read_size(&r, "hidden_size", 1, -1, &a.hidden);
    if (st == ST_OK) st = read_size(&r, "num_hidden_layers", 1, -1, &a.n_layer);
    if (st == ST_OK) st = read_size(&r, "num_attention_heads", 1, -1, &a.n_head);
    if (st == ST_OK) st = read_size(&r, "vocab_size", 1, -1, &a.vocab);
    if (st == ST_OK) st = read_rope(&r);
    if (st == ST_OK) st = a.family == ARCH_FALCON ? read_falcon(&r) : read_llama_like(&r);
    if (st == ST_OK) st = check_total(&r);
    if (st == ST_OK) *out = a;
    return st;
}

int arch_parse(const char *name, const void *bytes, unsigned long n, struct arch *out,
               struct err *e)
{
    struct arena a;
    struct doc *d = NULL;
    assert(name && out);
    if (n > CONFIG_BYTES)
        return err_set(e, ST_USAGE, "%s: %lu bytes is no config.json; at most 16 MiB", name, n);
    arena_init(&a);
    int st = doc_parse_json(&a, name, bytes, n, &d, e);
    if (st == ST_OK) st = read_map(name, d, out, e);
    arena_release(&a);
    return st;
}

int arch_read(const char *path, struct arch *out, struct err *e)
{
    struct arena a;
    char *bytes = NULL;
    size_t n = 0;
    arena_init(&a);
    int st = doc_read_bytes(&a, path, CONFIG_BYTES, &bytes, &n, e);
    if (st == ST_OK) st = arch_parse(path, bytes, n, out, e);
    arena_release(&a);
    return st;
}

/* ---- counts; int64_t is enough below PARAMS_MAX */

int64_t arch_params_attn(const struct arch *a)
{
    int64_t q = (int64_t)a->n_head * a->head_dim, kv = (int64_t)a->n_kv_head * a->head_dim;
    int64_t n = a->hidden * (q + 2 * kv) + q * a->hidden;
    if (a->qkv_bias) n += q + 2 * kv;
    if (a->o_bias) n += a->hidden;
    if (a->qk_norm) n += 2 * (int64_t)a->head_dim;
    return n;
}

int64_t arch_params_mlp(const struct arch *a)
{
    int64_t in = a->gated_mlp ? 2 : 1, f = a->ffn, h = a->hidden;
    int64_t one = (in + 1) * h * f + (a->mlp_bias ? in * f + h : 0);
    return a->n_expert > 0 ? a->n_expert * one + h * a->n_expert : one;
}

static int64_t norm_params(const struct arch *a)
{
    return (int64_t)a->hidden * (a->layer_norm ? 2 : 1);
}

int64_t arch_params_layer(const struct arch *a)
{
    return arch_params_attn(a) + arch_params_mlp(a) + a->n_norm_layer * norm_params(a);
}

int64_t arch_params_embed(const struct arch *a)
{
    return (int64_t)a->vocab * a->hidden;
}

int64_t arch_params_head(const struct arch *a)
{
    return a->tied ? 0 : (int64_t)a->vocab * a->hidden;
}

int64_t arch_params(const struct arch *a)
{
    return arch_params_embed(a) + a->n_layer * arch_params_layer(a) + norm_params(a) +
           arch_params_head(a);
}

int64_t arch_params_active(const struct arch *a)
{
    int64_t idle = a->n_expert - a->top_k,
            one = (a->gated_mlp ? 3 : 2) * (int64_t)a->hidden * a->ffn;
    return arch_params(a) - (a->n_expert > 0 ? a->n_layer * idle * one : 0);
}

double arch_kv_bytes_layer(const struct arch *a, double elt_bytes)
{
    return 2.0 * a->n_kv_head * a->head_dim * elt_bytes;
}
