/* plots/ranks.c - see ranks.h. SPDX-License-Identifier: Apache-2.0 */
#include "plots/ranks.h"

#include <math.h>

const char *const ranks_part_label[RANKS_N_PART] = { "compute", "communication", "wait", "host" };

int ranks_stage(const struct source *s, size_t rank)
{
    int64_t tp = s->tp > 0 ? s->tp : 1, pp = s->pp > 0 ? s->pp : 1;
    return (int)((int64_t)rank / tp % pp);
}

static size_t from_summary(struct source *s, double *part[RANKS_N_PART])
{
    static const char *const name[] = { "rank_compute", "rank_comm", "rank_wait", "rank_host" };
    size_t n = 0;
    for (int k = 0; k < RANKS_N_PART; k++) {
        size_t have = source_array(s, name[k], &part[k]);
        n = k == 0 || have < n ? have : n;
    }
    return n < RANKS_MAX ? n : RANKS_MAX;
}

static size_t from_monitor(struct source *s, double *part[RANKS_N_PART])
{
    static const char *const col[] = { "rank", "compute", "comm", "wait", "host" };
    double *c[1 + RANKS_N_PART];
    size_t rows, n = 0;
    if (!h5_has(s->file.h5, "/monitor/rank") ||
        source_columns(s, "monitor", col, 1 + RANKS_N_PART, c, &rows, NULL) != ST_OK)
        return 0;
    for (size_t i = 0; i < rows; i++)
        if (c[0][i] >= (double)n && c[0][i] < RANKS_MAX) n = (size_t)c[0][i] + 1;
    for (int k = 0; k < RANKS_N_PART; k++) {
        part[k] = arena_array(s->arena, n + 1, sizeof *part[k]);
        for (size_t i = 0; i < n; i++) part[k][i] = 0;
        for (size_t i = 0; i < rows; i++)
            if (c[0][i] >= 0 && c[0][i] < (double)n) part[k][(size_t)c[0][i]] += c[1 + k][i];
    }
    return n;
}

size_t ranks_read(struct source *s, double *part[RANKS_N_PART])
{
    size_t n = from_summary(s, part);
    if (n == 0) n = from_monitor(s, part);
    for (size_t i = 0; i < n; i++) {
        double all = 0;
        for (int k = 0; k < RANKS_N_PART; k++) all += part[k][i];
        for (int k = 0; k < RANKS_N_PART; k++)
            part[k][i] = all > 0 && part[k][i] >= 0 && isfinite(all) ? part[k][i] / all : NAN;
    }
    return n;
}
