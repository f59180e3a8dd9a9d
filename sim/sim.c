/* sim/sim.c - see sim.h. SPDX-License-Identifier: Apache-2.0 */
#include "sim/sim.h"

#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "base/stop.h"
#include "sim/evqueue.h"
#include "sim/replica.h"
#include "sim/window.h"

enum { DIGEST_REJECT = 4, LOOK_EVERY = 1024 };

#define AT(m) offsetof(struct sim_opts, m)
const struct conf_row sim_rows[] = {
    { "sim.seed", CONF_INT, AT(seed), "1", NULL, 0, 9e15, "seed of every draw" },
    { "sim.replications", CONF_INT, AT(replications), "5", NULL, 1, 10000,
      "runs over seeds, for confidence intervals; a replayed trace has nothing to draw: 1" },
    { "sim.draws", CONF_INT, AT(draws), "16", NULL, 0, 10000,
      "runs over the uncertainty of the kernel constants, for prediction intervals; 0: none" },
    { "sim.threads", CONF_INT, AT(threads), "0", NULL, 0, 1024,
      "threads; 0: one a processor; results do not depend on it" },
    { "sim.warmup", CONF_NUMBER, AT(warmup_ratio), "-1", NULL, -1, 0.9,
      "share of the requests left out at the start; -1: 0.1 of drawn arrivals, 0 of replays" },
    { "sim.limit", CONF_TIME, AT(limit_ns), "0s", NULL, 0, 3e9,
      "stop after this simulated time; 0s: when all have ended" },
    { "sim.fast_forward", CONF_BOOL, AT(fast), "true", NULL, 0, 0,
      "take runs of equal steps at once; same result" },
    { "sim.router", CONF_WORD, AT(router), "least_loaded", ROUTER_WORDS, 0, 0,
      "how requests are spread over replicas" },
    { "sim.p2p", CONF_WORD, AT(p2p), "async", "async rendezvous", 0, 0,
      "whether a stage waits until the next takes its batch" },
    { "sim.level", CONF_NUMBER, AT(level), "0.9", NULL, 0.5, 0.999, "level of intervals" },
    { .type = CONF_END }
};
#undef AT

/* Arrivals that are known: the next of the open process, and follow-ups in slots. */
struct arrivals {
    struct trace *trace;
    struct trace_req next;
    bool has_next;
    struct evqueue due; /* of slots, by due time, then request */
    struct trace_req *slot;
    int32_t *spare; /* free slots */
    int32_t n_slot, n_spare, cap;
    struct arena *arena;
};

struct sim {
    const struct sim_setup *u;
    struct metrics *m;
    struct replica_env env;
    struct replica *rep;
    int n_rep;
    struct evqueue ends; /* next completion of each replica */
    struct arrivals arr;
    struct router router;
    int64_t *load;
    int64_t request_ns, now_ns;
    int64_t *due_ns;         /* decision due at this time, else -1 */
    int32_t *dirty, n_dirty; /* replicas with one due */
    bool answers;
    struct window window;
};

/* ---- arrivals */

static void follow_up(struct arrivals *w, const struct trace_req *q)
{
    int32_t i;
    if (w->n_spare) {
        i = w->spare[--w->n_spare];
    } else {
        if (w->n_slot == w->cap) {
            int32_t cap = w->cap ? 2 * w->cap : 64;
            struct trace_req *slot = arena_array(w->arena, (size_t)cap, sizeof *slot);
            int32_t *spare = arena_array(w->arena, (size_t)cap, sizeof *spare);
            if (w->n_slot) memcpy(slot, w->slot, (size_t)w->n_slot * sizeof *slot);
            w->slot = slot;
            w->spare = spare;
            w->cap = cap;
        }
        i = w->n_slot++;
    }
    w->slot[i] = *q;
    evqueue_set(&w->due, i, q->t_due_ns, q->id);
}

static int64_t next_due_ns(const struct arrivals *w)
{
    int64_t t = w->has_next ? w->next.t_due_ns : INT64_MAX;
    if (!evqueue_empty(&w->due) && evqueue_top(&w->due)->t_ns < t) t = evqueue_top(&w->due)->t_ns;
    return t;
}

static struct trace_req take_arrival(struct arrivals *w)
{
    const struct ev *top = evqueue_empty(&w->due) ? NULL : &w->due.heap[0];
    bool follow = top && (!w->has_next || top->t_ns < w->next.t_due_ns ||
                          (top->t_ns == w->next.t_due_ns && top->tie < w->next.id));
    struct trace_req q;
    if (follow) {
        int32_t i = evqueue_pop(&w->due).owner;
        q = w->slot[i];
        w->spare[w->n_spare++] = i;
        return q;
    }
    q = w->next;
    w->has_next = trace_next(w->trace, &w->next) != 0;
    return q;
}

/* ---- the ends of requests */

static struct run_request row_of(const struct sim *s, const struct sreq *r, int status)
{
    int64_t out = s->env.output_ns;
    return (struct run_request){ .t_due_ns = r->t.t_due_ns,
                                 .t_start_ns = r->t_start_ns,
                                 .t_first_ns = r->t_first_ns < 0 ? -1 : r->t_first_ns + out,
                                 .t_last_ns = status != RUN_OK ? -1 : r->t_last_ns + out,
                                 .session = r->t.session,
                                 .n_in = r->t.n_in,
                                 .n_out = status == RUN_OK ? r->t.n_out : r->made,
                                 .cached_in = r->cached_in,
                                 .preempted = r->preempted,
                                 .replica = r->replica,
                                 .turn = r->t.turn,
                                 .status = (uint8_t)status,
                                 .klass = (uint8_t)r->t.klass };
}

static void tell_request(const struct sim *s, const struct sreq *r, int status)
{
    const struct sim_sink *k = s->u->sink;
    if (!k || !k->request) return;
    struct run_request row = row_of(s, r, status);
    k->request(k->ctx, &row);
}

static void answer(struct sim *s, const struct trace_req *q, int64_t t_ns)
{
    struct trace_req more;
    if (trace_done(s->arr.trace, q, t_ns, &more)) follow_up(&s->arr, &more);
}

static void on_ended(void *ctx, const struct sreq *r, int64_t t_ns)
{
    struct sim *s = ctx;
    struct metrics *m = s->m;
    m->finished++;
    m->sojourn_sum_ns += (double)(t_ns - r->t_ready_ns);
    series_done(&s->env.series, t_ns);
    if (s->env.counting) m->w.done++;
    const struct sim_sink *k = s->u->sink;
    struct run_request row = row_of(s, r, RUN_OK);
    struct metrics *in = window_of(&s->window, r->t.t_due_ns, r->t.id);
    if (in) metrics_add_request(in, &s->u->slo, &row);
    if (k && k->request) k->request(k->ctx, &row);
    if (k && k->progress && m->finished % LOOK_EVERY == 0) k->progress(k->ctx, m->finished, t_ns);
    answer(s, &r->t, t_ns + s->env.output_ns);
}

/* ---- the window */

static void switch_counting(struct sim *s, bool on, int64_t now_ns)
{
    for (int i = 0; i < s->n_rep; i++) {
        replica_split(&s->rep[i], now_ns);
        replica_integrate(&s->rep[i], now_ns);
        if (s->rep[i].n) evqueue_set(&s->ends, i, replica_next_ns(&s->rep[i]), 0);
    }
    s->env.counting = on;
}

static void see_arrival(struct sim *s, const struct trace_req *q)
{
    series_arrival(&s->env.series, s->now_ns);
    if (window_arrive(&s->window, q)) switch_counting(s, true, s->now_ns);
    if (!window_is_last(&s->window, s->arr.has_next, !evqueue_empty(&s->arr.due))) return;
    switch_counting(s, true, s->now_ns);
    window_close(&s->window, q->t_due_ns);
}

/* ---- events */

static int64_t next_arrival_ns(const struct sim *s)
{
    int64_t t = next_due_ns(&s->arr);
    return t == INT64_MAX ? t : t + s->request_ns;
}

static void mark(struct sim *s, int i, int64_t now_ns)
{
    if (s->due_ns[i] < 0) s->dirty[s->n_dirty++] = i;
    s->due_ns[i] = now_ns;
}

static void note_end(struct sim *s, int i)
{
    int64_t t = replica_next_ns(&s->rep[i]);
    if (t != INT64_MAX)
        evqueue_set(&s->ends, i, t, 0);
    else
        evqueue_remove(&s->ends, i);
}

static void arrive(struct sim *s)
{
    s->now_ns = next_arrival_ns(s);
    struct trace_req q = take_arrival(&s->arr);
    see_arrival(s, &q);
    for (int i = 0; i < s->n_rep; i++) s->load[i] = s->rep[i].n_sys;
    int i = router_pick(&s->router, &q, s->load);
    struct replica *r = &s->rep[i];
    const char *why = sched_refuses(&r->s, &q);
    if (why) {
        struct sreq gone = {
            .t = q, .t_start_ns = -1, .t_first_ns = -1, .t_last_ns = -1, .replica = i
        };
        s->m->rejected++;
        if (!s->m->why_rejected) s->m->why_rejected = why;
        s->m->digest += mix_pair(mix_pair(DIGEST_REJECT, (uint64_t)q.id), (uint64_t)q.t_due_ns);
        tell_request(s, &gone, RUN_REJECTED);
        answer(s, &q, s->now_ns);
    } else {
        if (replica_submit(r, &q, s->now_ns)) mark(s, i, s->now_ns);
        note_end(s, i);
    }
}

static void complete(struct sim *s)
{
    int i = evqueue_top(&s->ends)->owner;
    int64_t until = next_arrival_ns(s), now;
    evqueue_remove(&s->ends, i);
    if (s->answers && !evqueue_empty(&s->ends) && evqueue_top(&s->ends)->t_ns < until)
        until = evqueue_top(&s->ends)->t_ns;
    if (s->u->limit_ns > 0 && s->u->limit_ns < until) until = s->u->limit_ns;
    bool due = replica_advance(&s->rep[i], until, &now);
    if (now > s->m->t_stop_ns) s->m->t_stop_ns = now;
    if (due) mark(s, i, now);
    note_end(s, i);
}

/* Decisions come after all that happens at their instant. */
static void decide(struct sim *s)
{
    int64_t t_arrival = next_arrival_ns(s);
    int32_t n = s->n_dirty;
    s->n_dirty = 0;
    for (int32_t k = 0; k < n; k++) {
        int32_t i = s->dirty[k];
        int64_t now = s->due_ns[i], t_end = replica_next_ns(&s->rep[i]);
        if (s->answers && !evqueue_empty(&s->ends)) t_end = evqueue_top(&s->ends)->t_ns;
        if (t_arrival <= now || t_end <= now) {
            s->dirty[s->n_dirty++] = i;
            continue;
        }
        s->due_ns[i] = -1;
        replica_integrate(&s->rep[i], now);
        replica_decide(&s->rep[i], now);
        note_end(s, i);
    }
}

/* ---- the run */

static void begin(struct sim *s, const struct sim_setup *u, struct arena *a, struct metrics *m)
{
    memset(s, 0, sizeof *s);
    s->u = u;
    s->m = m;
    s->n_rep = (int)u->deploy->strategy.dp;
    s->env = (struct replica_env){ .step = u->step,
                                   .u = u,
                                   .m = m,
                                   .n_stage = u->deploy->n_stage,
                                   .output_ns = step_output_ns(u->step),
                                   .ended = on_ended,
                                   .ctx = s,
                                   .row_stride = 1 };
    s->env.shared = s->env.n_stage > 1 && u->p2p != SIM_RENDEZVOUS &&
                    (step_return_ns(u->step) > 0 || step_beside(u->step, 1) != 1 ||
                     step_stage0_drives(u->step));
    series_init(&s->env.series, u->bin_ns, a);
    s->rep = arena_array(a, (size_t)s->n_rep, sizeof *s->rep);
    s->load = arena_array(a, (size_t)s->n_rep, sizeof *s->load);
    s->due_ns = arena_array(a, (size_t)s->n_rep, sizeof *s->due_ns);
    s->dirty = arena_array(a, (size_t)s->n_rep, sizeof *s->dirty);
    for (int i = 0; i < s->n_rep; i++) {
        replica_init(&s->rep[i], &s->env, i, a);
        s->due_ns[i] = -1;
    }
    evqueue_init(&s->ends, s->n_rep, a);
    evqueue_init(&s->arr.due, 64, a);
    s->arr.trace = u->trace;
    s->arr.arena = a;
    s->answers = trace_answers(u->trace);
    window_init(&s->window, m, u->trace, u->steady, u->warmup_ratio, u->warm_ns);
    s->request_ns = step_request_ns(u->step);
    s->router = (struct router){ .kind = u->router, .n = s->n_rep };
    m->kv_blocks = u->deploy->kv_blocks;
    m->n_replica = s->n_rep;
    m->n_stage = s->env.n_stage;
    m->n_run = 1;
}

static void fail_list(struct sim *s, const struct sreq *r)
{
    for (; r; r = r->next) {
        if (r->state == SREQ_GHOST || r->state == SREQ_DONE) continue;
        s->m->failed++;
        s->m->sojourn_sum_ns += (double)(s->m->t_stop_ns - r->t_ready_ns);
        tell_request(s, r, RUN_UNFINISHED);
    }
}

static void finish(struct sim *s, bool cut_short)
{
    struct metrics *m = s->m;
    const struct sim_sink *k = s->u->sink;
    if (cut_short && s->u->limit_ns > m->t_stop_ns && !m->stopped) m->t_stop_ns = s->u->limit_ns;
    if (s->now_ns > m->t_stop_ns) m->t_stop_ns = s->now_ns;
    for (int i = 0; i < s->n_rep && cut_short; i++) replica_split(&s->rep[i], m->t_stop_ns + 1);
    double kv_all = (double)m->kv_blocks * (double)m->n_replica;
    for (int i = 0; i < s->n_rep; i++) {
        struct sched *c = &s->rep[i].s;
        replica_integrate(&s->rep[i], m->t_stop_ns);
        fail_list(s, c->wait_first);
        fail_list(s, c->run_first);
        m->preempted += c->n_preempt;
        m->recomputed_tok += c->n_recomputed_tok;
        m->hit_tok += c->pool.hit_tok;
        m->asked_tok += c->pool.asked_tok;
    }
    window_end(&s->window, &s->env.series, m->t_stop_ns + (cut_short ? 0 : s->env.output_ns));
    for (int i = 0; k && k->bin && i < s->env.series.n; i++) {
        struct run_bin row;
        series_row(&s->env.series, i, kv_all, m->t_stop_ns, &row);
        k->bin(k->ctx, &row);
    }
}

int sim_run(const struct sim_setup *u, struct arena *a, struct metrics *m, struct err *e)
{
    struct sim s;
    bool cut_short = false;
    begin(&s, u, a, m);
    s.arr.has_next = trace_next(u->trace, &s.arr.next) != 0;
    for (;;) {
        int64_t t_arrival = next_arrival_ns(&s);
        int64_t t_end = evqueue_empty(&s.ends) ? INT64_MAX : evqueue_top(&s.ends)->t_ns;
        int64_t t = t_arrival < t_end ? t_arrival : t_end;
        if (t == INT64_MAX) break;
        if ((u->limit_ns > 0 && t > u->limit_ns) || t > INT64_MAX / 8) {
            cut_short = true;
            break;
        }
        if (t_arrival <= t_end)
            arrive(&s);
        else
            complete(&s);
        decide(&s);
        if (++m->n_event % LOOK_EVERY == 0 && stop_asked()) {
            m->stopped = cut_short = true;
            break;
        }
    }
    int64_t left = 0;
    for (int i = 0; i < s.n_rep; i++) left += s.rep[i].n_sys;
    finish(&s, cut_short);
    if (left > 0 && !cut_short)
        return err_set(e, ST_RANGE,
                       "the scheduler stalled with %lld requests left; please report this scenario",
                       (long long)left);
    return ST_OK;
}
