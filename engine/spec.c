/* engine/spec.c - the keys of config.json that only running a model needs.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/spec.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/arena.h"
#include "base/doc.h"

enum { CONFIG_BYTES = 16 << 20, PATH_BYTES = 4096 };
static const double PI = 3.14159265358979323846;

static int number(const struct doc *map, const char *key, double lo, double hi, double *out,
                  struct err *e)
{
    const struct doc *d = doc_get(map, key);
    char *end = NULL;
    if (!d || (d->kind == DOC_SCALAR && strcmp(d->text, "null") == 0)) return ST_OK;
    double v = d->kind == DOC_SCALAR && !d->quoted ? strtod(d->text, &end) : NAN;
    if (!end || end == d->text || *end || !(v >= lo && v <= hi))
        return err_set(e, ST_USAGE, "%s: %s is not a number from %g to %g", map->file, key, lo, hi);
    *out = v;
    return ST_OK;
}

static bool is_true(const struct doc *map, const char *key)
{
    const struct doc *d = doc_get(map, key);
    return d && d->kind == DOC_SCALAR && strcmp(d->text, "true") == 0;
}

static int read_act(const struct doc *map, struct spec *s, struct err *e)
{
    bool falcon = s->a.family == ARCH_FALCON;
    const char *key = falcon ? "activation" : "hidden_act", *want = falcon ? "gelu" : "silu";
    const struct doc *d = doc_get(map, key);
    s->act = falcon ? SPEC_GELU : SPEC_SILU;
    if (d && (d->kind != DOC_SCALAR || strcmp(d->text, want) != 0))
        return err_set(e, ST_USAGE, "%s: %s is %.40s; the engine has %s for this family only",
                       map->file, key, d->kind == DOC_SCALAR ? d->text : "no word", want);
    return ST_OK;
}

static int read_rope(const struct doc *map, struct spec *s, struct err *e)
{
    double part = 1;
    const struct doc *rope = doc_get(map, "rope_parameters");
    if (!rope || rope->kind != DOC_MAP) rope = doc_get(map, "rope_scaling");
    int st = number(map, "partial_rotary_factor", 0, 1, &part, e);
    if (st != ST_OK) return st;
    if (rope && rope->kind == DOC_MAP) st = number(rope, "partial_rotary_factor", 0, 1, &part, e);
    if (st == ST_OK && part < 1)
        st = err_set(e, ST_USAGE, "%s: partial_rotary_factor %g: the engine rotates whole heads",
                     map->file, part);
    if (st != ST_OK || s->a.rope_factor == 1) return st;
    s->rope_low = s->rope_high = s->rope_ctx = NAN;
    st = number(rope, "low_freq_factor", 1e-6, 1e6, &s->rope_low, e);
    if (st == ST_OK) st = number(rope, "high_freq_factor", 1e-6, 1e6, &s->rope_high, e);
    if (st == ST_OK) st = number(rope, "original_max_position_embeddings", 1, 1e9, &s->rope_ctx, e);
    if (st == ST_OK && !(s->rope_low < s->rope_high && s->rope_ctx >= 1))
        st = err_set(e, ST_USAGE,
                     "%s: llama3 rope scaling needs low_freq_factor < high_freq_factor and "
                     "original_max_position_embeddings",
                     map->file);
    return st;
}

static int read_rest(const struct doc *map, struct spec *s, struct err *e)
{
    bool falcon = s->a.family == ARCH_FALCON;
    int st = ST_OK;
    if (s->a.n_expert > 0)
        st = err_set(e, ST_USAGE, "%s: the engine runs dense models only, not experts", map->file);
    else if (doc_get(map, "quantization_config"))
        st = err_set(e, ST_USAGE,
                     "%s: quantization_config: the engine reads f32, f16 and bf16 weights only",
                     map->file);
    /* Falcon's early files have no key "alibi": it is false by default. */
    else if (falcon && is_true(map, "alibi"))
        st = err_set(e, ST_USAGE, "%s: alibi: the engine has rotary positions only", map->file);
    else if (s->a.head_dim % 2 != 0)
        st = err_set(e, ST_USAGE, "%s: head_dim %d is odd: rotary positions need pairs", map->file,
                     s->a.head_dim);
    /* Defaults of transformers' configuration classes. */
    s->norm_eps = falcon ? 1e-5 : 1e-6;
    if (st == ST_OK)
        st = number(map, falcon ? "layer_norm_epsilon" : "rms_norm_eps", 0, 1, &s->norm_eps, e);
    if (st == ST_OK) st = read_act(map, s, e);
    if (st == ST_OK) st = read_rope(map, s, e);
    return st;
}

/* A checkpoint is called by its directory: its file is config.json everywhere. */
static void name_by_dir(const char *dir, struct arch *a)
{
    size_t end = strlen(dir);
    while (end > 1 && dir[end - 1] == '/') end--;
    size_t at = end;
    while (at > 0 && dir[at - 1] != '/') at--;
    snprintf(a->name, sizeof a->name, "%.*s", (int)(end - at), dir + at);
}

int spec_read(const char *path, struct spec *out, struct err *e)
{
    struct arena a;
    struct stat info;
    struct doc *map = NULL;
    struct spec s = { 0 };
    char file[PATH_BYTES], *bytes = NULL;
    size_t n = 0;
    bool dir = stat(path, &info) == 0 && S_ISDIR(info.st_mode);
    if ((size_t)snprintf(file, sizeof file, "%s%s", path, dir ? "/config.json" : "") >= sizeof file)
        return err_set(e, ST_IO, "the path %.60s... is too long", path);
    arena_init(&a);
    int st = doc_read_bytes(&a, file, CONFIG_BYTES, &bytes, &n, e);
    if (st == ST_OK) st = arch_parse(file, bytes, n, &s.a, e);
    if (st == ST_OK) st = doc_parse_json(&a, file, bytes, n, &map, e);
    if (st == ST_OK) st = read_rest(map, &s, e);
    if (st == ST_OK && dir) name_by_dir(path, &s.a);
    if (st == ST_OK) *out = s;
    arena_release(&a);
    return st;
}

double spec_rope_rate(const struct spec *s, int i)
{
    double rate = pow(s->a.rope_theta, -2.0 * i / s->a.head_dim);
    if (s->a.rope_factor == 1) return rate;
    double turns = s->rope_ctx * rate / (2 * PI); /* full turns within the original context */
    if (turns > s->rope_high) return rate;
    if (turns < s->rope_low) return rate / s->a.rope_factor;
    double smooth = (turns - s->rope_low) / (s->rope_high - s->rope_low);
    return (1 - smooth) * rate / s->a.rope_factor + smooth * rate;
}
