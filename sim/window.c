/* sim/window.c - see window.h. SPDX-License-Identifier: Apache-2.0 */
#include "sim/window.h"

#include <string.h>

void window_init(struct window *w, struct metrics *m, const struct trace *t, bool steady,
                 double warmup_ratio, int64_t warm_ns)
{
    memset(w, 0, sizeof *w);
    metrics_init(&w->late);
    w->m = m;
    w->steady = steady;
    w->closed_loop = trace_is_closed(t);
    w->total = trace_total(t);
    if (w->total >= 0)
        w->warm_n = (int64_t)(warmup_ratio * (double)w->total);
    else
        w->warm_ns = warm_ns;
}

struct metrics *window_of(struct window *w, int64_t due_ns, int64_t id)
{
    int64_t t0 = w->m->t_begin_ns;
    if (!w->begun || due_ns < t0 || (due_ns == t0 && id < w->first_id)) return NULL;
    return w->closed && due_ns > w->at_last.t_end_ns ? &w->late : w->m;
}

bool window_arrive(struct window *w, const struct trace_req *q)
{
    bool begins = !w->begun && w->m->due >= w->warm_n && q->t_due_ns >= w->warm_ns;
    w->m->t_last_due_ns = q->t_due_ns;
    if (begins) {
        w->begun = true;
        w->m->t_begin_ns = q->t_due_ns;
        w->first_id = q->id;
    }
    w->m->due++;
    struct metrics *in = window_of(w, q->t_due_ns, q->id);
    if (in) in->kept++;
    return begins;
}

bool window_is_last(const struct window *w, bool first, bool follow)
{
    if (!w->steady || w->closed || first) return false;
    return !w->closed_loop || (!follow && w->total >= 0 && w->m->due >= w->total);
}

void window_close(struct window *w, int64_t due_ns)
{
    w->closed = true;
    w->at_last = w->m->w;
    w->at_last.t_end_ns = due_ns;
}

void window_end(struct window *w, const struct series *s, int64_t t_end_ns)
{
    struct metrics *m = w->m;
    metrics_close(m, t_end_ns, w->closed ? &w->at_last : NULL, w->begun);
    if (m->whole) metrics_add_kept(m, &w->late);
    metrics_release(&w->late);
    int64_t to = w->closed ? w->at_last.t_end_ns : m->t_last_due_ns;
    int64_t mid = m->t_begin_ns + (to - m->t_begin_ns) / 2;
    m->half[0] = series_in_system(s, m->t_begin_ns, mid);
    m->half[1] = series_in_system(s, mid, to);
}
