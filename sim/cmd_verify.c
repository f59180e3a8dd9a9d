/* sim/cmd_verify.c - `orrery verify`: is this strategy possible on this hardware, and if not, what is?
 * SPDX-License-Identifier: Apache-2.0 */
#include "sim/cmd_verify.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/outfile.h"
#include "base/paths.h"
#include "base/pool.h"
#include "sim/verify_page.h"

static const char usage[] =
    "orrery verify: is this strategy possible on this hardware, and if not, what is?\n"
    "\n"
    "  orrery verify SCENARIO.yaml [--on=HARDWARE | --detect] [--simulate=auto|no|yes] "
    "[--suggest]\n"
    "                [--alternatives=auto|no|yes] [--out=REPORT.html|.md] [--dot=FILE] "
    "[--svg=FILE] [--json]\n"
    "\n"
    "What is planned stands in the scenario; what is there is the same hardware, or what --on or "
    "--detect\n"
    "says. --on takes a system or GPU of the catalog, a YAML file like one, the text of "
    "`nvidia-smi topo -m`,\n"
    "or an hwloc or NCCL topology file (with --gpu=NAME where it does not name the GPU).\n"
    "Options of the scenario may follow as --key=value. Exit status: 0 compatible; 1 not; 2 a "
    "wrong option or\n"
    "file; 5 reading, writing or a device failed.\n";
static const char examples[] =
    "\nExamples\n"
    "  orrery verify scenarios/verify-llama3-70b.yaml --on=t4-1\n"
    "  orrery verify scenarios/llama3-70b-tp2pp4.yaml --json | jq '{compatible, score}'\n"
    "  orrery verify scenarios/llama3-70b-tp2pp4.yaml --detect --out=report.html\n"
    "  orrery verify scenarios/smoke.yaml --verify.context=8192tok --verify.batch=64\n"
    "  orrery verify scenarios/llama3-70b-tp8.yaml --suggest --verify.urgency=cost\n";

enum { AUTO, NO, YES };
#define AUTO_WORDS "auto no yes"

struct cmd {
    bool json, detect, suggest;
    int simulate, alternatives;
    int64_t nodes, threads;
    const char *on, *gpu, *storage, *out, *dot, *svg;
    struct verify_ask ask;
};
#define AT(m) offsetof(struct cmd, m)
/* clang-format off */
static const struct conf_row rows[] = {
    { "on", CONF_TEXT, AT(on), NULL, NULL, 0, 0, "hardware that is there: catalog name, YAML or topology file" },
    { "detect", CONF_BOOL, AT(detect), "no", NULL, 0, 0, "read this machine: NVML, hwloc, SLURM" },
    { "gpu", CONF_TEXT, AT(gpu), NULL, NULL, 0, 0, "catalog name of the GPU that a topology does not name" },
    { "storage", CONF_TEXT, AT(storage), NULL, NULL, 0, 0, "file or directory whose read rate --detect measures" },
    { "simulate", CONF_WORD, AT(simulate), "auto", AUTO_WORDS, 0, 0, "the SLO by simulation; auto: where the plan fits" },
    { "alternatives", CONF_WORD, AT(alternatives), "auto", AUTO_WORDS, 0, 0,
      "plans that work; auto: unless compatible or not simulated" },
    { "suggest", CONF_BOOL, AT(suggest), "no", NULL, 0, 0, "rank TP, PP and DP for the GPUs at hand" },
    { "out", CONF_TEXT, AT(out), NULL, NULL, 0, 0, "report to write: .html or .md; appears when complete" },
    { "dot", CONF_TEXT, AT(dot), NULL, NULL, 0, 0, "graph of the plan as Graphviz text" },
    { "svg", CONF_TEXT, AT(svg), NULL, NULL, 0, 0, "graph of the plan as a drawing" },
    { "json", CONF_BOOL, AT(json), "no", NULL, 0, 0, "one JSON object on stdout instead of text" },
    { "verify.nodes", CONF_INT, AT(nodes), "1", NULL, 1, 1e6, "nodes that are there, with --on a system" },
    { "verify.context", CONF_TOKENS, AT(ask.context), "0tok", NULL, 0, 1e9,
      "context that must fit; 0tok: the longest request, as a warning" },
    { "verify.batch", CONF_INT, AT(ask.batch), "0", NULL, 0, 1e6, "sequences of that context at once; 0: one" },
    { "verify.urgency", CONF_WORD, AT(ask.urgency), "latency", VERIFY_URGENCY_WORDS, 0, 0, "what --suggest ranks by" },
    { "verify.max_gpus", CONF_INT, AT(ask.max_gpus), "64", NULL, 1, 4096, "of an alternative" },
    { "verify.node_power", CONF_WATT, AT(ask.node_w), "0W", NULL, 0, 1e7, "limit of the site for a node; 0W: none" },
    { "verify.rack_power", CONF_WATT, AT(ask.rack_w), "0W", NULL, 0, 1e8, "limit of a rack, power and cooling; 0W: none" },
    { "verify.rack_nodes", CONF_INT, AT(ask.rack_nodes), "0", NULL, 0, 1e6, "nodes in a rack; 0: all" },
    { "verify.load_time", CONF_TIME, AT(ask.load_ns), "0s", NULL, 0, 1e6, "longest time to load weights; 0s: any" },
    { "verify.threads", CONF_INT, AT(threads), "0", NULL, 0, 1024, "for alternatives; 0: one a processor" },
    { .type = CONF_END }
};
/* clang-format on */
#undef AT

struct call {
    struct cmd c;
    struct conf_args args;
    struct arena *a;
    struct scenario s;
    struct hw planned, found;
    bool none;  /* no GPU was found */
    bool fixed; /* there are no more nodes than found says */
    struct topo topo;
    struct verify_load load;
    struct verify_case one, two;
    struct verify_report r;
};

/* ---- what is there */

/* Catalog entries, YAML files and measured profiles are hardware; other files describe a machine. */
static bool is_description(const char *name)
{
    size_t n = strlen(name);
    bool yaml = (n > 5 && strcmp(name + n - 5, ".yaml") == 0) ||
                (n > 4 && strcmp(name + n - 4, ".yml") == 0) ||
                (n > 3 && strcmp(name + n - 3, ".h5") == 0);
    return !yaml && strpbrk(name, "./") && access(name, F_OK) == 0;
}

static int look(struct call *k, struct err *e)
{
    const char *on = k->c.on;
    int st = scenario_hardware(&k->s, &k->planned, e);
    if (st != ST_OK) {
        scenario_place(&k->s, e);
        return st;
    }
    k->found = k->planned;
    if (on && k->c.detect) return err_set(e, ST_USAGE, "--on and --detect both say what is there");
    if (!on && !k->c.detect) return ST_OK;
    k->fixed = true;
    if (on && !is_description(on)) {
        st = hw_load(on, NULL, (int)k->c.nodes, k->a, &k->found, e);
        if (st != ST_OK) err_prefix(e, "--on");
        return st;
    }
    st = on ? topo_read(on, k->a, &k->topo, e) : topo_detect(k->c.storage, k->a, &k->topo, e);
    if (st != ST_OK) return st;
    k->r.topo = &k->topo;
    k->none = k->topo.n_gpu == 0;
    if (k->none) return ST_OK;
    struct err why = { 0 };
    st = topo_to_hw(&k->topo, k->c.gpu, k->a, &k->found, &why);
    if (st == ST_OK) return st;
    return err_set(e, st, "%s%s", why.text, k->c.gpu ? "" : " (--gpu=NAME)");
}

/* ---- models known, for smaller ones of a family */

static int by_text(const void *x, const void *y)
{
    return strcmp(*(const char *const *)x, *(const char *const *)y);
}

enum { MAX_MODEL = 256 };
static int list_models(struct arena *a, const char **name)
{
    char path[1024];
    int n = 0;
    DIR *dir =
        paths_find("scenarios/models", path, sizeof path, NULL) == ST_OK ? opendir(path) : NULL;
    if (!dir) return 0;
    for (const struct dirent *f; n < MAX_MODEL && (f = readdir(dir));) {
        size_t len = strlen(f->d_name);
        if (len > 5 && f->d_name[0] != '.' && strcmp(f->d_name + len - 5, ".json") == 0)
            name[n++] = arena_copy_text(a, f->d_name, len - 5);
    }
    closedir(dir);
    qsort(name, (size_t)n, sizeof *name, by_text);
    return n;
}

/* ---- files */

static int write_report(const struct call *k, const struct verify_doc *d, struct err *e)
{
    const char *path = k->c.out;
    struct outfile o;
    const char *title = arena_printf(k->a, "Verify: %s", verify_plan_text(k->r.plan, k->a));
    if (outfile_open(&o, path, e) != ST_OK) return ST_IO;
    if (paths_ends_in(path, ".md"))
        verify_doc_markdown(d, title, o.f);
    else
        verify_doc_html(d, title, o.f);
    return outfile_close(&o, e);
}

static int write_text(const char *path, const char *text, struct err *e)
{
    return outfile_write(path, text, strlen(text), e);
}

static int write_all(struct call *k, struct err *e)
{
    struct verify_doc d = { .a = k->a };
    int st = ST_OK;
    verify_page(&k->r, &d);
    if (k->c.dot) st = write_text(k->c.dot, verify_dag_dot(k->r.plan), e);
    if (st == ST_OK && k->c.svg) st = write_text(k->c.svg, verify_dag_svg(k->r.plan), e);
    if (st == ST_OK && k->c.out) st = write_report(k, &d, e);
    if (st != ST_OK) return st;
    if (k->c.json) {
        json_t *j = verify_json(&k->r);
        json_print(j, stdout);
        json_decref(j);
    } else {
        verify_doc_text(&d, stdout);
    }
    return ST_OK;
}

/* ---- the verdict */

/* The checks on what is there, and simulate's own acceptance. What it refuses although no check fails is
 * wrong in itself (a missing kernel table, say) and is told as simulate tells it. */
static int judge(struct call *k, const struct verify_in *in, struct err *e)
{
    struct err refusal = { 0 };
    struct verify_case *c = &k->one;
    int st = verify_case_open(c, in, k->a, e);
    if (st != ST_OK) return st;
    k->r.c = k->r.plan = c;
    verify_case_check(c);
    bool possible = verify_possible(c);
    st = c->none ? ST_USAGE : verify_case_deploy(c, &refusal);
    if (st != ST_OK && possible) return err_set(e, st, "%s", refusal.text);
    if (st == ST_OK && possible && k->c.simulate != NO) {
        struct verify_sim how = { .threads = (int)k->c.threads, .checks = true };
        st = verify_simulate(c, &how, &k->r.run, e);
        if (st != ST_OK) return st;
    }
    k->r.compatible = c->deploy && verify_possible(c);
    k->r.score = verify_score(c);
    return ST_OK;
}

/* Where the plan cannot stand on what is there, it is divided and drawn on what it was made for. */
static int open_plan(struct call *k, const struct verify_in *in, struct err *e)
{
    if (k->r.compatible || !k->fixed) return ST_OK;
    struct verify_in planned = *in;
    planned.hw = &k->planned;
    planned.fixed = planned.none = false;
    int st = verify_case_open(&k->two, &planned, k->a, e);
    if (st == ST_OK) k->r.plan = &k->two;
    return st;
}

static int verify(struct call *k, struct err *e)
{
    const char *model[MAX_MODEL];
    int st = look(k, e);
    if (st == ST_OK) st = verify_load_count(&k->s, &k->load, e);
    if (st != ST_OK) return st;
    struct verify_in in = { .base = &k->s,
                            .hw = &k->found,
                            .ask = &k->c.ask,
                            .load = &k->load,
                            .fixed = k->fixed,
                            .none = k->none };
    st = judge(k, &in, e);
    if (st == ST_OK) st = open_plan(k, &in, e);
    if (st != ST_OK) return st;
    struct verify_world w = { .in = &in,
                              .models = model,
                              .simulate = k->c.simulate != NO,
                              .threads = k->c.threads ? (int)k->c.threads : pool_cpus() };
    w.n_model = list_models(k->a, model);
    k->r.with_alts =
        k->c.alternatives == YES || (k->c.alternatives == AUTO && !k->r.compatible && w.simulate);
    k->r.with_advice = k->c.suggest;
    if (k->r.with_alts) st = verify_alternatives(&w, k->a, &k->r.alts, e);
    if (st == ST_OK && k->r.with_advice) st = verify_suggest(&w, k->a, &k->r.advice, e);
    return st == ST_OK ? write_all(k, e) : st;
}

static int run_verb(struct call *k, int argc, char **argv, struct err *e)
{
    scenario_init(&k->s, rows, &k->c, k->a);
    int st = conf_args(&k->s.conf, argc, argv, &k->args, e);
    if (st != ST_OK) return st;
    if (k->args.help) {
        fputs(usage, stdout);
        conf_help(&k->s.conf, stdout);
        fputs(examples, stdout);
        return ST_OK;
    }
    if (k->args.n_file != 1)
        return err_set(e, ST_USAGE, "takes one scenario file, not %d; see orrery verify --help",
                       k->args.n_file);
    st = scenario_read(&k->s, k->args.file[0], &k->args, e);
    if (st != ST_OK) return st;
    if (k->c.out && !paths_ends_in(k->c.out, ".html") && !paths_ends_in(k->c.out, ".md"))
        return err_set(e, ST_USAGE, "--out: '%.200s' ends neither in .html nor in .md", k->c.out);
    const char *to[] = { k->c.out, k->c.dot, k->c.svg };
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < i; j++)
            if (to[i] && to[j] && strcmp(to[i], to[j]) == 0)
                return err_set(e, ST_USAGE, "--out, --dot and --svg: two are '%.200s'", to[i]);
    return verify(k, e);
}

int cmd_verify(int argc, char **argv)
{
    struct arena a;
    struct err e = { 0 };
    arena_init(&a);
    struct call *k = arena_alloc(&a, sizeof *k);
    k->a = &a;
    int st = run_verb(k, argc, argv, &e);
    int exit_status = k->args.help || k->r.compatible ? 0 : 1;
    arena_release(&a);
    if (st == ST_OK) return exit_status;
    fprintf(stderr, "orrery verify: %s\n", e.text);
    return st == ST_USAGE || st == ST_RANGE ? 2 : st == ST_STOPPED ? 130 : 5;
}
