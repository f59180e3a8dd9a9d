/* sim/verify_dag.c - a strategy as a graph of GPUs and communication: Graphviz text and a drawing.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>

#include "sim/verify.h"

/* Beyond these a picture says nothing more. */
enum { MAX_DOT = 1 << 16, MAX_REPLICA = 8, MAX_RANK = 16, MAX_STAGE = 16 };
enum { CELL_W = 132, CELL_H = 58, BOX_W = 84, BOX_H = 34, LEFT = 78, TOP = 46, REPLICA_GAP = 30 };

struct verify_dag verify_dag_count(const struct strategy *s)
{
    struct verify_dag d = { .nodes = s->tp * s->pp * s->dp };
    d.tp_edges = s->tp > 1 ? d.nodes : 0;
    d.pp_edges = s->tp * (s->pp - 1) * s->dp;
    d.edges = d.tp_edges + d.pp_edges;
    return d;
}

/* Text grows by pieces; the arena keeps the last copy, twice the size each time it is full. */
struct text {
    struct arena *a;
    char *at;
    size_t n, cap;
};

static void put(struct text *t, const char *piece)
{
    for (; *piece; piece++) {
        if (t->n + 1 >= t->cap) {
            size_t cap = t->cap ? 2 * t->cap : 4096;
            char *more = arena_alloc(t->a, cap);
            for (size_t i = 0; i < t->n; i++) more[i] = t->at[i];
            t->at = more;
            t->cap = cap;
        }
        t->at[t->n++] = *piece;
    }
}

/* Replicas are alike: text of more nodes than this shows as many of them as it holds. */
static int64_t shown_replicas(const struct strategy *s)
{
    int64_t most = MAX_DOT / (s->tp * s->pp);
    return most < 1 ? 1 : most < s->dp ? most : s->dp;
}

static int64_t rank_of(const struct strategy *s, int64_t replica, int64_t stage, int64_t i)
{
    return (replica * s->pp + stage) * s->tp + i;
}

/* ---- Graphviz */

static void dot_nodes(const struct verify_case *c, struct text *t)
{
    const struct strategy *s = &c->q.strategy;
    int64_t n_replica = shown_replicas(s);
    char line[240];
    for (int64_t r = 0; r < n_replica; r++)
        for (int64_t p = 0; p < s->pp; p++) {
            const struct verify_stage *g = &c->stage[p];
            snprintf(line, sizeof line,
                     "  subgraph cluster_r%" PRId64 "_s%" PRId64 " { label=\"replica %" PRId64
                     ", stage %" PRId64 ": layers %d-%d\";\n",
                     r, p, r, p, g->first_layer, g->first_layer + g->step.n_layer - 1);
            put(t, line);
            for (int64_t i = 0; i < s->tp; i++) {
                int64_t rank = rank_of(s, r, p, i);
                snprintf(line, sizeof line,
                         "    g%" PRId64 " [label=\"GPU %" PRId64 "\\nnode %" PRId64
                         "\\n%.2f GB\"];\n",
                         rank, rank, rank / c->hw.sys.n_gpu, g->mem.weights * 1e-9);
                put(t, line);
            }
            put(t, "  }\n");
        }
}

static void dot_edges(const struct verify_case *c, struct text *t)
{
    const struct strategy *s = &c->q.strategy;
    int64_t n_replica = shown_replicas(s);
    double kib = c->arch.hidden * 2 / 1024.0;
    char line[200];
    for (int64_t r = 0; r < n_replica; r++)
        for (int64_t p = 0; p < s->pp; p++)
            for (int64_t i = 0; i < s->tp; i++) {
                if (s->tp > 1) {
                    snprintf(line, sizeof line,
                             "  g%" PRId64 " -> g%" PRId64
                             " [label=\"TP %d x %.4g KiB\", color=\"#0072b2\"];\n",
                             rank_of(s, r, p, i), rank_of(s, r, p, (i + 1) % s->tp),
                             c->arch.parallel_attn ? 1 : 2, kib);
                    put(t, line);
                }
                if (p == s->pp - 1) continue;
                snprintf(line, sizeof line,
                         "  g%" PRId64 " -> g%" PRId64
                         " [label=\"PP %.4g KiB\", color=\"#d55e00\"];\n",
                         rank_of(s, r, p, i), rank_of(s, r, p + 1, i), kib);
                put(t, line);
            }
}

const char *verify_dag_dot(const struct verify_case *c)
{
    struct text t = { .a = c->a };
    if (c->n_stage == 0) return "";
    put(&t, "// GPUs of the plan; TP: all-reduces as a ring, bytes of hidden states per token and "
            "layer; PP: hidden\n"
            "// states per token, to the fellow rank of the next stage\n"
            "digraph plan {\n  rankdir=LR; node [shape=box, fontname=\"sans-serif\"]; edge "
            "[fontname=\"sans-serif\", "
            "fontsize=9];\n");
    dot_nodes(c, &t);
    dot_edges(c, &t);
    put(&t, "}\n");
    return t.at;
}

/* ---- drawing */

struct grid {
    int64_t replicas, ranks, stages;
    bool cut;
};

static struct grid grid_of(const struct strategy *s)
{
    struct grid g = { s->dp < MAX_REPLICA ? s->dp : MAX_REPLICA,
                      s->tp < MAX_RANK ? s->tp : MAX_RANK, s->pp < MAX_STAGE ? s->pp : MAX_STAGE,
                      false };
    g.cut = g.replicas < s->dp || g.ranks < s->tp || g.stages < s->pp;
    return g;
}

static int64_t box_x(int64_t stage)
{
    return LEFT + stage * CELL_W;
}

static int64_t box_y(const struct grid *g, int64_t replica, int64_t rank)
{
    return TOP + replica * (g->ranks * CELL_H + REPLICA_GAP) + rank * CELL_H;
}

/* Below the last rank of the last replica. */
static int64_t bottom(const struct grid *g)
{
    return box_y(g, g->replicas - 1, g->ranks - 1) + BOX_H + 8;
}

static void svg_box(const struct verify_case *c, const struct grid *g, int64_t at[3],
                    struct text *t)
{
    const struct strategy *s = &c->q.strategy;
    int64_t rank = rank_of(s, at[0], at[1], at[2]), x = box_x(at[1]), y = box_y(g, at[0], at[2]);
    bool odd = rank / c->hw.sys.n_gpu % 2;
    char line[500];
    snprintf(line, sizeof line,
             "<rect x=\"%" PRId64 "\" y=\"%" PRId64
             "\" width=\"%d\" height=\"%d\" rx=\"4\" fill=\"%s\" "
             "stroke=\"#444\"/><text x=\"%" PRId64 "\" y=\"%" PRId64
             "\" text-anchor=\"middle\">GPU %" PRId64 "</text><text x=\"%" PRId64 "\" y=\"%" PRId64
             "\" text-anchor=\"middle\" font-size=\"9\">node %" PRId64 ", %.1f GB</text>\n",
             x, y, BOX_W, BOX_H, odd ? "#e8e0f0" : "#e6f0e6", x + BOX_W / 2, y + 14, rank,
             x + BOX_W / 2, y + 27, rank / c->hw.sys.n_gpu, c->stage[at[1]].mem.weights * 1e-9);
    put(t, line);
}

static void arrow(struct text *t, int64_t x1, int64_t y1, int64_t x2, int64_t y2, const char *kind)
{
    char line[240];
    snprintf(line, sizeof line,
             "<path class=\"%s\" d=\"M%" PRId64 " %" PRId64 " L%" PRId64 " %" PRId64
             "\" marker-end=\"url(#%s)\"/>\n",
             kind, x1, y1, x2, y2, kind);
    put(t, line);
}

/* The ring: down from rank to rank on the left, back to the first along the right. */
static void svg_ring(const struct verify_case *c, const struct grid *g, int64_t at[3],
                     struct text *t)
{
    int64_t tp = c->q.strategy.tp, x = box_x(at[1]), y = box_y(g, at[0], at[2]);
    char line[300];
    if (tp < 2) return;
    if (at[2] < g->ranks - 1) {
        arrow(t, x + 22, y + BOX_H, x + 22, y + CELL_H - 3, "tp");
        return;
    }
    if (g->ranks < tp) return;
    int64_t top = box_y(g, at[0], 0);
    if (tp == 2) {
        arrow(t, x + BOX_W - 22, y, x + BOX_W - 22, top + BOX_H + 3, "tp");
        return;
    }
    snprintf(line, sizeof line,
             "<path class=\"tp\" d=\"M%" PRId64 " %" PRId64 " C%" PRId64 " %" PRId64 " %" PRId64
             " %" PRId64 " %" PRId64 " %" PRId64 "\" marker-end=\"url(#tp)\"/>\n",
             x, y + BOX_H / 2, x - 26, y, x - 26, top + BOX_H, x - 3, top + BOX_H / 2);
    put(t, line);
}

static void svg_head(const struct verify_case *c, const struct grid *g, struct text *t)
{
    int64_t w = box_x(g->stages) + 10, h = bottom(g) + 30;
    char line[1200];
    snprintf(
        line, sizeof line,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %" PRId64 " %" PRId64
        "\" width=\"%" PRId64 "\" height=\"%" PRId64
        "\" font-family=\"sans-serif\" font-size=\"12\" role=\"img\">\n"
        "<title>%" PRId64 " GPUs: stages as columns, tensor-parallel ranks as rows</title>\n"
        "<style>.tp{stroke:#0072b2;fill:none;stroke-width:1.5}.pp{stroke:#d55e00;fill:none;stroke-"
        "width:1.5}"
        "</style>\n<defs><marker id=\"tp\" markerWidth=\"7\" markerHeight=\"6\" refX=\"5\" "
        "refY=\"3\" "
        "orient=\"auto\"><path d=\"M0 0L6 3L0 6z\" fill=\"#0072b2\"/></marker><marker id=\"pp\" "
        "markerWidth=\"7\" markerHeight=\"6\" refX=\"5\" refY=\"3\" orient=\"auto\"><path d=\"M0 "
        "0L6 3L0 6z\" "
        "fill=\"#d55e00\"/></marker></defs>\n<rect width=\"100%%\" height=\"100%%\" "
        "fill=\"#fff\"/>\n",
        w, h, w, h, verify_dag_count(&c->q.strategy).nodes);
    put(t, line);
    for (int64_t p = 0; p < g->stages; p++) {
        const struct verify_stage *s = &c->stage[p];
        snprintf(line, sizeof line,
                 "<text x=\"%" PRId64 "\" y=\"18\" text-anchor=\"middle\">stage %" PRId64
                 "</text><text x=\"%" PRId64
                 "\" y=\"33\" text-anchor=\"middle\" font-size=\"10\">layers %d-%d</text>\n",
                 box_x(p) + BOX_W / 2, p, box_x(p) + BOX_W / 2, s->first_layer,
                 s->first_layer + s->step.n_layer - 1);
        put(t, line);
    }
    for (int64_t r = 0; r < g->replicas; r++) {
        snprintf(line, sizeof line, "<text x=\"6\" y=\"%" PRId64 "\">replica %" PRId64 "</text>\n",
                 box_y(g, r, 0) + 20, r);
        put(t, line);
    }
}

const char *verify_dag_svg(const struct verify_case *c)
{
    struct text t = { .a = c->a };
    char line[400];
    if (c->n_stage == 0) return "";
    const struct strategy *s = &c->q.strategy;
    struct grid g = grid_of(s);
    svg_head(c, &g, &t);
    for (int64_t r = 0; r < g.replicas; r++)
        for (int64_t p = 0; p < g.stages; p++)
            for (int64_t i = 0; i < g.ranks; i++) {
                int64_t at[3] = { r, p, i }, y = box_y(&g, r, i) + BOX_H / 2;
                svg_box(c, &g, at, &t);
                svg_ring(c, &g, at, &t);
                if (p < g.stages - 1) arrow(&t, box_x(p) + BOX_W, y, box_x(p + 1) - 3, y, "pp");
            }
    double kib = c->arch.hidden * 2 / 1024.0;
    snprintf(
        line, sizeof line,
        "<text x=\"%d\" y=\"%" PRId64
        "\" font-size=\"10\"><tspan fill=\"#0072b2\">TP: %d x %.4g KiB per token and "
        "layer</tspan>  <tspan fill=\"#d55e00\">PP: %.4g KiB per token</tspan>%s</text>\n</svg>\n",
        LEFT, bottom(&g) + 14, c->arch.parallel_attn ? 1 : 2, kib, kib,
        g.cut ? "; not all replicas, ranks or stages are drawn" : "");
    put(&t, line);
    return t.at;
}
