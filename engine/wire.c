/* engine/wire.c - packing and unpacking of step messages; all ranks run the same program.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/wire.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"

struct head {
    int32_t op, n_tok, n_seq, n_out, n_table, reserved;
};
struct seq {
    int32_t row, n_q, pos, table_at;
};

static size_t bytes_of(const struct head *h)
{
    return sizeof *h + (size_t)h->n_out * sizeof(struct engine_out) +
           (size_t)h->n_seq * sizeof(struct seq) +
           ((size_t)h->n_tok + (size_t)h->n_table) * sizeof(int32_t);
}

void wire_init(struct wire *w, const struct wire_limit *l)
{
    struct head most = { 0, l->max_tok, l->max_tok, l->max_out, l->max_table, 0 };
    *w = (struct wire){ .cap = bytes_of(&most) };
    w->bytes = mem_zalloc(1, w->cap);
    w->pos = mem_zalloc((size_t)l->max_tok, sizeof *w->pos);
    w->row = mem_zalloc((size_t)l->max_out, sizeof *w->row);
    w->sample = mem_zalloc((size_t)l->max_out, sizeof *w->sample);
    w->seq = mem_zalloc((size_t)l->max_tok, sizeof *w->seq);
}

void wire_release(struct wire *w)
{
    free(w->bytes);
    free(w->pos);
    free(w->row);
    free(w->sample);
    free(w->seq);
    *w = (struct wire){ 0 };
}

size_t wire_pack(struct wire *w, enum wire_op op, const struct engine_step *s)
{
    struct head h = { .op = op };
    if (s) {
        h.n_tok = s->n_tok;
        h.n_seq = s->n_seq;
        h.n_out = s->n_out;
        for (int32_t i = 0; i < s->n_seq; i++) h.n_table += s->seq[i].n_block;
    }
    size_t n = bytes_of(&h);
    assert(n <= w->cap);
    memcpy(w->bytes, &h, sizeof h);
    if (!s) return n;
    unsigned char *at = w->bytes + sizeof h;
    memcpy(at, s->out, (size_t)h.n_out * sizeof *s->out);
    struct seq *seq = (void *)(at + (size_t)h.n_out * sizeof *s->out);
    int32_t *tok = (void *)(seq + h.n_seq), *table = tok + h.n_tok, used = 0;
    memcpy(tok, s->tok, (size_t)h.n_tok * sizeof *tok);
    for (int32_t i = 0; i < h.n_seq; i++) {
        const struct engine_seq *q = &s->seq[i];
        seq[i] = (struct seq){ q->row, q->n_q, q->pos, used };
        memcpy(table + used, q->block, (size_t)q->n_block * sizeof *table);
        used += q->n_block;
    }
    return n;
}

void wire_unpack(struct wire *w)
{
    struct head h;
    memcpy(&h, w->bytes, sizeof h);
    assert(bytes_of(&h) <= w->cap);
    unsigned char *at = w->bytes + sizeof h;
    const struct seq *seq = (void *)(at + (size_t)h.n_out * sizeof *w->out);
    const int32_t *tok = (const void *)(seq + h.n_seq), *table = tok + h.n_tok;
    w->op = (enum wire_op)h.op;
    w->out = (void *)at;
    for (int32_t i = 0; i < h.n_seq; i++) {
        w->seq[i] = (struct backend_seq){ .row = seq[i].row,
                                          .n_q = seq[i].n_q,
                                          .pos = seq[i].pos,
                                          .block = table + seq[i].table_at };
        for (int32_t k = 0; k < seq[i].n_q; k++) w->pos[seq[i].row + k] = seq[i].pos + k;
    }
    for (int32_t i = 0; i < h.n_out; i++) {
        const struct engine_out *o = &w->out[i];
        w->row[i] = o->row;
        w->sample[i] = (struct backend_sample){ o->u, o->temperature, o->top_p, o->top_k };
    }
    w->step = (struct backend_step){ .n_tok = h.n_tok,
                                     .n_seq = h.n_seq,
                                     .n_out = h.n_out,
                                     .tok = tok,
                                     .pos = w->pos,
                                     .seq = w->seq,
                                     .out = w->row,
                                     .sample = w->sample };
}

/* ---- options: the struct itself, then what it points to */

static size_t put_text(const char *text, unsigned char *to)
{
    size_t n = text ? strlen(text) + 1 : 0;
    if (n) memcpy(to, text, n);
    return n;
}

size_t wire_pack_opts(const struct engine_opts *o, unsigned char *to)
{
    size_t split = o->split ? (size_t)o->pp * sizeof *o->split : 0, at = sizeof *o;
    size_t text = strlen(o->model) + (o->kernels ? strlen(o->kernels) : 0) + 2;
    if (at + split + text > WIRE_OPTS_BYTES) return 0;
    memcpy(to, o, sizeof *o);
    if (split) memcpy(to + at, o->split, split);
    at += split;
    at += put_text(o->model, to + at);
    return at + put_text(o->kernels, to + at);
}

void wire_unpack_opts(const unsigned char *from, struct engine_opts *o)
{
    const unsigned char *at = from + sizeof *o;
    memcpy(o, from, sizeof *o);
    o->backend = NULL;
    o->device.open = NULL;
    o->device.count = NULL;
    o->device.join = NULL;
    o->mpi = NULL;
    if (o->split) {
        o->split = (const void *)at;
        at += (size_t)o->pp * sizeof *o->split;
    }
    o->model = (const char *)at;
    if (o->kernels) o->kernels = o->model + strlen(o->model) + 1;
}
