/* plots/plot_data_ranks.c - data of where the ranks of a measured run spent their time.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "plots/plot_data.h"
#include "plots/ranks.h"

bool plot_data_has_ranks(struct source *s)
{
    double *part[RANKS_N_PART];
    size_t n = ranks_read(s, part);
    for (size_t i = 0; i < n && i < PLOT_DATA_MAX_RANK; i++)
        if (!isnan(part[0][i])) return true;
    return false;
}

int plot_data_ranks(struct source *s, struct gnuplot *g, struct err *e)
{
    double *part[RANKS_N_PART];
    size_t n = ranks_read(s, part), shown = n < PLOT_DATA_MAX_RANK ? n : PLOT_DATA_MAX_RANK;
    if (!plot_data_has_ranks(s)) return err_set(e, ST_USAGE, "%s: no times of ranks", s->file.path);
    fprintf(g->data, "# rank [1]\trank and stage [text]");
    for (int k = 0; k < RANKS_N_PART; k++) fprintf(g->data, "\t%s [%%]", ranks_part_label[k]);
    fputc('\n', g->data);
    for (size_t i = 0; i < shown; i++) {
        bool seen = !isnan(part[0][i]);
        fprintf(g->data, "%zu\t\"rank %zu, stage %d%s\"", i, i, ranks_stage(s, i),
                seen ? "" : ": not seen");
        for (int k = 0; k < RANKS_N_PART; k++) gnuplot_value(g->data, seen ? 100 * part[k][i] : 0);
        fputc('\n', g->data);
    }
    const char *more =
        shown < n ? arena_printf(s->arena, "; ranks 0 to %zu of %zu", shown - 1, n) : "";
    plot_data_head(s, "Where the time of each rank goes", "pooled over", g);
    gnuplot_text(g, "x_label",
                 arena_printf(s->arena, "share of the rank's time in steps [%%]%s", more), 90);
    gnuplot_number(g, "n_rank", (double)shown);
    return ST_OK;
}
