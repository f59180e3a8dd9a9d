/* engine/monitor.c - see monitor.h. SPDX-License-Identifier: Apache-2.0 */
#include "engine/monitor.h"

#include <math.h>
#include <string.h>

enum { MANY_ROWS = 200000 };

#define AT(m) offsetof(struct monitor_opts, m)
const struct conf_row monitor_rows[] = {
    { "monitor.window", CONF_INT, AT(window), "50", NULL, 1, 1e6,
      "steps over which anomalies are judged" },
    { "monitor.operators", CONF_BOOL, AT(operators), "yes", NULL, 0, 0,
      "keep the time of products and attention (CPU; nine looks at the clock a layer)" },
    { "monitor.allreduce", CONF_TIME, AT(allreduce_ns), "1ms", NULL, 1e-9, 1e3,
      "high communication latency: mean all-reduce above this" },
    { "monitor.imbalance", CONF_NUMBER, AT(imbalance), "0.25", NULL, 0, 1e3,
      "load imbalance: largest over mean compute time of ranks, less 1, above this" },
    { "monitor.straggler", CONF_NUMBER, AT(straggler), "1.5", NULL, 1, 1e3,
      "straggler: a rank's compute time over the median of the others above this" },
    { "monitor.memory", CONF_NUMBER, AT(memory), "0.95", NULL, 0, 1,
      "memory pressure: share of KV blocks in use above this" },
    { .type = CONF_END }
};
#undef AT

const char *monitor_kind_name(enum monitor_kind k)
{
    static const char *const name[] = { "high communication latency", "load imbalance", "straggler",
                                        "memory pressure" };
    return name[k];
}

void monitor_init(struct monitor *m, const struct monitor_setup *u, struct arena *a)
{
    size_t n = (size_t)u->tp * (size_t)u->pp;
    memset(m, 0, sizeof *m);
    m->u = *u;
    m->n_rank = (int)n;
    m->rank = arena_array(a, n, sizeof *m->rank);
    m->now = arena_array(a, n, sizeof *m->now);
    m->known = arena_array(a, n, sizeof *m->known);
    m->row_stride = 1;
    for (int k = 0; k < MONITOR_N_KIND; k++) m->seen[k].rank = -1;
}

static void join_seen(struct monitor_seen *to, const struct monitor_seen *from)
{
    to->windows += from->windows;
    if (from->windows && from->worst > to->worst) {
        to->worst = from->worst;
        to->rank = from->rank;
    }
}

void monitor_join(struct monitor *all, const struct monitor *part, int n, struct arena *a)
{
    int each = part->n_rank;
    *all = *part;
    all->n_rank = n * each;
    all->rank = arena_array(a, (size_t)all->n_rank, sizeof *all->rank);
    for (int i = 0; i < n; i++) {
        const struct monitor *m = &part[i];
        memcpy(all->rank + i * each, m->rank, (size_t)each * sizeof *m->rank);
        if (i == 0) continue;
        for (int k = 0; k < MONITOR_N_KIND; k++) join_seen(&all->seen[k], &m->seen[k]);
        all->steps += m->steps;
        all->windows += m->windows;
        all->active_ns += m->active_ns;
        all->schedule_ns += m->schedule_ns;
        all->sample_ns += m->sample_ns;
        all->allreduce_ns += m->allreduce_ns;
        all->allreduce_calls += m->allreduce_calls;
        if (m->allreduce_max_ns > all->allreduce_max_ns)
            all->allreduce_max_ns = m->allreduce_max_ns;
        all->exposed_ns += m->exposed_ns;
        all->hidden_ns += m->hidden_ns;
        all->kv_room_tok += m->kv_room_tok;
        all->kv_unfilled_tok += m->kv_unfilled_tok;
        all->queue_sum += m->queue_sum;
        if (m->queue_max > all->queue_max) all->queue_max = m->queue_max;
    }
}

/* ---- windows */

/* Of a rank of this replica, among those of all. */
static int rank_no(const struct monitor *m, int rank)
{
    return rank < 0 ? rank : m->u.replica * m->u.tp * m->u.pp + rank;
}

double monitor_limit(const struct monitor *m, enum monitor_kind k)
{
    const struct monitor_opts *o = &m->u.o;
    return k == MONITOR_COMM        ? 1e-9 * (double)o->allreduce_ns
           : k == MONITOR_IMBALANCE ? o->imbalance
           : k == MONITOR_STRAGGLER ? o->straggler
                                    : o->memory;
}

static void anomaly(struct monitor *m, enum monitor_kind k, int rank, double value)
{
    struct monitor_seen *s = &m->seen[k];
    double limit = monitor_limit(m, k);
    if (!(value > limit)) return;
    s->windows++;
    if (value > s->worst) {
        s->worst = value;
        s->rank = rank_no(m, rank);
    }
    struct run_anomaly row = { .t0_ns = m->w.t0_ns,
                               .t1_ns = m->t_end_ns,
                               .value = value,
                               .limit = limit,
                               .rank = rank_no(m, rank),
                               .kind = (uint8_t)k };
    if (m->u.sink.anomaly) m->u.sink.anomaly(m->u.sink.ctx, &row);
}

/* The k-th smallest of the window's compute times over ranks other than `but`. */
static int64_t kth(const struct monitor *m, int but, int k)
{
    int n = m->u.tp * m->u.pp;
    for (int i = 0; i < n; i++) {
        int below = 0;
        if (i == but) continue;
        for (int j = 0; j < n; j++)
            below += j != but && (m->rank[j].window_ns < m->rank[i].window_ns ||
                                  (m->rank[j].window_ns == m->rank[i].window_ns && j < i));
        if (below == k) return m->rank[i].window_ns;
    }
    return 0;
}

static void judge_ranks(struct monitor *m)
{
    int n = m->u.tp * m->u.pp, slowest = 0;
    double sum = 0;
    if (n < 2) return;
    for (int i = 0; i < n; i++) {
        if (!m->known[i]) return;
        sum += (double)m->rank[i].window_ns;
        if (m->rank[i].window_ns > m->rank[slowest].window_ns) slowest = i;
    }
    double most = (double)m->rank[slowest].window_ns;
    if (sum <= 0) return;
    anomaly(m, MONITOR_IMBALANCE, slowest, most * n / sum - 1);
    double median = .5 * (double)(kth(m, slowest, (n - 2) / 2) + kth(m, slowest, (n - 1) / 2));
    if (median > 0) anomaly(m, MONITOR_STRAGGLER, slowest, most / median);
}

static void end_window(struct monitor *m)
{
    int n = m->u.tp * m->u.pp;
    if (m->w.steps == 0) return;
    if (m->w.allreduce_calls)
        anomaly(m, MONITOR_COMM, -1,
                1e-9 * (double)m->w.allreduce_ns / (double)m->w.allreduce_calls);
    judge_ranks(m);
    anomaly(m, MONITOR_MEMORY, -1, (double)m->w.kv_max / (double)m->u.kv_blocks);
    m->windows++;
    memset(&m->w, 0, sizeof m->w);
    for (int i = 0; i < n; i++) m->rank[i].window_ns = 0;
}

/* ---- one step */

static int64_t least_allreduce(const struct monitor *m, int stage, int32_t *calls)
{
    int64_t least = INT64_MAX;
    *calls = 0;
    for (int t = 0; t < m->u.tp; t++) {
        const struct engine_rank_step *x = &m->now[stage * m->u.tp + t];
        if (!m->known[stage * m->u.tp + t]) continue;
        if (x->n_allreduce == 0 || m->u.tp == 1) continue; /* one rank: nothing is communicated */
        if (x->allreduce_ns < least) least = x->allreduce_ns;
        *calls = x->n_allreduce;
    }
    return *calls ? least : 0;
}

/* A message from rank i to the one of the next stage: how much of its way was hidden, and how much
 * nobody was at work in. */
static void hop(struct monitor *m, int i)
{
    const struct engine_rank_step *from = &m->now[i], *to = &m->now[i + m->u.tp];
    int64_t sent = from->t1_ns - from->p2p_ns, begun = to->t0_ns - to->recv_ns;
    int64_t way = to->t0_ns - sent, open = to->t0_ns - (begun > sent ? begun : sent);
    open += from->p2p_ns;
    if (way < from->p2p_ns) way = from->p2p_ns;
    if (open > way) open = way;
    m->exposed_ns += open - from->p2p_ns; /* the sender's part is in its comm time */
    m->hidden_ns += way - open;
    m->class_ns[STEP_P2P] += (double)open / m->u.tp;
}

/* A rank's part, but for messages to the next stage. */
static void put_classes(struct monitor *m, int i, int64_t compute_ns)
{
    const struct engine_rank_step *x = &m->now[i];
    double tp = m->u.tp, *sum = m->class_ns;
    bool last = i >= m->u.tp * (m->u.pp - 1);
    sum[STEP_GEMM] += (double)x->gemm_ns / tp;
    sum[STEP_ATTN] += (double)x->attn_ns / tp;
    sum[STEP_OTHER] += (double)(compute_ns - x->gemm_ns - x->attn_ns) / tp + (double)x->sample_ns;
    if (m->u.tp > 1) sum[STEP_COLL] += (double)x->allreduce_ns / tp;
    if (last) sum[STEP_COLL] += (double)x->p2p_ns / tp;
}

static void put_rank(struct monitor *m, const struct serve_step *s, int i, int64_t least,
                     int32_t calls)
{
    const struct engine_rank_step *x = &m->now[i];
    struct monitor_rank *r = &m->rank[i];
    int64_t room = s->kv_used_blocks * m->u.block_tok;
    struct run_monitor row = { .t0_ns = x->t0_ns - s->epoch_ns,
                               .t1_ns = x->t1_ns - s->epoch_ns,
                               .step = s->index,
                               .rank = rank_no(m, i),
                               .queue = (int32_t)s->queue,
                               .allreduce_ns = calls ? least / calls : 0,
                               .kv_reserved_tok = room,
                               .kv_used_tok = room - s->kv_unfilled_tok };
    int64_t all = m->u.tp > 1 ? x->allreduce_ns : 0;
    row.comm_ns = least + x->p2p_ns;
    row.wait_ns = all - least + x->recv_ns;
    row.compute_ns = x->t1_ns - x->t0_ns - all - x->p2p_ns - x->sample_ns;
    row.host_ns = x->sample_ns + (i == 0 ? s->host_ns : 0);
    r->compute_ns += row.compute_ns;
    r->comm_ns += row.comm_ns;
    r->wait_ns += row.wait_ns;
    r->host_ns += row.host_ns;
    r->window_ns += row.compute_ns;
    r->steps++;
    row.gemm_ns = row.attn_ns = -1;
    if (x->operators) {
        r->gemm_ns += row.gemm_ns = x->gemm_ns;
        r->attn_ns += row.attn_ns = x->attn_ns;
        r->op_steps++;
    }
    put_classes(m, i, row.compute_ns);
    m->exposed_ns += row.comm_ns;
    m->sample_ns += x->sample_ns;
    if (m->u.sink.row && s->index % m->row_stride == 0) {
        m->u.sink.row(m->u.sink.ctx, &row);
        if (++m->rows / m->row_stride >= MANY_ROWS) m->row_stride *= 2;
    }
}

static void put_spans(struct monitor *m, const struct serve_step *s)
{
    const struct step_shape *b = &s->shape;
    for (int p = 0; p < m->u.pp && m->u.sink.span; p++) {
        if (!m->known[p * m->u.tp]) continue;
        const struct engine_rank_step *x = &m->now[p * m->u.tp];
        struct run_span row = { .t0_ns = x->t0_ns - s->epoch_ns,
                                .t1_ns = x->t1_ns - s->epoch_ns,
                                .replica = m->u.replica,
                                .stage = p,
                                .batch = (int32_t)(s->index % m->u.pp),
                                .n_prefill_tok = (int32_t)b->prefill_tok,
                                .n_decode = (int32_t)b->n_decode };
        if (row.t1_ns <= m->u.span_t0_ns || row.t0_ns >= m->u.span_t1_ns) continue;
        row.kind = !b->n_prefill ? 0 : b->n_decode ? 2 : 1;
        m->u.sink.span(m->u.sink.ctx, &row);
    }
}

/* What is known without the ranks. */
static void put_step(struct monitor *m, const struct serve_step *s)
{
    int64_t from = s->t0_ns > m->t_end_ns ? s->t0_ns : m->t_end_ns;
    m->active_ns += s->host_ns + (s->t1_ns > from ? s->t1_ns - from : 0);
    m->schedule_ns += s->host_ns;
    m->kv_room_tok += (double)(s->kv_used_blocks * m->u.block_tok);
    m->kv_unfilled_tok += (double)s->kv_unfilled_tok;
    m->queue_sum += (double)s->queue;
    if (s->queue > m->queue_max) m->queue_max = s->queue;
    if (m->w.steps++ == 0) m->w.t0_ns = s->t0_ns;
    if (s->kv_used_blocks > m->w.kv_max) m->w.kv_max = s->kv_used_blocks;
    m->steps++;
    m->t_end_ns = s->t1_ns;
}

static void put_stage(struct monitor *m, const struct serve_step *s, int stage)
{
    int32_t calls;
    int64_t least = least_allreduce(m, stage, &calls);
    for (int i = stage * m->u.tp; i < (stage + 1) * m->u.tp; i++)
        if (m->known[i]) put_rank(m, s, i, least, calls);
    m->allreduce_ns += least;
    m->allreduce_calls += calls;
    m->w.allreduce_ns += least;
    m->w.allreduce_calls += calls;
    if (calls && least / calls > m->allreduce_max_ns) m->allreduce_max_ns = least / calls;
}

static void digest(struct monitor *m)
{
    const struct serve_step *s = &m->last;
    int n = m->u.tp * m->u.pp;
    bool all = true;
    if (!m->has_last) return;
    m->has_last = false;
    memset(m->class_ns, 0, sizeof m->class_ns);
    m->class_ns[STEP_HOST] = (double)s->host_ns;
    put_step(m, s);
    for (int i = 0; i < n; i++) m->known[i] = m->u.read(m->u.read_ctx, s->index, i, &m->now[i]);
    for (int p = 0; p < m->u.pp; p++) put_stage(m, s, p);
    for (int i = 0; i < n - m->u.tp; i++)
        if (m->known[i] && m->known[i + m->u.tp]) hop(m, i);
    for (int i = 0; i < n; i++) all = all && m->known[i] && m->now[i].operators;
    if (all && m->u.sink.classes) m->u.sink.classes(m->u.sink.ctx, m->class_ns);
    put_spans(m, s);
    if (m->w.steps >= m->u.o.window) end_window(m);
}

void monitor_step(struct monitor *m, const struct serve_step *s)
{
    digest(m);
    m->last = *s;
    m->has_last = true;
}

void monitor_end(struct monitor *m)
{
    digest(m);
    end_window(m);
}

/* ---- summary */

static double ratio(double a, double b)
{
    return b > 0 ? a / b : NAN;
}

double monitor_step_s(const struct monitor *m)
{
    return ratio(1e-9 * (double)m->active_ns, (double)m->steps);
}

double monitor_schedule_share(const struct monitor *m)
{
    return ratio((double)m->schedule_ns, (double)m->active_ns);
}

double monitor_sample_share(const struct monitor *m)
{
    return ratio((double)m->sample_ns, (double)m->active_ns);
}

double monitor_allreduce_s(const struct monitor *m)
{
    return ratio(1e-9 * (double)m->allreduce_ns, (double)m->allreduce_calls);
}

double monitor_overlap(const struct monitor *m)
{
    return ratio((double)m->hidden_ns, (double)(m->hidden_ns + m->exposed_ns));
}

double monitor_balance(const struct monitor *m)
{
    int n = m->n_rank;
    double sum = 0, most = 0;
    for (int i = 0; i < n; i++) {
        double c = (double)m->rank[i].compute_ns;
        sum += c;
        if (c > most) most = c;
    }
    return ratio(sum / n, most);
}

double monitor_kv_efficiency(const struct monitor *m)
{
    return ratio(m->kv_room_tok - m->kv_unfilled_tok, m->kv_room_tok);
}

double monitor_queue_mean(const struct monitor *m)
{
    return ratio(m->queue_sum, (double)m->steps);
}
