/* traces/synth.c - made-up requests: lengths, shared prefixes, sessions of several turns.
 *
 * Every draw is indexed by the arrival and the turn, never by time or order of completion: two runs
 * at other rates, or on another cluster, see the same requests.
 * SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/paths.h"
#include "base/rooms.h"
#include "base/units.h"
#include "traces/trace_priv.h"

#define LEN_MAX INT64_C(100000000)
enum { LEAST_SEG = 4, RESERVE_BYTES = 128 << 10 }; /* of segments: a thousand live sessions */

struct law {
    int dist;
    double mean, mu, sigma;
    int64_t lo, hi;
    const int32_t *table; /* [n_table] empirical */
    int64_t n_table;
    struct rng rng;
};
struct session {
    int64_t id;
    int32_t n_seg;
    int log2;
    struct trace_seg *seg; /* [n_seg] of the turn handed out last, a room of 1 << log2 or NULL */
};
struct synth {
    struct arena arena;
    struct law in, out;
    int64_t n_group, prefix_tok;
    struct trace_seg *group; /* [n_group] one segment each */
    double *group_upto;      /* [n_group] cumulated weights, the last 1 */
    struct rng group_rng, turn_rng;
    double turns;
    struct idmap live; /* session -> index of slot */
    struct session *slot;
    int64_t n_slot, cap_slot;
    int64_t *spare; /* [cap_slot] stack of free slots */
    int64_t n_spare;
    struct rooms rooms; /* of segments */
};

uint64_t trace_prefix_key(const char *group, int64_t tok)
{
    return mix_pair(mix_text(group), (uint64_t)tok);
}

uint64_t trace_turn_key(uint64_t before, int64_t session, int64_t turn)
{
    return mix_pair(before, mix_pair((uint64_t)session, (uint64_t)turn));
}

int64_t trace_later(int64_t t_ns, double add_ns)
{
    if (!(add_ns < (double)(TRACE_MAX_NS - t_ns))) return TRACE_MAX_NS;
    return t_ns + (int64_t)(add_ns + 0.5);
}

/* A random index that is the arrival's for first turns, so that a session's first turn is as long
 * as the request of a workload without sessions. */
static uint64_t draw_index(int64_t i, int64_t turn)
{
    return (uint64_t)i + ((uint64_t)turn << 40);
}

static int32_t law_draw(const struct law *w, uint64_t i)
{
    double x = w->mean;
    switch (w->dist) {
    case SYNTH_LOGNORMAL: x = exp(w->mu + w->sigma * rng_normal(w->rng, i)); break;
    case SYNTH_EXPONENTIAL: x = rng_exp(w->rng, i, w->mean); break;
    case SYNTH_UNIFORM:
        return (int32_t)(w->lo + (int64_t)rng_below(w->rng, i, (uint64_t)(w->hi - w->lo + 1)));
    case SYNTH_EMPIRICAL: x = w->table[rng_below(w->rng, i, (uint64_t)w->n_table)]; break;
    default: break;
    }
    if (x <= (double)w->lo) return (int32_t)w->lo;
    return x >= (double)w->hi ? (int32_t)w->hi : (int32_t)(x + 0.5);
}

static int law_table(struct synth *s, struct law *w, const char *file, const char *beside,
                     bool is_in, struct err *e)
{
    char path[4096];
    int32_t *in = NULL, *out = NULL;
    int st = paths_resolve(file, beside, "scenarios/traces", "", path, sizeof path, e);
    if (st == ST_OK) st = trace_lengths(path, &s->arena, &in, &out, &w->n_table, e);
    if (st != ST_OK) return st;
    w->table = is_in ? in : out;
    if (!w->table)
        return err_set(e, ST_USAGE, "%s: no column %s", path,
                       is_in ? "input_tokens" : "output_tokens");
    return ST_OK;
}

static int law_open(struct synth *s, struct law *w, const struct trace_opts *o, const char *beside,
                    uint64_t seed, struct err *e)
{
    bool is_in = w == &s->in;
    const struct trace_len *l = is_in ? &o->in : &o->out;
    const char *group = is_in ? "workload.prompt" : "workload.output";
    *w = (struct law){ .dist = l->dist, .mean = (double)l->mean, .sigma = l->sigma, .lo = l->min };
    w->hi = l->max ? l->max : LEN_MAX;
    w->mu = log(w->mean) - 0.5 * l->sigma * l->sigma;
    w->rng = rng_stream(seed, group);
    if (w->hi < w->lo)
        return err_set(e, ST_USAGE, "%s: max is %lldtok, below min, %lldtok", group,
                       (long long)w->hi, (long long)w->lo);
    if (l->dist == SYNTH_UNIFORM && !l->max)
        return err_set(e, ST_USAGE, "%s.max: uniform lengths need one", group);
    if (l->dist != SYNTH_EMPIRICAL) return ST_OK;
    const char *file = l->file ? l->file : is_in ? o->out.file : o->in.file;
    if (!file) return err_set(e, ST_USAGE, "%s.file: empirical lengths need a csv", group);
    const char *other = is_in ? o->out.file : o->in.file;
    bool both = o->in.dist == SYNTH_EMPIRICAL && o->out.dist == SYNTH_EMPIRICAL;
    if (both && (!l->file || !other || strcmp(l->file, other) == 0))
        w->rng = rng_stream(seed, "workload.lengths");
    return law_table(s, w, file, beside, is_in, e);
}

static void groups_open(struct synth *s, const struct trace_opts *o, uint64_t seed)
{
    double sum = 0;
    s->prefix_tok = o->prefix_tok;
    s->n_group = o->prefix_tok > 0 ? o->prefix_groups : 0;
    s->group_rng = rng_stream(seed, "workload.prefix");
    s->group = arena_array(&s->arena, (size_t)s->n_group, sizeof *s->group);
    s->group_upto = arena_array(&s->arena, (size_t)s->n_group, sizeof *s->group_upto);
    for (int64_t i = 0; i < s->n_group; i++) {
        char name[24];
        snprintf(name, sizeof name, "%lld", (long long)i);
        s->group[i] = (struct trace_seg){ s->prefix_tok, trace_prefix_key(name, s->prefix_tok) };
        s->group_upto[i] = sum += 1 / (double)(i + 1);
    }
    for (int64_t i = 0; i < s->n_group; i++) s->group_upto[i] /= sum;
}

int synth_open(const struct trace_opts *o, const char *beside, uint64_t seed, struct synth **out,
               struct err *e)
{
    struct synth *s = mem_zalloc(1, sizeof *s);
    arena_init(&s->arena);
    rooms_init(&s->rooms, sizeof(struct trace_seg), LEAST_SEG, &s->arena);
    groups_open(s, o, seed);
    s->turns = (double)o->turns;
    s->turn_rng = rng_stream(seed, "workload.turns");
    int st = law_open(s, &s->in, o, beside, seed, e);
    if (st == ST_OK) st = law_open(s, &s->out, o, beside, seed, e);
    if (st == ST_OK && o->turns > 1) arena_reserve(&s->arena, RESERVE_BYTES);
    if (st == ST_OK)
        *out = s;
    else
        synth_close(s);
    return st;
}

void synth_close(struct synth *s)
{
    if (!s) return;
    free(s->slot);
    free(s->spare);
    idmap_release(&s->live);
    arena_release(&s->arena);
    free(s);
}

/* First group whose cumulated weight reaches the draw. */
static const struct trace_seg *group_of(const struct synth *s, int64_t i)
{
    if (s->n_group == 0) return NULL;
    double u = rng_unit(s->group_rng, (uint64_t)i);
    int64_t lo = 0, hi = s->n_group - 1;
    while (lo < hi) {
        int64_t mid = (lo + hi) / 2;
        if (s->group_upto[mid] < u)
            lo = mid + 1;
        else
            hi = mid;
    }
    return &s->group[lo];
}

static struct session *session_new(struct synth *s, int64_t id)
{
    if (s->n_spare == 0 && s->n_slot == s->cap_slot) {
        s->cap_slot = s->cap_slot ? 2 * s->cap_slot : 16;
        s->slot = mem_resize(s->slot, (size_t)s->cap_slot, sizeof *s->slot);
        s->spare = mem_resize(s->spare, (size_t)s->cap_slot, sizeof *s->spare);
    }
    int64_t at = s->n_spare ? s->spare[--s->n_spare] : s->n_slot++;
    s->slot[at] = (struct session){ .id = id };
    idmap_put(&s->live, (uint64_t)id, at);
    return &s->slot[at];
}

static void session_add(struct synth *s, struct session *v, int64_t end_tok, uint64_t key)
{
    if (!v->seg || v->n_seg == 1 << v->log2) {
        int log2 = rooms_log2(&s->rooms, v->n_seg + 1);
        struct trace_seg *seg = rooms_take(&s->rooms, log2);
        if (v->seg) {
            memcpy(seg, v->seg, (size_t)v->n_seg * sizeof *seg);
            rooms_give(&s->rooms, v->seg, v->log2);
        }
        v->seg = seg;
        v->log2 = log2;
    }
    v->seg[v->n_seg++] = (struct trace_seg){ end_tok, key };
}

/* The turn's own segment holds its prompt and its output: the next turn's prompt repeats both. */
static void session_hand_out(struct synth *s, struct session *v, struct trace_req *out)
{
    uint64_t before = v->n_seg ? v->seg[v->n_seg - 1].key : 0;
    session_add(s, v, (int64_t)out->n_in + out->n_out, trace_turn_key(before, v->id, out->turn));
    out->session = v->id;
    out->n_seg = v->n_seg;
    out->seg = v->seg;
}

void synth_first(struct synth *s, int64_t i, struct trace_req *out)
{
    uint64_t at = draw_index(i, 0);
    const struct trace_seg *group = group_of(s, i);
    *out = (struct trace_req){ .session = -1, .n_seg = group != NULL, .seg = group };
    out->n_in = law_draw(&s->in, at) + (int32_t)s->prefix_tok;
    out->n_out = law_draw(&s->out, at);
    if (s->turns <= 1) return;
    struct session *v = session_new(s, i);
    if (group) session_add(s, v, group->end_tok, group->key);
    session_hand_out(s, v, out);
}

static struct session *session_of(const struct synth *s, const struct trace_req *r)
{
    int64_t at;
    return r->session >= 0 && idmap_get(&s->live, (uint64_t)r->session, &at) ? &s->slot[at] : NULL;
}

void synth_forget(struct synth *s, const struct trace_req *r)
{
    struct session *v = session_of(s, r);
    if (!v) return;
    idmap_drop(&s->live, (uint64_t)v->id);
    rooms_give(&s->rooms, v->seg, v->log2);
    v->seg = NULL;
    s->spare[s->n_spare++] = v - s->slot;
}

bool synth_turn(struct synth *s, const struct trace_req *r, struct trace_req *out)
{
    struct session *v = session_of(s, r);
    if (!v) return false;
    struct trace_req next = { .klass = r->klass, .turn = r->turn + 1 };
    uint64_t at = draw_index(v->id, next.turn);
    int64_t n_in = (int64_t)r->n_in + r->n_out + law_draw(&s->in, at);
    next.n_out = law_draw(&s->out, at);
    bool more =
        rng_unit(rng_child(s->turn_rng, (uint64_t)v->id), (uint64_t)r->turn) < 1 - 1 / s->turns;
    if (!more || n_in + next.n_out > TRACE_MAX_TOK) {
        synth_forget(s, r);
        return false;
    }
    next.n_in = (int32_t)n_in;
    session_hand_out(s, v, &next);
    *out = next;
    return true;
}

static int describe_len(const struct trace_len *l, char *buf, size_t n)
{
    static const char *const word[] = { "lognormal", "fixed", "uniform", "exponential",
                                        "empirical" };
    char a[40], b[40];
    units_human(UNIT_TOKENS, (double)l->mean, a, sizeof a);
    if (l->dist == SYNTH_LOGNORMAL)
        return snprintf(buf, n, "lognormal %s (sigma %.3g)", a, l->sigma);
    if (l->dist == SYNTH_EMPIRICAL) return snprintf(buf, n, "empirical");
    if (l->dist != SYNTH_UNIFORM) return snprintf(buf, n, "%s %s", word[l->dist], a);
    units_human(UNIT_TOKENS, (double)l->min, a, sizeof a);
    units_human(UNIT_TOKENS, (double)l->max, b, sizeof b);
    return snprintf(buf, n, "uniform %s to %s", a, b);
}

void synth_describe(const struct trace_opts *o, char *buf, size_t n)
{
    char in[120], out[120];
    describe_len(&o->in, in, sizeof in);
    describe_len(&o->out, out, sizeof out);
    int at = snprintf(buf, n, "%s in, %s out", in, out);
    if (o->prefix_tok > 0 && at > 0 && (size_t)at < n)
        at += snprintf(buf + at, n - (size_t)at, ", %lld prefix%s of %lld tok",
                       (long long)o->prefix_groups, o->prefix_groups == 1 ? "" : "es",
                       (long long)o->prefix_tok);
    if (o->turns > 1 && at > 0 && (size_t)at < n)
        snprintf(buf + at, n - (size_t)at, ", %lld turns a session", (long long)o->turns);
}
