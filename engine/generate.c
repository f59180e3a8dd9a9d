/* engine/generate.c - prefill by chunks, then a token a step.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/generate.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/progress.h"
#include "base/rng.h"
#include "base/stop.h"

enum { BLOCK_TOK = 16 };

struct run {
    const struct generate_opts *o;
    struct generate_result *r;
    struct engine *g;
    int32_t *block; /* [n_block]: one request owns the pool, block i is its i-th */
    int32_t n_block;
    struct rng draws;
};

static int check(const struct generate_opts *o, const struct spec *s, struct err *e)
{
    int64_t n = (int64_t)o->n_prompt + o->max_new;
    if (o->n_prompt < 1) return err_set(e, ST_USAGE, "the prompt has no tokens");
    if (o->max_new < 1) return err_set(e, ST_USAGE, "nothing to generate: max-new is at least 1");
    if (n > s->a.max_ctx)
        return err_set(e, ST_USAGE,
                       "%d tokens of prompt and %d of output are more than the context of %s, %d",
                       o->n_prompt, o->max_new, s->a.name, s->a.max_ctx);
    for (int32_t i = 0; i < o->n_prompt; i++)
        if (o->prompt[i] < 0 || o->prompt[i] >= s->a.vocab)
            return err_set(e, ST_USAGE, "token %d of the prompt is %d; the vocabulary of %s has %d",
                           i + 1, o->prompt[i], s->a.name, s->a.vocab);
    return ST_OK;
}

/* Tokens [pos, pos + n) through the model; token k of the output from the last row if k >= 0. */
static int feed(struct run *u, const int32_t *tok, int32_t pos, int32_t n, int32_t k, struct err *e)
{
    const struct generate_opts *o = u->o;
    struct engine_seq seq = { .n_q = n, .pos = pos, .block = u->block };
    struct engine_out out = {
        .row = n - 1, .temperature = o->temperature, .top_k = o->top_k, .top_p = o->top_p
    };
    struct engine_step s = {
        .n_tok = n, .n_seq = 1, .n_out = k >= 0, .tok = tok, .seq = &seq, .out = &out
    };
    struct engine_result r;
    seq.n_block = (pos + n + BLOCK_TOK - 1) / BLOCK_TOK;
    if (k >= 0) out.u = rng_unit(u->draws, (uint64_t)k);
    if (stop_asked()) return engine_stopped(u->g, e);
    int st = engine_submit(u->g, &s, e);
    if (st == ST_OK) st = engine_collect(u->g, &r, e);
    if (st != ST_OK || k < 0) return st;
    u->r->tok[k] = r.tok[0];
    size_t vocab = (size_t)u->r->vocab;
    if (u->r->logits) memcpy(u->r->logits + (size_t)k * vocab, r.logits, vocab * sizeof(float));
    return ST_OK;
}

static int run(struct run *u, struct err *e)
{
    const struct generate_opts *o = u->o;
    int st = ST_OK;
    int64_t t0 = clock_mono_ns();
    for (int32_t at = 0; at < o->n_prompt && st == ST_OK; at += o->chunk) {
        bool last = o->n_prompt - at <= o->chunk;
        st = feed(u, o->prompt + at, at, last ? o->n_prompt - at : o->chunk, last ? 0 : -1, e);
    }
    int64_t t1 = clock_mono_ns();
    for (int32_t k = 1; k < o->max_new && st == ST_OK; k++)
        st = feed(u, &u->r->tok[k - 1], o->n_prompt + k - 1, 1, k, e);
    u->r->prefill_s = 1e-9 * (double)(t1 - t0);
    u->r->decode_s = 1e-9 * (double)(clock_mono_ns() - t1);
    return st;
}

static void account(struct run *u)
{
    struct generate_result *r = u->r;
    for (int i = 0; i < engine_n_rank(u->g); i++) {
        struct engine_rank_report p;
        engine_report(u->g, i, &p);
        const struct comm_count *c = &p.tp[COMM_ALLREDUCE];
        r->weight_bytes += p.weight_bytes;
        r->kv_bytes += p.kv_bytes;
        r->read_bytes += p.read_bytes;
        if (p.load_s > r->load_s) r->load_s = p.load_s;
        r->allreduce.calls += c->calls;
        r->allreduce.bytes += c->bytes;
        r->allreduce.ns += c->ns;
        if (c->max_ns > r->allreduce.max_ns) r->allreduce.max_ns = c->max_ns;
    }
    comm_sum_add(&r->comm, u->g);
}

int generate_run(const struct generate_opts *o, struct generate_result *r, struct err *e)
{
    struct spec spec;
    struct run u = { .o = o, .r = r };
    struct engine_opts eo = o->e;
    *r = (struct generate_result){ 0 };
    int st = spec_read(o->e.model, &spec, e);
    if (st == ST_OK) st = check(o, &spec, e);
    if (st != ST_OK) return st;
    u.n_block = (o->n_prompt + o->max_new + BLOCK_TOK - 1) / BLOCK_TOK;
    eo.m.max_ctx = o->n_prompt + o->max_new;
    eo.m.block_tok = BLOCK_TOK;
    eo.m.n_block = eo.max_table = u.n_block;
    eo.m.max_tok = o->n_prompt < o->chunk ? o->n_prompt : o->chunk;
    eo.m.max_out = 1;
    if (!(u.g = engine_open(&eo, e))) return e && e->status != ST_OK ? e->status : ST_USAGE;
    r->vocab = spec.a.vocab;
    r->kernels = engine_kernels(u.g);
    r->tok = mem_zalloc((size_t)o->max_new, sizeof *r->tok);
    if (o->e.logits)
        r->logits = mem_zalloc((size_t)o->max_new * (size_t)r->vocab, sizeof *r->logits);
    u.block = mem_zalloc((size_t)u.n_block, sizeof *u.block);
    for (int32_t i = 0; i < u.n_block; i++) u.block[i] = i;
    u.draws = rng_stream(o->seed, "engine.sample");
    st = run(&u, e);
    int stopped = engine_stop(u.g, st == ST_OK ? e : NULL);
    if (st == ST_OK) st = stopped;
    account(&u);
    engine_close(u.g);
    free(u.block);
    if (st != ST_OK) generate_release(r);
    return st;
}

void generate_release(struct generate_result *r)
{
    free(r->tok);
    free(r->logits);
    r->tok = NULL;
    r->logits = NULL;
}
