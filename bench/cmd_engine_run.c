/* bench/cmd_engine_run.c - `orrery engine run`: a scenario becomes a measured run.
 * SPDX-License-Identifier: Apache-2.0 */
#include "bench/cmd_engine_run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/outfile.h"
#include "base/units.h"
#include "bench/recover.h"
#include "bench/serving.h"
#include "engine/cmd_engine.h"
#include "engine/launch.h"

static const char usage[] =
    "orrery engine run: a scenario served for real on this machine, and measured\n"
    "\n"
    "  orrery engine run SCENARIO.yaml [--out=RUN.h5] [--json] [--dry-run] [--key=value ...]\n"
    "  orrery engine run SCENARIO.yaml --model=DIR\n"
    "  mpirun -n 4 orrery engine run SCENARIO.yaml --strategy.tp=2 --strategy.pp=2\n"
    "\n"
    "The scenario file is the one of `orrery simulate`, and so is the run file; its hardware is "
    "not\n"
    "used. Requests come when the workload says, their prompts are drawn tokens (equal where the\n"
    "workload shares prefixes). Ctrl-C or a rank that fails ends the run early; what has finished "
    "by\n"
    "then is in the run file. Should this process be killed, every request that had finished is "
    "in\n"
    "RUN.h5.journal.csv, of which `orrery engine recover RUN.h5.journal.csv --out=RUN.h5` makes a "
    "run\nfile.\n"
    "strategy.dp: so many replicas of TP x PP ranks each, with a scheduler and a KV cache each, "
    "as\n"
    "threads of one process; requests are spread over them as in simulate (sim.router).\n"
    "Exit status: 0; 1 the SLO is missed; 2 a wrong option or file; 5 reading, writing or a rank\n"
    "failed; 130 interrupted. mpirun gives a rank's, but 1 if it was interrupted itself.\n";
static const char examples[] =
    "\nExamples\n"
    "  orrery engine run scenarios/engine-chat.yaml --out run.h5\n"
    "  orrery engine run scenarios/engine-chat.yaml --strategy.tp=2 --threads=1 --json\n"
    "  orrery report run.h5 --out report.html\n";

struct call {
    struct serving v;
    struct launch l;
    const char *path;
    struct conf_args args;
    int argc;
    char *const *argv; /* with the program's name in front */
    int exit_status;
};

static int written(FILE *f, struct err *e)
{
    return fflush(f) == 0 && !ferror(f) ? ST_OK
                                        : err_set(e, ST_IO, "cannot write the result to stdout");
}

static void show(const struct serving *v)
{
    if (v->o.json) {
        json_t *j = serving_json(v);
        json_print(j, stdout);
        json_decref(j);
    } else {
        serving_print(v, stdout);
    }
}

static int serve(struct call *k, struct err *e)
{
    struct serving *v = &k->v;
    int st = serving_run(v, k->argc, k->argv, e);
    if (st == ST_OK) {
        show(v);
        st = written(stdout, e);
    }
    if (st == ST_OK && v->failed != ST_OK) {
        const struct serve_result *r = &v->result;
        st = err_set(e, v->failed, "%s; %lld of %lld request%s had finished%s%s", v->failure.text,
                     (long long)r->finished, (long long)r->due, units_s(r->due),
                     v->o.out ? ", they are in " : "", v->o.out ? v->o.out : "");
    }
    if (st == ST_OK && !print_slo_held(v->s, &v->outcome)) k->exit_status = 1;
    return st;
}

/* As for simulate, with the monitor's thresholds as a part of the scenario. */
static void join_tables(struct scenario *s, struct serving *v, struct arena *a)
{
    scenario_init(s, NULL, NULL, a);
    conf_add(&s->conf, monitor_rows, &v->monitor_opts, "monitor");
    s->n_own = s->conf.n_table;
    conf_add(&s->conf, serving_rows, &v->o, "command");
}

static int run_verb(struct call *k, struct arena *a, struct err *e)
{
    struct scenario s;
    struct serving *v = &k->v;
    join_tables(&s, v, a);
    v->s = &s;
    int st = conf_args(&s.conf, k->argc - 1, k->argv + 1, &k->args, e);
    if (st != ST_OK) return st;
    if (k->args.help) {
        fputs(usage, stdout);
        conf_help(&s.conf, stdout);
        fputs(examples, stdout);
        return ST_OK; /* whether it went out is main's to see: a reader may leave early */
    }
    if (k->args.n_file != 2)
        return err_set(e, ST_USAGE,
                       "run takes one scenario file, not %d; see orrery engine run "
                       "--help",
                       k->args.n_file - 1);
    k->path = k->args.file[1];
    st = scenario_read(&s, k->path, &k->args, e);
    if (st == ST_OK) st = scenario_spares(&s, v->o.out, e);
    if (st == ST_OK && v->o.out)
        st = scenario_spares(&s, arena_printf(a, "%s.journal.csv", v->o.out), e);
    if (st == ST_OK) st = launch_start(&k->l, (enum launch_comm)v->o.comm, e);
    if (st != ST_OK) return st;
    launch_stall(&k->l, v->o.stall_ns);
    if (k->l.follows) return engine_follow(k->l.mpi, NULL, e);
    if (!v->o.dry_run) st = outfile_check(v->o.out, true, e);
    if (st == ST_OK) st = serving_prepare(v, conf_given(&s.conf, "random_weights"), k->l.mpi, e);
    if (st == ST_OK && v->o.dry_run) {
        printf("# %s\n", v->line);
        scenario_echo(&s, stdout);
        return written(stdout, e);
    }
    if (st == ST_OK) st = serve(k, e);
    serving_release(v);
    return st;
}

static int run_scenario(int argc, char **argv)
{
    struct arena a;
    struct err e = { 0 };
    struct call *k = mem_zalloc(1, sizeof *k);
    static char name[] = "orrery";
    char **full = mem_alloc(((size_t)argc + 2) * sizeof *full);
    full[0] = name;
    for (int i = 0; i <= argc; i++) full[i + 1] = argv[i];
    k->argc = argc + 1;
    k->argv = full;
    k->v.journal.fd = -1;
    arena_init(&a);
    int st = run_verb(k, &a, &e), exit_status = k->exit_status;
    if (st != ST_OK) launch_say(&k->l, "orrery engine", e.text);
    launch_end(&k->l);
    arena_release(&a);
    free(full);
    free(k);
    if (st == ST_OK) return exit_status;
    return st == ST_USAGE || st == ST_RANGE ? 2 : st == ST_STOPPED ? 130 : 5;
}

int cmd_engine_run(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "run") == 0) return run_scenario(argc, argv);
    if (argc > 1 && strcmp(argv[1], "recover") == 0) return recover(argc, argv);
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0))
        fputs("orrery engine run SCENARIO.yaml: a scenario served for real; see `orrery engine run "
              "--help`\n"
              "orrery engine recover JOURNAL --out=RUN.h5: a run file of what a killed run had "
              "finished\n\n",
              stdout);
    return cmd_engine(argc, argv);
}
