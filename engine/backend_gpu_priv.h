/* engine/backend_gpu_priv.h - between backend_gpu.c (memory and operations), backend_gpu_mat.c
 * (matrices and images of activations) and backend_gpu_step.c (staging and recordings).
 *
 * Failures are kept in `err`, the first one wins; after it nothing is issued any more.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_BACKEND_GPU_PRIV_H
#define ENGINE_BACKEND_GPU_PRIV_H

#include "engine/backend_gpu.h"

enum {
    BACKEND_GPU_N_IMAGE =
        3, /* norm's, attention's and the activation's, of which a layer has two */
    BACKEND_GPU_MAX_DEPTH = 16
};

struct backend_mat {
    int n, k;
    enum gpu_elt elt;
    bool per_row; /* e4m3: a scale for each row, else all are equal */
    bool looked_up, multiplied;
    void *data;   /* [n][k] */
    float *scale; /* e4m3: [n] on the device */
    size_t bytes;
    /* e4m3 with one scale: rows on the host until all are there */
    unsigned char *waiting; /* [n][k] */
    enum elt from;
    int n_waiting;
};

struct backend_kv {
    struct gpu_kv kv;
    size_t bytes;
};

/* An activation in the format of products. */
struct image {
    const float *of; /* NULL: none */
    enum gpu_elt type;
    uint64_t used;
    void *data;   /* [image_bytes] */
    float *scale; /* e4m3's, and the parts that it is found from: [1 + GPU_MAX_PART] */
    bool only;    /* the f32 values themselves were not written */
};

/* Where the arrays of a step lie in its staging buffer, bytes. */
struct layout {
    size_t sample, tok, pos, slot, row, n_q, first, tile, out, weave, table, bytes;
};

/* What a step issues depends on these only, besides what lies in device memory. */
struct shape {
    int32_t n_tok, n_seq, n_out, n_tile, n_split;
    bool ones; /* there are sequences of one token */
    bool all_ones;
};

struct recording {
    struct shape shape;
    struct gpu_graph *graph; /* NULL: issued once, to be recorded the next time */
};

struct backend_gpu {
    struct backend b;
    struct gpu *g;
    struct team *team;
    struct err err;
    void **held; /* host memory to free at the end */
    int n_held;
    struct backend_mat **mat;
    int n_mat;
    int32_t block_tok; /* of the KV caches */
    int32_t n_kv_head, head_dim;
    /* weights on their way */
    unsigned char *bounce;
    size_t bounce_used;
    /* images */
    enum gpu_elt image_type; /* of most matrices; F32: none */
    bool uniform;            /* of all of them */
    size_t image_bytes;
    struct image image[BACKEND_GPU_N_IMAGE];
    uint64_t clock;
    float *one; /* 1.0 on the device: the scale of matrices that have one for each row */
    /* steps */
    struct backend_room room;
    bool has_room, in_step;
    int32_t most; /* sequences of the largest recording; 0: none are made */
    unsigned char *pinned[BACKEND_GPU_MAX_DEPTH], *staged;
    size_t staged_bytes;
    int32_t *tok, *tok_host[BACKEND_GPU_MAX_DEPTH];  /* [max_out] */
    struct gpu_event *copied[BACKEND_GPU_MAX_DEPTH]; /* pinned[i] has been read */
    int ring, n_ring;                                /* slot in use; slots */
    struct layout lay;
    struct gpu_step s;
    struct shape shape;
    bool sampled, recording, prepared;
    struct recording *rec;
    int n_rec;
    int64_t *tiles;    /* [max_tok] scratch: tiles of the step, sorted */
    float *part, *lse; /* of split attention */
    float *scratch;    /* [scratch_n]: most rows of the widest; what plans write */
    size_t scratch_n;
    struct backend_gpu_count count;
};

static inline struct backend_gpu *backend_gpu_of(struct backend *b)
{
    return (struct backend_gpu *)b;
}

static inline bool backend_gpu_failed(const struct backend_gpu *c)
{
    return c->err.status != ST_OK;
}

/* backend_gpu.c */
void *backend_gpu_alloc(struct backend *b, size_t bytes, struct err *e);
void *backend_gpu_hold(struct backend_gpu *c, size_t bytes); /* zeroed host memory until close */
void backend_gpu_launch(struct backend_gpu *c, enum gpu_kern k, const void *args);
void backend_gpu_wait(struct backend_gpu *c);

/* backend_gpu_mat.c */
bool backend_gpu_takes(const struct backend *b, enum backend_type type);
struct backend_mat *backend_gpu_mat_new(struct backend *b, enum backend_type type, int n, int k,
                                        struct err *e);
void backend_gpu_mat_rows(struct backend *b, struct backend_mat *w, int n_at, int n_row,
                          enum elt from, const void *rows);
size_t backend_gpu_mat_bytes(const struct backend_mat *w);
void backend_gpu_mat_release(struct backend_gpu *c);
void backend_gpu_mm(struct backend *b, const struct backend_mm *a);
/* Scratch of products of up to m rows. */
int backend_gpu_reserve(struct backend *b, int32_t m, struct err *e);
/* Chooses algorithms for m rows with all matrices that are multiplied, but for those whose input or
 * output is more than y[n] has room for. */
void backend_gpu_plan(struct backend_gpu *c, int32_t m, float *y, size_t n);
/* Values that are no zeros, for such products' input. */
void backend_gpu_plan_input(struct backend_gpu *c);
/* Columns of the widest result of a product, or f32 input. */
int32_t backend_gpu_widest(const struct backend_gpu *c);
/* y[n] is about to be written by a kernel that can write an image too: where to, NULL: nowhere.
 * *f32: whether y itself is needed. */
void *backend_gpu_image(struct backend_gpu *c, const float *y, int64_t n, bool *f32);
/* y has been written: images of it are past. */
void backend_gpu_written(struct backend_gpu *c, const float *y);
void backend_gpu_no_images(struct backend_gpu *c);

/* backend_gpu_step.c */
int backend_gpu_room(struct backend *b, const struct backend_room *r, struct err *e);
void backend_gpu_prepare(struct backend *b, float *scratch, size_t n);
bool backend_gpu_begin(struct backend *b, struct backend_step *s);
void backend_gpu_end(struct backend *b);
void backend_gpu_weave(struct backend *b, const float *x, float *y, int32_t n);
void backend_gpu_sample(struct backend *b, const float *logits);
const int32_t *backend_gpu_tokens(struct backend *b);
void backend_gpu_forget(struct backend *b);
/* An operation that needs the step's arrays: fails outside of one. */
bool backend_gpu_in_step(struct backend_gpu *c, const char *what);

#endif
