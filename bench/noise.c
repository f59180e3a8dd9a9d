/* bench/noise.c - see noise.h. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* ru_nivcsw, sched_getaffinity */
#include "bench/noise.h"

#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/json.h"
#include "base/progress.h"

static double seconds(struct timeval t)
{
    return (double)t.tv_sec + 1e-6 * (double)t.tv_usec;
}

static void add_usage(int who, struct noise_count *c)
{
    struct rusage u;
    if (getrusage(who, &u) != 0) return;
    c->own_s += seconds(u.ru_utime) + seconds(u.ru_stime);
    if (who == RUSAGE_SELF) c->switches = (double)u.ru_nivcsw;
}

/* The processors that the process might use when it was first asked, before it pinned its threads; all
 * of the machine, where it has more than a set holds. */
static const cpu_set_t *may(void)
{
    static cpu_set_t set;
    static bool seen, told;
    if (!seen) told = sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0;
    seen = true;
    return told ? &set : NULL;
}

/* cpuN  user nice system idle iowait irq softirq steal ... in 1 / _SC_CLK_TCK s */
void noise_count(struct noise_count *c)
{
    enum { USER, NICE, SYSTEM, IDLE, IOWAIT, IRQ, SOFTIRQ, STEAL, N_FIELD };
    double v[N_FIELD], tick = (double)sysconf(_SC_CLK_TCK);
    *c = (struct noise_count){ .wall_s = 1e-9 * (double)clock_mono_ns() };
    add_usage(RUSAGE_SELF, c);
    add_usage(RUSAGE_CHILDREN, c);
    FILE *f = fopen("/proc/stat", "r");
    char line[256];
    while (f && fgets(line, sizeof line, f) && strncmp(line, "cpu", 3) == 0) {
        char *at = line + 3;
        if (*at == ' ') continue; /* all of them */
        long cpu = strtol(at, &at, 10);
        if (may() && (cpu < 0 || cpu >= CPU_SETSIZE || !CPU_ISSET(cpu, may()))) continue;
        for (int i = 0; i < N_FIELD; i++) v[i] = strtod(at, &at);
        c->busy_s += (v[USER] + v[NICE] + v[SYSTEM] + v[IRQ] + v[SOFTIRQ]) / tick;
        c->steal_s += v[STEAL] / tick;
    }
    if (f) fclose(f);
}

/* About half a millisecond that no compiler takes out. */
static double spin_s(void)
{
    enum { ROUNDS = 200000 };
    volatile uint64_t sink;
    uint64_t x = 88172645463325252u;
    int64_t t0 = clock_mono_ns();
    for (int i = 0; i < ROUNDS; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    sink = x;
    (void)sink;
    return 1e-9 * (double)(clock_mono_ns() - t0);
}

int noise_cpus(void)
{
    long cpus = may() ? CPU_COUNT(may()) : sysconf(_SC_NPROCESSORS_ONLN);
    return cpus > 1 ? (int)cpus : 1;
}

void noise_init(struct noise *n)
{
    *n = (struct noise){ .cpus = noise_cpus(), .spin_best_s = INFINITY };
    for (int i = 0; i < 5; i++) n->spin_best_s = fmin(n->spin_best_s, spin_s());
    noise_count(&n->last);
}

static double at_least_0(double x)
{
    return x > 0 ? x : 0;
}

bool noise_judge(struct noise *n, const struct noise_count *now, double spin_ratio)
{
    const struct noise_count *was = &n->last;
    double wall = now->wall_s - was->wall_s, all = wall * n->cpus;
    if (wall <= 0) return false;
    n->steal_ratio = fmin(1, at_least_0(now->steal_s - was->steal_s) / all);
    double others_s = now->busy_s - was->busy_s - (now->own_s - was->own_s);
    n->others_ratio = at_least_0(others_s - n->helpers * wall) / all;
    n->switches_per_s = at_least_0(now->switches - was->switches) / wall;
    n->spin_ratio = spin_ratio;
    n->last = *now;
    n->worst_steal = fmax(n->worst_steal, n->steal_ratio);
    n->worst_others = fmax(n->worst_others, n->others_ratio);
    return n->steal_ratio > NOISE_STEAL || n->others_ratio > NOISE_OTHERS ||
           (n->switches_per_s > NOISE_SWITCHES && !n->crowded) || spin_ratio > NOISE_SPIN;
}

static double load_now(void)
{
    double x = 0;
    return getloadavg(&x, 1) == 1 ? x : 0;
}

bool noise_look(struct noise *n, struct points_noise *out)
{
    struct noise_count now;
    double spin = spin_s();
    if (spin < n->spin_best_s) n->spin_best_s = spin;
    noise_count(&now);
    bool busy = noise_judge(n, &now, spin / n->spin_best_s);
    out->load = load_now();
    out->steal_ratio = n->steal_ratio;
    out->spin_s = spin;
    return busy;
}

/* ---- a run */

/* Of the processors, mean: what the driver sets them to, else what the processor says it runs at. */
static double clock_hz(int cpus)
{
    double sum = 0, v;
    int n = 0;
    char path[96], line[256];
    for (int i = 0; i < cpus; i++) {
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cpufreq/scaling_cur_freq", i);
        FILE *f = fopen(path, "r");
        if (!f) break;
        v = fgets(line, sizeof line, f) ? strtod(line, NULL) : 0;
        if (v > 0) sum += 1e3 * v, n++;
        fclose(f);
    }
    FILE *f = n ? NULL : fopen("/proc/cpuinfo", "r");
    while (f && fgets(line, sizeof line, f)) {
        const char *colon = strncmp(line, "cpu MHz", 7) == 0 ? strchr(line, ':') : NULL;
        v = colon ? strtod(colon + 1, NULL) : 0;
        if (v > 0) sum += 1e6 * v, n++;
    }
    if (f) fclose(f);
    return n ? sum / n : 0;
}

void noise_begin(struct noise *n, double helpers, bool crowded, struct noise_span *x)
{
    noise_init(n);
    n->helpers = helpers;
    n->crowded = crowded;
    *x = (struct noise_span){ .load_begin = load_now(), .clock_begin_hz = clock_hz(n->cpus) };
}

void noise_end(struct noise *n, struct noise_span *x)
{
    double begin_s = n->last.wall_s;
    struct points_noise look;
    bool busy = noise_look(n, &look);
    x->wall_s = n->last.wall_s - begin_s;
    bool counted = x->wall_s >= NOISE_LEAST_S;
    x->steal_ratio = counted ? n->steal_ratio : NAN;
    x->others_ratio = counted ? n->others_ratio : NAN;
    x->disturbed = counted ? busy : n->spin_ratio > NOISE_SPIN;
    x->crowded = n->crowded;
    x->switches_per_s = n->switches_per_s;
    x->spin_ratio = n->spin_ratio;
    x->load_end = look.load;
    x->clock_end_hz = clock_hz(n->cpus);
}

void noise_print(const struct noise_span *x, FILE *f)
{
    const char *between = "NOISY       the machine was disturbed: ";
    if (!x->disturbed) return;
    if (x->others_ratio > NOISE_OTHERS) {
        fprintf(f, "%s%.0f %% of the processors went to other work", between,
                100 * x->others_ratio);
        between = "; ";
    }
    if (x->steal_ratio > NOISE_STEAL) {
        fprintf(f, "%sthe hypervisor took %.1f %% of them", between, 100 * x->steal_ratio);
        between = "; ";
    }
    if (x->switches_per_s > NOISE_SWITCHES && !x->crowded) {
        fprintf(f, "%sthreads lost theirs %.0f times a second", between, x->switches_per_s);
        between = "; ";
    }
    if (x->spin_ratio > NOISE_SPIN)
        fprintf(f, "%sa loop of fixed work took %.2f times as long as before it", between,
                x->spin_ratio);
    fputc('\n', f);
}

enum { N_FIGURE = 8 };
struct figure {
    const char *name;
    double v;
};

static void figures(const struct noise_span *x, struct figure out[N_FIGURE])
{
    const struct figure all[N_FIGURE] = {
        { "steal_ratio", x->steal_ratio },       { "others_ratio", x->others_ratio },
        { "switches_per_s", x->switches_per_s }, { "spin_ratio", x->spin_ratio },
        { "load_begin", x->load_begin },         { "load_end", x->load_end },
        { "clock_begin_hz", x->clock_begin_hz }, { "clock_end_hz", x->clock_end_hz }
    };
    memcpy(out, all, sizeof all);
    if (x->clock_begin_hz <= 0) out[6].v = NAN;
    if (x->clock_end_hz <= 0) out[7].v = NAN;
}

void noise_json(const struct noise_span *x, json_t *j)
{
    struct figure q[N_FIGURE];
    char path[64];
    if (x->wall_s <= 0) return;
    figures(x, q);
    json_put_bool(j, "noise.disturbed", x->disturbed);
    for (int i = 0; i < N_FIGURE; i++) {
        snprintf(path, sizeof path, "noise.%s", q[i].name);
        json_put_f64(j, path, q[i].v);
    }
}

int noise_store(const struct noise_span *x, h5 *f, const char *object, struct err *e)
{
    struct figure q[N_FIGURE];
    char name[64];
    if (x->wall_s <= 0) return ST_OK;
    figures(x, q);
    int st = h5_attr_i64(f, object, "noise_disturbed", x->disturbed, e);
    for (int i = 0; i < N_FIGURE && st == ST_OK; i++) {
        snprintf(name, sizeof name, "noise_%s", q[i].name);
        st = h5_attr_f64(f, object, name, q[i].v, e);
    }
    return st;
}
