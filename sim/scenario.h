/* sim/scenario.h - a scenario file and command-line options, as one of each: hardware, model,
 * strategy, workload, policy, with an SLO.
 *
 *     title: does TP2-PP4 hold the chat SLO at 8.5 requests/s?
 *     model: llama-3-70b
 *     hardware: dgx-h100
 *     strategy: {tp: 2, pp: 4}
 *     workload: {rate: 8.5/s, requests: 2000, prompt: {mean: 512tok}, output: {mean: 128tok}}
 *     slo: {ttft: 2s, tpot: 100ms, attainment: 0.9}
 *     profile: {host.step: 1.5ms}                      # constants of the kernel laws, set by hand
 *     sweep: {workload.rate: [2/s, 4/s, 8/s]}          # one option, several values
 *
 * A map `monitor` is for an engine that serves the scenario for real; a simulation skips it. Where its
 * options are joined (key monitor.window), no hardware need be named.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_SCENARIO_H
#define SIM_SCENARIO_H

#include "sim/sim.h"

struct scenario_opts { /* keys title, model, hardware.*, record.* */
    const char *title, *model, *hardware, *measured, *kernels;
    int64_t nodes;
    int engine;
    int64_t fixed_ns;
    int64_t bin_ns, span_from_ns, span_for_ns;
    bool steps;
};

enum { SCENARIO_MAX_SWEEP = 256 };
struct scenario {
    const char *path;
    const struct hw
        *hw; /* set by the caller: deployed on this instead of what o.hardware names; NULL */
    struct doc *doc;
    struct conf_set conf;
    int n_own; /* tables of the scenario itself */
    struct scenario_opts o;
    struct strategy strategy;
    struct trace_opts workload;
    struct sched_opts policy;
    struct slo slo;
    struct sim_opts sim;
    struct {
        const char *name;
        double v;
    } profile[P_N];
    int n_profile;
    const char *sweep_key;
    const char *sweep[SCENARIO_MAX_SWEEP];
    int n_sweep;
    struct arena *arena;
};

/* Option tables with their defaults. extra: rows of the command, joined last; may be NULL. */
void scenario_init(struct scenario *s, const struct conf_row *extra, void *extra_base,
                   struct arena *a);
/* File, then options (also profile.NAME=V and sweep=KEY=V1,V2,... ), then checks that need no
 * model. Errors: ST_IO, ST_USAGE with the place in the file. */
int scenario_read(struct scenario *s, const char *path, const struct conf_args *args,
                  struct err *e);
/* The same from text; path is what the file was, for names beside it and for messages. */
int scenario_read_text(struct scenario *s, const char *path, const char *text,
                       const struct conf_args *args, struct err *e);
/* Whether writing out (NULL: nothing) would replace what the scenario reads: its file, the model's with
 * the weights, hardware, profile, kernel tables, trace, lengths; ST_USAGE then. */
int scenario_spares(const struct scenario *s, const char *out, struct err *e);
/* The hardware named, with the measured profile named (hardware.profile), as one node. */
int scenario_hardware(struct scenario *s, struct hw *out, struct err *e);
/* What scenario_deploy asks for on h, which stays the caller's; policy.max_batch_tok is resolved
 * in s. */
void scenario_request(struct scenario *s, const struct hw *h, struct deploy_request *q);
/* Puts the model on the hardware; policy.max_batch_tok is resolved in s. */
int scenario_deploy(struct scenario *s, struct deploy *out, struct err *e);
/* The effective scenario as YAML, defaults included. */
void scenario_echo(const struct scenario *s, FILE *f);
/* "llama-3-70b TP2-PP4-DP1 on dgx-h100 ..." */
const char *scenario_line(const struct scenario *s, const struct deploy *d);
/* Puts "file:line:column: " before a sentence that begins with an option's key; "--key: " where the
 * command line gave the option. */
void scenario_place(const struct scenario *s, struct err *e);

#endif
