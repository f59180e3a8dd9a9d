/* sim/verify_page.c - see verify_page.h: the verdict, the checks, alternatives and advice.
 * SPDX-License-Identifier: Apache-2.0 */
#include "sim/verify_page.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/units.h"

enum { N_TEXT = 48 };

const char verify_score_rule[] = "score = 100 - the points of every check that warns or fails, at "
                                 "least 0, and at most 40 where any "
                                 "check fails";

const char *verify_figure(double v, const char *unit, struct arena *a)
{
    static const struct {
        const char *name;
        enum unit unit;
    } known[] = { { "bytes", UNIT_BYTES },
                  { "bytes/s", UNIT_BYTES_PER_S },
                  { "s", UNIT_TIME },
                  { "W", UNIT_WATT } };
    char buf[N_TEXT];
    if (!isfinite(v)) return "-";
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(unit, known[i].name) == 0)
            return arena_printf(a, "%s", units_human(known[i].unit, v, buf, sizeof buf));
    if (strcmp(unit, "ratio") == 0) return arena_printf(a, "%.2f %%", 100 * v);
    size_t n = strlen(unit);
    if (v == 1 && n > 0 && unit[n - 1] == 's') n--;
    return arena_printf(a, "%.6g%s%.*s", v, n ? " " : "", (int)n, unit);
}

const char *verify_plan_text(const struct verify_case *c, struct arena *a)
{
    const struct strategy *s = &c->q.strategy;
    const char *ep = s->ep > 1 ? arena_printf(a, "-EP%" PRId64, s->ep) : "";
    return arena_printf(
        a, "%s TP%" PRId64 "-PP%" PRId64 "-DP%" PRId64 "%s, weights %s, KV %s, on %d x %s",
        c->arch.name, s->tp, s->pp, s->dp, ep, dtype_name((enum dtype)s->weight_dtype),
        dtype_name((enum dtype)s->kv_dtype), c->hw.n_node, c->hw.sys.name);
}

/* ---- the answer */

static int count_status(const struct verify_case *c, enum verify_status st)
{
    int n = 0;
    for (int i = 0; i < c->n_check; i++) n += c->check[i].status == st;
    return n;
}

static const char *found_text(const struct verify_report *r, struct arena *a)
{
    const struct hw *h = &r->c->hw;
    char mem[N_TEXT];
    if (r->c->none)
        return arena_printf(a, "no GPU; read from %s", r->topo ? r->topo->source : "nowhere");
    units_human(UNIT_BYTES, h->gpu.mem_bytes, mem, sizeof mem);
    if (hw_on_processors(h))
        return arena_printf(
            a, "%d host%s: %s, %d processor%s, %.0f MiB (%s), at most %d rank%s%s%s", h->n_node,
            units_s(h->n_node), h->gpu.title, h->sys.host_cores, units_s(h->sys.host_cores),
            h->gpu.mem_bytes / 1048576, mem, h->sys.n_gpu, units_s(h->sys.n_gpu),
            r->topo ? "; read from " : "", r->topo ? r->topo->source : "");
    return arena_printf(a, "%d node%s of %s: %d x %s, %.0f MiB (%s) usable on each%s%s", h->n_node,
                        h->n_node == 1 ? "" : "s", h->sys.name, h->sys.n_gpu,
                        h->gpu.title ? h->gpu.title : h->gpu.name, h->gpu.mem_bytes / 1048576, mem,
                        r->topo ? "; read from " : "", r->topo ? r->topo->source : "");
}

/* Failures, then warnings. Stages that fail for want of memory are one line: the worst of them. */
static void wrong(const struct verify_case *c, struct verify_doc *d)
{
    struct arena *a = d->a;
    verify_doc_table(d, "status|check|>deficit|finding");
    for (int pass = VERIFY_FAIL; pass >= VERIFY_WARN; pass--)
        for (int i = 0; i < c->n_check; i++) {
            const struct verify_check *k = &c->check[i];
            bool stage = strncmp(k->name, "memory.stage", 12) == 0;
            if ((int)k->status != pass || (stage && k->points == 0)) continue;
            const char *cells[] = { verify_status_word(k->status), k->name,
                                    k->deficit > 0 ? verify_figure(k->deficit, k->unit, a) : "-",
                                    k->says };
            verify_doc_row(d, cells);
        }
}

static void answer(const struct verify_report *r, struct verify_doc *d)
{
    struct arena *a = d->a;
    const struct verify_case *c = r->c;
    int fails = count_status(c, VERIFY_FAIL), warns = count_status(c, VERIFY_WARN);
    bool simulated = r->run.ran;
    if (c->s->o.title) verify_doc_para(d, arena_printf(a, "Question: %s", c->s->o.title));
    verify_doc_para(d, arena_printf(a, "Plan: %s", verify_plan_text(r->plan, a)));
    verify_doc_para(d, arena_printf(a, "Found: %s", found_text(r, a)));
    verify_doc_para(d,
                    arena_printf(a, "Verdict: %s, score %d of 100: %d of %d checks fail, %d warn%s",
                                 r->compatible ? "COMPATIBLE" : "NOT COMPATIBLE", r->score, fails,
                                 c->n_check, warns,
                                 simulated ? ""
                                 : fails   ? "; so not simulated"
                                           : "; not simulated"));
    if (!fails && !warns) return;
    verify_doc_head(d, fails ? "What is wrong" : "What to know");
    wrong(c, d);
}

/* ---- alternatives */

static const char *slo_text(const struct verify_alt *x, bool asked, struct arena *a)
{
    if (!x->run.ran) return x->run.error ? x->run.error : "not simulated";
    if (!asked) return "none asked";
    return arena_printf(a, "%s (%.1f %%)", x->run.held ? "held" : "missed", 100 * x->run.attain);
}

static bool has_slo(const struct verify_report *r)
{
    const struct slo *slo = &r->c->s->slo;
    return slo->ttft_ns || slo->tpot_ns || slo->e2e_ns;
}

static const char *range_text(double lo, double hi, const char *unit, struct arena *a)
{
    if (lo <= 0 && hi <= 0) return "-";
    if (lo <= 0 || lo == hi) return arena_printf(a, "%.4g %s", hi, unit);
    return arena_printf(a, "%.4g-%.4g %s", lo, hi, unit);
}

static void alt_rows(const struct verify_report *r, const struct verify_alts *all,
                     struct verify_doc *d)
{
    struct arena *a = d->a;
    verify_doc_table(d, "kind|>GPUs|>SLO|>TTFT p99|>TPOT p50|>most power|>to rent|>to buy|plan");
    for (int i = 0; i < all->n; i++) {
        const struct verify_alt *x = &all->alt[i];
        const char *cells[] = {
            x->kind,
            arena_printf(a, "%" PRId64, x->gpus),
            slo_text(x, has_slo(r), a),
            x->run.ran ? units_cell_in(a, UNIT_TIME, 1e-9 * x->run.ttft_p99_ns) : "-",
            x->run.ran ? units_cell_in(a, UNIT_TIME, 1e-9 * x->run.tpot_p50_ns) : "-",
            x->power_w > 0 ? verify_figure(x->power_w, "W", a) : "-",
            range_text(x->usd_per_h_lo, x->usd_per_h_hi, "USD/h", a),
            range_text(x->usd_lo / 1000, x->usd_hi / 1000, "kUSD", a),
            x->plan
        };
        verify_doc_row(d, cells);
    }
}

/* The best of each kind, in the order of the list. */
static void best_alternatives(const struct verify_report *r, struct verify_doc *d)
{
    struct arena *a = d->a;
    const char *last = "";
    verify_doc_head(d, "Best alternative of each kind");
    if (r->alts.n == 0) {
        verify_doc_para(d, "None was found.");
        return;
    }
    verify_doc_table(d, "kind|plan|>GPUs|>SLO|>to rent");
    for (int i = 0; i < r->alts.n; i++) {
        const struct verify_alt *x = &r->alts.alt[i];
        if (strcmp(last, x->kind) == 0) continue;
        last = x->kind;
        const char *cells[] = { x->kind, x->plan, arena_printf(a, "%" PRId64, x->gpus),
                                slo_text(x, has_slo(r), a),
                                range_text(x->usd_per_h_lo, x->usd_per_h_hi, "USD/h", a) };
        verify_doc_row(d, cells);
    }
}

static void alternatives(const struct verify_report *r, struct verify_doc *d)
{
    struct arena *a = d->a;
    int64_t most = r->c->ask->max_gpus;
    verify_doc_head(d, "Alternatives");
    verify_doc_para(
        d, arena_printf(a,
                        "%d plans were put through the same checks, %d of them simulated (up to "
                        "1000 requests, one "
                        "seed, constants as they are). GPUs: the smallest count up to %" PRId64
                        " that holds the "
                        "SLO, over TP inside a node, PP from the fewest stages that fit to twice "
                        "that, and replicas; where none holds it, the plan that fits with the "
                        "highest attainment. Other hardware stands in order of its rent. Power: "
                        "nodes * power.max of a node. Prices: catalog, "
                        "of whole nodes, "
                        "indicative.",
                        r->alts.n_tried, r->alts.n_simulated, most));
    if (r->alts.n) alt_rows(r, &r->alts, d);
}

/* What verify_suggest asks of every plan. */
static const char *load_text(const struct verify_ask *q)
{
    if (q->context > 0 || q->batch > 0)
        return "as many clients as the batch, each sending its next request of the context when "
               "the last is answered";
    return q->urgency == VERIFY_LATENCY ? "the scenario's"
                                        : "all of the scenario's requests at once, so attainment "
                                          "is that of a saturated cluster";
}

static void advice(const struct verify_report *r, struct verify_doc *d)
{
    static const char *const by[] = {
        [VERIFY_LATENCY] = "latency: plans that hold the SLO first, then by mean end-to-end time",
        [VERIFY_THROUGHPUT] = "throughput: output tokens per second",
        [VERIFY_COST] =
            ("cost: USD (mean rent of the GPUs used, a node's shared out among its GPUs; without a "
             "rent GPU seconds) per million output tokens"),
    };
    struct arena *a = d->a;
    verify_doc_head(d, "Advice: TP, PP and DP for the GPUs at hand");
    verify_doc_para(
        d,
        arena_printf(a, "Ranked by %s. Load: %s. %d plans fit and were simulated, %d were tried.",
                     by[r->c->ask->urgency], load_text(r->c->ask), r->advice.n_simulated,
                     r->advice.n_tried));
    if (!r->advice.n) return;
    verify_doc_table(d,
                     ">rank|plan|>GPUs|>attained|>E2E mean|>TTFT p99|>TPOT p50|>tokens/s|reason");
    for (int i = 0; i < r->advice.n; i++) {
        const struct verify_alt *x = &r->advice.alt[i];
        const struct strategy *s = &x->strategy;
        const char *cells[] = { arena_printf(a, "%d", x->rank),
                                arena_printf(a, "TP%" PRId64 "-PP%" PRId64 "-DP%" PRId64, s->tp,
                                             s->pp, s->dp),
                                arena_printf(a, "%" PRId64, x->gpus),
                                arena_printf(a, "%.1f %%", 100 * x->run.attain),
                                units_cell_in(a, UNIT_TIME, 1e-9 * x->run.e2e_mean_ns),
                                units_cell_in(a, UNIT_TIME, 1e-9 * x->run.ttft_p99_ns),
                                units_cell_in(a, UNIT_TIME, 1e-9 * x->run.tpot_p50_ns),
                                arena_printf(a, "%.4g", x->run.out_tok_per_s),
                                x->reason };
        verify_doc_row(d, cells);
    }
}

/* ---- all checks, and where the figures come from */

static void checks(const struct verify_report *r, struct verify_doc *d)
{
    const struct verify_case *c = r->c;
    struct arena *a = d->a;
    verify_doc_head(d, "Checks");
    verify_doc_para(d, arena_printf(a, "%s. Here: %d.", verify_score_rule, r->score));
    verify_doc_table(d, "check|status|>points|>required|>available|finding");
    for (int i = 0; i < c->n_check; i++) {
        const struct verify_check *k = &c->check[i];
        const char *cells[] = { k->name,
                                verify_status_word(k->status),
                                k->points ? arena_printf(a, "-%d", k->points) : "0",
                                verify_figure(k->required, k->unit, a),
                                verify_figure(k->available, k->unit, a),
                                k->says };
        verify_doc_row(d, cells);
    }
}

static void rules(const struct verify_report *r, struct verify_doc *d)
{
    const struct verify_case *c = r->c;
    struct arena *a = d->a;
    verify_doc_head(d, "Rules and sources");
    verify_doc_table(d, "check|rule");
    for (int i = 0; i < c->n_check; i++) {
        const char *cells[] = { c->check[i].name, c->check[i].rule };
        if (i && strncmp(cells[0], "memory.stage", 12) == 0 &&
            strncmp(c->check[i - 1].name, "memory.stage", 12) == 0)
            continue;
        verify_doc_row(d, cells);
    }
    const struct hw *h = &c->hw;
    if (c->none) return;
    const char *gpu[] = { "GPU", arena_printf(a, "%s: %s", h->gpu.name,
                                              h->gpu.source ? h->gpu.source : "-") };
    const char *sys[] = { "system", arena_printf(a, "%s: %s. %s", h->sys.name,
                                                 h->sys.source ? h->sys.source : "-",
                                                 h->sys.notes ? h->sys.notes : "") };
    verify_doc_row(d, gpu);
    verify_doc_row(d, sys);
    if (c->predicted) {
        const char *times[] = { "times",
                                arena_printf(a, "constants %s%s%s", c->profile.name,
                                             *c->profile.note ? ": " : "", c->profile.note) };
        verify_doc_row(d, times);
    }
}

void verify_page(const struct verify_report *r, struct verify_doc *d)
{
    answer(r, d);
    if (r->with_alts) best_alternatives(r, d);
    if (r->with_advice) advice(r, d);
    checks(r, d);
    verify_page_environment(r, d);
    verify_page_plan(r, d);
    if (r->with_alts) alternatives(r, d);
    rules(r, d);
}
