/* traces/trace.c - a source of requests: when (an arrival process or a file's times) and what (a
 * file's rows or a synthesis), put together.
 * SPDX-License-Identifier: Apache-2.0 */
#include "traces/trace.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/paths.h"
#include "base/units.h"
#include "traces/trace_priv.h"

struct trace {
    struct arena arena;
    const char *describe;
    int n_class;
    const char **class_name;
    bool random, timed_by_rows, answers, steady;
    double time_scale;          /* of the rows' times: 1 / how much faster */
    int64_t limit, duration_ns; /* INT64_MAX: none */
    int64_t handed, first,
        started; /* handed out so far; of these first requests; of these clients' first */
    const struct trace_req *row; /* [n_row], or NULL: synth */
    int64_t n_row;
    struct synth *synth;
    struct arrive arrive;
    int64_t n_client, *client_start_ns; /* closed loop: ascending; 0: open loop */
    double think_ns;
    struct rng think, turn_think;
    bool over;
};

#define AT(member) offsetof(struct trace_opts, member)
/* clang-format off */
const struct conf_row trace_rows[] = {
    { "workload.trace", CONF_TEXT, AT(file), NULL, NULL, 0, 0,
      "trace file (a length of 0 in it is read as 1); without one, requests are synthesised" },
    { "workload.format", CONF_WORD, AT(format), "auto", TRACE_FORMAT_WORDS, 0, 0,
      "format of the trace file" },
    { "workload.rate_scale", CONF_NUMBER, AT(rate_scale), "1", NULL, 1e-6, 1e6,
      "a trace's arrivals come this many times faster" },
    { "workload.rate", CONF_RATE, AT(rate_per_s), "0/s", NULL, 0, 1e9,
      "mean arrivals of requests; 0 with a trace: as recorded" },
    { "workload.arrivals", CONF_WORD, AT(arrivals), "auto", ARRIVE_WORDS, 0, 0,
      "arrival process; auto: trace with a file, else poisson" },
    { "workload.burstiness", CONF_NUMBER, AT(burstiness), "1", NULL, 0.01, 100,
      "gamma: coefficient of variation of gaps, 1 is poisson" },
    { "workload.mmpp_ratio", CONF_NUMBER, AT(mmpp_ratio), "4", NULL, 1, 1e6,
      "mmpp: high rate over low rate" },
    { "workload.mmpp_high", CONF_TIME, AT(mmpp_high_ns), "10s", NULL, 1e-3, 1e7,
      "mmpp: mean stay in the high state" },
    { "workload.mmpp_low", CONF_TIME, AT(mmpp_low_ns), "30s", NULL, 1e-3, 1e7,
      "mmpp: mean stay in the low state" },
    { "workload.concurrency", CONF_INT, AT(concurrency), "16", NULL, 1, 1e7, "closed: clients" },
    { "workload.think", CONF_TIME, AT(think_ns), "0s", NULL, 0, 1e7,
      "closed loops and sessions: mean pause before the next request, exponential" },
    { "workload.requests", CONF_INT, AT(requests), "0", NULL, 0, 1e12,
      "requests in all; 0: the whole trace, or 1000, or until the duration is over" },
    { "workload.duration", CONF_TIME, AT(duration_ns), "0s", NULL, 0, 3e9,
      "no request is due later; 0: no limit" },
    { "workload.prompt.dist", CONF_WORD, AT(in.dist), "lognormal", SYNTH_LEN_WORDS, 0, 0,
      "law of prompt lengths" },
    { "workload.prompt.mean", CONF_TOKENS, AT(in.mean), "512tok", NULL, 1, 1e8,
      "mean before clipping, or fixed length" },
    { "workload.prompt.sigma", CONF_NUMBER, AT(in.sigma), "1", NULL, 0, 10,
      "lognormal: standard deviation of the log" },
    { "workload.prompt.min", CONF_TOKENS, AT(in.min), "1tok", NULL, 1, 1e8,
      "shorter prompts become this long" },
    { "workload.prompt.max", CONF_TOKENS, AT(in.max), "0tok", NULL, 0, 1e8,
      "longer prompts become this long; 0: no limit" },
    { "workload.prompt.file", CONF_TEXT, AT(in.file), NULL, NULL, 0, 0,
      "empirical: csv with a column input_tokens" },
    { "workload.output.dist", CONF_WORD, AT(out.dist), "lognormal", SYNTH_LEN_WORDS, 0, 0,
      "law of output lengths" },
    { "workload.output.mean", CONF_TOKENS, AT(out.mean), "128tok", NULL, 1, 1e8,
      "mean before clipping, or fixed length" },
    { "workload.output.sigma", CONF_NUMBER, AT(out.sigma), "1", NULL, 0, 10,
      "lognormal: standard deviation of the log" },
    { "workload.output.min", CONF_TOKENS, AT(out.min), "1tok", NULL, 1, 1e8,
      "shorter outputs become this long" },
    { "workload.output.max", CONF_TOKENS, AT(out.max), "0tok", NULL, 0, 1e8,
      "longer outputs become this long; 0: no limit" },
    { "workload.output.file", CONF_TEXT, AT(out.file), NULL, NULL, 0, 0,
      "empirical: csv with a column output_tokens" },
    { "workload.prefix_tok", CONF_TOKENS, AT(prefix_tok), "0tok", NULL, 0, 1e8,
      "system prompt shared by a group, on top of the prompt" },
    { "workload.prefix_groups", CONF_INT, AT(prefix_groups), "1", NULL, 1, 1e6,
      "groups with a system prompt each; group i has weight 1/i" },
    { "workload.turns", CONF_INT, AT(turns), "1", NULL, 1, 1e6,
      "mean turns of a session, geometric; 1: no sessions" },
    { .type = CONF_END },
};
/* clang-format on */
#undef AT

static struct trace *trace_new(void)
{
    static const char *const all[] = { "all" };
    struct trace *t = mem_zalloc(1, sizeof *t);
    arena_init(&t->arena);
    t->n_class = 1;
    t->class_name = arena_array(&t->arena, 1, sizeof *t->class_name);
    t->class_name[0] = all[0];
    t->time_scale = 1;
    t->limit = t->duration_ns = INT64_MAX;
    return t;
}

void trace_close(struct trace *t)
{
    if (!t) return;
    synth_close(t->synth);
    arena_release(&t->arena);
    free(t);
}

int trace_from_rows(const struct trace_req *rows, int64_t n, struct trace **out, struct err *e)
{
    int n_class = 1;
    for (int64_t i = 0; i < n; i++) {
        const struct trace_req *r = &rows[i];
        if (r->n_in < 1 || r->n_out < 1 || r->t_due_ns < 0 || r->klass < 0 ||
            r->klass >= TRACE_MAX_CLASS)
            return err_set(e, ST_USAGE,
                           "row %lld: a length below 1, a negative time or a class out of range",
                           (long long)i);
        if (i > 0 && r->t_due_ns < rows[i - 1].t_due_ns)
            return err_set(e, ST_USAGE, "row %lld is due before the one in front of it",
                           (long long)i);
        if (r->klass >= n_class) n_class = r->klass + 1;
    }
    struct trace *t = trace_new();
    t->row = rows;
    t->limit = t->n_row = n;
    t->timed_by_rows = true;
    t->n_class = n_class;
    t->class_name = arena_array(&t->arena, (size_t)n_class, sizeof *t->class_name);
    for (int i = 0; i < n_class; i++) t->class_name[i] = arena_printf(&t->arena, "class%d", i);
    t->describe = arena_printf(&t->arena, "%lld row%s in memory", (long long)n, units_s(n));
    *out = t;
    return ST_OK;
}

static int scale_to_rate(struct trace *t, const struct trace_opts *o, const char *path,
                         struct err *e)
{
    double span_s = 1e-9 * (double)(t->row[t->n_row - 1].t_due_ns - t->row[0].t_due_ns);
    t->time_scale = 1 / o->rate_scale;
    if (o->rate_per_s <= 0) return ST_OK;
    if (o->rate_scale != 1)
        return err_set(e, ST_USAGE,
                       "workload.rate and workload.rate_scale both say how fast %s is replayed",
                       path);
    if (span_s <= 0)
        return err_set(e, ST_USAGE, "%s: all requests are due at once, so it has no rate to scale",
                       path);
    t->time_scale = (double)(t->n_row - 1) / span_s / o->rate_per_s;
    return ST_OK;
}

static int open_file(struct trace *t, const struct trace_opts *o, const char *beside,
                     const char **path, struct err *e)
{
    char found[4096];
    struct trace_rows rows;
    int st = paths_resolve(o->file, beside, "scenarios/traces", "", found, sizeof found, e);
    if (st == ST_OK) st = trace_read(found, o->format, &t->arena, &rows, e);
    if (st != ST_OK) return st;
    *path = arena_copy_text(&t->arena, found, strlen(found));
    if (o->requests > rows.n)
        return err_set(e, ST_USAGE, "workload.requests: %s has %lld requests, not %lld", found,
                       (long long)rows.n, (long long)o->requests);
    t->row = rows.row;
    t->n_row = rows.n;
    t->n_class = rows.n_class;
    t->class_name = rows.class_name;
    t->limit = o->requests ? o->requests : rows.n;
    const char *base = strrchr(*path, '/');
    t->describe = arena_printf(&t->arena, "%s, %lld request%s", base ? base + 1 : *path,
                               (long long)t->limit, units_s(t->limit));
    if (rows.n_raised)
        t->describe = arena_printf(&t->arena, "%s (%lld length%s of 0 read as 1)", t->describe,
                                   (long long)rows.n_raised, units_s(rows.n_raised));
    return ST_OK;
}

static int by_time(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void open_clients(struct trace *t, const struct trace_opts *o)
{
    t->n_client = o->concurrency < t->limit ? o->concurrency : t->limit;
    t->client_start_ns = arena_array(&t->arena, (size_t)t->n_client, sizeof *t->client_start_ns);
    for (int64_t i = 0; i < t->n_client; i++)
        t->client_start_ns[i] = trace_later(0, rng_exp(t->think, (uint64_t)i, t->think_ns));
    qsort(t->client_start_ns, (size_t)t->n_client, sizeof *t->client_start_ns, by_time);
}

/* "poisson 8.5/s, lognormal 1.2 ktok in ..., 1000 requests" */
static void describe(struct trace *t, const struct trace_opts *o, int arrivals)
{
    static const char *const word[] = { "auto", "poisson", "gamma", "constant",
                                        "mmpp", "closed",  "burst", "trace" };
    char rate[48], what[400], when[120];
    units_human(UNIT_RATE, o->rate_per_s, rate, sizeof rate);
    if (arrivals == ARRIVE_CLOSED)
        snprintf(when, sizeof when, "closed, %lld client%s", (long long)o->concurrency,
                 units_s(o->concurrency));
    else if (arrivals == ARRIVE_BURST)
        snprintf(when, sizeof when, "all at once");
    else if (arrivals == ARRIVE_TRACE)
        snprintf(when, sizeof when, "x%.4g", 1 / t->time_scale);
    else if (arrivals == ARRIVE_GAMMA)
        snprintf(when, sizeof when, "gamma (CV %.3g) %s", o->burstiness, rate);
    else
        snprintf(when, sizeof when, "%s %s", word[arrivals], rate);
    if (t->row) {
        t->describe = arena_printf(&t->arena, "%s, %s", t->describe, when);
        return;
    }
    synth_describe(o, what, sizeof what);
    t->describe = arena_printf(&t->arena, "%s, %s", when, what);
    if (t->limit != INT64_MAX)
        t->describe = arena_printf(&t->arena, "%s, %lld request%s", t->describe,
                                   (long long)t->limit, units_s(t->limit));
}

static int open_arrivals(struct trace *t, const struct trace_opts *o, const char *path,
                         uint64_t seed, struct err *e)
{
    struct trace_opts p = *o;
    if (p.arrivals == ARRIVE_AUTO) p.arrivals = path ? ARRIVE_TRACE : ARRIVE_POISSON;
    bool rated =
        p.arrivals != ARRIVE_CLOSED && p.arrivals != ARRIVE_BURST && p.arrivals != ARRIVE_TRACE;
    if (p.arrivals == ARRIVE_TRACE && !path)
        return err_set(e, ST_USAGE, "workload.arrivals: trace needs a file in workload.trace");
    if (rated && p.rate_per_s <= 0)
        return err_set(e, ST_USAGE, "workload.rate: drawn arrivals need a rate, say 4/s");
    t->think = rng_stream(seed, "workload.think");
    t->turn_think = rng_stream(seed, "workload.think.turn");
    t->think_ns = (double)p.think_ns;
    t->timed_by_rows = p.arrivals == ARRIVE_TRACE;
    t->random = !path || rated || (p.arrivals == ARRIVE_CLOSED && p.think_ns > 0);
    if (t->timed_by_rows) {
        int st = scale_to_rate(t, &p, path, e);
        if (st != ST_OK) return st;
    } else if (p.arrivals == ARRIVE_CLOSED) {
        open_clients(t, &p);
    } else {
        arrive_init(&t->arrive, &p, path ? p.rate_per_s : p.rate_per_s / (double)p.turns, seed);
    }
    t->answers = p.arrivals == ARRIVE_CLOSED || (!path && p.turns > 1);
    t->steady = p.arrivals != ARRIVE_BURST && p.arrivals != ARRIVE_TRACE;
    describe(t, &p, p.arrivals);
    return ST_OK;
}

int trace_open(const struct trace_opts *o, const char *beside, uint64_t seed, struct trace **out,
               struct err *e)
{
    struct trace *t = trace_new();
    const char *path = NULL;
    int st;
    if (o->duration_ns > 0) t->duration_ns = o->duration_ns;
    if (o->file) {
        st = open_file(t, o, beside, &path, e);
    } else {
        if (o->requests)
            t->limit = o->requests;
        else if (o->duration_ns <= 0)
            t->limit = 1000;
        st = synth_open(o, beside, seed, &t->synth, e);
    }
    if (st == ST_OK) st = open_arrivals(t, o, path, seed, e);
    if (st == ST_OK)
        *out = t;
    else
        trace_close(t);
    return st;
}

/* The next first request, due at t_ns; false past the limits. */
static bool hand_first(struct trace *t, int64_t t_ns, struct trace_req *out)
{
    if (t->handed >= t->limit || t_ns > t->duration_ns || t_ns > TRACE_MAX_NS) return false;
    if (t->row)
        *out = t->row[t->first];
    else
        synth_first(t->synth, t->first, out);
    t->first++;
    out->id = t->handed++;
    out->t_due_ns = t_ns;
    return true;
}

int trace_next(struct trace *t, struct trace_req *out)
{
    int64_t t_ns;
    if (t->over) return 0;
    if (t->handed >= t->limit)
        t_ns = INT64_MAX;
    else if (t->n_client)
        t_ns = t->started < t->n_client ? t->client_start_ns[t->started++] : INT64_MAX;
    else if (t->timed_by_rows && t->time_scale == 1)
        t_ns = t->row[t->first].t_due_ns;
    else if (t->timed_by_rows)
        t_ns = trace_later(0, (double)t->row[t->first].t_due_ns * t->time_scale);
    else
        t_ns = arrive_next(&t->arrive);
    if (hand_first(t, t_ns, out)) return 1;
    t->over = true;
    return 0;
}

int trace_done(struct trace *t, const struct trace_req *r, int64_t t_end_ns, struct trace_req *out)
{
    assert(t_end_ns >= r->t_due_ns);
    if (t->synth && r->session >= 0) {
        double think_ns =
            rng_exp(rng_child(t->turn_think, (uint64_t)r->session), (uint64_t)r->turn, t->think_ns);
        int64_t t_ns = trace_later(t_end_ns, think_ns);
        if (t->handed >= t->limit || t_ns > t->duration_ns) {
            synth_forget(t->synth, r);
        } else if (synth_turn(t->synth, r, out)) {
            out->id = t->handed++;
            out->t_due_ns = t_ns;
            return 1;
        }
    }
    if (!t->n_client) return 0;
    return hand_first(t, trace_later(t_end_ns, rng_exp(t->think, (uint64_t)t->first, t->think_ns)),
                      out);
}

int64_t trace_total(const struct trace *t)
{
    if (t->limit == INT64_MAX || t->duration_ns != INT64_MAX) return -1;
    return t->limit;
}

int trace_n_class(const struct trace *t)
{
    return t->n_class;
}

const char *trace_class_name(const struct trace *t, int klass)
{
    assert(klass >= 0 && klass < t->n_class);
    return t->class_name[klass];
}

bool trace_answers(const struct trace *t)
{
    return t->answers;
}

bool trace_is_closed(const struct trace *t)
{
    return t->n_client > 0;
}

bool trace_is_steady(const struct trace *t)
{
    return t->steady;
}

bool trace_is_random(const struct trace *t)
{
    return t->random;
}

const char *trace_describe(const struct trace *t)
{
    return t->describe;
}
