/* bench/cmd_calibrate.c - `orrery calibrate`: a profile from what was measured.
 * SPDX-License-Identifier: Apache-2.0 */
#include "bench/cmd_calibrate.h"
#include "base/outfile.h"

#include <stdio.h>
#include <stdlib.h>

#include "bench/calibrate.h"

static const char usage[] =
    "orrery calibrate: the constants of the kernel laws from what was measured on a machine\n"
    "\n"
    "  orrery calibrate FILE.h5 ... --out=PROFILE.h5 [--json] [--dry-run]\n"
    "  orrery calibrate IMPORTED.h5 --scenario=SCENARIO.yaml --out=PROFILE.h5\n"
    "\n"
    "Files are points of `orrery bench` (also imported ones of nccl-tests) and measured runs of\n"
    "`orrery engine run`. Points give the laws of operators and messages; steps of the runs give "
    "the\n"
    "host's times, rank skew and a common factor; runs of another strategy, model or number "
    "format\n"
    "than the points' give the host's times at most. Each file is printed with the constants that\n"
    "it gave, and counts once. Each law is printed with its constants, the 90 % interval of each,\n"
    "its error on the points it was fitted to and on sites it was not (held out), the range it\n"
    "covers, and what the points leave open. The times of single operators\n"
    "are kept too (--tables=no: not): for the model, TP degree and format they were measured "
    "with,\n"
    "the simulator takes them instead of the laws of products and element-wise work. A scenario "
    "uses\n"
    "all of it by hardware: {profile: PROFILE.h5}.\n"
    "\n"
    "A run that `orrery import` read from another engine's benchmark has no steps. With the "
    "scenario\n"
    "it was (hardware, model, strategy, policy), its requests are simulated, and host.step,\n"
    "host.request and the common factor are moved from the catalog's values until they agree:\n"
    "hardware: {name: dgx-h100, profile: PROFILE.h5}.\n"
    "\n"
    "Points whose result was wrong are left out, and counted; a warning says so, as it does of an\n"
    "interrupted benchmark and of constants that are not plausible. What of it a busy machine "
    "gave\n"
    "stays in the profile: simulations with it say NOISY PROFILE.\n"
    "\n"
    "Exit status: 0; 2 a wrong option or file, or nothing that can be fitted; 4 all points of a "
    "file\n"
    "gave wrong results; 5 reading or writing failed. Nothing is written unless all of it "
    "succeeds.\n"
    "\n";
static const char examples[] = "\nExamples\n"
                               "  orrery bench --suite=model --model=llama-25m --out=bench.h5\n"
                               "  orrery engine run scenarios/engine-chat.yaml --out=run.h5\n"
                               "  orrery calibrate bench.h5 run.h5 --out=here.h5\n"
                               "  orrery simulate scenarios/engine-chat.yaml "
                               "--hardware=here.h5\n"
                               "  orrery calibrate nccl.h5 --out=links.h5 --json | jq .laws\n";

static int written(struct err *e)
{
    return fflush(stdout) == 0 && !ferror(stdout)
               ? ST_OK
               : err_set(e, ST_IO, "cannot write the result to stdout");
}

static int work(struct calibrate *c, const struct conf_args *args, int argc, char **argv,
                struct err *e)
{
    int st = ST_OK;
    if (args->n_file == 0)
        return err_set(e, ST_USAGE,
                       "calibrate takes files of points and measured runs; see orrery "
                       "calibrate --help");
    if (!c->o.dry_run) st = outfile_check(c->o.out, true, e);
    for (int i = 0; i < args->n_file && st == ST_OK; i++) {
        st = outfile_spares(c->o.out, args->file[i], e);
        if (st == ST_OK) st = calibrate_add(c, args->file[i], e);
    }
    if (st == ST_OK) st = c->o.dry_run ? calibrate_plan(c, e) : calibrate_fit(c, e);
    if (st == ST_OK && !c->o.dry_run) st = calibrate_write(c, argc, argv, e);
    if (st != ST_OK) return st;
    if (c->o.json) {
        json_t *j = calibrate_json(c);
        json_print(j, stdout);
        json_decref(j);
    } else {
        calibrate_print(c, stdout);
    }
    return written(e);
}

static int run_verb(int argc, char **argv, struct arena *a, bool *invalid, struct err *e)
{
    struct calibrate_opts o = { 0 };
    struct conf_set set;
    struct conf_args args;
    conf_init(&set, a);
    conf_add(&set, calibrate_rows, &o, "calibrate");
    int st = conf_args(&set, argc, argv, &args, e);
    if (st == ST_OK && args.help) {
        fputs(usage, stdout);
        conf_help(&set, stdout);
        fputs(examples, stdout);
        return written(e);
    }
    if (st == ST_OK) st = conf_apply_args(&set, &args, e);
    if (st != ST_OK) return st;
    struct calibrate *c = mem_zalloc(1, sizeof *c);
    char **full = mem_alloc(((size_t)argc + 1) * sizeof *full);
    static char name[] = "orrery";
    full[0] = name;
    for (int i = 0; i < argc; i++) full[i + 1] = argv[i];
    calibrate_init(c, &o, a);
    st = work(c, &args, argc + 1, full, e);
    *invalid = c->invalid;
    calibrate_release(c);
    free(full);
    free(c);
    return st;
}

int cmd_calibrate(int argc, char **argv)
{
    struct arena a;
    bool invalid = false;
    struct err e = { 0 };
    arena_init(&a);
    int st = run_verb(argc, argv, &a, &invalid, &e);
    if (st != ST_OK) fprintf(stderr, "orrery calibrate: %s\n", e.text);
    arena_release(&a);
    if (invalid) return 4;
    return st == ST_OK ? 0 : st == ST_USAGE || st == ST_RANGE ? 2 : st == ST_STOPPED ? 130 : 5;
}
