/* tests/accuracy_sim.c - runs scenarios through the simulator's command line and reads its JSON.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/doc.h"
#include "base/pool.h"
#include "tests/accuracy.h"

enum { PROCESSES = 2, MAX_TEXT = 1 << 18 };

struct jobs {
    struct acc_run *run;
    const char *bin, *dir;
};

static double number(const struct doc *d)
{
    char *end;
    if (!d || !d->text || !*d->text) return NAN;
    double v = strtod(d->text, &end);
    return *end ? NAN : v;
}

/* `stem``unit` and the pair `stem`_interval`unit` of a map. */
static struct acc_value value(const struct doc *map, const char *stem, const char *unit, double to)
{
    char key[96];
    snprintf(key, sizeof key, "%s%s", stem, unit);
    struct acc_value v = { number(doc_get(map, key)) * to, NAN, NAN };
    snprintf(key, sizeof key, "%s_interval%s", stem, unit);
    const struct doc *pair = doc_get(map, key);
    if (pair && pair->kind == DOC_LIST && pair->n == 2) {
        v.lo = number(pair->first) * to;
        v.hi = number(pair->first->next) * to;
    }
    return v;
}

static void take(struct acc_run *r, const struct doc *d)
{
    static const char *const metric[] = { "ttft", "tpot", "itl", "e2e" };
    static const char *const stat[] = { "mean", "p50", "p90", "p99" };
    const struct doc *through = doc_get(d, "throughput"), *latency = doc_get(d, "latency");
    for (int m = 0; m < ACC_METRICS; m++)
        for (int s = 0; s < ACC_STATS; s++)
            r->latency[m][s] = value(doc_get(latency, metric[m]), stat[s], "_ns", 1e-9);
    r->requests_per_s = value(through, "requests", "_per_s", 1);
    r->out_tok_per_s = value(through, "output_tokens", "_per_s", 1);
    r->window_s = number(doc_get(doc_get(d, "runs"), "window_s"));
    r->kv_tok = number(doc_get(doc_get(d, "kv"), "blocks")) *
                number(doc_get(doc_get(d, "kv"), "block_tok"));
    double lost = number(doc_get(doc_get(d, "requests"), "rejected")) +
                  number(doc_get(doc_get(d, "requests"), "failed"));
    r->ok = lost == 0;
    if (!r->ok) snprintf(r->note, sizeof r->note, "%g requests were rejected or failed", lost);
}

static void last_words(struct acc_run *r, const char *path)
{
    FILE *f = fopen(path, "r");
    snprintf(r->note, sizeof r->note, "no result");
    if (f && fgets(r->note, sizeof r->note, f)) r->note[strcspn(r->note, "\n")] = 0;
    if (f) fclose(f);
}

static void one(void *arg, int i)
{
    struct jobs *j = arg;
    struct acc_run *r = j->run + i;
    char in[256], said[256], cmd[4096];
    snprintf(in, sizeof in, "%s/%d.yaml", j->dir, i);
    snprintf(said, sizeof said, "%s/%d.err", j->dir, i);
    FILE *f = fopen(in, "w");
    if (!f) return;
    fputs(r->yaml, f);
    fclose(f);
    snprintf(cmd, sizeof cmd, "'%s' simulate '%s' --json --sim.threads=1%s%s%s 2>'%s'", j->bin, in,
             r->out ? " --out='" : "", r->out ? r->out : "", r->out ? "'" : "", said);
    FILE *p = popen(cmd, "r");
    if (!p) return;
    char *text = mem_alloc(MAX_TEXT);
    size_t n = fread(text, 1, MAX_TEXT, p);
    int rc = pclose(p);
    struct arena a;
    struct doc *d;
    arena_init(&a);
    if (rc == 0 && doc_parse_json(&a, "result", text, n, &d, NULL) == ST_OK)
        take(r, d);
    else
        last_words(r, said);
    arena_release(&a);
    free(text);
    unlink(in);
    unlink(said);
}

bool acc_simulate(struct acc *w, struct acc_run *run, int n)
{
    const char *bin = getenv("ORRERY_BIN");
    struct jobs j = { run, bin && *bin ? bin : "./orrery", acc_scratch(w) };
    if (access(j.bin, X_OK) != 0) {
        acc_say(w, "\n* simulator not found: %s\n", j.bin);
        acc_summary(w, "-", "simulated runs", NULL, (size_t)n, "simulator not found");
        return false;
    }
    pool_run(PROCESSES, n, one, &j);
    return true;
}
