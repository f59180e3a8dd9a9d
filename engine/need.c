/* engine/need.c - see need.h. SPDX-License-Identifier: Apache-2.0 */
#include "engine/need.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/backend_gpu.h"
#include "engine/gpu.h"

double need_weight_bytes(const struct spec *s, const struct model_opts *o)
{
    /* int8: a byte and a scale of two bytes a group; auto: at least 16 bits */
    static const double each[] = { 2, 4, 2, 1.03, 2, 1, 1 };
    return (double)arch_params(&s->a) * each[o->weight];
}

double need_kv_bytes(const struct spec *s, const struct model_opts *o)
{
    double tok = (double)o->n_block * o->block_tok;
    return tok * 2 * s->a.n_layer * s->a.n_kv_head * s->a.head_dim * (o->kv == BACKEND_F32 ? 4 : 2);
}

/* The rows of the largest step, and their logits, in f32 (engine/model_load.c). */
static double step_bytes(const struct spec *s, const struct model_opts *o)
{
    const struct arch *a = &s->a;
    double row = 4.0 * a->hidden + 2.0 * a->head_dim * (a->n_head + a->n_kv_head) + 3.0 * a->ffn;
    return 4 * (row * o->max_tok + 2.0 * o->max_out * a->vocab);
}

/* Images, plans, staging: backend_gpu_mat.c, backend_gpu_step.c. */
double need_device_step_bytes(const struct spec *s, const struct model_opts *o)
{
    const struct arch *a = &s->a;
    double heads = (double)a->head_dim * a->n_head, kv = (double)a->head_dim * a->n_kv_head;
    double up = (a->gated_mlp ? 2.0 : 1.0) * a->ffn, rows = fmax(o->max_tok, o->max_out);
    double images = 3 * rows * 2 * fmax(fmax(a->hidden, a->ffn), heads);
    double planned = o->max_out < o->max_tok ? o->max_out : o->max_tok;
    if (planned > BACKEND_GPU_MAX_RECORD) planned = BACKEND_GPU_MAX_RECORD;
    double wide = fmax(fmax(a->vocab, up), fmax(heads + 2 * kv, fmax(a->hidden, a->ffn)));
    double table = o->max_out * ((double)o->max_ctx / o->block_tok + 1);
    double staged = 64 * rows + 64.0 * o->max_out + 4 * table;
    return step_bytes(s, o) + images + planned * 4 * wide + 4.0 * o->max_ctx * a->head_dim + staged;
}

static double available_bytes(void)
{
    char line[128];
    double kib = NAN;
    FILE *f = fopen("/proc/meminfo", "r");
    static const char key[] = "MemAvailable:";
    while (f && isnan(kib) && fgets(line, sizeof line, f))
        if (strncmp(line, key, sizeof key - 1) == 0) kib = strtod(line + sizeof key - 1, NULL);
    if (f) fclose(f);
    return 1024 * kib;
}

int need_memory(const struct spec *s, const struct model_opts *o, double share, struct err *e)
{
    double w = share * need_weight_bytes(s, o), kv = share * need_kv_bytes(s, o);
    double step = (share > 1 ? share : 1) * step_bytes(s, o), there = available_bytes();
    char times[32] = "";
    if (!(w + kv + step > there)) return ST_OK;
    if (share > 1) snprintf(times, sizeof times, "%.0f times ", share);
    return err_set(e, ST_USAGE,
                   "%s%s needs %.1f GB for weights, %.1f GB for KV and %.1f GB for a step of %d "
                   "tokens; %.1f GB of memory are available",
                   times, s->a.name, 1e-9 * w, 1e-9 * kv, 1e-9 * step, (int)o->max_tok,
                   1e-9 * there);
}

/* Layers and vocabulary may divide unevenly: sure only with a margin. */
int need_device(const struct spec *s, const struct model_opts *o, double share,
                const struct gpu_info *gpu, struct err *e)
{
    double w = share * need_weight_bytes(s, o), kv = share * need_kv_bytes(s, o);
    if (0.9 * (w + kv) <= (double)gpu->free_bytes) return ST_OK;
    return err_set(e, ST_USAGE,
                   "%s needs some %.1f GB for weights and %.1f GB for KV on each rank; of the "
                   "%.1f GB of %s %.1f GB are free",
                   s->a.name, 1e-9 * w, 1e-9 * kv, 1e-9 * (double)gpu->memory_bytes, gpu->name,
                   1e-9 * (double)gpu->free_bytes);
}

static bool besides(const char *name, bool tied)
{
    return strstr(name, "rotary_emb.inv_freq") || (tied && strcmp(name, "lm_head.weight") == 0);
}

int need_parameters(const struct spec *s, const struct weights *w, struct err *e)
{
    int64_t held = 0, wanted = arch_params(&s->a);
    if (w->random) return ST_OK;
    for (int i = 0; i < w->n_tensor; i++) {
        const struct safetensor *t = w->tensor[i];
        int elt = safetensors_elt_bytes(t->dtype);
        if (!besides(t->name, s->a.tied) && elt > 0) held += t->bytes / elt;
    }
    if (held <= wanted) return ST_OK;
    return err_set(e, ST_USAGE,
                   "%s: the checkpoint holds %" PRId64
                   " parameters, but config.json describes a model of %" PRId64,
                   w->path, held, wanted);
}
