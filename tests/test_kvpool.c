/* tests/test_kvpool.c - the counting KV pool against pools that keep every block by itself.
 *
 * Two references. `opool` has the semantics that kvpool.h declares, kept as plain arrays of blocks,
 * searched and counted anew each time; the pool must agree with it exactly after every operation.
 * `vpool` is vLLM V1's block pool as it is (one free queue, copies kept); the pool must hit nearly
 * the same tokens. SPDX-License-Identifier: Apache-2.0 */
#include "engine/kvpool.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/rng.h"
#include "tests/test.h"

enum { MAX_BLOCK = 64, MAX_CHAIN = 10, MAX_SEG = 6, N_TREE = 14, MAX_POS = 128 };

static uint64_t draw(struct rng *r, uint64_t n)
{
    static uint64_t at;
    return rng_below(*r, at++, n);
}

/* ---- a tree of segments: requests that share a path share its tokens */

struct seg_node {
    int parent, depth;
    struct trace_seg seg;
};

static void tree_make(struct seg_node *tree, struct rng *r, int bt)
{
    for (int i = 0; i < N_TREE; i++) {
        struct seg_node *n = &tree[i];
        n->parent = (int)draw(r, (uint64_t)i + 1) - 1;
        n->depth = n->parent < 0 ? 1 : tree[n->parent].depth + 1;
        if (n->depth > MAX_SEG) {
            n->parent = -1;
            n->depth = 1;
        }
        int64_t start = n->parent < 0 ? 0 : tree[n->parent].seg.end_tok;
        int64_t len = 1 + (int64_t)draw(r, (uint64_t)(3 * bt));
        if (draw(r, 3) == 0)
            len = (start / bt + 1 + (int64_t)draw(r, 3)) * bt - start; /* ends with a block */
        n->seg = (struct trace_seg){ .end_tok = start + len, .key = mix_pair(77, (uint64_t)i) };
    }
}

static int path_to(const struct seg_node *tree, int leaf, struct trace_seg *seg)
{
    if (leaf < 0) return 0;
    int n = tree[leaf].depth;
    for (int i = n - 1; i >= 0; i--, leaf = tree[leaf].parent) seg[i] = tree[leaf].seg;
    return n;
}

/* ---- the reference of the declared semantics */

enum { PLAIN, USED, CACHED };
struct oblock {
    int state;
    bool named;
    uint64_t key;
    int64_t idx, stamp;
};
struct ochain {
    bool live;
    struct trace_req req;
    struct trace_seg seg[MAX_SEG];
    int64_t tok, pending; /* tokens it has room for; tokens of bulk blocks not settled yet */
    int64_t full;
    int n, table[MAX_POS]; /* blocks by position */
    bool writes[MAX_SEG + 1];
    struct kvchain kv;
};
struct opool {
    int bt, n_block, n_loose, loose[MAX_BLOCK];
    bool share;
    int64_t clock;
    struct oblock b[MAX_BLOCK];
    struct ochain c[MAX_CHAIN];
};

static int64_t first_block_after(const struct opool *o, const struct trace_req *r, int j)
{
    return j < 0 ? 0 : j < r->n_seg ? r->seg[j].end_tok / o->bt : MAX_POS;
}

/* Segment that block pos belongs to: that of its last token; n_seg is the private tail. */
static int seg_of(const struct opool *o, const struct trace_req *r, int64_t pos)
{
    int j = 0;
    while (j < r->n_seg && r->seg[j].end_tok < (pos + 1) * o->bt) j++;
    return j;
}

static uint64_t key_of(const struct trace_req *r, int j)
{
    return j < r->n_seg ? r->seg[j].key : mix_pair(0xfeed, (uint64_t)r->id);
}

static int find_named(const struct opool *o, uint64_t key, int64_t idx)
{
    for (int i = 0; i < o->n_block; i++)
        if (o->b[i].named && o->b[i].key == key && o->b[i].idx == idx) return i;
    return -1;
}

static bool chain_uses(const struct opool *o, const struct ochain *c, uint64_t key)
{
    for (int i = 0; c->live && i < c->n; i++)
        if (o->b[c->table[i]].named && o->b[c->table[i]].key == key) return true;
    return false;
}

static bool anyone_uses(const struct opool *o, uint64_t key)
{
    for (int i = 0; i < MAX_CHAIN; i++)
        if (chain_uses(o, &o->c[i], key)) return true;
    return false;
}

static bool anyone_writes(const struct opool *o, uint64_t key)
{
    for (int i = 0; i < MAX_CHAIN; i++)
        for (int j = 0; o->c[i].live && j <= o->c[i].req.n_seg; j++)
            if (o->c[i].writes[j] && key_of(&o->c[i].req, j) == key) return true;
    return false;
}

static int count_state(const struct opool *o, int state)
{
    int n = 0;
    for (int i = 0; i < o->n_block; i++) n += o->b[i].state == state;
    return n;
}

static void forget_from(struct opool *o, uint64_t key, int64_t idx)
{
    for (int i = 0; i < o->n_block; i++)
        if (o->b[i].named && o->b[i].key == key && o->b[i].idx >= idx)
            o->b[i] = (struct oblock){ .state = PLAIN };
}

/* Blocks found for a chain that computes token max_tok next, of which *hit are hits, *idle of those
 * evictable. */
static int o_find(const struct opool *o, const struct trace_req *r, int64_t max_tok, int *table,
                  int64_t *hit, int64_t *idle)
{
    int n = 0;
    *hit = *idle = 0;
    for (int64_t pos = 0; o->share && pos < MAX_POS; pos++) {
        int j = seg_of(o, r, pos);
        uint64_t key = key_of(r, j);
        int i = find_named(o, key, pos - first_block_after(o, r, j - 1));
        bool whole = (pos + 1) * o->bt <= max_tok;
        if (i < 0 || (!whole && ((pos + 1) * o->bt > max_tok + 1 || anyone_uses(o, key)))) break;
        table[n++] = i;
        *hit += whole;
        *idle += whole && o->b[i].state == CACHED;
    }
    return n;
}

static int64_t o_open(struct opool *o, struct ochain *c, int64_t max_tok)
{
    int64_t hit, idle;
    int table[MAX_POS];
    int n = o_find(o, &c->req, max_tok, table, &hit, &idle);
    for (int i = 0; i < n; i++) {
        const struct oblock *b = &o->b[table[i]];
        if (i + 1 < n && o->b[table[i + 1]].key == b->key) continue;
        if (b->state == CACHED) forget_from(o, b->key, b->idx + 1);
    }
    for (int i = 0; i < n; i++) o->b[c->table[i] = table[i]].state = USED;
    c->n = n;
    c->full = hit;
    c->live = true;
    memset(c->writes, 0, sizeof c->writes);
    return hit * o->bt;
}

static bool o_take(struct opool *o, int64_t n, int *into)
{
    if (n > count_state(o, PLAIN) + count_state(o, CACHED)) return false;
    for (int64_t k = 0; k < n; k++) {
        int best = -1;
        for (int i = 0; i < o->n_block; i++) {
            const struct oblock *b = &o->b[i];
            if (b->state == PLAIN) {
                best = i;
                break;
            }
            if (b->state == CACHED && (best < 0 || b->stamp < o->b[best].stamp)) best = i;
        }
        o->b[best] = (struct oblock){ .state = USED };
        into[k] = best;
    }
    return true;
}

static void o_name(struct opool *o, struct ochain *c, int64_t tok)
{
    int64_t want = tok / o->bt;
    while (o->share && c->full < want) {
        int j = seg_of(o, &c->req, c->full);
        int64_t start = first_block_after(o, &c->req, j - 1),
                end = first_block_after(o, &c->req, j);
        uint64_t key = key_of(&c->req, j);
        c->full = end < want ? end : want;
        if (!c->writes[j]) {
            if (chain_uses(o, c, key)) {
                c->writes[j] = !anyone_writes(o, key);
            } else if (!anyone_uses(o, key)) {
                forget_from(o, key, 0);
                c->writes[j] = true;
            }
        }
        for (int64_t pos = start; c->writes[j] && pos < c->full; pos++) {
            if (find_named(o, key, pos - start) >= 0) continue;
            struct oblock *b = &o->b[c->table[pos]];
            b->named = true;
            b->key = key;
            b->idx = pos - start;
        }
    }
}

static bool o_grow(struct opool *o, struct ochain *c, int64_t tok, bool name)
{
    int64_t need = (tok + o->bt - 1) / o->bt - c->n;
    if (need > 0) {
        if (!o_take(o, need, c->table + c->n)) return false;
        c->n += (int)need;
    }
    if (name) o_name(o, c, tok);
    return true;
}

static void o_settle(struct opool *o, struct ochain *c, int64_t tok)
{
    while (c->n * o->bt < tok) c->table[c->n++] = o->loose[--o->n_loose];
    o_name(o, c, tok);
}

static void o_close(struct opool *o, struct ochain *c, bool dead)
{
    for (int i = 0; i < c->n; i++) { /* the partial last block, and second copies */
        struct oblock *b = &o->b[c->table[i]];
        if (b->named) continue;
        b->state = o->share ? CACHED : PLAIN;
        b->stamp = ++o->clock;
    }
    c->live = false;
    for (int pos = MAX_POS - 1; pos >= 0; pos--) { /* the deepest is evicted first */
        int j = seg_of(o, &c->req, pos);
        uint64_t key = key_of(&c->req, j);
        int i = find_named(o, key, pos - first_block_after(o, &c->req, j - 1));
        bool ours = false;
        for (int k = 0; k < c->n; k++) {
            const struct oblock *b = &o->b[c->table[k]];
            ours |= seg_of(o, &c->req, k) == j && (b->state == USED || b->state == CACHED) &&
                    b->named && b->key == key;
        }
        if (i < 0 || !ours || o->b[i].state != USED || anyone_uses(o, key)) continue;
        o->b[i].state = CACHED;
        o->b[i].stamp = ++o->clock;
    }
    for (int i = 0; dead && i < o->n_block; i++)
        if (o->b[i].named && o->b[i].key == key_of(&c->req, c->req.n_seg)) o->b[i].named = false;
}

/* ---- random operations on both */

struct pair {
    struct kvpool p;
    struct opool o;
    struct rng *rng;
    struct seg_node tree[N_TREE];
    int64_t next_id;
};
struct counts {
    int64_t op, hit, evict, refused, copy, in_place, resumed;
};

static int64_t below(struct pair *w, int64_t n)
{
    return (int64_t)draw(w->rng, (uint64_t)n);
}

static void settle(struct pair *w, struct ochain *c)
{
    if (!c->pending) return;
    c->tok = c->pending;
    c->pending = 0;
    kvpool_settle(&w->p, &c->kv, c->tok);
    o_settle(&w->o, c, c->tok);
}

static bool agree(struct pair *w, struct counts *n)
{
    const struct opool *o = &w->o;
    int64_t loose = o->n_loose;
    bool ok = true;
    for (int i = 0; i < MAX_CHAIN; i++)
        if (o->c[i].live) {
            loose += o->c[i].kv.own - o->c[i].kv.in_nodes;
            ok &= CHECK_INT(o->c[i].kv.blocks, o->c[i].n);
        }
    ok &= CHECK(kvpool_consistent(&w->p, loose));
    ok &= CHECK_INT(w->p.n_plain, count_state(o, PLAIN));
    ok &= CHECK_INT(w->p.n_cached, count_state(o, CACHED));
    ok &= CHECK_INT(kvpool_used(&w->p), count_state(o, USED));
    struct trace_seg seg[MAX_SEG];
    struct trace_req r = { .id = w->next_id, .seg = seg };
    int leaf = (int)below(w, N_TREE + 1) - 1, table[MAX_POS];
    r.n_seg = path_to(w->tree, leaf, seg);
    int64_t max_tok = below(w, MAX_POS), idle, want, want_idle,
            hit = kvpool_peek(&w->p, &r, max_tok, &idle);
    o_find(o, &r, max_tok, table, &want, &want_idle);
    n->op++;
    ok &= CHECK_INT(hit, want * o->bt);
    ok &= CHECK_INT(idle, want_idle);
    return ok;
}

static void new_request(struct pair *w, struct ochain *c)
{
    c->req = (struct trace_req){ .id = w->next_id++, .seg = c->seg };
    c->req.n_seg = path_to(w->tree, (int)below(w, N_TREE + 1) - 1, c->seg);
    int64_t end = c->req.n_seg ? c->seg[c->req.n_seg - 1].end_tok : 0,
            extra = below(w, 4) ? below(w, 24) : 0;
    int64_t total = end + extra < 2 ? 2 : end + extra;
    c->req.n_in = (int32_t)(below(w, 2) || total == 2 ? total - 1 : 1 + below(w, total - 1));
    c->req.n_out = (int32_t)(total - c->req.n_in);
    c->pending = 0;
}

static bool do_open(struct pair *w, struct ochain *c, int64_t target, struct counts *n)
{
    int64_t idle, seen = kvpool_peek(&w->p, &c->req, target - 1, &idle), before = w->p.hit_tok;
    int64_t room = kvpool_available(&w->p) - idle;
    int64_t got = kvpool_open(&w->p, &c->kv, &c->req, target - 1),
            want = o_open(&w->o, c, target - 1);
    bool ok = CHECK_INT(got, want) && CHECK_INT(seen, got) && CHECK_INT(w->p.hit_tok - before, got);
    n->hit += got > 0;
    n->in_place += c->n * w->o.bt > got;
    c->tok = got;
    if (below(w, 4) == 0) return ok; /* left without blocks of its own for now */
    bool fits = kvpool_blocks_for(&w->p, target) - got / w->o.bt <= room;
    if (fits && below(w, 3) == 0)
        ok = ok && CHECK(kvpool_reserve(&w->p, &c->kv, target)) && o_grow(&w->o, c, target, false);
    int64_t tok = fits && below(w, 2) ? target : got + 1 + below(w, target - got);
    bool grown = kvpool_grow(&w->p, &c->kv, tok);
    if (tok == target) ok &= CHECK(grown == fits);
    ok &= CHECK(o_grow(&w->o, c, tok, true) == grown);
    if (grown) c->tok = tok;
    n->refused += !grown;
    return ok;
}

static bool do_grow(struct pair *w, struct ochain *c, struct counts *n)
{
    settle(w, c);
    int64_t left = c->req.n_in + c->req.n_out - c->tok;
    if (left <= 0) return true;
    int64_t tok = c->tok + 1 + below(w, left);
    struct kvpool was = w->p;
    bool ok = kvpool_grow(&w->p, &c->kv, tok), want = o_grow(&w->o, c, tok, true);
    n->copy += c->kv.own - c->kv.in_nodes > 1;
    if (ok)
        c->tok = tok;
    else
        CHECK(was.n_plain == w->p.n_plain && was.n_cached == w->p.n_cached);
    n->refused += !ok;
    return CHECK(ok == want);
}

/* A decode step: every chain that has computed something gets one token more, blocks taken in bulk.
 */
static bool do_decode(struct pair *w, struct counts *n)
{
    struct opool *o = &w->o;
    bool in[MAX_CHAIN] = { false };
    int64_t need = 0;
    for (int i = 0; i < MAX_CHAIN; i++) {
        struct ochain *c = &o->c[i];
        int64_t tok = c->pending ? c->pending : c->tok;
        int64_t room = c->n * o->bt;
        in[i] = c->live && tok > 0 && tok < c->req.n_in + c->req.n_out &&
                (c->pending || room - tok < o->bt) && below(w, 3);
        if (in[i]) need += tok % o->bt == 0;
    }
    if (!kvpool_take(&w->p, need)) {
        n->refused++;
        return CHECK(need > count_state(o, PLAIN) + count_state(o, CACHED));
    }
    if (!CHECK(o_take(o, need, o->loose + o->n_loose))) return false;
    o->n_loose += (int)need;
    for (int i = 0; i < MAX_CHAIN; i++)
        if (in[i]) o->c[i].pending = (o->c[i].pending ? o->c[i].pending : o->c[i].tok) + 1;
    for (int i = 0; i < MAX_CHAIN; i++)
        if (below(w, 2)) settle(w, &o->c[i]);
    return true;
}

static void do_close(struct pair *w, struct ochain *c, bool dead)
{
    settle(w, c);
    kvpool_close(&w->p, &c->kv, dead);
    o_close(&w->o, c, dead);
}

static bool one_op(struct pair *w, struct counts *n)
{
    struct ochain *c = &w->o.c[below(w, MAX_CHAIN)];
    if (below(w, 4) == 0) return do_decode(w, n);
    if (!c->live) {
        new_request(w, c);
        return do_open(w, c, c->req.n_in, n);
    }
    switch (below(w, 4)) {
    case 0: do_close(w, c, true); return true;
    case 1: { /* preempted, and at once or later back */
        int64_t tok = (do_close(w, c, false), c->tok);
        if (!agree(w, n)) return false;
        n->resumed++;
        if (below(w, 3)) return do_open(w, c, tok < c->req.n_in ? c->req.n_in : tok + 1, n);
        return true;
    }
    default: return do_grow(w, c, n);
    }
}

static bool random_sequence(uint64_t seed, int n_op, bool share, struct counts *n)
{
    static const int bts[] = { 1, 2, 3, 4, 7, 16 };
    struct rng r = rng_stream(seed, "kvpool");
    static struct pair w;
    struct arena a;
    memset(&w, 0, sizeof w);
    arena_init(&a);
    w.rng = &r;
    w.o.bt = bts[draw(&r, 6)];
    w.o.n_block = 3 + (int)draw(&r, MAX_BLOCK - 3);
    w.o.share = share;
    tree_make(w.tree, &r, w.o.bt > 4 ? 4 : w.o.bt);
    kvpool_init(&w.p, w.o.n_block, w.o.bt, share, &a);
    bool ok = true;
    for (int k = 0; ok && k < n_op; k++) ok = one_op(&w, n) && agree(&w, n);
    for (int i = 0; i < MAX_CHAIN; i++)
        if (ok && w.o.c[i].live) do_close(&w, &w.o.c[i], true);
    ok = ok && agree(&w, n) && CHECK_INT(kvpool_available(&w.p), w.o.n_block) &&
         CHECK_INT(w.o.n_loose, 0);
    if (!share) CHECK_INT(w.p.hit_tok, 0);
    n->evict += w.p.evicted_blocks;
    arena_release(&a);
    if (!ok) printf("    seed %llu\n", (unsigned long long)seed);
    return ok;
}

TEST(kvpool_equals_a_pool_of_single_blocks)
{
    struct counts n = { 0 };
    for (uint64_t seed = 0; seed < 2400; seed++)
        if (!random_sequence(seed, 60, true, &n)) return;
    CHECK(n.hit > 5000 && n.evict > 5000 && n.refused > 1000 && n.copy > 1000);
    CHECK(n.in_place > 100 && n.resumed > 1000);
    if (getenv("ORRERY_COUNTS"))
        printf("    ops %lld hits %lld evicted %lld refused %lld copies %lld in place %lld resumed "
               "%lld\n",
               (long long)n.op, (long long)n.hit, (long long)n.evict, (long long)n.refused,
               (long long)n.copy, (long long)n.in_place, (long long)n.resumed);
}

TEST(kvpool_without_sharing_only_counts)
{
    struct counts n = { 0 };
    for (uint64_t seed = 0; seed < 300; seed++)
        if (!random_sequence(seed, 60, false, &n)) return;
    CHECK_INT(n.hit, 0);
    CHECK_INT(n.evict, 0);
}

/* ---- vLLM V1's block pool as it is */

enum { V_BLOCK = 400, V_LIVE = 6, V_POS = 64, V_GROUP = 24, V_TOK = 16 };
struct vblock {
    bool named;
    uint64_t key;
    int ref;
    int64_t stamp;
};
struct vchain {
    struct trace_req r;
    struct trace_seg seg[2];
    int n, table[V_POS];
    struct kvchain kv;
};
struct vpool {
    struct vblock b[V_BLOCK];
    int64_t clock;
};

static uint64_t v_key(const struct trace_req *r, int64_t pos)
{
    int j = 0;
    while (j < r->n_seg && r->seg[j].end_tok < (pos + 1) * V_TOK) j++;
    return mix_pair(key_of(r, j), (uint64_t)pos);
}

static int64_t v_open(struct vpool *v, struct vchain *c, int64_t max_tok)
{
    for (c->n = 0; (c->n + 1) * V_TOK <= max_tok; c->n++) {
        int found = -1;
        for (int i = 0; i < V_BLOCK && found < 0; i++)
            if (v->b[i].named && v->b[i].key == v_key(&c->r, c->n)) found = i;
        if (found < 0) break;
        v->b[found].ref++;
        c->table[c->n] = found;
    }
    return c->n * V_TOK;
}

static bool v_grow(struct vpool *v, struct vchain *c, int64_t tok)
{
    int had = c->n;
    while (c->n * V_TOK < tok) {
        int best = -1;
        for (int i = 0; i < V_BLOCK; i++)
            if (v->b[i].ref == 0 && (best < 0 || v->b[i].stamp < v->b[best].stamp)) best = i;
        if (best < 0) return false;
        v->b[best] = (struct vblock){ .ref = 1 };
        c->table[c->n++] = best;
    }
    for (int pos = had > 0 ? had - 1 : 0; (pos + 1) * V_TOK <= tok; pos++) {
        v->b[c->table[pos]].named = true;
        v->b[c->table[pos]].key = v_key(&c->r, pos);
    }
    return true;
}

static void v_close(struct vpool *v, struct vchain *c)
{
    while (c->n > 0)
        if (--v->b[c->table[--c->n]].ref == 0) v->b[c->table[c->n]].stamp = ++v->clock;
}

/* A mix of group prefixes under eviction pressure; some prompts are a prefix to the letter. Two
 * copies of one block are rare here, so hit tokens agree to 0.1 %. */
TEST(kvpool_hits_what_vllm_hits)
{
    static struct vpool v;
    static struct vchain c[V_LIVE];
    struct rng r = rng_stream(5, "vllm");
    struct kvpool p;
    struct arena a;
    int64_t hits[2] = { 0, 0 }, asked = 0;
    arena_init(&a);
    kvpool_init(&p, V_BLOCK, V_TOK, true, &a);
    for (int i = 0; i < V_BLOCK; i++) v.b[i].stamp = ++v.clock;
    for (int64_t id = 0; id < 3000; id++) {
        struct vchain *x = &c[id % V_LIVE];
        if (x->r.n_out) {
            int64_t end = x->r.n_in + x->r.n_out - 1;
            if (!CHECK(v_grow(&v, x, end) && kvpool_grow(&p, &x->kv, end))) break;
            v_close(&v, x);
            kvpool_close(&p, &x->kv, true);
        }
        uint64_t group = draw(&r, 1 + draw(&r, V_GROUP)), len = 40 + mix64(group) % 400;
        x->seg[0] =
            (struct trace_seg){ .end_tok = (int64_t)len / 2, .key = mix_pair(1, group / 3) };
        x->seg[0].end_tok = 20 + (int64_t)(mix64(group / 3) % 150);
        x->seg[1] = (struct trace_seg){ .end_tok = x->seg[0].end_tok + (int64_t)len,
                                        .key = mix_pair(2, group) };
        int64_t own = draw(&r, 5) ? (int64_t)draw(&r, 200) : 0;
        x->r = (struct trace_req){ .id = id, .seg = x->seg, .n_seg = 2 };
        x->r.n_in = (int32_t)(x->seg[1].end_tok + own);
        x->r.n_out = (int32_t)(1 + draw(&r, 60));
        asked += x->r.n_in;
        hits[0] += kvpool_open(&p, &x->kv, &x->r, x->r.n_in - 1);
        hits[1] += v_open(&v, x, x->r.n_in - 1);
        if (!CHECK(v_grow(&v, x, x->r.n_in) && kvpool_grow(&p, &x->kv, x->r.n_in))) break;
    }
    CHECK(hits[1] > asked / 4 && hits[1] < asked * 3 / 4);
    CHECK_NEAR((double)hits[0], (double)hits[1], 0.001);
    if (getenv("ORRERY_COUNTS"))
        printf("    hit tokens %lld, vLLM's pool %lld, of %lld\n", (long long)hits[0],
               (long long)hits[1], (long long)asked);
    arena_release(&a);
}

/* ---- known answers */

static int64_t serve(struct kvpool *p, const struct trace_req *r)
{
    struct kvchain c;
    int64_t hit = kvpool_open(p, &c, r, r->n_in - 1);
    CHECK(kvpool_grow(p, &c, r->n_in));
    kvpool_close(p, &c, true);
    return hit;
}

static struct trace_req request(int64_t id, const struct trace_seg *seg, int32_t n_in)
{
    return (
        struct trace_req){ .id = id, .n_in = n_in, .n_out = 1, .n_seg = seg != NULL, .seg = seg };
}

TEST(kvpool_known_answers)
{
    static const struct trace_seg s[4] = { { 100, 11 }, { 64, 12 }, { 64, 13 }, { 7, 14 } };
    struct trace_req a1 = request(1, &s[0], 150), a2 = request(2, &s[0], 170),
                     b = request(3, &s[1], 70), c = request(4, &s[2], 70),
                     big = request(5, NULL, 16 * 5), tiny = request(6, &s[3], 100),
                     exact1 = request(7, &s[1], 64), exact2 = request(8, &s[1], 64);
    struct arena a;
    struct kvpool p;
    int64_t idle;
    arena_init(&a);
    kvpool_init(&p, 40, 16, true, &a);
    CHECK_INT(serve(&p, &a1), 0);
    CHECK_INT(kvpool_peek(&p, &a2, 169, &idle), 96); /* 100 tokens hold six whole blocks */
    CHECK_INT(idle, 6);
    CHECK_INT(kvpool_peek(&p, &a2, 50, &idle), 48);
    CHECK_INT(serve(&p, &a2), 96);
    CHECK_INT(serve(&p, &tiny), 0); /* a segment shorter than a block shares nothing */
    CHECK_INT(serve(&p, &tiny), 0);
    CHECK_INT(p.hit_tok, 96);

    kvpool_init(&p, 11, 16, true, &a); /* 4 + 1, 4 + 1: one block left */
    serve(&p, &b);
    serve(&p, &c);
    CHECK_INT(serve(&p, &b), 64);  /* now c is the least recently used */
    CHECK_INT(serve(&p, &big), 0); /* the last ones of b and c, then three of c's */
    CHECK_INT(kvpool_peek(&p, &b, 69, &idle), 64);
    CHECK_INT(kvpool_peek(&p, &c, 69, &idle), 16); /* the deepest went first */
    CHECK_INT(p.evicted_blocks, 2 + 3);

    kvpool_init(&p, 4, 16, true, &a); /* a prompt cached to its very end, in a full pool */
    CHECK_INT(serve(&p, &exact1), 0);
    CHECK_INT(p.n_cached, 4);
    CHECK_INT(serve(&p, &exact2), 48); /* the last block is computed again, in place */
    CHECK_INT(p.n_cached, 4);
    kvpool_init(&p, 40, 16, false, &a);
    CHECK_INT(serve(&p, &a1), 0);
    CHECK_INT(serve(&p, &a2), 0);
    CHECK_INT(p.n_plain, 40);
    arena_release(&a);
}

TEST(kvpool_takes_all_or_nothing)
{
    struct trace_req r = request(1, NULL, 100);
    struct arena a;
    struct kvpool p;
    struct kvchain c;
    arena_init(&a);
    kvpool_init(&p, 6, 16, true, &a);
    CHECK_INT(kvpool_open(&p, &c, &r, 99), 0);
    CHECK(kvpool_grow(&p, &c, 80));
    CHECK(!kvpool_grow(&p, &c, 97));
    CHECK(!kvpool_take(&p, 2) && kvpool_take(&p, 1) && !kvpool_take(&p, 1) && kvpool_take(&p, 0));
    CHECK_INT(kvpool_used(&p), 6);
    kvpool_settle(&p, &c, 81);
    CHECK_INT(c.blocks, 6);
    CHECK(kvpool_consistent(&p, c.own - c.in_nodes));
    kvpool_close(&p, &c, false);
    CHECK_INT(p.n_cached, 6); /* a preempted request finds its own blocks again */
    CHECK_INT(kvpool_open(&p, &c, &r, 81), 80);
    kvpool_close(&p, &c, true);
    CHECK_INT(kvpool_open(&p, &c, &r, 81), 0); /* an ended one is gone for good */
    CHECK_INT(kvpool_available(&p), 6);
    kvpool_close(&p, &c, true);
    arena_release(&a);
}

TEST(kvpool_finds_each_of_many_segments)
{
    enum { N = 3000 };
    static struct trace_seg seg[N];
    static struct kvchain open[N];
    struct trace_req all = request(-1, NULL, 16 * 3 * N);
    struct arena a;
    struct kvpool p;
    int64_t idle, loose = 0;
    arena_init(&a);
    kvpool_init(&p, 3 * N, 16, true, &a);
    for (int i = 0; i < N; i++) {
        seg[i] = (struct trace_seg){ 16, mix64((uint64_t)i) };
        struct trace_req r = request(i, &seg[i], 40);
        kvpool_open(&p, &open[i], &r, 39);
        if (!CHECK(kvpool_grow(&p, &open[i], 40))) return;
        loose += open[i].own - open[i].in_nodes;
    }
    CHECK_INT(loose, N); /* the partial last blocks */
    CHECK(kvpool_consistent(&p, loose));
    for (int i = 0; i < N; i++) kvpool_close(&p, &open[i], true);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < N; i++) {
            struct trace_req r = request(N, &seg[i], 40);
            if (!CHECK_INT(kvpool_peek(&p, &r, 39, &idle), round ? 0 : 16)) return;
        }
        CHECK_INT(serve(&p, &all), 0);
    }
    CHECK(kvpool_consistent(&p, 0) && kvpool_available(&p) == 3 * N);
    arena_release(&a);
}
