/* bench/serving.h - a scenario served by the bundled engine on this machine: model, ranks, KV cache,
 * what is told on the way, and the run file.
 *
 * The scenario is the simulator's, read by the same code. Its hardware is not used: this machine's
 * processors are shared out among the ranks. Numbers of the model's formats, degrees, policy,
 * workload and SLO mean what they mean there. SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_SERVING_H
#define BENCH_SERVING_H

#include "base/progress.h"
#include "bench/journal.h"
#include "bench/noise.h"
#include "bench/tally.h"
#include "engine/monitor.h"
#include "sim/store.h"

struct serving_opts {
    bool json, dry_run, progress, tokens;
    const char *out, *kernels, *device;
    int64_t random_seed, threads, top_k, stall_ns;
    double temperature, top_p;
    int comm, exchange;
    bool share_device;
};
extern const struct conf_row serving_rows[];

struct serving {
    struct scenario *s;
    struct serving_opts o;
    struct monitor_opts monitor_opts;
    char model[4096]; /* path of a directory or a config.json */
    struct spec spec;
    struct engine_opts eo; /* of a replica */
    int split[STRATEGY_MAX_PP];
    int n_replica;
    struct team *crew; /* the replicas' threads, this one among them; NULL where there is one */
    struct engine **engine; /* [n_replica] each opened and driven by its thread */
    struct deploy d;        /* of the sizes that were found, for what prints and stores */
    struct outcome outcome;
    struct metrics m;
    struct tally tally;
    struct monitor *each;   /* [n_replica] */
    struct monitor monitor; /* all together, when it has ended */
    struct serve_result result;
    struct store store;
    struct journal journal;
    struct progress progress;
    struct serve_step *last; /* [n_replica] the latest, for the live line */
    char status[160];        /* the live line */
    int64_t n_row, row_stride, n_request, total;
    double load_s, wall_s;
    struct noise noise;      /* the machine while it served */
    struct noise_span quiet; /* what became of it */
    int64_t read_bytes, weight_bytes, kv_bytes;
    struct err failure; /* what ended the run early; its finished requests are in the file */
    int failed;         /* ST_OK, ST_DEVICE, ST_STOPPED */
    const char *line;   /* what runs where */
};

/* Finds the model, checks all that needs no engine, and settles sizes. random_given: an option said
 * that weights are drawn. Errors: ST_USAGE, ST_IO. */
int serving_prepare(struct serving *v, bool random_given, struct comm_mpi *mpi, struct err *e);
/* Loads, serves, and writes v->o.out if given. A rank that fails or Ctrl-C: v->failed and
 * v->failure; what has finished is in the file all the same. Errors: of what cannot start; ST_IO. */
int serving_run(struct serving *v, int argc, char *const *argv, struct err *e);
void serving_release(struct serving *v);

void serving_print(const struct serving *v, FILE *f);
json_t *serving_json(const struct serving *v);
void serving_store(struct serving *v); /* the monitor's summary, into the open run file */

#endif
