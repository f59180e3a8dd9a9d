/* tests/fuzz/fuzz_import.c - other tools' results: any bytes are read as something sound or refused
 * in one sentence, and what is read can be reckoned with, printed and stored.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "tests/fuzz/fuzz.h"
#include "traces/import_out.h"

static void check_run(const struct import_run *r, const struct figures *g)
{
    for (int64_t i = 0; i < r->n_request; i++) {
        const struct import_request *q = &r->request[i];
        FUZZ_CHECK(q->row.n_in >= 0 && q->row.n_out >= 0);
        FUZZ_CHECK(q->row.status != RUN_OK || (q->row.n_out > 0 && q->row.t_last_ns >= 0));
        FUZZ_CHECK(q->row.t_first_ns < 0 || q->row.t_first_ns <= q->row.t_last_ns);
        FUZZ_CHECK(q->row.t_start_ns < 0 || q->row.t_due_ns >= 0 || r->due != IMPORT_DUE_PLAN);
        for (int32_t k = 0; k < q->n_gap; k++) FUZZ_CHECK(r->gap_ns[q->gap_at + k] >= 0);
    }
    FUZZ_CHECK(g->n_ok + g->n_failed + g->n_unfinished == g->n_due);
    FUZZ_CHECK(g->met <= g->n_ok && g->met <= g->met_ttft && g->met <= g->met_tpot);
    FUZZ_CHECK(!g->n_fluid || (g->fluidity >= 0 && g->fluidity <= 1));
}

/* Each hundredth input is written as well: a file takes longer than all the rest. */
static bool is_turn(void)
{
    static int n;
    return ++n % 100 == 0;
}

static void use_runs(struct import_file *f, struct arena *a, FILE *to)
{
    struct figures_slo slo = { 200000000, 20000000, 0, 0 };
    char *argv[] = { (char *)(uintptr_t) "fuzz" };
    for (int i = 0; i < f->n_run && i < 4; i++) {
        struct figures *g = arena_alloc(a, sizeof *g);
        struct err e = { 0 };
        struct prov v;
        figures_of(&f->run[i], f->tool, &slo, a, g);
        check_run(&f->run[i], g);
        import_print_run(f, i, g, &slo, to);
        json_t *j = import_json_run(&f->run[i], g, &slo);
        json_print(j, to);
        json_decref(j);
        if (f->run[i].n_request == 0 || !is_turn()) continue;
        prov_collect(&v, 1, argv);
        fuzz_status(import_store_run(fuzz_path(1), f, &f->run[i], g, &slo, &v, &e), &e);
        FUZZ_CHECK(!e.status);
        prov_release(&v);
    }
}

static void use_points(struct import_file *f, FILE *to)
{
    char *argv[] = { (char *)(uintptr_t) "fuzz" };
    struct err e = { 0 };
    struct prov v;
    for (int i = 0; i < f->n_point; i++)
        for (int64_t k = 0; k < f->point[i].n_sample; k++)
            FUZZ_CHECK(isfinite(f->point[i].s_per_call[k]) && f->point[i].s_per_call[k] > 0);
    import_print_points(f, to);
    json_t *j = import_json_points(f);
    json_decref(j);
    if (!is_turn()) return;
    prov_collect(&v, 1, argv);
    int st = import_store_points(fuzz_path(1), f, &v, &e);
    fuzz_status(st, &e);
    FUZZ_CHECK(st == ST_OK || f->mixed);
    prov_release(&v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static FILE *to;
    struct arena a;
    struct import_file f;
    struct err e = { 0 };
    if (!to) to = tmpfile();
    if (to) rewind(to);
    arena_init(&a);
    int st = import_read(fuzz_file(0, data, n), IMPORT_AUTO, NULL, &a, &f, &e);
    fuzz_status(st, &e);
    if (st == ST_OK && f.n_run > 0) use_runs(&f, &a, to);
    if (st == ST_OK && f.n_run == 0) use_points(&f, to);
    arena_release(&a);
    return 0;
}
