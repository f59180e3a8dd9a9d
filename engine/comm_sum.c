/* engine/comm_sum.c - see comm_sum.h. SPDX-License-Identifier: Apache-2.0 */
#include "engine/comm_sum.h"

#include "base/units.h"

enum { N_TEXT = 40 };

static const char *const group_name[COMM_SUM_N] = { "world", "stage" };

const char *comm_sum_call_name(enum comm_call c)
{
    static const char *const name[COMM_N_CALL] = { "allreduce", "allgather", "broadcast",
                                                   "barrier",   "send",      "recv" };
    return name[c];
}

static void add(struct comm_count *into, const struct comm_count *from)
{
    for (int k = 0; k < COMM_N_CALL; k++) {
        into[k].calls += from[k].calls;
        into[k].bytes += from[k].bytes;
        into[k].ns += from[k].ns;
        if (from[k].max_ns > into[k].max_ns) into[k].max_ns = from[k].max_ns;
    }
}

void comm_sum_add(struct comm_sum *s, const struct engine *g)
{
    for (int i = 0; i < engine_n_rank(g); i++) {
        struct engine_rank_report r;
        engine_report(g, i, &r);
        add(s->count[COMM_SUM_WORLD], r.world);
        add(s->count[COMM_SUM_TP], r.tp);
    }
}

void comm_sum_print(const struct comm_sum *s, FILE *f)
{
    bool open = false;
    for (int g = 0; g < COMM_SUM_N; g++)
        for (int k = 0; k < COMM_N_CALL; k++) {
            const struct comm_count *c = &s->count[g][k];
            char b[N_TEXT], t[N_TEXT], m[N_TEXT];
            if (c->calls == 0) continue;
            if (!open)
                fprintf(f, "calls        group  call            calls    bytes a call    mean "
                           "latency       longest   of all ranks, waiting for others included\n");
            open = true;
            fprintf(f, "             %-5s  %-9s  %10lld  %14s  %14s  %12s\n", group_name[g],
                    comm_sum_call_name((enum comm_call)k), (long long)c->calls,
                    units_human(UNIT_BYTES, (double)c->bytes / (double)c->calls, b, sizeof b),
                    units_human_ns((double)c->ns / (double)c->calls, t, sizeof t),
                    units_human_ns((double)c->max_ns, m, sizeof m));
        }
}

json_t *comm_sum_json(const struct comm_sum *s)
{
    json_t *list = json_array();
    for (int g = 0; g < COMM_SUM_N; g++)
        for (int k = 0; k < COMM_N_CALL; k++) {
            const struct comm_count *c = &s->count[g][k];
            if (c->calls == 0) continue;
            json_t *o = json_object();
            json_put_text(o, "group", group_name[g]);
            json_put_text(o, "call", comm_sum_call_name((enum comm_call)k));
            json_put_i64(o, "calls", c->calls);
            json_put_i64(o, "bytes", c->bytes);
            json_put_f64(o, "bytes_per_call", (double)c->bytes / (double)c->calls);
            json_put_f64(o, "mean_s", 1e-9 * (double)c->ns / (double)c->calls);
            json_put_f64(o, "max_s", 1e-9 * (double)c->max_ns);
            json_array_append_new(list, o);
        }
    return list;
}
